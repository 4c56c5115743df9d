"""A run's own folder: what its checkpoints belong to, the adapter that stays, and the memory that the run took."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from core.finetune.curve import CURVE_FILE
from core.finetune.settings import FinetuneSettings
from core.finetune.texts import TrainRows
from core.finetune.training import CHECKPOINTS, save_adapter

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

ADAPTER = "adapter"
RUN_FILE = "run.json"
"""What the checkpoints of a run's folder belong to. Those of another run are not gone on from."""


def identity_of(settings: FinetuneSettings, rows: TrainRows, seed: int) -> str:
    """A digest of all that a run follows from; what only says where and how it is kept is left out."""
    params = {
        key: value for key, value in settings.to_params().items() if key not in ("checkpoint_steps", "keep_adapter")
    }
    digest = hashlib.sha256(json.dumps([params, seed], sort_keys=True).encode())
    for row in rows.rows:
        digest.update(b"%d,%d;" % (row.start, len(row.ids)))
        digest.update(row.ids.tobytes())
    return digest.hexdigest()


def begin(work: Path, identity: str, settings: FinetuneSettings) -> int:
    """Make the folder this run's; return how many rows are in memory at once, as an earlier attempt found out."""
    try:
        before = json.loads((work / RUN_FILE).read_text(encoding="utf-8"))
        if before["identity"] == identity:
            return int(before["micro_rows"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # a new run, or one that was killed before it wrote a checkpoint
    micro_rows = settings.micro_batch_size or settings.batch_size
    restart(work, identity, micro_rows)
    return micro_rows


def restart(work: Path, identity: str, micro_rows: int) -> None:
    """Make the folder that of a run which begins anew."""
    shutil.rmtree(work / CHECKPOINTS, ignore_errors=True)
    shutil.rmtree(work / ADAPTER, ignore_errors=True)
    (work / CURVE_FILE).unlink(missing_ok=True)
    partial = work / f"{RUN_FILE}.partial"
    partial.write_text(json.dumps({"identity": identity, "micro_rows": micro_rows}), encoding="utf-8")
    partial.replace(work / RUN_FILE)


def forget(work: Path) -> None:
    """Drop the checkpoints: the run has ended: nobody goes on from its checkpoints."""
    (work / RUN_FILE).unlink(missing_ok=True)
    shutil.rmtree(work / CHECKPOINTS, ignore_errors=True)


def keep(adapter: PeftModel, folder: Path) -> None:
    """Save the adapter, whole or not at all."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    save_adapter(adapter, partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)


class PeakMemory:
    """The most memory since it was made, on a GPU; of the process since its start, on a CPU."""

    def __init__(self, model: PreTrainedModel) -> None:
        import torch

        self._device = model.device
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)

    def bytes(self) -> int:
        """Bytes."""
        import torch

        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        try:
            import resource
        except ImportError:  # not on Windows
            import psutil

            return int(psutil.Process().memory_info().peak_wset)
        return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024
