"""One tab of the review desk without a browser: it keeps a numbered log, holds pairs, and talks to the server's routes.

``send(path, content)`` posts JSON and returns status and answer. A tab sends what was not answered again, as the
component does; it never makes another entry of the same number.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core import sign_in
from core.settings import Settings
from core.sign_in import NAMES, Known
from pages import _who

Send = Callable[[str, Mapping[str, Any]], tuple[int, dict[str, Any]]]
OLDEST_FIRST = {"kind": "filter", "params": {"order": "oldest first"}}


def token(home: Path, name: str, *, seconds: float = 3600.0) -> str:
    """A token of an installation that takes names, as its page gives it to the component."""
    key = sign_in.signing_key(Settings(home=home, data_roots=()).key_path)
    return sign_in.issue(Known(name, name, NAMES), purpose=_who.API, key=key, expires=time.time() + seconds)


@dataclass
class Tab:
    """A tab of ``name``. ``unsent`` are entries without an answer; ``results`` what became of the others."""

    send: Send
    token: str
    scope: Mapping[str, Any] = field(default_factory=lambda: OLDEST_FIRST)
    desk: str = field(default_factory=lambda: secrets.token_hex(16))
    log: str = field(default_factory=lambda: secrets.token_hex(16))
    n: int = 0
    held: list[dict[str, Any]] = field(default_factory=list)
    unsent: list[dict[str, Any]] = field(default_factory=list)
    results: dict[int, dict[str, Any]] = field(default_factory=dict)

    @property
    def on_screen(self) -> int | None:
        return self.held[0]["pair_id"] if self.held else None

    def enter(self, action: str, **more: Any) -> dict[str, Any]:
        """Write an entry on the pair on screen into the log; a decision takes the pair from the desk."""
        view = self.held[0] if self.held else {"pair_id": None, "seen": None}
        self.n += 1
        entry = {"n": self.n, "action": action, "pair_id": view["pair_id"], "verdict": "", "note": "", "seconds": 1.5,
                 "edited": None, "seen": view["seen"], "undoes": None, **more}  # fmt: skip
        self.unsent.append(entry)
        if action == "decide" and self.held:
            self.held.pop(0)
        return entry

    def request(self, *, want: int = 0, **more: Any) -> dict[str, Any]:
        """What :meth:`sync` sends."""
        return {
            "token": self.token, "desk": self.desk, "scope": self.scope, "log": self.log, "entries": self.unsent[:50],
            "drafts": [], "on_screen": self.on_screen, "holding": [one["pair_id"] for one in self.held], "want": want,
            "again": None, **more,
        }  # fmt: skip

    def sync(self, *, want: int = 3, **more: Any) -> dict[str, Any]:
        """Send the log and fill the desk. Raises AssertionError where the server does not take it."""
        status, answer = self.send("/api/review/sync", self.request(want=want, **more))
        assert status == 200, (status, answer)
        self.take(answer, again=more.get("again") is not None)
        return answer

    def take(self, answer: Mapping[str, Any], *, again: bool = False) -> None:
        """What an answer changes in the browser."""
        self.results |= {one["n"]: one for one in answer["results"]}
        self.unsent = [one for one in self.unsent if one["n"] > answer["acked"]]
        gone = set(answer["dropped"])
        self.held = [*([] if again else [v for v in self.held if v["pair_id"] not in gone]), *answer["pairs"]]

    def decide(self, verdict: str = "accept", **more: Any) -> dict[str, Any]:
        """A verdict on the pair on screen, sent at once; its result."""
        entry = self.enter("decide", verdict=verdict, **more)
        self.sync()
        return self.results[entry["n"]]
