"""How long finetunes may take."""

from __future__ import annotations

import pytest

from core.finetune.pace import PastFinetune, estimate, past_finetune
from core.finetune.settings import FinetuneSettings

SETTINGS = FinetuneSettings(base="some/base", precision="fp32", epochs=2.0)
DETAILS = {
    "settings": SETTINGS.to_params(),
    "n_tokens_trained": 20_000,
    "seconds_training": 40.0,
    "n_eval_tokens": 3_000,
    "seconds_evaluating": 1.5,
    "seconds_loading": 6.0,
}


def past() -> PastFinetune:
    found = past_finetune(DETAILS)
    assert found is not None
    return found


def test_a_past_run_is_read_out_of_its_details():
    assert past_finetune(DETAILS) == PastFinetune(
        base="some/base",
        device="cpu",
        precision="fp32",
        n_tokens=20_000,
        seconds=40.0,
        n_eval_tokens=3_000,
        eval_seconds=1.5,
        start_seconds=6.0,
    )
    assert past_finetune({}) is None
    assert past_finetune(DETAILS | {"n_tokens_trained": 10}) is None, "too short to tell"


def test_from_earlier_finetunes_by_hand():
    found = estimate(SETTINGS, n_runs=10, train_tokens=5_000, eval_tokens=6_000, past=[past()])
    # 2 epochs of 5,000 tokens at 2 ms, 6,000 tokens at 0.5 ms, half a second for each run; 6 s to load
    assert found.seconds == pytest.approx(6 + 10 * (20 + 3 + 0.5))
    assert found.measured
    assert found.basis == "From the last finetune of this base here: about 500 tokens a second in training."


@pytest.mark.parametrize("changes", [{"base": "other"}, {"precision": "int8"}, {"device": "cuda"}])
def test_without_one_alike_it_is_a_guess_and_says_so(changes):
    settings = FinetuneSettings(**(SETTINGS.to_params() | changes))
    found = estimate(settings, n_runs=1, train_tokens=1e6, eval_tokens=0, past=[past()])
    assert not found.measured
    assert "rough guess" in found.basis
    assert "2.0 million tokens" in found.basis


def test_max_steps_bounds_the_tokens():
    settings = FinetuneSettings(**(SETTINGS.to_params() | {"max_steps": 1, "max_length": 100}))
    found = estimate(settings, n_runs=1, train_tokens=5_000, eval_tokens=0, past=[past()])
    assert found.seconds == pytest.approx(6 + 0.5 + 800 * 0.002)
    known = estimate(settings, n_runs=1, train_tokens=5_000, eval_tokens=0, past=[past()], n_rows=200)
    assert known.seconds == pytest.approx(6 + 0.5 + 8 * 25 * 0.002)  # a batch of 8 rows of 25 tokens each
