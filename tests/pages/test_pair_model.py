"""The Model tab of the Pairs page: from too few decisions to a trained model, a proposal and a dry run."""

from __future__ import annotations

from streamlit.testing.v1 import AppTest

from db import pair_models, pair_training, people
from db.service import Service
from tests.db import decided_pairs
from tests.pages.conftest import RunPage
from tests.pages.shown import words
from tests.pages.test_relations import figures


def _button(page: AppTest, key: str):
    return next(one for one in page.button if one.key == key)


def test_with_too_few_decisions_the_tab_says_how_many_are_needed(half_scored_home: Service, run_page: RunPage) -> None:
    page = run_page("pairs", tab="model")
    assert "There is no model yet" in words(page)
    assert "40 are needed" in words(page)
    assert figures(page) == []


def test_training_shows_what_was_learnt_and_a_proposal_with_its_measured_error(
    empty_home: Service, run_page: RunPage
) -> None:
    decided_pairs.fill(empty_home.store)
    page = run_page("pairs", tab="model")
    page.session_state["reviewer_name"] = "Ada"
    assert "400 pairs are decided" in words(page)
    _button(page, "pair-model-train").click().run()
    task = pair_training.training(empty_home.store)
    assert task is not None, words(page)
    task.wait(60)
    people.see(empty_home.store, "Ada", "Ada Lovelace", "name")
    page.run()
    assert not page.exception
    assert len(figures(page)) == 3
    assert "held-out decisions" in words(page)
    page.slider(key="pair-model-error").set_value(10.0).run()
    assert "Auto-accept" in words(page).replace("\\", "")
    assert "Go by the upper end of the interval" in words(page)
    assert "by Ada Lovelace on" in words(page)
    assert page.query_params["error"] == "10"
    _button(page, "pair-model-plan-button").click().run()
    assert "Dry run" in words(page)
    assert not page.exception
    _button(page, "pair-model-accept").click().run()
    assert not page.exception
    (done,) = pair_models.auto_accepts(empty_home.store)
    assert (done["done_by"], done["model_id"]) == ("Ada", task.model_id)
    assert "Spot checks" in words(page)
    assert "None of the 50 sampled ones is checked yet" in words(page).replace("\\", "")
