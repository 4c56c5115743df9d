"""How fast exact neighbours are found, against scikit-learn's brute force. Measured, never asserted.

    python -m tests.benchmarks.knn_speed [--rows 52000 --dimensions 384 --neighbour 6] [--faiss]

Both sides run in this process with as many threads as torch is given (OMP_NUM_THREADS), on random vectors of length 1.
The bar is a ratio of 2. ``--faiss`` measures faiss.knn (exact as well) as a third.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from core.neighbours import neighbour_distances


def _vectors(rows: int, dimensions: int) -> np.ndarray:
    made = np.random.default_rng(0).standard_normal((rows, dimensions), dtype=np.float32)
    made /= np.sqrt(np.einsum("nd,nd->n", made, made))[:, None]  # in place: no more memory than the vectors
    return made


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print the seconds of each, their ratio, the largest difference of a distance and the peak of memory."""
    import torch
    from sklearn.neighbors import NearestNeighbors

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=52_000)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--neighbour", type=int, default=6)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--faiss", action="store_true")
    args = parser.parse_args()

    vectors = _vectors(args.rows, args.dimensions)
    few = vectors[:300]
    neighbour_distances(few, np.arange(300), neighbours=[args.neighbour], device=args.device)  # load what it needs
    before = _peak_mb()
    started, cpu = time.perf_counter(), time.process_time()
    ours = neighbour_distances(vectors, np.arange(args.rows), neighbours=[args.neighbour], device=args.device)[:, 0]
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    peak = _peak_mb()

    started, cpu = time.perf_counter(), time.process_time()
    search = NearestNeighbors(n_neighbors=args.neighbour, algorithm="brute").fit(vectors)
    theirs = search.kneighbors()[0][:, -1]
    their_seconds, their_cpu_seconds = time.perf_counter() - started, time.process_time() - cpu

    print(f"{args.rows} x {args.dimensions}, neighbour {args.neighbour}, threads {torch.get_num_threads()}")
    print(f"ours          {seconds:8.2f} s on {args.device} ({cpu_seconds:.2f} s of processor time)")
    print(f"scikit-learn  {their_seconds:8.2f} s ({their_cpu_seconds:.2f} s of processor time)")
    if args.faiss:
        import faiss

        faiss.omp_set_num_threads(torch.get_num_threads())
        started, cpu = time.perf_counter(), time.process_time()
        faiss.knn(vectors, vectors, args.neighbour + 1)
        faiss_seconds, faiss_cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
        print(f"faiss         {faiss_seconds:8.2f} s ({faiss_cpu_seconds:.2f} s of processor time)")
    print(f"ratio         {their_seconds / seconds:8.2f} ({their_cpu_seconds / cpu_seconds:.2f} in processor time)")
    print(f"peak memory   {peak:8.0f} MB after ours, {peak - before:.0f} MB of them beside the vectors")
    print(f"largest difference of a distance {np.abs(ours - theirs).max():.1e}")


if __name__ == "__main__":
    main()
