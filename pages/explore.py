"""Explore: filter and sort rows by text, dataset and score; open one whole, with all that is known of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from core.errors import AssayError, SettingsError
from core.filters import RowFilter, ScoreRange
from core.indicators import OUTPUTS
from db import commands, queries, review
from db.service import Service
from pages import _rows, _ui

PARAMETERS = ("datasets", "text", "ranges", "sort")
PAGE_SIZES = (25, 50, 100)
TEXT, DATASETS, SORT, DIRECTION, SCORES = (
    f"explore-{name}" for name in ("text", "datasets", "sort", "direction", "scores")
)
APPLIED, WRITTEN, ROW, PAGES = (f"explore_{name}" for name in ("applied", "written", "row", "pages"))
DOWN, UP = "high first", "low first"


# --- the filter: widgets, their state, and the URL ---


def _bounds(scorer_id: int) -> tuple[str, str]:
    return f"explore-low-{scorer_id}", f"explore-high-{scorer_id}"


def _filter_of_widgets() -> RowFilter | None:
    """The filter that the widgets say, or None where they are not there yet (first run, or back from another page)."""
    state = st.session_state
    if TEXT not in state or DATASETS not in state:
        return None
    ranges = []
    for scorer_id in state.get(SCORES, []):
        low, high = (state.get(key) for key in _bounds(scorer_id))
        if low is not None or high is not None:
            ranges.append(ScoreRange(scorer_id, low, high))
    return RowFilter(
        datasets=tuple(state[DATASETS]),
        text=state[TEXT] or "",
        ranges=tuple(ranges),
        sort=state.get(SORT),
        descending=state.get(DIRECTION) != UP,
    )


def _into_widgets(filters: RowFilter) -> None:
    state = st.session_state
    state[TEXT], state[DATASETS], state[SORT] = filters.text, list(filters.datasets), filters.sort
    state[DIRECTION] = DOWN if filters.descending else UP
    state[SCORES] = [r.scorer_id for r in filters.ranges]
    for score_range in filters.ranges:
        low, high = _bounds(score_range.scorer_id)
        state[low], state[high] = score_range.low, score_range.high


def _url() -> dict[str, str]:
    wanted = (*PARAMETERS, "row")
    return {name: st.query_params[name] for name in wanted if name in st.query_params}


def _write_url(filters: RowFilter) -> None:
    row = st.session_state.get(ROW)
    params = filters.to_params() | ({"row": str(row)} if row is not None else {})
    if params != _url():
        st.query_params.from_dict(params)
    st.session_state[APPLIED], st.session_state[WRITTEN] = filters, params


def _read_url(datasets: Mapping[int, str], scorers: Mapping[int, Any]) -> RowFilter:
    """The filter of the link, without what is not in the store any more; says what it left out."""
    try:
        filters = RowFilter.from_params(st.query_params.to_dict())
    except SettingsError as error:
        st.warning(_ui.plain(str(error)), icon=":material/link_off:")
        return RowFilter()
    sort = filters.sort if filters.sort in scorers else None
    kept = RowFilter(
        datasets=tuple(d for d in filters.datasets if d in datasets),
        text=filters.text,
        ranges=tuple(r for r in filters.ranges if r.scorer_id in scorers),
        sort=sort,
        descending=filters.descending if sort is not None else True,
    )
    if (len(kept.datasets), len(kept.ranges), kept.sort) != (len(filters.datasets), len(filters.ranges), filters.sort):
        st.warning(
            "This link names a dataset or a score that is not in the store; that part of the filter was left out.",
            icon=":material/link_off:",
        )
    return kept


def _row_of_url() -> int | None:
    text = st.query_params.get("row", "")
    if not text:
        return None
    if not text.isdecimal():
        st.warning("The row in this link cannot be read, so none is opened.", icon=":material/link_off:")
        return None
    return int(text)


def _take_up_url(datasets: Mapping[int, str], scorers: Mapping[int, Any]) -> None:
    """Let widgets and URL agree before the widgets are drawn.

    The URL wins where somebody followed a link or went back. It does not where a widget was changed: the browser sends
    the URL it had at that moment, which may be older than what the last run wrote.
    """
    state, said = st.session_state, _filter_of_widgets()
    if said is None and not _url() and APPLIED in state:  # back on the page through the menu
        kept: RowFilter = state[APPLIED]
        _into_widgets(
            RowFilter(
                tuple(d for d in kept.datasets if d in datasets),
                kept.text,
                tuple(r for r in kept.ranges if r.scorer_id in scorers),
                kept.sort if kept.sort in scorers else None,
                kept.descending,
            )
        )
    elif said is None or (said == state.get(APPLIED) and _url() != state.get(WRITTEN)):
        _into_widgets(_read_url(datasets, scorers))
        state[ROW] = _row_of_url()


def _reset() -> None:
    _into_widgets(RowFilter())


def _filter_bar(service: Service, datasets: Mapping[int, str], scorers: Mapping[int, Any], version: str) -> RowFilter:
    labels = _rows.labels(list(scorers.values()))
    text_side, dataset_side, sort_side, direction_side = st.columns([4, 3, 3, 2], vertical_alignment="bottom")
    with text_side:
        st.text_input(
            "Text in instruction, input or response",
            key=TEXT,
            type="search",
            live=True,
            placeholder="Any words, in any case",
            icon=":material/search:",
        )
    with dataset_side:
        st.multiselect("Datasets", list(datasets), format_func=datasets.__getitem__, key=DATASETS, placeholder="All")
    with sort_side:
        st.selectbox(
            "Sort by",
            [None, *scorers],
            format_func=lambda i: "Order of the dataset" if i is None else labels[i],
            key=SORT,
        )
    with direction_side:
        st.segmented_control(
            "Direction",
            [DOWN, UP],
            key=DIRECTION,
            required=True,
            label_visibility="collapsed",
            disabled=st.session_state.get(SORT) is None,
        )
    if scorers:
        st.multiselect(
            "Score ranges",
            list(scorers),
            format_func=labels.__getitem__,
            key=SCORES,
            placeholder="Add a score to filter by its range",
            label_visibility="collapsed",
        )
        _range_inputs(service, labels, version)
    return _filter_of_widgets() or RowFilter()


def _range_inputs(service: Service, labels: Mapping[int, str], version: str) -> None:
    chosen: list[int] = st.session_state[SCORES]
    datasets = tuple(st.session_state[DATASETS]) or tuple(row["dataset_id"] for row in queries.datasets(service.store))
    for start in range(0, len(chosen), 3):
        for column, scorer_id in zip(st.columns(3), chosen[start : start + 3], strict=False):
            with column, st.container(border=True, gap=None):
                found = _rows.summary(service.store, str(service.store.path), version, scorer_id, datasets)
                lows = [row["minimum"] for row in found if row["minimum"] is not None]
                highs = [row["maximum"] for row in found if row["maximum"] is not None]
                st.markdown(f"**{_ui.plain(labels[scorer_id])}**")
                least, most = _ui.number(min(lows, default=None)), _ui.number(max(highs, default=None))
                _range_input(scorer_id, labels[scorer_id], least, most)
                n_values = sum(row["n_values"] for row in found)
                st.caption(f"from {least} to {most} · {n_values:,} rows have a value")


def _range_input(scorer_id: int, label: str, least: str, most: str) -> None:
    sides = zip(st.columns(2), ("at least", "at most"), _bounds(scorer_id), (least, most), strict=True)
    for column, words, key, edge in sides:
        with column:
            st.number_input(
                f"{label} {words}",
                value=None,
                format="%.6g",
                step=None,
                placeholder=f"{words} ({edge})",
                key=key,
                label_visibility="collapsed",
            )


# --- the page of rows ---


def _turn(cursors: list[tuple[Any, ...] | None]) -> None:
    st.session_state[PAGES]["cursors"] = cursors


def _cursors(filters: RowFilter, size: int) -> list[tuple[Any, ...] | None]:
    """The cursors of the pages from the first to the one shown; a new filter begins at the first."""
    kept = st.session_state.get(PAGES)
    if kept is None or kept["of"] != (filters, size):
        kept = st.session_state[PAGES] = {"of": (filters, size), "cursors": [None]}
    cursors: list[tuple[Any, ...] | None] = kept["cursors"]
    return cursors


def _open(ids: Sequence[int], widget: str) -> None:
    st.session_state[ROW] = _rows.clicked(ids, widget)


def _paging(cursors: list[tuple[Any, ...] | None], page: queries.Page, size: int) -> Any:
    """First, previous, next; returns where the number of rows goes once it is counted."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.button(
            "First", icon=":material/first_page:", key="explore-first", disabled=len(cursors) == 1,
            on_click=_turn, args=([None],),
        )  # fmt: skip
        st.button(
            "Previous", icon=":material/chevron_left:", key="explore-previous", disabled=len(cursors) == 1,
            on_click=_turn, args=(cursors[:-1],),
        )  # fmt: skip
        st.button(
            "Next", icon=":material/chevron_right:", key="explore-next", disabled=page.next_cursor is None,
            on_click=_turn, args=([*cursors, page.next_cursor],),
        )  # fmt: skip
        return st.empty()


