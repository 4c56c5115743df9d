"""What the Relations, Map and Distributions pages read, against plain Python over the same rows."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from core.example import Example
from core.filters import Category, NoValue, RowFilter
from db import commands, embeddings, queries, relations
from db.store import Store
from tests.pages.sample_stores import Identity, example_ids

HOSTILE_KEY = "a/b~c.\"$'["


def import_rows(store: Store, metadata: Sequence[str | None], *, name: str = "Rows") -> int:
    """A dataset with one row per metadata text."""
    examples = [Example(f"{name} {i}") for i in range(len(metadata))]
    batch = pa.RecordBatch.from_pydict(
        {
            "row": pa.array(range(len(examples)), pa.int64()),
            "hash": [e.hash for e in examples],
            "instruction": [e.instruction for e in examples],
            "input": [e.input for e in examples],
            "output": [e.output for e in examples],
            "metadata": pa.array(metadata, pa.string()),
        }
    )
    return commands.import_dataset(store, [batch], name=name, source="test")


def put(store: Store, output: str, values: Mapping[int, float | str]) -> int:
    """Scores of examples: a number, or the reason why there is none. Returns the scorer's id."""
    with store.write() as connection:
        scorer_id = commands.ensure_scorers(connection, [Identity(output, output)])[output]
        table = pa.table(
            {
                "scorer_id": pa.array([scorer_id] * len(values), pa.int64()),
                "example_id": pa.array(values, pa.int64()),
                "value": pa.array([v if isinstance(v, float) else None for v in values.values()], pa.float64()),
                "reason": pa.array([v if isinstance(v, str) else None for v in values.values()], pa.string()),
                "transient": [False] * len(values),
            }
        )
        commands.put_scores(connection, table)
    return scorer_id


# --- rows without a value, categories, marked rows ---


def found(store: Store, **filters: Any) -> list[int]:
    """Example ids of a filter; the page of rows and the count say the same."""
    chosen = RowFilter(**filters)
    page = queries.page_of_rows(store, chosen, size=1000)
    assert queries.count_rows(store, chosen) == len(page.rows)
    assert [row["example_id"] for row in page.rows] == queries.matching_ids(store, chosen)
    return [row["example_id"] for row in page.rows]


def test_rows_without_a_value_by_kind_and_reason(store: Store) -> None:
    """Rows without a value used to be out of reach of Explore: every range leaves them out."""
    ids = example_ids(store, import_rows(store, [None] * 5))
    scorer = put(store, "ifd", {ids[0]: 1.0, ids[1]: "empty: it's 100 %", ids[2]: "too long", ids[3]: 0.0})
    assert found(store, missing=(NoValue(scorer),)) == [ids[1], ids[2]]
    assert found(store, missing=(NoValue(scorer, "null", "empty: it's 100 %"),)) == [ids[1]]
    assert found(store, missing=(NoValue(scorer, "null", "no such reason"),)) == []
    assert found(store, missing=(NoValue(scorer, "unscored"),)) == [ids[4]]
    assert found(store, missing=(NoValue(scorer, "either"),)) == [ids[1], ids[2], ids[4]]
    other = put(store, "mtld", {ids[2]: "no word", ids[4]: 2.0})
    assert found(store, missing=(NoValue(scorer), NoValue(other))) == [ids[2]]
    assert found(store, missing=(NoValue(scorer, "either"),), text="rows 4") == [ids[4]]


def test_rows_by_what_a_further_column_holds(store: Store) -> None:
    values: list[Any] = ["qa", "<b>qa</b>", "", None, 3, ["x"], "qa"]
    metadata = [json.dumps({HOSTILE_KEY: value, "n": i}) for i, value in enumerate(values)]
    ids = example_ids(store, import_rows(store, [*metadata, None, "{not json", "[1]"]))
    assert found(store, category=Category(HOSTILE_KEY, ("qa",))) == [ids[0], ids[6]]
    assert found(store, category=Category(HOSTILE_KEY, ("<b>qa</b>", ""))) == [ids[1], ids[2]]
    assert found(store, category=Category(HOSTILE_KEY, ("3", '["x"]'))) == [ids[4], ids[5]]
    assert found(store, category=Category(HOSTILE_KEY, (None,))) == [ids[3], *ids[7:]]
    assert found(store, category=Category(HOSTILE_KEY, ("qa", None))) == [ids[0], ids[3], *ids[6:]]
    assert found(store, category=Category("n", ("2",)), ids=(ids[1], ids[2])) == [ids[2]]


def test_marked_rows_come_in_the_order_of_the_dataset(store: Store) -> None:
    ids = example_ids(store, import_rows(store, [None] * 9))
    assert found(store, ids=(ids[2], ids[5], 10**9)) == [ids[2], ids[5]]


# --- values of datasets ---


