"""Write a curated set to a file, the same bytes for the same rows, and say in a manifest what it is.

Nothing in the data file depends on when or by whom it was written: that stands in the manifest alone. Parquet is equal
as long as the version of pyarrow is.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import itertools
import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from core import __version__
from core.errors import InputError, StoreError
from core.example import Example
from core.formats.chat import Conversation, find_turns, read_conversation
from core.formats.report import csv_cell
from core.formats.values import Conversions, RowRefusedError

_ROW_GROUP_ROWS = 10_000
_SHAREGPT_ROLES = {"user": "human", "assistant": "gpt"}
_TEXT_COLUMNS = ("instruction", "input", "output")
_ALL_COLUMNS = (*_TEXT_COLUMNS, "verdict", "source", "metadata")
_PARQUET_SCHEMA = pa.schema([pa.field(name, pa.string(), nullable=name == "metadata") for name in _ALL_COLUMNS])


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRow:
    """One example to be written.

    ``metadata``  JSON of the member it came from, or None; for chat data the raw row, with the earlier turns
    ``verdict``   what was decided: accepted, edited, rejected, undecided, …
    ``source``    where the text comes from: original, or the method that made it
    """

    example: Example
    metadata: str | None = None
    verdict: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """What was written. ``dataset_digest``: SHA-256 over the examples' hashes in order, whatever the format."""

    path: Path
    format: str
    sha256: str
    n_rows: int
    n_bytes: int
    dataset_digest: str
    n_by_verdict: Mapping[str, int]
    n_by_source: Mapping[str, int]
    notes: tuple[str, ...] = ()


@dataclass
class _Tally:
    """Counts that grow while rows go by."""

    n_rows: int = 0
    digest: Any = field(default_factory=hashlib.sha256)
    verdicts: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)

    def watch(self, rows: Iterable[ExportRow]) -> Iterator[ExportRow]:
        for row in rows:
            self.n_rows += 1
            self.digest.update(row.example.hash.encode() + b"\n")
            self.verdicts[row.verdict] += 1
            self.sources[row.source] += 1
            yield row


def dataset_digest(hashes: Iterable[str]) -> str:
    """SHA-256 in hexadecimal over content hashes in order, each followed by a line feed."""
    digest = hashlib.sha256()
    for one in hashes:
        digest.update(one.encode() + b"\n")
    return digest.hexdigest()


# ---- what one row becomes ----


def _parsed_metadata(row: ExportRow) -> Any:
    if row.metadata is None:
        return None
    try:
        return json.loads(row.metadata)
    except ValueError as error:
        raise InputError(f"The metadata of example {row.example.hash[:12]} is no JSON: {error}.") from error


def alpaca_record(example: Example) -> dict[str, str]:
    """The three fields of an Alpaca row."""
    return {"instruction": example.instruction, "input": example.input, "output": example.output}


def _full_record(row: ExportRow) -> dict[str, Any]:
    return alpaca_record(row.example) | {
        "verdict": row.verdict,
        "source": row.source,
        "metadata": _parsed_metadata(row),
    }


def _kept_conversation(row: ExportRow) -> tuple[list[Mapping[str, Any]], tuple[str, str], Conversation] | None:
    """(raw turns, style, conversation) if the metadata keeps a conversation whose earlier turns are the row's c."""
    metadata = _parsed_metadata(row)
    found = find_turns(metadata) if isinstance(metadata, dict) else None
    if found is None:
        return None
    column, style = found
    try:
        talk = read_conversation(metadata[column], column, style, Conversions())
    except RowRefusedError:
        return None
    return (metadata[column], style, talk) if talk.earlier == row.example.input else None


def _user_text(example: Example) -> str:
    return "\n\n".join(part for part in (example.instruction, example.input) if part)


def chat_turns(row: ExportRow, *, speaker: str, text: str) -> list[dict[str, Any]]:
    """The turns of a row for ShareGPT (from/value) or messages (role/content).

    Earlier turns that the metadata keeps are written back, and an unchanged conversation comes back whole. Otherwise
    the user turn is the instruction and the input with an empty line between them.
    """
    example = row.example
    roles = _SHAREGPT_ROLES if speaker == "from" else {}
    kept = _kept_conversation(row)
    if kept is None:
        turns = [("user", _user_text(example)), ("assistant", example.output)]
        return [{speaker: roles.get(role, role), text: words} for role, words in turns]
    raw, style, talk = kept
    unchanged = (talk.instruction, talk.output) == (example.instruction, example.output)
    # What was said after the response answered the old one, so it goes when anything was changed.
    end = len(talk.turns) if unchanged else talk.assistant + 1
    changed = {talk.user: (talk.instruction, example.instruction), talk.assistant: (talk.output, example.output)}
    written: list[dict[str, Any]] = []
    for index, turn in enumerate(talk.turns[:end]):
        before, after = changed.get(index, (turn.text, turn.text))
        if style == (speaker, text):
            written.append(dict(raw[index]) if before == after else {**raw[index], text: after})
        else:
            written.append({speaker: roles.get(turn.role, turn.role), text: after})
    return written


