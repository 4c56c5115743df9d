"""Following one job: its status from the folder and the process table, at the price of what is new."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from core.errors import JobError
from core.jobs.events import EventReader
from core.jobs.process import is_alive, worker_processes
from core.jobs.spec import JobSpec
from core.jobs.status import JobStatus, Timeline, as_datetime, fold

if TYPE_CHECKING:
    from core.jobs.folder import JobFolder

_DIED = "The worker ended without saying why: it was killed, or the machine stopped."


class JobWatch:
    """Remembers how far it read, so that :meth:`status` can be asked often. For one thread at a time."""

    def __init__(self, folder: JobFolder) -> None:
        self.folder = folder
        self.timeline = Timeline()
        self.alive = False
        self.spec: JobSpec | None = None
        self._reader = EventReader(folder.events_path)

    def status(self, now: float | None = None) -> JobStatus:
        """Return the status at ``now`` (seconds since 1970; default: the clock).

        A folder whose spec is damaged reads as failed, with the reason.
        """
        now = time.time() if now is None else now
        events = self._reader.read()
        if self._reader.restarted:
            self.timeline = Timeline()
        line = fold(events, onto=self.timeline)
        self.alive = self._worker_lives()
        state = line.state(alive=self.alive)
        try:
            self.spec = self.spec or self.folder.spec()
        except JobError as error:
            state = state if self.alive else "failed"
            return JobStatus(job_id=self.folder.job_id, state=state, message=str(error), device=line.device or "")
        return self._status(self.spec, state, now)

    def _worker_lives(self) -> bool:
        line = self.timeline
        if line.phase == "queued" or line.pid is None or line.create_time is None:
            return False
        if is_alive(line.pid, line.create_time):
            return True
        # Cancelling is over when the last process of the group is gone, not when the first one is.
        cancelling = line.cancel_at is not None and line.phase != "cancelled" and not line.closed
        return cancelling and bool(worker_processes(line.pid, line.create_time, mark=self.folder.mark))

    def _status(self, spec: JobSpec, state: str, now: float) -> JobStatus:
        line = self.timeline
        finished = self.folder.finished_shards()
        done_rows = spec.rows_in(finished)
        running = state == "running"
        if running and line.points:
            done_rows = min(spec.n_rows, max(done_rows, line.points[-1][1]))
        message = line.message
        if state == "interrupted":
            kept = f"{len(finished)} of {spec.n_shards} shards are finished and kept; resume the job to do the rest."
            message = f"{message or _DIED} {kept}"
        return JobStatus(
            job_id=spec.job_id,
            state=state,
            title=spec.title,
            kind=spec.kind,
            device=line.device or spec.device,
            priority=spec.priority if line.priority is None else line.priority,
            created_by=spec.created_by,
            retry_of=spec.retry_of,
            done_rows=done_rows,
            total_rows=spec.n_rows,
            done_shards=len(finished),
            total_shards=spec.n_shards,
            failed_rows=line.failed_rows(),
            rows_per_second=line.rows_per_second(now=now) if running else None,
            eta_seconds=line.eta_seconds(now=now, total_rows=spec.n_rows) if running else None,
            attempt=line.attempt,
            message=message,
            note=line.note,
            submitted_at=as_datetime(line.submitted_at),
            started_at=as_datetime(line.started_at),
            ended_at=as_datetime(line.ended_at),
        )
