"""t-SNE of a few vectors, and the threads that compute it."""

from __future__ import annotations

import numpy as np
import pytest

from core.embedding_layout import N_STAGES, Layouts, tsne


def heaps(n: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(size=(n, 6)) * 0.1 + 8 * np.eye(6)[i] for i in range(3)]).astype(np.float32)


def test_heaps_stay_together() -> None:
    heard: list[int] = []
    places = tsne(heaps(12), after_stage=lambda stage, so_far: heard.append(stage))
    assert heard == list(range(1, N_STAGES + 1))
    assert places.shape == (36, 2)
    centres = places.reshape(3, 12, 2).mean(axis=1)
    nearest = np.argmin(np.linalg.norm(places[:, None] - centres, axis=2), axis=1)
    assert nearest.tolist() == [0] * 12 + [1] * 12 + [2] * 12


@pytest.mark.parametrize("vectors", [np.ones((3, 4)), np.full((9, 4), np.nan), np.zeros((0, 4))])
def test_what_cannot_be_laid_out_is_refused(vectors: np.ndarray) -> None:
    with pytest.raises(ValueError, match="t-SNE needs"):
        tsne(vectors)


def test_a_layout_is_computed_once_behind_the_page() -> None:
    layouts, vectors = Layouts(), heaps(4)
    vectors[5] = np.nan
    assert layouts.progress("a") is None
    thread = layouts.start("a", np.arange(12), vectors)
    assert thread is not None
    assert layouts.start("a", np.arange(12), vectors) is None
    thread.join(60)
    done = layouts.progress("a")
    assert done is not None
    assert done.is_done
    assert done.places is not None
    assert done.ids.tolist() == [i for i in range(12) if i != 5]
    assert np.array_equal(done.places, tsne(np.delete(vectors, 5, axis=0)))  # the same picture each time
    assert done.seconds_left == 0.0


def test_a_layout_that_fails_says_why() -> None:
    layouts = Layouts()
    thread = layouts.start("b", np.arange(2), np.ones((2, 3)))
    assert thread is not None
    thread.join(60)
    state = layouts.progress("b")
    assert state is not None
    assert state.is_done
    assert "t-SNE needs" in str(state.problem)
