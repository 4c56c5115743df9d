"""Submit jobs and read what the store knows of them. What they produced is taken in by db/collecting.py."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from sqlalchemy import text

import core
from core import scoring
from core.errors import StoreError
from core.jobs.folder import JobFolder
from core.jobs.spec import JobSpec
from core.lm import StudentSettings
from core.reflecting import SHARD_ROWS, ReflectOptions
from core.reflection_calls import carry_answers
from db import commands, queries
from db.store import Store, rows, scalar, utc_now

SCORE_SHARD_ROWS = 256


@dataclass(frozen=True)
class ScorePlan:
    """What a score job would do: distinct rows of the dataset, and how many of them are done, per output key.

    ``n_characters`` is the length of all texts of the rows that are left to score.
    """

    indicators: tuple[str, ...]
    student: StudentSettings | None
    revision: str | None
    identities: tuple[scoring.ScorerIdentity, ...]
    n_rows: int
    n_to_score: int
    done: Mapping[str, int]
    n_characters: int = 0


def plan_score(
    store: Store, *, dataset_id: int, indicators: Sequence[str], student: StudentSettings | None
) -> ScorePlan:
    """Look what is scored already (content-addressed: in whatever dataset it was scored) and what is left.

    Raises:
        ModelError: the student can be found neither as a folder nor on the hub.
    """
    revision = scoring.resolve_revision(student.model, student.revision) if student is not None else None
    identities = tuple(scoring.scorer_identities(indicators, student, revision))
    keys = {identity.output: identity.key for identity in identities}
    left = queries.size_to_score(store, dataset_id=dataset_id, identities=list(keys.values()))
    with store.read() as connection:
        n_rows = scalar(
            connection, "select count(distinct example_id) from members where dataset_id = :id", id=dataset_id
        )
    done = queries.scored_counts(store, dataset_id=dataset_id, identities=keys)
    return ScorePlan(
        indicators=tuple(indicators),
        student=student,
        revision=revision,
        identities=identities,
        n_rows=int(n_rows),
        n_to_score=left["n_rows"],
        done=done,
        n_characters=left["n_characters"],
    )


def _new_job_id(kind: str) -> str:
    return f"{utc_now():%Y%m%d-%H%M%S-%f}-{kind}-{secrets.token_hex(2)}"


def _submit(
    store: Store,
    jobs_path: Path,
    table: pa.Table,
    *,
    kind: str,
    title: str,
    student: StudentSettings | None,
    shard_rows: int,
    params: Mapping[str, Any],
    created_by: str | None,
    priority: int,
) -> JobFolder:
    """Write the folder first, then the record: a job that is recorded can run."""
    spec = JobSpec(
        job_id=_new_job_id(kind),
        kind=kind,
        title=title,
        device="cuda" if student is not None and student.device.startswith("cuda") else "cpu",
        priority=priority,
        n_rows=table.num_rows,
        shard_rows=shard_rows,
        params=params,
        created_at=utc_now().isoformat(),
        created_by=created_by,
        retry_of=None,
        assay_version=core.__version__,
    )
    folder = JobFolder.create(jobs_path / spec.job_id, spec, table)
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


def submit_score(
    store: Store,
    jobs_path: Path,
    *,
    dataset_id: int,
    plan: ScorePlan,
    title: str,
    created_by: str | None = None,
    priority: int = 0,
) -> JobFolder:
    """Write the folder of a score job over the rows that are not scored yet, and record it.

    Raises:
        StoreError: every row is scored already.
    """
    table = queries.rows_to_score(store, dataset_id=dataset_id, identities=[i.key for i in plan.identities])
    if not table.num_rows:
        raise StoreError("Every row of this dataset is scored by these indicators already. There is nothing to do.")
    with store.write() as connection:
        scorer_ids = commands.ensure_scorers(connection, plan.identities)
    return _submit(
        store,
        jobs_path,
        table,
        kind="score",
        title=title,
        student=plan.student,
        shard_rows=SCORE_SHARD_ROWS,
        params={
            "indicators": list(plan.indicators),
            "student": asdict(plan.student) if plan.student else None,
            "revision": plan.revision,
            "scorers": scorer_ids,
            "dataset_id": dataset_id,
        },
        created_by=created_by,
        priority=priority,
    )


def submit_reflect(
    store: Store,
    jobs_path: Path,
    *,
    dataset_id: int,
    example_ids: Sequence[int],
    options: ReflectOptions,
    title: str,
    created_by: str | None = None,
    priority: int = 0,
) -> JobFolder:
    """Write the folder of a reflection job over ``example_ids`` and record it.

    Raises:
        StoreError: there is no row. ModelError: the student cannot be found.
    """
    table = queries.examples_table(store, list(dict.fromkeys(example_ids)))
    if not table.num_rows:
        raise StoreError("No row is chosen, so there is nothing to reflect on.")
    student = options.student
    revision = scoring.resolve_revision(student.model, student.revision)
    with store.write() as connection:
        identities = scoring.scorer_identities(("ifd", "r_ifd"), student, revision)
        scorer_ids = commands.ensure_scorers(connection, identities)
    return _submit(
        store,
        jobs_path,
        table,
        kind="reflect",
        title=title,
        student=student,
        shard_rows=SHARD_ROWS,
        params={
            **options.to_params(),
            "revision": revision,
            "scorers": scorer_ids,
            "dataset_id": dataset_id,
        },
        created_by=created_by,
        priority=priority,
    )


def submit_retry(
    store: Store, jobs_path: Path, *, job_id: str, created_by: str | None = None, reason: str | None = None
) -> JobFolder:
    """A new job over the failed rows of ``job_id`` only (those of one ``reason``, if given), with the same settings.

    Answers of the teacher that could be read are taken along, so that nothing is paid for twice.

    Raises:
        StoreError: no failed row of that job could come out better.
    """
    before = JobFolder(jobs_path / job_id)
    spec = before.spec()
    failed = [row["example_id"] for row in failures(store, job_id, reason=reason) if row["transient"]]
    table = queries.examples_table(store, list(dict.fromkeys(failed)))
    if not table.num_rows:
        raise StoreError("None of the failed rows of this job would come out better: there is nothing to retry.")
    again = replace(
        spec,
        job_id=_new_job_id(spec.kind),
        title=f"{spec.title.removesuffix(' (retry)')} (retry)",
        n_rows=table.num_rows,
        created_at=utc_now().isoformat(),
        created_by=created_by,
        retry_of=job_id,
    )
    folder = JobFolder.create(jobs_path / again.job_id, again, table)
    if spec.kind == "reflect":
        carry_answers(before, new=folder)
    record_job(store, again)
    return folder


def collected_shards(store: Store, job_id: str) -> set[int]:
    """The ledger: shards of this job whose rows are in the store."""
    with store.read() as connection:
        return {row["shard"] for row in rows(connection, "select shard from job_shards where job_id = :id", id=job_id)}


def jobs(store: Store) -> list[dict[str, Any]]:
    """All recorded jobs, newest first, with what the ledger says of them."""
    with store.read() as connection:
        return rows(
            connection,
            """select j.*, d.name dataset, coalesce(s.n_rows, 0) n_collected, coalesce(s.n_failed, 0) n_failed
            from jobs j left join datasets d on d.dataset_id = j.dataset_id
            left join (select job_id, sum(n_rows)::bigint n_rows, sum(n_failed)::bigint n_failed from job_shards
                group by job_id) s on s.job_id = j.job_id
            order by j.submitted_at desc, j.job_id desc""",
        )


def failures(store: Store, job_id: str, *, reason: str | None = None, limit: int | None = None) -> list[dict[str, Any]]:
    """Failed rows of a job: ``example_id, stage, reason, transient`` and the first words of the instruction."""
    with store.read() as connection:
        return rows(
            connection,
            f"""select f.example_id, f.stage, f.reason, f.transient, left(e.instruction, 120) instruction
            from job_failures f join examples e on e.example_id = f.example_id
            where f.job_id = :id and (:reason is null or f.reason = :reason)
            order by f.shard, f.example_id {f"limit {int(limit)}" if limit is not None else ""}""",
            id=job_id,
            reason=reason,
        )


def failure_reasons(store: Store, job_id: str) -> list[dict[str, Any]]:
    """Errors of a job by reason: ``stage, reason, n, transient``, most frequent first."""
    with store.read() as connection:
        return rows(
            connection,
            """select stage, reason, count(distinct example_id) n, bool_or(transient) transient from job_failures
            where job_id = :id group by stage, reason order by n desc, reason""",
            id=job_id,
        )


def teacher_totals(store: Store, job_id: str) -> dict[str, Any]:
    """Calls of a job: how many, by outcome parsed or not, tokens and cost (NULL where the teacher gave none)."""
    with store.read() as connection:
        return rows(
            connection,
            """select count(*) n_calls, count(*) filter (outcome = 'parsed') n_parsed,
                sum(prompt_tokens)::bigint prompt_tokens, sum(completion_tokens)::bigint completion_tokens,
                sum(cost_usd) cost_usd, median(seconds) median_seconds
            from teacher_calls where job_id = :id""",
            id=job_id,
        )[0]


def forget(store: Store, job_id: str) -> None:
    """Remove a job's record from the list. Its scores, pairs and teacher answers stay: decisions refer to them."""
    with store.write() as connection:
        connection.execute(text("delete from jobs where job_id = :id"), {"id": job_id})
