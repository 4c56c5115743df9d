"""Figures of the Regression page: coefficients, predicted against observed, residuals. Pure: a fit in, figures out.

Trace 0 of every figure about runs holds ``result.rows`` in their order, so that a click finds its run by its index.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

import plotly.graph_objects as go

from core.charts.relations import short
from core.charts.scores import label_text
from core.charts.theme import NEUTRAL, REJECT, SERIES, layout
from core.regression import FitResult, FitRow

CONST = "const"
_HEIGHT = 340


def _layout(figure: go.Figure, *, height: int = _HEIGHT, **more: Any) -> None:
    figure.update_layout(
        **layout(height=height, showlegend=False, clickmode="event+select", dragmode=False, **more), hoverdistance=24
    )
    figure.update_layout(margin={"l": 60, "r": 12, "t": 12, "b": 46})


def _told(row: FitRow, *more: str) -> str:
    return "<br>".join((short(row.label), *more))


def _number(value: float | None) -> str:
    return "not computable" if value is None else f"{value:.4g}".replace("-", "−")


def _add_rows(
    figure: go.Figure,
    rows: Sequence[FitRow],
    x: Sequence[float | None],
    y: Sequence[float | None],
    told: Sequence[str],
    *,
    marked: Any,
    colour: str = SERIES[0],
) -> None:
    """The runs as points; the one with the key ``marked`` has a ring around it (a trace of its own)."""
    figure.add_scatter(
        x=list(x), y=list(y), mode="markers", hovertext=list(told), hovertemplate="%{hovertext}<extra></extra>",
        marker={"size": 9, "color": colour, "opacity": 0.8},
        # A selected run is shown by its ring, in all figures at once: the others need not fade.
        selected={"marker": {"opacity": 0.8}}, unselected={"marker": {"opacity": 0.8}},
    )  # fmt: skip
    places = [i for i, row in enumerate(rows) if row.key == marked and x[i] is not None and y[i] is not None]
    if marked is not None and places:
        figure.add_scatter(
            x=[x[i] for i in places], y=[y[i] for i in places], mode="markers", hoverinfo="skip",
            marker={"size": 17, "symbol": "circle-open", "color": REJECT, "line": {"width": 2.5}},
        )  # fmt: skip


# --- coefficients ---


def forest_rows(result: FitResult, *, standardised: bool) -> list[dict[str, Any]]:
    """``name, value, low, high, p`` of every regressor (not of the constant), from the strongest by |t| on.

    A standardised coefficient is the raw one times sd(x) / sd(y); its interval is scaled by the same number.
    """
    found = []
    for one in sorted((c for c in result.coefficients if c.name != CONST), key=lambda c: -abs(c.t or 0.0)):
        line = {"name": one.name, "value": one.value, "low": one.low, "high": one.high, "p": one.p}
        if standardised:
            scale = one.standardised / one.value if one.standardised is not None and one.value else None
            line |= {
                "value": one.standardised,
                "low": None if scale is None else one.low * scale,
                "high": None if scale is None else one.high * scale,
            }
        found.append(line)
    return found


def forest_figure(rows: Sequence[Mapping[str, Any]], labels: Mapping[str, str], *, title: str) -> go.Figure:
    """:func:`forest_rows` from top to bottom: a point with its interval, the line at 0. An interval off 0 is filled."""
    figure = go.Figure()
    names = [short(labels.get(row["name"], row["name"]), 36) for row in rows]
    for i, row in enumerate(rows):
        if row["low"] is not None and row["high"] is not None:
            figure.add_scatter(
                x=[row["low"], row["high"]], y=[i, i], mode="lines", hoverinfo="skip",
                line={"color": SERIES[0], "width": 2.5},
            )  # fmt: skip
    clear = [row["low"] is not None and (row["low"] > 0 or row["high"] < 0) for row in rows]
    figure.add_scatter(
        x=[row["value"] for row in rows],
        y=list(range(len(rows))),
        mode="markers",
        marker={
            "size": 11, "color": SERIES[0], "symbol": ["circle" if one else "circle-open" for one in clear],
            "line": {"width": 2, "color": SERIES[0]},
        },
        hovertext=[
            f"{name}<br>{_number(row['value'])} · {_number(row['low'])} to {_number(row['high'])}"
            f"<br>p {_number(row['p'])}"
            for name, row in zip(names, rows, strict=True)
        ],
        hovertemplate="%{hovertext}<extra></extra>",
    )  # fmt: skip
    figure.add_vline(x=0, line={"color": NEUTRAL, "width": 1, "dash": "dash"})
    _layout(figure, height=max(_HEIGHT, 80 + 34 * len(rows)))
    figure.update_layout(margin_l=8)
    figure.update_xaxes(title_text=label_text(title), zeroline=False)
    figure.update_yaxes(
        tickvals=list(range(len(rows))), ticktext=names, range=[len(rows) - 0.4, -0.6], showgrid=False, automargin=True,
        zeroline=False,
    )  # fmt: skip
    return figure


# --- runs ---


def predicted_figure(result: FitResult, *, title: str, loo: bool = False, marked: Any = None) -> go.Figure:
    """Observed against predicted, with the diagonal. ``loo``: each run is predicted by a fit without it."""
    rows = result.rows
    predicted = [row.loo_predicted if loo else row.predicted for row in rows]
    words = "without it" if loo else "predicted"
    figure = go.Figure()
    _add_rows(
        figure, rows, predicted, [row.observed for row in rows],
        [_told(row, f"observed {_number(row.observed)}", f"{words} {_number(p)}")
         for row, p in zip(rows, predicted, strict=True)],
        marked=marked,
    )  # fmt: skip
    ends = [value for value in (*predicted, *(row.observed for row in rows)) if value is not None]
    if ends:
        figure.add_shape(
            type="line", x0=min(ends), x1=max(ends), y0=min(ends), y1=max(ends), layer="below",
            line={"color": NEUTRAL, "width": 1, "dash": "dash"},
        )  # fmt: skip
    _layout(figure)
    figure.update_xaxes(
        title_text=label_text(f"{title}, {'by the other runs' if loo else 'predicted'}"), zeroline=False
    )
    figure.update_yaxes(title_text=label_text(f"{title}, observed"), zeroline=False)
    return figure


def residual_figure(result: FitResult, *, title: str, marked: Any = None) -> go.Figure:
    """Residuals against predicted values, with the line at 0."""
    rows = result.rows
    figure = go.Figure()
    _add_rows(
        figure, rows, [row.predicted for row in rows], [row.residual for row in rows],
        [_told(row, f"residual {_number(row.residual)}", f"predicted {_number(row.predicted)}") for row in rows],
        marked=marked,
    )  # fmt: skip
    figure.add_hline(y=0, line={"color": NEUTRAL, "width": 1, "dash": "dash"})
    _layout(figure)
    figure.update_xaxes(title_text=label_text(f"{title}, predicted"), zeroline=False)
    figure.update_yaxes(title_text="residual", zeroline=False)
    return figure


def normal_places(values: Sequence[float | None]) -> list[float | None]:
    """The standard normal quantile at which each value stands, Φ⁻¹((rank − ½) / n); None stays None."""
    there = sorted((value, i) for i, value in enumerate(values) if value is not None)
    places: list[float | None] = [None] * len(values)
    for rank, (_, i) in enumerate(there):
        places[i] = NormalDist().inv_cdf((rank + 0.5) / len(there))
    return places


def qq_figure(result: FitResult, *, marked: Any = None) -> go.Figure:
    """Externally studentised residuals against normal quantiles, with the diagonal on which normal ones lie."""
    rows = result.rows
    residuals = [row.studentised for row in rows]
    places = normal_places(residuals)
    figure = go.Figure()
    _add_rows(
        figure, rows, places, residuals,
        [_told(row, f"studentised residual {_number(row.studentised)}") for row in rows], marked=marked,
    )  # fmt: skip
    ends = [place for place in places if place is not None]
    if ends:
        figure.add_shape(
            type="line", x0=min(ends), x1=max(ends), y0=min(ends), y1=max(ends), layer="below",
            line={"color": NEUTRAL, "width": 1, "dash": "dash"},
        )  # fmt: skip
    _layout(figure)
    figure.update_xaxes(title_text="normal quantile", zeroline=False)
    figure.update_yaxes(title_text="studentised residual", zeroline=False)
    return figure


def cook_figure(result: FitResult, *, marked: Any = None) -> go.Figure:
    """Cook's distance of every run in the fit's order, with the usual mark at 4 / n."""
    rows = result.rows
    places, distances = list(range(1, len(rows) + 1)), [row.cooks for row in rows]
    figure = go.Figure()
    _add_rows(
        figure, rows, places, distances,
        [_told(row, f"Cook's distance {_number(row.cooks)}", f"leverage {_number(row.leverage)}") for row in rows],
        marked=marked,
    )  # fmt: skip
    for place, distance in zip(places, distances, strict=True):
        if distance is not None:
            figure.add_shape(
                type="line", x0=place, x1=place, y0=0, y1=distance, layer="below",
                line={"color": SERIES[0], "width": 1},
            )  # fmt: skip
    figure.add_hline(
        y=4 / max(1, len(rows)), line={"color": NEUTRAL, "width": 1, "dash": "dash"}, annotation_text="4 / n",
        annotation_position="top right",
    )  # fmt: skip
    _layout(figure)
    figure.update_xaxes(title_text="run, in the order of the fit", zeroline=False, dtick=1 if len(rows) <= 10 else None)
    figure.update_yaxes(title_text="Cook's distance", zeroline=False, rangemode="tozero")
    return figure


# --- selection of regressors ---


def shares_figure(shares: Mapping[str, float], labels: Mapping[str, str]) -> go.Figure:
    """How often each regressor was kept, in per cent of the draws, the most often on top."""
    ordered = sorted(shares.items(), key=lambda item: (-item[1], item[0]))
    figure = go.Figure()
    figure.add_bar(
        x=[100 * share for _, share in ordered],
        y=list(range(len(ordered))),
        orientation="h",
        marker={"color": [SERIES[0] if share >= 0.5 else NEUTRAL for _, share in ordered]},
        text=[f"{share:.0%}".replace("%", " %") for _, share in ordered],
        textposition="outside",
        cliponaxis=False,
        hoverinfo="skip",
    )
    figure.add_vline(x=50, line={"color": NEUTRAL, "width": 1, "dash": "dash"})
    _layout(figure, height=max(160, 70 + 30 * len(ordered)))
    figure.update_layout(margin={"l": 8, "r": 40, "t": 8, "b": 44})
    figure.update_xaxes(title_text="draws that keep it", range=[0, 104], ticksuffix=" %", zeroline=False)
    figure.update_yaxes(
        tickvals=list(range(len(ordered))), ticktext=[short(labels.get(name, name), 36) for name, _ in ordered],
        range=[len(ordered) - 0.4, -0.6], automargin=True, showgrid=False,
    )  # fmt: skip
    return figure
