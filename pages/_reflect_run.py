"""The runs of the Reflect page: one is watched live; what is left of it can go on, what failed be retried."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import streamlit as st

from core.batch_ledger import Ledger
from core.errors import AssayError
from core.jobs.status import JobStatus
from core.reflection_options import ReflectOptions
from core.teachers import label_of
from db import jobs, review
from db.service import Service
from pages import _reflect_form, _reflect_report, _ui


@st.cache_data(max_entries=128, show_spinner=False)
def _options(_service: Service, path: str, job_id: str) -> ReflectOptions | None:
    """What a run was asked for; None where its folder was removed or is of another version."""
    try:
        return ReflectOptions.from_params(_service.job_folder(job_id).spec().params)
    except AssayError:
        return None


def show(service: Service) -> None:
    """Choose a run (its id stands in the URL), watch it, and read its report."""
    found = [job for job in jobs.jobs(service.store) if job["kind"] == "reflect"]
    if not found:
        return
    st.divider()
    job = _choose(found)
    job_id = job["job_id"]
    options = _options(service, str(service.store.path), job_id)
    if options is not None:
        st.caption(_ui.plain(_said(options)))
    status = service.scheduler.statuses().get(job_id)
    at_work = status is not None and not jobs.is_settled(service.store, status)
    st.fragment(_watch, run_every=1 if at_work else None)(service, job_id, options, at_work)
    with st.container(horizontal=True):
        if review.any_pairs(service.store):
            query = {"datasets": str(job["dataset_id"])} if job["dataset"] is not None else {}
            st.page_link("review.py", label="Review the pairs", icon=":material/compare:", query_params=query)
        st.page_link("jobs.py", label="Open the job", icon=":material/work_history:", query_params={"job": job_id})
    _reflect_report.show(
        service,
        job_id=job_id,
        dataset_id=job["dataset_id"] if job["dataset"] is not None else None,
        method=options.method if options is not None else None,
        budget=options.budget_usd if options is not None else None,
    )


def _choose(found: list[dict[str, Any]]) -> Mapping[str, Any]:
    by_id: dict[str, dict[str, Any]] = {job["job_id"]: job for job in found}
    ids = list(by_id)
    started = st.session_state.pop(_reflect_form.STARTED, None)
    if started in by_id:
        st.query_params["run"] = started
    wanted = st.query_params.get("run", "")
    index = ids.index(wanted) if wanted in by_id else 0
    labels = _ui.distinct(
        {i: f"{job['title']} · {job['submitted_at']:%Y-%m-%d %H:%M} UTC" for i, job in by_id.items()},
        tell=lambda i: f"{by_id[i]['submitted_at']:%S.%f}"[:6] + " s",
    )
    left, right = st.columns([1, 5], vertical_alignment="center")
    left.subheader("Runs", anchor=False)
    chosen = right.selectbox(
        "Run",
        ids,
        index=index,
        format_func=labels.__getitem__,
        label_visibility="collapsed",
        key=f"reflect-run-of-{started or ids[index]}-{len(ids)}",
    )
    st.query_params["run"] = chosen
    return by_id[chosen]


def _said(options: ReflectOptions) -> str:
    teacher = options.teacher
    words = [
        options.method.upper(),
        f"teacher {label_of(teacher)}" + (f", {teacher.model}" if teacher is not None else ""),
        f"prompts {' and '.join(prompt.version for prompt in options.prompts.values())}",
    ]
    for n, what in ((options.n_candidates, "candidates"), (options.rounds, "rounds"), (options.attempts, "attempts")):
        if n > 1:
            words.append(f"{n} {what}")
    if options.budget_usd is not None:
        words.append(f"budget {options.budget_usd:,.2f} USD")
    return " · ".join(words)


def _watch(service: Service, job_id: str, options: ReflectOptions | None, at_work: bool) -> None:
    """One run, live: progress, what the teacher gave and cost so far, and what can be done when it has ended."""
    status = service.scheduler.statuses().get(job_id)
    if status is None:
        st.caption("The folder of this job was removed; its pairs are still there.")
        return
    if at_work and jobs.is_settled(service.store, status):
        st.rerun()  # the report below is of before
    _progress(status)
    totals = jobs.teacher_totals(service.store, job_id)
    budget = options.budget_usd if options is not None else None
    cost = "—" if totals["cost_usd"] is None else f"${totals['cost_usd']:,.4f}"
    cells = (
        ("Calls", _ui.number(totals["n_calls"])),
        ("Readable answers", _ui.number(totals["n_parsed"])),
        ("Tokens in", _ui.number(totals["prompt_tokens"])),
        ("Tokens out", _ui.number(totals["completion_tokens"])),
        ("Cost", cost if budget is None else f"{cost} of ${budget:,.2f}"),
    )
    if not status.ended:
        for column, (label, value) in zip(st.columns(len(cells)), cells, strict=True):
            column.metric(label, value)
        st.caption("Numbers are of the rows that are finished; the note above counts every answer.")
    else:
        _afterwards(service, status, options)


def _progress(status: JobStatus) -> None:
    share = status.done_rows / status.total_rows if status.total_rows else 0.0
    parts = [status.state, f"{status.done_rows:,} of {status.total_rows:,} rows"]
    if status.eta_seconds is not None and not status.ended:
        parts.append(f"about {_ui.duration(status.eta_seconds)} left")
    if status.rows_per_second and not status.ended:
        parts.append(f"{60 * status.rows_per_second:,.0f} rows a minute")
    if not status.ended or status.state != "done":
        st.progress(min(share, 1.0), text=" · ".join(parts))
    if status.note and not status.ended:
        st.caption(_ui.plain(status.note))
    if status.message:
        st.warning(_ui.plain(status.message))


def _afterwards(service: Service, status: JobStatus, options: ReflectOptions | None) -> None:
    reasons = jobs.failure_reasons(service.store, status.job_id)
    rest = status.total_rows - status.done_rows
    if status.state in ("failed", "cancelled", "interrupted") and rest > 0:
        _go_on(service, status, options, rest=rest)
    if any(reason["transient"] for reason in reasons) and st.button(
        "Retry the failed rows",
        icon=":material/replay:",
        key=f"retry-{status.job_id}",
        **_ui.allowed(
            "administer", help="Answers that could be read are taken along: only what failed is asked and paid again."
        ),
    ):
        try:
            folder = jobs.submit_retry(
                service.store, service.settings.jobs_path, job_id=status.job_id, created_by=_ui.reviewer() or None
            )
        except AssayError as error:
            st.error(_ui.plain(str(error)))
            return
        st.session_state[_reflect_form.STARTED] = service.enqueue(folder)
        st.rerun()


def _go_on(service: Service, status: JobStatus, options: ReflectOptions | None, *, rest: int) -> None:
    """Resume this very job, or go on with the rows that are left as a run of its own: answers are taken along."""
    budget = options.budget_usd if options is not None else None
    n_out = _n_questions_out(service, status.job_id)
    with st.container(border=True):
        said = "Answers so far are taken along; nothing is asked or paid twice."
        if n_out:
            said = f"{n_out:,} questions are at the teacher's Batch API; the resumed run collects their answers."
        st.markdown(f"**{rest:,} {'row is' if rest == 1 else 'rows are'} left.** {said}")
        with st.container(horizontal=True, vertical_alignment="bottom"):
            # A job that ended by itself would end so again: its budget is spent, or its teacher is wrong.
            alike = status.state == "failed" and not n_out
            if st.button(
                "Resume the run",
                type="secondary" if alike else "primary",
                icon=":material/play_circle:",
                key=f"reflect-resume-{status.job_id}",
                **_ui.allowed("administer"),
            ):
                _resume(service, status.job_id)
            if not n_out:
                _rest_as_a_run(service, status, budget, usual="primary" if alike else "secondary")


def _n_questions_out(service: Service, job_id: str) -> int:
    """Questions of batches that are at the server and whose answers were not collected yet."""
    try:
        return sum(len(sent.custom_ids) for sent in Ledger.read(service.job_folder(job_id)).awaited())
    except AssayError:  # the folder is gone or damaged: what can be done says so when it is tried
        return 0


def _resume(service: Service, job_id: str) -> None:
    try:
        service.scheduler.resume(job_id)
    except AssayError as error:
        st.error(_ui.plain(str(error)))
        return
    st.rerun()


def _rest_as_a_run(
    service: Service, status: JobStatus, budget: float | None, *, usual: Literal["primary", "secondary"]
) -> None:
    """The rest as a run of its own, with a budget of its own."""
    more = None
    is_spent = budget is not None and "budget" in (status.message or "")
    pressed = st.button(
        "Continue with another budget" if is_spent else "Continue with the rest as a new run",
        type=usual,
        icon=":material/play_arrow:",
        key=f"reflect-rest-{status.job_id}",
        **_ui.allowed("administer"),
    )
    if budget is not None:
        more = st.number_input(
            "Budget of what is left (USD)", min_value=0.01, value=float(budget), step=1.0,
            key=f"reflect-budget-{status.job_id}", width=240,
        )  # fmt: skip
    if not pressed:
        return
    try:
        folder = jobs.submit_rest(
            service.store,
            service.settings.jobs_path,
            job_id=status.job_id,
            budget_usd=more,
            created_by=_ui.reviewer() or None,
        )
    except AssayError as error:
        st.error(_ui.plain(str(error)))
        return
    st.session_state[_reflect_form.STARTED] = service.enqueue(folder)
    st.rerun()
