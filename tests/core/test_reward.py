"""Rewards against a plain forward of transformers, one row at a time; loads that must fail; rows that must be NULL."""

from __future__ import annotations

import json
import random
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import ModelError
from core.example import Example
from core.reward import Reward, RewardSettings, good_class
from core.reward_text import Text, question_of
from tests.core import tiny_models, tiny_reward
from tests.core.tight_memory import run_program

EXAMPLES = [
    Example("Name a colour.", "", "Blue."),
    Example("Add the numbers.", "2 and 3", "They give 5, as two and three are five."),
    Example("Übersetze: <b>Hund</b>", "", "“dog” 🐕 \n\n with a second line"),
    Example("", "Only an input.", "Then the input alone is the question."),
    Example("Say it.", "", "word " * 60),
    Example("Name a colour.", "", "Red, which is a longer answer than the first one."),
]
KINDS: dict[str, dict[str, Any]] = {
    "deberta": {"family": "deberta-v2"},
    "deberta of two logits": {"family": "deberta-v2", "labels": 2},
    "bert": {"family": "bert"},
    "llama without pad token": {"family": "llama"},
    "llama with a pad token of its own": {"family": "llama", "pad_token_id": 300},
    "llama that pads with its EOS": {"family": "llama", "pad_token_id": 1},
    "qwen of two logits": {"family": "qwen2", "labels": 2},
    "gpt2": {"family": "gpt2"},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("rewards")
    return {kind: tiny_reward.save(home / kind.replace(" ", "-"), **wanted) for kind, wanted in KINDS.items()}


@pytest.fixture
def copied(folders: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(folders["deberta"], tmp_path / "copy"))


def load(folder: Path, **changes: Any) -> Reward:
    return Reward.load(RewardSettings(str(folder), **({"max_length": 500} | changes)))


def rewards_of(model: Reward, examples: list[Example]) -> list[float]:
    values = model.score(examples)
    assert [value.reason for value in values] == [None] * len(examples)
    return [float(value.value) for value in values if value.value is not None]


def plain(folder: Path, examples: list[Example], *, form: str) -> list[float]:
    """One row at a time through transformers, as a model card shows it."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = []
    for one in examples:
        question = one.instruction + ("\n" + one.input if one.input else "")
        if form == "pair":
            inputs = dict(tokenizer(question, one.output, return_tensors="pt"))
        else:
            turns = [{"role": "user", "content": question}, {"role": "assistant", "content": one.output}]
            inputs = dict(tokenizer.apply_chat_template(turns, return_tensors="pt", return_dict=True))
        if model.config.model_type != "bert":
            inputs.pop("token_type_ids", None)
        with torch.no_grad():
            logits = model(**inputs).logits[0]
        found.append(float(logits[0]) if len(logits) == 1 else float(logits[1] - logits[0]))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_rewards_are_those_of_a_plain_forward_of_one_row(folders, kind):
    model = load(folders[kind])
    form = "pair" if kind.startswith(("deberta", "bert")) else "chat"
    assert model.settings.form == form
    found = rewards_of(model, EXAMPLES)
    assert found == pytest.approx(plain(folders[kind], EXAMPLES, form=form), abs=1e-5)
    assert len(set(found)) == len(found)  # else the model would not look at its text


def test_a_decoder_can_be_asked_for_pairs_and_the_form_matters(folders):
    folder = folders["llama without pad token"]
    asked = EXAMPLES[:2]
    pairs = rewards_of(load(folder, form="pair"), asked)
    assert pairs == pytest.approx(plain(folder, asked, form="pair"), abs=1e-5)
    assert pairs != pytest.approx(rewards_of(load(folder), asked), abs=1e-3)


texts = st.text(st.sampled_from("ab \n.é</s>"), max_size=40)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(texts, texts, st.text(st.sampled_from("xyz ,"), min_size=1, max_size=90)), min_size=1),
    budget=st.integers(1, 1500),
    kind=st.sampled_from(sorted(KINDS)),
    seed=st.integers(0, 9),
)
def test_no_batch_changes_a_reward(loaded, rows, budget, kind, seed):
    model = loaded[kind]
    examples = [Example(*row) for row in rows] + EXAMPLES[:2]
    alone = [model.score([one])[0] for one in examples]
    order = list(range(len(examples)))
    random.Random(seed).shuffle(order)
    model._batcher.budget = budget
    together = model.score([examples[i] for i in order])
    for i, value in zip(order, together, strict=True):
        assert value.reason == alone[i].reason
        if value.value is not None:
            assert value.value == pytest.approx(alone[i].value, abs=1e-5)


@pytest.fixture(scope="module")
def loaded(folders: dict[str, Path]) -> dict[str, Reward]:
    return {kind: load(folder) for kind, folder in folders.items()}


def test_all_kinds_are_batched_with_padding(loaded):
    assert [kind for kind, model in loaded.items() if not model._pads] == []


def test_a_model_whose_rewards_padding_would_change_is_run_without_padding(tmp_path):
    # XLNet reads its reward at the last place of the row, be it filling or not.
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = AutoConfig.for_model("xlnet", vocab_size=320, d_model=32, n_layer=2, n_head=4, d_inner=64, num_labels=1)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    tiny_reward.pair_tokenizer().save_pretrained(tmp_path)
    model = load(tmp_path)
    assert not model._pads
    together = rewards_of(model, EXAMPLES)
    assert together == pytest.approx([rewards_of(model, [one])[0] for one in EXAMPLES], abs=1e-5)


def test_where_every_token_ends_some_text_rows_are_not_filled_up(folders, monkeypatch):
    # Without a pad token any token that ends no text can fill up rows, but there may be none.
    model = load(folders["llama without pad token"], form="pair")
    before = rewards_of(model, EXAMPLES)
    assert model._filling([Text((5, 0)), Text((5, 2)), Text((5, 1))]) == 3
    model._words = 1  # every token of this vocabulary, which is number 0, ends one of the texts
    assert model._filling([Text((5, 0))]) is None
    monkeypatch.setattr(model, "_filling", lambda _texts: None)
    assert rewards_of(model, EXAMPLES) == pytest.approx(before, abs=1e-5)


@pytest.mark.parametrize(
    ("labels", "good"),
    [
        (["LABEL_0", "LABEL_1"], 1),
        (["NEGATIVE", "POSITIVE"], 1),
        (["good", "bad"], 0),
        (["Chosen", "other"], 0),
        (["toxic", "neutral"], 1),
        (["something", "bad"], 0),
    ],
)
def test_which_of_two_logits_is_the_good_one(labels, good):
    config: Any = SimpleNamespace(num_labels=2, problem_type=None, id2label=dict(enumerate(labels)))
    assert good_class(config) == good


def test_the_sign_follows_the_names_of_the_classes(folders, tmp_path):
    folder = Path(shutil.copytree(folders["deberta of two logits"], tmp_path / "copy"))
    edit_config(folder, id2label={"0": "good", "1": "bad"}, label2id={"good": 0, "bad": 1})
    before = rewards_of(load(folders["deberta of two logits"]), EXAMPLES)
    assert rewards_of(load(folder), EXAMPLES) == pytest.approx([-reward for reward in before], abs=1e-6)


def test_what_cannot_be_computed_is_null_with_a_reason(folders):
    values = load(folders["deberta"], max_length=40).score(
        [Example("Ask.", "", ""), Example("Ask.", "", " \n\t"), Example("x" * 100, "", "yes"), Example("Ask.", "", "y")]
    )
    assert [value.value is None for value in values] == [True, True, True, False]
    assert [value.reason for value in values[:2]] == ["The response is empty."] * 2
    assert values[2].reason == ("The request alone fills max_length (40 tokens); nothing of the response is left.")
    assert not any(value.transient for value in values)


@pytest.mark.parametrize("kind", ["deberta", "llama without pad token"])
def test_a_long_text_loses_the_tail_of_its_response_and_nothing_else(folders, kind):
    model = load(folders[kind], max_length=64)
    tokenizer = model._form.tokenizer
    long = model._form.encode([("Question?", "0123456789" * 20)])[0]
    assert not isinstance(long, str)
    assert len(long.ids) == 64
    text = tokenizer.decode(list(long.ids))
    if kind == "deberta":
        assert text == "[CLS]Question?[SEP]" + ("0123456789" * 20)[: 64 - 12] + "[SEP]"
    else:
        assert text.startswith("<s>[user] Question?</s><s>[assistant] 0123456789")
        assert text.endswith("</s>")  # where the model is read out
    (whole,) = rewards_of(model, [Example("Question?", "", "0123456789" * 20)])
    kept = "".join(c for c in text.split("Question?")[1] if c.isdigit())
    assert whole == pytest.approx(rewards_of(model, [Example("Question?", "", kept)])[0], abs=1e-6)


def test_a_cut_through_a_character_of_several_tokens(folders):
    model = load(folders["llama without pad token"], max_length=60)
    for n in range(4):
        long = model._form.encode([("Q" * (10 + n), "🐕" * 30)])[0]
        assert not isinstance(long, str)
        assert 60 - 4 < len(long.ids) <= 60
        assert "\ufffd" not in model._form.tokenizer.decode(list(long.ids))


def test_a_request_that_fills_a_chat(folders):
    (value,) = load(folders["llama without pad token"], max_length=60).score([Example("Q" * 60, "", "Yes.")])
    assert value.value is None
    assert "The request alone fills max_length" in str(value.reason)


def test_a_chat_template_that_refuses_a_row_makes_that_row_null(tmp_path):
    strict = "{% if 'forbidden' in messages[0]['content'] %}{{ raise_exception('no') }}{% endif %}" + tiny_reward.CHAT
    folder = tiny_reward.save(tmp_path, "llama", words=tiny_models.tokenizer(chat_template=strict))
    good, bad = load(folder).score([Example("Ask.", "", "Yes."), Example("forbidden", "", "Yes.")])
    assert good.value is not None
    assert "chat template" in str(bad.reason)


def test_a_reward_that_is_not_finite_is_null(folders, tmp_path):
    # The word "~" alone has weights that are not numbers, as a damaged finetune may have.
    import torch
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(folders["llama without pad token"], tmp_path / "copy"))
    path = folder / "model.safetensors"
    weights = load_file(path)
    weights["model.embed_tokens.weight"][tiny_models.tokenizer(bos=False)("~")["input_ids"][0]] = torch.nan
    save_file(weights, path, metadata={"format": "pt"})
    good, bad = load(folder).score([Example("Ask.", "", "Yes."), Example("Ask.", "", "Yes~")])
    assert good.value is not None
    assert "not a finite number" in str(bad.reason)


def test_equal_texts_are_run_once_and_progress_counts_them_once(folders):
    model = load(folders["deberta"])
    told: list[tuple[int, int]] = []
    values = model.score([EXAMPLES[0], EXAMPLES[1]] * 5, lambda done, total: told.append((done, total)))
    assert values[0] == values[8]
    asked = [(question_of(one), one.output) for one in EXAMPLES[:2]]
    n_tokens = sum(len(model._form.tokenizer(*pair)["input_ids"]) for pair in asked)
    assert told[-1] == (n_tokens, n_tokens)
    assert model.score([]) == []


def test_sixteen_bits_keep_the_head_in_float32(folders):
    # Rounded to bfloat16, rewards near 1 are multiples of 0.008, and a dataset is full of ties.
    import torch

    for kind in ("deberta", "llama without pad token"):
        exact = rewards_of(load(folders[kind]), EXAMPLES)
        short = rewards_of(load(folders[kind], dtype="bfloat16"), EXAMPLES)
        assert short == pytest.approx(exact, abs=0.1)
        assert any(float(torch.tensor(reward).bfloat16()) != reward for reward in short)


@pytest.mark.parametrize("kind", ["deberta", "llama without pad token"])
def test_on_a_gpu(folders, kind):
    import torch

    if not torch.cuda.is_available():
        pytest.skip("this machine has no GPU")
    exact = rewards_of(load(folders[kind]), EXAMPLES)
    assert rewards_of(load(folders[kind], device="cuda"), EXAMPLES) == pytest.approx(exact, abs=1e-3)


def error_of(model: object, **changes: Any) -> str:
    with pytest.raises(ModelError) as caught:
        Reward.load(RewardSettings(str(model), **changes))
    return str(caught.value)


def edit_config(folder: Path, **changes: object) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def test_models_that_are_no_sequence_classifiers(tmp_path):
    causal = tiny_models.save(tmp_path / "causal", "llama")
    assert "was saved as LlamaForCausalLM: it has no trained head" in error_of(causal)
    # With no class named it is the head that is missed, not the class.
    assert "not those of a sequence classifier" in error_of(edit_config(causal, architectures=None))


def test_a_reward_model_with_code_of_its_own_is_named_and_not_run(copied, tmp_path):
    proof = tmp_path / "ran"
    (copied / "modeling_evil.py").write_text(f"open({str(proof)!r}, 'w').close()\n")
    auto_map = {"AutoConfig": "modeling_evil.C", "AutoModelForSequenceClassification": "modeling_evil.M"}
    edit_config(copied, model_type="gpt_neox_reward_model", architectures=["GPTNeoXRewardModel"], auto_map=auto_map)
    message = error_of(copied)
    assert "saved as GPTNeoXRewardModel" in message
    assert "code of its own, which is never run here" in message
    # Under the name of a class that transformers knows the code is refused as well.
    assert "configuration" in error_of(edit_config(copied, architectures=["LlamaForSequenceClassification"]))
    assert not proof.exists()


def test_a_head_that_is_no_reward(folders, tmp_path, copied):
    assert "this one has 3" in error_of(tiny_reward.save(tmp_path / "three", "deberta-v2", labels=3))
    folder = Path(shutil.copytree(folders["deberta of two logits"], tmp_path / "two"))
    assert "answer two questions" in error_of(edit_config(folder, problem_type="regression"))


def test_missing_and_damaged_weights(copied):
    from safetensors.torch import load_file, save_file

    path = copied / "model.safetensors"
    weights = load_file(path)
    classifier = weights.pop("classifier.weight")
    save_file(weights, path, metadata={"format": "pt"})
    assert "missing or of another shape, such as classifier.weight" in error_of(copied)
    save_file(weights | {"classifier.weight": classifier.repeat(2, 1)}, path, metadata={"format": "pt"})
    assert "cannot be loaded" in error_of(copied)
    path.write_bytes(path.read_bytes()[:500])
    assert "weights" in error_of(copied)
    path.unlink()
    assert "weights" in error_of(copied)


def test_a_folder_without_tokenizer_and_a_tokenizer_of_another_model(copied, tmp_path):
    for path in copied.glob("tokenizer*"):
        path.unlink()
    assert "has no tokenizer" in error_of(copied)
    assert "does not belong to its weights" in error_of(tiny_reward.save(tmp_path / "o", "deberta-v2", vocab_size=40))


def test_settings_that_do_not_fit(folders, tmp_path):
    deberta = folders["deberta"]
    assert "no form 'chats'" in error_of(deberta, form="chats")
    assert "no chat template; choose the form pair" in error_of(deberta, form="chat")
    assert "has 512 positions; choose 512 or less" in error_of(deberta, max_length=513)
    assert "2 or more" in error_of(deberta, max_length=1)
    assert "no dtype 'int4'" in error_of(deberta, dtype="int4")
    assert "does not exist" in error_of(tmp_path / "nowhere")
    # RoBERTa counts positions from its padding token's on: of 512 places 511 are left, and 512 tokens would fail.
    roberta = tiny_reward.save(tmp_path / "roberta", "roberta")
    assert "has 511 positions" in error_of(roberta, max_length=512)
    assert rewards_of(load(roberta, max_length=511), [Example("Ask.", "", "word " * 200)])


def test_the_revision_is_kept(copied):
    model = load(copied)
    assert str(model.settings.revision).startswith("local-")
    edit_config(copied, layer_norm_eps=1e-3)
    assert "another one than before" in error_of(copied, revision=model.settings.revision)


MEMORY = """
import json, resource, sys
from core.example import Example
from core.reward import Reward, RewardSettings

model = Reward.load(RewardSettings(sys.argv[1], max_length=1000))
model._batcher.budget = 2048  # as on a GPU, so that the batches are too large
short = [Example(f"Ask {i}.", "", f"Answer number {i}.") for i in range(24)]
free = model.score(short)
budget = model._batcher.budget
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), resource.RLIM_INFINITY))
tight = model.score([*short, Example("Ask.", "", "word " * 180)])
print(json.dumps({
    "difference": max(abs(a.value - b.value) for a, b in zip(free, tight)),
    "budget": [budget, model._batcher.budget], "long": [tight[-1].value, tight[-1].reason, tight[-1].transient],
}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space are tried on Linux only")
def test_out_of_memory_halves_the_budget_and_a_row_that_does_not_fit_alone_is_null_and_transient(tmp_path):
    # 16,384 numbers between the layers: 900 tokens take 59 MB for each of them, 60 tokens 4 MB.
    folder = tiny_reward.save(tmp_path, "llama", intermediate_size=16384, num_hidden_layers=1)
    told, said = run_program(MEMORY, str(folder), home=tmp_path)
    before, after = told["budget"]
    assert after < before
    assert told["difference"] < 1e-5
    assert told["long"] == [None, "The reward model ran out of memory on this text alone.", True]
    assert said.count("ran out of memory") == 1  # logged once, whatever happens after
