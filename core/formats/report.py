"""What an import found: counts, duplicates, bad rows; as a table to download."""

from __future__ import annotations

import csv
import io
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.errors import InputError
from core.formats.rows import BadRow
from core.formats.values import Conversions

MAX_LISTED_BAD_ROWS = 50_000
EMPTY_RESPONSE = "the response is empty: it is imported, and its scores will be missing."
_DIGEST_BYTES = 16
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def csv_cell(text: str) -> str:
    """Return ``text`` so that no spreadsheet runs it as a formula: a leading = + - @ tab or CR gets an apostrophe."""
    return "'" + text if text.startswith(_FORMULA_STARTS) else text


@dataclass(frozen=True, slots=True)
class ReportRow:
    """One line of the downloadable report; ``kind``: bad row, empty response, exact duplicate or folded duplicate."""

    kind: str
    line: int
    reason: str
    excerpt: str = ""


class _Digests:
    """16 bytes an example, to find equal ones in order of reading: (later, first) index pairs."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def add(self, hex_hash: str) -> None:
        self._bytes += bytes.fromhex(hex_hash)[:_DIGEST_BYTES]

    def duplicates(self) -> tuple[np.ndarray, np.ndarray]:
        """(indices of the duplicates, index of the first of each), in order of reading."""
        words = np.frombuffer(bytes(self._bytes), dtype=np.uint64).reshape(-1, 2)
        order = np.lexsort((words[:, 0], words[:, 1]))  # stable: equal digests stay in order of reading
        ordered = words[order]
        is_first = np.ones(len(order), dtype=bool)
        is_first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
        first_of = order[np.maximum.accumulate(np.where(is_first, np.arange(len(order)), 0))]
        later, first = order[~is_first], first_of[~is_first]
        in_order = np.argsort(later)
        return later[in_order], first[in_order]


class ImportReport:
    """Grows while rows are read; complete when the reader is exhausted.

    ``rows_read``    rows of the file, bad ones among them, blank lines not
    ``n_examples``   examples made of them (one row of self-instruct data may hold several)
    ``n_bad_rows``   rows that could not become an example; the first 50,000 are listed in ``bad_rows``
    """

    def __init__(
        self,
        *,
        source: str,
        container: str,
        shape: str,
        notes: tuple[str, ...] = (),
        empty_response: str = EMPTY_RESPONSE,
    ) -> None:
        self.source = source
        self.container = container
        self.shape = shape
        self.rows_read = 0
        self.n_examples = 0
        self.n_bad_rows = 0
        self.bad_rows: list[BadRow] = []
        self.conversions = Conversions()
        self._source_notes = notes
        self._empty_response = empty_response
        self._lines = array("q")
        self._empty_responses = array("q")
        self._exact = _Digests()
        self._folded = _Digests()
        self._found: tuple[int, tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None

    def add_bad_row(self, bad: BadRow) -> None:
        self.n_bad_rows += 1
        if len(self.bad_rows) < MAX_LISTED_BAD_ROWS:
            self.bad_rows.append(bad)

    def add_example(self, line: int, exact: str, folded: str, *, empty_response: bool) -> None:
        """Count one example; ``exact`` and ``folded`` are its hashes in hexadecimal."""
        self.n_examples += 1
        self._lines.append(line)
        self._exact.add(exact)
        self._folded.add(folded)
        if empty_response:
            self._empty_responses.append(line)

    def _duplicates(self) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        if self._found is None or self._found[0] != self.n_examples:
            exact = self._exact.duplicates()
            later, first = self._folded.duplicates()
            only_folded = ~np.isin(later, exact[0])
            self._found = (self.n_examples, exact, (later[only_folded], first[only_folded]))
        return self._found[1], self._found[2]

    @property
    def n_empty_responses(self) -> int:
        return len(self._empty_responses)

    @property
    def empty_response_lines(self) -> list[int]:
        return self._empty_responses.tolist()

    @property
    def n_exact_duplicates(self) -> int:
        """Examples whose texts all stood in the file before. Sorts what was read: ask at the end (1 s a million)."""
        return len(self._duplicates()[0][0])

    @property
    def n_folded_duplicates(self) -> int:
        """Examples that are equal to an earlier one after folding case and white space, and no exact duplicates."""
        return len(self._duplicates()[1][0])

    @property
    def notes(self) -> list[str]:
        """What a user should know about the file and about what was converted, one sentence each."""
        return [*self._source_notes, *self.conversions.sentences()]

    def duplicate_pairs(self, *, folded: bool = False) -> Iterator[tuple[int, int]]:
        """(line, line of the first like it): exact duplicates, or with ``folded`` those equal after folding only."""
        later, first = self._duplicates()[1 if folded else 0]
        for one, other in zip(later.tolist(), first.tolist(), strict=True):
            yield self._lines[one], self._lines[other]

    def require_no_bad_rows(self) -> None:
        """Refuse an import in which rows are bad and the user has not chosen to skip them.

        Raises:
            InputError: with the first bad row and the number of them.
        """
        if not self.n_bad_rows:
            return
        first = self.bad_rows[0]
        raise InputError(
            f"{self.source}: {self.n_bad_rows:,} of {self.rows_read:,} rows are bad, so nothing was imported. "
            f"The first is at line {first.line:,}: {first.reason} Mend the file, or choose to skip bad rows."
        )

    def summary(self) -> dict[str, Any]:
        """The counts and notes, JSON-able, to be kept with the dataset."""
        return {
            "source": self.source,
            "container": self.container,
            "shape": self.shape,
            "rows_read": self.rows_read,
            "n_examples": self.n_examples,
            "n_bad_rows": self.n_bad_rows,
            "n_empty_responses": self.n_empty_responses,
            "n_exact_duplicates": self.n_exact_duplicates,
            "n_folded_duplicates": self.n_folded_duplicates,
            "notes": self.notes,
        }

    def to_rows(self) -> Iterator[ReportRow]:
        """Every finding, bad rows first."""
        for bad in self.bad_rows:
            yield ReportRow("bad row", bad.line, bad.reason, bad.excerpt)
        if self.n_bad_rows > len(self.bad_rows):
            rest = self.n_bad_rows - len(self.bad_rows)
            yield ReportRow(
                "bad row", self.bad_rows[-1].line, f"{rest:,} more bad rows after this line are not listed."
            )
        for line in self._empty_responses:
            yield ReportRow("empty response", line, self._empty_response)
        for line, first in self.duplicate_pairs():
            yield ReportRow("exact duplicate", line, f"the same texts as line {first}.")
        for line, first in self.duplicate_pairs(folded=True):
            yield ReportRow("folded duplicate", line, f"the same as line {first} but for case and white space.")

    def to_csv(self) -> bytes:
        """The findings as CSV in UTF-8 with a byte order mark, so that spreadsheets read it; formulas are disarmed."""
        buffer = io.StringIO(newline="")
        writer = csv.writer(buffer)
        writer.writerow(["kind", "line", "reason", "excerpt"])
        for row in self.to_rows():
            writer.writerow([row.kind, row.line, csv_cell(row.reason), csv_cell(row.excerpt)])
        return buffer.getvalue().encode("utf-8-sig")
