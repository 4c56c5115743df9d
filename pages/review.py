"""Review: original and reflected side by side, decided by keys; a decision is stored before the next pair is shown."""

from __future__ import annotations

from typing import Any

import streamlit as st

from core.errors import AssayError
from core.filters import PAIR_ORDERS, PAIR_STATES, PairFilter
from db import review
from pages import _ui
from pages._review import review_component
from pages._review.desk import Desk, same_queue

DESK = "review_desk"
COMPONENT = "review_component"
WIDGETS = "review_filter_"
RANGES = {"ifd": "IFD of the reflected", "r_ifd": "r-IFD of the reflected", "gain": "IFD gain (reflected − original)"}


def ask_name() -> None:
    """Ask once who reviews; the rest of the page waits."""
    known = [row["reviewer"] for row in review.team_progress(_ui.current_service().store)]
    with st.container(border=True, width=620), st.form("review_name", border=False):
        st.markdown("**Who is reviewing?** Your name is kept with every decision, and for this session only.")
        name = st.text_input("Your name", max_chars=60, placeholder="Ada Lovelace")
        if known:
            st.caption(_ui.plain(f"Reviewers so far: {', '.join(known[:12])}."))
        started = st.form_submit_button("Start reviewing", type="primary", icon=":material/play_arrow:")
    if started and name.strip():
        st.session_state[_ui.REVIEWER] = " ".join(name.split())
        st.rerun()
    if started:
        st.error("Write a name first; decisions are kept under it.")
    st.stop()


def start_filter() -> PairFilter:
    """The queue of the URL, else the one that lay on the desk, else the default."""
    try:
        from_url = PairFilter.from_params(st.query_params.to_dict())
    except AssayError as error:
        st.warning(_ui.plain(str(error)))
        return PairFilter()
    desk = st.session_state.get(DESK)
    return desk.filters if from_url == PairFilter() and desk is not None else from_url


def seed_widgets(filters: PairFilter) -> None:
    """Put ``filters`` into the widgets."""
    state = st.session_state
    for name in ("methods", "stages", "proposals", "datasets"):
        state[WIDGETS + name] = list(getattr(filters, name))
    state[WIDGETS + "state"], state[WIDGETS + "order"] = filters.state, filters.order
    state[WIDGETS + "seed"] = filters.seed
    for name in RANGES:
        state[f"{WIDGETS}{name}_low"], state[f"{WIDGETS}{name}_high"] = getattr(filters, name)


def reset_filters() -> None:
    """Back to the default queue (a button's callback)."""
    seed_widgets(PairFilter())


def filter_panel(facets: dict[str, list[Any]]) -> PairFilter:
    """The widgets of the queue; what they say now."""
    names: dict[int, str] = dict(facets["datasets"])
    kept = {
        name: [v for v in st.session_state[WIDGETS + name] if v in facets[name]]
        for name in ("methods", "stages", "proposals")
    }
    kept["datasets"] = [v for v in st.session_state[WIDGETS + "datasets"] if v in names]
    for name, values in kept.items():
        st.session_state[WIDGETS + name] = values
    left, right = st.columns(2)
    state = left.selectbox("Pairs that are", PAIR_STATES, key=WIDGETS + "state")
    order = right.selectbox("In the order", PAIR_ORDERS, key=WIDGETS + "order")
    seed = (
        right.number_input("Seed of the random order", 0, 2**31 - 1, step=1, key=WIDGETS + "seed")
        if order == "random"
        else 0
    )
    datasets = left.multiselect(
        "Datasets", list(names), format_func=names.__getitem__, placeholder="All", key=WIDGETS + "datasets"
    )
    methods = left.multiselect("Methods", facets["methods"], placeholder="All", key=WIDGETS + "methods")
    stages = right.multiselect("Stages", facets["stages"], placeholder="All", key=WIDGETS + "stages")
    proposals = right.multiselect(
        "Student's proposal", facets["proposals"], placeholder="All", key=WIDGETS + "proposals"
    )
    ranges = {name: range_inputs(name, label) for name, label in RANGES.items()}
    st.button("Reset to the default queue", on_click=reset_filters, icon=":material/restart_alt:", type="tertiary")
    return PairFilter(
        datasets=tuple(datasets), methods=tuple(methods), stages=tuple(stages), proposals=tuple(proposals),
        state=state, order=order, seed=int(seed), **ranges,
    )  # fmt: skip


