from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from core.errors import InputError, SettingsError
from core.regression import ROBUST, FitResult, FitSpec, fit
from tests.core.regression.simulated import INTERCEPT, NOISE, SLOPES, SPEC, table

NAMES = ("const", *SLOPES)


def design(of: dict[str, list[Any]], names: tuple[str, ...] = tuple(SLOPES)) -> tuple[np.ndarray, np.ndarray]:
    """(design with intercept, log response) as numpy knows them."""
    columns = [np.asarray(of[name], float) for name in names]
    return np.column_stack([np.ones(len(columns[0])), *columns]), np.log(np.asarray(of["loss"], float))


@pytest.fixture(scope="module")
def fitted() -> FitResult:
    return fit(table(7), SPEC)


# --- against known truth ---


def test_intervals_cover_the_truth_at_the_nominal_rate():
    truth = {"const": INTERCEPT, **SLOPES}
    covered = dict.fromkeys(truth, 0)
    inside = 0
    n_fits = 400
    for seed in range(n_fits):
        result = fit(table(seed, n=25), SPEC)
        for one in result.coefficients:
            covered[one.name] += one.low <= truth[one.name] <= one.high
        # One more run of the same kind, for the prediction interval.
        new = table(10_000 + seed, n=1)
        found = result.predict({name: new[name] for name in SLOPES})
        inside += found.low[0] <= math.log(new["loss"][0]) <= found.high[0]
    # Binomial(400, 0.95): 380 ± 4 standard deviations of 4.36
    for name, count in {**covered, "prediction": inside}.items():
        assert 380 - 17.4 < count < 380 + 17.4, (name, count)


def test_a_regressor_without_effect_is_found_significant_five_times_in_a_hundred():
    found = 0
    for seed in range(400):
        of = table(seed, n=30)
        of["noise"] = np.random.default_rng(50_000 + seed).normal(size=30).tolist()
        p = fit(of, dataclasses.replace(SPEC, regressors=(*SLOPES, "noise"))).coefficient("noise").p
        assert p is not None
        found += p < 0.05
    assert 20 - 17.4 < found < 20 + 17.4


def test_the_residual_variance_is_that_of_the_noise():
    mean = np.mean([fit(table(seed), SPEC).residual_variance for seed in range(100)])
    assert mean == pytest.approx(NOISE**2, rel=0.1)


# --- against other ways to the same number ---


def test_coefficients_equal_numpys_least_squares(fitted: FitResult):
    x, y = design(table(7))
    beta = np.linalg.lstsq(x, y, rcond=None)[0]
    assert [one.name for one in fitted.coefficients] == list(NAMES)
    assert [one.value for one in fitted.coefficients] == pytest.approx(beta, rel=1e-9)
    standardised = [beta[i] * x[:, i].std() / y.std() for i in range(1, 4)]
    assert [one.standardised for one in fitted.coefficients[1:]] == pytest.approx(standardised, rel=1e-9)
    assert fitted.coefficients[0].standardised is None
    assert fitted.coefficients[0].vif is None


@pytest.mark.parametrize("robust", [None, *ROBUST])
def test_inference_equals_statsmodels_on_the_raw_design(robust: str | None):
    from statsmodels.regression.linear_model import OLS

    x, y = design(table(7))
    plain = OLS(y, x)
    reference = plain.fit() if robust is None else plain.fit(cov_type=robust, use_t=True)
    result = fit(table(7), dataclasses.replace(SPEC, robust=robust, confidence=0.9))
    close: Any = {"rel": 1e-7}
    assert [one.standard_error for one in result.coefficients] == pytest.approx(reference.bse, **close)
    assert [one.t for one in result.coefficients] == pytest.approx(reference.tvalues, **close)
    assert [one.p for one in result.coefficients] == pytest.approx(reference.pvalues, **close)
    assert [[one.low, one.high] for one in result.coefficients] == [
        pytest.approx(pair, **close) for pair in reference.conf_int(0.1)
    ]
    assert np.array(result.covariance) == pytest.approx(reference.cov_params(), **close)
    for ours, theirs in (
        (result.r2, reference.rsquared),
        (result.r2_adjusted, reference.rsquared_adj),
        (result.f, reference.fvalue),
        (result.f_p, reference.f_pvalue),
        (result.aic, reference.aic),
        (result.bic, reference.bic),
        (result.residual_variance, reference.mse_resid),
    ):
        assert ours == pytest.approx(theirs, **close)


