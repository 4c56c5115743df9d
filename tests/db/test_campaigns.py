"""Campaigns: what is frozen, what may change, what stands of their decisions, and how far they are."""

from __future__ import annotations

import pytest

from core.campaign import CampaignSettings
from core.errors import NotAllowedError, SettingsError, StoreError
from core.example import Example
from db import campaign_progress, campaigns, decisions, past
from db.leases import Leases
from db.permission import Actor, as_actor
from db.store import Store, frame, rows
from tests.db.campaign_pairs import add_pairs, entry

PEOPLE = ("ada", "ben", "cy")


@pytest.fixture
def ids(store: Store) -> list[int]:
    return add_pairs(store, 6)


def make(store: Store, ids: list[int], *, overlap: int = 2, name: str = "First", **more: object) -> int:
    return campaigns.create(store, name=name, pair_ids=ids, people=PEOPLE, overlap=overlap, **more)  # type: ignore[arg-type]


def say(store: Store, pair_id: int, who: str, verdict: str, **more: object) -> str:
    """One decision, past all leases; returns its press."""
    with store.read() as connection:
        press = f"press-{rows(connection, 'select count(*) n from decisions')[0]['n']}"
    applied = decisions.apply(store, [entry(press, pair_id, verdict, check_seen=False, **more)], reviewer=who)
    assert applied[0].kind == "ok", applied
    return press


def stands(store: Store, pair_id: int) -> tuple[str, str] | None:
    """Verdict and reviewer of what stands, read both ways: by the pair, and out of the whole view."""
    with store.read() as connection:
        found = rows(connection, "select verdict, reviewer from current_decisions where pair_id = :p", p=pair_id)
        every = rows(connection, "select pair_id, verdict, reviewer from current_decisions")
    assert [(r["verdict"], r["reviewer"]) for r in every if r["pair_id"] == pair_id] == [
        (r["verdict"], r["reviewer"]) for r in found
    ]
    return (found[0]["verdict"], found[0]["reviewer"]) if found else None


# --- what stands ---


def test_with_overlap_one_and_outside_campaigns_the_newest_decision_stands(store: Store, ids: list[int]) -> None:
    make(store, ids[:3], overlap=1)
    for pair_id in (ids[0], ids[5]):
        say(store, pair_id, "ada", "accept")
        say(store, pair_id, "ben", "reject")
        assert stands(store, pair_id) == ("reject", "ben")
        say(store, pair_id, "root", "accept", purpose="bulk")
        assert stands(store, pair_id) == ("accept", "root")
        newest = say(store, pair_id, "cy", "reject")
        assert stands(store, pair_id) == ("reject", "cy")
        say(store, pair_id, "cy", "undo", undoes=newest)
        assert stands(store, pair_id) == ("accept", "root")


def test_with_overlap_two_nothing_stands_before_two_people_say_the_same(store: Store, ids: list[int]) -> None:
    make(store, ids)
    say(store, ids[0], "ada", "reject")
    assert stands(store, ids[0]) is None
    first = say(store, ids[0], "ben", "reject")
    assert stands(store, ids[0]) == ("reject", "ben")
    say(store, ids[0], "ben", "undo", undoes=first)
    assert stands(store, ids[0]) is None, "taking back reopens"
    say(store, ids[0], "ben", "accept")
    assert stands(store, ids[0]) is None, "they differ"
    say(store, ids[0], "ben", "reject")
    assert stands(store, ids[0]) == ("reject", "ben"), "the latest word of a person counts"
    say(store, ids[0], "dan", "accept")
    assert stands(store, ids[0]) is None, "also a word from outside the campaign can dispute it"


def test_the_same_person_twice_is_one_voice(store: Store, ids: list[int]) -> None:
    make(store, ids)
    say(store, ids[0], "ada", "accept")
    say(store, ids[0], "ada", "accept")
    assert stands(store, ids[0]) is None


def test_two_edits_agree_only_if_they_make_the_same_example(store: Store, ids: list[int]) -> None:
    make(store, ids)
    for pair_id, second in ((ids[0], "best"), (ids[1], "other")):
        say(store, pair_id, "ada", "edit", edited=Example("Say", "", "best"))
        say(store, pair_id, "ben", "edit", edited=Example("Say", "", second))
    assert stands(store, ids[0]) == ("edit", "ben")
    assert stands(store, ids[1]) is None


