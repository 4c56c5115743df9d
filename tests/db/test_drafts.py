"""Drafts and preferences: one value per person, the latest only, whoever writes at the same moment."""

from __future__ import annotations

import threading

import pytest

from core.errors import NotAllowedError, StoreError
from db import drafts, permission, preferences
from db.permission import Actor
from db.store import Store, rows


def typed(text: str) -> dict[str, str]:
    return {"instruction": text, "input": "", "output": "=cmd() <script>"}


def test_the_latest_draft_of_a_person_and_a_pair_is_kept_and_none_forgets_it(store: Store) -> None:
    drafts.save(store, "ada", {1: typed("a"), 2: typed("b")})
    drafts.save(store, "ada", {1: typed("later")})
    drafts.save(store, "bob", {1: typed("bob's")})
    found = drafts.drafts(store, "ada", [1, 2, 3])
    assert {pair_id: one["texts"] for pair_id, one in found.items()} == {1: typed("later"), 2: typed("b")}
    drafts.save(store, "ada", {1: None})
    assert set(drafts.drafts(store, "ada", [1, 2])) == {2}
    assert drafts.drafts(store, "bob", [1])[1]["texts"] == typed("bob's")


def test_a_draft_of_five_megabytes_is_kept_whole(store: Store) -> None:
    """It was cut at four million characters, and the cut one came back in place of what was typed."""
    long = typed("\x00 long " + "y" * 5_000_000)
    drafts.save(store, "ada", {1: long})
    assert drafts.drafts(store, "ada", [1])[1]["texts"] == long


def test_two_tabs_that_write_one_draft_at_one_moment_leave_one(store: Store) -> None:
    threads = [
        threading.Thread(target=lambda n=n: [drafts.save(store, "ada", {1: typed(f"{n}-{i}")}) for i in range(10)])
        for n in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.read() as connection:
        assert len(rows(connection, "select * from drafts")) == 1
    assert drafts.drafts(store, "ada", [1])[1]["texts"]["instruction"] in ("0-9", "1-9")


def test_a_preference_has_an_owner_a_name_and_a_bounded_size(store: Store) -> None:
    preferences.save(store, "ada", "review.keys", {"accept": "j"})
    preferences.save(store, "ada", "review.keys", {"accept": "k"})
    assert preferences.preference(store, "ada", "review.keys", {}) == {"accept": "k"}
    assert preferences.preference(store, "bob", "review.keys", {"usual": 1}) == {"usual": 1}
    for identity, name, value in (("", "x", 1), ("ada", "", 1), ("ada", "x", "y" * 30_000)):
        with pytest.raises(StoreError, match="cannot be kept"):
            preferences.save(store, identity, name, value)


def test_a_viewer_may_prefer_and_may_not_draft(store: Store) -> None:
    with permission.as_actor(Actor("vi", "Vi", "viewer")):
        preferences.save(store, "vi", "review.view", {"marks": False})
        with pytest.raises(NotAllowedError, match="viewer"):
            drafts.save(store, "vi", {1: typed("a")})
    assert drafts.drafts(store, "vi", [1]) == {}
