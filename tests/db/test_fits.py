"""Fits and rules in the store: what was saved comes back equal, names are told apart, removal leaves the rest."""

from __future__ import annotations

import numpy as np
import pytest

from core.errors import StoreError
from core.regression import FitResult, FitSpec, fit
from core.rules import PUBLISHED, Rule, Term, parse
from db import fits
from db.store import Store


def a_fit(seed: int = 0) -> FitResult:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=12), rng.normal(size=12)
    table = {"loss_nats": list(np.exp(1 + 0.3 * x - 0.2 * y + rng.normal(0, 0.05, 12))), "a": list(x), "b": list(y)}
    table["a"][3] = None
    return fit(table, FitSpec(response="loss_nats", regressors=("a", "b"), robust="HC3"), keys=range(12))


def test_a_fit_comes_back_equal(store: Store) -> None:
    result = a_fit()
    fit_id = fits.save_fit(store, result, name="  First  ", study_ids=[3, 1], created_by="Ada")
    (found,) = fits.fits(store)
    assert found["result"] == result
    assert (found["fit_id"], found["name"], found["study_ids"], found["created_by"]) == (fit_id, "First", (3, 1), "Ada")
    assert found["result"].left_out == (("row 4", "no value of a"),)


def test_names_of_fits_are_told_apart_and_the_newest_comes_first(store: Store) -> None:
    fits.save_fit(store, a_fit(0), name="one", study_ids=[1])
    fits.save_fit(store, a_fit(1), name="two", study_ids=[1])
    for name in ("one", " two ", "  "):
        with pytest.raises(StoreError, match=r"already|no name"):
            fits.save_fit(store, a_fit(2), name=name, study_ids=[1])
    assert [row["name"] for row in fits.fits(store)] == ["two", "one"]


def test_the_published_rule_is_always_first_and_its_name_is_taken(store: Store) -> None:
    (published,) = fits.rules(store)
    assert (published["rule_id"], published["rule"], published["origin"]) == (None, PUBLISHED, "published")
    with pytest.raises(StoreError, match="already"):
        fits.save_rule(store, parse("1 - reward", name="x"), name=PUBLISHED.name)


def test_a_rule_comes_back_equal_with_the_name_of_its_fit(store: Store) -> None:
    fit_id = fits.save_fit(store, a_fit(), name="the fit", study_ids=[1])
    family = {"output": "reward", "model": None, "revision": "local-0123", "settings": {"dtype": "float32"}}
    rule = Rule(
        name="mine", intercept=0.1, terms=(Term("reward", -1e-17 / 3, family), Term("length", 8.257e-5)), origin="fit",
        fit={"covariance": [[1.0, 0.0, 0.0]] * 3, "residual_variance": 0.1, "df_residual": 9, "n": 12,
             "confidence": 0.95},
    )  # fmt: skip
    rule_id = fits.save_rule(store, rule, name="mine", fit_id=fit_id, note="  of May  ", created_by="Ada")
    found = fits.rules(store)[1]
    assert found["rule"] == rule
    assert (found["rule_id"], found["fit_id"], found["fit"], found["note"]) == (rule_id, fit_id, "the fit", "of May")


def test_removing_a_fit_keeps_its_rules_and_removing_a_rule_the_others(store: Store) -> None:
    fit_id = fits.save_fit(store, a_fit(), name="the fit", study_ids=[1])
    first = fits.save_rule(store, parse("1 - reward", name="a"), name="a", fit_id=fit_id)
    fits.save_rule(store, parse("1 - length", name="b"), name="b", note="")
    fits.remove_fit(store, fit_id)
    assert fits.fits(store) == []
    assert [(row["name"], row["fit"], row["note"]) for row in fits.rules(store)[1:]] == [
        ("b", None, None),
        ("a", None, None),
    ]
    fits.remove_rule(store, first)
    assert [row["name"] for row in fits.rules(store)] == [PUBLISHED.name, "b"]
