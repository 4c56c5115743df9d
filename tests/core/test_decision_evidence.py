"""What a model is worth: numbers worked by hand, and against scikit-learn and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, mannwhitneyu
from sklearn.metrics import average_precision_score, roc_auc_score

from core import decision_evidence as evidence
from core.decision_evidence import Held, propose, share


def _held(p: list[float], accepted: list[int]) -> Held:
    return Held(np.array(p), np.array(accepted, bool))


def test_an_exact_interval_is_that_of_scipy_and_nothing_is_not_zero() -> None:
    for n_of, n in ((0, 20), (6, 331), (20, 20)):
        exact = binomtest(n_of, n).proportion_ci(method="exact")
        found = share(n_of, n)
        assert (found.low, found.high) == pytest.approx((exact.low, exact.high), abs=1e-9)
    assert share(0, 0) == evidence.Share(0, 0, None, None, None)


def test_ranking_is_scored_as_scikit_learn_and_scipy_do_with_ties() -> None:
    random = np.random.default_rng(1)
    accepted = random.random(200) < 0.4
    held = Held(np.round(random.random(200) * 0.5 + 0.3 * accepted, 1), accepted)
    assert evidence.auc(held) == pytest.approx(roc_auc_score(accepted, held.p))
    assert evidence.average_precision(held) == pytest.approx(average_precision_score(accepted, held.p))
    theirs = mannwhitneyu(
        held.p[accepted], held.p[~accepted], alternative="greater", use_continuity=False, method="asymptotic"
    )
    assert evidence.chance_of_no_skill(held) == pytest.approx(theirs.pvalue)
    assert evidence.auc(_held([0.1, 0.2], [1, 1])) is None
    assert evidence.average_precision(_held([0.1, 0.2], [0, 0])) is None


def test_summary_by_hand_beside_two_that_need_no_model() -> None:
    held = _held([0.9, 0.8, 0.3, 0.1], [1, 0, 1, 0])
    found = evidence.summary(held, by_student=np.array([True, False, True, False]), train_rate=0.75)
    assert found["auc"] == 0.75
    assert found["model"]["brier"] == pytest.approx((0.01 + 0.64 + 0.49 + 0.01) / 4)
    assert found["model"]["accuracy"]["share"] == 0.5
    assert found["base"]["brier"] == pytest.approx((2 * 0.0625 + 2 * 0.5625) / 4)
    assert found["student"]["accuracy"]["share"] == 1.0
    assert (found["student"]["error_of_accepted"]["n_of"], found["student"]["error_of_accepted"]["n"]) == (0, 2)
    assert [(row["low"], row["n"], row["accepted"]) for row in found["reliability"]] == [
        (0.1, 1, 0.0), (0.3, 1, 1.0), (0.8, 1, 0.0), (0.9, 1, 1.0),
    ]  # fmt: skip
    last = found["curves"][-1]
    assert (last["threshold"], last["recall"], last["false_accepted"], last["precision"]) == (0.1, 1.0, 1.0, 0.5)


def test_the_lowest_threshold_within_the_bound_is_taken_and_measured_elsewhere() -> None:
    # 60 accepted at 0.9, then 20 at 0.5 of which half were rejected. Up to 0.9: no error in 60, upper bound at 75 % is
    # 1 − 0.25^(1/60) = 2.3 %; with those at 0.5 it is 10 of 80.
    choose = _held([0.9] * 60 + [0.5] * 20, [1] * 60 + [1, 0] * 10)
    measure = _held([0.95] * 40 + [0.6] * 5, [1] * 39 + [0] + [0] * 5)
    found = propose(choose, measure, target_error=0.05)
    assert found.threshold == 0.9
    assert (found.chosen_on.n_of, found.chosen_on.n) == (0, 60)
    assert (found.measured.n_of, found.measured.n, found.measured.share) == (1, 40, 0.025)
    assert found.ok
    wide = propose(choose, measure, target_error=0.2)
    assert wide.threshold == 0.5
    assert (wide.measured.n_of, wide.measured.n) == (6, 45)
    assert propose(choose, measure, target_error=0.02).threshold is None


def test_an_error_over_the_target_on_the_measuring_part_is_not_ok() -> None:
    choose = _held([0.9] * 60 + [0.1] * 60, [1] * 60 + [0] * 60)
    bad = _held([0.9] * 20, [1] * 17 + [0] * 3)
    found = propose(choose, bad, target_error=0.05)
    assert found.threshold == 0.9
    assert not found.ok
    assert "15.0%" in (found.problem or "")
    nothing_above = propose(choose, _held([0.2] * 20, [1] * 20), target_error=0.05)
    assert not nothing_above.ok
    assert nothing_above.measured.share is None


def test_nothing_is_proposed_of_one_class_or_without_skill() -> None:
    one_class = _held([0.9] * 50, [1] * 50)
    assert propose(one_class, one_class, target_error=0.05).threshold is None
    blind = _held([0.5, 0.6] * 30, [1, 1, 0, 0] * 15)
    found = propose(blind, blind, target_error=0.3)
    assert found.threshold is None
    assert "cannot tell" in (found.problem or "")


def test_too_few_decisions_are_told_with_what_is_needed() -> None:
    assert "10 more" in (evidence.why_too_few(20, 10) or "")
    assert "9" in (evidence.why_too_few(40, 9) or "")
    assert evidence.why_too_few(30, 10) is None


def test_components_of_an_embedding_are_one_row_without_a_sign() -> None:
    names = ["Reward (candidate)", "embedding of the candidate, component 1", "embedding of the original, component 1"]
    found = evidence.strongest(names, np.array([-0.5, 3.0, 4.0]))
    assert [(row["name"].split(" (")[0], row["coefficient"], row["signed"]) for row in found] == [
        ("embeddings", 5.0, False),
        ("Reward", -0.5, True),
    ]
