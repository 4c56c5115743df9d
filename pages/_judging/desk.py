"""One person's desk of blind judging: which two answers lie on it, what a press does to the store. No Streamlit here.

Four rules hold whatever the browser sends: a verdict is stored before other answers are shown; a press counts only for
the question that lay on the desk; the same press sent twice is stored once; which model wrote which answer never leaves
the server.
"""

from __future__ import annotations

import statistics
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from core.errors import AssayError
from core.judging import preference_of_choice
from db import judging
from db.store import Store
from pages._judging.queue import Queue

CHOICES: Mapping[str, int] = {"left": 1, "tie": 0, "right": -1}
WORDS: Mapping[str, str] = {"left": "A is better", "tie": "a tie", "right": "B is better"}
REMEMBERED_PRESSES = 64
MAX_SECONDS = 24 * 3600.0
MOST_ITEMS = 5000
"""Questions that lie ready at a time."""


@dataclass(frozen=True)
class Press:
    """One press as the browser sent it; ``item_id`` is the question that was on screen (None at the end of a queue)."""

    press: str
    action: str
    item_id: int | None
    choice: str = ""
    lost: str = ""
    seconds: float | None = None

    @classmethod
    def read(cls, sent: Mapping[str, Any]) -> Press:
        """Read what the component sent.

        Raises:
            AssayError: it is not of its form.
        """
        item_id, seconds = sent.get("item_id"), sent.get("seconds")
        named = isinstance(sent.get("press"), str) and sent["press"] and isinstance(sent.get("action"), str)
        if not named or not isinstance(item_id, int | None):
            raise AssayError("The press could not be read. Nothing was stored; reload the page.")
        return cls(
            press=sent["press"],
            action=sent["action"],
            item_id=item_id,
            choice=str(sent.get("choice") or ""),
            lost=str(sent.get("lost") or ""),
            seconds=min(max(float(seconds), 0.0), MAX_SECONDS) if isinstance(seconds, int | float) else None,
        )


@dataclass(frozen=True)
class Answer:
    """What became of a press. ``kind``: ok, info or error; after an error the question stays."""

    press: str
    kind: str
    text: str = ""


