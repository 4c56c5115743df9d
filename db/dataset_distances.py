"""Mean kNN distances within datasets, from stored embeddings: exact, and computed once for each dataset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from sqlalchemy import Connection, text

from core.neighbours import neighbour_distances
from db import embeddings, permission
from db.store import Store, frame, registered

_VECTORS_AT_ONCE = 200_000
_DISTANCES_SCHEMA = pa.schema(
    [
        *((name, pa.int64()) for name in ("dataset_id", "embedding_id", "neighbour")),
        *((name, pa.float64()) for name in ("mean", "sd")),
        *((name, pa.int64()) for name in ("n_values", "n_vectors")),
    ]
)


def mean_distances(
    store: Store, dataset_ids: Sequence[int], *, embedding_id: int, neighbours: Sequence[int]
) -> dict[tuple[int, int], tuple[float, int, float]]:
    """Distances to neighbour number i within each dataset: (dataset id, i) -> mean, number of values, their sd.

    ``embedding_id`` is the scorer of the vectors. Mean and sd are NaN where there are too few values; a dataset without
    any vector is left out. What was computed with as many vectors as there are now is not computed again.
    """
    with store.read() as connection:
        vectors = _vector_counts(connection, embedding_id, dataset_ids)
        known = _remembered(connection, embedding_id, vectors)
    missing = [one for one in vectors if any((one, i) not in known for i in neighbours)]
    fresh: list[dict[str, Any]] = []
    for part in _parts(missing, vectors):
        fresh += _distances_of_datasets(store, part, embedding_id, neighbours, vectors)
    _remember(store, fresh)
    return {
        (row["dataset_id"], row["neighbour"]): (_number(row["mean"]), row["n_values"], _number(row["sd"]))
        for row in (*known.values(), *fresh)
        if row["neighbour"] in neighbours
    }


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _vector_counts(connection: Connection, embedding_id: int, dataset_ids: Sequence[int]) -> dict[int, int]:
    """Members of each dataset that have a vector."""
    found = frame(
        connection,
        """select m.dataset_id, count(*) n from members m join embeddings v on v.example_id = m.example_id
        where v.scorer_id = $scorer and list_contains($datasets, m.dataset_id) group by m.dataset_id""",
        {"scorer": embedding_id, "datasets": list(dataset_ids)},
    )
    return dict(zip(found["dataset_id"].to_pylist(), found["n"].to_pylist(), strict=True))


def _remembered(
    connection: Connection, embedding_id: int, vectors: Mapping[int, int]
) -> dict[tuple[int, int], dict[str, Any]]:
    """What was computed with as many vectors as there are now, by dataset and neighbour."""
    found = frame(
        connection,
        "select * from dataset_distances where embedding_id = $scorer and list_contains($datasets, dataset_id)",
        {"scorer": embedding_id, "datasets": list(vectors)},
    ).to_pylist()
    return {
        (row["dataset_id"], row["neighbour"]): row for row in found if row["n_vectors"] == vectors[row["dataset_id"]]
    }


def _remember(store: Store, fresh: Sequence[Mapping[str, Any]]) -> None:
    if not fresh:
        return
    table = pa.Table.from_pylist([dict(row) for row in fresh], schema=_DISTANCES_SCHEMA)
    # Remembered for whoever looks next: no change of the data, whatever the role of who looked first.
    with permission.as_server(), store.write() as connection, registered(connection, "incoming", table):
        connection.execute(
            text(
                """insert or replace into dataset_distances
                select dataset_id, embedding_id, neighbour, mean, sd, n_values, n_vectors from incoming"""
            )
        )


def _parts(dataset_ids: Sequence[int], sizes: Mapping[int, int]) -> Iterator[list[int]]:
    """Datasets in groups whose vectors fit into memory together."""
    part: list[int] = []
    n = 0
    for one in dataset_ids:
        if part and n + sizes[one] > _VECTORS_AT_ONCE:
            yield part
            part, n = [], 0
        part.append(one)
        n += sizes[one]
    if part:
        yield part


def _distances_of_datasets(
    store: Store, dataset_ids: Sequence[int], embedding_id: int, neighbours: Sequence[int], vectors: Mapping[int, int]
) -> list[dict[str, Any]]:
    with store.read() as connection:
        members = frame(
            connection,
            """select dataset_id, example_id from members where list_contains($datasets, dataset_id)
            order by dataset_id, position""",
            {"datasets": list(dataset_ids)},
        )
    owners, ids = members["dataset_id"].to_numpy(), members["example_id"].to_numpy()
    known = Vectors.load(store, embedding_id, np.unique(ids))
    fresh = []
    for dataset_id in dataset_ids:
        distances = known.distances_within(ids[owners == dataset_id], neighbours)
        for place, i in enumerate(neighbours):
            mean, n, sd = summary(distances[:, place])
            fresh.append(
                {
                    "dataset_id": dataset_id,
                    "embedding_id": embedding_id,
                    "neighbour": i,
                    "mean": None if np.isnan(mean) else mean,
                    "sd": None if np.isnan(sd) else sd,
                    "n_values": n,
                    "n_vectors": vectors[dataset_id],
                }
            )
    return fresh


@dataclass(frozen=True)
class Vectors:
    """Embeddings of some examples: ids int64 ``[n]``, rising, and vectors float32 ``[n, d]``."""

    ids: np.ndarray
    vectors: np.ndarray

    @classmethod
    def load(cls, store: Store, embedding_id: int, example_ids: np.ndarray) -> Vectors:
        parts = list(embeddings.vectors_of(store, scorer_id=embedding_id, example_ids=example_ids.tolist()))
        if not parts:
            return cls(np.empty(0, np.int64), np.empty((0, 1), np.float32))
        ids = np.concatenate([ids for ids, _ in parts])
        order = np.argsort(ids)
        return cls(ids[order], np.concatenate([vectors for _, vectors in parts])[order])

    def distances_within(self, example_ids: np.ndarray, neighbours: Sequence[int]) -> np.ndarray:
        """Distance of each of these rows to its i-th neighbour among them, float64 ``[rows, neighbours]``.

        NaN for a row without a vector (nobody's neighbour), and where there are fewer than i others.
        """
        found = np.full((len(example_ids), len(neighbours)), np.nan)
        places = np.searchsorted(self.ids, example_ids)
        there = places < len(self.ids)
        there[there] = self.ids[places[there]] == example_ids[there]
        if there.any():
            own = np.ascontiguousarray(self.vectors[places[there]])
            found[there] = neighbour_distances(own, np.arange(len(own)), neighbours=neighbours)
        return found


def summary(values: np.ndarray) -> tuple[float, int, float]:
    """Mean (NaN of none), number and standard deviation (NaN of fewer than two) of the values that are there."""
    there = values[np.isfinite(values)]
    n = len(there)
    return (float(there.mean()) if n else np.nan), n, (float(there.std(ddof=1)) if n > 1 else np.nan)
