"""Reward: how well the response answers the request, in the eyes of a reward model [IM, table 1]."""

from __future__ import annotations

from core.indicators.value import Evidence, Indicator, Needs, Output, Value


def compute(evidence: Evidence) -> dict[str, Value]:
    """Return the reward model's score of (instruction + input, response); see ``core.reward``."""
    assert evidence.reward is not None
    return {"reward": evidence.reward}


REWARD = Indicator(
    key="reward",
    title="Reward",
    summary="How well the response answers, in the eyes of a reward model.",
    paper="Instruction Mining, arXiv 2307.06290, table 1",
    outputs=(
        Output(
            "reward",
            "Reward",
            "higher",
            "",
            "Score that a reward model gives the response to its request. Only scores of one reward model compare.",
            "reward",
        ),
    ),
    version="1",
    compute=compute,
    needs=Needs(reward=True),
)
