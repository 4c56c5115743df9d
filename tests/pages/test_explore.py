"""The Explore page in each state of a store: what the filter, the URL and an open row show."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from core.filters import Category, NoValue, RowFilter
from db import commands, queries
from db.service import Service
from tests.pages.conftest import RunPage
from tests.pages.sample_stores import DATASET, HOSTILE
from tests.pages.shown import words


def dataset_of(service: Service, name: str) -> int:
    return next(row["dataset_id"] for row in queries.datasets(service.store) if row["name"] == name)


def scorer_of(service: Service, output: str) -> int:
    return next(s["scorer_id"] for s in queries.scorers(service.store) if s["output"] == output)


def table(page: AppTest):
    """The table of rows."""
    return next(frame.value for frame in page.dataframe if "instruction" in frame.value)


def params(page: AppTest) -> dict[str, str]:
    """The URL as it stands."""
    return {key: value[0] if isinstance(value, list) else value for key, value in page.query_params.items()}


def html(page: AppTest) -> str:
    return "\n".join(element.proto.body for element in page.get("html"))


def test_an_empty_store_says_what_to_do_next(empty_home: Service, run_page: RunPage) -> None:
    assert "no rows to explore" in words(run_page("explore"))


@pytest.mark.parametrize("home", ["half_scored_home", "failed_job_home"])
def test_all_rows_are_shown_with_their_number(home: str, run_page: RunPage, request: pytest.FixtureRequest) -> None:
    service: Service = request.getfixturevalue(home)
    page = run_page("explore")
    total = queries.count_rows(service.store, RowFilter())
    assert f"of **{total:,}** rows" in words(page)
    assert len(table(page)) == min(50, total)


def test_text_filters_and_goes_into_the_url(half_scored_home: Service, run_page: RunPage) -> None:
    page = run_page("explore")
    page.text_input(key="explore-text").set_value("ADD 3 AND").run()
    assert not page.exception
    assert list(table(page)["instruction"]) == ["Add 3 and 3."]
    assert params(page)["text"] == "ADD 3 AND"
    page.text_input(key="explore-text").set_value("no such words").run()
    assert "No row matches" in words(page)
    next(b for b in page.button if b.key == "explore-all").click().run()
    assert not page.exception
    assert "text" not in params(page)
    assert len(table(page)) > 1


def test_a_link_restores_filter_sort_and_open_row(half_scored_home: Service, run_page: RunPage) -> None:
    store = half_scored_home.store
    ifd = scorer_of(half_scored_home, "ifd")
    wanted = RowFilter(datasets=(dataset_of(half_scored_home, DATASET),), sort=ifd).with_range(ifd, 0.5, None)
    expected = queries.page_of_rows(store, wanted).rows
    opened = expected[2]["example_id"]
    page = run_page("explore", **wanted.to_params(), row=str(opened))
    assert list(table(page)["row"]) == [row["position"] + 1 for row in expected]
    assert f"**Example {opened}**" in words(page)
    assert params(page) == wanted.to_params() | {"row": str(opened)}
    assert page.number_input(key=f"explore-low-{ifd}").value == 0.5


def test_a_broken_link_warns_and_shows_all_rows(half_scored_home: Service, run_page: RunPage) -> None:
    page = run_page("explore", ranges="what:is", row="this")
    assert "cannot be read" in words(page)
    assert len(table(page)) == queries.count_rows(half_scored_home.store, RowFilter())
    assert params(page) == {}


@pytest.mark.parametrize(
    "link", [{"datasets": "999"}, {"sort": "999-up"}, {"ranges": "999:0:1"}, {"ranges": "1:nan:"}, {"ranges": "1:inf:"}]
)
def test_a_link_to_what_is_gone_warns(half_scored_home: Service, run_page: RunPage, link: dict[str, str]) -> None:
    page = run_page("explore", **link)
    assert "not in the store" in words(page)
    assert len(table(page)) == queries.count_rows(half_scored_home.store, RowFilter())


@pytest.mark.parametrize("row", ["999999", "99999999999999999999999"])
def test_a_row_that_is_not_there_is_said(half_scored_home: Service, run_page: RunPage, row: str) -> None:
    page = run_page("explore", row=row)
    assert "not in the store" in words(page) or "cannot be read" in words(page)


def test_an_open_row_shows_texts_as_text_scores_reasons_and_pairs(half_scored_home: Service, run_page: RunPage) -> None:
    store = half_scored_home.store
    hostile = queries.page_of_rows(store, RowFilter(text="Explain this:")).rows[0]["example_id"]
    page = run_page("explore", row=str(hostile))
    assert "&lt;script&gt;" in html(page)
    assert HOSTILE not in html(page)
    assert HOSTILE not in words(page)
    empty = queries.page_of_rows(store, RowFilter(text="Write a poem about rain.")).rows[0]["example_id"]
    page = run_page("explore", row=str(empty))
    scores = next(frame.value for frame in page.dataframe if "why there is no value" in frame.value)
    assert list(scores["value"]) == ["NULL"] * len(scores)
    assert all("response is empty" in reason for reason in scores["why there is no value"])
    pairs = next(frame.value for frame in page.dataframe if "decision" in frame.value)
    assert len(pairs) >= 1


def test_pages_go_forward_and_back_without_losing_a_row(half_scored_home: Service, run_page: RunPage) -> None:
    page = run_page("explore")
    page.segmented_control(key="explore-size").set_value(25).run()
    first = list(table(page)["row"])
    assert len(first) == 25
    page.button(key="explore-next").click().run()
    second = table(page)
    assert "**26–30** of **30** rows" in words(page)
    assert len(second) == 5
    assert page.button(key="explore-next").disabled
    page.button(key="explore-previous").click().run()
    assert list(table(page)["row"]) == first
    assert not page.exception


def test_neighbours_of_an_open_row_can_be_opened(half_scored_home: Service, run_page: RunPage) -> None:
    ids = [row["example_id"] for row in queries.page_of_rows(half_scored_home.store, RowFilter()).rows]
    page = run_page("explore", row=str(ids[0]))
    page.button(key=f"explore-Down-{ids[0]}").click().run()
    assert not page.exception
    assert params(page)["row"] == str(ids[1])
    page.button(key=f"explore-close-{ids[1]}").click().run()
    assert not page.exception
    assert "row" not in params(page)


def test_rows_are_saved_as_a_dataset_that_points_at_them(half_scored_home: Service, run_page: RunPage) -> None:
    store = half_scored_home.store
    page = run_page("explore", text="rivers")
    expected = queries.matching_ids(store, RowFilter(text="rivers"))
    name = next(t for t in page.text_input if t.label == "Name of the new dataset")
    name.set_value("Rivers *only*")
    next(b for b in page.button if b.label == "Save").click().run()
    assert not page.exception
    saved = next(row for row in queries.datasets(store) if row["name"] == "Rivers *only*")
    assert (saved["kind"], saved["n_members"]) == ("selection", len(expected))
    assert queries.matching_ids(store, RowFilter(datasets=(saved["dataset_id"],))) == expected
    assert "Saved" in words(page)


def test_a_name_that_is_taken_is_refused(half_scored_home: Service, run_page: RunPage) -> None:
    page = run_page("explore")
    next(t for t in page.text_input if t.label == "Name of the new dataset").set_value("Sums")
    next(b for b in page.button if b.label == "Save").click().run()
    assert not page.exception
    assert "already" in words(page)


def test_rows_without_a_value_are_found_by_kind_and_reason(half_scored_home: Service, run_page: RunPage) -> None:
    store, ifd = half_scored_home.store, scorer_of(half_scored_home, "ifd")
    page = run_page("explore")
    page.multiselect(key="explore-without").set_value([ifd]).run()
    assert not page.exception
    assert len(table(page)) == queries.count_rows(store, RowFilter(missing=(NoValue(ifd),))) == 2
    assert params(page)["missing"] == f"{ifd}:null:"
    reasons = page.selectbox(key=f"explore-reason-{ifd}")
    assert len(reasons.options) == 2
    reasons.set_value("The response is empty: there is no token to score.").run()
    assert len(table(page)) == 2
    page.segmented_control(key=f"explore-kind-{ifd}").set_value("unscored").run()
    assert not page.exception
    assert len(table(page)) == 18
    assert params(page)["missing"] == f"{ifd}:unscored:"


def test_rows_of_a_category_are_found(half_scored_home: Service, run_page: RunPage) -> None:
    store = half_scored_home.store
    page = run_page("explore")
    page.selectbox(key="explore-column").set_value("category").run()
    assert len(table(page)) == 30  # a column without a chosen value does not filter
    page.multiselect(key="explore-values").set_value(["=kind 1"]).run()
    assert not page.exception
    wanted = RowFilter(category=Category("category", ("kind 1",)))
    assert len(table(page)) == queries.count_rows(store, wanted) == 10
    assert params(page) == wanted.to_params()
    page.selectbox(key="explore-column").set_value(None).run()
    assert not page.exception
    assert params(page) == {}


def test_a_link_restores_what_is_missing_a_category_and_marked_rows(
    half_scored_home: Service, run_page: RunPage
) -> None:
    store, ifd = half_scored_home.store, scorer_of(half_scored_home, "ifd")
    ids = tuple(sorted(row["example_id"] for row in queries.page_of_rows(store, RowFilter()).rows))[:20]
    wanted = RowFilter(
        missing=(NoValue(ifd, "null", "The response is empty: there is no token to score."),),
        category=Category("category", ("kind 2", None, "not there")),
        ids=ids,
    )
    page = run_page("explore", **wanted.to_params())
    assert params(page) == wanted.to_params()
    assert not page.warning
    assert len(table(page)) == queries.count_rows(store, wanted) > 0
    assert "**20 rows** marked in a chart" in words(page)
    page.button(key="explore-ids-off").click().run()
    assert not page.exception
    assert "rows" not in params(page)


def test_a_link_to_rows_without_a_score_that_is_gone_warns(half_scored_home: Service, run_page: RunPage) -> None:
    page = run_page("explore", missing="999:null:")
    assert "not in the store" in words(page)
    assert len(table(page)) == 30


def test_a_dataset_removed_meanwhile_drops_out_of_the_filter(half_scored_home: Service, run_page: RunPage) -> None:
    sums = dataset_of(half_scored_home, "Sums")
    page = run_page("explore", datasets=str(sums))
    assert len(table(page)) == 6
    commands.remove_dataset(half_scored_home.store, sums)
    page.run()
    assert not page.exception
    assert len(table(page)) == 24