def _shown_scorers(filters: RowFilter, scorers: Mapping[int, Any]) -> list[Any]:
    """The scores that the table shows: what was sorted and filtered by, then the usual ones of the latest model."""
    asked = [i for i in (filters.sort, *(r.scorer_id for r in filters.ranges)) if i is not None]
    usual: dict[str, int] = {}
    for scorer_id, scorer in scorers.items():
        if scorer["output"] in _rows.FIRST_OUTPUTS:
            usual[scorer["output"]] = max(scorer_id, usual.get(scorer["output"], 0))
    default = list(dict.fromkeys([*asked, *usual.values()]))
    labels = _rows.labels(list(scorers.values()))
    chosen = st.multiselect(
        "Scores shown",
        list(scorers),
        default=default,
        format_func=labels.__getitem__,
        key=f"explore-shown-{_rows.identity(tuple(default))}",
    )
    return [scorers[i] for i in chosen]


def _table(
    service: Service, filters: RowFilter, names: Mapping[int, str], scorers: Mapping[int, Any], version: str
) -> None:
    store, path = service.store, str(service.store.path)
    size = st.session_state.get("explore-size") or PAGE_SIZES[1]
    cursors = _cursors(filters, size)
    page = _rows.page(store, path, version, filters, cursors[-1], size)
    if not page.rows and len(cursors) == 1:
        with st.container(border=True):
            st.markdown("No row matches this filter.")
            st.button("Show all rows", icon=":material/filter_alt_off:", key="explore-all", on_click=_reset)
        return
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        total_place = _paging(cursors, page, size)
        with st.popover("Columns", icon=":material/view_column:", type="tertiary"):
            st.segmented_control(
                "Rows on a page", PAGE_SIZES, default=size, required=True, key="explore-size", persist_state="session"
            )
            shown = _shown_scorers(filters, scorers)
    scores = queries.scores_of(store, [row["example_id"] for row in page.rows])
    _rows.table(
        page.rows, scores=scores, shown=shown, names=names, key="explore-rows",
        opened=st.session_state.get(ROW), on_open=_open, height=620,
    )  # fmt: skip
    total = _rows.count(store, path, version, filters)
    start = (len(cursors) - 1) * size
    total_place.markdown(f"**{start + 1:,}–{start + len(page.rows):,}** of **{total:,}** rows")
    _actions(service, filters, total)


