"""Let a model answer: which model and adapter, how it is asked and decoded, how long it may take, and the job."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import streamlit as st

from core import answers_pace
from core.errors import AssayError
from core.generation import Decoding, GeneratorSettings
from core.generation_loading import AUTO, DTYPE_CHOICES, QUANTISED
from core.lm import StudentSettings
from core.model_check import ModelCheck, Point, check_files, free_memory
from core.prompts import TEMPLATES
from core.scoring import DEMO_STUDENT
from core.trial import TRIAL_SECONDS, Trial
from db import answer_items, answer_plans, answers, score_results
from db.service import Service
from pages import _answers_view, _models, _ui
from pages._answers_view import TestSet

KEY = "answers-new"
TRIAL = "answers_trial"
WAYS = {"model": ":material/smart_toy: A model as it is", "run": ":material/experiment: The adapter of a finetune run"}
DTYPE_WORDS = {AUTO: "auto", "int8": "8-bit (bitsandbytes)", "nf4": "4-bit NF4 (bitsandbytes)"}
TEMPLATE_HELP = (
    "How instruction and input are put before the model: the format it was trained on. chat is the template of the "
    "model's own tokenizer."
)


@dataclass(frozen=True)
class _Model:
    """What answers: ``details`` say which run an adapter is of, ``title`` names it in the answer set's name."""

    model: str
    revision: str | None
    adapter: str | None
    template: str
    title: str
    details: Mapping[str, Any]


def show(service: Service, test_set: TestSet) -> None:
    """The form, the estimate, and the button."""
    left, right = st.columns(2, gap="large")
    with left, st.container(border=True, height="stretch"):
        st.subheader("Model", anchor=False)
        chosen = _choose_model(service)
        device = _models.device_choice(KEY, usual="cuda" if service.scheduler.gpus() else "cpu")
        dtype, template, max_prompt = _asked_how(chosen)
        check = _check(chosen, template=template, dtype=dtype, device=device)
        if check is not None:
            _models.show_check(check)
    with right, st.container(border=True, height="stretch"):
        st.subheader("Answers", anchor=False)
        n = _n_questions(test_set)
        decoding = _decoding()
        if chosen is None:
            return
        try:
            settings = GeneratorSettings(
                model=chosen.model, revision=chosen.revision, adapter=chosen.adapter, device=device, dtype=dtype,
                template=template, max_prompt_tokens=max_prompt,
            )  # fmt: skip
        except AssayError as error:
            st.error(_ui.plain(str(error)))
            return
        ready = check is not None and check.ok
        _estimate(service, test_set, n, settings, decoding, ready=ready)
    _submit_bar(service, test_set, n, chosen, settings, decoding, ready=ready)


# --- the model ---


def _take_wanted_run(service: Service) -> None:
    """A link to one run (``?run=12``) chooses it, once."""
    wanted = st.query_params.get("run", "")
    if not wanted:
        return
    del st.query_params["run"]
    found = answer_plans.runs_with_adapters(service.store, service.settings.jobs_path)
    if wanted in {str(row["run_id"]) for row in found if row["exists"]}:
        st.session_state[f"{KEY}-way"], st.session_state[f"{KEY}-run"] = "run", int(wanted)


def _choose_model(service: Service) -> _Model | None:
    _take_wanted_run(service)
    usual = None if f"{KEY}-way" in st.session_state else "model"
    way = st.segmented_control(
        "What answers", list(WAYS), format_func=WAYS.__getitem__, required=True, key=f"{KEY}-way", default=usual,
        label_visibility="collapsed", persist_state="session",
    )  # fmt: skip
    return _a_run(service) if way == "run" else _a_model(service)


