"""Parts of a run without store or server: a job folder beside its result, told apart from runs with other settings."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import core
from core.errors import InputError, JobError, SettingsError
from core.formats import BadRow, ColumnMapping, RowMapping, Source, detect_shape, read_examples
from core.jobs.disk import disk_error
from core.jobs.folder import JobFolder
from core.jobs.runner import Progress
from core.jobs.secrets import redact
from core.jobs.spec import JobSpec

_BLOCK_BYTES = 1 << 20

Report = Callable[[JobFolder, JobSpec], Progress]
"""Makes what the run tells its progress to."""


def work_folder(out: Path) -> JobFolder:
    """The job folder of a result: beside it, with ``.job`` behind its name (made fit for a job's id)."""
    name = f"{out.name}.job"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        clean = re.sub(r"[^A-Za-z0-9._-]", "_", out.name).lstrip("._-")[:60] or "out"
        name = f"{clean}-{hashlib.sha256(out.name.encode()).hexdigest()[:8]}.job"
    return JobFolder(out.parent / name)


def check_out(out: Path, *, restart: bool, anew: str) -> None:
    """Refuse a result that cannot be written, or that is there already; ``anew`` says what --restart would do.

    Raises:
        SettingsError: the folder is missing, the name is a folder's, or the file exists.
    """
    if not out.parent.is_dir():
        raise SettingsError(f"The folder {out.parent} does not exist. Make it, or choose another --out.")
    if out.is_dir():
        raise SettingsError(f"{out} is a folder. Give the name of a file as --out.")
    if out.exists() and not restart:
        raise SettingsError(f"{out} exists already. Choose another --out, or give --restart to {anew}.")


def mapping_of(source: Source, asked: ColumnMapping | None) -> RowMapping:
    """The mapping that was asked for, else that of the file's known shape.

    Raises:
        InputError: none was asked for and the shape is not known; it lists the columns.
    """
    mapping = asked or detect_shape(source)
    if mapping is None:
        raise InputError(
            f"The shape of {source.name} is not known. Say which columns hold the texts, by --mapping "
            f"instruction=COLUMN,output=COLUMN; it has: {', '.join(source.columns)}."
        )
    return mapping


def known_run(
    folder: JobFolder, settings: Mapping[str, Any], *, is_begun: Callable[[], bool], anew: str = ""
) -> JobSpec | None:
    """The spec of the unfinished run in a folder, None (and an empty folder) where there is none.

    Other settings are refused, unless nothing was done yet; ``anew`` says what beginning anew costs.

    Raises:
        SettingsError: the unfinished run has other settings; it names them.
    """
    if not folder.spec_path.exists():
        folder.clear()
        return None
    spec = folder.spec()
    before, now = (json.loads(json.dumps(one)) for one in (spec.params.get("run") or {}, dict(settings)))
    changed = list(differences(before, now))
    if changed and not is_begun():
        folder.clear()
        return None
    if changed:
        raise SettingsError(
            f"An unfinished run in {folder.path} has other settings: {'; '.join(changed)}. Give the old settings to go "
            f"on with it, or --restart to begin anew{anew}."
        )
    return spec


def locked(folder: JobFolder, out: Path) -> int:
    """Make the folder and take its lock: a descriptor that holds it until it is closed.

    Raises:
        JobError: another run is at this result, or the folder cannot be made.
    """
    try:
        folder.path.mkdir(exist_ok=True)
    except OSError as error:
        raise disk_error(error, doing=f"The folder {folder.path}", then="start again") from error
    lock = folder.try_lock()
    if lock is None:
        raise JobError(f"Another run is writing {out}. Wait for it, or choose another --out.")
    return lock


def digest_of(path: Path) -> str:
    """SHA-256 of a file.

    Raises:
        InputError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    except OSError as error:
        raise InputError(f"{path.name} cannot be read: {error.strerror or error}.") from error
    return digest.hexdigest()


def differences(before: Mapping[str, Any], now: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """What two settings do not have in common, each in words."""
    for key in dict.fromkeys([*before, *now]):
        old, new, name = before.get(key), now.get(key), f"{where}{key}"
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from differences(old, new, f"{name} ")
        elif old != new:
            yield f"{name} was {_shown(old)}, is {_shown(new)}"


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return "not there" if value is None else "there" if isinstance(value, Mapping) else str(value)


class RefusedRows:
    """Writes rows that the importer refused, some at a time."""

    _SCHEMA = pa.schema([("row", pa.int64()), ("reason", pa.string())])
    _ROWS = 4096

    def __init__(self, file: Any) -> None:
        self._writer = pq.ParquetWriter(file, self._SCHEMA, compression="zstd")
        self._rows: list[int] = []
        self._reasons: list[str] = []

    def __enter__(self) -> RefusedRows:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._writer.close()

    def add(self, row: int, bad: BadRow) -> None:
        self._rows.append(row)
        self._reasons.append(redact(f"the row was refused: {bad.reason}"))
        if len(self._rows) >= self._ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.table([self._rows, self._reasons], schema=self._SCHEMA))
        self._rows, self._reasons = [], []


_READ_ROWS = 2048
_VERBS = {"score": "Score", "reflect": "Reflect on"}


def begin_run(
    folder: JobFolder,
    source: Source,
    mapping: RowMapping,
    *,
    kind: str,
    device: str,
    shard_rows: int,
    params: Mapping[str, Any],
    limit: int | None = None,
) -> JobSpec:
    """Read the file (its first ``limit`` rows) into the folder, batch by batch; the spec comes last and says that it
    is whole. Rows that cannot be used are kept in the folder, with their reasons.

    Raises:
        InputError: the file has no row that can be used.
        JobError: the disk is full, or cannot be written.
    """
    try:
        n_rows = _write_rows(folder, source, mapping, shard_rows=shard_rows, limit=limit)
        spec = JobSpec(
            job_id=folder.job_id,
            kind=kind,
            title=f"{_VERBS[kind]} {source.name}",
            device=device,
            n_rows=n_rows,
            shard_rows=shard_rows,
            params=dict(params),
            created_at=datetime.now(UTC).replace(tzinfo=None).isoformat(),
            assay_version=core.__version__,
        )
        folder.seal(spec)
    except OSError as error:
        folder.clear()
        raise disk_error(error, doing=f"The rows of {source.name}", then="start again") from error
    except (InputError, JobError):
        folder.remove()
        raise
    return spec


def _write_rows(folder: JobFolder, source: Source, mapping: RowMapping, *, shard_rows: int, limit: int | None) -> int:
    texts = ("instruction", "input", "output")
    schema = pa.schema([("example_id", pa.int64()), *((name, pa.string()) for name in texts)])
    with folder.refused_path.open("wb") as file, RefusedRows(file) as refused:
        reader = read_examples(source, mapping, batch_rows=_READ_ROWS, on_bad_row=refused.add)

        def batches() -> Iterator[pa.RecordBatch]:
            left = limit
            for batch in reader:
                taken = batch if left is None else batch.slice(0, left)
                left = None if left is None else left - taken.num_rows
                yield pa.RecordBatch.from_arrays([taken[name] for name in ("row", *texts)], schema=schema)
                if left == 0:
                    return

        try:
            n_rows = folder.write_input(pa.RecordBatchReader.from_batches(schema, batches()), shard_rows=shard_rows)
        finally:
            reader.close()
    if not n_rows:
        raise InputError(f"{source.name} has no row that can be used: {reader.report.bad_rows[0].reason}")
    return n_rows
