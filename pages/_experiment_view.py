"""One experiment, live: its steps with where each can be seen, what can be done with it, and what it gave so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from core.errors import AssayError
from core.experiment import ARM_WORDS
from core.jobs.status import JobStatus
from db import experiment_driver, experiments
from db.experiment_driver import StepState
from db.experiment_links import ANSWERS, COMPARISON, DATASET, STUDY
from db.experiments import Experiment
from db.service import Service
from pages import _experiment_results, _finetune_form, _ui

REFRESH_SECONDS = 2
SAID = "experiment_said"
STATES: Mapping[str, str] = {
    "waiting": ":material/radio_button_unchecked:",
    "queued": ":material/schedule:",
    "running": ":material/play_circle:",
    "done": ":material/check_circle:",
    "failed": ":material/cancel:",
    "stopped": ":material/stop_circle:",
}
WORDS: Mapping[str, str] = {
    "running": "▶ running",
    "held": "◼ held",
    "failed": "✗ a step failed",
    "stopped": "◼ stopped",
    "done": "✓ done",
}


def show(service: Service, experiment_id: int) -> None:
    """The experiment; drawn anew every two seconds while it is at work."""
    try:
        found = experiments.experiment(service.store, experiment_id)
    except AssayError as error:
        st.warning(_ui.plain(str(error)), icon=":material/link_off:")
        st.page_link("experiment.py", label="All experiments", icon=":material/arrow_back:")
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader(_ui.plain(found.name), anchor=False, width="stretch")
        st.page_link("experiment.py", label="All experiments", icon=":material/arrow_back:")
    _about(found)
    live = _overall(service, found) == "running"
    st.fragment(_live, run_every=REFRESH_SECONDS if live else None)(service, experiment_id, live=live)


def _about(found: Experiment) -> None:
    arms = ", ".join(ARM_WORDS[arm] for arm in found.settings.arms)
    seeds = f"{found.settings.n_seeds} seed{'s' if found.settings.n_seeds != 1 else ''} each"
    parts = [
        arms,
        f"rows of {found.dataset or 'a dataset that was removed'}",
        seeds,
        _finetune_form.summary_of(found.settings.finetune),
    ]
    if found.created_by:
        parts.append(f"by {found.created_by}")
    st.caption(_ui.plain(" · ".join(parts)))


def states_of(service: Service, found: Experiment) -> list[StepState]:
    """The steps as they stand."""
    return experiments.step_states(service.store, service.settings.jobs_path, found, state_of=service.state_of)


def _overall(service: Service, found: Experiment) -> str:
    return experiment_driver.overall(found, states_of(service, found))


def _live(service: Service, experiment_id: int, *, live: bool) -> None:
    try:
        found = experiments.experiment(service.store, experiment_id)
    except AssayError:
        st.rerun()
    states = states_of(service, found)
    now = experiment_driver.overall(found, states)
    if live != (now == "running"):
        st.rerun()
    for message, icon in st.session_state.pop(SAID, ()):
        st.toast(_ui.plain(message), icon=icon)
    left, right = st.columns([2, 3], gap="large")
    with left:
        _steps(service, found, states, now)
    with right:
        _experiment_results.verdicts(service, found, states)
    _experiment_results.show(service, found, states)


# --- steps ---


def _steps(service: Service, found: Experiment, states: list[StepState], now: str) -> None:
    done = sum(one.state == "done" for one in states)
    held = " · no further step begins" if found.held and now == "running" else ""
    st.markdown(f"**Steps** · {done} of {len(states)} done · {WORDS[now]}{held}")
    statuses = service.scheduler.statuses()
    with st.container(border=True, gap="small"):
        for one in states:
            _step(found, one, statuses)
    _buttons(service, found, states, now)


def _step(found: Experiment, one: StepState, statuses: Mapping[str, JobStatus]) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key=f"experiment-step-{one.step.key}"):
        st.markdown(f"{STATES[one.state]} {_ui.plain(one.step.title)}{_tail(one)}", width="stretch")
        _link(found, one)
    at_work = [statuses[job] for job in one.job_ids if job in statuses and not statuses[job].ended]
    for status in at_work:
        share = status.done_rows / status.total_rows if status.total_rows else 0.0
        left = f" · about {_ui.duration(status.eta_seconds)} left" if status.eta_seconds is not None else ""
        said = status.trouble or status.note or ("waiting for its turn" if status.state == "queued" else "starting")
        st.progress(min(share, 1.0), text=_ui.plain(f"{status.done_rows:,} of {status.total_rows:,}{left} · {said}"))
    if one.reason and one.state in ("failed", "stopped"):
        (st.error if one.state == "failed" else st.warning)(_ui.plain(one.reason))


def _tail(one: StepState) -> str:
    if one.state == "done" and one.details.get("seconds") is not None:
        return f" · :gray[{_ui.plain(_ui.duration(one.details['seconds']))}]"
    return "" if one.state in ("done", "waiting") else f" · {one.state}"


def _link(found: Experiment, one: StepState) -> None:
    """Where a step can be seen: what it made once it is done, its job until then."""
    key = one.step.key
    if one.job_ids and (one.state != "done" or one.step.kind == "reflect"):
        st.page_link("jobs.py", label="Job", icon=":material/pending_actions:", query_params={"job": one.job_ids[-1]})
        return
    if one.step.kind == "rows" and found.linked(key, DATASET):
        ids = ".".join(link.reference for link in found.linked(key, DATASET))
        st.page_link("explore.py", label="Rows", icon=":material/table_rows:", query_params={"datasets": ids})
        return
    places: Mapping[str, tuple[str, str, str, str, str]] = {
        "finetune": (STUDY, "studies.py", "study", "Study", ":material/experiment:"),
        "answers": (ANSWERS, "answers.py", "sets", "Answers", ":material/question_answer:"),
        "judge": (COMPARISON, "compare.py", "comparison", "Comparison", ":material/balance:"),
    }
    if one.step.kind in places:
        kind, page, parameter, label, icon = places[one.step.kind]
        reference = found.reference(key, kind)
        if reference is not None:
            query = {parameter: reference}
            if one.step.kind == "answers" and found.settings.test_set_id is not None:
                query["dataset"] = str(found.settings.test_set_id)
            st.page_link(page, label=label, icon=icon, query_params=query)


# --- what can be done ---


def _say(message: str, *, icon: str = ":material/check:") -> None:
    st.session_state.setdefault(SAID, []).append((message, icon))


def _act(service: Service, experiment_id: int, action: str, job_ids: tuple[str, ...] = ()) -> None:
    """What a button of this very experiment does; store and scheduler check again whether it fits."""
    try:
        if action in ("hold", "cancel"):
            experiments.hold(service.store, experiment_id, held=True)
            for job_id in job_ids:
                service.scheduler.cancel(job_id)
            message = "No further step begins." if action == "hold" else "Cancelled. What is done is kept."
        else:
            experiments.hold(service.store, experiment_id, held=False)
            service.resume_experiment(experiment_id)
            message = "The experiment goes on."
    except AssayError as error:
        _say(str(error), icon=":material/error:")
        return
    _say(message)


def _buttons(service: Service, found: Experiment, states: list[StepState], now: str) -> None:
    experiment_id = found.experiment_id
    active = tuple(experiment_driver.active_jobs(states, service.state_of))
    with st.container(horizontal=True, vertical_alignment="center", key=f"experiment-buttons-{experiment_id}"):
        if now in ("failed", "stopped", "held") or (found.held and now == "running"):
            st.button(
                "Resume",
                icon=":material/play_circle:",
                type="primary",
                key=f"experiment-resume-{experiment_id}",
                on_click=_act,
                args=(service, experiment_id, "resume"),
                **_ui.allowed(
                    "administer", help="Stopped jobs go on where they were; a step that could not begin is tried again."
                ),
            )
        if now == "running" and not found.held:
            st.button(
                "Stop after this step",
                icon=":material/pause_circle:",
                key=f"experiment-hold-{experiment_id}",
                on_click=_act,
                args=(service, experiment_id, "hold"),
                **_ui.allowed("administer", help="What is at work ends; nothing further begins until it is resumed."),
            )
        if active:
            st.button(
                "Cancel",
                icon=":material/stop_circle:",
                key=f"experiment-cancel-{experiment_id}",
                on_click=_act,
                args=(service, experiment_id, "cancel", active),
                **_ui.allowed(
                    "administer", help="Its jobs are stopped now. What is done is kept, and it can be resumed."
                ),
            )
        with st.popover("Delete", icon=":material/delete:", type="tertiary", disabled=bool(active)):
            _delete(service, found)


def _delete(service: Service, found: Experiment) -> None:
    st.markdown(
        f"Delete **{_ui.plain(found.name)}**? Its study, answers, comparisons and jobs stay, and are deleted on their "
        "own pages."
    )
    pressed = st.button(
        "Yes, delete it",
        icon=":material/delete:",
        type="primary",
        key=f"experiment-delete-{found.experiment_id}",
        **_ui.allowed("administer"),
    )
    if not pressed:
        return
    try:
        experiments.remove(service.store, found.experiment_id)
    except AssayError as error:
        st.error(_ui.plain(str(error)))
        return
    _say(f"{found.name} was deleted.", icon=":material/delete:")
    st.query_params.clear()
    st.rerun()


def state_word(service: Service, found: Experiment) -> tuple[str, float]:
    """The state of an experiment in words, and its share of done steps, for a list."""
    states: list[Any] = states_of(service, found)
    done = sum(one.state == "done" for one in states)
    return WORDS[experiment_driver.overall(found, states)], done / max(1, len(states))
