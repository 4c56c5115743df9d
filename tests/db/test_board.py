"""Numbers of the meeting board: what the slides count, and the mark that says whether to draw again."""

from __future__ import annotations

import pytest

from db import board_numbers, campaign_progress, campaigns, decisions
from db.store import Store
from tests.pages import sample_stores


def test_an_empty_store_has_numbers_too(store: Store) -> None:
    assert set(board_numbers.mark(store).values()) == {0}
    assert board_numbers.coverage(store) == (0, [])
    assert board_numbers.distributions(store) == []
    assert board_numbers.review_by_dataset(store) == board_numbers.campaigns(store) == []
    assert board_numbers.pace(store)["n_all"] == 0


def test_what_the_slides_count(store: Store) -> None:
    dataset_id = sample_stores.fill_half_scored(store)
    n_rows, lines = board_numbers.coverage(store)
    assert n_rows == 24 + 6
    assert {line["output"]: (line["n_values"], line["n_nulls"]) for line in lines} == {
        "length": (11, 1), "mtld": (11, 1), "r_ifd": (11, 1), "ifd": (10, 2),
    }  # fmt: skip
    assert {line["reason"] for line in lines} == {"The response is empty: there is no token to score."}
    for one in board_numbers.distributions(store):
        assert sum(one.counts) == one.n  # the tails are in the outer bins
        assert one.edges[0] <= one.q25 <= one.median <= one.q75 <= one.edges[-1]
    ifd = next(one for one in board_numbers.distributions(store) if one.output == "ifd")
    # 0.4 + 0.05 i for i of 0 to 11 without 2 and 5: the middle of 0.4 .45 .55 .6 .7 .75 .8 .85 .9 .95
    assert ifd.median == pytest.approx(0.725)
    row = board_numbers.review_by_dataset(store)[0]
    assert row["dataset_id"] == dataset_id
    assert (row["n_pairs"], row["n_accepted"], row["n_rejected"], row["n_undecided"], row["n_flagged"]) == (
        10,
        3,
        1,
        6,
        1,
    )
    pace = board_numbers.pace(store)
    assert (pace["n_all"], pace["n_recent"], pace["n_people"]) == (4, 4, 2)


def test_the_mark_changes_with_what_it_is_named_for_and_with_nothing_else(store: Store) -> None:
    sample_stores.fill_half_scored(store)
    before = board_numbers.mark(store)
    assert board_numbers.mark(store) == before
    decisions.decide(store, pair_id=9, reviewer="Ada", verdict="accept")
    after = board_numbers.mark(store)
    assert {name for name in before if after[name] != before[name]} == {"decisions"}


def test_a_campaign_is_counted_as_on_its_own_page(store: Store) -> None:
    sample_stores.fill_half_scored(store)
    campaign_id = campaigns.create(
        store, name="Four", pair_ids=[6, 7, 8, 9], people=["Ada"], overlap=1, created_by="Ada"
    )
    decisions.decide(store, pair_id=6, reviewer="Ben", verdict="accept")  # outside of it
    found = board_numbers.campaigns(store)[0]
    assert campaign_progress.progress(store, campaign_id).states["waiting"] == 4
    assert (found["n_pairs"], found["n_done"], found["n_disputed"]) == (4, 0, 0)
