"""A base model in memory, on which one run after another is finetuned and evaluated.

Every run puts a new adapter on it, drawn from the run's seed, and takes it off again, so that a run in the middle of a
sweep is the run that it would be alone: to the last bit on a CPU, and up to the order of a GPU's sums there.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.batches import is_out_of_memory
from core.fast_linear import give_back_freed_memory
from core.finetune import loading
from core.finetune.adapter import adapted, lora_targets
from core.finetune.evaluating import Evaluation, scoring
from core.finetune.results import CurvePoint, OutputLoss, RunResult
from core.finetune.settings import FinetuneSettings
from core.finetune.texts import RowEncoder, TrainRows, n_steps, plan_batches
from core.finetune.training import Report, Trained, train
from core.finetune.versions import versions
from core.finetune.work import ADAPTER, PeakMemory, begin, forget, identity_of, keep, restart
from core.lm import OUT_OF_MEMORY
from core.span_losses import find_way
from core.spans import TextEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from core.example import Example

Note = Callable[[str], None]


def _silent(_: str) -> None:
    return None


def _unseen(_: CurvePoint, __: int) -> None:
    return None


class Base:
    """A loaded base model. Make one with :meth:`load`.

    ``settings``  with the revision that was loaded
    ``seconds_loading``  how long that took
    """

    def __init__(
        self,
        settings: FinetuneSettings,
        tokenizer: PreTrainedTokenizerBase,
        model: PreTrainedModel,
    ) -> None:
        self.settings = settings
        self.seconds_loading = 0.0
        self.tokenizer = tokenizer
        self._model = model
        self._rows = RowEncoder(TextEncoder(tokenizer), template=settings.template, max_length=settings.max_length)
        self._evaluation: Evaluation | None = None
        with scoring(model):
            self._plain_head = find_way(model, name=settings.base, longest=settings.max_length).plain_head

    @classmethod
    def load(cls, settings: FinetuneSettings, *, note: Note = _silent) -> Base:
        """Find and load the base.

        Raises:
            ModelError: it cannot be found, loaded, or used with these settings.
        """
        began = time.perf_counter()
        revision, tokenizer, model = loading.load(settings)
        base = cls(replace(settings, revision=revision), tokenizer, model)
        base.seconds_loading = time.perf_counter() - began
        with adapted(model, settings):
            pass  # whether this model takes an adapter is better known before the first run than in it
        _, instead = lora_targets(model, settings.lora_targets)
        if instead:
            note(instead)
        return base

    def run(
        self,
        examples: Sequence[Example],
        *,
        evaluation: Sequence[tuple[int, Example]],
        seed: int,
        work: Path,
        report: Report = _unseen,
        note: Note = _silent,
    ) -> RunResult:
        """Train a new adapter on ``examples`` and evaluate it on ``evaluation``; no examples: evaluate the base alone.

        ``work`` is the run's own folder. It gets ``curve.jsonl`` (a :class:`CurvePoint` a line, as they come), the
        checkpoints while it is training, and ``adapter`` in the end if the settings keep it. Where it holds a
        checkpoint of this very run, training goes on there and ends as if it had never stopped.
        ``report`` is called after every optimiser step with its point and the number of steps.

        What is wrong with this run alone is its outcome: ``failed`` (no token to train or evaluate on, out of memory)
        or ``diverged`` (a loss that is not finite, that of a single output too, or an evaluation loss above both that
        of guessing all tokens alike and that of the untrained base).

        Raises:
            ModelError: the model fails, as it would in every run.
        """
        work.mkdir(parents=True, exist_ok=True)
        began = time.perf_counter()
        peak = PeakMemory(self._model)
        outputs = self._evaluated(evaluation)
        details: dict[str, Any] = {
            "seconds_loading": self.seconds_loading,
            "seed": seed,
            "settings": self.settings.to_params(),
            "versions": versions(),
            "n_eval_tokens": outputs.n_tokens,
        }
        if not examples:
            result = self._result(outputs, self._losses(outputs, details), None, details)
        else:
            result = self._trained(examples, outputs, seed=seed, work=work, report=report, note=note, details=details)
        details["peak_bytes"] = peak.bytes()
        forget(work)
        give_back_freed_memory()  # or it grows by some megabytes a run, in pieces that no later array fits into
        return replace(result, seconds=time.perf_counter() - began, details=details)

    # --- training ---

    def _trained(
        self,
        examples: Sequence[Example],
        outputs: Evaluation,
        *,
        seed: int,
        work: Path,
        report: Report,
        note: Note,
        details: dict[str, Any],
    ) -> RunResult:
        rows = self._rows.rows(examples)
        details |= _row_details(rows, self._rows.eos)
        if not rows.rows:
            why = "; ".join(f"{n} times: {reason}" for reason, n in rows.skipped.items())
            return RunResult(outcome="failed", reason=f"No row has a response token to train on ({why})")
        targets, instead = lora_targets(self._model, self.settings.lora_targets)
        details["lora_targets"] = targets
        if instead:
            details["lora_note"] = instead
        identity = identity_of(self.settings, rows, seed)
        micro_rows = begin(work, identity, self.settings)
        while True:
            try:
                return self._attempt(
                    rows, outputs, micro_rows=micro_rows, seed=seed, work=work, report=report, details=details
                )
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                said = (str(error).strip().splitlines() or [type(error).__name__])[0]
            self._free()
            if micro_rows == 1 or self.settings.micro_batch_size:
                return RunResult(outcome="failed", reason=_too_large(micro_rows, said))
            micro_rows //= 2
            restart(work, identity, micro_rows)
            details["micro_batch_note"] = (
                f"Memory ran out, so the run began again with {micro_rows} rows in memory at once; the optimiser's "
                "batch is the same."
            )
            note(details["micro_batch_note"])

    def _attempt(
        self,
        rows: TrainRows,
        outputs: Evaluation,
        *,
        micro_rows: int,
        seed: int,
        work: Path,
        report: Report,
        details: dict[str, Any],
    ) -> RunResult:
        from transformers import set_seed

        settings = self.settings
        per_epoch = math.ceil(len(rows.rows) / settings.batch_size)
        steps = n_steps(
            len(rows.rows), batch_size=settings.batch_size, epochs=settings.epochs, max_steps=settings.max_steps
        )
        batches = plan_batches(
            [len(row.ids) for row in rows.rows],
            batch_size=settings.batch_size,
            steps=steps,
            seed=seed,
            grouped=settings.grouped,
        )
        set_seed(seed & 0xFFFF_FFFF)
        with adapted(self._model, settings) as adapter:
            trained = train(
                self._model,
                adapter,
                rows.rows,
                batches,
                settings,
                steps_per_epoch=per_epoch,
                micro_rows=micro_rows,
                plain_head=self._plain_head,
                seed=seed,
                work=work,
                report=report,
            )
            details |= {
                "seconds_training": math.fsum(point.seconds or 0.0 for point in trained.points),
                "n_tokens_trained": sum(len(rows.rows[i].ids) for batch in batches for i in batch),
                "micro_batch_size": micro_rows,
                "n_steps": len(trained.points),
                "n_trainable": sum(one.numel() for one in adapter.parameters() if one.requires_grad),
                "resumed_at_step": trained.resumed_at,
            }
            if trained.diverged:
                return RunResult(outcome="diverged", reason=trained.diverged, curve=trained.points)
            losses = self._losses(outputs, details)
            if settings.keep_adapter:
                details["adapter"] = ADAPTER
                keep(adapter, work / ADAPTER)
        last = [point.loss_nats for point in trained.points[-per_epoch:] if point.loss_nats is not None]
        result = self._result(outputs, losses, trained, details)
        return replace(result, train_loss_nats=math.fsum(last) / len(last) if last else None)

    # --- evaluation ---

    def _evaluated(self, evaluation: Sequence[tuple[int, Example]]) -> Evaluation:
        if self._evaluation is None or self._evaluation.outputs != tuple(evaluation):
            self._evaluation = Evaluation(evaluation, self.settings, TextEncoder(self.tokenizer))
        return self._evaluation

    def _losses(self, outputs: Evaluation, details: dict[str, Any]) -> tuple[OutputLoss, ...]:
        began = time.perf_counter()
        losses = tuple(outputs.run(self._model))
        details["seconds_evaluating"] = time.perf_counter() - began
        return losses

    def _result(
        self,
        outputs: Evaluation,
        losses: Sequence[OutputLoss],
        trained: Trained | None,
        details: dict[str, Any],
    ) -> RunResult:
        """Judge the losses: done, diverged or failed. The adapter is off."""
        curve = trained.points if trained is not None else ()
        lost = outputs.lost(losses)
        if lost:
            # A mean over the others would be over other outputs than that of the runs that it is compared with.
            failed = trained is None or any(one.reason == OUT_OF_MEMORY for one in lost)
            return RunResult(
                outcome="failed" if failed else "diverged", reason=_why_lost(lost, losses), losses=losses, curve=curve
            )
        mean = _mean(losses)
        if mean is None:
            return RunResult(outcome="failed", reason=_why_none(losses), losses=losses, curve=curve)
        result = RunResult(outcome="done", loss_nats=mean, losses=losses, curve=curve)
        guess = math.log(self._model.get_input_embeddings().weight.shape[0])
        if trained is None or mean <= guess:
            return result
        untrained = _mean(outputs.run(self._model))
        details["untrained_loss_nats"] = untrained
        if untrained is not None and mean <= untrained:
            return result
        return replace(
            result,
            outcome="diverged",
            reason=f"After {len(curve)} steps the evaluation loss is {mean:.4g} nats a token, above that of guessing "
            f"all tokens alike ({guess:.4g}).",
        )

    def _free(self) -> None:
        import torch

        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _mean(losses: Sequence[OutputLoss]) -> float | None:
    found = [one.loss_nats for one in losses if one.loss_nats is not None]
    return math.fsum(found) / len(found) if found else None


def _why_none(losses: Sequence[OutputLoss]) -> str:
    if not losses:
        return "The evaluation set has no output to evaluate on."
    return f"No output of the evaluation set has a loss: {losses[0].reason}"


def _why_lost(lost: Sequence[OutputLoss], losses: Sequence[OutputLoss]) -> str:
    return (
        f"{len(lost)} of {len(losses)} outputs of the evaluation set have tokens but no loss, the first that of row "
        f"{lost[0].example_id}: {lost[0].reason}"
    )


def _row_details(rows: TrainRows, eos: int | None) -> dict[str, Any]:
    return {
        "n_train_rows": len(rows.rows),
        "n_train_rows_skipped": sum(rows.skipped.values()),
        "skipped": rows.skipped,
        "n_train_tokens": rows.n_train_tokens,
        "n_tokens": rows.n_tokens,
        "eos_trained": eos is not None,
    }


def _too_large(micro_rows: int, said: str) -> str:
    rows = "a single row" if micro_rows == 1 else f"{micro_rows} rows at once"
    return (
        f"Memory ran out with {rows} ({said}). Choose a smaller max_length, a smaller micro batch, gradient "
        "checkpointing, or a base in fewer bits."
    )
