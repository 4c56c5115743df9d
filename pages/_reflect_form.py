"""The form of a new reflection run: rows, student, teacher, method, and what it will cost before it starts."""

from __future__ import annotations

from typing import Any

import streamlit as st

from core.errors import AssayError
from core.reflection_estimate import Expected, expected
from core.reflection_options import MOST_ATTEMPTS, MOST_CANDIDATES, MOST_ROUNDS, ReflectOptions
from core.reflection_prompt import DEFAULT, STAGES, ReflectionPrompt, shelf
from core.teacher import TeacherSettings
from core.teachers import AnyTeacher, label_of
from db import jobs, queries, reflection_report
from db.service import Service
from pages import _reflect_rows, _student, _teacher, _ui
from pages._reflect_rows import Rows

STARTED = "reflect-job"
METHOD_TEXT = {
    "v2": "**V2, selective.** The student keeps the new instruction if its IFD is higher, then the new response if its "
    "r-IFD is lower; ties keep the original.",
    "v1": "**V1, unselected.** Instruction and response are both rewritten and both proposed; scores are shown, "
    "nothing is selected.",
}


def show(service: Service) -> None:
    """Ask for everything, show what it will cost, and submit the run."""
    rows_side, teacher_side = st.columns(2, gap="large")
    with rows_side, st.container(border=True):
        st.subheader("Rows", anchor=False)
        rows = _reflect_rows.choose(service)
        st.caption(f"{len(rows.ids):,} rows chosen.")
        st.subheader("Student", anchor=False)
        student = _student.student_form("reflect-student")
    try:
        with teacher_side, st.container(border=True):
            st.subheader("Teacher", anchor=False)
            teacher, ids, missing = _choose_teacher(service, rows)
            st.subheader("Method", anchor=False)
            method = st.radio(
                "Method",
                list(METHOD_TEXT),
                format_func=METHOD_TEXT.__getitem__,
                label_visibility="collapsed",
                key="reflect-m",
            )
            more = _more(service, str(method or "v2"), recorded=teacher is None)
        if student is None:
            return
        options = ReflectOptions(method=str(method or "v2"), teacher=teacher, student=student, **more)
        _estimate(service, ids, options)
        _run(service, rows, ids, options=options, ready=missing is None)
    except AssayError as error:
        st.error(_ui.plain(str(error)))


def _choose_teacher(service: Service, rows: Rows) -> tuple[AnyTeacher, list[int], str | None]:
    """The teacher, the rows that it can be asked about, and what is missing before it can be."""
    recorded = _reflect_rows.recorded_among(service, rows.ids) if not rows.starts else []
    teacher, missing = _teacher.teacher_form("reflect", recorded=bool(recorded))
    ids = rows.ids
    if teacher is None:
        ids = recorded
        st.caption(
            f"Answers that were written once for the bundled sample are played back. {len(recorded):,} of the "
            f"{len(rows.ids):,} chosen rows have one; only these are asked about."
        )
    if missing:
        st.caption(f":material/info: {_ui.plain(missing)}")
    return teacher, ids, missing


def _more(service: Service, method: str, *, recorded: bool) -> dict[str, Any]:
    """What is rarely changed, behind a line that says what is set."""
    found = shelf(service.settings.prompts_path)
    _begin(found.prompts)
    with st.expander(_more_words(method, recorded=recorded), icon=":material/tune:", key="reflect-more"):
        prompts = {stage: _prompt_choice(stage, found.prompts) for stage in STAGES}
        if found.damaged:
            st.caption(
                f":material/warning: {len(found.damaged)} prompt files cannot be used; the Prompts page says why."
            )
        st.page_link("prompts.py", label="Read, edit and try prompts", icon=":material/edit_note:")
        columns = st.columns(3)
        k = columns[0].number_input(
            "Candidates per row", 1, MOST_CANDIDATES, 1, key="reflect-k", disabled=recorded,
            help="How many rewrites the teacher is asked for in each stage; the student keeps the best of them. "
            "Needs a temperature above 0.",
        )  # fmt: skip
        rounds = columns[1].number_input(
            "Rounds", 1, MOST_ROUNDS, 1, key="reflect-rounds", disabled=recorded,
            help="A row that changed is reflected again from its new text, until nothing is taken any more.",
        )  # fmt: skip
        attempts = columns[2].number_input(
            "Attempts", 1, MOST_ATTEMPTS, 1, key="reflect-attempts", disabled=recorded,
            help="How often a reply that cannot be read is asked for in all; each one is paid and kept.",
        )  # fmt: skip
        use_filter = only_replaced = False
        if method == "v2":
            use_filter = st.checkbox("Leave out pairs whose IFD or r-IFD is not below 1", key="reflect-filter")
            only_replaced = st.checkbox("Leave out rows whose response was not replaced", key="reflect-replaced")
    return {
        "prompts": prompts,
        "n_candidates": 1 if recorded else int(k),
        "rounds": 1 if recorded else int(rounds),
        "attempts": 1 if recorded else int(attempts),
        "filter": use_filter,
        "only_replaced_response": only_replaced,
    }


def _begin(prompts: tuple[ReflectionPrompt, ...]) -> None:
    """The prompts of a link (``prompt_instruction``, ``prompt_response``), else the built-in ones."""
    for stage in STAGES:
        versions = [prompt.version for prompt in prompts if prompt.stage == stage]
        wanted = st.query_params.get(f"prompt_{stage}", "")
        key = f"reflect-prompt-{stage}"
        if st.session_state.get(key) not in versions:
            st.session_state[key] = wanted if wanted in versions else DEFAULT[stage].version


