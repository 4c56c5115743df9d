"""One indicator at a time: runs of a kind, a straight line with its band, correlations with their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.correlation import FEWEST_ROWS, Method, correlations
from core.run_table import RESPONSE, RunTable

CONFIDENCE = 0.95
_PLACES = 41


@dataclass(frozen=True)
class Line:
    """Least squares of y on one x: ``y = intercept + slope · x`` over ``n`` points.

    ``standard_error`` and the two-sided ``p`` are the slope's. ``places`` are x from the lowest to the highest point;
    ``middle``, ``low`` and ``high`` the mean of y there with the pointwise band of ``confidence``.
    """

    n: int
    intercept: float
    slope: float
    standard_error: float
    p: float
    confidence: float
    places: tuple[float, ...]
    middle: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def line(
    x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray, *, confidence: float = CONFIDENCE
) -> Line | None:
    """Fit y on x (both ``[n]``, finite); None with fewer than three points, or where x does not differ.

    The band is that of the mean (Draper & Smith 1998, section 1.4): ``ŷ ± t · s · √(1/n + (x − x̄)² / Sxx)`` with
    n − 2 degrees of freedom. It holds at each x alone, not for the whole line at once.
    """
    from scipy import stats

    if len(x) != len(y):
        raise ValueError(f"{len(x)} values of x for {len(y)} of y")
    across, up = np.asarray(x, np.float64), np.asarray(y, np.float64)
    n = len(across)
    # Values that are equal but for rounding would give any slope.
    if n < FEWEST_ROWS or np.ptp(across) <= 1e-12 * max(float(np.abs(across).max()), 1e-300):
        return None
    centred = across - across.mean()
    sxx = float(centred @ centred)
    slope = float(centred @ up) / sxx
    residuals = up - up.mean() - slope * centred
    s = math.sqrt(float(residuals @ residuals) / (n - 2))
    error = s / math.sqrt(sxx)
    t = float(stats.t.ppf((1 + confidence) / 2, n - 2))
    p = float(2 * stats.t.sf(abs(slope) / error, n - 2)) if error > 0 else (0.0 if slope else 1.0)
    places = np.linspace(across.min(), across.max(), _PLACES)
    middle = up.mean() + slope * (places - across.mean())
    half = t * s * np.sqrt(1 / n + (places - across.mean()) ** 2 / sxx)
    return Line(
        n=n,
        intercept=float(up.mean() - slope * across.mean()),
        slope=slope,
        standard_error=error,
        p=p,
        confidence=confidence,
        places=tuple(places.tolist()),
        middle=tuple(middle.tolist()),
        low=tuple((middle - half).tolist()),
        high=tuple((middle + half).tolist()),
    )


@dataclass(frozen=True)
class CorrelationInterval:
    """A correlation over ``n`` points with its interval; what cannot be computed is None, with a ``reason``."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    reason: str | None = None


def correlation(
    x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray, *, method: Method, confidence: float = CONFIDENCE
) -> CorrelationInterval:
    """Pearson's or Spearman's correlation with the interval of Fisher's z: ``tanh(artanh r ± q · SE)``.

    SE is 1 / √(n − 3) for Pearson (Fisher 1921) and √((1 + r²/2) / (n − 3)) for Spearman (Bonett & Wright 2000,
    equation 4). Both want n > 3; a correlation of exactly ±1 has no width by this formula and gets no interval.
    """
    from scipy import stats

    found = correlations(np.column_stack((x, y)).reshape(-1, 2), method=method)[0][1]
    if found.value is None:
        reason = found.reason or ""
        if found.n < FEWEST_ROWS:
            reason = f"Fewer than {FEWEST_ROWS} runs."
        elif "first" in reason or "Both" in reason:
            reason = "The indicator is the same in every run."
        elif "second" in reason:
            reason = "The loss is the same in every run."
        return CorrelationInterval(None, None, None, found.n, reason)
    value, n = found.value, found.n
    if n <= 3:
        return CorrelationInterval(value, None, None, n, "Three runs are too few for an interval.")
    if abs(value) >= 1 - 1e-12:
        return CorrelationInterval(value, None, None, n, "All points lie in one order; there is no interval.")
    error = math.sqrt((1 + value**2 / 2 if method == "spearman" else 1.0) / (n - 3))
    q = float(stats.norm.ppf((1 + confidence) / 2))
    z = math.atanh(value)
    return CorrelationInterval(value, math.tanh(z - q * error), math.tanh(z + q * error), n)


# --- runs of a kind ---

GROUPS = ("bins", "mixtures", "subsets")
_GROUP_OF_ROLE = {"bin": "bins", "mixture": "mixtures"}


@dataclass(frozen=True)
class Point:
    """A run: the mean of the indicator over its dataset, its response, its label and its id."""

    x: float
    y: float
    label: str
    key: int


@dataclass(frozen=True)
class Group:
    """Runs of one kind (of ``GROUPS``), the line through them (None: there is none) and their correlations."""

    kind: str
    points: tuple[Point, ...]
    line: Line | None
    pearson: CorrelationInterval
    spearman: CorrelationInterval


def groups(
    table: RunTable, *, key: str, output: str, scorer_id: int | None, log_response: bool = False, all_bins: bool = False
) -> list[Group]:
    """The runs that have the indicator ``key`` by their kind, in the order of ``GROUPS``; empty ones are left out.

    Bins that were cut by another indicator are left out unless ``all_bins``: they say little about this one. The
    response is the evaluation loss, or its natural log.
    """
    found: dict[str, list[Point]] = {kind: [] for kind in GROUPS}
    for run, label, x, loss in zip(table.runs, table.labels, table.columns[key], table.columns[RESPONSE], strict=True):
        if x is None or loss is None or (log_response and loss <= 0):
            continue
        if run["role"] == "bin" and not all_bins and not _is_cut_by(run["details"], key, output, scorer_id):
            continue
        kind = _GROUP_OF_ROLE.get(run["role"], GROUPS[-1])
        found[kind].append(Point(x, math.log(loss) if log_response else loss, label, run["run_id"]))
    return [_group(kind, points) for kind, points in found.items() if points]


def _is_cut_by(details: Mapping[str, Any], key: str, output: str, scorer_id: int | None) -> bool:
    """Whether a bin was cut by this indicator.

    A bin keeps the key that its column had in the plan: ``ifd@12`` where several scorers had the output. So the output
    is compared, and the scorer where both are known; of kNN distances, which have none, the numbers in the keys.
    """
    cut, _, cut_number = str(details.get("indicator", "")).partition("@")
    number, by = key.partition("@")[2], details.get("scorer_id")
    if cut != output:
        return False
    if by is not None and scorer_id is not None:
        return bool(by == scorer_id)
    return not cut_number or not number or cut_number == number


def _group(kind: str, points: Sequence[Point]) -> Group:
    x, y = [point.x for point in points], [point.y for point in points]
    return Group(
        kind,
        tuple(points),
        line(x, y),
        correlation(x, y, method="pearson"),
        correlation(x, y, method="spearman"),
    )
