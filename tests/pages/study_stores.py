"""A store with studies whose truth is known: scored sources, an evaluation set, runs with their losses and curves.

log L of every run is ``TRUTH["const"] + TRUTH["reward"] · mean reward + TRUTH["length"] · mean length`` plus a little
noise; MTLD and IFD say nothing. Of the mixtures one diverged, one failed, and one row has no IFD. Names are hostile.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from sqlalchemy import text

from core.example import Example
from core.finetune.results import CurvePoint, OutputLoss, RunResult
from core.finetune.settings import FinetuneSettings
from core.studies import PlannedRun
from db import commands, studies
from db.store import Store, registered, scalar, utc_now
from tests.pages.sample_stores import Identity, example_ids, import_rows

TRUTH = {"const": 0.9, "reward": -0.2, "length": 0.004}
NOISE = 0.01
N_MIXTURES = 24  # done; one more diverged, one more failed
SIZE = 30
N_BINS = 8
SOURCES = ("Well formed", "Shuffled <b>*responses*</b>", "Cut short")
MIXTURES, BINS, COMPARISON, OTHER = (
    "Mixtures of <i>three</i> sources", "Bins by reward", "Rule against random", "Other setting",
)  # fmt: skip
SETTINGS = FinetuneSettings(base="/models/tiny-base", revision="local-0123456789ab", precision="fp32", epochs=1.0)
JOB = "20260101-000000-000000-study-0000"
DIVERGED = "The training loss was not finite from step 3 on; lower the learning rate."
FAILED = "No row of this dataset has a response token to train on."

_SCORERS = (
    Identity("length", "length", model="/models/tiny-base", revision="local-0123456789ab"),
    Identity("mtld", "mtld"),
    Identity("ifd", "ifd", model="/models/tiny-base", revision="local-0123456789ab", template="alpaca"),
    Identity("reward", "reward", model="/models/tiny-reward", revision="local-ba9876543210"),
)
_EMBEDDING = Identity(
    "embedding", "embedding", model="/models/tiny-embedder", revision="local-00ff00ff00ff",
    settings={"dtype": "float32", "max_length": None},
)  # fmt: skip


@dataclass(frozen=True)
class Studied:
    """Ids of what :func:`fill` made. ``scorers`` output -> scorer_id, ``values`` output -> example_id -> value."""

    sources: Mapping[str, int]
    evaluation_id: int
    other_evaluation_id: int
    mixtures_id: int
    bins_id: int
    comparison_id: int
    other_id: int
    scorers: Mapping[str, int]
    embedding_id: int
    values: Mapping[str, Mapping[int, float]]


def fill(store: Store) -> Studied:
    """Fill an empty store: four studies over three scored sources, two evaluation sets."""
    rng = np.random.default_rng(7)
    sources = {name: import_rows(store, _rows(name, 30), name=name) for name in SOURCES}
    evaluation, other = (
        import_rows(store, _rows(name, n), name=name) for name, n in (("Evaluation set", 6), ("Another one", 3))
    )
    with store.write() as connection:
        for dataset_id in (evaluation, other):
            connection.execute(
                text("insert into evaluation_sets values (:id, :at, 'Test')"), {"id": dataset_id, "at": utc_now()}
            )
    pools = {name: example_ids(store, dataset_id) for name, dataset_id in sources.items()}
    scorers, embedding_id, values = _score(store, pools, rng)
    everything = [i for ids in pools.values() for i in ids]
    planned = {
        MIXTURES: ("multivariate", evaluation, SETTINGS, _mixtures(pools, rng, N_MIXTURES + 2)),
        BINS: ("univariate", evaluation, SETTINGS, _bins(everything, values["reward"], scorers["reward"])),
        COMPARISON: ("comparison", evaluation, SETTINGS, _comparison(everything, values, rng)),
        OTHER: (
            "multivariate", other, FinetuneSettings(base="/models/tiny-base", precision="fp32", epochs=2.0),
            _mixtures(pools, rng, 4),
        ),
    }  # fmt: skip
    made = {name: _study(store, name, *what, values=values, rng=rng) for name, what in planned.items()}
    return Studied(
        sources, evaluation, other, made[MIXTURES], made[BINS], made[COMPARISON], made[OTHER], scorers, embedding_id,
        values,
    )  # fmt: skip


def true_log_loss(ids: Sequence[int], values: Mapping[str, Mapping[int, float]]) -> float:
    """log L of a run on these examples, without noise."""
    means = {output: float(np.mean([values[output][i] for i in ids])) for output in ("reward", "length")}
    return TRUTH["const"] + sum(TRUTH[output] * mean for output, mean in means.items())


def _rows(name: str, n: int) -> list[Example]:
    return [
        Example(f"{name}: say where river {i} ends.", "", f"River {i} ends in the sea, says {name}.") for i in range(n)
    ]


def _score(
    store: Store, pools: Mapping[str, Sequence[int]], rng: np.random.Generator
) -> tuple[dict[str, int], int, dict[str, dict[int, float]]]:
    """Scores and embeddings of the sources' rows. The third row of the last source has no IFD."""
    shapes = {  # mean and standard deviation per source
        "reward": ((1.5, 0.5), (-1.5, 0.5), (0.0, 0.5)),
        "length": ((60.0, 12.0), (60.0, 12.0), (12.0, 3.0)),
        "mtld": ((50.0, 10.0),) * 3,
        "ifd": ((0.6, 0.1),) * 3,
    }
    values: dict[str, dict[int, float]] = {
        output: {
            i: float(value)
            for (mean, deviation), ids in zip(per_source, pools.values(), strict=True)
            for i, value in zip(ids, rng.normal(mean, deviation, len(ids)), strict=True)
        }
        for output, per_source in shapes.items()
    }
    del values["ifd"][pools[SOURCES[-1]][2]]
    everything = [i for ids in pools.values() for i in ids]
    vectors = rng.normal(size=(len(everything), 8)).astype(np.float32)
    with store.write() as connection:
        scorers = commands.ensure_scorers(connection, _SCORERS)
        embedding_id = commands.ensure_scorers(connection, [_EMBEDDING])["embedding"]
        lines = [(scorers[output], i, values[output].get(i)) for output in values for i in everything]
        commands.put_scores(
            connection,
            pa.table(
                {
                    "scorer_id": pa.array([line[0] for line in lines], pa.int64()),
                    "example_id": pa.array([line[1] for line in lines], pa.int64()),
                    "value": pa.array([line[2] for line in lines], pa.float64()),
                    "reason": [None if line[2] is not None else "The response is empty." for line in lines],
                    "transient": [False] * len(lines),
                }
            ),
        )
        found = pa.table(
            {
                "example_id": pa.array(everything, pa.int64()),
                "vector": pa.array(list(vectors), pa.list_(pa.float32())),
            }
        )
        with registered(connection, "incoming", found):
            connection.execute(
                text("insert into embeddings select :id, example_id, vector from incoming"), {"id": embedding_id}
            )
    return scorers, embedding_id, values


