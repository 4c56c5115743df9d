"""Similar pairs by their stored vectors, near-duplicates, and a real embedder in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from core.embedding import EmbedderSettings
from core.errors import ModelError, StoreError
from core.example import Example
from core.query_encoder import QueryEncoder
from db import decisions, similar_pairs
from db.store import Store
from tests.core import tiny_embedder
from tests.db.conftest import EXAMPLES, add_pair
from tests.db.pair_scores import put_vectors


def _vector(*numbers: float) -> np.ndarray:
    return np.array(numbers, np.float32)


@pytest.fixture
def pairs(store: Store, dataset_id: int) -> list[int]:
    """Six pairs; the last two are of the stage "response"."""
    return [
        add_pair(
            store,
            dataset_id=dataset_id,
            original=EXAMPLES[i],
            candidate=Example(f"New {i} " + "x" * 300, "", f"new {i}"),
            stage="response" if i > 3 else "instruction",
        )
        for i in range(6)
    ]


def test_similar_pairs_by_the_cosine_of_the_candidate_else_the_original(store: Store, pairs: list[int]) -> None:
    a, b, c, d, e, f = pairs
    put_vectors(store, {a: _vector(2, 0), b: _vector(1, 1), c: _vector(-1, 0), d: _vector(0, 0)})
    put_vectors(store, {e: _vector(3, 0), b: _vector(1, 0)}, side="original")  # b has a candidate, so this is not used
    decisions.decide(store, pair_id=b, reviewer="ada", verdict="reject")
    decisions.decide(store, pair_id=e, reviewer="ada", verdict="accept")
    found = similar_pairs.similar(store, a, least=-1)
    assert [(row["pair_id"], row["state"]) for row in found] == [(e, "accepted"), (b, "rejected"), (c, "undecided")]
    assert [row["similarity"] for row in found] == pytest.approx([1.0, 2**-0.5, -1.0], abs=1e-6)
    assert found[0]["instruction"] == ("New 4 " + "x" * 300)[: similar_pairs.PREVIEW]
    assert [row["pair_id"] for row in similar_pairs.similar(store, a, limit=1)] == [e]
    assert [row["pair_id"] for row in similar_pairs.similar(store, a)] == [e, b]  # none below 0
    assert similar_pairs.why_none(store, a) is None
    assert "Score page" in (similar_pairs.why_none(store, f) or "")
    assert "not in the store" in (similar_pairs.why_none(store, 999) or "")
    assert similar_pairs.similar(store, f) == similar_pairs.near_duplicates(store, f) == []


def test_near_duplicates_are_undecided_of_one_stage_and_of_originals_that_are_alike_too(
    store: Store, pairs: list[int]
) -> None:
    a, b, c, d, e, _ = pairs
    same = _vector(1, 0, 0)
    put_vectors(store, {a: same, b: same, c: same, d: same, e: same})
    put_vectors(store, {a: _vector(0, 1, 0), b: _vector(0, 1, 0.1), c: _vector(0, 0, 1)}, side="original")
    # b: both alike. c: its original differs. d: no vector of its original, so the candidate decides. e: another stage.
    assert {row["pair_id"] for row in similar_pairs.near_duplicates(store, a)} == {b, d}
    decisions.decide(store, pair_id=d, reviewer="ada", verdict="accept")
    assert {row["pair_id"] for row in similar_pairs.near_duplicates(store, a)} == {b}
    assert similar_pairs.near_duplicates(store, a, least=0.999) == []
    shown = {row["pair_id"]: row["near_duplicate"] for row in similar_pairs.similar(store, a)}
    assert shown == {b: True, c: False, d: False, e: False}


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_embedder.save(tmp_path_factory.mktemp("embedder"))


@pytest.fixture
def stopped() -> Iterator[None]:
    yield
    similar_pairs.stop_encoders()


@pytest.mark.usefixtures("stopped")
def test_a_text_is_searched_by_the_embedder_of_the_pairs_in_one_lasting_child(
    store: Store, pairs: list[int], embedder: Path
) -> None:
    with pytest.raises(StoreError, match="Score page"):
        similar_pairs.search_text(store, "anything")
    encoder = similar_pairs._encoder(store, EmbedderSettings(model=str(embedder)))
    vectors = {pair_id: encoder.vector(f"text number {i}") for i, pair_id in enumerate(pairs)}
    put_vectors(store, vectors, model=str(embedder), settings={"dtype": "float32", "max_length": None})
    found = similar_pairs.search_text(store, "text number 3")
    assert found[0]["pair_id"] == pairs[3]
    assert found[0]["similarity"] == pytest.approx(1.0, abs=1e-5)
    children = [one.pid for one in psutil.Process(os.getpid()).children() if "core.query_encoder" in one.cmdline()]
    assert len(children) == 1
    assert similar_pairs.search_text(store, "text number 5", limit=1)[0]["pair_id"] == pairs[5]
    assert psutil.pid_exists(children[0])  # the model stays loaded
    with pytest.raises(ModelError, match="blank"):
        similar_pairs.search_text(store, "  ")
    os.kill(children[0], 9)  # the child dies: the next search starts another
    assert similar_pairs.search_text(store, "text number 5", limit=1)[0]["pair_id"] == pairs[5]
    similar_pairs.stop_encoders()
    assert not [one for one in psutil.Process(os.getpid()).children() if "core.query_encoder" in one.cmdline()]


def test_a_model_that_is_gone_gives_its_sentence(tmp_path: Path) -> None:
    encoder = QueryEncoder(EmbedderSettings(model=str(tmp_path / "gone")), log_path=tmp_path / "encoder.log")
    with pytest.raises(ModelError, match="gone"):
        encoder.vector("anything")
    encoder.stop()
