"""The first stages of a score job with kNN distances: embed what has no vector yet, then look for neighbours.

Vectors never lie in memory together: those of a shard go to ``vectors/``, those that the server had come in
``base.parquet``, and both are laid out in one memory map, each row as often as the dataset has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from core.embedding import Embedder, EmbedderSettings
from core.errors import JobError
from core.example import Example
from core.indicators import Value
from core.neighbours import neighbour_distances
from core.pipeline import run_pipeline

if TYPE_CHECKING:
    import pyarrow as pa

    from core.jobs.folder import JobFolder

Note = Callable[[str], None]


def examples_of(rows: pa.Table) -> list[Example]:
    """The examples of rows of a job's input."""
    columns = (rows[name].to_pylist() for name in ("instruction", "input", "output"))
    return [Example(*texts) for texts in zip(*columns, strict=True)]


def embed_rows(folder: JobFolder, settings: EmbedderSettings, *, note: Note) -> None:
    """Embed the rows of the job that have no vector yet; shards whose vectors are on the disk are skipped.

    Raises:
        ModelError: the embedder cannot be loaded or fails.
        JobError: the input is damaged, or vectors cannot be written.
    """
    lacking = _lacking(folder)
    finished = folder.finished_vectors()
    ranges = [one for one in folder.shard_ranges() if lacking[one[1] : one[2]].any()]
    missing = [one for one in ranges if one[0] not in finished]
    if not missing:
        return
    note(f"Loading the embedding model {settings.model}")
    embedder = Embedder.load(settings)
    total = sum(int(lacking[start:stop].sum()) for _, start, stop in ranges)
    done = total - sum(int(lacking[start:stop].sum()) for _, start, stop in missing)

    def read_shard(shard: tuple[int, int, int]) -> tuple[int, pa.Table]:
        index, start, stop = shard
        return index, read(start, stop).filter(lacking[start:stop])

    def embed(found: tuple[int, pa.Table]) -> tuple[int, pa.Table]:
        nonlocal done
        index, rows = found
        note(f"Embedding {done:,} of {total:,} rows")
        table = _embedded(rows, embedder)
        done += rows.num_rows
        return index, table

    with folder.reading_input(columns=("example_id", "instruction", "input", "output")) as read:
        run_pipeline(missing, read=read_shard, work=embed, write=lambda made: folder.write_vectors(*made))


def _lacking(folder: JobFolder) -> np.ndarray:
    """Which rows of the input have no vector in the base: bool [rows]."""
    columns = folder.input_columns()
    if "has_vector" not in columns:
        return np.ones(folder.spec().n_rows, bool)
    return ~folder.input_table(columns=["has_vector"])["has_vector"].to_numpy()


def _embedded(rows: pa.Table, embedder: Embedder) -> pa.Table:
    """Columns example_id, vector (NaN where there is none), reason and transient."""
    import pyarrow as pa

    found = embedder.embed(examples_of(rows))
    flat = np.ascontiguousarray(found.vectors, np.float32).reshape(-1)
    return pa.table(
        {
            "example_id": rows["example_id"],
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(flat), embedder.n_dimensions),
            "reason": pa.array(found.reasons, pa.string()),
            "transient": pa.array(found.transient, pa.bool_()),
        }
    )


def find_distances(
    folder: JobFolder, wanted: np.ndarray, *, neighbours: Sequence[int], device: str, note: Note
) -> None:
    """Write the distances of the rows that are ``wanted`` (bool [rows]) to their neighbours among all rows.

    The array is float64 [rows, len(neighbours)]: NaN where a row is not wanted, has no vector, or has too few others.

    Raises:
        JobError: a file is damaged, or the disk is full.
    """
    if folder.distances_path.exists():
        return
    note("Finding neighbours")
    ids, places, n_copies = _places(folder)
    distances = np.full((len(wanted), len(neighbours)), np.nan)
    n_dimensions = _n_dimensions(folder)
    if n_dimensions is not None:
        try:
            vectors = _laid_out(folder, ids, places, n_copies, n_dimensions=n_dimensions)
            asked = folder.input_table(columns=["example_id"])["example_id"].to_numpy()[wanted]
            queries = places[np.searchsorted(ids, asked)]
            distances[wanted] = neighbour_distances(
                vectors,
                queries,
                neighbours=neighbours,
                device=device,
                on_progress=lambda done, total: note(f"Finding neighbours of {done:,} of {total:,} rows"),
            )
            del vectors
        finally:
            folder.scratch_path.unlink(missing_ok=True)
    folder.write_distances(distances)


