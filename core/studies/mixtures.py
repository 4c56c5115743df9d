"""Mixtures of sources in random proportions: the multivariate study of [IM]."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from core.studies.plans import PlannedRun, Source, check_counts, largest_remainder, pool_of


def random_mixtures(
    sources: Sequence[Source], *, n_runs: int = 78, size: int = 2000, seed: int = 0
) -> list[PlannedRun]:
    """Mixtures of exactly ``size`` distinct rows, of each source ``size * r_i / sum(r)`` with r_i ~ U(0, 1) [IM].

    Shares are rounded by largest remainder; rows of a source are drawn without replacement, and the order of the
    mixture is random. ``details["proportions"]`` says how many rows came from each source. All runs have the same
    training seed, since the training setting S is fixed: only the data differ.

    Deviations from [IM], which does not say what happens then: a source smaller than its share gives what it has and
    the rest goes to the others in proportion of their r (``details["short"]``: share and rows of that source); a row
    that stands in two sources counts once, for the one that drew it.

    Raises:
        InputError: no source, an empty source, or fewer distinct rows than ``size``; see :func:`shortfalls`.
    """
    pool = pool_of(sources)
    check_counts(pool, n_runs=n_runs, size=size)
    places = [np.searchsorted(pool, np.asarray(source.example_ids, np.int64)) for source in sources]
    runs = []
    for number in range(n_runs):
        generator = np.random.default_rng([seed, number])
        ratios = generator.random(len(sources))
        drawn, details = _draw(sources, places, ratios, size=size, n_pool=len(pool), generator=generator)
        ids = pool[generator.permutation(drawn)]
        runs.append(PlannedRun(f"mixture {number + 1}", "mixture", tuple(ids.tolist()), seed, details))
    return runs


def _draw(
    sources: Sequence[Source],
    places: Sequence[np.ndarray],
    ratios: np.ndarray,
    *,
    size: int,
    n_pool: int,
    generator: np.random.Generator,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Places in the pool of the rows of one mixture, and what became of each source's share."""
    share = largest_remainder(ratios, size)
    taken = np.zeros(n_pool, bool)
    left = [_in_random_order(own, generator) for own in places]
    counts = np.zeros(len(sources), np.int64)
    has_rows = np.ones(len(sources), bool)
    wanted = share
    while wanted.sum():
        missing = wanted.copy()
        for i in np.flatnonzero(wanted):
            for place in left[i]:
                if not taken[place]:
                    taken[place] = True
                    counts[i] += 1
                    missing[i] -= 1
                    if not missing[i]:
                        break
        # What a source could not give is asked of the others. There are enough rows, so some source has one left.
        has_rows &= missing == 0
        wanted = np.zeros_like(share)
        wanted[has_rows] = largest_remainder(ratios[has_rows], int(missing.sum()))
    details: dict[str, Any] = {"proportions": {s.label: int(n) for s, n in zip(sources, counts, strict=True)}}
    short = {
        source.label: {"share": int(asked), "rows": int(got)}
        for source, asked, got in zip(sources, share, counts, strict=True)
        if got < asked
    }
    return np.flatnonzero(taken), details | ({"short": short} if short else {})


def _in_random_order(places: np.ndarray, generator: np.random.Generator) -> Iterator[int]:
    return iter(generator.permutation(places).tolist())


def shortfalls(runs: Sequence[PlannedRun]) -> dict[str, int]:
    """In how many of the runs each source was smaller than its share, by label; empty where every source sufficed."""
    found: dict[str, int] = {}
    for run in runs:
        for label in run.details.get("short", {}):
            found[label] = found.get(label, 0) + 1
    return found
