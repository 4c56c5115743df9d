"""Score jobs for tests: folders with a few rows, and what their distances are by the definition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from core.embedding import Embedder
from core.example import Example
from core.jobs.folder import JobFolder
from core.jobs.runner import Progress
from core.jobs.spec import JobSpec
from core.score_job import run
from core.scoring import Models, resolve_revisions

ROWS = [
    Example("Name three fruits.", "", "Apples, pears and plums."),
    Example("Sort the words.", "pear, apple", "apple, pear"),
    Example("Leave it empty."),
    Example("Add.", "2 + 2", "4"),
    Example("Say hi.", "", "Hi!"),
]


def new_job(
    tmp_path: Path,
    rows: list[Example] = ROWS,
    *,
    shard_rows: int = 2,
    columns: dict[str, Any] | None = None,
    base: pa.Table | None = None,
    **params: object,
) -> JobFolder:
    spec = JobSpec(
        job_id="score-1",
        kind="score",
        title="Score",
        device="cpu",
        n_rows=len(rows),
        shard_rows=shard_rows,
        params=params,
        created_at="2026-11-20T12:00:00",
        assay_version="0.1.0",
    )
    table = pa.table(
        {
            "example_id": pa.array([100 + i for i in range(len(rows))], pa.int64()),
            "instruction": [row.instruction for row in rows],
            "input": [row.input for row in rows],
            "output": [row.output for row in rows],
            **(columns or {}),
        }
    )
    return JobFolder.create(tmp_path / "score-1", spec, table, base=None if base is None else base.to_reader(3))


def do(folder: JobFolder) -> None:
    spec = folder.spec()
    run(folder, spec, Progress(folder, spec))


def scores_in(folder: JobFolder) -> list[dict[str, object]]:
    return [cell for index in sorted(folder.finished_shards()) for cell in folder.read_shard(index).to_pylist()]


def params_of(models: Models, indicators: list[str]) -> dict[str, Any]:
    return {"indicators": indicators, "models": models.to_params(), "revisions": resolve_revisions(models)}


def value_of(folder: JobFolder) -> dict[tuple[int, str], tuple[float | None, str | None]]:
    return {(c["example_id"], c["output"]): (c["value"], c["reason"]) for c in scores_in(folder)}  # type: ignore[misc]


def brute_force(models: Models, rows: list[Example], i: int) -> list[float]:
    """Distance of every row to its i-th neighbour, by the definition."""
    assert models.embedder is not None
    vectors = Embedder.load(models.embedder).embed(rows).vectors.astype(np.float64)
    found = []
    for k, one in enumerate(vectors):
        others = np.sort(np.linalg.norm(np.delete(vectors, k, axis=0) - one, axis=1))
        found.append(float(others[i - 1]))
    return found


def some_rows(n: int) -> list[Example]:
    words = ["river", "apple", "seven", "blue", "music", "window", "paper", "stone", "green", "letter"]
    return [
        Example(f"Ask {words[i % 10]} {i}.", "", f"{words[(i * 7) % 10]} {words[(i * 3) % 9]} {i}") for i in range(n)
    ]
