"""Indicators of whole datasets: plain means in one query, kNN distances within each dataset, plans before they run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pytest
from sqlalchemy import text

from core import scoring
from core.embedding import EmbedderSettings
from core.example import Example
from core.rules import family_of
from core.scoring import Models
from core.studies import PlannedRun
from db import commands, study_means
from db.store import Store, registered, rows
from tests.db.conftest import batch
from tests.pages.sample_stores import Identity

STUDENT, OTHER = Identity("ifd", "ifd", model="/models/one"), Identity("ifd", "ifd", model="/models/two")
MTLD = Identity("mtld", "mtld")
COUNT = Identity("n_tokens_y", "losses", model="/models/one")
VECTORS = Identity(
    "embedding", "embedding", version="1", model="mini", settings={"dtype": "float32", "max_length": 256}
)
WITHIN = Identity("knn_6", "knn_6", model="mini", settings={"dtype": "float32", "dataset": "0123"})


def imported(store: Store, name: str, numbers: Sequence[int]) -> tuple[int, list[int]]:
    dataset_id = commands.import_dataset(
        store, [batch([Example(f"Say {i}", "", f"text {i}") for i in numbers])], name=name, source="t"
    )
    with store.read() as connection:
        found = rows(
            connection, "select example_id from members where dataset_id = :id order by position", id=dataset_id
        )
    return dataset_id, [row["example_id"] for row in found]


def put(store: Store, identity: Identity, values: Mapping[int, float | None]) -> int:
    with store.write() as connection:
        scorer_id = commands.ensure_scorers(connection, [identity])[identity.output]
        table = pa.table(
            {
                "scorer_id": pa.array([scorer_id] * len(values), pa.int64()),
                "example_id": pa.array(list(values), pa.int64()),
                "value": pa.array(list(values.values()), pa.float64()),
                "reason": [None if value is not None else "no word" for value in values.values()],
                "transient": [False] * len(values),
            }
        )
        commands.put_scores(connection, table)
    return scorer_id


def embed(store: Store, vectors: Mapping[int, Sequence[float]]) -> int:
    table = pa.table(
        {
            "example_id": pa.array(list(vectors), pa.int64()),
            "vector": pa.array([list(one) for one in vectors.values()], pa.list_(pa.float32())),
        }
    )
    with store.write() as connection, registered(connection, "incoming", table):
        scorer_id = commands.ensure_scorers(connection, [VECTORS])["embedding"]
        connection.execute(
            text("insert into embeddings select :id, example_id, vector::float[] from incoming"), {"id": scorer_id}
        )
    return scorer_id


def brute_force(vectors: np.ndarray, i: int) -> list[float]:
    found = []
    for k, one in enumerate(vectors.astype(np.float64)):
        others = np.sort(np.linalg.norm(np.delete(vectors.astype(np.float64), k, axis=0) - one, axis=1))
        found.append(float(others[i - 1]))
    return found


def test_means_are_over_the_members_that_have_a_value_and_say_how_many(store: Store) -> None:
    first, ids = imported(store, "first", [1, 2, 3, 4, 3])
    second, other = imported(store, "second", [4, 5])
    put(store, MTLD, {ids[0]: 10.0, ids[1]: None, ids[2]: 40.0, ids[3]: 30.0})
    columns = study_means.indicator_columns(store, [first, second])
    assert [(column.key, column.label) for column in columns] == [("mtld", "MTLD")]
    means = study_means.indicator_means(store, [second, first, 99], columns)
    assert means.dataset_ids == (second, first, 99)
    assert means.mean[:, 0] == pytest.approx([30.0, (10 + 40 + 30 + 40) / 4, np.nan], nan_ok=True)  # row 3 stands twice
    assert means.n_values[:, 0].tolist() == [1, 4, 0]
    assert means.n_members[:, 0].tolist() == [2, 5, 0]
    assert means.sd[:, 0] == pytest.approx([np.nan, np.std([10, 40, 30, 40], ddof=1), np.nan], nan_ok=True)
    assert means.of("mtld") == pytest.approx(means.mean[:, 0], nan_ok=True)
    assert other[0] == ids[3]


def test_scorers_of_one_output_are_told_apart_and_token_counts_are_no_indicator(store: Store) -> None:
    dataset_id, ids = imported(store, "first", range(4))
    one = put(store, STUDENT, dict.fromkeys(ids, 0.5))
    two = put(store, OTHER, dict.fromkeys(ids, 0.7))
    put(store, MTLD, dict.fromkeys(ids, 1.0))
    put(store, COUNT, dict.fromkeys(ids, 9.0))
    put(store, WITHIN, dict.fromkeys(ids, 0.1))  # of another dataset: never used as it is
    columns = study_means.indicator_columns(store, [dataset_id])
    assert [column.key for column in columns] == ["mtld", f"ifd@{one}", f"ifd@{two}"]
    assert columns[1].label == f"IFD (one, scorer {one})"
    assert columns[1].family != columns[2].family
    assert (columns[1].family["output"], columns[1].family["model"]) == ("ifd", "/models/one")
    assert study_means.indicator_columns_of(store, ids[:1]) == columns
    assert study_means.indicator_columns_of(store, [12345]) == []


def test_distances_are_taken_within_each_dataset(store: Store) -> None:
    """The same row lies elsewhere in another dataset: distances scored there must not be reused."""
    generator = np.random.default_rng(0)
    first, ids = imported(store, "first", range(40))
    second, some = imported(store, "second", range(0, 40, 3))
    vectors = {one: generator.normal(size=6).astype(np.float32).tolist() for one in ids}
    embedding = embed(store, vectors)
    columns = study_means.indicator_columns(store, [first], neighbours=(1, 6))
    assert [(column.key, column.neighbour) for column in columns] == [("knn_1", 1), ("knn_6", 6)]
    assert {(column.scorer_id, column.embedding_id) for column in columns} == {(None, embedding)}
    means = study_means.indicator_means(store, [first, second], columns)
    for row, members in enumerate((ids, some)):
        matrix = np.array([vectors[one] for one in members], np.float32)
        for place, i in enumerate((1, 6)):
            assert means.mean[row, place] == pytest.approx(np.mean(brute_force(matrix, i)))
            assert means.sd[row, place] == pytest.approx(np.std(brute_force(matrix, i), ddof=1))
    assert means.n_values.tolist() == [[40, 40], [14, 14]]
    assert columns[1].family["output"] == "knn_6"
    assert "dataset" not in columns[1].family["settings"]


def test_a_distance_column_is_of_the_family_of_the_scorers_of_its_distance(store: Store) -> None:
    """Or a rule fitted on datasets could not be applied to the rows of another one that were scored within it."""
    embedder = EmbedderSettings(model="mini")
    dataset_id, ids = imported(store, "first", range(8))
    with store.write() as connection:
        stored = commands.ensure_scorers(connection, [scoring.embedding_identity(embedder, "a" * 40)])["embedding"]
        [of_rows] = scoring.scorer_identities(
            ["knn_6"], Models(embedder=embedder), {"embedder": "a" * 40}, dataset="f0"
        )
        commands.ensure_scorers(connection, [of_rows])
        connection.execute(
            text("insert into embeddings values (:id, :example, [1.0])"), {"id": stored, "example": ids[0]}
        )
        [scorer] = rows(connection, "select * from scorers where output = 'knn_6'")
    [column] = study_means.indicator_columns(store, [dataset_id])
    assert column.family == family_of(scorer)


def test_distances_are_remembered_until_more_rows_are_embedded(store: Store) -> None:
    generator = np.random.default_rng(0)
    dataset_id, ids = imported(store, "first", range(12))
    vectors = {one: generator.normal(size=4).astype(np.float32).tolist() for one in ids}
    embedding = embed(store, {one: vectors[one] for one in ids[:8]})
    columns = study_means.indicator_columns(store, [dataset_id], neighbours=(2,))
    before = study_means.indicator_means(store, [dataset_id], columns)
    assert (before.n_values.item(), before.n_members.item()) == (8, 12)
    with store.write() as connection:
        connection.execute(text("update dataset_distances set mean = 123"))
    assert study_means.indicator_means(store, [dataset_id], columns).mean.item() == 123.0
    assert embed(store, {one: vectors[one] for one in ids[8:]}) == embedding
    after = study_means.indicator_means(store, [dataset_id], columns)
    assert after.mean.item() == pytest.approx(np.mean(brute_force(np.array(list(vectors.values()), np.float32), 2)))
    assert after.n_values.item() == 12


def test_a_dataset_with_too_few_neighbours_has_no_distance_and_not_zero(store: Store) -> None:
    dataset_id, ids = imported(store, "first", range(3))
    bare, _ = imported(store, "bare", [50])
    embed(store, {one: [float(one), 0.0] for one in ids})
    columns = study_means.indicator_columns(store, [dataset_id, bare])
    for _ in range(2):  # computed, then remembered
        means = study_means.indicator_means(store, [dataset_id, bare], columns)
        assert np.isnan(means.mean).all()
        assert means.n_values.tolist() == [[0], [0]]
        assert means.n_members.tolist() == [[3], [1]]


def test_a_row_that_stands_twice_is_its_own_neighbour_at_no_distance(store: Store) -> None:
    dataset_id, ids = imported(store, "first", [0, 1, 1])
    embed(store, {ids[0]: [0.0, 0.0], ids[1]: [3.0, 4.0]})
    columns = study_means.indicator_columns(store, [dataset_id], neighbours=(1,))
    assert study_means.indicator_means(store, [dataset_id], columns).mean.item() == pytest.approx(5 / 3)


def test_a_plan_has_the_means_that_its_datasets_will_have(store: Store) -> None:
    generator = np.random.default_rng(1)
    _, ids = imported(store, "pool", range(60))
    put(store, MTLD, {one: None if i % 7 == 0 else float(i) for i, one in enumerate(ids)})
    put(store, STUDENT, {one: float(generator.normal()) for one in ids})
    embed(store, {one: generator.normal(size=5).astype(np.float32).tolist() for one in ids[:50]})
    columns = study_means.indicator_columns_of(store, ids, neighbours=(3,))
    chosen = [tuple(generator.choice(ids, size=20, replace=False).tolist()) for _ in range(4)]
    runs = [PlannedRun("base", "base", (), 0), *(PlannedRun("m", "mixture", one, 0) for one in chosen)]
    planned = study_means.plan_means(store, runs, columns)
    assert planned.dataset_ids == (0, 1, 2, 3, 4)
    assert np.isnan(planned.mean[0]).all()
    made = [
        commands.create_dataset(store, one, name=f"m{i}", kind="mixture", source="t") for i, one in enumerate(chosen)
    ]
    means = study_means.indicator_means(store, made, columns)
    assert planned.mean[1:] == pytest.approx(means.mean)
    assert planned.sd[1:] == pytest.approx(means.sd)
    assert planned.n_values[1:].tolist() == means.n_values.tolist()
    assert planned.n_members[1:].tolist() == means.n_members.tolist()
    table = study_means.correlations(means)
    expected = np.corrcoef(means.mean[:, 0], means.mean[:, 1])[0, 1]
    assert table[0][1].value == pytest.approx(expected)


def test_values_to_plan_by_are_those_of_the_rows_that_have_one(store: Store) -> None:
    _, ids = imported(store, "pool", range(5))
    put(store, MTLD, {ids[0]: 3.0, ids[1]: None, ids[2]: 5.0})
    embed(store, {ids[0]: [0.0], ids[1]: [1.0], ids[2]: [3.0]})
    plain, near = study_means.indicator_columns_of(store, ids, neighbours=(1,))
    assert study_means.values_of(store, ids, plain) == {ids[0]: 3.0, ids[2]: 5.0}
    assert study_means.values_of(store, [*ids, ids[0]], near) == {ids[0]: 1.0, ids[1]: 1.0, ids[2]: 2.0}
    assert study_means.values_of(store, [], plain) == {}
