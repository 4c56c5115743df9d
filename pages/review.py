"""Review: original and reflected side by side, decided by keys. What is for a desk says the URL."""

from __future__ import annotations

from functools import partial
from typing import Any

import streamlit as st

from core.errors import AssayError, NotAllowedError
from core.filters import PairFilter
from db import review
from db.permission import Actor
from db.service import Service
from pages import _pair_filter, _review_plain, _saved_filters, _sign_in, _ui
from pages._review import review_component
from pages._review.seat import OTHER_SCOPES, SEAT, Seat, named_by_url, payload, sit_down

COMPONENT = "review_component"
WIDGETS = "review_filter_"
ANEW = "review_anew"
ENDED = "review_ended"


def start_filter(there: _pair_filter.Facets) -> PairFilter:
    """The queue of the URL, else the one that lay on the desk, else the default."""
    from_url = _pair_filter.of_url(there)
    seat: Seat | None = st.session_state.get(SEAT)
    if from_url == PairFilter() and seat is not None and seat.named["kind"] == "filter":
        return PairFilter.from_params(seat.named["params"])
    return from_url


def reset_filters() -> None:
    """Back to the default queue (a button's callback)."""
    _pair_filter.seed(WIDGETS, PairFilter())
    for parameter in OTHER_SCOPES:
        st.query_params.pop(parameter, None)


def sit_anew() -> None:
    """Ask for a queue as it is now (a button's callback)."""
    st.session_state[ANEW] = True


def other_desk(plain: bool) -> None:
    """Change between the fast desk and the plain buttons (a button's callback)."""
    if plain:
        st.query_params["plain"] = "1"
    else:
        st.query_params.pop("plain", None)


def toolbar(there: _pair_filter.Facets, shown: PairFilter, *, plain: bool) -> PairFilter:
    """Filter, saved filters, reload and the other desk in one line; returns the filter that the widgets say."""
    with st.container(horizontal=True, horizontal_alignment="right", vertical_alignment="center", width="content"):
        with st.popover(f"Queue: {_pair_filter.label(shown)}", icon=":material/filter_list:", width="content"):
            filters = _pair_filter.panel(there, prefix=WIDGETS)
            st.button(
                "Reset to the default queue", on_click=reset_filters, icon=":material/restart_alt:", type="tertiary"
            )
        _saved_filters.show("review", shown.to_params())
        desk_buttons(plain=plain)
    return filters


def desk_buttons(*, plain: bool) -> None:
    """Reload, and the way to the other desk."""
    st.button("Reload the queue", icon=":material/refresh:", type="tertiary", on_click=sit_anew)
    st.button(
        "Fast desk" if plain else "Plain buttons",
        icon=":material/bolt:" if plain else ":material/smart_button:",
        type="tertiary",
        on_click=other_desk,
        args=(not plain,),
        help="The desk that shows the next pair at the press of a key."
        if plain
        else "The same review with ordinary buttons, where the fast desk does not work in your browser.",
    )


def wanted_pair(service: Service) -> int | None:
    """A link to one pair (``?pair=12``) puts it on top of the queue, once."""
    wanted = st.query_params.get("pair", "")
    if not wanted:
        return None
    del st.query_params["pair"]
    try:
        if not wanted.isdecimal() or len(wanted) > 17:
            raise AssayError(f"The pair {wanted!r} in this link is not a number.")
        review.pair(service.store, int(wanted))
    except AssayError as error:
        st.warning(_ui.plain(str(error)))
        return None
    return int(wanted)


def after_the_end(seat: Seat) -> None:
    """What to do when no pair is left in the queue."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.page_link("export.py", label="Export the curated set", icon=":material/output:")
        st.page_link("progress.py", label="See how the team decided", icon=":material/groups:")
        if seat.named["kind"] == "filter" and seat.named["params"]:
            st.button(
                "Reset to the default queue",
                on_click=reset_filters,
                icon=":material/restart_alt:",
                key="review_reset_end",
            )
        elif seat.named["kind"] != "filter":
            st.page_link("campaigns.py", label="All campaigns", icon=":material/flag:")


def nothing() -> None:
    """A callback: the run that follows it is what was asked for."""


def mark_ended(desk: str) -> None:
    """A callback: the end of this desk's queue is on screen."""
    st.session_state[ENDED] = desk


