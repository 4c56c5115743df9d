"""Krippendorff's alpha: agreement of any number of judges, each of whom may have judged some units only (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from core.agreement import middle

LEVELS = ("nominal", "ordinal", "interval")


@dataclass(frozen=True)
class Alpha:
    """Krippendorff's alpha over ``n_units`` units with two values or more, ``n_values`` values in them.

    ``value``     1: full agreement; 0: as by chance; None with a ``reason`` where it is undefined
    ``observed``  mean squared difference within units; ``expected`` the same among all values, by chance
    ``low, high`` 95 % interval where one was asked for and there is one
    ``n_single``  units with one value alone: nothing to compare, so they do not count
    """

    value: float | None
    n_units: int
    n_values: int
    observed: float | None = None
    expected: float | None = None
    low: float | None = None
    high: float | None = None
    n_single: int = 0
    reason: str | None = None


def krippendorff_alpha(
    counts: np.ndarray,
    *,
    level: str = "nominal",
    values: Sequence[float] | None = None,
    resamples: int = 0,
    seed: int = 0,
    confidence: float = 0.95,
) -> Alpha:
    """Krippendorff's alpha with missing values (Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability").

    alpha = 1 - D_o / D_e with the coincidences o_ck = sum over units of n_uc (n_uk - [c = k]) / (m_u - 1), their
    margins n_c, n = sum of n_c, D_o = sum o_ck d(c, k) / n and D_e = sum n_c n_k d(c, k) / (n (n - 1)). The difference
    d is [c != k] ("nominal"), the squared difference of the middle ranks ("ordinal") or of ``values`` ("interval").

    The interval is a percentile bootstrap over units. That deviates from Hayes and Krippendorff (2007), who draw
    coincidences; here a unit is what another sample would have had instead. Draws in which alpha is undefined are left
    out; where they are more than half, there is no interval.

    Args:
        counts: ``[units, categories]``, how many judges gave each unit each category, in the order of the scale.
        values: what the categories stand for with ``level="interval"``; without it 0, 1, 2, …

    Raises:
        ValueError: no such level, or ``values`` is not one per category.
    """
    if level not in LEVELS:
        raise ValueError(f"no such level: {level!r}")
    k = counts.shape[1]
    scale = np.arange(k, dtype=float) if values is None else np.asarray(values, dtype=float)
    if len(scale) != k:
        raise ValueError(f"{len(scale)} values for {k} categories")
    sizes = counts.sum(1)
    single = int((sizes == 1).sum())
    patterns, weights = _patterns(counts[sizes > 1])
    n_units, n_values = int(weights.sum()), int(weights @ patterns.sum(1)) if len(patterns) else 0
    if not n_units:
        return Alpha(None, 0, 0, n_single=single, reason="No unit was judged by two people or more.")
    observed, expected = _disagreement(weights[None].astype(float), patterns, level, scale)
    d_o, d_e = float(observed[0]), float(expected[0])
    if d_e <= 0:
        reason = f"All {n_values} verdicts are the same, so chance alone would agree as much."
        return Alpha(None, n_units, n_values, d_o, d_e, n_single=single, reason=reason)
    low = high = None
    if resamples and n_units > 1:
        # Units with the same counts are alike, so a draw of units is a draw of how often each pattern comes.
        drawn = np.random.default_rng(seed).multinomial(n_units, weights / n_units, size=resamples).astype(float)
        within, among = _disagreement(drawn, patterns, level, scale)
        ratio = np.divide(within, among, out=np.full(resamples, np.nan), where=among > 0)
        low, high = middle(1 - ratio, level=confidence)
    return Alpha(1 - d_o / d_e, n_units, n_values, d_o, d_e, low, high, single)


def _patterns(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different rows of counts, and how often each comes."""
    base = int(counts.max(initial=0)) + 1
    if base ** counts.shape[1] >= 2**62:
        patterns, weights = np.unique(counts, axis=0, return_counts=True)
        return patterns, weights
    # A row as one number: many times faster to sort than rows.
    numbers = counts.astype(np.int64) @ base ** np.arange(counts.shape[1], dtype=np.int64)
    _, first, weights = np.unique(numbers, return_index=True, return_counts=True)
    return counts[first], weights


def coincidences(counts: np.ndarray) -> np.ndarray:
    """How often each two categories met within a unit, ``[categories, categories]``, symmetric; sums to the values."""
    sizes = counts.sum(1)
    paired = counts[sizes > 1].astype(float)
    share = 1 / (paired.sum(1, keepdims=True) - 1)
    found: np.ndarray = (paired * share).T @ paired - np.diag((paired * share).sum(0))
    return found


def _disagreement(
    weights: np.ndarray, patterns: np.ndarray, level: str, scale: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(D_o, D_e) of each row of ``weights`` ``[draws, patterns]``: how often each pattern occurs."""
    k = patterns.shape[1]
    paired = patterns.astype(float)
    met = np.einsum("pc,pk->pck", paired, paired)
    met[:, np.arange(k), np.arange(k)] -= paired
    met /= (paired.sum(1) - 1)[:, None, None]
    together = (weights @ met.reshape(len(paired), -1)).reshape(-1, k, k)
    margins = weights @ paired
    n = margins.sum(1)
    if level == "ordinal":
        ranks = np.cumsum(margins, axis=1) - margins / 2
        distance = (ranks[:, :, None] - ranks[:, None, :]) ** 2
    elif level == "interval":
        distance = np.broadcast_to(np.subtract.outer(scale, scale) ** 2, together.shape)
    else:
        distance = np.broadcast_to(1.0 - np.eye(k), together.shape)
    observed = (together * distance).sum((1, 2)) / n
    expected = (margins[:, :, None] * margins[:, None, :] * distance).sum((1, 2)) / (n * (n - 1))
    return observed, expected
