"""What is exported is what was asked for: the same bytes again, and the same examples when it is read back."""

from __future__ import annotations

import csv
import hashlib
import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from core import __version__
from core.errors import InputError, StoreError
from core.example import Example
from core.export import (
    FORMATS,
    ExportRow,
    chat_turns,
    dataset_digest,
    export_format,
    manifest,
    manifest_path,
    write_export,
    write_manifest,
)
from core.formats import ColumnMapping, detect_shape, open_source, read_examples

KEYS = [one.key for one in FORMATS]
EXAMPLES = [
    Example("Name a river.", "", "The Rhine"),
    Example("Zeile 1\nZeile 2\r\n\t\"x\", 'y'; 你好 👋\u2028end", "", "a, b\n\nc \\ d \0 e"),
    Example("<script>alert(1)</script>", "", "![x](http://x)"),
    Example("empty response", "", ""),
]
WITH_INPUT = [Example("Add.", "2, 3\n\nplease", "5"), Example("", "only an input", "y")]


def rows_of(examples: list[Example]) -> list[ExportRow]:
    verdicts = ("accepted", "rejected", "undecided")
    return [
        ExportRow(example=example, metadata=f'{{"n": {i}}}', verdict=verdicts[i % 3], source="original")
        for i, example in enumerate(examples)
    ]


def read_back(path: Path) -> list[Example]:
    source = open_source(path)
    mapping = detect_shape(source)
    assert mapping is not None
    reader = read_examples(source, mapping)
    examples = [
        Example(row["instruction"], row["input"], row["output"]) for batch in reader for row in batch.to_pylist()
    ]
    reader.report.require_no_bad_rows()
    return examples


@pytest.mark.parametrize("key", KEYS)
def test_what_was_exported_is_read_back(tmp_path: Path, key: str) -> None:
    path = tmp_path / f"set{export_format(key).extension}"
    examples = EXAMPLES if key in ("sharegpt", "messages") else EXAMPLES + WITH_INPUT
    result = write_export(rows_of(examples), format=key, path=path)
    assert open_source(path).notes == ()
    assert read_back(path) == examples
    assert (result.n_rows, result.n_bytes) == (len(examples), path.stat().st_size)
    assert result.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert result.dataset_digest == dataset_digest(example.hash for example in examples)
    assert sum(result.n_by_verdict.values()) == len(examples)
    assert result.notes == ()
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("key", KEYS)
def test_the_same_rows_give_the_same_bytes(tmp_path: Path, key: str) -> None:
    rows = rows_of(EXAMPLES + WITH_INPUT) * 1800  # two row groups of Parquet
    first = write_export(iter(rows), format=key, path=tmp_path / "one")
    again = write_export(rows, format=key, path=tmp_path / "one")
    other = write_export(rows[::-1], format=key, path=tmp_path / "other")
    assert (first.sha256, first.dataset_digest) == (again.sha256, again.dataset_digest)
    assert other.sha256 != first.sha256
    assert other.dataset_digest != first.dataset_digest


@pytest.mark.parametrize("key", KEYS)
def test_an_empty_set_is_written_too(tmp_path: Path, key: str) -> None:
    result = write_export([], format=key, path=tmp_path / "set")
    assert result.n_rows == 0
    with pytest.raises(InputError, match="is empty" if key in ("jsonl", "messages") else "holds no rows"):
        open_source(tmp_path / "set")


