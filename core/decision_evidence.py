"""What a model of decisions is worth on pairs that it was not trained on, and the threshold that follows (pure).

``Held`` are held-out decisions with the model's p(accept). A threshold is chosen on one part of them and its error
measured on the other, which neither training nor choosing saw.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LEAST_DECISIONS, LEAST_OF_A_CLASS = 40, 10
CHOICE_CONFIDENCE = 0.75
"""A threshold is chosen where the one-sided upper bound of the error, at this confidence, is within the target."""

_SKILL_P = 0.01
_N_BINS = 10


@dataclass(frozen=True)
class Held:
    """Held-out decisions: ``p`` float64 ``[n]`` (p(accept)), ``accepted`` bool ``[n]``."""

    p: np.ndarray
    accepted: np.ndarray

    def __len__(self) -> int:
        return len(self.p)

    def to_dict(self) -> dict[str, list[float] | list[int]]:
        """As JSON can hold it."""
        return {"p": self.p.tolist(), "accepted": self.accepted.astype(int).tolist()}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Held:
        """Read what :meth:`to_dict` gave."""
        return cls(np.asarray(found["p"], np.float64), np.asarray(found["accepted"], bool))

    def joined(self, other: Held) -> Held:
        """Both together."""
        return Held(np.concatenate([self.p, other.p]), np.concatenate([self.accepted, other.accepted]))


@dataclass(frozen=True)
class Share:
    """``n_of`` cases among ``n``, with the exact interval (Clopper & Pearson 1934); None where n is 0."""

    n_of: int
    n: int
    share: float | None
    low: float | None
    high: float | None


def share(n_of: int, n: int, *, confidence: float = 0.95) -> Share:
    """The share n_of / n with its two-sided exact interval.

    Deviation: it takes the cases for independent. Pairs of one original (its stages) are alike, so where most originals
    have several decided pairs the true interval is a little wider.
    """
    if n == 0:
        return Share(0, 0, None, None, None)
    from scipy.stats import beta

    tail = (1.0 - confidence) / 2
    low = 0.0 if n_of == 0 else float(beta.ppf(tail, n_of, n - n_of + 1))
    high = 1.0 if n_of == n else float(beta.ppf(1 - tail, n_of + 1, n - n_of))
    return Share(n_of, n, n_of / n, low, high)


def why_too_few(n_accepted: int, n_rejected: int) -> str | None:
    """Why a model would learn nothing of so few decisions; None: they are enough."""
    n = n_accepted + n_rejected
    if n < LEAST_DECISIONS:
        return f"{n:,} pairs are decided and {LEAST_DECISIONS} are needed: decide {LEAST_DECISIONS - n} more."
    for label, count in (("accepted", n_accepted), ("rejected", n_rejected)):
        if count < LEAST_OF_A_CLASS:
            return (
                f"Only {count} of the {n:,} decided pairs are {label}, and {LEAST_OF_A_CLASS} are needed to learn the "
                "difference."
            )
    return None


# --- how good it is ---


def auc(held: Held) -> float | None:
    """Area under the ROC curve: the chance that an accepted pair has the larger p (ties half); None for one class."""
    n_yes = int(np.count_nonzero(held.accepted))
    n_no = len(held) - n_yes
    if not n_yes or not n_no:
        return None
    _, inverse, counts = np.unique(held.p, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return float((ranks[held.accepted].sum() - n_yes * (n_yes + 1) / 2) / (n_yes * n_no))


def average_precision(held: Held) -> float | None:
    """Σ (recall step · precision) over the distinct values of p, from the largest; None where nothing was accepted."""
    n_yes = int(np.count_nonzero(held.accepted))
    if not n_yes:
        return None
    n_taken, n_right, _ = _by_threshold(held)
    steps = np.diff(np.concatenate([[0], n_right]))
    return float(np.sum(steps / n_yes * n_right / n_taken))


def chance_of_no_skill(held: Held) -> float | None:
    """One-sided p value of Mann & Whitney (1947): how often labels by chance would be ranked as well. By the normal
    approximation, with ties; None for one class."""
    found = auc(held)
    if found is None:
        return None
    n, n_yes = len(held), int(np.count_nonzero(held.accepted))
    n_no = n - n_yes
    _, counts = np.unique(held.p, return_counts=True)
    ties = float(np.sum(counts.astype(np.float64) ** 3 - counts)) / (n * (n - 1))
    variance = (n + 1 - ties) / (12 * n_yes * n_no)
    return 1.0 if variance <= 0 else 0.5 * math.erfc((found - 0.5) / math.sqrt(2 * variance))


def brier(p: np.ndarray, accepted: np.ndarray) -> float | None:
    """Mean squared difference of p and what was decided (Brier 1950); None for no decision."""
    return float(np.mean((p - accepted) ** 2)) if len(accepted) else None


def reliability(held: Held) -> list[dict[str, Any]]:
    """Of each tenth of p in which decisions lie: ``low, high, n, mean_p, accepted, from, to`` (exact 95 % interval)."""
    bins = np.minimum((held.p * _N_BINS).astype(int), _N_BINS - 1)
    found = []
    for i in range(_N_BINS):
        inside = bins == i
        n = int(np.count_nonzero(inside))
        if n:
            one = share(int(np.count_nonzero(held.accepted[inside])), n)
            found.append(
                {
                    "low": i / _N_BINS,
                    "high": (i + 1) / _N_BINS,
                    "n": n,
                    "mean_p": float(held.p[inside].mean()),
                    "accepted": one.share,
                    "from": one.low,
                    "to": one.high,
                }
            )
    return found


def curves(held: Held, *, most: int = 200) -> list[dict[str, float]]:
    """ROC and precision–recall at up to ``most`` thresholds, from the largest: ``threshold, recall, false_accepted,
    precision, n``. ``false_accepted`` is the share of the rejected pairs that would be accepted."""
    n_taken, n_right, thresholds = _by_threshold(held)
    n_yes = max(1, int(np.count_nonzero(held.accepted)))
    n_no = max(1, len(held) - int(np.count_nonzero(held.accepted)))
    kept = np.unique(np.linspace(0, len(thresholds) - 1, min(most, len(thresholds))).round().astype(int))
    return [
        {
            "threshold": float(thresholds[i]),
            "recall": float(n_right[i] / n_yes),
            "false_accepted": float((n_taken[i] - n_right[i]) / n_no),
            "precision": float(n_right[i] / n_taken[i]),
            "n": int(n_taken[i]),
        }
        for i in kept
    ]


def _by_threshold(held: Held) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each distinct p from the largest: how many lie at or above it, how many of these were accepted, and it."""
    order = np.argsort(-held.p, kind="stable")
    p = held.p[order]
    ends = np.flatnonzero(np.concatenate([p[1:] != p[:-1], [True]])) if len(p) else np.zeros(0, np.int64)
    return ends + 1, np.cumsum(held.accepted[order])[ends], p[ends]


