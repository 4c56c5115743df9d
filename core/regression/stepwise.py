"""Stepwise selection of regressors, with its path: which step was taken, and what the others would have given."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.errors import InputError, SettingsError
from core.regression.design import Design, Table, prepare, refuse_flat_response, refuse_unfit, scaled
from core.regression.least_squares import Solved, solve
from core.regression.result import FitSpec

DIRECTIONS = ("forward", "backward", "both")
CRITERIA = ("p", "aic", "bic")

# Criteria nearer than this to each other are the same number.
_SAME = 1e-9


@dataclass(frozen=True)
class Candidate:
    """A step that could be taken from a model: add or remove ``regressor``.

    ``p``  of the regressor in the larger of the two models
    ``criterion``  of the model that the step leads to: AIC, or BIC if that was asked
    ``problem``  why it cannot be taken; then both numbers are None
    """

    action: str
    regressor: str
    p: float | None
    criterion: float | None
    problem: str | None = None


@dataclass(frozen=True)
class Step:
    """One step. ``before`` and ``after``: AIC (or BIC, if that was asked) of the model on either side of it.

    ``p`` of the regressor in the larger of the two models; ``model`` after the step; ``candidates`` are all steps
    that were open, best first, this one among them.
    """

    number: int
    action: str
    regressor: str
    p: float | None
    before: float | None
    after: float | None
    r2_adjusted: float
    model: tuple[str, ...]
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True)
class Path:
    """A stepwise selection. ``chosen`` keeps the order of the regressors that were offered.

    ``start``  regressors of the model that it began with
    ``reason``  why it ended, in words; ``last`` are the steps that were open then
    ``n, left_out``  runs; those that lack any of the offered regressors are left out of every step, so that all models
                     are compared on the same runs
    """

    direction: str
    criterion: str
    start: tuple[str, ...]
    steps: tuple[Step, ...]
    chosen: tuple[str, ...]
    reason: str
    last: tuple[Candidate, ...]
    n: int
    left_out: tuple[tuple[str, str], ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, eq=False)
class _Search:
    design: Design
    z: np.ndarray
    criterion: str
    enter: float
    leave: float

    def value(self, solved: Solved) -> float | None:
        return solved.bic if self.criterion == "bic" else solved.aic

    def solve(self, model: Sequence[int]) -> Solved | None:
        return solve(self.z, self.design.y, model)

    def better(self, candidate: Candidate, now: float | None) -> bool:
        """Whether the criterion tells to take this step, from a model whose AIC (BIC) is ``now``."""
        if candidate.problem is not None:
            return False
        if self.criterion == "p":
            if candidate.action == "add":
                return candidate.p is not None and candidate.p < self.enter
            return candidate.p is not None and candidate.p > self.leave
        return candidate.criterion is not None and now is not None and candidate.criterion < now - _SAME


def stepwise(
    table: Table,
    spec: FitSpec,
    *,
    direction: str = "both",
    criterion: str = "p",
    enter: float = 0.05,
    leave: float = 0.10,
    labels: Sequence[str] | None = None,
) -> Path:
    """Select among ``spec.regressors`` step by step.

    ``forward`` begins with none and adds; ``backward`` begins with all and removes; ``both`` begins with none. By ``p``
    it then looks for a regressor to remove before one to add (Efroymson 1960); by ``aic`` and ``bic`` it takes the best
    of all steps either way, as R's step does.

    By ``p`` [IM] the regressor with the smallest p-value enters if it is below ``enter``, the one with the largest
    leaves if it is above ``leave``; p-values are by ``spec.robust``. By ``aic`` or ``bic`` the step is taken that
    lowers it most. In-sample p-values of a model that was searched for are too small: judge it by leave-one-out R² and
    by :func:`core.regression.bootstrap_selection`.

    Raises:
        SettingsError: a direction, criterion or threshold is none.
        InputError: as :func:`core.regression.fit`; of ``forward`` and ``both`` regressors that follow from one another
            and few runs are no error: what cannot be added is listed with the reason.
    """
    _check(direction, criterion, enter, leave)
    design = prepare(table, spec, labels=labels)
    if not spec.regressors:
        raise InputError("There is no regressor to select from; choose at least one.")
    z = scaled(design.x)[0]
    if direction == "backward":
        refuse_unfit(design, z)
    else:  # one regressor at a time is tried, so only what holds for each alone is refused
        refuse_flat_response(design)
    search = _Search(design, z, criterion, enter, leave)
    start = list(range(z.shape[1])) if direction == "backward" else []
    steps, model, last, reason = _walk(search, start, direction)
    names = spec.regressors
    return Path(
        direction=direction,
        criterion=criterion,
        start=tuple(names[j] for j in start),
        steps=tuple(steps),
        chosen=tuple(names[j] for j in sorted(model)),
        reason=reason,
        last=last,
        n=design.n,
        left_out=design.left_out,
    )


def _check(direction: str, criterion: str, enter: float, leave: float) -> None:
    if direction not in DIRECTIONS:
        raise SettingsError(f"direction is {direction!r}; choose one of {', '.join(DIRECTIONS)}.")
    if criterion not in CRITERIA:
        raise SettingsError(f"criterion is {criterion!r}; choose one of {', '.join(CRITERIA)}.")
    for name, value in (("enter", enter), ("leave", leave)):
        if not 0 < value < 1:
            raise SettingsError(f"{name} is {value!r}; give a p-value between 0 and 1.")
    if direction == "both" and criterion == "p" and enter > leave:
        raise SettingsError(
            f"enter is {enter:g} and leave is {leave:g}: a regressor would enter and leave again for ever. Give an "
            "enter that is no larger than leave."
        )


def _walk(
    search: _Search, start: Sequence[int], direction: str
) -> tuple[list[Step], list[int], tuple[Candidate, ...], str]:
    """(steps, final model, steps open at the end, why it ended)."""
    names = search.design.spec.regressors
    model = list(start)
    steps: list[Step] = []
    seen = {frozenset(model)}
    while True:
        now = search.solve(model)
        if now is None:
            raise InputError("The model of all regressors cannot be fitted; leave one out.")
        before = search.value(now)
        removals = _removals(search, model, now) if direction != "forward" else []
        additions = _additions(search, model) if direction != "backward" else []
        candidates, taken = _choose(search, removals, additions, before)
        if taken is None:
            return steps, model, candidates, _ended(search, candidates, len(model))
        place = names.index(taken.regressor)
        following = [j for j in model if j != place] if taken.action == "remove" else [*model, place]
        if frozenset(following) in seen:
            return steps, model, candidates, f"It would go back to an earlier model by {taken.regressor}, so it ended."
        seen.add(frozenset(following))
        model = following
        after = search.solve(model)
        assert after is not None
        steps.append(
            Step(
                number=len(steps) + 1,
                action=taken.action,
                regressor=taken.regressor,
                p=taken.p,
                before=before,
                after=search.value(after),
                r2_adjusted=after.r2_adjusted,
                model=tuple(names[j] for j in model),
                candidates=candidates,
            )
        )


def _choose(
    search: _Search, removals: list[Candidate], additions: list[Candidate], before: float | None
) -> tuple[tuple[Candidate, ...], Candidate | None]:
    """(all candidates, best first; the one to take or None)."""
    if search.criterion == "p":
        removals = sorted(removals, key=lambda one: -1.0 if one.p is None else one.p, reverse=True)
        additions = sorted(additions, key=lambda one: 2.0 if one.p is None else one.p)
        listed = (*removals, *additions)
        # What leaves goes first, so that what enters is judged beside what stays.
        open_ = [one for one in (*removals[:1], *additions[:1]) if search.better(one, before)]
        return listed, open_[0] if open_ else None
    listed = tuple(sorted((*removals, *additions), key=lambda one: (one.criterion is None, one.criterion or 0.0)))
    return listed, listed[0] if listed and search.better(listed[0], before) else None


def _removals(search: _Search, model: Sequence[int], now: Solved) -> list[Candidate]:
    names = search.design.spec.regressors
    found = []
    for j, p in zip(model, now.p_values(search.design.spec.robust), strict=True):
        without = search.solve([other for other in model if other != j])
        found.append(Candidate("remove", names[j], p, None if without is None else search.value(without)))
    return found


def _additions(search: _Search, model: Sequence[int]) -> list[Candidate]:
    names = search.design.spec.regressors
    found = []
    for j in range(len(names)):
        if j in model:
            continue
        larger = search.solve([*model, j])
        if larger is None:
            found.append(Candidate("add", names[j], None, None, _problem(search, model, j)))
        else:
            p = larger.p_values(search.design.spec.robust)[-1]
            found.append(Candidate("add", names[j], p, search.value(larger)))
    return found


def _problem(search: _Search, model: Sequence[int], j: int) -> str:
    n = search.design.n
    if n <= len(model) + 2:
        return f"{n} runs are too few for {len(model) + 1} regressors."
    if not search.z[:, j].any():
        return f"It is the same in all {n} runs."
    return "It follows from the regressors that are in."


def _ended(search: _Search, candidates: Sequence[Candidate], size: int) -> str:
    usable = [one for one in candidates if one.problem is None]
    add = [one for one in usable if one.action == "add"]
    remove = [one for one in usable if one.action == "remove"]
    if search.criterion != "p":
        name = search.criterion.upper()
        said = f"No step lowers {name} any further." if usable else "No step is open."
    else:
        parts = []
        if add:
            parts.append(f"none that is out has p below {search.enter:g} (the least: {_shown(add[0])})")
        if remove:
            parts.append(f"none that is in has p above {search.leave:g} (the largest: {_shown(remove[0])})")
        said = f"Ended: {'; '.join(parts)}." if parts else "No step is open."
    if not size:
        said += " No regressor is kept."
    blocked = [one for one in candidates if one.problem is not None]
    if blocked:
        said += f" {', '.join(one.regressor for one in blocked)} could not be tried: {blocked[0].problem}"
    return said


def _shown(one: Candidate) -> str:
    return f"{one.regressor}, p not known" if one.p is None else f"{one.regressor}, p = {one.p:.3g}"
