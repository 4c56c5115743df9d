"""Parquet files of a job folder: written and read in row groups, so that no more than one of them is in memory."""

from __future__ import annotations

import bisect
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from core.errors import JobError
from core.jobs.secrets import redact, secret_values

GROUP_ROWS = 8192


class RowReader:
    """Reads ranges of rows from a file of row groups and keeps the group that it read last."""

    def __init__(
        self, file: pq.ParquetFile, columns: Sequence[str] | None, *, damaged: Callable[[Exception], JobError]
    ) -> None:
        self._file = file
        self._columns = None if columns is None else list(columns)
        self._damaged = damaged
        self._starts = [0]
        for group in range(file.num_row_groups):
            self._starts.append(self._starts[-1] + file.metadata.row_group(group).num_rows)
        self._group: tuple[int, pa.Table] | None = None

    def read(self, start: int, stop: int) -> pa.Table:
        """The rows from ``start`` to ``stop``.

        Raises:
            JobError: the file is damaged.
        """
        first = max(0, bisect.bisect_right(self._starts, start) - 1)
        parts = []
        for group in range(first, self._file.num_row_groups):
            begin = self._starts[group]
            if begin >= stop:
                break
            low, high = max(start, begin), min(stop, self._starts[group + 1])
            parts.append(self._read(group).slice(low - begin, high - low))
        return pa.concat_tables(parts) if parts else self._file.schema_arrow.empty_table()

    def _read(self, group: int) -> pa.Table:
        if self._group is None or self._group[0] != group:
            self._group = None  # two groups never lie in memory together
            try:
                self._group = group, self._file.read_row_group(group, columns=self._columns)
            except (OSError, pa.ArrowException) as error:
                raise self._damaged(error) from error
        return self._group[1]


def write_batches(path: Path, data: pa.Table | pa.RecordBatchReader, *, group_rows: int = GROUP_ROWS) -> int:
    """Write a table or the batches of a reader in row groups of ``group_rows``; return the number of rows."""
    n_rows = 0
    waiting: list[pa.RecordBatch] = []
    with path.open("wb") as file:
        with pq.ParquetWriter(file, data.schema, compression="zstd") as writer:

            def flush(*, last: bool) -> None:
                table = pa.Table.from_batches(waiting, schema=data.schema)
                whole = table.num_rows if last else table.num_rows // group_rows * group_rows
                if whole:
                    writer.write_table(table.slice(0, whole), row_group_size=group_rows)
                # A copy: a slice would keep all that was written in memory.
                waiting[:] = table.slice(whole).combine_chunks().to_batches()

            for batch in data.to_batches() if isinstance(data, pa.Table) else data:
                n_rows += batch.num_rows
                waiting.append(batch)
                if sum(one.num_rows for one in waiting) >= group_rows:
                    flush(last=False)
            flush(last=True)
        file.flush()
        os.fsync(file.fileno())
    return n_rows


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table and wait until it is on the disk."""
    with path.open("wb") as file:
        pq.write_table(table, file, compression="zstd")
        file.flush()
        os.fsync(file.fileno())


def read_table(path: Path, *, job_id: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a table, or some columns of it.

    Raises:
        JobError: the file is missing or damaged.
    """
    with opened(path, job_id=job_id) as file:
        try:
            return file.read(columns=None if columns is None else list(columns))
        except (OSError, pa.ArrowException) as error:
            raise damaged(path, job_id, error) from error


def opened(path: Path, *, job_id: str) -> pq.ParquetFile:
    """Open a file.

    Raises:
        JobError: it is missing or damaged.
    """
    try:
        return pq.ParquetFile(path)
    except FileNotFoundError as error:
        raise JobError(f"{path.name} of job {job_id} is missing.") from error
    except (OSError, pa.ArrowException) as error:
        raise damaged(path, job_id, error) from error


def damaged(path: Path, job_id: str, error: Exception) -> JobError:
    """The error about a file that cannot be read, with the remedy where there is one."""
    remedy = "" if path.stem in ("input", "base") else f" Delete {path}, then resume the job to make it again."
    return JobError(f"{path.name} of job {job_id} is damaged: {error}.{remedy}")


def redacted_reasons(table: pa.Table) -> pa.Table:
    """The table with secrets of the environment redacted in its column ``reason``, where error messages travel."""
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
