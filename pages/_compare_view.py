"""What several rooms of the Compare page share: verdicts of a judge as a bar, links, and what one person found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa
import streamlit as st

from core.agreement import cohen_kappa
from core.charts import judging as charts
from core.charts.board import told_apart
from core.charts.judging import Bar
from core.judging import Summary
from db import judging
from db.service import Service
from db.store import Store
from pages import _rows, _ui

KIND_WORDS = {"model": "model", "person": "person", "log": "log"}
GONE = "(removed)"
MOST_ON_A_SLIDE = 6
MOST_TITLE = 80
"""Characters of a title that fit the width of a slide."""
WIDE_BARS = """<style>@media (max-width: 720px) {
[class*="st-key-wide-bars-"] {overflow-x: auto;}
[class*="st-key-wide-bars-"] .stElementContainer:has([data-testid="stPlotlyChart"]) {min-width: 620px;}
}</style>"""


@dataclass(frozen=True)
class Judged:
    """A comparison under one judge."""

    comparison: Mapping[str, Any]
    judge_id: int
    judge: str
    kind: str
    summary: Summary

    @property
    def key(self) -> str:
        """Names this line in tables and widgets."""
        return f"{self.comparison['comparison_id']}-{self.judge_id}"

    def bar(self, *, about: str | None = None) -> Bar:
        """As a bar of the figures; ``about`` replaces test set and judge."""
        found = self.summary
        return Bar(
            first=name_of(self.comparison, "first"),
            second=name_of(self.comparison, "second"),
            about=about or f"{self.comparison['dataset'] or GONE} · {self.judge}",
            win=found.win,
            tie=found.tie,
            lose=found.lose,
            unparsed=found.unparsed,
            win_score=found.win_score,
            low=found.low,
            high=found.high,
        )


def name_of(comparison: Mapping[str, Any], side: str) -> str:
    """The name of a comparison's ``first`` or ``second`` answer set."""
    return str(comparison[side] or GONE)


def judge_words(one: Judged) -> str:
    """A judge's name, with what kind of judge it is unless a model was asked here."""
    return one.judge if one.kind == judging.MODEL else f"{one.judge} ({KIND_WORDS.get(one.kind, one.kind)})"


def judged(store: Store, comparisons: Iterable[Mapping[str, Any]]) -> list[Judged]:
    """Each comparison under each of its judges who has a verdict, or an unreadable one, to show.

    Judges of one name in a comparison (the same model at two endpoints, say) are told apart by a number.
    """
    found = []
    for row in comparisons:
        names = unique([name for _, name, _ in row["judges"]])
        for (judge_id, _, kind), name in zip(row["judges"], names, strict=True):
            found.append(Judged(row, judge_id, name, kind, judging.summary(store, row["comparison_id"], judge_id)))
    return [one for one in found if one.summary.n or one.summary.unparsed]


def unique(names: Sequence[str], *, taken: Sequence[str] = ()) -> list[str]:
    """Names that differ: the second of the same name is "name (2)". None of them is one of ``taken``."""
    found: list[str] = []
    for name in names:
        number, made = 1, name
        while made in found or made in taken:
            number += 1
            made = f"{name} ({number})"
        found.append(made)
    return found


def open_button(comparison_id: int, *, key: str, label: str = "Open the comparison") -> None:
    """To one comparison, from another room of this page."""

    def go() -> None:
        st.query_params["comparison"] = str(comparison_id)

    st.button(label, icon=":material/balance:", type="tertiary", on_click=go, key=f"compare-open-{key}-{comparison_id}")


