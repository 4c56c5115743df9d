"""What a desk is for: a filter, a campaign, its disputed pairs, a second look or a spot check. No Streamlit here.

A scope is named by plain JSON (``{"kind": "campaign", "id": 3}``), so that a browser can carry it over a restart of
the server. Each kind says where its pairs come from, how a pair is shown and what its decisions count as.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import Any, Protocol

import numpy as np

from core.filters import PairFilter
from db import decisions, pair_queue, review
from db.decisions import Applied, Entry
from db.permission import Actor
from db.service import Service
from db.store import Store, scalar, utc_now

AHEAD: Mapping[str, int] = {"least": 40, "most": 120}
"""How many pairs lie ready in a browser, of a list where that takes them from nobody: of one who decides slowly, of
one as fast as can be. Beyond what lies there, keys would not count until the server has answered."""
QUEUE_SECONDS = 30.0
MOST_QUEUES = 16


class Line(Protocol):
    """Where the pairs of a desk come from, in their order. ``length``: how many there are, of a campaign in all."""

    @property
    def length(self) -> int: ...

    @property
    def elsewhere(self) -> int:
        """How many pairs were passed over because other people decided them."""
        ...

    def more(self, n: int, *, holding: Sequence[int]) -> list[int]:
        """The next at most ``n`` pairs that are not in ``holding``."""
        ...

    def lost(self, holding: Sequence[int], *, want: int = 0) -> list[int]:
        """Those of ``holding`` that are no more this desk's to decide; :meth:`more` will be asked for ``want``."""
        ...

    def is_over(self) -> bool:
        """Whether :meth:`more` has nothing left to give, now and later."""
        ...

    def left(self, holding: int) -> int:
        """How many pairs wait, those on the desk included."""
        ...

    def place(self, pair_id: int) -> int | None:
        """The place of a pair, from 1; None where pairs have none."""
        ...

    def last_words(self) -> str:
        """Why there is nothing more, where that needs a sentence; else ""."""
        ...


class Scope(Protocol):
    """One kind of desk."""

    @property
    def named(self) -> dict[str, Any]:
        """The scope as JSON, as :func:`read` takes it."""
        ...

    @property
    def purpose(self) -> str: ...
    @property
    def campaign_id(self) -> int | None: ...
    @property
    def blind(self) -> bool: ...
    @property
    def names_hidden(self) -> bool:
        """Whether people are told apart without their names (``voices``)."""
        ...

    @property
    def check_seen(self) -> bool: ...
    @property
    def guidelines(self) -> str | None: ...
    @property
    def title(self) -> str: ...
    @property
    def ahead(self) -> Mapping[str, int]:
        """How many pairs lie ready in a browser, ``least`` and ``most``."""
        ...

    def line(self, service: Service, actor: Actor, *, session: str, holding: Sequence[int], fresh: bool) -> Line:
        """The pairs, from the beginning or from behind those that a browser still holds."""
        ...

    def only(self, service: Service, pair_ids: Sequence[int]) -> Line | None:
        """Another pass over these pairs; None where the pass there is brings them back by itself."""
        ...

    def apply(self, service: Service, actor: Actor, entries: Sequence[Entry], *, session: str) -> list[Applied]:
        """Store entries, as :func:`db.decisions.apply`."""
        ...

    def voices(self, service: Service, pair_id: int) -> list[dict[str, Any]]:
        """What others said of a pair, where that is to be weighed."""
        ...

    def leave(self, service: Service, actor: Actor, *, session: str) -> None:
        """Give back what lies on a desk."""
        ...

    @property
    def count_key(self) -> list[Any]:
        """What scopes of equal counts share."""
        ...

    def counts(self, service: Service) -> dict[str, Any]:
        """``n_pairs`` and ``n_decided`` of what the bar shows."""
        ...

    def shown(self) -> dict[str, Any]:
        """What is kept of the scope with each decision."""
        ...


# ---- queues of filters, shared by desks ----


