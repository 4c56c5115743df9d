"""Reflect on a file without store or server: a job folder beside the result, the job's own path, one Parquet file.

The folder ``OUT.job`` is a job folder (``core.jobs.folder``). It keeps every answer of the teacher and what is done, so
that the same call goes on where an earlier one stopped and nothing is paid twice; another call with other settings is
refused. It stays when the result is written: its ``answers.jsonl`` holds all that the teacher said.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import core
from core import reflecting
from core.errors import BudgetReached, SettingsError
from core.example import Example
from core.file_run import (
    Report,
    begin_run,
    check_out,
    digest_of,
    known_run,
    locked,
    mapping_of,
    work_folder,
)
from core.formats import ColumnMapping, RowMapping, Source, open_source
from core.jobs.disk import disk_error, sync_directory
from core.jobs.folder import JobFolder
from core.jobs.runner import Progress
from core.jobs.spec import JobSpec
from core.models import resolve_revision
from core.reflect_table import REFUSED, SCHEMA, refused_row, result_row, to_table
from core.reflecting import SHARD_ROWS
from core.reflection_options import ReflectOptions
from core.reflection_records import ReflectedRow, from_table
from core.reflection_replies import CODES

_ANEW = "ask, and pay, anew and replace it"
_READ_ROWS = 2048
_GROUP_ROWS = 16_384
# What changes no answer and no number: a run may go on with other values of these.
_FREE_OF_STUDENT = ("batch_tokens", "device")
_FREE_OF_TEACHER = (
    "concurrency", "timeout_seconds", "max_retries", "deadline_seconds", "backoff_seconds", "max_wait_seconds",
    "price_in", "price_out", "requests_per_minute", "tokens_per_minute", "budget_usd", "batch_poll_seconds",
    "batch_max_requests", "batch_discount", "api_key_env", "keyless", "device", "batch_rows",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ReflectFileRun:
    """What to do: reflect on the rows of ``source`` as ``options`` say, into the Parquet file ``out``.

    ``device``      of the student, and of a local teacher: cpu or cuda (the GPU that this process sees first)
    ``mapping``     columns that hold the texts; None: the file's known shape
    ``limit``       only the first so many rows that can be read; None: all
    ``shard_rows``  rows that are kept together once they are done
    ``resume``      only go on with an unfinished run, never begin one
    ``restart``     forget an unfinished run, its answers included, and replace a result that is there
    """

    source: Path
    out: Path
    options: ReflectOptions
    device: str = "cpu"
    mapping: ColumnMapping | None = None
    limit: int | None = None
    shard_rows: int = SHARD_ROWS
    resume: bool = False
    restart: bool = False


def reflect_file(run: ReflectFileRun, *, report: Report = Progress) -> dict[str, Any]:
    """Reflect on a file; the result appears whole under its name, or not at all. Returns its summary.

    Columns of the result: ``core.reflect_table.SCHEMA``, a row for every row of the file, also for those that could not
    be read. Metadata of the file: ``assay.version``, ``assay.settings``, ``assay.input`` and
    (of the file, not the schema) ``assay.summary``, JSON.

    The summary counts ``rows`` by status, failures by reason, ``kept`` and ``changed`` rows, calls (one that two rows
    share counts once), tokens and cost. ``cost_usd`` is the sum of what is known, None where no price is;
    ``calls_without_cost`` are answers whose cost is unknown.

    Raises:
        SettingsError: the result exists, settings are wrong, or differ from those of the unfinished run.
        InputError: the file cannot be read, or none of its rows can.
        TeacherError: the key is missing, or the teacher can answer no question at all.
        BudgetReached: the budget is spent; the same call with a larger one goes on.
        ModelError: a model cannot be loaded.
        JobError: another run is at this result, or the disk is full.
    """
    check_out(run.out, restart=run.restart, anew=_ANEW)
    source = open_source(run.source)
    mapping = mapping_of(source, run.mapping)
    student = run.options.student
    options = replace(run.options, student=replace(student, revision=resolve_revision(student.model, student.revision)))
    settings = _settings(run, options, mapping=mapping)
    folder = work_folder(run.out)
    if run.resume and not folder.spec_path.exists():
        raise SettingsError(f"There is no unfinished run in {folder.path}; leave --resume out to begin one.")
    lock = locked(folder, run.out)
    try:
        check_out(run.out, restart=run.restart, anew=_ANEW)  # it may have come while another run held the lock
        if run.restart:
            folder.clear()
        folder.remove_partials()
        before = known_run(
            folder, settings, is_begun=lambda: _is_begun(folder), anew=" (its answers are then paid again)"
        )
        spec = before or _new(folder, run, source, mapping, settings=settings, options=options)
        # Limits, prices and devices may be others than at the first start.
        now = replace(
            spec,
            params={**spec.params, **options.to_params()},
            device="cuda" if run.device.startswith("cuda") else "cpu",
        )
        try:
            reflecting.run(folder, now, report(folder, spec))
        except BudgetReached as error:
            n_done = spec.rows_in(folder.finished_shards())
            raise BudgetReached(
                f"{error} {n_done:,} of {spec.n_rows:,} rows are finished. Give the same command with a larger "
                "--budget to go on."
            ) from error
        return _write_result(folder, run, settings=settings)
    finally:
        os.close(lock)


def _is_begun(folder: JobFolder) -> bool:
    return bool(folder.finished_shards() or folder.answers() or folder.batches())


def _settings(run: ReflectFileRun, options: ReflectOptions, *, mapping: RowMapping) -> dict[str, Any]:
    """What the result follows from, JSON-able; equal settings may go on with one another's work."""
    params = options.to_params()
    free = {"student": _FREE_OF_STUDENT, "teacher": _FREE_OF_TEACHER}
    for name, names in free.items():
        params[name] = {key: value for key, value in params[name].items() if key not in names}
    return {
        "assay_version": core.__version__,
        "input": {"name": run.source.name, "sha256": digest_of(run.source), "mapping": mapping.describe()},
        "limit": run.limit,
        **params,
    }


