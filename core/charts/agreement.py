"""Figures of the agreement of reviewers: who with whom, which verdicts meet, by kind of task. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from core.agreement import Kappa
from core.charts.relations import short
from core.charts.scores import label_text
from core.charts.theme import NEUTRAL, REJECT, SERIES, layout
from core.reviewer_agreement import between, number

WORDS: Mapping[str, str] = {
    "accept": "accept",
    "edit": "edit",
    "new_instruction": "new instruction",
    "new_response": "new response",
    "reject": "reject",
}
INK = "#1d2a33"
_SCALE = ((0.0, REJECT), (0.5, "rgba(138,151,160,0.14)"), (1.0, SERIES[0]))
_COUNTS = ((0.0, "rgba(138,151,160,0.10)"), (1.0, SERIES[0]))
_STRONG = 0.55


def pairwise_figure(
    names: Sequence[str], pairwise: Mapping[tuple[str, str], Kappa], *, dark: bool = False
) -> go.Figure:
    """Cohen's kappa of every two reviewers with its n; "?" where it cannot be computed, empty where none is shared.

    ``dark``: the page behind it is.
    """
    k = len(names)
    table = [[pairwise.get((one, other)) or pairwise.get((other, one)) for other in names] for one in names]
    figure = go.Figure()
    figure.add_heatmap(
        z=[[found.value if found is not None else None for found in line] for line in table],
        x=list(range(k)), y=list(range(k)), zmin=-1, zmax=1, xgap=3, ygap=3, showscale=False, colorscale=_SCALE,
        hovertext=[[_told(names[i], names[j], table[i][j]) for j in range(k)] for i in range(k)],
        hovertemplate="%{hovertext}<extra></extra>", hoverongaps=False,
    )  # fmt: skip
    small = k > 7
    for i, line in enumerate(table):
        for j, found in enumerate(line):
            if found is None or k > 24:
                continue
            strong = found.value is not None and abs(found.value) >= _STRONG
            said = "?" if found.value is None else f"<b>{number(found.value)}</b>"
            below = "" if small else f"<br><span style='font-size:11px'>n = {found.n:,}</span>"
            figure.add_annotation(
                x=j, y=i, showarrow=False, text=said + below, hovertext=_told(names[i], names[j], found),
                font={"size": 11 if small else 15, "color": "#ffffff" if strong or dark else INK},
            )  # fmt: skip
    figure.update_layout(**layout(height=110 + (30 if small else 62) * max(2, k), dragmode=False))
    figure.update_layout(margin={"l": 8, "r": 8, "t": 8, "b": 8})
    labels = [short(name, 20) for name in names]
    ticks = {"tickvals": list(range(k)), "ticktext": labels, "showgrid": False, "zeroline": False, "automargin": True}
    figure.update_xaxes(**ticks, side="top", range=[-0.5, k - 0.5], tickangle=-40 if small else 0)
    figure.update_yaxes(**ticks, range=[k - 0.5, -0.5])
    return figure


def _told(one: str, other: str, found: Kappa | None) -> str:
    if found is None:
        return ""
    if found.value is None:
        said = f"κ cannot be computed: {label_text(found.reason or '')}"
    else:
        said = f"κ {number(found.value)}{between(found.low, found.high)}"
    return f"{short(one)} × {short(other)}<br>{said}<br>{found.n:,} pairs decided by both"


def confusion_figure(
    table: np.ndarray, categories: Sequence[str], *, row_title: str, column_title: str, dark: bool = False
) -> go.Figure:
    """How often two verdicts met on a pair; each row's share is the colour. ``dark``: the page behind it is."""
    k = len(categories)
    sums = table.sum(1, keepdims=True)
    shares = np.divide(table, sums, out=np.zeros((k, k)), where=sums > 0)
    words = [WORDS.get(one, one) for one in categories]
    ticktext = [word.replace(" ", "<br>") for word in words]
    figure = go.Figure()
    figure.add_heatmap(
        z=[[float(shares[i, j]) if sums[i, 0] else None for j in range(k)] for i in range(k)],
        x=list(range(k)), y=list(range(k)), zmin=0, zmax=1, xgap=3, ygap=3, showscale=False, colorscale=_COUNTS,
        hovertext=[
            [f"{words[i]} met {words[j]}<br>{table[i, j]:,.4g} times, {shares[i, j]:.0%} of this line"
             for j in range(k)] for i in range(k)
        ],
        hovertemplate="%{hovertext}<extra></extra>", hoverongaps=False,
    )  # fmt: skip
    for i in range(k):
        for j in range(k):
            if not table[i, j]:
                continue
            said = f"<b>{table[i, j]:,.4g}</b>" if i == j else f"{table[i, j]:,.4g}"
            figure.add_annotation(
                x=j, y=i, showarrow=False, text=said,
                font={"size": 14, "color": "#ffffff" if shares[i, j] >= _STRONG or dark else INK},
            )  # fmt: skip
    figure.update_layout(**layout(height=118 + 52 * max(2, k), dragmode=False))
    figure.update_layout(margin={"l": 8, "r": 8, "t": 8, "b": 8})
    ticks = {"tickvals": list(range(k)), "ticktext": ticktext, "showgrid": False, "zeroline": False, "automargin": True}
    ticks["tickfont"] = {"size": 12 if k <= 3 else 10.5}
    figure.update_xaxes(
        **ticks, side="top", range=[-0.5, k - 0.5], title_text=short(column_title, 40), autotickangles=[0, -60]
    )
    figure.update_yaxes(**ticks, range=[k - 0.5, -0.5], title_text=short(row_title, 40))
    return figure


