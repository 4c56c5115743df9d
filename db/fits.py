"""Fits and rules in the store. Neither ever changes: another one gets another name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, text

from core.errors import StoreError
from core.regression import FitResult
from core.rules import PUBLISHED, Rule
from db.store import Store, rows, scalar, utc_now


def _new_name(connection: Connection, name: str, *, table: str) -> str:
    clean = name.strip()
    if not clean:
        raise StoreError(f"The {table} has no name. Give it one; nothing was saved.")
    taken = scalar(connection, f"select 1 from {table}s where name = :name", name=clean)
    if taken or (table == "rule" and clean == PUBLISHED.name):
        raise StoreError(f"There is a {table} named {clean!r} already. Choose another name; nothing was saved.")
    return clean


# --- fits ---


def save_fit(
    store: Store, result: FitResult, *, name: str, study_ids: Sequence[int], created_by: str | None = None
) -> int:
    """Keep a fit under a name, with the studies whose runs went in. Returns its id.

    Raises:
        StoreError: the name is empty or taken.
    """
    with store.write() as connection:
        clean = _new_name(connection, name, table="fit")
        fit_id = int(scalar(connection, "select nextval('fit_ids')"))
        connection.execute(
            text("insert into fits values (:fit_id, :name, :study_ids, :result, :created_at, :created_by)"),
            {
                "fit_id": fit_id,
                "name": clean,
                "study_ids": json.dumps([int(i) for i in study_ids]),
                "result": result.to_json(),
                "created_at": utc_now(),
                "created_by": created_by,
            },
        )
    return fit_id


def fits(store: Store) -> list[dict[str, Any]]:
    """All fits, newest first: ``fit_id, name, study_ids, result, created_at, created_by``."""
    with store.read() as connection:
        found = rows(
            connection,
            """select fit_id, name, study_ids::varchar study_ids, result::varchar result, created_at, created_by
            from fits order by fit_id desc""",
        )
    return [
        {**row, "study_ids": tuple(json.loads(row["study_ids"])), "result": FitResult.from_json(row["result"])}
        for row in found
    ]


def remove_fit(store: Store, fit_id: int) -> None:
    """Remove a fit. Rules that were made of it stay: they carry what they need."""
    with store.write() as connection:
        connection.execute(text("delete from fits where fit_id = :id"), {"id": fit_id})


# --- rules ---


def save_rule(
    store: Store,
    rule: Rule,
    *,
    name: str,
    fit_id: int | None = None,
    note: str | None = None,
    created_by: str | None = None,
) -> int:
    """Keep a rule under a name. Returns its id.

    Raises:
        StoreError: the name is empty or taken.
    """
    with store.write() as connection:
        clean = _new_name(connection, name, table="rule")
        rule_id = int(scalar(connection, "select nextval('rule_ids')"))
        connection.execute(
            text(
                "insert into rules values (:rule_id, :name, :origin, :fit_id, :rule, :note, :created_at, :created_by)"
            ),
            {
                "rule_id": rule_id,
                "name": clean,
                "origin": rule.origin,
                "fit_id": fit_id,
                "rule": rule.to_json(),
                "note": (note or "").strip() or None,
                "created_at": utc_now(),
                "created_by": created_by,
            },
        )
    return rule_id


def rules(store: Store) -> list[dict[str, Any]]:
    """The published rule (``rule_id`` None), then those of the store, newest first.

    ``rule_id, name, origin, fit_id, fit, rule, note, created_at, created_by``; ``fit`` is the fit's name, None where
    it was removed or there was none.
    """
    with store.read() as connection:
        found = rows(
            connection,
            """select r.rule_id, r.name, r.origin, r.fit_id, f.name fit, r.rule::varchar rule, r.note,
                r.created_at, r.created_by
            from rules r left join fits f on f.fit_id = r.fit_id order by r.rule_id desc""",
        )
    published = {
        "rule_id": None,
        "name": PUBLISHED.name,
        "origin": PUBLISHED.origin,
        "fit_id": None,
        "fit": None,
        "rule": PUBLISHED,
        "note": None,
        "created_at": None,
        "created_by": None,
    }
    return [published, *({**row, "rule": Rule.from_json(row["rule"])} for row in found)]


def remove_rule(store: Store, rule_id: int) -> None:
    """Remove a rule. Selections that were made by it stay: they carry its formula."""
    with store.write() as connection:
        connection.execute(text("delete from rules where rule_id = :id"), {"id": rule_id})
