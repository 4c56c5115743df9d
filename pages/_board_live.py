"""The slides as of now: rebuilt only when the numbers they stand on have changed, and once for all who look.

Viewers ask each second; what they are told is a version, made of a few counts that are read once a second.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field

from core.report import Slide
from db import board_numbers
from db.service import Service
from db.store import Store
from pages._board_slides import BY_KEY, KINDS, Kind

MARK_SECONDS = 1.0
LEAST_SECONDS = 3.0
"""A slide that was just drawn rests so long: each redraw costs the server a page run for everybody who looks."""
SHARE_OF_TIME = 0.05
"""Of one core, at most, a slide may take to be rebuilt while its numbers keep changing."""

Mark = dict[str, int]


@dataclass
class _Built:
    """A slide with the version it was built at, how long that took, and when."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    version: str = ""
    slide: Slide | None = None
    seconds: float = 0.0
    at: float = 0.0


@dataclass
class _Remembered:
    lock: threading.Lock = field(default_factory=threading.Lock)
    mark: Mark = field(default_factory=dict)
    marked_at: float = -1e9
    built: dict[str, _Built] = field(default_factory=lambda: {kind.key: _Built() for kind in KINDS})


_REMEMBERED: weakref.WeakKeyDictionary[Store, _Remembered] = weakref.WeakKeyDictionary()
_LOCK = threading.Lock()


def _remembered(store: Store) -> _Remembered:
    with _LOCK:
        return _REMEMBERED.setdefault(store, _Remembered())


def mark(service: Service) -> Mark:
    """The counts that say what changed, read once a second for all who look."""
    kept = _remembered(service.store)
    with kept.lock:
        if time.monotonic() - kept.marked_at > MARK_SECONDS:
            found = board_numbers.mark(service.store)
            statuses = service.scheduler.statuses()
            live = [(s.job_id, s.state, s.done_rows) for s in statuses.values()]
            kept.mark = {
                **found,
                "jobs": max(found["jobs"], len(live)),
                "live": hash(tuple(sorted(live))),
                "minute": int(time.time() // 60),
            }
            kept.marked_at = time.monotonic()
        return kept.mark


def present(service: Service) -> list[Kind]:
    """The slides that have something to show; all of them where none has."""
    found = mark(service)
    return [kind for kind in KINDS if found.get(kind.needs)] or list(KINDS)


def version(service: Service, key: str) -> str:
    """What a slide would be built at now; changes when it is worth a redraw.

    While numbers keep changing, a slide that takes long to build is rebuilt the more seldom for it.
    """
    kind, kept = BY_KEY[key], _remembered(service.store).built[key]
    found = mark(service)
    now = "-".join(str(found.get(part, 0)) for part in kind.parts)
    resting = time.monotonic() - kept.at < max(LEAST_SECONDS, kept.seconds / SHARE_OF_TIME)
    return kept.version if kept.slide is not None and resting else now


def slide(service: Service, key: str) -> tuple[Slide, str]:
    """A slide as of now, with its version."""
    kind, kept = BY_KEY[key], _remembered(service.store).built[key]
    wanted = version(service, key)
    with kept.lock:
        if kept.slide is None or kept.version != wanted:
            started = time.monotonic()
            if mark(service).get(kind.needs):
                kept.slide = kind.build(service)
            else:
                kept.slide = Slide(key=key, title=kind.title, text=(), missing=kind.missing)
            kept.version, kept.at = wanted, time.monotonic()
            kept.seconds = kept.at - started
        return kept.slide, kept.version


def all_slides(service: Service) -> Sequence[Slide]:
    """Every slide, for the report."""
    return [slide(service, kind.key)[0] for kind in KINDS]
