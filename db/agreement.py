"""What the reviewers said, for the figures of agreement (:mod:`core.reviewer_agreement`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Connection

from core.moment import Moment
from core.reviewer_agreement import RESAMPLES, VERDICTS, Agreement, Votes, review_agreement
from db.conditions import metadata_value, pointer
from db.past import frozen
from db.store import Store, frame

KINDS = ("all", "stage", "method", "dataset")
"""What pairs are told apart by, beside "category:KEY" (what a further column of the original row holds)."""
_NAMES = {
    "stage": "p.stage",
    "method": "p.method",
    "dataset": "coalesce(d.name, 'removed dataset')",
}


def version(store: Store) -> str:
    """A short text that changes whenever a figure of agreement may: the key of what pages remember."""
    with store.read() as connection:
        found = frame(
            connection,
            """select (select count(*) from decisions), (select count(*) from pairs),
            (select count(*) from campaign_pairs), (select bit_xor(hash(dataset_id, name)) from datasets)""",
        )
    return "-".join(str(column[0].as_py()) for column in found.columns)


def agreement(
    store: Store,
    *,
    campaign_id: int | None = None,
    dataset_id: int | None = None,
    by: str = "all",
    coding: str = "verdicts",
    moment: Moment | None = None,
    resamples: int = RESAMPLES,
) -> Agreement:
    """How far reviewers agree on the pairs of a campaign, of a dataset, of both, or on all pairs.

    Decisions that were taken back do not count; of each reviewer and pair the latest does (``reviewer_decisions``).
    ``by`` is one of ``KINDS`` or "category:KEY". With a ``moment``: as it was then.
    """
    with store.read() as connection:
        return agreement_of(
            connection, campaign_id=campaign_id, dataset_id=dataset_id, by=by, coding=coding, moment=moment,
            resamples=resamples,
        )  # fmt: skip


def agreement_of(
    connection: Connection,
    *,
    campaign_id: int | None = None,
    dataset_id: int | None = None,
    by: str = "all",
    coding: str = "verdicts",
    moment: Moment | None = None,
    resamples: int = RESAMPLES,
) -> Agreement:
    """As :func:`agreement`, in a snapshot that is open.

    Raises:
        ValueError: ``by`` is not one of them.
    """
    if by not in KINDS and not by.startswith("category:"):
        raise ValueError(f"no such kind: {by!r}")
    parameters: dict[str, Any] = {}
    among = ["true"]
    if dataset_id is not None:
        among.append("p.dataset_id = $dataset_id")
        parameters["dataset_id"] = dataset_id
    if campaign_id is not None:
        among.append("p.pair_id in (select w.pair_id from campaign_pairs w where w.campaign_id = $campaign)")
        parameters["campaign"] = campaign_id
    past = frozen(moment)
    parameters |= past.parameters
    inside = f"(select p.pair_id from pairs p where {' and '.join(among)})"

    def read(sql: str, **more: Any) -> pa.Table:
        return frame(connection, past.query(sql), {**parameters, **more})

    votes = read(f"select r.pair_id, r.reviewer, r.verdict from reviewer_decisions r where r.pair_id in {inside}")
    adjudicated = read(
        f"""select s.pair_id, s.verdict from standing_decisions s
        where s.purpose = 'adjudication'
            and list_contains($verdicts, s.verdict) and s.pair_id in {inside}
        qualify row_number() over (partition by s.pair_id order by s.decision_id desc) = 1""",
        verdicts=list(VERDICTS),
    )
    gold = read(
        f"""select g.pair_id, max_by(g.gold, g.campaign_id) verdict from campaign_pairs g
        where list_contains($verdicts, g.gold) and g.pair_id in {inside}
            {"" if campaign_id is None else "and g.campaign_id = $campaign"} group by g.pair_id""",
        verdicts=list(VERDICTS),
    )
    again = read(
        f"""select s.reviewer, r.verdict first, s.verdict again from standing_decisions s
        join reviewer_decisions r on r.pair_id = s.pair_id and r.reviewer = s.reviewer
        where s.purpose = 'second_look' and list_contains($verdicts, s.verdict) and s.pair_id in {inside}
        qualify row_number() over (partition by s.pair_id, s.reviewer order by s.decision_id desc) = 1""",
        verdicts=list(VERDICTS),
    )
    return review_agreement(
        _votes(votes),
        coding=coding,
        by=by,
        groups=_groups(read, inside, by),
        adjudicated=_by_pair(adjudicated),
        gold=_by_pair(gold),
        again=[(row["reviewer"], row["first"], row["again"]) for row in again.to_pylist()],
        resamples=resamples,
    )


def _votes(table: pa.Table) -> Votes:
    names = tuple(sorted(pc.unique(table["reviewer"]).to_pylist()))
    reviewers = pc.index_in(table["reviewer"], value_set=pa.array(names, pa.string()))
    verdicts = pc.index_in(table["verdict"], value_set=pa.array(VERDICTS, pa.string()))
    return Votes(
        pair_ids=np.asarray(table["pair_id"].to_numpy(), np.int64),
        reviewers=np.asarray(reviewers.to_numpy(), np.int64),
        verdicts=np.asarray(verdicts.to_numpy(), np.int8),
        names=names,
    )


def _by_pair(table: pa.Table) -> dict[int, str]:
    return dict(zip(table["pair_id"].to_pylist(), table["verdict"].to_pylist(), strict=True))


def _groups(read: Any, inside: str, by: str) -> dict[int, str] | None:
    """The kind of each pair that two or more decided."""
    if by == "all":
        return None
    shared = f"""(select r.pair_id from reviewer_decisions r where r.pair_id in {inside}
        group by r.pair_id having count(*) > 1)"""
    more: dict[str, Any] = {}
    if by.startswith("category:"):
        more["key"] = pointer(by.removeprefix("category:"))
        sql = f"""select p.pair_id, coalesce(any_value({metadata_value("key")}), '(nothing)') kind from pairs p
            left join members m on m.dataset_id = p.dataset_id and m.example_id = p.original_id
            where p.pair_id in {shared} group by p.pair_id"""
    else:
        sql = f"""select p.pair_id, {_NAMES[by]} kind from pairs p
            left join datasets d on d.dataset_id = p.dataset_id where p.pair_id in {shared}"""
    found = read(sql, **more)
    return dict(zip(found["pair_id"].to_pylist(), found["kind"].to_pylist(), strict=True))
