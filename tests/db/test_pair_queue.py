"""Pairs behind a filter: which, in which order, page by page; lists of them, and what the map draws."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from core.errors import NotAllowedError, StoreError
from core.example import Example
from core.filters import PAIR_ORDERS, PairFilter, ScoreRange
from db import decisions, pair_lists, pair_map, pair_queue
from db.permission import Actor, as_actor
from db.store import Store
from tests.db.conftest import EXAMPLES, add_pair
from tests.db.test_relations import put_vectors

GAINS = [(0.5, 0.6), (0.5, 0.9), (0.5, None), (0.5, 0.4)]
ALL = PairFilter(state="all")


@pytest.fixture
def pairs(store: Store, dataset_id: int) -> list[int]:
    """Four rows with a pair, of which row 3 has two stages."""
    first = [
        add_pair(
            store, dataset_id=dataset_id, original=EXAMPLES[i], candidate=Example(f"New {i}", "", f"new {i}"),
            ifd=GAINS[i], proposal=("reflected", "original", "original", "leave out")[i],
        )
        for i in range(4)
    ]  # fmt: skip
    last = add_pair(
        store, dataset_id=dataset_id, original=EXAMPLES[3], candidate=Example("New 3", "", "newest 3"),
        stage="response", ifd=(0.5, 0.45),
    )  # fmt: skip
    return [*first, last]


def ids(store: Store, filters: PairFilter) -> list[int]:
    return [int(i) for i in pair_queue.queue(store, filters)]


def candidate_of(store: Store, pair_id: int) -> int:
    return int(pair_queue.table_of(store, [pair_id])[0]["candidate_id"])


def score(store: Store, scorer_id: int, values: dict[int, float | None]) -> None:
    with store.write() as connection:
        connection.execute(
            text(
                """insert into scorers (scorer_id, identity, output, indicator, version, settings)
                values (:id, 'scorer ' || :id, 'reward', 'reward', '1', '{}')"""
            ),
            {"id": scorer_id},
        )
        for example_id, value in values.items():
            connection.execute(
                text("insert into scores values (:scorer, :example, :value, :reason, false)"),
                {"scorer": scorer_id, "example": example_id, "value": value, "reason": None if value else "none"},
            )


def test_orders_put_what_has_no_value_last(store: Store, pairs: list[int]) -> None:
    a, b, unknown, d, response = pairs
    assert ids(store, PairFilter()) == [b, a, response, d, unknown]
    assert ids(store, PairFilter(order="closest call", stages=("instruction",))) == [a, d, b, unknown]
    assert ids(store, PairFilter(order="oldest first")) == pairs
    shuffles = {tuple(ids(store, PairFilter(order="random", seed=seed))) for seed in range(8)}
    assert len(shuffles) > 2
    assert all(sorted(one) == pairs for one in shuffles)


def test_states_and_ranges(store: Store, pairs: list[int]) -> None:
    a, b, unknown, d, response = pairs
    decisions.decide(store, pair_id=a, reviewer="ada", verdict="accept")
    decisions.decide(store, pair_id=b, reviewer="ben", verdict="flag", note="?")
    decisions.decide(store, pair_id=d, reviewer="ada", verdict="skip")

    def found(**fields) -> set[int]:
        filters = PairFilter(**fields)
        assert pair_queue.count(store, filters) == len(ids(store, filters))
        return set(ids(store, filters))

    assert found() == {b, unknown, d, response}
    assert found(state="decided") == found(state="accepted") == {a}
    assert found(state="rejected") == found(state="disputed") == set()
    assert found(state="flagged") == {b}
    assert found(state="skipped") == {d}
    assert found(state="all", gain=(0.3, None)) == {b}
    assert found(state="all", ifd=(None, 0.45)) == {d, response}
    assert found(state="all", r_ifd=(0.9, None)) == set()
    assert found(state="all", stages=("response",)) == {response}
    assert found(state="all", proposals=("original",), methods=("v2",)) == {b, unknown}
    assert found(state="all", reviewers=("ada",)) == {a, d}
    assert found(state="all", reviewers=("ada", "ben")) == {a, b, d}
    decisions.undo(store, reviewer="ben")
    assert found(state="all", reviewers=("ben",)) == set()


def test_a_search_looks_into_all_texts_of_both_sides(store: Store, dataset_id: int) -> None:
    def pair(original: Example, candidate: Example) -> int:
        return add_pair(store, dataset_id=dataset_id, original=original, candidate=candidate)

    one = pair(Example("Explain CO2.", "", "x"), Example("Explain it", "", "y"))
    two = pair(Example("p", "the GRÖSSE of it", "q"), Example("r", "", "an answer (50%_off) here"))
    three = pair(Example("cart", "", "z"), Example("a.b*c", "", "art for all"))

    def found(asked: str, **more) -> list[int]:
        return ids(store, PairFilter(order="oldest first", text=asked, **more))

    assert found("co2") == [one]
    assert found("größe") == []
    assert found("grösse") == [two]  # any case, in the input of the original
    assert found("(50%_OFF)") == [two]  # nothing in it is a pattern
    assert found("a.b*c") == [three]
    assert found("axbc") == []
    assert found("art") == [three]
    assert found("explain", words=True) == [one]
    assert found("art", words=True) == [three]  # the response of the reflected, not "cart"
    assert found("expl", words=True) == []
    assert found("grösse", words=True) == [two]
    assert found("grö", words=True) == []
    page = pair_queue.page(store, PairFilter(text="e", order="oldest first"), size=1)
    assert page.total == len(found("e"))


@pytest.mark.parametrize("asked", ["\\", "(?i", "[a", "a\x00b", "\n", "😀" * 90, "' or 1=1 --", "\\E x"])
def test_any_text_can_be_searched(store: Store, asked: str) -> None:
    for words in (False, True):
        assert pair_queue.count(store, PairFilter(text=asked, words=words)) == 0


def test_scores_of_the_candidate(store: Store, pairs: list[int]) -> None:
    a, b, unknown, d, _ = pairs
    values = dict(zip((candidate_of(store, i) for i in (a, b, unknown)), (1.0, 2.0, None), strict=True))
    score(store, 7, values)
    score(store, 8, {candidate_of(store, a): 5.0, candidate_of(store, d): 5.0})
    both = PairFilter(scores=(ScoreRange(7, 0.5, 1.5), ScoreRange(8, None, 6.0)))
    assert ids(store, PairFilter(order="oldest first", scores=(ScoreRange(7),))) == [a, b]
    assert ids(store, PairFilter(scores=(ScoreRange(7, 2.0, None),))) == [b]
    assert ids(store, both) == [a]
    assert {s["scorer_id"]: (s["n_values"], s["minimum"]) for s in pair_queue.candidate_scorers(store)} == {
        7: (2, 1.0), 8: (2, 5.0),
    }  # fmt: skip


@pytest.mark.parametrize("order", PAIR_ORDERS)
def test_pages_are_the_queue_cut_up(store: Store, pairs: list[int], order: str) -> None:
    list_id = pair_lists.create(store, [pairs[3], pairs[0], pairs[4], pairs[2]], name="odd")
    filters = PairFilter(order=order, state="all", pair_list=list_id, seed=4, similar_to=pairs[0])
    found: list[int] = []
    cursor, n_pages = None, 0
    while True:
        page = pair_queue.page(store, filters, after=cursor, size=1)
        found += [row["pair_id"] for row in page.rows]
        cursor, n_pages = page.next_cursor, n_pages + 1
        if cursor is None:
            break
    assert n_pages == 4
    assert found == ids(store, filters)
    assert sorted(found) == sorted([pairs[0], pairs[2], pairs[3], pairs[4]])
    if order == "as listed":
        assert found == [pairs[3], pairs[0], pairs[4], pairs[2]]


def test_a_pair_that_leaves_between_two_pages_hides_no_other(store: Store, pairs: list[int]) -> None:
    a, b, _, d, response = pairs
    first = pair_queue.page(store, PairFilter(), size=2)
    assert [row["pair_id"] for row in first.rows] == [b, a]
    decisions.decide(store, pair_id=a, reviewer="ada", verdict="accept")
    second = pair_queue.page(store, PairFilter(), size=2, after=first.next_cursor)
    assert [row["pair_id"] for row in second.rows] == [response, d]


def test_rows_say_what_stands(store: Store, pairs: list[int]) -> None:
    a, b, unknown, *_ = pairs
    decisions.decide(store, pair_id=a, reviewer="ada", verdict="accept")
    decisions.decide(store, pair_id=a, reviewer="ada", verdict="flag")
    decisions.decide(store, pair_id=b, reviewer="ben", verdict="reject")
    found = {row["pair_id"]: row for row in pair_queue.table_of(store, [b, a, unknown, 10**12])}
    assert list(found) == [b, a, unknown]
    assert [(row["state"], row["flagged"], row["reviewer"]) for row in found.values()] == [
        ("rejected", False, "ben"),
        ("accepted", True, "ada"),
        ("undecided", False, None),
    ]
    assert (found[a]["instruction"], found[a]["reflected"], found[a]["dataset"]) == ("Say 0", "New 0", "six")
    assert pair_queue.matching(store, PairFilter(), [b, unknown, pairs[4], a]) == [unknown, pairs[4]]
    assert pair_queue.facets(store)["reviewers"] == ["ada", "ben"]


def test_a_list_keeps_its_pairs_in_order_each_once(store: Store, pairs: list[int]) -> None:
    list_id = pair_lists.create(store, [pairs[2], pairs[0], pairs[2], 10**9], name="  two\n pairs ", created_by="ada")
    found = pair_lists.pair_list(store, list_id)
    assert found is not None
    assert (found["name"], found["n_pairs"], found["created_by"]) == ("two pairs", 2, "ada")
    assert ids(store, PairFilter(pair_list=list_id, order="as listed")) == [pairs[2], pairs[0]]
    assert ids(store, PairFilter(pair_list=list_id, order="oldest first")) == [pairs[0], pairs[2]]
    assert [row["list_id"] for row in pair_lists.lists(store)] == [list_id]
    with pytest.raises(StoreError, match="name"):
        pair_lists.create(store, pairs, name=" ")
    with pytest.raises(StoreError, match="None of these"):
        pair_lists.create(store, [10**9], name="gone")
    with as_actor(Actor("vic", "Vic", "viewer")), pytest.raises(NotAllowedError):
        pair_lists.create(store, pairs, name="no")
    pair_lists.remove(store, list_id)
    assert pair_lists.pair_list(store, list_id) is None
    assert pair_queue.page(store, PairFilter(order="as listed")).note is not None


def test_the_map_draws_pairs_with_a_vector(store: Store, pairs: list[int]) -> None:
    decisions.decide(store, pair_id=pairs[0], reviewer="ada", verdict="accept")
    vectors = {candidate_of(store, i): [float(i), 1.0] for i in pairs[:3]}
    put_vectors(store, vectors)
    (embedder,) = pair_map.embedders(store, side="candidate")
    assert embedder["n_vectors"] == 3
    assert pair_map.embedders(store, side="original") == []
    score(store, 7, {candidate_of(store, pairs[1]): 4.0})

    def drawn(filters: PairFilter) -> list[dict]:
        return pair_map.points(store, filters, scorer_id=embedder["scorer_id"], side="candidate", colour=7).to_pylist()

    assert [(row["pair_id"], row["verdict"], row["colour"]) for row in drawn(ALL)] == [
        (pairs[0], "accepted", None),
        (pairs[1], "undecided", 4.0),
        (pairs[2], "undecided", None),
    ]
    assert [row["pair_id"] for row in drawn(PairFilter())] == pairs[1:3]
