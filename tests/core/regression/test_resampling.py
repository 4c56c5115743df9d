from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from core.errors import InputError, SettingsError
from core.regression import (
    FitSpec,
    best_subset,
    bootstrap_selection,
    by_best_subset,
    by_stepwise,
    fit,
    selection_loo_r2,
)
from tests.core.regression.simulated import SLOPES, SPEC, table


@pytest.fixture(scope="module")
def of() -> dict[str, list[Any]]:
    made = table(5, n=50)
    made["noise"] = np.random.default_rng(1).normal(size=50).tolist()
    return made


NOISY = dataclasses.replace(SPEC, regressors=(*SLOPES, "noise"))


def test_true_regressors_are_kept_and_noise_is_not(of: dict[str, list[Any]]):
    kept = bootstrap_selection(of, NOISY, n_draws=100)
    shares = {one.name: one.share for one in kept.regressors}
    assert shares["reward"] > 0.9
    assert shares["noise"] < 0.5
    reward = kept.regressors[0]
    assert reward.same_sign == 1.0
    assert reward.low is not None
    assert reward.high is not None
    assert reward.low < SLOPES["reward"] < reward.high
    assert sum(count for _, count in kept.models) == kept.n_fitted == 100


def test_it_is_the_same_again_by_the_seed(of: dict[str, list[Any]]):
    assert bootstrap_selection(of, NOISY, n_draws=20) == bootstrap_selection(of, NOISY, n_draws=20)
    assert bootstrap_selection(of, NOISY, n_draws=20, seed=1) != bootstrap_selection(of, NOISY, n_draws=20)


def test_keeping_all_gives_the_bootstrap_of_the_plain_fit(of: dict[str, list[Any]]):
    kept = bootstrap_selection(of, SPEC, select=lambda _, spec: spec.regressors, n_draws=300)
    result = fit(of, SPEC)
    for one in kept.regressors:
        assert one.share == 1.0
        fitted = result.coefficient(one.name)
        assert one.median == pytest.approx(fitted.value, abs=fitted.standard_error)
        assert one.low is not None
        assert one.high is not None
        # The spread of the resampled coefficients is about their standard error.
        assert 0.6 < (one.high - one.low) / (fitted.high - fitted.low) < 1.6


def test_draws_that_cannot_be_fitted_are_counted_with_their_reason():
    made = table(5, n=12)
    made["rare"] = [1.0, *([0.0] * 11)]  # a draw misses the first run in about a third of all cases
    spec = FitSpec(response="loss", regressors=("reward", "rare"))
    kept = bootstrap_selection(made, spec, select=by_stepwise(direction="backward", leave=0.9), n_draws=100)
    assert kept.n_fitted < kept.n_draws == 100
    assert kept.n_fitted + sum(count for _, count in kept.problems) == 100
    assert "rare is the same in all" in kept.problems[0][0]
    assert 15 < kept.problems[0][1] < 60


def test_best_subset_as_the_selection(of: dict[str, list[Any]]):
    kept = bootstrap_selection(of, NOISY, select=by_best_subset(criterion="bic"), n_draws=10)
    assert {one.name for one in kept.regressors if one.share == 1.0} >= {"reward", "knn_6"}


def test_leave_one_out_with_the_selection_inside_equals_doing_it_by_hand(of: dict[str, list[Any]]):
    found, reason = selection_loo_r2(of, NOISY, select=by_best_subset())
    assert reason is None
    squares, logs = 0.0, np.log(np.array(of["loss"], float))
    for i in range(50):
        rest = {name: [value for j, value in enumerate(values) if j != i] for name, values in of.items()}
        chosen = best_subset(rest, NOISY)[0].regressors
        result = fit(rest, dataclasses.replace(NOISY, regressors=chosen))
        squares += float(logs[i] - result.predict({name: of[name][i] or 0.0 for name in chosen}).value[0]) ** 2
    assert found == pytest.approx(1 - squares / ((logs - logs.mean()) ** 2).sum(), rel=1e-9)


def test_a_search_among_noise_does_not_predict_once_it_is_paid_for():
    # Twelve regressors of noise and 25 runs: those that were searched for look as if they predicted.
    flattering, honest = [], []
    for seed in range(20):
        draw = np.random.default_rng(seed)
        made: dict[str, list[Any]] = {f"x{i}": draw.normal(size=25).tolist() for i in range(12)}
        made["loss"] = draw.normal(3, 0.1, 25).tolist()
        spec = FitSpec(response="loss", regressors=tuple(f"x{i}" for i in range(12)))
        select = by_stepwise(direction="forward", criterion="aic")
        chosen = tuple(select(made, spec))
        loo = fit(made, dataclasses.replace(spec, regressors=chosen)).loo_r2
        assert loo is not None
        flattering.append(loo)
        found, _ = selection_loo_r2(made, spec, select=select)
        assert found is not None
        honest.append(found)
    assert np.mean(flattering) > 0
    assert np.mean(honest) < -0.3
    assert all(shown > true for shown, true in zip(flattering, honest, strict=True))


def test_a_selection_that_fails_without_a_run_gives_a_reason():
    made = table(5, n=12)
    made["rare"] = [1.0, *([0.0] * 11)]
    spec = FitSpec(response="loss", regressors=("reward", "rare"))
    found, reason = selection_loo_r2(made, spec, select=by_stepwise(direction="backward"))
    assert found is None
    assert reason is not None
    assert reason.startswith("Without row 1: rare is the same in all 11 runs")


def test_no_draws_are_refused(of: dict[str, list[Any]]):
    with pytest.raises(SettingsError, match="draw at least once"):
        bootstrap_selection(of, SPEC, n_draws=0)
    with pytest.raises(InputError, match="no column"):
        bootstrap_selection({"loss": [1.0, 2.0]}, SPEC)
