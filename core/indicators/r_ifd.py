"""r-IFD, the reversed IFD [Selective Reflection-Tuning, arXiv 2402.10110]."""

from __future__ import annotations

from core.indicators.value import Evidence, Indicator, Needs, Output, Value, ratio_of_perplexities


def compute(evidence: Evidence) -> dict[str, Value]:
    """Return exp(loss_x_given_y − loss_x) = ppl(x|y) / ppl(x)."""
    losses = evidence.losses
    return {"r_ifd": ratio_of_perplexities(losses["loss_x_given_y"], losses["loss_x"], what="r-IFD")}


R_IFD = Indicator(
    key="r_ifd",
    title="Reversed IFD (r-IFD)",
    summary="How hard the instruction is to guess from the response.",
    paper="Selective Reflection-Tuning, arXiv 2402.10110",
    outputs=(
        Output(
            "r_ifd",
            "r-IFD",
            "lower",
            "ratio",
            "How little the response helps the student to guess the instruction: lower means that the instruction is "
            "easier to guess from the response.",
            "student",
            (0.0, None),
        ),
    ),
    version="1",
    compute=compute,
    needs=Needs(losses=frozenset({"loss_x_given_y", "loss_x"})),
)
