"""Which pair to look at next: every order of the queue as one value per pair, the pair's id behind it.

An order that takes a walk through all scores ("indicators disagree", "closest to the rule's cut") is computed once for
the scores that are there and kept in memory (16 bytes a pair); its table is registered for the query.
"""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from sqlalchemy import Connection

from core.filters import PairFilter
from core.indicators import FIRST_OUTPUTS, OUTPUTS
from core.pair_ranks import disagreement, percentile_ranks
from core.rules import Rule, TermMatch, match
from db import fits, similar_pairs
from db.selections import KIND as SELECTION
from db.selections import scorers_here
from db.store import Store, frame, registered, rows, scalar

OLDEST = "oldest first"
_TABLE = "pair_order_values"
_MOST_KEPT = 8
_SLOW_SECONDS, _REST = 0.5, 20.0

_SIMPLE = {
    "largest IFD gain": ("p.ifd_candidate - p.ifd_original", True),
    "closest call": (
        """case when p.stage = 'instruction' then abs(p.ifd_candidate - p.ifd_base)
        else abs(p.r_ifd_candidate - p.r_ifd_base) end""",
        False,
    ),
    OLDEST: ("p.pair_id", False),
}


@dataclass(frozen=True, kw_only=True)
class Order:
    """One order of pairs (alias ``p``): by ``value``, pairs without one last, then by id.

    ``join`` goes behind the query's own joins, ``params`` into its parameters (names begin with ``order_``), and
    ``table`` must be visible to it (:meth:`on`). ``note`` says which pairs have no value, or why another order was
    asked for than this one.
    """

    value: str
    descending: bool
    join: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    table: pa.Table | None = None
    note: str | None = None

    @property
    def by(self) -> str:
        """What follows ``order by``."""
        return f"{self.value} {'desc' if self.descending else 'asc'} nulls last, p.pair_id"

    @property
    def by_age(self) -> bool:
        """Whether the oldest pairs come first, which is also what an order becomes that cannot be had."""
        return self.value == _SIMPLE[OLDEST][0]

    @contextmanager
    def on(self, connection: Connection) -> Iterator[None]:
        """Make ``table`` visible to this connection for the length of the block."""
        if self.table is None:
            yield
            return
        with registered(connection, _TABLE, self.table):
            yield


def order_of(store: Store, filters: PairFilter) -> Order:
    """The order that ``filters`` ask for (``order, seed, rule, similar_to``).

    "indicators disagree"        :func:`_disagreement`, largest first
    "closest to the rule's cut"  :func:`_rule_distance`, smallest first
    "most uncertain"             |p − ½| by the latest model of decisions, smallest first
    "most similar"               cosine of the embeddings to ``similar_to``, largest first

    An order for which something is missing (a model, embeddings) becomes "oldest first", and ``note`` says why.
    """
    if filters.order in _SIMPLE:
        value, descending = _SIMPLE[filters.order]
        return Order(value=value, descending=descending)
    if filters.order == "random":
        return Order(
            value="hash(p.pair_id * 1000003 + $order_seed)", descending=False, params={"order_seed": filters.seed}
        )
    if filters.order == "indicators disagree":
        return _kept_order(store, "disagree", lambda: _disagreement(store), descending=True)
    if filters.order == "closest to the rule's cut":
        rule_id = filters.rule
        found = next((row for row in fits.rules(store) if row["rule_id"] == rule_id), None)
        if found is None:
            return _oldest(f"Rule {rule_id} is not in the store any more, so the oldest pairs come first.")
        return _kept_order(
            store,
            f"rule-{rule_id}",
            lambda: _rule_distance(store, found["rule"], found["name"]),
            descending=False,
        )
    if filters.order == "most uncertain":
        return _most_uncertain(store)
    return _most_similar(store, filters.similar_to)


def _oldest(note: str) -> Order:
    value, descending = _SIMPLE[OLDEST]
    return Order(value=value, descending=descending, note=note)


# --- kept in memory ---

_Computed = tuple[np.ndarray, np.ndarray, str | None]


@dataclass(frozen=True)
class _Kept:
    """Values of an order as of a state of the scores; ``table`` is None where no pair has one."""

    version: str
    table: pa.Table | None
    note: str | None
    seconds: float
    made_at: float


_kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()
_lock = threading.Lock()


def _scores_version(store: Store) -> str:
    with store.read() as connection:
        found = frame(
            connection,
            """select (select count(*) from scores), (select count(*) from job_shards), (select count(*) from pairs),
                (select max(pair_id) from pairs), (select max(dataset_id) from datasets)""",
        )
    return "-".join(str(column[0].as_py()) for column in found.columns)


def _fits(kept: _Kept, version: str) -> bool:
    """Whether kept values may be used: those of another version too while making new ones would take a large part of
    the time (a score job that runs changes the version with every shard)."""
    return kept.version == version or (
        kept.seconds > _SLOW_SECONDS and time.monotonic() - kept.made_at < _REST * kept.seconds
    )


