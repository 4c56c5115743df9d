"""Who acts, and what that person's role allows: asked in every write, whatever a page shows or hides.

Threads that nobody sits behind (the scheduler, a migration) act for the server and may do everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from core.errors import NotAllowedError

ROLES = ("none", "viewer", "reviewer", "admin")
"""In rising order. ``none``: signed in, but nobody gave access yet."""

NEEDS = {"look": "viewer", "review": "reviewer", "administer": "admin"}
"""What each kind of action needs. ``look``: own preferences. ``review``: decisions, drafts, votes, saved filters,
judgements, models trained on decisions. ``administer``: all else (data, jobs, campaigns, bulk, roles, export)."""

_WORDS = {"look": "look at this", "review": "review or vote", "administer": "change data, jobs, campaigns or roles"}


@dataclass(frozen=True)
class Actor:
    """A person who acts: ``identity`` is what the store keeps, ``name`` what people read."""

    identity: str
    name: str
    role: str

    def may(self, action: str) -> bool:
        """Whether the role allows this kind of action."""
        return ROLES.index(self.role) >= ROLES.index(NEEDS[action])


_SERVER = Actor(identity="", name="the server", role="admin")
_ACTING: ContextVar[Actor | None] = ContextVar("assay_actor", default=None)
_resolver: Callable[[], Actor | None] = lambda: None  # noqa: E731


def set_resolver(resolver: Callable[[], Actor | None]) -> None:
    """Say how to find who acts in a thread that runs a page; the pages do this once, at server start."""
    global _resolver
    _resolver = resolver


def acting() -> Actor | None:
    """Who acts in this thread; None: the server itself."""
    set_here = _ACTING.get()
    if set_here is _SERVER:
        return None
    return set_here or _resolver()


@contextmanager
def as_actor(actor: Actor) -> Iterator[None]:
    """Act as ``actor`` in this thread or task for the length of the block (requests that are not page runs)."""
    token = _ACTING.set(actor)
    try:
        yield
    finally:
        _ACTING.reset(token)


@contextmanager
def as_server() -> Iterator[None]:
    """Act for the server, whoever asked: what must be kept of a person who has no role yet."""
    with as_actor(_SERVER):
        yield


def require(action: str) -> None:
    """Nothing, or the refusal.

    Raises:
        NotAllowedError: the role of who acts does not allow ``action`` (a key of ``NEEDS``).
    """
    actor = acting()
    if actor is not None and not actor.may(action):
        needed = f"an {NEEDS[action]}" if NEEDS[action] == "admin" else f"a {NEEDS[action]}"
        raise NotAllowedError(
            f"{actor.name} has the role {actor.role}, and {needed} is needed to {_WORDS[action]}. Nothing was changed; "
            "ask an admin for the role."
        )
