"""A real HTTP server that stands for a teacher: /v1/chat/completions with valid answers, and with faults.

In a test:      with FakeTeacher(script=["429:0.2", "ok"]) as teacher: ... teacher.base_url ... teacher.requests
By hand:        python -m tests.fake_teacher --port 8900 --every 7=cut_off --every 11=500

Faults (``FAULTS``): an HTTP status such as ``401`` or ``500``; ``429:SECONDS`` with Retry-After, ``429:date:SECONDS``
with an HTTP date; ``hang`` and ``drip`` (bytes so slowly that no read times out); ``disconnect``; ``cut_off``;
``empty``; ``null`` (no content); ``html``; ``not_json``; ``no_choices``; ``error_200``; ``no_quota``; ``refusal``;
``echo``; ``same`` (the texts given back); ``missing_tag``; ``no_max_tokens`` (asks for max_completion_tokens);
``leak`` (repeats the key it was given); ``fenced`` (in a Markdown fence); ``na``; ``two`` (two candidates); ``prose``;
``no_usage`` (valid, tokens not counted); ``ok``. Without a fault it gives a valid answer that depends on the question
alone: tagged text, or JSON where a schema was asked for (``schema``).
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import re
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

HANG_SECONDS = 30.0
_MATERIAL = re.compile(
    r"^===== (\w+) (instruction|input|response) begins =====\n(.*?)\n===== \1 \2 ends =====$", re.M | re.S
)

_TAGGED = re.compile(r"<(\w+)>(.*?)</\1>", re.S)


class FakeTeacher:
    """The server. ``script`` is used up by the first requests, in order of arrival; then ``always`` holds.

    ``every``     {n: fault}: questions whose text hashes to a multiple of n, the same ones each time
    ``match``     {text: fault}: questions that hold this text
    ``key``       what ``Authorization: Bearer`` must say; None takes any
    ``schema``    what it does with a JSON schema: "json" answers by it, "refuse" with 400, "ignore" answers with tags
    ``rate``      (requests, seconds): takes so many in each window, the rest gets 429 with Retry-After; ``rejected``
                  counts them
    ``seconds``   how long each answer takes
    ``requests``  what was asked, in order: body, authorization, seconds (monotonic)
    ``highest``   most requests that were under way at once
    """

    def __init__(
        self,
        *,
        script: Sequence[str] = (),
        always: str = "ok",
        every: Mapping[int, str] | None = None,
        match: Mapping[str, str] | None = None,
        key: str | None = None,
        seconds: float = 0.0,
        schema: str = "json",
        rate: tuple[int, float] | None = None,
        port: int = 0,
    ) -> None:
        self.schema = schema
        self.rate = rate
        self.rejected = 0
        self._window_from = 0.0
        self._in_window = 0
        self.script = list(script)
        self.always = always
        self.every = dict(every or {})
        self.match = dict(match or {})
        self.key = key
        self.seconds = seconds
        self.requests: list[dict[str, Any]] = []
        self.answered: list[str] = []
        self.highest = 0
        self._under_way = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        teacher = self

        class Handler(_Handler):
            owner = teacher

        self._server = _Server(("127.0.0.1", port), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def questions(self) -> list[str]:
        """The last message of each request."""
        return [request["body"]["messages"][-1]["content"] for request in self.requests]

    def __enter__(self) -> FakeTeacher:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def serve_forever(self) -> None:
        """Serve in this thread, for use from the command line."""
        self._server.serve_forever()

    def enter(self, body: dict[str, Any], authorization: str) -> str:
        """Count a request in; return the fault that it gets."""
        question = body["messages"][-1]["content"]
        with self._lock:
            self.requests.append({"body": body, "authorization": authorization, "at": time.monotonic()})
            self._under_way += 1
            self.highest = max(self.highest, self._under_way)
            if self.key is not None and authorization != f"Bearer {self.key}":
                return "401"
            if self.rate is not None and (wait := self._over_rate(*self.rate)):
                return f"429:{wait:.3f}"
            if self.schema == "refuse" and "response_format" in body:
                return "wants_no_schema"
            if self.script:
                return self.script.pop(0)
        for text, fault in self.match.items():
            if text in question:
                return fault
        number = int(hashlib.sha256(question.encode()).hexdigest()[:8], 16)
        return next((fault for n, fault in self.every.items() if number % n == 0), self.always)

    def _over_rate(self, most: int, seconds: float) -> float:
        """Seconds to the next window if this one is full, else 0. Fixed windows, as many endpoints have them."""
        now = time.monotonic()
        if now >= self._window_from + seconds:
            self._window_from, self._in_window = now, 0
        if self._in_window >= most:
            self.rejected += 1
            return self._window_from + seconds - now
        self._in_window += 1
        return 0.0

    def leave(self) -> None:
        with self._lock:
            self._under_way -= 1

    def answer_sent(self, question: str) -> None:
        with self._lock:
            self.answered.append(question)

    def pause(self, seconds: float) -> None:
        """Wait, but not beyond the server's end."""
        self._closing.wait(seconds)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away (timeouts, killed workers) are part of the play."""


class _Handler(BaseHTTPRequestHandler):
    owner: FakeTeacher
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # head and body in one packet: else each answer waits for a delayed acknowledgement
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        """Be silent."""

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path != "/v1/chat/completions":
            self._send(404, _error("no such path"))
            return
        body = json.loads(data)
        fault = self.owner.enter(body, self.headers.get("Authorization") or "")
        try:
            self.owner.pause(self.owner.seconds)
            self._reply(fault, body)
        finally:
            self.owner.leave()

    def _reply(self, fault: str, body: dict[str, Any]) -> None:
        kind, _, detail = fault.partition(":")
        question = body["messages"][-1]["content"]
        if kind == "no_max_tokens":
            kind = "ok" if "max_completion_tokens" in body else "wants_other_name"
        if kind in ("ok", "no_usage", *_TEXT_FAULTS):
            text = self._text("ok" if kind == "no_usage" else kind, question, body)
            finish = "length" if kind == "cut_off" else "stop"
            self.owner.answer_sent(question)
            reply = completion(text, finish_reason=finish, body=body)
            self._send(200, reply if kind != "no_usage" else _without_usage(reply))
        elif kind == "429":
            self._send(429, _error("too many requests"), headers=_retry_after(detail))
        elif kind.isdecimal():
            self._send(int(kind), _error(_SAID.get(kind, "something broke")), headers=_retry_after(detail))
        elif kind == "leak":
            self._send(401, _error(f"Incorrect key provided: {self.headers.get('Authorization')}"))
        elif kind == "no_quota":
            self._send(429, _error("You exceeded your current quota", code="insufficient_quota"))
        elif kind == "wants_no_schema":
            self._send(400, _error("Invalid parameter: 'response_format' of type 'json_schema' is not supported."))
        elif kind == "wants_other_name":
            self._send(400, _error("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."))
        elif kind in _BODIES:
            self._send(200, _BODIES[kind], content_type="text/html" if kind == "html" else "application/json")
        else:
            self._break(kind)

    def _text(self, kind: str, question: str, body: dict[str, Any]) -> str | None:
        """The assistant's text: of the form that was asked for, where this server knows schemas."""
        names = _schema_names(body) if self.owner.schema == "json" else []
        if names and kind in ("ok", *_JSON_FAULTS):
            return json_answer(question, names) if kind == "ok" else _JSON_FAULTS[kind](question, names)
        return tagged_answer(question) if kind == "ok" else _TEXT_FAULTS[kind](question)

    def _break(self, kind: str) -> None:
        if kind == "hang":
            self.owner.pause(HANG_SECONDS)
        elif kind == "drip":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            for _ in range(600):
                self.wfile.write(b" ")
                self.wfile.flush()
                self.owner.pause(0.05)
        elif kind != "disconnect":
            raise ValueError(f"no such fault: {kind}")
        self.close_connection = True
        self.connection.close()

    def _send(
        self,
        status: int,
        body: str,
        *,
        headers: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> None:
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


def _error(message: str, *, code: str | None = None) -> str:
    return json.dumps({"error": {"message": message, "type": "error", "code": code}})


def _retry_after(detail: str) -> dict[str, str]:
    if not detail:
        return {}
    if detail.startswith("date:"):
        at = datetime.now(UTC) + timedelta(seconds=float(detail[5:]))
        return {"Retry-After": format_datetime(at, usegmt=True)}
    return {"Retry-After": detail}


def completion(text: str | None, *, finish_reason: str = "stop", body: Mapping[str, Any]) -> str:
    """The JSON of a chat completion; tokens are counted as words."""
    n_in = sum(len(message["content"].split()) for message in body["messages"])
    n_out = len((text or "").split())
    return json.dumps(
        {
            "id": "fake",
            "object": "chat.completion",
            "created": 0,
            "model": f"{body['model']}-as-served",
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
            ],
            "usage": {"prompt_tokens": n_in, "completion_tokens": n_out, "total_tokens": n_in + n_out},
        }
    )


