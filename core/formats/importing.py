"""From rows to Arrow batches of examples, with a report."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any

import pyarrow as pa

from core.example import Example, content_hash, folded_hash
from core.formats.json_rows import kind_of
from core.formats.report import EMPTY_RESPONSE, ImportReport
from core.formats.rows import BadRow, RawRow, Source, excerpt
from core.formats.shapes import Mapped, Shape, apply_mapping, check_mapping
from core.formats.values import Conversions, RowRefusedError, is_empty

EXAMPLE_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("line", pa.int64(), nullable=False),
        pa.field("hash", pa.string(), nullable=False),
        pa.field("folded_hash", pa.string(), nullable=False),
        pa.field("instruction", pa.string(), nullable=False),
        pa.field("input", pa.string(), nullable=False),
        pa.field("output", pa.string(), nullable=False),
        pa.field("metadata", pa.string(), nullable=True),
    ]
)
"""``row``: place in the file from 0, unique and rising (a row of self-instruct data takes one place an instance, a bad
row one place too); ``line``: line of the file, or number of the row in Parquet, from 1; ``metadata``: JSON or null."""

Hashed = tuple[Mapped, str, str]
"""(texts and metadata, hash, folded hash) of one example."""

_BATCH_CHARS = 64 * 1024 * 1024
_HALF_CHARACTER = "a text holds half a character (a lone surrogate such as \\ud83d), which is no valid text."


def _row_excerpt(row: dict[str, Any]) -> str:
    parts = (f"{key}: {value[:80] if isinstance(value, str) else kind_of(value)}" for key, value in row.items())
    return excerpt("; ".join(parts))


def _read_row(mapping: Shape, raw: RawRow | BadRow, counts: Conversions) -> tuple[int, list[Hashed] | BadRow]:
    """(line, examples of the row, or why there is none)."""
    if isinstance(raw, BadRow):
        return raw.line, raw
    line, row = raw
    try:
        mapped = apply_mapping(mapping, row, counts)
        return line, [(item, content_hash(*item[:3]), folded_hash(*item[:3])) for item in mapped]
    except RowRefusedError as error:
        return line, BadRow(line, str(error), _row_excerpt(row))
    except UnicodeEncodeError:
        return line, BadRow(line, _HALF_CHARACTER, _row_excerpt(row))


def preview(source: Source, mapping: Shape, n: int = 10) -> list[tuple[int, Example | BadRow, str | None]]:
    """Map the first ``n`` rows: (line, example or why there is none, metadata as JSON).

    Raises:
        InputError: the mapping names a column that the source does not have.
    """
    check_mapping(source, mapping)
    counts = Conversions()
    shown: list[tuple[int, Example | BadRow, str | None]] = []
    for row in source.head(n):
        line, result = _read_row(mapping, row, counts)
        if isinstance(result, BadRow):
            shown.append((line, result, None))
        else:
            shown.extend((line, Example(*mapped[:3]), mapped[3]) for mapped, _, _ in result)
    return shown


class ExampleReader:
    """Record batches of EXAMPLE_SCHEMA, read once; ``report`` grows with them and is complete at the end."""

    schema = EXAMPLE_SCHEMA

    def __init__(
        self,
        source: Source,
        mapping: Shape,
        batch_rows: int,
        on_bad_row: Callable[[int, BadRow], None] = lambda row, bad: None,
        empty_response: str = EMPTY_RESPONSE,
    ) -> None:
        self.report = ImportReport(
            source=source.name,
            container=source.container,
            shape=mapping.name,
            notes=source.notes,
            empty_response=empty_response,
        )
        self._source = source
        self._mapping = mapping
        self._batch_rows = batch_rows
        self._on_bad_row = on_bad_row
        self._batches = self._read()

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return self

    def __next__(self) -> pa.RecordBatch:
        return next(self._batches)

    def close(self) -> None:
        """Close the file before the end is reached."""
        self._batches.close()

    def _read(self) -> Generator[pa.RecordBatch]:
        report, mapping = self.report, self._mapping
        columns: list[list[Any]] = [[] for _ in EXAMPLE_SCHEMA]
        position = 0
        chars = 0
        for raw in self._source.rows():
            report.rows_read += 1
            line, found = _read_row(mapping, raw, report.conversions)
            if isinstance(found, BadRow):
                report.add_bad_row(found)
                self._on_bad_row(position, found)
                position += 1
                continue
            for (instruction, input_text, output, metadata), exact, folded in found:
                report.add_example(line, exact, folded, empty_response=is_empty(output))
                values = (position, line, exact, folded, instruction, input_text, output, metadata)
                for column, value in zip(columns, values, strict=True):
                    column.append(value)
                position += 1
                chars += len(instruction) + len(input_text) + len(output) + len(metadata or "")
            if len(columns[0]) >= self._batch_rows or chars >= _BATCH_CHARS:
                yield _batch(columns)
                chars = 0
        if columns[0]:
            yield _batch(columns)


def _batch(columns: list[list[Any]]) -> pa.RecordBatch:
    """Make a batch of the columns and empty them."""
    arrays = [pa.array(column, type=field.type) for column, field in zip(columns, EXAMPLE_SCHEMA, strict=True)]
    for column in columns:
        column.clear()
    return pa.RecordBatch.from_arrays(arrays, schema=EXAMPLE_SCHEMA)


def read_examples(
    source: Source,
    mapping: Shape,
    *,
    batch_rows: int = 50_000,
    on_bad_row: Callable[[int, BadRow], None] = lambda row, bad: None,
    empty_response: str = EMPTY_RESPONSE,
) -> ExampleReader:
    """Read all rows of ``source`` as batches of EXAMPLE_SCHEMA.

    Iterate over the result once; its ``report`` is complete afterwards. A batch ends at ``batch_rows`` examples or
    64 million characters, whichever comes first. Bad rows are left out and stand in the report: whoever stores the
    batches calls ``report.require_no_bad_rows()`` before committing unless the user chose to skip them. ``on_bad_row``
    gets each of them with its place in the file (the report lists only the first ones). ``empty_response`` is what the
    report says of an example without an output.

    Raises:
        InputError: the mapping names a column that the source does not have; while iterating: the rest of the file
            cannot be read.
    """
    check_mapping(source, mapping)
    return ExampleReader(source, mapping, batch_rows, on_bad_row, empty_response)
