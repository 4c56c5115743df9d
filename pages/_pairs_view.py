"""What the tabs of the Pairs page are about, what they remember of it, and the ways on from pairs that were marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import streamlit as st

from core.errors import AssayError
from core.filters import PairFilter
from db import pair_lists, pair_queue, similar_pairs
from db.service import Service
from db.store import Store
from pages import _ui
from pages._pair_filter import Facets

EXACT, WORDS, MEANING = "exact", "words", "meaning"
MOST_BY_MEANING = 200


@dataclass(frozen=True)
class PairView:
    """The pairs that the page is about: a filter, or (``meaning``) those of it that are most alike to a text."""

    service: Service
    filters: PairFilter
    meaning: str
    there: Facets

    @property
    def store(self) -> Store:
        """The open store."""
        return self.service.store

    @property
    def key(self) -> tuple[str, str]:
        """The first parts of the key of what is remembered."""
        return str(self.store.path), self.there.version

    def params(self) -> dict[str, str]:
        """The query parameters that show it again."""
        return self.filters.to_params() | ({"meaning": self.meaning} if self.meaning else {})


@st.cache_data(max_entries=64, show_spinner=False)
def _count(_store: Store, path: str, version: str, filters: PairFilter) -> int:
    return pair_queue.count(_store, filters)


@st.cache_data(max_entries=64, show_spinner="Looking for the pairs …")
def page(
    _store: Store, path: str, version: str, filters: PairFilter, after: pair_queue.Cursor | None, size: int
) -> pair_queue.PairPage:
    """One page of the table, remembered, so that marking a pair does not search again."""
    return pair_queue.page(_store, filters, after=after, size=size)


@st.cache_data(max_entries=16, show_spinner="Looking for pairs that mean the same …")
def _by_meaning(_store: Store, path: str, version: str, text: str) -> list[dict[str, Any]]:
    return similar_pairs.search_text(_store, text, limit=MOST_BY_MEANING)


def count(view: PairView, size: int) -> int:
    """How many pairs are behind the filter; taken from the first page where that brought it along."""
    if view.filters.text:
        total = page(view.store, *view.key, view.filters, None, size).total
        if total is not None:
            return total
    return _count(view.store, *view.key, view.filters)


def found_by_meaning(view: PairView) -> dict[int, float]:
    """Pairs alike to the text that are behind the filter, the most alike first, with their cosine.

    Raises:
        AssayError: the text cannot be embedded; the sentence says why.
    """
    found = {row["pair_id"]: float(row["similarity"]) for row in _by_meaning(view.store, *view.key, view.meaning)}
    kept = pair_queue.matching(view.store, replace(view.filters, text="", words=False), list(found))
    return {pair_id: found[pair_id] for pair_id in kept}


def marked(view: PairView, pair_ids: Sequence[int], *, source: str, key: str) -> None:
    """What can be done with these pairs: review them, start a campaign with them, keep them as a list."""
    n, words = len(pair_ids), f"{len(pair_ids):,} pair{'s' if len(pair_ids) != 1 else ''}"
    name = f"{source}: {words}"
    off: dict[str, Any] = {"disabled": not _ui.may("review"), "help": _ui.why_not("review")}
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        if st.button(
            f"Review these {words}" if n > 1 else "Review this pair",
            key=f"{key}-review",
            icon=":material/compare:",
            type="primary",
            **off,
        ):
            _go(view, pair_ids, name, page="review.py", extra={})
        if st.button(
            "Start a campaign with them" if n > 1 else "Start a campaign with it",
            key=f"{key}-campaign",
            icon=":material/flag:",
            **off,
        ):
            _go(view, pair_ids, name, page="campaigns.py", extra={"new": "1"})
        with st.popover("Save as a list", icon=":material/playlist_add:", disabled=off["disabled"], key=f"{key}-list"):
            save_list(view, pair_ids, key=f"{key}-{n}", suggested=name)


def _go(view: PairView, pair_ids: Sequence[int], name: str, *, page: str, extra: dict[str, str]) -> None:
    try:
        made = pair_lists.create(view.store, pair_ids, name=name, created_by=_ui.reviewer() or None)
    except AssayError as error:
        st.error(_ui.plain(str(error)))
        return
    shown = PairFilter(state="all", order="as listed", pair_list=made)
    st.switch_page(page, query_params=extra | shown.to_params())


def save_list(view: PairView, pair_ids: Sequence[int] | None, *, key: str, suggested: str = "") -> None:
    """The form that keeps pairs (None: all behind the filter) under a name."""
    with st.form(f"list-{key}", border=False):
        name = st.text_input("Name of the list", value=suggested, max_chars=200)
        st.caption("A list keeps these very pairs in this order, whatever becomes of them. Others can open it.")
        saved = st.form_submit_button("Save", type="primary", icon=":material/playlist_add:")
    if not saved:
        return
    try:
        ids: Sequence[int] = pair_queue.queue(view.store, view.filters).tolist() if pair_ids is None else pair_ids
        made = pair_lists.create(
            view.store, ids, name=name, details={"params": view.params()}, created_by=_ui.reviewer() or None
        )
    except AssayError as error:
        st.error(_ui.plain(str(error)))
        return
    st.success(f"Saved “{_ui.plain(' '.join(name.split()))}” with {len(ids):,} pair{'s' if len(ids) != 1 else ''}.")
    shown = PairFilter(state="all", order="as listed", pair_list=made).to_params()
    st.page_link("pairs.py", label="Show the list", icon=":material/table_rows:", query_params=shown)
    st.page_link("review.py", label="Review the list", icon=":material/compare:", query_params=shown)