# ---- writers: rows -> an open file ----

_MERGED = "row(s) have an input that stands in the user turn, after the instruction and an empty line."
_DISARMED = "cell(s) begin with = + - @ tab or CR and got a leading apostrophe, so that no spreadsheet runs them."


def _json_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _write_list(records: Iterable[Any], stream: TextIO) -> None:
    """A JSON list with one record a line."""
    stream.write("[")
    for number, record in enumerate(records):
        stream.write(("," if number else "") + "\n" + _json_text(record))
    stream.write("\n]\n")


def _text_stream(stream: BinaryIO) -> contextlib.AbstractContextManager[TextIO]:
    return open(stream.fileno(), "w", encoding="utf-8", newline="", closefd=False)


def _write_alpaca(rows: Iterator[ExportRow], stream: BinaryIO, notes: Counter[str]) -> None:
    with _text_stream(stream) as text:
        _write_list((alpaca_record(row.example) for row in rows), text)


def _write_jsonl(rows: Iterator[ExportRow], stream: BinaryIO, notes: Counter[str]) -> None:
    with _text_stream(stream) as text:
        for row in rows:
            text.write(_json_text(_full_record(row)) + "\n")


def _write_chat(
    rows: Iterator[ExportRow], stream: BinaryIO, notes: Counter[str], *, column: str, speaker: str, text: str
) -> None:
    def records() -> Iterator[dict[str, Any]]:
        for row in rows:
            turns = chat_turns(row, speaker=speaker, text=text)
            notes[_MERGED] += bool(row.example.input) and turns[0][text] == _user_text(row.example)
            yield {column: turns}

    with _text_stream(stream) as out:
        if column == "conversations":
            _write_list(records(), out)
        else:
            out.writelines(_json_text(record) + "\n" for record in records())


def _write_sharegpt(rows: Iterator[ExportRow], stream: BinaryIO, notes: Counter[str]) -> None:
    _write_chat(rows, stream, notes, column="conversations", speaker="from", text="value")


def _write_messages(rows: Iterator[ExportRow], stream: BinaryIO, notes: Counter[str]) -> None:
    _write_chat(rows, stream, notes, column="messages", speaker="role", text="content")


def _flat(row: ExportRow) -> tuple[str, str, str, str, str, str | None]:
    example = row.example
    return (example.instruction, example.input, example.output, row.verdict, row.source, row.metadata)


def _write_parquet(rows: Iterator[ExportRow], stream: BinaryIO, notes: Counter[str]) -> None:
    with pq.ParquetWriter(stream, _PARQUET_SCHEMA, version="2.6", compression="zstd", compression_level=3) as writer:
        while chunk := [_flat(row) for row in itertools.islice(rows, _ROW_GROUP_ROWS)]:
            columns = [pa.array(column, type=pa.string()) for column in zip(*chunk, strict=True)]
            writer.write_table(pa.Table.from_arrays(columns, schema=_PARQUET_SCHEMA), row_group_size=_ROW_GROUP_ROWS)


def _write_csv(rows: Iterator[ExportRow], stream: BinaryIO, notes: Counter[str]) -> None:
    with _text_stream(stream) as text:
        writer = csv.writer(text)
        writer.writerow(_ALL_COLUMNS)
        for row in rows:
            cells = ["" if cell is None else cell for cell in _flat(row)]
            safe = [csv_cell(cell) for cell in cells]
            notes[_DISARMED] += sum(one != other for one, other in zip(cells, safe, strict=True))
            writer.writerow(safe)


_Writer = Callable[[Iterator[ExportRow], BinaryIO, "Counter[str]"], None]


@dataclass(frozen=True)
class ExportFormat:
    """A file format to choose from; ``describes`` says in a sentence what a row holds."""

    key: str
    title: str
    extension: str
    describes: str
    write: _Writer = field(repr=False)


