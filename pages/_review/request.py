"""What a tab of the review desk asks at once, read from JSON that nobody vouches for. No Streamlit here."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from core.errors import AssayError
from core.example import Example

MOST_ENTRIES, MOST_WANTED, MOST_HELD, MOST_APPLIED = 50, 60, 200, 100
MAX_SECONDS = 24 * 3600.0
LONGEST_VERDICT = 40
_TEXTS = ("instruction", "input", "output")
_NAME = re.compile(r"[0-9a-f]{16,64}\Z")
_ACTIONS = ("decide", "flag", "unflag", "undo", "apply")
AGAIN = ("skipped", "passed", "reload")


def _well_formed(typed: str) -> str:
    """What was typed without lone surrogates, which JSON can carry and no file can hold."""
    return typed.encode("utf-8", "replace").decode("utf-8")


def _texts(sent: Any) -> dict[str, str] | None:
    if not isinstance(sent, Mapping) or not all(isinstance(sent.get(name), str) for name in _TEXTS):
        return None
    return {name: _well_formed(sent[name]) for name in _TEXTS}


class _MisshapenError(AssayError):
    def __init__(self, what: str) -> None:
        super().__init__(f"The request cannot be read: {what}. Nothing was stored; reload the page.")


@dataclass(frozen=True)
class LogEntry:
    """One entry of a log as the browser sent it; ``pair_id`` is the pair that was on screen."""

    n: int
    action: str
    pair_id: int | None
    verdict: str = ""
    note: str = ""
    seconds: float | None = None
    edited: Example | None = None
    seen: int | None = None
    undoes: int | None = None
    pair_ids: tuple[int, ...] = ()

    @classmethod
    def read(cls, sent: Any) -> LogEntry:
        """Read one entry.

        Raises:
            AssayError: it is not of its form.
        """
        if not isinstance(sent, Mapping) or not _is_id(sent.get("n")) or sent.get("action") not in _ACTIONS:
            raise _MisshapenError("an entry has no number or no action")
        edited, seconds, pair_ids = sent.get("edited"), sent.get("seconds"), sent.get("pair_ids") or ()
        texts = _texts(edited)
        if edited is not None and texts is None:
            raise _MisshapenError(f"the edit of entry {sent['n']} is not whole")
        if any(sent.get(name) is not None and not _is_id(sent[name]) for name in ("pair_id", "seen", "undoes")):
            raise _MisshapenError(f"entry {sent['n']} names something that is no number")
        if not isinstance(pair_ids, list | tuple) or len(pair_ids) > MOST_APPLIED or not all(map(_is_id, pair_ids)):
            raise _MisshapenError(f"the pairs of entry {sent['n']}")
        return cls(
            n=sent["n"],
            action=sent["action"],
            pair_id=sent.get("pair_id"),
            verdict=_well_formed(str(sent.get("verdict") or ""))[:LONGEST_VERDICT],
            note=_well_formed(str(sent.get("note") or ""))[:20_000],
            seconds=_seconds(seconds),
            edited=None if texts is None else Example(**texts),
            seen=sent.get("seen"),
            undoes=sent.get("undoes"),
            pair_ids=tuple(pair_ids),
        )


def _seconds(sent: Any) -> float | None:
    """Python's JSON also reads NaN, which would stay in every mean and median from then on."""
    if not isinstance(sent, int | float) or (isinstance(sent, float) and math.isnan(sent)):
        return None
    return float(min(max(sent, 0), MAX_SECONDS))


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62


@dataclass(frozen=True)
class Request:
    """What a tab asks at once: entries to store, drafts and preferences to keep, pairs to be given."""

    desk: str
    log: str
    scope: Mapping[str, Any]
    entries: tuple[LogEntry, ...] = ()
    drafts: Mapping[int, Mapping[str, str] | None] = field(default_factory=dict)
    preferences: Mapping[str, Any] = field(default_factory=dict)
    holding: tuple[int, ...] = ()
    on_screen: int | None = None
    want: int = 0
    again: str | None = None

    @classmethod
    def read(cls, sent: Any) -> Request:
        """Read a request.

        Raises:
            AssayError: it is not of its form; nothing of it may be carried out.
        """
        if not isinstance(sent, Mapping):
            raise _MisshapenError("it is no object")
        names = [sent.get(name) for name in ("desk", "log")]
        if not all(isinstance(name, str) and _NAME.match(name) for name in names):
            raise _MisshapenError("desk or log has no name")
        entries, holding, want = sent.get("entries") or [], sent.get("holding") or [], sent.get("want") or 0
        if not isinstance(entries, list) or len(entries) > MOST_ENTRIES:
            raise _MisshapenError(f"more than {MOST_ENTRIES} entries")
        if not isinstance(holding, list) or len(holding) > MOST_HELD or not all(map(_is_id, holding)):
            raise _MisshapenError("what it holds")
        on_screen, again = sent.get("on_screen"), sent.get("again")
        if not _is_id(want) or (on_screen is not None and not _is_id(on_screen)) or again not in (None, *AGAIN):
            raise _MisshapenError("what it wants")
        read = tuple(LogEntry.read(one) for one in entries)
        if any(after.n <= before.n for before, after in pairwise(read)):
            raise _MisshapenError("its entries are out of order")
        scope, preferred = sent.get("scope"), sent.get("preferences") or {}
        if not isinstance(scope, Mapping) or not isinstance(preferred, Mapping) or len(preferred) > 20:
            raise _MisshapenError("its scope or preferences")
        return cls(
            desk=str(names[0]), log=str(names[1]), scope=scope, entries=read, drafts=_drafts(sent.get("drafts") or []),
            preferences={str(name): value for name, value in preferred.items()}, holding=tuple(holding),
            on_screen=on_screen, want=min(want, MOST_WANTED), again=again,
        )  # fmt: skip


def _drafts(sent: Any) -> dict[int, dict[str, str] | None]:
    found: dict[int, dict[str, str] | None] = {}
    if not isinstance(sent, list) or len(sent) > MOST_ENTRIES:
        raise _MisshapenError("its drafts")
    for one in sent:
        if not isinstance(one, Mapping) or not _is_id(one.get("pair_id")):
            raise _MisshapenError("a draft names no pair")
        texts = _texts(one.get("texts"))
        if one.get("texts") is not None and texts is None:
            raise _MisshapenError(f"the draft of pair {one['pair_id']} is not whole")
        found[one["pair_id"]] = texts
    return found
