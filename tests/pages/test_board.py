"""The meeting board without a browser: slides in every state, one build for all who look, who may do what."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from core import sign_in
from core.sign_in import Known
from db import board, decisions, fits, people, votes
from db.service import Service
from pages import _board_live, _who
from pages._board import room
from pages._board.routes import ROUTES
from pages._board_slides import KINDS
from tests.db.test_fits import a_fit
from tests.pages import sample_stores
from tests.pages.conftest import RunPage


def token(service: Service, name: str, *, seconds: float = 60.0) -> str:
    key = sign_in.signing_key(service.settings.key_path)
    return sign_in.issue(Known(name, name, sign_in.NAMES), purpose=_who.API, key=key, expires=time.time() + seconds)


class Browser:
    """As much of the component as the routes need."""

    def __init__(self, service: Service, name: str, *, mode: str = "follow") -> None:
        self.client = TestClient(Starlette(routes=ROUTES))
        self.base = {"token": token(service, name), "session": f"{name}-{mode}", "mode": mode, "slide": "review"}

    def post(self, route: str, **more: Any) -> tuple[int, dict[str, Any]]:
        answer = self.client.post(f"/api/board/{route}", json={**self.base, **more})
        return answer.status_code, answer.json()

    def state(self, **more: Any) -> dict[str, Any]:
        return self.post("state", **more)[1]

    def do(self, action: str, **more: Any) -> tuple[int, dict[str, Any]]:
        return self.post("do", action=action, **more)


def test_every_slide_says_something_or_what_to_do(half_scored_home: Service) -> None:
    for kind in KINDS:
        slide, _ = _board_live.slide(half_scored_home, kind.key)
        assert slide.text or slide.missing is not None
        for figure in slide.figures:
            assert figure.rows, kind.key
            figure.figure.to_json()


@pytest.mark.parametrize("state", ["empty_home", "studied_home", "failed_job_home"])
def test_slides_in_other_states(state: str, request: pytest.FixtureRequest) -> None:
    service: Service = request.getfixturevalue(state)
    made = {slide.key: slide for slide in _board_live.all_slides(service)}
    if state == "empty_home":
        assert all(slide.missing is not None for slide in made.values())
    elif state == "studied_home":
        assert made["univariate"].figures
        assert re.search(r"r = −?0\.\d\d over \d+ runs", made["univariate"].text[0])
        fits.save_fit(service.store, a_fit(), name="First <b>", study_ids=[1])
        time.sleep(_board_live.LEAST_SECONDS)
        kept, _ = _board_live.slide(service, "regression")
        assert kept.text[0].startswith("The fit “First <b>” explains the evaluation loss of 11 runs with R² = ")
        assert [row["indicator"] for row in kept.figures[0].rows] == ["a", "b"]
    else:
        assert made["jobs"].text[0].endswith("1 failed.")


def test_a_slide_is_built_once_for_all_who_look_and_again_when_its_numbers_change(half_scored_home: Service) -> None:
    service = half_scored_home
    first = _board_live.slide(service, "review")
    assert _board_live.slide(service, "review")[0] is first[0]
    data = _board_live.slide(service, "data")[0]
    decisions.decide(service.store, pair_id=9, reviewer="Ben", verdict="reject")
    deadline = time.monotonic() + 20
    while _board_live.version(service, "review") == first[1]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    second = _board_live.slide(service, "review")[0]
    assert second.text[0].startswith("5 of 10 pairs decided")
    assert _board_live.slide(service, "data")[0] is data  # a decision is nothing to it


@pytest.mark.parametrize(
    "query", [{}, {"slide": "pace"}, {"slide": "vote"}, {"slide": "<b>"}, {"present": "1"}, {"follow": "1"}]
)
def test_the_page_runs_in_every_mode(query: dict[str, str], half_scored_home: Service, run_page: RunPage) -> None:
    page = run_page("board", **query)
    asks = bool({"present", "follow"} & set(query))  # who takes part in a meeting has a name
    assert ("Your name" in [field.label for field in page.text_input]) == asks
    if not asks:
        assert page.title[0].value == "Meeting board"
        assert not page.error


def test_a_vote_over_the_routes(half_scored_home: Service) -> None:
    service = half_scored_home
    ada, ben, chi = (Browser(service, name) for name in ("Ada", "Ben", "Chi"))
    ada.base["mode"] = "present"
    assert ada.do("present", slide="review")[0] == 200
    status, refused = ben.do("show", slide="pace")
    assert status == 409
    assert "Ada presents now" in refused["error"]
    ada.do("show", slide="pace")
    seen = ben.state()
    assert (seen["slide"], seen["presenter"]["name"], seen["presenter"]["mine"]) == ("pace", "Ada", False)

    assert ada.do("open", how="pair", pair_id=8)[0] == 200
    vote = ben.state()["vote"]
    assert (vote["phase"], vote["n_voted"], vote["mine"], vote["rounds"]) == ("open", 0, None, [])
    assert vote["pair"]["fields"]
    assert ben.state(knows=vote["vote_id"])["vote"]["pair"] is None  # long texts travel once
    ballot = {"vote_id": vote["vote_id"], "round": 1}
    ben.do("ballot", **ballot, verdict="accept", press="b1")
    ben.do("ballot", **ballot, verdict="accept", press="b1")
    chi.do("ballot", **ballot, verdict="reject", press="c1")
    blind = ada.state()["vote"]
    assert (blind["n_voted"], blind["rounds"], blind["mine"]) == (2, [], None)
    assert ben.state()["voters"] == 2  # who presents sees no ballot
    assert "accept" not in str({**blind, "pair": None})  # nobody else's browser knows what was voted
    assert ben.state()["vote"]["mine"] == "accept"

    ada.do("reveal", **ballot)
    shown = chi.state()["vote"]
    assert [[name, n] for name, _, n in shown["rounds"][0]["counts"]] == [["accept", 1], ["reject", 1]]
    assert chi.do("ballot", **ballot, verdict="accept", press="c2")[0] == 409
    ada.do("again", vote_id=vote["vote_id"])
    ben.do("ballot", vote_id=vote["vote_id"], round=2, verdict="accept", press="b2")
    chi.do("ballot", vote_id=vote["vote_id"], round=2, verdict="accept", press="c3")
    assert [one["round"] for one in ben.state()["vote"]["rounds"]] == [1]
    ada.do("reveal", vote_id=vote["vote_id"], round=2)
    after = ben.state()["vote"]
    assert after["change"] == "1 of 2 who voted twice changed their verdict; agreement went from 0 % to 100 %."
    assert ada.do("adopt", vote_id=vote["vote_id"])[1]["said"]
    assert votes.vote(service.store, vote["vote_id"]).adopted == "accept"
    assert ben.state()["vote"]["adopted"] == "✓ accepted"


def test_what_a_role_does_not_allow_is_refused_by_the_server(half_scored_home: Service) -> None:
    service = half_scored_home
    for name, role in (("Vic", "viewer"), ("Out", "none"), ("Rita", "reviewer")):
        people.grant(service.store, name, role, by="Ada", default="admin")
    vic, out, rita = (Browser(service, name) for name in ("Vic", "Out", "Rita"))
    assert vic.post("state")[0] == 200
    for action in ("present", "show", "open", "ballot", "reveal", "adopt"):
        status, answer = vic.do(action, slide="pace", take_over=True)
        assert status == 403
        assert "viewer" in answer["error"]
    assert out.post("state")[0] == 403
    rita.do("present", slide="review")
    rita.do("open", how="pair", pair_id=8)
    vote_id = rita.state()["vote"]["vote_id"]
    for who in (rita, Browser(service, "Ada")):
        who.do("ballot", vote_id=vote_id, round=1, verdict="reject", press=f"p-{who.base['session']}")
    rita.do("reveal", vote_id=vote_id, round=1)
    assert rita.state()["vote"]["adopt"] is None
    assert Browser(service, "Ada").state()["vote"]["adopt"]["verdict"] == "✗ rejected"
    assert rita.do("adopt", vote_id=vote_id)[0] == 403
    assert votes.vote(service.store, vote_id).adopted is None


@pytest.mark.parametrize(
    "sent", [b"", b"[]", b"{", b"null", b'{"token": 7}', b'{"token": "a.b"}', b"{" + b" " * 20_000]
)
def test_requests_that_make_no_sense_are_refused_in_words(sent: bytes, half_scored_home: Service) -> None:
    client = TestClient(Starlette(routes=ROUTES))
    for route in ("state", "do"):
        answer = client.post(f"/api/board/{route}", content=sent)
        assert answer.status_code in (400, 401, 413)
        assert answer.json()["error"]
    expired = token(half_scored_home, "Ada", seconds=-1)
    assert client.post("/api/board/state", json={"token": expired}).status_code == 401
    good = Browser(half_scored_home, "Ada")
    senseless: list[dict[str, Any]] = [
        {"action": "ballot", "vote_id": "1", "round": None},
        {"action": "open", "pair_id": True},
        {"action": []},
    ]
    for more in senseless:
        assert good.post("do", **more)[0] == 409
    assert board.board(half_scored_home.store).event_id == 0


def test_a_presenter_who_is_gone_needs_not_be_asked(half_scored_home: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    ada, ben = Browser(half_scored_home, "Ada", mode="present"), Browser(half_scored_home, "Ben")
    ada.do("present", slide="review")
    assert ben.do("present", slide="pace")[0] == 409
    monkeypatch.setattr(room, "AWAY_SECONDS", 0.0)
    assert ben.state()["presenter"]["away"]
    assert ben.do("present", slide="pace")[0] == 200
    assert board.board(half_scored_home.store).presenter == "Ben"


def test_texts_of_rows_go_to_the_browser_as_segments(half_scored_home: Service) -> None:
    ada = Browser(half_scored_home, "Ada")
    ada.do("present", slide="review")
    ada.do("open", how="pair", pair_id=4)
    fields = ada.state()["vote"]["pair"]["fields"]
    said = "".join(text for _, text in fields[0]["original"])
    assert sample_stores.HOSTILE in said
