"""Scores of examples: who scored (``ScorerIdentity``), the scoring itself, and the job that does it shard by shard."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import JobError, SettingsError
from core.example import Example
from core.indicators import Evidence, Indicator, Output, Value, chosen, losses_needed, outputs_of
from core.lm import LM_VERSION, Student, StudentSettings
from core.models import resolve_revision

if TYPE_CHECKING:
    import pyarrow as pa

    from core.jobs.folder import JobFolder
    from core.jobs.runner import Progress
    from core.jobs.spec import JobSpec

__all__ = [
    "DEMO_STUDENT",
    "ScorerIdentity",
    "resolve_revision",
    "run",
    "score_examples",
    "scorer_identities",
]

DEMO_STUDENT = Path(__file__).parent / "demo" / "student"
"""Folder of the bundled demo student."""


@dataclass(frozen=True)
class ScorerIdentity:
    """What a score follows from besides the example: equal identities give equal scores.

    ``model``, ``revision`` and ``template`` are None where the number does not depend on them, so that MTLD is shared
    by all students, and the length in tokens by all templates.
    """

    output: str
    indicator: str
    version: str
    model: str | None = None
    revision: str | None = None
    template: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Canonical JSON of all fields but the path of a local model: its digest says what it is, wherever it lies."""
        fields = dataclasses.asdict(self)
        if self.revision is not None and self.revision.startswith("local-"):
            fields["model"] = None
        return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _identity(
    indicator: Indicator, output: Output, student: StudentSettings | None, revision: str | None
) -> ScorerIdentity:
    if output.depends == "text":
        return ScorerIdentity(output.key, indicator.key, indicator.version)
    if student is None or revision is None:
        raise SettingsError(f"{output.label} needs a student; choose a model.")
    if output.depends == "tokenizer":
        return ScorerIdentity(output.key, indicator.key, indicator.version, student.model, revision)
    return ScorerIdentity(
        output.key,
        indicator.key,
        f"{indicator.version}; losses {LM_VERSION}",
        student.model,
        revision,
        student.template,
        {"dtype": student.dtype, "max_length": student.max_length},
    )


def scorer_identities(
    indicators: Sequence[str], student: StudentSettings | None, revision: str | None
) -> list[ScorerIdentity]:
    """Return the scorer of every output that scoring with ``indicators`` gives, in the order of the outputs.

    Batch budget and device are left out: they do not change a loss by more than rounding.

    Raises:
        SettingsError: an indicator is unknown, or needs a student and there is none.
    """
    return [_identity(one, output, student, revision) for one, output in outputs_of(indicators)]


def _student_for(indicators: Sequence[str], student: Student | None) -> Student | None:
    """The student, if one of the indicators needs it."""
    needy = [one.title for one in chosen(indicators) if one.needs_losses or one.needs_tokenizer]
    if needy and student is None:
        raise SettingsError(f"{needy[0]} needs a student; choose a model.")
    return student if needy else None


def score_examples(
    examples: Sequence[Example],
    *,
    indicators: Sequence[str],
    student: Student | None,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Value]]:
    """Score the examples; return one dict of output key -> value for each, in order.

    ``on_progress`` gets tokens done and tokens in all, after every batch of the student.

    Raises:
        SettingsError: an indicator is unknown, or needs a student and there is none.
        ModelError: the student fails.
    """
    asked = chosen(indicators)
    needed = losses_needed(indicators)
    reader = _student_for(indicators, student)
    evidence = [Evidence(example) for example in examples]
    if reader is not None:
        try:
            if needed:
                losses = reader.score(examples, needed, on_progress)
                evidence = [dataclasses.replace(one, losses=own) for one, own in zip(evidence, losses, strict=True)]
            if any(one.needs_tokenizer for one in asked):
                evidence = _with_token_counts(evidence, reader)
        finally:
            reader.encoder.forget()
    owners = list(dict.fromkeys(one for one, _ in outputs_of(indicators)))
    return [{key: value for one in owners for key, value in one.compute(seen).items()} for seen in evidence]


def _with_token_counts(evidence: list[Evidence], student: Student) -> list[Evidence]:
    outputs = student.count_tokens([one.example.output for one in evidence])
    inputs = student.count_tokens([one.example.instruction + one.example.input for one in evidence])
    return [
        dataclasses.replace(one, n_tokens_output=n_output, n_tokens_input=n_input)
        for one, n_output, n_input in zip(evidence, outputs, inputs, strict=True)
    ]


