"""What the Studies page reads of a study: its runs with their states, loss curves, means of indicators, its jobs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st

from core.charts.studies import Line, Panel
from core.errors import AssayError
from core.indicators import FIRST_OUTPUTS
from core.jobs.status import JobStatus
from db import jobs, studies, study_means
from db.service import Service
from db.store import Store
from pages import _rows, _ui

Run = Mapping[str, Any]
Point = tuple[int, float, float | None]  # step, epoch, training loss in nats
STATES = {
    "done": "✓ done",
    "running": "▶ at work",
    "waiting": "◷ waiting",
    "open": "– not run",
    "diverged": "✗ diverged",
    "failed": "✗ failed",
    "skipped": "– skipped",
}
KINDS = {
    "multivariate": "Multivariate",
    "univariate": "Univariate",
    "size": "Size",
    "comparison": "Rule against random",
    "search": "Size search",
    "single": "Single",
    "experiment": "Does it help?",
}


@dataclass(frozen=True)
class Seen:
    """A study at one moment: runs as of ``db.studies`` with a ``state``; ``statuses`` of its jobs, the latest last."""

    study: Mapping[str, Any]
    runs: tuple[Run, ...]
    statuses: tuple[JobStatus, ...]
    lines: tuple[Line, ...]

    @property
    def study_id(self) -> int:
        """Its id."""
        return int(self.study["study_id"])

    @property
    def at_work(self) -> bool:
        """Whether a job of it waits or runs."""
        return any(not status.ended for status in self.statuses)

    @property
    def base_loss(self) -> float | None:
        """Evaluation loss of the untrained base, where it was run."""
        return next((run["loss_nats"] for run in self.runs if run["role"] == "base"), None)

    def of(self, *states: str) -> list[Run]:
        """Runs in these states."""
        return [run for run in self.runs if run["state"] in states]


def look(service: Service, study_id: int) -> Seen:
    """The study as it is now.

    Raises:
        StoreError: it is not there any more.
    """
    study = studies.study(service.store, study_id)
    found = studies.runs(service.store, [study_id])
    live = service.scheduler.statuses()
    statuses = tuple(live[job_id] for job_id in study["job_ids"] if job_id in live)
    waiting, running = _in_work(service, statuses)
    marked = tuple({**run, "state": _state(run, waiting, running)} for run in found)
    return Seen(study, marked, statuses, tuple(_lines(service, marked, statuses)))


def is_settled(service: Service, seen: Seen) -> bool:
    """Whether nothing of it is at work and the store has taken up every finished run."""
    if seen.at_work:
        return False
    return all(jobs.is_settled(service.store, status) for status in seen.statuses)


def _state(run: Run, waiting: set[int], running: set[int]) -> str:
    if run["number"] in running:
        return "running"
    if run["number"] in waiting:
        return "waiting"
    return str(run["outcome"] or "open")


@st.cache_data(max_entries=256, show_spinner=False)
def numbers_of(_service: Service, path: str, job_id: str) -> list[int]:
    """The numbers of the runs that a job does, in order; never changes."""
    try:
        return [int(n) for n in _service.job_folder(job_id).input_table(columns=["number"])["number"].to_pylist()]
    except AssayError:
        return []


def _in_work(service: Service, statuses: Sequence[JobStatus]) -> tuple[set[int], set[int]]:
    """Numbers of the runs that wait in a job, and of those that are at work: the first unfinished one of a job."""
    waiting: set[int] = set()
    running: set[int] = set()
    for status in statuses:
        if status.ended:
            continue
        finished = service.job_folder(status.job_id).finished_shards()
        numbers = numbers_of(service, str(service.store.path), status.job_id)
        left = [number for index, number in enumerate(numbers) if index not in finished]
        if left and status.state in ("running", "cancelling"):
            running.add(left.pop(0))
        waiting.update(left)
    return waiting, running


# --- loss curves ---


@st.cache_data(max_entries=16, show_spinner=False)
def _stored_curves(
    _store: Store, path: str, results: tuple[int, ...], run_ids: tuple[int, ...]
) -> dict[int, list[Point]]:
    """Curves of finished runs by run; ``results`` are their latest results, which never change."""
    table = studies.curves(_store, run_ids)
    found: dict[int, list[Point]] = {}
    columns = (table.column(name).to_pylist() for name in ("run_id", "step", "epoch", "loss_nats"))
    for run_id, step, epoch, loss in zip(*columns, strict=True):
        found.setdefault(run_id, []).append((step, epoch, loss))
    return found


def _lines(service: Service, runs: Sequence[Run], statuses: Sequence[JobStatus]) -> list[Line]:
    """A line of each run with a curve: of finished ones from the store, of those at work from their job's folder."""
    finished = [run for run in runs if run["result_id"] is not None]
    stored = _stored_curves(
        service.store,
        str(service.store.path),
        tuple(run["result_id"] for run in finished),
        tuple(run["run_id"] for run in finished),
    )
    active = [status.job_id for status in statuses if not status.ended]
    live = _live_curves(service, active, {run["number"] for run in runs if run["state"] == "running"})
    found = []
    for run in runs:
        points = live.get(run["number"]) if run["state"] == "running" else stored.get(run["run_id"])
        if points:
            steps, epochs, losses = zip(*points, strict=True)
            state = run["state"] if run["state"] in ("running", "done") else "bad"
            found.append(Line(run["run_id"], run["label"], run["role"], state, steps, epochs, losses))
    return found


