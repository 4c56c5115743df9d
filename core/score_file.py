"""Score a file without store or server: a job folder beside the result, the job's own path, and one wide Parquet file.

The folder ``OUT.job`` is a job folder (``core.jobs.folder``). It keeps what is done until the result is written, so
that the same call goes on where an earlier one stopped; another call with other settings is refused.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import core
from core.errors import SettingsError
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
from core.indicators import outputs_of, roles_needed
from core.indicators.losses import count_key
from core.jobs.disk import disk_error, sync_directory
from core.jobs.folder import JobFolder
from core.jobs.runner import Progress
from core.jobs.spec import JobSpec
from core.jobs.tables import write_batches
from core.score_job import SHARD_ROWS, score_folder
from core.scoring import Models, check_models, resolve_revisions

LOSS_COLUMNS = ("loss_y", "loss_y_given_x", "loss_x", "loss_x_given_y")
_GROUP_ROWS = 65_536
# What changes no number: a run may go on with another budget (memory ran out) or on another device.
_FREE = ("batch_tokens", "device")
_ANEW = "score anew and replace it"


@dataclass(frozen=True, kw_only=True)
class FileRun:
    """What to score: rows of ``source``, by ``indicators`` under ``models``, into the Parquet file ``out``.

    ``mapping``  columns that hold the texts; None: the file's known shape
    ``shard_rows``  rows that are kept once they are done, None: as a job of the server on that device
    ``restart``  forget an unfinished run and replace a result that is there
    """

    source: Path
    out: Path
    indicators: tuple[str, ...]
    models: Models
    mapping: ColumnMapping | None = None
    shard_rows: int | None = None
    restart: bool = False


@dataclass(frozen=True)
class FileResult:
    """What was written: rows in all, those that the importer refused, those with a NULL (the refused among them)."""

    n_rows: int
    n_refused: int
    n_incomplete: int


def score_file(run: FileRun, *, report: Report = Progress) -> FileResult:
    """Score a file; the result appears whole under its name, or not at all.

    Columns of the result: ``row`` (int64, place in the file from 0, as the importer counts; refused rows too), one
    float64 column per output, the four losses with their token counts (NULL where they were not asked for), and
    ``reason``: why something is NULL, by output; NULL where everything is there. Metadata of the file:
    ``assay.version``, ``assay.settings``, ``assay.revisions``, ``assay.input`` (JSON).

    Raises:
        SettingsError: the result exists, settings are wrong, or differ from those of the unfinished run.
        InputError: the file cannot be read, or none of its rows can.
        JobError: another run is at this result, or the disk is full.
        ModelError: a model cannot be loaded or fails.
    """
    check_out(run.out, restart=run.restart, anew=_ANEW)
    models = run.models.only(roles_needed(run.indicators))
    check_models(run.indicators, models)
    source = open_source(run.source)
    mapping = mapping_of(source, run.mapping)
    revisions = resolve_revisions(models)
    settings = _settings(run, models, revisions, mapping=mapping)
    folder = work_folder(run.out)
    lock = locked(folder, run.out)
    try:
        check_out(run.out, restart=run.restart, anew=_ANEW)  # it may have come while another run held the lock
        if run.restart:
            folder.clear()
        folder.remove_partials()
        shard_rows = run.shard_rows or SHARD_ROWS[models.device]
        spec = known_run(folder, settings, is_begun=lambda: _is_begun(folder)) or _new(
            folder, source, mapping, settings=settings, models=models, shard_rows=shard_rows
        )
        pinned = models.pinned(revisions)
        score_folder(folder, indicators=run.indicators, models=pinned, report=report(folder, spec))
        result = _write_result(folder, run, settings=settings)
        folder.remove()
        return result
    finally:
        os.close(lock)


def _is_begun(folder: JobFolder) -> bool:
    return bool(folder.finished_shards() or folder.finished_vectors())


def _settings(run: FileRun, models: Models, revisions: Mapping[str, str], *, mapping: RowMapping) -> dict[str, Any]:
    """What the numbers of a run follow from, JSON-able; equal settings may go on with one another's work."""
    kept = {
        role: {name: value for name, value in fields.items() if name not in (*_FREE, "revision")}
        for role, fields in models.to_params().items()
    }
    return {
        "assay_version": core.__version__,
        "input": {"name": run.source.name, "sha256": digest_of(run.source), "mapping": mapping.describe()},
        "indicators": list(run.indicators),
        "models": kept,
        "revisions": dict(revisions),
    }


def _new(
    folder: JobFolder,
    source: Source,
    mapping: RowMapping,
    *,
    settings: Mapping[str, Any],
    models: Models,
    shard_rows: int,
) -> JobSpec:
    return begin_run(
        folder, source, mapping, kind="score", device=models.device, shard_rows=shard_rows,
        params={"indicators": settings["indicators"], "models": models.to_params(), "run": dict(settings)},
    )  # fmt: skip


def result_columns(indicators: Sequence[str]) -> tuple[list[str], list[str]]:
    """The number columns of a result, in order; and those among them that scoring gives (the others are NULL)."""
    given = [output.key for _, output in outputs_of(indicators)]
    losses = [*LOSS_COLUMNS, *map(count_key, LOSS_COLUMNS)]
    return [*(key for key in given if key not in losses), *losses], given


