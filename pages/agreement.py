"""Agreement: how far reviewers agree with each other, with adjudication, with gold pairs and with themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from core.campaign import Campaign
from core.charts import agreement as charts
from core.reviewer_agreement import CODINGS, Agreement, Matches, ReviewerAgreement, number, said
from db import adjudication, agreement, campaigns, queries
from db.store import Store
from pages import _choose, _pick, _rows, _ui

PAGE = "agreement"
CODING_WORDS = {"verdicts": "Five verdicts", "accept or reject": "Accept or reject"}
BY_WORDS = {"all": "all pairs together", "stage": "stage", "method": "method", "dataset": "dataset"}
MOST_IN_FIGURE = 30


@st.cache_data(max_entries=32, show_spinner="Reading the decisions …")
def _agreement(
    _store: Store, path: str, version: str, campaign_id: int | None, dataset_id: int | None, by: str, coding: str
) -> Agreement:
    return agreement.agreement(_store, campaign_id=campaign_id, dataset_id=dataset_id, by=by, coding=coding)


# --- what is asked for ---


def _one_of(label: str, names: Mapping[int, str], *, parameter: str, everything: str) -> int | None:
    """A select box over ids with a first line for all of them; the choice stands in the URL."""
    options: list[int | None] = [None, *names]
    asked = next((i for i in _choose.numbers(parameter) if i in names), None)
    labels = _ui.distinct({None: everything, **names}, tell=lambda i: f"number {i}")
    chosen = st.selectbox(
        label,
        options,
        index=options.index(asked),
        format_func=labels.__getitem__,
        key=f"{PAGE}-{parameter}-{_rows.identity(tuple(names))}",
    )
    if chosen is None:
        st.query_params.pop(parameter, None)
    else:
        st.query_params[parameter] = str(chosen)
    return chosen


def _by(store: Store, version: str, dataset_ids: tuple[int, ...]) -> str:
    keys = _choose.category_keys(store, str(store.path), version, dataset_ids)
    words = BY_WORDS | {f"category:{key}": f"column {key[:60]}" for key in keys}
    options = list(words)
    asked = st.query_params.get("by", "stage")
    chosen = st.selectbox(
        "Tell pairs apart by",
        options,
        index=options.index(asked if asked in words else "stage"),
        format_func=words.__getitem__,
        key=f"{PAGE}-by-{_rows.identity(tuple(options))}",
    )
    st.query_params["by"] = chosen
    return chosen


# --- figures ---


def _metrics(found: Agreement) -> None:
    cells = st.columns(4)
    alpha = found.alpha
    cells[0].metric(
        "Pairs decided by two or more", _ui.compact(found.n_shared), f"of {found.n_pairs:,} decided",
        delta_color="off", delta_arrow="off", border=True,
        help=f"Of {found.n_pairs:,} pairs with a decision.",
    )  # fmt: skip
    cells[1].metric(
        "All said the same", "—" if found.share_unanimous is None else f"{found.share_unanimous:.0%}",
        f"{found.n_unanimous:,} of {found.n_shared:,}", delta_color="off", delta_arrow="off", border=True,
        help=f"{found.n_unanimous:,} of {found.n_shared:,} pairs.",
    )  # fmt: skip
    interval = None if alpha.low is None else f"{number(alpha.low)} to {number(alpha.high)}"
    cells[2].metric(
        "Krippendorff's α", number(alpha.value), interval, delta_color="off", delta_arrow="off", border=True,
        help=f"Over {alpha.n_values:,} verdicts on {alpha.n_units:,} pairs; below it the 95 % interval. 1 is full "
        "agreement, 0 what chance would give." + (f" {_ui.plain(alpha.reason)}" if alpha.reason else ""),
    )  # fmt: skip
    settled = "—" if found.share_settled is None else f"{found.share_settled:.0%}"
    cells[3].metric(
        "One verdict after adjudication", settled, f"{found.n_open:,} disputed, still open", delta_color="off",
        delta_arrow="off", border=True,
        help=f"{found.n_unanimous:,} unanimous and {found.n_adjudicated:,} adjudicated of {found.n_shared:,} pairs.",
    )  # fmt: skip


def _pairwise(found: Agreement, names: Mapping[str, str], key: str) -> None:
    st.subheader("Who agrees with whom", anchor=False)
    if not found.pairwise:
        st.caption("No two people have decided the same pair.")
        return
    busy = sorted(found.reviewers, key=lambda one: (-one.n_shared, one.identity))[:MOST_IN_FIGURE]
    shown = sorted(one.identity for one in busy if one.n_shared)
    called = {(names[a], names[b]): kappa for (a, b), kappa in found.pairwise.items()}
    _ui.chart(
        charts.pairwise_figure([names[one] for one in shown], called, dark=st.context.theme.type == "dark"),
        key=f"pairwise-{key}",
        data=[
            {"reviewer": a, "other reviewer": b, "kappa": kappa.value, "low": kappa.low, "high": kappa.high,
             "pairs": kappa.n, "observed agreement": kappa.observed, "expected by chance": kappa.expected,
             "why not computable": kappa.reason}
            for (a, b), kappa in found.pairwise.items()
        ],
        name="agreement-pairwise",
    )  # fmt: skip
    more = f" The {MOST_IN_FIGURE} with the most shared pairs." if len(found.reviewers) > len(shown) > 29 else ""
    st.caption(f"Cohen's κ over the pairs that both decided. “?”: too alike or too few to compute; point at it.{more}")


def _confusion(found: Agreement, names: Mapping[str, str], key: str) -> None:
    st.subheader("Which verdicts meet", anchor=False)
    if not found.pairwise:
        st.caption("Nothing to compare yet.")
        return
    options: list[tuple[str, str] | None] = [None, *found.confusion]
    tags = {pair: f"{i}" for i, pair in enumerate(options) if pair is not None}
    asked = next((pair for pair, tag in tags.items() if tag == st.query_params.get("two")), None)
    chosen = st.selectbox(
        "Of whom",
        options,
        index=options.index(asked),
        format_func=lambda two: "everybody" if two is None else f"{names[two[0]]} and {names[two[1]]}",
        key=f"{PAGE}-two-{key}",
        label_visibility="collapsed",
    )
    if chosen is None:
        st.query_params.pop("two", None)
    else:
        st.query_params["two"] = tags[chosen]
    table = found.met if chosen is None else found.confusion[chosen]
    row_title, column_title = ("one said", "another said") if chosen is None else (names[chosen[0]], names[chosen[1]])
    _ui.chart(
        charts.confusion_figure(
            table, found.categories, row_title=row_title, column_title=column_title,
            dark=st.context.theme.type == "dark",
        ),
        key=f"confusion-{key}-{tags.get(chosen, 'all') if chosen else 'all'}",
        data=[
            {row_title: charts.WORDS[a], column_title + " (column)": charts.WORDS[b], "times": float(table[i, j])}
            for i, a in enumerate(found.categories)
            for j, b in enumerate(found.categories)
        ],
        name="agreement-verdicts",
    )  # fmt: skip
    st.caption(
        "How often two verdicts met on one pair; the diagonal is agreement. With more than two people on a pair each "
        "meeting counts as a share, so that the sum stays the number of verdicts."
        if chosen is None
        else f"Rows are {_ui.plain(row_title)}, columns {_ui.plain(column_title)}."
    )


def _groups(found: Agreement, key: str) -> None:
    st.subheader(f"By {BY_WORDS.get(found.by, found.by.removeprefix('category:'))}", anchor=False)
    if not found.groups:
        st.caption("No pair was decided by two people.")
        return
    lines = [
        charts.Line(one.name, one.n_pairs, one.alpha.value, one.alpha.low, one.alpha.high, one.alpha.reason)
        for one in found.groups
    ]
    _ui.chart(
        charts.forest_figure(lines, title="Krippendorff's α with its 95 % interval"),
        key=f"groups-{key}",
        data=[
            {"kind": one.name, "pairs": one.n_pairs, "unanimous": one.n_unanimous, "alpha": one.alpha.value,
             "low": one.alpha.low, "high": one.alpha.high, "why not computable": one.alpha.reason}
            for one in found.groups
        ],
        name="agreement-by-kind",
    )  # fmt: skip
    best = [one for one in found.groups if one.alpha.value is not None]
    if len(best) > 1:
        low = min(best, key=lambda one: one.alpha.value or 0.0)
        high = max(best, key=lambda one: one.alpha.value or 0.0)
        st.caption(
            _ui.plain(
                f"Lowest on {low.name}: α {number(low.alpha.value)} over {low.n_pairs:,} pairs; "
                f"highest on {high.name}: α {number(high.alpha.value)} over {high.n_pairs:,}."
            )
        )


# --- people ---


def _share(one: Matches) -> str:
    if one.share is None:
        return "—"
    return f"{one.share:.0%} of {one.n:,} ({one.low:.0%}–{one.high:.0%})"


def _why_none(one: ReviewerAgreement) -> str:
    if one.rest.value is not None:
        return ""
    return one.rest.reason or "" if one.n_shared else "No pair of theirs was decided by anybody else."


def _reviewers(found: Agreement, names: Mapping[str, str], key: str) -> None:
    st.subheader("Each reviewer", anchor=False)
    ordered = sorted(found.reviewers, key=lambda one: (-one.n_decisions, one.identity))
    table = pd.DataFrame(
        [
            {
                "Reviewer": names[one.identity],
                "Pairs decided": one.n_decisions,
                "Shared": one.n_shared,
                "κ with the others": one.rest.value,
                "95 % interval": "—" if one.rest.low is None else f"{number(one.rest.low)} to {number(one.rest.high)}",
                "on n": one.rest.n,
                "Adjudicated as said": _share(one.upheld),
                "Gold pairs right": _share(one.gold),
                "Same at second look": _share(one.again),
                "Why no κ": _why_none(one),
            }
            for one in ordered
        ]
    )
    st.dataframe(
        table,
        hide_index=True,
        placeholder="—",
        column_config={
            "Reviewer": st.column_config.TextColumn(width="medium", pinned=True),
            "κ with the others": st.column_config.NumberColumn(
                format="%.2f", help="With the verdict that most of the others gave; pairs without one are left out."
            ),
            "on n": st.column_config.NumberColumn(help="Pairs that went into κ.", format="localized"),
            "Pairs decided": st.column_config.NumberColumn(format="localized"),
            "Shared": st.column_config.NumberColumn(format="localized", help="Pairs that others decided too."),
            "Adjudicated as said": st.column_config.TextColumn(help="Share of adjudicated pairs (95 % interval)."),
            "Same at second look": st.column_config.TextColumn(help="The blind second look against the first."),
            "Why no κ": st.column_config.TextColumn(width="large"),
        },
        key=f"reviewers-{key}",
    )
    st.download_button(
        "Table as CSV", data=lambda: _ui.csv_bytes(_reviewer_rows(ordered)), file_name="agreement-reviewers.csv",
        mime="text/csv", type="tertiary", icon=":material/download:", key=f"reviewers-csv-{key}", on_click="ignore",
    )  # fmt: skip


def _reviewer_rows(reviewers: Sequence[ReviewerAgreement]) -> list[dict[str, Any]]:
    made = []
    for one in reviewers:
        row: dict[str, Any] = {
            "reviewer": one.identity, "pairs": one.n_decisions, "shared": one.n_shared, "tied": one.n_tied,
            "kappa_others": one.rest.value, "low": one.rest.low, "high": one.rest.high, "n": one.rest.n,
            "why_no_kappa": _why_none(one) or None, "kappa_adjudicated": one.adjudicated.value,
            "kappa_second_look": one.again_kappa.value,
        }  # fmt: skip
        for name, share in (("adjudicated", one.upheld), ("gold", one.gold), ("second_look", one.again)):
            row |= {f"{name}_n": share.n, f"{name}_same": share.n_same, f"{name}_share": share.share}
        made.append(row)
    return made


# --- disputes ---


def _disputed(
    found: Agreement, names: Mapping[str, str], campaign: Campaign | None, key: str, *, n_to_rule: int
) -> None:
    """``n_to_rule``: disputes of the campaign that wait for whoever looks."""
    st.subheader("Disputed pairs", anchor=False)
    if not found.disputed:
        st.caption("None: wherever two people decided, they said the same." if found.n_shared else "None yet.")
        return
    # Who is still to decide blind must not read here what the others said.
    hidden = campaign is not None and campaign.settings.blind and campaign.state != "closed"
    hidden = hidden and not _ui.may("administer")
    lines = []
    for one in found.disputed:
        counts = {verdict: sum(v == verdict for _, v in one.said) for verdict in found.categories}
        lines.append(
            {
                "Pair": one.pair_id,
                "State": "adjudicated: " + charts.WORDS[one.adjudicated] if one.adjudicated else "open",
                "Said": " · ".join(f"{n} {charts.WORDS[verdict]}" for verdict, n in counts.items() if n),
                "By": "hidden while the campaign is blind"
                if hidden
                else ", ".join(f"{names[who]}: {charts.WORDS[verdict]}" for who, verdict in one.said),
                "Agreeing": 100 * one.share_agreeing,
            }
        )
    ids = [one.pair_id for one in found.disputed]
    state = st.dataframe(
        pd.DataFrame(lines),
        hide_index=True,
        height="content" if len(lines) <= 11 else 420,
        on_select="rerun",
        selection_mode="single-row",
        column_config={
            "Pair": st.column_config.NumberColumn(format="%d", width="small"),
            "By": st.column_config.TextColumn(width="large"),
            "Agreeing": st.column_config.NumberColumn(
                format="%.0f %%", help="Of all two-by-two comparisons on the pair."
            ),
        },
        key=f"disputed-{key}-{_rows.identity(tuple(ids))}",
    )
    with st.container(horizontal=True):
        for place in state["selection"]["rows"][:1]:
            pair = {"pair": str(ids[place])}
            st.page_link("review.py", label=f"Open pair {ids[place]}", icon=":material/compare:", query_params=pair)
            st.page_link("history.py", label="Its history", icon=":material/history:", query_params=pair)
        if campaign is not None and n_to_rule:
            st.page_link(
                "review.py", label=f"Adjudicate {n_to_rule:,} open", icon=":material/gavel:",
                query_params={"adjudicate": str(campaign.campaign_id)},
            )  # fmt: skip
    n_disputed = found.n_open + found.n_adjudicated
    more = "" if n_disputed <= len(ids) else f" The {len(ids):,} most disputed of {n_disputed:,}."
    st.caption(f"Open ones first, those with the least agreement before others. Tick one to open it.{more}")


def main() -> None:
    _ui.header(
        "Agreement",
        "How far people agree on the same pairs: chance-corrected, with n and an interval, or why there is none.",
    )
    store = _ui.current_service().store
    version = agreement.version(store)
    found_campaigns = {one.campaign_id: one for one in campaigns.campaigns(store)}
    datasets = {row["dataset_id"]: row["name"] for row in queries.datasets(store) if row["n_pairs"]}
    if not datasets:
        _ui.empty("There is no pair yet, so nobody can agree or disagree.", page="reflect.py", label="Reflect on rows")
        return
    cells = st.columns([3, 3, 3], vertical_alignment="bottom")
    with cells[0]:
        names = {i: one.name for i, one in found_campaigns.items()}
        campaign_id = _one_of("Campaign", names, parameter="campaign", everything="all, and outside of campaigns")
    with cells[1]:
        dataset_id = _one_of("Dataset", datasets, parameter="dataset", everything="all datasets")
    with cells[2]:
        by = _by(store, version, (dataset_id,) if dataset_id is not None else tuple(datasets))
    coding = _pick.switch("Verdicts", {one: CODING_WORDS[one] for one in CODINGS}, parameter="coding")
    found = _agreement(store, str(store.path), version, campaign_id, dataset_id, by, coding)
    if not found.n_pairs:
        _ui.empty("Nobody has decided a pair here yet.", page="review.py", label="Review pairs")
        return
    called = _ui.people_names(store, (one.identity for one in found.reviewers))
    campaign = found_campaigns.get(campaign_id) if campaign_id is not None else None
    st.markdown(_ui.plain(said(found)))
    if not found.n_shared:
        _ui.empty(
            "A campaign with an overlap of two or more gives the same pair to several people.",
            page="campaigns.py", label="Make a campaign", icon=":material/flag:",
        )  # fmt: skip
    else:
        _metrics(found)
    key = _rows.identity(version, campaign_id, dataset_id, by, coding)
    if found.n_shared:
        left, right = st.columns(2, gap="large")
        with left:
            _pairwise(found, called, key)
        with right:
            _confusion(found, called, key)
    _reviewers(found, called, key)
    if found.n_shared:
        if by != "all":
            _groups(found, key)
        n_to_rule = len(adjudication.disputed(store, campaign_id, _ui.reviewer())) if campaign_id is not None else 0
        _disputed(found, called, campaign, key, n_to_rule=n_to_rule)
        if campaign is not None:
            st.caption(
                "Whatever was decided on the pairs of the campaign counts here, before it and outside of it too; its "
                "own page, and adjudication, count what was decided for it."
            )
        st.caption(
            "Each person counts once per pair, with the latest verdict that stands; decisions taken back, on whole "
            "filters, and in adjudication do not count. Outside of blind campaigns a person may have seen what was "
            "decided before, so agreement there is no measure of independent judgement."
        )


main()
