"""Recognise what a file is by its content, whatever its name says, and open it as a source of rows."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from core.errors import InputError
from core.formats import json_rows, table_rows
from core.formats.json_rows import DECODER, Opener, kind_of
from core.formats.rows import MAX_ROW_SIZE, Reading, Rows, Source, build_source, excerpt
from core.formats.shapes import detect_row

_HEAD_BYTES = 64 * 1024
_BUFFER_BYTES = 1024 * 1024
_GZIP = b"\x1f\x8b"
_ADVICE = "Give JSON, JSON Lines, CSV, TSV or Parquet, plain or gzipped."
_MAGIC = (
    (b"PK\x03\x04", "a zip archive or an Excel workbook: unpack it, or save the sheet as CSV UTF-8"),
    (b"\xd0\xcf\x11\xe0", "an old Excel or Word file: save the sheet as CSV UTF-8"),
    (b"\x28\xb5\x2f\xfd", "packed with Zstandard: unpack it or pack it with gzip"),
    (b"BZh", "packed with bzip2: unpack it or pack it with gzip"),
    (b"\xfd7zXZ", "packed with xz: unpack it or pack it with gzip"),
    (b"7z\xbc\xaf", "a 7-Zip archive: unpack it"),
    (b"ARROW1", "an Arrow file: save it as Parquet"),
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"\x80\x04\x95", "a Python pickle, which is not opened because it can run code"),
)
_BOMS = ((codecs.BOM_UTF16_LE, "UTF-16"), (codecs.BOM_UTF16_BE, "UTF-16"), (codecs.BOM_UTF32_BE, "UTF-32"))
_EXTENSIONS = {
    ".json": "JSON",
    ".jsonl": "JSON Lines",
    ".ndjson": "JSON Lines",
    ".csv": "CSV",
    ".tsv": "TSV",
    ".tab": "TSV",
    ".parquet": "Parquet",
    ".pq": "Parquet",
}
_JSON_LIST = re.compile(r"\[\s*(?:[\[{\]\"\-0-9]|true|false|null|NaN|$)")
_JSON_OBJECT = re.compile(r"\{\s*(?:[\"}]|$)")


class _Gunzip(io.RawIOBase):
    """Unpacked bytes of a gzip file; damage is told in plain words."""

    def __init__(self, packed: BinaryIO, name: str) -> None:
        self._packed = packed
        self._file = gzip.GzipFile(fileobj=packed, mode="rb")
        self._name = name
        self._read = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            count = self._file.readinto(buffer)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InputError(
                f"{self._name}: the gzip data is cut off or damaged after {self._read:,} unpacked bytes ({error}). "
                "Get the file again."
            ) from error
        self._read += count
        return count

    def close(self) -> None:
        self._file.close()
        self._packed.close()
        super().close()


class _CountedFile(io.FileIO):
    """A file that tells how many bytes of it were read."""

    def __init__(self, path: Path, reading: Reading) -> None:
        super().__init__(path, "rb")
        self._reading = reading
        reading.done, reading.total = 0, path.stat().st_size

    def readinto(self, buffer: Any) -> int:
        count = super().readinto(buffer) or 0
        self._reading.done += count
        return count


def _open_bytes(path: Path, name: str, reading: Reading, *, gzipped: bool) -> BinaryIO:
    try:
        stream = io.BufferedReader(_CountedFile(path, reading), _BUFFER_BYTES)
    except OSError as error:
        raise InputError(f"{name} cannot be opened: {error.strerror or error}.") from error
    return io.BufferedReader(_Gunzip(stream, name), _BUFFER_BYTES) if gzipped else stream


def _refuse_what_is_no_text(head: bytes, name: str) -> None:
    for magic, what in _MAGIC:
        if head.startswith(magic):
            raise InputError(f"{name} is {what}. {_ADVICE}")
    for bom, encoding in _BOMS:
        if head.startswith(bom):
            raise InputError(f"{name} is {encoding} text. Save it as UTF-8, then load it again.")
    nul_share = head.count(0) / len(head)
    if nul_share > 0.2 and not head.strip(b"\0"):
        raise InputError(f"{name} holds nothing but NUL bytes: it was damaged when it was written. Get it again.")
    if nul_share > 0.2:
        raise InputError(
            f"{name} is UTF-16 text or not text at all: every fifth byte or more is NUL. Save it as UTF-8."
        )


def _delimiter(head: str, extension: str) -> str | None:
    """The delimiter that cuts the first line into most fields; None if none cuts it."""
    first = next((line for line in head.splitlines() if line.strip()), "")
    preferred = {"TSV": "\t"}.get(extension, ",")

    def n_fields(delimiter: str) -> int:
        return max((len(fields) for fields in csv.reader([first], delimiter=delimiter)), default=0)

    best = max(table_rows.DELIMITERS, key=lambda delimiter: (n_fields(delimiter), delimiter == preferred))
    return best if n_fields(best) > 1 else None


Found = tuple[str, Callable[[], Rows], list[str] | None, list[str]]
"""What a sniffer returns: (container, reader, columns if the file names them, notes)."""


def _sniff_object(opener: Opener, name: str, extension: str) -> Found:
    """A text that begins with an object: JSON Lines, one object that wraps a list, or objects over several lines."""
    lines: Found = ("JSON Lines", partial(json_rows.line_rows, opener), None, [])
    with opener() as stream:
        first = stream.readline(MAX_ROW_SIZE)
        while first and not first.removeprefix(codecs.BOM_UTF8).strip():
            first = stream.readline(MAX_ROW_SIZE)
        second = b"" if json_rows.too_long(first) else stream.readline(_HEAD_BYTES)
        while second and not second.strip():
            second = stream.readline(_HEAD_BYTES)
    text = first.decode("utf-8-sig", "replace").rstrip()
    try:
        DECODER.decode(text)
    except (ValueError, RecursionError):
        # An object over several lines breaks its first line after a bracket, a comma or a colon.
        if second and not text.endswith(("{", "[", ",", ":")):
            return lines
    else:
        if second:
            return lines
    return _sniff_single(opener, name, extension)


def _sniff_single(opener: Opener, name: str, extension: str) -> Found:
    sketch, lists, more = json_rows.sketch_object(opener, name)
    sequence: Found = ("JSON objects", partial(json_rows.sequence_rows, opener, name), None, [])
    if more or extension == "JSON Lines" or detect_row(sketch) is not None:
        return sequence
    if len(lists) == 1:
        key = lists[0]
        others = ", ".join(f"“{excerpt(other)}”" for other in sketch if other != key)
        left_out = f"; its other fields ({others}) are left out" if others else ""
        note = f"The file is one JSON object. The rows are those of its list “{excerpt(key)}”{left_out}."
        return f"JSON list “{excerpt(key)}”", partial(json_rows.wrapped_rows, opener, name, key=key), None, [note]
    raise InputError(f"{name} is one JSON object, not a list of rows: {_object_advice(sketch, lists)}")


def _object_advice(sketch: dict[str, Any], lists: list[str]) -> str:
    if lists:
        return (
            f"it holds {len(lists)} lists of objects ({', '.join(lists)}). Save the one you want as a file of its own."
        )
    columns = [value for value in sketch.values() if isinstance(value, (list, dict))]
    if len(columns) > 1 and len(columns) == len(sketch):
        return "it looks like a table stored column by column. Save it row by row (in pandas: orient='records')."
    fields = ", ".join(f"{excerpt(key)}: {kind_of(value)}" for key, value in list(sketch.items())[:8]) or "it is empty"
    return f"{fields}. Put the rows into a list: [{{…}}, {{…}}]."


def _sniff_table(opener: Opener, name: str, head: str, extension: str) -> Found:
    delimiter = _delimiter(head, extension)
    if delimiter is None:
        first = excerpt(head.strip().splitlines()[0])
        raise InputError(
            f"{name} is neither JSON nor a table: its first line (“{first}”) does not begin with [ or {{ and has no "
            f"comma, tab or semicolon. {_ADVICE}"
        )
    columns, notes = table_rows.read_header(opener, name, delimiter)
    if delimiter == ";":
        notes.append("The columns are parted by semicolons.")
    read = partial(table_rows.csv_rows, opener, name, delimiter=delimiter, columns=columns)
    return "TSV" if delimiter == "\t" else "CSV", read, columns, notes


def _sniff_text(opener: Opener, name: str, head: str, extension: str) -> Found:
    start = head.lstrip()
    if not start:
        raise InputError(f"{name} is empty: it holds only white space. Choose a file with at least one example.")
    if re.match(r"<(!doctype|html|\?xml)", start, re.IGNORECASE):
        raise InputError(
            f"{name} is a web page or XML, perhaps an error page that was saved in place of the file. {_ADVICE}"
        )
    if _JSON_LIST.match(start):
        return "JSON list", partial(json_rows.list_rows, opener, name), None, []
    if _JSON_OBJECT.match(start):
        return _sniff_object(opener, name, extension)
    if extension in ("JSON", "JSON Lines") and any(line.startswith("{") for line in head.splitlines()):
        return "JSON Lines", partial(json_rows.line_rows, opener), None, []
    return _sniff_table(opener, name, head, extension)


def _name_note(container: str, extension: str, path_name: str) -> list[str]:
    family = "JSON" if container.startswith("JSON ") and container != "JSON Lines" else container
    if not extension or extension == family or (extension, container) == ("JSON Lines", "JSON objects"):
        return []
    return [f"The name {path_name} says {extension}, but the content is {container}: it is read as {container}."]


def open_source(path: Path, *, name: str | None = None) -> Source:
    """Open a file of rows: JSON list, JSON Lines, CSV, TSV or Parquet, plain or gzipped.

    The content decides what the file is; where its name says otherwise, a note tells so. ``name`` is what the user
    calls the file (default: its file name) and stands in every message.

    Raises:
        InputError: the file is empty, damaged, not text, not a list of rows, or has no row that can be read.
    """
    name = name or path.name
    if not path.is_file():
        raise InputError(f"{name} is not a file on this machine. Check the path.")
    reading = Reading()
    with _open_bytes(path, name, reading, gzipped=False) as stream:
        gzipped = stream.read(2) == _GZIP
    opener: Opener = partial(_open_bytes, path, name, reading, gzipped=gzipped)
    with opener() as stream:
        head = stream.read(_HEAD_BYTES)
    if not head:
        raise InputError(f"{name} is empty. Choose a file with at least one example.")
    suffixes = [suffix.lower() for suffix in Path(name).suffixes]
    extension = next((_EXTENSIONS[suffix] for suffix in reversed(suffixes) if suffix in _EXTENSIONS), "")
    if head.startswith(b"PAR1"):
        open_parquet = partial(table_rows.open_parquet, path, opener, name, gzipped=gzipped)
        columns: list[str] | None = table_rows.parquet_columns(open_parquet, name)
        container, notes = "Parquet", list[str]()
        read: Callable[[], Rows] = partial(table_rows.parquet_rows, open_parquet, name, reading)
    else:
        _refuse_what_is_no_text(head, name)
        container, read, columns, notes = _sniff_text(opener, name, head.decode("utf-8-sig", "replace"), extension)
    notes = notes + _name_note(container, extension, name)
    return build_source(name, container, read, columns=columns, notes=notes, reading=reading)
