"""The size search on the Select page: in every state, with hostile texts, and the best size taken over."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core.finetune.results import RunResult
from core.rules import Rule, Term, family_of
from core.studies import PlannedRun
from db import fits, queries, searches, studies
from db.service import Service
from tests.pages import study_stores
from tests.pages.sample_stores import HOSTILE

SOURCE = study_stores.SOURCES[0]


def rule_in(service: Service, dataset_id: int) -> Rule:
    scorers = {row["output"]: row for row in queries.scorers(service.store, dataset_ids=[dataset_id])}
    terms = [("reward", -0.2), ("length", 0.004)]
    return Rule(
        name="Known truth",
        intercept=0.9,
        terms=tuple(Term(output, value, family_of(scorers[output])) for output, value in terms),
        origin="typed",
    )


@pytest.fixture
def source_id(studied_home: Service) -> int:
    found = {row["name"]: row["dataset_id"] for row in queries.datasets(studied_home.store)}
    dataset_id = int(found[SOURCE])
    fits.save_rule(studied_home.store, rule_in(studied_home, dataset_id), name="Known truth")
    return dataset_id


def add_search(service: Service, dataset_id: int, results: list[RunResult], *, planned: int = 4) -> int:
    """A search whose job folder is gone: its trials are in the store."""
    evaluation = next(row for row in studies.studies(service.store))["evaluation_id"]
    study_id = studies.create_study(
        service.store,
        name=f"How many? {HOSTILE[:40]}",
        kind="search",
        evaluation_id=evaluation,
        settings=study_stores.SETTINGS,
        runs=[PlannedRun(f"trial {i}", "trial", (), 0, {"number": i}) for i in range(1, planned + 1)],
        design={
            "lowest": 4, "highest": 30, "hours": None, "seed": 0, "n_trials": planned, "dataset_id": dataset_id,
            "rule": json.loads(rule_in(service, dataset_id).to_json()),
        },
        include_base=False,
    )  # fmt: skip
    for trial, result in zip(searches.trials(service.store, study_id), results, strict=False):
        study_stores.add_result(service.store, trial["run_id"], result)
    return study_id


def said(app: Any) -> str:
    return " ".join(one.value for kind in (app.markdown, app.caption, app.info, app.error) for one in kind)


def test_without_a_search_the_form_asks_and_says_how_long_it_may_take(studied_home, source_id, run_page):
    app = run_page("select", dataset=str(source_id), room="search")
    assert "How many rows are enough?" in [one.value for one in app.subheader]
    assert any(one.label == "Name of the search" for one in app.text_input)
    assert {"Lowest size, in rows", "Highest size, in rows", "Trials", "Seed"} <= {n.label for n in app.number_input}


def test_trials_are_shown_and_the_best_size_is_taken_over(studied_home, source_id, run_page):
    study_id = add_search(
        studied_home,
        source_id,
        [
            RunResult(outcome="done", loss_nats=2.5, seconds=3.0, details={"n_rows": 4}),
            RunResult(outcome="done", loss_nats=2.25, seconds=5.0, details={"n_rows": 11}),
            RunResult(outcome="diverged", reason=f"Not finite {HOSTILE}", seconds=1.0, details={"n_rows": 30}),
        ],
    )
    app = run_page("select", dataset=str(source_id), room="search")
    assert app.query_params["search"] == str(study_id)
    assert "**2.2500** nats with **11 rows** (trial 2)" in said(app)
    table = next(one.value for one in app.dataframe if "trial" in one.value.columns)
    assert list(table["rows"]) == [4, 11, 30]
    assert HOSTILE in table["reason"].iloc[2]
    use = next(one for one in app.button if one.label.startswith("Use this size"))
    use.click().run()
    assert not app.exception
    assert app.query_params["size"] == "11"
    assert app.query_params["by"] == "number"
    assert next(one.value for one in app.metric if one.label == "Rows selected") == "11"


def test_a_search_that_only_failed_offers_no_size(studied_home, source_id, run_page):
    add_search(studied_home, source_id, [RunResult(outcome="failed", reason="Out of memory.", details={"n_rows": 4})])
    app = run_page("select", dataset=str(source_id), room="search")
    assert "No trial has a loss yet" in said(app)
    assert not [one for one in app.button if one.label.startswith("Use this size")]


def test_a_search_of_another_rule_says_so(studied_home, source_id, run_page):
    add_search(studied_home, source_id, [])
    other = Rule(name="Other", intercept=1.0, terms=(Term("length", 0.1),), origin="typed")
    rule_id = fits.save_rule(studied_home.store, other, name="Other")
    app = run_page("select", dataset=str(source_id), room="search", rule=str(rule_id))
    assert "another rule" in said(app)
