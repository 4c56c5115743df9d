"""Figures of the Team page: decisions over time, verdicts by reviewer, agreement with the student (pure).

Names of people come from outside and Plotly reads a little HTML in labels, so they are escaped here.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import plotly.graph_objects as go

from core.charts import theme

VERDICT_LABELS: Mapping[str, str] = {
    "accept": "✓ accepted",
    "edit": "✎ edited",
    "new_instruction": "new instruction, old response",
    "new_response": "old instruction, new response",
    "reject": "✗ rejected",
}
ACCEPTING = frozenset({"accept", "edit"})
MIXED = frozenset({"new_instruction", "new_response"})
MAX_BARS = 72
_STEPS = (
    (timedelta(minutes=10), "10 minutes"),
    (timedelta(hours=1), "hour"),
    (timedelta(hours=6), "6 hours"),
    (timedelta(days=1), "day"),
    (timedelta(days=7), "week"),
)
_EPOCH = datetime(2024, 1, 1)  # a Monday, so that weeks begin on one


def bucket_step(moments: Sequence[datetime]) -> tuple[timedelta, str]:
    """The finest step that needs no more than ``MAX_BARS`` bars from the first to the last moment, and its name."""
    if not moments:
        return _STEPS[0]
    span = max(moments) - min(moments)
    return next(((step, name) for step, name in _STEPS if span / step < MAX_BARS), _STEPS[-1])


def _floor(moment: datetime, step: timedelta) -> datetime:
    return _EPOCH + ((moment - _EPOCH) // step) * step


def _layout(height: int) -> dict[str, Any]:
    """Stacked bars whose legend reads in the order of the stack."""
    layout = theme.layout(barmode="stack", height=height)
    return {**layout, "legend": {**layout["legend"], "traceorder": "normal"}}


def over_time(rows: Sequence[Mapping[str, Any]]) -> go.Figure:
    """Decisions per stretch of time, stacked by verdict. ``rows``: ``bucket, verdict, n`` (naive UTC, 10 minutes)."""
    step, name = bucket_step([row["bucket"] for row in rows])
    figure = go.Figure()
    for verdict, label in VERDICT_LABELS.items():
        counts: dict[datetime, int] = {}
        for row in rows:
            if row["verdict"] == verdict:
                start = _floor(row["bucket"], step)
                counts[start] = counts.get(start, 0) + int(row["n"])
        if counts:
            starts = sorted(counts)
            figure.add_bar(
                x=[start + step / 2 for start in starts],
                y=[counts[start] for start in starts],
                width=step.total_seconds() * 1000 * 0.9,
                name=label,
                marker_color=theme.VERDICT_COLOURS[verdict],
                customdata=[[f"{start:%Y-%m-%d %H:%M}"] for start in starts],
                hovertemplate="%{y} " + label + "<br>from %{customdata[0]} UTC<extra></extra>",
            )
    figure.update_layout(**_layout(300), xaxis_title="UTC", yaxis_title=f"decisions per {name}")
    figure.update_yaxes(rangemode="tozero")
    if rows:  # at least twelve steps wide, so that the first decisions of a day are bars and not a wall
        first = _floor(min(row["bucket"] for row in rows), step)
        last = max(_floor(max(row["bucket"] for row in rows), step) + step, first + 12 * step)
        figure.update_xaxes(range=[first - step / 2, last])
    return figure


def by_reviewer(rows: Sequence[Mapping[str, Any]]) -> go.Figure:
    """Verdicts of each person, stacked. ``rows`` as :func:`db.review.team_progress`."""
    people = [html.escape(str(row["reviewer"])) for row in rows]
    figure = go.Figure()
    for column, label, colour in (
        ("n_accept", VERDICT_LABELS["accept"], theme.VERDICT_COLOURS["accept"]),
        ("n_edit", VERDICT_LABELS["edit"], theme.VERDICT_COLOURS["edit"]),
        ("n_mixed", "½ one of the two texts", theme.VERDICT_COLOURS["new_instruction"]),
        ("n_reject", VERDICT_LABELS["reject"], theme.VERDICT_COLOURS["reject"]),
    ):
        counts = [int(row[column]) for row in rows]
        if not any(counts):
            continue
        figure.add_bar(
            y=people,
            x=counts,
            name=label,
            orientation="h",
            marker_color=colour,
            text=[str(n) if n else "" for n in counts],
            textposition="inside",
            insidetextanchor="middle",
            hovertemplate="%{y}: %{x} " + label + "<extra></extra>",
        )
    figure.update_layout(**_layout(120 + 34 * max(len(people), 1)), xaxis_title="decisions that stand")
    figure.update_yaxes(autorange="reversed", type="category")
    return figure


@dataclass(frozen=True)
class Agreement:
    """How often people decided as the student proposed. ``partly``: they took one of the two texts."""

    n: int
    agreed: int
    partly: int

    @property
    def share(self) -> float | None:
        """Share of decided pairs in which people did as proposed; None where nothing is decided."""
        return self.agreed / self.n if self.n else None


def _agrees(proposal: str, verdict: str) -> bool:
    return verdict in ACCEPTING if proposal == "reflected" else verdict == "reject"


def agreement(rows: Sequence[Mapping[str, Any]]) -> Agreement:
    """Add up ``proposal, verdict, n`` (:func:`db.review.proposal_agreement`).

    A student that proposes "original" or "leave out" is followed by a rejection.
    """
    return Agreement(
        n=sum(int(row["n"]) for row in rows),
        agreed=sum(int(row["n"]) for row in rows if _agrees(row["proposal"], row["verdict"])),
        partly=sum(int(row["n"]) for row in rows if row["verdict"] in MIXED),
    )


def proposals(rows: Sequence[Mapping[str, Any]]) -> go.Figure:
    """For each stage and proposal of the student, what people did: shares of 100 %, with counts in the bars."""
    groups: dict[tuple[str, str], dict[str, int]] = {}
    for row in rows:
        counts = groups.setdefault((str(row["stage"]), str(row["proposal"])), {})
        counts[str(row["verdict"])] = counts.get(str(row["verdict"]), 0) + int(row["n"])
    totals = {group: sum(counts.values()) for group, counts in groups.items()}
    labels = [
        html.escape(f"{stage}: student says {proposal}") + f"<br>{totals[stage, proposal]:,} decided"
        for stage, proposal in groups
    ]
    figure = go.Figure()
    for verdict, label in VERDICT_LABELS.items():
        counts_of = [counts.get(verdict, 0) for counts in groups.values()]
        if not any(counts_of):
            continue
        figure.add_bar(
            y=labels,
            x=[100 * n / totals[group] for n, group in zip(counts_of, groups, strict=True)],
            name=label,
            orientation="h",
            marker_color=theme.VERDICT_COLOURS[verdict],
            text=[str(n) if n else "" for n in counts_of],
            textposition="inside",
            insidetextanchor="middle",
            customdata=[[n] for n in counts_of],
            hovertemplate="%{customdata[0]} " + label + " (%{x:.0f} %)<extra></extra>",
        )
    figure.update_layout(**_layout(130 + 52 * max(len(labels), 1)), xaxis_title="share of decided pairs (%)")
    figure.update_xaxes(range=[0, 100])
    figure.update_yaxes(autorange="reversed", type="category", automargin=True)
    return figure
