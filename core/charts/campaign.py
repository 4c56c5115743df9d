"""Figures of a campaign: its pairs by state, and its decisions against what was planned (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import accumulate
from typing import Any

import plotly.graph_objects as go

from core.charts.theme import ACCEPT, NEUTRAL, REFLECTED, REJECT, layout


def state_labels(overlap: int) -> dict[str, str]:
    """The states of a campaign's pairs in the order of a bar, from what is settled to what has not begun."""
    return {
        "agreed": "✓ agreed" if overlap > 1 else "✓ decided",
        "adjudicated": "⚖ adjudicated",
        "bulk": "in bulk",
        "disputed": "≠ disputed",
        **{f"waiting {n}": f"{n} of {overlap}" for n in range(overlap - 1, 0, -1)},
        "waiting 0": "not begun",
    }


_COLOURS = {"agreed": ACCEPT, "adjudicated": REFLECTED, "bulk": "#56B4E9", "disputed": REJECT, "waiting 0": NEUTRAL}


def state_counts(states: Mapping[str, int], waiting: Mapping[int, int], *, overlap: int) -> list[dict[str, Any]]:
    """``key, state, n`` of every state, in the order of the bar."""
    counts = {**states, **{f"waiting {n}": count for n, count in waiting.items()}}
    return [{"key": key, "state": label, "n": counts.get(key, 0)} for key, label in state_labels(overlap).items()]


def states_figure(counts: Sequence[Mapping[str, Any]], *, dark: bool = False) -> go.Figure:
    """One bar of all pairs, by state (:func:`state_counts`); each part says its number.

    ``dark``: the page behind it is.
    """
    total = sum(row["n"] for row in counts)
    figure = go.Figure()
    for row in counts:
        if not row["n"]:
            continue
        pale = row["key"] == "waiting 0"
        begun = row["key"].startswith("waiting") and not pale
        figure.add_bar(
            x=[row["n"]],
            y=[""],
            orientation="h",
            name=f"{row['state']}: {row['n']:,}",
            marker={
                "color": _COLOURS.get(row["key"], "#E69F00"),
                "opacity": 0.35 if pale else 1,
                # Over the colour, not in its place, so that the number in the bar can be read.
                "pattern": {"shape": "/" if begun else "", "fillmode": "overlay", "fgopacity": 0.4, "size": 7},
            },
            insidetextfont={"color": "#1d2a33" if begun or (pale and not dark) else "#ffffff"},
            text=[f"{row['n']:,}" if row["n"] >= 0.03 * total else ""],
            textposition="inside",
            insidetextanchor="middle",
            hovertemplate=f"{row['state']}: {row['n']:,} of {total:,} pairs<extra></extra>",
        )
    figure.update_layout(
        **layout(
            barmode="stack", height=136, showlegend=True, margin={"l": 8, "r": 8, "t": 50, "b": 24},
            legend={"orientation": "h", "yanchor": "bottom", "y": 1.0, "x": 0, "traceorder": "normal"},
        )
    )  # fmt: skip
    figure.update_xaxes(range=[0, max(1, total)], showgrid=False, zeroline=False, dtick=_step(total))
    figure.update_yaxes(visible=False)
    return figure


def _step(n: int) -> int | None:
    """Of an axis that counts to ``n``: no fractions between few; None: as plotly sees fit."""
    return 1 if n < 6 else None


def burn_up(rows: Sequence[Mapping[str, Any]], *, n_wanted: int) -> list[dict[str, Any]]:
    """Decisions by stretch of time and in all. ``rows``: ``bucket, n`` in the order of time."""
    totals = accumulate(row["n"] for row in rows)
    return [
        {"time (UTC)": row["bucket"], "decisions": row["n"], "in all": total, "planned": n_wanted}
        for row, total in zip(rows, totals, strict=True)
    ]


def pace_figure(rows: Sequence[Mapping[str, Any]], *, n_wanted: int) -> go.Figure:
    """Decisions so far against what was planned (dashed). ``rows``: ``bucket, until, n`` in the order of time, at least
    one. Within a stretch the line rises; between two that do not touch it is level.
    """
    points: list[tuple[datetime, int]] = [(rows[0]["bucket"], 0)]
    for row in rows:
        points += [(row["bucket"], points[-1][1]), (row["until"], points[-1][1] + row["n"])]
    figure = go.Figure()
    figure.add_scatter(
        x=[moment for moment, _ in points],
        y=[n for _, n in points],
        mode="lines",
        line={"color": REFLECTED, "width": 2.5},
        fill="tozeroy",
        fillcolor="rgba(15,139,141,0.15)",
        showlegend=False,
        hovertemplate="%{y:,} decisions by %{x|%d %b, %H:%M}<extra></extra>",
    )
    figure.add_hline(y=n_wanted, line={"color": NEUTRAL, "dash": "dash", "width": 1.5})
    figure.add_annotation(
        text=f"planned: {n_wanted:,}", x=0, xref="paper", xanchor="left", y=n_wanted, yanchor="bottom", showarrow=False
    )
    figure.update_layout(**layout(height=260, margin={"l": 44, "r": 8, "t": 8, "b": 40}))
    figure.update_xaxes(nticks=5)
    figure.update_yaxes(range=[0, n_wanted * 1.15], rangemode="tozero", dtick=_step(n_wanted))
    return figure
