"""The queue of blind judging: deciding a question never shifts what comes next."""

from __future__ import annotations

from pages._judging.queue import Queue


def test_deciding_moves_on_and_never_shifts_what_comes_next() -> None:
    queue = Queue((5, 3, 9))
    assert queue.current == 5
    queue = queue.after(5)
    assert (queue.current, queue.left) == (3, 2)
    queue = queue.after(3, skipped=True).after(9)
    assert queue.current is None
    assert (queue.decided, queue.skipped, queue.left) == (frozenset({5, 9}), frozenset({3}), 0)


def test_after_going_back_and_deciding_the_queue_returns_to_where_people_were() -> None:
    queue = Queue((1, 2, 3, 4)).after(1).after(2).return_to(1)
    assert queue.current == 1
    assert queue.after(1).current == 3


def test_what_was_skipped_makes_another_pass_in_the_order_of_the_queue() -> None:
    queue = Queue((1, 2, 3)).after(1, skipped=True).after(2, skipped=True).after(3)
    assert queue.current is None
    assert queue.only((2, 1)).pair_ids == (1, 2)


def test_an_undone_question_of_another_day_is_put_in_front_and_the_next_one_is_not_lost() -> None:
    queue = Queue((1, 2, 3)).after(1).return_to(77)
    assert queue.current == 77
    assert queue.after(77).current == 2
