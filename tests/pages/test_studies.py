"""The Studies page: the list, a new study with its plan, and one study with its runs."""

from __future__ import annotations

import io
import json
from typing import Any

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from db import queries, studies, study_means, study_plans
from db.service import Service
from pages import _study_data
from tests.pages import study_stores
from tests.pages.conftest import RunPage
from tests.pages.shown import button_of, said


def study_id(home: Service, name: str = study_stores.MIXTURES) -> int:
    return next(int(one["study_id"]) for one in studies.studies(home.store) if one["name"] == name)


def table_with(page: AppTest, column: str) -> pd.DataFrame:
    return next(one.value for one in page.dataframe if column in one.value)


# --- the list ---


@pytest.mark.parametrize(
    ("home", "words"), [("empty_home", "First there must be rows"), ("half_scored_home", "Import one, or mark")]
)
def test_an_empty_page_says_what_a_study_needs(
    home: str, words: str, request: pytest.FixtureRequest, run_page: RunPage
) -> None:
    request.getfixturevalue(home)
    assert words in said(run_page("studies"))


def test_the_list_tells_state_runs_and_losses(studied_home: Service, run_page: RunPage) -> None:
    listed = run_page("studies").dataframe[0].value.set_index("study")
    mixtures = listed.loc[study_stores.MIXTURES]
    done = [
        run["loss_nats"]
        for run in studies.runs(studied_home.store, [study_id(studied_home)])
        if run["outcome"] == "done" and run["role"] != "base"
    ]
    assert mixtures["runs"] == "25 of 27"
    assert mixtures["bad"] == 2
    assert (mixtures["best"], mixtures["worst"]) == (min(done), max(done))
    assert listed.loc[study_stores.BINS, "state"] == "✓ done"


# --- one study ---


def test_a_study_shows_its_runs_with_their_reasons(studied_home: Service, run_page: RunPage) -> None:
    page = run_page("studies", study=str(study_id(studied_home)))
    metrics = {one.label: one.value for one in page.metric}
    assert metrics["Runs done"] == "25 of 27"
    assert metrics["Diverged or failed"] == "2"
    assert metrics["Untrained base"] == "4"
    runs = table_with(page, "reason").set_index("run")
    assert len(runs) == 27
    assert runs.loc["mixture 4", "state"] == "✗ diverged"
    assert runs.loc["mixture 4", "reason"] == study_stores.DIVERGED
    assert runs["loss"].isna()["mixture 4"]  # never 0
    assert runs.loc["mixture 9", "reason"] == study_stores.FAILED
    assert len(page.get("plotly_chart")) == 2
    keys = [str(one.key) for one in page.button if not one.disabled]
    enabled = [key.split("-")[1] for key in keys if key.startswith("study-")]
    assert "again" in enabled
    assert "stop" not in enabled
    assert "<i>three</i>" in said(page)  # a name is text


def test_a_run_is_opened_with_its_mixture_and_its_losses_worst_first(studied_home: Service, run_page: RunPage) -> None:
    number = study_id(studied_home)
    run = next(one for one in studies.runs(studied_home.store, [number]) if one["label"] == "mixture 1")
    page = run_page("studies", study=str(number), run=str(run["run_id"]))
    sources = table_with(page, "share")
    assert dict(zip(sources["source"], sources["rows"], strict=True)) == run["details"]["proportions"]
    losses = table_with(page, "tokens")["loss"].tolist()
    assert losses == sorted(losses, reverse=True)
    assert len(losses) == 6
    metrics = {one.label: one.value for one in page.metric}
    assert metrics["Evaluation loss"] == f"{run['loss_nats']:.4f}"
    assert metrics["Peak memory"] == "1.0 GB"
    assert len(page.get("plotly_chart")) == 4


def test_a_run_that_failed_is_opened_with_its_reason(studied_home: Service, run_page: RunPage) -> None:
    number = study_id(studied_home)
    run = next(one for one in studies.runs(studied_home.store, [number]) if one["outcome"] == "failed")
    page = run_page("studies", study=str(number), run=str(run["run_id"]))
    assert [one.value.replace("\\", "") for one in page.error] == [study_stores.FAILED]


def test_a_study_that_is_gone_says_so(studied_home: Service, run_page: RunPage) -> None:
    assert "no study 999" in said(run_page("studies", study="999"))


