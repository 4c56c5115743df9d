"""Which decisions of the history are meant: a filter that stands in the URL (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

VERDICTS = ("accept", "edit", "new_instruction", "new_response", "reject", "skip", "flag", "unflag", "undo")
PURPOSES = ("review", "adjudication", "second_look", "bulk", "late")
STATES = {"all": "All", "standing": "Standing", "undone": "Taken back"}
"""``standing``: nobody took it back (an undo itself does not stand); ``undone``: somebody did."""


@dataclass(frozen=True, kw_only=True)
class HistoryFilter:
    """Decisions that pass; empty or None: any. ``since`` and ``until`` are days in UTC, both included."""

    reviewers: tuple[str, ...] = ()
    verdicts: tuple[str, ...] = ()
    purposes: tuple[str, ...] = ()
    campaign: int | None = None
    dataset: int | None = None
    pair: int | None = None
    since: date | None = None
    until: date | None = None
    state: str = "all"

    def to_params(self) -> dict[str, str | list[str]]:
        """As parameters of the URL; what is not asked for is left out."""
        found: dict[str, str | list[str]] = {}
        for name, values in (
            ("reviewer", self.reviewers), ("verdict", self.verdicts), ("purpose", self.purposes),
        ):  # fmt: skip
            if values:
                found[name] = list(values)
        for name in ("campaign", "dataset", "pair"):
            number = getattr(self, name)
            if number is not None:
                found[name] = str(number)
        for name, day in (("since", self.since), ("until", self.until)):
            if day is not None:
                found[name] = day.isoformat()
        if self.state != "all":
            found["state"] = self.state
        return found

    @classmethod
    def from_params(cls, params: Mapping[str, Sequence[str]]) -> HistoryFilter:
        """Read parameters of a URL (each a list of values); what is not of its form is passed over."""

        def known(name: str, allowed: Sequence[str]) -> tuple[str, ...]:
            return tuple(dict.fromkeys(one for one in params.get(name, ()) if one in allowed))

        def number(name: str) -> int | None:
            value = next(iter(params.get(name, ())), "")
            return int(value) if value.isascii() and value.isdecimal() and len(value) < 18 else None

        def day(name: str) -> date | None:
            try:
                return date.fromisoformat(next(iter(params.get(name, ())), ""))
            except ValueError:
                return None

        return cls(
            reviewers=tuple(dict.fromkeys(one for one in params.get("reviewer", ()) if one)),
            verdicts=known("verdict", VERDICTS),
            purposes=known("purpose", PURPOSES),
            campaign=number("campaign"),
            dataset=number("dataset"),
            pair=number("pair"),
            since=day("since"),
            until=day("until"),
            state=next(iter(known("state", tuple(STATES))), "all"),
        )
