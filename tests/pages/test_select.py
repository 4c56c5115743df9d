"""The Select page over stores in each state: what it selects is what it says, and what it saves is what it showed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from core import selection
from core.rules import Rule, Term, family_of, parse
from db import commands, evaluation, fits, queries, selections, studies
from db.service import Service
from tests import prepared
from tests.pages import sample_stores, study_stores
from tests.pages.conftest import RunPage, running
from tests.pages.sample_stores import HOSTILE, example_ids
from tests.pages.shown import words
from tests.pages.test_relations import figures

SOURCE = study_stores.SOURCES[1]  # a name with markup in it


@pytest.fixture
def studied(tmp_path: Path) -> Iterator[tuple[Service, study_stores.Studied]]:
    made = prepared.put(sample_stores.settings_at(tmp_path / "home").store_path, study_stores.fill)
    with running(tmp_path / "home") as started:
        yield started, made


def typed(service: Service, text: str = "0.9 - 0.2*reward + 0.004*length", name: str = "Typed") -> str:
    return str(fits.save_rule(service.store, parse(text, name=name), name=name))


def fitted(service: Service, **families: dict[str, object]) -> str:
    """A rule that was fitted on scores of these families, with a covariance."""
    terms = [Term(output, 0.1 * (i + 1), family) for i, (output, family) in enumerate(families.items())]
    rule = Rule(
        name="Fitted", intercept=0.5, terms=tuple(terms), origin="fit",
        fit={
            "covariance": [[1e-4 * (i == j) for i in range(len(terms) + 1)] for j in range(len(terms) + 1)],
            "residual_variance": 1e-4, "df_residual": 20, "n": 24, "confidence": 0.95,
        },
    )  # fmt: skip
    return str(fits.save_rule(service.store, rule, name="Fitted"))


def best(studied: study_stores.Studied, service: Service, name: str, n: int) -> list[int]:
    """The n rows of a source with the lowest value of the typed rule, taken by hand."""
    ids = example_ids(service.store, studied.sources[name])
    value = {i: 0.9 - 0.2 * studied.values["reward"][i] + 0.004 * studied.values["length"][i] for i in ids}
    return sorted(ids, key=lambda i: value[i])[:n]


def metric(page: AppTest, label: str) -> str:
    return next(str(one.value) for one in page.metric if one.label == label)


def test_an_empty_store_says_what_to_do_next(empty_home: Service, run_page: RunPage) -> None:
    assert "nothing to select from" in words(run_page("select"))


def test_a_dataset_without_the_rules_scores_leads_to_the_score_page(
    half_scored_home: Service, run_page: RunPage
) -> None:
    page = run_page("select")
    assert not page.exception
    assert "no row is scored" in words(page)
    assert not figures(page)


def test_the_slider_says_how_many_rows_and_what_the_rule_predicts(studied, run_page: RunPage) -> None:
    service, known = studied
    rule, dataset = typed(service), known.sources[SOURCE]
    page = run_page("select", dataset=str(dataset), rule=rule, size="12")
    assert not page.exception
    assert metric(page, "Rows selected") == "12"
    chosen = best(known, service, SOURCE, 12)
    means = {k: sum(known.values[k][i] for i in chosen) / 12 for k in ("reward", "length")}
    expected = 2.718281828459045 ** (0.9 - 0.2 * means["reward"] + 0.004 * means["length"])
    assert float(metric(page, "Predicted loss of the selection")) == pytest.approx(expected, abs=1e-4)
    assert "no covariance" in words(page)
    assert len(figures(page)) == 3  # the comparison of the store among them
    assert HOSTILE not in words(page)
    page.number_input(key=f"select-size-number-{dataset}-exact").set_value(5).run()
    assert metric(page, "Rows selected") == "5"
    assert page.query_params["size"] in ("5", ["5"])


@pytest.mark.parametrize(
    ("way", "parameter", "value", "n"), [("share", "share", "50", 15), ("threshold", "upto", "9", 30)]
)
def test_a_link_brings_back_any_way_to_say_the_size(
    studied, run_page: RunPage, way: str, parameter: str, value: str, n: int
) -> None:
    service, known = studied
    page = run_page(
        "select", dataset=str(known.sources[SOURCE]), rule=typed(service), by=way, **{parameter: value}
    )  # fmt: skip
    assert not page.exception
    assert metric(page, "Rows selected") == str(n)


def test_a_broken_link_shows_the_usual_choice(studied, run_page: RunPage) -> None:
    service, _ = studied
    typed(service)
    page = run_page(
        "select", dataset="x", rule="99", by="what", size="nan", use="reward:x~~:", near="-1", most="0", rows="?",
        room="none", comparison="abc", category="<b>",
    )  # fmt: skip
    assert not page.exception
    assert metric(page, "Rows selected") == "3"


def test_a_rule_fitted_on_other_scores_is_refused_until_told_otherwise(studied, run_page: RunPage) -> None:
    service, known = studied
    scorers = {s["scorer_id"]: s for s in selections.scorers_here(service.store, known.sources[SOURCE])}
    family = family_of(scorers[known.scorers["reward"]])
    rule = fitted(service, reward={**family, "revision": "local-another"})
    page = run_page("select", dataset=str(known.sources[SOURCE]), rule=rule)
    assert "the rule was fitted on" in words(page).replace("\\", "")
    assert not page.metric
    page = run_page(
        "select", dataset=str(known.sources[SOURCE]), rule=rule, force="1", use=f"reward:{known.scorers['reward']}"
    )
    assert metric(page, "Rows selected") == "3"
    assert "applied all the same" in words(page)


def test_a_fitted_rule_gives_an_interval(studied, run_page: RunPage) -> None:
    service, known = studied
    scorers = {s["scorer_id"]: s for s in selections.scorers_here(service.store, known.sources[SOURCE])}
    rule = fitted(service, reward=family_of(scorers[known.scorers["reward"]]))
    page = run_page("select", dataset=str(known.sources[SOURCE]), rule=rule)
    delta = next(one.delta for one in page.metric if one.label == "Predicted loss of the selection")
    assert delta.startswith("95 %: ")
    assert "one more run" in words(page)


def test_rows_without_a_score_are_counted_and_never_selected(studied, run_page: RunPage) -> None:
    service, known = studied
    dataset = known.sources[study_stores.SOURCES[-1]]  # its third row has no IFD
    page = run_page("select", dataset=str(dataset), rule=typed(service, "1 + ifd"), by="share", share="100")
    assert "1 of 30 rows have no predicted value" in words(page)
    assert metric(page, "Rows selected") == "29"
    assert "30 rows were asked for and 29 remain" in words(page)
    page = run_page("select", dataset=str(dataset), rule=typed(service, "1 + ifd", "Again"), rows="refused")
    assert f"{selection.NO_PREDICTION} (1 rows)" in str([box.options for box in page.selectbox])


def test_a_saved_selection_holds_the_rows_that_were_shown_with_their_provenance(studied, run_page: RunPage) -> None:
    service, known = studied
    page = run_page("select", dataset=str(known.sources[SOURCE]), rule=typed(service), size="7")
    box = next(one for one in page.text_input if one.label == "Name of the new dataset")
    box.set_value("Seven best")
    next(button for button in page.button if button.label == "Save").click().run()
    assert not page.exception
    made = next(d for d in queries.datasets(service.store) if d["name"] == "Seven best")
    assert made["kind"] == "selection"
    assert example_ids(service.store, made["dataset_id"]) == best(known, service, SOURCE, 7)
    details = queries.dataset_details(service.store, made["dataset_id"])
    assert details["rule"]["name"] == "Typed"
    assert {one["output"]: one["scorer_id"] for one in details["scorers"]} == {
        output: known.scorers[output] for output in ("reward", "length")
    }
    assert details["size"] == {"by": "number", "value": 7, "asked": 7}
    assert json.dumps(details)


def test_rows_can_be_kept_apart(studied, run_page: RunPage) -> None:
    service, known = studied
    options = {"dataset": str(known.sources[SOURCE]), "rule": typed(service), "by": "share", "share": "100"}
    assert metric(run_page("select", **options), "Rows selected") == "30"
    page = run_page("select", **options, near="3")
    assert not page.exception
    assert 1 < int(metric(page, "Rows selected")) < 30
    assert selection.TOO_NEAR in words(page)


def test_what_an_evaluation_set_asks_is_left_out_unless_wanted(studied, run_page: RunPage) -> None:
    service, known = studied
    copy = example_ids(service.store, known.sources[SOURCE])[:4]
    commands.create_dataset(service.store, copy, name="Copied into evaluation", kind="x", source="test")
    made = next(d["dataset_id"] for d in queries.datasets(service.store) if d["name"] == "Copied into evaluation")
    evaluation.mark(service.store, made)
    options = {"dataset": str(known.sources[SOURCE]), "rule": typed(service), "by": "share", "share": "100"}
    assert metric(run_page("select", **options), "Rows selected") == "26"
    assert metric(run_page("select", **options, evaluation="0"), "Rows selected") == "30"


def test_a_comparison_shows_its_verdict_both_tests_and_its_runs(studied, run_page: RunPage) -> None:
    service, known = studied
    page = run_page("select", rule=typed(service), comparison=str(known.comparison_id))
    assert not page.exception
    said = words(page).replace("\\", "")
    assert "No difference shown" in said
    assert "1/6" in said
    assert "at least 19 random subsets" in said
    assert "Over evaluation instructions" in said
    assert len(figures(page)) == 3


def test_a_comparison_is_planned_and_started_with_its_provenance(
    studied, run_page: RunPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, known = studied
    enqueued: list[str] = []
    monkeypatch.setattr(service, "enqueue", lambda folder: enqueued.append(folder.spec().job_id))  # nothing trains here
    page = run_page("select", dataset=str(known.sources[SOURCE]), rule=typed(service), size="6", room="compare")
    assert not page.exception
    assert "smallest one-sided p is 1/6" in words(page).replace("\\", "")
    page.number_input(key="select-comparison-random").set_value(3).run()
    next(button for button in page.button if button.label == "Start 5 runs").click().run()
    assert not page.exception
    study = studies.studies(service.store)[0]
    assert study["kind"] == "comparison"
    assert len(enqueued) == 1
    runs = studies.runs(service.store, [study["study_id"]])
    assert [run["role"] for run in runs] == ["base", "selected", "random", "random", "random"]
    assert example_ids(service.store, runs[1]["dataset_id"]) == best(known, service, SOURCE, 6)
    assert all(run["n_rows"] == 6 for run in runs[1:])
    assert study["design"]["rule"]["name"] == "Typed"
    assert study["design"]["n_random"] == 3
