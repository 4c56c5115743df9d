"""The report counts what an import found, and the batches hold what was read."""

from __future__ import annotations

import csv
import io
import json
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InputError
from core.example import content_hash, folded_hash
from core.formats import (
    EXAMPLE_SCHEMA,
    BadRow,
    ColumnMapping,
    ImportReport,
    ReportRow,
    csv_cell,
    detect_shape,
    open_source,
    preview,
    read_examples,
)

SHARED = Path(__file__).parents[3] / "shared" / "data"
MAPPING = ColumnMapping(instruction="q", input="c", output="a")


def jsonl(folder: Path, rows: Sequence[object]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def row(q: str, a: str = "y", c: str = "") -> dict[str, str]:
    return {"q": q, "c": c, "a": a}


def test_batches_have_the_schema_and_the_hashes(tmp_path: Path) -> None:
    path = jsonl(tmp_path, [row(f"q{i}", f"a{i}", "c" * (i % 2)) | {"k": i} for i in range(25)])
    reader = read_examples(open_source(path), MAPPING, batch_rows=10)
    batches = list(reader)
    assert [batch.num_rows for batch in batches] == [10, 10, 5]
    assert all(batch.schema == EXAMPLE_SCHEMA == reader.schema for batch in batches)
    last = batches[-1].to_pylist()[-1]
    assert last == {
        "row": 24,
        "line": 25,
        "hash": content_hash("q24", "", "a24"),
        "folded_hash": folded_hash("q24", "", "a24"),
        "instruction": "q24",
        "input": "",
        "output": "a24",
        "metadata": '{"k": 24}',
    }


def test_a_batch_ends_when_its_texts_are_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.formats.importing._BATCH_CHARS", 100)
    path = jsonl(tmp_path, [row("q" * 60) for _ in range(5)])
    assert [batch.num_rows for batch in read_examples(open_source(path), MAPPING)] == [2, 2, 1]


def test_the_report_lists_everything_with_lines(tmp_path: Path) -> None:
    rows = [row("one"), "{broken", row("one"), row(" ONE "), row("two", ""), row("one"), "", row("two", " "), [1]]
    reader = read_examples(open_source(jsonl(tmp_path, rows)), MAPPING)
    list(reader)
    report = reader.report
    assert (report.rows_read, report.n_examples, report.n_bad_rows) == (8, 6, 2)
    assert (report.n_empty_responses, report.n_exact_duplicates, report.n_folded_duplicates) == (2, 2, 2)
    assert list(report.duplicate_pairs()) == [(3, 1), (6, 1)]
    assert list(report.duplicate_pairs(folded=True)) == [(4, 1), (8, 5)]
    found = list(report.to_rows())
    assert [(item.kind, item.line) for item in found] == [
        ("bad row", 2),
        ("bad row", 9),
        ("empty response", 5),
        ("empty response", 8),
        ("exact duplicate", 3),
        ("exact duplicate", 6),
        ("folded duplicate", 4),
        ("folded duplicate", 8),
    ]
    assert found[0].excerpt == "{broken "
    summary = report.summary()
    assert json.loads(json.dumps(summary)) == summary
    assert summary["n_bad_rows"] == 2


def test_skipping_bad_rows_is_the_users_choice(tmp_path: Path) -> None:
    reader = read_examples(open_source(jsonl(tmp_path, [row("a"), "{broken"])), MAPPING)
    list(reader)
    with pytest.raises(InputError, match=r"1 of 2 rows are bad, so nothing was imported\. The first is at line 2"):
        reader.report.require_no_bad_rows()
    clean = read_examples(open_source(jsonl(tmp_path, [row("a")])), MAPPING)
    list(clean)
    clean.report.require_no_bad_rows()


def test_the_downloaded_report_runs_no_formula(tmp_path: Path) -> None:
    rows = [row("a"), "=cmd|' /C calc'!A0", '@x,"y"', "+1", "-é"]
    reader = read_examples(open_source(jsonl(tmp_path, rows)), MAPPING)
    list(reader)
    text = reader.report.to_csv().decode("utf-8-sig")
    table = list(csv.reader(io.StringIO(text)))
    assert table[0] == ["kind", "line", "reason", "excerpt"]
    assert [line[3] for line in table[1:]] == ["'=cmd|' /C calc'!A0 ", '\'@x,"y" ', "'+1 ", "'-é "]


@given(st.text())
def test_a_cell_is_changed_only_where_it_must_be(text: str) -> None:
    cell = csv_cell(text)
    assert cell == (("'" + text) if text[:1] in ("=", "+", "-", "@", "\t", "\r") and text else text)


def test_many_bad_rows_are_counted_but_not_all_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.formats.report.MAX_LISTED_BAD_ROWS", 2)
    report = ImportReport(source="x", container="CSV", shape="columns")
    for line in (4, 5, 6):
        report.add_bad_row(BadRow(line, "why."))
    assert report.n_bad_rows == 3
    assert list(report.to_rows())[-1] == ReportRow("bad row", 5, "1 more bad rows after this line are not listed.")


def test_an_empty_report_has_no_duplicates() -> None:
    report = ImportReport(source="x", container="CSV", shape="columns")
    assert (report.n_exact_duplicates, report.n_folded_duplicates, list(report.to_rows())) == (0, 0, [])


@given(st.lists(st.sampled_from(["a", "A", " a", "b", "c  d", "C d"]), max_size=40))
def test_duplicates_agree_with_counting_by_hand(texts: list[str]) -> None:
    report = ImportReport(source="x", container="CSV", shape="columns")
    exact: dict[str, int] = {}
    folded: dict[str, int] = {}
    pairs, folded_pairs = [], []
    for line, text in enumerate(texts, start=1):
        key, fold = content_hash(text, "", ""), folded_hash(text, "", "")
        report.add_example(line, key, fold, empty_response=False)
        if key in exact:
            pairs.append((line, exact[key]))
        elif fold in folded:
            folded_pairs.append((line, folded[fold]))
        exact.setdefault(key, line)
        folded.setdefault(fold, line)
    assert list(report.duplicate_pairs()) == pairs
    assert list(report.duplicate_pairs(folded=True)) == folded_pairs


def test_preview_shows_the_first_rows_bad_ones_too(tmp_path: Path) -> None:
    rows: list[object] = [row(f"q{i}") for i in range(200)]
    rows[1] = "{broken"
    source = open_source(jsonl(tmp_path, rows))
    shown = preview(source, MAPPING, n=3)
    assert [line for line, _, _ in shown] == [1, 2, 3]
    assert isinstance(shown[1][1], BadRow)
    assert len(preview(source, MAPPING)) == 10
    assert len(preview(source, MAPPING, n=150)) == 150


def test_reading_can_be_given_up_early(tmp_path: Path) -> None:
    reader = read_examples(open_source(jsonl(tmp_path, [row(f"q{i}") for i in range(30)])), MAPPING, batch_rows=10)
    assert next(reader).num_rows == 10
    reader.close()
    assert list(reader) == []


def test_200_000_rows_need_little_memory(tmp_path: Path) -> None:
    """A process of its own reads 200,000 rows (about 50 MB); its peak stays far below 1.5 GB."""
    rng = random.Random(1)
    words = [f"word{rng.randrange(10**6)}" for _ in range(1000)]
    path = tmp_path / "rows.jsonl"
    with path.open("w") as stream:
        for index in range(200_000):
            text = " ".join(rng.choices(words, k=12))
            stream.write(json.dumps({"instruction": f"{index} {text}", "input": "", "output": text * 2}) + "\n")
    script = "import sys, pathlib; from tests.benchmarks.import_memory import measure; import json; "
    script += "print(json.dumps(measure(pathlib.Path(sys.argv[1]))))"
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], cwd=root, capture_output=True, text=True, check=True
    )
    measured = json.loads(done.stdout)
    assert measured["examples"] == 200_000
    assert measured["mb_peak"] < 600


