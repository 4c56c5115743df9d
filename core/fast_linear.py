"""Linear layers through oneDNN: twice as fast as torch's default float32 path on AMD processors, in the same float32.

torch multiplies float32 matrices on a CPU with MKL, which leaves half of an AMD processor's speed unused (100 against
220 GFLOP/s a core were measured on a 512-bit EPYC); oneDNN, which torch ships as well, does not. Nothing is rounded
to a shorter type: losses differ by the order of summation alone.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def linear(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """``torch.nn.functional.linear`` by the fastest way there is: rows [n, in], weight [out, in] give [n, out]."""
    import torch

    if rows.dtype == torch.float32 and rows.device.type == "cpu" and onednn_available():
        try:
            return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
        except RuntimeError:  # oneDNN does not say when it is memory that is short; torch does
            pass
    return torch.nn.functional.linear(rows, weight, bias)


@functools.cache
def onednn_available() -> bool:
    """Whether this torch can run a float32 linear layer through oneDNN, tried on a small one."""
    import torch

    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    rows, weight = torch.eye(3, 4), torch.arange(8.0).reshape(2, 4)
    try:
        found = torch.ops.mkldnn._linear_pointwise(rows, weight, None, "none", [], "")
    except (RuntimeError, TypeError):
        return False
    return torch.equal(found, torch.nn.functional.linear(rows, weight))


@functools.cache
def keep_freed_memory() -> bool:
    """Let the C library keep arrays of up to 64 MB that are freed, instead of giving them back to the system each time.

    Every layer makes and frees arrays of some megabytes; that each of them was taken anew and zeroed page by page cost
    a sixth of the time of a small bfloat16 student. At most 256 MB of free memory are kept. Returns whether it could be
    done: glibc can.
    """
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, 64 << 20)) and bool(mallopt(_M_TRIM_THRESHOLD, 256 << 20))


def give_back_freed_memory() -> None:
    """Give what lies free between arrays in use back to the system, where glibc can: after a run, not within one."""
    import ctypes

    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        return


def use_onednn(model: torch.nn.Module) -> int:
    """Let every plain float32 linear layer of a model on the CPU run through oneDNN, for inference.

    Also keeps freed memory, see :func:`keep_freed_memory`.

    Returns the number of layers changed; 0 where torch lacks it or the model has another dtype or device.
    """
    import torch

    keep_freed_memory()

    class OneDnnLinear(torch.nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return linear(input, self.weight, self.bias)

    if not onednn_available():
        return 0
    changed = 0
    for module in model.modules():
        if type(module) is not torch.nn.Linear:
            continue
        if module.weight.dtype == torch.float32 and module.weight.device.type == "cpu":
            module.__class__ = OneDnnLinear
            changed += 1
    return changed