def test_robust_errors_change_the_inference_and_nothing_else(fitted: FitResult):
    robust = fit(table(7), dataclasses.replace(SPEC, robust="HC3"))
    for name in ("r2", "r2_adjusted", "aic", "bic", "loo_r2", "condition_number", "residual_variance"):
        assert getattr(robust, name) == getattr(fitted, name), name
    assert [one.value for one in robust.coefficients] == [one.value for one in fitted.coefficients]
    assert [one.standard_error for one in robust.coefficients] != [one.standard_error for one in fitted.coefficients]
    assert robust.f != fitted.f


def test_aic_counts_the_coefficients_without_the_variance(fitted: FitResult):
    n, k = 40, 4
    ssr = sum(row.residual**2 for row in fitted.rows)
    log_likelihood = -n / 2 * (math.log(2 * math.pi * ssr / n) + 1)
    assert fitted.aic == pytest.approx(-2 * log_likelihood + 2 * k)
    assert fitted.bic == pytest.approx(-2 * log_likelihood + k * math.log(n))


def test_leave_one_out_equals_fitting_anew_without_each_run(fitted: FitResult):
    x, y = design(table(7))
    squares = 0.0
    for i, row in enumerate(fitted.rows):
        others = np.arange(len(y)) != i
        beta = np.linalg.lstsq(x[others], y[others], rcond=None)[0]
        assert row.loo_predicted == pytest.approx(x[i] @ beta, rel=1e-9)
        squares += (y[i] - x[i] @ beta) ** 2
    assert fitted.loo_r2 == pytest.approx(1 - squares / ((y - y.mean()) ** 2).sum(), rel=1e-9)
    assert fitted.loo_r2 is not None
    assert fitted.loo_r2 < fitted.r2


def test_diagnostics_of_the_runs_equal_statsmodels(fitted: FitResult):
    from statsmodels.regression.linear_model import OLS
    from statsmodels.stats.outliers_influence import OLSInfluence, variance_inflation_factor

    x, y = design(table(7))
    reference = OLSInfluence(OLS(y, x).fit())
    rows = fitted.rows
    assert [row.leverage for row in rows] == pytest.approx(reference.hat_matrix_diag, rel=1e-7)
    assert [row.studentised for row in rows] == pytest.approx(reference.resid_studentized_external, rel=1e-7)
    assert [row.cooks for row in rows] == pytest.approx(reference.cooks_distance[0], rel=1e-6)
    assert [row.observed for row in rows] == pytest.approx(y)
    vifs = [variance_inflation_factor(x, i) for i in (1, 2, 3)]
    assert [one.vif for one in fitted.coefficients[1:]] == pytest.approx(vifs, rel=1e-7)


def test_prediction_equals_statsmodels(fitted: FitResult):
    from statsmodels.regression.linear_model import OLS

    x, y = design(table(7))
    reference = OLS(y, x).fit().get_prediction([[1, 0.5, 200, 0.9], [1, 3.0, 900, 0.1]]).summary_frame(0.05)
    found = fitted.predict({"reward": [0.5, 3.0], "length": [200, 900], "knn_6": [0.9, 0.1]})
    for ours, theirs in (
        (found.value, "mean"),
        (found.low, "obs_ci_lower"),
        (found.high, "obs_ci_upper"),
        (found.mean_low, "mean_ci_lower"),
        (found.mean_high, "mean_ci_upper"),
    ):
        assert ours == pytest.approx(reference[theirs].to_numpy(), rel=1e-7)


def test_units_and_offsets_of_a_regressor_change_nothing_but_its_coefficient(fitted: FitResult):
    of = table(7)
    of["length"] = [1e9 + 1e-3 * value for value in of["length"] if value is not None]
    result = fit(of, SPEC)
    assert result.coefficient("length").value == pytest.approx(1e3 * fitted.coefficient("length").value, rel=1e-4)
    assert result.r2 == pytest.approx(fitted.r2, rel=1e-5)
    assert result.condition_number == pytest.approx(fitted.condition_number, rel=1e-4)


# --- what goes in ---


def test_rows_without_a_value_are_left_out_named_and_counted():
    of = table(7)
    of["reward"][3] = None
    of["loss"][5] = float("nan")
    of["length"][5] = float("inf")
    labels = [f"mixture {i}" for i in range(40)]
    result = fit(of, SPEC, labels=labels, keys=range(100, 140))
    assert result.left_out == (("mixture 3", "no value of reward"), ("mixture 5", "no value of loss, length"))
    assert result.n == 38
    assert [row.key for row in result.rows] == [key for key in range(100, 140) if key not in (103, 105)]
    assert "2 of 40 runs were left out" in result.warnings[0]
    without = {name: [value for i, value in enumerate(of[name]) if i not in (3, 5)] for name in of}
    assert result.coefficients == fit(without, SPEC).coefficients


