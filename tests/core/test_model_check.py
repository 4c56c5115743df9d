"""Whether a model does for its role is said from its files, in words and numbers, before anything is loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from core.finetune.settings import paper_preset
from core.indicators import ROLES, Role
from core.lm import StudentSettings
from core.model_check import (
    Memory,
    ModelCheck,
    adapter_bytes,
    check_base,
    check_files,
    check_model,
    check_together,
    free_memory,
    gigabytes,
    gpu_memory,
    positions,
)
from core.model_files import ModelFiles, find_files
from core.scoring import DEMO_STUDENT
from tests.core import tiny_models, tiny_reward, tiny_unieval

PLENTY = Memory("this machine", 100e9)
CHAT = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


@dataclass(frozen=True)
class Settings:
    """Settings of any role."""

    model: str
    revision: str | None = None
    dtype: str = "float32"
    max_length: int | None = 512
    batch_tokens: int = 8192
    device: str = "cpu"
    template: str = "alpaca"
    form: str = "auto"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny model of every kind."""
    from transformers import AutoModel

    home = tmp_path_factory.mktemp("models")
    made = {
        "llama": tiny_models.save(home / "llama", "llama"),
        "gpt2": tiny_models.save(home / "gpt2", "gpt2", words=tiny_models.tokenizer(chat_template=CHAT)),
        "deberta": tiny_reward.save(home / "deberta", "deberta-v2"),
        "classes": tiny_reward.save(home / "classes", "deberta-v2", labels=5),
        "t5": tiny_unieval.save(home / "t5"),
        "encoder": home / "encoder",
    }
    AutoModel.from_config(tiny_reward.config("bert")).save_pretrained(made["encoder"])
    tiny_reward.pair_tokenizer().save_pretrained(made["encoder"])
    return made


def check(role: Role, folder: Path | str, memory: Memory | None = PLENTY, **changes: Any) -> ModelCheck:
    return check_model(role, Settings(str(folder), **changes), memory=memory)


def said(found: ModelCheck) -> str:
    return " | ".join(point.says for point in found.points)


FITS: dict[Role, tuple[str, ...]] = {
    "student": ("llama", "gpt2"),
    "reward": ("deberta",),
    "unieval": ("t5",),
    "embedder": ("encoder",),
}


@pytest.mark.parametrize("role", ROLES)
def test_each_role_takes_its_own_kind_and_refuses_the_others_by_name(role: Role, folders: dict[str, Path]) -> None:
    for name, folder in folders.items():
        found = check(role, folder)
        assert found.ok is (name in FITS[role]), (name, said(found))
        if not found.ok:
            saved_as = json.loads((folder / "config.json").read_text())["architectures"][0]
            assert name == "classes" or saved_as in said(found)
    assert "5 classes" in said(check("reward", folders["classes"]))


def test_the_rooms_of_a_folder_that_is_no_model(tmp_path: Path, folders: dict[str, Path]) -> None:
    assert "does not exist" in said(check("student", tmp_path / "nowhere"))
    assert "No student is chosen" in said(check("student", " "))
    assert "config.json" in said(check("student", tmp_path))
    (tmp_path / "config.json").write_text("[")
    assert "damaged" in said(check("student", tmp_path))
    (tmp_path / "config.json").write_text((folders["llama"] / "config.json").read_text())
    found = check("student", tmp_path)
    assert any("no tokenizer" in problem for problem in found.problems)
    assert any("no weights" in problem for problem in found.problems)
    # Only the tokenizer is asked for where only the length in tokens is wanted.
    (tmp_path / "tokenizer.json").write_text("{}")
    assert check_model("student", Settings(str(tmp_path)), memory=PLENTY, weights=False).ok


def test_a_chat_template_is_asked_for_only_where_it_is_used(folders: dict[str, Path]) -> None:
    assert check("student", folders["llama"]).ok
    assert "no chat template" in said(check("student", folders["llama"], template="chat"))
    assert check("student", folders["gpt2"], template="chat").ok
    assert "no chat template" in said(check("reward", folders["deberta"], form="chat"))


