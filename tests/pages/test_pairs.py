"""The Pairs page: what a filter, a search and a link show, lists, saved filters, bulk decisions, the map."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from core.filters import PAIR_ORDERS, PairFilter, ScoreRange
from db import bulk, decisions, pair_lists, pair_queue, people, saved_filters
from db.service import Service
from pages import _pair_filter, _ui
from tests.db.test_relations import put_vectors
from tests.pages.conftest import RunPage
from tests.pages.sample_stores import HOSTILE
from tests.pages.shown import words
from tests.pages.test_explore import params
from tests.pages.test_relations import figures

ALL = PairFilter(state="all", order="oldest first")


def table(page: AppTest) -> Any:
    return next(frame.value for frame in page.dataframe if "pair" in frame.value)


def named(page: AppTest, name: str) -> AppTest:
    """The page after somebody gave a name."""
    page.session_state[_ui.REVIEWER] = name
    return page.run()


def pair_ids(service: Service) -> list[int]:
    return [int(i) for i in pair_queue.queue(service.store, ALL)]


@pytest.fixture
def embedded(half_scored_home: Service) -> Service:
    """The half scored store with an embedding of each reflected row, in two heaps."""
    rng = np.random.default_rng(0)
    rows = pair_queue.table_of(half_scored_home.store, pair_ids(half_scored_home))
    put_vectors(
        half_scored_home.store,
        {r["candidate_id"]: list(rng.normal(size=8) * 0.1 + (i % 2) * np.eye(8)[0]) for i, r in enumerate(rows)},
    )
    return half_scored_home


def test_an_empty_store_says_what_to_do_next(empty_home: Service, run_page: RunPage) -> None:
    assert "There are no pairs yet" in words(run_page("pairs"))


def test_a_filter_and_a_search_go_into_the_url_and_come_back(half_scored_home: Service, run_page: RunPage) -> None:
    page = run_page("pairs")
    n = pair_queue.count(half_scored_home.store, PairFilter())
    assert f"of **{n:,}** pairs" in words(page)
    page.selectbox(key="pairs-filter-state").set_value("all").run()
    assert list(table(page)["pair"]) == list(pair_queue.queue(half_scored_home.store, PairFilter(state="all")))
    page.text_input(key="pairs-search").set_value("no such WORDS").run()
    assert not page.exception
    assert params(page) == {"state": "all", "text": "no such WORDS"}
    assert "No pair is behind this filter" in words(page)
    wanted = PairFilter(state="all", order="random", seed=5, text="a", words=True, gain=(-5.0, None))
    page = run_page("pairs", **wanted.to_params())
    assert params(page) == wanted.to_params()
    assert _of_panel(page) == wanted
    next(b for b in page.button if b.key == "pairs-reset").click().run()
    assert params(page) == {}


def _of_panel(page: AppTest) -> PairFilter:
    state = page.session_state
    return PairFilter(
        state=state["pairs-filter-state"], order=state["pairs-filter-order"], seed=state["pairs-filter-seed"],
        text=state["pairs-filter-text"], words=state["pairs-filter-words"],
        gain=(state["pairs-filter-low-gain"], state["pairs-filter-high-gain"]),
    )  # fmt: skip


def test_a_link_to_what_is_gone_says_so(half_scored_home: Service, run_page: RunPage) -> None:
    page = run_page("pairs", list="99", reviewers="nobody", scores="123:1:", state="all")
    assert not page.exception
    assert "not in the store" in words(page)
    assert params(page) == {"state": "all"}
    assert "cannot be read" in words(run_page("pairs", state="gone"))


def test_every_order_can_be_shown_and_linked_to(half_scored_home: Service, run_page: RunPage) -> None:
    page = run_page("pairs", state="all")
    for order in PAIR_ORDERS[:-1]:
        page.selectbox(key="pairs-filter-order").set_value(order).run()
        assert not page.exception, order
        assert len(table(page)) == len(pair_ids(half_scored_home))
    assert params(page) == {"state": "all", "order": "most similar"}
    page = run_page("pairs", state="all", order="most similar", like=str(pair_ids(half_scored_home)[0]))
    assert "like" in params(page)
    page = run_page("pairs", order="random", seed=str(2**40), like=str(2**60), text="y" * 999)
    assert not page.exception
    assert "too large" in words(page)


def test_hostile_texts_stand_as_text(half_scored_home: Service, run_page: RunPage) -> None:
    page = run_page("pairs", state="all")
    assert HOSTILE not in words(page)
    assert not any(
        "<script" in element.proto.body for element in page.get("html") if "assay-text" in element.proto.body
    )


def test_a_list_is_saved_and_opened_by_its_link(half_scored_home: Service, run_page: RunPage) -> None:
    store = half_scored_home.store
    page = named(run_page("pairs", state="all", order="oldest first"), "ada")
    next(t for t in page.text_input if t.label == "Name of the list").set_value("every *pair*")
    next(b for b in page.button if "list-all" in str(b.key)).click().run()
    assert not page.exception
    (made,) = pair_lists.lists(store)
    assert (made["name"], made["n_pairs"]) == ("every *pair*", len(pair_ids(half_scored_home)))
    made_id = pair_lists.create(store, pair_ids(half_scored_home)[2:0:-1], name="two")
    page = run_page("pairs", **PairFilter(state="all", order="as listed", pair_list=made_id).to_params())
    assert list(table(page)["pair"]) == pair_ids(half_scored_home)[2:0:-1]


def test_a_filter_is_kept_for_oneself_and_seen_by_its_owner_only(half_scored_home: Service, run_page: RunPage) -> None:
    page = named(run_page("pairs", state="flagged"), "ada")
    next(t for t in page.text_input if t.label == "Save what is shown now as").set_value("flags <b>")
    next(b for b in page.button if b.label == "Save" and "saved-pairs-new" in str(b.key)).click().run()
    assert not page.exception
    (kept,) = saved_filters.filters(half_scored_home.store, page="pairs", identity="ada")
    assert (kept["name"], kept["params"], kept["shared"]) == ("flags <b>", {"state": "flagged"}, False)
    assert "only you see it" in words(named(run_page("pairs"), "ada"))
    assert "only you see it" not in words(named(run_page("pairs"), "ben"))
    people.see(half_scored_home.store, "ada", "Ada Lovelace", "name")
    saved_filters.share(half_scored_home.store, kept["filter_id"], shared=True, identity="ada")
    assert "of Ada Lovelace" in words(named(run_page("pairs"), "ben"))


def test_a_bulk_decision_is_looked_at_confirmed_and_undone(half_scored_home: Service, run_page: RunPage) -> None:
    store = half_scored_home.store
    before = pair_queue.count(store, PairFilter(state="decided"))
    page = named(run_page("pairs", tab="bulk"), "eve")
    page.button(key="pairs-bulk-dry").click().run()
    planned = bulk.plan(store, PairFilter(), "accept")
    assert f"Would **accept {planned.n:,} pair" in words(page)
    typed = next(t for t in page.text_input if t.label.startswith("Type "))
    typed.set_value(str(planned.n + 1))
    confirm = next(b for b in page.button if b.label.startswith("Accept "))
    confirm.click().run()
    assert "Nothing was stored" in words(page)
    assert pair_queue.count(store, PairFilter(state="decided")) == before
    next(t for t in page.text_input if t.label.startswith("Type ")).set_value(str(planned.n))
    next(b for b in page.button if b.label.startswith("Accept ")).click().run()
    assert not page.exception
    assert pair_queue.count(store, PairFilter(state="decided")) == before + planned.n
    assert "by eve" in words(page)
    next(b for b in page.button if str(b.key).startswith("pairs-undo-now-")).click().run()
    assert f"{planned.n:,} decisions were taken back" in words(page)
    assert pair_queue.count(store, PairFilter(state="decided")) == before


def test_a_dry_run_that_is_out_of_date_stores_nothing(half_scored_home: Service, run_page: RunPage) -> None:
    store = half_scored_home.store
    page = named(run_page("pairs", tab="bulk"), "eve")
    page.button(key="pairs-bulk-dry").click().run()
    planned = bulk.plan(store, PairFilter(), "accept")
    decisions.decide(store, pair_id=planned.sample_ids[0], reviewer="ada", verdict="reject")
    next(t for t in page.text_input if t.label.startswith("Type ")).set_value(str(planned.n))
    next(b for b in page.button if b.label.startswith("Accept ")).click().run()
    assert "since they were counted" in words(page)
    assert bulk.actions(store) == []


def test_a_reviewer_may_look_but_not_decide_in_bulk(half_scored_home: Service, run_page: RunPage) -> None:
    people.see(half_scored_home.store, "rob", "rob", "name")
    people.grant(half_scored_home.store, "rob", "reviewer", "eve")
    page = named(run_page("pairs", tab="bulk"), "rob")
    assert page.button(key="pairs-bulk-dry").disabled
    assert "needs the role admin" in words(page)


def test_the_map_is_drawn_by_verdict_and_by_score(embedded: Service, run_page: RunPage) -> None:
    n = len(pair_ids(embedded))
    page = run_page("pairs", tab="map")
    assert f"{n:,} pairs, each at its reflected row" in words(page)
    assert "undecided" in figures(page)[0]
    assert HOSTILE not in figures(page)[0]
    assert "<script" not in figures(page)[0]
    assert len(figures(run_page("pairs", tab="map", colour="stage", every="0"))) == 1
    assert "embedding yet" in words(run_page("pairs", tab="map", side="original"))


def test_a_map_without_embeddings_says_how_to_get_them(half_scored_home: Service, run_page: RunPage) -> None:
    page = run_page("pairs", tab="map")
    assert "No row of these pairs has an embedding yet" in words(page)
    assert figures(page) == []


def test_the_label_of_a_filter_counts_what_it_narrows() -> None:
    filters = PairFilter(state="all", datasets=(1,), text="x", scores=(ScoreRange(1, 0.0, None),), gain=(0.0, None))
    assert _pair_filter.label(filters) == "all · largest IFD gain · 4 more filters"
    assert _pair_filter.label(PairFilter(), with_order=False) == "undecided"
