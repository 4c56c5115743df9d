"""The reflect job: teacher calls, student scores, the student's choice, one shard of rows after the other.

Every answer is kept in the job folder the moment it arrives, so a job that was killed pays for no answer twice. A row
whose teacher fails is a failed row with its reason; a teacher that can answer nobody (wrong key, no credit, down)
ends the job, which can be resumed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from core.errors import SettingsError
from core.example import Example
from core.lm import Student, StudentSettings
from core.reflection import (
    INDICATORS,
    INSTRUCTION,
    LEAVE_OUT,
    METHODS,
    RESPONSE,
    Choice,
    Scores,
    build_question,
    choose,
    final_of,
    pair_scores,
    passing_fault,
    score_values,
)
from core.reflection_calls import Calls, Reply
from core.reflection_records import Call, Failure, PairRecord, ReflectedRow, to_table
from core.reflection_replies import CODES
from core.scoring import Loaded, score_examples
from core.teacher import RECORDED, ReplayTeacher, Teacher, TeacherSettings
from core.teacher_openai import OpenAITeacher

if TYPE_CHECKING:
    from core.jobs.folder import JobFolder
    from core.jobs.runner import Progress
    from core.jobs.spec import JobSpec

SHARD_ROWS = 32  # a good size: enough questions to keep the teacher's slots full, little lost when killed


@dataclass(frozen=True)
class ReflectOptions:
    """What a reflect job was asked for: the params of its spec.

    ``method``                  "v1" (both stages, unselected) or "v2" (selective)
    ``teacher``                 None: the recorded answers of the bundled sample
    ``student``                 whose IFD and r-IFD choose
    ``filter``                  V2 only: leave out pairs whose IFD or r-IFD is not below 1
    ``only_replaced_response``  V2 only: leave out rows whose response was not replaced

    Raises:
        SettingsError: a value is not of its form, or a filter was asked of V1.
    """

    method: str
    teacher: TeacherSettings | None
    student: StudentSettings
    filter: bool = False
    only_replaced_response: bool = False

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise SettingsError(f"There is no reflection method {self.method!r}; choose one of {', '.join(METHODS)}.")
        if self.method == "v1" and (self.filter or self.only_replaced_response):
            raise SettingsError("V1 takes every reflected pair; its filters belong to V2. Choose V2 or no filter.")

    def to_params(self) -> dict[str, Any]:
        """The params of a job's spec; no secret is among them."""
        return {
            "method": self.method,
            "teacher": {"kind": RECORDED} if self.teacher is None else self.teacher.to_params(),
            "student": asdict(self.student),
            "filter": self.filter,
            "only_replaced_response": self.only_replaced_response,
        }

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> ReflectOptions:
        """Read the params of a job's spec.

        Raises:
            SettingsError: something is missing, unknown or of the wrong form.
        """
        try:
            teacher, student, method = params["teacher"], params["student"], params["method"]
            kind = teacher["kind"]
            settings = StudentSettings(**student)
        except (KeyError, TypeError) as error:
            raise SettingsError(f"The params of the reflect job are not whole: {error}.") from error
        if kind not in (RECORDED, "openai"):
            raise SettingsError(f"There is no teacher of kind {kind!r}; choose {RECORDED} or openai.")
        return cls(
            method=method,
            teacher=None if kind == RECORDED else TeacherSettings.from_params(teacher),
            student=settings,
            filter=bool(params.get("filter", False)),
            only_replaced_response=bool(params.get("only_replaced_response", False)),
        )


def open_teacher(settings: TeacherSettings | None) -> Teacher:
    """The teacher of these settings; None: the recorded answers of the bundled sample.

    Raises:
        TeacherError: the environment variable with the key is not set.
        InputError: the bundled sample is damaged.
    """
    if settings is not None:
        return OpenAITeacher(settings)
    from core.demo import recordings

    return ReplayTeacher(recordings())


