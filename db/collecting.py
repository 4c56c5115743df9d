"""Collect what jobs produced: a finished shard becomes rows of the store, once, with its line in the ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from sqlalchemy import Connection, text

from core.errors import JobError
from core.example import Example
from core.jobs.folder import JobFolder
from core.jobs.spec import JobSpec
from core.reflection_records import Call, PairRecord, ReflectedRow, from_table
from db import commands
from db.jobs import STUDY_KINDS, collected_shards, record_job
from db.run_results import collect_run
from db.store import Store, frame, registered, scalar, utc_now


def collect(store: Store, folder: JobFolder, shard: int) -> None:
    """Insert the rows of one finished shard with its ledger row, in one transaction. Doing it again changes nothing.

    Raises:
        JobError: the shard cannot be read, or does not fit the job's kind.
    """
    spec = folder.spec()
    if shard in collected_shards(store, spec.job_id):
        return
    record_job(store, spec)
    table = folder.read_shard(shard)
    vectors = folder.read_vectors(shard) if spec.params.get("embedding_scorer") is not None else None
    failed: Sequence[Mapping[str, Any]] = ()
    n_failed = 0
    with store.adding_examples() as connection:
        if scalar(
            connection, "select 1 from job_shards where job_id = :id and shard = :shard", id=spec.job_id, shard=shard
        ):
            return
        if spec.kind == "score":
            _, start, stop = spec.shard_range(shard)
            n_rows, failed = stop - start, _collect_scores(connection, spec, table)
            if vectors is not None:
                _put_vectors(connection, spec.params["embedding_scorer"], vectors)
        elif spec.kind == "reflect":
            n_rows, failed = _collect_reflections(connection, spec, table)
        elif spec.kind in STUDY_KINDS:
            n_rows, n_failed = collect_run(connection, spec, table)
        elif spec.kind == "references":
            from db import references  # it submits jobs, and so stands above this module

            n_rows, failed = references.collect(connection, spec, table)
        else:
            raise JobError(f"Job {spec.job_id} is of the kind {spec.kind!r}, whose shards nobody collects.")
        _put_failures(connection, spec.job_id, shard, failed)
        connection.execute(
            text("insert into job_shards values (:job_id, :shard, :n_rows, :n_failed, :collected_at)"),
            {
                "job_id": spec.job_id,
                "shard": shard,
                "n_rows": n_rows,
                "n_failed": n_failed + len({row["example_id"] for row in failed}),
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


def _put_vectors(connection: Connection, scorer_id: int, vectors: pa.Table) -> None:
    with registered(connection, "incoming", vectors):
        connection.execute(
            text(
                """insert into embeddings select :scorer_id, example_id, vector::float[] from incoming
                where reason is null on conflict do nothing"""
            ),
            {"scorer_id": int(scorer_id)},
        )


def _collect_scores(connection: Connection, spec: JobSpec, table: pa.Table) -> list[dict[str, Any]]:
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
    commands.put_scores(connection, scores)
    return failed


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
