"""Distributions: how a score spreads over datasets, what has no value and why, and the rows behind bars and points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st

from core.charts import scores as charts
from core.errors import AssayError
from core.filters import RowFilter
from core.indicators import OUTPUTS
from db import commands, queries
from db.service import Service
from db.store import Store
from pages import _rows, _ui


@dataclass(frozen=True)
class View:
    """What the whole page is about: the chosen datasets, their names, the scorers with values, the store's version."""

    service: Service
    datasets: tuple[int, ...]
    names: Mapping[int, str]
    scorers: Sequence[Mapping[str, Any]]
    version: str

    @property
    def store(self) -> Store:
        """The open store."""
        return self.service.store

    @property
    def path(self) -> str:
        """Where the store lies: part of the key of what is remembered."""
        return str(self.store.path)

    def summary(self, scorer: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Counts and quantiles of a scorer, per dataset."""
        return _rows.summary(self.store, self.path, self.version, scorer["scorer_id"], self.datasets)


BINS = (20, 40, 80)
ROWS_SHOWN = 50
POINTS = 5000
RATIOS = ("ifd", "r_ifd")
COVERAGE = {"n_values": "✓ value", "n_nulls": "∅ NULL", "n_missing": "… unscored"}
NO_SCORES = "None of these rows has a score yet."


@st.cache_data(max_entries=64, show_spinner=False)
def _histogram(
    _store: Store, path: str, version: str, scorer_id: int, datasets: tuple[int, ...], n_bins: int
) -> list[dict[str, Any]]:
    return queries.histogram(_store, scorer_id=scorer_id, dataset_ids=datasets, n_bins=n_bins)


@st.cache_data(max_entries=32, show_spinner=False)
def _points(_store: Store, path: str, version: str, x: int, y: int, datasets: tuple[int, ...]) -> list[dict[str, Any]]:
    points: list[dict[str, Any]] = queries.scatter(_store, x=x, y=y, dataset_ids=datasets, limit=POINTS).to_pylist()
    return points


def _numbers(name: str) -> list[int]:
    """Ids in a parameter of the URL; what is no number is passed over."""
    return [int(part) for part in st.query_params.get(name, "").split(".") if part.isdecimal()]


def _choose_datasets(names: Mapping[int, str]) -> tuple[int, ...]:
    asked = [i for i in (*_numbers("datasets"), *_numbers("dataset")) if i in names]
    chosen = st.multiselect(
        "Datasets",
        list(names),
        default=asked or list(names)[:1],
        format_func=names.__getitem__,
        key="distributions-datasets",
        persist_state="page",
    )
    st.query_params["datasets"] = ".".join(map(str, chosen))
    return tuple(chosen)


def _choose_scorer(found: Sequence[Any], *, label: str, parameter: str, usual: int = 0) -> Any:
    by_id = {s["scorer_id"]: s for s in found}
    labels = _rows.labels(found)
    ids = list(by_id)
    asked = next((i for i in _numbers(parameter) if i in by_id), ids[min(usual, len(ids) - 1)])
    chosen = st.selectbox(
        label,
        ids,
        index=ids.index(asked),
        format_func=labels.__getitem__,
        key=f"distributions-{parameter}-{_rows.identity(tuple(ids))}",
    )
    st.query_params[parameter] = str(chosen)
    return by_id[chosen]


def _about(scorer: Mapping[str, Any]) -> None:
    output = OUTPUTS.get(scorer["output"])
    if output is not None:
        better = {"higher": "↑ higher is better", "lower": "↓ lower is better", "neither": "no better end"}
        st.caption(f"{output.describes} · {better[output.direction]}")


def _axis(scorer: Mapping[str, Any]) -> str:
    output = OUTPUTS.get(scorer["output"])
    if output is None:
        return _ui.scorer_label(scorer)
    return f"{_ui.scorer_label(scorer)}" + (f" ({output.unit})" if output.unit else "")


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
    figure = charts.histogram_figure(bins, view.summary(scorer), view.names, title=_axis(scorer), share=share)
    state = _ui.chart(
        figure,
        key=f"histogram-{_rows.identity(scorer_id, view.datasets, share, bins)}",
        data=[{"dataset": view.names[row["dataset_id"]], **row} for row in bins],
        name=f"histogram-{scorer['output']}",
        on_select="rerun",
        selection_mode=("points", "box"),
    )
    return _selected(bins, state)


def _selected(rows: Sequence[Any], state: Any) -> list[Any]:
    """The rows of a figure that are selected in it: its traces hold them in the order of ``charts.by_dataset``."""
    parts = charts.by_dataset(rows)
    return [
        parts[point["curve_number"]][point["point_index"]]
        for point in state["selection"]["points"]
        if point["curve_number"] < len(parts) and point["point_index"] < len(parts[point["curve_number"]])
    ]


def _rows_behind(view: View, bins: Sequence[Any], scorer: Mapping[str, Any]) -> None:
    if not bins:
        st.caption("Click a bar to see the rows behind it; draw a box (toolbar of the chart) over several.")
        return
    low, high = charts.span_of(bins)
    chosen = tuple(sorted({row["dataset_id"] for row in bins}))
    filters = RowFilter(datasets=chosen, sort=scorer["scorer_id"], descending=False)
    _rows_of(view, filters.with_range(scorer["scorer_id"], low, high), [scorer], key="behind-bar")


def _rows_of(view: View, filters: RowFilter, about: Sequence[Any], *, key: str) -> None:
    """The first rows of a filter over the scorers ``about``, its number of rows, and the way to all of them."""
    total = _rows.count(view.store, view.path, view.version, filters, ROWS_SHOWN)
    page = _rows.page(view.store, view.path, view.version, filters, None, ROWS_SHOWN)
    words = " and ".join(
        f"{_ui.plain(s['output'])} from {_ui.number(r.low, 4)} to {_ui.number(r.high, 4)}"
        for s, r in zip(about, filters.ranges, strict=True)
    )
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        first = f", the first {ROWS_SHOWN} here" if total > ROWS_SHOWN else ""
        st.markdown(f"**{total:,} rows** with {words}{first}")
        st.page_link(
            "explore.py", label="Open in Explore", icon=":material/table_rows:", query_params=filters.to_params()
        )
    _linked_table(view, page.rows, about, key=key, params=filters.to_params())


def _linked_table(
    view: View, rows: Sequence[Mapping[str, Any]], about: Sequence[Any], *, key: str, params: Mapping[str, str]
) -> None:
    """A table whose rows open in Explore, with the scorers ``about`` and the usual ones."""
    scores = queries.scores_of(view.store, [row["example_id"] for row in rows])
    by_id = {s["scorer_id"]: s for s in view.scorers}
    shown = [by_id[i] for i in _rows.usual(view.scorers, first=[s["scorer_id"] for s in about])]

    def remember(ids: tuple[int, ...], widget: str) -> None:
        found = _rows.clicked(ids, widget)
        if found is not None:
            st.session_state["distributions_open"] = {**params, "row": str(found)}

    _rows.table(rows, scores=scores, shown=shown, names=view.names, key=key, on_open=remember, height=320)
    st.caption("Click a row to open it whole in Explore.")


# --- coverage ---


def _coverage(view: View, scorer: Mapping[str, Any]) -> None:
    summaries = view.summary(scorer)
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


# --- two scores ---


def _scatter(view: View) -> None:
    st.subheader("Two scores of the same rows", anchor=False)
    if len(view.scorers) < 2:
        st.caption("This needs a second score. Score these rows by another indicator.")
        return
    left, right = st.columns(2)
    with left:
        x = _choose_scorer(view.scorers, label="Across", parameter="x", usual=0)
    with right:
        y = _choose_scorer(view.scorers, label="Up", parameter="y", usual=1)
    if x["scorer_id"] == y["scorer_id"]:
        st.info("Choose two different scores.")
        return
    points = _points(view.store, view.path, view.version, x["scorer_id"], y["scorer_id"], view.datasets)
    if not points:
        st.info("No row of these datasets has both scores.")
        return
    figure = charts.scatter_figure(
        points,
        view.names,
        x_title=_axis(x),
        y_title=_axis(y),
        unit_lines=(x["output"] in RATIOS, y["output"] in RATIOS),
    )
    if len(points) == POINTS:
        st.caption(f"{POINTS:,} rows drawn, chosen by chance but the same each time. A box finds all rows in it.")
    state = _ui.chart(
        figure,
        key=f"scatter-{_rows.identity(x['scorer_id'], y['scorer_id'], view.datasets, view.version)}",
        data=[{**row, "dataset": view.names[row["dataset_id"]]} for row in points],
        name=f"{x['output']}-{y['output']}",
        on_select="rerun",
        selection_mode=("points", "box", "lasso"),
    )
    selection = state["selection"]
    chosen = _selected(points, state)
    if not chosen:
        st.caption("Draw a box or a lasso (toolbar of the chart) around points to see their rows.")
    elif selection["lasso"] or not selection["box"]:
        _rows_of_lasso(view, chosen, [x, y])
    else:
        _rows_of_box(view, chosen, [x, y])


def _rows_of_box(view: View, chosen: Sequence[Any], about: Sequence[Any]) -> None:
    filters = RowFilter(datasets=tuple(sorted({row["dataset_id"] for row in chosen})))
    for scorer, axis in zip(about, ("x", "y"), strict=True):
        values = [row[axis] for row in chosen]
        filters = filters.with_range(scorer["scorer_id"], min(values), max(values))
    _rows_of(view, filters, about, key="behind-box")


def _rows_of_lasso(view: View, chosen: Sequence[Any], about: Sequence[Any]) -> None:
    ids = list(dict.fromkeys(row["example_id"] for row in chosen))
    first = f", the first {ROWS_SHOWN} here" if len(ids) > ROWS_SHOWN else ""
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.markdown(f"**{len(ids):,} rows** inside{first}")
        with st.popover("Save as dataset", icon=":material/library_add:"):
            _save(view.service, ids)
    texts = {row["example_id"]: row for row in queries.previews(view.store, ids[:ROWS_SHOWN])}
    places = {row["example_id"]: row for row in reversed(chosen)}
    rows = [places[i] | texts[i] for i in ids[:ROWS_SHOWN] if i in texts]
    _linked_table(view, rows, about, key="behind-lasso", params={})


def _save(service: Service, ids: Sequence[int]) -> None:
    with st.form(f"save-{_rows.identity(tuple(ids))}", border=False):
        name = st.text_input("Name of the new dataset", max_chars=200)
        saved = st.form_submit_button("Save", type="primary", icon=":material/library_add:")
    if not saved:
        return
    try:
        commands.create_dataset(
            service.store, ids, name=name, kind="selection", source="Distributions", created_by=_ui.reviewer() or None
        )
    except AssayError as error:
        st.error(_ui.plain(str(error)))
        return
    st.success(f"Saved {_ui.plain(name.strip())}: {len(ids):,} rows.")


def main() -> None:
    """Render the page."""
    wanted = st.session_state.pop("distributions_open", None)
    if wanted is not None:
        st.switch_page("explore.py", query_params=wanted)
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
        datasets = _choose_datasets(_ui.dataset_names(found))
    if not datasets:
        _ui.empty("Choose at least one dataset.")
        return
    scorers = _rows.scorers(service.store, str(service.store.path), version, datasets)
    if not scorers:
        _ui.empty(NO_SCORES, page="score.py", label="Score them")
        return
    with right:
        scorer = _choose_scorer(scorers, label="Score", parameter="scorer")
    _about(scorer)
    view = View(service, datasets, names, scorers, version)
    wide, narrow = st.columns([9, 5], gap="medium")
    with wide:
        bins = _show_histogram(view, scorer)
    with narrow:
        _coverage(view, scorer)
    _rows_behind(view, bins, scorer)
    st.markdown("**Quantiles**")
    _table_of_quantiles(view.summary(scorer), scorer["output"])
    _scatter(view)


main()
