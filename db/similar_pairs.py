"""Pairs that are alike: by the cosine of their stored embeddings, to a pair or to a text.

A pair stands where its candidate does; where the candidate has no vector, where its original does. Only vectors of one
embedder are compared. DuckDB walks through all vectors for each question (no index): see tests/benchmarks.
"""

from __future__ import annotations

import atexit
import json
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import Connection

from core.embedding import EmbedderSettings
from core.errors import StoreError
from core.query_encoder import QueryEncoder
from db.store import Store, frame, rows

PREVIEW = 200
NEAR = 0.95
_MOST_NEAR = 10_000
_ROUNDING = 1e-6
"""Of cosines of float32 vectors."""

LOG_NAME = "query_encoder.log"
_WHERE = "Score by kNN distance on the Score page: its embeddings are kept."
_ACCEPTING = "('accept', 'edit', 'new_instruction', 'new_response')"


@dataclass(frozen=True)
class Query:
    """What pairs are compared with: a vector (a list of floats) of the embedder ``scorer_id``, whose model is named."""

    scorer_id: int
    model: str
    vector: list[float]


def embedder_name(model: str) -> str:
    """The last part of a model's name, without a path of the machine."""
    return model.rstrip("/").split("/")[-1] or "the embedder"


def similarities(prefix: str = "") -> str:
    """SQL ``pair_id, similarity`` of all pairs with a vector, by the parameters ``<prefix>scorer, <prefix>vector``."""
    return f"""with sims as (
            select example_id, list_cosine_similarity(vector, ${prefix}vector::float[]) similarity from embeddings
            where scorer_id = ${prefix}scorer and len(vector) = len(${prefix}vector))
        select a.pair_id, coalesce(c.similarity, o.similarity)::double similarity from pairs a
        left join sims c on c.example_id = a.candidate_id left join sims o on o.example_id = a.original_id
        where isfinite(coalesce(c.similarity, o.similarity))"""


def query_of(store: Store, pair_id: int) -> Query | str:
    """The vector by which a pair is compared, of the embedder with the most vectors; else a sentence that says why not.

    Of the candidate, or of the original where no embedder has the candidate.
    """
    with store.read() as connection:
        for side in ("candidate", "original"):
            found = frame(
                connection,
                f"""select v.scorer_id, s.model, v.vector, (
                    select count(*) from embeddings n where n.scorer_id = v.scorer_id) n
                from pairs p join embeddings v on v.example_id = p.{side}_id
                join scorers s on s.scorer_id = v.scorer_id where p.pair_id = $pair
                order by n desc, v.scorer_id desc limit 1""",
                {"pair": pair_id},
            ).to_pylist()
            if found:
                return Query(found[0]["scorer_id"], found[0]["model"] or "", found[0]["vector"])
        there = rows(connection, "select 1 from pairs where pair_id = :id", id=pair_id)
    if not there:
        return f"Pair {pair_id} is not in the store."
    return f"Neither text of pair {pair_id} has an embedding. {_WHERE}"


def why_none(store: Store, pair_id: int) -> str | None:
    """Why no pair can be compared with this one; None: it can be."""
    found = query_of(store, pair_id)
    return found if isinstance(found, str) else None


def similar(store: Store, pair_id: int, *, limit: int = 12, least: float = 0.0) -> list[dict[str, Any]]:
    """The pairs most like this one, nearest first, without itself; empty where :func:`why_none` has a reason.

    ``pair_id, similarity`` (cosine, −1 … 1, not under ``least``)``, instruction`` (of the candidate, its first
    ``PREVIEW`` characters)``, stage, dataset_id, state`` ("undecided", "accepted" or "rejected")``, near_duplicate``
    (whether :func:`near_duplicates` has it).
    """
    return _similar(store, pair_id, limit=limit, least=least, near=NEAR)


def near_duplicates(store: Store, pair_id: int, *, least: float = NEAR) -> list[dict[str, Any]]:
    """The undecided pairs of the same stage that say the same, nearest first, as :func:`similar` gives them.

    Both the candidates and, where both have a vector, the originals have a cosine of at least ``least``: one verdict
    is of a change, and the same candidate may be made of an original that differs.
    """
    found = _similar(store, pair_id, limit=_MOST_NEAR, least=least, near=least)
    return [row for row in found if row["near_duplicate"]]


def _similar(store: Store, pair_id: int, *, limit: int, least: float, near: float) -> list[dict[str, Any]]:
    query = query_of(store, pair_id)
    if isinstance(query, str):
        return []
    with store.read() as connection:
        found = _nearest(connection, query, limit=limit, least=least, without=pair_id)
        stage = rows(connection, "select stage from pairs where pair_id = :id", id=pair_id)[0]["stage"]
        ids = [
            row["pair_id"]
            for row in found
            if row["stage"] == stage and row["state"] == "undecided" and row["similarity"] >= near - _ROUNDING
        ]
        differ = _other_originals(connection, query, pair_id, ids, least=near) if ids else set()
    alike = set(ids) - differ
    return [{**row, "near_duplicate": row["pair_id"] in alike} for row in found]


