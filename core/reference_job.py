"""The references job: a teacher writes reference outputs, one shard of instructions after the other.

Every answer is kept in the job folder the moment it arrives, so a job that was killed pays for no answer twice. An
answer that cannot be used is kept raw with its reason. A teacher that can answer nobody (wrong key, no credit, down)
ends the job, which can be resumed.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from core.errors import JobError, SettingsError
from core.evaluation import CODES, MOST_REFERENCES, STAGE, NoReference, build_question, read_answer
from core.teacher import Answer, Teacher, TeacherSettings
from core.teacher_openai import OpenAITeacher

if TYPE_CHECKING:
    from core.jobs.folder import JobFolder
    from core.jobs.runner import Progress
    from core.jobs.spec import JobSpec

SHARD_ROWS = 8  # instructions: with five references each enough questions to keep the teacher's slots full

SHARD_SCHEMA = pa.schema(
    [
        ("example_id", pa.int64()),
        ("number", pa.int64()),
        ("call_id", pa.string()),
        ("prompt_version", pa.string()),
        ("teacher", pa.string()),
        ("model", pa.string()),
        ("raw", pa.string()),
        ("finish_reason", pa.string()),
        ("outcome", pa.string()),
        ("reason", pa.string()),
        ("output", pa.string()),
        ("prompt_tokens", pa.int64()),
        ("completion_tokens", pa.int64()),
        ("cost_usd", pa.float64()),
        ("seconds", pa.float64()),
        ("attempts", pa.int64()),
        ("requested_at", pa.string()),
    ]
)
"""One row a call. ``outcome`` "parsed" with an ``output``, or a code of ``core.evaluation.CODES`` with its reason."""

_ANSWER_FIELDS = tuple(field.name for field in fields(Answer))
_KEPT_FIELDS = {*_ANSWER_FIELDS, "key", "call_id", "requested_at"}


@dataclass(frozen=True)
class ReferenceOptions:
    """What a references job was asked for: the params of its spec.

    ``references``  how many reference outputs an instruction is to have in the end, 1 to 20

    Raises:
        SettingsError: the number is out of its range.
    """

    teacher: TeacherSettings
    references: int

    def __post_init__(self) -> None:
        if not 1 <= self.references <= MOST_REFERENCES:
            raise SettingsError(
                f"{self.references} references an instruction were asked for; choose 1 to {MOST_REFERENCES}."
            )

    def to_params(self) -> dict[str, Any]:
        """The params of a job's spec; no secret is among them."""
        return {"teacher": self.teacher.to_params(), "references": self.references}

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> ReferenceOptions:
        """Read the params of a job's spec.

        Raises:
            SettingsError: something is missing or of the wrong form.
        """
        try:
            return cls(TeacherSettings.from_params(params["teacher"]), int(params["references"]))
        except (KeyError, TypeError, ValueError) as error:
            raise SettingsError(f"The params of the references job are not whole: {error}.") from error


def run(folder: JobFolder, spec: JobSpec, report: Progress) -> None:
    """Do a references job: input columns ``example_id, instruction, input, n_wanted``; shards as ``SHARD_SCHEMA`` says.

    Raises:
        SettingsError: the params are not of their form.
        TeacherError: the key is missing, or the teacher can answer no question at all.
        JobError: the folder cannot be read or written.
    """
    options = ReferenceOptions.from_params(spec.params)
    finished = folder.finished_shards()
    pending = [shard for shard in folder.shard_ranges() if shard[0] not in finished]
    if not pending:
        return
    for name in ("httpx", "httpx2"):
        logging.getLogger(name).setLevel(logging.WARNING)  # one line a request would bury the log
    asyncio.run(_write(folder, pending=pending, teacher=OpenAITeacher(options.teacher), report=report))


