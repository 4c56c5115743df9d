"""The page "Does it help?": what it says when something lacks, its form, an experiment with results, its buttons."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import text
from streamlit.testing.v1 import AppTest

from core.example import Example
from core.experiment import ORIGINAL, V2, ExperimentSettings, ReflectSource
from core.finetune.results import OutputLoss, RunResult
from core.teacher import TeacherSettings
from core.teachers import params_of
from db import answers, commands, comparisons, experiment_links, experiment_rows, experiment_steps, experiments, studies
from db.experiment_steps import comparison_name
from db.judge_submit import judge_of
from db.service import Service
from db.store import utc_now
from tests.pages import study_stores
from tests.pages.conftest import RunPage
from tests.pages.shown import button_of, said

NAME = "Does <b>*it*</b> help"
JUDGE = TeacherSettings("http://127.0.0.1:1/v1", "judge <i>a</i>", api_key_env="", temperature=0.0)


def table_with(page: AppTest, column: str) -> Any:
    return next(one.value for one in page.dataframe if column in one.value)


def fill(home: Service, *, judged: bool = True) -> int:
    """A held experiment over a dataset of the studied store: V2 lowers every loss by 0.5 and wins most questions."""
    store = home.store
    with store.read() as connection:
        found = {row[0]: row[1] for row in connection.execute(text("select name, dataset_id from datasets")).all()}
    dataset_id, evaluation_id = found[study_stores.SOURCES[0]], found["Evaluation set"]
    dataset = experiment_rows.dataset_rows(store, dataset_id)
    new = [Example(f"New {i}", "", f"new {i}") for i in range(len(dataset))]
    with store.adding_examples() as connection:
        ids = commands.add_examples(connection, new)
        connection.execute(
            text("insert into jobs values ('old-v2', 'reflect', 'Old', :id, now()::timestamp, null, null)"),
            {"id": dataset_id},
        )
        for row, example in zip(dataset, new, strict=True):
            connection.execute(
                text("""insert into reflections (job_id, dataset_id, example_id, final_id, kept, why)
                values ('old-v2', :id, :row, :final, :kept, 'because')"""),
                {"id": dataset_id, "row": row, "final": ids[example.hash], "kept": row != dataset[0]},
            )
    settings = ExperimentSettings(
        arms=(ORIGINAL, V2), reflected={V2: ReflectSource(job_id="old-v2")}, n_seeds=2,
        finetune=study_stores.SETTINGS.to_params(), evaluation_id=evaluation_id,
        test_set_id=evaluation_id if judged else None, judges=(params_of(JUDGE),) if judged else (),
    )  # fmt: skip
    chosen = experiment_rows.choose(store, dataset_id, settings)
    experiment_id = experiments.create(
        store, name=NAME, dataset_id=dataset_id, settings=settings, chosen=chosen, held=True
    )
    experiment = experiments.experiment(store, experiment_id)
    experiment_steps.make_rows(store, experiment, experiments.step_states(
        store, home.settings.jobs_path, experiment, state_of=home.state_of
    )[0].step)  # fmt: skip
    experiment = experiments.experiment(store, experiment_id)
    study_id = experiment_steps.create_study(store, experiment)
    outputs = study_stores.example_ids(store, evaluation_id)
    results = {}
    for run in studies.runs(store, [study_id]):
        loss = {"base": 4.0}.get(run["role"], 2.0 - 0.5 * (run["details"].get("arm") == V2)) + 0.01 * run["seed"]
        results[run["run_id"]] = RunResult(
            outcome="done", loss_nats=loss, seconds=5.0, details={"n_steps": 4, "n_train_rows_skipped": 0},
            losses=[OutputLoss(one, loss + 0.01 * i, 9) for i, one in enumerate(outputs)],
        )  # fmt: skip
    study_stores.add_results(store, results)
    if judged:
        _judge(home, experiment, evaluation_id)
    return experiment_id


def _judge(home: Service, experiment: experiment_links.Experiment, test_set_id: int) -> None:
    """Both arms answered, and the judge prefers V2's answer to every question but one that it cannot tell apart."""
    store = home.store
    items = answers.items(store, test_set_id).to_pylist()
    sets = {}
    for arm, words in (("Original", "short"), ("Reflected V2", "a good deal longer")):
        given = [{"instruction": one["instruction"], "input": one["input"], "output": words} for one in items]
        sets[arm], _ = answers.import_answers(
            store, dataset_id=test_set_id, name=f"{experiment.title}: {arm}", rows=given
        )  # fmt: skip
    comparison_id = comparisons.create_comparison(
        store, name=comparison_name(experiment, V2, ORIGINAL), first_id=sets["Reflected V2"],
        second_id=sets["Original"],
    )  # fmt: skip
    with store.write() as connection:
        judge_id = comparisons.ensure_judge(connection, judge_of(JUDGE))
        for place, item in enumerate(items):
            for swapped in (False, True):
                connection.execute(
                    text(
                        """insert into judgements (judgement_id, comparison_id, judge_id, item_id, swapped, attempt,
                            score_first, score_second, preference, outcome, judged_at)
                        values (nextval('judgement_ids'), :comparison, :judge, :item, :swapped, 1, 8, :other,
                            :preference, 'parsed', :at_time)"""
                    ),
                    {
                        "comparison": comparison_id,
                        "judge": judge_id,
                        "item": item["item_id"],
                        "swapped": swapped,
                        "other": 8 if place == 0 else 5,
                        "preference": 0 if place == 0 else 1,
                        "at_time": utc_now(),
                    },
                )


