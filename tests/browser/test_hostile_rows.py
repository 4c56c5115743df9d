"""Texts are data: in whatever field of whatever page they stand, the browser neither runs nor fetches what they say.

Two ways in: a store in which every field holds forty hostile texts (hostile_store.py), every page of it opened; and
rows that a page imports. One browser page stays open for the whole walk, so that what ran anywhere is seen.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, TimeoutError, ViewportSize, expect

from tests.browser import hostile_store
from tests.browser.conftest import PATIENCE_MS, Server, start_server
from tests.browser.review_keys import READY, SAVED
from tests.browser.steps import PICTURES, picture, rest
from tests.hostile import SHORT, SURROGATE, TEXTS

pytestmark = pytest.mark.browser
WIDE, NARROW = ViewportSize(width=1280, height=900), ViewportSize(width=390, height=900)
PATHS = (
    "", "load", "explore?datasets={hostile}", "score?dataset={hostile}", "distributions?datasets={hostile}",
    "relations?datasets={hostile}", "evaluation", "studies?study=3", "univariate?studies=2",
    "regression?studies=1&regressors=reward.length", "select?dataset=1", "reflect?dataset={hostile}&report=scores",
    "prompts?prompt=hostile-1", "pairs?state=all", "campaigns", "campaigns?campaign=2", "campaigns?new=1", "agreement",
    "history", "history?pair=25", "export?dataset={hostile}", "answers", "compare?comparison=2",
    "experiment?experiment=1", "jobs?job=20260102-030405-000000-score-abcd", "progress", "people", "board?slide=data",
    "board?slide=agreement", "board?slide=vote",
)  # fmt: skip
FITS = """() => [document.documentElement, document.querySelector('[data-testid="stMain"]')]
  .every((one) => !one || one.scrollWidth - one.clientWidth <= 1)"""
SETTLED_MS = 5000  # tables and charts follow a new width after a moment
GO = "path => { history.pushState({}, '', path); window.dispatchEvent(new PopStateEvent('popstate')); }"


class Watched:
    """A page with the log of everything it asked for and everything that went wrong on it."""

    def __init__(self, context: BrowserContext, url: str, log: Path | None = None) -> None:
        self.url = url
        self.log = log
        self.asked: list[str] = []
        self.wrong: list[str] = []
        context.on("request", lambda request: self.asked.append(request.url))
        self.page = context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("dialog", lambda dialog: self.wrong.append(f"dialog: {dialog.message}"))
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on("popup", lambda opened: self.wrong.append(f"window: {opened.url}"))
        self.page.on("websocket", lambda socket: self.asked.append(socket.url))

    def go(self, path: str) -> None:
        """Go on as the browser's back button does: without loading the whole application again."""
        self.page.evaluate(GO, f"/{path}")
        self.page.wait_for_timeout(150)
        rest(self.page)
        self.page.wait_for_timeout(250)
        rest(self.page)

    def check(self, path: str) -> None:
        """Nothing ran, no error is on the page, nothing sticks out on a screen or on a phone, nobody was led away."""
        assert self.page.evaluate("window.pwned") is None, path
        assert self.wrong == [], path
        assert self.page.url.startswith(f"{self.url}/{path.partition('?')[0]}"), (path, self.page.url)
        assert self.page.locator('[data-testid="stException"]').count() == 0, f"{path}\n{self.said()}"
        _fits(self.page, path)
        self.page.set_viewport_size(NARROW if self.page.viewport_size == WIDE else WIDE)  # and so to the next page
        _fits(self.page, path)

    def said(self) -> str:
        """The end of the server's log, without its colours."""
        return "" if self.log is None else re.sub(r"\x1b\[[0-9;]*m", "", self.log.read_text()[-6000:])

    def check_requests(self) -> None:
        """All that was asked for lies on the own server, and none of it is named in a text."""
        own = (self.url, self.url.replace("http", "ws", 1), "data:", "blob:")
        assert [one for one in self.asked if not one.startswith(own)] == []
        assert [one for one in self.asked if re.search(r"/leak|/x$", one.partition("?")[0])] == []


def _fits(page: Page, path: str) -> None:
    """Nothing is wider than the screen."""
    try:
        page.wait_for_function(FITS, timeout=SETTLED_MS)
    except TimeoutError as error:
        raise AssertionError(f"{path} sticks out at {page.viewport_size}") from error


@pytest.fixture
def watch(browser: Browser) -> Iterator[Callable[..., Watched]]:
    contexts: list[BrowserContext] = []

    def begin(url: str, log: Path | None = None, **options) -> Watched:
        contexts.append(browser.new_context(viewport=WIDE, accept_downloads=True, **options))
        return Watched(contexts[-1], url, log)

    yield begin
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, int]]:
    """A server over the hostile store, and the dataset that has a row for each text."""
    home = tmp_path_factory.mktemp("hostile") / "home"
    dataset_id = hostile_store.fill(home)
    started = start_server(home)
    yield started, dataset_id
    started.end()