# --- what can be done with the rows of the filter ---


def _actions(service: Service, filters: RowFilter, total: int) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        with st.popover("Save as dataset", icon=":material/library_add:"):
            _save(service, filters, total)
        st.page_link(
            "reflect.py", label="Reflect on these rows", icon=":material/auto_awesome:",
            query_params=filters.to_params(),
        )  # fmt: skip
        if len(filters.datasets) == 1:
            st.page_link(
                "distributions.py", label="Distributions", icon=":material/bar_chart:",
                query_params={"datasets": str(filters.datasets[0])},
            )  # fmt: skip


def _save(service: Service, filters: RowFilter, total: int) -> None:
    with st.form("explore-save", border=False, clear_on_submit=True):
        name = st.text_input("Name of the new dataset", max_chars=200)
        st.caption(f"It points at the {total:,} rows of this filter, each once, in this order. Nothing is copied.")
        saved = st.form_submit_button("Save", type="primary", icon=":material/library_add:")
    if not saved:
        return
    try:
        ids = queries.matching_ids(service.store, filters)
        commands.create_dataset(
            service.store,
            ids,
            name=name,
            kind="selection",
            source="Explore",
            details={"filter": filters.to_params()},
            created_by=_ui.reviewer() or None,
        )
    except AssayError as error:
        st.error(_ui.plain(str(error)))
        return
    st.session_state["explore_saved"] = f"Saved {_ui.plain(name.strip())}: {len(ids):,} rows."
    st.rerun()


# --- one row, whole ---


def _close() -> None:
    st.session_state[ROW] = None


