"""``python -m core finetune TRAIN --eval EVAL --base MODEL --out DIR``: one finetune and its evaluation loss."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

from core.command_line import ProgressLine, column_mapping, duration, guarded
from core.errors import JobError
from core.finetune.results import CurvePoint
from core.finetune.settings import PRECISIONS, SCHEDULES, TARGETS, FinetuneSettings
from core.finetune_file import LOSSES_FILE, FinetuneFiles, finetune_files
from core.prompts import TEMPLATES

_EPILOG = """\
DIR gets result.json (the evaluation loss in nats, settings, versions, timings), losses.parquet (a row for each output
of EVAL: row, loss_nats, n_tokens, reason), curve.jsonl (a line for each optimiser step) and, with --keep-adapter, the
folder adapter. Rows of EVAL with the same instruction are several references of it. After a crash or Ctrl-C the same
command goes on from the last checkpoint; --restart begins anew and replaces a result that is there.
"""
_HELP = {
    "revision": "commit, tag or digest of the base",
    "device": "cpu, cuda or cuda:N",
    "precision": "how the frozen base is kept",
    "template": "the prompt that rows are put into",
    "max_length": "longest text in tokens; a longer response is cut",
    "epochs": "how often each row is trained on",
    "max_steps": "end training after so many optimiser steps; 0: as many as the epochs have",
    "batch_size": "rows of one optimiser step",
    "micro_batch_size": "rows in memory at once; 0: all of the batch, fewer if memory runs out",
    "learning_rate": "at its highest",
    "schedule": "of the learning rate",
    "warmup_ratio": "share of the steps in which the learning rate rises",
    "weight_decay": "of AdamW",
    "max_grad_norm": "longer gradients are scaled down to this; 0: never",
    "lora_r": "rank of the adapter",
    "lora_alpha": "the adapter's scale is alpha / rank",
    "lora_dropout": "of the adapter's input",
    "lora_targets": "layers that get an adapter",
    "grouped": "put rows of similar length into one batch",
    "gradient_checkpointing": "less memory, more time",
    "checkpoint_steps": "optimiser steps between two checkpoints; 0: none",
    "keep_adapter": "keep the adapter in DIR/adapter",
}
_CHOICES = {"precision": PRECISIONS, "template": TEMPLATES, "schedule": SCHEDULES, "lora_targets": TARGETS}


def add(commands: Any) -> None:
    """Add the command to the subparsers of ``python -m core``."""
    finetune = commands.add_parser(
        "finetune",
        help="finetune a base on the rows of a file and evaluate it",
        description="Train a LoRA adapter on the rows of a file and evaluate it on those of another.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    finetune.add_argument("train", type=Path, metavar="TRAIN", help="file of rows to train on")
    finetune.add_argument("--eval", type=Path, required=True, metavar="EVAL", help="file of rows to evaluate on")
    finetune.add_argument("--base", required=True, metavar="MODEL", help="causal language model: hub id or folder")
    finetune.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the result")
    finetune.add_argument("--seed", type=int, default=0, help="of adapter, dropout and order (default 0)")
    finetune.add_argument("--mapping", metavar="M", help="instruction=COLUMN,output=COLUMN[,input=COLUMN] of TRAIN")
    finetune.add_argument("--eval-mapping", metavar="M", help="the same of EVAL")
    finetune.add_argument("--restart", action="store_true", help="begin anew, and replace a result that is there")
    for field in dataclasses.fields(FinetuneSettings):
        if field.name != "base":
            _add_setting(finetune, field)
    finetune.set_defaults(run=run)


def _add_setting(parser: argparse.ArgumentParser, field: dataclasses.Field[Any]) -> None:
    option = f"--{field.name.replace('_', '-')}"
    text = _HELP[field.name]
    if isinstance(field.default, bool):
        parser.add_argument(option, action=argparse.BooleanOptionalAction, default=field.default, help=text)
        return
    kind = str if field.default is None else type(field.default)
    shown = "" if field.default is None else f" (default {field.default})"
    parser.add_argument(
        option, type=kind, default=field.default, choices=_CHOICES.get(field.name), help=f"{text}{shown}"
    )


def run(arguments: argparse.Namespace) -> int:
    """Do the command; return the exit code.

    Raises:
        SettingsError: the arguments do not fit together.
    """
    settings = FinetuneSettings(
        **{field.name: getattr(arguments, field.name) for field in dataclasses.fields(FinetuneSettings)}
    )
    asked = FinetuneFiles(
        train=arguments.train,
        evaluation=arguments.eval,
        out=arguments.out,
        settings=settings,
        seed=arguments.seed,
        mapping=column_mapping("--mapping", arguments.mapping),
        evaluation_mapping=column_mapping("--eval-mapping", arguments.eval_mapping),
        restart=arguments.restart,
    )
    line = ProgressLine(sys.stderr)
    began = time.monotonic()

    def finetune() -> str:
        result, values = finetune_files(asked, report=_Steps(line).show, note=lambda text: line.show(text, now=True))
        refused = values["train"]["n_refused"] + values["eval"]["n_refused"]
        skipped = result.details.get("n_train_rows_skipped", 0)
        told = [f"{refused:,} rows could not be read"] if refused else []
        repeated = values["eval"]["n_repeated"]
        told += [f"{repeated:,} outputs stand twice and count once"] if repeated else []
        told += [f"{skipped:,} rows had nothing to train on"] if skipped else []
        told += [f"{result.n_null:,} outputs have no loss (see {LOSSES_FILE})"] if result.n_null else []
        if result.outcome != "done":
            raise JobError(f"The run {result.outcome}: {result.reason} What is known of it stands in {asked.out}.")
        return (
            f"{asked.out}: evaluation loss {result.loss_nats:.6f} nats over {len(result.losses):,} outputs"
            f"{''.join('; ' + one for one in told)}. {duration(time.monotonic() - began)}."
        )

    return guarded(finetune, doing="The finetune", line=line)


class _Steps:
    """Shows how far training is."""

    def __init__(self, line: ProgressLine) -> None:
        self._line = line
        self._first: tuple[float, int] | None = None

    def show(self, point: CurvePoint, n_steps: int) -> None:
        now = time.monotonic()
        first_at, first = self._first = self._first or (now, point.step)
        loss = "" if point.loss_nats is None else f", loss {point.loss_nats:.4f}"
        left = ""
        if point.step > first:
            left = f", {duration((now - first_at) / (point.step - first) * (n_steps - point.step))} left"
        what = "Evaluating" if point.step == n_steps else "Training"
        self._line.show(f"{what}: step {point.step:,} of {n_steps:,}{loss}{left}", now=point.step == n_steps)