def test_a_ruling_stands_whatever_is_said_later_until_it_is_undone(store: Store, ids: list[int]) -> None:
    make(store, ids)
    say(store, ids[0], "ada", "accept")
    say(store, ids[0], "ben", "reject")
    ruling = say(store, ids[0], "root", "new_response", purpose="adjudication")
    assert stands(store, ids[0]) == ("new_response", "root")
    say(store, ids[0], "ben", "accept")
    assert stands(store, ids[0]) == ("new_response", "root"), "people who agree afterwards do not overrule it"
    say(store, ids[0], "root", "undo", undoes=ruling, purpose="adjudication")
    assert stands(store, ids[0]) == ("accept", "ben")


def test_a_bulk_decision_stands_against_older_words_and_over_older_rulings(store: Store, ids: list[int]) -> None:
    make(store, ids)
    say(store, ids[0], "ada", "accept")
    say(store, ids[0], "root", "reject", purpose="bulk")
    assert stands(store, ids[0]) == ("reject", "root"), "no agreement yet"
    say(store, ids[0], "ben", "accept")
    assert stands(store, ids[0]) == ("accept", "ben"), "an agreement that is newer"
    say(store, ids[1], "root", "accept", purpose="adjudication")
    say(store, ids[1], "root", "reject", purpose="bulk")
    assert stands(store, ids[1]) == ("reject", "root")


def test_second_looks_late_decisions_and_skips_never_stand(store: Store, ids: list[int]) -> None:
    make(store, ids, overlap=1)
    for purpose in ("second_look", "late"):
        say(store, ids[0], "ada", "accept", purpose=purpose)
    say(store, ids[0], "ada", "skip")
    assert stands(store, ids[0]) is None


def test_of_several_campaigns_the_largest_overlap_counts(store: Store, ids: list[int]) -> None:
    make(store, ids, overlap=1)
    make(store, ids[:1], overlap=3, name="Second")
    for who in PEOPLE[:2]:
        say(store, ids[0], who, "accept")
    assert stands(store, ids[0]) is None
    say(store, ids[0], "cy", "accept")
    assert stands(store, ids[0]) == ("accept", "cy")


# --- making and changing ---


def test_a_campaign_is_read_back_as_it_was_made(store: Store, ids: list[int]) -> None:
    settings = CampaignSettings(gold_feedback=True, adjudicators=("dee",), second_look_share=0.25)
    campaign_id = make(
        store, [*reversed(ids), ids[0]], guidelines="# Be kind\n", gold={ids[1]: "reject"}, blind=False,
        lease_seconds=60, created_by="root", settings=settings, name="  Two   words ",
    )  # fmt: skip
    found = campaigns.campaign(store, campaign_id)
    assert (found.name, found.overlap, found.state, found.people) == ("Two words", 2, "open", PEOPLE)
    assert (found.n_pairs, found.n_gold, found.created_by) == (6, 1, "root")
    assert (found.guidelines, found.guidelines_version) == ("# Be kind", 1)
    assert (found.settings.blind, found.settings.lease_seconds, found.settings.everybody) == (False, 60, False)
    assert (found.settings.gold_feedback, found.settings.adjudicators) == (True, ("dee",))
    assert campaigns.pair_ids(store, campaign_id) == ids[::-1]
    assert campaigns.campaigns(store) == [found]


@pytest.mark.parametrize(
    ("more", "error", "words"),
    [
        ({"pair_ids": []}, StoreError, "no pair"),
        ({"pair_ids": [12345]}, StoreError, "Pair 12345 is not in the store"),
        ({"name": " "}, StoreError, "no name"),
        ({"name": "Taken"}, StoreError, "already"),
        ({"overlap": 0}, StoreError, "at least one decision"),
        ({"overlap": 4}, SettingsError, "only 3 take part"),
        ({"gold": {999: "accept"}}, StoreError, "Gold pair 999"),
        ({"gold": "bad verdict"}, StoreError, "no verdict"),
        ({"lease_seconds": 1}, SettingsError, "lease of 1 s"),
    ],
)
def test_a_campaign_that_makes_no_sense_is_refused_and_leaves_nothing(
    store: Store, ids: list[int], more: dict, error: type[Exception], words: str
) -> None:
    make(store, ids, name="Taken")
    if more.get("gold") == "bad verdict":
        more = {"gold": {ids[0]: "skip"}}
    arguments = {"name": "New", "pair_ids": ids, "people": PEOPLE, "overlap": 2, **more}
    with pytest.raises(error, match=words):
        campaigns.create(store, **arguments)
    assert [one.name for one in campaigns.campaigns(store)] == ["Taken"]
    with store.read() as connection:
        for table in ("campaign_pairs", "campaign_people", "campaign_events"):
            found = rows(connection, f"select distinct campaign_id from {table}")
            assert [row["campaign_id"] for row in found] == [1], table


