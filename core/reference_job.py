"""The references job: a teacher writes reference outputs for instructions.

Every answer is kept in the job folder the moment it arrives, so a job that was killed pays for no answer twice. An
answer that cannot be used is kept raw with its reason. A teacher that can answer nobody (wrong key, no credit, down)
ends the job, which can be resumed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from core.errors import JobError, SettingsError, TeacherError, first_of
from core.evaluation import CODES, MOST_REFERENCES, STAGE, NoReference, build_question, read_answer
from core.kept_answers import Kept, KeptAnswers, carry, read_kept
from core.teacher import LocalTeacherSettings, Teacher, TeacherSettings
from core.teacher_limits import pace_told
from core.teachers import open_teacher, settings_of

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

_ANSWER_COLUMNS = (
    *("model", "raw", "finish_reason", "prompt_tokens", "completion_tokens"),
    *("cost_usd", "seconds", "attempts"),
)


@dataclass(frozen=True)
class ReferenceOptions:
    """What a references job was asked for: the params of its spec.

    ``references``  how many reference outputs an instruction is to have in the end, 1 to 20

    Raises:
        SettingsError: the number is out of its range.
    """

    teacher: TeacherSettings | LocalTeacherSettings
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
            teacher, references = settings_of(params["teacher"]), int(params["references"])
        except (KeyError, TypeError, ValueError) as error:
            raise SettingsError(f"The params of the references job are not whole: {error}.") from error
        if teacher is None:
            raise SettingsError("There are no recorded references; choose an endpoint or a local model as teacher.")
        return cls(teacher, references)


def run(folder: JobFolder, spec: JobSpec, report: Progress) -> None:
    """Do a references job: input columns ``example_id, instruction, input, n_wanted``; shards as ``SHARD_SCHEMA`` says.

    Raises:
        SettingsError: the params are not of their form.
        TeacherError: the key is missing, the teacher can answer no question at all, or its budget is spent.
        ModelError: a local teacher cannot be loaded.
        JobError: the folder cannot be read or written.
    """
    options = ReferenceOptions.from_params(spec.params)
    finished = folder.finished_shards()
    pending = [shard for shard in folder.shard_ranges() if shard[0] not in finished]
    if not pending:
        return
    for name in ("httpx", "httpx2"):
        logging.getLogger(name).setLevel(logging.WARNING)  # one line a request would bury the log
    asyncio.run(_write(folder, spec, options=options, pending=pending, report=report))


@dataclass
class _Shard:
    """One shard on its way: its rows, what is asked for them, and the answers so far."""

    index: int
    rows: list[dict[str, Any]]
    answers: dict[tuple[int, int], Kept] = field(default_factory=dict)

    @property
    def wanted(self) -> list[tuple[dict[str, Any], int]]:
        return [(row, number) for row in self.rows for number in range(row["n_wanted"])]


async def _write(
    folder: JobFolder,
    spec: JobSpec,
    *,
    options: ReferenceOptions,
    pending: Sequence[tuple[int, int, int]],
    report: Progress,
) -> None:
    table = folder.input_table()
    if missing := {"instruction", "input", "n_wanted"} - set(table.column_names):
        raise JobError(f"The input of this job has no column {', '.join(sorted(missing))}. Submit it again.")
    shards = [_Shard(index, table.slice(start, stop - start).to_pylist()) for index, start, stop in pending]
    n_rows = sum(len(shard.rows) for shard in shards)
    n_wanted = sum(row["n_wanted"] for shard in shards for row in shard.rows)
    teacher = open_teacher(options.teacher, folder=folder, device=spec.device)
    try:
        answers = KeptAnswers(folder, teacher, budget_usd=getattr(options.teacher, "budget_usd", None))
        work = _Work(folder, answers, report, n_done=table.num_rows - n_rows)
        report.note(f"Asking for {n_wanted:,} references of {n_rows:,} instructions")
        for shard in shards:
            if not shard.wanted:
                work.finish(shard)
        async with pace_told(teacher, report.note):
            await _work_off(work, shards, n_workers=n_wanted if teacher.slots is None else min(teacher.slots, n_wanted))
        if work.stopped is not None:
            raise work.stopped
    finally:
        await teacher.close()


@dataclass
class _Work:
    """What the workers share. ``stopped`` is why no further question is asked."""

    folder: JobFolder
    answers: KeptAnswers
    report: Progress
    n_done: int
    stopped: TeacherError | None = None

    async def ask(self, shard: _Shard, row: Mapping[str, Any], number: int) -> None:
        """Ask for one reference; write the shard when it was the last one."""
        try:
            kept = await self.answers.ask(_key(row, number), build_question(row["instruction"], row["input"]))
        except TeacherError as error:
            self.stopped = self.stopped or error
            return
        shard.answers[row["example_id"], number] = kept
        if len(shard.answers) == len(shard.wanted):
            self.finish(shard)

    def finish(self, shard: _Shard) -> None:
        """Write the shard of answers that are all there."""
        seen: set[tuple[int, str]] = set()
        calls = [
            _call(row, number, shard.answers[row["example_id"], number], teacher=self.answers.teacher, seen=seen)
            for row, number in shard.wanted
        ]
        _tell_failures(calls, report=self.report)
        self.folder.write_shard(shard.index, pa.Table.from_pylist(calls, schema=SHARD_SCHEMA))
        self.n_done += len(shard.rows)
        self.report.rows(self.n_done)


async def _work_off(work: _Work, shards: Sequence[_Shard], *, n_workers: int) -> None:
    """Ask for everything that is wanted, ``n_workers`` questions at once.

    A teacher that stops lets the calls under way come back, which may have been paid; any other error ends all.
    """
    left = iter([(shard, row, number) for shard in shards for row, number in shard.wanted])

    async def worker() -> None:
        for shard, row, number in left:
            if work.stopped is not None:
                return
            await work.ask(shard, row, number)

    async def flush() -> None:
        """Nobody asks twice: when every worker has begun, those that collect questions have seen all there are."""
        await asyncio.sleep(0.01)
        await work.answers.teacher.flush()

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(n_workers):
                group.create_task(worker())
            group.create_task(flush())
    except ExceptionGroup as errors:
        raise first_of(errors) from None


def carry_answers(old: JobFolder, *, new: JobFolder) -> int:
    """Give a new job the answers that an unfinished job got and did not bring into its shards; return how many.

    Called when the new job's folder was made and before it runs. Only answers of the same teacher and model are taken,
    to instructions that the new job asks about too.

    Raises:
        JobError: a folder cannot be read or written.
    """
    teachers = [ReferenceOptions.from_params(folder.spec().params).teacher for folder in (old, new)]
    if len({(teacher.label, teacher.model) for teacher in teachers}) > 1:
        return 0
    finished = old.finished_shards()
    asked = old.input_table(columns=["instruction", "input", "n_wanted"])
    wanted = new.input_table(columns=["instruction", "input", "n_wanted"])
    open_rows = [
        row
        for index, start, stop in old.shard_ranges()
        if index not in finished
        for row in asked.slice(start, stop - start).to_pylist()
    ]
    keys = {_key(row, number) for row in wanted.to_pylist() for number in range(row["n_wanted"])}
    kept = read_kept(old)
    known = read_kept(new)
    found = {_key(row, number) for row in open_rows for number in range(row["n_wanted"])}
    return carry([kept[key] for key in sorted(found & keys) if key in kept and key not in known], to=new)


def _key(row: Mapping[str, Any], number: int) -> str:
    """An answer is known by what was asked and by how many times it was asked before: references differ by chance."""
    question = build_question(row["instruction"], row["input"])
    return f"{STAGE}:{question.example.hash}:{question.prompt_version}:{number}"


def _call(
    row: Mapping[str, Any],
    number: int,
    kept: Kept,
    *,
    teacher: Teacher,
    seen: set[tuple[int, str]],
) -> dict[str, Any]:
    """The row of a shard that an answer gives. ``seen`` has the outputs before it: the same text counts once."""
    answer = kept.answer
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
        "call_id": kept.call_id,
        "prompt_version": build_question(row["instruction"], row["input"]).prompt_version,
        "teacher": teacher.label,
        "outcome": outcome,
        "reason": reason,
        "output": output,
        "requested_at": kept.requested_at,
        **{name: getattr(answer, name) for name in _ANSWER_COLUMNS},
    }


def _tell_failures(calls: Sequence[Mapping[str, Any]], *, report: Progress) -> None:
    found: dict[str, list[int]] = {}
    for call in calls:
        if call["output"] is None:
            reason = call["reason"] if call["outcome"] == "error" else CODES[call["outcome"]]
            found.setdefault(f"reference: {reason}", []).append(call["example_id"])
    for reason, example_ids in found.items():
        report.row_errors(reason, list(dict.fromkeys(example_ids)))
