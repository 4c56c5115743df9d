"""Lists of pairs that somebody marked: a lasso, a search, a similar heap. They never change; a link names one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from sqlalchemy import text

from core.errors import StoreError
from db.store import Store, registered, rows, said_plainly, scalar, utc_now


@said_plainly
def create(
    store: Store,
    pair_ids: Sequence[int],
    *,
    name: str,
    details: Mapping[str, Any] | None = None,
    created_by: str | None = None,
) -> int:
    """Keep these pairs in this order, each once. Returns the id of the list.

    Raises:
        StoreError: no name, or no pair of these is in the store.
    """
    clean = " ".join(name.split())[:200]
    if not clean:
        raise StoreError("A list needs a name. Nothing was saved.")
    ids = np.asarray(list(dict.fromkeys(int(i) for i in pair_ids)), np.int64)
    wanted = pa.table({"position": pa.array(np.arange(len(ids), dtype=np.int64)), "pair_id": pa.array(ids)})
    with store.write("review") as connection:
        list_id = int(scalar(connection, "select nextval('pair_list_ids')"))
        with registered(connection, "wanted_pairs", wanted):
            connection.execute(
                text(
                    """insert into pair_list_members select :list, w.position, w.pair_id from wanted_pairs w
                    where w.pair_id in (select pair_id from pairs)"""
                ),
                {"list": list_id},
            )
        n = int(scalar(connection, "select count(*) from pair_list_members where list_id = :list", list=list_id))
        if not n:
            raise StoreError("None of these pairs is in the store. Nothing was saved.")
        connection.execute(
            text(
                """insert into pair_lists (list_id, name, details, created_at, created_by)
                values (:list, :name, :details, :now, :by)"""
            ),
            {
                "list": list_id,
                "name": clean,
                "details": json.dumps(dict(details or {}), sort_keys=True),
                "now": utc_now(),
                "by": created_by or None,
            },
        )
    return list_id


def lists(store: Store, *, limit: int = 200) -> list[dict[str, Any]]:
    """Lists, newest first: ``list_id, name, n_pairs, created_at, created_by``."""
    with store.read() as connection:
        return rows(
            connection,
            """select l.list_id, l.name, m.n n_pairs, l.created_at, l.created_by
            from pair_lists l join (select list_id, count(*) n from pair_list_members group by list_id) m
            on m.list_id = l.list_id order by l.list_id desc limit :most""",
            most=limit,
        )


def pair_list(store: Store, list_id: int) -> dict[str, Any] | None:
    """One list (as of :func:`lists`), or None where it is not in the store."""
    with store.read() as connection:
        found = rows(
            connection,
            """select l.list_id, l.name, l.created_at, l.created_by,
                (select count(*) from pair_list_members m where m.list_id = l.list_id) n_pairs
            from pair_lists l where l.list_id = :id""",
            id=list_id,
        )
    return found[0] if found else None


@said_plainly
def remove(store: Store, list_id: int) -> None:
    """Forget a list. Its pairs and their decisions stay.

    Raises:
        NotAllowedError: whoever acts is no admin (a list may stand in links that others hold).
    """
    with store.write() as connection:
        connection.execute(text("delete from pair_list_members where list_id = :id"), {"id": list_id})
        connection.execute(text("delete from pair_lists where list_id = :id"), {"id": list_id})
