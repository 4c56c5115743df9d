"""Filters that people keep: whose they are, who sees them, who may change them."""

from __future__ import annotations

import pytest

from core.errors import NotAllowedError, StoreError
from db import saved_filters
from db.permission import Actor, as_actor
from db.store import Store

PARAMS = {"state": "all", "text": 'a "b" ☃'}


def keep(store: Store, name: str = "mine", owner: str = "ada", **more) -> int:
    return saved_filters.save(store, page="pairs", name=name, params=PARAMS, owner=owner, **more)


def seen(store: Store, identity: str, page: str = "pairs") -> list[str]:
    return [row["name"] for row in saved_filters.filters(store, page=page, identity=identity)]


def test_own_ones_first_then_what_the_team_shares(store: Store) -> None:
    keep(store, "b")
    keep(store, "A", shared=True)
    keep(store, "c", owner="ben", shared=True)
    keep(store, "secret", owner="ben")
    assert seen(store, "ada") == ["A", "b", "c"]
    assert seen(store, "cleo") == ["A", "c"]
    assert seen(store, "ada", page="review") == []
    assert saved_filters.filters(store, page="pairs", identity="ada")[0]["params"] == PARAMS


def test_the_same_name_replaces_ones_own_only(store: Store) -> None:
    first = keep(store)
    other = keep(store, owner="ben")
    again = saved_filters.save(store, page="pairs", name=" mine ", params={}, owner="ada", shared=True)
    assert again == first != other
    (row,) = [r for r in saved_filters.filters(store, page="pairs", identity="ada") if r["owner"] == "ada"]
    assert (row["params"], row["shared"]) == ({}, True)


def test_only_the_owner_changes_a_filter(store: Store) -> None:
    filter_id = keep(store, shared=True)
    for change in (
        lambda: saved_filters.rename(store, filter_id, name="x", identity="ben"),
        lambda: saved_filters.share(store, filter_id, shared=False, identity="ben"),
        lambda: saved_filters.remove(store, filter_id, identity="ben"),
    ):
        with pytest.raises(NotAllowedError, match="somebody else"):
            change()
    keep(store, "taken")
    with pytest.raises(StoreError, match="already"):
        saved_filters.rename(store, filter_id, name="taken", identity="ada")
    saved_filters.rename(store, filter_id, name="new  name", identity="ada")
    saved_filters.share(store, filter_id, shared=False, identity="ada")
    assert seen(store, "ada") == ["new name", "taken"]
    assert seen(store, "ben") == []
    with as_actor(Actor("eve", "Eve", "admin")):
        saved_filters.remove(store, filter_id, identity="eve")
    with pytest.raises(StoreError, match="gone"):
        saved_filters.remove(store, filter_id, identity="ada")


def test_what_is_refused(store: Store) -> None:
    with pytest.raises(StoreError, match="name"):
        keep(store, " ")
    with pytest.raises(StoreError, match="who you are"):
        keep(store, owner="")
    with pytest.raises(StoreError, match="keeps no filters"):
        saved_filters.save(store, page="jobs", name="x", params={}, owner="ada")
    with as_actor(Actor("vic", "Vic", "viewer")), pytest.raises(NotAllowedError, match="reviewer is needed"):
        keep(store, owner="vic")
    with as_actor(Actor("rob", "Rob", "reviewer")), pytest.raises(NotAllowedError, match="own name"):
        keep(store, owner="ada")
    assert seen(store, "ada") == []
