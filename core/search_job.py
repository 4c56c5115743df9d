"""The search job: one trial after the other, each a finetune on the best rows of a ranking, sized by the searcher."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.errors import JobError, SettingsError
from core.example import Example
from core.finetune.results import CurvePoint, RunResult, from_table, to_table
from core.finetune.settings import FinetuneSettings
from core.search import SizeSearch, Trial, searcher_version

if TYPE_CHECKING:
    from core.finetune.base import Base
    from core.jobs.folder import JobFolder
    from core.jobs.runner import Progress
    from core.jobs.spec import JobSpec

Load = Callable[..., "Base"]

_NOTE_SECONDS = 1.0
NO_FURTHER_SIZE = "Not run: the search has no further size to try between its bounds."


@dataclass(frozen=True, kw_only=True)
class SearchParams:
    """What a search was asked: sizes from ``lowest`` to ``highest`` rows, within ``hours`` of running time, if any."""

    settings: FinetuneSettings
    lowest: int
    highest: int
    hours: float | None
    seed: int


def read_params(spec: JobSpec) -> SearchParams:
    """The parameters of a search job, for the device that it was queued for: the scheduler shows it one GPU only.

    Raises:
        JobError: they are not those of a search.
    """
    params = spec.params
    try:
        settings = FinetuneSettings.from_params(params["settings"])
        hours = params.get("hours")
        return SearchParams(
            settings=dataclasses.replace(settings, device=spec.device),
            lowest=int(params["lowest"]),
            highest=int(params["highest"]),
            hours=None if hours is None else float(hours),
            seed=int(params["seed"]),
        )
    except (KeyError, TypeError, ValueError, SettingsError) as error:
        raise JobError(f"Job {spec.job_id} cannot be read as a size search: {error}. Submit it again.") from error


def run(folder: JobFolder, spec: JobSpec, report: Progress, *, load: Load | None = None) -> None:
    """Do the trials of a search that are not done yet, in order; finished ones are told to the searcher again.

    The folder has the tables ``members`` (run_id 0: the ranking, best row first), ``texts`` and ``evaluation``. Trial i
    is shard i. A size that was tried is not trained again. Once the running time of the trials (not that of loading)
    has reached the budget, the rest is ``skipped``; so it is when the searcher has no further size.

    Raises:
        JobError: a file is damaged, or the searcher does not suggest what it did before (see ``core.search``).
        ModelError: the base model cannot be loaded.
    """
    params = read_params(spec)
    trials = folder.input_table().to_pylist()
    finished = folder.finished_shards()
    search = SizeSearch(lowest=params.lowest, highest=params.highest, seed=params.seed)
    work = _Work(folder, params, report=report, n_trials=len(trials), load=load)
    before: dict[int, tuple[int, RunResult]] = {}
    seconds, end = 0.0, None
    for index, trial in enumerate(trials):
        if index in finished:
            _, result = from_table(folder.read_shard(index))
            if result.outcome == "skipped":
                continue
            search.replay([Trial(_n_rows(result, index), _told(result))])
        else:
            end = end or _spent(params.hours, seconds)
            size = None if end else search.ask()
            if size is None:
                end = end or NO_FURTHER_SIZE
                result = RunResult(outcome="skipped", reason=end, details={"n_rows": None})
            else:
                same = before.get(size)
                result = _copied(*same) if same else work.train(trial, index, size)
                result = dataclasses.replace(
                    result, details={**result.details, "n_rows": size, "searcher": f"FLAML {searcher_version()}"}
                )
                search.tell(_told(result))
            if result.outcome in ("failed", "diverged"):
                report.row_errors(result.reason or result.outcome, [trial["example_id"]])
            folder.write_shard(index, to_table(trial["example_id"], result))
            report.rows(index + 1)
        if result.outcome != "skipped":
            before.setdefault(_n_rows(result, index), (index + 1, result))
            seconds += result.seconds or 0.0


def _told(result: RunResult) -> float | None:
    return result.loss_nats if result.outcome == "done" else None


def _n_rows(result: RunResult, index: int) -> int:
    found = result.details.get("n_rows")
    if not isinstance(found, int):
        raise JobError(f"Shard {index} of the search does not say its number of rows; delete it and resume the job.")
    return found


def _copied(number: int, result: RunResult) -> RunResult:
    """The result of an earlier trial of the same size: it took no time, and has no timings of its own."""
    return dataclasses.replace(result, seconds=0.0, curve=(), details={"same_as": number})


def _spent(hours: float | None, seconds: float) -> str | None:
    """Why no further trial is run, or None: the budget counts what the trials took, over all resumes."""
    if hours is None or seconds < hours * 3600:
        return None
    return f"Not run: the budget of {hours:g} h was spent ({seconds / 3600:.2f} h of trials)."


class _Work:
    """The base model and the texts, loaded when the first trial has to be trained."""

    def __init__(
        self, folder: JobFolder, params: SearchParams, *, report: Progress, n_trials: int, load: Load | None
    ) -> None:
        self._folder = folder
        self._params = params
        self._report = report
        self._n_trials = n_trials
        self._load = load
        self._base: Base | None = None
        self._ranked: list[Example] = []
        self._evaluation: list[tuple[int, Example]] = []

    def train(self, trial: Mapping[str, Any], index: int, size: int) -> RunResult:
        """Finetune on the best ``size`` rows and evaluate."""
        base = self._ready()
        said = f"Trial {index + 1} of {self._n_trials}: {size:,} rows"
        self._report.note(said)
        return base.run(
            self._ranked[:size],
            evaluation=self._evaluation,
            seed=int(trial["seed"]),
            work=self._folder.run_path(int(trial["number"])),
            report=self._steps(said),
            note=lambda text: self._report.note(f"{said}: {text}"),
        )

    def _steps(self, said: str) -> Callable[[CurvePoint, int], None]:
        told_at = time.monotonic()

        def tell(point: CurvePoint, n_steps: int) -> None:
            nonlocal told_at
            if (now := time.monotonic()) - told_at < _NOTE_SECONDS:
                return
            told_at = now
            loss = "" if point.loss_nats is None else f", training loss {point.loss_nats:.3f}"
            self._report.note(f"{said}, step {point.step} of {n_steps}{loss}")

        return tell

    def _ready(self) -> Base:
        if self._base is None:
            self._ranked = ranked_examples(self._folder)
            if len(self._ranked) < self._params.highest:
                raise JobError(
                    f"The ranking of this search has {len(self._ranked):,} rows, fewer than its highest size of "
                    f"{self._params.highest:,}. Submit it again."
                )
            self._evaluation = _examples(self._folder, "evaluation")
            if self._load is None:
                from core.finetune.base import Base

                self._load = Base.load
            self._base = self._load(self._params.settings, note=self._report.note)
        return self._base


def ranked_examples(folder: JobFolder) -> list[Example]:
    """The rows of the ranking, best first.

    Raises:
        JobError: a table is missing or damaged, or a row of the ranking has no text.
    """
    members = folder.table("members").sort_by("position")
    texts = dict(_examples(folder, "texts"))
    ids = [
        i for run_id, i in zip(*(members[c].to_pylist() for c in ("run_id", "example_id")), strict=True) if not run_id
    ]
    missing = next((i for i in ids if i not in texts), None)
    if missing is not None:
        raise JobError(f"Row {missing} of the ranking has no text in job {folder.job_id}; submit the search again.")
    return [texts[i] for i in ids]


def _examples(folder: JobFolder, table: str) -> list[tuple[int, Example]]:
    columns: Sequence[str] = ("example_id", "instruction", "input", "output")
    rows = zip(*(folder.table(table)[name].to_pylist() for name in columns), strict=True)
    return [(int(i), Example(instruction, context, output)) for i, instruction, context, output in rows]
