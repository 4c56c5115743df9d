"""The filter of the Explore page: its widgets, and their agreement with the URL."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import streamlit as st

from core.errors import SettingsError
from core.filters import Category, NoValue, RowFilter, ScoreRange
from db import queries, relations
from db.service import Service
from db.store import Store
from pages import _choose, _rows, _ui

PARAMETERS = ("datasets", "text", "ranges", "sort", "missing", "category", "rows")
PAGE_SIZES = (25, 50, 100)
TEXT, DATASETS, SORT, DIRECTION, SCORES, SIZE = (
    f"explore-{name}" for name in ("text", "datasets", "sort", "direction", "scores", "size")
)
WITHOUT, COLUMN, VALUES = (f"explore-{name}" for name in ("without", "column", "values"))
IDS = "explore_ids"
APPLIED, WRITTEN, ROW = (f"explore_{name}" for name in ("applied", "written", "row"))
DOWN, UP = "↓ high", "↑ low"
ANY_REASON = ""
_NO_VALUE = "!"  # in the list of values; a value itself stands there behind an equals sign
KINDS = {"null": "∅ NULL", "unscored": "… unscored", "either": "either"}
DATASET_ORDER = 0  # stands for None in the select box, which shows None as "nothing chosen"
_LARGEST_ID = 2**63 - 1


def _bounds(scorer_id: int) -> tuple[str, str]:
    return f"explore-low-{scorer_id}", f"explore-high-{scorer_id}"


def _without_keys(scorer_id: int) -> tuple[str, str]:
    return f"explore-kind-{scorer_id}", f"explore-reason-{scorer_id}"


def _without_of_widgets() -> tuple[NoValue, ...]:
    found = []
    for scorer_id in st.session_state.get(WITHOUT, []):
        kind, reason = (st.session_state.get(key) for key in _without_keys(scorer_id))
        kind = kind if kind in KINDS else "null"
        found.append(NoValue(scorer_id, kind, (reason or ANY_REASON) if kind == "null" else ANY_REASON))
    return tuple(found)


def _category_of_widgets() -> Category | None:
    """The category that the widgets say; a column without a chosen value does not filter."""
    column, values = st.session_state.get(COLUMN), st.session_state.get(VALUES)
    if column is None or not values:
        return None
    return Category(column, tuple(None if value == _NO_VALUE else value[1:] for value in values))


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
        sort=state.get(SORT) or None,
        descending=state.get(DIRECTION) != UP,
        missing=_without_of_widgets(),
        category=_category_of_widgets(),
        ids=tuple(state.get(IDS, ())),
    )


def _into_widgets(filters: RowFilter) -> None:
    state = st.session_state
    state[TEXT], state[DATASETS], state[SORT] = filters.text, list(filters.datasets), filters.sort or DATASET_ORDER
    state[DIRECTION] = DOWN if filters.descending else UP
    state[SCORES] = [r.scorer_id for r in filters.ranges]
    for score_range in filters.ranges:
        low, high = _bounds(score_range.scorer_id)
        state[low], state[high] = score_range.low, score_range.high
    state[WITHOUT] = [missing.scorer_id for missing in filters.missing]
    for missing in filters.missing:
        kind, reason = _without_keys(missing.scorer_id)
        state[kind], state[reason] = missing.kind, missing.reason
    category = filters.category
    state[COLUMN] = category.key if category else None
    state[VALUES] = [_NO_VALUE if value is None else "=" + value for value in category.values] if category else []
    state[IDS] = filters.ids


def _url() -> dict[str, str]:
    wanted = (*PARAMETERS, "row")
    return {name: st.query_params[name] for name in wanted if name in st.query_params}


def write_url(filters: RowFilter) -> None:
    """Put the filter and the row that is open into the URL, and remember what was put there."""
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
    kept = _known(filters, datasets, scorers)
    if kept != filters:
        st.warning(
            "This link names a dataset or a score that is not in the store, or a bound that is no number; that part of "
            "the filter was left out.",
            icon=":material/link_off:",
        )
    return kept


def _known(filters: RowFilter, datasets: Mapping[int, str], scorers: Mapping[int, Any]) -> RowFilter:
    """The filter without datasets and scorers that are not in the store, and without bounds that are no numbers."""
    sort = filters.sort if filters.sort in scorers else None
    return RowFilter(
        datasets=tuple(d for d in filters.datasets if d in datasets),
        text=filters.text,
        ranges=tuple(r for r in filters.ranges if r.scorer_id in scorers and _is_finite(r)),
        sort=sort,
        descending=filters.descending if sort is not None else True,
        missing=tuple(m for m in filters.missing if m.scorer_id in scorers),
        category=filters.category if filters.category and filters.category.values else None,
        ids=filters.ids,
    )


def _is_finite(score_range: ScoreRange) -> bool:
    return all(math.isfinite(bound) for bound in (score_range.low, score_range.high) if bound is not None)


def _row_of_url() -> int | None:
    text = st.query_params.get("row", "")
    if not text:
        return None
    if not text.isdecimal() or int(text) > _LARGEST_ID:
        st.warning("The row in this link cannot be read, so none is opened.", icon=":material/link_off:")
        return None
    return int(text)


def take_up_url(datasets: Mapping[int, str], scorers: Mapping[int, Any]) -> None:
    """Let widgets and URL agree before the widgets are drawn.

    The URL wins where somebody followed a link or went back. It does not where a widget was changed: the browser sends
    the URL it had at that moment, which may be older than what the last run wrote.
    """
    state, said = st.session_state, _filter_of_widgets()
    if said is None and not _url() and APPLIED in state:  # back on the page through the menu
        _into_widgets(_known(state[APPLIED], datasets, scorers))
    elif said is None or (said == state.get(APPLIED) and _url() != state.get(WRITTEN)):
        _into_widgets(_read_url(datasets, scorers))
        state[ROW] = _row_of_url()
    elif _known(said, datasets, scorers) != said:  # a dataset was removed meanwhile
        _into_widgets(_known(said, datasets, scorers))


def reset() -> None:
    """A callback: all rows."""
    _into_widgets(RowFilter())


def show(
    service: Service, datasets: Mapping[int, str], scorers: Mapping[int, Any], version: str
) -> tuple[RowFilter, list[Any]]:
    """Draw the widgets; returns the filter that they say, and the scorers whose values the table is to show."""
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
            [DATASET_ORDER, *scorers],
            format_func=lambda i: "Order of the dataset" if i == DATASET_ORDER else labels[i],
            key=SORT,
        )
    with direction_side:
        st.segmented_control(
            "Direction",
            [DOWN, UP],
            key=DIRECTION,
            required=True,
            label_visibility="collapsed",
            disabled=not st.session_state.get(SORT),
        )
    range_side, without_side, column_side, columns_side = st.columns([4, 3, 3, 2])
    with range_side:
        st.multiselect(
            "Score ranges",
            list(scorers),
            format_func=labels.__getitem__,
            key=SCORES,
            placeholder="Add a score to filter by its range" if scorers else "No row is scored yet",
            label_visibility="collapsed",
            disabled=not scorers,
        )
    with without_side:
        st.multiselect(
            "Rows without a value",
            list(scorers),
            format_func=labels.__getitem__,
            key=WITHOUT,
            placeholder="Rows without a value of …",
            label_visibility="collapsed",
            disabled=not scorers,
        )
    with column_side:
        _column_choice(service, datasets, version)
    _further_inputs(service, labels, version)
    filters = _filter_of_widgets() or RowFilter()
    for r in filters.ranges:
        if r.low is not None and r.high is not None and r.low > r.high:
            st.warning(f"{_ui.plain(labels[r.scorer_id])}: “at least” is above “at most”, so no row can match.")
    with columns_side, st.popover("Columns", icon=":material/view_column:", width="stretch"):
        st.segmented_control(
            "Rows on a page", PAGE_SIZES, default=PAGE_SIZES[1], required=True, key=SIZE, persist_state="session"
        )
        among = _rows.scorers(service.store, str(service.store.path), version, filters.datasets)
        shown = _shown_scorers(filters, scorers, among)
    return filters, shown


def _column_choice(service: Service, datasets: Mapping[int, str], version: str) -> None:
    among = tuple(st.session_state[DATASETS]) or tuple(datasets)
    keys = _choose.category_keys(service.store, str(service.store.path), version, among)
    chosen = st.session_state[COLUMN]
    options = keys if chosen is None or chosen in keys else [chosen, *keys]
    st.selectbox(
        "Further column",
        options,
        index=None,
        key=COLUMN,
        format_func=lambda name: f"column {name[:60]}",
        placeholder="Filter by a further column" if options else "No further columns",
        label_visibility="collapsed",
        disabled=not options,
        on_change=_forget_values,
    )


def _forget_values() -> None:
    st.session_state[VALUES] = []


def _further_inputs(service: Service, labels: Mapping[int, str], version: str) -> None:
    """A box for each range, each score without a value, and the further column, three in a line."""
    state = st.session_state
    datasets = tuple(state[DATASETS]) or tuple(row["dataset_id"] for row in queries.datasets(service.store))
    boxes: list[Callable[[], None]] = []
    boxes += [partial(_range_box, service, i, labels[i], version, datasets) for i in state[SCORES]]
    boxes += [partial(_without_box, service, i, labels[i], datasets) for i in state[WITHOUT]]
    if state[COLUMN] is not None:
        boxes.append(partial(_values_box, service, state[COLUMN], version, datasets))
    if state.get(IDS):
        boxes.append(_ids_box)
    for start in range(0, len(boxes), 3):
        for column, draw in zip(st.columns(3), boxes[start : start + 3], strict=False):
            with column, st.container(border=True, gap=None):
                draw()


def _range_box(service: Service, scorer_id: int, label: str, version: str, datasets: tuple[int, ...]) -> None:
    found = _rows.summary(service.store, str(service.store.path), version, scorer_id, datasets)
    lows = [row["minimum"] for row in found if row["minimum"] is not None]
    highs = [row["maximum"] for row in found if row["maximum"] is not None]
    st.markdown(f"**{_ui.plain(label)}**")
    least, most = _ui.number(min(lows, default=None)), _ui.number(max(highs, default=None))
    _range_input(scorer_id, label, least, most)
    n_values = sum(row["n_values"] for row in found)
    st.caption(f"from {least} to {most} · {n_values:,} rows have a value")


def _without_box(service: Service, scorer_id: int, label: str, datasets: tuple[int, ...]) -> None:
    kind, reason = _without_keys(scorer_id)
    st.session_state.setdefault(kind, "null")
    st.markdown(f"**{_ui.plain(label)}** has no value")
    picked = st.segmented_control(
        f"{label}: which rows",
        list(KINDS),
        format_func=KINDS.__getitem__,
        key=kind,
        required=True,
        label_visibility="collapsed",
    )
    if picked != "null":
        return
    found = queries.null_reasons(service.store, scorer_id=scorer_id, dataset_ids=datasets)
    counts = {row["reason"]: row["n"] for row in found}
    wanted = st.session_state.get(reason) or ANY_REASON
    words = {ANY_REASON: f"for any reason ({sum(counts.values()):,})"}
    st.selectbox(
        f"{label}: why",
        list(dict.fromkeys((ANY_REASON, *counts, wanted))),
        format_func=lambda text: words.get(text) or f"{text} ({counts.get(text, 0):,})",
        key=reason,
        label_visibility="collapsed",
    )


@st.cache_data(max_entries=64, show_spinner=False)
def _categories(_store: Store, path: str, version: str, key: str, datasets: tuple[int, ...]) -> dict[str | None, int]:
    return {row["category"]: row["n"] for row in relations.categories(_store, dataset_ids=datasets, key=key, limit=500)}


def _values_box(service: Service, column: str, version: str, datasets: tuple[int, ...]) -> None:
    counts = _categories(service.store, str(service.store.path), version, column, datasets)
    words = {_NO_VALUE if value is None else "=" + value: n for value, n in counts.items()}
    st.session_state.setdefault(VALUES, [])
    st.markdown(f"**{_ui.plain(column[:60])}** is any of")
    st.multiselect(
        f"Values of {column[:60]}",
        list(dict.fromkeys((*words, *st.session_state[VALUES]))),
        format_func=lambda name: f"{'no value' if name == _NO_VALUE else name[1:][:80]} ({words.get(name, 0):,})",
        key=VALUES,
        placeholder="Choose values",
        label_visibility="collapsed",
    )


def _ids_box() -> None:
    st.markdown(f"**{len(st.session_state[IDS]):,} rows** marked in a chart")
    st.button("Show others too", icon=":material/filter_alt_off:", key="explore-ids-off", on_click=_forget_ids)


def _forget_ids() -> None:
    st.session_state[IDS] = ()


def _range_input(scorer_id: int, label: str, least: str, most: str) -> None:
    sides = zip(st.columns(2), ("≥", "≤"), ("at least", "at most"), _bounds(scorer_id), (least, most), strict=True)
    for column, sign, words, key, edge in sides:
        with column:
            st.number_input(
                f"{label} {words}",
                value=None,
                format="%.6g",
                step=None,
                placeholder=f"{sign} {edge}",
                key=key,
                label_visibility="collapsed",
            )


def _shown_scorers(filters: RowFilter, scorers: Mapping[int, Any], among: Sequence[Any]) -> list[Any]:
    """The scores that the table shows: what was sorted and filtered by, then the usual ones of these datasets."""
    named = (filters.sort, *(r.scorer_id for r in filters.ranges), *(m.scorer_id for m in filters.missing))
    asked = [i for i in named if i is not None]
    default = _rows.usual(among, first=asked)
    labels = _rows.labels(list(scorers.values()))
    chosen = st.multiselect(
        "Scores shown",
        list(scorers),
        default=default,
        format_func=labels.__getitem__,
        key=f"explore-shown-{_rows.identity(tuple(default))}",
    )
    return [scorers[i] for i in chosen]
