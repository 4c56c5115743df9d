"""One campaign: how far it is, who does what, which pairs are disputed; drawn anew while it is open."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from core.board_words import count
from core.campaign import Campaign
from core.charts import campaign as charts
from core.errors import AssayError
from db import adjudication, campaign_progress, campaigns
from db.campaign_progress import PAIR_STATES, PersonProgress, Progress
from db.permission import Actor
from db.service import Service
from pages import _campaign_actions, _campaign_people, _pick, _ui

REFRESH_SECONDS = 5
SAID = "campaign_said"
MOST_SHOWN = 2_000
STATE_WORDS = {"open": "● open", "paused": "‖ paused", "closed": "■ closed"}
SHOWN = {"disputed": "≠ Disputed", "waiting": "Waiting", "agreed": "✓ Agreed", "adjudicated": "⚖ Adjudicated",
         "all": "All"}  # fmt: skip
SHOWN_OF_ONE = {"waiting": "Waiting", "agreed": "✓ Decided", "adjudicated": "⚖ Adjudicated", "all": "All"}
"""With one decision a pair nobody can differ."""


def state_word(campaign: Campaign, progress: Progress) -> str:
    """The state of a campaign, with a sign."""
    if campaign.state == "open" and not progress.n_left:
        return "≠ to settle" if progress.states["disputed"] else "✓ complete"
    return STATE_WORDS[campaign.state]


def left_words(campaign: Campaign, progress: Progress) -> str:
    """How long it takes to the last decision."""
    if not progress.n_left:
        return "done"
    return _ui.duration(progress.seconds_left) if campaign.state == "open" else "—"


def show(service: Service, campaign_id: int) -> None:
    """The campaign; its numbers are drawn anew every few seconds while it is open."""
    try:
        campaign = campaigns.campaign(service.store, campaign_id)
    except AssayError as error:
        st.warning(_ui.plain(str(error)), icon=":material/link_off:")
        st.page_link("campaigns.py", label="All campaigns", icon=":material/arrow_back:")
        return
    known = _campaign_people.names(service, campaign)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader(_ui.plain(campaign.name), anchor=False, width="stretch")
        st.page_link("campaigns.py", label="All campaigns", icon=":material/arrow_back:")
    _about(campaign, known)
    live = campaign.state == "open"
    st.fragment(_live, run_every=REFRESH_SECONDS if live else None)(service, campaign_id)
    left, right = st.columns(2, gap="large")
    with left:
        _campaign_actions.guidelines(service, campaign)
    with right:
        _campaign_actions.people_and_state(service, campaign)
    _campaign_actions.changes(service, campaign)
    _pairs(service, campaign)


def _about(campaign: Campaign, known: Mapping[str, str]) -> None:
    each = f"{campaign.overlap} decisions a pair" if campaign.overlap > 1 else "one decision a pair"
    words = [count(campaign.n_pairs, "pair"), each, "blind" if campaign.settings.blind else "not blind"]
    if campaign.n_gold:
        words.append(count(campaign.n_gold, "gold pair"))
    if campaign.settings.second_look_share:
        words.append(f"{campaign.settings.second_look_share:.0%} come back for a second look")
    if campaign.created_by:
        words.append(f"by {known.get(campaign.created_by, campaign.created_by)}")
    if campaign.settings.source:
        words.append(campaign.settings.source)
    st.caption(_ui.plain(" · ".join(words)))


# --- what changes while people work ---


def _live(service: Service, campaign_id: int) -> None:
    campaign = campaigns.campaign(service.store, campaign_id)
    progress = campaign_progress.progress(service.store, campaign_id)
    here = _ui.actor()
    _links(service, campaign, progress, here)
    _numbers(campaign, progress)
    counts = charts.state_counts(progress.states, progress.waiting, overlap=campaign.overlap)
    _ui.chart(
        charts.states_figure(counts, dark=st.context.theme.type == "dark"),
        key=f"campaign-states-{campaign_id}",
        data=[{"state": row["state"], "pairs": row["n"]} for row in counts],
        name=f"campaign-{campaign_id}-states",
    )
    if not progress.n_decisions:
        st.caption("Nobody has decided anything yet. Give the link of “Review my part” to the people of this campaign.")
    left, right = st.columns([5, 3], gap="large")
    with left:
        _people_table(service, campaign, progress, here)
    with right:
        _pace(service, campaign, progress)


def _links(service: Service, campaign: Campaign, progress: Progress, here: Actor | None) -> None:
    """What one can do now: review, rule, look again, see the agreement."""
    campaign_id = str(campaign.campaign_id)
    with st.container(horizontal=True):
        if campaign.state != "closed" and _ui.may("review") and (here is None or campaign.takes_part(here.identity)):
            st.page_link("review.py", label="Review my part", icon=":material/compare:",
                         query_params={"campaign": campaign_id})  # fmt: skip
        mine = _to_rule_on(service, campaign, progress, here)
        if mine:
            st.page_link("review.py", label=f"Adjudicate {mine:,} {'pair' if mine == 1 else 'pairs'}",
                         icon=":material/gavel:", query_params={"adjudicate": campaign_id},
                         help=_not_mine(progress.states["disputed"] - mine))  # fmt: skip
        again = adjudication.second_look_ids(service.store, campaign.campaign_id, here.identity) if here else []
        if again:
            st.page_link("review.py", label=f"Look again at {len(again):,} of mine", icon=":material/replay:",
                         query_params={"second_look": campaign_id})  # fmt: skip
        st.page_link("agreement.py", label="Agreement", icon=":material/handshake:",
                     query_params={"campaign": campaign_id})  # fmt: skip
        st.page_link("history.py", label="History", icon=":material/history:",
                     query_params={"campaign": campaign_id})  # fmt: skip


def _not_mine(n: int) -> str | None:
    if not n:
        return None
    return f"{n:,} more {'has' if n == 1 else 'have'} a word of yours; others can rule on {'it' if n == 1 else 'them'}."


def _to_rule_on(service: Service, campaign: Campaign, progress: Progress, here: Actor | None) -> int:
    """How many disputed pairs this person may rule on."""
    if here is None or not progress.states["disputed"]:
        return 0
    if not here.may("administer") and here.identity not in campaign.settings.adjudicators:
        return 0
    return len(adjudication.disputed(service.store, campaign.campaign_id, here.identity))


def _numbers(campaign: Campaign, progress: Progress) -> None:
    done = progress.n_wanted - progress.n_left
    settled = progress.n_pairs - progress.states["waiting"] - progress.states["disputed"]
    with st.container(horizontal=True, gap="medium"):
        st.metric("State", state_word(campaign, progress), width="content")
        st.metric(
            "Decisions", f"{done:,} of {progress.n_wanted:,}", help="A ruling saves what was missing.", width="content"
        )
        st.metric("Pairs settled", f"{settled:,} of {progress.n_pairs:,}", width="content")
        st.metric(
            "Pace", f"{progress.per_hour:,.0f} / h" if progress.per_hour else "—", width="content",
            help=f"Decisions in the last {_ui.duration(progress.recent_seconds)}, as an hour.",
        )  # fmt: skip
        st.metric(
            "Finished in", left_words(campaign, progress), width="content",
            help="At the present pace; a dash while nobody decides, or the campaign is not open.",
        )  # fmt: skip


def _person_row(
    one: PersonProgress, known: Mapping[str, str], *, on_desk: int, share: float, you: str | None
) -> dict[str, Any]:
    own = one.identity == you
    gold = None if one.gold_accuracy is None else f"{one.n_gold_right} of {one.n_gold} ({one.gold_accuracy:.0%})"
    return {
        "person": known.get(one.identity, one.identity) + (" (you)" if own else ""),
        "decided": one.n_decided,
        "share": min(100.0, 100 * one.n_decided / share),
        "on the desk": on_desk or None,
        "median s": one.median_seconds,
        "gold right": gold if own or _ui.may("administer") else None,
        "skipped": one.n_skipped or None,
        "late": one.n_late or None,
        "last decision": one.last_at,
    }


def _people_table(service: Service, campaign: Campaign, progress: Progress, here: Actor | None) -> None:
    """Per person; how sure each is on gold pairs is for admins, and for oneself."""
    st.markdown("**People**")
    if not progress.people:
        st.caption("Nobody yet.")
        return
    known = _campaign_people.names(service, campaign, also=(one.identity for one in progress.people))
    out = Counter(row["identity"] for row in service.leases.out(campaign.campaign_id))
    share = progress.n_wanted / max(1, len(progress.people))
    you = here.identity if here is not None else None
    rows = [_person_row(one, known, on_desk=out[one.identity], share=share, you=you) for one in progress.people]
    frame = pd.DataFrame(rows).astype(dict.fromkeys(("on the desk", "skipped", "late"), "Int64"))
    hidden = [name for name in ("on the desk", "gold right", "skipped", "late") if frame[name].isna().all()]
    st.dataframe(
        frame.drop(columns=hidden),
        hide_index=True,
        height="content" if len(rows) <= 15 else 560,
        placeholder="—",
        key=f"campaign-people-{campaign.campaign_id}",
        column_config={
            "person": st.column_config.TextColumn(width=135),
            "share": st.column_config.ProgressColumn(
                "of a share", format="%.0f %%", min_value=0, max_value=100, width=95
            ),
            "on the desk": st.column_config.NumberColumn(
                "desk", width=50, help="Pairs that lie on this person's desk now."
            ),
            "decided": st.column_config.NumberColumn(width=65),
            "gold right": st.column_config.TextColumn("gold", width=90, help="Gold pairs decided as expected."),
            "median s": st.column_config.NumberColumn(format="%.0f", width=65, help="Median seconds a decision."),
            "late": st.column_config.NumberColumn(
                width=60, help="Verdicts that came when the pair had gone to others: kept, not counted."
            ),
            "last decision": st.column_config.DatetimeColumn("last", format="distance", width=95),
        },
    )


def _pace(service: Service, campaign: Campaign, progress: Progress) -> None:
    rows = campaign_progress.over_time(service.store, campaign.campaign_id)
    if not rows:
        return
    st.markdown("**Decisions over time**")
    _ui.chart(
        charts.pace_figure(rows, n_wanted=progress.n_wanted),
        key=f"campaign-pace-{campaign.campaign_id}",
        data=charts.burn_up(rows, n_wanted=progress.n_wanted),
        name=f"campaign-{campaign.campaign_id}-pace",
    )


# --- pairs ---


def _pairs(service: Service, campaign: Campaign) -> None:
    """The pairs by state. Verdicts and gold are for admins: who reviews blind must not read them here."""
    st.subheader("Pairs", anchor=False)
    shown = _pick.switch("Pairs", SHOWN if campaign.overlap > 1 else SHOWN_OF_ONE, parameter="show")
    found = campaign_progress.pairs(
        service.store, campaign.campaign_id, states=PAIR_STATES if shown == "all" else (shown,)
    )
    if not found:
        empty = {
            "disputed": "No pair is disputed: wherever all decisions of a pair are in, people said the same.",
            "waiting": "No pair waits: all have the decisions they need.",
        }
        st.caption(empty.get(shown, "No pair is in this state yet."))
        return
    open_eyes = _ui.may("administer") or not campaign.settings.blind
    rows = [_pair_row(campaign, row, open_eyes=open_eyes) for row in found[:MOST_SHOWN]]
    st.dataframe(
        pd.DataFrame(rows),
        hide_index=True,
        height="content" if len(rows) <= 10 else 400,
        placeholder="—",
        key=f"campaign-pairs-{campaign.campaign_id}-{shown}",
        column_config={
            "pair": st.column_config.NumberColumn(width=70, format="%d"),
            "open": st.column_config.LinkColumn("", display_text="History", width=70),
            "instruction": st.column_config.TextColumn(width=420),
        },
    )
    more = f"; the first {MOST_SHOWN:,} of {len(found):,}" if len(found) > MOST_SHOWN else ""
    st.download_button(
        f"These {len(rows):,} pairs as CSV{more}", data=_ui.csv_bytes(rows), mime="text/csv", type="tertiary",
        file_name=f"campaign-{campaign.campaign_id}-{shown}.csv", icon=":material/download:", on_click="ignore",
        key=f"campaign-pairs-csv-{campaign.campaign_id}-{shown}",
    )  # fmt: skip


def _pair_row(campaign: Campaign, row: Mapping[str, Any], *, open_eyes: bool) -> dict[str, Any]:
    shown = {
        "pair": row["pair_id"],
        "instruction": " ".join((row["instruction"] or "").split()),
        "stage": row["stage"],
        "decisions": f"{row['n_decisions']} of {campaign.overlap}",
        "state": "decided" if campaign.overlap == 1 and row["state"] == "agreed" else row["state"],
    }
    if open_eyes:
        shown["stands"] = (row["verdict"] or "").replace("_", " ") or None
    if campaign.n_gold and _ui.may("administer"):
        shown["gold"] = (row["gold"] or "").replace("_", " ") or None
    if open_eyes:
        shown["open"] = f"history?pair={row['pair_id']}"
    return shown
