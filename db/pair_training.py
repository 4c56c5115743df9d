"""Training a model of decisions in a thread of the server, with its progress.

It learns from the decisions of people that stand (bulk decisions are nobody's reading) and predicts every pair there
is. A model is never changed; training again makes another (db/pair_models.py reads them).
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from sqlalchemy import Connection, text

from core import decision_evidence as evidence
from core.decision_evidence import Held
from core.decision_model import CHOOSE, MEASURE, TRAIN, DecisionModel, fit, part_of
from core.errors import AssayError, StoreError
from db import permission
from db.pair_features import Layout, Numbers, layout, numbers
from db.pair_queue import ACCEPTED
from db.store import Store, frame, registered, said_plainly, scalar, utc_now

MOST_ROWS = 20_000
"""Of each part no more decisions are used than these, chosen by chance but the same each time."""

BATCH = 50_000
MODELS_KEPT = 3
_DECIDED = """current_decisions c join pairs p on p.pair_id = c.pair_id where c.purpose <> 'bulk'"""


# --- decisions so far ---


@dataclass(frozen=True)
class Decided:
    """The decisions of people that stand, bulk decisions left out. ``problem``: why they are too few, or None."""

    n_accepted: int
    n_rejected: int
    last_decision_id: int
    problem: str | None


def decided(store: Store) -> Decided:
    """Count the decisions that a model could learn from now."""
    with store.read() as connection:
        found = frame(
            connection,
            f"""select count(*) filter (c.verdict in {ACCEPTED}) yes, count(*) filter (c.verdict = 'reject') as no,
                coalesce(max(c.decision_id), 0) as last from {_DECIDED}""",
        ).to_pylist()[0]
    return Decided(found["yes"], found["no"], found["last"], evidence.why_too_few(found["yes"], found["no"]))


def n_new_decisions(store: Store, model_id: int) -> int:
    """How many decisions of people that stand came after a model was trained."""
    with store.read() as connection:
        return int(
            scalar(
                connection,
                f"""select count(*) from {_DECIDED} and c.decision_id > (
                    select last_decision_id from pair_models where model_id = :id)""",
                id=model_id,
            )
        )


# --- training ---


@dataclass(eq=False)
class TrainingTask:
    """A training on its way; its thread writes it, pages read it.

    ``state``  reading, fitting, predicting, done, failed or stopped; ``fraction`` of the pairs that are predicted
    """

    store: Store
    trained_by: str
    started: float = field(default_factory=time.monotonic)
    ended: float | None = None
    state: str = "reading"
    fraction: float = 0.0
    error: str | None = None
    model_id: int | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None

    @property
    def over(self) -> bool:
        """Whether the thread is through."""
        return self.state in ("done", "failed", "stopped")

    @property
    def seconds(self) -> float:
        """Since the start, or from start to end."""
        return (self.ended or time.monotonic()) - self.started

    def wait(self, seconds: float | None = None) -> None:
        """Wait for the thread."""
        if self.thread is not None:
            self.thread.join(seconds)


_tasks: dict[str, TrainingTask] = {}
_lock = threading.Lock()


def start_training(store: Store, *, trained_by: str) -> TrainingTask:
    """Begin to train in a thread and return at once; one that is under way is returned as it is.

    Raises:
        StoreError: the decisions are too few; the message says how many are needed.
        NotAllowedError: whoever acts may not review.
    """
    permission.require("review")
    found = decided(store)
    if found.problem is not None:
        raise StoreError(found.problem)
    with _lock:
        running = _tasks.get(str(store.path))
        if running is not None and not running.over:
            return running
        task = TrainingTask(store, trained_by)
        task.thread = threading.Thread(target=_run, args=(task,), name="assay-pair-model", daemon=True)
        _tasks[str(store.path)] = task
        task.thread.start()
    return task


def training(store: Store) -> TrainingTask | None:
    """The training of this store that is under way or ended last, in this server."""
    return _tasks.get(str(store.path))


def stop_training(store: Store, *, seconds: float = 30.0) -> None:
    """Ask the training under way to end, and wait for it: the server does this before it closes the store."""
    task = _tasks.get(str(store.path))
    if task is not None and not task.over:
        task.stop.set()
        task.wait(seconds)


class _StoppedError(Exception):
    """The server stops."""


def _run(task: TrainingTask) -> None:
    state = "failed"
    try:
        task.model_id = _train(task)
        state = "done"
    except AssayError as error:
        task.error = str(error)
    except _StoppedError:
        state = "stopped"
        task.error = "The server was stopped; nothing was kept. Train again."
    finally:
        if state == "failed" and task.error is None:  # a fault of ours: it goes on to the server's log
            task.error = "The training ended by an error of Assay; the server's log has it. Nothing was kept."
        task.ended = time.monotonic()
        task.state = state


@dataclass(frozen=True)
class _Learning:
    """Decided pairs: ``pair_ids, accepted`` (bool), ``groups`` (their originals) and ``part`` (int8), all ``[n]``."""

    pair_ids: np.ndarray
    accepted: np.ndarray
    groups: np.ndarray
    part: np.ndarray
    last_decision_id: int


def _train(task: TrainingTask) -> int:
    store = task.store
    with store.read() as connection:
        learning = _learning(connection)
        of_train = learning.part == TRAIN
        problem = evidence.why_too_few(int(learning.accepted.sum()), int((~learning.accepted).sum()))
        if problem is not None or not of_train.any():
            raise StoreError(problem or "No decided pair is of the part that is learnt from. Decide more pairs.")
        columns = layout(connection, learning.pair_ids[of_train])
        found = numbers(connection, columns, learning.pair_ids)
    _go_on(task, "fitting")
    model = fit(found.table[of_train], learning.accepted[of_train], learning.groups[of_train], names=columns.names)
    metrics = _metrics(model, learning, found)
    _go_on(task, "predicting")
    predictions = _predictions(task, columns, model, np.unique(learning.groups[of_train]))
    return _keep(store, task.trained_by, learning, columns, model, metrics, predictions)


def _go_on(task: TrainingTask, state: str) -> None:
    if task.stop.is_set():
        raise _StoppedError
    task.state = state


def _learning(connection: Connection) -> _Learning:
    found = frame(
        connection,
        f"""select c.pair_id, c.verdict <> 'reject' accepted, p.original_id, c.decision_id from {_DECIDED}
        order by hash(p.original_id), c.pair_id""",
    )
    groups = found["original_id"].to_numpy()
    part = part_of(groups)
    # Whole groups from the front of an order by chance; the last one may lose pairs, which no other part has.
    place = np.zeros(len(part), np.int64)
    for one in (TRAIN, CHOOSE, MEASURE):
        place[part == one] = np.arange(np.count_nonzero(part == one))
    kept = np.flatnonzero(place < MOST_ROWS)
    return _Learning(
        pair_ids=found["pair_id"].to_numpy()[kept],
        accepted=found["accepted"].to_numpy(zero_copy_only=False).astype(bool)[kept],
        groups=groups[kept],
        part=part[kept],
        last_decision_id=int(found["decision_id"].to_numpy().max()) if found.num_rows else 0,
    )


def _metrics(model: DecisionModel, learning: _Learning, found: Numbers) -> dict[str, Any]:
    held = {
        name: Held(model.predict(found.table[learning.part == part]), learning.accepted[learning.part == part])
        for name, part in (("choose", CHOOSE), ("measure", MEASURE))
    }
    by_student = np.concatenate([found.proposed[learning.part == part] for part in (CHOOSE, MEASURE)])
    trained_on = learning.accepted[learning.part == TRAIN]
    return {
        "n_train": len(trained_on),
        "n_train_accepted": int(trained_on.sum()),
        "held_out": evidence.summary(
            held["choose"].joined(held["measure"]), by_student=by_student, train_rate=float(trained_on.mean())
        ),
        "coefficients": evidence.strongest(model.names, model.coefficients),
        "choose": held["choose"].to_dict(),
        "measure": held["measure"].to_dict(),
    }


def _predictions(task: TrainingTask, columns: Layout, model: DecisionModel, learnt: np.ndarray) -> pa.Table:
    """``pair_id, p_accept, held_out`` of every pair, batch by batch; 17 bytes a pair are held.

    ``held_out``: no pair of its original was trained on. ``learnt`` are the originals that were, sorted.
    """
    batches, after, n_done = [], 0, 0
    with task.store.read() as connection:
        n_pairs = int(scalar(connection, "select count(*) from pairs"))
    while True:
        if task.stop.is_set():
            raise _StoppedError
        with task.store.read() as connection:
            ids = frame(
                connection,
                f"select pair_id from pairs where pair_id > $after order by pair_id limit {BATCH}",
                {"after": after},
            )["pair_id"].to_numpy()
            if not len(ids):
                break
            found = numbers(connection, columns, ids)
        held_out = ~np.isin(found.original_ids, learnt)
        batches.append(pa.table({"pair_id": ids, "p_accept": model.predict(found.table), "held_out": held_out}))
        after, n_done = int(ids[-1]), n_done + len(ids)
        task.fraction = min(1.0, n_done / max(1, n_pairs))
    return pa.concat_tables(batches)


@said_plainly
def _keep(
    store: Store,
    trained_by: str,
    learning: _Learning,
    columns: Layout,
    model: DecisionModel,
    metrics: Mapping[str, Any],
    predictions: pa.Table,
) -> int:
    """Store model and predictions together, and drop the predictions of models that have been replaced for long."""
    settings = {
        "families": list(columns.families),
        "embedder": columns.embedder,
        "n_inputs": len(model.names),
        "penalty": model.penalty,
        "cross_validated_log_loss_nats": model.log_loss,
    }
    with store.write("review") as connection:
        model_id = int(scalar(connection, "select nextval('pair_model_ids')"))
        connection.execute(
            text(
                """insert into pair_models (model_id, settings, metrics, n_decisions, last_decision_id, trained_at,
                    trained_by) values (:model_id, :settings, :metrics, :n, :last, :now, :by)"""
            ),
            {
                "model_id": model_id,
                "settings": json.dumps(settings),
                "metrics": json.dumps(metrics),
                "n": len(learning.pair_ids),
                "last": learning.last_decision_id,
                "now": utc_now(),
                "by": trained_by,
            },
        )
        with registered(connection, "incoming", predictions):
            connection.execute(
                text(
                    """insert into pair_predictions (model_id, pair_id, p_accept, held_out)
                    select :model_id, pair_id, p_accept, held_out from incoming"""
                ),
                {"model_id": model_id},
            )
        connection.execute(
            text(
                f"""delete from pair_predictions where model_id not in (
                    select model_id from pair_models order by model_id desc limit {MODELS_KEPT})"""
            )
        )
    return model_id
