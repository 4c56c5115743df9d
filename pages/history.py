"""History: every decision ever, by whom, with what was on screen; a pair's timeline; all of it as a file."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

import pandas as pd
import streamlit as st

from core.history import PURPOSES, STATES, VERDICTS, HistoryFilter
from db import blind, history, permission
from pages import _history_download, _history_one, _pick, _rows, _ui, _who
from pages._history_one import PURPOSE_WORDS, VERDICT_WORDS

PAGE = "history"
CURSOR = ("before", "after")


def _params() -> dict[str, list[str]]:
    return {name: st.query_params.get_all(name) for name in st.query_params}


def _number(name: str) -> int | None:
    value = st.query_params.get(name, "")
    return int(value) if value.isascii() and value.isdecimal() and len(value) < 18 else None


def _write(filters: HistoryFilter) -> None:
    """Put a filter into the URL; another filter begins at its newest decision."""
    if filters == HistoryFilter.from_params(_params()):
        return
    for name in (*HistoryFilter().__dataclass_fields__, "reviewer", "verdict", "purpose", *CURSOR):
        st.query_params.pop(name, None)
    for name, value in filters.to_params().items():
        st.query_params[name] = value


def _filter(facets: Mapping[str, Any], names: Mapping[str, str]) -> HistoryFilter:
    """The filter, as widgets that begin as the URL says."""
    asked = HistoryFilter.from_params(_params())
    key = f"{PAGE}-filter-{_rows.identity(facets['campaigns'], facets['datasets'], facets['reviewers'])}"
    top = st.columns([3, 3, 2, 2], vertical_alignment="bottom")
    reviewers = top[0].multiselect(
        "By", facets["reviewers"], default=[one for one in asked.reviewers if one in facets["reviewers"]],
        format_func=names.__getitem__, key=f"{key}-by", placeholder="anybody",
    )  # fmt: skip
    verdicts = top[1].multiselect(
        "What", VERDICTS, default=list(asked.verdicts), format_func=lambda one: VERDICT_WORDS[one],
        key=f"{key}-what", placeholder="anything",
    )  # fmt: skip
    pair = top[2].text_input("Pair", "" if asked.pair is None else str(asked.pair), key=f"{key}-pair", max_chars=17)
    with top[3].popover("More", icon=":material/tune:", width="stretch"):
        purposes = st.multiselect(
            "For", PURPOSES, default=list(asked.purposes), format_func=lambda one: PURPOSE_WORDS[one],
            key=f"{key}-for", placeholder="any purpose",
        )  # fmt: skip
        campaign = _one_of("Campaign", facets["campaigns"], asked.campaign, key=f"{key}-campaign", anything="any")
        dataset = _one_of("Dataset", facets["datasets"], asked.dataset, key=f"{key}-dataset", anything="any")
        days = st.columns(2)
        since = days[0].date_input("From (UTC)", asked.since, key=f"{key}-since", max_value=date.max)
        until = days[1].date_input("To, included", asked.until, key=f"{key}-until", max_value=date.max)
    if pair.strip() and not (pair.strip().isascii() and pair.strip().isdecimal()):
        st.caption("A pair is named by its number, such as 266; all pairs are shown.")
    state = _pick.switch("State", STATES, parameter="state")
    clean = pair.strip()
    return HistoryFilter(
        reviewers=tuple(reviewers),
        verdicts=tuple(verdicts),
        purposes=tuple(purposes),
        campaign=campaign,
        dataset=dataset,
        pair=int(clean) if clean.isascii() and clean.isdecimal() else None,
        since=since if isinstance(since, date) else None,
        until=until if isinstance(until, date) else None,
        state=state,
    )


def _one_of(label: str, named: list[tuple[int, str]], asked: int | None, *, key: str, anything: str) -> int | None:
    names = dict(named)
    options: list[int | None] = [None, *names]
    labels = _ui.distinct({None: anything, **names}, tell=lambda i: f"number {i}")
    return st.selectbox(
        label, options, index=options.index(asked if asked in names else None), format_func=labels.__getitem__, key=key
    )


def _table(found: history.HistoryPage, opened: int | None, names: Mapping[str, str]) -> None:
    ids = [int(row["decision_id"]) for row in found.rows]
    widget = _pick.widget_key("history-rows", ids, opened)

    def pick() -> None:
        """A callback: the decision that was clicked is open, in the URL too."""
        chosen = _pick.picked(ids, widget, opened)
        if chosen is None or chosen == opened:
            st.query_params.pop("decision", None)
        else:
            st.query_params["decision"] = str(chosen)

    table = pd.DataFrame(
        [
            {
                "When (UTC)": row["decided_at"],
                "By": names.get(row["reviewer"], row["reviewer"]),
                "What": VERDICT_WORDS.get(row["verdict"], row["verdict"]) + (" · taken back" if row["undone"] else ""),
                "Pair": row["pair_id"],
                "For": PURPOSE_WORDS.get(row["purpose"], row["purpose"] or ""),
                "Instruction": row["instruction"] or "",
                "Campaign": row["campaign"] or "",
                "Seconds": row["seconds"],
                "Note": row["note"] or "",
                "Dataset": row["dataset"],
                "Number": row["decision_id"],
            }
            for row in found.rows
        ]
    )
    st.dataframe(
        table,
        hide_index=True,
        height="content" if len(table) <= 15 else 560,
        placeholder="—",
        on_select=pick,
        **_pick.options(ids, opened),
        column_config={
            "When (UTC)": st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm:ss", width=150),
            "Pair": st.column_config.NumberColumn(format="%d", width="small"),
            "What": st.column_config.TextColumn(width=200),
            "Instruction": st.column_config.TextColumn(width=260),
            "Note": st.column_config.TextColumn(width=160),
            "Seconds": st.column_config.NumberColumn(format="%.1f", width="small"),
            "Number": st.column_config.NumberColumn(format="%d", width="small"),
        },
        key=widget,
    )


def _turn(found: history.HistoryPage) -> None:
    """Buttons to older and newer decisions; the place stands in the URL."""

    def go(name: str | None, edge: int) -> None:
        for one in CURSOR:
            st.query_params.pop(one, None)
        if name is not None:
            st.query_params[name] = str(edge)

    first, last = int(found.rows[0]["decision_id"]), int(found.rows[-1]["decision_id"])
    with st.container(horizontal=True, vertical_alignment="center"):
        newest = any(one in st.query_params for one in CURSOR)
        st.button("Newest", icon=":material/first_page:", disabled=not newest, on_click=go, args=(None, 0),
                  key=f"history-newest-{first}")  # fmt: skip
        st.button("Newer", icon=":material/chevron_left:", disabled=not found.newer, on_click=go,
                  args=("after", first), key=f"history-newer-{first}")  # fmt: skip
        st.button("Older", icon=":material/chevron_right:", disabled=not found.older, on_click=go,
                  args=("before", last), key=f"history-older-{last}")  # fmt: skip
        st.caption(f"Decision {first:,}" if first == last else f"Decisions {last:,} to {first:,}")


def _downloads(filters: HistoryFilter, total: int) -> None:
    person = _who.known()
    with st.popover("Download", icon=":material/download:"):
        texts = st.checkbox("With the texts of both sides and the result", key="history-texts")
        st.caption(f"All {total:,} decisions that pass the filter, oldest first, however many they are.")
        for format, label in (("csv", "CSV"), ("jsonl", "JSON Lines")):
            ticket = _history_download.Ticket(filters, format, texts, person)
            st.link_button(label, _history_download.address(ticket), icon=":material/download:")


def _all() -> None:
    """A callback: no filter any more, neither in the URL nor in the widgets."""
    st.query_params.clear()
    for key in [one for one in st.session_state if str(one).startswith((f"{PAGE}-filter", "switch-state"))]:
        del st.session_state[key]


def _nothing(filters: HistoryFilter, *, any_at_all: bool) -> None:
    if not any_at_all:
        _ui.empty("Nobody has decided anything yet.", page="review.py", label="Review pairs")
        return
    with st.container(border=True):
        st.markdown("No decision passes this filter.")
        st.button("Show all decisions", icon=":material/filter_alt_off:", on_click=_all, key="history-all")


def main() -> None:
    _ui.header("History", "Every decision ever, with what was on screen. Nothing is ever changed or deleted here.")
    store = _ui.current_service().store
    facets = history.facets(store)
    if not facets["reviewers"]:
        _nothing(HistoryFilter(), any_at_all=False)
        return
    names = _ui.people_names(store, facets["reviewers"])
    filters = _filter(facets, names)
    _write(filters)
    viewer = blind.viewer_of(permission.acting())
    if viewer is not None and blind.any_open(store):
        st.caption("What others said of the pairs of a blind campaign is shown when the campaign is closed.")
    found = history.page(store, filters, before=_number("before"), after=_number("after"), viewer=viewer)
    if not found.rows:
        _nothing(filters, any_at_all=True)
        return
    total = history.count(store, filters, viewer=viewer)
    opened = _number("decision")
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{total:,}** decision{'' if total == 1 else 's'}")
        _downloads(filters, total)
    _table(found, opened, names)
    _turn(found)
    if opened is None:
        st.caption("Click a decision to see what was on screen, what came of it, and the timeline of its pair.")
    else:
        _history_one.show(store, opened, names, viewer=viewer)


main()
