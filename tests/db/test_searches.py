"""A search over sizes in a real store: submitted, done by its job, collected, read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import text

from core.errors import InputError, ModelError, StoreError
from core.finetune.results import RunResult
from core.finetune.settings import FinetuneSettings
from core.jobs.folder import JobFolder
from core.jobs.runner import Progress
from core.rules import Rule, Term
from core.search_job import Load, ranked_examples, run
from db import collecting, commands, jobs, searches, studies
from db.store import Store, rows, utc_now
from tests.core.search_jobs import KnownBase, some_rows
from tests.db.conftest import batch

RULE = Rule(name="By length", intercept=1.0, terms=(Term("length", -0.01),), origin="typed")


@pytest.fixture
def base_model(tmp_path: Path) -> str:
    """A folder that looks like a model: its revision can be told, and nothing here loads it."""
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "model.safetensors").write_bytes(b"weights")
    return str(folder)


@pytest.fixture
def pool(store: Store) -> int:
    return commands.import_dataset(store, [batch(some_rows(40))], name="pool", source="test")


@pytest.fixture
def evaluation_id(store: Store, dataset_id: int) -> int:
    with store.write() as connection:
        connection.execute(
            text("insert into evaluation_sets values (:id, :at_time, null)"), {"id": dataset_id, "at_time": utc_now()}
        )
    return dataset_id


def ids_of(store: Store, dataset_id: int) -> list[int]:
    with store.read() as connection:
        found = rows(
            connection, "select example_id from members where dataset_id = :id order by position", id=dataset_id
        )
    return [row["example_id"] for row in found]


def submit(
    store: Store, tmp_path: Path, base: str, evaluation: int, pool: int, **changes: Any
) -> tuple[int, JobFolder]:
    asked = {
        "name": "How many rows?",
        "ranking": ids_of(store, pool)[::-1],
        "evaluation_id": evaluation,
        "settings": FinetuneSettings(base=base, precision="fp32"),
        "lowest": 4,
        "highest": 32,
        "n_trials": 6,
        "hours": None,
        "seed": 5,
        "rule": RULE,
        "dataset_id": pool,
        **changes,
    }
    return searches.submit_search(store, tmp_path / "jobs", **asked)


def do(folder: JobFolder, base: KnownBase) -> None:
    spec = folder.spec()
    run(folder, spec, Progress(folder, spec), load=cast("Load", base.load))


def test_a_search_is_a_study_whose_trials_get_their_sizes_from_the_job(
    store, tmp_path, base_model, evaluation_id, pool
):
    study_id, folder = submit(store, tmp_path, base_model, evaluation_id, pool)
    study = studies.study(store, study_id)
    assert study["kind"] == "search"
    assert study["design"]["rule"]["terms"][0]["output"] == "length"
    assert study["settings"]["revision"].startswith("local-")
    assert folder.spec().params["settings"] == study["settings"]
    assert study["job_ids"] == [folder.job_id]
    assert [one["outcome"] for one in searches.trials(store, study_id)] == [None] * 6
    assert ranked_examples(folder) == some_rows(40)[:7:-1], "the best 32 of the ranking, in its order"
    bad = {2: RunResult(outcome="diverged", loss_nats=12.0, reason="The loss was not finite.")}
    base = KnownBase(best=12, bad=bad)
    do(folder, base)
    for shard in range(6):
        for _ in range(2):
            collecting.collect(store, folder, shard)
    found = searches.trials(store, study_id)
    assert [one["number"] for one in found] == [1, 2, 3, 4, 5, 6]
    assert [one["n_rows"] for one in found] == [len(asked) for asked in base.asked]
    assert found[1]["outcome"] == "diverged"
    assert found[1]["reason"] == "The loss was not finite."
    assert found[0]["loss_nats"] == pytest.approx(2.0 + abs(math.log(4 / 12)))
    assert jobs.jobs(store)[0]["n_failed"] == 1
    assert studies.study(store, study_id)["n_done"] == 5
    assert [one["study_id"] for one in searches.searches_of(store, pool)] == [study_id]
    assert searches.searches_of(store, evaluation_id) == []


def test_trials_after_the_budget_leave_no_result(store, tmp_path, base_model, evaluation_id, pool):
    study_id, folder = submit(store, tmp_path, base_model, evaluation_id, pool, hours=0.1, n_trials=4)
    do(folder, KnownBase(seconds=200.0))
    for shard in range(4):
        collecting.collect(store, folder, shard)
    assert [one["outcome"] for one in searches.trials(store, study_id)] == ["done", "done", None, None]
    assert jobs.collected_shards(store, folder.job_id) == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"highest": 41}, InputError, "40 distinct rows"),
        ({"ranking": [1, 1, 2, 3] * 10}, InputError, "distinct rows"),
        ({"lowest": 32}, InputError, "nothing to choose from"),
        ({"n_trials": 0}, InputError, "from 1 to 100 trials"),
        ({"hours": 0.0}, InputError, "no time for a trial"),
        ({"evaluation_id": 999}, StoreError, "evaluation set is gone"),
        ({"name": " "}, StoreError, "no name"),
        ({"settings": FinetuneSettings(base="/nowhere/at/all")}, ModelError, "nowhere"),
    ],
)
def test_what_cannot_be_searched_is_refused_and_leaves_nothing(
    store, tmp_path, base_model, evaluation_id, pool, changes, error, words
):
    with pytest.raises(error, match=words):
        submit(store, tmp_path, base_model, evaluation_id, pool, **changes)
    assert studies.studies(store) == []
    assert not list((tmp_path / "jobs").glob("*")) if (tmp_path / "jobs").exists() else True


def test_a_search_whose_folder_cannot_be_written_leaves_no_study(store, tmp_path, base_model, evaluation_id, pool):
    """Otherwise its name would be taken by a study that nobody can start."""
    (tmp_path / "jobs").write_text("a file where the folder of jobs should be")
    with pytest.raises(Exception, match="job"):
        submit(store, tmp_path, base_model, evaluation_id, pool)
    assert studies.studies(store) == []
