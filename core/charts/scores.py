"""Figures of the score pages: histogram, coverage and scatter. Pure: rows of db/queries.py in, figures out."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from core.charts.theme import ACCEPT, NEUTRAL, REJECT, SERIES, layout

Row = Mapping[str, Any]
QUANTILES = (("q05", "5 %"), ("q25", "25 %"), ("median", "median"), ("q75", "75 %"), ("q95", "95 %"))
_FEW_DATASETS = 3


def label_text(text: str) -> str:
    """Text for a place where Plotly reads HTML (legend, hover, axis): it shows as it is, markup and all."""
    return html.escape(text, quote=False).replace("$", "&#36;")


def by_dataset(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows parted by ``dataset_id``, in the order of their first row: one list for each trace of a figure."""
    parts: dict[int, list[Row]] = {}
    for row in rows:
        parts.setdefault(row["dataset_id"], []).append(row)
    return list(parts.values())


def colour(index: int) -> str:
    """The colour of the ``index``-th dataset of a figure."""
    return SERIES[index % len(SERIES)]


def bin_range(row: Row) -> tuple[float, float]:
    """Closed range [low, high] of the values in a bin: exactly the rows that its bar counts.

    A bin holds [low, high) but for the last; there the largest number below ``high`` closes it.
    """
    return row["low"], row["high"] if row["is_last"] else math.nextafter(row["high"], -math.inf)


def span_of(rows: Sequence[Row]) -> tuple[float, float]:
    """Closed range from the lowest to the highest of these bins."""
    ranges = [bin_range(row) for row in rows]
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def histogram_figure(
    bins: Sequence[Row],
    summaries: Sequence[Row],
    names: Mapping[int, str],
    *,
    title: str,
    share: bool = False,
    height: int = 380,
) -> go.Figure:
    """Bars of ``queries.histogram``, one trace per dataset in the order of ``by_dataset``, with quantile lines.

    With ``share`` the bars are per cent of the values of their dataset, so that datasets of different size compare.
    Of one dataset five quantiles are drawn, of two or three the quartiles, of more the medians alone.
    """
    figure = go.Figure()
    parts = by_dataset(bins)
    top = 0.0
    for i, part in enumerate(parts):
        total = sum(row["n"] for row in part)
        heights = [100 * row["n"] / total if share else row["n"] for row in part]
        top = max(top, *heights)
        figure.add_bar(
            x=[row["left_edge"] + _width(row) / 2 for row in part],
            y=heights,
            width=[_width(row) for row in part],
            name=label_text(names[part[0]["dataset_id"]]),
            marker={"color": colour(i), "line": {"width": 0 if len(parts) == 1 else 1, "color": colour(i)}},
            opacity=0.85 if len(parts) == 1 else 0.5,
            customdata=[[row["low"], row["high"], row["n"], 100 * row["n"] / total] for row in part],
            hovertemplate="%{customdata[0]:.4~g} to %{customdata[1]:.4~g}<br>%{customdata[2]:,} rows "
            "(%{customdata[3]:.1f} %)<extra>%{fullData.name}</extra>",
        )
    order = {part[0]["dataset_id"]: i for i, part in enumerate(parts)}
    _quantile_lines(figure, [row for row in summaries if row["dataset_id"] in order], order)
    figure.update_layout(
        **layout(barmode="overlay", bargap=0.0, height=height, showlegend=len(parts) > 1, clickmode="event+select"),
        selectdirection="h",
    )
    figure.update_layout(margin_t=64 if len(parts) > 1 else 40)
    figure.update_xaxes(title_text=label_text(title), zeroline=False)
    figure.update_yaxes(
        title_text="per cent of the values" if share else "rows",
        range=[0, top * 1.04] if top else None,
        ticksuffix=" %" if share else "",
        dtick=1 if not share and top <= 5 else None,
    )
    return figure


def _width(row: Row) -> float:
    return row["width"] or max(abs(row["low"]) * 0.02, 0.02)


