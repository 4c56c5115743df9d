"""Team progress: who decided how much and how, live, and how people stand to the student's proposals."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from core.charts import review as charts
from db import review
from pages import _ui

LIVE_SECONDS = 2

COLUMNS = {
    "reviewer": st.column_config.TextColumn("Reviewer", pinned=True),
    "n_decisions": st.column_config.NumberColumn("Decisions", format="localized"),
    "n_accept": st.column_config.NumberColumn("✓ Accepted"),
    "n_edit": st.column_config.NumberColumn("✎ Edited"),
    "n_mixed": st.column_config.NumberColumn("½ One of two texts"),
    "n_reject": st.column_config.NumberColumn("✗ Rejected"),
    "n_skip": st.column_config.NumberColumn("Skipped"),
    "n_flag": st.column_config.NumberColumn("⚑ Flagged"),
    "median_seconds": st.column_config.NumberColumn("Median seconds", format="%.1f", help="On screen before a press"),
    "first_at": st.column_config.DatetimeColumn("First (UTC)", format="YYYY-MM-DD HH:mm"),
    "last_at": st.column_config.DatetimeColumn("Latest (UTC)", format="YYYY-MM-DD HH:mm"),
}


def totals(progress: dict[str, Any], agreement: charts.Agreement) -> None:
    """The numbers on top."""
    pairs, decided = progress["n_pairs"], progress["n_decided"]
    cells = st.columns(5)
    cells[0].metric(
        "Pairs decided", f"{decided:,}", f"of {_ui.compact(pairs)}", delta_color="off", delta_arrow="off", border=True
    )
    cells[1].metric(
        "✓ Accepted", _ui.number(progress["n_accepted"]), border=True,
        help="As the teacher wrote it, after an edit, or one of the two texts.",
    )  # fmt: skip
    cells[2].metric("✗ Rejected", _ui.number(progress["n_rejected"]), border=True)
    cells[3].metric("⚑ Flagged", _ui.number(progress["n_flagged"]), border=True)
    share = "—" if agreement.share is None else f"{agreement.share:.0%}"
    cells[4].metric(
        "As proposed",
        share,
        border=True,
        help="As the student proposed: accepted where it chose the reflected pair, rejected where it did not. "
        "Taking one of the two texts counts as neither.",
    )
    st.progress(decided / pairs if pairs else 0.0)


def people(rows: list[dict[str, Any]], decided: list[dict[str, Any]]) -> None:
    """Table of the reviewers, their verdicts, and how these stand to the student's proposals."""
    st.subheader("Reviewers", anchor=False)
    table = pd.DataFrame(rows)[list(COLUMNS)]
    st.dataframe(table, column_config=COLUMNS, hide_index=True, key="team_table")
    left, right = st.columns(2, gap="large")
    with left:
        st.markdown("**Verdicts by reviewer**")
        _ui.chart(charts.by_reviewer(rows), key="team_by_reviewer", data=table, name="verdicts-by-reviewer")
    with right:
        st.markdown("**What people did where the student proposed …**")
        _ui.chart(charts.proposals(decided), key="team_proposals", data=decided, name="proposals-and-verdicts")
        st.caption("A proposal is a guess from the student's losses. Do not export one that people often overrule.")


@st.fragment(run_every=LIVE_SECONDS)
def live() -> None:
    """Everything on this page; it follows the decisions of others while it is open."""
    store = _ui.current_service().store
    progress = review.counts(store)
    decided = review.proposal_agreement(store)
    found = review.team_progress(store)
    called = _ui.people_names(store, (row["reviewer"] for row in found))
    rows = [{**row, "reviewer": called[row["reviewer"]]} for row in found]
    totals(progress, charts.agreement(decided))
    if not rows:
        _ui.empty(
            f"**{progress['n_pairs']:,} pairs wait, and nobody has decided one yet.** The first press shows up here.",
            page="review.py",
            label="Start reviewing",
        )
        return
    st.subheader("Decisions over time", anchor=False)
    timeline = review.decisions_over_time(store)
    _ui.chart(charts.over_time(timeline), key="team_over_time", data=timeline, name="decisions-over-time")
    people(rows, decided)


_ui.header("Progress", f"Who decided how much, and how. The page follows the team every {LIVE_SECONDS} seconds.")
if review.any_pairs(_ui.current_service().store):
    live()
else:
    _ui.empty(
        "**There are no pairs yet, so there is nothing to decide.** Reflect on a dataset first.",
        page="reflect.py",
        label="Reflect on a dataset",
    )
