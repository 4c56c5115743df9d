"""Relations and Map in a real Chromium: a click on a cell opens that pair, a lasso finds and keeps its very rows."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from core.filters import RowFilter
from db import queries
from db.store import Store
from tests.browser.conftest import Server, start_server
from tests.browser.test_rows import parameters, settled_box
from tests.db.test_relations import put_vectors
from tests.pages import sample_stores

pytestmark = pytest.mark.browser


@pytest.fixture
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, dict[str, int]]]:
    """A server over 60 rows, half of them scored, all of them with an embedding; output -> scorer id."""
    home = tmp_path_factory.mktemp("relations") / "home"
    home.mkdir()
    store = Store(home / "assay.duckdb")
    dataset_id = sample_stores.import_rows(store, sample_stores.rows(60), name=sample_stores.DATASET)
    scorers = sample_stores.score_half(store, dataset_id)
    rng = np.random.default_rng(0)
    put_vectors(store, {i: list(rng.normal(size=6)) for i in sample_stores.example_ids(store, dataset_id)})
    store.close()
    started = start_server(home)
    yield started, scorers
    started.end()


def test_a_click_on_a_cell_opens_the_rows_of_that_pair(filled: tuple[Server, dict[str, int]], page: Page) -> None:
    server, scorers = filled
    page.goto(f"{server.url}/relations?order=listed")
    expect(page.locator(".js-plotly-plot")).to_have_count(3, timeout=30_000)
    heat_map = page.locator(".js-plotly-plot").first
    names = [tick.text_content() for tick in heat_map.locator(".xtick text").all()]
    box = settled_box(page, heat_map.locator("rect.nsewdrag").first)
    k = len(names)
    across, up = names.index("mtld"), names.index("r_ifd")
    page.mouse.click(box["x"] + box["width"] * (across + 0.3) / k, box["y"] + box["height"] * (up + 0.6) / k)
    page.wait_for_function(f"new URLSearchParams(location.search).get('x') === '{scorers['mtld']}'")
    assert parameters(page)["y"] == str(scorers["r_ifd"])


def test_a_lasso_on_the_map_keeps_its_rows_as_a_dataset(filled: tuple[Server, dict[str, int]], page: Page) -> None:
    server, _ = filled
    page.goto(f"{server.url}/map?colour=dataset")
    plot = page.locator(".js-plotly-plot")
    expect(plot).to_have_count(1, timeout=30_000)
    box = settled_box(page, plot.locator("rect.nsewdrag").first)
    left, top, right, bottom = (
        box["x"] + 5, box["y"] + 5, box["x"] + box["width"] / 2, box["y"] + box["height"] - 5
    )  # fmt: skip
    page.mouse.move(left, top)
    page.mouse.down()
    for x, y in ((right, top), (right, bottom), (left, bottom), (left, top)):
        page.mouse.move(x, y, steps=8)
    page.mouse.up()
    said = page.get_by_text(re.compile(r"^\d+ rows inside")).first
    expect(said).to_be_visible(timeout=15_000)
    n_rows = int(said.inner_text().split()[0])
    assert 0 < n_rows < 60
    page.get_by_role("button", name="Save as dataset").click()
    page.get_by_label("Name of the new dataset").fill("Left half")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text(f"Saved Left half: {n_rows} rows.")).to_be_visible(timeout=15_000)
    page.keyboard.press("Escape")
    page.get_by_role("link", name="Open in Explore").click()
    expect(page.get_by_text(f"1–{min(n_rows, 50)} of {n_rows} rows")).to_be_visible(timeout=15_000)
    marked = RowFilter.from_params(parameters(page)).ids
    server.kill()
    store = Store(server.home / "assay.duckdb")
    try:
        saved = next(row["dataset_id"] for row in queries.datasets(store) if row["name"] == "Left half")
        assert sorted(sample_stores.example_ids(store, saved)) == list(marked)
    finally:
        store.close()
