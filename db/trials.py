"""The job folder of a quick trial over a few of the rows that a plan leaves to score; nothing of it is collected."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

import core
from core import scoring
from core.errors import StoreError
from core.jobs.folder import JobFolder
from core.jobs.spec import JobSpec
from core.trial import TRIAL_ROWS
from db import permission, to_score
from db.jobs import ScorePlan
from db.store import Store, frame, registered, utc_now


@dataclass(frozen=True)
class TrialRows:
    """Rows of a trial as a job's input, and those among which it looks for neighbours where that is asked."""

    input: pa.Table
    base: pa.Table | None


def trial_rows(store: Store, *, dataset_id: int, plan: ScorePlan, n_rows: int = TRIAL_ROWS) -> TrialRows:
    """Take rows evenly by the length of their texts from those that are left to score, each with what it lacks.

    So they cost what all cost: rows taken at random, or by position, miss the few long ones that take half of the time.

    Raises:
        StoreError: nothing is left to score.
    """
    embedder = plan.models.embedder
    with store.read() as connection:
        embedding = None
        if embedder is not None:
            identity = scoring.embedding_identity(embedder, plan.revisions["embedder"])
            embedding = to_score.known_scorers(connection, [identity]).get(scoring.EMBEDDING_OUTPUT)
        scorers = to_score.known_scorers(connection, plan.identities)
        asked = to_score.asked_of(plan.indicators, scorers=scorers, embedding=embedding)
        left = to_score.left_rows(connection, asked, dataset_id=dataset_id)
        n = min(n_rows, left.num_rows)
        if not n:
            raise StoreError(
                "Every row of this dataset is scored by these indicators already. There is nothing to try."
            )
        numbered = left.select(["example_id"]).append_column("i", pa.array(range(left.num_rows), pa.int64()))
        with registered(connection, "left_rows", numbered):
            by_length = frame(
                connection,
                """select row_number() over (order by length(e.instruction) + length(e.input) + length(e.output),
                    e.example_id) - 1 place, l.i from left_rows l
                join examples e on e.example_id = l.example_id qualify list_contains($places, place)""",
                {"places": [(2 * i + 1) * left.num_rows // (2 * n) for i in range(n)]},
            )
        sample = left.take(by_length["i"])
        table = to_score.with_texts(connection, sample).read_all()
        base = None
        if asked.distances:
            base = frame(
                connection,
                """select w.example_id, 1::bigint n_copies, v.vector::float[] vector
                from (select distinct unnest($ids) example_id) w
                left join embeddings v on v.example_id = w.example_id and v.scorer_id = $scorer
                order by w.example_id""",
                {"ids": sample["example_id"].to_pylist(), "scorer": -1 if embedding is None else embedding},
            )
    return TrialRows(table, base)


def write_trial(rows: TrialRows, home: Path, *, plan: ScorePlan) -> JobFolder:
    """Write the job folder of a trial under ``home``: one shard, the plan's indicators and models.

    Raises:
        JobError: it cannot be written.
    """
    permission.require("administer")
    spec = JobSpec(
        job_id="trial",
        kind="score",
        title="Trial",
        device=plan.models.device,
        n_rows=rows.input.num_rows,
        shard_rows=rows.input.num_rows,
        params={
            "indicators": list(plan.indicators),
            "models": plan.models.to_params(),
            "revisions": dict(plan.revisions),
            "scorers": {},
            "dataset_id": None,
            "embedding_scorer": None,
        },
        created_at=utc_now().isoformat(),
        assay_version=core.__version__,
    )
    base = rows.base.to_reader() if rows.base is not None else None
    return JobFolder.create(home / spec.job_id, spec, rows.input, base=base)
