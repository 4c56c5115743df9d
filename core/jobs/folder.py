"""A job folder: the only file that knows the names inside one.

    jobs/<job id>/
        spec.json        what was asked (never changed)
        input.parquet    the rows it was asked about
        events.jsonl     what happened, told by server and worker
        worker.log       what the worker printed
        answers.jsonl    raw answers of a teacher, as they came
        shards/00007.parquet   what was produced (00007.partial while it is written)
        worker.lock      held by the living worker

Nothing else is kept anywhere: state, speed and errors are derived from these files.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from core.errors import JobError
from core.jobs.disk import disk_error, sync_directory, write_synced
from core.jobs.events import EventReader, append_line, timestamp
from core.jobs.secrets import redact, secret_values
from core.jobs.spec import JobSpec
from core.jobs.status import JobStatus, fold
from core.jobs.watch import JobWatch

_SHARD = re.compile(r"(\d{5,})\.parquet")
_LOG_BLOCK_BYTES = 1 << 16
_LOG_SEARCH_BYTES = 16 << 20

# Siblings of job folders that a scan passes over: a folder being made, and one being removed.
HALF_MADE = ".making-"
HALF_REMOVED = ".removing-"


class JobFolder:
    """One job's folder. Cheap to make: holds the path only, so any thread or process may have its own."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._shards = self.path / "shards"
        self._input = self.path / "input.parquet"
        self._answers = self.path / "answers.jsonl"
        self.spec_path = self.path / "spec.json"
        self.events_path = self.path / "events.jsonl"
        self.log_path = self.path / "worker.log"
        self.lock_path = self.path / "worker.lock"

    def __repr__(self) -> str:
        return f"JobFolder({str(self.path)!r})"

    @property
    def job_id(self) -> str:
        """The name of the folder."""
        return self.path.name

    @property
    def mark(self) -> str:
        """What marks the processes of this job: see :data:`core.jobs.process.MARK_VARIABLE`."""
        return str(self.path.resolve())

    @classmethod
    def create(cls, path: Path | str, spec: JobSpec, input_table: pa.Table) -> JobFolder:
        """Make the folder of a new job, whole or not at all: a half-made one is never seen under its name.

        ``input_table`` has ``spec.n_rows`` rows and an int64 column ``example_id``.

        Raises:
            JobError: the folder exists, the table does not fit the spec, a parameter looks like a secret, or the disk
                is full.
        """
        target = Path(path)
        text = spec.to_json()
        _check_input(target, spec, input_table)
        made = cls(target.parent / f"{HALF_MADE}{target.name}-{uuid.uuid4().hex}")
        try:
            made._shards.mkdir(parents=True)
            _write_table(made._input, input_table)
            write_synced(made.spec_path, text)
            made.append_event("submitted")
            sync_directory(made.path)
            if target.exists():
                raise JobError(f"There is a job folder {target.name} already.")
            made.path.rename(target)
            sync_directory(target.parent)
        except OSError as error:
            raise disk_error(error, doing=f"The folder of job {spec.job_id}", then="submit it again") from error
        finally:
            shutil.rmtree(made.path, ignore_errors=True)  # nothing is there once it was renamed
        return cls(target)

    def remove(self) -> None:
        """Delete the folder; it is gone from its name at once, even if deleting it is cut short.

        Raises:
            JobError: it cannot be deleted.
        """
        doomed = self.path.with_name(f"{HALF_REMOVED}{self.job_id}-{uuid.uuid4().hex}")
        try:
            self.path.rename(doomed)
            shutil.rmtree(doomed)
        except FileNotFoundError:
            return
        except OSError as error:
            raise JobError(
                f"The folder of job {self.job_id} could not be deleted: {error.strerror or error}."
            ) from error

    def spec(self) -> JobSpec:
        """Read what was asked.

        Raises:
            JobError: the file is missing or damaged, or belongs to another folder.
        """
        try:
            text = self.spec_path.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise JobError(f"Job folder {self.job_id} is damaged: it has no {self.spec_path.name}.") from error
        except (OSError, UnicodeDecodeError) as error:
            raise JobError(f"The {self.spec_path.name} of job {self.job_id} cannot be read: {error}.") from error
        spec = JobSpec.from_json(text)
        if spec.job_id != self.job_id:
            raise JobError(f"Job folder {self.job_id} holds the {self.spec_path.name} of another job, {spec.job_id}.")
        return spec

    def input_table(self, *, columns: Sequence[str] | None = None) -> pa.Table:
        """Read the rows that the job is about, or some columns of them. The first is row 0 of shard 0.

        Raises:
            JobError: the file is missing or damaged.
        """
        return _read_table(self._input, job_id=self.job_id, columns=columns)

    def shard_ranges(self) -> list[tuple[int, int, int]]:
        """Return ``(index, start, stop)`` of each shard, in rows of the input table."""
        spec = self.spec()
        return [spec.shard_range(index) for index in range(spec.n_shards)]

    def shard_path(self, index: int) -> Path:
        """Return where the finished shard lies, or will."""
        return self._shards / f"{index:05d}.parquet"

    def finished_shards(self) -> set[int]:
        """Return the indexes of the shards that are on the disk, whole."""
        try:
            with os.scandir(self._shards) as entries:
                matches = [_SHARD.fullmatch(entry.name) for entry in entries]
        except FileNotFoundError:
            return set()
        return {int(match[1]) for match in matches if match}

    def read_shard(self, index: int) -> pa.Table:
        """Read one finished shard.

        Raises:
            JobError: it is missing or damaged; the message says how to have it made again.
        """
        return _read_table(self.shard_path(index), job_id=self.job_id)

    def write_shard(self, index: int, table: pa.Table) -> None:
        """Write one shard: it appears whole under its name, on the disk, or not at all. Tells it as an event.

        Report the errors of its rows (``Progress.row_errors``) before. Values of secret environment variables are
        redacted in a column ``reason``, where error messages travel.

        Raises:
            JobError: there is no such shard, it is finished already, or it cannot be written (a full disk is named;
                what was written of it is removed).
        """
        spec = self.spec()
        if not 0 <= index < spec.n_shards:
            raise JobError(f"Job {self.job_id} has shards 0 to {spec.n_shards - 1}, so no shard {index}.")
        final = self.shard_path(index)
        if final.exists():
            raise JobError(f"Shard {index} of job {self.job_id} is finished already.")
        partial = final.with_suffix(".partial")
        _, start, stop = spec.shard_range(index)
        try:
            _write_table(partial, _redacted_reasons(table))
            partial.replace(final)
            sync_directory(self._shards)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise disk_error(error, doing=f"Shard {index} (rows {start + 1} to {stop}) of job {self.job_id}") from error
        done_rows = spec.rows_in(self.finished_shards())
        self.append_event("shard", index=index, n_rows=stop - start, done_rows=done_rows)

    def remove_partials(self) -> None:
        """Delete what a killed worker left half written. Only the worker that holds the lock may do so."""
        for partial in self._shards.glob("*.partial"):
            partial.unlink(missing_ok=True)

    def append_event(self, event: str, **fields: Any) -> None:
        """Append one event with the time now; secrets of the environment are redacted. Safe in a signal handler.

        Raises:
            JobError: it cannot be written.
        """
        append_line(self.events_path, {"at": timestamp(), "event": event, **fields})

    def events(self) -> list[dict[str, Any]]:
        """Return all events; a torn line is skipped."""
        return EventReader(self.events_path).read()

    def status(self, now: float | None = None) -> JobStatus:
        """Return the status at ``now`` (seconds since 1970; default: the clock), reading all events.

        To ask again and again keep one :class:`core.jobs.watch.JobWatch`.
        """
        return JobWatch(self).status(now)

    def row_errors(self) -> dict[str, list[int]]:
        """Return the failed rows: reason -> example ids, sorted, each once."""
        return fold(self.events()).reasons()

    def append_answer(self, answer: dict[str, Any]) -> None:
        """Keep one raw answer of a teacher: on the disk when this returns, so that it is never paid for twice.

        Raises:
            JobError: it cannot be written.
        """
        append_line(self._answers, answer, sync=True)

    def answers(self) -> list[dict[str, Any]]:
        """Return all answers kept so far; a torn line is skipped."""
        return EventReader(self._answers).read()

    def log_tail(self, n_lines: int = 200, *, search: str | None = None) -> list[str]:
        """Return the last lines of the worker's log, oldest first; with ``search`` those that hold it in any case.

        A search looks at the last 16 MB. A line redrawn with carriage returns (a progress bar) shows its last state.
        """
        wanted = (search or "").casefold()
        found: list[str] = []
        with contextlib.closing(_lines_backwards(self.log_path)) as lines:
            for line in lines:
                if len(found) >= n_lines:
                    break
                text = line.decode("utf-8", errors="replace").rstrip("\r").rpartition("\r")[2]
                if wanted in text.casefold():
                    found.append(text)
        return found[::-1]

    def try_lock(self) -> int | None:
        """Take the worker lock; return its descriptor, or None while a worker holds it.

        The scheduler takes it and the worker inherits it, so there is no moment at which a second worker could start on
        the folder; the system lets go of it when the worker dies, however it dies.

        Raises:
            JobError: the lock file cannot be opened.
        """
        try:
            descriptor = os.open(self.lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise disk_error(error, doing=f"The lock of job {self.job_id}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor


def _check_input(path: Path, spec: JobSpec, table: pa.Table) -> None:
    if path.name != spec.job_id:
        raise JobError(f"The folder of job {spec.job_id} must have its name, not {path.name}.")
    if table.num_rows != spec.n_rows:
        raise JobError(f"Job {spec.job_id} says {spec.n_rows} rows, but its input has {table.num_rows}.")
    if "example_id" not in table.column_names or table.schema.field("example_id").type != pa.int64():
        raise JobError(f"The input of job {spec.job_id} has no int64 column example_id.")


def _write_table(path: Path, table: pa.Table) -> None:
    with path.open("wb") as file:
        pq.write_table(table, file, compression="zstd")
        file.flush()
        os.fsync(file.fileno())


def _read_table(path: Path, *, job_id: str, columns: Sequence[str] | None = None) -> pa.Table:
    place = f"{path.name} of job {job_id}"
    try:
        with pq.ParquetFile(path) as file:
            return file.read(columns=None if columns is None else list(columns))
    except FileNotFoundError as error:
        raise JobError(f"{place} is missing.") from error
    except (OSError, pa.ArrowException) as error:
        remedy = "" if path.stem == "input" else f" Delete {path}, then resume the job to make it again."
        raise JobError(f"{place} is damaged: {error}.{remedy}") from error


def _redacted_reasons(table: pa.Table) -> pa.Table:
    if "reason" not in table.column_names or not secret_values(os.environ):
        return table
    position = table.column_names.index("reason")
    reasons = table.column(position)
    if not (pa.types.is_string(reasons.type) or pa.types.is_large_string(reasons.type)):
        return table
    # Reasons repeat, so the distinct ones are few.
    encoded = pc.dictionary_encode(reasons.combine_chunks())
    clean = pa.array([redact(text) for text in encoded.dictionary.to_pylist()], type=reasons.type)
    return table.set_column(position, "reason", clean.take(encoded.indices))


def _lines_backwards(path: Path) -> Generator[bytes, None, None]:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        position = file.seek(0, os.SEEK_END)
        stop = max(0, position - _LOG_SEARCH_BYTES)
        rest: bytes | None = None
        while position > stop:
            size = min(_LOG_BLOCK_BYTES, position - stop)
            position -= size
            file.seek(position)
            block = file.read(size) + (rest or b"")
            if rest is None:
                block = block.removesuffix(b"\n")
            first, *lines = block.split(b"\n")
            yield from reversed(lines)
            rest = first
        if rest is not None:
            yield rest
