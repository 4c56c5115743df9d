"""Least squares in numpy alone, for the many small fits of a selection; ``ols.fit`` gives the same numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from core.regression.design import FULL_LEVERAGE

# A pivot of R this small means a column that follows from the others (columns have length 1).
_SINGULAR = 1e-8


@dataclass(frozen=True, eq=False)
class Solved:
    """A fit of ``y`` on an intercept and columns of :func:`core.regression.design.scaled`.

    ``slopes`` float64 ``[p]`` on the scaled columns; ``leverage`` and ``residual`` float64 ``[n]``; ``r_inverse`` the
    inverse of R of the design's QR decomposition, so that R⁻¹R⁻ᵀ s² is the covariance.
    """

    slopes: np.ndarray
    residual: np.ndarray
    leverage: np.ndarray
    r_inverse: np.ndarray
    q: np.ndarray
    ssr: float
    sst: float

    @property
    def n(self) -> int:
        """Runs."""
        return len(self.residual)

    @property
    def k(self) -> int:
        """Coefficients, the intercept among them."""
        return len(self.slopes) + 1

    @property
    def r2(self) -> float:
        """Share of the response's variance that is explained."""
        return 1 - self.ssr / self.sst if self.slopes.size else 0.0

    @property
    def r2_adjusted(self) -> float:
        """R² less what chance explains."""
        return 1 - (self.ssr / (self.n - self.k)) / (self.sst / (self.n - 1)) if self.slopes.size else 0.0

    @property
    def aic(self) -> float | None:
        """Akaike's criterion, as statsmodels counts (see :class:`core.regression.FitResult`)."""
        return self._criterion(2.0)

    @property
    def bic(self) -> float | None:
        """Schwarz's criterion, as statsmodels counts."""
        return self._criterion(math.log(self.n))

    def _criterion(self, penalty: float) -> float | None:
        if self.ssr <= 0:
            return None
        return self.n * (math.log(2 * math.pi * self.ssr / self.n) + 1) + penalty * self.k

    @property
    def loo_r2(self) -> float | None:
        """1 − PRESS / SST; None where a run has leverage 1."""
        if self.leverage.max() >= FULL_LEVERAGE:
            return None
        return 1 - float(((self.residual / (1 - self.leverage)) ** 2).sum()) / self.sst

    def p_values(self, robust: str | None) -> list[float | None]:
        """Of every slope, in order: two-sided by Student's t, with the errors that ``robust`` says; None: unknown."""
        from scipy.special import stdtr

        df = self.n - self.k
        errors = self._errors(robust)
        return [
            float(2 * stdtr(df, -abs(slope / error))) if math.isfinite(error) and error > 0 else None
            for slope, error in zip(self.slopes, errors, strict=True)
        ]

    def _errors(self, robust: str | None) -> np.ndarray:
        df = self.n - self.k
        if robust is None:
            variances = (self.r_inverse**2).sum(axis=1) * (self.ssr / df)
        else:
            if robust in ("HC2", "HC3") and self.leverage.max() >= FULL_LEVERAGE:
                return np.full(self.k - 1, np.nan)  # they divide by 1 - leverage
            power = {"HC2": 1, "HC3": 2}.get(robust, 0)
            factor = self.n / df if robust == "HC1" else 1.0
            weights = factor * self.residual**2 / (1 - self.leverage) ** power
            half = self.q * np.sqrt(weights)[:, None] @ self.r_inverse.T
            variances = (half**2).sum(axis=0)
        found: np.ndarray = np.sqrt(variances)[1:]
        return found


def solve(z: np.ndarray, y: np.ndarray, columns: Sequence[int]) -> Solved | None:
    """Fit ``y`` ``[n]`` on an intercept and these columns of ``z`` ``[n, p]``, which are scaled.

    None where that cannot be: a column follows from the others or does not vary, or no degree of freedom is left.
    """
    n, k = len(y), len(columns) + 1
    if n <= k:
        return None
    q, r = np.linalg.qr(np.column_stack([np.full(n, 1 / math.sqrt(n)), z[:, list(columns)]]))
    if np.abs(np.diag(r)).min() < _SINGULAR:
        return None
    centred = y - y.mean()
    sst = float(centred @ centred)
    if sst <= 0:
        return None
    r_inverse = np.linalg.inv(r)
    rotated = q.T @ centred
    residual = centred - q @ rotated
    return Solved(
        slopes=(r_inverse @ rotated)[1:],
        residual=residual,
        leverage=np.clip((q**2).sum(axis=1), 0.0, 1.0),
        r_inverse=r_inverse,
        q=q,
        ssr=float(residual @ residual),
        sst=sst,
    )
