"""CSV, TSV and Parquet: ragged rows, stray quotes, duplicate columns, odd types."""

from __future__ import annotations

import datetime
import decimal
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from core.formats import ColumnMapping, open_source, read_examples
from tests.core.test_formats_open import CONTAINERS, bad, good, refusal, written


def test_duplicate_columns_are_named(tmp_path: Path) -> None:
    message = refusal(written(tmp_path, "rows.csv", "instruction,output, output,input,input\na,b,c,d,e\n"))
    assert "'output', 'input'" in message
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["x", "x"])
    pq.write_table(table, tmp_path / "rows.parquet")
    assert "'x'" in refusal(tmp_path / "rows.parquet")


def test_ragged_rows_and_stray_quotes_are_bad_rows_with_their_line(tmp_path: Path) -> None:
    content = 'instruction,output\na,b\n"two\nlines",c\ntoo,many,fields\nfew\n\n"x" y,z\nd,e\n"never closed,f\ng,h\n'
    source = open_source(written(tmp_path, "rows.csv", content))
    assert [row["output"] for row in good(source)] == ["b", "c", "e"]
    found = [(row.line, row.reason) for row in bad(source)]
    assert [line for line, _ in found] == [5, 6, 8, 10]
    assert found[0][1] == "it has 3 fields, but the header has 2."
    assert found[1][1] == "it has 1 fields, but the header has 2."
    assert "double it" in found[2][1]
    assert "lines 10 to 11 were read as one field" in found[3][1]


def test_semicolons_and_unnamed_columns_are_noted(tmp_path: Path) -> None:
    source = open_source(written(tmp_path, "rows.csv", ";instruction;output\n0;a,b;c\n"))
    assert source.columns == ("column_1", "instruction", "output")
    assert good(source) == [{"column_1": "0", "instruction": "a,b", "output": "c"}]
    assert len(source.notes) == 2


def test_windows_line_ends_and_nul_in_a_table(tmp_path: Path) -> None:
    source = open_source(written(tmp_path, "rows.csv", b'instruction,output\r\na\0,"x\r\ny"\r\n'))
    assert good(source) == [{"instruction": "a\0", "output": "x\r\ny"}]


def test_parquet_with_odd_types(tmp_path: Path) -> None:
    table = pa.table(
        {
            "instruction": pa.array(["a", "b"]).dictionary_encode(),
            "output": pa.array([b"bytes", b"\xff\xfe"], pa.binary()),
            "day": pa.array([datetime.date(2024, 2, 29), None]),
            "price": pa.array([decimal.Decimal("1.50"), None]),
            "at": pa.array([1, 2], pa.timestamp("ns", tz="UTC")),
            "vector": pa.array([[1.0, float("nan")], []], pa.list_(pa.float32())),
            "nested": pa.array([{"k": [1]}, None]),
            "big": pa.array(["x", "y"], pa.large_string()),
        }
    )
    pq.write_table(table, tmp_path / "odd.parquet")
    reader = read_examples(
        open_source(tmp_path / "odd.parquet"), ColumnMapping(instruction="instruction", output="output")
    )
    [batch] = list(reader)
    assert batch["output"].to_pylist() == ["bytes"]
    metadata = json.loads(batch["metadata"][0].as_py())
    assert metadata["day"] == "2024-02-29"
    assert metadata["price"] == "1.50"
    assert metadata["vector"] == [1.0, None]
    assert metadata["nested"] == {"k": [1]}
    [row] = reader.report.bad_rows
    assert (row.line, row.reason) == (2, "'output' holds bytes that are not UTF-8 text.")


def test_parquet_values_without_a_python_form_make_their_row_bad(tmp_path: Path) -> None:
    broken = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"a\xff")]
    )
    pq.write_table(pa.table({"instruction": broken, "output": ["x", "y"]}), tmp_path / "bad.parquet")
    source = open_source(tmp_path / "bad.parquet")
    assert good(source) == [{"instruction": "a", "output": "x"}]
    assert [row.line for row in bad(source)] == [2]


def test_a_truncated_parquet_is_told(tmp_path: Path) -> None:
    content = CONTAINERS["rows.parquet"][1]
    assert "not a readable Parquet file" in refusal(written(tmp_path, "a.parquet", content[: len(content) // 2]))
    assert "not a readable Parquet file" in refusal(written(tmp_path, "a.parquet.gz", gzip.compress(content[:-4])))
