"""IFD as a ratio of mean losses: another number than IFD, and NULL wherever there is no ratio."""

import math

import pytest

from core.example import Example
from core.indicators.ifd import compute as ifd
from core.indicators.ifd_loss import IFD_LOSS, compute
from core.indicators.value import Evidence, Value
from core.lm import Loss

EXAMPLE = Example("Ask.", "", "Answer.")


def evidence(given: Loss, alone: Loss) -> Evidence:
    return Evidence(EXAMPLE, {"loss_y_given_x": given, "loss_y": alone})


def test_the_losses_are_divided_not_the_perplexities():
    seen = evidence(Loss(1.5, 4), Loss(2.0, 4))
    assert compute(seen) == {"ifd_loss": Value(0.75)}
    assert ifd(seen)["ifd"].value == pytest.approx(math.exp(-0.5))


def test_both_forms_are_one_where_the_instruction_helps_nothing():
    seen = evidence(Loss(2.0, 4), Loss(2.0, 4))
    assert compute(seen)["ifd_loss"].value == 1.0
    assert ifd(seen)["ifd"].value == 1.0


def test_a_student_that_is_certain_of_the_response_leaves_no_ratio():
    value = compute(evidence(Loss(0.5, 4), Loss(0.0, 4)))["ifd_loss"]
    assert value.value is None
    assert "loss of 0" in str(value.reason)
    # Certain after the instruction is another thing: the instruction helps wholly.
    assert compute(evidence(Loss(0.0, 4), Loss(0.5, 4))) == {"ifd_loss": Value(0.0)}


def test_a_missing_loss_is_null_with_its_reason():
    none = Loss(None, 0, "The response is empty.")
    memory = Loss(None, 0, "Out of memory.", transient=True)
    assert compute(evidence(none, Loss(1.0, 4))) == {"ifd_loss": Value(None, none.reason)}
    assert compute(evidence(Loss(1.0, 4), memory)) == {"ifd_loss": Value(None, memory.reason, transient=True)}
    assert compute(evidence(none, memory)) == {"ifd_loss": Value(None, none.reason)}


def test_what_it_says_of_itself():
    (output,) = IFD_LOSS.outputs
    assert IFD_LOSS.needs.role == output.depends == "student"
    assert output.key != "ifd"
