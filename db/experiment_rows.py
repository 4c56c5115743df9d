"""The rows that each arm of an experiment has: of a dataset, of reflection jobs, of people's decisions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core import demo
from core.experiment import ACCEPTED, ORIGINAL, ArmRows, ExperimentSettings, Pairing, pair, pool_of
from core.filters import ExportChoice
from core.reflection import STAGES
from core.teacher import RECORDED
from db import curated, evaluation, queries
from db.store import Store, frame, rows

NOT_IN_JOB = "it was not in the reflection job"
NOT_RECORDED = "the recorded teacher has no answer to it"
LEFT_OUT = "the student's filter left it out"
LACKS_OF_STATE = {
    "undecided": "nobody has decided on it yet",
    "rejected": "people rejected its reflected version",
    "not_reflected": "it was never reflected",
}

# A job with those that did its failed rows again: of a row the latest counts.
_FAMILY = """with recursive family(job_id) as (
    select $job::varchar union select j.job_id from jobs j join family f on j.retry_of = f.job_id)"""


def dataset_rows(store: Store, dataset_id: int) -> list[int]:
    """Distinct rows of a dataset in its order (example ids)."""
    with store.read() as connection:
        found = frame(
            connection,
            """select example_id from (select example_id, min(position) place from members where dataset_id = $id
            group by example_id) order by place""",
            {"id": dataset_id},
        )
    return [int(one) for one in found["example_id"].to_pylist()]


def reflect_jobs(store: Store, dataset_id: int) -> list[dict[str, Any]]:
    """Reflection jobs of a dataset that made something, newest first; retries count with the job that they retry.

    ``job_id, title, method`` ("v1" or "v2"), ``n_rows, n_kept, n_changed, teacher, submitted_at``.
    """
    with store.read() as connection:
        return rows(
            connection,
            """select j.job_id, j.title, p.method, p.teacher, j.submitted_at, r.n_rows, r.n_kept, r.n_changed
            from jobs j
            join (select job_id, any_value(method) method, any_value(teacher) teacher from pairs
                where dataset_id = :id group by job_id) p on p.job_id = j.job_id
            join (select job_id, count(*) n_rows, count(*) filter (kept) n_kept,
                    count(*) filter (final_id <> example_id) n_changed
                from reflections where dataset_id = :id group by job_id) r on r.job_id = j.job_id
            where j.kind = 'reflect' and j.retry_of is null order by j.submitted_at desc""",
            id=dataset_id,
        )


def original_rows(dataset: Sequence[int]) -> ArmRows:
    """The rows as they are."""
    return ArmRows(ORIGINAL, {row: row for row in dataset})


def reflected_rows(store: Store, arm: str, job_id: str, dataset: Sequence[int]) -> ArmRows:
    """What a reflection job made of the rows: the original again where nothing was better or the teacher failed."""
    with store.read() as connection:
        found = frame(
            connection,
            f"""{_FAMILY} select r.example_id, r.final_id, r.kept from reflections r join family f using (job_id)
            qualify row_number() over (partition by r.example_id order by r.job_id desc) = 1""",
            {"job": job_id},
        )
    finals = dict(zip(found["example_id"].to_pylist(), found["final_id"].to_pylist(), strict=True))
    kept = dict(zip(found["example_id"].to_pylist(), found["kept"].to_pylist(), strict=True))
    return ArmRows(
        arm,
        {row: finals[row] for row in dataset if kept.get(row)},
        {
            NOT_IN_JOB: frozenset(row for row in dataset if row not in finals),
            LEFT_OUT: frozenset(row for row in dataset if kept.get(row) is False),
        },
    )


def accepted_rows(store: Store, dataset_id: int, dataset: Sequence[int]) -> ArmRows:
    """The rows whose reflected version people accepted, with their edits: the rule of the export, accepted rows only.

    A row that people rejected or have not decided on is not in this arm: what they think of it as it is they never
    said.
    """
    _, table = curated.curated_table(store, dataset_id, ExportChoice())
    with store.read() as connection:
        members = frame(
            connection, "select position, example_id from members where dataset_id = $id", {"id": dataset_id}
        )
    original = dict(zip(members["position"].to_pylist(), members["example_id"].to_pylist(), strict=True))
    texts: dict[int, int] = {}
    lacks: dict[str, set[int]] = {}
    columns = (table[name].to_pylist() for name in ("position", "state", "example_id"))
    for position, state, example_id in zip(*columns, strict=True):
        if state == "accepted":
            texts.setdefault(original[position], example_id)
        else:
            lacks.setdefault(LACKS_OF_STATE.get(state, str(state)), set()).add(original[position])
    return ArmRows(
        ACCEPTED,
        {row: texts[row] for row in dataset if row in texts},
        {reason: frozenset(found - set(texts)) for reason, found in lacks.items()},
    )


@dataclass(frozen=True)
class Chosen:
    """The rows that an experiment looks at: ``rows`` are chosen from ``n_dataset``, of which ``n_overlap`` were left
    out because the evaluation set asks them. ``arms``: the rows that each arm has, or can be made of."""

    rows: tuple[int, ...]
    n_dataset: int
    n_overlap: int
    arms: tuple[ArmRows, ...]

    @property
    def n_left(self) -> int:
        """Rows of the dataset without those of the overlap."""
        return self.n_dataset - self.n_overlap


def overlapping(store: Store, evaluation_id: int, dataset_id: int) -> frozenset[int]:
    """Rows of a dataset that the evaluation set asks, exactly or nearly (by words)."""
    found = evaluation.overlap(store, evaluation_id, [dataset_id], measure="words")
    return frozenset(found.training_ids)


def choose(
    store: Store, dataset_id: int, settings: ExperimentSettings, *, overlap: Collection[int] | None = None
) -> Chosen:
    """The rows of an experiment before anything is made: where arms are paired those that all of them can have.

    ``overlap``: what :func:`overlapping` found, if that was asked before; it takes seconds on large sets.
    """
    dataset = dataset_rows(store, dataset_id)
    asked: Collection[int] = ()
    if settings.rows.without_overlap:
        asked = overlapping(store, settings.evaluation_id, dataset_id) if overlap is None else overlap
    gone = set(asked)
    left = [row for row in dataset if row not in gone]
    made_before = _jobs(settings)
    arms = [
        _makeable(store, arm, settings.reflected[arm].options or {}, left)
        if arm in settings.made
        else _arm(store, dataset_id, arm, left, job_id=made_before.get(arm))
        for arm in settings.arms
    ]
    return Chosen(pool_of(left, arms, settings.rows), len(dataset), len(dataset) - len(left), tuple(arms))


def recorded_among(store: Store, dataset: Sequence[int]) -> list[int]:
    """Those of the rows that the bundled sample's recorded teacher has an answer to."""
    known = queries.ids_of_hashes(store, [digest for stage, digest in demo.recordings() if stage == STAGES[0]])
    return [row for row in dataset if row in known]