class Queues:
    """Queues of filters, int64 arrays, each shared by the desks that ask for it within half a minute.

    A queue may be a little old: what was decided meanwhile is passed over when it is served.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[Any, ...], tuple[float, np.ndarray]] = {}
        self._lock = threading.Lock()
        self._making: dict[tuple[Any, ...], threading.Lock] = {}

    def get(self, store: Store, filters: PairFilter, *, fresh: bool = False) -> np.ndarray:
        """The queue of ``filters``, read-only int64 ``[n]``; ``fresh``: as it is at this moment."""
        with store.read() as connection:
            newest = scalar(connection, "select max(pair_id) from pairs")
        key = (str(store.path), newest, filters)
        with self._lock:
            making = self._making.setdefault(key, threading.Lock())
        with making:
            kept = self._kept.get(key)
            if kept is not None and not fresh and time.monotonic() - kept[0] < QUEUE_SECONDS:
                return kept[1]
            made = in_order(store, filters)
            made.flags.writeable = False
            with self._lock:
                self._kept[key] = (time.monotonic(), made)
                while len(self._kept) > MOST_QUEUES:
                    oldest = min(self._kept, key=lambda one: self._kept[one][0])
                    del self._kept[oldest]
                    self._making.pop(oldest, None)
        return made


def in_order(store: Store, filters: PairFilter) -> np.ndarray:
    """The queue as it is now. Among undecided pairs those that were skipped come last: they were put off."""
    pair_ids = pair_queue.queue(store, filters).copy()
    if filters.state == "undecided" and len(pair_ids):
        pair_ids = _last(pair_ids, pair_queue.queue(store, replace(filters, state="skipped")))
    return pair_ids


def _last(pair_ids: np.ndarray, put_off: Sequence[int] | np.ndarray) -> np.ndarray:
    """The same pairs, those ``put_off`` at the end."""
    if not len(put_off):
        return pair_ids
    late = np.isin(pair_ids, np.asarray(put_off, np.int64))
    return np.concatenate([pair_ids[~late], pair_ids[late]])


QUEUES = Queues()


class FrozenLine:
    """Pairs in an order that deciding never shifts. What other people decided meanwhile is passed over."""

    def __init__(
        self,
        pair_ids: np.ndarray,
        *,
        taken: Callable[[Sequence[int]], set[int]] | None = None,
        holding: Sequence[int] = (),
        nothing: str = "",
    ) -> None:
        """``taken`` says which of some pairs need nobody any more; ``nothing``: why there may be none at all."""
        self._ids, self._taken, self._nothing = pair_ids, taken, nothing
        self._elsewhere: set[int] = set()
        self._looked_up: dict[int, bool] = {}
        self._places: dict[int, int] = {}  # of pairs that were given out: to look for one takes a walk over all
        # A desk that is built again after a restart goes on behind the last that its browser still holds; what lies
        # before that one may have been fetched from anywhere (an undo, a link to one pair).
        places = (self.place(pair_id) for pair_id in reversed(holding))
        self._cursor = next((place for place in places if place is not None), 0)

    @property
    def length(self) -> int:
        return len(self._ids)

    @property
    def elsewhere(self) -> int:
        return len(self._elsewhere)

    def more(self, n: int, *, holding: Sequence[int]) -> list[int]:
        found: list[int] = []
        held = set(holding)
        while len(found) < n and self._cursor < len(self._ids):
            ahead = self._ids[self._cursor : self._cursor + max(16, n - len(found))].tolist()
            taken = self._among(ahead)
            for pair_id in ahead:
                if len(found) == n:
                    break
                self._cursor += 1
                if pair_id in taken:
                    self._elsewhere.add(pair_id)
                elif pair_id not in held:
                    found.append(pair_id)
                    self._places[pair_id] = self._cursor
        return found

    def lost(self, holding: Sequence[int], *, want: int = 0) -> list[int]:
        self._looked_up = {}
        if self._taken is None or not holding:
            return []
        ahead = self._ids[self._cursor : self._cursor + max(16, want)].tolist() if want else []
        taken = self._taken([*holding, *ahead])  # at once: a look-up costs far more than a pair in it
        self._looked_up = {pair_id: pair_id in taken for pair_id in ahead}
        return [pair_id for pair_id in holding if pair_id in taken]

    def _among(self, pair_ids: Sequence[int]) -> set[int]:
        if self._taken is None:
            return set()
        unknown = [pair_id for pair_id in pair_ids if pair_id not in self._looked_up]
        found = self._taken(unknown) if unknown else set()
        return found | {pair_id for pair_id in pair_ids if self._looked_up.get(pair_id)}

    def is_over(self) -> bool:
        return self._cursor >= len(self._ids)

    def left(self, holding: int) -> int:
        return len(self._ids) - self._cursor + holding

    def place(self, pair_id: int) -> int | None:
        if pair_id not in self._places:
            found = np.flatnonzero(self._ids == pair_id)
            if not len(found):
                return None
            self._places[pair_id] = int(found[0]) + 1
        return self._places[pair_id]

    def last_words(self) -> str:
        return "" if len(self._ids) else self._nothing


# ---- kinds ----


@dataclass(frozen=True)
class FilterScope:
    """The queue of a filter, for everybody: whoever decides a pair first has decided it."""

    filters: PairFilter
    purpose: str = "review"
    campaign_id: int | None = None
    blind: bool = False
    names_hidden: bool = False
    check_seen: bool = True
    guidelines: str | None = None
    title: str = ""
    ahead: Mapping[str, int] = field(default_factory=lambda: AHEAD)

    @property
    def named(self) -> dict[str, Any]:
        return {"kind": "filter", "params": self.filters.to_params()}

    def _taken(self, service: Service) -> Callable[[Sequence[int]], set[int]] | None:
        """Pairs that were decided meanwhile leave a queue of undecided ones."""
        return partial(review.decided_among, service.store) if self.filters.state in ("undecided", "skipped") else None

    def line(self, service: Service, actor: Actor, *, session: str, holding: Sequence[int], fresh: bool) -> Line:
        ids = QUEUES.get(service.store, self.filters, fresh=fresh)
        if self.filters.state == "undecided" and not fresh:  # a shared queue does not know the latest skips yet
            ids = _last(ids, review.skipped_since(service.store, utc_now() - timedelta(seconds=2 * QUEUE_SECONDS)))
        return FrozenLine(ids, taken=self._taken(service), holding=holding)

    def only(self, service: Service, pair_ids: Sequence[int]) -> Line | None:
        return FrozenLine(np.asarray(list(pair_ids), np.int64), taken=self._taken(service))

    def apply(self, service: Service, actor: Actor, entries: Sequence[Entry], *, session: str) -> list[Applied]:
        return decisions.apply(service.store, entries, reviewer=actor.identity)

    def voices(self, service: Service, pair_id: int) -> list[dict[str, Any]]:
        return []

    def leave(self, service: Service, actor: Actor, *, session: str) -> None:
        """Nothing lies on it that others could not have."""

    @property
    def count_key(self) -> list[Any]:
        return ["datasets", *self.filters.datasets]

    def counts(self, service: Service) -> dict[str, Any]:
        return review.counts(service.store, dataset_ids=self.filters.datasets)

    def shown(self) -> dict[str, Any]:
        return {"filter": self.filters.to_params()}
