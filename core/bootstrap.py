"""Bootstrap intervals of a mean: how far the mean of a dataset's values would move with other rows of its kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95
EXACT_UP_TO = 20_000
BINS = 256
SINGLE = 64
_DRAWN_AT_ONCE = 500_000
_COUNTED_FROM = 4


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its interval [low, high]; no mean of no value, no interval of fewer than two values.

    ``binned`` says that the values were too many to be drawn one by one (see :func:`mean_interval`).
    """

    n: int
    mean: float | None
    low: float | None
    high: float | None
    binned: bool = False


def mean_interval(
    values: np.ndarray,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
    exact_up_to: int = EXACT_UP_TO,
) -> Interval:
    """Percentile bootstrap interval of the mean (Efron 1979): the middle ``level`` of the means of ``resamples``.

    Up to ``exact_up_to`` values each resample draws n of the n values with replacement. Above that the sorted values
    are put into ``BINS`` bins: the ``SINGLE`` smallest and the ``SINGLE`` largest alone, the others by equal count. A
    resample draws how many values come from each bin (multinomial), and the sum within the bins from a normal
    distribution with their own means and variances. Mean and variance of the resampled means are then exactly those of
    drawing one by one; only the shape within a bin of many, which lies between the extremes, is taken as normal. The
    same values, in any order, with the same seed give the same interval.

    Args:
        values: float64 ``[n]``, finite. Values that are missing are left out by the caller.
        level: share of the resampled means that lie in the interval.
    """
    return mean_intervals([values], level=level, resamples=resamples, seed=seed, exact_up_to=exact_up_to)[0]


def mean_intervals(
    columns: Sequence[np.ndarray],
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
    exact_up_to: int = EXACT_UP_TO,
) -> list[Interval]:
    """Return :func:`mean_interval` of each column; columns of the same length share their draws, which saves time.

    What a column gets does not depend on the others, but for rounding: the draws follow from ``seed`` and the column's
    length alone.
    """
    found: list[Interval | None] = [None] * len(columns)
    same_length: dict[int, list[int]] = {}
    for i, column in enumerate(columns):
        n = len(column)
        if n == 0:
            found[i] = Interval(0, None, None, None)
        elif n == 1:
            found[i] = Interval(1, float(column[0]), None, None)
        else:
            same_length.setdefault(n, []).append(i)
    tails = [(1 - level) / 2, (1 + level) / 2]
    for n, members in same_length.items():
        scaled = [_scaled(columns[i]) for i in members]
        rng = np.random.default_rng([seed, n])
        binned = n > max(exact_up_to, 4 * BINS)
        draw = _by_bins if binned else _one_by_one
        means = draw([column for column, _, _ in scaled], resamples, rng)
        for i, (_, centre, scale), resampled in zip(members, scaled, means, strict=True):
            low, high = centre + scale * np.quantile(resampled, tails)
            found[i] = Interval(n, float(centre), float(min(low, centre)), float(max(high, centre)), binned)
    return [interval for interval in found if interval is not None]


def _scaled(values: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Sorted values with mean 0 and at most 1 in size, their mean and the scale: no sum of them can overflow."""
    values = np.sort(np.asarray(values, np.float64))
    largest = float(np.abs(values).max()) or 1.0
    centre = float(np.mean(values / largest))
    centred = values / largest - centre
    scale = float(np.abs(centred).max()) or 1.0
    return centred / scale, centre * largest, scale * largest


def _one_by_one(columns: Sequence[np.ndarray], resamples: int, rng: np.random.Generator) -> list[np.ndarray]:
    n = len(columns[0])
    means = [np.empty(resamples) for _ in columns]
    together = np.column_stack(columns)
    at_once = max(1, _DRAWN_AT_ONCE // n)
    for start in range(0, resamples, at_once):
        stop = min(start + at_once, resamples)
        drawn = rng.integers(0, n, size=(stop - start, n), dtype=np.uint16 if n <= 2**16 else np.uint32).astype(np.intp)
        if len(columns) < _COUNTED_FROM:
            for column, out in zip(columns, means, strict=True):
                out[start:stop] = column.take(drawn).mean(axis=1)
            continue
        # How often each value was drawn serves all columns at once.
        drawn += np.arange(stop - start)[:, None] * n
        counts = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        for out, sums in zip(means, (counts.astype(np.float64) @ together).T, strict=True):
            out[start:stop] = sums / n
    return means


def _by_bins(columns: Sequence[np.ndarray], resamples: int, rng: np.random.Generator) -> list[np.ndarray]:
    n = len(columns[0])
    between = np.linspace(SINGLE, n - SINGLE, BINS - 2 * SINGLE, endpoint=False).astype(np.intp)
    starts = np.concatenate((np.arange(SINGLE), between, np.arange(n - SINGLE, n)))
    counts = np.diff(np.append(starts, n))
    drawn = rng.multinomial(n, counts / n, size=resamples).astype(np.float64)
    noise = rng.standard_normal(resamples)
    means = []
    for column in columns:
        middle = np.add.reduceat(column, starts) / counts
        variance = np.add.reduceat((column - np.repeat(middle, counts)) ** 2, starts) / counts
        means.append((drawn @ middle + noise * np.sqrt(drawn @ variance)) / n)
    return means
