"""The map of pairs: embeddings of the reflected or the original row, coloured by verdict or score, with a lasso."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import streamlit as st

from core import projection
from core.charts import relations as charts
from core.embedding_layout import MOST_VECTORS
from core.filters import PairFilter
from core.indicators import INDICATORS
from db import pair_map
from db.store import Store
from pages import _choose, _map_layout, _pairs_table, _pairs_view, _rows, _selection, _ui
from pages._map_layout import Places
from pages._pairs_view import PairView

PARAMETERS = ("side", "embedder", "colour", "layout", "every")
SIDES = {"candidate": "reflected", "original": "original"}
MOST_BY_SIZE = 50


@dataclass(frozen=True)
class Drawn:
    """What is drawn: pairs with an ``embedder``'s vector on one ``side``, coloured by ``colour``."""

    filters: PairFilter
    side: str
    embedder: int
    n_vectors: int
    colour: str
    layout: str

    @property
    def scorer_id(self) -> int | None:
        """The scorer that colours them, or None."""
        return int(self.colour.removeprefix("score:")) if self.colour.startswith("score:") else None

    @property
    def limit(self) -> int:
        """The most pairs that are drawn."""
        return MOST_VECTORS if self.layout == _map_layout.TSNE else pair_map.MOST_POINTS


@st.cache_data(max_entries=16, show_spinner="Reading the pairs …")
def _points(_store: Store, path: str, version: str, drawn: Drawn) -> list[dict[str, Any]]:
    return pair_map.points(
        _store, drawn.filters, scorer_id=drawn.embedder, side=drawn.side, colour=drawn.scorer_id, limit=drawn.limit
    ).to_pylist()


@st.cache_data(max_entries=16, show_spinner="Taking the principal components …")
def _components(
    _store: Store, path: str, embedder: int, n_vectors: int, ids_mark: str, _example_ids: Sequence[int]
) -> tuple[Places, tuple[float, float]] | None:
    ids, vectors = _map_layout.vectors(_store, scorer_id=embedder, example_ids=_example_ids)
    plane = projection.fit([vectors]) if len(ids) else None
    if plane is None:
        return None
    there = np.isfinite(vectors).all(axis=1)
    placed = plane.project(vectors[there])
    return dict(zip(ids[there].tolist(), map(tuple, placed.tolist()), strict=True)), plane.shares


def show(view: PairView) -> None:
    """The tab."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        drawn = _choices(view)
    if drawn is None:
        knn = next(one.title for one in INDICATORS if one.needs.neighbour is not None)
        _ui.empty(
            "No row of these pairs has an embedding yet. Score the dataset of the pairs (or the reflected rows) by "
            f"“{_ui.plain(knn)}”: its embeddings are kept, and this map draws them.",
            page="score.py", label="Score them",
        )  # fmt: skip
        return
    rows = _points(view.store, *view.key, drawn)
    examples = sorted({row["example_id"] for row in rows})
    mark = _rows.identity(tuple(examples))
    found = _components(view.store, view.key[0], drawn.embedder, drawn.n_vectors, mark, examples)
    if found is None:
        st.info(
            "A map needs two pairs with different embeddings behind the filter. Choose more pairs above, or the other "
            "side.",
            icon=":material/bubble_chart:",
        )
        return
    places, shares = found
    titles = _map_layout.component_titles(shares)
    if drawn.layout == _map_layout.TSNE:
        key = (*view.key[:1], drawn.embedder, drawn.n_vectors, mark)
        read = partial(_map_layout.vectors, view.store, scorer_id=drawn.embedder, example_ids=examples)
        laid_out = _map_layout.tsne(key, read)
        if laid_out is not None:
            places, titles = laid_out, _map_layout.TSNE_TITLES
    points = [
        {**row, "x": places[row["example_id"]][0], "y": places[row["example_id"]][1]}
        for row in rows
        if row["example_id"] in places
    ]
    _draw(view, drawn, points, titles)


def _option(label: str, options: Mapping[str, str], *, parameter: str) -> str:
    """A select box whose choice stands in the URL."""
    names = list(options)
    asked = st.query_params.get(parameter, names[0])
    chosen = st.selectbox(
        label, names, index=names.index(asked) if asked in options else 0, format_func=options.__getitem__,
        key=f"pairs-map-{parameter}-{_rows.identity(tuple(names))}", width=190,
    )  # fmt: skip
    if chosen != names[0] or parameter in st.query_params:
        st.query_params[parameter] = chosen
    return str(chosen)


def _choices(view: PairView) -> Drawn | None:
    side = _option("Rows", {key: f"the {word} ones" for key, word in SIDES.items()}, parameter="side")
    found = {str(one["scorer_id"]): one for one in pair_map.embedders(view.store, side=side)}
    if not found:
        return None
    names = _ui.distinct({str(i): name for i, name in _rows.labels(list(found.values())).items()})
    embedder = found[_option("Embeddings", names, parameter="embedder")]
    colours = {name: name for name in pair_map.OWN_COLOURS}
    colours |= _ui.distinct({f"score:{i}": f"score {name}" for i, name in view.there.scorer_names.items()})
    colour = _option("Colour", colours, parameter="colour")
    layout = _map_layout.choose(key="pairs-map-layout")
    every = st.toggle(
        "In every state", value=st.query_params.get("every", "1") != "0", key="pairs-map-every",
        help="The map shows decided pairs beside undecided ones, whatever state the filter asks for.",
    )  # fmt: skip
    if not every or "every" in st.query_params:
        st.query_params["every"] = "1" if every else "0"
    filters = replace(view.filters, state="all") if every else view.filters
    return Drawn(
        replace(filters, order="oldest first", seed=0, similar_to=None, rule=None), side,
        int(embedder["scorer_id"]), int(embedder["n_vectors"]), colour, layout,
    )  # fmt: skip


def _draw(view: PairView, drawn: Drawn, points: list[dict[str, Any]], titles: tuple[str, str]) -> None:
    by = "score" if drawn.scorer_id is not None else drawn.colour
    parts = charts.groups(points, by=by, names=view.there.datasets)
    scorer = view.there.scorers.get(drawn.scorer_id) if drawn.scorer_id is not None else None
    figure = charts.points_figure(
        parts, x_title=titles[0], y_title=titles[1], colour_title=_choose.axis(scorer) if scorer else "",
        may_be_log=False, dragmode="lasso", names_in_a_line=8, height=600,
    )  # fmt: skip
    state = _ui.chart(
        figure,
        key=f"pairs-map-{_rows.identity(drawn, len(points), titles, *view.key)}",
        data=[{**row, "dataset": view.there.datasets.get(row["dataset_id"], "")} for row in points],
        name="map-of-pairs",
        on_select="rerun",
        selection_mode=("points", "box", "lasso"),
    )
    st.caption(
        f"{len(points):,} pairs, each at its {SIDES[drawn.side]} row"
        + (", chosen by chance but the same each time" if len(points) >= drawn.limit else "")
        + ". Close by means alike in text. Draw a lasso around points to queue them."
    )
    chosen = sorted({int(row["pair_id"]) for row in _selection.in_figure([part.rows for part in parts], state)})
    if chosen:
        _pairs_view.marked(view, chosen, source="Lasso", key=f"pairs-lasso-{_rows.identity(tuple(chosen))}")
        _pairs_table.listed(view, chosen[:MOST_BY_SIZE], total=len(chosen))
