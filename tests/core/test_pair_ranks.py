"""Percentile ranks within groups, and how much indicators disagree."""

from __future__ import annotations

import numpy as np
import pytest

from core.pair_ranks import disagreement, percentile_ranks

NAN = float("nan")


def test_ranks_by_hand_with_ties_gaps_and_two_groups() -> None:
    values = np.array([3.0, 1.0, 1.0, NAN, 9.0, 50.0, 40.0])
    groups = np.array([1, 1, 1, 1, 1, 2, 2])
    # Group 1 has four values: 1 and 1 share the places 1 and 2 (middle 1), then 3 (2.5) and 9 (3.5), each over 4.
    assert percentile_ranks(values, groups) == pytest.approx([0.625, 0.25, 0.25, NAN, 0.875, 0.75, 0.25], nan_ok=True)
    assert np.isnan(percentile_ranks(np.array([NAN]), np.array([1]))).all()


def test_ranks_have_the_mean_one_half_whatever_the_values() -> None:
    random = np.random.default_rng(0)
    groups = random.integers(0, 5, 500)
    ranks = percentile_ranks(random.integers(0, 7, 500).astype(float), groups)
    for group in range(5):
        assert ranks[groups == group].mean() == pytest.approx(0.5)


def test_disagreement_is_the_standard_deviation_over_indicators_not_over_scorers() -> None:
    a, b, c = np.array([0.9, 0.1, 0.5]), np.array([0.1, 0.1, NAN]), np.array([0.5, NAN, NAN])
    found = disagreement({"ifd": [a], "reward": [b], "mtld": [c]})
    assert found == pytest.approx([np.std([0.9, 0.1, 0.5], ddof=1), 0.0, NAN], nan_ok=True)
    # Two students' IFD are one voice, their mean: 0.7 and 0.5 against 0.1.
    twice = disagreement({"ifd": [a, np.array([0.5, NAN, NAN])], "reward": [b]})
    assert twice == pytest.approx([np.std([0.7, 0.1], ddof=1), 0.0, NAN], nan_ok=True)
