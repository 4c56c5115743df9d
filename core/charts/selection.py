"""Figures of the Select page: predicted values with the border, and what a selection does to the indicators. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from core.charts.relations import short
from core.charts.scores import label_text
from core.charts.theme import NEUTRAL, SERIES, layout

SELECTED = SERIES[0]
BORDER = SERIES[5]
PANELS_IN_A_LINE = 4
_PANEL_HEIGHT = 170


@dataclass(frozen=True)
class Panel:
    """One indicator: ``bins + 1`` edges, rows per bin of all and of the selected, and both means (NaN: none)."""

    title: str
    edges: np.ndarray
    counts: np.ndarray
    selected: np.ndarray
    mean: float
    selected_mean: float


def predicted_figure(
    edges: np.ndarray, counts: np.ndarray, selected: np.ndarray, *, border: float | None, title: str, height: int = 360
) -> go.Figure:
    """Rows per predicted value: trace 0 the selected rows, trace 1 the others on top of them, a line at the border."""
    figure = go.Figure()
    middles, widths = (edges[:-1] + edges[1:]) / 2, np.diff(edges)
    spans = [f"{low:.4g} to {high:.4g}" for low, high in pairwise(edges)]
    for name, rows, colour in (("selected", selected, SELECTED), ("not selected", counts - selected, NEUTRAL)):
        figure.add_bar(
            x=middles, y=rows, width=widths, name=name, marker={"color": colour, "line": {"width": 0}},
            opacity=1.0 if name == "selected" else 0.45, customdata=spans,
            hovertemplate="%{customdata}<br>%{y:,} rows<extra>%{fullData.name}</extra>",
        )  # fmt: skip
    if border is not None:
        figure.add_vline(
            min(max(border, float(edges[0])), float(edges[-1])),
            line={"color": BORDER, "width": 2, "dash": "dash"},
            annotation={"text": f"border {border:.4g}", "font": {"size": 12}, "yanchor": "bottom"},
            annotation_position="top",
        )
    figure.update_layout(**layout(barmode="stack", bargap=0.0, height=height))
    figure.update_layout(margin={"l": 48, "r": 8, "t": 48, "b": 40}, legend={"y": 1.08})
    figure.update_xaxes(title_text=label_text(title), zeroline=False)
    figure.update_yaxes(title_text="rows")
    return figure


def moves_figure(panels: Sequence[Panel], *, columns: int = PANELS_IN_A_LINE) -> go.Figure:
    """Small multiples: the share of rows per value, of all rows (grey area) and of the selected ones (line).

    Each panel's title tells how the mean moves; vertical lines mark both means where they lie within the panel.
    """
    columns = max(1, min(columns, len(panels)))
    lines = max(1, -(-len(panels) // columns))
    figure = make_subplots(
        rows=lines, cols=columns, subplot_titles=[_title(panel) for panel in panels],
        vertical_spacing=min(0.5, 0.42 / lines), horizontal_spacing=0.035,
    )  # fmt: skip
    for i, panel in enumerate(panels):
        row, column = i // columns + 1, i % columns + 1
        middles = (panel.edges[:-1] + panel.edges[1:]) / 2
        for name, rows, colour, filled in (
            ("all rows", panel.counts, NEUTRAL, True), ("selected", panel.selected, SELECTED, False),
        ):  # fmt: skip
            total = int(rows.sum())
            figure.add_scatter(
                x=middles,
                y=100 * rows / total if total else [None] * len(rows),
                mode="lines",
                name=name,
                legendgroup=name,
                showlegend=i == 0,
                line={"shape": "hvh", "color": colour, "width": 1 if filled else 2},
                fill="tozeroy" if filled else None,
                fillcolor="rgba(138,151,160,0.30)" if filled else None,
                hovertemplate=f"%{{x:.4~g}}<br>%{{y:.1f}} % of {total:,} rows<extra>{name}</extra>",
                row=row,
                col=column,
            )
    # All at once: a figure takes ten times as long that gets its lines one by one, and it follows a slider.
    shapes = [line for i, panel in enumerate(panels) for line in _means(panel, i)]
    figure.update_layout(shapes=shapes, **layout(height=92 + lines * _PANEL_HEIGHT))
    figure.update_layout(margin={"l": 8, "r": 8, "t": 84, "b": 26}, legend={"y": 1.0 + 46 / (lines * _PANEL_HEIGHT)})
    figure.update_xaxes(showgrid=False, zeroline=False, nticks=4, tickfont={"size": 11})
    figure.update_yaxes(showticklabels=False, showgrid=False, rangemode="tozero")
    figure.update_annotations(font={"size": 13})
    return figure


def _means(panel: Panel, place: int) -> list[dict[str, Any]]:
    axis = str(place + 1) if place else ""
    return [
        {
            "type": "line", "xref": f"x{axis}", "yref": f"y{axis} domain", "x0": mean, "x1": mean, "y0": 0, "y1": 1,
            "line": {"color": colour, "width": 1.5, "dash": dash},
        }
        for mean, colour, dash in ((panel.mean, NEUTRAL, "dot"), (panel.selected_mean, SELECTED, "solid"))
        if panel.edges[0] <= mean <= panel.edges[-1]
    ]  # fmt: skip


def _title(panel: Panel) -> str:
    if np.isnan(panel.mean):
        return f"{short(panel.title, 30)}<br>no value"
    now = "—" if np.isnan(panel.selected_mean) else f"{panel.selected_mean:.4g}"
    return f"{short(panel.title, 30)}<br>{panel.mean:.4g} → <b>{now}</b>"
