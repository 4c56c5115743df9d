"""The score job on real folders with tiny models of every role."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pyarrow as pa
import pytest

from core.embedding import Embedder
from core.errors import JobError, ModelError, SettingsError
from core.example import Example
from core.indicators import INDICATORS
from core.lm import Student
from core.reward import Reward
from core.scoring import Loaded, Models, resolve_revisions, score_examples
from core.unieval import UniEval
from tests.core import tiny_models, tiny_roles
from tests.core.score_jobs import ROWS, brute_force, do, new_job, params_of, scores_in, some_rows, value_of

ROOT = Path(__file__).parents[2]
ALL = [one.key for one in INDICATORS if one.needs.role in (None, "student")]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return tiny_roles.save(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def model(models: Models) -> str:
    assert models.student is not None
    return models.student.model


@pytest.fixture(scope="module")
def student(models: Models) -> Student:
    assert models.student is not None
    return Student.load(models.student)


def test_a_job_writes_every_output_of_every_example(tmp_path, model, student):
    folder = new_job(tmp_path, indicators=ALL, student={"model": model})
    do(folder)
    cells = scores_in(folder)
    expected = score_examples(ROWS, indicators=ALL, loaded=Loaded(student=student))
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
        ({"indicators": ["ifd"], "student": {"model": "x", "colour": "red"}}, JobError, "describe their student"),
        ({"indicators": ["knn_6"], "models": {}}, SettingsError, "needs an embedding model"),
        ({"indicators": ["reward"], "models": {"judge": {}}}, JobError, "no model role judge"),
        ({"indicators": ["ifd"], "student": {"model": "/no/such/model"}}, ModelError, "does not exist"),
    ],
)
def test_a_job_that_cannot_be_done_says_why(tmp_path, params, error, says):
    with pytest.raises(error, match=says):
        do(new_job(tmp_path, **params))


def test_a_job_of_version_0_1_0_is_read_with_its_pinned_revision(tmp_path, models):
    """Folders that were submitted before models had roles are resumed after the upgrade."""
    assert models.student is not None
    revision = resolve_revisions(models)["student"]
    settings = dataclasses.asdict(models.student)
    do(new_job(tmp_path / "a", indicators=["length"], student=settings, revision=revision))
    with pytest.raises(ModelError, match="another one than before"):
        do(new_job(tmp_path / "b", indicators=["length"], student=settings, revision="local-0000"))


def test_every_role_in_one_job(tmp_path, models):
    rows = some_rows(9)
    keys = ["length", "mtld", "knn_1", "knn_4", "reward", "naturalness", "understandability", "ifd", "r_ifd"]
    folder = new_job(tmp_path, rows, shard_rows=4, **params_of(models, keys))
    do(folder)
    found = value_of(folder)
    assert models.student is not None
    assert models.reward is not None
    assert models.unieval is not None
    loaded = Loaded(Student.load(models.student), Reward.load(models.reward), UniEval.load(models.unieval))
    expected = score_examples(rows, indicators=[k for k in keys if not k.startswith("knn")], loaded=loaded)
    for number, of_row in enumerate(expected):
        for key, value in of_row.items():
            assert found.pop((100 + number, key))[0] == pytest.approx(value.value, abs=1e-5)
    for i in (1, 4):
        near = [found.pop((100 + number, f"knn_{i}"))[0] for number in range(9)]
        assert near == pytest.approx(brute_force(models, rows, i), abs=1e-6)
    assert not found
    notes = [event["message"] for event in folder.events() if event["event"] == "note"]
    assert any(note.startswith("Embedding 0 of 9 rows") for note in notes)
    assert any(note.startswith("Finding neighbours") for note in notes)


def test_neighbours_are_looked_for_in_the_whole_dataset_with_its_copies(tmp_path, models):
    """Half of the rows have scores already: they are in the base only, with the vectors that the store has."""
    rows = some_rows(8)
    assert models.embedder is not None
    stored = Embedder.load(models.embedder).embed(rows[:4]).vectors
    base = pa.table(
        {
            "example_id": pa.array([1, 2, 3, 4, 100, 101, 102, 103], pa.int64()),
            "n_copies": pa.array([1, 1, 1, 2, 1, 1, 3, 1], pa.int64()),
            "vector": pa.array([*stored.tolist(), None, None, None, None], pa.list_(pa.float32())),
        }
    )
    columns = {"wanted": ["knn_2", "knn_2,mtld", "knn_2", "mtld"], "has_vector": [False] * 4}
    keys = ["knn_2", "mtld"]
    folder = new_job(tmp_path, rows[4:], columns=columns, base=base, **params_of(models.only(["embedder"]), keys))
    do(folder)
    found = value_of(folder)
    assert set(found) == {(100, "knn_2"), (101, "knn_2"), (101, "mtld"), (102, "knn_2"), (103, "mtld")}
    whole = [*rows[:4], rows[3], *rows[4:7], rows[6], rows[6], rows[7]]
    expected = brute_force(models, whole, 2)
    assert found[100, "knn_2"][0] == pytest.approx(expected[5], abs=1e-6)
    assert found[101, "knn_2"][0] == pytest.approx(expected[6], abs=1e-6)
    assert found[102, "knn_2"][0] == 0.0  # it stands there three times


def test_a_distance_that_cannot_be_had_says_why(tmp_path, models):
    rows = [*some_rows(5), Example(" ", "", "")]
    folder = new_job(tmp_path, rows, **params_of(models.only(["embedder"]), ["knn_3", "knn_6"]))
    do(folder)
    found = value_of(folder)
    assert found[100, "knn_3"][0] is not None
    assert found[100, "knn_6"] == (
        None,
        "The dataset has only 4 other rows with an embedding, so there is no nearest neighbour number 6.",
    )
    assert found[105, "knn_3"] == (None, "The row is empty: instruction, input and output are blank.")
    small = new_job(tmp_path / "small", rows[:2], **params_of(models.only(["embedder"]), ["knn_6"]))
    do(small)
    reason = "The dataset has only 1 other row, so there is no nearest neighbour number 6."
    assert set(value_of(small).values()) == {(None, reason)}


def test_only_what_a_row_lacks_is_scored_and_only_that_is_loaded(tmp_path, model):
    """The student of this job has no weights: no row asks for a loss, so they are not missed."""
    bare = tiny_models.save(tmp_path / "bare", "llama")
    (bare / "model.safetensors").unlink()
    columns = {"wanted": ["mtld", "length,mtld", "mtld", "", "length"]}
    folder = new_job(
        tmp_path, columns=columns, indicators=["length", "mtld", "ifd"], models={"student": {"model": str(bare)}}
    )
    do(folder)
    rows: dict[int, set[str]] = {}
    for example_id, output in value_of(folder):
        rows.setdefault(example_id, set()).add(output.split("_")[0])
    assert rows == {100: {"mtld"}, 101: {"mtld", "length"}, 102: {"mtld"}, 104: {"length"}}
    assert folder.finished_shards() == {0, 1, 2}
