"""Correlations over the rows that have both scores, against scipy; and what cannot be computed says why."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.correlation import Correlation, Method, correlations, order_by_similarity


def with_gaps(n: int, k: int, *, seed: int, ties: bool) -> np.ndarray:
    rng = np.random.default_rng(seed)
    columns = rng.normal(size=(n, k)) + rng.normal(size=(n, 1))
    if ties:
        columns = np.round(columns, 0)
    columns[rng.random((n, k)) < 0.2] = np.nan
    return columns


@pytest.mark.parametrize("method", ["spearman", "pearson"])
@pytest.mark.parametrize("ties", [False, True])
def test_pairs_agree_with_scipy_over_the_rows_that_have_both(method: Method, ties: bool) -> None:
    from scipy import stats

    columns = with_gaps(150, 5, seed=3, ties=ties)
    table = correlations(columns, method=method)
    for i in range(5):
        for j in range(5):
            both = ~np.isnan(columns[:, i]) & ~np.isnan(columns[:, j])
            oracle = {"spearman": stats.spearmanr, "pearson": stats.pearsonr}[method]
            expected = 1.0 if i == j else oracle(columns[both, i], columns[both, j]).statistic
            assert table[i][j].value == pytest.approx(expected, abs=1e-12)
            assert table[i][j].n == int(both.sum())
            assert table[i][j] == table[j][i]


def test_four_rows_by_hand() -> None:
    """Ranks 1 2 3 4 against 1 3 2 4: Spearman is 1 − 6 · 2 / (4 · 15) = 0.8."""
    columns = np.array([[1.0, 10.0], [2.0, 1000.0], [3.0, 20.0], [4.0, 1e9]])
    assert correlations(columns)[0][1].value == pytest.approx(0.8)


def test_a_constant_column_is_not_computable_and_never_zero() -> None:
    """0 would read as "no relation"; and the mean of equal numbers such as 0.1 may be off by a rounding."""
    columns = np.column_stack([np.full(30, 0.1), np.arange(30.0), np.full(30, 7.0)])
    for method in ("spearman", "pearson"):
        table = correlations(columns, method=method)
        assert table[0][1] == Correlation(None, 30, "The first is the same in every row that has both.")
        assert table[0][2].reason == "Both are the same in every row that has both."
        assert table[0][0].value is None


def test_constant_only_where_both_have_a_value() -> None:
    columns = np.array([[1.0, 5.0], [1.0, 6.0], [1.0, 7.0], [2.0, np.nan], [3.0, np.nan]])
    found = correlations(columns)[0][1]
    assert (found.value, found.n) == (None, 3)
    assert found.reason == "The first is the same in every row that has both."


def test_too_few_rows_with_both_say_so() -> None:
    columns = np.array([[1.0, np.nan], [2.0, 1.0], [np.nan, 2.0], [4.0, 3.0]])
    assert correlations(columns)[0][1] == Correlation(None, 2, "Fewer than 3 rows have both scores.")
    assert correlations(np.empty((0, 2)))[0][1].value is None
    assert correlations(np.empty((0, 0))) == []


@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.tuples(st.floats(-1e308, 1e308), st.floats(-1e308, 1e308)), min_size=3, max_size=20),
    st.sampled_from(["spearman", "pearson"]),
)
def test_it_stays_within_minus_one_and_one_for_numbers_of_any_size(
    pairs: list[tuple[float, float]], method: Method
) -> None:
    found = correlations(np.array(pairs), method=method)[0][1]
    assert (found.value is None) == (found.reason is not None)
    assert found.value is None or -1.0 <= found.value <= 1.0


def test_like_stands_beside_like_whatever_the_sign() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 300))
    noise = rng.normal(size=(300, 6)) * 0.2
    columns = np.column_stack([a, b, -a, b, a, -b]) + noise
    order = order_by_similarity(correlations(columns))
    assert sorted(order) == list(range(6))
    assert {frozenset(order[:3]), frozenset(order[3:])} == {frozenset({0, 2, 4}), frozenset({1, 3, 5})}


def test_an_order_is_found_whatever_is_missing() -> None:
    assert order_by_similarity([]) == []
    nothing = Correlation(None, 0, "none")
    assert sorted(order_by_similarity([[nothing] * 3] * 3)) == [0, 1, 2]
