"""Which rule, on which scores, under which constraints: the choices at the top of the Select page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from core.rules import Match, Rule, match
from db import embeddings, evaluation, fits, queries
from db.selections import Candidates
from db.service import Service
from pages import _choose, _rows, _ui
from pages._select_data import Constraints

PUBLISHED = "published"
PAGE = "select"
_MOST_DISTANCE = 1000.0
_MOST_ROWS = 1_000_000_000


def pick_dataset(service: Service) -> int:
    """The dataset to select from, kept in the URL; without a link the newest that is no evaluation set."""
    names = _ui.dataset_names(queries.datasets(service.store))
    sets = {row["dataset_id"] for row in evaluation.evaluation_sets(service.store)}
    options = list(names)
    asked = st.query_params.get("dataset", "")
    usual = next((i for i in options if i not in sets), options[0])
    now = int(asked) if asked.isdecimal() and int(asked) in names else usual
    chosen = st.selectbox(
        "Dataset to select from", options, index=options.index(now), format_func=names.__getitem__,
        key=f"{PAGE}-dataset-{_rows.identity(tuple(options))}",
    )  # fmt: skip
    st.query_params["dataset"] = str(chosen)
    return int(chosen)


def pick_rule(service: Service) -> Mapping[str, Any]:
    """One of the rules, kept in the URL (``rule``), as ``db.fits.rules`` lists it."""
    found = {str(row["rule_id"] or PUBLISHED): row for row in fits.rules(service.store)}
    options = list(found)
    newest = next((name for name in options if name != PUBLISHED), PUBLISHED)
    asked = st.query_params.get("rule", newest)
    chosen = st.selectbox(
        "Rule",
        options,
        index=options.index(asked if asked in found else newest),
        format_func=lambda name: _title(found[name]),
        help="Fitted on the Regression page, typed there by hand, or published.",
        key=f"{PAGE}-rule-{_rows.identity(tuple(options))}",
    )
    st.query_params["rule"] = str(chosen)
    return found[str(chosen)]


def _title(row: Mapping[str, Any]) -> str:
    name, origin = str(row["name"]), {"fit": "fitted"}.get(row["origin"], str(row["origin"]))
    return name if origin in name else f"{name} ({origin})"


def show_formula(rule: Rule) -> None:
    """The formula, and where it comes from."""
    st.code(rule.formula(digits=4 if rule.origin == "fit" else None), language=None, wrap_lines=True)
    source = rule.source.strip().rstrip(".")
    st.caption(_ui.plain(f"{source[:1].upper()}{source[1:]}. Lower is better." if source else "Lower is better."))


# --- scorers ---


def pick_scorers(rule: Rule, known: Sequence[Mapping[str, Any]], *, dataset_id: int) -> Match | None:
    """Which scores every term is applied to; None, with the reason and what to do, while one has none.

    A rule is not applied to scores of other models or versions than it was fitted on, unless the user says so.
    """
    wanted = _wanted()
    found = match(rule, known, chosen=wanted)
    open_terms = [term for term in found.terms if term.problem is not None]
    several = [term for term in found.terms if len(term.choices) > 1 or (term.problem and term.choices)]
    if not open_terms and not several:
        return found
    with st.container(border=True):
        missing = [term for term in open_terms if not term.choices]
        for term in open_terms:
            st.markdown(f":material/warning: {_ui.plain(term.problem or '')}")
        if missing:
            st.page_link(
                "score.py", label=f"Score {', '.join(term.output for term in missing)} of this dataset",
                icon=":material/speed:", query_params={"dataset": str(dataset_id)},
            )  # fmt: skip
            return None
        force = _force(rule, needed=any(term.family is not None for term in rule.terms))
        labels = _rows.labels(known)
        columns = st.columns(max(3, len(several)))
        for place, term in zip(columns, several, strict=False):
            options: list[int | None] = [*([None] if term.problem else []), *term.choices]
            now = wanted.get(term.output, term.scorer_id)
            with place:
                chosen = st.selectbox(
                    f"Scores of {term.output}",
                    options,
                    index=options.index(now) if now in options else 0,
                    format_func=lambda i: "choose …" if i is None else labels[i],
                    key=f"{PAGE}-use-{term.output}-{_rows.identity(tuple(options), rule.name)}",
                )
            if chosen is not None:
                wanted[term.output] = chosen
    st.query_params["use"] = "~".join(f"{output}:{i}" for output, i in wanted.items() if output in rule.outputs)
    found = match(rule, known, chosen=wanted, force=force)
    if not found.ok:
        return None
    for note in found.notes:
        st.warning(_ui.plain(note), icon=":material/warning:")
    return found


def _wanted() -> dict[str, int]:
    """Scorers that the link chooses, by output."""
    found = {}
    for part in st.query_params.get("use", "").split("~"):
        output, _, number = part.partition(":")
        if number.isdecimal():
            found[output] = int(number)
    return found


def _force(rule: Rule, *, needed: bool) -> bool:
    """Whether a rule is applied to other scores than it was fitted on; kept in the URL."""
    if not needed:
        return False
    force = st.checkbox(
        "Apply it all the same, to scores of other models or versions",
        value=st.query_params.get("force") == "1",
        help="Coefficients belong to the scale of the scores that the rule was fitted on. The selection keeps a note.",
        key=f"{PAGE}-force-{_rows.identity(rule.name)}",
    )
    if force:
        st.query_params["force"] = "1"
    else:
        st.query_params.pop("force", None)
    return bool(force)


def show_missing(rows: Candidates, scorers: Mapping[str, int], *, dataset_id: int, n_predicted: int) -> None:
    """Rows without a value, term by term, where there are any; with the way to score them."""
    lacking = [rows.missing[i] for i in scorers.values() if rows.missing[i].n_null or rows.missing[i].n_unscored]
    if not lacking:
        return
    n = len(rows.example_ids)
    parts = [
        f"{one.output}: "
        + " and ".join(
            f"{count:,} {words}" for count, words in ((one.n_null, "NULL"), (one.n_unscored, "unscored")) if count
        )
        for one in lacking
    ]
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(
            f":material/info: {n - n_predicted:,} of {n:,} rows have no predicted value and cannot be selected "
            f"({_ui.plain('; '.join(parts))}).",
            width="stretch",
        )
        if any(one.n_unscored for one in lacking):
            st.page_link(
                "score.py", label="Score the rest", icon=":material/speed:", query_params={"dataset": str(dataset_id)}
            )


# --- constraints ---


def pick_constraints(service: Service, version: str, dataset_id: int) -> Constraints:
    """What rows must meet; kept in the URL. The usual choice excludes rejected rows and evaluation sets."""
    store = service.store
    keys = _choose.category_keys(store, str(store.path), version, (dataset_id,))
    embedders = {one["scorer_id"]: one for one in embeddings.embedders(store, dataset_ids=[dataset_id])}
    left, middle, right = st.columns([4, 5, 5], gap="medium")
    with left:
        rejected = _toggle(
            "Leave out rejected rows", "rejected",
            help_text="Rows that reviewers rejected as a candidate and that no decision took.",
        )  # fmt: skip
        evaluation = _toggle(
            "Leave out evaluation rows", "evaluation",
            help_text="Rows with the same instruction and input as a row of any evaluation set: a student that was "
            "trained on them would be evaluated on what it has seen.",
        )  # fmt: skip
    with middle:
        category, most = _limit(keys, dataset_id)
    with right:
        embedder, distance = _distance(embedders, dataset_id)
    return Constraints(rejected, evaluation, category, most, embedder, distance)


def _toggle(label: str, parameter: str, *, help_text: str) -> bool:
    on = st.toggle(label, value=st.query_params.get(parameter) != "0", help=help_text, key=f"{PAGE}-{parameter}")
    if on:
        st.query_params.pop(parameter, None)
    else:
        st.query_params[parameter] = "0"
    return bool(on)


def _limit(keys: Sequence[str], dataset_id: int) -> tuple[str | None, int | None]:
    if not keys:
        st.caption("Its rows have no further column, so there is no limit per source or category.")
        return None, None
    asked = st.query_params.get("category", "")
    one, two = st.columns([3, 2])
    with one:
        options = [None, *keys]
        key = st.selectbox(
            "Limit per value of",
            options,
            index=options.index(asked) if asked in keys else 0,
            format_func=lambda name: "no limit" if name is None else f"column {name[:60]}",
            help="A further column of the dataset, such as its source or category. Rows where it holds nothing are one "
            "category as well.",
            key=f"{PAGE}-category-{dataset_id}",
        )
    if key is None:
        for parameter in ("category", "most"):
            st.query_params.pop(parameter, None)
        return None, None
    with two:
        number = st.query_params.get("most", "")
        most = st.number_input(
            "Most rows of each", min_value=1, max_value=_MOST_ROWS,
            value=min(int(number), _MOST_ROWS) if number.isdecimal() and int(number) else 100,
            key=f"{PAGE}-most-{dataset_id}",
        )  # fmt: skip
    st.query_params["category"], st.query_params["most"] = key, str(most)
    return key, int(most)


def _distance(embedders: Mapping[int, Mapping[str, Any]], dataset_id: int) -> tuple[int | None, float | None]:
    if not embedders:
        st.caption("Its rows have no embedding, so rows cannot be kept apart. Score a kNN distance to get them.")
        st.page_link(
            "score.py", label="Score a kNN distance", icon=":material/speed:", query_params={"dataset": str(dataset_id)}
        )
        return None, None
    labels = _rows.labels(list(embedders.values()))
    one, two = st.columns([3, 2])
    with two:
        asked = st.query_params.get("near", "")
        try:
            found = float(asked or 0)
        except ValueError:
            found = 0.0
        usual = min(max(found, 0.0), _MOST_DISTANCE) if math.isfinite(found) else 0.0
        distance = st.number_input(
            "Minimum distance", min_value=0.0, max_value=_MOST_DISTANCE, value=usual, step=0.05, format="%.3f",
            help="Euclidean, between the embeddings of any two selected rows; a row that lies nearer to a better one "
            "is left out. 0: no limit. Between embeddings of length 1 distances reach from 0 to 2. 50,000 rows that "
            "all lie apart take about 20 seconds, once.",
            key=f"{PAGE}-near-{dataset_id}",
        )  # fmt: skip
    with one:
        options = list(embedders)
        asked_model = st.query_params.get("embedder", "")
        model = st.selectbox(
            "Keep rows apart by",
            options,
            index=options.index(int(asked_model)) if asked_model.isdecimal() and int(asked_model) in options else 0,
            format_func=labels.__getitem__,
            key=f"{PAGE}-embedder-{dataset_id}",
        )
    if not distance:
        for parameter in ("near", "embedder"):
            st.query_params.pop(parameter, None)
        return None, None
    st.query_params["near"], st.query_params["embedder"] = f"{distance:g}", str(model)
    return int(model), float(distance)