@dataclass(frozen=True)
class Line:
    """One line of :func:`forest_figure`; ``value`` None is written as "?" with the ``reason``."""

    name: str
    n: int
    value: float | None
    low: float | None
    high: float | None
    reason: str | None = None


def forest_figure(lines: Sequence[Line], *, title: str, what: str = "pairs") -> go.Figure:
    """A value with its interval per line, from top to bottom. The dotted line at 0 is what chance would give."""
    k = len(lines)
    there = [(i, one) for i, one in enumerate(lines) if one.value is not None]
    figure = go.Figure()
    figure.add_vline(0, line={"color": NEUTRAL, "width": 1, "dash": "dot"})
    figure.add_scatter(
        x=[one.value for _, one in there],
        y=[i for i, _ in there],
        mode="markers",
        marker={"size": 11, "color": SERIES[0], "symbol": "diamond"},
        error_x={
            "type": "data", "symmetric": False, "thickness": 1.6, "width": 5, "color": SERIES[0],
            "array": [0 if one.high is None else max(0.0, one.high - (one.value or 0)) for _, one in there],
            "arrayminus": [0 if one.low is None else max(0.0, (one.value or 0) - one.low) for _, one in there],
        },
        hovertext=[f"{short(one.name)}<br>{number(one.value)}{between(one.low, one.high)}<br>{one.n:,} {what}"
                   for _, one in there],
        hovertemplate="%{hovertext}<extra></extra>",
        showlegend=False,
    )  # fmt: skip
    missing = [(i, one) for i, one in enumerate(lines) if one.value is None]
    figure.add_scatter(
        x=[0] * len(missing), y=[i for i, _ in missing], mode="text", text=["?"] * len(missing), textfont={"size": 15},
        hovertext=[f"{short(one.name)}<br>cannot be computed: {label_text(one.reason or '')}<br>{one.n:,} {what}"
                   for _, one in missing],
        hovertemplate="%{hovertext}<extra></extra>", showlegend=False,
    )  # fmt: skip
    lows = [one.low if one.low is not None else (one.value or 0) for one in lines]
    figure.update_layout(**layout(height=92 + 34 * max(2, k), dragmode=False))
    figure.update_layout(margin={"l": 8, "r": 16, "t": 8, "b": 44})
    figure.update_xaxes(title_text=label_text(title), range=[min([-0.1, *lows]) - 0.05, 1.05], zeroline=False)
    figure.update_yaxes(
        tickvals=list(range(k)), ticktext=[f"{short(one.name, 30)} · {one.n:,}" for one in lines],
        range=[k - 0.5, -0.5], showgrid=False, automargin=True, zeroline=False,
    )  # fmt: skip
    return figure