def _kept_order(store: Store, name: str, compute: Callable[[], _Computed], *, descending: bool) -> Order:
    key, version = (str(store.path), name), _scores_version(store)
    with _lock:  # two desks that ask at once wait for one computation
        found = _kept.get(key)
        if found is None or not _fits(found, version):
            begun = time.monotonic()
            pair_ids, values, note = compute()
            there = np.isfinite(values)
            table = pa.table({"pair_id": pair_ids[there], "value": values[there]}) if there.any() else None
            now = time.monotonic()
            found = _kept[key] = _Kept(version, table, note, now - begun, now)
            while len(_kept) > _MOST_KEPT:
                _kept.popitem(last=False)
        _kept.move_to_end(key)
    table, note = found.table, found.note
    if table is None:
        return _oldest(f"{note or 'No pair has a value in this order.'} The oldest pairs come first.")
    return Order(
        value="ord.value",
        descending=descending,
        join=f"left join {_TABLE} ord on ord.pair_id = p.pair_id",
        table=table,
        note=note,
    )


# --- indicators disagree ---


def _disagreement(store: Store) -> _Computed:
    """Standard deviation (n − 1) of the percentile ranks of a pair's candidate by the indicators that it has.

    A rank is taken within the dataset, among all pairs' candidates that have the score, and turned where lower is
    better, so that 1 is best throughout. IFD and r-IFD are the pair's own numbers; of the other indicators the first
    output counts, if it has a better end (a length has none). Pairs with fewer than two indicators have no value.
    """
    with store.read() as connection:
        pairs = frame(
            connection,
            "select pair_id, dataset_id, ifd_candidate ifd, r_ifd_candidate r_ifd from pairs order by pair_id",
        )
        pair_ids, datasets = (pairs[name].to_numpy() for name in ("pair_id", "dataset_id"))
        ranks: dict[str, list[np.ndarray]] = {}
        for output in ("ifd", "r_ifd"):
            _add_ranks(ranks, output, _floats(pairs[output]), datasets)
        used = rows(
            connection,
            """select scorer_id, output from scorers s where output not in ('ifd', 'r_ifd') and exists (
                select 1 from scores c where c.scorer_id = s.scorer_id) order by scorer_id""",
        )
        for scorer in used:
            output = scorer["output"]
            if output not in FIRST_OUTPUTS or OUTPUTS[output].direction == "neither":
                continue
            found = frame(
                connection,
                """select p.pair_id, c.value from scores c join pairs p on p.candidate_id = c.example_id
                where c.scorer_id = $scorer and c.value is not null""",
                {"scorer": scorer["scorer_id"]},
            )
            if found.num_rows:
                values = np.full(len(pair_ids), np.nan)
                values[np.searchsorted(pair_ids, found["pair_id"].to_numpy())] = found["value"].to_numpy()
                _add_ranks(ranks, output, values, datasets)
    spread = disagreement(ranks) if ranks else np.full(len(pair_ids), np.nan)
    n_without = int(np.count_nonzero(~np.isfinite(spread)))
    names = ", ".join(OUTPUTS[output].label for output in ranks)
    if n_without == len(spread):
        return pair_ids, spread, "No pair has two indicators with a better end, so none can disagree."
    note = f"By {names}." + (f" {n_without:,} pairs have fewer than two of them and come last." if n_without else "")
    return pair_ids, spread, note


def _add_ranks(ranks: dict[str, list[np.ndarray]], output: str, values: np.ndarray, datasets: np.ndarray) -> None:
    if not np.isfinite(values).any():
        return
    turned = -values if OUTPUTS[output].direction == "lower" else values
    ranks.setdefault(output, []).append(percentile_ranks(turned, datasets))


