"""How far a campaign is: its pairs by state, its people, its pace, what gold pairs say of each person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection

from core.campaign import seconds_left
from core.errors import StoreError
from db.campaigns import COUNTS
from db.past import view_texts
from db.store import Store, frame, scalar, utc_now

PAIR_STATES = ("waiting", "agreed", "disputed", "adjudicated", "bulk")
"""``waiting``: fewer decisions than the overlap. ``agreed``: enough, and all words are the same (with overlap 1: it is
decided). ``disputed``: enough, and they differ. ``adjudicated`` and ``bulk``: a ruling, or a bulk decision, stands."""
RECENT_SECONDS = 1800
_SHORTEST_SECONDS = 60


def _pairs() -> str:
    """Each pair of ``$campaign`` with its state, as ``pair_states``, to put before a query.

    The views are read over the decisions on the campaign's pairs alone, under the names of table and views: over all
    decisions of a large store they would take five times as long. Only decisions of the campaign count against its
    overlap; the words that must agree are everybody's (db/schema.py says what stands).
    """
    views = ",\n".join(f"{name} as ({sql})" for name, sql in view_texts().items())
    return f"""
    with mine as (select pair_id, position, gold from campaign_pairs where campaign_id = $campaign),
    decisions as materialized (
        select * exclude (shown, note) from main.decisions where pair_id in (select pair_id from mine)),
    {views},
    counted as (
        select pair_id, count(distinct reviewer) n from standing_decisions where {COUNTS} group by pair_id),
    words as (
        select pair_id, count(distinct verdict || ':' || coalesce(result_id, -1)) n from reviewer_decisions
        group by pair_id),
    pair_states as (
        select m.*, coalesce(c.n, 0) n_decisions, s.verdict, case
            when s.purpose = 'adjudication' then 'adjudicated' when s.purpose = 'bulk' then 'bulk'
            when coalesce(c.n, 0) < $overlap then 'waiting'
            when $overlap = 1 or w.n = 1 then 'agreed' else 'disputed' end state
        from mine m left join counted c on c.pair_id = m.pair_id left join words w on w.pair_id = m.pair_id
        left join current_decisions s on s.pair_id = m.pair_id)"""


@dataclass(frozen=True)
class PersonProgress:
    """One person in a campaign. ``n_gold_right`` of ``n_gold`` gold pairs were decided as expected; ``n_late``
    decisions came too late to count. ``median_seconds`` is None where no time was taken."""

    identity: str
    n_decided: int
    n_recent: int
    n_skipped: int
    n_late: int
    median_seconds: float | None
    n_gold: int
    n_gold_right: int
    first_at: Any
    last_at: Any

    @property
    def gold_accuracy(self) -> float | None:
        """Share of gold pairs decided as expected; None without any."""
        return self.n_gold_right / self.n_gold if self.n_gold else None


@dataclass(frozen=True)
class Progress:
    """A campaign in numbers. ``states``: pairs by ``PAIR_STATES``; ``waiting``: those that wait by the number of
    decisions they have. ``n_left`` decisions are missing; of them ``n_recent`` came in the last ``recent_seconds``."""

    campaign_id: int
    overlap: int
    n_pairs: int
    n_decisions: int
    n_left: int
    states: Mapping[str, int]
    waiting: Mapping[int, int]
    n_recent: int
    recent_seconds: float
    people: tuple[PersonProgress, ...]

    @property
    def n_wanted(self) -> int:
        """Decisions in all, as planned."""
        return self.n_pairs * self.overlap

    @property
    def share(self) -> float:
        """Share of the decisions that are there; pairs that a ruling settled need no more."""
        return 1 - self.n_left / self.n_wanted if self.n_wanted else 1.0

    @property
    def per_hour(self) -> float | None:
        """Decisions an hour at the present pace; None while nobody decides."""
        return self.n_recent / self.recent_seconds * 3600 if self.n_recent else None

    @property
    def seconds_left(self) -> float | None:
        """Seconds to the end at the present pace; None while nobody decides, 0 when it is done."""
        return seconds_left(n_left=self.n_left, n_recent=self.n_recent, window_seconds=self.recent_seconds)


def _overlap(connection: Connection, campaign_id: int) -> int:
    overlap = scalar(connection, "select overlap from campaigns where campaign_id = :c", c=campaign_id)
    if overlap is None:
        raise StoreError(f"There is no campaign {campaign_id} in this store. Choose one from the list.")
    return int(overlap)


def progress(store: Store, campaign_id: int) -> Progress:
    """How far a campaign is.

    Raises:
        StoreError: there is no such campaign.
    """
    now = utc_now()
    with store.read() as connection:
        overlap = _overlap(connection, campaign_id)
        counts = frame(
            connection,
            f"{_pairs()} select state, n_decisions, count(*) n from pair_states group by all",
            {"campaign": campaign_id, "overlap": overlap},
        ).to_pylist()
        people = _people(connection, campaign_id, now - timedelta(seconds=RECENT_SECONDS))
    states = {state: sum(row["n"] for row in counts if row["state"] == state) for state in PAIR_STATES}
    open_ones = [row for row in counts if row["state"] == "waiting"]
    first = min((one.first_at for one in people if one.first_at is not None), default=None)
    elapsed = (now - first).total_seconds() if first is not None else RECENT_SECONDS
    return Progress(
        campaign_id=campaign_id,
        overlap=overlap,
        n_pairs=sum(row["n"] for row in counts),
        n_decisions=sum(row["n"] * row["n_decisions"] for row in counts),
        n_left=sum(row["n"] * (overlap - row["n_decisions"]) for row in open_ones),
        states=states,
        waiting={row["n_decisions"]: row["n"] for row in sorted(open_ones, key=lambda row: row["n_decisions"])},
        n_recent=sum(one.n_recent for one in people),
        recent_seconds=min(RECENT_SECONDS, max(_SHORTEST_SECONDS, elapsed)),
        people=tuple(people),
    )


def _people(connection: Connection, campaign_id: int, since: Any) -> list[PersonProgress]:
    """Everybody who is named in the campaign or decided something in it, most decisions first."""
    found = frame(
        connection,
        f"""with mine as (
            select * from standing_decisions where campaign_id = $campaign),
        words as (
            select * from mine where {COUNTS}
            qualify row_number() over (partition by pair_id, reviewer order by decision_id desc) = 1),
        decided as (
            select w.reviewer identity, count(*) n_decided, count(*) filter (w.decided_at >= $since) n_recent,
                median(w.seconds) median_seconds, count(p.gold) n_gold,
                count(*) filter (p.gold = w.verdict) n_gold_right,
                min(w.decided_at) first_at, max(w.decided_at) last_at
            from words w left join campaign_pairs p on p.campaign_id = $campaign and p.pair_id = w.pair_id
            group by w.reviewer),
        others as (
            select reviewer identity, count(distinct pair_id) filter (verdict = 'skip') n_skipped,
                count(*) filter (purpose = 'late') n_late from mine group by reviewer),
        everybody as (
            select identity from campaign_people where campaign_id = $campaign
            union select identity from others)
        select e.identity, coalesce(d.n_decided, 0) n_decided, coalesce(d.n_recent, 0) n_recent,
            coalesce(o.n_skipped, 0) n_skipped, coalesce(o.n_late, 0) n_late, d.median_seconds,
            coalesce(d.n_gold, 0) n_gold, coalesce(d.n_gold_right, 0) n_gold_right, d.first_at, d.last_at
        from everybody e left join decided d on d.identity = e.identity left join others o on o.identity = e.identity
        order by n_decided desc, e.identity""",
        {"campaign": campaign_id, "since": since},
    ).to_pylist()
    return [PersonProgress(**row) for row in found]


def pairs(store: Store, campaign_id: int, *, states: Sequence[str] = PAIR_STATES) -> list[dict[str, Any]]:
    """The pairs of a campaign in these states, in its order: ``pair_id, position, gold, n_decisions, state, verdict``
    (what stands), ``stage`` and the first 200 characters of the original's instruction."""
    with store.read() as connection:
        return frame(
            connection,
            f"""{_pairs()} select q.pair_id, q.position, q.gold, q.n_decisions, q.state, q.verdict, p.stage,
                left(e.instruction, 200) instruction
            from pair_states q join pairs p on p.pair_id = q.pair_id
            left join examples e on e.example_id = p.original_id
            where list_contains($states, q.state) order by q.position""",
            {
                "campaign": campaign_id,
                "overlap": _overlap(connection, campaign_id),
                "states": list(states),
            },
        ).to_pylist()


