"""How long finetunes may take: from earlier ones of the same base, else a guess that says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from core.finetune.settings import FinetuneSettings
from core.pace import START_SECONDS, Estimate, n_parameters

_LATEST = 5
_FEWEST_TOKENS = 500
_RUN_SECONDS = 0.5  # to put an adapter on, set an optimiser up and take both off again
_UNKNOWN_PARAMETERS = 1e9
# Sustained, not peak. Forward: two operations per parameter and token. Training a LoRA adapter: forward, and the
# gradient of the activations but not of the weights, with the adapter's own work about three times a forward pass.
_OPERATIONS_PER_SECOND = {"cpu": 4e10, "cuda": 4e13}
_TRAINING_PASSES = 3.0
_CHECKPOINTED_PASSES = 4.0


@dataclass(frozen=True, kw_only=True)
class PastFinetune:
    """What a finetune took: ``n_tokens`` through training (all epochs, prompts too) in ``seconds``.

    ``n_eval_tokens`` tokens were evaluated in ``eval_seconds``; the base was loaded in ``start_seconds``.
    """

    base: str
    device: str
    precision: str
    n_tokens: int
    seconds: float
    n_eval_tokens: int
    eval_seconds: float
    start_seconds: float


def past_finetune(details: Mapping[str, Any]) -> PastFinetune | None:
    """Read it out of the ``details`` of a run's result; None where they do not say, or it was too short to tell."""
    settings = details.get("settings") or {}
    try:
        found = PastFinetune(
            base=str(settings["base"]),
            device=str(settings["device"]),
            precision=str(settings["precision"]),
            n_tokens=int(details["n_tokens_trained"]),
            seconds=float(details["seconds_training"]),
            n_eval_tokens=int(details["n_eval_tokens"]),
            eval_seconds=float(details["seconds_evaluating"]),
            start_seconds=float(details["seconds_loading"]),
        )
    except (KeyError, TypeError, ValueError):
        return None
    return found if found.n_tokens >= _FEWEST_TOKENS and found.seconds > 0 else None


def estimate(
    settings: FinetuneSettings,
    *,
    n_runs: int,
    train_tokens: float,
    eval_tokens: float,
    past: Sequence[PastFinetune] = (),
    n_rows: float | None = None,
) -> Estimate:
    """How long ``n_runs`` runs of a study may take, one after another, with the base loaded once.

    ``train_tokens`` are those of one run in one epoch, ``eval_tokens`` those of the evaluation set, prompts included in
    both; ``past`` is newest first, and only what was done with the same base, precision and kind of device counts.
    ``n_rows``: rows of one run, which say how long the texts of ``max_steps`` batches are.
    """
    trained = _trained_tokens(settings, train_tokens, n_rows)
    alike = [one for one in past if _alike(one, settings)][:_LATEST]
    if alike:
        training = median(one.seconds / one.n_tokens for one in alike)
        evaluating = median(one.eval_seconds / max(1, one.n_eval_tokens) for one in alike)
        start = median(one.start_seconds for one in alike)
        runs = "the last finetune" if len(alike) == 1 else f"the last {len(alike)} finetunes"
        basis = f"From {runs} of this base here: about {_rounded(1 / training)} tokens a second in training."
        seconds = start + n_runs * (_RUN_SECONDS + trained * training + eval_tokens * evaluating)
        return Estimate(seconds, True, basis)
    known = n_parameters(settings.base)
    size = known or _UNKNOWN_PARAMETERS
    rate = _OPERATIONS_PER_SECOND.get(settings.device.split(":")[0], _OPERATIONS_PER_SECOND["cpu"])
    passes = _CHECKPOINTED_PASSES if settings.gradient_checkpointing else _TRAINING_PASSES
    each = _RUN_SECONDS + 2 * size * (passes * trained + eval_tokens) / rate
    what = f"{_rounded(size)} parameters" if known else f"unknown size, taken as {_rounded(size)} parameters"
    return Estimate(
        START_SECONDS + n_runs * each,
        False,
        f"A rough guess, it may be several times off: {_rounded(n_runs * trained)} tokens to train on with a base of "
        f"{what}. No finetune of it has ended here yet.",
    )


def _trained_tokens(settings: FinetuneSettings, tokens: float, n_rows: float | None) -> float:
    """Tokens of all steps; ``max_steps`` bounds them by full batches of mean texts, or of the longest if not known."""
    of_a_row = min(tokens / n_rows, settings.max_length) if n_rows else settings.max_length
    most = float(settings.max_steps) * settings.batch_size * of_a_row
    of_epochs = settings.epochs * tokens
    if not settings.max_steps:
        return of_epochs
    return min(of_epochs, most) if settings.epochs else most


def _alike(past: PastFinetune, settings: FinetuneSettings) -> bool:
    kinds = past.device.split(":")[0], settings.device.split(":")[0]
    return (past.base, past.precision) == (settings.base, settings.precision) and kinds[0] == kinds[1]


def _rounded(number: float) -> str:
    for unit, word in ((1e9, "billion"), (1e6, "million")):
        if number >= unit:
            return f"{number / unit:,.1f} {word}"
    return f"{round(number, -2):,.0f}" if number >= 1000 else f"{number:,.0f}"
