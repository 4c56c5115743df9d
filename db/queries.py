"""Reads for the Data and Scores pages. Every function is one short query; bulk answers come as Arrow tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from sqlalchemy import Connection, bindparam, text

from core.filters import RowFilter
from db.conditions import of_category, without_value
from db.schema import RUN_KINDS
from db.store import Store, frame, rows

PREVIEW_CHARACTERS = 400

# Where no dataset is named, all but those that studies made for their runs: their rows stand in others already.
_OF_NO_RUN = f"m.dataset_id not in (select dataset_id from datasets where kind in {RUN_KINDS!r})"


def version(store: Store) -> str:
    """A short text that changes whenever datasets, scores, pairs or decisions do: the key of what pages remember."""
    with store.read() as connection:
        found = frame(
            connection,
            """select (select count(*) from scores), (select count(*) from job_shards), (select count(*) from pairs),
                (select count(*) from decisions), (select max(dataset_id) from datasets),
                (select bit_xor(hash(dataset_id, name)) from datasets)""",
        )
    return "-".join(str(column[0].as_py()) for column in found.columns)


def datasets(store: Store, *, with_runs: bool = False) -> list[dict[str, Any]]:
    """All datasets, newest first, with the number of their pairs and of those decided.

    Those that a study made for its runs are left out unless asked for: there are dozens of them. ``details`` is a
    dictionary without the findings of the import; :func:`dataset_details` has them.
    """
    with store.read() as connection:
        return rows(
            connection,
            f"""select d.dataset_id, d.name, d.kind, d.source, d.n_members,
                json_merge_patch(d.details, '{{"findings": null}}') details, d.created_at, d.created_by,
                coalesce(p.n_pairs, 0) n_pairs, coalesce(p.n_decided, 0) n_decided
            from datasets d left join (
                select p.dataset_id, count(*) n_pairs, count(c.pair_id) n_decided
                from pairs p left join current_decisions c on c.pair_id = p.pair_id group by p.dataset_id
            ) p on p.dataset_id = d.dataset_id
            {"" if with_runs else f"where d.kind not in {RUN_KINDS!r}"} order by d.dataset_id desc""",
        )


def dataset_details(store: Store, dataset_id: int) -> dict[str, Any]:
    """What was kept with a dataset when it was made: of an import its report and the first findings of each kind."""
    with store.read() as connection:
        found = rows(connection, "select details::varchar details from datasets where dataset_id = :id", id=dataset_id)
    return dict(json.loads(found[0]["details"])) if found else {}


def scorers(store: Store, *, dataset_ids: Sequence[int] = ()) -> list[dict[str, Any]]:
    """Scorers that have a score of some member of ``dataset_ids`` (where that is empty: of any dataset but runs').

    ``n_values`` and ``n_nulls`` count members, so a row that stands twice in a dataset counts twice.
    """
    where = f"where {'m.dataset_id in :datasets' if dataset_ids else _OF_NO_RUN}"
    statement = text(
        f"""select s.scorer_id, s.output, s.indicator, s.version, s.model, s.revision, s.template, s.settings,
            count(c.value) n_values, count(*) - count(c.value) n_nulls
        from members m join scores c on c.example_id = m.example_id join scorers s on s.scorer_id = c.scorer_id
        {where} group by all order by s.scorer_id"""
    )
    parameters: dict[str, Any] = {}
    if dataset_ids:
        statement = statement.bindparams(bindparam("datasets", expanding=True))
        parameters["datasets"] = list(dataset_ids)
    with store.read() as connection:
        return [dict(row) for row in connection.execute(statement, parameters).mappings()]


def examples(store: Store, example_ids: Sequence[int]) -> list[dict[str, Any]]:
    """Whole texts of these examples, in this order; an id that is not there is left out."""
    with store.read() as connection:
        found = connection.execute(
            text(
                "select example_id, hash, instruction, input, output from examples where example_id in :ids"
            ).bindparams(bindparam("ids", expanding=True)),
            {"ids": list(example_ids)},
        ).mappings()
        by_id = {row["example_id"]: dict(row) for row in found}
    return [by_id[i] for i in example_ids if i in by_id]


def previews(store: Store, example_ids: Sequence[int]) -> list[dict[str, Any]]:
    """Texts of these examples cut to ``PREVIEW_CHARACTERS``, in no order; an id that is not there is left out."""
    with store.read() as connection:
        return _previews(connection, example_ids)


def _previews(connection: Connection, example_ids: Sequence[int]) -> list[dict[str, Any]]:
    if not example_ids:
        return []
    return frame(
        connection,
        """select example_id, left(instruction, $n) instruction, left(input, $n) input, left(output, $n) output
        from examples where list_contains($ids, example_id)""",
        {"ids": list(example_ids), "n": PREVIEW_CHARACTERS},
    ).to_pylist()


def examples_table(store: Store, example_ids: Sequence[int]) -> pa.Table:
    """As :func:`examples`, as the input table of a job (Arrow, any number of rows)."""
    with store.read() as connection:
        return examples_in(connection, example_ids)


def examples_in(connection: Connection, example_ids: Sequence[int]) -> pa.Table:
    """As :func:`examples_table`, in a transaction that is open."""
    return frame(
        connection,
        """select e.example_id, e.instruction, e.input, e.output
        from (select unnest($ids) example_id, generate_subscripts($ids, 1) i) w
        join examples e on e.example_id = w.example_id order by w.i""",
        {"ids": list(example_ids)},
    )


@dataclass(frozen=True)
class Page:
    """One page of rows. ``next_cursor`` is None on the last page; ``total`` is known where it came for free."""

    rows: list[dict[str, Any]]
    next_cursor: tuple[Any, ...] | None
    total: int | None = None


def _where(filters: RowFilter) -> tuple[str, str, dict[str, Any]]:
    joins: list[str] = []
    conditions = ["list_contains($datasets, m.dataset_id)" if filters.datasets else _OF_NO_RUN]
    parameters: dict[str, Any] = {"datasets": list(filters.datasets)} if filters.datasets else {}
    for i, score_range in enumerate(filters.ranges):
        joins.append(
            f"join scores r{i} on r{i}.scorer_id = $scorer{i} and r{i}.example_id = m.example_id "
            f"and r{i}.value is not null"
        )
        parameters[f"scorer{i}"] = score_range.scorer_id
        for side, sign in (("low", ">="), ("high", "<=")):
            bound = getattr(score_range, side)
            if bound is not None:
                conditions.append(f"r{i}.value {sign} ${side}{i}")
                parameters[f"{side}{i}"] = bound
    if filters.text:
        # Half the time of a join with contains(lower(...)): 'il' is a literal search in any case by RE2.
        conditions.append(
            """m.example_id in (select example_id from examples where regexp_matches(instruction, $text, 'il')
            or regexp_matches(input, $text, 'il') or regexp_matches(output, $text, 'il'))"""
        )
        parameters["text"] = filters.text
    if filters.ids:
        conditions.append("m.example_id in (select unnest($ids))")
        parameters["ids"] = list(filters.ids)
    further = [without_value(missing, i) for i, missing in enumerate(filters.missing)]
    if filters.category is not None:
        further.append(of_category(filters.category))
    for condition, more in further:
        conditions.append(condition)
        parameters |= more
    return "\n".join(joins), " and ".join(conditions), parameters


def count_rows(store: Store, filters: RowFilter) -> int:
    """How many members match."""
    joins, conditions, parameters = _where(filters)
    with store.read() as connection:
        table = frame(connection, f"select count(*) n from members m {joins} where {conditions}", parameters)
    return int(table["n"][0].as_py())


def matching_ids(store: Store, filters: RowFilter, *, limit: int | None = None) -> list[int]:
    """Distinct example ids that match, in the order of the filter (sort, then dataset and position)."""
    joins, conditions, parameters = _where(filters)
    order = "position"
    select = "min(m.dataset_id * 1000000000000 + m.position) position, null::double sort_value"
    if filters.sort is not None:
        joins += "\nleft join scores o on o.scorer_id = $sort and o.example_id = m.example_id"
        parameters["sort"] = filters.sort
        select = "min(m.dataset_id * 1000000000000 + m.position) position, any_value(o.value) sort_value"
        order = f"sort_value {'desc' if filters.descending else 'asc'} nulls last, position"
    tail = f"limit {int(limit)}" if limit is not None else ""
    with store.read() as connection:
        table = frame(
            connection,
            f"""select example_id from (select m.example_id, {select} from members m {joins} where {conditions}
            group by m.example_id) order by {order} {tail}""",
            parameters,
        )
    return table["example_id"].to_pylist()


def page_of_rows(store: Store, filters: RowFilter, *, cursor: tuple[Any, ...] | None = None, size: int = 50) -> Page:
    """One page by keyset: ids first, then the texts of just these rows (cut to ``PREVIEW_CHARACTERS``).

    ``cursor`` is ``next_cursor`` of the page before: (sort value or None, dataset_id, position). A row that comes or
    goes between two pages neither repeats nor hides another.
    """
    joins, conditions, parameters = _where(filters)
    sort_value, order = "null::double", "m.dataset_id, m.position"
    if filters.sort is not None:
        joins += "\nleft join scores o on o.scorer_id = $sort and o.example_id = m.example_id"
        parameters["sort"] = filters.sort
        sort_value = "o.value"
        order = f"o.value {'desc' if filters.descending else 'asc'} nulls last, m.dataset_id, m.position"
    if cursor is not None:
        after = "(m.dataset_id > $c_dataset or (m.dataset_id = $c_dataset and m.position > $c_position))"
        parameters |= {"c_dataset": cursor[1], "c_position": cursor[2]}
        if filters.sort is not None and cursor[0] is not None:
            sign = "<" if filters.descending else ">"
            after = f"(o.value {sign} $c_value or (o.value = $c_value and {after}) or o.value is null)"
            parameters["c_value"] = cursor[0]
        elif filters.sort is not None:
            after = f"(o.value is null and {after})"
        conditions += f" and {after}"
    # A search through the texts costs by far the most, so its first page brings the number of rows along.
    counted = bool(filters.text) and cursor is None
    total = "count(*) over ()" if counted else "null"
    with store.read() as connection:
        ids = frame(
            connection,
            f"""select m.dataset_id, m.position, m.example_id, {sort_value} sort_value, {total} total
            from members m {joins} where {conditions} order by {order} limit {int(size) + 1}""",
            parameters,
        ).to_pylist()
        found = ids[:size]
        texts = _previews(connection, [row["example_id"] for row in found])
    by_id = {row["example_id"]: row for row in texts}
    last = found[-1] if found else None
    following = (last["sort_value"], last["dataset_id"], last["position"]) if last and len(ids) > size else None
    n_rows = None if not counted else int(ids[0]["total"]) if ids else 0
    return Page([{**row, **by_id[row["example_id"]]} for row in found], following, n_rows)


def scores_of(store: Store, example_ids: Sequence[int]) -> list[dict[str, Any]]:
    """All scores of these examples with their scorers: ``example_id, scorer_id, output, model, value, reason``."""
    if not example_ids:
        return []
    with store.read() as connection:
        return frame(
            connection,
            """select c.example_id, s.scorer_id, s.output, s.indicator, s.version, s.model, s.revision, s.template,
                s.settings, c.value, c.reason
            from scores c join scorers s on s.scorer_id = c.scorer_id
            where c.example_id in (select unnest($ids)) order by s.scorer_id""",
            {"ids": list(example_ids)},
        ).to_pylist()


def provenance(store: Store, example_id: int) -> list[dict[str, Any]]:
    """Where an example stands: dataset, position, metadata of the member, source; datasets of runs come last."""
    with store.read() as connection:
        return rows(
            connection,
            f"""select d.dataset_id, d.name, d.kind, d.source, m.position, m.metadata, d.created_at
            from members m join datasets d on d.dataset_id = m.dataset_id where m.example_id = :id
            order by d.kind in {RUN_KINDS!r}, d.dataset_id, m.position limit 100""",
            id=example_id,
        )


def histogram(store: Store, *, scorer_id: int, dataset_ids: Sequence[int], n_bins: int = 40) -> list[dict[str, Any]]:
    """Equal bins between the 0.5 % and the 99.5 % quantile over all the datasets; the tails join the outer bins.

    Where every value is whole, bins are whole numbers wide (at most ``n_bins`` of them), or bars would take turns
    between one whole number and two. Returns ``dataset_id, bin, is_last, low, high, left_edge, width, n`` where
    ``low``/``high`` of the outer bins reach to the smallest and largest value, so that the rows behind a bar are
    exactly those in [low, high) (the last bin: [low, high]). ``width`` is 0 where all values are equal.
    """
    with store.read() as connection:
        return frame(
            connection,
            """with v as (select m.dataset_id, c.value from members m join scores c on c.example_id = m.example_id
                where c.scorer_id = $scorer and c.value is not null and list_contains($datasets, m.dataset_id)),
            q as (select quantile_cont(value, 0.005) lo, quantile_cont(value, 0.995) hi, min(value) mn, max(value) mx,
                bool_and(value = floor(value)) and hi > lo whole from v),
            w as (select mn, mx, case when whole then floor(lo) else lo end start,
                case when whole then ceil((hi - floor(lo) + 1) / $bins) else (hi - lo) / $bins end width,
                case when whole then ceil((hi - floor(lo) + 1) / width)::int when hi > lo then $bins else 1 end k
                from q),
            g as (select v.*, w.*, case when width > 0 then floor((value - start) / width) else 0 end guess from v, w),
            -- The division may land a hair beside an edge; the edges themselves decide.
            b as (select *, greatest(0, least(k - 1, guess - (value < start + width * guess)::int
                + (width > 0 and value >= start + width * (guess + 1))::int))::int bin from g)
            select dataset_id, bin, bin = any_value(k) - 1 is_last,
                case when bin = 0 then any_value(mn) else any_value(start + width * bin) end low,
                case when bin = any_value(k) - 1 then any_value(mx) else any_value(start + width * (bin + 1)) end high,
                any_value(start + width * bin) left_edge, any_value(width) width, count(*) n
            from b group by dataset_id, bin order by dataset_id, bin""",
            {"scorer": scorer_id, "datasets": list(dataset_ids), "bins": n_bins},
        ).to_pylist()


def summary(store: Store, *, scorer_id: int, dataset_ids: Sequence[int]) -> list[dict[str, Any]]:
    """Per dataset: members, values, NULLs (with a reason), missing (not scored), mean and quantiles (NULL if none)."""
    with store.read() as connection:
        return frame(
            connection,
            """select m.dataset_id, any_value(d.name) dataset, count(*) n_members, count(c.value) n_values,
                count(c.example_id) - count(c.value) n_nulls, count(*) - count(c.example_id) n_missing,
                avg(c.value) mean, min(c.value) minimum, quantile_cont(c.value, 0.05) q05,
                quantile_cont(c.value, 0.25) q25, quantile_cont(c.value, 0.5) median,
                quantile_cont(c.value, 0.75) q75, quantile_cont(c.value, 0.95) q95, max(c.value) maximum
            from members m join datasets d on d.dataset_id = m.dataset_id
            left join scores c on c.example_id = m.example_id and c.scorer_id = $scorer
            where list_contains($datasets, m.dataset_id) group by m.dataset_id order by m.dataset_id""",
            {"scorer": scorer_id, "datasets": list(dataset_ids)},
        ).to_pylist()


def null_reasons(store: Store, *, scorer_id: int, dataset_ids: Sequence[int]) -> list[dict[str, Any]]:
    """Reasons of the NULLs of one scorer, most frequent first."""
    with store.read() as connection:
        return frame(
            connection,
            """select c.reason, count(*) n from members m join scores c on c.example_id = m.example_id
            where c.scorer_id = $scorer and c.value is null and list_contains($datasets, m.dataset_id)
            group by c.reason order by n desc, c.reason""",
            {"scorer": scorer_id, "datasets": list(dataset_ids)},
        ).to_pylist()


def scatter(store: Store, *, x: int, y: int, dataset_ids: Sequence[int], limit: int = 5000) -> pa.Table:
    """Up to ``limit`` rows that have both scores, the same each time.

    Columns ``dataset_id, position, example_id, x, y, instruction`` (its first 80 characters).
    """
    with store.read() as connection:
        return frame(
            connection,
            """select m.dataset_id, m.position, m.example_id, a.value x, b.value y, left(e.instruction, 80) instruction
            from members m join scores a on a.example_id = m.example_id and a.scorer_id = $x and a.value is not null
            join scores b on b.example_id = m.example_id and b.scorer_id = $y and b.value is not null
            join examples e on e.example_id = m.example_id
            where list_contains($datasets, m.dataset_id) order by hash(m.example_id), m.position limit $limit""",
            {"x": x, "y": y, "datasets": list(dataset_ids), "limit": limit},
        )


def text_bytes(store: Store, example_ids: Sequence[int]) -> dict[str, int]:
    """Sums for an estimate: ``n``, and in UTF-8 ``instruction_bytes`` (with input) and ``output_bytes``."""
    with store.read() as connection:
        found = frame(
            connection,
            """select count(*) n, coalesce(sum(strlen(instruction) + strlen(input)), 0)::bigint instruction_bytes,
                coalesce(sum(strlen(output)), 0)::bigint output_bytes
            from examples where example_id in (select unnest($ids))""",
            {"ids": list(example_ids)},
        ).to_pylist()
    return found[0]


def ids_of_hashes(store: Store, hashes: Sequence[str]) -> set[int]:
    """Ids of the examples with these content hashes that are in the store."""
    with store.read() as connection:
        found = frame(
            connection,
            "select example_id from examples where hash in (select unnest($hashes))",
            {"hashes": list(hashes)},
        )
    return set(found["example_id"].to_pylist())
