"""Add an evaluation set: import it from a file, with its references in a second one where they stand apart."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from core.errors import AssayError
from core.formats import (
    JOINED,
    Shape,
    Source,
    TurnsMapping,
    detect_evaluation_shape,
    join_references,
    open_source,
    safe_name,
)
from db import evaluation, imports, queries
from db.imports import ImportChoice, ImportTask
from db.service import Service
from pages import _mapping, _report, _sources, _ui
from pages._sources import Chosen

TASK, SECOND, JOINED_SOURCE = "evaluation_task", "evaluation_second", "evaluation_joined"
NONE = "— none —"


def show(service: Service) -> None:
    """The choice of file, the preview, and the import on its way or done."""
    task: ImportTask | None = st.session_state.get(TASK)
    if task is not None and not task.over:
        _progress(task)
        return
    if task is not None and task.state == "done":
        _done(service, task)
    chosen = _sources.choose(service)
    if chosen is None:
        st.caption(
            "Read as they are: self-instruct's user-oriented instructions (instances); MT-bench questions (turns) with "
            "their reference answers in a second file; rows with an instruction and one or several outputs (a list, or "
            "the columns output, outputs, references). A row without an output is an instruction without a reference."
        )
        return
    if chosen.source is None:
        st.error(_ui.plain(chosen.error or "This cannot be read."), icon=":material/error:")
        return
    _chosen(service, chosen, chosen.source)


def _chosen(service: Service, chosen: Chosen, questions: Source) -> None:
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**{_ui.plain(questions.name)}**", width="stretch")
            st.button("Put away", icon=":material/close:", type="tertiary", key="evaluation-clear", on_click=_clear)
        source = _with_answers(service, chosen, questions)
        if source is None:
            return
        found = detect_evaluation_shape(source)
        known = "? no known shape: say below which column is what"
        if found is not None:
            known = f"✓ recognised as {_mapping.SHAPES.get(found.name, found.name)}"
        _ui.badges(_ui.badge(source.container), _ui.badge(known, "bad" if found is None else "good"))
        _report.notes(source.notes)
        token = f"{chosen.token}-{JOINED in source.columns}"
        mapping = _mapping.choose_evaluation(source, found, token)
        try:
            _mapping.show_preview(source, mapping, token, empty="○ no reference yet")
        except AssayError as error:
            st.error(_ui.plain(str(error)), icon=":material/error:")
            return
        _import_bar(service, chosen, source, mapping)


def _with_answers(service: Service, chosen: Chosen, questions: Source) -> Source | None:
    """The source itself, or with the reference answers of a second file; None where that cannot be read."""
    shape = detect_evaluation_shape(questions)
    with st.expander("Reference answers in a second file", expanded=isinstance(shape, TurnsMapping)):
        st.caption("Matched by question\\_id or id, as MT-bench's are. Without such a file they can be written later.")
        files = {str(path): path for path in imports.server_files(service.settings.data_roots)}
        names = _ui.distinct({path: Path(path).name for path in files}, tell=lambda path: str(Path(path).parent))
        sides = st.columns(2)
        uploaded = sides[0].file_uploader("Upload it", key=f"evaluation-answers-{chosen.token}")
        on_server = sides[1].selectbox(
            "Or a file on the server", [NONE, *files], key=f"evaluation-answers-server-{chosen.token}",
            format_func=lambda path: path if path == NONE else names[path],
        )  # fmt: skip
    try:
        if uploaded is not None:
            answers = _kept_upload(service, uploaded.file_id, uploaded.name, uploaded)
        elif on_server != NONE:
            answers = files[on_server]
        else:
            return questions
        return _joined(chosen.token, questions, answers)
    except AssayError as error:
        st.error(_ui.plain(str(error)), icon=":material/error:")
        return None


def _joined(token: str, questions: Source, answers: Path) -> Source:
    """Both files, joined once: that reads them from start to end."""
    kept: tuple[str, Source] | None = st.session_state.get(JOINED_SOURCE)
    if kept is None or kept[0] != f"{token}-{answers}":
        joined = join_references(questions, open_source(answers, name=safe_name(answers.name)))
        kept = st.session_state[JOINED_SOURCE] = (f"{token}-{answers}", joined)
    return kept[1]


def _kept_upload(service: Service, file_id: str, name: str, stream: object) -> Path:
    """The upload on the disk, written once."""
    kept: tuple[str, Path] | None = st.session_state.get(SECOND)
    if kept is None or kept[0] != file_id or not kept[1].exists():
        _discard_second()
        path = imports.keep_upload(service.settings.home / "uploads", name, stream)  # type: ignore[arg-type]
        kept = st.session_state[SECOND] = (file_id, path)
    return kept[1]


def _discard_second() -> None:
    kept: tuple[str, Path] | None = st.session_state.pop(SECOND, None)
    if kept is not None:
        imports.discard_upload(kept[1])


def _clear() -> None:
    _discard_second()
    _sources.clear()


def _import_bar(service: Service, chosen: Chosen, source: Source, mapping: Shape) -> None:
    key = f"evaluation-name-{chosen.token}"
    if key not in st.session_state:
        st.session_state[key] = imports.free_name(service.store, chosen.name)
    sides = st.columns([4, 2, 2.4, 2], vertical_alignment="bottom")
    name = sides[0].text_input("Name of the evaluation set", max_chars=200, key=key)
    skip = sides[1].checkbox(
        "Skip bad rows", key=f"evaluation-skip-{chosen.token}",
        help="Off: one bad row stops the import, and nothing is imported.",
    )  # fmt: skip
    drop = sides[2].checkbox(
        "Leave out exact duplicates", value=True, key=f"evaluation-drop-{chosen.token}",
        help="The same output twice would count twice in the evaluation loss.",
    )  # fmt: skip
    pressed = sides[3].button(
        "Import the set",
        type="primary",
        icon=":material/download_done:",
        key=f"evaluation-go-{chosen.token}",
        **_ui.allowed("administer"),
    )
    if pressed:
        choice = ImportChoice(
            name=str(name), origin=chosen.origin, skip_bad_rows=skip, drop_exact_duplicates=drop,
            created_by=_ui.reviewer() or None, evaluation=True,
        )  # fmt: skip
        _start(service, chosen, source, mapping, choice)
    failed: ImportTask | None = st.session_state.get(TASK)
    if failed is not None and failed.state == "failed" and failed.choice.origin == chosen.origin:
        st.error(_ui.plain(failed.error or ""), icon=":material/error:")
        rows = [row for row in imports.findings(failed.report) if row["kind"] == "bad row"]
        if rows:
            _report.findings(
                rows, summary={"n_bad_rows": failed.report.n_bad_rows}, key="evaluation-failed",
                download=failed.report.to_csv, file_name=f"bad rows {safe_name(failed.choice.name)}.csv",
            )  # fmt: skip


def _start(service: Service, chosen: Chosen, source: Source, mapping: Shape, choice: ImportChoice) -> None:
    kept: tuple[str, Path] | None = st.session_state.get(SECOND)
    uploads = [path for path in (chosen.upload, kept[1] if kept else None) if path is not None]

    def done() -> None:
        for path in uploads:
            imports.discard_upload(path)

    try:
        st.session_state[TASK] = imports.start_import(service.store, source, mapping, choice, on_success=done)
    except AssayError as error:
        st.error(_ui.plain(str(error)), icon=":material/error:")
        return
    st.rerun()


@st.fragment(run_every=0.5)
def _progress(task: ImportTask) -> None:
    if task.over:
        st.rerun()
    parts = [f"Importing {_ui.plain(task.choice.name)}", f"{task.report.rows_read:,} rows read"]
    if task.eta_seconds is not None:
        parts.append(f"about {_ui.duration(task.eta_seconds)} left")
    st.progress(task.source.reading.fraction or 0.0, text=" · ".join(parts))


def _done(service: Service, task: ImportTask) -> None:
    """The report of the import that has just ended, once; the set itself is opened above."""
    st.session_state.pop(SECOND, None)
    if st.session_state.get("evaluation_shown") != id(task):
        st.session_state["evaluation_shown"] = id(task)
        _sources.clear()
        st.query_params["set"] = str(task.dataset_id)
        st.rerun()
    summary = imports.summary(task)
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(
                f":green[:material/check_circle:] **{_ui.plain(task.choice.name)}** is imported and marked as an "
                "evaluation set",
                width="stretch",
            )
            st.button("Close", icon=":material/close:", type="tertiary", key="evaluation-done", on_click=_forget)
        _report.counts(summary, key=f"evaluation-{task.dataset_id}", references=True)
        _report.notes(summary["notes"])
        _report.findings(
            imports.findings(task.report), summary=summary, key=f"evaluation-{task.dataset_id}",
            download=task.report.to_csv, file_name=f"import report {safe_name(task.choice.name)}.csv",
        )  # fmt: skip


def _forget() -> None:
    st.session_state.pop(TASK, None)


def mark_existing(service: Service) -> None:
    """Mark a dataset that is in the store."""
    marked = {row["dataset_id"] for row in evaluation.evaluation_sets(service.store)}
    others = {row["dataset_id"]: row for row in queries.datasets(service.store) if row["dataset_id"] not in marked}
    if not others:
        _ui.empty("There is no dataset that could be marked.", page="load.py", label="Load a dataset")
        return
    names = _ui.dataset_names(list(others.values()))
    sides = st.columns([4, 1.4], vertical_alignment="bottom")
    dataset_id = sides[0].selectbox(
        "Dataset", list(names), format_func=names.__getitem__, key=f"evaluation-mark-{len(names)}"
    )
    if sides[1].button(
        "Mark as evaluation set",
        icon=":material/flag:",
        key=f"evaluation-mark-go-{dataset_id}",
        **_ui.allowed("administer"),
    ):
        try:
            evaluation.mark(service.store, dataset_id, by=_ui.reviewer() or None)
        except AssayError as error:
            st.error(_ui.plain(str(error)))
            return
        st.query_params["set"] = str(dataset_id)
        st.rerun()
    st.caption("Rows that share instruction and input count as several references of one instruction.")
