"""Campaigns: which people review which pairs, how often each, and what may be picked next (pure)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from typing import Any

import numpy as np

from core.errors import SettingsError

USUAL_LEASE_SECONDS = 90
SHORTEST_LEASE_SECONDS, LONGEST_LEASE_SECONDS = 15, 3600
USUAL_SECONDS_PER_DECISION = 40.0
"""For an estimate before anybody has decided anything."""
MOST_LEASES = 12
"""Pairs that lie on one desk at most: the one on screen and those that were fetched ahead."""

CHANGEABLE = (
    "adjudicators", "own_disputes", "gold_feedback", "lease_seconds", "second_look_share", "second_look_after",
)  # fmt: skip
"""Settings of a campaign that may change after it was made."""


@dataclass(frozen=True, kw_only=True)
class CampaignSettings:
    """How a campaign works, beside its people, state and guidelines, which are not in here.

    Those of ``CHANGEABLE`` may change while it runs; the others would change what the decisions so far mean.
    ``everybody``: whoever has the role reviewer takes part, not only those that are named. ``blind``: others' verdicts
    and the student's proposal are hidden. ``shuffled``: each person gets the pairs in an order of their own, so that
    overlap is spread; else all in the order of the campaign. ``gold_feedback``: say after a decision on a gold pair
    what was expected. ``adjudicators``: who may adjudicate beside the admins; ``own_disputes``: also disputes in which
    they have a word themselves. ``second_look_share``: share of a person's own decisions that come back, blind, after
    at least ``second_look_after`` others. ``source``: words on where the pairs come from.
    """

    everybody: bool = False
    blind: bool = True
    lease_seconds: int = USUAL_LEASE_SECONDS
    shuffled: bool = True
    gold_feedback: bool = False
    adjudicators: tuple[str, ...] = ()
    own_disputes: bool = False
    second_look_share: float = 0.0
    second_look_after: int = 20
    seed: int = 0
    source: str = ""

    def __post_init__(self) -> None:
        if not SHORTEST_LEASE_SECONDS <= self.lease_seconds <= LONGEST_LEASE_SECONDS:
            raise SettingsError(
                f"A lease of {self.lease_seconds} s does not fit; choose {SHORTEST_LEASE_SECONDS} to "
                f"{LONGEST_LEASE_SECONDS:,} seconds."
            )
        if not 0 <= self.second_look_share <= 1:
            raise SettingsError(f"A share of {self.second_look_share} second looks does not fit; choose 0 to 1.")
        if self.second_look_after < 0:
            raise SettingsError("Second looks come after 0 or more other decisions.")

    def to_dict(self) -> dict[str, Any]:
        """As JSON keeps it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CampaignSettings:
        """Read back; what a newer version added is left out."""
        known = {field.name for field in fields(cls)}
        kept = {name: value for name, value in values.items() if name in known}
        return cls(**{**kept, "adjudicators": tuple(kept.get("adjudicators", ()))})

    def changed(self, **those: Any) -> CampaignSettings:
        """With other values of ``CHANGEABLE``.

        Raises:
            SettingsError: one of them cannot be changed, or is out of range.
        """
        frozen = sorted(set(those) - set(CHANGEABLE))
        if frozen:
            raise SettingsError(
                f"{frozen[0]!r} of a campaign cannot be changed: it would change what the decisions so far mean. "
                "Nothing was changed; make a new campaign."
            )
        if "adjudicators" in those:
            clean = (" ".join(one.split()) for one in those["adjudicators"])
            those["adjudicators"] = tuple(dict.fromkeys(one for one in clean if one))
        return replace(self, **those)


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """A campaign as it is now. ``people`` is empty where everybody takes part; ``guidelines`` is its latest version,
    counted from 1 (0: there never were any)."""

    campaign_id: int
    name: str
    overlap: int
    settings: CampaignSettings
    state: str
    people: tuple[str, ...]
    guidelines: str
    guidelines_version: int
    n_pairs: int
    n_gold: int
    created_at: datetime
    created_by: str | None

    def takes_part(self, identity: str) -> bool:
        """Whether this person reviews in it (the role is asked elsewhere)."""
        return self.settings.everybody or identity in self.people


