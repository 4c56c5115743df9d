"""Which rows and which pairs a page shows: frozen filters and their form in a URL (pure)."""

from __future__ import annotations

import math
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


NO_VALUE_KINDS = ("null", "unscored", "either")


@dataclass(frozen=True)
class NoValue:
    """Rows without a value of a scorer: its score is NULL (with this ``reason``, where one is given), there is none
    (``unscored``), or ``either``."""

    scorer_id: int
    kind: str = "null"
    reason: str = ""

    def __post_init__(self) -> None:
        if self.kind not in NO_VALUE_KINDS:
            raise ValueError(f"{self.kind!r} is none of {', '.join(NO_VALUE_KINDS)}")
        if self.reason and self.kind != "null":
            raise ValueError("only a NULL has a reason")


@dataclass(frozen=True)
class Category:
    """Rows whose further column ``key`` holds one of ``values``, as text; None among them: it holds nothing."""

    key: str
    values: tuple[str | None, ...]


MOST_ID_CHARACTERS = 6000
"""The longest list of rows that a link carries: servers and proxies refuse addresses over 8,192 characters."""


@dataclass(frozen=True)
class RowFilter:
    """The filter of the Explore page. ``sort`` is a scorer id, or None for the order of the dataset.

    ``ids`` are example ids in rising order, for rows that somebody marked; empty: all rows.
    """

    datasets: tuple[int, ...] = ()
    text: str = ""
    ranges: tuple[ScoreRange, ...] = ()
    sort: int | None = None
    descending: bool = True
    missing: tuple[NoValue, ...] = ()
    category: Category | None = None
    ids: tuple[int, ...] = ()

    @property
    def is_narrowed(self) -> bool:
        """Whether it asks for more than whole datasets."""
        return bool(self.text or self.ranges or self.missing or self.category or self.ids)

    def with_range(self, scorer_id: int, low: float | None, high: float | None) -> RowFilter:
        """The same filter with this scorer's range replaced (both sides None: removed)."""
        others = tuple(r for r in self.ranges if r.scorer_id != scorer_id)
        if low is None and high is None:
            return replace(self, ranges=others)
        return replace(self, ranges=(*others, ScoreRange(scorer_id, low, high)))

    def to_params(self) -> dict[str, str]:
        """Query parameters of a URL; the empty filter has none.

        Raises:
            SettingsError: there are more ``ids`` than a link carries (:func:`ids_fit_into_link`).
        """
        params: dict[str, str] = {}
        if self.datasets:
            params["datasets"] = ".".join(map(str, self.datasets))
        if self.text:
            params["text"] = self.text
        if self.ranges:
            params["ranges"] = _ranges(self.ranges)
        if self.sort is not None:
            params["sort"] = f"{self.sort}-{'down' if self.descending else 'up'}"
        if self.missing:
            params["missing"] = "~".join(f"{m.scorer_id}:{m.kind}:{_quoted(m.reason)}" for m in self.missing)
        if self.category is not None:
            parts = [self.category.key, *self.category.values]
            params["category"] = "~".join(_NOTHING if part is None else "=" + _quoted(part) for part in parts)
        if self.ids:
            params["rows"] = _packed(self.ids)
            if not ids_fit_into_link(self.ids):
                raise SettingsError(
                    f"{len(self.ids):,} marked rows are too many for a link. Save them as a dataset, and link to that."
                )
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
            missing = []
            for part in filter(None, params.get("missing", "").split("~")):
                scorer, kind, reason = part.split(":")
                missing.append(NoValue(int(scorer), kind, unquote(reason)))
            sort, _, direction = params.get("sort", "").partition("-")
            return cls(
                datasets=datasets,
                text=params.get("text", ""),
                ranges=tuple(ranges),
                sort=int(sort) if sort else None,
                descending=direction != "up",
                missing=tuple(missing),
                category=_category(params.get("category", "")),
                ids=_unpacked(params.get("rows", "")),
            )
        except ValueError as error:
            raise SettingsError(
                f"The filter in this link cannot be read ({error}). All rows are shown instead."
            ) from error


_NOTHING = "!"
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_LARGEST_ID = 2**63 - 1
_MOST_IDS = 100_000  # a short text may count a very long run


def ids_fit_into_link(ids: Sequence[int]) -> bool:
    """Whether a link can carry these rows (about 1,500 scattered ones, many more that lie side by side)."""
    return len(ids) <= _MOST_IDS and len(_packed(sorted(ids))) <= MOST_ID_CHARACTERS


def _packed(ids: Sequence[int]) -> str:
    """Rising ids as their differences in base 36, equal ones in a row counted: 5.1-3.2 means 5, 6, 7, 8, 10."""
    runs: list[list[int]] = []
    before = 0
    for example_id in ids:
        step, before = example_id - before, example_id
        if step < 1 and runs:
            raise SettingsError("Marked rows must be given in rising order, each once.")
        if runs and runs[-1][0] == step:
            runs[-1][1] += 1
        else:
            runs.append([step, 1])
    return ".".join(_base36(step) + (f"-{_base36(n)}" if n > 1 else "") for step, n in runs)


def _unpacked(text: str) -> tuple[int, ...]:
    if len(text) > MOST_ID_CHARACTERS:
        raise ValueError("it names too many rows")
    runs = [(int(step, 36), int(n or "1", 36)) for step, _, n in (p.partition("-") for p in text.split(".") if p)]
    if sum(n for _, n in runs) > _MOST_IDS or any(step < 1 or n < 1 for step, n in runs):
        raise ValueError("its rows are out of order, or too many")
    ids: list[int] = []
    for step, n in runs:
        start = ids[-1] if ids else 0
        ids += range(start + step, start + step * n + 1, step)
    if ids and ids[-1] > _LARGEST_ID:
        raise ValueError("a row in it is too large a number")
    return tuple(ids)


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits or "0"


