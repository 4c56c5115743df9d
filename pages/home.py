"""The first page: what is in the workspace, what to do next, and the sample workspace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from core.errors import AssayError
from db import jobs, queries, review, sample, studies
from db.service import Service
from pages import _kinds, _ui

STATE_WORDS = {
    "queued": "waiting for its turn",
    "running": "running",
    "cancelling": "being cancelled",
    "cancelled": "cancelled",
    "interrupted": "interrupted: resume it on the Jobs page",
    "failed": "failed: see the Jobs page",
    "done": "done",
}


def _open_sample(service: Service) -> None:
    try:
        with st.spinner("Loading the bundled rows …"):
            sample.open_sample(service, created_by=_ui.reviewer() or None)
    except AssayError as error:
        st.error(_ui.plain(str(error)))
        return
    st.session_state["watch_sample"] = True
    st.rerun()


def _welcome(service: Service) -> None:
    left, right = st.columns([3, 2], gap="large")
    with left, st.container(border=True):
        st.subheader("Open the sample workspace", anchor=False)
        st.markdown(
            "240 instruction rows of mixed quality, a small demo student that scores them on this machine, and the "
            "recorded answers of a teacher. In under two minutes there are pairs to review. "
            "No key, no GPU and no download is needed."
        )
        if st.button(
            "Open the sample workspace",
            type="primary",
            icon=":material/science:",
            key="open-sample",
            **_ui.allowed("administer"),
        ):
            _open_sample(service)
    with right, st.container(border=True):
        st.subheader("Bring your own rows", anchor=False)
        st.markdown("JSON, JSON Lines, CSV, TSV or Parquet, plain or gzipped; Alpaca, Dolly, ShareGPT and others.")
        st.page_link("load.py", label="Load a dataset", icon=":material/upload_file:")
    st.subheader("How the work goes", anchor=False)
    steps = (
        ("Load", "rows of instruction, input and response"),
        ("Score", "how hard and how informative each row is for the student: IFD, r-IFD, perplexity, MTLD, length"),
        ("Study", "small finetunes on mixtures tell which scores predict the evaluation loss"),
        ("Select", "the rows that the rule rates best, shown against random ones"),
        ("Reflect", "a teacher rewrites; the student proposes which rewrite to keep"),
        ("Review", "people see both side by side and decide"),
        ("Export", "what was accepted, with a manifest"),
    )
    for column, (number, (title, text)) in zip(st.columns(len(steps)), enumerate(steps, start=1), strict=True):
        with column, st.container(border=True, height="stretch"):
            st.markdown(f"**{number} · {title}**")
            st.caption(text)


def _job_line(job: Mapping[str, Any]) -> None:
    status = job["status"]
    if status is None:
        return
    share = status.done_rows / status.total_rows if status.total_rows else 0.0
    done = _kinds.progress_words(status.kind, status.done_rows, status.total_rows)
    parts = [STATE_WORDS.get(status.state, status.state), done]
    if status.state == "running" and status.eta_seconds is not None:
        parts.append(f"about {_ui.duration(status.eta_seconds)} left")
    elif status.state == "running" and not status.done_rows:
        parts.append("loading the demo student")
    st.progress(min(share, 1.0), text=f"{_ui.plain(job['title'])}: {' · '.join(parts)}")


@st.fragment(run_every=1)
def _live(service: Service, dataset_id: int) -> None:
    """Progress of the sample's jobs and, below, the overview, which changes with it."""
    _sample_progress(service, dataset_id)
    _overview(service, queries.datasets(service.store))


def _sample_progress(service: Service, dataset_id: int) -> None:
    found = sample.sample_jobs(service, dataset_id)
    collected = {job["job_id"]: job["n_collected"] for job in found}
    ready = all(
        job["status"] is not None
        and job["status"].state == "done"
        and collected[job["job_id"]] >= job["status"].total_rows
        for job in found
    )
    with st.container(border=True):
        st.markdown("**The sample workspace**" + ("" if ready else " is getting ready"))
        for job in found:
            _job_line(job)
        n_pairs = review.counts(service.store, dataset_ids=[dataset_id])["n_pairs"]
        with st.container(horizontal=True):
            if n_pairs:
                st.page_link("review.py", label=f"Review {n_pairs:,} pairs", icon=":material/compare:")
            st.page_link("explore.py", label="Explore the rows", icon=":material/table_rows:")
            st.page_link("jobs.py", label="Jobs", icon=":material/pending_actions:")
    if ready and st.session_state.get("watch_sample"):
        st.session_state["watch_sample"] = False
        st.rerun()


def _next_step(service: Service, datasets: list[dict[str, Any]], active: int) -> None:
    """One sentence that says what to do now."""
    n_pairs = sum(row["n_pairs"] for row in datasets)
    n_decided = sum(row["n_decided"] for row in datasets)
    with st.container(border=True):
        if active:
            st.markdown(f"**Now:** {active} job{'s' if active > 1 else ''} at work or waiting.")
            st.page_link("jobs.py", label="Watch the jobs", icon=":material/pending_actions:")
        elif n_pairs > n_decided:
            st.markdown(f"**Next:** {n_pairs - n_decided:,} pairs wait for a decision.")
            st.page_link("review.py", label="Review pairs", icon=":material/compare:")
        elif n_pairs:
            st.markdown("**Next:** every pair is decided. Export the curated set.")
            st.page_link("export.py", label="Export", icon=":material/output:")
        elif not queries.scorers(service.store):
            st.markdown("**Next:** the rows are loaded but not scored.")
            st.page_link("score.py", label="Score a dataset", icon=":material/speed:")
        else:
            st.markdown("**Next:** let a teacher reflect on the rows that need it.")
            st.page_link("reflect.py", label="Reflect", icon=":material/auto_awesome:")
    _study_step(service, active)


