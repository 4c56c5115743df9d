"""Files are recognised by their content; each kind of damage is told in plain words with its place."""

from __future__ import annotations

import csv
import gzip
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import InputError
from core.formats import BadRow, ColumnMapping, Source, open_source, read_examples

ROWS = [
    {"instruction": "Name a river.", "input": "", "output": "The Rhine"},
    {"instruction": "Add.", "input": "2, 3\nplease", "output": 'He said "5"'},
    {"instruction": "Übersetze: 你好", "input": "", "output": "Hallo 👋"},
]
COLUMNS = ("instruction", "input", "output")
MAPPING = ColumnMapping(instruction="instruction", input="input", output="output")


def written(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def csv_text(rows: list[dict[str, str]], delimiter: str = ",") -> str:
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def parquet_bytes(rows: list[dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


CONTAINERS: dict[str, tuple[str, bytes]] = {
    "rows.json": ("JSON list", json.dumps(ROWS, indent=2).encode()),
    "rows.jsonl": ("JSON Lines", "\n".join(json.dumps(row) for row in ROWS).encode()),
    "rows.csv": ("CSV", csv_text(ROWS).encode()),
    "rows.tsv": ("TSV", csv_text(ROWS, "\t").encode()),
    "rows.parquet": ("Parquet", parquet_bytes(ROWS)),
}


def good(source: Source) -> list[dict[str, Any]]:
    return [row[1] for row in source.rows() if not isinstance(row, BadRow)]


def bad(source: Source) -> list[BadRow]:
    return [row for row in source.rows() if isinstance(row, BadRow)]


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        open_source(path)
    assert path.name in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzipped"])
@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_gives_the_same_rows(tmp_path: Path, name: str, packed: bool) -> None:
    container, content = CONTAINERS[name]
    path = written(tmp_path, name + ".gz" if packed else name, gzip.compress(content) if packed else content)
    source = open_source(path)
    assert (source.container, source.columns, source.notes) == (container, COLUMNS, ())
    assert good(source) == ROWS
    assert source.sample(2) == ROWS[:2]
    assert source.reading.fraction == 1.0


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize("wrong", ["rows.csv", "rows.json", "rows.parquet", "rows.jsonl"])
def test_a_wrong_extension_is_read_as_what_it_is_with_a_note(tmp_path: Path, name: str, wrong: str) -> None:
    container, content = CONTAINERS[name]
    source = open_source(written(tmp_path, wrong, content))
    assert good(source) == ROWS
    assert bool(source.notes) == (wrong != name)
    assert all(container in note for note in source.notes)


def test_the_users_name_stands_in_messages(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^mine\.json is empty"):
        open_source(written(tmp_path, "upload-17", b""), name="mine.json")


@pytest.mark.parametrize("name", ["a.json", "a.csv", "a.jsonl.gz"])
@pytest.mark.parametrize("content", [b"", b"  \n\n \t", b"\xef\xbb\xbf"], ids=["nothing", "white space", "only a BOM"])
def test_an_empty_file(tmp_path: Path, name: str, content: bytes) -> None:
    packed = gzip.compress(content) if name.endswith(".gz") else content
    assert "is empty" in refusal(written(tmp_path, name, packed))


@pytest.mark.parametrize("content", ["[]", "instruction,output\n", " [ ] "])
def test_a_file_without_rows(tmp_path: Path, content: str) -> None:
    assert "holds no rows" in refusal(written(tmp_path, "rows", content))


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    assert "not a file" in refusal(tmp_path / "none.json")
    assert "not a file" in refusal(tmp_path)


def test_a_truncated_gzip_is_told_and_does_not_hang(tmp_path: Path) -> None:
    packed = gzip.compress(CONTAINERS["rows.jsonl"][1] * 50)
    assert "cut off or damaged" in refusal(written(tmp_path, "rows.jsonl.gz", packed[: len(packed) // 2]))
    assert "cut off or damaged" in refusal(written(tmp_path, "crc.jsonl.gz", packed[:-8] + b"\0" * 8))


def test_a_long_gzip_that_ends_early_gives_its_rows_and_then_the_error(tmp_path: Path) -> None:
    lines = "".join(json.dumps({"instruction": f"{i * 7919}", "output": f"{i**3}"}) + "\n" for i in range(50_000))
    packed = gzip.compress(lines.encode())
    source = open_source(written(tmp_path, "rows.jsonl.gz", packed[: len(packed) * 9 // 10]))
    reader = read_examples(source, ColumnMapping(instruction="instruction", output="output"), batch_rows=1000)
    with pytest.raises(InputError, match=r"rows\.jsonl\.gz: the gzip data is cut off"):
        list(reader)
    assert reader.report.n_examples > 1000


# ---- text that is not UTF-8 ----


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "rows.csv", "rows.tsv"])
def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path, name: str) -> None:
    source = open_source(written(tmp_path, name, b"\xef\xbb\xbf" + CONTAINERS[name][1]))
    assert source.columns == COLUMNS
    assert good(source) == ROWS


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_told(tmp_path: Path, encoding: str) -> None:
    message = refusal(written(tmp_path, "rows.csv", csv_text(ROWS[:2]).encode(encoding)))
    assert "UTF-16" in message
    assert "UTF-8" in message


def test_a_line_that_is_not_utf_8_is_a_bad_row_with_byte_and_line(tmp_path: Path) -> None:
    fine = b'{"instruction": "a", "output": "b"}\n'
    content = fine + b'{"instruction": "caf\xe9", "output": "b"}\n' + fine
    source = open_source(written(tmp_path, "rows.jsonl", content))
    assert len(good(source)) == 2
    [row] = bad(source)
    assert row.line == 2
    assert f"0xE9 at byte {content.index(0xE9)} is not UTF-8" in row.reason
    assert "caf" in row.excerpt


def test_a_table_row_that_is_not_utf_8_is_a_bad_row_even_inside_quotes(tmp_path: Path) -> None:
    content = b'instruction,output\na,b\n"x\ncaf\xe9\ny",z\nc,d\n'
    source = open_source(written(tmp_path, "rows.csv", content))
    assert [row["instruction"] for row in good(source)] == ["a", "c"]
    [row] = bad(source)
    assert (row.line, f"0xE9 at byte {content.index(0xE9)}" in row.reason) == (3, True)


def test_a_json_list_that_is_not_utf_8_names_byte_and_line(tmp_path: Path) -> None:
    content = b'[\n{"instruction": "a", "output": "b"},\n{"instruction": "caf\xe9", "output": "b"}\n]'
    message = refusal(written(tmp_path, "rows.json", content))
    assert "line 3" in message
    assert f"0xE9 at byte {content.index(0xE9)}" in message


def test_a_latin_1_header_is_refused(tmp_path: Path) -> None:
    assert "is not UTF-8 text" in refusal(written(tmp_path, "rows.csv", "instruction,réponse\na,b\n".encode("latin-1")))


# ---- what is no table at all ----


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"PK\x03\x04rest", "Excel"),
        (b"%PDF-1.7 rest", "PDF"),
        (b"\x28\xb5\x2f\xfdrest", "Zstandard"),
        (b"\x80\x04\x95rest", "pickle"),
        (b"\0" * 100, "NUL bytes"),
        (bytes(range(64)) * 2 + b"\0" * 60, "not text at all"),
        (b"<!DOCTYPE html><html>404</html>", "web page"),
        (b"just a sentence\nand one more\n", "neither JSON nor a table"),
        (b"PAR1 this is no parquet file PAR1", "not a readable Parquet file"),
    ],
)
def test_other_kinds_of_files_are_named(tmp_path: Path, content: bytes, said: str) -> None:
    assert said in refusal(written(tmp_path, "rows.json", content))


# ---- JSON ----


def test_an_object_that_wraps_one_list_is_read_with_a_note(tmp_path: Path) -> None:
    for content in ({"data": ROWS}, {"meta": {"n": 3, "list": [1]}, "data": ROWS, "tags": ["x"]}):
        for indent in (None, 2):
            source = open_source(written(tmp_path, "rows.json", json.dumps(content, indent=indent)))
            assert good(source) == ROWS
            [note] = source.notes
            assert "“data”" in note
            assert ("“meta”, “tags”" in note) == ("meta" in content)


def test_an_object_that_is_one_row_is_one_row(tmp_path: Path) -> None:
    for indent in (None, 2):
        assert good(open_source(written(tmp_path, "row.json", json.dumps(ROWS[0], indent=indent)))) == [ROWS[0]]
    chat = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    assert good(open_source(written(tmp_path, "row.json", json.dumps(chat)))) == [chat]
    odd = {"question": "a", "answer": "b"}
    assert good(open_source(written(tmp_path, "row.jsonl", json.dumps(odd)))) == [odd]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"a": ROWS, "b": ROWS}, "2 lists of objects (a, b)"),
        ({"question": "x", "n": 1}, "question: text, n: a number"),
        ({}, "it is empty"),
        ({"instruction": {"0": "a"}, "output": {"0": "b"}}, "orient='records'"),
        ({"data": {"rows": {"deep": ROWS}}}, "data: an object"),
    ],
)
def test_an_object_that_is_no_list_of_rows_is_refused_with_what_it_holds(
    tmp_path: Path, content: dict[str, Any], said: str
) -> None:
    assert said in refusal(written(tmp_path, "rows.json", json.dumps(content)))


