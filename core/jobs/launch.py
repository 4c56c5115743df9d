"""Starting a worker so that it outlives the server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from core.errors import JobError
from core.jobs.devices import worker_environment
from core.jobs.folder import JobFolder
from core.jobs.process import MARK_VARIABLE, create_time
from core.jobs.runner import LOCK_VARIABLE

_ROOT = Path(__file__).resolve().parents[2]


def start_worker(
    folder: JobFolder, *, device: str, cpu_jobs: int, command: Sequence[str]
) -> subprocess.Popen[bytes] | None:
    """Start ``python <command> FOLDER`` on a device and tell it as an event; None while a worker holds the folder.

    The worker leads its own session (the server's signals do not reach it, and its whole group can be cancelled), reads
    nothing, and prints to the log file: a pipe would break with the server.

    Raises:
        JobError: it cannot be started, or the start cannot be told; then it is stopped again.
    """
    lock = folder.try_lock()
    if lock is None:
        return None
    environment = worker_environment(device, cpu_jobs=cpu_jobs, environ=os.environ)
    try:
        with folder.log_path.open("ab") as log:
            worker = subprocess.Popen(
                [sys.executable, *command, str(folder.path.resolve())],
                cwd=_ROOT,
                env={**environment, LOCK_VARIABLE: str(lock), MARK_VARIABLE: folder.mark},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(lock,),
            )
    except OSError as error:
        raise JobError(f"The worker of job {folder.job_id} could not be started: {error}.") from error
    finally:
        os.close(lock)
    try:
        folder.append_event("spawned", pid=worker.pid, create_time=create_time(worker.pid), device=device)
    except JobError:
        worker.kill()
        worker.wait()
        raise
    return worker
