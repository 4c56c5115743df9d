"""One batch of spans through a model: float32 losses of the scored tokens, and the probe that a model must pass.

Hidden states come from the base model, and the output head runs at scored positions alone, in tiles: no array of all
tokens by all words is ever made. Models that change the head's output (soft caps, scales) are found by the probe and
run through their own forward, in which the head is shown only the scored positions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core import packing
from core.errors import ModelError
from core.fast_linear import linear
from core.packing_probe import can_pack, close
from core.padded import padded, sent
from core.spans import Span

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_TILE_ROWS, _TILE_WORDS = 2048, 512  # of the head on a CPU: a tile of logits stays in the cache
_TILE_NUMBERS = 1 << 26  # of the head on a GPU
_OWN_FORWARD_NUMBERS = {"cpu": 1 << 26, "cuda": 1 << 28}
_PROBE_TOKENS = 24
_SAFE_SUMS = (1e-30, 1e30)
_LOG2_E = math.log2(math.e)


@dataclass(frozen=True)
class Way:
    """How spans go through a model, as :func:`find_way` found out.

    ``plain_head``  the logits are just the head on the base model's hidden states
    ``packed``      sequences can be packed without padding; ``n_layers``: see ``core.packing.Packing``
    """

    plain_head: bool
    packed: bool
    n_layers: int | None = None


def mean_losses(model: PreTrainedModel, batch: Sequence[Span], *, way: Way, n_prefix: int = 0) -> list[float]:
    """Return the mean loss in nats of every span of a batch, in order.

    The spans begin with the same ``n_prefix`` tokens, of which none is scored, nor the last one directly before a
    scored one. A span's last token is only ever a target, so it is not run through the model.
    """
    import torch

    counts = [span.n_tokens for span in batch]
    targets = sent(torch.tensor([token for span in batch for token in span.ids[span.start :]]), model.device)
    inputs = [span.ids[:-1] for span in batch]
    if way.packed:
        nll = _packed_nll(model, inputs, counts, targets, way=way, n_prefix=n_prefix)
    else:
        nll = _padded_nll(model, inputs, counts, targets, way=way)
    sums = torch.stack([part.sum() for part in nll.double().cpu().split(counts)])
    return [float(total) / n for total, n in zip(sums, counts, strict=True)]


def _packed_nll(
    model: PreTrainedModel,
    inputs: Sequence[Sequence[int]],
    counts: Sequence[int],
    targets: torch.Tensor,
    *,
    way: Way,
    n_prefix: int,
) -> torch.Tensor:
    """Losses [all scored tokens] of sequences in one row; the last ``counts[i]`` outputs of each predict targets."""
    layout, arguments = packing.pack(inputs, counts, n_prefix=n_prefix, device=model.device, n_layers=way.n_layers)
    if way.plain_head:
        hidden = packing.run(model.base_model, layout, arguments).last_hidden_state
        return _head_nll(model.get_output_embeddings(), hidden[0].index_select(0, layout.index), targets)
    with head_at(model, layout.index):
        return _token_nll(packing.run(model, layout, arguments).logits[0], targets)


def _padded_nll(
    model: PreTrainedModel, inputs: Sequence[Sequence[int]], counts: Sequence[int], targets: torch.Tensor, *, way: Way
) -> torch.Tensor:
    """As :func:`_packed_nll`, a row for each sequence.

    Padding stands on the right, where causal attention cannot see it, so no mask is needed and the mask-free attention
    kernel is used; ``find_way`` has proved on a probe that later tokens do not reach earlier ones.
    """
    import torch

    ids = padded(inputs, fill=0, device=model.device)
    ends = [row * ids.shape[1] + len(tokens) for row, tokens in enumerate(inputs)]
    index = torch.cat([torch.arange(end - n, end) for end, n in zip(ends, counts, strict=True)]).to(model.device)
    if way.plain_head:
        hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        return _head_nll(model.get_output_embeddings(), hidden.flatten(0, 1).index_select(0, index), targets)
    with head_at(model, index):
        return _token_nll(model(input_ids=ids, use_cache=False).logits[0], targets)


def own_forward_tokens(model: PreTrainedModel) -> int:
    """Most padded tokens of a batch in the model's own forward, where all logits of the batch exist at once."""
    return max(1, _OWN_FORWARD_NUMBERS[model.device.type] // model.get_output_embeddings().weight.shape[0])


def _token_nll(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood in nats: logits [positions, words] and targets [positions] give float32 [positions]."""
    logits = logits.float()
    return logits.logsumexp(-1) - logits.gather(-1, targets[:, None]).squeeze(-1)


def _head_nll(head: torch.nn.Module, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Losses [positions] of the head on hidden [positions, size], without all of its logits at once."""
    import torch

    if hidden.device.type == "cpu" and isinstance(head, torch.nn.Linear):
        rows = zip(hidden.split(_TILE_ROWS), targets.split(_TILE_ROWS), strict=True)
        return torch.cat([_tiled_nll(head, part, wanted) for part, wanted in rows])
    words: Any = head.weight
    tile = max(_TILE_ROWS, _TILE_NUMBERS // words.shape[0])
    rows = zip(hidden.split(tile), targets.split(tile), strict=True)
    return torch.cat([_token_nll(head(part), wanted) for part, wanted in rows])


def _tiled_nll(head: torch.nn.Linear, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Losses of a few positions, some words of the vocabulary at a time, which a processor's cache can hold.

    The sum of exponentials is taken without subtracting the maximum first, and by exp2, which is five times as fast as
    exp here; both lose nothing while the sum stays within ``_SAFE_SUMS``. Positions where it does not are computed the
    careful way.
    """
    import torch

    sums, at_target = torch.zeros(len(hidden)), torch.empty(len(hidden))
    # Made once: a new array of some megabytes for every tile would cost more than the arithmetic on it.
    tile = torch.empty((len(hidden), _TILE_WORDS), dtype=torch.float32)
    for low in range(0, head.weight.shape[0], _TILE_WORDS):
        bias = None if head.bias is None else head.bias[low : low + _TILE_WORDS]
        logits = linear(hidden, head.weight[low : low + _TILE_WORDS], bias)
        if logits.dtype != torch.float32:
            logits = tile[:, : logits.shape[1]].copy_(logits)
        here = ((targets >= low) & (targets < low + logits.shape[1])).nonzero().squeeze(-1)
        at_target[here] = logits[here, targets[here] - low]
        sums += logits.mul_(_LOG2_E).exp2_().sum(-1)
    nll = sums.log() - at_target
    unsafe = (~((sums > _SAFE_SUMS[0]) & (sums < _SAFE_SUMS[1]))).nonzero().squeeze(-1)
    if len(unsafe):
        nll[unsafe] = _token_nll(head(hidden[unsafe]), targets[unsafe])
    return nll


@contextmanager
def head_at(model: PreTrainedModel, index: torch.Tensor) -> Iterator[None]:
    """Inside, the model's head is shown only these places of the flattened batch, as one row."""

    def choose(_head: object, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (inputs[0].flatten(0, 1).index_select(0, index)[None],)

    handle = model.get_output_embeddings().register_forward_pre_hook(choose)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _watched(module: Any, seen: dict[str, torch.Tensor]) -> Iterator[None]:
    def watch(_module: object, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        seen["input"], seen["output"] = inputs[0], output

    handle = module.register_forward_hook(watch)
    try:
        yield
    finally:
        handle.remove()


def _same_start(early: torch.Tensor, changed: torch.Tensor, model: PreTrainedModel) -> bool:
    """Whether logits of the first tokens stayed as they were, up to rounding, when later tokens changed.

    In 8 bits (LLM.int8) the columns that are kept whole are chosen from all tokens of a batch, so that rounding (0.02
    of the spread of the logits) depends on later tokens. Such models are held to the measure of the packing probe.
    """
    import torch

    if getattr(model, "is_quantized", False):
        return close(changed, early, model)
    tolerance = 1e-5 if model.dtype == torch.float32 else 1e-2
    return float((early - changed).abs().max()) <= tolerance * float(early.abs().max())


def find_way(model: PreTrainedModel, *, name: str, longest: int) -> Way:
    """Run the model on a few tokens, make sure that it can be a student, and find the best way to run it.

    Raises:
        ModelError: it cannot be run on token ids alone, is not causal, or gives numbers that are not finite.
    """
    import torch

    head = model.get_output_embeddings()
    if head is None:
        raise ModelError(f"{name} has no output head that can be found; it cannot be used as a student.")
    seen: dict[str, torch.Tensor] = {}
    words = model.get_input_embeddings().weight.shape[0]
    n = min(_PROBE_TOKENS, longest)
    ids = (torch.arange(n, device=model.device)[None] * 7919 + 11) % words
    half = n // 2
    other = ids.clone()
    other[:, half:] = (ids[:, half:] + words // 2) % words
    try:
        with torch.inference_mode():
            with _watched(head, seen):
                logits = model(input_ids=ids, use_cache=False).logits
            changed = model(input_ids=other, use_cache=False).logits
            hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise ModelError(f"{name} cannot be run on plain text: {error}") from error
    if not bool(torch.isfinite(logits).all()):
        raise ModelError(f"{name} gives numbers that are not finite in {model.dtype}; try float32.")
    if half and not _same_start(logits[:, :half].float(), changed[:, :half].float(), model):
        raise ModelError(f"{name} lets later tokens change earlier ones: it is not a causal language model.")
    same_logits = torch.equal(seen["output"].to(logits.dtype), logits)
    packed, n_layers = can_pack(model, longest=longest)
    return Way(same_logits and torch.equal(seen["input"], hidden), packed, n_layers)
