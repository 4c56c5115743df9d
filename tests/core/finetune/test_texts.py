"""The tokens a run trains on, and their order."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from core.errors import ModelError
from core.example import Example
from core.finetune.texts import RowEncoder, n_steps, plan_batches
from core.prompts import forward_prompt
from core.spans import TextEncoder
from tests.core import tiny_models


def encoder(max_length: int = 200, template: str = "alpaca", **options: Any) -> RowEncoder:
    return RowEncoder(TextEncoder(tiny_models.tokenizer(**options)), template=template, max_length=max_length)


def test_prompt_and_response_are_encoded_together_and_eos_follows():
    example = Example("Add.", "2 + 2", "4 it is")
    words = tiny_models.tokenizer()
    (row,) = encoder(max_length=400).rows([example]).rows
    prompt = forward_prompt(example, template="alpaca")
    assert list(row.ids) == [*words(prompt + example.output)["input_ids"], words.eos_token_id]
    assert row.start == len(words(prompt)["input_ids"])
    assert words.decode(list(row.ids[row.start : -1])) == "4 it is"


def test_a_tokenizer_that_adds_eos_itself_gives_one_and_one_without_eos_gives_none():
    (row,) = encoder(max_length=400, eos=True).rows([Example("Add.", "", "4")]).rows
    assert list(row.ids).count(1) == 1
    without = encoder(max_length=400)
    without._encoder.tokenizer.eos_token = None
    (row,) = without.rows([Example("Add.", "", "4")]).rows
    assert 1 not in row.ids


def test_the_tail_of_a_long_response_is_cut_and_then_no_eos_follows():
    example = Example("Add.", "", "word " * 100)
    start = len(tiny_models.tokenizer()(forward_prompt(example, template="alpaca"))["input_ids"])
    (row,) = encoder(max_length=start + 7).rows([example]).rows
    assert (row.start, len(row.ids)) == (start, start + 7)
    assert row.ids[-1] != 1


def test_rows_without_a_response_token_are_left_out_and_counted_by_reason():
    examples = [Example("a", "", ""), Example("b", "", "yes"), Example("c " * 300, "", "no"), Example("a", "", "")]
    found = encoder().rows(examples)
    assert len(found.rows) == 1
    assert found.skipped == {
        "The response is empty.": 2,
        "The prompt alone fills max_length (200 tokens); nothing is left to score.": 1,
    }
    assert found.n_train_tokens == len("yes") + 1, "a byte is a token here, and EOS is trained"


def test_chat_without_a_chat_template_is_refused():
    with pytest.raises(ModelError, match="no chat template"):
        encoder(template="chat").rows([Example("a", "", "b")])


@pytest.mark.parametrize(
    ("epochs", "max_steps", "steps"), [(1.0, 0, 5), (3.0, 0, 15), (0.5, 0, 3), (0.01, 0, 1), (3.0, 7, 7), (0.0, 9, 9)]
)
def test_the_number_of_steps(epochs, max_steps, steps):
    assert n_steps(40, batch_size=8, epochs=epochs, max_steps=max_steps) == steps


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("n", [1, 7, 8, 41, 1000])
def test_every_epoch_holds_every_row_once_in_another_order(n, grouped):
    lengths = [10 + (i * 37) % 90 for i in range(n)]
    per_epoch = -(-n // 8)
    batches = plan_batches(lengths, batch_size=8, steps=3 * per_epoch, seed=5, grouped=grouped)
    epochs = [batches[i * per_epoch : (i + 1) * per_epoch] for i in range(3)]
    for epoch in epochs:
        assert Counter(i for batch in epoch for i in batch) == Counter(range(n))
        assert sorted(map(len, epoch))[1:] == [8] * (per_epoch - 1)
    if n > 8:
        assert epochs[0] != epochs[1]
    assert plan_batches(lengths, batch_size=8, steps=per_epoch, seed=5, grouped=grouped) == epochs[0]
    if n > 8:
        assert plan_batches(lengths, batch_size=8, steps=per_epoch, seed=6, grouped=grouped) != epochs[0]


def test_grouping_spares_padding_and_leaves_no_order_by_length():
    lengths = [10 + (i * 37) % 90 for i in range(1000)]

    def padded(batches: list[list[int]]) -> int:
        return sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)

    grouped, plain = (plan_batches(lengths, batch_size=8, steps=125, seed=0, grouped=one) for one in (True, False))
    assert padded(grouped) < 1.1 * sum(lengths) < 1.4 * sum(lengths) < padded(plain)
    widths = [max(lengths[i] for i in batch) for batch in grouped]
    assert widths != sorted(widths)
    assert widths != sorted(widths, reverse=True)