async def _write(
    folder: JobFolder, *, pending: Sequence[tuple[int, int, int]], teacher: Teacher, report: Progress
) -> None:
    table = folder.input_table()
    if missing := {"instruction", "input", "n_wanted"} - set(table.column_names):
        raise JobError(f"The input of this job has no column {', '.join(sorted(missing))}. Submit it again.")
    kept = {one["key"]: one for one in folder.answers() if set(one) >= _KEPT_FIELDS}
    done = table.num_rows - sum(stop - start for _, start, stop in pending)
    try:
        for index, start, stop in pending:
            rows = table.slice(start, stop - start).to_pylist()
            report.note(f"Instructions {start + 1} to {stop}: asking for {sum(r['n_wanted'] for r in rows)} references")
            calls = await _ask_all(folder, rows, teacher=teacher, kept=kept)
            _tell_failures(calls, report=report)
            folder.write_shard(index, pa.Table.from_pylist(calls, schema=SHARD_SCHEMA))
            done += stop - start
            report.rows(done)
    finally:
        await teacher.close()


async def _ask_all(
    folder: JobFolder, rows: Sequence[Mapping[str, Any]], *, teacher: Teacher, kept: dict[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    """Ask for the references of these rows at once (the teacher bounds how many are under way).

    Raises:
        TeacherError: no question can be answered; what was under way is given up.
    """
    wanted = [(row, number) for row in rows for number in range(row["n_wanted"])]
    answers: dict[str, dict[str, Any]] = {}

    async def ask(row: Mapping[str, Any], number: int) -> None:
        key = _key(row, number)
        if key not in kept:
            requested_at = datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
            answer = await teacher.ask(build_question(row["instruction"], row["input"]))
            one = {"key": key, "call_id": str(uuid.uuid4()), "requested_at": requested_at, **asdict(answer)}
            if answer.error is None:  # only what was answered may have been paid; the rest is asked again on resume
                folder.append_answer(one)
                kept[key] = one
            answers[key] = one
        else:
            answers[key] = kept[key]

    try:
        async with asyncio.TaskGroup() as group:
            for row, number in wanted:
                group.create_task(ask(row, number))
    except ExceptionGroup as errors:
        raise _first(errors) from None
    seen: set[tuple[int, str]] = set()
    return [_call(row, number, answers[_key(row, number)], teacher=teacher, seen=seen) for row, number in wanted]


def _key(row: Mapping[str, Any], number: int) -> str:
    """An answer is known by what was asked and by how many times it was asked before: references differ by chance."""
    question = build_question(row["instruction"], row["input"])
    return f"{STAGE}:{question.example.hash}:{question.prompt_version}:{number}"


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _call(
    row: Mapping[str, Any],
    number: int,
    kept: Mapping[str, Any],
    *,
    teacher: Teacher,
    seen: set[tuple[int, str]],
) -> dict[str, Any]:
    """The row of a shard that an answer gives. ``seen`` has the outputs before it: the same text counts once."""
    answer = Answer(**{name: kept[name] for name in _ANSWER_FIELDS})
    output: str | None = None
    if answer.error is not None:
        outcome, reason = "error", answer.error
    else:
        found = read_answer(answer.raw, answer.finish_reason)
        if isinstance(found, NoReference):
            outcome, reason = found.code, found.reason
        elif (row["example_id"], found.output) in seen:
            outcome, reason = "repeated", "The same text is a reference already. A higher temperature gives others."
        else:
            outcome, reason, output = "parsed", None, found.output
            seen.add((row["example_id"], output))
    return {
        "example_id": row["example_id"],
        "number": number,
        "call_id": kept["call_id"],
        "prompt_version": build_question(row["instruction"], row["input"]).prompt_version,
        "teacher": teacher.label,
        "outcome": outcome,
        "reason": reason,
        "output": output,
        "requested_at": kept["requested_at"],
        **{name: kept[name] for name in ("model", "raw", "finish_reason", "prompt_tokens", "completion_tokens")},
        **{name: kept[name] for name in ("cost_usd", "seconds", "attempts")},
    }


def _tell_failures(calls: Sequence[Mapping[str, Any]], *, report: Progress) -> None:
    found: dict[str, list[int]] = {}
    for call in calls:
        if call["output"] is None:
            reason = call["reason"] if call["outcome"] == "error" else CODES[call["outcome"]]
            found.setdefault(f"reference: {reason}", []).append(call["example_id"])
    for reason, example_ids in found.items():
        report.row_errors(reason, list(dict.fromkeys(example_ids)))
