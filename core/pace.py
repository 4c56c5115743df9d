"""How long a score job may take: from earlier jobs of this installation, else a guess that says that it is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from core.errors import JobError
from core.indicators import losses_needed
from core.jobs.events import seconds_of
from core.jobs.folder import JobFolder
from core.lm import StudentSettings

CHARACTERS_PER_TOKEN = 4.0
PROMPT_TOKENS = 40.0
START_SECONDS = 10.0
# Sustained, not peak: a forward pass costs two operations per parameter and token.
_OPERATIONS_PER_SECOND = {"cpu": 4e10, "cuda": 4e13}
_TEXT_ROWS_PER_SECOND = 1000.0
_UNKNOWN_PARAMETERS = 1e9
_BYTES_PER_PARAMETER = 2.0
_LATEST_RUNS = 3
_FEWEST_ROWS = 100


@dataclass(frozen=True)
class Speed:
    """``start_seconds`` pass before the first row is scored (loading the model), then ``rows_per_second``."""

    start_seconds: float
    rows_per_second: float


@dataclass(frozen=True)
class PastRun:
    """What one score job of the past did: its student as JSON, the number of losses of a row, and its speed."""

    student: Mapping[str, Any] | None
    n_losses: int
    speed: Speed


@dataclass(frozen=True)
class Estimate:
    """``seconds`` a job may take. ``measured``: from earlier jobs; else a guess. ``basis`` says from what."""

    seconds: float
    measured: bool
    basis: str


def speed_of(events: Sequence[Mapping[str, Any]]) -> Speed | None:
    """The speed of a job's last attempt; None where it did too few rows to tell."""
    began: tuple[float, int] | None = None
    points: list[tuple[float, int]] = []
    for event in events:
        at, name = seconds_of(event.get("at")), event.get("event")
        if at is None:
            continue
        if name == "started":
            began, points = (at, int(event.get("done_rows", 0))), []
        elif name in ("progress", "shard"):
            points.append((at, int(event.get("done" if name == "progress" else "done_rows", 0))))
    if began is None or not points:
        return None
    (first_at, first), (last_at, last) = points[0], points[-1]
    if last - first < _FEWEST_ROWS or last_at <= first_at:
        return None
    rows_per_second = (last - first) / (last_at - first_at)
    return Speed(max(0.0, first_at - began[0] - (first - began[1]) / rows_per_second), rows_per_second)


def past_run(folder: JobFolder) -> PastRun | None:
    """Read what a score job did; None where it is of another kind, cannot be read, or did too few rows."""
    try:
        spec = folder.spec()
    except JobError:
        return None
    speed = speed_of(folder.events()) if spec.kind == "score" else None
    if speed is None:
        return None
    return PastRun(spec.params.get("student"), len(losses_needed(spec.params["indicators"])), speed)


def _alike(run: PastRun, student: StudentSettings | None, n_losses: int) -> bool:
    if bool(run.n_losses) != bool(n_losses):
        return False
    if not n_losses:
        return True
    then = run.student or {}
    return student is not None and (then.get("model"), then.get("device"), then.get("dtype")) == (
        student.model,
        student.device,
        student.dtype,
    )


def _folders(model: str) -> list[Path]:
    folder = Path(model).expanduser()
    if folder.is_dir():
        return [folder]
    from huggingface_hub.constants import HF_HUB_CACHE

    snapshots = Path(HF_HUB_CACHE) / f"models--{model.replace('/', '--')}" / "snapshots"
    return sorted(snapshots.iterdir()) if snapshots.is_dir() else []


def n_parameters(model: str) -> float | None:
    """Parameters of a model, from the size of its weights on this machine (two bytes each); None if not there."""
    for folder in _folders(model):
        for pattern in ("*.safetensors", "*.bin"):
            size = sum(path.stat().st_size for path in folder.glob(pattern))
            if size:
                return size / _BYTES_PER_PARAMETER
    return None


def _rounded(number: float) -> str:
    for unit, word in ((1e9, "billion"), (1e6, "million")):
        if number >= unit:
            return f"{number / unit:,.1f} {word}"
    return f"{max(100.0, round(number, -2)):,.0f}"


def estimate(
    *,
    n_rows: int,
    n_characters: int,
    indicators: Sequence[str],
    student: StudentSettings | None,
    past: Sequence[PastRun] = (),
) -> Estimate:
    """How long scoring ``n_rows`` rows with ``n_characters`` characters may take.

    ``past`` comes newest first. Jobs with the same model, device and dtype count; their speed is scaled by the number
    of losses. Without one the guess counts ten seconds to start, a token for four characters and 40 for each prompt,
    and operations by the size of the model.
    """
    n_losses = len(losses_needed(indicators))
    alike = [run for run in past if _alike(run, student, n_losses)][:_LATEST_RUNS]
    if alike:
        speed = median(run.speed.rows_per_second * max(1, run.n_losses) / max(1, n_losses) for run in alike)
        start = median(run.speed.start_seconds for run in alike)
        jobs = "the last job" if len(alike) == 1 else f"the last {len(alike)} jobs"
        what = "with this model" if n_losses else "of this kind"
        return Estimate(start + n_rows / speed, True, f"From {jobs} {what}: about {speed:,.0f} rows a second.")
    if not n_losses or student is None:
        return Estimate(
            START_SECONDS + n_rows / _TEXT_ROWS_PER_SECOND,
            False,
            "A rough guess: about 1,000 rows a second without a model, as no job of this kind has ended here yet.",
        )
    n_tokens = n_losses * (n_characters / CHARACTERS_PER_TOKEN * 0.75 + n_rows * PROMPT_TOKENS / 2)
    known = n_parameters(student.model)
    size = known or _UNKNOWN_PARAMETERS
    device = student.device.split(":")[0]
    seconds = 2 * size * n_tokens / _OPERATIONS_PER_SECOND.get(device, _OPERATIONS_PER_SECOND["cpu"])
    about = f"{_rounded(size)} parameters" if known else "an unknown size, taken as a billion parameters"
    return Estimate(
        START_SECONDS + seconds,
        False,
        f"A rough guess, it may be several times off: about {_rounded(n_tokens)} tokens through a model of "
        f"{about}. No job with this model has ended here yet.",
    )
