"""The bundled sample: what its files promise, and that the recorded teacher answers it as its author meant."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path

import pytest

from core.demo import (
    QUALITIES,
    RecordedAnswer,
    SampleRow,
    eval_rows,
    recorded_answers,
    recordings,
    recordings_of,
    sample_rows,
)
from core.errors import InputError
from core.example import Example
from core.reflection import build_question
from core.reflection_replies import Parsed, parse_reply
from core.teacher import ReplayTeacher

# What the author of a broken reply wrote about it -> the code that the parser must give; None: still readable.
FAULTS = {
    "end tag": "missing_tag",
    "cut off": "cut_off",
    "empty": "empty",
    "n/a": "not_applicable",
    "refusal": "refusal",
    "echo": "echo",
    "two": "two_candidates",
    "fence": None,
    "wrong case": None,
}


def test_the_sample_is_what_the_readme_says() -> None:
    rows, evaluation = sample_rows(), eval_rows()
    assert len(rows) >= 230
    assert len(evaluation) == 60
    assert len({row.kind for row in rows}) >= 8
    assert {row.quality for row in rows} == set(QUALITIES)
    assert {row.quality for row in evaluation} == {"good"}
    assert len({row.id for row in [*rows, *evaluation]}) == len(rows) + len(evaluation)
    assert len({row.example.hash for row in [*rows, *evaluation]}) == len(rows) + len(evaluation)
    assert all(row.example.instruction.strip() and row.example.output.strip() for row in rows)
    assert 0.3 < sum(row.quality == "good" for row in rows) / len(rows) < 0.6


def test_enough_rows_have_recorded_answers_for_both_stages() -> None:
    answers = recorded_answers()
    for stage in ("instruction", "response"):
        assert len({answer.row for answer in answers if answer.stage == stage and answer.of == "original"}) >= 120


def test_every_recorded_reply_is_read_as_its_author_meant() -> None:
    seen: Counter[str] = Counter()
    for answer in recorded_answers():
        parsed = parse_reply(answer.stage, answer.reply, answer.finish_reason)
        expected = None
        if answer.fault is not None:
            name = next(name for name in FAULTS if name in answer.fault.lower())
            seen[name] += 1
            expected = FAULTS[name]
        assert (None if isinstance(parsed, Parsed) else parsed.code) == expected, (answer.row, answer.stage, answer.of)
    assert set(seen) == set(FAULTS)


def test_the_recorded_teacher_answers_both_stages_of_a_row() -> None:
    row = next(row for row in sample_rows() if ("response", row.example.hash) in recordings())
    teacher = ReplayTeacher(recordings())
    for stage in ("instruction", "response"):
        answer = asyncio.run(teacher.ask(build_question(stage, example=row.example)))
        assert answer.error is None
        assert answer.raw is not None


ROW = SampleRow("facts-01", "facts", "terse", Example("Name a river.", "", "Rhine"))
NEW = "<new_instruction>Name two.</new_instruction><new_response>Rhine, Elbe</new_response>"


def test_recordings_are_found_by_what_they_are_about() -> None:
    answers = [
        RecordedAnswer("facts-01", "response", "reflected", "stop", "about the reflected pair"),
        RecordedAnswer("facts-01", "response", "original", "stop", "about the original"),
        RecordedAnswer("facts-01", "instruction", "original", "stop", NEW),
    ]
    found = recordings_of([ROW], answers=answers)
    assert found["response", ROW.example.hash].raw == "about the original"
    assert found["response", Example("Name two.", "", "Rhine, Elbe").hash].raw == "about the reflected pair"
    assert found["instruction", ROW.example.hash].raw == NEW


@pytest.mark.parametrize(("row", "of"), [("facts-02", "original"), ("facts-01", "reflected")])
def test_a_recording_about_nothing_is_refused(row: str, of: str) -> None:
    with pytest.raises(InputError, match=row):
        recordings_of([ROW], answers=[RecordedAnswer(row, "response", of, "stop", "x")])


def test_a_damaged_sample_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with pytest.raises(InputError, match=r"rows\.jsonl is missing"):
        sample_rows(path)
    good = {"id": "a", "kind": "facts", "quality": "good", "instruction": "i", "input": "", "output": "o"}
    path.write_text(json.dumps(good) + "\n\n" + '{"id": "b"', encoding="utf-8")
    with pytest.raises(InputError, match=r"Line 3 of rows\.jsonl is not JSON"):
        sample_rows(path)
    path.write_text(json.dumps({**good, "output": None}), encoding="utf-8")
    with pytest.raises(InputError, match=r"Line 1 of rows\.jsonl must be an object"):
        sample_rows(path)
    path.write_text(json.dumps({**good, "output": "two\u2028lines"}, ensure_ascii=False) + "\n", encoding="utf-8")
    assert sample_rows(path)[0].example.output == "two\u2028lines"