def test_the_records_of_each_format(tmp_path: Path) -> None:
    [row] = rows_of([WITH_INPUT[0]])
    texts = {"instruction": "Add.", "input": "2, 3\n\nplease", "output": "5"}
    full = texts | {"verdict": "accepted", "source": "original", "metadata": {"n": 0}}
    user = "Add.\n\n2, 3\n\nplease"
    expected: dict[str, Any] = {
        "alpaca": [texts],
        "jsonl": full,
        "sharegpt": [{"conversations": [{"from": "human", "value": user}, {"from": "gpt", "value": "5"}]}],
        "messages": {"messages": [{"role": "user", "content": user}, {"role": "assistant", "content": "5"}]},
    }
    for key, content in expected.items():
        result = write_export([row], format=key, path=tmp_path / key)
        assert json.loads((tmp_path / key).read_text()) == content
        assert bool(result.notes) == (key in ("sharegpt", "messages"))
    write_export([row], format="parquet", path=tmp_path / "parquet")
    assert pq.read_table(tmp_path / "parquet").to_pylist() == [full | {"metadata": '{"n": 0}'}]
    write_export([row], format="csv", path=tmp_path / "csv")
    with (tmp_path / "csv").open(newline="") as stream:
        assert list(csv.DictReader(stream)) == [full | {"metadata": '{"n": 0}'}]


def test_csv_disarms_formulas_and_changes_nothing_else(tmp_path: Path) -> None:
    texts = ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\tx", "\rx", " =1", "a=b", "'quoted", "#", "1"]
    rows = [ExportRow(example=Example(text, text, text), verdict="=v", source="s") for text in texts]
    result = write_export(rows, format="csv", path=tmp_path / "set.csv")
    with (tmp_path / "set.csv").open(newline="") as stream:
        cells = [(row["instruction"], row["input"], row["output"]) for row in csv.DictReader(stream)]
    assert cells == [(("'" + text if index < 6 else text),) * 3 for index, text in enumerate(texts)]
    assert result.notes[0].startswith(f"{6 * 3 + len(texts)} cell(s)")


# ---- conversations ----

TALKS: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi", "name": "Ada"},
        {"role": "assistant", "content": "Hello", "weight": 0},
        {"role": "user", "content": [{"type": "text", "text": "Name "}, {"type": "text", "text": "a river"}]},
        {"role": "assistant", "content": "Rhine"},
        {"role": "user", "content": "And another?"},
    ],
    [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": 1}]},
        {"role": "tool", "content": "42"},
        {"role": "assistant", "content": "It is 42."},
    ],
]


def imported(path: Path) -> list[ExportRow]:
    source = open_source(path)
    mapping = detect_shape(source)
    assert mapping is not None
    return [
        ExportRow(example=Example(row["instruction"], row["input"], row["output"]), metadata=row["metadata"])
        for batch in read_examples(source, mapping)
        for row in batch.to_pylist()
    ]


@pytest.fixture
def talks(tmp_path: Path) -> list[ExportRow]:
    path = tmp_path / "talks.jsonl"
    path.write_text("".join(json.dumps({"id": i, "messages": talk}) + "\n" for i, talk in enumerate(TALKS)))
    return imported(path)


def test_messages_come_back_turn_by_turn(tmp_path: Path, talks: list[ExportRow]) -> None:
    result = write_export(talks, format="messages", path=tmp_path / "out.jsonl")
    assert [json.loads(line)["messages"] for line in (tmp_path / "out.jsonl").read_text().splitlines()] == TALKS
    assert result.notes == ()
    assert [row.example for row in imported(tmp_path / "out.jsonl")] == [row.example for row in talks]


