"""The search over sizes: the same seed and losses give the same sizes, whatever came between."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest

from core.errors import InputError, JobError
from core.search import SizeSearch, Trial


def loss_of(n_rows: int) -> float:
    """A smooth valley with its lowest point at 1,500 rows."""
    return 3.0 + 0.2 * (math.log(n_rows) - math.log(1500)) ** 2


def trials(
    n: int, *, seed: int = 3, lowest: int = 100, highest: int = 10_000, failing: int | None = None
) -> list[Trial]:
    search = SizeSearch(lowest=lowest, highest=highest, seed=seed)
    done = []
    for number in range(n):
        size = search.ask()
        if size is None:
            break
        done.append(Trial(size, None if number == failing else loss_of(size)))
        search.tell(done[-1].loss_nats)
    return done


def test_it_starts_at_the_cheapest_size_and_finds_the_valley():
    done = trials(30)
    assert done[0].n_rows == 100
    assert all(100 <= one.n_rows <= 10_000 for one in done)
    best = min(done, key=lambda one: one.loss_nats or math.inf)
    assert best.loss_nats == pytest.approx(3.0, abs=0.02)


def test_the_same_seed_gives_the_same_sizes_and_another_one_others():
    assert trials(15) == trials(15)
    assert [one.n_rows for one in trials(15)] != [one.n_rows for one in trials(15, seed=4)]


@pytest.mark.parametrize("failing", [None, 0, 4])
@pytest.mark.parametrize("done_before", [0, 1, 5, 11])
def test_an_interrupted_search_goes_on_as_the_straight_one(failing, done_before):
    straight = trials(16, failing=failing)
    search = SizeSearch(lowest=100, highest=10_000, seed=3)
    search.replay(straight[:done_before])
    for expected in straight[done_before:]:
        assert search.ask() == expected.n_rows
        search.tell(expected.loss_nats)


def test_a_failed_trial_is_avoided_and_does_not_end_the_search():
    search = SizeSearch(lowest=100, highest=10_000, seed=1)
    sizes = []
    for _ in range(20):
        size = search.ask()
        assert size is not None
        sizes.append(size)
        search.tell(loss_of(size) if size < 800 else math.nan)
    assert sum(size >= 800 for size in sizes) < 12


def test_a_search_that_only_fails_still_goes_on():
    search = SizeSearch(lowest=10, highest=1000, seed=0)
    sizes = []
    for _ in range(10):
        sizes.append(search.ask())
        search.tell(None)
    assert None not in sizes


def test_no_size_is_suggested_twice_and_a_small_range_ends():
    done = trials(50, lowest=20, highest=23)
    sizes = [one.n_rows for one in done]
    assert len(sizes) == len(set(sizes)) <= 4
    assert set(sizes) <= {20, 21, 22, 23}


def test_both_ends_of_the_range_can_be_reached():
    search = SizeSearch(lowest=10, highest=12, seed=0)
    found = set()
    while (size := search.ask()) is not None:
        found.add(size)
        search.tell(1.0 / size)
    assert found == {10, 11, 12}


def test_replaying_what_was_never_suggested_is_refused_in_words():
    search = SizeSearch(lowest=100, highest=1000, seed=0)
    with pytest.raises(JobError, match="its trial 1 had 333 rows"):
        search.replay([Trial(333, 2.0)])


def test_a_trial_after_the_last_size_is_refused_in_words():
    search, trials = SizeSearch(lowest=1, highest=2, seed=0), []
    while (size := search.ask()) is not None:
        search.tell(2.0)
        trials.append(Trial(size, 2.0))
    with pytest.raises(JobError, match="suggests no further size"):
        SizeSearch(lowest=1, highest=2, seed=0).replay([*trials, Trial(1, 2.0)])


def test_asking_and_telling_take_turns():
    search = SizeSearch(lowest=100, highest=1000, seed=0)
    with pytest.raises(JobError, match="not asked"):
        search.tell(1.0)
    search.ask()
    with pytest.raises(JobError, match="before it was told"):
        search.ask()


@pytest.mark.parametrize(
    ("lowest", "highest", "seed"), [(0, 10, 0), (10, 10, 0), (20, 10, 0), (1, 10, -1), (1, 2, 2**31)]
)
def test_a_search_over_nothing_is_refused(lowest, highest, seed):
    with pytest.raises(InputError):
        SizeSearch(lowest=lowest, highest=highest, seed=seed)


def test_the_searcher_says_nothing_on_the_console():
    """A worker's log shall hold what the job says, not Optuna's greetings."""
    code = (
        "from core.search import SizeSearch\n"
        "s = SizeSearch(lowest=10, highest=100, seed=0)\n"
        "for i in range(8):\n    s.ask(); s.tell(1.0 + i)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")
