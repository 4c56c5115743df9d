"""Bulk decisions: what a plan counts is what is stored, once, and one undo takes back what still stands."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from core.errors import NotAllowedError, StoreError
from core.example import Example
from core.filters import PairFilter
from db import bulk, decisions, pair_queue
from db.permission import Actor, as_actor
from db.store import Store, rows, utc_now
from tests.db.conftest import EXAMPLES, add_pair

ALL = PairFilter(state="all")


@pytest.fixture
def pairs(store: Store, dataset_id: int) -> list[int]:
    return [
        add_pair(store, dataset_id=dataset_id, original=EXAMPLES[i], candidate=Example(f"New {i}", "", f"new {i}"))
        for i in range(6)
    ]


def verdicts(store: Store) -> dict[int, str]:
    with store.read() as connection:
        return {r["pair_id"]: r["verdict"] for r in rows(connection, "select pair_id, verdict from current_decisions")}


def n_decisions(store: Store) -> int:
    with store.read() as connection:
        return int(rows(connection, "select count(*) n from decisions")[0]["n"])


def test_a_plan_counts_and_stores_nothing(store: Store, pairs: list[int], dataset_id: int) -> None:
    decisions.decide(store, pair_id=pairs[0], reviewer="ada", verdict="reject")
    decisions.decide(store, pair_id=pairs[1], reviewer="ada", verdict="flag")
    found = bulk.plan(store, ALL, "accept")
    assert (found.n, found.n_left_alone) == (4, 2)
    assert found.by_state == {"decided": 1, "flagged": 1, "undecided": 4}
    assert found.by_dataset == ((dataset_id, "six", 4),)
    assert set(found.sample_ids) == set(pairs[2:])
    assert set(bulk.sample(store, found, seed=5)) == set(pairs[2:])
    assert n_decisions(store) == 2
    assert bulk.plan(store, ALL, "accept", redo_decided=True).n == 5
    assert bulk.plan(store, ALL, "accept", with_flagged=True).n == 5
    assert bulk.plan(store, ALL, "accept", redo_decided=True, with_flagged=True).n == 6
    assert bulk.plan(store, pairs[1:3] + pairs[2:3], "accept").by_state == {"flagged": 1, "undecided": 1}
    with pytest.raises(StoreError, match="neither"):
        bulk.plan(store, ALL, "edit")


def test_a_decided_and_flagged_pair_needs_both_choices(store: Store, pairs: list[int]) -> None:
    decisions.decide(store, pair_id=pairs[0], reviewer="ada", verdict="accept")
    decisions.decide(store, pair_id=pairs[0], reviewer="ada", verdict="flag")
    asked = [pairs[0]]
    assert bulk.plan(store, asked, "reject", redo_decided=True).n == 0
    assert bulk.plan(store, asked, "reject", with_flagged=True).n == 0
    assert bulk.plan(store, asked, "reject", redo_decided=True, with_flagged=True).n == 1


def test_what_was_planned_is_stored_with_its_names(store: Store, pairs: list[int]) -> None:
    decisions.decide(store, pair_id=pairs[0], reviewer="ada", verdict="reject")
    bulk_id = bulk.apply(store, bulk.plan(store, PairFilter(), "accept"), by="eve", note=" clear cases ")
    assert verdicts(store) == {pairs[0]: "reject"} | dict.fromkeys(pairs[1:], "accept")
    with store.read() as connection:
        found = rows(
            connection,
            """select d.*, p.candidate_id from decisions d join pairs p on p.pair_id = d.pair_id
            where d.bulk_id is not null order by d.pair_id""",
        )
    assert [row["press"] for row in found] == [f"bulk:{bulk_id}:{pair_id}" for pair_id in pairs[1:]]
    assert all(row["result_id"] == row["candidate_id"] for row in found)
    assert {(r["reviewer"], r["purpose"], r["note"], r["campaign_id"]) for r in found} == {
        ("eve", "bulk", "clear cases", None)
    }
    (action,) = bulk.actions(store)
    assert (action["n_pairs"], action["n_standing"], action["undone_at"]) == (5, 5, None)
    assert action["filter"]["by_state"] == {"undecided": 5}


@pytest.mark.parametrize("verdict", ["accept", "flag"])
def test_a_plan_that_is_out_of_date_is_refused(store: Store, pairs: list[int], verdict: str) -> None:
    found = bulk.plan(store, PairFilter(), "accept")
    decisions.decide(store, pair_id=pairs[3], reviewer="ada", verdict=verdict)
    with pytest.raises(StoreError, match="look at the new count"):
        bulk.apply(store, found, by="eve")
    assert n_decisions(store) == 1
    assert bulk.actions(store) == []


def test_a_swap_that_keeps_the_count_is_noticed(store: Store, pairs: list[int]) -> None:
    """One pair was decided and another reopened: as many pairs, but others."""
    decisions.decide(store, pair_id=pairs[0], reviewer="ada", verdict="accept")
    found = bulk.plan(store, PairFilter(), "reject")
    decisions.undo(store, reviewer="ada")
    decisions.decide(store, pair_id=pairs[1], reviewer="ada", verdict="accept")
    assert bulk.plan(store, PairFilter(), "reject").n == found.n
    with pytest.raises(StoreError, match="since they were counted"):
        bulk.apply(store, found, by="eve")


def test_one_undo_takes_back_what_stands_and_says_what_does_not(store: Store, pairs: list[int]) -> None:
    decisions.decide(store, pair_id=pairs[0], reviewer="ada", verdict="reject")
    bulk_id = bulk.apply(store, bulk.plan(store, ALL, "accept", redo_decided=True), by="eve")
    assert verdicts(store) == dict.fromkeys(pairs, "accept")
    decisions.decide(store, pair_id=pairs[5], reviewer="ada", verdict="reject")  # decided anew by a person
    assert bulk.actions(store)[0]["n_standing"] == 5
    assert bulk.undo(store, bulk_id, by="eve") == bulk.Undone(n=5, n_left=1)
    assert verdicts(store) == {pairs[0]: "reject", pairs[5]: "reject"}  # what stood before stands again
    assert bulk.actions(store)[0]["undone_by"] == "eve"
    decisions.undo(store, reviewer="ada")
    assert verdicts(store) == {pairs[0]: "reject"}  # nothing of the bulk decision comes up from under it
    decisions.decide(store, pair_id=pairs[5], reviewer="ada", verdict="reject")
    with pytest.raises(StoreError, match="undone before"):
        bulk.undo(store, bulk_id, by="eve")
    with pytest.raises(StoreError, match="no bulk decision"):
        bulk.undo(store, bulk_id + 1, by="eve")  # the undo itself
    again = bulk.apply(store, bulk.plan(store, PairFilter(), "reject"), by="eve")
    assert again > bulk_id + 1
    assert verdicts(store) == dict.fromkeys(pairs, "reject")


def test_nothing_left_to_undo_is_said(store: Store, pairs: list[int]) -> None:
    bulk_id = bulk.apply(store, bulk.plan(store, pairs[:1], "accept"), by="eve")
    decisions.decide(store, pair_id=pairs[0], reviewer="ada", verdict="reject")
    with pytest.raises(StoreError, match="decided anew"):
        bulk.undo(store, bulk_id, by="eve")


def test_only_an_admin_may(store: Store, pairs: list[int]) -> None:
    found = bulk.plan(store, ALL, "accept")
    with as_actor(Actor("rob", "Rob", "reviewer")), pytest.raises(NotAllowedError, match="admin is needed"):
        bulk.apply(store, found, by="rob")
    assert verdicts(store) == {}
    with pytest.raises(StoreError, match="name"):
        bulk.apply(store, found, by=" ")
    with pytest.raises(StoreError, match="widen the filter"):
        bulk.apply(store, bulk.plan(store, [], "accept"), by="eve")


def test_disputed_pairs_of_a_campaign_are_left_alone_unless_asked(store: Store, pairs: list[int]) -> None:
    with store.write() as connection:
        connection.execute(
            text(
                """insert into campaigns (campaign_id, name, overlap, settings, created_at)
                values (1, 'two each', 2, '{}', :now)"""
            ),
            {"now": utc_now()},
        )
        connection.execute(
            text("insert into campaign_pairs (campaign_id, pair_id, position) values (1, :pair, 0)"), {"pair": pairs[0]}
        )
    decisions.decide(store, pair_id=pairs[0], reviewer="ada", verdict="accept")
    decisions.decide(store, pair_id=pairs[0], reviewer="ben", verdict="reject")
    assert pair_queue.queue(store, PairFilter(state="disputed")).tolist() == [pairs[0]]
    found = bulk.plan(store, ALL, "accept")
    assert found.by_state == {"disputed": 1, "undecided": 5}
    assert found.n == 5
    bulk.apply(store, bulk.plan(store, ALL, "accept", with_flagged=True), by="eve")
    assert verdicts(store) == dict.fromkeys(pairs, "accept")
