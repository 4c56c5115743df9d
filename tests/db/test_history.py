"""The history holds every decision, whole, in its order, in pages and as a stream."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import text

from core.errors import StoreError
from core.example import Example
from core.history import HistoryFilter
from db import campaigns, decisions, history
from db.store import Store
from tests.db.conftest import EXAMPLES, add_pair


@pytest.fixture
def pairs(store: Store, dataset_id: int) -> list[int]:
    return [
        add_pair(store, dataset_id=dataset_id, original=EXAMPLES[i], candidate=Example(f"New {i}", "", f"new {i}"))
        for i in range(4)
    ]


def decide(store: Store, pair_id: int, who: str, verdict: str, **more: object) -> int:
    return decisions.decide(store, pair_id=pair_id, reviewer=who, verdict=verdict, **more)  # type: ignore[arg-type]


def ids(store: Store, **fields: object) -> list[int]:
    found = history.page(store, HistoryFilter(**fields))  # type: ignore[arg-type]
    assert history.count(store, HistoryFilter(**fields)) == len(found.rows)  # type: ignore[arg-type]
    return [int(row["decision_id"]) for row in found.rows]


def test_an_undo_is_one_more_line_and_takes_nothing_away(store: Store, pairs: list[int]) -> None:
    first = decide(store, pairs[0], "Ada", "accept", seconds=4.0, note="good")
    decisions.undo(store, reviewer="Ada")
    second = decide(store, pairs[0], "Ada", "reject")
    undo = first + 1
    assert ids(store) == [second, undo, first]
    assert ids(store, state="undone") == [first]
    assert ids(store, state="standing") == [second]
    rows = {row["decision_id"]: row for row in history.page(store, HistoryFilter()).rows}
    assert (rows[first]["undone"], rows[undo]["undoes"], rows[second]["undone"]) == (True, first, False)
    assert (rows[first]["note"], rows[first]["dataset"], rows[first]["instruction"]) == ("good", "six", "Say 0")


def test_each_filter_lets_through_what_it_says(store: Store, dataset_id: int, pairs: list[int]) -> None:
    a = decide(store, pairs[0], "Ada", "accept")
    b = decide(store, pairs[1], "Ben", "reject")
    c = decide(store, pairs[1], "Ada", "flag")
    campaign_id = campaigns.create(
        store, name="c", pair_ids=pairs, people=["Ada"], overlap=1, guidelines="", gold={}, blind=True, created_by="x"
    )
    [done] = decisions.apply(
        store,
        [decisions.Entry(press="x", action="decide", pair_id=pairs[2], verdict="accept", purpose="adjudication",
                         campaign_id=campaign_id)],
        reviewer="Dana",
    )  # fmt: skip
    d = done.decision_id
    assert ids(store, reviewers=("Ada", "Dana")) == [d, c, a]
    assert ids(store, verdicts=("reject", "flag")) == [c, b]
    assert ids(store, purposes=("adjudication",)) == ids(store, campaign=campaign_id) == [d]
    assert ids(store, pair=pairs[1]) == [c, b]
    assert ids(store, dataset=dataset_id) == [d, c, b, a]
    assert ids(store, dataset=dataset_id + 1) == []
    today = datetime.now(UTC).date()
    assert ids(store, since=today - timedelta(days=1), until=today + timedelta(days=1)) == [d, c, b, a]
    assert ids(store, until=date(2020, 1, 1)) == ids(store, since=date(2999, 1, 1)) == []
    assert history.facets(store)["reviewers"] == ["Ada", "Ben", "Dana"]


def test_pages_lie_side_by_side_both_ways(store: Store, pairs: list[int]) -> None:
    for i in range(11):
        decide(store, pairs[i % 4], "Ada", ("accept", "reject")[i % 2])
    wanted = HistoryFilter(verdicts=("accept",))  # 1 3 5 7 9 11
    first = history.page(store, wanted, size=2)
    assert [row["decision_id"] for row in first.rows] == [11, 9]
    assert (first.older, first.newer) == (True, False)
    second = history.page(store, wanted, before=9, size=2)
    assert [row["decision_id"] for row in second.rows] == [7, 5]
    last = history.page(store, wanted, before=5, size=2)
    assert ([row["decision_id"] for row in last.rows], last.older, last.newer) == ([3, 1], False, True)
    back = history.page(store, wanted, after=3, size=2)
    assert ([row["decision_id"] for row in back.rows], back.older, back.newer) == ([7, 5], True, True)
    assert not history.page(store, wanted, after=7, size=2).newer


def test_a_decision_is_shown_with_what_was_on_screen(store: Store, pairs: list[int]) -> None:
    shown = {"ifd_original": 0.5, "blind": False}
    decide(store, pairs[0], "Ada", "accept")
    edited = decide(store, pairs[0], "Ben", "edit", edited=Example("Edited", "", "Better"), shown=shown, note="so")
    found = history.decision(store, edited)
    assert (found["original"]["instruction"], found["candidate"]["instruction"]) == ("Say 0", "New 0")
    assert (found["result"]["output"], found["shown"], found["note"]) == ("Better", shown, "so")
    assert [one["verdict"] for one in found["timeline"]] == ["accept", "edit"]
    assert history.decision(store, edited - 1)["result"]["hash"] == found["candidate"]["hash"]
    with pytest.raises(StoreError, match="Decision 99"):
        history.decision(store, 99)


def test_the_stream_is_all_of_it_and_of_one_state(
    store: Store, pairs: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads some thousand rows at a time, and what comes meanwhile is left out: also an undo of a row to come."""
    monkeypatch.setattr(history, "_AT_ONCE", 4)
    for i in range(10):
        decide(store, pairs[i % 4], "Ada", ("accept", "reject", "skip")[i % 3])
    batches = history.stream(store, HistoryFilter(), texts=True)
    first = next(batches)
    decisions.undo(store, reviewer="Ada")
    decide(store, pairs[0], "Ben", "accept")
    rows = [*first.to_pylist(), *(row for table in batches for row in table.to_pylist())]
    assert [row["decision_id"] for row in rows] == list(range(1, 11))
    assert tuple(rows[0]) == (*history.STREAM_COLUMNS, *history.TEXT_COLUMNS)
    assert not any(row["undone"] for row in rows)
    assert (rows[0]["original_instruction"], rows[0]["result_output"], rows[2]["result_output"]) == (
        "Say 0", "new 0", None,
    )  # fmt: skip
    again = [row for table in history.stream(store, HistoryFilter(reviewers=("Ada",))) for row in table.to_pylist()]
    assert [row["decision_id"] for row in again if row["undone"]] == [10]
    assert [row["verdict"] for row in again][-1] == "undo"


