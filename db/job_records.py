"""Records of jobs: a job's folder and its line in the store, and the ledger of what was collected."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from sqlalchemy import text

import core
from core.errors import JobError
from core.jobs.folder import JobFolder
from core.jobs.spec import JobSpec
from core.jobs.status import JobStatus
from db import permission
from db.store import Store, rows, utc_now

STUDY_KINDS = ("study", "search")
"""Kinds of jobs whose shards are finetune runs of a study."""


def new_job_id(kind: str) -> str:
    """An id that no job has: time, kind, four random digits."""
    return f"{utc_now():%Y%m%d-%H%M%S-%f}-{kind}-{secrets.token_hex(2)}"


def submit(
    store: Store,
    jobs_path: Path,
    data: pa.Table | pa.RecordBatchReader,
    *,
    kind: str,
    title: str,
    n_rows: int,
    device: str,
    shard_rows: int,
    params: Mapping[str, Any],
    created_by: str | None,
    priority: int,
    base: pa.RecordBatchReader | None = None,
    tables: Mapping[str, pa.Table | pa.RecordBatchReader] | None = None,
    job_id: str | None = None,
) -> JobFolder:
    """Write the folder first, then the record: a job that is recorded can run.

    ``job_id``: one of :func:`new_job_id` that was noted elsewhere before, so that a job whose submitting was cut short
    is found by it; None: a new one.

    Raises:
        JobError: the folder cannot be written, or a job has that id already.
    """
    permission.require("administer")
    spec = JobSpec(
        job_id=job_id or new_job_id(kind),
        kind=kind,
        title=title,
        device="cuda" if device.startswith("cuda") else device,
        priority=priority,
        n_rows=n_rows,
        shard_rows=shard_rows,
        params=params,
        created_at=utc_now().isoformat(),
        created_by=created_by,
        retry_of=None,
        assay_version=core.__version__,
    )
    folder = JobFolder.create(jobs_path / spec.job_id, spec, data, base=base, tables=tables)
    record_job(store, spec)
    return folder


def record_job(store: Store, spec: JobSpec) -> None:
    """Record a job in the store; a second call changes nothing (a server killed between folder and record)."""
    with store.write() as connection:
        connection.execute(
            text(
                """insert into jobs
                values (:job_id, :kind, :title, :dataset_id, :submitted_at, :submitted_by, :retry_of)
                on conflict do nothing"""
            ),
            {
                "job_id": spec.job_id,
                "kind": spec.kind,
                "title": spec.title,
                "dataset_id": spec.params.get("dataset_id"),
                "submitted_at": utc_now(),
                "submitted_by": spec.created_by,
                "retry_of": spec.retry_of,
            },
        )
        if spec.kind in STUDY_KINDS and "study_id" in spec.params:
            connection.execute(
                text("insert into study_jobs values (:job_id, :study_id) on conflict do nothing"),
                {"job_id": spec.job_id, "study_id": spec.params["study_id"]},
            )


def record_missing(store: Store, jobs_path: Path) -> list[str]:
    """Record jobs whose folder is there and whose record is not: a server was killed between the two. Their ids.

    A folder whose spec cannot be read is passed over; the scheduler shows it as damaged.
    """
    with store.read() as connection:
        known = {row["job_id"] for row in rows(connection, "select job_id from jobs")}
    found = []
    for path in sorted(jobs_path.iterdir()) if jobs_path.is_dir() else ():
        if path.name in known or path.name.startswith(".") or not path.is_dir():
            continue
        try:
            spec = JobFolder(path).spec()
        except JobError:
            continue
        record_job(store, spec)
        found.append(spec.job_id)
    return found


def collected_shards(store: Store, job_id: str) -> set[int]:
    """The ledger: shards of this job whose rows are in the store."""
    with store.read() as connection:
        return {row["shard"] for row in rows(connection, "select shard from job_shards where job_id = :id", id=job_id)}


def is_settled(store: Store, status: JobStatus) -> bool:
    """Whether a job ended and the store has taken up all that it finished."""
    return status.ended and len(collected_shards(store, status.job_id)) >= status.done_shards