def bars_chart(bars: Sequence[Bar], *, key: str, name: str) -> None:
    """Win/tie/lose bars, as they suit the page or as a slide."""
    slide = len(bars) <= MOST_ON_A_SLIDE and st.toggle("As a slide (16:9, on white)", key=f"{key}-slide")
    if slide:
        shown = told_apart(bars, length=18)
        title = st.text_input("Title of the slide", value=_title(shown), key=f"{key}-title", max_chars=MOST_TITLE)
        figure = charts.win_tie_lose_figure(shown, title=title, slide=True)
        _ui.chart(
            figure, key=f"{key}-figure-slide", data=charts.bar_rows(bars), name=name, theme=None, width="content"
        )  # fmt: skip
        return
    plain_bars(bars, key=key, name=name)


def plain_bars(bars: Sequence[Bar], *, key: str, name: str) -> None:
    """Win/tie/lose bars as they suit the page; on a screen narrower than their labels they are moved to the side."""
    st.html(WIDE_BARS)
    with st.container(key=f"wide-bars-{key}"):
        _ui.chart(
            charts.win_tie_lose_figure(told_apart(bars)), key=f"{key}-figure", data=charts.bar_rows(bars), name=name
        )  # fmt: skip


def _title(bars: Sequence[Bar]) -> str:
    if not bars or not charts.same_models(bars):
        return "Pairwise comparison"
    return f"{bars[0].first} against {bars[0].second}"[:MOST_TITLE]


def pick_judge(lines: Sequence[Judged], *, key: str) -> Judged:
    """One of the judges; nothing is asked where there is only one."""
    if len(lines) == 1:
        return lines[0]
    names = _ui.distinct({one.judge_id: one.judge for one in lines}, tell=lambda i: f"judge {i}")
    chosen = st.selectbox(
        "Judge", list(names), format_func=names.__getitem__, key=f"{key}-{_rows.identity(tuple(names))}",
        label_visibility="collapsed",
    )  # fmt: skip
    return next(one for one in lines if one.judge_id == chosen)


# --- agreement ---


def verdicts(table: pa.Table) -> dict[int, str]:
    """item_id -> win, tie or lose; items without a readable verdict are left out."""
    found = zip(table["item_id"].to_pylist(), table["outcome"].to_pylist(), strict=True)
    return {item_id: outcome for item_id, outcome in found if outcome != "unparsed"}


def person_result(service: Service, comparison: Mapping[str, Any], *, reviewer: str) -> None:
    """What one person found in a comparison, with the names, and how far each other judge agrees."""
    lines = judged(service.store, [comparison])
    own_ids = [judge_id for judge_id, name, kind in comparison["judges"] if (name, kind) == (reviewer, judging.PERSON)]
    own = next((one for one in lines if one.judge_id in own_ids), None)
    if own is None:
        st.info("You have judged nothing in this comparison.")
        return
    number = comparison["comparison_id"]
    plain_bars([own.bar(about=own.judge)], key=f"person-{own.key}", name=f"judged by {reviewer}")
    tables = {one.judge_id: judging.outcomes(service.store, number, one.judge_id) for one in lines}
    mine = verdicts(tables[own.judge_id])
    rows = []
    for other in lines:
        if other.judge_id == own.judge_id:
            continue
        theirs = verdicts(tables[other.judge_id])
        shared = [item_id for item_id in mine if item_id in theirs]
        kappa = cohen_kappa([mine[i] for i in shared], [theirs[i] for i in shared])
        rows.append({"judge": other.judge, "questions of both": kappa.n, "same verdict": kappa.observed,
                     "κ": kappa.value, "why undefined": kappa.reason})  # fmt: skip
    if not rows:
        st.caption("Nobody else has judged this comparison yet, so there is nothing to agree with.")
        return
    st.markdown("**Your agreement with the other judges**")
    st.dataframe(
        pd.DataFrame(rows),
        hide_index=True,
        height="content",
        placeholder="—",
        key=f"person-agreement-{own.key}",
        column_config={
            "same verdict": st.column_config.NumberColumn(format="percent"),
            "κ": st.column_config.NumberColumn(format="%.2f", help="Cohen's kappa: 0 is what chance would give."),
        },
    )
