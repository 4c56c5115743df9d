"""A blind vote on one pair, before and after a discussion (pure).

Agreement is the share of pairs of voters who gave the same verdict. Beside it stands Randolph's free-marginal kappa of
that one item, (agreement - 1/k) / (1 - 1/k) with k verdicts to choose from (Randolph 2005, "Free-marginal multirater
kappa"): on a single item the margins of Cohen's and Fleiss' kappa cannot be estimated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

VERDICTS = ("accept", "edit", "new_instruction", "new_response", "reject")
"""What a ballot may say, in the order in which counts are shown."""


@dataclass(frozen=True)
class Tally:
    """One round counted.

    ``counts``     verdict -> voters, in the order of :data:`VERDICTS`, those without a voter left out
    ``agreement``  share of pairs of voters with the same verdict; None (with ``reason``) below two voters
    ``kappa``      free-marginal kappa; None as above
    ``majority``   the verdict of more than half of the voters, or None
    """

    n: int
    counts: Mapping[str, int]
    agreement: float | None
    kappa: float | None
    majority: str | None
    reason: str | None = None


@dataclass(frozen=True)
class Change:
    """Both rounds of those who voted in both: ``n`` people, ``n_changed`` of them with another verdict."""

    n: int
    n_changed: int
    before: Tally
    after: Tally


def tally(ballots: Mapping[str, str], *, n_choices: int = len(VERDICTS)) -> Tally:
    """Count one round; ``ballots`` has the verdict that counts of each person.

    Raises:
        ValueError: a verdict is none of :data:`VERDICTS`, or there are fewer than two choices.
    """
    unknown = set(ballots.values()) - set(VERDICTS)
    if unknown or n_choices < 2:
        raise ValueError(f"no such verdicts: {sorted(unknown)}" if unknown else f"{n_choices} choices are no vote")
    found = Counter(ballots.values())
    counts = {verdict: found[verdict] for verdict in VERDICTS if found[verdict]}
    n = len(ballots)
    majority = next((verdict for verdict, k in counts.items() if 2 * k > n), None)
    if n < 2:
        return Tally(n, counts, None, None, majority, "Agreement needs two voters or more.")
    agreement = sum(k * (k - 1) for k in counts.values()) / (n * (n - 1))
    return Tally(n, counts, agreement, (agreement - 1 / n_choices) / (1 - 1 / n_choices), majority)


def change(before: Mapping[str, str], after: Mapping[str, str], *, n_choices: int = len(VERDICTS)) -> Change:
    """What the discussion did to those who voted in both rounds: latecomers would pass for a change of mind."""
    both = [person for person in before if person in after]
    return Change(
        n=len(both),
        n_changed=sum(before[person] != after[person] for person in both),
        before=tally({person: before[person] for person in both}, n_choices=n_choices),
        after=tally({person: after[person] for person in both}, n_choices=n_choices),
    )
