"""Distributions: how a score spreads, what has no value and why, the rows behind bars, and datasets as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import streamlit as st

from core import bootstrap
from core.charts import scores as charts
from core.filters import RowFilter
from core.indicators import OUTPUTS
from db import queries, relations
from db.relations import DatasetValue
from db.store import Store
from pages import _choose, _rows, _selection, _ui
from pages._selection import View

BINS = (20, 40, 80)
COVERAGE = {"n_values": "✓ value", "n_nulls": "∅ NULL", "n_missing": "… unscored"}
NO_SCORES = "None of these rows has a score yet."


@st.cache_data(max_entries=64, show_spinner=False)
def _histogram(
    _store: Store, path: str, version: str, scorer_id: int, datasets: tuple[int, ...], n_bins: int
) -> list[dict[str, Any]]:
    return queries.histogram(_store, scorer_id=scorer_id, dataset_ids=datasets, n_bins=n_bins)


@st.cache_data(max_entries=64, show_spinner="Taking the means and their intervals …")
def _values(
    _store: Store, path: str, version: str, scorers: tuple[int, ...], datasets: tuple[int, ...]
) -> list[DatasetValue]:
    return relations.dataset_values(_store, dataset_ids=datasets, scorer_ids=scorers)


def _summary(view: View, scorer: Mapping[str, Any]) -> list[dict[str, Any]]:
    return _rows.summary(view.store, view.path, view.version, scorer["scorer_id"], view.datasets)


def _about(scorer: Mapping[str, Any]) -> None:
    output = OUTPUTS.get(scorer["output"])
    if output is not None:
        better = {"higher": "↑ higher is better", "lower": "↓ lower is better", "neither": "no better end"}
        st.caption(f"{output.describes} · {better[output.direction]}")


# --- histogram ---


def _show_histogram(view: View, scorer: Mapping[str, Any]) -> list[Any]:
    """Draw it; returns the bins that are selected."""
    with st.container(horizontal=True, vertical_alignment="center"):
        n_bins = st.segmented_control(
            "Bars", BINS, default=BINS[1], required=True, key="distributions-bins",
            format_func=lambda n: f"{n} bars", label_visibility="collapsed",
        )  # fmt: skip
        share = st.toggle(
            "Per cent of each dataset",
            value=len(view.datasets) > 1,
            key=f"distributions-share-{len(view.datasets) > 1}",
            help="Compares datasets of different size.",
        )
    scorer_id = scorer["scorer_id"]
    bins = _histogram(view.store, view.path, view.version, scorer_id, view.datasets, int(n_bins or BINS[1]))
    figure = charts.histogram_figure(bins, _summary(view, scorer), view.names, title=_choose.axis(scorer), share=share)
    state = _ui.chart(
        figure,
        key=f"histogram-{_rows.identity(scorer_id, view.datasets, share, bins)}",
        data=[{"dataset": view.names[row["dataset_id"]], **row} for row in bins],
        name=f"histogram-{scorer['output']}",
        on_select="rerun",
        selection_mode=("points", "box"),
    )
    return _selection.in_figure(charts.by_dataset(bins), state)


def _rows_behind(view: View, bins: Sequence[Any], scorer: Mapping[str, Any]) -> None:
    if not bins:
        st.caption("Click a bar to see the rows behind it; draw a box (toolbar of the chart) over several.")
        return
    low, high = charts.span_of(bins)
    chosen = tuple(sorted({row["dataset_id"] for row in bins}))
    filters = RowFilter(datasets=chosen, sort=scorer["scorer_id"], descending=False)
    words = f"with {_ui.plain(scorer['output'])} from {_ui.number(low, 4)} to {_ui.number(high, 4)}"
    filters = filters.with_range(scorer["scorer_id"], low, high)
    _selection.of_filter(view, filters, words=words, about=[scorer], key="behind-bar")


# --- coverage ---


def _coverage(view: View, scorer: Mapping[str, Any]) -> None:
    summaries = _summary(view, scorer)
    n_members = sum(row["n_members"] for row in summaries)
    n_values = sum(row["n_values"] for row in summaries)
    with st.container(border=True):
        st.markdown(f"**Coverage** · {n_values:,} of {n_members:,} rows have a value")
        _ui.chart(
            charts.coverage_figure(summaries, view.names),
            key=f"coverage-{_rows.identity(scorer['scorer_id'], view.datasets)}",
            data=[
                {"dataset": view.names[row["dataset_id"]]}
                | {key: row[key] for key in ("n_members", "n_values", "n_nulls", "n_missing")}
                for row in summaries
            ],
            name=f"coverage-{scorer['output']}",
        )
        st.dataframe(
            [
                {"dataset": view.names[row["dataset_id"]]} | {words: row[key] for key, words in COVERAGE.items()}
                for row in summaries
            ],
            hide_index=True,
            height="content",
            column_config={
                "dataset": st.column_config.TextColumn(width=84),
                COVERAGE["n_values"]: st.column_config.NumberColumn(format="localized", width=66),
                COVERAGE["n_nulls"]: st.column_config.NumberColumn(format="localized", width=68),
                COVERAGE["n_missing"]: st.column_config.NumberColumn(format="localized", width=90),
            },
            key="coverage-table",
        )
        reasons = queries.null_reasons(view.store, scorer_id=scorer["scorer_id"], dataset_ids=view.datasets)
        if reasons:
            st.dataframe(
                [{"rows": row["n"], "why there is no value": row["reason"]} for row in reasons],
                hide_index=True,
                height=min(35 * len(reasons) + 38, 180),
                column_config={"rows": st.column_config.NumberColumn(width="small", format="localized")},
                key=f"reasons-{scorer['scorer_id']}",
            )
        elif n_values:
            st.caption("No row was left without a value for a reason.")
        if any(row["n_missing"] for row in summaries):
            missing = next(row["dataset_id"] for row in summaries if row["n_missing"])
            st.page_link(
                "score.py", label="Score the rest", icon=":material/speed:", query_params={"dataset": str(missing)}
            )


def _table_of_quantiles(summaries: Sequence[Mapping[str, Any]], output: str) -> None:
    keys = {
        "n_values": "values", "mean": "mean", "minimum": "min",
        "q05": "5 %", "q25": "25 %", "median": "median", "q75": "75 %", "q95": "95 %", "maximum": "max",
    }  # fmt: skip
    whole = _rows.is_whole(output)
    st.dataframe(
        [{"dataset": row["dataset"], **{words: row[key] for key, words in keys.items()}} for row in summaries],
        hide_index=True,
        placeholder="—",
        column_config={
            words: st.column_config.NumberColumn(
                format="localized" if key == "n_values" else "%.1f" if whole else "%.4g", width="small"
            )
            for key, words in keys.items()
        },
        key=f"quantiles-{output}",
    )


# --- datasets as a whole ---


def _dataset_values(view: View) -> None:
    """Every indicator over every dataset: its mean with a bootstrap interval, and what has no value."""
    st.subheader("Values of the datasets", anchor=False)
    labels = _rows.labels(view.scorers)
    by_id = {scorer["scorer_id"]: scorer for scorer in view.scorers}
    values = _values(view.store, view.path, view.version, tuple(by_id), view.datasets)
    found = [(by_id[value.scorer_id], value) for value in values]
    table = [
        {
            "dataset": view.names[value.dataset_id],
            "indicator": labels[scorer["scorer_id"]],
            "better": _better(scorer),
            "values": value.interval.n,
            "NULL": value.n_nulls,
            "unscored": value.n_missing,
            "mean": value.interval.mean,
            "95 % low": value.interval.low,
            "95 % high": value.interval.high,
            "median": value.median,
        }
        for scorer, value in sorted(found, key=lambda pair: view.datasets.index(pair[1].dataset_id))
        if value.interval.n or value.n_nulls
    ]
    number = st.column_config.NumberColumn(format="%.4g", width="small")
    count = st.column_config.NumberColumn(format="localized", width="small")
    st.dataframe(
        [{**row, "mean [95 %]": _interval(row)} for row in table],
        hide_index=True,
        placeholder="—",
        height=min(35 * len(table) + 38, 480),
        column_order=["dataset", "indicator", "better", "values", "NULL", "unscored", "mean [95 %]", "mean", "median"]
        if len(view.datasets) > 1
        else ["indicator", "better", "values", "NULL", "unscored", "mean [95 %]", "mean", "median"],
        column_config={
            **dict.fromkeys(("values", "NULL", "unscored"), count),
            **dict.fromkeys(("mean", "median"), number),
            "better": st.column_config.TextColumn(width="small"),
        },
        key="dataset-values",
    )
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(_method(value.interval.binned for _, value in found), width="stretch")
        st.download_button(
            "These values as CSV",
            data=_ui.csv_bytes(table),
            file_name="dataset-values.csv",
            mime="text/csv",
            key="dataset-values-csv",
            type="tertiary",
            icon=":material/download:",
            on_click="ignore",
        )


def _better(scorer: Mapping[str, Any]) -> str:
    output = OUTPUTS.get(scorer["output"])
    return _rows.ARROWS[output.direction] if output is not None else "·"


def _interval(row: Mapping[str, Any]) -> str:
    if row["mean"] is None:
        return "—"
    if row["95 % low"] is None:
        return f"{row['mean']:.4g} (one value)"
    return f"{row['mean']:.4g} [{row['95 % low']:.4g}, {row['95 % high']:.4g}]"


def _method(binned: Iterable[bool]) -> str:
    said = (
        f"The value of a dataset is the mean over its rows that have one. In brackets: 95 % percentile interval of "
        f"{bootstrap.RESAMPLES:,} bootstrap resamples, the same each time."
    )
    if any(binned):
        said += (
            f" Of more than {bootstrap.EXACT_UP_TO:,} values the resamples are drawn from {bootstrap.BINS} bins, which "
            "keeps their mean and variance exact."
        )
    return said


def main() -> None:
    """Render the page."""
    _selection.follow()
    service = _ui.current_service()
    _ui.header("Distributions", "How a score spreads, what has no value and why, and the rows behind every bar.")
    found = queries.datasets(service.store)
    if not found:
        _ui.empty("There is no dataset yet, so there is nothing to draw.", page="load.py", label="Load a dataset")
        return
    version = queries.version(service.store)
    names = {row["dataset_id"]: row["name"] for row in found}
    left, right = st.columns([1, 1], vertical_alignment="bottom")
    with left:
        datasets = _choose.datasets(_ui.dataset_names(found), page="distributions")
    if not datasets:
        _ui.empty("Choose at least one dataset.")
        return
    scorers = _rows.scorers(service.store, str(service.store.path), version, datasets)
    if not scorers:
        _ui.empty(NO_SCORES, page="score.py", label="Score them")
        return
    with right:
        scorer = _choose.scorer(scorers, label="Score", parameter="scorer", page="distributions")
    _about(scorer)
    view = View("Distributions", service, datasets, names, scorers, version)
    wide, narrow = st.columns([9, 5], gap="medium")
    with wide:
        bins = _show_histogram(view, scorer)
    with narrow:
        _coverage(view, scorer)
    _rows_behind(view, bins, scorer)
    st.markdown("**Quantiles**")
    _table_of_quantiles(_summary(view, scorer), scorer["output"])
    _dataset_values(view)
    st.page_link(
        "relations.py", label="Two scores of the same rows, correlations, categories", icon=":material/scatter_plot:",
        query_params={"datasets": ".".join(map(str, datasets))},
    )  # fmt: skip


main()
