"""Open the sample workspace: the bundled rows, scored and reflected, ready to review."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from core import demo
from core.indicators import INDICATORS
from core.lm import StudentSettings
from core.reflecting import ReflectOptions
from core.reflection import STAGES
from core.scoring import DEMO_STUDENT, Models
from db import commands, evaluation, jobs, queries
from db.service import Service
from db.store import Store, rows

SAMPLE, SAMPLE_EVALUATION = "Sample: instructions", "Sample: evaluation"
SAMPLE_SOURCE, EVALUATION_SOURCE = "bundled sample", "bundled sample (evaluation)"

SAMPLE_INDICATORS = tuple(one.key for one in INDICATORS if one.needs.role in (None, "student"))
"""What the bundled demo student is enough for: no model has to be downloaded."""


def demo_student() -> StudentSettings:
    """The bundled demo student on the CPU, with its usual settings."""
    return StudentSettings(model=str(DEMO_STUDENT))


def _batches(sample: Sequence[demo.SampleRow]) -> Iterator[pa.RecordBatch]:
    yield pa.RecordBatch.from_pydict(
        {
            "row": list(range(len(sample))),
            "hash": [row.example.hash for row in sample],
            "instruction": [row.example.instruction for row in sample],
            "input": [row.example.input for row in sample],
            "output": [row.example.output for row in sample],
            "metadata": [json.dumps({"id": r.id, "kind": r.kind, "quality": r.quality}) for r in sample],
        }
    )


def sample_dataset(store: Store) -> int | None:
    """Id of the sample's dataset, if it is in the store."""
    return next((d["dataset_id"] for d in queries.datasets(store) if d["source"] == SAMPLE_SOURCE), None)


def open_sample(service: Service, *, created_by: str | None = None) -> int:
    """Load the sample, and submit its scoring and its reflection with the recorded teacher. Returns the dataset id.

    What is there already is left as it is, so a second call repeats nothing.
    """
    store = service.store
    dataset_id = sample_dataset(store)
    if dataset_id is None:
        if not any(d["source"] == EVALUATION_SOURCE for d in queries.datasets(store)):
            evaluation_id = commands.import_dataset(
                store,
                _batches(demo.eval_rows()),
                name=SAMPLE_EVALUATION,
                source=EVALUATION_SOURCE,
                kind="evaluation",
                created_by=created_by,
            )
            evaluation.mark(store, evaluation_id, by=created_by)
        dataset_id = commands.import_dataset(
            store, _batches(demo.sample_rows()), name=SAMPLE, source=SAMPLE_SOURCE, created_by=created_by
        )
    student = demo_student()
    recorded = _recorded_ids(store, dataset_id)
    submitted = {job["kind"] for job in jobs.jobs(store) if job["dataset_id"] == dataset_id}
    if "score" not in submitted:
        plan = jobs.plan_score(
            store, dataset_id=dataset_id, indicators=SAMPLE_INDICATORS, models=Models(student=student)
        )
        if plan.n_to_score:
            submitted_jobs = jobs.submit_score(
                store,
                service.settings.jobs_path,
                dataset_id=dataset_id,
                plan=plan,
                title="Score the sample",
                created_by=created_by,
            )
            for folder in submitted_jobs:
                service.enqueue(folder)
    if "reflect" not in submitted:
        service.enqueue(
            jobs.submit_reflect(
                store,
                service.settings.jobs_path,
                dataset_id=dataset_id,
                example_ids=recorded,
                options=ReflectOptions(method="v2", teacher=None, student=student),
                title="Reflect on the sample (recorded teacher)",
                created_by=created_by,
            )
        )
    return dataset_id


def _recorded_ids(store: Store, dataset_id: int) -> list[int]:
    with store.read() as connection:
        members = rows(
            connection,
            """select e.hash, e.example_id from members m join examples e on e.example_id = m.example_id
            where m.dataset_id = :id order by m.position""",
            id=dataset_id,
        )
    known = demo.recordings()
    return [row["example_id"] for row in members if (STAGES[0], row["hash"]) in known]


def sample_jobs(service: Service, dataset_id: int) -> list[dict[str, Any]]:
    """The sample's jobs, oldest first, with their live status (None if the folder is gone)."""
    statuses = service.scheduler.statuses()
    found = [job for job in jobs.jobs(service.store) if job["dataset_id"] == dataset_id and not job["retry_of"]]
    return [{**job, "status": statuses.get(job["job_id"])} for job in reversed(found)]
