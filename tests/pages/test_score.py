"""The Score page in each state of a store."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from core.indicators import INDICATORS
from core.lm import StudentSettings
from core.scoring import DEMO_STUDENT, Models
from core.trial import TRIAL_ROWS
from db import jobs, queries
from db.service import Service
from pages import _indicators
from tests.core import tiny_embedder, tiny_models, tiny_reward, tiny_unieval
from tests.pages import sample_stores
from tests.pages.conftest import RunPage, running
from tests.pages.sample_stores import DATASET, MODEL
from tests.pages.shown import words

ROLES = ("student", "reward", "unieval", "embedder")


def choose(page: AppTest, *indicators: str) -> None:
    """Tick exactly these indicators (``knn``: the kNN distance)."""
    for box in page.checkbox:
        if box.key and box.key.startswith("score-"):
            box.set_value(box.key.removeprefix("score-") in indicators)
    page.run()
    assert not page.exception


def run_button(page: AppTest):
    return next(button for button in page.button if button.key and button.key.startswith("score-run"))


def test_an_empty_store_says_what_to_do_next(empty_home: Service, run_page: RunPage) -> None:
    page = run_page("score")
    assert "nothing to score" in words(page)
    assert not page.checkbox


def test_every_indicator_is_offered_once_with_all_that_there_is_to_know(
    half_scored_home: Service, run_page: RunPage
) -> None:
    page = run_page("score")
    keys = [box.key.removeprefix("score-") for box in page.checkbox if box.key]
    assert sorted(keys) == sorted("knn" if one.key == "knn_6" else one.key for one in INDICATORS)
    said = words(page).replace("\\", "")
    for one in INDICATORS:
        assert one.summary in said
        assert one.paper.partition(";")[0] in said
        assert f"{_indicators.direction_words(one)} · {_indicators.range_words(one)}" in said
    assert said.index("No model") < said.index("Tokenizer") < said.index("Reward, UniEval")


def test_groups_go_by_cost() -> None:
    by_group: dict[int, list[str]] = {}
    for one in INDICATORS:
        by_group.setdefault(_indicators.group_of(one), []).append(one.key)
    assert by_group == {
        0: ["mtld"],
        1: ["length", "knn_6"],
        2: ["reward", "naturalness", "coherence", "understandability"],
        3: ["perplexity", "ifd", "ifd_loss", "r_ifd"],
    }


def roles_asked(page: AppTest) -> list[str]:
    keys = [box.key or "" for box in page.selectbox]
    return [role for role in ROLES if f"score-{role}-model" in keys]


def test_only_the_models_that_are_needed_are_asked_for(half_scored_home: Service, run_page: RunPage) -> None:
    page = run_page("score")
    for indicators, roles in (
        (["mtld"], []),
        (["length"], ["student"]),
        (["reward"], ["reward"]),
        (["coherence", "knn"], ["unieval", "embedder"]),
        (["ifd", "reward", "naturalness", "knn"], list(ROLES)),
    ):
        choose(page, *indicators)
        assert roles_asked(page) == roles


def test_the_neighbour_can_be_chosen(half_scored_home: Service, run_page: RunPage, tmp_path: Path) -> None:
    page = run_page("score")
    choose(page, "knn")
    page.number_input(key="score-knn-i").set_value(3)
    put_models(page, {"embedder": str(tiny_embedder.save(tmp_path / "embedder"))})
    assert page.dataframe[0].value["indicator"].tolist() == ["kNN-3"]


def test_rows_that_are_scored_already_are_not_scored_again(half_scored_home: Service, run_page: RunPage) -> None:
    dataset_id = next(r["dataset_id"] for r in queries.datasets(half_scored_home.store) if r["name"] == DATASET)
    page = run_page("score", dataset=str(dataset_id))
    choose(page, "mtld")
    plan = jobs.plan_score(half_scored_home.store, dataset_id=dataset_id, indicators=["mtld"], models=Models())
    assert run_button(page).label == f"Score {plan.n_to_score:,} rows"
    assert {m.label: m.value for m in page.metric}["Rows to score"] == f"{plan.n_to_score:,}"
    assert "A rough guess" in words(page)


def test_submitting_scores_the_rest_and_says_when_it_is_done(half_scored_home: Service, run_page: RunPage) -> None:
    dataset_id = next(r["dataset_id"] for r in queries.datasets(half_scored_home.store) if r["name"] == "Sums")
    page = run_page("score", dataset=str(dataset_id))
    choose(page, "mtld")
    run_button(page).click().run()
    assert not page.exception
    assert len(half_scored_home.scheduler.statuses()) == 1
    assert "Score Sums" in words(page)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        (status,) = half_scored_home.scheduler.statuses().values()
        if status.ended and jobs.collected_shards(half_scored_home.store, status.job_id):
            break
        time.sleep(0.2)
    assert status.state == "done", status
    page.run()
    assert not page.exception
    assert "Every row is scored by these indicators already" in words(page)


def models_in(folder: Path) -> dict[str, str]:
    """A tiny model for every role."""
    return {
        "student": str(tiny_models.save(folder / "student", "llama")),
        "reward": str(tiny_reward.save(folder / "reward", "deberta-v2")),
        "unieval": str(tiny_unieval.save(folder / "unieval")),
        "embedder": str(tiny_embedder.save(folder / "embedder")),
    }


def put_models(page: AppTest, models: dict[str, str]) -> None:
    """Type the names of models: AppTest can choose among the options only, so they are added as the browser does."""
    add_options(page, models)
    for role, model in models.items():
        page.selectbox(key=f"score-{role}-model").set_value(model)
    page.run()
    assert not page.exception
    add_options(page, models)


def add_options(page: AppTest, models: dict[str, str]) -> None:
    for role, model in models.items():
        page.selectbox(key=f"score-{role}-model").options.append(model)


def wait_for_jobs(service: Service) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        statuses = service.scheduler.statuses()
        if all(s.ended and len(jobs.collected_shards(service.store, i)) == s.total_shards for i, s in statuses.items()):
            break
        time.sleep(0.2)
    assert {status.state for status in statuses.values()} == {"done"}, statuses


def test_every_indicator_is_scored_from_the_page_and_its_models_are_remembered(
    half_scored_home: Service, run_page: RunPage, tmp_path: Path
) -> None:
    dataset_id = next(r["dataset_id"] for r in queries.datasets(half_scored_home.store) if r["name"] == DATASET)
    page = run_page("score", dataset=str(dataset_id))
    choose(page, "knn", *(one.key for one in INDICATORS))
    models = models_in(tmp_path)
    put_models(page, models)
    run_button(page).click().run()
    assert not page.exception
    assert run_button(page).disabled, "the same again would be done twice"
    wait_for_jobs(half_scored_home)
    add_options(page, models)
    page.run()
    assert not page.exception
    assert "Every row is scored by these indicators already" in words(page)
    results = page.dataframe[-1].value
    assert results["indicator"].tolist() == [one.outputs[0].label for one in INDICATORS]
    assert set(results["scored"]) == {24}
    nulls = dict(zip(results["indicator"], results["NULL"], strict=True))
    assert nulls["IFD"] >= 1, "row 5 has no response"
    assert nulls["kNN-6"] == 0
    assert all(sum(bins) == 24 - n for bins, n in zip(results["spread"], results["NULL"], strict=True))
    # Another session, and another server, begin with the models that were used.
    fresh = run_page("score", dataset=str(dataset_id))
    choose(fresh, "knn", *(one.key for one in INDICATORS))
    assert {role: fresh.selectbox(key=f"score-{role}-model").value for role in ROLES} == models
    assert set(json.loads((half_scored_home.settings.home / "models.json").read_text())) == set(ROLES)
    # One indicator more: only what it lacks is asked for.
    fresh.number_input(key="score-knn-i").set_value(2).run()
    run_button(fresh).click().run()
    latest = jobs.jobs(half_scored_home.store)[0]["job_id"]
    assert half_scored_home.job_folder(latest).spec().params["indicators"] == ["knn_2"]
    half_scored_home.scheduler.cancel(latest)


def test_a_measurement_takes_the_place_of_the_guess(half_scored_home: Service, run_page: RunPage) -> None:
    dataset_id = next(r["dataset_id"] for r in queries.datasets(half_scored_home.store) if r["name"] == DATASET)
    page = run_page("score", dataset=str(dataset_id))
    choose(page, "mtld", "ifd")
    assert "A rough guess" in words(page)
    page.button(key=f"score-measure-{dataset_id}").click().run()
    assert not page.exception
    trial = page.session_state["score_trial"][1]
    assert trial.wait(90)
    page.run()
    assert not page.exception
    assert f"Measured: {TRIAL_ROWS} rows of this dataset took" in words(page).replace("\\", "")
    assert jobs.jobs(half_scored_home.store) == [], "a trial is no job"
    choose(page, "mtld")
    assert "Measured" not in words(page), "what was measured was something else"


def test_a_trial_of_a_choice_that_was_changed_is_stopped(half_scored_home: Service, run_page: RunPage) -> None:
    dataset_id = next(r["dataset_id"] for r in queries.datasets(half_scored_home.store) if r["name"] == DATASET)
    page = run_page("score", dataset=str(dataset_id))
    choose(page, "ifd")
    page.button(key=f"score-measure-{dataset_id}").click().run()
    trial = page.session_state["score_trial"][1]
    choose(page, "mtld")
    assert trial.wait(30)
    assert trial.state in ("cancelled", "done")


@pytest.mark.parametrize(
    ("role", "indicator", "words_of_it"),
    [
        ("student", "ifd", "which is not a causal language model"),
        ("reward", "reward", "which is not a sequence classifier"),
        ("unieval", "coherence", "T5ForConditionalGeneration"),
        ("embedder", "knn", "without a modules.json"),
    ],
)
def test_a_model_of_another_kind_is_refused_before_submit(
    role: str, indicator: str, words_of_it: str, half_scored_home: Service, run_page: RunPage, tmp_path: Path
) -> None:
    other = tiny_reward.save(tmp_path / "m", "bert") if role != "reward" else tiny_models.save(tmp_path / "m", "gpt2")
    page = run_page("score")
    choose(page, indicator)
    put_models(page, {role: str(other)})
    assert words_of_it in words(page).replace("\\", "")
    assert not [button for button in page.button if button.key and button.key.startswith("score-run")]
    assert not (half_scored_home.settings.home / "models.json").exists(), "what cannot be used is not remembered"


def test_a_text_that_is_longer_than_the_model_allows_is_said_before_the_job_is_made(
    half_scored_home: Service, run_page: RunPage
) -> None:
    page = run_page("score")
    choose(page, "ifd")
    page.number_input(key="score-student-max-length").set_value(4096).run()
    assert "2,048 positions" in words(page).replace("\\", "")
    assert not [button for button in page.button if button.key and button.key.startswith("score-run")]


def test_remembered_models_of_a_workspace_that_moved_fall_back_to_the_bundled_student(
    half_scored_home: Service, run_page: RunPage
) -> None:
    """The path of the demo student is that of the program, which lies elsewhere on another machine."""
    remembered = {"student": {"model": "/elsewhere/core/demo/student", "revision": "local-0", "max_length": 512}}
    (half_scored_home.settings.home / "models.json").write_text(json.dumps(remembered))
    page = run_page("score")
    choose(page, "ifd")
    assert page.selectbox(key="score-student-model").value == str(DEMO_STUDENT)
    assert page.number_input(key="score-student-max-length").value == 512
    assert run_button(page)


def test_a_model_that_is_not_there_is_named_and_nothing_can_be_started(
    half_scored_home: Service, run_page: RunPage
) -> None:
    page = run_page("score")
    page.selectbox(key="score-student-model").set_value(MODEL).run()
    assert not page.exception
    assert "does not exist" in words(page)
    assert not [button for button in page.button if button.key and button.key.startswith("score-run")]


def test_without_an_indicator_there_is_nothing_to_start(half_scored_home: Service, run_page: RunPage) -> None:
    page = run_page("score")
    choose(page)
    assert "Choose at least one indicator" in words(page)


def test_a_failed_job_neither_breaks_the_page_nor_counts_as_done(failed_job_home: Service, run_page: RunPage) -> None:
    dataset_id = next(r["dataset_id"] for r in queries.datasets(failed_job_home.store) if r["name"] == DATASET)
    page = run_page("score", dataset=str(dataset_id))
    choose(page, "mtld")
    assert int(run_button(page).label.split()[1]) > 0
    assert "needs more memory than there is" in words(page)


def test_the_form_gives_the_settings_that_were_chosen(half_scored_home: Service) -> None:
    def script() -> None:
        import streamlit as st

        from pages import _student

        st.session_state["found"] = _student.student_form("form")

    page = AppTest.from_function(script, default_timeout=60).run()
    page.selectbox(key="form-template").set_value("vicuna")
    page.number_input(key="form-max-length").set_value(512)
    page.selectbox(key="form-dtype").set_value("bfloat16")
    page.run()
    assert not page.exception
    found = page.session_state["found"]
    assert isinstance(found, StudentSettings)
    assert (found.template, found.max_length, found.dtype, found.device) == ("vicuna", 512, "bfloat16", "cpu")


FAKE_NVIDIA_SMI = """#!/bin/sh
case "$1" in
  -L) echo "GPU 0: Test (UUID: a)"; echo "GPU 1: Test (UUID: b)";;
  *) echo "0, 1000"; echo "1, 80000";;
esac
"""


def test_several_gpus_share_a_job(tmp_path: Path, run_page: RunPage, monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU is here, so a program stands for nvidia-smi; nothing is started, only submitted."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(FAKE_NVIDIA_SMI)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with running(tmp_path / "home") as service:
        service.scheduler.stop()
        dataset_id = sample_stores.fill_half_scored(service.store)
        page = run_page("score", dataset=str(dataset_id))
        choose(page, "mtld", "ifd")
        assert page.session_state["score-device"] == "cuda"
        said = words(page).replace("\\", "")
        assert "83.9 GB free on cuda:1" in said
        assert "Shared out to 2 GPUs" in said
        run_button(page).click().run()
        assert not page.exception
        made = [service.job_folder(job["job_id"]).spec() for job in jobs.jobs(service.store)]
        assert [spec.device for spec in made] == ["cuda", "cuda"]
        assert sum(spec.n_rows for spec in made) == 24
        assert run_button(page).disabled, "both together do what is asked"
        service.scheduler.start()
        for spec in made:
            service.scheduler.cancel(spec.job_id)
