"""A teacher behind an OpenAI-compatible endpoint: bounded concurrency, retries that end, plain reasons.

The key is read from the environment when the teacher is opened. It is in no setting, message, record or ``repr``:
every text that came from outside loses it (:func:`_hider`) before it is kept.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from core.errors import TeacherError
from core.teacher import Answer, Question, TeacherSettings, cost_usd

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

GIVE_UP_AFTER = 20  # questions in a row without any answer: the endpoint is down, not the question at fault
_STOP_CODES = {401, 402, 403, 404}
_RETRY_CODES = {408, 409, 425, 429}
_NO_CREDIT = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")
_LOCAL_HOSTS = {"localhost", "127.0.0.1", "::1"}
_MAX_BODY_CHARACTERS = 100_000


class OpenAITeacher:
    """A teacher behind an OpenAI-compatible endpoint. Use it inside one event loop, and close it there.

    Raises:
        TeacherError: the variable with the key is not set or holds no key.
    """

    def __init__(
        self,
        settings: TeacherSettings,
        *,
        environ: Mapping[str, str] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        random_source: random.Random | None = None,
    ) -> None:
        self.settings = settings
        self.label = settings.label
        self.model = settings.model
        key = _read_key(settings, os.environ if environ is None else environ)
        self._hide = _hider(settings, key)
        self._client = _open_client(settings, key)
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._sleep = sleep
        self._random = random_source or random.Random()
        self._resume_at = 0.0  # monotonic seconds: a server that asks one call to wait means all of them
        self._unanswered = 0
        self._stopped: str | None = None
        self._limit_name = "max_tokens"

    async def close(self) -> None:
        await self._client.close()

    async def ask(self, question: Question) -> Answer:
        """Ask one question, trying again where that may help, never longer than the settings' deadline.

        Raises:
            TeacherError: no question can be answered with these settings (key, model, credit), or
                ``GIVE_UP_AFTER`` questions in a row got no answer.
        """
        async with self._slots:
            if self._stopped is not None:
                raise TeacherError(self._stopped)
            try:
                answer = await self._ask_with_retries(question)
            except TeacherError as error:
                self._stopped = str(error)  # for those that wait for a slot
                raise
        self._unanswered = 0 if answer.error is None else self._unanswered + 1
        if self._unanswered >= GIVE_UP_AFTER:
            self._stopped = (
                f"The teacher {self.label} has not answered {self._unanswered} questions in a row, so the job stops "
                f"here. The last reason: {answer.error}. Resume the job when it answers again: no answer is paid twice."
            )
            raise TeacherError(self._stopped)
        return answer

    async def _ask_with_retries(self, question: Question) -> Answer:
        started = time.monotonic()
        deadline = started + self.settings.deadline_seconds
        attempt = 0
        while True:
            gate = self._resume_at
            if gate >= deadline:
                outcome: Answer | _Failed = _Failed(
                    "the teacher asks for longer waits than the deadline", transient=True
                )
            else:
                await self._pause(gate - time.monotonic())
                attempt += 1
                outcome = await self._attempt(question, deadline)
            if isinstance(outcome, Answer):
                return replace(outcome, seconds=time.monotonic() - started, attempts=attempt)
            wait = self._wait_after(outcome, attempt)
            if outcome.retry and attempt <= self.settings.max_retries and time.monotonic() + wait < deadline:
                await self._pause(wait)
                continue
            return self._gave_up(outcome, seconds=time.monotonic() - started, attempts=attempt)

    async def _pause(self, seconds: float) -> None:
        if seconds > 0:
            await self._sleep(seconds)

    def _wait_after(self, failed: _Failed, attempt: int) -> float:
        """Seconds before the next attempt.

        What the server asked for (capped), which then holds for all questions; else doubling from
        ``backoff_seconds``, capped, between half and all of it. Jitter on both: else all come back at one instant.
        """
        longest = self.settings.max_wait_seconds
        if failed.asked_wait is not None:
            wait = min(failed.asked_wait, longest)
            self._resume_at = max(self._resume_at, time.monotonic() + wait)
            return wait * self._random.uniform(1.0, 1.1)
        full = self.settings.backoff_seconds * 2.0 ** min(attempt - 1, 30)
        return min(full, longest) * self._random.uniform(0.5, 1.0)

    def _gave_up(self, failed: _Failed, *, seconds: float, attempts: int) -> Answer:
        tries = f" ({attempts} attempts)" if attempts > 1 else ""  # no seconds: equal reasons are counted together
        transient = failed.retry or failed.transient
        return self._answer(
            failed.raw, error=failed.reason + tries, transient=transient, seconds=seconds, attempts=attempts
        )

    async def _attempt(self, question: Question, deadline: float) -> Answer | _Failed:
        """Send the question once. The time limit is ours: the client's own counts each read, not the whole."""
        import openai

        limit = max(0.001, min(self.settings.timeout_seconds, deadline - time.monotonic()))
        limit_name = self._limit_name
        try:
            async with asyncio.timeout(limit):
                response = await self._client.chat.completions.with_raw_response.create(
                    **self._request(question, limit_name)
                )
            return self._read_body(response.http_response.text)
        except (TimeoutError, openai.APITimeoutError):
            return _Failed(f"the teacher did not answer within {limit:.3g} s", retry=True)
        except openai.APIStatusError as error:
            if (
                error.status_code == 400
                and limit_name == "max_tokens"
                and "max_completion_tokens" in error.response.text
            ):
                self._limit_name = "max_completion_tokens"  # newer models refuse the old name and say so
                return await self._attempt(question, deadline)
            return self._status_failure(error)
        except openai.APIConnectionError as error:
            cause = self._hide(str(error.__cause__ or "")).strip() or "the connection broke"
            return _Failed(f"the teacher could not be reached: {_short(cause)}", retry=True)
        except openai.OpenAIError as error:
            return _Failed(f"the teacher's answer could not be read ({type(error).__name__})", retry=True)

    def _request(self, question: Question, limit_name: str) -> dict[str, Any]:
        request: dict[str, Any] = {
            "model": self.settings.model,
            "messages": [dict(message) for message in question.messages],
            limit_name: self.settings.max_tokens,
        }
        if self.settings.temperature is not None:
            request["temperature"] = self.settings.temperature
        return request

    def _status_failure(self, error: APIStatusError) -> _Failed:
        """Sort an HTTP error: stop the job, try again, or give this row up.

        Raises:
            TeacherError: the next question would fail the same way.
        """
        code, body = error.status_code, whole_characters(error.response.text)
        said = self._hide(_said(body))
        if code in _STOP_CODES or (code == 429 and any(word in body for word in _NO_CREDIT)):
            raise TeacherError(self._stop_message(code, said)) from None
        retry = code in _RETRY_CODES or code >= 500
        asked = retry_after_seconds(error.response.headers, now=datetime.now(UTC)) if retry else None
        raw = self._hide(body)[:_MAX_BODY_CHARACTERS] or None
        return _Failed(f"the teacher answered HTTP {code}{said}", retry=retry, asked_wait=asked, raw=raw)

    def _stop_message(self, code: int, said: str) -> str:
        name = self.settings.api_key_env
        key = f"the key in {name}" if name else "a call without a key (no environment variable is named)"
        if code == 401:
            return f"The teacher {self.label} refused {key} (HTTP 401){said}. Set the right key and resume the job."
        if code == 403:
            return f"The teacher {self.label} does not allow this with {key} (HTTP 403){said}. Check what it may do."
        if code == 404:
            return (
                f"The teacher {self.label} knows no model {self.model!r}, or the base URL is wrong (HTTP 404){said}. "
                "Check both, then submit the job again."
            )
        return (
            f"The account at the teacher {self.label} has no credit left (HTTP {code}){said}. "
            "Resume the job when it has: no answer is paid twice."
        )

    def _read_body(self, body: str) -> Answer | _Failed:
        """Read a response with status 200: servers and proxies send a lot of things with it.

        Nonsense is not asked again at once (it may have been paid), but a retry of the row asks again.
        """
        kept = self._hide(whole_characters(body))[:_MAX_BODY_CHARACTERS]
        try:
            data = json.loads(body)
        except (ValueError, RecursionError):
            return _Failed(f"the teacher's answer is not JSON: {_short(kept)}", transient=True, raw=kept or None)
        if isinstance(data, dict) and data.get("error"):
            return _Failed(f"the teacher answered with an error{_said(kept)}", transient=True, raw=kept)
        read = _read_completion(data)
        if read is None:
            return _Failed(f"the teacher's answer is no chat completion: {_short(kept)}", transient=True, raw=kept)
        text, finish_reason = read
        usage = data.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        n_in, n_out = (_count(usage.get(name)) for name in ("prompt_tokens", "completion_tokens"))
        served = data.get("model")
        return self._answer(
            self._hide(whole_characters(text)),
            finish_reason=finish_reason,
            prompt_tokens=n_in,
            completion_tokens=n_out,
            cost_usd=cost_usd(n_in, n_out, settings=self.settings),
            model=self._hide(whole_characters(served)) if isinstance(served, str) and served else self.model,
        )

    def _answer(self, raw: str | None, **values: Any) -> Answer:
        empty = Answer(raw, None, None, None, None, seconds=0.0, attempts=1, model=self.model)
        return replace(empty, **values)


