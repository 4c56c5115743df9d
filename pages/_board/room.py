"""What a meeting is told, many times a second by many browsers: who presents what, and how the vote stands.

Nothing here draws, and nothing here reads more than a few rows: slides are built elsewhere, once for all.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from core import board_words as words
from core.charts.review import VERDICT_LABELS
from core.errors import NotAllowedError, StoreError
from core.review_diff import word_diff
from core.voting import Tally
from db import board, review, votes
from db.board import CLOSED, OPEN, VOTE_SLIDE, Board
from db.permission import Actor
from db.service import Service
from db.store import Store
from pages import _board_live
from pages._board_slides import BY_KEY

HERE_SECONDS = 8.0
"""Who did not ask for so long is gone."""
AWAY_SECONDS = 20.0
MOST_HERE = 500
MODES = ("", "present", "follow")
_FIELDS = (("instruction", "Instruction"), ("input", "Input"), ("output", "Response"))


@dataclass
class _Seen:
    identity: str
    may_vote: bool
    mode: str
    at: float


@dataclass
class _Room:
    """Who is here, by browser session; what a revealed vote said, by event."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    seen: dict[str, _Seen] = field(default_factory=dict)
    presenter_seen: dict[str, float] = field(default_factory=dict)
    results: dict[int, dict[str, Any]] = field(default_factory=dict)


_ROOMS: weakref.WeakKeyDictionary[Store, _Room] = weakref.WeakKeyDictionary()
_LOCK = threading.Lock()


def _room(store: Store) -> _Room:
    with _LOCK:
        return _ROOMS.setdefault(store, _Room())


def _come(room: _Room, actor: Actor, session: str, mode: str) -> tuple[int, int]:
    """Note that a session asked; returns how many people are in the meeting, and how many of them may vote."""
    now = time.monotonic()
    with room.lock:
        room.seen[session] = _Seen(actor.identity, actor.may("review"), mode, now)
        for gone in [key for key, one in room.seen.items() if now - one.at > HERE_SECONDS]:
            del room.seen[gone]
        while len(room.seen) > MOST_HERE:
            del room.seen[next(iter(room.seen))]
        if mode == "present":
            room.presenter_seen[actor.identity] = now
        there = [one for one in room.seen.values() if one.mode]
        # The presenter's screen shows no ballot: who presents votes on a second device that follows.
        voters = {one.identity for one in there if one.may_vote and one.mode == "follow"}
        return len({one.identity for one in there}), len(voters)


def state(
    service: Service, actor: Actor, *, session: str, mode: str, slide: str, knows: int | None = None
) -> dict[str, Any]:
    """Everything that a browser needs to know each second. ``slide`` is what it shows now.

    ``knows`` is the vote whose pair the browser has already: texts may be long, so they travel once.
    """
    store = service.store
    room = _room(store)
    here, voters = _come(room, actor, session, mode)
    now = board.board(store)
    kinds = _board_live.present(service)
    known = slide in BY_KEY
    return {
        "event": now.event_id,
        "presenter": _presenter(room, now, actor),
        "slide": now.slide,
        "here": here,
        "voters": voters,
        "kinds": [[kind.key, kind.title] for kind in kinds],
        "version": _board_live.version(service, slide) if known else "",
        "vote": _vote(store, room, now, actor, knows),
    }


def _presenter(room: _Room, now: Board, actor: Actor) -> dict[str, Any] | None:
    if now.presenter is None:
        return None
    seen = room.presenter_seen.get(now.presenter)
    away = seen is None or time.monotonic() - seen > AWAY_SECONDS
    return {"name": now.presenter_name, "mine": now.presenter == actor.identity, "away": away}


def _vote(store: Store, room: _Room, now: Board, actor: Actor, knows: int | None) -> dict[str, Any] | None:
    if now.vote_id is None or now.phase == CLOSED:
        return None
    found = room.results.get(now.event_id)
    if found is None:
        found = _results(store, now)
        with room.lock:
            room.results = {now.event_id: found}
    live = now.phase == OPEN
    adopt = found["adopt"] if actor.may("administer") else None
    return {
        **found,
        "pair": None if knows == now.vote_id else found["pair"],
        "round": now.round,
        "phase": now.phase,
        "n_voted": votes.n_voted(store, now.vote_id, now.round) if live else None,
        "mine": votes.own(store, now.vote_id, now.round, actor.identity) if live else None,
        "adopt": adopt,
    }


