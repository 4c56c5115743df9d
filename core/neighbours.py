"""Exact distances to the nearest neighbours within a set of vectors (METHOD.md, section 3: ``knn_i``).

Every row of the set is compared with every other one: blocks of queries against blocks of rows by a matrix product,
|y|² − 2 x·y, of which the smallest few a query are kept. Two things make the result exact all the same:

- the distances of the rows kept are computed anew in float64 from the difference of the two vectors, since the
  product loses digits near 0 and a duplicate must lie at exactly 0.0;
- a bound on the rounding of the product says whether a row that was not kept could be nearer. Where it could, the query
  is searched again in float64, and where that does not decide either (a cloud of rows closer to each other than 1e-6 of
  their length), by differences alone.

Torch's own products were chosen by measurement (one core of a 512-bit EPYC, 384 dimensions, for each pair of rows):
this search 5.2 ns, faiss.knn 6.7 ns (its BLAS leaves half of an AMD processor's speed unused; other block sizes gave
6.5 to 7.0), scikit-learn 14.3 ns. The same code runs on a GPU.

Memory is a block of scores and 9 bytes a row beside the vectors; never a matrix of n × n. Of vectors in a memory map no
more than a block of rows is held.
"""

from __future__ import annotations

import mmap
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from core.fast_linear import onednn_available

if TYPE_CHECKING:
    import torch

NEIGHBOURS_VERSION = "1"
"""Changes whenever a distance may come out differently."""

RELATIVE_ERROR = 1e-9
"""Of the square of a distance: what a row that was not kept may be nearer by. It settles ties, such as many copies of a
row, all equally far from a query: no product could prove that those left out are not nearer by a last bit."""

SPARE = 4
"""Candidates beyond the neighbours that were asked for: with some to spare the bound nearly always decides."""

GROUP = 32
"""Scores are looked at by the smallest of so many first: ten times faster than ``topk`` over all of them."""

# Rows of queries and of the set a block. On a CPU the scores of one block (16 MB) stay in its last cache: blocks four
# times as large were measured to be a third slower.
CPU_BLOCKS = (256, 16384)
CUDA_BLOCKS = (2048, 65536)

SMALL_MAP_BYTES = 64 << 20

Progress = Callable[[int, int], None]
"""Called with the queries done and the queries in all."""


@dataclass(frozen=True)
class _Rows:
    """The set: its vectors [n, d], |y|² of every row in float64 [n] (infinite where the row is missing)."""

    vectors: torch.Tensor
    squares: torch.Tensor
    largest_square: float
    base_rows: int
    device: torch.device
    fast_linear: bool
    release: Callable[[], None]
    reads: int
    """Rows read by position before pages are given back."""

    def blocks(self, dtype: torch.dtype) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
        """Give (first row, vectors, |y|²) of one block after the other, on the device, missing rows as zeros."""
        for start in range(0, len(self.vectors), self.base_rows):
            rows = self.vectors[start : start + self.base_rows].to(self.device)
            squares = self.squares[start : start + self.base_rows].to(self.device)
            missing = squares.isinf()
            if bool(missing.any()):
                rows = rows.masked_fill(missing[:, None], 0.0)
            yield start, rows.to(dtype), squares.to(dtype)
            self.release()

    def at(self, positions: torch.Tensor) -> torch.Tensor:
        """Vectors of these positions, on the device."""
        import torch

        found = []
        for part in positions.to(self.vectors.device).split(self.reads):
            found.append(self.vectors[part].to(self.device))
            self.release()
        return torch.cat(found)


def neighbour_distances(
    vectors: np.ndarray,
    queries: np.ndarray,
    *,
    neighbours: Sequence[int],
    device: str = "cpu",
    on_progress: Progress | None = None,
    blocks: tuple[int, int] | None = None,
) -> np.ndarray:
    """Return the Euclidean distance from each query to its i-th nearest other row, for every i of ``neighbours``.

    Args:
        vectors: float32 [n, d], one row for every member of the set; may be a ``np.memmap``. Nothing is normalised.
            A row that holds a NaN or an infinity is missing: it is nobody's neighbour.
        queries: integers [m], positions in ``vectors``. Each is left out of its own neighbours exactly once, so that a
            second row with the same vector is a neighbour at distance 0.
        neighbours: numbers from 1 on; all are answered by one search.
        device: cpu, cuda or cuda:N. On a CPU ``torch.get_num_threads()`` blocks run at once, one thread each.
        blocks: rows of queries and rows of the set that are compared at once; by default what suits the device.

    Returns:
        float64 [m, len(neighbours)]: the exact distances, up to a relative 1e-9. NaN where the query itself is missing,
        or where the set has fewer than i other rows.

    Raises:
        ValueError: shapes, dtype, a position or a neighbour make no sense.
        ModelError: the device is not there.

    Deviation from [IM]: none in the number. The authors' approximate index is not used; HNSW and IVF were measured to
    miss a third of the neighbours.
    """
    queries = np.asarray(queries)
    _check(vectors, queries, neighbours)
    found = np.full((len(queries), len(neighbours)), np.nan)
    if len(queries) == 0 or len(neighbours) == 0:
        return found
    with _full_precision():
        query_rows, rows = _prepare(vectors, device, blocks)
        there = rows.squares.cpu().isfinite().numpy()
        others = int(there.sum()) - 1
        answered = [column for column, i in enumerate(neighbours) if i <= others]
        if not answered:
            return found
        columns = np.array([neighbours[column] - 1 for column in answered])
        pending = np.flatnonzero(there[queries])
        done = len(queries) - len(pending)
        for search in _searches(rows, int(columns.max()) + 1):
            parts = [pending[start : start + query_rows] for start in range(0, len(pending), query_rows)]
            left = []
            for part, (distances, sure) in zip(parts, _each(search, [queries[p] for p in parts], rows), strict=True):
                found[np.ix_(part[sure], answered)] = distances[sure][:, columns]
                left.append(part[~sure])
                done += int(sure.sum())
                if on_progress is not None:
                    on_progress(done, len(queries))
            pending = np.concatenate(left) if left else pending
    return found