def _quantile_lines(figure: go.Figure, summaries: Sequence[Row], order: Mapping[int, int]) -> None:
    alone = len(summaries) == 1
    drawn = QUANTILES if alone else QUANTILES[1:4] if len(summaries) <= _FEW_DATASETS else QUANTILES[2:3]
    for row in summaries:
        for key, words in drawn:
            if row[key] is None:
                continue
            middle = key == "median"
            line = {
                "color": NEUTRAL if alone else colour(order[row["dataset_id"]]),
                "width": 2 if middle else 1,
                "dash": "solid" if middle else "dot",
            }
            figure.add_shape(type="line", x0=row[key], x1=row[key], y0=0, y1=1, yref="paper", line=line)
            if alone:
                # Quartiles stand a line higher: beside the median they would be written over it.
                figure.add_annotation(
                    x=row[key],
                    y=1,
                    yref="paper",
                    yanchor="bottom",
                    yshift=13 if key in ("q25", "q75") else 0,
                    showarrow=False,
                    text=words,
                    font={"size": 11},
                )


def coverage_figure(summaries: Sequence[Row], names: Mapping[int, str]) -> go.Figure:
    """One stacked bar per dataset: members with a value, NULL with a reason, not scored (``queries.summary``)."""
    figure = go.Figure()
    kinds = (
        ("n_values", "✓", "with a value", ACCEPT),
        ("n_nulls", "∅", "NULL with a reason", REJECT),
        ("n_missing", "…", "not scored", NEUTRAL),
    )
    labels = [label_text(names[row["dataset_id"]]) for row in summaries]
    for key, sign, words, fill in kinds:
        figure.add_bar(
            y=labels,
            x=[row[key] for row in summaries],
            orientation="h",
            name=f"{sign} {words}",
            marker={"color": fill},
            text=[sign if row[key] else "" for row in summaries],
            textposition="inside",
            insidetextanchor="middle",
            customdata=[100 * row[key] / row["n_members"] if row["n_members"] else 0 for row in summaries],
            hovertemplate="%{x:,} rows (%{customdata:.1f} %)<extra>" + words + "</extra>",
        )
    figure.update_layout(**layout(barmode="stack", height=48 + 34 * max(1, len(summaries)), showlegend=False))
    figure.update_layout(margin={"l": 8, "r": 8, "t": 8, "b": 24})
    figure.update_yaxes(automargin=True, autorange="reversed", showticklabels=len(summaries) > 1)
    return figure


def wants_log(values: Sequence[float]) -> bool:
    """Whether an axis reads better in logarithms: all values positive, the largest far above the middle one."""
    if not values or min(values) <= 0:
        return False
    return max(values) > 40 * sorted(values)[len(values) // 2]


def scatter_figure(
    points: Sequence[Row],
    names: Mapping[int, str],
    *,
    x_title: str,
    y_title: str,
    unit_lines: tuple[bool, bool] = (False, False),
    height: int = 460,
) -> go.Figure:
    """Two scores of the same rows (``queries.scatter``), one trace per dataset in the order of ``by_dataset``.

    ``unit_lines``: draw a line at 1 on x and on y, where the score is a ratio and 1 means something.
    """
    figure = go.Figure()
    for i, part in enumerate(by_dataset(points)):
        figure.add_scattergl(
            x=[row["x"] for row in part],
            y=[row["y"] for row in part],
            mode="markers",
            name=label_text(names[part[0]["dataset_id"]]),
            marker={"size": 5, "color": colour(i), "opacity": 0.55},
            customdata=[label_text(row["instruction"]) for row in part],
            hovertemplate="%{customdata}<br>x %{x:.4~g} · y %{y:.4~g}<extra></extra>",
        )
    if unit_lines[0]:
        figure.add_vline(x=1, line={"color": NEUTRAL, "width": 1, "dash": "dash"})
    if unit_lines[1]:
        figure.add_hline(y=1, line={"color": NEUTRAL, "width": 1, "dash": "dash"})
    n_traces = len(figure.data)
    figure.update_layout(**layout(height=height, showlegend=n_traces > 1, dragmode="select"))
    figure.update_xaxes(title_text=label_text(x_title), type="log" if wants_log([p["x"] for p in points]) else None)
    figure.update_yaxes(title_text=label_text(y_title), type="log" if wants_log([p["y"] for p in points]) else None)
    return figure
