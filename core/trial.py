"""A quick trial before a job: a few rows through the same worker as a job, to measure load time and rows a second.

Its job folder is made in a temporary folder and removed when the trial ends, however it ends.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from core.errors import AssayError
from core.jobs.events import seconds_of
from core.jobs.folder import JobFolder
from core.jobs.launch import start_worker

TRIAL_ROWS = 24
TRIAL_SECONDS = 300.0
"""A trial that takes longer is stopped: what it would measure is known by then to be slow."""

State = Literal["running", "done", "failed", "cancelled", "late"]
_COMMAND = ("-m", "core.jobs.runner")
_POLL_SECONDS = 0.1
_LEAST_SECONDS = 0.01
_LOADING = "Loading"

_living: weakref.WeakSet[Trial] = weakref.WeakSet()


@dataclass(frozen=True)
class Measured:
    """What a trial took: ``load_seconds`` from the start to the loaded models, ``work_seconds`` for ``n_rows`` rows."""

    n_rows: int
    load_seconds: float
    work_seconds: float

    @property
    def rows_per_second(self) -> float:
        """Rows a second after the models were loaded."""
        return self.n_rows / max(self.work_seconds, _LEAST_SECONDS)


def measured_of(events: Sequence[Mapping[str, Any]], *, n_rows: int) -> Measured | None:
    """Part the time of a done trial into loading and work; None where its events do not say.

    A stretch between two events is loading up to the first note, and while the latest note says that something loads.
    """
    load = work = 0.0
    before: float | None = None
    loading, done = True, False
    for event in events:
        at, name = seconds_of(event.get("at")), event.get("event")
        if at is None or name == "submitted":
            continue
        if before is not None:
            if loading:
                load += max(0.0, at - before)
            else:
                work += max(0.0, at - before)
        before = at
        if name == "note":
            loading = str(event.get("message", "")).startswith(_LOADING)
        done = done or name == "done"
        if done:
            break
    return Measured(n_rows, load, work) if done and work > 0 else None


class Trial:
    """One trial at work, or over. Make one with :meth:`start`; read it from any thread."""

    def __init__(self, home: Path, folder: JobFolder, worker: subprocess.Popen[bytes]) -> None:
        self._home = home
        self._folder = folder
        self._worker = worker
        self._began = time.monotonic()
        self._cancelled = threading.Event()
        self._over = threading.Event()
        self._note: str | None = None
        self.state: State = "running"
        self.measured: Measured | None = None
        self.problem: str | None = None

    @classmethod
    def start(
        cls, make: Callable[[Path], JobFolder], *, device: str, cpu_jobs: int = 1, seconds: float = TRIAL_SECONDS
    ) -> Trial:
        """Make the job folder in a temporary one and start its worker on ``device`` (cpu, cuda:0 …).

        ``make`` gets the temporary folder and returns the job folder inside it.

        Raises:
            AssayError: the folder cannot be made or the worker cannot be started.
        """
        home = Path(tempfile.mkdtemp(prefix="assay-trial-"))
        try:
            folder = make(home)
            worker = start_worker(folder, device=device, cpu_jobs=cpu_jobs, command=_COMMAND)
            assert worker is not None  # nobody else knows the folder
        except BaseException:
            shutil.rmtree(home, ignore_errors=True)
            raise
        trial = cls(home, folder, worker)
        _living.add(trial)
        threading.Thread(target=trial._watch, args=(seconds,), name="trial", daemon=True).start()
        return trial

    @property
    def seconds(self) -> float:
        """How long it has been at work."""
        return time.monotonic() - self._began

    @property
    def note(self) -> str | None:
        """What it says that it is doing."""
        return self._note

    def cancel(self) -> None:
        """Stop it; it is over a moment later."""
        self._cancelled.set()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it is over; tell whether it is."""
        return self._over.wait(seconds)

    def _watch(self, seconds: float) -> None:
        try:
            state = self._until_it_ends(seconds)
            self._conclude(state)
        finally:
            self._kill()
            shutil.rmtree(self._home, ignore_errors=True)
            if self.state == "running":
                self.state, self.problem = "failed", "The trial could not be read."
            self._over.set()

    def _until_it_ends(self, seconds: float) -> State:
        while self._worker.poll() is None:
            if self._cancelled.wait(_POLL_SECONDS):
                return "cancelled"
            if self.seconds > seconds:
                return "late"
            notes = [event for event in self._folder.events() if event.get("event") == "note"]
            self._note = str(notes[-1].get("message")) if notes else None
        return "done"

    def _conclude(self, state: State) -> None:
        if state == "late":
            self.problem = f"The trial was stopped after {self.seconds:.0f} s; the job would be slow as well."
        elif state == "done":
            try:
                status, events = self._folder.status(), self._folder.events()
                self.measured = measured_of(events, n_rows=status.total_rows)
                message = status.message
            except AssayError as error:
                message = str(error)
            if self.measured is None:
                state, self.problem = "failed", message or "The trial's worker ended before it was done."
        self.state = state

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._worker.pid, signal.SIGKILL)  # it leads its own group: see start_worker
        self._worker.wait()

    def _abandon(self) -> None:
        if not self._over.is_set():
            self._kill()
            shutil.rmtree(self._home, ignore_errors=True)


@atexit.register
def _end_all() -> None:
    """A server that stops takes its trials along: nobody would read them, unlike jobs."""
    for trial in list(_living):
        trial._abandon()
