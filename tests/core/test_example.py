"""The content address tells examples apart by content alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from core.example import Example, content_hash, folded_hash

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@given(texts, texts, texts, texts, texts, texts)
def test_hashes_are_equal_only_for_equal_texts(a: str, b: str, c: str, d: str, e: str, f: str) -> None:
    assert (content_hash(a, b, c) == content_hash(d, e, f)) == ((a, b, c) == (d, e, f))


def test_moving_a_character_to_the_next_field_is_another_example() -> None:
    assert Example("ab", "c", "d").hash != Example("a", "bc", "d").hash != Example("a", "b", "cd").hash


def test_folding_forgets_case_and_whitespace_and_nothing_else() -> None:
    assert folded_hash("Say  HI\n", "", " x\ty ") == folded_hash("say hi", "", "X Y")
    assert folded_hash("say hi", "", "x y") != folded_hash("say hi", "x y", "")
    assert folded_hash("sayhi", "", "") != folded_hash("say hi", "", "")
