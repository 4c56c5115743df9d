"""Search jobs for tests: folders with a ranking of a few rows, and a base whose loss depends on the size alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from core.example import Example
from core.finetune.results import CurvePoint, OutputLoss, RunResult
from core.finetune.settings import FinetuneSettings
from core.jobs.folder import JobFolder
from core.jobs.spec import JobSpec

WORDS = ["river", "apple", "seven", "blue", "music", "window", "paper", "stone", "green", "letter"]


def some_rows(n: int) -> list[Example]:
    return [
        Example(f"Ask {WORDS[i % 10]} {i}.", "", f"{WORDS[(i * 7) % 10]} {WORDS[(i * 3) % 9]} {i}") for i in range(n)
    ]


def texts(rows: Sequence[Example], *, first: int) -> pa.Table:
    return pa.table(
        {
            "example_id": pa.array([first + i for i in range(len(rows))], pa.int64()),
            "instruction": [row.instruction for row in rows],
            "input": [row.input for row in rows],
            "output": [row.output for row in rows],
        }
    )


def new_job(
    home: Path,
    settings: FinetuneSettings,
    *,
    n_trials: int = 6,
    n_ranked: int = 60,
    lowest: int = 4,
    highest: int | None = None,
    hours: float | None = None,
    seed: int = 1,
    name: str = "search-1",
    **params: Any,
) -> JobFolder:
    """A search over a ranking that goes through the rows backwards: the last row is the best."""
    spec = JobSpec(
        job_id=name,
        kind="search",
        title="Search",
        device="cpu",
        n_rows=n_trials,
        shard_rows=1,
        params={
            "study_id": 1,
            "dataset_id": 2,
            "settings": settings.to_params(),
            "lowest": lowest,
            "highest": n_ranked if highest is None else highest,
            "hours": hours,
            "seed": seed,
            **params,
        },
        created_at="2026-11-20T12:00:00",
        assay_version="0.1.0",
    )
    table = pa.table(
        {
            "example_id": pa.array([700 + i for i in range(n_trials)], pa.int64()),
            "number": pa.array(range(n_trials), pa.int64()),
            "label": [f"trial {i + 1}" for i in range(n_trials)],
            "role": ["trial"] * n_trials,
            "n_rows": pa.array([0] * n_trials, pa.int64()),
            "seed": pa.array([seed] * n_trials, pa.int64()),
        }
    )
    members = pa.table(
        {
            "run_id": pa.array([0] * n_ranked, pa.int64()),
            "position": pa.array(range(n_ranked), pa.int64()),
            "example_id": pa.array([100 + i for i in reversed(range(n_ranked))], pa.int64()),
        }
    )
    tables = {
        "members": members,
        "texts": texts(some_rows(n_ranked), first=100),
        "evaluation": texts([Example("Say hi.", "", "Hi!"), Example("Add 2 and 2.", "", "4")], first=900),
    }
    return JobFolder.create(home / name, spec, table, tables=tables)


class KnownBase:
    """A base that trains nothing: its loss is lowest at ``best`` rows. Keeps what it was asked."""

    def __init__(self, *, best: int = 20, seconds: float = 1.0, bad: dict[int, RunResult] | None = None) -> None:
        self.best, self.seconds, self.bad = best, seconds, bad or {}
        self.asked: list[list[Example]] = []
        self.loaded = 0

    def load(self, settings: FinetuneSettings, *, note: Any = None) -> KnownBase:
        self.loaded += 1
        return self

    def run(
        self,
        examples: Sequence[Example],
        *,
        evaluation: Sequence[tuple[int, Example]],
        seed: int,
        work: Path,
        report: Any,
        note: Any,
    ) -> RunResult:
        self.asked.append(list(examples))
        report(CurvePoint(1, 1.0, 3.0), 1)
        if len(self.asked) in self.bad:
            return self.bad[len(self.asked)]
        loss = 2.0 + abs(math.log(len(examples) / self.best))
        return RunResult(
            outcome="done",
            loss_nats=loss,
            train_loss_nats=loss,
            seconds=self.seconds,
            losses=[OutputLoss(i, loss, 3) for i, _ in evaluation],
            curve=[CurvePoint(1, 1.0, 3.0)],
            details={"seconds_training": self.seconds},
        )
