"""Mixtures that spread the mean of an indicator, where random mixtures of similar sources would barely vary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from core.errors import InputError
from core.studies.plans import PlannedRun, Source, check_counts, pool_of

SPREAD = 0.6
"""How far targets reach from the mean of all rows towards the lowest and the highest mean that can be had at all."""

_TOLERANCE = 1e-3
_MOST_STEPS = 60


def steered_mixtures(
    sources: Sequence[Source],
    *,
    values: Mapping[int, float],
    indicator: str,
    n_runs: int = 78,
    size: int = 2000,
    seed: int = 0,
    spread: float = SPREAD,
) -> list[PlannedRun]:
    """Mixtures of ``size`` distinct rows whose means of an indicator are spread evenly over what can be had.

    Not of [IM], whose random mixtures (:func:`core.studies.random_mixtures`) this extends:

    - Targets are spaced evenly from ``low`` to ``high``, which lie ``spread`` of the way from the mean of all rows to
      the mean of the ``size`` lowest and of the ``size`` highest rows. They come in random order, so that a study that
      is stopped early covers the range too.
    - A mixture is drawn by exponential tilting: row j of source s has the weight ``r_s / n_s * exp(lambda z_j)`` with
      r_s ~ U(0, 1) and z its standardised value, and ``size`` rows are drawn without replacement by Gumbel keys
      (Efraimidis and Spirakis 2006): the largest ``log w_j + g_j``.
    - For given keys the mean of z over the drawn rows never falls as lambda rises (it is the slope of the convex
      function max over sets of the sum of their keys), so lambda is found by bisection on the very draw that is kept:
      the mean achieved differs from the target by no more than a thousandth of the range, or by one row's exchange.

    Rows without a value are not drawn. ``details``: indicator, target, achieved, tilt (lambda), proportions (rows by
    source; one that stands in several counts for the first) and n_without_value.

    Raises:
        InputError: too few rows have a value, the indicator is the same for all, or ``spread`` is not in (0, 1].
    """
    if not 0 < spread <= 1:
        raise InputError(f"The spread of the targets is {spread}; give a number above 0, of 1 at most.")
    every = pool_of(sources)
    pool = np.array([one for one in every.tolist() if np.isfinite(values.get(one, np.nan))], np.int64)
    if len(pool) < size <= len(every):
        raise InputError(
            f"Only {len(pool):,} of the {len(every):,} rows have a value of {indicator}, but a mixture shall have "
            f"{size:,}. Score the rest, or choose smaller mixtures."
        )
    check_counts(pool, n_runs=n_runs, size=size)
    own = np.array([values[one] for one in pool.tolist()], np.float64)
    low, high = _range(own, size=size, indicator=indicator, spread=spread)
    z = (own - own.mean()) / own.std()
    inside = _membership(sources, pool)
    order = np.random.default_rng([seed, n_runs]).permutation(n_runs)
    targets = np.linspace(low, high, n_runs) if n_runs > 1 else np.array([(low + high) / 2])
    runs = []
    for number in range(n_runs):
        generator = np.random.default_rng([seed, number])
        ratios = generator.random(len(sources))
        weights = inside @ (ratios / inside.sum(axis=0).clip(min=1))
        with np.errstate(divide="ignore"):
            keys = np.log(weights) - np.log(-np.log(generator.random(len(pool)).clip(min=1e-300)))
        target = float(targets[order[number]])
        tilt, drawn = _tilted(keys, z, own, target=target, size=size, tolerance=_TOLERANCE * (high - low))
        ids = pool[generator.permutation(drawn)]
        first = inside[drawn].argmax(axis=1)
        counts = np.bincount(first, minlength=len(sources)).tolist()
        details = {
            "proportions": {source.label: n for source, n in zip(sources, counts, strict=True)},
            "indicator": indicator,
            "target": target,
            "achieved": float(own[drawn].mean()),
            "tilt": tilt,
            "n_without_value": len(every) - len(pool),
        }
        runs.append(PlannedRun(f"mixture {number + 1}", "mixture", tuple(ids.tolist()), seed, details))
    return runs


def _range(own: np.ndarray, *, size: int, indicator: str, spread: float) -> tuple[float, float]:
    ordered = np.sort(own)
    lowest, highest, mean = float(ordered[:size].mean()), float(ordered[-size:].mean()), float(own.mean())
    if ordered[0] == ordered[-1]:
        raise InputError(
            f"{indicator} is {ordered[0]:g} for every row, so no mixture can differ in it. Choose another."
        )
    if not highest > lowest:
        raise InputError(
            f"A mixture of {size:,} rows takes all {len(own):,} rows that have a value, so its mean cannot be steered. "
            "Choose smaller mixtures or add a source."
        )
    return mean - spread * (mean - lowest), mean + spread * (highest - mean)


def _membership(sources: Sequence[Source], pool: np.ndarray) -> np.ndarray:
    """Whether each row of the pool stands in each source: bool ``[rows, sources]``."""
    return np.column_stack([np.isin(pool, np.asarray(source.example_ids, np.int64)) for source in sources])


def _tilted(
    keys: np.ndarray, z: np.ndarray, own: np.ndarray, *, target: float, size: int, tolerance: float
) -> tuple[float, np.ndarray]:
    """The tilt at which the rows with the ``size`` largest keys have the target's mean, and their places, rising."""

    def drawn(tilt: float) -> np.ndarray:
        scores = keys + tilt * z
        return np.argpartition(scores, len(scores) - size)[len(scores) - size :]

    low, high = -1.0, 1.0
    while own[drawn(low)].mean() > target and low > -1e9:
        low *= 2
    while own[drawn(high)].mean() < target and high < 1e9:
        high *= 2
    tilt = 0.0
    for _ in range(_MOST_STEPS):
        tilt = (low + high) / 2
        off = float(own[drawn(tilt)].mean()) - target
        if abs(off) <= tolerance:
            break
        low, high = (low, tilt) if off > 0 else (tilt, high)
    return float(tilt), np.sort(drawn(tilt))
