"""Losses of target spans: equal to the released script's, to a plain forward, and to themselves in any batch."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import ModelError
from core.example import Example
from core.lm import LOSS_KEYS, Student, StudentSettings
from core.prompts import forward_prompt, reverse_prompt
from core.spans import TextEncoder, build_spans
from tests.core import tiny_models

REFERENCE = Path(__file__).parents[2] / "../shared/reference"
needs_reference = pytest.mark.skipif(not REFERENCE.is_dir(), reason="the reference outputs (../shared) are not here")

ROWS = [
    Example("Name three fruits.", "", "Apples, pears and plums."),
    Example("Sort the words.", "pear, apple", "apple, pear"),
    Example("Say hi.", "", "Hi!"),
    Example("Write a long answer about rivers.", "The Nile; the Rhine", "A river flows. " * 12),
    Example("Was ist das?", "", "Ein Fluß — größer als ein Bach. 🙂"),
]


def reference_rows() -> list[Example]:
    data = json.loads((REFERENCE / "rows.json").read_text(encoding="utf-8"))
    return [Example(row["instruction"], row["input"], row["output"]) for row in data]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("students")
    return {
        "llama": tiny_models.save(home / "llama", "llama"),
        "gpt2": tiny_models.save(home / "gpt2", "gpt2", words=tiny_models.tokenizer(bos=False)),
    }


def plain_losses(student: Student, example: Example) -> dict[str, float | None]:
    """The four losses by the plainest way: batch 1, all logits, the model's own loss."""
    import torch

    model: Any = student._model
    length, template = student.settings.max_length, student.settings.template

    def encode(text: str) -> list[int]:
        return list(student.encoder.encode([text])[text])

    def loss(ids: list[int], start: int) -> float | None:
        if len(ids) <= max(start, 1):
            return None
        batch = torch.tensor([ids])
        labels = batch.clone()
        labels[0, :start] = -100
        with torch.no_grad():
            return float(model(input_ids=batch, labels=labels).loss)

    asked = example.instruction + example.input
    found = {}
    for given_key, alone_key, prompt, target in (
        ("loss_y_given_x", "loss_y", forward_prompt(example, template=template), example.output),
        ("loss_x_given_y", "loss_x", reverse_prompt(example, template=template), asked),
    ):
        start = len(encode(prompt))
        found[given_key] = loss(encode(prompt + target)[:length], start)
        found[alone_key] = loss(encode(target)[: max(0, length - start + 1)], 0)
    return found


def assert_equal_losses(student: Student, examples: list[Example], *, within: float) -> None:
    for example, losses in zip(examples, student.score(examples), strict=True):
        for key, expected in plain_losses(student, example).items():
            found = losses[key].loss_nats
            if expected is None:
                assert found is None, (example, key)
                assert losses[key].reason
            else:
                assert found == pytest.approx(expected, abs=within), (example, key)


@needs_reference
@pytest.mark.parametrize(
    ("model", "template", "max_length"), [("llama", "alpaca", 2048), ("llama", "vicuna", 160), ("gpt2", "alpaca", 1024)]
)
def test_agrees_with_the_released_script(model, template, max_length):
    student = Student.load(
        StudentSettings(str(REFERENCE / f"student-{model}"), template=template, max_length=max_length)
    )
    lines = (REFERENCE / f"losses_{model}_{template}_{max_length}.jsonl").read_text().splitlines()
    found = student.score(reference_rows())
    assert len(found) == len(lines) == 64
    for row, (losses, line) in enumerate(zip(found, lines, strict=True)):
        published = json.loads(line)["loss"]
        for key, expected in zip(("loss_x", "loss_y", "loss_x_given_y", "loss_y_given_x"), published, strict=True):
            if math.isnan(expected):
                assert losses[key].loss_nats is None, (row, key)
                assert losses[key].reason, (row, key)
                assert losses[key].n_tokens == 0
            else:
                assert losses[key].loss_nats == pytest.approx(expected, abs=1e-4), (row, key)
                assert losses[key].n_tokens > 0


def script_start(encoder: TextEncoder, whole: str, looked_for: str) -> int:
    """Where the released script starts to score: the tokens before the last occurrence of a string in the text."""
    prefix = whole[: whole.rfind(looked_for)]
    return len(encoder.encode([prefix])[prefix])


def span_start(encoder: TextEncoder, example: Example, key: str) -> int:
    spans = build_spans([example], keys=[key], template="alpaca", max_length=2048, encoder=encoder)
    span = spans[0][key]
    assert not isinstance(span, str)
    return span.start


