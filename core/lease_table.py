"""The pairs of one campaign as they lie now: who decided which, and on whose desk each lies (in memory, pure)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from core.campaign import Campaign, own_order, pick

STALE_LEASES = 20
"""A desk that is open but has decided nothing for this many lease lengths gives its pairs up as soon as others have
none left."""
Desk = tuple[str, str]
"""Whose desk it is, and its session: two tabs of one person are two desks."""


@dataclass(frozen=True)
class Outlook:
    """What a campaign still has for one person.

    ``n_free`` pairs could be given out now, ``n_held`` more may come free (they lie on others' desks, all their room is
    taken). ``n_decided`` pairs have a word of this person. ``text`` says why there is none to give; "" where there is.
    """

    n_free: int
    n_held: int
    n_decided: int
    text: str

    @property
    def is_over(self) -> bool:
        """Whether nothing can come any more unless somebody changes the campaign or takes a decision back."""
        return not self.n_free and not self.n_held


class LeaseTable:
    """The pairs of one campaign as they lie now, by place (index into ``ids``). Used under ``lock`` only."""

    def __init__(self, campaign: Campaign, event_id: int, ids: np.ndarray) -> None:
        self.campaign, self.event_id, self.ids = campaign, event_id, ids
        self.place = {int(pair_id): place for place, pair_id in enumerate(ids)}
        self.deciders: dict[int, set[str]] = {}
        self.decided: dict[str, set[int]] = {}
        self.n_counted = np.zeros(len(ids), np.int32)
        self.holders: dict[int, dict[str, str]] = {}
        self.n_leased = np.zeros(len(ids), np.int32)
        self.desks: dict[Desk, set[int]] = {}
        self.beats: dict[Desk, float] = {}
        self.decided_at: dict[Desk, float] = {}
        self.skipped: dict[str, set[int]] = {}
        self.orders: dict[str, np.ndarray] = {}
        self.stored: set[tuple[int, str, str]] = set()
        self.floor = 0
        self.recent: set[int] = set()

    def count(self, place: int, people: set[str]) -> None:
        for identity in self.deciders.get(place, set()) - people:
            self.decided[identity].discard(place)
        for identity in people:
            self.decided.setdefault(identity, set()).add(place)
        self.deciders[place] = people
        self.n_counted[place] = len(people)
        for identity in people & set(self.holders.get(place, ())):
            self.drop(place, identity)

    def has_room(self, place: int, identity: str) -> bool:
        held = self.holders.get(place, {})
        return int(self.n_counted[place]) + len(held) - (identity in held) < self.campaign.overlap

    def may_lie_on(self, place: int, identity: str) -> bool:
        """Whether a pair may be put on a desk of this person: neither decided by them nor on one, and with room."""
        theirs = identity in self.deciders.get(place, ()) or identity in self.holders.get(place, ())
        return not theirs and self.has_room(place, identity)

    def lease(self, place: int, desk: Desk) -> None:
        self.holders.setdefault(place, {})[desk[0]] = desk[1]
        self.n_leased[place] = len(self.holders[place])
        self.desks.setdefault(desk, set()).add(place)

    def drop(self, place: int, identity: str) -> None:
        held = self.holders.get(place, {})
        session = held.pop(identity, None)
        if session is not None:
            self.n_leased[place] = len(held)
            if not held:
                del self.holders[place]
            self.desks.get((identity, session), set()).discard(place)

    def clear(self, desk: Desk) -> None:
        for place in tuple(self.desks.pop(desk, ())):
            self.drop(place, desk[0])
        self.beats.pop(desk, None)
        self.decided_at.pop(desk, None)

    def take_over(self, desk: Desk) -> None:
        """Take what lies on older desks of the same person from them; on a newer one it stays, so that two open tabs
        do not take it from each other in turn."""
        for other in tuple(self.beats):  # in the order in which they were opened
            if other == desk:
                return
            if other[0] == desk[0]:
                for place in tuple(self.desks.get(other, ())):
                    self.drop(place, other[0])

    def n_elsewhere(self, desk: Desk) -> int:
        """How many pairs lie on other desks of the same person."""
        return sum(len(held) for other, held in self.desks.items() if other[0] == desk[0] and other != desk)

    def sweep(self, now: float) -> None:
        for desk in [desk for desk, beat in self.beats.items() if now - beat > self.campaign.settings.lease_seconds]:
            self.clear(desk)

    def idle(self, now: float, but: Desk) -> list[Desk]:
        """Desks that hold pairs and have decided nothing for long."""
        most = STALE_LEASES * self.campaign.settings.lease_seconds
        return [
            desk for desk, at in self.decided_at.items() if desk != but and now - at > most and self.desks.get(desk)
        ]

    def order(self, identity: str) -> np.ndarray:
        if identity not in self.orders:
            n = len(self.ids)
            settings = self.campaign.settings
            ranks = own_order(n, seed=settings.seed, identity=identity) if settings.shuffled else np.arange(n)
            self.orders[identity] = ranks
        return self.orders[identity]

    def mask(self, places: Iterable[int]) -> np.ndarray:
        found = np.zeros(len(self.ids), bool)
        found[list(places)] = True
        return found

    def mine(self, identity: str) -> np.ndarray:
        """Pairs that this person decided, or has on a desk."""
        held = (place for place, people in self.holders.items() if identity in people)
        return self.mask((*self.decided.get(identity, ()), *held))

    def n_free(self, identity: str) -> int:
        room = self.n_counted + self.n_leased < self.campaign.overlap
        return int((room & ~self.mine(identity)).sum())

    def free_for(self, identity: str, want: int, *, but: Iterable[int] = ()) -> list[int]:
        """Places to lease next, at most ``want``, none of ``but``."""
        found = pick(
            self.n_counted, self.n_leased, self.mine(identity) | self.mask(but),
            self.mask(self.skipped.get(identity, ())),
            self.order(identity), overlap=self.campaign.overlap, want=want,
        )  # fmt: skip
        return [int(place) for place in found]

    def leases(self) -> set[tuple[int, str, str]]:
        return {(place, identity, session) for (identity, session), held in self.desks.items() for place in held}


def late_words(pair_id: int | None, n_people: int | None, overlap: int) -> str:
    enough = n_people is None or n_people >= overlap
    who = "one other" if overlap == 1 else f"{overlap} others"
    why = f"{who} decided it" if enough else "it was given to somebody else"
    return (
        f"Pair {pair_id} took you longer than its lease, and meanwhile {why}. Your verdict is kept in the history; it "
        "does not count."
    )


def why_none(table: LeaseTable, n_free: int, n_held: int, identity: str) -> str:
    campaign = table.campaign
    if campaign.state != "open":
        return f"The campaign is {campaign.state}: no further pairs are given out."
    if not campaign.takes_part(identity):
        return "You do not take part in this campaign. Ask an admin to be added."
    if n_free:
        return ""
    if n_held > 0:
        return (
            f"{n_held:,} {'pair lies' if n_held == 1 else 'pairs lie'} on other desks just now. What is not decided "
            "there comes back to you."
        )
    if (table.n_counted >= campaign.overlap).all():
        return "Every pair of this campaign has all the decisions it needs."
    return "You have decided all that this campaign had for you; what is left needs the words of others."
