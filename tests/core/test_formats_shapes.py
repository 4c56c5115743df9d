"""Known shapes are recognised; rows become examples with their metadata; what does not fit says why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import InputError
from core.example import Example
from core.formats import (
    BadRow,
    ChatMapping,
    ColumnMapping,
    InstancesMapping,
    RowMapping,
    Source,
    detect_shape,
    open_source,
    preview,
    read_examples,
)


def source_of(folder: Path, rows: list[dict[str, Any]]) -> Source:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return open_source(path)


def first(folder: Path, row: dict[str, Any], mapping: RowMapping | None = None) -> tuple[Example | BadRow, Any]:
    """(example or bad row, metadata) of one row under its own shape or ``mapping``."""
    source = source_of(folder, [row])
    chosen = mapping or detect_shape(source)
    assert chosen is not None
    _, example, metadata = preview(source, chosen)[0]
    return example, None if metadata is None else json.loads(metadata)


def chat(*turns: tuple[str, str], style: tuple[str, str] = ("role", "content")) -> list[dict[str, str]]:
    return [{style[0]: role, style[1]: text} for role, text in turns]


SHAPES: list[tuple[str, dict[str, Any], Example, dict[str, Any] | None]] = [
    ("alpaca", {"instruction": "a", "input": "b", "output": "c"}, Example("a", "b", "c"), None),
    ("alpaca", {"instruction": "a", "output": "c"}, Example("a", "", "c"), None),
    ("alpaca", {"Instruction": "a", "Output ": "c", "id": 7}, Example("a", "", "c"), {"id": 7}),
    (
        "alpaca",
        {"instruction": "a", "category": "qa", "input": "b", "output": "c"},
        Example("a", "b", "c"),
        {"category": "qa"},
    ),
    (
        "dolly",
        {"instruction": "a", "context": "b", "response": "c", "category": "qa"},
        Example("a", "b", "c"),
        {"category": "qa"},
    ),
    ("prompt-completion", {"prompt": "a", "completion": "c"}, Example("a", "", "c"), None),
    ("prompt-completion", {"prompt": "a", "response": "c", "n": None}, Example("a", "", "c"), {"n": None}),
    (
        "self-instruct",
        {"id": "t0", "instruction": "a", "instances": [{"input": "b", "output": "c"}]},
        Example("a", "b", "c"),
        {"id": "t0"},
    ),
]


@pytest.mark.parametrize(("name", "row", "example", "metadata"), SHAPES)
def test_a_known_shape_is_recognised(
    tmp_path: Path, name: str, row: dict[str, Any], example: Example, metadata: dict[str, Any] | None
) -> None:
    found = detect_shape(source_of(tmp_path, [row]))
    assert found is not None
    assert found.name == name
    assert found.describe().startswith("instruction = ")
    assert first(tmp_path, row) == (example, metadata)


@pytest.mark.parametrize(
    "row",
    [
        {"question": "a", "answer": "b"},
        {"question_id": 81, "turns": ["a", "b"]},
        {"instruction": "a"},
        {"prompt": ["a"], "completion": "b"},
        {"messages": []},
        {"conversations": [{"speaker": "x", "words": "y"}]},
    ],
)
def test_anything_else_is_left_to_the_user(tmp_path: Path, row: dict[str, Any]) -> None:
    assert detect_shape(source_of(tmp_path, [row])) is None


def test_the_shape_of_most_rows_wins_and_the_widest_mapping_serves_all(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"instruction": "a", "output": "b"}] * 2
    rows += [{"instruction": "a", "input": "i", "output": "b"}, {"text": "odd"}]
    source = source_of(tmp_path, rows)
    assert detect_shape(source) == ColumnMapping(
        name="alpaca", instruction="instruction", input="input", output="output"
    )
    shown = [item[1] for item in preview(source, detect_shape(source))]  # type: ignore[arg-type]
    assert shown[:3] == [Example("a", "", "b"), Example("a", "", "b"), Example("a", "i", "b")]
    assert isinstance(shown[3], BadRow)
    assert detect_shape(source_of(tmp_path, [{"text": "odd"}, rows[0]])) is None


def test_self_instruct_gives_one_example_an_instance(tmp_path: Path) -> None:
    row = {"instruction": "a", "instances": [{"input": "b", "output": "c", "n": 1}, {"output": "e"}]}
    source = source_of(tmp_path, [row, row | {"instances": []}, {"instruction": "z", "instances": [{"output": "y"}]}])
    reader = read_examples(source, InstancesMapping())
    [batch] = list(reader)
    assert batch.select(["row", "line", "instruction", "input", "output"]).to_pylist() == [
        {"row": 0, "line": 1, "instruction": "a", "input": "b", "output": "c"},
        {"row": 1, "line": 1, "instruction": "a", "input": "", "output": "e"},
        {"row": 3, "line": 3, "instruction": "z", "input": "", "output": "y"},
    ]
    assert batch["metadata"].to_pylist() == ['{"instance": {"n": 1}}', None, None]
    assert (reader.report.rows_read, reader.report.n_examples, reader.report.n_bad_rows) == (3, 3, 1)


# ---- conversations ----

TALK = [
    ("system", "Be brief."),
    ("user", "Hi"),
    ("assistant", "Hello"),
    ("user", "Name a river"),
    ("assistant", "Rhine"),
]
EARLIER = "System: Be brief.\n\nUser: Hi\n\nAssistant: Hello"


def test_the_last_turns_are_the_example_and_the_system_prompt_is_an_earlier_turn(tmp_path: Path) -> None:
    row = {"id": 3, "messages": chat(*TALK)}
    assert first(tmp_path, row) == (Example("Name a river", EARLIER, "Rhine"), row)
    share = [{"system": "system", "user": "human", "assistant": "gpt"}[role] for role, _ in TALK]
    turns = chat(*zip(share, [text for _, text in TALK], strict=True), style=("from", "value"))
    assert first(tmp_path, {"conversations": turns})[0] == Example("Name a river", EARLIER, "Rhine")
    found = detect_shape(source_of(tmp_path, [{"conversations": turns}]))
    assert found == ChatMapping(turns="conversations", speaker="from", text="value")
    assert found.name == "sharegpt"


def test_one_question_and_one_answer_have_no_earlier_turns(tmp_path: Path) -> None:
    row = {"messages": chat(("user", "a"), ("assistant", "b"))}
    assert first(tmp_path, row)[0] == Example("a", "", "b")


def test_turns_after_the_last_answer_stay_in_the_metadata(tmp_path: Path) -> None:
    row = {"messages": chat(("user", "a"), ("assistant", "b"), ("user", "and?"))}
    source = source_of(tmp_path, [row])
    reader = read_examples(source, ChatMapping(turns="messages", speaker="role", text="content"))
    [batch] = list(reader)
    assert (batch["instruction"][0].as_py(), batch["output"][0].as_py()) == ("a", "b")
    assert json.loads(batch["metadata"][0].as_py()) == row
    assert "turns after the last response" in reader.report.notes[0]


def test_tool_turns_before_the_answer_are_earlier_turns(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": None, "tool_calls": [1]},
        {"role": "tool", "content": "42"},
        {"role": "assistant", "content": [{"type": "text", "text": "It is "}, {"type": "text", "text": "42."}]},
    ]
    assert first(tmp_path, {"messages": turns})[0] == Example("a", "Assistant: \n\nTool: 42", "It is 42.")


@pytest.mark.parametrize(
    ("turns", "said"),
    [
        (chat(("user", "a")), "has no assistant turn"),
        (chat(("system", "s"), ("assistant", "b")), "no user turn before the"),
        ([{"content": "a"}], "turn 1 of 'messages' does not say who speaks"),
        (["a", "b"], "turn 1 of 'messages' does not say who speaks"),
        ("text", "no list of turns"),
        (None, "no list of turns"),
        ([{"role": "user", "content": [{"type": "image_url"}]}, *chat(("assistant", "b"))], "kind 'image_url'"),
        ([{"role": "user", "content": {"a": 1}}, *chat(("assistant", "b"))], "nested data"),
    ],
)
def test_a_conversation_that_is_no_example_says_why(tmp_path: Path, turns: Any, said: str) -> None:
    mapping = ChatMapping(turns="messages", speaker="role", text="content")
    found, metadata = first(tmp_path, {"messages": turns}, mapping)
    assert isinstance(found, BadRow)
    assert said in found.reason
    assert metadata is None


# ---- columns that the user maps, values that are no text ----

QA = ColumnMapping(instruction="q", input="c", output="a")


def test_columns_are_mapped_by_the_user(tmp_path: Path) -> None:
    row = {"q": "a", "c": "b", "a": "c", "extra": {"deep": [1, None]}}
    assert first(tmp_path, row, QA) == (Example("a", "b", "c"), {"extra": {"deep": [1, None]}})


def test_a_mapping_that_does_not_fit_names_the_columns_there_are(tmp_path: Path) -> None:
    source = source_of(tmp_path, [{"question_id": 81, "turns": ["a"]}])
    with pytest.raises(InputError, match=r"has no column 'instruction', 'output'.*It has: question_id, turns"):
        preview(source, ColumnMapping(instruction="instruction", output="output"))
    with pytest.raises(InputError, match="mapped twice"):
        read_examples(source, ColumnMapping(instruction="turns", output="turns"))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"q": ["a"], "c": "", "a": "b"}, "'q' holds a list (nested data)"),
        ({"q": {"x": 1}, "c": "", "a": "b"}, "'q' holds an object (nested data)"),
        ({"c": "", "a": "b"}, "the field 'q' is missing"),
        ({"q": "a", "c": ""}, "the field 'a' is missing"),
        ({"q": " ", "c": "\n", "a": "b"}, "neither an instruction nor an input"),
        ({"q": None, "c": None, "a": "b"}, "neither an instruction nor an input"),
        ({"q": "half \ud83d", "c": "", "a": "b"}, "lone surrogate"),
    ],
)
def test_a_row_that_does_not_fit_says_why(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    source = source_of(tmp_path, [{"q": "a", "c": "b", "a": "c"}, row])
    _, found, _ = preview(source, QA)[1]
    assert isinstance(found, BadRow)
    assert found.line == 2
    assert said in found.reason
    found.excerpt.encode()  # may be stored


def test_an_empty_instruction_with_an_input_is_an_example(tmp_path: Path) -> None:
    assert first(tmp_path, {"q": "", "c": "b", "a": ""}, QA)[0] == Example("", "b", "")


def test_numbers_and_nothing_become_text_and_are_counted(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"q": 17, "c": True, "a": 1.5},
        {"q": "a", "c": None, "a": float("nan")},
        {"q": "a", "a": None},
        {"q": "a", "c": "", "a": float("inf")},
    ]
    reader = read_examples(source_of(tmp_path, rows), QA)
    [batch] = list(reader)
    assert batch["instruction"].to_pylist() == ["17", "a", "a", "a"]
    assert batch["input"].to_pylist() == ["true", "", "", ""]
    assert batch["output"].to_pylist() == ["1.5", "", "", "inf"]
    report = reader.report
    assert report.empty_response_lines == [2, 3]
    assert [note.split(" ", 1)[0] for note in report.notes] == ["1", "1", "2", "1"]
    assert any("'a' were NaN" in note for note in report.notes)
    assert any("'a' were not text" in note for note in report.notes)


def test_metadata_is_json_that_every_reader_takes(tmp_path: Path) -> None:
    row = {"q": "a", "c": "", "a": "b", "nan": [float("nan"), 1], "half": "x\ud83d", "fine": "é"}
    source = source_of(tmp_path, [row])
    reader = read_examples(source, QA)
    [batch] = list(reader)
    metadata = batch["metadata"][0].as_py()
    assert json.loads(metadata, parse_constant=pytest.fail) == {"nan": [None, 1], "half": "x\ufffd", "fine": "é"}
    assert len(reader.report.notes) == 2


def test_html_scripts_and_formulas_are_text_like_any_other(tmp_path: Path) -> None:
    row = {"q": "<script>alert(1)</script>", "c": "![x](http://x)", "a": "=cmd|' /C calc'!A0"}
    assert first(tmp_path, row, QA)[0] == Example(row["q"], row["c"], row["a"])
