"""The study job: one finetune after another on a base model that is loaded once, a shard for each.

A shard is on the disk the moment its run has ended, so a job that was killed or cancelled keeps it; the run that was
cut short goes on from its checkpoint, and ends as it would have.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa

from core.errors import JobError, SettingsError
from core.example import Example
from core.finetune.curve import CURVE_FILE, read_curve
from core.finetune.results import CurvePoint, RunResult, to_table
from core.finetune.settings import FinetuneSettings

if TYPE_CHECKING:
    from core.jobs.folder import JobFolder
    from core.jobs.runner import Progress
    from core.jobs.spec import JobSpec

_NOTE_SECONDS = 1.0


class RunsFinetunes(Protocol):
    """What a job needs of :class:`core.finetune.base.Base`."""

    def run(
        self,
        examples: Sequence[Example],
        *,
        evaluation: Sequence[tuple[int, Example]],
        seed: int,
        work: Path,
        report: Callable[[CurvePoint, int], None],
        note: Callable[[str], None],
    ) -> RunResult: ...


Load = Callable[[FinetuneSettings, Callable[[str], None]], RunsFinetunes]


def load_base(settings: FinetuneSettings, note: Callable[[str], None]) -> RunsFinetunes:
    """Load the base model of a job.

    Raises:
        ModelError: it cannot be found, loaded, or used with these settings.
    """
    from core.finetune.base import Base

    return Base.load(settings, note=note)


def read_settings(spec: JobSpec) -> FinetuneSettings:
    """The finetune settings of a job, for the device that it was queued for: the scheduler shows it one GPU only.

    Raises:
        JobError: the parameters hold none that this version can read.
    """
    try:
        settings = FinetuneSettings.from_params(spec.params["settings"])
    except (KeyError, TypeError, SettingsError) as error:
        raise JobError(f"Job {spec.job_id} cannot be read by this version: {error}") from error
    return dataclasses.replace(settings, device=spec.device)


def run(folder: JobFolder, spec: JobSpec, report: Progress, *, load: Load = load_base) -> None:
    """Do the runs of a study job that are not finished, in order: see ``core.jobs.runner``.

    A run that fails or diverges is told as an error of it, and its shard is written all the same: the next one follows.

    Raises:
        JobError: a file is damaged, or something cannot be written.
        ModelError: the base model cannot be loaded, or fails as it would in every run.
    """
    settings = read_settings(spec)
    planned = folder.input_table().to_pylist()
    finished = folder.finished_shards()
    missing = [place for place in range(len(planned)) if place not in finished]
    if not missing:
        return
    rows = TrainingRows.read(folder)
    evaluation = read_evaluation(folder)
    report.note(f"Loading the base model {settings.base}")
    base = load(settings, report.note)
    done = len(finished)
    report.rows(done)
    for place in missing:
        row = planned[place]
        name = f"Run {place + 1} of {len(planned)} ({row['label']})"
        result = one_run(
            base,
            rows.of_run(row["example_id"]),
            evaluation,
            seed=row["seed"],
            work=folder.run_path(row["number"]),
            name=name,
            note=report.note,
        )
        if result.outcome in ("failed", "diverged"):
            report.row_errors(result.reason or result.outcome, [row["example_id"]])
        folder.write_shard(place, to_table(row["example_id"], result))
        done += 1
        report.rows(done)


def one_run(
    base: RunsFinetunes,
    examples: Sequence[Example],
    evaluation: Sequence[tuple[int, Example]],
    *,
    seed: int,
    work: Path,
    name: str,
    note: Callable[[str], None],
) -> RunResult:
    """Do one run, telling how far it is at most once a second: which step, the training loss, the seconds left."""
    note(f"{name}: {f'training on {len(examples):,} rows' if examples else 'evaluating'}")
    steps = _Steps(name, note)
    return base.run(
        examples,
        evaluation=evaluation,
        seed=seed,
        work=work,
        report=steps.tell,
        note=lambda words: note(f"{name}: {words}"),
    )


class _Steps:
    """Notes of a run's steps. The time left is of the training alone, from the speed of this attempt."""

    def __init__(self, name: str, note: Callable[[str], None]) -> None:
        self._name = name
        self._note = note
        self._told_at = -_NOTE_SECONDS
        self._first: tuple[float, int] | None = None

    def tell(self, point: CurvePoint, n_steps: int) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = now, point.step
        if point.step >= n_steps:
            self._note(f"{self._name}: trained {n_steps:,} steps, evaluating")
            return
        if now - self._told_at < _NOTE_SECONDS:
            return
        self._told_at = now
        loss = "" if point.loss_nats is None else f", training loss {point.loss_nats:.2f}"
        began, first = self._first
        steps = point.step - first
        left = f", about {_duration((now - began) / steps * (n_steps - point.step))} left" if steps else ""
        self._note(f"{self._name}: step {point.step:,} of {n_steps:,}{loss}{left}")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


# --- what the folder holds ---


@dataclass(frozen=True)
class TrainingRows:
    """The rows of all runs, each text once: Arrow tables, of which a run's examples are made when it begins."""

    runs: np.ndarray
    examples: np.ndarray
    texts: pa.Table
    ids: np.ndarray

    @classmethod
    def read(cls, folder: JobFolder) -> TrainingRows:
        """Read ``members`` and ``texts`` of a job.

        Raises:
            JobError: a file is missing or damaged, or a row has no text.
        """
        members = folder.table("members", columns=["run_id", "position", "example_id"])
        members = members.sort_by([("run_id", "ascending"), ("position", "ascending")])
        texts = folder.table("texts").sort_by("example_id")
        ids = texts["example_id"].to_numpy()
        examples = members["example_id"].to_numpy()
        if not np.isin(examples, ids).all():
            raise JobError(f"Job {folder.job_id} is damaged: some rows have no text. Submit it again.")
        return cls(members["run_id"].to_numpy(), examples, texts.select(["instruction", "input", "output"]), ids)

    def of_run(self, run_id: int) -> list[Example]:
        """The examples that a run trains on, in order; none for the untrained base."""
        first, last = np.searchsorted(self.runs, [run_id, run_id + 1])
        return self._of(self.examples[first:last])

    def of_ids(self, example_ids: Sequence[int]) -> list[Example]:
        """The examples with these ids, which the texts hold."""
        return self._of(np.asarray(example_ids, np.int64))

    def _of(self, ids: np.ndarray) -> list[Example]:
        if not len(ids):
            return []
        found = self.texts.take(np.searchsorted(self.ids, ids))
        return [Example(**row) for row in found.to_pylist()]


def read_evaluation(folder: JobFolder) -> list[tuple[int, Example]]:
    """The outputs to evaluate on, with their ids.

    Raises:
        JobError: the file is missing or damaged, or there is none.
    """
    rows: list[Mapping[str, Any]] = folder.table("evaluation").to_pylist()
    if not rows:
        raise JobError(f"Job {folder.job_id} has nothing to evaluate on; submit the study again.")
    return [(row["example_id"], Example(row["instruction"], row["input"], row["output"])) for row in rows]


def live_curves(folder: JobFolder) -> dict[int, list[CurvePoint]]:
    """The loss curves of all runs that have begun, by number, also while they grow; a torn last line is left out."""
    found: dict[int, list[CurvePoint]] = {}
    for path in sorted(folder.run_path(0).parent.glob(f"*/{CURVE_FILE}")):
        if path.parent.name.isdecimal():
            found[int(path.parent.name)] = read_curve(path)
    return found
