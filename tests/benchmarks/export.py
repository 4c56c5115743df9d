"""Export a curated set, now and as it was, and print the seconds, for each format.

    python -m tests.benchmarks.export [--rows 50000] [--history 0]

A dataset of ROWS rows of about 600 characters gets a pair for every second row, of which four in five are decided by
two people. Each format is exported as it is now; then as many decisions again are stored, and each export is written
again from the store as it was: the bytes must be equal. With ``--history N`` the first pages and the stream of a
history of N decisions are timed as well.
"""

from __future__ import annotations

import argparse
import random
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
from sqlalchemy import text

from core.example import Example
from core.export import FORMATS
from core.filters import ExportChoice
from core.history import HistoryFilter
from db import commands, curated, exports, history
from db.store import Store

T = TypeVar("T")
_PAIRS = """insert into pairs (pair_id, job_id, dataset_id, original_id, base_id, candidate_id, method, stage, teacher,
        proposal, proposal_reason, created_at, round)
    select nextval('pair_ids'), 'job', :dataset, m.example_id, m.example_id, c.example_id, 'V2', 'instruction',
        'teacher', 'reflected', 'because', now()::timestamp, 1
    from members m join members c on c.dataset_id = m.dataset_id and c.position = m.position + :n
    where m.dataset_id = :dataset and m.position < :n and m.position % 2 = 0"""
_DECISIONS = """insert into decisions (decision_id, pair_id, reviewer, verdict, result_id, seconds, shown, press,
        decided_at, purpose)
    select nextval('decision_ids'), pair_id, :who, v, case when v = 'accept' then candidate_id end, 4.0, '{}',
        :who || pair_id, now()::timestamp, 'review'
    from (select *, case when (pair_id * 7 + :shift) % 3 = 0 then 'reject' else 'accept' end v from pairs)
    where pair_id % 5 > 0"""
_HISTORY = """insert into decisions (decision_id, pair_id, reviewer, verdict, seconds, shown, press, decided_at,
        purpose)
    select nextval('decision_ids'), (select min(pair_id) from pairs) + i % :pairs, 'person ' || i % 12,
        case when i % 3 = 0 then 'skip' else 'flag' end, 4.0, '{"ifd_original": 0.5}', 'more ' || i, now()::timestamp,
        'review' from range(:n) t(i)"""


def fill(store: Store, *, n_rows: int) -> int:
    """The dataset with its pairs and decisions; returns its id. Candidates are the later members of a second one."""
    choice = random.Random(0)
    words = ["".join(choice.choices("abcdefghijklmnopqrstuvwxyz", k=choice.randint(2, 11))) for _ in range(20_000)]
    joined = " ".join(words)

    def batch(first: int, last: int) -> pa.RecordBatch:
        made = []
        for i in range(first, last):
            start = i * 7919 % (len(joined) - 600)
            made.append(Example(f"{i} {joined[start : start + 140]}", "", joined[start + 200 : start + 600]))
        return pa.RecordBatch.from_pydict(
            {
                "row": pa.array(range(first, last), pa.int64()),
                "hash": [one.hash for one in made],
                "instruction": [one.instruction for one in made],
                "input": [one.input for one in made],
                "output": [one.output for one in made],
                "metadata": pa.array([f'{{"id": {i}}}' for i in range(first, last)], pa.string()),
            }
        )

    batches = [batch(i, min(i + 10_000, 2 * n_rows)) for i in range(0, 2 * n_rows, 10_000)]
    dataset_id = commands.import_dataset(store, batches, name="benchmark", source="made")
    with store.write() as connection:
        connection.execute(text(_PAIRS), {"dataset": dataset_id, "n": n_rows})
        connection.execute(
            text("delete from members where dataset_id = :id and position >= :n"), {"id": dataset_id, "n": n_rows}
        )
    for shift, who in enumerate(("Ada", "Ben")):
        decide(store, who=who, shift=shift)
    return dataset_id


def decide(store: Store, *, who: str, shift: int) -> None:
    """One person decides four pairs in five."""
    with store.write() as connection:
        connection.execute(text(_DECISIONS), {"who": who, "shift": shift})


def timed(what: str, function: Callable[[], T]) -> T:
    """Run and print the seconds."""
    started = time.perf_counter()
    found = function()
    print(f"  {what}: {time.perf_counter() - started:.2f} s", flush=True)
    return found


def main(*, n_rows: int, n_history: int) -> None:
    """Fill a store and time what people wait for."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "assay.duckdb")
        dataset_id = fill(store, n_rows=n_rows)
        choice, target = ExportChoice(), Path(folder) / "exports"
        print(f"{n_rows:,} rows")
        mark = timed("counts on the page", lambda: curated.curated_summary(store, dataset_id, choice)).mark
        made = {}
        for one in FORMATS:
            made[one.key] = timed(
                f"export as {one.title}",
                lambda key=one.key: exports.export_curated(  # type: ignore[misc]
                    store, target, dataset_id=dataset_id, dataset="benchmark", choice=choice, format=key,
                    expected=mark, exported_by="benchmark",
                ),
            )  # fmt: skip
        decide(store, who="Cleo", shift=2)
        for one in FORMATS:
            again = timed(
                f"again as {one.title}",
                lambda key=one.key: exports.export_again(  # type: ignore[misc]
                    store, target, export_id=made[key].export_id, exported_by="benchmark"
                ),
            )
            assert again.same, again.differs
        if n_history:
            read_history(store, n_history)
        store.close()
    print(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MB")


def read_history(store: Store, n: int) -> None:
    """Pages and stream of a long history."""
    with store.write() as connection:
        n_pairs = connection.execute(text("select count(*) from pairs")).scalar()
        connection.execute(text(_HISTORY), {"pairs": n_pairs, "n": n})
    print(f"history of {history.count(store, HistoryFilter()):,} decisions")
    cases = {
        "first page": HistoryFilter(),
        "first page of one person and verdict": HistoryFilter(reviewers=("Ada",), verdicts=("reject",)),
        "first page of standing decisions of a dataset": HistoryFilter(dataset=1, state="standing"),
    }
    for name, filters in cases.items():
        timed(name, lambda filters=filters: history.page(store, filters))  # type: ignore[misc]
    timed("stream of all, without texts", lambda: sum(part.num_rows for part in history.stream(store, HistoryFilter())))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--history", type=int, default=0)
    given = parser.parse_args()
    main(n_rows=given.rows, n_history=given.history)