def _check(vectors: np.ndarray, queries: np.ndarray, neighbours: Sequence[int]) -> None:
    if vectors.ndim != 2 or vectors.dtype != np.float32:
        raise ValueError(f"vectors must be float32 [n, d], not {vectors.dtype} {list(vectors.shape)}")
    if queries.ndim != 1 or (len(queries) and not np.issubdtype(queries.dtype, np.integer)):
        raise ValueError(f"queries must be integers [m], not {queries.dtype} {list(queries.shape)}")
    if len(queries) and not 0 <= queries.min() <= queries.max() < len(vectors):
        raise ValueError(f"queries must be positions from 0 to {len(vectors) - 1}")
    if any(i < 1 for i in neighbours):
        raise ValueError("neighbours are counted from 1")


@contextmanager
def _full_precision() -> Iterator[None]:
    """Matrix products in true float32: no TF32 on a GPU, no bfloat16 on a CPU, whatever the process allows."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _prepare(vectors: np.ndarray, device: str, blocks: tuple[int, int] | None) -> tuple[int, _Rows]:
    """Rows of queries a block, and the set: on the device if it takes less than half of the memory free there."""
    import torch

    from core.models import torch_device

    place = torch_device(device)
    query_rows, base_rows = blocks or (CPU_BLOCKS if place.type == "cpu" else CUDA_BLOCKS)
    with warnings.catch_warnings():  # a read-only memory map: nothing here writes to it
        warnings.simplefilter("ignore", UserWarning)
        tensor = torch.from_numpy(vectors.view(np.ndarray))
    release, reads = _release_of(vectors)
    squares = torch.empty(len(tensor), dtype=torch.float64)
    for start in range(0, len(tensor), 4096):
        part = tensor[start : start + 4096].double()
        squares[start : start + 4096] = torch.linalg.vecdot(part, part).nan_to_num(nan=torch.inf, posinf=torch.inf)
        release()
    largest = float(squares[squares.isfinite()].max()) if bool(squares.isfinite().any()) else 0.0
    if place.type == "cuda" and 2 * vectors.nbytes < torch.cuda.mem_get_info(place)[0]:
        tensor, squares = tensor.to(place), squares.to(place)
    fast = place.type == "cpu" and onednn_available()
    return query_rows, _Rows(tensor, squares, largest, base_rows, place, fast, release, reads)


def _release_of(vectors: np.ndarray) -> tuple[Callable[[], None], int]:
    """What gives pages of a memory map back, and after how many rows read here and there it must.

    Pages that were read stay in the system's cache, but no longer count as memory of this process; else all of the file
    would after one pass. Reading one row was measured to map up to 2 MB. Nothing is done to a small or private map
    (mode "c"): changed pages of the latter would be lost.
    """
    mapped, advice = getattr(vectors, "_mmap", None), getattr(mmap, "MADV_DONTNEED", None)
    private = getattr(vectors, "mode", "c") == "c"
    if not isinstance(mapped, mmap.mmap) or advice is None or private or vectors.nbytes < SMALL_MAP_BYTES:
        return (lambda: None), 1 << 62
    return (lambda: mapped.madvise(advice)), 16


Search = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""From positions [q] to distances float64 [q, k] in ascending order, and for which of the queries they are proven."""


def _searches(rows: _Rows, k: int) -> Iterator[Search]:
    """The ways to search, the fastest first; the last one proves all."""
    import torch

    if rows.largest_square < 1e37:  # beyond, float32 overflows
        yield lambda positions: _by_products(rows, positions, k, torch.float32)
    yield lambda positions: _by_products(rows, positions, k, torch.float64)
    yield lambda positions: _by_differences(rows, positions, k)


