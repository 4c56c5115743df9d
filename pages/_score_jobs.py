"""The score jobs of a dataset, live: state, speed, what is at hand, and what each indicator has given so far."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from core.errors import AssayError
from core.indicators import INDICATORS, KNN, Indicator, outputs_of, roles_needed
from core.jobs.status import JobStatus
from db import jobs, score_results
from db.jobs import ScorePlan
from db.score_results import SoFar
from db.service import Service
from pages import _indicators, _ui

SUBMITTED = "score_jobs"
STATE_WORDS = {
    "queued": "waiting for its turn",
    "running": "running",
    "cancelling": "being cancelled",
    "cancelled": "cancelled",
    "interrupted": "interrupted: its worker ended early",
    "failed": "failed",
    "done": "done",
}
_RESULTS = "score_results"
# A look at the results costs up to this share of the time: at a million rows it takes 0.3 s.
_SHARE_OF_TIME = 0.1


@st.cache_data(max_entries=256, show_spinner=False)
def _params(_service: Service, path: str, job_id: str) -> dict[str, Any]:
    """What a job was asked; never changes."""
    try:
        return dict(_service.job_folder(job_id).spec().params)
    except AssayError:
        return {}


def jobs_of(service: Service, dataset_id: int) -> list[tuple[JobStatus, dict[str, Any]]]:
    """The score jobs of this dataset, oldest first, and what they were asked."""
    found = []
    for status in sorted(service.scheduler.statuses().values(), key=lambda s: s.job_id):
        if status.kind == "score":
            params = _params(service, str(service.store.path), status.job_id)
            if params.get("dataset_id") == dataset_id:
                found.append((status, params))
    return found


def n_left(plan: ScorePlan, key: str) -> int:
    """Rows that lack an output of this indicator, its losses among them."""
    return plan.n_rows - min(plan.done.get(output.key, 0) for _, output in outputs_of([key]))


def in_work(service: Service, dataset_id: int, plan: ScorePlan) -> bool:
    """Whether jobs that wait or run do all that a plan asks, with the same models. Several GPUs make several jobs."""
    asked = plan.models.to_params()
    covered: set[str] = set()
    for status, params in jobs_of(service, dataset_id):
        if not status.ended:
            models = params.get("models") or {}
            keys = [key for key in params.get("indicators", ()) if key in plan.indicators]
            covered.update(key for key in keys if all(models.get(r) == asked.get(r) for r in roles_needed([key])))
    return covered >= set(plan.indicators)


def link_to_distributions(dataset_id: int) -> None:
    """Where to go with scores."""
    with st.container(horizontal=True):
        st.page_link(
            "distributions.py", label="See the distributions", icon=":material/bar_chart:",
            query_params={"datasets": str(dataset_id)},
        )  # fmt: skip
        st.page_link(
            "explore.py", label="Explore the rows", icon=":material/table_rows:",
            query_params={"datasets": str(dataset_id)},
        )  # fmt: skip


def watch(service: Service, dataset_id: int) -> None:
    """Jobs of this dataset: at work, of this session, or the last one if it failed.

    Looked at once a second while one is at work; the page is drawn anew when one ends.
    """
    asked = {status.job_id: params for status, params in jobs_of(service, dataset_id)}
    statuses = service.scheduler.statuses()
    latest = max(asked, default=None)
    job_ids = [
        job_id
        for job_id in asked
        if not statuses[job_id].ended
        or job_id in st.session_state.get(SUBMITTED, ())
        or (job_id == latest and statuses[job_id].state in ("failed", "interrupted"))
    ]
    if not job_ids:
        return
    st.subheader("Jobs of this dataset", anchor=False)
    at_work = [job_id for job_id in job_ids if not jobs.is_settled(service.store, statuses[job_id])]
    params = {job_id: asked[job_id] for job_id in job_ids}
    st.fragment(_live, run_every=1 if at_work else None)(service, dataset_id, params, at_work)


def _live(service: Service, dataset_id: int, params: Mapping[str, Mapping[str, Any]], at_work: Sequence[str]) -> None:
    now = service.scheduler.statuses()
    for job_id in params:
        if job_id in now:
            _one_job(now[job_id], dataset_id)
    _results(service, dataset_id, params, now)
    if any(job_id not in now or jobs.is_settled(service.store, now[job_id]) for job_id in at_work):
        st.rerun()


def _one_job(status: JobStatus, dataset_id: int) -> None:
    share = status.done_rows / status.total_rows if status.total_rows else 0.0
    parts = [f"**{STATE_WORDS.get(status.state, status.state)}**"]
    if status.queue_position is not None:
        parts.append(f"place {status.queue_position} in the queue")
    parts.append(f"{status.done_rows:,} of {status.total_rows:,} rows")
    if status.state == "running" and status.rows_per_second:
        parts.append(f"{status.rows_per_second:,.1f} rows a second")
        parts.append(f"about {_ui.duration(status.eta_seconds)} left")
    with st.container(border=True, key=f"score-job-{status.job_id}"):
        with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
            st.markdown(f"**{_ui.plain(status.title)}**")
            st.page_link(
                "jobs.py",
                label="Log and errors on the Jobs page",
                icon=":material/pending_actions:",
                query_params={"job": status.job_id},
            )
        st.progress(min(share, 1.0), text=" · ".join(parts))
        if status.state == "running":
            st.caption(_ui.plain(status.note or "starting"))
        if status.message:
            show = st.error if status.state == "failed" else st.warning
            show(_ui.plain(status.message))
        if status.trouble:
            st.warning(_ui.plain(status.trouble))
        if status.failed_rows:
            st.caption(f"{status.failed_rows:,} rows have no value for a reason; Distributions lists the reasons.")
        if status.state == "done":
            link_to_distributions(dataset_id)


# --- results so far ---


def _results(
    service: Service,
    dataset_id: int,
    params: Mapping[str, Mapping[str, Any]],
    statuses: Mapping[str, JobStatus],
) -> None:
    """One line an indicator, of all shown jobs together, from the shards that the store has taken up."""
    scorers: dict[str, int] = {}
    keys: set[str] = set()
    for one in params.values():
        keys.update(one.get("indicators", ()))
        scorers.update({str(output): int(scorer_id) for output, scorer_id in (one.get("scorers") or {}).items()})
    shown = [one for one in (*INDICATORS, *KNN.values()) if one.key in keys and one.outputs[0].key in scorers]
    shown = list(dict.fromkeys(shown))
    done = sum(statuses[job_id].done_shards for job_id in params if job_id in statuses)
    if not shown or not done:
        return
    found = _so_far(service, dataset_id, {one.outputs[0].key: scorers[one.outputs[0].key] for one in shown}, done)
    over = all(statuses[job_id].ended for job_id in params if job_id in statuses)
    st.markdown("**Results**" if over else "**Results so far**")
    st.dataframe(
        [_row(one, result) for one, result in zip(shown, found, strict=True)],
        hide_index=True,
        height="content",
        row_height=38,
        column_config={
            "indicator": st.column_config.TextColumn(width="medium"),
            "scored": st.column_config.NumberColumn("rows scored", format="localized", width="small"),
            "NULL": st.column_config.NumberColumn(
                "of these NULL",
                format="localized",
                width="small",
                help="No value for a reason; Distributions lists them.",
            ),
            "mean": st.column_config.TextColumn("mean", width="small"),
            "spread": st.column_config.BarChartColumn(
                "distribution", y_min=0, width="medium", help="From the 1 % to the 99 % quantile of a sample of rows."
            ),
            "better": st.column_config.TextColumn("better end", width="medium"),
        },
        key=f"score-results-{dataset_id}",
    )


def _row(indicator: Indicator, result: SoFar) -> dict[str, Any]:
    return {
        "indicator": indicator.outputs[0].label,
        "scored": result.n_scored,
        "NULL": result.n_null,
        "mean": _ui.number(result.mean),
        "spread": list(result.bins),
        "better": _indicators.direction_words(indicator),
    }


def _so_far(service: Service, dataset_id: int, scorers: Mapping[str, int], done_shards: int) -> list[SoFar]:
    """The results; asked anew when another shard is done, and no more often than a tenth of the time allows."""
    sign = (dataset_id, tuple(scorers.items()))
    kept = st.session_state.get(_RESULTS)
    now = time.monotonic()
    if kept is not None and kept["sign"] == sign:
        is_fresh = kept["shards"] == done_shards and now - kept["at"] < 5.0
        if is_fresh or now - kept["at"] < kept["seconds"] / _SHARE_OF_TIME:
            found: list[SoFar] = kept["found"]
            return found
    found = score_results.so_far(service.store, dataset_id=dataset_id, scorers=scorers)
    seconds = time.monotonic() - now
    st.session_state[_RESULTS] = {
        "sign": sign, "shards": done_shards, "at": now, "seconds": seconds, "found": found,
    }  # fmt: skip
    return found
