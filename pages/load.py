"""Load: choose a file or a hub dataset, see how its rows become examples, import them, read the report."""

from __future__ import annotations

import streamlit as st

from core.errors import AssayError
from core.formats import RowMapping, Source, detect_shape, safe_name
from db import imports, queries
from db.imports import ImportChoice, ImportTask
from db.service import Service
from pages import _datasets, _mapping, _report, _sources, _ui
from pages._sources import Chosen

TASK = "load_task"


def _show_chosen(service: Service, chosen: Chosen) -> None:
    if chosen.source is None:
        st.error(_ui.plain(chosen.error or "This cannot be read."), icon=":material/error:")
        return
    source = chosen.source
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**{_ui.plain(source.name)}**", width="stretch")
            st.button("Put away", icon=":material/close:", type="tertiary", key="load-clear", on_click=_sources.clear)
        _recognised(chosen, source)
        _report.notes(source.notes)
        mapping = _mapping.choose(source, chosen.token)
        try:
            _mapping.show_preview(source, mapping, chosen.token)
        except AssayError as error:
            st.error(_ui.plain(str(error)), icon=":material/error:")
            return
        _import_bar(service, chosen, source, mapping)


def _recognised(chosen: Chosen, source: Source) -> None:
    found = detect_shape(source)
    badges = [_ui.badge(source.container)]
    if chosen.size is not None:
        badges.append(_ui.badge(_sources.size(chosen.size)))
    badges.append(_ui.badge(f"{len(source.columns)} columns: {', '.join(source.columns)[:120]}"))
    if found is not None:
        badges.append(_ui.badge(f"✓ recognised as {_mapping.SHAPES.get(found.name, found.name)}", "good"))
    else:
        badges.append(_ui.badge("? no known shape: say below which column is what", "bad"))
    _ui.badges(*badges)


def _import_bar(service: Service, chosen: Chosen, source: Source, mapping: RowMapping) -> None:
    key = f"load-name-{chosen.token}"
    if key not in st.session_state:
        st.session_state[key] = imports.free_name(service.store, chosen.name)
    sides = st.columns([4, 2, 2.4, 1.4], vertical_alignment="bottom")
    name = sides[0].text_input("Name of the dataset", max_chars=200, key=key, persist_state="session")
    skip = sides[1].checkbox(
        "Skip bad rows",
        key=f"load-skip-{chosen.token}",
        persist_state="session",
        help="Off: one bad row stops the import, and nothing is imported.",
    )
    drop = sides[2].checkbox(
        "Leave out exact duplicates",
        key=f"load-drop-{chosen.token}",
        persist_state="session",
        help="Only the first of rows with the very same texts is kept.",
    )
    pressed = sides[3].button(
        "Import",
        type="primary",
        icon=":material/download_done:",
        key=f"load-go-{chosen.token}",
        **_ui.allowed("administer"),
    )
    if pressed:
        _start(service, chosen, source, mapping, name=str(name), skip=skip, drop=drop)
    failed: ImportTask | None = st.session_state.get(TASK)
    if failed is not None and failed.source is source and failed.state == "failed":
        _show_failed(failed)


def _start(
    service: Service, chosen: Chosen, source: Source, mapping: RowMapping, *, name: str, skip: bool, drop: bool
) -> None:
    running: ImportTask | None = st.session_state.get(TASK)
    if running is not None and not running.over:
        return
    choice = ImportChoice(
        name=name,
        origin=chosen.origin,
        skip_bad_rows=skip,
        drop_exact_duplicates=drop,
        created_by=_ui.reviewer() or None,
    )
    upload = chosen.upload

    def done() -> None:
        if upload is not None:
            imports.discard_upload(upload)

    try:
        st.session_state[TASK] = imports.start_import(service.store, source, mapping, choice, on_success=done)
    except AssayError as error:
        st.error(_ui.plain(str(error)), icon=":material/error:")
        return
    st.rerun()


def _show_failed(task: ImportTask) -> None:
    st.error(_ui.plain(task.error or ""), icon=":material/error:")
    summary = task.report.summary()
    if summary["n_bad_rows"]:
        _report.counts(summary, key="load-failed", imported=False)
        rows = [row for row in imports.findings(task.report) if row["kind"] == "bad row"]
        _report.findings(
            rows, summary={"n_bad_rows": summary["n_bad_rows"]}, key="load-failed", download=task.report.to_csv,
            file_name=f"bad rows {safe_name(task.choice.name)}.csv",
        )  # fmt: skip


@st.fragment(run_every=0.5)
def _show_progress(task: ImportTask) -> None:
    if task.over:
        st.rerun()
    with st.container(border=True):
        st.markdown(f"**Importing {_ui.plain(task.choice.name)}**")
        read = f"{task.report.rows_read:,} rows read"
        if task.state == "storing":
            st.progress(1.0, text=f"{read} · storing them in one transaction …")
            return
        parts = [read]
        if task.rows_per_second:
            parts.append(f"{task.rows_per_second:,.0f} rows/s")
        if task.eta_seconds is not None:
            parts.append(f"about {_ui.duration(task.eta_seconds)} left")
        if task.report.n_bad_rows:
            parts.append(f"{task.report.n_bad_rows:,} bad rows")
        st.progress(task.source.reading.fraction or 0.0, text=" · ".join(parts))
        st.caption("The import goes on if you leave this page. All rows come in together at the end, or none.")


def _show_done(service: Service, task: ImportTask) -> None:
    names = {row["dataset_id"]: row["name"] for row in queries.datasets(service.store)}
    with st.container(border=True):
        name = names.get(task.dataset_id or 0, task.choice.name)
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(
                f":green[:material/check_circle:] **{_ui.plain(name)}** is imported "
                f"\\({_ui.plain(_ui.duration(max(1.0, task.seconds)))})",
                width="stretch",
            )
            if task.dataset_id is not None and task.dataset_id in names:
                _datasets.links(task.dataset_id)
            st.button("Close", icon=":material/close:", type="tertiary", key="load-done", on_click=_forget_task)
        summary = imports.summary(task)
        _report.counts(summary, key=f"done-{task.dataset_id}")
        _report.notes(summary["notes"])
        _report.findings(
            imports.findings(task.report), summary=summary, key=f"done-{task.dataset_id}", download=task.report.to_csv,
            file_name=f"import report {safe_name(name)}.csv",
        )  # fmt: skip


def _forget_task() -> None:
    st.session_state.pop(TASK, None)


def main() -> None:
    """The page."""
    service = _ui.current_service()
    _ui.header(
        "Load",
        "Rows of instruction, input and response become a dataset. Look at them first, then import all or nothing.",
    )
    task: ImportTask | None = st.session_state.get(TASK)
    if task is not None and not task.over:
        _show_progress(task)
    else:
        if task is not None and task.state == "done":
            _sources.clear(task.source)
            _show_done(service, task)
        chosen = _sources.choose(service)
        if chosen is not None:
            _show_chosen(service, chosen)
    for other in imports.running():
        if other is not task:
            _show_progress(other)
    _datasets.show(service)


main()
