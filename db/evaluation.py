"""Evaluation sets: datasets that are marked as such, what is in them, and what they share with training data.

Each member is one (instruction, input, reference output). Members that share instruction and input are several
references of one instruction; a member with an empty output is an instruction without a reference yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from sqlalchemy import Connection, text

from core import overlap as overlaps
from core.errors import StoreError
from core.overlap import COSINE, WORDS, Overlap, Pair, Prompt
from db import commands, embeddings
from db.store import Store, frame, rows, scalar, utc_now

HAS_OUTPUT = "regexp_matches(e.output, '[^\\s]')"
"""SQL: whether the example ``e`` has an output, that is a reference; white space alone is none."""

WRITTEN_BY, WRITER = "written_by", ("teacher", "model", "prompt_version", "call_id")
"""Field of a member's metadata that says who wrote its reference, and what is in it."""


def evaluation_sets(store: Store) -> list[dict[str, Any]]:
    """The marked datasets, newest mark first.

    ``dataset_id, name, source, marked_at, marked_by, n_members``; ``n_outputs`` members with an output;
    ``n_instructions`` distinct (instruction, input); ``n_without_reference`` those of them without any output;
    ``median_references`` outputs an instruction, over those that have one (None: there is none); ``n_duplicates``
    members whose very texts stand in the set before; ``studies`` the names of those that evaluate on it.
    """
    with store.read() as connection:
        found = rows(
            connection,
            f"""with asked as (
                select m.dataset_id, count(*) n_members, count(distinct m.example_id) n_distinct,
                    count(*) filter ({HAS_OUTPUT}) n_outputs
                from members m join examples e on e.example_id = m.example_id
                where m.dataset_id in (select dataset_id from evaluation_sets)
                group by m.dataset_id, e.instruction, e.input)
            select d.dataset_id, d.name, d.source, v.marked_at, v.marked_by, d.n_members,
                coalesce(sum(a.n_outputs), 0)::bigint n_outputs, count(a.n_members) n_instructions,
                count(*) filter (a.n_outputs = 0) n_without_reference,
                median(a.n_outputs) filter (a.n_outputs > 0) median_references,
                coalesce(sum(a.n_members - a.n_distinct), 0)::bigint n_duplicates
            from evaluation_sets v join datasets d on d.dataset_id = v.dataset_id
                left join asked a on a.dataset_id = v.dataset_id
            group by all order by v.marked_at desc, d.dataset_id desc""",
        )
        return [{**row, "studies": studies_on(connection, row["dataset_id"])} for row in found]


def evaluation_set(store: Store, dataset_id: int) -> dict[str, Any]:
    """One of :func:`evaluation_sets`.

    Raises:
        StoreError: the dataset is not there, or not marked.
    """
    for found in evaluation_sets(store):
        if found["dataset_id"] == dataset_id:
            return found
    raise StoreError(f"Dataset {dataset_id} is no evaluation set. Mark it on the page Evaluation sets.")


def mark(store: Store, dataset_id: int, *, by: str | None = None) -> None:
    """Mark a dataset as an evaluation set; one that is marked already stays as it is.

    Raises:
        StoreError: there is no such dataset.
    """
    with store.write() as connection:
        if not scalar(connection, "select 1 from datasets where dataset_id = :id", id=dataset_id):
            raise StoreError(f"There is no dataset {dataset_id} any more. Reload the page and choose another one.")
        connection.execute(
            text("insert into evaluation_sets values (:id, :marked_at, :by) on conflict do nothing"),
            {"id": dataset_id, "marked_at": utc_now(), "by": by},
        )


def unmark(store: Store, dataset_id: int) -> None:
    """Take the mark away; the dataset stays.

    Raises:
        StoreError: a study evaluates on it; the message names the study.
    """
    with store.write() as connection:
        names = studies_on(connection, dataset_id)
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise StoreError(
                f"The study {names[0]!r}{more} evaluates on this set, so its mark stays. Remove the study first."
            )
        connection.execute(text("delete from evaluation_sets where dataset_id = :id"), {"id": dataset_id})


def copy(store: Store, dataset_id: int, *, name: str, by: str | None = None) -> int:
    """A set with the same members under a new name, marked; returns its id. What uses the old set is not touched.

    Raises:
        StoreError: there is no such dataset, or the name is empty or taken.
    """
    with store.read() as connection:
        found = rows(
            connection,
            """select m.example_id, d.name from members m join datasets d on d.dataset_id = m.dataset_id
            where m.dataset_id = :id order by m.position""",
            id=dataset_id,
        )
    if not found:
        raise StoreError(f"There is no dataset {dataset_id} any more. Reload the page and choose another one.")
    copied = commands.create_dataset(
        store,
        [row["example_id"] for row in found],
        name=name,
        kind="evaluation",
        source=f"copy of {found[0]['name']}",
        details={"copy_of": dataset_id},
        created_by=by,
        like=[dataset_id],
    )
    mark(store, copied, by=by)
    return copied


