"""Principal components that are streamed are those of scikit-learn over everything at once, with a sign that stays."""

from __future__ import annotations

import numpy as np
import pytest

from core.projection import fit


def cloud(n: int, d: int, *, seed: int = 0, centre: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    spread = np.linspace(3.0, 0.2, d)
    rotation, _ = np.linalg.qr(rng.normal(size=(d, d)))
    return (centre + (rng.normal(size=(n, d)) * spread) @ rotation.T).astype(np.float32)


@pytest.mark.parametrize("centre", [0.0, 1000.0])
@pytest.mark.parametrize("batch", [1, 7, 64, 1000])
def test_streamed_in_any_batches_it_is_the_decomposition_of_all(batch: int, centre: float) -> None:
    """A far-away centre is the trap: sums of squares lose their digits there, merged scatters do not."""
    from sklearn.decomposition import PCA

    vectors = cloud(300, 12, centre=centre)
    plane = fit(vectors[i : i + batch] for i in range(0, len(vectors), batch))
    assert plane is not None
    oracle = PCA(n_components=2, svd_solver="full").fit(vectors.astype(np.float64))
    assert plane.n == 300
    assert plane.shares == pytest.approx(tuple(oracle.explained_variance_ratio_), rel=1e-9)
    for mine, theirs in zip(plane.components, oracle.components_, strict=True):
        assert np.allclose(mine, np.sign(mine @ theirs) * theirs, atol=1e-7)
    expected = oracle.transform(vectors.astype(np.float64))
    assert np.allclose(np.abs(plane.project(vectors)), np.abs(expected), atol=1e-5)


def test_four_points_by_hand() -> None:
    """Points on the line y = 2x lie along (1, 2) / √5, and nothing is left for a second direction."""
    plane = fit([np.array([[0.0, 0.0], [1.0, 2.0]]), np.array([[2.0, 4.0], [3.0, 6.0]])])
    assert plane is not None
    assert plane.components[0] == pytest.approx(np.array([1.0, 2.0]) / np.sqrt(5))
    assert plane.shares == pytest.approx((1.0, 0.0))
    assert plane.mean == pytest.approx([1.5, 3.0])
    assert plane.project(np.array([[1.5, 3.0], [2.5, 5.0]]))[:, 0] == pytest.approx([0.0, np.sqrt(5)])


def test_the_picture_is_never_mirrored() -> None:
    """LAPACK may give either sign; two servers, or two orders of the rows, shall not draw mirrored maps."""
    vectors = cloud(200, 8)
    one, other = fit([vectors]), fit([vectors[::-1][:50], vectors[::-1][50:]])
    assert one is not None
    assert other is not None
    assert np.allclose(one.components, other.components, atol=1e-9)
    for component in one.components:
        assert component[np.argmax(np.abs(component))] > 0


@pytest.mark.parametrize(
    "batches",
    [
        [],
        [np.empty((0, 4))],
        [np.ones((1, 4))],
        [np.ones((5, 4)), np.ones((3, 4))],
        [np.full((5, 4), np.nan), np.ones((1, 4))],
    ],
)
def test_there_is_no_plane_where_nothing_differs(batches: list[np.ndarray]) -> None:
    assert fit(batches) is None


def test_rows_that_are_not_finite_are_passed_over() -> None:
    vectors = cloud(50, 5)
    broken = np.insert(vectors, 10, np.nan, axis=0)
    one, other = fit([vectors]), fit([broken])
    assert one is not None
    assert other is not None
    assert other.n == 50
    assert np.allclose(one.components, other.components)


def test_one_dimension_has_no_second_component() -> None:
    plane = fit([np.array([[1.0], [2.0], [4.0]])])
    assert plane is not None
    assert plane.shares == (1.0, 0.0)
    assert plane.project(np.array([[2.0]])).shape == (1, 2)
