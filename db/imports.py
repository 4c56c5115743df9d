"""Imports that outlive the page run which started them: a thread for each, its progress, its report."""

from __future__ import annotations

import os
import shutil
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from core.errors import AssayError, InputError
from core.formats import NO_REFERENCE, ImportReport, Shape, Source, read_examples, safe_name
from core.formats.report import EMPTY_RESPONSE
from db import commands, evaluation, permission, queries
from db.store import Store

# Small batches: progress moves steadily, and the Python texts of a batch are few.
_BATCH_ROWS = 10_000
_KEPT_OF_EACH_KIND = 250
_STALE_UPLOAD_SECONDS = 24 * 3600.0
_running: list[ImportTask] = []
_kept: set[Path] = set()  # folders of uploads that sessions of this server wait to import


@dataclass(frozen=True, kw_only=True)
class ImportChoice:
    """What the user chose besides the mapping. A bad row stops the import unless ``skip_bad_rows``.

    ``evaluation``: the dataset is marked as an evaluation set.
    """

    name: str
    origin: str
    skip_bad_rows: bool = False
    drop_exact_duplicates: bool = False
    created_by: str | None = None
    evaluation: bool = False


@dataclass(eq=False)
class ImportTask:
    """One import on its way; the thread writes it, pages read it.

    ``state``  reading, storing, done or failed; ``error`` says why it failed, and ``report`` what was found until then
    """

    source: Source
    mapping: Shape
    choice: ImportChoice
    report: ImportReport
    started: float = field(default_factory=time.monotonic)
    ended: float | None = None
    state: str = "reading"
    error: str | None = None
    dataset_id: int | None = None

    @property
    def over(self) -> bool:
        """Whether the thread is through."""
        return self.state in ("done", "failed")

    @property
    def seconds(self) -> float:
        """Since the start, or from start to end."""
        return (self.ended or time.monotonic()) - self.started

    @property
    def rows_per_second(self) -> float | None:
        """Rows read a second so far; None in the first moments."""
        return self.report.rows_read / self.seconds if self.seconds > 0.5 else None

    @property
    def eta_seconds(self) -> float | None:
        """Seconds of reading that are left; None where the size of the source is not known."""
        fraction = self.source.reading.fraction
        return self.seconds * (1 - fraction) / fraction if self.state == "reading" and fraction else None


def start_import(
    store: Store,
    source: Source,
    mapping: Shape,
    choice: ImportChoice,
    *,
    on_success: Callable[[], None] = lambda: None,
) -> ImportTask:
    """Begin to import in a thread of its own and return at once. ``on_success`` runs in it after the commit.

    Raises:
        InputError: the mapping names a column that the source does not have.
        StoreError: the name is empty or taken.
    """
    permission.require("administer")
    commands.check_new_name(store, choice.name)
    reader = read_examples(
        source,
        mapping,
        batch_rows=_BATCH_ROWS,
        empty_response=NO_REFERENCE if choice.evaluation else EMPTY_RESPONSE,
    )
    task = ImportTask(source, mapping, choice, reader.report)

    def details() -> dict[str, Any]:
        if not choice.skip_bad_rows:
            reader.report.require_no_bad_rows()
        task.state = "storing"
        return _details(task)

    def run() -> None:
        state = "failed"
        try:
            task.dataset_id = commands.import_dataset(
                store,
                reader,
                name=choice.name,
                source=choice.origin,
                kind="evaluation" if choice.evaluation else "import",
                details=details,
                created_by=choice.created_by,
                drop_exact_duplicates=choice.drop_exact_duplicates,
            )
            if choice.evaluation:
                evaluation.mark(store, task.dataset_id, by=choice.created_by)
            state = "done"
            on_success()
        except AssayError as error:
            task.error = str(error)
        except OSError as error:
            task.error = f"{source.name} could not be read to its end: {error.strerror or error}. Nothing was imported."
        finally:
            reader.close()
            task.ended = time.monotonic()
            if state == "failed" and task.error is None:  # a fault of ours: it goes on to the server's log
                task.error = "The import ended by an error of Assay; the server's log has it. Nothing was imported."
            task.state = state
            _running.remove(task)

    _running.append(task)
    threading.Thread(target=run, name=f"assay-import-{uuid.uuid4().hex[:6]}", daemon=True).start()
    return task


def running() -> list[ImportTask]:
    """The imports on their way, of every session."""
    return list(_running)


def summary(task: ImportTask) -> dict[str, Any]:
    """The counts of a complete report, with the number of rows in the dataset."""
    report = task.report
    left_out = report.n_exact_duplicates if task.choice.drop_exact_duplicates else 0
    return {**report.summary(), "n_imported": report.n_examples - left_out}


def _details(task: ImportTask) -> dict[str, Any]:
    return {
        "report": summary(task),
        "mapping": task.mapping.describe(),
        "skip_bad_rows": task.choice.skip_bad_rows,
        "drop_exact_duplicates": task.choice.drop_exact_duplicates,
        "findings": findings(task.report),
    }


def findings(report: ImportReport, *, of_each_kind: int = _KEPT_OF_EACH_KIND) -> list[dict[str, Any]]:
    """The first findings of each kind (``kind, line, reason, excerpt``), for a page and to be kept with the dataset."""
    seen: Counter[str] = Counter()
    kept = []
    for row in report.to_rows():
        seen[row.kind] += 1
        if seen[row.kind] <= of_each_kind:
            kept.append(asdict(row))
    return kept


def free_name(store: Store, wanted: str) -> str:
    """``wanted``, or with a number behind it if a dataset has that name already."""
    taken = {row["name"] for row in queries.datasets(store)}
    wanted = wanted.strip() or "dataset"
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted} ({number})"
    return name


def keep_upload(uploads_path: Path, file_name: str, stream: BinaryIO) -> Path:
    """Write an upload to disk under a safe name in a folder of its own; :func:`discard_upload` removes it.

    Raises:
        InputError: the disk is full, or the folder cannot be written.
    """
    permission.require("administer")
    _sweep(uploads_path)
    folder = uploads_path / uuid.uuid4().hex
    _kept.add(folder)
    path = folder / safe_name(file_name)
    try:
        folder.mkdir(parents=True)
        with path.open("wb") as file:
            shutil.copyfileobj(stream, file, 1024 * 1024)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise InputError(
            f"{safe_name(file_name)} could not be kept on the server: {error.strerror or error}."
        ) from error
    return path


def discard_upload(path: Path) -> None:
    """Remove an upload with its folder; nothing happens if it is gone."""
    permission.require("administer")
    shutil.rmtree(path.parent, ignore_errors=True)
    _kept.discard(path.parent)


def _sweep(uploads_path: Path) -> None:
    """Remove what a server before this one left, and what tabs left that were closed before they imported."""
    for folder in uploads_path.glob("*"):
        try:
            if folder not in _kept or time.time() - folder.stat().st_mtime > _STALE_UPLOAD_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
                _kept.discard(folder)
        except FileNotFoundError:
            continue  # another session swept it


def server_files(roots: Sequence[Path], *, limit: int = 500) -> list[Path]:
    """Files under the folders from which datasets may be loaded; hidden ones left out, at most ``limit``."""
    found: list[Path] = []
    for root in roots:
        for folder, names, files in os.walk(root):
            names[:] = sorted(name for name in names if not name.startswith("."))
            found.extend(Path(folder, name) for name in sorted(files) if not name.startswith("."))
            if len(found) >= limit:
                return found[:limit]
    return found
