"""Best subset: every set of regressors fitted, and sorted by a criterion."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from core.errors import InputError, SettingsError
from core.regression.design import Table, prepare, refuse_flat_response, scaled
from core.regression.least_squares import solve
from core.regression.result import FitSpec

MOST_REGRESSORS = 10
SUBSET_CRITERIA = ("aic", "bic", "r2_adjusted", "loo_r2")
_HIGHER_IS_BETTER = ("r2_adjusted", "loo_r2")


@dataclass(frozen=True)
class Subset:
    """A set of regressors and how well it fits; ``reason`` says why numbers are None."""

    regressors: tuple[str, ...]
    n: int
    r2: float | None
    r2_adjusted: float | None
    aic: float | None
    bic: float | None
    loo_r2: float | None
    reason: str | None = None


def best_subset(
    table: Table,
    spec: FitSpec,
    *,
    criterion: str = "aic",
    most: int = MOST_REGRESSORS,
    labels: Sequence[str] | None = None,
) -> list[Subset]:
    """Fit every subset of ``spec.regressors`` (the empty one too), best first; what cannot be fitted comes last.

    Of equal values the smaller set comes first. ``most`` is the largest number of regressors to choose from. All
    subsets are fitted on the same runs: those that have all regressors.

    Raises:
        SettingsError: the criterion is none.
        InputError: there are more than ``most`` regressors, or the data cannot be fitted at all.
    """
    if criterion not in SUBSET_CRITERIA:
        raise SettingsError(f"criterion is {criterion!r}; choose one of {', '.join(SUBSET_CRITERIA)}.")
    names = spec.regressors
    if not names:
        raise InputError("There is no regressor to choose from; choose at least one.")
    if len(names) > most:
        raise InputError(
            f"All subsets of {len(names)} regressors are {2 ** len(names):,} fits; best subset takes up to {most} "
            "regressors. Leave some out, or go stepwise."
        )
    design = prepare(table, spec, labels=labels)
    z = scaled(design.x)[0]
    refuse_flat_response(design)
    found = []
    for size in range(len(names) + 1):
        for columns in itertools.combinations(range(len(names)), size):
            solved = solve(z, design.y, columns)
            chosen = tuple(names[j] for j in columns)
            if solved is None:
                few = design.n <= size + 1
                problem = f"{design.n} runs are too few." if few else "The regressors follow from one another."
                found.append(Subset(chosen, design.n, None, None, None, None, None, problem))
            else:
                reason = "A run alone determines a coefficient." if solved.loo_r2 is None else None
                numbers = (solved.r2, solved.r2_adjusted, solved.aic, solved.bic, solved.loo_r2)
                found.append(Subset(chosen, design.n, *numbers, reason))
    sign = -1.0 if criterion in _HIGHER_IS_BETTER else 1.0

    def order(one: Subset) -> tuple[bool, float, int]:
        value: float | None = getattr(one, criterion)
        return value is None, sign * (value or 0.0), len(one.regressors)

    return sorted(found, key=order)
