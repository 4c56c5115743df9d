"""What the walks through a real browser have in common: presses that wait for the page, and waits for jobs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Page, expect

from core.jobs.folder import JobFolder
from tests.browser.conftest import PATIENCE_MS, Server

PICTURES = os.environ.get("ASSAY_WALK_PICTURES")  # where pictures of a walk go, to be looked at: a path to begin with
SECONDS = 600  # the most that one job may take on a slow machine


def rest(page: Page) -> None:
    """Wait until the page is drawn: one that is still being drawn moves under the pointer and replaces its widgets."""
    page.wait_for_selector('[data-testid="stApp"][data-test-script-state="notRunning"]')


def press(page: Page, name: str, *, role: Literal["button", "radio"] = "button", exact: bool = False) -> None:
    """Press a button, or a choice of a control, once the page is at rest."""
    control = page.get_by_role(role, name=name, exact=exact)
    control.wait_for()
    rest(page)
    control.click()


def number(page: Page, name: str, value: float) -> None:
    """Write into a number field."""
    _write(page, "spinbutton", name, f"{value:g}")


def text(page: Page, name: str, value: str) -> None:
    """Write into a text field."""
    _write(page, "textbox", name, value)


def _write(page: Page, role: Literal["spinbutton", "textbox"], name: str, value: str) -> None:
    field = page.get_by_role(role, name=name, exact=True)
    field.wait_for()
    rest(page)
    field.fill(value)
    field.press("Enter")


def unfold(page: Page, beginning: str) -> None:
    """Open the expander whose line begins so."""
    line = page.get_by_test_id("stExpander").locator("summary").filter(has_text=beginning)
    line.wait_for()
    rest(page)
    line.click()


def picture(page: Page, name: str) -> None:
    """Save what is on screen, from top to bottom, where somebody wants to look at it."""
    if not PICTURES:
        return
    rest(page)
    page.wait_for_timeout(1500)
    height = page.evaluate("document.querySelector('[data-testid=\"stMain\"]').scrollHeight")
    page.set_viewport_size({"width": 1440, "height": max(1000, min(int(height), 5000))})
    page.wait_for_timeout(1500)
    page.screenshot(path=f"{PICTURES}-{name}.png")
    page.set_viewport_size({"width": 1440, "height": 1000})


def wait_for(condition: Callable[[], object], *, seconds: float = SECONDS, what: str) -> None:
    """Ask twice a second until ``condition`` holds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.5)
    raise AssertionError(f"not within {seconds} s: {what}")


def jobs_done(page: Page, server: Server, n: int) -> bool:
    """All jobs of the server are done, and there are at least ``n``; one that ended otherwise is an error."""
    answer = page.request.get(f"{server.url}/api/health").json()
    assert not {"failed", "interrupted"} & set(answer["jobs"]), answer
    return answer["jobs"].get("done", 0) >= n and set(answer["jobs"]) == {"done"}


def state(folder: Path) -> str:
    """The state of the job in this folder."""
    return JobFolder(folder).status().state


def wait_done(folder: Path) -> None:
    """Wait until a job is done; one that ends otherwise is an error, with what it said."""

    def done() -> bool:
        status = JobFolder(folder).status()
        assert status.state not in ("failed", "interrupted", "cancelled"), (status, JobFolder(folder).log_tail(30))
        return status.state == "done"

    wait_for(done, what=f"{folder.name} is done")


def new_job(home: Path, kind: str, before: set[Path]) -> Path:
    """The folder of the job of a kind that was not among ``before``, once it is there."""
    found: list[Path] = []

    def there() -> bool:
        found[:] = [path for path in (home / "jobs").glob(f"2*-{kind}-*") if path not in before]
        return bool(found)

    wait_for(there, seconds=120, what=f"a {kind} job was submitted")
    return found[0]


@pytest.fixture
def patient(page: Page) -> Iterator[Page]:
    """A page whose steps and expectations may take two minutes each."""
    page.set_default_timeout(120_000)
    expect.set_options(timeout=120_000)
    yield page
    expect.set_options(timeout=PATIENCE_MS)
