"""One batch of spans through a model: float32 losses of the scored tokens, and the probe that a model must pass.

Hidden states come from the base model, and the output head runs at scored positions alone, in tiles: no array of all
tokens by all words is ever made. Models that change the head's output (soft caps, scales) are found by the probe and
run through their own forward, in which the head is shown only the scored positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from core.errors import ModelError
from core.spans import Span

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_TILE_NUMBERS = {"cpu": 1 << 20, "cuda": 1 << 26}
_TILE_ROWS = 256  # at least: with fewer, reading a large head's weights takes longer than the arithmetic
_OWN_FORWARD_NUMBERS = {"cpu": 1 << 26, "cuda": 1 << 28}
_PROBE_TOKENS = 24


def mean_losses(model: PreTrainedModel, batch: Sequence[Span], *, plain_head: bool) -> list[float]:
    """Return the mean loss in nats of every span of a batch, in order; the longest span comes first.

    Padding stands on the right, where causal attention cannot see it, so no mask is needed and the mask-free attention
    kernel is used; ``is_plain_head`` has proved on a probe that later tokens do not reach earlier ones.
    """
    import torch

    # The last token is only ever a target, so it is not run through the model.
    width = len(batch[0].ids) - 1
    ids = torch.zeros((len(batch), width), dtype=torch.long)
    positions: list[torch.Tensor] = []
    targets: list[int] = []
    counts: list[int] = []
    for row, span in enumerate(batch):
        ids[row, : len(span.ids) - 1] = torch.tensor(span.ids[:-1])
        positions.append(torch.arange(span.start - 1, len(span.ids) - 1) + row * width)
        targets.extend(span.ids[span.start :])
        counts.append(span.n_tokens)
    device = model.device
    run = _by_plain_head if plain_head else _by_own_forward
    nll = run(model, ids.to(device), torch.cat(positions).to(device), torch.tensor(targets, device=device))
    sums = torch.stack([part.sum() for part in nll.double().cpu().split(counts)])
    return [float(total) / n for total, n in zip(sums, counts, strict=True)]


def own_forward_tokens(model: PreTrainedModel) -> int:
    """Most padded tokens of a batch in the model's own forward, where all logits of the batch exist at once."""
    return max(1, _OWN_FORWARD_NUMBERS[model.device.type] // model.get_output_embeddings().weight.shape[0])


def _token_nll(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood in nats: logits [positions, words] and targets [positions] give float32 [positions]."""
    logits = logits.float()
    return logits.logsumexp(-1) - logits.gather(-1, targets[:, None]).squeeze(-1)


def _by_plain_head(
    model: PreTrainedModel, ids: torch.Tensor, positions: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """Base model on ids [rows, width], then the head at flat ``positions``, a tile at a time."""
    import torch

    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    chosen = hidden.flatten(0, 1).index_select(0, positions)
    del hidden
    head = model.get_output_embeddings()
    tile = max(_TILE_ROWS, _TILE_NUMBERS[ids.device.type] // head.weight.shape[0])
    parts = zip(chosen.split(tile), targets.split(tile), strict=True)
    return torch.cat([_token_nll(head(part), wanted) for part, wanted in parts])


def _by_own_forward(
    model: PreTrainedModel, ids: torch.Tensor, positions: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """The model's own forward on ids [rows, width], with the head shown only the flat ``positions``."""

    def choose(_head: object, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (inputs[0].flatten(0, 1).index_select(0, positions)[None],)

    handle = model.get_output_embeddings().register_forward_pre_hook(choose)
    try:
        logits = model(input_ids=ids, use_cache=False).logits
    finally:
        handle.remove()
    return _token_nll(logits[0], targets)


@contextmanager
def _watched(module: Any, seen: dict[str, torch.Tensor]) -> Iterator[None]:
    def watch(_module: object, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        seen["input"], seen["output"] = inputs[0], output

    handle = module.register_forward_hook(watch)
    try:
        yield
    finally:
        handle.remove()


def is_plain_head(model: PreTrainedModel, *, name: str, longest: int) -> bool:
    """Run the model on a few tokens. Return whether its logits are just the head on the base model's hidden states.

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
    tolerance = 1e-5 if logits.dtype == torch.float32 else 1e-2
    early, changed_early = logits[:, :half].float(), changed[:, :half].float()
    if half and float((early - changed_early).abs().max()) > tolerance * float(early.abs().max()):
        raise ModelError(f"{name} lets later tokens change earlier ones: it is not a causal language model.")
    same_logits = torch.equal(seen["output"].to(logits.dtype), logits)
    return same_logits and torch.equal(seen["input"], hidden)
