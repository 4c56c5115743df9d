"""How far reviewers agree: with each other, by kind of task, with adjudication, gold and themselves (pure).

Each reviewer has one verdict at most on a pair: the latest that stands. Agreement is that of verdicts; two edits count
as the same verdict whatever was written.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from core.agreement import Kappa, kappa_of_counts
from core.krippendorff import Alpha, coincidences, krippendorff_alpha

VERDICTS = ("accept", "edit", "new_instruction", "new_response", "reject")
CODINGS: Mapping[str, tuple[str, ...]] = {"verdicts": VERDICTS, "accept or reject": ("accept", "reject")}
"""Two ways to compare: all five verdicts, or whether the pair gave anything at all."""
RESAMPLES = 1000
MOST_GROUPS = 60


@dataclass(frozen=True)
class Votes:
    """Verdicts of reviewers on pairs, one row each: ``pair_ids`` int64, ``reviewers`` and ``verdicts`` int codes.

    Reviewers are places in ``names``; verdicts are places in ``VERDICTS``.
    """

    pair_ids: np.ndarray
    reviewers: np.ndarray
    verdicts: np.ndarray
    names: tuple[str, ...]


@dataclass(frozen=True)
class Matches:
    """``n_same`` of ``n`` verdicts are the expected ones; ``share`` with its 95 % interval (Wilson 1927)."""

    n: int
    n_same: int
    share: float | None
    low: float | None
    high: float | None
    reason: str | None = None


@dataclass(frozen=True)
class ReviewerAgreement:
    """One reviewer. ``n_decisions`` pairs decided, ``n_shared`` of them by others too.

    ``rest``         kappa with what most of the others said; ``n_tied`` shared pairs have no such verdict
    ``adjudicated``  kappa with the adjudicated verdicts; ``upheld`` how many of them were this reviewer's
    ``gold``         verdicts on gold pairs that are the expected ones
    ``again``        verdicts of the blind second look that are those of the first; ``again_kappa`` their kappa
    """

    identity: str
    n_decisions: int
    n_shared: int
    n_tied: int
    rest: Kappa
    adjudicated: Kappa
    upheld: Matches
    gold: Matches
    again: Matches
    again_kappa: Kappa


@dataclass(frozen=True)
class GroupAgreement:
    """Pairs of one kind of task: ``n_pairs`` decided by two or more, ``n_unanimous`` of them with one verdict."""

    name: str
    n_pairs: int
    n_unanimous: int
    alpha: Alpha


@dataclass(frozen=True)
class Disputed:
    """A pair on which reviewers disagree: ``said`` is (reviewer, verdict) in the order of the names."""

    pair_id: int
    share_agreeing: float
    said: tuple[tuple[str, str], ...]
    adjudicated: str | None


@dataclass(frozen=True)
class Agreement:
    """All of it. ``n_pairs`` were decided by somebody, ``n_shared`` by two or more, ``n_unanimous`` with one verdict.

    ``n_adjudicated`` of the disputed ones were adjudicated, ``n_open`` were not. ``pairwise`` has every two reviewers
    who share a pair, ``confusion[a, b]`` how often their verdicts met (a in the rows). ``met`` are the coincidences of
    verdicts within pairs, ``[categories, categories]``.
    """

    coding: str
    categories: tuple[str, ...]
    by: str
    n_decisions: int
    n_pairs: int
    n_shared: int
    n_unanimous: int
    n_adjudicated: int
    n_open: int
    alpha: Alpha
    reviewers: tuple[ReviewerAgreement, ...]
    pairwise: Mapping[tuple[str, str], Kappa]
    confusion: Mapping[tuple[str, str], np.ndarray]
    met: np.ndarray
    groups: tuple[GroupAgreement, ...]
    disputed: tuple[Disputed, ...]

    @property
    def share_unanimous(self) -> float | None:
        """Of the pairs that two or more decided."""
        return self.n_unanimous / self.n_shared if self.n_shared else None

    @property
    def share_settled(self) -> float | None:
        """Of the same pairs, those with one verdict after adjudication."""
        return (self.n_unanimous + self.n_adjudicated) / self.n_shared if self.n_shared else None


def matches(n_same: int, n: int, *, reason: str) -> Matches:
    """A share with its Wilson interval; None with ``reason`` where ``n`` is 0."""
    if not n:
        return Matches(0, 0, None, None, None, reason)
    z = 1.959964
    p = n_same / n
    centre, spread = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return Matches(n, n_same, p, max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale))


def coded(verdicts: np.ndarray, coding: str) -> np.ndarray:
    """Places in ``VERDICTS`` as places in ``CODINGS[coding]``; -1 (no verdict) stays.

    Raises:
        ValueError: there is no such coding.
    """
    if coding not in CODINGS:
        raise ValueError(f"no such coding: {coding!r}")
    if coding == "verdicts":
        return verdicts
    taken: np.ndarray = np.where(verdicts < 0, -1, (verdicts == VERDICTS.index("reject")).astype(verdicts.dtype))
    return taken


def review_agreement(
    votes: Votes,
    *,
    coding: str = "verdicts",
    by: str = "all",
    groups: Mapping[int, str] | None = None,
    adjudicated: Mapping[int, str] | None = None,
    gold: Mapping[int, str] | None = None,
    again: Sequence[tuple[str, str, str]] = (),
    most_disputed: int = 200,
    resamples: int = RESAMPLES,
) -> Agreement:
    """Compute every figure of agreement from the votes.

    Args:
        groups: kind of task by pair; without it there is one group of all.
        adjudicated, gold: the adjudicated or expected verdict by pair.
        again: (reviewer, verdict of the first look, verdict of the second) of each blind second look.
    """
    categories = CODINGS[coding]
    pair_ids, at_pair = np.unique(votes.pair_ids, return_inverse=True)
    matrix = np.full((len(pair_ids), len(votes.names)), -1, np.int8)
    matrix[at_pair, votes.reviewers] = coded(votes.verdicts, coding)
    counts = np.stack([(matrix == k).sum(1) for k in range(len(categories))], axis=1)
    shared = counts.sum(1) > 1
    unanimous = shared & (counts.max(1, initial=0) == counts.sum(1))
    decided = _places(adjudicated or {}, pair_ids, coding)
    expected = _places(gold or {}, pair_ids, coding)
    disputed = shared & ~unanimous
    pairwise, confusion = _pairwise(matrix[shared], votes.names, categories, resamples)
    return Agreement(
        coding=coding,
        categories=categories,
        by=by,
        n_decisions=len(votes.pair_ids),
        n_pairs=len(pair_ids),
        n_shared=int(shared.sum()),
        n_unanimous=int(unanimous.sum()),
        n_adjudicated=int((disputed & (decided >= 0)).sum()),
        n_open=int((disputed & (decided < 0)).sum()),
        alpha=krippendorff_alpha(counts, resamples=resamples),
        reviewers=tuple(
            _reviewer(name, matrix[:, i], counts, decided, expected, again, coding, resamples)
            for i, name in enumerate(votes.names)
        ),
        pairwise=pairwise,
        confusion=confusion,
        met=coincidences(counts) if shared.any() else np.zeros((len(categories), len(categories))),
        groups=_groups(pair_ids, counts, groups, resamples),
        disputed=_disputed(pair_ids, matrix, counts, disputed, decided, votes.names, categories, most_disputed),
    )


def _places(verdicts: Mapping[int, str], pair_ids: np.ndarray, coding: str) -> np.ndarray:
    """The place of each pair's verdict, -1 where it has none."""
    found = np.full(len(pair_ids), -1, np.int8)
    for place, pair_id in _found_in(verdicts, pair_ids):
        found[place] = VERDICTS.index(verdicts[pair_id])
    return coded(found, coding)


