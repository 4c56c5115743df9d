"""The Evaluation sets page: every state, import, marks, references with their cost first, and the overlap."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from streamlit.testing.v1 import AppTest

from core.example import Example
from db import evaluation, imports, queries, sample
from db.service import Service
from db.store import utc_now
from tests.pages import sample_stores
from tests.pages.conftest import RunPage
from tests.pages.sample_stores import HOSTILE
from tests.pages.shown import button, labelled, said
from tests.reference_teacher import ReferenceTeacher

SET = [
    Example(f"Explain *this*: {HOSTILE}", HOSTILE, f"It is markup. {HOSTILE}"),
    Example("Name a river.", "", "The Rhine."),
    Example("Name a river.", "", "The Elbe."),
    Example("Write a poem about rain.", "", ""),
]
QUESTIONS = [{"question_id": i, "turns": [f"Question {i}?", "Why?"]} for i in (1, 2)]
ANSWERS = [{"question_id": 1, "choices": [{"turns": ["One.", "Because."]}]}]


def lines(rows: list[Any]) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()


def press_import(page: AppTest) -> AppTest:
    button(page, "Import the set").click().run()
    deadline = time.monotonic() + 120
    while imports.running() and time.monotonic() < deadline:
        time.sleep(0.02)
    page.run()
    assert not page.exception, page.exception
    return page


def add_set(service: Service) -> int:
    dataset_id = sample_stores.import_rows(service.store, SET, name="Evaluation <b>set</b>")
    evaluation.mark(service.store, dataset_id, by="Ada")
    return dataset_id


def metric(page: AppTest, label: str) -> str:
    return str(labelled(page.metric, label).value)


@pytest.mark.parametrize("home", ["empty_home", "half_scored_home", "failed_job_home"])
def test_without_a_set_the_page_says_what_to_do(home: str, request: pytest.FixtureRequest, run_page: RunPage) -> None:
    request.getfixturevalue(home)
    page = run_page("evaluation")
    assert page.title[0].value == "Evaluation sets"
    assert "There is no evaluation set yet" in said(page)


def test_the_sets_with_their_counts(half_scored_home: Service, run_page: RunPage) -> None:
    add_set(half_scored_home)
    page = run_page("evaluation")
    table = page.dataframe[0].value
    assert table["evaluation set"].tolist() == ["Evaluation <b>set</b>"]
    assert table[["instructions", "outputs", "no reference", "duplicates"]].values.tolist() == [[3, 3, 1, 0]]
    assert "1 of 3 instructions have no reference" in said(page)
    rows = page.dataframe[1].value
    assert rows["references"].fillna(0).tolist() == [1, 2, 0]
    assert rows["instruction"].tolist()[0] == SET[0].instruction


def test_a_set_without_any_output_and_one_of_a_single_row(half_scored_home: Service, run_page: RunPage) -> None:
    for examples, words in ((SET[3:], "no loss can be computed"), (SET[:1], "one instruction with a reference")):
        dataset_id = sample_stores.import_rows(half_scored_home.store, examples, name=words)
        evaluation.mark(half_scored_home.store, dataset_id)
        assert words in said(run_page("evaluation", set=str(dataset_id)))


def test_mt_bench_is_imported_with_its_answers(empty_home: Service, run_page: RunPage) -> None:
    page = run_page("evaluation")
    page.file_uploader[0].set_value(("questions.jsonl", lines(QUESTIONS), "text/plain")).run()
    assert "recognised as MT-bench questions" in said(page)
    labelled(page.file_uploader, "Upload it").set_value(("answers.jsonl", lines(ANSWERS), "text/plain")).run()
    assert "1 of the 2 questions have a reference in answers.jsonl" in said(page)
    press_import(page)
    found = evaluation.evaluation_sets(empty_home.store)[0]
    assert (found["name"], found["n_outputs"], found["n_without_reference"]) == ("questions", 1, 1)
    assert "is imported and marked as an evaluation set" in said(page)
    assert page.query_params["set"] in (str(found["dataset_id"]), [str(found["dataset_id"])])
    assert list((empty_home.settings.home / "uploads").glob("*/*")) == []


def test_a_bad_row_stops_the_import_and_says_which(empty_home: Service, run_page: RunPage) -> None:
    page = run_page("evaluation")
    rows = [{"instruction": "a", "outputs": ["b", "c"]}, {"instruction": "d", "outputs": [["e"]]}]
    page.file_uploader[0].set_value(("set.jsonl", lines(rows), "text/plain")).run()
    assert page.dataframe[0].value["problem"].tolist()[2].startswith("✗ 'outputs' holds a list")
    press_import(page)
    assert "The first is at line 2" in said(page)
    assert queries.datasets(empty_home.store) == []
    labelled(page.checkbox, "Skip bad rows").check().run()
    press_import(page)
    assert evaluation.evaluation_sets(empty_home.store)[0]["median_references"] == 2


def test_a_dataset_is_marked_and_unmarked(half_scored_home: Service, run_page: RunPage) -> None:
    page = run_page("evaluation", add="mark")
    button(page, "Mark as evaluation set").click().run()
    assert not page.exception
    assert len(evaluation.evaluation_sets(half_scored_home.store)) == 1
    button(page, "Yes, unmark it").click().run()
    assert evaluation.evaluation_sets(half_scored_home.store) == []
    assert len(queries.datasets(half_scored_home.store)) == 2


def test_a_set_that_a_study_uses_is_copied_first(half_scored_home: Service, run_page: RunPage) -> None:
    dataset_id = add_set(half_scored_home)
    with half_scored_home.store.write() as connection:
        connection.execute(
            text("insert into studies values (1, 'May *study*', 'single', :id, '{}', '{}', :now, null)"),
            {"id": dataset_id, "now": utc_now()},
        )
    page = run_page("evaluation", panel="references")
    assert "The study May *study* evaluates on this set" in said(page)
    button(page, "Yes, unmark it").click().run()
    assert "Remove the study first" in said(page)
    button(page, "Copy the set").click().run()
    assert not page.exception
    assert len(evaluation.evaluation_sets(half_scored_home.store)) == 2
    assert metric(page, "References to write") == "12"


def test_references_are_written_after_their_cost_was_shown(
    half_scored_home: Service, run_page: RunPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset_id = add_set(half_scored_home)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-proj-00112233445566778899")
    with ReferenceTeacher() as teacher:
        page = run_page("evaluation", panel="references")
        assert metric(page, "Cost") == "—"
        assert "Give the name of the teacher's model" in said(page)
        labelled(page.text_input, "Base URL").set_value(teacher.base_url)
        labelled(page.text_input, "Model").set_value("tiny")
        labelled(page.number_input, "USD / million prompt tokens").set_value(1000.0)
        labelled(page.number_input, "USD / million answer tokens").set_value(1000.0)
        labelled(page.number_input, "References an instruction").set_value(2).run()
        assert metric(page, "References to write") == "3"
        assert metric(page, "Cost").startswith("$0.")
        assert teacher.requests == []
        button(page, "Have 3 references written").click().run()
        assert not page.exception, page.exception
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if evaluation.evaluation_set(half_scored_home.store, dataset_id)["n_outputs"] == 6:
                break
            time.sleep(0.1)
    page = run_page("evaluation", panel="references")
    assert evaluation.evaluation_set(half_scored_home.store, dataset_id)["n_outputs"] == 6
    assert metric(page, "Usable answers") == "3"


def test_overlap_is_told_and_rows_are_left_out(half_scored_home: Service, run_page: RunPage) -> None:
    store = half_scored_home.store
    rows = [*SET[:2], Example("Name a river!", "", "The Po."), Example("Add 2 and 3.", "", "5")]
    training = sample_stores.import_rows(store, rows, name="Training *rows*")
    add_set(half_scored_home)
    page = run_page("evaluation", panel="overlap", against=str(training))
    assert (metric(page, "Exact pairs"), metric(page, "Near pairs"), metric(page, "Same rows")) == ("2", "1", "2")
    assert "2 of 3 instructions are among the training rows" in said(page)
    assert "No embedding model has vectors of both sides" in said(page)
    button(page, "Make datasets without them").click().run()
    assert not page.exception, page.exception
    made = queries.datasets(store)[0]
    assert (made["name"], made["n_members"]) == ("Training *rows* without overlap", 1)
    clean = run_page("evaluation", panel="overlap", against=str(made["dataset_id"]))
    assert "None of the 3 instructions is among the 1 training rows" in said(clean)


def test_only_evaluation_sets_leave_nothing_to_compare_with(empty_home: Service, run_page: RunPage) -> None:
    add_set(empty_home)
    assert "There is no training data to compare with" in said(run_page("evaluation", panel="overlap"))


def test_the_sample_brings_its_evaluation_set(tmp_path: Path) -> None:
    service = Service(sample_stores.settings_at(tmp_path / "home"))  # not started: nothing of it is run
    try:
        sample.open_sample(service)
        sample.open_sample(service)
        found = evaluation.evaluation_sets(service.store)
    finally:
        service.store.close()
    assert [(one["name"], one["n_without_reference"]) for one in found] == [(sample.SAMPLE_EVALUATION, 0)]
