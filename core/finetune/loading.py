"""The base model of a finetune: loaded once, in 8-bit, 4-bit or plain, frozen, and ready for one adapter after another.

Activations are bfloat16 on a GPU and float32 on a CPU (``bf16``: bfloat16 on both), and no float16 is used but within
bitsandbytes' own 8-bit product. Deviation from QLoRA's usual preparation (peft's ``prepare_model_for_kbit_training``):
that casts whatever is not quantised to float32, after which all activations are float32 and flash attention is lost. On
a CPU they are float32 here too; on a GPU they stay bfloat16, and norms compute in float32 by their own code. Adapters
are float32.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from core.errors import ModelError
from core.fast_linear import keep_freed_memory, linear, onednn_available
from core.models import (
    load_config,
    load_tokenizer,
    load_weights,
    locate,
    max_positions,
    quiet_transformers,
    torch_device,
)
from core.prompts import CHAT
from core.spans import TextEncoder

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from core.finetune.settings import FinetuneSettings
    from core.models import Located

_PROBE_TEXT = "The quick brown fox 123"


def load(settings: FinetuneSettings) -> tuple[str, PreTrainedTokenizerBase, PreTrainedModel]:
    """Find and load the base: the revision that was loaded, tokenizer and frozen model.

    Raises:
        ModelError: it cannot be found or loaded, or does not do for these settings; the message says what to change.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # peft imports it too, for whatever precision
    located = locate(settings.base, settings.revision)
    config = load_config(located)
    limit = max_positions(config)
    if limit is not None and settings.max_length > limit:
        raise ModelError(
            f"max_length is {settings.max_length}, but {settings.base} has {limit} positions; choose {limit} or less."
        )
    tokenizer = load_tokenizer(located)
    encoder = TextEncoder(tokenizer)
    if settings.template == CHAT:
        encoder.render_chat("Hello")
    if settings.precision in ("int8", "nf4"):
        model = _load_quantised(located, settings)
    else:
        dtype = "bfloat16" if settings.precision == "bf16" else "float32"
        model = load_weights(located, config, dtype=dtype, device=settings.device)
    rows = model.get_input_embeddings().weight.shape[0]
    if max([*encoder.encode([_PROBE_TEXT])[_PROBE_TEXT], tokenizer.eos_token_id or 0]) >= rows:
        raise ModelError(f"The tokenizer of {settings.base} does not belong to its weights ({rows} tokens).")
    _prepare(model, settings)
    return located.revision, tokenizer, model


def _load_quantised(located: Located, settings: FinetuneSettings) -> PreTrainedModel:
    import torch
    import transformers
    from safetensors import SafetensorError

    place = torch_device(settings.device)
    quiet_transformers()
    try:
        import bitsandbytes  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        raise ModelError(_lacking(settings, error)) from error
    if settings.precision == "int8":
        quantised = transformers.BitsAndBytesConfig(load_in_8bit=True)
    else:
        quantised = transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    try:
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            located.source,
            quantization_config=quantised,
            dtype=torch.float32 if place.type == "cpu" else torch.bfloat16,
            device_map={"": place},
            output_loading_info=True,
            **located.options,
        )
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"{settings.base} does not fit into the memory of {settings.device} in {settings.precision}. Choose nf4, a "
            "smaller base, or another device."
        ) from error
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, AttributeError, SafetensorError) as error:
        raise ModelError(_lacking(settings, error)) from error
    lacking = sorted([*info["missing_keys"], *(str(key) for key in info["mismatched_keys"])])
    if lacking:
        raise ModelError(
            f"The weights of {settings.base} are not those of a causal language model: "
            f"{len(lacking)} are missing or of another shape, such as {lacking[0]}."
        )
    for module in model.modules():
        # On some processors bitsandbytes repacks 4-bit weights at their first evaluation, for good and with rounding,
        # after which neither the layer's gradient nor a second run on the same base would be right.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model.eval()


def _lacking(settings: FinetuneSettings, error: BaseException) -> str:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return (
        f"{settings.base} cannot be loaded in {settings.precision} on {settings.device}: {first} Such a base needs "
        "bitsandbytes, built for this device; if it cannot be installed here, choose the precision bf16 or fp32."
    )


def _prepare(model: PreTrainedModel, settings: FinetuneSettings) -> None:
    model.requires_grad_(False)
    model.config.use_cache = False
    if settings.gradient_checkpointing:
        try:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        except (ValueError, AttributeError) as error:
            raise ModelError(
                f"{settings.base} cannot be trained with gradient checkpointing: {error} Switch it off."
            ) from error
    if model.device.type == "cpu":
        keep_freed_memory()
        _use_frozen_linear(model)


def _use_frozen_linear(model: PreTrainedModel) -> None:
    """Let the plain float32 linear layers of a frozen model on the CPU run through oneDNN, forward and backward."""
    import torch

    if not onednn_available():
        return
    frozen = frozen_linear_class()
    for module in model.modules():
        if type(module) is torch.nn.Linear and module.weight.dtype == torch.float32:
            module.__class__ = frozen


def frozen_linear_class() -> Any:
    """A ``torch.nn.Linear`` whose weights get no gradient, twice as fast in float32 on AMD processors.

    Forward as in ``core.fast_linear``; the gradient of its input, grad · W, is one more such product.
    """
    import torch

    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
            ctx.save_for_backward(weight)
            return linear(rows, weight, bias)

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
            (weight,) = ctx.saved_tensors
            return linear(grad, weight.t()), None, None

    class FrozenLinear(torch.nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            if input.requires_grad and torch.is_grad_enabled():
                found: torch.Tensor = Product.apply(input, self.weight, self.bias)
                return found
            return linear(input, self.weight, self.bias)

    return FrozenLinear
