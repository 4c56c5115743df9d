"""Rows of tables: CSV, TSV and Parquet."""

from __future__ import annotations

import codecs
import csv
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from core.errors import InputError
from core.formats.json_rows import Opener, numbered_lines, too_long, utf8_problem
from core.formats.rows import MAX_ROW_SIZE, BadRow, Reading, Rows, excerpt

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

DELIMITERS = {",": "comma", "\t": "tab", ";": "semicolon"}
_BATCH_BYTES = 16 * 1024 * 1024
_BATCH_ROWS = 4096


class _Lines:
    """Decoded lines of a stream; remembers what was not UTF-8 since it was last asked."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._lines = numbered_lines(stream)
        self._name = name
        self.number = 0
        self._problem: str | None = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self.number, offset, data = next(self._lines)
        if self.number == 1:
            data = data.removeprefix(codecs.BOM_UTF8)
        if too_long(data):
            raise InputError(
                f"{self._name}, line {self.number}: the line is longer than {MAX_ROW_SIZE // 2**20} MB, "
                "which no row of a dataset is. Check that the file is a table."
            )
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            self._problem = self._problem or utf8_problem(error, offset)
            return data.decode("utf-8", "replace")

    def take_problem(self) -> str | None:
        """What was not UTF-8 since the last call, or None."""
        problem, self._problem = self._problem, None
        return problem


def _csv_reason(error: csv.Error, start: int, end: int) -> str:
    message = str(error)
    if "unexpected end of data" in message:
        return f"a quote that opens in this row is never closed: lines {start:,} to {end:,} were read as one field."
    if "field larger" in message:
        return f"a field is longer than {MAX_ROW_SIZE // 2**20} MB; a quote is probably never closed."
    if "new-line character" in message:
        return "a bare carriage return stands outside quotes; save the file with ordinary line ends."
    if "expected after" in message:
        return 'a quote stands inside a quoted field; double it ("") there.'
    return f"it cannot be read as a row of a table: {message}."


def read_header(opener: Opener, name: str, delimiter: str) -> tuple[list[str], list[str]]:
    """Return (names of the columns, notes) of a CSV or TSV file.

    Raises:
        InputError: there is no header, two columns have one name, or it is not UTF-8.
    """
    csv.field_size_limit(MAX_ROW_SIZE)
    with opener() as stream:
        lines = _Lines(stream, name)
        try:
            names = next((fields for fields in csv.reader(lines, delimiter=delimiter, strict=True) if fields), [])
        except csv.Error as error:
            raise InputError(f"{name}, line 1: {_csv_reason(error, 1, lines.number)}") from error
        problem = lines.take_problem()
    if problem:
        raise InputError(f"{name}, line {lines.number}: {problem}.")
    names = [column.strip() for column in names]
    notes = []
    for index, column in enumerate(names):
        if not column:
            names[index] = f"column_{index + 1}"
            notes.append(f"Column {index + 1} has no name in the header; it is called column_{index + 1}.")
    refuse_duplicates(names, name)
    return names, notes


def refuse_duplicates(columns: Sequence[str], name: str) -> None:
    """Raise InputError if two columns have the same name."""
    double = [repr(column) for column, count in Counter(columns).items() if count > 1]
    if double:
        raise InputError(
            f"{name}: more than one column is called {', '.join(double)}. Give every column its own name in the header."
        )


def csv_rows(opener: Opener, name: str, *, delimiter: str, columns: Sequence[str]) -> Rows:
    """Rows of a CSV or TSV file below its header. Quoted fields may hold delimiters and line breaks."""
    csv.field_size_limit(MAX_ROW_SIZE)
    with opener() as stream:
        lines = _Lines(stream, name)
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        header_seen = False
        while True:
            start = lines.number + 1
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                lines.take_problem()
                yield BadRow(start, _csv_reason(error, start, lines.number))
                continue
            problem = lines.take_problem()
            if not fields:
                continue
            if not header_seen:
                header_seen = True
            elif problem:
                yield BadRow(start, problem + ".", excerpt(delimiter.join(fields)))
            elif len(fields) != len(columns):
                reason = f"it has {len(fields)} fields, but the header has {len(columns)}."
                yield BadRow(start, reason, excerpt(delimiter.join(fields)))
            else:
                yield start, dict(zip(columns, fields, strict=True))


def open_parquet(path: Path, opener: Opener, name: str, *, gzipped: bool) -> pq.ParquetFile:
    """Open a Parquet file, unpacked first if it is gzipped.

    Raises:
        InputError: it is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    source: Any = path
    if gzipped:
        # Parquet is read from its end, so it must be unpacked to disk first; the file vanishes when it is closed.
        source = tempfile.TemporaryFile()  # noqa: SIM115
        with opener() as stream:
            shutil.copyfileobj(stream, source, 1024 * 1024)
        source.seek(0)
    try:
        return pq.ParquetFile(source, pre_buffer=False, buffer_size=1024 * 1024)
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{name} is not a readable Parquet file ({_first_line(error)}). It was probably cut off: get it again."
        ) from error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def parquet_columns(opened: Callable[[], pq.ParquetFile], name: str) -> list[str]:
    """Names of the columns.

    Raises:
        InputError: the file is damaged, or two columns have one name.
    """
    with opened() as parquet:
        columns: list[str] = parquet.schema_arrow.names
    refuse_duplicates(columns, name)
    return columns


def _batch_rows(parquet: pq.ParquetFile) -> int:
    """Rows a batch, so that a batch stays near 16 MB whatever the rows are like."""
    meta = parquet.metadata
    size = sum(meta.row_group(index).total_byte_size for index in range(meta.num_row_groups))
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES * max(meta.num_rows, 1) // max(size, 1)))


def _rows_of_batch(batch: pa.RecordBatch, first: int) -> Rows:
    """Rows of a batch; if a value has no Python form the rows are taken one by one to find which."""
    import pyarrow as pa

    refused = (ValueError, OverflowError, ArithmeticError, ImportError, pa.ArrowException)
    try:
        yield from enumerate(batch.to_pylist(), start=first)
        return
    except refused:
        pass
    for index in range(batch.num_rows):
        try:
            fields = batch.slice(index, 1).to_pylist()[0]
        except refused as error:
            yield BadRow(first + index, f"a value of it cannot be read: {_first_line(error)}.")
        else:
            yield first + index, fields


def parquet_rows(opened: Callable[[], pq.ParquetFile], name: str, reading: Reading) -> Rows:
    """Rows of a Parquet file, numbered from 1. Memory is that of a batch, not of a row group."""
    import pyarrow as pa

    with opened() as parquet:
        number = 1
        reading.done, reading.total = 0, parquet.metadata.num_rows
        try:
            for batch in parquet.iter_batches(batch_size=_batch_rows(parquet), use_threads=False):
                yield from _rows_of_batch(batch, number)
                number += batch.num_rows
                reading.done += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise InputError(
                f"{name}, after row {number - 1:,}: the data is damaged ({_first_line(error)}). Get the file again."
            ) from error
