"""Take in the result of one run: its outcome, its losses per evaluation output, its curve."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from sqlalchemy import Connection, text

from core.finetune.results import CurvePoint, OutputLoss, RunResult, from_table
from core.jobs.spec import JobSpec
from db.store import registered, scalar, utc_now

_LOSSES = pa.schema(
    [("example_id", pa.int64()), ("loss_nats", pa.float64()), ("n_tokens", pa.int64()), ("reason", pa.string())]
)
_CURVE = pa.schema(
    [
        ("step", pa.int64()),
        *((name, pa.float64()) for name in ("epoch", "loss_nats", "learning_rate", "grad_norm", "seconds")),
    ]
)


def collect_run(connection: Connection, spec: JobSpec, table: pa.Table) -> tuple[int, int]:
    """Insert the result that a shard of a study or of a search holds; returns the rows of the shard and those failed.

    A run that was skipped (a trial after its search's budget) has no result. So has a run whose study was removed while
    its job was running: there is nothing left that it could belong to.

    Raises:
        JobError: it is not such a shard.
    """
    run_id, result = from_table(table)
    known = scalar(connection, "select 1 from runs where run_id = :id", id=run_id)
    if known and result.outcome != "skipped":
        _insert(connection, spec, run_id, result)
    return 1, int(result.outcome in ("failed", "diverged"))


def _insert(connection: Connection, spec: JobSpec, run_id: int, result: RunResult) -> None:
    result_id = int(scalar(connection, "select nextval('result_ids')"))
    connection.execute(
        text(
            """insert into run_results values (:result_id, :run_id, :job_id, :outcome, :reason, :loss_nats, :n_outputs,
            :n_outputs_null, :train_loss_nats, :seconds, :details, :finished_at)"""
        ),
        {
            "result_id": result_id,
            "run_id": run_id,
            "job_id": spec.job_id,
            "outcome": result.outcome,
            "reason": result.reason,
            "loss_nats": result.loss_nats,
            "n_outputs": len(result.losses),
            "n_outputs_null": result.n_null,
            "train_loss_nats": result.train_loss_nats,
            "seconds": result.seconds,
            "details": json.dumps(_storable(result.details), sort_keys=True, allow_nan=False),
            "finished_at": utc_now(),
        },
    )
    _insert_many(connection, "run_losses", result_id, OutputLoss.__slots__, result.losses, _LOSSES)
    _insert_many(connection, "run_curves", result_id, CurvePoint.__slots__, result.curve, _CURVE)


def _storable(value: Any) -> Any:
    """The same with None for every number that is not finite: JSON has no word for them, and DuckDB refuses it."""
    if isinstance(value, Mapping):
        return {str(key): _storable(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _insert_many(
    connection: Connection, table: str, result_id: int, names: tuple[str, ...], records: Any, schema: pa.Schema
) -> None:
    if not records:
        return
    rows = [{name: getattr(record, name) for name in names} for record in records]
    with registered(connection, "incoming", pa.Table.from_pylist(rows, schema=schema)):
        connection.execute(
            text(f"insert into {table} select :result_id, {', '.join(schema.names)} from incoming"),
            {"result_id": result_id},
        )