def test_the_table_of_runs_is_what_a_fit_reads(
    studied_home: Service, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from core import __main__ as command

    number = study_id(studied_home)
    runs = studies.runs(studied_home.store, [number])
    ids = tuple(sorted({run["dataset_id"] for run in runs if run["dataset_id"] is not None}))
    columns = study_means.indicator_columns(studied_home.store, ids)
    found = study_means.indicator_means(studied_home.store, ids, columns)
    means = {i: dict(zip([c.key for c in columns], line, strict=True)) for i, line in zip(ids, found.mean, strict=True)}
    panels = [_study_data.Panel(column.key, column.label) for column in columns]
    path, out = tmp_path / "runs.csv", tmp_path / "fit.json"
    _study_data.runs_table(runs, panels, means).to_csv(path, index=False)
    asked = ["fit", str(path), "--response", "loss_nats", "--log-response", "--regressors", "reward,length"]
    assert command.main([*asked, "--out", str(out)]) == 0
    fit = json.loads(out.read_text(encoding="utf-8"))
    assert fit["n"] == study_stores.N_MIXTURES  # the base, the diverged and the failed run are left out
    values = {one["name"]: one["value"] for one in fit["coefficients"]}
    assert values["reward"] == pytest.approx(study_stores.TRUTH["reward"], abs=0.02)
    assert values["length"] == pytest.approx(study_stores.TRUTH["length"], abs=0.001)


def test_deleting_a_study_takes_its_datasets_along(studied_home: Service, run_page: RunPage) -> None:
    number = study_id(studied_home)
    before = len(queries.datasets(studied_home.store, with_runs=True))
    page = run_page("studies", study=str(number))
    button_of(page, "study-delete").click().run()
    assert not page.exception
    assert number not in [one["study_id"] for one in studies.studies(studied_home.store)]
    assert len(queries.datasets(studied_home.store, with_runs=True)) == before - 26
    assert "study" not in page.query_params


# --- plans ---


def sources(home: Service) -> tuple[int, ...]:
    by_name = {one["name"]: one["dataset_id"] for one in queries.datasets(home.store)}
    return tuple(by_name[name] for name in study_stores.SOURCES)


def new(run_page: RunPage, home: Service, kind: str, **query: str) -> AppTest:
    home.scheduler.stop()  # what is submitted stays in the queue
    return run_page("studies", new=kind, datasets=".".join(map(str, sources(home))), **query)


def test_the_plan_of_mixtures_is_shown_before_anything_is_made(studied_home: Service, run_page: RunPage) -> None:
    before = len(queries.datasets(studied_home.store, with_runs=True))
    page = new(run_page, studied_home, "multivariate")
    n_runs, size = study_plans.usual_counts(90)
    metrics = {one.label: one.value for one in page.metric}
    assert (metrics["Finetunes"], metrics["Rows in each"]) == (str(n_runs), str(size))
    planned = table_with(page, "from Cut short")
    assert len(planned) == n_runs
    assert (planned[[f"from {name}" for name in study_stores.SOURCES]].sum(axis=1) == size).all()
    assert "IFD: NULL" in planned  # one row of the last source has no IFD
    spread = table_with(page, "spread").set_index("indicator")
    assert spread.loc["IFD", "NULL"] == planned["IFD: NULL"].sum() > 0
    words = said(page)
    assert "rows of the runs have no value of IFD" in words
    assert "No overlap" in " ".join(one.label for one in page.expander)
    assert len(queries.datasets(studied_home.store, with_runs=True)) == before


def test_runs_of_a_few_steps_are_doubted(studied_home: Service, run_page: RunPage) -> None:
    page = new(run_page, studied_home, "multivariate")
    assert "optimiser step" not in said(page)  # 15 rows by 8, three times: six steps
    next(one for one in page.number_input if one.label == "Epochs").set_value(1.0).run()
    assert "A run has 2 optimiser steps, after which it will hardly differ from the untrained base." in said(page)


def test_starting_makes_the_datasets_and_a_job_and_opens_the_study(studied_home: Service, run_page: RunPage) -> None:
    page = new(run_page, studied_home, "multivariate")
    button_of(page, "study-plan-start").click().run()
    assert not page.exception
    newest = studies.studies(studied_home.store)[0]
    assert page.query_params["study"] in (str(newest["study_id"]), [str(newest["study_id"])])
    assert newest["n_runs"] == 25  # the untrained base among them
    assert newest["design"]["n_runs"] == 24
    assert newest["design"]["expected_seconds"] > 0
    assert len(newest["job_ids"]) == 1
    assert studied_home.scheduler.status(newest["job_ids"][0]).state == "queued"
    states = table_with(page, "reason")["state"].tolist()
    assert set(states) == {"◷ waiting"}


def test_adapters_that_are_kept_are_counted_and_the_choice_survives(studied_home: Service, run_page: RunPage) -> None:
    page = new(run_page, studied_home, "multivariate")
    assert "Disk for adapters" not in {one.label for one in page.metric}
    page.checkbox(key="study-setting-paper-keep_adapter").set_value(True).run()
    assert not page.exception
    assert next(one.value for one in page.metric if one.label == "Disk for adapters").endswith("MB")
    page.number_input(key="study-new-seed").set_value(3).run()
    assert page.checkbox(key="study-setting-paper-keep_adapter").value


def test_bins_are_planned_for_each_indicator(studied_home: Service, run_page: RunPage) -> None:
    page = new(run_page, studied_home, "univariate", by="reward,length")
    assert {one.label: one.value for one in page.metric}["Finetunes"] == "16"


def test_best_rows_by_a_rule_that_is_of_other_scorers_are_refused_in_words(
    studied_home: Service, run_page: RunPage
) -> None:
    page = new(run_page, studied_home, "size")  # the published rule needs a kNN distance within the dataset
    assert "This rule cannot rank this dataset" in said(page)
    assert not [one for one in page.button if one.key and one.key.startswith("study-plan-start")]


def test_one_finetune_of_a_dataset_points_at_the_dataset(studied_home: Service, run_page: RunPage) -> None:
    page = new(run_page, studied_home, "single")
    button_of(page, "study-plan-start").click().run()
    assert not page.exception
    newest = studies.studies(studied_home.store)[0]
    runs = studies.runs(studied_home.store, [newest["study_id"]])
    assert [run["dataset_id"] for run in runs] == [None, sources(studied_home)[0]]
    shown = run_page("studies", study=str(newest["study_id"]))
    assert "After the finetune" in {one.label for one in shown.metric}
    assert "Evaluation loss against the indicators" not in said(shown)  # one point says nothing


# --- what is shown and handed out ---


def test_the_usual_indicators_leave_out_raw_losses_and_second_units() -> None:
    keys = ["length", "length_words", "ifd@3", "loss_y", "knn_6", "reward"]
    assert _study_data.usual_keys(keys) == ["length", "ifd@3", "knn_6", "reward"]
    assert _study_data.usual_keys(["loss_y"]) == ["loss_y"]


def test_a_csv_of_runs_keeps_a_missing_loss_empty(studied_home: Service) -> None:
    runs = studies.runs(studied_home.store, [study_id(studied_home)])
    text = _study_data.runs_table(runs, [], {}).to_csv(index=False)
    read = pd.read_csv(io.StringIO(text)).set_index("label")
    assert read["loss_nats"].isna()["mixture 9"]
    assert read.loc["mixture 9", "outcome"] == "failed"


# --- the study elsewhere ---


def test_the_job_of_a_study_counts_runs_and_leads_to_it(studied_home: Service, run_page: RunPage) -> None:
    page = new(run_page, studied_home, "univariate", by="reward")
    button_of(page, "study-plan-start").click().run()
    job_id = studies.studies(studied_home.store)[0]["job_ids"][0]
    page = run_page("jobs", job=job_id)
    assert page.dataframe[0].value["done"].tolist()[0] == "0 / 9 runs"
    assert {one.label for one in page.metric} >= {"Runs in the store", "Failed runs"}
    assert not [one for one in page.button if one.key and one.key.startswith("job-retry")]
    assert "Runs that diverged or failed" in said(page)
    home = run_page("home")
    assert next(table.value for table in home.dataframe if "size" in table.value)["size"].tolist() == ["9 runs"]


def test_the_rows_of_a_run_can_be_explored(studied_home: Service, run_page: RunPage) -> None:
    run = next(one for one in studies.runs(studied_home.store, [study_id(studied_home)]) if one["dataset_id"])
    page = run_page("explore", datasets=str(run["dataset_id"]))
    assert page.multiselect[0].value == [run["dataset_id"]]
    assert len(page.dataframe[0].value) == run["n_rows"]


def test_home_says_how_to_go_on_with_studies(studied_home: Service, run_page: RunPage) -> None:
    assert "3 runs are not done yet" in said(run_page("home"))
