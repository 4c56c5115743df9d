"""Every decision ever: pages of them, one with all that was on screen, and all of them as a stream."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
from sqlalchemy import Connection

from core.errors import StoreError
from core.history import HistoryFilter
from db.blind import OPEN_BLIND_PAIRS
from db.store import Store, frame, rows

PAGE = 50
PREVIEW = 120
_AT_ONCE = 5_000
_UNDONE = "exists (select 1 from decisions u where u.undoes = d.decision_id and u.verdict = 'undo')"
_TEXTS = ("instruction", "input", "output")
_ROW = (
    "decision_id", "pair_id", "reviewer", "verdict", "purpose", "campaign_id", "bulk_id", "note", "seconds",
    "decided_at", "undoes",
)  # fmt: skip


@dataclass(frozen=True)
class HistoryPage:
    """A page, the newest first. ``older`` and ``newer``: whether there are decisions beyond it."""

    rows: tuple[Mapping[str, Any], ...]
    older: bool
    newer: bool


def _where(filters: HistoryFilter, viewer: str | None) -> tuple[str, dict[str, Any]]:
    conditions = ["true"]
    parameters: dict[str, Any] = {}
    if viewer is not None:
        conditions.append(f"(d.reviewer = $viewer or d.pair_id not in ({OPEN_BLIND_PAIRS}))")
        parameters["viewer"] = viewer
    for name, column in (("reviewers", "reviewer"), ("verdicts", "verdict"), ("purposes", "purpose")):
        values = getattr(filters, name)
        if values:
            conditions.append(f"list_contains(${name}, d.{column})")
            parameters[name] = list(values)
    for name, column in (("campaign", "campaign_id"), ("pair", "pair_id")):
        if getattr(filters, name) is not None:
            conditions.append(f"d.{column} = ${name}")
            parameters[name] = getattr(filters, name)
    if filters.dataset is not None:
        conditions.append("d.pair_id in (select p.pair_id from pairs p where p.dataset_id = $dataset)")
        parameters["dataset"] = filters.dataset
    if filters.since is not None:
        conditions.append("d.decided_at >= $since")
        parameters["since"] = datetime.combine(filters.since, datetime.min.time())
    if filters.until is not None:
        conditions.append("d.decided_at < $until")
        parameters["until"] = datetime.combine(filters.until, datetime.min.time()) + timedelta(days=1)
    if filters.state == "undone":
        conditions.append("d.decision_id in (select u.undoes from decisions u where u.verdict = 'undo')")
    elif filters.state == "standing":
        conditions.append(f"d.verdict <> 'undo' and not {_UNDONE}")
    return " and ".join(conditions), parameters


def count(store: Store, filters: HistoryFilter, *, viewer: str | None = None) -> int:
    """How many decisions pass, as :func:`page`."""
    where, parameters = _where(filters, viewer)
    with store.read() as connection:
        return int(frame(connection, f"select count(*) n from decisions d where {where}", parameters)["n"][0].as_py())


def page(
    store: Store,
    filters: HistoryFilter,
    *,
    before: int | None = None,
    after: int | None = None,
    size: int = PAGE,
    viewer: str | None = None,
) -> HistoryPage:
    """The newest decisions older than the id ``before``, or the oldest newer than ``after``, or the newest of all.

    With a ``viewer`` the decisions of other people on pairs of blind campaigns are left out until these are closed.
    Each row has ``decision_id, pair_id, reviewer, verdict, purpose, campaign_id, campaign, bulk_id, note, seconds,
    decided_at, undoes, undone, dataset, stage, instruction`` (of the original, its first characters).
    """
    where, parameters = _where(filters, viewer)
    edge, order = "", "desc"
    if after is not None:
        edge, order = "and d.decision_id > $edge", "asc"
    elif before is not None:
        edge = "and d.decision_id < $edge"
    if edge:
        parameters["edge"] = after if after is not None else before
    with store.read() as connection:
        # Ids first: texts are read for the rows of the page alone.
        ids = frame(
            connection,
            f"""select d.decision_id from decisions d where {where} {edge}
            order by d.decision_id {order} limit {int(size) + 1}""",
            parameters,
        )["decision_id"].to_pylist()
        more, shown = len(ids) > size, ids[:size]
        found = _rows_of(connection, shown)
    if after is not None:
        return HistoryPage(found, older=True, newer=more)
    return HistoryPage(found, older=more, newer=before is not None)


def _rows_of(connection: Connection, ids: Sequence[int]) -> tuple[dict[str, Any], ...]:
    """The rows of these ids, newest first. Key look-ups one after the other: one join of all reads whole tables."""
    if not ids:
        return ()
    found = _by(connection, "decisions", "decision_id", ids)
    undone = frame(
        connection,
        f"""select distinct undoes from decisions
        where verdict = 'undo' and undoes between {min(ids)} and {max(ids)}""",
    )["undoes"].to_pylist()
    pairs = _by(connection, "pairs", "pair_id", {row["pair_id"] for row in found.values()})
    originals = _by(
        connection, "examples", "example_id", {row["original_id"] for row in pairs.values()},
        columns=f"example_id, left(instruction, {PREVIEW}) instruction",
    )  # fmt: skip
    named = {
        key: _by(connection, table, key, {row[key] for row in source.values()}, columns=f"{key}, name")
        for key, table, source in (("dataset_id", "datasets", pairs), ("campaign_id", "campaigns", found))
    }

    def name(key: str, value: int | None) -> str | None:
        return named[key].get(value, {}).get("name")

    made = []
    for decision_id in sorted(ids, reverse=True):
        row = found[decision_id]
        pair = pairs.get(row["pair_id"], {})
        made.append(
            {
                **{key: row[key] for key in _ROW},
                "undone": decision_id in undone,
                "campaign": name("campaign_id", row["campaign_id"]),
                "dataset": name("dataset_id", pair.get("dataset_id")) or "removed dataset",
                "stage": pair.get("stage"),
                "instruction": originals.get(pair.get("original_id"), {}).get("instruction"),
            }
        )
    return tuple(made)


def _by(
    connection: Connection, table: str, key: str, ids: Iterable[int | None], *, columns: str = "*"
) -> dict[int | None, dict[str, Any]]:
    """Rows of a table by their key. The ids are written out: so the index finds them."""
    wanted = ", ".join(str(int(one)) for one in ids if one is not None)
    if not wanted:
        return {}
    found = frame(connection, f"select {columns} from {table} where {key} in ({wanted})").to_pylist()
    return {row[key]: row for row in found}


def decision(store: Store, decision_id: int, *, viewer: str | None = None) -> dict[str, Any]:
    """One decision with what was on screen: its columns, ``undone``, the ``shown`` record, and the texts.

    ``original``, ``base``, ``candidate`` and ``result`` (None where the verdict made none) are dictionaries of
    ``hash`` and the three texts. Examples never change, so they are as they were then. ``timeline`` are all decisions
    on the pair, oldest first. ``viewer`` as in :func:`page`.

    Raises:
        StoreError: there is no such decision, or it is hidden from the ``viewer``.
    """
    visible, asked = _where(HistoryFilter(), viewer)
    with store.read() as connection:
        found = rows(
            connection,
            f"""select d.*, {_UNDONE} undone, p.original_id, p.base_id, p.candidate_id, p.stage, p.method, p.teacher,
                p.dataset_id, coalesce(s.name, 'removed dataset') dataset, c.name campaign
            from decisions d left join pairs p on p.pair_id = d.pair_id
            left join datasets s on s.dataset_id = p.dataset_id
            left join campaigns c on c.campaign_id = d.campaign_id where d.decision_id = :id""",
            id=decision_id,
        )
        if not found:
            raise StoreError(f"Decision {decision_id} is not in the store.")
        row = found[0]
        timeline = frame(
            connection,
            f"""select d.decision_id, d.reviewer, d.verdict, d.purpose, d.note, d.seconds, d.decided_at, d.undoes,
                {_UNDONE} undone from decisions d where d.pair_id = $pair and {visible} order by d.decision_id""",
            {**asked, "pair": row["pair_id"]},
        ).to_pylist()
        if decision_id not in {one["decision_id"] for one in timeline}:
            raise StoreError(
                f"Decision {decision_id} is somebody else's, on a pair of a blind campaign. It is shown when the "
                "campaign is closed."
            )
        sides = {name: row[f"{name}_id"] for name in ("original", "base", "candidate", "result")}
        texts = _by(connection, "examples", "example_id", sides.values())
    shown = row["shown"]
    return {
        **row,
        "shown": json.loads(shown) if isinstance(shown, str) else (shown or {}),
        **{name: texts.get(example_id) for name, example_id in sides.items()},
        "timeline": timeline,
    }


def facets(store: Store) -> dict[str, list[Any]]:
    """What there is to filter by: ``reviewers``, ``campaigns`` and ``datasets`` (id, name) with decisions."""
    with store.read() as connection:
        reviewers = frame(connection, "select distinct reviewer from decisions order by reviewer")["reviewer"]
        campaigns = rows(connection, "select campaign_id, name from campaigns order by campaign_id desc")
        datasets = rows(
            connection,
            """select s.dataset_id, s.name from datasets s
            where s.dataset_id in (select dataset_id from pairs) order by s.dataset_id desc""",
        )
    return {
        "reviewers": reviewers.to_pylist(),
        "campaigns": [(row["campaign_id"], row["name"]) for row in campaigns],
        "datasets": [(row["dataset_id"], row["name"]) for row in datasets],
    }


STREAM_COLUMNS = (
    "decision_id", "decided_at", "reviewer", "verdict", "purpose", "note", "seconds", "undone", "undoes", "press",
    "pair_id", "dataset_id", "dataset", "stage", "method", "teacher", "campaign_id", "bulk_id", "original_hash",
    "candidate_hash", "result_hash", "shown",
)  # fmt: skip
TEXT_COLUMNS = tuple(f"{side}_{name}" for side in ("original", "candidate", "result") for name in _TEXTS)


def stream(
    store: Store, filters: HistoryFilter, *, texts: bool = False, viewer: str | None = None
) -> Iterator[pa.Table]:
    """All decisions that pass, oldest first, some thousand at a time: ``STREAM_COLUMNS`` (and ``TEXT_COLUMNS``).

    What comes after the first rows were asked for is left out, also as an undo; so the stream is of one state though no
    snapshot is held while a slow reader reads. Memory does not grow with the length. ``viewer`` as in :func:`page`.
    """
    where, parameters = _where(filters, viewer)
    said = "".join(
        f", {side[0]}.{name} {side}_{name}" for side in ("original", "candidate", "result") for name in _TEXTS
    )
    with store.read() as connection:
        last = frame(connection, "select coalesce(max(decision_id), 0) top from decisions")["top"][0].as_py()
    edge = 0
    while True:
        with store.read() as connection:
            found = frame(
                connection,
                f"""with d as (select * from decisions d
                    where d.decision_id > $edge and d.decision_id <= $last and {where}
                    order by d.decision_id limit {_AT_ONCE})
                select d.decision_id, strftime(d.decided_at, '%Y-%m-%dT%H:%M:%S.%fZ') decided_at, d.reviewer, d.verdict,
                    d.purpose, d.note, d.seconds, d.decision_id in (select u.undoes from decisions u
                        where u.verdict = 'undo' and u.undoes > $edge and u.decision_id <= $last) undone, d.undoes,
                    d.press, d.pair_id, p.dataset_id, s.name dataset, p.stage, p.method, p.teacher, d.campaign_id,
                    d.bulk_id, o.hash original_hash, c.hash candidate_hash, r.hash result_hash, d.shown::varchar shown
                    {said if texts else ""}
                from d left join pairs p on p.pair_id = d.pair_id
                left join datasets s on s.dataset_id = p.dataset_id
                left join examples o on o.example_id = p.original_id
                left join examples c on c.example_id = p.candidate_id
                left join examples r on r.example_id = d.result_id order by d.decision_id""",
                {**parameters, "edge": edge, "last": last},
            )
        if not found.num_rows:
            return
        yield found
        edge = found["decision_id"][-1].as_py()
