"""IFD as the ratio of mean losses, the Cherry paper's first form [arXiv 2308.12032, equation 4]."""

from __future__ import annotations

from core.indicators.value import Evidence, Indicator, Needs, Output, Value, missing


def compute(evidence: Evidence) -> dict[str, Value]:
    """Return loss_y_given_x / loss_y; NULL where the student is certain of the whole response (a loss of 0)."""
    given, alone = evidence.losses["loss_y_given_x"], evidence.losses["loss_y"]
    absent = missing(given, alone)
    if absent is not None:
        return {"ifd_loss": absent}
    assert given.loss_nats is not None
    assert alone.loss_nats is not None
    if alone.loss_nats <= 0.0:
        return {"ifd_loss": Value(None, "The response alone has a loss of 0, so there is no ratio to it.")}
    return {"ifd_loss": Value(given.loss_nats / alone.loss_nats)}


IFD_LOSS = Indicator(
    key="ifd_loss",
    title="IFD, ratio of losses",
    summary="Cherry's first form of IFD: the losses divided, not the perplexities.",
    paper="Cherry, arXiv 2308.12032, equation 4",
    outputs=(
        Output(
            "ifd_loss",
            "IFD (loss ratio)",
            "higher",
            "ratio",
            "Mean loss of the response after its prompt over its mean loss alone. Not to be compared with IFD, which "
            "divides the perplexities.",
            "student",
            (0.0, None),
        ),
    ),
    version="1",
    compute=compute,
    needs=Needs(losses=frozenset({"loss_y_given_x", "loss_y"})),
)
