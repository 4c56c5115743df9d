"""Submit the runs of a study as jobs: which rows each trains on, their texts, and the rows that are evaluated on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from sqlalchemy import Connection, text

from core.errors import JobError, StoreError
from core.finetune.settings import FinetuneSettings
from core.jobs.folder import JobFolder
from core.jobs.status import RESUMABLE
from core.models import resolve_revision
from db import jobs
from db.evaluation import HAS_OUTPUT
from db.store import Store, frame

_BATCH_ROWS = 8192
_TEXTS = [("example_id", pa.int64()), *((name, pa.string()) for name in ("instruction", "input", "output"))]
TEXTS_SCHEMA = pa.schema(_TEXTS)
_EVALUATED = f"""select e.example_id, e.instruction, e.input, e.output from (
    select example_id, min(position) place from members where dataset_id = $id group by example_id
) m join examples e on e.example_id = m.example_id where {HAS_OUTPUT}"""
MEMBERS_SCHEMA = pa.schema([(name, pa.int64()) for name in ("run_id", "position", "example_id")])


def submit_study(
    store: Store,
    jobs_path: Path,
    *,
    study_id: int,
    parts: int = 1,
    created_by: str | None = None,
    priority: int = 0,
) -> list[JobFolder]:
    """Write the folders of jobs that do the runs of a study which are not done yet, and record them.

    The runs are shared out to ``parts`` jobs (one a GPU) in turn, fewer where there is not enough to do. A run that
    failed or diverged is done again: its latest result counts. The base model's revision is resolved first and kept
    with the study, so that jobs submitted later train the same base.

    Raises:
        StoreError: the study or its evaluation set is gone, no evaluation row has an output, every run is done, a job
            of the study has not ended yet, or the evaluation set is another than that of the runs that are done.
        ModelError: the base model can be found neither as a folder nor on the hub, or is another one than before.
    """
    study, pending = _checked(store, jobs_path, study_id)
    settings = FinetuneSettings.from_params(json.loads(study["settings"]))
    settings = dataclasses.replace(settings, revision=resolve_revision(settings.base, settings.revision))
    pin(store, study_id, settings)
    shares = [pending.take(list(range(first, pending.num_rows, max(1, parts)))) for first in range(max(1, parts))]
    shares = [share for share in shares if share.num_rows]
    found = []
    for number, share in enumerate(shares):
        part = "" if len(shares) == 1 else f" (part {number + 1} of {len(shares)})"
        run_ids = share["example_id"].to_pylist()
        with store.read() as connection:
            found.append(
                jobs.submit(
                    store,
                    jobs_path,
                    share,
                    kind="study",
                    title=f"{study['name']}{part}",
                    n_rows=share.num_rows,
                    device=settings.device,
                    shard_rows=1,
                    params={
                        "study_id": study_id,
                        "dataset_id": study["evaluation_id"],
                        "settings": settings.to_params(),
                    },
                    created_by=created_by,
                    priority=priority,
                    tables={
                        "members": members_of_runs(connection, run_ids),
                        "texts": texts_of_runs(connection, run_ids),
                        "evaluation": evaluation_texts(connection, study["evaluation_id"]),
                    },
                )
            )
    return found


def _checked(store: Store, jobs_path: Path, study_id: int) -> tuple[dict[str, Any], pa.Table]:
    """The study and its runs that are left to do; raises what :func:`submit_study` says."""
    with store.read() as connection:
        study = _study(connection, study_id)
        pending = _pending(connection, study_id)
        folders = [jobs_path / one for one in _job_ids(connection, study_id)]
        outputs = _outputs(connection, study["evaluation_id"])
        before = _evaluated_before(connection, study_id)
    name = repr(study["name"])
    if not pending.num_rows:
        raise StoreError("Every run of this study is done. There is nothing to do.")
    if not outputs:
        raise StoreError(
            f"The evaluation set of {name} is gone, or no row of it has an output to compute a loss of. Give it "
            "reference outputs on the Evaluation sets page."
        )
    if before is not None and outputs != before:
        raise StoreError(
            f"The evaluation set of {name} is not what its first runs were evaluated on, so further losses could not "
            "be compared with theirs. Plan another study."
        )
    if any(_is_active(folder) for folder in folders):
        raise StoreError(f"A job of {name} has not ended yet. Wait for it, or cancel it first.")
    return study, pending


def _study(connection: Connection, study_id: int) -> dict[str, Any]:
    found: list[dict[str, Any]] = frame(
        connection,
        "select name, kind, evaluation_id, settings::varchar settings from studies where study_id = $id",
        {"id": study_id},
    ).to_pylist()
    if not found:
        raise StoreError(f"There is no study {study_id} any more. Choose another on the Studies page.")
    if found[0]["kind"] == "search":
        raise StoreError(f"{found[0]['name']!r} is a search: resume its job instead.")
    return found[0]


def _pending(connection: Connection, study_id: int) -> pa.Table:
    """Runs without a result ``done``, by number; their id is called ``example_id``, as in the input of a job."""
    table = frame(
        connection,
        """select r.run_id example_id, r.number, r.label, r.role, r.n_rows, r.seed, r.dataset_id, d.name dataset
        from runs r left join current_run_results c on c.run_id = r.run_id
        left join datasets d on d.dataset_id = r.dataset_id
        where r.study_id = $id and c.outcome is distinct from 'done' order by r.number""",
        {"id": study_id},
    )
    for row in table.select(["label", "dataset_id", "dataset"]).to_pylist():
        if row["dataset_id"] is not None and row["dataset"] is None:
            raise StoreError(f"The dataset of the run {row['label']!r} is gone. Plan the study again.")
    return table.drop_columns(["dataset_id", "dataset"])


def _job_ids(connection: Connection, study_id: int) -> list[str]:
    found = frame(connection, "select job_id from study_jobs where study_id = $id", {"id": study_id})
    return [str(one) for one in found["job_id"].to_pylist()]


def _is_active(path: Path) -> bool:
    try:
        state = JobFolder(path).status().state if path.is_dir() else "done"
    except JobError:  # a damaged folder does nothing
        return False
    return state != "done" and state not in RESUMABLE


def _outputs(connection: Connection, evaluation_id: int) -> list[int]:
    found = frame(connection, f"select example_id from ({_EVALUATED}) order by example_id", {"id": evaluation_id})
    return [int(one) for one in found["example_id"].to_pylist()]


def _evaluated_before(connection: Connection, study_id: int) -> list[int] | None:
    """The outputs that the first run of the study that is done was evaluated on; None where none is."""
    found = frame(
        connection,
        """select l.example_id from run_losses l where l.result_id = (
            select min(c.result_id) from current_run_results c join runs r on r.run_id = c.run_id
            where r.study_id = $id and c.outcome = 'done') order by l.example_id""",
        {"id": study_id},
    )
    return [int(one) for one in found["example_id"].to_pylist()] or None


def pin(store: Store, study_id: int, settings: FinetuneSettings) -> None:
    """Keep the settings of a study with the revision that was resolved."""
    with store.write() as connection:
        connection.execute(
            text("update studies set settings = :settings where study_id = :id"),
            {"settings": json.dumps(settings.to_params(), sort_keys=True), "id": study_id},
        )


def evaluation_size(connection: Connection, evaluation_id: int) -> int:
    """Distinct outputs of an evaluation set: what a run's loss is a mean over."""
    found = frame(connection, f"select count(*) n from ({_EVALUATED})", {"id": evaluation_id})
    return int(found["n"][0].as_py())


