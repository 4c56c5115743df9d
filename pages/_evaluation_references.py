"""References that a teacher writes for an evaluation set: what is missing, what it costs, the jobs and what failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from core.errors import AssayError
from core.evaluation import DEFAULT_REFERENCES, MOST_REFERENCES, PROMPT_VERSION
from core.reference_job import ReferenceOptions
from core.teacher import TeacherSettings
from db import evaluation, imports, jobs, references
from db.references import ReferencePlan
from db.service import Service
from pages import _teacher, _ui


def show(service: Service, chosen: Mapping[str, Any]) -> None:
    """The form with its estimate, and the jobs of this set."""
    dataset_id = int(chosen["dataset_id"])
    if chosen["studies"]:
        _offer_copy(service, chosen)
    else:
        try:
            _new_job(service, dataset_id)
        except AssayError as error:
            st.error(_ui.plain(str(error)))
    _runs(service, dataset_id)


def _offer_copy(service: Service, chosen: Mapping[str, Any]) -> None:
    """A set that a study uses stays as it is: losses on it would no longer mean the same."""
    dataset_id = int(chosen["dataset_id"])
    st.info(
        f"The study {_ui.plain(chosen['studies'][0])} evaluates on this set, so its references must not change. "
        "Copy the set, and have them written into the copy.",
        icon=":material/lock:",
    )
    with st.form(f"evaluation-copy-{dataset_id}", border=False):
        sides = st.columns([4, 1], vertical_alignment="bottom")
        name = sides[0].text_input(
            "Name of the copy", value=imports.free_name(service.store, str(chosen["name"])), max_chars=200,
            key=f"evaluation-copy-name-{dataset_id}",
        )  # fmt: skip
        pressed = sides[1].form_submit_button(
            "Copy the set", key=f"evaluation-copy-press-{dataset_id}", **_ui.allowed("administer")
        )
    if not pressed:
        return
    try:
        copied = evaluation.copy(service.store, dataset_id, name=name, by=_ui.reviewer() or None)
    except AssayError as error:
        st.error(_ui.plain(str(error)))
        return
    st.query_params["set"] = str(copied)
    st.rerun()


def _new_job(service: Service, dataset_id: int) -> None:
    what, teacher_side = st.columns([2, 3], gap="large")
    with what:
        wanted = st.number_input(
            "References an instruction", 1, MOST_REFERENCES, DEFAULT_REFERENCES, key=f"references-n-{dataset_id}",
            help="So many are there in the end: those that an instruction has already count. The paper has five.",
        )  # fmt: skip
        only_without = st.checkbox("Only instructions without any", key=f"references-bare-{dataset_id}")
        limit = st.number_input(
            "At most this many instructions, from the top (0: all)",
            0,
            value=0,
            step=10,
            key=f"references-l-{dataset_id}",
        )
        st.caption(
            "The teacher is asked the instruction with its input and nothing else "
            f"\\(prompt {_ui.plain(PROMPT_VERSION)}), once a reference. An answer that is empty, cut off or there "
            "already is kept with the reason and is no reference."
        )
    with teacher_side:
        teacher, missing = _teacher.teacher_form("references", structured=False)
    if teacher is None:
        return
    options = ReferenceOptions(teacher, int(wanted))
    plan = references.plan(service.store, dataset_id, options, only_without=only_without, limit=int(limit) or None)
    if not plan.n_instructions:
        st.success("Every instruction has that many references. Nothing is left to ask.", icon=":material/check:")
        return
    _estimate(plan, has_prices=isinstance(teacher, TeacherSettings))
    busy = _active(service, dataset_id)
    if busy:
        missing = "A job is writing references for this set. Wait for it, or cancel it on the page Jobs."
    if missing:
        st.caption(f":material/info: {_ui.plain(missing)}")
    if st.button(
        f"Have {plan.estimate.calls:,} references written",
        type="primary",
        icon=":material/play_arrow:",
        key=f"references-go-{dataset_id}",
        **_ui.allowed("administer", disabled=missing is not None),
    ):
        folder = references.submit(
            service.store, service.settings.jobs_path, dataset_id=dataset_id, options=options,
            only_without=only_without, limit=int(limit) or None, created_by=_ui.reviewer() or None,
        )  # fmt: skip
        service.enqueue(folder)
        st.rerun()


def _estimate(plan: ReferencePlan, *, has_prices: bool) -> None:
    expected = plan.estimate
    cells = (
        ("Instructions", _ui.number(plan.n_instructions)),
        ("References to write", _ui.number(expected.calls)),
        ("Prompt tokens", _ui.number(expected.prompt_tokens)),
        ("Answer tokens", _ui.number(expected.completion_tokens)),
        ("Cost", "—" if expected.cost_usd is None else f"${expected.cost_usd:,.2f}"),
    )
    for column, (label, value) in zip(st.columns(len(cells)), cells, strict=True):
        column.metric(label, value, border=True)
    unknown = " A local model costs no money, but time of this machine."
    if has_prices:
        unknown = " Give both prices above to see the cost." if expected.cost_usd is None else ""
    st.caption(
        "An estimate: four bytes a token, answers about as long as the references that are there (900 bytes where "
        f"there are none). Retries come on top.{unknown}"
    )


def _jobs_of(service: Service, dataset_id: int) -> list[dict[str, Any]]:
    found = jobs.jobs(service.store)
    return [job for job in found if job["kind"] == "references" and job["dataset_id"] == dataset_id]


def _active(service: Service, dataset_id: int) -> bool:
    statuses = service.scheduler.statuses()
    ids = [job["job_id"] for job in _jobs_of(service, dataset_id)]
    return any(one in statuses and not statuses[one].ended for one in ids)


def _runs(service: Service, dataset_id: int) -> None:
    found = _jobs_of(service, dataset_id)
    if not found:
        return
    st.markdown("**Written by teachers**")
    by_id = {job["job_id"]: job for job in found}
    chosen = next(iter(by_id))
    if len(found) > 1:
        chosen = st.selectbox(
            "Job", list(by_id), format_func=lambda i: f"{by_id[i]['submitted_at']:%Y-%m-%d %H:%M} UTC · {i}",
            label_visibility="collapsed", key=f"references-job-{dataset_id}-{len(found)}",
        )  # fmt: skip
    _watch(service, chosen)


@st.fragment(run_every=1)
def _watch(service: Service, job_id: str) -> None:
    """One job, live: progress, what came, what did not and why."""
    status = service.scheduler.statuses().get(job_id)
    if status is not None:
        share = status.done_rows / status.total_rows if status.total_rows else 0.0
        parts = [status.state, f"{status.done_rows:,} of {status.total_rows:,} instructions"]
        if status.eta_seconds is not None:
            parts.append(f"about {_ui.duration(status.eta_seconds)} left")
        st.progress(min(share, 1.0), text=" · ".join(parts))
        if status.note and not status.ended:
            st.caption(_ui.plain(status.note))
        if status.message:
            st.warning(_ui.plain(status.message))
        if status.ended and st.session_state.get("references-seen") != (job_id, status.state):
            st.session_state["references-seen"] = (job_id, status.state)
            st.rerun()
    totals = jobs.teacher_totals(service.store, job_id)
    cells = (
        ("Calls", _ui.number(totals["n_calls"])),
        ("Usable answers", _ui.number(totals["n_parsed"])),
        ("Tokens in", _ui.number(totals["prompt_tokens"])),
        ("Tokens out", _ui.number(totals["completion_tokens"])),
        ("Cost", "—" if totals["cost_usd"] is None else f"${totals['cost_usd']:,.4f}"),
    )
    for column, (label, value) in zip(st.columns(len(cells)), cells, strict=True):
        column.metric(label, value)
    reasons = jobs.failure_reasons(service.store, job_id)
    if reasons:
        st.dataframe(
            [{"instructions": one["n"], "why an answer is no reference": one["reason"]} for one in reasons],
            hide_index=True,
            key=f"references-reasons-{job_id}",
            column_config={"instructions": st.column_config.NumberColumn(width="small")},
        )
    st.page_link("jobs.py", label="This job's log and files", icon=":material/work:", query_params={"job": job_id})
