"""Which rows a rule selects: order, constraints, sizes, the border, and what a size does to the indicators."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import selection as sel
from core.errors import InputError

NAN = float("nan")


def brute(predicted, categories, most, vectors, distance, excluded) -> list[int]:
    """The greedy selection said as plainly as possible: ids are places."""
    kept: list[int] = []
    for i in sorted((i for i, p in enumerate(predicted) if np.isfinite(p)), key=lambda i: (predicted[i], i)):
        if i in excluded or not np.isfinite(vectors[i]).all():
            continue
        if sum(categories[j] == categories[i] for j in kept) >= most:
            continue
        if any(np.linalg.norm(vectors[i].astype(np.float64) - vectors[j].astype(np.float64)) < distance for j in kept):
            continue
        kept.append(i)
    return kept


def test_lowest_predicted_first_and_ties_as_they_stand() -> None:
    ranking = sel.rank([10, 11, 12, 13], [0.5, 0.1, 0.5, 0.1])
    assert ranking.ids.tolist() == [11, 13, 10, 12]
    assert ranking.predicted.tolist() == [0.1, 0.1, 0.5, 0.5]
    assert ranking.refused == {}


def test_each_refused_row_has_the_first_reason_that_applies() -> None:
    ranking = sel.rank(
        [1, 2, 3, 4, 5, 6],
        [NAN, 0.2, 0.3, 0.4, 0.1, float("inf")],
        categories=["a", "a", "a", None, None, "b"],
        max_per_category=1,
        excluded={1: "in an evaluation set", 5: "rejected"},
    )
    assert ranking.ids.tolist() == [2, 4]
    assert ranking.refused == {
        1: "in an evaluation set", 5: "rejected", 6: sel.NO_PREDICTION, 3: sel.CATEGORY_FULL,
    }  # fmt: skip
    assert ranking.reasons[sel.CATEGORY_FULL] == 1


def test_minimum_distance_by_hand() -> None:
    vectors = np.array([[0.0], [0.9], [2.0], [2.5], [np.nan]])
    ranking = sel.rank([1, 2, 3, 4, 5], [0, 1, 2, 3, 4], vectors=vectors, min_distance=1.0)
    assert ranking.ids.tolist() == [1, 3]
    assert ranking.refused == {2: sel.TOO_NEAR, 4: sel.TOO_NEAR, 5: sel.NO_VECTOR}
    assert ranking.nearest == {2: 1, 4: 3}


def test_a_row_exactly_at_the_distance_is_kept_whatever_float32_says() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=(40, 8))
    step = rng.normal(size=(40, 8))
    step /= np.linalg.norm(step, axis=1, keepdims=True)
    pairs = np.concatenate([base, base + 0.3 * step])
    gaps = np.linalg.norm(pairs[:40] - pairs[40:], axis=1)
    for i in range(40):
        for limit, n in ((gaps[i], 2), (np.nextafter(gaps[i], 2), 1)):
            two = sel.rank([0, 1], [0, 1], vectors=pairs[[i, i + 40]], min_distance=float(limit))
            assert len(two.ids) == n


def test_a_full_category_blocks_no_neighbour() -> None:
    """A row that was refused keeps nothing away: only kept rows do."""
    ranking = sel.rank(
        [1, 2, 3], [0, 1, 2], categories=["a", "a", "b"], max_per_category=1,
        vectors=np.array([[0.0], [5.0], [5.1]]), min_distance=1.0,
    )  # fmt: skip
    assert ranking.ids.tolist() == [1, 3]


@given(
    n=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
    most=st.integers(1, 6),
    distance=st.sampled_from([0.1, 0.7, 2]),
)
def test_rank_is_the_plain_greedy_selection(n: int, seed: int, most: int, distance: float) -> None:
    rng = np.random.default_rng(seed)
    predicted = rng.integers(0, 8, n).astype(float)
    predicted[rng.random(n) < 0.1] = np.nan
    categories = rng.integers(0, 3, n).tolist()
    vectors = rng.normal(size=(n, 2)).astype(np.float32)
    vectors[rng.random(n) < 0.05] = np.nan
    excluded = {int(i): "out" for i in np.flatnonzero(rng.random(n) < 0.1)}
    ranking = sel.rank(
        range(n), predicted, categories=categories, max_per_category=most, vectors=vectors, min_distance=distance,
        excluded=excluded,
    )  # fmt: skip
    assert ranking.ids.tolist() == brute(predicted, categories, most, vectors, distance, excluded)
    assert set(ranking.ids.tolist()) | set(ranking.refused) == set(range(n))
    assert not set(ranking.ids.tolist()) & set(ranking.refused)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    vectors, predicted = rng.normal(size=(400, 4)), rng.normal(size=400)
    whole = sel.rank(range(400), predicted, vectors=vectors, min_distance=0.8)
    monkeypatch.setattr(sel, "_BLOCK", 7)
    monkeypatch.setattr(sel, "_KEPT_AT_ONCE", 11)
    small = sel.rank(range(400), predicted, vectors=vectors, min_distance=0.8)
    assert whole.ids.tolist() == small.ids.tolist()
    assert whole.refused == small.refused
    assert whole.nearest == small.nearest
    assert 20 < len(whole.ids) < 380


def test_sizes_by_number_share_and_threshold() -> None:
    ranking = sel.rank(range(10), [float(i) for i in range(10)], excluded={0: "out"})
    assert sel.cut(ranking, size=3).kept == (1, 2, 3)
    assert sel.cut(ranking, share=0.25).kept == (1, 2)  # of all ten rows, rounded down
    assert sel.cut(ranking, threshold=4.0).kept == (1, 2, 3, 4)
    assert sel.cut(ranking, threshold=0.5).kept == ()
    with pytest.raises(InputError):
        sel.cut(ranking)
    with pytest.raises(InputError):
        sel.cut(ranking, size=1, share=0.1)
    with pytest.raises(InputError):
        sel.cut(ranking, share=1.5)


def test_a_smaller_selection_is_the_beginning_of_a_larger_one() -> None:
    rng = np.random.default_rng(2)
    arguments = {"categories": rng.integers(0, 4, 60).tolist(), "max_per_category": 6}
    predicted = rng.normal(size=60)
    large = sel.select(range(60), predicted, size=20, **arguments)
    small = sel.select(range(60), predicted, size=9, **arguments)
    assert small.kept == large.kept[:9]
    assert small.reasons[sel.BEYOND] == large.reasons[sel.BEYOND] + 11


def test_fewer_rows_than_asked_says_why() -> None:
    found = sel.select([1, 2, 3], [0.1, NAN, 0.3], size=3)
    assert found.kept == (1, 3)
    assert found.shortfall == 1
    assert "3 rows were asked for and 2 remain" in found.said
    assert "1 no predicted value" in found.said
    assert sel.select([1, 2], [0.1, 0.3], size=2).said == ""


def test_the_border_has_both_sides_nearest_first() -> None:
    ranking = sel.rank(range(10), [float(i) for i in range(10)])
    found = sel.border(ranking, 4, rows=2)
    assert (found.inside, found.outside, found.value) == ((3, 2), (4, 5), 3.5)
    assert sel.border(ranking, 0, rows=2).inside == ()
    assert sel.border(ranking, 10, rows=2).outside == ()
    assert sel.border(ranking, 10, rows=2).value == 9.0
    assert sel.border(sel.rank([], []), 0).value is None


def test_means_and_counts_of_any_size_equal_taking_them_anew() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(size=(50, 3))
    values[rng.random((50, 3)) < 0.2] = np.nan
    values[:, 2] = 7.0  # constant
    ranking = sel.rank(range(50), rng.normal(size=50), excluded={4: "out"})
    found = sel.spreads(values, ranking, bins=8)
    assert found.all_means == pytest.approx(np.nanmean(values, axis=0))
    for n in (0, 1, 17, 49):
        chosen = values[ranking.ids[:n]]
        for column in range(3):
            there = chosen[np.isfinite(chosen[:, column]), column]
            mean = found.means(n)[column]
            assert np.isnan(mean) if not len(there) else mean == pytest.approx(there.mean())
            assert found.selected_counts(n, column).sum() == len(there)
    assert found.counts.sum(axis=1).tolist() == np.isfinite(values).sum(axis=0).tolist()
    assert found.counts[2].max() == 50


def test_what_cannot_be_ranked_is_refused() -> None:
    cases: tuple[dict[str, Any], ...] = (
        {"ids": [1, 1], "predicted": [0, 1]},
        {"ids": [1], "predicted": [0, 1]},
        {"ids": [1], "predicted": [0], "max_per_category": 1},
        {"ids": [1], "predicted": [0], "min_distance": 1.0},
        {"ids": [1], "predicted": [0], "min_distance": 0.0, "vectors": np.zeros((1, 2))},
    )
    for arguments in cases:
        with pytest.raises(InputError):
            sel.rank(arguments.pop("ids"), arguments.pop("predicted"), **arguments)
