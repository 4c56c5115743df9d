"""How fast a large student scores on a GPU, against the released script's algorithm there. Measured, never asserted.

    python -m tests.benchmarks.score_gpu [--rows 2048] [--baseline-rows 64] [--shape 7b] [--batch-tokens 16384]

A Llama of 7 billion parameters with random weights is built in bfloat16 on the device. The rows are Alpaca rows.
Printed are rows and tokens a second end to end (tokenising included), their ratio to the baseline (batch 1, full
logits, hidden states kept, the same dtype), the share of the measured rate of bfloat16 matrix products, the largest
difference of a loss, peak memory, and how long 52,000 such rows would take. ``--shape tiny --device cpu`` tries the
program itself.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path
from typing import Any

from core.lm import Student, StudentSettings
from core.spans import Span, TextEncoder
from tests.benchmarks.score_speed import (
    SHARED,
    WORDS,
    baseline_losses,
    floor_operations,
    make_tokenizer,
    rows_of,
    texts_of,
    worst_difference,
)

SHAPES: dict[str, dict[str, int]] = {
    "7b": {
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "intermediate_size": 11008,
    },
    "tiny": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "intermediate_size": 128,
    },
}
ALPACA_ROWS = 52_000


def matrix_rate(device: str) -> float:
    """Operations a second of a bfloat16 product of 8192 × 8192 matrices (1024 on a CPU)."""
    import torch

    n = 8192 if device.startswith("cuda") else 1024
    one, other = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        one @ other
    _wait(device)
    started = time.perf_counter()
    for _ in range(20):
        one @ other
    _wait(device)
    return 20 * 2 * n**3 / (time.perf_counter() - started)


def _wait(device: str) -> None:
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize()


def build(shape: str, *, device: str, tokenizer: Any, batch_tokens: int) -> Student:
    """A student of this shape with random weights, made on the device."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(vocab_size=WORDS, max_position_embeddings=4096, **SHAPES[shape])
    config.dtype = torch.bfloat16
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model = LlamaForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)
    settings = StudentSettings(shape, dtype="bfloat16", batch_tokens=batch_tokens, device=device)
    return Student(settings, tokenizer, TextEncoder(tokenizer), model)


def main() -> None:
    """Print the figures."""
    import torch

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, default=SHARED / "alpaca_random_9k.json")
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--baseline-rows", type=int, default=64)
    parser.add_argument("--shape", choices=SHAPES, default="7b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch-tokens", type=int, default=16384)
    parser.add_argument("--shard-rows", type=int, default=512)
    args = parser.parse_args()
    everything = rows_of(args.data)
    examples = random.Random(0).sample(everything, min(args.rows, len(everything)))
    tokenizer = make_tokenizer(texts_of(everything))
    student = build(args.shape, device=args.device, tokenizer=tokenizer, batch_tokens=args.batch_tokens)
    model: Any = student._model
    print(f"{sum(p.numel() for p in model.parameters()) / 1e9:.2f} billion parameters, {student._way}")
    student.score(examples[:64])  # kernels are chosen and loaded
    student.encoder.forget()
    if args.device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    _wait(args.device)
    started = time.perf_counter()
    scores = []
    for first in range(0, len(examples), args.shard_rows):
        scores += student.score(examples[first : first + args.shard_rows])
        student.encoder.forget()
    _wait(args.device)
    seconds = time.perf_counter() - started
    peak = torch.cuda.max_memory_allocated() / 2**30 if args.device.startswith("cuda") else float("nan")
    spans = {s for row in student.prepare(examples).spans for s in row.values() if isinstance(s, Span)}
    few = examples[: args.baseline_rows]
    baseline_losses(model, tokenizer, few[0], max_length=1024)
    _wait(args.device)
    started = time.perf_counter()
    expected = [baseline_losses(model, tokenizer, one, max_length=1024) for one in few]
    theirs = len(few) / (time.perf_counter() - started)
    ours = len(examples) / seconds
    rate, reached = matrix_rate(args.device), floor_operations(student, examples) / seconds
    print(f"ours      {ours:9.2f} rows/s  {sum(len(s.ids) for s in spans) / seconds:11,.0f} tokens/s")
    print(f"baseline  {theirs:9.2f} rows/s   ratio {ours / theirs:.1f}")
    print(f"matrix rate {rate / 1e12:.1f} TFLOP/s, reached {reached / 1e12:.1f}: {100 * reached / rate:.0f} %")
    print(f"largest difference of a loss {worst_difference(scores[: len(few)], expected):.1e} nats")
    print(f"peak memory {peak:.1f} GiB; {ALPACA_ROWS:,} such rows: {ALPACA_ROWS / ours / 60:.1f} minutes")


if __name__ == "__main__":
    main()
