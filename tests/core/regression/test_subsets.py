from __future__ import annotations

import dataclasses

import pytest

from core.errors import InputError, SettingsError
from core.regression import SUBSET_CRITERIA, best_subset, fit
from tests.core.regression.simulated import SPEC, table
from tests.core.regression.test_stepwise import HALD, HALD_SPEC


def test_every_subset_has_the_numbers_of_its_own_fit():
    found = best_subset(HALD, HALD_SPEC)
    assert len(found) == 16
    for one in found:
        result = fit(HALD, dataclasses.replace(HALD_SPEC, regressors=one.regressors))
        for name in ("r2", "r2_adjusted", "aic", "bic", "loo_r2"):
            assert getattr(one, name) == pytest.approx(getattr(result, name), rel=1e-9, abs=1e-12), (one, name)


@pytest.mark.parametrize("criterion", SUBSET_CRITERIA)
def test_the_first_is_the_best(criterion: str):
    found = best_subset(HALD, HALD_SPEC, criterion=criterion)
    values = [getattr(one, criterion) for one in found]
    assert values == sorted(values, reverse=criterion in ("r2_adjusted", "loo_r2"))
    # The best sets of Hald's data, as the textbooks list them.
    assert found[0].regressors == {"bic": ("x1", "x2")}.get(criterion, ("x1", "x2", "x4"))


def test_what_cannot_be_fitted_comes_last_with_its_reason():
    of = table(1)
    of["again"] = [value * 2 for value in of["reward"] if value is not None]
    found = best_subset(of, dataclasses.replace(SPEC, regressors=("reward", "again", "length")))
    problems = [one for one in found if one.aic is None]
    assert found[-len(problems) :] == problems
    assert {one.regressors for one in problems} == {("reward", "again"), ("reward", "again", "length")}
    assert {one.reason for one in problems} == {"The regressors follow from one another."}
    few = best_subset({name: values[:3] for name, values in table(1).items()}, SPEC)
    assert few[-1].reason == "3 runs are too few."


def test_more_than_ten_regressors_are_refused():
    of = table(1)
    names = tuple(f"x{i}" for i in range(11))
    spec = dataclasses.replace(SPEC, regressors=names)
    with pytest.raises(InputError, match=r"11 regressors are 2,048 fits; best subset takes up to 10"):
        best_subset({**of, **dict.fromkeys(names, of["reward"])}, spec)


def test_wrong_settings_are_refused():
    with pytest.raises(SettingsError, match="r2"):
        best_subset(HALD, HALD_SPEC, criterion="r2")
    with pytest.raises(InputError, match="no regressor"):
        best_subset(HALD, dataclasses.replace(HALD_SPEC, regressors=()))
