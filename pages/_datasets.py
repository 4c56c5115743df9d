"""The table of datasets: rename, remove, and the report of each import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from core.errors import AssayError
from db import commands, queries
from db.service import Service
from pages import _pick, _report, _ui

SHOWN, SAID = "load_dataset", "load_said"


def show(service: Service) -> None:
    """The section: the table, and what can be done with the dataset that is chosen in it."""
    datasets = queries.datasets(service.store)
    st.subheader("Datasets in this workspace", anchor=False)
    for message in st.session_state.pop(SAID, ()):
        st.toast(_ui.plain(message), icon=":material/check:")
    if not datasets:
        _ui.empty(
            "There is no dataset yet. Choose a file above, or open the sample workspace on the first page.",
            page="home.py",
            label="To the sample workspace",
            icon=":material/science:",
        )
        return
    by_id = {int(row["dataset_id"]): row for row in datasets}
    _table(datasets)
    chosen = st.session_state.get(SHOWN)
    if chosen in by_id:
        _one(service, by_id[chosen])
    else:
        st.caption(
            "Click a dataset to score it, finetune on it, rename it, remove it or read the report of its import."
        )


def _choose(ids: Sequence[int], widget: str, opened: int | None) -> None:
    st.session_state[SHOWN] = _pick.picked(ids, widget, opened)


def _table(datasets: Sequence[Mapping[str, Any]]) -> None:
    ids = tuple(int(row["dataset_id"]) for row in datasets)
    chosen: int | None = st.session_state.get(SHOWN)
    widget = _pick.widget_key("datasets", ids, chosen)
    reports = [row["details"].get("report", {}) for row in datasets]
    table = pd.DataFrame(
        {
            "name": [row["name"] for row in datasets],
            "rows": [row["n_members"] for row in datasets],
            "from": [row["source"] for row in datasets],
            "shape": [report.get("shape", row["kind"]) for row, report in zip(datasets, reports, strict=True)],
            "bad rows": pd.array([report.get("n_bad_rows") for report in reports], dtype="Int64"),
            "pairs": [row["n_pairs"] for row in datasets],
            "decided": [row["n_decided"] for row in datasets],
            "loaded (UTC)": [row["created_at"] for row in datasets],
            "by": [row["created_by"] or "—" for row in datasets],
        }
    )
    st.dataframe(
        table,
        hide_index=True,
        height="content" if len(table) <= 10 else 390,
        placeholder="—",
        key=widget,
        on_select=lambda: _choose(ids, widget, chosen),
        **_pick.options(ids, chosen),
        column_config={
            "name": st.column_config.TextColumn(width="medium"),
            "from": st.column_config.TextColumn(width="medium"),
            **{
                name: st.column_config.NumberColumn(format="localized", width="small")
                for name in ("rows", "bad rows", "pairs", "decided")
            },
            "loaded (UTC)": st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm"),
        },
    )


def links(dataset_id: int) -> None:
    """Where to go with a dataset."""
    number = str(dataset_id)
    st.page_link("score.py", label="Score it", icon=":material/speed:", query_params={"dataset": number})
    st.page_link("explore.py", label="Explore it", icon=":material/table_rows:", query_params={"datasets": number})
    st.page_link(
        "studies.py", label="Finetune on it", icon=":material/experiment:",
        query_params={"new": "single", "dataset": number},
    )  # fmt: skip


def _one(service: Service, dataset: Mapping[str, Any]) -> None:
    dataset_id, name = int(dataset["dataset_id"]), str(dataset["name"])
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**{_ui.plain(name)}**", width="stretch")
            links(dataset_id)
            with st.popover("Rename", icon=":material/edit:"):
                _rename(service, dataset_id, name)
            with st.popover("Remove", icon=":material/delete:"):
                _remove(service, dataset)
        _report.kept(queries.dataset_details(service.store, dataset_id), dataset_id=dataset_id, name=name)


def _rename(service: Service, dataset_id: int, name: str) -> None:
    with st.form(f"rename-{dataset_id}", border=False):
        wanted = st.text_input("New name", value=name, max_chars=200, key=f"rename-name-{dataset_id}")
        pressed = st.form_submit_button(
            "Rename", type="primary", key=f"rename-press-{dataset_id}", **_ui.allowed("administer")
        )
    if not pressed or wanted.strip() == name:
        return
    try:
        commands.rename_dataset(service.store, dataset_id, name=wanted)
    except AssayError as error:
        st.error(_ui.plain(str(error)))
        return
    st.session_state[SAID] = [f"{name} is called {wanted.strip()} now."]
    st.rerun()


def _remove(service: Service, dataset: Mapping[str, Any]) -> None:
    dataset_id, name = int(dataset["dataset_id"]), str(dataset["name"])
    st.markdown(f"Remove **{_ui.plain(name)}** from the list?")
    lost = f"Its list of {dataset['n_members']:,} rows and its report go."
    if dataset["n_pairs"]:
        lost += f" It has {dataset['n_pairs']:,} pairs to review, {dataset['n_decided']:,} of them decided."
    st.markdown(f"{lost} Texts, scores, pairs and decisions stay in the store.")
    if st.button(
        "Yes, remove it",
        key=f"remove-{dataset_id}",
        type="primary",
        icon=":material/delete:",
        **_ui.allowed("administer"),
    ):
        try:
            commands.remove_dataset(service.store, dataset_id)
        except AssayError as error:
            st.error(_ui.plain(str(error)))
            return
        st.session_state[SHOWN] = None
        st.session_state[SAID] = [f"{name} was removed."]
        st.rerun()
