"""The Agreement page says what its figures show, with n, and never a number that cannot be computed."""

from __future__ import annotations

import itertools

import pytest
from streamlit.testing.v1 import AppTest

from db import campaigns, decisions, people
from db.service import Service
from tests.pages.conftest import ENTRY, RunPage

PRESSES = itertools.count()
HOSTILE = "Eve <img src=x onerror=alert(1)> **b**"
DISPUTED = (3, 4)


def decide(home: Service, pair_id: int, who: str, verdict: str, *, purpose: str = "review") -> None:
    entry = decisions.Entry(
        press=f"agreement-{next(PRESSES)}", action="decide", pair_id=pair_id, verdict=verdict, purpose=purpose,
        check_seen=False,
    )  # fmt: skip
    [done] = decisions.apply(home.store, [entry], reviewer=who)
    assert done.kind == "ok", done.text


@pytest.fixture
def reviewed(half_scored_home: Service) -> Service:
    """Pairs 1 to 6 decided by two people of a campaign; they disagree on 3 and 4, and 4 is adjudicated."""
    campaigns.create(
        half_scored_home.store, name="Both <b>", pair_ids=range(1, 7), people=["Ada", HOSTILE], overlap=2,
        guidelines="", gold={1: "accept"}, blind=True, created_by="Dana",
    )  # fmt: skip
    for pair_id in range(1, 7):
        first = "reject" if pair_id % 3 == 0 else "accept"
        other = {"reject": "accept", "accept": "reject"}[first] if pair_id in DISPUTED else first
        decide(half_scored_home, pair_id, "Ada", first)
        decide(half_scored_home, pair_id, HOSTILE, other)
    decide(half_scored_home, 4, "Dana", "accept", purpose="adjudication")
    return half_scored_home


def text_of(app: AppTest) -> str:
    return " ".join(one.value.replace("\\", "") for one in app.markdown)


def test_a_store_without_pairs_says_what_to_do(empty_home: Service, run_page: RunPage) -> None:
    app = run_page("agreement")
    assert "no pair yet" in app.markdown[0].value


def test_without_overlap_it_says_so_and_shows_no_figure(half_scored_home: Service, run_page: RunPage) -> None:
    app = run_page("agreement")
    assert "no agreement to measure" in text_of(app)
    assert "overlap of two or more" in text_of(app)
    assert not app.metric
    assert [one.value for one in app.subheader] == ["Each reviewer"]


def test_the_figures_of_a_campaign(reviewed: Service, run_page: RunPage) -> None:
    """Four of six agree; eight verdicts accept, four reject: D_e = 2*8*4/(12*11), D_o = 1/3."""
    app = run_page("agreement", campaign="1")
    alpha = 1 - (1 / 3) / (2 * 8 * 4 / (12 * 11))
    assert [metric.value for metric in app.metric] == ["6", "67%", f"{alpha:.2f}", "83%"]
    assert "on 4 of them (67%) all said the same" in text_of(app)
    assert "1 were adjudicated, 1 are open" in text_of(app)
    reviewers, disputed = app.dataframe[0].value, app.dataframe[1].value
    assert sorted(reviewers["Reviewer"]) == sorted(["Ada", HOSTILE])
    assert str(reviewers.set_index("Reviewer").loc["Ada", "Gold pairs right"]).startswith("100% of 1")
    assert list(disputed["Pair"]) == [3, 4]
    assert list(disputed["State"]) == ["open", "adjudicated: accept"]
    assert not any(one.proto.label.startswith("Adjudicate") for one in app.get("page_link"))  # decided outside of it
    assert (app.query_params["campaign"], app.query_params["by"]) == ("1", "stage")


def test_the_url_holds_what_is_shown(reviewed: Service, run_page: RunPage) -> None:
    app = run_page("agreement", campaign="1", by="category:category", coding="accept or reject", two="1")
    assert any(one.value == "By category" for one in app.subheader)
    assert app.selectbox[2].value == "category:category"
    assert app.selectbox[3].value == ("Ada", HOSTILE)
    app.selectbox[2].select("all").run()
    assert app.query_params["by"] == "all"
    assert not any(one.value.startswith("By ") for one in app.subheader)


def test_who_is_still_to_decide_blind_does_not_read_the_others_here(reviewed: Service, run_page: RunPage) -> None:
    people.see(reviewed.store, "Zoe", "Zoe", "name")
    people.grant(reviewed.store, "Zoe", "reviewer", by="Dana")
    app = AppTest.from_file(str(ENTRY), default_timeout=60)
    app.session_state["reviewer_name"] = "Zoe"
    app.run()
    app.switch_page("agreement.py").run()
    app.selectbox[0].select(1).run()
    assert not app.exception
    assert set(app.dataframe[1].value["By"]) == {"hidden while the campaign is blind"}