def _makeable(store: Store, arm: str, options: Mapping[str, Any], dataset: Sequence[int]) -> ArmRows:
    """The rows that an arm can be made of; what their texts will be nobody knows."""
    if options.get("teacher", {}).get("kind") != RECORDED:
        return ArmRows(arm, {row: row for row in dataset})
    there = set(recorded_among(store, dataset))
    return ArmRows(
        arm,
        {row: row for row in dataset if row in there},
        {NOT_RECORDED: frozenset(row for row in dataset if row not in there)},
    )


def _arm(store: Store, dataset_id: int, arm: str, dataset: Sequence[int], *, job_id: str | None) -> ArmRows:
    if arm == ORIGINAL:
        return original_rows(dataset)
    if arm == ACCEPTED:
        return accepted_rows(store, dataset_id, dataset)
    assert job_id is not None, arm
    return reflected_rows(store, arm, job_id, dataset)


def _jobs(settings: ExperimentSettings) -> dict[str, str | None]:
    return {arm: source.job_id for arm, source in settings.reflected.items()}


def pairing(
    store: Store, dataset_id: int, settings: ExperimentSettings, chosen: Sequence[int], *, made: Mapping[str, str]
) -> Pairing:
    """The training rows of all arms, once every reflected arm has a job: ``made`` names those of the experiment's own.

    Raises:
        InputError: no row is left.
    """
    source = {**_jobs(settings), **made}
    arms = [_arm(store, dataset_id, arm, chosen, job_id=source.get(arm)) for arm in settings.arms]
    return pair(chosen, arms, settings.rows)


def preview(settings: ExperimentSettings, chosen: Chosen) -> Pairing:
    """What :func:`pairing` would give if every arm that is still to be made gets every row that it can.

    Raises:
        InputError: no row is left.
    """
    return pair(chosen.rows, chosen.arms, settings.rows)


def lost_by_arm(chosen: Chosen) -> dict[str, dict[str, int]]:
    """Arm -> reason -> rows of the dataset (without the overlap) that the arm does not have."""
    original = next(arm for arm in chosen.arms if arm.arm == ORIGINAL)
    every = set(original.texts)
    found: dict[str, dict[str, int]] = {}
    for arm in chosen.arms:
        counts = {reason: len(gone & every) for reason, gone in arm.lacks.items()}
        found[arm.arm] = {reason: n for reason, n in counts.items() if n}
    return found
