"""Figures of the meeting board that no other page has, and how a figure is made larger for a projector. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from core.charts.judging import COLOURS, LOSE, TEXT_ON_BAR, TIE, WIN, Bar, counted_words, ordered, score_words
from core.charts.relations import short
from core.charts.scores import label_text
from core.charts.theme import ACCEPT, NEUTRAL, ORIGINAL, REFLECTED, REJECT, layout

Row = Mapping[str, Any]
_LINE_PX = 34
_COVERAGE = (
    ("n_values", "✓ with a value", ACCEPT, ""),
    ("n_nulls", "∅ NULL with a reason", REJECT, "/"),
    ("n_missing", "… not scored", NEUTRAL, "."),
)
_STATES = (
    ("n_accepted", "✓ accepted", ACCEPT, ""),
    ("n_rejected", "✗ rejected", REJECT, "/"),
    ("n_undecided", "… undecided", NEUTRAL, "."),
)


def _one_a_line(figure: go.Figure, labels: Sequence[str], **more: Any) -> None:
    """Name the lines of a figure whose y values are 0, 1, …; the first stands at the top."""
    figure.update_yaxes(
        tickvals=list(range(len(labels))), ticktext=list(labels), automargin=True, range=[len(labels) - 0.4, -0.6],
        **more,
    )  # fmt: skip


def _stacked(
    rows: Sequence[Row], labels: Sequence[str], parts: Sequence[tuple[str, str, str, str]], *, of: str, unit: str
) -> go.Figure:
    """Bars of 100 % with their counts inside; the parts differ by a pattern beside their colour."""
    figure = go.Figure()
    for key, name, colour, pattern in parts:
        shares = [100 * row[key] / row[of] if row[of] else 0.0 for row in rows]
        figure.add_bar(
            y=list(range(len(rows))), x=shares, orientation="h", name=name,
            marker={"color": colour, "pattern": {"shape": pattern, "fillmode": "overlay", "fgcolor": "#ffffff",
                                              "fgopacity": 0.3, "size": 7}},
            text=[f"{row[key]:,}" if share >= 6 else "" for row, share in zip(rows, shares, strict=True)],
            textposition="inside", insidetextanchor="middle", insidetextfont={"color": "#ffffff"}, textangle=0,
            customdata=[[row[key], row[of]] for row in rows],
            hovertemplate="%{customdata[0]:,} of %{customdata[1]:,} " + unit + " (%{x:.1f} %)<extra>" + name
            + "</extra>",
        )  # fmt: skip
    gap = 0.28 if len(rows) > 2 else 0.55
    figure.update_layout(**layout(barmode="stack", height=92 + _LINE_PX * max(2, len(rows)), bargap=gap))
    figure.update_layout(
        margin={"l": 8, "r": 20, "t": 36, "b": 40},
        legend_traceorder="normal",
        uniformtext={"mode": "hide", "minsize": 10},
    )
    figure.update_xaxes(range=[0, 100], ticksuffix=" %", zeroline=False)
    _one_a_line(figure, [short(one, 40) for one in labels], showgrid=False)
    return figure


def coverage_figure(rows: Sequence[Row]) -> go.Figure:
    """Of every indicator the share of rows with a value, NULL, or not scored.

    ``rows``: ``label, n_values, n_nulls, n_missing, n_rows``.
    """
    return _stacked(rows, [str(row["label"]) for row in rows], _COVERAGE, of="n_rows", unit="rows")


def review_figure(rows: Sequence[Row]) -> go.Figure:
    """Of every dataset the share of pairs accepted, rejected and undecided (``db.board_numbers.review_by_dataset``)."""
    return _stacked(rows, [str(row["dataset"]) for row in rows], _STATES, of="n_pairs", unit="pairs")


def jobs_figure(rows: Sequence[Row]) -> go.Figure:
    """How far jobs are, in per cent. ``rows``: ``job, done, total, state, left`` (words)."""
    shares = [100 * row["done"] / row["total"] if row["total"] else 0.0 for row in rows]
    figure = go.Figure()
    figure.add_bar(
        y=list(range(len(rows))), x=[100] * len(rows), orientation="h", hoverinfo="skip",
        marker={"color": "rgba(138,151,160,0.18)"},
    )  # fmt: skip
    figure.add_bar(
        y=list(range(len(rows))), x=shares, orientation="h",
        marker={"color": [REFLECTED if row["state"] == "running" else ORIGINAL for row in rows]},
        customdata=[[row["done"], row["total"], row["state"]] for row in rows],
        hovertemplate="%{customdata[0]:,} of %{customdata[1]:,} (%{customdata[2]})<extra></extra>",
    )  # fmt: skip
    figure.update_layout(**layout(barmode="overlay", height=70 + 48 * max(1, len(rows)), showlegend=False, bargap=0.45))
    figure.update_layout(margin={"l": 8, "r": 20, "t": 12, "b": 36})
    figure.update_xaxes(range=[0, 100], ticksuffix=" %", zeroline=False)
    labels = [
        f"{short(str(row['job']), 36)}<br>{share:.0f} % · {label_text(str(row['state']))}"
        + (f", {label_text(row['left'])} left" if row["left"] else "")
        for row, share in zip(rows, shares, strict=True)
    ]
    _one_a_line(figure, labels, showgrid=False)
    return figure


def distributions_figure(found: Sequence[Any], labels: Sequence[str], *, n_columns: int = 4) -> go.Figure:
    """Small multiples of histograms with the median as a line (``db.board_numbers.Distribution``)."""
    n_columns = max(1, min(n_columns, len(found)))
    n_lines = max(1, math.ceil(len(found) / n_columns))
    height = 200 * n_lines + 40
    figure = make_subplots(
        rows=n_lines,
        cols=n_columns,
        horizontal_spacing=0.035,
        vertical_spacing=min(0.4, 92 / height) if n_lines > 1 else 0.0,
        subplot_titles=[_two_lines(label) for label in labels],
    )
    for i, one in enumerate(found):
        row, column = i // n_columns + 1, i % n_columns + 1
        width = (one.edges[-1] - one.edges[0]) / max(1, len(one.counts)) or max(abs(one.edges[0]) * 0.02, 0.02)
        places = [one.edges[0] + (j + 0.5) * width for j in range(len(one.counts))]
        figure.add_bar(
            x=places, y=list(one.counts), width=[width] * len(places), opacity=0.85,
            marker={"color": REFLECTED, "line": {"width": 0}}, showlegend=False, row=row, col=column,
            hovertemplate="about %{x:.4~g}: %{y:,} rows<extra></extra>",
        )  # fmt: skip
        figure.add_vline(x=one.median, line={"color": ORIGINAL, "width": 2}, row=row, col=column)
        figure.update_xaxes(nticks=5, zeroline=False, row=row, col=column)
    figure.update_layout(**layout(height=height, bargap=0.0, showlegend=False, dragmode=False))
    figure.update_layout(margin={"l": 8, "r": 8, "t": 44, "b": 28})
    figure.update_yaxes(showticklabels=False, showgrid=False, zeroline=False)
    figure.update_annotations(font_size=13)
    for i in range(len(found), n_lines * n_columns):
        for update in (figure.update_xaxes, figure.update_yaxes):
            update(visible=False, row=i // n_columns + 1, col=i % n_columns + 1)
    return figure


def _two_lines(label: str) -> str:
    """The output's name above its model: side by side they run into the next panel's."""
    output, _, model = label.partition(" · ")
    return f"<b>{short(output, 26)}</b><br><span style='font-size:0.8em'>{short(model, 30) if model else ' '}</span>"


def kappas_figure(rows: Sequence[Row]) -> go.Figure:
    """Cohen's kappa of every two reviewers, with its interval where there is one.

    ``rows``: ``pair, kappa, low, high, n``.
    """
    figure = go.Figure()
    places = list(range(len(rows)))
    for i, row in enumerate(rows):
        if row["low"] is not None and row["high"] is not None:
            figure.add_scatter(
                x=[row["low"], row["high"]], y=[i, i], mode="lines", line={"color": REFLECTED, "width": 2.5},
                hoverinfo="skip",
            )  # fmt: skip
    figure.add_scatter(
        x=[row["kappa"] for row in rows], y=places, mode="markers", marker={"size": 12, "color": REFLECTED},
        customdata=[row["n"] for row in rows],
        hovertemplate="κ = %{x:.2f} over %{customdata:,} pairs<extra></extra>",
    )  # fmt: skip
    figure.add_vline(x=0, line={"color": NEUTRAL, "width": 1, "dash": "dash"})
    figure.update_layout(**layout(height=92 + _LINE_PX * max(2, len(rows)), showlegend=False))
    figure.update_layout(margin={"l": 8, "r": 16, "t": 12, "b": 48})
    figure.update_xaxes(
        title_text="Cohen's κ (1: always agree, 0: as by chance)", zeroline=False,
        range=[min([-0.25, *(row["low"] for row in rows if row["low"] is not None)]) - 0.05, 1.05],
    )  # fmt: skip
    _one_a_line(figure, [f"{short(str(row['pair']), 44)} · n {row['n']:,}" for row in rows], zeroline=False)
    return figure


def agreement_figure(rows: Sequence[Row]) -> go.Figure:
    """Agreement before and after the discussion, a line a vote. ``rows``: ``vote, before, after`` (None: no share)."""
    figure = go.Figure()
    places = list(range(len(rows)))
    for i, row in enumerate(rows):
        if row["before"] is not None and row["after"] is not None:
            figure.add_scatter(
                x=[100 * row["before"], 100 * row["after"]], y=[i, i], mode="lines", hoverinfo="skip", showlegend=False,
                line={"color": NEUTRAL, "width": 3},
            )  # fmt: skip
    for key, name, colour, symbol in (
        ("before", "before the discussion", ORIGINAL, "circle-open"),
        ("after", "after it", REFLECTED, "circle"),
    ):
        figure.add_scatter(
            x=[None if row[key] is None else 100 * row[key] for row in rows], y=places, mode="markers", name=name,
            marker={"size": 13, "color": colour, "symbol": symbol, "line": {"width": 2.5, "color": colour}},
            hovertemplate="%{x:.0f} % of pairs of voters agree<extra>" + name + "</extra>",
        )  # fmt: skip
    figure.update_layout(**layout(height=100 + _LINE_PX * max(2, len(rows))))
    figure.update_layout(margin={"l": 8, "r": 16, "t": 36, "b": 48})
    figure.update_xaxes(
        title_text="pairs of voters with the same verdict", ticksuffix=" %", range=[-4, 104], zeroline=False
    )
    _one_a_line(figure, [short(str(row["vote"]), 40) for row in rows], zeroline=False)
    return figure


def told_apart(bars: Sequence[Bar], *, length: int = 24) -> list[Bar]:
    """Bars for a figure: models whose names begin alike for ``length`` characters are cut in the middle, not at the
    end, so that they differ there."""
    names = {name for bar in bars for name in (bar.first, bar.second)}
    starts = [name[: length - 1] for name in names]
    head = length // 3
    cut = {
        name: f"{name[:head]}…{name[head + 1 - length :]}"
        for name in names
        if len(name) > length and starts.count(name[: length - 1]) > 1
    }
    return [replace(bar, first=cut.get(bar.first, bar.first), second=cut.get(bar.second, bar.second)) for bar in bars]


def narrow_bars_figure(bars: Sequence[Bar]) -> go.Figure:
    """Win/tie/lose bars for a phone: names and numbers stand above and below each bar, which is as wide as the screen.

    Wins are the first model's, whose name stands left.
    """
    shown, line_px = ordered(bars), 92
    figure = go.Figure()
    for outcome in (WIN, TIE, LOSE):
        counts = [bar.count(outcome) for bar in shown]
        shares = [count / bar.n if bar.n else 0.0 for count, bar in zip(counts, shown, strict=True)]
        figure.add_bar(
            y=list(range(len(shown))), x=shares, orientation="h", width=0.3, showlegend=False, hoverinfo="skip",
            marker={"color": COLOURS[outcome], "line": {"width": 0}},
            text=[f"<b>{count:,}</b>" if share > 0.09 else "" for count, share in zip(counts, shares, strict=True)],
            textposition="inside", insidetextanchor="middle", textangle=0, constraintext="none",
            textfont={"color": TEXT_ON_BAR},
        )  # fmt: skip
    for place, bar in enumerate(shown):
        first, second = (f"<b>{short(name, 20)}</b>" for name in (bar.first, bar.second))
        counts_of = f"{bar.win:,} / {bar.tie:,} / {bar.lose:,}"
        for x, anchor, above, below in (
            (0, "left", f"<span style='color:{COLOURS[WIN]}'>■</span> {first}", short(bar.about, 26)),
            (1, "right", f"{second} <span style='color:{COLOURS[LOSE]}'>■</span>", f"win score {score_words(bar)}"),
        ):
            common = {"x": x, "xanchor": anchor, "y": place, "showarrow": False}
            figure.add_annotation(text=above, yanchor="bottom", yshift=0.15 * line_px + 1, font_size=13, **common)
            figure.add_annotation(text=below, yanchor="top", yshift=-0.15 * line_px - 1, font_size=11, **common)
        figure.add_annotation(
            text=f"{counted_words(bar)}: {counts_of}", x=0, xanchor="left", y=place, yanchor="top", showarrow=False,
            yshift=-0.15 * line_px - 16, font_size=11,
        )  # fmt: skip
    figure.update_layout(**layout(height=24 + line_px * max(1, len(shown)), barmode="stack", dragmode=False))
    figure.update_layout(margin={"l": 4, "r": 4, "t": 8, "b": 16})
    figure.update_xaxes(visible=False, range=[0, 1], fixedrange=True)
    figure.update_yaxes(visible=False, range=[max(1, len(shown)) - 0.42, -0.58], fixedrange=True)
    return figure


def enlarged(figure: go.Figure, *, font_px: int, height: int | None = None) -> go.Figure:
    """A copy with all letters scaled to ``font_px`` (figures are made at 13 px), and of this ``height``."""
    made = go.Figure(figure)
    scale = font_px / 13
    made.update_layout(font_size=font_px, legend_font_size=font_px, hoverlabel_font_size=font_px)
    made.update_xaxes(tickfont_size=font_px, title_font_size=font_px)
    made.update_yaxes(tickfont_size=font_px, title_font_size=font_px)
    for one in made.layout.annotations:
        one.font.size = (one.font.size or 13) * scale
    margin = made.layout.margin
    made.update_layout(margin={side: (getattr(margin, side) or 0) * scale for side in ("l", "r", "t", "b")})
    if height is not None:
        made.update_layout(height=height)
    return made
