"""The Answers page: every state, the jobs it submits, what it imports, and hostile texts shown as text."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pyarrow as pa
import pytest
from sqlalchemy import text
from streamlit.testing.v1 import AppTest

from core.answers_job import SHARD_SCHEMA
from core.example import Example
from core.generation import Decoding, GeneratorSettings
from core.jobs.status import JobStatus
from db import answers, collecting, evaluation
from db.service import Service
from db.store import utc_now
from tests.core import tiny_models
from tests.pages import sample_stores
from tests.pages.conftest import RunPage
from tests.pages.sample_stores import HOSTILE
from tests.pages.shown import button, labelled, said

SET = [
    Example(f"Explain *this*: {HOSTILE}", HOSTILE, f"It is markup. {HOSTILE}"),
    Example("Name a river.", "", "The Rhine."),
    Example("Name a river.", "", "The Elbe."),
    Example("Write a poem about rain.", "", ""),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.save(tmp_path_factory.mktemp("models") / "tiny", "llama")


@pytest.fixture
def test_set(half_scored_home: Service) -> int:
    dataset_id = sample_stores.import_rows(half_scored_home.store, SET, name="Test <b>set</b>")
    evaluation.mark(half_scored_home.store, dataset_id, by="Ada")
    return dataset_id


def generating(run_page: RunPage, test_set: int, **state: str) -> AppTest:
    """The form with these choices, as typed by a person: a select box of AppTest takes known ones only."""
    page = run_page("home")
    for name, value in state.items():
        page.session_state[f"answers-new-{name}"] = value
    page.query_params["dataset"], page.query_params["panel"] = str(test_set), "generate"
    page.switch_page("answers.py").run()
    assert not page.exception, page.exception
    return page


def waited(service: Service, job_id: str) -> JobStatus:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        status = service.scheduler.statuses().get(job_id)
        if status is not None and status.ended:
            return status
        time.sleep(0.1)
    raise AssertionError(f"{job_id} did not end")


def test_without_a_dataset_the_page_leads_to_one(empty_home: Service, run_page: RunPage) -> None:
    page = run_page("answers")
    assert "There is no test set yet" in said(page)
    assert len(page.get("page_link")) == 2


def test_without_answers_it_says_the_three_ways(test_set: int, run_page: RunPage) -> None:
    page = run_page("answers")
    assert page.selectbox[0].value == test_set  # an evaluation set stands before other datasets
    assert "3 questions: the distinct instructions with their inputs among its 4 rows" in said(page)
    assert "Nobody has answered Test <b>set</b> yet" in said(page).replace("**", "")
    button(page, "Import a file").click().run()
    assert not page.exception
    assert page.query_params["panel"] == "import"
    assert "AlpacaEval" in said(page)


def test_a_datasets_outputs_become_an_answer_set_that_is_opened(
    half_scored_home: Service, test_set: int, run_page: RunPage
) -> None:
    page = run_page("answers", dataset=str(test_set), panel="dataset")
    assert labelled(page.text_input, "Name of the answer set").value == "Test <b>set</b>: references"
    assert "It has an output for 2 of the 3 questions." in said(page)
    button(page, "Take its outputs").click().run()
    assert not page.exception, page.exception
    (made,) = answers.answer_sets(half_scored_home.store)
    assert page.query_params["sets"] == str(made["answer_set_id"])
    assert page.session_state["switch-panel"] == "sets"
    table = page.dataframe[0].value
    assert table["answer set"].tolist() == ["Test <b>set</b>: references"]
    assert table[["answers", "none"]].values.tolist() == [[2, 1]]
    assert table["coverage"].tolist() == [pytest.approx(100 * 2 / 3)]
    rows = page.dataframe[1].value
    assert rows["answer_first"].tolist()[1] == "The Rhine."
    assert (
        "○ none: The dataset's row with this instruction and input has an empty output." in rows["answer_first"].iloc[2]
    )
    # The open question's texts are shown escaped, whatever they hold.
    shown = "".join(e.proto.body for e in page.get("html"))
    assert HOSTILE not in shown
    assert "&lt;" in shown
    button(page, "Remove it").click().run()
    assert not page.exception
    assert answers.answer_sets(half_scored_home.store) == []


def test_two_sets_are_read_side_by_side_with_filters(
    half_scored_home: Service, test_set: int, run_page: RunPage
) -> None:
    store = half_scored_home.store
    first = answers.answer_set_of_dataset(store, dataset_id=test_set, test_set_id=test_set, name="first")
    second, _ = answers.import_answers(
        store, dataset_id=test_set, name="second",
        rows=[
            {"instruction": "Name a river.", "output": "The Rhine."},
            {"instruction": "Write a poem about rain.", "output": f"Rain, rain. {HOSTILE}"},
            {"instruction": "Not asked", "output": "x"},
        ],
    )  # fmt: skip
    page = run_page("answers", dataset=str(test_set), sets=f"{first}.{second}")
    assert labelled(page.selectbox, "Beside it").value == second
    rows = page.dataframe[1].value
    assert rows["answer_second"].tolist()[1:] == ["The Rhine.", f"Rain, rain. {HOSTILE}"]
    labelled(page.selectbox, "Show").select("same").run()
    assert page.dataframe[1].value["question"].tolist() == ["Name a river."]
    labelled(page.selectbox, "Show").select("without").run()
    assert len(page.dataframe[1].value) == 2
    labelled(page.selectbox, "Show").select("all").run()
    labelled(page.text_input, "Find").input("POEM").run()
    assert page.dataframe[1].value["question"].tolist() == ["Write a poem about rain."]
    labelled(page.text_input, "Find").input("").run()
    labelled(page.number_input, "Words from").set_value(3).run()
    assert len(page.dataframe[1].value) == 1
    page = run_page("answers", dataset=str(test_set), sets=str(second))
    assert "1 answers of the file belong to no question" in [e.label for e in page.expander]


def test_a_comparison_keeps_its_answer_set(half_scored_home: Service, test_set: int, run_page: RunPage) -> None:
    store = half_scored_home.store
    made = [answers.answer_set_of_dataset(store, dataset_id=test_set, test_set_id=test_set, name=n) for n in "ab"]
    with store.write() as connection:
        connection.execute(
            text("insert into comparisons values (1, 'a against b', :d, :a, :b, '{}', :t, null)"),
            {"d": test_set, "a": made[0], "b": made[1], "t": utc_now()},
        )
    page = run_page("answers", dataset=str(test_set), sets=str(made[0]))
    assert page.dataframe[0].value["compared in"].tolist() == ["a against b", "a against b"]
    assert "The comparison a against b judges it" in said(page)
    assert not [b for b in page.button if b.label == "Remove it"]


def test_a_file_is_matched_before_it_is_saved(half_scored_home: Service, test_set: int, run_page: RunPage) -> None:
    rows = [
        {"instruction": "Name a river.", "output": f"Nile {HOSTILE}", "generator": "model <i>x</i>"},
        {"instruction": "Unknown?", "output": "x", "generator": "model <i>x</i>"},
        {"instruction": "No answer"},
    ]
    content = "\n".join(json.dumps(row) for row in rows).encode()
    page = run_page("answers", dataset=str(test_set), panel="import")
    page.file_uploader[0].upload("answers.jsonl", content, "application/jsonl").run()
    assert not page.exception, page.exception
    values = {m.label: m.value for m in page.metric}
    assert values == {
        "Answers in the file": "2", "Questions answered": "1", "Questions without": "2",
        "Belong to no question": "1", "Rows not read": "1",
    }  # fmt: skip
    assert answers.answer_sets(half_scored_home.store) == []
    assert labelled(page.text_input, "Name of the answer set").value == "model <i>x</i>"
    button(page, "Save 1 answers").click().run()
    assert not page.exception, page.exception
    (made,) = answers.answer_sets(half_scored_home.store)
    assert (made["origin"], made["n_answers"], made["n_null"]) == ("imported", 1, 2)
    assert page.dataframe[0].value["made by"].tolist() == ["model <i>x</i>"]


def test_a_file_of_other_questions_is_refused_in_words(test_set: int, run_page: RunPage) -> None:
    page = run_page("answers", dataset=str(test_set), panel="import")
    page.file_uploader[0].upload("a.jsonl", b'{"instruction": "Unknown?", "output": "x"}', "application/jsonl").run()
    assert "None of the 1 answers in the file belongs to a question" in said(page)


def test_a_model_answers_from_the_page(
    half_scored_home: Service, test_set: int, run_page: RunPage, model: Path
) -> None:
    page = generating(run_page, test_set, model=str(model))
    assert "found" in said(page)
    assert "A rough guess" in said(page)
    labelled(page.number_input, "Questions, from the top of the test set").set_value(2).run()
    labelled(page.number_input, "Most tokens of an answer").set_value(5).run()
    button(page, "Answer 2 questions").click().run()
    assert not page.exception, page.exception
    (made,) = answers.answer_sets(half_scored_home.store)
    settings = made["settings"]
    assert settings["decoding"]["max_new_tokens"] == 5
    assert settings["decoding"]["temperature"] == 0
    assert len(settings["item_ids"]) == 2
    assert waited(half_scored_home, made["job_id"]).state == "done"
    deadline = time.monotonic() + 120
    while answers.answer_set(half_scored_home.store, made["answer_set_id"])["n_answers"] < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    page.run()
    assert not page.exception, page.exception
    assert page.dataframe[0].value[["answers", "job"]].values.tolist() == [[2, "✓ done"]]
    assert len(page.dataframe[1].value) == 2
    # The next estimate rests on these answers.
    page = generating(run_page, test_set, model=str(model))
    assert "From earlier answers of this model" in said(page)


def test_sampling_shows_what_it_needs(test_set: int, run_page: RunPage) -> None:
    page = run_page("answers", dataset=str(test_set), panel="generate")
    assert not [e for e in page.number_input if e.label == "Temperature"]
    page.session_state["answers-new-how"] = "sampled"
    page.run()
    assert labelled(page.number_input, "Temperature").value == 0.7
    assert labelled(page.number_input, "Seed").value == 0


def test_a_model_that_is_not_there_cannot_be_asked(test_set: int, run_page: RunPage) -> None:
    page = generating(run_page, test_set, model="/no/such/model")
    assert "does not exist on this machine" in said(page)
    assert button(page, "Answer 3 questions").disabled


def test_without_an_adapter_the_page_leads_to_the_studies(test_set: int, run_page: RunPage) -> None:
    page = generating(run_page, test_set, way="run")
    assert "No finetune run has kept its adapter" in said(page)


def test_missing_answers_are_asked_for_again(
    half_scored_home: Service, test_set: int, run_page: RunPage, model: Path
) -> None:
    """The button counts what has no answer, and starts a job over that alone."""
    store = half_scored_home.store
    answer_set_id, folder = answers.submit_answers(
        store, half_scored_home.settings.jobs_path, dataset_id=test_set, name="tiny",
        settings=GeneratorSettings(model=str(model)), decoding=Decoding(max_new_tokens=3),
    )  # fmt: skip
    ids = folder.input_table()["example_id"].to_pylist()
    rows = [
        {"example_id": ids[0], "reason": f"too long {HOSTILE}"},
        *({"example_id": i, "answer": "x"} for i in ids[1:]),
    ]
    folder.write_shard(0, pa.Table.from_pylist(rows, schema=SHARD_SCHEMA))
    collecting.collect(store, folder, 0)
    page = run_page("answers", dataset=str(test_set), sets=str(answer_set_id))
    assert page.dataframe[1].value["answer_first"].tolist() == [f"○ none: too long {HOSTILE}", "x", "x"]
    button(page, "Ask 1 again").click().run()
    assert not page.exception, page.exception
    again = answers.answer_set(store, answer_set_id)["job_id"]
    assert again != folder.job_id
    assert half_scored_home.job_folder(again).spec().n_rows == 1
    half_scored_home.scheduler.cancel(again)


def test_a_link_to_a_run_chooses_its_adapter(half_scored_home: Service, test_set: int, run_page: RunPage) -> None:
    service = half_scored_home
    settings = {"base": "b", "template": "vicuna", "precision": "fp32"}
    with service.store.write() as connection:
        for statement in (
            "insert into studies values (1, 's', 'comparison', 1, '{}', '{}', now()::timestamp, null)",
            "insert into runs values (1, 1, 0, 'one', 'run', 1, 5, 0, '{}'), (2, 1, 1, 'two', 'run', 1, 5, 0, '{}')",
        ):
            connection.execute(text(statement))
        for run_id in (1, 2):
            connection.execute(
                text(
                    """insert into run_results
                    values (:id, :id, 'job-1', 'done', null, 1.5, 1, 0, 1.0, 1.0, :details, :at)"""
                ),
                {"id": run_id, "details": json.dumps({"adapter": "adapter", "settings": settings}), "at": utc_now()},
            )
    for number in (0, 1):
        (service.settings.jobs_path / "job-1" / "runs" / f"{number:05d}" / "adapter").mkdir(parents=True)
    for wanted, label in (("1", "one"), ("2", "two")):
        page = run_page("answers", panel="generate", dataset=str(test_set), run=wanted)
        assert not page.exception
        assert page.selectbox(key="answers-new-run").value == int(wanted)
        assert label in said(page) or label in str(page.text_input)
    page = run_page("answers", panel="generate", dataset=str(test_set), run="77")
    assert not page.exception
