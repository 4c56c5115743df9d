"""Train the demo student: a Llama of about three million parameters, from scratch, on a CPU, in minutes.

    python -m core.demo.train_student OUT --instructions gsm8k.json user_oriented_instructions.jsonl \\
        --mt-bench question.jsonl reference.jsonl

The row files are given by the user and are not part of the project; docstrings come from the Python installation that
runs the script, so another installation gives a slightly different student. ``OUT/README.md`` (the model card) is
written by hand; this script prints the numbers for it and leaves them in ``OUT/training.json``.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from core.demo.everyday import Row
from core.demo.student_rows import training_rows
from core.example import Example
from core.prompts import forward_prompt, reverse_prompt

if TYPE_CHECKING:
    import torch

BOS, EOS, UNK = "<s>", "</s>", "<unk>"
VOCABULARY = 4096
MAX_POSITIONS = 2048
HELD_OUT = 0.02
WIDTH_STEP = 16
POSITIONS_STEP = 256
# How often a row is shown in which form; the rest is plain text, so that the losses without context mean something.
FORMS = {"alpaca": 0.46, "reverse": 0.16, "response": 0.16, "instruction": 0.08, "vicuna": 0.07, "wizardlm": 0.07}
# Small sources that are shown more than once an epoch.
REPEATS = {"gsm8k_2k": 2, "user_oriented_instructions": 3, "mt_bench": 3}


@dataclass(frozen=True)
class Sequence:
    """Token ids of one training text; the loss is taken from token ``start`` on."""

    ids: list[int]
    start: int = 1


def train_tokenizer(texts: list[str]) -> object:
    """Train a byte-level BPE that adds BOS, and return it as a transformers tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[BOS, EOS, UNK], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(texts, trainer)
    bpe.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, bpe.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token=BOS, eos_token=EOS, unk_token=UNK, pad_token=EOS)


def new_model() -> torch.nn.Module:
    """Return an untrained Llama: 192 hidden, 5 layers, 6 heads, tied embeddings."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=5,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return LlamaForCausalLM(config)


def example_of(row: Row) -> Example:
    return Example(row["instruction"], row["input"], row["output"])


def text_in_form(row: Row, form: str) -> tuple[str, str]:
    """Return a row in one of ``FORMS``: the fixed words of the form before the row's first own text, and the rest."""
    example = example_of(row)
    asked = example.instruction + example.input
    if form in ("response", "instruction"):
        return "", example.output if form == "response" else asked
    if form == "reverse":
        prompt, own, target = reverse_prompt(example, template="alpaca"), example.output, asked
    else:
        prompt, own, target = forward_prompt(example, template=form), example.instruction, example.output
    fixed = prompt.index(own)
    return prompt[:fixed], prompt[fixed:] + target


def encode_all(tokenizer: object, texts: list[tuple[str, str]], *, longest: int = 512) -> list[Sequence]:
    """Token ids of the texts with EOS at the end, cut at ``longest`` tokens; the fixed words are not learnt."""
    eos = tokenizer.eos_token_id  # type: ignore[attr-defined]
    heads = tokenizer([fixed for fixed, _ in texts])["input_ids"]  # type: ignore[operator]
    whole = tokenizer([fixed + rest for fixed, rest in texts])["input_ids"]  # type: ignore[operator]
    return [Sequence([*ids, eos][:longest], len(head)) for head, ids in zip(heads, whole, strict=True)]