@needs_reference
@pytest.mark.parametrize("bos", [True, False])
def test_spans_start_where_the_script_starts_on_all_reference_rows(bos):
    # Why the agreement above needs no exception: on these rows the last occurrence is the target.
    encoder = TextEncoder(tiny_models.tokenizer(bos=bos))
    for row in reference_rows():
        forward = forward_prompt(row, template="alpaca") + row.output
        assert span_start(encoder, row, "loss_y_given_x") == script_start(encoder, forward, row.output)
        reverse = reverse_prompt(row, template="alpaca") + row.instruction + row.input
        assert span_start(encoder, row, "loss_x_given_y") == script_start(encoder, reverse, row.instruction)


@pytest.mark.parametrize(
    "row",
    [
        Example("Repeat it.", "She said: Repeat it.", "Fine."),  # the input repeats the instruction
        Example("a", "banana", "yellow"),  # the instruction is a short string
        Example("", "Only an input.", "Fine."),  # no instruction: the script scores nothing
    ],
)
def test_the_script_misplaces_the_target_here_and_the_parts_do_not(row):
    encoder = TextEncoder(tiny_models.tokenizer())
    prompt = reverse_prompt(row, template="alpaca")
    whole = prompt + row.instruction + row.input
    in_truth = len(encoder.encode([prompt])[prompt])
    assert script_start(encoder, whole, row.instruction) > in_truth
    assert span_start(encoder, row, "loss_x_given_y") == in_truth


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("template", ["alpaca", "vicuna", "wizardlm"])
def test_equals_a_plain_forward(folders, family, template):
    student = Student.load(StudentSettings(str(folders[family]), template=template))
    assert_equal_losses(student, ROWS, within=1e-5)


def test_equals_a_plain_forward_when_truncated(folders):
    student = Student.load(StudentSettings(str(folders["llama"]), template="wizardlm", max_length=48))
    found = student.score(ROWS)
    assert_equal_losses(student, ROWS, within=1e-5)
    # Both means run over the same tokens: the prompt is kept, the tail of the target is cut.
    for losses in found:
        if losses["loss_y_given_x"].loss_nats is not None:
            assert losses["loss_y"].n_tokens == losses["loss_y_given_x"].n_tokens


# Families that do something else between hidden states and logits, with positions, or without attention.
UNUSUAL: dict[str, dict[str, Any]] = {
    "gemma2": {"final_logit_softcapping": 2.0, "query_pre_attn_scalar": 8, "sliding_window": 16},
    "gemma3_text": {"sliding_window": 16, "query_pre_attn_scalar": 8},
    "cohere": {"logit_scale": 0.25},
    "granite": {"logits_scaling": 8.0, "embedding_multiplier": 12.0},
    "mistral": {"sliding_window": 12},
    "opt": {},
    "bloom": {},
    "phi": {"partial_rotary_factor": 0.5},
    "mamba": {},
}


@pytest.mark.parametrize("family", UNUSUAL)
def test_unusual_models_equal_their_own_forward(family, tmp_path):
    student = Student.load(
        StudentSettings(str(tiny_models.save(tmp_path, family, **UNUSUAL[family])), template="vicuna")
    )
    assert student._way.plain_head == (family not in ("gemma2", "cohere", "granite"))
    assert_equal_losses(student, ROWS, within=2e-5)


texts = st.text(st.characters(codec="utf-8"), max_size=60)
examples = st.builds(Example, texts, st.one_of(st.just(""), texts), texts)
REPEATED = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def small_batches(request: pytest.FixtureRequest, folders: dict[str, Path]) -> tuple[Student, Student]:
    """The same model with one row a batch, and with as many as there are."""
    model = str(folders[request.param])
    one = Student.load(StudentSettings(model, template="wizardlm", max_length=160, batch_tokens=1))
    return one, Student.load(StudentSettings(model, template="wizardlm", max_length=160))


@REPEATED
@given(rows=st.lists(examples, min_size=1, max_size=12))
def test_batch_composition_changes_no_loss(small_batches, rows):
    one, many = small_batches
    for alone, together in zip(one.score(rows), many.score(rows), strict=True):
        for key in LOSS_KEYS:
            assert alone[key].reason == together[key].reason
            assert alone[key].n_tokens == together[key].n_tokens
            if alone[key].loss_nats is not None:
                assert alone[key].loss_nats == pytest.approx(together[key].loss_nats, abs=1e-5)


@REPEATED
@given(row=examples)
def test_a_loss_is_a_number_over_tokens_or_null_with_a_reason(small_batches, row):
    _, student = small_batches
    for loss in student.score([row])[0].values():
        if loss.loss_nats is None:
            assert loss.reason
            assert loss.n_tokens == 0
            assert not loss.transient
        else:
            assert loss.reason is None
            assert loss.n_tokens > 0
            assert math.isfinite(loss.loss_nats)


