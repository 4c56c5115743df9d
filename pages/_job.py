"""One job, live: its numbers, its buttons, its log and its errors. Every key holds the job's id."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import streamlit as st

from core.errors import AssayError, JobError
from core.jobs.status import RESUMABLE, JobStatus
from db import jobs, judging
from db.service import Service
from pages import _job_follow_up, _job_runs, _kinds, _pick, _rows, _ui

OPENED, WANTED, SAID = "jobs_opened", "jobs_wanted", "jobs_said"
STATES = {
    "queued": "◷ queued",
    "running": "▶ running",
    "cancelling": "◼ cancelling",
    "cancelled": "◼ cancelled",
    "interrupted": "⚠ interrupted",
    "failed": "✗ failed",
    "done": "✓ done",
}
STYLE = """<style>
[class*="st-key-job-facts"] [data-testid="stMetricValue"] {font-size: 1.15rem; line-height: 1.4;}
[class*="st-key-job-facts"] [data-testid="stMetricLabel"] {opacity: .7;}
</style>"""
LOG_LINES = 300
FAILED_ROWS = 500
_UNSEEN = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")


def state_word(status: JobStatus | None) -> str:
    """A state with its sign; in the queue also its place."""
    if status is None:
        return "– folder gone"
    word = STATES.get(status.state, status.state)
    return f"{word} ({status.queue_position}.)" if status.queue_position is not None else word


def record_of(status: JobStatus) -> dict[str, Any]:
    """What the store would say of a job that it has not recorded yet."""
    return {
        "job_id": status.job_id,
        "kind": status.kind,
        "title": status.title or status.job_id,
        "dataset_id": None,
        "dataset": None,
        "submitted_at": status.submitted_at,
        "submitted_by": status.created_by,
        "retry_of": status.retry_of,
        "n_collected": 0,
        "n_failed": 0,
    }


# --- buttons ---


def _failed_rows(n: int) -> str:
    return "1 failed row" if n == 1 else f"{n:,} failed rows"


def _say(message: str, *, icon: str = ":material/check:") -> None:
    st.session_state.setdefault(SAID, []).append((message, icon))


def _retry(service: Service, job_id: str, reason: str | None) -> str:
    busy = [s.job_id for s in service.scheduler.statuses().values() if s.retry_of == job_id and not s.ended]
    if busy:
        raise JobError("These rows are being retried already: see the newest job in the list.")
    folder = jobs.submit_retry(
        service.store, service.settings.jobs_path, job_id=job_id, created_by=_ui.reviewer() or None, reason=reason
    )
    new = service.enqueue(folder)
    st.session_state[WANTED] = new
    return f"{_failed_rows(folder.spec().n_rows)} in a new job now. It is opened below."


def _act(service: Service, job_id: str, action: str, argument: str | None = None) -> None:
    """What a button of this very job does. The scheduler checks again whether it fits the state."""
    scheduler = service.scheduler
    try:
        if action == "cancel":
            scheduler.cancel(job_id)
            message = "The job is being stopped. Finished shards are kept."
        elif action == "resume":
            scheduler.resume(job_id)
            message = "The job is in the queue again. Finished shards are not done twice."
        elif action in ("sooner", "later"):
            priority = scheduler.status(job_id).priority + (1 if action == "sooner" else -1)
            scheduler.set_priority(job_id, priority)
            message = f"The job has priority {priority} now."
        elif action == "retry":
            message = _retry(service, job_id, argument)
        else:
            _remove(service, job_id)
            message = "The job and its folder were removed. What was collected from it stays in the store."
    except AssayError as error:
        _say(str(error), icon=":material/error:")
        return
    _say(message)


def _remove(service: Service, job_id: str) -> None:
    if job_id in service.scheduler.statuses():
        service.remove_job(job_id)
    else:
        jobs.forget(service.store, job_id)  # somebody deleted the folder by hand
    st.session_state[OPENED] = None
    st.query_params.pop("job", None)


def _button(
    service: Service, job_id: str, label: str, action: str, *, icon: str, enabled: bool, help_text: str, **options: Any
) -> None:
    st.button(
        label,
        key=f"job-{action}-{job_id}",
        icon=f":material/{icon}:",
        on_click=_act,
        args=(service, job_id, action),
        **options,
        **_ui.allowed("administer", disabled=not enabled, help=help_text),
    )


def _buttons(service: Service, job_id: str, status: JobStatus | None, n_retry: int, *, kind: str) -> None:
    state = status.state if status is not None else "gone"
    queued, ended = state == "queued", status is None or status.ended
    with st.container(horizontal=True, vertical_alignment="center", key=f"job-buttons-{job_id}"):
        _button(
            service, job_id, "Cancel", "cancel", icon="stop_circle", enabled=state in ("queued", "running"),
            help_text="Stops every process of the job. Finished shards are kept; it can be resumed.",
        )  # fmt: skip
        _button(
            service, job_id, "Resume", "resume", icon="play_circle", enabled=state in RESUMABLE,
            help_text="Runs a stopped job again. Finished shards are skipped.",
        )  # fmt: skip
        if kind in _kinds.RETRIED:
            _button(
                service, job_id, f"Retry {_failed_rows(n_retry)}" if n_retry else "Retry failed rows", "retry",
                icon="replay", enabled=bool(n_retry) and status is not None and ended,
                help_text="A new job over the rows that may come out better. Rows that can never be scored are left "
                "out.",
            )  # fmt: skip
        _button(
            service, job_id, "Sooner", "sooner", icon="arrow_upward", enabled=queued, type="tertiary",
            help_text="Raises the priority of a queued job by one.",
        )  # fmt: skip
        _button(
            service, job_id, "Later", "later", icon="arrow_downward", enabled=queued, type="tertiary",
            help_text="Lowers the priority of a queued job by one.",
        )  # fmt: skip
        with st.popover(
            "Remove", icon=":material/delete:", disabled=not ended, key=f"job-removing-{job_id}", type="tertiary"
        ):
            st.markdown(
                "Remove the job from the list and delete its folder, with its log"
                + (" and the adapters that were kept? " if kind in _kinds.RUNS else "? ")
                + "What was collected from it stays: scores, pairs, answers, results of runs."
            )
            _button(
                service, job_id, "Yes, remove it", "remove", icon="delete", enabled=ended, type="primary",
                help_text="This cannot be undone.",
            )  # fmt: skip


# --- what is shown ---


def _progress(status: JobStatus) -> None:
    share = status.done_rows / status.total_rows if status.total_rows else 0.0
    parts = [_kinds.progress_words(status.kind, status.done_rows, status.total_rows), f"{share:.0%}"]
    if status.state == "running":
        if status.rows_per_second is not None:
            parts.append(_kinds.speed(status.kind, status.rows_per_second))
            parts.append(f"about {_ui.duration(status.eta_seconds)} left")
        else:
            parts.append(f"the speed is known after the first {_kinds.unit(status.kind)}")
    if status.note and not status.ended:
        parts.append(status.note)
    st.progress(min(share, 1.0), text=_ui.plain(" · ".join(parts)))


def _facts(record: Mapping[str, Any], status: JobStatus) -> None:
    begun, end = status.started_at, status.ended_at
    now = datetime.now(UTC).replace(tzinfo=None)
    seconds = ((end or now) - begun).total_seconds() if begun is not None else None
    unit = _kinds.unit(str(record["kind"]))
    bad = "Runs that diverged or failed." if record["kind"] in _kinds.RUNS else f"{unit.capitalize()} with an error."
    facts = (
        (
            f"{unit.capitalize()} in the store",
            _ui.number(record["n_collected"]),
            f"{unit.capitalize()} of shards that were taken up into the store.",
        ),
        (f"Failed {unit}", _ui.number(max(record["n_failed"], status.failed_rows)), bad),
        ("Shards", f"{status.done_shards:,} / {status.total_shards:,}", "Finished shards survive every crash."),
        ("Attempt", _ui.number(status.attempt), "How often a worker was started for this job."),
        ("Device", status.device, "Where it runs, or what kind of device it waits for."),
        ("Time", _ui.duration(seconds), "Of the latest attempt."),
    )
    for column, (label, value, what) in zip(st.columns(len(facts)), facts, strict=True):
        column.metric(label, value, help=what)


def _messages(status: JobStatus | None) -> None:
    if status is None:
        st.warning("The folder of this job is gone. What was collected from it is in the store.", icon="⚠️")
        return
    if status.message:
        kind = {"failed": st.error, "interrupted": st.warning}.get(status.state, st.info)
        kind(_ui.plain(status.message))
    if status.trouble:
        st.warning(_ui.plain(status.trouble), icon=":material/sync_problem:")


def _seconds(seconds: float | None) -> str:
    return f"{seconds:.1f} s" if seconds is not None and seconds < 60 else _ui.duration(seconds)


def _teacher(service: Service, job_id: str, *, kind: str) -> None:
    is_judge = kind == "judge"
    totals = (judging.job_totals if is_judge else jobs.teacher_totals)(service.store, job_id)
    facts = (
        ("Judge calls" if is_judge else "Teacher calls", _ui.number(totals["n_calls"])),
        ("Parsed", _ui.number(totals["n_parsed"])),
        ("Prompt tokens", _ui.number(totals["prompt_tokens"])),
        ("Answer tokens", _ui.number(totals["completion_tokens"])),
        ("Cost", f"${totals['cost_usd']:,.4f}" if totals["cost_usd"] is not None else "—"),
        ("Median answer", _seconds(totals["median_seconds"])),
    )
    for column, (label, value) in zip(st.columns(len(facts)), facts, strict=True):
        column.metric(label, value)


def _log(service: Service, job_id: str) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.markdown("**Log**", width="stretch")
        search = st.text_input(
            "Search the log", key=f"job-log-{job_id}", placeholder="Search the log", label_visibility="collapsed",
            icon=":material/search:", width=340, max_chars=200,
        )  # fmt: skip
    lines = service.job_folder(job_id).log_tail(LOG_LINES, search=search.strip() or None)
    if not lines:
        said = "No line of the log holds these words." if search.strip() else "The worker has printed nothing yet."
        st.caption(said)
        return
    long = len(lines) > 12
    with st.container(
        height=300 if long else "content", autoscroll=long, border=False, key=f"job-log-lines-{job_id}-{long}"
    ):
        st.code(_UNSEEN.sub("", "\n".join(lines)), language=None, wrap_lines=True)
    if len(lines) == LOG_LINES:
        what = "lines that hold these words" if search.strip() else "lines"
        st.caption(f"The last {LOG_LINES} {what}. The whole log lies in the job's folder.")


def _choose_reason(reasons: Sequence[str], widget: str, job_id: str, opened: str | None) -> None:
    st.session_state[f"job-reason-{job_id}"] = _pick.picked(reasons, widget, opened)


def _errors(service: Service, record: Mapping[str, Any], reasons: Sequence[Mapping[str, Any]], *, ended: bool) -> None:
    job_id = str(record["job_id"])
    st.markdown("**Errors by reason**")
    if not reasons:
        st.caption(f"No {_kinds.unit(str(record['kind']), 1)} that was taken up has an error.")
        return
    texts = tuple(str(row["reason"]) for row in reasons)
    chosen: str | None = st.session_state.get(f"job-reason-{job_id}")
    widget = _pick.widget_key(f"job-reasons-{job_id}", texts, chosen)
    st.dataframe(
        pd.DataFrame(
            {
                "rows": [row["n"] for row in reasons],
                "step": [row["stage"] for row in reasons],
                "retry?": ["↻ may come out better" if row["transient"] else "– would fail again" for row in reasons],
                "reason": texts,
            }
        ),
        hide_index=True,
        height="content" if len(reasons) <= 5 else 213,
        key=widget,
        on_select=lambda: _choose_reason(texts, widget, job_id, chosen),
        **_pick.options(texts, chosen),
        column_config={
            "rows": st.column_config.NumberColumn(format="localized", width=65),
            "step": st.column_config.TextColumn(width=90),
            "retry?": st.column_config.TextColumn(width=165),
            "reason": st.column_config.TextColumn(width="large"),
        },
    )
    _rows_concerned(service, record, chosen if chosen in texts else None, ended=ended)


def _rows_concerned(service: Service, record: Mapping[str, Any], reason: str | None, *, ended: bool) -> None:
    job_id = str(record["job_id"])
    failed = jobs.failures(service.store, job_id, reason=reason, limit=FAILED_ROWS)
    if not failed:  # a benchmark's tasks are about no row
        return
    title = "Rows of this reason" if reason is not None else "Rows concerned"
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.markdown(f"**{title}**" + (" \\(click a reason to see only its rows)" if reason is None else ""))
        if reason is not None and any(row["transient"] for row in failed):
            st.button(
                "Retry the rows of this reason",
                key=f"job-retry-{job_id}-{_rows.identity(reason)}",
                icon=":material/replay:",
                on_click=_act,
                args=(service, job_id, "retry", reason),
                **_ui.allowed("administer", disabled=not ended),
            )
    dataset = f"&datasets={record['dataset_id']}" if record["dataset_id"] is not None else ""
    st.dataframe(
        pd.DataFrame(
            {
                "row": [f"explore?row={row['example_id']}{dataset}" for row in failed],
                "step": [row["stage"] for row in failed],
                "reason": [row["reason"] for row in failed],
                "instruction": [row["instruction"] for row in failed],
            }
        ),
        hide_index=True,
        height="content" if len(failed) <= 6 else 248,
        key=f"job-rows-{job_id}-{_rows.identity(reason)}",
        column_config={
            "row": st.column_config.LinkColumn(display_text=r"row=(\d+)", help="Opens the row in Explore.", width=65),
            "step": st.column_config.TextColumn(width=90),
            "reason": st.column_config.TextColumn(width="medium"),
            "instruction": st.column_config.TextColumn(width="large"),
        },
    )
    if len(failed) == FAILED_ROWS:
        st.caption(f"The first {FAILED_ROWS:,} are shown.")


def _spec(service: Service, job_id: str) -> None:
    with st.expander("What was asked (spec.json)", key=f"job-spec-{job_id}"):
        try:
            st.code(service.job_folder(job_id).spec().to_json(), language="json", wrap_lines=True)
        except AssayError as error:
            st.error(_ui.plain(str(error)))
        st.caption(_ui.plain(f"Folder: {service.job_folder(job_id).path}"))


@st.fragment(run_every=1)
def show(service: Service) -> None:
    """The job that is open."""
    for message, icon in st.session_state.pop(SAID, ()):
        st.toast(_ui.plain(message), icon=icon)
    job_id = st.session_state.get(OPENED)
    if WANTED in st.session_state or job_id is None:
        st.rerun()
    status = service.scheduler.statuses().get(job_id)
    record = next((row for row in jobs.jobs(service.store) if row["job_id"] == job_id), None)
    if record is None and status is None:
        st.caption("This job was removed.")
        return
    record = record or record_of(status)  # type: ignore[arg-type]
    reasons = jobs.failure_reasons(service.store, job_id)
    n_retry = sum(row["n"] for row in reasons if row["transient"])
    with st.container(border=True, key=f"job-{job_id}"):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**{state_word(status)}** · {_ui.plain(str(record['title']))}", width="stretch")
            st.caption(_ui.plain(job_id), width="content")
        _buttons(service, job_id, status, n_retry, kind=str(record["kind"]))
        if status is not None:
            _progress(status)
        _messages(status)
        with st.container(key=f"job-facts-{job_id}", gap="small"):
            if status is not None:
                _facts(record, status)
            if record["kind"] in _kinds.ASKING:
                _teacher(service, job_id, kind=str(record["kind"]))
        _job_follow_up.show(service, record)
        with st.container():
            _log(service, job_id)
        with st.container():
            if record["kind"] in _kinds.RUNS:
                _job_runs.show(service, record)
            else:
                _errors(service, record, reasons, ended=status is not None and status.ended)
        if status is not None:
            _spec(service, job_id)
