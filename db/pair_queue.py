"""Pairs behind a filter: the queue of a desk, a page of the table by keyset, counts, and the values to filter by."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from sqlalchemy import Connection

from core.filters import PairFilter
from db import queries
from db.pair_orders import OLDEST, Order, order_of
from db.store import Store, frame, registered, rows

PREVIEW_CHARACTERS = 240
Cursor = tuple[Any, int]
"""Where a page ended: the value that pairs are ordered by (None: it has none), and the pair."""

ACCEPTED = "('accept', 'edit', 'new_instruction', 'new_response')"
_STATES = {
    "undecided": "c.pair_id is null",
    "decided": "c.pair_id is not null",
    "accepted": f"c.verdict in {ACCEPTED}",
    "rejected": "c.verdict = 'reject'",
    "disputed": "c.pair_id is null and p.pair_id in (select pair_id from disputed)",
    "flagged": "f.verdict = 'flag'",
    "skipped": """c.pair_id is null and p.pair_id in (select pair_id from standing_decisions where verdict = 'skip')""",
    "all": "true",
}
_GROUPED = "group by pair_id having count(distinct (verdict, coalesce(result_id, -1))) > 1"
_DISPUTED = f"disputed as (select pair_id from reviewer_decisions {_GROUPED})"
_DECIDED = " left join current_decisions c on c.pair_id = p.pair_id"
_FLAGGED = " left join current_flags f on f.pair_id = p.pair_id"
STATE = f"""case when c.verdict in {ACCEPTED} then 'accepted' when c.verdict = 'reject' then 'rejected'
    when p.pair_id in (select pair_id from disputed) then 'disputed' else 'undecided' end"""
"""What stands on ``p``, by ``c`` and the common table ``disputed`` (:func:`selection`)."""

_TEXTS = ("instruction", "input", "output")


@dataclass(frozen=True)
class Selection:
    """A filter as SQL: ``select … {source} where {where}``, behind ``with {ctes}``; alias ``p`` is the pair.

    ``c`` (what stands) and ``f`` (the flag) are joined only where they are asked for: both are views over decisions.
    """

    ctes: str
    source: str
    where: str
    parameters: dict[str, Any]


def selection(filters: PairFilter, *, decided: bool = False, flagged: bool = False) -> Selection:
    """The SQL of a filter, without its order. ``decided``, ``flagged``: the caller reads ``c``, ``f`` too."""
    conditions = [_STATES[filters.state]]
    parameters: dict[str, Any] = {}
    source = "from pairs p"
    ctes = [_DISPUTED]
    if decided or "c." in conditions[0]:
        source += _DECIDED
    if flagged or "f." in conditions[0]:
        source += _FLAGGED
    columns = {"datasets": "dataset_id", "methods": "method", "stages": "stage", "proposals": "proposal"}
    for name, column in columns.items():
        values = getattr(filters, name)
        if values:
            conditions.append(f"list_contains(${name}, p.{column})")
            parameters[name] = list(values)
    measures = {"ifd": "p.ifd_candidate", "r_ifd": "p.r_ifd_candidate", "gain": "p.ifd_candidate - p.ifd_original"}
    bounds = [(name, measures[name], getattr(filters, name)) for name in measures]
    for i, score in enumerate(filters.scores):
        source += f" join scores r{i} on r{i}.example_id = p.candidate_id and r{i}.scorer_id = $scorer{i}"
        conditions.append(f"r{i}.value is not null")
        parameters[f"scorer{i}"] = score.scorer_id
        bounds.append((f"score{i}", f"r{i}.value", (score.low, score.high)))
    for name, measure, ends in bounds:
        for side, sign, bound in zip(("low", "high"), (">=", "<="), ends, strict=True):
            if bound is not None:
                conditions.append(f"{measure} {sign} ${name}_{side}")
                parameters[f"{name}_{side}"] = bound
    if filters.text:
        ctes.append(f"found as materialized ({_search(words=filters.words)})")
        conditions.append(
            "(p.original_id in (select example_id from found) or p.candidate_id in (select example_id from found))"
        )
        parameters["text"] = filters.text
        if filters.words:
            parameters["words"] = _words_pattern(filters.text)
    if filters.reviewers:
        conditions.append(
            """p.pair_id in (select pair_id from standing_decisions
                where list_contains($reviewers, reviewer) and purpose <> 'late')"""
        )
        parameters["reviewers"] = list(filters.reviewers)
    if filters.pair_list is not None:
        source += " join pair_list_members l on l.pair_id = p.pair_id and l.list_id = $list"
        parameters["list"] = filters.pair_list
    return Selection(", ".join(ctes), source, " and ".join(conditions), parameters)


def _search(*, words: bool) -> str:
    """SQL of the examples that hold ``$text``. 'il' is a literal search in any case; the pattern of whole words costs
    ten times as much, so it looks only where the text stands at all."""
    whole = " and regexp_matches({0}, $words)" if words else ""
    ways = (("(regexp_matches({0}, $text, 'il')" + whole + ")").format(name) for name in _TEXTS)
    return f"select example_id from examples where {' or '.join(ways)}"


def _words_pattern(text: str) -> str:
    """A pattern (RE2) of ``text`` in any case with no letter, digit or underscore beside it, in any alphabet."""
    return rf"(?i)(?:^|[^\pL\pN\pM_]){re.escape(text.strip())}(?:$|[^\pL\pN\pM_])"


def _order(store: Store, filters: PairFilter) -> Order:
    if filters.order != "as listed":
        return order_of(store, filters)
    if filters.pair_list is None:
        found = order_of(store, replace(filters, order="oldest first"))
        return replace(found, note="Only the pairs of a list have an order of their own: the oldest come first.")
    return Order(value="l.position", descending=False)


def queue(store: Store, filters: PairFilter) -> np.ndarray:
    """Ids of the pairs behind ``filters`` in its order, int64 ``[n]``."""
    wanted, order = selection(filters), _order(store, filters)
    with store.read() as connection, order.on(connection):
        table = frame(
            connection,
            f"""with {wanted.ctes} select p.pair_id {wanted.source} {order.join} where {wanted.where}
            order by {order.by}""",
            {**wanted.parameters, **order.params},
        )
    return np.asarray(table["pair_id"].to_numpy(), np.int64)


def count(store: Store, filters: PairFilter) -> int:
    """How many pairs are behind ``filters``."""
    wanted = selection(filters)
    with store.read() as connection:
        table = frame(
            connection,
            f"with {wanted.ctes} select count(*) n {wanted.source} where {wanted.where}",
            wanted.parameters,
        )
    return int(table["n"][0].as_py())


@dataclass(frozen=True)
class PairPage:
    """A page of the table: :func:`rows_of` with the ``value`` that each is ordered by, and where the next page begins.

    ``note`` is what the order has to say. ``total`` is the number of pairs where a search brought it along (its first
    page), else None: :func:`count` has it.
    """

    rows: tuple[dict[str, Any], ...]
    next_cursor: Cursor | None
    note: str | None
    total: int | None = None


def page(store: Store, filters: PairFilter, *, after: Cursor | None = None, size: int = 50) -> PairPage:
    """One page by keyset: ids first, then the texts and the state of just these pairs (:func:`rows_of`).

    ``after`` is ``next_cursor`` of the page before. A pair that comes or goes between two pages neither repeats nor
    hides another.
    """
    wanted, order = selection(filters), _order(store, filters)
    sign, way = ("<", "desc") if order.descending else (">", "asc")
    further, parameters = "true", {**wanted.parameters, **order.params}
    if after is not None:
        parameters["after_pair"] = after[1]
        further = "(value is null and pair_id > $after_pair)"
        if after[0] is not None:
            parameters["after_value"] = after[0]
            further = (
                f"(value {sign} $after_value or (value = $after_value and pair_id > $after_pair) or value is null)"
            )
    # A search through the texts costs by far the most, so its first page counts too.
    counted = bool(filters.text) and after is None
    total = "count(*) over ()" if counted else "null"
    with store.read() as connection:
        with order.on(connection):
            found = frame(
                connection,
                f"""with {wanted.ctes} select *, {total} total from (select p.pair_id, {order.value} as value
                    {wanted.source} {order.join} where {wanted.where})
                where {further} order by value {way} nulls last, pair_id limit {int(size) + 1}""",
                parameters,
            ).to_pylist()
        fell_back = order.by_age and filters.order != OLDEST  # an id is no value of the order that was asked for
        values = {row["pair_id"]: None if fell_back else row["value"] for row in found[:size]}
        shown = [{**row, "value": values[row["pair_id"]]} for row in rows_of(connection, list(values))]
    more = len(found) > size
    last = found[size - 1] if more else None
    n_pairs = None if not counted else int(found[0]["total"]) if found else 0
    return PairPage(tuple(shown), (last["value"], last["pair_id"]) if last else None, order.note, n_pairs)


def rows_of(connection: Connection, pair_ids: Sequence[int]) -> list[dict[str, Any]]:
    """These pairs as rows of a table, in this order; what is not in the store is left out.

    ``pair_id, original_id, candidate_id, dataset_id, dataset, method, stage, proposal, instruction, reflected`` (the
    first ``PREVIEW_CHARACTERS`` of the instructions), ``ifd_original, ifd_candidate, r_ifd_original, r_ifd_candidate,
    state`` (accepted, rejected, disputed, undecided), ``verdict, flagged, reviewer, decided_at, created_at``.
    """
    if not pair_ids:
        return []
    with asked_for(connection, pair_ids):
        return frame(
            connection,
            f"""with {_DISPUTED.replace(_GROUPED, f"where list_contains($asked, pair_id) {_GROUPED}")},
                c as (select * from current_decisions where list_contains($asked, pair_id)),
                f as (select * from current_flags where list_contains($asked, pair_id))
            select p.pair_id, p.original_id, p.candidate_id, p.dataset_id,
                coalesce(d.name, 'removed dataset') dataset, p.method, p.stage, p.proposal,
                left(o.instruction, {PREVIEW_CHARACTERS}) instruction,
                left(n.instruction, {PREVIEW_CHARACTERS}) reflected,
                p.ifd_original, p.ifd_candidate, p.r_ifd_original, p.r_ifd_candidate,
                {STATE} state,
                c.verdict, coalesce(f.verdict = 'flag', false) flagged, c.reviewer, c.decided_at, p.created_at
            from asked a join pairs p on p.pair_id = a.pair_id
            left join examples o on o.example_id = p.original_id left join examples n on n.example_id = p.candidate_id
            left join datasets d on d.dataset_id = p.dataset_id
            left join c on c.pair_id = p.pair_id left join f on f.pair_id = p.pair_id order by a.place""",
            {"asked": [int(i) for i in pair_ids]},
        ).to_pylist()


@contextmanager
def asked_for(connection: Connection, pair_ids: Sequence[int] | np.ndarray) -> Iterator[None]:
    """Make these ids visible to SQL as ``asked(place, pair_id)`` for the length of the block."""
    ids = pa.array(np.asarray(pair_ids, np.int64))
    with registered(connection, "asked", pa.table({"place": pa.array(np.arange(len(ids))), "pair_id": ids})):
        yield


def version(store: Store) -> str:
    """``queries.version``, changed by a new model, a new campaign and new embeddings of pairs too."""
    with store.read() as connection:
        found = frame(
            connection,
            """select (select max(model_id) from pair_models), (select max(campaign_id) from campaigns),
                (select count(*) from embeddings)""",
        )
    return "-".join([queries.version(store), *(str(column[0].as_py()) for column in found.columns)])


def matching(store: Store, filters: PairFilter, pair_ids: Sequence[int]) -> list[int]:
    """Those of ``pair_ids`` that are behind ``filters``, in the order given."""
    wanted = selection(filters)
    with store.read() as connection, asked_for(connection, pair_ids):
        table = frame(
            connection,
            f"""with {wanted.ctes} select a.pair_id {wanted.source} join asked a on a.pair_id = p.pair_id
            where {wanted.where} order by a.place""",
            wanted.parameters,
        )
    return table["pair_id"].to_pylist()


def table_of(store: Store, pair_ids: Sequence[int]) -> list[dict[str, Any]]:
    """:func:`rows_of` with a connection of its own."""
    with store.read() as connection:
        return rows_of(connection, pair_ids)


def facets(store: Store) -> dict[str, list[Any]]:
    """Values that occur, for the filters: datasets (id, name), methods, stages, proposals, reviewers."""
    with store.read() as connection:
        found = rows(
            connection,
            """select distinct p.dataset_id, coalesce(d.name, 'removed dataset') dataset, p.method, p.stage, p.proposal
            from (select distinct dataset_id, method, stage, proposal from pairs) p
            left join datasets d on d.dataset_id = p.dataset_id""",
        )
        reviewers = rows(connection, "select distinct reviewer from decisions order by reviewer")
    return {
        "datasets": sorted({(row["dataset_id"], row["dataset"]) for row in found}),
        "methods": sorted({row["method"] for row in found}),
        "stages": sorted({row["stage"] for row in found}),
        "proposals": sorted({row["proposal"] for row in found}),
        "reviewers": [row["reviewer"] for row in reviewers],
    }


def candidate_scorers(store: Store) -> list[dict[str, Any]]:
    """Scorers with values of candidates, the most first: ``scorer_id, output, model, revision, template, settings,
    n_values, minimum, maximum``."""
    with store.read() as connection:
        return frame(
            connection,
            """select s.scorer_id, s.output, s.model, s.revision, s.template, s.settings, v.n_values,
                v.minimum, v.maximum
            from scorers s join (select scorer_id, count(*) n_values, min(value) minimum, max(value) maximum
                from scores where value is not null and example_id in (select candidate_id from pairs)
                group by scorer_id) v on v.scorer_id = s.scorer_id order by v.n_values desc, s.scorer_id""",
        ).to_pylist()
