"""Import one million rows of about 600 characters and print seconds, rows a second and peak memory.

    python -m tests.benchmarks.import_million [ROWS]

The rows are written as JSON Lines to a temporary folder (about 700 MB, and as much again for the store) and imported
as the Load page does it: core.formats reads and checks them, db.commands.import_dataset stores them. Each case runs in
a process of its own, so that its peak is its own; the server itself takes about 150 MB more.
"""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from core.formats import detect_shape, open_source
from db import imports, queries
from db.store import Store

CASES = {"all different": 0.0, "three in ten are duplicates": 0.3}


def write_rows(path: Path, *, n_rows: int, duplicates: float) -> None:
    """JSON Lines in the shape of Alpaca; a share of ``duplicates`` repeats an earlier row to the letter."""
    choice = random.Random(0)
    vocabulary = ["".join(choice.choices("abcdefghijklmnopqrstuvwxyz", k=choice.randint(2, 11))) for _ in range(20_000)]
    text = " ".join(vocabulary)
    with path.open("w", encoding="utf-8") as file:
        for index in range(n_rows):
            number = choice.randrange(index) if index and choice.random() < duplicates else index
            start = number * 7919 % (len(text) - 600)
            row = {
                "instruction": f"{number} {text[start : start + 140]}",
                "input": text[start + 140 : start + 240] if number % 3 == 0 else "",
                "output": text[start + 200 : start + 600],
                "id": index,
            }
            file.write(json.dumps(row) + "\n")


def import_rows(path: Path) -> None:
    """Import ``path`` into a new store beside it and print what it took."""
    before = _peak_mb()
    started = time.perf_counter()
    source = open_source(path)
    mapping = detect_shape(source)
    assert mapping is not None
    store = Store(path.with_suffix(".duckdb"))
    task = imports.start_import(store, source, mapping, imports.ImportChoice(name="million", origin=path.name))
    while not task.over:
        time.sleep(0.1)
    assert task.error is None, task.error
    seconds = time.perf_counter() - started
    report, dataset = task.report, queries.datasets(store)[0]
    store.close()
    print(
        f"  {dataset['n_members']:,} rows ({report.n_exact_duplicates:,} exact duplicates) in {seconds:.1f} s, "
        f"{report.rows_read / seconds:,.0f} rows/s, peak {_peak_mb():,.0f} MB ({before:,.0f} MB before)",
        flush=True,
    )


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(n_rows: int) -> None:
    """Run every case and print its figures."""
    for name, duplicates in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rows.jsonl"
            write_rows(path, n_rows=n_rows, duplicates=duplicates)
            print(f"{name}: {n_rows:,} rows, {path.stat().st_size / 1e6:,.0f} MB of JSON Lines", flush=True)
            subprocess.run([sys.executable, "-m", __spec__.name, "--import", str(path)], check=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--import"]:
        import_rows(Path(sys.argv[2]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
