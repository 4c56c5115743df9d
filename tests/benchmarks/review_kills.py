"""The server is killed with kill -9 in mid-review, again and again: what was acknowledged must be there, once."""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from db.store import Store, rows
from tests.benchmarks.review_load import http_send
from tests.browser.conftest import Server, free_port, start_server
from tests.pages.review_tab import Tab, token

Start = Callable[..., Server]
_SCOPE = {"kind": "filter", "params": {"order": "random", "seed": "1"}}


@dataclass
class Kills:
    """What became of the entries of all logs. ``wrong`` names each that broke a promise; it must be empty."""

    n_kills: int = 0
    n_entries: int = 0
    n_acknowledged: int = 0
    n_acknowledged_only_later: int = 0
    wrong: list[str] = field(default_factory=list)

    def said(self) -> str:
        """One line of figures."""
        return (
            f"{self.n_kills} kills · {self.n_acknowledged:,} of {self.n_entries:,} entries acknowledged, "
            f"{self.n_acknowledged_only_later:,} of them by a later server · {len(self.wrong)} wrong"
        )


@dataclass
class _Reviewer:
    """One tab that decides as fast as it can, and remembers what it entered and what was acknowledged."""

    tab: Tab
    choice: random.Random
    entered: dict[int, dict[str, Any]] = field(default_factory=dict)
    acked: set[int] = field(default_factory=set)
    lost_connection: set[int] = field(default_factory=set)
    n_later: int = 0

    def review(self, stop: threading.Event) -> None:
        while not stop.is_set():
            for _ in range(self.choice.randint(0, 4)):
                if not self.tab.held or len(self.tab.unsent) > 40:
                    break
                self._enter()
            if not self._sync():
                return
            time.sleep(self.choice.uniform(0, 0.02))

    def _enter(self) -> None:
        done = [n for n, one in self.entered.items() if one["action"] == "decide"]
        if done and self.choice.random() < 0.1:
            n = self.choice.choice(done[-5:])
            entry = self.tab.enter("undo", pair_id=self.entered[n]["pair_id"], undoes=n)
        else:
            texts = {"instruction": f"Edited {self.choice.random()}", "input": "", "output": "By hand."}
            verdict = self.choice.choice(("accept", "reject", "new_response", "edit", "skip"))
            entry = self.tab.enter("decide", verdict=verdict, edited=texts if verdict == "edit" else None)
        self.entered[entry["n"]] = entry

    def _sync(self) -> bool:
        waiting = {one["n"] for one in self.tab.unsent[:50]}
        try:
            self.tab.sync(want=12 if len(self.tab.held) < 6 else 0)
        except (AssertionError, OSError, http.client.HTTPException, ValueError):
            self.lost_connection |= waiting
            return False
        now = waiting - {one["n"] for one in self.tab.unsent}
        self.acked |= now
        self.n_later += len(now & self.lost_connection)
        return True


def kill_rounds(home: Path, *, n_kills: int, n_tabs: int = 3, seed: int = 0, start: Start = start_server) -> Kills:
    """Kill the server of ``home`` so often while ``n_tabs`` people review, each going on with the next server."""
    choice = random.Random(seed)
    port = free_port()
    reviewers: list[_Reviewer] = []
    found = Kills(n_kills=n_kills)
    for number in range(n_kills + 1):
        server = start(home, port=port)
        if not reviewers:
            reviewers = [
                _Reviewer(Tab(http_send(server.url), token(home, f"killed {n}"), scope=_SCOPE), random.Random(seed + n))
                for n in range(n_tabs)
            ]
        stop = threading.Event()
        threads = [threading.Thread(target=one.review, args=(stop,)) for one in reviewers]
        for thread in threads:
            thread.start()
        _wait_for_answers(reviewers, choice.randint(3, 40))
        time.sleep(choice.uniform(0, 0.05))
        if number < n_kills:
            server.kill()
        stop.set()
        for thread in threads:
            thread.join()
    for one in reviewers:  # the last server lives: all that is still unsent goes to it
        one._sync()
    server.kill()
    _compare(home, reviewers, found)
    return found


def _wait_for_answers(reviewers: list[_Reviewer], n: int) -> None:
    """Until ``n`` more entries were acknowledged: a slow machine gets its time, a fast one is killed early."""
    goal, deadline = sum(len(one.acked) for one in reviewers) + n, time.monotonic() + 30
    while sum(len(one.acked) for one in reviewers) < goal and time.monotonic() < deadline:
        time.sleep(0.002)


def _compare(home: Path, reviewers: list[_Reviewer], found: Kills) -> None:
    store = Store(home / "assay.duckdb")
    try:
        with store.read() as connection:
            kept = rows(connection, "select * from decisions where reviewer like 'killed %' order by decision_id")
    finally:
        store.close()
    by_press: dict[str, list[dict[str, Any]]] = {}
    for row in kept:
        by_press.setdefault(row["press"], []).append(row)
    for one in reviewers:
        found.n_entries += len(one.entered)
        found.n_acknowledged += len(one.acked)
        found.n_acknowledged_only_later += one.n_later
        for n, entry in one.entered.items():
            stored = by_press.pop(f"{one.tab.log}:{n}", [])
            result = one.tab.results.get(n)
            if len(stored) > 1:
                found.wrong.append(f"{n} is stored {len(stored)} times")
            if n in one.acked and not stored and (result is None or result["kind"] == "ok"):
                found.wrong.append(f"{n} was acknowledged and is not there")
            for row in stored:
                verdict = "undo" if entry["action"] == "undo" else entry["verdict"]
                if (row["pair_id"], row["verdict"]) != (entry["pair_id"], verdict):
                    found.wrong.append(f"{n} was {entry} and is stored as {row['verdict']} on {row['pair_id']}")
    found.wrong += [f"{press} is stored and was never entered" for press in by_press]
