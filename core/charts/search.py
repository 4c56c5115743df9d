"""The figure of a size search: evaluation loss against the number of rows, trial by trial. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from core.charts.scores import label_text
from core.charts.theme import REJECT, SERIES, layout

_MOST_NUMBERED = 60


def best_trial(trials: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The done trial with the lowest evaluation loss, of equal ones the one with fewer rows; None where none is."""
    done = [trial for trial in trials if trial["outcome"] == "done" and trial["loss_nats"] is not None]
    return min(done, key=lambda trial: (trial["loss_nats"], trial["n_rows"])) if done else None


def search_figure(trials: Sequence[Mapping[str, Any]], *, lowest: int, highest: int) -> go.Figure:
    """Finished trials as numbered points, the best one as a star; trials without a loss as crosses along the top.

    A trial has ``number, n_rows, loss_nats, outcome, reason, seconds``. A cross has no height: it says only which size
    diverged or failed.
    """
    done = [trial for trial in trials if trial["outcome"] == "done" and trial["loss_nats"] is not None]
    bad = [trial for trial in trials if trial["outcome"] in ("failed", "diverged") and trial["n_rows"]]
    best = best_trial(trials)
    figure = go.Figure()
    rest = [trial for trial in done if trial is not best]
    numbered = len(done) <= _MOST_NUMBERED
    figure.add_scatter(
        x=[trial["n_rows"] for trial in rest],
        y=[trial["loss_nats"] for trial in rest],
        mode="markers+text" if numbered else "markers",
        text=[str(trial["number"]) for trial in rest],
        textposition="top center",
        textfont={"size": 11},
        marker={"size": 10, "color": SERIES[0], "opacity": 0.85},
        name="trial, by its number",
        hovertext=[_told(trial) for trial in rest],
        hovertemplate="%{hovertext}<extra></extra>",
    )
    if best is not None:
        figure.add_scatter(
            x=[best["n_rows"]],
            y=[best["loss_nats"]],
            mode="markers+text",
            text=[str(best["number"])],
            textposition="top center",
            textfont={"size": 12},
            marker={"size": 17, "color": SERIES[1], "symbol": "star", "line": {"width": 1, "color": "#1d2a33"}},
            name="lowest loss",
            hovertext=[_told(best)],
            hovertemplate="%{hovertext}<extra></extra>",
        )
    if bad:
        figure.add_scatter(
            x=[trial["n_rows"] for trial in bad],
            y=[0.98] * len(bad),
            yaxis="y2",
            mode="markers",
            marker={"size": 11, "color": REJECT, "symbol": "x"},
            name="no loss (failed or diverged)",
            hovertext=[_told(trial) for trial in bad],
            hovertemplate="%{hovertext}<extra></extra>",
        )
    figure.update_layout(**layout(height=420, showlegend=True))
    figure.update_layout(
        yaxis={"title": {"text": "evaluation loss, nats per response token"}, "zeroline": False},
        yaxis2={"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True},
        margin={"l": 64, "t": 40},
    )
    figure.update_xaxes(title_text="rows of the selection (best first)", zeroline=False, **_log_ticks(lowest, highest))
    return figure


def _log_ticks(lowest: int, highest: int) -> dict[str, Any]:
    """A log axis over the bounds of the search with round numbers as ticks."""
    import math

    ticks = [m * 10**e for e in range(0, 9) for m in (1, 2, 5) if lowest / 1.3 <= m * 10**e <= highest * 1.3]
    span = math.log10(lowest) - 0.06, math.log10(highest) + 0.06
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:,}" for tick in ticks], "range": span}


def _told(trial: Mapping[str, Any]) -> str:
    lines = [f"Trial {trial['number']}: {trial['n_rows']:,} rows"]
    if trial["outcome"] == "done":
        lines.append(f"evaluation loss {trial['loss_nats']:.4f} nats")
    else:
        lines.append(f"{trial['outcome']}: {label_text(' '.join(str(trial['reason']).split()))}")
    if trial.get("seconds"):
        lines.append(f"{trial['seconds']:,.0f} s")
    if trial.get("same_as"):
        lines.append(f"the same size as trial {trial['same_as']}, not trained again")
    return "<br>".join(lines)
