"""Explore and Distributions in a real Chromium: a click means the row that was on the screen, a bar its own rows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import parse_qs

import pytest
from playwright.sync_api import FloatRect, Locator, Page, expect

from core.filters import RowFilter
from db import queries
from db.store import Store
from tests.browser.conftest import Server, start_server
from tests.pages import sample_stores

pytestmark = pytest.mark.browser
HEADER, LINE = 35, 35


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, list[int], int]]:
    """A server over 60 scored rows; their example ids in the order of the dataset, and the scorer of IFD."""
    home = tmp_path_factory.mktemp("rows") / "home"
    home.mkdir()
    store = Store(home / "assay.duckdb")
    dataset_id = sample_stores.import_rows(store, sample_stores.rows(60), name=sample_stores.DATASET)
    scorers = sample_stores.score_half(store, dataset_id)
    ids = sample_stores.example_ids(store, dataset_id)
    store.close()
    started = start_server(home)
    yield started, ids, scorers["ifd"]
    started.end()


def parameters(page: Page) -> dict[str, str]:
    """The URL as the browser shows it."""
    return {key: values[0] for key, values in parse_qs(page.evaluate("location.search")[1:]).items()}


def click_line(page: Page, number: int) -> None:
    """Click the instruction in the ``number``-th line of the table of rows."""
    box = page.get_by_test_id("stDataFrame").first.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + 180, box["y"] + HEADER + LINE * number + LINE / 2)


def opened(page: Page, example_id: int) -> None:
    expect(page.get_by_text(f"Example {example_id}", exact=True)).to_be_visible()
    page.wait_for_function(f"new URLSearchParams(location.search).get('row') === '{example_id}'")


def settled_box(page: Page, locator: Locator) -> FloatRect:
    """Where an element lies once charts around it have stopped growing into their places."""
    before = None
    for _ in range(100):
        box = locator.bounding_box()
        if box is not None and box == before:
            return box
        before = box
        page.wait_for_timeout(300)
    raise AssertionError("the page does not come to rest")


def test_a_click_opens_the_row_that_was_clicked_and_the_url_keeps_it(
    filled: tuple[Server, list[int], int], page: Page
) -> None:
    server, ids, _ = filled
    page.goto(f"{server.url}/explore")
    expect(page.get_by_text("1–50 of 60 rows")).to_be_visible()
    for number in (2, 7, 4):
        click_line(page, number)
        opened(page, ids[number])
    page.keyboard.press("j")
    opened(page, ids[5])
    page.go_back()
    opened(page, ids[4])
    page.reload()
    opened(page, ids[4])
    page.get_by_role("button", name="Next").click()
    expect(page.get_by_text("51–60 of 60 rows")).to_be_visible()
    click_line(page, 1)
    opened(page, ids[51])


def test_typing_searches_live_and_loses_no_letter(filled: tuple[Server, list[int], int], page: Page) -> None:
    server, ids, _ = filled
    page.goto(f"{server.url}/explore")
    expect(page.get_by_text("1–50 of 60 rows")).to_be_visible()
    box = page.get_by_placeholder("Any words, in any case")
    box.press_sequentially("river number 42", delay=120)
    expect(page.get_by_text("1–1 of 1 rows")).to_be_visible()
    assert box.input_value() == "river number 42"
    page.wait_for_function("new URLSearchParams(location.search).get('text') === 'river number 42'")
    click_line(page, 0)
    opened(page, ids[42])


def test_the_rows_behind_a_bar_are_those_it_counts(filled: tuple[Server, list[int], int], page: Page) -> None:
    server, _, scorer_id = filled
    page.goto(f"{server.url}/distributions?scorer={scorer_id}")
    expect(page.locator(".js-plotly-plot")).to_have_count(2)
    box = settled_box(page, page.locator(".js-plotly-plot").first.locator(".barlayer .point").nth(3))
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.8)
    said = page.get_by_text(re.compile(r"^\d+ rows with ifd from")).first
    expect(said).to_be_visible()
    n_rows = int(said.inner_text().split()[0])
    page.get_by_role("link", name="Open in Explore").first.click()
    expect(page.get_by_text(f"1–{n_rows} of {n_rows} rows")).to_be_visible()
    filters = RowFilter.from_params(parameters(page))
    assert filters.ranges[0].scorer_id == scorer_id
    server.kill()
    store = Store(server.home / "assay.duckdb")
    try:
        assert queries.count_rows(store, filters) == n_rows > 0
    finally:
        store.close()
