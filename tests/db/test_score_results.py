"""Results so far: counts and means against plain Python, over the rows of one dataset and no other."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest

from core.example import Example
from db import commands
from db.score_results import SAMPLE_ROWS, models_by_role, small_histogram, so_far
from db.store import Store
from tests.pages.sample_stores import Identity, example_ids, import_rows

SCHEMA = pa.schema(
    [("scorer_id", pa.int64()), ("example_id", pa.int64()), ("value", pa.float64()), ("reason", pa.string()),
     ("transient", pa.bool_())]
)  # fmt: skip


def put(store: Store, output: str, values: dict[int, float | None]) -> int:
    with store.write() as connection:
        scorer_id = commands.ensure_scorers(connection, [Identity(output, output)])[output]
        table = {
            "scorer_id": [scorer_id] * len(values),
            "example_id": list(values),
            "value": list(values.values()),
            "reason": ["It is empty." if value is None else None for value in values.values()],
            "transient": [False] * len(values),
        }
        commands.put_scores(connection, pa.table(table, schema=SCHEMA))
    return scorer_id


def test_counts_means_and_bins_are_those_of_the_dataset(store: Store) -> None:
    texts = [Example(f"Say {i}.", "", f"{i}") for i in range(60)]
    # Row 0 stands twice: it was scored once and counts once.
    first = import_rows(store, [*texts[:40], texts[0]], name="First")
    import_rows(store, texts[40:], name="Second")
    ids = example_ids(store, first)[:40]
    rng = random.Random(0)
    values: dict[int, float | None] = {i: rng.gauss(0, 1) for i in ids[:30]}
    values[ids[3]] = None
    other = dict.fromkeys(example_ids(store, first + 1), 1000.0)
    scorer = put(store, "mtld", {**values, **other})
    found, empty = so_far(store, dataset_id=first, scorers={"mtld": scorer, "reward": 99})
    kept = [value for value in values.values() if value is not None]
    assert (found.output, found.n_scored, found.n_null) == ("mtld", 30, 1)
    assert found.mean == pytest.approx(sum(kept) / len(kept))
    assert sum(found.bins) == len(kept)
    assert len(found.bins) == 24
    assert (empty.n_scored, empty.mean, empty.bins) == (0, None, ())


def test_all_null_has_no_mean_and_no_bins(store: Store) -> None:
    dataset = import_rows(store, [Example(f"Say {i}.", "", "") for i in range(3)], name="Empty")
    scorer = put(store, "mtld", dict.fromkeys(example_ids(store, dataset), None))
    (found,) = so_far(store, dataset_id=dataset, scorers={"mtld": scorer})
    assert (found.n_scored, found.n_null, found.mean, found.bins) == (3, 3, None, ())


def test_a_large_dataset_is_drawn_from_a_sample_but_counted_whole(store: Store) -> None:
    n = 10 * SAMPLE_ROWS
    dataset = import_rows(store, [Example(f"Say {i}.", "", f"{i}") for i in range(n)], name="Large")
    ids = example_ids(store, dataset)
    scorer = put(store, "mtld", {example_id: float(i) for i, example_id in enumerate(ids)})
    (found,) = so_far(store, dataset_id=dataset, scorers={"mtld": scorer})
    assert found.n_scored == n
    assert found.mean == pytest.approx((n - 1) / 2)
    assert 0.8 * SAMPLE_ROWS < sum(found.bins) < 1.2 * SAMPLE_ROWS
    assert max(found.bins) < 2 * min(found.bins), "even values make even bars"


def test_small_histograms() -> None:
    assert small_histogram([], n_bins=4) == ()
    assert sum(small_histogram([2.0, 2.0, 2.0], n_bins=4)) == 3
    assert small_histogram([0.0, 1.0], n_bins=2) == (1, 1)
    # One value a thousand times as large as the rest must not press all others into the first bar.
    spread = small_histogram(np.r_[np.linspace(0, 1, 999), 1000.0], n_bins=10)
    assert sum(spread) == 1000
    assert max(spread) < 200


def test_models_by_role_are_the_latest_first(store: Store) -> None:
    with store.write() as connection:
        for output, model in (("ifd", "old"), ("length", "old"), ("reward", "rm"), ("ifd", "new"), ("knn_6", "e")):
            commands.ensure_scorers(connection, [Identity(output, output, model=model)])
        commands.ensure_scorers(connection, [Identity("mtld", "mtld"), Identity("gone", "gone", model="x")])
    assert models_by_role(store) == {"student": ["new", "old"], "reward": ["rm"], "embedder": ["e"]}
