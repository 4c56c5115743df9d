"""Bootstrap intervals: drawn one by one they are the textbook's; drawn from bins they are as close as draws allow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.bootstrap import EXACT_UP_TO, Interval, mean_interval, mean_intervals


def plain_bootstrap(values: np.ndarray, *, resamples: int, seed: int) -> tuple[float, float]:
    """The textbook's loop, with draws of its own."""
    rng = np.random.default_rng(seed)
    means = [rng.choice(values, len(values)).mean() for _ in range(resamples)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def test_no_value_has_no_mean_and_one_value_no_interval() -> None:
    assert mean_interval(np.array([])) == Interval(0, None, None, None)
    assert mean_interval(np.array([2.5])) == Interval(1, 2.5, None, None)


def test_two_values_by_hand() -> None:
    """Resamples of (0, 1) have the means 0, 1/2 and 1 with chances 1/4, 1/2, 1/4: 95 % of them reach from 0 to 1."""
    found = mean_interval(np.array([0.0, 1.0]))
    assert (found.mean, found.low, found.high) == (0.5, 0.0, 1.0)


def test_equal_values_have_an_interval_of_no_width() -> None:
    found = mean_interval(np.full(40, 0.1))
    assert found.mean == pytest.approx(0.1)
    assert found.low == pytest.approx(0.1)
    assert found.high == pytest.approx(0.1)


@pytest.mark.parametrize("kind", ["normal", "long tail", "whole numbers"])
def test_it_agrees_with_the_loop_of_the_textbook(kind: str) -> None:
    rng = np.random.default_rng(5)
    values = {
        "normal": rng.normal(3.0, 2.0, 800),
        "long tail": rng.lognormal(1.0, 1.2, 800),
        "whole numbers": rng.integers(0, 30, 800).astype(float),
    }[kind]
    found = mean_interval(values, resamples=4000)
    low, high = plain_bootstrap(values, resamples=4000, seed=11)
    assert found.mean == pytest.approx(values.mean())
    assert found.low is not None
    assert found.high is not None
    # Two runs of 4,000 resamples differ by the chance of drawing alone: about 2 % of the width at each end.
    assert abs(found.low - low) < 0.08 * (high - low)
    assert abs(found.high - high) < 0.08 * (high - low)


def test_the_interval_holds_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    found = [mean_interval(rng.exponential(1.0, 120), resamples=500) for _ in range(300)]
    share = np.mean([one.low <= 1.0 <= one.high for one in found if one.low is not None and one.high is not None])
    assert 0.90 <= share <= 0.98


@pytest.mark.parametrize("kind", ["normal", "lognormal", "one giant", "thirty giants", "two heaps"])
def test_bins_give_the_interval_of_drawing_one_by_one(kind: str) -> None:
    """Above ``EXACT_UP_TO`` values are drawn from bins. The end points stay within the chance of the draws.

    A giant that shared its bin with others was once drawn a fraction of a time, and its interval began too low.
    """
    rng = np.random.default_rng(2)
    n = EXACT_UP_TO + 5000
    values = {
        "normal": rng.normal(size=n),
        "lognormal": rng.lognormal(0.0, 1.5, n),
        "one giant": np.append(rng.normal(size=n - 1), 3000.0),
        "thirty giants": np.append(rng.normal(size=n - 30), 1000.0 * np.arange(1, 31)),
        "two heaps": np.repeat([0.0, 1.0], [n - n // 50, n // 50]),
    }[kind]
    binned = mean_interval(values, resamples=3000)
    exact = mean_interval(values, resamples=3000, exact_up_to=n)
    assert (binned.binned, exact.binned) == (True, False)
    assert binned.mean == exact.mean
    for one, other in ((binned.low, exact.low), (binned.high, exact.high)):
        assert one is not None
        assert other is not None
        assert exact.low is not None
        assert exact.high is not None
        assert abs(one - other) < 0.06 * (exact.high - exact.low)


def test_the_spread_of_binned_means_is_the_standard_error() -> None:
    values = np.random.default_rng(3).lognormal(0.0, 1.0, 60_000)
    found = mean_interval(values, resamples=8000)
    assert found.low is not None
    assert found.high is not None
    width = 2 * 1.959964 * values.std() / np.sqrt(len(values))
    assert found.high - found.low == pytest.approx(width, rel=0.04)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(-1e300, 1e300), min_size=2, max_size=40), st.randoms())
def test_the_order_of_values_and_their_size_do_not_matter(values: list[float], random) -> None:
    found = mean_interval(np.array(values), resamples=50)
    random.shuffle(values)
    assert mean_interval(np.array(values), resamples=50) == found
    assert found.low is not None
    assert found.high is not None
    assert found.mean is not None
    slack = 1e-9 * max(map(abs, values))
    assert min(values) - slack <= found.low <= found.mean <= found.high <= max(values) + slack


def test_what_a_column_gets_does_not_depend_on_its_neighbours() -> None:
    rng = np.random.default_rng(4)
    columns = [rng.normal(size=n) for n in (50, 200, 50, 1, 0, 200, 50, 50, 50)]
    for shared, alone in zip(mean_intervals(columns), map(mean_interval, columns), strict=True):
        assert shared.n == alone.n
        assert (shared.mean, shared.low, shared.high) == pytest.approx((alone.mean, alone.low, alone.high), abs=1e-12)
    assert mean_intervals(columns, seed=1) != mean_intervals(columns)
