"""The History page: every decision, one with what was on screen, and all of it as a file that is streamed."""

from __future__ import annotations

import csv
import io
import json
from datetime import date

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from core.example import Example
from core.history import HistoryFilter
from core.sign_in import Known
from db import campaigns, decisions, history, people
from db.service import Service
from pages import _history_download
from pages._history_download import Ticket
from tests.pages import sample_stores
from tests.pages.conftest import RunPage

FORMULA = '=HYPERLINK("http://192.0.2.1","x")'


def test_an_empty_store_says_what_to_do(empty_home: Service, run_page: RunPage) -> None:
    app = run_page("history")
    assert "Nobody has decided anything yet" in app.markdown[0].value


def test_all_decisions_the_newest_first(half_scored_home: Service, run_page: RunPage) -> None:
    decisions.undo(half_scored_home.store, reviewer="Ben")
    app = run_page("history")
    assert "**7** decisions" in [one.value for one in app.markdown]
    table = app.dataframe[0].value
    assert list(table["Number"]) == [7, 6, 5, 4, 3, 2, 1]
    assert table["What"][0] == "↶ took back a decision"
    assert table["What"][1].endswith("taken back")


def test_the_url_filters_and_the_widgets_show_it(half_scored_home: Service, run_page: RunPage) -> None:
    app = run_page("history", reviewer="Ada", verdict="accept")
    assert list(app.dataframe[0].value["Number"]) == [1]
    assert (app.multiselect[0].value, app.multiselect[1].value) == (["Ada"], ["accept"])
    app.multiselect[1].set_value([]).run()
    assert len(app.dataframe[0].value) == 5
    assert "verdict" not in app.query_params
    app.date_input[0].set_value(date(2999, 1, 1)).run()
    assert "No decision passes" in " ".join(one.value for one in app.markdown)
    app.button(key="history-all").click().run()
    assert len(app.dataframe[0].value) == 6
    app.text_input[0].set_value("abc").run()
    assert any("named by its number" in one.value for one in app.caption)
    assert not app.exception


def test_one_decision_with_hostile_texts(half_scored_home: Service, run_page: RunPage) -> None:
    edited = Example(sample_stores.HOSTILE, "", sample_stores.HOSTILE)
    decisions.decide(
        half_scored_home.store, pair_id=4, reviewer=sample_stores.HOSTILE, verdict="edit", edited=edited,
        note=sample_stores.HOSTILE, shown={"ifd_original": 0.5, "odd <b>": {"<i>": "<script>"}},
    )  # fmt: skip
    app = run_page("history", decision="7")
    assert not app.exception
    said = [one.proto.body for one in app.get("html")]
    assert any("&lt;script&gt;" in one for one in said)
    assert not any("<script>" in one or "<img" in one for one in said)
    assert not any("<script>" in one.value.replace("\\", "") and "\\<" not in one.value for one in app.markdown)
    assert any("What came of it" in one.value for one in app.markdown)
    assert list(app.dataframe[1].value["Number"])[-1] == 7


def test_a_decision_that_is_not_there_says_so(half_scored_home: Service, run_page: RunPage) -> None:
    assert "Decision 99" in run_page("history", decision="99").warning[0].value


@pytest.fixture
def client(half_scored_home: Service) -> TestClient:
    decisions.decide(half_scored_home.store, pair_id=5, reviewer="Ada", verdict="reject", note=FORMULA)
    return TestClient(Starlette(routes=_history_download.ROUTES))


def test_the_whole_history_as_a_file(client: TestClient) -> None:
    whole = HistoryFilter()
    answer = client.get("/" + _history_download.address(Ticket(whole, "csv", False, None)))
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert answer.headers["content-disposition"].startswith('attachment; filename="history-')
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert tuple(rows[0]) == history.STREAM_COLUMNS
    assert [row["decision_id"] for row in rows] == [str(i) for i in range(1, 8)]
    assert rows[-1]["note"] == "'" + FORMULA  # no spreadsheet runs it
    answer = client.get("/" + _history_download.address(Ticket(whole, "jsonl", True, None)))
    found = [json.loads(line) for line in answer.text.splitlines()]
    assert [row["decision_id"] for row in found] == list(range(1, 8))
    assert (found[-1]["note"], found[-1]["shown"]) == (FORMULA, {})
    assert found[0]["candidate_output"].endswith("Checked twice.")
    nothing = client.get("/" + _history_download.address(Ticket(HistoryFilter(pair=999), "csv", False, None)))
    assert nothing.text.splitlines() == [",".join(history.STREAM_COLUMNS)]


def test_a_reviewer_of_a_blind_campaign_reads_only_own_words_on_its_pairs(
    client: TestClient, half_scored_home: Service, run_page: RunPage
) -> None:
    store = half_scored_home.store
    people.grant(store, "Boss", "admin", by="Boss")
    people.grant(store, "Rita", "reviewer", by="Boss")
    campaigns.create(store, name="blind", pair_ids=[5], people=["Rita", "Ada"], overlap=2)
    number = history.page(store, HistoryFilter(pair=5)).rows[0]["decision_id"]
    app = run_page("history", decision=str(number))
    app.session_state["reviewer_name"] = "Rita"
    app.run()
    assert number not in list(app.dataframe[0].value["Number"])
    assert "blind campaign" in app.warning[0].value
    one = Ticket(HistoryFilter(pair=5), "jsonl", False, Known("Rita", "Rita", "name"))
    assert client.get("/" + _history_download.address(one)).text == ""
    boss = Ticket(HistoryFilter(pair=5), "jsonl", False, Known("Boss", "Boss", "name"))
    assert "HYPERLINK" in client.get("/" + _history_download.address(boss)).text


def test_a_ticket_is_for_one_download_of_one_person(client: TestClient, half_scored_home: Service) -> None:
    one = Ticket(HistoryFilter(), "csv", False, Known("Zoe", "Zoe", "name"))
    address = "/" + _history_download.address(one)
    assert address == "/" + _history_download.address(one)  # a page that runs again has the same link
    assert client.get(address).status_code == 200
    people.see(half_scored_home.store, "Zoe", "Zoe", "name")
    people.grant(half_scored_home.store, "Zoe", "none", by="Dana")
    refused = client.get(address)
    assert (refused.status_code, "role" in refused.json()["error"]) == (403, True)
    assert client.get("/api/history/guess.csv").status_code == 404
    assert client.get(address.replace(".csv", ".jsonl")).status_code == 404
