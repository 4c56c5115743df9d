"""What changes the store: imports and scores."""

from __future__ import annotations

import threading
from typing import Any

import pyarrow as pa
import pytest

from core.errors import InputError, StoreError
from core.example import Example
from db import commands, queries
from db.store import Store, rows
from tests.db.conftest import EXAMPLES, batch


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


def test_a_selection_takes_the_metadata_of_its_rows_along(store: Store) -> None:
    """Categories were lost once rows were saved as a dataset."""
    examples = [Example("a", "", "1"), Example("b", "", "2")]
    made = {}
    for name, marks in (("old", ['{"c": 1}', None]), ("new", ['{"c": 2}', '{"c": 3}'])):
        table = batch(examples)
        place = table.schema.get_field_index("metadata")
        table = table.set_column(place, "metadata", pa.array(marks, pa.string()))
        made[name] = commands.import_dataset(store, [table], name=name, source="t")
    ids = [row["example_id"] for row in _all(store, f"select example_id from members where dataset_id = {made['old']}")]

    def metadata(dataset: int) -> list:
        sql = f"select metadata from members where dataset_id = {dataset} order by position"
        return [row["metadata"] for row in _all(store, sql)]

    kept: dict[str, Any] = {"kind": "selection", "source": "t"}
    assert metadata(commands.create_dataset(store, [*ids, ids[0]], name="any", **kept)) == [
        '{"c": 1}', '{"c": 3}', '{"c": 1}',
    ]  # fmt: skip
    of_new = commands.create_dataset(store, ids, name="of new", **kept, like=[made["new"]])
    assert metadata(of_new) == ['{"c": 2}', '{"c": 3}']
    of_old = commands.create_dataset(store, ids, name="of old", **kept, like=[made["old"]])
    assert metadata(of_old) == ['{"c": 1}', None]
