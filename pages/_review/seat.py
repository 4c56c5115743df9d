"""What a session of the Review page keeps between runs: which desk it sits at, and what the desk began with."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import streamlit as st

from core.filters import PairFilter
from db import preferences
from db.permission import Actor
from db.service import Service
from pages import _who
from pages._review.desk import DESKS, Desk

SEAT = "review_seat"
OTHER_SCOPES: Mapping[str, str] = {
    "campaign": "campaign",
    "adjudicate": "adjudication",
    "second_look": "second_look",
    "spot_check": "spot_check",
}
"""Query parameter -> kind of scope, of what is no filter; the value is its number."""


@dataclass
class Seat:
    """One desk of one session. ``first`` is what its browser begins with: it stays the same in every run."""

    desk: str
    named: dict[str, Any]
    first: dict[str, Any]
    identity: str
    plain: bool


def same_scope(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two names mean the same pairs in the same order: the seed counts only where the order is random."""
    if one["kind"] != "filter" or other["kind"] != "filter":
        return dict(one) == dict(other)
    first, second = (dict(named["params"]) for named in (one, other))
    for params in (first, second):
        if params.get("order") != "random":
            params.pop("seed", None)
    return first == second


def sit_down(
    service: Service,
    actor: Actor,
    named: dict[str, Any],
    *,
    plain: bool,
    anew: bool,
    first: int | None = None,
) -> tuple[Seat, Desk]:
    """The seat of this session at a desk for ``named``; another one where the scope changed, or ``anew`` is asked for.

    ``first`` is put on top. Raises as :func:`pages._review.kinds.read` and :meth:`Desk.open`.
    """
    seat: Seat | None = st.session_state.get(SEAT)
    same = seat is not None and same_scope(seat.named, named) and seat.identity == actor.identity
    if seat is not None and same and seat.plain == plain and not anew and first is None:
        return seat, DESKS.get(service, actor, desk=seat.desk, scope=seat.named)
    if seat is not None:
        leave(service, actor, seat)
    key = secrets.token_hex(16)
    desk = DESKS.get(service, actor, desk=key, scope=named)
    made = Seat(
        key, named, desk.open(actor, want=2 if plain else desk.scope.ahead["least"], first=first), actor.identity, plain
    )
    st.session_state[SEAT] = made
    return made, desk


def leave(service: Service, actor: Actor, seat: Seat) -> None:
    """Give back what lies on a desk that nobody sits at any more."""
    found = DESKS.known(service, actor, seat.desk)
    if found is not None:
        found.leave(actor)


def named_by_url(filters: PairFilter) -> dict[str, Any]:
    """The scope of the link: a campaign or the like where it names one, else the queue of ``filters``."""
    for parameter, kind in OTHER_SCOPES.items():
        number = st.query_params.get(parameter, "")
        if number.isdecimal() and len(number) < 18:
            return {"kind": kind, "id": int(number)}
    return {"kind": "filter", "params": filters.to_params()}


def payload(service: Service, actor: Actor, seat: Seat, desk: Desk) -> dict[str, Any]:
    """What the component is given: it needs no further run of the page to decide."""
    store, scope = service.store, desk.scope
    return {
        "api": "/api/review",
        "token": _who.api_token(),
        "reviewer": actor.identity,
        "shown_name": actor.name,
        "desk": seat.desk,
        "scope": seat.named,
        "keys": preferences.preference(store, actor.identity, "review.keys", {}),
        "preferences": {"view": preferences.preference(store, actor.identity, "review.view", {})},
        "first": seat.first,
        "ahead": dict(scope.ahead),
        "guidelines": scope.guidelines,
    }
