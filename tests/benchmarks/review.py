"""Reviewing at size: press to painted, many reviewers at once, and a server that is killed. Measured, never asserted.

    python -m tests.benchmarks.review [--pairs 20000] [--decided 4000] [--sessions 1,5,20] [--think 2] [--seconds 20]
        [--browsers 3] [--presses 60] [--kills 5] [--parts paint,fast,load,browsers,kills] [--home FOLDER]
    python -m tests.benchmarks.review --pairs 1000000 --decided 200000 --sessions 1,5,20,50 --seconds 60 --kills 50

All against the real server (``streamlit run app.py``) over a store of ``--pairs`` pairs (review_store.py), on one
machine with what drives it, so that a machine of two cores serves and measures at once.

1. ``paint``: ``--presses`` decisions by key, 250 ms after the one before was painted, in headless Chromium:
   milliseconds from the key's own time stamp until the next pair has been painted, of the fast desk and of the plain
   buttons.
2. ``fast``: 200 presses at 30 ms apart on the fast desk, each against what was on screen at the press and against what
   is on the disk once the server was killed with kill -9.
3. ``load``: ``--sessions`` simulated reviewers over HTTP, each thinking ``--think`` seconds (half to one and a half as
   long), sending each decision at once and fetching ahead as the component does: milliseconds of the server's answer.
4. ``browsers``: the same with that many real browser pages, which press a key and leave the sending to the component;
   milliseconds of the answers as the browsers' own clocks have them (resource timing).
5. ``kills``: three tabs decide, edit, skip and undo as fast as they can while the server is killed with kill -9 again
   and again (review_kills.py): every acknowledged entry must be there, none twice, none on another pair.

Set OMP_NUM_THREADS=1. With ``--home`` the store stays there and is used again.

Two cores, 1,000,000 pairs, 200,000 decided (--pairs 1000000 --decided 200000 --presses 200 --browsers 20 --sessions
1,5,20,50 --seconds 45): press to painted, median 12.9 ms, p95 19.0 ms (plain buttons 243 and 297 ms); 200 presses at
30 ms apart, eleven runs: 200 counted and stored in ten, 199 in one (Playwright's keys come 10 to 120 ms apart; see
pages/_review/stage.js), all in their order and on the pair that was on screen. Twenty
browser pages at 2 s think time: answers p50 29 ms, p95 53 ms, press to painted median 13.8 ms, p95 25.0 ms. Answers
over HTTP, p50 / p95: one session 30 / 78 ms (of 20 answers), five 26 / 61 ms, twenty 28 / 60 ms, fifty 29 / 71 ms.
50 kills (--kills 50): 1,321 of 1,321 acknowledged entries there, none twice, none on another pair.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from tests.benchmarks import review_store
from tests.benchmarks.review_kills import kill_rounds
from tests.benchmarks.review_load import reviewing, table
from tests.browser import review_keys
from tests.browser.conftest import FLAGS, Server, start_server
from tests.browser.find_chromium import ADVICE, find_chromium

PARTS = ("paint", "fast", "load", "browsers", "kills")
LATE_MS = 5
QUEUE = {"kind": "filter", "params": {}}

# From the time stamp of a key until the frame after the one in which the badge names another pair.
_PLAIN_CLOCK = """window.painted = [];
window.addEventListener("keydown", (event) => {
  const shown = () => document.querySelector(".assay-badge")?.textContent;
  const before = shown();
  const look = () => {
    if (shown() === before || !shown()) { requestAnimationFrame(look); return; }
    requestAnimationFrame(() => window.painted.push(performance.now() - event.timeStamp));
  };
  requestAnimationFrame(look);
}, true);"""
_ANSWERS = """performance.getEntriesByType("resource").filter((one) => one.name.endsWith("/api/review/sync"))
  .map((one) => one.duration)"""


def quantiles(ms: Sequence[float]) -> str:
    """Median, 95th percentile and largest, in milliseconds."""
    ordered = sorted(ms)
    if not ordered:
        return "nothing was measured"
    p95 = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    return (
        f"median {statistics.median(ordered):.1f} ms · p95 {p95:.1f} ms · max {ordered[-1]:.1f} ms · n {len(ordered)}"
    )


def painted_ms(presses: Sequence[dict[str, Any]]) -> list[float]:
    """From each press that counted until the next pair was painted, of those that were measured."""
    return [one["paint_ms"] for one in presses if one.get("paint_ms")]


@contextmanager
def serving(home: Path) -> Iterator[Server]:
    """The real server over ``home``, killed at the end."""
    server = start_server(home)
    try:
        yield server
    finally:
        server.kill()  # not end(): it would also end this process, whose command line names the home


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless Chromium."""
    path = find_chromium()
    if path is None:
        raise SystemExit(ADVICE)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield launched
        launched.close()


def opened(browser: Browser) -> Page:
    """A page of a browser profile of its own."""
    page = browser.new_context(viewport={"width": 1440, "height": 1000}).new_page()
    page.set_default_timeout(120_000)
    return page


def paint(server: Server, browser: Browser, *, n_presses: int) -> None:
    """Press to painted, of both desks."""
    page = opened(browser)
    began = time.perf_counter()
    review_keys.sit_down(page, server, name="Painter")
    print(f"  first pair on screen after {time.perf_counter() - began:.1f} s (page load and name)")
    for _ in range(n_presses):
        page.keyboard.press("a")
        page.wait_for_timeout(250)
    print(f"  fast desk     {quantiles(painted_ms(review_keys.taken(page)))}")
    page.context.close()
    page = opened(browser)
    page.goto(f"{server.url}/review?plain=1&order=oldest+first")
    page.get_by_label("Your name").fill("Plain painter")
    page.get_by_role("button", name="Start reviewing").click()
    page.get_by_role("button", name="✓ Accept").wait_for()
    page.evaluate(_PLAIN_CLOCK)
    for done in range(1, n_presses + 1):
        page.keyboard.press("a")
        page.wait_for_function(f"window.painted.length >= {done}")
        page.wait_for_timeout(250)
    print(f"  plain buttons {quantiles(page.evaluate('window.painted'))}")
    page.context.close()


