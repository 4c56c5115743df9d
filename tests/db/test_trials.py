"""The rows of a trial cost what all rows cost, and its folder is a score job as the worker knows it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from core.errors import StoreError
from core.example import Example
from core.scoring import EmbedderSettings, Models
from db import jobs, trials
from db.store import Store
from tests.core import tiny_embedder
from tests.pages.sample_stores import import_rows


def texts(n: int) -> list[Example]:
    """Rows with 1 to ``n`` words, the long ones first and all of them at the front of the dataset."""
    return [Example(f"Say {i}.", "", " ".join(["word"] * (n - i))) for i in range(n)]


def test_rows_are_taken_evenly_by_length(store: Store) -> None:
    """A data set sorted by length: the first rows, or a few at random, foretold a job several times too long."""
    dataset_id = import_rows(store, texts(480), name="Sorted")
    plan = jobs.plan_score(store, dataset_id=dataset_id, indicators=["mtld"], models=Models())
    found = trials.trial_rows(store, dataset_id=dataset_id, plan=plan)
    lengths = sorted(len(text.split()) for text in found.input["output"].to_pylist())
    assert len(lengths) == 24
    assert sum(lengths) / 24 == pytest.approx(240.5, rel=0.02)
    assert lengths[0] < 20
    assert lengths[-1] > 460
    assert found.base is None


def test_fewer_rows_than_a_trial_wants_are_all_taken_and_none_is_an_error(store: Store, tmp_path: Path) -> None:
    dataset_id = import_rows(store, texts(5), name="Few")
    plan = jobs.plan_score(store, dataset_id=dataset_id, indicators=["mtld"], models=Models())
    found = trials.trial_rows(store, dataset_id=dataset_id, plan=plan)
    assert sorted(found.input["output"].to_pylist()) == sorted(one.output for one in texts(5))
    empty = dataset_id + 1
    with pytest.raises(StoreError, match="nothing to try"):
        trials.trial_rows(store, dataset_id=empty, plan=plan)


def test_the_worker_does_the_folder_as_any_score_job(store: Store, tmp_path: Path) -> None:
    embedder = EmbedderSettings(str(tiny_embedder.save(tmp_path / "embedder")))
    dataset_id = import_rows(store, texts(30), name="Rows")
    plan = jobs.plan_score(store, dataset_id=dataset_id, indicators=["mtld", "knn_3"], models=Models(embedder=embedder))
    rows = trials.trial_rows(store, dataset_id=dataset_id, plan=plan, n_rows=8)
    folder = trials.write_trial(rows, tmp_path, plan=plan)

    subprocess.run([sys.executable, "-m", "core.jobs.runner", str(folder.path)], check=True, capture_output=True)
    found = folder.read_shard(0).to_pylist()
    assert {row["output"] for row in found} == {"mtld", "knn_3"}
    assert all(row["value"] is not None for row in found if row["output"] == "knn_3")
    assert jobs.jobs(store) == [], "the store knows nothing of it"
