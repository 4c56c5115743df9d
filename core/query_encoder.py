"""The embedding of a text that somebody searches for, by a process of its own that keeps the model loaded.

    python -m core.query_encoder

The child reads JSON lines: the settings of the embedder first, then ``{"text": …}`` each; it answers every line with
one of its own, ``{"vector": […]}`` or ``{"error": …}``. It ends when its input does, and so with the server, however
that ends. The server itself never imports torch.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np

from core.embedding import Embedder, EmbedderSettings
from core.errors import ModelError
from core.example import Example
from core.jobs.devices import worker_environment

LOAD_SECONDS = 180.0
ANSWER_SECONDS = 60.0
MOST_CHARACTERS = 20_000

_ROOT = Path(__file__).resolve().parents[1]


class _EndedError(ModelError):
    """The child ended without an answer."""


class QueryEncoder:
    """An embedding model in a child process; it is started by the first text. Safe from any thread, one text at a time.

    ``log_path`` gets what the model's libraries print.
    """

    def __init__(self, settings: EmbedderSettings, *, log_path: Path) -> None:
        self.settings = settings
        self._log_path = log_path
        self._child: subprocess.Popen[bytes] | None = None
        self._rest = b""
        self._lock = threading.Lock()

    def vector(self, text: str) -> np.ndarray:
        """The vector of a text, float32 ``[d]``: as of a row that has this text alone.

        Raises:
            ModelError: the text is blank, or the model cannot be loaded, fails, or does not answer in time.
        """
        if not text.strip():
            raise ModelError("There is nothing to search for: the text is blank.")
        asked = {"text": text[:MOST_CHARACTERS]}
        with self._lock:
            before = self._child
            child = self._running()
            try:
                answer = self._ask(child, asked, seconds=ANSWER_SECONDS)
            except _EndedError:
                if child is not before:
                    raise
                # It was killed since the last text (by the system, short of memory): once, another one is tried.
                answer = self._ask(self._running(), asked, seconds=ANSWER_SECONDS)
        return np.asarray(answer["vector"], np.float32)

    def stop(self) -> None:
        """End the child, if there is one. The next text starts another."""
        with self._lock:
            self._stop()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._child.poll() is None:
            return self._child
        self._stop()
        environment = worker_environment("cpu", cpu_jobs=1, environ=os.environ)
        try:
            with self._log_path.open("ab") as log:
                child = subprocess.Popen(
                    [sys.executable, "-m", "core.query_encoder"],
                    cwd=_ROOT,
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    start_new_session=True,  # a Ctrl-C of the server must not break an answer
                )
        except OSError as error:
            raise ModelError(f"The search by meaning could not be started: {error}.") from error
        self._child, self._rest = child, b""
        self._ask(child, asdict(self.settings), seconds=LOAD_SECONDS)
        return child

    def _ask(self, child: subprocess.Popen[bytes], message: dict[str, Any], *, seconds: float) -> dict[str, Any]:
        assert child.stdin is not None
        try:
            child.stdin.write(json.dumps(message).encode() + b"\n")
            child.stdin.flush()
            answer: dict[str, Any] = json.loads(self._line(child, seconds=seconds))
        except (OSError, EOFError, ValueError) as error:
            self._stop()
            raise _EndedError(
                f"The embedder {self.settings.model} ended without an answer; {self._log_path.name} in the workspace "
                "says why."
            ) from error
        except TimeoutError as error:
            self._stop()
            raise ModelError(
                f"The embedder {self.settings.model} gave no answer within {seconds:.0f} seconds. Try again."
            ) from error
        if "error" in answer:
            if "model" in message:  # it never loaded; another text would find no model either
                self._stop()
            raise ModelError(str(answer["error"]))
        return answer

    def _line(self, child: subprocess.Popen[bytes], *, seconds: float) -> bytes:
        assert child.stdout is not None
        until = time.monotonic() + seconds
        while b"\n" not in self._rest:
            left = until - time.monotonic()
            if left <= 0 or not select.select([child.stdout], [], [], left)[0]:
                raise TimeoutError
            found = os.read(child.stdout.fileno(), 1 << 16)
            if not found:
                raise EOFError
            self._rest += found
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _stop(self) -> None:
        if self._child is None:
            return
        self._child.kill()
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue  # a line that it did not read any more
        self._child, self._rest = None, b""


def serve(asked: IO[str], answers: IO[str]) -> None:
    """Load the embedder that the first line names, and answer every further line, until there are no more."""

    def answer(**fields: Any) -> None:
        answers.write(json.dumps(fields) + "\n")
        answers.flush()

    first = asked.readline()
    if not first:
        return
    try:
        embedder = Embedder.load(EmbedderSettings(**json.loads(first)))
    except ModelError as error:
        answer(error=str(error))
        return
    answer(n_dimensions=embedder.n_dimensions)
    for line in asked:
        try:
            found = embedder.embed([Example(json.loads(line)["text"], "", "")])
        except ModelError as error:
            answer(error=str(error))
            continue
        if found.reasons[0] is not None:
            answer(error=found.reasons[0])
        else:
            answer(vector=found.vectors[0].tolist())


def main() -> None:
    """Serve on the standard streams; what libraries print goes to the log instead of among the answers."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
