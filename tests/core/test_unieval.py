"""UniEval against the published two-loss form computed plainly; its texts to the letter; loads that must fail."""

from __future__ import annotations

import json
import math
import random
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import ModelError, SettingsError
from core.example import Example
from core.unieval import DIMENSIONS, UniEval, UniEvalSettings, text_of
from tests.core import tiny_models, tiny_unieval
from tests.core.tight_memory import run_program

EXAMPLES = [
    Example("Name a colour.", "", "Blue."),
    Example("Add the numbers.", "2 and 3", "They give 5, as two and three are five."),
    Example("Name a colour.", "", "<b>Red</b> \n which </s> is a longer answer."),
    Example("", "Only an input.", "Then the input alone is the history."),
    Example("Say it.", "", "word " * 60),
]
KINDS: dict[str, dict[str, Any]] = {
    "tied": {},
    "untied": {"tie_word_embeddings": False},
    "gated": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    "mt5": {"family": "mt5"},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("unieval")
    return {kind: tiny_unieval.save(home / kind, **wanted) for kind, wanted in KINDS.items()}


@pytest.fixture(scope="module")
def loaded(folders: dict[str, Path]) -> dict[str, UniEval]:
    return {kind: load(folder) for kind, folder in folders.items()}


@pytest.fixture
def copied(folders: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(folders["tied"], tmp_path / "copy"))


def load(folder: Path, **changes: Any) -> UniEval:
    return UniEval.load(UniEvalSettings(str(folder), **changes))


def numbers(rows: list[dict[str, Any]]) -> list[float]:
    assert {value.reason for row in rows for value in row.values()} == {None}
    return [value.value for row in rows for value in row.values()]


def by_two_losses(folder: Path, texts: list[str]) -> list[float]:
    """exp(-loss of "Yes") over the sum of it and exp(-loss of "No"), one text at a time through transformers."""
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = []
    for text in texts:
        encoded = tokenizer(text, max_length=1024, truncation=True, return_tensors="pt")
        chances = []
        for answer in ("Yes", "No"):
            label = tokenizer(answer, return_tensors="pt")["input_ids"][:, :1]
            with torch.no_grad():
                loss = model(
                    input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"], labels=label
                ).loss
            chances.append(math.exp(-float(loss)))
        found.append(chances[0] / sum(chances))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_the_published_two_loss_form(folders, loaded, kind):
    model = loaded[kind]
    assert model._rows is not None  # two rows of the head are enough for every kind of T5
    texts = [text_of(one, dimension) for one in EXAMPLES for dimension in DIMENSIONS]
    found = numbers(model.score(EXAMPLES))
    assert found == pytest.approx(by_two_losses(folders[kind], texts), abs=1e-5)
    assert len({round(score, 4) for score in found}) > 5  # else the model would not look at its text


def test_a_head_that_two_rows_do_not_explain_is_run_as_it_is(folders, monkeypatch):
    # A scale of its own between decoder and head, as some T5 of the future may have it.
    monkeypatch.setattr(UniEval, "_plain_rows", lambda *_: None)
    model = load(folders["tied"])
    texts = [text_of(one, dimension) for one in EXAMPLES for dimension in DIMENSIONS]
    assert numbers(model.score(EXAMPLES)) == pytest.approx(by_two_losses(folders["tied"], texts), abs=1e-5)


def test_two_rows_are_not_believed_when_they_do_not_give_the_models_own_logits(loaded):
    import torch

    model = loaded["tied"]
    rows = list(model._encode(["question: a", "response: Yes"]).values())
    with torch.inference_mode():
        own = model._own_logits(rows)
        assert model._plain_rows(rows, own) is not None
        assert model._plain_rows(rows, own * 1.5) is None


def test_texts_are_those_of_the_published_code_to_the_letter():
    turn = Example("hi , do you know the internet ?", "i know a lot about sites .", "i do too .")
    assert text_of(turn, "naturalness") == (
        "question: Is this a natural response in the dialogue? </s> response: i do too ."
    )
    assert text_of(turn, "coherence") == (
        "question: Is this a coherent response given the dialogue history? </s> response: i do too ."
        " </s> dialogue history: hi , do you know the internet ? \n i know a lot about sites . \n\n"
    )
    assert text_of(turn, "understandability") == (
        "question: Is this an understandable response in the dialogue? </s> response: i do too ."
    )


words = st.text(st.sampled_from("ab .\n</s>Yes"), max_size=40)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.tuples(words, words, st.text(st.sampled_from("xyz ,"), max_size=90)), min_size=1, max_size=12),
    budget=st.integers(1, 1500),
    kind=st.sampled_from(["tied", "gated"]),
    seed=st.integers(0, 9),
)
def test_no_batch_changes_a_score(loaded, rows, budget, kind, seed):
    model = loaded[kind]
    examples = [Example(*row) for row in rows] + EXAMPLES[:2]
    alone = [model.score([one])[0] for one in examples]
    order = list(range(len(examples)))
    random.Random(seed).shuffle(order)
    model._batcher.budget = budget
    for i, row in zip(order, model.score([examples[i] for i in order]), strict=True):
        for dimension, value in row.items():
            assert value.reason == alone[i][dimension].reason
            if value.value is not None:
                assert value.value == pytest.approx(alone[i][dimension].value, abs=1e-5)


