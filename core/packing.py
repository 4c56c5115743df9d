"""Sequences packed one after the other, without padding, through a model's own modeling code.

A batch is one row of tokens: first a prefix that all of its sequences share (the preamble of a prompt template), once,
then what each sequence has of its own, with positions that go on from the prefix for each. Everything in a decoder but
its attention looks at single tokens; attention is kept within prefix and sequence by a function that is registered with
transformers' ``AttentionInterface``. The last layer computes only the tokens whose output is wanted.

``can_pack`` proves on a probe that a model gives the same numbers this way. Models that do not go through the
interface, or that mix tokens elsewhere, or bias, cap or sink their attention, are run padded (``core.span_losses``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

ATTENTION = "assay_packed"
"""The name of the attention function among transformers' attention implementations."""

_BLOCK_ROWS = {True: 64, False: 192}  # queries at once on a CPU, for float32 and for shorter types: measured
_PROBE_LENGTHS = (19, 12, 7)
_PROBE_PREFIX = 5

_here = threading.local()


@dataclass(frozen=True)
class Packing:
    """How the sequences of a batch lie in its single row.

    ``n_prefix`` tokens come first and belong to every sequence; then ``lengths[i]`` own tokens of sequence i, of which
    the last ``wanted[i]`` are those whose output is wanted. ``index`` [all wanted] holds their places in the row;
    ``n_layers`` the number of layers where the last one may leave the others out, None where it may not.
    """

    n_prefix: int
    lengths: tuple[int, ...]
    wanted: tuple[int, ...]
    index: torch.Tensor
    n_layers: int | None = None

    @classmethod
    def of(
        cls, *, n_prefix: int, lengths: Sequence[int], wanted: Sequence[int], device: torch.device, n_layers: int | None
    ) -> Packing:
        """Lay the sequences out."""
        import torch

        ends = torch.tensor([n_prefix, *lengths]).cumsum(0)[1:].tolist()
        places = [torch.arange(end - n, end) for end, n in zip(ends, wanted, strict=True)]
        return cls(n_prefix, tuple(lengths), tuple(wanted), _sent(torch.cat(places), device), n_layers)

    def positions(self) -> torch.Tensor:
        """Return the position of every token [1, tokens]: each sequence goes on where the prefix ended."""
        import torch

        own = [torch.arange(self.n_prefix, self.n_prefix + n) for n in self.lengths]
        return torch.cat([torch.arange(self.n_prefix), *own])[None]

    def narrow(self, layer: int | None) -> bool:
        """Whether this layer may leave out the tokens whose output is not wanted."""
        return self.n_layers is not None and layer == self.n_layers - 1


def _sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on the device; to a GPU through pinned memory, without waiting."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


@contextmanager
def _packed(packing: Packing) -> Iterator[None]:
    """Inside, in this thread, a model with the attention ``ATTENTION`` reads its input as packed so."""
    _here.packing, _here.layout = packing, None
    try:
        yield
    finally:
        _here.packing = _here.layout = None


def _current() -> Packing | None:
    found: Packing | None = getattr(_here, "packing", None)
    return found


def pack(
    sequences: Sequence[Sequence[int]],
    wanted: Sequence[int],
    *,
    n_prefix: int,
    device: torch.device,
    n_layers: int | None,
) -> tuple[Packing, dict[str, Any]]:
    """Lay out token sequences that begin with the same ``n_prefix`` tokens; of each the last ``wanted[i]`` are wanted.

    Every sequence is longer than the prefix, by ``wanted[i]`` or more. Returns the packing and the arguments for the
    model; for what it returns see :func:`run`.
    """
    import torch

    lengths = [len(one) - n_prefix for one in sequences]
    packing = Packing.of(n_prefix=n_prefix, lengths=lengths, wanted=wanted, device=device, n_layers=n_layers)
    ids = [*sequences[0][:n_prefix], *(token for one in sequences for token in one[n_prefix:])]
    arguments = {
        "input_ids": _sent(torch.tensor(ids)[None], device),
        "position_ids": _sent(packing.positions(), device),
        # One that is prepared already: nobody makes another, which would have tokens × tokens numbers.
        "attention_mask": torch.zeros((1, 1, 1, 1), dtype=torch.bool, device=device),
        "use_cache": False,
    }
    return packing, arguments


def run(model: Callable[..., Any], packing: Packing, arguments: dict[str, Any]) -> Any:
    """Run a model (or its base) with the attention ``ATTENTION`` on one packed row [1, tokens].

    Its outputs at ``packing.index`` are those of the wanted tokens; what stands elsewhere is of no use.
    """
    with _packed(packing):
        return model(**arguments)


