"""Rows of token ids as one padded array on the model's device, for models that score whole texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on the device; to a GPU out of pinned memory, which lets the copy run beside kernels in the queue."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def padded(rows: Sequence[Sequence[int]], *, fill: int, device: torch.device) -> torch.Tensor:
    """Return int64 [rows, longest row], ``fill`` standing on the right of shorter rows."""
    import torch

    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), fill, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row, dtype=torch.long)
    return sent(ids, device)


def masks(rows: Sequence[Sequence[int]], *, device: torch.device) -> torch.Tensor:
    """Return int64 [rows, longest row]: 1 where :func:`padded` holds a token, 0 where it holds filling."""
    return padded([[1] * len(row) for row in rows], fill=0, device=device)


def to_floats(numbers: Sequence[torch.Tensor]) -> list[float]:
    """Return the values of tensors of one number each, on whatever device, in a single copy."""
    import torch

    return torch.stack(list(numbers)).double().tolist() if numbers else []
