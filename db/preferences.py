"""What a person prefers (keys, how texts are shown): one JSON value per person and name, the latest only."""

from __future__ import annotations

import json
import threading
from typing import Any

from core.errors import StoreError
from db.store import Store, frame, said_plainly, utc_now

MOST_CHARACTERS = 20_000
_writing = threading.Lock()  # two updates of one row conflict, and no other process has the store


@said_plainly
def save(store: Store, identity: str, name: str, value: Any) -> None:
    """Keep ``value`` (anything that JSON can hold) as what ``identity`` prefers for ``name``.

    Raises:
        StoreError: no identity or name, or the value is larger than a preference can be.
        NotAllowedError: the role of who acts does not allow it.
    """
    kept = json.dumps(value, sort_keys=True)
    if not identity or not name or len(name) > 100 or len(kept) > MOST_CHARACTERS:
        raise StoreError(f"The preference {name[:40]!r} cannot be kept: it has no owner, or is too large.")
    with _writing, store.write("look") as connection:
        raw = connection.connection.driver_connection
        assert raw is not None
        raw.execute(
            "insert or replace into preferences values ($1, $2, $3, $4)", [identity, name, kept, utc_now()]
        ).fetchall()


def preference(store: Store, identity: str, name: str, usual: Any) -> Any:
    """What ``identity`` prefers for ``name``, or ``usual`` where nothing was kept."""
    with store.read() as connection:
        found = frame(
            connection,
            "select value from preferences where identity = $identity and name = $name",
            {"identity": identity, "name": name},
        ).to_pylist()
    return json.loads(found[0]["value"]) if found else usual
