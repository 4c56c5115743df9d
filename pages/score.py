"""Score: choose rows, indicators and a student; see what is done, what is left and how long it takes; run and watch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import streamlit as st

from core import pace
from core.errors import AssayError
from core.indicators import INDICATORS, Indicator
from core.jobs.status import JobStatus
from core.lm import StudentSettings
from db import jobs, queries
from db.jobs import ScorePlan
from db.service import Service
from pages import _student, _ui

JOB = "score_job"
DEFAULT = ("length", "mtld", "ifd", "r_ifd")
ONE_LINE = {
    "length": "Tokens, words and characters of the response.",
    "mtld": "Lexical diversity of the response: how varied its words are.",
    "perplexity": "How surprising the response is to the student.",
    "ifd": "How little the instruction helps the student to say the response.",
    "r_ifd": "How hard the instruction is to guess from the response.",
}
STATE_WORDS = {
    "queued": "waiting for its turn",
    "running": "running",
    "cancelling": "being cancelled",
    "cancelled": "cancelled",
    "interrupted": "interrupted: its worker ended early",
    "failed": "failed",
    "done": "done",
}
_LATEST_JOBS = 20


# --- what to score with ---


def _direction(indicator: Indicator) -> str:
    first = indicator.outputs[0].direction
    return {"higher": "↑ higher is better", "lower": "↓ lower is better", "neither": "no better end"}[first]


def _needs(indicator: Indicator) -> str:
    if indicator.needs_losses:
        return "student"
    return "tokenizer" if indicator.needs_tokenizer else "no model"


def _choose_indicators() -> list[str]:
    st.markdown("**Indicators**")
    chosen = []
    for column, one in zip(st.columns(len(INDICATORS)), INDICATORS, strict=True):
        with column, st.container(border=True, height="stretch", gap="small"):
            if st.checkbox(
                f"**{one.outputs[0].label}**",
                value=one.key in DEFAULT,
                key=f"score-{one.key}",
                persist_state="session",
                help=f"{one.title}\n\n" + "\n\n".join(f"**{o.label}** — {o.describes}" for o in one.outputs),
            ):
                chosen.append(one.key)
            st.caption(ONE_LINE.get(one.key, one.outputs[0].describes))
            _ui.badges(_ui.badge(_direction(one)), _ui.badge(f"needs: {_needs(one)}"))
            st.caption(f":small[{_ui.plain(one.paper)}]")
    return chosen


def _needs_student(indicators: Sequence[str]) -> bool:
    return any(one.needs_losses or one.needs_tokenizer for one in INDICATORS if one.key in indicators)


# --- what is done and what is left ---


@st.cache_data(max_entries=64, show_spinner="Looking what is scored already …")
def _plan(
    _service: Service,
    path: str,
    version: str,
    dataset_id: int,
    indicators: tuple[str, ...],
    student: StudentSettings | None,
) -> ScorePlan:
    return jobs.plan_score(_service.store, dataset_id=dataset_id, indicators=indicators, student=student)


@st.cache_data(max_entries=256, show_spinner=False)
def _past_run(_service: Service, path: str, job_id: str, attempt: int, state: str) -> pace.PastRun | None:
    return pace.past_run(_service.job_folder(job_id))


def _past_runs(service: Service) -> list[pace.PastRun]:
    """What the latest ended score jobs did, newest first."""
    ended = [s for s in service.scheduler.statuses().values() if s.kind == "score" and s.ended and s.done_rows]
    ended.sort(key=lambda s: s.job_id, reverse=True)
    found = [_past_run(service, str(service.store.path), s.job_id, s.attempt, s.state) for s in ended[:_LATEST_JOBS]]
    return [run for run in found if run is not None]


def _table_of_plan(plan: ScorePlan) -> None:
    rows = []
    for one in INDICATORS:
        if one.key in plan.indicators:
            done = min(plan.done[output.key] for output in one.outputs)
            rows.append(
                {
                    "indicator": one.outputs[0].label,
                    "done": 100 * done / plan.n_rows if plan.n_rows else 0.0,
                    "scored": done,
                    "left": plan.n_rows - done,
                }
            )
    st.dataframe(
        rows,
        hide_index=True,
        height="content",
        column_config={
            "done": st.column_config.ProgressColumn("done", format="%.0f %%", min_value=0.0, max_value=100.0),
            "scored": st.column_config.NumberColumn("scored already", format="localized"),
            "left": st.column_config.NumberColumn("left to score", format="localized"),
        },
        key="score-plan",
    )


def _show_estimate(service: Service, plan: ScorePlan) -> None:
    expected = pace.estimate(
        n_rows=plan.n_to_score,
        n_characters=plan.n_characters,
        indicators=plan.indicators,
        student=plan.student,
        past=_past_runs(service),
    )
    left, right = st.columns(2)
    with left:
        st.metric("Rows to score", f"{plan.n_to_score:,}", border=True, help=f"of {plan.n_rows:,} distinct rows")
    with right:
        words = "About this long" if expected.measured else "About this long, a guess"
        st.metric(words, _ui.duration(expected.seconds), border=True)
    st.caption(_ui.plain(expected.basis))


def _submit(service: Service, dataset_id: int, plan: ScorePlan, name: str) -> None:
    try:
        with st.spinner(f"Writing {plan.n_to_score:,} rows for the worker …"):
            folder = jobs.submit_score(
                service.store,
                service.settings.jobs_path,
                dataset_id=dataset_id,
                plan=plan,
                title=f"Score {name}: {', '.join(plan.indicators)}",
                created_by=_ui.reviewer() or None,
            )
            st.session_state[JOB] = service.enqueue(folder)
    except AssayError as error:
        st.error(_ui.plain(str(error)))
        return
    st.rerun()


def _new_job(service: Service, dataset_id: int, name: str, version: str) -> None:
    chosen = _choose_indicators()
    left, right = st.columns(2, gap="large")
    student: StudentSettings | None = None
    needs_student = _needs_student(chosen)
    with left:
        if needs_student:
            student = _student.student_form("score-student")
        elif chosen:
            st.info("These indicators need no model.", icon=":material/check:")
    with right:
        if not chosen:
            st.info("Choose at least one indicator.", icon=":material/arrow_upward:")
            return
        if needs_student and student is None:
            return
        try:
            plan = _plan(service, str(service.store.path), version, dataset_id, tuple(chosen), student)
        except AssayError as error:
            st.error(_ui.plain(str(error)), icon=":material/error:")
            return
        _table_of_plan(plan)
        if not plan.n_to_score:
            st.success("Every row is scored by these indicators already.", icon=":material/check:")
            _link_to_distributions(dataset_id)
            return
        _show_estimate(service, plan)
        if st.button(
            f"Score {plan.n_to_score:,} rows",
            type="primary",
            icon=":material/play_arrow:",
            key=f"score-run-{dataset_id}",
            disabled=_same_job(service, dataset_id, plan) is not None,
        ):
            _submit(service, dataset_id, plan, name)
        if _same_job(service, dataset_id, plan) is not None:
            st.caption("A job that does just this is waiting or running: see below.")


# --- the jobs of this dataset ---


@st.cache_data(max_entries=256, show_spinner=False)
def _params(_service: Service, path: str, job_id: str) -> dict[str, Any]:
    """What a job was asked; never changes."""
    try:
        return dict(_service.job_folder(job_id).spec().params)
    except AssayError:
        return {}


def _jobs_of(service: Service, dataset_id: int) -> list[tuple[JobStatus, dict[str, Any]]]:
    """The score jobs of this dataset, oldest first, and what they were asked."""
    found = []
    for status in sorted(service.scheduler.statuses().values(), key=lambda s: s.job_id):
        if status.kind == "score":
            params = _params(service, str(service.store.path), status.job_id)
            if params.get("dataset_id") == dataset_id:
                found.append((status, params))
    return found


def _same_job(service: Service, dataset_id: int, plan: ScorePlan) -> str | None:
    """A job that is waiting or running and was asked the same."""
    student = asdict(plan.student) if plan.student is not None else None
    for status, params in _jobs_of(service, dataset_id):
        if status.ended:
            continue
        if params.get("indicators") == list(plan.indicators) and params.get("student") == student:
            return status.job_id
    return None


def _link_to_distributions(dataset_id: int) -> None:
    with st.container(horizontal=True):
        st.page_link(
            "distributions.py", label="See the distributions", icon=":material/bar_chart:",
            query_params={"datasets": str(dataset_id)},
        )  # fmt: skip
        st.page_link(
            "explore.py", label="Explore the rows", icon=":material/table_rows:",
            query_params={"datasets": str(dataset_id)},
        )  # fmt: skip


def _one_job(service: Service, status: JobStatus, dataset_id: int) -> None:
    share = status.done_rows / status.total_rows if status.total_rows else 0.0
    parts = [f"**{STATE_WORDS.get(status.state, status.state)}**"]
    if status.queue_position is not None:
        parts.append(f"place {status.queue_position} in the queue")
    parts.append(f"{status.done_rows:,} of {status.total_rows:,} rows")
    if status.state == "running":
        if status.rows_per_second:
            parts.append(f"{status.rows_per_second:,.1f} rows a second")
            parts.append(f"about {_ui.duration(status.eta_seconds)} left")
        else:
            parts.append("loading the student" if not status.note else _ui.plain(status.note))
    with st.container(border=True):
        with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
            st.markdown(f"**{_ui.plain(status.title)}**")
            st.page_link(
                "jobs.py",
                label="Log and errors on the Jobs page",
                icon=":material/pending_actions:",
                query_params={"job": status.job_id},
            )
        st.progress(min(share, 1.0), text=" · ".join(parts))
        if status.message:
            show = st.error if status.state == "failed" else st.warning
            show(_ui.plain(status.message))
        if status.trouble:
            st.warning(_ui.plain(status.trouble))
        if status.failed_rows:
            st.caption(f"{status.failed_rows:,} rows have no value for a reason; Distributions lists the reasons.")
        if status.state == "done":
            _link_to_distributions(dataset_id)


def _settled(service: Service, status: JobStatus) -> bool:
    """Whether a job ended and the store has taken up all that it finished."""
    return status.ended and len(jobs.collected_shards(service.store, status.job_id)) >= status.done_shards


def _live(service: Service, dataset_id: int, job_ids: Sequence[str], at_work: Sequence[str]) -> None:
    now = service.scheduler.statuses()
    for job_id in job_ids:
        if job_id in now:
            _one_job(service, now[job_id], dataset_id)
    if any(job_id not in now or _settled(service, now[job_id]) for job_id in at_work):
        st.rerun()


def _watch(service: Service, dataset_id: int) -> None:
    """Jobs of this dataset: at work, of this session, or the last one if it failed.

    Looked at once a second while one is at work; the page is drawn anew when one ends.
    """
    statuses = {status.job_id: status for status, _ in _jobs_of(service, dataset_id)}
    latest = max(statuses, default=None)
    job_ids = [
        job_id
        for job_id, status in statuses.items()
        if not status.ended
        or job_id == st.session_state.get(JOB)
        or (job_id == latest and status.state in ("failed", "interrupted"))
    ]
    if not job_ids:
        return
    st.subheader("Jobs of this dataset", anchor=False)
    at_work = [job_id for job_id in job_ids if not _settled(service, statuses[job_id])]
    st.fragment(_live, run_every=1 if at_work else None)(service, dataset_id, job_ids, at_work)


def main() -> None:
    """Render the page."""
    service = _ui.current_service()
    _ui.header("Score", "How long, how varied, how surprising, how hard each row is. What was scored once is scored.")
    found = queries.datasets(service.store)
    if not found:
        _ui.empty("There is no dataset yet, so there is nothing to score.", page="load.py", label="Load a dataset")
        return
    version = queries.version(service.store)
    dataset_id = _ui.pick_dataset(key="score-dataset")
    name = next(row["name"] for row in found if row["dataset_id"] == dataset_id)
    _new_job(service, dataset_id, name, version)
    _watch(service, dataset_id)


main()