def test_people_state_and_guidelines_change_and_every_change_is_kept(store: Store, ids: list[int]) -> None:
    campaign_id = make(store, ids[:4], guidelines="one")
    campaigns.pause(store, campaign_id, by="root")
    with pytest.raises(StoreError, match="paused already"):
        campaigns.pause(store, campaign_id)
    campaigns.resume(store, campaign_id)
    campaigns.change_people(store, campaign_id, ["ben", "dee"])
    assert campaigns.campaign(store, campaign_id).people == ("ben", "dee")
    campaigns.change_people(store, campaign_id, ["ada", "ben"])
    with pytest.raises(SettingsError, match="only 1 takes part"):
        campaigns.change_people(store, campaign_id, ["ada"])
    assert campaigns.change_guidelines(store, campaign_id, "two") == 2
    assert campaigns.change_guidelines(store, campaign_id, " two ") == 2
    versions = {
        one["version"]: one["details"]["text"] for one in campaigns.events(store, campaign_id) if one["version"]
    }
    assert [versions.get(i) for i in (1, 2, 3)] == ["one", "two", None]
    assert campaigns.add_pairs(store, campaign_id, ids) == 2
    assert campaigns.pair_ids(store, campaign_id) == ids
    campaigns.close(store, campaign_id)
    assert [one["kind"] for one in campaigns.events(store, campaign_id)] == [
        "closed", "pairs", "guidelines", "people", "people", "resumed", "paused", "guidelines", "created",
    ]  # fmt: skip
    assert campaigns.campaign(store, campaign_id).state == "closed"


def test_some_settings_change_while_it_runs_and_the_past_stays_as_it_was(store: Store, ids: list[int]) -> None:
    campaign_id = make(store, ids, lease_seconds=60, settings=CampaignSettings(adjudicators=("dee",), seed=7))
    for who in ("ada", "ben"):
        say(store, ids[0], who, "accept", campaign_id=campaign_id)
    moment = past.now(store)

    def then() -> list[dict]:
        frozen = past.frozen(moment)
        with store.read() as connection:
            return frame(connection, frozen.query("select * from current_decisions"), frozen.parameters).to_pylist()

    before, seconds = then(), [0.0]
    desks = Leases(store, clock=lambda: seconds[0])
    taken = desks.take(campaign_id, identity="ada", session="1", want=2)
    changed = campaigns.change_settings(
        store, campaign_id, by="root", adjudicators=[" cy ", "cy"], lease_seconds=300, gold_feedback=False
    )
    assert changed == {
        "adjudicators": {"from": ("dee",), "to": ("cy",)}, "lease_seconds": {"from": 60, "to": 300}
    }, "gold_feedback was off already"  # fmt: skip
    found = campaigns.campaign(store, campaign_id).settings
    assert (found.adjudicators, found.lease_seconds, found.blind, found.seed) == (("cy",), 300, True, 7)
    (event, _made) = campaigns.events(store, campaign_id)
    assert (event["kind"], event["done_by"], event["details"]["lease_seconds"]) == (
        "settings", "root", {"from": 60, "to": 300}
    )  # fmt: skip
    seconds[0] = 200.0
    assert sorted(row["pair_id"] for row in desks.out(campaign_id)) == sorted(taken), "the running table sees it"
    assert campaigns.change_settings(store, campaign_id, lease_seconds=60) == {"lease_seconds": {"from": 300, "to": 60}}
    assert desks.out(campaign_id) == []
    assert campaigns.change_settings(store, campaign_id, lease_seconds=60) == {}
    for those, words in (({"blind": False}, "'blind' of a campaign cannot"), ({"second_look_share": 2}, "share of 2")):
        with pytest.raises(SettingsError, match=words):
            campaigns.change_settings(store, campaign_id, **those)
    with pytest.raises(StoreError, match="no campaign 99"):
        campaigns.change_settings(store, 99, gold_feedback=True)
    assert len(campaigns.events(store, campaign_id)) == 3
    assert before == then()
    assert past.now(store).campaigns == moment.campaigns


