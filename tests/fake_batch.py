"""The fake teacher with a Batch API beside it: /v1/files and /v1/batches as OpenAI's servers speak them.

In a test:      with FakeBatch(polls=2) as teacher: ... teacher.base_url ... teacher.batches ... teacher.paid
By hand:        python -m tests.fake_batch --port 8900 --polls 20

Every look at a batch takes it one step further: validating, ``polls`` times in progress, finalizing, and its end.
Faults of single questions are those of :class:`tests.fake_teacher.FakeTeacher` (``script``, ``always``, ``every``,
``match``): an HTTP status becomes a line of the error file, a fault of the text a line of the output file.

Faults of the protocol, each list used up in order: ``faults={"create": ["500", "lost"]}`` with the calls ``upload``,
``create``, ``look``, ``list``, ``content`` and the faults ``ok``, an HTTP status with or without ``:SECONDS`` of
Retry-After, ``drop`` (breaks the connection before anything is done) and ``lost`` (does it and breaks it then).
"""

from __future__ import annotations

import argparse
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from tests import fake_teacher
from tests.fake_teacher import FakeTeacher

_ENDS = ("completed", "failed", "expired", "cancelled")


class FakeBatch(FakeTeacher):
    """The server.

    ``polls``      looks at a batch in progress before it ends
    ``ends``       how the first batches end, in order of creation: "completed", "expired:N" or "cancelled:N" (after N
                   answers), "failed:CODE" (nothing is run); the later ones are completed
    ``faults``     of the protocol, by call
    ``without``    calls that this server does not offer (HTTP 404)
    ``files``      id -> bytes;  ``batches``  id -> batch object, in order of creation
    ``paid``       how often each custom id was answered with status 200 in a batch that ended
    ``calls``      how often each call of the protocol came
    """

    def __init__(
        self,
        *,
        polls: int = 1,
        ends: Sequence[str] = (),
        faults: Mapping[str, Sequence[str]] | None = None,
        without: Sequence[str] = (),
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.polls = polls
        self.ends = list(ends)
        self.faults = {call: list(found) for call, found in (faults or {}).items()}
        self.without = set(without)
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.paid: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self._ends: dict[str, str] = {}
        self._looks: Counter[str] = Counter()
        self._guard = threading.RLock()
        self._held: dict[tuple[str, str], tuple[threading.Event, threading.Event]] = {}
        teacher = self

        class Handler(_Handler):
            owner = teacher

        self._server.RequestHandlerClass = Handler

    def __enter__(self) -> Self:
        super().__enter__()
        return self

    def hold(self, call: str, *, when: str = "after") -> threading.Event:
        """Stop at the next such call, ``when`` "before" or "after" it is done and before it is answered.

        Returns an event that is set when it has come that far; :meth:`release` lets it go on.
        """
        reached = threading.Event()
        self._held[call, when] = (reached, threading.Event())
        return reached

    def release(self) -> None:
        """Let go all calls that are held."""
        held, self._held = self._held, {}
        for reached, go_on in held.values():
            reached.set()
            go_on.set()

    def questions_of(self, batch_id: str) -> list[str]:
        """The custom ids of a batch, in order."""
        return [request["custom_id"] for request in self._requests(batch_id)]

    # --- what the handler calls ---

    def begin(self, call: str) -> str:
        """Count a call in; return its fault."""
        with self._guard:
            self.calls[call] += 1
            if call in self.without:
                return "404"
            fault = (self.faults.get(call) or ["ok"])[0]
            del self.faults.get(call, [])[:1]
        self._wait(call, "before")
        return fault

    def end(self, call: str) -> None:
        self._wait(call, "after")

    def _wait(self, call: str, when: str) -> None:
        if (call, when) in self._held:
            reached, go_on = self._held[call, when]
            reached.set()
            while not go_on.wait(0.02) and not self._closing.is_set():
                continue

    def upload(self, data: bytes, *, purpose: str, name: str) -> dict[str, Any]:
        assert purpose == "batch", purpose
        assert name.endswith(".jsonl"), name
        with self._guard:
            file_id = f"file-{len(self.files) + 1:04d}"
            self.files[file_id] = data
        return {
            "id": file_id, "object": "file", "bytes": len(data), "created_at": int(time.time()), "filename": name,
            "purpose": purpose, "status": "processed",
        }  # fmt: skip

    def create(self, body: Mapping[str, Any]) -> dict[str, Any]:
        assert body["endpoint"] == "/v1/chat/completions", body
        assert body["completion_window"] == "24h", body
        with self._guard:
            batch_id = f"batch_{len(self.batches) + 1:04d}"
            self._ends[batch_id] = self.ends.pop(0) if self.ends else "completed"
            self.batches[batch_id] = {
                "id": batch_id, "object": "batch", "endpoint": body["endpoint"], "errors": None,
                "input_file_id": body["input_file_id"], "completion_window": "24h", "status": "validating",
                "output_file_id": None, "error_file_id": None, "created_at": int(time.time()), "completed_at": None,
                "metadata": body.get("metadata"), "request_counts": {"total": 0, "completed": 0, "failed": 0},
            }  # fmt: skip
            return dict(self.batches[batch_id])

    def look(self, batch_id: str) -> dict[str, Any] | None:
        with self._guard:
            batch = self.batches.get(batch_id)
            if batch is not None and batch["status"] not in _ENDS:
                self._step(batch)
            return None if batch is None else json.loads(json.dumps(batch))

    def listed(self, *, after: str | None, limit: int) -> dict[str, Any]:
        with self._guard:
            newest_first = list(reversed(self.batches.values()))
            names = [batch["id"] for batch in newest_first]
            start = names.index(after) + 1 if after else 0
            page = newest_first[start : start + limit]
            more = start + limit < len(newest_first)
            return {
                "object": "list", "data": page, "has_more": more,
                "first_id": page[0]["id"] if page else None, "last_id": page[-1]["id"] if page else None,
            }  # fmt: skip

    def cancel(self, batch_id: str) -> dict[str, Any] | None:
        with self._guard:
            if batch_id not in self.batches:
                return None
            if self.batches[batch_id]["status"] not in _ENDS:
                self._ends[batch_id] = "cancelled:0"
                self.batches[batch_id]["status"] = "cancelling"
                self._looks[batch_id] = self.polls
            return dict(self.batches[batch_id])

    def _step(self, batch: dict[str, Any]) -> None:
        batch_id = batch["id"]
        kind, _, detail = self._ends[batch_id].partition(":")
        if kind == "failed":
            self._fail(batch, detail)
            return
        requests = self._requests(batch_id)
        fault = _fault_of_input(requests)
        if fault is not None:
            self._fail(batch, fault)
            return
        looks = self._looks[batch_id]
        self._looks[batch_id] += 1
        batch["request_counts"]["total"] = len(requests)
        if looks < self.polls:
            batch["status"] = "in_progress"
            batch["request_counts"]["completed"] = len(requests) * looks // (self.polls + 1)
        elif looks == self.polls:
            batch["status"] = "cancelling" if kind == "cancelled" else "finalizing"
        else:
            self._finish(batch, requests, kind=kind, n_run=int(detail) if detail else len(requests))

    def _fail(self, batch: dict[str, Any], code: str) -> None:
        batch["status"] = "failed"
        error = {"code": code, "line": 1, "message": _SAID.get(code, f"The batch is wrong: {code}."), "param": None}
        batch["errors"] = {"object": "list", "data": [error]}

    def _finish(self, batch: dict[str, Any], requests: Sequence[dict[str, Any]], *, kind: str, n_run: int) -> None:
        output: list[dict[str, Any]] = []
        errors: list[dict[str, Any]] = []
        for request in requests[:n_run]:
            status, body = self._answer(request["body"])
            line = {
                "id": f"batch_req_{request['custom_id']}", "custom_id": request["custom_id"], "error": None,
                "response": {"status_code": status, "request_id": "req", "body": body},
            }  # fmt: skip
            (output if status == 200 else errors).append(line)
            if status == 200:
                self.paid[request["custom_id"]] += 1
        if kind == "expired":
            errors += [
                {
                    "id": f"batch_req_{request['custom_id']}", "custom_id": request["custom_id"], "response": None,
                    "error": {"code": "batch_expired", "message": "This request could not be executed in time."},
                }
                for request in requests[n_run:]
            ]  # fmt: skip
        batch["status"] = kind
        batch[f"{kind}_at"] = int(time.time())
        batch["request_counts"] = {"total": len(requests), "completed": len(output), "failed": len(errors)}
        for field, lines in (("output_file_id", output[::-1]), ("error_file_id", errors)):  # not in order, as there
            if lines:
                file_id = f"{field.removesuffix('_id')}-{batch['id']}"
                self.files[file_id] = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
                batch[field] = file_id

    def _requests(self, batch_id: str) -> list[dict[str, Any]]:
        data = self.files[self.batches[batch_id]["input_file_id"]]
        return [json.loads(line) for line in data.splitlines() if line.strip()]

    def _answer(self, body: dict[str, Any]) -> tuple[int, dict[str, Any] | str]:
        fault = self.enter(body, f"Bearer {self.key}")
        self.leave()
        return answer_of(self, fault, body)


def answer_of(teacher: FakeTeacher, fault: str, body: dict[str, Any]) -> tuple[int, dict[str, Any] | str]:
    """(status, body) of one request of a batch: what the live server would have answered, over HTTP in memory."""
    handler = _Recorder(teacher)
    handler._reply(fault, body)
    try:
        return handler.status, json.loads(handler.body)
    except ValueError:
        return handler.status, handler.body


class _Recorder(fake_teacher._Handler):
    """The live server's handler without a connection: it keeps what it would send."""

    def __init__(self, teacher: FakeTeacher) -> None:
        self.owner = teacher
        self.headers = {"Authorization": ""}  # type: ignore[assignment]
        self.status, self.body = 500, ""

    def _send(self, status: int, body: str, **_: Any) -> None:
        self.status, self.body = status, body

    def _break(self, kind: str) -> None:
        self.status, self.body = 500, json.dumps({"error": {"message": f"the model server broke ({kind})"}})


def _fault_of_input(requests: Sequence[Mapping[str, Any]]) -> str | None:
    """What the real server refuses before it runs anything."""
    names = [request.get("custom_id") for request in requests]
    if not requests:
        return "empty_file"
    if len(set(names)) != len(names):
        return "duplicate_custom_id"
    if any(request.get("method") != "POST" or request.get("url") != "/v1/chat/completions" for request in requests):
        return "mismatched_endpoint"
    if len({request["body"]["model"] for request in requests}) != 1:
        return "mismatched_model"
    return None


_SAID = {
    "token_limit_exceeded": "Enqueued token limit reached for this model in organization org-x. Limit: 90,000 enqueued "
    "tokens. Please try again once some in_progress batches have been completed.",
    "model_not_found": "The provided model 'nobody' is not supported by the Batch API.",
}


class _Handler(fake_teacher._Handler):
    owner: FakeBatch

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if match := re.fullmatch(r"/v1/files/([\w.-]+)/content", url.path):
            self._act("content", lambda: self.owner.files.get(match[1]))
        elif match := re.fullmatch(r"/v1/batches/([\w.-]+)", url.path):
            self._act("look", lambda: self.owner.look(match[1]))
        elif url.path == "/v1/batches":
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            after, limit = query.get("after"), int(query.get("limit", "20"))
            self._act("list", lambda: self.owner.listed(after=after, limit=limit))
        else:
            self._send(404, _error("no such path"))

    def do_POST(self) -> None:
        path = urlsplit(self.path).path
        if path == "/v1/chat/completions":
            super().do_POST()
            return
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or self._chunks()
        if path == "/v1/files":
            parts = _parts(self.headers["Content-Type"], data)
            name, content = parts["file"]
            purpose = parts["purpose"][1].decode()
            self._act("upload", lambda: self.owner.upload(content, purpose=purpose, name=name))
        elif path == "/v1/batches":
            self._act("create", lambda: self.owner.create(json.loads(data)))
        elif match := re.fullmatch(r"/v1/batches/([\w.-]+)/cancel", path):
            self._act("cancel", lambda: self.owner.cancel(match[1]))
        else:
            self._send(404, _error("no such path"))

    def _chunks(self) -> bytes:
        """A body sent in chunks, as clients send files whose length they do not tell."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return b""
        found = b""
        while size := int(self.rfile.readline().strip() or b"0", 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def _act(self, call: str, do: Any) -> None:
        owner = self.owner
        fault = owner.begin(call)
        kind, _, detail = fault.partition(":")
        authorization = self.headers.get("Authorization") or ""
        if owner.key is not None and authorization != f"Bearer {owner.key}":
            kind = "401"
        if kind.isdecimal():
            self._send(int(kind), _error(f"no luck with this call: {kind}"), headers={"Retry-After": detail or "0"})
            return
        done = None if kind == "drop" else do()
        owner.end(call)
        if kind in ("drop", "lost"):
            self.close_connection = True
            self.connection.close()
        elif done is None:
            self._send(404, _error("no such thing"))
        else:
            text = done.decode() if isinstance(done, bytes) else json.dumps(done)
            self._send(200, text)


def _error(message: str) -> str:
    return json.dumps({"error": {"message": message, "type": "error", "code": None}})


def _parts(content_type: str, data: bytes) -> dict[str, tuple[str, bytes]]:
    """name -> (file name, content) of a multipart form."""
    message = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + data)
    found: dict[str, tuple[str, bytes]] = {}
    for part in message.iter_parts():
        name, content = part.get_param("name", header="content-disposition"), part.get_payload(decode=True)
        assert isinstance(content, bytes)
        found[str(name)] = (part.get_filename() or "", content)
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until interrupted; prints the base URL first."""
    parser = argparse.ArgumentParser(description="A teacher for tests with a Batch API.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--polls", type=int, default=10, help="looks at a batch before it ends")
    parser.add_argument("--end", action="append", default=[], help="how the next batch ends; may be repeated")
    parser.add_argument("--every", action="append", default=[], metavar="N=FAULT", help="may be repeated")
    parser.add_argument("--key", default=None, help="the only key it takes")
    given = parser.parse_args(argv)
    every = {int(number): fault for number, _, fault in (item.partition("=") for item in given.every)}
    fake_teacher.run(FakeBatch(polls=given.polls, ends=given.end, every=every, key=given.key, port=given.port))


if __name__ == "__main__":
    main()
