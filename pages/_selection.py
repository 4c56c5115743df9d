"""Rows that were marked in a figure: how many, the first of them, the way to Explore and to a dataset of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st

from core.errors import AssayError
from core.filters import RowFilter, ids_fit_into_link
from db import commands, queries
from db.service import Service
from db.store import Store
from pages import _rows, _ui

ROWS_SHOWN = 50
Row = Mapping[str, Any]
_OPEN = "selection_open"


@dataclass(frozen=True)
class View:
    """What a page is about: the chosen datasets, their names, the scorers with values, the store's version."""

    page: str
    service: Service
    datasets: tuple[int, ...]
    names: Mapping[int, str]
    scorers: Sequence[Mapping[str, Any]]
    version: str

    @property
    def store(self) -> Store:
        """The open store."""
        return self.service.store

    @property
    def path(self) -> str:
        """Where the store lies: part of the key of what is remembered."""
        return str(self.store.path)


def follow() -> None:
    """Go to the row of a table that was clicked. Call it first of all on a page that shows such tables."""
    wanted = st.session_state.pop(_OPEN, None)
    if wanted is not None:
        st.switch_page("explore.py", query_params=wanted)


def in_figure(parts: Sequence[Sequence[Any]], state: Any, *, first_trace: int = 0) -> list[Any]:
    """What is selected in a figure whose traces from ``first_trace`` on hold ``parts``."""
    found = []
    for point in state["selection"]["points"]:
        trace, index = point["curve_number"] - first_trace, point["point_index"]
        if 0 <= trace < len(parts) and index < len(parts[trace]):
            found.append(parts[trace][index])
    return found


def of_filter(view: View, filters: RowFilter, *, words: str, about: Sequence[Any], key: str) -> None:
    """All rows of a filter: their number, what they are (``words``, Markdown), the first of them, the ways on."""
    total = _rows.count(view.store, view.path, view.version, filters, ROWS_SHOWN)
    page = _rows.page(view.store, view.path, view.version, filters, None, ROWS_SHOWN)
    _bar(view, total, words, key=key, filters=filters, ids=lambda: queries.matching_ids(view.store, filters))
    _linked_table(view, page.rows, about=about, key=key, params=filters.to_params())


def of_rows(view: View, chosen: Sequence[Row], *, about: Sequence[Any], key: str) -> None:
    """Rows that a lasso marked (with ``example_id, dataset_id, position``): as :func:`of_filter`, by their ids."""
    ids = list(dict.fromkeys(int(row["example_id"]) for row in chosen))
    filters = RowFilter(datasets=view.datasets, ids=tuple(sorted(ids))) if ids_fit_into_link(ids) else None
    words = "inside" if len(ids) == len(chosen) else f"inside, {len(ids):,} of them different"
    _bar(view, len(chosen), words, key=key, filters=filters, ids=lambda: ids)
    texts = {row["example_id"]: row for row in queries.previews(view.store, ids[:ROWS_SHOWN])}
    places = {row["example_id"]: row for row in reversed(chosen)}
    rows = [{**places[i], **texts[i]} for i in ids[:ROWS_SHOWN] if i in texts]
    _linked_table(view, rows, about=about, key=key, params=filters.to_params() if filters else {})


def _linked_table(
    view: View, rows: Sequence[Row], *, about: Sequence[Any], key: str, params: Mapping[str, str]
) -> None:
    """A table whose rows open in Explore, with the scorers ``about`` and the usual ones."""
    scores = queries.scores_of(view.store, [row["example_id"] for row in rows])
    by_id = {s["scorer_id"]: s for s in view.scorers}
    shown = [by_id[i] for i in _rows.usual(view.scorers, first=[s["scorer_id"] for s in about])]

    def remember(ids: tuple[int, ...], widget: str) -> None:
        found = _rows.clicked(ids, widget)
        if found is not None:
            st.session_state[_OPEN] = {**params, "row": str(found)}

    _rows.table(rows, scores=scores, shown=shown, names=view.names, key=key, on_open=remember, height=320)
    st.caption("Click a row to open it whole in Explore.")


def _bar(
    view: View, total: int, words: str, *, key: str, filters: RowFilter | None, ids: Callable[[], list[int]]
) -> None:
    first = f", the first {ROWS_SHOWN} here" if total > ROWS_SHOWN else ""
    params = filters.to_params() if filters else {}
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{total:,} rows** {words}{first}", width="stretch")
        with st.popover("Save as dataset", icon=":material/library_add:"):
            _save(view, ids, key=f"{key}-{total}", details={"filter": params} if params else {})
        if filters is not None:
            st.page_link("explore.py", label="Open in Explore", icon=":material/table_rows:", query_params=params)
    if filters is None:
        st.caption("These are too many rows for a link to Explore: save them as a dataset, then open that.")


def _save(view: View, ids: Callable[[], list[int]], *, key: str, details: Mapping[str, Any]) -> None:
    with st.form(f"save-{key}", border=False):
        name = st.text_input("Name of the new dataset", max_chars=200)
        saved = st.form_submit_button(
            "Save", type="primary", icon=":material/library_add:", **_ui.allowed("administer")
        )
    if not saved:
        return
    try:
        found = ids()
        made = commands.create_dataset(
            view.store, found, name=name, kind="selection", source=view.page, details=details,
            created_by=_ui.reviewer() or None, like=view.datasets,
        )  # fmt: skip
    except AssayError as error:
        st.error(_ui.plain(str(error)))
        return
    st.success(f"Saved {_ui.plain(name.strip())}: {len(found):,} rows.")
    st.page_link(
        "explore.py", label="Open it in Explore", icon=":material/table_rows:", query_params={"datasets": str(made)}
    )
