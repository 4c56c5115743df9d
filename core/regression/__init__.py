"""Linear regression of a study's response on its indicators [IM, section 3]: fit, selection of regressors, exports.

A table is a mapping from column to one value a run; None or NaN is no value. Runs without a value in one of the columns
of a fit are left out of it, counted and named.
"""

from core.regression.ols import fit
from core.regression.resampling import (
    Kept,
    KeptRegressor,
    Select,
    bootstrap_selection,
    by_best_subset,
    by_stepwise,
    selection_loo_r2,
)
from core.regression.result import ROBUST, Coefficient, FitResult, FitRow, FitSpec, Prediction
from core.regression.stepwise import CRITERIA, DIRECTIONS, Candidate, Path, Step, stepwise
from core.regression.subsets import MOST_REGRESSORS, SUBSET_CRITERIA, Subset, best_subset

__all__ = [
    "CRITERIA",
    "DIRECTIONS",
    "MOST_REGRESSORS",
    "ROBUST",
    "SUBSET_CRITERIA",
    "Candidate",
    "Coefficient",
    "FitResult",
    "FitRow",
    "FitSpec",
    "Kept",
    "KeptRegressor",
    "Path",
    "Prediction",
    "Select",
    "Step",
    "Subset",
    "best_subset",
    "bootstrap_selection",
    "by_best_subset",
    "by_stepwise",
    "fit",
    "selection_loo_r2",
    "stepwise",
]
