"""Word differences that a person can read, and that never lose a character."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.review_diff import Segment, tokens, word_diff

WORDS = st.lists(
    st.sampled_from(["the", "cat", "sat", "on", "a", "mat", ",", "\n\n", " ", "<b>", "über", "𝔘", ""])
).map(" ".join)
TEXTS = st.one_of(st.text(max_size=200), WORDS)


def marked(segments: tuple[Segment, ...]) -> list[str]:
    return [segment.text for segment in segments if segment.changed]


@given(TEXTS, TEXTS)
def test_segments_joined_give_both_texts_back(original: str, reflected: str) -> None:
    diff = word_diff(original, reflected)
    assert "".join(segment.text for segment in diff.original) == original
    assert "".join(segment.text for segment in diff.reflected) == reflected
    assert (diff.state == "same") == (original == reflected)
    assert diff.kept is not None
    assert 0.0 <= diff.kept <= 1.0


@given(TEXTS, TEXTS)
def test_neighbouring_segments_alternate_and_none_is_empty(original: str, reflected: str) -> None:
    for side in (word_diff(original, reflected).original, word_diff(original, reflected).reflected):
        assert all(segment.text for segment in side)
        assert all(one.changed != two.changed for one, two in itertools.pairwise(side))


@given(TEXTS)
def test_tokens_joined_are_the_text(text: str) -> None:
    assert "".join(tokens(text)) == text


def test_changes_parted_by_one_space_become_one_mark() -> None:
    diff = word_diff("The big red cat sat there.", "The small blue cat sat there.")
    assert marked(diff.original) == ["big red"]
    assert marked(diff.reflected) == ["small blue"]
    assert diff.state == "changed"


def test_changes_parted_by_words_stay_apart() -> None:
    diff = word_diff("One old house stood here alone.", "Two old house stood here together.")
    assert marked(diff.original) == ["One", "alone"]
    assert marked(diff.reflected) == ["Two", "together"]


def test_an_insertion_marks_nothing_on_the_other_side() -> None:
    diff = word_diff("The cat sat.", "The cat sat down.")
    assert marked(diff.original) == []
    assert marked(diff.reflected) == [" down"]


def test_paragraphs_are_not_swallowed_by_a_merge() -> None:
    diff = word_diff("First a\n\nsecond line stays here", "Other b\n\nthird line stays here")
    assert marked(diff.original) == ["First a", "second"]


def test_a_text_of_which_little_stayed_is_rewritten_not_cut_into_fragments() -> None:
    original = " ".join(f"w{i} and" for i in range(80))
    reflected = " ".join(f"x{i} and" for i in range(80))
    diff = word_diff(original, reflected)
    assert diff.state == "rewritten"
    assert marked(diff.original) == marked(diff.reflected) == []
    assert diff.kept is not None
    assert diff.kept < 0.3


def test_short_texts_are_always_marked() -> None:
    diff = word_diff("Write a story.", "Name three rivers.")
    assert diff.state == "changed"
    assert marked(diff.original)


@pytest.mark.parametrize(("original", "reflected"), [("", "new"), ("old", "")])
def test_one_side_empty(original: str, reflected: str) -> None:
    diff = word_diff(original, reflected)
    assert marked(diff.original) == ([original] if original else [])
    assert marked(diff.reflected) == ([reflected] if reflected else [])


def test_a_row_of_a_megabyte_says_that_it_was_not_compared_instead_of_filling_the_memory() -> None:
    diff = word_diff("word " * 200_000, "other " * 200_000)
    assert diff.state == "too long"
    assert diff.kept is None
    assert len(diff.original) == len(diff.reflected) == 1


def test_markup_is_text() -> None:
    diff = word_diff("Say <b>hello</b>", "Say <b>goodbye</b>")
    assert marked(diff.original) == ["hello"]
    assert marked(diff.reflected) == ["goodbye"]
