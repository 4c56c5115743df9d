"""How fast a finetune trains, against TRL's SFTTrainer on the same rows, model and device. Measured, never asserted.

    python -m tests.benchmarks.finetune [--model 15m|demo] [--rows 160] [--repeats 3] [--threads 1] [--device cpu]

Both train the same LoRA adapter with batches of 8 for one epoch, loss on the responses, in one process, turn by turn;
the fastest of ``--repeats`` counts, because the machine may have other work to do, and ratios are also given by
processor time. Tokens are those of the rows, once,
without padding. Loading, tokenising and evaluating are not in the time of either side. Peak memory is that of a process
of its own for each side (on a GPU: of torch's allocator).

TRL's defaults are gradient checkpointing, bfloat16 autocast over float32 weights, and batches in random order, padded
to their longest row. So that the ratio can be judged, TRL is also run with these taken away, until it does what
ours does: the last ratio is what the loss, the linear layers and the order of the rows alone are worth.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.demo import sample_rows
from core.example import Example
from core.finetune.base import Base
from core.finetune.settings import FinetuneSettings
from core.prompts import forward_prompt
from tests.benchmarks.score_speed import SHAPES, SHARED, make_model, rows_of, texts_of

STUDENT = Path(__file__).parents[2] / "core/demo/student"
BATCH = 8
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "TRL, its defaults": {},
    "TRL, float32": {"bf16": False},
    "TRL, bfloat16, no checkpointing": {"gradient_checkpointing": False},
    "TRL, float32, no checkpointing": {"bf16": False, "gradient_checkpointing": False},
    "TRL, as ours: also by length": {
        "bf16": False,
        "gradient_checkpointing": False,
        "train_sampling_strategy": "group_by_length",
    },
}
OURS = ("ours, fp32", "ours, bf16")
Timed = tuple[float, float]
"""Seconds that passed, and seconds of processor time, which other work on the machine hardly changes."""


def settings_of(model: Path, *, device: str, precision: str, max_length: int) -> FinetuneSettings:
    return FinetuneSettings(
        base=str(model),
        device=device,
        precision=precision,
        epochs=1.0,
        max_length=max_length,
        batch_size=BATCH,
        checkpoint_steps=0,
        schedule="linear",
        warmup_ratio=0.0,
    )


def ours(model: Path, rows: Sequence[Example], *, precision: str, device: str, max_length: int) -> Timed:
    """Seconds of training; processor seconds of the whole run, tokenising and evaluating one row among it."""
    base = Base.load(settings_of(model, device=device, precision=precision, max_length=max_length))
    with tempfile.TemporaryDirectory() as work:
        began = time.process_time()
        result = base.run(rows, evaluation=[(0, rows[0])], seed=0, work=Path(work))
        on_cpu = time.process_time() - began
    assert result.outcome == "done", result.reason
    return result.details["seconds_training"], on_cpu


def trl(model: Path, rows: Sequence[Example], *, device: str, max_length: int, **changes: Any) -> Timed:
    """Seconds and processor seconds of SFTTrainer.train()."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
    from trl import SFTConfig, SFTTrainer

    set_seed(0)
    asked = settings_of(model, device=device, precision="fp32", max_length=max_length)
    data = Dataset.from_list(
        [{"prompt": forward_prompt(one, template="alpaca"), "completion": one.output} for one in rows]
    )
    with tempfile.TemporaryDirectory() as work:
        trainer = SFTTrainer(
            model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).to(device),
            args=SFTConfig(
                output_dir=work,
                per_device_train_batch_size=BATCH,
                num_train_epochs=1,
                max_length=max_length,
                learning_rate=asked.learning_rate,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                use_cpu=device == "cpu",
                **changes,
            ),
            train_dataset=data,
            processing_class=AutoTokenizer.from_pretrained(model),
            peft_config=LoraConfig(
                task_type="CAUSAL_LM",
                r=asked.lora_r,
                lora_alpha=asked.lora_alpha,
                lora_dropout=asked.lora_dropout,
                target_modules=["q_proj", "v_proj"],
            ),
        )
        began, on_cpu = time.perf_counter(), time.process_time()
        trainer.train()
        if device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - began, time.process_time() - on_cpu


