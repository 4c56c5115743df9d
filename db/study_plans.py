"""Plans of studies: what is asked for, the runs that it gives, and what they will be like, before anything is made."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from core.correlation import Correlation
from core.errors import InputError
from core.pace import CHARACTERS_PER_TOKEN, PROMPT_TOKENS
from core.rule_scorers import match
from core.rules import Rule
from core.selection import rank
from core.studies import (
    PlannedRun,
    Source,
    bins,
    check_plan,
    random_mixtures,
    single_run,
    size_runs,
    steered_mixtures,
)
from db import queries, selections, study_means
from db.evaluation import HAS_OUTPUT
from db.fits import rules
from db.store import Store, frame
from db.studies import sources_of
from db.study_means import IndicatorColumn, Means

_ROWS_OF_THE_PAPER = 8000
_ROWS_OF_A_MIDDLING_STUDY = 1500
_MOST_DISTANCES = 5e7
"""Distances within the runs that are computed without being asked for: 78 runs of 2,000 rows have 3e8, some 10 s."""


@dataclass(frozen=True, kw_only=True)
class Design:
    """What a study is asked to be; JSON-able by :meth:`to_json`.

    ``split_by``    further column whose values are the sources; None: each dataset is one
    ``steer``       key of the indicator whose mean mixtures are steered by, spread by ``spread``; None: random ones
    ``indicators``  keys of the indicators to sort by (univariate)
    ``rule``        name of the rule that ranks, and ``sizes`` of its best rows (size)
    """

    kind: str
    dataset_ids: tuple[int, ...]
    split_by: str | None = None
    n_runs: int = 78
    size: int = 2000
    steer: str | None = None
    spread: float = 0.6
    indicators: tuple[str, ...] = ()
    n_bins: int = 8
    rule: str | None = None
    sizes: tuple[int, ...] = ()
    n_random: int = 3
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        """The fields that count for this kind of study."""
        used = {
            "multivariate": ("split_by", "n_runs", "size", "steer", *(("spread",) if self.steer else ())),
            "univariate": ("indicators", "n_bins"),
            "size": ("rule", "sizes", "n_random"),
        }.get(self.kind, ())
        fields = dataclasses.asdict(self)
        return {name: fields[name] for name in ("kind", "dataset_ids", *used, "seed")}


def usual_counts(n_rows: int) -> tuple[int, int]:
    """Mixtures and rows of each that suit so many distinct rows: the paper's 78 of 2,000 where there are enough.

    A mixture has a sixth of the rows elsewhere, so that mixtures can differ.
    """
    if n_rows >= _ROWS_OF_THE_PAPER:
        return 78, 2000
    return (48 if n_rows >= _ROWS_OF_A_MIDDLING_STUDY else 24), max(2, n_rows // 6)


def costly_columns(design: Design, columns: Sequence[IndicatorColumn]) -> tuple[str, ...]:
    """Keys of the kNN columns where the runs of a design have so many rows that their means take long to compute."""
    sizes = {"multivariate": [design.size] * design.n_runs, "size": list(design.sizes) * (1 + design.n_random)}
    if sum(float(n) ** 2 for n in sizes.get(design.kind, ())) <= _MOST_DISTANCES:
        return ()
    return tuple(column.key for column in columns if column.embedding_id is not None)


# --- drawing the runs ---


def sources(store: Store, design: Design, *, left_out: Collection[int] = ()) -> list[Source]:
    """The sources of a design without the rows ``left_out``; one that is empty then is gone.

    Raises:
        InputError: a dataset is gone, or the column has too many values.
    """
    found = sources_of(store, dataset_ids=design.dataset_ids, split_by=design.split_by)
    if not left_out:
        return found
    gone = set(left_out)
    kept = [Source(one.label, tuple(i for i in one.example_ids if i not in gone)) for one in found]
    return [one for one in kept if len(one)]


def draw(
    store: Store, design: Design, columns: Sequence[IndicatorColumn], *, left_out: Collection[int] = ()
) -> list[PlannedRun]:
    """The runs of a design, without the base.

    Raises:
        InputError: it cannot be drawn; the message says what to change.
    """
    found = sources(store, design, left_out=left_out)
    pool = list(dict.fromkeys(i for source in found for i in source.example_ids))
    if not pool:
        raise InputError("The sources have no row. Choose a dataset with rows.")
    if design.kind == "multivariate":
        return _mixtures(store, design, found, pool, columns)
    if design.kind == "univariate":
        return _bins(store, design, pool, columns)
    if design.kind == "size":
        ranking = ranked(store, design, left_out=left_out)
        return size_runs(ranking, sizes=design.sizes, n_random=design.n_random, seed=design.seed)
    if design.kind == "single":
        label = found[0].label if len(found) == 1 else "single"
        return [replace(run, label=label) for run in single_run(pool, seed=design.seed)]
    raise ValueError(f"studies of kind {design.kind!r} are not planned here")


def _mixtures(
    store: Store, design: Design, found: Sequence[Source], pool: Sequence[int], columns: Sequence[IndicatorColumn]
) -> list[PlannedRun]:
    if design.steer is None:
        return random_mixtures(found, n_runs=design.n_runs, size=design.size, seed=design.seed)
    column = _column(columns, design.steer)
    return steered_mixtures(
        found,
        values=study_means.values_of(store, pool, column),
        indicator=column.key,
        n_runs=design.n_runs,
        size=design.size,
        seed=design.seed,
        spread=design.spread,
    )


def _bins(store: Store, design: Design, pool: Sequence[int], columns: Sequence[IndicatorColumn]) -> list[PlannedRun]:
    if not design.indicators:
        raise InputError("No indicator is chosen. Choose at least one to sort the rows by.")
    found = []
    for key in design.indicators:
        column = _column(columns, key)
        values = study_means.values_of(store, pool, column)
        found += bins(
            pool, values, indicator=key, n_bins=design.n_bins, seed=design.seed, scorer_id=column.scorer_id
        )  # fmt: skip
    return found


def _column(columns: Sequence[IndicatorColumn], key: str) -> IndicatorColumn:
    for column in columns:
        if column.key == key:
            return column
    raise InputError(
        f"No row of these datasets has a value of {key} any more. Score them, or choose another indicator."
    )


def ranked(store: Store, design: Design, *, left_out: Collection[int] = ()) -> list[int]:
    """The rows of the design's dataset by its rule, the lowest predicted loss first; rows without one are left out.

    Raises:
        InputError: the rule is gone or is of other scorers, or there is more than one dataset.
    """
    rule = next((one["rule"] for one in rules(store) if one["name"] == design.rule), None)
    if rule is None:
        raise InputError("The rule is not in the store any more. Choose another one.")
    if len(design.dataset_ids) != 1:
        raise InputError("A rule ranks the rows of one dataset. Choose one.")
    dataset_id = design.dataset_ids[0]
    scorers = applied(store, dataset_id, rule)
    found = selections.candidates(store, dataset_id, {scorer_id: output for output, scorer_id in scorers.items()})
    predicted = rule.predict({output: found.values[scorer_id] for output, scorer_id in scorers.items()})
    ranking = rank(found.example_ids, predicted, excluded=dict.fromkeys(left_out, "asked by the evaluation set"))
    ids: list[int] = ranking.ids.tolist()
    return ids


def applied(store: Store, dataset_id: int, rule: Rule) -> dict[str, int]:
    """Output key -> scorer of each term of a rule, among the scores of a dataset.

    Raises:
        InputError: a term has no scorer there, or one of another model; it says which.
    """
    found = match(rule, selections.scorers_here(store, dataset_id))
    if not found.ok:
        raise InputError(" ".join(found.problems))
    return found.scorers


# --- looking at a plan ---


@dataclass(frozen=True)
class Plan:
    """What a plan will be like.

    ``means``            of the indicators over the runs, by place of the run
    ``correlations``     of the indicators over the runs (Pearson)
    ``row_sd``           standard deviation of each indicator over the rows of a run (mean over the runs)
    ``n_without``        of each indicator, members of all runs without a value
    ``warnings``         sentences
    ``n_pool``           distinct rows of all runs
    ``train_tokens``     of one run on average and one epoch, reckoned from the length of the texts
    ``eval_tokens``      of the evaluation set, likewise; ``n_outputs`` its outputs, ``n_instructions`` its instructions
    """

    runs: tuple[PlannedRun, ...]
    sources: tuple[str, ...]
    means: Means
    correlations: list[list[Correlation]]
    row_sd: tuple[float | None, ...]
    n_without: tuple[int, ...]
    warnings: tuple[str, ...]
    n_pool: int
    train_tokens: float
    eval_tokens: float
    n_outputs: int
    n_instructions: int


def look(
    store: Store,
    runs: Sequence[PlannedRun],
    *,
    kind: str,
    evaluation_id: int,
    columns: Sequence[IndicatorColumn],
) -> Plan:
    """The means of the indicators over planned runs, what is doubtful about them, and how much text they have."""
    means = study_means.plan_means(store, runs, columns)
    row_sd = tuple(_mean(means.sd[:, i]) for i in range(len(columns)))
    n_without = tuple(int(n) for n in (means.n_members - means.n_values).sum(axis=0))
    evaluation = _evaluation_rows(store, evaluation_id)
    outputs = [example_id for example_id, _, is_output in evaluation if is_output]
    # Bins of one indicator are not made to tell indicators apart, so only a study of mixtures is asked that.
    labels = [column.label for column in columns] if kind == "multivariate" else []
    warnings = check_plan(
        runs,
        labels=labels,
        means=means.mean if labels else None,
        row_sd=row_sd if labels else None,
        n_without=n_without if labels else None,
        evaluation_ids=[example_id for example_id, _, _ in evaluation],
        n_instructions=len({place for _, place, _ in evaluation}),
    )
    warnings += _without_value(runs, {column.key: column.label for column in columns})
    if kind in ("univariate", "size"):
        warnings += _partial_means(columns, n_without, sum(len(run.example_ids) for run in runs))
    pool = list(dict.fromkeys(i for run in runs for i in run.example_ids))
    n_rows = sum(len(run.example_ids) for run in runs) / max(1, len(runs))
    return Plan(
        runs=tuple(runs),
        sources=tuple(dict.fromkeys(label for run in runs for label in run.details.get("proportions", {}))),
        means=means,
        correlations=study_means.correlations(means),
        row_sd=row_sd,
        n_without=n_without,
        warnings=tuple(warnings),
        n_pool=len(pool),
        train_tokens=_tokens_of_a_row(store, pool) * n_rows,
        eval_tokens=_tokens_of_a_row(store, outputs) * len(outputs),
        n_outputs=len(outputs),
        n_instructions=len({place for _, place, _ in evaluation}),
    )


def _without_value(runs: Sequence[PlannedRun], labels: Mapping[str, str]) -> list[str]:
    """Rows that are in no run because what the runs are made by has no value of them."""
    found = {
        labels.get(run.details["indicator"], run.details["indicator"]): int(run.details["n_without_value"])
        for run in runs
        if run.details.get("n_without_value")
    }
    return [
        f"{n:,} row{'s have' if n != 1 else ' has'} no value of {indicator} and {'are' if n != 1 else 'is'} in no run "
        "that is made by it."
        for indicator, n in found.items()
    ]


def _partial_means(columns: Sequence[IndicatorColumn], n_without: Sequence[int], n_rows: int) -> list[str]:
    """Indicators whose means are those of a part of the rows only."""
    return [
        f"{n:,} of the {n_rows:,} rows of the runs have no value of {column.label}; the means are over the others."
        for column, n in zip(columns, n_without, strict=True)
        if n
    ]


def _mean(values: np.ndarray) -> float | None:
    there = values[np.isfinite(values)]
    return float(there.mean()) if len(there) else None


def _evaluation_rows(store: Store, evaluation_id: int) -> list[tuple[int, int, bool]]:
    """Distinct members of an evaluation set: example id, a number for its instruction with input, has an output."""
    with store.read() as connection:
        found = frame(
            connection,
            f"""select distinct m.example_id, hash(e.instruction, e.input)::varchar prompt, {HAS_OUTPUT} is_output
            from members m join examples e on e.example_id = m.example_id where m.dataset_id = $id""",
            {"id": evaluation_id},
        ).to_pylist()
    places: dict[str, int] = {}
    return [(row["example_id"], places.setdefault(row["prompt"], len(places)), row["is_output"]) for row in found]


def _tokens_of_a_row(store: Store, example_ids: Sequence[int]) -> float:
    if not example_ids:
        return 0.0
    size = queries.text_bytes(store, example_ids)
    n_bytes = (size["instruction_bytes"] or 0) + (size["output_bytes"] or 0)
    return n_bytes / CHARACTERS_PER_TOKEN / max(1, size["n"]) + PROMPT_TOKENS
