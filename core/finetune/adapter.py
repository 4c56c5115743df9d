"""A LoRA adapter on a frozen base: which layers it changes, how it is put on, and how it is taken off again."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from core.errors import ModelError

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from core.finetune.settings import FinetuneSettings

ALL_LINEAR = "all-linear"


def lora_targets(model: PreTrainedModel, targets: str) -> tuple[list[str] | str, str | None]:
    """The layers that get an adapter, as peft wants them named, and a note where they are not those asked for.

    ``attention``: query and value projections, by peft's own table of model types; a type that it does not know gets an
    adapter on every linear layer but the head.
    """
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as KNOWN

    if targets == ALL_LINEAR:
        return ALL_LINEAR, None
    kinds = [model.config.model_type, model.config.get_text_config().model_type]
    names = next((KNOWN[kind] for kind in kinds if isinstance(KNOWN.get(kind), list)), None)
    ends = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    if names is None or not ends & set(names):
        return ALL_LINEAR, (
            f"peft does not name the query and value projections of a {kinds[0]} model, so every linear layer but the "
            "head gets an adapter."
        )
    return list(names), None


@contextmanager
def adapted(model: PreTrainedModel, settings: FinetuneSettings) -> Iterator[PeftModel]:
    """Inside, the base carries a new adapter, drawn from torch's generator; after it the base is as it was.

    Raises:
        ModelError: peft cannot put an adapter on this model.
    """
    from peft import LoraConfig, get_peft_model

    targets, _ = lora_targets(model, settings.lora_targets)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=targets,
        bias="none",
    )
    with warnings.catch_warnings():  # such as that fan_in_fan_out was set, which a Conv1D needs
        warnings.simplefilter("ignore")
        try:
            peft = get_peft_model(model, config)
        except (ValueError, TypeError, NotImplementedError) as error:
            raise ModelError(f"No adapter can be put on {settings.base}: {error}") from error
    try:
        yield peft
    finally:
        peft.base_model.unload()
        if hasattr(model, "peft_config"):
            del model.peft_config
