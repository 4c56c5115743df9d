"""Saved filters: a popover that keeps what a page shows under a name, for oneself or the team, and opens it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import streamlit as st

from core.errors import AssayError
from db import saved_filters
from db.saved_filters import LONGEST_NAME
from pages import _ui


def show(page: str, params: Mapping[str, str]) -> None:
    """The popover. ``page`` is the one that it stands on (of ``saved_filters.PAGES``); ``params`` say what it shows."""
    store, identity = _ui.current_service().store, _ui.reviewer()
    found = saved_filters.filters(store, page=page, identity=identity)
    called = _ui.people_names(store, {row["owner"] for row in found})
    with st.popover("Saved filters", icon=":material/bookmark:", width="content", key=f"saved-{page}"):
        said = st.session_state.pop(f"saved-{page}-said", None)
        if said:
            st.success(_ui.plain(said))
        if not found:
            st.caption("No filter is saved yet. Set one, then keep it here under a name.")
        for row in found:
            _line(page, row, identity, owner=called[row["owner"]])
        _save(page, params, identity)
        _link(page, params)


def _line(page: str, row: Mapping[str, Any], identity: str, *, owner: str) -> None:
    filter_id, own = row["filter_id"], row["owner"] == identity
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        # No link: after a link to the page that one is on, the browser would keep the former address.
        if st.button(
            _ui.plain(row["name"]), icon=":material/bookmark:", type="tertiary", key=f"saved-{page}-open-{filter_id}",
        ):  # fmt: skip
            st.query_params.from_dict(row["params"])
            st.rerun()
        about = "only you see it" if not row["shared"] else "shared by you" if own else f"of {owner}"
        st.caption(_ui.plain(about))
        if own:
            with st.popover("Edit", icon=":material/edit:", type="tertiary", key=f"saved-{page}-edit-{filter_id}"):
                _edit(page, row, identity)
        elif _ui.actor() is not None and _ui.may("administer"):
            _remove(page, filter_id, identity)


def _edit(page: str, row: Mapping[str, Any], identity: str) -> None:
    store, filter_id = _ui.current_service().store, row["filter_id"]
    with st.form(f"saved-{page}-rename-{filter_id}", border=False):
        name = st.text_input("Name", value=row["name"], max_chars=LONGEST_NAME)
        shared = st.checkbox("The team sees it", value=row["shared"])
        changed = st.form_submit_button("Change", icon=":material/check:")
    _remove(page, filter_id, identity)
    if not changed:
        return
    try:
        if name != row["name"]:
            saved_filters.rename(store, filter_id, name=name, identity=identity)
        if shared != row["shared"]:
            saved_filters.share(store, filter_id, shared=shared, identity=identity)
    except AssayError as error:
        st.error(_ui.plain(str(error)))
        return
    st.rerun()


def _remove(page: str, filter_id: int, identity: str) -> None:
    if st.button("Forget", icon=":material/delete:", type="tertiary", key=f"saved-{page}-remove-{filter_id}"):
        try:
            saved_filters.remove(_ui.current_service().store, filter_id, identity=identity)
        except AssayError as error:
            st.error(_ui.plain(str(error)))
            return
        st.rerun()


def _save(page: str, params: Mapping[str, str], identity: str) -> None:
    with st.form(f"saved-{page}-new", border=False, clear_on_submit=True):
        name = st.text_input("Save what is shown now as", max_chars=LONGEST_NAME, placeholder="Name of the filter")
        shared = st.checkbox("The team sees it too")
        saved = st.form_submit_button(
            "Save", type="primary", icon=":material/bookmark_add:", disabled=not _ui.may("review"),
            help=_ui.why_not("review"),
        )  # fmt: skip
    if not saved:
        return
    try:
        saved_filters.save(
            _ui.current_service().store, page=page, name=name, params=params, owner=identity, shared=shared
        )
    except AssayError as error:
        st.error(_ui.plain(str(error)))
        return
    st.session_state[f"saved-{page}-said"] = f"Saved {' '.join(name.split())}."
    st.rerun()


def _link(page: str, params: Mapping[str, str]) -> None:
    """The address of what is shown, with a button that copies it."""
    base = str(st.context.url or "").split("?")[0]
    if not base:
        return
    st.caption("Link to what is shown now")
    st.code(base + (f"?{urlencode(dict(params))}" if params else ""), language=None)
