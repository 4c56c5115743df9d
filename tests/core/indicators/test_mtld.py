"""MTLD as lexicalrichness computes it, at 0.72."""

from importlib.metadata import version

import pytest

from core.example import Example
from core.indicators import Evidence, Value
from core.indicators.mtld import MTLD, compute


def mtld(text: str) -> Value:
    return compute(Evidence(Example("", "", text)))["mtld"]


def test_hand_worked_two_factors():
    # a b a a: the type-token ratio is 1, 1, 2/3 <= 0.72 (one factor, start anew), then 1: forward 4 words / 1 factor.
    # Backward a a: ratio 1/2 (one factor), then b a: ratio 1: 4 / 1. The mean is 4.
    assert mtld("a b a a").value == pytest.approx(4.0)


def test_hand_worked_partial_factor():
    # a b c d e a, both ways: never at or below 0.72; the rest counts (1 - 5/6) / (1 - 0.72) = 0.5952 of a factor.
    assert mtld("a b c d e a").value == pytest.approx(6 / ((1 - 5 / 6) / 0.28))


def test_all_words_different_gives_their_number():
    assert mtld("every word here differs").value == pytest.approx(4.0)


@pytest.mark.parametrize("text", ["", "   \n", "42 + 17 = 59", "!!! ... ---", "2024"])
def test_no_word_is_null_with_a_reason(text):
    # lexicalrichness would divide by zero; digits and punctuation are no words to it.
    value = mtld(text)
    assert value.value is None
    assert "no word" in str(value.reason)
    assert not value.transient


def test_what_lexicalrichness_takes_for_a_word():
    assert mtld("Cat cat CAT").value == mtld("x x x").value  # lower case
    assert mtld("well-known").value == pytest.approx(1.0)  # hyphens join
    assert mtld("don't").value == pytest.approx(2.0)  # other punctuation parts
    assert mtld("route 66").value == pytest.approx(1.0)  # digits are dropped


def test_the_scorer_names_package_version_and_threshold():
    assert version("lexicalrichness") in MTLD.version
    assert "0.72" in MTLD.version
    assert MTLD.outputs[0].depends == "text"
