"""Decisions: none is lost, none is doubled, and undo finds the way back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from core.errors import NotAllowedError, StoreError
from core.example import Example
from db import campaigns, commands, decisions, permission, queries, review, schema
from db.decisions import Entry
from db.permission import Actor
from db.store import Store, rows, scalar
from tests.db.conftest import EXAMPLES, add_pair, batch

ROOT = Path(__file__).parents[2]


def _all(store: Store, sql: str) -> list[dict]:
    with store.read() as connection:
        return rows(connection, sql)


@pytest.fixture
def pair_id(store: Store, dataset_id: int) -> int:
    return add_pair(store, dataset_id=dataset_id, original=EXAMPLES[0], candidate=Example("Say more", "", "better"))


def test_undo_goes_back_through_every_decision_and_history_keeps_them_all(store: Store, pair_id: int) -> None:
    for verdict in ("accept", "reject", "new_response"):
        decisions.decide(store, pair_id=pair_id, reviewer="ada", verdict=verdict)
    seen = []
    while (undone := decisions.undo(store, reviewer="ada")) is not None:
        standing = review.pair(store, pair_id)["decision"]
        seen.append((undone["verdict"], standing and standing["verdict"]))
    assert seen == [("new_response", "reject"), ("reject", "accept"), ("accept", None)]
    assert len(review.pair(store, pair_id)["history"]) == 6


def test_undo_takes_back_only_ones_own(store: Store, pair_id: int) -> None:
    decisions.decide(store, pair_id=pair_id, reviewer="ada", verdict="accept")
    decisions.decide(store, pair_id=pair_id, reviewer="bob", verdict="reject")
    decisions.undo(store, reviewer="ada")
    decision = review.pair(store, pair_id)["decision"]
    assert (decision["reviewer"], decision["verdict"]) == ("bob", "reject")


def test_one_press_is_one_decision_however_often_it_arrives(store: Store, pair_id: int) -> None:
    ids = {decisions.decide(store, pair_id=pair_id, reviewer="ada", verdict="accept", press="p1") for _ in range(3)}
    assert len(ids) == 1
    first = decisions.undo(store, reviewer="ada", press="u1")
    assert decisions.undo(store, reviewer="ada", press="u1") == first
    assert _all(store, "select count(*) n from decisions")[0]["n"] == 2


def test_a_press_of_the_same_name_that_says_something_else_is_refused(store: Store, pair_id: int) -> None:
    """It was answered like a resend, as if the other verdict had been stored (an answer got lost, pressed anew)."""
    unchanged = Example("Say more", "", "better")
    same = [entry("1", pair_id), entry("2", pair_id, verdict="edit", edited=unchanged)]
    decisions.apply(store, same, reviewer="ada")
    again = decisions.apply(store, same, reviewer="ada")
    assert [(one.kind, one.known) for one in again] == [("ok", True)] * 2
    others = [entry("1", pair_id, verdict="reject"), entry("1", pair_id + 1), entry("1", pair_id, "flag")]
    found = decisions.apply(store, others, reviewer="ada")
    assert [one.kind for one in found] == ["error"] * 3
    assert "stored before" in found[0].text
    assert _all(store, "select count(*) n from decisions")[0]["n"] == 2


def test_a_flag_stands_beside_the_verdict(store: Store, pair_id: int) -> None:
    decisions.decide(store, pair_id=pair_id, reviewer="ada", verdict="accept")
    decisions.decide(store, pair_id=pair_id, reviewer="ada", verdict="flag", note="check the units")
    shown = review.pair(store, pair_id)
    assert shown["decision"]["verdict"] == "accept"
    assert shown["flag"]["note"] == "check the units"
    decisions.decide(store, pair_id=pair_id, reviewer="ada", verdict="unflag")
    assert review.pair(store, pair_id)["flag"] is None


def test_mixed_and_edited_results_are_new_examples(store: Store, pair_id: int) -> None:
    expected = {
        "new_instruction": Example("Say more", "", EXAMPLES[0].output),
        "new_response": Example(EXAMPLES[0].instruction, EXAMPLES[0].input, "better"),
        "edit": Example("Say it", "", "best"),
    }
    for verdict, example in expected.items():
        edited = example if verdict == "edit" else None
        decisions.decide(store, pair_id=pair_id, reviewer="ada", verdict=verdict, edited=edited)
        result = review.pair(store, pair_id)["decision"]["result_id"]
        assert queries.examples(store, [result])[0]["hash"] == example.hash


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"verdict": "maybe"}, "not a verdict"),
        ({"verdict": "accept", "reviewer": " "}, "name of its reviewer"),
        ({"verdict": "edit"}, "needs its text"),
        ({"verdict": "edit", "edited": Example(" ", "", "y")}, "instruction is empty"),
        ({"verdict": "accept", "pair_id": 12345}, "not in the store"),
    ],
)
def test_a_decision_that_makes_no_sense_is_refused_and_stores_nothing(
    store: Store, pair_id: int, arguments: dict, message: str
) -> None:
    with pytest.raises(StoreError, match=message):
        decisions.decide(store, **{"pair_id": pair_id, "reviewer": "ada", **arguments})
    assert _all(store, "select count(*) n from decisions")[0]["n"] == 0


# ---- several at once ----


def entry(press: str, pair_id: int | None, action: str = "decide", verdict: str = "accept", **more: Any) -> Entry:
    return Entry(press=press, action=action, pair_id=pair_id, verdict=verdict, **more)


def test_a_batch_is_stored_in_order_and_what_makes_no_sense_in_it_is_left_out(store: Store, pair_id: int) -> None:
    found = decisions.apply(
        store,
        [
            entry("1", pair_id, verdict="new_response"),
            entry("2", pair_id, verdict="maybe"),
            entry("3", pair_id, verdict="edit", edited=Example(" ", "", "x")),
            entry("4", pair_id, "undo", undoes="1"),
            entry("5", 12345),
            entry("6", pair_id, verdict="edit", edited=Example("Say more", "", "better")),
            entry("1", pair_id, verdict="new_response"),
        ],
        reviewer="ada",
    )
    assert [one.kind for one in found] == ["ok", "error", "error", "ok", "error", "ok", "ok"]
    assert (found[-1].known, found[-1].decision_id) == (True, found[0].decision_id)
    stored = _all(store, "select verdict, undoes from decisions order by decision_id")
    assert [row["verdict"] for row in stored] == ["new_response", "undo", "accept"]  # an edit that changed nothing
    assert stored[1]["undoes"] == found[0].decision_id
    again = decisions.apply(store, [entry("4", pair_id, "undo", undoes="1")], reviewer="ada")[0]
    assert (again.known, again.undone, again.verdict) == (True, found[0].decision_id, "new_response")


def test_what_somebody_else_decided_since_it_was_served_refuses_ones_own_never_does(store: Store, pair_id: int) -> None:
    mine = decisions.apply(store, [entry("1", pair_id)], reviewer="ada")[0]
    assert decisions.apply(store, [entry("2", pair_id, verdict="reject")], reviewer="ada")[0].kind == "ok"
    refused = decisions.apply(store, [entry("3", pair_id, seen=mine.decision_id)], reviewer="bob")[0]
    assert (refused.kind, "ada rejected" in refused.text) == ("error", True)
    seen = review.pair(store, pair_id)["seen"]
    decisions.apply(store, [entry("u", pair_id, "undo"), entry("v", pair_id, "undo")], reviewer="ada")
    taken_back = decisions.apply(store, [entry("4", pair_id, seen=seen)], reviewer="bob")[0]
    assert "taken back" in taken_back.text
    assert decisions.apply(store, [entry("5", pair_id)], reviewer="bob")[0].kind == "ok"
    assert decisions.apply(store, [entry("6", pair_id, check_seen=False)], reviewer="eve")[0].kind == "ok"


def test_a_refusal_on_a_pair_of_a_blind_campaign_does_not_tell_what_another_said(store: Store, pair_id: int) -> None:
    """A request may claim any decision as the one that stood."""
    campaigns.create(store, name="blind", pair_ids=[pair_id], people=["bob"])
    decisions.apply(store, [entry("1", pair_id, verdict="reject")], reviewer="ada")
    for role, told in (("reviewer", False), ("admin", True)):
        with permission.as_actor(Actor("bob", "bob", role)):
            refused = decisions.apply(store, [entry(role, pair_id, seen=99)], reviewer="bob")[0]
        assert (refused.kind, "ada rejected" in refused.text) == ("error", told)


def test_nobody_takes_back_or_repeats_the_press_of_another(store: Store, pair_id: int) -> None:
    decisions.apply(store, [entry("1", pair_id)], reviewer="ada")
    found = decisions.apply(store, [entry("2", pair_id, "undo", undoes="1"), entry("1", pair_id)], reviewer="bob")
    assert ["ada's" in found[0].text, "somebody else" in found[1].text] == [True, True]
    assert _all(store, "select count(*) n from decisions")[0]["n"] == 1


def test_undo_stays_within_its_purpose_and_campaign_and_leaves_bulk_alone(store: Store, pair_id: int) -> None:
    entries = [
        entry("c", pair_id, campaign_id=3), entry("s", pair_id, purpose="second_look"), entry("b", pair_id, bulk_id=1)
    ]  # fmt: skip
    decisions.apply(store, entries, reviewer="ada")
    assert decisions.apply(store, [entry("u1", None, "undo")], reviewer="ada")[0].kind == "info"
    undone = decisions.apply(store, [entry("u2", None, "undo", campaign_id=3)], reviewer="ada")[0]
    assert undone.text == f"Pair {pair_id}: taken back: accepted."
    stored = _all(store, "select campaign_id, purpose from decisions where press = 'u2'")[0]
    assert (stored["campaign_id"], stored["purpose"]) == (3, "review")


def test_a_guard_refuses_in_the_transaction_and_sees_what_the_batch_has_stored(store: Store, pair_id: int) -> None:
    def once(connection: Connection, asked: Entry) -> str | None:
        n = scalar(connection, "select count(*) from decisions where pair_id = :p", p=asked.pair_id)
        return "One is enough." if n else None

    found = decisions.apply(store, [entry("1", pair_id), entry("2", pair_id)], reviewer="ada", guard=once)
    assert [(one.kind, one.text) for one in found][1] == ("error", "One is enough.")
    assert _all(store, "select count(*) n from decisions")[0]["n"] == 1


def test_a_viewer_decides_nothing_and_a_store_that_fails_stores_nothing(store: Store, pair_id: int) -> None:
    with permission.as_actor(Actor("vi", "Vi", "viewer")), pytest.raises(NotAllowedError, match="viewer"):
        decisions.apply(store, [entry("1", pair_id)], reviewer="vi")
    assert _all(store, "select count(*) n from decisions")[0]["n"] == 0


DECIDE_AND_DIE = """
import os, signal, sys
from pathlib import Path
from core.example import Example
from db import decisions
from db.store import Store
store = Store(Path(sys.argv[1])); verdict = sys.argv[2]
if verdict == "undo":
    decisions.undo(store, reviewer="ada", press="last")
