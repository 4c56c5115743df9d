"""Studies in the store: planned at once, done by real jobs, collected once, removed without a trace."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from core.errors import ModelError, StoreError
from core.example import Example
from core.filters import RowFilter
from core.finetune.results import CurvePoint, OutputLoss, RunResult, to_table
from core.finetune.settings import FinetuneSettings
from core.jobs.folder import JobFolder
from core.scoring import DEMO_STUDENT
from core.settings import Settings
from core.studies import PlannedRun, Source, bins, random_mixtures, single_run
from db import (
    collecting,
    commands,
    evaluation,
    jobs,
    queries,
    selections,
    studies,
    study_plans,
    study_submit,
)
from db.service import Service
from db.store import Store, rows, scalar
from tests.db.conftest import EXAMPLES, batch

BASE = "some/base"


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    """As much of a model as it takes to be submitted: its revision is a digest of what is there."""
    folder = tmp_path / "models" / "tiny"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return str(folder)


def import_texts(store: Store, name: str, texts: list[Example], *, kind: str = "import") -> int:
    return commands.import_dataset(store, [batch(texts)], name=name, source="test", kind=kind)


def evaluation_set(store: Store) -> int:
    texts = [Example("What?", "", "This."), Example("What?", "", "That."), Example("Who?", "", "")]
    return import_texts(store, "questions", texts, kind="evaluation")


def some_texts(name: str, n: int = 30) -> list[Example]:
    return [Example(f"Say {name} {i}", "", f"{name} {i} " * (1 + i % 3)) for i in range(n)]


def new_study(store: Store, *, base: str = BASE, kind: str = "multivariate", name: str = "Study", **more) -> int:
    evaluation_id = evaluation_set(store)
    chosen = FinetuneSettings(base=base, precision="fp32", max_length=512, epochs=1.0, batch_size=4)
    ids = [import_texts(store, label, some_texts(label)) for label in ("good", "bad")]
    runs = more.pop("runs", None) or random_mixtures(studies.sources_of(store, dataset_ids=ids), n_runs=3, size=8)
    return studies.create_study(
        store, name=name, kind=kind, evaluation_id=evaluation_id, settings=chosen, runs=runs, design={"n": 3}, **more
    )


def count(store: Store, table: str) -> int:
    with store.read() as connection:
        return int(scalar(connection, f"select count(*) from {table}"))


def members(store: Store, dataset_id: int) -> list[int]:
    with store.read() as connection:
        return [
            row["example_id"]
            for row in rows(
                connection, "select example_id from members where dataset_id = :id order by position", id=dataset_id
            )
        ]


# --- sources ---


def test_sources_are_datasets_or_the_categories_of_one(store: Store) -> None:
    odd = commands.import_dataset(
        store,
        [
            batch(EXAMPLES[:3], metadata='{"kind": "sum"}'),
            batch(EXAMPLES[3:5], start=3, metadata='{"kind": "poem"}'),
            batch([EXAMPLES[5], EXAMPLES[0]], start=5),
        ],
        name="mixed",
        source="t",
    )
    ids = members(store, odd)
    [whole] = studies.sources_of(store, dataset_ids=[odd])
    assert whole == Source("mixed", tuple(ids[:6]))  # the row that stands twice counts once
    parted = studies.sources_of(store, dataset_ids=[odd], split_by="kind")
    assert {one.label: one.example_ids for one in parted} == {
        "sum": tuple(ids[:3]),
        "poem": tuple(ids[3:5]),
        studies.NOTHING: (ids[5], ids[0]),
    }
    assert [one.label for one in studies.sources_of(store, dataset_ids=[odd], split_by="kind", least=3)] == ["sum"]


# --- planning ---


def test_a_study_makes_a_dataset_for_every_run_that_points_at_rows_that_are_there(store: Store) -> None:
    study_id = new_study(store, created_by="Ada")
    found = studies.runs(store, [study_id])
    assert [(run["number"], run["role"], run["n_rows"]) for run in found] == [
        (0, "base", 0),
        *[(i, "mixture", 8) for i in (1, 2, 3)],
    ]
    assert found[0]["dataset_id"] is None
    assert {run["outcome"] for run in found} == {None}
    sources = studies.sources_of(store, dataset_ids=[2, 3])
    planned = random_mixtures(sources, n_runs=3, size=8)
    for run, plan in zip(found[1:], planned, strict=True):
        assert members(store, run["dataset_id"]) == list(plan.example_ids)
        assert run["details"] == plan.details
    [study] = studies.studies(store)
    assert study == studies.study(store, study_id)
    assert (study["name"], study["evaluation"], study["n_runs"], study["n_done"]) == ("Study", "questions", 4, 0)
    assert (study["design"], study["settings"]["base"], study["created_by"]) == ({"n": 3}, BASE, "Ada")


def test_datasets_of_runs_are_hidden_from_lists_but_there(store: Store) -> None:
    new_study(store)
    assert {row["name"] for row in queries.datasets(store)} == {"questions", "good", "bad"}
    every = {row["name"]: row["kind"] for row in queries.datasets(store, with_runs=True)}
    assert every["Study: mixture 2"] == "mixture"
    assert len(every) == 6
    # Nor do their rows count where no dataset is named: they stand in others.
    assert queries.count_rows(store, RowFilter()) == 3 + 30 + 30
    mixture = next(row["dataset_id"] for row in queries.datasets(store, with_runs=True) if row["kind"] == "mixture")
    assert queries.count_rows(store, RowFilter(datasets=(mixture,))) == 8
    places = queries.provenance(store, members(store, mixture)[0])
    assert [row["kind"] for row in places][:2] == ["import", "mixture"]


def test_a_name_that_is_taken_by_a_dataset_gets_a_number(store: Store) -> None:
    import_texts(store, "Study: mixture 1", some_texts("other"))
    new_study(store)
    assert "Study: mixture 1 (2)" in {row["name"] for row in queries.datasets(store, with_runs=True)}


@pytest.mark.parametrize("name", ["Study", "  ", " Study "])
def test_a_study_needs_a_name_of_its_own_and_changes_nothing_without(store: Store, name: str) -> None:
    study_id = new_study(store)
    before = count(store, "datasets"), count(store, "members"), count(store, "runs")
    evaluation_id = studies.study(store, study_id)["evaluation_id"]
    settings = FinetuneSettings(base=BASE)
    with pytest.raises(StoreError, match="name"):
        studies.create_study(
            store, name=name, kind="single", evaluation_id=evaluation_id, settings=settings, runs=single_run([1]),
            design={},
        )  # fmt: skip
    assert before == (count(store, "datasets"), count(store, "members"), count(store, "runs"))


def test_a_single_finetune_points_at_the_dataset_itself(store: Store) -> None:
    dataset_id = import_texts(store, "mine", some_texts("mine", 12))
    study_id = new_study(store, kind="single", runs=single_run(members(store, dataset_id)), dataset_id=dataset_id)
    base, single = studies.runs(store, [study_id])
    assert (base["dataset_id"], base["n_rows"]) == (None, 0)
    assert (single["dataset_id"], single["n_rows"]) == (dataset_id, 12)
    studies.remove_study(store, study_id)
    assert len(members(store, dataset_id)) == 12


def test_a_dataset_that_a_study_needs_cannot_be_removed(store: Store) -> None:
    study_id = new_study(store, name="Winter")
    needed = [studies.study(store, study_id)["evaluation_id"], studies.runs(store, [study_id])[1]["dataset_id"]]
    for dataset_id in needed:
        with pytest.raises(StoreError, match="'Winter' needs this dataset"):
            commands.remove_dataset(store, dataset_id)
        assert members(store, dataset_id)
    commands.remove_dataset(store, 2)  # a source is not needed: the mixtures point at its rows
    assert not members(store, 2)


def test_a_plan_of_78_mixtures_of_2000_rows_is_one_transaction(store: Store) -> None:
    ids = [import_texts(store, label, some_texts(label, 2500)) for label in "abc"]
    runs = random_mixtures(studies.sources_of(store, dataset_ids=ids))
    evaluation_id, settings = evaluation_set(store), FinetuneSettings(base=BASE)
    broken = [*runs, PlannedRun("mixture 79", "mixture", (1,), 0, {"not": {"JSON"}})]
    with pytest.raises(TypeError):
        studies.create_study(
            store, name="s", kind="multivariate", evaluation_id=evaluation_id, settings=settings, runs=broken, design={}
        )
    assert (count(store, "studies"), count(store, "datasets")) == (0, 4)
    study_id = studies.create_study(
        store, name="s", kind="multivariate", evaluation_id=evaluation_id, settings=settings, runs=runs, design={}
    )
    assert (count(store, "runs"), count(store, "datasets"), count(store, "members")) == (79, 82, 7503 + 156_000)
    studies.remove_study(store, study_id)
    assert (count(store, "runs"), count(store, "datasets"), count(store, "members")) == (0, 4, 7503)


# --- jobs ---


def test_a_job_holds_what_its_runs_train_on_and_pins_the_base(store: Store, tmp_path: Path, tiny: str) -> None:
    study_id = new_study(store, base=tiny)
    [folder] = studies.submit_study(store, tmp_path / "jobs", study_id=study_id, created_by="Ada")
    spec = folder.spec()
    assert (spec.kind, spec.n_rows, spec.shard_rows, spec.title) == ("study", 4, 1, "Study")
    revision = spec.params["settings"]["revision"]
    assert revision.startswith("local-")
    assert studies.study(store, study_id)["settings"]["revision"] == revision
    assert studies.study(store, study_id)["job_ids"] == [folder.job_id]
    planned = studies.runs(store, [study_id])
    assert folder.input_table()["example_id"].to_pylist() == [run["run_id"] for run in planned]
    for run in planned[1:]:
        held = [row["example_id"] for row in folder.table("members").to_pylist() if row["run_id"] == run["run_id"]]
        assert held == members(store, run["dataset_id"])
    texts = folder.table("texts")["example_id"].to_pylist()
    assert sorted(set(texts)) == texts == sorted(set(folder.table("members")["example_id"].to_pylist()))
    assert [row["output"] for row in folder.table("evaluation").to_pylist()] == ["This.", "That."]
    with pytest.raises(StoreError, match="has not ended yet"):
        studies.submit_study(store, tmp_path / "jobs", study_id=study_id)
    with pytest.raises(StoreError, match="Studies page"):
        jobs.submit_retry(store, tmp_path / "jobs", job_id=folder.job_id)


def test_an_output_of_white_space_is_none_and_one_that_stands_twice_counts_once(store: Store) -> None:
    """What the Evaluation sets page counts, what a plan reckons with and what a run is evaluated on are the same."""
    texts = [
        Example("Who?", "", "I."),
        Example("Who?", "", " \n\t"),
        Example("Who?", "", "You."),
        Example("Who?", "", ""),
    ]
    evaluation_id = import_texts(store, "odd", texts, kind="evaluation")
    evaluation.mark(store, evaluation_id)
    found = evaluation.evaluation_set(store, evaluation_id)
    assert (found["n_outputs"], found["n_members"]) == (2, 4)
    with store.write() as connection:
        connection.execute(
            text(
                """insert into members select :id, 4, example_id, null from members
                where dataset_id = :id and position = 0"""
            ),
            {"id": evaluation_id},
        )
    with store.read() as connection:
        evaluated = study_submit.evaluation_texts(connection, evaluation_id).read_all()["output"].to_pylist()
        assert (evaluated, study_submit.evaluation_size(connection, evaluation_id)) == (["I.", "You."], 2)
    look = study_plans.look(store, single_run([1]), kind="single", evaluation_id=evaluation_id, columns=[])
    assert look.n_outputs == 2
    assert selections.n_evaluation_characters(store, evaluation_id) == len("Who?I.") + len("Who?You.")


def test_several_gpus_share_the_runs_out_in_turn(store: Store, tmp_path: Path, tiny: str) -> None:
    study_id = new_study(store, base=tiny)
    folders = studies.submit_study(store, tmp_path / "jobs", study_id=study_id, parts=3)
    assert [folder.input_table()["number"].to_pylist() for folder in folders] == [[0, 3], [1], [2]]
    assert [folder.spec().title for folder in folders] == [f"Study (part {i} of 3)" for i in (1, 2, 3)]
    held = folders[1].table("members")
    assert set(held["run_id"].to_pylist()) == {studies.runs(store, [study_id])[1]["run_id"]}
    assert held.num_rows == folders[1].table("texts").num_rows == 8


def test_what_cannot_run_is_refused_before_a_folder_is_made(store: Store, tmp_path: Path, tiny: str) -> None:
    study_id = new_study(store, base=str(tmp_path / "nowhere"))
    with pytest.raises(ModelError, match="does not exist"):
        studies.submit_study(store, tmp_path / "jobs", study_id=study_id)
    with pytest.raises(StoreError, match="no study 99"):
        studies.submit_study(store, tmp_path / "jobs", study_id=99)
    silent = import_texts(store, "silent", [Example("Who?", "", "")])
    other = studies.create_study(
        store,
        name="other",
        kind="single",
        evaluation_id=silent,
        settings=FinetuneSettings(base=tiny),
        runs=single_run([1]),
        design={},
    )
    with pytest.raises(StoreError, match="no row of it has an output"):
        studies.submit_study(store, tmp_path / "jobs", study_id=other)
    assert not list((tmp_path / "jobs").glob("*"))


# --- results ---


def result(outcome: str = "done", *, loss: float | None = 2.0, **details: object) -> RunResult:
    return RunResult(
        outcome=outcome,
        loss_nats=loss,
        reason=None if outcome == "done" else "It went wrong.",
        train_loss_nats=1.5,
        seconds=3.0,
        losses=(OutputLoss(1, None, 0, "too long"), OutputLoss(2, 3.0, 5)),
        curve=(CurvePoint(1, 0.5, 2.5, 1e-3, 0.7, 0.1), CurvePoint(2, 1.0, 2.25)),
        details=details,
    )


def submitted(store: Store, tmp_path: Path, tiny: str) -> tuple[int, JobFolder]:
    study_id = new_study(store, base=tiny)
    [folder] = studies.submit_study(store, tmp_path / "jobs", study_id=study_id)
    return study_id, folder


def finish(store: Store, folder: JobFolder, shard: int, outcome: RunResult, *, times: int = 1) -> int:
    run_id = folder.input_table()["example_id"].to_pylist()[shard]
    folder.write_shard(shard, to_table(run_id, outcome))
    for _ in range(times):
        collecting.collect(store, folder, shard)
    return run_id


def test_a_result_is_collected_once_with_its_losses_and_its_curve(store: Store, tmp_path: Path, tiny: str) -> None:
    study_id, folder = submitted(store, tmp_path, tiny)
    run_id = finish(store, folder, 1, result(n_tokens=99), times=3)
    found = studies.runs(store, [study_id])[1]
    assert (found["run_id"], found["outcome"], found["loss_nats"]) == (run_id, "done", 2.0)
    assert (found["n_outputs"], found["n_outputs_null"], found["seconds"]) == (2, 1, 3.0)
    assert (found["job_id"], found["result"]) == (folder.job_id, {"n_tokens": 99})
    assert (count(store, "run_results"), count(store, "run_losses")) == (1, 2)
    curve = studies.curves(store, [run_id]).to_pylist()
    assert [(point["step"], point["loss_nats"], point["grad_norm"]) for point in curve] == [
        (1, 2.5, 0.7),
        (2, 2.25, None),
    ]
    losses = studies.output_losses(store, run_id)
    assert [(row["output"], row["loss_nats"]) for row in losses] == [("That.", 3.0), ("This.", None)]
    assert losses[-1]["reason"] == "too long"
    assert (studies.study(store, study_id)["n_done"], studies.study(store, study_id)["n_bad"]) == (1, 0)
    assert jobs.collected_shards(store, folder.job_id) == {1}
    assert jobs.jobs(store)[0]["n_failed"] == 0


def test_a_crash_while_a_result_is_collected_leaves_nothing_of_it(
    store: Store, tmp_path: Path, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study_id, folder = submitted(store, tmp_path, tiny)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(collecting, "_put_failures", crash)  # after the result, before the ledger
        with pytest.raises(KeyboardInterrupt):
            finish(store, folder, 1, result())
    for table in ("run_results", "run_losses", "run_curves", "job_shards"):
        assert count(store, table) == 0
    collecting.collect(store, folder, 1)
    assert (count(store, "run_results"), count(store, "run_losses"), count(store, "run_curves")) == (1, 2, 2)
    assert studies.study(store, study_id)["n_done"] == 1


def test_a_run_that_went_wrong_is_counted_and_can_be_done_again(store: Store, tmp_path: Path, tiny: str) -> None:
    study_id, folder = submitted(store, tmp_path, tiny)
    for shard, outcome in enumerate(("done", "diverged", "failed", "done")):
        finish(store, folder, shard, result(outcome, loss=None if outcome != "done" else 2.0, off=float("nan")))
    folder.append_event("done")
    bad = [(run["outcome"], run["reason"]) for run in studies.runs(store, [study_id]) if run["outcome"] != "done"]
    assert bad == [("diverged", "It went wrong."), ("failed", "It went wrong.")]
    assert (studies.study(store, study_id)["n_done"], studies.study(store, study_id)["n_bad"]) == (2, 2)
    assert jobs.jobs(store)[0]["n_failed"] == 2
    assert jobs.failures(store, folder.job_id) == []  # these hold examples, and runs are none
    [again] = studies.submit_study(store, tmp_path / "jobs", study_id=study_id)
    assert again.input_table()["number"].to_pylist() == [1, 2]
    run_id = finish(store, again, 0, result(loss=1.25))
    found = studies.runs(store, [study_id])[1]
    assert (found["run_id"], found["outcome"], found["loss_nats"], found["job_id"]) == (
        run_id,
        "done",
        1.25,
        again.job_id,
    )
    assert count(store, "run_results") == 5  # both tries are kept
    with store.write() as connection:  # an older job of the study was resumed, and failed after all
        connection.execute(
            text(
                """insert into run_results select nextval('result_ids'), run_id, 'late', 'failed', 'late', null, 0, 0,
                null, null, details, finished_at from run_results where run_id = :id and outcome = 'done'"""
            ),
            {"id": run_id},
        )
    assert studies.runs(store, [study_id])[1]["outcome"] == "done"
    finish(store, again, 1, result())
    again.append_event("done")
    with pytest.raises(StoreError, match="Every run of this study is done"):
        studies.submit_study(store, tmp_path / "jobs", study_id=study_id)


def test_runs_that_are_left_are_not_evaluated_on_other_outputs(store: Store, tmp_path: Path, tiny: str) -> None:
    """References that came in between would make two kinds of losses in one study, and a fit of both."""
    study_id, folder = submitted(store, tmp_path, tiny)
    finish(store, folder, 0, result())
    folder.append_event("done")
    assert studies.submit_study(store, tmp_path / "jobs", study_id=study_id)[0].spec().n_rows == 3
    JobFolder(tmp_path / "jobs" / studies.study(store, study_id)["job_ids"][-1]).append_event("done")
    with store.write() as connection:
        connection.execute(
            text("insert into members select 1, 3, example_id, null from members where dataset_id = 2 limit 1")
        )
    with pytest.raises(StoreError, match="not what its first runs were evaluated on"):
        studies.submit_study(store, tmp_path / "jobs", study_id=study_id)


def test_what_runs_took_is_what_an_estimate_rests_on(store: Store, tmp_path: Path, tiny: str) -> None:
    _, folder = submitted(store, tmp_path, tiny)
    settings = {"base": "some/base", "device": "cpu", "precision": "fp32"}
    seconds: dict[str, Any] = {"seconds_training": 10.0, "seconds_evaluating": 1.0, "seconds_loading": 2.0}
    finish(store, folder, 0, result(settings=settings, n_tokens_trained=5000, n_eval_tokens=100, **seconds))
    finish(store, folder, 1, result("failed", loss=None, settings=settings, n_tokens_trained=7000, **seconds))
    finish(store, folder, 2, result())
    [past] = studies.past_finetunes(store)
    assert (past.base, past.n_tokens, past.seconds, past.start_seconds) == ("some/base", 5000, 10.0, 2.0)


def test_a_skipped_run_has_no_result_and_a_removed_study_takes_none(store: Store, tmp_path: Path, tiny: str) -> None:
    study_id, folder = submitted(store, tmp_path, tiny)
    finish(store, folder, 0, result("skipped", loss=None))
    assert studies.runs(store, [study_id])[0]["outcome"] is None
    assert jobs.collected_shards(store, folder.job_id) == {0}
    finish(store, folder, 1, result())
    studies.remove_study(store, study_id)
    for table in ("studies", "runs", "run_results", "run_losses", "run_curves", "study_jobs"):
        assert count(store, table) == 0
    assert {row["name"] for row in queries.datasets(store, with_runs=True)} == {"questions", "good", "bad"}
    finish(store, folder, 2, result())
    assert jobs.collected_shards(store, folder.job_id) == {0, 1, 2}
    assert count(store, "run_results") == 0


def test_a_study_whose_dataset_another_one_trains_on_stays(store: Store) -> None:
    first = new_study(store)
    mixture = studies.runs(store, [first])[1]["dataset_id"]
    evaluation_id = studies.study(store, first)["evaluation_id"]
    studies.create_study(
        store,
        name="Again",
        kind="single",
        evaluation_id=evaluation_id,
        settings=FinetuneSettings(base=BASE),
        runs=single_run([1]),
        design={},
        dataset_id=mixture,
    )
    with pytest.raises(StoreError, match="'Again' trains on a dataset of this one"):
        studies.remove_study(store, first)
    assert len(studies.runs(store, [first])) == 4


def test_a_study_that_is_stopped_early_keeps_its_finished_runs(tmp_path: Path) -> None:
    """The whole way through the server's own service: a cancelled study is a smaller one, and can be gone on with."""
    home = Settings(home=tmp_path / "home", data_roots=())
    home.home.mkdir()
    service = Service(home)
    store = service.store
    dataset_id = import_texts(store, "train", some_texts("train", 120))
    ids = members(store, dataset_id)
    planned = bins(ids, {one: float(one) for one in ids}, indicator="mtld", n_bins=3)
    study_id = studies.create_study(
        store,
        name="Bins",
        kind="univariate",
        evaluation_id=evaluation_set(store),
        settings=FinetuneSettings(base=str(DEMO_STUDENT), precision="fp32", max_length=512, epochs=5.0),
        runs=planned,
        design={},
    )
    [folder] = studies.submit_study(store, home.jobs_path, study_id=study_id)
    service.start()
    try:
        service.enqueue(folder)
        until = time.monotonic() + 120
        while not folder.finished_shards():
            assert time.monotonic() < until
            time.sleep(0.02)
        service.scheduler.cancel(folder.job_id)
        while not (service.scheduler.status(folder.job_id).ended and studies.study(store, study_id)["n_done"]):
            assert time.monotonic() < until
            time.sleep(0.02)
        assert service.scheduler.status(folder.job_id).state == "cancelled"
        kept = studies.runs(store, [study_id])
        assert kept[0]["outcome"] == "done"
        assert kept[-1]["outcome"] is None
        left = [run["number"] for run in kept if run["outcome"] is None]
        [again] = studies.submit_study(store, home.jobs_path, study_id=study_id)
        assert again.input_table()["number"].to_pylist() == left
    finally:
        service.stop()