def seconds_of(name: str, model: Path, rows: Sequence[Example], *, device: str, max_length: int) -> Timed:
    if name in OURS:
        return ours(model, rows, precision=name.split()[-1], device=device, max_length=max_length)
    return trl(model, rows, device=device, max_length=max_length, **VARIANTS[name])


def _in_process(queue: Any, name: str, model: Path, rows: Sequence[Example], threads: int, options: Any) -> None:
    import resource

    import torch

    _quiet()
    torch.set_num_threads(threads)
    seconds_of(name, model, rows, **options)
    on_gpu = torch.cuda.is_available() and options["device"] != "cpu"
    queue.put(
        torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )


def peak_bytes(name: str, model: Path, rows: Sequence[Example], *, threads: int, **options: Any) -> int:
    """The most memory of a process that does nothing else; the libraries alone take about 0.7 GB of it."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_in_process, args=(queue, name, model, rows, threads, options))
    process.start()
    found: int = queue.get()
    process.join()
    return found


def _quiet() -> None:
    import os
    import warnings

    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)


def _rows(n: int) -> tuple[list[Example], str]:
    path = SHARED / "alpaca_random_9k.json"
    if path.is_file():
        return rows_of(path)[:n], path.name
    rows = [row.example for row in sample_rows()]
    return (rows * (1 + n // len(rows)))[:n], "the bundled sample"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=[*SHAPES, "demo"], default="15m")
    parser.add_argument("--rows", type=int, default=160)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--max-length", type=int, default=1024)
    parser.add_argument("--no-memory", action="store_true", help="leave the processes that measure memory away")
    arguments = parser.parse_args()
    import torch

    _quiet()
    torch.set_num_threads(arguments.threads)
    rows, source = _rows(arguments.rows)
    folder = Path(tempfile.mkdtemp())
    max_length = arguments.max_length if arguments.model != "demo" else min(arguments.max_length, 512)
    try:
        model = STUDENT
        if arguments.model != "demo":
            model = make_model(folder / "model", SHAPES[arguments.model], texts=texts_of(rows))
        names = [*OURS, *VARIANTS]
        options = {"device": arguments.device, "max_length": max_length}
        n_tokens = _n_tokens(model, rows, max_length=max_length)
        ours(model, rows[: 2 * BATCH], precision="fp32", **options)  # whatever is slow the first time
        seconds: dict[str, list[Timed]] = {name: [] for name in names}
        for _ in range(arguments.repeats):
            for name in names:
                seconds[name].append(seconds_of(name, model, rows, **options))
                print(name, *(round(one, 2) for one in seconds[name][-1]), flush=True)
        peaks = {
            name: None if arguments.no_memory else peak_bytes(name, model, rows, threads=arguments.threads, **options)
            for name in names
        }
    finally:
        shutil.rmtree(folder)
    print(f"{len(rows)} rows of {source}, {n_tokens:,} tokens, model {arguments.model}, {arguments.device}")
    report(seconds, peaks, n_tokens=n_tokens)


def _n_tokens(model: Path, rows: Sequence[Example], *, max_length: int) -> int:
    from core.finetune.texts import RowEncoder
    from core.models import load_tokenizer, locate
    from core.spans import TextEncoder

    encoder = TextEncoder(load_tokenizer(locate(str(model))))
    return RowEncoder(encoder, template="alpaca", max_length=max_length).rows(rows).n_tokens


def report(seconds: Mapping[str, Sequence[Timed]], peaks: Mapping[str, int | None], *, n_tokens: int) -> None:
    """Print a table: tokens a second, how many times faster ours is (also by processor time), memory."""
    best = {name: (min(one[0] for one in found), min(one[1] for one in found)) for name, found in seconds.items()}
    columns = [f"{ours_.split()[-1]} / it{by}" for by in ("", " CPU") for ours_ in OURS]
    print(f"{'':34}{'tokens/s':>10}{''.join(f'{one:>15}' for one in columns)}{'peak GB':>9}")
    for name, one in best.items():
        ratios = "".join(f"{one[by] / best[ours_][by]:>14.2f}x" for by in (0, 1) for ours_ in OURS)
        peak = peaks[name]
        print(f"{name:34}{n_tokens / one[0]:>10,.0f}{ratios}{'' if peak is None else f'{peak / 1e9:>9.2f}'}")
    print(json.dumps({name: [[round(x, 2) for x in one] for one in found] for name, found in seconds.items()}))


if __name__ == "__main__":
    main()
