"""A small model of what reviewers accept: logistic regression on numbers of a pair (pure; scikit-learn fits).

Every original example belongs to one of three parts for good (:func:`part_of`): the model is trained on the first,
a threshold is chosen on the second, and its error is measured on the third (core/decision_evidence.py).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from core.errors import InputError

TRAIN, CHOOSE, MEASURE = 0, 1, 2
PENALTIES = (0.001, 0.01, 0.1, 1.0, 10.0)
"""Inverse strengths C of the L2 penalty that cross-validation chooses among."""

MOST_COMPONENTS = 10
"""Of the candidate's embedding, of the original's, and of their difference: 30 numbers a pair."""

MOST_SD = 5.0
"""Inputs are cut at so many standard deviations: one perplexity of 10,000 must not decide alone."""

_MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def part_of(groups: np.ndarray) -> np.ndarray:
    """The part of each group (an original's id), int8: half are TRAIN, a quarter CHOOSE, a quarter MEASURE.

    A hash of the id (SplitMix64, Steele, Lea & Flood 2014) and no drawing: a group stays in its part in every training,
    so nobody can train again until the measured error pleases, and all pairs of one original lie together.
    """
    with np.errstate(over="ignore"):
        mixed = groups.astype(np.uint64) + _MIX[0]
        mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX[1]
        mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX[2]
        quarter = (mixed ^ (mixed >> np.uint64(31))) % np.uint64(4)
    return np.array([TRAIN, TRAIN, CHOOSE, MEASURE], np.int8)[quarter.astype(np.int64)]


# --- embeddings ---

_BLOCKS = ("embedding of the candidate", "embedding of the original", "embedding, candidate − original")


@dataclass(frozen=True)
class Basis:
    """Principal directions of the candidates' vectors, of the originals', and of their differences, in this order.

    ``means`` float32 ``[d]`` and ``directions`` ``[≤ MOST_COMPONENTS, d]`` (orthonormal rows; none where fewer than
    three rows have what the block is of) of each of the three blocks.
    """

    means: tuple[np.ndarray, np.ndarray, np.ndarray]
    directions: tuple[np.ndarray, np.ndarray, np.ndarray]

    @property
    def names(self) -> list[str]:
        """Names of the columns that :meth:`place` gives."""
        return [
            f"{block}, component {i + 1}"
            for block, directions in zip(_BLOCKS, self.directions, strict=True)
            for i in range(len(directions))
        ]

    def project(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors ``[m, d]`` along all directions, float32 ``[m, c]``; of a pair both sides make :meth:`place`."""
        stacked: np.ndarray = vectors @ np.concatenate(self.directions).T
        return stacked

    def place(self, candidates: np.ndarray, originals: np.ndarray) -> np.ndarray:
        """The columns of pairs from what :meth:`project` gave of both sides ``[m, c]``; NaN where a side is needed
        that is NaN."""
        first, second = np.cumsum([len(one) for one in self.directions])[:2]
        offsets = [directions @ mean for mean, directions in zip(self.means, self.directions, strict=True)]
        own, other = candidates[:, :first] - offsets[0], originals[:, first:second] - offsets[1]
        difference = candidates[:, second:] - originals[:, second:] - offsets[2]
        return np.concatenate([own, other, difference], axis=1)


def basis_of(candidates: np.ndarray, originals: np.ndarray) -> Basis | None:
    """Principal components of paired vectors ``[m, d]`` (NaN: there is none); None where no block has three rows."""
    found = [_block(vectors) for vectors in (candidates, originals, candidates - originals)]
    if not any(len(directions) for _, directions in found):
        return None
    means, blocks = zip(*found, strict=True)
    return Basis(means, blocks)


def _block(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    there = vectors[np.isfinite(vectors).all(axis=1)]
    if len(there) < 3:
        width = vectors.shape[1]
        return np.zeros(width, np.float32), np.zeros((0, width), np.float32)
    return there.mean(axis=0), _directions(there)


def _directions(vectors: np.ndarray) -> np.ndarray:
    centred = np.asarray(vectors, np.float64) - vectors.mean(axis=0, dtype=np.float64)
    values, columns = np.linalg.eigh(centred.T @ centred)
    kept = [i for i in range(len(values) - 1, -1, -1) if values[i] > 1e-9 * values[-1]][:MOST_COMPONENTS]
    return np.ascontiguousarray(columns[:, kept].T, np.float32)


# --- the model ---


@dataclass(frozen=True)
class DecisionModel:
    """p(accept) = 1 / (1 + exp(−(intercept + Σ coefficient · input))), inputs standardised.

    ``names`` of the inputs ``[m]``, in standard deviations of the training rows, cut at ``MOST_SD``: ``columns``
    ``[k]`` of the numbers, then "… is missing" of ``missing`` ``[m − k]``. A missing number counts as ``medians``
    ``[k]``. ``penalty`` is C as cross-validation chose it, ``log_loss`` its loss there in nats.
    """

    names: tuple[str, ...]
    columns: np.ndarray
    missing: np.ndarray
    medians: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    coefficients: np.ndarray
    intercept: float
    penalty: float
    log_loss: float
    n: int

    def predict(self, numbers: np.ndarray) -> np.ndarray:
        """p(accept) of rows ``[m, all columns]`` (NaN: no value), float64 ``[m]`` to six digits, as it is stored."""
        inputs = _standardised(_inputs(numbers, self.columns, self.missing, self.medians), self.mean, self.scale)
        with np.errstate(over="ignore"):
            p: np.ndarray = 1.0 / (1.0 + np.exp(-(inputs @ self.coefficients + self.intercept)))
        return p.round(6)


def fit(
    numbers: np.ndarray, labels: np.ndarray, groups: np.ndarray, *, names: Sequence[str], seed: int = 0
) -> DecisionModel:
    """Fit on rows ``numbers`` ``[n, k]`` (NaN: no value) with ``labels`` bool ``[n]`` (accepted).

    The penalty is chosen by cross-validation (up to five folds, stratified, no group in two of them), the strongest
    within one standard error of the best (Breiman et al. 1984): of few decisions little can be learnt.

    Raises:
        InputError: both labels do not occur in two groups each, or no column differs between rows.
    """
    n_folds = min(5, *(len(np.unique(groups[labels == label])) for label in (True, False)))
    if n_folds < 2:
        raise InputError("The model needs accepted and rejected pairs of at least two originals each to learn from.")
    columns, missing, medians = _kept(numbers)
    inputs = _inputs(numbers, columns, missing, medians)
    mean, scale = inputs.mean(axis=0), inputs.std(axis=0)
    varies = scale > 1e-9 * np.maximum(1.0, np.abs(mean))
    if not varies.any():
        raise InputError("All decided pairs have the same numbers, so nothing tells them apart. Score them first.")
    # Only a number can fail to vary: a pattern of missing values that is everywhere or nowhere was not kept.
    columns, medians = columns[varies[: len(columns)]], medians[varies[: len(columns)]]
    mean, scale = mean[varies], scale[varies]
    inputs = _standardised(inputs[:, varies], mean, scale)
    penalty, log_loss = _penalty(inputs, labels, groups, n_folds=n_folds, seed=seed)
    fitted = _regression(penalty, inputs, labels)
    own = [names[i] for i in columns]
    return DecisionModel(
        names=(*own, *(f"{names[i]} is missing" for i in missing)),
        columns=columns,
        missing=missing,
        medians=medians,
        mean=mean,
        scale=scale,
        coefficients=fitted[0],
        intercept=fitted[1],
        penalty=penalty,
        log_loss=log_loss,
        n=len(labels),
    )


def _kept(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns with a value, one column of each pattern of missing values, and the medians of the former."""
    there = np.isfinite(numbers)
    columns = np.flatnonzero(there.any(axis=0))
    patterns: dict[bytes, int] = {}
    for i in columns[~there[:, columns].all(axis=0)]:
        patterns.setdefault(there[:, i].tobytes(), int(i))
    missing = np.array(sorted(patterns.values()), np.int64)
    medians = np.array([np.median(numbers[there[:, i], i]) for i in columns], np.float64)
    return columns, missing, medians


def _inputs(numbers: np.ndarray, columns: np.ndarray, missing: np.ndarray, medians: np.ndarray) -> np.ndarray:
    own = np.asarray(numbers[:, columns], np.float64)
    filled = np.where(np.isfinite(own), own, medians)
    return np.concatenate([filled, ~np.isfinite(numbers[:, missing])], axis=1)


def _standardised(inputs: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    standard: np.ndarray = np.clip((inputs - mean) / scale, -MOST_SD, MOST_SD)
    return standard


def _regression(penalty: float, inputs: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, float]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        # The penalty makes the loss strictly convex: where it stops early it is near enough for a choice of penalty.
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = LogisticRegression(C=penalty, max_iter=300).fit(inputs, labels)
    return fitted.coef_[0], float(fitted.intercept_[0])


def _penalty(
    inputs: np.ndarray, labels: np.ndarray, groups: np.ndarray, *, n_folds: int, seed: int
) -> tuple[float, float]:
    from sklearn.model_selection import StratifiedGroupKFold

    splitter = StratifiedGroupKFold(n_splits=n_folds, shuffle=True, random_state=seed)
    losses: list[list[float]] = [[] for _ in PENALTIES]
    for learnt, left_out in splitter.split(inputs, labels, groups):
        if len(np.unique(labels[learnt])) < 2:
            continue  # a fold took all of one label
        for own, penalty in zip(losses, PENALTIES, strict=True):
            coefficients, intercept = _regression(penalty, inputs[learnt], labels[learnt])
            score = inputs[left_out] @ coefficients + intercept
            own.append(float(np.mean(np.logaddexp(0.0, np.where(labels[left_out], -score, score)))))
    if not losses[0]:
        raise InputError("The model needs accepted and rejected pairs of more originals to learn from.")
    means = [float(np.mean(own)) for own in losses]
    best = int(np.argmin(means))
    allowed = means[best] + float(np.std(losses[best])) / len(losses[best]) ** 0.5
    chosen = next(i for i, mean in enumerate(means) if mean <= allowed)
    return PENALTIES[chosen], means[chosen]
