"""The student's mean token losses and how many tokens they run over: kept beside every score that is made of them."""

from __future__ import annotations

from core.indicators.value import Evidence, Indicator, Needs, Output, Value, missing

_WHAT = {
    "loss_y": "the response alone",
    "loss_y_given_x": "the response after its prompt",
    "loss_x": "the instruction and input alone",
    "loss_x_given_y": "the instruction and input after the reverse prompt",
}


def compute(evidence: Evidence) -> dict[str, Value]:
    """Return every loss that was computed, and its token count; both are NULL where nothing was scored."""
    values = {}
    for key, loss in evidence.losses.items():
        absent = missing(loss)
        if absent is None:
            assert loss.loss_nats is not None
            values[key] = Value(loss.loss_nats)
            values[count_key(key)] = Value(float(loss.n_tokens))
        else:
            values[key] = values[count_key(key)] = absent
    return values


def count_key(loss_key: str) -> str:
    """The output that holds the number of tokens under a loss: ``loss_y`` has ``n_tokens_y``."""
    return loss_key.replace("loss_", "n_tokens_", 1)


def _outputs() -> tuple[Output, ...]:
    found = []
    for key, what in _WHAT.items():
        name = what[:1].upper() + what[1:]
        found.append(
            Output(
                key,
                f"Loss: {what}",
                "neither",
                "nats",
                f"{name}: mean token loss, natural log.",
                "student",
                (0.0, None),
            )
        )
        found.append(
            Output(
                count_key(key),
                f"Tokens: {what}",
                "neither",
                "tokens",
                f"{name}: number of scored tokens.",
                "student",
                (0.0, None),
            )
        )
    return tuple(found)


LOSSES = Indicator(
    key="losses",
    title="Losses",
    summary="The mean token losses that the student's scores are made of.",
    paper="Selective Reflection-Tuning, arXiv 2402.10110",
    outputs=_outputs(),
    version="1",
    compute=compute,
    needs=Needs(losses=frozenset(_WHAT)),
)
