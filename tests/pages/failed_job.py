"""A score job that failed after its first shard, as the worker and the scheduler leave it on the disk."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

import core
from core.jobs.folder import JobFolder
from core.jobs.spec import JobSpec
from db import collecting, commands, jobs, queries
from db.store import Store, utc_now
from tests.pages.sample_stores import SCORERS, example_ids

JOB_ID = "20260102-030405-000000-score-abcd"
MESSAGE = "The model /models/tiny-student needs more memory than there is. Choose a smaller one."
ROW_REASON = "The response is empty: there is no token to score."


def add(store: Store, jobs_path: Path, *, dataset_id: int) -> JobFolder:
    """Write the folder, record the job and collect its one finished shard (which holds a failed row)."""
    ids = example_ids(store, dataset_id)
    with store.write() as connection:
        scorers = commands.ensure_scorers(connection, SCORERS[1:2])
    spec = JobSpec(
        job_id=JOB_ID,
        kind="score",
        title="Score *mtld* of <b>May</b>",
        device="cpu",
        n_rows=len(ids),
        shard_rows=8,
        params={"indicators": ["mtld"], "student": None, "scorers": scorers, "dataset_id": dataset_id},
        created_at=utc_now().isoformat(),
        created_by="Ada",
        assay_version=core.__version__,
    )
    jobs_path.mkdir(parents=True, exist_ok=True)
    folder = JobFolder.create(jobs_path / JOB_ID, spec, queries.examples_table(store, ids))
    jobs.record_job(store, spec)
    folder.append_event("spawned", pid=2**22 + 7, create_time=1.0, device="cpu")
    folder.write_shard(0, _shard(ids[:8]))
    folder.append_event("row_errors", reason=ROW_REASON, example_ids=[ids[5]], shard=0)
    folder.append_event("failed", message=MESSAGE)
    collecting.collect(store, folder, 0)
    return folder


def _shard(ids: list[int]) -> pa.Table:
    return pa.table(
        {
            "example_id": pa.array(ids, pa.int64()),
            "output": ["mtld"] * len(ids),
            "value": pa.array([None if i == 5 else 10.0 + i for i in range(len(ids))], pa.float64()),
            "reason": pa.array([ROW_REASON if i == 5 else None for i in range(len(ids))], pa.string()),
            "transient": [i == 5 for i in range(len(ids))],
        }
    )
