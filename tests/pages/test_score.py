"""The Score page in each state of a store."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from core.lm import StudentSettings
from db import jobs, queries
from db.service import Service
from pages import _student
from tests.pages.conftest import RunPage
from tests.pages.sample_stores import DATASET, MODEL


def words(page: AppTest) -> str:
    kinds = ("markdown", "caption", "title", "error", "info", "success", "warning")
    return "\n".join(str(element.value) for kind in kinds for element in getattr(page, kind))


def choose(page: AppTest, *indicators: str) -> None:
    """Tick exactly these indicators."""
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


def test_every_indicator_is_offered_with_its_direction_and_paper(half_scored_home: Service, run_page: RunPage) -> None:
    page = run_page("score")
    labels = [box.label for box in page.checkbox]
    assert labels[:5] == ["**Length**", "**MTLD**", "**Perplexity**", "**IFD**", "**r-IFD**"]
    assert "McCarthy" in words(page)


def test_rows_that_are_scored_already_are_not_scored_again(half_scored_home: Service, run_page: RunPage) -> None:
    dataset_id = next(r["dataset_id"] for r in queries.datasets(half_scored_home.store) if r["name"] == DATASET)
    page = run_page("score", dataset=str(dataset_id))
    choose(page, "mtld")
    plan = jobs.plan_score(half_scored_home.store, dataset_id=dataset_id, indicators=["mtld"], student=None)
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
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        (status,) = half_scored_home.scheduler.statuses().values()
        if status.ended and jobs.collected_shards(half_scored_home.store, status.job_id):
            break
        time.sleep(0.2)
    assert status.state == "done", status
    page.run()
    assert not page.exception
    assert "Every row is scored by these indicators already" in words(page)


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


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        ("", "No student model"),
        ("/no/such", "does not exist"),
        ("../up", "does not exist"),
        ("a b", "neither a folder"),
        ("a/b/c", "neither a folder"),
        ("meta-llama/Llama-3.2-1B", None),
        ("gpt2", None),
    ],
)
def test_model_problem(model: str, problem: str | None) -> None:
    found = _student.model_problem(model)
    assert (found is None) if problem is None else (problem in (found or ""))


def test_a_folder_without_config_is_no_model(tmp_path: Path) -> None:
    assert "config.json" in (_student.model_problem(str(tmp_path)) or "")
    (tmp_path / "config.json").write_text("{}")
    assert _student.model_problem(str(tmp_path)) is None


def test_a_text_that_is_longer_than_the_model_allows_is_said_before_the_job_is_made(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 512}')
    assert "512" in (_student.length_problem(str(tmp_path), 513) or "")
    assert _student.length_problem(str(tmp_path), 512) is None
    assert _student.length_problem("some/hub-id", 10**6) is None
    (tmp_path / "config.json").write_text("[")
    assert _student.length_problem(str(tmp_path), 513) is None


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
