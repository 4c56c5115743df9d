"""Naturalness of the response by UniEval's dialogue task [UE, arXiv 2210.07197; IM, table 1]."""

from __future__ import annotations

from core.indicators.value import Evidence, Indicator, Needs, Output, Value


def compute(evidence: Evidence) -> dict[str, Value]:
    """Return P(Yes) / (P(Yes) + P(No)) of the published question; see ``core.unieval``."""
    return {"naturalness": evidence.dimensions["naturalness"]}


NATURALNESS = Indicator(
    key="naturalness",
    title="Naturalness (UniEval)",
    summary="Whether the response reads like something a person would say.",
    paper="UniEval, arXiv 2210.07197; Instruction Mining, arXiv 2307.06290, table 1",
    outputs=(
        Output(
            "naturalness",
            "Naturalness",
            "higher",
            "",
            "UniEval's answer to: Is this a natural response in the dialogue? From 0 (No) to 1 (Yes).",
            "unieval",
            (0.0, 1.0),
        ),
    ),
    version="1",
    compute=compute,
    needs=Needs(dimension="naturalness"),
)