@st.fragment
def show_component(data: dict[str, Any], seat: Seat) -> None:
    """The fast desk. It talks to the server by itself; this runs again for a new token or at the end of the queue."""
    service, actor = _ui.current_service(), _ui.actor()
    if actor is not None and st.session_state.get(COMPONENT, {}).get("renew"):
        _, desk = sit_down(service, actor, seat.named, plain=False, anew=False)
        data = payload(service, actor, seat, desk)
    review_component(data, key=COMPONENT, on_renew=nothing, on_ended=partial(mark_ended, seat.desk))
    if not seat.first["pairs"] or st.session_state.get(ENDED) == seat.desk:
        after_the_end(seat)


def refused(error: AssayError) -> None:
    """Why there is no desk, with the ways on."""
    (st.warning if isinstance(error, NotAllowedError) else st.error)(_ui.plain(str(error)))
    with st.container(horizontal=True):
        st.page_link("campaigns.py", label="All campaigns", icon=":material/flag:")
        st.button("Review the default queue", on_click=reset_filters, icon=":material/compare:", type="tertiary")


def show(service: Service, actor: Actor, top: Any) -> None:
    """The desk of the URL, whatever kind it is."""
    there = _pair_filter.facets(service)
    plain = st.query_params.get("plain") == "1"
    if _pair_filter.of_widgets(WIDGETS) is None:
        _pair_filter.seed(WIDGETS, start_filter(there))
    filters = _pair_filter.of_widgets(WIDGETS) or PairFilter()
    named = named_by_url(filters)
    if named["kind"] == "filter":
        with top:
            filters = toolbar(there, filters, plain=plain)
        named = {"kind": "filter", "params": filters.to_params()}
        wanted = filters.to_params() | ({"plain": "1"} if plain else {})
        first = wanted_pair(service)
        if st.query_params.to_dict() != wanted:
            st.query_params.from_dict(wanted)
    else:
        first = None
    anew = st.session_state.pop(ANEW, False) or (not plain and COMPONENT not in st.session_state)
    try:
        seat, desk = sit_down(service, actor, named, plain=plain, anew=anew, first=first)
    except AssayError as error:
        refused(error)
        return
    if named["kind"] != "filter":
        with top:
            other_toolbar(plain=plain)
    if desk.scope.title:
        st.markdown(f"**{_ui.plain(desk.scope.title)}**")
    if plain:
        _review_plain.show_desk(desk, seat, after_the_end)
    else:
        show_component(payload(service, actor, seat, desk), seat)


def other_toolbar(*, plain: bool) -> None:
    """What stands beside the title where the desk is for no filter."""
    with st.container(horizontal=True, horizontal_alignment="right", vertical_alignment="center", width="content"):
        st.page_link("campaigns.py", label="All campaigns", icon=":material/flag:")
        st.button("Review a queue instead", on_click=reset_filters, icon=":material/compare:", type="tertiary")
        desk_buttons(plain=plain)


def main() -> None:
    service = _ui.current_service()
    top = st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="bottom")
    with top.container(width="content"):
        plain = st.query_params.get("plain") == "1"
        fast = "A key decides and the next pair is there; ? lists the keys."
        _ui.header("Review", "Decide with the buttons, or with the key that each one names." if plain else fast)
    if not review.any_pairs(service.store):
        _ui.empty(
            "**There are no pairs to review yet.** Reflect on a dataset first: a teacher rewrites its rows, "
            "and each rewritten row becomes a pair to decide here.",
            page="reflect.py", label="Reflect on a dataset",
        )  # fmt: skip
        return
    _sign_in.ask_name("reviewing")
    actor = _ui.actor()
    if actor is None:
        st.stop()
    if not actor.may("review"):
        st.info(_ui.plain(_ui.why_not("review") or ""), icon=":material/lock:")
        st.page_link("progress.py", label="See how the team decided", icon=":material/groups:")
        return
    show(service, actor, top)


main()
