"""Searches over the size of a selection: a study of kind ``search`` whose runs are trials, sized while it runs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from core.errors import AssayError, InputError, StoreError
from core.finetune.settings import FinetuneSettings
from core.jobs.folder import JobFolder
from core.models import resolve_revision
from core.search import check_bounds
from core.studies import PlannedRun
from db import jobs, studies, study_submit
from db.store import Store, frame

if TYPE_CHECKING:
    from core.rules import Rule

MOST_TRIALS = 100
"""Trials that a search has at most; one whose budget is in hours is planned with so many."""


def submit_search(
    store: Store,
    jobs_path: Path,
    *,
    name: str,
    ranking: Sequence[int],
    evaluation_id: int,
    settings: FinetuneSettings,
    lowest: int,
    highest: int,
    n_trials: int,
    hours: float | None,
    seed: int,
    rule: Rule | None,
    dataset_id: int,
    created_by: str | None = None,
) -> tuple[int, JobFolder]:
    """Record a search and write the folder of its job. Returns the id of its study, and the folder.

    ``ranking`` are example ids, best first: trial sizes are prefixes of it. All trials have the training seed ``seed``,
    so that they differ in their rows alone. ``hours`` None: as many trials as ``n_trials`` says.

    Raises:
        InputError: bounds, number of trials or hours make no sense, or the ranking is shorter than ``highest``.
        StoreError: the name is empty or taken, or the evaluation set is gone or has no output.
        ModelError: the base model can be found neither as a folder nor on the hub.
    """
    ids = [int(one) for one in ranking]
    check_bounds(lowest, highest, seed)
    if len(set(ids)) != len(ids) or highest > len(ids):
        raise InputError(
            f"The ranking has {len(set(ids)):,} distinct rows, so no selection of {highest:,} can be tried. "
            "Choose a lower highest size, or loosen the constraints."
        )
    if not 1 <= n_trials <= MOST_TRIALS:
        raise InputError(f"A search has from 1 to {MOST_TRIALS} trials, not {n_trials}.")
    if hours is not None and not hours > 0:
        raise InputError(f"A budget of {hours:g} hours leaves no time for a trial; give more than 0.")
    settings = dataclasses.replace(settings, revision=resolve_revision(settings.base, settings.revision))
    with store.read() as connection:
        if not study_submit.evaluation_size(connection, evaluation_id):
            raise StoreError(
                "The evaluation set is gone, or no row of it has an output to compute a loss of. Give it reference "
                "outputs on the Evaluation sets page, or choose another."
            )
    asked = {"lowest": lowest, "highest": highest, "hours": hours, "seed": seed}
    study_id = studies.create_study(
        store,
        name=name,
        kind="search",
        evaluation_id=evaluation_id,
        settings=settings,
        runs=[PlannedRun(f"trial {i}", "trial", (), seed, {"number": i}) for i in range(1, n_trials + 1)],
        design={
            **asked,
            "n_trials": n_trials,
            "dataset_id": dataset_id,
            "rule": None if rule is None else json.loads(rule.to_json()),
        },
        include_base=False,
        created_by=created_by,
    )
    try:
        folder = _submit(store, jobs_path, study_id, ids[:highest], asked=asked, created_by=created_by)
    except AssayError:
        studies.remove_study(store, study_id)
        raise
    return study_id, folder


def _submit(
    store: Store, jobs_path: Path, study_id: int, ids: Sequence[int], *, asked: dict[str, Any], created_by: str | None
) -> JobFolder:
    study = studies.study(store, study_id)
    members = pa.table(
        {
            "run_id": pa.array([0] * len(ids), pa.int64()),
            "position": pa.array(range(len(ids)), pa.int64()),
            "example_id": pa.array(ids, pa.int64()),
        }
    )
    with store.read() as connection:
        runs = frame(
            connection,
            """select run_id example_id, number, label, role, n_rows, seed from runs where study_id = $id
            order by number""",
            {"id": study_id},
        )
        return jobs.submit(
            store,
            jobs_path,
            runs,
            kind="search",
            title=study["name"],
            n_rows=runs.num_rows,
            device=study["settings"]["device"],
            shard_rows=1,
            params={
                "study_id": study_id,
                "dataset_id": study["evaluation_id"],
                "settings": study["settings"],
                **asked,
            },
            created_by=created_by,
            priority=0,
            tables={
                "members": members,
                "texts": study_submit.texts_of(connection, ids),
                "evaluation": study_submit.evaluation_texts(connection, study["evaluation_id"]),
            },
        )


def trials(store: Store, study_id: int) -> list[dict[str, Any]]:
    """The trials of a search by number, as many as were planned.

    ``run_id, number`` (from 1), ``outcome, reason, loss_nats, seconds, n_rows`` (None while there is no result; a trial
    that was skipped never gets one) and ``same_as``: the trial of the same size whose result it has.
    """
    found = []
    for row in studies.runs(store, [study_id]):
        result = row["result"]
        found.append(
            {
                "run_id": row["run_id"],
                "number": row["details"].get("number", row["number"] + 1),
                "n_rows": result.get("n_rows"),
                "loss_nats": row["loss_nats"],
                "outcome": row["outcome"],
                "reason": row["reason"],
                "seconds": row["seconds"],
                "same_as": result.get("same_as"),
            }
        )
    return found


def searches_of(store: Store, dataset_id: int) -> list[dict[str, Any]]:
    """The searches over rankings of this dataset as ``db.studies.studies`` lists them, newest first."""
    return [
        study
        for study in studies.studies(store)
        if study["kind"] == "search" and study["design"].get("dataset_id") == dataset_id
    ]


def mean_characters(store: Store, example_ids: Sequence[int]) -> float:
    """Characters of a row on average, instruction, input and response together; 0 where there is no row."""
    with store.read() as connection:
        found = frame(
            connection,
            """select coalesce(avg(length(instruction) + length(input) + length(output)), 0) n from examples
            where example_id in (select unnest($ids))""",
            {"ids": [int(one) for one in example_ids]},
        )
    return float(found["n"][0].as_py())
