"""The teacher: an LLM behind an OpenAI-compatible endpoint, or recorded answers played back.

A teacher answers one :class:`Question` with one :class:`Answer`. What concerns a single question (a timeout, a
server error, nonsense) is an answer with a reason; what concerns all of them (a wrong key, an unknown model, no
credit, a server that no longer answers) is a :class:`TeacherError` that ends the job before it costs anything more.
``core.teacher_openai`` holds the teacher behind an endpoint.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Protocol
from urllib.parse import urlsplit

from core.errors import SettingsError
from core.example import Example

Message = Mapping[str, str]

RECORDED = "recorded"
_ENV_NAME = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")


@dataclass(frozen=True)
class TeacherSettings:
    """How to reach a teacher. Everything here may be written into a job folder: the key is not part of it.

    ``base_url``          such as ``https://api.openai.com/v1`` or ``http://127.0.0.1:8000/v1``
    ``api_key_env``       *name* of the environment variable with the key; empty for servers that ask for none
    ``temperature``       sampling temperature; None leaves it out (some models refuse it)
    ``max_tokens``        most tokens of one answer; a longer answer is cut off, and so unusable
    ``concurrency``       questions under way at once
    ``timeout_seconds``   longest wait for one attempt
    ``max_retries``       attempts after the first one
    ``deadline_seconds``  all attempts at one question together, waits between them included
    ``backoff_seconds``   first wait between attempts; it doubles each time, with jitter
    ``max_wait_seconds``  longest single wait, also where the server asks for more
    ``price_in``, ``price_out``  USD per million tokens of prompt and answer; None: the cost is unknown, not zero

    Raises:
        SettingsError: a value is not of its form.
    """

    base_url: str
    model: str
    api_key_env: str = "OPENAI_API_KEY"
    temperature: float | None = 0.7
    max_tokens: int = 2048
    concurrency: int = 8
    timeout_seconds: float = 120.0
    max_retries: int = 5
    deadline_seconds: float = 600.0
    backoff_seconds: float = 1.0
    max_wait_seconds: float = 60.0
    price_in: float | None = None
    price_out: float | None = None

    def __post_init__(self) -> None:
        _check_url(self.base_url)
        if not self.model.strip():
            raise SettingsError("The teacher has no model name; give the name that the endpoint knows it by.")
        if self.api_key_env and not _ENV_NAME.fullmatch(self.api_key_env):
            # The text is not repeated: it may be a key that somebody pasted into the wrong field.
            raise SettingsError(
                "The name of the key's environment variable must be of the form OPENAI_API_KEY. "
                "Give the variable's name, never the key itself."
            )
        for name in ("max_tokens", "concurrency"):
            if getattr(self, name) < 1:
                raise SettingsError(f"The teacher's {name} is {getattr(self, name)}; it must be 1 or more.")
        for name in ("timeout_seconds", "deadline_seconds"):
            if not (getattr(self, name) > 0 and math.isfinite(getattr(self, name))):
                raise SettingsError(f"The teacher's {name} is {getattr(self, name)}; it must be above 0.")
        for name in ("max_retries", "backoff_seconds", "max_wait_seconds", "temperature", "price_in", "price_out"):
            value = getattr(self, name)
            if value is not None and not (value >= 0 and math.isfinite(value)):
                raise SettingsError(f"The teacher's {name} is {value}; it must be 0 or more.")

    @property
    def label(self) -> str:
        """The host (and port) of the endpoint: what records and pages call this teacher."""
        parts = urlsplit(self.base_url)
        return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)

    def to_params(self) -> dict[str, Any]:
        """The settings as JSON-able values for a job's params.

        A server without a key is written as ``keyless``: an empty value under a name with "key" in it would look
        like a forgotten secret to whoever guards job folders.
        """
        params = {"kind": "openai", **asdict(self)}
        if not self.api_key_env:
            del params["api_key_env"]
            params["keyless"] = True
        return params

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> TeacherSettings:
        """Read settings back from a job's params (:meth:`to_params`); ``kind`` is ignored.

        Raises:
            SettingsError: a name is unknown or missing, or a value is not of its form.
        """
        given = {name: value for name, value in params.items() if name not in ("kind", "keyless")}
        if params.get("keyless"):
            given["api_key_env"] = ""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(given) - known):
            raise SettingsError(f"The teacher's settings hold unknown names: {', '.join(unknown)}.")
        if missing := sorted({"base_url", "model"} - set(given)):
            raise SettingsError(f"The teacher's settings lack {' and '.join(missing)}.")
        try:
            return cls(**given)
        except TypeError as error:
            raise SettingsError("A value in the teacher's settings is of the wrong type.") from error


def _check_url(base_url: str) -> None:
    """Refuse an address that cannot work, or that carries a secret (it would be stored with the job)."""
    try:
        parts = urlsplit(base_url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable:
        raise SettingsError("The teacher's base URL must look like https://host/v1 or http://127.0.0.1:8000/v1.")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise SettingsError(
            "The teacher's base URL must hold no user name, password or ?query: it is stored with the job. "
            "Put the key into an environment variable."
        )


@dataclass(frozen=True)
class Question:
    """One call to a teacher: the ``stage`` it belongs to, the example it is about, and the messages to send."""

    stage: str
    example: Example
    messages: tuple[Message, ...]
    prompt_version: str


@dataclass(frozen=True)
class Answer:
    """What came back for one question.

    ``raw`` is the assistant's text as it came (the body of the response where that was no chat completion), None
    where nothing came. ``error`` is the reason why this is not an answer, ``transient`` whether asking again may
    help. Tokens are None where the server did not count them, ``cost_usd`` where tokens or prices are unknown.
    ``seconds`` includes all ``attempts`` and the waits between them.
    """

    raw: str | None
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cost_usd: float | None
    seconds: float
    attempts: int
    model: str
    error: str | None = None
    transient: bool = False


class Teacher(Protocol):
    """Who answers questions: ``label`` and ``model`` are shown wherever an answer shows."""

    label: str
    model: str

    async def ask(self, question: Question) -> Answer: ...

    async def close(self) -> None: ...


@dataclass(frozen=True)
class Recording:
    """One recorded reply of the bundled sample."""

    raw: str
    finish_reason: str


class ReplayTeacher:
    """Plays back recorded answers, found by (stage, hash of the example asked about). Nothing is computed or paid.

    Tokens and cost are None: nobody counted them when the answers were written.
    """

    label = RECORDED
    model = RECORDED

    def __init__(self, recordings: Mapping[tuple[str, str], Recording]) -> None:
        self._recordings = recordings

    async def ask(self, question: Question) -> Answer:
        found = self._recordings.get((question.stage, question.example.hash))
        empty = Answer(None, None, None, None, None, seconds=0.0, attempts=0, model=RECORDED)
        if found is None:
            return replace(empty, error="no recorded answer for this row")
        return replace(empty, raw=found.raw, finish_reason=found.finish_reason)

    async def close(self) -> None:
        """Nothing is open."""


def cost_usd(prompt_tokens: int | None, completion_tokens: int | None, *, settings: TeacherSettings) -> float | None:
    """USD for one answer, or None where a price or a count is unknown."""
    if prompt_tokens is None or completion_tokens is None or settings.price_in is None or settings.price_out is None:
        return None
    return (prompt_tokens * settings.price_in + completion_tokens * settings.price_out) / 1e6


@dataclass(frozen=True)
class Estimate:
    """What a job will ask for, before it is submitted. None: unknown."""

    calls: int
    prompt_tokens: int | None
    completion_tokens: int | None
    cost_usd: float | None


# Tokens are estimated as bytes of UTF-8 / 4: about right for English (one byte a character) and for scripts with
# three bytes a character, which take nearly a token each. The teacher writes its critiques beside the new texts.
_BYTES_PER_TOKEN = 4.0
_CRITIQUE_BYTES: Mapping[str, int] = {"instruction": 1200, "response": 500}
_LEAST_RESPONSE_BYTES = 600


def estimate(
    examples: Sequence[Example],
    *,
    stages: Sequence[str],
    prompt_bytes: Mapping[str, int],
    settings: TeacherSettings | None,
) -> Estimate:
    """Expected calls, tokens and cost of asking about every example in every stage: :func:`estimate_totals`."""
    return estimate_totals(
        len(examples),
        instruction_bytes=sum(len((e.instruction + e.input).encode()) for e in examples),
        output_bytes=sum(len(e.output.encode()) for e in examples),
        stages=stages,
        prompt_bytes=prompt_bytes,
        settings=settings,
    )


def estimate_totals(
    n_rows: int,
    *,
    instruction_bytes: int,
    output_bytes: int,
    stages: Sequence[str],
    prompt_bytes: Mapping[str, int],
    settings: TeacherSettings | None,
) -> Estimate:
    """The estimate from sums over the rows (a store computes them without fetching the texts).

    Args:
        n_rows: rows to reflect.
        instruction_bytes: UTF-8 bytes of all instructions and inputs together.
        output_bytes: the same of all responses.
        stages: stages that ask once per row.
        prompt_bytes: bytes of a stage's prompt without an example (``core.reflection.PROMPT_BYTES``).
        settings: None for recorded answers: tokens and cost are unknown then, only calls are counted.

    The prompt is prompt + example; the answer is critique + the texts written anew (a better response has at least
    600 bytes), at most ``max_tokens`` on average. The response stage may ask about the reflected pair, whose length
    nobody knows yet: it counts as long as the original. Failed attempts are not foreseen.
    """
    calls = n_rows * len(stages)
    if settings is None:
        return Estimate(calls, None, None, None)
    n_in = n_out = 0
    for stage in stages:
        n_in += round((n_rows * prompt_bytes[stage] + instruction_bytes + output_bytes) / _BYTES_PER_TOKEN)
        written = n_rows * _CRITIQUE_BYTES[stage] + max(output_bytes, n_rows * _LEAST_RESPONSE_BYTES)
        written += instruction_bytes if stage == "instruction" else 0
        n_out += min(round(written / _BYTES_PER_TOKEN), n_rows * settings.max_tokens)
    return Estimate(calls, n_in, n_out, cost_usd(n_in, n_out, settings=settings))