def _floats(column: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(column.to_numpy(), np.float64)


# --- closest to the rule's cut ---


def _rule_distance(store: Store, rule: Rule, name: str) -> _Computed:
    """|predicted − cut| of each pair, on the rule's own scale.

    The rule is applied to the candidate, and to the original where the candidate lacks a score that it needs. The cut
    of a dataset is the worst prediction that the newest selection from it by this rule kept; where there is none, the
    median prediction of its pairs. Scores are matched as on the Select page; of several that fit, those with the most
    values are taken.
    """
    with store.read() as connection:
        pairs = frame(connection, "select pair_id, dataset_id from pairs order by pair_id")
        pair_ids, datasets = (pairs[column].to_numpy() for column in ("pair_id", "dataset_id"))
        distance = np.full(len(pair_ids), np.nan)
        by_selection, problem, n_originals = 0, "", 0
        cuts = _cuts(store, name)
        for dataset_id in np.unique(datasets).tolist():
            scorers, why = _matched(store, rule, dataset_id)
            if scorers is None:
                problem = problem or why
                continue
            places = np.flatnonzero(datasets == dataset_id)
            candidate, original = (
                _predicted(connection, rule, scorers, dataset_id, pair_ids[places], side=side)
                for side in ("candidate", "original")
            )
            by_original = ~np.isfinite(candidate) & np.isfinite(original)
            predicted = np.where(by_original, original, candidate)
            if not np.isfinite(predicted).any():
                problem = problem or f"no pair has all of {', '.join(rule.outputs)}; score them on the Score page."
                continue
            n_originals += int(np.count_nonzero(by_original))
            by_selection += dataset_id in cuts
            distance[places] = np.abs(predicted - cuts.get(dataset_id, float(np.nanmedian(predicted))))
    n_without = int(np.count_nonzero(~np.isfinite(distance)))
    if n_without == len(distance):
        return pair_ids, distance, f"The rule cannot be applied to these pairs: {problem or 'there is no pair.'}"
    said = ["The cut is that of the newest selection by the rule." if by_selection else "The cut is the median pair."]
    if n_originals:
        said.append(f"{n_originals:,} pairs are judged by their original: the candidate lacks a score.")
    if n_without:
        said.append(f"{n_without:,} pairs lack a score of the rule and come last.")
    return pair_ids, distance, " ".join(said)


def _cuts(store: Store, name: str) -> dict[int, float]:
    """Dataset -> the worst prediction that the newest selection from it by the rule of this name kept."""
    with store.read() as connection:
        found = rows(
            connection,
            "select details::varchar details from datasets where kind = :kind order by dataset_id",
            kind=SELECTION,
        )
    cuts: dict[int, float] = {}
    for row in found:
        details = json.loads(row["details"])
        reach = details.get("predicted_range")
        if details.get("rule", {}).get("name") == name and reach:
            cuts[int(details["from_dataset"]["dataset_id"])] = float(reach[1])
    return cuts


def _matched(store: Store, rule: Rule, dataset_id: int) -> tuple[dict[str, int] | None, str]:
    """Output -> scorer of each term, or None with the reason."""
    here = scorers_here(store, dataset_id)
    n_values = {int(one["scorer_id"]): int(one["n_values"]) for one in here}
    found = match(rule, here)
    wanted = dict(found.scorers)
    for term in found.terms:
        if term.scorer_id is None and term.choices:
            wanted[term.output] = _most_values(rule, here, term, n_values)
    found = match(rule, here, chosen=wanted)
    return (found.scorers, "") if found.ok else (None, found.problems[0])


def _most_values(rule: Rule, here: list[dict[str, Any]], term: TermMatch, n_values: Mapping[int, int]) -> int:
    """Of the scorers that fit a term the one with the most values; of none that fits any (it is refused then)."""
    fitting = [
        choice for choice in term.choices if term.output in match(rule, here, chosen={term.output: choice}).scorers
    ]
    return max(fitting or term.choices, key=lambda choice: (n_values[choice], choice))


def _predicted(
    connection: Connection,
    rule: Rule,
    scorers: Mapping[str, int],
    dataset_id: int,
    pair_ids: np.ndarray,
    *,
    side: str,
) -> np.ndarray:
    values: dict[str, np.ndarray] = {}
    for output, scorer_id in scorers.items():
        found = frame(
            connection,
            f"""select p.pair_id, c.value from pairs p join scores c on c.example_id = p.{side}_id
            where c.scorer_id = $scorer and p.dataset_id = $dataset and c.value is not null""",
            {"scorer": scorer_id, "dataset": dataset_id},
        )
        column = np.full(len(pair_ids), np.nan)
        column[np.searchsorted(pair_ids, found["pair_id"].to_numpy())] = found["value"].to_numpy()
        values[output] = column
    return rule.predict(values)


# --- most uncertain, most similar ---


def _most_uncertain(store: Store) -> Order:
    with store.read() as connection:
        model_id = scalar(connection, "select max(model_id) from pair_models")
    if model_id is None:
        return _oldest("There is no model of decisions yet (Pairs page, tab Model), so the oldest pairs come first.")
    return Order(
        value="abs(ord.p_accept - 0.5)",
        descending=False,
        join="left join pair_predictions ord on ord.pair_id = p.pair_id and ord.model_id = $order_model",
        params={"order_model": int(model_id)},
        note=f"By model {model_id}. Pairs that came after it was trained come last.",
    )


def _most_similar(store: Store, pair_id: int | None) -> Order:
    if pair_id is None:
        return _oldest("Choose the pair to which the others are compared; until then the oldest pairs come first.")
    query = similar_pairs.query_of(store, pair_id)
    if isinstance(query, str):
        return _oldest(f"{query} The oldest pairs come first.")
    return Order(
        value="ord.similarity",
        descending=True,
        join=f"left join ({similar_pairs.similarities('order_')}) ord on ord.pair_id = p.pair_id",
        params={"order_scorer": query.scorer_id, "order_vector": query.vector},
        note=f"By the embeddings of {similar_pairs.embedder_name(query.model)}.",
    )