def test_what_cannot_be_scored_is_null_with_its_reason(folders):
    student = Student.load(StudentSettings(str(folders["llama"]), template="wizardlm", max_length=256))
    no_response, no_request, long_prompt = student.score(
        [Example("Ask."), Example("", "", "Answer."), Example("word " * 100, "", "Answer.")]
    )
    assert no_response["loss_y"].reason == no_response["loss_y_given_x"].reason == "The response is empty."
    assert no_response["loss_x_given_y"].reason == "The response is empty."
    assert no_response["loss_x"].loss_nats is not None
    assert no_request["loss_x"].reason == no_request["loss_x_given_y"].reason == "Instruction and input are both empty."
    assert no_request["loss_y"].loss_nats is not None
    assert "prompt alone fills max_length (256 tokens)" in str(long_prompt["loss_y_given_x"].reason)
    assert "prompt alone fills max_length (256 tokens)" in str(long_prompt["loss_y"].reason)


def test_without_bos_the_first_token_is_not_scored(folders):
    with_bos = Student.load(StudentSettings(str(folders["llama"]))).score([Example("Ask.", "", "abc")])[0]
    without = Student.load(StudentSettings(str(folders["gpt2"]))).score([Example("Ask.", "", "abc")])[0]
    assert (with_bos["loss_y"].n_tokens, without["loss_y"].n_tokens) == (3, 2)
    assert with_bos["loss_y_given_x"].n_tokens == without["loss_y_given_x"].n_tokens == 3
    lone = Student.load(StudentSettings(str(folders["gpt2"]))).score([Example("Ask.", "", "a")])[0]
    assert lone["loss_y"].loss_nats is None
    assert "adds no BOS" in str(lone["loss_y"].reason)


def test_an_eos_that_the_tokenizer_adds_is_not_scored(folders, tmp_path):
    with_eos = tiny_models.save(tmp_path, "llama", words=tiny_models.tokenizer(eos=True))
    assert Student.load(StudentSettings(str(with_eos))).score(ROWS) == Student.load(
        StudentSettings(str(folders["llama"]))
    ).score(ROWS)


def test_chat_uses_the_tokenizers_own_template_with_one_bos(tmp_path):
    template = "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant] "
    folder = tiny_models.save(tmp_path, "llama", words=tiny_models.tokenizer(chat_template=template))
    student = Student.load(StudentSettings(str(folder), template="chat"))
    assert student.encoder.render_chat("Say hi.") == "[user] Say hi.\n[assistant] "
    spans = build_spans(
        [Example("Say hi.", "", "Hi!")],
        keys=["loss_y_given_x"],
        template="chat",
        max_length=99,
        encoder=student.encoder,
    )
    span = spans[0]["loss_y_given_x"]
    assert not isinstance(span, str)
    assert span.ids.count(0) == 1
    assert student.tokenizer.decode(span.ids[span.start :]) == "Hi!"


def test_the_same_text_is_run_once_and_progress_counts_tokens(folders):
    student = Student.load(StudentSettings(str(folders["llama"]), batch_tokens=1))
    calls: list[tuple[int, int]] = []
    found = student.score([ROWS[0]] * 5, on_progress=lambda done, total: calls.append((done, total)))
    assert all(losses == found[0] for losses in found)
    assert calls[-1][0] == calls[-1][1]
    only = student.score([ROWS[0]], ["loss_y"])
    assert list(only[0]) == ["loss_y"]
    assert only[0]["loss_y"] == found[0]["loss_y"]


def test_several_batches_at_once_give_the_same(folders):
    import torch

    threads = torch.get_num_threads()
    settings = StudentSettings(str(folders["llama"]), batch_tokens=256)
    torch.set_num_threads(1)
    try:
        alone = Student.load(settings).score(ROWS * 3)
        torch.set_num_threads(3)
        student = Student.load(settings)
        assert student._batcher.workers == 3
        assert student.score(ROWS * 3) == alone
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


def test_bfloat16_losses_are_near_and_float32(folders):
    exact = Student.load(StudentSettings(str(folders["llama"]))).score(ROWS)
    rounded = Student.load(StudentSettings(str(folders["llama"]), dtype="bfloat16")).score(ROWS)
    for one, other in zip(exact, rounded, strict=True):
        for key in LOSS_KEYS:
            assert one[key].loss_nats == pytest.approx(other[key].loss_nats, rel=0.1)


def test_tokens_are_counted_without_weights(folders):
    reader = Student.load(StudentSettings(str(folders["llama"])), weights=False)
    assert reader.count_tokens(["abc", "", "é"]) == [3, 0, 2]
    assert reader.settings.revision is not None
    with pytest.raises(ModelError, match="without its weights"):
        reader.score(ROWS)
