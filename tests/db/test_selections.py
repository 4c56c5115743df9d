"""Rows with a rule's scores, what is excluded, and a selection that keeps where it comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pytest
from sqlalchemy import text

from core import selection
from core.errors import StoreError
from core.example import Example
from core.scoring import ScorerIdentity
from db import commands, decisions, evaluation, queries, selections
from db.store import Store, registered
from db.to_score import dataset_digest
from tests.db.conftest import EXAMPLES, add_pair, batch


def members(store: Store, dataset_id: int) -> list[int]:
    with store.read() as connection:
        found = connection.execute(
            text("select example_id from members where dataset_id = :id order by position"), {"id": dataset_id}
        )
        return [row[0] for row in found]


def put(store: Store, identity: ScorerIdentity, values: Mapping[int, float | None]) -> int:
    """Scores of one scorer; None is NULL."""
    with store.write() as connection:
        scorer_id = commands.ensure_scorers(connection, [identity])[identity.output]
        commands.put_scores(
            connection,
            pa.table(
                {
                    "scorer_id": pa.array([scorer_id] * len(values), pa.int64()),
                    "example_id": pa.array(list(values), pa.int64()),
                    "value": pa.array(list(values.values()), pa.float64()),
                    "reason": [None if value is not None else "empty" for value in values.values()],
                    "transient": [False] * len(values),
                }
            ),
        )
    return scorer_id


def knn(digest: str) -> ScorerIdentity:
    return ScorerIdentity("knn_6", "knn_6", "1", "embedder", "local-1", settings={"dataset": digest})


def embed(store: Store, ids: Sequence[int], vectors: np.ndarray) -> int:
    with store.write() as connection:
        scorer_id = commands.ensure_scorers(connection, [ScorerIdentity("embedding", "embedding", "1")])["embedding"]
        table = pa.table(
            {"example_id": pa.array(ids, pa.int64()), "vector": pa.array(list(vectors), pa.list_(pa.float32()))}
        )
        with registered(connection, "incoming", table):
            connection.execute(
                text("insert into embeddings select :id, example_id, vector from incoming"), {"id": scorer_id}
            )
    return scorer_id


def test_distances_within_another_dataset_are_no_scores_of_this_one(store: Store, dataset_id: int) -> None:
    ids = members(store, dataset_id)
    with store.read() as connection:
        own = dataset_digest(connection, dataset_id)
    here = put(store, knn(own), dict.fromkeys(ids, 0.5))
    put(store, knn("another"), dict.fromkeys(ids, 0.9))
    length = put(store, ScorerIdentity("length", "length", "1"), dict.fromkeys(ids, 3.0))
    assert {scorer["scorer_id"] for scorer in selections.scorers_here(store, dataset_id)} == {here, length}


def test_rows_come_in_order_once_with_values_and_what_is_missing(store: Store, dataset_id: int) -> None:
    ids = members(store, dataset_id)
    twice = commands.create_dataset(store, [ids[3], ids[0], ids[3], ids[1]], name="twice", kind="x", source="test")
    length = put(store, ScorerIdentity("length", "length", "1"), {ids[0]: 7.0, ids[3]: None, ids[5]: 1.0})
    found = selections.candidates(store, twice, {length: "length"})
    assert found.example_ids.tolist() == [ids[3], ids[0], ids[1]]
    assert found.positions.tolist() == [0, 1, 3]
    assert found.n_copies == 1
    assert np.isnan(found.values[length][[0, 2]]).all()
    assert found.values[length][1] == 7.0
    assert (found.missing[length].n_null, found.missing[length].n_unscored) == (1, 1)
    wanted = EXAMPLES[3]
    assert found.characters[0] == len(wanted.instruction) + len(wanted.input) + len(wanted.output)


def test_rows_that_an_evaluation_set_asks_are_excluded_whatever_their_answer(store: Store, dataset_id: int) -> None:
    ids = members(store, dataset_id)
    asked = [
        Example("say  0 ", "CONTEXT 0", "quite another answer"),
        Example("Say 1", "with an input", "answer 1"),
    ]
    other = commands.import_dataset(store, [batch(asked)], name="evaluation", source="test")
    assert selections.excluded(store, dataset_id, rejected=True, evaluation=True) == {}
    before = selections.evaluation_state(store)
    evaluation.mark(store, other)
    assert selections.evaluation_state(store) != before
    assert selections.excluded(store, dataset_id, rejected=True, evaluation=True) == {ids[0]: selections.EVALUATION}
    assert selections.excluded(store, dataset_id, rejected=True, evaluation=False) == {}


def test_a_rejected_candidate_is_excluded_and_its_original_is_not(store: Store, dataset_id: int) -> None:
    ids = members(store, dataset_id)
    pair_id = add_pair(store, dataset_id=dataset_id, original=EXAMPLES[0], candidate=EXAMPLES[1])
    assert selections.excluded(store, dataset_id, rejected=True, evaluation=False) == {}
    decisions.decide(store, pair_id=pair_id, reviewer="Ana", verdict="reject", press="1")
    assert selections.excluded(store, dataset_id, rejected=True, evaluation=False) == {ids[1]: selections.REJECTED}
    assert selections.excluded(store, dataset_id, rejected=False, evaluation=False) == {}


def test_vectors_and_categories_follow_the_rows(store: Store) -> None:
    made = [Example(f"ask {i}", "", f"say {i}") for i in range(4)]
    parts = [batch([made[i]], start=i, metadata=json.dumps({"kind": kind})) for i, kind in enumerate("aab")]
    dataset_id = commands.import_dataset(store, [*parts, batch([made[3]], start=3)], name="kinds", source="test")
    ids = members(store, dataset_id)
    assert selections.categories(store, dataset_id, "kind") == dict(zip(ids, ["a", "a", "b", None], strict=True))
    scorer_id = embed(store, [ids[2], ids[0]], np.array([[2.0, 2], [0, 0]], np.float32))
    found = selections.vectors(store, scorer_id=scorer_id, example_ids=np.array([ids[0], ids[1], ids[2]]))
    assert found[0].tolist() == [0, 0]
    assert np.isnan(found[1]).all()
    assert found[2].tolist() == [2, 2]


def saved(store: Store, dataset_id: int, name: str) -> tuple[int, selection.Selection]:
    ids = members(store, dataset_id)
    ranking = selection.rank(ids, [0.5, 0.1, float("nan"), 0.2, 0.3, 0.4])
    found = selection.cut(ranking, size=3)
    details = selections.provenance(
        dataset_id=dataset_id, dataset="six", rule_name="By length", rule={"intercept": 1.0},
        scorers=[{"output": "length", "scorer_id": 1, "family": {"output": "length"}}], mismatches=[],
        constraints={"exclude_rejected": True}, size={"by": "number", "value": 3}, ranking=ranking, selection=found,
    )  # fmt: skip
    return selections.save_selection(store, found.kept, name=name, details=details, created_by="Ana"), found


def test_a_saved_selection_is_a_dataset_best_first_that_says_how_it_was_made(store: Store, dataset_id: int) -> None:
    made, found = saved(store, dataset_id, "best three")
    ids = members(store, dataset_id)
    assert members(store, made) == list(found.kept) == [ids[1], ids[3], ids[4]]
    row = next(d for d in queries.datasets(store) if d["dataset_id"] == made)
    assert (row["kind"], row["created_by"]) == ("selection", "Ana")
    details = queries.dataset_details(store, made)
    assert details["from_dataset"] == {"dataset_id": dataset_id, "name": "six"}
    assert details["rule"]["rule"] == {"intercept": 1.0}
    assert details["refused"] == {selection.NO_PREDICTION: 1, selection.BEYOND: 2}
    assert details["predicted_range"] == [0.1, 0.3]
    assert details["n_ranked"] == 6
    with pytest.raises(StoreError):
        saved(store, dataset_id, "best three")


def test_a_row_keeps_its_further_columns(store: Store) -> None:
    made = commands.import_dataset(
        store, [batch(EXAMPLES[:6], metadata=json.dumps({"kind": "z"}))], name="with kinds", source="test"
    )
    chosen, _ = saved(store, made, "kept kinds")
    with store.read() as connection:
        found = connection.execute(text("select metadata from members where dataset_id = :id"), {"id": chosen}).all()
    assert {json.loads(row[0])["kind"] for row in found} == {"z"}