def test_the_fit_of_the_response_itself(fitted: FitResult):
    result = fit(table(7), dataclasses.replace(SPEC, log_response=False))
    assert [row.observed for row in result.rows] == pytest.approx(table(7)["loss"])
    assert [math.log(row.observed) for row in result.rows] == pytest.approx([row.observed for row in fitted.rows])


def test_without_regressors_the_mean_alone_is_fitted():
    result = fit(table(7), dataclasses.replace(SPEC, regressors=()))
    assert (result.r2, result.f, result.condition_number) == (0.0, None, None)
    assert result.coefficients[0].value == pytest.approx(np.log(table(7)["loss"]).mean())
    # Each run is predicted by the mean of the others: 1 - (n / (n - 1))²
    assert result.loo_r2 == pytest.approx(1 - (40 / 39) ** 2)
    assert "the mean alone" in result.warnings[0]


# --- what is refused, in words that name the culprit ---


def refused(of: dict[str, list[Any]], spec: FitSpec = SPEC, **options: object) -> str:
    with pytest.raises(InputError) as caught:
        fit(of, spec, **options)  # type: ignore[arg-type]
    return str(caught.value)


def test_a_constant_regressor_is_named():
    of = table(7)
    of["length"] = [0.1 + 0.2] * 20 + [0.3] * 20  # the same but for rounding
    assert refused(of).startswith("length is the same in all 40 runs")


def test_regressors_that_follow_from_one_another_are_named_and_the_innocent_are_not():
    of = table(7)
    of["twice"] = [2 * value + 5 for value in of["reward"] if value is not None]
    said = refused(of, dataclasses.replace(SPEC, regressors=("length", "reward", "knn_6", "twice")))
    assert said.startswith("reward and twice follow from one another")
    shares = np.random.default_rng(0).dirichlet([1, 1, 1], 40)
    of |= {f"share_{i}": shares[:, i].tolist() for i in range(3)}
    said = refused(of, dataclasses.replace(SPEC, regressors=("reward", "share_0", "share_1", "share_2")))
    assert said.startswith("share_0, share_1 and share_2 follow from one another")


def test_near_collinear_regressors_are_fitted_with_a_warning():
    of = table(7)
    draw = np.random.default_rng(0)
    of["also"] = [value + 1e-3 * draw.normal() for value in of["reward"] if value is not None]
    result = fit(of, dataclasses.replace(SPEC, regressors=(*SLOPES, "also")))
    assert any("variance inflation factor of reward" in said and "also" in said for said in result.warnings)
    assert result.condition_number is not None
    assert result.condition_number > 30


@pytest.mark.parametrize("n", [2, 3, 4])
def test_fewer_runs_than_coefficients_are_refused(n: int):
    assert refused(table(7, n=n)).startswith(f"{n} runs cannot determine 4 coefficients")


def test_one_run_more_than_coefficients_is_fitted_with_a_warning():
    result = fit(table(7, n=5), SPEC)
    assert result.df_residual == 1
    assert result.warnings[0].startswith("5 runs for 3 regressors: fewer than 10 runs a regressor")
    assert all(row.studentised is None for row in result.rows)


def test_ten_runs_a_regressor_are_enough():
    assert not any("fewer than 10" in said for said in fit(table(7, n=30), SPEC).warnings)
    assert any("fewer than 10" in said for said in fit(table(7, n=29), SPEC).warnings)


def test_the_logarithm_of_what_is_not_positive_is_refused_by_name():
    of = table(7)
    of["loss"][8] = 0.0
    assert refused(of).startswith("loss of row 9 is 0, which has no logarithm")
    assert fit(of, dataclasses.replace(SPEC, log_response=False)).n == 40


def test_a_response_that_does_not_vary_is_refused():
    assert "loss is the same in all runs" in refused({**table(7), "loss": [2.0] * 40})


def test_a_missing_column_lists_those_that_are_there():
    said = refused(table(7), dataclasses.replace(SPEC, regressors=("reward", "mtld")))
    assert said == "There is no column mtld; there are: loss, reward, length, knn_6."


