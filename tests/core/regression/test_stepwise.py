"""Stepwise on a worked example: Hald's cement data, whose path stands in the textbooks (Draper and Smith)."""

from __future__ import annotations

import dataclasses
import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from core.errors import InputError, SettingsError
from core.regression import ROBUST, FitSpec, Path, fit, stepwise
from tests.core.regression.simulated import SPEC, table

HALD: dict[str, list[Any]] = {
    "x1": [7, 1, 11, 11, 7, 11, 3, 1, 2, 21, 1, 11, 10],
    "x2": [26, 29, 56, 31, 52, 55, 71, 31, 54, 47, 40, 66, 68],
    "x3": [6, 15, 8, 8, 6, 9, 17, 22, 18, 4, 23, 9, 8],
    "x4": [60, 52, 20, 47, 33, 22, 6, 44, 22, 26, 34, 12, 12],
    "heat": [78.5, 74.3, 104.3, 87.6, 95.9, 109.2, 102.7, 72.5, 93.1, 115.9, 83.8, 113.3, 109.4],
}
HALD_SPEC = FitSpec(response="heat", regressors=("x1", "x2", "x3", "x4"), log_response=False)


def by_hand(names: list[str]) -> tuple[dict[str, float], float]:
    """(p of every regressor, AIC) of the model of these regressors, by the normal equations."""
    from scipy import stats

    y = np.array(HALD["heat"])
    x = np.column_stack([np.ones(13), *(np.array(HALD[name], float) for name in names)])
    inverse = np.linalg.inv(x.T @ x)
    beta = inverse @ x.T @ y
    residual = y - x @ beta
    ssr, df = float(residual @ residual), 13 - x.shape[1]
    t = beta / np.sqrt(np.diag(inverse) * ssr / df)
    p = 2 * stats.t.sf(np.abs(t), df)
    aic = 13 * (math.log(2 * math.pi * ssr / 13) + 1) + 2 * x.shape[1]
    return dict(zip(names, map(float, p[1:]), strict=True)), aic


def taken(path: Path) -> list[tuple[str, str]]:
    return [(step.action, step.regressor) for step in path.steps]


def check_by_hand(path: Path) -> None:
    """Every number of every candidate of every step, against the explicit fits."""
    model = list(path.start)
    for step in path.steps:
        assert step.before == pytest.approx(by_hand(model)[1], rel=1e-9)
        for one in step.candidates:
            larger = [*model, one.regressor] if one.action == "add" else model
            other = larger if one.action == "add" else [name for name in model if name != one.regressor]
            assert one.p == pytest.approx(by_hand(larger)[0][one.regressor], rel=1e-7)
            assert one.criterion == pytest.approx(by_hand(other)[1], rel=1e-9)
        if step.action == "add":
            model.append(step.regressor)
        else:
            model.remove(step.regressor)
        assert step.after == pytest.approx(by_hand(model)[1], rel=1e-9)
        assert sorted(step.model) == sorted(model)
    assert sorted(model) == sorted(path.chosen)


def test_forward_by_p_enters_x4_x1_and_then_x2_if_the_threshold_lets_it():
    path = stepwise(HALD, HALD_SPEC, direction="forward", enter=0.10)
    assert taken(path) == [("add", "x4"), ("add", "x1"), ("add", "x2")]
    check_by_hand(path)
    # By 0.05 it stops after two: the p-value of x2 is 0.0517.
    stricter = stepwise(HALD, HALD_SPEC, direction="forward", enter=0.05)
    assert taken(stricter) == [("add", "x4"), ("add", "x1")]
    assert "the least: x2, p = 0.0517" in stricter.reason


def test_both_by_p_takes_x4_out_again():
    path = stepwise(HALD, HALD_SPEC, direction="both", enter=0.10, leave=0.10)
    assert taken(path) == [("add", "x4"), ("add", "x1"), ("add", "x2"), ("remove", "x4")]
    assert path.steps[-1].p == pytest.approx(0.2054, abs=1e-4)
    assert path.chosen == ("x1", "x2")
    check_by_hand(path)
    assert "none that is out has p below 0.1" in path.reason
    assert [one.regressor for one in path.last if one.action == "add"] == ["x4", "x3"]


def test_backward_by_p():
    path = stepwise(HALD, HALD_SPEC, direction="backward", leave=0.10)
    assert path.start == ("x1", "x2", "x3", "x4")
    assert taken(path) == [("remove", "x3"), ("remove", "x4")]
    check_by_hand(path)
    assert path.chosen == ("x1", "x2")


