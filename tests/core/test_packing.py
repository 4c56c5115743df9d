"""Packing: sequences in one row must not see each other, for whatever model; one that cannot be packed is padded."""

from __future__ import annotations

import itertools
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core import packed_attention, packing, packing_probe
from core.example import Example
from core.lm import LOSS_KEYS, Student, StudentSettings
from core.span_losses import Way
from core.spans import Span, shared_prefixes
from tests.core import tiny_models

PACKED = {
    "llama": {},
    "gpt2": {},
    "qwen2": {},
    "mistral": {"sliding_window": 24},
    "gemma3_text": {"sliding_window": 24},
    "gpt_neox": {},
    "mixtral": {"num_local_experts": 4},
    "cohere": {},
}
PADDED = {"gemma2": {"sliding_window": 24}, "bloom": {}, "mamba": {}}
"""Attention scores that are capped, or biased by distance; and no attention at all."""

ROWS = [
    Example(
        f"Ask {i} " + "why " * (i % 7), "" if i % 3 else "given " * (i % 5 + 1), "Say " + "word " * (i * 3 % 40 + 1)
    )
    for i in range(40)
]


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    folder = tiny_models.save(tmp_path_factory.mktemp("llama"), "llama")
    return Student.load(StudentSettings(str(folder), template="alpaca"))


def _worst(one, other):
    return max(abs(a[key].loss_nats - b[key].loss_nats) for a, b in zip(one, other, strict=True) for key in a)


def _padded(student, rows=ROWS):
    """The same student, run in the plainest way: a row for each text."""
    way, student._way = student._way, Way(student._way.plain_head, packed=False)
    try:
        return student.score(rows)
    finally:
        student._way = way