def test_others_words_on_pairs_of_a_blind_campaign_wait_until_it_is_closed(store: Store, pairs: list[int]) -> None:
    """A reviewer could read there what the others had said of the pair on screen."""
    campaign_id = campaigns.create(store, name="blind", pair_ids=pairs[:2], people=["Ada", "Ben"], overlap=2)
    campaigns.create(store, name="open", pair_ids=pairs[2:], people=["Ada", "Ben"], overlap=2, blind=False)
    for pair_id in (pairs[0], pairs[2]):
        for who, verdict in (("Ada", "accept"), ("Ben", "reject")):
            decide(store, pair_id, who, verdict)
    whole = HistoryFilter()

    def seen(viewer: str | None) -> list[int]:
        found = [row["decision_id"] for row in history.page(store, whole, viewer=viewer).rows]
        assert history.count(store, whole, viewer=viewer) == len(found)
        streamed = [i for part in history.stream(store, whole, viewer=viewer) for i in part["decision_id"].to_pylist()]
        assert streamed == found[::-1]
        return found

    assert (seen(None), seen("Ada"), seen("Eve")) == ([4, 3, 2, 1], [4, 3, 1], [4, 3])
    assert [row["reviewer"] for row in history.decision(store, 1, viewer="Ada")["timeline"]] == ["Ada"]
    with pytest.raises(StoreError, match="blind campaign"):
        history.decision(store, 2, viewer="Ada")
    campaigns.pause(store, campaign_id)
    assert seen("Ada") == [4, 3, 1]
    campaigns.close(store, campaign_id)
    assert seen("Ada") == [4, 3, 2, 1]


def test_a_decision_outlives_its_dataset(store: Store, pairs: list[int], dataset_id: int) -> None:
    decide(store, pairs[0], "Ada", "accept")
    with store.write() as connection:
        connection.execute(text("delete from datasets where dataset_id = :id"), {"id": dataset_id})
    assert history.page(store, HistoryFilter()).rows[0]["dataset"] == "removed dataset"
    assert history.decision(store, 1)["dataset"] == "removed dataset"
    assert sum(table.num_rows for table in history.stream(store, HistoryFilter())) == 1


def test_a_filter_goes_into_the_url_and_back() -> None:
    whole = HistoryFilter(
        reviewers=("Ada", "a b&c"), verdicts=("accept",), purposes=("bulk",), campaign=3, dataset=1, pair=7,
        since=date(2026, 1, 2), until=date(2026, 2, 3), state="undone",
    )  # fmt: skip

    def lists(filters: HistoryFilter) -> dict[str, list[str]]:
        return {name: [value] if isinstance(value, str) else value for name, value in filters.to_params().items()}

    assert HistoryFilter.from_params(lists(whole)) == whole
    assert HistoryFilter().to_params() == {}
    odd = {
        "verdict": ["accept", "boom"],
        "pair": ["７", "-1"],
        "since": ["tomorrow"],
        "state": ["x"],
        "campaign": ["9" * 30],
    }
    assert HistoryFilter.from_params(odd) == HistoryFilter(verdicts=("accept",))
