"""Explore: filter and sort rows by text, dataset and score; open one whole, with all that is known of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from core.errors import AssayError
from core.filters import RowFilter
from db import commands, queries
from db.service import Service
from pages import _choose, _example, _row_filter, _rows, _saved_filters, _ui
from pages._row_filter import PAGE_SIZES, ROW, SIZE

PAGES, CLOSED = "explore_pages", "explore_closed"
HEIGHT = 720


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
    """A callback: open the row that was clicked. Unmarking the row that was closed last opens it again."""
    closed = st.session_state.pop(CLOSED, None)
    found = _rows.clicked(ids, widget)
    if found is None and st.session_state.get(ROW) is None and closed in ids:
        found = closed
    st.session_state[ROW] = found


def _paging(cursors: list[tuple[Any, ...] | None], page: queries.Page) -> Any:
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


def _table(
    service: Service, filters: RowFilter, names: Mapping[int, str], shown: Sequence[Any], version: str
) -> tuple[str, list[int]]:
    """Draw a page of rows; returns the key of the table and the example ids in it."""
    store, path = service.store, str(service.store.path)
    size = int(st.session_state.get(SIZE) or PAGE_SIZES[1])
    cursors = _cursors(filters, size)
    page = _rows.page(store, path, version, filters, cursors[-1], size)
    if not page.rows and len(cursors) == 1:
        with st.container(border=True):
            st.markdown("No row matches this filter.")
            st.button("Show all rows", icon=":material/filter_alt_off:", key="explore-all", on_click=_row_filter.reset)
            _saved_filters.show("explore", filters.to_params())
        return "", []
    total_place = _paging(cursors, page)
    ids = [int(row["example_id"]) for row in page.rows]
    widget = _rows.table(
        page.rows,
        scores=queries.scores_of(store, ids),
        shown=shown,
        names=names,
        key="explore-rows",
        opened=st.session_state.get(ROW),
        on_open=_open,
        height=HEIGHT - 100,
        texts_first=st.session_state.get(ROW) is None,
    )
    total = _rows.count(store, path, version, filters, size)
    start = (len(cursors) - 1) * size
    total_place.markdown(f"**{start + 1:,}–{start + len(page.rows):,}** of **{total:,}** rows")
    _actions(service, filters, total)
    return widget, ids


# --- what can be done with the rows of the filter ---


def _actions(service: Service, filters: RowFilter, total: int) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        with st.popover("Save as dataset", icon=":material/library_add:"):
            _save(service, filters, total)
        _saved_filters.show("explore", filters.to_params())
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
        saved = st.form_submit_button(
            "Save", type="primary", icon=":material/library_add:", **_ui.allowed("administer")
        )
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
            like=filters.datasets,
        )
    except AssayError as error:
        st.error(_ui.plain(str(error)))
        return
    st.session_state["explore_saved"] = f"Saved {_ui.plain(name.strip())}: {len(ids):,} rows."
    st.rerun()


# --- one row, whole ---


def _close(widget: str, position: int | None) -> None:
    st.session_state[CLOSED] = st.session_state.pop(ROW)
    if position is not None:
        # The row stays marked: where one was. (Unselected by us, the table would swallow the next click.)
        _rows.select(widget, position)


def _go(widget: str, ids: Sequence[int], position: int) -> None:
    st.session_state[ROW] = ids[position]
    _rows.select(widget, position)


def _panel_bar(example: Mapping[str, Any], widget: str, ids: Sequence[int]) -> None:
    """Name of the row, and the way to its neighbours in the table."""
    example_id = example["example_id"]
    position = ids.index(example_id) if example_id in ids else None
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**Example {example_id}**", help=f"Its content address is {example['hash']}.", width="stretch")
        for label, icon, step, key in (("Up", "arrow_upward", -1, "k"), ("Down", "arrow_downward", 1, "j")):
            to = None if position is None else position + step
            there = to is not None and 0 <= to < len(ids)
            st.button(
                label,
                icon=f":material/{icon}:",
                type="tertiary",
                key=f"explore-{label}-{example_id}",
                disabled=not there,
                on_click=_go if there else None,
                args=(widget, ids, to),
                shortcut=key,
            )
        st.button(
            "Close",
            icon=":material/close:",
            type="tertiary",
            key=f"explore-close-{example_id}",
            on_click=_close,
            args=(widget, position),
        )


def _panel(service: Service, widget: str, ids: Sequence[int]) -> None:
    example_id = st.session_state.get(ROW)
    if example_id is None:
        return
    found = queries.examples(service.store, [example_id])
    if not found:
        st.warning(f"Row {example_id} is not in the store.", icon=":material/link_off:")
        return
    example = found[0]
    with st.container(border=True, height=HEIGHT):
        _panel_bar(example, widget, ids)
        _example.show(service, example)


def _datasets(service: Service) -> list[dict[str, Any]]:
    """The datasets to choose among: all but those of a study's runs, and of these the ones that a link asks for."""
    found = queries.datasets(service.store)
    known = {row["dataset_id"] for row in found}
    asked = {*_choose.numbers("datasets"), *st.session_state.get(_row_filter.DATASETS, ())} - known
    if not asked:
        return found
    return [*found, *(row for row in queries.datasets(service.store, with_runs=True) if row["dataset_id"] in asked)]


def main() -> None:
    """Render the page."""
    service = _ui.current_service()
    _ui.header("Explore", "Every row with its scores: filter, sort, open, and keep what you found as a dataset.")
    found = _datasets(service)
    if not found:
        _ui.empty("There is no dataset yet, so there are no rows to explore.", page="load.py", label="Load a dataset")
        return
    version = queries.version(service.store)
    datasets = _ui.dataset_names(found)
    by_id = {s["scorer_id"]: s for s in _rows.scorers(service.store, str(service.store.path), version, ())}
    _row_filter.take_up_url(datasets, by_id)
    saved = st.session_state.pop("explore_saved", None)
    if saved:
        st.success(saved, icon=":material/library_add_check:")
    filters, shown = _row_filter.show(service, datasets, by_id, version)
    names = {row["dataset_id"]: row["name"] for row in found}
    # Always two columns, so that the table stays the same element and keeps its place when a row is opened.
    is_open = st.session_state.get(ROW) is not None
    left, right = st.columns([1, 1] if is_open else [99, 1], gap="medium" if is_open else None)
    with left:
        widget, ids = _table(service, filters, names, shown, version)
    with right:
        _panel(service, widget, ids)
    _row_filter.write_url(filters)


main()