def batches_of(sequences: list[Sequence], *, tokens: int, r: random.Random) -> Iterator[list[Sequence]]:
    """Batches of like length under a budget of padded tokens, in random order."""
    order = sorted(sequences, key=lambda s: (len(s.ids), r.random()), reverse=True)
    batches, start = [], 0
    while start < len(order):
        stop = start + max(1, tokens // _rounded(len(order[start].ids) - 1, WIDTH_STEP))
        batches.append(order[start:stop])
        start = stop
    r.shuffle(batches)
    yield from batches


def _rounded(n: int, step: int) -> int:
    return -(-n // step) * step


def batch_loss(model: torch.nn.Module, batch: list[Sequence]) -> tuple[torch.Tensor, int]:
    """Summed loss in nats and number of scored tokens. Right padding needs no mask under causal attention.

    Width and number of scored positions are rounded up: bf16 kernels are compiled per shape, and with a new shape at
    every step compiling takes most of the time and gigabytes of memory.
    """
    import torch

    width = _rounded(max(len(s.ids) for s in batch) - 1, WIDTH_STEP)
    ids = torch.zeros((len(batch), width), dtype=torch.long)
    positions: list[int] = []
    targets: list[int] = []
    for row, s in enumerate(batch):
        ids[row, : len(s.ids) - 1] = torch.tensor(s.ids[:-1])
        positions.extend(range(row * width + s.start - 1, row * width + len(s.ids) - 1))
        targets.extend(s.ids[s.start :])
    n = len(targets)
    padding = _rounded(n, POSITIONS_STEP) - n
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state.flatten(0, 1)  # type: ignore[operator]
    chosen = hidden.index_select(0, torch.tensor(positions + [0] * padding))
    logits = model.lm_head(chosen).float()  # type: ignore[operator]
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(targets + [-100] * padding), reduction="sum")
    return loss, n


def mean_loss(model: torch.nn.Module, sequences: list[Sequence]) -> float:
    """Mean token loss in nats over held-out sequences, in float32."""
    import torch

    total, count = 0.0, 0
    with torch.inference_mode():
        for batch in batches_of(sequences, tokens=8192, r=random.Random(0)):
            loss, n = batch_loss(model, batch)
            total, count = total + float(loss), count + n
    return total / max(count, 1)


def _optimizers(model: torch.nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for the embedding and the norms: learns more from few tokens."""
    import torch

    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=1.5 * rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def train(
    model: torch.nn.Module, sequences: list[Sequence], *, epochs: int, tokens: int, rate: float, seed: int
) -> dict[str, float]:
    """Train for whole epochs: warm-up, flat, then linear to zero. Returns what was done."""
    import torch

    r = random.Random(seed)
    plan = [batch for _ in range(epochs) for batch in batches_of(sequences, tokens=tokens, r=r)]
    optimizers = _optimizers(model, rate)

    def share(step: int) -> float:
        return min(1.0, (step + 1) / 40, (len(plan) - step) / len(plan) / 0.6)

    schedules = [torch.optim.lr_scheduler.LambdaLR(optimizer, share) for optimizer in optimizers]
    started, seen, smoothed = time.monotonic(), 0, math.nan
    model.train()
    for step, batch in enumerate(plan, 1):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss, n = batch_loss(model, batch)
        (loss / n).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        model.zero_grad(set_to_none=True)
        value, seen = float(loss.detach()) / n, seen + n
        smoothed = value if math.isnan(smoothed) else 0.98 * smoothed + 0.02 * value
        if step % 50 == 0:
            print(f"step {step}/{len(plan)} scored tokens {seen:,} loss {smoothed:.3f} nats", flush=True)
    model.eval()
    seconds = round(time.monotonic() - started)
    return {"steps": len(plan), "tokens_learnt": seen, "seconds": seconds, "final_loss_nats": round(smoothed, 4)}


def held_out_report(
    model: torch.nn.Module, tokenizer: object, held: dict[str, list[Row]]
) -> dict[str, dict[str, float]]:
    """Mean loss of the response with and without its prompt, by source, on rows that were not trained on."""
    report = {}
    for source, rows in held.items():
        prompts = [forward_prompt(example_of(row), template="alpaca") for row in rows]
        asked = [(prompt, row["output"]) for prompt, row in zip(prompts, rows, strict=True)]
        given = encode_all(tokenizer, asked, longest=MAX_POSITIONS)
        alone = encode_all(tokenizer, [("", row["output"]) for row in rows], longest=MAX_POSITIONS)
        report[source] = {
            "rows": len(rows),
            "loss_y_given_x": round(mean_loss(model, given), 4),
            "loss_y": round(mean_loss(model, alone), 4),
        }
    return report


def _split(sources: dict[str, list[Row]], r: random.Random) -> tuple[dict[str, list[Row]], dict[str, list[Row]]]:
    kept, held = {}, {}
    for source, rows in sources.items():
        shuffled = r.sample(rows, len(rows))
        n = max(1, round(HELD_OUT * len(rows)))
        held[source], kept[source] = shuffled[:n], shuffled[n:]
    return kept, held


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("out", type=Path, help="folder for the student")
    parser.add_argument("--instructions", type=Path, nargs="*", default=[], help="row files (MIT or Apache-2.0)")
    parser.add_argument("--mt-bench", type=Path, nargs=2, metavar=("QUESTIONS", "ANSWERS"), default=(None, None))
    parser.add_argument("--docs", type=int, default=26000, help="rows out of docstrings")
    parser.add_argument("--everyday", type=int, default=18000, help="rows out of templates")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=20261120)
    return parser.parse_args()


def main() -> None:
    """Gather rows, train tokenizer and model, save both with a record of the run."""
    import torch

    args = _arguments()
    torch.manual_seed(args.seed)
    r = random.Random(args.seed)
    questions, answers = args.mt_bench
    sources = training_rows(
        instructions=args.instructions,
        questions=questions,
        answers=answers,
        docs=args.docs,
        everyday=args.everyday,
        seed=args.seed,
    )
    kept, held = _split(sources, r)
    texts = []
    for source, rows in kept.items():
        for row in rows * REPEATS.get(source, 1):
            texts.append(text_in_form(row, r.choices(list(FORMS), list(FORMS.values()))[0]))
    print({source: len(rows) for source, rows in kept.items()}, len(texts), "texts", flush=True)
    tokenizer = train_tokenizer([fixed + rest for fixed, rest in texts])
    sequences = [s for s in encode_all(tokenizer, texts) if len(s.ids) > s.start]
    model = new_model()
    size = sum(p.numel() for p in model.parameters())
    print(f"{size:,} parameters, {sum(len(s.ids) for s in sequences):,} tokens an epoch", flush=True)
    done = train(model, sequences, epochs=args.epochs, tokens=args.batch_tokens, rate=args.rate, seed=args.seed)
    record = {
        "parameters": size,
        "training_rows": {source: len(rows) for source, rows in kept.items()},
        "threads": torch.get_num_threads(),
        **done,
        "held_out": held_out_report(model, tokenizer, held),
    }
    args.out.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).save_pretrained(args.out)  # type: ignore[operator]
    tokenizer.save_pretrained(args.out)  # type: ignore[attr-defined]
    (args.out / "training.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
