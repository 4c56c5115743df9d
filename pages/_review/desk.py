"""Desks: what lies before one reviewer in one tab, and what a request of that tab does to the store. No Streamlit here.

Three rules hold whatever the browser sends: an entry is answered only when it is on the disk; it counts for the pair it
names, which is the pair that was on screen; and the same entry sent twice is stored once (its name is ``log:n``).

Desks live in memory only. One that is not known (the server was restarted, it lay idle) is built again from its scope
and from the pairs that its browser still holds.
"""

from __future__ import annotations

import logging
import math
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from core.errors import AssayError, StoreError
from core.example import Example
from db import blind, decisions, drafts, permission, preferences, queries, review
from db.decisions import Applied, Entry
from db.permission import Actor
from db.schema import VERDICTS_DECIDED
from db.service import Service
from pages._review import kinds, view
from pages._review.pace import PACE, Own
from pages._review.scopes import Line, Scope

MOST_ENTRIES, MOST_WANTED, MOST_HELD, MOST_APPLIED = 50, 60, 200, 100
MOST_DESKS, IDLE_SECONDS = 400, 4 * 3600.0
MAX_SECONDS = 24 * 3600.0
LONGEST_VERDICT = 40
MOST_REMEMBERED = 3000
_TEXTS = ("instruction", "input", "output")
_NAME = re.compile(r"[0-9a-f]{16,64}\Z")
_ACTIONS = ("decide", "flag", "unflag", "undo", "apply")
AGAIN = ("skipped", "passed", "reload")

log = logging.getLogger("assay")


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


