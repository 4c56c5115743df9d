"""The meeting board as data, and as one HTML file that needs nothing else: to be read, kept, printed or sent (pure).

The file carries the drawing library, every figure with its numbers, and a policy (CSP) under which it can ask for
nothing: no script but its own two, whose digests the policy names, and no address at all. Whatever comes from rows or
people is escaped; figures travel as JSON in which no tag can begin.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from urllib.parse import quote

import plotly.graph_objects as go

from core.formats.report import csv_cell

Row = Mapping[str, Any]
WIDTH_PX = 860
"""Figures are drawn so wide on a screen; at four fifths they fill A4 upright between margins of 12 mm."""
MOST_PRINTED_ROWS = 40
MOST_TABLE_ROWS = 200


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure with the rows that it shows. ``name`` names its files; a ``wide`` one takes a whole line; ``narrow`` is
    how it is drawn on a phone, where that differs."""

    title: str
    name: str
    figure: go.Figure
    rows: Sequence[Row]
    wide: bool = True
    narrow: go.Figure | None = None


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of its own. Columns are those of the first row."""

    title: str
    name: str
    rows: Sequence[Row]


@dataclass(frozen=True, kw_only=True)
class Missing:
    """Why a slide is empty, and the page where that is changed."""

    text: str
    page: str
    label: str


@dataclass(frozen=True, kw_only=True)
class Slide:
    """What the board shows at a time. ``text`` are sentences that say what the figures show, plain text with numbers.

    The first sentence is the headline; ``missing`` is set where there is nothing to show yet.
    """

    key: str
    title: str
    text: tuple[str, ...]
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    missing: Missing | None = None


# ---- values ----


def plain_value(value: Any) -> Any:
    """A value as JSON has it: no NaN (None), moments as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, date):
        return value.isoformat()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def shown_value(value: Any) -> str:
    """A value as a cell shows it; what is not there is a dash."""
    found = plain_value(value)
    if found is None or found == "":
        return "—"
    if isinstance(found, bool):
        return "yes" if found else "no"
    if isinstance(found, int):
        return f"{found:,}"
    if isinstance(found, float):
        return f"{found:,.4g}" if abs(found) < 1000 else f"{found:,.0f}"
    return str(found)


def csv_text(rows: Sequence[Row]) -> str:
    """Rows as CSV for a spreadsheet; a cell that it would run as a formula gets a leading apostrophe."""
    import csv

    columns = list(dict.fromkeys(name for row in rows for name in row))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([csv_cell(name) for name in columns])
    for row in rows:
        values = [plain_value(row.get(name)) for name in columns]
        writer.writerow(["" if one is None else csv_cell(one) if isinstance(one, str) else one for one in values])
    return buffer.getvalue()


# ---- the file ----


def html_report(slides: Sequence[Slide], *, title: str, made_at: datetime, made_by: str = "", version: str = "") -> str:
    """All slides as one HTML document, light, for screen and paper.

    ``made_at`` is naive UTC. Slides that are ``missing`` something are named at the end with what to do.
    """
    from plotly.offline import get_plotlyjs

    there = [slide for slide in slides if slide.missing is None]
    absent = [slide for slide in slides if slide.missing is not None]
    library, drawing = get_plotlyjs(), _DRAW
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data: blob:; style-src 'unsafe-inline'; "
        f"script-src {_digest(library)} {_digest(drawing)}"
    )
    said = f"As of {made_at:%Y-%m-%d %H:%M} UTC" + (f", made by {made_by}" if made_by else "")
    parts = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(policy)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="referrer" content="no-referrer">',
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body><main>",
        f"<header><h1>{html.escape(title)}</h1><p class='said'>{html.escape(said)}"
        f"{html.escape(f' · Assay {version}') if version else ''}</p>",
        '<p class="print"><button type="button" id="print">Print, or save as PDF</button></p></header>',
        _summary(there),
        *(_section(slide, i) for i, slide in enumerate(there)),
        _absent(absent),
        "<noscript><p>Figures need scripts; their numbers stand in the tables below each of them.</p></noscript>",
        f"</main><script>{library}</script><script>{drawing}</script></body></html>\n",
    ]
    return "\n".join(parts)


