"""Finding and loading a student: every failure says in plain words what is wrong and with which model."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from core.errors import ModelError
from core.lm import Student, StudentSettings
from core.models import folder_digest, locate, resolve_revision
from tests.core import tiny_models


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.save(tmp_path_factory.mktemp("models") / "llama", "llama")


@pytest.fixture
def copied(llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(llama, tmp_path / "copy"))


def error_of(model: object, **changes: object) -> str:
    with pytest.raises(ModelError) as caught:
        Student.load(StudentSettings(str(model), **changes))  # type: ignore[arg-type]
    return str(caught.value)


def edit_config(folder: Path, **changes: object) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


@pytest.mark.parametrize("model", ["/no/such/folder", "./missing", "~/missing-model", "a/b/c", "", "  "])
def test_a_path_that_does_not_exist(model):
    assert "does not exist" in error_of(model)


def test_a_file_is_not_a_model(llama):
    assert "give the folder" in error_of(llama / "config.json")


def test_a_folder_without_config(tmp_path):
    assert "no config.json" in error_of(tmp_path)


def test_a_damaged_config(copied):
    (copied / "config.json").write_text("{not json")
    assert "configuration" in error_of(copied)


def test_a_model_type_that_is_unknown(copied):
    assert "configuration" in error_of(edit_config(copied, model_type="no_such_type"))


@pytest.mark.parametrize("family", ["t5", "bert"])
def test_not_a_causal_language_model(tmp_path, family):
    import torch
    from transformers import AutoConfig, AutoModel

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    sizes |= {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4} if family == "t5" else {}
    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.for_model(family, vocab_size=320, **sizes)).save_pretrained(tmp_path)
    tiny_models.tokenizer().save_pretrained(tmp_path)
    assert "not a causal language model" in error_of(tmp_path, max_length=128)


def test_a_bidirectional_model_that_calls_itself_causal_is_found_out(tmp_path):
    # BERT has a language model head and stands in transformers' list of causal models, but it looks ahead.
    folder = tiny_models.save(tmp_path, "bert", num_key_value_heads=4)
    assert "later tokens change earlier ones" in error_of(folder)


def test_a_classifier_of_a_causal_family(tmp_path):
    from transformers import AutoModelForSequenceClassification

    AutoModelForSequenceClassification.from_config(tiny_models.config("llama")).save_pretrained(tmp_path)
    tiny_models.tokenizer().save_pretrained(tmp_path)
    assert "LlamaForSequenceClassification" in error_of(tmp_path)


def test_weights_without_a_head_are_not_filled_with_random_numbers(copied):
    from safetensors.torch import load_file, save_file

    path = copied / "model.safetensors"
    weights = load_file(path)
    del weights["lm_head.weight"]
    save_file(weights, path, metadata={"format": "pt"})
    assert "missing or of another shape, such as lm_head.weight" in error_of(copied)


def test_damaged_and_missing_weights(copied):
    path = copied / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    assert "weights" in error_of(copied)
    path.unlink()
    assert "weights" in error_of(copied)


def test_a_folder_without_tokenizer(copied):
    for path in copied.glob("tokenizer*"):
        path.unlink()
    assert "has no tokenizer" in error_of(copied)


def test_a_tokenizer_of_another_model(tmp_path):
    assert "does not belong to its weights" in error_of(tiny_models.save(tmp_path, "llama", vocab_size=40))


def test_template_chat_needs_a_chat_template(llama):
    assert "no chat template" in error_of(llama, template="chat")


def test_unknown_template_dtype_and_device(llama):
    assert "no prompt template 'alpacca'" in error_of(llama, template="alpacca")
    assert "no dtype 'float8'" in error_of(llama, dtype="float8")
    assert "no device 'tpu'" in error_of(llama, device="tpu")


def test_cuda_that_is_not_there(llama):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert "shows no CUDA GPU" in error_of(llama, device="cuda")


def test_max_length_over_the_models_positions(llama):
    assert "has 1024 positions" in error_of(llama, max_length=1025)
    assert "2 or more" in error_of(llama, max_length=1)


def test_code_in_a_model_folder_is_never_run(copied, tmp_path):
    proof = tmp_path / "ran"
    (copied / "modeling_evil.py").write_text(f"open({str(proof)!r}, 'w').close()\n")
    edit_config(
        copied, model_type="evil", auto_map={"AutoConfig": "modeling_evil.C", "AutoModelForCausalLM": "modeling_evil.M"}
    )
    assert "evil" in error_of(copied) or "configuration" in error_of(copied)
    assert not proof.exists()


def test_a_hub_that_cannot_be_reached(monkeypatch):
    # A port of this machine where nobody listens stands for the hub: refused at once, whatever network there is.
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    message = error_of("some-organisation/some-model")
    assert "hub cannot be reached" in message
    assert "some-organisation/some-model" in message


def test_a_hub_model_out_of_the_cache_when_the_hub_cannot_be_reached(llama, tmp_path, monkeypatch):
    import huggingface_hub.constants

    commit = "0123456789abcdef0123456789abcdef01234567"
    home = tmp_path / "models--org--name"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(commit)
    shutil.copytree(llama, home / "snapshots" / commit)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert resolve_revision("org/name") == resolve_revision("org/name", commit) == commit
    student = Student.load(StudentSettings("org/name", revision=commit), weights=False)
    assert student.settings.revision == commit


def test_a_digest_follows_from_the_model_and_not_from_its_place(llama, copied):
    assert resolve_revision(str(llama)) == resolve_revision(str(copied)) == folder_digest(copied)
    (copied / "README.md").write_text("Notes are no part of the model.")
    assert resolve_revision(str(copied)) == resolve_revision(str(llama))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_digest_changes_with_configuration_tokenizer_and_weights(copied, name):
    before = resolve_revision(str(copied))
    path = copied / name
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(bytes(data))
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
    assert resolve_revision(str(copied)) != before


def test_the_ends_and_some_blocks_of_a_large_file_are_read(copied):
    big = copied / "extra.safetensors"
    big.write_bytes(bytes(20 << 20))
    before = resolve_revision(str(copied))
    with big.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"x")
    assert resolve_revision(str(copied)) != before


def test_a_folder_that_changed_since_the_job_was_submitted_is_refused(copied):
    before = resolve_revision(str(copied))
    edit_config(copied, rms_norm_eps=1e-3)
    assert "another one than before" in error_of(copied, revision=before)
    assert locate(str(copied)).revision != before
