"""How long a score job may take: measured on a few of its rows, else from earlier jobs, else a guess that says so."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from core.errors import JobError, SettingsError
from core.indicators import Role, chosen, losses_needed, roles_needed
from core.jobs.events import seconds_of
from core.jobs.folder import JobFolder
from core.scoring import Models
from core.trial import Measured

CHARACTERS_PER_TOKEN = 4.0
PROMPT_TOKENS = 40.0
START_SECONDS = 10.0
_START_OF_A_ROLE = 5.0
# Sustained, not peak: a forward pass costs two operations per parameter and token.
_OPERATIONS_PER_SECOND = {"cpu": 4e10, "cuda": 4e13}
# Matrix products of vectors: 52,000 x 384 against themselves took 19 s on one core.
_NEIGHBOUR_OPERATIONS_PER_SECOND = {"cpu": 1e11, "cuda": 2e13}
_USUAL_DIMENSION = 384
_TEXT_ROWS_PER_SECOND = 1000.0
_UNKNOWN_PARAMETERS: Mapping[Role, float] = {"student": 1e9, "reward": 4e8, "unieval": 8e8, "embedder": 2.3e7}
_BYTES_PER_PARAMETER = 2.0
_LATEST_RUNS = 3
_FEWEST_ROWS = 100
_NAMES: Mapping[Role, str] = {
    "student": "the student",
    "reward": "the reward model",
    "unieval": "UniEval",
    "embedder": "the embedder",
}


@dataclass(frozen=True)
class Speed:
    """``start_seconds`` pass before the first row is scored (loading the model), then ``rows_per_second``."""

    start_seconds: float
    rows_per_second: float


@dataclass(frozen=True)
class PastRun:
    """What one score job of the past did: its models as JSON by role, their passes over a row, and its speed."""

    models: Mapping[str, Mapping[str, Any]]
    passes: Mapping[Role, int]
    speed: Speed


@dataclass(frozen=True)
class Estimate:
    """``seconds`` a job may take. ``measured``: on rows of it or from earlier jobs; else a guess. ``basis``: how."""

    seconds: float
    measured: bool
    basis: str


# --- what a row costs ---


def passes(indicators: Sequence[str]) -> dict[Role, int]:
    """How often each model reads a row: the student once a loss (up to 4), UniEval once a question (up to 3), a reward
    model and an embedder once. Indicators that need the student's tokenizer alone cost no pass."""
    found: dict[Role, int] = {}
    for role in roles_needed(indicators):
        if role == "student":
            n = len(losses_needed(indicators))
        elif role == "unieval":
            n = len({one.needs.dimension for one in chosen(indicators) if one.needs.dimension is not None})
        else:
            n = 1
        if n:
            found[role] = n
    return found


def _passes_left(indicators: Sequence[str], left: Mapping[str, int], *, n_rows: int) -> dict[Role, float]:
    """The passes over a row on average: a model that only some of the rows still need reads only those."""
    shares = {key: min(1.0, left.get(key, n_rows) / max(1, n_rows)) for key in indicators}
    needed = [key for key, share in shares.items() if share > 0]
    found: dict[Role, float] = {}
    for role, n in passes(needed).items() if needed else ():
        found[role] = n * max(share for key, share in shares.items() if role in roles_needed([key]))
    return found


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


def _size(role: Role, model: str) -> float:
    return n_parameters(model) or _UNKNOWN_PARAMETERS[role]


def _cost_of_a_row(models: Mapping[Role, str], per_role: Mapping[Role, float]) -> float:
    """Parameters times passes over all roles: what a row costs, but for the number of its tokens."""
    return sum(_size(role, models[role]) * n for role, n in per_role.items() if role in models)


def _n_tokens(role: Role, n_passes: float, *, n_rows: int, n_characters: int, max_length: int | None) -> float:
    """Tokens through a model. Half of the student's passes read a text without the prompt before it."""
    text = n_characters / CHARACTERS_PER_TOKEN
    each = text * 0.75 + n_rows * PROMPT_TOKENS / 2 if role == "student" else text + n_rows * PROMPT_TOKENS / 2
    return n_passes * (each if max_length is None else min(each, float(n_rows) * max_length))


