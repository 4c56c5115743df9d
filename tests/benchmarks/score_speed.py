"""How fast a student scores, against the released script's algorithm in the same run. Measured, never asserted.

    python -m tests.benchmarks.score_speed [--models 15m,125m] [--dtypes float32,bfloat16] [--rows 100] [--threads 1]

The baseline is METHOD.md, section 2, as the released script of Selective Reflection-Tuning does it: for every row and
loss one forward of batch 1 in float32, logits at every position, hidden states kept. The models are Llamas of 15 and of
125 million parameters with random weights and 32,000 words, made on the spot; ``--student FOLDER`` takes another.

The floor is the time that the arithmetic alone would take: 2 operations per token and weight of the layers, and per
scored token and weight of the head, over the rate of matrix products measured here. Each side is run ``--repeats``
times and its fastest run counts, because the machine may have other work to do.
"""

from __future__ import annotations

import argparse
import functools
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from core.example import Example
from core.lm import LOSS_KEYS, Loss, Student, StudentSettings
from core.models import load_config, load_tokenizer, load_weights, locate
from core.prompts import forward_prompt, reverse_prompt
from core.spans import Span

SHARED = Path(__file__).parents[2] / "../shared/data"
WORDS = 32_000
SHAPES: dict[str, dict[str, int]] = {
    "15m": {"hidden_size": 288, "num_hidden_layers": 6, "num_attention_heads": 6, "intermediate_size": 768},
    "125m": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 2560},
}


def make_tokenizer(texts: Iterator[str]) -> Any:
    """A byte-level tokenizer of ``WORDS`` words that adds BOS, trained on the texts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=WORDS,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>")


def make_model(folder: Path, shape: dict[str, int], *, texts: Iterator[str]) -> Path:
    """Save a random Llama of this shape with a tokenizer trained on the texts."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    make_tokenizer(texts).save_pretrained(folder)
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=WORDS, max_position_embeddings=2048, tie_word_embeddings=True, **shape)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(2.0)  # so that contexts matter
    model.save_pretrained(folder)
    return folder


def texts_of(examples: list[Example]) -> Iterator[str]:
    """All texts of the rows."""
    return (text for one in examples for text in (one.instruction, one.input, one.output) if text)


def baseline_losses(model: Any, tokenizer: Any, example: Example, *, max_length: int) -> dict[str, float | None]:
    """The four losses of one example: batch 1, full logits, hidden states kept."""
    import torch

    def loss(ids: list[int], start: int) -> float | None:
        if len(ids) <= max(start, 1):
            return None
        batch = torch.tensor([ids], device=model.device)
        labels = batch.clone()
        labels[0, :start] = -100
        with torch.no_grad():
            return float(model(input_ids=batch, labels=labels, output_hidden_states=True).loss)

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


def matrix_rate(dtype: str, *, inner: int, outer: int) -> float:
    """Operations a second of a product [2048, inner] × [inner, outer] by the fastest path of this machine."""
    import torch

    from core.fast_linear import linear

    rows = torch.randn(2048, inner).to(getattr(torch, dtype))
    weight = torch.randn(outer, inner).to(getattr(torch, dtype))
    with torch.inference_mode():
        seconds = min(_timed(lambda: linear(rows, weight))[1] for _ in range(10))
    return 2 * 2048 * inner * outer / seconds


def _timed(act: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    found = act()
    return found, time.perf_counter() - started


def rows_of(path: Path) -> list[Example]:
    data = json.loads(path.read_text(encoding="utf-8"))
    return [Example(row["instruction"], row.get("input", ""), row["output"]) for row in data if row["output"]]


def floor_operations(student: Student, examples: list[Example]) -> float:
    """Operations of every token of every text through the layers, and through the head where it is scored.

    What is gained by sharing the beginning of prompts counts as reached, too.
    """
    model: Any = student._model
    head = model.get_output_embeddings().weight.numel()
    layers = sum(p.numel() for name, p in model.base_model.named_parameters() if "embed" not in name and p.ndim == 2)
    spans = {s for row in student.prepare(examples).spans for s in row.values() if isinstance(s, Span)}
    return 2.0 * sum((len(s.ids) - 1) * layers + s.n_tokens * head for s in spans)


def worst_difference(scores: list[dict[str, Loss]], expected: list[dict[str, float | None]]) -> float:
    worst = 0.0
    for got, wanted in zip(scores, expected, strict=True):
        for key in LOSS_KEYS:
            one, other = got[key].loss_nats, wanted[key]
            assert (one is None) == (other is None), (key, got[key])
            worst = max(worst, abs((one or 0.0) - (other or 0.0)))
    return worst


def measure(folder: str, dtypes: list[str], examples: list[Example], *, repeats: int, batch_tokens: int) -> None:
    """Print the table of one model."""
    located = locate(folder)
    tokenizer: Any = load_tokenizer(located)
    plain: Any = load_weights(located, load_config(located), dtype="float32", device="cpu")
    sides: dict[str, Callable[[], Any]] = {
        "baseline": lambda: [baseline_losses(plain, tokenizer, one, max_length=1024) for one in examples]
    }
    best: dict[str, float] = {}
    scores: dict[str, Any] = {}
    students: dict[str, Student] = {}
    for name in ("baseline", *dtypes):  # a student's way with memory would help the baseline too, so that comes first
        if name != "baseline":
            students[name] = Student.load(StudentSettings(folder, dtype=name, batch_tokens=batch_tokens))
            sides[name] = functools.partial(students[name].score, examples)
        for _ in range(repeats):
            if name != "baseline":
                students[name].encoder.forget()
            scores[name], seconds = _timed(sides[name])
            best[name] = min(seconds, best.get(name, seconds))
    size = plain.config.hidden_size
    print(f"{'':>10} {'rows/s':>9} {'ratio':>7} {'worst loss':>11} {'GFLOP/s':>9} {'of the floor':>13}")
    print(f"{'baseline':>10} {len(examples) / best['baseline']:9.2f} {1.0:7.2f}")
    for dtype, student in students.items():
        rate = matrix_rate(dtype, inner=size, outer=4 * size)
        floor = floor_operations(student, examples) / rate
        print(
            f"{dtype:>10} {len(examples) / best[dtype]:9.2f} {best['baseline'] / best[dtype]:7.2f} "
            f"{worst_difference(scores[dtype], scores['baseline']):11.1e} {rate / 1e9:9.0f} "
            f"{100 * floor / best[dtype]:12.0f}%",
            flush=True,
        )


def main() -> None:
    """Print one table for each model."""
    import torch

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, default=SHARED / "cherry_alpaca_5_percent.json")
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--models", default="15m,125m")
    parser.add_argument("--student", help="a model folder or hub id instead of the made ones")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch-tokens", type=int, default=8192)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    everything = rows_of(args.data)
    examples = random.Random(0).sample(everything, min(args.rows, len(everything)))
    options = {"repeats": args.repeats, "batch_tokens": args.batch_tokens}
    with tempfile.TemporaryDirectory() as scratch:
        for name in [args.student] if args.student else args.models.split(","):
            folder = name
            if not args.student:
                folder = str(make_model(Path(scratch) / name, SHAPES[name], texts=texts_of(everything)))
            print(f"\n{name}, {len(examples)} rows of {args.data.name}, four losses a row, {args.threads} thread(s)")
            measure(folder, args.dtypes.split(","), examples, **options)


if __name__ == "__main__":
    main()
