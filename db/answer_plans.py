"""What answers can be generated from, how long earlier ones took, and the job folder of a trial."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Connection

import core
from core.answers_pace import PastAnswers
from core.errors import StoreError
from core.finetune.work import ADAPTER
from core.generation import Decoding, GeneratorSettings
from core.jobs.folder import JobFolder
from core.jobs.spec import JobSpec
from db import permission
from db.answer_items import items_in
from db.store import Store, frame, utc_now

TRIAL_ROWS = 4


def runs_with_adapters(store: Store, jobs_path: Path) -> list[dict[str, Any]]:
    """Finetune runs that kept their adapter, newest first.

    ``run_id, label, study_id, study, job_id, base, revision, template, device, loss_nats, n_rows, finished_at``;
    ``adapter`` the folder, and ``exists``: whether it is still there (a job's folder may have been removed).
    """
    with store.read() as connection:
        found = frame(
            connection,
            """select r.run_id, r.label, r.number, r.study_id, s.name study, c.job_id, c.loss_nats, r.n_rows,
                c.finished_at, c.details::varchar details
            from runs r join studies s on s.study_id = r.study_id join current_run_results c on c.run_id = r.run_id
            where c.outcome = 'done' and json_extract_string(c.details, '$.adapter') is not null
            order by c.finished_at desc, r.run_id desc""",
        ).to_pylist()
    return [_with_adapter(row, jobs_path) for row in found]


def _with_adapter(row: dict[str, Any], jobs_path: Path) -> dict[str, Any]:
    settings = json.loads(row.pop("details")).get("settings") or {}
    folder = JobFolder(jobs_path / row["job_id"]).run_path(row.pop("number")) / ADAPTER
    return {
        **row,
        **{name: settings.get(name) for name in ("base", "revision", "template", "device", "precision")},
        "adapter": str(folder),
        "exists": folder.is_dir(),
    }


def past_answers(store: Store, *, limit: int = 50) -> list[PastAnswers]:
    """What the latest generated answer sets took, newest first: what an estimate rests on."""
    with store.read() as connection:
        found = frame(
            connection,
            """select s.settings::varchar settings, count(*) n_answers, sum(a.n_tokens)::bigint n_tokens,
                sum(a.seconds) as seconds, count(*) filter (a.finish_reason = 'length') n_cut
            from answer_sets s join answers a on a.answer_set_id = s.answer_set_id
            where s.origin = 'generated' and a.n_tokens > 0 group by s.answer_set_id, s.settings::varchar
            order by s.answer_set_id desc limit $limit""",
            {"limit": limit},
        ).to_pylist()
    past = []
    for row in found:
        settings = json.loads(row["settings"])
        generator, decoding = settings.get("generator") or {}, settings.get("decoding") or {}
        past.append(
            PastAnswers(
                model=str(generator.get("model")),
                adapter=generator.get("adapter"),
                device=str(generator.get("device")),
                dtype=str(generator.get("dtype")),
                n_answers=row["n_answers"],
                n_tokens=row["n_tokens"],
                seconds=row["seconds"] or 0.0,
                n_cut=row["n_cut"],
                max_new_tokens=int(decoding.get("max_new_tokens") or 0),
            )
        )
    return past


def trial_rows(store: Store, dataset_id: int, *, n_rows: int = TRIAL_ROWS) -> pa.Table:
    """Questions of a test set to try a model on, taken evenly by their length.

    Raises:
        StoreError: the test set is empty.
    """
    with store.read() as connection:
        found = _by_length(connection, dataset_id)
    n = min(n_rows, found.num_rows)
    if not n:
        raise StoreError("The test set has no question to try the model on.")
    return found.take(pa.array([(2 * i + 1) * found.num_rows // (2 * n) for i in range(n)], pa.int64()))


def _by_length(connection: Connection, dataset_id: int) -> pa.Table:
    found = items_in(connection, dataset_id).rename_columns(["example_id", "instruction", "input"])
    lengths = pc.add(pc.utf8_length(found["instruction"]), pc.utf8_length(found["input"]))
    return found.take(pc.sort_indices(lengths))


def write_trial(rows: pa.Table, home: Path, *, settings: GeneratorSettings, decoding: Decoding) -> JobFolder:
    """Write the job folder of a trial under ``home``: one shard; nothing of it is collected.

    Raises:
        JobError: it cannot be written.
    """
    permission.require("administer")
    spec = JobSpec(
        job_id="trial",
        kind="answers",
        title="Trial",
        device="cpu" if settings.device == "cpu" else "cuda",
        n_rows=rows.num_rows,
        shard_rows=rows.num_rows,
        params={
            "generator": settings.to_params(),
            "decoding": decoding.to_params(),
            "answer_set_id": None,
            "dataset_id": None,
        },
        created_at=utc_now().isoformat(),
        assay_version=core.__version__,
    )
    return JobFolder.create(home / spec.job_id, spec, rows)
