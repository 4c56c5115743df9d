"""People as judges: which items are next, their verdicts, and taking one back. Rows are appended, never changed.

A person sees an item once, in one order that chance fixed, and no names. What is stored is the preference among the
answer *sets*: :func:`core.judging.preference_of_choice` translates what was pressed.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from core.errors import StoreError
from db import comparisons
from db.comparisons import JudgeIdentity
from db.store import Store, rows, said_plainly, scalar, utc_now


def person(name: str) -> JudgeIdentity:
    """The judge that a person is.

    Raises:
        StoreError: the name is empty.
    """
    clean = name.strip()
    if not clean:
        raise StoreError("A verdict needs the name of the person who gives it. Nothing was stored.")
    return JudgeIdentity(identity=f"person:{clean}", kind=comparisons.PERSON, name=clean)


@said_plainly
def ensure_person(store: Store, name: str) -> int:
    """The id of a person as a judge, who is put into the store where need be.

    Raises:
        StoreError: the name is empty.
    """
    with store.write("review") as connection:
        return comparisons.ensure_judge(connection, person(name))


def _judge_id(connection: Connection, reviewer: str) -> int | None:
    found = scalar(
        connection, "select judge_id from judges where identity = :identity", identity=person(reviewer).identity
    )
    return None if found is None else int(found)


def next_items(
    store: Store, comparison_id: int, reviewer: str, *, limit: int = 1, seed: int = 0
) -> list[dict[str, Any]]:
    """The items that this person is to judge next: ``item_id, instruction, input, swapped, shown_first, shown_second``.

    Blind: no name of an answer set is among them. Order and side follow from ``seed`` and the person's name, so that
    they are the same after a reload and other people's differ. Items without both answers are left out.
    """
    with store.read() as connection:
        return rows(
            connection,
            f"""select item_id, instruction, input, swapped,
                case when swapped then answer_second else answer_first end shown_first,
                case when swapped then answer_first else answer_second end shown_second
            from (
                select f.item_id, e.instruction, e.input, f.answer answer_first, s.answer answer_second,
                    md5(:who || '/side/' || f.item_id) < '8' swapped
                from comparisons c join answers f on f.answer_set_id = c.first_id and f.answer is not null
                    join answers s on s.answer_set_id = c.second_id and s.item_id = f.item_id and s.answer is not null
                    join examples e on e.example_id = f.item_id
                where c.comparison_id = :comparison and f.item_id not in (
                    select item_id from current_judgements where comparison_id = :comparison and judge_id = :judge))
            order by md5(:who || '/place/' || item_id) limit {int(limit)}""",
            comparison=comparison_id,
            judge=_judge_id(connection, reviewer) or -1,
            who=f"{seed}:{person(reviewer).name}",
        )


def progress(store: Store, comparison_id: int, reviewer: str) -> dict[str, int]:
    """How far a person is: ``n_items`` that have both answers, ``n_judged`` of them."""
    with store.read() as connection:
        n_items = scalar(
            connection,
            """select count(*) from comparisons c
                join answers f on f.answer_set_id = c.first_id and f.answer is not null
                join answers s on s.answer_set_id = c.second_id and s.item_id = f.item_id and s.answer is not null
            where c.comparison_id = :id""",
            id=comparison_id,
        )
        n_judged = scalar(
            connection,
            """select count(distinct item_id) from current_judgements
            where comparison_id = :id and judge_id = :judge""",
            id=comparison_id,
            judge=_judge_id(connection, reviewer) or -1,
        )
    return {"n_items": int(n_items), "n_judged": int(n_judged)}


@said_plainly
def judge_item(
    store: Store,
    *,
    comparison_id: int,
    reviewer: str,
    item_id: int,
    swapped: bool,
    preference: int,
    seconds: float | None = None,
    press: str | None = None,
) -> int:
    """Append one person's verdict on an item and return its id. When this returns, it is on the disk.

    ``preference``: 1 the first answer *set's* answer is better, -1 the second's, 0 neither. ``swapped``: the second
    set's was shown first. ``press`` is a unique name of the key press: sent twice it is stored once and the first id is
    returned. A second verdict on an item takes the place of the first one, which stays in the history.

    Raises:
        StoreError: the preference is none, the name is empty, or the comparison has no such item with both answers.
    """
    if preference not in (-1, 0, 1):
        raise StoreError(f"{preference!r} is no preference. Nothing was stored.")
    press_id = press or uuid.uuid4().hex
    known = _sent_before(store, press_id)
    if known is not None:
        return known
    texts = comparisons.item_texts(store, comparison_id, item_id)
    if texts["answer_first"] is None or texts["answer_second"] is None:
        raise StoreError(f"Item {item_id} lacks an answer, so there is nothing to compare. Nothing was stored.")
    values = {
        "comparison": comparison_id,
        "judge": ensure_person(store, reviewer),
        "item": item_id,
        "swapped": swapped,
        "preference": preference,
        "outcome": "parsed",
        "reason": None,
        "seconds": seconds,
        "press": press_id,
        "undoes": None,
    }
    return _append(store, values)


@said_plainly
def undo_judgement(
    store: Store, *, comparison_id: int, reviewer: str, press: str | None = None
) -> dict[str, Any] | None:
    """Take back this person's latest standing verdict in a comparison by appending an undo.

    Returns what no longer stands (``judgement_id, item_id, swapped, preference``), or None if there is none left.
    """
    columns = "judgement_id, item_id, swapped, preference"
    with store.read() as connection:
        before = rows(
            connection,
            f"""select {columns} from judgements
            where judgement_id = (select undoes from judgements where press = :press)""",
            press=press,
        )
        if before:
            return before[0]
        judge_id = _judge_id(connection, reviewer)
        last = rows(
            connection,
            f"""select {columns} from judgements j
            where comparison_id = :comparison and judge_id = :judge and outcome <> 'undo'
                and not exists (select 1 from judgements u where u.undoes = j.judgement_id)
            order by judgement_id desc limit 1""",
            comparison=comparison_id,
            judge=judge_id or -1,
        )
    if not last:
        return None
    values = {
        "comparison": comparison_id,
        "judge": judge_id,
        "item": last[0]["item_id"],
        "swapped": last[0]["swapped"],
        "preference": None,
        "outcome": "undo",
        "reason": "The verdict was taken back.",
        "seconds": None,
        "press": press or uuid.uuid4().hex,
        "undoes": last[0]["judgement_id"],
    }
    _append(store, values)
    return last[0]


def _sent_before(store: Store, press: str) -> int | None:
    with store.read() as connection:
        known = scalar(connection, "select judgement_id from judgements where press = :press", press=press)
    return None if known is None else int(known)


def _append(store: Store, values: Mapping[str, Any]) -> int:
    try:
        with store.write("review") as connection:
            judgement_id = int(scalar(connection, "select nextval('judgement_ids')"))
            connection.execute(
                text(
                    """insert into judgements (judgement_id, comparison_id, judge_id, item_id, swapped, attempt,
                        preference, outcome, reason, seconds, press, undoes, judged_at)
                    values (:id, :comparison, :judge, :item, :swapped, 1, :preference, :outcome, :reason, :seconds,
                        :press, :undoes, :now)"""
                ),
                {**values, "id": judgement_id, "now": utc_now()},
            )
    except SQLAlchemyError:
        known = _sent_before(store, values["press"])
        if known is not None:
            return known
        raise
    return judgement_id