@pytest.mark.parametrize("family", PACKED)
def test_families_are_packed_and_give_the_losses_of_padded_rows(tmp_path, family):
    folder = tiny_models.save(tmp_path, family, **PACKED[family])
    student = Student.load(StudentSettings(str(folder), template="alpaca"))
    assert student._way.packed
    assert student._way.n_layers == 2
    assert _worst(student.score(ROWS), _padded(student)) < 1e-5


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_packed_too(tmp_path, dtype):
    """A probe by the largest difference once took the rounding of 12 layers for another model, and padded."""
    folder = tiny_models.save(tmp_path, "llama", num_hidden_layers=12)
    student = Student.load(StudentSettings(str(folder), template="alpaca", dtype=dtype))
    assert student._way.packed
    some = ROWS[::4]  # 12 layers in half precision take their time on a CPU
    assert _worst(student.score(some), _padded(student, some)) < 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_probe_sees_attention_that_strays(tmp_path, monkeypatch, dtype):
    """Were sequences not kept apart, the model must not be packed, in any precision."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_models.save(tmp_path, "llama"), dtype=dtype).eval()
    kept = packed_attention._on_cpu

    def stray(query, key, value, layout, **options):
        """As if all were one sequence."""
        n = query.shape[1]
        whole = packing.Packing.of(n_prefix=0, lengths=[n], wanted=[n], device=query.device, n_layers=None)
        return kept(query, key, value, whole, **{**options, "narrow": False})

    monkeypatch.setattr(packed_attention, "_on_cpu", stray)
    assert packing_probe.can_pack(model, longest=100) == (False, None)
    monkeypatch.undo()
    assert packing_probe.can_pack(model, longest=100) == (True, 2)


@pytest.mark.parametrize("family", PADDED)
def test_models_with_another_kind_of_attention_are_padded_and_keep_their_own(tmp_path, family):
    folder = tiny_models.save(tmp_path, family, **PADDED[family])
    student = Student.load(StudentSettings(str(folder), template="alpaca"))
    assert not student._way.packed
    model: Any = student._model
    assert model.config._attn_implementation != packing.ATTENTION
    assert all(loss.loss_nats is not None for row in student.score(ROWS) for loss in row.values())


def _loss_y(student, rows):
    loss = student.score(rows, ["loss_y"])[0]["loss_y"]
    return loss.loss_nats


def test_a_window_of_attention_is_kept(tmp_path):
    """A window of 24 tokens matters in texts of 200: without it the loss is another one."""
    folder = tiny_models.save(tmp_path / "narrow", "mistral", sliding_window=24)
    narrow = Student.load(StudentSettings(str(folder), template="alpaca"))
    wide = Student.load(
        StudentSettings(str(tiny_models.save(tmp_path / "wide", "mistral", sliding_window=900)), template="alpaca")
    )
    long = [Example("Ask.", "", "Say " + "many words " * 40)]
    found = _loss_y(narrow, long)
    assert abs(found - _loss_y(wide, long)) > 2e-5
    span, model = narrow.prepare(long, ["loss_y"]).spans[0]["loss_y"], cast(Any, narrow._model)
    assert isinstance(span, Span)
    with torch.inference_mode():
        ids = torch.tensor([span.ids])
        expected = model(input_ids=ids, labels=ids).loss  # transformers' own mask and attention
    assert found == pytest.approx(float(expected), abs=2e-6)


@settings(max_examples=30)
@given(data=st.data())
def test_what_shares_a_batch_changes_no_loss(llama, data):
    """Any rows in any order under any budget: a loss is that of its row alone."""
    rows = data.draw(st.lists(st.sampled_from(ROWS), min_size=1, max_size=40))
    budget = data.draw(st.integers(1, 4000))
    keys = data.draw(st.lists(st.sampled_from(LOSS_KEYS), min_size=1, unique=True))
    before, llama._batcher.budget = llama._batcher.budget, budget
    try:
        together = llama.score(rows, keys)
    finally:
        llama._batcher.budget = before
    alone = [llama.score([row], keys)[0] for row in rows]
    assert _worst(together, alone) < 1e-5


@settings(max_examples=60)
@given(
    heads=st.sampled_from([(2, 2), (4, 2)]),
    n_prefix=st.integers(0, 70),
    lengths=st.lists(st.integers(1, 150), min_size=1, max_size=5),
    window=st.one_of(st.none(), st.integers(1, 90)),
    narrow=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    data=st.data(),
)
def test_attention_is_that_of_each_sequence_alone(heads, n_prefix, lengths, window, narrow, dtype, data):
    wanted = [data.draw(st.integers(1, n)) for n in lengths]
    layout = packing.Packing.of(
        n_prefix=n_prefix, lengths=lengths, wanted=wanted, device=torch.device("cpu"), n_layers=1 if narrow else None
    )
    torch.manual_seed(0)
    n_tokens = n_prefix + sum(lengths)
    query = torch.randn(heads[0], n_tokens, 8)
    key, value = torch.randn(heads[1], n_tokens, 8), torch.randn(heads[1], n_tokens, 8)
    with packing.packed(layout):
        q, k, v = (one.to(dtype) for one in (query, key, value))
        found = packed_attention._on_cpu(q, k, v, layout, scale=0.3, narrow=narrow, window=window).float()
    first = n_prefix
    for length, n in zip(lengths, wanted, strict=True):
        places = [*range(n_prefix), *range(first, first + length)]
        k, v = (one[:, places].repeat_interleave(heads[0] // heads[1], 0) for one in (key, value))
        scores = 0.3 * query[:, places] @ k.transpose(1, 2)
        here = torch.arange(len(places))
        hidden = here[None] > here[:, None]
        if window is not None:
            hidden |= here[None] <= here[:, None] - window
        expected = scores.masked_fill(hidden, float("-inf")).softmax(-1) @ v
        rows = n if narrow else length
        difference = found[first + length - rows : first + length].transpose(0, 1) - expected[:, -rows:]
        assert float(difference.abs().max()) < (1e-5 if dtype == torch.float32 else 0.06)
        first += length


def test_the_layout_for_the_gpu_names_the_keys_that_each_query_sees():
    """Variable-length attention is told by places and ends; here they are read back one sequence at a time."""
    layout = packing.Packing.of(n_prefix=2, lengths=(3, 2), wanted=(1, 2), device=torch.device("cpu"), n_layers=1)
    _, keys, ends_query, ends_key, most_queries, most_keys = packed_attention._cuda_layout(
        layout, narrow=False, device=torch.device("cpu")
    )
    assert [keys[a:b].tolist() for a, b in itertools.pairwise(ends_key)] == [
        [0, 1],
        [0, 1, 2, 3, 4],
        [0, 1, 5, 6],
    ]
    assert ends_query.tolist() == [0, 2, 5, 7]
    assert (most_queries, most_keys) == (3, 5)
    queries, keys, ends_query, ends_key, *_ = packed_attention._cuda_layout(
        layout, narrow=True, device=torch.device("cpu")
    )
    assert queries.tolist() == [4, 5, 6]
    assert ends_query.tolist() == [0, 1, 3]
    assert ends_key.tolist() == [0, 5, 9]


def test_spans_that_begin_alike_share_their_beginning_and_never_a_scored_token():
    preamble, ask = tuple(range(100, 140)), tuple(range(200, 230))
    short = [Span((*preamble, 1000 + i, 5, 6, 7), 42) for i in range(30)]
    long = [Span((*preamble, *ask, 2000 + i, 8, 9), 72) for i in range(30)]
    alone = [Span((0, i, i + 1), 1) for i in range(30)]
    found = shared_prefixes([*short, *long, *alone])
    assert found == [40] * 30 + [70] * 30 + [0] * 30
    early = [Span((*preamble, 1, 2, i), 20) for i in range(30)]  # scored from token 20: 19 may be shared
    assert shared_prefixes(early) == [19] * 30
    assert shared_prefixes(short[:5]) == [0] * 5


def test_a_loss_whose_exponentials_overflow_is_computed_the_careful_way():
    """exp(200) is no float32; the loss of it is."""
    from core.span_losses import _tiled_nll

    head = torch.nn.Linear(4, 5000, bias=True)
    with torch.no_grad():
        head.weight.normal_()
        hidden = torch.tensor([[150.0, 0, 0, 0], [0.1, 0.2, 0, 0], [-0.5, 0, 90.0, 1]])
        targets = torch.tensor([7, 4999, 2048])
        logits = torch.nn.functional.linear(hidden.double(), head.weight.double(), head.bias.double())
        expected = logits.logsumexp(-1) - logits.gather(-1, targets[:, None]).squeeze(-1)
        found = _tiled_nll(head, hidden, targets)
    assert float(logits.max()) > 150
    assert torch.allclose(found.double(), expected, rtol=1e-5, atol=1e-5)
