"""Figures of the Univariate page: loss against an indicator's mean, one panel or many with one scale of the loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from core.charts.relations import short
from core.charts.scores import label_text
from core.charts.theme import REJECT, SERIES, layout
from core.univariate import Group, Point

STYLES = {"bins": (SERIES[0], "circle"), "mixtures": (SERIES[1], "diamond"), "subsets": (SERIES[2], "square")}
"""Colour and sign of each group of runs."""


@dataclass(frozen=True)
class Panel:
    """One indicator. ``note`` stands under the title: correlations in a few words."""

    title: str
    groups: tuple[Group, ...]
    note: str = ""


def traced(panels: Sequence[Panel]) -> list[tuple[Point, ...]]:
    """The points of each of the figure's first traces, in their order."""
    return [group.points for panel in panels for group in panel.groups]


def panels_figure(
    panels: Sequence[Panel], *, y_title: str, n_columns: int = 4, marked: Any = None, height: int = 300
) -> go.Figure:
    """Small multiples that share the axis of the response. The first traces are :func:`traced`, lines come after.

    ``height`` is that of one row of panels in pixels; ``marked`` the key of the run that has a ring.
    """
    n_columns = max(1, min(n_columns, len(panels)))
    n_rows = math.ceil(len(panels) / n_columns)
    figure = make_subplots(
        rows=n_rows,
        cols=n_columns,
        shared_yaxes="all",
        horizontal_spacing=0.025,
        vertical_spacing=min(0.32, 96 / (height * n_rows)) if n_rows > 1 else 0.0,
        subplot_titles=[_title(panel) for panel in panels] if len(panels) > 1 else None,
    )
    places = [(i // n_columns + 1, i % n_columns + 1) for i in range(len(panels))]
    shown: set[str] = set()
    for panel, (row, column) in zip(panels, places, strict=True):
        for group in panel.groups:
            _add_points(figure, group, row, column, legend=group.kind not in shown)
            shown.add(group.kind)
    for panel, (row, column) in zip(panels, places, strict=True):
        for group in panel.groups:
            _add_line(figure, group, row, column)
        _add_mark(figure, panel, row, column, marked)
    figure.update_xaxes(zeroline=False)
    if len(panels) == 1:  # of several each has its name above it
        figure.update_xaxes(title_text=f"mean {short(panels[0].title, 60)} of a run's dataset")
    figure.update_yaxes(zeroline=False, showticklabels=False)
    for row in range(1, n_rows + 1):
        figure.update_yaxes(title_text=label_text(y_title), showticklabels=True, row=row, col=1)
    for i in range(len(panels), n_rows * n_columns):
        for update in (figure.update_xaxes, figure.update_yaxes):
            update(visible=False, row=i // n_columns + 1, col=i % n_columns + 1)
    figure.update_layout(
        **layout(height=height * n_rows + 60, showlegend=True, clickmode="event+select", dragmode=False),
        hoverdistance=24,
    )
    top = 84 if len(panels) > 1 else 40
    figure.update_layout(margin={"l": 60, "r": 12, "t": top, "b": 48}, legend_y=1 + (top - 34) / (height * n_rows))
    figure.update_annotations(font_size=13)
    return figure


def _title(panel: Panel) -> str:
    note = f'<br><span style="font-size:11px">{label_text(panel.note)}</span>' if panel.note else ""
    return f"<b>{short(panel.title, 40)}</b>{note}"


def _add_points(figure: go.Figure, group: Group, row: int, column: int, *, legend: bool) -> None:
    colour, symbol = STYLES[group.kind]
    figure.add_scatter(
        x=[point.x for point in group.points],
        y=[point.y for point in group.points],
        mode="markers",
        name=group.kind,
        legendgroup=group.kind,
        showlegend=legend,
        marker={"size": 9, "color": colour, "symbol": symbol, "opacity": 0.85},
        selected={"marker": {"opacity": 0.85}},
        unselected={"marker": {"opacity": 0.85}},
        hovertext=[short(point.label) for point in group.points],
        hovertemplate="%{hovertext}<br>mean %{x:.4~g}<br>loss %{y:.4~g}<extra></extra>",
        row=row,
        col=column,
    )


def _add_line(figure: go.Figure, group: Group, row: int, column: int) -> None:
    found = group.line
    if found is None:
        return
    colour = STYLES[group.kind][0]
    figure.add_scatter(
        x=[*found.places, *reversed(found.places)], y=[*found.high, *reversed(found.low)], mode="lines",
        fill="toself", fillcolor=_faint(colour), line={"width": 0}, hoverinfo="skip", legendgroup=group.kind,
        showlegend=False, row=row, col=column,
    )  # fmt: skip
    figure.add_scatter(
        x=list(found.places), y=list(found.middle), mode="lines", line={"color": colour, "width": 2},
        hoverinfo="skip", legendgroup=group.kind, showlegend=False, row=row, col=column,
    )  # fmt: skip


def _add_mark(figure: go.Figure, panel: Panel, row: int, column: int, marked: Any) -> None:
    points = [point for group in panel.groups for point in group.points if marked is not None and point.key == marked]
    if points:
        figure.add_scatter(
            x=[point.x for point in points], y=[point.y for point in points], mode="markers", hoverinfo="skip",
            marker={"size": 17, "symbol": "circle-open", "color": REJECT, "line": {"width": 2.5}}, showlegend=False,
            row=row, col=column,
        )  # fmt: skip


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.16)"