def range_inputs(name: str, label: str) -> tuple[float | None, float | None]:
    """Lowest and highest value of a score; an empty box leaves its side open."""
    st.caption(label)
    low, high = st.columns(2)
    hidden: dict[str, Any] = {"value": None, "step": 0.05, "format": "%.3f", "label_visibility": "collapsed"}
    return (
        low.number_input(f"{label}: lowest", placeholder="lowest: open", key=f"{WIDGETS}{name}_low", **hidden),
        high.number_input(f"{label}: highest", placeholder="highest: open", key=f"{WIDGETS}{name}_high", **hidden),
    )


def queue_label(filters: PairFilter) -> str:
    """The filter in a few words, for the button that opens it."""
    narrowed = sum(bool(getattr(filters, n)) for n in ("datasets", "methods", "stages", "proposals"))
    narrowed += sum(getattr(filters, n) != (None, None) for n in RANGES)
    more = f" · {narrowed} more filter{'s' if narrowed > 1 else ''}" if narrowed else ""
    return f"Queue: {filters.state} · {filters.order}{more}"


def toolbar(facets: dict[str, list[Any]], shown: PairFilter) -> PairFilter:
    """Filter, reviewer and reload in one line; returns the filter that the widgets say."""
    with st.container(horizontal=True, horizontal_alignment="right", vertical_alignment="center", width="content"):
        with st.popover(queue_label(shown), icon=":material/filter_list:", width="content"):
            filters = filter_panel(facets)
        with st.popover(f"Reviewer: {_ui.plain(_ui.reviewer())}", icon=":material/person:", width="content"):
            name = st.text_input("Your name", value=_ui.reviewer(), max_chars=60, key="review_rename")
            if name.strip() and " ".join(name.split()) != _ui.reviewer():
                st.session_state[_ui.REVIEWER] = " ".join(name.split())
                st.rerun()
        if st.button("Reload the queue", icon=":material/refresh:", type="tertiary"):
            st.session_state[DESK].restart(_ui.current_service().store, filters)
    return filters


def take_press() -> None:
    """Carry out what the component sent, before the fragment draws again."""
    sent = st.session_state[COMPONENT].get("press")
    if sent:
        st.session_state[DESK].take(_ui.current_service().store, dict(sent), reviewer=_ui.reviewer())


@st.fragment
def show_desk() -> None:
    """The pair on screen. A press reruns this function only."""
    desk: Desk = st.session_state[DESK]
    try:
        payload = desk.payload(_ui.current_service().store, reviewer=_ui.reviewer())
    except AssayError as error:
        st.error(_ui.plain(str(error)))
        return
    review_component(payload, key=COMPONENT, on_press=take_press)
    if payload["pair"] is None:
        after_the_end(desk)


def after_the_end(desk: Desk) -> None:
    """What to do when no pair is left in the queue."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.page_link("export.py", label="Export the curated set", icon=":material/output:")
        st.page_link("progress.py", label="See how the team decided", icon=":material/groups:")
        if desk.filters != PairFilter():
            st.button(
                "Reset to the default queue",
                on_click=reset_filters,
                icon=":material/restart_alt:",
                key="review_reset_end",
            )


def open_wanted_pair(desk: Desk) -> None:
    """A link to one pair (``?pair=12``) puts it on top of the queue, once."""
    wanted = st.query_params.get("pair", "")
    if not wanted:
        return
    del st.query_params["pair"]
    try:
        if not wanted.isdecimal():
            raise AssayError(f"The pair {wanted!r} in this link is not a number.")
        review.pair(_ui.current_service().store, int(wanted))
        desk.queue = desk.queue.return_to(int(wanted))
    except AssayError as error:
        st.warning(_ui.plain(str(error)))


def main() -> None:
    store = _ui.current_service().store
    facets = review.pair_facets(store)
    top = st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="bottom")
    with top.container(width="content"):
        _ui.header("Review", "Each decision is stored before the next pair is shown; ? lists the keys.")
    if not facets["stages"]:
        _ui.empty(
            "**There are no pairs to review yet.** Reflect on a dataset first: a teacher rewrites its rows, "
            "and each rewritten row becomes a pair to decide here.",
            page="reflect.py", label="Reflect on a dataset",
        )  # fmt: skip
        return
    if not _ui.reviewer():
        ask_name()
    if WIDGETS + "state" not in st.session_state:
        seed_widgets(start_filter())
    if DESK not in st.session_state:
        st.session_state[DESK] = Desk.open(store, start_filter())
    desk: Desk = st.session_state[DESK]
    with top:
        filters = toolbar(facets, desk.filters)
    if not same_queue(filters, desk.filters):
        desk.restart(store, filters)
        st.rerun()
    open_wanted_pair(desk)
    if st.query_params.to_dict() != filters.to_params():
        st.query_params.from_dict(filters.to_params())
    show_desk()


main()
