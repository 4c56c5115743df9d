"""What a plan is made of: sources that rows are drawn from, and runs with the rows that they train on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from core.errors import InputError


@dataclass(frozen=True)
class Source:
    """Rows of one kind: a dataset, or the rows of one category. ``example_ids`` are distinct, in order.

    Raises:
        ValueError: an example stands in it twice.
    """

    label: str
    example_ids: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(set(self.example_ids)) != len(self.example_ids):
            raise ValueError(f"the source {self.label!r} names an example twice")

    def __len__(self) -> int:
        return len(self.example_ids)


@dataclass(frozen=True)
class PlannedRun:
    """One finetune of a plan: the distinct rows that it trains on (none: the untrained base) and its seed.

    ``details`` is JSON-able and says how the rows were chosen, by ``role``; see db/schema.py, table ``runs``.
    """

    label: str
    role: str
    example_ids: tuple[int, ...]
    seed: int
    details: Mapping[str, Any] = field(default_factory=dict)


def base_run(*, seed: int = 0) -> PlannedRun:
    """The base model as it is, evaluated without training: what every other run is compared with."""
    return PlannedRun("base model, untrained", "base", (), seed)


def largest_remainder(weights: Sequence[float] | np.ndarray, total: int) -> np.ndarray:
    """Whole numbers int64 ``[k]`` in proportion to ``weights`` (0 or more) that sum to ``total`` exactly.

    Each gets its share rounded down; what is left goes one by one to the largest remainders, of equal ones to the
    first (Hamilton's method). Weights that are all 0 count as equal.
    """
    shares = np.asarray(weights, np.float64)
    if not shares.sum() > 0:
        shares = np.ones(len(shares))
    shares = shares / shares.sum() * total
    whole = np.floor(shares).astype(np.int64)
    # Rounded, so that the last bit of a division does not decide between two that are equal.
    order = np.argsort(-np.round(shares - whole, 9), kind="stable")
    whole[order[: total - int(whole.sum())]] += 1
    return whole


def distinct(example_ids: Sequence[int]) -> tuple[int, ...]:
    """Each id once, in the order of its first place."""
    return tuple(dict.fromkeys(int(one) for one in example_ids))


def pool_of(sources: Sequence[Source]) -> np.ndarray:
    """Distinct example ids of all sources, int64, rising.

    Raises:
        InputError: there is no source, or a source without rows, or two have one label.
    """
    if not sources:
        raise InputError("No source is chosen; choose at least one to draw mixtures from.")
    labels = [source.label for source in sources]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise InputError(f"Two sources are named {twice!r}; give each a name of its own.")
    empty = next((source.label for source in sources if not len(source)), None)
    if empty is not None:
        raise InputError(f"The source {empty!r} has no row; leave it out or choose another.")
    return np.unique(np.concatenate([np.asarray(source.example_ids, np.int64) for source in sources]))


def check_counts(pool: np.ndarray, *, n_runs: int, size: int) -> None:
    """Refuse what cannot be drawn.

    Raises:
        InputError: no run, no row, or fewer distinct rows than a mixture shall have; says how many there are.
    """
    if n_runs < 1 or size < 1:
        raise InputError(f"{n_runs} mixtures of {size} rows were asked for; both must be 1 or more.")
    if len(pool) < size:
        raise InputError(
            f"The sources have {len(pool):,} distinct rows together, but a mixture shall have {size:,}. "
            f"Choose {len(pool):,} rows or fewer, or add a source."
        )
