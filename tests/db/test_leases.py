"""Leases: no two people on one pair unless overlap is wanted, no over-collection, nothing lost; with hostile desks."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from core.campaign import MOST_LEASES, CampaignSettings, own_order, pick
from core.errors import NotAllowedError
from core.lease_table import STALE_LEASES
from db import campaigns, decisions
from db.decisions import Applied, Entry
from db.leases import Leases
from db.permission import Actor, as_actor
from db.store import Store, rows, scalar
from tests.db.campaign_pairs import add_pairs, counted, entry

LEASE_SECONDS = 60


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Room:
    """A campaign over ``n`` pairs with leases on a clock that stands still."""

    store: Store
    people: tuple[str, ...] = ("ada", "ben", "cy")
    overlap: int = 1
    n: int = 6
    clock: Clock = field(default_factory=Clock)
    n_presses: int = 0

    def __post_init__(self) -> None:
        self.ids = add_pairs(self.store, self.n)
        self.campaign_id = campaigns.create(
            self.store, name=f"over {self.ids[0]}", pair_ids=self.ids, people=self.people, overlap=self.overlap,
            lease_seconds=LEASE_SECONDS, settings=CampaignSettings(shuffled=False),
        )  # fmt: skip
        self.leases = Leases(self.store, clock=self.clock)

    def take(self, who: str, want: int = 1, *, tab: str = "1", holding: tuple[int, ...] = ()) -> list[int]:
        return self.leases.take(self.campaign_id, identity=who, session=f"{who}-{tab}", want=want, holding=holding)

    def renew(self, who: str, *holding: int, tab: str = "1") -> list[int]:
        return self.leases.renew(self.campaign_id, identity=who, session=f"{who}-{tab}", holding=holding)

    def press(
        self, who: str, pair_id: int | None, verdict: str = "accept", *, name: str = "", undoes: str | None = None
    ) -> Applied:
        self.n_presses += 1
        pressed = entry(name or f"p{self.n_presses}", pair_id, verdict, undoes=undoes)
        return self.leases.apply(self.campaign_id, [pressed], identity=who, session=f"{who}-1")[0]

    @property
    def people_of(self) -> dict[int, list[str]]:
        return counted(self.store, self.campaign_id)


# --- who gets what ---


def test_a_leased_pair_is_nobody_elses_and_a_decided_one_never_comes_again(store: Store) -> None:
    room = Room(store)
    a, b = room.take("ada", 3), room.take("ben", 3)
    assert sorted(a + b) == room.ids
    assert room.take("cy", 3) == []
    assert [room.press("ada", pair_id).kind for pair_id in a] == ["ok"] * 3
    assert room.take("ada", 3) == []
    outlook = room.leases.outlook(room.campaign_id, identity="cy")
    assert (outlook.n_free, outlook.n_held, outlook.is_over) == (0, 3, False)
    assert "3 pairs lie on other desks" in outlook.text
    for pair_id in b:
        room.press("ben", pair_id)
    outlook = room.leases.outlook(room.campaign_id, identity="cy")
    assert (outlook.is_over, outlook.n_decided) == (True, 0)
    assert "all the decisions it needs" in outlook.text


def test_with_overlap_pairs_that_have_a_decision_come_first_and_never_twice_to_one_person(store: Store) -> None:
    room = Room(store, overlap=2)
    first = room.take("ada", 2)
    assert first == room.ids[:2]
    for pair_id in first:
        room.press("ada", pair_id)
    assert room.take("ben", 3) == [*first, room.ids[2]]
    assert room.take("ada", 6) == room.ids[2:]
    assert room.take("cy", 6) == room.ids[3:], "the first two have one decision and ben's lease: no room"


def test_two_tabs_of_one_person_share_nothing(store: Store) -> None:
    room = Room(store, overlap=3)
    assert not set(room.take("ada", 3, tab="1")) & set(room.take("ada", 3, tab="2"))


def test_who_comes_back_in_another_tab_gets_what_lay_on_the_one_that_died(store: Store) -> None:
    """They read that they had decided all, until the leases of the dead tab had run out."""
    room = Room(store, n=3)
    a, b, c = room.take("ada", 3, tab="1")
    look = partial(room.leases.outlook, room.campaign_id)
    assert (look(identity="ada").is_over, look(identity="ada", session="ada-2").n_held) == (True, 3)
    assert sorted(room.take("ada", 2, tab="2")) == [a, b]
    assert room.renew("ada", a, b, c) == [a, b], "what the newer left is the older one's again"
    assert room.press("ada", c).kind == "ok"
    assert room.take("ada", 2, tab="1") == [], "two open tabs take nothing from each other in turn"
    assert room.take("ben", 3) == []
    assert room.press("ada", a).kind == "ok", "also from the tab that lost it: it is the same person's word"
    assert room.people_of == {a: ["ada"], c: ["ada"]}


def test_a_desk_holds_only_so_many_however_often_it_asks(store: Store) -> None:
    room = Room(store, n=40)
    taken = room.take("ada", 60)
    assert len(taken) == MOST_LEASES
    assert room.take("ada", 60, holding=tuple(taken)) == []


def test_an_answer_that_got_lost_is_given_again(store: Store) -> None:
    room = Room(store)
    lost = room.take("ada", 2)
    assert room.take("ada", 3) == [*lost, room.ids[2]]
    assert room.take("ben", 6) == room.ids[3:]


def test_skipped_pairs_go_back_and_come_last(store: Store) -> None:
    room = Room(store, n=3)
    (first,) = room.take("ada")
    room.press("ada", first, "skip")
    assert room.take("ada", 3) == [*room.ids[1:], first]
    again = Leases(store)
    assert again.take(room.campaign_id, identity="ben", session="new", want=1) == [], "honoured after a restart"
    room.leases.release(room.campaign_id, identity="ada", session="ada-1")
    again = Leases(store)
    assert again.take(room.campaign_id, identity="ada", session="new", want=3) == [*room.ids[1:], first]
    assert room.people_of == {}


def test_everybody_has_an_order_of_their_own_that_stays(store: Store) -> None:
    mine, yours = own_order(50, seed=1, identity="ada"), own_order(50, seed=1, identity="ben")
    assert sorted(mine) == list(range(50))
    assert (mine == own_order(50, seed=1, identity="ada")).all()
    assert (mine != yours).any()
    ids = add_pairs(store, 30)
    campaign_id = campaigns.create(store, name="spread", pair_ids=ids, people=["ada", "ben"], overlap=2)
    leases = Leases(store)
    a, b = (leases.take(campaign_id, identity=who, session=who, want=10) for who in ("ada", "ben"))
    assert a != b


def test_pick_prefers_what_is_nearly_complete_then_what_was_not_skipped() -> None:
    counted_, leased = np.array([0, 1, 2, 1, 0]), np.array([0, 0, 0, 1, 0])
    nobody = np.zeros(5, bool)
    skipped = np.array([True, False, False, False, False])
    order = np.arange(5)
    assert pick(counted_, leased, nobody, skipped, order, overlap=2, want=9).tolist() == [1, 4, 0]
    assert pick(counted_, leased, nobody, skipped, order, overlap=3, want=2).tolist() == [2, 1]
    assert pick(counted_, leased, ~nobody, skipped, order, overlap=3, want=2).tolist() == []


def test_who_takes_no_part_gets_nothing_and_decides_nothing(store: Store) -> None:
    room = Room(store)
    with pytest.raises(NotAllowedError, match="do not take part"):
        room.take("mallory")
    refused = room.press("mallory", room.ids[0])
    assert (refused.kind, "do not take part" in refused.text) == ("error", True)
    with as_actor(Actor("ada", "Ada", "viewer")), pytest.raises(NotAllowedError):
        room.take("ada")
    outside = add_pairs(store, 1)[0]
    assert "not part of the campaign" in room.press("ada", outside).text
    assert room.people_of == {}


# --- heartbeat, expiry, late ---


def test_without_a_heartbeat_a_pair_is_free_again_after_one_lease(store: Store) -> None:
    room = Room(store, n=2)
    taken = room.take("ada", 2)
    room.clock.now += LEASE_SECONDS - 1
    assert room.renew("ada", *taken) == []
    room.clock.now += LEASE_SECONDS - 1
    assert room.take("ben") == []
    room.clock.now += 2
    assert room.take("ben") == [taken[0]]
    assert room.renew("ada", *taken) == [taken[0]], "the other one is hers again"
    assert room.take("cy") == []


def test_a_late_decision_counts_while_there_is_room(store: Store) -> None:
    room = Room(store)
    (pair_id,) = room.take("ada")
    room.clock.now += LEASE_SECONDS + 1
    assert room.press("ada", pair_id).kind == "ok"
    assert room.people_of == {pair_id: ["ada"]}


@pytest.mark.parametrize("decided", [False, True])
def test_a_late_decision_without_room_is_kept_in_the_history_and_never_counts(store: Store, decided: bool) -> None:
    room = Room(store)
    (pair_id,) = room.take("ada")
    room.clock.now += LEASE_SECONDS + 1
    assert room.take("ben") == [pair_id]
    if decided:
        room.press("ben", pair_id, "reject")
    late = room.press("ada", pair_id, name="late")
    assert late.kind == "info"
    assert ("one other decided it" if decided else "given to somebody else") in late.text
    assert "kept in the history" in late.text
    with store.read() as connection:
        assert scalar(connection, "select purpose from decisions where press = 'late'") == "late"
    resent = room.press("ada", pair_id, name="late")
    assert (resent.kind, resent.decision_id) == ("info", late.decision_id)
    if not decided:
        assert room.press("ben", pair_id, "reject").kind == "ok", "a late decision takes no room"
    assert room.people_of == {pair_id: ["ben"]}
    with store.read() as connection:
        standing = rows(connection, "select verdict, reviewer from current_decisions")
        assert standing == [{"verdict": "reject", "reviewer": "ben"}]


def test_a_desk_that_is_open_but_asleep_gives_up_its_pairs_when_others_have_none(store: Store) -> None:
    room = Room(store, n=2)
    taken = tuple(room.take("ada", 2))
    for _ in range(STALE_LEASES):
        room.clock.now += LEASE_SECONDS - 1
        room.renew("ada", *taken)
        assert room.take("ben") == []
    room.clock.now += LEASE_SECONDS - 1
    room.renew("ada", *taken)
    room.clock.now += STALE_LEASES
    assert room.take("ben") == [taken[0]]


def test_pausing_gives_out_nothing_but_lets_people_finish_and_closing_does_not(store: Store) -> None:
    room = Room(store)
    a, b = room.take("ada", 2)
    campaigns.pause(store, room.campaign_id)
    assert room.take("ben") == []
    assert "paused" in room.leases.outlook(room.campaign_id, identity="ben").text
    assert room.renew("ada", a, b) == []
    assert room.press("ada", a).kind == "ok"
    campaigns.close(store, room.campaign_id)
    assert room.renew("ada", b) == [b]
    closed = room.press("ada", b)
    assert (closed.kind, "was closed before" in closed.text) == ("info", True)
    assert room.people_of == {a: ["ada"]}
    campaigns.resume(store, room.campaign_id)
    assert room.press("ada", b).kind == "ok"


def test_who_was_removed_keeps_what_was_decided_and_decides_no_more(store: Store) -> None:
    room = Room(store)
    a, b = room.take("ada", 2)
    room.press("ada", a)
    campaigns.change_people(store, room.campaign_id, ["ben", "cy"])
    assert "do not take part" in room.press("ada", b).text
    assert room.people_of == {a: ["ada"]}


# --- going back ---


def test_an_undo_makes_room_and_lays_the_pair_back_on_the_desk(store: Store) -> None:
    room = Room(store)
    (pair_id,) = room.take("ada")
    room.press("ada", pair_id, name="x")
    assert room.press("ada", None, "undo", undoes="x").kind == "ok"
    assert room.people_of == {}
    assert pair_id not in room.take("ben", 6)
    assert room.press("ada", pair_id, "reject").kind == "ok"
    assert room.people_of == {pair_id: ["ada"]}


def test_changing_ones_mind_takes_no_further_room(store: Store) -> None:
    room = Room(store, overlap=2)
    (pair_id,) = room.take("ada")
    room.press("ada", pair_id)
    assert room.press("ada", pair_id, "reject", name="again").kind == "ok"
    assert room.take("ben") == [pair_id]
    room.press("ben", pair_id, "reject")
    with store.read() as connection:
        assert rows(connection, "select verdict from current_decisions") == [{"verdict": "reject"}]
    room.press("ada", None, "undo", undoes="again")
    with store.read() as connection:
        assert rows(connection, "select verdict from current_decisions") == [], "the first word stands again: disputed"
    assert "2 others decided it" in room.press("cy", pair_id).text
    assert set(room.people_of[pair_id]) == {"ada", "ben"}


def test_an_undo_from_elsewhere_is_noticed(store: Store) -> None:
    room = Room(store, n=1)
    (pair_id,) = room.take("ada")
    room.press("ada", pair_id)
    assert room.take("ben") == []
    decisions.undo(store, reviewer="ada")
    assert room.take("ben") == [pair_id]


def test_gold_feedback_comes_after_the_decision_and_only_where_it_is_wanted(store: Store) -> None:
    ids = add_pairs(store, 2)
    for name, feedback in (("with", True), ("without", False)):
        campaign_id = campaigns.create(
            store, name=name, pair_ids=ids, people=["ada"], gold={ids[0]: "reject"},
            settings=CampaignSettings(gold_feedback=feedback),
        )  # fmt: skip
        leases = Leases(store)
        leases.take(campaign_id, identity="ada", session="s", want=2)
        said = leases.apply(
            campaign_id, [entry(f"{name}{i}", pair_id) for i, pair_id in enumerate(ids)], identity="ada", session="s"
        )
        assert [one.kind for one in said] == (["info", "ok"] if feedback else ["ok", "ok"])
        assert ("reject was expected" in said[0].text) == feedback


# --- restarts and many at once ---


def test_leases_are_honoured_for_one_lease_length_after_a_restart(tmp_path: Path) -> None:
    store = Store(tmp_path / "assay.duckdb")
    room = Room(store, n=3)
    a, b = room.take("ada", 2)
    room.press("ada", a)
    store.close()
    again = Store(tmp_path / "assay.duckdb")
    room.store, room.clock = again, Clock(5000.0)
    room.leases = Leases(again, clock=room.clock)
    assert room.take("ben", 3) == [room.ids[2]]
    assert room.renew("ada", b) == []
    room.clock.now += LEASE_SECONDS - 1
    assert room.take("cy", 3) == []
    room.clock.now += 2
    assert room.take("cy", 3) == [b, room.ids[2]], "ada was not heard of, and ben neither"
    again.close()


@dataclass
class Person:
    """One simulated reviewer: decides fast, undoes, changes their mind, closes tabs without a word, comes back."""

    name: str
    leases: Leases
    campaign_id: int
    n: int = 0
    failed: str = ""

    def run(self) -> None:
        chance = random.Random(self.name)
        for desk in range(10_000):
            if self.sit(chance, f"{self.name}-{desk}"):
                return

    def sit(self, chance: random.Random, session: str) -> bool:
        """One tab; whether nothing is left to do."""
        where = {"identity": self.name, "session": session}
        cache: list[int] = []
        log: list[str] = []
        while chance.random() > 0.04:
            dropped = self.leases.renew(self.campaign_id, **where, holding=cache)
            cache = [pair_id for pair_id in cache if pair_id not in dropped]
            batch = [self.entry(pair_id, chance.choice(("accept", "reject"))) for pair_id in cache[:3]]
            if log and chance.random() < 0.2:
                batch.append(self.entry(None, "undo", undoes=log.pop()))
            for pressed, said in zip(batch, self.leases.apply(self.campaign_id, batch, **where), strict=True):
                if said.kind == "error":
                    self.failed = said.text
                if said.kind == "ok" and pressed.action == "decide":
                    log.append(pressed.press)
            cache = cache[3:]
            cache += self.leases.take(self.campaign_id, **where, want=5, holding=cache)
            if not cache:
                if self.leases.outlook(self.campaign_id, identity=self.name).is_over:
                    return True
                time.sleep(0.01)
        return False

    def entry(self, pair_id: int | None, verdict: str, **more: object) -> Entry:
        self.n += 1
        return entry(f"{self.name}:{self.n}", pair_id, verdict, **more)


def test_fifteen_reviewers_at_full_speed_collect_exactly_the_overlap(store: Store) -> None:
    ids = add_pairs(store, 60)
    names = [f"reviewer {i}" for i in range(15)]
    campaign_id = campaigns.create(
        store, name="crowd", pair_ids=ids, people=names, overlap=2, lease_seconds=15,
    )  # fmt: skip
    leases = Leases(store, clock=lambda: time.monotonic() * 40)  # a lease is over in 0.4 s: some come late
    people = [Person(name, leases, campaign_id) for name in names]
    threads = [threading.Thread(target=person.run) for person in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()
    assert [person.failed for person in people if person.failed] == []
    found = counted(store, campaign_id)
    assert sorted(found) == ids
    assert {pair_id: who for pair_id, who in found.items() if len(who) != 2 or len(set(who)) != 2} == {}
    with store.read() as connection:
        n_presses = scalar(connection, "select count(*) from decisions")
    assert n_presses == sum(person.n for person in people), "late or not, every press is in the history"
