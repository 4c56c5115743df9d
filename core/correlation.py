"""Pearson and Spearman correlations of scores over the rows that have both, and an order that puts like beside like."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Method = Literal["spearman", "pearson"]
METHODS: tuple[Method, ...] = ("spearman", "pearson")
FEWEST_ROWS = 3
_Among = Callable[[int, np.ndarray, bytes], "np.ndarray | None"]  # column, rows of the pair, their key -> its numbers


@dataclass(frozen=True, slots=True)
class Correlation:
    """The correlation of two columns over the ``n`` rows that have both; None always comes with a reason."""

    value: float | None
    n: int
    reason: str | None = None


def correlations(columns: np.ndarray, *, method: Method = "spearman") -> list[list[Correlation]]:
    """Return the symmetric k × k table of the correlations of ``columns`` (float64 ``[n, k]``; NaN is no value).

    Each pair is taken over the rows that have both values, and Spearman's ranks (ties share their mean rank) are ranks
    among just these rows. A column is sorted once, whatever its partners, so that 20 columns with different gaps cost
    no more than 20 sorts.
    """
    columns = np.asarray(columns, np.float64)
    k = columns.shape[1]
    there = np.isfinite(columns)
    codes = [_codes(columns[:, i]) for i in range(k)] if method == "spearman" else []
    table: list[list[Correlation]] = [[Correlation(None, 0, "")] * k for _ in range(k)]
    # A column's numbers among the rows of a pair; most pairs have the same rows, so most are found here.
    known: dict[tuple[int, bytes], np.ndarray | None] = {}

    def among(i: int, both: np.ndarray, rows: bytes) -> np.ndarray | None:
        if (i, rows) not in known:
            if len(known) >= 2 * k:  # bounded memory
                known.clear()
            values = _ranks(codes[i][both]) if method == "spearman" else columns[both, i]
            known[i, rows] = _standardised(values)
        return known[i, rows]

    for i in range(k):
        for j in range(i, k):
            both = there[:, i] & there[:, j]
            table[i][j] = table[j][i] = _of_pair(i, j, both, among)
    return table


def _of_pair(
    i: int, j: int, both: np.ndarray, among: Callable[[int, np.ndarray, bytes], np.ndarray | None]
) -> Correlation:
    n = int(both.sum())
    if n < FEWEST_ROWS:
        return Correlation(None, n, f"Fewer than {FEWEST_ROWS} rows have both scores.")
    rows = np.packbits(both).tobytes()
    left, right = among(i, both, rows), among(j, both, rows)
    if left is None or right is None:
        which = "Both are" if left is None and right is None else "The first is" if left is None else "The second is"
        return Correlation(None, n, f"{'It is' if i == j else which} the same in every row that has both.")
    return Correlation(1.0 if i == j else float(np.clip(left @ right, -1.0, 1.0)), n)


def _codes(column: np.ndarray) -> np.ndarray:
    """The place of each value among the different values of the column, int64 ``[n]``; what is missing comes last."""
    _, codes = np.unique(column, return_inverse=True)
    return codes.astype(np.int64)


def _ranks(codes: np.ndarray) -> np.ndarray:
    """Mean ranks (from 0) of values that are given by their codes, without sorting."""
    counts = np.bincount(codes)
    below = np.cumsum(counts) - counts
    ranks: np.ndarray = (below + (counts - 1) / 2)[codes]
    return ranks


def _standardised(values: np.ndarray) -> np.ndarray | None:
    """Values with mean 0 and length 1, or None where they do not differ."""
    low, high = values.min(), values.max()
    if low == high:
        return None
    largest = max(abs(low), abs(high))  # divided by it first, no difference of two finite numbers overflows
    scaled = values / largest - low / largest
    scaled -= scaled.mean()
    length = np.sqrt(scaled @ scaled)
    return scaled / length if length > 0 and np.isfinite(length) else None


def order_by_similarity(table: Sequence[Sequence[Correlation]]) -> list[int]:
    """Columns in an order that puts strongly correlated ones (of either sign) side by side.

    Average-linkage clustering of 1 − |r|, a pair that has no correlation counting as r = 0; when two groups are joined
    their closest ends meet. Deterministic: of equal distances the first pair is joined.
    """
    k = len(table)
    distance = np.array([[1 - abs(cell.value or 0.0) for cell in row] for row in table]).reshape(k, k)
    groups = [[i] for i in range(k)]
    while len(groups) > 1:
        between = [
            (round(float(distance[np.ix_(a, b)].mean()), 9), i, j)
            for i, a in enumerate(groups)
            for j, b in enumerate(groups[:i])
        ]
        _, i, j = min(between, key=lambda found: (found[0], found[2], found[1]))
        ways = [(a, b) for a in (groups[j], groups[j][::-1]) for b in (groups[i], groups[i][::-1])]
        left, right = min(ways, key=lambda ends: distance[ends[0][-1], ends[1][0]])
        groups[j] = left + right
        del groups[i]
    return groups[0] if groups else []
