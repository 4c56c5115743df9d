"""Drafts of edits: the latest of each person and pair, kept while they type, so that nothing typed is lost."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import Any

from db.store import Store, frame, said_plainly, utc_now

_writing = threading.Lock()  # two updates of one row conflict, and no other process has the store
_FIELDS = ("instruction", "input", "output")


@said_plainly
def save(store: Store, identity: str, texts: Mapping[int, Mapping[str, str] | None]) -> None:
    """Keep the texts of these pairs as what ``identity`` has typed so far; None forgets a draft.

    Two tabs that write one draft at one moment: the later one stays.

    Raises:
        NotAllowedError: the role of who acts does not allow it.
    """
    if not texts:
        return
    with _writing, store.write("review") as connection:
        raw = connection.connection.driver_connection
        assert raw is not None
        for pair_id, typed in texts.items():
            if typed is None:
                raw.execute("delete from drafts where identity = $1 and pair_id = $2", [identity, pair_id]).fetchall()
                continue
            kept = json.dumps({name: str(typed.get(name, "")) for name in _FIELDS})
            raw.execute(
                "insert or replace into drafts values ($1, $2, $3, $4)", [identity, pair_id, kept, utc_now()]
            ).fetchall()


def drafts(store: Store, identity: str, pair_ids: Sequence[int]) -> dict[int, dict[str, Any]]:
    """pair_id -> ``{"texts": {instruction, input, output}, "at": seconds since 1970}``, where there is a draft."""
    if not pair_ids:
        return {}
    with store.read() as connection:
        found = frame(
            connection,
            """select pair_id, texts, saved_at from drafts
            where identity = $identity and pair_id in (select unnest($ids::bigint[]))""",
            {"identity": identity, "ids": list(pair_ids)},
        ).to_pylist()
    return {
        row["pair_id"]: {
            "texts": json.loads(row["texts"]),
            "at": row["saved_at"].replace(tzinfo=UTC).timestamp(),
        }
        for row in found
    }
