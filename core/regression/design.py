"""The rows and columns of a fit: numbers checked, gaps left out with their reason, singular designs refused."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.errors import InputError
from core.regression.result import CONST, FitSpec

Table = Mapping[str, Sequence[float | None] | np.ndarray]

# A column whose distance from the span of the others is below this share of its length carries no digits of its own:
# its variance inflation factor would be above 1e16.
_DEPENDENT = 1e-8
_CONSTANT = 1e-12
FULL_LEVERAGE = 1 - 1e-10
"""A leverage this near 1 leaves no digit of the residual that a run would have without itself."""

_LARGEST = 1e50  # predictions by larger numbers, squared, leave the range of a float


@dataclass(frozen=True, eq=False)
class Design:
    """Complete rows: ``x`` float64 ``[n, p]`` without the intercept, ``y`` ``[n]`` on the scale of the fit."""

    spec: FitSpec
    x: np.ndarray
    y: np.ndarray
    labels: tuple[str, ...]
    keys: tuple[Any, ...]
    left_out: tuple[tuple[str, str], ...]

    @property
    def n(self) -> int:
        """Rows that go in."""
        return len(self.y)


def prepare(
    table: Table, spec: FitSpec, *, labels: Sequence[str] | None = None, keys: Sequence[Any] | None = None
) -> Design:
    """Take the columns of ``spec`` out of ``table`` and leave out rows that lack one of them, with the reason.

    Without ``labels`` a row is called by its number (from 1), without ``keys`` its key is its place (from 0).

    Raises:
        InputError: a column is missing, holds text or has another length; the log of a response that is not positive
            is asked for; or no row is complete.
    """
    names = [spec.response, *spec.regressors]
    _check_names(names, table)
    n_all = len(table[spec.response])
    labels = [f"row {i + 1}" for i in range(n_all)] if labels is None else [str(label) for label in labels]
    keys = list(range(n_all)) if keys is None else list(keys)
    for what, length in (("labels", len(labels)), ("keys", len(keys)), *((name, len(table[name])) for name in names)):
        if length != n_all:
            raise InputError(
                f"{what} has {length} values, {spec.response} has {n_all}; give one of each for every run."
            )
    cells = np.column_stack([_numbers(table[name], name, labels) for name in names])
    there = np.isfinite(cells)
    whole = there.all(axis=1)
    left_out = tuple(
        (labels[i], "no value of " + ", ".join(names[j] for j in np.flatnonzero(~there[i])))
        for i in np.flatnonzero(~whole)
    )
    if not whole.any():
        empty = [names[j] for j in np.flatnonzero(~there.any(axis=0))]
        which = f"{', '.join(empty)} has no value at all" if empty else "each lacks one of the columns"
        raise InputError(f"None of the {n_all} runs can be fitted: {which}. Compute what is missing, or leave it out.")
    kept = [int(i) for i in np.flatnonzero(whole)]
    y = cells[whole, 0]
    if spec.log_response:
        for value, i in zip(y, kept, strict=True):
            if value <= 0:
                raise InputError(
                    f"{spec.response} of {labels[i]} is {value:g}, which has no logarithm; leave that run out, or fit "
                    f"{spec.response} itself."
                )
        y = np.log(y)
    return Design(
        spec=spec,
        x=cells[whole, 1:],
        y=y,
        labels=tuple(labels[i] for i in kept),
        keys=tuple(keys[i] for i in kept),
        left_out=left_out,
    )


def _check_names(names: Sequence[str], table: Table) -> None:
    absent = [name for name in names if name not in table]
    if absent:
        raise InputError(f"There is no column {', '.join(absent)}; there are: {', '.join(map(str, table)) or 'none'}.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{', '.join(twice)} is asked for twice; give the response and every regressor once.")
    if CONST in names:
        raise InputError(f"A column cannot be called {CONST}: that is the intercept's name. Rename it.")


def _numbers(values: Sequence[Any] | np.ndarray, name: str, labels: Sequence[str]) -> np.ndarray:
    found = np.full(len(values), np.nan)
    for i, value in enumerate(values):
        if value is None:
            continue
        try:
            number = math.nan if isinstance(value, str) else float(value)
        except (TypeError, ValueError):
            number = math.nan
            value = str(value)
        if isinstance(value, str):
            raise InputError(f"{name} of {labels[i]} is {value[:40]!r}, which is no number.")
        if math.isfinite(number) and abs(number) > _LARGEST:
            raise InputError(
                f"{name} of {labels[i]} is {number:.3g}, too large to be fitted. Look at what made it, leave that run "
                "out, or leave the column out."
            )
        found[i] = number
    return found


def scaled(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(columns centred and scaled to length 1, their means, their lengths); a constant column stays 0 with length 1.

    Fitting these instead of the columns themselves keeps all digits whatever the columns' offsets and units.
    """
    means = x.mean(axis=0)
    centred = x - means
    centred -= centred.mean(axis=0)  # the mean itself was rounded
    constant = np.ptp(x, axis=0) <= _CONSTANT * np.abs(x).max(axis=0) + 1 / _LARGEST
    lengths = np.where(constant, 1.0, np.sqrt((centred**2).sum(axis=0)))
    return np.where(constant, 0.0, centred / lengths), means, lengths