def _new(
    folder: JobFolder,
    run: ReflectFileRun,
    source: Source,
    mapping: RowMapping,
    *,
    settings: Mapping[str, Any],
    options: ReflectOptions,
) -> JobSpec:
    return begin_run(
        folder, source, mapping, kind="reflect", device="cuda" if run.device.startswith("cuda") else "cpu",
        shard_rows=run.shard_rows, limit=run.limit, params={**options.to_params(), "run": dict(settings)},
    )  # fmt: skip


# --- the result ---


def _write_result(folder: JobFolder, run: ReflectFileRun, *, settings: Mapping[str, Any]) -> dict[str, Any]:
    counted = _Summary()
    schema = SCHEMA.with_metadata(
        {
            "assay.version": core.__version__,
            "assay.settings": json.dumps({name: value for name, value in settings.items() if name != "input"}),
            "assay.input": json.dumps(settings["input"], ensure_ascii=False),
        }
    )
    try:
        with folder.result_path.open("wb") as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for table in _tables(folder, counted, limited=run.limit is not None):
                writer.write_table(table, row_group_size=_GROUP_ROWS)
            writer.add_key_value_metadata({"assay.summary": json.dumps(counted.told(), ensure_ascii=False)})
            writer.close()
            file.flush()
            os.fsync(file.fileno())
        if run.out.exists() and not run.restart:
            raise SettingsError(f"{run.out} appeared while its rows were reflected. Move it away, then start again.")
        folder.result_path.replace(run.out)
        sync_directory(run.out.parent)
    except OSError as error:
        raise disk_error(error, doing=f"The result {run.out}", then="start again") from error
    return counted.told()


def _tables(folder: JobFolder, counted: _Summary, *, limited: bool) -> Iterator[pa.Table]:
    """The rows of the result in order: a shard at a time, with the refused rows that stand before its end."""
    refused = _refused(folder)
    waiting = next(refused, None)
    with folder.reading_input() as read:
        for index, start, stop in folder.shard_ranges():
            originals = read(start, stop).to_pylist()
            found = from_table(folder.read_shard(index))
            rows = []
            for row, texts in zip(found, originals, strict=True):
                original = Example(texts["instruction"], texts["input"], texts["output"])
                while waiting is not None and waiting["row"] < row.example_id:
                    rows.append(waiting)
                    waiting = next(refused, None)
                rows.append(result_row(row, original=original))
                counted.add(row, original=original)
            counted.n_refused += sum(row["status"] == REFUSED for row in rows)
            yield to_table(rows)
    while waiting is not None and not limited:  # of a limited run those behind the last row were perhaps not looked at
        rows = [waiting, *islice(refused, _READ_ROWS)]
        counted.n_refused += len(rows)
        yield to_table(rows)
        waiting = next(refused, None)


def _refused(folder: JobFolder) -> Iterator[dict[str, Any]]:
    with pq.ParquetFile(folder.refused_path) as file:
        for batch in file.iter_batches():
            for one in batch.to_pylist():
                yield refused_row(one["row"], one["reason"])


class _Summary:
    """Counts what a run gave."""

    def __init__(self) -> None:
        self.n_refused = 0
        self._n = {"ok": 0, "failed": 0, "kept": 0, "changed": 0}
        self._reasons: dict[str, int] = {}
        self._calls: dict[str, tuple[int | None, int | None, float | None]] = {}
        self._without_cost = 0

    def add(self, row: ReflectedRow, *, original: Example) -> None:
        self._n[row.status] += 1
        self._n["kept"] += row.final.kept
        self._n["changed"] += (row.final.instruction, row.final.input, row.final.output) != tuple(
            asdict(original).values()
        )
        for failure in row.failures:
            text = failure.reason if failure.code == "error" else CODES[failure.code]
            reason = f"{failure.stage} reflection: {text}"
            self._reasons[reason] = self._reasons.get(reason, 0) + 1
        for call in row.calls:
            if call.call_id not in self._calls:
                self._calls[call.call_id] = (call.prompt_tokens, call.completion_tokens, call.cost_usd)
                self._without_cost += call.cost_usd is None and call.outcome != "error"

    def told(self) -> dict[str, Any]:
        """The summary, JSON-able."""
        sums = []
        for values in zip(*self._calls.values(), strict=True) if self._calls else ((), (), ()):
            known = [value for value in values if value is not None]
            sums.append(round(sum(known), 12) if known else None)
        n_rows = self._n["ok"] + self._n["failed"] + self.n_refused
        return {
            "rows": n_rows,
            "ok": self._n["ok"],
            "failed": self._n["failed"],
            "refused": self.n_refused,
            "kept": self._n["kept"],
            "changed": self._n["changed"],
            "failures": dict(sorted(self._reasons.items(), key=lambda item: -item[1])),
            "calls": len(self._calls),
            "calls_without_cost": self._without_cost,
            "prompt_tokens": sums[0],
            "completion_tokens": sums[1],
            "cost_usd": sums[2],
        }
