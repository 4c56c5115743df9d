"""The Regression page over studies whose truth is known: fits, who is left out, saved fits, rules, and wrong things."""

from __future__ import annotations

import json
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from core.finetune.results import RunResult
from core.run_table import BY_HAND
from db import fits, studies
from db.service import Service
from tests.pages import study_stores
from tests.pages.conftest import RunPage
from tests.pages.study_stores import BINS, DIVERGED, FAILED, MIXTURES, N_MIXTURES, OTHER, TRUTH


def words(page: AppTest) -> str:
    kinds = ("markdown", "caption", "title", "subheader", "error", "info", "success", "warning")
    return "\n".join(str(element.value) for kind in kinds for element in getattr(page, kind)).replace("\\", "")


def figures(page: AppTest) -> list[str]:
    return [element.proto.spec for element in page.get("plotly_chart")]


def study_id(service: Service, name: str) -> int:
    return next(one["study_id"] for one in studies.studies(service.store) if one["name"] == name)


def run_id(service: Service, name: str, label: str) -> int:
    runs = studies.runs(service.store, [study_id(service, name)])
    return next(run["run_id"] for run in runs if run["label"] == label)


def press(page: AppTest, label: str) -> AppTest:
    button = next(one for one in page.button if one.label == label)
    assert not button.disabled
    button.click().run()
    assert not page.exception, page.exception
    return page


def coefficients(page: AppTest) -> dict[str, Any]:
    """The table of coefficients: regressor -> line."""
    table = next(one.value for one in page.dataframe if "VIF" in one.value.columns)
    return {str(line["regressor"]): line for line in table.to_dict("records")}


def metrics(page: AppTest) -> dict[str, str]:
    return {one.label: one.value for one in page.metric}


def test_an_empty_store_says_what_to_do_next(empty_home: Service, run_page: RunPage) -> None:
    assert "no study yet" in words(run_page("regression"))


def test_the_truth_is_found_and_the_runs_without_a_loss_are_named(studied_home: Service, run_page: RunPage) -> None:
    page = run_page("regression", regressors="reward.length")
    found = coefficients(page)
    for name, label in (("const", "(intercept)"), ("reward", "Reward"), ("length", "Length")):
        assert found[label]["low"] <= TRUTH[name] <= found[label]["high"]
    assert metrics(page)["Runs"] == str(N_MIXTURES)
    assert float(metrics(page)["Leave-one-out R²"]) > 0.95
    left_out = next(one.value for one in page.dataframe if "why it is left out" in one.value.columns)
    assert list(left_out["why it is left out"]) == [f"diverged: {DIVERGED}", f"failed: {FAILED}"]
    # One row of the last source has no IFD: the means of the mixtures with it are over the rest, and that is counted.
    gaps = next(one.value for one in page.dataframe if "runs with gaps" in one.value.columns)
    by_key = {line["key"]: line for line in gaps.to_dict("records")}
    assert by_key["ifd"]["rows without a value"] > 0
    assert by_key["knn_6"]["runs"] == N_MIXTURES
    assert len(figures(page)) == 5


def test_hostile_names_stay_text(studied_home: Service, run_page: RunPage) -> None:
    page = run_page("regression", run=str(run_id(studied_home, MIXTURES, "mixture 7")))
    assert all("<b>" not in figure or "Shuffled <b>" not in figure for figure in figures(page))
    raw = "\n".join(str(element.value) for element in page.markdown)
    assert "Mixtures of \\<i\\>three" in raw


def test_a_link_restores_the_choice(studied_home: Service, run_page: RunPage) -> None:
    ids = f"{study_id(studied_home, MIXTURES)}.{study_id(studied_home, BINS)}"
    page = run_page("regression", studies=ids, regressors="reward.nothing.mtld", response="raw", errors="HC3")
    assert list(coefficients(page)) == ["(intercept)", "Reward", "MTLD"]
    assert "Evaluation loss (nats) of 32 runs by least squares, HC3 standard errors" in words(page)
    assert not page.warning or all("different" not in one.value for one in page.warning)


def test_studies_that_cannot_be_compared_are_said(studied_home: Service, run_page: RunPage) -> None:
    ids = f"{study_id(studied_home, MIXTURES)}.{study_id(studied_home, OTHER)}"
    said = words(run_page("regression", studies=ids, regressors="reward"))
    assert "different evaluation sets (Evaluation set, Another one)" in said
    assert "different settings (epochs 1.0 / 2.0" in said


def test_too_few_runs_are_no_fit(studied_home: Service, run_page: RunPage) -> None:
    page = run_page("regression", studies=str(study_id(studied_home, OTHER)))
    assert "3 runs of these studies are done; 4 are needed" in words(page)
    assert list(page.dataframe[0].value["why it is left out"]) == ["not run yet"]
    assert "Runs that are still going come in here" in words(page)