def _a_model(service: Service) -> _Model | None:
    before = score_results.models_by_role(service.store).get("student", ())
    bases = [row["base"] for row in answer_plans.runs_with_adapters(service.store, service.settings.jobs_path)]
    typed = [one for one in [st.session_state.get(f"{KEY}-model")] if one]
    known = list(dict.fromkeys([str(DEMO_STUDENT), *bases, *before, *typed]))
    model = st.selectbox(
        "Model", known, format_func=_models.name, accept_new_options=True, key=f"{KEY}-model", persist_state="session",
        placeholder="Choose, or type a hub id or a folder",
        help="Any causal language model: an id on the Hugging Face hub (such as `meta-llama/Llama-3.2-1B-Instruct`), "
        "or the path of a folder on the server. The untrained base of a study is what its runs are compared with.",
    )  # fmt: skip
    name = str(model or "").strip()
    if not name:
        return None
    if name == str(DEMO_STUDENT):
        st.caption(_models.DEMO_NOTE)
    return _Model(name, None, None, "alpaca", _answers_view.base_name(name), {})


def _a_run(service: Service) -> _Model | None:
    found = answer_plans.runs_with_adapters(service.store, service.settings.jobs_path)
    by_id = {int(row["run_id"]): row for row in found if row["exists"]}
    if not by_id:
        gone = f" The folders of {len(found):,} adapters were removed." if found else ""
        _ui.empty(
            f"No finetune run has kept its adapter.{gone} Tick “Keep the adapters” when a study is planned.",
            page="studies.py", label="Plan a study", icon=":material/experiment:",
        )  # fmt: skip
        return None

    def label(run_id: int) -> str:
        row = by_id[run_id]
        loss = f" · loss {row['loss_nats']:.4f}" if row["loss_nats"] is not None else ""
        return f"{row['study']} · {row['label']}{loss}"

    chosen = by_id[int(st.selectbox("Run", list(by_id), format_func=label, key=f"{KEY}-run", persist_state="session"))]
    st.caption(
        f"On {_ui.plain(_answers_view.base_name(str(chosen['base'])))}, trained on {chosen['n_rows']:,} rows"
        f" with the template {_ui.plain(str(chosen['template']))}."
    )
    details = {"run_id": chosen["run_id"], "run": chosen["label"], "study": chosen["study"]}
    return _Model(
        str(chosen["base"]), chosen["revision"], str(chosen["adapter"]), str(chosen["template"] or "alpaca"),
        f"{chosen['study']}, {chosen['label']}", details,
    )  # fmt: skip


def _asked_how(chosen: _Model | None) -> tuple[str, str, int]:
    """(dtype, template, most tokens of a prompt)."""
    usual = chosen.template if chosen is not None and chosen.template in TEMPLATES else TEMPLATES[0]
    sides = st.columns(3, vertical_alignment="bottom")
    template = sides[0].selectbox(
        "Template", TEMPLATES, index=TEMPLATES.index(usual), help=TEMPLATE_HELP, key=f"{KEY}-template-{usual}"
    )
    dtype = sides[1].selectbox(
        "Precision", DTYPE_CHOICES, format_func=lambda one: DTYPE_WORDS.get(one, one), key=f"{KEY}-dtype",
        persist_state="session",
        help="auto: float32 on a CPU; on a GPU what the model was saved in.",
    )  # fmt: skip
    most = sides[2].number_input(
        "Longest prompt, in tokens", 16, value=1024, step=256, key=f"{KEY}-max-prompt", persist_state="session",
        help="A question whose prompt is longer is not answered, with the reason: it is never cut.",
    )  # fmt: skip
    return str(dtype), str(template), int(most)


def _check(chosen: _Model | None, *, template: str, dtype: str, device: str) -> ModelCheck | None:
    """Look at the model without loading it."""
    if chosen is None:
        return None
    files = _models.files_of(chosen.model, chosen.revision)
    if isinstance(files, str):
        return ModelCheck("student", (Point(False, files),))
    quantised = dtype in QUANTISED
    saved = dtype if not quantised and dtype != AUTO else "float32" if device == "cpu" and not quantised else "bfloat16"
    settings = StudentSettings(model=chosen.model, dtype=saved, template=template, max_length=2, device=device)
    # How much memory fewer bits take is not reckoned here, so nothing is refused for it.
    return check_files("student", settings, files, memory=None if quantised else _models.memory_of(device))