def test_sharegpt_comes_back_turn_by_turn(tmp_path: Path, talks: list[ExportRow]) -> None:
    write_export(talks, format="sharegpt", path=tmp_path / "share.json")
    assert json.loads((tmp_path / "share.json").read_text())[0] == {
        "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    }
    again = imported(tmp_path / "share.json")
    assert [row.example for row in again] == [row.example for row in talks]
    first = write_export(again, format="sharegpt", path=tmp_path / "again.json")
    assert first.sha256 == hashlib.sha256((tmp_path / "share.json").read_bytes()).hexdigest()


def test_a_reflected_response_keeps_the_earlier_turns_and_drops_what_followed(talks: list[ExportRow]) -> None:
    old = talks[1]
    new = ExportRow(example=Example("Name two rivers", old.example.input, "Rhine, Elbe"), metadata=old.metadata)
    turns = chat_turns(new, speaker="role", text="content")
    assert turns[:3] == TALKS[1][:3]
    assert turns[3:] == [
        {"role": "user", "content": "Name two rivers"},
        {"role": "assistant", "content": "Rhine, Elbe"},
    ]


def test_another_context_does_not_get_the_old_turns(talks: list[ExportRow]) -> None:
    new = ExportRow(example=Example("On its own", "", "y"), metadata=talks[1].metadata)
    assert chat_turns(new, speaker="from", text="value") == [
        {"from": "human", "value": "On its own"},
        {"from": "gpt", "value": "y"},
    ]


@pytest.mark.parametrize(
    "metadata", ['{"messages": [{"role": "user", "content": "a"}]}', "[1]", '"text"', "null", None]
)
def test_metadata_without_a_conversation_is_no_conversation(metadata: str | None) -> None:
    row = ExportRow(example=Example("a", "", "b"), metadata=metadata)
    assert [turn["content"] for turn in chat_turns(row, speaker="role", text="content")] == ["a", "b"]


# ---- whole or not at all ----


def test_an_unknown_format_and_damaged_metadata_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Choose one of: alpaca, jsonl, sharegpt, messages, parquet, csv"):
        write_export([], format="xml", path=tmp_path / "x")
    with pytest.raises(InputError, match="is no JSON"):
        write_export([ExportRow(example=EXAMPLES[0], metadata="{")], format="jsonl", path=tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


@contextmanager
def files_of_4_kb() -> Iterator[None]:
    """The kernel refuses to let a file grow past 4 kB, as a full disk does.

    Never longer than the write under test: the output of the test run itself may be a longer file.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("key", KEYS)
def test_a_disk_that_fills_up_leaves_the_old_file(tmp_path: Path, key: str) -> None:
    path = tmp_path / "set"
    path.write_text("old")
    rows = rows_of([Example(f"{i}", "", hashlib.sha256(b"%d" % i).hexdigest()) for i in range(5000)])
    message = r"set could not be written: File too large\. Nothing was left behind"
    with pytest.raises(StoreError, match=message), files_of_4_kb():
        write_export(rows, format=key, path=path)
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["set"]


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="could not be written"):
        write_export([], format="csv", path=tmp_path / "file" / "set.csv")


def test_the_manifest_says_what_when_and_by_whom_and_the_data_do_not(tmp_path: Path) -> None:
    path = tmp_path / "set.json"
    result = write_export(rows_of(EXAMPLES), format="alpaca", path=path)
    content = manifest(
        result,
        dataset="alpaca 9k",
        choices={"undecided": "original", "rejected": "original", "filters": {}},
        scorers=[{"output": "ifd", "version": "1", "model": "demo"}],
        created_at="2026-11-20T12:00:00",
        created_by="Ada",
    )
    write_manifest(content, manifest_path(path))
    assert manifest_path(path).name == "set.json.manifest.json"
    assert json.loads(manifest_path(path).read_text()) == content
    assert content["assay_version"] == __version__
    assert content["n_by_verdict"] == {"accepted": 2, "rejected": 1, "undecided": 1}
    assert content["file"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert content["dataset_digest"] == dataset_digest(example.hash for example in EXAMPLES)
    assert (content["created_at"], content["created_by"]) == ("2026-11-20T12:00:00", "Ada")
    assert b"2026" not in path.read_bytes()


def test_columns_can_be_mapped_from_an_exported_table(tmp_path: Path) -> None:
    write_export(rows_of(EXAMPLES), format="parquet", path=tmp_path / "set.parquet")
    source = open_source(tmp_path / "set.parquet")
    assert source.columns == ("instruction", "input", "output", "verdict", "source", "metadata")
    reader = read_examples(source, ColumnMapping(instruction="instruction", output="output"))
    [batch] = list(reader)
    assert json.loads(batch["metadata"][0].as_py())["verdict"] == "accepted"
