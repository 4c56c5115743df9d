"""Submit jobs and read what the store knows of them. What they produced is taken in by db/collecting.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from sqlalchemy import Connection, text

from core import score_job, scoring
from core.batch_ledger import refuse_unread
from core.errors import StoreError
from core.indicators import roles_needed
from core.jobs.folder import JobFolder
from core.jobs.spec import JobSpec
from core.reflection_calls import carry_answers
from core.scoring import Models, ScorerIdentity
from db import commands, permission, to_score
from db.job_records import STUDY_KINDS as STUDY_KINDS
from db.job_records import collected_shards as collected_shards
from db.job_records import is_settled as is_settled
from db.job_records import new_job_id as new_job_id
from db.job_records import record_job as record_job
from db.job_records import record_missing as record_missing
from db.job_records import submit as submit
from db.reflect_jobs import rows_again
from db.reflect_jobs import rows_for_again as rows_for_again
from db.reflect_jobs import submit_reflect as submit_reflect
from db.reflect_jobs import submit_rest as submit_rest
from db.store import Store, rows, scalar, utc_now

ROW_KINDS = ("score", "reflect")
"""Kinds of jobs whose failed rows can be done again by a job of their own."""

_NO_RETRY = {
    "study": "A study has no failed rows: start the study's unfinished runs again on the Studies page.",
    "search": "A search has no failed rows: resume it, or start another one on the Select page.",
    "references": "What is still without a reference is asked for again on the Evaluation sets page.",
    "answers": "Questions without an answer are answered again on the Answers page.",
    "judge": "Verdicts that could not be read are asked for again on the Compare page.",
    "lm_eval": "Resume the job, or start another one on the Compare page.",
}


@dataclass(frozen=True)
class ScorePlan:
    """What a score job would do: distinct rows of the dataset, and how many of them are done, per output key.

    ``models`` are those that the indicators need, with their ``revisions``; ``n_characters`` is the length of all texts
    of the rows that are left to score.
    """

    indicators: tuple[str, ...]
    models: Models
    revisions: Mapping[str, str]
    identities: tuple[ScorerIdentity, ...]
    n_rows: int
    n_to_score: int
    done: Mapping[str, int]
    n_characters: int = 0


def plan_score(store: Store, *, dataset_id: int, indicators: Sequence[str], models: Models) -> ScorePlan:
    """Look what is scored already (content-addressed: in whatever dataset it was scored) and what is left.

    Raises:
        ModelError: a model can be found neither as a folder nor on the hub.
        SettingsError: an indicator is unknown, or needs a model and none is named.
    """
    models = models.only(roles_needed(indicators))
    scoring.check_models(indicators, models)
    revisions = scoring.resolve_revisions(models)
    with store.read() as connection:
        digest = to_score.dataset_digest(connection, dataset_id) if models.embedder is not None else None
        identities = tuple(scoring.scorer_identities(indicators, models, revisions, dataset=digest))
        asked = _asked(connection, indicators, models, revisions, identities)
        left = to_score.size(connection, asked, dataset_id=dataset_id)
        n_rows = to_score.n_distinct(connection, dataset_id)
        counts = to_score.scored_counts(connection, dataset_id=dataset_id, scorers=asked.scorers)
    return ScorePlan(
        indicators=tuple(indicators),
        models=models,
        revisions=revisions,
        identities=identities,
        n_rows=n_rows,
        n_to_score=left["n_rows"],
        done={identity.output: counts.get(identity.output, 0) for identity in identities},
        n_characters=left["n_characters"],
    )


def _asked(
    connection: Connection,
    indicators: Sequence[str],
    models: Models,
    revisions: Mapping[str, str],
    identities: Sequence[ScorerIdentity],
) -> to_score.Asked:
    embedding = None
    if models.embedder is not None:
        identity = scoring.embedding_identity(models.embedder, revisions["embedder"])
        embedding = to_score.known_scorers(connection, [identity]).get(scoring.EMBEDDING_OUTPUT)
    scorers = to_score.known_scorers(connection, identities)
    return to_score.asked_of(indicators, scorers=scorers, embedding=embedding)


def submit_score(
    store: Store,
    jobs_path: Path,
    *,
    dataset_id: int,
    plan: ScorePlan,
    title: str,
    created_by: str | None = None,
    priority: int = 0,
    parts: int = 1,
) -> list[JobFolder]:
    """Write the folders of score jobs over what is not scored yet, and record them.

    The rows are shared out to ``parts`` jobs (one a GPU), fewer where there is not enough to do; kNN distances, which
    need the whole dataset, are all in the first of them. Of every row only what it lacks is scored.

    Raises:
        StoreError: every row is scored already.
    """
    embedder = plan.models.embedder
    with store.write() as connection:
        scorer_ids = commands.ensure_scorers(connection, plan.identities)
        embedding = None
        if embedder is not None:
            identity = scoring.embedding_identity(embedder, plan.revisions["embedder"])
            embedding = commands.ensure_scorers(connection, [identity])[identity.output]
    asked = to_score.asked_of(plan.indicators, scorers=scorer_ids, embedding=embedding)
    folders = []
    with store.read() as connection:
        left = to_score.left_rows(connection, asked, dataset_id=dataset_id)
        if not left.num_rows:
            raise StoreError("Every row of this dataset is scored by these indicators already. There is nothing to do.")
        shares = to_score.parted(left, asked, parts=parts)
        for number, share in enumerate(shares):
            near = bool(asked.distances) and number == 0
            indicators = [key for key in plan.indicators if near or key not in asked.distances]
            models = plan.models.only(roles_needed(indicators))
            folders.append(
                submit(
                    store,
                    jobs_path,
                    to_score.with_texts(connection, share),
                    kind="score",
                    title=title if len(shares) == 1 else f"{title} (part {number + 1} of {len(shares)})",
                    n_rows=share.num_rows,
                    device=models.device,
                    shard_rows=score_job.SHARD_ROWS[models.device],
                    params={
                        "indicators": indicators,
                        "models": models.to_params(),
                        "revisions": {role: plan.revisions[role] for role in roles_needed(indicators)},
                        "scorers": scorer_ids,
                        "dataset_id": dataset_id,
                        "embedding_scorer": embedding if near else None,
                    },
                    created_by=created_by,
                    priority=priority,
                    base=to_score.base_of(connection, dataset_id=dataset_id, embedding=embedding) if near else None,
                )
            )
    return folders


def submit_retry(
    store: Store, jobs_path: Path, *, job_id: str, created_by: str | None = None, reason: str | None = None
) -> JobFolder:
    """A new job over the failed rows of ``job_id`` only (those of one ``reason``, if given), with the same settings.

    Answers of the teacher that could be read are taken along, so that nothing is paid for twice.

    Raises:
        StoreError: no failed row of that job could come out better, or its kind has no rows to do again.
        JobError: questions of it are with the teacher in batches that were not collected.
    """
    permission.require("administer")
    before = JobFolder(jobs_path / job_id)
    spec = before.spec()
    if spec.kind not in ROW_KINDS:
        raise StoreError(_NO_RETRY.get(spec.kind, "This kind of job has no failed rows to do again."))
    if spec.kind == "reflect":
        refuse_unread(before, doing="you retry its failed rows")
    failed = [row["example_id"] for row in failures(store, job_id, reason=reason) if row["transient"]]
    failed = list(dict.fromkeys(failed))
    with store.read() as connection:
        base = None
        if spec.kind == "score":
            asked = _asked_before(spec)
            left = to_score.left_rows(connection, asked, example_ids=failed)
            data, n_rows = to_score.with_texts(connection, left), left.num_rows
            if asked.distances:
                base = _base_again(connection, spec, asked)
        else:
            data = rows_again(before, failed)
            n_rows = data.num_rows
        if not n_rows:
            raise StoreError("None of the failed rows of this job would come out better: there is nothing to retry.")
        again = replace(
            spec,
            job_id=new_job_id(spec.kind),
            title=f"{spec.title.removesuffix(' (retry)')} (retry)",
            n_rows=n_rows,
            created_at=utc_now().isoformat(),
            created_by=created_by,
            retry_of=job_id,
        )
        folder = JobFolder.create(jobs_path / again.job_id, again, data, base=base)
    if spec.kind == "reflect":
        carry_answers(before, new=folder)
    record_job(store, again)
    return folder


def _asked_before(spec: JobSpec) -> to_score.Asked:
    """What a job of before asked; outputs that its version did not have are not missed."""
    scorers = {str(key): int(scorer_id) for key, scorer_id in spec.params["scorers"].items()}
    asked = to_score.asked_of(spec.params["indicators"], scorers=scorers, embedding=spec.params.get("embedding_scorer"))
    known = {key: tuple(o for o in outputs if o in scorers) for key, outputs in asked.outputs.items()}
    return replace(asked, outputs=known)


def _base_again(connection: Connection, spec: JobSpec, asked: to_score.Asked) -> pa.RecordBatchReader:
    dataset_id = spec.params["dataset_id"]
    if not scalar(connection, "select count(*) from members where dataset_id = :id", id=dataset_id):
        raise StoreError("The dataset of this job was removed, so the distances within it cannot be computed again.")
    return to_score.base_of(connection, dataset_id=dataset_id, embedding=asked.embedding)


def jobs(store: Store) -> list[dict[str, Any]]:
    """All recorded jobs, newest first, with what the ledger says of them."""
    with store.read() as connection:
        return rows(
            connection,
            """select j.*, d.name dataset, coalesce(s.n_rows, 0) n_collected, coalesce(s.n_failed, 0) n_failed
            from jobs j left join datasets d on d.dataset_id = j.dataset_id
            left join (select job_id, sum(n_rows)::bigint n_rows, sum(n_failed)::bigint n_failed from job_shards
                group by job_id) s on s.job_id = j.job_id
            order by j.submitted_at desc, j.job_id desc""",
        )


def failures(store: Store, job_id: str, *, reason: str | None = None, limit: int | None = None) -> list[dict[str, Any]]:
    """Failed rows of a job: ``example_id, stage, reason, transient`` and the first words of the instruction."""
    with store.read() as connection:
        return rows(
            connection,
            f"""select f.example_id, f.stage, f.reason, f.transient, left(e.instruction, 120) instruction
            from job_failures f join examples e on e.example_id = f.example_id
            where f.job_id = :id and (:reason is null or f.reason = :reason)
            order by f.shard, f.example_id {f"limit {int(limit)}" if limit is not None else ""}""",
            id=job_id,
            reason=reason,
        )


def failure_reasons(store: Store, job_id: str) -> list[dict[str, Any]]:
    """Errors of a job by reason: ``stage, reason, n, transient``, most frequent first."""
    with store.read() as connection:
        return rows(
            connection,
            """select stage, reason, count(distinct example_id) n, bool_or(transient) transient from job_failures
            where job_id = :id group by stage, reason order by n desc, reason""",
            id=job_id,
        )


def teacher_totals(store: Store, job_id: str) -> dict[str, Any]:
    """Calls of a job: how many, by outcome parsed or not, tokens and cost (NULL where the teacher gave none)."""
    with store.read() as connection:
        return rows(
            connection,
            """select count(*) n_calls, count(*) filter (outcome = 'parsed') n_parsed,
                sum(prompt_tokens)::bigint prompt_tokens, sum(completion_tokens)::bigint completion_tokens,
                sum(cost_usd) cost_usd, median(seconds) median_seconds
            from teacher_calls where job_id = :id""",
            id=job_id,
        )[0]


def forget(store: Store, job_id: str) -> None:
    """Remove a job's record from the list. Its scores, pairs and teacher answers stay: decisions refer to them."""
    with store.write() as connection:
        connection.execute(text("delete from jobs where job_id = :id"), {"id": job_id})
