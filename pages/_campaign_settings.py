"""The settings of a campaign that may change while it runs: their fields, the popover, and each change in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from core.campaign import LONGEST_LEASE_SECONDS, USUAL_LEASE_SECONDS, Campaign, CampaignSettings
from core.errors import AssayError
from db import campaigns
from db.service import Service
from pages import _campaign_people, _ui

MOST_AFTER = 1000
FROZEN = (
    "How many people decide each pair, whether they work blind, and the order in which they get the pairs stay as they "
    "were when the campaign was made: the decisions before and after such a change would not mean the same and could "
    "not be counted together. For other ones start a new campaign."
)


def fields(service: Service, now: CampaignSettings, *, key: str, disabled: bool = False) -> dict[str, Any]:
    """The fields of ``core.campaign.CHANGEABLE``; what nobody touched comes back exactly as it is ``now``."""
    percent = round(100 * now.second_look_share)
    shown: dict[str, Any] = {
        "adjudicators": _campaign_people.pick_people(
            service, "Adjudicators, beside the admins", key=f"{key}adjudicators", default=now.adjudicators,
            disabled=disabled,
        ),
        "own_disputes": st.toggle(
            "Adjudicators may rule on disputes in which they have a word", now.own_disputes, key=f"{key}own",
            disabled=disabled,
        ),
        "gold_feedback": st.toggle(
            "Say after a gold pair what was expected", now.gold_feedback, key=f"{key}feedback", disabled=disabled
        ),
    }  # fmt: skip
    left, middle, right = st.columns(3, vertical_alignment="bottom")
    share = left.number_input(
        "Come back for a second look (%)", 0, 100, percent, key=f"{key}second", disabled=disabled,
        help="This share of a person's own pairs comes back to them, blind: it shows how sure they are of themselves. "
        "It never changes what stands.",
    )  # fmt: skip
    shown["second_look_share"] = now.second_look_share if share == percent else share / 100
    shown["second_look_after"] = int(
        middle.number_input(
            "… after so many others", 0, max(MOST_AFTER, now.second_look_after), now.second_look_after,
            key=f"{key}second-after", disabled=disabled,
        )
    )  # fmt: skip
    shown["lease_seconds"] = int(
        right.number_input(
            "A silent desk keeps its pairs (s)", min(USUAL_LEASE_SECONDS, now.lease_seconds), LONGEST_LEASE_SECONDS,
            now.lease_seconds, key=f"{key}lease", disabled=disabled,
            help="A desk that is open is heard of at least once a minute. After a closed laptop or a lost connection "
            "its pairs go to others when this time is over.",
        )
    )  # fmt: skip
    return shown


def popover(service: Service, campaign: Campaign, *, version: int) -> dict[str, dict[str, Any]] | None:
    """The settings as they are; for admins, with a button that sets them anew. Returns what was changed just now.

    ``version`` changes whenever they do: fields that were open before do not bring old values back.
    """
    key = f"campaign-settings-{campaign.campaign_id}-{version}-"
    with st.popover("Settings", icon=":material/tune:", width="content"):
        wanted = fields(service, campaign.settings, key=key, disabled=not _ui.may("administer"))
        st.caption(FROZEN)
        now = campaign.settings.to_dict()
        those = {name: value for name, value in wanted.items() if value != now[name]}
        save = _ui.allowed("administer", disabled=not those, help=None if those else "Nothing differs from now.")
        if not st.button("Save the settings", type="primary", key=f"{key}save", **save):
            return None
        try:
            return campaigns.change_settings(
                service.store, campaign.campaign_id, by=_ui.reviewer() or None, **those
            )  # fmt: skip
        except AssayError as error:
            st.error(_ui.plain(str(error)), icon=":material/block:")
            return None


_LABELS = {
    "adjudicators": "adjudicators",
    "own_disputes": "rulings on own disputes",
    "gold_feedback": "what a gold pair expected is said",
    "lease_seconds": "a silent desk keeps its pairs",
    "second_look_share": "second looks",
    "second_look_after": "second looks after",
}


def change_words(details: Mapping[str, Mapping[str, Any]], known: Mapping[str, str]) -> str:
    """What an event "settings" changed, with the names of people."""
    return "; ".join(
        f"{label}: {_value(name, details[name]['from'], known)} → {_value(name, details[name]['to'], known)}"
        for name, label in _LABELS.items()
        if name in details
    )


def _value(name: str, value: Any, known: Mapping[str, str]) -> str:
    match name:
        case "adjudicators":
            return ", ".join(known.get(one, one) for one in value) or "none"
        case "lease_seconds":
            return f"{value:,} s"
        case "second_look_share":
            return f"{100 * value:.3g} %"
        case "second_look_after":
            return f"{value:,} others"
        case _:
            return "yes" if value else "no"