def _without_usage(reply: str) -> str:
    return json.dumps({name: value for name, value in json.loads(reply).items() if name != "usage"})


def material_of(question: str) -> dict[str, str]:
    """The quoted texts of a question: instruction, input, response; absent ones are empty."""
    found = {name: text for _, name, text in _MATERIAL.findall(question)}
    return {name: found.get(name, "") for name in ("instruction", "input", "response")}


def tagged_answer(question: str) -> str:
    """A valid answer made from the question's material alone: the same question gets the same answer."""
    texts = material_of(question)
    turn = int(hashlib.sha256(question.encode()).hexdigest()[:8], 16)
    reasons = (
        "Each step follows from the one before.",
        "The reason is given with every point.",
        "An example is added.",
    )
    better = texts["response"].strip() or "There is nothing to say about this without more material."
    better = f"{better}\n\n{reasons[turn % 3]} In short: {' '.join(better.split()[: 8 + turn % 9])}."
    if "<new_instruction>" not in question:
        critique = "The response is relevant and mostly accurate, but it gives no reasons and little detail."
        return f"<critique>{critique}</critique>\n<better_response>{better}</better_response>"
    asked = texts["instruction"].strip()
    if texts["input"].strip():
        asked += f"\n\n{texts['input'].strip()}"
    new = f"{asked}\n\nGive your reasons, and name one case in which the answer would be different."
    return (
        "<instruction_critique>The topic is clear, but the level of detail is left open.</instruction_critique>\n"
        "<response_critique>Relevant, though short on detail.</response_critique>\n"
        "<diagnosis>The instruction does not ask for reasons, so none are given.</diagnosis>\n"
        f"<new_instruction>{new}</new_instruction>\n<new_response>{better}</new_response>"
    )


