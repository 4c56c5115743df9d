"""Perplexity, IFD and r-IFD are made of losses; a NULL loss makes them NULL with its reason, never 0."""

import math

import pytest

from core.errors import SettingsError
from core.example import Example
from core.indicators import INDICATORS, LOSSES, OUTPUTS, Evidence, Value, chosen, losses_needed, outputs_of
from core.indicators.ifd import compute as ifd
from core.indicators.losses import compute as losses
from core.indicators.perplexity import compute as perplexity
from core.indicators.r_ifd import compute as r_ifd
from core.lm import LOSS_KEYS, Loss

EXAMPLE = Example("Ask.", "", "Answer.")
NONE = Loss(None, 0, "The response is empty.")
OOM = Loss(None, 0, "Out of memory.", transient=True)


def evidence(**given: Loss) -> Evidence:
    return Evidence(EXAMPLE, {key: given.get(key, Loss(1.0, 3)) for key in LOSS_KEYS})


def test_ifd_is_the_ratio_of_perplexities_not_of_losses():
    seen = evidence(loss_y_given_x=Loss(2.0, 5), loss_y=Loss(2.5, 5))
    assert ifd(seen)["ifd"].value == pytest.approx(math.exp(2.0) / math.exp(2.5))


def test_r_ifd_is_the_ratio_of_perplexities_of_the_instruction():
    seen = evidence(loss_x_given_y=Loss(3.0, 5), loss_x=Loss(2.0, 5))
    assert r_ifd(seen)["r_ifd"].value == pytest.approx(math.e)


def test_perplexities():
    values = perplexity(evidence(loss_y_given_x=Loss(2.0, 5), loss_y=Loss(3.0, 5)))
    assert values["perplexity"].value == pytest.approx(math.exp(2.0))
    assert values["perplexity_y"].value == pytest.approx(math.exp(3.0))


def test_a_missing_loss_gives_null_with_its_reason():
    value = ifd(evidence(loss_y_given_x=NONE))["ifd"]
    assert value == Value(None, NONE.reason)


def test_transient_only_if_another_try_can_help():
    assert ifd(evidence(loss_y=OOM))["ifd"] == Value(None, OOM.reason, transient=True)
    assert ifd(evidence(loss_y=OOM, loss_y_given_x=NONE))["ifd"] == Value(None, NONE.reason, transient=False)


@pytest.mark.parametrize("difference", [1000.0, -1000.0])
def test_a_ratio_out_of_range_is_null_not_infinite_and_not_zero(difference):
    value = r_ifd(evidence(loss_x_given_y=Loss(2000.0 + difference, 5), loss_x=Loss(2000.0, 5)))["r_ifd"]
    assert value.value is None
    assert "r-IFD is too" in str(value.reason)


def test_losses_and_counts_are_kept_and_both_null_where_nothing_was_scored():
    values = losses(Evidence(EXAMPLE, {"loss_y": Loss(2.0, 7), "loss_x": NONE}))
    assert values == {
        "loss_y": Value(2.0),
        "n_tokens_y": Value(7.0),
        "loss_x": Value(None, NONE.reason),
        "n_tokens_x": Value(None, NONE.reason),
    }


def test_a_value_is_a_finite_number_or_has_a_reason():
    with pytest.raises(ValueError, match="reason"):
        Value(None)
    with pytest.raises(ValueError, match="finite"):
        Value(float("nan"))


def test_the_list_of_indicators_and_their_outputs():
    assert [one.key for one in INDICATORS] == ["length", "mtld", "perplexity", "ifd", "r_ifd"]
    assert len(OUTPUTS) == sum(len(one.outputs) for one in (*INDICATORS, LOSSES))
    assert losses_needed(["length", "mtld"]) == ()
    assert losses_needed(["ifd"]) == ("loss_y", "loss_y_given_x")
    assert losses_needed(["r_ifd", "ifd"]) == LOSS_KEYS
    keys = [output.key for _, output in outputs_of(["ifd"])]
    assert keys == ["ifd", "loss_y", "n_tokens_y", "loss_y_given_x", "n_tokens_y_given_x"]


@pytest.mark.parametrize("keys", [[], ["ifd", "nonsense"]])
def test_unknown_or_no_indicators_are_refused(keys):
    with pytest.raises(SettingsError):
        chosen(keys)
