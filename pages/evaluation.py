"""Evaluation sets: what a finetuned student is evaluated on, its references, and what it shares with training data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from core.errors import AssayError
from db import evaluation
from db.service import Service
from pages import _evaluation_import, _evaluation_overlap, _evaluation_references, _evaluation_rows, _pick, _ui

PANELS = {
    "rows": ":material/notes: Instructions",
    "references": ":material/edit_note: Have references written",
    "overlap": ":material/join_inner: Overlap with training data",
}
WAYS = {"import": ":material/upload_file: Import from a file", "mark": ":material/flag: Mark a dataset that is here"}
SAID = "evaluation_said"


def _choose(ids: Sequence[int], widget: str, opened: int | None) -> None:
    found = _pick.picked(ids, widget, opened)
    if found is not None:
        st.query_params["set"] = str(found)


def _table(sets: Sequence[Mapping[str, Any]], opened: int) -> None:
    ids = tuple(int(row["dataset_id"]) for row in sets)
    widget = _pick.widget_key("evaluation-sets", ids, opened)
    st.dataframe(
        pd.DataFrame(
            {
                "evaluation set": [row["name"] for row in sets],
                "instructions": [row["n_instructions"] for row in sets],
                "outputs": [row["n_outputs"] for row in sets],
                "no reference": [row["n_without_reference"] for row in sets],
                "refs each": pd.array([row["median_references"] for row in sets], dtype="Float64"),
                "duplicates": [row["n_duplicates"] for row in sets],
                "studies": [", ".join(row["studies"]) or None for row in sets],
                "from": [row["source"] for row in sets],
                "marked (UTC)": [row["marked_at"] for row in sets],
                "by": [row["marked_by"] for row in sets],
            }
        ),
        hide_index=True,
        height="content" if len(sets) <= 8 else 320,
        placeholder="—",
        key=widget,
        on_select=lambda: _choose(ids, widget, opened),
        **_pick.options(ids, opened),
        column_config={
            "evaluation set": st.column_config.TextColumn(width="medium"),
            **{
                name: st.column_config.NumberColumn(format="localized", width="small", help=what)
                for name, what in (
                    ("instructions", "Distinct instructions with their input."),
                    ("outputs", "Reference outputs: the evaluation loss is the mean over them."),
                    ("no reference", "Instructions without any output: no loss can be computed on them."),
                    ("duplicates", "Rows whose very texts stand in the set before."),
                )
            },
            "refs each": st.column_config.NumberColumn(
                format="%.1f", width="small", help="Median number of outputs of the instructions that have any."
            ),
            "marked (UTC)": st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm"),
        },
    )


def _one(service: Service, chosen: Mapping[str, Any]) -> None:
    dataset_id = int(chosen["dataset_id"])
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**{_ui.plain(chosen['name'])}**", width="stretch")
            st.page_link(
                "explore.py", label="Explore it", icon=":material/table_rows:",
                query_params={"datasets": str(dataset_id)},
            )  # fmt: skip
            st.page_link("studies.py", label="Plan a study", icon=":material/experiment:")
            with st.popover("Unmark", icon=":material/flag:"):
                _unmark(service, chosen)
        _warnings(chosen)
        panel = _pick.switch("What to see", PANELS, parameter="panel")
        {
            "rows": _evaluation_rows.show,
            "references": _evaluation_references.show,
            "overlap": _evaluation_overlap.show,
        }[panel](service, chosen)


def _warnings(chosen: Mapping[str, Any]) -> None:
    if not chosen["n_outputs"]:
        st.warning(
            "No instruction of this set has a reference output, so no loss can be computed on it. Have references "
            "written first.",
            icon=":material/edit_note:",
        )
    elif chosen["n_without_reference"]:
        st.caption(
            f":material/info: {chosen['n_without_reference']:,} of {chosen['n_instructions']:,} instructions have no "
            "reference; an evaluation leaves them out."
        )
    if chosen["n_outputs"] and chosen["n_instructions"] - chosen["n_without_reference"] < 2:
        st.caption(
            ":material/info: The set has one instruction with a reference: a loss on it says little about a student."
        )
    if chosen["n_duplicates"]:
        st.caption(
            f":material/info: {chosen['n_duplicates']:,} rows have the very texts of an earlier one. Each output "
            "counts once in an evaluation loss, however often it stands here."
        )


def _unmark(service: Service, chosen: Mapping[str, Any]) -> None:
    dataset_id = int(chosen["dataset_id"])
    st.markdown(f"Take the mark from **{_ui.plain(chosen['name'])}**? The dataset itself stays.")
    if st.button("Yes, unmark it", type="primary", key=f"evaluation-unmark-{dataset_id}", **_ui.allowed("administer")):
        try:
            evaluation.unmark(service.store, dataset_id)
        except AssayError as error:
            st.error(_ui.plain(str(error)))
            return
        st.query_params.pop("set", None)
        st.session_state[SAID] = f"{chosen['name']} is no evaluation set any more."
        st.rerun()


def main() -> None:
    """Render the page."""
    service = _ui.current_service()
    _ui.header(
        "Evaluation sets",
        "What finetuned students are evaluated on: the evaluation loss is the mean response-token loss over its "
        "reference outputs.",
    )
    if said := st.session_state.pop(SAID, None):
        st.toast(_ui.plain(said), icon=":material/check:")
    sets = evaluation.evaluation_sets(service.store)
    if sets:
        by_id = {int(row["dataset_id"]): row for row in sets}
        wanted = st.query_params.get("set", "")
        opened = int(wanted) if wanted.isdecimal() and int(wanted) in by_id else next(iter(by_id))
        st.query_params["set"] = str(opened)
        _table(sets, opened)
        _one(service, by_id[opened])
    else:
        _ui.empty(
            "There is no evaluation set yet. Import one below, or open the sample workspace, which brings one.",
            page="home.py",
            label="To the sample workspace",
            icon=":material/science:",
        )
    st.subheader("Add an evaluation set", anchor=False)
    way = _pick.switch("How", WAYS, parameter="add")
    if way == "mark":
        _evaluation_import.mark_existing(service)
    else:
        _evaluation_import.show(service)


main()
