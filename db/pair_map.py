"""What the map of pairs is drawn from: pairs behind a filter that have an embedding, and what colours them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from core.filters import PairFilter
from db.pair_queue import STATE, selection
from db.store import Store, frame

MOST_POINTS = 20_000
PREVIEW = 80
SIDES = ("candidate", "original")
OWN_COLOURS = ("verdict", "stage", "method", "proposal", "dataset")


def embedders(store: Store, *, side: str) -> list[dict[str, Any]]:
    """Embedding scorers with vectors of the pairs' candidates (or originals), the one with the most first:
    ``scorer_id, output, model, revision, template, settings, n_vectors`` (distinct rows)."""
    assert side in SIDES
    with store.read() as connection:
        found: list[dict[str, Any]] = frame(
            connection,
            f"""select s.scorer_id, s.output, s.model, s.revision, s.template, s.settings, v.n_vectors
            from scorers s join (select scorer_id, count(*) n_vectors from embeddings
                where example_id in (select {side}_id from pairs) group by scorer_id) v on v.scorer_id = s.scorer_id
            order by v.n_vectors desc, s.scorer_id desc""",
        ).to_pylist()
    return found


def points(
    store: Store,
    filters: PairFilter,
    *,
    scorer_id: int,
    side: str,
    colour: int | None = None,
    limit: int = MOST_POINTS,
) -> pa.Table:
    """Up to ``limit`` pairs behind ``filters`` whose ``side`` has a vector, the same each time, by rising id.

    Columns ``pair_id, example_id, dataset_id, verdict`` (accepted, rejected, disputed or undecided), ``stage, method,
    proposal, colour`` (the value of the scorer ``colour`` for that side, or NULL), ``instruction``.
    """
    assert side in SIDES
    wanted = selection(filters, decided=True)
    third, join, more = "null::double", "", {}
    if colour is not None:
        third, more = "t.value", {"third": colour}
        join = "left join scores t on t.scorer_id = $third and t.example_id = w.example_id"
    with store.read() as connection:
        return frame(
            connection,
            f"""with {wanted.ctes}, w as (
                select p.pair_id, p.{side}_id example_id, p.dataset_id, p.stage, p.method, p.proposal, {STATE} verdict
                {wanted.source} where {wanted.where} and exists (
                    select 1 from embeddings v where v.scorer_id = $embedder and v.example_id = p.{side}_id)
                order by hash(p.pair_id), p.pair_id limit {int(limit)})
            select w.pair_id, w.example_id, w.dataset_id, w.verdict, w.stage, w.method, w.proposal, {third} colour,
                left(e.instruction, {PREVIEW}) instruction
            from w join examples e on e.example_id = w.example_id {join} order by w.pair_id""",
            {**wanted.parameters, "embedder": scorer_id, **more},
        )
