"""Training on decisions in a real store, what is proposed, auto-accept by a bulk decision, and the spot check."""

from __future__ import annotations

import numpy as np
import pytest
from sqlalchemy import text

from core.decision_model import TRAIN, part_of
from core.errors import NotAllowedError, StoreError
from db import bulk, pair_models, pair_training
from db.permission import Actor, as_actor
from db.store import Store
from tests.db import decided_pairs
from tests.db.decided_pairs import N
from tests.db.pair_scores import put_vectors


@pytest.fixture
def filled(store: Store) -> Store:
    decided_pairs.fill(store)
    return store


def _trained(store: Store) -> pair_models.PairModel:
    task = pair_training.start_training(store, trained_by="ada")
    task.wait(60)
    assert (task.state, task.error) == ("done", None)
    model = pair_models.latest(store)
    assert model is not None
    assert model.model_id == task.model_id
    return model


def test_too_few_decisions_train_nothing_and_bulk_decisions_are_none(store: Store, dataset_id: int) -> None:
    with pytest.raises(StoreError, match="0 pairs are decided and 40 are needed"):
        pair_training.start_training(store, trained_by="ada")
    assert pair_models.latest(store) is None
    viewer = Actor("v", "Vera", "viewer")
    with as_actor(viewer), pytest.raises(NotAllowedError):
        pair_training.start_training(store, trained_by="v")


def test_a_model_learns_the_reward_and_predicts_every_pair_by_groups(filled: Store) -> None:
    put_vectors(filled, {i: np.random.default_rng(i).standard_normal(8).astype(np.float32) for i in range(1, 300)})
    model = _trained(filled)
    held = model.metrics["held_out"]
    assert held["auc"] > 0.97
    assert held["n"] + model.metrics["n_train"] == 400
    assert model.metrics["coefficients"][0]["name"] == "Reward (reflected)"
    assert model.settings["embedder"] is not None
    with filled.read() as connection:
        found = connection.execute(
            text(
                """select m.p_accept, m.held_out, p.original_id, p.pair_id, s.value from pair_predictions m
                join pairs p on p.pair_id = m.pair_id join scores s on s.example_id = p.candidate_id"""
            )
        ).all()
    assert len(found) == N
    learnt = {
        row.original_id for row in found if row.pair_id <= 400 and part_of(np.array([row.original_id]))[0] == TRAIN
    }
    assert all(row.held_out == (row.original_id not in learnt) for row in found)
    undecided = [row for row in found if row.pair_id > 400]
    assert np.corrcoef([row.p_accept for row in undecided], [row.value for row in undecided])[0, 1] > 0.8
    assert pair_training.n_new_decisions(filled, model.model_id) == 0


def _accepted(store: Store) -> tuple[pair_models.PairModel, pair_models.Offer, int]:
    model = _trained(store)
    offer = pair_models.proposal(store, model, target_error=0.1)
    assert offer.proposal.ok, offer.proposal
    plan = pair_models.plan_auto_accept(store, offer)
    return model, offer, pair_models.auto_accept(store, model, offer, plan, by="root")


def test_auto_accept_is_one_bulk_decision_that_is_spot_checked_and_undone(filled: Store) -> None:
    with filled.write() as connection:  # pair 401 has a flag, 402 is of a campaign: people have them
        connection.execute(
            text(
                """insert into decisions (decision_id, pair_id, reviewer, verdict, shown, press, decided_at)
                values (nextval('decision_ids'), 401, 'ada', 'flag', '{}', 'f', now()::timestamp)"""
            )
        )
        connection.execute(text("insert into campaign_pairs (campaign_id, pair_id, position) values (1, 402, 0)"))
    model, offer, bulk_id = _accepted(filled)
    assert offer.n_open == 298
    assert not {401, 402} & set(offer.pair_ids.tolist())
    assert all(pair_id > 400 for pair_id in offer.pair_ids)
    with filled.read() as connection:
        right = connection.execute(
            text("select avg((value > 0.5)::int) from scores where list_contains(:ids, example_id)"),
            {"ids": offer.pair_ids.tolist()},
        ).scalar()
    assert right is not None
    assert right > 0.85
    (known,) = pair_models.auto_accepts(filled)
    assert (known["bulk_id"], known["model_id"], known["n_pairs"]) == (bulk_id, model.model_id, offer.n)
    assert known["measured"] == offer.proposal.measured

    asked = pair_models.spot_check_ids(filled, model.model_id, n=20)
    assert len(set(asked)) == 20
    assert set(asked) <= set(offer.pair_ids.tolist())
    assert asked == pair_models.spot_check_ids(filled, model.model_id, n=30)[:20]
    assert pair_models.spot_check(filled, model.model_id, n=20).wrong.share is None
    with filled.write() as connection:
        for place, pair_id in enumerate(asked[:4]):
            connection.execute(
                text(
                    """insert into decisions (decision_id, pair_id, reviewer, verdict, shown, press, decided_at)
                    values (nextval('decision_ids'), :pair, 'ben', :verdict, '{}', :press, now()::timestamp)"""
                ),
                {"pair": pair_id, "verdict": "reject" if place == 0 else "accept", "press": f"s{place}"},
            )
    found = pair_models.spot_check(filled, model.model_id, n=20)
    assert (found.wrong.n_of, found.wrong.n, found.n_asked, found.n_accepted) == (1, 4, 20, offer.n)
    assert found.n_standing == offer.n - 4
    assert pair_training.n_new_decisions(filled, model.model_id) == 4  # the bulk decisions are nobody's reading

    assert bulk.undo(filled, bulk_id, by="root").n == offer.n - 4
    assert pair_models.spot_check(filled, model.model_id, n=20).n_standing == 0
    assert pair_models.spot_check(filled, model.model_id, n=20).wrong.n == 4


def test_what_is_not_proposed_cannot_be_accepted(filled: Store) -> None:
    model = _trained(filled)
    offer = pair_models.proposal(filled, model, target_error=0.0001)
    assert offer.proposal.threshold is None
    assert offer.n == 0
    with pytest.raises(StoreError, match="Nothing is accepted"):
        pair_models.plan_auto_accept(filled, offer)


def test_a_stopped_server_keeps_no_half_model_and_old_predictions_go(filled: Store) -> None:
    task = pair_training.start_training(filled, trained_by="ada")
    pair_training.stop_training(filled)
    assert task.over
    if task.state == "stopped":
        assert pair_models.latest(filled) is None
    for _ in range(pair_training.MODELS_KEPT + 1):
        newest = _trained(filled)
    with filled.read() as connection:
        kept = connection.execute(text("select model_id, count(*) from pair_predictions group by model_id")).all()
    assert {row[0] for row in kept} == {newest.model_id - i for i in range(pair_training.MODELS_KEPT)}
    assert {row[1] for row in kept} == {N}
