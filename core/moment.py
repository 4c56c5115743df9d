"""A past state of the store, named by what was there: the same name gives the same curated set for ever (pure).

Decisions, pairs and reflections are only ever added, by rising id; so are the pairs of a campaign, by rising position.
A state is therefore what had come by then. Ids are taken before their row is committed, and two people's rows may be
committed in another order: ids that were missing at that moment are part of its name, as they may come later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.errors import InputError

FORMAT = 1


@dataclass(frozen=True)
class CampaignThen:
    """A campaign with overlap as it was: pairs with a position up to ``last_position`` were in it."""

    campaign_id: int
    overlap: int
    last_position: int


@dataclass(frozen=True)
class Moment:
    """What had come by then.

    ``absent_decisions``  ranges (first, last) of decision ids up to ``last_decision_id`` that were not there
    ``campaigns``         campaigns in which several people decide a pair; by them it depends which decision stands
    ``when``              ISO 8601, UTC, for people; nothing is computed from it
    ``exact``             False: rows of an older version without a time took part, so it is the likeliest state
    """

    last_decision_id: int
    last_pair_id: int
    last_reflection_id: int
    absent_decisions: tuple[tuple[int, int], ...] = ()
    campaigns: tuple[CampaignThen, ...] = ()
    when: str = ""
    exact: bool = True

    def to_json(self) -> dict[str, Any]:
        """As it stands in a manifest."""
        return {
            "format": FORMAT,
            "when": self.when,
            "last_decision_id": self.last_decision_id,
            "absent_decisions": [list(one) for one in self.absent_decisions],
            "last_pair_id": self.last_pair_id,
            "last_reflection_id": self.last_reflection_id,
            "campaigns": [vars(one) for one in self.campaigns],
            "exact": self.exact,
        }

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Moment:
        """Read what :meth:`to_json` wrote.

        Raises:
            InputError: it is not of that form, or of a later one.
        """
        if said.get("format") != FORMAT:
            raise InputError(
                f"The state in this manifest is of the form {said.get('format')!r}, and this version reads {FORMAT}. "
                "Export it with the version that wrote it."
            )
        try:
            return cls(
                last_decision_id=int(said["last_decision_id"]),
                last_pair_id=int(said["last_pair_id"]),
                last_reflection_id=int(said["last_reflection_id"]),
                absent_decisions=tuple((int(first), int(last)) for first, last in said["absent_decisions"]),
                campaigns=tuple(
                    CampaignThen(int(one["campaign_id"]), int(one["overlap"]), int(one["last_position"]))
                    for one in said["campaigns"]
                ),
                when=str(said.get("when", "")),
                exact=bool(said.get("exact", True)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"The state in this manifest cannot be read: {error!r} is missing or wrong.") from error