def _prompt_choice(stage: str, prompts: tuple[ReflectionPrompt, ...]) -> ReflectionPrompt:
    by_version = {prompt.version: prompt for prompt in prompts if prompt.stage == stage}
    version = st.selectbox(
        f"Prompt of the {stage} stage",
        list(by_version),
        format_func=lambda v: f"{v} · {by_version[v].title}",
        key=f"reflect-prompt-{stage}",
    )
    if version == DEFAULT[stage].version:
        st.query_params.pop(f"prompt_{stage}", None)
    else:
        st.query_params[f"prompt_{stage}"] = version
    return by_version[version]


def _more_words(method: str, *, recorded: bool) -> str:
    state = st.session_state
    edited = [state[f"reflect-prompt-{stage}"] for stage in STAGES
              if state[f"reflect-prompt-{stage}"] != DEFAULT[stage].version]  # fmt: skip
    words = [f"prompts {_ui.plain(' and '.join(edited))}" if edited else "built-in prompts"]
    for key, one, many in (
        ("reflect-k", "1 candidate", "candidates"),
        ("reflect-rounds", "1 round", "rounds"),
        ("reflect-attempts", "1 attempt", "attempts"),
    ):
        n = 1 if recorded else state.get(key, 1)
        words.append(one if n == 1 else f"{n} {many}")
    if method == "v2" and (state.get("reflect-filter") or state.get("reflect-replaced")):
        words.append("filtered")
    return "More: " + " · ".join(words)


# --- what it will cost ---


def _estimate(service: Service, ids: list[int], options: ReflectOptions) -> None:
    totals = queries.text_bytes(service.store, ids)
    pace = None
    if isinstance(options.teacher, TeacherSettings):
        pace = reflection_report.seconds_per_answer(service.store, teacher=label_of(options.teacher))
    found = expected(
        options,
        n_rows=totals["n"],
        instruction_bytes=totals["instruction_bytes"],
        output_bytes=totals["output_bytes"],
        seconds_per_answer=pace,
    )
    cells = (
        ("Rows", _ui.number(len(ids))),
        ("Teacher calls", _ui.number(found.calls)),
        ("Prompt tokens", _ui.compact(found.prompt_tokens)),
        ("Answer tokens", _ui.compact(found.completion_tokens)),
        ("Cost", "—" if found.cost_usd is None else f"${found.cost_usd:,.2f}"),
        ("Time", "≤ 24 h" if _is_batch(options.teacher) else _ui.duration(found.seconds)),
    )
    for column, (label, value) in zip(st.columns(len(cells)), cells, strict=True):
        column.metric(label, value, border=True)
    st.caption(_estimate_words(found, options, known_pace=pace is not None))
    budget = options.budget_usd
    if budget is not None and found.cost_usd is not None and budget < found.cost_usd:
        share = budget / found.cost_usd
        st.warning(
            f"The budget of {_usd(budget)} is below the estimate of {_usd(found.cost_usd)}: it may end after about "
            f"{int(share * len(ids)):,} of {len(ids):,} rows. What is done stays, and the rest can go on later.",
            icon=":material/account_balance_wallet:",
        )


def _usd(value: float) -> str:
    """Dollars for a place that reads Markdown."""
    return f"\\${value:,.2f}"


def _is_batch(teacher: AnyTeacher) -> bool:
    return isinstance(teacher, TeacherSettings) and teacher.mode == "batch"


def _estimate_words(found: Expected, options: ReflectOptions, *, known_pace: bool) -> str:
    teacher = options.teacher
    if teacher is None:
        return "Recorded answers cost nothing and their tokens were not counted."
    words = ["An estimate: four bytes a token, answers about as long as the texts they rewrite."]
    if options.n_candidates * options.rounds > 1:
        words.append("Rounds may end early, when a row stays as it is.")
    if options.attempts > 1:
        most = f", {_usd(found.most_cost_usd)}" if found.most_cost_usd is not None else ""
        words.append(f"At most {found.most_calls:,} calls{most}, if no reply could be read.")
    if not isinstance(teacher, TeacherSettings):
        words.append("A local model costs no money, but time of this machine.")
        return " ".join(words)
    if found.cost_usd is None:
        words.append("Give both prices to see the cost.")
    elif teacher.mode == "batch":
        words.append(f"With {1 - teacher.batch_discount:.0%} off for the Batch API.")
    if teacher.mode == "live" and found.seconds is not None:
        rest = "the pace of its latest answers" if known_pace else "its limits per minute"
        words.append(f"The time is by {rest}.")
    return " ".join(words)


def _run(service: Service, rows: Rows, ids: list[int], *, options: ReflectOptions, ready: bool) -> None:
    pressed = st.button(
        f"Reflect on {len(ids):,} rows",
        type="primary",
        icon=":material/play_arrow:",
        key=f"reflect-run-{rows.dataset_id}",
        **_ui.allowed("administer", disabled=not ids or not ready),
    )
    if not pressed:
        return
    folder = jobs.submit_reflect(
        service.store,
        service.settings.jobs_path,
        dataset_id=rows.dataset_id,
        example_ids=ids,
        options=options,
        title=f"Reflect: {rows.title}",
        created_by=_ui.reviewer() or None,
        starts=rows.starts or None,
        rounds_before=rows.rounds_before or None,
    )
    st.session_state[STARTED] = service.enqueue(folder)
    st.rerun()
