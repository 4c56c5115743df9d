"""Indicators of whole datasets: the means over their members that a study's fit rests on [IM, table 1].

A kNN distance belongs to a dataset: the same row lies differently far from its neighbours in each. So the distances
that were scored within some other dataset are never used here; they are computed anew within each dataset, exactly,
from the stored embeddings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from sqlalchemy import Connection

from core.correlation import Correlation, Method
from core.correlation import correlations as correlation_table
from core.indicators import DEFAULT_NEIGHBOUR, KNN, LOSSES, OUTPUTS
from core.indicators.losses import count_key
from core.neighbours import NEIGHBOURS_VERSION
from core.rules import family_of
from core.scoring import EMBEDDING_OUTPUT
from core.studies import PlannedRun
from db.dataset_distances import Vectors, mean_distances, summary
from db.store import Store, frame, registered

_COUNTS = {count_key(output.key) for output in LOSSES.outputs if output.key.startswith("loss_")}


@dataclass(frozen=True)
class IndicatorColumn:
    """An indicator of datasets.

    ``key`` is unique in a list: the output's key, or with the scorer's id (``ifd@12``) where several scorers have the
    same output. A plain column has a ``scorer_id``; a kNN column has an ``embedding_id`` (the scorer of the vectors)
    and a ``neighbour``. ``family`` says what was scored with: see :func:`core.rules.family_of`.
    """

    key: str
    output: str
    label: str
    family: Mapping[str, Any]
    scorer_id: int | None
    embedding_id: int | None = None
    neighbour: int | None = None


@dataclass(frozen=True)
class Means:
    """Indicators of datasets, all arrays ``[datasets, columns]``.

    ``mean``       over the members that have a value; NaN where none has
    ``n_values``   members that have a value; ``n_members`` all of them (one that stands twice counts twice)
    ``sd``         standard deviation of the values, NaN for fewer than two
    """

    columns: tuple[IndicatorColumn, ...]
    dataset_ids: tuple[int, ...]
    mean: np.ndarray
    n_values: np.ndarray
    n_members: np.ndarray
    sd: np.ndarray

    def of(self, key: str) -> np.ndarray:
        """The means of the column with this key, float64 ``[datasets]``."""
        own: np.ndarray = self.mean[:, [column.key for column in self.columns].index(key)]
        return own


def correlations(means: Means, *, method: Method = "pearson") -> list[list[Correlation]]:
    """Pairwise correlation of the columns over the datasets: see :func:`core.correlation.correlations`."""
    return correlation_table(means.mean, method=method)


# --- which columns there are ---

_MEMBERS = "select example_id from members where list_contains($ids, dataset_id)"
_EXAMPLES = "select unnest($ids)"


def indicator_columns(
    store: Store, dataset_ids: Sequence[int], *, neighbours: Sequence[int] = (DEFAULT_NEIGHBOUR,)
) -> list[IndicatorColumn]:
    """Indicators that some member of these datasets has a value of, in the order of the indicators.

    For every embedding model with vectors of members there is a kNN column for each of ``neighbours``. Numbers of
    tokens that losses were taken over are left out.
    """
    with store.read() as connection:
        return _columns(connection, _MEMBERS, dataset_ids, neighbours)


def indicator_columns_of(
    store: Store, example_ids: Sequence[int], *, neighbours: Sequence[int] = (DEFAULT_NEIGHBOUR,)
) -> list[IndicatorColumn]:
    """As :func:`indicator_columns`, of these examples, whatever datasets they stand in."""
    with store.read() as connection:
        return _columns(connection, _EXAMPLES, example_ids, neighbours)


def _columns(
    connection: Connection, members: str, ids: Sequence[int], neighbours: Sequence[int]
) -> list[IndicatorColumn]:
    scorers = frame(
        connection,
        f"""select s.scorer_id, s.output, s.indicator, s.version, s.model, s.revision, s.template,
            s.settings::varchar settings
        from scorers s where s.output = $embedding and s.scorer_id in (
                select scorer_id from embeddings where example_id in ({members}))
            or s.output <> $embedding and s.scorer_id in (
                select scorer_id from scores where value is not null and example_id in ({members}))
        order by s.scorer_id""",
        {"ids": list(ids), "embedding": EMBEDDING_OUTPUT},
    ).to_pylist()
    found = []
    for scorer in scorers:
        scorer["settings"] = json.loads(scorer["settings"] or "{}")
        if scorer["output"] == EMBEDDING_OUTPUT:
            found += [_distance_column(scorer, i) for i in neighbours]
        elif scorer["output"] not in _COUNTS and "dataset" not in scorer["settings"]:
            output = scorer["output"]
            label = OUTPUTS[output].label if output in OUTPUTS else output
            found.append((scorer, IndicatorColumn(output, output, label, family_of(scorer), scorer["scorer_id"])))
    places = {key: place for place, key in enumerate(OUTPUTS)}
    found.sort(key=lambda pair: (places.get(pair[1].output, len(places)), pair[0]["scorer_id"]))
    return _told_apart(found)


def _distance_column(embedding: Mapping[str, Any], i: int) -> tuple[Mapping[str, Any], IndicatorColumn]:
    """The column of the distances that a scorer of ``knn_i`` with this embedding model gives."""
    key = f"knn_{i}"
    scorer = {
        **embedding,
        "output": key,
        "indicator": key,
        "version": f"{KNN[i].version}; embedding {embedding['version']}; neighbours {NEIGHBOURS_VERSION}",
    }
    return embedding, IndicatorColumn(key, key, OUTPUTS[key].label, family_of(scorer), None, embedding["scorer_id"], i)


def _told_apart(found: Sequence[tuple[Mapping[str, Any], IndicatorColumn]]) -> list[IndicatorColumn]:
    """The columns, with scorer id and model in key and label where several have one output."""
    outputs = [column.output for _, column in found]
    columns = []
    for scorer, column in found:
        if outputs.count(column.output) > 1:
            model = str(scorer["model"] or "").rstrip("/").rpartition("/")[2]
            about = ", ".join(part for part in (model, f"scorer {scorer['scorer_id']}") if part)
            fields = {**vars(column), "key": f"{column.output}@{scorer['scorer_id']}"}
            column = IndicatorColumn(**{**fields, "label": f"{column.label} ({about})"})
        columns.append(column)
    return columns


# --- means of datasets ---


def indicator_means(store: Store, dataset_ids: Sequence[int], columns: Sequence[IndicatorColumn]) -> Means:
    """The indicators of these datasets. Plain ones are one query; kNN distances are computed once for each dataset.

    A dataset that is gone has no members and no means.
    """
    means = _empty(tuple(dataset_ids), columns)
    rows = {dataset_id: place for place, dataset_id in enumerate(dataset_ids)}
    with store.read() as connection:
        sizes = frame(
            connection,
            "select dataset_id, n_members from datasets where list_contains($ids, dataset_id)",
            {"ids": list(dataset_ids)},
        ).to_pylist()
        for row in sizes:
            means.n_members[rows[row["dataset_id"]]] = row["n_members"]
        _fill_plain(connection, means, rows)
    _fill_distances(store, means, rows)
    return means


def _empty(ids: tuple[int, ...], columns: Sequence[IndicatorColumn]) -> Means:
    shape = (len(ids), len(columns))
    return Means(
        tuple(columns),
        ids,
        np.full(shape, np.nan),
        np.zeros(shape, np.int64),
        np.zeros(shape, np.int64),
        np.full(shape, np.nan),
    )


def _fill_plain(connection: Connection, means: Means, rows: Mapping[int, int]) -> None:
    places = {column.scorer_id: i for i, column in enumerate(means.columns) if column.scorer_id is not None}
    if not places:
        return
    found = frame(
        connection,
        """select m.dataset_id, c.scorer_id, favg(c.value) mean, count(c.value) n, stddev_samp(c.value) sd
        from members m join scores c on c.example_id = m.example_id
        where list_contains($datasets, m.dataset_id) and list_contains($scorers, c.scorer_id) and c.value is not null
        group by m.dataset_id, c.scorer_id""",
        {"datasets": list(rows), "scorers": list(places)},
    ).to_pylist()
    for row in found:
        place = rows[row["dataset_id"]], places[row["scorer_id"]]
        means.mean[place], means.n_values[place] = row["mean"], row["n"]
        means.sd[place] = np.nan if row["sd"] is None else row["sd"]


def _fill_distances(store: Store, means: Means, rows: Mapping[int, int]) -> None:
    wanted: dict[int, dict[int, int]] = {}
    for i, column in enumerate(means.columns):
        if column.embedding_id is not None and column.neighbour is not None:
            wanted.setdefault(column.embedding_id, {})[column.neighbour] = i
    for embedding_id, places in wanted.items():
        found = mean_distances(store, list(rows), embedding_id=embedding_id, neighbours=sorted(places))
        for (dataset_id, neighbour), own in found.items():
            place = rows[dataset_id], places[neighbour]
            means.mean[place], means.n_values[place], means.sd[place] = own


# --- means of runs that are planned, and values to plan by ---


def plan_means(store: Store, runs: Sequence[PlannedRun], columns: Sequence[IndicatorColumn]) -> Means:
    """The indicators that the datasets of these runs will have, before they are made.

    ``dataset_ids`` of the result are the places of the runs in the plan. Scores and embeddings of all rows are loaded
    once.
    """
    means = _empty(tuple(range(len(runs))), columns)
    members = [np.asarray(run.example_ids, np.int64) for run in runs]
    for place, own in enumerate(members):
        means.n_members[place] = len(own)
    pool = np.unique(np.concatenate(members)) if members else np.empty(0, np.int64)
    if not len(pool):
        return means
    scores = _scores(store, pool, [column.scorer_id for column in columns if column.scorer_id is not None])
    places = [np.searchsorted(pool, own) for own in members]
    for i, column in enumerate(columns):
        if column.scorer_id is not None:
            for row, own in enumerate(places):
                _put(means, row, i, scores[column.scorer_id][own])
    for embedding_id in dict.fromkeys(c.embedding_id for c in columns if c.embedding_id is not None):
        at = {i: c.neighbour for i, c in enumerate(columns) if c.embedding_id == embedding_id and c.neighbour}
        vectors = Vectors.load(store, embedding_id, pool)
        for row, own in enumerate(members):
            distances = vectors.distances_within(own, list(at.values()))
            for place, i in enumerate(at):
                _put(means, row, i, distances[:, place])
    return means


def _put(means: Means, row: int, column: int, values: np.ndarray) -> None:
    means.mean[row, column], means.n_values[row, column], means.sd[row, column] = summary(values)


def _scores(store: Store, pool: np.ndarray, scorer_ids: Sequence[int]) -> dict[int, np.ndarray]:
    """Scores of the examples ``pool`` (rising) by scorer, float64 ``[n]``; NaN is no value."""
    found = {scorer_id: np.full(len(pool), np.nan) for scorer_id in scorer_ids}
    if not found:
        return found
    with store.read() as connection, registered(connection, "pool", pa.table({"example_id": pool})):
        table = frame(
            connection,
            """select c.scorer_id, c.example_id, c.value from scores c join pool p on p.example_id = c.example_id
            where list_contains($scorers, c.scorer_id) and c.value is not null""",
            {"scorers": list(found)},
        )
    owners, places = table["scorer_id"].to_numpy(), np.searchsorted(pool, table["example_id"].to_numpy())
    values = table["value"].to_numpy()
    for scorer_id, own in found.items():
        mine = owners == scorer_id
        own[places[mine]] = values[mine]
    return found


def values_of(store: Store, example_ids: Sequence[int], column: IndicatorColumn) -> dict[int, float]:
    """The indicator's value of each of these examples; one without a value is left out.

    A kNN distance is taken within these examples, each counted once.
    """
    pool = np.unique(np.asarray(example_ids, np.int64))
    if not len(pool):
        return {}
    if column.scorer_id is not None:
        values = _scores(store, pool, [column.scorer_id])[column.scorer_id]
    elif column.embedding_id is not None and column.neighbour is not None:
        values = Vectors.load(store, column.embedding_id, pool).distances_within(pool, [column.neighbour])[:, 0]
    else:
        raise ValueError(f"the column {column.key!r} has neither scorer nor embedding")
    there = np.isfinite(values)
    return dict(zip(pool[there].tolist(), values[there].tolist(), strict=True))