def _found_in(keys: Iterable[int], pair_ids: np.ndarray) -> list[tuple[int, int]]:
    """(place in the rising ``pair_ids``, key) of the keys that are among them."""
    wanted = np.fromiter(keys, np.int64)
    places = np.searchsorted(pair_ids, wanted)
    there = places < len(pair_ids)
    there[there] = pair_ids[places[there]] == wanted[there]
    return list(zip(places[there].tolist(), wanted[there].tolist(), strict=True))


def _met(a: np.ndarray, b: np.ndarray, k: int) -> np.ndarray:
    both = (a >= 0) & (b >= 0)
    return np.bincount(a[both].astype(int) * k + b[both], minlength=k * k).reshape(k, k)


def _pairwise(
    matrix: np.ndarray, names: Sequence[str], categories: Sequence[str], resamples: int
) -> tuple[dict[tuple[str, str], Kappa], dict[tuple[str, str], np.ndarray]]:
    kappas, tables = {}, {}
    for i, one in enumerate(names):
        own = matrix[matrix[:, i] >= 0]
        for j in np.flatnonzero((own >= 0).any(0)).tolist() if len(own) else ():
            if j > i:
                table = _met(own[:, i], own[:, j], len(categories))
                kappas[one, names[j]] = kappa_of_counts(table, categories, resamples=resamples)
                tables[one, names[j]] = table
    return kappas, tables


