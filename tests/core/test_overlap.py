"""Overlap of prompts: exact after folding, the same instruction, near by words and by vectors; nothing is missed."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from rapidfuzz.distance import Indel

from core.errors import SettingsError
from core.overlap import (
    Overlap,
    Pair,
    Prompt,
    exact_pairs,
    gathered,
    near_by_vectors,
    near_by_words,
    nearest_first,
    one_a_prompt,
    words_of,
)


def prompts(*texts: tuple[str, str] | str, start: int = 1) -> list[Prompt]:
    pairs = [text if isinstance(text, tuple) else (text, "") for text in texts]
    return [Prompt(start + i, *pair) for i, pair in enumerate(pairs)]


def near(evaluation_id: int, training_id: int, similarity: float) -> tuple[int, int, Any]:
    """A pair whose similarity is compared with a tolerance."""
    return evaluation_id, training_id, pytest.approx(similarity)


def test_exact_ignores_case_and_white_space_and_needs_the_same_input() -> None:
    evaluation = prompts(("Name a river.", "in  Europe"), "Say hello.")
    training = prompts(("name a\nRIVER.", "In Europe "), ("Name a river.", "in Asia"), "Say goodbye.", start=100)
    exact, same = exact_pairs(evaluation, training)
    assert exact == [Pair(1, 100, 1.0)]
    assert same == ([Pair(1, 101, 1.0)], 1)


def test_an_empty_instruction_shares_nothing_with_another_empty_one() -> None:
    assert exact_pairs(prompts(("", "a text")), prompts(("", "another text"), start=5)) == ([], ([], 0))


def test_references_of_one_instruction_are_one_question() -> None:
    assert one_a_prompt(prompts("Say hello.", "say  hello.", ("Say hello.", "loudly"))) == [
        Prompt(1, "Say hello.", ""),
        Prompt(3, "Say hello.", "loudly"),
    ]


def test_similarity_by_words_is_twice_the_common_subsequence_over_all_words() -> None:
    # 9 of 10 words in common on both sides: 2 · 9 / (10 + 10)
    one = "write a short poem about the sea in the winter"
    other = "write a short poem about the sea in the summer"
    assert near_by_words(prompts(one), prompts(other, start=7), threshold=0.9) == [near(1, 7, 0.9)]
    assert near_by_words(prompts(one), prompts(other, start=7), threshold=0.91) == []
    assert near_by_words(prompts("Write a POEM!"), prompts("write, a poem", start=7)) == [Pair(1, 7, 1.0)]


def test_the_short_cut_misses_no_pair() -> None:
    """All pairs, one by one, against the prefix filter, over texts that share many words."""
    source = random.Random(5)
    vocabulary = [f"w{i}" for i in range(12)] + ["the", "of"] * 4

    def texts(n: int, start: int) -> list[Prompt]:
        return [
            Prompt(start + i, " ".join(source.choices(vocabulary, k=source.randrange(1, 12))), "") for i in range(n)
        ]

    evaluation, training = texts(60, 0), texts(300, 1000)
    for threshold in (0.5, 0.75, 0.9, 1.0):
        expected = {
            (one.example_id, other.example_id)
            for one in evaluation
            for other in training
            if Indel.normalized_similarity(words_of(one), words_of(other)) >= threshold
        }
        found = near_by_words(evaluation, training, threshold=threshold)
        assert {(pair.evaluation_id, pair.training_id) for pair in found} == expected
        assert expected or threshold == 1.0


def test_scripts_without_spaces_are_compared_by_character() -> None:
    one, other = prompts("请写一首关于大海的短诗"), prompts("请写一首关于大山的短诗", start=9)
    assert near_by_words(one, other, threshold=0.9) == [near(1, 9, 20 / 22)]


def test_a_text_without_words_is_near_nothing() -> None:
    assert near_by_words(prompts("???", ""), prompts("!!!", "", start=9), threshold=0.5) == []


def test_near_by_vectors_takes_the_cosine_and_a_vector_of_length_0_is_near_nothing() -> None:
    own = (np.array([1, 2]), np.array([[2.0, 0.0], [0.0, 0.0]], np.float32))
    others = (np.array([10, 11, 12]), np.array([[5.0, 0.0], [0.6, 0.8], [0.0, 0.0]], np.float32))
    assert list(near_by_vectors(own, [others], threshold=0.9)) == [near(1, 10, 1.0)]
    found = list(near_by_vectors(own, [others], threshold=0.6))
    assert found == [near(1, 10, 1.0), near(1, 11, 0.6)]


@pytest.mark.parametrize("threshold", [0.49, 1.01, float("nan")])
def test_a_threshold_that_means_nothing_is_refused(threshold: float) -> None:
    with pytest.raises(SettingsError, match=r"0\.5 to 1"):
        near_by_words(prompts("a"), prompts("a"), threshold=threshold)


def test_near_leaves_out_what_is_exact_and_counts_a_pair_once() -> None:
    found = [Pair(1, 5, 0.92), Pair(1, 6, 0.95), Pair(1, 5, 0.97), Pair(2, 7, 1.0)]
    assert nearest_first(found, exact=[Pair(2, 7, 1.0)]) == [Pair(1, 5, 0.97), Pair(1, 6, 0.95)]


def test_what_is_concerned_counts_all_pairs_though_few_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are left out of a study by ``training_ids`` must not depend on how many pairs a page lists."""
    monkeypatch.setattr("core.overlap.MOST_PAIRS", 2)
    one = prompts("Sum up.")
    exact, same = exact_pairs(one, prompts("sum up.", *[("Sum up.", f"text {i}") for i in range(5)], start=10))
    assert (len(same[0]), same[1]) == (2, 5)
    found = gathered(
        same_example=[], exact=exact, same_instruction=same, near=[Pair(2, i, 0.95) for i in (30, 20, 40, 10)],
        n_instructions=3, n_training=9, threshold=0.9, near_measure="words",
    )  # fmt: skip
    assert isinstance(found, Overlap)
    assert found.counts == {"same_example": 0, "exact": 1, "same_instruction": 5, "near": 4}
    assert len(found.near) == 2
    assert found.n_instructions_found == 2
    assert found.training_ids == (10, 20, 30, 40)