def test_the_value_of_a_dataset_counts_what_has_none(store: Store) -> None:
    one = import_rows(store, [None] * 6)
    ids = example_ids(store, one)
    two = commands.create_dataset(store, [ids[0], ids[0], ids[5]], name="Twice", kind="selection", source="test")
    first = put(store, "ifd", {ids[0]: 1.0, ids[1]: 2.0, ids[2]: 6.0, ids[3]: "empty"})
    second = put(store, "mtld", {ids[4]: "no word"})
    got = relations.dataset_values(store, dataset_ids=[two, one], scorer_ids=[first, second])
    assert [(v.dataset_id, v.scorer_id) for v in got] == [(one, first), (two, first), (one, second), (two, second)]
    of_one, of_two, nothing, unscored = got
    assert (of_one.n_members, of_one.interval.n, of_one.n_nulls, of_one.n_missing) == (6, 3, 1, 2)
    assert (of_one.interval.mean, of_one.median) == (3.0, 2.0)
    # A row that stands twice counts twice, and equal values leave no doubt about their mean.
    assert (of_two.interval.n, of_two.interval.mean, of_two.interval.low, of_two.n_missing) == (2, 1.0, 1.0, 1)
    assert (nothing.interval.mean, nothing.median, nothing.n_nulls) == (None, None, 1)
    assert (unscored.interval.n, unscored.n_missing) == (0, 3)


# --- tables for correlations and scatter ---


def test_the_table_of_scores_holds_every_member_with_a_value(store: Store) -> None:
    ids = example_ids(store, import_rows(store, [None] * 6))
    x = put(store, "ifd", {ids[0]: 1.0, ids[1]: 2.0, ids[3]: "empty"})
    y = put(store, "mtld", {ids[1]: 20.0, ids[2]: 30.0, ids[3]: "empty"})
    dataset = commands.create_dataset(store, [*ids, ids[1]], name="Seven", kind="selection", source="test")
    table = relations.score_table(store, dataset_ids=[dataset], scorer_ids=[y, x])
    rows = sorted(tuple(-1.0 if math.isnan(v) else v for v in row) for row in table)
    assert rows == [(-1.0, 1.0), (20.0, 2.0), (20.0, 2.0), (30.0, -1.0)]
    assert relations.score_table(store, dataset_ids=[dataset], scorer_ids=[]).shape == (0, 0)


def test_samples_are_bounded_and_the_same_each_time(store: Store) -> None:
    dataset = import_rows(store, [json.dumps({"kind": i % 2}) for i in range(200)])
    ids = example_ids(store, dataset)
    x = put(store, "ifd", {i: float(i) for i in ids})
    y = put(store, "mtld", {i: -float(i) for i in ids})
    table = relations.score_table(store, dataset_ids=[dataset], scorer_ids=[x, y], limit=50)
    again = relations.score_table(store, dataset_ids=[dataset], scorer_ids=[x, y], limit=50)
    assert table.shape == (50, 2)
    assert sorted(table[:, 0]) == sorted(again[:, 0])
    assert (table[:, 0] == -table[:, 1]).all()
    points = relations.points(store, x=x, y=y, dataset_ids=[dataset], colour=x, key="kind", limit=50).to_pylist()
    assert sorted(row["x"] for row in points) == sorted(table[:, 0])
    assert all(row["colour"] == row["x"] == -row["y"] for row in points)
    assert {row["category"] for row in points} == {"0", "1"}


# --- further columns ---


def test_columns_that_tell_rows_apart_come_first(store: Store) -> None:
    metadata = [
        json.dumps({"id": i, "category": f"kind {i % 3}", "language": "en", HOSTILE_KEY: i % 2}) for i in range(100)
    ]
    dataset = import_rows(store, [*metadata, None, "{not json", '"text"'])
    keys = relations.category_keys(store, [dataset])
    assert [row["key"] for row in keys] == [HOSTILE_KEY, "category", "language", "id"]
    assert keys[1] == {"key": "category", "n_rows": 100, "n_values": 3}
    assert relations.categories(store, dataset_ids=[dataset], key="category", limit=2) == [
        {"category": "kind 0", "n": 34},
        {"category": "kind 1", "n": 33},
    ]
    assert relations.categories(store, dataset_ids=[dataset], key="category")[-1] == {"category": None, "n": 3}
    assert relations.category_keys(store, []) == []


