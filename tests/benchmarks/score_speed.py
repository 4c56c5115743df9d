"""How fast a student scores, against one row at a time with all logits. Measured, never asserted.

    python -m tests.benchmarks.score_speed [--data rows.json] [--rows 400] [--student FOLDER] [--batch-tokens 8192]

The baseline is METHOD.md, section 2, written down in the plainest way: for every row and loss one forward of batch 1
whose logits are computed at every position. Both sides use as many threads as torch is given (OMP_NUM_THREADS).
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path
from typing import Any

from core.example import Example
from core.lm import LOSS_KEYS, Student, StudentSettings
from core.models import load_config, load_weights, locate
from core.prompts import forward_prompt, reverse_prompt
from core.scoring import DEMO_STUDENT, score_examples

SHARED_ROWS = Path(__file__).parents[2] / "../shared/data/alpaca_random_9k.json"
SHARD_ROWS = 512


def baseline_losses(model: Any, tokenizer: Any, example: Example, *, max_length: int) -> dict[str, float | None]:
    """The four losses of one example, batch 1, full logits."""
    import torch

    def loss(ids: list[int], start: int) -> float | None:
        if len(ids) <= max(start, 1):
            return None
        batch = torch.tensor([ids])
        labels = batch.clone()
        labels[0, :start] = -100
        with torch.no_grad():
            return float(model(input_ids=batch, labels=labels).loss)

    asked = example.instruction + example.input
    found: dict[str, float | None] = {}
    for name, prompt, target in (
        ("y", forward_prompt(example, template="alpaca"), example.output),
        ("x", reverse_prompt(example, template="alpaca"), asked),
    ):
        other = "x" if name == "y" else "y"
        start = len(tokenizer.encode(prompt))
        found[f"loss_{name}_given_{other}"] = loss(tokenizer.encode(prompt + target)[:max_length], start)
        found[f"loss_{name}"] = loss(tokenizer.encode(target)[: max(0, max_length - start + 1)], 0)
    return found


def _rows(path: Path, count: int) -> list[Example]:
    data = json.loads(path.read_text(encoding="utf-8"))
    examples = [Example(row["instruction"], row.get("input", ""), row["output"]) for row in data if row["output"]]
    return random.Random(0).sample(examples, min(count, len(examples)))


def main() -> None:
    """Print rows a second of both sides, their ratio and the largest difference of a loss."""
    import torch

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, default=SHARED_ROWS)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--baseline-rows", type=int, default=100)
    parser.add_argument("--student", default=str(DEMO_STUDENT))
    parser.add_argument("--batch-tokens", type=int, default=8192)
    args = parser.parse_args()

    student = Student.load(StudentSettings(args.student, batch_tokens=args.batch_tokens))
    examples = _rows(args.data, args.rows)
    started = time.perf_counter()
    scores = []
    for first in range(0, len(examples), SHARD_ROWS):
        scores += score_examples(
            examples[first : first + SHARD_ROWS], indicators=("length", "mtld", "ifd", "r_ifd"), student=student
        )
    ours = len(examples) / (time.perf_counter() - started)

    few = examples[: args.baseline_rows]
    located = locate(args.student)
    plain = load_weights(located, load_config(located), dtype="float32", device="cpu")
    started = time.perf_counter()
    expected = [baseline_losses(plain, student.tokenizer, one, max_length=1024) for one in few]
    theirs = len(few) / (time.perf_counter() - started)
    worst = 0.0
    for got, wanted in zip(scores, expected, strict=False):
        for key in LOSS_KEYS:
            one, other = got[key].value, wanted[key]
            assert (one is None) == (other is None), (key, got[key])
            worst = max(worst, abs((one or 0.0) - (other or 0.0)))
    print(f"threads {torch.get_num_threads()}, rows {len(examples)}, four losses, length and MTLD a row")
    print(f"batched  {ours:8.1f} rows/s")
    print(f"baseline {theirs:8.1f} rows/s (losses only)")
    print(f"ratio    {ours / theirs:8.1f}")
    print(f"largest difference of a loss {worst:.2e} nats")


if __name__ == "__main__":
    main()
