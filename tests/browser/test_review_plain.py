"""The plain desk in a real browser: it keeps the promises of the fast one, and texts stay texts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from db.store import Store
from tests.browser import review_keys
from tests.browser.conftest import Server, start_server
from tests.pages import sample_stores

pytestmark = pytest.mark.browser
N_PAIRS = 160
DESKS = ("fast", "plain")

# What is on screen at each key, asked of the page before the desk hears of it.
PLAIN_RECORDER = """window.presses = [];
window.addEventListener("keydown", (event) => {
  const badge = document.querySelector(".assay-badge")?.textContent ?? "";
  window.presses.push({key: event.key, pair: Number(badge.replace("pair ", "")), phase: "ready",
    text: document.querySelector(".assay-text.original")?.textContent});
}, true);"""


def fill(home: Path, n_pairs: int) -> None:
    store = Store(home / "assay.duckdb")
    try:
        examples = sample_stores.rows(n_pairs)
        dataset_id = sample_stores.import_rows(store, examples, name=sample_stores.DATASET)
        for i, original_id in enumerate(sample_stores.example_ids(store, dataset_id)):
            candidate = sample_stores.reflected(examples[i], "instruction")
            sample_stores.add_pair(store, dataset_id, original_id, candidate, ifd=(0.5, 0.9 if i == 3 else 0.7))
    finally:
        store.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("plain") / "home"
    home.mkdir()
    fill(home, N_PAIRS)
    started = start_server(home)
    yield started
    started.end()


def sit_down(page: Page, server: Server, desk: str, *, name: str, query: str = "") -> None:
    if desk == "fast":
        review_keys.sit_down(page, server, name=name, query=query)
        return
    page.goto(f"{server.url}/review{query}{'&' if query else '?'}plain=1")
    page.get_by_label("Your name").fill(name)
    page.get_by_role("button", name="Start reviewing").click()  # Enter counts only once this button is there
    page.get_by_role("button", name="✓ Accept").wait_for()


def shown(page: Page) -> int:
    """The pair on screen of the plain desk."""
    return int(page.locator(".assay-badge").first.inner_text().removeprefix("pair "))


def test_the_plain_desk_shows_hostile_texts_as_texts_with_marks(page: Page, server: Server) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    sit_down(page, server, "plain", name="Hana")
    expect(page.locator(".assay-text.original").nth(1)).to_have_text(sample_stores.HOSTILE)
    assert page.locator(".assay-text ins").count()
    assert page.evaluate("window.hacked") is None
    assert page.locator(".assay-text img, .assay-text script, .assay-text a").count() == 0
    assert not [url for url in asked if "192.0.2.1" in url]


def test_the_plain_desk_keeps_a_draft_over_a_reload_and_its_link_leads_to_the_fast_one(
    page: Page, server: Server
) -> None:
    sit_down(page, server, "plain", name="Dora", query="?order=random&seed=3")
    pair = shown(page)
    page.keyboard.press("e")
    area = page.get_by_label("Response · your edit")
    area.fill("half a thought")
    area.press("Control+Enter")
    page.get_by_text("Leave (the draft is kept)").wait_for()
    page.wait_for_timeout(500)
    page.reload()
    page.get_by_role("button", name="✓ Accept").wait_for()
    assert shown(page) == pair
    page.keyboard.press("e")
    expect(page.get_by_label("Response · your edit")).to_have_value("half a thought")
    page.get_by_role("button", name="Fast desk").click()
    page.wait_for_selector(review_keys.READY)
    assert "plain=1" not in page.url


def test_sixty_presses_at_sixty_milliseconds_land_on_pairs_that_were_on_screen(page: Page, server: Server) -> None:
    """Last on this server: it is killed to look at the disk."""
    meant: dict[str, list[tuple[dict[str, Any], str]]] = {}
    for desk in DESKS:
        sit_down(page, server, desk, name=f"Fast {desk}", query=f"?order=random&seed={len(desk)}")
        page.evaluate(review_keys.RECORDER if desk == "fast" else PLAIN_RECORDER)
        review_keys.press_many(page, "ax" * 30, every_seconds=0.06)
        page.wait_for_timeout(1500)
        pressed = review_keys.recorded(page)
        assert len(pressed) == 60
        meant[desk] = [(one, review_keys.VERDICTS[one["key"]]) for one in pressed]
        if desk == "fast":  # faster than frames come, a press is for the pair that is drawn by then
            meant[desk] = [(shown_then, one["action"]) for one, shown_then in review_keys.drawn(page)]
        page.context.clear_cookies()
    found = review_keys.stored(server)
    for desk in DESKS:
        mine = [row for row in found if row["reviewer"] == f"Fast {desk}"]
        on_screen = {(one["pair"], verdict) for one, verdict in meant[desk]}
        texts = {one["pair"]: one["text"] for one, _ in meant[desk]}
        assert len(mine) >= (20 if desk == "fast" else 3)
        assert {(row["pair_id"], row["verdict"]) for row in mine} <= on_screen
        assert len({row["pair_id"] for row in mine}) == len(mine)
        assert all(row["instruction"] == texts[row["pair_id"]] for row in mine)
