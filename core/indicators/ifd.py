"""IFD, the instruction-following difficulty [Cherry, arXiv 2308.12032; Selective Reflection-Tuning, 2402.10110]."""

from __future__ import annotations

from core.indicators.value import Evidence, Indicator, Needs, Output, Value, ratio_of_perplexities


def compute(evidence: Evidence) -> dict[str, Value]:
    """Return exp(loss_y_given_x − loss_y) = ppl(y|x) / ppl(y).

    As in [SRT]; the Cherry paper divides the mean losses themselves instead of the perplexities.
    """
    losses = evidence.losses
    return {"ifd": ratio_of_perplexities(losses["loss_y_given_x"], losses["loss_y"], what="IFD")}


IFD = Indicator(
    key="ifd",
    title="Instruction-following difficulty (IFD)",
    summary="How little the instruction helps the student to say the response.",
    paper="Cherry, arXiv 2308.12032; Selective Reflection-Tuning, arXiv 2402.10110",
    outputs=(
        Output(
            "ifd",
            "IFD",
            "higher",
            "ratio",
            "How little the instruction helps the student to say the response: higher is harder; at or above 1 it does "
            "not help at all, and the pair may be misaligned.",
            "student",
            (0.0, None),
        ),
    ),
    version="1",
    compute=compute,
    needs=Needs(losses=frozenset({"loss_y_given_x", "loss_y"})),
)
