"""The review desk's server is killed with kill -9 in mid-review: nothing acknowledged is lost, nothing is doubled."""

from __future__ import annotations

from pathlib import Path

from tests.benchmarks import review_store
from tests.benchmarks.review_kills import kill_rounds
from tests.pages import review_server


def test_a_server_killed_three_times_in_mid_review_lost_and_doubled_nothing(tmp_path: Path) -> None:
    review_store.make(tmp_path, n_pairs=2000, n_decided=100)
    found = kill_rounds(tmp_path, n_kills=3, start=review_server.start)
    assert found.wrong == []
    assert found.n_acknowledged > 20
