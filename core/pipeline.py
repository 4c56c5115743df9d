"""Reading ahead and writing behind: a model that works in this thread waits for no disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Read = TypeVar("Read")
Worked = TypeVar("Worked")


def run_pipeline(
    items: Sequence[Item],
    *,
    read: Callable[[Item], Read],
    work: Callable[[Read], Worked],
    write: Callable[[Worked], None],
) -> None:
    """Do ``write(work(read(item)))`` for every item, in order, each of the three in a thread of its own.

    ``work`` runs in the calling thread (so that signals reach it), ``read`` is one item ahead and ``write`` one behind:
    three items are held at once. The first error of any of them ends it and is raised here; what was worked on before
    is written.
    """
    if not items:
        return
    with ThreadPoolExecutor(1, "read-ahead") as reader, ThreadPoolExecutor(1, "write-behind") as writer:
        written: Future[None] | None = None
        ahead = reader.submit(read, items[0])
        try:
            for number in range(len(items)):
                found = ahead.result()
                if number + 1 < len(items):
                    ahead = reader.submit(read, items[number + 1])
                result = work(found)
                if written is not None:
                    written.result()
                written = writer.submit(write, result)
                del found, result  # or the next item would be read while two are held for nothing
        finally:
            ahead.cancel()
        if written is not None:
            written.result()