def _quoted(text: str) -> str:
    # "~" and ":" separate parts; quote() leaves the first as it is.
    return quote(text, safe="").replace("~", "%7E")


def _category(text: str) -> Category | None:
    if not text:
        return None
    parts = text.split("~")
    if any(part != _NOTHING and not part.startswith("=") for part in parts) or parts[0] == _NOTHING:
        raise ValueError("its category is not of the form =key~=value")
    key, *values = (None if part == _NOTHING else unquote(part[1:]) for part in parts)
    return Category(key or "", tuple(values))


def _ranges(ranges: Sequence[ScoreRange]) -> str:
    return "~".join(f"{r.scorer_id}:{_number(r.low)}:{_number(r.high)}" for r in ranges)


def _number(value: float | None) -> str:
    return "" if value is None else repr(float(value))


def _optional(text: str) -> float | None:
    return float(text) if text else None


PAIR_STATES = ("undecided", "decided", "accepted", "rejected", "disputed", "flagged", "skipped", "all")
PAIR_ORDERS = (
    "largest IFD gain",
    "closest call",
    "random",
    "oldest first",
    "indicators disagree",
    "closest to the rule's cut",
    "most uncertain",
    "most similar",
    "as listed",
)
"""``most similar`` needs ``similar_to``; ``as listed`` needs ``pair_list``; ``closest to the rule's cut`` takes the
published rule where ``rule`` is None."""


@dataclass(frozen=True)
class PairFilter:
    """Which pairs, in which order: the queue of the Review page, the table of the Pairs page, what a bulk decides.

    The score ranges are of the candidate; ``gain`` is IFD(candidate) − IFD(original). Sides that are None are open.
    ``text`` stands in any text of the original or the candidate, in any case; as whole words only where ``words``.
    ``reviewers`` have a decision on the pair that still stands, whatever it was; ``pair_list`` names a list that
    somebody kept. ``similar_to`` (a pair) and ``rule`` narrow nothing: orders ask for them.
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
    text: str = ""
    words: bool = False
    scores: tuple[ScoreRange, ...] = ()
    reviewers: tuple[str, ...] = ()
    pair_list: int | None = None
    similar_to: int | None = None
    rule: int | None = None

    @property
    def n_narrowed(self) -> int:
        """By how many things it narrows, the state apart."""
        lists = (self.datasets, self.methods, self.stages, self.proposals, self.text, self.reviewers, self.pair_list)
        ranges = (self.ifd, self.r_ifd, self.gain)
        return sum(bool(one) for one in lists) + sum(one != (None, None) for one in ranges) + len(self.scores)

    def to_params(self) -> dict[str, str]:
        """Query parameters of a URL; what stands at its default is left out."""
        params: dict[str, str] = {}
        if self.datasets:
            params["datasets"] = ".".join(map(str, self.datasets))
        for name in ("methods", "stages", "proposals", "reviewers"):
            values: Sequence[str] = getattr(self, name)
            if values:
                params[name] = "~".join(_quoted(value) for value in values)
        for name in ("ifd", "r_ifd", "gain"):
            low, high = getattr(self, name)
            if low is not None or high is not None:
                params[name] = f"{_number(low)}:{_number(high)}"
        if self.scores:
            params["scores"] = _ranges(self.scores)
        for name, usual in (("state", "undecided"), ("order", PAIR_ORDERS[0]), ("text", "")):
            if getattr(self, name) != usual:
                params[name] = getattr(self, name)
        for parameter, name in _PAIR_NUMBERS.items():
            if getattr(self, name):
                params[parameter] = str(int(getattr(self, name)))
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
            scores = []
            for part in filter(None, params.get("scores", "").split("~")):
                scorer, low, high = part.split(":")
                scores.append(ScoreRange(_id(scorer) or 0, *_sides(f"{low}:{high}")))
            return cls(
                datasets=tuple(_id(part) or 0 for part in params.get("datasets", "").split(".") if part),
                state=state,
                order=order,
                seed=_id(params.get("seed", "")) or 0,
                methods=_values(params.get("methods", "")),
                stages=_values(params.get("stages", "")),
                proposals=_values(params.get("proposals", "")),
                reviewers=_values(params.get("reviewers", "")),
                ifd=_sides(params.get("ifd", ":")),
                r_ifd=_sides(params.get("r_ifd", ":")),
                gain=_sides(params.get("gain", ":")),
                text=params.get("text", ""),
                words=bool(_id(params.get("words", ""))),
                scores=tuple(scores),
                pair_list=_id(params.get("list", "")),
                similar_to=_id(params.get("like", "")),
                rule=_id(params.get("rule", "")),
            )
        except ValueError as error:
            raise SettingsError(f"The queue in this link cannot be read ({error}). The default is shown.") from error


_PAIR_NUMBERS = {"seed": "seed", "words": "words", "list": "pair_list", "like": "similar_to", "rule": "rule"}


def _id(text: str) -> int | None:
    """A number of a link, from 0 on; None where none is given."""
    if not text:
        return None
    number = int(text)
    if not 0 <= number <= _LARGEST_ID:
        raise ValueError(f"{text[:24]} is no number of anything")
    return number


def _values(text: str) -> tuple[str, ...]:
    return tuple(unquote(value) for value in text.split("~") if value)


def _sides(text: str) -> tuple[float | None, float | None]:
    low, high = (_optional(side) for side in text.split(":"))
    if not all(math.isfinite(side) for side in (low, high) if side is not None):
        raise ValueError(f"{text[:40]} is no range")
    return low, high


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