def _other_originals(
    connection: Connection, query: Query, pair_id: int, pair_ids: list[int], *, least: float
) -> set[int]:
    """Those of ``pair_ids`` whose originals lie farther from the pair's original than ``least``."""
    found = frame(
        connection,
        """with own as (select v.vector from pairs p join embeddings v on v.example_id = p.original_id
            where p.pair_id = $pair and v.scorer_id = $scorer)
        select p.pair_id from own, pairs p
        join embeddings v on v.example_id = p.original_id and v.scorer_id = $scorer
        where list_contains($ids, p.pair_id) and len(v.vector) = len(own.vector)
            and list_cosine_similarity(v.vector, own.vector) < $least""",
        {"pair": pair_id, "scorer": query.scorer_id, "ids": pair_ids, "least": least - _ROUNDING},
    )
    return set(found["pair_id"].to_pylist())


def _nearest(
    connection: Connection, query: Query, *, limit: int, least: float, without: int | None
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = frame(
        connection,
        f"""with near as (
            select pair_id, similarity from ({similarities()}) where similarity >= $least - {_ROUNDING}
                and pair_id is distinct from $without
            order by similarity desc, pair_id limit {int(limit)})
        select n.pair_id, least(n.similarity, 1.0) similarity, left(e.instruction, {PREVIEW}) instruction, p.stage,
            p.dataset_id
        from near n join pairs p on p.pair_id = n.pair_id join examples e on e.example_id = p.candidate_id
        order by n.similarity desc, n.pair_id""",
        {"scorer": query.scorer_id, "vector": query.vector, "least": least, "without": without},
    ).to_pylist()
    verdicts = frame(
        connection,
        f"""select pair_id, verdict in {_ACCEPTING} accepted from current_decisions
        where list_contains($ids, pair_id)""",
        {"ids": [row["pair_id"] for row in found]},
    )
    accepted = dict(zip(verdicts["pair_id"].to_pylist(), verdicts["accepted"].to_pylist(), strict=True))
    names = {None: "undecided", True: "accepted", False: "rejected"}
    return [{**row, "state": names[accepted.get(row["pair_id"])]} for row in found]


# --- by a text ---

_encoders: dict[tuple[str, EmbedderSettings], QueryEncoder] = {}
_lock = threading.Lock()


def embedder_of_pairs(store: Store) -> dict[str, Any] | None:
    """The embedder with the most vectors of pairs' texts (``scorer_id, model, revision, settings``), or None."""
    with store.read() as connection:
        found = rows(
            connection,
            """select s.scorer_id, s.model, s.revision, s.settings::varchar settings from scorers s join (
                select v.scorer_id, count(*) n from embeddings v
                where v.example_id in (select candidate_id from pairs union all select original_id from pairs)
                group by v.scorer_id) n on n.scorer_id = s.scorer_id
            order by n.n desc, s.scorer_id desc limit 1""",
        )
    return {**found[0], "settings": json.loads(found[0]["settings"])} if found else None


def search_text(store: Store, text: str, *, limit: int = 200, least: float = 0.0) -> list[dict[str, Any]]:
    """The pairs nearest in meaning to a text, as :func:`similar` gives them. The first search loads the embedder.

    Raises:
        StoreError: no pair has an embedding; the message says which page makes them.
        ModelError: the text is blank, or the embedder cannot be loaded any more.
    """
    found = embedder_of_pairs(store)
    if found is None:
        raise StoreError(f"No pair has an embedding, so none can be found by meaning. {_WHERE}")
    settings = EmbedderSettings(
        model=found["model"],
        # A folder's digest is checked as the job did; a hub model is loaded at the very commit of its vectors.
        revision=found["revision"],
        dtype=found["settings"].get("dtype", "float32"),
        max_length=found["settings"].get("max_length"),
    )
    vector = _encoder(store, settings).vector(text)
    if not np.isfinite(vector).all():
        raise StoreError("The embedder gives no vector for this text. Try other words.")
    with store.read() as connection:
        query = Query(found["scorer_id"], found["model"] or "", vector.tolist())
        return _nearest(connection, query, limit=limit, least=least, without=None)


def _encoder(store: Store, settings: EmbedderSettings) -> QueryEncoder:
    """The one encoder of a store; another embedder's takes its place (a model is some hundred megabytes)."""
    key = (str(store.path), settings)
    with _lock:
        if key not in _encoders:
            for other in [k for k in _encoders if k[0] == key[0]]:
                _encoders.pop(other).stop()
            _encoders[key] = QueryEncoder(settings, log_path=store.path.parent / LOG_NAME)
        return _encoders[key]


def stop_encoders() -> None:
    """End all encoders' processes; the server does this when it stops."""
    with _lock:
        while _encoders:
            _encoders.popitem()[1].stop()


atexit.register(stop_encoders)
