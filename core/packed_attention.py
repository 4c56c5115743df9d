"""Attention within each sequence of a packed row: ``core.packing``. By torch on a CPU, by flash attention on a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.packing import Packing, current, layouts
from core.padded import sent

if TYPE_CHECKING:
    import torch

_BLOCK_ROWS = {True: 64, False: 192}  # queries at once on a CPU, for float32 and for shorter types: measured


class _NotPackableError(RuntimeError):
    """The model's attention is more than softmax(q·k) v."""


# What may come along with a call and, where it is set, makes attention another one.
_PECULIAR = ("softcap", "s_aux", "position_bias", "head_mask")


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each sequence of the current packing; shapes and options as transformers calls it.

    query [1, heads, tokens, size], key and value [1, key heads, tokens, size] give [1, tokens, heads, size]. Outside of
    ``core.packing.run`` it is transformers' own attention.
    """
    packing = current()
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

    kept = layouts()
    if "mask" not in kept:
        mask = torch.zeros((rows, max(rows, longest)), dtype=dtype)
        kept["mask"] = mask
        mask[:, -rows:].masked_fill_(torch.ones((rows, rows), dtype=torch.bool).triu(1), float("-inf"))
    found: torch.Tensor = kept["mask"]
    return found


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

    kept = layouts()
    if narrow not in kept:
        kept[narrow] = _cuda_layout(packing, narrow=narrow, device=query.device)
    of_query, of_key, ends_query, ends_key, most_queries, most_keys = kept[narrow]
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
        return sent(torch.tensor([0, *(len(one) for one in parts)]).cumsum(0).to(torch.int32), device)

    return (
        sent(torch.cat(queries), device) if narrow else None,
        sent(torch.cat(keys), device),
        ends(queries),
        ends(keys),
        max(map(len, queries)),
        max(map(len, keys)),
    )
