"""The Review page: the queue, the desk (what a press does to the store), what the component is told, the page."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import duckdb
import duckdb_engine
import pytest
from sqlalchemy import Engine, create_engine

from core.filters import PairFilter
from db import decisions, review
from db.service import Service
from db.store import Store, rows
from pages import _ui
from pages._review import view
from pages._review.desk import Desk, same_queue
from pages._review.queue import Queue
from tests.pages import sample_stores
from tests.pages.conftest import RunPage

NOW = datetime(2026, 5, 4, 12, 0)


# ---- the queue ----


def test_deciding_moves_on_and_never_shifts_what_comes_next() -> None:
    queue = Queue((5, 3, 9))
    assert queue.current == 5
    queue = queue.after(5)
    assert (queue.current, queue.left) == (3, 2)
    queue = queue.after(3, skipped=True).after(9)
    assert queue.current is None
    assert (queue.decided, queue.skipped, queue.passed) == (frozenset({5, 9}), frozenset({3}), ())


def test_after_going_back_and_deciding_the_queue_returns_to_where_people_were() -> None:
    queue = Queue((1, 2, 3, 4)).after(1).after(2).back().back()
    assert queue.current == 1
    assert queue.after(1).current == 3


def test_going_forward_leaves_pairs_that_the_end_offers_again() -> None:
    queue = Queue((1, 2, 3)).forward().forward().after(3)
    assert queue.current is None
    assert queue.passed == (1, 2)
    assert queue.only(queue.passed).pair_ids == (1, 2)


def test_back_stops_at_the_beginning_and_forward_at_the_end() -> None:
    queue = Queue((1,))
    assert queue.back().current == 1
    assert queue.forward().forward().current is None


def test_an_undone_pair_of_another_day_is_put_in_front_and_the_next_one_is_not_lost() -> None:
    queue = Queue((1, 2, 3)).after(1).return_to(77)
    assert queue.current == 77
    assert queue.after(77).current == 2


def test_pairs_that_others_decided_are_passed_over() -> None:
    queue = Queue((1, 2, 3, 4)).after(1).without({2, 3}).waiting_from_here()
    assert queue.current == 4
    assert queue.elsewhere == {2, 3}


# ---- what the component is told ----


def pair_row(**changes: Any) -> dict[str, Any]:
    row = {
        "pair_id": 7, "dataset": "D", "method": "V2", "stage": "instruction", "teacher": "recorded",
        "teacher_model": "m", "proposal": "reflected", "proposal_reason": "IFD rose.", "original_id": 1, "base_id": 1,
        "candidate_id": 2, "ifd_original": 0.5, "ifd_base": 0.5, "ifd_candidate": 0.7, "r_ifd_original": 0.8,
        "r_ifd_base": 0.8, "r_ifd_candidate": 0.6, "o_instruction": "Say it.", "o_input": "", "o_output": "It.",
        "c_instruction": "Say it well.", "c_input": "", "c_output": "It well.", "critique": {"new_words": "Too short."},
        "history": [], "decision": None, "flag": None,
    }  # fmt: skip
    return {**row, **changes}


def test_scores_say_their_direction_in_words() -> None:
    ifd, r_ifd = view.scores_view(pair_row(), {})
    assert ifd["change"] == "▲ +0.200 harder for the student"
    assert (r_ifd["change"], r_ifd["tone"]) == ("▼ −0.200 better (easier to guess)", "good")
    worse = view.scores_view(pair_row(r_ifd_candidate=0.9), {})[1]
    assert (worse["change"], worse["tone"]) == ("▲ +0.100 worse (harder to guess)", "bad")


def test_a_missing_score_is_a_dash_with_its_reason_never_a_zero() -> None:
    ifd = view.scores_view(pair_row(ifd_candidate=None), {("ifd", "candidate"): "The response is empty."})[0]
    assert (ifd["reflected"], ifd["change"]) == ("—", "")
    assert ifd["missing"] == ["Reflected: The response is empty."]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"proposal": "original"}, "keep the original"),
        ({"proposal": "original", "base_id": 9}, "the pair of the instruction stage stands"),
        ({"proposal": "reflected", "base_id": 9}, "take the reflected pair"),
        ({"proposal": "leave out"}, "leave this row out"),
    ],
)
def test_the_proposal_names_what_would_be_kept(changes: dict[str, Any], words: str) -> None:
    shown = view.pair_view(pair_row(**changes), now=NOW, reasons={})
    assert words in shown["proposal"]["title"]


def test_an_ifd_of_one_or_more_is_warned_of_and_the_base_is_shown_where_it_is_another_pair() -> None:
    shown = view.scores_view(pair_row(ifd_candidate=1.2, base_id=9), {})
    assert "1 or more" in shown[0]["warning"]
    assert shown[1]["base"] == "0.800"
    assert view.scores_view(pair_row(), {})[0]["base"] is None


def test_a_replayed_teacher_is_labelled_recorded() -> None:
    recorded, live = view.pair_view(pair_row(), now=NOW, reasons={}), pair_row(teacher="api.example.org")
    assert {"label": "teacher", "text": "recorded answers, replayed", "kind": "recorded"} in recorded["badges"]
    assert view.pair_view(live, now=NOW, reasons={})["badges"][-1]["text"] == "api.example.org · m"


def test_the_two_mixed_verdicts_are_offered_only_where_both_texts_changed() -> None:
    assert view.pair_view(pair_row(), now=NOW, reasons={})["mixes"]
    same = pair_row(c_instruction="Say it.")
    assert not view.pair_view(same, now=NOW, reasons={})["mixes"]


def test_the_payload_is_plain_json_and_holds_hostile_text_unchanged() -> None:
    shown = view.pair_view(pair_row(c_output=sample_stores.HOSTILE), now=NOW, reasons={})
    again = json.loads(json.dumps(shown))
    assert "".join(text for _, text in again["fields"][-1]["reflected"]) == sample_stores.HOSTILE


# ---- the desk ----


@pytest.fixture
def store(half_scored_home: Service) -> Store:
    return half_scored_home.store


def press(name: str, action: str, pair_id: int | None, **more: Any) -> dict[str, Any]:
    return {"press": name, "action": action, "pair_id": pair_id, "seconds": 2.5, "desk": "d", **more}


def desk_with_pair(store: Store, filters: PairFilter | None = None) -> Desk:
    desk = Desk.open(store, filters or PairFilter(order="oldest first"))
    desk.payload(store, reviewer="Dana")
    return desk


def stored_decisions(store: Store) -> list[dict[str, Any]]:
    with store.read() as connection:
        return rows(connection, "select * from decisions where reviewer = 'Dana' order by decision_id")


def test_each_verdict_is_stored_with_seconds_and_the_scores_that_were_shown(store: Store) -> None:
    desk = desk_with_pair(store)
    for number, verdict in enumerate(("accept", "reject", "new_instruction", "new_response", "skip")):
        shown = desk.payload(store, reviewer="Dana")["pair"]["pair_id"]
        answer = desk.take(store, press(f"p{number}", "decide", shown, verdict=verdict), reviewer="Dana")
        assert (answer.kind, answer.press) == ("ok", f"p{number}")
        stored = stored_decisions(store)[-1]
        assert (stored["pair_id"], stored["verdict"], stored["seconds"]) == (shown, verdict, 2.5)
        assert stored["shown"].keys() == set(view.SHOWN_FIELDS)


def test_a_press_for_a_pair_that_is_not_on_screen_is_refused_and_says_so(store: Store) -> None:
    desk = desk_with_pair(store)
    first = desk.queue.current
    desk.take(store, press("one", "decide", first, verdict="accept"), reviewer="Dana")
    answer = desk.take(store, press("two", "decide", first, verdict="reject"), reviewer="Dana")
    assert answer.kind == "error"
    assert "Nothing was stored" in answer.text
    assert [row["verdict"] for row in stored_decisions(store)] == ["accept"]


def test_the_same_press_sent_twice_is_stored_once_and_moves_once(store: Store) -> None:
    desk = desk_with_pair(store)
    first = desk.queue.current
    sent = press("same", "decide", first, verdict="accept")
    desk.take(store, sent, reviewer="Dana")
    second = desk.queue.current
    desk.payload(store, reviewer="Dana")
    assert desk.take(store, sent, reviewer="Dana").kind == "ok"
    assert desk.queue.current == second
    assert len(stored_decisions(store)) == 1


def test_an_edit_becomes_a_new_example_and_an_unchanged_edit_an_acceptance(store: Store) -> None:
    desk = desk_with_pair(store)
    texts = {"instruction": "Name it.", "input": "", "output": "=cmd() <script>"}
    pair_id = desk.queue.current
    desk.take(store, press("e1", "decide", pair_id, verdict="edit", edited=texts), reviewer="Dana")
    assert stored_decisions(store)[-1]["verdict"] == "edit"
    shown = desk.payload(store, reviewer="Dana")["pair"]
    unchanged = dict.fromkeys(("instruction", "input", "output"), "")
    unchanged |= {one["field"]: "".join(text for _, text in one["reflected"]) for one in shown["fields"]}
    desk.take(store, press("e2", "decide", shown["pair_id"], verdict="edit", edited=unchanged), reviewer="Dana")
    assert stored_decisions(store)[-1]["verdict"] == "accept"


def test_an_empty_edit_is_refused_and_the_pair_stays(store: Store) -> None:
    desk = desk_with_pair(store)
    pair_id = desk.queue.current
    texts = {"instruction": " ", "input": "", "output": "x"}
    answer = desk.take(store, press("e", "decide", pair_id, verdict="edit", edited=texts), reviewer="Dana")
    assert answer.kind == "error"
    assert desk.queue.current == pair_id


def test_a_store_that_fails_keeps_the_pair_and_the_same_press_works_afterwards(store: Store) -> None:
    desk = desk_with_pair(store)
    pair_id = desk.queue.current
    sent = press("again", "decide", pair_id, verdict="edit", edited={"instruction": "A", "input": "", "output": "B"})
    with pytest.MonkeyPatch.context() as broken:
        broken.setattr(store, "engine", _read_only_engine(store))
        answer = desk.take(store, sent, reviewer="Dana")
        assert answer.kind == "error"
        assert "NOT stored" in answer.text
    assert desk.queue.current == pair_id
    assert stored_decisions(store) == []
    assert desk.take(store, sent, reviewer="Dana").kind == "ok"
    assert [row["verdict"] for row in stored_decisions(store)] == ["edit"]


def _read_only_engine(store: Store) -> Engine:
    """An engine over a real copy of the store that refuses every write."""
    path = store.path.with_name("read-only.duckdb")
    with store.engine.connect() as connection:
        raw = connection.connection.driver_connection
        assert raw is not None
        for statement in (f"attach '{path}' as snap", "copy from database assay to snap", "detach snap"):
            raw.execute(statement)
    root = duckdb.connect(str(path), read_only=True)
    return create_engine(f"duckdb:///{path}", creator=lambda: duckdb_engine.ConnectionWrapper(root.cursor()))


def test_somebody_else_deciding_the_pair_on_screen_is_said_before_anything_is_stored(store: Store) -> None:
    desk = desk_with_pair(store)
    pair_id = desk.queue.current
    assert pair_id is not None
    decisions.decide(store, pair_id=pair_id, reviewer="Ben", verdict="reject")
    answer = desk.take(store, press("late", "decide", pair_id, verdict="accept"), reviewer="Dana")
    assert answer.kind == "error"
    assert "Ben rejected" in answer.text
    desk.payload(store, reviewer="Dana")
    assert desk.take(store, press("later", "decide", pair_id, verdict="accept"), reviewer="Dana").kind == "ok"


def test_pairs_that_others_decided_meanwhile_are_not_shown(store: Store) -> None:
    desk = desk_with_pair(store)
    first, second, third = desk.queue.pair_ids[:3]
    decisions.decide(store, pair_id=second, reviewer="Ben", verdict="reject")
    desk.take(store, press("x", "decide", first, verdict="accept"), reviewer="Dana")
    assert desk.queue.current == third


def test_undo_goes_back_without_limit_across_sessions_and_shows_each_pair(store: Store) -> None:
    desk = desk_with_pair(store)
    shown = list(desk.queue.pair_ids[:3])
    for number, pair_id in enumerate(shown):
        desk.payload(store, reviewer="Dana")
        desk.take(store, press(f"d{number}", "decide", pair_id, verdict="accept"), reviewer="Dana")
    other = Desk.open(store, PairFilter(state="flagged"))  # another session, another queue
    for number, pair_id in enumerate(reversed(shown)):
        other.payload(store, reviewer="Dana")
        other.take(store, press(f"u{number}", "undo", other.queue.current), reviewer="Dana")
        assert other.queue.current == pair_id
        assert other.payload(store, reviewer="Dana")["pair"]["decision"] is None
    answer = other.take(store, press("u9", "undo", other.queue.current), reviewer="Dana")
    assert "nothing left to undo" in answer.text
    assert review.progress(store, reviewer="Dana")["n_all"] == 0


def test_a_flag_with_a_note_keeps_the_pair_and_can_be_removed_and_undone(store: Store) -> None:
    desk = desk_with_pair(store)
    pair_id = desk.queue.current
    desk.take(store, press("f", "flag", pair_id, note="Check the units <b>"), reviewer="Dana")
    flag = desk.payload(store, reviewer="Dana")["pair"]["flag"]
    assert desk.queue.current == pair_id
    assert flag["note"] == "Check the units <b>"
    desk.take(store, press("nf", "unflag", pair_id), reviewer="Dana")
    assert desk.payload(store, reviewer="Dana")["pair"]["flag"] is None
    desk.take(store, press("u", "undo", pair_id), reviewer="Dana")
    assert desk.payload(store, reviewer="Dana")["pair"]["flag"] is not None


def test_the_end_sums_up_and_offers_the_skipped_again(store: Store) -> None:
    desk = desk_with_pair(store)
    number = 0
    while (pair_id := desk.payload(store, reviewer="Dana")["pair"]) is not None:
        verdict = "skip" if number % 2 else "reject"
        desk.take(store, press(f"n{number}", "decide", pair_id["pair_id"], verdict=verdict), reviewer="Dana")
        number += 1
    end = desk.payload(store, reviewer="Dana")["end"]
    assert (number, end["skipped"]) == (6, 3)
    assert "3 decided and 3 skipped" in end["lines"][0]
    desk.take(store, press("again", "skipped", None), reviewer="Dana")
    assert len(desk.queue.pair_ids) == 3
    desk.take(store, press("fwd", "forward", desk.queue.current), reviewer="Dana")
    desk.take(store, press("bck", "back", desk.queue.current), reviewer="Dana")
    assert desk.queue.index == 0


def test_a_press_whose_connection_broke_is_looked_up_or_its_pair_shown_again(store: Store) -> None:
    lost = desk_with_pair(store)
    pair_id = lost.queue.current
    lost.take(store, press("gone", "decide", pair_id, verdict="accept"), reviewer="Dana")
    desk = desk_with_pair(store)  # the session after the server came back
    answer = desk.take(store, press("r1", "recover", pair_id, verdict="accept", note="gone"), reviewer="Dana")
    assert "was stored" in answer.text
    answer = desk.take(store, press("r2", "recover", pair_id, verdict="reject", note="never came"), reviewer="Dana")
    assert answer.kind == "error"
    assert desk.queue.current == pair_id


@pytest.mark.parametrize(
    "sent",
    [
        {},
        {"press": 3, "action": "decide", "pair_id": 1},
        {"press": "x", "action": "decide", "pair_id": "1; drop table pairs"},
        {"press": "x", "action": "decide", "pair_id": 1, "edited": "text"},
        {"press": "x", "action": "decide", "pair_id": 1, "verdict": "edit", "edited": {"instruction": "a"}},
    ],
)
def test_a_malformed_press_stores_nothing(store: Store, sent: dict[str, Any]) -> None:
    desk = desk_with_pair(store)
    assert desk.take(store, sent, reviewer="Dana").kind == "error"
    assert stored_decisions(store) == []


def test_an_unknown_action_or_verdict_stores_nothing(store: Store) -> None:
    desk = desk_with_pair(store)
    for sent in (press("a", "drop", desk.queue.current), press("b", "decide", desk.queue.current, verdict="undo")):
        assert desk.take(store, sent, reviewer="Dana").kind == "error"
    assert stored_decisions(store) == []


def test_the_reason_of_a_missing_score_comes_from_the_store(store: Store) -> None:
    pair_id = next(
        i for i in review.queue(store, PairFilter(state="all")) if review.pair(store, i)["ifd_original"] is None
    )
    desk = Desk.open(store, PairFilter(), first=pair_id)
    scores = desk.payload(store, reviewer="Dana")["pair"]["scores"]
    assert scores[0]["missing"][0] == "Original: The response is empty: there is no token to score."
    assert scores[0]["original"] == "—"


def test_skipped_pairs_come_last_when_the_queue_is_loaded_again(store: Store) -> None:
    desk = desk_with_pair(store)
    first = desk.queue.current
    desk.take(store, press("s", "decide", first, verdict="skip"), reviewer="Dana")
    assert desk_with_pair(store).queue.pair_ids[-1] == first


def test_the_seed_makes_another_queue_only_in_random_order() -> None:
    assert same_queue(PairFilter(seed=1), PairFilter(seed=2))
    assert not same_queue(PairFilter(order="random", seed=1), PairFilter(order="random", seed=2))


# ---- the page ----


def named(run_page: RunPage, **query: str) -> Any:
    app = run_page("review", **query)
    app.text_input[0].set_value("Dana")
    app.button[0].click()
    return app.run()


def test_an_empty_store_says_what_to_do_first(empty_home: Service, run_page: RunPage) -> None:
    app = run_page("review")
    assert "no pairs to review yet" in app.markdown[0].value
    assert not app.text_input


def test_the_name_is_asked_once_and_the_desk_comes(half_scored_home: Service, run_page: RunPage) -> None:
    app = run_page("review")
    assert "Who is reviewing?" in app.markdown[0].value
    app.button[0].click().run()
    assert "Write a name first" in app.error[0].value
    app.text_input[0].set_value("  Dana   Scully ")
    app.button[0].click()
    app.run()
    assert not app.exception
    assert app.session_state[_ui.REVIEWER] == "Dana Scully"
    assert len(app.session_state["review_desk"].queue.pair_ids) == 6
    app.run()
    assert not app.error


def test_the_filter_of_the_url_makes_the_queue_and_a_changed_widget_the_url(
    half_scored_home: Service, run_page: RunPage
) -> None:
    app = named(run_page, state="decided", order="oldest first")
    assert app.session_state["review_desk"].filters == PairFilter(state="decided", order="oldest first")
    assert len(app.session_state["review_desk"].queue.pair_ids) == 4
    app.selectbox(key="review_filter_state").set_value("flagged").run()
    assert not app.exception
    assert app.query_params["state"] == "flagged"
    assert len(app.session_state["review_desk"].queue.pair_ids) == 1
    app.number_input(key="review_filter_ifd_low").set_value(9.0).run()
    assert app.session_state["review_desk"].queue.pair_ids == ()
    reset = next(button for button in app.button if button.key == "review_reset_end")
    reset.click().run()
    assert app.session_state["review_desk"].filters == PairFilter()


def test_a_broken_link_shows_the_default_queue_and_says_so(half_scored_home: Service, run_page: RunPage) -> None:
    app = named(run_page, state="nonsense")
    assert app.session_state["review_desk"].filters == PairFilter()


def test_a_link_to_one_pair_puts_it_on_top(half_scored_home: Service, run_page: RunPage) -> None:
    app = named(run_page, pair="2")
    assert app.session_state["review_desk"].queue.current == 2
    assert "pair" not in app.query_params
    app.query_params["pair"] = "999999"
    app.run()
    assert "not in the store" in app.warning[0].value


def test_a_failed_job_changes_nothing_here(failed_job_home: Service, run_page: RunPage) -> None:
    app = named(run_page)
    assert not app.error
    assert app.session_state["review_desk"].queue.current is not None