def evaluation_texts(connection: Connection, evaluation_id: int) -> pa.RecordBatchReader:
    """The table ``evaluation`` of a job: distinct members that have an output, in order."""
    return _streamed(connection, f"{_EVALUATED} order by m.place", {"id": evaluation_id}, TEXTS_SCHEMA)


def members_of_runs(connection: Connection, run_ids: Sequence[int]) -> pa.RecordBatchReader:
    """The table ``members`` of a job: ``run_id, position, example_id`` by run and position."""
    return _streamed(
        connection,
        """select r.run_id, m.position, m.example_id from runs r join members m on m.dataset_id = r.dataset_id
        where list_contains($ids, r.run_id) order by r.run_id, m.position""",
        {"ids": list(run_ids)},
        MEMBERS_SCHEMA,
    )


def texts_of_runs(connection: Connection, run_ids: Sequence[int]) -> pa.RecordBatchReader:
    """The table ``texts`` of a job: the distinct rows that its runs train on, by id."""
    return _streamed(
        connection,
        """select e.example_id, e.instruction, e.input, e.output from examples e where e.example_id in (
            select m.example_id from runs r join members m on m.dataset_id = r.dataset_id
            where list_contains($ids, r.run_id)) order by e.example_id""",
        {"ids": list(run_ids)},
        TEXTS_SCHEMA,
    )


def texts_of(connection: Connection, example_ids: Sequence[int]) -> pa.RecordBatchReader:
    """The table ``texts`` of a job over these examples, each once, by id."""
    return _streamed(
        connection,
        """select e.example_id, e.instruction, e.input, e.output from examples e
        where e.example_id in (select unnest($ids)) order by e.example_id""",
        {"ids": list(example_ids)},
        TEXTS_SCHEMA,
    )


def _streamed(
    connection: Connection, sql: str, parameters: Mapping[str, Any], schema: pa.Schema
) -> pa.RecordBatchReader:
    """The rows of a query in batches. It runs when the first batch is asked for, so that one reader follows another."""

    def batches() -> Iterator[pa.RecordBatch]:
        raw = connection.connection.driver_connection
        assert raw is not None
        for batch in raw.sql(sql, params=dict(parameters)).to_arrow_reader(_BATCH_ROWS):
            yield pa.RecordBatch.from_arrays(
                [batch.column(field.name).cast(field.type) for field in schema], schema=schema
            )

    return pa.RecordBatchReader.from_batches(schema, batches())
