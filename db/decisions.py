"""Decisions: appended, never changed. An undo is one more row, so history comes for free and appends never conflict."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from core.errors import StoreError
from core.example import Example
from db import blind, permission, schema
from db.store import Store, frame, said_plainly, utc_now

VERDICT_WORDS: Mapping[str, str] = {
    "accept": "accepted",
    "edit": "edited and accepted",
    "reject": "rejected",
    "new_instruction": "took the new instruction with the old response",
    "new_response": "took the old instruction with the new response",
    "skip": "skipped",
    "flag": "flagged",
    "unflag": "removed the flag",
    "undo": "took back a decision",
}
STANDING_PURPOSES = ("review", "adjudication", "bulk")
"""Purposes of decisions that say what becomes of a pair; a blind second look says only how sure its reviewer is."""
_RECENT = 400


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One press to store. ``press`` is its unique name: sent twice (a resend, a double click) it is stored once.

    ``action``: decide, flag, unflag or undo. ``seen`` is the decision that stood when the pair was served (None: none
    did); with ``check_seen`` a decision that somebody else made since then refuses this one. ``undoes`` is the press
    that an undo takes back; None takes back the reviewer's latest standing row of this ``purpose`` and campaign ("" as
    purpose: of any). ``shown`` is what was on screen.
    """

    press: str
    action: str
    pair_id: int | None
    verdict: str = ""
    note: str = ""
    seconds: float | None = None
    edited: Example | None = None
    seen: int | None = None
    undoes: str | None = None
    purpose: str = "review"
    campaign_id: int | None = None
    bulk_id: int | None = None
    shown: Mapping[str, Any] = field(default_factory=dict)
    check_seen: bool = True

    @property
    def said(self) -> str:
        """The verdict that its row carries."""
        return self.verdict if self.action == "decide" else self.action


@dataclass(frozen=True)
class Applied:
    """What became of an entry. ``kind``: ok, info (nothing to do) or error (refused for good, nothing stored).

    ``known``: it had been stored before, alike. ``verdict`` is what stands in the row, of an undo what was taken back;
    ``undone`` is the decision that an undo took back. ``was_decided``: a decision stood on the pair beside this one.
    """

    press: str
    kind: str
    text: str
    pair_id: int | None
    decision_id: int | None
    known: bool = False
    verdict: str = ""
    undone: int | None = None
    was_decided: bool = False


Guard = Callable[[Connection, Entry], str | None]
"""Asked before each decision of a batch is stored, in its transaction: a sentence refuses it."""


def standing(events: Sequence[Mapping[str, Any]], *, reviewer: str | None = None) -> Mapping[str, Any] | None:
    """The latest decision among all rows of one pair that nothing took back; with ``reviewer`` that person's.

    In a campaign with overlap it stands as one voice: whether the pair is decided says ``current_decisions``.
    """
    undone = {event["undoes"] for event in events if event["undoes"] is not None}
    found = [
        event
        for event in events
        if event["verdict"] in schema.VERDICTS_DECIDED
        and event["decision_id"] not in undone
        and event["purpose"] in STANDING_PURPOSES
        and reviewer in (None, event["reviewer"])
    ]
    return max(found, key=lambda event: event["decision_id"], default=None)


_EVENT = "decision_id, pair_id, reviewer, verdict, undoes, purpose, campaign_id, press"


def events_of(
    connection: Connection, pair_ids: Sequence[int], *, columns: str = _EVENT
) -> dict[int, list[dict[str, Any]]]:
    """All rows of these pairs in their order, the key columns if not told which (a view would scan all rows)."""
    found: dict[int, list[dict[str, Any]]] = {pair_id: [] for pair_id in pair_ids}
    if found:
        sql = f"select {columns} from decisions where pair_id in (select unnest($ids::bigint[])) order by decision_id"
        for row in frame(connection, sql, {"ids": list(found)}).to_pylist():
            found[row["pair_id"]].append(row)
    return found


def pairs_of_press(store: Store, press: str) -> list[int]:
    """The pairs of a press that gave one verdict to several (its rows are named ``press:pair``), in their order."""
    with store.read() as connection:
        sql = """select pair_id from decisions where starts_with(press, $press) and verdict <> 'undo'
            order by decision_id"""
        return frame(connection, sql, {"press": f"{press}:"})["pair_id"].to_pylist()


