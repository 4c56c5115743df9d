"""What every container yields: rows, bad rows, and the source they come from."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.errors import InputError

MAX_ROW_SIZE = 32 * 1024 * 1024
"""Bytes or characters beyond which a row is refused: no instruction row is that long, but one line may be 200 MB."""

HEAD_ROWS = 100
HEAD_CHARS = 8_000_000
EXCERPT_CHARS = 160

_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot become an example: where it is (line from 1), why, and how it begins."""

    line: int
    reason: str
    excerpt: str = ""


RawRow = tuple[int, dict[str, Any]]
"""(line of the file, or number of the row where the container has no lines; both from 1; the row's fields)."""

Rows = Iterator[RawRow | BadRow]


def excerpt(text: str) -> str:
    """Return the first characters of ``text`` on one line, safe to show and to store."""
    head = _CONTROL.sub(" ", text[:EXCERPT_CHARS]).encode("utf-8", "replace").decode("utf-8")
    return head + "…" if len(text) > EXCERPT_CHARS else head


@dataclass(slots=True)
class Reading:
    """How far the latest reading of a source has come: bytes of the file, or rows where their number is known."""

    done: int = 0
    total: int = 0

    @property
    def fraction(self) -> float | None:
        """Between 0 and 1; None where the total is not known."""
        return min(self.done / self.total, 1.0) if self.total else None


@dataclass(frozen=True, eq=False)
class Source:
    """Rows that a user wants to load, with what was found out about them.

    ``name``       what the user calls it; it stands in every message
    ``container``  for people: "JSON list", "JSON Lines", "CSV", "TSV", "Parquet", "Hugging Face dataset", …
    ``columns``    names of the fields: of the header, or those seen in the first rows; names that are no text left out
    ``notes``      what a user should know before importing, one sentence each
    ``reading``    how far the latest reading has come, for a progress bar
    """

    name: str
    container: str
    columns: tuple[str, ...]
    notes: tuple[str, ...]
    read: Callable[[], Rows] = field(repr=False)
    cached_head: tuple[RawRow | BadRow, ...] = field(repr=False)
    reading: Reading = field(default_factory=Reading, repr=False)

    def rows(self) -> Rows:
        """Read from the start, one row at a time.

        Raises:
            InputError: nothing after this place can be read (a gzip file that is cut off, a broken JSON list).
        """
        return self.read()

    def head(self, n: int = 10) -> list[RawRow | BadRow]:
        """The first ``n`` rows, bad ones among them."""
        if n <= len(self.cached_head):
            return list(self.cached_head[:n])
        return list(itertools.islice(self.read(), n))

    def sample(self, n: int = 10) -> list[dict[str, Any]]:
        """The fields of the good rows among the first ``n`` (at most 100 are looked at)."""
        return [row[1] for row in self.cached_head[:n] if not isinstance(row, BadRow)]


def _read_head(read: Callable[[], Rows]) -> tuple[RawRow | BadRow, ...]:
    head: list[RawRow | BadRow] = []
    chars = 0
    rows = read()
    for row in rows:
        head.append(row)
        if not isinstance(row, BadRow):
            chars += sum(len(value) if isinstance(value, str) else len(repr(value)) for value in row[1].values())
        if len(head) >= HEAD_ROWS or chars >= HEAD_CHARS:
            break
    return tuple(head)


def _is_text(name: str) -> bool:
    """JSON can name a field by half a character (a lone surrogate), which no page can show and nobody can choose."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def build_source(
    name: str,
    container: str,
    read: Callable[[], Rows],
    *,
    columns: Sequence[str] | None = None,
    notes: Sequence[str] = (),
    reading: Reading | None = None,
) -> Source:
    """Read the first rows and return the source.

    Raises:
        InputError: there is no row, none of the first rows can be read, or no field of them has a name.
    """
    head = _read_head(read)
    if not head:
        raise InputError(f"{name} holds no rows. Choose a file with at least one example.")
    good = [row for row in head if not isinstance(row, BadRow)]
    if not good:
        first = next(row for row in head if isinstance(row, BadRow))
        many = f"None of the first {len(head)} rows" if len(head) > 1 else "The only row"
        raise InputError(f"{name}: {many} cannot be read. Line {first.line}: {first.reason}")
    if columns is None:
        columns = list(dict.fromkeys(key for _, fields in good for key in fields))
    columns = [key for key in columns if _is_text(key)]
    if not columns:
        raise InputError(f"{name}: no field of the first rows has a name that is text, so none can be chosen.")
    return Source(name, container, tuple(columns), tuple(notes), read, head, reading or Reading())
