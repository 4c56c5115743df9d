"""Submit jobs and collect what they produced: the only meeting place of job folders and the store."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from sqlalchemy import Connection, text

import core
from core import scoring
from core.errors import JobError, StoreError
from core.example import Example
from core.jobs.folder import JobFolder
from core.jobs.spec import JobSpec
from core.lm import StudentSettings
from core.reflecting import SHARD_ROWS, ReflectOptions
from core.reflection_calls import carry_answers
from core.reflection_records import Call, PairRecord, ReflectedRow, from_table
from db import commands, queries
from db.store import Store, frame, registered, rows, scalar, utc_now

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


def _submit(store: Store, jobs_path: Path, spec: JobSpec, table: pa.Table, *, dataset_id: int | None) -> JobFolder:
    folder = JobFolder.create(jobs_path / spec.job_id, spec, table)
    record_job(store, spec, dataset_id=dataset_id)
    return folder


def record_job(store: Store, spec: JobSpec, *, dataset_id: int | None) -> None:
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
                "dataset_id": dataset_id,
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
    spec = JobSpec(
        job_id=_new_job_id("score"),
        kind="score",
        title=title,
        device=_device_kind(plan.student),
        priority=priority,
        n_rows=table.num_rows,
        shard_rows=SCORE_SHARD_ROWS,
        params={
            "indicators": list(plan.indicators),
            "student": asdict(plan.student) if plan.student else None,
            "revision": plan.revision,
            "scorers": scorer_ids,
            "dataset_id": dataset_id,
        },
        created_at=utc_now().isoformat(),
        created_by=created_by,
        retry_of=None,
        assay_version=core.__version__,
    )
    return _submit(store, jobs_path, spec, table, dataset_id=dataset_id)


def _device_kind(student: StudentSettings | None) -> str:
    return "cuda" if student is not None and student.device.startswith("cuda") else "cpu"


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
    spec = JobSpec(
        job_id=_new_job_id("reflect"),
        kind="reflect",
        title=title,
        device=_device_kind(student),
        priority=priority,
        n_rows=table.num_rows,
        shard_rows=SHARD_ROWS,
        params={
            **options.to_params(),
            "revision": revision,
            "scorers": scorer_ids,
            "dataset_id": dataset_id,
        },
        created_at=utc_now().isoformat(),
        created_by=created_by,
        retry_of=None,
        assay_version=core.__version__,
    )
    return _submit(store, jobs_path, spec, table, dataset_id=dataset_id)


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
    record_job(store, again, dataset_id=spec.params.get("dataset_id"))
    return folder


def collected_shards(store: Store, job_id: str) -> set[int]:
    """The ledger: shards of this job whose rows are in the store."""
    with store.read() as connection:
        return {row["shard"] for row in rows(connection, "select shard from job_shards where job_id = :id", id=job_id)}


def collect(store: Store, folder: JobFolder, shard: int) -> None:
    """Insert the rows of one finished shard with its ledger row, in one transaction. Doing it again changes nothing.

    Raises:
        JobError: the shard cannot be read, or does not fit the job's kind.
    """
    spec = folder.spec()
    if shard in collected_shards(store, spec.job_id):
        return
    record_job(store, spec, dataset_id=spec.params.get("dataset_id"))
    table = folder.read_shard(shard)
    with store.adding_examples() as connection:
        if scalar(
            connection, "select 1 from job_shards where job_id = :id and shard = :shard", id=spec.job_id, shard=shard
        ):
            return
        if spec.kind == "score":
            n_rows, failed = _collect_scores(connection, spec, table)
        elif spec.kind == "reflect":
            n_rows, failed = _collect_reflections(connection, spec, table)
        else:
            raise JobError(f"Job {spec.job_id} is of the kind {spec.kind!r}, whose shards nobody collects.")
        _put_failures(connection, spec.job_id, shard, failed)
        connection.execute(
            text("insert into job_shards values (:job_id, :shard, :n_rows, :n_failed, :collected_at)"),
            {
                "job_id": spec.job_id,
                "shard": shard,
                "n_rows": n_rows,
                "n_failed": len({row["example_id"] for row in failed}),
                "collected_at": utc_now(),
            },
        )


def _put_failures(connection: Connection, job_id: str, shard: int, failed: Sequence[Mapping[str, Any]]) -> None:
    if not failed:
        return
    with registered(connection, "incoming", pa.Table.from_pylist([dict(row) for row in failed])):
        connection.execute(
            text(
                """insert into job_failures
                select :job_id, :shard, example_id, stage, reason, bool_or(transient) from incoming
                group by example_id, stage, reason"""
            ),
            {"job_id": job_id, "shard": shard},
        )


def _collect_scores(connection: Connection, spec: JobSpec, table: pa.Table) -> tuple[int, list[dict[str, Any]]]:
    scorer_ids = spec.params["scorers"]
    lookup = pa.table(
        {"output": list(scorer_ids), "scorer_id": pa.array([int(i) for i in scorer_ids.values()], pa.int64())}
    )
    with registered(connection, "shard", table), registered(connection, "lookup", lookup):
        scores = frame(
            connection,
            """select l.scorer_id, s.example_id, s.value, s.reason, s.transient
            from shard s join lookup l on l.output = s.output""",
        )
        failed = frame(
            connection,
            """select example_id, 'score' stage, reason, bool_or(transient) transient from shard
            where value is null group by example_id, reason""",
        ).to_pylist()
        n_rows = frame(connection, "select count(distinct example_id) n from shard")["n"][0].as_py()
    commands.put_scores(connection, scores)
    return int(n_rows), failed


def _collect_reflections(connection: Connection, spec: JobSpec, table: pa.Table) -> tuple[int, list[dict[str, Any]]]:
    reflected = from_table(table)
    finals = [Example(row.final.instruction, row.final.input, row.final.output) for row in reflected]
    examples = [example for row in reflected for p in row.pairs for example in (p.base, p.candidate)]
    asked = [call.example for row in reflected for call in row.calls]
    ids = commands.add_examples(connection, [*examples, *asked, *finals])
    for row in reflected:
        for call in row.calls:
            _insert_call(connection, spec, row.example_id, call, asked_id=ids[call.example.hash])
        for pair in row.pairs:
            base_id, candidate_id = ids[pair.base.hash], ids[pair.candidate.hash]
            _insert_pair(
                connection,
                spec,
                row.example_id,
                pair,
                base_id=base_id,
                candidate_id=candidate_id,
                teacher=next(call.teacher for call in row.calls if call.call_id == pair.call_id),
            )
    _put_reflections(connection, spec, reflected, [ids[final.hash] for final in finals])
    _put_pair_scores(connection, spec, reflected, ids)
    failed = [
        {"example_id": row.example_id, "stage": f.stage, "reason": f.reason, "transient": f.transient}
        for row in reflected
        for f in row.failures
    ]
    return len(reflected), failed


def _put_reflections(
    connection: Connection, spec: JobSpec, reflected: Sequence[ReflectedRow], final_ids: Sequence[int]
) -> None:
    data = pa.table(
        {
            "example_id": pa.array([row.example_id for row in reflected], pa.int64()),
            "final_id": pa.array(final_ids, pa.int64()),
            "kept": [row.final.kept for row in reflected],
            "why": [row.final.why for row in reflected],
        }
    )
    with registered(connection, "incoming", data):
        connection.execute(
            text("insert into reflections select :job_id, :dataset_id, example_id, final_id, kept, why from incoming"),
            {"job_id": spec.job_id, "dataset_id": spec.params["dataset_id"]},
        )


def _put_pair_scores(
    connection: Connection, spec: JobSpec, reflected: Sequence[ReflectedRow], ids: Mapping[str, int]
) -> None:
    scorer_ids = spec.params["scorers"]
    found = []
    for row in reflected:
        for pair in row.pairs:
            which = {
                "original": row.example_id,
                "base": ids[pair.base.hash],
                "candidate": ids[pair.candidate.hash],
            }
            for value in pair.score_values:
                if value.output in scorer_ids:
                    found.append(
                        {
                            "scorer_id": int(scorer_ids[value.output]),
                            "example_id": which[value.which],
                            "value": value.value,
                            "reason": value.reason,
                            "transient": value.transient,
                        }
                    )
    if found:
        schema = pa.schema(
            [
                ("scorer_id", pa.int64()),
                ("example_id", pa.int64()),
                ("value", pa.float64()),
                ("reason", pa.string()),
                ("transient", pa.bool_()),
            ]
        )
        commands.put_scores(connection, pa.Table.from_pylist(found, schema=schema))


def _insert_call(connection: Connection, spec: JobSpec, example_id: int, call: Call, *, asked_id: int) -> None:
    connection.execute(
        text(
            """insert into teacher_calls values (:call_id, :job_id, :example_id, :asked_id, :stage, :prompt_version,
            :teacher, :model, :raw, :finish_reason, :outcome, :reason, :critique, :prompt_tokens,
            :completion_tokens, :cost_usd, :seconds, :attempts, :requested_at) on conflict do nothing"""
        ),
        {
            "call_id": call.call_id,
            "job_id": spec.job_id,
            "example_id": example_id,
            "asked_id": asked_id,
            "stage": call.stage,
            "prompt_version": call.prompt_version,
            "teacher": call.teacher,
            "model": call.model,
            "raw": call.raw,
            "finish_reason": call.finish_reason,
            "outcome": call.outcome,
            "reason": call.reason,
            "critique": call.critique,
            "prompt_tokens": call.prompt_tokens,
            "completion_tokens": call.completion_tokens,
            "cost_usd": call.cost_usd,
            "seconds": call.seconds,
            "attempts": call.attempts,
            "requested_at": call.requested_at,
        },
    )


def _insert_pair(
    connection: Connection,
    spec: JobSpec,
    original_id: int,
    pair: PairRecord,
    *,
    base_id: int,
    candidate_id: int,
    teacher: str,
) -> None:
    connection.execute(
        text(
            """insert into pairs select nextval('pair_ids'), :job_id, :dataset_id, :original_id, :base_id,
            :candidate_id, :method, :stage, :call_id, :teacher, :proposal, :proposal_reason, :ifd_original, :ifd_base,
            :ifd_candidate, :r_ifd_original, :r_ifd_base, :r_ifd_candidate, :created_at
            where not exists (select 1 from pairs p where p.dataset_id = :dataset_id and p.original_id = :original_id
                and p.base_id = :base_id and p.candidate_id = :candidate_id and p.method = :method
                and p.stage = :stage and p.proposal_reason = :proposal_reason)"""
        ),
        {
            "job_id": spec.job_id,
            "dataset_id": spec.params["dataset_id"],
            "original_id": original_id,
            "base_id": base_id,
            "candidate_id": candidate_id,
            "method": pair.method,
            "stage": pair.stage,
            "call_id": pair.call_id,
            "teacher": teacher,
            "proposal": pair.proposal,
            "proposal_reason": pair.proposal_reason,
            **{
                f"{name}_{which}": getattr(scores, name)
                for name in ("ifd", "r_ifd")
                for which, scores in (
                    ("original", pair.original_scores),
                    ("base", pair.base_scores),
                    ("candidate", pair.candidate_scores),
                )
            },
            "created_at": utc_now(),
        },
    )


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