def test_too_few_runs_because_they_failed_are_not_waited_for(studied_home: Service, run_page: RunPage) -> None:
    ids = study_id(studied_home, OTHER)
    left = [run for run in studies.runs(studied_home.store, [ids]) if run["outcome"] is None]
    for run in left:
        study_stores.add_result(
            studied_home.store, run["run_id"], RunResult(outcome="failed", reason="It broke.", seconds=1.0)
        )
    page = run_page("regression", studies=str(ids))
    assert "The others did not end well" in words(page)
    assert "still going" not in words(page)
    assert list(page.dataframe[0].value["why it is left out"]) == ["failed: It broke."]


def test_regressors_that_say_the_same_are_refused_by_name(studied_home: Service, run_page: RunPage) -> None:
    """A singular fit is an error that names the columns, never numbers."""
    store = studied_home.store
    with store.write() as connection:
        raw = connection.connection.driver_connection
        assert raw is not None
        raw.execute(
            """insert into scorers select 900, 'twice', 'length_words', 'length', '1', null, null, null, '{}'""",
        )
        raw.execute(
            """insert into scores select 900, example_id, 2 * value, null, false from scores c
            join scorers s on s.scorer_id = c.scorer_id where s.output = 'length'"""
        )
    page = run_page("regression", regressors="length.length_words")
    assert any("linearly" in one.value and "length\\_words" in one.value for one in page.error)
    assert figures(page) == []


def test_the_opened_run_shows_its_mixture_and_can_be_left_out(studied_home: Service, run_page: RunPage) -> None:
    opened = run_id(studied_home, MIXTURES, "mixture 7")
    page = run_page("regression", regressors="reward.length", run=str(opened))
    sources = next(one.value for one in page.dataframe if "share" in one.value.columns)
    assert sum(sources["rows"]) == study_stores.SIZE
    assert set(sources["source"]) == set(study_stores.SOURCES)
    press(page, "Fit without it")
    assert metrics(page)["Runs"] == str(N_MIXTURES - 1)
    left_out = next(one.value for one in page.dataframe if "why it is left out" in one.value.columns)
    assert dict(zip(left_out["run"], left_out["why it is left out"], strict=True))["mixture 7"] == BY_HAND
    press(page, "Take it in again")
    assert metrics(page)["Runs"] == str(N_MIXTURES)
    press(page, "Fit without it")
    press(page, "1 left out by hand: take all in again")
    assert metrics(page)["Runs"] == str(N_MIXTURES)


def test_a_run_that_came_in_since_goes_in(studied_home: Service, run_page: RunPage) -> None:
    page = run_page("regression", regressors="reward")
    failed = next(
        run
        for run in studies.runs(studied_home.store, [study_id(studied_home, MIXTURES)])
        if run["outcome"] == "failed"
    )
    study_stores.add_result(
        studied_home.store, failed["run_id"], RunResult(outcome="done", loss_nats=3.0), job_id="another"
    )
    page.run()
    assert metrics(page)["Runs"] == str(N_MIXTURES + 1)


# --- choosing regressors ---


def test_the_stepwise_path_is_shown_and_can_be_used(studied_home: Service, run_page: RunPage) -> None:
    page = run_page("regression", regressors="mtld")
    path = next(one.value for one in page.dataframe if "model after it" in one.value.columns)
    assert list(path["regressor"]) == ["Reward", "Length"]
    assert list(path["model after it"]) == ["Reward", "Reward, Length"]
    press(page, "Use these regressors")
    # Kept in the order in which the candidates were offered.
    assert sorted(coefficients(page)) == ["(intercept)", "Length", "Reward"]
    assert page.query_params["regressors"] in (["reward.length"], "reward.length")


@pytest.mark.parametrize("way", ["backward", "forward"])
def test_every_direction_and_criterion_runs(studied_home: Service, run_page: RunPage, way: str) -> None:
    page = run_page("regression", direction=way, criterion="bic")
    assert "No step lowers BIC any further" in words(page)
    assert "Kept: **Reward, Length**" in words(page)


def test_best_subset_puts_the_true_ones_first(studied_home: Service, run_page: RunPage) -> None:
    page = run_page("regression", way="subsets", best="bic")
    table = next(one.value for one in page.dataframe if "why not" in one.value.columns)
    assert table["regressors"][0] == "Reward, Length"
    assert list(table["BIC"]) == sorted(table["BIC"])
    assert len(table) == 30


def test_the_bootstrap_says_how_often_each_is_kept(studied_home: Service, run_page: RunPage) -> None:
    page = run_page("regression", way="bootstrap")
    next(box for box in page.selectbox if box.label == "Draws").select(100).run()
    press(page, "Draw")
    table = next(one.value for one in page.dataframe if "same sign" in one.value.columns)
    shares = dict(zip(table["regressor"], table["kept"], strict=True))
    assert shares["Reward"] > 0.95
    assert shares["MTLD"] < 0.5
    assert "100 of 100 draws of 24 runs could be fitted" in words(page)


# --- saved fits ---


def save(page: AppTest, name: str) -> None:
    next(one for one in page.text_input if one.label == "Name of the fit").set_value(name)
    press(page, "Save")