def test_a_text_that_is_longer_than_the_model_allows_is_refused_with_the_number(folders: dict[str, Path]) -> None:
    assert check("student", folders["llama"], max_length=1024).ok
    assert "1,024 positions" in said(check("student", folders["llama"], max_length=1025))
    assert check("unieval", folders["t5"], max_length=4096).ok, "T5's positions are relative"
    assert check("embedder", folders["encoder"], max_length=None).ok
    # Positions of RoBERTa begin after its padding id: 514 in the table are 512 tokens.
    assert (
        positions(ModelFiles("m", "folder", "r", {}, {"model_type": "roberta", "max_position_embeddings": 514})) == 512
    )
    assert positions(ModelFiles("m", "folder", "r", {}, {"text_config": {"max_position_embeddings": 99}})) == 99


def test_memory_is_weights_in_the_dtype_asked_for_and_room_to_work(folders: dict[str, Path]) -> None:
    """A checkpoint stored in bfloat16 takes twice its file in float32: the file's size alone said that it fits."""
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096}
    files = ModelFiles("m", "hub", "r", {"model.safetensors": 14_000_000_000, "tokenizer.json": 1}, config, {}, 2.0)
    found = check_files("student", Settings("m"), files, memory=Memory("this machine", 20e9))
    assert found.weight_bytes == 28e9
    assert not found.ok
    assert "28.0 GB of weights in float32" in said(found)
    assert "20.0 GB are free on this machine" in said(found)
    assert "bfloat16" in said(found)
    half = Settings("m", dtype="bfloat16", device="cuda")
    assert check_files("student", half, files, memory=Memory("cuda:0", 20e9)).weight_bytes == 14e9
    assert check_files("student", half, files, memory=Memory("cuda:0", 20e9)).ok
    assert check_files("student", half, files, memory=None).ok, "what cannot be asked stops nobody"
    assert not check("student", folders["llama"], memory=Memory("this machine", 1e8)).ok


def test_models_that_fit_one_by_one_may_not_fit_together() -> None:
    def one(role: Role, size: float) -> ModelCheck:
        return ModelCheck(role, (), "r", size, size)

    both = [one("student", 6e9), one("unieval", 5e9)]
    together = check_together(both, Memory("this machine", 12e9))
    assert together is not None
    assert together.ok
    short = check_together(both, Memory("this machine", 10e9))
    assert short is not None
    assert short.ok is False
    assert "11.0 GB" in short.says
    assert check_together(both[:1], Memory("this machine", 7e9)) is None
    assert check_together(both, PLENTY) is None, "nobody has to think about a tenth of the memory"


def test_stored_precision_is_read_from_the_weights_themselves(folders: dict[str, Path], tmp_path: Path) -> None:
    assert find_files(str(folders["llama"])).stored_bytes == 4.0
    tiny = tmp_path / "half"
    tiny_models.save(tiny, "llama")
    import torch
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.bfloat16).save_pretrained(tiny)
    files = find_files(str(tiny))
    assert files.stored_bytes == 2.0
    assert files.weight_bytes is not None
    assert check("student", tiny).weight_bytes == 2 * files.weight_bytes


def test_free_memory() -> None:
    here = free_memory("cpu")
    assert here is not None
    assert 0 < here.free_bytes < 1e14
    listing = "0, 1000\n1, 3000\n2, 90000\n"
    assert gpu_memory(listing, allowed=("0", "1")) == Memory("cuda:1", 3000 * 2**20)
    assert gpu_memory("", allowed=()) is None
    assert [gigabytes(n) for n in (0, 24e6, 1.26e9, 140e9)] == ["1 MB", "24 MB", "1.3 GB", "140 GB"]


def test_nothing_heavy_is_imported(folders: dict[str, Path]) -> None:
    """The page checks at every look: a check that imported torch would cost it seconds and the server its memory."""
    code = (
        "import sys; from core.model_check import *; from core.lm import StudentSettings;"
        f"assert check_model('student', StudentSettings({str(folders['llama'])!r}), memory=free_memory('cpu')).ok;"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


# --- the hub ---

SHA = "c" * 40
CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "max_position_embeddings": 2048}
HUB_FILES = {"config.json": json.dumps(CONFIG).encode(), "tokenizer.json": b"{}", "tokenizer_config.json": b"{}"}