# --- who gets what ---


def own_order(n_pairs: int, *, seed: int, identity: str) -> np.ndarray:
    """An order of the pairs that is this person's own, always the same: int64 ranks, one per pair."""
    digest = hashlib.sha256(f"{seed}\x00{identity}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big")).permutation(n_pairs).astype(np.int64)


def pick(
    n_counted: np.ndarray,
    n_leased: np.ndarray,
    mine: np.ndarray,
    skipped: np.ndarray,
    order: np.ndarray,
    *,
    overlap: int,
    want: int,
) -> np.ndarray:
    """Places of the pairs that a person gets next, at most ``want`` of them (int64).

    Free is a pair with room, ``n_counted + n_leased < overlap``, that is not ``mine`` (decided by this person, or on a
    desk of theirs). Pairs that have more decisions come first, so that pairs complete; among equals those that this
    person has not skipped, then by ``order``. All arrays have one entry per pair of the campaign.
    """
    free = np.flatnonzero((n_counted + n_leased < overlap) & ~mine)
    if not len(free) or want <= 0:
        return free[:0]
    ranked = np.lexsort((order[free], -n_counted[free].astype(np.int64), skipped[free]))
    return free[ranked[:want]]


# --- how far it is ---


@dataclass(frozen=True)
class Load:
    """What a campaign asks of its people: decisions in all, about how many each, and the hours that takes each."""

    n_pairs: int
    overlap: int
    n_people: int

    @property
    def n_decisions(self) -> int:
        """Decisions in all."""
        return self.n_pairs * self.overlap

    @property
    def each(self) -> int | None:
        """Decisions of each person, rounded up; None without people."""
        return -(-self.n_decisions // self.n_people) if self.n_people else None

    def seconds_each(self, seconds_per_decision: float) -> float | None:
        """How long each person works on it; None without people."""
        return None if self.each is None else self.each * seconds_per_decision


def seconds_left(*, n_left: int, n_recent: int, window_seconds: float) -> float | None:
    """Seconds to the end at the pace of the last ``window_seconds``; None where nobody decided in them, 0 if done."""
    if n_left <= 0:
        return 0.0
    return n_left / n_recent * window_seconds if n_recent else None


def check_people(people: Sequence[str], *, overlap: int, everybody: bool) -> tuple[str, ...]:
    """The people of a campaign, each once, in the order given.

    Raises:
        SettingsError: nobody is named, or fewer than ``overlap``.
    """
    named = tuple(dict.fromkeys(clean for clean in (" ".join(one.split()) for one in people) if clean))
    if everybody:
        return named
    if not named:
        raise SettingsError("Nobody takes part in this campaign. Name people, or let everybody review.")
    if len(named) < overlap:
        raise SettingsError(
            f"Each pair is to be decided by {overlap} people, but only {len(named)} "
            f"{'takes' if len(named) == 1 else 'take'} part. Name more people or choose a smaller overlap."
        )
    return named


def mixed(pair_ids: Sequence[int], gold: Sequence[int], *, seed: int) -> list[int]:
    """The pairs of a campaign in their order, with those gold pairs that are not among them strewn in by chance."""
    known = set(pair_ids)
    fresh = [pair_id for pair_id in dict.fromkeys(gold) if pair_id not in known]
    places = np.random.default_rng(seed).integers(0, len(pair_ids) + 1, size=len(fresh))
    strewn: dict[int, list[int]] = {}
    for pair_id, place in zip(fresh, places.tolist(), strict=True):
        strewn.setdefault(place, []).append(pair_id)
    order: list[int] = []
    for place in range(len(pair_ids) + 1):
        order += strewn.get(place, ())
        order += pair_ids[place : place + 1]
    return order
