"""Scores, who scored them, and the job: real folders, a real worker process, no silent zero."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

from core.errors import JobError, ModelError, SettingsError
from core.example import Example
from core.indicators import INDICATORS, outputs_of
from core.jobs.folder import JobFolder
from core.jobs.runner import Progress
from core.jobs.spec import JobSpec
from core.lm import Student, StudentSettings
from core.scoring import DEMO_STUDENT, ScorerIdentity, resolve_revision, run, score_examples, scorer_identities
from tests.core import tiny_models

ROOT = Path(__file__).parents[2]
ALL = [one.key for one in INDICATORS]
ROWS = [
    Example("Name three fruits.", "", "Apples, pears and plums."),
    Example("Sort the words.", "pear, apple", "apple, pear"),
    Example("Leave it empty."),
    Example("Add.", "2 + 2", "4"),
    Example("Say hi.", "", "Hi!"),
]
# Pairs that stand in no training row of the demo student.
MATCHED = [
    ("Which planet is the largest?", "The largest planet is Jupiter."),
    ("Give tips for growing tomatoes on a balcony.", "Give tomatoes a large pot, a sunny balcony and much water."),
    ("What are the benefits of public transport?", "Public transport is cheaper than a car and pollutes less."),
    ("Write a short story about a lost umbrella.", "One rainy day Anna found a lost umbrella. The umbrella was red."),
    ("Explain how a sewing machine works.", "A sewing machine moves a needle with thread through the cloth."),
    ("List the ingredients of a pancake.", "A pancake needs flour, eggs, milk and a pinch of salt."),
    ("Describe the smell of a pine forest.", "A pine forest smells of resin, pine needles and damp earth."),
    ("Write a slogan for a bakery.", "Fresh bread every morning: our bakery wakes up before you."),
    ("Why do cats purr?", "Cats purr when they are content; some cats also purr when they are hurt."),
    ("Compare a violin and a cello.", "A violin is small and high; a cello is larger and deeper than a violin."),
    ("What is 17 + 25?", "17 + 25 = 42"),
    ("Write an e-mail to Paul about the broken printer.", "Dear Paul, the printer is broken. Could you repair it?"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_models.save(tmp_path_factory.mktemp("students") / "llama", "llama"))


@pytest.fixture(scope="module")
def student(model: str) -> Student:
    return Student.load(StudentSettings(model))


def new_job(tmp_path: Path, rows: list[Example] = ROWS, *, shard_rows: int = 2, **params: object) -> JobFolder:
    spec = JobSpec(
        job_id="score-1",
        kind="score",
        title="Score",
        device="cpu",
        n_rows=len(rows),
        shard_rows=shard_rows,
        params=params,
        created_at="2026-11-20T12:00:00",
        assay_version="0.1.0",
    )
    table = pa.table(
        {
            "example_id": pa.array([100 + i for i in range(len(rows))], pa.int64()),
            "instruction": [row.instruction for row in rows],
            "input": [row.input for row in rows],
            "output": [row.output for row in rows],
        }
    )
    return JobFolder.create(tmp_path / "score-1", spec, table)


def do(folder: JobFolder) -> None:
    spec = folder.spec()
    run(folder, spec, Progress(folder, spec))


def scores_in(folder: JobFolder) -> list[dict[str, object]]:
    return [cell for index in sorted(folder.finished_shards()) for cell in folder.read_shard(index).to_pylist()]


def test_every_output_of_every_indicator_is_there(student):
    found = score_examples(ROWS, indicators=ALL, student=student)
    keys = {output.key for _, output in outputs_of(ALL)}
    assert all(set(of_row) == keys for of_row in found)
    first = {key: value.value or 0.0 for key, value in found[0].items()}
    assert first["length"] == len(ROWS[0].output)  # the tiny tokenizer knows bytes only
    assert first["length_words"] == 4.0
    assert first["n_tokens_y"] == first["length"]
    assert first["ifd"] == pytest.approx(first["perplexity"] / first["perplexity_y"])
    for of_row in found:
        assert all(value.reason for value in of_row.values() if value.value is None)


def test_an_empty_response_is_null_with_reasons_but_its_length_is_zero(student):
    of_row = score_examples([ROWS[2]], indicators=ALL, student=student)[0]
    assert of_row["length"].value == 0.0
    for key in ("mtld", "perplexity", "ifd", "r_ifd", "loss_y", "n_tokens_y"):
        assert of_row[key].value is None
        assert of_row[key].reason


def test_indicators_that_need_no_student_do_without(student):
    with_student = score_examples(ROWS, indicators=["mtld"], student=student)
    assert score_examples(ROWS, indicators=["mtld"], student=None) == with_student
    with pytest.raises(SettingsError, match="needs a student"):
        score_examples(ROWS, indicators=["mtld", "ifd"], student=None)


def test_lengths_need_the_tokenizer_only(model, student):
    reader = Student.load(StudentSettings(model), weights=False)
    assert score_examples(ROWS, indicators=["length"], student=reader) == score_examples(
        ROWS, indicators=["length"], student=student
    )


def test_identities_name_what_a_score_follows_from_and_nothing_else():
    settings = StudentSettings("org/model", template="vicuna", max_length=512)
    identities = {one.output: one for one in scorer_identities(ALL, settings, "abc")}
    assert set(identities) == {output.key for _, output in outputs_of(ALL)}
    for key in ("mtld", "length_words", "length_chars"):
        assert (identities[key].model, identities[key].template, identities[key].settings) == (None, None, {})
    assert (identities["length"].model, identities["length"].revision) == ("org/model", "abc")
    assert identities["length"].template is None
    assert identities["ifd"].template == "vicuna"
    assert identities["ifd"].settings == {"dtype": "float32", "max_length": 512}
    assert "lexicalrichness" in identities["mtld"].version


def test_equal_identities_have_equal_keys_and_other_ones_other_keys():
    settings = StudentSettings("org/model")

    def keys(settings: StudentSettings, revision: str = "abc") -> dict[str, str]:
        return {one.output: one.key for one in scorer_identities(["ifd", "length", "mtld"], settings, revision)}

    base = keys(settings)
    assert keys(dataclasses.replace(settings, batch_tokens=1, device="cuda")) == base
    assert json.loads(base["ifd"])["model"] == "org/model"
    for other in (
        keys(settings, "def"),
        keys(dataclasses.replace(settings, template="vicuna")),
        keys(dataclasses.replace(settings, max_length=9)),
        keys(dataclasses.replace(settings, dtype="bfloat16")),
    ):
        assert other["ifd"] != base["ifd"]
        assert other["loss_y"] != base["loss_y"]
        assert other["mtld"] == base["mtld"]
    # A loss is the same number whichever indicator asked for it.
    perplexity = {one.output: one.key for one in scorer_identities(["perplexity"], settings, "abc")}
    assert perplexity["loss_y"] == base["loss_y"]


def test_identities_of_a_student_that_is_not_there():
    assert scorer_identities(["mtld"], None, None) == [
        ScorerIdentity("mtld", "mtld", next(one.version for one in INDICATORS if one.key == "mtld"))
    ]
    with pytest.raises(SettingsError, match="needs a student"):
        scorer_identities(["ifd"], None, None)


def test_a_job_writes_every_output_of_every_example(tmp_path, model, student):
    folder = new_job(tmp_path, indicators=ALL, student={"model": model})
    do(folder)
    cells = scores_in(folder)
    expected = score_examples(ROWS, indicators=ALL, student=student)
    assert len(cells) == sum(len(of_row) for of_row in expected)
    for cell in cells:
        value = expected[int(str(cell["example_id"])) - 100][str(cell["output"])]
        assert (cell["reason"], cell["transient"]) == (value.reason, value.transient)
        assert cell["value"] == (None if value.value is None else pytest.approx(value.value, rel=1e-5))
    assert folder.read_shard(0).schema == pa.schema(
        {
            "example_id": pa.int64(),
            "output": pa.string(),
            "value": pa.float64(),
            "reason": pa.string(),
            "transient": pa.bool_(),
        }
    )


def test_a_job_tells_which_rows_failed_and_why(tmp_path, model):
    folder = new_job(tmp_path, indicators=ALL, student={"model": model})
    do(folder)
    errors = folder.row_errors()
    assert errors["The response is empty."] == [102]
    assert errors["The response has no word (digits and punctuation do not count)."] == [102, 103]


def test_a_job_goes_on_where_it_was_interrupted(tmp_path, model):
    folder = new_job(tmp_path, indicators=["length"], student={"model": model})
    do(folder)
    kept = [folder.shard_path(index).stat().st_mtime_ns for index in (0, 2)]
    before = scores_in(folder)
    folder.shard_path(1).unlink()
    do(folder)
    assert [folder.shard_path(index).stat().st_mtime_ns for index in (0, 2)] == kept
    assert scores_in(folder) == before
    do(folder)  # nothing is missing: nothing is loaded or done


def test_a_job_loads_no_more_than_it_needs(tmp_path, model):
    # Without weights lengths can still be counted, and MTLD needs no model at all.
    bare = tmp_path / "bare"
    tiny_models.save(bare, "llama")
    (bare / "model.safetensors").unlink()
    do(new_job(tmp_path / "a", indicators=["length"], student={"model": str(bare)}))
    do(new_job(tmp_path / "b", indicators=["mtld"]))
    with pytest.raises(ModelError, match="weights"):
        do(new_job(tmp_path / "c", indicators=["ifd"], student={"model": str(bare)}))


def test_a_job_refuses_a_model_that_changed_since_it_was_submitted(tmp_path, model):
    folder = new_job(tmp_path, indicators=["length"], student={"model": model, "revision": "local-0000"})
    with pytest.raises(ModelError, match="another one than before"):
        do(folder)


@pytest.mark.parametrize(
    ("params", "error", "says"),
    [
        ({}, JobError, "names no indicators"),
        ({"indicators": ["beauty"]}, SettingsError, "no indicator beauty"),
        ({"indicators": ["ifd"]}, SettingsError, "needs a student"),
        ({"indicators": ["ifd"], "student": {"model": "x", "colour": "red"}}, JobError, "describes its student"),
        ({"indicators": ["ifd"], "student": {"model": "/no/such/model"}}, ModelError, "does not exist"),
    ],
)
def test_a_job_that_cannot_be_done_says_why(tmp_path, params, error, says):
    with pytest.raises(error, match=says):
        do(new_job(tmp_path, **params))


def start(folder: JobFolder) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "core.jobs.runner", str(folder.path)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def test_a_killed_worker_loses_at_most_its_shard_and_a_second_one_finishes(tmp_path, model):
    rows = [Example(f"Ask {i}.", "", f"Answer {i}: {'word ' * (i % 40)}") for i in range(400)]
    folder = new_job(tmp_path, rows, shard_rows=20, indicators=["ifd"], student={"model": model})
    worker = start(folder)
    until = time.monotonic() + 120
    while len(folder.finished_shards()) < 2 and worker.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    worker.kill()
    worker.wait()
    finished = folder.finished_shards()
    assert len(finished) >= 2
    assert start(folder).wait(timeout=200) == 0
    assert folder.finished_shards() == set(range(20))
    assert folder.status().state == "done"
    cells = scores_in(folder)
    assert len(cells) == 400 * 5
    assert len({(cell["example_id"], cell["output"]) for cell in cells}) == len(cells)


@pytest.fixture(scope="module")
def demo() -> Student:
    return Student.load(StudentSettings(str(DEMO_STUDENT)))


def mean_ifd(student: Student, pairs: list[tuple[str, str]]) -> float:
    examples = [Example(asked, "", answer) for asked, answer in pairs]
    values = [of_row["ifd"].value for of_row in score_examples(examples, indicators=["ifd"], student=student)]
    return sum(value for value in values if value is not None) / len(values)


def test_the_demo_student_finds_matched_pairs_easier_than_shuffled_ones(demo):
    asked, answers = zip(*MATCHED, strict=True)
    matched = mean_ifd(demo, MATCHED)
    shuffled = [mean_ifd(demo, list(zip(asked, answers[shift:] + answers[:shift], strict=True))) for shift in (1, 4, 7)]
    assert matched < 1
    assert matched < min(shuffled) - 0.1


def test_the_demo_student_is_small_has_no_chat_template_and_says_so(demo):
    size = sum(path.stat().st_size for path in DEMO_STUDENT.iterdir())
    assert size < 8_000_000
    with pytest.raises(ModelError, match="no chat template"):
        Student.load(StudentSettings(str(DEMO_STUDENT), template="chat"))
    assert resolve_revision(str(DEMO_STUDENT)).startswith("local-")


def test_the_server_can_import_scoring_without_torch():
    heavy = ("torch", "transformers", "lexicalrichness")
    code = f"import core.scoring, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr
