"""The estimate beside a plan, and the quick trial that turns it from a guess into a measurement."""

from __future__ import annotations

import json
from typing import Any

import streamlit as st

from core import pace
from core.errors import AssayError
from core.jobs.status import JobStatus
from core.model_check import free_memory
from core.trial import TRIAL_ROWS, TRIAL_SECONDS, Trial
from db import trials
from db.jobs import ScorePlan
from db.service import Service
from pages import _score_jobs, _ui

STATE = "score_trial"
_LATEST_JOBS = 20


def _key(dataset_id: int, plan: ScorePlan) -> str:
    """What a trial is about: another choice makes another trial."""
    return json.dumps([dataset_id, plan.indicators, plan.models.to_params(), dict(plan.revisions)], sort_keys=True)


def _trial_of(key: str) -> Trial | None:
    """This session's trial if it is about this; one about something else is stopped."""
    kept = st.session_state.get(STATE)
    if kept is None:
        return None
    if kept[0] != key:
        kept[1].cancel()
        del st.session_state[STATE]
        return None
    trial: Trial = kept[1]
    return trial


def _start(service: Service, key: str, dataset_id: int, plan: ScorePlan) -> None:
    try:
        rows = trials.trial_rows(service.store, dataset_id=dataset_id, plan=plan)
        memory = free_memory("cuda") if plan.models.device == "cuda" else None
        trial = Trial.start(
            lambda home: trials.write_trial(rows, home, plan=plan),
            device=plan.models.device if memory is None else memory.place,
            cpu_jobs=service.settings.cpu_jobs,
        )
    except AssayError as error:
        st.session_state[f"{STATE}_problem"] = str(error)
        return
    st.session_state[STATE] = (key, trial)


# --- past runs ---


@st.cache_data(max_entries=256, show_spinner=False)
def _past_run(_service: Service, path: str, job_id: str, attempt: int, state: str) -> pace.PastRun | None:
    return pace.past_run(_service.job_folder(job_id))


def _past_runs(service: Service) -> list[pace.PastRun]:
    """What the latest ended score jobs did, newest first."""
    ended: list[JobStatus] = [
        s for s in service.scheduler.statuses().values() if s.kind == "score" and s.ended and s.done_rows
    ]
    ended.sort(key=lambda s: s.job_id, reverse=True)
    path = str(service.store.path)
    found = [_past_run(service, path, s.job_id, s.attempt, s.state) for s in ended[:_LATEST_JOBS]]
    return [run for run in found if run is not None]


# --- what is shown ---


def show(service: Service, dataset_id: int, plan: ScorePlan, *, parts: int) -> None:
    """Rows left, the time that they may take, what that rests on, and the trial."""
    key = _key(dataset_id, plan)
    trial = _trial_of(key)
    expected = pace.estimate(
        n_rows=max(1, plan.n_to_score // parts),
        n_characters=plan.n_characters // parts,
        indicators=plan.indicators,
        models=plan.models,
        past=_past_runs(service),
        n_members=plan.n_rows,
        left={key: _score_jobs.n_left(plan, key) // parts for key in plan.indicators},
        trial=trial.measured if trial is not None else None,
    )
    left, right = st.columns([2, 3])
    with left:
        st.metric("Rows to score", f"{plan.n_to_score:,}", border=True, help=f"of {plan.n_rows:,} distinct rows")
    with right:
        words = "About this long" if expected.measured else "About this long, a guess"
        st.metric(words, _ui.duration(expected.seconds), border=True)
    shared = f" Shared out to {parts} GPUs." if parts > 1 else ""
    st.caption(_ui.plain(expected.basis + shared))
    problem = st.session_state.pop(f"{STATE}_problem", None)
    if problem:
        st.warning(_ui.plain(problem))
    if trial is not None and trial.state == "running":
        st.fragment(_watch, run_every=1)(trial)
        return
    if trial is not None and trial.problem:
        st.warning(_ui.plain(trial.problem), icon=":material/speed:")
    if trial is None or trial.measured is None:
        _offer(service, key, dataset_id, plan)


def _offer(service: Service, key: str, dataset_id: int, plan: ScorePlan) -> None:
    n = min(TRIAL_ROWS, plan.n_to_score)
    at_work = [s for s in service.scheduler.statuses().values() if s.state == "running"]
    help_text = (
        f"Loads the models in a process of its own and scores {n} of these rows, at most {TRIAL_SECONDS / 60:.0f} "
        "minutes. Nothing of it is kept."
    )
    if at_work:
        help_text += " A job is running now, so it would be measured slower than it is."
    st.button(
        f"Measure on {n} rows",
        icon=":material/speed:",
        key=f"score-measure-{dataset_id}",
        on_click=_start,
        args=(service, key, dataset_id, plan),
        **_ui.allowed("administer", help=help_text),
    )


def _watch(trial: Trial) -> None:
    """A trial at work: what it does, and a way to stop it. The page is drawn anew when it ends."""
    if trial.state != "running":
        st.rerun()
    with st.container(horizontal=True, vertical_alignment="center"):
        note: Any = trial.note or "starting"
        st.markdown(
            f":material/speed: Measuring, {trial.seconds:.0f} s: {_ui.plain(_short(str(note)))}", width="stretch"
        )
        st.button("Stop", key="score-measure-stop", on_click=trial.cancel)


def _short(note: str, most: int = 90) -> str:
    return note if len(note) <= most else note[:most] + " …"