def disputed_ids(store: Store, campaign_id: int) -> list[int]:
    """Pairs that have all their decisions and differ in them, in the order of the campaign."""
    with store.read() as connection:
        found = frame(
            connection,
            f"{_pairs()} select pair_id from pair_states where state = 'disputed' order by position",
            {"campaign": campaign_id, "overlap": _overlap(connection, campaign_id)},
        )
    return [int(pair_id) for pair_id in found["pair_id"].to_pylist()]


def over_time(store: Store, campaign_id: int) -> list[dict[str, Any]]:
    """Decisions that count, in order: ``bucket, until`` (naive UTC) and ``n``; by minutes, after a day by hours."""
    with store.read() as connection:
        return frame(
            connection,
            f"""with counted as (
                select min(decided_at) first_at from standing_decisions where {COUNTS}
                group by pair_id, reviewer),
            step as (
                select max(first_at) - min(first_at) < interval '1 day' is_short from counted)
            select case when is_short then date_trunc('minute', first_at) else date_trunc('hour', first_at) end bucket,
                bucket + case when is_short then interval '1 minute' else interval '1 hour' end until, count(*) n
            from counted, step group by all order by bucket""",
            {"campaign": campaign_id},
        ).to_pylist()


def version(store: Store) -> str:
    """A short text that changes whenever a campaign is made or changed, or anything is decided."""
    with store.read() as connection:
        return str(
            scalar(
                connection,
                """select concat_ws('-', (select max(event_id) from campaign_events),
                    (select max(decision_id) from decisions), (select max(change_id) from role_changes))""",
            )
        )
