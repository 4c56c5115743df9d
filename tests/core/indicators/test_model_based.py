"""Indicators that are made of what models say; a NULL of a model makes them NULL with its reason, never 0."""

import math

import pytest

from core.errors import SettingsError
from core.example import Example
from core.indicators import (
    INDICATORS,
    KNN,
    LOSSES,
    MOST_NEIGHBOURS,
    OUTPUTS,
    Evidence,
    Value,
    chosen,
    losses_needed,
    outputs_of,
    roles_needed,
)
from core.indicators.coherence import compute as coherence
from core.indicators.ifd import compute as ifd
from core.indicators.ifd_loss import compute as ifd_loss
from core.indicators.losses import compute as losses
from core.indicators.perplexity import compute as perplexity
from core.indicators.r_ifd import compute as r_ifd
from core.indicators.reward import compute as reward
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


def test_the_loss_ratio_is_no_ratio_of_perplexities():
    seen = evidence(loss_y_given_x=Loss(2.0, 5), loss_y=Loss(2.5, 5))
    assert ifd_loss(seen)["ifd_loss"].value == pytest.approx(0.8)
    assert ifd_loss(evidence(loss_y=NONE))["ifd_loss"] == Value(None, NONE.reason)
    certain = ifd_loss(evidence(loss_y=Loss(0.0, 5)))["ifd_loss"]
    assert (certain.value, certain.transient) == (None, False)
    assert "loss of 0" in str(certain.reason)


def test_what_other_models_say_is_passed_on_with_its_reason():
    lost = Value(None, "Out of memory.", transient=True)
    assert reward(Evidence(EXAMPLE, reward=Value(-1.5))) == {"reward": Value(-1.5)}
    assert reward(Evidence(EXAMPLE, reward=lost)) == {"reward": lost}
    assert coherence(Evidence(EXAMPLE, dimensions={"coherence": lost})) == {"coherence": lost}
    assert KNN[6].compute(Evidence(EXAMPLE, distances={6: Value(0.25), 1: lost})) == {"knn_6": Value(0.25)}


def test_the_list_of_indicators_and_their_outputs():
    of_the_paper = ["length", "mtld", "knn_6", "reward", "naturalness", "coherence", "understandability", "perplexity"]
    keys = [one.key for one in INDICATORS]
    assert [key for key in keys if key in {*of_the_paper, "ifd", "ifd_loss", "r_ifd"}] == [
        *of_the_paper,
        *("ifd", "ifd_loss", "r_ifd"),
    ]
    assert len(keys) == len(set(keys))
    others = [one for one in INDICATORS if one.needs.neighbour is None]
    assert len(OUTPUTS) == sum(len(one.outputs) for one in (*others, LOSSES)) + MOST_NEIGHBOURS
    assert losses_needed(["length", "mtld", "knn_6", "reward"]) == ()
    assert losses_needed(["ifd"]) == ("loss_y", "loss_y_given_x")
    assert losses_needed(["r_ifd", "ifd"]) == LOSS_KEYS
    keys = [output.key for _, output in outputs_of(["ifd"])]
    assert keys == ["ifd", "loss_y", "n_tokens_y", "loss_y_given_x", "n_tokens_y_given_x"]


def test_an_indicator_says_which_model_it_needs():
    assert roles_needed(["mtld"]) == ()
    assert roles_needed(["knn_50", "length"]) == ("student", "embedder")
    assert roles_needed([one.key for one in INDICATORS]) == ("student", "reward", "unieval", "embedder")
    for one in INDICATORS:
        for output in one.outputs:
            expected = {"text": None, "tokenizer": "student"}.get(output.depends, output.depends)
            assert expected in (None, one.needs.role), output.key
            low, high = output.range
            assert low is None or high is None or low < high


def test_any_neighbour_from_1_to_50_can_be_asked_for_beside_others():
    assert [one.key for one in chosen(["knn_50", "knn_1", "mtld"])] == ["mtld", "knn_1", "knn_50"]
    with pytest.raises(SettingsError, match="knn_51"):
        chosen(["knn_51"])


@pytest.mark.parametrize("keys", [[], ["ifd", "nonsense"]])
def test_unknown_or_no_indicators_are_refused(keys):
    with pytest.raises(SettingsError):
        chosen(keys)
