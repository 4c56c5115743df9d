"""Batches under a token budget, longest first, for every model that scores: student, reward model, UniEval, embedder.

When memory runs out the budget is halved, logged once, and the work goes on; an item that does not fit alone is given
up.
On a CPU several batches run at once, one thread each: threads that share one batch wait for each other at every layer,
which on a machine with other work to do was measured to be three to five times slower.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
Progress = Callable[[int, int], None]
"""Called with the tokens done and the tokens in all."""

CPU_BATCH_TOKENS = 2048
"""Larger batches are no faster on a CPU: they fall out of its caches."""

log = logging.getLogger("core.batches")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch, or of the system below it, says that memory ran out."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return "out of memory" in text or "not enough memory" in text or "can't allocate memory" in text


def plan(
    lengths: Sequence[int],
    order: Sequence[int],
    *,
    budget: int,
    groups: Sequence[int] | None = None,
    padded: bool = True,
) -> list[list[int]]:
    """Part ``order`` (indexes of items, within each group from the longest to the shortest) into batches.

    A batch takes as many items as fit into ``budget`` tokens, at least one. ``padded``: every item costs as much as the
    longest of its batch, which comes first; else what it has. A batch does not mix ``groups``.
    """
    batches: list[list[int]] = []
    cost, width = 0, 0
    for i in order:
        length = max(1, lengths[i])
        batch = batches[-1] if batches else []
        cost += width if padded and batch else length
        if not batch or cost > budget or (groups is not None and groups[i] != groups[batch[0]]):
            batch, cost, width = [], length, length
            batches.append(batch)
        batch.append(i)
    return batches


class Batcher:
    """Runs items through a model in batches. Keeps what it learnt about memory from one call to the next.

    ``budget`` is in tokens; ``workers`` batches run at once (on a CPU: the number of torch's threads).
    """

    def __init__(self, budget: int, *, workers: int = 1, what: str = "The model") -> None:
        self.budget = budget
        self.workers = workers
        self._what = what
        self._told = False

    @classmethod
    def on(
        cls, device: torch.device, *, budget: int, cpu_tokens: int = CPU_BATCH_TOKENS, gpu_workers: int = 2, what: str
    ) -> Batcher:
        """A batcher that suits the device: on a CPU ``cpu_tokens`` at most, a batch for each of torch's threads.

        On a GPU several workers let one lay out the next batch while another one's is computed.
        """
        import torch

        if device.type == "cpu":
            return cls(min(budget, cpu_tokens), workers=torch.get_num_threads(), what=what)
        return cls(budget, workers=gpu_workers, what=what)

    def run(
        self,
        lengths: Sequence[int],
        run_batch: Callable[[list[int]], Sequence[T]],
        *,
        groups: Sequence[int] | None = None,
        padded: bool = True,
        on_progress: Progress | None = None,
    ) -> list[T | None]:
        """Return for every item what ``run_batch`` gave for it; None where it does not fit into memory alone.

        ``run_batch`` gets indexes of items, the longest first, and returns one result for each, in their order. It may
        be called from several threads at once, in inference mode, and raises what torch raises. For ``groups`` and
        ``padded`` see :func:`plan`.
        """
        results: list[T | None] = [None] * len(lengths)
        of = groups if groups is not None else [0] * len(lengths)
        pending = sorted(range(len(lengths)), key=lambda i: (of[i], -lengths[i]))
        total, done, workers = sum(lengths), 0, self.workers
        while pending:
            batches = plan(lengths, pending, budget=self.budget, groups=groups, padded=padded)
            pending = []
            for batch, found, begun in _each(batches, run_batch, workers):
                if found is None and not (begun and workers == 1 and len(batch) == 1):
                    pending.extend(batch)
                    continue
                for i, result in zip(batch, [None] * len(batch) if found is None else found, strict=True):
                    results[i] = result
                done += sum(lengths[i] for i in batch)
                if on_progress is not None:
                    on_progress(done, total)
            if pending:
                # From here on smaller batches, one at a time: what ran at once may have left too little for each.
                largest = max(sum(lengths[i] for i in batch) for batch in batches)
                self.budget, workers = max(1, min(self.budget, largest) // 2), 1
                pending.sort(key=lambda i: (of[i], -lengths[i]))
                self._tell()
        return results

    def _tell(self) -> None:
        if not self._told:
            log.warning("%s ran out of memory; batches are smaller from here on.", self._what)
        self._told = True


def _each(
    batches: Sequence[list[int]], run_batch: Callable[[list[int]], Sequence[T]], workers: int
) -> Iterator[tuple[list[int], Sequence[T] | None, bool]]:
    """Every batch as it is done, what it gave (None: memory ran out), and whether it was begun.

    After a batch of several items that ran out of memory the others are not begun: they would only do the same.
    """
    full = threading.Event()

    def run(batch: list[int]) -> tuple[list[int], Sequence[T] | None, bool]:
        if full.is_set():
            return batch, None, False
        found = _tried(run_batch, batch)
        if found is None and (workers > 1 or len(batch) > 1):
            full.set()
        return batch, found, True

    if workers == 1 or len(batches) == 1:
        yield from map(run, batches)
        return
    import torch

    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            running = [pool.submit(run, batch) for batch in batches]
            try:
                for future in as_completed(running):
                    yield future.result()
            finally:
                pool.shutdown(cancel_futures=True)
    finally:
        torch.set_num_threads(threads)


def _tried(run_batch: Callable[[list[int]], Sequence[T]], batch: list[int]) -> Sequence[T] | None:
    """What the batch gives; None if memory ran out."""
    import torch

    try:
        with torch.inference_mode():
            return run_batch(batch)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None
