"""What a regression is asked and what it gives: frozen, JSON-able, of plain numbers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from core.errors import InputError, SettingsError

ROBUST = ("HC0", "HC1", "HC2", "HC3")
"""Covariances that allow the residuals' variance to differ from run to run (White 1980; MacKinnon and White 1985)."""

CONST = "const"
"""Name of the intercept among the coefficients."""

_FORMAT = 1
_Kind = TypeVar("_Kind")


@dataclass(frozen=True, kw_only=True)
class FitSpec:
    """What to fit: the response (its natural log with ``log_response``) on an intercept and the regressors.

    ``robust``  None: ordinary standard errors; one of :data:`ROBUST`: those, and t, p, intervals and F by them
    ``confidence``  of all intervals

    Raises:
        SettingsError: a field is out of its range.
    """

    response: str
    regressors: tuple[str, ...]
    log_response: bool = True
    robust: str | None = None
    confidence: float = 0.95

    def __post_init__(self) -> None:
        object.__setattr__(self, "regressors", tuple(self.regressors))
        if self.robust is not None and self.robust not in ROBUST:
            raise SettingsError(f"robust is {self.robust!r}; choose one of {', '.join(ROBUST)}, or none.")
        if not isinstance(self.confidence, int | float) or not 0 < self.confidence < 1:
            raise SettingsError(f"confidence is {self.confidence!r}; give a number between 0 and 1, such as 0.95.")

    @property
    def response_text(self) -> str:
        """The response as it is fitted, for people."""
        return f"log {self.response}" if self.log_response else self.response


@dataclass(frozen=True)
class Coefficient:
    """One coefficient with its inference; the intercept is called ``const``.

    ``t`` and ``p`` are None where the standard error is 0 (a fit without residuals). ``standardised``: in standard
    deviations of the response for one of the regressor. ``vif``: variance inflation factor. Both None for ``const``.
    """

    name: str
    value: float
    standard_error: float
    t: float | None
    p: float | None
    low: float
    high: float
    standardised: float | None = None
    vif: float | None = None


@dataclass(frozen=True)
class FitRow:
    """One run of a fit, on the response's scale of the fit (log if ``log_response``).

    ``loo_predicted``  by the fit of all other runs; None, as are the two below, where the run alone determines a
                       coefficient (``leverage`` 1)
    ``studentised``    externally: by the residual variance of the fit of all others
    ``cooks``          Cook's distance: how far all predictions move, together, without the run
    """

    label: str
    key: Any
    observed: float
    predicted: float
    residual: float
    loo_predicted: float | None
    leverage: float
    studentised: float | None
    cooks: float | None


