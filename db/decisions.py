"""Decisions: appended, never changed. An undo is one more row, so history comes for free and appends never conflict."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from core.errors import StoreError
from core.example import Example
from db import schema
from db.commands import add_examples
from db.store import Store, rows, said_plainly, scalar, utc_now


@said_plainly
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
    """Append one decision and return its id. When this returns, the decision is on the disk.

    ``press`` is a unique name of the key press: sent twice (a reconnect, a double click) it is stored once and the
    first id is returned. ``edited`` is the example of an ``edit`` verdict. ``shown`` are the scores that were seen.

    Raises:
        StoreError: unknown verdict or pair, no reviewer, or an edit without text.
    """
    if verdict not in (*schema.VERDICTS_DECIDED, "skip", "flag", "unflag"):
        raise StoreError(f"{verdict!r} is not a verdict. Nothing was stored.")
    if not reviewer.strip():
        raise StoreError("A decision needs the name of its reviewer. Nothing was stored.")
    if (verdict == "edit") != (edited is not None):
        raise StoreError("An edit needs its text, and only an edit has one. Nothing was stored.")
    if edited is not None and not (edited.instruction.strip() or edited.input.strip()):
        raise StoreError("The edited instruction is empty. Nothing was stored; write one or reject the pair.")
    press_id = press or uuid.uuid4().hex
    with store.read() as connection:
        known = scalar(connection, "select decision_id from decisions where press = :press", press=press_id)
        if known is not None:
            return int(known)
        pair = rows(
            connection,
            """select o.instruction oi, o.input oc, o.output oy,
                c.instruction ci, c.input cc, c.output cy, p.candidate_id
            from pairs p join examples o on o.example_id = p.original_id
            join examples c on c.example_id = p.candidate_id where p.pair_id = :id""",
            id=pair_id,
        )
    if not pair:
        raise StoreError(f"Pair {pair_id} is not in the store any more. Nothing was stored; reload the queue.")
    texts = pair[0]
    mixed = {
        "new_instruction": Example(texts["ci"], texts["cc"], texts["oy"]),
        "new_response": Example(texts["oi"], texts["oc"], texts["cy"]),
        "edit": edited,
    }.get(verdict)
    result_id = texts["candidate_id"] if verdict == "accept" else None
    if mixed is not None:
        with store.adding_examples() as connection:
            result_id = add_examples(connection, [mixed])[mixed.hash]
    values = {
        "pair_id": pair_id,
        "reviewer": reviewer.strip(),
        "verdict": verdict,
        "result_id": result_id,
        "note": (note or "").strip() or None,
        "seconds": seconds,
        "shown": json.dumps(dict(shown or {}), sort_keys=True),
        "undoes": None,
        "press": press_id,
    }
    return _append_decision(store, values)


def _append_decision(store: Store, values: Mapping[str, Any]) -> int:
    try:
        with store.write() as connection:
            decision_id = int(scalar(connection, "select nextval('decision_ids')"))
            connection.execute(
                text(
                    """insert into decisions (decision_id, pair_id, reviewer, verdict, result_id, note, seconds,
                    shown, undoes, press, decided_at) values (:decision_id, :pair_id, :reviewer, :verdict, :result_id,
                    :note, :seconds, :shown, :undoes, :press, :decided_at)"""
                ),
                {**values, "decision_id": decision_id, "decided_at": utc_now()},
            )
    except SQLAlchemyError:
        with store.read() as connection:
            known = scalar(connection, "select decision_id from decisions where press = :p", p=values["press"])
        if known is not None:
            return int(known)
        raise
    return decision_id


@said_plainly
def undo(store: Store, *, reviewer: str, press: str | None = None) -> dict[str, Any] | None:
    """Take back the latest standing decision of ``reviewer`` by appending an undo.

    Returns the decision that no longer stands (``decision_id, pair_id, verdict``), or None if there is none left.
    """
    with store.read() as connection:
        sent_before = scalar(connection, "select undoes from decisions where press = :press", press=press)
        if sent_before is not None:
            return rows(
                connection, "select decision_id, pair_id, verdict from decisions where decision_id = :i", i=sent_before
            )[0]
        last = rows(
            connection,
            """select decision_id, pair_id, verdict from standing_decisions where reviewer = :reviewer
            order by decision_id desc limit 1""",
            reviewer=reviewer.strip(),
        )
    if not last:
        return None
    decision = last[0]
    _append_decision(
        store,
        {
            "pair_id": decision["pair_id"],
            "reviewer": reviewer.strip(),
            "verdict": "undo",
            "result_id": None,
            "note": None,
            "seconds": None,
            "shown": "{}",
            "undoes": decision["decision_id"],
            "press": press or uuid.uuid4().hex,
        },
    )
    return decision
