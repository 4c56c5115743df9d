"""A judge log in the format of the Cherry LLM repository: counted before it is saved, then a comparison like others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from core.charts.judging import Bar
from core.errors import AssayError
from core.formats import resolve_server_path
from core.judge_log import JudgeLog, parse_log, read_log, summary_of
from core.judging import Summary
from db import imports, judging
from db.service import Service
from pages import _compare_view, _rows, _ui

UPLOAD, SERVER = "upload", "server"
_CHOSEN = "compare_log_chosen"
_DONE = "compare_log_done"
MOST_UPLOAD_MB = 200


@dataclass(frozen=True)
class Chosen:
    """A log that was read, or why it could not be."""

    way: str
    name: str
    log: JudgeLog | None = None
    summary: Summary | None = None
    error: str | None = None


def show(service: Service) -> None:
    """Choose a log, see what it says, name its models, save it."""
    done: int | None = st.session_state.get(_DONE)
    if done is not None:
        with st.container(border=True, horizontal=True, vertical_alignment="center"):
            st.markdown(":green[:material/check_circle:] The log is imported.", width="stretch")
            _compare_view.open_button(done, key="imported")
            st.button("Close", icon=":material/close:", type="tertiary", key="compare-log-close", on_click=_forget)
    st.markdown(
        "A log holds questions, two answers each, the judge's scores in both orders and its reviews "
        "\\(`data: [{text or instruction, Answer1, Answer2, scores, scores_reverse, review, review_reverse}]`\\)."
    )
    way = st.segmented_control(
        "Where the log is",
        [UPLOAD, SERVER],
        default=UPLOAD,
        format_func={
            UPLOAD: ":material/upload: Upload a file",
            SERVER: ":material/dns: File on the server",
        }.__getitem__,
        required=True,
        key="compare-log-way",
        label_visibility="collapsed",
    )
    if way == UPLOAD:
        _choose_upload()
    else:
        _choose_server(service)
    chosen: Chosen | None = st.session_state.get(_CHOSEN)
    if chosen is None or chosen.way != way:
        return
    if chosen.log is None or chosen.summary is None:
        st.error(_ui.plain(chosen.error or "The log could not be read."), icon=":material/error:")
        return
    _preview(service, chosen.log, chosen.summary)


def _forget() -> None:
    st.session_state.pop(_DONE, None)


def _take(way: str, name: str, reader: Callable[[], JudgeLog]) -> None:
    st.session_state.pop(_DONE, None)
    try:
        log = reader()
    except AssayError as error:
        st.session_state[_CHOSEN] = Chosen(way, name, error=str(error))
        return
    st.session_state[_CHOSEN] = Chosen(way, name, log, summary_of(log))


def _choose_upload() -> None:
    def changed() -> None:
        uploaded = st.session_state["compare-log-upload"]
        if uploaded is None:
            st.session_state.pop(_CHOSEN, None)
        else:
            _take(UPLOAD, uploaded.name, lambda: parse_log(uploaded.getvalue(), file_name=uploaded.name))

    st.file_uploader("A judge log (JSON)", key="compare-log-upload", on_change=changed, max_upload_size=MOST_UPLOAD_MB)


def _choose_server(service: Service) -> None:
    roots = service.settings.data_roots
    files = [path for path in imports.server_files(roots) if path.suffix.lower() == ".json"]
    st.caption(
        f"Files may be read from: {_ui.plain(', '.join(str(root) for root in roots))} \\(set with ASSAY\\_DATA\\_ROOTS)"
    )

    def read(path: Path | str) -> None:
        _take(SERVER, str(path), lambda: read_log(resolve_server_path(str(path), roots)))

    def picked() -> None:
        found = st.session_state["compare-log-file"]
        if found is not None:
            read(found)

    def typed() -> None:
        if st.session_state["compare-log-path"].strip():
            read(st.session_state["compare-log-path"])

    names = _ui.distinct({path: Path(path).name for path in files}, tell=lambda path: str(Path(path).parent))
    left, right = st.columns(2)
    left.selectbox(
        "JSON files in these folders", files, index=None, placeholder="Choose a file" if files else "There is none",
        format_func=names.__getitem__, key="compare-log-file", on_change=picked,
    )  # fmt: skip
    right.text_input(
        "Or give its path", placeholder=f"{roots[0]}/log.json" if roots else "", key="compare-log-path",
        on_change=typed, max_chars=4096,
    )  # fmt: skip


def _preview(service: Service, log: JudgeLog, found: Summary) -> None:
    key = log.sha256[:12]
    stem = Path(log.file_name).stem
    asked = str(log.meta.get("dataset_name") or stem)[:150]
    with st.container(border=True):
        st.markdown(f"**{_ui.plain(log.file_name)}** · {len(log.items):,} questions")
        left, right = st.columns(2)
        first = left.text_input(
            "Name of the first model (Answer1)", value=f"answer 1 of {asked}", key=f"log-first-{key}", max_chars=200
        )
        second = right.text_input(
            "Name of the second model (Answer2)", value=f"answer 2 of {asked}", key=f"log-second-{key}", max_chars=200
        )
        name = left.text_input("Name of the comparison", value=asked, key=f"log-name-{key}", max_chars=200)
        judge = right.text_input(
            "Who judged", value="", placeholder="gpt-4", key=f"log-judge-{key}", max_chars=100,
            help="The model that wrote the verdicts of this log.",
        )  # fmt: skip
        bar = Bar(
            first=first, second=second, about=stem, win=found.win, tie=found.tie, lose=found.lose,
            unparsed=found.unparsed, win_score=found.win_score, low=found.low, high=found.high,
        )  # fmt: skip
        _compare_view.plain_bars([bar], key=f"log-bars-{_rows.identity(key, first, second)}", name=f"{stem} verdicts")
        st.caption(
            "A log of answers that were imported before adds its judge to that comparison, which keeps its names: the "
            "judges then stand side by side."
        )
        if found.unparsed:
            lack = "entry lacks" if found.unparsed == 1 else "entries lack"
            st.caption(f"{found.unparsed:,} {lack} scores that can be used; kept apart, never as a tie.")
        pressed = st.button(
            "Import it",
            type="primary",
            icon=":material/download_done:",
            key=f"log-go-{key}",
            **_ui.allowed("administer", disabled=not judge.strip()),
        )
        if not judge.strip():
            st.caption("Say who judged first.")
    if pressed:
        try:
            st.session_state[_DONE] = judging.import_log(
                service.store, log, name=name, first_name=first, second_name=second, judge_name=judge.strip(),
                created_by=_ui.reviewer() or None,
            )  # fmt: skip
        except AssayError as error:
            st.error(_ui.plain(str(error)), icon=":material/error:")
            return
        st.session_state.pop(_CHOSEN, None)
        st.rerun()
