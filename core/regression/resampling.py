"""How stable a selection of regressors is: done again on resampled runs."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from core.errors import InputError, SettingsError
from core.regression.design import Table, prepare, refuse_flat_response, scaled
from core.regression.least_squares import solve
from core.regression.result import FitSpec
from core.regression.stepwise import stepwise
from core.regression.subsets import best_subset

Select = Callable[[Table, FitSpec], Sequence[str]]
"""Chooses regressors: (table, spec) -> those that are kept. An InputError says that it cannot on this table."""


@dataclass(frozen=True)
class KeptRegressor:
    """How one regressor fared over the draws that could be fitted.

    ``share``  of those draws in which it was kept
    ``same_sign``  of the draws that kept it: share in which its coefficient had the more frequent sign
    ``low, median, high``  of its coefficient where it was kept (percentile interval at the spec's confidence); as it
                           speaks of draws that kept it, its middle lies further from 0 than a full fit's coefficient
    The last four are None where it never was.
    """

    name: str
    n_kept: int
    share: float
    same_sign: float | None
    low: float | None
    median: float | None
    high: float | None


@dataclass(frozen=True)
class Kept:
    """A bootstrap of a selection: ``n_draws`` were made, ``n_fitted`` could be; ``problems`` say why the others not."""

    n_draws: int
    n_fitted: int
    problems: tuple[tuple[str, int], ...]
    regressors: tuple[KeptRegressor, ...]
    models: tuple[tuple[tuple[str, ...], int], ...]
    """The models that were chosen and how often, the most frequent first."""
    n: int
    left_out: tuple[tuple[str, str], ...]


def by_stepwise(*, direction: str = "both", criterion: str = "p", enter: float = 0.05, leave: float = 0.10) -> Select:
    """Select by :func:`core.regression.stepwise`."""

    def select(table: Table, spec: FitSpec) -> Sequence[str]:
        path = stepwise(table, spec, direction=direction, criterion=criterion, enter=enter, leave=leave)
        return path.chosen

    return select


def by_best_subset(*, criterion: str = "aic") -> Select:
    """Select the first of :func:`core.regression.best_subset`."""

    def select(table: Table, spec: FitSpec) -> Sequence[str]:
        return best_subset(table, spec, criterion=criterion)[0].regressors

    return select


def bootstrap_selection(
    table: Table,
    spec: FitSpec,
    *,
    select: Select | None = None,
    n_draws: int = 200,
    seed: int = 0,
    labels: Sequence[str] | None = None,
) -> Kept:
    """Draw as many runs as there are, with replacement, ``n_draws`` times, and select anew on each draw.

    ``select`` None: stepwise both ways by p-values. A draw on which the selection cannot be done (too few different
    runs, a regressor that does not vary in it) is counted with its reason and is in no share.

    Raises:
        SettingsError: ``n_draws`` is below 1.
        InputError: the table itself cannot be read, as in :func:`core.regression.fit`.
    """
    if n_draws < 1:
        raise SettingsError(f"n_draws is {n_draws}; draw at least once.")
    select = by_stepwise() if select is None else select
    design = prepare(table, spec, labels=labels)
    generator = np.random.default_rng(seed)
    # The response went through the logarithm in ``prepare`` already.
    inner = dataclasses.replace(spec, log_response=False)
    kept: dict[str, list[float]] = {name: [] for name in spec.regressors}
    problems: Counter[str] = Counter()
    models: Counter[tuple[str, ...]] = Counter()
    for _ in range(n_draws):
        drawn = generator.integers(design.n, size=design.n)
        x, y = design.x[drawn], design.y[drawn]
        columns = {spec.response: y, **{name: x[:, j] for j, name in enumerate(spec.regressors)}}
        try:
            chosen = tuple(select(columns, inner))
        except InputError as error:
            problems[str(error)] += 1
            continue
        models[chosen] += 1
        for name, slope in zip(chosen, _slopes(x, y, [spec.regressors.index(name) for name in chosen]), strict=True):
            kept[name].append(slope)
    n_fitted = models.total()
    return Kept(
        n_draws=n_draws,
        n_fitted=n_fitted,
        problems=tuple(problems.most_common()),
        regressors=tuple(_summary(name, slopes, n_fitted, spec.confidence) for name, slopes in kept.items()),
        models=tuple(models.most_common()),
        n=design.n,
        left_out=design.left_out,
    )


def _slopes(x: np.ndarray, y: np.ndarray, columns: Sequence[int]) -> list[float]:
    """Coefficients on the columns' own scale."""
    z, _, lengths = scaled(x)
    solved = solve(z, y, columns)
    if solved is None:  # the selection itself could fit it
        return [float("nan")] * len(columns)
    return [float(slope / lengths[j]) for slope, j in zip(solved.slopes, columns, strict=True)]


def _summary(name: str, slopes: list[float], n_fitted: int, confidence: float) -> KeptRegressor:
    share = len(slopes) / n_fitted if n_fitted else 0.0
    found = np.array([slope for slope in slopes if np.isfinite(slope)])
    if not len(found):
        return KeptRegressor(name, len(slopes), share, None, None, None, None)
    positive = float((found > 0).mean())
    low, median, high = np.quantile(found, [(1 - confidence) / 2, 0.5, (1 + confidence) / 2])
    return KeptRegressor(name, len(slopes), share, max(positive, 1 - positive), float(low), float(median), float(high))


def selection_loo_r2(
    table: Table, spec: FitSpec, *, select: Select | None = None, labels: Sequence[str] | None = None
) -> tuple[float | None, str | None]:
    """(leave-one-out R² of a selection and the fit that follows it, None; or None and why not).

    Every run is predicted by regressors that were selected, and coefficients that were fitted, without it. So the
    search is paid for, which the ``loo_r2`` of a fit of the regressors that came out does not do. 1 − Σe² / SST, SST
    about the mean of all runs. Where no regressor is kept, the mean of the others is the prediction.

    Raises:
        InputError: the table cannot be read, as in :func:`core.regression.fit`.
    """
    select = by_stepwise() if select is None else select
    design = prepare(table, spec, labels=labels)
    refuse_flat_response(design)
    inner = dataclasses.replace(spec, log_response=False)
    squares = 0.0
    for i in range(design.n):
        others = np.arange(design.n) != i
        x, y = design.x[others], design.y[others]
        columns = {spec.response: y, **{name: x[:, j] for j, name in enumerate(spec.regressors)}}
        try:
            chosen = [spec.regressors.index(name) for name in select(columns, inner)]
        except InputError as error:
            return None, f"Without {design.labels[i]}: {error}"
        slopes = np.array(_slopes(x, y, chosen))
        away = design.x[i, chosen] - x[:, chosen].mean(axis=0)
        squares += float(design.y[i] - y.mean() - slopes @ away) ** 2
    return 1 - squares / float(((design.y - design.y.mean()) ** 2).sum()), None
