"""Pairs: find the ones that matter, by filter, search, likeness or map; decide all of them at once, or queue them."""

from __future__ import annotations

import streamlit as st

from core.filters import PairFilter
from db.service import Service
from pages import _pair_filter, _pair_model, _pairs_bulk, _pairs_map, _pairs_table, _saved_filters, _ui
from pages._pair_filter import Facets
from pages._pairs_view import EXACT, MEANING, WORDS, PairView

PREFIX = "pairs-filter-"
OF_TABS = (*_pairs_map.PARAMETERS, *_pair_model.PARAMETERS)
SEARCH, MODE, TAB = "pairs-search", "pairs-mode", "pairs-tab"
APPLIED, WRITTEN = "pairs_applied", "pairs_written"
TABS = {"pairs": ":material/table_rows: Pairs", "map": ":material/bubble_chart: Map",
        "bulk": ":material/done_all: Bulk", "model": ":material/network_intelligence: Model"}  # fmt: skip
MODES = {EXACT: "Exact", WORDS: "Whole words", MEANING: "By meaning"}


# --- the URL ---


def _said() -> tuple[PairFilter, str] | None:
    """The filter and the meaning that the widgets say; None where they are not there."""
    filters = _pair_filter.of_widgets(PREFIX)
    if filters is None or SEARCH not in st.session_state:
        return None
    return filters, _meaning()


def _meaning() -> str:
    state = st.session_state
    return " ".join(str(state.get(SEARCH) or "").split()) if state.get(MODE) == MEANING else ""


def _own_params() -> dict[str, str]:
    """The URL without parameters of the map and the model, which keep their own."""
    return {name: value for name, value in st.query_params.to_dict().items() if name not in OF_TABS}


def _into_widgets(filters: PairFilter, meaning: str) -> None:
    _pair_filter.seed(PREFIX, filters)
    st.session_state[SEARCH] = meaning or filters.text
    st.session_state[MODE] = MEANING if meaning else WORDS if filters.words else EXACT


def _take_up_url(there: Facets) -> bool:
    """Let widgets and URL agree: the URL wins where somebody followed a link, the widgets where one was changed.

    Returns whether a link was followed.
    """
    state, said = st.session_state, _said()
    if said is None and not _own_params() and APPLIED in state:  # back on the page through the menu
        _into_widgets(*state[APPLIED])
    elif said is None or (said == state.get(APPLIED) and _own_params() != state.get(WRITTEN)):
        _into_widgets(_pair_filter.of_url(there), st.query_params.get("meaning", "")[: _pair_filter.LONGEST_TEXT])
        tab = st.query_params.get("tab", "")
        state[TAB] = TABS.get(tab, TABS["pairs"])
        return True
    return False


def _write_url(view: PairView, *, followed: bool) -> None:
    """Put what is shown into the URL. After a link to this very page the browser still has the former one."""
    params = view.params()
    tab = next((name for name, title in TABS.items() if title == st.session_state.get(TAB)), "pairs")
    if tab != "pairs":
        params["tab"] = tab
    if followed or params != _own_params():
        kept = {name: st.query_params[name] for name in OF_TABS if name in st.query_params}
        st.query_params.from_dict(params | kept)
    st.session_state[APPLIED], st.session_state[WRITTEN] = (view.filters, view.meaning), params


# --- the filter ---


def _search() -> None:
    """The box of the search, and what it looks for."""
    state = st.session_state
    box, ways = st.columns([4, 3], vertical_alignment="bottom")
    with box:
        st.text_input(
            "Search in the original and the reflected row",
            key=SEARCH,
            type="search",
            max_chars=_pair_filter.LONGEST_TEXT,
            placeholder="Like this text" if state[MODE] == MEANING else "Any words, in any case",
            icon=":material/search:",
        )
    with ways:
        st.segmented_control(
            "How", list(MODES), format_func=MODES.__getitem__, key=MODE, required=True, label_visibility="collapsed"
        )
    text = state[SEARCH] or ""
    state[PREFIX + "text"] = "" if state[MODE] == MEANING else text
    state[PREFIX + "words"] = state[MODE] == WORDS and bool(text)


def _reset() -> None:
    """A callback: all undecided pairs."""
    _into_widgets(PairFilter(), "")


def _filter(service: Service, there: Facets) -> PairView:
    """The line of filters; returns what they say."""
    _search()
    before = _pair_filter.of_widgets(PREFIX) or PairFilter()
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        with st.popover(f"Filter: {_pair_filter.label(before)}", icon=":material/filter_list:", width="content"):
            filters = _pair_filter.panel(there, prefix=PREFIX, with_text=False)
            st.button("Reset", on_click=_reset, icon=":material/restart_alt:", type="tertiary", key="pairs-reset")
        view = PairView(service, filters, _meaning(), there)
        _saved_filters.show("pairs", view.params())
        _pairs_table.ways_on(view)
    return view


def main() -> None:
    """Render the page."""
    service = _ui.current_service()
    _ui.header(
        "Pairs", "Find the pairs that matter: filter, search, look at the map; queue them, or decide all at once."
    )
    there = _pair_filter.facets(service)
    if not there.values["stages"]:
        _ui.empty(
            "**There are no pairs yet.** Reflect on a dataset first: a teacher rewrites its rows, and each rewritten "
            "row becomes a pair of original and reflected.",
            page="reflect.py", label="Reflect on a dataset",
        )  # fmt: skip
        return
    followed = _take_up_url(there)
    view = _filter(service, there)
    tabs = dict(zip(TABS, st.tabs(list(TABS.values()), key=TAB, on_change="rerun"), strict=True))
    shows = {
        "pairs": _pairs_table.show,
        "map": _pairs_map.show,
        "bulk": _pairs_bulk.show,
        "model": lambda shown: _pair_model.show(shown.service),
    }
    # The URL first: what a tab draws may end the run (a name that is asked for).
    _write_url(view, followed=followed)
    for name, tab in tabs.items():
        if tab.open:
            with tab:
                shows[name](view)


main()
