"""Neighbours are exact: whatever the blocks, the duplicates and the rounding of a matrix product."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import core.neighbours
from core.errors import ModelError
from core.neighbours import neighbour_distances


def by_hand(vectors: np.ndarray, neighbours: list[int]) -> np.ndarray:
    """The definition: differences in float64, the row itself left out by its position, sorted."""
    there = np.isfinite(vectors).all(axis=1)
    found = np.full((len(vectors), len(neighbours)), np.nan)
    for row in np.flatnonzero(there):
        others = there.copy()
        others[row] = False
        apart = vectors[others].astype(np.float64) - vectors[row].astype(np.float64)
        distances = np.sort(np.sqrt((apart**2).sum(axis=1)))
        for column, i in enumerate(neighbours):
            if i <= len(distances):
                found[row, column] = distances[i - 1]
    return found


def every(vectors: np.ndarray, neighbours: list[int], **options) -> np.ndarray:
    return neighbour_distances(vectors, np.arange(len(vectors)), neighbours=neighbours, **options)


def random_vectors(rows: int, dimensions: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, dimensions)).astype(np.float32)


@pytest.fixture
def searches(monkeypatch) -> list[tuple[str, int]]:
    """Which search ran on how many queries."""
    seen: list[tuple[str, int]] = []
    products, differences = core.neighbours._by_products, core.neighbours._by_differences

    def by_products(rows, positions, k, dtype):
        seen.append((str(dtype), len(positions)))
        return products(rows, positions, k, dtype)

    def by_differences(rows, positions, k):
        seen.append(("differences", len(positions)))
        return differences(rows, positions, k)

    monkeypatch.setattr(core.neighbours, "_by_products", by_products)
    monkeypatch.setattr(core.neighbours, "_by_differences", by_differences)
    return seen


# Exactness


@pytest.mark.parametrize("blocks", [None, (256, 4096), (64, 100), (700, 33), (7, 1), (1, 700), (900, 900)])
def test_equal_to_scikit_learn_whatever_the_blocks(blocks):
    from sklearn.neighbors import NearestNeighbors

    vectors = random_vectors(700, 24)
    search = NearestNeighbors(n_neighbors=50, algorithm="brute").fit(vectors.astype(np.float64))
    expected = search.kneighbors()[0][:, [0, 5, 49]]
    np.testing.assert_allclose(every(vectors, [1, 6, 50], blocks=blocks), expected, rtol=1e-9)


def test_unit_vectors_of_384_dimensions_need_one_search(searches):
    # What embeddings look like: the bound of float32 is a thousandth of the gap between neighbours.
    from sklearn.neighbors import NearestNeighbors

    vectors = random_vectors(3000, 384)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = NearestNeighbors(n_neighbors=6, algorithm="brute").fit(vectors.astype(np.float64)).kneighbors()[0]
    np.testing.assert_allclose(every(vectors, list(range(1, 7))), expected, rtol=1e-9)
    assert {name for name, _ in searches} == {"torch.float32"}


def test_hand_worked_on_a_line():
    vectors = np.array([[0.0], [1.0], [3.0], [7.0]], dtype=np.float32)
    assert every(vectors, [1, 2, 3]).tolist() == [[1, 3, 7], [1, 2, 6], [2, 3, 4], [4, 6, 7]]


def test_duplicates_are_neighbours_at_exactly_zero_and_the_row_itself_is_left_out_once():
    # |x|² + |y|² − 2 x·y of a duplicate is some 1e-7, not 0, and its root is 3e-4: larger than real distances.
    vectors = random_vectors(300, 384)
    vectors[100:103] = vectors[7]  # four equal rows: 7, 100, 101, 102
    found = every(vectors, [1, 2, 3, 4])
    for row in (7, 100, 101, 102):
        assert found[row, :3].tolist() == [0.0, 0.0, 0.0]
        assert found[row, 3] > 10
    np.testing.assert_allclose(found, by_hand(vectors, [1, 2, 3, 4]), rtol=1e-12)


def test_more_duplicates_than_candidates(searches):
    vectors = np.repeat(random_vectors(5, 32), 200, axis=0)
    assert (every(vectors, [1, 6, 50]) == 0.0).all()
    assert {name for name, _ in searches} == {"torch.float32"}  # nothing is nearer than 0: no second search
    np.testing.assert_array_equal(every(vectors, [199, 200])[:, 0], np.zeros(1000))
    np.testing.assert_allclose(every(vectors, [199, 200]), by_hand(vectors, [199, 200]), rtol=1e-12)


def test_copies_of_a_row_are_ties_that_products_settle(searches):
    # 60 copies of one row near all others: as neighbours they are all equally far, so that those left out are as near
    # as those kept. Decided by differences alone, a million rows would take seconds a query.
    vectors = random_vectors(400, 48)
    vectors[100:160] = 0.01
    found = every(vectors, [1, 6, 20])
    np.testing.assert_allclose(found, by_hand(vectors, [1, 6, 20]), rtol=1e-9)
    assert "torch.float64" in {name for name, _ in searches}
    assert "differences" not in {name for name, _ in searches}


@pytest.mark.parametrize("scale", [0.1, 1e-4, 1e-6])
def test_a_cloud_of_near_duplicates(scale, searches):
    # 400 rows closer to each other than float32 products can tell apart: the candidates are a draw among them.
    vectors = np.concatenate([random_vectors(1, 64) + scale * random_vectors(400, 64, seed=1), random_vectors(200, 64)])
    np.testing.assert_allclose(every(vectors, [1, 6]), by_hand(vectors, [1, 6]), rtol=1e-9)
    assert ("torch.float64" in {name for name, _ in searches}) == (scale < 0.1)


def test_a_cloud_that_float64_products_cannot_tell_apart_either(searches):
    vectors = np.zeros((300, 8), dtype=np.float32)
    vectors[:, 0] = 1.0
    vectors[:, 1] = np.arange(300) * np.float32(1e-9)
    found = every(vectors, [6])
    np.testing.assert_allclose(found, by_hand(vectors, [6]), rtol=1e-12)
    assert "differences" in {name for name, _ in searches}


def test_far_from_the_origin():
    vectors = 1000 + random_vectors(400, 16)
    np.testing.assert_allclose(every(vectors, [1, 6]), by_hand(vectors, [1, 6]), rtol=1e-9)


@pytest.mark.parametrize("scale", [1e-40, 1e-25, 1e-12, 1e12, 1e20, 1e37])
def test_sizes_at_which_float32_overflows_or_underflows(scale):
    vectors = (random_vectors(100, 8).astype(np.float64) * scale).astype(np.float32)
    np.testing.assert_allclose(every(vectors, [1, 6]), by_hand(vectors, [1, 6]), rtol=1e-9)


def test_without_onednn(monkeypatch):
    # The products of a GPU, and of processors for which torch has no oneDNN.
    monkeypatch.setattr(core.neighbours, "onednn_available", lambda: False)
    vectors = random_vectors(500, 48)
    np.testing.assert_allclose(every(vectors, [6], blocks=(100, 128)), by_hand(vectors, [6]), rtol=1e-9)


def test_with_several_threads():
    import torch

    vectors, threads = random_vectors(900, 24), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = every(vectors, [3], blocks=(64, 512))
        torch.set_num_threads(3)
        np.testing.assert_array_equal(every(vectors, [3], blocks=(64, 512)), one)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


def test_a_process_that_allows_short_products_does_not_change_a_distance():
    # With TF32 or bfloat16 in place of float32 the bound on the rounding would not hold.
    import torch

    vectors, before = random_vectors(600, 128), torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        found = every(vectors, [6])
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    np.testing.assert_allclose(found, by_hand(vectors, [6]), rtol=1e-9)


def test_on_a_gpu():
    import torch

    if not torch.cuda.is_available():
        pytest.skip("this machine has no CUDA GPU")
    vectors = random_vectors(3000, 96)
    vectors[5:9] = vectors[4]
    found = every(vectors, [1, 6], device="cuda", blocks=(512, 1000))
    np.testing.assert_allclose(found, by_hand(vectors, [1, 6]), rtol=1e-9)


# Few, missing and chosen rows


def test_fewer_other_rows_than_asked_for():
    vectors = random_vectors(4, 8)
    found = every(vectors, [1, 3, 4, 50])
    assert np.isfinite(found[:, :2]).all()
    assert np.isnan(found[:, 2:]).all()
    np.testing.assert_allclose(found, by_hand(vectors, [1, 3, 4, 50]), rtol=1e-12)


def test_one_row_two_rows_and_none():
    assert np.isnan(every(random_vectors(1, 8), [1, 6])).all()
    assert every(np.array([[0, 0], [3, 4]], dtype=np.float32), [1, 2])[:, 0].tolist() == [5.0, 5.0]
    assert every(np.empty((0, 8), dtype=np.float32), [1]).shape == (0, 1)
    assert every(random_vectors(5, 8), []).shape == (5, 0)


@pytest.mark.parametrize("missing", [np.nan, np.inf, -np.inf])
def test_missing_rows_are_nobodys_neighbours(missing):
    vectors = random_vectors(300, 12)
    vectors[[0, 17, 299]] = missing
    vectors[100, 5] = missing  # one number is enough
    found = every(vectors, [1, 6], blocks=(50, 64))
    np.testing.assert_allclose(found, by_hand(vectors, [1, 6]), rtol=1e-9)
    assert np.flatnonzero(np.isnan(found).all(axis=1)).tolist() == [0, 17, 100, 299]
    rest = np.isfinite(vectors).all(axis=1)
    np.testing.assert_allclose(found[rest], every(vectors[rest], [1, 6]), rtol=1e-12)


def test_all_rows_missing():
    assert np.isnan(every(np.full((9, 4), np.nan, dtype=np.float32), [1])).all()


def test_a_part_of_the_rows_in_any_order_and_twice():
    vectors = random_vectors(500, 16)
    queries = np.array([499, 3, 3, 250, 0])
    found = neighbour_distances(vectors, queries, neighbours=[6, 1], blocks=(2, 64))
    np.testing.assert_allclose(found, by_hand(vectors, [6, 1])[queries], rtol=1e-9)
    assert neighbour_distances(vectors, np.array([], dtype=np.int64), neighbours=[6]).shape == (0, 1)


def test_several_neighbours_of_one_search_are_those_of_several_searches():
    vectors = random_vectors(400, 16)
    together = every(vectors, [50, 1, 7, 7])
    for column, i in enumerate([50, 1, 7, 7]):
        np.testing.assert_array_equal(together[:, column], every(vectors, [i])[:, 0])


def test_progress_ends_at_all_of_the_queries():
    vectors, seen = random_vectors(300, 8), []
    vectors[4] = np.nan
    every(vectors, [2], blocks=(64, 64), on_progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (300, 300)
    assert seen == sorted(seen)


def test_what_makes_no_sense_is_refused():
    vectors = random_vectors(5, 4)
    for bad in (vectors.astype(np.float64), vectors[0]):
        with pytest.raises(ValueError, match="float32"):
            neighbour_distances(bad, np.array([0]), neighbours=[1])
    for queries in (np.array([5]), np.array([-1])):
        with pytest.raises(ValueError, match="positions from 0 to 4"):
            neighbour_distances(vectors, queries, neighbours=[1])
    with pytest.raises(ValueError, match="integers"):
        neighbour_distances(vectors, np.array([0.5]), neighbours=[1])
    with pytest.raises(ValueError, match="counted from 1"):
        neighbour_distances(vectors, np.array([0]), neighbours=[0])
    with pytest.raises(ModelError, match="no device 'tpu'"):
        neighbour_distances(vectors, np.array([0]), neighbours=[1], device="tpu")


# Properties

_numbers = st.sampled_from([0.0, 1.0, -1.0, 2.0, 1e-4, 1.0001, 1e-20, 3e18, float("nan")])


@settings(max_examples=150, deadline=None)
@given(
    vectors=st.integers(1, 60).flatmap(
        lambda n: arrays(np.float32, (n, 3), elements=_numbers.map(lambda x: float(np.float32(x))))
    ),
    blocks=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    neighbours=st.lists(st.integers(1, 12), min_size=1, max_size=3),
)
def test_sets_full_of_ties(vectors, blocks, neighbours):
    np.testing.assert_allclose(every(vectors, neighbours, blocks=blocks), by_hand(vectors, neighbours), rtol=1e-9)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(500, 1500),
    i=st.integers(1, 8),
    base_rows=st.integers(400, 1600),
    copies=st.integers(0, 300),
)
def test_groups_lose_no_neighbour(seed, rows, i, base_rows, copies):
    # Blocks wide enough that only the groups with the smallest scores are looked at.
    vectors = random_vectors(rows, 6, seed=seed)
    vectors[:copies] = vectors[copies]
    queries = np.random.default_rng(seed).integers(0, rows, 40)
    found = neighbour_distances(vectors, queries, neighbours=[i], blocks=(32, base_rows))
    for query, distance in zip(queries, found[:, 0], strict=True):
        apart = np.delete(vectors, query, axis=0).astype(np.float64) - vectors[query]
        assert distance == pytest.approx(np.sort(np.sqrt((apart**2).sum(axis=1)))[i - 1], rel=1e-9)


# Memory

_MEASURE = """
import resource, sys
import numpy as np
from core.neighbours import neighbour_distances
few = np.random.default_rng(0).standard_normal((2000, 64)).astype(np.float32)
neighbour_distances(few, np.arange(2000), neighbours=[6])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
vectors = np.memmap(sys.argv[1], dtype=np.float32, mode="r").reshape(-1, 64)
found = neighbour_distances(vectors, np.arange(0, len(vectors), 1000), neighbours=[1, 6])
assert found.shape == (len(vectors) // 1000, 2) and np.isfinite(found).all()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_is_blocks_and_neither_the_distances_nor_the_file(tmp_path):
    # 1,000 queries against a million rows: 8 GB of float64 distances, and a file of 256 MB of which all would stay in
    # memory after one pass.
    path = tmp_path / "vectors"
    np.random.default_rng(0).standard_normal((1_000_000, 64), dtype=np.float32).tofile(path)
    run = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(path)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) < 180 * 1024


def test_a_private_memory_map_keeps_its_changes(tmp_path, monkeypatch):
    # Giving its pages back to the system would undo them.
    monkeypatch.setattr(core.neighbours, "SMALL_MAP_BYTES", 0)
    path = tmp_path / "vectors"
    random_vectors(300, 64).tofile(path)
    vectors = np.memmap(path, dtype=np.float32, mode="c").reshape(-1, 64)
    vectors[7] = vectors[8]
    assert every(vectors, [1])[7] == every(vectors, [1])[8] == 0.0
    assert (vectors[7] == vectors[8]).all()


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_a_memory_map_is_read_whole_and_left_as_it_is(tmp_path, mode, monkeypatch):
    monkeypatch.setattr(core.neighbours, "SMALL_MAP_BYTES", 0)
    path, vectors = tmp_path / "vectors", random_vectors(500, 16)
    vectors.tofile(path)
    mapped = np.memmap(path, dtype=np.float32, mode=mode).reshape(-1, 16)
    if mode == "r+":
        mapped[3] = vectors[3] = vectors[4]
    np.testing.assert_array_equal(every(mapped, [1, 6], blocks=(64, 100)), every(vectors, [1, 6], blocks=(64, 100)))
    np.testing.assert_array_equal(mapped, vectors)
