"""How far judges agree, with each other and with themselves when the order of the answers is swapped (pure).

Verdicts are those of ``categories``; where none are named, "win", "tie" and "lose" of the first answer set. Items on
which a side has no verdict (``None`` or "unparsed") are left out and not counted. What is undefined is None with the
reason. Krippendorff's alpha, for any number of judges, stands in :mod:`core.krippendorff`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

CATEGORIES = ("lose", "tie", "win")
"""In their order, which the linear weights go by."""

_OF_PREFERENCE = {-1: "lose", 0: "tie", 1: "win"}


@dataclass(frozen=True)
class Kappa:
    """Cohen's kappa of two judges over the ``n`` items that both have a verdict on.

    ``value``     1: they always agree; 0: as often as by chance; None with a ``reason`` where it is undefined
    ``observed``  share of agreement: of equal verdicts, or of their closeness with linear weights
    ``expected``  the same by chance, from how often each judge gives each verdict
    ``low, high`` its 95 % interval where one was asked for
    """

    value: float | None
    n: int
    observed: float | None
    expected: float | None
    reason: str | None = None
    low: float | None = None
    high: float | None = None


def cohen_kappa(
    a: Sequence[str | None],
    b: Sequence[str | None],
    *,
    weights: str | None = None,
    categories: Sequence[str] = CATEGORIES,
) -> Kappa:
    """Cohen's kappa of two judges' verdicts on the same items (Cohen 1960; with linear weights Cohen 1968).

    kappa = (observed - expected) / (1 - expected). With ``weights="linear"`` a win against a tie counts as half an
    agreement, since the verdicts are ordered: lose, tie, win.

    Args:
        a, b: a verdict per item, in the same order of items.
        categories: the verdicts that there are, in their order; any other counts as none.

    Raises:
        ValueError: the two are not equally long, or ``weights`` is neither None nor "linear".
    """
    if len(a) != len(b):
        raise ValueError(f"{len(a)} verdicts cannot be set against {len(b)}")
    place = {category: i for i, category in enumerate(categories)}
    both = [(place[x], place[y]) for x, y in zip(a, b, strict=True) if x in place and y in place]
    counts = np.zeros((len(categories), len(categories)))
    if both:
        np.add.at(counts, tuple(np.array(both).T), 1)
    return kappa_of_counts(counts, categories, weights=weights)


def kappa_of_counts(
    counts: np.ndarray,
    categories: Sequence[str],
    *,
    weights: str | None = None,
    resamples: int = 0,
    seed: int = 0,
    level: float = 0.95,
) -> Kappa:
    """Cohen's kappa from how often each two verdicts met: ``counts`` ``[categories, categories]``, judge a in the rows.

    With ``resamples`` the middle ``level`` of the kappas of that many draws of n items with replacement (percentile
    bootstrap) is its interval. Draws in which kappa is undefined are left out; where they are more than half, there is
    no interval.

    Raises:
        ValueError: ``weights`` is neither None nor "linear".
    """
    if weights not in (None, "linear"):
        raise ValueError(f"no such weights: {weights!r}")
    n = int(counts.sum())
    if n == 0:
        return Kappa(None, 0, None, None, "The two have no item in common that both have a verdict on.")
    k = len(categories)
    distance = np.abs(np.subtract.outer(np.arange(k), np.arange(k)))
    agreement = 1 - distance / max(1, k - 1) if weights == "linear" else (distance == 0).astype(float)
    observed, expected = (float(one[0]) for one in _observed_expected(counts[None] / n, agreement))
    seen = np.flatnonzero(counts.sum(0) + counts.sum(1))
    if len(seen) == 1:
        only = categories[seen[0]]
        reason = f"Both gave the verdict {only!r} on all {n} items, so chance alone would agree as much."
        return Kappa(None, n, observed, expected, reason)
    low = high = None
    if resamples and n > 1:
        drawn = np.random.default_rng(seed).multinomial(n, counts.ravel() / n, size=resamples).reshape(-1, k, k)
        low, high = middle(_kappas(drawn / n, agreement), level=level)
    return Kappa((observed - expected) / (1 - expected), n, observed, expected, None, low, high)


def _observed_expected(shares: np.ndarray, agreement: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    observed = (shares * agreement).sum((1, 2))
    expected = np.einsum("ri,ij,rj->r", shares.sum(2), agreement, shares.sum(1))
    return observed, expected


def _kappas(shares: np.ndarray, agreement: np.ndarray) -> np.ndarray:
    """Kappa of each table ``[resamples, categories, categories]``; NaN where it is undefined."""
    observed, expected = _observed_expected(shares, agreement)
    room = 1 - expected
    return np.divide(observed - expected, room, out=np.full(len(shares), np.nan), where=room > 1e-12)


def middle(values: np.ndarray, *, level: float) -> tuple[float | None, float | None]:
    """The middle ``level`` of resampled values; none where more than half of them are undefined (NaN)."""
    there = values[~np.isnan(values)]
    if not len(there) or len(there) < len(values) / 2:
        return None, None
    low, high = np.quantile(there, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class OrderAgreement:
    """How often a judge prefers the same answer in both orders, over the ``n`` items with both orders read.

    ``n_same`` preferences are the same, ``n_reversed`` the opposite (a win in one order, a loss in the other).
    """

    n: int
    n_same: int
    n_reversed: int
    share: float | None
    kappa: Kappa
    reason: str | None = None


def order_agreement(preference: Sequence[int | None], preference_swapped: Sequence[int | None]) -> OrderAgreement:
    """Compare the two orders of one judge. Preferences are the answer sets': 1 the first set's answer is better.

    Raises:
        ValueError: the two are not equally long.
    """
    kappa = cohen_kappa(_named(preference), _named(preference_swapped))
    both = _both(preference, preference_swapped)
    n = len(both)
    if n == 0:
        return OrderAgreement(0, 0, 0, None, kappa, "No item has a readable verdict in both orders.")
    n_same = sum(x == y for x, y in both)
    n_reversed = sum(x * y < 0 for x, y in both)
    return OrderAgreement(n, n_same, n_reversed, n_same / n, kappa)


@dataclass(frozen=True)
class PositionBias:
    """How far a judge favours the answer that it is shown first, over the ``n`` items with both orders read.

    ``n_flipped``     items whose preference changes with the order; ``share_flipped`` their share
    ``n_first``       items that lean to the answer shown first, both orders together; ``n_second`` the other way
    ``share_first``   n_first / (n_first + n_second): 0.5 without bias; None where no item leans
    ``p_value``       of the two-sided sign test that leaning items lean either way alike; None where none leans
    ``mean_gap``      mean score of the answer shown first less that of the other; None where no scores are known
    """

    n: int
    n_flipped: int
    share_flipped: float | None
    n_first: int
    n_second: int
    share_first: float | None
    p_value: float | None
    mean_gap: float | None
    n_gaps: int
    reason: str | None = None


def position_bias(
    preference: Sequence[int | None],
    preference_swapped: Sequence[int | None],
    *,
    gaps: Sequence[float | None] = (),
    gaps_swapped: Sequence[float | None] = (),
) -> PositionBias:
    """Measure the bias of one judge towards a position.

    The quality of the answers cancels out of an item's two orders: what is shown first changes, the answers do not. So
    an item leans to the first position where the preferences for what was shown first add up above 0 (first set
    preferred when shown first, and less so, or not, when shown second). Under no bias leaning either way is equally
    likely: the exact two-sided binomial test of n_first among those that lean.

    Args:
        preference, preference_swapped: preferences of the answer sets in the two orders.
        gaps, gaps_swapped: score of the first answer *set* less that of the second, in the two orders; may be left out.

    Raises:
        ValueError: the sequences are not equally long.
    """
    both = _both(preference, preference_swapped)
    n = len(both)
    if n == 0:
        return PositionBias(0, 0, None, 0, 0, None, None, None, 0, "No item has a readable verdict in both orders.")
    leaning = [x - y for x, y in both]  # shown first: the first set in one order, the second set in the other
    n_first, n_second = sum(one > 0 for one in leaning), sum(one < 0 for one in leaning)
    n_flipped = sum(x != y for x, y in both)
    share = p_value = None
    if n_first + n_second:
        from scipy.stats import binomtest

        share = n_first / (n_first + n_second)
        p_value = float(binomtest(n_first, n_first + n_second).pvalue)
    pairs = [(x - y) / 2 for x, y in zip(gaps, gaps_swapped, strict=True) if x is not None and y is not None]
    mean_gap = float(np.mean(pairs)) if pairs else None
    reason = None if share is not None else "No preference changes with the order, so nothing leans to a position."
    return PositionBias(n, n_flipped, n_flipped / n, n_first, n_second, share, p_value, mean_gap, len(pairs), reason)


def pairwise_kappa(
    verdicts: Mapping[str, Mapping[int, str]], *, weights: str | None = None
) -> dict[tuple[str, str], Kappa]:
    """Kappa of every two judges, people or models: ``verdicts`` has each judge's verdicts by item.

    Returns:
        A kappa by (judge, judge), each two once, in the order in which ``verdicts`` names them.
    """
    judges = list(verdicts)
    found = {}
    for i, one in enumerate(judges):
        for other in judges[i + 1 :]:
            items = sorted(set(verdicts[one]) & set(verdicts[other]))
            found[one, other] = cohen_kappa(
                [verdicts[one][item] for item in items], [verdicts[other][item] for item in items], weights=weights
            )
    return found


def _named(preferences: Sequence[int | None]) -> list[str | None]:
    return [None if one is None else _OF_PREFERENCE[one] for one in preferences]


def _both(a: Sequence[int | None], b: Sequence[int | None]) -> list[tuple[int, int]]:
    return [(x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
