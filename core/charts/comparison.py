"""The figure of rule against random: one point a run, where a further random subset is expected, and the base. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from core.charts.relations import short
from core.charts.theme import NEUTRAL, SERIES, layout

RANDOM_COLOUR, SELECTED_COLOUR = SERIES[1], SERIES[0]
_FAR = 2.0


@dataclass(frozen=True)
class Point:
    """A finished run: its label, its evaluation loss, rows and seed."""

    label: str
    loss_nats: float
    n_rows: int
    seed: int


def comparison_figure(
    selected: Sequence[Point],
    random: Sequence[Point],
    *,
    expected: tuple[float, float] | None = None,
    base_nats: float | None = None,
) -> go.Figure:
    """Evaluation losses across, selected (diamonds) above random subsets (circles). Trace 0: random, 1: selected.

    ``expected``: the interval in which one further random subset is expected (95 %), drawn as a band. ``base_nats``:
    the untrained base, a line; where it lies so far away that the runs would lose their scale it is only named.
    """
    figure = go.Figure()
    for name, points, colour, symbol, place in (
        ("random subsets", random, RANDOM_COLOUR, "circle", 0),
        ("selected by the rule", selected, SELECTED_COLOUR, "diamond", 1),
    ):
        figure.add_scatter(
            x=[point.loss_nats for point in points],
            y=[place] * len(points),
            mode="markers",
            name=name,
            marker={"size": 13 if place else 11, "color": colour, "symbol": symbol, "opacity": 0.85},
            hovertext=[
                f"{short(p.label)}<br>{p.loss_nats:.5f} nats<br>{p.n_rows:,} rows · seed {p.seed}" for p in points
            ],
            hovertemplate="%{hovertext}<extra></extra>",
        )
        if points:
            mean = sum(point.loss_nats for point in points) / len(points)
            figure.add_shape(
                type="line", x0=mean, x1=mean, y0=place - 0.28, y1=place + 0.28, line={"color": colour, "width": 2}
            )
    if expected is not None:
        figure.add_shape(
            type="rect", x0=expected[0], x1=expected[1], y0=-0.4, y1=1.4, line={"width": 0},
            fillcolor="rgba(230,159,0,0.16)", layer="below",
        )  # fmt: skip
    _base(figure, [p.loss_nats for p in (*selected, *random)], expected, base_nats)
    # The legend stands above the line that names the untrained base.
    figure.update_layout(**layout(height=246))
    figure.update_layout(margin={"l": 8, "r": 16, "t": 56, "b": 44}, legend={"y": 1.16})
    figure.update_xaxes(title_text="evaluation loss (nats per token), lower is better", zeroline=False)
    figure.update_yaxes(
        tickvals=[0, 1], ticktext=["random", "selected"], range=[-0.6, 1.6], showgrid=False, zeroline=False,
        automargin=True,
    )  # fmt: skip
    return figure


def _base(
    figure: go.Figure, losses: Sequence[float], expected: tuple[float, float] | None, base_nats: float | None
) -> None:
    if base_nats is None or not losses:
        return
    ends = [*losses, *(expected or ())]
    low, high = min(ends), max(ends)
    reach = _FAR * max(high - low, 1e-3)
    if low - reach <= base_nats <= high + reach:
        figure.add_vline(
            base_nats,
            line={"color": NEUTRAL, "width": 1.5, "dash": "dash"},
            annotation={"text": f"untrained base {base_nats:.4f}", "font": {"size": 12}, "yanchor": "bottom"},
            annotation_position="top",
        )
        return
    right = base_nats > high
    figure.add_annotation(
        text=f"untrained base {base_nats:.4f} →" if right else f"← untrained base {base_nats:.4f}",
        xref="paper", x=1 if right else 0, xanchor="right" if right else "left", yref="paper", y=1.02, yanchor="bottom",
        showarrow=False, font={"size": 12},
    )  # fmt: skip
