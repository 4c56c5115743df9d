"""A store with very many pairs, made by SQL in about a minute: what the benchmark of reviewing reviews.

    python -m tests.benchmarks.review_store FOLDER [--pairs 1000000] [--decided 200000]

Texts are those of the bundled sample, numbered, so that no two are alike (about 600 characters a pair); candidates
differ from their originals by words in the middle and a sentence at the end. Hashes are hashes of numbers: nothing
looks into them. ``--decided`` pairs carry a decision each, of 20 reviewers, spread over all pairs.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pyarrow as pa

from core import demo
from core.settings import Settings
from db.store import Store, registered

DATASET = "A very large dataset"
CRITIQUE = {"critique": "The instruction is vague; the response leaves out why.", "score": "6"}

_EXAMPLES = """insert into examples
    select nextval('example_ids'), sha256('original ' || n), 'Case ' || n || '. ' || s.instruction, s.input, s.output
    from range(1, $pairs + 1) r(n) join sample s on s.place = n % $texts order by n"""
_CANDIDATES = """insert into examples
    select nextval('example_ids'), sha256('candidate ' || n),
        'Case ' || n || ', step by step. ' || s.instruction || ' Give a reason for each step.', s.input,
        replace(s.output, ' the ', ' the very ') || ' In short: case ' || n || ' is solved.'
    from range(1, $pairs + 1) r(n) join sample s on s.place = n % $texts order by n"""
_CALLS = """insert into teacher_calls (call_id, job_id, example_id, asked_id, stage, prompt_version, teacher, model,
        raw, finish_reason, outcome, critique, prompt_tokens, completion_tokens, seconds, attempts, requested_at)
    select 'call-' || n, 'job', n, n, 'instruction', 'reflect-1', 'api.example.org', 'teacher-model', 'raw', 'stop',
        'parsed', $critique, 10, 20, 0.5, 1, now() at time zone 'utc' from range(1, $pairs + 1) r(n)"""
_PAIRS = """insert into pairs
    select nextval('pair_ids'), 'job', 1, n, n, n + $pairs, 'V2', 'instruction', 'call-' || n, 'api.example.org',
        case when n % 3 = 0 then 'original' else 'reflected' end, 'IFD rose, so the student prefers it.',
        0.5 + hash(n) % 1000 / 4000.0, 0.5, 0.5 + hash(n * 7) % 1000 / 2000.0, 0.8, 0.8,
        0.4 + hash(n * 3) % 500 / 1000.0, now() at time zone 'utc', 1 from range(1, $pairs + 1) r(n)"""
_DECISIONS = """insert into decisions
    select nextval('decision_ids'), 1 + (n * 7919) % $pairs, 'reviewer ' || n % 20,
        case when n % 3 = 0 then 'reject' else 'accept' end, case when n % 3 = 0 then null else 1 + (n * 7919) % $pairs
        + $pairs end, null, 4.0 + n % 9, '{}', null, 'seed:' || n, now() at time zone 'utc' - interval '2 days',
        'review', null, null from range(1, $decided + 1) r(n)"""


def fill(store: Store, *, n_pairs: int, n_decided: int) -> None:
    """Put ``n_pairs`` pairs into an empty store, ``n_decided`` of them (at most as many) decided."""
    sample = [row.example for row in demo.sample_rows()]
    texts = pa.table(
        {
            "place": pa.array(range(len(sample)), pa.int64()),
            **{name: [getattr(one, name) for one in sample] for name in ("instruction", "input", "output")},
        }
    )
    numbers = {"pairs": n_pairs, "texts": len(sample), "decided": n_decided, "critique": json.dumps(CRITIQUE)}
    with store.adding_examples() as connection, registered(connection, "sample", texts):
        raw = connection.connection.driver_connection
        assert raw is not None
        for sql in (_EXAMPLES, _CANDIDATES, _CALLS, _PAIRS, _DECISIONS):
            raw.execute(sql, {name: value for name, value in numbers.items() if f"${name}" in sql})
        raw.execute(
            "insert into datasets values (1, $name, 'import', 'sample', $n, '{}', now() at time zone 'utc', null)",
            {"name": DATASET, "n": n_pairs},
        )


def make(home: Path, *, n_pairs: int, n_decided: int) -> None:
    """A home with such a store; one that is there already stays as it is."""
    path = Settings(home=home, data_roots=()).store_path
    if path.exists():
        return
    store = Store(path, memory_limit="4GB")
    try:
        fill(store, n_pairs=n_pairs, n_decided=n_decided)
    finally:
        store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("home", type=Path)
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--decided", type=int, default=200_000)
    options = parser.parse_args()
    make(options.home, n_pairs=options.pairs, n_decided=options.decided)


if __name__ == "__main__":
    main()
