"""The table of pairs: a page at a time, what can be done with them, and one pair whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from core.errors import AssayError
from db import pair_queue, queries, review
from pages import _pairs_view, _rows, _ui
from pages._pairs_view import PairView

SIZE, PAGES = 50, "pairs_pages"
HEIGHT = 620
SIGNS = {"accepted": "✓ accepted", "rejected": "✗ rejected", "disputed": "≠ disputed", "undecided": "· undecided"}
VALUES = {
    "closest call": "margin",
    "indicators disagree": "disagreement",
    "closest to the rule's cut": "from the cut",
    "most uncertain": "from ½",
    "most similar": "similarity",
}
_TEXTS = (("instruction", "Instruction"), ("input", "Input"), ("output", "Response"))


def ways_on(view: PairView) -> None:
    """What can be done with all pairs of the filter: links that carry it."""
    if view.meaning:
        return
    params = view.filters.to_params()
    st.page_link("review.py", label="Review these", icon=":material/compare:", query_params=params)
    st.page_link(
        "campaigns.py", label="Start a campaign with these", icon=":material/flag:", query_params={"new": "1"} | params
    )
    with st.popover(
        "Save as a list", icon=":material/playlist_add:", width="content", key="pairs-list-all",
        disabled=not _ui.may("review"),
    ):  # fmt: skip
        _pairs_view.save_list(view, None, key="all")


def show(view: PairView) -> None:
    """The tab."""
    if view.meaning:
        _by_meaning(view)
        return
    cursors = _cursors(view)
    page = _pairs_view.page(view.store, *view.key, view.filters, cursors[-1], SIZE)
    if not page.rows and len(cursors) == 1:
        st.info(
            "No pair is behind this filter now. Choose another state or fewer conditions.",
            icon=":material/filter_alt_off:",
        )
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        _paging(cursors, page)
        place = st.empty()
    if page.note:
        st.caption(_ui.plain(page.note))
    has_values = any(row["value"] is not None for row in page.rows)
    ids = _table(view, page.rows, value=VALUES.get(view.filters.order) if has_values else None)
    total = _pairs_view.count(view, SIZE)
    start = (len(cursors) - 1) * SIZE
    place.markdown(f"**{start + 1:,}–{start + len(page.rows):,}** of **{total:,}** pair{'s' if total != 1 else ''}")
    _chosen(view, ids)


def _by_meaning(view: PairView) -> None:
    try:
        found = _pairs_view.found_by_meaning(view)
    except AssayError as error:
        st.warning(_ui.plain(str(error)), icon=":material/search_off:")
        return
    if not found:
        st.info(
            f"None of the {_pairs_view.MOST_BY_MEANING} pairs most alike to this text is behind the filter.",
            icon=":material/search_off:",
        )
        return
    st.markdown(f"**{len(found):,}** pair{'s' if len(found) != 1 else ''} behind the filter, the most alike first")
    rows = [{**row, "value": found[row["pair_id"]]} for row in pair_queue.table_of(view.store, list(found))]
    _pairs_view.marked(view, list(found), source="Search by meaning", key="pairs-meaning")
    _chosen(view, _table(view, rows, value="similarity"))


def listed(view: PairView, pair_ids: Sequence[int], *, total: int) -> None:
    """A plain table of some pairs, the first of ``total``."""
    frame, config = _frame(view, pair_queue.table_of(view.store, pair_ids), value=None)
    st.dataframe(
        frame, hide_index=True, height=min(320, 38 + 35 * len(pair_ids)), placeholder="—", column_config=config
    )
    if total > len(pair_ids):
        st.caption(f"The first {len(pair_ids)} of {total:,} pairs.")


# --- paging ---


def _cursors(view: PairView) -> list[pair_queue.Cursor | None]:
    """The cursors of the pages from the first to the one shown; a new filter begins at the first."""
    kept = st.session_state.get(PAGES)
    if kept is None or kept["of"] != view.filters:
        kept = st.session_state[PAGES] = {"of": view.filters, "cursors": [None]}
    cursors: list[pair_queue.Cursor | None] = kept["cursors"]
    return cursors


def _turn(cursors: list[pair_queue.Cursor | None]) -> None:
    st.session_state[PAGES]["cursors"] = cursors


def _paging(cursors: list[pair_queue.Cursor | None], page: pair_queue.PairPage) -> None:
    for label, icon, to in (
        ("First", "first_page", [None] if len(cursors) > 1 else None),
        ("Previous", "chevron_left", cursors[:-1] or None),
        ("Next", "chevron_right", [*cursors, page.next_cursor] if page.next_cursor else None),
    ):
        st.button(
            label, icon=f":material/{icon}:", key=f"pairs-{label}", disabled=to is None, on_click=_turn, args=(to,)
        )


# --- the table ---


def _table(view: PairView, rows: Sequence[Mapping[str, Any]], *, value: str | None) -> list[int]:
    """Draw the rows; returns the pairs that are marked in it."""
    ids = [int(row["pair_id"]) for row in rows]
    frame, config = _frame(view, rows, value=value)
    key = f"pairs-table-{_rows.identity(tuple(ids))}"
    st.dataframe(
        frame,
        hide_index=True,
        height=min(HEIGHT, 38 + 35 * max(3, len(rows))),
        placeholder="—",
        column_config=config,
        key=key,
        on_select="rerun",
        selection_mode="multi-row",
    )
    chosen = st.session_state[key]["selection"]["rows"] if key in st.session_state else []
    return [ids[i] for i in chosen if i < len(ids)]


def _frame(
    view: PairView, rows: Sequence[Mapping[str, Any]], *, value: str | None
) -> tuple[pd.DataFrame, dict[str, Any]]:
    small = {name: st.column_config.Column(width="small") for name in ("stage", "method", "proposal", "by", "dataset")}
    number = st.column_config.NumberColumn
    columns: dict[str, Any] = {
        "pair": [row["pair_id"] for row in rows],
        "state": [SIGNS[row["state"]] + (" ⚑" if row["flagged"] else "") for row in rows],
    }
    config: dict[str, Any] = {"pair": number("pair", width="small", pinned=True, format="%d"), **small}
    config["state"] = st.column_config.TextColumn("state", width=104, help="⚑ is flagged")
    if value is not None:
        columns[value] = pd.array([row.get("value") for row in rows], dtype="Float64")
        config[value] = number(value, format="%.3f", width=108)
    for title, one, other in (("IFD", "ifd_candidate", None), ("IFD gain", "ifd_candidate", "ifd_original"),
                              ("r-IFD", "r_ifd_candidate", None)):  # fmt: skip
        columns[title] = pd.array([_difference(row, one, other) for row in rows], dtype="Float64")
        config[title] = number(title, format="%.3f", width="small")
    _add_scores(view, rows, columns, config)
    for title, name in (("original", "instruction"), ("reflected", "reflected")):
        columns[title] = [row[name] for row in rows]
        config[title] = st.column_config.TextColumn(title, width=250)
    if len({row["dataset"] for row in rows}) > 1:
        columns["dataset"] = [row["dataset"] for row in rows]
    for name in ("stage", "method", "proposal"):
        columns[name] = [row[name] for row in rows]
    if any(row["reviewer"] for row in rows):
        called = _ui.people_names(view.store, sorted({row["reviewer"] for row in rows if row["reviewer"]}))
        columns["by"] = [called.get(row["reviewer"]) for row in rows]
        columns["when"] = [row["decided_at"] for row in rows]
        config["when"] = st.column_config.DatetimeColumn("when (UTC)", format="YYYY-MM-DD HH:mm", width="small")
    return pd.DataFrame(columns), config


def _difference(row: Mapping[str, Any], one: str, other: str | None) -> float | None:
    if other is None or row[one] is None:
        return None if row[one] is None else float(row[one])
    return None if row[other] is None else float(row[one]) - float(row[other])


def _add_scores(
    view: PairView, rows: Sequence[Mapping[str, Any]], columns: dict[str, Any], config: dict[str, Any]
) -> None:
    """A column for each score that the filter asks for."""
    wanted = [r.scorer_id for r in view.filters.scores]
    if not wanted:
        return
    found = queries.scores_of(view.store, [row["candidate_id"] for row in rows])
    values = {(score["example_id"], score["scorer_id"]): score["value"] for score in found}
    for scorer_id in wanted:
        title = view.there.scorer_names.get(scorer_id, f"scorer {scorer_id}")
        columns[title] = pd.array([values.get((row["candidate_id"], scorer_id)) for row in rows], dtype="Float64")
        config[title] = st.column_config.NumberColumn(title, format="%.3f", width="small")


# --- what is marked ---


def _chosen(view: PairView, ids: Sequence[int]) -> None:
    if not ids:
        st.caption("Mark pairs at their left edge: one opens whole, several can be queued for review.")
        return
    _pairs_view.marked(view, ids, source="Marked on Pairs", key=f"pairs-marked-{_rows.identity(tuple(ids))}")
    if len(ids) == 1:
        one(view, ids[0])


def one(view: PairView, pair_id: int) -> None:
    """A pair whole: both texts side by side, what stands on it, and where it can be looked at further."""
    try:
        pair = review.pair(view.store, pair_id)
    except AssayError as error:
        st.warning(_ui.plain(str(error)))
        return
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.markdown(f"**Pair {pair_id}** · {_standing(view, pair)}", width="stretch")
            st.page_link(
                "review.py", label="Open in Review", icon=":material/compare:", query_params={"pair": str(pair_id)}
            )
            st.page_link("history.py", label="History", icon=":material/history:", query_params={"pair": str(pair_id)})
            like = {"state": "all", "order": "most similar", "like": str(pair_id)}
            st.page_link("pairs.py", label="Pairs like this", icon=":material/join_inner:", query_params=like)
        left, right = st.columns(2)
        for field, label in _TEXTS:
            original, reflected = str(pair[f"o_{field}"]), str(pair[f"c_{field}"])
            if field == "input" and not original and not reflected:
                continue
            with left:
                _ui.text_block(original, label=f"{label}, original", kind="original")
            with right:
                same = " (unchanged)" if original == reflected else ""
                _ui.text_block(reflected, label=f"{label}, reflected{same}", kind="reflected")


def _standing(view: PairView, pair: Mapping[str, Any]) -> str:
    decision = pair["decision"]
    if decision is None:
        return "nothing stands on it"
    verb = {"accept": "accepted", "reject": "rejected"}.get(decision["verdict"], decision["verdict"].replace("_", " "))
    by = _ui.people_names(view.store, [decision["reviewer"]])[decision["reviewer"]]
    return f"{verb} by {_ui.plain(by)}, {_ui.ago(decision['decided_at'])}"
