"""Two principal components of vectors that are streamed: what the map of embeddings is drawn from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

N_COMPONENTS = 2


@dataclass(frozen=True)
class Projection:
    """A plane through a cloud of vectors.

    ``mean`` float64 ``[d]``; ``components`` float64 ``[2, d]``, orthonormal rows (a row of zeros where d = 1);
    ``shares`` the part of the total variance along each, from 0 to 1; ``n`` the vectors it was made of.
    """

    mean: np.ndarray
    components: np.ndarray
    shares: tuple[float, float]
    n: int

    def project(self, vectors: np.ndarray) -> np.ndarray:
        """Coordinates float64 ``[m, 2]`` of vectors ``[m, d]``."""
        centred: np.ndarray = np.asarray(vectors, np.float64) - self.mean
        plane: np.ndarray = centred @ self.components.T
        return plane


def fit(batches: Iterable[np.ndarray]) -> Projection | None:
    """Principal components (Pearson 1901) of all rows of ``batches`` (each ``[m, d]``), which are never held together.

    Exact: mean and scatter are merged batch by batch in float64 (Chan, Golub & LeVeque 1983), then decomposed; memory
    is one batch and a d × d matrix. A component's sign is free, so the entry of largest size is made positive (of
    entries that are as large to nine digits the first), and the same vectors always give the same picture. Rows that
    hold a number that is not finite are passed over. Returns None for fewer than two rows or where all rows are equal.
    """
    n, mean, scatter = 0, np.zeros(0), np.zeros((0, 0))
    for batch in batches:
        vectors = np.asarray(batch, np.float64)
        vectors = vectors[np.isfinite(vectors).all(axis=1)]
        if not len(vectors):
            continue
        if n == 0:
            mean, scatter = np.zeros(vectors.shape[1]), np.zeros((vectors.shape[1],) * 2)
        own_mean = vectors.mean(axis=0)
        centred = vectors - own_mean
        step = own_mean - mean
        scatter += centred.T @ centred + np.outer(step, step) * (n * len(vectors) / (n + len(vectors)))
        mean = mean + step * (len(vectors) / (n + len(vectors)))
        n += len(vectors)
    total = float(np.trace(scatter))
    if n < N_COMPONENTS or total <= 0.0:
        return None
    values, columns = np.linalg.eigh(scatter)
    components = np.zeros((N_COMPONENTS, len(mean)))
    shares = [0.0] * N_COMPONENTS
    for i in range(min(N_COMPONENTS, len(mean))):
        components[i] = _signed(columns[:, -1 - i])
        shares[i] = max(0.0, float(values[-1 - i])) / total
    return Projection(mean, components, (shares[0], shares[1]), n)


def _signed(component: np.ndarray) -> np.ndarray:
    size = np.abs(component)
    largest = int(np.flatnonzero(size >= size.max() * (1 - 1e-9))[0])
    signed: np.ndarray = component if component[largest] >= 0 else -component
    return signed
