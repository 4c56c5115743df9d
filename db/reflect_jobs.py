"""Submit reflect jobs: over rows of a dataset, over what an earlier job left, over what was accepted or failed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Connection, text

from core import scoring
from core.batch_ledger import refuse_unread
from core.errors import StoreError
from core.jobs.folder import JobFolder
from core.reflecting import KNOWN_BASE, KNOWN_ORIGINAL, SHARD_ROWS, ReflectOptions
from core.reflection import INDICATORS
from core.reflection_calls import carry_answers
from core.scoring import Models
from core.teacher import TeacherSettings
from core.teachers import device_of
from db import commands, permission
from db.job_records import collected_shards, new_job_id, record_job, submit
from db.store import Store, frame, registered, rows, utc_now

_BUSY = ("queued", "running", "cancelling")


def submit_reflect(
    store: Store,
    jobs_path: Path,
    *,
    dataset_id: int,
    example_ids: Sequence[int],
    options: ReflectOptions,
    title: str,
    created_by: str | None = None,
    priority: int = 0,
    job_id: str | None = None,
    starts: Mapping[int, int] | None = None,
    rounds_before: Mapping[int, int] | None = None,
) -> JobFolder:
    """Write the folder of a reflection job over ``example_ids`` and record it.

    Scores that the job's student has given to these rows already are taken along, and not computed again.

    Args:
        store: the store.
        jobs_path: where job folders lie.
        dataset_id: the dataset that the rows belong to.
        example_ids: the rows, in this order, each once.
        options: what is asked for; its prompts are recorded under their versions.
        title: what lists call the job.
        created_by: who submitted it.
        priority: higher goes first.
        job_id: see :func:`db.job_records.submit`.
        starts: example_id -> example_id of the text to go on from, as :func:`rows_for_again` gives it.
        rounds_before: example_id -> rounds that the row has behind it.

    Raises:
        StoreError: there is no row, or a prompt's version is known with other texts. ModelError: the student cannot be
            found.
    """
    ids = list(dict.fromkeys(example_ids))
    if not ids:
        raise StoreError("No row is chosen, so there is nothing to reflect on.")
    student = options.student
    revision = scoring.resolve_revision(student.model, student.revision)
    with store.write() as connection:
        _record_prompts(connection, options)
        identities = scoring.scorer_identities(INDICATORS, Models(student=student), {"student": revision})
        scorer_ids = commands.ensure_scorers(connection, identities)
    with store.read() as connection:
        table = _input(connection, ids, starts or {}, rounds_before or {}, scorer_ids=scorer_ids)
    if not table.num_rows:
        raise StoreError("No row is chosen, so there is nothing to reflect on.")
    return submit(
        store,
        jobs_path,
        table,
        kind="reflect",
        title=title,
        n_rows=table.num_rows,
        device=_device(options),
        shard_rows=SHARD_ROWS,
        params={**options.to_params(), "revision": revision, "scorers": scorer_ids, "dataset_id": dataset_id},
        created_by=created_by,
        priority=priority,
        job_id=job_id,
    )


def _device(options: ReflectOptions) -> str:
    """What the job waits for. In batch mode that is the server; live, the student computes most of the time."""
    teacher = options.teacher
    if any(device.startswith("cuda") for device in (options.student.device, device_of(teacher))):
        return "cuda"
    return "network" if isinstance(teacher, TeacherSettings) and teacher.mode == "batch" else "cpu"


def _record_prompts(connection: Connection, options: ReflectOptions) -> None:
    """Record the texts under which versions are used, each once: a version never changes."""
    for prompt in options.prompts.values():
        found = rows(
            connection, 'select content::varchar "content" from prompts where "version" = :it', it=prompt.version
        )
        if found:
            content = found[0]["content"]
            if (json.loads(content) if isinstance(content, str) else content) != prompt.to_params():
                raise StoreError(
                    f"The prompt {prompt.version!r} was used before with other texts, and a version never changes. "
                    "Save yours as a new version on the Prompts page."
                )
            continue
        connection.execute(
            text("insert into prompts values (:version, :stage, :content, :now) on conflict do nothing"),
            {
                "version": prompt.version,
                "stage": prompt.stage,
                "content": json.dumps(prompt.to_params(), ensure_ascii=False, sort_keys=True),
                "now": utc_now(),
            },
        )


def _input(
    connection: Connection,
    example_ids: Sequence[int],
    starts: Mapping[int, int],
    rounds_before: Mapping[int, int],
    *,
    scorer_ids: Mapping[str, int],
) -> pa.Table:
    """The input of a reflect job, as :func:`core.reflecting.run` reads it; columns that nobody needs are left out."""
    asked = pa.table(
        {
            "place": pa.array(range(len(example_ids)), pa.int64()),
            "example_id": pa.array(example_ids, pa.int64()),
            "start_id": pa.array([_other(starts.get(one), one) for one in example_ids], pa.int64()),
            "round_before": pa.array([rounds_before.get(one, 0) for one in example_ids], pa.int64()),
        }
    )
    scorers = pa.table({"output": list(scorer_ids), "scorer_id": pa.array(scorer_ids.values(), pa.int64())})
    again = any(rounds_before.values()) or asked["start_id"].null_count < len(example_ids)
    base = ", b.instruction base_instruction, b.input base_input, b.output base_output, a.round_before" if again else ""
    known_base = f", kb.known {KNOWN_BASE}" if again else ""
    with registered(connection, "asked", asked), registered(connection, "scorers_asked", scorers):
        table = frame(
            connection,
            f"""with known as (
                select s.example_id, list({{'output': l.output, 'value': s.value, 'reason': s.reason}}) known
                from scores s join scorers_asked l on l.scorer_id = s.scorer_id
                where (s.value is not null or not s.transient)
                    and s.example_id in (select example_id from asked union select start_id from asked)
                group by s.example_id)
            select e.example_id, e.instruction, e.input, e.output{base}, ko.known {KNOWN_ORIGINAL}{known_base}
            from asked a join examples e on e.example_id = a.example_id
            left join examples b on b.example_id = a.start_id
            left join known ko on ko.example_id = a.example_id
            left join known kb on kb.example_id = a.start_id order by a.place""",
        )
    return table.drop_columns([name for name in (KNOWN_ORIGINAL, KNOWN_BASE) if _is_empty(table, name)])


def _other(start: int | None, example_id: int) -> int | None:
    return None if start == example_id else start


def _is_empty(table: pa.Table, name: str) -> bool:
    return name in table.column_names and table[name].null_count == table.num_rows


def rows_again(before: JobFolder, example_ids: Sequence[int]) -> pa.Table:
    """The rows of a reflect job's input with these ids, with all that it knew of them.

    Raises:
        JobError: the input cannot be read.
    """
    table = before.input_table()
    return table.filter(pc.is_in(table["example_id"], pa.array(example_ids, pa.int64())))


def submit_rest(
    store: Store,
    jobs_path: Path,
    *,
    job_id: str,
    budget_usd: float | None = None,
    created_by: str | None = None,
    priority: int | None = None,
) -> JobFolder:
    """A job over the rows that an earlier one did not finish (its budget was spent, or it was cancelled).

    It asks for the same with a budget of its own, None for none. All answers of those rows are taken along; they cost
    nothing again, and do not count for the new budget.

    Raises:
        StoreError: the earlier job is no reflection, has not ended, or finished every row.
        JobError: questions of it are with the teacher in batches that were not collected.
        SettingsError: a budget for a teacher without prices.
    """
    permission.require("administer")
    before = JobFolder(jobs_path / job_id)
    spec = before.spec()
    if spec.kind != "reflect":
        raise StoreError("Only a reflection has rows whose answers another job can take along.")
    if before.status().state in _BUSY:
        raise StoreError("This job has not ended yet: cancel it first, so that no row is asked for twice.")
    done = before.finished_shards() | collected_shards(store, job_id)
    table = before.input_table()
    left = [table.slice(start, stop - start) for index, start, stop in before.shard_ranges() if index not in done]
    if not left:
        raise StoreError("Every row of this job is finished: there is no rest to submit.")
    refuse_unread(before, doing="you submit the rest")
    options = ReflectOptions.from_params(spec.params).with_budget(budget_usd)
    data = pa.concat_tables(left)
    rest = replace(
        spec,
        job_id=new_job_id(spec.kind),
        title=f"{spec.title.removesuffix(' (rest)')} (rest)",
        n_rows=data.num_rows,
        params={**spec.params, **options.to_params()},
        priority=spec.priority if priority is None else priority,
        created_at=utc_now().isoformat(),
        created_by=created_by,
        retry_of=job_id,
    )
    folder = JobFolder.create(jobs_path / rest.job_id, rest, data)
    carry_answers(before, new=folder, unusable=True)
    record_job(store, rest)
    return folder


def rows_for_again(
    store: Store, *, dataset_id: int, which: str, cap: int
) -> tuple[dict[int, int], dict[int, int], int]:
    """Rows of a dataset to reflect on again: what to go on from, rounds behind them, and how many are at the cap.

    "accepted": rows of which people have accepted a pair go on from what was accepted, unless a later round of theirs
    waits for a decision. "failed": rows that the latest job left with a failure that may pass, and of which nothing was
    accepted; they begin anew with the original.

    Args:
        store: the store.
        dataset_id: the dataset.
        which: "accepted" or "failed".
        cap: rows with so many rounds or more behind them are left out, and counted.

    Returns:
        (example_id -> example_id of the text to go on from, example_id -> rounds before, rows at the cap); for
        :func:`submit_reflect`.

    Raises:
        StoreError: ``which`` is neither.
    """
    if which not in ("accepted", "failed"):
        raise StoreError(f"There are no rows {which!r} to reflect on again; choose accepted or failed.")
    with store.read() as connection:
        found = frame(connection, _AGAIN[which], {"dataset": dataset_id}).to_pylist()
    within = [row for row in found if row["rounds"] < cap]
    starts = {row["example_id"]: row["start_id"] for row in within}
    return starts, {row["example_id"]: row["rounds"] for row in within}, len(found) - len(within)


# As in db.review: of several accepted pairs the latest round wins, in it the response stage, then the newest decision.
_STANDING = """with p as (
        select p.original_id, p.stage, coalesce(p.round, 1) round, c.verdict, c.result_id, c.decision_id
        from pairs p left join current_decisions c on c.pair_id = p.pair_id where p.dataset_id = $dataset),
    accepted as (
        select original_id, result_id, round from p where result_id is not null
        qualify row_number() over (
            partition by original_id order by round desc, (stage = 'response') desc, decision_id desc) = 1),
    behind as (select original_id, max(round) rounds from p group by original_id),
    listed as (
        select example_id, min(position) position from members where dataset_id = $dataset group by example_id)"""
_AGAIN = {
    "accepted": f"""{_STANDING}
        select m.example_id, a.result_id start_id, b.rounds from listed m
        join accepted a on a.original_id = m.example_id join behind b on b.original_id = m.example_id
        where not exists (select 1 from p where p.original_id = m.example_id and p.round > a.round
            and p.verdict is null)
        order by m.position""",
    "failed": f"""{_STANDING},
        latest as (
            select example_id, job_id from reflections where dataset_id = $dataset
            qualify row_number() over (partition by example_id order by job_id desc) = 1)
        select m.example_id, m.example_id start_id, 0::bigint rounds
        from listed m join latest l on l.example_id = m.example_id
        where m.example_id not in (select original_id from accepted)
            and exists (select 1 from job_failures f
                where f.job_id = l.job_id and f.example_id = m.example_id and f.transient)
        order by m.position""",
}