@pytest.fixture
def seen(hostile: tuple[Server, int], watch: Callable[..., Watched]) -> Watched:
    """A page on that server, with a name given."""
    watched = watch(hostile[0].url, hostile[0].home / "server.log", color_scheme="dark")
    watched.page.goto(f"{watched.url}/review?state=all&order=oldest+first")
    watched.page.get_by_label("Your name").fill("Ada")
    watched.page.get_by_role("button", name="Start reviewing").click()
    watched.page.wait_for_selector(READY)
    return watched


def test_no_page_runs_or_fetches_what_forty_hostile_texts_say(hostile: tuple[Server, int], seen: Watched) -> None:
    assert len(set(TEXTS)) == 40
    # Who one is stands at the foot of the sidebar. In the dark theme it was white on white.
    foot, bar = (seen.page.get_by_test_id(name) for name in ("stSidebarUserContent", "stSidebar"))
    background = "element => getComputedStyle(element).backgroundColor"
    assert foot.evaluate(background) == bar.evaluate(background)
    for path in PATHS:
        seen.go(path.format(hostile=hostile[1]))
        seen.check(path.format(hostile=hostile[1]))
        picture(seen.page, f"hostile-{re.sub('[^a-z]+', '-', path)}")
    seen.check_requests()


def test_no_desk_and_no_report_runs_or_fetches_them(
    seen: Watched, watch: Callable[..., Watched], tmp_path: Path
) -> None:
    _desk(seen)
    _judge(seen)
    _report(seen, watch, tmp_path)
    seen.check_requests()


def _desk(seen: Watched) -> None:
    """The desk of a campaign with its guidelines and critiques open, through all texts, as text and as Markdown."""
    page = seen.page
    seen.check("review")
    page.keyboard.press("t")
    for markdown in (False, True):
        if markdown:
            page.keyboard.press("w")
        pairs = set()
        for _ in range(len(TEXTS) // 2):
            pairs.add(before := page.locator(".desk").get_attribute("data-pair"))
            page.keyboard.press("s")
            page.wait_for_selector(f'{READY}:not([data-pair="{before}"])')
        assert len(pairs) == len(TEXTS) // 2
    seen.check("review")
    page.wait_for_selector(SAVED)
    seen.go("review?campaign=1")
    page.wait_for_selector(READY)
    page.keyboard.press("g")
    page.keyboard.press("?")
    seen.check("review")
    page.keyboard.press("Escape")


def _judge(seen: Watched) -> None:
    """A few questions judged blind."""
    seen.go("judge?comparison=2")
    for _ in range(3):
        seen.page.wait_for_selector(READY)
        before = seen.page.locator(".desk").get_attribute("data-item")
        seen.page.keyboard.press("1")
        seen.page.wait_for_selector(f'{READY}:not([data-item="{before}"])')
    seen.check("judge")


def _report(seen: Watched, watch: Callable[..., Watched], folder: Path) -> None:
    """The report that somebody takes home, opened without a network."""
    seen.go("board")
    with seen.page.expect_download() as downloading:
        seen.page.get_by_role("button", name="Report").click()
    file = folder / "report.html"
    downloading.value.save_as(file)
    report = watch(file.as_uri(), offline=True)
    report.page.goto(file.as_uri())
    report.page.wait_for_selector('body[data-drawn="yes"]')
    assert report.page.evaluate("window.pwned") is None
    assert (report.wrong, report.asked) == ([], [file.as_uri()])
    for size in (NARROW, WIDE):
        report.page.set_viewport_size(size)
        _fits(report.page, "report")
    if PICTURES:
        report.page.screenshot(path=f"{PICTURES}-hostile-report.png", full_page=True)


def test_a_file_of_hostile_rows_and_names_is_imported_as_text(
    serve: Callable[..., Server], watch: Callable[..., Watched], tmp_path: Path
) -> None:
    texts = (*TEXTS, SURROGATE)
    source = tmp_path / "<b>hostile & ![x](http://127.0.0.1:9/leak.png)>.json".replace("/", "_")
    rows = [{"instruction": f"{i} {one}", "input": one, "output": one, one[:20]: one[:500]}
            for i, one in enumerate(texts)]  # fmt: skip
    source.write_text(json.dumps(rows), encoding="utf-8")
    server = serve()
    seen = watch(server.url, server.home / "server.log")
    seen.page.goto(f"{server.url}/load")
    seen.page.locator('input[type="file"]').set_input_files(source)
    seen.page.get_by_role("button", name="Import").wait_for()
    rest(seen.page)
    seen.page.get_by_label("Name", exact=False).first.fill(SHORT[2])
    seen.page.keyboard.press("Tab")
    rest(seen.page)
    seen.check("load")
    seen.page.get_by_role("button", name="Import").click()
    expect(seen.page.get_by_text(f"{len(texts)} rows").first).to_be_visible()
    for path in ("explore?datasets=1", "explore?row=1", "load"):
        seen.go(path)
        seen.check(path)
    seen.check_requests()
