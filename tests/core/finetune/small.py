"""Rows and settings for runs of about a second on a tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.example import Example
from core.finetune.settings import FinetuneSettings

ROWS = [
    Example(f"Say number {i}", "aloud" if i % 5 == 0 else "", f"It is {i}, its square {i * i}" + " so" * (i % 7))
    for i in range(40)
]
EVALUATION = [(100 + i, Example(f"Say number {i}", "", f"It is {i}, its square {i * i}")) for i in range(50, 58)]


def settings(base: Path, **changes: Any) -> FinetuneSettings:
    values: dict[str, Any] = {
        "precision": "fp32",
        "max_length": 512,
        "epochs": 1.0,
        "learning_rate": 1e-2,
        "checkpoint_steps": 0,
        "lora_targets": "all-linear",
    }
    return FinetuneSettings(base=str(base), **(values | changes))
