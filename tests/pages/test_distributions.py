"""The Distributions page in each state of a store."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from db import queries
from db.service import Service
from tests.pages.conftest import RunPage
from tests.pages.sample_stores import DATASET
from tests.pages.shown import words


def dataset_of(service: Service, name: str) -> int:
    return next(row["dataset_id"] for row in queries.datasets(service.store) if row["name"] == name)


def figures(page: AppTest) -> int:
    return len(page.get("plotly_chart"))


def test_an_empty_store_says_what_to_do_next(empty_home: Service, run_page: RunPage) -> None:
    assert "nothing to draw" in words(run_page("distributions"))


def test_unscored_rows_lead_to_the_score_page(half_scored_home: Service, run_page: RunPage) -> None:
    page = run_page("distributions", datasets=str(dataset_of(half_scored_home, "Sums")))
    assert "None of these rows has a score yet" in words(page)
    assert figures(page) == 0


@pytest.mark.parametrize("home", ["half_scored_home", "failed_job_home"])
def test_histogram_and_coverage_of_a_scored_dataset(
    home: str, run_page: RunPage, request: pytest.FixtureRequest
) -> None:
    service: Service = request.getfixturevalue(home)
    page = run_page("distributions", datasets=str(dataset_of(service, DATASET)))
    assert figures(page) == 2
    assert "of 24 rows have a value" in words(page)
    tables = [frame.value for frame in page.dataframe]
    coverage = next(table for table in tables if "… unscored" in table)
    row = coverage.iloc[0]
    assert row["✓ value"] + row["∅ NULL"] + row["… unscored"] == 24
    reasons = next(table for table in tables if "why there is no value" in table)
    assert reasons["rows"].sum() == row["∅ NULL"]


def test_the_scorer_of_a_link_is_chosen(half_scored_home: Service, run_page: RunPage) -> None:
    dataset_id = dataset_of(half_scored_home, DATASET)
    scorer_id = next(s["scorer_id"] for s in queries.scorers(half_scored_home.store) if s["output"] == "mtld")
    page = run_page("distributions", datasets=str(dataset_id), scorer=str(scorer_id))
    assert page.selectbox[0].value == scorer_id


def test_a_broken_link_shows_the_default(half_scored_home: Service, run_page: RunPage) -> None:
    page = run_page("distributions", datasets="x.999", scorer="no", scorers="99")
    assert page.multiselect[0].value == [queries.datasets(half_scored_home.store)[0]["dataset_id"]]


def test_no_dataset_chosen_is_said(half_scored_home: Service, run_page: RunPage) -> None:
    page = run_page("distributions")
    page.multiselect[0].set_value([]).run()
    assert not page.exception
    assert "Choose at least one dataset" in words(page)


def test_the_value_of_a_dataset_is_its_mean_with_an_interval(half_scored_home: Service, run_page: RunPage) -> None:
    """Twelve rows are scored: row 5 has no value by anything, row 2 none by IFD; the other twelve are unscored."""
    page = run_page("distributions", datasets=str(dataset_of(half_scored_home, DATASET)))
    values = next(frame.value for frame in page.dataframe if "mean [95 %]" in frame.value).set_index("indicator")
    ifd = next(name for name in values.index if name.startswith("ifd"))
    assert list(values.loc[ifd, ["values", "NULL", "unscored"]]) == [10, 2, 12]
    expected = sum(0.4 + 0.05 * i for i in range(12) if i not in (2, 5)) / 10
    assert values.loc[ifd, "mean"] == pytest.approx(expected)
    assert values.loc[ifd, "95 % low"] < expected < values.loc[ifd, "95 % high"]
    assert "bootstrap" in words(page)
    assert len(values) == 4


def test_two_datasets_are_compared(half_scored_home: Service, run_page: RunPage) -> None:
    both = [dataset_of(half_scored_home, name) for name in (DATASET, "Sums")]
    page = run_page("distributions", datasets=".".join(map(str, both)))
    quantiles = next(frame.value for frame in page.dataframe if "median" in frame.value)
    assert len(quantiles) == 2
