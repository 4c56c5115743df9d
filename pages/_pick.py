"""Choices that stay put: tables of which one line is open, and a switch whose position stands in the URL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import streamlit as st

from pages import _rows

Id = TypeVar("Id", int, str)


def widget_key(name: str, ids: Sequence[Id], opened: Id | None) -> str:
    """The key of a table that shows ``ids`` with ``opened`` marked; other lines or another mark are another widget.

    A click that was made on the lines before can so never mean a line of now.
    """
    return f"{name}-{_rows.identity(tuple(ids), opened)}"


def options(ids: Sequence[Id], opened: Id | None) -> dict[str, Any]:
    """Arguments of ``st.dataframe`` for such a table."""
    return {
        "selection_mode": ["single-row", "single-cell"],
        "selection_default": {"selection": {"rows": [ids.index(opened)]}} if opened in ids else None,
    }


def picked(ids: Sequence[Id], widget: str, opened: Id | None) -> Id | None:
    """The line that was clicked, in the table's callback; None where the open one was put away."""
    selection: dict[str, Any] = st.session_state[widget]["selection"]
    lines = [*(cell[0] for cell in selection["cells"]), *selection["rows"]]
    found = [ids[line] for line in lines if line < len(ids)]
    return next((one for one in found if one != opened), found[0] if found else None)


def switch(label: str, positions: Mapping[str, str], *, parameter: str) -> str:
    """A segmented control whose position is a parameter of the URL; the first position needs none."""
    key, first = f"switch-{parameter}", next(iter(positions))
    # None too: a run of a fragment that the next one cut short can leave a control without its choice.
    if st.session_state.get(key) not in positions:
        wanted = st.query_params.get(parameter, first)
        st.session_state[key] = wanted if wanted in positions else first

    def write() -> None:
        if st.session_state[key] == first:
            st.query_params.pop(parameter, None)
        else:
            st.query_params[parameter] = st.session_state[key]

    found = st.segmented_control(
        label, list(positions), required=True, format_func=positions.__getitem__, key=key, on_change=write,
        label_visibility="collapsed",
    )  # fmt: skip
    return str(found) if found in positions else first
