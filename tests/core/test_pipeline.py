"""Reading ahead and writing behind: in order, three at once, and no error is lost in a thread."""

from __future__ import annotations

import threading

import pytest

from core.errors import JobError
from core.pipeline import run_pipeline


def test_everything_is_done_once_and_in_order():
    written: list[int] = []
    run_pipeline(list(range(20)), read=lambda i: i + 1, work=lambda i: i * 10, write=written.append)
    assert written == [10 * (i + 1) for i in range(20)]
    run_pipeline([], read=lambda i: i, work=lambda i: i, write=written.append)


def test_work_is_done_in_the_calling_thread_so_that_signals_reach_it():
    seen: set[str] = set()

    def note(_: int) -> int:
        seen.add(threading.current_thread().name)
        return 0

    run_pipeline([1, 2, 3], read=lambda i: i, work=note, write=lambda _: None)
    assert seen == {threading.current_thread().name}


def test_at_most_three_are_held_at_once():
    """The shard at work, the next one and the last one: memory must not grow with the number of shards."""
    lock, held, most = threading.Lock(), 0, 0

    def read(i: int) -> int:
        nonlocal held, most
        with lock:
            held += 1
            most = max(most, held)
        return i

    def write(_: int) -> None:
        nonlocal held
        with lock:
            held -= 1

    run_pipeline(list(range(50)), read=read, work=lambda i: i, write=write)
    assert held == 0
    assert most <= 3


@pytest.mark.parametrize("stage", ["read", "work", "write"])
@pytest.mark.parametrize("at", [0, 3, 4])
def test_an_error_of_any_stage_ends_it_and_what_was_worked_on_before_is_written(stage, at):
    written: list[int] = []

    def fails(name: str, i: int) -> int:
        if name == stage and i == at:
            raise JobError(f"no {name} of {i}")
        return i

    def write(i: int) -> None:
        written.append(fails("write", i))

    with pytest.raises(JobError, match=f"no {stage} of {at}"):
        run_pipeline(range(5), read=lambda i: fails("read", i), work=lambda i: fails("work", i), write=write)
    assert written[:at] == list(range(at))
