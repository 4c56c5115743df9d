"""The meeting board: who presents, which slide, which vote. Events are appended; what they add up to is kept in memory.

One process owns the store, so the state of a board is read from its events once and then follows what is written here.
"""

from __future__ import annotations

import json
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import text

from core.errors import StoreError
from db.store import Store, rows, said_plainly, scalar, utc_now

OPEN, REVEALED, CLOSED = "open", "revealed", "closed"
VOTE_SLIDE = "vote"
_LONGEST_KEY = 40

LOCK = threading.RLock()
"""Held by whoever changes a board or a vote: a ballot and the reveal of its round must not cross."""

_BOARDS: weakref.WeakKeyDictionary[Store, Board] = weakref.WeakKeyDictionary()


@dataclass(frozen=True, kw_only=True)
class Board:
    """What the board shows now. ``event_id`` is the latest event; ``phase`` that of the vote's ``round``.

    ``presenter`` is an identity, ``presenter_name`` what people read; None: nobody presents.
    """

    event_id: int = 0
    presenter: str | None = None
    presenter_name: str = ""
    slide: str = ""
    vote_id: int | None = None
    round: int = 1
    phase: str = CLOSED

    def after(self, event_id: int, kind: str, details: Mapping[str, Any], done_by: str | None) -> Board:
        """The board after one more event; a kind that this version does not know changes nothing."""
        board = replace(self, event_id=event_id)
        match kind:
            case "present":
                name = str(details.get("name") or done_by or "")
                return replace(board, presenter=done_by, presenter_name=name, slide=str(details.get("slide") or ""))
            case "leave":
                return replace(board, presenter=None, presenter_name="")
            case "show":
                return replace(board, slide=str(details.get("slide") or ""))
            case "vote":
                return replace(
                    board,
                    vote_id=int(details["vote_id"]),
                    round=int(details["round"]),
                    phase=str(details["phase"]),
                    slide=VOTE_SLIDE if details["phase"] == OPEN else board.slide,
                )
        return board


def board(store: Store) -> Board:
    """What the board shows now. Cheap: nothing is read but the first time."""
    with LOCK:
        found = _BOARDS.get(store)
        if found is None:
            found = _read(store)
            _BOARDS[store] = found
        return found


def _read(store: Store) -> Board:
    with store.read() as connection:
        events = rows(
            connection,
            "select event_id, kind, details::varchar details, done_by from board_events order by event_id",
        )
    found = Board()
    for event in events:
        found = found.after(event["event_id"], event["kind"], json.loads(event["details"]), event["done_by"])
    return found


def append(store: Store, connection: Any, kind: str, details: Mapping[str, Any], *, by: str | None) -> Board:
    """Append an event in an open transaction; the caller holds :data:`LOCK` and hands the result to :func:`keep`."""
    before = board(store)
    event_id = int(scalar(connection, "select nextval('board_event_ids')"))
    connection.execute(
        text("insert into board_events values (:event_id, :kind, :details, :at, :by)"),
        {"event_id": event_id, "kind": kind, "details": json.dumps(dict(details)), "at": utc_now(), "by": by},
    )
    return before.after(event_id, kind, details, by)


def keep(store: Store, after: Board) -> Board:
    """Remember a board whose event has been committed."""
    with LOCK:
        _BOARDS[store] = after
    return after


def _happened(store: Store, kind: str, details: Mapping[str, Any], *, by: str) -> Board:
    with LOCK:
        board(store)
        with store.write("review") as connection:
            after = append(store, connection, kind, details, by=by)
        return keep(store, after)


def only_presenter(store: Store, identity: str) -> Board:
    """The board, if this person presents.

    Raises:
        StoreError: somebody else does, or nobody.
    """
    found = board(store)
    if found.presenter == identity:
        return found
    if found.presenter is None:
        raise StoreError("Nobody presents at this moment. Press Present first; nothing was changed.")
    raise StoreError(f"{found.presenter_name} presents now. Take over first; nothing was changed.")


@said_plainly
def present(store: Store, *, identity: str, name: str, slide: str, take_over: bool = False) -> Board:
    """Begin to present, from ``slide`` on. Who presents already goes on.

    Raises:
        StoreError: somebody else presents and ``take_over`` was not said.
    """
    with LOCK:
        found = board(store)
        if found.presenter == identity:
            return found if found.slide == slide else show(store, identity=identity, slide=slide)
        if found.presenter is not None and not take_over:
            raise StoreError(f"{found.presenter_name} presents now. Take over if you agreed on it.")
        return _happened(store, "present", {"name": name, "slide": _slide(slide)}, by=identity)


@said_plainly
def leave(store: Store, *, identity: str) -> Board:
    """Stop to present. Somebody who does not present changes nothing."""
    with LOCK:
        found = board(store)
        return found if found.presenter != identity else _happened(store, "leave", {}, by=identity)


@said_plainly
def show(store: Store, *, identity: str, slide: str) -> Board:
    """Show a slide to all who follow.

    Raises:
        StoreError: this person does not present.
    """
    with LOCK:
        found = only_presenter(store, identity)
        return found if found.slide == slide else _happened(store, "show", {"slide": _slide(slide)}, by=identity)


def adopted(store: Store, *, vote_id: int, identity: str) -> Board:
    """Tell all who look that the outcome of a vote has become a decision."""
    return _happened(store, "adopted", {"vote_id": vote_id}, by=identity)


def _slide(key: str) -> str:
    if not key or len(key) > _LONGEST_KEY or not key.replace("_", "").replace("-", "").isalnum():
        raise StoreError("There is no such slide. Nothing was changed; reload the page.")
    return key
