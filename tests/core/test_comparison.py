"""Rule against random: the tests by hand, their rates where nothing differs, and the verdict's words."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from core import comparison as c
from core.errors import InputError


def test_one_selected_below_five_random_by_hand() -> None:
    """The lowest of six: one of six relabellings is as low, so p is 1/6 and can be no smaller."""
    found = c.permutation_test([1.0], [2.0, 3.0, 4.0, 5.0, 6.0])
    assert found.difference_nats == pytest.approx(-3.0)
    assert found.p_lower == pytest.approx(1 / 6)
    assert found.p_higher == pytest.approx(1.0)
    assert found.smallest_p == pytest.approx(1 / 6)
    # |difference| of each of the six as the selected one: 3, 1.8, .6, .6, 1.8, 3.
    assert found.p_two == pytest.approx(2 / 6)
    assert found.exact
    assert found.n_relabellings == 6


def test_several_selected_equal_counting_by_hand() -> None:
    selected, random = [1.0, 2.5], [2.0, 3.0, 4.0]
    pool = [*selected, *random]
    observed = np.mean(selected) - np.mean(random)
    all_differences = []
    for chosen in combinations(range(5), 2):
        rest = [pool[i] for i in range(5) if i not in chosen]
        all_differences.append(np.mean([pool[i] for i in chosen]) - np.mean(rest))
    found = c.permutation_test(selected, random)
    assert found.p_lower == pytest.approx(sum(d <= observed + 1e-12 for d in all_differences) / 10)
    assert found.p_two == pytest.approx(sum(abs(d) >= abs(observed) - 1e-12 for d in all_differences) / 10)


def test_equal_losses_show_nothing() -> None:
    """0.1 + 0.2 is not 0.3: differences that are equal but for rounding must count as equal."""
    found = c.permutation_test([0.1 + 0.2], [0.3] * 30)
    assert found.p_lower == found.p_higher == found.p_two == 1.0
    assert c.compare([0.1 + 0.2], [0.3] * 30).verdict == c.NO_DIFFERENCE


def test_too_many_relabellings_are_drawn_and_p_is_never_zero() -> None:
    rng = np.random.default_rng(0)
    selected, random = list(rng.normal(size=12) - 5), list(rng.normal(size=20))
    found = c.permutation_test(selected, random, draws=500)
    assert not found.exact
    assert found.p_lower == pytest.approx(1 / 501)
    assert found == c.permutation_test(selected, random, draws=500)


def test_drawn_and_counted_p_agree() -> None:
    rng = np.random.default_rng(1)
    selected, random = list(rng.normal(size=4) - 0.6), list(rng.normal(size=8))
    counted = c.permutation_test(selected, random)
    drawn = c.permutation_test(selected, random, most_exact=0, draws=20_000)
    assert drawn.p_lower == pytest.approx(counted.p_lower, abs=0.015)


def test_where_nothing_differs_p_is_uniform() -> None:
    """Exchangeable losses: p_lower ≤ k/20 in k/20 of the cases, within four standard errors."""
    rng = np.random.default_rng(2)
    found = np.array([c.permutation_test(x[:1], x[1:]).p_lower for x in rng.normal(size=(1500, 20))])
    for k in (1, 5, 10):
        share = (found <= k / 20 + 1e-12).mean()
        assert share == pytest.approx(k / 20, abs=4 * np.sqrt(k / 20 * (1 - k / 20) / 1500))


def test_sign_flips_by_hand() -> None:
    """Three differences of one sign: one of eight sign patterns is as low, two are as far from 0."""
    found = c.paired_test([-1.0, -2.0, -3.0])
    assert found.difference_nats == pytest.approx(-2.0)
    assert found.p_lower == pytest.approx(1 / 8)
    assert found.p_two == pytest.approx(2 / 8)
    assert found.exact
    assert found.share_lower == 1.0


def test_weights_are_outputs_of_an_instruction() -> None:
    found = c.paired_test([-1.0, 2.0], weights=[5.0, 1.0])
    assert found.difference_nats == pytest.approx((-5 + 2) / 6)
    assert found.share_lower == pytest.approx(5 / 6)


def test_many_instructions_are_drawn_at_the_nominal_rate_and_covered() -> None:
    rng = np.random.default_rng(3)
    found = [c.paired_test(x, draws=400, seed=i) for i, x in enumerate(rng.normal(0.2, 1, size=(200, 60)))]
    inside = np.mean([(t.low_nats or 0.0) <= 0.2 <= (t.high_nats or 0.0) for t in found])
    assert inside == pytest.approx(0.95, abs=0.07)
    null = [c.paired_test(x, draws=400, seed=i).p_two for i, x in enumerate(rng.normal(size=(300, 40)))]
    assert np.mean(np.array(null) <= 0.05) == pytest.approx(0.05, abs=0.05)


def test_differences_are_taken_per_instruction_over_outputs_that_all_runs_have() -> None:
    selected: list[dict[int, float | None]] = [{1: 1.0, 2: 2.0, 3: 5.0, 4: None}]
    random: list[dict[int, float | None]] = [{1: 2.0, 2: 4.0, 3: None, 4: 1.0}, {1: 4.0, 2: 6.0, 3: 1.0, 4: 1.0}]
    differences, weights, left_out = c.by_instruction(selected, random, {1: "a", 2: "a", 3: "b", 4: "c"})
    assert differences == [pytest.approx(np.mean([1 - 3, 2 - 5]))]
    assert weights == [2.0]
    assert left_out == 2


def test_the_weighted_difference_is_that_of_the_mean_losses() -> None:
    rng = np.random.default_rng(4)
    selected = [dict(enumerate(rng.normal(size=9)))]
    random = [dict(enumerate(rng.normal(size=9))) for _ in range(3)]
    owner = {i: i // 4 for i in range(9)}
    differences, weights, _ = c.by_instruction(selected, random, owner)
    expected = np.mean(list(selected[0].values())) - np.mean([np.mean(list(r.values())) for r in random])
    assert c.paired_test(differences, weights=weights).difference_nats == pytest.approx(expected)


def test_repeats_of_the_selected_subset_count_once() -> None:
    """Five repeats of one subset are no five subsets: with three random ones p stays at least 1/4."""
    found = c.compare([1.0, 1.1, 0.9, 1.0, 1.0], [2.0, 2.1, 2.2])
    assert found.subsets is not None
    assert found.subsets.p_lower == pytest.approx(1 / 4)
    assert found.selected_spread_nats == pytest.approx(np.std([1.0, 1.1, 0.9, 1.0, 1.0], ddof=1))


def test_five_random_subsets_cannot_give_a_verdict_and_the_words_say_so() -> None:
    found = c.compare([1.0], [2.0, 2.1, 2.2, 2.3, 2.4])
    assert found.verdict == c.NO_DIFFERENCE
    assert "1/6" in found.words
    assert "at least 19 random subsets" in found.words


@pytest.mark.parametrize(
    ("loss", "verdict", "word"), [(1.0, c.BETTER, "better"), (9.0, c.WORSE, "worse"), (2.2, c.NO_DIFFERENCE, "No diff")]
)
def test_the_verdict_with_enough_random_subsets(loss: float, verdict: str, word: str) -> None:
    found = c.compare([loss], [2 + 0.02 * i for i in range(19)])
    assert found.verdict == verdict
    assert word in found.words
    assert "1/20" in found.words


def test_no_verdict_before_both_sides_have_a_run() -> None:
    assert c.compare([], [1.0]).verdict is None
    assert "no random run" in c.compare([1.0], []).words
    assert c.compare([], []).random_nats is None


def test_the_interval_of_a_further_random_subset_covers_it() -> None:
    rng = np.random.default_rng(5)
    hits = 0
    for x in rng.normal(size=(600, 6)):
        found = c.compare([x[0]], x[1:])
        assert found.random_low_nats is not None
        assert found.random_high_nats is not None
        hits += found.random_low_nats <= x[0] <= found.random_high_nats
    assert hits / 600 == pytest.approx(0.95, abs=0.03)
    assert c.compare([1.0], [2.0]).random_low_nats is None


def test_instruction_words_stay_apart_from_the_verdict() -> None:
    outputs = [{i: 1.0 + 0.01 * i for i in range(30)}], [{i: 2.0 + 0.02 * i for i in range(30)}] * 3
    found = c.compare([1.1], [2.1, 2.2, 2.3], selected_outputs=outputs[0], random_outputs=outputs[1])
    assert found.verdict == c.NO_DIFFERENCE
    assert found.instructions is not None
    assert found.instructions.p_two < 0.01
    assert "30 evaluation instructions" in found.instruction_words
    assert "not of drawing other random subsets" in found.instruction_words


def test_losses_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(InputError):
        c.permutation_test([float("nan")], [1.0])
    with pytest.raises(InputError):
        c.permutation_test([], [1.0])
    with pytest.raises(InputError):
        c.paired_test([])


def test_random_subsets_needed() -> None:
    assert c.random_needed(0.05) == 19
    assert c.random_needed(0.1) == 9
    assert "cannot reach" not in c.smallest_p_words(19)
    assert "1/19 (0.053), so this test cannot reach 0.05" in c.smallest_p_words(18)
