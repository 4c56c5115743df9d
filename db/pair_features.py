"""The numbers of a pair that a model of decisions learns from, for thousands of pairs at once, in bounded memory."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy import Connection

from core.decision_model import Basis, basis_of
from core.indicators import OUTPUTS
from core.rules import family_of
from db.pair_queue import asked_for
from db.store import frame, rows

SIDES = ("candidate", "original")
OF_PAIR = ("ifd", "r_ifd")
"""Outputs that the pair itself holds, by the student that reflected; scores of the same name are left out."""

MOST_FAMILIES = 30
LEAST_COVERAGE = 0.05
BASIS_ROWS = 4_000
_VECTORS_AT_ONCE = 4096
_LEVELS = ("stage", "method", "proposal")
_PARTS = ("instruction", "input", "output")


@dataclass(frozen=True)
class Layout:
    """Which columns there are, settled by the pairs that are learnt from.

    ``families``: label of a score -> the scorers that give it (kNN distances have one a dataset); ``levels``: the
    stages, methods and proposals that occur; ``embedder``: the scorer whose vectors ``basis`` is of.
    """

    families: Mapping[str, tuple[int, ...]]
    levels: Mapping[str, tuple[str, ...]]
    embedder: int | None = None
    basis: Basis | None = None

    @property
    def names(self) -> list[str]:
        """Names of the columns of :func:`numbers`, for people."""
        labels = [*(OUTPUTS[output].label for output in OF_PAIR), *self.families]
        found = [f"{label} ({side})" for label in labels for side in ("reflected", "original", "change")]
        found += [f"log length of {part} ({side})" for part in _PARTS for side in ("reflected", "change")]
        found += ["round of reflection"]
        found += [f"{column} is “{level}”" for column, levels in self.levels.items() for level in levels]
        return found + (self.basis.names if self.basis else [])


def layout(connection: Connection, pair_ids: np.ndarray) -> Layout:
    """The columns that pairs ``[n]`` (those to learn from) have enough values of."""
    with asked_for(connection, pair_ids):
        found = rows(
            connection,
            f"""with own as (select p.pair_id, p.candidate_id, p.original_id from asked a
                join pairs p on p.pair_id = a.pair_id),
            sides as (select pair_id, candidate_id example_id from own union all select pair_id, original_id from own),
            n as (select c.scorer_id, count(distinct i.pair_id) n from sides i
                join scores c on c.example_id = i.example_id where c.value is not null group by c.scorer_id)
            select s.scorer_id, s.output, s.indicator, s.version, s.model, s.revision, s.template,
                s.settings::varchar settings, n.n
            from n join scorers s on s.scorer_id = n.scorer_id where s.output not in {OF_PAIR!r}
            order by s.scorer_id""",
        )
        levels = {
            column: tuple(
                row["level"]
                for row in rows(
                    connection,
                    f"""select p.{column} as level, count(*) n from asked a join pairs p on p.pair_id = a.pair_id
                    group by level order by n desc, level limit 8""",
                )
            )
            for column in _LEVELS
        }
        embedder = rows(
            connection,
            """select v.scorer_id, count(*) n from (
                select p.candidate_id example_id from asked a join pairs p on p.pair_id = a.pair_id
                union all select p.original_id from asked a join pairs p on p.pair_id = a.pair_id) e
            join embeddings v on v.example_id = e.example_id
            group by v.scorer_id order by n desc, v.scorer_id desc limit 1""",
        )
    made = Layout(
        families=_families(found, least=LEAST_COVERAGE * len(pair_ids)),
        levels={column: own for column, own in levels.items() if len(own) > 1},
    )
    if not embedder or embedder[0]["n"] < LEAST_COVERAGE * len(pair_ids):
        return made
    scorer_id = int(embedder[0]["scorer_id"])
    some = pair_ids[np.linspace(0, len(pair_ids) - 1, min(BASIS_ROWS, len(pair_ids))).astype(int)]
    sides = [_vectors(connection, some, scorer_id, side) for side in SIDES]
    width = max(one.shape[1] for one in sides)  # of a side without any vector the width is not known
    basis = basis_of(
        *(one if one.shape[1] == width else np.full((len(some), width), np.nan, np.float32) for one in sides)
    )
    return Layout(made.families, made.levels, scorer_id if basis else None, basis)


def _families(scorers: Sequence[Mapping[str, object]], *, least: float) -> dict[str, tuple[int, ...]]:
    """Scorers that give the same number together, those with the most values, under names that differ."""
    grouped: dict[str, list[Mapping[str, object]]] = {}
    for scorer in scorers:
        if scorer["output"] in OUTPUTS:
            grouped.setdefault(json.dumps(family_of(scorer), sort_keys=True), []).append(scorer)
    counted = [(sum(int(str(one["n"])) for one in group), group) for group in grouped.values()]
    kept = sorted((item for item in counted if item[0] >= least), key=lambda item: -item[0])[:MOST_FAMILIES]
    found: dict[str, tuple[int, ...]] = {}
    for _, group in kept:
        label = OUTPUTS[str(group[0]["output"])].label
        if label in found:
            model = str(group[0]["model"] or "").rstrip("/").split("/")[-1]
            label = f"{label} · {model or 'text'} · scorer {group[0]['scorer_id']}"
        found[label] = tuple(int(str(one["scorer_id"])) for one in group)
    return found


@dataclass(frozen=True)
class Numbers:
    """``table`` float32 ``[n, columns]`` (NaN: no value) in the order of ``Layout.names``, and of each pair its
    ``original_ids`` int64 and whether the student proposed to take it (``proposed`` bool)."""

    table: np.ndarray
    original_ids: np.ndarray
    proposed: np.ndarray


def numbers(connection: Connection, columns: Layout, pair_ids: np.ndarray) -> Numbers:
    """The numbers of distinct pairs ``[n]``, in their order. All of them must be in the store."""
    lengths = ", ".join(f"ln(1 + length({side[0]}.{part})) {side}_{part}" for side in SIDES for part in _PARTS)
    with asked_for(connection, pair_ids):
        own = frame(
            connection,
            f"""select p.original_id, p.stage, p.method, p.proposal, coalesce(p.round, 1) round, p.ifd_candidate,
                p.ifd_original, p.r_ifd_candidate, p.r_ifd_original, {lengths}
            from asked a join pairs p on p.pair_id = a.pair_id join examples o on o.example_id = p.original_id
            join examples c on c.example_id = p.candidate_id order by a.place""",
        )
        scores = {side: _scores(connection, columns, len(pair_ids), side) for side in SIDES}
    table = np.full((len(pair_ids), len(columns.names)), np.nan, np.float32)
    at = 0

    def put(*found: np.ndarray) -> None:
        nonlocal at
        for one in found:
            table[:, at] = one
            at += 1

    for output in OF_PAIR:
        candidate, original = (own[f"{output}_{side}"].to_numpy() for side in SIDES)
        put(candidate, original, candidate - original)
    for i in range(len(columns.families)):
        candidate, original = (scores[side][:, i] for side in SIDES)
        put(candidate, original, candidate - original)
    for part in _PARTS:
        candidate, original = (own[f"{side}_{part}"].to_numpy() for side in SIDES)
        put(candidate, candidate - original)
    put(own["round"].to_numpy())
    for column, levels in columns.levels.items():
        values = own[column].to_numpy(zero_copy_only=False)
        put(*(values == level for level in levels))
    if columns.basis is not None and columns.embedder is not None:
        sides = [_vectors(connection, pair_ids, columns.embedder, side, project=columns.basis) for side in SIDES]
        table[:, at:] = columns.basis.place(*sides)
    proposed = own["proposal"].to_numpy(zero_copy_only=False) == "reflected"
    return Numbers(table, own["original_id"].to_numpy(), proposed)


def _scores(connection: Connection, columns: Layout, n: int, side: str) -> np.ndarray:
    """float32 ``[n, families]`` of one side of the pairs in ``asked``."""
    found = np.full((n, len(columns.families)), np.nan, np.float32)
    for i, scorer_ids in enumerate(columns.families.values()):
        table = frame(
            connection,
            f"""select a.place, c.value from asked a join pairs p on p.pair_id = a.pair_id
            join scores c on c.example_id = p.{side}_id
            where c.scorer_id in ({", ".join(str(int(one)) for one in scorer_ids)}) and c.value is not null""",
        )
        found[table["place"].to_numpy(), i] = table["value"].to_numpy()
    return found


def _vectors(
    connection: Connection, pair_ids: np.ndarray, scorer_id: int, side: str, *, project: Basis | None = None
) -> np.ndarray:
    """Vectors float32 ``[n, d]`` of one side, NaN where there is none; with ``project`` what it makes of them."""
    found: np.ndarray | None = None
    raw = connection.connection.driver_connection
    assert raw is not None
    with asked_for(connection, pair_ids):
        # sql() streams: of the vectors no more than a few thousand are held before they are projected.
        stream = raw.sql(
            f"""select a.place, v.vector from asked a join pairs p on p.pair_id = a.pair_id
            join embeddings v on v.example_id = p.{side}_id where v.scorer_id = $scorer""",
            params={"scorer": scorer_id},
        ).to_arrow_reader(_VECTORS_AT_ONCE)
        for batch in stream:
            if not batch.num_rows:
                continue
            flat = batch.column("vector").flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
            vectors = flat.reshape(batch.num_rows, -1)
            placed = project.project(vectors) if project is not None else vectors
            if found is None:
                found = np.full((len(pair_ids), placed.shape[1]), np.nan, np.float32)
            found[batch.column("place").to_numpy()] = placed
    if found is not None:
        return found
    width = 1 if project is None else len(project.names)
    return np.full((len(pair_ids), width), np.nan, np.float32)
