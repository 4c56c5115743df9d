"""The filter of pairs: one panel of widgets for the Review and the Pairs page, and its agreement with the URL."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import streamlit as st

from core.errors import SettingsError
from core.filters import PAIR_ORDERS, PAIR_STATES, PairFilter, ScoreRange
from db import fits, pair_lists, pair_queue
from db.service import Service
from db.store import Store
from pages import _rows, _ui

T = TypeVar("T")
Range = tuple[float | None, float | None]
OWN_RANGES = {
    "ifd": "IFD of the reflected",
    "r_ifd": "r-IFD of the reflected",
    "gain": "IFD gain (reflected − original)",
}
MULTIPLE = ("datasets", "stages", "methods", "proposals", "reviewers")
LONGEST_TEXT = 400
LARGEST_SEED, LARGEST_PAIR = 2**31 - 1, 2**53 - 1  # a browser counts no further
STATE_HELP = (
    "**disputed**: reviewers of a campaign disagree, and nobody has settled it. **decided** counts what stands now; "
    "**skipped** were put off and are not decided."
)


@dataclass(frozen=True)
class Facets:
    """What there is to filter by: names of datasets, values that occur, names of scorers of candidates, of lists, of
    rules, and of those who decided.

    ``version`` is that of the store (``pair_queue.version``) when it was looked at.
    """

    version: str
    datasets: Mapping[int, str]
    values: Mapping[str, Sequence[str]]
    scorers: Mapping[int, Mapping[str, Any]]
    scorer_names: Mapping[int, str]
    lists: Mapping[int, str]
    rules: Mapping[int, str]
    people: Mapping[str, str]


@st.cache_data(max_entries=8, show_spinner=False)
def _scorers(_store: Store, path: str, version: str) -> list[dict[str, Any]]:
    return pair_queue.candidate_scorers(_store)


def facets(service: Service) -> Facets:
    """What the store holds now."""
    store = service.store
    version = pair_queue.version(store)
    found = pair_queue.facets(store)
    scorers = {s["scorer_id"]: s for s in _scorers(store, str(store.path), version)}
    lists = {row["list_id"]: f"{row['name']} ({row['n_pairs']:,})" for row in pair_lists.lists(store)}
    rules = {row["rule_id"] or 0: row["name"] for row in fits.rules(store)}
    return Facets(
        version=version,
        datasets=_ui.distinct(dict(found["datasets"])),
        values={name: found[name] for name in MULTIPLE if name != "datasets"},
        scorers=scorers,
        scorer_names=_ui.distinct(_rows.labels(list(scorers.values()))),
        lists=_ui.distinct(lists),
        rules=_ui.distinct(rules),
        people=_ui.people_names(store, found["reviewers"]),
    )


# --- widgets and filter ---


def seed(prefix: str, filters: PairFilter) -> None:
    """Put ``filters`` into the widgets of the panel ``prefix``; call it before the panel is drawn, or in a callback."""
    state = st.session_state
    for name in MULTIPLE:
        state[prefix + name] = list(getattr(filters, name))
    for name in ("state", "order", "seed", "text", "words"):
        state[prefix + name] = getattr(filters, name)
    state[prefix + "list"], state[prefix + "like"] = filters.pair_list, filters.similar_to
    state[prefix + "rule"] = filters.rule or 0
    ranges: dict[str, Range] = {name: getattr(filters, name) for name in OWN_RANGES}
    ranges |= {str(r.scorer_id): (r.low, r.high) for r in filters.scores}
    used = {name: ends for name, ends in ranges.items() if ends != (None, None) or name not in OWN_RANGES}
    state[prefix + "ranges"] = list(used)
    for name, ends in used.items():
        state[f"{prefix}low-{name}"], state[f"{prefix}high-{name}"] = ends


def of_widgets(prefix: str) -> PairFilter | None:
    """What the widgets say, or None where they are not there (first run, or back from another page)."""
    state = st.session_state
    if prefix + "state" not in state or prefix + "ranges" not in state:
        return None
    ranges: dict[str, Range] = {
        name: (state.get(f"{prefix}low-{name}"), state.get(f"{prefix}high-{name}")) for name in state[prefix + "ranges"]
    }
    order = state[prefix + "order"]
    named: dict[str, Any] = {name: tuple(state.get(prefix + name, ())) for name in MULTIPLE}
    named |= {name: ends for name, ends in ranges.items() if name in OWN_RANGES}
    return PairFilter(
        **named,
        scores=tuple(ScoreRange(int(name), *ends) for name, ends in ranges.items() if name not in OWN_RANGES),
        state=state[prefix + "state"],
        order=order,
        seed=int(state.get(prefix + "seed") or 0) if order == "random" else 0,
        text=state.get(prefix + "text") or "",
        words=bool(state.get(prefix + "words")) and bool(state.get(prefix + "text")),
        pair_list=state.get(prefix + "list"),
        similar_to=state.get(prefix + "like") if order == "most similar" else None,
        rule=(state.get(prefix + "rule") or None) if order == "closest to the rule's cut" else None,
    )


def known(filters: PairFilter, there: Facets) -> PairFilter:
    """The filter without what is not in the store (a removed dataset, a list that was forgotten) or fits no widget."""
    kept: dict[str, Any] = {
        name: tuple(v for v in getattr(filters, name) if v in there.values[name]) for name in there.values
    }
    return replace(
        filters,
        **kept,
        datasets=tuple(d for d in filters.datasets if d in there.datasets),
        scores=tuple(r for r in filters.scores if r.scorer_id in there.scorers),
        text=filters.text[:LONGEST_TEXT],
        seed=min(filters.seed, LARGEST_SEED),
        similar_to=filters.similar_to if 1 <= (filters.similar_to or 0) <= LARGEST_PAIR else None,
        pair_list=filters.pair_list if filters.pair_list in there.lists else None,
        rule=filters.rule if filters.rule in there.rules else None,
    )


def of_url(there: Facets) -> PairFilter:
    """The filter of the link; says what it cannot read or what is gone."""
    try:
        asked = PairFilter.from_params(st.query_params.to_dict())
    except SettingsError as error:
        st.warning(_ui.plain(str(error)), icon=":material/link_off:")
        return PairFilter()
    there = _with_older_list(asked, there)
    kept = known(asked, there)
    if kept != asked:
        st.warning(
            "This link names a dataset, a score, a person, a list or a rule that is not in the store, or a number "
            "that is too large; that part of the filter was left out.",
            icon=":material/link_off:",
        )
    return kept


def _with_older_list(filters: PairFilter, there: Facets) -> Facets:
    """The facets with the list of a link, which may be older than those offered."""
    if filters.pair_list is None or filters.pair_list in there.lists:
        return there
    found = pair_lists.pair_list(_ui.current_service().store, filters.pair_list)
    if found is None:
        return there
    name = f"{found['name']} ({found['n_pairs']:,})"
    return replace(there, lists=_ui.distinct({**there.lists, filters.pair_list: name}))


def label(filters: PairFilter, *, with_order: bool = True) -> str:
    """The filter in a few words, for a button (Markdown)."""
    n = filters.n_narrowed
    more = f" · {n} more filter{'s' if n > 1 else ''}" if n else ""
    return _ui.plain(filters.state + (f" · {filters.order}" if with_order else "")) + more


# --- the panel ---


def panel(there: Facets, *, prefix: str, columns: int = 2, with_text: bool = True) -> PairFilter:
    """Draw the widgets (seeded before, :func:`seed`) and return what they say.

    ``columns``: 2 in a popover, 4 across a page. ``with_text``: also the box of the search.
    """
    state = st.session_state
    filters = of_widgets(prefix) or PairFilter()
    there = _with_older_list(filters, there)
    kept = known(filters, there)
    if kept != filters or prefix + "state" not in state:
        seed(prefix, kept)
    if with_text:
        text_box(prefix)
    for drawn in batched(_boxes(there, kept.order, prefix=prefix), columns):
        for column, draw in zip(st.columns(columns), drawn, strict=False):
            with column:
                draw()
    _order_box(there, prefix=prefix)
    titles = OWN_RANGES | {str(i): f"{name} of the reflected" for i, name in there.scorer_names.items()}
    st.multiselect(
        "Score ranges",
        list(titles),
        format_func=titles.__getitem__,
        placeholder="Add a score to filter by its range",
        key=prefix + "ranges",
    )
    for names in batched(list(st.session_state[prefix + "ranges"]), columns):
        for column, name in zip(st.columns(columns), names, strict=False):
            with column, st.container(border=True, gap=None):
                _range_box(there, name, titles[name], prefix=prefix)
    return of_widgets(prefix) or PairFilter()


def batched(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """``items`` in parts of ``size``, the last may be shorter."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def _boxes(there: Facets, order: str, *, prefix: str) -> list[Callable[[], Any]]:
    """The eight boxes that are always there, in reading order."""
    orders = [one for one in PAIR_ORDERS if one != "as listed" or there.lists or order == one]
    names, lists = there.datasets, there.lists

    def several(name: str, title: str) -> Callable[[], Any]:
        named = there.people.__getitem__ if name == "reviewers" else str
        return partial(
            st.multiselect, title, there.values[name], format_func=named, placeholder="All", key=prefix + name
        )

    return [
        partial(st.selectbox, "Pairs that are", PAIR_STATES, key=prefix + "state", help=STATE_HELP),
        partial(st.selectbox, "In the order", orders, key=prefix + "order"),
        partial(
            st.multiselect, "Datasets", list(names), format_func=names.__getitem__, placeholder="All",
            key=prefix + "datasets",
        ),
        several("stages", "Stages"),
        several("methods", "Methods"),
        several("proposals", "Student's proposal"),
        several("reviewers", "Decided by"),
        partial(
            st.selectbox, "List", list(lists), format_func=lists.__getitem__, index=None, key=prefix + "list",
            placeholder="Any pair" if lists else "No list was saved yet", disabled=not lists,
        ),
    ]  # fmt: skip


