"""A meeting in a real Chromium: one presents, two follow on their own devices, vote, discuss, vote again; the report.

The report is opened without a network, from a store whose texts would run as markup if anything let them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from db.store import Store
from tests.browser.conftest import PATIENCE_MS, Server, start_server
from tests.browser.steps import picture, rest
from tests.pages import sample_stores

pytestmark = pytest.mark.browser
SOON_MS = 20_000  # a second or two, unless the machine has much else to do
WATCH = """() => {
  window.frames_seen = window.longest_without_bars = 0;
  let without = 0;
  const look = () => {
    window.frames_seen += 1;
    without = document.querySelector(".js-plotly-plot .bars path") ? 0 : without + 1;
    window.longest_without_bars = Math.max(window.longest_without_bars, without);
    requestAnimationFrame(look);
  };
  look();
}"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    home = tmp_path / "home"
    home.mkdir()
    store = Store(home / "assay.duckdb")
    sample_stores.fill_half_scored(store)
    store.close()
    started = start_server(home)
    yield started
    started.kill()


@pytest.fixture
def join(browser: Browser, server: Server) -> Iterator[object]:
    with ExitStack() as stack:

        def enter(name: str, query: str, *, width: int, height: int, dark: bool = False) -> Page:
            context = browser.new_context(
                viewport={"width": width, "height": height},
                color_scheme="dark" if dark else "light",
                accept_downloads=True,
            )
            stack.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(PATIENCE_MS)
            page.on("dialog", lambda dialog: pytest.fail(f"a text ran: {dialog.message}"))
            page.goto(f"{server.url}/board?{query}")
            page.get_by_label("Your name").fill(name)
            page.get_by_role("button", name="Join").click()
            page.locator(".board .place").wait_for()
            return page

        yield enter


def title(page: Page) -> Locator:
    return page.locator(".assay-slide h1")


def test_a_meeting(join, browser: Browser, server: Server, tmp_path: Path) -> None:
    ada = join("Ada", "present=1&slide=review", width=1920, height=1080)
    ben = join("Ben", "follow=1", width=390, height=844)
    chi = join("Chi", "follow=1", width=1280, height=800, dark=True)
    expect(ada.locator('[data-testid="stSidebar"]')).not_to_be_visible()
    expect(title(ben)).to_have_text("Review progress", timeout=SOON_MS)

    # Slides go by keys, and who follows sees the presenter's within a second or two.
    ada.keyboard.press("PageDown")
    for page in (ada, ben, chi):
        expect(title(page)).to_have_text("Pace", timeout=SOON_MS)
    # Chi looks elsewhere while the presenter moves on, and comes back.
    chi.keyboard.press("Home")
    expect(title(chi)).to_have_text("Data and coverage")
    ada.keyboard.press("ArrowLeft")
    expect(title(ben)).to_have_text("Review progress", timeout=SOON_MS)
    expect(title(chi)).to_have_text("Data and coverage")
    chi.get_by_role("button", name=re.compile("Back to Ada")).click()
    expect(title(chi)).to_have_text("Review progress", timeout=SOON_MS)
    picture(chi, "board-follow")

    _vote(ada, ben, chi)
    _live(ada, chi)

    # Another takes over; who presented sees it.
    chi.get_by_role("button", name="Leave").click()
    chi.get_by_role("button", name="Present instead").click()
    chi.get_by_role("button", name="Take over").click()
    expect(ada.locator(".board .who")).to_contain_text("Chi presents", timeout=SOON_MS)
    chi.get_by_role("button", name="End").click()
    expect(ben.locator(".board .who")).to_contain_text("nobody presents", timeout=SOON_MS)
    chi.get_by_role("button", name="Report").wait_for()
    _report(chi, browser, tmp_path)


