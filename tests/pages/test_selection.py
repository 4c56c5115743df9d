"""Rows that were marked in a figure: counted, shown as text, opened in Explore or kept, however many they are."""

from __future__ import annotations

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from core import filters
from core.filters import RowFilter
from db import queries
from db.service import Service
from pages import _selection
from tests.pages.sample_stores import DATASET, HOSTILE, example_ids
from tests.pages.shown import words
from tests.pages.test_relations import dataset_of


def marked() -> None:
    """A page on which a lasso marked rows 3 and 5 of the first dataset, and row 3 a second time."""
    from core.filters import RowFilter
    from db import queries, service
    from pages import _selection

    running = service.current()
    version = queries.version(running.store)
    names = {row["dataset_id"]: row["name"] for row in queries.datasets(running.store)}
    scorers = queries.scorers(running.store)
    view = _selection.View("Map", running, (1,), names, scorers, version)
    rows = queries.page_of_rows(running.store, RowFilter(datasets=(1,))).rows
    _selection.of_rows(view, [rows[3], rows[5], rows[3]], about=scorers[:1], key="test")


@pytest.fixture
def links(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """Parameters of the links that are drawn: a page of a test has no other pages that a link could lead to."""
    drawn: list[dict[str, str]] = []
    monkeypatch.setattr(st, "page_link", lambda _page, *, query_params, **_: drawn.append(dict(query_params)))
    return drawn


def test_marked_rows_are_shown_as_text_and_kept_once_each(
    half_scored_home: Service, links: list[dict[str, str]]
) -> None:
    store = half_scored_home.store
    page = AppTest.from_function(marked, default_timeout=60).run()
    assert not page.exception
    assert "**3 rows** inside, 2 of them different" in words(page)
    assert HOSTILE not in words(page)
    assert len(page.dataframe[0].value) == 2
    page.text_input[0].set_value("Marked")
    next(b for b in page.button if b.label == "Save").click().run()
    assert not page.exception
    assert "Saved Marked: 2 rows" in words(page)
    saved = next(row for row in queries.datasets(store) if row["name"] == "Marked")
    assert (saved["kind"], saved["source"]) == ("selection", "Map")
    ids = example_ids(store, dataset_of(half_scored_home, DATASET))
    assert example_ids(store, saved["dataset_id"]) == [ids[3], ids[5]]


def test_more_rows_than_a_link_carries_can_still_be_kept(
    half_scored_home: Service, links: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    AppTest.from_function(marked, default_timeout=60).run()
    ids = example_ids(half_scored_home.store, 1)
    assert [RowFilter.from_params(link) for link in links] == [RowFilter(datasets=(1,), ids=(ids[3], ids[5]))]
    links.clear()
    monkeypatch.setattr(filters, "MOST_ID_CHARACTERS", 2)
    page = AppTest.from_function(marked, default_timeout=60).run()
    assert not page.exception
    assert "too many rows for a link" in words(page)
    assert links == []
    assert [b.label for b in page.button] == ["Save"]


def test_a_point_outside_of_the_traces_of_rows_means_no_row() -> None:
    points = [{"curve_number": c, "point_index": i} for c, i in ((0, 0), (1, 1), (2, 0), (1, 9), (3, 0))]
    parts = [["a", "b"], ["c"]]
    assert _selection.in_figure(parts, {"selection": {"points": points}}, first_trace=1) == ["b", "c"]