def _each(search: Search, parts: list[np.ndarray], rows: _Rows) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Search every part; on a CPU several at once, one thread each."""
    import torch

    def run(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            return search(positions)

    threads = torch.get_num_threads()
    if threads == 1 or len(parts) == 1 or rows.device.type != "cpu":
        yield from map(run, parts)
        return
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield from pool.map(run, parts)
    finally:
        torch.set_num_threads(threads)


def _by_products(rows: _Rows, positions: np.ndarray, k: int, dtype: torch.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Candidates by |y|² − 2 x·y in ``dtype``, their distances in float64, and whether no other row can be nearer.

    Rounding: a score is off by no more than (d + 4) u (2 |x| |y| + |y|²), u the unit of the type, and by what
    underflows; twice that is allowed here. A row that was not kept has the score of the worst kept one or more: less
    the bound, plus |x|², the square of its distance cannot be smaller.
    """
    import torch

    at = torch.from_numpy(positions).to(rows.device)
    exact = rows.at(at)
    squares = rows.squares[at.to(rows.squares.device)].to(rows.device)
    keep = k + SPARE
    scores = torch.full((len(at), keep), torch.inf, dtype=dtype, device=rows.device)
    indices = torch.zeros((len(at), keep), dtype=torch.int64, device=rows.device)
    doubled = exact.to(dtype) * -2.0
    for start, block, bias in rows.blocks(dtype):
        found = _scores(doubled, block, bias, fast=rows.fast_linear)
        inside = ((at >= start) & (at < start + len(block))).nonzero()[:, 0]
        found[inside, at[inside] - start] = torch.inf  # itself
        values, columns = _smallest_groups(found, keep)
        scores, chosen = torch.cat([scores, values], 1).topk(keep, dim=1, largest=False, sorted=False)
        indices = torch.cat([indices, columns + start], 1).gather(1, chosen)
    apart = rows.at(indices.reshape(-1)).reshape(len(at), keep, -1).double()
    apart -= exact.double()[:, None, :]
    distances = torch.linalg.vecdot(apart, apart).masked_fill(scores.isinf(), torch.inf).sort(1).values[:, :k]
    info = torch.finfo(dtype)
    largest = rows.largest_square
    bound = (exact.shape[1] + 4) * (info.eps * (2 * (squares * largest).sqrt() + largest) + 4 * info.tiny)
    nearest_left_out = scores.amax(1).double() - bound + squares
    sure = distances[:, -1] * (1 - RELATIVE_ERROR) <= nearest_left_out.clamp(min=0.0)
    return distances.sqrt().cpu().numpy(), sure.cpu().numpy()


def _scores(doubled: torch.Tensor, block: torch.Tensor, bias: torch.Tensor, *, fast: bool) -> torch.Tensor:
    """|y|² − 2 x·y of all pairs [q, b]; ``doubled`` is −2 x."""
    import torch

    if fast and doubled.dtype == torch.float32:
        return torch.ops.mkldnn._linear_pointwise(doubled, block.contiguous(), bias, "none", [], "")
    return torch.addmm(bias, doubled, block.T)


def _smallest_groups(scores: torch.Tensor, keep: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Some scores of every row and their columns, among them the ``keep`` smallest; scores [q, b].

    The ``keep`` smallest lie in the ``keep`` groups whose smallest ones are smallest: were one in another group, each
    of these would hold one that is no larger.
    """
    import torch

    groups = scores.shape[1] // GROUP
    if groups <= keep:
        columns = torch.arange(scores.shape[1], device=scores.device).expand(scores.shape)
        return scores, columns
    grouped = scores[:, : groups * GROUP].unflatten(1, (GROUP, groups))
    best = grouped.amin(1).topk(keep, dim=1, largest=False, sorted=False).indices[:, None, :].expand(-1, GROUP, -1)
    columns = best + torch.arange(GROUP, device=scores.device)[None, :, None] * groups
    rest = torch.arange(groups * GROUP, scores.shape[1], device=scores.device).expand(len(scores), -1)
    values = torch.cat([grouped.gather(2, best).flatten(1), scores[:, groups * GROUP :]], 1)
    return values, torch.cat([columns.flatten(1), rest], 1)


def _by_differences(rows: _Rows, positions: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Distances from the difference to every row of the set, in float64; slow, and always proven."""
    import torch

    distances = np.empty((len(positions), k))
    for row, position in enumerate(positions):
        query = rows.at(torch.tensor([int(position)])).double()
        best = torch.empty(0, dtype=torch.float64, device=rows.device)
        for start, block, squares in rows.blocks(torch.float64):
            apart = block - query
            found = torch.linalg.vecdot(apart, apart).masked_fill(squares.isinf(), torch.inf)
            if start <= position < start + len(block):
                found[int(position) - start] = torch.inf
            best = torch.cat([best, found]).sort().values[:k]
        distances[row] = best.sqrt().cpu().numpy()
    return distances, np.ones(len(positions), dtype=bool)