def _vote(ada: Page, ben: Page, chi: Page) -> None:
    """Blind, revealed, discussed, again."""
    ada.keyboard.press("End")
    field = ada.get_by_role("textbox", name="Number of a pair, or a link to it")
    field.fill("http://127.0.0.1/review?pair=4")  # its texts are hostile
    field.press("Enter")
    for page, verdict in ((ben, "✓ Accept"), (chi, "✗ Reject")):
        page.get_by_role("button", name=verdict, exact=True).click()
        expect(page.get_by_text("Your vote is in.")).to_be_visible()
    expect(ada.locator(".vote .count")).to_have_text("2 of 2 here have voted", timeout=SOON_MS)
    for page in (ada, ben, chi):
        assert page.locator(".vote .round").count() == 0  # nothing is out yet
    ada.get_by_role("button", name="Reveal the votes").click()
    for page in (ada, ben, chi):
        expect(page.locator(".vote .round")).to_contain_text("0 % of pairs of voters agree", timeout=SOON_MS)
    expect(ben.get_by_role("button", name="✓ Accept", exact=True)).to_have_count(0)
    ada.get_by_role("button", name="Vote again").click()
    for page in (ben, chi):
        page.get_by_role("button", name="✗ Reject", exact=True).click()
        expect(page.get_by_text("Your vote is in.")).to_be_visible()
    ada.get_by_role("button", name="Reveal the votes").click()
    for page in (ada, ben, chi):
        expect(page.get_by_text("1 of 2 who voted twice changed their verdict")).to_be_visible(timeout=SOON_MS)
        assert page.evaluate("window.hacked") is None
    picture(ada, "board-vote")


def _live(ada: Page, chi: Page) -> None:
    """The outcome is stored; who looks at the review slide sees the numbers change, and never a moment without bars."""
    chi.keyboard.press("Home")
    for _ in range(3):
        chi.keyboard.press("ArrowRight")
    expect(title(chi)).to_have_text("Review progress")
    lead = chi.locator(".assay-slide .lead")
    expect(lead).to_contain_text("4 of 10 pairs decided")
    chi.locator(".js-plotly-plot .bars path").first.wait_for()
    chi.evaluate(WATCH)
    ada.get_by_role("button", name="Store as the decision: ✗ rejected (2 of 2 votes)").click()
    expect(ada.get_by_text("Stored as the decision on this pair: ✗ rejected.")).to_be_visible()
    expect(lead).to_contain_text("5 of 10 pairs decided", timeout=2 * SOON_MS)
    rest(chi)
    assert chi.evaluate("window.frames_seen") > 10
    # No flicker: Streamlit mounts a chart of other numbers anew and draws it in that frame or the next; a slow machine
    # takes another one.
    assert chi.evaluate("window.longest_without_bars") <= 2


def _report(page: Page, browser: Browser, folder: Path) -> None:
    rest(page)
    with page.expect_download() as downloading:
        page.get_by_role("button", name="Report").click()
    file = folder / "report.html"
    downloading.value.save_as(file)
    context = browser.new_context(offline=True, viewport={"width": 1000, "height": 1200})
    try:
        report = context.new_page()
        asked: list[str] = []
        complaints: list[str] = []
        report.on("request", lambda request: asked.append(request.url))
        report.on("dialog", lambda dialog: pytest.fail(f"a text ran: {dialog.message}"))
        report.on("console", lambda message: complaints.append(message.text))
        report.on("pageerror", lambda error: complaints.append(str(error)))
        report.goto(file.as_uri())
        report.wait_for_selector('body[data-drawn="yes"]')
        assert asked == [file.as_uri()]
        assert complaints == []
        assert report.evaluate("window.hacked") is None
        plots = report.locator(".plot")
        assert plots.count() >= 6
        expect(report.locator(".plot .main-svg").first).to_be_visible()
        assert report.locator(".plot:not(:has(.main-svg))").count() == 0
        expect(report.get_by_role("heading", name="Votes so far")).to_be_visible()
        expect(report.locator("#review")).to_contain_text("5 of 10 pairs decided (50 %), 60 % of them accepted")
        assert report.locator(".data a[download]").count() >= plots.count()
        wide = report.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide == 0
        paper = report.pdf(prefer_css_page_size=True, print_background=True)
        assert 3 <= len(re.findall(rb"/Type\s*/Page\b", paper)) <= 14
    finally:
        context.close()
