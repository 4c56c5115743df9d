"""The score job: embeddings and neighbours where distances are asked for, then the scores, shard by shard.

Memory holds the shard that the models are at, the one after it (already tokenised) and the one before it (being
written). Whatever is whole is on the disk under its name, so a job that was killed goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from core.errors import JobError, SettingsError
from core.indicators import Value, chosen
from core.neighbour_stage import Distances, embed_rows, examples_of, find_distances
from core.pipeline import run_pipeline
from core.scoring import (
    Loaded,
    Models,
    PreparedRows,
    check_models,
    neighbours_needed,
    prepare_examples,
    score_prepared,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from core.jobs.folder import JobFolder
    from core.jobs.runner import Progress
    from core.jobs.spec import JobSpec

SHARD_ROWS = {"cpu": 256, "cuda": 1024}
"""Rows of a shard, by device: what is sorted together, what is kept once it is done, and what a kill may cost."""

_NOTE_SECONDS = 1.0
_MOST_TITLES = 3


def read_params(spec: JobSpec) -> tuple[list[str], Models]:
    """Indicators and models of a score job: at the revisions and for the device that it was queued for.

    Jobs of version 0.1.0, which knew a student only, are read too.

    Raises:
        JobError: the parameters are not those of a score job.
    """
    params = spec.params
    indicators = params.get("indicators")
    if not isinstance(indicators, Sequence) or isinstance(indicators, str):
        raise JobError(f"Job {spec.job_id} names no indicators; submit it again.")
    models, revisions = params.get("models"), params.get("revisions")
    if models is None:
        models, revisions = {"student": params.get("student")}, {"student": params.get("revision")}
    try:
        found = Models.from_params(models, device=spec.device)
    except SettingsError as error:
        raise JobError(f"Job {spec.job_id} cannot be read by this version: {error}") from error
    return list(indicators), found.pinned({role: one for role, one in (revisions or {}).items() if one})


def run(folder: JobFolder, spec: JobSpec, report: Progress) -> None:
    """Do a score job of the server: see :func:`score_folder` and ``core.jobs.runner``.

    Raises:
        JobError, SettingsError, ModelError: see :func:`score_folder`; or the parameters are damaged.
    """
    indicators, models = read_params(spec)
    score_folder(folder, indicators=indicators, models=models, report=report)


def score_folder(folder: JobFolder, *, indicators: Sequence[str], models: Models, report: Progress) -> None:
    """Do every stage and every shard of a job folder that is not finished yet, in order.

    The input has columns example_id, instruction, input and output; where it has ``wanted``, only the indicators named
    there (by commas) are computed for a row; where it has ``has_vector``, only rows that have none are embedded. A
    shard is in long form: a row for each example and output, with columns example_id, output, value, reason, transient.

    Raises:
        JobError: a file is damaged, or something cannot be written.
        SettingsError: an indicator is unknown, or needs a model and none is named.
        ModelError: a model cannot be loaded, is not the one that was asked for, or fails.
    """
    check_models(indicators, models)
    finished = folder.finished_shards()
    ranges = folder.shard_ranges()
    missing = [one for one in ranges if one[0] not in finished]
    if not missing:
        return
    wanted = _Wanted(folder, indicators)
    neighbours = neighbours_needed(indicators)
    if neighbours and models.embedder is not None and not folder.distances_path.exists():
        note = _paced(report)
        embed_rows(folder, models.embedder, note=note)
        near = wanted.rows_with({f"knn_{i}" for i in neighbours})
        find_distances(folder, near, neighbours=neighbours, device=models.embedder.device, note=note)
    asked = wanted.any_row
    loaded = Loaded.load(asked, models, note=report.note) if asked else Loaded()
    if asked:
        report.note(f"Scoring {_named([one.title for one in chosen(asked)])}")
    distances = Distances(folder, neighbours) if neighbours else None
    done = sum(stop - start for index, start, stop in ranges if index in finished)
    with folder.reading_input(columns=("example_id", "instruction", "input", "output")) as rows:
        work = _Work(loaded, wanted, distances, rows=rows, folder=folder, report=report, done=done)
        run_pipeline(missing, read=work.read, work=work.score, write=work.write)


def _named(titles: Sequence[str]) -> str:
    """A few titles, or how many they are: the note stands on one line."""
    return ", ".join(titles) if len(titles) <= _MOST_TITLES else f"{len(titles)} indicators"


def _paced(report: Progress) -> Callable[[str], None]:
    """Notes of a stage, at most one a second; the first word of each stage is never left out."""
    told_at, told = -_NOTE_SECONDS, ""

    def note(text: str) -> None:
        nonlocal told_at, told
        now = time.monotonic()
        if now - told_at >= _NOTE_SECONDS or text.split()[0] != told:
            told_at, told = now, text.split()[0]
            report.note(text)

    return note


class _Wanted:
    """Which indicators each row of the input is asked for: those that it names, else all of the job."""

    def __init__(self, folder: JobFolder, indicators: Sequence[str]) -> None:
        self.named = "wanted" in folder.input_columns()
        self._of: list[tuple[str, ...]] = [tuple(indicators)]
        self._codes = np.zeros(folder.spec().n_rows, np.int32)
        if self.named:
            column = folder.input_table(columns=["wanted"])["wanted"].combine_chunks().dictionary_encode()
            self._of = [tuple(k for k in text.split(",") if k in indicators) for text in column.dictionary.to_pylist()]
            self._codes = column.indices.to_numpy()

    @property
    def any_row(self) -> list[str]:
        """Indicators that some row is asked for: what has to be loaded."""
        return list(dict.fromkeys(key for keys in self._of for key in keys))

    def rows_with(self, keys: set[str]) -> np.ndarray:
        """Whether each row is asked for one of these: bool [rows]."""
        return np.array([bool(keys.intersection(of)) for of in self._of], bool)[self._codes]

    def groups(self, start: int, stop: int) -> list[tuple[tuple[str, ...], np.ndarray]]:
        """Rows of a range by what they are asked for: (indicators, positions in the range)."""
        codes = self._codes[start:stop]
        return [(self._of[code], np.flatnonzero(codes == code)) for code in np.unique(codes) if self._of[code]]


@dataclass(frozen=True)
class _Shard:
    """A shard on its way: groups of rows (positions in it) that are asked for the same indicators."""

    index: int
    ids: list[int]
    groups: list[tuple[np.ndarray, PreparedRows]]
    distances: list[dict[int, Value]] | None


class _Work:
    """The three steps of a shard; each runs in a thread of its own (see ``core.pipeline``)."""

    def __init__(
        self,
        loaded: Loaded,
        wanted: _Wanted,
        distances: Distances | None,
        *,
        rows: Callable[[int, int], pa.Table],
        folder: JobFolder,
        report: Progress,
        done: int,
    ) -> None:
        self._loaded = loaded
        self._wanted = wanted
        self._distances = distances
        self._rows = rows
        self._folder = folder
        self._report = report
        self._done = done

    def read(self, shard: tuple[int, int, int]) -> _Shard:
        index, start, stop = shard
        rows = self._rows(start, stop)
        ids, examples = rows["example_id"].to_pylist(), examples_of(rows)
        groups = [
            (positions, prepare_examples([examples[i] for i in positions], indicators=keys, loaded=self._loaded))
            for keys, positions in self._wanted.groups(start, stop)
        ]
        distances = self._distances.of_shard(index, ids, start) if self._distances is not None else None
        return _Shard(index, ids, groups, distances)

    def score(self, shard: _Shard) -> tuple[_Shard, list[dict[str, Value]]]:
        scores: list[dict[str, Value]] = [{} for _ in shard.ids]
        before = 0
        for positions, rows in shard.groups:

            def tell(done: int, total: int, before: int = before, n_rows: int = len(positions)) -> None:
                self._report.rows(self._done + before + n_rows * done // max(total, 1))

            near = None if shard.distances is None else [shard.distances[i] for i in positions]
            found = score_prepared(rows, loaded=self._loaded, distances=near, on_progress=tell)
            for position, values in zip(positions, found, strict=True):
                scores[position] = values
            before += len(positions)
        self._done += len(shard.ids)
        self._report.rows(self._done)
        return shard, scores

    def write(self, scored: tuple[_Shard, list[dict[str, Value]]]) -> None:
        shard, scores = scored
        for reason, failed in _errors_by_reason(shard.ids, scores).items():
            self._report.row_errors(reason, failed)
        self._folder.write_shard(shard.index, _shard_table(shard.ids, scores))


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