def _schema_names(body: Mapping[str, Any]) -> list[str]:
    """The names of the object that the request's JSON schema asks for; none without one."""
    asked = body.get("response_format") or {}
    return list(((asked.get("json_schema") or {}).get("schema") or {}).get("properties") or {})


def _fields(question: str, names: Sequence[str]) -> dict[str, str]:
    texts = material_of(question)
    stage = "<new_instruction>" if "new_instruction" in names else ""
    found = dict(_TAGGED.findall(tagged_answer(question + stage)))
    return {name: found.get(name, texts.get(name, "fine")) for name in names}


def json_answer(question: str, names: Sequence[str]) -> str:
    """A valid answer by a schema: the texts of :func:`tagged_answer` under the schema's names."""
    return json.dumps(_fields(question, names), ensure_ascii=False)


def _same_json(question: str, names: Sequence[str]) -> str:
    texts = material_of(question)
    given = {
        "new_instruction": texts["instruction"],
        "new_response": texts["response"],
        "better_response": texts["response"],
    }
    return json.dumps({name: given.get(name, "Nothing to add.") for name in names}, ensure_ascii=False)


def _two_candidates(question: str) -> str:
    tag = "new_instruction" if "<new_instruction>" in question else "better_response"
    text = tagged_answer(question)
    return f"{text}\n\nOr, as an alternative:\n<{tag}>Something else entirely, in other words.</{tag}>"


def _without_last_tag(question: str) -> str:
    return tagged_answer(question).rpartition("</")[0]


