"""Filters that people keep under a name: the query parameters of a page, one's own or shared with the team."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import text

from core.errors import NotAllowedError, StoreError
from db import permission
from db.store import Store, rows, said_plainly, scalar, utc_now

PAGES = ("pairs", "review", "explore")
LONGEST_NAME = 80


@said_plainly
def save(store: Store, *, page: str, name: str, params: Mapping[str, str], owner: str, shared: bool = False) -> int:
    """Keep ``params`` of ``page`` under ``name``; one's own filter of that name is replaced. Returns its id.

    Raises:
        StoreError: no name or no owner, or the page keeps no filters.
        NotAllowedError: whoever acts is no reviewer, or saves for somebody else.
    """
    clean = " ".join(name.split())
    if page not in PAGES:
        raise StoreError(f"The page {page!r} keeps no filters.")
    if not clean or len(clean) > LONGEST_NAME:
        raise StoreError(f"A filter needs a name of at most {LONGEST_NAME} characters. Nothing was saved.")
    if not owner.strip():
        raise StoreError("Say who you are first: a filter is kept under your name. Nothing was saved.")
    actor = permission.acting()
    if actor is not None and actor.identity != owner:
        raise NotAllowedError("A filter can be saved only under one's own name. Nothing was saved.")
    values = {"params": json.dumps(dict(params), sort_keys=True), "shared": shared, "now": utc_now()}
    with store.write("review") as connection:
        known = scalar(
            connection,
            "select filter_id from saved_filters where page = :page and owner = :owner and name = :name",
            page=page, owner=owner, name=clean,
        )  # fmt: skip
        if known is not None:
            connection.execute(
                text(
                    "update saved_filters set params = :params, shared = :shared, saved_at = :now where filter_id = :id"
                ),
                {**values, "id": known},
            )
            return int(known)
        filter_id = int(scalar(connection, "select nextval('filter_ids')"))
        connection.execute(
            text(
                """insert into saved_filters (filter_id, page, name, params, owner, shared, saved_at)
                values (:id, :page, :name, :params, :owner, :shared, :now)"""
            ),
            {**values, "id": filter_id, "page": page, "name": clean, "owner": owner},
        )
    return filter_id


def filters(store: Store, *, page: str, identity: str) -> list[dict[str, Any]]:
    """Filters of a page that ``identity`` may open, the own ones first: ``filter_id, name, params, owner, shared,
    saved_at``."""
    with store.read() as connection:
        found = rows(
            connection,
            """select filter_id, name, params::varchar params, owner, shared, saved_at from saved_filters
            where page = :page and (shared or owner = :identity)
            order by owner <> :identity, lower(name), owner""",
            page=page,
            identity=identity,
        )
    return [{**row, "params": {str(k): str(v) for k, v in json.loads(row["params"]).items()}} for row in found]


@said_plainly
def rename(store: Store, filter_id: int, *, name: str, identity: str) -> None:
    """Give a filter of one's own another name.

    Raises:
        StoreError: no name, the name is taken, or the filter is gone.
        NotAllowedError: it is somebody else's.
    """
    clean = " ".join(name.split())
    if not clean or len(clean) > LONGEST_NAME:
        raise StoreError(f"A filter needs a name of at most {LONGEST_NAME} characters. Nothing was changed.")
    owned = _owned(store, filter_id, identity)
    with store.write("review") as connection:
        taken = scalar(
            connection,
            """select filter_id from saved_filters where page = :page and owner = :owner and name = :name
                and filter_id <> :id""",
            page=owned["page"], owner=owned["owner"], name=clean, id=filter_id,
        )  # fmt: skip
        if taken is not None:
            raise StoreError(f"There is a filter {clean} already. Nothing was changed; choose another name.")
        connection.execute(
            text("update saved_filters set name = :name where filter_id = :id"), {"name": clean, "id": filter_id}
        )


@said_plainly
def share(store: Store, filter_id: int, *, shared: bool, identity: str) -> None:
    """Show a filter of one's own to the team, or to oneself only. Raises as :func:`rename`."""
    _owned(store, filter_id, identity)
    with store.write("review") as connection:
        connection.execute(
            text("update saved_filters set shared = :shared where filter_id = :id"),
            {"shared": shared, "id": filter_id},
        )


@said_plainly
def remove(store: Store, filter_id: int, *, identity: str) -> None:
    """Forget a filter of one's own; an admin may forget any. Raises as :func:`rename`."""
    actor = permission.acting()
    _owned(store, filter_id, identity, any_owner=actor is not None and actor.may("administer"))
    with store.write("review") as connection:
        connection.execute(text("delete from saved_filters where filter_id = :id"), {"id": filter_id})


def _owned(store: Store, filter_id: int, identity: str, *, any_owner: bool = False) -> dict[str, Any]:
    with store.read() as connection:
        found = rows(connection, "select page, owner from saved_filters where filter_id = :id", id=filter_id)
    if not found:
        raise StoreError("This filter is gone: somebody removed it. Nothing was changed.")
    if found[0]["owner"] != identity and not any_owner:
        raise NotAllowedError("This filter is somebody else's. Nothing was changed; save one of your own.")
    return found[0]