def test_objects_over_several_lines_one_after_another(tmp_path: Path) -> None:
    content = "\n".join(json.dumps(row, indent=1) for row in ROWS)
    source = open_source(written(tmp_path, "rows.jsonl", content))
    assert good(source) == ROWS
    assert [row[0] for row in source.rows() if not isinstance(row, BadRow)] == [1, 6, 11]


def test_rows_that_are_no_objects_are_bad_rows(tmp_path: Path) -> None:
    rows = [json.dumps(ROWS[0]), "[1, 2]", '"text"', "7", "null", json.dumps(ROWS[1])]
    for name, content in (("a.json", "[" + ",\n".join(rows) + "]"), ("a.jsonl", "\n".join(rows))):
        source = open_source(written(tmp_path, name, content))
        assert good(source) == ROWS[:2]
        assert [(row.line, row.reason.split(",")[0]) for row in bad(source)] == [
            (2, "the row is a list"),
            (3, "the row is text"),
            (4, "the row is a number"),
            (5, "the row is null"),
        ]


def test_a_list_of_texts_is_refused(tmp_path: Path) -> None:
    assert "None of the first 3 rows" in refusal(written(tmp_path, "a.json", '["a", "b", "c"]'))


def test_broken_lines_do_not_touch_the_others(tmp_path: Path) -> None:
    lines = ['{"instruction": "no end', json.dumps(ROWS[0]), "", "{'instruction': 'python'}", json.dumps(ROWS[1])]
    source = open_source(written(tmp_path, "rows.jsonl", "\n".join(lines)))
    assert good(source) == ROWS[:2]
    assert [row.line for row in bad(source)] == [1, 4]
    assert "not valid JSON at column 17" in bad(source)[0].reason


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('[{"a": 1},\n{"a": 2,}, {"a": 3}, {"a": 4444444444}]', "line 2: row 2 of the list is not valid JSON"),
        ('[{"a": 1},\n{"a": 2}', "line 2: after row 2 of the list: the file ends before it is complete"),
        ('[{"a": 1},\n{"a": "never', "line 2: row 2 of the list begins here, but the file ends"),
        ('[{"a": 1}\n{"a": 2}]', "line 2: after row 1 of the list: expected ']' but found '{'"),
        ('[{"a": 1}]\n[{"a": 2}]', "line 2: something follows the end of the list"),
        ('[{"a": 1},]', "row 2 of the list is not valid JSON"),
        ('{"data": [{"a": 1}, {"a"', "begins here, but the file ends"),
        ('[{"a": ' + "[" * 100_000 + "]" * 100_000 + "}]", "nested too deeply"),
        ('[{"a": ' + "9" * 5000 + "}]", "cannot be read"),
    ],
)
def test_a_broken_list_names_row_and_line(tmp_path: Path, content: str, said: str) -> None:
    assert said in refusal(written(tmp_path, "rows.json", content))