@said_plainly
def apply(store: Store, entries: Sequence[Entry], *, reviewer: str, guard: Guard | None = None) -> list[Applied]:
    """Store entries in their order, in one transaction; when this returns, they are on the disk.

    An entry that makes no sense (an unknown pair, an empty edit, a pair that somebody decided since it was served, what
    ``guard`` refuses) is answered by ``kind="error"`` and a sentence; the others are stored. Where a press collides
    with the same press in another transaction, the entries are stored one by one.

    Raises:
        StoreError: no reviewer, or the store failed: then nothing of the last transaction is stored.
        NotAllowedError: the role of who acts does not allow it.
    """
    name = reviewer.strip()
    if not name:
        raise StoreError("A decision needs the name of its reviewer. Nothing was stored.")
    if not entries:
        return []
    try:
        return _transaction(store, entries, name, guard)
    except (SQLAlchemyError, duckdb.Error) as error:
        cause = getattr(error, "orig", None) or error
        if not isinstance(cause, duckdb.ConstraintException | duckdb.TransactionException):
            raise
    return [_alone(store, entry, name, guard) for entry in entries]


def _alone(store: Store, entry: Entry, reviewer: str, guard: Guard | None) -> Applied:
    try:
        return _transaction(store, [entry], reviewer, guard)[0]
    except (SQLAlchemyError, duckdb.Error):
        return _transaction(store, [entry], reviewer, guard)[0]  # what collided is stored now, and so known


def _transaction(store: Store, entries: Sequence[Entry], reviewer: str, guard: Guard | None) -> list[Applied]:
    adds = any(entry.said in ("edit", "new_instruction", "new_response") for entry in entries)
    with store.adding_examples("review") if adds else store.write("review") as connection:
        batch = _Batch(connection, entries, reviewer, guard)
        return [batch.carry_out(entry) for entry in entries]


class _Refused(Exception):  # noqa: N818 - the answer to one entry, not a fault
    """An entry is refused; its sentence is the answer."""


