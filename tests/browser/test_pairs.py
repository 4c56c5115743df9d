"""The Pairs page in a real Chromium: a lasso makes a list, a link to the page itself is followed, a bulk is undone."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from core.filters import PairFilter
from db import bulk, pair_lists, pair_queue
from db.store import Store
from tests.browser.conftest import Server, start_server
from tests.browser.test_rows import parameters, settled_box
from tests.db.test_relations import put_vectors
from tests.pages import sample_stores

pytestmark = pytest.mark.browser
SECONDS = 30_000


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server over a store with pairs whose reflected rows have an embedding."""
    home = tmp_path_factory.mktemp("pairs") / "home"
    home.mkdir()
    store = Store(home / "assay.duckdb")
    sample_stores.fill_half_scored(store)
    rng = np.random.default_rng(0)
    found = pair_queue.page(store, PairFilter(state="all"), size=100).rows
    put_vectors(store, {row["candidate_id"]: list(rng.normal(size=6)) for row in found})
    store.close()
    started = start_server(home)
    yield started
    started.end()


def test_lasso_link_and_bulk(server: Server, page: Page) -> None:
    page.goto(f"{server.url}/pairs?tab=map&state=all")
    plot = page.locator(".js-plotly-plot")
    expect(plot).to_have_count(1, timeout=SECONDS)
    box = settled_box(page, plot.locator("rect.nsewdrag").first)
    left, top = box["x"] + 3, box["y"] + 3
    right, bottom = left + box["width"] * 0.6, top + box["height"] - 6
    page.mouse.move(left, top)
    page.mouse.down()
    for x, y in ((right, top), (right, bottom), (left, bottom), (left, top)):
        page.mouse.move(x, y, steps=8)
    page.mouse.up()
    queue = page.get_by_role("button", name=re.compile(r"^Review these \d+ pairs"))
    expect(queue).to_be_visible(timeout=SECONDS)
    words = queue.inner_text()
    n_marked = int(re.findall(r"\d+", words)[0])
    queue.click()
    page.wait_for_url(re.compile(r"/review\?.*list=1"), timeout=SECONDS)

    page.goto(f"{server.url}/pairs?state=all&order=as+listed&list=1")
    expect(page.get_by_text(f"1–{n_marked} of {n_marked} pairs")).to_be_visible(timeout=SECONDS)
    canvas = page.locator('[data-testid="stDataFrame"] canvas').first.bounding_box()
    assert canvas is not None
    page.mouse.click(canvas["x"] + 18, canvas["y"] + 52)
    page.get_by_role("link", name="Pairs like this").click(timeout=SECONDS)
    page.wait_for_function("new URLSearchParams(location.search).get('order') === 'most similar'")
    assert parameters(page)["like"].isdecimal()
    expect(page.get_by_text("By the embeddings of")).to_be_visible(timeout=SECONDS)

    page.goto(f"{server.url}/pairs?tab=bulk")
    page.get_by_role("button", name="Dry run").click(timeout=SECONDS)
    page.get_by_label("Your name").fill("Eve")
    page.get_by_role("button", name="Start deciding").click()
    typed = page.get_by_label(re.compile(r"^Type \d+ to confirm"))
    typed.fill(str(typed.get_attribute("placeholder")), timeout=SECONDS)
    page.get_by_role("button", name=re.compile(r"^Accept \d+ pairs")).click()
    page.get_by_role("button", name="Undo").first.click(timeout=SECONDS)
    page.get_by_role("button", name=re.compile(r"^Undo \d+ decisions")).click()
    expect(page.get_by_text("decisions were taken back")).to_be_visible(timeout=SECONDS)

    server.kill()
    store = Store(server.home / "assay.duckdb")
    try:
        assert pair_lists.lists(store)[0]["n_pairs"] == n_marked
        (action,) = bulk.actions(store)
        assert (action["done_by"], action["undone_by"], action["n_standing"]) == ("Eve", "Eve", 0)
    finally:
        store.close()
