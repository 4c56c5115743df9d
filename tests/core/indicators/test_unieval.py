"""Each of the three indicators takes the answer to its own question, and its NULL as it is."""

import pytest

from core.example import Example
from core.indicators.coherence import COHERENCE
from core.indicators.naturalness import NATURALNESS
from core.indicators.understandability import UNDERSTANDABILITY
from core.indicators.value import Evidence, Indicator, Value
from core.unieval import DIMENSIONS

EXAMPLE = Example("Ask.", "", "Answer.")
THREE = [NATURALNESS, COHERENCE, UNDERSTANDABILITY]


def test_the_questions_of_the_indicators_are_those_that_unieval_has():
    assert tuple(one.needs.dimension for one in THREE) == DIMENSIONS


@pytest.mark.parametrize("indicator", THREE, ids=lambda one: one.key)
def test_each_takes_the_answer_to_its_own_question(indicator: Indicator):
    answers = {"naturalness": Value(0.1), "coherence": Value(0.2), "understandability": Value(0.3)}
    assert indicator.compute(Evidence(EXAMPLE, dimensions=answers)) == {indicator.key: answers[indicator.key]}


@pytest.mark.parametrize("indicator", THREE, ids=lambda one: one.key)
@pytest.mark.parametrize(
    "null", [Value(None, "The response is empty."), Value(None, "Out of memory.", transient=True)], ids=["final", "oom"]
)
def test_a_null_keeps_its_reason_and_whether_another_try_may_help(indicator: Indicator, null: Value):
    assert indicator.compute(Evidence(EXAMPLE, dimensions={indicator.key: null})) == {indicator.key: null}


@pytest.mark.parametrize("indicator", THREE, ids=lambda one: one.key)
def test_what_it_says_of_itself(indicator: Indicator):
    (output,) = indicator.outputs
    assert indicator.needs.role == output.depends == "unieval"
    assert (output.key, output.direction, output.range) == (indicator.key, "higher", (0.0, 1.0))
