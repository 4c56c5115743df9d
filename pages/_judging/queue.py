"""The frozen queue of one session of blind judging (pure): deciding a question never shifts what comes next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Queue:
    """Questions in their order (``pair_ids``: each is a pair of answers) and the place in it, its end included.

    ``index == len(pair_ids)`` is the end, with none on screen. ``decided`` and ``skipped`` are what this session did.
    """

    pair_ids: tuple[int, ...]
    index: int = 0
    decided: frozenset[int] = frozenset()
    skipped: frozenset[int] = frozenset()

    @property
    def current(self) -> int | None:
        """The question on screen, or None at the end."""
        return self.pair_ids[self.index] if self.index < len(self.pair_ids) else None

    @property
    def done(self) -> frozenset[int]:
        """Questions that need no more attention in this pass."""
        return self.decided | self.skipped

    @property
    def left(self) -> int:
        """How many questions of the queue still wait."""
        return sum(item_id not in self.done for item_id in self.pair_ids)

    def after(self, item_id: int, *, skipped: bool = False) -> Queue:
        """The queue once ``item_id`` was decided (or skipped): at the next question after it that still waits."""
        marked = replace(
            self,
            decided=self.decided - {item_id} if skipped else self.decided | {item_id},
            skipped=self.skipped | {item_id} if skipped else self.skipped - {item_id},
        )
        index = 1 + (self.pair_ids.index(item_id) if item_id in self.pair_ids else self.index)
        while index < len(self.pair_ids) and self.pair_ids[index] in marked.done:
            index += 1
        return replace(marked, index=index)

    def return_to(self, item_id: int) -> Queue:
        """The queue at ``item_id``, which waits again; one that is not in it is put in at the present place."""
        waiting = replace(self, decided=self.decided - {item_id}, skipped=self.skipped - {item_id})
        if item_id in self.pair_ids:
            return replace(waiting, index=self.pair_ids.index(item_id))
        return replace(waiting, pair_ids=(*self.pair_ids[: self.index], item_id, *self.pair_ids[self.index :]))

    def only(self, pair_ids: Sequence[int]) -> Queue:
        """A new pass over these questions, in the order of this queue."""
        wanted = frozenset(pair_ids)
        return Queue(tuple(item_id for item_id in self.pair_ids if item_id in wanted))