def neighbour_seconds(n_queries: int, *, n_members: int, device: str, n_dimensions: int = _USUAL_DIMENSION) -> float:
    """How long it may take to compare every query with every member, exactly."""
    kind = device.split(":")[0]
    rate = _NEIGHBOUR_OPERATIONS_PER_SECOND.get(kind, _NEIGHBOUR_OPERATIONS_PER_SECOND["cpu"])
    if kind == "cpu":
        rate *= len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 2.0 * n_queries * n_members * n_dimensions / rate


# --- jobs of the past ---


def speed_of(events: Sequence[Mapping[str, Any]]) -> Speed | None:
    """The speed of a job's last attempt; None where it did too few rows to tell.

    Embedding comes before all scoring but costs every row, so its time counts as theirs. Finding neighbours does not
    grow with the rows but with their square: it is left out here, see :func:`neighbour_seconds`.
    """
    began: tuple[float, int] | None = None
    points: list[tuple[float, int]] = []
    stages = {"Embedding": 0.0, "Finding": 0.0}
    before, stage = 0.0, ""
    for event in events:
        at, name = seconds_of(event.get("at")), event.get("event")
        if at is None:
            continue
        if stage in stages:
            stages[stage] += max(0.0, at - before)
        before = at
        if name == "started":
            began, points, stage = (at, int(event.get("done_rows", 0))), [], ""
            stages = dict.fromkeys(stages, 0.0)
        elif name == "note":
            stage = str(event.get("message", "")).partition(" ")[0]
        elif name in ("progress", "shard"):
            stage = ""
            points.append((at, int(event.get("done" if name == "progress" else "done_rows", 0))))
    if began is None or not points:
        return None
    (first_at, first), (last_at, last) = points[0], points[-1]
    n_rows = last - first
    if n_rows < _FEWEST_ROWS or last_at <= first_at:
        return None
    scoring = (last_at - first_at) / n_rows
    start = first_at - began[0] - sum(stages.values()) - (first - began[1]) * scoring
    return Speed(max(0.0, start), 1.0 / (scoring + stages["Embedding"] / (last - began[1])))


def past_run(folder: JobFolder) -> PastRun | None:
    """Read what a score job did; None where it is of another kind, cannot be read, or did too few rows."""
    try:
        spec = folder.spec()
    except JobError:
        return None
    speed = speed_of(folder.events()) if spec.kind == "score" else None
    if speed is None:
        return None
    models = spec.params.get("models")
    if models is None:  # a job of before there were roles
        models = {"student": spec.params.get("student")}
    try:
        per_role = passes(spec.params["indicators"])
    except (SettingsError, KeyError):
        return None
    return PastRun({role: one for role, one in models.items() if one and role in per_role}, per_role, speed)


def _alike(run: PastRun, models: Models, per_role: Mapping[Role, float]) -> bool:
    """Whether the same models did the same work there, on the same device; how many passes may differ."""
    if set(run.passes) != set(per_role):
        return False
    for role in per_role:
        now, then = models.of(role), run.models.get(role, {})
        device = str(then.get("device", "")).split(":")[0]
        if now is None or (then.get("model"), device, then.get("dtype")) != (
            now.model,
            now.device.split(":")[0],
            now.dtype,
        ):
            return False
    return True


# --- the estimate ---


def _rounded(number: float) -> str:
    for unit, word in ((1e9, "billion"), (1e6, "million")):
        if number >= unit:
            return f"{number / unit:,.1f} {word}"
    return f"{max(100.0, round(number, -2)):,.0f}"


def _speed_words(rows_per_second: float) -> str:
    return f"{rows_per_second:,.0f}" if rows_per_second >= 10 else f"{rows_per_second:,.2g}"


