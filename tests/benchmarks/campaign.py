"""Fifteen people on one campaign over HTTP: exactly the overlap is collected, and how fast the server answers.

    python -m tests.benchmarks.campaign FOLDER [--stored 100000] [--pairs 600] [--people 15] [--overlap 2]
        [--think 0.2] [--kills 2]

A real server over a store with ``--stored`` pairs (a fifth of them decided earlier) runs in FOLDER. Each person sits in
a tab of their own that speaks the protocol of the review component: decides after about ``--think`` seconds, takes a
decision back now and then, closes the tab without a word and opens another. ``--kills`` times the server is ended by
kill -9 and started again meanwhile. At the end the store is opened and counted.
"""

from __future__ import annotations

import argparse
import http.client
import random
import statistics
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from db import campaigns
from db.store import Store
from tests.benchmarks.review_load import http_send
from tests.benchmarks.review_store import make
from tests.browser.conftest import Server, free_port, start_server
from tests.db.campaign_pairs import counted
from tests.pages.review_tab import Tab, token

PEOPLE = "person {}"
LEASE_SECONDS = 15
PATIENCE_SECONDS = 900


@dataclass
class Tally:
    """What all people met."""

    seconds: list[float] = field(default_factory=list)
    n_entries: int = 0
    n_tabs: int = 0
    n_unanswered: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    acked: dict[str, int] = field(default_factory=dict)


@dataclass
class Person:
    """One reviewer, until the campaign has nothing left for them."""

    name: str
    url: str
    home: Path
    campaign_id: int
    think_seconds: float
    tally: Tally

    def run(self) -> None:
        choice = random.Random(self.name)
        until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until:
            tab = Tab(
                http_send(self.url), token(self.home, self.name), scope={"kind": "campaign", "id": self.campaign_id}
            )
            self.tally.n_tabs += 1
            if self.sit(tab, choice, until):
                return
        self.tally.problems.append(f"{self.name} was not done in {PATIENCE_SECONDS} s")

    def sit(self, tab: Tab, choice: random.Random, until: float) -> bool:
        """Whether nothing is left; False when the tab was closed, with its unsent entries sent first."""
        n_decided = 0
        while time.monotonic() < until:
            answer = self.sync(tab)
            if answer is not None and not tab.held and answer.get("end"):
                return True
            time.sleep(choice.uniform(0.5, 1.5) * self.think_seconds)
            if tab.held:
                tab.enter("decide", verdict=choice.choice(("accept", "accept", "reject")))
                n_decided = tab.n
            if n_decided and choice.random() < 0.05:
                tab.enter("undo", pair_id=None, undoes=n_decided)
                n_decided = 0
            if not tab.unsent and choice.random() < 0.02:
                return False
        return True

    def sync(self, tab: Tab) -> dict | None:
        sent, began = len(tab.unsent), time.perf_counter()
        try:
            answer = tab.sync(want=12 - len(tab.held) if len(tab.held) < 6 else 0)
        except (OSError, http.client.HTTPException):
            self.tally.n_unanswered += 1
            time.sleep(0.3)
            return None
        except AssertionError as error:
            if not str(error).startswith("(503"):
                self.tally.problems.append(str(error)[:200])
            return None
        self.tally.seconds.append(time.perf_counter() - began)
        self.tally.n_entries += sent - len(tab.unsent)
        for n, one in tab.results.items():
            self.tally.kinds[one["kind"]] += 1
            if one["kind"] == "error":
                self.tally.problems.append(one["text"])
            elif one["decision_id"] is not None:
                self.tally.acked[f"{tab.log}:{n}"] = one["decision_id"]
        tab.results.clear()
        return answer


def _kill(server: Server, home: Path, port: int) -> Server:
    server.kill()
    return start_server(home, port=port)


def run(home: Path, *, stored: int, pairs: int, people: int, overlap: int, think: float, kills: int) -> str:
    """The figures in words; raises AssertionError where anything was collected twice, too often, or lost."""
    make(home, n_pairs=stored, n_decided=stored // 5)
    names = [PEOPLE.format(i) for i in range(people)]
    store = Store(home / "assay.duckdb")
    chosen = [1 + i * (stored // pairs) for i in range(pairs)]
    campaign_id = campaigns.create(
        store, name=f"benchmark {time.time()}", pair_ids=chosen, people=names, overlap=overlap,
        lease_seconds=LEASE_SECONDS,
    )  # fmt: skip
    store.close()
    token(home, names[0])  # the key is made before several ask for it at once
    port, tally = free_port(), Tally()
    server = start_server(home, port=port)
    began = time.monotonic()
    threads = [threading.Thread(target=Person(name, server.url, home, campaign_id, think, tally).run) for name in names]
    try:
        for thread in threads:
            thread.start()
        for _ in range(kills):
            time.sleep(random.Random(kills).uniform(4, 10))
            server = _kill(server, home, port)
        for thread in threads:
            thread.join()
    finally:
        server.kill()
    took = time.monotonic() - began
    found, presses = _count(home, campaign_id)
    wrong = {pair: who for pair, who in found.items() if len(who) != overlap or len(set(who)) != overlap}
    lost = [press for press, decision_id in tally.acked.items() if presses.get(press) != decision_id]
    assert not wrong, f"{len(wrong)} pairs have not {overlap} people: {list(wrong.items())[:3]}"
    assert len(found) == pairs, f"{pairs - len(found)} pairs have no decision"
    assert not lost, f"{len(lost)} acknowledged entries are not in the store: {lost[:3]}"
    ordered = sorted(tally.seconds)
    return (
        f"{people} people, {pairs} pairs x {overlap}, {stored:,} pairs stored, think {think} s, {kills} kill -9\n"
        f"  every pair has exactly {overlap} decisions of different people; {len(tally.acked):,} acknowledged entries, "
        f"none lost, none twice\n"
        f"  answers: {len(ordered):,} in {took:.0f} s; p50 {1000 * statistics.median(ordered):.0f} ms, "
        f"p95 {1000 * ordered[int(0.95 * len(ordered))]:.0f} ms, max {1000 * ordered[-1]:.0f} ms\n"
        f"  results: {dict(tally.kinds)}; {tally.n_tabs} tabs; {tally.n_unanswered} requests met no server; "
        f"problems: {tally.problems[:5] or 'none'}"
    )


def _count(home: Path, campaign_id: int) -> tuple[dict[int, list[str]], dict[str, int]]:
    store = Store(home / "assay.duckdb")
    try:
        with store.read() as connection:
            presses = connection.exec_driver_sql("select press, decision_id from decisions").all()
        return counted(store, campaign_id), {press: int(decision_id) for press, decision_id in presses}
    finally:
        store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("home", type=Path)
    for name, usual in (("stored", 100_000), ("pairs", 600), ("people", 15), ("overlap", 2), ("kills", 2)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    parser.add_argument("--think", type=float, default=0.2)
    options = vars(parser.parse_args())
    print(run(options.pop("home"), **options))


if __name__ == "__main__":
    main()
