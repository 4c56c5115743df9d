"""Which rows a rule selects, and why others are refused (pure).

Rows are taken greedily by their predicted loss, the lowest first. Whether a row is taken follows from the rows before
it alone, so the selection of n rows is the first n of one ranking: the size can move without ranking again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import floor

import numpy as np

from core.errors import InputError

EXCLUDED, NO_PREDICTION, CATEGORY_FULL = "excluded", "no predicted value", "category full"
TOO_NEAR, NO_VECTOR = "too near a better row", "no embedding"
BEYOND = "beyond the size"
_BLOCK = 1024
_KEPT_AT_ONCE = 8192
_PAIRS_AT_ONCE = 8192
_ROUNDING = 4e-6  # of squared distances in float32, relative to the squared norms; nearer calls are made in float64


@dataclass(frozen=True)
class Ranking:
    """The rows that pass all constraints, best first, and why each of the others does not.

    ``places``   int64 ``[kept]``: their places in what was ranked
    ``ids``      int64 ``[kept]``
    ``predicted`` float64 ``[kept]``, rising
    ``refused``  example id -> reason (one of the constants here, or the text that ``excluded`` gave)
    ``nearest``  id of a row that is ``TOO_NEAR`` -> the id of the best row that it is too near to
    ``n_ranked`` rows that were looked at
    """

    places: np.ndarray
    ids: np.ndarray
    predicted: np.ndarray
    refused: Mapping[int, str]
    nearest: Mapping[int, int]
    n_ranked: int

    @property
    def reasons(self) -> dict[str, int]:
        """Refused rows by reason, the most frequent first."""
        return dict(Counter(self.refused.values()).most_common())


def rank(
    ids: Sequence[int] | np.ndarray,
    predicted: Sequence[float] | np.ndarray,
    *,
    categories: Sequence[Hashable] | None = None,
    max_per_category: int | None = None,
    vectors: np.ndarray | None = None,
    min_distance: float | None = None,
    excluded: Mapping[int, str] | None = None,
) -> Ranking:
    """Rank rows by their predicted (log) loss, lowest first; of equal ones the one that stands first.

    A row is refused, in this order of reasons: it is ``excluded``; it has no predicted value (NaN or infinite); it has
    no embedding (only where a distance is asked); ``max_per_category`` rows of its category are kept; it lies nearer
    than ``min_distance`` to a row that is kept. Distances are exact: blocks of float32 products, and float64 where
    rounding could decide.

    Args:
        ids: ``[n]`` distinct example ids.
        predicted: ``[n]`` predicted values, NaN where there is none.
        categories: ``[n]`` the category of each row; None is a category like any other.
        vectors: ``[n, d]`` embeddings; a row of NaN has none.
        min_distance: Euclidean.
        excluded: example id -> why it must not be selected.

    Raises:
        InputError: lengths differ, an id stands twice, or a limit is not positive.
    """
    found = np.asarray(ids, np.int64)
    values = np.asarray(predicted, np.float64)
    _check(found, values, categories, max_per_category, vectors, min_distance)
    refused: dict[int, str] = {}
    for place, reason in _hopeless(found, values, vectors if min_distance else None, excluded or {}):
        refused[place] = reason
    order = np.argsort(np.where(np.isfinite(values), values, np.inf), kind="stable")
    candidates = [int(place) for place in order if int(place) not in refused]
    full = _Full(categories, max_per_category)
    nearest: dict[int, int] = {}
    if min_distance is None or vectors is None:
        kept = [place for place in candidates if full.admits(place, refused)]
    else:
        kept = _apart(candidates, vectors, min_distance, full, refused, nearest)
    places = np.array(kept, np.int64)
    names = found.tolist()
    return Ranking(
        places=places,
        ids=found[places],
        predicted=values[places],
        refused={names[place]: reason for place, reason in refused.items()},
        nearest={names[place]: names[other] for place, other in nearest.items()},
        n_ranked=len(found),
    )


def _check(
    ids: np.ndarray, values: np.ndarray, categories: Sequence[Hashable] | None, max_per_category: int | None,
    vectors: np.ndarray | None, min_distance: float | None,
) -> None:  # fmt: skip
    n = len(ids)
    if values.shape != (n,) or (categories is not None and len(categories) != n):
        raise InputError("Every row needs one predicted value and, where categories limit, one category.")
    if len(np.unique(ids)) != n:
        raise InputError("A row stands twice among those to rank. Rank distinct rows.")
    if max_per_category is not None and (categories is None or max_per_category < 1):
        raise InputError("A limit per category needs the categories, and is at least 1.")
    if min_distance is not None and (vectors is None or vectors.shape[:1] != (n,) or not min_distance > 0):
        raise InputError("A minimum distance needs a vector for every row, and is larger than 0.")


def _hopeless(
    ids: np.ndarray, values: np.ndarray, vectors: np.ndarray | None, excluded: Mapping[int, str]
) -> list[tuple[int, str]]:
    without = np.zeros(len(ids), bool) if vectors is None else ~np.isfinite(vectors).all(axis=1)
    finite = np.isfinite(values)
    found = []
    for place, (row, has_value, no_vector) in enumerate(
        zip(ids.tolist(), finite.tolist(), without.tolist(), strict=True)
    ):
        if row in excluded:
            found.append((place, excluded[row]))
        elif not has_value:
            found.append((place, NO_PREDICTION))
        elif no_vector:
            found.append((place, NO_VECTOR))
    return found


class _Full:
    """Counts kept rows per category; a row of a full one is refused."""

    def __init__(self, categories: Sequence[Hashable] | None, most: int | None) -> None:
        self._categories = categories if most is not None else None
        self._most = most or 0
        self._counts: Counter[Hashable] = Counter()

    def refuses(self, place: int) -> bool:
        return self._categories is not None and self._counts[self._categories[place]] >= self._most

    def keep(self, place: int) -> None:
        if self._categories is not None:
            self._counts[self._categories[place]] += 1

    def admits(self, place: int, refused: dict[int, str]) -> bool:
        if self.refuses(place):
            refused[place] = CATEGORY_FULL
            return False
        self.keep(place)
        return True


def _apart(
    candidates: Sequence[int], vectors: np.ndarray, distance: float, full: _Full, refused: dict[int, str],
    nearest: dict[int, int],
) -> list[int]:  # fmt: skip
    """Places of the candidates, in order, that lie at least ``distance`` from all that are kept before them."""
    rows = np.ascontiguousarray(vectors, np.float32)
    kept: list[int] = []
    kept_rows = np.empty((len(candidates), rows.shape[1]), np.float32)
    for start in range(0, len(candidates), _BLOCK):
        # Categories only fill up, so those of a full one need no distances.
        block = []
        for place in candidates[start : start + _BLOCK]:
            if full.refuses(place):
                refused[place] = CATEGORY_FULL
            else:
                block.append(place)
        mine = rows[block]
        blocked = _blocked(mine, kept_rows[: len(kept)], block, kept, vectors, distance)
        within = _near(mine, mine, block, block, vectors, distance)
        for i, place in enumerate(block):
            if full.refuses(place):
                refused[place] = CATEGORY_FULL
            elif place in blocked:
                refused[place], nearest[place] = TOO_NEAR, blocked[place]
            else:
                full.keep(place)
                kept_rows[len(kept)] = mine[i]
                kept.append(place)
                for j in np.flatnonzero(within[i, i + 1 :]) + i + 1:
                    blocked.setdefault(block[j], place)
    return kept


def _blocked(
    mine: np.ndarray, others: np.ndarray, block: Sequence[int], kept: Sequence[int], vectors: np.ndarray,
    distance: float,
) -> dict[int, int]:  # fmt: skip
    """Place in ``block`` -> the best kept row that it is too near to."""
    found: dict[int, int] = {}
    for start in range(0, len(others), _KEPT_AT_ONCE):
        those = kept[start : start + _KEPT_AT_ONCE]
        near = _near(mine, others[start : start + _KEPT_AT_ONCE], block, those, vectors, distance)
        for i in np.flatnonzero(near.any(axis=1)).tolist():
            found.setdefault(block[i], those[int(near[i].argmax())])
    return found


def _near(
    one: np.ndarray, other: np.ndarray, one_places: Sequence[int], other_places: Sequence[int], vectors: np.ndarray,
    distance: float,
) -> np.ndarray:  # fmt: skip
    """Whether ``[m, k]`` pairs of rows lie nearer than ``distance``; what rounding could decide is taken in float64."""
    norms, other_norms = (one * one).sum(axis=1)[:, None], (other * other).sum(axis=1)[None, :]
    squared = one @ other.T
    squared *= -2
    squared += norms
    squared += other_norms
    near = squared < distance * distance
    largest = float(norms.max(initial=0.0) + other_norms.max(initial=0.0))
    slack = _ROUNDING * max(largest, distance * distance)
    close = np.argwhere(np.abs(squared - distance * distance) <= slack)
    for start in range(0, len(close), _PAIRS_AT_ONCE):
        i, j = close[start : start + _PAIRS_AT_ONCE].T
        mine, theirs = np.asarray(one_places)[i], np.asarray(other_places)[j]
        gap = vectors[mine].astype(np.float64) - vectors[theirs].astype(np.float64)
        near[i, j] = np.sqrt((gap * gap).sum(axis=1)) < distance
    return near


# --- the size ---


@dataclass(frozen=True)
class Selection:
    """The rows that are selected, best first, and why the others are not (reason by example id, and counted).

    ``asked``: rows that were asked for. ``shortfall``: how many fewer there are, with a sentence in ``said``.
    """

    kept: tuple[int, ...]
    asked: int
    refused: Mapping[int, str]
    reasons: Mapping[str, int]
    said: str = ""

    @property
    def shortfall(self) -> int:
        """Rows that were asked for and could not be found."""
        return self.asked - len(self.kept)


def n_asked(
    ranking: Ranking, *, size: int | None = None, share: float | None = None, threshold: float | None = None
) -> int:
    """How many rows are asked for: ``size``; the ``share`` of all ranked rows, rounded down; or all that pass with a
    predicted value up to ``threshold``. May exceed the rows that pass.

    Raises:
        InputError: not exactly one of the three is given, or it makes no sense.
    """
    if sum(one is not None for one in (size, share, threshold)) != 1:
        raise InputError("Say the size of the selection in one way: a number, a share or a threshold.")
    if size is not None:
        if size < 0:
            raise InputError(f"{size} is no number of rows.")
        return int(size)
    if share is not None:
        if not 0 <= share <= 1:
            raise InputError(f"A share lies between 0 and 1; {share:g} does not.")
        return floor(share * ranking.n_ranked + 1e-9)
    if threshold is None or np.isnan(threshold):
        raise InputError("The threshold is not a number.")
    return int(np.searchsorted(ranking.predicted, threshold, side="right"))


def cut(
    ranking: Ranking, *, size: int | None = None, share: float | None = None, threshold: float | None = None
) -> Selection:
    """The selection of this size: the first rows of the ranking. Says so when there are fewer than asked."""
    asked = n_asked(ranking, size=size, share=share, threshold=threshold)
    kept = tuple(ranking.ids[:asked].tolist())
    beyond = ranking.ids[asked:].tolist()
    refused = {**ranking.refused, **dict.fromkeys(beyond, BEYOND)}
    reasons = {**ranking.reasons, **({BEYOND: len(beyond)} if beyond else {})}
    said = ""
    if len(kept) < asked:
        why = ", ".join(f"{n:,} {reason}" for reason, n in ranking.reasons.items())
        said = f"{asked:,} rows were asked for and {len(kept):,} remain. Refused: {why or 'none, there are no more'}."
    return Selection(kept, asked, refused, reasons, said)


def select(
    ids: Sequence[int] | np.ndarray,
    predicted: Sequence[float] | np.ndarray,
    *,
    size: int | None = None,
    share: float | None = None,
    threshold: float | None = None,
    categories: Sequence[Hashable] | None = None,
    max_per_category: int | None = None,
    vectors: np.ndarray | None = None,
    min_distance: float | None = None,
    excluded: Mapping[int, str] | None = None,
) -> Selection:
    """Rank (:func:`rank`) and cut (:func:`cut`) in one call; ``refused`` is by example id."""
    ranking = rank(
        ids, predicted, categories=categories, max_per_category=max_per_category, vectors=vectors,
        min_distance=min_distance, excluded=excluded,
    )  # fmt: skip
    return cut(ranking, size=size, share=share, threshold=threshold)


@dataclass(frozen=True)
class Border:
    """The rows right at the border, by their rank: the last that are ``inside`` and the first that are ``outside``.

    ``value``: the predicted value half-way between both sides, or that of the one side there is.
    """

    inside: tuple[int, ...]
    outside: tuple[int, ...]
    value: float | None


def border(ranking: Ranking, n: int, *, rows: int = 5) -> Border:
    """The border of the selection of the first ``n`` rows of a ranking; each side has up to ``rows``, nearest first."""
    n = min(max(n, 0), len(ranking.ids))
    inside = tuple(range(n - 1, max(n - 1 - rows, -1), -1))
    outside = tuple(range(n, min(n + rows, len(ranking.ids))))
    sides = [ranking.predicted[side[0]] for side in (inside, outside) if side]
    return Border(inside, outside, float(np.mean(sides)) if sides else None)


# --- what a size does to the indicators ---


@dataclass(frozen=True)
class Spreads:
    """Values of indicators over ranked rows, prepared so that any size is answered at once.

    ``edges``      for each indicator its ``bins + 1`` rising edges, over the middle of all rows
    ``counts``     int64 ``[k, bins]`` of all rows
    ``codes``      int16 ``[kept, k]``: the bin of each row of the ranking, -1 where it has no value
    ``sums``       float64 ``[kept + 1, k]``, ``numbers`` int64: cumulative over the ranking
    ``all_means``  float64 ``[k]`` over all rows; NaN where there is no value
    """

    edges: tuple[np.ndarray, ...]
    counts: np.ndarray
    codes: np.ndarray
    sums: np.ndarray
    numbers: np.ndarray
    all_means: np.ndarray

    def means(self, n: int) -> np.ndarray:
        """Means ``[k]`` over the first ``n`` rows of the ranking; NaN where none of them has a value."""
        with np.errstate(invalid="ignore", divide="ignore"):
            found: np.ndarray = np.where(self.numbers[n] > 0, self.sums[n] / self.numbers[n], np.nan)
        return found

    def selected_counts(self, n: int, column: int) -> np.ndarray:
        """Rows per bin of one indicator among the first ``n`` of the ranking."""
        codes = self.codes[:n, column]
        return np.bincount(codes[codes >= 0], minlength=self.counts.shape[1])


def spreads(values: np.ndarray, ranking: Ranking, *, bins: int = 24) -> Spreads:
    """Prepare float64 ``[n, k]`` values of all rows (in the order that was ranked) for the sizes of a ranking.

    The bins reach from the 0.5 % to the 99.5 % quantile of all rows; what lies outside counts in the first or last bin.
    """
    n, k = values.shape
    edges, counts = [], np.zeros((k, bins), np.int64)
    codes = np.full((n, k), -1, np.int16)
    for column in range(k):
        there = np.isfinite(values[:, column])
        low, high = np.quantile(values[there, column], [0.005, 0.995]) if there.any() else (0.0, 1.0)
        high = high if high > low else low + max(abs(low), 1.0) * 1e-3
        line = np.linspace(low, high, bins + 1)
        edges.append(line)
        found = np.clip(np.searchsorted(line, values[there, column], side="right") - 1, 0, bins - 1)
        codes[there, column] = found
        counts[column] = np.bincount(found, minlength=bins)
    ordered = values[ranking.places]
    there = np.isfinite(ordered)
    zeros = np.zeros((1, k))
    sums = np.vstack([zeros, np.cumsum(np.where(there, ordered, 0.0), axis=0)])
    numbers = np.vstack([zeros.astype(np.int64), np.cumsum(there, axis=0)])
    with np.errstate(invalid="ignore"):
        finite = np.isfinite(values)
        means = np.where(
            finite.any(axis=0), np.where(finite, values, 0).sum(axis=0) / finite.sum(axis=0).clip(1), np.nan
        )
    return Spreads(tuple(edges), counts, codes[ranking.places], sums, numbers, means)
