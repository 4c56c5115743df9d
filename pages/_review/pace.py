"""The numbers above a pair: what is decided of all, and one person's pace. Kept in memory, since a count over all
decisions is far too slow for every press. No Streamlit here."""

from __future__ import annotations

import json
import logging
import statistics
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any

from core.errors import AssayError
from db import review
from db.service import Service
from db.store import Store, utc_now

if TYPE_CHECKING:
    from pages._review.scopes import Scope

SECONDS_OLD, COST_FACTOR = 5.0, 40.0
"""Counts are counted again when they are this old, or this many times as old as counting took."""
MOST_KEPT, MOST_PEOPLE = 64, 1000

log = logging.getLogger("assay")


@dataclass
class Own:
    """One person's decisions today, and how long the last fifty took."""

    n_today: int
    seconds: deque[float]
    day: date

    @classmethod
    def read(cls, store: Store, identity: str) -> Own:
        """As the store has it now."""
        found = review.own_pace(store, identity)
        return cls(found["n_today"], deque(reversed(found["seconds"]), maxlen=50), utc_now().date())

    def count(self, n: int, seconds: float | None = None) -> None:
        """``n`` more decisions (one fewer, where one was taken back)."""
        if utc_now().date() != self.day:
            self.n_today, self.day = 0, utc_now().date()
        self.n_today = max(0, self.n_today + n)
        if seconds is not None:
            self.seconds.append(seconds)

    def numbers(self) -> dict[str, Any]:
        """``n_today`` and ``median_seconds``, as :func:`pages._review.view.pace_view` takes them."""
        seconds: Sequence[float] = tuple(self.seconds)
        return {"n_today": self.n_today, "median_seconds": statistics.median(seconds) if seconds else None}


@dataclass
class _Kept:
    counts: dict[str, Any] = field(default_factory=dict)
    counted_at: float = 0.0
    took: float = 0.0
    since: int = 0
    busy: bool = False
    counting: threading.Lock = field(default_factory=threading.Lock)


class Pace:
    """Counts of scopes, counted again in a thread of their own while the old ones are shown."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], _Kept] = {}
        self._own: dict[tuple[str, str], Own] = {}
        self._lock = threading.Lock()

    def counts(self, service: Service, scope: Scope, *, exact: bool = False) -> dict[str, Any]:
        """``n_pairs``, ``n_decided`` of the scope, some seconds old at most, with what was decided here since.

        ``exact``: as they are now, for who waits at the end of a queue and asks no more.
        """
        key = (str(service.store.path), json.dumps(scope.count_key))
        with self._lock:
            kept = self._kept.get(key)
            if kept is None:
                if len(self._kept) >= MOST_KEPT:
                    del self._kept[next(iter(self._kept))]
                kept = self._kept[key] = _Kept()
            old = time.monotonic() - kept.counted_at > max(SECONDS_OLD, COST_FACTOR * kept.took)
            due = old and not kept.busy and not exact
            kept.busy = kept.busy or due
            wait = exact or not kept.counts
        if wait:
            self._count(service, scope, kept)
        elif due:
            threading.Thread(target=self._count, args=(service, scope, kept), daemon=True).start()
        return {**kept.counts, "n_decided": min(kept.counts["n_pairs"], kept.counts["n_decided"] + kept.since)}

    def _count(self, service: Service, scope: Scope, kept: _Kept) -> None:
        with kept.counting:  # two counts at a time would both take off what was decided since
            self._count_now(service, scope, kept)

    def _count_now(self, service: Service, scope: Scope, kept: _Kept) -> None:
        began, since = time.monotonic(), kept.since
        try:
            counts = scope.counts(service)
        except AssayError as error:  # the store is being closed: the numbers of a bar are not worth a word to people
            log.info("Counts of a review were not renewed: %s", error)
            counts = kept.counts or {"n_pairs": 0, "n_decided": 0}
        with self._lock:
            kept.counts, kept.counted_at, kept.took = counts, time.monotonic(), time.monotonic() - began
            kept.since, kept.busy = kept.since - since, False

    def own(self, store: Store, identity: str) -> Own | None:
        """One person's pace, of all their desks; None where no desk has read it yet."""
        return self._own.get((str(store.path), identity))

    def read_own(self, store: Store, identity: str) -> Own:
        """The same, as the store has it now: what was taken back elsewhere is seen when a desk is opened."""
        found = Own.read(store, identity)
        with self._lock:
            kept = self._own.setdefault((str(store.path), identity), found)
            if kept is not found:
                kept.n_today, kept.seconds, kept.day = found.n_today, found.seconds, found.day
            while len(self._own) > MOST_PEOPLE:
                del self._own[next(iter(self._own))]
        return kept

    def decided(self, service: Service, scope: Scope, n: int) -> None:
        """``n`` more pairs of the scope are decided (-1: one fewer)."""
        with self._lock:
            kept = self._kept.get((str(service.store.path), json.dumps(scope.count_key)))
            if kept is not None:
                kept.since += n


PACE = Pace()