# --- the answers ---


def _n_questions(test_set: TestSet) -> int:
    if test_set.n_items <= 1:
        return test_set.n_items
    return int(
        st.number_input(
            "Questions, from the top of the test set", 1, test_set.n_items, test_set.n_items,
            step=max(1, min(10, test_set.n_items // 10)), key=f"{KEY}-n-{test_set.dataset_id}-{test_set.n_items}",
        )
    )  # fmt: skip


def _decoding() -> Decoding:
    sides = st.columns(2, vertical_alignment="bottom")
    most = sides[0].number_input(
        "Most tokens of an answer", 1, value=512, step=64, key=f"{KEY}-tokens", persist_state="session",
        help="An answer that is longer ends there; it counts as cut off.",
    )  # fmt: skip
    how = sides[1].segmented_control(
        "Decoding", ["greedy", "sampled"], format_func={"greedy": "Greedy", "sampled": "Sampled"}.__getitem__,
        default="greedy", required=True, key=f"{KEY}-how", persist_state="session",
        help="Greedy takes the likeliest token each time: the same answer whenever it is asked.",
    )  # fmt: skip
    sampled = how == "sampled"
    values: dict[str, Any] = {"max_new_tokens": int(most)}
    with st.expander("Temperature, top-p, top-k, seed, repetition", icon=":material/tune:", key=f"{KEY}-more"):
        top, below = st.columns(3), st.columns(3)
        if sampled:
            values["temperature"] = float(
                top[0].number_input("Temperature", 0.05, 10.0, 0.7, 0.1, key=f"{KEY}-temperature")
            )
            values["top_p"] = float(top[1].number_input("Top-p", 0.01, 1.0, 1.0, 0.05, key=f"{KEY}-top-p"))
            values["top_k"] = int(top[2].number_input("Top-k (0: all)", 0, value=0, step=10, key=f"{KEY}-top-k"))
            values["seed"] = int(below[0].number_input("Seed", 0, value=0, key=f"{KEY}-seed"))
        values["repetition_penalty"] = float(
            below[1].number_input(
                "Repetition penalty", 0.5, 2.0, 1.0, 0.05, key=f"{KEY}-penalty", help="1: none (CTRL's penalty)."
            )
        )
        st.caption(
            "A row is sampled with numbers of its own, drawn from the seed and its texts: the same answer in whatever "
            "batch, and after a resume." if sampled else "Choose Sampled to set temperature, top-p, top-k and seed."
        )  # fmt: skip
    return Decoding(**values)


# --- the estimate ---


def _trial_key(test_set: TestSet, settings: GeneratorSettings, decoding: Decoding) -> str:
    return json.dumps([test_set.dataset_id, settings.to_params(), decoding.to_params()], sort_keys=True)


def _trial_of(key: str) -> Trial | None:
    """This session's trial if it is about this; one about something else is stopped."""
    kept: tuple[str, Trial] | None = st.session_state.get(TRIAL)
    if kept is None:
        return None
    if kept[0] != key:
        kept[1].cancel()
        del st.session_state[TRIAL]
        return None
    return kept[1]


def _start_trial(
    service: Service, key: str, test_set: TestSet, settings: GeneratorSettings, decoding: Decoding
) -> None:
    try:
        rows = answer_plans.trial_rows(service.store, test_set.dataset_id)
        memory = free_memory("cuda") if settings.device == "cuda" else None
        trial = Trial.start(
            lambda home: answer_plans.write_trial(rows, home, settings=settings, decoding=decoding),
            device=settings.device if memory is None else memory.place,
            cpu_jobs=service.settings.cpu_jobs,
        )
    except AssayError as error:
        st.session_state[f"{TRIAL}_problem"] = str(error)
        return
    st.session_state[TRIAL] = (key, trial)


def _estimate(
    service: Service, test_set: TestSet, n: int, settings: GeneratorSettings, decoding: Decoding, *, ready: bool
) -> None:
    key = _trial_key(test_set, settings, decoding)
    trial = _trial_of(key)
    expected = answers_pace.estimate(
        n, settings, decoding,
        past=answer_plans.past_answers(service.store), trial=trial.measured if trial is not None else None,
    )  # fmt: skip
    cells = (
        ("Questions", f"{n:,}", f"of {test_set.n_items:,}"),
        ("About this long" if expected.measured else "About this long, a guess", _ui.duration(expected.seconds), None),
    )
    for column, (label, value, help_text) in zip(st.columns([2, 3]), cells, strict=True):
        column.metric(label, value, border=True, help=help_text)
    st.caption(_ui.plain(expected.basis))
    problem = st.session_state.pop(f"{TRIAL}_problem", None) or (trial.problem if trial is not None else None)
    if problem:
        st.warning(_ui.plain(problem), icon=":material/speed:")
    if trial is not None and trial.state == "running":
        st.fragment(_watch, run_every=1)(trial)
    elif (trial is None or trial.measured is None) and ready:
        rows = min(answer_plans.TRIAL_ROWS, test_set.n_items)
        st.button(
            f"Measure on {rows} questions",
            icon=":material/speed:",
            key=f"{KEY}-measure-{test_set.dataset_id}",
            on_click=_start_trial,
            args=(service, key, test_set, settings, decoding),
            **_ui.allowed(
                "administer",
                help=(
                    f"Loads the model in a process of its own and answers {rows} questions, short and long ones, at "
                    f"most {TRIAL_SECONDS / 60:.0f} minutes. Nothing of it is kept."
                ),
            ),
        )


def _watch(trial: Trial) -> None:
    """A trial at work; the page is drawn anew when it ends."""
    if trial.state != "running":
        st.rerun()
    with st.container(horizontal=True, vertical_alignment="center"):
        note = str(trial.note or "starting")[:90]
        st.markdown(f":material/speed: Measuring, {trial.seconds:.0f} s: {_ui.plain(note)}", width="stretch")
        st.button("Stop", key=f"{KEY}-measure-stop", on_click=trial.cancel)


# --- the job ---


def _submit_bar(
    service: Service,
    test_set: TestSet,
    n: int,
    chosen: _Model,
    settings: GeneratorSettings,
    decoding: Decoding,
    *,
    ready: bool,
) -> None:
    sides = st.columns([3, 2], vertical_alignment="bottom")
    wanted = _answers_view.free_name(service, f"{chosen.title} on {test_set.name}"[:180])
    name = sides[0].text_input(
        "Name of the answer set", value=wanted, max_chars=200, key=f"{KEY}-name-{test_set.dataset_id}-{wanted}"
    )
    pressed = sides[1].button(
        f"Answer {n:,} question{'s' * (n != 1)}",
        type="primary",
        icon=":material/play_arrow:",
        key=f"{KEY}-go-{test_set.dataset_id}",
        **_ui.allowed("administer", disabled=not ready or not n),
    )
    if not pressed:
        return
    try:
        item_ids = None
        if n < test_set.n_items:
            item_ids = answer_items.items(service.store, test_set.dataset_id)["item_id"][:n].to_pylist()
        answer_set_id, folder = answers.submit_answers(
            service.store, service.settings.jobs_path, dataset_id=test_set.dataset_id, name=name, settings=settings,
            decoding=decoding, item_ids=item_ids, details=chosen.details, created_by=_ui.reviewer() or None,
        )  # fmt: skip
    except AssayError as error:
        st.error(_ui.plain(str(error)))
        return
    service.enqueue(folder)
    kept: tuple[str, Trial] | None = st.session_state.pop(TRIAL, None)
    if kept is not None:
        kept[1].cancel()
    _answers_view.say(f"The job for {name.strip()} is queued.")
    _answers_view.go("sets", sets=(answer_set_id,))
    st.rerun()
