"""An experiment from its rows to its verdict, on a real store with real jobs, killed between any two steps."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from core.errors import StoreError
from core.example import Example
from core.experiment import ACCEPTED, ORIGINAL, V1, V2, ExperimentSettings, ReflectSource, RowChoice
from core.finetune.settings import FinetuneSettings
from core.jobs.folder import JobFolder
from core.jobs.runner import Progress
from core.lm import StudentSettings
from core.reflecting import ReflectOptions
from core.teacher import TeacherSettings
from core.teachers import params_of
from db import (
    collecting,
    commands,
    decisions,
    evaluation,
    experiment_costs,
    experiment_driver,
    experiment_plan,
    experiment_results,
    experiment_rows,
    experiments,
    jobs,
    studies,
)
from db.store import Store, rows
from tests.core import tiny_models
from tests.db.conftest import add_pair, batch
from tests.fake_teacher import FakeTeacher
from tests.judge_teacher import JudgeTeacher

KEY = "sk-test-0123456789"
HANDLERS = {
    "reflect": "core.reflecting", "study": "core.study_job", "answers": "core.answers_job", "judge": "core.judge_job",
}  # fmt: skip
WORDS = ("river", "apple", "seven", "blue", "music", "window", "paper", "stone")
N_ROWS = 8


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.save(tmp_path_factory.mktemp("models") / "tiny", "llama")


@pytest.fixture(scope="module")
def teacher() -> Iterator[FakeTeacher]:
    with FakeTeacher() as server:
        yield server


@pytest.fixture(scope="module")
def judge() -> Iterator[JudgeTeacher]:
    with JudgeTeacher() as server:
        yield server


def endpoint(server: FakeTeacher, name: str, **changes: Any) -> TeacherSettings:
    return TeacherSettings(
        server.base_url, name, temperature=0.0, max_retries=0, backoff_seconds=0.01, structured="tags", **changes
    )


@dataclass
class Bench:
    """A store with a dataset and an evaluation set, and what a scheduler would know of its jobs."""

    store: Store
    jobs_path: Path
    model: Path
    dataset_id: int
    evaluation_id: int
    row_ids: list[int]
    states: dict[str, str] = field(default_factory=dict)
    enqueued: list[str] = field(default_factory=list)

    def settings(self, **changes: Any) -> ExperimentSettings:
        usual: dict[str, Any] = {
            "arms": (ORIGINAL, V2),
            "reflected": {V2: ReflectSource(job_id="old-v2")},
            "finetune": FinetuneSettings(
                base=str(self.model), precision="fp32", max_length=512, epochs=1.0, batch_size=4
            ).to_params(),
            "evaluation_id": self.evaluation_id,
            "test_set_id": self.evaluation_id,
            "n_seeds": 1,
            "decoding": {"max_new_tokens": 4},
        }
        return ExperimentSettings(**{**usual, **changes})

    def create(self, name: str = "x", **changes: Any) -> int:
        settings = self.settings(**changes)
        chosen = experiment_rows.choose(self.store, self.dataset_id, settings)
        return experiments.create(
            self.store, name=name, dataset_id=self.dataset_id, settings=settings, chosen=chosen, created_by="Test"
        )

    def advance(self, experiment_id: int) -> list[str]:
        """As the service does: what must be queued is queued. Returns the ids of jobs that are new to the queue."""
        found = experiments.advance(self.store, self.jobs_path, experiment_id, state_of=self.states.get)
        return self._enqueue(found)

    def _enqueue(self, folders: list[JobFolder]) -> list[str]:
        new = [folder.job_id for folder in folders if folder.job_id not in self.states]
        for job_id in new:
            self.states[job_id] = "queued"
        self.enqueued += new
        return new

    def resume(self, experiment_id: int) -> list[str]:
        resumed: list[str] = []

        def resume_job(job_id: str) -> None:
            self.states[job_id] = "queued"
            resumed.append(job_id)

        self._enqueue(
            experiments.resume(
                self.store, self.jobs_path, experiment_id, state_of=self.states.get, resume_job=resume_job
            )
        )
        return resumed

    def work(self, job_id: str) -> None:
        """Do a queued job here, as its worker would, and take in what it gave."""
        folder = JobFolder(self.jobs_path / job_id)
        spec = folder.spec()
        importlib.import_module(HANDLERS[spec.kind]).run(folder, spec, Progress(folder, spec))
        for shard in sorted(folder.finished_shards()):
            collecting.collect(self.store, folder, shard)
        self.states[job_id] = "done"

    def queued(self) -> list[str]:
        return [job_id for job_id, state in self.states.items() if state == "queued"]

    def finish(self, experiment_id: int) -> None:
        """Work and advance until nothing is left to do."""
        self.advance(experiment_id)
        while self.queued():
            for job_id in self.queued():
                self.work(job_id)
            self.advance(experiment_id)

    def steps(self, experiment_id: int) -> dict[str, str]:
        found = experiments.experiment(self.store, experiment_id)
        states = experiments.step_states(self.store, self.jobs_path, found, state_of=self.states.get)
        return {one.step.key: one.state for one in states}

    def reason(self, experiment_id: int, key: str) -> str:
        found = experiments.experiment(self.store, experiment_id)
        states = experiments.step_states(self.store, self.jobs_path, found, state_of=self.states.get)
        return next(one.reason or "" for one in states if one.step.key == key)

    def reflected(self, job_id: str, texts: dict[int, Example | None], *, retry_of: str | None = None) -> None:
        """What a reflection job would have left: row -> its new text; None: the filter left it out."""
        with self.store.adding_examples() as connection:
            ids = commands.add_examples(connection, [one for one in texts.values() if one is not None])
            connection.execute(
                text("insert into jobs values (:job, 'reflect', 'Reflect', :id, now()::timestamp, null, :retry)"),
                {"job": job_id, "id": self.dataset_id, "retry": retry_of},
            )
            for row, example in texts.items():
                final = row if example is None else ids[example.hash]
                connection.execute(
                    text("""insert into reflections (job_id, dataset_id, example_id, final_id, kept, why)
                    values (:job, :id, :row, :final, :kept, 'because')"""),
                    {"job": job_id, "id": self.dataset_id, "row": row, "final": final, "kept": example is not None},
                )


def row(i: int) -> Example:
    return Example(f"Say {WORDS[i]} {i}.", "", f"{WORDS[i]} {i}")


@pytest.fixture
def bench(tmp_path: Path, model: Path, store: Store) -> Bench:
    return _bench(store, tmp_path / "jobs", model)


def _bench(store: Store, jobs_path: Path, model: Path) -> Bench:
    dataset_id = commands.import_dataset(store, [batch([row(i) for i in range(N_ROWS)])], name="rows", source="test")
    asked = [Example(f"What is {word}?", "", f"It is {word}.") for word in WORDS[:4]]
    evaluation_id = commands.import_dataset(store, [batch(asked)], name="asked", source="test")
    evaluation.mark(store, evaluation_id)
    made = Bench(store, jobs_path, model, dataset_id, evaluation_id, experiment_rows.dataset_rows(store, dataset_id))
    # Old V2: the first row was left out by the filter, the second kept as it was.
    texts: dict[int, Example | None] = {
        one: Example(f"Say {WORDS[i]} politely.", "", f"{WORDS[i]}, please, {i}") for i, one in enumerate(made.row_ids)
    }
    made.reflected("old-v2", {**texts, made.row_ids[0]: None, made.row_ids[1]: row(1)})
    return made


# --- rows of the arms ---


def test_rows_of_a_reflection_job_with_what_it_lacks(bench: Bench) -> None:
    arm = experiment_rows.reflected_rows(bench.store, V2, "old-v2", bench.row_ids)
    assert set(arm.texts) == set(bench.row_ids[1:])
    assert arm.texts[bench.row_ids[1]] == bench.row_ids[1]
    assert arm.lacks[experiment_rows.LEFT_OUT] == {bench.row_ids[0]}
    other = experiment_rows.reflected_rows(bench.store, V2, "no-such-job", bench.row_ids)
    assert not other.texts
    assert other.lacks[experiment_rows.NOT_IN_JOB] == set(bench.row_ids)


def test_a_retry_counts_with_its_job_and_the_latest_wins(bench: Bench) -> None:
    better = Example("Say it better.", "", "better")
    bench.reflected("old-v2b", {bench.row_ids[1]: better}, retry_of="old-v2")
    arm = experiment_rows.reflected_rows(bench.store, V2, "old-v2", bench.row_ids)
    assert arm.texts[bench.row_ids[1]] not in bench.row_ids
    assert len(arm.texts) == N_ROWS - 1


def test_accepted_rows_are_those_that_people_accepted_with_their_edits(bench: Bench) -> None:
    new = [Example(f"New {i}", "", f"new {i}") for i in range(4)]
    pairs = [
        add_pair(bench.store, dataset_id=bench.dataset_id, original=row(i), candidate=new[i]) for i in range(4)
    ]  # fmt: skip
    edited = Example("New 1", "", "edited by hand")
    decisions.decide(bench.store, pair_id=pairs[0], reviewer="A", verdict="accept")
    decisions.decide(bench.store, pair_id=pairs[1], reviewer="A", verdict="edit", edited=edited)
    decisions.decide(bench.store, pair_id=pairs[2], reviewer="A", verdict="reject")
    arm = experiment_rows.accepted_rows(bench.store, bench.dataset_id, bench.row_ids)
    with bench.store.read() as connection:
        texts = {
            one["example_id"]: one["output"] for one in rows(connection, "select example_id, output from examples")
        }
    assert {one: texts[to] for one, to in arm.texts.items()} == {
        bench.row_ids[0]: "new 0", bench.row_ids[1]: "edited by hand",
    }  # fmt: skip
    assert {reason: len(found) for reason, found in arm.lacks.items()} == {
        "people rejected its reflected version": 1,
        "nobody has decided on it yet": 1,
        "it was never reflected": 4,
    }


def test_rows_that_the_evaluation_set_asks_are_left_out(bench: Bench) -> None:
    asked = [Example(f"say  {WORDS[2]} 2.", "", "another answer")]
    evaluation_id = commands.import_dataset(bench.store, [batch(asked)], name="near", source="test")
    evaluation.mark(bench.store, evaluation_id)
    settings = bench.settings(evaluation_id=evaluation_id)
    chosen = experiment_rows.choose(bench.store, bench.dataset_id, settings)
    assert chosen.n_overlap == 1
    assert chosen.rows == (bench.row_ids[1], *bench.row_ids[3:])
    kept = replace(settings, rows=RowChoice(without_overlap=False))
    assert len(experiment_rows.choose(bench.store, bench.dataset_id, kept).rows) == N_ROWS - 1


def test_a_plan_tells_rows_calls_and_runs_before_anything_is_made(bench: Bench, judge: JudgeTeacher) -> None:
    priced = endpoint(judge, "judge-a", price_in=1.0, price_out=2.0)
    settings = bench.settings(judges=(params_of(priced),), n_seeds=3, n_items=3)
    chosen = experiment_rows.choose(bench.store, bench.dataset_id, settings)
    plan = experiment_plan.plan(bench.store, bench.dataset_id, settings, chosen)
    assert plan.pairing is not None
    assert (plan.pairing.n_rows, plan.n_items, plan.n_outputs, plan.n_steps) == (7, 3, 4, 2)
    assert plan.lost[V2] == {experiment_rows.LEFT_OUT: 1}
    amounts = {line.what: line.amount for line in plan.lines}
    assert amounts == {"Finetune and evaluate": "6 runs", "Answers": "6 answers", "Judge: judge-a": "6 calls"}
    assert plan.cost_usd is not None
    assert any("2 optimiser steps" in words for words in plan.warnings)
    assert not list(bench.jobs_path.glob("*"))


def test_no_row_left_is_refused_before_anything_is_made(bench: Bench) -> None:
    with pytest.raises(StoreError, match="No row is left"):
        bench.create(arms=(ORIGINAL, ACCEPTED))
    assert experiments.experiments(bench.store) == []


# --- the whole chain ---


def test_an_experiment_from_rows_to_verdict(bench: Bench, teacher: FakeTeacher, judge: JudgeTeacher) -> None:
    options = ReflectOptions(
        method="v1", teacher=endpoint(teacher, "rewriter"), student=StudentSettings(model=str(bench.model))
    )
    judges = (params_of(endpoint(judge, "judge-a")),)
    experiment_id = bench.create(
        arms=(ORIGINAL, V1, V2), judges=judges, n_seeds=2,
        reflected={V1: ReflectSource(options=options.to_params()), V2: ReflectSource(job_id="old-v2")},
    )  # fmt: skip
    assert bench.advance(experiment_id) == bench.queued()
    assert bench.steps(experiment_id)["reflect-v1"] == "queued"
    assert bench.advance(experiment_id) == []
    bench.finish(experiment_id)
    assert set(bench.steps(experiment_id).values()) == {"done"}
    found = experiments.experiment(bench.store, experiment_id)
    assert found.is_done
    assert experiments.open_ids(bench.store) == []
    kinds = [JobFolder(bench.jobs_path / job_id).spec().kind for job_id in bench.enqueued]
    assert kinds == ["reflect", "study", "answers", "answers", "answers", "judge", "judge"]
    assert bench.advance(experiment_id) == []

    states = experiments.step_states(bench.store, bench.jobs_path, found, state_of=bench.states.get)
    results = experiment_results.results(bench.store, found, states)
    assert [one.arm for one in results.arms] == [ORIGINAL, V1, V2]
    # V2's filter dropped one row, so no arm has it; V2 kept one row as it was.
    assert {one.n_rows for one in results.arms} == {N_ROWS - 1}
    assert [one.n_changed for one in results.arms] == [0, N_ROWS - 1, N_ROWS - 2]
    assert results.of(V2).lost == {experiment_rows.LEFT_OUT: 1}
    for one in results.arms:
        assert sorted(one.losses.by_seed) == [0, 1]
        assert one.n_answers + one.n_no_answer == 4
    v1 = results.of(V1)
    assert v1.difference is not None
    assert v1.difference.n_outputs == 4
    mean = [sum(results.of(arm).losses.by_seed.values()) / 2 for arm in (V1, ORIGINAL)]
    assert v1.difference.difference_nats == pytest.approx(mean[0] - mean[1])
    assert [(one.judge, one.against) for one in v1.judged] == [("judge-a", ORIGINAL)]
    assert v1.verdict is not None
    assert v1.verdict.kind != "missing"
    costs = {row["step"]: row for row in experiment_costs.step_costs(bench.store, states)}
    assert costs["Reflect, V1"]["n_calls"] == 2 * (N_ROWS - 1)
    study = studies.studies(bench.store)[0]
    assert (study["kind"], study["n_done"], study["n_runs"]) == ("experiment", 7, 7)
    runs = studies.runs(bench.store, [study["study_id"]])
    assert len({run["dataset_id"] for run in runs if run["role"] != "base"}) == 3
    assert [row["evaluation_loss_nats"] for row in experiment_results.table_of(results)] == [
        one.losses.mean_nats for one in results.arms
    ]


def test_two_arms_that_are_made_share_what_the_teacher_said(bench: Bench, teacher: FakeTeacher) -> None:
    first = ReflectOptions(
        method="v1", teacher=endpoint(teacher, "rewriter"), student=StudentSettings(model=str(bench.model))
    )
    second = replace(first, method="v2")
    experiment_id = bench.create(
        arms=(ORIGINAL, V1, V2), test_set_id=None,
        reflected={V1: ReflectSource(options=first.to_params()), V2: ReflectSource(options=second.to_params())},
    )  # fmt: skip
    asked_before = len(teacher.requests)
    assert len(bench.advance(experiment_id)) == 1
    assert bench.steps(experiment_id)["reflect-v2"] == "waiting"
    bench.finish(experiment_id)
    assert set(bench.steps(experiment_id).values()) == {"done"}
    asked = teacher.questions[asked_before:]
    assert len(asked) == len(set(asked)) >= 2 * (N_ROWS - 1)  # no question was asked, and paid, by both


# --- killed, failed, held ---


class Killed(BaseException):
    """The server dies here."""


@pytest.mark.parametrize("after", [False, True], ids=["before the folder", "after the folder"])
def test_a_server_killed_while_it_submits_neither_loses_nor_doubles_a_step(
    bench: Bench, judge: JudgeTeacher, monkeypatch: pytest.MonkeyPatch, *, after: bool
) -> None:
    experiment_id = bench.create(judges=(params_of(endpoint(judge, "judge-a")),))
    create = JobFolder.create.__func__  # type: ignore[attr-defined]

    def dying(cls: Any, *arguments: Any, **options: Any) -> JobFolder:
        if after:
            create(cls, *arguments, **options)
        raise Killed

    n_kills = 0
    while not experiments.experiment(bench.store, experiment_id).is_done:
        with monkeypatch.context() as dead:
            dead.setattr(JobFolder, "create", classmethod(dying))
            try:
                bench.advance(experiment_id)
            except Killed:
                n_kills += 1
        jobs.record_missing(bench.store, bench.jobs_path)  # what a server does when it starts
        bench.advance(experiment_id)
        for job_id in bench.queued():
            bench.work(job_id)
    assert n_kills == 3  # at the study, the answers and the judge
    folders = [path.name for path in bench.jobs_path.iterdir() if not path.name.startswith(".")]
    kinds = sorted(JobFolder(bench.jobs_path / name).spec().kind for name in folders)
    assert kinds == ["answers", "answers", "judge", "study"]
    with bench.store.read() as connection:
        assert len(rows(connection, "select 1 from answer_sets")) == 2
        assert len(rows(connection, "select 1 from comparisons")) == 1
        assert len(rows(connection, "select 1 from studies")) == 1


def test_a_step_that_cannot_begin_stops_the_chain_with_its_reason(bench: Bench, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    base = tiny_models.save(tmp_path / "base", "llama")
    finetune = {**bench.settings().finetune, "base": str(base)}
    experiment_id = bench.create(finetune=finetune, test_set_id=None)
    base.rename(moved)
    assert bench.advance(experiment_id) == []
    assert bench.steps(experiment_id) == {"rows": "done", "finetune": "failed"}
    assert str(base) in bench.reason(experiment_id, "finetune")
    assert bench.advance(experiment_id) == []
    found = experiments.experiment(bench.store, experiment_id)
    states = experiments.step_states(bench.store, bench.jobs_path, found, state_of=bench.states.get)
    assert experiment_driver.overall(found, states) == "failed"
    verdict = experiment_results.results(bench.store, found, states).of(V2).verdict
    assert verdict is not None
    assert verdict.kind == "missing"
    assert "Finetune" in verdict.words
    moved.rename(base)
    bench.resume(experiment_id)
    assert bench.steps(experiment_id)["finetune"] == "queued"
    bench.finish(experiment_id)
    assert experiments.experiment(bench.store, experiment_id).is_done


def test_a_job_that_failed_stops_the_chain_and_resume_puts_it_into_the_queue(bench: Bench) -> None:
    experiment_id = bench.create(test_set_id=None)
    [job_id] = bench.advance(experiment_id)
    JobFolder(bench.jobs_path / job_id).append_event("failed", message="The disk is full.")
    bench.states[job_id] = "failed"
    assert bench.advance(experiment_id) == []
    assert bench.steps(experiment_id)["finetune"] == "failed"
    assert bench.reason(experiment_id, "finetune") == "The disk is full."
    assert bench.resume(experiment_id) == [job_id]
    bench.finish(experiment_id)
    assert experiments.experiment(bench.store, experiment_id).is_done
    assert bench.enqueued == [job_id]


def test_nothing_begins_while_it_is_held(bench: Bench) -> None:
    experiment_id = bench.create(test_set_id=None)
    experiments.hold(bench.store, experiment_id, held=True)
    assert bench.advance(experiment_id) == []
    assert bench.steps(experiment_id) == {"rows": "waiting", "finetune": "waiting"}
    experiments.hold(bench.store, experiment_id, held=False)
    [job_id] = bench.advance(experiment_id)
    # Held while its last job runs: that it is done is noted all the same.
    experiments.hold(bench.store, experiment_id, held=True)
    bench.work(job_id)
    assert experiments.open_ids(bench.store) == [experiment_id]
    assert bench.advance(experiment_id) == []
    assert experiments.experiment(bench.store, experiment_id).is_done
    assert experiments.open_ids(bench.store) == []


def test_a_job_over_the_rest_of_another_goes_on_with_its_step(bench: Bench, teacher: FakeTeacher) -> None:
    options = ReflectOptions(
        method="v1", teacher=endpoint(teacher, "rewriter"), student=StudentSettings(model=str(bench.model))
    )
    experiment_id = bench.create(
        arms=(ORIGINAL, V1), reflected={V1: ReflectSource(options=options.to_params())}, test_set_id=None
    )
    [first] = bench.advance(experiment_id)
    JobFolder(bench.jobs_path / first).append_event("failed", message="The budget is spent.")
    bench.states[first] = "failed"
    assert bench.steps(experiment_id)["reflect-v1"] == "failed"
    rest = jobs.submit_rest(bench.store, bench.jobs_path, job_id=first)
    bench.states[rest.job_id] = "queued"
    assert bench.steps(experiment_id)["reflect-v1"] == "queued"
    bench.finish(experiment_id)
    assert experiments.experiment(bench.store, experiment_id).is_done


def test_names_are_taken_once_and_removing_leaves_what_was_made(bench: Bench) -> None:
    experiment_id = bench.create(test_set_id=None)
    with pytest.raises(StoreError, match="already"):
        bench.create(test_set_id=None)
    bench.finish(experiment_id)
    with bench.store.read() as connection:
        before = len(rows(connection, "select 1 from datasets"))
    experiments.remove(bench.store, experiment_id)
    assert experiments.experiments(bench.store) == []
    assert len(studies.studies(bench.store)) == 1
    with bench.store.read() as connection:
        assert len(rows(connection, "select 1 from datasets")) == before - 1
        assert not rows(connection, "select 1 from experiment_links")
    with pytest.raises(StoreError, match="no experiment"):
        experiments.experiment(bench.store, experiment_id)