def instructions(
    store: Store, dataset_id: int, *, text_found: str = "", only_without: bool = False, limit: int = 500
) -> list[dict[str, Any]]:
    """Instructions of a set in the order of their first member, at most ``limit``.

    ``example_id`` (of that member), ``instruction, input, n_references``; with ``text_found`` those in which it occurs
    in any of the three texts, in any case; with ``only_without`` those that have no reference.
    """
    with store.read() as connection:
        return rows(
            connection,
            f"""select min_by(e.example_id, m.position) example_id, e.instruction, e.input,
                count(distinct e.example_id) filter ({HAS_OUTPUT}) n_references
            from members m join examples e on e.example_id = m.example_id where m.dataset_id = :id
            group by e.instruction, e.input
            having (n_references = 0 or not :only_without) and (:wanted = '' or bool_or(
                contains(lower(e.instruction || ' ' || e.input || ' ' || e.output), :wanted)))
            order by min(m.position) limit {int(limit)}""",
            id=dataset_id,
            wanted=text_found.strip().lower(),
            only_without=only_without,
        )


def references(store: Store, dataset_id: int, example_id: int) -> list[dict[str, Any]]:
    """Members with the instruction and input of ``example_id`` that have an output, in order.

    ``example_id, output``; of one that a teacher wrote for a set also ``teacher, model, prompt_version`` (else None).
    """
    with store.read() as connection:
        return rows(
            connection,
            f"""select e.example_id, e.output,
                {", ".join(f"m.metadata ->> '$.{WRITTEN_BY}.{name}' {name}" for name in WRITER)}
            from members m join examples e on e.example_id = m.example_id
                join examples asked on asked.example_id = :example
            where m.dataset_id = :id and e.instruction = asked.instruction and e.input = asked.input and {HAS_OUTPUT}
            order by m.position""",
            id=dataset_id,
            example=example_id,
        )


def leave_out(
    store: Store, dataset_id: int, *, example_ids: Sequence[int], evaluation_id: int, name: str, by: str | None = None
) -> tuple[int, int]:
    """Make a dataset of the rows of ``dataset_id`` that are not among ``example_ids`` (of an overlap).

    Returns:
        (its id, its number of rows).

    Raises:
        StoreError: the name is empty or taken, or no row is left.
    """
    with store.read() as connection:
        kept = rows(
            connection,
            """select example_id from members where dataset_id = :id and example_id not in (select unnest(:left_out))
            order by position""",
            id=dataset_id,
            left_out=list(example_ids),
        )
    made = commands.create_dataset(
        store,
        [row["example_id"] for row in kept],
        name=name,
        kind="selection",
        source="without overlap",
        details={"of": dataset_id, "without_overlap_with": evaluation_id, "n_left_out": len(set(example_ids))},
        created_by=by,
        like=[dataset_id],
    )
    return made, len(kept)


def datasets_with(store: Store, example_ids: Sequence[int], dataset_ids: Sequence[int]) -> dict[int, list[int]]:
    """dataset_id -> those of the examples that are among its rows."""
    with store.read() as connection:
        found = rows(
            connection,
            """select dataset_id, list(distinct example_id order by example_id) example_ids from members
            where list_contains(:datasets, dataset_id) and example_id in (select unnest(:ids))
            group by dataset_id""",
            datasets=list(dataset_ids),
            ids=list(example_ids),
        )
    return {int(row["dataset_id"]): list(row["example_ids"]) for row in found}


def studies_on(connection: Connection, dataset_id: int) -> list[str]:
    """Names of the studies that evaluate on a dataset, oldest first."""
    found = rows(connection, "select name from studies where evaluation_id = :id order by study_id", id=dataset_id)
    return [str(row["name"]) for row in found]


