"""How long an import takes and how much memory it needs, for each container: prints one line each.

    python -m tests.benchmarks.import_memory [rows, default 1000000] [containers, default all]

Each import runs in a process of its own, so that its peak memory is its own. Batches are read and dropped, as the store
does with them.
"""

from __future__ import annotations

import csv
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

CONTAINERS = ("jsonl", "json", "csv", "parquet")
_WORDS = ("the", "model", "answer", "question", "because", "river", "number", "seven", "quickly", "naïve", "“so”\n")


def rows(n: int, *, seed: int = 0) -> Iterator[dict[str, str]]:
    """Rows of about 600 characters with a category; every thousandth is a copy of the one before."""
    rng = random.Random(seed)
    pool = [" ".join(rng.choices(_WORDS, k=30)) for _ in range(500)]
    row: dict[str, str] = {}
    for index in range(n):
        if index % 1000 != 999:
            a, b, c, d = rng.choices(pool, k=4)
            row = {"instruction": f"{index} {a[:120]}", "input": "", "output": f"{b} {c} {d[:100]}", "category": "qa"}
        yield row


def write(path: Path, n: int) -> None:
    """Write ``n`` rows in the container that the extension names."""
    if path.suffix == ".parquet":
        _write_parquet(path, n)
        return
    with path.open("w", encoding="utf-8", newline="") as stream:
        if path.suffix == ".csv":
            writer = csv.DictWriter(stream, ["instruction", "input", "output", "category"])
            writer.writeheader()
            writer.writerows(rows(n))
        elif path.suffix == ".jsonl":
            stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows(n))
        else:
            stream.write("[")
            stream.writelines(("," if i else "") + json.dumps(row) for i, row in enumerate(rows(n)))
            stream.write("]")


def _write_parquet(path: Path, n: int) -> None:
    import itertools

    import pyarrow as pa
    import pyarrow.parquet as pq

    source = rows(n)
    writer: pq.ParquetWriter | None = None
    while chunk := list(itertools.islice(source, 100_000)):
        table = pa.Table.from_pylist(chunk)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table, row_group_size=1_000_000)
    if writer:
        writer.close()


def _peak_mb() -> int:
    """Peak memory of this process (Linux; ru_maxrss would count the parent's before exec too)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) // 1024


def measure(path: Path) -> dict[str, float]:
    """Import ``path`` in this process: seconds, peak memory in MB, counts."""
    from core.formats import detect_shape, open_source, read_examples

    before = _peak_mb()
    start, cpu_start = time.perf_counter(), time.process_time()
    source = open_source(path)
    mapping = detect_shape(source)
    if mapping is None:
        raise SystemExit(f"{path.name}: no shape was recognised")
    reader = read_examples(source, mapping)
    n = sum(batch.num_rows for batch in reader)
    read_seconds = time.perf_counter() - start
    duplicates = reader.report.n_exact_duplicates
    return {
        "examples": n,
        "duplicates": duplicates,
        "seconds": round(read_seconds, 1),
        "seconds_with_duplicates": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(time.process_time() - cpu_start, 1),
        "mb_before": before,
        "mb_peak": _peak_mb(),
    }


def measure_apart(path: Path) -> dict[str, float]:
    """:func:`measure` in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.import_memory", "--measure", str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    result: dict[str, float] = json.loads(done.stdout)
    return result


def main() -> None:
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(Path(sys.argv[2]))))
        return
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        for container in sys.argv[2:] or CONTAINERS:
            path = Path(folder) / f"rows.{container}"
            write(path, n)
            megabytes = path.stat().st_size / 2**20
            print(f"{container:8} {megabytes:6.0f} MB file  {measure_apart(path)}", flush=True)
            path.unlink()


if __name__ == "__main__":
    main()
