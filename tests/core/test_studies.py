"""Designs of studies: exactly the rows that were asked for, the same ones for the same seed, and plain refusals."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import InputError
from core.studies import (
    PlannedRun,
    Source,
    bins,
    check_plan,
    comparison_runs,
    random_mixtures,
    shortfalls,
    single_run,
    size_runs,
    steered_mixtures,
)
from core.studies.plans import largest_remainder


def source(label: str, first: int, n: int) -> Source:
    return Source(label, tuple(range(first, first + n)))


LARGE = [source("a", 0, 3000), source("b", 3000, 3000), source("c", 6000, 3000)]


# --- rounding ---


def test_largest_remainder_by_hand():
    assert largest_remainder([5.5, 3.3, 1.2], 10).tolist() == [6, 3, 1]
    assert largest_remainder([1, 1, 1], 2).tolist() == [1, 1, 0]
    assert largest_remainder([0, 0], 3).tolist() == [2, 1]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.integers(0, 5000))
@settings(max_examples=100, deadline=None)
def test_rounded_shares_sum_to_the_total_and_are_off_by_less_than_one(weights, total):
    found = largest_remainder(weights, total)
    assert found.sum() == total
    if sum(weights) > 0:
        exact = np.array(weights) / sum(weights) * total
        assert np.all(np.abs(found - exact) < 1 + 1e-6)


# --- random mixtures ---


def test_random_mixtures_are_those_of_the_paper():
    """78 of 2,000 rows by default, each source its share r_i / sum(r) up to the rounding, no row twice."""
    runs = random_mixtures(LARGE, seed=3)
    assert len(runs) == 78
    for number, run in enumerate(runs):
        assert len(run.example_ids) == len(set(run.example_ids)) == 2000
        ratios = np.random.default_rng([3, number]).random(3)
        share = ratios / ratios.sum() * 2000
        got = [len(set(one.example_ids) & set(run.example_ids)) for one in LARGE]
        assert got == list(run.details["proportions"].values())
        assert np.all(np.abs(np.array(got) - share) < 1)
        assert "short" not in run.details
    assert len({run.example_ids for run in runs}) == 78
    assert shortfalls(runs) == {}


def test_a_longer_plan_begins_with_the_shorter_one_and_another_seed_gives_another_plan():
    assert random_mixtures(LARGE, n_runs=3, seed=1) == random_mixtures(LARGE, n_runs=9, seed=1)[:3]
    assert random_mixtures(LARGE, n_runs=3, seed=1) != random_mixtures(LARGE, n_runs=3, seed=2)


def test_the_plan_of_a_seed_never_changes():
    """A plan that came out otherwise on another machine, or in a later version, could not be done again."""
    [run] = random_mixtures([source("a", 0, 10), source("b", 10, 10)], n_runs=1, size=6, seed=5)
    assert run.details == {"proportions": {"a": 3, "b": 3}}
    assert run.example_ids == (16, 12, 9, 1, 19, 3)


def test_the_order_within_a_mixture_is_random():
    [run] = random_mixtures(LARGE, n_runs=1, seed=0)
    of_a = [i < 3000 for i in run.example_ids]
    assert sum(x != y for x, y in itertools.pairwise(of_a)) > 100


def test_a_source_smaller_than_its_share_gives_all_it_has_and_the_others_the_rest():
    small = source("small", 50_000, 40)
    runs = random_mixtures([*LARGE, small], n_runs=30, size=1000, seed=0)
    short = [run for run in runs if "short" in run.details]
    assert short
    assert shortfalls(runs) == {"small": len(short)}
    for run in runs:
        assert len(set(run.example_ids)) == 1000
    for run in short:
        assert run.details["proportions"]["small"] == 40
        assert run.details["short"]["small"]["rows"] == 40 < run.details["short"]["small"]["share"]


def test_rows_that_stand_in_two_sources_count_once():
    twins = [source("a", 0, 100), Source("b", tuple(range(50, 150)))]
    for run in random_mixtures(twins, n_runs=20, size=140, seed=0):
        assert len(set(run.example_ids)) == 140
        assert sum(run.details["proportions"].values()) == 140


def test_all_rows_of_all_sources_can_be_asked_for_but_not_one_more():
    pair = [source("a", 0, 30), source("b", 20, 30)]
    assert set(random_mixtures(pair, n_runs=1, size=50)[0].example_ids) == set(range(50))
    with pytest.raises(InputError, match=r"50 distinct rows together, but a mixture shall have 51\. Choose 50"):
        random_mixtures(pair, n_runs=1, size=51)


@pytest.mark.parametrize(
    ("sources", "words"),
    [([], "No source"), ([source("a", 0, 5), Source("b", ())], "'b' has no row"), ([source("a", 0, 5)] * 2, "Two sou")],
)
def test_sources_that_cannot_be_drawn_from_are_named(sources, words):
    with pytest.raises(InputError, match=words):
        random_mixtures(sources, n_runs=1, size=2)


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=5),
    st.integers(0, 10_000),
    st.integers(0, 20),
    st.data(),
)
@settings(max_examples=80, deadline=None)
def test_a_mixture_has_exactly_its_size_whatever_the_sources(sizes, seed, shift, data):
    sources, first = [], 0
    for i, n in enumerate(sizes):
        sources.append(source(f"s{i}", max(0, first - shift), n))  # neighbours overlap
        first = max(0, first - shift) + n
    n_rows = len({i for one in sources for i in one.example_ids})
    size = data.draw(st.integers(1, n_rows))
    [run] = random_mixtures(sources, n_runs=1, size=size, seed=seed)
    assert len(set(run.example_ids)) == len(run.example_ids) == size
    assert sum(run.details["proportions"].values()) == size


# --- steered mixtures ---


def values_of(ids, *, seed=0, heavy=False):
    generator = np.random.default_rng(seed)
    drawn = generator.lognormal(size=len(ids)) if heavy else generator.normal(size=len(ids))
    return dict(zip(ids, drawn.tolist(), strict=True))


@pytest.mark.parametrize("heavy", [False, True])
def test_steered_mixtures_spread_the_mean_many_times_as_far(heavy):
    """Random mixtures of sources that are alike have nearly one mean: nothing could be fitted to them."""
    values = values_of(range(9000), heavy=heavy)
    steered = steered_mixtures(LARGE, values=values, indicator="ifd", n_runs=30, size=500, seed=0)
    random = random_mixtures(LARGE, n_runs=30, size=500, seed=0)

    def means(runs):
        return np.array([np.mean([values[i] for i in run.example_ids]) for run in runs])

    assert means(steered).std() > 8 * means(random).std()
    targets = np.array([run.details["target"] for run in steered])
    assert means(steered) == pytest.approx([run.details["achieved"] for run in steered])
    assert np.abs(means(steered) - targets).max() < 0.01 * (targets.max() - targets.min())
    gaps = np.diff(np.sort(targets))
    assert gaps == pytest.approx(gaps[0])
    assert (np.diff(targets) < 0).any()  # not in rising order: a study that is stopped early covers the range
    for run in steered:
        assert len(set(run.example_ids)) == 500
        assert sum(run.details["proportions"].values()) == 500
    assert len({tuple(run.details["proportions"].items()) for run in steered}) > 20


def test_the_targets_lie_between_the_means_that_can_be_had():
    values = {i: float(i) for i in range(100)}
    runs = steered_mixtures([source("a", 0, 100)], values=values, indicator="x", n_runs=5, size=10, seed=0, spread=1.0)
    assert sorted(run.details["target"] for run in runs) == pytest.approx([4.5, 27.0, 49.5, 72.0, 94.5])
    [lowest] = [run for run in runs if run.details["target"] < 5]
    assert set(lowest.example_ids) == set(range(10))


def test_rows_without_a_value_are_not_drawn_and_counted():
    values = values_of(range(100)) | {7: float("nan")}
    runs = steered_mixtures([source("a", 0, 120)], values=values, indicator="x", n_runs=4, size=50)
    assert {run.details["n_without_value"] for run in runs} == {21}
    assert not {7, *range(100, 120)} & {i for run in runs for i in run.example_ids}


@pytest.mark.parametrize(
    ("values", "size", "words"),
    [
        (dict.fromkeys(range(100), 1.0), 10, "the same|is 1 for every row"),
        ({i: float(i) for i in range(5)}, 10, "Only 5 of the 100 rows have a value of x"),
        ({i: float(i) for i in range(100)}, 100, "takes all 100 rows"),
    ],
)
def test_what_cannot_be_steered_is_refused(values, size, words):
    with pytest.raises(InputError, match=words):
        steered_mixtures([source("a", 0, 100)], values=values, indicator="x", n_runs=3, size=size)


# --- bins, sizes, comparisons ---


def test_bins_are_equal_descending_and_stable():
    values = {0: 1.0, 1: 5.0, 2: 3.0, 3: 3.0, 4: 3.0, 5: 9.0, 6: 0.5}
    runs = bins([6, 4, 2, 3, 0, 1, 5, 99], values, indicator="ifd", n_bins=3, scorer_id=4)
    assert [run.example_ids for run in runs] == [(5, 1, 4), (2, 3), (0, 6)]
    assert [(run.details["bin"], run.details["high"], run.details["low"]) for run in runs] == [
        (0, 9.0, 3.0),
        (1, 3.0, 3.0),
        (2, 1.0, 0.5),
    ]
    assert runs[0].details["mean"] == pytest.approx(17 / 3)
    assert {run.details["n_without_value"] for run in runs} == {1}
    assert {run.details["scorer_id"] for run in runs} == {4}


@given(st.integers(8, 200), st.integers(2, 8))
@settings(max_examples=40, deadline=None)
def test_bins_part_the_dataset(n, k):
    values = values_of(range(n), seed=n)
    runs = bins(range(n), values, indicator="x", n_bins=k)
    sizes = [len(run.example_ids) for run in runs]
    assert max(sizes) - min(sizes) <= 1
    assert sorted(i for run in runs for i in run.example_ids) == list(range(n))
    for before, after in itertools.pairwise(runs):
        assert before.details["low"] >= after.details["high"]


@pytest.mark.parametrize(
    ("values", "words"),
    [(dict.fromkeys(range(20), 2.0), "is 2 for every row"), ({1: 1.0, 2: 2.0}, "2 of 20 rows have a value of mtld")],
)
def test_bins_that_cannot_be_made_are_refused(values, words):
    with pytest.raises(InputError, match=words):
        bins(range(20), values, indicator="mtld", n_bins=8)


def test_the_best_k_rows_stand_beside_random_subsets_of_the_whole_ranking():
    ranking = list(range(100, 0, -1))
    runs = size_runs(ranking, sizes=[10, 50, 100], n_random=2, seed=1)
    assert [(run.role, len(run.example_ids)) for run in runs] == [
        *[("top", 10), ("random", 10), ("random", 10)],
        *[("top", 50), ("random", 50), ("random", 50)],
        ("top", 100),
    ]
    assert runs[0].example_ids == tuple(range(100, 90, -1))
    assert runs[1].example_ids != runs[2].example_ids
    assert all(len(set(run.example_ids)) == len(run.example_ids) for run in runs)
    drawn = {i for seed in range(40) for run in size_runs(ranking, sizes=[10], n_random=1, seed=seed)[1:]
             for i in run.example_ids}  # fmt: skip
    assert drawn > set(runs[0].example_ids)  # the best rows are in the pool too
    with pytest.raises(InputError, match=r"101 rows were asked for, but the ranking has 100"):
        size_runs(ranking, sizes=[101], n_random=1)


def test_a_comparison_draws_from_the_whole_pool_with_seeds_of_their_own():
    runs = comparison_runs(range(10), range(50), n_random=5, seed=3, n_selected=2)
    assert [(run.role, run.seed) for run in runs] == [
        ("selected", 3),
        ("selected", 4),
        *[("random", 3 + i) for i in range(5)],
    ]
    assert runs[0].example_ids == runs[1].example_ids == tuple(range(10))
    assert len({run.example_ids for run in runs if run.role == "random"}) == 5
    assert {len(run.example_ids) for run in runs} == {10}
    with pytest.raises(InputError, match="no other subset"):
        comparison_runs(range(10), range(10), n_random=5)
    with pytest.raises(InputError, match="no row"):
        comparison_runs([], range(10), n_random=5)


def test_a_single_run_takes_each_row_once():
    assert [run.example_ids for run in single_run([3, 1, 3, 2])] == [(3, 1, 2)]
    with pytest.raises(InputError, match="no row to train on"):
        single_run([])


# --- checks ---


def planned(n: int, *, rows=(1, 2, 3)):
    return [PlannedRun(f"m{i}", "mixture", tuple(rows), 0) for i in range(n)]


def test_a_plan_in_order_has_no_warning():
    generator = np.random.default_rng(0)
    assert check_plan(planned(30), labels=["A", "B"], means=generator.normal(size=(30, 2)), row_sd=[1.0, 2.0]) == []


def test_doubts_about_a_plan_are_said_in_words():
    generator = np.random.default_rng(0)
    x = generator.normal(size=12)
    like_x = 2 * x + 0.01 * generator.normal(size=12)
    means = np.column_stack([x, like_x, np.full(12, 3.0), 1e-3 * x, np.full(12, np.nan)])
    found = check_plan(
        planned(12),
        labels=["A", "B", "C", "D", "E"],
        means=means,
        row_sd=[1.0, 2.0, 1.0, 1.0, 1.0],
        n_without=[0, 4, 0, 0, 0],
        evaluation_ids={2, 9},
        n_instructions=1,
    )
    text = "\n".join(found)
    assert "12 runs for 5 indicators are few" in text
    assert "A and B move together" in text
    assert "C is the same in every run" in text
    assert "D barely varies" in text
    assert "E has no mean for 12 of 12 runs" in text
    assert "4 rows of the runs have no value of B" in text
    assert "12 of 12 runs train on rows of the evaluation set (up to 1 of 2)" in text
    assert "one instruction" in text
    assert "2 runs are too few to fit 5 indicators" in check_plan(planned(2), n_regressors=5)[0]
