"""Blind votes on the meeting board: one ballot a person, nothing out before the reveal, two rounds, one decision."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from core.errors import NotAllowedError, StoreError
from db import board, decisions, permission, votes
from db.board import CLOSED, OPEN, REVEALED
from db.permission import Actor
from db.store import Store, rows
from tests import prepared
from tests.pages import sample_stores


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    prepared.put(tmp_path / "assay.duckdb", sample_stores.fill_half_scored)
    opened = Store(tmp_path / "assay.duckdb")
    board.present(opened, identity="Ada", name="Ada L.", slide="review")
    yield opened
    opened.close()


def cast(store: Store, vote_id: int, who: str, verdict: str, *, round: int = 1, press: str = "") -> int:
    return votes.cast(
        store, vote_id=vote_id, round=round, identity=who, verdict=verdict, press=press or f"{who}{verdict}{round}"
    )


def test_a_vote_before_and_after_a_discussion(store: Store) -> None:
    vote_id = votes.open_vote(store, pair_id=8, identity="Ada")
    now = board.board(store)
    assert (now.vote_id, now.round, now.phase, now.slide) == (vote_id, 1, OPEN, "vote")
    for who, verdict in (("Ada", "accept"), ("Ben", "reject"), ("Chi", "accept"), ("Dan", "edit")):
        cast(store, vote_id, who, verdict)
    cast(store, vote_id, "Dan", "reject")  # the latest of a person counts
    assert votes.n_voted(store, vote_id, 1) == 4
    assert votes.own(store, vote_id, 1, "Dan") == "reject"
    # Nothing is out before the reveal, not even in the list of votes.
    assert votes.vote(store, vote_id).before is None
    assert votes.votes(store) == []
    with pytest.raises(StoreError, match="Reveal the first round"):
        votes.again(store, vote_id=vote_id, identity="Ada")

    votes.reveal(store, vote_id=vote_id, round=1, identity="Ada")
    before = votes.vote(store, vote_id).before
    assert before is not None
    assert (dict(before.counts), before.majority) == ({"accept": 2, "reject": 2}, None)
    # By hand: 2 of the 6 pairs of voters agree; with five choices kappa is (1/3 - 1/5) / (4/5) = 1/6.
    assert before.agreement == pytest.approx(1 / 3)
    assert before.kappa == pytest.approx(1 / 6)
    with pytest.raises(StoreError, match="takes no more votes"):
        cast(store, vote_id, "Eve", "accept")

    votes.again(store, vote_id=vote_id, identity="Ada")
    votes.again(store, vote_id=vote_id, identity="Ada")  # a double press opens no third round
    assert (board.board(store).round, board.board(store).phase) == (2, OPEN)
    for who, verdict in (("Ada", "accept"), ("Ben", "accept"), ("Chi", "accept"), ("Eve", "reject")):
        cast(store, vote_id, who, verdict, round=2)
    assert votes.vote(store, vote_id).after is None
    votes.reveal(store, vote_id=vote_id, round=2, identity="Ada")
    found = votes.vote(store, vote_id)
    assert found.after is not None
    assert found.change is not None
    assert found.after.agreement == pytest.approx(0.5)  # 3 of 6
    # Dan left and Eve came: only Ada, Ben and Chi are compared. 1 of 3 pairs agreed, then all; Ben changed.
    assert (found.change.n, found.change.n_changed) == (3, 1)
    assert found.change.before.agreement == pytest.approx(1 / 3)
    assert found.change.after.agreement == 1.0
    assert [one.vote_id for one in votes.votes(store)] == [vote_id]


def test_a_ballot_that_is_sent_twice_counts_once_and_a_press_has_one_owner(store: Store) -> None:
    vote_id = votes.open_vote(store, pair_id=8, identity="Ada")
    first = cast(store, vote_id, "Ben", "accept", press="p1")
    cast(store, vote_id, "Ben", "reject", press="p2")
    assert cast(store, vote_id, "Ben", "accept", press="p1") == first  # a resend does not undo the later change
    assert votes.own(store, vote_id, 1, "Ben") == "reject"
    with pytest.raises(StoreError, match="somebody else"):
        cast(store, vote_id, "Chi", "accept", press="p1")
    for verdict, who in (("maybe", "Chi"), ("accept", " ")):
        with pytest.raises(StoreError):
            cast(store, vote_id, who, verdict)
    assert votes.n_voted(store, vote_id, 1) == 1


def test_ballots_and_the_reveal_of_their_round_do_not_cross(store: Store) -> None:
    vote_id = votes.open_vote(store, pair_id=8, identity="Ada")
    cast(store, vote_id, "Ada", "accept")
    taken: list[str] = []

    def vote(name: str) -> None:
        try:
            cast(store, vote_id, name, "reject")
        except StoreError:
            return
        taken.append(name)

    threads = [threading.Thread(target=vote, args=(f"P{i}",)) for i in range(16)]
    for i, thread in enumerate(threads):
        thread.start()
        if i == 7:
            votes.reveal(store, vote_id=vote_id, round=1, identity="Ada")
            shown = votes.vote(store, vote_id).before
    for thread in threads:
        thread.join()
    after = votes.vote(store, vote_id).before
    assert shown is not None
    assert after is not None
    assert shown.n == after.n == 1 + len(taken)  # what was revealed stays what was revealed


def test_only_who_presents_steers_and_another_may_take_over(store: Store) -> None:
    vote_id = votes.open_vote(store, pair_id=8, identity="Ada")
    cast(store, vote_id, "Ben", "accept")
    with pytest.raises(StoreError, match=r"Ada L\. presents now"):
        votes.reveal(store, vote_id=vote_id, round=1, identity="Ben")
    with pytest.raises(StoreError, match=r"Ada L\. presents now"):
        board.show(store, identity="Ben", slide="jobs")
    with pytest.raises(StoreError, match="Take over"):
        board.present(store, identity="Ben", name="Ben", slide="jobs")
    board.present(store, identity="Ben", name="Ben", slide="jobs", take_over=True)
    assert board.board(store).phase == OPEN  # the vote goes on
    assert votes.reveal(store, vote_id=vote_id, round=1, identity="Ben").phase == REVEALED
    board.leave(store, identity="Ada")  # she does not present any more: nothing happens
    assert board.board(store).presenter == "Ben"
    assert votes.close(store, vote_id=vote_id, identity="Ben").phase == CLOSED
    assert board.leave(store, identity="Ben").presenter is None
    with pytest.raises(StoreError, match="Nobody presents"):
        board.show(store, identity="Ben", slide="jobs")
    with pytest.raises(StoreError, match="no such slide"):
        board.present(store, identity="Ben", name="Ben", slide="<b>")


def test_a_board_is_the_same_after_a_restart(store: Store, tmp_path: Path) -> None:
    vote_id = votes.open_vote(store, pair_id=8, identity="Ada")
    cast(store, vote_id, "Ben", "accept")
    votes.reveal(store, vote_id=vote_id, round=1, identity="Ada")
    board.show(store, identity="Ada", slide="pace")
    before = board.board(store)
    store.close()
    again = Store(tmp_path / "assay.duckdb")
    try:
        assert board.board(again) == before
        assert votes.votes(again)[0].before is not None
    finally:
        again.close()


def test_the_majority_becomes_one_decision_of_an_admin(store: Store) -> None:
    vote_id = votes.open_vote(store, pair_id=8, identity="Ada")
    for who, verdict in (("Ada", "reject"), ("Ben", "reject"), ("Chi", "accept")):
        cast(store, vote_id, who, verdict)
    with pytest.raises(StoreError, match="Nothing has been revealed"):
        votes.adopt(store, vote_id=vote_id, identity="Ada")
    votes.reveal(store, vote_id=vote_id, round=1, identity="Ada")
    reviewer = Actor(identity="Ada", name="Ada", role="reviewer")
    with permission.as_actor(reviewer), pytest.raises(NotAllowedError):
        votes.adopt(store, vote_id=vote_id, identity="Ada")
    before = board.board(store).event_id
    decision_id = votes.adopt(store, vote_id=vote_id, identity="Ada")
    assert votes.adopt(store, vote_id=vote_id, identity="Ada") == decision_id
    assert board.board(store).event_id > before  # so that all who look learn of it
    with store.read() as connection:
        found = rows(connection, "select * from decisions where pair_id = 8 and purpose = 'adjudication'")
        standing = rows(connection, "select verdict from current_decisions where pair_id = 8")
    assert [(row["verdict"], row["reviewer"]) for row in found] == [("reject", "Ada")]
    assert standing == [{"verdict": "reject"}]
    assert votes.vote(store, vote_id).adopted == "reject"


def test_what_an_edit_or_no_majority_gives_cannot_be_adopted(store: Store) -> None:
    for verdicts, why in (
        (("edit", "edit", "accept"), "an edit needs its text"),
        (("accept", "reject"), "more than half"),
    ):
        vote_id = votes.open_vote(store, pair_id=8, identity="Ada")
        for i, verdict in enumerate(verdicts):
            cast(store, vote_id, f"P{i}", verdict, press=f"{vote_id}-{i}")
        votes.reveal(store, vote_id=vote_id, round=1, identity="Ada")
        assert votes.adoptable(votes.vote(store, vote_id))[0] is None
        with pytest.raises(StoreError, match=why):
            votes.adopt(store, vote_id=vote_id, identity="Ada")


def test_the_pairs_that_are_proposed(store: Store) -> None:
    assert votes.next_disputed(store) is None
    for pair_id in (9, 10):
        for who, verdict in (("Ada", "accept"), ("Ben", "reject")):
            decisions.decide(store, pair_id=pair_id, reviewer=who, verdict=verdict)
    assert votes.next_disputed(store) == 9
    votes.open_vote(store, pair_id=9, identity="Ada")
    assert votes.next_disputed(store) == 10  # one vote on a pair is enough
    seen = set()
    while (found := votes.random_undecided(store)) is not None:
        votes.open_vote(store, pair_id=found, identity="Ada")
        seen.add(found)
    with store.read() as connection:
        undecided = {row["pair_id"] for row in rows(connection, "select pair_id from pairs where pair_id not in "
                     "(select pair_id from current_decisions)")}  # fmt: skip
    assert seen == undecided - {9, 10}
    with pytest.raises(StoreError, match="There is no pair 999"):
        votes.open_vote(store, pair_id=999, identity="Ada")
    assert board.board(store).phase == OPEN  # the refused one closed nothing


def test_roles_are_asked_on_the_server(store: Store) -> None:
    vote_id = votes.open_vote(store, pair_id=8, identity="Ada")
    with store.read() as connection:
        before = [tuple(row) for row in connection.execute(text("select * from board_events"))]
    with permission.as_actor(Actor(identity="Vic", name="Vic", role="viewer")):
        for act in (
            lambda: cast(store, vote_id, "Vic", "accept"),
            lambda: board.present(store, identity="Vic", name="Vic", slide="jobs", take_over=True),
            lambda: board.show(store, identity="Ada", slide="jobs"),
            lambda: votes.open_vote(store, pair_id=9, identity="Ada"),
            lambda: votes.close(store, vote_id=vote_id, identity="Ada"),
        ):
            with pytest.raises(NotAllowedError):
                act()
    with store.read() as connection:
        assert [tuple(row) for row in connection.execute(text("select * from board_events"))] == before
    assert votes.n_voted(store, vote_id, 1) == 0
