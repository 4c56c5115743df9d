"""The meeting board over a large store: how long each slide and the report take, and what viewers cost the server.

    python -m tests.benchmarks.board FOLDER [--pairs 50000] [--scorers 8] [--viewers 10] [--seconds 10]

The store is that of the review benchmark with ``--scorers`` made-up scores of every original. Viewers ask the state
route in this process each second, as the component does; the share of a core is the process's own CPU time.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

from core.report import html_report
from core.settings import Settings
from db import board, board_numbers, service
from db.permission import Actor
from db.store import utc_now
from pages import _board_live
from pages._board import room
from pages._board_slides import KINDS
from tests.benchmarks import review_store

_MEMBERS = "insert into members select p.dataset_id, p.pair_id, p.original_id, null from pairs p"
_REFLECTIONS = """insert into reflections by name select job_id, dataset_id, original_id example_id,
    candidate_id final_id, true kept, 'made up' why from pairs"""
_SCORERS = """insert into scorers select nextval('scorer_ids'), 'made up ' || n, 'made_up_' || n, 'made up', '1',
    'a/model', null, null, '{}' from range(1, $scorers + 1) r(n)"""
_SCORES = """insert into scores select s.scorer_id, m.example_id,
    case when hash(m.example_id * s.scorer_id) % 50 = 0 then null
        else hash(m.example_id * 31 + s.scorer_id) % 10000 / 1e4 end,
    case when hash(m.example_id * s.scorer_id) % 50 = 0 then 'The response is empty.' end, false
    from members m, scorers s"""


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measure(folder: Path, *, n_pairs: int, n_scorers: int, n_viewers: int, seconds: float) -> dict[str, object]:
    """All figures of one run, in seconds where nothing else is said."""
    settings = Settings(home=folder, data_roots=(folder,))
    started = service.start(settings)
    assert started is not None, service.problem()
    try:
        review_store.fill(started.store, n_pairs=n_pairs, n_decided=n_pairs // 5)
        with started.store.write() as connection:
            raw = connection.connection.driver_connection
            assert raw is not None
            raw.execute(_MEMBERS)
            raw.execute(_REFLECTIONS)
            raw.execute(_SCORERS, {"scorers": n_scorers})
            raw.execute(_SCORES)
        marked = time.perf_counter()
        board_numbers.mark(started.store)
        found: dict[str, object] = {"mark": time.perf_counter() - marked}
        slides: dict[str, float] = {}
        for kind in KINDS:
            began = time.perf_counter()
            _board_live.slide(started, kind.key)
            slides[kind.key] = round(time.perf_counter() - began, 3)
        began = time.perf_counter()
        made = html_report(_board_live.all_slides(started), title="Report", made_at=utc_now())
        found |= {"slides": slides, "report": time.perf_counter() - began, "report_megabytes": len(made) / 1e6}
        return found | _viewers(started, n_viewers, seconds)
    finally:
        service.stop()


def _viewers(running: service.Service, n_viewers: int, seconds: float) -> dict[str, object]:
    people = [Actor(identity=f"P{i}", name=f"P{i}", role="reviewer") for i in range(n_viewers)]
    board.present(running.store, identity="P0", name="P0", slide="review")
    answers: list[float] = []
    used, end = _cpu_seconds(), time.monotonic() + seconds
    while time.monotonic() < end:
        turn = time.monotonic()
        for one in people:
            began = time.perf_counter()
            room.state(running, one, session=one.identity, mode="follow", slide="review")
            answers.append(time.perf_counter() - began)
        time.sleep(max(0.0, 1.0 - (time.monotonic() - turn)))
    answers.sort()
    return {
        "viewers": n_viewers,
        "answer_median_ms": 1000 * answers[len(answers) // 2],
        "answer_p95_ms": 1000 * answers[int(len(answers) * 0.95)],
        "share_of_a_core": (_cpu_seconds() - used) / seconds,
    }


def main() -> None:
    """Run from a shell; prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="an empty folder for the store")
    parser.add_argument("--pairs", type=int, default=50_000)
    parser.add_argument("--scorers", type=int, default=8)
    parser.add_argument("--viewers", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=10.0)
    asked = parser.parse_args()
    found = measure(
        asked.folder, n_pairs=asked.pairs, n_scorers=asked.scorers, n_viewers=asked.viewers, seconds=asked.seconds
    )
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
