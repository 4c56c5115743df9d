"""What stands on a pair, against a model in plain Python, after any sequence of decisions; and any past of it again."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import StoreError
from core.example import Example
from core.filters import ExportChoice
from core.moment import Moment
from db import bulk, campaigns, commands, curated, decisions, past, review
from db.decisions import Entry
from db.store import Store, frame, rows
from tests.db.conftest import EXAMPLES, add_pair, batch

PEOPLE = ("Ada", "Ben", "Cleo")
N_PAIRS = 2
DECIDING = ("accept", "reject", "edit", "new_response")
CHOICE = ExportChoice(undecided="original", rejected="leave out")
numbers = itertools.count(1)

who, which = st.sampled_from(PEOPLE), st.integers(0, N_PAIRS - 1)
steps = st.one_of(
    st.tuples(st.just("decide"), who, which, st.sampled_from((*DECIDING, "accept", "skip"))),
    st.tuples(st.just("flag"), who, which, st.sampled_from(("flag", "unflag"))),
    st.tuples(st.just("other"), who, which, st.sampled_from(("second_look", "late"))),
    st.tuples(st.just("rule"), who, which, st.sampled_from(("accept", "reject"))),
    st.tuples(st.just("undo"), who),
    st.tuples(st.just("bulk"), st.sampled_from(bulk.VERDICTS), st.booleans()),
    st.tuples(st.just("undo bulk")),
    st.tuples(st.just("campaign"), st.sets(which, min_size=1), st.integers(1, 3)),
)


@dataclass
class World:
    """One dataset with a few pairs and people of its own; ``overlaps`` are the campaigns that hold each pair."""

    store: Store
    number: int
    dataset_id: int
    pairs: list[int]
    overlaps: dict[int, list[int]] = field(default_factory=dict)
    bulks: list[int] = field(default_factory=list)

    def named(self, name: str) -> str:
        return f"{name} {self.number}"

    def apply(self, name: str, pair: int, verdict: str, *, purpose: str = "review", action: str = "decide") -> None:
        entry = Entry(
            press=f"press {next(numbers)}", action=action, pair_id=self.pairs[pair], purpose=purpose, check_seen=False,
            verdict=verdict if action == "decide" else "",
            edited=Example(f"Edited by {name}", "", "x") if verdict == "edit" else None,
        )  # fmt: skip
        [done] = decisions.apply(self.store, [entry], reviewer=self.named(name))
        assert done.kind == "ok", done

    def take(self, step: tuple[Any, ...]) -> None:
        match step:
            case ("decide", name, pair, verdict):
                self.apply(name, pair, verdict)
            case ("flag", name, pair, action):
                self.apply(name, pair, action, action=action)
            case ("other", name, pair, purpose):
                self.apply(name, pair, "reject", purpose=purpose)
            case ("rule", name, pair, verdict):
                self.apply(name, pair, verdict, purpose="adjudication")
            case ("undo", name):
                decisions.undo(self.store, reviewer=self.named(name))
            case ("bulk", verdict, redo):
                wanted = bulk.plan(self.store, self.pairs, verdict, redo_decided=redo, with_flagged=True)
                if wanted.n:
                    self.bulks.append(bulk.apply(self.store, wanted, by=self.named("Dana")))
            case ("undo bulk",) if self.bulks:
                try:
                    bulk.undo(self.store, self.bulks[-1], by=self.named("Dana"))
                except StoreError:
                    return  # it was undone, or every pair was decided anew
            case ("campaign", members, overlap):
                campaigns.create(
                    self.store, name=f"campaign {next(numbers)}", pair_ids=[self.pairs[i] for i in members],
                    people=PEOPLE, overlap=overlap,
                )  # fmt: skip
                for i in members:
                    self.overlaps.setdefault(self.pairs[i], []).append(overlap)

    def events(self) -> list[dict[str, Any]]:
        with self.store.read() as connection:
            sql = "select * from decisions where list_contains($ids, pair_id) order by decision_id"
            return frame(connection, sql, {"ids": self.pairs}).to_pylist()


def what_stands(events: list[dict[str, Any]], overlap: int) -> int | None:
    """The rule of the docstring of db/schema.py for one pair, said once more without SQL."""
    undone = {row["undoes"] for row in events}
    voices = [row for row in events if row["verdict"] in DECIDING and row["decision_id"] not in undone]
    of = {
        purpose: [row for row in voices if row["purpose"] == purpose] for purpose in ("review", "adjudication", "bulk")
    }
    newest = {purpose: found[-1]["decision_id"] if found else -1 for purpose, found in of.items()}
    if overlap == 1:
        return max(newest.values()) if max(newest.values()) > 0 else None
    if newest["adjudication"] > newest["bulk"]:
        return newest["adjudication"]
    words = {row["reviewer"]: (row["verdict"], row["result_id"]) for row in of["review"]}
    if len(words) >= overlap and len(set(words.values())) == 1:
        return max(newest["review"], newest["bulk"])
    return newest["bulk"] if newest["bulk"] > 0 else None


def check_now(world: World, events: list[dict[str, Any]]) -> None:
    of_pair = {pair: [row for row in events if row["pair_id"] == pair] for pair in world.pairs}
    expected = {
        pair: stands
        for pair, found in of_pair.items()
        if (stands := what_stands(found, max(world.overlaps.get(pair, [1])))) is not None
    }
    with world.store.read() as connection:
        asked = {"ids": world.pairs}
        seen = frame(connection, "select * from current_decisions where list_contains($ids, pair_id)", asked)
        by_key = review.standing(connection, decisions.events_of(connection, world.pairs))
        flags = rows(connection, "select pair_id, decision_id from current_flags")
    assert {row["pair_id"]: row["decision_id"] for row in seen.to_pylist()} == expected
    assert {pair: row["decision_id"] for pair, row in by_key.items()} == expected
    undone = {row["undoes"] for row in events}
    last_flag = {
        row["pair_id"]: row["decision_id"]
        for row in events
        if row["verdict"] in ("flag", "unflag") and row["decision_id"] not in undone
    }
    assert {row["pair_id"]: row["decision_id"] for row in flags if row["pair_id"] in world.pairs} == last_flag


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = Store(tmp_path_factory.mktemp("stands") / "assay.duckdb")
    yield store
    store.close()


def world_of(store: Store) -> World:
    number = next(numbers)
    dataset_id = commands.import_dataset(store, [batch(EXAMPLES[:N_PAIRS])], name=f"of {number}", source="test")
    pairs = [
        add_pair(store, dataset_id=dataset_id, original=EXAMPLES[i], candidate=Example(f"New {number} {i}", "", "new"))
        for i in range(N_PAIRS)
    ]
    return World(store, number, dataset_id, pairs)


@settings(max_examples=6, deadline=None)
@given(taken=st.lists(steps, min_size=4, max_size=14))
def test_what_stands_is_what_the_rule_says_and_every_past_comes_again(
    shared: Store, taken: list[tuple[Any, ...]]
) -> None:
    world = world_of(shared)
    kept: list[tuple[Moment, Any]] = []
    for i, step in enumerate(taken):
        world.take(step)
        check_now(world, world.events())
        if i % 4 == 2:
            kept.append((past.now(shared), curated.curated_table(shared, world.dataset_id, CHOICE)))
    for moment, table in kept:
        again = curated.curated_table(shared, world.dataset_id, CHOICE, moment=moment)
        assert again == table
