"""What the Select page reads and writes: rows with the scores of a rule's terms, their constraints, selections, and the
losses that a comparison of a rule with random subsets is made of."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from core import __version__
from core.selection import Ranking, Selection
from db import commands, embeddings, queries
from db.conditions import category_column
from db.evaluation import HAS_OUTPUT
from db.store import Store, frame, rows
from db.to_score import dataset_digest

EVALUATION, REJECTED = "asked by an evaluation set", "rejected by a reviewer"
KIND = "selection"


def scorers_here(store: Store, dataset_id: int) -> list[dict[str, Any]]:
    """Scorers with a score of some row of a dataset, as ``queries.scorers`` gives them, ``settings`` as a dictionary.

    kNN distances belong to a dataset: those among the rows of another one are left out.
    """
    with store.read() as connection:
        digest = dataset_digest(connection, dataset_id)
    found = []
    for scorer in queries.scorers(store, dataset_ids=[dataset_id]):
        settings = scorer["settings"]
        settings = json.loads(settings) if isinstance(settings, str) else dict(settings or {})
        if settings.get("dataset") in (None, digest):
            found.append({**scorer, "settings": settings})
    return found


@dataclass(frozen=True)
class Missing:
    """Rows without a value of one output: their score is NULL, or they were not scored."""

    output: str
    scorer_id: int
    n_null: int
    n_unscored: int


@dataclass(frozen=True)
class Candidates:
    """The distinct rows of a dataset, in its order, with their values by scorer.

    ``example_ids``  int64 ``[n]``
    ``positions``    int64 ``[n]``: where each stands first in the dataset, from 0
    ``characters``   int64 ``[n]``: of instruction, input and output
    ``values``       scorer id -> float64 ``[n]``; NaN: no value
    ``missing``      scorer id -> what has no value
    ``n_copies``     members that stand in the dataset again
    """

    dataset_id: int
    example_ids: np.ndarray
    positions: np.ndarray
    characters: np.ndarray
    values: Mapping[int, np.ndarray]
    missing: Mapping[int, Missing]
    n_copies: int


def candidates(store: Store, dataset_id: int, scorers: Mapping[int, str]) -> Candidates:
    """Read the rows of a dataset with their scores. ``scorers``: scorer id -> its output."""
    with store.read() as connection:
        members = frame(
            connection,
            """select m.example_id, m.n, m.position,
                length(e.instruction) + length(e.input) + length(e.output) characters
            from (select example_id, count(*) n, min(position) as position from members where dataset_id = $id
                group by example_id) m join examples e on e.example_id = m.example_id order by m.position""",
            {"id": dataset_id},
        )
        ids = members["example_id"].to_numpy().astype(np.int64)
        scores = frame(
            connection,
            """select scorer_id, example_id, value from scores
            where list_contains($scorers, scorer_id) and example_id in (
                select example_id from members where dataset_id = $id)""",
            {"id": dataset_id, "scorers": list(scorers)},
        )
    order = np.argsort(ids)
    owner = scores["scorer_id"].to_numpy()
    row = scores["example_id"].to_numpy()
    value = np.asarray(scores["value"].to_numpy(), np.float64)
    values, missing = {}, {}
    for scorer_id, output in scorers.items():
        mine = owner == scorer_id
        column = np.full(len(ids), np.nan)
        column[order[np.searchsorted(ids, row[mine], sorter=order)]] = value[mine]
        values[scorer_id] = column
        n_null = int(np.isnan(value[mine]).sum())
        missing[scorer_id] = Missing(output, scorer_id, n_null, len(ids) - int(mine.sum()))
    return Candidates(
        dataset_id=dataset_id,
        example_ids=ids,
        positions=members["position"].to_numpy().astype(np.int64),
        characters=members["characters"].to_numpy().astype(np.int64),
        values=values,
        missing=missing,
        n_copies=int(np.sum(members["n"].to_numpy())) - len(ids),
    )


def categories(store: Store, dataset_id: int, key: str) -> dict[int, str | None]:
    """Example id -> what the further column ``key`` holds for it (where it stands first); None: nothing."""
    column, parameters = category_column(key)
    with store.read() as connection:
        found = frame(
            connection,
            f"""select example_id, arg_min(struct_pack(c := {column}), position).c category from members m
            where dataset_id = $id group by example_id""",
            {"id": dataset_id, **parameters},
        )
    return dict(zip(found["example_id"].to_pylist(), found["category"].to_pylist(), strict=True))


def excluded(store: Store, dataset_id: int, *, rejected: bool, evaluation: bool) -> dict[int, str]:
    """Rows of a dataset that must not be selected: example id -> why.

    ``rejected``: reviewers rejected the row as a candidate, and no decision took it as a result. ``evaluation``: a
    marked evaluation set asks the same instruction with the same input, after folding case and white space.
    """
    found: dict[int, str] = {}
    with store.read() as connection:
        if rejected:
            table = frame(
                connection,
                """select distinct p.candidate_id example_id from pairs p
                join current_decisions c on c.pair_id = p.pair_id and c.verdict = 'reject'
                where p.candidate_id in (select example_id from members where dataset_id = $id)
                    and not exists (select 1 from current_decisions a where a.result_id = p.candidate_id)""",
                {"id": dataset_id},
            )
            found |= dict.fromkeys(table["example_id"].to_pylist(), REJECTED)
        if evaluation:
            folded = "lower(trim(regexp_replace({}, '[\\s\\p{{Z}}]+', ' ', 'g')))"
            prompt = f"{folded.format('e.instruction')} i, {folded.format('e.input')} c"
            table = frame(
                connection,
                f"""with asked as (select distinct {prompt} from members m join examples e
                    on e.example_id = m.example_id where m.dataset_id in (select dataset_id from evaluation_sets)),
                here as (select e.example_id, {prompt} from examples e
                    where e.example_id in (select example_id from members where dataset_id = $id))
                select example_id from here semi join asked on asked.i = here.i and asked.c = here.c""",
                {"id": dataset_id},
            )
            found |= dict.fromkeys(table["example_id"].to_pylist(), EVALUATION)
    return found


def evaluation_state(store: Store) -> str:
    """A short text that changes whenever evaluation sets are marked, unmarked or grow."""
    with store.read() as connection:
        found = rows(
            connection,
            """select coalesce(string_agg(d.dataset_id || ':' || d.n_members, ' ' order by d.dataset_id), '') state
            from evaluation_sets v join datasets d on d.dataset_id = v.dataset_id""",
        )
    return str(found[0]["state"])


def vectors(store: Store, *, scorer_id: int, example_ids: np.ndarray) -> np.ndarray:
    """Embeddings float32 ``[n, d]`` of rows, in their order; a row of NaN has none."""
    order = np.argsort(example_ids)
    found: np.ndarray | None = None
    for ids, batch in embeddings.vectors_of(store, scorer_id=scorer_id, example_ids=example_ids.tolist()):
        if found is None:
            found = np.full((len(example_ids), batch.shape[1]), np.nan, np.float32)
        found[order[np.searchsorted(example_ids, ids, sorter=order)]] = batch
    return np.full((len(example_ids), 1), np.nan, np.float32) if found is None else found


# --- selections ---


def provenance(
    *,
    dataset_id: int,
    dataset: str,
    rule_name: str,
    rule: Mapping[str, Any],
    scorers: Sequence[Mapping[str, Any]],
    mismatches: Sequence[str],
    constraints: Mapping[str, Any],
    size: Mapping[str, Any],
    ranking: Ranking,
    selection: Selection,
) -> dict[str, Any]:
    """What a selection keeps with it: enough to make it again, and to read why it holds what it holds.

    There is no seed: ranking and cutting draw nothing.
    """
    return {
        "from_dataset": {"dataset_id": dataset_id, "name": dataset},
        "rule": {"name": rule_name, "rule": dict(rule)},
        "scorers": [dict(scorer) for scorer in scorers],
        "applied_despite": list(mismatches),
        "constraints": dict(constraints),
        "size": dict(size),
        "n_ranked": ranking.n_ranked,
        "n_selected": len(selection.kept),
        "n_fewer_than_asked": selection.shortfall,
        "refused": dict(selection.reasons),
        "predicted_range": [float(ranking.predicted[0]), float(ranking.predicted[len(selection.kept) - 1])]
        if selection.kept
        else None,
        "seed": None,
        "assay_version": __version__,
    }


def save_selection(
    store: Store, example_ids: Sequence[int], *, name: str, details: Mapping[str, Any], created_by: str | None = None
) -> int:
    """Keep selected rows, best first, as a dataset of the kind "selection" with its :func:`provenance`.

    Raises:
        StoreError: the name is empty or taken, or there is no row.
    """
    origin = details["from_dataset"]
    return commands.create_dataset(
        store,
        example_ids,
        name=name,
        kind=KIND,
        source=f"Select: {details['rule']['name']} on {origin['name']}",
        details=details,
        created_by=created_by,
        like=[origin["dataset_id"]],
    )


# --- comparisons ---


def n_evaluation_characters(store: Store, evaluation_id: int) -> int:
    """Characters of what a run is evaluated on: the distinct members with an output."""
    with store.read() as connection:
        found = rows(
            connection,
            f"""select coalesce(sum(length(e.instruction) + length(e.input) + length(e.output)), 0)::bigint n
            from examples e where e.example_id in (select example_id from members where dataset_id = :id)
                and {HAS_OUTPUT}""",
            id=evaluation_id,
        )
    return int(found[0]["n"])


def output_losses(store: Store, run_ids: Sequence[int]) -> dict[int, dict[int, float | None]]:
    """Run id -> its latest losses in nats by evaluation output (example id); None: no loss of that output."""
    with store.read() as connection:
        found: pa.Table = frame(
            connection,
            """select r.run_id, l.example_id, l.loss_nats from current_run_results r
            join run_losses l on l.result_id = r.result_id
            where list_contains($runs, r.run_id) order by r.run_id, l.example_id""",
            {"runs": [int(i) for i in run_ids]},
        )
    losses: dict[int, dict[int, float | None]] = {int(run): {} for run in run_ids}
    for run, example, loss in zip(*(column.to_pylist() for column in found.columns), strict=True):
        losses[run][example] = loss
    return losses


def instructions(store: Store, evaluation_id: int) -> dict[int, tuple[str, str]]:
    """Example id of an evaluation output -> its (instruction, input): references of one instruction share it."""
    with store.read() as connection:
        found = rows(
            connection,
            """select e.example_id, e.instruction, e.input from examples e
            where e.example_id in (select example_id from members where dataset_id = :id)""",
            id=evaluation_id,
        )
    return {row["example_id"]: (row["instruction"], row["input"]) for row in found}