def _only_the_format(question: str) -> str:
    if "<new_instruction>" in question:
        return (
            "<new_instruction>[the better instruction]</new_instruction>\n<new_response>[the response]</new_response>"
        )
    return "<critique>[the assessment]</critique>\n<better_response>[the better response]</better_response>"


def _same_texts(question: str) -> str:
    texts = material_of(question)
    if "<new_instruction>" in question:
        return (
            f"<new_instruction>{texts['instruction']}</new_instruction>\n"
            f"<new_response>{texts['response']}</new_response>"
        )
    return f"<critique>Nothing to add.</critique>\n<better_response>{texts['response']}</better_response>"


_TEXT_FAULTS = {
    "cut_off": lambda question: tagged_answer(question)[:-60],
    "empty": lambda question: "",
    "null": lambda question: None,
    "refusal": lambda question: "I'm sorry, but I can't help with that.",
    "echo": _only_the_format,
    "same": _same_texts,
    "missing_tag": _without_last_tag,
    "fenced": lambda question: f"Here it is:\n```xml\n{tagged_answer(question)}\n```",
    "na": lambda question: re.sub(r">[^<]+</(new_response|better_response)>", r">N/A</\1>", tagged_answer(question)),
    "two": _two_candidates,
    "prose": lambda question: "The response is fine as it is, I would only give it a little more detail.",
}
_JSON_FAULTS: dict[str, Any] = {
    "cut_off": lambda question, names: json_answer(question, names)[:-60],
    "echo": lambda question, names: json.dumps(dict.fromkeys(names, "...")),
    "same": _same_json,
    "missing_tag": lambda question, names: json.dumps(dict(list(_fields(question, names).items())[:-1])),
    "fenced": lambda question, names: f"```json\n{json_answer(question, names)}\n```",
    "na": lambda question, names: json.dumps({**_fields(question, names), names[-1]: "N/A"}),
    "two": lambda question, names: json_answer(question, names) + "\n" + _same_json(question, names),
}
_SAID = {"401": "Incorrect API key provided", "404": "The model does not exist", "500": "internal error"}
_BODIES = {
    "html": "<html><body><h1>Please log in</h1></body></html>",
    "not_json": '{"choices": [{"message"',
    "no_choices": '{"object": "chat.completion", "choices": []}',
    "error_200": _error("the upstream model is overloaded"),
}
FAULTS = (
    "401",
    "429",
    "500",
    "hang",
    "drip",
    "disconnect",
    "leak",
    "no_quota",
    "no_max_tokens",
    "no_usage",
    *_TEXT_FAULTS,
    *_BODIES,
)


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until interrupted; prints the base URL first."""
    parser = argparse.ArgumentParser(description="A teacher for tests: an OpenAI-compatible server with faults.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--script", default="", help="faults of the first requests, separated by commas")
    parser.add_argument("--always", default="ok", help="what all later requests get")
    parser.add_argument("--every", action="append", default=[], metavar="N=FAULT", help="may be repeated")
    parser.add_argument("--key", default=None, help="the only key it takes")
    parser.add_argument("--seconds", type=float, default=0.0, help="how long an answer takes")
    parser.add_argument("--schema", choices=("json", "refuse", "ignore"), default="json", help="what a schema gets")
    parser.add_argument("--rate", default=None, metavar="N/SECONDS", help="takes so many requests in each window")
    given = parser.parse_args(argv)
    most, _, window = (given.rate or "").partition("/")
    every = {int(number): fault for number, _, fault in (item.partition("=") for item in given.every)}
    script = [fault for fault in given.script.split(",") if fault]
    teacher = FakeTeacher(
        script=script,
        always=given.always,
        every=every,
        key=given.key,
        seconds=given.seconds,
        schema=given.schema,
        rate=(int(most), float(window or 60)) if most else None,
        port=given.port,
    )
    run(teacher)


def run(teacher: FakeTeacher) -> None:
    """Print the base URL and serve until interrupted."""
    print(teacher.base_url, flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        teacher.serve_forever()


if __name__ == "__main__":
    main()