def test_a_window_boundary_may_fall_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A number, an escape or a multi-byte character that the window cuts in two is read whole."""
    rows = [{"n": 123456789, "t": 'é 👋 \\ "x', "f": -1.5e-7, "b": True, "z": None}, {"n": -12}, {"n": 3.25}]
    contents = [json.dumps(rows, indent=1, ensure_ascii=ascii_only) for ascii_only in (False, True)]
    paths = [written(tmp_path, f"rows{index}.json", content) for index, content in enumerate(contents)]
    for size in range(1, 40):
        monkeypatch.setattr("core.formats.json_rows._CHUNK_BYTES", size)
        assert [good(open_source(path)) for path in paths] == [rows, rows]
    monkeypatch.setattr("core.formats.json_rows._CHUNK_BYTES", 1)
    numbers = open_source(written(tmp_path, "n.json", '[{"a": 1}, 123456, -1.5e3, true]'))
    assert [row.excerpt for row in bad(numbers)] == ["123456", "-1500.0", "true"]


def test_200_mb_on_one_line_needs_the_memory_of_a_row(tmp_path: Path) -> None:
    """Measured in a process of its own: the file is 200 MB, the process stays far below that."""
    script = """
import json, sys
from pathlib import Path
path = Path(sys.argv[1])
row = json.dumps({"instruction": "x" * 1000, "output": "y" * 99_000})
with path.open("w") as f:
    f.write('{"data": [' + row)
    for _ in range(2000):
        f.write(", " + row)
    f.write("]}")