def test_a_fit_is_saved_compared_and_opened_again(studied_home: Service, run_page: RunPage) -> None:
    opened = run_id(studied_home, MIXTURES, "mixture 7")
    page = run_page("regression", regressors="reward.length", without=str(opened), errors="HC1")
    save(page, "<b>Both</b>")
    save(page, "<b>Both</b>")
    assert any("already" in one.value for one in page.error)
    page = run_page("regression", regressors="reward")
    save(page, "One")
    found = {row["name"]: row for row in fits.fits(studied_home.store)}
    assert ("mixture 7", BY_HAND) in found["<b>Both</b>"]["result"].left_out
    ids = ".".join(str(found[name]["fit_id"]) for name in ("<b>Both</b>", "One"))
    page = run_page("regression", room="saved", fits=ids)
    lines = next(one.value for one in page.dataframe if "regressor" in one.value.columns)
    assert list(lines["regressor"]) == ["(intercept)", "reward", "length"]
    assert list(lines["One"])[2] == "—"
    assert "compare only fits of the same runs" in words(page)
    press(page, "Open under Fit")
    assert metrics(page)["Runs"] == str(N_MIXTURES - 1)
    assert "HC1 standard errors" in words(page)
    assert list(coefficients(page)) == ["(intercept)", "Reward", "Length"]


def test_a_fit_is_removed_only_after_asking(studied_home: Service, run_page: RunPage) -> None:
    page = run_page("regression", regressors="reward")
    save(page, "One")
    page = run_page("regression", room="saved", fits="1")
    assert "Remove this fit?" in words(page)
    assert len(fits.fits(studied_home.store)) == 1
    press(page, "Remove the fit")
    assert fits.fits(studied_home.store) == []
    assert "No fit is saved yet" in words(page)


@pytest.mark.parametrize("where", ["fit", "saved"])
def test_a_rule_of_a_fit_knows_its_scorers_and_gives_intervals(
    studied_home: Service, run_page: RunPage, where: str
) -> None:
    page = run_page("regression", regressors="reward.length.knn_6")
    save(page, "Three")
    if where == "saved":
        page = run_page("regression", room="saved", fits="1")
    next(one for one in page.text_input if one.label == "Name of the rule").set_value("Ours")
    press(page, "Make the rule")
    row = fits.rules(studied_home.store)[1]
    rule = row["rule"]
    assert (row["name"], row["fit"], rule.outputs) == ("Ours", "Three", ("reward", "length", "knn_6"))
    assert [term.family["revision"] for term in rule.terms] == [
        "local-ba9876543210", "local-0123456789ab", "local-00ff00ff00ff",
    ]  # fmt: skip
    low, high = rule.interval({"reward": 0.0, "length": 44.0, "knn_6": 3.0})
    assert low < TRUTH["const"] + 44 * TRUTH["length"] < high


# --- rules ---


def test_the_published_rule_is_there_and_an_edited_copy_can_be_saved(studied_home: Service, run_page: RunPage) -> None:
    page = run_page("regression", room="rules")
    assert "arXiv 2307.06290v1" in words(page)
    press(page, "Edit a copy")
    area = next(one for one in page.text_area if one.label == "Formula")
    assert "0.1498*reward" in (area.value or "")
    area.set_value("0.5 − 0.2 × reward + 1e-3*length").run()
    next(one for one in page.text_input if one.label == "Name of the rule").set_value("Typed <i>one</i>").run()
    press(page, "Save the rule")
    row = fits.rules(studied_home.store)[1]
    assert (row["name"], row["origin"], row["rule"].intercept) == ("Typed <i>one</i>", "typed", 0.5)
    assert [(term.output, term.coefficient) for term in row["rule"].terms] == [("reward", -0.2), ("length", 1e-3)]
    assert "Saved Typed <i>one</i>" in words(page)
    press(page, "Remove the rule")
    assert len(fits.rules(studied_home.store)) == 1


def test_a_formula_that_is_none_says_where(studied_home: Service, run_page: RunPage) -> None:
    page = run_page("regression", room="rules")
    next(one for one in page.text_area if one.label == "Formula").set_value("1 - 0.2*rewrd").run()
    assert any("At character 9" in one.value and "reward" in one.value for one in page.error)
    assert next(one for one in page.button if one.label == "Save the rule").disabled
    page.text_area[0].set_value("1 - reward").run()
    next(one for one in page.text_input if one.label == "Name of the rule").set_value("  x ").run()
    press(page, "Save the rule")
    page.text_area[0].set_value("1 - length").run()
    next(one for one in page.text_input if one.label == "Name of the rule").set_value("x").run()
    press(page, "Save the rule")
    assert any("already" in one.value for one in page.error)


def test_pictures_are_png_or_svg_for_all_charts_at_once(studied_home: Service, run_page: RunPage) -> None:
    page = run_page("regression", regressors="reward")

    def formats() -> set[str]:
        configs = [json.loads(one.proto.config) for one in page.get("plotly_chart")]
        return {one["toImageButtonOptions"]["format"] for one in configs}

    assert formats() == {"png"}
    press(page, "Picture: PNG")
    assert formats() == {"svg"}
    assert [one.label for one in page.button].count("Picture: SVG") == 5
