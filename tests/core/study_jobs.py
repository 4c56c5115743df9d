"""Study jobs for tests: folders with a few small runs, and a tiny base model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from core.example import Example
from core.finetune.results import RunResult, from_table
from core.finetune.settings import FinetuneSettings
from core.jobs.folder import JobFolder
from core.jobs.spec import JobSpec
from tests.core import tiny_models

WORDS = ("river", "apple", "seven", "blue", "music", "window", "paper", "stone", "green", "letter")


def texts(n: int) -> list[Example]:
    """``n`` different examples of different lengths; number 0 has no response."""
    made = [Example(f"Ask {WORDS[i % 10]} {i}.", "", " ".join(WORDS[: 1 + i % 7]) + f" {i}") for i in range(n)]
    made[0] = Example("Ask nothing.", "", "")
    return made


def settings(tmp_path: Path, **changes: object) -> FinetuneSettings:
    """A tiny random Llama and a training setting that takes a second."""
    model = tmp_path / "models" / "tiny"
    if not model.exists():
        tiny_models.save(model, "llama")
    usual = {"precision": "fp32", "max_length": 512, "epochs": 2.0, "batch_size": 4, "checkpoint_steps": 4}
    return FinetuneSettings(base=str(model), **{**usual, **changes})  # type: ignore[arg-type]


def new_job(
    path: Path, chosen: FinetuneSettings, runs: Sequence[Sequence[int]], *, n_texts: int = 60, name: str = "study-1"
) -> JobFolder:
    """A job of these runs (positions in :func:`texts`; none: the untrained base). Ids of runs begin at 500."""
    rows = texts(n_texts)
    spec = JobSpec(
        job_id=name,
        kind="study",
        title="Study",
        device="cpu",
        n_rows=len(runs),
        shard_rows=1,
        params={"study_id": 1, "dataset_id": 1, "settings": chosen.to_params()},
        created_at="2026-11-20T12:00:00",
        assay_version="0.1.0",
    )
    members = [(500 + r, position, 100 + i) for r, run in enumerate(runs) for position, i in enumerate(run)]
    tables: Mapping[str, pa.Table] = {
        "members": pa.table(
            {
                "run_id": pa.array([run for run, _, _ in members], pa.int64()),
                "position": pa.array([position for _, position, _ in members], pa.int64()),
                "example_id": pa.array([example for _, _, example in members], pa.int64()),
            }
        ),
        "texts": _table(100, rows),
        "evaluation": _table(900, [Example(f"What is {word}?", "", f"It is {word}.") for word in WORDS[:3]]),
    }
    planned = pa.table(
        {
            "example_id": pa.array([500 + r for r in range(len(runs))], pa.int64()),
            "number": pa.array(range(len(runs)), pa.int64()),
            "label": [f"mixture {r}" if run else "base model, untrained" for r, run in enumerate(runs)],
            "role": ["mixture" if run else "base" for run in runs],
            "n_rows": pa.array([len(run) for run in runs], pa.int64()),
            "seed": pa.array([7] * len(runs), pa.int64()),
        }
    )
    return JobFolder.create(path / spec.job_id, spec, planned, tables=tables)


def _table(first_id: int, rows: Sequence[Example]) -> pa.Table:
    return pa.table(
        {
            "example_id": pa.array([first_id + i for i in range(len(rows))], pa.int64()),
            "instruction": [row.instruction for row in rows],
            "input": [row.input for row in rows],
            "output": [row.output for row in rows],
        }
    )


def results(folder: JobFolder) -> dict[int, RunResult]:
    """The results of the finished runs, by run id."""
    return dict(from_table(folder.read_shard(index)) for index in sorted(folder.finished_shards()))


def numbers(result: RunResult) -> tuple[object, ...]:
    """All that must come out the same again: no times."""
    points = [(p.step, p.epoch, p.loss_nats, p.learning_rate, p.grad_norm) for p in result.curve]
    return result.outcome, result.loss_nats, result.train_loss_nats, tuple(result.losses), tuple(points)
