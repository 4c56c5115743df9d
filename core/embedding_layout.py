"""t-SNE of a few thousand vectors, and the threads that compute it while a page shows something else."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace

import numpy as np

MOST_VECTORS = 5_000
N_STAGES = 4
_ITERATIONS = 250  # of one stage: the fewest that scikit-learn does
_N_COMPONENTS = 50
_MOST_KEPT = 8


def tsne(
    vectors: np.ndarray, *, seed: int = 0, after_stage: Callable[[int, np.ndarray], None] | None = None
) -> np.ndarray:
    """Places float64 ``[n, 2]`` of vectors float ``[n, d]`` by t-SNE (van der Maaten & Hinton 2008; Barnes–Hut).

    Of more than 50 dimensions the first 50 principal components are taken, and the first two begin the layout, so that
    the same vectors give the same picture. Done in ``N_STAGES`` of 250 iterations, the first with exaggeration;
    ``after_stage(stage from 1 on, places)`` hears of each. The perplexity is 30, or less for fewer than 91 vectors.

    Raises:
        ValueError: fewer than four vectors, more than ``MOST_VECTORS``, or a number that is not finite.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    n = len(vectors)
    if not 4 <= n <= MOST_VECTORS or not np.isfinite(vectors).all():
        raise ValueError(f"t-SNE needs 4 to {MOST_VECTORS:,} vectors of finite numbers; these are {n:,}")
    reduced = np.asarray(vectors, np.float32)
    if min(reduced.shape) > _N_COMPONENTS:
        reduced = PCA(_N_COMPONENTS, random_state=seed).fit_transform(reduced)
    places: np.ndarray | str = "pca" if reduced.shape[1] > 1 else "random"
    for stage in range(N_STAGES):
        layout = TSNE(
            init=places,
            perplexity=min(30.0, (n - 1) / 3),
            early_exaggeration=12.0 if stage == 0 else 1.0,
            max_iter=_ITERATIONS,
            random_state=seed,
            n_jobs=1,
        )
        places = np.asarray(layout.fit_transform(reduced), np.float32)
        if after_stage is not None:
            after_stage(stage + 1, np.asarray(places, np.float64))
    return np.asarray(places, np.float64)


@dataclass(frozen=True)
class Progress:
    """A layout as far as it is. ``places`` [n, 2] of ``ids`` [n] are those of the last stage done (None: none yet);
    ``problem`` ends it."""

    ids: np.ndarray
    stage: int = 0
    places: np.ndarray | None = None
    problem: str | None = None
    seconds: float = 0.0

    @property
    def is_done(self) -> bool:
        """Whether nothing more will come."""
        return self.stage >= N_STAGES or self.problem is not None

    @property
    def seconds_left(self) -> float | None:
        """By the stages done so far; None before the first."""
        return self.seconds / self.stage * (N_STAGES - self.stage) if self.stage else None


class Layouts:
    """Layouts by key, one computed at a time in a thread of its own; the last few are kept in memory."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._kept: OrderedDict[Hashable, Progress] = OrderedDict()

    def progress(self, key: Hashable) -> Progress | None:
        """How far a layout is; None: nobody asked for it, or it was dropped."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def start(self, key: Hashable, ids: np.ndarray, vectors: np.ndarray) -> threading.Thread | None:
        """Begin with the layout of ``vectors`` [n, d] of ``ids`` [n], unless it is there or under way.

        Vectors that hold a number that is not finite are passed over.
        """
        there = np.isfinite(vectors).all(axis=1) if len(ids) else np.zeros(0, bool)
        with self._lock:
            if key in self._kept:
                return None
            self._kept[key] = Progress(ids[there])
            for old in [one for one, state in self._kept.items() if state.is_done][: len(self._kept) - _MOST_KEPT]:
                del self._kept[old]
        thread = threading.Thread(
            target=self._compute, args=(key, ids[there], vectors[there]), name="assay-tsne", daemon=True
        )
        thread.start()
        return thread

    def _compute(self, key: Hashable, ids: np.ndarray, vectors: np.ndarray) -> None:
        with self._turn:
            began = time.monotonic()

            def tell(stage: int, places: np.ndarray) -> None:
                self._put(key, Progress(ids, stage, places, None, time.monotonic() - began))

            try:
                tsne(vectors, after_stage=tell)
            except (ValueError, ArithmeticError, MemoryError) as error:
                self._put(key, replace(self.progress(key) or Progress(ids), problem=str(error) or type(error).__name__))

    def _put(self, key: Hashable, state: Progress) -> None:
        with self._lock:
            self._kept[key] = state
