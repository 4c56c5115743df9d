"""The hub is read through ``datasets`` from a real HTTP server that stands for it; every refusal is fast and plain."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from core.errors import InputError
from core.formats import open_hub

SHA = "a" * 40
TRAIN = [{"instruction": f"q{i}", "output": f"a{i}"} for i in range(120)]
FILES = {
    "README.md": b"---\nlicense: mit\n---\n",
    "data/train.jsonl": "".join(json.dumps(row) + "\n" for row in TRAIN).encode(),
    "data/test.jsonl": b'{"instruction": "t", "output": "u"}\n',
}


class FakeHub(BaseHTTPRequestHandler):
    """The few end points of the hub that reading a dataset needs, for one good repository and several bad ones."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""

    def reply(self, status: int, body: Any = b"", **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            with contextlib.suppress(BrokenPipeError):
                self.wfile.write(data)

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        repo = "/".join(path.removeprefix("/api").removeprefix("/datasets/").split("/")[:2])
        rest = path.split(repo, 1)[-1]
        if repo == "o/hangs":
            time.sleep(4)
        if repo in ("o/missing", "o/hangs"):
            self.reply(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        elif repo == "o/private":
            self.reply(401, {"error": "Invalid username or password."})
        elif repo == "o/down":
            self.reply(503, {"error": "down"})
        elif repo in ("o/gated", "o/gone") and "/resolve/" in rest and rest.endswith((".jsonl", "README.md")):
            self.reply(403, b"", X_Error_Code="GatedRepo" if repo == "o/gated" else "Other")
        elif rest.startswith("/revision/") and not rest.endswith(SHA):
            self.reply(404, {"error": "Invalid rev id"}, X_Error_Code="RevisionNotFound")
        elif path.startswith("/api/datasets/") and "/tree/" in rest:
            self.tree(rest.split(f"/tree/{SHA}", 1)[1].strip("/"), empty=repo == "o/empty")
        elif path.startswith("/api/datasets/"):
            names = [{"rfilename": name} for name in FILES]
            self.reply(200, {"id": repo, "sha": SHA, "siblings": names, "private": False, "tags": []})
        elif "/resolve/" in rest:
            name = rest.split(f"/resolve/{SHA}/", 1)[-1]
            self.file(b"print('run me')" if name == "script.py" and repo == "o/script" else FILES.get(name))
        else:
            self.reply(404, {})

    do_HEAD = do_GET  # noqa: N815

    def tree(self, folder: str, *, empty: bool) -> None:
        entries: list[dict[str, Any]] = [
            {"type": "file", "oid": hashlib.sha1(content).hexdigest(), "size": len(content), "path": name}
            for name, content in FILES.items()
            if name.rpartition("/")[0] == folder and not (empty and folder)
        ]
        if not folder and not empty:
            entries.append({"type": "directory", "oid": "0" * 40, "size": 0, "path": "data"})
        if entries:
            self.reply(200, entries)
        else:
            self.reply(404, {"error": "none"}, X_Error_Code="EntryNotFound")

    def file(self, content: bytes | None) -> None:
        if content is None:
            self.reply(404, b"", X_Error_Code="EntryNotFound", X_Repo_Commit=SHA)
            return
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X_Repo_Commit": SHA, "Accept_Ranges": "bytes"}
        wanted = self.headers.get("Range")
        if wanted is None:
            self.reply(200, content, **headers)
            return
        start, end = (int(part) for part in wanted.removeprefix("bytes=").split("-"))
        content_range = f"bytes {start}-{min(end, len(content) - 1)}/{len(content)}"
        self.reply(206, content[start : end + 1], Content_Range=content_range, **headers)


CLIENT = """
import json, sys, time
from core.errors import InputError
from core.formats import detect_shape, hub, open_hub, read_examples
hub._TIMEOUT_SECONDS = 1
for label, arguments in json.loads(sys.argv[1]).items():
    start = time.perf_counter()
    try:
        source = open_hub(**arguments)
        reader = read_examples(source, detect_shape(source))
        outputs = [text for batch in reader for text in batch["output"].to_pylist()]
        found = {"columns": source.columns, "notes": source.notes, "outputs": outputs}
        found["report"] = reader.report.summary()
    except InputError as error:
        found = {"error": str(error)}
    print(json.dumps({"label": label, "seconds": time.perf_counter() - start, **found}))
"""
CASES: dict[str, dict[str, str]] = {
    "good": {"repo_id": " o/good "},
    "test split": {"repo_id": "o/good", "split": "test"},
    "no split": {"repo_id": "o/good", "split": "nope"},
    "no config": {"repo_id": "o/good", "config": "nope"},
    "no revision": {"repo_id": "o/good", "revision": "v9"},
    "missing": {"repo_id": "o/missing"},
    "private": {"repo_id": "o/private"},
    "gated": {"repo_id": "o/gated"},
    "gone": {"repo_id": "o/gone"},
    "empty": {"repo_id": "o/empty"},
    "script": {"repo_id": "o/script"},
    "down": {"repo_id": "o/down"},
    "hangs": {"repo_id": "o/hangs"},
}


def run_client(endpoint: str, cases: dict[str, Any], home: Path, cwd: Path, **extra: str) -> dict[str, dict[str, Any]]:
    """Open the cases in a process of its own, because the hub's address is read when its library is imported."""
    environment = os.environ | {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    environment.pop("HF_TOKEN", None)
    command = [sys.executable, "-c", CLIENT, json.dumps(cases)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment | extra, timeout=120)
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    return {result["label"]: result for result in results}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("hub")
    local = folder / "o" / "missing"
    local.mkdir(parents=True)
    (local / "train.jsonl").write_text('{"instruction": "local", "output": "file"}\n')
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeHub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield run_client(f"http://127.0.0.1:{server.server_port}", CASES, folder / "home", folder)
    finally:
        server.shutdown()
        server.server_close()


def test_a_dataset_is_read_whole(answers: dict[str, dict[str, Any]]) -> None:
    good = answers["good"]
    assert good["columns"] == ["instruction", "output"]
    assert good["outputs"] == [row["output"] for row in TRAIN]
    assert good["notes"] == [f"Read from the Hugging Face hub at revision {SHA}."]
    assert (good["report"]["source"], good["report"]["shape"]) == ("o/good (train)", "alpaca")
    assert answers["test split"]["outputs"] == ["u"]


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("no split", "has no split 'nope'. Its splits are: train, test."),
        ("no config", "choose one of its configurations: default."),
        ("no revision", "has no revision 'v9'"),
        ("missing", "There is no dataset o/missing"),
        ("private", "There is no dataset o/private on the Hugging Face hub, or it is private"),
        ("gated", "is gated: accept its terms"),
        ("gone", "cannot be read from the hub"),
        ("empty", "holds no data files"),
        ("script", "no code of a repository is run here"),
        ("down", "The Hugging Face hub failed for o/down"),
        ("hangs", "cannot be reached"),
    ],
)
def test_every_refusal_is_plain_and_fast(answers: dict[str, dict[str, Any]], label: str, said: str) -> None:
    assert said in answers[label]["error"]
    assert answers[label]["seconds"] < 30  # the library would try for minutes


@pytest.mark.parametrize("offline", ["", "1"], ids=["nothing listens", "HF_HUB_OFFLINE"])
def test_without_a_connection_one_attempt_is_made(tmp_path: Path, offline: str) -> None:
    found = run_client("http://127.0.0.1:9", {"x": {"repo_id": "o/d"}}, tmp_path, tmp_path, HF_HUB_OFFLINE=offline)["x"]
    assert "Hugging Face hub" in found["error"]
    assert "download the file elsewhere and upload it" in found["error"]
    assert found["seconds"] < 30  # the library would try for minutes


@pytest.mark.parametrize("repo_id", ["", "json", "../../etc", "/etc/passwd", "a/b/c", "a b/c", "o/..", "http://x/y"])
def test_what_is_no_id_is_refused_without_asking(repo_id: str) -> None:
    with pytest.raises(InputError, match="owner/name"):
        open_hub(repo_id)
