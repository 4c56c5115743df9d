"""Runs a little program in a process of its own whose address space may be limited from within."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def run_program(program: str, *arguments: str, home: Path) -> tuple[dict[str, Any], str]:
    """Run Python text with one thread and one arena of memory; return its last line, read as JSON, and its stderr."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=Path(__file__).parents[2],
        env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told, done.stderr
