"""People and their roles: who was seen, who may do what, and who said so."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Collection
from typing import Any

from sqlalchemy import text

from core.errors import StoreError
from db import permission
from db.permission import ROLES, Actor
from db.store import Store, rows, said_plainly, scalar, utc_now

_lock = threading.RLock()  # a write asks for the role of who acts
# Each action asks for a role; the store has one owner, which forgets what it remembered when a role changes.
_roles: weakref.WeakKeyDictionary[Store, dict[str, str]] = weakref.WeakKeyDictionary()
_names: weakref.WeakKeyDictionary[Store, dict[str, str]] = weakref.WeakKeyDictionary()  # the desk asks at every press


@said_plainly
def see(store: Store, identity: str, name: str, source: str) -> None:
    """Keep that a person is here: the first time as a new person, later with the moment and the name of now.

    ``source`` says how far to trust the identity: ``core.sign_in.NAMES`` or ``PROVIDER``. People without a role are
    kept too, so that an admin can give them one.
    """
    with permission.as_server(), _lock, store.write("look") as connection:
        connection.execute(
            text(
                """insert into people (identity, name, source, first_seen_at, last_seen_at)
                values (:identity, :name, :source, :now, :now) on conflict (identity) do update set
                    name = excluded.name, source = excluded.source, last_seen_at = excluded.last_seen_at"""
            ),
            {"identity": identity, "name": name, "source": source, "now": utc_now()},
        )
    with _lock:
        _names.pop(store, None)


def people(store: Store) -> list[dict[str, Any]]:
    """Everybody who was seen, got a role or decided something, the latest seen first.

    ``identity, name, source, first_seen_at, last_seen_at, role (NULL: the default), n_decisions, last_decision_at``;
    of names in old decisions that nobody was seen under, only the counts are known.
    """
    with store.read() as connection:
        return rows(
            connection,
            """with decided as (
                select reviewer identity, count(*) n_decisions, max(decided_at) last_decision_at
                from decisions where verdict <> 'undo' group by reviewer),
            known as (
                select identity from people union select identity from current_roles union select identity from decided)
            select k.identity, coalesce(p.name, k.identity) name, p.source, p.first_seen_at, p.last_seen_at, r.role,
                coalesce(d.n_decisions, 0) n_decisions, d.last_decision_at
            from known k left join people p using (identity) left join current_roles r using (identity)
                left join decided d using (identity)
            order by p.last_seen_at desc nulls last, d.last_decision_at desc nulls last, k.identity""",
        )


def names(store: Store) -> dict[str, str]:
    """identity -> the name that people read, of everybody who was seen."""
    with _lock:
        known = _names.get(store)
        if known is None:
            with store.read() as connection:
                found = rows(connection, "select identity, name from people")
            known = _names[store] = {row["identity"]: row["name"] for row in found}
    return known


def role_of(store: Store, identity: str, default: str, *, admins: Collection[str] = ()) -> str:
    """The role of a person: admin if among ``admins``, else what was granted last, else ``default``."""
    if identity.lower() in admins:
        return "admin"
    with _lock:
        known = _roles.setdefault(store, {})
        if identity in known:
            return known[identity] or default
        with store.read() as connection:
            found = scalar(connection, "select role from current_roles where identity = :identity", identity=identity)
        known[identity] = found or ""
        return found or default


def actor(store: Store, identity: str, name: str, *, default: str, admins: Collection[str] = ()) -> Actor:
    """The person with the role of this moment."""
    return Actor(identity=identity, name=name or identity, role=role_of(store, identity, default, admins=admins))


def role_changes(store: Store, *, limit: int = 500) -> list[dict[str, Any]]:
    """Who gave whom which role, the latest first: ``changed_at, identity, name, role, changed_by``."""
    with store.read() as connection:
        return rows(
            connection,
            f"""select c.changed_at, c.identity, coalesce(p.name, c.identity) name, c.role, c.changed_by
            from role_changes c left join people p using (identity) order by c.change_id desc limit {int(limit)}""",
        )


@said_plainly
def grant(
    store: Store, identity: str, role: str, by: str | None, *, default: str = "none", admins: Collection[str] = ()
) -> None:
    """Give a person a role; it holds from their next action on.

    ``default`` and ``admins`` are those of :func:`role_of`: they say whether an admin would be left.

    Raises:
        NotAllowedError: who acts is no admin.
        StoreError: the role is none of ours, the person is admin by ASSAY_ADMINS, or nobody would be admin any more.
    """
    if role not in ROLES:
        raise StoreError(f"There is no role {role!r}; give one of {', '.join(ROLES)}. Nothing was changed.")
    if not identity.strip():
        raise StoreError("A role needs a person. Nothing was changed.")
    # The lock is held over the commit: a role that is read meanwhile would be remembered as it was.
    with _lock, store.write() as connection:
        if identity.lower() in admins and role != "admin":
            raise StoreError(
                f"{identity} is admin by ASSAY_ADMINS, whatever is chosen here. Take the e-mail out of that variable "
                "and restart the server. Nothing was changed."
            )
        granted = {
            row["identity"] for row in rows(connection, "select identity from current_roles where role = 'admin'")
        }
        if role != "admin" and granted == {identity} and not admins and default != "admin":
            raise StoreError(
                f"{identity} is the last admin: nobody could give roles any more. Make somebody else admin first. "
                "Nothing was changed."
            )
        connection.execute(
            text("insert into role_changes values (nextval('role_change_ids'), :identity, :role, :now, :by)"),
            {"identity": identity, "role": role, "now": utc_now(), "by": by},
        )
        _roles.pop(store, None)