def _digest(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _summary(slides: Sequence[Slide]) -> str:
    if not slides:
        return "<p>There is nothing to report yet.</p>"
    lines = "".join(
        f'<li><a href="#{html.escape(slide.key)}">{html.escape(slide.title)}</a> {html.escape(slide.text[0])}</li>'
        for slide in slides
        if slide.text
    )
    return f'<nav aria-label="Contents"><ol>{lines}</ol></nav>'


def _absent(slides: Sequence[Slide]) -> str:
    if not slides:
        return ""
    lines = "".join(
        f"<li><b>{html.escape(slide.title)}.</b> {html.escape(slide.missing.text)}</li>"
        for slide in slides
        if slide.missing is not None
    )
    return f'<section class="absent"><h2>Not in this report</h2><ul>{lines}</ul></section>'


def _section(slide: Slide, number: int) -> str:
    said = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in slide.text)
    figures = "".join(_figure(one, f"{number}-{i}") for i, one in enumerate(slide.figures))
    tables = "".join(_table(one) for one in slide.tables)
    return (
        f'<section id="{html.escape(slide.key)}"><h2>{number + 1}. {html.escape(slide.title)}</h2>'
        f'<div class="words">{said}</div>{figures}{tables}</section>'
    )


def _figure(one: Figure, key: str) -> str:
    figure = printable(one.figure)
    return (
        f"<figure><figcaption>{html.escape(one.title)}</figcaption>"
        f'<div class="plot" id="plot-{key}" data-name="{html.escape(one.name)}" '
        f'style="height:{int(figure.layout.height or 380)}px" role="img" aria-label="{html.escape(one.title)}"></div>'
        f'<script type="application/json" data-plot="plot-{key}">{_json(figure.to_json())}</script>'
        f"{_data(one.title, one.name, one.rows)}</figure>"
    )


def printable(figure: go.Figure) -> go.Figure:
    """A copy for light paper of a fixed width, with the fonts of the document."""
    made = go.Figure(figure)
    made.update_layout(
        template="plotly_white",
        autosize=False,
        width=WIDTH_PX,
        paper_bgcolor="#ffffff",
        plot_bgcolor="#ffffff",
        font={"family": "system-ui, 'Segoe UI', Helvetica, Arial, sans-serif", "size": 12, "color": "#1d2a33"},
    )
    for one in made.layout.annotations:  # letters of a page are narrower than these: labels would run together
        one.font.size = 0.9 * (one.font.size or 13)
    return made


def _json(text: str) -> str:
    """JSON for a script element: no tag, comment or line separator in it can be taken for markup."""
    return (
        text.replace("<", "\\u003c").replace(">", "\\u003e").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    )


def _data(title: str, name: str, rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    return (
        f"<details{' class=short' if len(rows) <= MOST_PRINTED_ROWS else ''}>"
        f"<summary>Numbers ({len(rows):,} row{'' if len(rows) == 1 else 's'})</summary>{_grid(rows)}</details>"
        f"{_download(f'Data of “{title}” as CSV', name, rows)}"
    )


def _download(words: str, name: str, rows: Sequence[Row]) -> str:
    file = html.escape(f"{name}.csv")
    return (
        f'<p class="data"><a download="{file}" href="data:text/csv;charset=utf-8,{quote(csv_text(rows))}">'
        f"{html.escape(words)}</a></p>"
    )


def _table(one: Table) -> str:
    if not one.rows:
        return ""
    return (
        f'<div class="table"><h3>{html.escape(one.title)}</h3>{_grid(one.rows)}'
        f"{_download(f'“{one.title}” as CSV', one.name, one.rows)}</div>"
    )


def _heading(name: str) -> str:
    """A column's name as people read it: n_accepted is "accepted", median_seconds "median seconds"."""
    return name.removeprefix("n_").replace("_", " ")


def _grid(rows: Sequence[Row]) -> str:
    columns = list(rows[0])
    numeric = {
        name for name in columns if all(row.get(name) is None or isinstance(row.get(name), int | float) for row in rows)
    }
    head = "".join(
        f'<th scope="col"{" class=n" if name in numeric else ""}>{html.escape(_heading(str(name)))}</th>'
        for name in columns
    )
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{' class=n' if name in numeric else ''}>{html.escape(shown_value(row.get(name)))}</td>"
            for name in columns
        )
        + "</tr>"
        for row in rows[:MOST_TABLE_ROWS]
    )
    more = len(rows) - MOST_TABLE_ROWS
    cut = f'<p class="cut">The first {MOST_TABLE_ROWS} rows; {more:,} more are in the CSV.</p>' if more > 0 else ""
    return f'<div class="grid"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{cut}'


