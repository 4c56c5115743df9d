"""Rows of evaluation sets: several references, MT-bench with its answers, instances; bad rows are refused by number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import InputError
from core.example import Example
from core.formats import (
    JOINED,
    BadRow,
    ChatMapping,
    InstancesMapping,
    ReferencesMapping,
    Shape,
    Source,
    TurnsMapping,
    detect_evaluation_shape,
    detect_shape,
    join_references,
    open_source,
    preview,
    read_examples,
)

SHARED = Path(__file__).parents[3] / "shared" / "data"


def source_of(folder: Path, rows: list[Any], name: str = "rows.jsonl") -> Source:
    path = folder / name
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return open_source(path)


def mapped(source: Source, mapping: Shape | None = None) -> list[Example | BadRow]:
    chosen = mapping or detect_evaluation_shape(source)
    assert chosen is not None
    return [found for _, found, _ in preview(source, chosen)]


def notes(source: Source, mapping: Shape) -> list[str]:
    reader = read_examples(source, mapping)
    for _ in reader:
        pass
    return reader.report.notes


# --- references in the row ---


@pytest.mark.parametrize(
    ("row", "outputs"),
    [
        ({"instruction": "a", "output": "b"}, ["b"]),
        ({"instruction": "a", "output": ["b", "c"]}, ["b", "c"]),
        ({"instruction": "a", "outputs": ["b", " ", None, "c"]}, ["b", "c"]),
        ({"instruction": "a", "references": ["b"]}, ["b"]),
        ({"Instruction": "a", "Reference": "b"}, ["b"]),
        ({"prompt": "a", "references": ["b", "c"], "output": "d"}, ["b", "c", "d"]),
        ({"instruction": "a", "output": "b", "generator": "text_davinci_003", "dataset": "helpful_base"}, ["b"]),
        ({"question": "a", "answer": "b"}, ["b"]),
        ({"instruction": "a", "outputs": []}, [""]),
        ({"instruction": "a", "output": None}, [""]),
        ({"instruction": "a"}, [""]),
    ],
)
def test_a_row_becomes_one_example_a_reference(tmp_path: Path, row: dict[str, Any], outputs: list[str]) -> None:
    assert mapped(source_of(tmp_path, [row])) == [Example("a", "", output) for output in outputs]


def test_input_and_further_fields_go_along(tmp_path: Path) -> None:
    source = source_of(tmp_path, [{"instruction": "a", "context": "c", "outputs": ["b", "d"], "category": "qa"}])
    mapping = detect_evaluation_shape(source)
    assert isinstance(mapping, ReferencesMapping)
    assert mapping.describe() == "instruction = instruction, input = context, references = outputs"
    found = preview(source, mapping)
    assert [example for _, example, _ in found] == [Example("a", "c", "b"), Example("a", "c", "d")]
    assert {metadata for _, _, metadata in found} == {'{"category": "qa"}'}


def test_instructions_without_a_reference_are_counted(tmp_path: Path) -> None:
    source = source_of(tmp_path, [{"instruction": "a", "output": "b"}, {"instruction": "c"}])
    mapping = detect_evaluation_shape(source)
    assert mapping is not None
    assert "1 instruction(s) have no reference output yet." in notes(source, mapping)


def test_what_is_no_text_is_refused_with_its_row(tmp_path: Path) -> None:
    rows: list[Any] = [
        {"instruction": "a", "outputs": ["b"]},
        {"instruction": "a", "outputs": [{"text": "b"}]},
        {"outputs": ["b"]},
        '{"instruction": "a", "outputs": ["b"',
    ]
    source = source_of(tmp_path, rows)
    mapping = detect_evaluation_shape(source)
    assert mapping is not None
    reader = read_examples(source, mapping)
    assert sum(batch.num_rows for batch in reader) == 1
    assert [bad.line for bad in reader.report.bad_rows] == [2, 3, 4]
    assert "'outputs' holds an object" in reader.report.bad_rows[0].reason
    assert "'instruction' is missing" in reader.report.bad_rows[1].reason
    with pytest.raises(InputError, match="nothing was imported"):
        reader.report.require_no_bad_rows()


def test_other_shapes_keep_their_way(tmp_path: Path) -> None:
    chat = source_of(
        tmp_path, [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}]
    )
    assert isinstance(detect_evaluation_shape(chat), ChatMapping)
    instances = [{"input": "x", "output": "b"}, {"input": "x", "output": "c"}, {"input": "y", "output": "d"}]
    source = source_of(tmp_path, [{"instruction": "a", "instances": instances}])
    assert isinstance(detect_evaluation_shape(source), InstancesMapping)
    assert mapped(source) == [Example("a", "x", "b"), Example("a", "x", "c"), Example("a", "y", "d")]
    assert detect_evaluation_shape(source_of(tmp_path, [{"one": "a", "two": "b"}])) is None


def test_training_data_is_read_as_before(tmp_path: Path) -> None:
    assert detect_shape(source_of(tmp_path, [{"instruction": "a", "output": ["b", "c"]}])) is None
    assert detect_shape(source_of(tmp_path, [{"question_id": 1, "turns": ["a", "b"]}])) is None
    assert detect_shape(source_of(tmp_path, [{"instruction": "a"}])) is None


# --- MT-bench ---

QUESTIONS: list[Any] = [
    {"question_id": 1, "category": "math", "turns": ["What is 1 + 1?", "And twice that?"]},
    {"question_id": 2, "category": "writing", "turns": ["Write a poem.", "Make it rhyme."]},
]
ANSWERS: list[Any] = [
    {"question_id": 1, "choices": [{"index": 0, "turns": ["2", "4"]}]},
    {"question_id": 1, "choices": [{"index": 0, "turns": ["two"]}]},
    {"question_id": 9, "choices": [{"index": 0, "turns": ["lost"]}]},
]


def test_mt_bench_without_answers_has_no_references(tmp_path: Path) -> None:
    source = source_of(tmp_path, QUESTIONS)
    assert detect_evaluation_shape(source) == TurnsMapping()
    assert mapped(source) == [Example("What is 1 + 1?"), Example("Write a poem.")]
    assert notes(source, TurnsMapping()) == ["2 instruction(s) have no reference output yet."]


def test_mt_bench_with_answers_of_a_second_file(tmp_path: Path) -> None:
    joined = join_references(source_of(tmp_path, QUESTIONS), source_of(tmp_path, ANSWERS, "answers.jsonl"))
    assert joined.name == "rows.jsonl with answers.jsonl"
    assert joined.notes == (
        "1 of the 2 questions have a reference in answers.jsonl (matched by 'question_id').",
        "answers.jsonl answers 1 question(s) that are not in rows.jsonl.",
    )
    mapping = detect_evaluation_shape(joined)
    assert mapping == TurnsMapping(references=JOINED)
    assert mapped(joined, mapping) == [
        Example("What is 1 + 1?", "", "2"),
        Example("What is 1 + 1?", "", "two"),
        Example("Write a poem."),
    ]
    assert preview(joined, mapping)[0][2] == '{"question_id": 1, "category": "math"}'


def test_every_turn_has_the_turns_before_it_as_input(tmp_path: Path) -> None:
    """As earlier turns of a chat; a later turn without an answer before it cannot be asked."""
    joined = join_references(source_of(tmp_path, QUESTIONS), source_of(tmp_path, ANSWERS, "answers.jsonl"))
    mapping = TurnsMapping(references=JOINED, all_turns=True)
    asked = "User: What is 1 + 1?\n\nAssistant: "
    assert mapped(joined, mapping) == [
        Example("What is 1 + 1?", "", "2"),
        Example("What is 1 + 1?", "", "two"),
        Example("And twice that?", f"{asked}2", "4"),
        Example("And twice that?", f"{asked}two", ""),
        Example("Write a poem."),
    ]
    assert "1 later turn(s) were left out: the turn before them has no reference answer." in notes(joined, mapping)


def test_plain_answers_are_joined_to_plain_rows(tmp_path: Path) -> None:
    rows = [{"id": "x", "instruction": "a"}, {"id": "y", "instruction": "b"}]
    answers = [{"id": "x", "output": ["1", "2"]}]
    joined = join_references(source_of(tmp_path, rows), source_of(tmp_path, answers, "answers.jsonl"))
    assert mapped(joined) == [Example("a", "", "1"), Example("a", "", "2"), Example("b")]


def test_bad_answers_are_bad_rows_with_the_name_of_their_file(tmp_path: Path) -> None:
    answers = [*ANSWERS, {"question_id": 2, "choices": [{"turns": "no list"}]}, {"choices": []}, "{broken"]
    joined = join_references(source_of(tmp_path, QUESTIONS), source_of(tmp_path, answers, "answers.jsonl"))
    bad = [row for row in joined.rows() if isinstance(row, BadRow)]
    assert [row.line for row in bad] == [4, 5, 6]
    assert "in answers.jsonl: choice 1 of 'choices' has no list of turns." in bad[0].reason
    assert "'question_id' is missing" in bad[1].reason
    reader = read_examples(joined, TurnsMapping(references=JOINED))
    assert sum(batch.num_rows for batch in reader) == 3
    with pytest.raises(InputError, match="3 of 5 rows are bad"):
        reader.report.require_no_bad_rows()


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    questions = source_of(tmp_path, QUESTIONS)
    with pytest.raises(InputError, match="no common column"):
        join_references(questions, source_of(tmp_path, [{"key": 1, "output": "a"}], "other.jsonl"))
    with pytest.raises(InputError, match="None of the answers"):
        join_references(questions, source_of(tmp_path, [{"question_id": 7, "output": "a"}], "other.jsonl"))


@pytest.mark.parametrize("turns", [None, [], "a question", 5, [{"text": "a"}]])
def test_turns_of_another_form_are_refused(tmp_path: Path, turns: Any) -> None:
    source = source_of(tmp_path, [*QUESTIONS, {"question_id": 3, "turns": turns}])
    assert isinstance(mapped(source, TurnsMapping())[2], BadRow)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data is not here")
def test_the_papers_evaluation_sets_are_read_whole() -> None:
    instructions = open_source(SHARED / "user_oriented_instructions.jsonl")
    questions = open_source(SHARED / "mt_bench_question.jsonl")
    joined = join_references(questions, open_source(SHARED / "mt_bench_reference_gpt4.jsonl"))
    counts = []
    for source in (instructions, questions, joined):
        mapping = detect_evaluation_shape(source)
        assert mapping is not None
        reader = read_examples(source, mapping)
        n_examples = sum(batch.num_rows for batch in reader)
        counts.append((n_examples, reader.report.n_empty_responses, reader.report.n_bad_rows))
    assert counts == [(252, 0, 0), (80, 80, 0), (80, 50, 0)]
