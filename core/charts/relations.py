"""Figures of the Relations and Map pages: correlations, points, spreads of groups. Pure: rows in, figures out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from core.charts.scores import Row, label_text, wants_log
from core.charts.theme import ACCEPT, NEUTRAL, REJECT, SERIES, layout
from core.correlation import Correlation

# Both ends and the middle can be seen on a light and on a dark page; a value near 0 is nearly the page itself.
DIVERGING = ((0.0, "#D55E00"), (0.5, "rgba(138,151,160,0.14)"), (1.0, "#0072B2"))
SEQUENTIAL = ((0.0, "#0072B2"), (0.5, "#CC79A7"), (1.0, "#E69F00"))
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "triangle-down", "pentagon")
MOST_COLOURS = 7
NO_VALUE = "no value"
VERDICTS = {
    "undecided": ("·", NEUTRAL),
    "accepted": ("✓", ACCEPT),
    "rejected": ("✗", REJECT),
    "disputed": ("≠", "#CC79A7"),
}
"""Of pairs: sign and colour, in the order in which they are drawn (later ones lie on top)."""
_STRONG = 0.55
_MOST_WRITTEN = 20
_LONGEST_LABEL = 48


def short(text: str, length: int = _LONGEST_LABEL) -> str:
    """The first ``length`` characters of a name in one line, with a mark where it was cut, as a label of a figure."""
    line = " ".join(text.split()) or "(empty)"
    return label_text(line if len(line) <= length else line[: length - 1] + "…")


# --- correlations ---


@dataclass(frozen=True)
class Cell:
    """A cell of the heat map: the columns of its row and its column, and what stands in it."""

    row: int
    column: int
    correlation: Correlation


def cells(table: Sequence[Sequence[Correlation]], order: Sequence[int]) -> list[list[Cell]]:
    """The cells by how they are written (strong, weak, not computable, of a column with itself), as the traces lie."""
    parts: list[list[Cell]] = [[], [], [], []]
    for i in order:
        for j in order:
            found = table[i][j]
            kind = 3 if i == j else 2 if found.value is None else 0 if abs(found.value) >= _STRONG else 1
            parts[kind].append(Cell(i, j, found))
    return parts


def correlation_figure(
    table: Sequence[Sequence[Correlation]],
    labels: Sequence[str],
    *,
    order: Sequence[int],
    method: str,
    dark: bool = False,
) -> go.Figure:
    """A heat map of correlations with a mark on every cell: trace 0 is the colours, then a trace per list of ``cells``.

    A pair that has no correlation is empty with a "?" and says why when pointed at; it is never drawn as 0. ``dark``:
    the page behind it is.
    """
    k = len(order)
    place = {column: i for i, column in enumerate(order)}
    names = [short(labels[i], 30) for i in order]
    values = [[table[i][j].value if i != j else None for j in order] for i in order]
    figure = go.Figure()
    figure.add_heatmap(
        z=values, x=list(range(k)), y=list(range(k)), zmin=-1, zmax=1, colorscale=DIVERGING, xgap=2, ygap=2,
        hoverinfo="skip", colorbar={"thickness": 12, "tickvals": [-1, -0.5, 0, 0.5, 1], "len": 0.9},
    )  # fmt: skip
    size = 12 if k <= 10 else 10 if k <= 14 else 8
    for kind, part in enumerate(cells(table, order)):
        figure.add_scatter(
            x=[place[cell.column] for cell in part],
            y=[place[cell.row] for cell in part],
            mode="markers",
            marker={"size": 22, "symbol": "square", "opacity": 0},
            selected={"marker": {"opacity": 0}},
            unselected={"marker": {"opacity": 0}},
            hovertext=[_told(cell, labels, method) for cell in part],
            hovertemplate="%{hovertext}<extra></extra>",
            showlegend=False,
        )
        # Numbers are annotations: the text of a trace would fade when a cell of another is selected.
        for cell in part if k <= _MOST_WRITTEN else ():
            figure.add_annotation(
                x=place[cell.column], y=place[cell.row], text=_written(cell), showarrow=False,
                font={"size": size, "color": "#ffffff" if kind == 0 or dark else "#1d2a33"},
            )  # fmt: skip
    figure.update_layout(
        **layout(height=110 + max(220, 38 * k), clickmode="event+select", dragmode=False, hoverdistance=-1)
    )
    figure.update_layout(margin={"l": 8, "r": 8, "t": 8, "b": 8})
    ticks = {"tickvals": list(range(k)), "ticktext": names, "showgrid": False, "zeroline": False, "automargin": True}
    figure.update_xaxes(**ticks, tickangle=-40, range=[-0.5, k - 0.5])
    figure.update_yaxes(**ticks, range=[k - 0.5, -0.5])
    return figure


def _written(cell: Cell) -> str:
    if cell.row == cell.column:
        return ""
    if cell.correlation.value is None:
        return "?"
    rounded = round(cell.correlation.value, 2) or 0.0  # no minus before 0.00
    return f"{rounded:.2f}".replace("-", "−")


def _told(cell: Cell, labels: Sequence[str], method: str) -> str:
    one, other = short(labels[cell.row]), short(labels[cell.column])
    found = cell.correlation
    if cell.row == cell.column:
        return f"{one}<br>{found.n:,} rows have a value"
    said = (
        f"{method} {found.value:.4f}"
        if found.value is not None
        else f"not computable: {label_text(found.reason or '')}"
    )
    return f"{one} × {other}<br>{said}<br>{found.n:,} rows have both"


# --- points ---


@dataclass(frozen=True)
class Group:
    """Points that are drawn as one trace. ``colours`` are values on the colour scale; None: one colour for all, the
    given ``colour`` or the next of the series."""

    name: str
    rows: tuple[Row, ...]
    colours: tuple[float, ...] | None = None
    is_rest: bool = False
    colour: str | None = None


def groups(points: Sequence[Row], *, by: str, names: Mapping[int, str]) -> list[Group]:
    """Points parted into the traces of a figure. ``by``: "dataset", "score" (their ``colour``), or the column that
    tells them apart ("category", "verdict", "stage", …).

    Of more than ``MOST_COLOURS`` categories the largest have a colour of their own; rows without one come last.
    Verdicts have the colours that they have everywhere, undecided ones below the others.
    """
    if by == "score":
        there = [row for row in points if row["colour"] is not None]
        parts = [Group("", tuple(there), tuple(float(row["colour"]) for row in there))] if there else []
        rest = tuple(row for row in points if row["colour"] is None)
        return [*parts, *([Group(NO_VALUE, rest, is_rest=True)] if rest else [])]
    if by == "verdict":
        kinds = {verdict: tuple(row for row in points if row["verdict"] == verdict) for verdict in VERDICTS}
        return [
            Group(f"{sign} {verdict}", kinds[verdict], is_rest=verdict == "undecided", colour=colour)
            for verdict, (sign, colour) in VERDICTS.items()
            if kinds[verdict]
        ]
    column = "dataset_id" if by == "dataset" else by
    found: dict[Any, list[Row]] = {}
    for row in points:
        found.setdefault(row[column], []).append(row)
    nothing = found.pop(None, [])
    ordered = sorted(found.items(), key=lambda item: (-len(item[1]), str(item[0])))
    kept = ordered if len(ordered) <= MOST_COLOURS else ordered[: MOST_COLOURS - 1]
    made = [Group(names[key] if by == "dataset" else str(key), tuple(rows)) for key, rows in kept]
    other = [row for _, rows in ordered[len(kept) :] for row in rows]
    if other:
        made.append(Group(f"{len(ordered) - len(kept)} others", tuple(other), is_rest=True))
    return [*made, *([Group(NO_VALUE, tuple(nothing), is_rest=True)] if nothing else [])]


def points_figure(
    parts: Sequence[Group],
    *,
    x_title: str,
    y_title: str,
    colour_title: str = "",
    unit_lines: tuple[bool, bool] = (False, False),
    may_be_log: bool = True,
    dragmode: str = "select",
    names_in_a_line: int = 4,
    height: int = 520,
) -> go.Figure:
    """Rows as points, one trace per group in the order of ``parts``; each row has ``x``, ``y`` and ``instruction``."""
    figure = go.Figure()
    n_rows = sum(len(part.rows) for part in parts)
    size, opacity = (6, 0.75) if n_rows < 1000 else (5, 0.6) if n_rows < 8000 else (4, 0.5)
    coloured = [part for part in parts if part.colours is not None]
    for i, part in enumerate(parts):
        marker: dict[str, Any] = {"size": size, "opacity": opacity, "symbol": SYMBOLS[i % len(SYMBOLS)]}
        if part.colours is not None:
            low, high = _middle(part.colours)
            marker |= {
                "color": list(part.colours), "colorscale": SEQUENTIAL, "cmin": low, "cmax": high, "showscale": True,
                "colorbar": {"title": {"text": short(colour_title, 60), "side": "right"}, "thickness": 12},
            }  # fmt: skip
        else:
            marker["color"] = part.colour or (NEUTRAL if part.is_rest else SERIES[i % len(SERIES)])
        figure.add_scattergl(
            x=[row["x"] for row in part.rows],
            y=[row["y"] for row in part.rows],
            mode="markers",
            name=short(part.name) if part.name else "",
            marker=marker,
            hovertext=[_row_told(row, part) for row in part.rows],
            hovertemplate="%{hovertext}<br>x %{x:.4~g} · y %{y:.4~g}<extra></extra>",
            showlegend=bool(part.name),
        )
    for wanted, draw in zip(unit_lines, (figure.add_vline, figure.add_hline), strict=True):
        if wanted:
            draw(1, line={"color": NEUTRAL, "width": 1, "dash": "dash"})
    named = [part for part in parts if part.name]
    figure.update_layout(
        **layout(height=height, showlegend=len(named) > 1 or bool(coloured and named), dragmode=dragmode)
    )
    figure.update_layout(margin_t=32 + 22 * math.ceil(len(named) / names_in_a_line))
    for axis, name, title in ((figure.update_xaxes, "x", x_title), (figure.update_yaxes, "y", y_title)):
        log = may_be_log and wants_log([row[name] for part in parts for row in part.rows])
        axis(title_text=label_text(title), type="log" if log else None, zeroline=False)
    return figure


def _middle(values: Sequence[float]) -> tuple[float, float]:
    """The range of the colours: a few extreme values shall not make all others look the same."""
    ordered = sorted(values)
    low, high = ordered[int(0.02 * (len(ordered) - 1))], ordered[math.ceil(0.98 * (len(ordered) - 1))]
    return (low, high) if low < high else (ordered[0], ordered[-1])


def _row_told(row: Row, part: Group) -> str:
    what = f"{row['colour']:.4g}" if part.colours is not None else part.name
    return f"{label_text(' '.join(row['instruction'].split()))}<br>{short(what)}"


# --- groups ---


def group_name(spread: Any, names: Mapping[int, str]) -> str:
    """The name of a group of ``relations.spread``."""
    if spread.kind == "dataset":
        return names[spread.dataset_id]
    return {"other": "all others", "none": NO_VALUE}.get(spread.kind, spread.category or "")


def _group_told(one: Any, names: Mapping[int, str]) -> str:
    return (
        f"{short(group_name(one, names))}<br>{one.n:,} values · {one.n_nulls:,} NULL · {one.n_missing:,} unscored<br>"
        f"median {one.median:.4g} · mean {one.mean:.4g}<br>middle half {one.q25:.4g} to {one.q75:.4g}"
    )


def spread_figure(spreads: Sequence[Any], names: Mapping[int, str], *, title: str, log: bool = False) -> go.Figure:
    """A box per group of ``relations.spread`` with values, from top to bottom in their order.

    The box reaches from the first to the third quartile, its whiskers from the 5 % to the 95 % quantile. Trace 0 is the
    boxes; trace 1 a mark on each median, which tells the numbers and can be clicked. The height of the pointer alone
    says which group is meant: a click on the end of a long whisker is far from its median and near to another.
    """
    shown = [one for one in spreads if one.n]
    places = list(range(len(shown)))
    figure = go.Figure()
    figure.add_box(
        y=places, orientation="h", q1=[one.q25 for one in shown], median=[one.median for one in shown],
        q3=[one.q75 for one in shown], lowerfence=[one.q05 for one in shown], upperfence=[one.q95 for one in shown],
        marker={"color": SERIES[0]}, line={"width": 1.5}, hoverinfo="skip", showlegend=False,
    )  # fmt: skip
    figure.add_scatter(
        x=[one.median for one in shown],
        y=places,
        mode="markers",
        marker={"size": 9, "color": SERIES[1], "symbol": "diamond"},
        hovertext=[_group_told(one, names) for one in shown],
        hovertemplate="%{hovertext}<extra></extra>",
        showlegend=False,
    )
    figure.update_layout(
        **layout(
            height=90 + 30 * max(2, len(shown)),
            clickmode="event+select",
            dragmode=False,
            hoverdistance=-1,
            hovermode="y",
        )
    )
    figure.update_layout(margin={"l": 8, "r": 16, "t": 8, "b": 44})
    figure.update_xaxes(title_text=label_text(title), type="log" if log else None, zeroline=False)
    ticktext = [f"{short(group_name(one, names), 36)} · {one.n:,}" for one in shown]
    figure.update_yaxes(
        tickvals=places, ticktext=ticktext, range=[len(shown) - 0.5, -0.5], showgrid=False, automargin=True
    )
    return figure
