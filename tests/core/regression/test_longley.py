"""NIST's Longley data (StRD, higher difficulty; in the public domain) against its certified values, to nine digits."""

from __future__ import annotations

import math

import pytest

from core.regression import FitResult, FitSpec, fit

# y, x1 … x6: J. W. Longley (1967), Journal of the American Statistical Association 62, 819-841.
DATA = """
60323  83.0 234289 2356 1590 107608 1947
61122  88.5 259426 2325 1456 108632 1948
60171  88.2 258054 3682 1616 109773 1949
61187  89.5 284599 3351 1650 110929 1950
63221  96.2 328975 2099 3099 112075 1951
63639  98.1 346999 1932 3594 113270 1952
64989  99.0 365385 1870 3547 115094 1953
63761 100.0 363112 3578 3350 116219 1954
66019 101.2 397469 2904 3048 117388 1955
67857 104.6 419180 2822 2857 118734 1956
68169 108.4 442769 2936 2798 120445 1957
66513 110.8 444546 4681 2637 121950 1958
68655 112.6 482704 3813 2552 123366 1959
69564 114.2 502601 3931 2514 125368 1960
69331 115.7 518173 4806 2572 127852 1961
70551 116.9 554894 4007 2827 130081 1962
"""
CERTIFIED = {
    "const": (-3482258.63459582, 890420.383607373),
    "x1": (15.0618722713733, 84.9149257747669),
    "x2": (-0.358191792925910e-01, 0.334910077722432e-01),
    "x3": (-2.02022980381683, 0.488399681651699),
    "x4": (-1.03322686717359, 0.214274163161675),
    "x5": (-0.511041056535807e-01, 0.226073200069370),
    "x6": (1829.15146461355, 455.478499142212),
}
NINE_DIGITS = 5e-10


@pytest.fixture(scope="module")
def longley() -> FitResult:
    rows = [[float(cell) for cell in line.split()] for line in DATA.split("\n") if line]
    names = ("y", *(f"x{i}" for i in range(1, 7)))
    table = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    return fit(table, FitSpec(response="y", regressors=names[1:], log_response=False))


@pytest.mark.parametrize("name", CERTIFIED)
def test_coefficients_and_their_errors_have_nine_certified_digits(longley: FitResult, name: str):
    value, error = CERTIFIED[name]
    assert longley.coefficient(name).value == pytest.approx(value, rel=NINE_DIGITS)
    assert longley.coefficient(name).standard_error == pytest.approx(error, rel=NINE_DIGITS)


def test_the_fit_as_a_whole_has_nine_certified_digits(longley: FitResult):
    assert longley.r2 == pytest.approx(0.995479004577296, rel=NINE_DIGITS)
    assert math.sqrt(longley.residual_variance) == pytest.approx(304.854073561965, rel=NINE_DIGITS)
    assert longley.f == pytest.approx(330.285339234588, rel=NINE_DIGITS)
    assert longley.df_residual == 9
    assert sum(row.residual**2 for row in longley.rows) == pytest.approx(836424.055505915, rel=NINE_DIGITS)


def test_its_famous_collinearity_is_said(longley: FitResult):
    said = " ".join(longley.warnings)
    assert "variance inflation factor of x1 (136), x2 (1.79e+03), x3 (33.6), x5 (399), x6 (759)" in said
    assert "x4 (" not in said
    assert "fewer than 10 runs a regressor" in said


def test_a_prediction_survives_the_raw_scale_of_the_coefficients(longley: FitResult):
    row = longley.rows[4]
    values = dict(zip(longley.spec.regressors, (96.2, 328975, 2099, 3099, 112075, 1951), strict=True))
    found = longley.predict(values)
    assert found.value[0] == pytest.approx(row.predicted, rel=1e-9)
    assert found.mean_high[0] - found.mean_low[0] == pytest.approx(
        2 * 2.2621571628 * math.sqrt(longley.residual_variance * row.leverage), rel=1e-5
    )
