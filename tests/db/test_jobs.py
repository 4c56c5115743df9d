"""Submit and collect: the meeting of job folders and the store."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from core.errors import JobError, StoreError
from core.example import Example
from core.filters import PairFilter
from core.jobs.folder import JobFolder
from core.lm import StudentSettings
from core.reflecting import ReflectOptions
from core.reflection_records import Call, Failure, Final, PairRecord, PairScores, ReflectedRow, ScoreValue, to_table
from core.scoring import Models
from db import collecting, commands, jobs, pair_queue, queries, review
from db.store import Store, rows
from tests.db.conftest import EXAMPLES, batch


def _plan(store: Store, dataset_id: int, *indicators: str) -> jobs.ScorePlan:
    return jobs.plan_score(store, dataset_id=dataset_id, indicators=indicators, models=Models())


def _submit(store: Store, path: Path, dataset_id: int, plan: jobs.ScorePlan) -> JobFolder:
    [folder] = jobs.submit_score(store, path, dataset_id=dataset_id, plan=plan, title="t")
    return folder


def _shard(folder: JobFolder, values: list[tuple[str, float | None, str | None, bool]]) -> pa.Table:
    """The same scores for every row of the job."""
    ids = folder.input_table()["example_id"].to_pylist()
    cells = [(i, *value) for i in ids for value in values]
    return pa.table(
        {
            "example_id": pa.array([c[0] for c in cells], pa.int64()),
            "output": [c[1] for c in cells],
            "value": pa.array([c[2] for c in cells], pa.float64()),
            "reason": pa.array([c[3] for c in cells], pa.string()),
            "transient": pa.array([c[4] for c in cells], pa.bool_()),
        }
    )


def _all(store: Store, sql: str) -> list[dict]:
    with store.read() as connection:
        return rows(connection, sql)


def test_a_shard_is_collected_once_however_often_it_is_handed_over(
    store: Store, dataset_id: int, tmp_path: Path
) -> None:
    folder = _submit(store, tmp_path / "jobs", dataset_id, _plan(store, dataset_id, "mtld"))
    folder.write_shard(0, _shard(folder, [("mtld", 50.0, None, False)]))
    for _ in range(3):
        collecting.collect(store, folder, 0)
    assert jobs.collected_shards(store, folder.job_id) == {0}
    assert len(_all(store, "select * from scores")) == len(EXAMPLES)
    assert jobs.jobs(store)[0]["n_collected"] == len(EXAMPLES)


def test_what_was_scored_in_one_dataset_is_not_scored_again_in_another(
    store: Store, dataset_id: int, tmp_path: Path
) -> None:
    folder = _submit(store, tmp_path / "jobs", dataset_id, _plan(store, dataset_id, "mtld"))
    folder.write_shard(0, _shard(folder, [("mtld", 50.0, None, False)]))
    collecting.collect(store, folder, 0)
    other = commands.import_dataset(
        store, [batch([*EXAMPLES[:4], Example("new", "", "one two")])], name="other", source="t"
    )
    plan = _plan(store, other, "mtld")
    assert (plan.n_rows, plan.n_to_score, plan.done) == (5, 1, {"mtld": 4})
    with pytest.raises(StoreError, match="already"):
        _submit(store, tmp_path / "jobs", dataset_id, _plan(store, dataset_id, "mtld"))


def test_retry_takes_only_rows_whose_failure_may_pass(store: Store, dataset_id: int, tmp_path: Path) -> None:
    folder = _submit(store, tmp_path / "jobs", dataset_id, _plan(store, dataset_id, "mtld"))
    table = _shard(folder, [("mtld", None, "out of memory", True)]).slice(0, 2)
    rest = _shard(folder, [("mtld", None, "no word", False)]).slice(2)
    folder.write_shard(0, pa.concat_tables([table, rest]))
    collecting.collect(store, folder, 0)
    assert {r["reason"]: r["n"] for r in jobs.failure_reasons(store, folder.job_id)} == {
        "out of memory": 2,
        "no word": 4,
    }
    again = jobs.submit_retry(store, tmp_path / "jobs", job_id=folder.job_id)
    assert again.input_table()["example_id"].to_pylist() == table["example_id"].to_pylist()
    assert again.spec().retry_of == folder.job_id
    again.write_shard(0, _shard(again, [("mtld", 41.0, None, False)]))
    collecting.collect(store, again, 0)
    found = _all(store, "select value, reason from scores order by value nulls last")
    assert [row["value"] for row in found] == [41.0, 41.0, None, None, None, None]
    with pytest.raises(StoreError, match="nothing to retry"):
        jobs.submit_retry(store, tmp_path / "jobs", job_id=again.job_id)


def test_a_job_whose_record_was_lost_in_a_crash_is_recorded_when_it_is_collected(
    store: Store, dataset_id: int, tmp_path: Path
) -> None:
    folder = _submit(store, tmp_path / "jobs", dataset_id, _plan(store, dataset_id, "mtld"))
    jobs.forget(store, folder.job_id)  # as if the server had died between folder and record
    folder.write_shard(0, _shard(folder, [("mtld", 50.0, None, False)]))
    collecting.collect(store, folder, 0)
    assert [job["job_id"] for job in jobs.jobs(store)] == [folder.job_id]


def test_a_damaged_shard_changes_nothing(store: Store, dataset_id: int, tmp_path: Path) -> None:
    folder = _submit(store, tmp_path / "jobs", dataset_id, _plan(store, dataset_id, "mtld"))
    folder.write_shard(0, _shard(folder, [("mtld", 50.0, None, False)]))
    folder.shard_path(0).write_bytes(b"PAR1 but not really")
    with pytest.raises(JobError):
        collecting.collect(store, folder, 0)
    assert jobs.collected_shards(store, folder.job_id) == set()
    assert _all(store, "select * from scores") == []


def _model_folder(path: Path) -> Path:
    """What tells one student from another: the files of its folder. Nothing here loads them."""
    path.mkdir()
    (path / "config.json").write_text('{"model_type": "llama"}')
    (path / "tokenizer.json").write_text("{}")
    (path / "model.safetensors").write_bytes(b"weights")
    return path


@pytest.fixture
def reflect_folder(store: Store, dataset_id: int, tmp_path: Path) -> JobFolder:
    student = StudentSettings(model=str(_model_folder(tmp_path / "student")))
    ids = [row["example_id"] for row in _all(store, "select example_id from members order by position limit 2")]
    return jobs.submit_reflect(
        store,
        tmp_path / "jobs",
        dataset_id=dataset_id,
        example_ids=ids,
        options=ReflectOptions(method="v2", teacher=None, student=student),
        title="r",
    )


def _reflected(example_id: int, original: Example) -> ReflectedRow:
    candidate = Example(f"Better {original.instruction}", "", "better")
    unknown = PairScores(None, "no response", None, "no response")
    call = Call(
        f"call-{example_id}", "instruction", original, "p1", "recorded", "recorded", "raw text", "stop", "parsed",
        None, '{"critique": "dull"}', None, None, None, 0.0, 0, "2026-01-01T00:00:00",
    )  # fmt: skip
    pair = PairRecord(
        "instruction", "v2", original, candidate, call.call_id, "reflected", "IFD 0.5 → 0.7",
        PairScores(0.5, None, 0.9, None), PairScores(0.5, None, 0.9, None), unknown,
        (ScoreValue("original", "ifd", 0.5, None, False), ScoreValue("candidate", "ifd", None, "no response", False)),
    )  # fmt: skip
    failure = Failure("response", "cut_off", "The answer was cut off.", True)
    final = Final(candidate.instruction, "", "better", True, "kept")
    return ReflectedRow(example_id, "ok", "cut off", True, (failure,), (call,), (pair,), final)


def test_a_reflected_shard_becomes_pairs_scores_calls_and_failures(store: Store, reflect_folder: JobFolder) -> None:
    ids = reflect_folder.input_table()["example_id"].to_pylist()
    shard = to_table([_reflected(i, e) for i, e in zip(ids, EXAMPLES, strict=False)])
    reflect_folder.write_shard(0, shard)
    for _ in range(2):
        collecting.collect(store, reflect_folder, 0)
    queue = pair_queue.queue(store, PairFilter())
    assert len(queue) == 2
    shown = review.pair(store, int(queue[0]))
    assert (shown["c_instruction"], shown["ifd_original"], shown["ifd_candidate"]) == ("Better Say 0", 0.5, None)
    assert shown["critique"] == {"critique": "dull"}
    found = queries.scores_of(store, [shown["candidate_id"]])
    assert [(s["output"], s["value"], s["reason"]) for s in found] == [("ifd", None, "no response")]
    assert [r["reason"] for r in jobs.failure_reasons(store, reflect_folder.job_id)] == ["The answer was cut off."]
    totals = jobs.teacher_totals(store, reflect_folder.job_id)
    assert (totals["n_calls"], totals["n_parsed"], totals["cost_usd"]) == (2, 2, None)


def test_a_retry_that_proposes_the_same_pair_again_does_not_double_it(
    store: Store, reflect_folder: JobFolder, tmp_path: Path
) -> None:
    ids = reflect_folder.input_table()["example_id"].to_pylist()
    shard = to_table([_reflected(i, e) for i, e in zip(ids, EXAMPLES, strict=False)])
    reflect_folder.write_shard(0, shard)
    collecting.collect(store, reflect_folder, 0)
    again = jobs.submit_retry(store, tmp_path / "jobs", job_id=reflect_folder.job_id)
    again.write_shard(0, shard)
    collecting.collect(store, again, 0)
    assert len(pair_queue.queue(store, PairFilter())) == 2
    assert jobs.collected_shards(store, again.job_id) == {0}