def test_naturalness_and_understandability_depend_on_the_response_alone_and_coherence_on_both(loaded):
    first, second = loaded["tied"].score([Example("Ask.", "", "Blue."), Example("Something else?", "c", "Blue.")])
    assert first["naturalness"] == second["naturalness"]
    assert first["understandability"] == second["understandability"]
    assert first["coherence"] != second["coherence"]


def test_equal_texts_are_encoded_once(loaded):
    told: list[tuple[int, int]] = []
    examples = [Example(f"Ask {i}.", "", "Blue.") for i in range(5)]
    loaded["tied"].score(examples, ["naturalness"], lambda done, total: told.append((done, total)))
    (n_tokens,) = {len(ids) for ids in loaded["tied"]._encode([text_of(examples[0], "naturalness")]).values()}
    assert told == [(n_tokens, n_tokens)]
    assert loaded["tied"].score([]) == []
    assert loaded["tied"].score(EXAMPLES[:1], []) == [{}]


def test_what_cannot_be_computed_is_null_with_a_reason(loaded):
    empty, blank, no_request = loaded["tied"].score(
        [Example("Ask.", "", ""), Example("Ask.", "", " \n"), Example(" ", "", "Blue.")]
    )
    for row in (empty, blank):
        assert {(value.value, value.reason, value.transient) for value in row.values()} == {
            (None, "The response is empty.", False)
        }
    assert no_request["coherence"].value is None
    assert no_request["coherence"].reason == "Instruction and input are both empty."
    assert no_request["naturalness"].value is not None


def test_a_long_text_loses_its_end_and_coherence_without_any_history_is_null(folders):
    # The published code would answer for a history that the model never saw.
    model = load(folders["tied"], max_length=128)
    long = "q" * 200
    cut, gone = model.score([Example(long, "", "Blue."), Example("Ask.", "", long)])
    shorter = model.score([Example(long[:150], "", "Blue."), Example("Ask.", "", long[:150])])
    assert cut == shorter[0]
    assert gone["naturalness"] == shorter[1]["naturalness"]
    assert gone["coherence"].value is None
    assert "The response alone fills max_length (128 tokens)" in str(gone["coherence"].reason)
    # At the edge: a response that leaves room for the first letter of the history has a score; two tokens more (this
    # tokenizer parts the space from the letter) leave none.
    before = next(n for n in range(128) if _has_history_left(model, n) and not _has_history_left(model, n + 1))
    edge, over = model.score([Example("ask", "", "q" * before), Example("ask", "", "q" * (before + 2))], ["coherence"])
    assert edge["coherence"].value is not None
    assert over["coherence"].value is None


def _has_history_left(model: UniEval, n: int) -> bool:
    """Whether texts that differ only in the request differ in their tokens."""
    encoded = model._encode([text_of(Example(request, "", "q" * n), "coherence") for request in ("ask", "beg")])
    return len(set(encoded.values())) == 2


def test_an_answer_that_is_not_finite_is_null(folders, tmp_path):
    # The letter "~" alone has weights that are not numbers, as an overflow in float16 would give.
    import torch
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(folders["tied"], tmp_path / "copy"))
    path = folder / "model.safetensors"
    weights = load_file(path)
    weights["shared.weight"][tiny_unieval.tokenizer()("a~")["input_ids"][-2]] = torch.nan
    save_file(weights, path, metadata={"format": "pt"})
    good, bad = load(folder).score([Example("Ask.", "", "Yes."), Example("Ask.", "", "Yes~")], ["naturalness"])
    assert good["naturalness"].value is not None
    assert "not a finite number" in str(bad["naturalness"].reason)


