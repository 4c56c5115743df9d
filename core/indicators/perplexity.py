"""Perplexity of the response under the student, with the prompt before it and without [IM, table 1]."""

from __future__ import annotations

from core.indicators.value import Evidence, Indicator, Needs, Output, Value, exp_of, missing


def compute(evidence: Evidence) -> dict[str, Value]:
    """Return exp(loss_y_given_x) and exp(loss_y); NULL with the loss's reason where the loss is NULL."""
    values = {}
    for key, loss_key in (("perplexity", "loss_y_given_x"), ("perplexity_y", "loss_y")):
        loss = evidence.losses[loss_key]
        absent = missing(loss)
        if absent is None:
            assert loss.loss_nats is not None
            values[key] = exp_of(loss.loss_nats, what="perplexity")
        else:
            values[key] = absent
    return values


PERPLEXITY = Indicator(
    key="perplexity",
    title="Perplexity",
    summary="How surprising the response is to the student.",
    paper="Instruction Mining, arXiv 2307.06290, table 1",
    outputs=(
        Output(
            "perplexity",
            "Perplexity",
            "lower",
            "",
            "exp of the mean token loss of the response after its prompt.",
            "student",
            (1.0, None),
        ),
        Output(
            "perplexity_y",
            "Perplexity without prompt",
            "neither",
            "",
            "exp of the mean token loss of the response alone.",
            "student",
            (1.0, None),
        ),
    ),
    version="1",
    compute=compute,
    needs=Needs(losses=frozenset({"loss_y_given_x", "loss_y"})),
)
