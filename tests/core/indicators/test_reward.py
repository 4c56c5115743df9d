"""The indicator hands on what the reward model said, and its NULL as it is."""

from core.example import Example
from core.indicators.reward import REWARD
from core.indicators.value import Evidence, Value

EXAMPLE = Example("Ask.", "", "Answer.")


def test_a_reward_is_taken_as_it_is_even_below_zero():
    assert REWARD.compute(Evidence(EXAMPLE, reward=Value(-3.25))) == {"reward": Value(-3.25)}
    assert REWARD.compute(Evidence(EXAMPLE, reward=Value(0.0))) == {"reward": Value(0.0)}


def test_a_null_keeps_its_reason_and_whether_another_try_may_help():
    for null in (Value(None, "The response is empty."), Value(None, "Out of memory.", transient=True)):
        assert REWARD.compute(Evidence(EXAMPLE, reward=null)) == {"reward": null}


def test_what_it_says_of_itself():
    (output,) = REWARD.outputs
    assert REWARD.needs.role == output.depends == "reward"
    assert (output.direction, output.range) == ("higher", (None, None))
