"""Reads for the Relations and Map pages, and the values of datasets as a whole; bulk answers are Arrow or numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from core.bootstrap import Interval, mean_intervals
from db.conditions import category_column, metadata_value, pointer, third_score
from db.store import Store, frame

MOST_GROUPS = 30
MOST_CORRELATED_ROWS = 200_000
MOST_POINTS = 20_000
PREVIEW = 80
_KEYS_FROM = 20_000
_VALUES_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class DatasetValue:
    """One scorer over one dataset: what of its members has a value, and their mean with its bootstrap interval."""

    dataset_id: int
    scorer_id: int
    n_members: int
    n_nulls: int
    n_missing: int
    median: float | None
    interval: Interval


def dataset_values(store: Store, *, dataset_ids: Sequence[int], scorer_ids: Sequence[int]) -> list[DatasetValue]:
    """The values of each of these datasets by each of these scorers, scorer by scorer, datasets by rising id.

    A row that stands twice counts twice. Some ``_VALUES_AT_ONCE`` values are held at a time, or those of one scorer
    where they are more (8 bytes a member).
    """
    found: list[DatasetValue] = []
    with store.read() as connection:
        members = frame(
            connection,
            """select dataset_id, count(*) n from members where list_contains($datasets, dataset_id)
            group by dataset_id order by dataset_id""",
            {"datasets": list(dataset_ids)},
        ).to_pylist()
        n_at_once = max(1, _VALUES_AT_ONCE // max(1, sum(row["n"] for row in members)))
        for start in range(0, len(scorer_ids), n_at_once):
            columns: list[tuple[int, dict[str, int], int, np.ndarray]] = []
            for scorer_id in scorer_ids[start : start + n_at_once]:
                scores = frame(
                    connection,
                    """select m.dataset_id, c.value from members m
                    join scores c on c.example_id = m.example_id and c.scorer_id = $scorer
                    where list_contains($datasets, m.dataset_id)""",
                    {"scorer": scorer_id, "datasets": list(dataset_ids)},
                )
                owners, values = _numbers(scores["dataset_id"], np.int64), _numbers(scores["value"], np.float64)
                for row in members:
                    own = values[owners == row["dataset_id"]]
                    columns.append((scorer_id, row, len(own), own[~np.isnan(own)]))
            intervals = mean_intervals([there for _, _, _, there in columns])
            found += [_dataset_value(*column, interval) for column, interval in zip(columns, intervals, strict=True)]
    return found


def _dataset_value(
    scorer_id: int, members: dict[str, int], n_scored: int, there: np.ndarray, interval: Interval
) -> DatasetValue:
    return DatasetValue(
        dataset_id=members["dataset_id"],
        scorer_id=scorer_id,
        n_members=members["n"],
        n_nulls=n_scored - len(there),
        n_missing=members["n"] - n_scored,
        median=float(np.median(there)) if len(there) else None,
        interval=interval,
    )


def _numbers(column: pa.ChunkedArray, dtype: Any) -> np.ndarray:
    """A column of numbers; NULL becomes NaN."""
    numbers: np.ndarray = column.to_numpy()
    return np.asarray(numbers, dtype)


def score_table(
    store: Store, *, dataset_ids: Sequence[int], scorer_ids: Sequence[int], limit: int = MOST_CORRELATED_ROWS
) -> np.ndarray:
    """Scores of up to ``limit`` members, float64 ``[rows, scorers]`` in the order of ``scorer_ids``; NaN is no value.

    Members without any of these scores are left out. Of more than ``limit`` the same ones are taken each time.
    """
    names = [f"s{i}" for i in range(len(scorer_ids))]
    if not names:
        return np.empty((0, 0))
    columns = ", ".join(f"max(c.value) filter (c.scorer_id = $s{i}) s{i}" for i in range(len(names)))
    parameters: dict[str, Any] = dict(zip(names, scorer_ids, strict=True))
    with store.read() as connection:
        table = frame(
            connection,
            f"""with w as (select dataset_id, position, example_id from members m
                where list_contains($datasets, dataset_id) and exists (
                    select 1 from scores c where c.example_id = m.example_id and list_contains($scorers, c.scorer_id)
                    and c.value is not null)
                order by hash(example_id), dataset_id, position limit {int(limit)})
            select {columns} from w join scores c on c.example_id = w.example_id
            where list_contains($scorers, c.scorer_id) group by w.dataset_id, w.position""",
            {**parameters, "scorers": list(scorer_ids), "datasets": list(dataset_ids)},
        )
    return np.column_stack([_numbers(table[name], np.float64) for name in names])


def points(
    store: Store,
    *,
    x: int,
    y: int,
    dataset_ids: Sequence[int],
    colour: int | None = None,
    key: str | None = None,
    limit: int = MOST_POINTS,
) -> pa.Table:
    """Up to ``limit`` members that have both scores, the same each time.

    Columns ``dataset_id, position, example_id, x, y, colour`` (a third score or NULL), ``category`` (what the further
    column ``key`` holds, or NULL), ``instruction`` (its first ``PREVIEW`` characters).
    """
    category, more = category_column(key)
    third, join, parameters = third_score(colour)
    with store.read() as connection:
        return frame(
            connection,
            f"""with w as (select m.dataset_id, m.position, m.example_id, m.metadata, a.value x, b.value y
                from members m
                join scores a on a.example_id = m.example_id and a.scorer_id = $x and a.value is not null
                join scores b on b.example_id = m.example_id and b.scorer_id = $y and b.value is not null
                where list_contains($datasets, m.dataset_id)
                order by hash(m.example_id), m.dataset_id, m.position limit {int(limit)})
            select m.dataset_id, m.position, m.example_id, m.x, m.y, {third} colour, {category} category,
                left(e.instruction, {PREVIEW}) instruction
            from w m join examples e on e.example_id = m.example_id {join}
            order by m.dataset_id, m.position""",
            {"x": x, "y": y, "datasets": list(dataset_ids), **parameters, **more},
        )


def category_keys(store: Store, dataset_ids: Sequence[int]) -> list[dict[str, Any]]:
    """Further columns by which rows can be told apart, the best first: ``key, n_rows, n_values``.

    Counted over some ``_KEYS_FROM`` members spread evenly. A column with one value alone, or with a value of its own
    for nearly every row (an id), tells nothing apart and comes last.
    """
    with store.read() as connection:
        found: list[dict[str, Any]] = frame(
            connection,
            f"""with n as (select greatest(1, count(*) // {_KEYS_FROM}) step from members
                where list_contains($datasets, dataset_id)),
            w as (select metadata from members, n where list_contains($datasets, dataset_id) and metadata is not null
                and (position + dataset_id) % step = 0),
            k as (select unnest(json_keys(metadata)) key, metadata from w
                where case when json_valid(metadata) then json_type(metadata) = 'OBJECT' else false end)
            select key, count(*) n_rows, count(distinct hash(json_extract(metadata, '/' ||
                replace(replace(key, '~', '~0'), '/', '~1')))) n_values
            from k group by key
            order by n_values < 2 or n_values > greatest(20, 0.5 * n_rows), n_rows desc, n_values, key limit 50""",
            {"datasets": list(dataset_ids)},
        ).to_pylist()
    return found


def categories(store: Store, *, dataset_ids: Sequence[int], key: str, limit: int = 200) -> list[dict[str, Any]]:
    """What a further column holds, the most frequent first: ``category`` (None: nothing) and ``n`` members."""
    with store.read() as connection:
        found: list[dict[str, Any]] = frame(
            connection,
            f"""select {metadata_value("key")} category, count(*) n from members m
            where list_contains($datasets, m.dataset_id) group by category
            order by category is null, n desc, category limit {int(limit)}""",
            {"datasets": list(dataset_ids), "key": pointer(key)},
        ).to_pylist()
    return found


@dataclass(frozen=True)
class Spread:
    """A score over one group of rows. ``kind``: "dataset", "category", "other" (all smaller ones) or "none"."""

    kind: str
    dataset_id: int | None
    category: str | None
    n: int
    n_nulls: int
    n_missing: int
    q05: float | None
    q25: float | None
    median: float | None
    q75: float | None
    q95: float | None
    minimum: float | None
    maximum: float | None
    mean: float | None


def spread(
    store: Store, *, scorer_id: int, dataset_ids: Sequence[int], key: str | None = None, most: int = MOST_GROUPS
) -> list[Spread]:
    """Quantiles of a score over each dataset, or over each category of the further column ``key``, by rising median.

    ``n`` counts values. Of more than ``most`` groups the largest stay and the rest is one group, "other"; rows where
    the column holds nothing are the group "none". Groups without a value come last.
    """
    group = "m.dataset_id::varchar" if key is None else f"coalesce('=' || {metadata_value('key')}, '-')"
    parameters: dict[str, Any] = {"scorer": scorer_id, "datasets": list(dataset_ids)}
    if key is not None:
        parameters["key"] = pointer(key)
    with store.read() as connection:
        found = frame(
            connection,
            f"""with v as (select {group} g, c.value, c.example_id is not null scored from members m
                left join scores c on c.example_id = m.example_id and c.scorer_id = $scorer
                where list_contains($datasets, m.dataset_id)),
            sizes as (select g, row_number() over (order by count(*) desc, g) place, g = '-' nothing from v group by g),
            kept as (select g, case when place <= {int(most)} or nothing then g else '+' end as shown from sizes)
            select kept.shown g, count(v.value) n, count(*) filter (scored) - count(v.value) n_nulls,
                count(*) filter (not scored) n_missing, quantile_cont(v.value, [0.05, 0.25, 0.5, 0.75, 0.95]) q,
                min(v.value) minimum, max(v.value) maximum, avg(v.value) mean
            from v join kept on kept.g = v.g group by kept.shown
            order by q[3] nulls last, g""",
            parameters,
        ).to_pylist()
    return [_spread(row, by_dataset=key is None) for row in found]


def _spread(row: dict[str, Any], *, by_dataset: bool) -> Spread:
    name = str(row["g"])
    q05, q25, median, q75, q95 = row["q"] or [None] * 5
    other = name == "+"
    kind = "other" if other else "dataset" if by_dataset else "none" if name == "-" else "category"
    return Spread(
        kind=kind,
        dataset_id=int(name) if kind == "dataset" else None,
        category=name[1:] if kind == "category" else None,
        **{field: int(row[field]) for field in ("n", "n_nulls", "n_missing")},
        q05=q05,
        q25=q25,
        median=median,
        q75=q75,
        q95=q95,
        minimum=row["minimum"],
        maximum=row["maximum"],
        mean=row["mean"],
    )