# --- attention ---


class _NotPackableError(RuntimeError):
    """The model's attention is more than softmax(q·k) v."""


# What may come along with a call and, where it is set, makes attention another one.
_PECULIAR = ("softcap", "s_aux", "position_bias", "head_mask")


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each sequence of the current packing; shapes and options as transformers calls it.

    query [1, heads, tokens, size], key and value [1, key heads, tokens, size] give [1, tokens, heads, size]. Outside of
    ``run`` it is transformers' own attention.
    """
    packing = _current()
    if packing is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        found, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return found, None
    if any(options.get(name) is not None for name in _PECULIAR):
        raise _NotPackableError("This attention is not a plain one.")
    scaling, window = options.get("scaling"), options.get("sliding_window")
    return (_on_cuda if query.device.type == "cuda" else _on_cpu)(
        query[0],
        key[0],
        value[0],
        packing,
        scale=query.shape[-1] ** -0.5 if scaling is None else scaling,
        narrow=packing.narrow(getattr(module, "layer_idx", None)),
        window=window,
    )[None], None


def _on_cpu(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    packing: Packing,
    *,
    scale: float,
    narrow: bool,
    window: int | None,
) -> torch.Tensor:
    """Sequence by sequence, some queries at a time, so that keys to come are not even looked at."""
    import torch

    n_heads, n_tokens, size = query.shape[0], query.shape[1], value.shape[-1]
    if key.shape[0] != n_heads:
        key, value = (one.repeat_interleave(n_heads // one.shape[0], 0) for one in (key, value))
    n_prefix = packing.n_prefix
    rows = _BLOCK_ROWS[query.dtype == torch.float32]
    mask = _block_mask(rows, n_prefix + max(packing.lengths), query.dtype)
    output = query.new_zeros((n_tokens, n_heads, size)) if narrow else query.new_empty((n_tokens, n_heads, size))

    def attend(first: int, length: int, n_before: int, start: int) -> None:
        """Queries ``start`` to ``length`` of the sequence that begins at ``first``, after ``n_before`` tokens."""
        whole_key, whole_value = (one[:, first : first + length] for one in (key, value))
        if n_before:
            whole_key = torch.cat([key[:, :n_before], whole_key], 1)
            whole_value = torch.cat([value[:, :n_before], whole_value], 1)
        for low in range(start, length, rows):
            high = min(length, low + rows)
            reach = n_before + high
            visible = mask[rows - (high - low) :, mask.shape[1] - reach :]
            skipped = 0
            if window is not None and reach > window:
                skipped, visible = _windowed(visible, window)
            output[first + low : first + high] = _attend_block(
                query[:, first + low : first + high],
                whole_key[:, skipped:reach],
                whole_value[:, skipped:reach],
                visible,
                scale=scale,
            )

    first = n_prefix
    if n_prefix and not narrow:
        attend(0, n_prefix, 0, 0)
    for length, wanted in zip(packing.lengths, packing.wanted, strict=True):
        attend(first, length, n_prefix, length - wanted if narrow else 0)
        first += length
    return output


def _block_mask(rows: int, longest: int, dtype: torch.dtype) -> torch.Tensor:
    """[rows, longest]: 0 where a query of the last ``rows`` tokens sees a key, −inf where the key is yet to come.

    Its lower right corner serves every block: the queries of a block are the last tokens among its keys.
    """
    import torch

    layout: torch.Tensor | None = getattr(_here, "layout", None)
    if layout is None or layout.shape != (rows, max(rows, longest)):
        layout = torch.zeros((rows, max(rows, longest)), dtype=dtype)
        layout[:, -rows:].masked_fill_(torch.ones((rows, rows), dtype=torch.bool).triu(1), float("-inf"))
        _here.layout = layout
    return layout


def _windowed(visible: torch.Tensor, window: int) -> tuple[int, torch.Tensor]:
    """Keys that no query of the block sees through its window, to be left out, and the mask of the others."""
    import torch

    n_queries, n_keys = visible.shape
    place = torch.arange(n_keys)
    own = torch.arange(n_keys - n_queries, n_keys)[:, None]
    skipped = max(0, n_keys - n_queries - window + 1)
    return skipped, visible.masked_fill(place <= own - window, float("-inf"))[:, skipped:]


def _attend_block(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, *, scale: float
) -> torch.Tensor:
    """[heads, queries, size] on [heads, keys, size] with mask [queries, keys] gives [queries, heads, size].

    torch's fused kernel is the faster one in float32, and half as fast as plain products in bfloat16 (measured).
    """
    import torch

    if query.dtype == torch.float32:
        found = torch.nn.functional.scaled_dot_product_attention(
            query[None], key[None], value[None], attn_mask=mask, scale=scale
        )[0]
    else:
        weights = torch.baddbmm(mask, query, key.transpose(1, 2), alpha=scale)
        found = torch.bmm(torch.softmax(weights, -1, dtype=torch.float32).to(value.dtype), value)
    return found.transpose(0, 1)


def _on_cuda(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    packing: Packing,
    *,
    scale: float,
    narrow: bool,
    window: int | None,
) -> torch.Tensor:
    """Variable-length flash attention: one call for all sequences, each with the keys of the prefix before its own."""
    import torch
    from torch.nn.attention.varlen import varlen_attn

    layouts = getattr(_here, "layout", None) or {}
    if narrow not in layouts:
        layouts[narrow] = _cuda_layout(packing, narrow=narrow, device=query.device)
        _here.layout = layouts
    of_query, of_key, ends_query, ends_key, most_queries, most_keys = layouts[narrow]
    chosen = query.transpose(0, 1) if of_query is None else query.transpose(0, 1).index_select(0, of_query)
    found = varlen_attn(
        chosen.contiguous(),
        key.transpose(0, 1).index_select(0, of_key),
        value.transpose(0, 1).index_select(0, of_key),
        ends_query,
        ends_key,
        most_queries,
        most_keys,
        scale=scale,
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=key.shape[0] != query.shape[0],
    )
    assert isinstance(found, torch.Tensor)
    if of_query is None:
        return found
    output = found.new_zeros((query.shape[1], *found.shape[1:]))
    return output.index_copy_(0, of_query, found)


def _cuda_layout(packing: Packing, *, narrow: bool, device: torch.device) -> tuple[Any, ...]:
    """Which tokens are queries and keys of which sequence; the prefix is a sequence of its own."""
    import torch

    prefix = torch.arange(packing.n_prefix)
    queries, keys = ([] if narrow or not packing.n_prefix else [prefix]), []
    keys += list(queries)
    first = packing.n_prefix
    for length, wanted in zip(packing.lengths, packing.wanted, strict=True):
        own = torch.arange(first, first + length)
        queries.append(own[length - wanted :] if narrow else own)
        keys.append(torch.cat([prefix, own]))
        first += length

    def ends(parts: list[torch.Tensor]) -> torch.Tensor:
        return _sent(torch.tensor([0, *(len(one) for one in parts)]).cumsum(0).to(torch.int32), device)

    return (
        _sent(torch.cat(queries), device) if narrow else None,
        _sent(torch.cat(keys), device),
        ends(queries),
        ends(keys),
        max(map(len, queries)),
        max(map(len, keys)),
    )


# --- which models can ---


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
    AttentionInterface.register(ATTENTION, _attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    try:
        model.set_attn_implementation(ATTENTION)
    except (ValueError, KeyError, NotImplementedError, AttributeError):
        return False, None
    if model.config.get_text_config()._attn_implementation == ATTENTION:
        n_layers = _narrow_last_layer(model)
        for attempt in dict.fromkeys((n_layers, None)):
            found, beside_others = (_packed_logits(model, one, wanted, n_layers=attempt) for one in probes)
            if found is None or beside_others is None or not _close(found, expected, model.dtype):
                continue
            if _close(beside_others[: wanted[0]], found[: wanted[0]], model.dtype, stricter=10.0):
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


def _close(found: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype, *, stricter: float = 1.0) -> bool:
    """Whether logits are equal up to rounding: their root mean square difference against the spread of all.

    Two ways of computing a bfloat16 model of 12 layers were 0.03 apart, each as far from the float32 model as from the
    other; attention to wrong tokens makes a difference of 1 or so.
    """
    import torch

    tolerance = (1e-4 if dtype == torch.float32 else 0.15) / stricter
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
        packing = _current()
        if packing is None or packing.n_layers is None:
            return whole(hidden, *args, **kwargs)
        found = whole(hidden.index_select(1, packing.index), *args, **kwargs)
        output = found.new_zeros((1, hidden.shape[1], *found.shape[2:]))
        return output.index_copy_(1, packing.index, found)

    part.forward = forward
