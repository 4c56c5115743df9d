"""Write a curated set to the exports folder: the rows that were counted, a manifest beside them, a record of both.

The manifest names the state it was read in (core/moment.py), so the same file can be written again at any time.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from sqlalchemy import Connection

from core.errors import StoreError
from core.example import Example
from core.export import ExportResult, ExportRow, export_format, manifest, manifest_path, write_export, write_manifest
from core.filters import ExportChoice
from core.moment import Moment
from core.reviewer_agreement import Agreement
from db import commands, curated, past, permission
from db.agreement import agreement_of
from db.store import Store, utc_now

MANIFEST_FORMAT = 2
"""1 (never written as a number) had no state; 2 has ``state``, ``review``, ``members_digest`` and ``software``."""
_BATCH_ROWS = 2_000


class CuratedSetChangedError(StoreError):
    """Between counting and exporting somebody decided something. Nothing was written."""


@dataclass(frozen=True)
class Exported:
    """An export that was written and recorded.

    ``same``  for an export that was made again: whether its bytes are those of the first; ``differs`` says why not
    """

    export_id: int
    result: ExportResult
    counts: curated.CuratedCounts
    manifest: Path
    same: bool | None = None
    differs: str | None = None


@dataclass(frozen=True)
class Recorded:
    """What an earlier export was made of. ``guessed``: it names no state, so that of its time is the likeliest."""

    export_id: int
    dataset_id: int
    dataset: str
    file_name: str
    format: str
    sha256: str
    choice: ExportChoice
    moment: Moment
    guessed: bool
    manifest: Mapping[str, Any]


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


def rules_digest() -> str:
    """A digest of the rules by which decisions make a curated set: another one may give other rows."""
    said = "\n".join((*past.view_texts().values(), curated.RESOLVED))
    return hashlib.sha256(" ".join(said.split()).encode()).hexdigest()[:16]


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
    moment: Moment | None = None,
    on_rows: Callable[[int], None] | None = None,
) -> Exported:
    """Write the curated set of a dataset if it is still the one that was shown.

    ``expected`` is the mark of the :class:`db.curated.CuratedCounts` on the page. Counts and rows are read in one
    snapshot, as of ``moment``; without one, as of now. ``on_rows`` is told how many rows have been written.

    Raises:
        CuratedSetChangedError: a decision came or went since; nothing is written.
        NotAllowedError: whoever acts may not export.
        StoreError: there is no row to write, or the file cannot be written.
    """
    return _export(
        store, folder, dataset_id=dataset_id, dataset=dataset, choice=choice, format=format, expected=expected,
        exported_by=exported_by, moment=moment, on_rows=on_rows, first=None,
    )  # fmt: skip


def export_again(
    store: Store,
    folder: Path,
    *,
    export_id: int,
    exported_by: str | None,
    on_rows: Callable[[int], None] | None = None,
) -> Exported:
    """Write an earlier export once more, from the store as it was then; never from the earlier file.

    ``same`` of the result says whether the bytes are equal. They are, unless ``differs`` names what kept them apart.

    Raises:
        NotAllowedError: whoever acts may not export.
        StoreError: there is no such export, or its dataset was removed; nothing is written.
    """
    first = recorded(store, export_id)
    return _export(
        store, folder, dataset_id=first.dataset_id, dataset=first.dataset, choice=first.choice, format=first.format,
        expected=None, exported_by=exported_by, moment=first.moment, on_rows=on_rows, first=first,
    )  # fmt: skip


def recorded(store: Store, export_id: int) -> Recorded:
    """What an earlier export was made of.

    Raises:
        StoreError: there is no such export, or its dataset was removed.
        InputError: its manifest names a state in a form of a later version.
    """
    row = curated.export_record(store, export_id)
    said = row["manifest"]
    if row["dataset"] is None:
        raise StoreError(
            f"The dataset of {row['file_name']} was removed, and its list of rows with it, so the file cannot be "
            "written again. The file itself may still be in the exports folder."
        )
    guessed = "state" not in said
    return Recorded(
        export_id=export_id,
        dataset_id=int(row["dataset_id"]),
        dataset=str(row["dataset"]),
        file_name=str(row["file_name"]),
        format=str(said["file"]["format"]),
        sha256=str(row["sha256"]),
        choice=ExportChoice(**said["choices"]),
        moment=past.at_time(store, row["exported_at"]) if guessed else Moment.from_json(said["state"]),
        guessed=guessed,
        manifest=said,
    )


def _export(
    store: Store,
    folder: Path,
    *,
    dataset_id: int,
    dataset: str,
    choice: ExportChoice,
    format: str,
    expected: str | None,
    exported_by: str | None,
    moment: Moment | None,
    on_rows: Callable[[int], None] | None,
    first: Recorded | None,
) -> Exported:
    permission.require("administer")
    with store.read() as connection:
        state = moment or past.moment_of(connection)
        counts = curated.counted(connection, dataset_id, choice, moment=state)
        if expected is not None and counts.mark != expected:
            raise CuratedSetChangedError(
                "Decisions changed since the page counted, so nothing was written. The page shows the counts as they "
                "are now; export again if they are what you want."
            )
        if not counts.n_kept:
            raise StoreError("With this choice every row is left out, so there is nothing to export.")
        table = curated.chosen_rows(connection, dataset_id, choice, moment=state)
        about = _about(connection, dataset_id, state)
    made_at = utc_now()
    folder.mkdir(parents=True, exist_ok=True)
    path = _free(folder / file_name(dataset, format=format, moment=made_at))
    result = write_export(_export_rows(table, on_rows), format=format, path=path)
    same = None if first is None else result.sha256 == first.sha256
    differs = None if first is None or same else _why_different(first, about)
    content: dict[str, Any] = {
        "manifest_format": MANIFEST_FORMAT,
        **manifest(
            result,
            dataset=dataset,
            choices=asdict(choice),
            scorers=curated.scorers_of_pairs(store, dataset_id, moment=state),
            created_at=made_at.isoformat(timespec="seconds"),
            created_by=exported_by,
        ),
        "members": [dict(row) for row in counts.counts],
        **about,
    }
    if first is not None:
        content["again"] = {
            "export_id": first.export_id, "file": first.file_name, "sha256": first.sha256, "same_bytes": same,
            "differs": differs,
        }  # fmt: skip
    write_manifest(content, manifest_path(path))
    export_id = commands.record_export(
        store,
        dataset_id=dataset_id,
        file_name=path.name,
        sha256=result.sha256,
        manifest=content,
        exported_by=exported_by,
    )
    return Exported(export_id, result, counts, manifest_path(path), same, differs)


def _about(connection: Connection, dataset_id: int, state: Moment) -> dict[str, Any]:
    """What the manifest says of the state, of who reviewed, and of what wrote the file."""
    found = agreement_of(connection, dataset_id=dataset_id, moment=state)
    return {
        "state": state.to_json(),
        "members_digest": curated.members_digest(connection, dataset_id),
        "software": {"rules": rules_digest(), "duckdb": duckdb.__version__, "pyarrow": pa.__version__},
        "review": {
            "reviewers": curated.reviewers_of(connection, dataset_id, moment=state),
            "campaigns": past.campaigns_of(connection, state, dataset_id),
            "agreement": agreement_record(found),
        },
    }


def agreement_record(found: Agreement) -> dict[str, Any]:
    """Agreement as it stands in a manifest: every figure with its n, None with its reason."""
    return {
        "coding": found.coding,
        "n_pairs": found.n_pairs,
        "n_pairs_by_two_or_more": found.n_shared,
        "n_unanimous": found.n_unanimous,
        "n_adjudicated": found.n_adjudicated,
        "n_open": found.n_open,
        "krippendorff_alpha": asdict(found.alpha),
        "cohen_kappa": [{"reviewers": list(pair), **asdict(kappa)} for pair, kappa in found.pairwise.items()],
    }


def _why_different(first: Recorded, about: Mapping[str, Any]) -> str:
    """The likeliest cause of other bytes, in a sentence."""
    before, after = first.manifest.get("software", {}), about["software"]
    if first.guessed:
        return (
            "That export was written by an older version, which did not record the state it read. This one is of the "
            "likeliest state, that of the same second."
        )
    if first.manifest.get("members_digest") != about["members_digest"]:
        return "The rows of the dataset itself were changed since (references were added), which no state records."
    if before.get("rules") != after["rules"]:
        return "This version has other rules of which decision stands than the one that wrote the first file."
    if first.format == "parquet" and before.get("pyarrow") != after["pyarrow"]:
        return (
            f"Parquet is equal only as long as pyarrow is: {before.get('pyarrow')} wrote the first file, "
            f"{after['pyarrow']} this one. The rows are the same where dataset_digest is."
        )
    if not first.moment.exact:
        return "The first export was of a past time before states were recorded exactly."
    return "The cause is not known. Compare dataset_digest in the two manifests: equal means the same rows."
