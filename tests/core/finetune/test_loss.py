"""The training loss is the plain one: same value, same gradient, by whatever way it is computed."""

from __future__ import annotations

from array import array

import pytest

from core.finetune import loading
from core.finetune.adapter import adapted
from core.finetune.loss import summed_nll
from core.finetune.texts import TrainRow
from tests.core import tiny_models
from tests.core.finetune import small

ROWS = [TrainRow(array("i", [0, *((i * k) % 300 + 3 for k in range(2, n))]), start) for i, n, start in
        ((3, 40, 11), (5, 21, 20), (7, 33, 1))]  # fmt: skip


@pytest.mark.parametrize(
    ("family", "plain_head", "changes"),
    [
        ("llama", True, {}),
        ("llama", False, {}),
        ("gpt2", True, {}),
        ("gemma2", False, {"final_logit_softcapping": 5.0}),
    ],
)
def test_value_and_gradient_are_those_of_the_unmodified_forward(tmp_path, family, plain_head, changes):
    import torch

    settings = small.settings(tiny_models.save(tmp_path / "model", family, **changes), lora_dropout=0.0)
    _, _, model = loading.load(settings)
    with adapted(model, settings) as adapter:
        generator = torch.Generator().manual_seed(0)
        for name, parameter in adapter.named_parameters():
            if "lora_" in name:
                parameter.data.normal_(generator=generator).mul_(0.1)
        wanted = [parameter for parameter in adapter.parameters() if parameter.requires_grad]
        adapter.eval()  # gpt2 has dropout of its own
        found = summed_nll(model, ROWS, plain_head=plain_head)
        gradients = torch.autograd.grad(found / 7, wanted)
        expected = torch.zeros(())
        for row in ROWS:
            ids = torch.tensor([list(row.ids)])
            logits = adapter(input_ids=ids).logits[0, row.start - 1 : -1]
            expected = expected + torch.nn.functional.cross_entropy(logits, ids[0, row.start :], reduction="sum")
        assert found.item() == pytest.approx(expected.item(), rel=1e-5)
        for mine, plain in zip(gradients, torch.autograd.grad(expected / 7, wanted), strict=True):
            assert torch.allclose(mine, plain, rtol=1e-3, atol=1e-5 * float(plain.abs().max()) + 1e-7)
    assert not any("lora" in name for name, _ in model.named_parameters())
    assert not hasattr(model, "peft_config")
