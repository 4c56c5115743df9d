"""A run that kills its own process at a step: ``python -m tests.core.finetune.killed BASE WORK STEP``."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from core.finetune.base import Base
from core.finetune.results import CurvePoint
from tests.core.finetune import small

KILLED = {"epochs": 2.0, "checkpoint_steps": 3, "keep_adapter": True}


def main(folder: str, work: str, step: str) -> None:
    def report(point: CurvePoint, _: int) -> None:
        if point.step == int(step):
            os.kill(os.getpid(), signal.SIGKILL)

    base = Base.load(small.settings(Path(folder), **KILLED))
    base.run(small.ROWS, evaluation=small.EVALUATION, seed=1, work=Path(work), report=report)


if __name__ == "__main__":
    main(*sys.argv[1:])
