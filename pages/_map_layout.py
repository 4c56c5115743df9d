"""How a map is laid out: by principal components, or by t-SNE, which is computed behind the page."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np
import streamlit as st

from core.embedding_layout import MOST_VECTORS, N_STAGES, Layouts
from db import embeddings
from db.store import Store
from pages import _ui

PCA, TSNE = "pca", "tsne"
WORDS = {PCA: "Principal components", TSNE: "t-SNE"}
TSNE_TITLES = ("t-SNE 1", "t-SNE 2")
_layouts = Layouts()
Places = dict[int, tuple[float, float]]


def choose(*, key: str, parameter: str = "layout") -> str:
    """Which layout; kept in the URL."""
    asked = st.query_params.get(parameter, PCA)
    chosen = st.segmented_control(
        "Layout", list(WORDS), format_func=WORDS.__getitem__, default=asked if asked in WORDS else PCA, required=True,
        key=key,
        help=f"Principal components keep the large distances and blur the small ones. t-SNE of up to {MOST_VECTORS:,} "
        "shows which are neighbours; its distances between heaps, and their sizes, mean nothing.",
    )  # fmt: skip
    if chosen != asked or parameter in st.query_params:
        st.query_params[parameter] = chosen
    return str(chosen)


def vectors(store: Store, *, scorer_id: int, example_ids: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The ids of ``example_ids`` that have a vector, rising, int64 ``[n]``, and the vectors float32 ``[n, d]``."""
    found = list(embeddings.vectors_of(store, scorer_id=scorer_id, example_ids=example_ids))
    if not found:
        return np.zeros(0, np.int64), np.zeros((0, 0), np.float32)
    ids, columns = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.argsort(ids)
    return ids[order], columns[order]


def component_titles(shares: tuple[float, float]) -> tuple[str, str]:
    """The titles of the axes of principal components with these ``shares`` of the variance."""
    return f"first component ({shares[0]:.1%} of the variance)", f"second component ({shares[1]:.1%})"


def tsne(key: Hashable, read: Callable[[], tuple[np.ndarray, np.ndarray]]) -> Places | None:
    """Places by t-SNE as far as they are; None while there are none. Draws how far it is, and looks again by itself.

    ``read`` gives ids int64 ``[n]`` and vectors ``[n, d]``; it is called once for a ``key``.
    """
    state = _layouts.progress(key)
    if state is None:
        _layouts.start(key, *read())
        state = _layouts.progress(key)
    if state is None:
        return None
    if state.problem is not None:
        st.warning(f"No t-SNE: {_ui.plain(state.problem)}.", icon=":material/bubble_chart:")
        return None
    if not state.is_done:
        _wait(key, state.stage)
    if state.places is None:
        return None
    return dict(zip(state.ids.tolist(), map(tuple, state.places.tolist()), strict=True))


@st.fragment(run_every=1.0)
def _wait(key: Hashable, shown: int) -> None:
    """How far the layout is; the page runs again once a stage is over."""
    state = _layouts.progress(key)
    if state is None or state.stage != shown or state.is_done:
        st.rerun(scope="app")
    left = f", about {_ui.duration(state.seconds_left)} left" if state.seconds_left is not None else ""
    st.progress(
        (state.stage + 0.4) / N_STAGES,
        text=f"t-SNE is computed: part {state.stage + 1} of {N_STAGES}{left}. "
        + ("The picture is that of the part before." if state.stage else "Principal components are shown meanwhile."),
    )
