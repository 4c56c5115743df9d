"""Batches: every item once, within the budget, and back to smaller ones when memory runs out."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.batches import Batcher, plan

LENGTHS = st.lists(st.integers(1, 50), max_size=40)


@given(lengths=LENGTHS, budget=st.integers(1, 200), padded=st.booleans(), data=st.data())
def test_a_plan_holds_every_item_once_within_the_budget(lengths, budget, padded, data):
    groups = data.draw(st.lists(st.integers(0, 2), min_size=len(lengths), max_size=len(lengths)))
    order = sorted(range(len(lengths)), key=lambda i: (groups[i], -lengths[i]))
    batches = plan(lengths, order, budget=budget, groups=groups, padded=padded)
    assert [i for batch in batches for i in batch] == order
    for batch in batches:
        assert len({groups[i] for i in batch}) == 1
        cost = len(batch) * lengths[batch[0]] if padded else sum(lengths[i] for i in batch)
        assert cost <= budget or len(batch) == 1


class Memory:
    """A model that can take so many tokens at once and no more."""

    def __init__(self, lengths, room):
        self.lengths, self.room, self.runs = lengths, room, 0

    def __call__(self, batch):
        self.runs += 1
        if len(batch) * max(self.lengths[i] for i in batch) > self.room:
            raise MemoryError
        return [10 * i for i in batch]


@pytest.mark.parametrize("workers", [1, 3])
@given(lengths=LENGTHS, budget=st.integers(1, 400), room=st.integers(1, 120))
def test_what_fits_alone_is_done_and_what_does_not_is_none(workers, lengths, budget, room):
    batcher = Batcher(budget, workers=workers)
    seen = []
    found = batcher.run(lengths, Memory(lengths, room), on_progress=lambda done, total: seen.append((done, total)))
    assert found == [10 * i if lengths[i] <= room else None for i in range(len(lengths))]
    assert [total for _, total in seen] == [sum(lengths)] * len(seen)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert not lengths or seen[-1][0] == sum(lengths)


def test_running_out_is_logged_once_and_remembered(caplog):
    lengths = [10] * 64
    batcher = Batcher(320, what="The student demo")
    model = Memory(lengths, 40)
    with caplog.at_level(logging.WARNING):
        assert None not in batcher.run(lengths, model)
        runs, model.runs = model.runs, 0
        assert None not in batcher.run(lengths, model)
    assert batcher.budget <= 40
    assert model.runs < runs  # the second time it knows
    assert [one.message for one in caplog.records] == [
        "The student demo ran out of memory; batches are smaller from here on."
    ]


def test_another_error_is_not_taken_for_memory():
    def broken(batch):
        raise RuntimeError("the model is broken")

    for workers in (1, 2):
        with pytest.raises(RuntimeError, match="broken"):
            Batcher(10, workers=workers).run([5] * 9, broken)
