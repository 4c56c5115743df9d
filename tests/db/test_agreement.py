"""Agreement as it is read from the store: numbers worked out by hand, and what must not count."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from core.example import Example
from core.reviewer_agreement import VERDICTS, Votes, matches, review_agreement, said
from db import campaigns, decisions
from db.agreement import agreement
from db.decisions import Entry
from db.store import Store
from tests.db.conftest import EXAMPLES, add_pair

PRESSES = itertools.count()


@pytest.fixture
def pairs(store: Store, dataset_id: int) -> list[int]:
    return [
        add_pair(store, dataset_id=dataset_id, original=EXAMPLES[i], candidate=Example(f"New {i}", "", f"new {i}"),
                 stage=("instruction", "response")[i % 2])
        for i in range(6)
    ]  # fmt: skip


def decide(store: Store, pair_id: int, who: str, verdict: str, *, purpose: str = "review") -> None:
    edited = Example(f"Edited by {who}", "", "Better") if verdict == "edit" else None
    entry = Entry(
        press=f"press-{next(PRESSES)}", action="decide", pair_id=pair_id, verdict=verdict, edited=edited,
        purpose=purpose, check_seen=False,
    )  # fmt: skip
    [done] = decisions.apply(store, [entry], reviewer=who)
    assert done.kind == "ok", done.text


def two_people(store: Store, pairs: list[int]) -> None:
    """Ada and Ben on five pairs: accept-accept twice, reject-reject, accept-reject, edit-accept; Ada on a sixth too."""
    for pair_id, one, other in zip(
        pairs, ("accept", "accept", "reject", "accept", "edit"), ("accept", "accept", "reject", "reject", "accept"),
        strict=False,
    ):  # fmt: skip
        decide(store, pair_id, "Ada", one)
        decide(store, pair_id, "Ben", other)
    decide(store, pairs[5], "Ada", "accept")


def test_five_verdicts_by_hand(store: Store, pairs: list[int]) -> None:
    """Three of five agree. kappa: expected = (3*3 + 1*2 + 1*0) / 25 = 0.44, (0.6 - 0.44) / 0.56.

    alpha: margins accept 6, reject 3, edit 1 of n = 10; D_o = 2/5, D_e = (100 - 36 - 9 - 1) / 90 = 0.6.
    """
    two_people(store, pairs)
    found = agreement(store)
    assert (found.n_pairs, found.n_shared, found.n_unanimous, found.n_open) == (6, 5, 3, 2)
    kappa = found.pairwise["Ada", "Ben"]
    assert kappa.n == 5
    assert kappa.value == pytest.approx((0.6 - 0.44) / 0.56)
    assert found.alpha.value == pytest.approx(1 - 0.4 / 0.6)
    assert found.confusion["Ada", "Ben"].sum() == 5
    ada, ben = found.reviewers
    assert (ada.identity, ada.n_decisions, ada.n_shared) == ("Ada", 6, 5)
    assert ada.rest.value == pytest.approx(ben.rest.value)  # with one other, the rest is the other
    assert {one.pair_id for one in found.disputed} == {pairs[3], pairs[4]}
    assert "5 of 6 decided pairs" in said(found)


def test_accept_or_reject_counts_an_edit_as_accepted(store: Store, pairs: list[int]) -> None:
    """Four of five agree. kappa: Ada accepts 4, Ben 3: expected = (4*3 + 1*2) / 25 = 0.56, (0.8 - 0.56) / 0.44."""
    two_people(store, pairs)
    found = agreement(store, coding="accept or reject")
    assert found.n_unanimous == 4
    assert found.pairwise["Ada", "Ben"].value == pytest.approx((0.8 - 0.56) / 0.44)
    assert [one.pair_id for one in found.disputed] == [pairs[3]]


def test_what_was_taken_back_decided_anew_or_for_another_purpose_does_not_count(store: Store, pairs: list[int]) -> None:
    two_people(store, pairs)
    before = agreement(store)
    decide(store, pairs[0], "Ben", "reject")
    decisions.undo(store, reviewer="Ben")
    decide(store, pairs[1], "Cleo", "reject", purpose="bulk")
    decide(store, pairs[1], "Ada", "skip")
    assert agreement(store).alpha == before.alpha
    decide(store, pairs[3], "Ben", "accept")  # the latest word counts
    assert agreement(store).n_unanimous == 4


def test_adjudication_gold_and_the_second_look(store: Store, pairs: list[int]) -> None:
    campaign_id = campaigns.create(
        store, name="c", pair_ids=pairs[:5], people=["Ada", "Ben"], overlap=2, guidelines="",
        gold={pairs[0]: "accept", pairs[3]: "reject"}, blind=True, created_by="Dana",
    )  # fmt: skip
    two_people(store, pairs)
    decide(store, pairs[3], "Dana", "reject", purpose="adjudication")
    decide(store, pairs[0], "Ada", "accept", purpose="second_look")
    decide(store, pairs[2], "Ada", "accept", purpose="second_look")
    found = agreement(store, campaign_id=campaign_id)
    assert found.n_pairs == 5  # the sixth pair is in no campaign
    assert (found.n_adjudicated, found.n_open) == (1, 1)
    assert (found.share_unanimous, found.share_settled) == (0.6, 0.8)
    ada, ben = found.reviewers
    assert (ada.gold.n_same, ada.gold.n, ben.gold.n_same) == (1, 2, 2)
    assert (ada.upheld.n_same, ben.upheld.n_same, ben.upheld.n) == (0, 1, 1)
    assert (ada.again.n_same, ada.again.n, ben.again.share) == (1, 2, None)
    assert "second look" in str(ben.again.reason)
    # Open ones stand before adjudicated ones.
    assert [(one.pair_id, one.adjudicated) for one in found.disputed] == [(pairs[4], None), (pairs[3], "reject")]
    assert agreement(store, campaign_id=99).n_pairs == 0


def test_by_kind_of_task(store: Store, dataset_id: int, pairs: list[int]) -> None:
    two_people(store, pairs)
    by_stage = {one.name: one for one in agreement(store, by="stage").groups}
    assert {name: (one.n_pairs, one.n_unanimous) for name, one in by_stage.items()} == {
        "instruction": (3, 2), "response": (2, 1),
    }  # fmt: skip
    [whole] = agreement(store, by="dataset", dataset_id=dataset_id).groups
    assert (whole.name, whole.alpha.value) == ("six", agreement(store).alpha.value)
    [nothing] = agreement(store, by="category:kind").groups
    assert nothing.name == "(nothing)"
    with pytest.raises(ValueError, match="weather"):
        agreement(store, by="weather")


def test_without_overlap_there_is_a_reason_and_no_number(store: Store, pairs: list[int]) -> None:
    assert "Nobody has decided" in said(agreement(store))
    decide(store, pairs[0], "Ada", "accept")
    decide(store, pairs[1], "Ben", "reject")
    found = agreement(store)
    assert (found.alpha.value, found.share_unanimous, found.reviewers[0].rest.value) == (None, None, None)
    assert found.pairwise == {}
    assert "no pair was decided by two" in said(found)
    decide(store, pairs[0], "Ben", "accept")
    found = agreement(store)
    assert found.alpha.value is None
    assert "All 2 verdicts are the same" in said(found)


def test_the_rest_is_the_majority_of_the_others() -> None:
    """Four people on three pairs; where the others are split, there is no majority to agree with."""
    told = {10: "aaar", 11: "arar", 12: "rrra"}
    places = {"a": VERDICTS.index("accept"), "r": VERDICTS.index("reject")}
    votes = Votes(
        pair_ids=np.repeat(list(told), 4),
        reviewers=np.tile(np.arange(4), 3),
        verdicts=np.array([places[one] for said in told.values() for one in said], np.int8),
        names=("A", "B", "C", "D"),
    )
    found = review_agreement(votes, resamples=0)
    a, d = found.reviewers[0], found.reviewers[3]
    assert (a.n_shared, a.n_tied, a.rest.n) == (3, 0, 3)
    # On 10 the others of A said a a r, on 11 r a r, on 12 r r a: A agrees on 10 and 12.
    assert a.rest.observed == pytest.approx(2 / 3)
    # On 10 the others of D said a a a, on 11 a r a, on 12 r r r: D never agrees.
    assert d.rest.observed == 0
    assert [one.share_agreeing for one in found.disputed] == pytest.approx([1 / 3, 1 / 2, 1 / 2])


def test_a_share_of_nothing_is_none_and_its_interval_is_wilson_s() -> None:
    assert matches(0, 0, reason="why").share is None
    found = matches(8, 10, reason="")
    assert found.share == 0.8
    assert found.low == pytest.approx(0.4902, abs=1e-4)
    assert found.high == pytest.approx(0.9433, abs=1e-4)