def _study_step(service: Service, active: int) -> None:
    """The other way on from scored rows: which scores matter, and the rows that a rule rates best."""
    if active or not queries.scorers(service.store):
        return
    found = studies.studies(service.store)
    with st.container(border=True):
        if any(study["n_done"] < study["n_runs"] for study in found):
            n = sum(study["n_runs"] - study["n_done"] for study in found)
            st.markdown(f"**Studies:** {n:,} run{'s are' if n != 1 else ' is'} not done yet.")
            st.page_link("studies.py", label="Studies", icon=":material/experiment:")
        elif found:
            st.markdown("**Studies:** every run is done. Fit a rule, then select by it.")
            st.page_link("regression.py", label="Fit a rule", icon=":material/functions:")
            st.page_link("select.py", label="Select by a rule", icon=":material/filter_alt:")
        else:
            st.markdown("**Or:** learn from small finetunes which scores matter.")
            st.page_link(
                "studies.py", label="Plan a study", icon=":material/experiment:",
                query_params={"new": "multivariate"},
            )  # fmt: skip


def _recent_jobs(service: Service) -> None:
    """The latest five jobs in a line each; the Jobs page has the rest."""
    recorded = jobs.jobs(service.store)[:5]
    if not recorded:
        return
    statuses = service.scheduler.statuses()
    found = [(job, statuses.get(job["job_id"])) for job in recorded]
    st.subheader("Latest jobs", anchor=False)
    st.dataframe(
        [
            {
                "job": job["title"],
                "state": STATE_WORDS.get(status.state, status.state) if status else "its folder is gone",
                "progress": status.done_rows / status.total_rows if status and status.total_rows else None,
                "size": f"{status.total_rows:,} {_kinds.unit(job['kind'], status.total_rows)}" if status else None,
                "failed": status.failed_rows if status else None,
                "submitted": job["submitted_at"],
            }
            for job, status in found
        ],
        hide_index=True,
        placeholder="—",
        column_config={
            "job": st.column_config.TextColumn(width="large"),
            "progress": st.column_config.ProgressColumn(format="percent", min_value=0, max_value=1),
            "size": st.column_config.TextColumn(alignment="right"),
            "failed": st.column_config.NumberColumn(format="localized"),
            "submitted": st.column_config.DatetimeColumn(format="distance"),
        },
        key="home-jobs",
    )


def _overview(service: Service, datasets: list[dict[str, Any]]) -> None:
    counts = review.counts(service.store)
    statuses = service.scheduler.statuses().values()
    active = sum(status.state in ("queued", "running", "cancelling") for status in statuses)
    cells = (
        ("Datasets", len(datasets), None),
        ("Rows", sum(row["n_members"] for row in datasets), None),
        ("Pairs", counts["n_pairs"], None),
        ("Decided", counts["n_decided"], f"{counts['n_accepted']:,} accepted · {counts['n_rejected']:,} rejected"),
        ("Jobs active", active, None),
    )
    for column, (label, value, note) in zip(st.columns(len(cells)), cells, strict=True):
        with column:
            st.metric(label, f"{value:,}", border=True, help=note)
    left, right = st.columns([3, 1], gap="medium")
    with left:
        st.subheader("Datasets", anchor=False)
        st.dataframe(
            [
                {
                    "name": row["name"],
                    "rows": row["n_members"],
                    "pairs": row["n_pairs"],
                    "decided": row["n_decided"] / row["n_pairs"] if row["n_pairs"] else None,
                    "kind": row["kind"],
                    "source": row["source"],
                    "loaded": row["created_at"],
                }
                for row in datasets
            ],
            hide_index=True,
            column_config={
                "rows": st.column_config.NumberColumn(format="localized"),
                "pairs": st.column_config.NumberColumn(format="localized"),
                "decided": st.column_config.ProgressColumn(format="percent", min_value=0, max_value=1),
                "loaded": st.column_config.DatetimeColumn(format="distance"),
            },
        )
        _recent_jobs(service)
    with right:
        st.subheader("What next", anchor=False)
        _next_step(service, datasets, active)
        st.page_link("load.py", label="Load or manage datasets", icon=":material/upload_file:")
        if sample.sample_dataset(service.store) is None and st.button(
            "Open the sample workspace",
            icon=":material/science:",
            key="open-sample",
            type="tertiary",
            **_ui.allowed("administer"),
        ):
            _open_sample(service)


def _sample_in_work(service: Service, dataset_id: int) -> bool:
    found = sample.sample_jobs(service, dataset_id)
    return any(job["status"] is not None and not job["status"].ended for job in found)


def main() -> None:
    """Render the page."""
    service = _ui.current_service()
    datasets = queries.datasets(service.store)
    _ui.header("Assay", "Curate instruction-tuning data: score, study, select, reflect, review, export.")
    if not datasets:
        _welcome(service)
        return
    dataset_id = sample.sample_dataset(service.store)
    if dataset_id is not None and (st.session_state.get("watch_sample") or _sample_in_work(service, dataset_id)):
        st.session_state["watch_sample"] = True
        _live(service, dataset_id)
    else:
        _overview(service, datasets)


main()