def text_box(prefix: str) -> None:
    """The search through the texts."""
    st.text_input(
        "Text in any part of the original or the reflected row",
        key=prefix + "text",
        type="search",
        max_chars=LONGEST_TEXT,
        placeholder="Any words, in any case",
        icon=":material/search:",
    )
    st.toggle("As whole words", key=prefix + "words")


def _order_box(there: Facets, *, prefix: str) -> None:
    """What an order needs to know beyond its name."""
    order = st.session_state[prefix + "order"]
    if order == "random":
        st.number_input("Seed of the random order", 0, LARGEST_SEED, step=1, key=prefix + "seed")
    elif order == "most similar":
        st.number_input(
            "Similar to pair", 1, LARGEST_PAIR, value=None, step=1, key=prefix + "like", placeholder="Number of a pair"
        )
    elif order == "closest to the rule's cut":
        st.selectbox("Rule", list(there.rules), format_func=there.rules.__getitem__, key=prefix + "rule")
    elif order == "as listed" and st.session_state.get(prefix + "list") is None:
        st.caption("Choose the list whose order is meant.")


def _range_box(there: Facets, name: str, title: str, *, prefix: str) -> None:
    scorer = there.scorers.get(int(name)) if name not in OWN_RANGES else None
    st.markdown(f"**{_ui.plain(title)}**")
    low, high = st.columns(2)
    ends = (_ui.number(scorer["minimum"]), _ui.number(scorer["maximum"])) if scorer else ("open", "open")
    options: dict[str, Any] = {"value": None, "step": None, "format": "%.6g", "label_visibility": "collapsed"}
    low.number_input(f"{title}: at least", placeholder=f"≥ {ends[0]}", key=f"{prefix}low-{name}", **options)
    high.number_input(f"{title}: at most", placeholder=f"≤ {ends[1]}", key=f"{prefix}high-{name}", **options)
    least, most = (st.session_state.get(f"{prefix}{side}-{name}") for side in ("low", "high"))
    if least is not None and most is not None and least > most:
        st.warning("“At least” is above “at most”, so no pair can match.")
    if scorer:
        st.caption(f"{scorer['n_values']:,} rows have a value; pairs without one are left out")
