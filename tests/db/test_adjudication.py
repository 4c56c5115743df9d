"""Adjudication: which pairs, who may rule, what people said; and second looks at one's own."""

from __future__ import annotations

import pytest

from core.campaign import CampaignSettings
from core.example import Example
from db import adjudication, campaigns, decisions, people
from db.store import Store
from tests.db.campaign_pairs import add_pairs, entry


@pytest.fixture
def ids(store: Store) -> list[int]:
    return add_pairs(store, 6)


def make(store: Store, ids: list[int], **settings: object) -> int:
    return campaigns.create(
        store, name="c", pair_ids=ids, people=["ada", "ben"], overlap=2, settings=CampaignSettings(**settings)  # type: ignore[arg-type]
    )  # fmt: skip


def say(store: Store, campaign_id: int, pair_id: int, who: str, verdict: str, **more: object) -> None:
    press = f"{who}-{pair_id}-{verdict}-{more.get('purpose', '')}"
    pressed = entry(press, pair_id, verdict, campaign_id=campaign_id, check_seen=False, **more)
    assert decisions.apply(store, [pressed], reviewer=who)[0].kind == "ok"


def refusal(store: Store, campaign_id: int, pair_id: int, who: str, *, is_admin: bool = False) -> str | None:
    guard = adjudication.guard(store, campaign_id, identity=who, is_admin=is_admin)
    with store.read() as connection:
        return guard(connection, entry("rule", pair_id, "accept", purpose="adjudication"))


def test_the_queue_holds_what_is_complete_and_differs_until_somebody_rules(store: Store, ids: list[int]) -> None:
    campaign_id = make(store, ids)
    for pair_id, words in {ids[0]: "ar", ids[1]: "aa", ids[2]: "a", ids[4]: "ra"}.items():
        for who, word in zip(("ada", "ben"), words, strict=False):
            say(store, campaign_id, pair_id, who, {"a": "accept", "r": "reject"}[word])
    assert adjudication.disputed(store, campaign_id) == [ids[0], ids[4]]
    guard = adjudication.guard(store, campaign_id, identity="root", is_admin=True)
    ruling = entry("rule", ids[0], "reject", purpose="adjudication", campaign_id=campaign_id, check_seen=False)
    assert decisions.apply(store, [ruling], reviewer="root", guard=guard)[0].kind == "ok"
    assert adjudication.disputed(store, campaign_id) == [ids[4]]


def test_who_may_rule(store: Store, ids: list[int]) -> None:
    campaign_id = make(store, ids, adjudicators=("dee", "ada"))
    say(store, campaign_id, ids[0], "ada", "accept")
    say(store, campaign_id, ids[0], "ben", "reject")
    assert refusal(store, campaign_id, ids[0], "dee") is None
    assert refusal(store, campaign_id, ids[0], "root", is_admin=True) is None
    assert "ask an admin" in (refusal(store, campaign_id, ids[0], "ben") or "")
    assert "dee can rule" in (refusal(store, campaign_id, ids[0], "ada") or "")
    assert "not part of the campaign" in (refusal(store, campaign_id, 999, "dee") or "")
    assert adjudication.disputed(store, campaign_id, "ada") == []
    assert adjudication.disputed(store, campaign_id, "dee") == [ids[0]]
    guard = adjudication.guard(store, campaign_id, identity="ben", is_admin=False)
    ruling = entry("rule", ids[0], "accept", purpose="adjudication", campaign_id=campaign_id, check_seen=False)
    assert decisions.apply(store, [ruling], reviewer="ben", guard=guard)[0].kind == "error"


def test_ones_own_dispute_is_allowed_where_nobody_else_can_or_the_settings_say_so(store: Store, ids: list[int]) -> None:
    alone = make(store, ids)
    for who, verdict in (("ada", "accept"), ("ben", "reject")):
        say(store, alone, ids[0], who, verdict)
    assert refusal(store, alone, ids[0], "ada", is_admin=True) is None
    people.grant(store, "root", "admin", "root")
    assert "root can rule" in (refusal(store, alone, ids[0], "ada", is_admin=True) or "")
    lenient = campaigns.create(
        store, name="l", pair_ids=ids, people=["ada", "ben"], settings=CampaignSettings(own_disputes=True)
    )
    assert refusal(store, lenient, ids[0], "ada", is_admin=True) is None


def test_voices_say_who_said_what_and_names_can_be_hidden(store: Store, ids: list[int]) -> None:
    campaign_id = make(store, ids)
    say(store, campaign_id, ids[0], "ada", "edit", edited=Example("Say", "", "better"), note="shorter", seconds=12.0)
    say(store, campaign_id, ids[0], "ben", "accept")
    say(store, campaign_id, ids[0], "ben", "reject", note="<b>no</b>")
    say(store, campaign_id, ids[0], "ada", "accept", purpose="late")
    found = adjudication.voices(store, ids[0])
    assert [(v["name"], v["verdict"], v["kind"], v["note"]) for v in found] == [
        ("ada", "edit", "accept", "shorter"),
        ("ben", "reject", "reject", "<b>no</b>"),
    ]
    assert found[0]["texts"] == {"instruction": "Say", "input": "", "output": "better"}
    assert (found[0]["seconds"], found[1]["texts"]) == (12.0, None)
    say(store, campaign_id, ids[0], "root", "accept", purpose="adjudication")
    hidden = adjudication.voices(store, ids[0], hide_names=True)
    assert [v["name"] for v in hidden] == ["Reviewer 1", "Reviewer 2", "Reviewer 3"]
    assert hidden[2]["text"] == "ruled: accepted"
    assert {v["verdict"] for v in hidden[:2]} == {"edit", "reject"}


def test_a_share_of_ones_own_pairs_comes_back_once_after_enough_others(store: Store, ids: list[int]) -> None:
    campaign_id = make(store, ids, second_look_share=1.0, second_look_after=2)
    for pair_id in ids[:4]:
        say(store, campaign_id, pair_id, "ada", "accept")
    assert adjudication.second_look_ids(store, campaign_id, "ada") == ids[:2]
    assert adjudication.second_look_ids(store, campaign_id, "ben") == []
    say(store, campaign_id, ids[0], "ada", "reject", purpose="second_look")
    assert adjudication.second_look_ids(store, campaign_id, "ada") == [ids[1]]
    none = campaigns.create(store, name="n", pair_ids=ids, people=["ada"])
    assert adjudication.second_look_ids(store, none, "ada") == []


def test_the_share_is_chosen_by_chance_but_always_the_same(store: Store) -> None:
    many = add_pairs(store, 200)
    campaign_id = make(store, many, second_look_share=0.3, second_look_after=0)
    entries = [entry(f"p{i}", i, "accept", campaign_id=campaign_id) for i in many]
    decisions.apply(store, entries, reviewer="ada")
    chosen = adjudication.second_look_ids(store, campaign_id, "ada")
    assert 35 <= len(chosen) <= 85  # 60 ± 4 standard deviations
    assert chosen == adjudication.second_look_ids(store, campaign_id, "ada")
