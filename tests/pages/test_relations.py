"""The Relations page in each state of a store, and that what it links to is what it showed."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from db import commands, queries
from db.service import Service
from tests.pages.conftest import RunPage
from tests.pages.sample_stores import DATASET, HOSTILE, example_ids
from tests.pages.shown import words


def dataset_of(service: Service, name: str) -> int:
    return next(row["dataset_id"] for row in queries.datasets(service.store) if row["name"] == name)


def scorer_of(service: Service, output: str) -> int:
    return next(s["scorer_id"] for s in queries.scorers(service.store) if s["output"] == output)


def figures(page: AppTest) -> list[str]:
    """The figures of the page as the browser gets them."""
    return [element.proto.spec for element in page.get("plotly_chart")]


def select_box(page: AppTest, label: str):
    return next(box for box in page.selectbox if box.label == label)


def test_an_empty_store_says_what_to_do_next(empty_home: Service, run_page: RunPage) -> None:
    assert "nothing to relate" in words(run_page("relations"))


def test_unscored_rows_lead_to_the_score_page(half_scored_home: Service, run_page: RunPage) -> None:
    page = run_page("relations", datasets=str(dataset_of(half_scored_home, "Sums")))
    assert "None of these rows has a score yet" in words(page)
    assert figures(page) == []


@pytest.mark.parametrize("home", ["half_scored_home", "failed_job_home"])
def test_a_scored_dataset_shows_all_three_figures(home: str, run_page: RunPage, request: pytest.FixtureRequest) -> None:
    service: Service = request.getfixturevalue(home)
    page = run_page("relations", datasets=str(dataset_of(service, DATASET)))
    assert len(figures(page)) == 3
    assert "Correlations" in words(page)
    assert not page.error
    assert HOSTILE not in words(page)
    assert all("<script" not in figure for figure in figures(page))


def test_a_link_restores_what_is_shown(half_scored_home: Service, run_page: RunPage) -> None:
    dataset_id = dataset_of(half_scored_home, DATASET)
    ifd, mtld = scorer_of(half_scored_home, "ifd"), scorer_of(half_scored_home, "mtld")
    page = run_page(
        "relations", datasets=str(dataset_id), x=str(mtld), y=str(ifd), colour=f"score:{mtld}", method="pearson",
        order="listed", scores=f"{mtld}.{ifd}", by="dataset", scorer=str(ifd),
    )  # fmt: skip
    assert (select_box(page, "Across").value, select_box(page, "Up").value) == (mtld, ifd)
    assert select_box(page, "Colour").value == f"score:{mtld}"
    assert select_box(page, "By").value == "dataset"
    assert select_box(page, "Score").value == ifd
    assert "Pearson" in figures(page)[0]
    assert page.query_params["method"] in ("pearson", ["pearson"])


def test_a_broken_link_shows_the_usual_choice(half_scored_home: Service, run_page: RunPage) -> None:
    dataset_id = dataset_of(half_scored_home, DATASET)
    page = run_page(
        "relations", datasets=f"{dataset_id}.x", x="no", y="999", colour="score:x", method="what", order="",
        by="category:", scores="999",
    )  # fmt: skip
    assert len(figures(page)) == 3
    assert "Spearman" in figures(page)[0]


def test_rows_are_told_apart_by_a_further_column(half_scored_home: Service, run_page: RunPage) -> None:
    page = run_page("relations", datasets=str(dataset_of(half_scored_home, DATASET)))
    assert select_box(page, "By").value == "category:category"
    assert all(kind in figures(page)[2] for kind in ("kind 0", "kind 1", "kind 2"))


def test_one_score_alone_has_no_relations_but_groups(half_scored_home: Service, run_page: RunPage) -> None:
    store = half_scored_home.store
    with store.write() as connection:
        raw = connection.connection.driver_connection
        assert raw is not None
        raw.execute("delete from scores where scorer_id <> $1", [scorer_of(half_scored_home, "mtld")])
    page = run_page("relations", datasets=str(dataset_of(half_scored_home, DATASET)))
    assert "need a second score" in words(page)
    assert len(figures(page)) == 1


def test_two_datasets_and_their_union_can_be_chosen(half_scored_home: Service, run_page: RunPage) -> None:
    store = half_scored_home.store
    first = dataset_of(half_scored_home, DATASET)
    second = commands.create_dataset(
        store, example_ids(store, first)[:8], name="<b>Eight</b>", kind="selection", source="test"
    )
    page = run_page("relations", datasets=f"{first}.{second}", by="dataset")
    assert select_box(page, "Colour").value == "dataset"
    assert "<b>Eight" not in figures(page)[2]
    assert "&lt;b&gt;Eight" in figures(page)[2]


def test_no_dataset_chosen_is_said(half_scored_home: Service, run_page: RunPage) -> None:
    page = run_page("relations")
    page.multiselect[0].set_value([]).run()
    assert not page.exception
    assert "Choose at least one dataset" in words(page)