assert path.stat().st_size > 200_000_000
from core.formats import open_source
n = sum(1 for _ in open_source(path).rows())
peak = next(l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("VmHWM")).split()[1]
print(n, int(peak) // 1024)
"""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", script, str(tmp_path / "one-line.json")]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    n, megabytes = map(int, done.stdout.split())
    assert n == 2001
    assert megabytes < 250


def test_a_row_of_1_mb_is_read_and_one_of_33_mb_is_refused(tmp_path: Path) -> None:
    big = {"instruction": "x" * 1_000_000, "input": "", "output": "y"}
    for name, content in (
        ("a.json", json.dumps([ROWS[0], big])),
        ("a.jsonl", json.dumps(ROWS[0]) + "\n" + json.dumps(big)),
        ("a.csv", csv_text([ROWS[0], big])),
        ("a.parquet", parquet_bytes([ROWS[0], big])),
    ):
        path = written(tmp_path, name, content)
        assert good(open_source(path)) == [ROWS[0], big]
    huge = json.dumps({"instruction": "x" * (33 * 2**20), "output": "y"})
    source = open_source(written(tmp_path, "b.jsonl", "\n".join([json.dumps(ROWS[0]), huge, json.dumps(ROWS[1])])))
    assert good(source) == ROWS[:2]
    assert [(row.line, "longer than 32 MB" in row.reason) for row in bad(source)] == [(2, True)]
    message = refusal(written(tmp_path, "b.json", f"[{json.dumps(ROWS[0])},\n{huge}]"))
    assert "line 2: row 2 of the list is longer than 32 MB" in message


def test_nul_and_control_characters_are_kept(tmp_path: Path) -> None:
    row = {"instruction": "a\0b", "input": "", "output": "tab\there"}
    raw = b'{"instruction": "a\0b", "input": "", "output": "tab\there"}'
    for name, content in (("a.json", b"[" + raw + b"]"), ("a.jsonl", raw), ("a.jsonl", json.dumps(row))):
        source = open_source(written(tmp_path, name, content))
        assert good(source) == [row]
        reader = read_examples(source, MAPPING)
        assert [batch["instruction"].to_pylist() for batch in reader] == [["a\0b"]]
        assert reader.report.notes == ["1 example(s) hold NUL characters; they are kept as they are."]


def test_a_field_named_by_half_a_character_is_not_offered_but_kept(tmp_path: Path) -> None:
    # The widgets that choose the columns died of such a name, and the Load page with them.
    rows = [{"instruction": "Add 2 and 3.", "output": "5", "odd \ud800": "x"}]
    source = open_source(written(tmp_path, "odd.json", json.dumps(rows)))
    assert source.columns == ("instruction", "output")
    batches = list(read_examples(source, ColumnMapping(instruction="instruction", input=None, output="output")))
    assert json.loads(batches[0]["metadata"][0].as_py()) == {"odd \ufffd": "x"}
    unnamed: list[list[dict[str, str]]] = [[{"\ud800": "x"}], [{}]]
    for nameless in unnamed:
        with pytest.raises(InputError, match="no field"):
            open_source(written(tmp_path, "nameless.json", json.dumps(nameless)))
