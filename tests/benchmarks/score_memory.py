"""Peak memory of headless scoring: it must not grow with the number of rows.

    python -m tests.benchmarks.score_memory [--rows 1000000]

Writes a file of rows of about 600 characters, scores it by MTLD in a process of its own, and prints time and peak.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MEASURED = """
import sys
from pathlib import Path
from core.score_file import FileRun, score_file
from core.scoring import Models
score_file(FileRun(source=Path(sys.argv[1]), out=Path(sys.argv[2]), indicators=("mtld",), models=Models()))
print(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024)
"""


def main() -> None:
    """Write the rows, score them, print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    n_rows = parser.parse_args().rows
    filler = "x" * 560
    with tempfile.TemporaryDirectory() as folder:
        rows, out = Path(folder, "rows.jsonl"), Path(folder, "scores.parquet")
        with rows.open("w") as file:
            for i in range(n_rows):
                row = {"instruction": f"{i} {filler}", "input": "", "output": f"one two three {i}"}
                file.write(json.dumps(row) + "\n")
        began = time.monotonic()
        code = [sys.executable, "-c", MEASURED, str(rows), str(out)]
        peak = float(subprocess.run(code, capture_output=True, text=True, check=True).stdout)
        seconds = time.monotonic() - began
        size = rows.stat().st_size / 1e6
    print(f"{n_rows:,} rows ({size:,.0f} MB): {seconds:,.0f} s, {n_rows / seconds:,.0f} rows/s, peak {peak:,.0f} MB")


if __name__ == "__main__":
    main()
