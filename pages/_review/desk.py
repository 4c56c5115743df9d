"""Desks: what lies before one reviewer in one tab, and what a request of that tab does to the store. No Streamlit here.

Three rules hold whatever the browser sends: an entry is answered only when it is on the disk; it counts for the pair it
names, which is the pair that was on screen; and the same entry sent twice is stored once (its name is ``log:n``).

Desks live in memory only. One that is not known (the server was restarted, it lay idle) is built again from its scope
and from the pairs that its browser still holds.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from core.errors import StoreError
from db import blind, decisions, drafts, people, permission, preferences, queries, review
from db.decisions import Applied, Entry
from db.permission import Actor
from db.schema import VERDICTS_DECIDED
from db.service import Service
from pages._review import kinds, view
from pages._review.pace import PACE, Own
from pages._review.request import LogEntry, Request
from pages._review.scopes import Line, Scope

MOST_DESKS, IDLE_SECONDS = 400, 4 * 3600.0
MOST_REMEMBERED = 3000
MOST_CHARACTERS = 2_000_000
"""Of texts in one answer, beyond its first pair."""
_TEXTS = ("instruction", "input", "output")

log = logging.getLogger("assay")


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
        self._waiting: list[int] = []  # taken from the line, but too much for the answer of then
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
            self._waiting = [pair_id for pair_id in self._waiting if pair_id not in holding]
            lost = set(line.lost([*holding, *self._waiting], want=request.want))
            self._waiting = [pair_id for pair_id in self._waiting if pair_id not in lost]
            dropped = [pair_id for pair_id in holding if pair_id in lost]
            kept = [pair_id for pair_id in holding if pair_id not in lost]
            pairs = self._more(line, request.want, holding=holding)
            ahead = [*kept, *(one["pair_id"] for one in pairs)]
            return self._answer(results, request, pairs=pairs, dropped=dropped, line=line, ahead=ahead)

    def _more(self, line: Line, want: int, *, holding: Sequence[int]) -> list[dict[str, Any]]:
        """The next pairs, at most ``want``; fewer where their texts are very long: the others come next time."""
        if not want:
            return []
        lacking = want - len(self._waiting)
        held = [*holding, *self._waiting]
        found = [*self._waiting, *(line.more(lacking, holding=held) if lacking > 0 else ())]
        pairs = self.views(found[:want], line, most_characters=MOST_CHARACTERS)
        last = pairs[-1]["pair_id"] if pairs else None
        self._waiting = found[found.index(last) + 1 :] if last is not None else []
        self._served |= dict.fromkeys(one["pair_id"] for one in pairs)
        return pairs

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
        self._served, self._decided, self._skipped, self._waiting = {}, set(), {}, []
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
        own = PACE.own(self.service.store, self.identity)
        if deciding and not one.known and own is not None:
            if one.undone is not None:
                own.count(-1)
            else:
                own.count(1, seconds)
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
            self._served |= dict.fromkeys(holding)
            pairs = [*self.views(holding, line), *self._more(line, want, holding=holding)]
            found = [one["pair_id"] for one in pairs]
            request = Request(desk=self.key, log="", scope=self.scope.named, on_screen=next(iter(found), None))
            return self._answer([], request, pairs=pairs, dropped=[], line=line, ahead=found)

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

    def views(
        self, pair_ids: Sequence[int], line: Line | None, *, most_characters: float = math.inf
    ) -> list[dict[str, Any]]:
        """These pairs as the browser draws them, in order; those that are in no store any more are left out.

        It ends with the pair whose texts (``characters``) are the first to go past ``most_characters``.
        """
        if not pair_ids:
            return []
        store = self.service.store
        found = review.pairs(store, pair_ids)
        typed = drafts.drafts(store, self.identity, pair_ids)
        now = datetime.now(UTC).replace(tzinfo=None)
        hidden = self._hidden([int(pair["pair_id"]) for pair in found])
        names = people.names(store)
        made: list[dict[str, Any]] = []
        so_far = 0
        for pair in found:
            if so_far > most_characters:
                break
            pair_id = int(pair["pair_id"])
            so_far += (length := sum(len(pair[f"{side}_{name}"]) for side in "oc" for name in _TEXTS))
            self._remember(pair)
            shown = view.pair_view(
                blind.without_others(pair, self.identity) if pair_id in hidden else pair,
                now=now,
                reasons=self._reasons(pair),
                blind=self.scope.blind,
                viewer=self.identity,
                names=names,
            )
            made.append(
                {
                    **shown,
                    "seen": pair["seen"],
                    "draft": typed.get(pair_id),
                    "position": None if line is None else line.place(pair_id),
                    "voices": self.scope.voices(self.service, pair_id),
                    "characters": length,
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
            "end": self._end(line, ahead) if line is not None and not self._waiting and line.is_over() else None,
        }

    def _head(self, line: Line | None, on_screen: int | None, holding: int) -> dict[str, Any]:
        if self._own is None:
            self._own = PACE.read_own(self.service.store, self.identity)
        position = line.place(on_screen) if line is not None and on_screen is not None else None
        # "All is decided" and an older number above it would not go together. Of a campaign that is quickly counted.
        at_end = line is not None and not holding and self.scope.campaign_id is not None and line.is_over()
        return view.pace_view(
            {**PACE.counts(self.service, self.scope, exact=at_end), **self._own.numbers()},
            position=position or 0,
            length=0 if line is None else line.length,
            left=0 if line is None else line.left(holding + len(self._waiting)),
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