def test_a_reviewer_cannot_make_or_change_a_campaign(store: Store, ids: list[int]) -> None:
    campaign_id = make(store, ids)
    with as_actor(Actor("ada", "Ada", "reviewer")):
        for change in (
            lambda: make(store, ids, name="Mine"),
            lambda: campaigns.close(store, campaign_id),
            lambda: campaigns.change_people(store, campaign_id, ["ada", "zoe"]),
            lambda: campaigns.change_guidelines(store, campaign_id, "accept all"),
            lambda: campaigns.change_settings(store, campaign_id, adjudicators=["ada"]),
            lambda: campaigns.add_pairs(store, campaign_id, add_pairs_of_admin),
        ):
            with pytest.raises(NotAllowedError):
                change()
    assert len(campaigns.events(store, campaign_id)) == 1


add_pairs_of_admin = [1, 2, 3, 4, 5, 6, 7]


# --- how far it is ---


def test_progress_counts_pairs_people_and_gold_by_hand(store: Store, ids: list[int]) -> None:
    campaign_id = make(store, ids, gold={ids[0]: "accept", ids[1]: "reject"})
    inside = {"campaign_id": campaign_id}
    for pair_id, words in {
        ids[0]: ("accept", "accept"), ids[1]: ("accept", "reject"), ids[2]: ("accept", "reject"), ids[3]: ("reject",)
    }.items():  # fmt: skip
        for who, verdict in zip(("ada", "ben"), words, strict=False):
            say(store, pair_id, who, verdict, seconds=10.0 if who == "ada" else None, **inside)
    say(store, ids[2], "root", "reject", purpose="adjudication", **inside)
    say(store, ids[4], "cy", "skip", **inside)
    say(store, ids[4], "dan", "accept")  # from outside: it does not count here
    found = campaign_progress.progress(store, campaign_id)
    assert found.states == {"waiting": 3, "agreed": 1, "disputed": 1, "adjudicated": 1, "bulk": 0}
    assert found.waiting == {0: 2, 1: 1}
    assert (found.n_pairs, found.n_wanted, found.n_decisions, found.n_left) == (6, 12, 7, 5)
    people = {one.identity: one for one in found.people}
    assert list(people) == ["ada", "ben", "cy", "root"]
    ada, ben = people["ada"], people["ben"]
    assert (ada.n_decided, ada.median_seconds, ada.n_gold, ada.n_gold_right) == (4, 10.0, 2, 1)
    assert (ben.n_decided, ben.median_seconds, ben.gold_accuracy) == (3, None, 1.0)
    assert (people["cy"].n_skipped, people["cy"].gold_accuracy) == (1, None)
    assert found.n_recent == 7
    assert found.seconds_left == pytest.approx(5 / 7 * found.recent_seconds)
    assert [one["pair_id"] for one in campaign_progress.pairs(store, campaign_id, states=["waiting"])] == ids[3:]


def test_a_ruling_saves_the_decisions_that_were_missing(store: Store, ids: list[int]) -> None:
    campaign_id = make(store, ids)
    say(store, ids[0], "root", "reject", purpose="adjudication", campaign_id=campaign_id)
    found = campaign_progress.progress(store, campaign_id)
    assert (found.n_left, found.seconds_left, found.states["adjudicated"]) == (10, None, 1)


def test_without_people_everybody_takes_part(store: Store, ids: list[int]) -> None:
    campaign_id = campaigns.create(store, name="All", pair_ids=ids, overlap=2)
    assert campaigns.campaign(store, campaign_id).takes_part("anybody")
    assert len(Leases(store).take(campaign_id, identity="anybody", session="1", want=3)) == 3
    with pytest.raises(StoreError, match="Everybody"):
        campaigns.change_people(store, campaign_id, ["ada", "ben"])
