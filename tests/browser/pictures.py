"""Take the README's pictures of a running dashboard: `python -m tests.browser.pictures http://localhost:8501`.

The workspace should hold the sample, reflected and with some decisions, and one larger scored dataset (``--dataset``);
study 1 with its runs, and rule 1 made of a fit of them; an edited prompt and a teacher to try it with (``--teacher``);
two answer sets (``--test-set``, ``--answer-sets``); comparison 1 with two judges and a question nobody judged blind;
experiment 1 with its results; campaign 1 with decisions, embeddings of the sample, and some people with roles.
``--only`` takes a few of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from tests.browser.conftest import FLAGS
from tests.browser.find_chromium import ADVICE, find_chromium
from tests.browser.steps import rest

PICTURES = Path(__file__).parents[2] / "pages" / "pictures"


def _open(page: Page, url: str) -> None:
    page.goto(url)
    page.wait_for_selector("h1")
    rest(page)
    page.wait_for_timeout(4000)  # charts and tables are drawn after the page is there


def _save(page: Page, name: str) -> None:
    page.screenshot(path=str(PICTURES / f"{name}.png"))


def _sit_down(page: Page, button: str) -> None:
    """Give a name where a desk asks for one, and wait for its first item."""
    if page.get_by_label("Your name").count():
        page.get_by_label("Your name").fill("Ada")
        page.get_by_role("button", name=button).click()
    page.wait_for_selector('.desk[data-phase="ready"]')
    page.wait_for_timeout(500)


def _begin_edit(page: Page) -> None:
    """Sit down at a desk, begin to edit the reflected response, and stop in the middle of a sentence."""
    _sit_down(page, "Start reviewing")
    page.keyboard.press("e")
    field = page.locator(".desk textarea").last
    field.click()
    page.keyboard.press("Control+End")
    page.keyboard.type(" Say which of them")
    page.wait_for_timeout(1500)


def _dry_run(page: Page) -> None:
    """What accepting the whole filter would do."""
    page.get_by_role("button", name="Dry run").click()
    page.get_by_text("Would").first.wait_for()
    rest(page)
    page.wait_for_timeout(1500)


def _lasso(page: Page) -> None:
    """Draw a lasso around a part of the map."""
    area = page.locator(".js-plotly-plot .nsewdrag").first
    area.evaluate("area => area.scrollIntoView({block: 'center'})")
    page.wait_for_timeout(500)
    box = area.bounding_box()
    assert box is not None
    corners = [(0.55, 0.3), (0.75, 0.25), (0.85, 0.5), (0.7, 0.7), (0.55, 0.55), (0.55, 0.32)]
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=8)
    page.mouse.up()
    page.mouse.move(5, 5)
    page.wait_for_timeout(1000)
    rest(page)
    page.wait_for_timeout(2000)


def _board(page: Page) -> None:
    """A slide as it stands on the wall: presented, on a large screen, without anything around it."""
    page.set_viewport_size({"width": 1920, "height": 1080})
    page.wait_for_timeout(3000)


AFTER = {"edit": _begin_edit, "pairs": _dry_run, "pairs-map": _lasso, "board": _board}
"""What is done on a page before its picture."""


def _try_prompts(page: Page, teacher: str) -> None:
    """Ask a teacher by both prompts, and go to its first replies."""
    endpoint = page.get_by_role("radio", name="OpenAI-compatible endpoint")
    if endpoint.count():
        endpoint.click()
    for label, value in (("Base URL", teacher), ("Model", "teacher"), ("Environment variable with the key", "")):
        page.get_by_role("textbox", name=label, exact=True).fill(value)
        page.keyboard.press("Enter")
        page.wait_for_timeout(1500)
    page.get_by_role("button", name="questions").click()
    page.get_by_text("5 of 5 rows").first.wait_for()
    page.get_by_text("5 of 5 rows").first.evaluate("line => line.scrollIntoView()")
    page.wait_for_timeout(1000)


def take(
    page: Page, url: str, *, dataset: int, test_set: int, answer_sets: Sequence[int], teacher: str,
    rows: Path | None, only: Collection[str],
) -> None:  # fmt: skip
    """Walk through the pages and save a picture of each, or of those in ``only``."""
    for name, path in (
        ("home", ""),
        ("distributions", f"distributions?dataset={dataset}"),
        ("relations", f"relations?datasets={dataset}"),
        ("explore", f"explore?datasets={dataset}"),
        ("score", f"score?dataset={dataset}"),
        ("reflect", "reflect?dataset=2"),
        ("reflect-report", "reflect?dataset=2&report=scores"),
        ("prompts", "prompts?view=try&prompt=my-instruction-1&dataset=2"),
        ("export", "export?dataset=2"),
        ("answers", f"answers?dataset={test_set}&sets={'.'.join(map(str, answer_sets))}"),
        ("compare", "compare?comparison=1"),
        ("judge", "judge?comparison=1"),
        ("experiment", "experiment?experiment=1"),
        ("jobs", "jobs"),
        ("study", "studies?study=1"),
        ("regression", "regression?studies=1&regressors=length.ifd"),
        ("select", f"select?dataset={dataset}&rule=1"),
        ("review", "review"),
        ("edit", "review"),
        ("pairs", "pairs?tab=bulk"),
        ("pairs-map", "pairs?tab=map&state=all&colour=verdict"),
        ("campaign", "campaigns?campaign=1"),
        ("agreement", "agreement?campaign=1"),
        ("people", "people"),
        ("board", "board?slide=scores&present=1"),
        ("load", "load"),
    ):
        if (only and name not in only) or (name == "load" and not rows) or (name == "prompts" and not teacher):
            continue
        _open(page, f"{url}/{path}")
        if name == "reflect-report":
            page.get_by_role("heading", name="Report").evaluate("heading => heading.scrollIntoView()")
            page.wait_for_timeout(1500)
        elif name == "prompts":
            _try_prompts(page, teacher)
        elif name in AFTER:
            AFTER[name](page)
        elif name in ("review", "judge"):
            _sit_down(page, "Start reviewing" if name == "review" else "Start judging")
        elif name == "load" and rows is not None:
            page.locator('input[type="file"]').set_input_files(rows)
            page.get_by_role("button", name="Import").wait_for()
            page.wait_for_timeout(2500)
        _save(page, name)


def main() -> None:
    """Read the command line and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--dataset", type=int, default=2, help="id of the dataset whose scores are shown")
    parser.add_argument("--test-set", type=int, default=1, help="id of the dataset whose answer sets are shown")
    parser.add_argument("--answer-sets", type=int, nargs="+", default=[1, 2], help="ids of those that are read")
    parser.add_argument("--teacher", default="", help="base URL of an endpoint that tries the prompts")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="names of the pictures to take")
    parser.add_argument("--rows", type=Path, help="a file to show on the Load page (it is not imported)")
    arguments = parser.parse_args()
    browser_path = find_chromium()
    if browser_path is None:
        raise SystemExit(ADVICE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=FLAGS)
        page = browser.new_page(viewport={"width": 1360, "height": 860})
        take(
            page,
            arguments.url,
            dataset=arguments.dataset,
            test_set=arguments.test_set,
            answer_sets=arguments.answer_sets,
            teacher=arguments.teacher,
            rows=arguments.rows,
            only=arguments.only,
        )
        browser.close()


if __name__ == "__main__":
    main()
