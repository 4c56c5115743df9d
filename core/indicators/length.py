"""Length of the response and of what was asked, in tokens, words and characters [IM, table 1]."""

from __future__ import annotations

from core.indicators.value import Evidence, Indicator, Needs, Output, Value


def _words(*texts: str) -> int:
    return sum(len(text.split()) for text in texts)


def compute(evidence: Evidence) -> dict[str, Value]:
    """Return the six lengths. An empty text has the length 0: that is its length, not a missing value."""
    output = evidence.example.output
    asked = evidence.example.instruction + evidence.example.input
    assert evidence.n_tokens_output is not None
    assert evidence.n_tokens_input is not None
    return {
        "length": Value(float(evidence.n_tokens_output)),
        "length_words": Value(float(_words(output))),
        "length_chars": Value(float(len(output))),
        "length_input": Value(float(evidence.n_tokens_input)),
        "length_input_words": Value(float(_words(evidence.example.instruction, evidence.example.input))),
        "length_input_chars": Value(float(len(asked))),
    }


LENGTH = Indicator(
    key="length",
    title="Length",
    summary="Tokens, words and characters of response and request.",
    paper="Instruction Mining, arXiv 2307.06290, table 1",
    outputs=(
        Output(
            "length",
            "Length",
            "neither",
            "tokens",
            "Tokens of the response under the student's tokenizer, special tokens not counted.",
            "tokenizer",
            (0.0, None),
        ),
        Output(
            "length_words",
            "Length in words",
            "neither",
            "words",
            "Words of the response, parted by white space.",
            "text",
            (0.0, None),
        ),
        Output(
            "length_chars",
            "Length in characters",
            "neither",
            "characters",
            "Characters of the response.",
            "text",
            (0.0, None),
        ),
        Output(
            "length_input",
            "Input length",
            "neither",
            "tokens",
            "Tokens of the instruction followed by the input, special tokens not counted.",
            "tokenizer",
            (0.0, None),
        ),
        Output(
            "length_input_words",
            "Input length in words",
            "neither",
            "words",
            "Words of the instruction and of the input, parted by white space.",
            "text",
            (0.0, None),
        ),
        Output(
            "length_input_chars",
            "Input length in characters",
            "neither",
            "characters",
            "Characters of the instruction and of the input.",
            "text",
            (0.0, None),
        ),
    ),
    version="1",
    compute=compute,
    needs=Needs(tokenizer=True),
)
