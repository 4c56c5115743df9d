"""The review desk's requests: a log is stored once and in order, by whom the token names, or refused in words."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from core.filters import PairFilter
from db import adjudication, campaigns, decisions, drafts, pair_queue, people, preferences
from db.service import Service
from db.store import Store, rows
from pages._review import desk as desks
from pages._review import routes
from pages._review.desk import Desks
from pages._review.routes import TOKEN
from pages._review.scopes import in_order
from pages._routes import ROUTES
from tests.pages import sample_stores
from tests.pages.review_tab import OLDEST_FIRST, Send, Tab, token


@pytest.fixture
def store(half_scored_home: Service) -> Store:
    return half_scored_home.store


@pytest.fixture
def send(half_scored_home: Service) -> Iterator[Send]:
    with TestClient(Starlette(routes=ROUTES)) as client:

        def post(path: str, content: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
            answer = client.post(path, content=json.dumps(content))
            return answer.status_code, answer.json()

        post.get, post.client = client.get, client  # type: ignore[attr-defined]
        yield post


@pytest.fixture
def tab(send: Send, half_scored_home: Service) -> Tab:
    opened = Tab(send, token(half_scored_home.settings.home, "Dana"))
    opened.sync()
    return opened


def other(tab: Tab, service: Service, name: str, **more: Any) -> Tab:
    opened = Tab(tab.send, token(service.settings.home, name), **more)
    opened.sync()
    return opened


def stored(store: Store, reviewer: str = "Dana") -> list[tuple[int, str]]:
    with store.read() as connection:
        found = rows(connection, "select * from decisions where reviewer = :r order by decision_id", r=reviewer)
    return [(row["pair_id"], row["verdict"]) for row in found]


def of_json(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


# ---- the log ----


def test_each_verdict_is_stored_in_order_with_what_was_on_screen(tab: Tab, store: Store) -> None:
    made = []
    for verdict in ("accept", "reject", "new_instruction", "new_response", "skip"):
        made.append((tab.on_screen, verdict))
        assert tab.decide(verdict)["kind"] == "ok"
    assert stored(store) == made
    with store.read() as connection:
        row = rows(connection, "select * from decisions where reviewer = 'Dana' order by decision_id")[0]
    shown = of_json(row["shown"])
    assert row["seconds"] == 1.5
    assert {"proposal", "ifd_candidate", "original_hash", "candidate_hash", "blind", "filter"} <= shown.keys()
    assert shown["filter"] == OLDEST_FIRST["params"]


def test_a_log_sent_again_is_stored_once_and_answered_alike(tab: Tab, store: Store) -> None:
    tab.enter("decide", verdict="accept")
    tab.enter("decide", verdict="reject")
    request = tab.request(want=2)
    first = tab.send("/api/review/sync", request)[1]
    again = tab.send("/api/review/sync", request)[1]
    assert [one["decision_id"] for one in first["results"]] == [one["decision_id"] for one in again["results"]]
    assert first["acked"] == again["acked"] == 2
    assert len(stored(store)) == 2
    assert again["head"]["today"] == 2


def test_one_log_sent_by_two_threads_at_once_is_stored_once(tab: Tab, store: Store) -> None:
    for verdict in ("accept", "reject", "accept"):
        tab.enter("decide", verdict=verdict)
    twin = {**tab.request(), "desk": "ab" * 16}  # a tab that takes over the log of another, while that one still sends
    answers: list[tuple[int, dict[str, Any]]] = []
    threads = [
        threading.Thread(target=lambda sent=sent: answers.append(tab.send("/api/review/sync", sent)))
        for sent in (tab.request(), twin) * 2
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [status for status, _ in answers] == [200] * 4
    assert {tuple(one["decision_id"] for one in answer["results"]) for _, answer in answers} == {
        tuple(one["decision_id"] for one in answers[0][1]["results"])
    }
    assert len(stored(store)) == 3


def test_a_press_of_somebody_elses_log_says_nothing_of_it(tab: Tab, half_scored_home: Service) -> None:
    tab.decide()
    thief = Tab(tab.send, token(half_scored_home.settings.home, "Mallory"), log=tab.log)
    thief.sync()
    assert thief.decide("reject")["kind"] == "error"
    assert stored(half_scored_home.store, "Mallory") == []


def test_undo_takes_back_the_entry_it_names_also_of_the_same_request(tab: Tab, store: Store) -> None:
    first = tab.enter("decide", verdict="accept")
    tab.enter("decide", verdict="reject")
    tab.enter("undo", pair_id=first["pair_id"], undoes=first["n"])
    tab.sync()
    undone = tab.results[3]
    assert (undone["kind"], undone["pair_id"], undone["pair"]["decision"]) == ("ok", first["pair_id"], None)
    assert [verdict for _, verdict in stored(store)] == ["accept", "reject", "undo"]
    tab.enter("undo", pair_id=first["pair_id"], undoes=first["n"])
    tab.sync()
    assert "taken back before" in tab.results[4]["text"]
    assert len(stored(store)) == 3


def test_undo_without_a_number_goes_back_through_earlier_sessions_until_none_is_left(
    tab: Tab, half_scored_home: Service
) -> None:
    made = [tab.on_screen]
    tab.decide("accept")
    made.append(tab.on_screen)
    tab.decide("skip")
    later = other(tab, half_scored_home, "Dana")
    for pair_id in reversed(made):
        later.enter("undo")
        later.sync()
        assert later.results[later.n]["pair_id"] == pair_id
    later.enter("undo")
    later.sync()
    assert (later.results[3]["kind"], later.results[3]["pair"]) == ("info", None)
    assert "nothing left to undo" in later.results[3]["text"]


def test_a_pair_that_somebody_decided_since_it_was_served_is_refused_and_comes_back(tab: Tab, store: Store) -> None:
    pair_id = tab.on_screen
    assert pair_id is not None
    decisions.decide(store, pair_id=pair_id, reviewer="Ben", verdict="reject")
    refused = tab.decide("accept")
    assert refused["kind"] == "error"
    assert "Ben rejected" in refused["text"]
    assert refused["pair"]["pair_id"] == pair_id
    assert stored(store) == []
    tab.held.insert(0, refused["pair"])
    assert tab.decide("accept")["kind"] == "ok"


def test_pairs_that_others_decided_leave_the_desk_and_are_not_served(tab: Tab, store: Store) -> None:
    held = [one["pair_id"] for one in tab.held]
    waiting = [i for i in pair_queue.queue(store, PairFilter(order="oldest first")).tolist() if i not in held]
    decisions.decide(store, pair_id=held[1], reviewer="Ben", verdict="reject")
    decisions.decide(store, pair_id=waiting[0], reviewer="Ben", verdict="reject")
    answer = tab.sync(want=10)
    assert answer["dropped"] == [held[1]]
    assert [one["pair_id"] for one in answer["pairs"]] == waiting[1:]
    assert "decided by other people" in " ".join(answer["end"]["lines"])


def test_an_edit_becomes_a_new_example_an_unchanged_one_an_acceptance_and_its_draft_goes(
    tab: Tab, half_scored_home: Service
) -> None:
    store, pair_id = half_scored_home.store, tab.on_screen
    typed = {"instruction": "Name it.", "input": "", "output": "=cmd() \ud800 <script>"}
    tab.sync(drafts=[{"pair_id": pair_id, "texts": typed}])
    kept = drafts.drafts(store, "Dana", [pair_id or 0])[pair_id or 0]
    assert kept["texts"]["output"] == "=cmd() ? <script>"
    assert tab.decide("edit", edited=typed)["kind"] == "ok"
    assert drafts.drafts(store, "Dana", [pair_id or 0]) == {}
    unchanged = dict.fromkeys(("instruction", "input", "output"), "")
    unchanged |= {one["field"]: "".join(text for _, text in one["reflected"]) for one in tab.held[0]["fields"]}
    tab.decide("edit", edited=unchanged)
    assert [verdict for _, verdict in stored(store)] == ["edit", "accept"]


def test_a_draft_comes_back_with_its_pair_to_its_author_only(tab: Tab, half_scored_home: Service) -> None:
    pair_id, typed = tab.on_screen, {"instruction": "Half a", "input": "", "output": ""}
    tab.sync(drafts=[{"pair_id": pair_id, "texts": typed}])
    again = other(tab, half_scored_home, "Dana").held[0]
    assert (again["pair_id"], again["draft"]["texts"]) == (pair_id, typed)
    assert other(tab, half_scored_home, "Ben").held[0]["draft"] is None
    tab.sync(drafts=[{"pair_id": pair_id, "texts": None}])
    assert other(tab, half_scored_home, "Dana").held[0]["draft"] is None


def test_an_empty_edit_is_refused_and_the_rest_of_the_batch_is_stored(tab: Tab, store: Store) -> None:
    tab.enter("decide", verdict="edit", edited={"instruction": " ", "input": "", "output": "x"})
    kept = tab.enter("decide", verdict="reject")
    tab.sync()
    assert tab.results[1]["kind"] == "error"
    assert stored(store) == [(kept["pair_id"], "reject")]


def test_the_same_verdict_for_near_duplicates_is_one_entry_and_one_undo(tab: Tab, store: Store) -> None:
    pair_ids = [one["pair_id"] for one in tab.held]
    ben = pair_ids[2]
    decisions.decide(store, pair_id=ben, reviewer="Ben", verdict="reject")
    tab.enter("apply", verdict="accept", pair_ids=pair_ids)
    tab.sync()
    assert "2 near-duplicates: accepted" in tab.results[1]["text"]
    assert "Ben rejected" in tab.results[1]["text"]
    assert stored(store) == [(pair_id, "accept") for pair_id in pair_ids[:2]]
    tab.enter("undo", undoes=1)
    tab.sync()
    assert [verdict for _, verdict in stored(store)] == ["accept", "accept", "undo", "undo"]


def test_a_flag_keeps_its_pair_and_shows_it_anew(tab: Tab) -> None:
    pair_id = tab.on_screen
    tab.enter("flag", note="Check the units <b>")
    tab.sync()
    assert tab.results[1]["pair"]["flag"]["note"] == "Check the units <b>"
    assert tab.on_screen == pair_id
    tab.enter("unflag")
    tab.sync()
    assert tab.results[2]["pair"]["flag"] is None


# ---- desks ----


def test_a_desk_that_the_server_forgot_goes_on_behind_what_its_browser_holds(
    tab: Tab, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [one["pair_id"] for one in tab.held]
    tab.enter("decide", verdict="accept")
    monkeypatch.setattr("pages._review.routes.DESKS", Desks())
    answer = tab.sync(want=2)
    assert tab.results[1]["kind"] == "ok"
    assert not {one["pair_id"] for one in answer["pairs"]} & set(before)
    with store.read() as connection:
        shown = rows(connection, "select shown from decisions where reviewer = 'Dana'")[0]["shown"]
    assert "candidate_hash" in of_json(shown)


def test_the_end_offers_the_skipped_and_the_passed_by_again(tab: Tab) -> None:
    tab.sync(want=10)
    tab.decide("skip")
    tab.decide("reject")
    passed = [one["pair_id"] for one in tab.held]
    tab.held = []
    end = tab.sync(want=3)
    assert (end["end"]["skipped"], end["end"]["passed"]) == (1, len(passed))
    assert [one["pair_id"] for one in tab.sync(want=20, again="passed")["pairs"]] == passed
    fresh = tab.sync(want=20, again="reload")
    assert fresh["pairs"][-1]["pair_id"] == tab.results[1]["pair_id"]  # skipped pairs come last
    skipped = tab.on_screen
    tab.decide("skip")
    opened = Tab(tab.send, tab.token)  # the page, reloaded: its queue is shared, and older than this skip
    opened.sync(want=20)
    assert {one["pair_id"] for one in opened.held[-3:]} >= {skipped, tab.results[1]["pair_id"]}  # Ada skipped one too


def test_a_log_left_behind_is_stored_without_building_a_queue(
    tab: Tab, half_scored_home: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    tab.enter("decide", verdict="accept")
    left = tab.request(want=0, holding=[], on_screen=None)
    monkeypatch.setattr("pages._review.routes.DESKS", Desks())
    later = other(tab, half_scored_home, "Dana")
    before = later.sync()["head"]["today"]
    monkeypatch.setattr("pages._review.scopes.pair_queue.queue", lambda *_: pytest.fail("a queue was built"))
    status, answer = tab.send("/api/review/sync", left)
    assert (status, answer["acked"], answer["pairs"], answer["end"]) == (200, 1, [], None)
    assert later.sync()["head"]["today"] == before + 1  # the desk that came after counts it too
    assert len(stored(half_scored_home.store)) == 1


def test_pairs_too_long_for_one_answer_come_with_the_next_and_none_is_left_out(
    tab: Tab, half_scored_home: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desks, "MOST_CHARACTERS", 0)
    store = half_scored_home.store
    queue = in_order(store, PairFilter(order="oldest first")).tolist()
    slow, ends = Tab(tab.send, token(half_scored_home.settings.home, "Slow")), []
    for _ in queue:
        ends.append(slow.sync(want=len(queue))["end"])
    assert [one["pair_id"] for one in slow.held] == queue
    assert [end is None for end in ends] == [True] * (len(queue) - 1) + [False]
    late = Tab(tab.send, token(half_scored_home.settings.home, "Late"))
    late.sync(want=3)
    decisions.decide(store, pair_id=queue[1], reviewer="Ben", verdict="reject")  # while it waits on the desk
    assert [one["pair_id"] for one in late.sync(want=3)["pairs"]] == queue[2:3]


def test_idle_and_surplus_desks_go(half_scored_home: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desks, "MOST_DESKS", 3)
    known = Desks()
    dana = people.actor(half_scored_home.store, "Dana", "Dana", default="admin")
    for number in range(5):
        known.get(half_scored_home, dana, desk=f"{number:032x}", scope=OLDEST_FIRST)
    assert [known.known(half_scored_home, dana, f"{n:032x}") is None for n in range(5)] == [
        True,
        True,
        False,
        False,
        False,
    ]


def test_keys_that_were_remapped_are_kept_for_the_person(tab: Tab, store: Store) -> None:
    tab.sync(preferences={"keys": {"accept": "j"}})
    assert preferences.preference(store, "Dana", "review.keys", {}) == {"accept": "j"}
    assert preferences.preference(store, "Ben", "review.keys", {}) == {}


def test_one_pair_and_its_similar_ones_are_read_by_number(tab: Tab) -> None:
    def get(path: str, **params: Any) -> Any:
        asked = {"desk": tab.desk, **params}
        return tab.send.get(path, params=asked, headers={TOKEN: tab.token})  # type: ignore[attr-defined]

    assert get("/api/review/pair", id=2).json()["pair"]["pair_id"] == 2
    assert "embedding" in get("/api/review/similar", id=2).json()["reason"]
    assert get("/api/review/pair", id="2;").status_code == 400
    assert "not in the store" in get("/api/review/pair", id=99).json()["error"]
    tab.token, good = "x", tab.token
    assert get("/api/review/pair", id=2).status_code == 401
    assert get("/api/review/pair", id=2, token=good).status_code == 401  # in an address it would stand in logs


# ---- who may ----


def test_a_request_without_a_good_token_of_this_server_is_refused(tab: Tab, half_scored_home: Service) -> None:
    tab.enter("decide", verdict="accept")
    old = token(half_scored_home.settings.home, "Dana", seconds=-1)
    for bad in ("", "x.y", None, 7, {"a": 1}, old):
        status, answer = tab.send("/api/review/sync", {**tab.request(), "token": bad})
        assert status == 401
        assert "Reload the page" in answer["error"]
    assert stored(half_scored_home.store) == []


def test_the_role_of_this_moment_decides(tab: Tab, half_scored_home: Service) -> None:
    tab.enter("decide", verdict="accept")
    people.grant(half_scored_home.store, "Boss", "admin", "Boss")
    for role, status in (("viewer", 403), ("none", 403), ("reviewer", 200)):
        people.grant(half_scored_home.store, "Dana", role, "Boss")
        answered, answer = tab.send("/api/review/sync", tab.request())
        assert answered == status, answer
        assert len(stored(half_scored_home.store)) == (1 if status == 200 else 0)


def test_a_misshapen_request_is_refused_whole(tab: Tab, store: Store) -> None:
    changes: list[dict[str, Any]] = [
        {"desk": "../x"}, {"log": ""}, {"entries": [{}]}, {"entries": "x"}, {"holding": ["1"]}, {"want": -1},
        {"want": True}, {"again": "drop"}, {"drafts": [{"pair_id": "1"}]}, {"scope": None}, {"scope": {"kind": "x"}},
        {"scope": {"kind": "filter", "params": {"state": "nonsense"}}}, {"on_screen": 2**70},
        {"entries": [{"n": 2, "action": "decide"}, {"n": 1, "action": "decide"}]},
        {"entries": [{"n": 1, "action": "drop", "pair_id": 1}]},
        {"entries": [{"n": 1, "action": "decide", "pair_id": 1, "edited": {"instruction": "a"}}]},
        {"entries": [{"n": 1, "action": "apply", "pair_id": 1, "pair_ids": list(range(101))}]},
    ]  # fmt: skip
    for change in changes:
        status, answer = tab.send("/api/review/sync", {**tab.request(), **change})
        assert status == 400, change
        assert len(answer["error"]) > 10
    assert stored(store) == []


@pytest.mark.parametrize("seconds", ["NaN", "Infinity", "-1e400", "1" + 400 * "0"])
def test_no_number_of_seconds_spoils_the_figures(tab: Tab, store: Store, seconds: str) -> None:
    """One NaN made every mean NaN, which JSON cannot say: each later request of that person failed."""
    tab.enter("decide", verdict="accept", seconds=-7.25)
    body = json.dumps(tab.request()).replace("-7.25", seconds)
    assert tab.send.client.post("/api/review/sync", content=body).status_code == 200  # type: ignore[attr-defined]
    assert tab.decide("reject")["kind"] == "ok"
    with store.read() as connection:
        kept = rows(connection, "select seconds from decisions where reviewer = 'Dana' order by decision_id")
    assert kept[0]["seconds"] in (None, 0.0, 24 * 3600.0)


def test_a_giant_request_is_refused_whatever_it_says_of_its_length(tab: Tab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "LONGEST_BYTES", 3000)
    tab.enter("decide", verdict="accept", note="x" * 4000)
    parts = (json.dumps(tab.request())[i : i + 500].encode() for i in range(0, 8000, 500))
    answer = tab.send.client.post("/api/review/sync", content=parts)  # type: ignore[attr-defined]
    assert (answer.status_code, "too much at once" in answer.json()["error"]) == (413, True)
    assert tab.send.client.post("/api/review/sync", content="[" * 2900).status_code == 400  # type: ignore[attr-defined]


def test_a_preference_that_cannot_be_kept_holds_no_decision_up(tab: Tab, store: Store) -> None:
    tab.enter("decide", verdict="accept")
    tab.sync(preferences={"keys": "x" * 30_000, "view": {"marks": True}})
    assert len(stored(store)) == 1
    assert preferences.preference(store, "Dana", "review.view", None) == {"marks": True}


def test_a_verdict_that_is_none_stores_nothing(tab: Tab, store: Store) -> None:
    for verdict in ("undo", "", "maybe"):
        assert tab.decide(verdict)["kind"] == "error"
    assert stored(store) == []


# ---- campaigns, adjudication, second look ----


@pytest.fixture
def campaign(half_scored_home: Service) -> int:
    return campaigns.create(
        half_scored_home.store, name="Two each", pair_ids=[5, 6, 8, 9], people=["Dana", "Ben"], overlap=2,
        guidelines="Be strict.", gold={}, blind=True, created_by="Boss",
    )  # fmt: skip


def test_a_campaign_counts_each_person_once_and_its_disputes_go_to_adjudication(
    half_scored_home: Service, send: Send, campaign: int
) -> None:
    store, home = half_scored_home.store, half_scored_home.settings.home
    scope = {"kind": "campaign", "id": campaign}
    verdicts = {"Dana": "accept", "Ben": "reject"}
    tabs = {name: Tab(send, token(home, name), scope=scope) for name in verdicts}
    for opened in tabs.values():
        answer = opened.sync(want=4)
        shown = answer["pairs"][0]
        assert (shown["proposal"], shown["history"], shown["decision"]) == (None, [], None)
    for name, opened in tabs.items():
        while opened.held:
            assert opened.decide(verdicts[name])["kind"] == "ok"
        assert "decisions it needs" in " ".join(opened.sync()["end"]["lines"]) or name == "Dana"
    assert sorted(adjudication.disputed(store, campaign)) == [5, 6, 8, 9]
    judge = Tab(send, token(home, "Boss"), scope={"kind": "adjudication", "id": campaign})
    judge.sync()
    assert len(judge.held[0]["voices"]) == 2
    assert judge.decide("accept")["kind"] == "ok"
    assert len(adjudication.disputed(store, campaign)) == 3
    with store.read() as connection:
        found = rows(connection, "select purpose, campaign_id, shown from decisions where reviewer in ('Dana', 'Boss')")
    assert {(row["purpose"], row["campaign_id"]) for row in found} == {("review", campaign), ("adjudication", campaign)}
    assert of_json(found[0]["shown"])["guidelines_version"] == 1


def test_others_words_on_a_blind_campaigns_pair_cannot_be_read_beside_it(
    half_scored_home: Service, send: Send, campaign: int
) -> None:
    """The same pair came by the queue of a filter, with everybody's verdicts under it."""
    store, home = half_scored_home.store, half_scored_home.settings.home
    people.grant(store, "Boss", "admin", "Boss")
    people.grant(store, "Dana", "reviewer", "Boss")
    bens = Tab(send, token(home, "Ben"), scope={"kind": "campaign", "id": campaign})
    bens.sync(want=4)
    pair_id = bens.on_screen
    bens.enter("flag", note="odd")
    bens.decide("reject")

    def seen_by(name: str) -> dict[str, Any]:
        tab = Tab(send, token(home, name), scope={"kind": "filter", "params": {"state": "all"}})
        tab.sync()
        asked = {"desk": tab.desk, "id": pair_id}
        found = send.get("/api/review/pair", params=asked, headers={TOKEN: tab.token})  # type: ignore[attr-defined]
        return dict(found.json()["pair"])

    hidden = seen_by("Dana")
    assert (hidden["history"], hidden["decision"], hidden["flag"]) == ([], None, None)
    assert hidden["proposal"] is not None
    assert "Ben" in str(seen_by("Boss")["history"])
    assert "Ben" in str(seen_by("Ben")["history"])
    dana = Tab(send, token(home, "Dana"), scope={"kind": "campaign", "id": campaign})
    while dana.sync(want=4)["pairs"] or dana.held:
        dana.decide("accept")
    judge = Tab(send, token(home, "Boss"), scope={"kind": "adjudication", "id": campaign})
    judge.sync()
    assert {one["name"] for one in judge.held[0]["voices"]} == {"Reviewer 1", "Reviewer 2"}
    assert not {"Ben", "Dana"} & set(str(judge.held[0]["history"]).split())
    campaigns.close(store, campaign)
    assert "Ben" in str(seen_by("Dana")["history"])


def test_who_has_no_part_in_a_campaign_is_refused_in_words(
    half_scored_home: Service, send: Send, campaign: int
) -> None:
    eve = Tab(send, token(half_scored_home.settings.home, "Eve"), scope={"kind": "campaign", "id": campaign})
    status, answer = send("/api/review/sync", eve.request(want=3))
    assert (status, "does not take part" in answer["error"]) == (403, True)
    gone = Tab(send, eve.token, scope={"kind": "campaign", "id": 999})
    assert send("/api/review/sync", gone.request(want=3))[0] == 400  # 503 would be sent again for ever
    torn = Tab(send, eve.token, scope={"kind": "filter", "params": {"text": "\ud800"}})
    assert send("/api/review/sync", torn.request(want=3))[0] == 400


def test_the_payload_holds_hostile_text_unchanged(tab: Tab, half_scored_home: Service) -> None:
    hostile = other(tab, half_scored_home, "Ben", scope={"kind": "filter", "params": {"state": "all"}})
    hostile.sync(want=20)
    texts = ["".join(text for _, text in one["original"]) for view in hostile.held for one in view["fields"]]
    assert sample_stores.HOSTILE in texts