def run(folder: JobFolder, spec: JobSpec, report: Progress) -> None:
    """Do a reflect job: input columns ``example_id, instruction, input, output``; shards as ``SHARD_SCHEMA`` says.

    Raises:
        SettingsError: the params are not of their form.
        TeacherError: the key is missing, or the teacher can answer no question at all.
        ModelError: the student cannot be loaded.
        JobError: the folder cannot be written.
    """
    options = ReflectOptions.from_params(spec.params)
    finished = folder.finished_shards()
    pending = [shard for shard in folder.shard_ranges() if shard[0] not in finished]
    if not pending:
        return
    for name in ("httpx", "httpx2"):
        logging.getLogger(name).setLevel(logging.WARNING)  # one line a request would bury the log
    teacher = open_teacher(options.teacher)  # before the model: a missing key shows at once
    report.note(f"Loading the student {options.student.model}")
    student = Student.load(replace(options.student, device=spec.device))  # the device that the job was queued for
    asyncio.run(_reflect(folder, pending=pending, options=options, teacher=teacher, student=student, report=report))


async def _reflect(
    folder: JobFolder,
    *,
    pending: Sequence[tuple[int, int, int]],
    options: ReflectOptions,
    teacher: Teacher,
    student: Student,
    report: Progress,
) -> None:
    table = folder.input_table()
    calls = Calls(folder, teacher)
    done = table.num_rows - sum(stop - start for _, start, stop in pending)
    try:
        for index, start, stop in pending:
            columns = table.slice(start, stop - start).to_pydict()
            texts = zip(columns["instruction"], columns["input"], columns["output"], strict=True)
            originals = [Example(*row) for row in texts]
            tell = _Tell(report, rows=range(start, stop), done_before=done)
            work = _Shard(originals, options=options, calls=calls, student=student, tell=tell)
            rows = await work.reflect(columns["example_id"])
            _report_failures(rows, report=report)
            folder.write_shard(index, to_table(rows))
            done += stop - start
            report.rows(done)
    finally:
        await teacher.close()


