"""A new campaign: its pairs, its people, how often each pair is decided; what that asks of everybody, before it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st

from core.board_words import count
from core.campaign import (
    USUAL_SECONDS_PER_DECISION,
    CampaignSettings,
    Load,
    mixed,
)
from core.errors import AssayError
from core.filters import PairFilter
from db import campaign_gold, campaign_progress, campaigns, pair_queue, review
from db.campaigns import LONGEST_GUIDELINES, LONGEST_NAME
from db.service import Service
from db.store import Store
from pages import _campaign_people, _campaign_settings, _campaign_view, _pair_filter, _ui
from pages._pair_filter import Facets

PREFIX = "campaign-filter-"
KEY = "campaign-new-"
WRITTEN = "campaign_filter_written"
MOST_PAIRS = 100_000


@dataclass(frozen=True)
class Chosen:
    """The pairs of the new campaign: where they come from in words, and a number for each choice by chance."""

    ids: tuple[int, ...]
    words: str
    filters: PairFilter
    seed: int


def has_pairs(service: Service) -> bool:
    """Whether there is anything to review."""
    return pair_queue.count(service.store, PairFilter(state="all")) > 0


@st.cache_data(max_entries=16, show_spinner="Collecting the pairs …", ttl=60)
def _queue(_store: Store, path: str, version: str, filters: PairFilter) -> np.ndarray:
    return pair_queue.queue(_store, filters)


def _filter(service: Service) -> tuple[PairFilter, Facets]:
    """The filter of the link, until somebody changes it here; then the link follows. And the names of what is in it."""
    there = _pair_filter.facets(service)
    params = {name: value for name, value in st.query_params.to_dict().items() if name != "new"}
    if _pair_filter.of_widgets(PREFIX) is None or params != st.session_state.get(WRITTEN):
        _pair_filter.seed(PREFIX, _pair_filter.of_url(there))
    now = _pair_filter.of_widgets(PREFIX) or PairFilter()
    with st.popover(_pair_filter.label(now), icon=":material/filter_list:", width="stretch"):
        filters = _pair_filter.panel(there, prefix=PREFIX)
    st.session_state[WRITTEN] = filters.to_params()
    st.query_params.from_dict({"new": "1", **filters.to_params()})
    return filters, there


def _pairs(service: Service) -> Chosen:
    st.markdown("**Which pairs**")
    filters, there = _filter(service)
    words = _filter_words(filters, there)
    queue = _queue(service.store, str(service.store.path), campaign_progress.version(service.store), filters)
    n = len(queue)
    if n == 0:
        return Chosen((), "", filters, 0)
    left, right = st.columns([1, 1], vertical_alignment="bottom")
    how = left.segmented_control(
        f"Of these {n:,} pairs", ["All", "A random share", "The first"], default="All", required=True, key=f"{KEY}how",
        help="“The first” takes them in the order of the filter.",
    )  # fmt: skip
    if how == "All":
        ids = queue[:MOST_PAIRS]
        if n > MOST_PAIRS:
            st.warning(f"{n:,} pairs pass the filter; a campaign takes the first {MOST_PAIRS:,}.")
        return Chosen(tuple(ids.tolist()), f"all {count(len(ids), 'pair')}: {words}", filters, 0)
    size = int(
        right.number_input("Number of pairs", 1, min(n, MOST_PAIRS), min(n, 100), key=f"{KEY}size-{min(n, MOST_PAIRS)}")
    )
    if how == "The first":
        return Chosen(tuple(queue[:size].tolist()), f"the first {size:,}: {words}", filters, 0)
    seed = n  # the same filter gives the same share, until it holds other pairs
    found = np.random.default_rng(seed).choice(n, size=size, replace=False)
    return Chosen(tuple(queue[found].tolist()), f"{size:,} by chance of {n:,}: {words}", filters, seed)


def _filter_words(filters: PairFilter, there: Facets) -> str:
    """The filter as people read it, with the names of what it asks for."""
    words = [filters.state, filters.order]
    if filters.similar_to:
        words.append(f"to pair {filters.similar_to}")
    if filters.rule:
        words.append(f"rule {there.rules.get(filters.rule, filters.rule)}")
    if filters.text:
        words.append(f"“{filters.text}”{' as whole words' if filters.words else ''}")
    if filters.pair_list:
        words.append(f"list {there.lists.get(filters.pair_list, filters.pair_list)}")
    words += [there.datasets.get(one, f"dataset {one}") for one in filters.datasets]
    words += [*filters.stages, *filters.methods, *filters.proposals]
    words += [f"decided by {there.people.get(one, one)}" for one in filters.reviewers]
    ranges = [(label, getattr(filters, name)) for name, label in _pair_filter.OWN_RANGES.items()]
    ranges += [
        (f"{there.scorer_names.get(one.scorer_id, 'a score')} of the reflected", (one.low, one.high))
        for one in filters.scores
    ]
    for label, (low, high) in ranges:
        if low is not None and high is not None:
            words.append(f"{label} {low:g} to {high:g}")
        elif low is not None or high is not None:
            words.append(f"{label} {'at least' if high is None else 'at most'} {low if high is None else high:g}")
    return ", ".join(words)[:500]


def _people(service: Service) -> tuple[tuple[str, ...], bool, int]:
    """Who takes part, whether everybody does, and how often each pair is decided."""
    st.markdown("**Who decides them**")
    left, right = st.columns([1, 1])
    overlap = int(
        right.number_input(
            "Decisions on each pair", 1, 20, 2, key=f"{KEY}overlap",
            help="By different people. With 2 or more a pair counts as decided when all of them say the same; where "
            "they differ somebody rules on it.",
        )
    )  # fmt: skip
    everybody = left.toggle("Everybody who may review", key=f"{KEY}everybody", help="Also people who come later.")
    named = () if everybody else _campaign_people.pick_people(service, "People", key=f"{KEY}people", default=())
    return named, everybody, overlap


def _gold(service: Service, chosen: Chosen) -> dict[int, str]:
    """Gold pairs as chosen; what cannot be read is said in place."""
    left, right = st.columns([1, 2])
    n = int(
        left.number_input(
            "Gold pairs from earlier decisions", 0, 500, 0, key=f"{KEY}gold",
            help="Pairs whose verdict is known are mixed in and look like any other; they show how sure each person "
            "is. Ruled ones come first, then those on which two people agree. In a campaign with two or more decisions "
            "a pair, a gold pair that only one person has decided is open again until enough people agree.",
        )
    )  # fmt: skip
    text = right.text_input(
        "Gold pairs by hand", placeholder="12 accept, 40 reject", key=f"{KEY}gold-text", max_chars=5000,
        help="The number of a pair and the verdict that is expected.",
    )  # fmt: skip
    by_hand = campaign_gold.by_hand(text or "")
    campaign_gold.check_pairs(service.store, by_hand)
    gold = campaign_gold.from_decided(service.store, chosen.filters, n=n, seed=chosen.seed)
    if n > len(gold):
        st.caption(f"{len(gold):,} decided pairs pass this filter, so there are no more gold pairs than that.")
    return {**gold, **by_hand}


def _more(service: Service) -> dict[str, Any]:
    """What few people change."""
    with st.expander(
        "Blind review, order, adjudicators, gold pairs shown, second looks, leases", icon=":material/tune:"
    ):
        values: dict[str, Any] = {
            "blind": st.toggle(
                "Blind", value=True, key=f"{KEY}blind",
                help="Others' verdicts and the student's proposal are hidden from who decides.",
            ),
            "shuffled": st.toggle(
                "Each person gets the pairs in another order", value=True, key=f"{KEY}shuffled",
                help="Spreads the overlap; off: everybody gets them in the order of the filter.",
            ),
        }  # fmt: skip
        st.caption("These two stay as they are for good; what follows can be changed later.")
        return values | _campaign_settings.fields(service, CampaignSettings(), key=KEY)


def _preview(
    service: Service, *, ids: Sequence[int], n_gold: int, overlap: int, n_people: int, everybody: bool
) -> None:
    """What it asks of everybody, in one line."""
    seconds = campaign_gold.median_seconds(service.store)
    each_seconds = seconds or USUAL_SECONDS_PER_DECISION
    n_pairs = len(ids)
    load = Load(n_pairs, overlap, n_people)
    words = [f"**{count(n_pairs, 'pair')} × {overlap} = {count(load.n_decisions, 'decision')}**"]
    if n_gold:
        words.append(f"{n_gold:,} of the pairs gold")
    if n_people:
        words.append(
            f"{n_people} {'person' if n_people == 1 else 'people'}, about {count(load.each or 0, 'decision')} each"
        )
        why = "the median here so far" if seconds else "a guess, nothing was timed here yet"
        total = _ui.duration(load.seconds_each(each_seconds))
        words.append(f"about {total} each at {each_seconds:.0f} s a decision ({why})")
    else:
        words.append("shared among everybody who comes" if everybody else "nobody is named yet")
    st.info(" · ".join(words), icon=":material/calculate:")
    decided = len(review.decided_among(service.store, ids)) if overlap > 1 else 0
    if decided:
        st.caption(
            f"{decided:,} of these pairs {'is' if decided == 1 else 'are'} decided already. What one person decided is "
            f"open again until {overlap} people agree; rulings stay."
        )


def show(service: Service) -> None:
    """The form; nothing is made before the button is pressed."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader("A new campaign", anchor=False, width="stretch")
        st.page_link("campaigns.py", label="All campaigns", icon=":material/arrow_back:")
    if not has_pairs(service):
        _ui.empty("There are no pairs to review yet.", page="reflect.py", label="Reflect a dataset")
        return
    with st.container(border=True):
        name = st.text_input("Name", max_chars=LONGEST_NAME, key=f"{KEY}name", placeholder="Pilot, week 12")
        chosen = _pairs(service)
    if not chosen.ids:
        st.warning("No pair passes this filter. Widen it.", icon=":material/filter_alt_off:")
        return
    with st.container(border=True):
        people, everybody, overlap = _people(service)
    with st.container(border=True):
        st.markdown("**How they decide**")
        guidelines = st.text_area(
            "Guidelines", key=f"{KEY}guidelines", height=150, max_chars=LONGEST_GUIDELINES,
            placeholder="What makes a reflected row better? When to edit, when to reject? Markdown, shown beside the "
            "work; you can change it later, and every decision knows which version was shown.",
        )  # fmt: skip
        try:
            gold = _gold(service, chosen)
        except AssayError as error:
            st.error(_ui.plain(str(error)))
            return
        more = _more(service)
    ids = mixed(chosen.ids, list(gold), seed=chosen.seed)
    _preview(service, ids=ids, n_gold=len(gold), overlap=overlap, n_people=len(people), everybody=everybody)
    if st.button(
        "Start the campaign", type="primary", icon=":material/flag:", key=f"{KEY}start", **_ui.allowed("administer")
    ):
        _start(service, name=name, ids=ids, people=people, everybody=everybody, overlap=overlap,
               guidelines=guidelines, gold=gold, chosen=chosen, more=more)  # fmt: skip


def _start(
    service: Service,
    *,
    name: str,
    ids: Sequence[int],
    people: Sequence[str],
    everybody: bool,
    overlap: int,
    guidelines: str,
    gold: Mapping[int, str],
    chosen: Chosen,
    more: Mapping[str, Any],
) -> None:
    try:
        if not people and not everybody:
            st.error("Name the people who decide, or let everybody who may review take part. Nothing was made.")
            return
        settings = CampaignSettings(
            **{key: value for key, value in more.items() if key != "blind"}, source=chosen.words, seed=chosen.seed
        )
        campaign_id = campaigns.create(
            service.store, name=name, pair_ids=ids, people=people, overlap=overlap, guidelines=guidelines,
            gold=gold, blind=more["blind"], created_by=_ui.reviewer() or None, settings=settings,
        )  # fmt: skip
    except AssayError as error:
        st.error(_ui.plain(str(error)))
        return
    for key in [key for key in st.session_state if str(key).startswith((KEY, PREFIX))]:
        del st.session_state[key]
    st.session_state[_campaign_view.SAID] = [("The campaign is open.", ":material/flag:")]
    st.query_params.clear()
    st.query_params["campaign"] = str(campaign_id)
    st.rerun()