def _panel(service: Service) -> None:
    example_id = st.session_state.get(ROW)
    if example_id is None:
        with st.container(border=True):
            st.markdown("**Click a row to open it**")
            st.caption("Its whole texts, all its scores, where it comes from, its pairs and decisions show here.")
        return
    found = queries.examples(service.store, [example_id])
    if not found:
        st.warning(f"Row {example_id} is not in the store.", icon=":material/link_off:")
        return
    example = found[0]
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            st.markdown(f"**Row {example_id}** · `{example['hash'][:12]}`", help="Id and content address in the store.")
            st.button(
                "Close", icon=":material/close:", type="tertiary", key=f"explore-close-{example_id}", on_click=_close
            )
        _ui.text_block(example["instruction"], label="Instruction")
        if example["input"]:
            _ui.text_block(example["input"], label="Input")
        _ui.text_block(example["output"], label="Response")
        _scores(service, example_id)
        _provenance(service, example_id)
        _pairs(service, example_id)


def _scores(service: Service, example_id: int) -> None:
    scores = queries.scores_of(service.store, [example_id])
    st.markdown("**Scores**")
    if not scores:
        st.caption("This row is not scored yet.")
        st.page_link("score.py", label="Score its dataset", icon=":material/speed:")
        return
    labels = _rows.labels(scores)
    order = {output: i for i, output in enumerate(_rows.FIRST_OUTPUTS)}
    scores.sort(key=lambda s: (order.get(s["output"], len(order)), s["scorer_id"]))
    any_null = any(s["value"] is None for s in scores)
    st.dataframe(
        [
            {
                "score": labels[s["scorer_id"]],
                "value": _ui.number(s["value"], 4) if s["value"] is not None else "NULL",
                "better": _rows.ARROWS[OUTPUTS[s["output"]].direction] if s["output"] in OUTPUTS else "·",
                **({"why there is no value": s["reason"] or ""} if any_null else {}),
            }
            for s in scores
        ],
        hide_index=True,
        height=min(35 * len(scores) + 38, 320),
        column_config={"value": st.column_config.TextColumn(width="small", alignment="right")},
        key=f"explore-scores-{example_id}",
    )


def _provenance(service: Service, example_id: int) -> None:
    places = queries.provenance(service.store, example_id)
    st.markdown("**Where it comes from**")
    if not places:
        st.caption("In no dataset: it was made by a reflection or an edit, or its dataset was removed.")
        return
    st.dataframe(
        [{"dataset": p["name"], "row": p["position"] + 1, "kind": p["kind"], "source": p["source"]} for p in places],
        hide_index=True,
        key=f"explore-places-{example_id}",
    )
    for place in places:
        if place["metadata"]:
            with st.expander(f"Further columns in {_ui.plain(place['name'])}"):
                _metadata(place["metadata"])


def _metadata(text: str) -> None:
    try:
        st.json(json.loads(text))
    except ValueError:
        _ui.text_block(text)


def _pairs(service: Service, example_id: int) -> None:
    pairs = review.pairs_of(service.store, example_id)
    st.markdown("**Pairs and decisions**")
    if not pairs:
        st.caption("No reflection has made a pair of this row.")
        return
    st.dataframe(
        [
            {
                "pair": p["pair_id"],
                "this row is the": "original" if p["original_id"] == example_id else "candidate",
                "stage": p["stage"],
                "decision": p["verdict"] or "undecided",
                "by": p["reviewer"],
                "when": p["decided_at"],
                "proposal": p["proposal"],
                "method": p["method"],
                "teacher": p["teacher"],
            }
            for p in pairs
        ],
        hide_index=True,
        placeholder="—",
        column_config={
            "pair": st.column_config.NumberColumn(width="small"),
            "when": st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm"),
        },
        key=f"explore-pairs-{example_id}",
    )


def main() -> None:
    """Render the page."""
    service = _ui.current_service()
    _ui.header("Explore", "Every row with its scores: filter, sort, open, and keep what you found as a dataset.")
    found = queries.datasets(service.store)
    if not found:
        _ui.empty("There is no dataset yet, so there are no rows to explore.", page="load.py", label="Load a dataset")
        return
    version = queries.version(service.store)
    datasets = _ui.dataset_names(found)
    by_id = {s["scorer_id"]: s for s in _rows.scorers(service.store, str(service.store.path), version, ())}
    _take_up_url(datasets, by_id)
    saved = st.session_state.pop("explore_saved", None)
    if saved:
        st.success(saved, icon=":material/library_add_check:")
    filters = _filter_bar(service, datasets, by_id, version)
    names = {row["dataset_id"]: row["name"] for row in found}
    left, right = st.columns([3, 2], gap="medium")
    with left:
        _table(service, filters, names, by_id, version)
    with right:
        _panel(service)
    _write_url(filters)


main()
