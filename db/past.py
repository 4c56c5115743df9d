"""Read the store as it was: the views of decisions over what had come by a moment, and which moment that was."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from core.errors import StoreError
from core.moment import CampaignThen, Moment
from db import schema
from db.store import Store, frame, scalar, utc_now

VIEWS = ("standing_decisions", "reviewer_decisions", "current_decisions")
_MOST_WRITTEN = 40
_CREATE = re.compile(r"create (?:or replace )?view (\w+) as\s+(.*)", re.DOTALL)


@functools.cache
def view_texts() -> dict[str, str]:
    """The query of each of ``VIEWS``, as the newest schema has it."""
    found = {}
    for statement in (*schema.V1, *schema.V5):
        match = _CREATE.match(statement)
        if match and match[1] in VIEWS:
            found[match[1]] = match[2]
    return {name: found[name] for name in VIEWS}


@dataclass(frozen=True)
class Frozen:
    """``ctes``: what to put after "with" so that tables and views are those of a moment; "" for now."""

    ctes: str
    parameters: dict[str, Any]

    def query(self, sql: str, *, more_ctes: str = "") -> str:
        """``sql`` over these tables; ``more_ctes`` are common table expressions of its own, over these tables too."""
        ctes = ",\n".join(filter(None, (self.ctes, more_ctes)))
        return f"with {ctes} {sql}" if ctes else sql


def frozen(moment: Moment | None) -> Frozen:
    """The tables of decisions, pairs, reflections and campaigns as of a moment, and the views over them.

    Each is a common table expression of the table's own name: a query that is put behind them reads as it reads now.
    """
    if moment is None:
        return Frozen("", {})
    absent, ranges = _absent(moment)
    then = ", ".join(f"({c.campaign_id}, {c.overlap}, {c.last_position})" for c in moment.campaigns)
    known = f"(values {then})" if then else "(select 0, 0, 0 where false)"
    tables = {
        "decisions": f"""select * from main.decisions where decision_id <= $last_decision{absent}""",
        "pairs": "select * from main.pairs where pair_id <= $last_pair",
        "reflections": "select * from main.reflections where reflection_id <= $last_reflection",
        "then_campaigns": f"select * from {known} t(campaign_id, overlap, last_position)",
        "campaigns": """select c.* replace (t.overlap as overlap) from main.campaigns c
            join then_campaigns t on t.campaign_id = c.campaign_id""",
        "campaign_pairs": """select w.* from main.campaign_pairs w
            join then_campaigns t on t.campaign_id = w.campaign_id where w.position <= t.last_position""",
    }
    ctes = ",\n".join(f"{name} as ({sql})" for name, sql in (*tables.items(), *view_texts().items()))
    parameters: dict[str, Any] = {
        "last_decision": moment.last_decision_id,
        "last_pair": moment.last_pair_id,
        "last_reflection": moment.last_reflection_id,
        **ranges,
    }
    return Frozen(ctes, parameters)


def _absent(moment: Moment) -> tuple[str, dict[str, Any]]:
    """The condition that leaves out what was not there yet, with its parameters: a few ranges are written out."""
    ranges = moment.absent_decisions
    if len(ranges) <= _MOST_WRITTEN:
        return "".join(f" and decision_id not between {int(first)} and {int(last)}" for first, last in ranges), {}
    listed = """ and not exists (select 1 from (select unnest($absent_first) first, unnest($absent_last) last) a
        where decision_id between a.first and a.last)"""
    return listed, {"absent_first": [first for first, _ in ranges], "absent_last": [last for _, last in ranges]}


def now(store: Store) -> Moment:
    """This moment."""
    with store.read() as connection:
        return moment_of(connection)


def moment_of(connection: Connection) -> Moment:
    """The moment of a snapshot that is open."""
    return _moment(connection, last=None, when=None)


def at_time(store: Store, when: datetime) -> Moment:
    """The state at a time (naive UTC): what had been decided, collected and added to campaigns by then.

    Raises:
        StoreError: the time is still to come.
    """
    if when > utc_now():
        raise StoreError(f"{when:%Y-%m-%d %H:%M} UTC is still to come, so there is no state to read yet.")
    with store.read() as connection:
        return _moment(connection, last=None, when=when)


def after_decision(store: Store, decision_id: int) -> Moment:
    """The state right after a decision was stored.

    Raises:
        StoreError: there is no such decision.
    """
    with store.read() as connection:
        decided_at = scalar(connection, "select decided_at from decisions where decision_id = :id", id=decision_id)
        if decided_at is None:
            raise StoreError(f"Decision {decision_id} is not in the store. Choose one from History.")
        return _moment(connection, last=decision_id, when=decided_at)


def _moment(connection: Connection, *, last: int | None, when: datetime | None) -> Moment:
    """``when`` None: now. ``last``: the decisions up to this id count, whatever their time: a clock may be set back."""
    moment = {"moment": when or datetime(9999, 1, 1)}
    parameters: dict[str, Any] = moment
    there = "from decisions where decided_at <= $moment"
    if last is not None:
        there, parameters = "from decisions where decision_id <= $last", {"last": last}
    sql = f"select coalesce(max(decision_id), 0) top, count(*) n, coalesce(max(pair_id), 0) last_pair {there}"
    [found] = frame(connection, sql, parameters).to_pylist()
    absent: tuple[tuple[int, int], ...] = ()
    if found["n"] < found["top"]:
        table = frame(
            connection,
            f"""select first, last from (
                select coalesce(lag(decision_id) over (order by decision_id), 0) + 1 first, decision_id - 1 last
                {there})
            where last >= first order by first""",
            parameters,
        )
        absent = tuple((row["first"], row["last"]) for row in table.to_pylist())
    # Rows of an older version have no time of their own: that of their job's last shard is the likeliest.
    [reflected] = frame(
        connection,
        """select coalesce(max(reflection_id) filter (collected <= $moment), 0) top, count(*) filter (guessed) n_guessed
        from (select r.reflection_id, coalesce(r.collected_at, s.collected_at, '1970-01-01'::timestamp) collected,
                r.collected_at is null guessed
            from reflections r
            left join (select job_id, max(collected_at) collected_at from job_shards group by job_id) s
            on s.job_id = r.job_id)""",
        moment,
    ).to_pylist()
    last_pair = frame(
        connection, "select coalesce(max(pair_id), 0) top from pairs where created_at <= $moment", moment
    ).to_pylist()[0]["top"]
    campaigns = frame(
        connection,
        """select c.campaign_id, c.overlap, max(w.position) last_position from campaigns c
        join campaign_pairs w on w.campaign_id = c.campaign_id
        where c.overlap > 1 and c.created_at <= $moment and w.added_at <= $moment
        group by c.campaign_id, c.overlap order by c.campaign_id""",
        moment,
    ).to_pylist()
    return Moment(
        last_decision_id=int(found["top"]),
        last_pair_id=max(int(last_pair), int(found["last_pair"])),
        last_reflection_id=int(reflected["top"]),
        absent_decisions=absent,
        campaigns=tuple(CampaignThen(**row) for row in campaigns),
        when=(when or utc_now()).isoformat(timespec="microseconds"),
        exact=when is None or not reflected["n_guessed"],
    )


def campaigns_of(connection: Connection, moment: Moment, dataset_id: int) -> list[dict[str, Any]]:
    """Campaigns of that moment that hold pairs of a dataset: ``campaign_id, name, overlap, n_pairs``."""
    past = frozen(moment)
    return frame(
        connection,
        past.query(
            """select c.campaign_id, c.name, c.overlap, count(*) n_pairs from campaigns c
            join campaign_pairs w on w.campaign_id = c.campaign_id join pairs p on p.pair_id = w.pair_id
            where p.dataset_id = $dataset group by all order by c.campaign_id"""
        ),
        {**past.parameters, "dataset": dataset_id},
    ).to_pylist()