@dataclass
class Desk:
    """The desk of one browser session, for one comparison and one person."""

    comparison_id: int
    reviewer: str
    queue: Queue
    items: dict[int, dict[str, Any]]
    desk: str = field(default_factory=lambda: uuid.uuid4().hex)
    answer: Answer | None = None
    _answers: dict[str, Answer] = field(default_factory=dict)
    _seconds: list[float] = field(default_factory=list)

    @classmethod
    def open(cls, store: Store, *, comparison_id: int, reviewer: str) -> Desk:
        """A desk with all that this person has not judged yet, in that person's own order."""
        items = _waiting(store, comparison_id, reviewer)
        return cls(comparison_id, reviewer, Queue(tuple(items)), items)

    @property
    def finished(self) -> bool:
        """Whether nothing waits any more, a skipped question neither: only then the person's own counts are shown."""
        return not self.queue.skipped and self.queue.left == 0

    # ---- what the browser is shown ----

    def payload(self, store: Store) -> dict[str, Any]:
        """All that the component draws. What lies on the desk from now on is what this says. No name is in it."""
        progress = judging.progress(store, self.comparison_id, self.reviewer)
        current, queue = self.queue.current, self.queue
        waiting = queue.left + len(queue.skipped)
        return {
            "desk": self.desk,
            "comparison": self.comparison_id,
            "answer": None if self.answer is None else vars(self.answer),
            "head": {
                "done": progress["n_judged"],
                "total": progress["n_items"],
                "skipped": len(queue.skipped),
                "seconds_left": statistics.median(self._seconds) * waiting if self._seconds else None,
            },
            "item": None if current is None else _item_view(self.items[current]),
            "end": None if current is not None else _end_view(progress["n_judged"], len(queue.skipped)),
        }

    # ---- what a press does ----

    def take(self, store: Store, sent: Mapping[str, Any]) -> Answer:
        """Carry out one press and remember the answer; a press that came before gets the same answer again."""
        known = self._answers.get(str(sent.get("press")))
        if known is not None:
            self.answer = known
            return known
        try:
            press = Press.read(sent)
            text, kind = self._carry_out(store, press)
            self.answer = Answer(press.press, kind, text)
            self._answers[press.press] = self.answer
        except AssayError as error:
            # Not remembered: the same press may be sent again and then succeed.
            self.answer = Answer(str(sent.get("press")), "error", str(error))
        while len(self._answers) > REMEMBERED_PRESSES:
            del self._answers[next(iter(self._answers))]
        return self.answer

    def _carry_out(self, store: Store, press: Press) -> tuple[str, str]:
        if press.action == "recover":
            return self._recover(store, press)
        if press.item_id != self.queue.current:
            raise AssayError(
                "That press was meant for another question than the one on screen now. Nothing was stored; look again."
            )
        match press.action:
            case "judge":
                return self._judge(store, press)
            case "skip":
                if press.item_id is None:
                    raise AssayError("There is no question on screen to skip.")
                self.queue = self.queue.after(press.item_id, skipped=True)
            case "undo":
                return self._undo(store, press)
            case "skipped":
                self.queue = self.queue.only(tuple(self.queue.skipped))
            case _:
                raise AssayError(f"{press.action!r} is nothing that can be done here. Nothing was stored.")
        return "", "ok"

    def _judge(self, store: Store, press: Press) -> tuple[str, str]:
        if press.choice not in CHOICES or press.item_id is None:
            raise AssayError(f"{press.choice!r} is not a verdict. Nothing was stored.")
        swapped = bool(self.items[press.item_id]["swapped"])
        judging.judge_item(
            store,
            comparison_id=self.comparison_id,
            reviewer=self.reviewer,
            item_id=press.item_id,
            swapped=swapped,
            preference=preference_of_choice(CHOICES[press.choice], swapped=swapped),
            seconds=press.seconds,
            press=press.press,
        )
        self.queue = self.queue.after(press.item_id)
        if press.seconds is not None:
            self._seconds.append(press.seconds)
        if self.finished:  # of a very large test set only a part lay ready
            self.items = _waiting(store, self.comparison_id, self.reviewer)
            self.queue = Queue(tuple(self.items))
        return f"Stored: {WORDS[press.choice]}.", "ok"

    def _undo(self, store: Store, press: Press) -> tuple[str, str]:
        undone = judging.undo_judgement(
            store, comparison_id=self.comparison_id, reviewer=self.reviewer, press=press.press
        )
        if undone is None:
            return "There is nothing left to undo: no verdict of yours stands here.", "info"
        item_id = int(undone["item_id"])
        if item_id not in self.items:  # it was judged in an earlier session
            self.items |= _waiting(store, self.comparison_id, self.reviewer)
        if item_id not in self.items:
            return "Taken back. Its question is no longer among those that can be judged.", "info"
        self.queue = self.queue.return_to(item_id)
        return "Taken back. Here is the question again.", "info"

    def _recover(self, store: Store, press: Press) -> tuple[str, str]:
        """A press whose answer never came: say whether it was stored, else show its question again."""
        if press.item_id is None or press.choice not in WORDS or not press.lost:
            return "", "ok"
        waiting = _waiting(store, self.comparison_id, self.reviewer)
        if press.item_id not in waiting:
            return f"The connection broke, but your last press was stored ({WORDS[press.choice]}).", "info"
        self.items |= waiting
        self.queue = self.queue.return_to(press.item_id)
        return (
            f"The connection broke before your last press was stored ({WORDS[press.choice]}). "
            "Here is the question again; press again."
        ), "error"


def _waiting(store: Store, comparison_id: int, reviewer: str) -> dict[int, dict[str, Any]]:
    found = judging.next_items(store, comparison_id, reviewer, limit=MOST_ITEMS, seed=comparison_id)
    return {int(row["item_id"]): row for row in found}


def _item_view(item: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "item_id": int(item["item_id"]),
        "instruction": str(item["instruction"]),
        "input": str(item["input"]),
        "left": str(item["shown_first"]),
        "right": str(item["shown_second"]),
    }


def _end_view(judged: int, skipped: int) -> dict[str, Any]:
    if skipped:
        lines = [f"{judged:,} judged; {skipped:,} skipped ones wait. Your counts are shown once these are judged too."]
        return {"title": "The end, but for what you skipped", "lines": lines, "skipped": skipped}
    lines = [f"You judged {judged:,} questions. What you found is below."]
    return {"title": "All judged. Thank you.", "lines": lines, "skipped": 0}