FORMATS: tuple[ExportFormat, ...] = (
    ExportFormat("alpaca", "Alpaca JSON", ".json", "A list of instruction, input and output.", _write_alpaca),
    ExportFormat(
        "jsonl", "JSON Lines", ".jsonl", "The three texts, the verdict, the source and the metadata.", _write_jsonl
    ),
    ExportFormat("sharegpt", "ShareGPT", ".json", "A list of conversations of from and value.", _write_sharegpt),
    ExportFormat("messages", "Messages", ".jsonl", "A line a conversation, of role and content.", _write_messages),
    ExportFormat(
        "parquet", "Parquet", ".parquet", "The three texts, the verdict, the source and the metadata.", _write_parquet
    ),
    ExportFormat("csv", "CSV", ".csv", "The same columns; what looks like a formula gets an apostrophe.", _write_csv),
)


def export_format(key: str) -> ExportFormat:
    """Return the format called ``key``.

    Raises:
        InputError: there is none; the message lists them.
    """
    for one in FORMATS:
        if one.key == key:
            return one
    raise InputError(f"There is no export format {key!r}. Choose one of: {', '.join(one.key for one in FORMATS)}.")


# ---- to the disk ----


@contextlib.contextmanager
def _atomic(path: Path) -> Iterator[BinaryIO]:
    """Open a new file beside ``path`` that takes its place at the end, or vanishes if anything fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name[:40]}.", delete=False) as stream:
            partial = Path(stream.name)
            try:
                yield stream  # type: ignore[misc]
                stream.flush()
                os.fsync(stream.fileno())
                partial.chmod(0o644)
                partial.replace(path)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise StoreError(
            f"{path.name} could not be written: {error.strerror or error}. Nothing was left behind; make room or "
            "choose another folder, then export again."
        ) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_export(rows: Iterable[ExportRow], *, format: str, path: Path) -> ExportResult:
    """Write ``rows`` in order to ``path``: whole or not at all, the same bytes for the same rows.

    A file that stands there is replaced at the end. ``format`` is a key of FORMATS.

    Raises:
        InputError: there is no such format, or metadata is no JSON.
        StoreError: the file cannot be written (disk full, no permission); nothing is left behind.
    """
    chosen = export_format(format)
    tally = _Tally()
    with _atomic(path) as stream:
        chosen.write(tally.watch(rows), stream, tally.notes)
    return ExportResult(
        path=path,
        format=format,
        sha256=_sha256(path),
        n_rows=tally.n_rows,
        n_bytes=path.stat().st_size,
        dataset_digest=tally.digest.hexdigest(),
        n_by_verdict=dict(sorted(tally.verdicts.items())),
        n_by_source=dict(sorted(tally.sources.items())),
        notes=tuple(f"{count:,} {what}" for what, count in tally.notes.items() if count),
    )


def manifest(
    result: ExportResult,
    *,
    dataset: str,
    choices: Mapping[str, Any],
    scorers: Sequence[Mapping[str, Any]],
    created_at: str,
    created_by: str | None,
) -> dict[str, Any]:
    """Say what an exported file is: what was chosen, what is in it, who made it and when.

    ``choices`` are the filters and what the user chose for rejected and undecided rows; ``scorers`` the identities of
    the scorers whose values took part; ``created_at`` is in UTC, ISO 8601.
    """
    return {
        "assay_version": __version__,
        "dataset": dataset,
        "choices": dict(choices),
        "scorers": [dict(scorer) for scorer in scorers],
        "file": {
            "name": result.path.name,
            "format": result.format,
            "sha256": result.sha256,
            "n_bytes": result.n_bytes,
        },
        "n_rows": result.n_rows,
        "n_by_verdict": dict(result.n_by_verdict),
        "n_by_source": dict(result.n_by_source),
        "dataset_digest": result.dataset_digest,
        "notes": list(result.notes),
        "created_at": created_at,
        "created_by": created_by,
    }


def manifest_path(path: Path) -> Path:
    """Where the manifest of an exported file stands: beside it."""
    return path.with_name(path.name + ".manifest.json")


def write_manifest(content: Mapping[str, Any], path: Path) -> None:
    """Write a manifest as readable JSON, whole or not at all.

    Raises:
        StoreError: the file cannot be written.
    """
    with _atomic(path) as stream:
        stream.write((json.dumps(content, ensure_ascii=False, indent=2) + "\n").encode())
