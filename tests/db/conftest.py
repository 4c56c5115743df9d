"""A real store in a temporary folder, and a handful of pairs to decide on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from sqlalchemy import text

from core.example import Example
from db import commands
from db.store import Store, utc_now
from tests import prepared

EXAMPLES = [Example(f"Say {i}", "" if i % 2 else f"context {i}", f"answer {i}") for i in range(6)]


def batch(examples: list[Example], *, start: int = 0, metadata: str | None = None) -> pa.RecordBatch:
    """Examples as the importer hands them over."""
    return pa.RecordBatch.from_pydict(
        {
            "row": list(range(start, start + len(examples))),
            "hash": [e.hash for e in examples],
            "instruction": [e.instruction for e in examples],
            "input": [e.input for e in examples],
            "output": [e.output for e in examples],
            "metadata": pa.array([metadata] * len(examples), pa.string()),
        }
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    prepared.put(tmp_path / "assay.duckdb", prepared.nothing)
    opened = Store(tmp_path / "assay.duckdb")
    yield opened
    opened.close()


@pytest.fixture
def dataset_id(store: Store) -> int:
    return commands.import_dataset(store, [batch(EXAMPLES)], name="six", source="test")


def add_pair(
    store: Store,
    *,
    dataset_id: int,
    original: Example,
    candidate: Example,
    stage: str = "instruction",
    proposal: str = "reflected",
    job_id: str = "job-1",
    ifd: tuple[float | None, float | None] = (0.5, 0.7),
    base: Example | None = None,
    round_number: int = 1,
) -> int:
    """Put one pair into the store as a reflection job would."""
    with store.adding_examples() as connection:
        ids = commands.add_examples(connection, [original, candidate, base or original])
        pair_id = connection.execute(text("select nextval('pair_ids')")).scalar()
        connection.execute(
            text(
                """insert into pairs (pair_id, job_id, dataset_id, original_id, base_id, candidate_id, method, stage,
                    teacher, proposal, proposal_reason, ifd_original, ifd_base, ifd_candidate, r_ifd_original,
                    r_ifd_base, r_ifd_candidate, created_at, round)
                values (:pair, :job, :dataset, :original, :base, :candidate, 'v2', :stage,
                    'recorded', :proposal, 'because', :a, :a, :b, 0.9, 0.9, 0.8, :at_time, :round)"""
            ),
            {
                "pair": pair_id,
                "job": job_id,
                "dataset": dataset_id,
                "original": ids[original.hash],
                "base": ids[(base or original).hash],
                "round": round_number,
                "candidate": ids[candidate.hash],
                "stage": stage,
                "proposal": proposal,
                "a": ifd[0],
                "b": ifd[1],
                "at_time": utc_now(),
            },
        )
    assert isinstance(pair_id, int)
    return pair_id