_DRAW = """
(() => {
  for (const data of document.querySelectorAll("script[data-plot]")) {
    const place = document.getElementById(data.dataset.plot);
    const figure = JSON.parse(data.textContent);
    // As wide as paper, so that what is printed is what was drawn; narrower on a telephone.
    figure.layout.width = Math.min(figure.layout.width, place.parentElement.clientWidth || figure.layout.width);
    const picture = { format: "svg", filename: place.dataset.name };
    Plotly.newPlot(place, figure.data, figure.layout,
      { displaylogo: false, responsive: false, toImageButtonOptions: picture,
        modeBarButtonsToRemove: ["select2d", "lasso2d"] });
  }
  document.body.dataset.drawn = "yes";
  // On paper nobody can unfold anything: short tables stand open there.
  const opened = [];
  window.addEventListener("beforeprint", () => {
    for (const one of document.querySelectorAll("details.short:not([open])")) { one.open = true; opened.push(one); }
  });
  window.addEventListener("afterprint", () => { for (const one of opened.splice(0)) one.open = false; });
  document.getElementById("print").addEventListener("click", () => window.print());
})();
"""

_STYLE = """
:root { color-scheme: light; --text: #1d2a33; --muted: #5b6b7a; --line: #d5dcde; --teal: #0b6e6e; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--text);
  font: 15px/1.5 system-ui, "Segoe UI", Helvetica, Arial, sans-serif; }
main { max-width: 908px; margin: 0 auto; padding: 32px 24px 64px; }
header { border-bottom: 2px solid var(--teal); margin-bottom: 20px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 20px; margin: 40px 0 6px; padding-top: 10px; border-top: 1px solid var(--line); break-after: avoid; }
h3 { font-size: 15px; margin: 16px 0 6px; break-after: avoid; }
.said, .cut { color: var(--muted); margin: 0 0 12px; } .cut { font-size: 13px; }
.words p { margin: 0 0 6px; max-width: 84ch; overflow-wrap: anywhere; } .words p:first-child { font-weight: 600; }
nav ol { padding-left: 22px; margin: 0; } nav li { margin: 4px 0; overflow-wrap: anywhere; }
nav a { color: var(--teal); font-weight: 600; margin-right: 6px; }
figure { margin: 16px 0 20px; } figcaption { font-weight: 600; margin-bottom: 4px; break-after: avoid; }
.plot { break-inside: avoid; }
.plot { width: 100%; max-width: 860px; overflow: hidden; }
.grid { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; max-height: 420px; overflow-y: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 4px 10px; border-bottom: 1px solid #eceff0; vertical-align: top;
  overflow-wrap: anywhere; }
th { background: #f3f5f5; position: sticky; top: 0; font-weight: 600; overflow-wrap: break-word; }
tr:last-child td { border-bottom: 0; }
td:not(.n) { min-width: 10ch; } /* a short word must not be broken for a long name beside it */
.n { text-align: right; white-space: nowrap; }
details { margin: 4px 0; } summary { cursor: pointer; color: var(--muted); font-size: 13px; }
.data { margin: 4px 0 0; font-size: 13px; } .data a { color: var(--teal); }
button { font: inherit; padding: 4px 12px; border: 1px solid var(--line); border-radius: 6px; background: #f3f5f5;
  cursor: pointer; }
button:focus-visible, a:focus-visible, summary:focus-visible { outline: 2px solid var(--teal); outline-offset: 2px; }
.absent { color: var(--muted); } .absent li { margin: 4px 0; }
@media (max-width: 520px) { main { padding: 20px 14px 48px; } h1 { font-size: 23px; } }
@page { size: A4; margin: 12mm; }
@media print {
  body { font-size: 10.5pt; } main { max-width: none; padding: 0; }
  .print, .data, .cut, details:not(.short), summary, .modebar-container { display: none !important; }
  .plot { zoom: .8; } details { break-before: avoid; } table { font-size: 8pt; } th, td { padding: 1.5pt 5pt; }
  .grid { max-height: none; overflow: visible; border: 0; } th { position: static; } tr { break-inside: avoid; }
  h2 { margin-top: 22px; } .table { break-inside: auto; } section { break-inside: auto; }
  a { color: inherit; text-decoration: none; }
}
"""
