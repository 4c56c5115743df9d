"""What the Select page works on, remembered: rows with their predicted values, their ranking, and its spreads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st

from core import selection
from core.rules import Rule, loss_of
from core.selection import Ranking, Spreads
from db import selections
from db.selections import Candidates
from db.service import Service
from db.store import Store

PREDICTED_BINS = 48
PREDICTED = -1
"""Stands for a scorer id where the predicted value is shown as a column of a table."""


@dataclass(frozen=True)
class Constraints:
    """What a row must meet to be selected; hashable, for it is part of a key. None: no such limit."""

    rejected: bool = True
    evaluation: bool = True
    category: str | None = None
    most: int | None = None
    embedder: int | None = None
    distance: float | None = None

    def to_details(self) -> dict[str, Any]:
        """For the provenance of a selection: only the limits that are set, and both exclusions."""
        found: dict[str, Any] = {"exclude_rejected": self.rejected, "exclude_evaluation_sets": self.evaluation}
        if self.most is not None:
            found |= {"category": self.category, "max_per_category": self.most}
        if self.distance is not None:
            found |= {"min_distance": self.distance, "embedding_scorer": self.embedder}
        return found


@dataclass(frozen=True)
class Prepared:
    """Rows of a dataset under a rule and constraints. Shared between sessions: nobody changes an array of it.

    ``predicted``  float64 ``[n]``, on the rule's scale; NaN: none
    ``excluded``   example id -> why it can neither be selected nor drawn into a random subset
    ``columns``    scorer ids in the order of the columns of ``spread``
    """

    rows: Candidates
    predicted: np.ndarray
    excluded: Mapping[int, str]
    ranking: Ranking
    columns: tuple[int, ...]
    spread: Spreads
    predicted_spread: Spreads


@dataclass(frozen=True)
class Chosen:
    """What the page is about in one run. ``scorers``: term's output -> scorer id; ``known``: scorers of the dataset."""

    service: Service
    dataset_id: int
    dataset: str
    rule_name: str
    rule: Rule
    scorers: Mapping[str, int]
    known: Mapping[int, Mapping[str, Any]]
    forced: tuple[str, ...]
    constraints: Constraints
    prepared: Prepared

    @property
    def store(self) -> Store:
        """The open store."""
        return self.service.store

    @property
    def scale(self) -> str:
        """What a predicted value is."""
        return "predicted log loss" if self.rule.log_response else "predicted loss"

    def loss(self, predicted: float) -> float:
        """A predicted value as an evaluation loss in nats."""
        return float(loss_of(predicted, log_response=self.rule.log_response))


@st.cache_resource(max_entries=6, show_spinner="Reading the scores …")
def _candidates(
    _store: Store, path: str, version: str, dataset_id: int, scorers: tuple[tuple[int, str], ...]
) -> Candidates:
    return selections.candidates(_store, dataset_id, dict(scorers))


@st.cache_resource(max_entries=12, show_spinner="Ranking the rows …")
def _ranked(
    _store: Store,
    _rows: Candidates,
    path: str,
    version: str,
    dataset_id: int,
    rule: str,
    scorers: tuple[tuple[str, int], ...],
    columns: tuple[tuple[int, str], ...],
    constraints: Constraints,
) -> Prepared:
    predicted = np.broadcast_to(
        Rule.from_json(rule).predict({output: _rows.values[scorer_id] for output, scorer_id in scorers}),
        _rows.example_ids.shape,
    )
    excluded = selections.excluded(_store, dataset_id, rejected=constraints.rejected, evaluation=constraints.evaluation)
    categories = vectors = None
    if constraints.most is not None and constraints.category is not None:
        of_row = selections.categories(_store, dataset_id, constraints.category)
        categories = [of_row.get(i) for i in _rows.example_ids.tolist()]
    if constraints.distance is not None and constraints.embedder is not None:
        vectors = selections.vectors(_store, scorer_id=constraints.embedder, example_ids=_rows.example_ids)
    ranking = selection.rank(
        _rows.example_ids,
        predicted,
        categories=categories,
        max_per_category=None if categories is None else constraints.most,
        vectors=vectors,
        min_distance=None if vectors is None else constraints.distance,
        excluded=excluded,
    )
    ids = tuple(scorer_id for scorer_id, _ in columns)
    values = np.column_stack([_rows.values[i] for i in ids]) if ids else np.empty((len(predicted), 0))
    return Prepared(
        rows=_rows,
        predicted=predicted,
        excluded=excluded,
        ranking=ranking,
        columns=ids,
        spread=selection.spreads(values, ranking),
        predicted_spread=selection.spreads(predicted[:, None], ranking, bins=PREDICTED_BINS),
    )


def prepare(
    service: Service,
    *,
    version: str,
    dataset_id: int,
    rule: Rule,
    scorers: Mapping[str, int],
    columns: Mapping[int, str],
    constraints: Constraints,
) -> Prepared:
    """Everything about these rows that no size changes; remembered. ``columns``: scorer id -> output, to be shown."""
    store = service.store
    version = f"{version} {selections.evaluation_state(store)}"
    wanted = tuple({**{scorer_id: output for output, scorer_id in scorers.items()}, **columns}.items())
    path = str(store.path)
    rows = _candidates(store, path, version, dataset_id, wanted)
    return _ranked(store, rows, path, version, dataset_id, rule.to_json(), tuple(scorers.items()), wanted, constraints)