def _params_of(spec: JobSpec) -> tuple[list[str], StudentSettings | None]:
    """Indicators and student of a score job; the device is the one that the job was queued for."""
    indicators = spec.params.get("indicators")
    student = spec.params.get("student")
    if not isinstance(indicators, Sequence) or isinstance(indicators, str):
        raise JobError(f"Job {spec.job_id} names no indicators; submit it again.")
    if student is None:
        return list(indicators), None
    known = {one.name for one in dataclasses.fields(StudentSettings)}
    if not isinstance(student, Mapping) or "model" not in student or set(student) - known:
        raise JobError(f"Job {spec.job_id} describes its student in a way that this version does not know.")
    return list(indicators), StudentSettings(**{**student, "device": spec.device})


def _load(indicators: Sequence[str], settings: StudentSettings | None, report: Progress) -> Student | None:
    """Load as much of the student as the indicators need: nothing, its tokenizer, or all of it."""
    weights = bool(losses_needed(indicators))
    if settings is None or not (weights or any(one.needs_tokenizer for one in chosen(indicators))):
        return None
    report.note(f"Loading {'the student' if weights else 'the tokenizer of'} {settings.model}")
    return Student.load(settings, weights=weights)


def _shard_table(example_ids: Sequence[int], scores: Sequence[Mapping[str, Value]]) -> pa.Table:
    import pyarrow as pa

    cells = [(i, key, v) for i, of_row in zip(example_ids, scores, strict=True) for key, v in of_row.items()]
    return pa.table(
        {
            "example_id": pa.array([i for i, _, _ in cells], pa.int64()),
            "output": pa.array([key for _, key, _ in cells], pa.string()),
            "value": pa.array([v.value for _, _, v in cells], pa.float64()),
            "reason": pa.array([v.reason for _, _, v in cells], pa.string()),
            "transient": pa.array([v.transient for _, _, v in cells], pa.bool_()),
        }
    )


def _errors_by_reason(example_ids: Sequence[int], scores: Sequence[Mapping[str, Value]]) -> dict[str, list[int]]:
    found: dict[str, dict[int, None]] = {}
    for example_id, of_row in zip(example_ids, scores, strict=True):
        for value in of_row.values():
            if value.reason is not None:
                found.setdefault(value.reason, {})[example_id] = None
    return {reason: list(ids) for reason, ids in found.items()}


def run(folder: JobFolder, spec: JobSpec, report: Progress) -> None:
    """Do a score job: every shard that is not finished yet, in order (see ``core.jobs.runner``).

    A shard is in long form: one row for each example and output, with columns example_id, output, value, reason and
    transient. A job that was interrupted goes on with the first shard that is missing.

    Raises:
        JobError: the parameters are damaged, or a shard cannot be written.
        SettingsError: an indicator is unknown.
        ModelError: the student cannot be loaded, is not the one that was asked for, or fails.
    """
    indicators, settings = _params_of(spec)
    chosen(indicators)
    finished = folder.finished_shards()
    ranges = folder.shard_ranges()
    missing = [one for one in ranges if one[0] not in finished]
    if not missing:
        return
    student = _load(indicators, settings, report)
    table = folder.input_table()
    done = sum(stop - start for index, start, stop in ranges if index in finished)
    report.note(f"Scoring {', '.join(one.title for one in chosen(indicators))}")
    for index, start, stop in missing:
        rows = table.slice(start, stop - start)
        ids = rows["example_id"].to_pylist()
        columns = (rows[name].to_pylist() for name in ("instruction", "input", "output"))
        examples = [Example(*texts) for texts in zip(*columns, strict=True)]

        def tell(tokens: int, total: int, done: int = done, n_rows: int = stop - start) -> None:
            report.rows(done + n_rows * tokens // max(total, 1))

        scores = score_examples(examples, indicators=indicators, student=student, on_progress=tell)
        for reason, failed in _errors_by_reason(ids, scores).items():
            report.row_errors(reason, failed)
        folder.write_shard(index, _shard_table(ids, scores))
        done += stop - start
        report.rows(done)