def summary(held: Held, *, by_student: np.ndarray, train_rate: float) -> dict[str, Any]:
    """How good the model is on ``held``, beside two that need no model.

    ``base``: always p = ``train_rate`` (the part of the training decisions that were accepted); ``student``: accept
    what the student proposed to take (``by_student`` bool ``[n]``). Each with ``accuracy`` as a :class:`Share`'s
    fields; the model and the base rate with ``brier``.
    """

    def accuracy(said: np.ndarray) -> dict[str, Any]:
        return vars(share(int(np.count_nonzero(said == held.accepted)), len(held)))

    constant = np.full(len(held), train_rate)
    taken = held.accepted[by_student]
    return {
        "n": len(held),
        "n_accepted": int(np.count_nonzero(held.accepted)),
        "auc": auc(held),
        "average_precision": average_precision(held),
        "no_skill_p": chance_of_no_skill(held),
        "model": {"accuracy": accuracy(held.p >= 0.5), "brier": brier(held.p, held.accepted)},
        "base": {
            "rate": train_rate,
            "accuracy": accuracy(constant >= 0.5),
            "brier": brier(constant, held.accepted),
        },
        "student": {
            "accuracy": accuracy(by_student),
            "error_of_accepted": vars(share(int(np.count_nonzero(~taken)), len(taken))),
        },
        "reliability": reliability(held),
        "curves": curves(held),
    }


# --- the threshold ---