def _write_result(folder: JobFolder, run: FileRun, *, settings: Mapping[str, Any]) -> FileResult:
    columns, _ = result_columns(run.indicators)
    schema = pa.schema(
        [("row", pa.int64()), *((name, pa.float64()) for name in columns), ("reason", pa.string())],
        metadata={
            "assay.version": core.__version__,
            "assay.settings": json.dumps({"indicators": list(run.indicators), "models": settings["models"]}),
            "assay.revisions": json.dumps(settings["revisions"]),
            "assay.input": json.dumps(settings["input"], ensure_ascii=False),
        },
    )
    counted = {"rows": 0, "incomplete": 0}
    refused = _RefusedRows(folder)

    def batches() -> Iterator[pa.RecordBatch]:
        for table in _tables(folder, schema, refused):
            counted["rows"] += table.num_rows
            counted["incomplete"] += table.num_rows - table["reason"].null_count
            yield from table.combine_chunks().to_batches()

    try:
        write_batches(folder.result_path, pa.RecordBatchReader.from_batches(schema, batches()), group_rows=_GROUP_ROWS)
        if run.out.exists() and not run.restart:
            raise SettingsError(f"{run.out} appeared while its rows were scored. Move it away, then start again.")
        folder.result_path.replace(run.out)
        sync_directory(run.out.parent)
    except OSError as error:
        raise disk_error(error, doing=f"The result {run.out}", then="start again") from error
    return FileResult(counted["rows"], refused.n_given, counted["incomplete"])


def _tables(folder: JobFolder, schema: pa.Schema, refused: _RefusedRows) -> Iterator[pa.Table]:
    """The rows of the result in order: a shard at a time, with the refused rows that stand before its end."""
    ids = folder.input_table(columns=["example_id"])["example_id"].to_numpy()
    for index, start, stop in folder.shard_ranges():
        scored = _wide(folder.read_shard(index), ids[start:stop], schema)
        before = refused.until(int(ids[stop - 1]), schema)
        yield scored if not before.num_rows else pa.concat_tables([scored, before]).sort_by("row")
    yield from refused.rest(schema)


def _wide(shard: pa.Table, ids: np.ndarray, schema: pa.Schema) -> pa.Table:
    """One row an example out of one row an (example, output)."""
    names = schema.names[1:-1]
    outputs = shard["output"].combine_chunks().dictionary_encode()
    place = np.array([names.index(key) for key in outputs.dictionary.to_pylist()], np.int64)[outputs.indices.to_numpy()]
    row = np.searchsorted(ids, shard["example_id"].to_numpy())
    cells = np.full((len(ids), len(names)), np.nan)
    cells[row, place] = shard["value"].to_numpy(zero_copy_only=False)
    absent = np.flatnonzero(shard["value"].is_null().to_numpy())
    said: dict[int, dict[str, list[str]]] = {}
    for cell, reason in zip(absent, shard["reason"].take(pa.array(absent)).to_pylist(), strict=True):
        said.setdefault(int(row[cell]), {}).setdefault(reason, []).append(names[place[cell]])
    reasons = [_told(said.get(i)) for i in range(len(ids))]
    arrays = [pa.array(cells[:, i], mask=np.isnan(cells[:, i])) for i in range(len(names))]
    return pa.table([pa.array(ids), *arrays, pa.array(reasons, pa.string())], schema=schema)


def _told(said: Mapping[str, Iterable[str]] | None) -> str | None:
    if said is None:
        return None
    return "; ".join(f"{', '.join(keys)}: {reason}" for reason, keys in said.items())


class _RefusedRows:
    """Reads the rows that the importer refused, in order, some at a time."""

    def __init__(self, folder: JobFolder) -> None:
        self._batches = self._read(folder.refused_path)
        self._waiting: pa.Table | None = None
        self.n_given = 0

    @staticmethod
    def _read(path: Path) -> Iterator[pa.Table]:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches():
                yield pa.Table.from_batches([batch])

    def _next(self) -> pa.Table | None:
        table, self._waiting = self._waiting, None
        return table if table is not None else next(self._batches, None)

    def until(self, row: int, schema: pa.Schema) -> pa.Table:
        """Those before a row, as rows of the result."""
        parts = []
        while (table := self._next()) is not None:
            n_before = int(pc.sum(pc.less(table["row"], row)).as_py() or 0)
            parts.append(table.slice(0, n_before))
            if n_before < table.num_rows:
                self._waiting = table.slice(n_before)
                break
        return self._as_rows(pa.concat_tables(parts), schema) if parts else schema.empty_table()

    def rest(self, schema: pa.Schema) -> Iterator[pa.Table]:
        """Those behind the last row that could be scored."""
        while (table := self._next()) is not None:
            yield self._as_rows(table, schema)

    def _as_rows(self, table: pa.Table, schema: pa.Schema) -> pa.Table:
        self.n_given += table.num_rows
        absent = [pa.nulls(table.num_rows, pa.float64())] * (len(schema) - 2)
        return pa.table([table["row"], *absent, table["reason"]], schema=schema)
