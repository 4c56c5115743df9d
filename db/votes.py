"""Blind votes on a pair: ballots are appended, the latest of a person counts while its round is open.

What was voted leaves this module only once the round is revealed; before that, only how many have voted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from core import voting
from core.errors import StoreError
from core.voting import Tally
from db import board, decisions, permission
from db.board import CLOSED, OPEN, REVEALED, Board
from db.decisions import Entry
from db.store import Store, frame, rows, said_plainly, scalar, utc_now

ROUNDS = 2
"""Before the discussion, and after it."""


@dataclass(frozen=True)
class Vote:
    """A vote of the past. ``before`` and ``after`` are None until that round was revealed; ``change`` is of those
    who voted in both; ``adopted`` the verdict that was stored as a decision, if one was."""

    vote_id: int
    pair_id: int
    opened_at: datetime
    opened_by: str | None
    before: Tally | None
    after: Tally | None
    change: voting.Change | None
    adopted: str | None

    @property
    def last(self) -> Tally | None:
        """The latest round that was revealed; None: none was."""
        return self.after or self.before


# ---- the presenter ----


@said_plainly
def open_vote(store: Store, *, pair_id: int, identity: str) -> int:
    """Open a vote on a pair and show it to all; one that was going on is closed by it. Returns its id.

    Raises:
        StoreError: this person does not present, or there is no such pair.
    """
    with board.LOCK:
        board.only_presenter(store, identity)
        with store.write("review") as connection:
            if not scalar(connection, "select count(*) from pairs where pair_id = :id", id=pair_id):
                raise StoreError(f"There is no pair {pair_id}. No vote was opened.")
            vote_id = int(scalar(connection, "select nextval('vote_ids')"))
            connection.execute(
                text("insert into votes values (:vote, :pair, :at, :by)"),
                {"vote": vote_id, "pair": pair_id, "at": utc_now(), "by": identity},
            )
            after = _step(store, connection, vote_id, 1, OPEN, identity)
        board.keep(store, after)
    return vote_id


@said_plainly
def reveal(store: Store, *, vote_id: int, round: int, identity: str) -> Board:
    """Show what was voted in this round, and take no more ballots for it. Once more changes nothing.

    Raises:
        StoreError: this person does not present, another vote is on the board, or nobody has voted yet.
    """
    with board.LOCK:
        now = _current(store, vote_id, identity)
        if now.round != round or now.phase != OPEN:
            return now
        if not n_voted(store, vote_id, round):
            raise StoreError("Nobody has voted yet, so there is nothing to reveal.")
        return _stepped(store, vote_id, round, REVEALED, identity)


@said_plainly
def again(store: Store, *, vote_id: int, identity: str) -> Board:
    """Open the second round, after the discussion. Once more changes nothing.

    Raises:
        StoreError: this person does not present, another vote is on the board, or round 1 is not revealed yet.
    """
    with board.LOCK:
        now = _current(store, vote_id, identity)
        if now.round == ROUNDS:
            return now
        if now.phase != REVEALED:
            raise StoreError("Reveal the first round before the second begins.")
        return _stepped(store, vote_id, ROUNDS, OPEN, identity)


@said_plainly
def close(store: Store, *, vote_id: int, identity: str) -> Board:
    """End a vote. What was not revealed stays hidden for good.

    Raises:
        StoreError: this person does not present, or another vote is on the board.
    """
    with board.LOCK:
        now = _current(store, vote_id, identity)
        return now if now.phase == CLOSED else _stepped(store, vote_id, now.round, CLOSED, identity)


def _current(store: Store, vote_id: int, identity: str) -> Board:
    now = board.only_presenter(store, identity)
    if now.vote_id != vote_id:
        raise StoreError("Another vote is on the board by now. Nothing was changed; look again.")
    return now


def _step(store: Store, connection: Connection, vote_id: int, round: int, phase: str, by: str) -> Board:
    return board.append(store, connection, "vote", {"vote_id": vote_id, "round": round, "phase": phase}, by=by)


def _stepped(store: Store, vote_id: int, round: int, phase: str, by: str) -> Board:
    with store.write("review") as connection:
        after = _step(store, connection, vote_id, round, phase, by)
    return board.keep(store, after)


# ---- ballots ----


@said_plainly
def cast(store: Store, *, vote_id: int, round: int, identity: str, verdict: str, press: str) -> int:
    """Store a ballot and return its id. The same ``press`` sent twice is stored once; the latest of a person counts.

    Raises:
        StoreError: the round is not open (any more), no such verdict, or no name.
    """
    if verdict not in voting.VERDICTS:
        raise StoreError(f"{verdict!r} is not a verdict. Your vote was not stored.")
    if not identity.strip() or not press:
        raise StoreError("A vote needs the name of its voter. It was not stored.")
    with board.LOCK:
        with store.read() as connection:
            known = rows(connection, "select ballot_id, identity from ballots where press = :press", press=press)
        if known:
            if known[0]["identity"] != identity:
                raise StoreError("This press belongs to somebody else. Your vote was not stored.")
            return int(known[0]["ballot_id"])
        now = board.board(store)
        if now.vote_id != vote_id:
            raise StoreError("The vote on that pair is over. Your vote was not stored.")
        if now.round != round or now.phase != OPEN:
            raise StoreError(f"Round {round} has been revealed, so it takes no more votes. Yours was not stored.")
        with store.write("review") as connection:
            ballot_id = int(scalar(connection, "select nextval('ballot_ids')"))
            connection.execute(
                text("insert into ballots values (:id, :vote, :round, :identity, :verdict, :press, :at)"),
                {"id": ballot_id, "vote": vote_id, "round": round, "identity": identity, "verdict": verdict,
                 "press": press, "at": utc_now()},
            )  # fmt: skip
    return ballot_id


def n_voted(store: Store, vote_id: int, round: int) -> int:
    """How many people have voted in a round."""
    with store.read() as connection:
        found = scalar(
            connection,
            "select count(distinct identity) from ballots where vote_id = :vote and round = :round",
            vote=vote_id,
            round=round,
        )
    return int(found)


def own(store: Store, vote_id: int, round: int, identity: str) -> str | None:
    """What this person has voted in a round, None: nothing yet."""
    with store.read() as connection:
        found: str | None = scalar(
            connection,
            """select verdict from ballots where vote_id = :vote and round = :round and identity = :identity
            order by ballot_id desc limit 1""",
            vote=vote_id, round=round, identity=identity,
        )  # fmt: skip
    return found


# ---- results ----


def vote(store: Store, vote_id: int) -> Vote:
    """One vote with what has been revealed of it.

    Raises:
        StoreError: there is no such vote.
    """
    with store.read() as connection:
        found = rows(connection, "select * from votes where vote_id = :id", id=vote_id)
        if not found:
            raise StoreError(f"There is no vote {vote_id}.")
        return _votes(connection, found, _revealed(connection))[0]


def votes(store: Store, *, limit: int = 100) -> list[Vote]:
    """Votes of which a round was revealed, newest first."""
    with store.read() as connection:
        revealed = _revealed(connection)
        found = rows(connection, "select * from votes order by vote_id desc")
        shown = [row for row in found if row["vote_id"] in revealed][:limit]
        return _votes(connection, shown, revealed)


def _revealed(connection: Connection) -> dict[int, frozenset[int]]:
    found = rows(
        connection,
        """select (details->>'vote_id')::bigint vote_id, list(distinct (details->>'round')::bigint) rounds
        from board_events where kind = 'vote' and details->>'phase' = 'revealed' group by 1""",
    )
    return {int(row["vote_id"]): frozenset(row["rounds"]) for row in found}


def _votes(
    connection: Connection, found: Sequence[Mapping[str, Any]], revealed: Mapping[int, frozenset[int]]
) -> list[Vote]:
    ids = [row["vote_id"] for row in found]
    ballots: dict[int, dict[int, dict[str, str]]] = {
        vote_id: {number: {} for number in revealed.get(vote_id, ())} for vote_id in ids
    }
    counting = frame(
        connection,
        """select vote_id, round, identity, verdict from ballots where list_contains($ids, vote_id)
        qualify row_number() over (partition by vote_id, round, identity order by ballot_id desc) = 1""",
        {"ids": ids},
    )
    for one in counting.to_pylist():
        if one["round"] in ballots[one["vote_id"]]:
            ballots[one["vote_id"]][one["round"]][one["identity"]] = one["verdict"]
    adopted = frame(
        connection,
        "select press, verdict from standing_decisions where list_contains($presses, press)",
        {"presses": [adoption_press(vote_id) for vote_id in ids]},
    )
    verdicts = {row["press"]: row["verdict"] for row in adopted.to_pylist()}
    return [_vote(row, ballots[row["vote_id"]], adopted=verdicts.get(adoption_press(row["vote_id"]))) for row in found]


def _vote(row: Mapping[str, Any], ballots: Mapping[int, Mapping[str, str]], *, adopted: str | None) -> Vote:
    tallies = {number: voting.tally(found) for number, found in ballots.items()}
    return Vote(
        vote_id=row["vote_id"],
        pair_id=row["pair_id"],
        opened_at=row["opened_at"],
        opened_by=row["opened_by"],
        before=tallies.get(1),
        after=tallies.get(ROUNDS),
        change=voting.change(ballots[1], ballots[ROUNDS]) if {1, ROUNDS} <= ballots.keys() else None,
        adopted=adopted,
    )


# ---- the outcome as a decision ----


def adoption_press(vote_id: int) -> str:
    """The press under which the outcome of a vote is stored as a decision: once."""
    return f"vote:{vote_id}"


def adoptable(found: Vote) -> tuple[str | None, str]:
    """The verdict that an admin may store as the decision, or None; and why not, or what it rests on."""
    last = found.last
    if found.adopted:
        return None, "The outcome stands as a decision."
    if last is None:
        return None, "Nothing has been revealed yet."
    if last.majority is None:
        return None, "No verdict has more than half of the votes."
    if last.majority == "edit":
        return None, "Most want an edit, and an edit needs its text: make it on the Review page."
    return last.majority, f"{last.counts[last.majority]} of {last.n} votes"


@said_plainly
def adopt(store: Store, *, vote_id: int, identity: str) -> int:
    """Store the majority of the latest revealed round as the decision on the pair (an adjudication). Returns its id.

    Raises:
        NotAllowedError: only admins may.
        StoreError: there is no majority that can be stored, or it was refused.
    """
    permission.require("administer")
    found = vote(store, vote_id)
    if found.adopted:
        with store.read() as connection:
            press = adoption_press(vote_id)
            return int(scalar(connection, "select decision_id from decisions where press = :press", press=press))
    last, (verdict, words) = found.last, adoptable(found)
    if verdict is None or last is None:
        raise StoreError(f"{words} Nothing was stored.")
    made = decisions.apply(
        store,
        [
            Entry(
                press=adoption_press(vote_id),
                action="decide",
                pair_id=found.pair_id,
                verdict=verdict,
                note=f"Vote {vote_id} on the meeting board: {words}.",
                purpose="adjudication",
                check_seen=False,
                shown={"vote_id": vote_id, "counts": dict(last.counts)},
            )
        ],
        reviewer=identity,
    )[0]
    if made.kind == "error" or made.decision_id is None:
        raise StoreError(made.text or "The decision was refused. Nothing was stored.")
    board.adopted(store, vote_id=vote_id, identity=identity)
    return made.decision_id


# ---- which pair ----


def next_disputed(store: Store) -> int | None:
    """The first pair on which reviewers' latest verdicts differ, not settled since and not voted on; None: none."""
    with store.read() as connection:
        found: int | None = scalar(
            connection,
            """with disputed as (
                select pair_id from reviewer_decisions group by pair_id
                having count(distinct (verdict, coalesce(result_id, -1))) > 1)
            select min(pair_id) from disputed where pair_id not in (select pair_id from votes)
                and pair_id not in (select pair_id from standing_decisions where purpose in ('adjudication', 'bulk'))
            """,
        )
    return found


def random_undecided(store: Store) -> int | None:
    """Some pair without a decision that was not voted on; None: there is none."""
    with store.read() as connection:
        found: int | None = scalar(
            connection,
            """select pair_id from pairs where pair_id not in (select pair_id from current_decisions)
                and pair_id not in (select pair_id from votes) order by random() limit 1""",
        )
    return found
