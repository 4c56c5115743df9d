"""What can be changed in a campaign: its guidelines, its people, its pairs, and whether it goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import streamlit as st

from core.board_words import count
from core.campaign import Campaign
from core.errors import AssayError
from core.filters import PairFilter
from db import campaigns, pair_lists, pair_queue
from db.campaigns import LONGEST_GUIDELINES
from db.service import Service
from pages import _campaign_guidelines, _campaign_people, _campaign_settings, _campaign_view, _ui


def _do(change: Callable[[], object], said: str, icon: str) -> None:
    """Change something, say so, and draw the page anew; or say why it was refused."""
    try:
        change()
    except AssayError as error:
        st.error(_ui.plain(str(error)), icon=":material/block:")
        return
    st.session_state[_campaign_view.SAID] = [(said, icon)]
    st.rerun()


# --- guidelines ---


def guidelines(service: Service, campaign: Campaign) -> None:
    """The guidelines as people see them, an editor for admins, and every version there was."""
    st.markdown("**Guidelines**" + (f" · version {campaign.guidelines_version}" if campaign.guidelines_version else ""))
    if campaign.guidelines:
        _campaign_guidelines.shown(campaign.guidelines, key=f"campaign-guidelines-shown-{campaign.campaign_id}")
    else:
        st.caption("None yet. What is written here stands beside the work of everybody in this campaign.")
    key = f"campaign-guidelines-{campaign.campaign_id}-{campaign.guidelines_version}"
    with st.container(horizontal=True):
        with st.popover("Write", icon=":material/edit:", width="content", **_ui.allowed("administer")):
            text = st.text_area(
                "Guidelines (Markdown)", campaign.guidelines, key=key, height=320, width=620,
                max_chars=LONGEST_GUIDELINES,
            )  # fmt: skip
            st.caption("Each version is kept, and every decision knows which one its reviewer saw.")
            if st.button("Save as a new version", type="primary", key=f"{key}-save", **_ui.allowed("administer")):
                _do(
                    lambda: campaigns.change_guidelines(
                        service.store, campaign.campaign_id, text or "", by=_ui.reviewer() or None
                    ),
                    "The guidelines are saved.", ":material/edit_note:",
                )  # fmt: skip
        if campaign.guidelines_version > 1:
            with st.popover(f"{campaign.guidelines_version} versions", icon=":material/history:", width="content"):
                _versions(service, campaign)


def _versions(service: Service, campaign: Campaign) -> None:
    found = {row["version"]: row for row in campaigns.events(service.store, campaign.campaign_id) if row["version"]}
    known = _campaign_people.names(service, campaign, also=(row["done_by"] for row in found.values()))
    version = st.selectbox(
        "Version", list(found), key=f"campaign-version-{campaign.campaign_id}",
        format_func=lambda i: f"{i} · {found[i]['happened_at']:%Y-%m-%d %H:%M} UTC",
    )  # fmt: skip
    row = found[version]
    st.caption(_ui.plain(f"by {known.get(row['done_by'], row['done_by'] or 'unknown')}"))
    _campaign_guidelines.shown(row["details"]["text"], key=f"campaign-version-shown-{campaign.campaign_id}-{version}")


# --- people, pairs, state ---


def people_and_state(service: Service, campaign: Campaign) -> None:
    """Who takes part, further pairs, settings, and the buttons that pause or end it."""
    known = _campaign_people.names(service, campaign)
    st.markdown("**Who takes part**")
    if campaign.settings.everybody:
        st.caption("Everybody who may review.")
    else:
        _people(service, campaign)
    if campaign.settings.adjudicators:
        said = ", ".join(known.get(one, one) for one in campaign.settings.adjudicators)
        st.caption(_ui.plain(f"Adjudicators beside the admins: {said}"))
    with st.container(horizontal=True):
        _state_buttons(service, campaign)
        _add_pairs(service, campaign)
        _settings(service, campaign)


def changes(service: Service, campaign: Campaign) -> None:
    """Every change there was, the newest first."""
    # Drawn only where it is open: a table that is folded away keeps the width of the screen it was drawn on.
    key = f"campaign-changes-{campaign.campaign_id}"
    box = st.expander("What was changed", icon=":material/list:", key=key, on_change="rerun")
    if not box.open:
        return
    events = campaigns.events(service.store, campaign.campaign_id)
    known = _campaign_people.names(service, campaign, also=_people_of(events))
    box.dataframe(
        [
            {
                "when": row["happened_at"],
                "what": _event_words(row, known),
                "by": known.get(row["done_by"], row["done_by"] or "—"),
            }
            for row in events
        ],
        hide_index=True,
        column_config={
            "when": st.column_config.DatetimeColumn("when (UTC)", format="YYYY-MM-DD HH:mm", width=140),
            "what": st.column_config.TextColumn(width=560),
        },
    )


def _people_of(events: Sequence[Mapping[str, Any]]) -> list[str | None]:
    """Everybody whom events name."""
    named = [row["done_by"] for row in events]
    for row in events:
        named += row["details"].get("people", ())
        for was in row["details"].get("adjudicators", {}).values():
            named += was
    return named


def _settings(service: Service, campaign: Campaign) -> None:
    events = campaigns.events(service.store, campaign.campaign_id)
    version = max((row["event_id"] for row in events if row["kind"] == "settings"), default=0)
    if _campaign_settings.popover(service, campaign, version=version):
        st.session_state[_campaign_view.SAID] = [("The settings are saved; they hold from now on.", ":material/tune:")]
        st.rerun()


def _event_words(row: Mapping[str, Any], known: Mapping[str, str]) -> str:
    details = row["details"]
    match row["kind"]:
        case "created":
            return f"made, {count(details['n_pairs'], 'pair')}"
        case "guidelines":
            return f"guidelines, version {row['version']}"
        case "people":
            return f"people: {', '.join(known.get(one, one) for one in details['people'])}"
        case "settings":
            return _campaign_settings.change_words(details, known)
        case "pairs":
            return f"{count(details['n_pairs'], 'pair')} added"
        case kind:
            return str(kind)


def _people(service: Service, campaign: Campaign) -> None:
    key = f"campaign-people-{campaign.campaign_id}-{'-'.join(campaign.people)}"
    may = _ui.may("administer")
    chosen = _campaign_people.pick_people(service, "People", key=key, default=campaign.people, disabled=not may)
    if set(chosen) == set(campaign.people):
        return
    if st.button("Save the people", type="primary", key=f"{key}-save", **_ui.allowed("administer")):
        _do(
            lambda: campaigns.change_people(
                service.store, campaign.campaign_id, chosen, by=_ui.reviewer() or None
            ),
            "The people are saved; what anybody decided stays.", ":material/group:",
        )  # fmt: skip


def _state_buttons(service: Service, campaign: Campaign) -> None:
    actions = {
        "open": (("Pause", ":material/pause:", campaigns.pause), ("Close", ":material/stop:", campaigns.close)),
        "paused": (("Go on", ":material/play_arrow:", campaigns.resume), ("Close", ":material/stop:", campaigns.close)),
        "closed": (("Open again", ":material/play_arrow:", campaigns.resume),),
    }
    help_of = {
        "Pause": "No further pairs are given out; what lies on desks may be finished.",
        "Close": "No further decision counts. Decisions stay, and adjudication goes on.",
    }
    for label, icon, change in actions[campaign.state]:
        key = f"campaign-{campaign.campaign_id}-{label}"
        if st.button(label, icon=icon, key=key, **_ui.allowed("administer", help=help_of.get(label))):
            _do(
                lambda change=change: change(service.store, campaign.campaign_id, by=_ui.reviewer() or None),  # type: ignore[misc]
                f"{label}: done.", icon,
            )  # fmt: skip


def _add_pairs(service: Service, campaign: Campaign) -> None:
    with st.popover("Add pairs", icon=":material/add:", width="content", **_ui.allowed("administer")):
        lists = _ui.distinct({row["list_id"]: f"{row['name']} ({row['n_pairs']:,})" for row in
                              pair_lists.lists(service.store)})  # fmt: skip
        if not lists:
            st.caption("Pairs are added from a list, and there is none yet: save one on the page Pairs.")
            st.page_link("pairs.py", label="Pairs", icon=":material/manage_search:")
            return
        key = f"campaign-add-{campaign.campaign_id}"
        chosen = st.selectbox("List", list(lists), format_func=lists.__getitem__, key=key)
        if st.button("Add its pairs", type="primary", key=f"{key}-do", **_ui.allowed("administer")):
            _do(
                lambda: campaigns.add_pairs(
                    service.store, campaign.campaign_id, _of_list(service, chosen),
                    by=_ui.reviewer() or None,
                ),
                "The pairs are added at the end; those that were in it already stay as they are.", ":material/add:",
            )  # fmt: skip


def _of_list(service: Service, list_id: int) -> list[int]:
    wanted = PairFilter(state="all", order="as listed", pair_list=list_id)
    return [int(pair_id) for pair_id in pair_queue.queue(service.store, wanted)]
