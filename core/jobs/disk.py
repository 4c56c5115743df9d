"""Writing files so that a crash or a full disk leaves the old state or the new one, never a half of it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from core.errors import JobError

# EFBIG is what a per-process limit on file size gives: for the person at the page it is the same trouble.
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_disk_full(error: OSError) -> bool:
    """Tell whether a write failed for want of space (a quota and a limit on file size count too)."""
    return error.errno in _DISK_FULL


def disk_error(error: OSError, *, doing: str, then: str = "resume the job") -> JobError:
    """Return the error in plain words: ``doing`` completes "... could not be written", ``then`` says what to do."""
    if is_disk_full(error):
        return JobError(f"{doing} could not be written: the disk is full. Free some space, then {then}.")
    return JobError(f"{doing} could not be written: {error.strerror or error}.")


def sync_directory(path: Path) -> None:
    """Make a rename inside ``path`` outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_synced(path: Path, text: str) -> None:
    """Write a small text file and wait until it is on the disk."""
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
