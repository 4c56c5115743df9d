"""The bundled sample: rows to curate, rows to evaluate on, and recorded answers of a teacher.

All texts were written for this project. Quality differs on purpose, and some recorded answers are broken in the ways
in which teachers break (``fault`` says how). Beside this module: ``rows.jsonl``, ``eval.jsonl``, ``recorded.jsonl``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from core.errors import InputError
from core.example import Example
from core.reflection import candidate_of
from core.reflection_replies import Parsed, parse_reply
from core.teacher import Recording

FOLDER = Path(__file__).parent
ROWS, EVAL, RECORDED_ANSWERS = FOLDER / "rows.jsonl", FOLDER / "eval.jsonl", FOLDER / "recorded.jsonl"
QUALITIES = ("good", "vague", "wrong", "terse", "off-topic")


@dataclass(frozen=True)
class SampleRow:
    """One row of the sample: ``kind`` of task, ``quality`` as its author meant it (one of ``QUALITIES``)."""

    id: str
    kind: str
    quality: str
    example: Example


@dataclass(frozen=True)
class RecordedAnswer:
    """One reply of the recorded teacher. ``of``: about the row's "original" pair, or about the "reflected" one that
    the row's instruction-stage reply proposes. ``fault`` says how a reply is broken on purpose."""

    row: str
    stage: str
    of: str
    finish_reason: str
    reply: str
    fault: str | None = None


def sample_rows(path: Path = ROWS) -> list[SampleRow]:
    """The rows to curate.

    Raises:
        InputError: the file is missing or damaged; the message names file and line.
    """
    return [_sample_row(values) for values in _lines(path, ("id", "kind", "quality", "instruction", "input", "output"))]


def eval_rows(path: Path = EVAL) -> list[SampleRow]:
    """The rows to evaluate on: all good, none of them among :func:`sample_rows`. Raises as that does."""
    return sample_rows(path)


def recorded_answers(path: Path = RECORDED_ANSWERS) -> list[RecordedAnswer]:
    """The recorded replies as they are in the file. Raises as :func:`sample_rows` does."""
    fields = ("row", "stage", "of", "finish_reason", "reply")
    return [
        RecordedAnswer(**{name: values[name] for name in fields}, fault=values.get("fault"))
        for values in _lines(path, fields)
    ]


def recordings_of(rows: list[SampleRow], *, answers: list[RecordedAnswer]) -> dict[tuple[str, str], Recording]:
    """Recorded replies by (stage, hash of the example asked about), as :class:`core.teacher.ReplayTeacher` wants them.

    A reply "of": "reflected" is about the candidate of the row's instruction-stage reply.

    Raises:
        InputError: a reply belongs to no row, or to a reflected pair that its row's instruction reply does not give.
    """
    examples = {row.id: row.example for row in rows}
    reflected: dict[str, Example] = {}
    for answer in answers:
        parsed = parse_reply(answer.stage, answer.reply, answer.finish_reason)
        if answer.stage == "instruction" and answer.row in examples and isinstance(parsed, Parsed):
            reflected[answer.row] = candidate_of(answer.stage, asked=examples[answer.row], parsed=parsed)
    found: dict[tuple[str, str], Recording] = {}
    for answer in answers:
        about = (examples if answer.of == "original" else reflected).get(answer.row)
        if about is None:
            raise InputError(f"The recorded {answer.stage} answer of row {answer.row!r} has no {answer.of} pair.")
        found[answer.stage, about.hash] = Recording(answer.reply, answer.finish_reason)
    return found


@cache
def recordings() -> dict[tuple[str, str], Recording]:
    """The recorded replies of the bundled sample; read once."""
    return recordings_of(sample_rows(), answers=recorded_answers())


def _sample_row(values: dict[str, Any]) -> SampleRow:
    example = Example(values["instruction"], values["input"], values["output"])
    return SampleRow(values["id"], values["kind"], values["quality"], example)


def _lines(path: Path, names: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError as error:
        raise InputError(f"The bundled sample is not whole: {path.name} is missing. Install Assay again.") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except ValueError as error:
            raise InputError(f"Line {number} of {path.name} is not JSON ({error}).") from error
        if not isinstance(values, dict) or not all(isinstance(values.get(name), str) for name in names):
            raise InputError(f"Line {number} of {path.name} must be an object with the texts {', '.join(names)}.")
        yield values