@dataclass
class _Tell:
    """Tells how far one shard is: both stages ask once a row, so an answer is half a row."""

    report: Progress
    rows: range
    done_before: int
    asked_before: int = 0

    def note(self, what: str) -> None:
        self.report.note(f"Rows {self.rows.start + 1} to {self.rows.stop}: {what}")

    def answers(self, arrived: int) -> None:
        self.report.rows(self.done_before + (self.asked_before + arrived) // 2)


def _report_failures(rows: Iterable[ReflectedRow], *, report: Progress) -> None:
    """Tell failures by reason: what a reply says is left out of the reason, so that equal faults count together."""
    found: dict[str, list[int]] = {}
    for row in rows:
        for failure in row.failures:
            text = failure.reason if failure.code == "error" else CODES[failure.code]
            found.setdefault(f"{failure.stage} reflection: {text}", []).append(row.example_id)
    for reason, example_ids in found.items():
        report.row_errors(reason, example_ids)


@dataclass
class _Row:
    """A row on its way: ``at`` is (x1, y1), where the next stage goes on from."""

    original: Example
    at: Example
    calls: list[Call]
    failures: list[Failure]
    pairs: list[PairRecord]
    whys: list[str]
    response_replaced: bool = False


class _Shard:
    """The rows of one shard on their way through both stages."""

    def __init__(
        self, originals: Sequence[Example], *, options: ReflectOptions, calls: Calls, student: Student, tell: _Tell
    ) -> None:
        self._rows = [_Row(original, original, [], [], [], []) for original in originals]
        self._options = options
        self._calls = calls
        self._student = student
        self._tell = tell
        self._scores: dict[Example, Scores] = {}

    async def reflect(self, example_ids: Sequence[int]) -> list[ReflectedRow]:
        """Both stages for all rows: ask, score, choose."""
        for stage in (INSTRUCTION, RESPONSE):
            # Without any answer in the first stage the row has failed; an unusable answer goes on with the original.
            rows = [row for row in self._rows if all(failure.code != "error" for failure in row.failures)]
            self._tell.note(f"asking the teacher, {stage} reflection of {len(rows)} rows")
            questions = [build_question(stage, example=row.at) for row in rows]
            replies = await self._calls.ask_all(questions, on_answer=self._tell.answers)
            self._tell.asked_before += len(self._rows)
            self._tell.note(f"the student scores the candidates, {stage} reflection")
            self._score(rows, replies)
            for row, reply in zip(rows, replies, strict=True):
                self._take(row, reply, stage=stage)
        return [self._finished(row, example_id) for row, example_id in zip(self._rows, example_ids, strict=True)]

    def _score(self, rows: Sequence[_Row], replies: Sequence[Reply]) -> None:
        """Score what the choices need: candidates, their bases and originals; with the filter also untouched rows."""
        wanted: dict[Example, None] = {}
        for row, reply in zip(rows, replies, strict=True):
            if reply.candidate is not None:
                wanted.update(dict.fromkeys((row.original, row.at, reply.candidate)))
        if self._options.filter:
            wanted.update(dict.fromkeys(row.at for row in self._rows))
        missing = [example for example in wanted if example not in self._scores]
        if missing:
            values = score_examples(missing, indicators=INDICATORS, loaded=Loaded(student=self._student))
            self._scores.update(zip(missing, values, strict=True))

    def _take(self, row: _Row, reply: Reply, *, stage: str) -> None:
        row.calls.append(reply.call)
        if reply.failure is not None:
            row.failures.append(reply.failure)
            row.whys.append(f"the {stage} stage gave no candidate ({CODES[reply.failure.code]})")
        if reply.candidate is None:
            return
        base = row.at
        choice = choose(
            stage,
            method=self._options.method,
            base=self._scores[base],
            candidate=self._scores[reply.candidate],
            base_name="the original" if base == row.original else "the new pair of the instruction stage",
            only_below_one=self._options.filter,
        )
        row.whys.append(choice.reason)
        if choice.takes_candidate:
            row.at = reply.candidate
            row.response_replaced = stage == RESPONSE
        fault = passing_fault(self._scores[base], self._scores[reply.candidate])
        if fault is not None:
            row.failures.append(Failure(stage, "not_scored", fault, transient=True))
        row.pairs.append(self._pair(row.original, base=base, reply=reply, choice=choice))

    def _pair(self, original: Example, *, base: Example, reply: Reply, choice: Choice) -> PairRecord:
        assert reply.candidate is not None
        proposal, reason = choice.proposal, choice.reason
        if self._options.only_replaced_response and reply.call.stage == RESPONSE and not choice.takes_candidate:
            proposal, reason = LEAVE_OUT, f"{reason}; left out: its response was not replaced"
        scores = self._scores
        return PairRecord(
            stage=reply.call.stage,
            method=self._options.method,
            base=base,
            candidate=reply.candidate,
            call_id=reply.call.call_id,
            proposal=proposal,
            proposal_reason=reason,
            original_scores=pair_scores(scores[original]),
            base_scores=pair_scores(scores[base]),
            candidate_scores=pair_scores(scores[reply.candidate]),
            score_values=score_values(
                original=scores[original],
                base=None if base == original else scores[base],
                candidate=scores[reply.candidate],
            ),
        )

    def _finished(self, row: _Row, example_id: int) -> ReflectedRow:
        failed = bool(row.failures) and not row.pairs
        final = final_of(
            row.at,
            original=row.original,
            scores=self._scores.get(row.at, {}),
            why="; then ".join(row.whys) or "the teacher gave the same texts back",
            response_replaced=row.response_replaced,
            only_below_one=self._options.filter,
            only_replaced_response=self._options.only_replaced_response,
        )
        return ReflectedRow(
            example_id=example_id,
            status="failed" if failed else "ok",
            reason="; ".join(f"{f.stage} reflection: {f.reason}" for f in row.failures) or None,
            transient=any(failure.transient for failure in row.failures),
            failures=tuple(row.failures),
            calls=tuple(row.calls),
            pairs=tuple(row.pairs),
            final=final,
        )
