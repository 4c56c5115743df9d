"""Length of the response, in tokens, words and characters, and of what was asked, in tokens [IM, table 1]."""

from __future__ import annotations

from core.indicators.value import Evidence, Indicator, Output, Value


def compute(evidence: Evidence) -> dict[str, Value]:
    """Return the four lengths. An empty text has the length 0: that is its length, not a missing value."""
    output = evidence.example.output
    assert evidence.n_tokens_output is not None
    assert evidence.n_tokens_input is not None
    return {
        "length": Value(float(evidence.n_tokens_output)),
        "length_words": Value(float(len(output.split()))),
        "length_chars": Value(float(len(output))),
        "length_input": Value(float(evidence.n_tokens_input)),
    }


LENGTH = Indicator(
    key="length",
    title="Length",
    paper="Instruction Mining, arXiv 2307.06290, table 1",
    outputs=(
        Output(
            "length",
            "Length",
            "neither",
            "tokens",
            "Tokens of the response under the student's tokenizer, special tokens not counted.",
            "tokenizer",
        ),
        Output(
            "length_words",
            "Length in words",
            "neither",
            "words",
            "Words of the response, parted by white space.",
            "text",
        ),
        Output("length_chars", "Length in characters", "neither", "characters", "Characters of the response.", "text"),
        Output(
            "length_input",
            "Input length",
            "neither",
            "tokens",
            "Tokens of the instruction followed by the input, special tokens not counted.",
            "tokenizer",
        ),
    ),
    needs_losses=frozenset(),
    needs_tokenizer=True,
    version="1",
    compute=compute,
)