def overlap(
    store: Store,
    evaluation_id: int,
    dataset_ids: Sequence[int],
    *,
    threshold: float = 0.9,
    measure: str | None = None,
) -> Overlap:
    """What the rows of these datasets share with an evaluation set: see :class:`core.overlap.Overlap`.

    ``measure`` of near rows: "words", "embedding" (of the model with the most vectors on both sides), or None: by
    words, and by embedding as well where every row of both sides has one.

    Raises:
        StoreError: "embedding" was asked for, and no model has vectors of both sides.
        SettingsError: the threshold is out of its range.
    """
    overlaps.check_threshold(threshold)
    asked = overlaps.one_a_prompt(_prompts(store, [evaluation_id]))
    training = _prompts(store, dataset_ids)
    embedder = _common_embedder(store, evaluation_id, dataset_ids, n_training=len(training))
    if measure == COSINE and embedder is None:
        raise StoreError(
            "No embedding model has vectors of both sides. Score the evaluation set and the training data by kNN with "
            "the same embedding model on the page Score, or compare by words."
        )
    exact, same = overlaps.exact_pairs(asked, training)
    whole = embedder is not None and not embedder["n_evaluation_left"] and not embedder["n_training_left"]
    by_vectors = embedder is not None and (measure == COSINE or (measure is None and whole))
    near: list[Pair] = []
    if embedder is not None and by_vectors:
        near = _near_by_vectors(store, evaluation_id, embedder["scorer_id"], training, asked, threshold=threshold)
    if measure != COSINE:
        near += overlaps.near_by_words(asked, training, threshold=threshold)
    near = overlaps.nearest_first(near, exact=exact)
    measures = [name for name, used in ((WORDS, measure != COSINE), (COSINE, by_vectors)) if used]
    return overlaps.gathered(
        same_example=_same_examples(store, evaluation_id, dataset_ids),
        exact=exact,
        same_instruction=same,
        near=near,
        n_instructions=len(asked),
        n_training=len(training),
        threshold=threshold,
        near_measure=" or ".join(measures),
        embedder=None if embedder is None else str(embedder["model"]),
        n_evaluation_unembedded=None if embedder is None else embedder["n_evaluation_left"],
        n_training_unembedded=None if embedder is None else embedder["n_training_left"],
    )


def _prompts(store: Store, dataset_ids: Sequence[int]) -> list[Prompt]:
    """Distinct rows of datasets, the oldest first; of an evaluation set in the order of its members."""
    with store.read() as connection:
        table = frame(
            connection,
            """select e.example_id, e.instruction, e.input from examples e join (
                select example_id, min(position) position from members
                where list_contains($datasets, dataset_id) group by example_id) m on m.example_id = e.example_id
            order by m.position, e.example_id""",
            {"datasets": list(dataset_ids)},
        )
    columns = (table.column(name).to_pylist() for name in ("example_id", "instruction", "input"))
    return [Prompt(*values) for values in zip(*columns, strict=True)]


def _same_examples(store: Store, evaluation_id: int, dataset_ids: Sequence[int]) -> list[Pair]:
    with store.read() as connection:
        table = frame(
            connection,
            """select distinct example_id from members where list_contains($datasets, dataset_id)
            and example_id in (select example_id from members where dataset_id = $evaluation) order by example_id""",
            {"datasets": list(dataset_ids), "evaluation": evaluation_id},
        )
    return [Pair(example_id, example_id, 1.0) for example_id in table.column("example_id").to_pylist()]


def _common_embedder(
    store: Store, evaluation_id: int, dataset_ids: Sequence[int], *, n_training: int
) -> dict[str, Any] | None:
    """The embedding scorer with vectors of both sides that leaves out the fewest rows; None where there is none."""
    evaluation = {one["scorer_id"]: one for one in embeddings.embedders(store, dataset_ids=[evaluation_id])}
    with store.read() as connection:
        n_evaluation = int(
            scalar(
                connection, "select count(distinct example_id) from members where dataset_id = :id", id=evaluation_id
            )
        )
    common = []
    for one in embeddings.embedders(store, dataset_ids=dataset_ids):
        if one["scorer_id"] in evaluation:
            left = {
                "n_evaluation_left": n_evaluation - evaluation[one["scorer_id"]]["n_vectors"],
                "n_training_left": n_training - one["n_vectors"],
            }
            common.append({**one, **left})
    return min(common, key=lambda one: sum((one["n_evaluation_left"], one["n_training_left"])), default=None)


def _near_by_vectors(
    store: Store,
    evaluation_id: int,
    scorer_id: int,
    training: Sequence[Prompt],
    asked: Sequence[Prompt],
    *,
    threshold: float,
) -> list[Pair]:
    """Near pairs by embedding: all members of the set are compared, and told as the question that they belong to."""
    members = _prompts(store, [evaluation_id])
    question = {(overlaps.folded(one.instruction), overlaps.folded(one.input)): one.example_id for one in asked}
    of_member = {m.example_id: question[overlaps.folded(m.instruction), overlaps.folded(m.input)] for m in members}
    ids, vectors = _gathered(
        embeddings.vectors_of(store, scorer_id=scorer_id, example_ids=[one.example_id for one in members])
    )
    if not len(ids):
        return []
    batches = embeddings.vectors_of(store, scorer_id=scorer_id, example_ids=[one.example_id for one in training])
    found = overlaps.near_by_vectors((ids, vectors), batches, threshold=threshold)
    return [pair._replace(evaluation_id=of_member[pair.evaluation_id]) for pair in found]


def _gathered(batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    found = list(batches)
    if not found:
        return np.empty(0, np.int64), np.empty((0, 0), np.float32)
    return np.concatenate([ids for ids, _ in found]), np.concatenate([vectors for _, vectors in found])
