"""Training an adapter by transformers' Trainer, so that optimiser, schedule, clipping and checkpoints are its own.

What is ours: the order of the rows (``core.finetune.texts.plan_batches``), the loss (``core.finetune.loss``), and that
one of the Trainer's batches is one optimiser step, split here into what fits into memory. The Trainer is shown the
whole run as one epoch, so that a resumed run skips to its batch by counting alone.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.finetune.curve import CURVE_FILE, CurveFile, read_curve
from core.finetune.loss import summed_nll
from core.finetune.results import CurvePoint
from core.finetune.settings import FinetuneSettings
from core.finetune.texts import TrainRow

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

CHECKPOINTS = "checkpoints"
_STATE_FILE = "trainer_state.json"

Report = Callable[[CurvePoint, int], None]
"""Called after every optimiser step with its point and the number of steps in all."""


@dataclass(frozen=True)
class Trained:
    """``points`` of all steps, also of those before a resume; ``diverged``: why it was stopped before its end."""

    points: tuple[CurvePoint, ...]
    diverged: str | None
    resumed_at: int


def latest_checkpoint(folder: Path) -> tuple[Path, int] | None:
    """The last whole checkpoint and its step. The Trainer writes its state last, so that a torn one lacks it."""
    found = []
    for path in folder.glob("checkpoint-*"):
        try:
            step = int(json.loads((path / _STATE_FILE).read_text(encoding="utf-8"))["global_step"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        found.append((step, path))
    if not found:
        return None
    step, path = max(found)
    return path, step


def train(
    model: PreTrainedModel,
    adapter: PeftModel,
    rows: Sequence[TrainRow],
    batches: Sequence[Sequence[int]],
    settings: FinetuneSettings,
    *,
    steps_per_epoch: int,
    micro_rows: int,
    plain_head: bool,
    seed: int,
    work: Path,
    report: Report,
) -> Trained:
    """Train ``adapter``, which lies on ``model``, on batches of rows; goes on from a checkpoint in ``work``.

    Raises:
        RuntimeError: what torch raises, out of memory among it.
    """
    folder = work / CHECKPOINTS
    start = latest_checkpoint(folder)
    for torn in folder.glob("checkpoint-*"):
        if start is None or torn != start[0]:
            shutil.rmtree(torn)
    n_done = 0 if start is None else start[1]
    kept = [point for point in read_curve(work / CURVE_FILE) if point.step <= n_done]
    curve = CurveFile(work / CURVE_FILE, kept)
    loop = _Loop(curve, report, n_steps=len(batches), steps_per_epoch=steps_per_epoch)
    trainer = _trainer(
        model,
        adapter,
        [[rows[i] for i in batch] for batch in batches],
        settings,
        micro_rows=micro_rows,
        plain_head=plain_head,
        seed=seed,
        folder=folder,
        loop=loop,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.train(resume_from_checkpoint=None if start is None else str(start[0]))
    return Trained(tuple(curve.points), loop.diverged, n_done)


class _Loop:
    """Notes each step, and says when a loss is no number any more."""

    def __init__(self, curve: CurveFile, report: Report, *, n_steps: int, steps_per_epoch: int) -> None:
        self.diverged: str | None = None
        self._curve = curve
        self._report = report
        self._n_steps = n_steps
        self._steps_per_epoch = steps_per_epoch
        self._began = time.perf_counter()

    def step(self, number: int, *, loss: float, learning_rate: float | None, grad_norm: float | None) -> bool:
        """Note a step; return whether training may go on."""
        now = time.perf_counter()
        for name, value in (("training loss", loss), ("gradient's norm", grad_norm)):
            if value is not None and not math.isfinite(value):
                self.diverged = self.diverged or f"The {name} was {value} at step {number} of {self._n_steps}."
        point = CurvePoint(
            step=number,
            epoch=number / self._steps_per_epoch,
            loss_nats=loss if math.isfinite(loss) else None,
            learning_rate=learning_rate,
            grad_norm=grad_norm if grad_norm is not None and math.isfinite(grad_norm) else None,
            seconds=now - self._began,
        )
        self._began = now
        self._curve.add(point)
        self._report(point, self._n_steps)
        return self.diverged is None


def _trainer(
    model: PreTrainedModel,
    adapter: PeftModel,
    batches: list[list[TrainRow]],
    settings: FinetuneSettings,
    *,
    micro_rows: int,
    plain_head: bool,
    seed: int,
    folder: Path,
    loop: _Loop,
) -> Any:
    import torch
    from torch.utils.data import DataLoader
    from transformers import PrinterCallback, Trainer, TrainerCallback

    class AdapterTrainer(Trainer):
        def get_train_dataloader(self) -> DataLoader[Any]:
            # Its own generator: a loader draws a number from torch's, which a resumed run would draw once more.
            return DataLoader(
                batches,  # type: ignore[arg-type]
                batch_sampler=[[i] for i in range(len(batches))],
                collate_fn=lambda one: one[0],
                generator=torch.Generator(),
            )

        def training_step(self, model_: Any, inputs: list[TrainRow], num_items_in_batch: Any = None) -> torch.Tensor:
            adapter.train()
            n_tokens = sum(len(row.ids) - row.start for row in inputs)
            total = torch.zeros((), device=self.args.device)
            for low in range(0, len(inputs), micro_rows):
                loss = summed_nll(model, inputs[low : low + micro_rows], plain_head=plain_head) / n_tokens
                self.accelerator.backward(loss)
                total += loss.detach()
            return total

        def floating_point_ops(self, inputs: Any) -> int:
            return 0

        def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
            save_adapter(adapter, Path(output_dir or folder))

    class Steps(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs is not None and "loss" in logs:
                may_go_on = loop.step(
                    state.global_step,
                    loss=logs["loss"],
                    learning_rate=logs.get("learning_rate"),
                    grad_norm=logs.get("grad_norm"),
                )
                if not may_go_on:
                    control.should_training_stop = True
                    control.should_save = False

    arguments = _arguments(settings, n_steps=len(batches), seed=seed, folder=folder)
    trainer = AdapterTrainer(model=adapter, args=arguments, train_dataset=batches, callbacks=[Steps()])
    trainer.remove_callback(PrinterCallback)
    return trainer


def _arguments(settings: FinetuneSettings, *, n_steps: int, seed: int, folder: Path) -> Any:
    import torch
    from transformers import TrainingArguments

    device = torch.device(settings.device)
    if device.type == "cuda" and device.index:
        os.environ["ACCELERATE_TORCH_DEVICE"] = settings.device  # the Trainer would take the first GPU

    class Arguments(TrainingArguments):
        @property
        def device(self) -> torch.device:
            found: torch.device = super().device
            self._n_gpu = int(found.type == "cuda")  # no DataParallel over all the GPUs that can be seen
            return torch.device(settings.device) if found.type == "cuda" else found

    return Arguments(
        output_dir=str(folder),
        per_device_train_batch_size=1,
        max_steps=n_steps,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.schedule,
        warmup_steps=math.ceil(settings.warmup_ratio * n_steps),
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps" if settings.checkpoint_steps else "no",
        save_steps=settings.checkpoint_steps or 1,
        save_total_limit=1,
        seed=seed & 0xFFFF_FFFF,
        use_cpu=device.type == "cpu",
        report_to="none",
        disable_tqdm=True,
        log_level="error",
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )


def save_adapter(adapter: PeftModel, folder: Path) -> None:
    """Save the adapter as peft reads it; the base's embeddings are not looked for, which might ask the hub."""
    adapter.save_pretrained(str(folder), save_embedding_layers=False)
