"""A tiny random model for every role, made on the spot."""

from __future__ import annotations

from pathlib import Path

from core.embedding import EmbedderSettings
from core.lm import StudentSettings
from core.reward import RewardSettings
from core.scoring import Models
from core.unieval import UniEvalSettings
from tests.core import tiny_embedder, tiny_models, tiny_reward, tiny_unieval


def save(folder: Path) -> Models:
    """Save a Llama, a DeBERTa reward model, a T5 and a MiniLM-like embedder; return their settings."""
    return Models(
        student=StudentSettings(str(tiny_models.save(folder / "llama", "llama"))),
        reward=RewardSettings(str(tiny_reward.save(folder / "deberta", "deberta-v2")), max_length=128),
        unieval=UniEvalSettings(str(tiny_unieval.save(folder / "t5")), max_length=256),
        embedder=EmbedderSettings(str(_embedder(folder / "minilm"))),
    )


def _embedder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return tiny_embedder.save(folder)