def test_sixteen_bits_come_near(folders, loaded):
    exact = numbers(loaded["tied"].score(EXAMPLES))
    assert numbers(load(folders["tied"], dtype="bfloat16").score(EXAMPLES)) == pytest.approx(exact, abs=0.1)


def test_on_a_gpu(folders, loaded):
    import torch

    if not torch.cuda.is_available():
        pytest.skip("this machine has no GPU")
    exact = numbers(loaded["tied"].score(EXAMPLES))
    assert numbers(load(folders["tied"], device="cuda").score(EXAMPLES)) == pytest.approx(exact, abs=1e-3)


def test_a_question_that_there_is_none_of(loaded):
    with pytest.raises(SettingsError, match="no question of 'fluency'"):
        loaded["tied"].score(EXAMPLES, ["fluency"])


def error_of(model: object, **changes: Any) -> str:
    with pytest.raises(ModelError) as caught:
        UniEval.load(UniEvalSettings(str(model), **changes))
    return str(caught.value)


def edit_config(folder: Path, **changes: object) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def test_models_that_are_no_t5_with_a_head(copied, tmp_path):
    assert "is not a T5 (its type is 'llama')" in error_of(tiny_models.save(tmp_path / "llama", "llama"))
    message = error_of(edit_config(copied, architectures=["T5EncoderModel"]))
    assert "saved as T5EncoderModel, which has no head that says Yes or No" in message


def test_a_tokenizer_without_single_tokens_for_the_answers(tmp_path):
    # "Nope" begins with a token as well, but its probability is not that of the answer No.
    folder = tiny_unieval.save(tmp_path, words=tiny_unieval.tokenizer(answers=("Yes",)))
    assert "no single token for 'No'" in error_of(folder)


def test_missing_and_damaged_weights(copied):
    from safetensors.torch import load_file, save_file

    path = copied / "model.safetensors"
    weights = load_file(path)
    kept = {name: weight for name, weight in weights.items() if not name.startswith("decoder.block.1.")}
    save_file(kept, path, metadata={"format": "pt"})
    assert "missing or of another shape, such as decoder.block.1." in error_of(copied)
    path.write_bytes(path.read_bytes()[:500])
    assert "weights" in error_of(copied)
    path.unlink()
    assert "weights" in error_of(copied)


def test_a_folder_without_tokenizer_and_a_tokenizer_of_another_model(copied, tmp_path):
    for path in copied.glob("tokenizer*"):
        path.unlink()
    assert "has no tokenizer" in error_of(copied)
    assert "does not belong to its weights" in error_of(tiny_unieval.save(tmp_path / "other", vocab_size=20))


def test_settings_that_do_not_fit(folders, tmp_path):
    assert "the question alone takes up to" in error_of(folders["tied"], max_length=30)
    assert "2 or more" in error_of(folders["tied"], max_length=1)
    assert "no dtype 'int4'" in error_of(folders["tied"], dtype="int4")
    assert "does not exist" in error_of(tmp_path / "nowhere")


def test_the_revision_is_kept(copied):
    model = load(copied)
    assert str(model.settings.revision).startswith("local-")
    edit_config(copied, layer_norm_epsilon=1e-3)
    assert "another one than before" in error_of(copied, revision=model.settings.revision)


MEMORY = """
import json, resource, sys
from core.example import Example
from core.unieval import UniEval, UniEvalSettings

model = UniEval.load(UniEvalSettings(sys.argv[1], max_length=1000))
short = [Example("Ask.", "", f"Answer number {i}.") for i in range(24)]
free = model.score(short, ["naturalness"])
budget = model._batcher.budget
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), resource.RLIM_INFINITY))
tight = model.score([*short, Example("Ask.", "", "word " * 180)], ["naturalness"])
last = tight[-1]["naturalness"]
print(json.dumps({
    "difference": max(abs(a["naturalness"].value - b["naturalness"].value) for a, b in zip(free, tight)),
    "budget": [budget, model._batcher.budget], "long": [last.value, last.reason, last.transient],
}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space are tried on Linux only")
def test_out_of_memory_halves_the_budget_and_a_text_that_does_not_fit_alone_is_null_and_transient(tmp_path):
    # 16,384 numbers between the layers: 900 tokens take 59 MB for each of them, 100 tokens 7 MB.
    folder = tiny_unieval.save(tmp_path, d_ff=16384, num_layers=1)
    told, _ = run_program(MEMORY, str(folder), home=tmp_path)
    before, after = told["budget"]
    assert after < before
    assert told["difference"] < 1e-5
    assert told["long"] == [None, "UniEval ran out of memory on this text alone.", True]
