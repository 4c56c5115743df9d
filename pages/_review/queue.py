"""The frozen queue of one review session (pure): deciding a pair never shifts what comes next."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Queue:
    """Pairs in their order and the place in it. ``index == len(pair_ids)`` is the end, with no pair on screen.

    ``decided`` and ``skipped`` are what this session did; ``elsewhere`` were decided by other people meanwhile.
    """

    pair_ids: tuple[int, ...]
    index: int = 0
    decided: frozenset[int] = frozenset()
    skipped: frozenset[int] = frozenset()
    elsewhere: frozenset[int] = frozenset()

    @property
    def current(self) -> int | None:
        """The pair on screen, or None at the end."""
        return self.pair_ids[self.index] if self.index < len(self.pair_ids) else None

    @property
    def done(self) -> frozenset[int]:
        """Pairs that need no more attention in this pass."""
        return self.decided | self.skipped | self.elsewhere

    @property
    def passed(self) -> tuple[int, ...]:
        """Pairs before the place that were left without a decision or a skip."""
        return tuple(pair_id for pair_id in self.pair_ids[: self.index] if pair_id not in self.done)

    @property
    def left(self) -> int:
        """How many pairs of the queue still wait."""
        return sum(pair_id not in self.done for pair_id in self.pair_ids)

    def upcoming(self, n: int) -> tuple[int, ...]:
        """The next ``n`` pairs after the one on screen that still wait."""
        waiting = (pair_id for pair_id in self.pair_ids[self.index + 1 :] if pair_id not in self.done)
        return tuple(pair_id for _, pair_id in zip(range(n), waiting, strict=False))

    def after(self, pair_id: int, *, skipped: bool = False) -> Queue:
        """The queue once ``pair_id`` was decided (or skipped): at the next pair after it that still waits."""
        marked = replace(
            self,
            decided=self.decided - {pair_id} if skipped else self.decided | {pair_id},
            skipped=self.skipped | {pair_id} if skipped else self.skipped - {pair_id},
        )
        return marked._at_next_waiting(self._place(pair_id) + 1)

    def without(self, pair_ids: Collection[int]) -> Queue:
        """The queue once other people decided ``pair_ids``; the pair on screen stays."""
        taken = frozenset(pair_ids) - self.decided - self.skipped
        return replace(self, elsewhere=self.elsewhere | taken)

    def waiting_from_here(self) -> Queue:
        """The place moved on to the first pair from here that still waits."""
        return self._at_next_waiting(self.index)

    def forward(self) -> Queue:
        """One place on, without a decision; at the end it stays."""
        return replace(self, index=min(self.index + 1, len(self.pair_ids)))

    def back(self) -> Queue:
        """One place back; at the beginning it stays."""
        return replace(self, index=max(self.index - 1, 0))

    def return_to(self, pair_id: int) -> Queue:
        """The queue at ``pair_id``, which waits again; a pair that is not in it is put in at the present place."""
        waiting = replace(
            self,
            decided=self.decided - {pair_id},
            skipped=self.skipped - {pair_id},
            elsewhere=self.elsewhere - {pair_id},
        )
        if pair_id in self.pair_ids:
            return replace(waiting, index=self.pair_ids.index(pair_id))
        return replace(waiting, pair_ids=(*self.pair_ids[: self.index], pair_id, *self.pair_ids[self.index :]))

    def only(self, pair_ids: Sequence[int]) -> Queue:
        """A new pass over these pairs, in the order of this queue."""
        wanted = frozenset(pair_ids)
        return Queue(tuple(pair_id for pair_id in self.pair_ids if pair_id in wanted))

    def _place(self, pair_id: int) -> int:
        return self.pair_ids.index(pair_id) if pair_id in self.pair_ids else self.index

    def _at_next_waiting(self, start: int) -> Queue:
        index = start
        while index < len(self.pair_ids) and self.pair_ids[index] in self.done:
            index += 1
        return replace(self, index=index)
