"""Write a curated set to the exports folder: the rows that were counted, a manifest beside them, a record of both."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from core.errors import StoreError
from core.example import Example
from core.export import ExportResult, ExportRow, export_format, manifest, manifest_path, write_export, write_manifest
from core.filters import ExportChoice
from db import commands, review
from db.store import Store, utc_now

_BATCH_ROWS = 2_000


class CuratedSetChangedError(StoreError):
    """Between counting and exporting somebody decided something. Nothing was written."""


@dataclass(frozen=True)
class Exported:
    """An export that was written and recorded."""

    export_id: int
    result: ExportResult
    counts: review.CuratedCounts
    manifest: Path


def file_name(dataset: str, *, format: str, moment: datetime) -> str:
    """A name from the dataset's, safe on every system: ``sample-rows-alpaca-20261120-121500.json``."""
    slug = re.sub(r"[^a-z0-9]+", "-", dataset.lower()).strip("-")[:40].strip("-") or "dataset"
    return f"{slug}-{format}-{moment:%Y%m%d-%H%M%S}{export_format(format).extension}"


def _free(path: Path) -> Path:
    """``path``, or the first of ``name-2``, ``name-3``, … that does not exist: an export never replaces another."""
    candidate, number = path, 1
    while candidate.exists() or manifest_path(candidate).exists():
        number += 1
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return candidate


def _export_rows(table: pa.Table, on_rows: Callable[[int], None] | None) -> Iterator[ExportRow]:
    done = 0
    for batch in table.to_batches(max_chunksize=_BATCH_ROWS):
        for row in batch.to_pylist():
            yield ExportRow(
                example=Example(row["instruction"], row["input"], row["output"]),
                metadata=row["metadata"],
                verdict=row["verdict"] or row["state"],
                source=row["kept"],
            )
        done += batch.num_rows
        if on_rows is not None:
            on_rows(done)


def export_curated(
    store: Store,
    folder: Path,
    *,
    dataset_id: int,
    dataset: str,
    choice: ExportChoice,
    format: str,
    expected: str,
    exported_by: str | None,
    on_rows: Callable[[int], None] | None = None,
) -> Exported:
    """Write the curated set of a dataset if it is still the one that was shown.

    ``expected`` is the mark of the :class:`db.review.CuratedCounts` on the page. Counts and rows are read in one
    snapshot. ``on_rows`` is told how many rows have been written.

    Raises:
        CuratedSetChangedError: a decision came or went since; nothing is written.
        StoreError: there is no row to write, or the file cannot be written.
    """
    counts, table = review.curated_table(store, dataset_id, choice)
    if counts.mark != expected:
        raise CuratedSetChangedError(
            "Decisions changed since the page counted, so nothing was written. The page shows the counts as they are "
            "now; export again if they are what you want."
        )
    if not table.num_rows:
        raise StoreError("With this choice every row is left out, so there is nothing to export.")
    moment = utc_now()
    folder.mkdir(parents=True, exist_ok=True)
    path = _free(folder / file_name(dataset, format=format, moment=moment))
    result = write_export(_export_rows(table, on_rows), format=format, path=path)
    content: dict[str, Any] = {
        **manifest(
            result,
            dataset=dataset,
            choices=asdict(choice),
            scorers=review.scorers_of_pairs(store, dataset_id),
            created_at=moment.isoformat(timespec="seconds"),
            created_by=exported_by,
        ),
        "members": [dict(row) for row in counts.counts],
    }
    write_manifest(content, manifest_path(path))
    export_id = commands.record_export(
        store,
        dataset_id=dataset_id,
        file_name=path.name,
        sha256=result.sha256,
        manifest=content,
        exported_by=exported_by,
    )
    return Exported(export_id, result, counts, manifest_path(path))
