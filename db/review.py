"""Reads for the Review and Team pages: a pair whole, progress. Queues are in db/pair_queue.py."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from core.errors import StoreError
from db import decisions
from db.store import Store, frame, rows, said_plainly

_HISTORY = """decision_id, pair_id, reviewer, verdict, note, seconds, decided_at, undoes, result_id, purpose,
    campaign_id, bulk_id"""


def any_pairs(store: Store) -> bool:
    """Whether there is anything to review."""
    with store.read() as connection:
        return bool(rows(connection, "select 1 from pairs limit 1"))


def pair(store: Store, pair_id: int) -> dict[str, Any]:
    """A pair whole: both texts, scores, proposal, critique, its standing decision, flag and history.

    Raises:
        StoreError: there is no such pair.
    """
    found = pairs(store, [pair_id])
    if not found:
        raise StoreError(f"Pair {pair_id} is not in the store.")
    return found[0]


def pairs(store: Store, pair_ids: Sequence[int]) -> list[dict[str, Any]]:
    """As :func:`pair`, of many at once and in the order given; ids of no pair are left out.

    Everything is looked up by key, so that it takes as long in a store of a million pairs as in a small one.
    """
    with store.read() as connection:
        ids: dict[str, Any] = {"ids": list(pair_ids)}
        found = {
            row["pair_id"]: row
            for row in frame(
                connection,
                """select p.*, coalesce(d.name, 'removed dataset') dataset from pairs p
                left join datasets d on d.dataset_id = p.dataset_id
                where p.pair_id in (select unnest($ids::bigint[]))""",
                ids,
            ).to_pylist()
        }
        if not found:
            return []
        sides = [row[name] for row in found.values() for name in ("original_id", "candidate_id")]
        texts = {
            row["example_id"]: row
            for row in frame(
                connection,
                """select example_id, hash, instruction, input, output from examples
                where example_id in (select unnest($ids::bigint[]))""",
                {"ids": sides},
            ).to_pylist()
        }
        calls = {
            row["call_id"]: row
            for row in frame(
                connection,
                """select call_id, critique, model teacher_model, raw, prompt_version, outcome from teacher_calls
                where call_id in (select unnest($calls::varchar[]))""",
                {"calls": [row["call_id"] for row in found.values() if row["call_id"]]},
            ).to_pylist()
        }
        events = _events(connection, list(found))
        stand = standing(connection, events)
    no_call = dict.fromkeys(("critique", "teacher_model", "raw", "prompt_version", "outcome"))
    return [
        {
            **row,
            **{f"o_{name}": value for name, value in texts[row["original_id"]].items() if name != "example_id"},
            **{f"c_{name}": value for name, value in texts[row["candidate_id"]].items() if name != "example_id"},
            **(calls.get(row["call_id"]) or {**no_call, "call_id": row["call_id"]}),
            "critique": _critique(calls.get(row["call_id"])),
            "history": events[row["pair_id"]],
            "decision": stand.get(row["pair_id"]),
            "seen": _seen(events[row["pair_id"]]),
            "flag": _flag(events[row["pair_id"]]),
        }
        for row in (found[pair_id] for pair_id in dict.fromkeys(pair_ids) if pair_id in found)
    ]


def _critique(call: Mapping[str, Any] | None) -> dict[str, Any]:
    said = None if call is None else call["critique"]
    return json.loads(said) if isinstance(said, str) else (said or {})


def _events(connection: Connection, pair_ids: Sequence[int]) -> dict[int, list[dict[str, Any]]]:
    found = decisions.events_of(connection, pair_ids, columns=_HISTORY)
    for events in found.values():
        undone = {event["undoes"] for event in events}
        for event in events:
            event["undone"] = event["decision_id"] in undone
    return found


def _seen(events: Sequence[Mapping[str, Any]]) -> int | None:
    """What :func:`db.decisions.apply` compares with, when a decision comes back."""
    latest = decisions.standing(events)
    return None if latest is None else int(latest["decision_id"])


def _flag(events: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    said = [event for event in events if event["verdict"] in ("flag", "unflag") and not event["undone"]]
    return said[-1] if said and said[-1]["verdict"] == "flag" else None


def standing(connection: Connection, events: Mapping[int, Sequence[Mapping[str, Any]]]) -> dict[int, Mapping[str, Any]]:
    """What stands on these pairs (``current_decisions``), from all their rows: the view is asked only where several
    people must agree, since it costs 10 ms and more."""
    latest = {pair_id: decisions.standing(rows) for pair_id, rows in events.items()}
    found: dict[int, Mapping[str, Any]] = {pair_id: row for pair_id, row in latest.items() if row is not None}
    if not found:
        return {}
    shared = set(
        frame(
            connection,
            """select distinct p.pair_id from campaign_pairs p join campaigns c on c.campaign_id = p.campaign_id
            where c.overlap > 1 and p.pair_id in (select unnest($ids::bigint[]))""",
            {"ids": list(found)},
        )["pair_id"].to_pylist()
    )
    if shared:
        table = frame(
            connection,
            "select * from current_decisions where list_contains($ids::bigint[], pair_id)",
            {"ids": list(shared)},
        )
        agreed = {row["pair_id"]: row for row in table.to_pylist()}
        found = {pair_id: row for pair_id, row in found.items() if pair_id not in shared} | agreed
    return found


def decided_among(store: Store, pair_ids: Sequence[int]) -> set[int]:
    """Those of ``pair_ids`` on which a decision stands."""
    with store.read() as connection:
        return set(standing(connection, decisions.events_of(connection, pair_ids)))


def skipped_since(store: Store, moment: datetime) -> list[int]:
    """Pairs that somebody skipped after ``moment`` (naive UTC) and did not take back."""
    with store.read() as connection:
        sql = """select distinct pair_id from decisions where verdict = 'skip' and decided_at >= $moment
            and decision_id not in (
                select undoes from decisions where undoes is not null and decided_at >= $moment)"""
        found: list[int] = frame(connection, sql, {"moment": moment})["pair_id"].to_pylist()
    return found


def pairs_of(store: Store, example_id: int) -> list[dict[str, Any]]:
    """Pairs in which an example is original or candidate, with the verdict that stands."""
    with store.read() as connection:
        return rows(
            connection,
            """select p.pair_id, p.method, p.stage, p.teacher, p.proposal, p.proposal_reason, p.original_id,
                p.candidate_id, c.verdict, c.reviewer, c.decided_at
            from pairs p left join current_decisions c on c.pair_id = p.pair_id
            where p.original_id = :id or p.candidate_id = :id order by p.pair_id""",
            id=example_id,
        )


@said_plainly
def counts(store: Store, *, dataset_ids: Sequence[int] = ()) -> dict[str, Any]:
    """Counts of the pairs (of these datasets, or of all) by what stands: ``n_pairs, n_decided, n_accepted, n_rejected,
    n_flagged``. Reads every decision."""
    with store.read() as connection:
        found: dict[str, Any] = frame(
            connection,
            """select count(*) n_pairs, count(c.pair_id) n_decided,
                count(*) filter (c.verdict in ('accept', 'edit', 'new_instruction', 'new_response')) n_accepted,
                count(*) filter (c.verdict = 'reject') n_rejected, count(*) filter (f.verdict = 'flag') n_flagged
            from pairs p left join current_decisions c on c.pair_id = p.pair_id
            left join current_flags f on f.pair_id = p.pair_id
            where len($datasets) = 0 or list_contains($datasets, p.dataset_id)""",
            {"datasets": list(dataset_ids)},
        ).to_pylist()[0]
    return found


def own_pace(store: Store, reviewer: str) -> dict[str, Any]:
    """Of one person, without bulk decisions: ``n_today`` and ``seconds``, those of the last 50."""
    with store.read() as connection:
        mine = rows(
            connection,
            """select decision_id, seconds, undoes, verdict,
                decided_at >= date_trunc('day', now() at time zone 'utc') today
            from decisions where reviewer = :reviewer and purpose <> 'bulk' order by decision_id desc""",
            reviewer=reviewer,
        )
    undone = {row["undoes"] for row in mine}
    kept = [
        row
        for row in mine
        if row["decision_id"] not in undone and row["verdict"] not in ("skip", "flag", "unflag", "undo")
    ]
    return {
        "n_today": sum(row["today"] for row in kept),
        "seconds": [row["seconds"] for row in kept if row["seconds"] is not None][:50],
    }


def team_progress(store: Store) -> list[dict[str, Any]]:
    """Per reviewer: counts by verdict, median seconds, first and last decision."""
    with store.read() as connection:
        return rows(
            connection,
            """select reviewer, count(*) filter (verdict not in ('skip', 'flag', 'unflag')) n_decisions,
                count(*) filter (verdict = 'accept') n_accept, count(*) filter (verdict = 'edit') n_edit,
                count(*) filter (verdict in ('new_instruction', 'new_response')) n_mixed,
                count(*) filter (verdict = 'reject') n_reject, count(*) filter (verdict = 'flag') n_flag,
                count(*) filter (verdict = 'skip') n_skip,
                median(seconds) median_seconds, min(decided_at) first_at, max(decided_at) last_at
            from standing_decisions where purpose <> 'bulk' group by reviewer order by n_decisions desc, reviewer""",
        )


def decisions_over_time(store: Store) -> list[dict[str, Any]]:
    """Standing decisions in buckets of ten minutes: ``bucket, reviewer, verdict, n``."""
    with store.read() as connection:
        return rows(
            connection,
            """select time_bucket(interval '10 minutes', decided_at) bucket, reviewer, verdict, count(*) n
            from standing_decisions where verdict not in ('skip', 'flag', 'unflag') and purpose <> 'bulk'
            group by all order by bucket, reviewer, verdict""",
        )


def proposal_agreement(store: Store) -> list[dict[str, Any]]:
    """How people decided against what the student proposed: ``stage, proposal, verdict, n``."""
    with store.read() as connection:
        return rows(
            connection,
            """select p.stage, p.proposal, c.verdict, count(*) n from pairs p
            join current_decisions c on c.pair_id = p.pair_id group by all order by all""",
        )
