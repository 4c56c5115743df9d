"""Decisions: none is lost, none is doubled, and undo finds the way back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from core.errors import StoreError
from core.example import Example
from db import commands, decisions, queries, review, schema
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