else:
    edited = Example("edited", "", "text") if verdict == "edit" else None
    pair = int(sys.argv[3])
    decisions.decide(store, pair_id=pair, reviewer="ada", verdict=verdict, edited=edited, note="n", press="last")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("verdict", [*schema.VERDICTS_DECIDED, *schema.VERDICTS_OTHER])
def test_no_decision_is_lost_when_the_server_is_killed_right_after_it(tmp_path: Path, verdict: str) -> None:
    path = tmp_path / "assay.duckdb"
    store = Store(path)
    dataset = commands.import_dataset(store, [batch(EXAMPLES)], name="six", source="t")
    pair = add_pair(store, dataset_id=dataset, original=EXAMPLES[0], candidate=Example("Say more", "", "better"))
    if verdict == "undo":
        decisions.decide(store, pair_id=pair, reviewer="ada", verdict="accept")
    store.close()
    done = subprocess.run(
        [sys.executable, "-c", DECIDE_AND_DIE, str(path), verdict, str(pair)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    again = Store(path)
    with again.read() as connection:
        assert scalar(connection, "select verdict from decisions where press = 'last'") == verdict
        if verdict in ("accept", "edit", "new_instruction", "new_response"):
            result = scalar(connection, "select result_id from decisions where press = 'last'")
            assert scalar(connection, "select count(*) from examples where example_id = :i", i=result) == 1
    again.close()


def test_what_the_reviewer_saw_is_kept_with_the_decision(store: Store, pair_id: int) -> None:
    decisions.decide(store, pair_id=pair_id, reviewer="ada", verdict="accept", shown={"ifd": [0.5, None]}, seconds=2.5)
    found = _all(store, "select shown, seconds from decisions")[0]
    shown = found["shown"] if isinstance(found["shown"], dict) else json.loads(found["shown"])
    assert (shown, found["seconds"]) == ({"ifd": [0.5, None]}, 2.5)