def fast(home: Path, browser: Browser) -> None:
    """200 presses at 30 ms, against the disk."""
    server = start_server(home)
    page = opened(browser)
    name = f"Fast {time.time():.0f}"  # the store may be one of an earlier run
    review_keys.sit_down(page, server, name=name, query="?order=random&seed=99")
    page.evaluate(review_keys.RECORDER)
    review_keys.press_many(page, "ax" * 100, every_seconds=0.03)
    page.wait_for_selector(review_keys.SAVED)
    page.wait_for_timeout(1000)
    presses, drawn = review_keys.taken(page), review_keys.drawn(page)
    page.context.close()
    counted = [one for one in presses if one["counted"]]
    held = sum(one["taken_at"] - one["at"] > LATE_MS for one in counted)
    meant = [(on_screen["pair"], one["action"]) for one, on_screen in drawn]
    stored = [(row["pair_id"], row["verdict"]) for row in review_keys.stored(server) if row["reviewer"] == name]
    print(
        f"  {len(presses)} presses · {len(counted)} counted, {held} of them {LATE_MS} ms late or more since their pair "
        "was not painted before · "
        f"{len(stored)} stored, {'each' if stored == meant else 'NOT each'} in its order and on the pair that was on "
        f"screen · {len(stored) - len({pair for pair, _ in stored})} pairs twice"
    )
    in_order = sorted(presses, key=lambda one: one["at"])
    for before, one in pairwise(in_order):
        if not one["counted"]:
            print(f"  did not count: {one['at'] - before['at']:.0f} ms after the press before it, on {one['pair_id']}")
    print(f"  press to painted {quantiles(painted_ms(counted))}")


def browsers(server: Server, browser: Browser, *, n_pages: int, think_seconds: float, seconds: float) -> None:
    """Real pages that press a key each ``think_seconds``."""
    pages = [opened(browser) for _ in range(n_pages)]
    for number, page in enumerate(pages):
        review_keys.sit_down(page, server, name=f"Browser {number}", query=f"?order=random&seed={number + 1}")
        page.evaluate("performance.clearResourceTimings(); performance.setResourceTimingBufferSize(5000)")
    until, step = time.monotonic() + seconds, think_seconds / n_pages
    turn = 0
    while time.monotonic() < until:
        pages[turn % n_pages].keyboard.press("a" if turn % 3 else "x")
        turn += 1
        time.sleep(step)
    for page in pages:
        page.wait_for_selector(review_keys.SAVED)
    answers = [ms for page in pages for ms in page.evaluate(_ANSWERS)]
    painted = [ms for page in pages for ms in painted_ms(review_keys.taken(page))]
    print(f"  {n_pages} browser pages, {turn} presses: answers {quantiles(answers)}")
    print(f"  {n_pages} browser pages, press to painted {quantiles(painted)}")
    for page in pages:
        page.context.close()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument("--decided", type=int, default=4_000)
    parser.add_argument("--sessions", default="1,5,20", help="numbers of simulated reviewers, with commas")
    parser.add_argument("--think", type=float, default=2.0, help="seconds between two decisions of one reviewer")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each run of part load and browsers")
    parser.add_argument("--browsers", type=int, default=3)
    parser.add_argument("--presses", type=int, default=60)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--home", type=Path)
    return parser.parse_args()


def measure(home: Path, options: argparse.Namespace) -> None:
    """All parts that were asked for, over one store."""
    parts: set[str] = set(options.parts.split(","))
    began = time.perf_counter()
    review_store.make(home, n_pairs=options.pairs, n_decided=options.decided)
    print(f"{options.pairs:,} pairs, {options.decided:,} decided, made in {time.perf_counter() - began:.0f} s; "
          f"load of the machine {os.getloadavg()[0]:.1f}")  # fmt: skip
    if parts & {"paint", "browsers", "fast"}:
        with chromium() as browser:
            if "paint" in parts:
                print("press to painted, one reviewer")
                with serving(home) as server:
                    paint(server, browser, n_presses=options.presses)
            if "fast" in parts:
                print("200 presses at 30 ms")
                fast(home, browser)
            if "browsers" in parts:
                print(f"real browsers, {options.think:g} s think time")
                with serving(home) as server:
                    browsers(
                        server, browser, n_pages=options.browsers, think_seconds=options.think, seconds=options.seconds
                    )
    if "load" in parts:
        print(f"the server's answer, {options.think:g} s think time, over HTTP")
        with serving(home) as server:
            found: list[tuple[int, Any]] = []
            for n in map(int, options.sessions.split(",")):
                load = reviewing(server.url, home, n_sessions=n, think_seconds=options.think,
                                 seconds=options.seconds, scope=QUEUE)  # fmt: skip
                found.append((n, load))
                print(table([(n, load)]), flush=True)
                for problem in sorted(set(load.problems))[:5]:
                    print(f"      {problem}")
    if "kills" in parts:
        print("kill -9 in mid-review")
        kills = kill_rounds(home, n_kills=options.kills)
        print(f"  {kills.said()}")
        for wrong in kills.wrong[:10]:
            print(f"      {wrong}")


def main() -> None:
    options = _options()
    if options.home:
        options.home.mkdir(parents=True, exist_ok=True)
        measure(options.home, options)
        return
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), options)


if __name__ == "__main__":
    main()
