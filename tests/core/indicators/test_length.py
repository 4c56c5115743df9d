"""Lengths are counts of what is there: an empty response is 0 long, and that is no missing value."""

from core.example import Example
from core.indicators import Evidence
from core.indicators.length import LENGTH, compute


def test_counts_words_characters_and_tokens():
    evidence = Evidence(Example("Say hello.", "", "Hello,  big\nworld"), n_tokens_output=5, n_tokens_input=3)
    values = compute(evidence)
    assert {key: value.value for key, value in values.items()} == {
        "length": 5.0,
        "length_words": 3.0,
        "length_chars": 17.0,
        "length_input": 3.0,
        "length_input_words": 2.0,
        "length_input_chars": 10.0,
    }
    assert list(values) == [output.key for output in LENGTH.outputs]


def test_the_input_counts_to_what_was_asked():
    values = compute(Evidence(Example("Sort them.", "b a c", ""), n_tokens_output=0, n_tokens_input=15))
    assert (values["length_input_words"].value, values["length_input_chars"].value) == (5.0, 15.0)


def test_an_empty_response_has_length_zero():
    values = compute(Evidence(Example("Say nothing."), n_tokens_output=0, n_tokens_input=3))
    assert [values[key].value for key in ("length", "length_words", "length_chars")] == [0.0, 0.0, 0.0]


def test_only_token_counts_depend_on_a_tokenizer():
    assert {output.key: output.depends for output in LENGTH.outputs} == {
        "length": "tokenizer",
        "length_words": "text",
        "length_chars": "text",
        "length_input": "tokenizer",
        "length_input_words": "text",
        "length_input_chars": "text",
    }
