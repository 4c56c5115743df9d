"""Simulated reviewers over HTTP: tabs that think, decide and send their log, as many as asked for."""

from __future__ import annotations

import http.client
import json
import random
import statistics
import threading
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.pages.review_tab import Send, Tab, token

LEAST_AHEAD, MOST_AHEAD = 31, 40


def http_send(url: str, *, timeout_seconds: float = 60.0) -> Send:
    """Posts JSON over one connection that is kept. Raises OSError or HTTPException where nobody answers."""
    at = urllib.parse.urlsplit(url)
    kept: list[http.client.HTTPConnection] = []

    def post(path: str, content: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        if kept:  # the server closes what was idle for seconds; a browser then opens another one by itself
            try:
                return once(path, content)
            except (BrokenPipeError, http.client.RemoteDisconnected, ConnectionResetError):
                pass
        return once(path, content)

    def once(path: str, content: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        if not kept:
            kept.append(http.client.HTTPConnection(at.hostname or "", at.port, timeout=timeout_seconds))
        try:
            kept[0].request("POST", path, json.dumps(content), {"Content-Type": "application/json"})
            answer = kept[0].getresponse()
            return answer.status, json.loads(answer.read())
        except (OSError, http.client.HTTPException):
            kept.pop().close()
            raise

    return post


@dataclass
class Load:
    """What the reviewers met: seconds of each answer, and what did not go well, in words."""

    seconds: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    n_decisions: int = 0

    def quantile(self, share: float) -> float:
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")

    def said(self) -> str:
        """One line of figures."""
        if not self.seconds:
            return "no answer"
        return (
            f"p50 {1000 * statistics.median(self.seconds):.0f} ms · p95 {1000 * self.quantile(0.95):.0f} ms · "
            f"max {1000 * max(self.seconds):.0f} ms · {len(self.seconds):,} answers · {self.n_decisions:,} decisions · "
            f"{len(self.problems)} problems"
        )


def _review(tab: Tab, load: Load, *, until: float, think_seconds: float, choice: random.Random) -> None:
    time.sleep(choice.uniform(0, think_seconds))
    while True:
        asleep = choice.uniform(0.5, 1.5) * think_seconds
        if time.monotonic() + asleep >= until:  # not all at one moment at the end, which is no think time
            return
        time.sleep(asleep)
        tab.enter("decide", verdict=choice.choice(("accept", "accept", "reject")))
        ahead = len(tab.held)
        began = time.perf_counter()
        try:
            tab.sync(want=MOST_AHEAD - ahead if ahead < LEAST_AHEAD else 0)
        except (AssertionError, OSError, http.client.HTTPException) as error:
            load.problems.append(str(error)[:200])
            continue
        load.seconds.append(time.perf_counter() - began)
        load.n_decisions += 1
        load.problems += [one["text"] for one in tab.results.values() if one["kind"] == "error"]
        tab.results.clear()
        if not tab.held:
            load.problems.append("no pair is left on a desk")
            return


def reviewing(
    url: str, home: Path, *, n_sessions: int, think_seconds: float, seconds: float, scope: Mapping[str, Any]
) -> Load:
    """``n_sessions`` people review for so long; each has a queue of its own order, so that they seldom meet."""
    load = Load()
    tabs = []
    for number in range(n_sessions):
        params = {**scope["params"], "order": "random", "seed": str(number + 1)}
        tab = Tab(http_send(url), token(home, f"load {number}"), scope={"kind": "filter", "params": params})
        tab.sync(want=MOST_AHEAD)
        tabs.append(tab)
    until = time.monotonic() + seconds
    threads = [
        threading.Thread(
            target=_review, args=(tab, load),
            kwargs={"until": until, "think_seconds": think_seconds, "choice": random.Random(number)},
        )
        for number, tab in enumerate(tabs)
    ]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return load


def table(found: Sequence[tuple[int, Load]]) -> str:
    """Figures by number of sessions."""
    return "\n".join(f"  {n:>3} sessions: {load.said()}" for n, load in found)
