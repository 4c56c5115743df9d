"""What is left to score of a dataset, and the rows of the job that does it: read in batches, never whole."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Connection

from core.indicators import outputs_of
from core.scoring import ScorerIdentity, neighbours_needed
from db.store import frame, scalar

BATCH_ROWS = 8192
_VECTOR_BATCH_ROWS = 8192


@dataclass(frozen=True)
class Asked:
    """What a score job asks of every row.

    ``outputs``    indicator key -> the keys of all outputs that it gives, losses among them
    ``scorers``    output key -> its scorer, of those outputs whose scorer is in the store
    ``distances``  keys of the kNN outputs among them; where there are any, rows need a vector too
    ``embedding``  the scorer of the vectors, if it is in the store
    """

    outputs: Mapping[str, tuple[str, ...]]
    scorers: Mapping[str, int]
    distances: tuple[str, ...] = ()
    embedding: int | None = None


def asked_of(indicators: Sequence[str], *, scorers: Mapping[str, int], embedding: int | None = None) -> Asked:
    """What scoring with these indicators asks, when ``scorers`` (output key -> scorer id) are in the store."""
    wanted = {key: tuple(output.key for _, output in outputs_of([key])) for key in dict.fromkeys(indicators)}
    distances = tuple(f"knn_{i}" for i in neighbours_needed(indicators))
    return Asked(wanted, dict(scorers), distances, embedding)


def known_scorers(connection: Connection, identities: Sequence[ScorerIdentity]) -> dict[str, int]:
    """Output key -> scorer id of those identities that are in the store."""
    outputs = {identity.key: identity.output for identity in identities}
    found = frame(
        connection,
        "select identity, scorer_id from scorers where list_contains($identities, identity)",
        {"identities": list(outputs)},
    ).to_pylist()
    return {outputs[row["identity"]]: int(row["scorer_id"]) for row in found}


def dataset_digest(connection: Connection, dataset_id: int) -> str:
    """What identifies the members of a dataset, whatever their order: equal multisets of texts have equal digests.

    Count, sums and exclusive ors of the halves of an MD5 of every member's content hash, hashed together: one pass, no
    sorting, no list in memory.
    """
    found = frame(
        connection,
        """select count(*) n, sum(md5_number_lower(e.hash))::varchar a, sum(md5_number_upper(e.hash))::varchar b,
            bit_xor(md5_number_lower(e.hash))::varchar c, bit_xor(md5_number_upper(e.hash))::varchar d
        from members m join examples e on e.example_id = m.example_id where m.dataset_id = $id""",
        {"id": dataset_id},
    ).to_pylist()[0]
    return hashlib.sha256(":".join(str(found[key]) for key in "nabcd").encode()).hexdigest()[:32]


def scored_counts(connection: Connection, *, dataset_id: int, scorers: Mapping[str, int]) -> dict[str, int]:
    """For each output key of ``scorers``: the distinct rows of the dataset that are done.

    Done is a value, or a NULL that would come out the same again (not transient).
    """
    found = frame(
        connection,
        """select c.scorer_id, count(*) n from (select distinct example_id from members where dataset_id = $id) m
        join scores c on c.example_id = m.example_id
        where list_contains($scorers, c.scorer_id) and not c.transient group by c.scorer_id""",
        {"id": dataset_id, "scorers": list(scorers.values())},
    ).to_pylist()
    counts = {int(row["scorer_id"]): int(row["n"]) for row in found}
    return {output: counts.get(scorer_id, 0) for output, scorer_id in scorers.items()}


def n_distinct(connection: Connection, dataset_id: int) -> int:
    """Distinct rows of a dataset."""
    found = scalar(connection, "select count(distinct example_id) from members where dataset_id = :id", id=dataset_id)
    return int(found)


_OF_DATASET = "select example_id, min(position) position from members where dataset_id = $id group by example_id"
_OF_IDS = "select unnest($ids)::bigint example_id, generate_subscripts($ids, 1) position"


def _left(asked: Asked, members: str, *, whole: bool = False) -> str:
    """SQL of the rows that lack something: ``example_id, position, wanted`` and, with kNN asked, ``has_vector``.

    What a row has is a set of bits, one an output. ``wanted`` names the indicators that lack an output, by commas. With
    ``whole`` no row is left out: one that lacks nothing wants all.
    """
    bits = {output: 1 << i for i, output in enumerate(dict.fromkeys(o for of in asked.outputs.values() for o in of))}
    known = {asked.scorers[output]: bit for output, bit in bits.items() if output in asked.scorers}
    whens = " ".join(f"when {scorer_id} then {bit}::hugeint" for scorer_id, bit in known.items())
    cells = f"case scorer_id {whens} end" if known else "0::hugeint"
    lacking = []
    for key, outputs in asked.outputs.items():
        need = sum({bits[output] for output in outputs})
        lacking.append(f"case when d.has is null or d.has & {need}::hugeint <> {need}::hugeint then '{key}' end")
    vector = f"v.scorer_id = {int(asked.embedding)}" if asked.embedding is not None else "false"
    # A row that has no vector because none can be had stands with a NULL distance: it is not asked for again.
    final = sum(bits[output] for output in asked.distances)
    lacks_vector = f"not has_vector and coalesce(nulls, 0) & {final}::hugeint = 0" if asked.distances else "false"
    joined = f"left join embeddings v on v.example_id = m.example_id and {vector}" if asked.distances else ""
    has_vector = "v.example_id is not null" if asked.distances else "false"
    every = f"coalesce(nullif(wanted, ''), '{','.join(asked.outputs)}')" if whole else "wanted"
    return f"""with m as ({members}),
    d as (select example_id, bit_or(bit) has, bit_or(case when value is null then bit else 0 end) nulls from (
            select example_id, value, {cells} bit from scores
            where scorer_id in ({", ".join(map(str, known)) or "null"}) and not transient
                and example_id in (select example_id from m)) group by example_id)
    select example_id, position, {every} wanted, has_vector from (
        select m.example_id, m.position, concat_ws(',', {", ".join(lacking)}) wanted,
            {has_vector} has_vector, d.nulls
        from m left join d on d.example_id = m.example_id {joined})
    where {"true" if whole else f"wanted <> '' or {lacks_vector}"}"""


def size(connection: Connection, asked: Asked, *, dataset_id: int) -> dict[str, int]:
    """How many rows :func:`left_rows` would give and how long their texts are: ``n_rows, n_characters``."""
    return frame(
        connection,
        f"""select count(*)::bigint n_rows,
            coalesce(sum(length(e.instruction) + length(e.input) + length(e.output)), 0)::bigint n_characters
        from ({_left(asked, _OF_DATASET)}) l join examples e on e.example_id = l.example_id""",
        {"id": dataset_id},
    ).to_pylist()[0]


def left_rows(
    connection: Connection, asked: Asked, *, dataset_id: int | None = None, example_ids: Sequence[int] | None = None
) -> pa.Table:
    """The distinct rows of a dataset that lack something, or all of ``example_ids``, in order, without their texts.

    Columns ``example_id, wanted`` (indicators by commas; all of them for one of ``example_ids`` that lacks none) and,
    where kNN is asked, ``has_vector``.
    """
    parameters: dict[str, Any]
    if example_ids is None:
        left, parameters = _left(asked, _OF_DATASET), {"id": dataset_id}
    else:
        left, parameters = _left(asked, _OF_IDS, whole=True), {"ids": list(example_ids)}
    found = frame(connection, f"select example_id, wanted, has_vector from ({left}) order by position", parameters)
    return found if asked.distances else found.drop_columns(["has_vector"])


def parted(left: pa.Table, asked: Asked, *, parts: int) -> list[pa.Table]:
    """Share the rows of :func:`left_rows` out to ``parts`` jobs; a part that has nothing to do is left out.

    Distances need the whole dataset, so all that concerns them goes into the first part.
    """
    if parts <= 1:
        return [left]
    positions = pa.array(range(left.num_rows), pa.int64())
    wanted = left["wanted"].combine_chunks().dictionary_encode()
    near = set(asked.distances)
    every = [text.split(",") for text in wanted.dictionary.to_pylist()]
    others = pa.array([",".join(key for key in keys if key not in near) for keys in every], pa.string())
    distances = pa.array([",".join(key for key in keys if key in near) for keys in every], pa.string())
    turn = pc.subtract(positions, pc.multiply(pc.divide(positions, parts), parts))
    place = left.column_names.index("wanted")
    tables = []
    for part in range(parts):
        own = pc.equal(turn, part)
        elsewhere = distances if part == 0 else pa.array([""] * len(every), pa.string())
        here = (wanted.dictionary if part == 0 else others).take(wanted.indices)
        there = elsewhere.take(wanted.indices)
        table = left.set_column(place, "wanted", pc.if_else(own, here, there))
        keep = pc.not_equal(table["wanted"], "")
        if part == 0 and asked.distances:
            keep = pc.or_(keep, pc.invert(left["has_vector"]))
        tables.append(table.filter(keep))
    return [table for table in tables if table.num_rows]


def with_texts(connection: Connection, left: pa.Table) -> pa.RecordBatchReader:
    """The input of a score job, in batches: the columns of ``left`` and ``instruction, input, output``."""
    texts = [("instruction", pa.string()), ("input", pa.string()), ("output", pa.string())]
    schema = pa.schema([left.schema.field(0), *texts, *list(left.schema)[1:]])

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, left.num_rows, BATCH_ROWS):
            part = left.slice(start, BATCH_ROWS)
            found = frame(
                connection,
                """select e.instruction, e.input, e.output
                from (select unnest($ids) example_id, generate_subscripts($ids, 1) i) w
                join examples e on e.example_id = w.example_id order by w.i""",
                {"ids": part["example_id"].to_pylist()},
            )
            table = pa.table([part.column(0), *found.columns, *part.columns[1:]], schema=schema)
            yield from table.combine_chunks().to_batches()

    return pa.RecordBatchReader.from_batches(schema, batches())


def base_of(connection: Connection, *, dataset_id: int, embedding: int | None) -> pa.RecordBatchReader:
    """All distinct members of a dataset among which neighbours are looked for, by id, in batches.

    Columns ``example_id``, ``n_copies`` (int64) and ``vector`` (list of float32, NULL where none is stored).
    """
    schema = pa.schema([("example_id", pa.int64()), ("n_copies", pa.int64()), ("vector", pa.list_(pa.float32()))])
    members = frame(
        connection,
        "select example_id, count(*) n_copies from members where dataset_id = $id group by example_id order by 1",
        {"id": dataset_id},
    )

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, members.num_rows, _VECTOR_BATCH_ROWS):
            part = members.slice(start, _VECTOR_BATCH_ROWS)
            found = frame(
                connection,
                """select v.vector from (select unnest($ids) example_id) w
                left join (select example_id, vector from embeddings where scorer_id = $scorer
                    and example_id between $first and $last) v on v.example_id = w.example_id
                order by w.example_id""",
                {
                    "ids": part["example_id"].to_pylist(),
                    "scorer": -1 if embedding is None else embedding,
                    "first": part["example_id"][0].as_py(),
                    "last": part["example_id"][-1].as_py(),
                },
            )
            table = pa.table([*part.columns, found["vector"].cast(schema.field("vector").type)], schema=schema)
            yield from table.combine_chunks().to_batches()

    return pa.RecordBatchReader.from_batches(schema, batches())
