"""How many rows are enough: BlendSearch over the size of a selection, each trial a finetune and its evaluation loss.

The searcher is told trial by trial and uses no clock, so that the same seed and the same losses always give the same
sizes: a search that was interrupted is told its finished trials again and goes on exactly as it would have.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import math
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.errors import InputError, JobError

if TYPE_CHECKING:
    from flaml import BlendSearch

MOST_SUGGESTIONS = 100
"""So many suggestions in a row that were tried already end a search; FLAML's own loop ends it after as many."""

WORST_LOSS_NATS = 20.0
"""What a trial without a loss counts as, while none has one: worse than guessing among any vocabulary's tokens."""

_MOST_SEED = 2**31 - 1


@dataclass(frozen=True)
class Trial:
    """A finished trial: the best ``n_rows`` rows gave this loss; None where it diverged or failed."""

    n_rows: int
    loss_nats: float | None


def searcher_version() -> str:
    """The version of FLAML that is installed: another one may suggest other sizes."""
    return importlib.metadata.version("FLAML")


class SizeSearch:
    """Suggests sizes from ``lowest`` to ``highest`` rows, on a log scale, for the lowest evaluation loss [BS].

    BlendSearch starts at ``lowest``, the cheapest size, and blends a local search (FLOW2) with a global one (Optuna's
    TPE). Deviation: the cost of a trial is its number of rows and not the seconds it took, since a search by the clock
    could not be repeated; training time is proportional to it.

    Raises:
        InputError: there are no two sizes to choose from, or the seed is out of range.
        JobError: FLAML is not installed with its extra.
    """

    def __init__(self, *, lowest: int, highest: int, seed: int) -> None:
        check_bounds(lowest, highest, seed)
        self.lowest, self.highest = lowest, highest
        self._searcher = _new_searcher(lowest, highest, seed)
        self._n_asked = 0
        self._pending: tuple[str, dict[str, Any]] | None = None
        self._worst: float | None = None

    def ask(self) -> int | None:
        """The next size to try, or None when the searcher has no further one (every size near is tried).

        Raises:
            JobError: the last size was not told yet.
        """
        if self._pending is not None:
            raise JobError("The search was asked for another size before it was told the loss of the last one.")
        for _ in range(MOST_SUGGESTIONS):
            self._n_asked += 1
            name = f"suggestion-{self._n_asked}"
            with quiet():
                config = self._searcher.suggest(name)
            if config is not None:
                self._pending = name, dict(config)
                return int(config["n_rows"])
        return None

    def tell(self, loss_nats: float | None) -> None:
        """The evaluation loss of the size that was asked last; None or not finite: the trial gave none.

        Such a trial counts as one nat worse than the worst so far: bad enough to be avoided, and not so bad that the
        searcher takes the step to the next size for a great success.

        Raises:
            JobError: no size was asked.
        """
        if self._pending is None:
            raise JobError("The search was told a loss of a size that it was not asked for.")
        name, config = self._pending
        self._pending = None
        if loss_nats is None or not math.isfinite(loss_nats):
            told = WORST_LOSS_NATS if self._worst is None else self._worst + 1.0
        else:
            told = loss_nats
            self._worst = told if self._worst is None else max(self._worst, told)
        n_rows = config["n_rows"]
        with quiet():
            self._searcher.on_trial_complete(
                name, {"loss_nats": told, "cost": n_rows, "config": config, "config/n_rows": n_rows}
            )

    def replay(self, trials: Iterable[Trial]) -> None:
        """Tell the trials of before, in their order, so that the search goes on where it was.

        Raises:
            JobError: it would have tried another size: the trials were made by another version of FLAML.
        """
        for number, trial in enumerate(trials, 1):
            asked = self.ask()
            if asked != trial.n_rows:
                suggests = "no further size" if asked is None else f"{asked:,}"
                raise JobError(
                    f"The search cannot go on as it began: its trial {number} had {trial.n_rows:,} rows, and FLAML "
                    f"{searcher_version()} suggests {suggests}. Resume it with the version it began with (it "
                    "stands in the details of its trials), or start a new search between the best sizes so far."
                )
            self.tell(trial.loss_nats)


def check_bounds(lowest: int, highest: int, seed: int) -> None:
    """Refuse what cannot be searched, before anything is loaded.

    Raises:
        InputError: there are no two sizes to choose from, or the seed is out of range.
    """
    if not 1 <= lowest < highest:
        raise InputError(
            f"A search from {lowest:,} to {highest:,} rows has nothing to choose from; the lowest size must be 1 "
            "or more and below the highest."
        )
    if not 0 <= seed <= _MOST_SEED:
        raise InputError(f"The seed {seed} of the search is out of range; give a whole number up to {_MOST_SEED}.")


def _new_searcher(lowest: int, highest: int, seed: int) -> BlendSearch:
    with quiet():
        try:
            from flaml import BlendSearch, tune
        except ImportError as error:
            raise JobError(
                f"The size search needs FLAML with its extra: pip install 'FLAML[blendsearch]' ({error})."
            ) from error
        try:
            return BlendSearch(
                metric="loss_nats",
                mode="min",
                space={"n_rows": tune.lograndint(lowest, highest + 1)},  # the upper end is not in it
                low_cost_partial_config={"n_rows": lowest},
                cost_attr="cost",
                seed=seed,
            )
        except (ImportError, AttributeError) as error:
            raise JobError(f"FLAML's BlendSearch cannot start: {error}. Is Optuna 3.6.1 or older installed?") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """FLAML warns of parts that are not installed and Optuna greets: neither says anything about the search."""
    loggers = [logging.getLogger(name) for name in ("flaml", "flaml.tune", "optuna")]
    levels = [logger.level for logger in loggers]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            try:
                import optuna

                optuna.logging.set_verbosity(optuna.logging.ERROR)
            except ImportError:
                pass  # the searcher says so itself
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
