"""Sequences packed one after the other, without padding, through a model's own modeling code.

A batch is one row of tokens: first a prefix that all of its sequences share (the preamble of a prompt template), once,
then what each sequence has of its own, with positions that go on from the prefix for each. Everything in a decoder but
its attention looks at single tokens; attention is kept within prefix and sequence by a function that is registered with
transformers' ``AttentionInterface`` (``core.packed_attention``). The last layer computes only the tokens whose output
is wanted. Which models can be run so is found out by ``core.packing_probe``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.padded import sent

if TYPE_CHECKING:
    import torch

ATTENTION = "assay_packed"
"""The name of the attention function among transformers' attention implementations."""

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
        return cls(n_prefix, tuple(lengths), tuple(wanted), sent(torch.cat(places), device), n_layers)

    def positions(self) -> torch.Tensor:
        """Return the position of every token [1, tokens]: each sequence goes on where the prefix ended."""
        import torch

        own = [torch.arange(self.n_prefix, self.n_prefix + n) for n in self.lengths]
        return torch.cat([torch.arange(self.n_prefix), *own])[None]

    def narrow(self, layer: int | None) -> bool:
        """Whether this layer may leave out the tokens whose output is not wanted."""
        return self.n_layers is not None and layer == self.n_layers - 1


@contextmanager
def packed(packing: Packing) -> Iterator[None]:
    """Inside, in this thread, a model with the attention ``ATTENTION`` reads its input as packed so."""
    _here.packing, _here.layouts = packing, {}
    try:
        yield
    finally:
        _here.packing = _here.layouts = None


def current() -> Packing | None:
    """The packing that this thread's model is run with."""
    found: Packing | None = getattr(_here, "packing", None)
    return found


def layouts() -> dict[Any, Any]:
    """What attention keeps from one layer to the next, while the current packing lasts."""
    kept: dict[Any, Any] = _here.layouts
    return kept


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
        "input_ids": sent(torch.tensor(ids)[None], device),
        "position_ids": sent(packing.positions(), device),
        # One that is prepared already: nobody makes another, which would have tokens × tokens numbers.
        "attention_mask": torch.zeros((1, 1, 1, 1), dtype=torch.bool, device=device),
        "use_cache": False,
    }
    return packing, arguments


def run(model: Callable[..., Any], packing: Packing, arguments: dict[str, Any]) -> Any:
    """Run a model (or its base) with the attention ``ATTENTION`` on one packed row [1, tokens].

    Its outputs at ``packing.index`` are those of the wanted tokens; what stands elsewhere is of no use.
    """
    with packed(packing):
        return model(**arguments)
