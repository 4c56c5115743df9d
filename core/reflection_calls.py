"""The calls of a reflect job: each answer is kept in the job folder as it arrives, and never paid for twice."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from core.example import Example
from core.reflection import INSTRUCTION, RESPONSE, build_question, candidate_of
from core.reflection_records import Call, Failure
from core.reflection_replies import Parsed, parse_reply
from core.teacher import RECORDED, Answer, Question, Teacher

if TYPE_CHECKING:
    from core.jobs.folder import JobFolder

_KEPT_FIELDS = {field.name for field in fields(Answer)} | {"key", "call_id", "requested_at"}


@dataclass(frozen=True)
class Reply:
    """What one question gave: the call as it is kept, and a candidate or a failure or (unchanged) neither."""

    call: Call
    candidate: Example | None
    failure: Failure | None


class Calls:
    """The teacher with a memory: answers that the job folder holds are not asked for again.

    An answer is known by stage, content hash of the example asked about, and prompt version. It is read anew each
    time, so a better parser makes more of the same answers.
    """

    def __init__(self, folder: JobFolder, teacher: Teacher) -> None:
        self._folder = folder
        self._teacher = teacher
        self._known = _kept_answers(folder)

    async def ask_all(self, questions: Sequence[Question], *, on_answer: Callable[[int], None]) -> list[Reply]:
        """Ask all questions at once (the teacher bounds how many are under way); equal ones are asked once.

        Raises:
            TeacherError: no question can be answered; what was under way is given up.
        """
        unique = {_key(question): question for question in questions}
        arrived = 0

        async def ask(question: Question) -> None:
            nonlocal arrived
            replies[_key(question)] = await self._ask(question)
            arrived += 1
            on_answer(arrived)

        replies: dict[str, Reply] = {}
        try:
            async with asyncio.TaskGroup() as group:
                for question in unique.values():
                    group.create_task(ask(question))
        except ExceptionGroup as errors:
            raise _first(errors) from None
        return [replies[_key(question)] for question in questions]

    async def _ask(self, question: Question) -> Reply:
        key = _key(question)
        kept = self._known.get(key)
        if kept is None:
            requested_at = datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
            answer = await self._teacher.ask(question)
            kept = {"key": key, "call_id": str(uuid.uuid4()), "requested_at": requested_at, **asdict(answer)}
            if answer.error is None:  # only what was answered may have been paid; the rest is asked again on resume
                self._folder.append_answer(kept)
                self._known[key] = kept
        return _read(question, kept, teacher=self._teacher)


def carry_answers(old: JobFolder, *, new: JobFolder) -> int:
    """Give a retry job the usable answers of the job that it retries; return how many.

    Called when the retry's folder was made and before it runs: then only what failed is asked and paid again, and
    the stage that worked proposes the same candidate as before. A carried answer keeps its ``call_id``.

    Raises:
        JobError: a folder cannot be read or written.
    """
    kept = _kept_answers(old)
    table = new.input_table(columns=["instruction", "input", "output"]).to_pydict()
    carried: set[str] = set()

    def carry(stage: str, example: Example) -> Example | None:
        question = build_question(stage, example=example)
        found = kept.get(_key(question))
        parsed = found and parse_reply(stage, found["raw"], found["finish_reason"])
        if not found or not isinstance(parsed, Parsed):
            return None
        if found["key"] not in carried:
            carried.add(found["key"])
            new.append_answer(found)
        return candidate_of(stage, asked=example, parsed=parsed)

    for texts in zip(table["instruction"], table["input"], table["output"], strict=True):
        original = Example(*texts)
        carry(RESPONSE, original)
        candidate = carry(INSTRUCTION, original)
        if candidate is not None and candidate != original:
            carry(RESPONSE, candidate)
    return len(carried)


def _kept_answers(folder: JobFolder) -> dict[str, dict[str, Any]]:
    return {kept["key"]: kept for kept in folder.answers() if set(kept) >= _KEPT_FIELDS}


def _key(question: Question) -> str:
    return f"{question.stage}:{question.example.hash}:{question.prompt_version}"


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _read(question: Question, kept: Mapping[str, Any], *, teacher: Teacher) -> Reply:
    """Make the call's record from a kept answer, and say what it gives."""
    answer = Answer(**{field.name: kept[field.name] for field in fields(Answer)})
    stage, asked = question.stage, question.example
    candidate, failure, critique = None, None, {}
    outcome, reason = "parsed", None
    if answer.error is not None:
        outcome, reason = "error", answer.error
        failure = Failure(stage, outcome, reason, answer.transient)
    else:
        parsed = parse_reply(stage, answer.raw, answer.finish_reason)
        critique = dict(parsed.critique)
        if not isinstance(parsed, Parsed):
            outcome, reason = parsed.code, parsed.reason
            # A recording says the same next time; a teacher may do better.
            failure = Failure(stage, outcome, reason, transient=teacher.label != RECORDED)
        else:
            candidate = candidate_of(stage, asked=asked, parsed=parsed)
            if candidate == asked:
                candidate, outcome, reason = None, "unchanged", "The teacher gave the same texts back."
    call = Call(
        call_id=kept["call_id"],
        stage=stage,
        example=asked,
        prompt_version=question.prompt_version,
        teacher=teacher.label,
        model=answer.model,
        raw=answer.raw,
        finish_reason=answer.finish_reason,
        outcome=outcome,
        reason=reason,
        critique=json.dumps(critique, ensure_ascii=False),
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.completion_tokens,
        cost_usd=answer.cost_usd,
        seconds=answer.seconds,
        attempts=answer.attempts,
        requested_at=kept["requested_at"],
    )
    return Reply(call, candidate, failure)
