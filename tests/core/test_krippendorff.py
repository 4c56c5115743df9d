"""Krippendorff's alpha against the numbers of his own paper, and what it must never say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.agreement import cohen_kappa
from core.krippendorff import coincidences, krippendorff_alpha

N = 0  # no value
PAPER = (
    (1, 2, 3, 3, 2, 1, 4, 1, 2, N, N, N),
    (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, N, 3),
    (N, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, N),
    (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, N),
)
"""Four observers, twelve units, five values: section C of "Computing Krippendorff's Alpha-Reliability" (2011)."""


def counted(observers: tuple[tuple[int, ...], ...], k: int) -> np.ndarray:
    counts = np.zeros((len(observers[0]), k), int)
    for observer in observers:
        for unit, value in enumerate(observer):
            if value:
                counts[unit, value - 1] += 1
    return counts


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_the_example_of_the_paper(level: str, alpha: float) -> None:
    found = krippendorff_alpha(counted(PAPER, 5), level=level, values=(1, 2, 3, 4, 5))
    assert found.value == pytest.approx(alpha, abs=0.0005)
    # Unit 12 has one value, which nothing can be compared with.
    assert (found.n_units, found.n_values, found.n_single) == (11, 40, 1)


def test_the_coincidences_of_the_paper() -> None:
    found = coincidences(counted(PAPER, 5))
    assert found[0].tolist() == pytest.approx([7, 4 / 3, 1 / 3, 1 / 3, 0])
    assert found.sum(0).tolist() == pytest.approx([9, 13, 10, 5, 3])
    assert found == pytest.approx(found.T)


def test_two_observers_of_a_binary_value_without_gaps() -> None:
    """Section A of the paper: ten units, two observers, alpha = 0.095."""
    one = (1, 2, 1, 1, 1, 1, 1, 1, 2, 1)
    other = (2, 2, 2, 1, 1, 2, 1, 1, 1, 1)
    assert krippendorff_alpha(counted((one, other), 2)).value == pytest.approx(0.095, abs=0.0005)


def test_what_is_undefined_has_a_reason_and_no_value() -> None:
    alone = krippendorff_alpha(np.eye(3, dtype=int))
    assert (alone.value, alone.n_units, alone.n_single) == (None, 0, 3)
    assert "two people" in str(alone.reason)
    same = krippendorff_alpha(np.array([[2, 0], [3, 0]]), resamples=50)
    assert (same.value, same.n_values, same.low) == (None, 5, None)
    assert "chance" in str(same.reason)
    nothing = krippendorff_alpha(np.zeros((0, 5), int))
    assert nothing.value is None
    with pytest.raises(ValueError, match="ratio"):
        krippendorff_alpha(np.ones((1, 2), int), level="ratio")


@given(st.lists(st.lists(st.integers(0, 4), min_size=3, max_size=3), min_size=1, max_size=30))
def test_bounds_and_order_do_not_matter(rows: list[list[int]]) -> None:
    counts = np.array(rows)
    found = krippendorff_alpha(counts, resamples=20)
    again = krippendorff_alpha(counts[::-1], resamples=20)
    assert found == again
    if found.value is not None:
        assert found.value <= 1 + 1e-12
        # Nominal: the names of the values do not matter.
        assert krippendorff_alpha(counts[:, ::-1]).value == pytest.approx(found.value, abs=1e-12)
        if found.low is not None and found.high is not None:
            assert found.low <= found.high <= 1 + 1e-12


@given(st.lists(st.sampled_from(["accept", "reject"]), min_size=30, max_size=60), st.integers(0, 2**31))
def test_many_units_bring_alpha_and_kappa_of_alike_judges_together(one: list[str], seed: int) -> None:
    """With two observers and equal margins alpha is kappa but for the small-sample correction 1/(2n)."""
    rng = np.random.default_rng(seed)
    other = list(rng.permutation(one))
    kappa = cohen_kappa(one, other, categories=("accept", "reject"))
    counts = np.array([[(a == v) + (b == v) for v in ("accept", "reject")] for a, b in zip(one, other, strict=True)])
    alpha = krippendorff_alpha(counts)
    if kappa.value is None or alpha.value is None:
        assert kappa.value is None
        assert alpha.value is None
    else:
        n = 2 * len(one)
        assert alpha.value == pytest.approx(kappa.value + (1 - kappa.value) / n, abs=1e-9)


def test_the_interval_covers_the_value_and_narrows_with_more_units() -> None:
    few, many = counted(PAPER, 5), np.tile(counted(PAPER, 5), (40, 1))
    one, other = krippendorff_alpha(few, resamples=500), krippendorff_alpha(many, resamples=500)
    assert None not in (one.low, one.high, other.low, other.high, one.value)
    assert one.low < one.value < one.high  # type: ignore[operator]
    assert other.high - other.low < (one.high - one.low) / 4  # type: ignore[operator]
    assert krippendorff_alpha(few, resamples=500) == one  # the same seed, the same interval
