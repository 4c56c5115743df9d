"""Subsets of one ranking or one dataset: bins by an indicator, best k, random ones beside them, all of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from core.errors import InputError
from core.studies.plans import PlannedRun, distinct


def bins(
    example_ids: Sequence[int],
    values: Mapping[int, float],
    *,
    indicator: str,
    n_bins: int = 8,
    seed: int = 0,
    scorer_id: int | None = None,
) -> list[PlannedRun]:
    """One dataset cut into ``n_bins`` equal bins by an indicator, descending: bin 0 has the highest values [IM].

    Sizes differ by one at most, the larger bins first. Equal values keep the order of ``example_ids``. Rows without a
    value are left out; ``details``: indicator, scorer_id, bin (from 0), low, high, mean, n_without_value.

    Raises:
        InputError: fewer rows with a value than bins, or the indicator is the same for all of them.
    """
    if n_bins < 2:
        raise InputError(f"{n_bins} bin was asked for; choose 2 or more.")
    ids = distinct(example_ids)
    own = np.array([values.get(one, math.nan) for one in ids], np.float64)
    there = np.flatnonzero(np.isfinite(own))
    if len(there) < n_bins:
        raise InputError(
            f"{len(there):,} of {len(ids):,} rows have a value of {indicator}, which is too few for {n_bins} bins. "
            "Score the dataset first, or choose fewer bins."
        )
    if own[there].min() == own[there].max():
        raise InputError(
            f"{indicator} is {own[there[0]]:g} for every row, so there is nothing to sort by. Choose another indicator."
        )
    order = there[np.argsort(-own[there], kind="stable")]
    runs = []
    for number, part in enumerate(np.array_split(order, n_bins)):
        details = {
            "indicator": indicator,
            "scorer_id": scorer_id,
            "bin": number,
            "low": float(own[part].min()),
            "high": float(own[part].max()),
            "mean": float(own[part].mean()),
            "n_without_value": len(ids) - len(there),
        }
        members = tuple(ids[place] for place in part)
        runs.append(PlannedRun(f"{indicator}, bin {number + 1} of {n_bins}", "bin", members, seed, details))
    return runs


def _random_subset(pool: Sequence[int], k: int, *, key: Sequence[int]) -> tuple[int, ...]:
    places = np.random.default_rng(list(key)).choice(len(pool), size=k, replace=False)
    return tuple(pool[place] for place in places.tolist())


def size_runs(ranking: Sequence[int], *, sizes: Sequence[int], n_random: int, seed: int = 0) -> list[PlannedRun]:
    """The best k rows of a ranking (best first) for every k of ``sizes``, each beside ``n_random`` random subsets.

    Random subsets are drawn from the whole ranking, the best rows included, as the paper's are from their pool. Where k
    is all of it there is no other subset, so there is no random run. A draw's training seed differs from the others', a
    ranking's does not; ``details``: k and, of a random one, draw.

    Raises:
        InputError: no size, or one that is not from 1 to the number of rows; it says how many there are.
    """
    ranked = distinct(ranking)
    if not sizes:
        raise InputError("No size is chosen; choose at least one.")
    runs = []
    for k in dict.fromkeys(sizes):
        if not 1 <= k <= len(ranked):
            raise InputError(f"{k:,} rows were asked for, but the ranking has {len(ranked):,}. Choose 1 to that many.")
        runs.append(PlannedRun(f"best {k:,}", "top", ranked[:k], seed, {"k": k}))
        for draw in range(n_random if k < len(ranked) else 0):
            ids = _random_subset(ranked, k, key=(seed, k, draw))
            runs.append(PlannedRun(f"random {k:,} ({draw + 1})", "random", ids, seed + draw, {"k": k, "draw": draw}))
    return runs


def comparison_runs(
    selected: Sequence[int], pool: Sequence[int], *, n_random: int, seed: int = 0, n_selected: int = 1
) -> list[PlannedRun]:
    """The selection, trained ``n_selected`` times, and ``n_random`` random subsets of its size.

    Random subsets are drawn from the whole pool, the selected rows included: that is what "no better than a random
    subset" says, and what makes the runs exchangeable under that hypothesis. Run i of either kind trains with seed
    ``seed + i``, so that the spread holds what another initialisation would change too.

    Raises:
        InputError: the selection is empty, or the pool has no other subset of its size.
    """
    chosen, rows = distinct(selected), distinct(pool)
    if not chosen:
        raise InputError("The selection has no row; select some first.")
    if n_selected < 1 or n_random < 1:
        raise InputError("At least one run of the selection and one random subset are needed to compare.")
    if len(rows) < len(chosen) or set(rows) == set(chosen):
        raise InputError(
            f"The pool has {len(rows):,} rows and the selection {len(chosen):,}, so there is no other subset of this "
            "size. Select fewer rows or take a larger pool."
        )
    runs = []
    for i in range(n_selected):
        label = "selected" if n_selected == 1 else f"selected ({i + 1})"
        runs.append(PlannedRun(label, "selected", chosen, seed + i, {"k": len(chosen), "draw": i}))
    for draw in range(n_random):
        ids = _random_subset(rows, len(chosen), key=(seed, len(chosen), draw))
        details: dict[str, Any] = {"k": len(chosen), "draw": draw}
        runs.append(PlannedRun(f"random ({draw + 1})", "random", ids, seed + draw, details))
    return runs


def single_run(example_ids: Sequence[int], *, seed: int = 0) -> list[PlannedRun]:
    """One run on all of these rows.

    Raises:
        InputError: there is none.
    """
    ids = distinct(example_ids)
    if not ids:
        raise InputError("There is no row to train on; choose a dataset with rows.")
    return [PlannedRun("single", "single", ids, seed)]
