"""Which models can be run packed (``core.packing``): tried on a few tokens, in two ways that must agree.

Models that do not go through transformers' ``AttentionInterface``, or that mix tokens elsewhere, or bias, cap or sink
their attention, are run padded (``core.span_losses``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.packed_attention import attention
from core.packing import ATTENTION, current, pack, run

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_PROBE_LENGTHS = (19, 12, 7)
_PROBE_PREFIX = 5


def can_pack(model: PreTrainedModel, *, longest: int) -> tuple[bool, int | None]:
    """Try to run a model packed. Returns whether it can be, and ``Packing.n_layers``.

    ``longest`` is the length that no sequence may exceed. A model that cannot be packed keeps the attention it had.
    """
    import torch
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    if model.device.type == "cuda" and model.dtype == torch.float32:
        return False, None  # variable-length flash attention knows half precision only
    if longest < _PROBE_PREFIX + max(_PROBE_LENGTHS):
        return False, None
    before = model.config._attn_implementation
    n_words = model.get_input_embeddings().weight.shape[0]
    probes, wanted = (_probe(n_words, 0), _probe(n_words, 1)), [4] * len(_PROBE_LENGTHS)
    expected = _wanted_logits(model, probes[0], wanted)
    AttentionInterface.register(ATTENTION, attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    try:
        model.set_attn_implementation(ATTENTION)
    except (ValueError, KeyError, NotImplementedError, AttributeError):
        return False, None
    if model.config.get_text_config()._attn_implementation == ATTENTION:
        n_layers = _narrow_last_layer(model)
        for attempt in dict.fromkeys((n_layers, None)):
            found, beside_others = (_packed_logits(model, one, wanted, n_layers=attempt) for one in probes)
            if found is None or beside_others is None or not close(found, expected, model):
                continue
            if close(beside_others[: wanted[0]], found[: wanted[0]], model, stricter=10.0):
                return True, attempt
    model.set_attn_implementation(before)
    return False, None


def _probe(n_words: int, variant: int) -> list[list[int]]:
    """Sequences of different lengths that begin alike; the first one is the same in every variant, the others are not.

    In two variants the first must have the same outputs: what stands beside it must not reach it.
    """
    text = [(i * 7919 + 11) % n_words for i in range(_PROBE_PREFIX + sum(_PROBE_LENGTHS))]
    found: list[list[int]] = []
    first = _PROBE_PREFIX
    for length in _PROBE_LENGTHS:
        shift = variant * n_words // 3 if found else 0
        found.append(text[:_PROBE_PREFIX] + [(token + shift) % n_words for token in text[first : first + length]])
        first += length
    return found


def _wanted_logits(model: PreTrainedModel, sequences: list[list[int]], wanted: list[int]) -> torch.Tensor:
    import torch

    with torch.inference_mode():
        each = [model(input_ids=torch.tensor([one], device=model.device), use_cache=False).logits for one in sequences]
    return torch.cat([logits[0, -n:] for logits, n in zip(each, wanted, strict=True)]).float()


def _packed_logits(
    model: PreTrainedModel, sequences: list[list[int]], wanted: list[int], *, n_layers: int | None
) -> torch.Tensor | None:
    import torch

    try:
        with torch.inference_mode():
            packing, arguments = pack(sequences, wanted, n_prefix=_PROBE_PREFIX, device=model.device, n_layers=n_layers)
            return run(model, packing, arguments).logits[0].index_select(0, packing.index).float()
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError, ImportError):
        return None  # it is run padded instead


def close(found: torch.Tensor, expected: torch.Tensor, model: PreTrainedModel, *, stricter: float = 1.0) -> bool:
    """Whether logits are equal up to rounding: their root mean square difference against the spread of all.

    Two ways of computing a bfloat16 model of 12 layers were 0.03 apart, each as far from the float32 model as from the
    other; attention to wrong tokens makes a difference of 1 or so.
    """
    import torch

    exact = model.dtype == torch.float32 and not getattr(model, "is_quantized", False)
    tolerance = (1e-4 if exact else 0.15) / stricter
    apart = (found - expected).square().mean().sqrt()
    return found.shape == expected.shape and bool(apart <= tolerance * expected.std())


_LAYERS = ("layers", "h")
_FEED_FORWARD = ("mlp", "feed_forward")
_ATTENTION = ("self_attn", "attn", "attention")
_PROJECTIONS = ("q_proj", "o_proj", "c_proj", "dense", "out_proj")


def _narrow_last_layer(model: PreTrainedModel) -> int | None:
    """Let the parts of the last layer that look at single tokens leave out the unwanted ones, while packed so.

    Returns the number of layers, None where the model's parts have other names.
    """
    layers = next((getattr(model.base_model, name) for name in _LAYERS if hasattr(model.base_model, name)), None)
    if layers is None or not len(layers):
        return None
    last = layers[-1]
    attention = next((getattr(last, name) for name in _ATTENTION if hasattr(last, name)), None)
    parts = [getattr(last, name) for name in _FEED_FORWARD if hasattr(last, name)]
    parts += [getattr(attention, name) for name in _PROJECTIONS if hasattr(attention, name)]
    if not parts or getattr(attention, "layer_idx", None) != len(layers) - 1:
        return None
    for part in parts:
        _narrow(part)
    return len(layers)


def _narrow(part: torch.nn.Module) -> None:
    if "forward" in vars(part):
        return  # it was done before
    whole = part.forward

    def forward(hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        packing = current()
        if packing is None or packing.n_layers is None:
            return whole(hidden, *args, **kwargs)
        found = whole(hidden.index_select(1, packing.index), *args, **kwargs)
        output = found.new_zeros((1, hidden.shape[1], *found.shape[2:]))
        return output.index_copy_(1, packing.index, found)

    part.forward = forward
