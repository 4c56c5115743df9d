"""The judge job: a model scores two answers to an item, once in each order.

A row of the input is one item in one order. Every reply is kept in the job folder the moment it arrives, so a job that
was killed pays for none twice. A reply that cannot be read is asked for again, up to the options' ``attempts``; all
attempts are kept. An item that lacks an answer is not asked about. Equal answers are, once: both orders are the same
question, so the item is a tie whatever the judge prefers. A judge that can answer nobody (wrong key, no credit, down),
or a budget that is spent, ends the job once the calls under way are back; it can be resumed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from core.errors import JobError, TeacherError, first_of
from core.judge_options import JudgeOptions, answer_key, judge_identity
from core.judging import (
    CODES,
    PROMPT_VERSION,
    STAGE,
    Unreadable,
    build_question,
    preference,
    read_verdict,
)
from core.kept_answers import Kept, KeptAnswers
from core.teacher import LocalTeacherSettings, Teacher, TeacherSettings
from core.teacher_limits import pace_told
from core.teachers import open_teacher

if TYPE_CHECKING:
    from core.jobs.folder import JobFolder
    from core.jobs.runner import Progress
    from core.jobs.spec import JobSpec

_T = TypeVar("_T")

QUIET_SECONDS = 0.05
_TELL_AGAIN_SECONDS = 1.0

SHARD_ROWS = 8
"""Few, so that the counts on the page follow the job. Shards are written as they are done; no worker waits for one."""

INPUT_COLUMNS = ("example_id", "instruction", "input", "answer_first", "answer_second", "swapped", "attempt")

SHARD_SCHEMA = pa.schema(
    [
        ("example_id", pa.int64()),
        ("swapped", pa.bool_()),
        ("attempt", pa.int64()),
        ("score_first", pa.float64()),
        ("score_second", pa.float64()),
        ("preference", pa.int8()),
        ("outcome", pa.string()),
        ("reason", pa.string()),
        ("transient", pa.bool_()),
        ("raw", pa.string()),
        ("finish_reason", pa.string()),
        ("call_id", pa.string()),
        ("teacher", pa.string()),
        ("model", pa.string()),
        ("prompt_version", pa.string()),
        ("prompt_tokens", pa.int64()),
        ("completion_tokens", pa.int64()),
        ("cost_usd", pa.float64()),
        ("seconds", pa.float64()),
        ("requested_at", pa.string()),
    ]
)
"""One row an attempt. ``outcome`` "parsed" with scores and preference (the answer sets', whatever was shown first), or
a code of ``core.judging.CODES`` with its reason."""


def run(folder: JobFolder, spec: JobSpec, report: Progress) -> None:
    """Do a judge job: input columns ``INPUT_COLUMNS`` (``attempt``: the number of the first one); shards as above.

    Raises:
        SettingsError: the params are not of their form.
        TeacherError: the judge can answer no question at all, or the budget is spent.
        ModelError: a local model cannot be loaded.
        JobError: the folder cannot be read or written.
    """
    options = JudgeOptions.from_params(spec.params)
    finished = folder.finished_shards()
    pending = [shard for shard in folder.shard_ranges() if shard[0] not in finished]
    if not pending:
        return
    table = folder.input_table()
    if missing := set(INPUT_COLUMNS) - set(table.column_names):
        raise JobError(f"The input of this job has no column {', '.join(sorted(missing))}. Submit it again.")
    for name in ("httpx", "httpx2"):
        logging.getLogger(name).setLevel(logging.WARNING)  # one line a request would bury the log
    asyncio.run(_judge(folder, spec, table, options=options, pending=pending, report=report))


async def _judge(
    folder: JobFolder,
    spec: JobSpec,
    table: pa.Table,
    *,
    options: JudgeOptions,
    pending: Sequence[tuple[int, int, int]],
    report: Progress,
) -> None:
    teacher = open_teacher(options.teacher, folder=folder, device=spec.device)
    try:
        budget = options.teacher.budget_usd if isinstance(options.teacher, TeacherSettings) else None
        answers = KeptAnswers(folder, teacher, budget_usd=budget)
        shards = [_Shard(index, table.slice(start, stop - start).to_pylist()) for index, start, stop in pending]
        n_before = table.num_rows - sum(len(shard.rows) for shard in shards)
        work = _Work(folder, options, answers, report, n_done=n_before)
        report.note(f"Asking for {table.num_rows - n_before:,} verdicts")
        rows = [(shard, row) for shard in shards for row in shard.rows]
        n_workers = len(rows) if teacher.slots is None else min(teacher.slots, len(rows))
        async with pace_told(teacher, report.note):
            await _work_off(work, rows, n_workers=max(1, n_workers))
        if work.stopped is not None:
            raise work.stopped
    finally:
        await teacher.close()


@dataclass
class _Shard:
    """One shard on its way: its rows, and the attempts at each so far."""

    index: int
    rows: list[dict[str, Any]]
    attempts: dict[tuple[int, bool], list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        return len(self.attempts) == len(self.rows)


@dataclass
class _Work:
    """What the workers share. ``stopped`` is why no further question is asked."""

    folder: JobFolder
    options: JudgeOptions
    answers: KeptAnswers
    report: Progress
    n_done: int
    stopped: TeacherError | None = None

    async def attempt(self, row: Mapping[str, Any], attempt: int) -> dict[str, Any] | None:
        """Ask once; None where no question is asked any more."""
        shown = (row["answer_first"], row["answer_second"])
        shown_first, shown_second = shown[::-1] if row["swapped"] else shown
        key = answer_key(
            judge_identity(self.options.teacher),
            instruction=row["instruction"],
            input=row["input"],
            shown_first=shown_first,
            shown_second=shown_second,
            attempt=attempt,
        )
        question = build_question(row["instruction"], row["input"], shown_first, shown_second)
        try:
            kept = await self.answers.ask(key, question)
        except TeacherError as error:
            self.stopped = self.stopped or error
            return None
        return _record(row, attempt, kept, teacher=self.answers.teacher.label)

    def finish(self, shard: _Shard, row: Mapping[str, Any], attempts: list[dict[str, Any]]) -> None:
        """Take in all attempts at one row; write its shard when it was the last one."""
        shard.attempts[row["example_id"], row["swapped"]] = attempts
        self.n_done += 1
        if shard.whole:
            records = [record for one in shard.rows for record in shard.attempts[one["example_id"], one["swapped"]]]
            _tell_failures(shard, report=self.report)
            self.folder.write_shard(shard.index, pa.Table.from_pylist(records, schema=SHARD_SCHEMA))
        self.report.rows(self.n_done)


@dataclass
class _Waiting:
    """``active`` workers there are, ``asking`` of them wait for an answer; ``n_asked`` counts questions so far."""

    active: int
    asking: int = 0
    n_asked: int = 0

    async def asked(self, answer: Awaitable[_T]) -> _T:
        self.asking += 1
        self.n_asked += 1
        try:
            return await answer
        finally:
            self.asking -= 1


async def _flush_when_quiet(teacher: Teacher, waiting: _Waiting) -> None:
    """Tell a teacher that collects questions whenever everybody who could ask has asked.

    It is told again every second as long as nothing comes: one that has batches of an earlier start to look for takes
    questions only after that, however long it lasts.
    """
    loop = asyncio.get_running_loop()
    told_for, told_at = -1, 0.0
    while waiting.active:
        seen = waiting.n_asked
        await asyncio.sleep(QUIET_SECONDS)
        quiet = waiting.asking == waiting.active > 0 and waiting.n_asked == seen
        if quiet and (told_for != seen or loop.time() - told_at > _TELL_AGAIN_SECONDS):
            told_for, told_at = seen, loop.time()
            await teacher.flush()


async def _work_off(work: _Work, rows: Sequence[tuple[_Shard, dict[str, Any]]], *, n_workers: int) -> None:
    """Judge these rows, ``n_workers`` at once; a row whose reply cannot be read is asked again at once.

    A judge that stops lets the calls under way come back, which may have been paid; any other error ends all of them.
    """
    left = iter(rows)

    waiting = _Waiting(n_workers)

    async def worker() -> None:
        for shard, row in left:
            attempts: list[dict[str, Any]] = []
            while work.stopped is None and (number := _next_attempt(row, attempts, work.options)) is not None:
                if (record := await waiting.asked(work.attempt(row, number))) is not None:
                    attempts.append(record)
            if work.stopped is not None and _next_attempt(row, attempts, work.options) is not None:
                break  # the row is not done: it is judged when the job goes on
            work.finish(shard, row, attempts or [_without_answer(row)])
        waiting.active -= 1

    teacher = work.answers.teacher
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(n_workers):
                group.create_task(worker())
            if teacher.kind != "openai":  # answers at once, whoever else may ask
                group.create_task(_flush_when_quiet(teacher, waiting))
    except ExceptionGroup as errors:
        raise first_of(errors) from None


def _next_attempt(row: Mapping[str, Any], attempts: Sequence[Mapping[str, Any]], options: JudgeOptions) -> int | None:
    """The number of the next attempt at a row; None where it needs none.

    An answer that did not come is not asked for again here: the teacher has tried as often as its settings say. A local
    model is asked once, since it answers the same question the same way (its sampling is seeded).
    """
    if row["answer_first"] is None or row["answer_second"] is None:
        return None
    most = 1 if isinstance(options.teacher, LocalTeacherSettings) else options.attempts
    if attempts and (attempts[-1]["outcome"] in ("parsed", "error") or len(attempts) >= most):
        return None
    return int(row["attempt"]) + len(attempts)


def _record(row: Mapping[str, Any], attempt: int, kept: Kept, *, teacher: str) -> dict[str, Any]:
    """The row of a shard that a reply gives."""
    answer = kept.answer
    found = _verdict_of(row, kept)
    return {
        "example_id": row["example_id"],
        "swapped": row["swapped"],
        "attempt": attempt,
        **found,
        "transient": answer.error is not None and answer.transient,
        "raw": answer.raw,
        "finish_reason": answer.finish_reason,
        "call_id": kept.call_id,
        "teacher": teacher,
        "model": answer.model,
        "prompt_version": PROMPT_VERSION,
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "cost_usd": answer.cost_usd,
        "seconds": answer.seconds,
        "requested_at": kept.requested_at,
    }


def _verdict_of(row: Mapping[str, Any], kept: Kept) -> dict[str, Any]:
    if kept.answer.error is not None:
        return {"outcome": "error", "reason": kept.answer.error}
    verdict = read_verdict(kept.answer.raw, kept.answer.finish_reason)
    if isinstance(verdict, Unreadable):
        return {"outcome": verdict.code, "reason": verdict.reason}
    first, second = (verdict.second, verdict.first) if row["swapped"] else (verdict.first, verdict.second)
    return {
        "outcome": "parsed",
        "score_first": first,
        "score_second": second,
        "preference": preference(first, second),
    }


def _without_answer(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a shard where there is nothing to ask about: nobody was asked."""
    lacking = [name for name in ("first", "second") if row[f"answer_{name}"] is None]
    which = "Neither answer set has" if len(lacking) == 2 else f"The {lacking[0]} answer set does not have"
    return {
        "example_id": row["example_id"],
        "swapped": row["swapped"],
        "attempt": row["attempt"],
        "outcome": "no_answer",
        "reason": f"No answer: {which[0].lower()}{which[1:]} one to this item.",
        "transient": False,
        "prompt_version": PROMPT_VERSION,
    }


def _tell_failures(shard: _Shard, *, report: Progress) -> None:
    found: dict[str, list[int]] = {}
    for records in shard.attempts.values():
        last = records[-1]
        if last["outcome"] != "parsed":
            reason = last["reason"] if last["outcome"] == "error" else CODES[last["outcome"]]
            found.setdefault(f"{STAGE}: {reason}", []).append(last["example_id"])
    for reason, example_ids in found.items():
        report.row_errors(reason, list(dict.fromkeys(example_ids)))