def _mixtures(pools: Mapping[str, Sequence[int]], rng: np.random.Generator, n: int) -> list[PlannedRun]:
    found = []
    for i in range(n):
        shares = rng.uniform(size=len(pools))
        counts = np.minimum(np.floor(SIZE * shares / shares.sum()).astype(int) + 1, SIZE)
        ids = [
            int(one)
            for pool, count in zip(pools.values(), counts, strict=True)
            for one in rng.choice(pool, size=count, replace=False)
        ][:SIZE]
        per_source = {name: sum(i in pool for i in ids) for name, pool in pools.items()}
        found.append(PlannedRun(f"mixture {i + 1}", "mixture", tuple(ids), i, {"proportions": per_source}))
    return found


def _bins(ids: Sequence[int], values: Mapping[int, float], scorer_id: int) -> list[PlannedRun]:
    ordered = sorted(ids, key=lambda i: -values[i])
    parts = np.array_split(np.array(ordered), N_BINS)
    return [
        PlannedRun(
            f"reward bin {i + 1}", "bin", tuple(int(one) for one in part), i,
            {"indicator": "reward", "scorer_id": scorer_id, "bin": i, "low": values[int(part[-1])],
             "high": values[int(part[0])]},
        )
        for i, part in enumerate(parts)
    ]  # fmt: skip


def _comparison(
    ids: Sequence[int], values: Mapping[str, Mapping[int, float]], rng: np.random.Generator
) -> list[PlannedRun]:
    ranking = sorted(ids, key=lambda i: true_log_loss([i], values))
    return [
        PlannedRun("selected", "selected", tuple(ranking[:SIZE]), 0, {"k": SIZE}),
        *(
            PlannedRun(
                f"random {i + 1}",
                "random",
                tuple(int(one) for one in rng.choice(ids, size=SIZE, replace=False)),
                i,
                {"k": SIZE, "draw": i},
            )
            for i in range(5)
        ),
    ]


