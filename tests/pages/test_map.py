"""The Map page: what it says without embeddings, and what it draws with them."""

from __future__ import annotations

import time

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from db import queries
from db.service import Service
from tests.db.test_relations import put_vectors
from tests.pages.conftest import RunPage
from tests.pages.sample_stores import DATASET, HOSTILE, example_ids
from tests.pages.shown import words
from tests.pages.test_relations import dataset_of, figures, scorer_of, select_box


@pytest.fixture
def embedded_home(half_scored_home: Service) -> Service:
    """The half scored store with embeddings of twenty of its rows, two heaps of ten."""
    store = half_scored_home.store
    rng = np.random.default_rng(0)
    ids = example_ids(store, dataset_of(half_scored_home, DATASET))[:20]
    put_vectors(store, {i: list(rng.normal(size=8) * 0.1 + (at % 2) * np.eye(8)[0]) for at, i in enumerate(ids)})
    return half_scored_home


def shown(service: Service, run_page: RunPage, **query: str) -> AppTest:
    return run_page("map", datasets=str(dataset_of(service, DATASET)), **query)


def test_an_empty_store_says_what_to_do_next(empty_home: Service, run_page: RunPage) -> None:
    assert "there is no map" in words(run_page("map"))


def test_without_embeddings_the_page_says_how_to_get_them(half_scored_home: Service, run_page: RunPage) -> None:
    page = shown(half_scored_home, run_page)
    assert "No row of these datasets has an embedding yet" in words(page)
    assert "Score page" in words(page)
    assert figures(page) == []


def test_the_map_is_drawn_with_its_share_of_the_variance(embedded_home: Service, run_page: RunPage) -> None:
    page = shown(embedded_home, run_page)
    assert len(figures(page)) == 1
    assert "of the 20 different rows" in words(page)
    assert "20 different rows of 24" in words(page)
    assert "% of the variance" in figures(page)[0]
    assert "kind 1" in figures(page)[0]
    assert HOSTILE not in figures(page)[0]
    assert "<script" not in figures(page)[0]


@pytest.mark.parametrize("colour", ["dataset", "category:category", "score"])
def test_a_link_restores_the_colour(embedded_home: Service, run_page: RunPage, colour: str) -> None:
    wanted = f"score:{scorer_of(embedded_home, 'mtld')}" if colour == "score" else colour
    page = shown(embedded_home, run_page, colour=wanted)
    assert select_box(page, "Colour").value == wanted
    assert ("no value" in figures(page)[0]) == (colour == "score")  # twelve rows are scored, twenty have an embedding


def test_t_sne_is_computed_behind_the_page(embedded_home: Service, run_page: RunPage) -> None:
    page = shown(embedded_home, run_page, layout="tsne")
    assert not page.exception
    assert len(figures(page)) == 1  # principal components meanwhile, or the first part already
    for _ in range(200):
        if "t-SNE of 20 different rows" in words(page):
            break
        time.sleep(0.1)
        page.run()
    assert "t-SNE of 20 different rows of 20" in words(page)
    assert "t-SNE 1" in figures(page)[0]


def test_new_vectors_are_drawn_at_once(embedded_home: Service, run_page: RunPage) -> None:
    """The store's version does not count vectors, so a page that remembered by it alone showed the old map."""
    assert "of the 20 different rows" in words(shown(embedded_home, run_page))
    store = embedded_home.store
    ids = example_ids(store, dataset_of(embedded_home, DATASET))
    put_vectors(store, {ids[22]: [1.0] * 8})
    assert "of the 21 different rows" in words(shown(embedded_home, run_page))


def test_equal_embeddings_make_no_map(half_scored_home: Service, run_page: RunPage) -> None:
    store = half_scored_home.store
    ids = example_ids(store, dataset_of(half_scored_home, DATASET))
    put_vectors(store, {i: [1.0, 2.0] for i in ids[:4]})
    assert "two rows with different embeddings" in words(shown(half_scored_home, run_page))


def test_an_embedding_scorer_is_no_score(embedded_home: Service) -> None:
    assert "embedding" not in [s["output"] for s in queries.scorers(embedded_home.store)]
