"""Scores and vectors of pairs' texts, as a score job would have left them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from sqlalchemy import text

from db import commands
from db.store import Store, registered


@dataclass(frozen=True)
class Scorer:
    """As much of a scorer's identity as the store needs."""

    output: str
    indicator: str
    model: str | None = "tiny"
    revision: str | None = None
    version: str = "1"
    template: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return json.dumps([self.output, self.model, self.revision, self.settings])


def scorer(store: Store, output: str, **more: Any) -> int:
    """Id of the scorer of an output."""
    with store.write() as connection:
        return commands.ensure_scorers(connection, [Scorer(output, output, **more)])[output]


def put_scores(store: Store, scorer_id: int, values: Mapping[int, float], *, side: str = "candidate") -> None:
    """Scores of one side of pairs: pair id -> value."""
    with store.write() as connection:
        for pair_id, value in values.items():
            connection.execute(
                text(
                    f"""insert into scores select :scorer, {side}_id, :value, null, false from pairs
                    where pair_id = :pair on conflict do nothing"""
                ),
                {"scorer": scorer_id, "value": value, "pair": pair_id},
            )


def put_vectors(store: Store, vectors: Mapping[int, np.ndarray], *, side: str = "candidate", **more: Any) -> int:
    """Vectors of one side of pairs: pair id -> vector; returns the embedder's scorer id."""
    scorer_id = scorer(store, "embedding", **{"model": "folder/tiny-embedder", **more})
    table = pa.table(
        {"pair_id": list(vectors), "vector": pa.array([v.tolist() for v in vectors.values()], pa.list_(pa.float32()))}
    )
    with store.write() as connection, registered(connection, "incoming", table):
        connection.execute(
            text(
                f"""insert into embeddings select :scorer, p.{side}_id, i.vector from incoming i
                join pairs p on p.pair_id = i.pair_id on conflict do nothing"""
            ),
            {"scorer": scorer_id},
        )
    return scorer_id