class _Batch:
    """The entries of one transaction: what they need is read at once, by key; each is stored before the next."""

    def __init__(self, connection: Connection, entries: Sequence[Entry], reviewer: str, guard: Guard | None) -> None:
        self.connection, self.reviewer, self.guard = connection, reviewer, guard
        raw = connection.connection.driver_connection
        assert raw is not None
        self.raw = raw
        asked = {one for entry in entries for one in (entry.press, entry.undoes) if one is not None}
        sql = f"select {_EVENT} from decisions where press in (select unnest($presses::varchar[]))"
        self.presses = {row["press"]: row for row in self._rows(sql, presses=list(asked))}
        pair_ids = {entry.pair_id for entry in entries if entry.pair_id is not None}
        pair_ids |= {row["pair_id"] for row in self.presses.values()}
        self.events = events_of(connection, list(pair_ids))
        sql = "select pair_id, original_id, candidate_id from pairs where pair_id in (select unnest($ids::bigint[]))"
        self.pairs = {row["pair_id"]: row for row in self._rows(sql, ids=list(pair_ids))}

    def _rows(self, sql: str, **parameters: Any) -> list[dict[str, Any]]:
        return frame(self.connection, sql, parameters).to_pylist()

    def carry_out(self, entry: Entry) -> Applied:
        known = self.presses.get(entry.press)
        if known is not None:
            return self._known(entry, known)
        try:
            return self._undo(entry) if entry.action == "undo" else self._decide(entry)
        except _Refused as refusal:
            return Applied(entry.press, "error", str(refusal), entry.pair_id, None)

    def _known(self, entry: Entry, row: Mapping[str, Any]) -> Applied:
        if row["reviewer"] != self.reviewer:
            return Applied(entry.press, "error", "This press belongs to somebody else.", entry.pair_id, None)
        pair_id, verdict, undone = row["pair_id"], row["verdict"], row["undoes"]
        alike = {entry.said, "accept"} if entry.said == "edit" else {entry.said}  # an edit that changed nothing
        if verdict not in alike or (entry.action != "undo" and pair_id != entry.pair_id):
            text = (
                f"This press was stored before, for pair {pair_id}: {VERDICT_WORDS[verdict]}. Nothing further was "
                "stored; press again if you think otherwise."
            )
            return Applied(entry.press, "error", text, entry.pair_id, None)
        if undone is not None:
            taken = self._rows("select verdict from decisions where decision_id = $id", id=undone)
            verdict = taken[0]["verdict"]
        return self._answer(entry, "ok", pair_id, row["decision_id"], verdict, known=True, undone=undone)

    @staticmethod
    def _answer(entry: Entry, kind: str, pair_id: int, decision_id: int | None, verdict: str, **more: Any) -> Applied:
        words = f"{'taken back: ' if entry.action == 'undo' else ''}{VERDICT_WORDS[verdict]}"
        return Applied(entry.press, kind, f"Pair {pair_id}: {words}.", pair_id, decision_id, verdict=verdict, **more)

    # ---- a decision, a flag ----

    def _decide(self, entry: Entry) -> Applied:
        if entry.said not in (*schema.VERDICTS_DECIDED, "skip", "flag", "unflag"):
            raise _Refused(f"{entry.said!r} is not a verdict. Nothing was stored.")
        if (entry.said == "edit") != (entry.edited is not None):
            raise _Refused("An edit needs its text, and only an edit has one. Nothing was stored.")
        if entry.edited is not None and not (entry.edited.instruction.strip() or entry.edited.input.strip()):
            raise _Refused("The edited instruction is empty. Nothing was stored; write one or reject the pair.")
        pair = self.pairs.get(entry.pair_id or 0)
        if pair is None:
            raise _Refused(f"Pair {entry.pair_id} is not in the store any more. Nothing was stored; reload the queue.")
        pair_id = int(pair["pair_id"])
        before = standing(self.events[pair_id])
        if entry.check_seen and entry.action == "decide":
            self._refuse_if_changed(entry, pair_id, before)
        if self.guard and entry.action == "decide" and (said_no := self.guard(self.connection, entry)):
            raise _Refused(said_no)
        verdict, result_id = self._result(entry, pair)
        row = self._append(entry, pair_id, verdict, result_id=result_id)
        return self._answer(entry, "ok", pair_id, row["decision_id"], verdict, was_decided=before is not None)

    def _refuse_if_changed(self, entry: Entry, pair_id: int, now: Mapping[str, Any] | None) -> None:
        taken_back = {event["undoes"] for event in self.events[pair_id] if event["reviewer"] != self.reviewer} - {None}
        if now is not None and now["decision_id"] != entry.seen and now["reviewer"] != self.reviewer:
            hidden = blind.viewer_of(permission.acting()) and blind.pairs_among(self.connection, [pair_id])
            said = "somebody decided it" if hidden else f"{now['reviewer']} {VERDICT_WORDS[now['verdict']]}"
        elif now is None and entry.seen in taken_back:
            said = "it was taken back"
        else:
            return
        raise _Refused(
            f"The decision on pair {pair_id} changed while you had it on screen: {said}. Nothing was stored; "
            "look again and press again if you still think so."
        )

    def _result(self, entry: Entry, pair: Mapping[str, Any]) -> tuple[str, int | None]:
        """The verdict to store and the example it keeps. An edit that changes nothing is an acceptance."""
        if entry.said == "accept":
            return "accept", pair["candidate_id"]
        if entry.said not in ("edit", "new_instruction", "new_response"):
            return entry.said, None
        original, candidate = (self._example(pair[name]) for name in ("original_id", "candidate_id"))
        match entry.said:
            case "new_instruction":
                mixed = Example(candidate.instruction, candidate.input, original.output)
            case "new_response":
                mixed = Example(original.instruction, original.input, candidate.output)
            case _:
                assert entry.edited is not None
                mixed = entry.edited
        if entry.said == "edit" and mixed == candidate:
            return "accept", pair["candidate_id"]
        return entry.said, self._stored_example(mixed)

    def _example(self, example_id: int) -> Example:
        sql = "select instruction, input, output from examples where example_id = $id"
        return Example(**self._rows(sql, id=example_id)[0])

    def _stored_example(self, example: Example) -> int:
        """By key: the set-wise way of db.commands reads all hashes of the store, for one row."""
        found = self._rows("select example_id from examples where hash = $hash", hash=example.hash)
        if found:
            return int(found[0]["example_id"])
        example_id = int(self.raw.execute("select nextval('example_ids')").fetchall()[0][0])
        self.raw.execute(
            "insert into examples values ($1, $2, $3, $4, $5)",
            [example_id, example.hash, example.instruction, example.input, example.output],
        ).fetchall()
        return example_id

    # ---- undo ----

    def _undo(self, entry: Entry) -> Applied:
        target = self._latest(entry) if entry.undoes is None else self._named(entry.undoes)
        if target is None:
            text = f"There is nothing left to undo: no decision of {self.reviewer} stands."
            return Applied(entry.press, "info", text, None, None)
        if target["reviewer"] != self.reviewer:
            raise _Refused(f"That decision is {target['reviewer']}'s; only they can take it back. Nothing was stored.")
        if any(event["undoes"] == target["decision_id"] for event in self.events[target["pair_id"]]):
            text = f"Pair {target['pair_id']}: this was taken back before."
            return Applied(entry.press, "info", text, target["pair_id"], None, verdict=target["verdict"])
        row = self._append(entry, target["pair_id"], "undo", takes_back=target)
        return self._answer(
            entry, "ok", target["pair_id"], row["decision_id"], target["verdict"], undone=target["decision_id"],
            was_decided=standing(self.events[target["pair_id"]]) is not None,
        )  # fmt: skip

    def _named(self, press: str) -> Mapping[str, Any]:
        found = self.presses.get(press)
        if found is None or found["verdict"] == "undo":
            raise _Refused("What this would take back was never stored, so there is nothing to undo.")
        return found

    def _latest(self, entry: Entry) -> Mapping[str, Any] | None:
        for most in (_RECENT, 2**31):
            sql = f"""select {_EVENT} from decisions where reviewer = $reviewer and bulk_id is null
                order by decision_id desc limit {most}"""
            found = self._rows(sql, reviewer=self.reviewer)
            undone = {row["undoes"] for row in found}
            for row in found:
                scope = (row["purpose"], row["campaign_id"])
                of_scope = not entry.purpose or scope == (entry.purpose, entry.campaign_id)
                if row["verdict"] != "undo" and row["decision_id"] not in undone and of_scope:
                    self.events |= events_of(self.connection, [row["pair_id"]])
                    return row
            if len(found) < most:
                break
        return None

    # ---- the row ----

    def _append(
        self,
        entry: Entry,
        pair_id: int,
        verdict: str,
        *,
        result_id: int | None = None,
        takes_back: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        of = takes_back or {"purpose": entry.purpose or "review", "campaign_id": entry.campaign_id}
        row = {
            "decision_id": int(self.raw.execute("select nextval('decision_ids')").fetchall()[0][0]),
            "pair_id": pair_id, "reviewer": self.reviewer, "verdict": verdict, "purpose": of["purpose"],
            "campaign_id": of["campaign_id"], "undoes": takes_back and takes_back["decision_id"], "press": entry.press,
        }  # fmt: skip
        values = {
            **row, "result_id": result_id, "note": entry.note.strip() or None, "seconds": entry.seconds,
            "shown": json.dumps(dict(entry.shown), sort_keys=True), "decided_at": utc_now(), "bulk_id": entry.bulk_id,
        }  # fmt: skip
        columns = list(values)
        self.raw.execute(
            f"insert into decisions ({', '.join(columns)}) values ({', '.join(f'${name}' for name in columns)})", values
        ).fetchall()
        self.presses[entry.press] = row
        self.events.setdefault(pair_id, []).append(row)
        return row


def decide(
    store: Store,
    *,
    pair_id: int,
    reviewer: str,
    verdict: str,
    press: str | None = None,
    edited: Example | None = None,
    note: str | None = None,
    seconds: float | None = None,
    shown: Mapping[str, Any] | None = None,
) -> int:
    """Append one decision or flag and return its id, whoever decided the pair before. As :func:`apply`, of one entry.

    Raises:
        StoreError: unknown verdict or pair, no reviewer, or an edit without text.
    """
    entry = Entry(
        press=press or uuid.uuid4().hex, action="decide", pair_id=pair_id, verdict=verdict, note=note or "",
        seconds=seconds, edited=edited, shown=shown or {}, check_seen=False,
    )  # fmt: skip
    applied = apply(store, [entry], reviewer=reviewer)[0]
    if applied.kind == "error" or applied.decision_id is None:
        raise StoreError(applied.text)
    return applied.decision_id


def undo(store: Store, *, reviewer: str, press: str | None = None) -> dict[str, Any] | None:
    """Take back the latest standing decision of ``reviewer`` by appending an undo.

    Returns the decision that no longer stands (``decision_id, pair_id, verdict``), or None if there is none left.
    """
    entry = Entry(press=press or uuid.uuid4().hex, action="undo", pair_id=None, purpose="")
    applied = apply(store, [entry], reviewer=reviewer)[0]
    if applied.undone is None:
        return None
    return {"decision_id": applied.undone, "pair_id": applied.pair_id, "verdict": applied.verdict}