class Desk:
    """The desk of one person in one tab."""

    def __init__(self, service: Service, actor: Actor, scope: Scope, *, key: str) -> None:
        self.service, self.identity, self.scope, self.key = service, actor.identity, scope, key
        self.lock = threading.Lock()
        self.used_at = time.monotonic()
        self._line: Line | None = None
        self._decided: set[int] = set()
        self._skipped: dict[int, None] = {}
        self._served: dict[int, None] = {}
        self._shown: OrderedDict[int, dict[str, Any]] = OrderedDict()
        self._own: Own | None = None

    def sync(self, actor: Actor, request: Request) -> dict[str, Any]:
        """Carry out a request: what it brought is on the disk when this returns.

        Raises:
            AssayError: the store failed (what was not answered may be sent again), or the scope has ended.
            NotAllowedError: the role of who acts, or their part in a campaign, does not allow it.
        """
        with self.lock:
            self.used_at = time.monotonic()
            self._keep(request)
            results = self._store_entries(actor, request)
            if request.again is not None:
                self._line = self._start_again(actor, request.again)
                holding: tuple[int, ...] = ()
            else:
                holding = tuple(dict.fromkeys(request.holding))
            if request.want == 0 and not holding and request.again is None:
                return self._answer(results, request, pairs=[], dropped=[], line=self._line, ahead=[])
            line = self._open_line(actor, holding)
            dropped = line.lost(holding, want=request.want)
            kept = [pair_id for pair_id in holding if pair_id not in set(dropped)]
            found = line.more(request.want, holding=holding) if request.want else []
            self._served |= dict.fromkeys(found)
            pairs = self.views(found, line)
            return self._answer(results, request, pairs=pairs, dropped=dropped, line=line, ahead=[*kept, *found])

    def _keep(self, request: Request) -> None:
        drafts.save(self.service.store, self.identity, request.drafts)
        for name, value in request.preferences.items():
            try:
                preferences.save(self.service.store, self.identity, f"review.{name}", value)
            except StoreError as error:  # it would come again with each request, and hold all decisions up
                log.warning("A preference of %s was not kept: %s", self.identity, error)

    def _open_line(self, actor: Actor, holding: Sequence[int]) -> Line:
        if self._line is None:
            self._line = self.scope.line(self.service, actor, session=self.key, holding=holding, fresh=False)
            self._served |= dict.fromkeys(holding)
        return self._line

    def _start_again(self, actor: Actor, again: str) -> Line:
        passed = [i for i in self._served if i not in self._decided and i not in self._skipped]
        chosen = {"skipped": list(self._skipped), "passed": passed}.get(again, [])
        self._served, self._decided, self._skipped = {}, set(), {}
        line = self.scope.only(self.service, chosen) if chosen else None
        if line is not None:
            return line
        return self.scope.line(self.service, actor, session=self.key, holding=(), fresh=True)

    # ---- entries ----

    def _store_entries(self, actor: Actor, request: Request) -> list[dict[str, Any]]:
        if not request.entries:
            return []
        entries, of = self._expanded(request)
        applied = self.scope.apply(self.service, actor, entries, session=self.key)
        for entry, one in zip(entries, applied, strict=True):
            self._count(one, entry.seconds)
        edited = {e.pair_id: None for e, a in zip(entries, applied, strict=True) if e.edited and a.kind == "ok"}
        drafts.save(self.service.store, self.identity, {i: None for i in edited if i is not None})
        by_number: dict[int, list[Applied]] = {}
        for number, one in zip(of, applied, strict=True):
            by_number.setdefault(number, []).append(one)
        results = [self._result(entry, by_number.get(entry.n, [])) for entry in request.entries]
        wanted = {r["pair_id"] for r in results if r["pair"] and r["pair_id"] is not None}
        again = {one["pair_id"]: one for one in self.views(sorted(wanted), self._line)}
        return [{**one, "pair": again.get(one["pair_id"]) if one["pair"] else None} for one in results]

    def _expanded(self, request: Request) -> tuple[list[Entry], list[int]]:
        """Entries of the store, and of which number each is: a verdict for several pairs is several."""
        self._recall([e.pair_id for e in request.entries if e.action == "decide" and e.pair_id is not None])
        entries: list[Entry] = []
        of: list[int] = []
        several = {e.n: e.pair_ids for e in request.entries if e.action == "apply"}
        for sent in request.entries:
            press = f"{request.log}:{sent.n}"
            common: dict[str, Any] = {
                "note": sent.note, "seconds": sent.seconds, "purpose": self.scope.purpose,
                "campaign_id": self.scope.campaign_id, "check_seen": self.scope.check_seen,
            }  # fmt: skip
            if sent.action == "apply":
                made = [
                    Entry(press=f"{press}:{pair_id}", action="decide", pair_id=pair_id, verdict=sent.verdict,
                          shown={**self.scope.shown(), "near_duplicate_of": sent.pair_id}, **common)
                    for pair_id in dict.fromkeys(sent.pair_ids)
                ]  # fmt: skip
            elif sent.action == "undo" and sent.undoes is not None:
                target = f"{request.log}:{sent.undoes}"
                pairs = several.get(sent.undoes) or self._applied_to(target)
                tails = [f":{pair_id}" for pair_id in pairs] or [""]
                made = [
                    Entry(press=press + tail, action="undo", pair_id=sent.pair_id, undoes=target + tail, **common)
                    for tail in tails
                ]
            else:
                made = [
                    Entry(press=press, action=sent.action, pair_id=sent.pair_id, verdict=sent.verdict,
                          edited=sent.edited, seen=sent.seen,
                          shown=self._shown.get(sent.pair_id or 0, {}) if sent.action == "decide" else {}, **common)
                ]  # fmt: skip
            entries += made
            of += [sent.n] * len(made)
        return entries, of

    def _applied_to(self, press: str) -> list[int]:
        """The pairs of a verdict for several that was stored by an earlier request."""
        return decisions.pairs_of_press(self.service.store, press)

    def _count(self, one: Applied, seconds: float | None) -> None:
        if one.kind != "ok" or one.pair_id is None:
            return
        pair_id, deciding = one.pair_id, one.verdict in VERDICTS_DECIDED
        if one.undone is not None:
            self._decided.discard(pair_id)
            self._skipped.pop(pair_id, None)
        elif deciding:
            self._decided.add(pair_id)
            self._skipped.pop(pair_id, None)
        elif one.verdict == "skip":
            self._skipped[pair_id] = None
        if deciding and not one.known and self._own is not None:
            if one.undone is not None:
                self._own.count(-1)
            else:
                self._own.count(1, seconds)
            if not one.was_decided:
                PACE.decided(self.service, self.scope, 1 if one.undone is None else -1)

    def _result(self, entry: LogEntry, applied: Sequence[Applied]) -> dict[str, Any]:
        if len(applied) == 1:
            one = applied[0]
            back = one.kind == "error" or entry.action in ("undo", "flag", "unflag")
            return {"n": entry.n, "kind": one.kind, "text": one.text, "decision_id": one.decision_id,
                    "pair_id": one.pair_id if one.pair_id is not None else entry.pair_id,
                    "pair": back and one.pair_id is not None}  # fmt: skip
        good = [one for one in applied if one.kind != "error"]
        bad = [one for one in applied if one.kind == "error"]
        words = decisions.VERDICT_WORDS.get(good[0].verdict if good else entry.verdict, entry.verdict)
        text = f"{'Taken back: ' if entry.action == 'undo' else ''}{len(good)} near-duplicates: {words}."
        text += "".join(f" {one.text}" for one in bad[:3])
        return {"n": entry.n, "kind": "error" if bad else "ok", "text": text, "decision_id": None,
                "pair_id": entry.pair_id, "pair": entry.action == "undo"}  # fmt: skip

    # ---- what is shown ----

    def open(self, actor: Actor, *, want: int, first: int | None = None) -> dict[str, Any]:
        """The answer that a page gives its desk to begin with; the pair ``first`` lies on top."""
        with self.lock:
            line = self._open_line(actor, ())
            holding = [] if first is None else [first]
            found = [*holding, *line.more(want, holding=holding)]
            self._served |= dict.fromkeys(found)
            request = Request(desk=self.key, log="", scope=self.scope.named, on_screen=next(iter(found), None))
            return self._answer([], request, pairs=self.views(found, line), dropped=[], line=line, ahead=found)

    def leave(self, actor: Actor) -> None:
        """Nobody sits here any more: what lies on the desk goes back where others may have it."""
        with self.lock:
            if self._line is not None:
                self.scope.leave(self.service, actor, session=self.key)

    def one(self, pair_id: int) -> dict[str, Any] | None:
        """One pair as this desk shows it, or None where there is none of that number."""
        with self.lock:
            self.used_at = time.monotonic()
            return next(iter(self.views([pair_id], self._line)), None)

    def _recall(self, pair_ids: Sequence[int]) -> None:
        """Know what these pairs showed: a desk that was built again has not served them itself."""
        unknown = [pair_id for pair_id in pair_ids if pair_id not in self._shown]
        if unknown:
            for pair in review.pairs(self.service.store, unknown):
                self._remember(pair)

    def _remember(self, pair: Mapping[str, Any]) -> None:
        self._shown[int(pair["pair_id"])] = {**view.shown(pair, blind=self.scope.blind), **self.scope.shown()}
        while len(self._shown) > MOST_REMEMBERED:
            self._shown.popitem(last=False)

    def views(self, pair_ids: Sequence[int], line: Line | None) -> list[dict[str, Any]]:
        """These pairs as the browser draws them, in order; those that are in no store any more are left out."""
        if not pair_ids:
            return []
        store = self.service.store
        found = review.pairs(store, pair_ids)
        typed = drafts.drafts(store, self.identity, pair_ids)
        now = datetime.now(UTC).replace(tzinfo=None)
        hidden = self._hidden([int(pair["pair_id"]) for pair in found])
        made = []
        for pair in found:
            pair_id = int(pair["pair_id"])
            self._remember(pair)
            shown = view.pair_view(
                blind.without_others(pair, self.identity) if pair_id in hidden else pair,
                now=now,
                reasons=self._reasons(pair),
                blind=self.scope.blind,
                viewer=self.identity,
            )
            made.append(
                {
                    **shown,
                    "seen": pair["seen"],
                    "draft": typed.get(pair_id),
                    "position": None if line is None else line.place(pair_id),
                    "voices": self.scope.voices(self.service, pair_id),
                }
            )
        return made

    def _hidden(self, pair_ids: Sequence[int]) -> set[int]:
        """Pairs of which only one's own words are shown: an adjudicator reads the others' without names."""
        if self.scope.names_hidden:
            return set(pair_ids)
        if blind.viewer_of(permission.acting()) is None:
            return set()
        with self.service.store.read() as connection:
            return blind.pairs_among(connection, pair_ids)

    def _reasons(self, pair: Mapping[str, Any]) -> dict[tuple[str, str], str]:
        reasons: dict[tuple[str, str], str] = {}
        if any(pair[f"{o}_{w}"] is None for o in ("ifd", "r_ifd") for w in ("original", "candidate")):
            sides = {pair["original_id"]: "original", pair["candidate_id"]: "candidate"}
            for score in queries.scores_of(self.service.store, list(sides)):
                if score["value"] is None and score["reason"]:
                    reasons[score["output"], sides[score["example_id"]]] = score["reason"]
        return reasons

    def _answer(
        self,
        results: list[dict[str, Any]],
        request: Request,
        *,
        pairs: list[dict[str, Any]],
        dropped: list[int],
        line: Line | None,
        ahead: Sequence[int],
    ) -> dict[str, Any]:
        return {
            "acked": request.entries[-1].n if request.entries else 0,
            "results": results,
            "pairs": pairs,
            "dropped": dropped,
            "head": self._head(line, request.on_screen, len(ahead)),
            "end": self._end(line, ahead) if line is not None and line.is_over() else None,
        }

    def _head(self, line: Line | None, on_screen: int | None, holding: int) -> dict[str, Any]:
        if self._own is None:
            self._own = Own.read(self.service.store, self.identity)
        position = line.place(on_screen) if line is not None and on_screen is not None else None
        return view.pace_view(
            {**PACE.counts(self.service, self.scope), **self._own.numbers()},
            position=position or 0,
            length=0 if line is None else line.length,
            left=0 if line is None else line.left(holding),
        )

    def _end(self, line: Line, ahead: Sequence[int]) -> dict[str, Any]:
        held = set(ahead)
        done = self._decided | self._skipped.keys()
        return view.end_view(
            decided=len(self._decided),
            skipped=len(self._skipped),
            passed=sum(pair_id not in done and pair_id not in held for pair_id in self._served),
            elsewhere=line.elsewhere,
            length=line.length,
            words=line.last_words(),
        )


class Desks:
    """All desks of this server, by person and name; those that lie idle go."""

    def __init__(self) -> None:
        self._desks: OrderedDict[tuple[str, str, str], Desk] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, service: Service, actor: Actor, *, desk: str, scope: Mapping[str, Any]) -> Desk:
        """The desk of this name, built anew where it is not known.

        Raises:
            AssayError: ``scope`` names nothing that is there.
        """
        found = self.known(service, actor, desk)
        if found is not None and found.scope.named == dict(scope):
            return found
        made = Desk(service, actor, kinds.read(service, actor, scope), key=desk)
        with self._lock:
            self._desks[str(service.store.path), actor.identity, desk] = made
            old = time.monotonic() - IDLE_SECONDS
            while len(self._desks) > MOST_DESKS or next(iter(self._desks.values())).used_at < old:
                self._desks.popitem(last=False)
        return made

    def known(self, service: Service, actor: Actor, desk: str) -> Desk | None:
        """The desk of this name, or None."""
        with self._lock:
            found = self._desks.get((str(service.store.path), actor.identity, desk))
            if found is not None:
                self._desks.move_to_end((str(service.store.path), actor.identity, desk))
        return found


DESKS = Desks()