def _reviewer(
    name: str,
    own: np.ndarray,
    counts: np.ndarray,
    decided: np.ndarray,
    expected: np.ndarray,
    again: Sequence[tuple[str, str, str]],
    coding: str,
    resamples: int,
) -> ReviewerAgreement:
    categories = CODINGS[coding]
    k = len(categories)
    mine = own >= 0
    others = counts[mine].copy()
    others[np.arange(len(others)), own[mine]] -= 1
    shared = others.sum(1) > 0
    top = others.max(1, initial=0)
    clear = shared & ((others == top[:, None]).sum(1) == 1)
    rest = _met(own[mine][clear], others[clear].argmax(1) if clear.any() else np.zeros(0, int), k)
    with_decided, with_gold = _met(own, decided, k), _met(own, expected, k)
    looks = [(first, second) for who, first, second in again if who == name]
    twice = np.array([[VERDICTS.index(one) for one in look] for look in looks], np.int8).reshape(-1, 2)
    repeated = _met(coded(twice[:, 0], coding), coded(twice[:, 1], coding), k)
    return ReviewerAgreement(
        identity=name,
        n_decisions=int(mine.sum()),
        n_shared=int(shared.sum()),
        n_tied=int((shared & ~clear).sum()),
        rest=kappa_of_counts(rest, categories, resamples=resamples),
        adjudicated=kappa_of_counts(with_decided, categories, resamples=resamples),
        upheld=_on_diagonal(with_decided, "None of this reviewer's pairs was adjudicated."),
        gold=_on_diagonal(with_gold, "This reviewer decided no gold pair."),
        again=_on_diagonal(repeated, "No second look yet."),
        again_kappa=kappa_of_counts(repeated, categories, resamples=resamples),
    )


def _on_diagonal(table: np.ndarray, reason: str) -> Matches:
    return matches(int(np.trace(table)), int(table.sum()), reason=reason)


def _groups(
    pair_ids: np.ndarray, counts: np.ndarray, groups: Mapping[int, str] | None, resamples: int
) -> tuple[GroupAgreement, ...]:
    """The groups with pairs that two or more decided, the largest first."""
    if groups is None:
        return ()
    names = np.full(len(pair_ids), "", object)
    for place, pair_id in _found_in(groups, pair_ids):
        names[place] = groups[pair_id]
    found = []
    shared = counts.sum(1) > 1
    for name in sorted(set(names[shared].tolist())):
        own = counts[shared & (names == name)]
        same = int((own.max(1) == own.sum(1)).sum())
        found.append(GroupAgreement(name, len(own), same, krippendorff_alpha(own, resamples=resamples)))
    return tuple(sorted(found, key=lambda one: (-one.n_pairs, one.name))[:MOST_GROUPS])


def _disputed(
    pair_ids: np.ndarray,
    matrix: np.ndarray,
    counts: np.ndarray,
    disputed: np.ndarray,
    decided: np.ndarray,
    names: Sequence[str],
    categories: Sequence[str],
    most: int,
) -> tuple[Disputed, ...]:
    """Open ones first, then those where the fewest of the two-by-two comparisons agree."""
    places = np.flatnonzero(disputed)
    sizes = counts[places].sum(1)
    agreeing = (counts[places] * (counts[places] - 1)).sum(1) / (sizes * (sizes - 1))
    order = np.lexsort((pair_ids[places], -sizes, agreeing, decided[places] >= 0))[:most]
    found = []
    for place, share in zip(places[order], agreeing[order], strict=True):
        row = matrix[place]
        said = tuple((names[j], categories[row[j]]) for j in np.flatnonzero(row >= 0).tolist())
        settled = categories[decided[place]] if decided[place] >= 0 else None
        found.append(Disputed(int(pair_ids[place]), float(share), said, settled))
    return tuple(found)


def strength(value: float) -> str:
    """What a kappa or alpha is called (Landis and Koch 1977). A convention, not a test."""
    names = ((0.8, "almost perfect"), (0.6, "substantial"), (0.4, "moderate"), (0.2, "fair"), (0.0, "slight"))
    return next((name for least, name in names if value > least), "no better than chance")


def said(found: Agreement) -> str:
    """The figures in plain sentences, with n; what cannot be computed is said with its reason."""
    if not found.n_pairs:
        return "Nobody has decided a pair here yet."
    if not found.n_shared:
        return (
            f"{len(found.reviewers):,} reviewer(s) decided {found.n_pairs:,} pairs, and no pair was decided by two of "
            "them, so there is no agreement to measure."
        )
    words = (
        f"{found.n_shared:,} of {found.n_pairs:,} decided pairs were decided by two people or more; on "
        f"{found.n_unanimous:,} of them ({found.share_unanimous:.0%}) all said the same."
    )
    alpha = found.alpha
    if alpha.value is None:
        words += f" Krippendorff's α cannot be computed: {alpha.reason}"
    else:
        words += f" Krippendorff's α is {number(alpha.value)}{between(alpha.low, alpha.high)}: {strength(alpha.value)}."
    n_disputed = found.n_adjudicated + found.n_open
    if n_disputed:
        words += (
            f" Of {n_disputed:,} disputed pairs {found.n_adjudicated:,} were adjudicated, {found.n_open:,} are open."
        )
    return words


def number(value: float | None) -> str:
    """Two digits with a real minus; a dash for None."""
    return "—" if value is None else f"{round(value, 2) or 0.0:.2f}".replace("-", "−")


def between(low: float | None, high: float | None) -> str:
    """ " (95 % interval 0.41 to 0.78)", or nothing."""
    return "" if low is None or high is None else f" (95 % interval {number(low)} to {number(high)})"
