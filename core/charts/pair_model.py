"""Figures of the model of decisions: what it leans on, whether its p can be believed, error against coverage (pure)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from core.charts.relations import short
from core.charts.theme import ACCEPT, NEUTRAL, REJECT, SERIES, layout

HEIGHT = 340


def _layout(figure: go.Figure, *, height: int = HEIGHT, **more: Any) -> None:
    figure.update_layout(**layout(height=height, showlegend=False, dragmode=False, **more))
    figure.update_layout(margin={"l": 60, "r": 16, "t": 34, "b": 46})


def _minus(number: str) -> str:
    return number.replace("-", "−")


def _two_digits(value: float) -> str:
    """At least two decimals, and of small numbers the first two digits that say something."""
    decimals = 2 if value == 0 else min(6, max(2, 1 - math.floor(math.log10(abs(value)))))
    return f"{value:.{decimals}f}"


def coefficients_figure(rows: Sequence[Mapping[str, Any]], *, most: int = 12) -> go.Figure:
    """The largest coefficients as bars, from the top: ``name, coefficient, signed`` of ``decision_evidence.strongest``.

    Green with a "+" speaks for accepting, orange with a "−" against; grey has no sign.
    """
    shown = list(rows[:most])
    figure = go.Figure()
    written = [
        ("" if not row["signed"] else "+" if row["coefficient"] > 0 else "") + _minus(_two_digits(row["coefficient"]))
        for row in shown
    ]
    figure.add_bar(
        x=[row["coefficient"] for row in shown],
        y=list(range(len(shown))),
        orientation="h",
        text=written,
        textposition="outside",
        cliponaxis=False,
        marker_color=[
            NEUTRAL if not row["signed"] else ACCEPT if row["coefficient"] > 0 else REJECT for row in shown
        ],
        hovertext=[f"{short(row['name'], 80)}<br>{told} log odds per standard deviation"
                   for row, told in zip(shown, written, strict=True)],
        hovertemplate="%{hovertext}<extra></extra>",
    )  # fmt: skip
    _layout(figure, height=112 + 26 * max(4, len(shown)))
    values = [row["coefficient"] for row in shown] or [1.0]
    room = 0.25 * (max(0.0, *values) - min(0.0, *values))  # for the numbers beyond the bars
    figure.update_xaxes(
        title_text="log odds per standard deviation",
        range=[min(0.0, *values) - room * (min(values) < 0), max(0.0, *values) + room],
        zeroline=True,
        zerolinecolor=NEUTRAL,
    )
    figure.update_yaxes(
        tickvals=list(range(len(shown))),
        ticktext=[short(row["name"], 38) for row in shown],
        range=[len(shown) - 0.4, -0.6],
        automargin=True,
        showgrid=False,
    )
    return figure


def reliability_figure(rows: Sequence[Mapping[str, Any]]) -> go.Figure:
    """What part of the pairs people accepted, by the p that the model gave (``decision_evidence.reliability``).

    On the dashed line p means what it says. Whiskers are exact 95 % intervals; a larger point is more decisions.
    """
    figure = go.Figure()
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", line={"color": NEUTRAL, "dash": "dash", "width": 1}, hoverinfo="skip"
    )
    most = max((row["n"] for row in rows), default=1)
    figure.add_scatter(
        x=[row["mean_p"] for row in rows],
        y=[row["accepted"] for row in rows],
        mode="markers+lines",
        line={"color": SERIES[0], "width": 1},
        marker={"size": [7 + 11 * (row["n"] / most) ** 0.5 for row in rows], "color": SERIES[0]},
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [row["to"] - row["accepted"] for row in rows],
            "arrayminus": [row["accepted"] - row["from"] for row in rows],
            "thickness": 1.2,
            "width": 4,
            "color": SERIES[0],
        },
        hovertext=[
            f"p from {row['low']:.1f} to {row['high']:.1f}, {row['mean_p']:.2f} on average<br>{row['accepted']:.0%} of "
            f"{row['n']:,} accepted (95 % interval {row['from']:.0%} to {row['to']:.0%})"
            for row in rows
        ],
        hovertemplate="%{hovertext}<extra></extra>",
    )
    _layout(figure)
    figure.update_xaxes(title_text="p of the model", range=[-0.02, 1.02], tickformat=".1f")
    figure.update_yaxes(title_text="part that people accepted", range=[-0.04, 1.04], tickformat=".0%")
    return figure


def error_figure(
    rows: Sequence[Mapping[str, Any]], *, n: int, target_error: float, threshold: float | None
) -> go.Figure:
    """The error among what would be accepted against how much that is, as the threshold falls from left to right.

    ``rows`` of ``decision_evidence.curves`` on the ``n`` decisions where thresholds are chosen; the dashed line is the
    tolerated error, the diamond the threshold that was chosen.
    """
    figure = go.Figure()
    told = [
        f"p ≥ {row['threshold']:.3f}: {row['n']:,} of {n:,} accepted<br>people rejected "
        f"{1 - row['precision']:.1%} of them"
        for row in rows
    ]
    figure.add_scatter(
        x=[row["n"] / max(1, n) for row in rows],
        y=[1 - row["precision"] for row in rows],
        mode="lines",
        line={"color": SERIES[0], "width": 2, "shape": "hv"},
        hovertext=told,
        hovertemplate="%{hovertext}<extra></extra>",
    )
    figure.add_hline(target_error, line={"color": NEUTRAL, "width": 1, "dash": "dash"})
    # Of the thresholds that are drawn the nearest one: the curve is thinned where there are many.
    near = min(range(len(rows)), key=lambda i: abs(rows[i]["threshold"] - threshold)) if rows and threshold else None
    if near is not None:
        figure.add_scatter(
            x=[rows[near]["n"] / max(1, n)],
            y=[1 - rows[near]["precision"]],
            mode="markers",
            marker={"size": 12, "symbol": "diamond", "color": SERIES[1]},
            hovertext=[f"chosen<br>{told[near]}"],
            hovertemplate="%{hovertext}<extra></extra>",
        )
    _layout(figure, height=300)
    highest = max([target_error, *(1 - row["precision"] for row in rows)])
    figure.update_xaxes(title_text="part of the held-out decisions that is accepted", range=[0, 1.02], tickformat=".0%")
    figure.update_yaxes(
        title_text="of these, rejected by people", range=[0, min(1.04, highest * 1.15 + 0.01)], tickformat=".0%"
    )
    return figure
