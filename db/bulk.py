"""Decisions on all pairs of a filter at once: planned (a dry run), carried out whole or not at all, undone once.

What a plan shows is what is carried out: it names the pairs by a mark over each pair and the decision that stood on it,
and :func:`apply` refuses where the mark has changed. A decision that somebody makes in the moment of the commit is
never lost: both rows are kept, and the later one stands.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, text

from core.errors import StoreError
from core.filters import PairFilter
from db.pair_queue import asked_for, selection
from db.store import Store, frame, rows, said_plainly, scalar, utc_now

VERDICTS = ("accept", "reject")
N_SAMPLES = 10
_STATE = """case when c.pair_id is not null then 'decided' when held then 'flagged' when torn then 'disputed'
    else 'undecided' end"""
_MARK = "count(*) n, coalesce(bit_xor(hash(pair_id, coalesce(decision_id, -1))), 0) mark"


@dataclass(frozen=True)
class BulkPlan:
    """A dry run. ``filters`` or ``pair_ids`` say what was asked for; ``n`` pairs of them would get ``verdict``.

    ``by_state`` counts all that were asked for: undecided, decided, flagged (undecided, with a flag), disputed.
    ``by_dataset`` counts those that would be decided (dataset id, name, n). Decided pairs are left alone unless
    ``redo_decided``, flagged and disputed ones unless ``with_flagged``. ``sample_ids`` are up to ten of the ``n``.
    """

    verdict: str
    filters: PairFilter | None
    pair_ids: tuple[int, ...]
    redo_decided: bool
    with_flagged: bool
    n: int
    mark: str
    by_state: Mapping[str, int]
    by_dataset: tuple[tuple[int, str, int], ...]
    sample_ids: tuple[int, ...]

    @property
    def n_left_alone(self) -> int:
        """How many pairs were asked for and are left as they are."""
        return sum(self.by_state.values()) - self.n


@dataclass(frozen=True)
class Undone:
    """What an undo did: ``n`` decisions no longer stand; ``n_left`` had been decided anew since, and were left."""

    n: int
    n_left: int


def plan(
    store: Store,
    asked: PairFilter | Sequence[int],
    verdict: str,
    *,
    redo_decided: bool = False,
    with_flagged: bool = False,
    seed: int = 0,
) -> BulkPlan:
    """Count what a decision on all of ``asked`` would do, and take ``N_SAMPLES`` of it by chance (by ``seed``).

    Raises:
        StoreError: ``verdict`` is not one of ``VERDICTS``.
    """
    if verdict not in VERDICTS:
        raise StoreError(f"All pairs of a filter can be accepted or rejected, and {verdict!r} is neither.")
    wanted = BulkPlan(
        verdict=verdict,
        filters=replace(asked, order="oldest first", seed=0) if isinstance(asked, PairFilter) else None,
        pair_ids=() if isinstance(asked, PairFilter) else tuple(int(i) for i in asked),
        redo_decided=redo_decided,
        with_flagged=with_flagged,
        n=0, mark="", by_state={}, by_dataset=(), sample_ids=(),
    )  # fmt: skip
    with store.read() as connection, _asked(connection, wanted) as (head, parameters):
        states = frame(connection, f"{head} select state, count(*) n from asked_pairs group by state", parameters)
        by_dataset = frame(
            connection,
            f"""{head} select k.dataset_id, coalesce(d.name, 'removed dataset') dataset, k.n
            from (select dataset_id, count(*) n from kept group by dataset_id) k
            left join datasets d on d.dataset_id = k.dataset_id order by k.n desc, k.dataset_id""",
            parameters,
        )
        n, mark = _mark(connection, head, parameters)
        found = frame(connection, f"{head} {_sampled(seed)}", parameters)
    return replace(
        wanted,
        n=n,
        mark=mark,
        by_state={row["state"]: row["n"] for row in states.to_pylist()},
        by_dataset=tuple((row["dataset_id"], row["dataset"], row["n"]) for row in by_dataset.to_pylist()),
        sample_ids=tuple(found["pair_id"].to_pylist()),
    )


@contextmanager
def _asked(connection: Connection, plan: BulkPlan) -> Iterator[tuple[str, dict[str, Any]]]:
    """The common tables of a plan: ``asked_pairs`` with their state, ``kept`` the ones to decide."""
    with ExitStack() as stack:
        if plan.filters is None:
            stack.enter_context(asked_for(connection, list(dict.fromkeys(plan.pair_ids))))
            wanted = selection(PairFilter(state="all"), decided=True, flagged=True)
            source = f"{wanted.source} join asked a on a.pair_id = p.pair_id"
        else:
            wanted = selection(plan.filters, decided=True, flagged=True)
            source = wanted.source
        kept = ["true"] if plan.redo_decided else ["decision_id is null"]
        kept += [] if plan.with_flagged else ["not held", "not torn"]
        yield (
            f"""with {wanted.ctes}, asked_pairs as materialized (
                select p.pair_id, p.dataset_id, p.candidate_id, c.decision_id,
                    coalesce(f.verdict = 'flag', false) held,
                    c.pair_id is null and x.pair_id is not null torn,
                    {_STATE} state
                {source} left join disputed x on x.pair_id = p.pair_id where {wanted.where}),
            kept as (select * from asked_pairs where {" and ".join(kept)})""",
            wanted.parameters,
        )


def _mark(connection: Connection, head: str, parameters: Mapping[str, Any]) -> tuple[int, str]:
    found = frame(connection, f"{head} select {_MARK} from kept", parameters).to_pylist()[0]
    return int(found["n"]), f"{found['n']}-{found['mark']:x}"


@said_plainly
def apply(store: Store, plan: BulkPlan, *, by: str, note: str = "", about: Mapping[str, Any] | None = None) -> int:
    """Carry out a plan in one transaction; returns the id of the bulk action.

    Each pair gets one decision of ``by`` with the purpose ``bulk``, whose press is ``bulk:{bulk_id}:{pair_id}``.
    ``about`` is kept with the action beside what was asked for (the model that proposed it).

    Raises:
        StoreError: no name, nothing to decide, or what the plan counted has changed since; nothing was stored.
        NotAllowedError: whoever acts is no admin.
    """
    if not by.strip():
        raise StoreError("A bulk decision needs the name of who makes it. Nothing was stored.")
    if plan.n == 0:
        raise StoreError("No pair would be decided. Nothing was stored; widen the filter.")
    with store.write() as connection, _asked(connection, plan) as (head, parameters):
        if _mark(connection, head, parameters)[1] != plan.mark:
            raise StoreError(
                "Some of these pairs were decided, flagged or changed since they were counted. Nothing was stored; "
                "look at the new count, then confirm again."
            )
        bulk_id = _action(connection, plan, by=by, note=note, about=about or {})
        _execute(
            connection,
            f"""insert into decisions (decision_id, pair_id, reviewer, verdict, result_id, note, seconds, shown, undoes,
                press, decided_at, purpose, campaign_id, bulk_id)
            {head} select nextval('decision_ids'), pair_id, $by, $verdict,
                case when $verdict = 'accept' then candidate_id end, $note, null, $shown, null,
                'bulk:' || $bulk || ':' || pair_id, $now, 'bulk', null, $bulk from kept""",
            {
                **parameters,
                "by": by.strip(),
                "verdict": plan.verdict,
                "note": note.strip() or None,
                "shown": json.dumps({"bulk": bulk_id}),
                "bulk": bulk_id,
                "now": utc_now(),
            },
        )
    return bulk_id


def _execute(connection: Connection, sql: str, parameters: Mapping[str, Any]) -> None:
    raw = connection.connection.driver_connection
    assert raw is not None
    raw.execute(sql, dict(parameters))


def _action(connection: Connection, plan: BulkPlan, *, by: str, note: str, about: Mapping[str, Any]) -> int:
    asked = {"params": plan.filters.to_params()} if plan.filters is not None else {"n_pair_ids": len(plan.pair_ids)}
    details = {
        **about,
        **asked,
        "redo_decided": plan.redo_decided,
        "with_flagged": plan.with_flagged,
        "by_state": dict(plan.by_state),
        "mark": plan.mark,
    }
    return _append(connection, details, verdict=plan.verdict, n=plan.n, note=note, undoes=None, by=by)


def _append(
    connection: Connection, details: Mapping[str, Any], *, verdict: str, n: int, note: str, undoes: int | None, by: str
) -> int:
    bulk_id = int(scalar(connection, "select nextval('bulk_ids')"))
    connection.execute(
        text(
            """insert into bulk_actions (bulk_id, filter, verdict, n_pairs, note, undoes, done_at, done_by)
            values (:bulk, :filter, :verdict, :n, :note, :undoes, :now, :by)"""
        ),
        {
            "bulk": bulk_id,
            "filter": json.dumps(details, sort_keys=True),
            "verdict": verdict,
            "n": n,
            "note": note.strip() or None,
            "undoes": undoes,
            "now": utc_now(),
            "by": by.strip(),
        },
    )
    return bulk_id


@said_plainly
def undo(store: Store, bulk_id: int, *, by: str) -> Undone:
    """Take back all decisions of a bulk action, by appending undo rows. What stood before it stands again.

    Pairs that were decided anew since keep their new decision; if that is taken back later, the bulk decision does not
    come up again from under it.

    Raises:
        StoreError: no such action, it is an undo itself, it was undone before, or nothing of it stands any more.
        NotAllowedError: whoever acts is no admin.
    """
    if not by.strip():
        raise StoreError("An undo needs the name of who makes it. Nothing was changed.")
    with store.write() as connection:
        action = rows(connection, "select verdict, n_pairs, undoes from bulk_actions where bulk_id = :id", id=bulk_id)
        if not action or action[0]["undoes"] is not None:
            raise StoreError(f"There is no bulk decision {bulk_id} to undo. Nothing was changed.")
        if rows(connection, "select 1 from bulk_actions where undoes = :id", id=bulk_id):
            raise StoreError(f"The bulk decision {bulk_id} was undone before. Nothing was changed.")
        n = int(scalar(connection, "select count(*) from current_decisions where bulk_id = :id", id=bulk_id))
        if not n:
            raise StoreError(
                f"All pairs of the bulk decision {bulk_id} were decided anew since. Nothing was changed; undo those "
                "decisions one by one."
            )
        undo_id = _append(connection, {}, verdict="undo", n=n, note="", undoes=bulk_id, by=by)
        _execute(
            connection,
            """insert into decisions (decision_id, pair_id, reviewer, verdict, result_id, note, seconds, shown, undoes,
                press, decided_at, purpose, campaign_id, bulk_id)
            select nextval('decision_ids'), pair_id, $by, 'undo', null, null, null, '{}', decision_id,
                'bulk:' || $undo || ':' || pair_id, $now, 'bulk', null, $undo
            from standing_decisions where bulk_id = $bulk""",
            {"by": by.strip(), "undo": undo_id, "now": utc_now(), "bulk": bulk_id},
        )
    return Undone(n, int(action[0]["n_pairs"]) - n)


def actions(store: Store, *, limit: int = 50) -> list[dict[str, Any]]:
    """Bulk actions, newest first: ``bulk_id, verdict, n_pairs, note, done_at, done_by, filter`` (what was asked for),
    ``n_standing`` (how many of its decisions are what stands now), ``undone_at, undone_by`` (None: not undone)."""
    with store.read() as connection:
        found = rows(
            connection,
            """select b.bulk_id, b.verdict, b.n_pairs, b.note, b.done_at, b.done_by, b.filter::varchar as asked,
                u.done_at undone_at, u.done_by undone_by
            from bulk_actions b left join bulk_actions u on u.undoes = b.bulk_id
            where b.undoes is null order by b.bulk_id desc limit :most""",
            most=limit,
        )
        standing = {
            row["bulk_id"]: row["n"]
            for row in rows(
                connection,
                "select bulk_id, count(*) n from current_decisions where bulk_id is not null group by bulk_id",
            )
        }
    return [
        {**{k: v for k, v in row.items() if k != "asked"}, "filter": json.loads(row["asked"]),
         "n_standing": standing.get(row["bulk_id"], 0)}
        for row in found
    ]  # fmt: skip


def sample(store: Store, plan: BulkPlan, *, seed: int) -> tuple[int, ...]:
    """Another ten of the pairs that a plan would decide."""
    with store.read() as connection, _asked(connection, plan) as (head, parameters):
        found = frame(connection, f"{head} {_sampled(seed)}", parameters)
    return tuple(found["pair_id"].to_pylist())


def _sampled(seed: int) -> str:
    return f"select pair_id from kept order by hash(pair_id * 1000003 + {int(seed)}), pair_id limit {N_SAMPLES}"
