"""Univariate: evaluation loss against one indicator at a time, over bins and over mixtures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from core.charts import univariate as charts
from core.charts.univariate import Panel
from core.run_table import coverage, varies
from core.univariate import CONFIDENCE, CorrelationInterval, Group, groups
from db.service import Service
from db.study_means import IndicatorColumn
from pages import _fit, _pick, _ui
from pages._fit import Chosen, Study

PAGE = "univariate"
INDICATOR = "indicator"
FEWEST_RUNS = 3
MOST_PANELS = 16


def _usual(found: Sequence[Study]) -> list[int]:
    """The newest univariate study with results, and the newest of mixtures on the same evaluation set and settings."""
    there = [one for one in found if one["n_done"] > 1] or list(found)
    first = next((one for one in there if one["kind"] == "univariate"), there[0])
    mixtures = [
        one["study_id"]
        for one in there
        if one["kind"] == "multivariate"
        and one is not first
        and one["evaluation_id"] == first["evaluation_id"]
        and one["settings"] == first["settings"]
    ]
    return [first["study_id"], *mixtures[:1]]


def _panels(chosen: Chosen, *, log: bool, all_bins: bool) -> dict[str, tuple[IndicatorColumn, list[Group]]]:
    """Of every indicator whose means differ: its column and its groups of runs."""
    good = {one.key for one in coverage(chosen.table) if varies(one)}
    return {
        column.key: (
            column,
            groups(
                chosen.table, key=column.key, output=column.output, scorer_id=column.scorer_id, log_response=log,
                all_bins=all_bins,
            ),
        )
        for column in chosen.columns
        if column.key in good
    }  # fmt: skip


def _said(found: CorrelationInterval) -> str:
    """A correlation with its interval in a few words."""
    if found.value is None:
        return "—"
    value = f"{found.value:.2f}".replace("-", "−")
    if found.low is None or found.high is None:
        return value
    return f"{value} [{found.low:.2f}, {found.high:.2f}]".replace("-", "−")


def _lines(panels: dict[str, tuple[IndicatorColumn, list[Group]]]) -> list[dict[str, Any]]:
    """A line for each indicator and kind of runs, the strongest correlation first."""
    lines = []
    for key, (column, found) in panels.items():
        for group in found:
            pearson, spearman = group.pearson, group.spearman
            lines.append(
                {
                    "key": key,
                    "indicator": column.label,
                    "runs": group.kind,
                    "n": len(group.points),
                    "Pearson": pearson.value,
                    "Pearson from": pearson.low,
                    "Pearson to": pearson.high,
                    "Spearman": spearman.value,
                    "Spearman from": spearman.low,
                    "Spearman to": spearman.high,
                    "slope": group.line.slope if group.line else None,
                    "p of the slope": group.line.p if group.line else None,
                    "why not": pearson.reason or spearman.reason,
                }
            )
    return sorted(lines, key=lambda line: -abs(line["Pearson"] or 0.0))


# --- one indicator ---


def _indicator(
    panels: dict[str, tuple[IndicatorColumn, list[Group]]], lines: Sequence[dict[str, Any]], usual: Sequence[str]
) -> str:
    """The indicator that is looked at: that of the link, else that of a univariate study, else the strongest."""
    asked = st.query_params.get(INDICATOR, "")
    if asked in panels:
        return asked
    cut = next((line["key"] for line in lines if line["runs"] == "bins"), None)
    # Raw losses and other units of the same length are not what one looks for first.
    good = next((line["key"] for line in lines if line["key"] in usual), None)
    return str(cut or good or lines[0]["key"])


def _table(chosen: Chosen, lines: Sequence[dict[str, Any]], shown: str) -> None:
    key = _pick.widget_key(f"univariate-table-{chosen.identity()}", [f"{x['key']}|{x['runs']}" for x in lines], shown)

    def pick() -> None:
        """A callback: the indicator of the line that was clicked is looked at."""
        selection = st.session_state[key]["selection"]
        marked = [*(cell[0] for cell in selection["cells"]), *selection["rows"]]
        if marked and marked[0] < len(lines):
            st.query_params[INDICATOR] = lines[marked[0]]["key"]

    numbers = ("Pearson", "Pearson from", "Pearson to", "Spearman", "Spearman from", "Spearman to")
    config: dict[str, Any] = {name: st.column_config.NumberColumn(name, format="%.3f") for name in numbers}
    config |= {name: st.column_config.NumberColumn("from", format="%.3f") for name in numbers if name.endswith("from")}
    config |= {name: st.column_config.NumberColumn("to", format="%.3f") for name in numbers if name.endswith(" to")}
    config |= {
        "key": None,
        "slope": st.column_config.NumberColumn("slope", format="%.3g"),
        "p of the slope": st.column_config.NumberColumn(format="%.3g"),
    }
    st.dataframe(
        list(lines), hide_index=True, height="content" if len(lines) < 12 else 420, placeholder="—", key=key,
        on_select=pick, selection_mode=["single-row", "single-cell"], column_config=config,
    )  # fmt: skip
    st.caption(
        f"{CONFIDENCE:.0%} intervals by Fisher's z (of Spearman after Bonett and Wright). With many indicators some "
        "correlate by chance. Click a line to look at its indicator.".replace("%", " %", 1)
    )


def _draw(chosen: Chosen, panels: Sequence[Panel], *, y_title: str, name: str, height: int, n_columns: int) -> None:
    key = f"univariate-{chosen.identity(name, y_title, tuple(panel.title for panel in panels), len(panels))}"
    parts = [[point.key for point in points] for points in charts.traced(panels)]
    _ui.chart(
        charts.panels_figure(panels, y_title=y_title, n_columns=n_columns, marked=_fit.opened(chosen), height=height),
        key=key,
        data=[
            {"indicator": panel.title, "runs": group.kind, "run": point.label, "mean": point.x, y_title: point.y}
            for panel in panels
            for group in panel.groups
            for point in group.points
        ],
        name=name,
        on_select=lambda: _fit.open_run(parts, key),
        selection_mode="points",
    )


def _one(chosen: Chosen, panels: dict[str, tuple[IndicatorColumn, list[Group]]], *, y_title: str) -> None:
    lines = _lines(panels)
    keys = list(panels)
    shown = _indicator(panels, lines, _fit.proposed(chosen))
    st.query_params[INDICATOR] = shown
    picked = st.selectbox(
        "Indicator", keys, index=keys.index(shown), format_func=lambda key: panels[key][0].label,
        key=f"univariate-indicator-{chosen.identity(shown)}", width=420,
    )  # fmt: skip
    if picked != shown:
        st.query_params[INDICATOR] = picked
        st.rerun()
    column, found = panels[picked]
    _draw(
        chosen, [Panel(column.label, tuple(found))], y_title=y_title, name=f"loss-{column.output}", height=420,
        n_columns=1,
    )  # fmt: skip
    said = [
        f"{group.kind} ({len(group.points)} runs): Pearson {_said(group.pearson)}, Spearman {_said(group.spearman)}"
        for group in found
    ]
    st.caption(_ui.plain("; ".join(said)))
    _fit.run_panel(chosen)
    if _fit.opened(chosen) is None:
        st.caption("Click a point to see the run behind it. The band is that of the mean, 95 % at each place.")
    _table(chosen, lines, shown)


# --- all indicators ---


def _all(chosen: Chosen, panels: dict[str, tuple[IndicatorColumn, list[Group]]], *, y_title: str) -> None:
    usual = [key for key in _fit.proposed(chosen) if key in panels] or list(panels)
    labels = chosen.labels
    with st.popover(f"Indicators ({len(panels)})", icon=":material/checklist:"):
        shown = st.multiselect(
            f"Indicators to draw, {MOST_PANELS} at most", list(panels), default=usual[:MOST_PANELS],
            format_func=labels.__getitem__, max_selections=MOST_PANELS, key=f"univariate-panels-{chosen.identity()}",
        )  # fmt: skip
    if not shown:
        st.info("Choose at least one indicator.", icon=":material/checklist:")
        return
    made = [
        Panel(
            panels[key][0].label,
            tuple(panels[key][1]),
            " · ".join(f"{group.kind} r {_said(group.pearson)}" for group in panels[key][1]),
        )
        for key in shown
    ]
    _draw(chosen, made, y_title=y_title, name="loss-by-indicator", height=300, n_columns=4 if len(made) > 3 else 3)
    st.caption("One scale of the loss for all. Bands are those of the mean, 95 % at each place.")
    _fit.run_panel(chosen)


def _show(service: Service) -> None:
    left, right = st.columns([2.2, 1], gap="large", vertical_alignment="bottom")
    with left:
        chosen = _fit.choose(service, page=PAGE, usual=_usual)
    if chosen is None:
        return
    _fit.doubts(chosen)
    if _fit.nothing_to_fit(chosen, least=FEWEST_RUNS):
        return
    with right, st.container(horizontal=True, vertical_alignment="center"):
        which = _pick.switch("Figure", {"one": "One indicator", "all": "All indicators"}, parameter="figure")
        scale = _pick.switch("Scale", {"raw": "loss", "log": "log loss"}, parameter="scale")
    all_bins = False
    cut = {run["details"].get("indicator") for run in chosen.table.runs if run["role"] == "bin"}
    if cut:
        all_bins = st.toggle(
            "Show bins that were cut by other indicators too", key="univariate-all-bins", bind="query-params"
        )
    panels = _panels(chosen, log=scale == "log", all_bins=all_bins)
    panels = {key: found for key, found in panels.items() if found[1]}
    if not panels:
        st.info("No indicator differs between these runs, so there is nothing to hold against the loss.")
        return
    y_title = "log evaluation loss" if scale == "log" else "evaluation loss (nats)"
    if which == "all":
        _all(chosen, panels, y_title=y_title)
    else:
        _one(chosen, panels, y_title=y_title)
    if chosen.table.left_out:
        with st.expander(f"{len(chosen.table.left_out)} runs are not drawn"):
            _fit.left_out(chosen.table)


def main() -> None:
    """Render the page."""
    service = _ui.current_service()
    _ui.header(
        "Univariate", "Evaluation loss against one indicator at a time: bins of one dataset, and mixtures beside them."
    )
    _show(service)


main()
