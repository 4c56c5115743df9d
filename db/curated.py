"""The curated set of a dataset, now or as it was at a moment: counts, rows, and what stands in a manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from sqlalchemy import Connection

from core.errors import StoreError
from core.filters import ExportChoice
from core.moment import Moment
from db.past import frozen
from db.store import Store, frame, rows

# The student's proposal is what the latest method made of the row; it counts only while no person has rejected a stage
# of it. Of several accepted pairs the latest round wins, in it the response stage (each builds on the one before), then
# the newest decision.
RESOLVED = """p as (
        select p.*, c.verdict, c.result_id, c.decision_id, c.reviewer
        from pairs p left join current_decisions c on c.pair_id = p.pair_id where p.dataset_id = $dataset),
    accepted as (
        select original_id, result_id, verdict, pair_id, reviewer from p where result_id is not null
        qualify row_number() over (
            partition by original_id
            order by coalesce(round, 1) desc, (stage = 'response') desc, decision_id desc) = 1),
    reviewed as (
        select original_id, count(*) filter (verdict is null) n_undecided,
            count(*) filter (verdict = 'reject') n_rejected
        from p group by original_id),
    proposed as (
        select example_id original_id, final_id, kept from reflections where dataset_id = $dataset
        qualify row_number() over (partition by example_id order by job_id desc) = 1),
    resolved as (
        select m.position, m.example_id original_id, m.metadata,
            case when a.original_id is not null then 'accepted' when r.original_id is null then 'not_reflected'
                when r.n_undecided > 0 then 'undecided' else 'rejected' end state,
            a.verdict, a.result_id, a.pair_id, a.reviewer,
            case when r.n_rejected > 0 or s.original_id is null then m.example_id
                when s.kept then s.final_id end proposed_id
        from members m left join accepted a on a.original_id = m.example_id
        left join reviewed r on r.original_id = m.example_id
        left join proposed s on s.original_id = m.example_id
        where m.dataset_id = $dataset),
    chosen as (
        select *, case
            when state = 'accepted' then result_id
            when state = 'undecided' and $undecided = 'original' then original_id
            when state = 'undecided' and $undecided = 'student''s proposal' then proposed_id
            when state = 'rejected' and $rejected = 'original' then original_id
            when state = 'not_reflected' and $not_reflected = 'original' then original_id
        end example_id from resolved)"""


# A stable hash: the mark stands in manifests, and hash() may differ in another version of DuckDB.
_COUNTED = """select state, verdict, case when example_id is null then 'left out'
        when example_id = original_id then 'original' else 'reflected' end kept, count(*) n,
        bit_xor(md5_number_lower(
            concat_ws(' ', position, coalesce(example_id, -1), coalesce(verdict, ''), metadata))) mark
    from chosen group by all order by state, verdict, kept"""
_CHOSEN_ROWS = """select c.position, c.metadata, c.state, c.verdict, c.pair_id, c.reviewer,
        case when c.example_id = c.original_id then 'original' else 'reflected' end kept,
        e.example_id, e.hash, e.instruction, e.input, e.output
    from chosen c join examples e on e.example_id = c.example_id order by c.position"""


def _curated(
    connection: Connection, query: str, dataset_id: int, choice: ExportChoice, moment: Moment | None
) -> pa.Table:
    past = frozen(moment)
    parameters = {
        "dataset": dataset_id,
        "undecided": choice.undecided,
        "rejected": choice.rejected,
        "not_reflected": choice.not_reflected,
    }
    return frame(connection, past.query(query, more_ctes=RESOLVED), {**past.parameters, **parameters})


@dataclass(frozen=True)
class CuratedCounts:
    """What an export holds. ``counts``: ``state, verdict, kept, n`` (kept: "original", "reflected" or "left out").

    ``mark`` differs as soon as any row would come out otherwise, also where the counts happen to be equal.
    """

    counts: tuple[Mapping[str, Any], ...]
    mark: str

    @property
    def n_kept(self) -> int:
        """Rows in the file."""
        return sum(int(row["n"]) for row in self.counts if row["kept"] != "left out")


def counted(
    connection: Connection, dataset_id: int, choice: ExportChoice, *, moment: Moment | None = None
) -> CuratedCounts:
    """As :func:`curated_summary`, in a snapshot that is open."""
    found = _curated(connection, _COUNTED, dataset_id, choice, moment).to_pylist()
    mark = "-".join(f"{row['state'][:1]}{row['mark']:x}" for row in found)
    return CuratedCounts(tuple({k: row[k] for k in ("state", "verdict", "kept", "n")} for row in found), mark)


def chosen_rows(
    connection: Connection, dataset_id: int, choice: ExportChoice, *, moment: Moment | None = None
) -> pa.Table:
    """The rows of :func:`curated_rows` as Arrow, in a snapshot that is open."""
    return _curated(connection, _CHOSEN_ROWS, dataset_id, choice, moment)


def curated_summary(
    store: Store, dataset_id: int, choice: ExportChoice, *, moment: Moment | None = None
) -> CuratedCounts:
    """What an export would hold now, or would have held at a ``moment``.

    The same SQL makes its rows, so the page promises what the file will be.
    """
    with store.read() as connection:
        return counted(connection, dataset_id, choice, moment=moment)


def curated_table(
    store: Store, dataset_id: int, choice: ExportChoice, *, moment: Moment | None = None
) -> tuple[CuratedCounts, pa.Table]:
    """Counts and rows of an export as of one moment: what is decided meanwhile is in both or in neither."""
    with store.read() as connection:
        counts = counted(connection, dataset_id, choice, moment=moment)
        return counts, chosen_rows(connection, dataset_id, choice, moment=moment)


def curated_rows(
    store: Store, dataset_id: int, choice: ExportChoice, *, limit: int | None = None, moment: Moment | None = None
) -> list[dict[str, Any]]:
    """The rows of the export in the order of the dataset: texts, hash, metadata, state, verdict, pair, reviewer."""
    tail = "" if limit is None else f" limit {int(limit)}"
    with store.read() as connection:
        found: list[dict[str, Any]] = _curated(connection, _CHOSEN_ROWS + tail, dataset_id, choice, moment).to_pylist()
    return found


def scorers_of_pairs(store: Store, dataset_id: int, *, moment: Moment | None = None) -> list[dict[str, Any]]:
    """Scorers whose values stand behind the pairs of a dataset, for the manifest."""
    last_pair = 2**62 if moment is None else moment.last_pair_id
    with store.read() as connection:
        found = frame(
            connection,
            """select distinct s.output, s.indicator, s.version, s.model, s.revision, s.template, s.settings
            from pairs p join scores c on c.example_id in (p.original_id, p.candidate_id)
            join scorers s on s.scorer_id = c.scorer_id where p.dataset_id = $dataset and p.pair_id <= $last_pair
            order by all""",
            {"dataset": dataset_id, "last_pair": last_pair},
        ).to_pylist()
    return [{**scorer, "settings": json.loads(scorer["settings"])} for scorer in found]


def members_digest(connection: Connection, dataset_id: int) -> str:
    """A digest of the member list of a dataset: another one says that the list is no longer what it was."""
    [found] = frame(
        connection,
        """select count(*) n, bit_xor(md5_number_lower(concat_ws(' ', position, example_id, metadata))) mark
        from members where dataset_id = $dataset""",
        {"dataset": dataset_id},
    ).to_pylist()
    return f"{found['n']}-{found['mark'] or 0:x}"


def reviewers_of(connection: Connection, dataset_id: int, *, moment: Moment | None = None) -> list[dict[str, Any]]:
    """Who decided pairs of a dataset: ``reviewer, n_decisions, n_standing`` (of them, those that stand on a pair).

    Second looks and decisions that came too late are not among them: they never count.
    """
    past = frozen(moment)
    found: list[dict[str, Any]] = frame(
        connection,
        past.query(
            """select s.reviewer, count(*) n_decisions, count(c.decision_id) n_standing from standing_decisions s
            join pairs p on p.pair_id = s.pair_id left join current_decisions c on c.decision_id = s.decision_id
            where p.dataset_id = $dataset and s.verdict not in ('skip', 'flag', 'unflag')
                and s.purpose in ('review', 'adjudication', 'bulk')
            group by s.reviewer order by n_decisions desc, s.reviewer"""
        ),
        {**past.parameters, "dataset": dataset_id},
    ).to_pylist()
    return found


def exports(store: Store) -> list[dict[str, Any]]:
    """Exports made so far, newest first."""
    with store.read() as connection:
        return rows(
            connection,
            """select e.export_id, e.dataset_id, e.file_name, e.sha256, e.exported_at, e.exported_by, d.name dataset
            from exports e left join datasets d on d.dataset_id = e.dataset_id order by e.export_id desc limit 50""",
        )


def export_record(store: Store, export_id: int) -> dict[str, Any]:
    """One export as it was recorded, with its ``manifest``.

    Raises:
        StoreError: there is no such export.
    """
    with store.read() as connection:
        found = rows(
            connection,
            """select e.*, d.name dataset from exports e left join datasets d on d.dataset_id = e.dataset_id
            where e.export_id = :id""",
            id=export_id,
        )
    if not found:
        raise StoreError(f"Export {export_id} is not in the store.")
    manifest = found[0]["manifest"]
    return {**found[0], "manifest": json.loads(manifest) if isinstance(manifest, str) else manifest}
