"""The line, its band and the correlations' intervals, against statsmodels, by hand and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from core.run_table import run_table
from core.univariate import correlation, groups, line


def test_the_line_and_its_band_are_those_of_statsmodels() -> None:
    import statsmodels.api as sm

    rng = np.random.default_rng(0)
    x = rng.normal(5, 2, 20)
    y = 3 - 0.5 * x + rng.normal(0, 0.3, 20)
    found = line(x, y, confidence=0.9)
    assert found is not None
    reference = sm.OLS(y, sm.add_constant(x)).fit()
    assert (found.intercept, found.slope) == pytest.approx(tuple(reference.params), rel=1e-9)
    assert found.standard_error == pytest.approx(reference.bse[1], rel=1e-9)
    assert found.p == pytest.approx(reference.pvalues[1], rel=1e-6)
    band = reference.get_prediction(sm.add_constant(np.array(found.places))).conf_int(alpha=0.1)
    assert np.column_stack([found.low, found.high]) == pytest.approx(band, rel=1e-9)
    assert (found.places[0], found.places[-1]) == (x.min(), x.max())


def test_a_line_needs_three_points_and_an_x_that_differs() -> None:
    assert line([1.0, 2.0], [1.0, 2.0]) is None
    assert line([0.1 + 0.2, 0.3, 0.3], [1.0, 2.0, 3.0]) is None
    exact = line([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
    assert exact is not None
    assert exact.slope == pytest.approx(2.0)
    assert exact.high == pytest.approx(exact.low)


def test_intervals_by_hand() -> None:
    # Pearson of these is 0.8 exactly: Sxy = 8, Sxx = Syy = 10.
    x, y = [1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 1.0, 4.0, 3.0, 5.0]
    found = correlation(x, y, method="pearson")
    assert found.value == pytest.approx(0.8)
    half = stats.norm.ppf(0.975) / math.sqrt(2)
    assert (found.low, found.high) == pytest.approx(
        (math.tanh(math.atanh(0.8) - half), math.tanh(math.atanh(0.8) + half))
    )
    ranks = correlation(x, y, method="spearman")
    wider = stats.norm.ppf(0.975) * math.sqrt((1 + 0.32) / 2)
    assert ranks.low == pytest.approx(math.tanh(math.atanh(0.8) - wider))
    assert ranks.n == 5


def test_what_cannot_be_computed_is_none_with_a_reason() -> None:
    for x, y, words in (
        ([1.0, 2.0], [1.0, 2.0], "Fewer than 3 runs"),
        ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], "The indicator is the same"),
        ([1.0, 2.0, 3.0], [1.0, 1.0, 1.0], "The loss is the same"),
    ):
        found = correlation(x, y, method="pearson")
        assert found.value is None
        assert words in (found.reason or "")
    three = correlation([1.0, 2.0, 3.0], [1.0, 3.0, 2.0], method="spearman")
    assert three.value == pytest.approx(0.5)
    assert (three.low, three.reason) == (None, "Three runs are too few for an interval.")
    one_order = correlation([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 9.0], method="spearman")
    assert (one_order.value, one_order.low) == (1.0, None)
    assert one_order.reason


@pytest.mark.parametrize("method", ["pearson", "spearman"])
def test_intervals_cover_the_truth_at_their_rate(method: str) -> None:
    rng = np.random.default_rng(3)
    truth = 0.6 if method == "pearson" else 6 / math.pi * math.asin(0.3)  # of a normal pair with r = 0.6
    drawn = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], size=(600, 24))
    hits = 0
    for pair in drawn:
        found = correlation(pair[:, 0], pair[:, 1], method=method)  # type: ignore[arg-type]
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= truth <= found.high
    assert 0.92 <= hits / len(drawn) <= 0.975


def _bins(indicator: str, scorer_id: int | None) -> list[str]:
    """Labels of the bins that are drawn for a column, of runs cut by ``ifd`` of two scorers and by two kNN columns."""
    cut = [("ifd@12", 12), ("ifd@13", 13), ("ifd", 12), ("mtld", 4), ("knn_6@7", None), ("knn_6@8", None)]
    runs = [
        {"run_id": i, "study_id": 1, "study": "S", "label": f"{by} by {scorer}", "role": "bin", "dataset_id": i,
         "outcome": "done", "reason": None, "loss_nats": 2.0 + i, "n_rows": 5,
         "details": {"indicator": by, "scorer_id": scorer, "bin": 0}}
        for i, (by, scorer) in enumerate(cut)
    ]  # fmt: skip
    n = len(runs)
    table = run_table(
        runs, keys=[indicator], dataset_ids=range(n), mean=np.arange(float(n))[:, None],
        n_values=np.full((n, 1), 5), n_members=np.full(n, 5),
    )  # fmt: skip
    output = indicator.partition("@")[0]
    return [
        point.label
        for group in groups(table, key=indicator, output=output, scorer_id=scorer_id)
        for point in group.points
    ]


def test_bins_are_known_by_the_scorer_that_cut_them_whatever_the_key_of_its_column() -> None:
    """A plan calls a column ifd@12 where there are two scorers of ifd, and ifd where there is one."""
    assert _bins("ifd@12", 12) == _bins("ifd", 12) == ["ifd@12 by 12", "ifd by 12"]
    assert _bins("ifd@13", 13) == ["ifd@13 by 13"]
    assert _bins("mtld", 4) == ["mtld by 4"]
    assert _bins("knn_6@8", None) == ["knn_6@8 by None"]
    assert _bins("knn_1", None) == []
