"""Rule against random: is the selected subset's evaluation loss lower than that of random subsets of its size?

Two questions, kept apart. Would other random subsets do as well? That is the permutation test over *subsets*, and what
the verdict follows. Is the difference of these very students real over evaluation instructions like these? That is the
sign-flip test over *instructions*: more powerful, but it says nothing of redrawing the subsets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import ceil, comb, sqrt

import numpy as np

from core.errors import InputError

LEVEL = 0.05
MOST_EXACT = 50_000
DRAWS = 20_000
RESAMPLES = 4_000
_EXACT_FLIPS = 14
_AT_ONCE = 2_000_000
_EQUAL = 1e-12  # differences that are equal but for rounding count as equal, which can only raise p


@dataclass(frozen=True)
class SubsetTest:
    """The selected runs against random ones by relabelling them; a negative ``difference_nats`` is in their favour.

    ``p_lower``: share of the relabellings with a difference as low or lower; ``p_higher``: as high or higher;
    ``p_two``: as far from 0 or farther. ``smallest_p`` is the least that ``p_lower`` could have been. ``exact``: all
    relabellings were counted, none drawn.
    """

    n_selected: int
    n_random: int
    difference_nats: float
    p_lower: float
    p_higher: float
    p_two: float
    smallest_p: float
    n_relabellings: int
    exact: bool


def permutation_test(
    selected: Sequence[float], random: Sequence[float], *, most_exact: int = MOST_EXACT, draws: int = DRAWS,
    seed: int = 0,
) -> SubsetTest:  # fmt: skip
    """Permutation test (Fisher, Pitman) of the difference of mean losses, selected − random.

    All ``comb(a + r, a)`` relabellings are counted where they are at most ``most_exact``; otherwise ``draws`` random
    ones, and p = (1 + as extreme) / (1 + draws) (Phipson & Smyth 2010), which is never 0. Every run is taken as a
    draw of its own: repeats of one subset are not, so average them first, as :func:`compare` does.

    Args:
        selected: ``[a]`` evaluation losses in nats.
        random: ``[r]`` evaluation losses in nats.

    Raises:
        InputError: one of the two is empty, or a loss is not a finite number.
    """
    one, other = _losses(selected, "selected"), _losses(random, "random")
    a, r = len(one), len(other)
    pooled = np.concatenate([one, other])
    total = comb(a + r, a)
    observed = float(one.mean() - other.mean())
    exact = total <= most_exact
    if exact:
        chosen = np.array(list(combinations(range(a + r), a)), np.intp)
    else:
        rng = np.random.default_rng(seed)
        chosen = np.array([rng.permutation(a + r)[:a] for _ in range(draws)], np.intp)
    sums = pooled[chosen].sum(axis=1)
    differences = sums / a - (pooled.sum() - sums) / r
    lower, higher, two = _tails(differences, observed, scale=float(np.abs(pooled).max()), counted=exact)
    n = len(chosen)
    return SubsetTest(a, r, observed, lower, higher, two, 1 / (total if exact else n + 1), n, exact)


@dataclass(frozen=True)
class InstructionTest:
    """Selected − mean of random over evaluation instructions, with a bootstrap interval and sign-flip p values.

    ``n_left_out``: instructions without a loss in some run. ``exact``: all signs were counted, not drawn.
    """

    n_instructions: int
    n_left_out: int
    difference_nats: float
    low_nats: float | None
    high_nats: float | None
    p_lower: float
    p_higher: float
    p_two: float
    share_lower: float
    exact: bool


def paired_test(
    differences: Sequence[float], *, weights: Sequence[float] | None = None, n_left_out: int = 0,
    level: float = 1 - LEVEL, draws: int = DRAWS, seed: int = 0,
) -> InstructionTest:  # fmt: skip
    """Sign-flip permutation test of a weighted mean difference, and its percentile bootstrap interval.

    Where both trainings are alike, each instruction's difference is as likely to be of the other sign. All signs are
    counted for up to 14 instructions, else ``draws`` of them, as in :func:`permutation_test`. The interval resamples
    instructions (Efron 1979), not outputs: references of one instruction go together.

    Args:
        differences: ``[n]`` nats, one an instruction; the mean over its outputs.
        weights: ``[n]`` outputs of each instruction, so that the mean is that of the losses; 1 each by default.

    Raises:
        InputError: there is no difference, or one is not finite.
    """
    values = _losses(differences, "paired")
    weight = np.ones(len(values)) if weights is None else np.asarray(weights, np.float64)
    if weight.shape != values.shape or not (weight > 0).all():
        raise InputError("Every difference needs one positive weight.")
    parts = values * weight / weight.sum()
    observed = float(parts.sum())
    n = len(values)
    rng = np.random.default_rng(seed)
    exact = n <= _EXACT_FLIPS
    if exact:
        signs = 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        flipped = signs @ parts
    else:
        at_once = max(1, _AT_ONCE // n)
        flipped = np.concatenate([
            (1.0 - 2.0 * rng.integers(0, 2, (min(at_once, draws - start), n), np.int8)) @ parts
            for start in range(0, draws, at_once)
        ])  # fmt: skip
    lower, higher, two = _tails(flipped, observed, scale=float(np.abs(values).max()), counted=exact)
    low, high = _bootstrap(values, weight, level=level, rng=rng)
    share = float((weight * (values < 0)).sum() / weight.sum())
    return InstructionTest(n, n_left_out, observed, low, high, lower, higher, two, share, exact)


@dataclass(frozen=True)
class Comparison:
    """What is known of selected against random. ``verdict``: better, no difference shown, or worse; None: no verdict
    yet. ``random_low_nats`` and ``random_high_nats``: where one further random subset is expected (95 %)."""

    verdict: str | None
    words: str
    subsets: SubsetTest | None
    instructions: InstructionTest | None
    instruction_words: str
    selected_nats: float | None
    random_nats: float | None
    random_low_nats: float | None
    random_high_nats: float | None
    selected_spread_nats: float | None


BETTER, NO_DIFFERENCE, WORSE = "better", "no difference shown", "worse"


def compare(
    selected: Sequence[float],
    random: Sequence[float],
    *,
    selected_outputs: Sequence[Mapping[int, float | None]] = (),
    random_outputs: Sequence[Mapping[int, float | None]] = (),
    instruction_of: Mapping[int, object] | None = None,
    seed: int = 0,
) -> Comparison:
    """Compare the selected subset's runs (repeats with other seeds) with runs of random subsets of the same size.

    Repeats of the selected subset share their rows, so they are no independent draws: their mean enters the test over
    subsets as *one* run. That mean scatters less than a single run, which makes the test cautious rather than bold.

    Args:
        selected: losses in nats of the finished runs of the selected subset; may be empty.
        random: losses in nats of the finished random runs; may be empty.
        selected_outputs: for each selected run its losses by evaluation output (example id); None: no loss.
        random_outputs: the same for the random runs.
        instruction_of: example id -> its instruction (anything hashable); without it each output stands alone.
    """
    selected, random = [float(loss) for loss in selected], [float(loss) for loss in random]
    if not selected or not random:
        missing = "selected" if not selected else "random"
        words = f"No verdict yet: no {missing} run has finished."
        return Comparison(None, words, None, None, "", *_summary(selected, random))
    subsets = permutation_test([float(np.mean(selected))], random, seed=seed)
    instructions = None
    if selected_outputs and random_outputs:
        differences, weights, n_left_out = by_instruction(selected_outputs, random_outputs, instruction_of)
        if differences:
            instructions = paired_test(differences, weights=weights, n_left_out=n_left_out, seed=seed)
    verdict = BETTER if subsets.p_lower <= LEVEL else WORSE if subsets.p_higher <= LEVEL else NO_DIFFERENCE
    said = _instruction_words(instructions) if instructions is not None else ""
    return Comparison(
        verdict, _words(subsets, verdict), subsets, instructions, said, *_summary(selected, random)
    )  # fmt: skip


def by_instruction(
    selected: Sequence[Mapping[int, float | None]],
    random: Sequence[Mapping[int, float | None]],
    instruction_of: Mapping[int, object] | None = None,
) -> tuple[list[float], list[float], int]:
    """Mean difference of each instruction (mean of selected − mean of random), its outputs, and how many are left out.

    An output counts where every run has a loss of it; an instruction without such an output is left out.
    """
    runs = [*selected, *random]
    outputs = list(dict.fromkeys(output for run in runs for output in run))
    gathered: dict[object, list[float]] = {}
    for output in outputs:
        owner = output if instruction_of is None else instruction_of.get(output, output)
        found = gathered.setdefault(owner, [])
        mine = _all_of([run.get(output) for run in selected])
        theirs = _all_of([run.get(output) for run in random])
        if mine is not None and theirs is not None:
            found.append(float(np.mean(mine) - np.mean(theirs)))
    there = [found for found in gathered.values() if found]
    return [float(np.mean(f)) for f in there], [float(len(f)) for f in there], len(gathered) - len(there)


def random_needed(level: float = LEVEL) -> int:
    """Random subsets that one selected subset needs so that p can reach ``level`` at all: 19 for 0.05."""
    return ceil(1 / level - 1e-9) - 1


def smallest_p_words(n_random: int) -> str:
    """What the number of random subsets allows, in a sentence."""
    reach = f"With {n_random:,} random {_subsets(n_random)} the smallest one-sided p is 1/{n_random + 1}"
    if 1 / (n_random + 1) <= LEVEL + 1e-12:
        return f"{reach} ({1 / (n_random + 1):.3f})."
    return (
        f"{reach} ({1 / (n_random + 1):.3f}), so this test cannot reach {LEVEL:g}: "
        f"that takes at least {random_needed()} random subsets."
    )


def _all_of(values: Sequence[float | None]) -> list[float] | None:
    found = [value for value in values if value is not None and np.isfinite(value)]
    return found if found and len(found) == len(values) else None


def _summary(
    selected: Sequence[float], random: Sequence[float]
) -> tuple[float | None, float | None, float | None, float | None, float | None]:
    """Mean of selected, mean of random, the interval of a further random subset, and the spread of the repeats."""
    low = high = None
    if len(random) > 1:
        from scipy import stats

        r, mean = len(random), float(np.mean(random))
        reach = float(stats.t.ppf(1 - LEVEL / 2, r - 1)) * float(np.std(random, ddof=1)) * sqrt(1 + 1 / r)
        low, high = mean - reach, mean + reach
    return (
        float(np.mean(selected)) if selected else None,
        float(np.mean(random)) if random else None,
        low,
        high,
        float(np.std(selected, ddof=1)) if len(selected) > 1 else None,
    )


def _losses(values: Sequence[float], what: str) -> np.ndarray:
    found = np.asarray(list(values), np.float64)
    if not len(found):
        raise InputError(f"There is no {what} loss, so there is nothing to compare. Wait for a run to finish.")
    if not np.isfinite(found).all():
        raise InputError(f"A {what} loss is not a finite number. Leave diverged and failed runs out of the comparison.")
    return found


def _tails(values: np.ndarray, observed: float, *, scale: float, counted: bool) -> tuple[float, float, float]:
    """p of lower, of higher and of both; ``counted``: ``values`` are all there are, the observed one among them."""
    near = _EQUAL * max(scale, abs(observed))
    found = (
        int((values <= observed + near).sum()),
        int((values >= observed - near).sum()),
        int((np.abs(values) >= abs(observed) - near).sum()),
    )
    n = len(values)
    lower, higher, two = (hits / n if counted else (hits + 1) / (n + 1) for hits in found)
    return lower, higher, two


def _bootstrap(
    values: np.ndarray, weights: np.ndarray, *, level: float, rng: np.random.Generator
) -> tuple[float | None, float | None]:
    n = len(values)
    if n < 2:
        return None, None
    at_once = max(1, _AT_ONCE // n)
    means = []
    for start in range(0, RESAMPLES, at_once):
        drawn = rng.integers(0, n, (min(at_once, RESAMPLES - start), n))
        means.append((values[drawn] * weights[drawn]).sum(axis=1) / weights[drawn].sum(axis=1))
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _subsets(n: int) -> str:
    return "subset" if n == 1 else "subsets"


def _words(test: SubsetTest, verdict: str) -> str:
    side = "lower than" if test.difference_nats < 0 else "higher than" if test.difference_nats > 0 else "from"
    gap = f"{abs(test.difference_nats):.4f} nats {side} the mean of {test.n_random:,} random"
    head = {
        BETTER: "The selected subset is better than random ones of its size.",
        WORSE: "The selected subset is worse than random ones of its size.",
        NO_DIFFERENCE: "No difference between the selected subset and random ones of its size is shown.",
    }[verdict]
    p, direction = (test.p_lower, "lower") if test.difference_nats <= 0 else (test.p_higher, "higher")
    place = f"Its evaluation loss is {gap} {_subsets(test.n_random)} (one-sided p of {direction} {p:.3g})."
    return f"{head} {place} {smallest_p_words(test.n_random)}"


def _instruction_words(test: InstructionTest) -> str:
    side = "lower" if test.difference_nats < 0 else "higher"
    shown = test.p_two <= LEVEL
    head = f"On these {test.n_instructions:,} evaluation instructions the selected subset's loss is "
    if shown:
        head += f"{side} than that of these random subsets"
    else:
        head += "not shown to differ from that of these random subsets"
    interval = ""
    if test.low_nats is not None:
        interval = f", 95 % interval {test.low_nats:+.4f} to {test.high_nats:+.4f}"
    left = f" {test.n_left_out:,} instructions without a loss in some run are left out." if test.n_left_out else ""
    return (
        f"{head}: difference {test.difference_nats:+.4f} nats{interval}, two-sided p {test.p_two:.3g}. "
        f"This speaks of the evaluation instructions, not of drawing other random subsets.{left}"
    )
