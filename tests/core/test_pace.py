"""How long a score job may take: measured where there is something to measure, else a guess that says so."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from core import pace
from core.jobs.folder import JobFolder
from core.jobs.spec import JobSpec
from core.lm import StudentSettings
from core.scoring import EmbedderSettings, Models, RewardSettings, UniEvalSettings
from core.trial import Measured

START = datetime(2026, 1, 1)
STUDENT = StudentSettings(model="/models/nowhere")
MODELS = Models(student=STUDENT)


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


def test_embedding_costs_every_row_and_finding_neighbours_is_left_out() -> None:
    """Both come before the first row: all of it counted as start, and a job of ten times the rows looked quick."""
    events = [
        told(0, "started", done_rows=0),
        told(2, "note", message="Loading the embedding model m"),
        told(5, "note", message="Embedding 0 of 400 rows"),
        told(15, "note", message="Embedding 200 of 400 rows"),
        told(25, "note", message="Finding neighbours"),
        told(125, "note", message="Loading the student m"),
        told(130, "note", message="Scoring IFD"),
        told(130, "progress", done=0),
        told(150, "shard", index=0, done_rows=400),
    ]
    speed = pace.speed_of(events)
    assert speed is not None
    assert speed.start_seconds == pytest.approx(10.0)  # 0 to 5 and 125 to 130
    assert speed.rows_per_second == pytest.approx(400 / (20 + 20))


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
    return pace.PastRun({"student": settings}, {"student": n_losses}, pace.Speed(5.0, rows_per_second))


def test_passes_of_each_role_over_a_row() -> None:
    """A reward model reads a row once, UniEval once a question, the student once a loss; a tokenizer costs nothing."""
    assert pace.passes(["length", "mtld"]) == {}
    assert pace.passes(["ifd"]) == {"student": 2}
    assert pace.passes(["perplexity", "ifd", "ifd_loss", "r_ifd"]) == {"student": 4}
    assert pace.passes(["reward", "naturalness", "coherence", "understandability", "knn_6"]) == {
        "reward": 1,
        "unieval": 3,
        "embedder": 1,
    }


def test_an_estimate_comes_from_jobs_with_the_same_model() -> None:
    found = pace.estimate(
        n_rows=100,
        n_characters=40_000,
        indicators=["ifd", "r_ifd"],
        models=MODELS,
        past=[run(rows_per_second=10.0), run(model="other", rows_per_second=1000.0)],
    )
    assert found.measured
    assert found.seconds == pytest.approx(15.0)
    assert "last job" in found.basis


def test_speed_is_scaled_by_the_number_of_losses() -> None:
    found = pace.estimate(
        n_rows=100, n_characters=1, indicators=["ifd"], models=MODELS, past=[run(n_losses=4, rows_per_second=10.0)]
    )
    assert found.seconds == pytest.approx(5.0 + 100 / 20.0)


def test_a_job_of_other_roles_does_not_count() -> None:
    """The student alone was fast; with a reward model of a hundred times its size the job is another one."""
    both = Models(student=STUDENT, reward=RewardSettings(model="/models/reward"))
    found = pace.estimate(
        n_rows=100, n_characters=40_000, indicators=["ifd", "reward"], models=both, past=[run(rows_per_second=1000.0)]
    )
    assert not found.measured


def test_passes_are_weighed_by_the_size_of_their_models(tmp_path: Path) -> None:
    """One question less to a big UniEval saves much; two losses less of a small student save little."""
    for name, size in (("student", 2_000), ("unieval", 18_000)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"x" * size)
    student, unieval = StudentSettings(str(tmp_path / "student")), UniEvalSettings(str(tmp_path / "unieval"))
    then = {"student": {"model": student.model, "device": "cpu", "dtype": "float32"}}
    then["unieval"] = {"model": unieval.model, "device": "cpu", "dtype": "float32"}
    past = pace.PastRun(then, {"student": 2, "unieval": 2}, pace.Speed(0.0, 11.0))
    found = pace.estimate(
        n_rows=110,
        n_characters=1,
        indicators=["ifd", "naturalness"],
        models=Models(student=student, unieval=unieval),
        past=[past],
    )
    # A row cost 2 x 1,000 + 2 x 9,000 = 20,000 then, and 2 x 1,000 + 9,000 = 11,000 now: 11 rows a second become 20.
    assert found.seconds == pytest.approx(110 / 20)


def test_without_an_earlier_job_it_is_called_a_guess() -> None:
    for models, indicators in ((MODELS, ["ifd"]), (Models(), ["mtld"])):
        found = pace.estimate(n_rows=100, n_characters=40_000, indicators=indicators, models=models)
        assert not found.measured
        assert "guess" in found.basis
        assert found.seconds > 0


def test_the_guess_grows_with_the_model(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"x" * 2_000_000)
    small = StudentSettings(model=str(tmp_path))
    assert pace.n_parameters(str(tmp_path)) == pytest.approx(1e6)
    guesses = [
        pace.estimate(n_rows=1000, n_characters=400_000, indicators=["ifd"], models=Models(student=student)).seconds
        for student in (small, STUDENT)
    ]
    assert guesses[0] < guesses[1]


def test_the_guess_names_every_model_and_grows_with_each_role() -> None:
    models = Models(STUDENT, RewardSettings(), UniEvalSettings(), EmbedderSettings())
    keys = ["ifd", "reward", "naturalness", "knn_6"]
    before = 0.0
    for n in range(1, len(keys) + 1):
        found = pace.estimate(n_rows=1000, n_characters=400_000, indicators=keys[:n], models=models)
        assert found.seconds > before
        before = found.seconds
    for name in ("the student", "the reward model", "UniEval", "the embedder"):
        assert name in found.basis


def test_only_what_the_rows_lack_is_counted() -> None:
    """All but the distances were there: the estimate was that of the whole job all the same."""
    models = Models(student=STUDENT, embedder=EmbedderSettings())

    def guess(indicators: list[str], **left: int) -> float:
        return pace.estimate(n_rows=1000, n_characters=400_000, indicators=indicators, models=models, left=left).seconds

    whole = guess(["ifd", "knn_6"])
    assert guess(["ifd", "knn_6"], ifd=0) == pytest.approx(guess(["knn_6"]))
    assert guess(["knn_6"]) < guess(["ifd", "knn_6"], ifd=500) < whole
    some = pace.estimate(
        n_rows=100,
        n_characters=1,
        indicators=["ifd", "r_ifd"],
        models=MODELS,
        past=[run()],
        left={"ifd": 50, "r_ifd": 50},
    )
    assert some.seconds == pytest.approx(5.0 + 100 / 20.0)


def test_a_trial_counts_before_everything_else() -> None:
    trial = Measured(n_rows=24, load_seconds=3.0, work_seconds=12.0)
    found = pace.estimate(
        n_rows=100, n_characters=200_000, indicators=["ifd"], models=MODELS, past=[run()], trial=trial
    )
    assert found.seconds == pytest.approx(3.0 + 100 / 2)
    assert found.measured
    assert "24 rows of this dataset took 12.0 s" in found.basis


def test_finding_neighbours_grows_with_the_square_of_the_rows() -> None:
    one = pace.neighbour_seconds(10_000, n_members=10_000, device="cpu")
    assert pace.neighbour_seconds(20_000, n_members=20_000, device="cpu") == pytest.approx(4 * one)
    assert pace.neighbour_seconds(10_000, n_members=10_000, device="cuda:0") < one


def folder_with(home: Path, params: dict, *events: dict) -> JobFolder:
    spec = JobSpec(
        job_id=home.name,
        kind="score",
        title="Score",
        device="cpu",
        n_rows=300,
        shard_rows=300,
        params=params,
        created_at="2026-01-01T00:00:00",
        assay_version="0",
    )
    folder = JobFolder.create(home, spec, pa.table({"example_id": pa.array(range(300), pa.int64())}))
    with folder.events_path.open("a") as file:
        for line in events:
            file.write(json.dumps(line) + "\n")
    return folder


DONE = (told(0, "started", done_rows=0), told(5, "progress", done=0), told(15, "shard", done_rows=300))


def test_a_past_run_is_read_from_its_folder(tmp_path: Path) -> None:
    params = {"indicators": ["ifd"], "models": {"student": {"model": "m"}}}
    assert pace.past_run(folder_with(tmp_path / "fresh", params)) is None
    found = pace.past_run(folder_with(tmp_path / "one", params, *DONE))
    assert found is not None
    assert found.passes == {"student": 2}
    assert found.models == {"student": {"model": "m"}}
    assert found.speed == pace.Speed(5.0, 30.0)


def test_a_job_of_before_there_were_roles_still_counts(tmp_path: Path) -> None:
    params = {"indicators": ["ifd", "r_ifd"], "student": {"model": "m"}}
    found = pace.past_run(folder_with(tmp_path / "old", params, *DONE))
    assert found is not None
    assert (found.passes, found.models) == ({"student": 4}, {"student": {"model": "m"}})


def test_a_job_whose_indicators_are_gone_is_passed_over(tmp_path: Path) -> None:
    assert pace.past_run(folder_with(tmp_path / "gone", {"indicators": ["was_removed"]}, *DONE)) is None
