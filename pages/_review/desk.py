"""One reviewer's desk: which pair lies on it, and what a press in the browser does to the store. No Streamlit here.

Three rules hold whatever the browser sends: a decision is stored before another pair is shown; a press counts only
for the pair that lay on the desk; the same press sent twice is stored once.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from core.errors import AssayError
from core.example import Example
from core.filters import PairFilter
from db import decisions, queries, review
from db.schema import VERDICTS_DECIDED
from db.store import Store
from pages._review import view
from pages._review.queue import Queue

DECIDING = (*VERDICTS_DECIDED, "skip")
LOOK_AHEAD = 64
REMEMBERED_PRESSES = 64
MAX_SECONDS = 24 * 3600.0
_TEXTS = ("instruction", "input", "output")


def _well_formed(typed: str) -> str:
    """What was typed without lone surrogates, which JSON can carry and no file can hold."""
    return typed.encode("utf-8", "replace").decode("utf-8")


@dataclass(frozen=True)
class Press:
    """One press as the browser sent it; ``pair_id`` is the pair that was on screen (None at the end of a queue)."""

    press: str
    action: str
    pair_id: int | None
    verdict: str = ""
    note: str = ""
    seconds: float | None = None
    edited: Example | None = None

    @classmethod
    def read(cls, sent: Mapping[str, Any]) -> Press:
        """Read what the component sent.

        Raises:
            AssayError: it is not of its form.
        """
        pair_id, seconds, edited = sent.get("pair_id"), sent.get("seconds"), sent.get("edited")
        named = isinstance(sent.get("press"), str) and sent["press"] and isinstance(sent.get("action"), str)
        whole = edited is None or (
            isinstance(edited, Mapping) and all(isinstance(edited.get(name), str) for name in _TEXTS)
        )
        if not named or not whole or not isinstance(pair_id, int | None):
            raise AssayError("The press could not be read. Nothing was stored; reload the page.")
        return cls(
            press=sent["press"],
            action=sent["action"],
            pair_id=pair_id,
            verdict=str(sent.get("verdict") or ""),
            note=_well_formed(str(sent.get("note") or "")),
            seconds=min(max(float(seconds), 0.0), MAX_SECONDS) if isinstance(seconds, int | float) else None,
            edited=None if edited is None else Example(*(_well_formed(edited[name]) for name in _TEXTS)),
        )


@dataclass(frozen=True)
class Answer:
    """What became of a press. ``kind``: ok, info or error; after an error the pair and what was typed stay."""

    press: str
    kind: str
    text: str = ""


def fresh_queue(store: Store, filters: PairFilter) -> Queue:
    """The queue as it is now. Among undecided pairs those that were skipped come last: they were put off."""
    pair_ids = review.queue(store, filters)
    if filters.state == "undecided":
        put_off = set(review.queue(store, replace(filters, state="skipped")))
        pair_ids = [i for i in pair_ids if i not in put_off] + [i for i in pair_ids if i in put_off]
    return Queue(tuple(pair_ids))


@dataclass
class Desk:
    """The desk of one browser session."""

    filters: PairFilter
    queue: Queue
    desk: str = field(default_factory=lambda: uuid.uuid4().hex)
    answer: Answer | None = None
    _answers: dict[str, Answer] = field(default_factory=dict)
    _pair: dict[str, Any] | None = None
    _seen: int | None = None

    @classmethod
    def open(cls, store: Store, filters: PairFilter, *, first: int | None = None) -> Desk:
        """A desk with the queue of ``filters``, frozen now; ``first`` is put on top."""
        queue = fresh_queue(store, filters)
        if first is not None:
            queue = queue.return_to(first)
        return cls(filters, queue)

    def restart(self, store: Store, filters: PairFilter) -> None:
        """Freeze the queue anew (another filter, or reloaded)."""
        self.filters, self.queue, self.answer = filters, fresh_queue(store, filters), None

    # ---- what the browser is shown ----

    def payload(self, store: Store, *, reviewer: str) -> dict[str, Any]:
        """All that the component draws. What lies on the desk from now on is what this says."""
        self._pair = None if self.queue.current is None else review.pair(store, self.queue.current)
        self._seen = self._standing_id(self._pair)
        progress = review.progress(store, reviewer=reviewer, dataset_ids=self.filters.datasets)
        queue = self.queue
        return {
            "desk": self.desk,
            "answer": None if self.answer is None else vars(self.answer),
            "reviewer": reviewer,
            "head": view.pace_view(
                progress, position=queue.index + 1, length=len(queue.pair_ids), left=queue.left
            ),
            "pair": None if self._pair is None else self._pair_view(store, self._pair),
            "end": None
            if self._pair is not None
            else view.end_view(
                decided=len(queue.decided),
                skipped=len(queue.skipped),
                passed=len(queue.passed),
                elsewhere=len(queue.elsewhere),
                length=len(queue.pair_ids),
            ),
        }  # fmt: skip

    @staticmethod
    def _standing_id(pair: Mapping[str, Any] | None) -> int | None:
        return int(pair["decision"]["decision_id"]) if pair is not None and pair["decision"] else None

    @staticmethod
    def _pair_view(store: Store, pair: Mapping[str, Any]) -> dict[str, Any]:
        reasons: dict[tuple[str, str], str] = {}
        if any(pair[f"{o}_{w}"] is None for o in ("ifd", "r_ifd") for w in ("original", "candidate")):
            sides = {pair["original_id"]: "original", pair["candidate_id"]: "candidate"}
            for score in queries.scores_of(store, list(sides)):
                if score["value"] is None and score["reason"]:
                    reasons[score["output"], sides[score["example_id"]]] = score["reason"]
        return view.pair_view(pair, now=datetime.now(UTC).replace(tzinfo=None), reasons=reasons)

    # ---- what a press does ----

    def take(self, store: Store, sent: Mapping[str, Any], *, reviewer: str) -> Answer:
        """Carry out one press and remember the answer; a press that came before gets the same answer again."""
        known = self._answers.get(str(sent.get("press")))
        if known is not None:
            self.answer = known
            return known
        try:
            press = Press.read(sent)
            text, kind = self._carry_out(store, press, reviewer=reviewer)
            self.answer = Answer(press.press, kind, text)
            self._answers[press.press] = self.answer
        except AssayError as error:
            # Not remembered: the same press may be sent again and then succeed.
            self.answer = Answer(str(sent.get("press")), "error", str(error))
        while len(self._answers) > REMEMBERED_PRESSES:
            del self._answers[next(iter(self._answers))]
        return self.answer

    def _carry_out(self, store: Store, press: Press, *, reviewer: str) -> tuple[str, str]:
        if press.action == "recover":
            return self._recover(store, press)
        if press.pair_id != self.queue.current:
            raise AssayError(
                f"That press was meant for {_name(press.pair_id)}, but {_name(self.queue.current)} is on screen now. "
                "Nothing was stored."
            )
        match press.action:
            case "decide":
                return self._decide(store, press, reviewer=reviewer)
            case "flag" | "unflag":
                return self._flag(store, press, reviewer=reviewer)
            case "undo":
                return self._undo(store, press, reviewer=reviewer)
            case "back":
                self.queue = self.queue.back()
            case "forward":
                self.queue = self.queue.forward()
            case "skipped":
                self.queue = self.queue.only(tuple(self.queue.skipped))
            case "passed":
                self.queue = self.queue.only(self.queue.passed)
            case "reload":
                self.queue = fresh_queue(store, self.filters)
                return f"The queue was reloaded: {len(self.queue.pair_ids):,} pairs.", "info"
            case _:
                raise AssayError(f"{press.action!r} is nothing that can be done with a pair. Nothing was stored.")
        return "", "ok"

    def _decide(self, store: Store, press: Press, *, reviewer: str) -> tuple[str, str]:
        pair = self._pair
        if press.verdict not in DECIDING or press.pair_id is None or pair is None:
            raise AssayError(f"{press.verdict!r} is not a decision on a pair. Nothing was stored.")
        standing = review.standing_decision(store, press.pair_id)
        if (standing["decision_id"] if standing else None) != self._seen:
            said = (
                f"{standing['reviewer']} {view.VERDICT_WORDS[standing['verdict']]}" if standing else "it was taken back"
            )
            raise AssayError(
                f"The decision on pair {press.pair_id} changed while you had it on screen: {said}. Nothing was stored; "
                "look again and press again if you still think so."
            )
        verdict, edited = press.verdict, press.edited
        candidate = Example(pair["c_instruction"], pair["c_input"], pair["c_output"])
        if verdict == "edit" and edited == candidate:
            verdict, edited = "accept", None
        decisions.decide(
            store,
            pair_id=press.pair_id,
            reviewer=reviewer,
            verdict=verdict,
            press=press.press,
            edited=edited,
            note=press.note,
            seconds=press.seconds,
            shown={name: pair[name] for name in view.SHOWN_FIELDS},
        )
        self.queue = self._without_taken(store, self.queue.after(press.pair_id, skipped=verdict == "skip"))
        return f"Pair {press.pair_id}: {view.VERDICT_WORDS[verdict]}.", "ok"

    def _without_taken(self, store: Store, queue: Queue) -> Queue:
        """Move past pairs that other people decided since the queue was frozen, so that no two do the same work."""
        if self.filters.state not in ("undecided", "skipped"):
            return queue
        while queue.current is not None:
            ahead = (queue.current, *queue.upcoming(LOOK_AHEAD))
            queue = queue.without(review.decided_among(store, ahead)).waiting_from_here()
            if queue.current in ahead:
                return queue
        return queue

    def _flag(self, store: Store, press: Press, *, reviewer: str) -> tuple[str, str]:
        if press.pair_id is None:
            raise AssayError("There is no pair on screen to flag.")
        decisions.decide(
            store,
            pair_id=press.pair_id,
            reviewer=reviewer,
            verdict=press.action,
            press=press.press,
            note=press.note,
        )
        return f"Pair {press.pair_id}: {view.VERDICT_WORDS[press.action]}.", "ok"

    def _undo(self, store: Store, press: Press, *, reviewer: str) -> tuple[str, str]:
        undone = decisions.undo(store, reviewer=reviewer, press=press.press)
        if undone is None:
            return f"There is nothing left to undo: no decision of {reviewer} stands.", "info"
        self.queue = self.queue.return_to(int(undone["pair_id"]))
        return f"Taken back on pair {undone['pair_id']}: {view.VERDICT_WORDS[undone['verdict']]}.", "info"

    def _recover(self, store: Store, press: Press) -> tuple[str, str]:
        """A press whose answer never came: say whether it was stored, else show its pair again."""
        lost, verdict = press.note, view.VERDICT_WORDS.get(press.verdict, "")
        if press.pair_id is None or not verdict or not lost:
            return "", "ok"
        if review.press_is_stored(store, lost):
            return f"The connection broke, but your last press was stored. Pair {press.pair_id}: {verdict}.", "info"
        review.pair(store, press.pair_id)
        self.queue = self.queue.return_to(press.pair_id)
        return (
            f"The connection broke before your last press on pair {press.pair_id} was stored ({verdict}). "
            "Here is the pair again; press again.",
            "error",
        )


def _name(pair_id: int | None) -> str:
    return "the end of the queue" if pair_id is None else f"pair {pair_id}"


def same_queue(one: PairFilter, other: PairFilter) -> bool:
    """Whether two filters make the same queue: the seed counts only where the order is random."""
    return one == other or (one.order != "random" and replace(one, seed=0) == replace(other, seed=0))