@dataclass(frozen=True)
class Prediction:
    """Predictions on the scale of the fit, each float64 ``[m]``.

    ``low, high``            of one new observation (its residual included)
    ``mean_low, mean_high``  of the regression line
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    mean_low: np.ndarray
    mean_high: np.ndarray


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """An ordinary least squares fit with an intercept.

    ``n``  runs that went in; ``left_out`` are the others, each with its reason
    ``f``  tests that all slopes are 0 (a Wald test where the errors are robust); None without regressors, or where
        there are too few runs for robust errors to tell
    ``aic, bic``  as statsmodels counts: −2 log likelihood + 2 k (or k log n), k being intercept and slopes, not the
        variance; None where there is no residual
    ``loo_r2``  1 − PRESS / SST, SST about the mean of all runs; None where a run has leverage 1
    ``condition_number``  of the regressors centred and scaled to one length, without the intercept, so that an offset
        (a length of 300 ± 5) is no collinearity
    ``covariance``  of the coefficients, in their order
    """

    spec: FitSpec
    n: int
    left_out: tuple[tuple[str, str], ...]
    coefficients: tuple[Coefficient, ...]
    r2: float
    r2_adjusted: float
    f: float | None
    f_p: float | None
    aic: float | None
    bic: float | None
    loo_r2: float | None
    condition_number: float | None
    residual_variance: float
    df_residual: int
    covariance: tuple[tuple[float, ...], ...]
    rows: tuple[FitRow, ...]
    warnings: tuple[str, ...]
    versions: dict[str, str]

    def coefficient(self, name: str) -> Coefficient:
        """The coefficient of this name.

        Raises:
            InputError: there is none.
        """
        for one in self.coefficients:
            if one.name == name:
                return one
        raise InputError(f"The fit has no coefficient {name}; it has {', '.join(c.name for c in self.coefficients)}.")

    def predict(
        self, values: Mapping[str, float | Sequence[float] | np.ndarray], *, confidence: float | None = None
    ) -> Prediction:
        """Predict the response, on the scale of the fit, at these values of the regressors (``[m]`` each, or one).

        A missing value (NaN) gives NaN. ``confidence`` None: the fit's.

        Raises:
            InputError: a regressor has no values.
        """
        absent = [name for name in self.spec.regressors if name not in values]
        if absent:
            raise InputError(f"There are no values of {', '.join(absent)} to predict by; give every regressor's.")
        columns = [np.atleast_1d(np.asarray(values[name], np.float64)) for name in self.spec.regressors]
        length = max((len(column) for column in columns), default=1)
        design = np.column_stack([np.ones(length), *(np.broadcast_to(column, (length,)) for column in columns)])
        return prediction(
            design,
            coefficients=[one.value for one in self.coefficients],
            covariance=self.covariance,
            residual_variance=self.residual_variance,
            df_residual=self.df_residual,
            confidence=self.spec.confidence if confidence is None else confidence,
        )

    def to_json(self) -> str:
        """All of it as JSON; :meth:`from_json` gives back an equal object."""
        return json.dumps({"format": _FORMAT, **dataclasses.asdict(self)}, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> FitResult:
        """Read what :meth:`to_json` gave; fields that it does not know are passed over.

        Raises:
            InputError: it is something else.
        """
        try:
            fields = json.loads(text)
            if fields["format"] != _FORMAT:
                raise InputError(f"The fit has the format {fields['format']}, which this version does not read.")
            return cls(
                **{
                    **{one.name: fields[one.name] for one in dataclasses.fields(cls)},
                    "spec": _known(FitSpec, fields["spec"]),
                    "left_out": tuple((label, reason) for label, reason in fields["left_out"]),
                    "coefficients": tuple(_known(Coefficient, one) for one in fields["coefficients"]),
                    "covariance": tuple(tuple(row) for row in fields["covariance"]),
                    "rows": tuple(_known(FitRow, one) for one in fields["rows"]),
                    "warnings": tuple(fields["warnings"]),
                }
            )
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"This is not a fit of Assay ({error}); give the JSON of one as it was saved.") from error

    def csv(self) -> str:
        """The coefficients as CSV, one a row."""
        from core.regression import tables

        return tables.coefficients_csv(self)

    def rows_csv(self) -> str:
        """The runs as CSV: observed, predicted, residual, leverage and so on."""
        from core.regression import tables

        return tables.rows_csv(self)

    def latex(self) -> str:
        """The coefficients as a LaTeX table (package booktabs)."""
        from core.regression import tables

        return tables.latex(self)


def _known(kind: type[_Kind], fields: Mapping[str, Any]) -> _Kind:
    """An object of a dataclass out of the fields that it has."""
    return kind(**{one.name: fields[one.name] for one in dataclasses.fields(kind)})  # type: ignore[arg-type]


def prediction(
    design: np.ndarray,
    *,
    coefficients: Sequence[float],
    covariance: Sequence[Sequence[float]],
    residual_variance: float,
    df_residual: int,
    confidence: float,
) -> Prediction:
    """x'b with its intervals for every row x of ``design`` ``[m, 1 + p]``.

    Variance of the line is x'Cx with C the covariance of the coefficients; of a new observation, the residual variance
    is added. The quantile is Student's t with ``df_residual`` degrees of freedom.
    """
    from scipy.special import stdtrit

    value = design @ np.asarray(coefficients, np.float64)
    of_line = np.einsum("ij,jk,ik->i", design, np.asarray(covariance, np.float64), design)
    of_line = np.maximum(of_line, 0.0)  # rounding can leave a tiny negative number
    quantile = float(stdtrit(df_residual, 0.5 + confidence / 2))
    mean, new = quantile * np.sqrt(of_line), quantile * np.sqrt(of_line + residual_variance)
    return Prediction(value, value - new, value + new, value - mean, value + mean)
