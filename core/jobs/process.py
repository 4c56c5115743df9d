"""Worker processes: is this one still ours and alive, and how to signal it with all it started.

A pid alone says little: after the worker's death the system gives the number to somebody else. So a worker is known by
its pid and its creation time, by a scheduler that did not start it too.
"""

from __future__ import annotations

import os
import signal

import psutil

# The kernel derives creation times from the boot time, which moves by a second when the clock is corrected.
_SAME_TIME_SECONDS = 2.0

# A worker's environment, and so that of all it starts, says which job folder it belongs to.
MARK_VARIABLE = "ASSAY_JOB_FOLDER"


def create_time(pid: int) -> float | None:
    """Return when the process was created, in seconds since 1970, or None where there is none."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return None


def is_alive(pid: int, created: float) -> bool:
    """Tell whether this very process still runs; a zombie does not, nor does a later owner of the pid."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - created) < _SAME_TIME_SECONDS and _runs(process)
    except psutil.NoSuchProcess:
        return False


def _runs(process: psutil.Process) -> bool:
    # A process whose first thread ended reads as a zombie while its other threads go on, as for a moment after SIGKILL.
    ended = process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    return not ended or process.num_threads() > 1


def worker_processes(pid: int, created: float, *, mark: str) -> list[psutil.Process]:
    """Return the living processes of a worker: it and its process group.

    A worker leads its own session. When it is gone, what is left of the session is found by its number; but a session
    of a stranger can have that number by now, so then a process counts only with ``mark`` as its ``MARK_VARIABLE``.
    A worker started by hand leads no group: then it and its children count.
    """
    leader_created = create_time(pid)
    if leader_created is not None and abs(leader_created - created) >= _SAME_TIME_SECONDS:
        return []  # the number belongs to a stranger, so nothing of our group is left
    needed = mark if leader_created is None else None
    found = [process for process in psutil.process_iter() if _belongs(process, pid, mark=needed)]
    if found or not is_alive(pid, created):
        return found
    try:
        worker = psutil.Process(pid)
        return [worker, *worker.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _belongs(process: psutil.Process, pid: int, *, mark: str | None) -> bool:
    try:
        if os.getpgid(process.pid) != pid or not _runs(process):
            return False
        return mark is None or process.environ().get(MARK_VARIABLE) == mark
    except (ProcessLookupError, PermissionError, psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def signal_worker(pid: int, created: float, number: signal.Signals, *, mark: str) -> bool:
    """Send a signal to a worker's whole process group; tell whether there was anything to send it to."""
    members = worker_processes(pid, created, mark=mark)
    try:
        if any(os.getpgid(member.pid) == pid for member in members):
            os.killpg(pid, number)  # one call: a member that forks meanwhile cannot slip through
        else:
            for member in members:
                member.send_signal(number)
    except (ProcessLookupError, psutil.NoSuchProcess):
        pass  # it ended between the look and the signal, which is what was wanted
    return bool(members)
