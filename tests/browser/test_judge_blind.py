"""Blind judging in a real Chromium over a real server: what is stored is what was on screen, side by side."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from db.store import Store
from tests.browser.conftest import Server, start_server
from tests.pages import judged_stores
from tests.pages.judged_stores import WIN

pytestmark = pytest.mark.browser
N = 13  # twelve are judged; one verdict is taken back on the way
READY = '.desk[data-phase="ready"]'
KEYS = ("1", "ArrowLeft", "2", "3", "ArrowRight", "ArrowDown")
MEANT = {"1": "left", "ArrowLeft": "left", "2": "tie", "ArrowDown": "tie", "3": "right", "ArrowRight": "right"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("judging") / "home"
    home.mkdir()
    store = Store(home / "assay.duckdb")
    long = "A line of a long answer.\n" * 80
    endless = "x" * 400_000  # without a space: Chromium once took minutes to break such a line, and no key counted
    judged_stores.add_entries(
        store,
        [
            judged_stores.entry(i, WIN, answers=(f"{long}{i}", endless if i == 1 else f"Short answer {i}."))
            for i in range(N)
        ],
    )
    store.close()
    started = start_server(home)
    yield started
    started.kill()


def shown(page: Page) -> tuple[str, str, str]:
    """The question on screen and both answers."""
    texts = [page.locator(f'.desk [data-field="{name}"]').inner_text() for name in ("instruction", "left", "right")]
    return texts[0], texts[1], texts[2]


def press(page: Page, key: str) -> None:
    before = page.locator(".desk").get_attribute("data-item")
    page.keyboard.press(key)
    page.wait_for_selector(f'.desk[data-phase="ready"]:not([data-item="{before}"])')


def read_and_type(page: Page) -> None:
    """Keys do not judge while one scrolls a long answer with them or types a text."""
    before = page.locator(".desk").get_attribute("data-item")
    page.locator(".desk .answers .text.long").click()
    page.keyboard.press("ArrowDown")
    page.get_by_role("button", name="Judge: Dana").click()
    page.get_by_label("Your name").press_sequentially("123")
    page.get_by_label("Your name").fill("Dana")
    page.get_by_role("button", name="Judge: Dana").click()
    expect(page.get_by_label("Your name")).to_be_hidden()
    assert page.locator(".desk").get_attribute("data-item") == before
    expect(page.locator(".head .place")).to_have_text(f"0 of {N} judged")
    page.locator(".head .place").click()


def test_twelve_verdicts_by_keys_are_stored_as_they_were_seen_and_outlive_the_server(
    page: Page, server: Server
) -> None:
    page.goto(f"{server.url}/judge")
    page.get_by_label("Your name").fill("Dana")
    page.get_by_role("button", name="Start judging").click()
    page.wait_for_selector(READY)
    read_and_type(page)
    seen: list[tuple[tuple[str, str, str], str]] = []
    for number in range(12):
        key = KEYS[number % len(KEYS)]
        seen.append((shown(page), MEANT[key]))
        press(page, key)
        if number == 4:  # taken back, and given again the other way round
            press(page, "u")
            assert shown(page) == seen[-1][0]
            seen[-1] = (seen[-1][0], "left")
            press(page, "1")
    expect(page.locator(".head .place")).to_have_text(f"12 of {N} judged")
    assert page.evaluate("window.hacked") is None
    assert page.locator(".desk script, .desk img").count() == 0
    waiting = shown(page)
    server.kill()

    store = Store(server.home / "assay.duckdb")
    found = judged_stores.stored(store)
    store.close()
    assert len(found) == len({row["item_id"] for row in found}) == 12
    assert {row["swapped"] for row in found} == {True, False}
    for row, ((_, left, right), meant) in zip(found, seen, strict=True):
        preferred = {1: row["first"], -1: row["second"], 0: None}[row["preference"]]
        expected = {"left": left, "right": right, "tie": None}[meant]
        assert (preferred and preferred.strip()) == (expected and expected.strip())
    again = start_server(server.home)
    try:
        page.goto(f"{again.url}/judge")  # the browser kept the name: nobody is asked again
        page.wait_for_selector(READY)
        assert shown(page) == waiting
        press(page, "2")
        expect(page.locator(".end")).to_contain_text("All judged")
        expect(page.get_by_text("Your agreement with the other judges")).to_be_visible()
    finally:
        again.kill()