def _live_curves(service: Service, job_ids: Sequence[str], numbers: Collection[int]) -> dict[int, list[Point]]:
    """Curves of the runs that are at work, by number: only these files grow."""
    if not numbers:
        return {}
    from core.finetune.curve import CURVE_FILE, read_curve

    found: dict[int, list[Point]] = {}
    for job_id in job_ids:
        folder = service.job_folder(job_id)
        for number in numbers_of(service, str(service.store.path), job_id):
            if number in numbers:
                points = read_curve(folder.run_path(number) / CURVE_FILE)
                found[number] = [(point.step, point.epoch, point.loss_nats) for point in points]
    return found


# --- indicators ---


def usual_keys(keys: Sequence[str]) -> list[str]:
    """Of the keys of indicator columns those that people ask for first: no raw losses, no second unit of a length."""
    return [key for key in keys if key.partition("@")[0] in FIRST_OUTPUTS] or list(keys)


def chosen_keys(labels: Mapping[str, str], *, key: str, unusual: Collection[str] = ()) -> list[str]:
    """Which of the indicators (key -> label) are shown; kept in the URL (``indicators``), the usual ones need none.

    ``unusual`` ones are shown only where they are asked for.
    """
    usual = usual_keys([one for one in labels if one not in unusual] or list(labels))
    asked = [one for one in st.query_params.get("indicators", "").split(",") if one in labels] or usual
    if len(labels) < 2:
        return list(labels)
    with st.popover(f"Indicators ({len(asked)} of {len(labels)})", icon=":material/checklist:"):
        chosen = st.multiselect(
            "Indicators to look at",
            list(labels),
            default=asked,
            format_func=labels.__getitem__,
            key=f"{key}-indicators-{_rows.identity(tuple(labels), tuple(usual))}",
        )
    if chosen == usual or not chosen:
        st.query_params.pop("indicators", None)
    else:
        st.query_params["indicators"] = ",".join(chosen)
    return chosen or asked


@st.cache_data(max_entries=32, show_spinner="Taking the means of the indicators …")
def means(
    _store: Store, path: str, version: str, dataset_ids: tuple[int, ...]
) -> tuple[list[Panel], dict[int, dict[str, float | None]]]:
    """The indicators of these datasets as panels, and dataset_id -> key -> mean (None where there is none)."""
    columns = study_means.indicator_columns(_store, dataset_ids)
    if not columns:
        return [], {}
    found = study_means.indicator_means(_store, dataset_ids, columns)
    by_dataset = {
        dataset_id: {
            column.key: None if pd.isna(value) else float(value) for column, value in zip(columns, line, strict=True)
        }
        for dataset_id, line in zip(found.dataset_ids, found.mean, strict=True)
    }
    return [Panel(column.key, column.label) for column in columns], by_dataset


def runs_table(
    runs: Sequence[Run], panels: Sequence[Panel], by_dataset: Mapping[int, Mapping[str, float | None]]
) -> pd.DataFrame:
    """What ``python -m core fit`` reads: a line a run, its evaluation loss, and a column for each indicator's mean."""
    return pd.DataFrame(
        [
            {
                "run_id": run["run_id"],
                "label": run["label"],
                "role": run["role"],
                "n_rows": run["n_rows"],
                "seed": run["seed"],
                "outcome": run["outcome"],
                "reason": run["reason"],
                "loss_nats": run["loss_nats"],
                "train_loss_nats": run["train_loss_nats"],
                "seconds": run["seconds"],
                **{panel.key: by_dataset.get(run["dataset_id"], {}).get(panel.key) for panel in panels},
            }
            for run in runs
        ]
    )


def loss_words(run: Run) -> str:
    """A run's evaluation loss for people."""
    return _ui.number(run["loss_nats"], 4)
