"""One job as the scheduler remembers it between two ticks."""

from __future__ import annotations

import logging
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from core.errors import AssayError
from core.jobs.folder import JobFolder
from core.jobs.process import signal_worker
from core.jobs.status import JobStatus
from core.jobs.watch import JobWatch

_LONGEST_PAUSE_SECONDS = 60.0

log = logging.getLogger("core.jobs.scheduler")


@dataclass
class Trouble:
    """A step that failed for a job, and when it is due again (monotonic seconds)."""

    message: str
    failures: int
    due: float


@dataclass(eq=False)
class TrackedJob:
    """A job with its watch, its worker if this server started it, and what failed lately.

    ``watching`` is False once the job ended and everything was handed over, ``busy`` while a callback about it runs,
    ``swept`` once what its worker left behind was killed.
    """

    watch: JobWatch
    status: JobStatus
    worker: subprocess.Popen[bytes] | None = None
    collected: set[int] | None = None
    watching: bool = True
    busy: bool = False
    swept: bool = False
    troubles: dict[str, Trouble] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: JobFolder) -> TrackedJob:
        """Begin to track a job, without reading anything yet."""
        return cls(JobWatch(folder), JobStatus(job_id=folder.job_id, state="queued"))

    @property
    def folder(self) -> JobFolder:
        """The job's folder."""
        return self.watch.folder

    @property
    def job_id(self) -> str:
        """The job's id."""
        return self.watch.folder.job_id

    @property
    def queued(self) -> bool:
        """True while it waits for a slot."""
        return self.status.state == "queued" and self.watch.spec is not None

    @property
    def over(self) -> bool:
        """True once it ended and its worker is gone."""
        return self.status.ended and not self.watch.alive

    def queue_key(self) -> tuple[int, float, str]:
        """Sort key of the queue: priority first, then the time of (re)submission."""
        return -self.status.priority, self.watch.timeline.queued_at or 0.0, self.job_id

    def observe(self) -> None:
        """Reap the worker if it ended, and derive the status anew.

        Raises:
            JobError: the worker's end cannot be told as an event.
        """
        self.status = self.watch.status()
        # Asked after the status: a worker that reads dead above has its exit code here, in the same look.
        code = None if self.worker is None else self.worker.poll()
        if code is not None:
            self.worker = None
            self.status = self.watch.status()
            if self.watch.timeline.phase == "running":
                self.folder.append_event("exited", message=_exit_message(code))
                self.status = self.watch.status()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the worker and every process of its group."""
        line = self.watch.timeline
        if line.pid is not None and line.create_time is not None:
            signal_worker(line.pid, line.create_time, number, mark=self.folder.mark)

    def clean_up(self, *, grace_seconds: float) -> None:
        """Kill what outstays its welcome: a cancelled job after its grace, a worker that said its last word.

        Raises:
            JobError: the end of a cancelled job cannot be told as an event.
        """
        line, state = self.watch.timeline, self.status.state
        if self.watch.alive:
            since = line.cancel_at if state == "cancelling" else line.ended_at if self.status.ended else None
            if since is not None and time.time() - since > grace_seconds:
                self.send_signal(signal.SIGKILL)
        elif self.status.ended and not (self.swept or line.closed):
            self.send_signal(signal.SIGKILL)  # children that outlived their worker hold memory and files
            if state == "cancelled" and line.phase != "cancelled":
                self.folder.append_event("cancelled", message="Cancelled while it ran; what was finished is kept.")
                self.observe()
            self.swept = True

    def requeued(self) -> None:
        """Forget what was remembered of the attempt that ended."""
        self.watching, self.swept, self.collected = True, False, None
        self.troubles.clear()

    def guarded(self, doing: str, act: Callable[[], None], *, retry_seconds: float) -> bool:
        """Do a step and tell whether it was done.

        A step that fails is noted as the job's trouble and left alone for a pause that doubles each time; it stops
        neither the other jobs nor the thread.
        """
        before = self.troubles.get(doing)
        if before is not None and time.monotonic() < before.due:
            return False
        try:
            act()
        except (AssayError, OSError) as error:
            reason = str(error)
            log.warning("Job %s: %s failed: %s", self.job_id, doing, reason)
        except Exception as error:
            # The border to callbacks and libraries: a fault there must show at this job and nowhere else.
            reason = f"{type(error).__name__}: {error} (more in the server's log)"
            log.exception("Job %s: %s failed.", self.job_id, doing)
        else:
            self.troubles.pop(doing, None)
            return True
        failures = 1 if before is None else before.failures + 1
        pause = min(_LONGEST_PAUSE_SECONDS, retry_seconds * 2.0 ** min(failures - 1, 20))
        message = f"{doing[0].upper()}{doing[1:]} failed: {reason} It is tried again every {pause:.0f} seconds or so."
        self.troubles[doing] = Trouble(message, failures, time.monotonic() + pause)
        return False

    def shown(self, position: int | None) -> JobStatus:
        """Return the status for pages, with the place in the queue and the troubles."""
        if position is None and not self.troubles:
            return self.status
        trouble = " ".join(trouble.message for trouble in self.troubles.values()) or None
        return replace(self.status, queue_position=position, trouble=trouble)


def _exit_message(code: int) -> str:
    if code == -signal.SIGKILL:
        return "The worker was killed (SIGKILL), as happens when the machine runs out of memory."
    if code < 0:
        return f"The worker was killed by {signal.Signals(-code).name}."
    return f"The worker ended with exit code {code} before the job was done; its log may say why."
