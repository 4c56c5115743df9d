"""What CONTRIBUTING.md says about adding an indicator is true: its steps are carried out on a copy of the tree."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

ROOT = Path(__file__).parents[2]


def steps() -> str:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return page.split("## Adding an indicator")[1].split("\n## ")[0]


def code_blocks(text: str) -> list[str]:
    blocks = re.findall(r"^   ```(?:python|text)\n(.*?)^   ```$", text, re.DOTALL | re.MULTILINE)
    return [re.sub(r"^   ", "", block, flags=re.MULTILINE) for block in blocks]


def test_one_file_and_one_line_make_an_indicator(tmp_path: Path) -> None:
    text = steps()
    module, line = code_blocks(text)
    named = re.search(r"`(core/indicators/\w+\.py)`, whole", text)
    assert named is not None
    shutil.copytree(ROOT / "core", tmp_path / "core", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / named[1]).write_text(module)
    listed = tmp_path / "core" / "indicators" / "__init__.py"
    before = listed.read_text()
    after = re.sub(r"(_LISTED = \(\n(?:    \".*\",\n)+)", lambda found: found[1] + line, before)
    assert len(after.splitlines()) == len(before.splitlines()) + 1
    listed.write_text(after)
    rows = [
        {"instruction": "Add.", "input": "2 + 2", "output": "It is 4."},
        {"instruction": "Count.", "input": "", "output": "1 2\n34"},
        {"instruction": "Be still.", "input": "", "output": "  "},
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    command = ["-m", "core", "score", "rows.json", "--out", "out.parquet", "--indicators", "digit_share,mtld"]
    done = subprocess.run(
        [sys.executable, *command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["digit_share"] for row in found] == [1 / 6, 1.0, None]
    assert "digit_share: The response is empty." in found[2]["reason"]
    without = subprocess.run(
        [sys.executable, *command[:5], "other.parquet", "--indicators", "beauty"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "digit_share" in without.stderr, "the command lists it"