def constants(z: np.ndarray) -> list[int]:
    """The columns of :func:`scaled` that do not vary."""
    return [int(j) for j in np.flatnonzero(~z.any(axis=0))]


def dependents(z: np.ndarray) -> list[int]:
    """Columns of :func:`scaled` that are linearly dependent together (the first such set); empty: none are."""
    for j in range(1, z.shape[1]):
        others = z[:, :j]
        weights = np.linalg.lstsq(others, z[:, j], rcond=None)[0]
        if np.linalg.norm(z[:, j] - others @ weights) < _DEPENDENT:
            return [*(int(i) for i in np.flatnonzero(np.abs(weights) > 1e-6)), j]
    return []


def refuse_unfit(design: Design, z: np.ndarray) -> None:
    """Refuse a fit that would be none.

    Raises:
        InputError: too few runs, a column that does not vary, or columns that follow from one another; it names them.
    """
    names = design.spec.regressors
    n, p = z.shape
    if n <= p + 1:
        gaps = f" ({len(design.left_out)} more lack a value)" if design.left_out else ""
        raise InputError(
            f"{_runs(n)}{gaps} cannot determine {p + 1} coefficients ({p} regressors and the intercept) and leave "
            f"something to judge them by. Take more runs (at least {p + 2}, better {max(10 * p, p + 2)}), or fewer "
            "regressors."
        )
    refuse_flat_response(design)
    flat = constants(z)
    if flat:
        several = len(flat) > 1
        raise InputError(
            f"{_listed([names[j] for j in flat])} {'are' if several else 'is'} the same in all {n} runs, so "
            f"{'their' if several else 'its'} effect cannot be told from the intercept. Leave "
            f"{'them' if several else 'it'} out, or take runs that differ in {'them' if several else 'it'}."
        )
    together = dependents(z)
    if together:
        raise InputError(
            f"{_listed([names[j] for j in together])} follow from one another in these {n} runs (they are linearly "
            "dependent), so their effects cannot be told apart. Leave one of them out."
        )


def refuse_flat_response(design: Design) -> None:
    """Refuse to explain what does not vary.

    Raises:
        InputError: the response is the same in all runs.
    """
    if np.ptp(design.y) <= _CONSTANT * np.abs(design.y).max():
        raise InputError(
            f"{design.spec.response} is the same in all runs that can be fitted ({design.n}), so there is nothing to "
            "explain."
        )


def _runs(n: int) -> str:
    return "1 run" if n == 1 else f"{n} runs"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
