"""Many plain pairs for tests of campaigns, put into the store at once."""

from __future__ import annotations

from sqlalchemy import text

from core.example import Example
from db import commands
from db.decisions import Entry
from db.store import Store, frame

ORIGINAL, CANDIDATE = Example("Say it.", "", "it"), Example("Say it well.", "", "It, well.")


def add_pairs(store: Store, n: int) -> list[int]:
    """``n`` undecided pairs of the same two examples; their ids."""
    with store.adding_examples() as connection:
        ids = commands.add_examples(connection, [ORIGINAL, CANDIDATE])
        connection.execute(
            text(
                """insert into pairs (pair_id, job_id, dataset_id, original_id, base_id, candidate_id, method, stage,
                    teacher, proposal, proposal_reason, ifd_original, ifd_candidate, created_at)
                select nextval('pair_ids'), 'job-1', 1, :o, :o, :c, 'V2', 'instruction', 'recorded', 'reflected',
                    'because', 0.5, 0.6, now()::timestamp from range(:n)"""
            ),
            {"o": ids[ORIGINAL.hash], "c": ids[CANDIDATE.hash], "n": n},
        )
        found = frame(connection, "select pair_id from pairs order by pair_id desc limit $n", {"n": n})
    return sorted(found["pair_id"].to_pylist())


def entry(press: str, pair_id: int | None, verdict: str = "accept", **more: object) -> Entry:
    """A decision as a desk sends it; the verdict "undo" takes back ``undoes``."""
    action = verdict if verdict in ("undo", "flag", "unflag") else "decide"
    return Entry(press=press, action=action, pair_id=pair_id, verdict="" if action == "undo" else verdict, **more)  # type: ignore[arg-type]


def counted(store: Store, campaign_id: int) -> dict[int, list[str]]:
    """By pair: who decided it, of the decisions of the campaign that stand and count; a name twice is seen twice."""
    with store.read() as connection:
        rows = frame(
            connection,
            """select pair_id, list(reviewer order by decision_id) people from standing_decisions
            where campaign_id = $c and purpose = 'review' and verdict in ('accept', 'reject', 'edit',
                'new_instruction', 'new_response') group by pair_id""",
            {"c": campaign_id},
        ).to_pylist()
    return {row["pair_id"]: row["people"] for row in rows}
