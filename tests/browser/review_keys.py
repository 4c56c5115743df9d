"""Sitting down at the review desk in a real browser, pressing its keys, and what was pressed when."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import Page

from db.store import Store, rows
from tests.browser.conftest import Server

READY = '.desk[data-phase="ready"]'
SAVED = '.desk[data-unsaved="0"]'
VERDICTS = {"a": "accept", "x": "reject", "s": "skip", "1": "new_instruction", "2": "new_response"}

# What was on screen at each key and since which frame, by the page itself and before the desk hears of it.
RECORDER = """window.presses = [];
window.addEventListener("keydown", (event) => {
  const desk = [...document.querySelectorAll("[data-testid=stBidiComponentIsolated]")]
    .map((one) => one.shadowRoot?.querySelector(".desk")).find(Boolean);
  window.presses.push({at: event.timeStamp, key: event.key, pair: Number(desk.dataset.pair), phase: desk.dataset.phase,
    text: desk.querySelector(".text.original")?.textContent});
}, true);
window.frames = [];
const look = () => {
  const desk = [...document.querySelectorAll("[data-testid=stBidiComponentIsolated]")]
    .map((one) => one.shadowRoot?.querySelector(".desk")).find(Boolean);
  const pair = Number(desk?.querySelector(".sheet")?.dataset.pair) || null;
  if (pair !== window.frames.at(-1)?.pair) {
    window.frames.push({at: performance.now(), pair, text: desk?.querySelector(".text.original")?.textContent});
  }
  requestAnimationFrame(look);
};
look();"""


def sit_down(page: Page, server: Server, *, name: str = "Dana", query: str = "") -> None:
    """Open the review page under a name, and wait for the first pair."""
    page.goto(f"{server.url}/review{query}")
    page.get_by_label("Your name").fill(name)
    page.get_by_role("button", name="Start reviewing").click()  # Enter counts only once this button is there
    page.wait_for_selector(READY)


def shown(page: Page) -> int:
    """The pair on screen."""
    return int(page.locator(".desk").get_attribute("data-pair") or 0)


def press(page: Page, key: str) -> int:
    """Press ``key`` and wait for another pair; returns the pair that was on screen."""
    before = shown(page)
    page.keyboard.press(key)
    page.wait_for_selector(f'{READY}:not([data-pair="{before}"])')
    return before


def press_many(page: Page, keys: str, *, every_seconds: float) -> None:
    """Press the keys one after the other, each at its time."""
    began = time.monotonic()
    for i, key in enumerate(keys):
        page.keyboard.press(key)
        wait = began + (i + 1) * every_seconds - time.monotonic()
        if wait > 0:
            page.wait_for_timeout(1000 * wait)


def recorded(page: Page) -> list[dict[str, Any]]:
    """The presses that :data:`RECORDER` wrote down."""
    return page.evaluate("window.presses")


def drawn(page: Page) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Every press that counted (see :func:`taken`), with what the page had drawn latest when it was taken."""
    frames = page.evaluate("window.frames")
    return [
        (one, max((f for f in frames if f["at"] <= one["taken_at"]), key=lambda f: f["at"]))
        for one in taken(page)
        if one["counted"]
    ]


def taken(page: Page) -> list[dict[str, Any]]:
    """Every press of a verdict as the desk took it: ``pair_id, action, at, counted, taken_at, paint_ms``.

    ``taken_at``: when it was decided, the time of the press itself or, in a burst, when its pair had been drawn.
    """
    return page.locator(".desk").evaluate("desk => desk.__presses")


def stored(server: Server) -> list[dict[str, Any]]:
    """Decisions on the disk. The server is killed first: what is not there now was never stored."""
    server.kill()
    store = Store(server.home / "assay.duckdb")
    try:
        with store.read() as connection:
            return rows(
                connection,
                """select d.*, e.instruction from decisions d left join pairs p using (pair_id)
                left join examples e on e.example_id = p.original_id order by decision_id""",
            )
    finally:
        store.close()


def kill_browser(profile: Path) -> None:
    """kill -9 for the browser with this profile, its children with it."""
    for process in psutil.process_iter(["cmdline"]):
        if f"--user-data-dir={profile}" in (process.info["cmdline"] or []) and process.pid != os.getpid():
            process.kill()