@dataclass(frozen=True)
class _Failed:
    """One attempt without an answer: try it again now (``retry``), or only when somebody asks to (``transient``)."""

    reason: str
    retry: bool = False
    transient: bool = False
    asked_wait: float | None = None
    raw: str | None = None


def _read_key(settings: TeacherSettings, environ: Mapping[str, str]) -> str:
    name = settings.api_key_env
    if not name:
        return "none"  # local servers ask for no key, the client library for some text
    key = environ.get(name, "").strip()
    if not key:
        raise TeacherError(
            f"The environment variable {name} is not set on the server, so the teacher {settings.label} cannot be "
            f"asked. Set {name} to the key and start the server again."
        )
    if not (key.isascii() and key.isprintable()):
        raise TeacherError(f"The value of the environment variable {name} is no key: it holds line breaks or the like.")
    return key


def _hider(settings: TeacherSettings, key: str) -> Callable[[str], str]:
    """A function that takes the key out of a text, also where a server shows its first characters only."""
    if not settings.api_key_env or len(key) < 8:
        return lambda text: text  # no secret; "x" for a local server is in every text
    pattern = re.compile(re.escape(key) + (rf"|{re.escape(key[:6])}[^\s\"'<>]*" if len(key) >= 16 else ""))
    return lambda text: pattern.sub("[key]", text)