def estimate(
    *,
    n_rows: int,
    n_characters: int,
    indicators: Sequence[str],
    models: Models,
    past: Sequence[PastRun] = (),
    n_members: int | None = None,
    left: Mapping[str, int] | None = None,
    trial: Measured | None = None,
) -> Estimate:
    """How long scoring ``n_rows`` rows with ``n_characters`` characters may take.

    ``trial`` is what some of these rows took, short and long ones as they come. Without one, ``past`` (newest first) is
    looked through for jobs with the same models, devices and dtypes, whose speed is scaled by the passes of the models
    over a row. Without these the guess counts ten seconds to start, a token for four characters and 40 for
    each prompt, and operations by the size of the models. Finding neighbours among ``n_members`` rows comes on top.
    ``left`` says how many of the rows lack each indicator (all of them where it is silent): a model reads only those.
    """
    per_role = _passes_left(indicators, left or {}, n_rows=n_rows)
    among = n_members or n_rows
    embedder = models.embedder if "embedder" in per_role else None
    search = 0.0 if embedder is None else neighbour_seconds(n_rows, n_members=among, device=embedder.device)
    if trial is not None:
        return _from_trial(trial, n_rows=n_rows, search=search)
    alike = [run for run in past if _alike(run, models, per_role)][:_LATEST_RUNS]
    if alike:
        return _from_past(alike, models, per_role, n_rows=n_rows, search=search)
    if not per_role:
        return Estimate(
            START_SECONDS + n_rows / _TEXT_ROWS_PER_SECOND,
            False,
            "A rough guess: about 1,000 rows a second without a model, as no job of this kind has ended here yet.",
        )
    return _guess(models, per_role, n_rows=n_rows, n_characters=n_characters, search=search)


def _from_trial(trial: Measured, *, n_rows: int, search: float) -> Estimate:
    took = (
        f"{trial.n_rows} rows of this dataset took {trial.work_seconds:.1f} s after {trial.load_seconds:.1f} s to load"
    )
    basis = f"Measured: {took}: about {_speed_words(trial.rows_per_second)} rows a second."
    if search > 1:
        basis += " Finding neighbours is reckoned, not measured."
    return Estimate(trial.load_seconds + n_rows / trial.rows_per_second + search, True, basis)


def _from_past(
    alike: Sequence[PastRun], models: Models, per_role: Mapping[Role, float], *, n_rows: int, search: float
) -> Estimate:
    names: dict[Role, str] = {role: one.model for role in per_role if (one := models.of(role)) is not None}
    now = _cost_of_a_row(names, per_role) or 1.0
    speed = median(run.speed.rows_per_second * ((_cost_of_a_row(names, run.passes) or 1.0) / now) for run in alike)
    start = median(run.speed.start_seconds for run in alike)
    jobs = "the last job" if len(alike) == 1 else f"the last {len(alike)} jobs"
    what = "of this kind" if not per_role else "with this model" if len(per_role) == 1 else "with these models"
    return Estimate(
        start + n_rows / speed + search, True, f"From {jobs} {what}: about {_speed_words(speed)} rows a second."
    )


def _guess(
    models: Models, per_role: Mapping[Role, float], *, n_rows: int, n_characters: int, search: float
) -> Estimate:
    seconds = START_SECONDS + search
    parts = []
    for i, (role, n) in enumerate(per_role.items()):
        settings = models.of(role)
        if settings is None:
            continue
        known = n_parameters(settings.model)
        tokens = _n_tokens(role, n, n_rows=n_rows, n_characters=n_characters, max_length=settings.max_length)
        device = settings.device.split(":")[0]
        rate = _OPERATIONS_PER_SECOND.get(device, _OPERATIONS_PER_SECOND["cpu"])
        seconds += 2 * _size(role, settings.model) * tokens / rate + (_START_OF_A_ROLE if i else 0.0)
        size = f"{_rounded(known)} parameters" if known else f"unknown size, taken as {_rounded(_size(role, ''))}"
        parts.append(f"{_rounded(tokens)} tokens through {_NAMES[role]} ({size})")
    return Estimate(
        seconds,
        False,
        f"A rough guess, it may be several times off: about {', '.join(parts)}. No job with "
        f"{'this model' if len(parts) == 1 else 'these models'} has ended here yet.",
    )