def _places(folder: JobFolder) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids of all rows, rising; where the first copy of each lies among all copies; how many copies it has."""
    ids, n_copies = _rows_of_base(folder)
    order = np.argsort(ids, kind="stable")
    ids, n_copies = ids[order], n_copies[order]
    return ids, np.cumsum(n_copies) - n_copies, n_copies


def _rows_of_base(folder: JobFolder) -> tuple[np.ndarray, np.ndarray]:
    if not folder.has_base:  # the rows of the job are all there are
        ids = folder.input_table(columns=["example_id"])["example_id"].to_numpy()
        return ids, np.ones(len(ids), np.int64)
    batches = list(folder.base_batches(columns=["example_id", "n_copies"]))
    if not batches:
        raise JobError(f"base.parquet of job {folder.job_id} has no rows; submit the job again.")
    ids, n_copies = ([batch[name].to_numpy() for batch in batches] for name in ("example_id", "n_copies"))
    return np.concatenate(ids), np.concatenate(n_copies)


def _given(folder: JobFolder) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Ids [n] and vectors [n, d] that came with the job, then those that it made, in pieces."""
    for batch in folder.base_batches(columns=["example_id", "vector"]):
        column = batch["vector"]
        has = column.is_valid().to_numpy(zero_copy_only=False)
        if has.any():
            yield batch["example_id"].to_numpy()[has], column.flatten().to_numpy().reshape(int(has.sum()), -1)
    for index in sorted(folder.finished_vectors()):
        table = folder.read_vectors(index)
        assert table is not None
        made = table.filter(table["reason"].is_null()).combine_chunks()
        if made.num_rows:
            vectors = made["vector"].combine_chunks().flatten().to_numpy()
            yield made["example_id"].to_numpy(), vectors.reshape(made.num_rows, -1)


def _n_dimensions(folder: JobFolder) -> int | None:
    return next((vectors.shape[1] for _, vectors in _given(folder)), None)


def _laid_out(
    folder: JobFolder, ids: np.ndarray, places: np.ndarray, n_copies: np.ndarray, *, n_dimensions: int
) -> np.ndarray:
    """All vectors in a memory map, every row as often as the dataset has it; NaN where there is none."""
    total = int(n_copies.sum())
    try:
        laid = np.memmap(folder.scratch_path, np.float32, "w+", shape=(total, n_dimensions))
    except OSError as error:
        raise JobError(f"The vectors of job {folder.job_id} could not be laid out: {error.strerror}.") from error
    has = np.zeros(total, bool)
    for some, vectors in _given(folder):
        row = np.searchsorted(ids, some)
        copies = n_copies[row]
        first = np.repeat(places[row], copies)
        place = first + np.arange(len(first)) - np.repeat(np.cumsum(copies) - copies, copies)
        laid[place] = np.repeat(vectors, copies, axis=0)
        has[place] = True
    laid[~has] = np.nan
    laid.flush()
    del laid  # what was written leaves memory; reading brings in what is read
    return np.memmap(folder.scratch_path, np.float32, "r", shape=(total, n_dimensions))


class Distances:
    """The distances of a job as values, shard by shard; what cannot be had has its reason."""

    def __init__(self, folder: JobFolder, neighbours: Sequence[int]) -> None:
        self._folder = folder
        self._neighbours = list(neighbours)
        self._all = folder.read_distances()
        self._n_vectors: int | None = None

    def of_shard(self, index: int, ids: Sequence[int], start: int) -> list[dict[int, Value]]:
        """Neighbour number -> value, for each row of a shard that begins at row ``start``."""
        cells = np.asarray(self._all[start : start + len(ids)])
        failed = self._without_vector(index) if np.isnan(cells).any() else {}
        return [
            {
                i: Value(float(cell)) if np.isfinite(cell) else failed.get(example_id) or self._too_few(i)
                for i, cell in zip(self._neighbours, row, strict=True)
            }
            for example_id, row in zip(ids, cells, strict=True)
        ]

    def _without_vector(self, index: int) -> dict[int, Value]:
        table = self._folder.read_vectors(index)
        if table is None:
            return {}
        made = table.drop_columns(["vector"]).filter(table["reason"].is_valid()).to_pylist()
        return {row["example_id"]: Value(None, row["reason"], row["transient"]) for row in made}

    def _too_few(self, i: int) -> Value:
        if self._n_vectors is None:
            ids, _, n_copies = _places(self._folder)
            some = [n_copies[np.searchsorted(ids, found)].sum() for found, _ in _given(self._folder)]
            self._n_vectors, self._n_rows = int(sum(some)), int(n_copies.sum())
        others, what = self._n_vectors - 1, "row" if self._n_vectors == 2 else "rows"
        embedded = "" if self._n_vectors == self._n_rows else " with an embedding"
        number = f"so there is no nearest neighbour number {i}."
        return Value(None, f"The dataset has only {max(0, others)} other {what}{embedded}, {number}")
