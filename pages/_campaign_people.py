"""The people of a campaign: what they are called, and the box in which they are picked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import streamlit as st

from core import sign_in
from core.campaign import Campaign
from db import people
from db.service import Service
from pages import _ui, _who


def names(service: Service, *campaigns: Campaign, also: Iterable[str | None] = ()) -> dict[str, str]:
    """identity -> what people read: of everybody who was seen, who is named in these campaigns, and ``also``."""
    named = (one for campaign in campaigns for one in (*campaign.people, *campaign.settings.adjudicators))
    made = (campaign.created_by for campaign in campaigns)
    known = dict.fromkeys([*people.names(service.store), *named, *filter(None, made), *filter(None, also)])
    return _ui.people_names(service.store, known)


def pick_people(
    service: Service, label: str, *, key: str, default: Sequence[str], disabled: bool = False
) -> tuple[str, ...]:
    """A box of people: those who were seen here, and any identity that one types."""
    known = {row["identity"]: str(row["name"]) for row in people.people(service.store) if row["role"] != "none"}
    labels = _ui.distinct({one: known.get(one, one) for one in dict.fromkeys([*known, *default])})
    chosen = st.multiselect(
        label, list(labels), default=list(default), format_func=lambda one: labels.get(one, one), key=key,
        accept_new_options=True, disabled=disabled, placeholder="Names or e-mail addresses",
        help="People who were here before, or anybody else: type what they sign in with.",
    )  # fmt: skip
    meant = (one if one in labels else sign_in.typed_identity(one, source=_who.source()) for one in chosen)
    return tuple(dict.fromkeys(one for one in meant if one))