@pytest.mark.parametrize(
    ("name", "n", "shape", "n_empty"),
    [
        ("alpaca_random_9k.json", 9229, "alpaca", 4),
        ("cherry_alpaca_5_percent.json", 3111, "alpaca", 0),
        ("dolly_3k.json", 2996, "alpaca", 0),
        ("gsm8k_2k.json", 2000, "alpaca", 0),
        ("user_oriented_instructions.jsonl", 252, "self-instruct", 0),
    ],
)
def test_real_files_are_recognised_and_imported_whole(name: str, n: int, shape: str, n_empty: int) -> None:
    path = SHARED / name
    if not path.exists():
        pytest.skip("the shared real rows are not there")
    source = open_source(path)
    mapping = detect_shape(source)
    assert mapping is not None
    assert mapping.name == shape
    assert source.notes == ()
    reader = read_examples(source, mapping)
    batches = list(reader)
    assert sum(batch.num_rows for batch in batches) == reader.report.n_examples == n
    assert (reader.report.n_bad_rows, reader.report.n_empty_responses) == (0, n_empty)
    metadata = batches[0]["metadata"][0].as_py()
    assert (metadata is not None) == (name in ("dolly_3k.json", "user_oriented_instructions.jsonl"))


@pytest.mark.parametrize(
    "name", ["mt_bench_question.jsonl", "mt_bench_reference_gpt4.jsonl", "judge_logs/vicuna_gpt4.json"]
)
def test_real_files_without_instruction_rows_are_left_to_the_user(name: str) -> None:
    path = SHARED / name
    if not path.exists():
        pytest.skip("the shared real rows are not there")
    source = open_source(path)
    assert detect_shape(source) is None
    with pytest.raises(InputError, match="has no column 'instruction', 'output'"):
        read_examples(source, ColumnMapping(instruction="instruction", output="output"))
    if name.startswith("mt_bench_question"):
        _, found, _ = preview(source, ColumnMapping(instruction="turns", output="category"))[0]
        assert isinstance(found, BadRow)
        assert "'turns' holds a list (nested data), not text" in found.reason
    if name.startswith("judge"):
        _, found, _ = preview(source, ColumnMapping(instruction="text", output="Answer1"))[0]
        assert not isinstance(found, BadRow)
