"""The judge jobs of a comparison, live: how far, how fast, what the verdicts say so far, and the way to the job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from core.jobs.status import JobStatus
from db import jobs, judging
from db.service import Service
from pages import _compare_view, _job, _kinds, _ui

SUBMITTED = "judge_jobs"


def jobs_of(service: Service, comparison: Mapping[str, Any]) -> list[JobStatus]:
    """Jobs of a comparison whose folders are there, newest first."""
    statuses = service.scheduler.statuses()
    return [statuses[job_id] for job_id in reversed(comparison["job_ids"]) if job_id in statuses]


def watch(service: Service, comparison: Mapping[str, Any], *, only_live: bool = False) -> None:
    """Jobs at work, and those of this session; looked at once a second while one is at work.

    ``only_live``: leave out those that ended well.
    """
    found = jobs_of(service, comparison)
    shown = [
        status.job_id
        for i, status in enumerate(found)
        if not jobs.is_settled(service.store, status)
        or (not only_live and status.job_id in st.session_state.get(SUBMITTED, ()))
        or (i == 0 and status.state in ("failed", "interrupted", "cancelled"))
    ]
    if not shown:
        return
    st.markdown("**Judge jobs of this comparison**")
    at_work = [
        status.job_id for status in found if status.job_id in shown and not jobs.is_settled(service.store, status)
    ]
    st.fragment(_live, run_every=1 if at_work else None)(service, int(comparison["comparison_id"]), shown, at_work)


def _live(service: Service, comparison_id: int, shown: Sequence[str], at_work: Sequence[str]) -> None:
    statuses = service.scheduler.statuses()
    for job_id in shown:
        if job_id in statuses:
            _one(statuses[job_id])
    comparison = next((c for c in judging.comparisons(service.store) if c["comparison_id"] == comparison_id), None)
    for one in _compare_view.judged(service.store, [comparison] if comparison else []):
        if one.kind != judging.MODEL:
            continue
        found = one.summary
        st.caption(
            f"**{_ui.plain(one.judge)}** so far: {found.win:,} wins · {found.tie:,} ties · {found.lose:,} losses"
            + (f" · {found.unparsed:,} not readable in both orders yet" if found.unparsed else "")
        )
    if any(job_id not in statuses or jobs.is_settled(service.store, statuses[job_id]) for job_id in at_work):
        st.rerun()


def _one(status: JobStatus) -> None:
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**{_job.state_word(status)}** · {_ui.plain(status.title or status.job_id)}", width="stretch")
            st.page_link("jobs.py", label="Open the job", icon=":material/pending_actions:",
                         query_params={"job": status.job_id})  # fmt: skip
        share = status.done_rows / status.total_rows if status.total_rows else 0.0
        parts = [f"{status.done_rows:,} of {status.total_rows:,} verdicts asked for", f"{share:.0%}"]
        if status.state == "running" and status.rows_per_second is not None:
            parts += [
                _kinds.speed(status.kind, status.rows_per_second),
                f"about {_ui.duration(status.eta_seconds)} left",
            ]
        if status.note and not status.ended:
            parts.append(status.note)
        st.progress(min(share, 1.0), text=_ui.plain(" · ".join(parts)))
        if status.message:
            kind = {"failed": st.error, "interrupted": st.warning}.get(status.state, st.info)
            kind(_ui.plain(status.message))
        if status.failed_rows:
            st.caption(
                f"{status.failed_rows:,} verdicts could not be read; they are not counted, and can be asked again."
            )