def test_a_column_asked_for_twice_or_of_another_length_or_of_text_is_refused():
    assert "reward is asked for twice" in refused(table(7), dataclasses.replace(SPEC, regressors=("reward", "reward")))
    assert "loss is asked for twice" in refused(table(7), dataclasses.replace(SPEC, regressors=("loss",)))
    assert "length has 3 values, loss has 40" in refused({**table(7), "length": [1.0, 2.0, 3.0]})
    assert "labels has 1 values" in refused(table(7), labels=["one"])
    text: dict[str, list] = {**table(7), "length": ["12"] * 40}
    assert refused(text).startswith("length of row 1 is '12', which is no number")
    assert "too large to be fitted" in refused({**table(7), "length": [1e200, *range(39)]})


def test_nothing_left_to_fit_says_what_is_missing_everywhere():
    said = refused({**table(7), "knn_6": [None] * 40})
    assert said.startswith("None of the 40 runs can be fitted: knn_6 has no value at all")


def test_a_run_that_alone_determines_a_coefficient_has_no_leave_one_out():
    of = table(7)
    of["only"] = [1.0, *([0.0] * 39)]
    spec = dataclasses.replace(SPEC, regressors=("reward", "only"))
    result = fit(of, spec, labels=[f"run {i}" for i in range(40)])
    assert result.loo_r2 is None
    assert (result.rows[0].loo_predicted, result.rows[0].studentised, result.rows[0].cooks) == (None, None, None)
    assert result.rows[1].loo_predicted is not None
    assert any("run 0 alone determines a coefficient" in said for said in result.warnings)
    for robust in ("HC2", "HC3"):
        assert "row 1 alone determines a coefficient" in refused(of, dataclasses.replace(spec, robust=robust))
    assert fit(of, dataclasses.replace(spec, robust="HC1")).n == 40


def test_robust_errors_of_few_runs_may_have_no_f_test():
    of = {"loss": [2.0, 3.0, 2.5, 2.2], "a": [0.0, 0.0, 1.0, 0.0], "b": [1.0, 0.0, 0.0, 0.0]}
    result = fit(of, FitSpec(response="loss", regressors=("a", "b"), robust="HC0"))
    assert (result.f, result.f_p) == (None, None)
    assert any("There is no F test: 4 runs are too few for HC0" in said for said in result.warnings)


@pytest.mark.filterwarnings("error")
def test_whatever_the_numbers_are_a_fit_is_finite_or_refused():
    draw = np.random.default_rng(0)
    odd = [None, math.nan, math.inf, 0.0, 1.0, 1e45, -1e45, 1e-300, 1e-12]
    fitted_ones = 0
    for _ in range(300):
        n, p = draw.integers(1, 12), draw.integers(0, 4)
        of: dict[str, list[Any]] = {
            name: [odd[draw.integers(len(odd))] if draw.random() < 0.2 else draw.normal() for _ in range(n)]
            for name in ("loss", *(f"x{i}" for i in range(p)))
        }
        spec = FitSpec(
            response="loss",
            regressors=tuple(f"x{i}" for i in range(p)),
            log_response=False,
            robust=(None, *ROBUST)[draw.integers(5)],
        )
        try:
            result = fit(of, spec)
        except InputError:
            continue
        fitted_ones += 1
        assert FitResult.from_json(result.to_json()) == result  # JSON without NaN or infinity
    assert fitted_ones > 50


def test_an_exact_fit_is_told_as_such():
    of = {"loss": [float(2 * i) for i in range(1, 41)], "half": [float(i) for i in range(1, 41)]}
    result = fit(of, FitSpec(response="loss", regressors=("half",), log_response=False))
    assert result.coefficient("half").value == pytest.approx(2.0)
    assert any("reproduce the response exactly" in said for said in result.warnings)
    assert FitResult.from_json(result.to_json()) == result  # no infinity got in


def test_an_influential_run_is_named():
    of = table(7)
    of["loss"][11] *= 3.0
    result = fit(of, SPEC, labels=[f"mixture {i}" for i in range(40)])
    said = next(said for said in result.warnings if said.startswith("Influential"))
    assert "mixture 11 (" in said
    assert "4/n = 0.1" in said
    assert any("do not look normal" in said for said in result.warnings)


def test_settings_that_are_none():
    with pytest.raises(SettingsError, match="HC4"):
        FitSpec(response="loss", regressors=("reward",), robust="HC4")
    with pytest.raises(SettingsError, match="between 0 and 1"):
        FitSpec(response="loss", regressors=("reward",), confidence=95)
