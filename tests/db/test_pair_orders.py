"""The orders of the queue, worked by hand on a handful of pairs."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from sqlalchemy import text

from core.example import Example
from core.filters import PairFilter
from core.rules import Rule, Term
from db import commands, fits, pair_queue
from db.pair_orders import Order, order_of
from db.store import Store
from tests.db.conftest import EXAMPLES, add_pair
from tests.db.pair_scores import put_scores, put_vectors, scorer


@pytest.fixture
def pairs(store: Store, dataset_id: int) -> list[int]:
    """Five pairs of one dataset. The test's pairs all have r-IFD 0.8, so only IFD and further scores differ."""
    return [
        add_pair(
            store,
            dataset_id=dataset_id,
            original=EXAMPLES[i],
            candidate=Example(f"New {i}", "", f"new {i}"),
            ifd=(0.5, (0.1, 0.2, 0.3, 0.4, None)[i]),
            stage="response" if i % 2 else "instruction",
        )
        for i in range(5)
    ]


def _queue(store: Store, order: str, **fields) -> list[int]:
    return pair_queue.queue(store, PairFilter(order=order, **fields)).tolist()


def _values(order: Order) -> dict[int, float]:
    """Pair -> the value that the order keeps of it."""
    assert order.table is not None
    return dict(zip(*(order.table[name].to_pylist() for name in ("pair_id", "value")), strict=True))


def test_disagreement_ranks_within_the_dataset_and_turns_what_is_better_when_low(
    store: Store, pairs: list[int]
) -> None:
    """IFD rises over the first four pairs; perplexity (lower is better) rises too, so its turned rank falls."""
    a, b, c, d, e = pairs
    perplexity, length = scorer(store, "perplexity"), scorer(store, "length")
    put_scores(store, perplexity, {a: 10.0, b: 20.0, c: 30.0, d: 40.0})
    put_scores(store, length, {a: 1.0, b: 900.0, c: 1.0, d: 900.0, e: 3.0})  # no better end: it has no voice
    order = order_of(store, PairFilter(order="indicators disagree"))
    # Ranks of IFD 1/8 3/8 5/8 7/8, of r-IFD 1/2 each (five equal values), of perplexity turned 7/8 5/8 3/8 1/8.
    values = _values(order)
    outer, inner = math.sqrt(2 * 0.375**2 / 2), math.sqrt(2 * 0.125**2 / 2)
    assert values == pytest.approx({a: outer, b: inner, c: inner, d: outer})
    assert _queue(store, "indicators disagree") == [a, d, b, c, e]
    assert "1 pairs have fewer than two" in (order.note or "")


def test_a_new_score_changes_the_order_that_was_kept(store: Store, pairs: list[int]) -> None:
    first = _queue(store, "indicators disagree")
    put_scores(store, scorer(store, "mtld"), {pairs[1]: 5.0, pairs[2]: 9.0})
    assert len(_values(order_of(store, PairFilter(order="indicators disagree")))) == 4
    assert len(first) == len(_queue(store, "indicators disagree")) == 5


def _save_rule(store: Store, dataset_id: int, *, cut: float | None) -> int:
    rule = Rule(name="mine", intercept=1.0, terms=(Term("mtld", 2.0),), origin="typed")
    rule_id = fits.save_rule(store, rule, name="mine")
    if cut is not None:
        with store.read() as connection:
            member = int(connection.execute(text("select min(example_id) from members")).scalar_one())
        details = {
            "rule": {"name": "mine"},
            "predicted_range": [0.0, cut],
            "from_dataset": {"dataset_id": dataset_id, "name": "six"},
        }
        commands.create_dataset(store, [member], name="chosen", kind="selection", source="Select", details=details)
    return rule_id


