"""What is doubtful about a plan, in words, before anything runs."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from core.studies.mixtures import shortfalls
from core.studies.plans import PlannedRun

FEW_RUNS_PER_REGRESSOR = 5
COLLINEAR = 0.95
BARELY = 0.02


def check_plan(
    runs: Sequence[PlannedRun],
    *,
    labels: Sequence[str] = (),
    means: np.ndarray | None = None,
    row_sd: Sequence[float | None] | None = None,
    n_without: Sequence[int] | None = None,
    evaluation_ids: Collection[int] = (),
    n_instructions: int | None = None,
    n_regressors: int | None = None,
) -> list[str]:
    """Warnings about a plan, each a sentence; empty where nothing is doubtful.

    Args:
        labels, means: names of the indicators, and their means float64 ``[runs, indicators]`` (NaN: none) of the runs
            that train.
        row_sd: standard deviation of each indicator over the rows. An indicator barely varies where the standard
            deviation of its means over the runs is under 0.02 of it: a slope fitted on these would rest on noise.
        n_without: of each indicator, members of the runs that have no value.
        evaluation_ids: examples of the evaluation set; none of them should be trained on.
        n_instructions: instructions of the evaluation set.
        n_regressors: how many indicators the fit shall have; by default all of ``labels``.
    """
    trained = [run for run in runs if run.example_ids]
    found = _about_runs(trained, n_regressors=len(labels) if n_regressors is None else n_regressors)
    found += _about_evaluation(trained, evaluation_ids, n_instructions)
    if means is not None and len(labels):
        found += _about_means(np.asarray(means, np.float64), labels, row_sd)
    if n_without is not None:
        found += [
            f"{n:,} rows of the runs have no value of {label}; the means are over the others."
            for label, n in zip(labels, n_without, strict=True)
            if n
        ]
    return found


def _about_runs(trained: Sequence[PlannedRun], *, n_regressors: int) -> list[str]:
    found = []
    # An intercept and one coefficient for each indicator must leave a degree of freedom.
    if n_regressors and len(trained) <= n_regressors + 1:
        found.append(
            f"{len(trained)} runs are too few to fit {n_regressors} indicators: plan more than {n_regressors + 1}, or "
            "fit fewer indicators."
        )
    elif n_regressors and len(trained) < FEW_RUNS_PER_REGRESSOR * n_regressors:
        found.append(
            f"{len(trained)} runs for {n_regressors} indicators are few: with under {FEW_RUNS_PER_REGRESSOR} runs for "
            "each, a fit finds relations that are not there. Fit fewer of them, or plan more runs."
        )
    for label, n in shortfalls(trained).items():
        found.append(
            f"The source {label} is smaller than its share in {n} of {len(trained)} mixtures: it gives all its rows "
            "there, and the other sources the rest."
        )
    sizes = {len(run.example_ids) for run in trained if run.role == "mixture"}
    if len(sizes) > 1:
        found.append(f"The mixtures have {min(sizes):,} to {max(sizes):,} rows, so size and content are confounded.")
    return found


def _about_evaluation(
    trained: Sequence[PlannedRun], evaluation_ids: Collection[int], n_instructions: int | None
) -> list[str]:
    found = []
    evaluated = set(evaluation_ids)
    if evaluated:
        shared = [len(evaluated.intersection(run.example_ids)) for run in trained]
        runs_with = sum(n > 0 for n in shared)
        if runs_with:
            found.append(
                f"{runs_with} of {len(trained)} runs train on rows of the evaluation set (up to {max(shared):,} of "
                f"{len(evaluated):,}): their evaluation loss comes out too low. Take these rows out of the sources."
            )
    if n_instructions == 1:
        found.append(
            "The evaluation set has one instruction: its loss says little about any other. Choose a larger one."
        )
    return found


def _about_means(means: np.ndarray, labels: Sequence[str], row_sd: Sequence[float | None] | None) -> list[str]:
    found = []
    varies = []
    for place, label in enumerate(labels):
        own = means[:, place][np.isfinite(means[:, place])]
        if len(own) < 2:
            varies.append(False)
            if len(means):
                found.append(f"{label} has no mean for {len(means) - len(own)} of {len(means)} runs; score it first.")
            continue
        sd = float(own.std(ddof=1))
        of_rows = None if row_sd is None else row_sd[place]
        varies.append(sd > 0)
        if sd == 0:
            found.append(f"{label} is the same in every run, so nothing can be fitted to it.")
        elif of_rows and sd < BARELY * of_rows:
            found.append(
                f"{label} barely varies: its means over the runs spread by {sd:.3g}, its rows by {of_rows:.3g}. Steer "
                "mixtures by it, or choose sources that differ more."
            )
    for i in range(len(labels)):
        for j in range(i + 1, len(labels)):
            both = np.isfinite(means[:, i]) & np.isfinite(means[:, j])
            if not (varies[i] and varies[j]) or both.sum() < 3:
                continue
            r = float(np.corrcoef(means[both, i], means[both, j])[0, 1])
            if abs(r) > COLLINEAR:
                found.append(
                    f"{labels[i]} and {labels[j]} move together over the runs (r = {r:.2f}): a fit cannot tell them "
                    "apart. Use one of the two."
                )
    return found
