"""What nobody but an admin reads before a blind campaign is closed: what other people said of its pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from db.campaigns import LAST_STATE
from db.permission import Actor
from db.store import Store, frame, rows

OPEN_BLIND_PAIRS = f"""select w.pair_id from campaign_pairs w join campaigns c on c.campaign_id = w.campaign_id
    where (c.settings->>'blind') = 'true' and 'closed' is distinct from {LAST_STATE}"""
"""SQL: the pairs of blind campaigns that are open or paused."""


def viewer_of(actor: Actor | None) -> str | None:
    """The identity whose own words alone are shown on such pairs; None: everybody's are (an admin, the server)."""
    return None if actor is None or actor.may("administer") else actor.identity


def pairs_among(connection: Connection, pair_ids: Sequence[int]) -> set[int]:
    """Those of ``pair_ids`` that belong to a blind campaign that is not closed."""
    if not pair_ids:
        return set()
    sql = f"select distinct pair_id from ({OPEN_BLIND_PAIRS}) where list_contains($ids, pair_id)"
    return set(frame(connection, sql, {"ids": list(pair_ids)})["pair_id"].to_pylist())


def any_open(store: Store) -> bool:
    """Whether there is a blind campaign that is not closed."""
    with store.read() as connection:
        return bool(rows(connection, f"{OPEN_BLIND_PAIRS} limit 1"))


def without_others(pair: Mapping[str, Any], viewer: str) -> dict[str, Any]:
    """A pair (:func:`db.review.pair`) with what ``viewer`` said of it, and nothing of what others did."""
    own = [event for event in pair["history"] if event["reviewer"] == viewer]
    mine = {name: row if row and row["reviewer"] == viewer else None for name, row in
            (("decision", pair["decision"]), ("flag", pair["flag"]))}  # fmt: skip
    return {**pair, "history": own, **mine}
