"""How long a score job may take: measured where there is something to measure, else a guess that says so."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from core import pace
from core.jobs.folder import JobFolder
from core.jobs.spec import JobSpec
from core.lm import StudentSettings

START = datetime(2026, 1, 1)
STUDENT = StudentSettings(model="/models/nowhere")


def told(seconds: float, event: str, **fields: object) -> dict:
    return {"at": (START + timedelta(seconds=seconds)).isoformat(), "event": event, **fields}


def test_speed_counts_rows_after_the_first_report_and_the_start_apart() -> None:
    events = [
        told(0, "started", done_rows=0),
        told(12, "progress", done=40),
        told(30, "shard", index=0, done_rows=400),
    ]
    speed = pace.speed_of(events)
    assert speed is not None
    assert speed.rows_per_second == pytest.approx(20.0)
    assert speed.start_seconds == pytest.approx(10.0)


def test_only_the_last_attempt_counts() -> None:
    events = [
        told(0, "started", done_rows=0),
        told(1, "shard", index=0, done_rows=1000),
        told(500, "started", done_rows=1000),
        told(501, "progress", done=1010),
        told(511, "shard", index=1, done_rows=1510),
    ]
    speed = pace.speed_of(events)
    assert speed is not None
    assert speed.rows_per_second == pytest.approx(50.0)


@pytest.mark.parametrize(
    "events",
    [
        [],
        [told(0, "started", done_rows=0)],
        [told(0, "started", done_rows=0), told(9, "progress", done=10), told(10, "shard", done_rows=24)],
        [{"event": "started"}, {"event": "shard", "done_rows": 400}],
    ],
)
def test_too_little_to_tell_gives_no_speed(events: list[dict]) -> None:
    assert pace.speed_of(events) is None


def run(n_losses: int = 4, rows_per_second: float = 10.0, **student: object) -> pace.PastRun:
    settings = {"model": STUDENT.model, "device": "cpu", "dtype": "float32", **student}
    return pace.PastRun(settings, n_losses, pace.Speed(5.0, rows_per_second))


def test_an_estimate_comes_from_jobs_with_the_same_model() -> None:
    found = pace.estimate(
        n_rows=100,
        n_characters=40_000,
        indicators=["ifd", "r_ifd"],
        student=STUDENT,
        past=[run(rows_per_second=10.0), run(model="other", rows_per_second=1000.0)],
    )
    assert found.measured
    assert found.seconds == pytest.approx(15.0)
    assert "last job" in found.basis


def test_speed_is_scaled_by_the_number_of_losses() -> None:
    found = pace.estimate(
        n_rows=100, n_characters=1, indicators=["ifd"], student=STUDENT, past=[run(n_losses=4, rows_per_second=10.0)]
    )
    assert found.seconds == pytest.approx(5.0 + 100 / 20.0)


def test_without_an_earlier_job_it_is_called_a_guess() -> None:
    for student, indicators in ((STUDENT, ["ifd"]), (None, ["mtld"])):
        found = pace.estimate(n_rows=100, n_characters=40_000, indicators=indicators, student=student)
        assert not found.measured
        assert "guess" in found.basis
        assert found.seconds > 0


def test_the_guess_grows_with_the_model(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"x" * 2_000_000)
    small = StudentSettings(model=str(tmp_path))
    assert pace.n_parameters(str(tmp_path)) == pytest.approx(1e6)
    guesses = [
        pace.estimate(n_rows=1000, n_characters=400_000, indicators=["ifd"], student=student).seconds
        for student in (small, STUDENT)
    ]
    assert guesses[0] < guesses[1]


def test_a_past_run_is_read_from_its_folder(tmp_path: Path) -> None:
    spec = JobSpec(
        job_id="one",
        kind="score",
        title="Score",
        device="cpu",
        n_rows=300,
        shard_rows=300,
        params={"indicators": ["ifd"], "student": {"model": "m"}},
        created_at="2026-01-01T00:00:00",
        assay_version="0",
    )
    folder = JobFolder.create(tmp_path / "one", spec, pa.table({"example_id": pa.array(range(300), pa.int64())}))
    assert pace.past_run(folder) is None
    with folder.events_path.open("a") as file:
        import json

        for line in (told(0, "started", done_rows=0), told(5, "progress", done=0), told(15, "shard", done_rows=300)):
            file.write(json.dumps(line) + "\n")
    found = pace.past_run(folder)
    assert found is not None
    assert found.n_losses == 2
    assert found.speed == pace.Speed(5.0, 30.0)
