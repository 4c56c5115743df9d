"""Campaigns: who reviews which pairs, how often each; the list, a new one, one with its progress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import streamlit as st

from core.campaign import Campaign
from db import campaign_progress, campaigns, queries
from db.campaign_progress import Progress
from db.service import Service
from db.store import Store
from pages import _campaign_new, _campaign_people, _campaign_view, _pick, _ui

REFRESH_SECONDS = 5


@st.cache_data(max_entries=256, show_spinner=False)
def _progress(_store: Store, path: str, version: str, campaign_id: int, minute: int) -> Progress:
    """The pace changes with time alone, so what was counted is remembered for a minute at most."""
    return campaign_progress.progress(_store, campaign_id)


def progress_of(service: Service, found: Sequence[Campaign]) -> dict[int, Progress]:
    """How far each campaign is."""
    version = f"{queries.version(service.store)}-{campaign_progress.version(service.store)}"
    minute = int(pd.Timestamp.now().timestamp() // 60)
    return {
        one.campaign_id: _progress(service.store, str(service.store.path), version, one.campaign_id, minute)
        for one in found
    }


def _open(ids: Sequence[int], widget: str) -> None:
    chosen = _pick.picked(ids, widget, None)
    if chosen is not None:
        st.query_params.clear()
        st.query_params["campaign"] = str(chosen)


def _list(service: Service) -> None:
    found = campaigns.campaigns(service.store)
    names = _campaign_people.names(service, *found)
    done = progress_of(service, found)
    ids = tuple(one.campaign_id for one in found)
    widget = _pick.widget_key("campaigns", ids, None)
    table = _table(found, done, names)
    st.dataframe(
        table.drop(columns=[name for name in ("disputed", "adjudicated") if table[name].isna().all()]),
        hide_index=True,
        height="content" if len(found) <= 12 else 470,
        placeholder="—",
        key=widget,
        on_select=lambda: _open(ids, widget),
        **_pick.options(ids, None),
        column_config={
            "campaign": st.column_config.TextColumn(width=170),
            "state": st.column_config.TextColumn(width=80),
            "done": st.column_config.ProgressColumn("", format="%.0f %%", min_value=0, max_value=100, width=85),
            "decisions": st.column_config.TextColumn(width=90, alignment="right"),
            "disputed": st.column_config.NumberColumn("≠", width=40, help="Disputed: people differ."),
            "adjudicated": st.column_config.NumberColumn("⚖", width=40, help="Adjudicated: somebody ruled."),
            "agreed": st.column_config.NumberColumn("✓", width=40, help="Agreed; with one decision a pair: decided."),
            "pace": st.column_config.TextColumn(
                width=60, alignment="right", help="Decisions an hour in the last half hour."
            ),
            "left": st.column_config.TextColumn("finished in", width=80, help="At the present pace."),
            "per pair": st.column_config.NumberColumn("a pair", width=50, help="Decisions on each pair."),
            "made": st.column_config.DatetimeColumn("made", format="YYYY-MM-DD", width=90),
        },
    )
    st.caption("Click a campaign to open it.")


def _table(found: Sequence[Campaign], done: Mapping[int, Progress], names: Mapping[str, str]) -> pd.DataFrame:
    seen = [done[one.campaign_id] for one in found]
    return pd.DataFrame(
        {
            "campaign": [one.name for one in found],
            "state": [_campaign_view.state_word(one, done[one.campaign_id]) for one in found],
            "done": [100 * one.share for one in seen],
            "decisions": [f"{one.n_wanted - one.n_left:,} of {one.n_wanted:,}" for one in seen],
            "per pair": [one.overlap for one in found],
            "agreed": pd.array([one.states["agreed"] for one in seen], dtype="Int64"),
            "disputed": pd.array([one.states["disputed"] or None for one in seen], dtype="Int64"),
            "adjudicated": pd.array([one.states["adjudicated"] or None for one in seen], dtype="Int64"),
            "pace": [f"{one.per_hour:,.0f} / h" if one.per_hour else "—" for one in seen],
            "left": [_campaign_view.left_words(one, done[one.campaign_id]) for one in found],
            "made": [one.created_at for one in found],
            "people": [_people(one, names) for one in found],
        }
    )


def _people(campaign: Campaign, names: Mapping[str, str]) -> str:
    if campaign.settings.everybody:
        return "everybody"
    return ", ".join(names.get(one, one) for one in campaign.people)


def _first_steps(service: Service) -> None:
    words = (
        "No campaign was made yet. A campaign shares pairs out among people: each pair is decided by as many of them "
        "as you want, nobody gets a pair twice, and where they differ somebody rules."
    )
    if not _campaign_new.has_pairs(service):
        _ui.empty(
            f"{words} First there must be pairs of an original and a reflected row.",
            page="reflect.py", label="Reflect a dataset", icon=":material/auto_awesome:",
        )  # fmt: skip
        return
    _ui.empty(f"{words} Start one here, or choose its pairs by search or on the map first.",
              page="pairs.py", label="Choose pairs", icon=":material/manage_search:")  # fmt: skip


def main() -> None:
    """Render the page."""
    service = _ui.current_service()
    asked = st.query_params.get("campaign", "")
    if asked or "new" in st.query_params:
        st.title("Campaigns", anchor=False)
    else:
        _ui.header("Campaigns", "Share pairs out among people, follow how far they are, and settle where they differ.")
    for message, icon in st.session_state.pop(_campaign_view.SAID, ()):
        st.toast(_ui.plain(message), icon=icon)
    if asked.isdecimal():
        _campaign_view.show(service, int(asked))
        return
    if "new" in st.query_params:
        _campaign_new.show(service)
        return
    found = campaigns.campaigns(service.store)
    if st.button(
        "Start a campaign", type="primary", icon=":material/add:", key="campaign-new",
        **_ui.allowed("administer", disabled=not _campaign_new.has_pairs(service)),
    ):  # fmt: skip
        st.query_params["new"] = "1"
        st.rerun()
    if not found:
        _first_steps(service)
        return
    live = any(one.state == "open" for one in found)
    st.fragment(_list, run_every=REFRESH_SECONDS if live else None)(service)


main()