@pytest.mark.parametrize("direction", ["forward", "backward", "both"])
def test_by_aic_all_ways_keep_x1_x2_x4(direction: str):
    # As R's step() does on these data.
    path = stepwise(HALD, HALD_SPEC, direction=direction, criterion="aic")
    assert path.chosen == ("x1", "x2", "x4")
    check_by_hand(path)
    values = [step.before for step in path.steps] + [path.steps[-1].after]
    assert all(a is not None and b is not None and b < a for a, b in pairwise(values))
    assert path.reason.startswith("No step lowers AIC any further")


def test_by_bic_its_own_criterion_is_shown():
    path = stepwise(HALD, HALD_SPEC, direction="forward", criterion="bic")
    result = fit(HALD, dataclasses.replace(HALD_SPEC, regressors=path.chosen))
    assert path.steps[-1].after == pytest.approx(result.bic)


@pytest.mark.parametrize("robust", [None, *ROBUST])
def test_p_values_and_criteria_are_those_of_the_fit(robust: str | None):
    spec = dataclasses.replace(SPEC, robust=robust)
    path = stepwise(table(4), spec, direction="backward", leave=0.5)
    result = fit(table(4), spec)
    first = path.steps[0].candidates if path.steps else path.last
    for one in first:
        assert one.p == pytest.approx(result.coefficient(one.regressor).p, rel=1e-6)
    start = path.steps[0].before if path.steps else None
    assert start is None or start == pytest.approx(result.aic)


def test_true_regressors_are_found_among_noise():
    of = table(1, n=60)
    draw = np.random.default_rng(9)
    for i in range(5):
        of[f"noise_{i}"] = draw.normal(size=60).tolist()
    spec = dataclasses.replace(SPEC, regressors=(*(f"noise_{i}" for i in range(5)), *SPEC.regressors))
    for direction in ("forward", "backward", "both"):
        # The effect of the length is an eighth of the noise: 60 runs do not show it.
        assert {"reward", "knn_6"} <= set(stepwise(of, spec, direction=direction).chosen)


def test_all_models_are_compared_on_the_same_runs():
    of = table(1)
    of["knn_6"][0] = None
    path = stepwise(of, SPEC, labels=[f"mixture {i}" for i in range(40)])
    assert path.n == 39
    assert path.left_out == (("mixture 0", "no value of knn_6"),)


def test_what_follows_from_the_model_is_listed_and_not_taken():
    of = table(1)
    of["again"] = [value * 2 for value in of["reward"] if value is not None]
    of["flat"] = [1.0] * 40
    spec = dataclasses.replace(SPEC, regressors=("reward", "again", "flat"))
    path = stepwise(of, spec, direction="forward", enter=0.5)
    assert path.chosen in (("reward",), ("again",))
    problems = {one.regressor: one.problem for one in path.last}
    assert problems["flat"] == "It is the same in all 40 runs."
    assert "It follows from the regressors that are in." in problems.values()
    with pytest.raises(InputError, match="flat is the same"):
        stepwise(of, spec, direction="backward")


def test_errors_that_cannot_be_computed_let_nothing_enter():
    of = table(1)
    of["only"] = [1.0, *([0.0] * 39)]  # leverage 1 once it is in, by which HC3 divides
    spec = dataclasses.replace(SPEC, regressors=("reward", "only"), robust="HC3")
    path = stepwise(of, spec, direction="forward", enter=0.9)
    assert path.chosen == ("reward",)
    assert [(one.regressor, one.p) for one in path.last] == [("only", None)]


def test_few_runs_stop_a_forward_search_and_refuse_a_backward_one():
    of = {name: values[:4] for name, values in table(1).items()}
    path = stepwise(of, SPEC, direction="forward", enter=0.99)
    assert len(path.chosen) <= 2
    with pytest.raises(InputError, match="4 runs cannot determine 4 coefficients"):
        stepwise(of, SPEC, direction="backward")


def test_noise_alone_may_keep_nothing_and_says_so():
    draw = np.random.default_rng(3)
    of = {"loss": draw.normal(5, 1, 30).tolist(), "noise": draw.normal(size=30).tolist()}
    path = stepwise(of, FitSpec(response="loss", regressors=("noise",)))
    assert path.chosen == ()
    assert "No regressor is kept." in path.reason


def test_wrong_settings_are_refused():
    for options, said in (
        ({"direction": "sideways"}, "sideways"),
        ({"criterion": "r2"}, "r2"),
        ({"enter": 5}, "between 0 and 1"),
        ({"enter": 0.2, "leave": 0.1}, "leave again for ever"),
    ):
        with pytest.raises(SettingsError, match=said):
            stepwise(HALD, HALD_SPEC, **options)
    with pytest.raises(InputError, match="no regressor to select"):
        stepwise(HALD, dataclasses.replace(HALD_SPEC, regressors=()))
