"""Which rows and which pairs a page shows: frozen filters and their form in a URL (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import quote, unquote

from core.errors import SettingsError


@dataclass(frozen=True)
class ScoreRange:
    """Rows whose value of a scorer lies in [low, high]; an open side is None. Rows without a value are left out."""

    scorer_id: int
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class RowFilter:
    """The filter of the Explore page. ``sort`` is a scorer id, or None for the order of the dataset."""

    datasets: tuple[int, ...] = ()
    text: str = ""
    ranges: tuple[ScoreRange, ...] = ()
    sort: int | None = None
    descending: bool = True

    def with_range(self, scorer_id: int, low: float | None, high: float | None) -> RowFilter:
        """The same filter with this scorer's range replaced (both sides None: removed)."""
        others = tuple(r for r in self.ranges if r.scorer_id != scorer_id)
        if low is None and high is None:
            return replace(self, ranges=others)
        return replace(self, ranges=(*others, ScoreRange(scorer_id, low, high)))

    def to_params(self) -> dict[str, str]:
        """Query parameters of a URL; the empty filter has none."""
        params: dict[str, str] = {}
        if self.datasets:
            params["datasets"] = ".".join(map(str, self.datasets))
        if self.text:
            params["text"] = self.text
        if self.ranges:
            params["ranges"] = "~".join(f"{r.scorer_id}:{_number(r.low)}:{_number(r.high)}" for r in self.ranges)
        if self.sort is not None:
            params["sort"] = f"{self.sort}-{'down' if self.descending else 'up'}"
        return params

    @classmethod
    def from_params(cls, params: Mapping[str, str]) -> RowFilter:
        """Read a URL back.

        Raises:
            SettingsError: a parameter is not of its form (an edited or truncated link); the message names it.
        """
        try:
            datasets = tuple(int(part) for part in params.get("datasets", "").split(".") if part)
            ranges = []
            for part in filter(None, params.get("ranges", "").split("~")):
                scorer, low, high = part.split(":")
                ranges.append(ScoreRange(int(scorer), _optional(low), _optional(high)))
            sort, _, direction = params.get("sort", "").partition("-")
            return cls(
                datasets=datasets,
                text=params.get("text", ""),
                ranges=tuple(ranges),
                sort=int(sort) if sort else None,
                descending=direction != "up",
            )
        except ValueError as error:
            raise SettingsError(
                f"The filter in this link cannot be read ({error}). All rows are shown instead."
            ) from error


def _number(value: float | None) -> str:
    return "" if value is None else repr(float(value))


def _optional(text: str) -> float | None:
    return float(text) if text else None


PAIR_STATES = ("undecided", "decided", "accepted", "rejected", "flagged", "skipped", "all")
PAIR_ORDERS = ("largest IFD gain", "closest call", "random", "oldest first")


@dataclass(frozen=True)
class PairFilter:
    """The queue of the Review page: which pairs, in which order.

    The score ranges are of the candidate; ``gain`` is IFD(candidate) − IFD(original). Sides that are None are open.
    """

    datasets: tuple[int, ...] = ()
    methods: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()
    proposals: tuple[str, ...] = ()
    state: str = "undecided"
    ifd: tuple[float | None, float | None] = (None, None)
    r_ifd: tuple[float | None, float | None] = (None, None)
    gain: tuple[float | None, float | None] = (None, None)
    order: str = "largest IFD gain"
    seed: int = 0

    def to_params(self) -> dict[str, str]:
        """Query parameters of a URL; what stands at its default is left out."""
        params: dict[str, str] = {}
        if self.datasets:
            params["datasets"] = ".".join(map(str, self.datasets))
        for name in ("methods", "stages", "proposals"):
            values: Sequence[str] = getattr(self, name)
            if values:
                # "~" separates the values, and quote() leaves it as it is.
                params[name] = "~".join(quote(value, safe="").replace("~", "%7E") for value in values)
        for name in ("ifd", "r_ifd", "gain"):
            low, high = getattr(self, name)
            if low is not None or high is not None:
                params[name] = f"{_number(low)}:{_number(high)}"
        if self.state != "undecided":
            params["state"] = self.state
        if self.order != PAIR_ORDERS[0]:
            params["order"] = self.order
        if self.seed:
            params["seed"] = str(self.seed)
        return params

    @classmethod
    def from_params(cls, params: Mapping[str, str]) -> PairFilter:
        """Read a URL back.

        Raises:
            SettingsError: a parameter is not of its form; the message names it.
        """
        try:
            state, order = params.get("state", "undecided"), params.get("order", PAIR_ORDERS[0])
            if state not in PAIR_STATES or order not in PAIR_ORDERS:
                raise ValueError(f"unknown state {state!r} or order {order!r}")
            return cls(
                datasets=tuple(int(part) for part in params.get("datasets", "").split(".") if part),
                state=state,
                order=order,
                seed=int(params.get("seed", "0")),
                methods=_values(params.get("methods", "")),
                stages=_values(params.get("stages", "")),
                proposals=_values(params.get("proposals", "")),
                ifd=_sides(params.get("ifd", ":")),
                r_ifd=_sides(params.get("r_ifd", ":")),
                gain=_sides(params.get("gain", ":")),
            )
        except ValueError as error:
            raise SettingsError(f"The queue in this link cannot be read ({error}). The default is shown.") from error


def _values(text: str) -> tuple[str, ...]:
    return tuple(unquote(value) for value in text.split("~") if value)


def _sides(text: str) -> tuple[float | None, float | None]:
    low, high = text.split(":")
    return _optional(low), _optional(high)


EXPORT_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "undecided": ("original", "leave out", "student's proposal"),
    "rejected": ("original", "leave out"),
    "not_reflected": ("original", "leave out"),
}


@dataclass(frozen=True)
class ExportChoice:
    """What becomes of each kind of member when a curated set is exported.

    ``rejected`` and ``not_reflected``: "original" or "leave out"; ``undecided`` also "student's proposal".
    """

    undecided: str = "original"
    rejected: str = "original"
    not_reflected: str = "original"

    def __post_init__(self) -> None:
        for name, allowed in EXPORT_OPTIONS.items():
            if getattr(self, name) not in allowed:
                raise SettingsError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(allowed)}.")