class FakeHub(BaseHTTPRequestHandler):
    """As much of the hub as a check asks: o/good has all files, others are missing or gated."""

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""

    def do_GET(self) -> None:
        if self.path.startswith("/api/models/o/good"):
            siblings = [{"rfilename": name, "size": len(body)} for name, body in HUB_FILES.items()]
            siblings.append({"rfilename": "model.safetensors", "size": 2_000_000_000})
            self.answer(200, json.dumps({"id": "o/good", "sha": SHA, "siblings": siblings}).encode())
        elif "/resolve/" in self.path:
            self.answer(200, HUB_FILES[self.path.split("?")[0].rsplit("/", 1)[-1]])
        elif "gated" in self.path:
            self.answer(403, b"{}", error="GatedRepo")
        else:
            self.answer(404, b"{}", error="RepoNotFound")

    def answer(self, status: int, body: bytes, error: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if error:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        self.wfile.write(body)


CLIENT = """
import json, sys
from dataclasses import asdict
from core.finetune.settings import paper_preset
from core.lm import StudentSettings
from core.model_check import Memory, check_model
found = [check_model("student", StudentSettings(name), memory=Memory("this machine", 10e9)) for name in sys.argv[1:]]
print(json.dumps([asdict(one) for one in found]))
"""


def ask(endpoint: str, home: Path, *names: str, **extra: str) -> list[dict[str, Any]]:
    """Check in a process of its own: the hub's address is read when its library is imported."""
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), **extra}
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, *names],
        check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2], env=environment,
    )  # fmt: skip
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeHub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def words_of(one: dict[str, Any]) -> str:
    return " | ".join(point["says"] for point in one["points"])


def test_a_model_on_the_hub_is_looked_at_without_downloading_it(hub: str, tmp_path: Path) -> None:
    """config.json alone in the cache would make the model look downloaded, and a job would fail on its weights."""
    good, missing, gated = ask(hub, tmp_path, "o/good", "o/missing", "o/gated")
    assert "found on the hub" in words_of(good)
    assert "2,048 positions" in words_of(good)
    assert (good["revision"], good["weight_bytes"]) == (SHA, 2_000_000_000)
    assert "There is no model 'o/missing'" in words_of(missing)
    assert "accept its terms" in words_of(gated)
    assert not list(tmp_path.rglob("config.json"))


def test_a_machine_without_a_connection_gets_a_plain_sentence(tmp_path: Path) -> None:
    dead, offline = (
        ask("http://127.0.0.1:9", tmp_path, "o/good")[0],
        ask("http://127.0.0.1:9", tmp_path, "o/good", HF_HUB_OFFLINE="1")[0],
    )
    for found in (dead, offline):
        assert "hub cannot be reached" in words_of(found)
        assert "Give the path of a downloaded model" in words_of(found)


def test_settings_of_the_student_are_settings_of_a_role(folders: dict[str, Path]) -> None:
    settings = StudentSettings(str(folders["llama"]))
    assert check_model("student", settings, memory=PLENTY).ok
    assert not check_model("student", replace(settings, max_length=4096), memory=PLENTY).ok


# --- a base model to finetune ---


def test_fewer_bits_and_shorter_texts_need_less_memory() -> None:
    files = find_files(str(DEMO_STUDENT), None)
    settings = paper_preset(str(DEMO_STUDENT))
    fits = check_base(settings, files, memory=Memory("this machine", 8e9))
    assert fits.ok
    assert fits.need_bytes is not None
    for change in ({"precision": "nf4"}, {"max_length": 128}, {"gradient_checkpointing": True}):
        less = check_base(replace(settings, **change), files, memory=None)
        assert less.ok
        assert less.need_bytes is not None
        assert less.need_bytes < fits.need_bytes
    tight = check_base(settings, files, memory=Memory("this machine", 1e6))
    assert "does not fit into memory" in tight.problems[0]


def test_an_adapter_is_as_large_as_its_matrices() -> None:
    """Rank 8 on two square projections of every layer, two matrices each, in float32."""
    settings = paper_preset(str(DEMO_STUDENT))
    files = find_files(str(DEMO_STUDENT), None)
    hidden, layers = files.number("hidden_size"), files.number("num_hidden_layers")
    assert hidden is not None
    assert layers is not None
    assert adapter_bytes(settings, files) == 4 * 8 * layers * 2 * (hidden + hidden)
    every = adapter_bytes(replace(settings, lora_targets="all-linear"), files)
    assert every is not None
    assert every > 4 * 8 * layers * 4 * (hidden + hidden)
    assert adapter_bytes(settings, replace(files, config={})) is None