# --- the list ---


@pytest.mark.parametrize(
    ("home", "words"), [("empty_home", "First there must be rows"), ("half_scored_home", "There is none yet")]
)
def test_an_empty_page_says_what_an_experiment_needs(
    home: str, words: str, request: pytest.FixtureRequest, run_page: RunPage
) -> None:
    request.getfixturevalue(home)
    assert words in said(run_page("experiment"))


def test_the_list_names_experiments_with_their_state(studied_home: Service, run_page: RunPage) -> None:
    page = run_page("experiment")
    assert "No experiment was made yet" in said(page)
    fill(studied_home)
    listed = run_page("experiment").dataframe[0].value
    assert listed["experiment"].tolist() == [NAME]
    assert listed["state"].tolist() == ["◼ held"]
    assert listed["done"].tolist() == [2 / 5]


# --- the form ---


def test_the_form_shows_rows_runs_and_why_an_arm_cannot_be_chosen(studied_home: Service, run_page: RunPage) -> None:
    fill(studied_home)
    page = run_page("experiment", new="1")
    assert "Nobody has accepted a reflected row" in said(page)
    next(one for one in page.selectbox if one.label == "Answers judged on").set_value(0).run()
    assert not page.exception
    # The sample's recorded teacher knows none of these rows, so an endpoint has to be named.
    assert "Give the name of the teacher's model" in said(page)


# --- one experiment ---


def test_an_experiment_shows_its_verdict_and_its_numbers(studied_home: Service, run_page: RunPage) -> None:
    experiment_id = fill(studied_home)
    page = run_page("experiment", experiment=str(experiment_id))
    words = said(page)
    assert "Reflected V2: helps." in words
    assert "lowers the evaluation loss by 0.5000 nats" in words
    assert "5 wins, 1 tie, 0 losses of 6 items" in words
    assert "3.6 times as long" in words
    arms = table_with(page, "lacks").set_index("arm")
    assert arms.loc["Reflected V2", "changed"] == arms.loc["Reflected V2", "rows"] == 29
    assert arms.loc["Reflected V2", "lacks"] == f"1: {experiment_rows.LEFT_OUT}"
    judged = table_with(page, "win score")
    assert judged[["wins", "ties", "losses"]].to_numpy().tolist() == [[5, 1, 0]]
    # Names are shown as they are, not as HTML or Markdown.
    assert NAME in page.subheader[0].value.replace("\\", "")
    assert "\\<b\\>" in page.subheader[0].value


def test_what_is_downloaded_holds_every_number(studied_home: Service, run_page: RunPage) -> None:
    experiment_id = fill(studied_home)
    page = run_page("experiment", experiment=str(experiment_id))
    labels = [getattr(one, "label", "") for one in page.get("download_button")]
    assert {"Results (CSV, a line an arm)", "Everything (JSON)"} <= set(labels)
    found = experiments.experiment(studied_home.store, experiment_id)
    assert json.loads(json.dumps(found.settings.to_params())) == found.settings.to_params()


def test_without_judges_the_loss_alone_decides(studied_home: Service, run_page: RunPage) -> None:
    experiment_id = fill(studied_home, judged=False)
    page = run_page("experiment", experiment=str(experiment_id))
    assert "Reflected V2: helps." in said(page)
    assert not any("win score" in one.value for one in page.dataframe)


def test_an_experiment_that_is_gone_says_so(studied_home: Service, run_page: RunPage) -> None:
    page = run_page("experiment", experiment="99")
    assert "There is no experiment 99" in said(page)
    assert not page.error


def test_deleting_goes_back_to_the_list(studied_home: Service, run_page: RunPage) -> None:
    experiment_id = fill(studied_home, judged=False)
    page = run_page("experiment", experiment=str(experiment_id))
    button_of(page, f"experiment-delete-{experiment_id}").click().run()
    assert not page.exception
    assert experiments.experiments(studied_home.store) == []
    assert len([one for one in studies.studies(studied_home.store) if one["kind"] == "experiment"]) == 1
