"""Reads of the vectors that were stored while kNN distances were scored. No read holds more than a batch of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from db.conditions import category_column, third_score
from db.relations import PREVIEW
from db.store import Store, frame

BATCH = 4096
MOST_POINTS = 30_000


def embedders(store: Store, *, dataset_ids: Sequence[int]) -> list[dict[str, Any]]:
    """Embedding scorers with vectors of these datasets' rows, the one with the most first.

    ``scorer_id, output, model, revision, template, settings, n_vectors`` (distinct rows).
    """
    with store.read() as connection:
        found: list[dict[str, Any]] = frame(
            connection,
            """select s.scorer_id, s.output, s.model, s.revision, s.template, s.settings, count(*) n_vectors
            from embeddings v join scorers s on s.scorer_id = v.scorer_id
            where v.example_id in (select example_id from members where list_contains($datasets, dataset_id))
            group by all order by n_vectors desc, s.scorer_id desc""",
            {"datasets": list(dataset_ids)},
        ).to_pylist()
    return found


def vectors(store: Store, *, scorer_id: int, dataset_ids: Sequence[int], batch: int = BATCH) -> Iterator[np.ndarray]:
    """The vectors of the distinct rows of these datasets in batches, float32 ``[≤ batch, d]``, in no order."""
    yield from (found for _, found in _batches(
        store,
        """select v.example_id, v.vector from embeddings v where v.scorer_id = $scorer
        and v.example_id in (select example_id from members where list_contains($datasets, dataset_id))""",
        {"scorer": scorer_id, "datasets": list(dataset_ids)},
        batch=batch,
    ))  # fmt: skip


def vectors_of(
    store: Store, *, scorer_id: int, example_ids: Sequence[int], batch: int = BATCH
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Example ids int64 ``[m]`` and their vectors float32 ``[m, d]`` in batches, in no order."""
    yield from _batches(
        store,
        """select v.example_id, v.vector from embeddings v where v.scorer_id = $scorer
        and v.example_id in (select unnest($ids))""",
        {"scorer": scorer_id, "ids": list(example_ids)},
        batch=batch,
    )


def _batches(
    store: Store, sql: str, parameters: dict[str, Any], *, batch: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    n_dimensions: int | None = None
    with store.read() as connection:
        raw = connection.connection.driver_connection
        assert raw is not None
        # sql() streams: rows are handed over as they are found. execute() would gather all of them first.
        for found in raw.sql(sql, params=parameters).to_arrow_reader(batch):
            ids, columns = _matrix(found)
            if not len(ids):
                continue
            n_dimensions = n_dimensions or columns.shape[1]
            if columns.shape[1] == n_dimensions:
                yield ids, columns


def _matrix(found: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
    lists = found.column("vector")
    flat = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    return found.column("example_id").to_numpy(), flat.reshape(found.num_rows, -1)


def points(
    store: Store,
    *,
    scorer_id: int,
    dataset_ids: Sequence[int],
    colour: int | None = None,
    key: str | None = None,
    limit: int = MOST_POINTS,
) -> pa.Table:
    """Up to ``limit`` members that have a vector, the same each time, without the vectors.

    Columns ``dataset_id, position, example_id, colour, category, instruction`` as those of ``relations.points``.
    """
    category, more = category_column(key)
    third, join, parameters = third_score(colour)
    with store.read() as connection:
        return frame(
            connection,
            f"""with w as (select m.dataset_id, m.position, m.example_id, m.metadata from members m
                where list_contains($datasets, m.dataset_id) and exists (
                    select 1 from embeddings v where v.scorer_id = $scorer and v.example_id = m.example_id)
                order by hash(m.example_id), m.dataset_id, m.position limit {int(limit)})
            select m.dataset_id, m.position, m.example_id, {third} colour, {category} category,
                left(e.instruction, {PREVIEW}) instruction
            from w m join examples e on e.example_id = m.example_id {join}
            order by m.dataset_id, m.position""",
            {"scorer": scorer_id, "datasets": list(dataset_ids), **parameters, **more},
        )
