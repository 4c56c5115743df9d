"""Relations: how scores go together, any two of them row by row, and a score by dataset or category."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st

from core.charts import relations as charts
from core.charts.scores import wants_log
from core.correlation import METHODS, Correlation, correlations, order_by_similarity
from core.filters import Category, RowFilter
from core.indicators.losses import LOSSES
from db import queries, relations
from db.store import Store
from pages import _choose, _pick, _rows, _selection, _ui
from pages._choose import By
from pages._selection import View

PAGE = "relations"
MOST_SCORES = 20
RATIOS = ("ifd", "r_ifd", "ifd_loss")
METHOD_WORDS = {"spearman": "Spearman (ranks)", "pearson": "Pearson (straight line)"}


@st.cache_data(max_entries=32, show_spinner="Reading the scores …")
def _correlations(
    _store: Store, path: str, version: str, scorers: tuple[int, ...], datasets: tuple[int, ...], method: Any
) -> tuple[list[list[Correlation]], int]:
    """The table of the correlations, and from how many rows it was taken."""
    found = relations.score_table(_store, dataset_ids=datasets, scorer_ids=scorers)
    return correlations(found, method=method), len(found)


@st.cache_data(max_entries=16, show_spinner="Reading the rows …")
def _points(
    _store: Store, path: str, version: str, x: int, y: int, datasets: tuple[int, ...], by: By
) -> list[dict[str, Any]]:
    points: list[dict[str, Any]] = relations.points(
        _store, x=x, y=y, dataset_ids=datasets, colour=by.scorer_id, key=by.key
    ).to_pylist()
    return points


@st.cache_data(max_entries=64, show_spinner=False)
def _spread(
    _store: Store, path: str, version: str, scorer_id: int, datasets: tuple[int, ...], key: str | None
) -> list[relations.Spread]:
    return relations.spread(_store, scorer_id=scorer_id, dataset_ids=datasets, key=key)


# --- correlations ---


def _choose_scores(view: View) -> list[Any]:
    """The scores in the heat map; those of a link, else all that are no raw losses or token counts."""
    by_id = {s["scorer_id"]: s for s in view.scorers}
    labels = _rows.labels(view.scorers)
    raw = {output.key for output in LOSSES.outputs}
    usual = [s["scorer_id"] for s in view.scorers if s["output"] not in raw][:MOST_SCORES]
    usual = usual if len(usual) > 1 else list(by_id)[:MOST_SCORES]
    asked = [i for i in _choose.numbers("scores") if i in by_id][:MOST_SCORES]
    with st.popover(f"Scores ({len(asked or usual)})", icon=":material/checklist:"):
        chosen = st.multiselect(
            f"Scores to compare, {MOST_SCORES} at most",
            list(by_id),
            default=asked or usual,
            format_func=labels.__getitem__,
            max_selections=MOST_SCORES,
            key=f"{PAGE}-scores-{_rows.identity(tuple(by_id))}",
        )
    if chosen == usual:
        st.query_params.pop("scores", None)
    else:
        st.query_params["scores"] = ".".join(map(str, chosen))
    return [by_id[i] for i in chosen]


def _heat_map(view: View) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        method = _pick.switch("Correlation", {name: METHOD_WORDS[name] for name in METHODS}, parameter="method")
        order = _pick.switch("Order", {"similar": "Like beside like", "listed": "As listed"}, parameter="order")
        scorers = _choose_scores(view)
    if len(scorers) < 2:
        st.info("Choose at least two scores to compare.", icon=":material/checklist:")
        return
    ids = tuple(s["scorer_id"] for s in scorers)
    table, n_rows = _correlations(view.store, view.path, view.version, ids, view.datasets, method)
    places = order_by_similarity(table) if order == "similar" else list(range(len(ids)))
    labels = [_rows.short_labels(scorers)[i] for i in ids]
    parts = charts.cells(table, places)
    key = f"correlations-{_rows.identity(ids, view.datasets, view.version, method, order)}"

    def pick() -> None:
        """A callback: the pair of the cell that was clicked goes into the scatter."""
        for cell in _selection.in_figure(parts, st.session_state[key], first_trace=1)[:1]:
            if cell.row != cell.column:
                for parameter, place in (("x", cell.column), ("y", cell.row)):
                    widget = _choose.scorer_key(view.scorers, parameter=parameter, page=PAGE)
                    st.session_state[widget] = ids[place]

    _ui.chart(
        charts.correlation_figure(
            table, labels, order=places, method=method.capitalize(), dark=st.context.theme.type == "dark"
        ),
        key=key,
        data=_pairs(table, labels, places),
        name=f"correlations-{method}",
        on_select=pick,
        selection_mode="points",
    )
    taken = ""
    if n_rows == relations.MOST_CORRELATED_ROWS:
        taken = f" Taken from {n_rows:,} rows, chosen by chance but the same each time."
    st.caption(f"Each pair over the rows that have both scores. Click a cell to see its rows.{taken}")


def _pairs(
    table: Sequence[Sequence[Correlation]], labels: Sequence[str], places: Sequence[int]
) -> list[dict[str, Any]]:
    return [
        {
            "score": labels[i],
            "other score": labels[j],
            "correlation": table[i][j].value,
            "rows with both": table[i][j].n,
            "why not computable": table[i][j].reason,
        }
        for at, i in enumerate(places)
        for j in places[at + 1 :]
    ]


# --- two scores ---


@dataclass(frozen=True)
class Marked:
    """The points that were marked in the scatter, and whether by boxes alone."""

    rows: list[Any]
    by_box: bool
    x: Mapping[str, Any]
    y: Mapping[str, Any]


def _scatter(view: View) -> Marked | None:
    sides = st.columns(3)
    with sides[0]:
        x = _choose.scorer(view.scorers, label="Across", parameter="x", page=PAGE)
    with sides[1]:
        y = _choose.scorer(view.scorers, label="Up", parameter="y", page=PAGE, usual=1)
    with sides[2]:
        by = _choose.by(
            view.store, view.version, view.datasets, label="Colour", parameter="colour", page=PAGE, scorers=view.scorers
        )
    if x["scorer_id"] == y["scorer_id"]:
        st.info("Choose two different scores.")
        return None
    points = _points(view.store, view.path, view.version, x["scorer_id"], y["scorer_id"], view.datasets, by)
    if not points:
        st.info("No row of these datasets has both scores. Score them by the same indicators on the Score page.")
        return None
    parts = charts.groups(points, by=by.kind, names=view.names)
    third = next((s for s in view.scorers if s["scorer_id"] == by.scorer_id), None)
    state = _ui.chart(
        charts.points_figure(
            parts,
            x_title=_choose.axis(x),
            y_title=_choose.axis(y),
            colour_title=_choose.axis(third) if third else "",
            unit_lines=(x["output"] in RATIOS, y["output"] in RATIOS),
        ),
        key=f"scatter-{_rows.identity(x['scorer_id'], y['scorer_id'], view.datasets, view.version, by)}",
        data=[{**row, "dataset": view.names[row["dataset_id"]]} for row in points],
        name=f"{x['output']}-{y['output']}",
        on_select="rerun",
        selection_mode=("points", "box", "lasso"),
    )
    if len(points) == relations.MOST_POINTS:
        st.caption(f"{len(points):,} rows drawn, chosen by chance but the same each time. A box finds all rows in it.")
    chosen = _selection.in_figure([part.rows for part in parts], state)
    if not chosen:
        st.caption("Draw a box, or a lasso (toolbar of the chart), around points to see their rows.")
    selection = state["selection"]
    return Marked(chosen, bool(selection["box"]) and not selection["lasso"], x, y)


def _marked_rows(view: View, marked: Marked | None) -> None:
    if marked is None or not marked.rows:
        return
    if not marked.by_box:
        _selection.of_rows(view, marked.rows, about=[marked.x, marked.y], key="behind-lasso")
        return
    filters = RowFilter(datasets=tuple(sorted({row["dataset_id"] for row in marked.rows})))
    words = []
    for scorer, axis in ((marked.x, "x"), (marked.y, "y")):
        values = [row[axis] for row in marked.rows]
        filters = filters.with_range(scorer["scorer_id"], min(values), max(values))
        words.append(f"{_ui.plain(scorer['output'])} from {_ui.number(min(values), 4)} to {_ui.number(max(values), 4)}")
    _selection.of_filter(
        view, filters, words=f"with {' and '.join(words)}", about=[marked.x, marked.y], key="behind-box"
    )


# --- by dataset or category ---


def _groups(view: View) -> None:
    st.subheader("By dataset or category", anchor=False)
    left, right, _ = st.columns([2, 2, 1])
    with left:
        scorer = _choose.scorer(view.scorers, label="Score", parameter="scorer", page=PAGE)
    with right:
        by = _choose.by(view.store, view.version, view.datasets, label="By", parameter="by", page=PAGE)
    spreads = _spread(view.store, view.path, view.version, scorer["scorer_id"], view.datasets, by.key)
    shown = [one for one in spreads if one.n]
    figure = charts.spread_figure(
        spreads, view.names, title=_choose.axis(scorer),
        log=all(_is_long_tailed(one) for one in shown),
    )  # fmt: skip
    state = _ui.chart(
        figure,
        key=f"groups-{_rows.identity(scorer['scorer_id'], by, view.datasets, view.version)}",
        data=[
            {"group": charts.group_name(one, view.names)}
            | {key: value for key, value in vars(one).items() if key not in ("kind", "dataset_id", "category")}
            for one in spreads
        ],
        name=f"{scorer['output']}-by-{by.kind}",
        on_select="rerun",
        selection_mode="points",
    )
    words = [
        "Box: middle half of the values, whiskers from the 5 % to the 95 % quantile, over all rows. Numbers: rows with "
        "a value. From the lowest median to the highest. Click a group to see its rows."
    ]
    if any(one.kind == "other" for one in spreads):
        words.append(f"The {relations.MOST_GROUPS} largest groups; all others together are one.")
    empty = [_ui.plain(charts.group_name(one, view.names)) for one in spreads if not one.n]
    if empty:
        words.append(f"Without any value: {', '.join(empty[:10])}{' …' if len(empty) > 10 else ''}.")
    st.caption(" ".join(words))
    for one in _selection.in_figure([shown], state, first_trace=1)[:1]:
        _rows_of_group(view, one, scorer, by)


def _is_long_tailed(one: relations.Spread) -> bool:
    return wants_log([q for q in (one.minimum, one.median, one.q95) if q is not None])


def _rows_of_group(view: View, one: relations.Spread, scorer: Mapping[str, Any], by: By) -> None:
    if one.kind == "other":
        st.caption("This box is many small groups; choose one of them by the column filter on the Explore page.")
        return
    filters = RowFilter(datasets=view.datasets, sort=scorer["scorer_id"])
    if one.kind == "dataset" and one.dataset_id is not None:
        filters = RowFilter(datasets=(one.dataset_id,), sort=scorer["scorer_id"])
    elif by.key is not None:
        filters = RowFilter(
            datasets=view.datasets, sort=scorer["scorer_id"], category=Category(by.key, (one.category,))
        )
    name = _ui.plain(charts.group_name(one, view.names)[:80])
    _selection.of_filter(view, filters, words=f"of {name}", about=[scorer], key="behind-group")


def main() -> None:
    """Render the page."""
    _selection.follow()
    service = _ui.current_service()
    _ui.header(
        "Relations", "Which scores say the same, any two of them row by row, and a score by dataset or category."
    )
    found = queries.datasets(service.store)
    if not found:
        _ui.empty("There is no dataset yet, so there is nothing to relate.", page="load.py", label="Load a dataset")
        return
    version = queries.version(service.store)
    names = {row["dataset_id"]: row["name"] for row in found}
    with st.columns([1, 1])[0]:
        datasets = _choose.datasets(_ui.dataset_names(found), page=PAGE)
    if not datasets:
        _ui.empty("Choose at least one dataset.")
        return
    scorers = _rows.scorers(service.store, str(service.store.path), version, datasets)
    if not scorers:
        _ui.empty("None of these rows has a score yet.", page="score.py", label="Score them")
        return
    view = View("Relations", service, datasets, names, scorers, version)
    if len(scorers) < 2:
        _ui.empty(
            "Relations need a second score. Score these rows by another indicator.", page="score.py", label="Score them"
        )
    else:
        left, right = st.columns([1, 1], gap="large")
        with left:
            st.subheader("Correlations", anchor=False)
            _heat_map(view)
        with right:
            st.subheader("Two scores of the same rows", anchor=False)
            marked = _scatter(view)
        _marked_rows(view, marked)
    _groups(view)


main()
