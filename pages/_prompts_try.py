"""Try a prompt: five rows and two prompts side by side, asked from this server. Nothing of it is stored."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial

import streamlit as st

from core.errors import AssayError
from core.example import Example
from core.prompt_trial import MOST_ROWS, PromptTrial, TrialReply, for_trial
from core.reflection_estimate import prompt_bytes
from core.reflection_prompt import DEFAULT, INSTRUCTION, ReflectionPrompt
from core.teacher import TeacherSettings
from core.teacher_costs import Estimate, estimate
from core.teachers import AnyTeacher, open_teacher
from db import permission, queries
from db import prompts as prompt_uses
from db.service import Service
from pages import _reflect_rows, _teacher, _ui

STATE = "prompt-trial"
Rows = Sequence[tuple[int, Example]]


def show(service: Service, prompt: ReflectionPrompt, others: Sequence[ReflectionPrompt]) -> None:
    """The form, then the replies row by row."""
    if not queries.datasets(service.store):
        _ui.empty("Trying needs rows, and there is no dataset yet.", page="load.py", label="Load a dataset")
        return
    left, right = st.columns(2, gap="large")
    with left, st.container(border=True):
        st.subheader("Rows and prompts", anchor=False)
        rows = _choose_rows(service)
        other = _other(prompt, others)
    try:
        with right, st.container(border=True):
            st.subheader("Teacher", anchor=False)
            recorded = _reflect_rows.recorded_among(service, [example_id for example_id, _ in rows])
            teacher, missing = _teacher.teacher_form("try", recorded=bool(recorded), local=False)
        if teacher is None:
            rows = [row for row in rows if row[0] in recorded]
            st.caption(f"Recorded answers are the same for every prompt; {len(rows)} of these rows have one.")
        prompts = [prompt] if other is None else [prompt, other]
        _start(service, rows, prompts, teacher, missing)
    except AssayError as error:
        st.error(_ui.plain(str(error)))
    trial: PromptTrial | None = st.session_state.get(STATE)
    if trial is not None and trial.prompts[0].stage == prompt.stage:
        if trial.state == "running":
            st.fragment(_watch, run_every=0.5)(trial)
        else:
            _results(trial)


def _choose_rows(service: Service) -> list[tuple[int, Example]]:
    dataset_id = _ui.pick_dataset(key="try-dataset")
    left, right = st.columns([1, 2])
    seed = int(
        left.number_input("Draw", min_value=0, value=0, step=1, key="try-seed", help="Another number: other rows")
    )
    said = right.text_input("Or these rows", placeholder="numbers of examples, such as 12, 40, 77", key="try-ids")
    wanted = [int(part) for part in re.findall(r"\d{1,15}", said)][:MOST_ROWS]
    rows = prompt_uses.sampled_rows(
        service.store, dataset_id, n=MOST_ROWS, seed=int(seed), among=wanted if said.strip() else None
    )
    if said.strip() and (not wanted or len(rows) < len(set(wanted))):
        st.caption(f":material/info: {len(rows)} of these rows are in the dataset.")
    for example_id, example in rows:
        st.caption(_ui.plain(f"{example_id} · {_first_words(example)}"))
    return rows


def _first_words(example: Example) -> str:
    line = " ".join(example.instruction.split())
    return line if len(line) <= 90 else line[:89] + "…"


def _other(prompt: ReflectionPrompt, others: Sequence[ReflectionPrompt]) -> ReflectionPrompt | None:
    by_version = {one.version: one for one in others if one.version != prompt.version}
    usual = prompt.based_on if prompt.based_on in by_version else DEFAULT[prompt.stage].version
    options = ["", *by_version]
    chosen = st.selectbox(
        f"Beside {prompt.version}",
        options,
        index=options.index(usual) if usual in by_version else 0,
        format_func=lambda version: f"{version} · {by_version[version].title}" if version else "no other prompt",
        key=f"try-other-{prompt.version}",
    )
    return by_version.get(chosen)


def _start(
    service: Service, rows: Rows, prompts: Sequence[ReflectionPrompt], teacher: AnyTeacher, missing: str | None
) -> None:
    if missing:
        st.caption(f":material/info: {_ui.plain(missing)}")
    n = len(rows) * len(prompts)
    at_work = st.session_state.get(STATE)
    running = at_work is not None and at_work.state == "running"
    st.caption(_cost_words(rows, prompts, teacher) + " The replies are shown here until this session ends; nothing is "
               "stored, and no pair comes of it.")  # fmt: skip
    if st.button(
        f"Ask {n} questions",
        type="primary",
        icon=":material/play_arrow:",
        key="try-start",
        **_ui.allowed("administer", disabled=not rows or missing is not None or running),
    ):
        permission.require("administer")
        settings = for_trial(teacher) if isinstance(teacher, TeacherSettings) else teacher
        trial = PromptTrial(partial(open_teacher, settings), prompts=prompts, rows=rows)
        trial.start()
        st.session_state[STATE] = trial
        st.rerun()


def _cost_words(rows: Rows, prompts: Sequence[ReflectionPrompt], teacher: AnyTeacher) -> str:
    if teacher is None:
        return f"{len(rows) * len(prompts)} recorded answers cost nothing."
    found: list[Estimate] = [
        estimate(
            [example for _, example in rows],
            stages=(prompt.stage,),
            prompt_bytes={prompt.stage: prompt_bytes(prompt)},
            settings=for_trial(teacher) if isinstance(teacher, TeacherSettings) else teacher,
        )
        for prompt in prompts
    ]
    n_tokens = sum((one.prompt_tokens or 0) + (one.completion_tokens or 0) for one in found)
    costs = [one.cost_usd for one in found]
    known = [cost for cost in costs if cost is not None]
    cost = f", about \\${sum(known):,.4f}" if len(known) == len(costs) else "; give both prices to see the cost"
    return f"{sum(one.calls for one in found)} calls, about {n_tokens:,} tokens{cost}."


def _watch(trial: PromptTrial) -> None:
    """A trial at work: how many answers came, and a way to stop it. The page is drawn anew when it ends."""
    if trial.state != "running":
        st.rerun()
    done = len(trial.replies)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.progress(
            done / max(1, trial.n_questions), text=f"{done} of {trial.n_questions} answers" if done else "Asking …"
        )
        st.button("Stop", key="try-stop", on_click=trial.stop)


# --- replies ---


def _results(trial: PromptTrial) -> None:
    st.divider()
    if trial.problem:
        st.warning(_ui.plain(trial.problem))
    columns = st.columns(len(trial.prompts), gap="large")
    for column, prompt in zip(columns, trial.prompts, strict=True):
        with column:
            _sum(trial, prompt)
    for place, (example_id, example) in enumerate(trial.rows):
        with st.expander(_ui.plain(f"Row {example_id}: {_first_words(example)}"), expanded=True,
                         key=f"try-row-{id(trial)}-{place}"):  # fmt: skip
            _row(trial, place, example)


def _sum(trial: PromptTrial, prompt: ReflectionPrompt) -> None:
    replies = [trial.replies[key] for key in trial.replies if key[0] == prompt.version]
    good = sum(reply.candidate is not None and not reply.unchanged for reply in replies)
    tokens = [reply.answer.completion_tokens for reply in replies]
    counted = [n for n in tokens if n is not None]
    mean = f" · {sum(counted) / len(counted):,.0f} tokens an answer" if counted else ""
    st.markdown(f"**{_ui.plain(prompt.version)}** — {good} of {len(trial.rows)} rows with a candidate{mean}")


def _row(trial: PromptTrial, place: int, example: Example) -> None:
    left, right = st.columns([2, 3]) if trial.prompts[0].stage == INSTRUCTION else (st.container(), st.container())
    with left:
        _ui.text_block(example.instruction, label="Instruction", kind="original")
        if example.input:
            _ui.text_block(example.input, label="Input", kind="original")
    with right:
        _ui.text_block(example.output, label="Response", kind="original")
    columns = st.columns(len(trial.prompts), gap="large")
    for column, prompt in zip(columns, trial.prompts, strict=True):
        with column:
            _reply(trial.replies.get((prompt.version, place)), prompt)


def _reply(reply: TrialReply | None, prompt: ReflectionPrompt) -> None:
    if reply is None:
        st.caption(f"{_ui.plain(prompt.version)}: no answer came.")
        return
    answer = reply.answer
    said = [prompt.version, "asked for JSON" if answer.form == "json" else "asked for tagged text",
            _ui.duration(answer.seconds)]  # fmt: skip
    if answer.completion_tokens is not None:
        said.append(f"{answer.completion_tokens:,} tokens")
    if answer.cost_usd is not None:
        said.append(f"{answer.cost_usd:.5f} USD")
    st.caption(_ui.plain(" · ".join(said)))
    if reply.failure is not None:
        st.markdown(f":orange[✗] {_ui.plain(reply.failure)}")
    elif reply.unchanged:
        st.markdown("The teacher gave the same texts back.")
    candidate, critique, raw = st.tabs(["Candidate", "Critique", "Raw reply"])
    with candidate:
        if reply.candidate is None:
            st.caption("There is none.")
        else:
            if prompt.stage == INSTRUCTION:
                _ui.text_block(reply.candidate.instruction, label="New instruction", kind="reflected")
            _ui.text_block(reply.candidate.output, label="New response", kind="reflected")
    with critique:
        for name, text in reply.critique.items():
            _ui.text_block(text, label=name.replace("_", " "))
        if not reply.critique:
            st.caption("There is none.")
    with raw:
        _ui.text_block(answer.raw or "", label="As it came")
