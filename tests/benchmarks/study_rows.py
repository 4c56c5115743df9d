"""The rows of the study benchmark: five kinds of clearly different quality, rows to evaluate on, rows for the student.

Out of the public rows beside the project (``shared/data``). No row is in two places: an instruction with its input that
was given out once is not given out again, so the student, the sources, the unseen pool and the evaluation set share
nothing.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from core.example import Example

KINDS = ("alpaca", "shuffled", "truncated", "dolly", "gsm8k")
KIND_WORDS = {
    "alpaca": "well-formed Alpaca rows",
    "shuffled": "Alpaca rows with each other's responses",
    "truncated": "Alpaca rows whose response is cut after 20 to 50 % of its words",
    "dolly": "Dolly rows",
    "gsm8k": "GSM8K rows",
}
LONGEST_CHARACTERS = 900
"""Of instruction, input and response together: about 250 tokens, so that a run takes seconds and little is cut."""

LONGEST_EVALUATION_CHARACTERS = 700


@dataclass(frozen=True)
class Rows:
    """Examples by id, and which ids stand where. ``student`` rows have no id: nothing is scored of them."""

    examples: dict[int, Example]
    kinds: dict[int, str]
    sources: dict[str, tuple[int, ...]]
    unseen: dict[str, tuple[int, ...]]
    evaluation: tuple[int, ...]
    student: tuple[Example, ...]


class _Given:
    """Gives every row out once: of one file in a seeded order, short enough, its instruction and input never twice."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, str]] = set()

    def of(self, rows: list[Example], *, longest: int, r: random.Random) -> Iterator[Example]:
        for row in r.sample(rows, len(rows)):
            asked = (" ".join(row.instruction.lower().split()), " ".join(row.input.lower().split()))
            length = len(row.instruction) + len(row.input) + len(row.output)
            if row.output.strip() and length <= longest and asked not in self._seen:
                self._seen.add(asked)
                yield row


def load_rows(data: Path, *, per_source: int, per_unseen: int, n_evaluation: int, seed: int) -> Rows:
    """Part the files of ``data``: two thirds of the evaluation set are self-instruct's user-oriented rows.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file has too few rows.
    """
    r = random.Random(seed)
    given = _Given()
    alpaca = given.of(_read(data / "alpaca_random_9k.json"), longest=LONGEST_CHARACTERS, r=r)
    dolly = given.of(_read(data / "dolly_3k.json"), longest=LONGEST_CHARACTERS, r=r)
    gsm8k = given.of(_read(data / "gsm8k_2k.json"), longest=LONGEST_CHARACTERS, r=r)
    oriented = given.of(
        _read_oriented(data / "user_oriented_instructions.jsonl"), longest=LONGEST_EVALUATION_CHARACTERS, r=r
    )
    n_oriented = 2 * n_evaluation // 3
    n_alpaca = (n_evaluation - n_oriented) // 2
    evaluation = [
        *_take(oriented, n_oriented, "user-oriented rows"),
        *_take(alpaca, n_alpaca, "Alpaca rows"),
        *_take(dolly, n_evaluation - n_oriented - n_alpaca, "Dolly rows"),
    ]
    examples: dict[int, Example] = {}
    kinds: dict[int, str] = {}
    parts: list[dict[str, tuple[int, ...]]] = []
    for n in (per_source, per_unseen):
        made = {
            "alpaca": _take(alpaca, n, "Alpaca rows"),
            "shuffled": _shuffled(_take(alpaca, n, "Alpaca rows")),
            "truncated": [_truncated(row, r) for row in _take(alpaca, n, "Alpaca rows")],
            "dolly": _take(dolly, n, "Dolly rows"),
            "gsm8k": _take(gsm8k, n, "GSM8K rows"),
        }
        parts.append({kind: _number(made[kind], kind, examples, kinds) for kind in KINDS})
    held_out = _number(evaluation, "evaluation", examples, kinds)
    return Rows(examples, kinds, parts[0], parts[1], held_out, tuple(alpaca))


def _number(rows: list[Example], kind: str, examples: dict[int, Example], kinds: dict[int, str]) -> tuple[int, ...]:
    ids = tuple(range(len(examples), len(examples) + len(rows)))
    examples.update(zip(ids, rows, strict=True))
    kinds.update(dict.fromkeys(ids, kind))
    return ids


def _take(rows: Iterator[Example], n: int, what: str) -> list[Example]:
    found = [row for _, row in zip(range(n), rows, strict=False)]
    if len(found) < n:
        raise ValueError(f"there are {len(found)} {what} left, {n} are needed; choose smaller parts")
    return found


def _shuffled(rows: list[Example]) -> list[Example]:
    """Every row has the response of the next one, so none has its own."""
    responses = [row.output for row in rows[1:] + rows[:1]]
    return [Example(row.instruction, row.input, other) for row, other in zip(rows, responses, strict=True)]


def _truncated(row: Example, r: random.Random) -> Example:
    words = row.output.split(" ")
    kept = max(1, round(len(words) * r.uniform(0.2, 0.5)))
    return Example(row.instruction, row.input, " ".join(words[:kept]))


def _read(path: Path) -> list[Example]:
    rows = json.loads(path.read_text(encoding="utf-8"))
    return [Example(row["instruction"], row.get("input", ""), row["output"]) for row in rows]


def _read_oriented(path: Path) -> list[Example]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [Example(r["instruction"], r["instances"][0]["input"], r["instances"][0]["output"]) for r in rows]
