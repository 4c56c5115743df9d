"""Stores that many tests begin with, made once in a process and written anew for each test.

To make an empty store takes a tenth of a second, to fill one up to half a second; to write a file takes neither.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from db.store import Store

Filled = TypeVar("Filled")


def nothing(_store: Store) -> None:
    """An empty store."""


def put(path: Path, fill: Callable[[Store], Filled]) -> Filled:
    """Write to ``path`` the store that ``fill`` makes of an empty one, and return what it said."""
    data, said = _made(fill)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return said


@functools.cache
def _made(fill: Callable[[Store], Filled]) -> tuple[bytes, Filled]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "assay.duckdb"
        store = Store(path)
        try:
            said = fill(store)
        finally:
            store.close()  # all of it is in the one file now
        assert [one.name for one in Path(folder).iterdir()] == [path.name]
        return path.read_bytes(), said