def test_closeness_to_the_cut_of_the_newest_selection_by_the_original_where_the_candidate_has_no_score(
    store: Store, pairs: list[int], dataset_id: int
) -> None:
    a, b, c, d, e = pairs
    rule_id = _save_rule(store, dataset_id, cut=5.0)
    mtld = scorer(store, "mtld")
    put_scores(store, mtld, {a: 1.0, b: 2.5, c: 1.6})  # predicted 3, 6, 4.2: 2, 1 and 0.8 from the cut
    put_scores(store, mtld, {d: 2.1, a: 2.0}, side="original")  # d by its original: 5.2, 0.2 from the cut
    order = order_of(store, PairFilter(order="closest to the rule's cut", rule=rule_id))
    assert _values(order) == pytest.approx({a: 2.0, b: 1.0, c: 0.8, d: 0.2})
    assert _queue(store, "closest to the rule's cut", rule=rule_id) == [d, c, b, a, e]
    assert "1 pairs are judged by their original" in (order.note or "")
    assert "1 pairs lack a score" in (order.note or "")


def test_without_a_selection_the_cut_is_the_median_pair(store: Store, pairs: list[int], dataset_id: int) -> None:
    a, b, c, *rest = pairs
    rule_id = _save_rule(store, dataset_id, cut=None)
    mtld = scorer(store, "mtld")
    put_scores(store, mtld, {a: 1.0, b: 2.0, c: 9.0})
    # The dataset's own rows must have the scorer too for a rule to be matched.
    put_scores(store, mtld, {rest[0]: 1.5}, side="original")
    queue = _queue(store, "closest to the rule's cut", rule=rule_id)
    assert queue[:3] == [b, rest[0], a]  # predictions 3, 5, 19, 4: the median is 4.5, and the tie goes by id
    assert set(queue) == set(pairs)


def test_an_order_that_cannot_be_had_becomes_the_oldest_and_says_why(store: Store, pairs: list[int]) -> None:
    for filters, why in (
        (PairFilter(order="closest to the rule's cut", rule=99), "not in the store"),
        (PairFilter(order="closest to the rule's cut"), "cannot be applied"),
        (PairFilter(order="most uncertain"), "no model"),
        (PairFilter(order="most similar"), "Choose the pair"),
        (PairFilter(order="most similar", similar_to=pairs[0]), "Score page"),
        (PairFilter(order="most similar", similar_to=12345), "not in the store"),
    ):
        assert why in (order_of(store, filters).note or ""), filters
        assert pair_queue.queue(store, filters).tolist() == pairs
        assert {row["value"] for row in pair_queue.page(store, filters).rows} == {None}, "an id is no value"


def test_most_uncertain_and_most_similar(store: Store, pairs: list[int]) -> None:
    a, b, c, d, e = pairs
    before = pair_queue.version(store)
    with store.write() as connection:
        for model_id, chances in ((1, (0.5, 0.5, 0.5, 0.5)), (2, (0.9, 0.45, 0.1, 0.52))):
            connection.execute(
                text("insert into pair_models values (:id, '{}', '{}', 1, 1, now()::timestamp, null)"),
                {"id": model_id},
            )
            for pair_id, p in zip(pairs, chances, strict=False):
                connection.execute(
                    text("insert into pair_predictions values (:m, :pair, :p, false)"),
                    {"m": model_id, "pair": pair_id, "p": p},
                )
    assert _queue(store, "most uncertain") == [d, b, a, c, e]
    assert pair_queue.version(store) != before, "a page that was remembered knows no model"
    vectors = {a: [1, 0], b: [0, 1], c: [3, 0.3], d: [-1, 0]}
    put_vectors(store, {pair: np.array(vector, np.float32) for pair, vector in vectors.items()})
    assert _queue(store, "most similar", similar_to=a) == [a, c, b, d, e]
    page = pair_queue.page(store, PairFilter(order="most similar", similar_to=a), size=2)
    following = pair_queue.page(store, PairFilter(order="most similar", similar_to=a), after=page.next_cursor, size=9)
    assert [row["pair_id"] for row in (*page.rows, *following.rows)] == [a, c, b, d, e]
    assert json.dumps(order_of(store, PairFilter(order="most similar", similar_to=a)).note)