def _open_client(settings: TeacherSettings, key: str) -> AsyncOpenAI:
    """The client with its own retries off (ours honour the deadline) and room for every slot."""
    import openai

    # A proxy of the environment must not catch calls to this machine: httpx makes no exception for it.
    local = urlsplit(settings.base_url).hostname in _LOCAL_HOSTS
    return openai.AsyncOpenAI(
        base_url=settings.base_url,
        api_key=key,
        max_retries=0,
        timeout=settings.timeout_seconds,
        http_client=openai.DefaultAsyncHttpxClient(trust_env=not local),
    )


def retry_after_seconds(headers: Mapping[str, str], *, now: datetime) -> float | None:
    """Seconds that a response asks to wait: ``Retry-After-Ms``, or ``Retry-After`` as seconds or as an HTTP date.

    ``now`` is an aware time. None where the header is absent or not readable; a date in the past gives 0.
    """
    for name, seconds_per_unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name) or "nan") * seconds_per_unit
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    try:
        at = parsedate_to_datetime(headers.get("retry-after") or "")
    except ValueError:
        return None
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds())


def whole_characters(text: str) -> str:
    """The text with lone surrogates replaced and NUL dropped: a store can keep neither."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "")


def _read_completion(data: Any) -> tuple[str, str | None] | None:
    """(text, finish_reason) of a chat completion; None if it is none. A refusal's text counts as text."""
    try:
        choice = data["choices"][0]
        message = choice["message"]
        content, refusal = message.get("content"), message.get("refusal")
        finish_reason = choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError):
        return None
    if isinstance(content, list):  # content parts, as some servers send them
        content = "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    if not content and isinstance(refusal, str) and refusal:
        return refusal, "refusal"
    if content is not None and not isinstance(content, str):
        return None
    return content or "", finish_reason if isinstance(finish_reason, str) else None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _said(body: str) -> str:
    """``: what the server said``, short, or nothing."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        data = None
    error = data.get("error", data) if isinstance(data, dict) else data
    message = error.get("message") if isinstance(error, dict) else error
    text = message if isinstance(message, str) else ("" if data is not None else body)
    return f": {_short(text)}" if text.strip() else ""


def _short(text: str) -> str:
    line = " ".join(text.split()) or "(empty)"
    return line if len(line) <= 200 else line[:199] + "…"
