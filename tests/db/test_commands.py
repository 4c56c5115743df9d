"""What changes the store: imports, scores, decisions."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow as pa
import pytest

from core.errors import InputError, StoreError
from core.example import Example
from db import commands, queries, review, schema
from db.store import Store, rows, scalar
from tests.db.conftest import EXAMPLES, add_pair, batch

ROOT = Path(__file__).parents[2]


def _all(store: Store, sql: str) -> list[dict]:
    with store.read() as connection:
        return rows(connection, sql)


def test_the_same_row_in_two_datasets_is_one_example(store: Store, dataset_id: int) -> None:
    other = commands.import_dataset(store, [batch([*EXAMPLES[:2], Example("new", "", "y")])], name="b", source="t")
    assert _all(store, "select count(*) n from examples")[0]["n"] == 7
    assert [d["n_members"] for d in queries.datasets(store)] == [3, 6]
    first = _all(store, f"select example_id from members where dataset_id = {other} order by position")
    same = _all(store, f"select example_id from members where dataset_id = {dataset_id} order by position")
    assert first[:2] == same[:2]


def test_rows_keep_their_order_and_their_duplicates_unless_told_otherwise(store: Store) -> None:
    twice = [Example("a", "", "1"), Example("b", "", "2"), Example("a", "", "1")]
    kept = commands.import_dataset(store, [batch(twice)], name="kept", source="t")
    dropped = commands.import_dataset(store, [batch(twice)], name="dropped", source="t", drop_exact_duplicates=True)
    for dataset, expected in ((kept, ["a", "b", "a"]), (dropped, ["a", "b"])):
        found = _all(
            store,
            f"""select e.instruction from members m join examples e on e.example_id = m.example_id
            where dataset_id = {dataset} order by position""",
        )
        assert [row["instruction"] for row in found] == expected


def test_a_reader_that_fails_half_way_imports_nothing(store: Store) -> None:
    def broken():
        yield batch(EXAMPLES)
        raise InputError("line 7 is not JSON")

    with pytest.raises(InputError, match="line 7"):
        commands.import_dataset(store, broken(), name="half", source="t")
    assert queries.datasets(store) == []
    assert _all(store, "select count(*) n from examples")[0]["n"] == 0
    commands.import_dataset(store, [batch(EXAMPLES)], name="half", source="t")  # the name is still free


@pytest.mark.parametrize("name", ["", "   ", "six"])
def test_a_dataset_needs_a_name_of_its_own(store: Store, dataset_id: int, name: str) -> None:
    with pytest.raises(StoreError, match="name"):
        commands.import_dataset(store, [batch(EXAMPLES)], name=name, source="t")


def test_two_imports_at_once_do_not_collide_on_their_common_rows(store: Store) -> None:
    errors: list[BaseException] = []

    def load(name: str) -> None:
        try:
            commands.import_dataset(store, [batch(EXAMPLES)], name=name, source="t")
        except BaseException as error:  # noqa: BLE001 - carried to the test's thread
            errors.append(error)

    threads = [threading.Thread(target=load, args=(f"d{i}",)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert _all(store, "select count(*) n from examples")[0]["n"] == len(EXAMPLES)


def _scores(values: list[tuple[int, int, float | None, str | None, bool]]) -> pa.Table:
    columns = list(zip(*values, strict=True))
    return pa.table(
        {
            "scorer_id": pa.array(columns[0], pa.int64()),
            "example_id": pa.array(columns[1], pa.int64()),
            "value": pa.array(columns[2], pa.float64()),
            "reason": pa.array(columns[3], pa.string()),
            "transient": pa.array(columns[4], pa.bool_()),
        }
    )


def test_a_passing_failure_is_replaced_by_a_value_and_a_value_by_nothing(store: Store) -> None:
    def put(*values: tuple[int, int, float | None, str | None, bool]) -> list[dict]:
        with store.write() as connection:
            commands.put_scores(connection, _scores(list(values)))
        return _all(store, "select example_id, value, reason from scores order by example_id")

    put((1, 1, None, "out of memory", True), (1, 2, None, "no response", False), (1, 3, 0.5, None, False))
    after = put((1, 1, 0.25, None, False), (1, 2, 9.0, None, False), (1, 3, 9.0, None, False))
    assert after == [
        {"example_id": 1, "value": 0.25, "reason": None},
        {"example_id": 2, "value": None, "reason": "no response"},
        {"example_id": 3, "value": 0.5, "reason": None},
    ]


@pytest.fixture
def pair_id(store: Store, dataset_id: int) -> int:
    return add_pair(store, dataset_id=dataset_id, original=EXAMPLES[0], candidate=Example("Say more", "", "better"))


def test_undo_goes_back_through_every_decision_and_history_keeps_them_all(store: Store, pair_id: int) -> None:
    for verdict in ("accept", "reject", "new_response"):
        commands.decide(store, pair_id=pair_id, reviewer="ada", verdict=verdict)
    seen = []
    while (undone := commands.undo(store, reviewer="ada")) is not None:
        standing = review.pair(store, pair_id)["decision"]
        seen.append((undone["verdict"], standing and standing["verdict"]))
    assert seen == [("new_response", "reject"), ("reject", "accept"), ("accept", None)]
    assert len(review.pair(store, pair_id)["history"]) == 6


def test_undo_takes_back_only_ones_own(store: Store, pair_id: int) -> None:
    commands.decide(store, pair_id=pair_id, reviewer="ada", verdict="accept")
    commands.decide(store, pair_id=pair_id, reviewer="bob", verdict="reject")
    commands.undo(store, reviewer="ada")
    decision = review.pair(store, pair_id)["decision"]
    assert (decision["reviewer"], decision["verdict"]) == ("bob", "reject")


def test_one_press_is_one_decision_however_often_it_arrives(store: Store, pair_id: int) -> None:
    ids = {commands.decide(store, pair_id=pair_id, reviewer="ada", verdict="accept", press="p1") for _ in range(3)}
    assert len(ids) == 1
    first = commands.undo(store, reviewer="ada", press="u1")
    assert commands.undo(store, reviewer="ada", press="u1") == first
    assert _all(store, "select count(*) n from decisions")[0]["n"] == 2


def test_a_flag_stands_beside_the_verdict(store: Store, pair_id: int) -> None:
    commands.decide(store, pair_id=pair_id, reviewer="ada", verdict="accept")
    commands.decide(store, pair_id=pair_id, reviewer="ada", verdict="flag", note="check the units")
    shown = review.pair(store, pair_id)
    assert shown["decision"]["verdict"] == "accept"
    assert shown["flag"]["note"] == "check the units"
    commands.decide(store, pair_id=pair_id, reviewer="ada", verdict="unflag")
    assert review.pair(store, pair_id)["flag"] is None


def test_mixed_and_edited_results_are_new_examples(store: Store, pair_id: int) -> None:
    expected = {
        "new_instruction": Example("Say more", "", EXAMPLES[0].output),
        "new_response": Example(EXAMPLES[0].instruction, EXAMPLES[0].input, "better"),
        "edit": Example("Say it", "", "best"),
    }
    for verdict, example in expected.items():
        edited = example if verdict == "edit" else None
        commands.decide(store, pair_id=pair_id, reviewer="ada", verdict=verdict, edited=edited)
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
        commands.decide(store, **{"pair_id": pair_id, "reviewer": "ada", **arguments})
    assert _all(store, "select count(*) n from decisions")[0]["n"] == 0


DECIDE_AND_DIE = """
import os, signal, sys
from pathlib import Path
from core.example import Example
from db import commands
from db.store import Store
store = Store(Path(sys.argv[1])); verdict = sys.argv[2]
if verdict == "undo":
    commands.undo(store, reviewer="ada", press="last")
else:
    edited = Example("edited", "", "text") if verdict == "edit" else None
    pair = int(sys.argv[3])
    commands.decide(store, pair_id=pair, reviewer="ada", verdict=verdict, edited=edited, note="n", press="last")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("verdict", [*schema.VERDICTS_DECIDED, *schema.VERDICTS_OTHER])
def test_no_decision_is_lost_when_the_server_is_killed_right_after_it(tmp_path: Path, verdict: str) -> None:
    path = tmp_path / "assay.duckdb"
    store = Store(path)
    dataset = commands.import_dataset(store, [batch(EXAMPLES)], name="six", source="t")
    pair = add_pair(store, dataset_id=dataset, original=EXAMPLES[0], candidate=Example("Say more", "", "better"))
    if verdict == "undo":
        commands.decide(store, pair_id=pair, reviewer="ada", verdict="accept")
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
    commands.decide(store, pair_id=pair_id, reviewer="ada", verdict="accept", shown={"ifd": [0.5, None]}, seconds=2.5)
    found = _all(store, "select shown, seconds from decisions")[0]
    shown = found["shown"] if isinstance(found["shown"], dict) else json.loads(found["shown"])
    assert (shown, found["seconds"]) == ({"ifd": [0.5, None]}, 2.5)
