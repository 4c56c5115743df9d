"""The student of the study benchmark: a Llama of three million parameters, trained from scratch on held-apart rows."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.demo.student_rows import Row
from core.demo.train_student import encode_all, new_model, text_in_form, train, train_tokenizer
from core.example import Example

FORMS = {"response": 0.4, "instruction": 0.15, "alpaca": 0.3, "reverse": 0.15}
"""How often a row is shown in which form. Mostly plain text: a base model, not one that is finetuned already."""


def student_at(folder: Path, rows: Sequence[Example], *, epochs: int, seed: int) -> dict[str, Any]:
    """Train and save the student unless it lies there; ``epochs`` 0: random weights. Returns the record."""
    import torch

    record = folder / "training.json"
    if record.exists():
        return dict(json.loads(record.read_text(encoding="utf-8")))
    torch.manual_seed(seed)
    r = random.Random(seed)
    made: list[Row] = [{"instruction": row.instruction, "input": row.input, "output": row.output} for row in rows]
    texts = [text_in_form(row, r.choices(list(FORMS), list(FORMS.values()))[0]) for row in made]
    tokenizer = train_tokenizer([fixed + rest for fixed, rest in texts])
    sequences = [one for one in encode_all(tokenizer, texts) if len(one.ids) > one.start]
    model = new_model()
    done: dict[str, Any] = {"steps": 0, "tokens_learnt": 0, "seconds": 0}
    if epochs:
        done = dict(train(model, sequences, epochs=epochs, tokens=2048, rate=3e-3, seed=seed))
    found = {
        "rows": len(rows),
        "tokens_an_epoch": sum(len(one.ids) for one in sequences),
        "epochs": epochs,
        "parameters": sum(one.numel() for one in model.parameters()),
        **done,
    }
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)  # type: ignore[operator]
    tokenizer.save_pretrained(folder)  # type: ignore[attr-defined]
    record.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")  # last: it proves that all is there
    return found