def test_groups_are_sorted_by_median_and_add_up(store: Store) -> None:
    """Forty categories make thirty and "all others"; rows without the column stay apart; no row is lost."""
    metadata = [json.dumps({"c": f"kind {i % 40}"}) for i in range(400)]
    metadata += [json.dumps({"c": f"kind {i % 40}"}) for i in range(400, 430)]  # thirty kinds have a row more
    dataset = import_rows(store, [*metadata, None, None])
    ids = example_ids(store, dataset)
    scorer = put(store, "ifd", {i: float((i * 7919) % 1000) if i % 11 else "empty" for i in ids[:-1]})
    spreads = relations.spread(store, scorer_id=scorer, dataset_ids=[dataset], key="c")
    assert len(spreads) == 32
    assert [one.kind for one in spreads].count("other") == 1
    assert [one.kind for one in spreads].count("none") == 1
    assert sum(one.n + one.n_nulls + one.n_missing for one in spreads) == 432
    medians = [one.median for one in spreads if one.median is not None]
    assert medians == sorted(medians)
    other = next(one for one in spreads if one.kind == "other")
    assert other.n + other.n_nulls + other.n_missing == 100
    one = next(one for one in spreads if one.category == "kind 3")
    values = [float((i * 7919) % 1000) for at, i in enumerate(ids[:430]) if at % 40 == 3 and i % 11]
    assert one.n == len(values)
    assert (one.q05, one.q25, one.median, one.q75, one.q95) == pytest.approx(
        tuple(np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95]))
    )
    assert one.mean == pytest.approx(np.mean(values))


def test_a_category_may_be_called_like_the_group_of_others(store: Store) -> None:
    names = ["+", "-", "=", "", "other"]
    dataset = import_rows(store, [json.dumps({"c": name}) for name in names])
    scorer = put(store, "ifd", {i: float(n) for n, i in enumerate(example_ids(store, dataset))})
    spreads = relations.spread(store, scorer_id=scorer, dataset_ids=[dataset], key="c")
    assert [(one.kind, one.category) for one in spreads] == [("category", name) for name in names]


def test_groups_by_dataset_hold_those_without_a_value(store: Store) -> None:
    one, two = import_rows(store, [None] * 3), import_rows(store, [None] * 2, name="Others")
    ids = example_ids(store, one)
    scorer = put(store, "ifd", {ids[0]: 5.0, ids[1]: "empty"})
    spreads = relations.spread(store, scorer_id=scorer, dataset_ids=[one, two])
    assert [(s.dataset_id, s.n, s.n_nulls, s.n_missing, s.median) for s in spreads] == [
        (one, 1, 1, 1, 5.0),
        (two, 0, 0, 2, None),
    ]


# --- vectors ---


def put_vectors(store: Store, vectors: Mapping[int, Sequence[float]], *, model: str = "mini") -> int:
    """Embeddings as a score job stores them; returns the scorer's id."""
    with store.write() as connection:
        identity = Identity("embedding", "embedding", model=model)
        scorer_id = commands.ensure_scorers(connection, [identity])["embedding"]
        raw = connection.connection.driver_connection
        assert raw is not None
        for example_id, vector in vectors.items():
            raw.execute("insert into embeddings values ($1, $2, $3)", [scorer_id, example_id, list(vector)])
    return scorer_id


def test_vectors_are_streamed_once_per_row(store: Store) -> None:
    dataset = import_rows(store, [json.dumps({"c": i % 2}) for i in range(10)])
    ids = example_ids(store, dataset)
    twice = commands.create_dataset(store, [*ids[:8], ids[0]], name="Twice", kind="selection", source="test")
    mini = put_vectors(store, {i: [float(i), 1.0, -float(i)] for i in ids[:7]})
    put_vectors(store, {ids[0]: [1.0, 2.0]}, model="other")
    scorer = put(store, "ifd", {ids[1]: 5.0, ids[2]: "empty"})

    assert [(e["model"], e["n_vectors"]) for e in embeddings.embedders(store, dataset_ids=[dataset, twice])] == [
        ("mini", 7),
        ("other", 1),
    ]
    batches = list(embeddings.vectors(store, scorer_id=mini, dataset_ids=[dataset, twice], batch=2))
    assert all(batch.dtype == np.float32 for batch in batches)
    assert sorted(np.concatenate(batches)[:, 0]) == [float(i) for i in ids[:7]]
    of = {
        int(i): vector
        for found_ids, vectors in embeddings.vectors_of(store, scorer_id=mini, example_ids=[ids[0], ids[9], ids[3]])
        for i, vector in zip(found_ids, vectors, strict=True)
    }
    assert {i: list(vector) for i, vector in of.items()} == {i: [i, 1, -i] for i in (ids[0], ids[3])}
    points = embeddings.points(store, scorer_id=mini, dataset_ids=[twice], colour=scorer, key="c").to_pylist()
    assert [row["example_id"] for row in points] == [*ids[:7], ids[0]]
    assert [row["colour"] for row in points[:3]] == [None, 5.0, None]
    assert [row["category"] for row in points] == ["0", "1", "0", "1", "0", "1", "0", "0"]  # taken along
    assert len(embeddings.points(store, scorer_id=mini, dataset_ids=[twice], limit=3)) == 3
    assert embeddings.embedders(store, dataset_ids=[]) == []
    assert list(embeddings.vectors(store, scorer_id=99, dataset_ids=[dataset])) == []
