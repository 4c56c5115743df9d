"""What a reader of a fit must know before believing it, in plain words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from core.regression.result import FitResult

RUNS_PER_REGRESSOR = 10
HIGH_VIF = 10.0
HIGH_CONDITION = 30.0
_NAMED = 5
_RARE = 0.01
_EXACT = 1e-12


def warnings_of(result: FitResult) -> tuple[str, ...]:
    """Everything that speaks against taking the fit's numbers at their word; empty: nothing was noticed."""
    found = [
        *_left_out(result),
        *_too_few(result),
        *_collinear(result),
        *_exact(result),
        *_no_f(result),
        *_influential(result),
        *_not_normal(result),
    ]
    return tuple(found)


def _left_out(result: FitResult) -> list[str]:
    if not result.left_out:
        return []
    n = len(result.left_out)
    return [
        f"{n} of {n + result.n} runs {'was' if n == 1 else 'were'} left out for want of a value "
        f"({_some([f'{label}: {reason}' for label, reason in result.left_out], join='; ')}); the fit is of the other "
        f"{result.n}."
    ]


def _too_few(result: FitResult) -> list[str]:
    p = len(result.spec.regressors)
    if not p:
        return ["There is no regressor: the fit is the mean alone."]
    if result.n >= RUNS_PER_REGRESSOR * p:
        return []
    return [
        f"{result.n} runs for {p} regressor{'s' if p > 1 else ''}: fewer than {RUNS_PER_REGRESSOR} runs a regressor. "
        "The coefficients may follow chance; trust the leave-one-out R² rather than R², take more runs or fewer "
        "regressors."
    ]


def _collinear(result: FitResult) -> list[str]:
    high = [f"{one.name} ({one.vif:.3g})" for one in result.coefficients if one.vif is not None and one.vif > HIGH_VIF]
    condition = result.condition_number
    if high:
        return [
            f"Collinear regressors: the variance inflation factor of {_some(high)} is above {HIGH_VIF:g} (condition "
            f"number {condition:.3g}). These regressors nearly follow from others; read their coefficients together, "
            "not singly, or leave one out."
        ]
    if condition is not None and condition > HIGH_CONDITION:
        return [
            f"Collinear regressors: the condition number of the standardised design is {condition:.3g}, above "
            f"{HIGH_CONDITION:g}. The coefficients move much with small changes of the data."
        ]
    return []


def _exact(result: FitResult) -> list[str]:
    if 1 - result.r2 > _EXACT:
        return []
    return [
        "The regressors reproduce the response exactly; standard errors and p-values say nothing here. Check that none "
        "of them is made of the response."
    ]


def _no_f(result: FitResult) -> list[str]:
    if result.f is not None or not result.spec.regressors or 1 - result.r2 <= _EXACT:
        return []
    return [
        f"There is no F test: {result.n} runs are too few for {result.spec.robust} errors to test all "
        f"{len(result.spec.regressors)} slopes at once."
    ]


def _influential(result: FitResult) -> list[str]:
    limit = 4 / result.n
    found = sorted(
        ((row.cooks, row.label) for row in result.rows if row.cooks is not None and row.cooks > limit), reverse=True
    )
    alone = [row.label for row in result.rows if row.loo_predicted is None]
    said = []
    if alone:
        said.append(
            f"{_some(alone)} alone determine{'s' if len(alone) == 1 else ''} a coefficient (leverage 1): there is no "
            "leave-one-out prediction, and so no leave-one-out R²."
        )
    if found:
        named = _some([f"{label} ({cooks:.2g})" for cooks, label in found])
        said.append(
            f"Influential run{'s' if len(found) > 1 else ''}: Cook's distance of {named} is above 4/n = {limit:.2g}. "
            "Look at what lies behind, and fit once without."
        )
    return said


def _not_normal(result: FitResult) -> list[str]:
    # Shapiro and Wilk's test needs three values; its p-value was made for up to 5,000.
    if not 8 <= result.n <= 5000 or 1 - result.r2 <= _EXACT:
        return []
    from scipy.stats import shapiro

    p = float(shapiro(np.array([row.residual for row in result.rows])).pvalue)
    if p >= _RARE:
        return []
    return [
        f"The residuals do not look normal (Shapiro-Wilk p = {p:.2g}), so p-values and intervals are rough; look at "
        "the Q-Q plot."
    ]


def _some(names: list[str], *, join: str = ", ") -> str:
    more = len(names) - _NAMED
    return join.join(names[:_NAMED]) + (f"{join}and {more} more" if more > 0 else "")
