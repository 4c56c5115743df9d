"""A real server in a process of its own and a real Chromium that drives it."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser.find_chromium import ADVICE, find_chromium

ROOT = Path(__file__).parents[2]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# Files go to the workers in this order, then the others: whoever gets a long one at the end is waited for.
LONGEST_FIRST = (
    "test_study_walk.py",
    "test_comparison_walk.py",
    "test_team_walk.py",
    "test_review_component.py",
    "test_experiment_walk.py",
    "test_hostile_rows.py",
    "test_walk.py",
    "test_sign_in.py",
    "test_board.py",
    "test_restart.py",
)

PATIENCE_MS = 60_000  # for what the page shows next; Playwright's own 5 s are too few on a machine with other work


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first; within a file, and among the others, the order stays."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """A running dashboard: its address, its folder and its process."""

    url: str
    home: Path
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """kill -9: what a crash does."""
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """Kill the server and its jobs, which would outlive it."""
        self.kill()
        for process in psutil.process_iter(["cmdline"]):
            if any(str(self.home) in part for part in process.info["cmdline"] or []):
                process.kill()


def start_server(home: Path, *, port: int | None = None, environment: dict[str, str] | None = None) -> Server:
    """Start `streamlit run app.py` on ``home`` and wait until it answers."""
    chosen = port or free_port()
    home = home.resolve()  # Server.end() looks for processes by this path: a relative one would match others'
    home.mkdir(parents=True, exist_ok=True)
    with (home / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(chosen)],
            cwd=ROOT,
            env={**os.environ, "ASSAY_HOME": str(home), **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    url = f"http://127.0.0.1:{chosen}"
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/api/health", timeout=2) as answer:
                if answer.status == 200:
                    return Server(url, home, process)
        except urllib.error.HTTPError as error:
            if error.code == 503:  # up, but the store cannot be opened: the page says so
                return Server(url, home, process)
        except OSError:
            pass
        if process.poll() is not None:
            break
        time.sleep(0.2)
    process.kill()
    raise AssertionError(f"the server did not start:\n{(home / 'server.log').read_text()[-3000:]}")


@pytest.fixture(scope="package")  # while Playwright runs, no other test of this process can start an event loop
def browser() -> Iterator[Browser]:
    path = find_chromium()
    if path is None:
        if os.environ.get("CI") == "true":
            pytest.fail("CI needs a Chromium for the browser tests; install one")
        pytest.skip(ADVICE)
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Browser, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1440, "height": 1000}, accept_downloads=True)
    opened = context.new_page()
    opened.set_default_timeout(PATIENCE_MS)
    yield opened
    opened.screenshot(path=str(tmp_path / f"{re.sub(r'[^a-z0-9_]+', '-', request.node.name.lower())}.png"))
    context.close()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start servers that are stopped, with their jobs, at the end of the test."""
    with ExitStack() as stack:

        def begin(home: Path | None = None, **options) -> Server:
            server = start_server(home or tmp_path / "home", **options)
            stack.callback(server.end)
            return server

        yield begin
