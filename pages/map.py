"""Map: the embeddings of rows in two dimensions, coloured by dataset, category or any score."""

from __future__ import annotations

from typing import Any

import numpy as np
import streamlit as st

from core import projection
from core.charts import relations as charts
from core.embedding_layout import MOST_VECTORS
from core.indicators import INDICATORS
from core.projection import Projection
from db import embeddings, queries
from db.store import Store
from pages import _choose, _map_layout, _rows, _selection, _ui
from pages._choose import By
from pages._map_layout import Places
from pages._selection import View

PAGE = "map"


@st.cache_data(max_entries=16, show_spinner="Taking the principal components of all vectors …")
def _projection(
    _store: Store, path: str, scorer_id: int, n_vectors: int, datasets: tuple[int, ...]
) -> Projection | None:
    return projection.fit(embeddings.vectors(_store, scorer_id=scorer_id, dataset_ids=datasets))


@st.cache_data(max_entries=16, show_spinner="Placing the rows …")
def _places(
    _store: Store, path: str, scorer_id: int, n_vectors: int, datasets: tuple[int, ...], _plane: Projection
) -> Places:  # fmt: skip
    """Where the rows that are drawn lie: example id -> (x, y)."""
    ids = embeddings.points(_store, scorer_id=scorer_id, dataset_ids=datasets)["example_id"].to_pylist()
    of: Places = {}
    for found, vectors in embeddings.vectors_of(_store, scorer_id=scorer_id, example_ids=ids):
        placed = _plane.project(vectors)
        there = np.isfinite(placed).all(axis=1)
        of.update(zip(found[there].tolist(), map(tuple, placed[there].tolist()), strict=True))
    return of


@st.cache_data(max_entries=16, show_spinner="Reading the rows …")
def _points(
    _store: Store, path: str, scorer_id: int, n_vectors: int, datasets: tuple[int, ...], version: str, by: By,
    _placed: Places, mark: str,
) -> list[dict[str, Any]]:  # fmt: skip
    rows = embeddings.points(
        _store, scorer_id=scorer_id, dataset_ids=datasets, colour=by.scorer_id, key=by.key
    ).to_pylist()
    return [
        {**row, "x": _placed[row["example_id"]][0], "y": _placed[row["example_id"]][1]}
        for row in rows
        if row["example_id"] in _placed
    ]


def _vectors(view: View, scorer_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Example ids and vectors of the first rows that are drawn, as many as t-SNE takes."""
    rows = embeddings.points(view.store, scorer_id=scorer_id, dataset_ids=view.datasets)["example_id"].to_pylist()
    ids = list(dict.fromkeys(rows))
    if len(ids) > MOST_VECTORS:  # spread over the datasets, and the same each time
        ids = [ids[i] for i in np.linspace(0, len(ids) - 1, MOST_VECTORS).astype(int)]
    return _map_layout.vectors(view.store, scorer_id=scorer_id, example_ids=ids)


def _draw(view: View, embedder: Any, by: By, layout: str) -> None:
    # Without the store's version: a running score job changes it all the time, and vectors and datasets never change.
    key = (view.store, view.path, embedder["scorer_id"], embedder["n_vectors"], view.datasets)
    plane = _projection(*key)
    if plane is None:
        _ui.empty("A map needs two rows with different embeddings. Choose a larger dataset.")
        return
    titles = _map_layout.component_titles(plane.shares)
    places = _places(*key, plane)
    if layout == _map_layout.TSNE:
        laid_out = _map_layout.tsne(key[1:], lambda: _vectors(view, embedder["scorer_id"]))
        if laid_out is not None:
            places, titles = laid_out, _map_layout.TSNE_TITLES
    mark = _rows.identity(tuple(places.values()))
    points = _points(*key, view.version, by, places, mark)
    parts = charts.groups(points, by=by.kind, names=view.names)
    scorer = next((s for s in view.scorers if s["scorer_id"] == by.scorer_id), None)
    figure = charts.points_figure(
        parts,
        x_title=titles[0],
        y_title=titles[1],
        colour_title=_choose.axis(scorer) if scorer else "",
        may_be_log=False,
        dragmode="lasso",
        names_in_a_line=8,
        height=640,
    )
    state = _ui.chart(
        figure,
        key=f"map-{_rows.identity(*key[1:], view.version, by, mark)}",
        data=[{**row, "dataset": view.names[row["dataset_id"]]} for row in points],
        name="map",
        on_select="rerun",
        selection_mode=("points", "box", "lasso"),
    )
    said = (
        f"Principal components of the {plane.n:,} different rows that have an embedding. Close by means alike in text."
    )
    if titles == _map_layout.TSNE_TITLES:
        said = (
            f"t-SNE of {len(places):,} different rows of {plane.n:,} that have an embedding: neighbours are alike in "
            "text, far distances say nothing."
        )
    elif len(points) >= embeddings.MOST_POINTS:
        said += f" {len(points):,} of them are drawn, chosen by chance but the same each time."
    st.caption(said)
    chosen = _selection.in_figure([part.rows for part in parts], state)
    if not chosen:
        st.caption("Draw a lasso around points to see their rows and to keep them as a dataset.")
        return
    _selection.of_rows(view, chosen, about=[scorer] if scorer else [], key="behind-map")


def _coverage(view: View, embedder: Any) -> None:
    """Say how many rows are not on the map, where some are not."""
    n_rows = sum(row["n_members"] for row in queries.datasets(view.store) if row["dataset_id"] in view.datasets)
    if embedder["n_vectors"] < n_rows and len(view.datasets) == 1:
        st.caption(
            f"{embedder['n_vectors']:,} different rows of {n_rows:,} have an embedding (a row that stands twice, once)."
        )


def main() -> None:
    """Render the page."""
    _selection.follow()
    service = _ui.current_service()
    _ui.header("Map", "Rows that are alike lie close together: their embeddings, seen from the side that shows most.")
    found = queries.datasets(service.store)
    if not found:
        _ui.empty("There is no dataset yet, so there is no map.", page="load.py", label="Load a dataset")
        return
    version = queries.version(service.store)
    sides = st.columns([2, 1.4, 1.4, 1.6], vertical_alignment="bottom")
    with sides[0]:
        datasets = _choose.datasets(_ui.dataset_names(found), page=PAGE)
    if not datasets:
        _ui.empty("Choose at least one dataset.")
        return
    embedders = embeddings.embedders(service.store, dataset_ids=datasets)
    if not embedders:
        knn = next(one.title for one in INDICATORS if one.needs.neighbour is not None)
        _ui.empty(
            f"No row of these datasets has an embedding yet. Score them by “{_ui.plain(knn)}” on the Score page: its "
            "embeddings are kept, and this page draws them.",
            page="score.py",
            label="Score them",
        )
        return
    scorers = _rows.scorers(service.store, str(service.store.path), version, datasets)
    names = {row["dataset_id"]: row["name"] for row in found}
    with sides[1]:
        embedder = _choose.scorer(embedders, label="Embeddings", parameter="embedder", page=PAGE)
    with sides[2]:
        by = _choose.by(
            service.store, version, datasets, label="Colour", parameter="colour", page=PAGE, scorers=scorers
        )
    with sides[3]:
        layout = _map_layout.choose(key="map-layout")
    view = View("Map", service, datasets, names, scorers, version)
    _coverage(view, embedder)
    _draw(view, embedder, by, layout)


main()
