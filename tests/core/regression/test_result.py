from __future__ import annotations

import csv
import dataclasses
import io

import numpy as np
import pytest

from core.errors import InputError
from core.regression import FitResult, FitSpec, fit
from tests.core.regression.simulated import SPEC, table


@pytest.fixture(scope="module")
def fitted() -> FitResult:
    of = table(3)
    of["length"][2] = None
    return fit(of, SPEC, labels=[f"mixture {i}" for i in range(40)])


def test_json_gives_back_an_equal_fit(fitted: FitResult):
    assert FitResult.from_json(fitted.to_json()) == fitted


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}', '{"format": 1, "spec": 3}', "null"])
def test_json_of_something_else_is_refused_in_words(text: str):
    with pytest.raises(InputError, match="not a fit of Assay"):
        FitResult.from_json(text)


def test_json_of_a_later_format_is_refused(fitted: FitResult):
    with pytest.raises(InputError, match="format 2"):
        FitResult.from_json(fitted.to_json().replace('"format": 1', '"format": 2'))


def test_csv_has_every_coefficient_to_the_last_digit(fitted: FitResult):
    rows = list(csv.DictReader(io.StringIO(fitted.csv())))
    assert [row["name"] for row in rows] == ["const", "reward", "length", "knn_6"]
    assert [float(row["value"]) for row in rows] == [one.value for one in fitted.coefficients]
    assert rows[0]["vif"] == ""


def test_csv_of_the_runs(fitted: FitResult):
    rows = list(csv.DictReader(io.StringIO(fitted.rows_csv())))
    assert [float(row["residual"]) for row in rows] == [row.residual for row in fitted.rows]
    assert rows[2]["label"] == "mixture 3"


def test_hostile_names_are_neither_formulas_nor_latex():
    of = table(3)
    name = r"=cmd|'/c calc'!A1_50%\input{x}"
    of[name] = of.pop("reward")
    result = fit(of, FitSpec(response="loss", regressors=(name, "knn_6")))
    assert "\n'=cmd" in result.csv().replace('"', "")
    assert r"A1\_50\%\textbackslash{}input\{x\}" in result.latex()
    assert r"\input" not in result.latex()


def test_latex_is_a_booktabs_table(fitted: FitResult):
    lines = fitted.latex().splitlines()
    assert lines[1] == r"\begin{tabular}{lrrrrrr}"
    assert lines[2] == r"\toprule"
    assert lines[-1] == r"\end{tabular}"
    rows = [line for line in lines if " & " in line]
    assert len(rows) == 5  # head, intercept, three regressors
    assert all(row.count(" & ") == 6 and row.endswith(r"\\") for row in rows)
    assert any(row.startswith(r"knn\_6 & $-0.") for row in rows)
    assert "$n = 39$" in fitted.latex()


def test_prediction_of_a_missing_value_is_nan_and_of_a_missing_regressor_refused(fitted: FitResult):
    found = fitted.predict({"reward": 1.0, "length": [300.0, np.nan], "knn_6": 0.9})
    assert np.isfinite(found.value).tolist() == [True, False]
    assert found.low[0] < found.mean_low[0] < found.value[0] < found.mean_high[0] < found.high[0]
    wider = fitted.predict({"reward": 1.0, "length": 300.0, "knn_6": 0.9}, confidence=0.99)
    assert wider.high[0] > found.high[0]
    with pytest.raises(InputError, match="no values of length, knn_6"):
        fitted.predict({"reward": 1.0})


def test_an_unknown_coefficient_is_refused(fitted: FitResult):
    with pytest.raises(InputError, match="no coefficient mtld"):
        fitted.coefficient("mtld")


def test_a_fit_is_frozen(fitted: FitResult):
    with pytest.raises(dataclasses.FrozenInstanceError):
        fitted.n = 3  # type: ignore[misc]
