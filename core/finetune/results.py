"""What a run gives: its outcome, its evaluation loss per output, its loss curve. One row of a table, for a shard."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from core.errors import JobError

OUTCOMES = ("done", "diverged", "failed", "skipped")
"""``done`` alone goes into fits. ``diverged``: a loss was not finite, or worse than guessing all tokens alike.
``failed``: an error of this run. ``skipped``: it was not run, such as a trial after its search's budget."""


@dataclass(frozen=True, slots=True)
class OutputLoss:
    """Mean response-token loss of one reference output of the evaluation set; None with a reason."""

    example_id: int
    loss_nats: float | None
    n_tokens: int
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One optimiser step: mean training loss per response token, and what it was made with."""

    step: int
    epoch: float
    loss_nats: float | None
    learning_rate: float | None = None
    grad_norm: float | None = None
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What one run gave.

    ``loss_nats``  L: mean over the outputs of their mean response-token loss [IM]; None with a ``reason``
    ``details``    JSON-able: seconds_loading, seconds_training, seconds_evaluating, n_train_rows, n_train_rows_skipped,
                   n_train_tokens (response tokens), n_tokens (all), n_steps, n_trainable, peak_bytes, seed, versions,
                   settings, adapter (folder), and what else explains the number
    """

    outcome: str
    loss_nats: float | None = None
    reason: str | None = None
    train_loss_nats: float | None = None
    seconds: float | None = None
    losses: Sequence[OutputLoss] = ()
    curve: Sequence[CurvePoint] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.outcome not in OUTCOMES:
            raise ValueError(f"unknown outcome {self.outcome!r}")
        if self.loss_nats is None and not self.reason:
            raise ValueError("a run without a loss needs a reason")

    @property
    def n_null(self) -> int:
        """Outputs of the evaluation set that have no loss."""
        return sum(one.loss_nats is None for one in self.losses)


_LOSS = pa.struct(
    [("example_id", pa.int64()), ("loss_nats", pa.float64()), ("n_tokens", pa.int64()), ("reason", pa.string())]
)
_POINT = pa.struct(
    [
        ("step", pa.int64()),
        *((name, pa.float64()) for name in ("epoch", "loss_nats", "learning_rate", "grad_norm", "seconds")),
    ]
)
SCHEMA = pa.schema(
    [
        ("run_id", pa.int64()),
        ("outcome", pa.string()),
        ("reason", pa.string()),
        ("loss_nats", pa.float64()),
        ("train_loss_nats", pa.float64()),
        ("seconds", pa.float64()),
        ("details", pa.string()),
        ("losses", pa.list_(_LOSS)),
        ("curve", pa.list_(_POINT)),
    ]
)


def to_table(run_id: int, result: RunResult) -> pa.Table:
    """The result as a table of one row."""
    return pa.Table.from_pylist(
        [
            {
                "run_id": run_id,
                "outcome": result.outcome,
                "reason": result.reason,
                "loss_nats": result.loss_nats,
                "train_loss_nats": result.train_loss_nats,
                "seconds": result.seconds,
                "details": json.dumps(dict(result.details), sort_keys=True),
                "losses": [{name: getattr(one, name) for name in OutputLoss.__slots__} for one in result.losses],
                "curve": [{name: getattr(one, name) for name in CurvePoint.__slots__} for one in result.curve],
            }
        ],
        schema=SCHEMA,
    )


def from_table(table: pa.Table) -> tuple[int, RunResult]:
    """The run's id and result out of :func:`to_table`'s table.

    Raises:
        JobError: it is not such a table.
    """
    if table.num_rows != 1 or set(SCHEMA.names) - set(table.schema.names):
        raise JobError("A shard of a study does not hold one run; delete the shard and resume the job.")
    row = table.to_pylist()[0]
    result = RunResult(
        outcome=row["outcome"],
        reason=row["reason"],
        loss_nats=row["loss_nats"],
        train_loss_nats=row["train_loss_nats"],
        seconds=row["seconds"],
        details=json.loads(row["details"]),
        losses=tuple(OutputLoss(**one) for one in row["losses"]),
        curve=tuple(CurvePoint(**one) for one in row["curve"]),
    )
    return int(row["run_id"]), result
