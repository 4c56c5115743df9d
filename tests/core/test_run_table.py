"""Runs joined with their datasets' means: who goes in, who does not and why, and what may not be compared."""

from __future__ import annotations

from typing import Any

import numpy as np

from core.run_table import BY_HAND, RESPONSE, coverage, differences, run_table, varies, without


def a_run(run_id: int, **more: Any) -> dict[str, Any]:
    usual = {"study_id": 1, "study": "S", "label": f"run {run_id}", "role": "mixture", "dataset_id": 100 + run_id}
    return {"run_id": run_id, **usual, "outcome": "done", "reason": None, "loss_nats": 2.0, "n_rows": 10, **more}


def a_table(runs: list[dict[str, Any]]) -> Any:
    return run_table(
        runs,
        keys=["a", "b"],
        dataset_ids=[101, 102, 103],
        mean=np.array([[1.0, np.nan], [2.0, 5.0], [4.0, 5.0]]),
        n_values=np.array([[10, 0], [8, 10], [10, 10]]),
        n_members=np.array([10, 10, 10]),
    )


def test_only_runs_that_are_done_go_in_and_the_others_say_why() -> None:
    table = a_table(
        [
            a_run(9, role="base", dataset_id=None),
            a_run(3),
            a_run(1, loss_nats=3.0),
            a_run(2, outcome="diverged", reason="Not finite from step 3 on.", loss_nats=None),
            a_run(4, outcome=None, loss_nats=None),
            a_run(5, role="trial", dataset_id=None),
        ]
    )
    assert table.keys == (3, 1)
    assert table.columns == {RESPONSE: (2.0, 3.0), "a": (4.0, 1.0), "b": (5.0, None)}
    assert dict(table.left_out) == {
        "run 2": "diverged: Not finite from step 3 on.",
        "run 4": "not run yet",
        "run 5": "it has no dataset of its own, and so no indicator means",
    }


def test_rows_without_a_value_are_counted_and_the_mean_of_none_is_none() -> None:
    table = a_table([a_run(1), a_run(2), a_run(3)])
    assert table.missing == {"a": (0, 2, 0), "b": (10, 0, 0)}
    first, second = coverage(table)
    assert (first.n_runs, first.n_gaps, first.n_rows_missing, first.low, first.high) == (3, 1, 2, 1.0, 4.0)
    # b has no mean in run 1 at all: that is a run without it, not a gap within a mean.
    assert (second.n_runs, second.n_gaps, second.n_rows_missing) == (2, 0, 0)
    assert varies(first)
    assert not varies(second)


def test_labels_name_the_study_where_there_are_two() -> None:
    assert a_table([a_run(1), a_run(2)]).labels == ("run 1", "run 2")
    assert a_table([a_run(1), a_run(2, study_id=2, study="T")]).labels == ("S · run 1", "T · run 2")


def test_what_may_not_be_compared_is_said() -> None:
    one = {"name": "S", "evaluation_id": 1, "evaluation": "E", "settings": {"epochs": 3.0, "device": "cpu"}}
    assert differences([one, {**one, "settings": {"epochs": 3.0, "device": "cuda:1"}}]) == []
    said = differences([one, {**one, "evaluation_id": 2, "evaluation": "F", "settings": {"epochs": 1.0}}])
    assert len(said) == 2
    assert "E, F" in said[0]
    assert "epochs 3.0 / 1.0" in said[1]


def test_runs_can_be_left_out_by_hand_and_say_so() -> None:
    table = a_table([a_run(1), a_run(2, loss_nats=3.0), a_run(3)])
    left = without(table, {2, 77})
    assert left.keys == (1, 3)
    assert left.columns == {RESPONSE: (2.0, 2.0), "a": (1.0, 4.0), "b": (None, 5.0)}
    assert left.missing == {"a": (0, 0), "b": (10, 0)}
    assert left.left_out == (("run 2", BY_HAND),)
    assert without(table, {77}) is table
