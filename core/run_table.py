"""Runs as a table for fits and figures: the loss of each beside the mean of every indicator over its dataset."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

RESPONSE = "loss_nats"
BY_HAND = "left out by hand"
OUTSIDE_SETTINGS = ("device", "micro_batch_size", "checkpoint_steps", "keep_adapter", "gradient_checkpointing")
"""Finetune settings that change where and how fast a run is made, but not what is trained."""

Run = Mapping[str, Any]


@dataclass(frozen=True)
class RunTable:
    """Runs that may go into a fit, and the others with their reason.

    ``columns``  :data:`RESPONSE` and every indicator's key -> one value a run, None where there is none
    ``missing``  indicator's key -> per run, how many rows of its dataset have no value (the mean is over the rest)
    ``n_rows``   rows of each run's dataset
    """

    runs: tuple[Run, ...]
    labels: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]
    columns: Mapping[str, tuple[float | None, ...]]
    missing: Mapping[str, tuple[int, ...]]
    n_rows: tuple[int, ...]

    @property
    def keys(self) -> tuple[int, ...]:
        """The runs' ids."""
        return tuple(run["run_id"] for run in self.runs)


@dataclass(frozen=True)
class Coverage:
    """An indicator over the runs: in how many it has a mean, and how far the means spread (None: too few)."""

    key: str
    n_runs: int
    n_gaps: int
    n_rows_missing: int
    mean: float | None
    deviation: float | None
    low: float | None
    high: float | None


def reason_left_out(run: Run) -> str | None:
    """Why a run cannot go into a fit, in words; None: it can. The untrained base model is no run of a dataset."""
    if run["outcome"] is None:
        return "not run yet"
    if run["outcome"] != "done":
        return f"{run['outcome']}: {run['reason'] or 'no reason was given'}"
    if run["loss_nats"] is None:
        return run["reason"] or "it has no evaluation loss"
    return None if run["dataset_id"] is not None else "it has no dataset of its own, and so no indicator means"


def labels_of(runs: Sequence[Run]) -> list[str]:
    """The runs' labels, with the study's name before them where there are several studies."""
    several = len({run["study_id"] for run in runs}) > 1
    return [f"{run['study']} · {run['label']}" if several else str(run["label"]) for run in runs]


def run_table(
    runs: Sequence[Run],
    *,
    keys: Sequence[str],
    dataset_ids: Sequence[int],
    mean: np.ndarray,
    n_values: np.ndarray,
    n_members: np.ndarray,
) -> RunTable:
    """Join runs with the means of their datasets.

    Args:
        runs: with ``run_id, study_id, study, label, role, dataset_id, outcome, reason, loss_nats``; those of the role
            ``base`` are passed over.
        keys: the indicators of the columns of ``mean`` (float64 ``[datasets, k]``, NaN: none) and ``n_values`` (rows
            with a value); ``n_members`` ``[datasets]`` or ``[datasets, k]``.
    """
    place = {dataset_id: i for i, dataset_id in enumerate(dataset_ids)}
    trained = [run for run in runs if run["role"] != "base"]
    labels = dict(zip((run["run_id"] for run in trained), labels_of(trained), strict=True))
    reasons = {run["run_id"]: reason_left_out(run) for run in trained}
    kept = [run for run in trained if reasons[run["run_id"]] is None]
    columns: dict[str, tuple[float | None, ...]] = {RESPONSE: tuple(float(run["loss_nats"]) for run in kept)}
    places = [place.get(run["dataset_id"]) for run in kept]
    members = np.asarray(n_members).reshape(len(dataset_ids), -1)
    missing = {}
    for j, key in enumerate(keys):
        columns[key] = tuple(None if i is None or math.isnan(mean[i, j]) else float(mean[i, j]) for i in places)
        missing[key] = tuple(
            0 if i is None else int(members[i, min(j, members.shape[1] - 1)] - n_values[i, j]) for i in places
        )
    return RunTable(
        runs=tuple(kept),
        labels=tuple(labels[run["run_id"]] for run in kept),
        left_out=tuple((labels[i], reason) for i, reason in reasons.items() if reason is not None),
        columns=columns,
        missing=missing,
        n_rows=tuple(int(run["n_rows"]) for run in kept),
    )


def without(table: RunTable, run_ids: Collection[int]) -> RunTable:
    """The table without these runs, which are left out by hand; ids that are not in it change nothing."""
    kept = [i for i, run in enumerate(table.runs) if run["run_id"] not in run_ids]
    if len(kept) == len(table.runs):
        return table
    gone = [(label, BY_HAND) for run, label in zip(table.runs, table.labels, strict=True) if run["run_id"] in run_ids]
    return RunTable(
        runs=tuple(table.runs[i] for i in kept),
        labels=tuple(table.labels[i] for i in kept),
        left_out=(*table.left_out, *gone),
        columns={key: tuple(values[i] for i in kept) for key, values in table.columns.items()},
        missing={key: tuple(counts[i] for i in kept) for key, counts in table.missing.items()},
        n_rows=tuple(table.n_rows[i] for i in kept),
    )


def coverage(table: RunTable) -> list[Coverage]:
    """Every indicator of the table in its order."""
    found = []
    for key, counts in table.missing.items():
        values = [value for value in table.columns[key] if value is not None]
        gaps = [count for count, value in zip(counts, table.columns[key], strict=True) if value is not None and count]
        found.append(
            Coverage(
                key=key,
                n_runs=len(values),
                n_gaps=len(gaps),
                n_rows_missing=sum(gaps),
                mean=statistics.fmean(values) if values else None,
                deviation=statistics.stdev(values) if len(values) > 1 else None,
                low=min(values, default=None),
                high=max(values, default=None),
            )
        )
    return found


def varies(one: Coverage) -> bool:
    """Whether the indicator's means differ by more than rounding."""
    if one.low is None or one.high is None:
        return False
    return one.high - one.low > 1e-9 * max(abs(one.low), abs(one.high))


def differences(studies: Sequence[Mapping[str, Any]]) -> list[str]:
    """What keeps the losses of these studies from being compared, in sentences; empty: nothing does.

    ``studies`` have ``name, evaluation_id, evaluation, settings`` (a dictionary).
    """
    said = []
    sets = {study["evaluation_id"]: str(study["evaluation"]) for study in studies}
    if len(sets) > 1:
        said.append(
            f"These studies were evaluated on different evaluation sets ({', '.join(sets.values())}), so their losses "
            "do not measure the same. Choose studies of one evaluation set."
        )
    fields: dict[str, list[str]] = {}
    for name in sorted({name for study in studies for name in study["settings"]} - set(OUTSIDE_SETTINGS)):
        values = list(dict.fromkeys(str(study["settings"].get(name)) for study in studies))
        if len(values) > 1:
            fields[name] = values
    if fields:
        listed = "; ".join(f"{name} {' / '.join(values)}" for name, values in fields.items())
        said.append(
            f"These studies were finetuned with different settings ({listed}), so not only the data make their losses "
            "differ. Choose studies of one setting."
        )
    return said
