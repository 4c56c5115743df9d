"""The queue and the curated set."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from sqlalchemy import text

from core.example import Example
from core.filters import EXPORT_OPTIONS, ExportChoice
from db import commands, curated, decisions, review
from db.store import Store
from tests.db.conftest import EXAMPLES, add_pair


@pytest.fixture
def pairs(store: Store, dataset_id: int) -> list[int]:
    """Four rows with a pair, of which row 3 has two stages; rows 4 and 5 were not reflected."""
    gains = [(0.5, 0.6), (0.5, 0.9), (0.5, None), (0.5, 0.4)]
    proposals = ["reflected", "original", "original", "leave out"]
    first = [
        add_pair(
            store,
            dataset_id=dataset_id,
            original=EXAMPLES[i],
            candidate=Example(f"New {i}", "", f"new {i}"),
            ifd=gains[i],
            proposal=proposals[i],
        )
        for i in range(4)
    ]
    second = add_pair(
        store,
        dataset_id=dataset_id,
        original=EXAMPLES[3],
        candidate=Example("New 3", "", "newest 3"),
        stage="response",
        ifd=(0.5, 0.45),
    )
    return [*first, second]


def _counts(store: Store, dataset_id: int, choice: ExportChoice) -> dict[tuple[str, str], int]:
    counts: Counter[tuple[str, str]] = Counter()
    for row in curated.curated_summary(store, dataset_id, choice).counts:
        counts[row["state"], row["kept"]] += row["n"]
    return dict(counts)


def test_the_curated_set_by_hand(store: Store, pairs: list[int], dataset_id: int) -> None:
    a, b, _unknown, d, response = pairs
    decisions.decide(store, pair_id=a, reviewer="ada", verdict="accept")
    decisions.decide(store, pair_id=b, reviewer="ada", verdict="reject")
    decisions.decide(store, pair_id=d, reviewer="ada", verdict="accept")
    decisions.decide(store, pair_id=response, reviewer="ada", verdict="accept")
    rows = curated.curated_rows(store, dataset_id, ExportChoice())
    assert [row["output"] for row in rows] == ["new 0", "answer 1", "answer 2", "newest 3", "answer 4", "answer 5"]
    assert [row["state"] for row in rows] == [
        "accepted", "rejected", "undecided", "accepted", "not_reflected", "not_reflected",
    ]  # fmt: skip
    assert _counts(store, dataset_id, ExportChoice("leave out", "leave out", "leave out")) == {
        ("accepted", "reflected"): 2,
        ("rejected", "left out"): 1,
        ("undecided", "left out"): 1,
        ("not_reflected", "left out"): 2,
    }


def test_a_rejected_response_falls_back_to_the_accepted_instruction_stage(
    store: Store, pairs: list[int], dataset_id: int
) -> None:
    decisions.decide(store, pair_id=pairs[3], reviewer="ada", verdict="accept")
    decisions.decide(store, pair_id=pairs[4], reviewer="ada", verdict="reject")
    row = curated.curated_rows(store, dataset_id, ExportChoice())[3]
    assert (row["state"], row["output"]) == ("accepted", "new 3")


def test_undecided_rows_can_follow_the_student(store: Store, pairs: list[int], dataset_id: int) -> None:
    with store.adding_examples() as connection:
        ids = commands.add_examples(connection, [*EXAMPLES, Example("New 0", "", "new 0")])
        finals = [(0, "New 0", True), (1, "Say 1", True), (3, "Say 3", False)]
        for i, instruction, kept in finals:
            final = next(e for e in [*EXAMPLES, Example("New 0", "", "new 0")] if e.instruction == instruction)
            connection.execute(
                text("""insert into reflections (job_id, dataset_id, example_id, final_id, kept, why)
                values ('job-1', :dataset, :example, :final, :kept, 'why')"""),
                {"dataset": dataset_id, "example": ids[EXAMPLES[i].hash], "final": ids[final.hash], "kept": kept},
            )
    choice = ExportChoice(undecided="student's proposal")
    rows = curated.curated_rows(store, dataset_id, choice)
    assert [row["output"] for row in rows] == ["new 0", "answer 1", "answer 2", "answer 4", "answer 5"]
    decisions.decide(store, pair_id=pairs[3], reviewer="ada", verdict="reject")  # a person outweighs the student
    assert [row["output"] for row in curated.curated_rows(store, dataset_id, choice)][3] == "answer 3"


@pytest.mark.parametrize("choice", [ExportChoice(*c) for c in itertools.product(*EXPORT_OPTIONS.values())])
def test_the_counts_on_the_page_are_the_rows_of_the_file(
    store: Store, pairs: list[int], dataset_id: int, choice: ExportChoice
) -> None:
    for pair_id, verdict in zip(pairs, ("accept", "reject", "new_response", "skip", "reject"), strict=True):
        decisions.decide(store, pair_id=pair_id, reviewer="ada", verdict=verdict)
    counted = sum(n for (_, kept), n in _counts(store, dataset_id, choice).items() if kept != "left out")
    assert counted == len(curated.curated_rows(store, dataset_id, choice))


def test_progress_counts_each_pair_once(store: Store, pairs: list[int]) -> None:
    decisions.decide(store, pair_id=pairs[0], reviewer="ada", verdict="reject", seconds=4)
    decisions.decide(store, pair_id=pairs[0], reviewer="ada", verdict="accept", seconds=8)
    found, pace = review.counts(store), review.own_pace(store, "ada")
    assert (found["n_pairs"], found["n_decided"], found["n_accepted"], found["n_rejected"]) == (5, 1, 1, 0)
    assert (pace["n_today"], pace["seconds"]) == (2, [8, 4])
