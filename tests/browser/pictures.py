"""Take the README's pictures of a running dashboard: `python -m tests.browser.pictures http://localhost:8501`.

The workspace should hold the sample, reflected and with some decisions, and one larger scored dataset (``--dataset``);
study 1 with its runs, and rule 1 made of a fit of them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from tests.browser.conftest import FLAGS
from tests.browser.find_chromium import ADVICE, find_chromium

PICTURES = Path(__file__).parents[2] / "pages" / "pictures"


def _open(page: Page, url: str) -> None:
    page.goto(url)
    page.wait_for_selector("h1")
    page.wait_for_timeout(4000)  # charts and tables are drawn after the page is there


def take(page: Page, url: str, *, dataset: int, rows: Path | None) -> None:
    """Walk through the pages and save a picture of each."""
    for name, path in (
        ("home", ""),
        ("distributions", f"distributions?dataset={dataset}"),
        ("relations", f"relations?datasets={dataset}"),
        ("explore", f"explore?datasets={dataset}"),
        ("score", f"score?dataset={dataset}"),
        ("reflect", "reflect?dataset=2"),
        ("export", "export?dataset=2"),
        ("jobs", "jobs"),
        ("study", "studies?study=1"),
        ("regression", "regression?studies=1&regressors=length.ifd"),
        ("select", f"select?dataset={dataset}&rule=1"),
    ):
        _open(page, f"{url}/{path}")
        page.screenshot(path=str(PICTURES / f"{name}.png"))
    _open(page, f"{url}/review")
    if page.get_by_label("Your name").count():
        page.get_by_label("Your name").fill("Ada")
        page.get_by_role("button", name="Start reviewing").click()
    page.wait_for_selector('.desk[data-phase="ready"]')
    page.wait_for_timeout(500)
    page.screenshot(path=str(PICTURES / "review.png"))
    if rows is not None:
        _open(page, f"{url}/load")
        page.locator('input[type="file"]').set_input_files(rows)
        page.get_by_role("button", name="Import").wait_for()
        page.wait_for_timeout(2500)
        page.screenshot(path=str(PICTURES / "load.png"))


def main() -> None:
    """Read the command line and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--dataset", type=int, default=2, help="id of the dataset whose scores are shown")
    parser.add_argument("--rows", type=Path, help="a file to show on the Load page (it is not imported)")
    arguments = parser.parse_args()
    browser_path = find_chromium()
    if browser_path is None:
        raise SystemExit(ADVICE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=FLAGS)
        page = browser.new_page(viewport={"width": 1360, "height": 860})
        take(page, arguments.url, dataset=arguments.dataset, rows=arguments.rows)
        browser.close()


if __name__ == "__main__":
    main()
