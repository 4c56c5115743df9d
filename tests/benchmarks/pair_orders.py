"""How fast the queue comes in each order, similar pairs, and a model of decisions. Measured, never asserted.

    python -m tests.benchmarks.pair_orders [--pairs 1000000] [--vectors 1000000] [--dimensions 384] [--decisions 20000]

The store is made on the spot in a temporary folder: four scores of each candidate and original, vectors of chance for
the first examples (two a pair), and decisions that follow one of the scores with noise. Each figure is the median of
the repeats; the first call of an order that is kept in memory is told apart. ``peak`` is the largest memory of all.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from sqlalchemy import text

from core.filters import PAIR_ORDERS, PairFilter
from db import pair_queue, pair_training, similar_pairs
from db.store import Store, registered

SCORES = ("ifd", "r_ifd", "reward", "mtld")
ORDERS = tuple(order for order in PAIR_ORDERS if order != "as listed")


def fill(store: Store, *, n_pairs: int, n_vectors: int, n_dimensions: int, n_decisions: int) -> None:
    """Two examples a pair (original: odd id, candidate: even id), their scores, vectors and decisions."""
    chance = "(hash({0} * 7919 + {1}) % 1000000) / 1000000.0"
    statements = [
        """insert into examples select i, 'h' || i, 'Instruction number ' || i || ' about something', '',
            repeat('An answer of several words. ', 1 + (i % 12)::int) from range(1, 2 * $n + 1) t(i)""",
        """insert into datasets select i, 'data ' || i, 'import', 'benchmark', $n // 4, '{}', now()::timestamp, null
            from range(1, 5) t(i)""",
        """insert into members select 1 + i % 4, i, 2 * i + 1, null from range(0, $n) t(i)""",
        f"""insert into pairs select i, 'job', 1 + (i - 1) % 4, 2 * i - 1, 2 * i - 1, 2 * i, 'v2',
            case when i % 2 = 0 then 'instruction' else 'response' end, null, 't', case when i % 3 = 0 then 'original'
            else 'reflected' end, '', {chance.format("i", 1)}, {chance.format("i", 1)}, {chance.format("i", 2)},
            {chance.format("i", 3)}, {chance.format("i", 3)}, {chance.format("i", 4)}, now()::timestamp, 1
            from range(1, $n + 1) t(i)""",
    ]
    for k, output in enumerate(SCORES, 1):
        statements += [
            f"insert into scorers select {k}, '{output}', '{output}', '{output}', '1', 'm', null, null, '{{}}'",
            f"""insert into scores select {k}, i, {chance.format("i", 10 + k)}, null, false
                from range(1, 2 * $n + 1) t(i)""",
        ]
    statements += [
        "insert into scorers values (9, 'embedding', 'embedding', 'embedding', '1', 'vectors', null, null, '{}')",
        """insert into rules values (1, 'typed', 'typed', null,
            '{"format": 1, "name": "typed", "intercept": 1, "origin": "typed", "terms":
            [{"output": "reward", "coefficient": -1}, {"output": "mtld", "coefficient": 0.5}]}', null,
            now()::timestamp, null)""",
        """insert into decisions (decision_id, pair_id, reviewer, verdict, result_id, shown, press, decided_at)
            select i, i, 'r' || i % 15, case when s.value + (hash(i * 31) % 1000) / 2000.0 > 0.75 then 'accept'
                else 'reject' end, 2 * i, '{}', 'p' || i, now()::timestamp
            from range(1, $d + 1) t(i) join scores s on s.example_id = 2 * i and s.scorer_id = 3""",
    ]
    with store.write() as connection:
        for statement in statements:
            connection.execute(text(statement.replace("$n", str(n_pairs)).replace("$d", str(n_decisions))))
    random = np.random.default_rng(0)
    for start in range(0, n_vectors, 20_000):
        n = min(20_000, n_vectors - start)
        flat = pa.array(random.standard_normal(n * n_dimensions, dtype=np.float32))
        offsets = pa.array(np.arange(0, (n + 1) * n_dimensions, n_dimensions, dtype=np.int32))
        batch = pa.table(
            {
                "example_id": np.arange(start + 1, start + n + 1, dtype=np.int64),
                "vector": pa.ListArray.from_arrays(offsets, flat),
            }
        )
        with store.write() as connection, registered(connection, "incoming", batch):
            connection.execute(text("insert into embeddings select 9, example_id, vector from incoming"))


def timed(name: str, call: Callable[[], Any], *, repeats: int = 3) -> None:
    """Print the first call and the median of the others."""
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{name:42} first {1000 * seconds[0]:8.0f} ms   then {1000 * statistics.median(seconds[1:]):8.0f} ms   "
          f"peak {peak:,.0f} MB", flush=True)  # fmt: skip


def main() -> None:
    """Fill a store and measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--decisions", type=int, default=20_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "assay.duckdb")
        start = time.perf_counter()
        fill(
            store,
            n_pairs=asked.pairs,
            n_vectors=asked.vectors,
            n_dimensions=asked.dimensions,
            n_decisions=asked.decisions,
        )
        print(f"filled in {time.perf_counter() - start:.0f} s")
        start = time.perf_counter()
        task = pair_training.start_training(store, trained_by="benchmark")
        task.wait()
        print(f"trained in {time.perf_counter() - start:.1f} s: {task.error or task.model_id}")
        for order in ORDERS:
            filters = PairFilter(order=order, rule=1, similar_to=7)
            timed(f"queue, {order}", lambda filters=filters: pair_queue.queue(store, filters))  # type: ignore[misc]
        for order in ORDERS:
            filters = PairFilter(order=order, rule=1, similar_to=7)
            timed(f"page of 50, {order}", lambda filters=filters: pair_queue.page(store, filters))  # type: ignore[misc]
        timed("12 similar pairs", lambda: similar_pairs.similar(store, 7))
        timed("near-duplicates", lambda: similar_pairs.near_duplicates(store, 7))
        store.close()


if __name__ == "__main__":
    main()
