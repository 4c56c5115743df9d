"""Training loss of a few rows: float32 mean over response tokens, the head run at those places alone.

Rows stand in one padded array, filled on the right, where causal attention cannot see it: so no mask is needed, and
no pad token. That later tokens do not reach earlier ones is proved by ``core.span_losses.find_way``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from core.fast_linear import linear
from core.finetune.texts import TrainRow
from core.padded import padded, sent
from core.span_losses import head_at

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_TILE_NUMBERS = {"cpu": 1 << 20, "cuda": 1 << 27}


def summed_nll(model: PreTrainedModel, rows: Sequence[TrainRow], *, plain_head: bool) -> torch.Tensor:
    """Sum of the losses in nats of all tokens to train of some rows, float32, with a gradient.

    ``plain_head``: the logits are just the head on the base model's hidden states (``core.span_losses.Way``); other
    models run their own forward, in which the head is shown only the places that have a loss.
    """
    import torch

    device = model.device
    inputs = [row.ids[:-1] for row in rows]
    ids = padded(inputs, fill=0, device=device)
    width = ids.shape[1]
    places = [torch.arange(i * width + row.start - 1, i * width + len(row.ids) - 1) for i, row in enumerate(rows)]
    index = sent(torch.cat(places), device)
    targets = sent(torch.tensor([token for row in rows for token in row.ids[row.start :]]), device)
    if not plain_head:
        with head_at(model, index):
            logits = model(input_ids=ids, use_cache=False).logits[0]
        return _summed(logits, targets)
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    chosen = hidden.flatten(0, 1).index_select(0, index)
    head: Any = model.get_output_embeddings()
    if isinstance(head, torch.nn.Linear) and not head.weight.requires_grad and head.weight.is_floating_point():
        return _frozen_head_loss(chosen, head, targets)
    return _summed(head(chosen), targets)


def _summed(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum")


def _frozen_head_loss(hidden: torch.Tensor, head: torch.nn.Linear, targets: torch.Tensor) -> torch.Tensor:
    """Sum of the losses of hidden [positions, size] under a head that is not trained; the gradient goes to hidden.

    d loss / d hidden = (softmax − one-hot) · W is made in the forward pass, some positions at a time, so that the
    logits of all positions never exist at once (as in Liger Kernel's fused linear cross entropy, Hsu et al. 2024).
    """
    import torch

    class HeadLoss(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, rows: torch.Tensor) -> torch.Tensor:
            weight, bias = head.weight, head.bias
            step = max(16, _TILE_NUMBERS[rows.device.type] // weight.shape[0])
            total = torch.zeros((), dtype=torch.float32, device=rows.device)
            grad = torch.empty_like(rows) if ctx.needs_input_grad[0] else None
            for low in range(0, len(rows), step):
                part, wanted = rows[low : low + step], targets[low : low + step, None]
                logits = linear(part.to(weight.dtype), weight, bias).float()
                norm = logits.logsumexp(-1, keepdim=True)
                total += (norm - logits.gather(-1, wanted)).sum()
                if grad is not None:
                    logits.sub_(norm).exp_()
                    logits.scatter_add_(-1, wanted, torch.full_like(wanted, -1, dtype=torch.float32))
                    grad[low : low + step] = linear(logits.to(weight.dtype), weight.t())
            if grad is not None:
                ctx.save_for_backward(grad)
            return total

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
            (of_rows,) = ctx.saved_tensors
            found: torch.Tensor = of_rows * grad.to(of_rows.dtype)
            return found

    found: torch.Tensor = HeadLoss.apply(hidden)
    return found
