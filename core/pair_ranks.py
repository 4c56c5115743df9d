"""How much the indicators of a pair disagree about it: percentile ranks, and their spread (pure)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def percentile_ranks(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Rank of each value among those of its group: (midrank − ½) / n, float64 ``[m]`` between 0 and 1.

    ``values`` ``[m]`` with NaN where there is none (its rank is NaN, and it counts in no n); ``groups`` ``[m]`` whole
    numbers. Equal values of a group have equal ranks (midranks), so the ranks of a group have the mean ½.
    """
    ranks = np.full(len(values), np.nan)
    there = np.flatnonzero(np.isfinite(values))
    if not len(there):
        return ranks
    order = there[np.lexsort((values[there], groups[there]))]
    sorted_groups, sorted_values = groups[order], values[order]
    new_group = np.concatenate([[True], sorted_groups[1:] != sorted_groups[:-1]])
    new_run = new_group | np.concatenate([[True], sorted_values[1:] != sorted_values[:-1]])
    group_starts, run_starts = np.flatnonzero(new_group), np.flatnonzero(new_run)
    group_sizes = np.diff([*group_starts, len(order)])
    run_ends = np.concatenate([run_starts[1:], [len(order)]])
    group_of_run = np.cumsum(new_group)[run_starts] - 1
    # The mean of the places first+1 … last within the group, less a half, is the middle between both ends of the run.
    middles = (run_starts + run_ends) / 2 - group_starts[group_of_run]
    ranks[order] = np.repeat(middles / group_sizes[group_of_run], run_ends - run_starts)
    return ranks


def disagreement(ranks: Mapping[str, list[np.ndarray]]) -> np.ndarray:
    """Spread of the indicators' ranks of each row: their standard deviation (n − 1), NaN for fewer than two.

    ``ranks``: output -> the ranks ``[m]`` by each of its scorers, already aligned so that larger is better. Scorers of
    one output (two students' IFD) are averaged first, so that asking twice gives no indicator two voices. The standard
    deviation and not the range: a range grows with the number of indicators, also where they say the same.
    """
    count: np.ndarray | None = None
    for columns in ranks.values():
        own_sum, own_n = np.zeros(len(columns[0])), np.zeros(len(columns[0]))
        for column in columns:
            there = np.isfinite(column)
            own_sum[there] += column[there]
            own_n += there
        if count is None:
            count, mean, scatter = np.zeros(len(own_n)), np.zeros(len(own_n)), np.zeros(len(own_n))
        there = own_n > 0
        value = own_sum[there] / own_n[there]
        count[there] += 1
        step = value - mean[there]  # Welford (1962): one indicator at a time is held
        mean[there] += step / count[there]
        scatter[there] += step * (value - mean[there])
    if count is None:
        return np.zeros(0)
    spread = np.full(len(count), np.nan)
    enough = count >= 2
    spread[enough] = np.sqrt(scatter[enough] / (count[enough] - 1))
    return spread