@dataclass(frozen=True)
class Proposal:
    """Accept without a person what has p ≥ ``threshold``; None with a ``problem`` where that cannot be advised.

    ``measured`` is the error (rejected by people) among the decisions of the measuring part at or above the threshold;
    ``chosen_on`` the same on the part where the threshold was chosen, which flatters. ``ok``: there is a threshold, and
    its measured error is within the target.
    """

    target_error: float
    threshold: float | None
    chosen_on: Share
    measured: Share
    problem: str | None = None

    @property
    def ok(self) -> bool:
        """Whether it may be carried out."""
        return self.threshold is not None and self.problem is None


def propose(choose: Held, measure: Held, *, target_error: float) -> Proposal:
    """The lowest threshold whose error on ``choose`` is within ``target_error``, with its error on ``measure``.

    "Within": the one-sided exact upper bound at ``CHOICE_CONFIDENCE`` is at most the target, which asks for a number
    of decisions without being told one (27 without an error for 5 %). Nothing is chosen where the model does not rank
    ``choose`` better than chance (Mann–Whitney, p < 0.01). The measured error has no part in the choice, so its
    interval is an honest one for this threshold; over many targets that one looks at, the luckiest flatters. So does
    ``ok``, which leaves out the proposals that came out high: in simulations with 100 to 300 decisions to measure on,
    the measured error had no bias over all proposals and was 1.5 to 3 points too low over the ok ones, while the
    interval held the true error in 98 % of both. Read its upper end.
    """
    none = share(0, 0)
    skill = chance_of_no_skill(choose)
    if skill is None or not len(measure):
        return Proposal(
            target_error, None, none, none,
            "The held-out decisions are too few: there must be accepted and rejected pairs among them.",
        )  # fmt: skip
    if skill >= _SKILL_P:
        found = auc(choose)
        return Proposal(
            target_error, None, none, none,
            f"On {len(choose):,} held-out decisions the model cannot tell accepted from rejected pairs (ROC area "
            f"{found:.2f}, where 0.50 is chance), so it proposes nothing.",
        )  # fmt: skip
    threshold = _threshold(choose, target_error)
    if threshold is None:
        return Proposal(
            target_error, None, none, none,
            f"At no threshold do {len(choose):,} held-out decisions show an error within {target_error:.1%}. Allow "
            "more error, or decide more pairs and train again.",
        )  # fmt: skip
    chosen_on, measured = _error_at(choose, threshold), _error_at(measure, threshold)
    problem = None
    if measured.share is None:
        problem = "No decision of the measuring part lies above this threshold, so its error was not measured."
    elif measured.share > target_error:
        problem = (
            f"The threshold was chosen for {target_error:.1%}, and other held-out decisions show {measured.share:.1%}: "
            "more than you allow. Allow more error, or decide more pairs and train again."
        )
    return Proposal(target_error, threshold, chosen_on, measured, problem)


def _threshold(held: Held, target_error: float) -> float | None:
    from scipy.stats import beta

    n_taken, n_right, thresholds = _by_threshold(held)
    n_wrong = n_taken - n_right
    upper = np.where(n_right > 0, beta.ppf(CHOICE_CONFIDENCE, n_wrong + 1, np.maximum(n_right, 1)), 1.0)
    within = np.flatnonzero(upper <= target_error)
    return float(thresholds[within[-1]]) if len(within) else None


def _error_at(held: Held, threshold: float) -> Share:
    taken = held.accepted[held.p >= threshold]
    return share(int(np.count_nonzero(~taken)), len(taken))


def strongest(names: Sequence[str], coefficients: np.ndarray, *, most: int = 20) -> list[dict[str, Any]]:
    """The readable inputs with the largest coefficients: ``name, coefficient`` (log odds a standard deviation).

    Components of an embedding mean nothing to a reader; they are one row, the root of their squares' sum (no sign).
    """
    readable = [(name, float(c)) for name, c in zip(names, coefficients, strict=True) if not _is_component(name)]
    components = [float(c) for name, c in zip(names, coefficients, strict=True) if _is_component(name)]
    found: list[dict[str, Any]] = [
        {"name": name, "coefficient": value, "signed": True}
        for name, value in sorted(readable, key=lambda one: -abs(one[1]))[:most]
    ]
    if components:
        found.append(
            {
                "name": f"embeddings ({len(components)} components together)",
                "coefficient": math.sqrt(sum(c * c for c in components)),
                "signed": False,
            }
        )
    return sorted(found, key=lambda one: -abs(one["coefficient"]))


def _is_component(name: str) -> bool:
    return name.startswith("embedding")
