"""The instructions of an evaluation set, and the references of the one that is open, to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from db import evaluation
from db.service import Service
from pages import _pick, _ui

OPENED = "evaluation_opened"
MOST_ROWS = 500
_SHOWN_CHARACTERS = 400


def show(service: Service, chosen: Mapping[str, Any]) -> None:
    """The table with its search, and the instruction that is open."""
    dataset_id = int(chosen["dataset_id"])
    sides = st.columns([3, 2], vertical_alignment="bottom")
    wanted = sides[0].text_input(
        "Find", placeholder="words of instruction, input or reference", key=f"evaluation-find-{dataset_id}"
    )
    missing = sides[1].checkbox("Only those without a reference", key=f"evaluation-missing-{dataset_id}")
    rows = evaluation.instructions(
        service.store, dataset_id, text_found=wanted or "", only_without=missing, limit=MOST_ROWS
    )
    if not rows:
        st.caption("No instruction of this set fits. Change what is looked for.")
        return
    ids = tuple(int(row["example_id"]) for row in rows)
    opened = st.session_state.get(OPENED)
    opened = opened if opened in ids else None
    table, reading = st.columns([3, 2], gap="medium")
    with table:
        _table(rows, ids, opened)
        if len(rows) >= MOST_ROWS:
            st.caption(f"The first {MOST_ROWS} instructions are shown. Search for others.")
    with reading:
        if opened is None:
            st.caption("Click an instruction to read it with its references.")
        else:
            _read(service, dataset_id, rows[ids.index(opened)])


def _choose(ids: Sequence[int], widget: str, opened: int | None) -> None:
    st.session_state[OPENED] = _pick.picked(ids, widget, opened)


def _table(rows: Sequence[Mapping[str, Any]], ids: Sequence[int], opened: int | None) -> None:
    widget = _pick.widget_key("evaluation-rows", ids, opened)
    table = pd.DataFrame(
        {
            "references": pd.array([row["n_references"] or None for row in rows], dtype="Int64"),
            "instruction": [row["instruction"][:_SHOWN_CHARACTERS] for row in rows],
            "input": [row["input"][:_SHOWN_CHARACTERS] for row in rows],
        }
    )
    st.dataframe(
        table if table["input"].any() else table.drop(columns="input"),
        hide_index=True,
        height="content" if len(rows) <= 10 else 390,
        placeholder="○ none",
        key=widget,
        on_select=lambda: _choose(ids, widget, opened),
        **_pick.options(ids, opened),
        column_config={
            "references": st.column_config.NumberColumn(width=90),
            "instruction": st.column_config.TextColumn(width="large"),
            "input": st.column_config.TextColumn(width="medium"),
        },
    )


def _read(service: Service, dataset_id: int, row: Mapping[str, Any]) -> None:
    with st.container(border=True, height=390):
        _ui.text_block(row["instruction"], label="Instruction")
        if row["input"].strip():
            _ui.text_block(row["input"], label="Input")
        found = evaluation.references(service.store, dataset_id, int(row["example_id"]))
        if not found:
            st.caption("○ It has no reference yet. Have one written under “Have references written”.")
        for number, reference in enumerate(found, start=1):
            by = f" · {reference['model']} at {reference['teacher']}" if reference["teacher"] else ""
            _ui.text_block(reference["output"], label=f"Reference {number} of {len(found)}{by}", kind="reflected")