def _study(
    store: Store,
    name: str,
    kind: str,
    evaluation_id: int,
    settings: FinetuneSettings,
    runs: Sequence[PlannedRun],
    *,
    values: Mapping[str, Mapping[int, float]],
    rng: np.random.Generator,
) -> int:
    """A study with its base run first and a result of every run; of the other setting the last run has none."""
    study_id = studies.create_study(
        store, name=name, kind=kind, evaluation_id=evaluation_id, settings=settings, runs=runs, design={"seed": 7},
        created_by="Test",
    )  # fmt: skip
    outputs = example_ids(store, evaluation_id)
    planned = {run.label: run for run in runs}
    found = {
        run["run_id"]: _result(name, run["number"], planned.get(run["label"]), outputs, values, rng)
        for run in studies.runs(store, [study_id])
        if (name, run["number"]) != (OTHER, len(runs))
    }
    add_results(store, found)
    return study_id


def _result(
    study: str,
    number: int,
    run: PlannedRun | None,
    outputs: Sequence[int],
    values: Mapping[str, Mapping[int, float]],
    rng: np.random.Generator,
) -> RunResult:
    """``run`` None: the untrained base model."""
    if (study, number) == (MIXTURES, 4):
        curve = [CurvePoint(step, step / 6, 2.0 if step < 3 else None) for step in range(1, 4)]
        return RunResult(outcome="diverged", reason=DIVERGED, seconds=1.0, curve=curve)
    if (study, number) == (MIXTURES, 9):
        return RunResult(outcome="failed", reason=FAILED, seconds=0.5)
    loss = 4.0 if run is None else float(np.exp(true_log_loss(run.example_ids, values) + rng.normal(0, NOISE)))
    spread = np.linspace(-0.3, 0.3, len(outputs))
    return RunResult(
        outcome="done",
        loss_nats=loss,
        train_loss_nats=None if run is None else loss - 0.1,
        seconds=12.0,
        losses=[OutputLoss(i, loss + float(more), 20) for i, more in zip(outputs, spread, strict=True)],
        curve=[
            CurvePoint(step, step / 6, loss + 2.0 / step, 1e-3, 1.0, 0.5) for step in range(1, 1 if run is None else 7)
        ],
        details={
            "n_train_rows": 0 if run is None else len(run.example_ids),
            "n_steps": 6,
            "peak_bytes": 10**9,
            "seed": number,
        },
    )


def add_result(store: Store, run_id: int, result: RunResult, *, job_id: str = JOB) -> int:
    """What collecting a run's shard puts into the store. Returns the result's id."""
    return add_results(store, {run_id: result}, job_id=job_id)[0]


def add_results(store: Store, results: Mapping[int, RunResult], *, job_id: str = JOB) -> list[int]:
    """Results by run id, in one transaction. Returns the results' ids."""
    result_ids = []
    parts: dict[str, list[dict[str, Any]]] = {"run_results": [], "run_losses": [], "run_curves": []}
    with store.write() as connection:
        for run_id, result in results.items():
            result_id = int(scalar(connection, "select nextval('result_ids')"))
            result_ids.append(result_id)
            parts["run_results"].append(
                {"result_id": result_id, "run_id": run_id, "job_id": job_id, "outcome": result.outcome,
                 "reason": result.reason, "loss_nats": result.loss_nats, "n_outputs": len(result.losses),
                 "n_outputs_null": result.n_null, "train_loss_nats": result.train_loss_nats,
                 "seconds": result.seconds, "details": json.dumps(dict(result.details)), "finished_at": utc_now()}
            )  # fmt: skip
            for table, lines in (("run_losses", result.losses), ("run_curves", result.curve)):
                for one in lines:
                    names = type(one).__slots__
                    parts[table].append({"result_id": result_id, **{name: getattr(one, name) for name in names}})
        for table, found in parts.items():
            if found:
                columns = ", ".join(found[0])
                with registered(connection, "incoming", pa.Table.from_pylist(found)):
                    connection.execute(text(f"insert into {table} ({columns}) select {columns} from incoming"))
    return result_ids