def _results(store: Store, now: Board) -> dict[str, Any]:
    """What does not change until the next event: the pair, and the rounds that have been revealed."""
    assert now.vote_id is not None
    found = votes.vote(store, now.vote_id)
    verdict, why = votes.adoptable(found)
    return {
        "vote_id": found.vote_id,
        "pair_id": found.pair_id,
        "pair": pair_view(review.pair(store, found.pair_id)),
        "rounds": [
            _tally(number, tally) for number, tally in ((1, found.before), (2, found.after)) if tally is not None
        ],
        "change": words.change_words(found.change) if found.change is not None else "",
        "adopt": {"verdict": verdict and VERDICT_LABELS[verdict], "why": why},
        "adopted": VERDICT_LABELS[found.adopted] if found.adopted else "",
    }


def _tally(number: int, one: Tally) -> dict[str, Any]:
    return {
        "round": number,
        "n": one.n,
        "counts": [[verdict, VERDICT_LABELS[verdict], n] for verdict, n in one.counts.items()],
        "words": words.tally_words(one),
    }


def pair_view(pair: Mapping[str, Any]) -> dict[str, Any]:
    """A pair as voters see it: both texts with their changes marked. No proposal, no history: the vote is blind."""
    fields = []
    for name, label in _FIELDS:
        original, reflected = str(pair[f"o_{name}"]), str(pair[f"c_{name}"])
        if name == "input" and not original and not reflected:
            continue
        diff = word_diff(original, reflected)
        fields.append(
            {
                "label": label,
                "same": diff.state == "same",
                "original": [[int(one.changed), one.text] for one in diff.original],
                "reflected": [[int(one.changed), one.text] for one in diff.reflected],
            }
        )
    asked = any(pair[f"o_{name}"] != pair[f"c_{name}"] for name in ("instruction", "input"))
    mixes = asked and pair["o_output"] != pair["c_output"]
    verdicts = ("accept", "reject", "edit", *(("new_instruction", "new_response") if mixes else ()))
    return {
        "fields": fields,
        "about": f"{pair['dataset']} · {pair['stage']} stage",
        "choices": [[verdict, _CHOICE_WORDS[verdict]] for verdict in verdicts],
    }


_CHOICE_WORDS: Mapping[str, str] = {
    "accept": "✓ Accept",
    "reject": "✗ Reject",
    "edit": "✎ Accept after an edit",
    "new_instruction": "½ New instruction, old response",
    "new_response": "½ Old instruction, new response",
}


# ---- what a press does ----


def do(service: Service, actor: Actor, sent: Mapping[str, Any]) -> str:
    """Carry out one action of the presenter or of a voter; returns a sentence to show, or "".

    Raises:
        NotAllowedError: the role does not allow it.
        StoreError: it was refused; the sentence says why.
    """
    store, me = service.store, actor.identity
    if not actor.may("review"):
        raise NotAllowedError(
            f"{actor.name} has the role {actor.role}: looking on and following, but neither presenting nor voting. Ask "
            "an admin for the role reviewer."
        )
    vote_id = _number(sent, "vote_id")
    match sent.get("action"):
        case "present":
            slide, take_over = str(sent.get("slide") or VOTE_SLIDE), bool(sent.get("take_over"))
            board.present(store, identity=me, name=actor.name, slide=slide, take_over=take_over or _is_away(store))
        case "leave":
            board.leave(store, identity=me)
        case "show":
            board.show(store, identity=me, slide=str(sent.get("slide") or ""))
        case "open":
            votes.open_vote(store, pair_id=_wanted_pair(store, sent), identity=me)
        case "reveal":
            votes.reveal(store, vote_id=vote_id, round=_number(sent, "round"), identity=me)
        case "again":
            votes.again(store, vote_id=vote_id, identity=me)
        case "close":
            votes.close(store, vote_id=vote_id, identity=me)
        case "adopt":
            votes.adopt(store, vote_id=vote_id, identity=me)
            return "Stored as the decision on this pair."
        case "ballot":
            votes.cast(
                store,
                vote_id=vote_id,
                round=_number(sent, "round"),
                identity=me,
                verdict=str(sent.get("verdict") or ""),
                press=str(sent.get("press") or "")[:64],
            )
        case _:
            raise StoreError("That is nothing that can be done here. Nothing was stored; reload the page.")
    return ""


def _is_away(store: Store) -> bool:
    """Whether who presents has not been seen for a while: then nobody needs to take over from anybody."""
    now, room = board.board(store), _room(store)
    return now.presenter is None or time.monotonic() - room.presenter_seen.get(now.presenter, -1e9) > AWAY_SECONDS


def _number(sent: Mapping[str, Any], name: str) -> int:
    value = sent.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else -1


def _wanted_pair(store: Store, sent: Mapping[str, Any]) -> int:
    match sent.get("how"):
        case "disputed":
            found = votes.next_disputed(store)
            if found is None:
                raise StoreError("No pair is disputed that was not voted on or settled already. Take a random one.")
            return found
        case "random":
            found = votes.random_undecided(store)
            if found is None:
                raise StoreError("Every pair is decided or was voted on already. Name one by its number.")
            return found
    return _number(sent, "pair_id")
