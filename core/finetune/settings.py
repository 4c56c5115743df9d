"""What a finetune is asked to do: every hyper-parameter, JSON-able, checked before anything is loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.errors import SettingsError
from core.prompts import TEMPLATES

PRECISIONS = ("int8", "nf4", "bf16", "fp32")
"""How the frozen base is kept: 8-bit or 4-bit NormalFloat by bitsandbytes, bfloat16 or float32."""

SCHEDULES = ("linear", "cosine", "constant", "constant_with_warmup")
TARGETS = ("attention", "all-linear")
"""Which layers get an adapter: query and value projections (LoRA's own choice), or every linear layer but the head."""


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings:
    """One training setting S [IM]: the same for all runs of a study, so that only the data differ.

    The defaults are the paper's where it says (8-bit base, LoRA, 3 epochs, batch 8, loss on response tokens alone);
    learning rate, schedule and LoRA's numbers, which it does not give, are those of Alpaca-LoRA.

    ``base`` hub id or folder of a causal language model; ``revision`` as of :class:`core.lm.StudentSettings`
    ``max_length`` longest text in tokens: the response's tail is cut, the prompt never
    ``batch_size`` rows of one optimiser step, of which ``micro_batch_size`` (0: all) are in memory at once
    ``max_steps`` ends training early; 0: as many as the epochs have
    ``checkpoint_steps`` optimiser steps between two checkpoints, from which a killed run goes on; 0: none
    ``grouped`` puts rows of similar length into one batch (less padding; the order still differs with each epoch)

    Raises:
        SettingsError: a value is out of its range; the message names it.
    """

    base: str
    revision: str | None = None
    device: str = "cpu"
    precision: str = "int8"
    template: str = "alpaca"
    max_length: int = 1024
    epochs: float = 3.0
    max_steps: int = 0
    batch_size: int = 8
    micro_batch_size: int = 0
    learning_rate: float = 3e-4
    schedule: str = "cosine"
    warmup_ratio: float = 0.03
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    lora_r: int = 8
    lora_alpha: int = 16
    lora_dropout: float = 0.05
    lora_targets: str = "attention"
    grouped: bool = True
    gradient_checkpointing: bool = False
    checkpoint_steps: int = 50
    keep_adapter: bool = False

    def __post_init__(self) -> None:
        for field, choices in (
            ("precision", PRECISIONS),
            ("template", TEMPLATES),
            ("schedule", SCHEDULES),
            ("lora_targets", TARGETS),
        ):
            if getattr(self, field) not in choices:
                raise SettingsError(f"{field} is {getattr(self, field)!r}; choose one of {', '.join(choices)}.")
        if not self.base.strip():
            raise SettingsError("The base model has no name; give a hub id or a folder.")
        if self.device != "cpu" and not self.device.startswith("cuda"):
            raise SettingsError(f"device is {self.device!r}; choose cpu, cuda or cuda:N.")
        for field, least in (
            ("max_length", 2),
            ("batch_size", 1),
            ("micro_batch_size", 0),
            ("max_steps", 0),
            ("lora_r", 1),
            ("lora_alpha", 1),
            ("checkpoint_steps", 0),
        ):
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise SettingsError(f"{field} is {value!r}; give a whole number of {least} or more.")
        for field, low, high in (
            ("epochs", 0.0, 1000.0),
            ("learning_rate", 0.0, 10.0),
            ("warmup_ratio", 0.0, 1.0),
            ("weight_decay", 0.0, 10.0),
            ("max_grad_norm", 0.0, 1e6),
            ("lora_dropout", 0.0, 0.99),
        ):
            value = getattr(self, field)
            if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
                raise SettingsError(f"{field} is {value!r}; give a number from {low:g} to {high:g}.")
        if self.epochs == 0 and self.max_steps == 0:
            raise SettingsError("epochs is 0 and max_steps is 0, so nothing would be trained; raise one of them.")
        if self.micro_batch_size and self.batch_size % self.micro_batch_size:
            raise SettingsError(
                f"micro_batch_size is {self.micro_batch_size}, which does not divide batch_size {self.batch_size}."
            )

    def to_params(self) -> dict[str, Any]:
        """JSON-able fields."""
        return dataclasses.asdict(self)

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> FinetuneSettings:
        """Read what :meth:`to_params` gave.

        Raises:
            SettingsError: a field is unknown or out of its range, or there is no base.
        """
        unknown = set(params) - {field.name for field in dataclasses.fields(cls)}
        if unknown or "base" not in params:
            raise SettingsError(
                f"The finetune settings have {', '.join(sorted(unknown))}, which this version does not know."
                if unknown
                else "The finetune settings name no base model."
            )
        return cls(**params)


def paper_preset(base: str, *, device: str = "cpu") -> FinetuneSettings:
    """The paper's setting [IM] on this base."""
    return FinetuneSettings(base=base, device=device)


def sample_preset(base: str) -> FinetuneSettings:
    """For the bundled demo student on a CPU: float32, one epoch, so that a run takes seconds."""
    return FinetuneSettings(
        base=base, precision="fp32", max_length=512, epochs=1.0, learning_rate=1e-3, lora_targets="all-linear"
    )
