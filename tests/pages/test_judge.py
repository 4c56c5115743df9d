"""The Judge blind page: the desk (what a press does to the store), what the browser is told, and the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from db import judging, people
from db.service import Service
from db.store import Store
from pages import _ui
from pages._judging.desk import Desk, Press
from tests import prepared
from tests.pages import judged_stores
from tests.pages.conftest import RunPage
from tests.pages.judged_stores import LOSE, TIE, WIN

N = 6


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    prepared.put(tmp_path / "assay.duckdb", prepared.nothing)
    opened = Store(tmp_path / "assay.duckdb")
    judged_stores.add(opened, [WIN, TIE, LOSE, WIN, TIE, LOSE])
    yield opened
    opened.close()


def comparison_of(store: Store) -> int:
    return int(judging.comparisons(store)[0]["comparison_id"])


def sit_down(store: Store, who: str = "Dana") -> Desk:
    return Desk.open(store, comparison_id=comparison_of(store), reviewer=who)


def press(desk: Desk, store: Store, choice: str, *, name: str, action: str = "judge", **more: Any) -> Any:
    sent = {"press": name, "action": action, "choice": choice, "item_id": desk.queue.current, "seconds": 3.0, **more}
    return desk.take(store, sent)


# ---- what is stored ----


@pytest.mark.parametrize("choice", ["left", "tie", "right"])
def test_what_is_stored_is_the_answer_set_that_stood_on_the_chosen_side(store: Store, choice: str) -> None:
    desk = sit_down(store)
    seen: dict[int, tuple[str, str]] = {}
    for number in range(N):
        item = desk.payload(store)["item"]
        seen[item["item_id"]] = (item["left"], item["right"])
        assert press(desk, store, choice, name=f"p{number}").kind == "ok"
    found = judged_stores.stored(store)
    assert len(found) == N
    assert {row["swapped"] for row in found} == {True, False}  # both sides came up
    for row in found:
        left, right = seen[row["item_id"]]
        assert (left, right) == ((row["second"], row["first"]) if row["swapped"] else (row["first"], row["second"]))
        preferred = {1: row["first"], -1: row["second"], 0: None}[row["preference"]]
        assert preferred == {"left": left, "right": right, "tie": None}[choice]
        assert row["seconds"] == 3.0


def test_the_same_press_sent_twice_is_stored_once_and_answered_the_same(store: Store) -> None:
    desk = sit_down(store)
    item_id = desk.queue.current
    first = press(desk, store, "left", name="same")
    again = desk.take(store, {"press": "same", "action": "judge", "choice": "left", "item_id": item_id})
    assert again == first
    assert len(judged_stores.stored(store)) == 1


def test_a_press_for_another_question_than_the_one_on_screen_stores_nothing(store: Store) -> None:
    desk = sit_down(store)
    other = desk.queue.pair_ids[3]
    answer = press(desk, store, "left", name="late", item_id=other)
    assert answer.kind == "error"
    assert "another question" in answer.text
    assert judged_stores.stored(store) == []
    assert press(desk, store, "left", name="late").kind == "ok"  # an error is not remembered


@pytest.mark.parametrize(
    "sent",
    [
        {},
        {"press": "", "action": "judge"},
        {"press": "a", "action": 3},
        {"press": "a", "action": "judge", "item_id": "x"},
    ],
)
def test_a_press_of_no_known_form_stores_nothing(store: Store, sent: dict[str, Any]) -> None:
    desk = sit_down(store)
    assert desk.take(store, sent).kind == "error"
    assert judged_stores.stored(store) == []


def test_seconds_are_kept_within_a_day() -> None:
    assert Press.read({"press": "a", "action": "judge", "item_id": 1, "seconds": -5}).seconds == 0.0
    assert Press.read({"press": "a", "action": "judge", "item_id": 1, "seconds": 1e9}).seconds == 24 * 3600.0
    assert Press.read({"press": "a", "action": "judge", "item_id": 1, "seconds": "long"}).seconds is None


def test_undo_brings_the_question_back_with_the_same_sides_as_often_as_one_likes(store: Store) -> None:
    desk = sit_down(store)
    before = desk.payload(store)["item"]
    press(desk, store, "left", name="a")
    second = desk.payload(store)["item"]
    press(desk, store, "right", name="b")
    assert press(desk, store, "", name="u1", action="undo").kind == "info"
    assert desk.payload(store)["item"] == second
    press(desk, store, "", name="u2", action="undo")
    assert desk.payload(store)["item"] == before
    assert judged_stores.stored(store) == []
    assert "nothing left to undo" in press(desk, store, "", name="u3", action="undo").text
    press(desk, store, "tie", name="c")
    assert [row["preference"] for row in judged_stores.stored(store)] == [0]


def test_undo_reaches_verdicts_of_an_earlier_session(store: Store) -> None:
    desk = sit_down(store)
    judged = desk.queue.current
    press(desk, store, "left", name="a")
    later = sit_down(store)
    assert judged not in later.queue.pair_ids
    press(later, store, "", name="u", action="undo")
    assert later.payload(store)["item"]["item_id"] == judged


def test_what_was_stored_before_a_restart_is_not_asked_again_and_the_order_stays(store: Store) -> None:
    desk = sit_down(store)
    order = desk.queue.pair_ids
    press(desk, store, "left", name="a")
    press(desk, store, "right", name="b")
    assert sit_down(store).queue.pair_ids == order[2:]
    assert sorted(sit_down(store, "Ada").queue.pair_ids) == sorted(order)  # other people judge all of them


def test_a_press_whose_answer_never_came_is_looked_up_or_shown_again(store: Store) -> None:
    desk = sit_down(store)
    item_id = desk.queue.current
    press(desk, store, "left", name="a")
    later = sit_down(store)
    sent = {"press": "r", "action": "recover", "choice": "left", "lost": "a", "item_id": item_id}
    assert "was stored" in later.take(store, sent).text
    unsent = later.queue.pair_ids[2]
    answer = later.take(store, {**sent, "press": "r2", "lost": "never", "item_id": unsent})
    assert answer.kind == "error"
    assert "press again" in answer.text
    assert later.queue.current == unsent
    assert len(judged_stores.stored(store)) == 1


# ---- what the browser is told ----


def texts_of(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for one in value.values():
            yield from texts_of(one)
    elif isinstance(value, str):
        yield value


def test_neither_names_nor_which_side_is_which_leave_the_server(store: Store) -> None:
    payload = sit_down(store).payload(store)
    assert set(payload["item"]) == {"item_id", "instruction", "input", "left", "right"}
    said = " ".join(texts_of(payload))
    assert judged_stores.FIRST not in said
    assert judged_stores.SECOND not in said
    assert judged_stores.NAME not in said
    assert "swapped" not in said


def test_the_head_counts_and_estimates_what_is_left(store: Store) -> None:
    desk = sit_down(store)
    assert desk.payload(store)["head"] == {"done": 0, "total": N, "skipped": 0, "seconds_left": None}
    press(desk, store, "left", name="a", seconds=10.0)
    press(desk, store, "", name="s", action="skip")
    assert desk.payload(store)["head"] == {"done": 1, "total": N, "skipped": 1, "seconds_left": 50.0}


def test_what_was_skipped_comes_again_and_only_then_is_a_person_finished(store: Store) -> None:
    desk = sit_down(store)
    press(desk, store, "", name="s", action="skip")
    for number in range(N - 1):
        press(desk, store, "left", name=f"p{number}")
    payload = desk.payload(store)
    assert payload["item"] is None
    assert payload["end"]["skipped"] == 1
    assert not desk.finished
    press(desk, store, "", name="again", action="skipped")
    assert not desk.finished
    press(desk, store, "tie", name="last")
    assert desk.finished
    assert desk.payload(store)["end"]["title"].startswith("All judged")


# ---- the page ----


def test_the_page_of_an_empty_store_leads_to_the_compare_page(empty_home: Service, run_page: RunPage) -> None:
    page = run_page("judge")
    assert any("nothing to judge yet" in block.value for block in page.markdown)


def test_the_page_asks_for_a_name_once_and_opens_the_comparison_of_the_link(
    empty_home: Service, run_page: RunPage
) -> None:
    wanted = judged_stores.fill(empty_home.store)
    judged_stores.add(empty_home.store, [WIN, TIE], name="another", suffix=" 2")
    page = run_page("judge", comparison=str(wanted))
    assert "judging_desk" not in page.session_state
    page.text_input[0].set_value(" Dana  Scully ")
    page.button[0].click().run()
    assert not page.exception
    desk = page.session_state["judging_desk"]
    assert (desk.comparison_id, desk.reviewer) == (wanted, "Dana Scully")
    assert page.selectbox(key="judging-comparison").value == wanted


def test_a_viewer_is_told_before_any_press(empty_home: Service, run_page: RunPage) -> None:
    judged_stores.add(empty_home.store, [WIN, TIE])
    people.grant(empty_home.store, "Vera", "viewer", by=None)
    page = run_page("judge")
    page.session_state[_ui.REVIEWER] = "Vera"
    page.run()
    assert "needs the role reviewer" in page.info[0].value


def test_a_person_who_is_finished_sees_the_own_counts_with_names_and_agreement(
    empty_home: Service, run_page: RunPage
) -> None:
    comparison_id = judged_stores.fill(empty_home.store)
    desk = Desk.open(empty_home.store, comparison_id=comparison_id, reviewer="Dana")
    while desk.queue.current is not None:
        press(desk, empty_home.store, "left", name=f"p{desk.queue.current}")
    page = run_page("judge", comparison=str(comparison_id))
    page.session_state[_ui.REVIEWER] = "Dana"
    page.run()
    assert not page.exception
    table = page.dataframe[0].value
    assert list(table["judge"]) == ["gpt-4_x", "gpt-3.5"]
    assert list(table["questions of both"]) == [10, 12]


def test_counts_stay_hidden_before_a_person_is_finished(empty_home: Service, run_page: RunPage) -> None:
    comparison_id = judged_stores.fill(empty_home.store)
    page = run_page("judge", comparison=str(comparison_id))
    page.session_state[_ui.REVIEWER] = "Dana"
    page.run()
    assert not page.exception
    assert list(page.dataframe) == []
