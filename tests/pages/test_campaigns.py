"""The Campaigns page: a campaign made from a filter, followed, changed; and what a role or blindness hides."""

from __future__ import annotations

from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from core.campaign import Load, mixed, seconds_left
from core.charts import campaign as charts
from core.errors import SettingsError
from core.filters import PairFilter
from db import campaign_gold, campaigns, decisions, pair_lists, people
from db.campaigns import campaign as one_campaign
from db.service import Service
from tests.db.campaign_pairs import entry
from tests.pages.test_people import sit_down, words


def open_page(name: str = "Ada", **query: str) -> AppTest:
    app = sit_down(name).run()
    for key, value in query.items():
        app.query_params[key] = value
    app.switch_page("campaigns.py").run()
    assert not app.exception, app.exception
    return app


def undecided(service: Service) -> list[int]:
    with service.store.read() as connection:
        found = connection.exec_driver_sql(
            "select pair_id from pairs where pair_id not in (select pair_id from current_decisions) order by 1"
        ).all()
    return [int(row[0]) for row in found]


def make(service: Service, **more: Any) -> int:
    arguments: dict[str, Any] = {
        "name": "Pilot | <b>one</b>", "people": ["Ada", "Ben"], "overlap": 2, "guidelines": "Be <i>exact</i>",
        "pair_ids": undecided(service), **more,
    }  # fmt: skip
    return campaigns.create(service.store, **arguments)


def decide(service: Service, campaign_id: int, pair_id: int, who: str, verdict: str) -> None:
    service.leases.take(campaign_id, identity=who, session=who, want=1)
    said = service.leases.apply(campaign_id, [entry(f"{who}-{pair_id}", pair_id, verdict)], identity=who, session=who)
    assert said[0].kind == "ok", said


def test_a_campaign_is_made_from_a_filter_and_opens(half_scored_home: Service) -> None:
    app = open_page(new="1", stages="instruction")
    assert "nobody is named yet" in words(app)
    app.button(key="campaign-new-start").click().run()
    assert campaigns.campaigns(half_scored_home.store) == []
    app.text_input(key="campaign-new-name").set_value("Week 12")
    app.multiselect(key="campaign-new-people").set_value(["Ada", "Ben"])
    app.text_area(key="campaign-new-guidelines").set_value("Prefer the exact one.")
    app.number_input(key="campaign-new-gold").set_value(1)
    app.run()
    before, said = set(undecided(half_scored_home)), words(app)
    assert "2 people, about" in said, said
    assert "1 of the pairs gold" in said, said
    app.button(key="campaign-new-start").click().run()
    assert not app.exception, app.exception
    (made,) = campaigns.campaigns(half_scored_home.store)
    assert (made.name, made.overlap, made.people, made.created_by) == ("Week 12", 2, ("Ada", "Ben"), "Ada")
    assert (made.guidelines, made.n_gold, made.settings.blind) == ("Prefer the exact one.", 1, True)
    inside = set(campaigns.pair_ids(half_scored_home.store, made.campaign_id))
    assert len(inside - before) == 1, "the gold pair was decided before, and nothing else was"
    assert 0 < len(inside & before) < len(before), "instructions only"
    assert str(made.campaign_id) in app.query_params["campaign"]
    assert "Week 12" in words(app) + "".join(one.value for one in app.subheader)


def test_gold_by_hand_that_cannot_be_read_is_said_and_nothing_is_made(half_scored_home: Service) -> None:
    app = open_page(new="1")
    app.text_input(key="campaign-new-gold-text").set_value("12 perhaps").run()
    assert "is no gold pair" in words(app)
    app.text_input(key="campaign-new-gold-text").set_value("999999 accept").run()
    assert "There is no pair 999999" in words(app)
    assert campaign_gold.by_hand("12 accept, 40: new response\n7 = reject") == {
        12: "accept", 40: "new_response", 7: "reject",
    }  # fmt: skip
    with pytest.raises(SettingsError, match="'x' is no gold pair"):
        campaign_gold.by_hand("x")


def test_one_campaign_says_how_far_it_is_and_links_to_what_is_to_do(half_scored_home: Service) -> None:
    campaign_id = make(half_scored_home)
    first, second = undecided(half_scored_home)[:2]
    for pair_id, verdict in ((first, "reject"), (second, "accept")):
        decide(half_scored_home, campaign_id, pair_id, "Ada", "accept")
        decide(half_scored_home, campaign_id, pair_id, "Ben", verdict)
    n = len(undecided(half_scored_home)) + 1  # the second is decided now
    app = open_page(campaign=str(campaign_id))
    metrics = {one.label: one.value for one in app.metric}
    assert metrics["Decisions"] == f"4 of {2 * n}"
    assert metrics["Pairs settled"] == f"1 of {n}"
    shown = [frame.value for frame in app.dataframe]
    assert list(shown[0]["person"]) == ["Ada (you)", "Ben"]
    assert list(shown[-1]["pair"]) == [first]
    assert sum("adjudicate=" in one.proto.query_string for one in app.get("page_link")) == 1
    assert "Adjudicate 1 pair" in [one.proto.label for one in app.get("page_link")]


def test_what_is_blind_is_not_sent_to_who_reviews(half_scored_home: Service) -> None:
    people.grant(half_scored_home.store, "Ben", "reviewer", None)
    ids = undecided(half_scored_home)
    campaign_id = make(half_scored_home, gold={ids[0]: "reject"})
    decide(half_scored_home, campaign_id, ids[0], "Ada", "accept")
    shown = open_page("Ben", campaign=str(campaign_id), show="all").dataframe
    assert not {"gold", "stands"} & set(shown[-1].value.columns)
    assert shown[0].value.get("gold right") is None
    assert {"gold", "stands"} <= set(
        open_page("Ada", campaign=str(campaign_id), show="all").dataframe[-1].value.columns
    )


def test_pause_people_guidelines_and_further_pairs(half_scored_home: Service) -> None:
    store = half_scored_home.store
    ids = undecided(half_scored_home)
    campaign_id = make(half_scored_home, pair_ids=ids[:2])
    pair_lists.create(store, ids, name="more", created_by="Ada")
    key = f"campaign-{campaign_id}"
    app = open_page(campaign=str(campaign_id))
    app.button(key=f"{key}-Pause").click().run()
    assert one_campaign(store, campaign_id).state == "paused"
    app.button(key=f"{key}-Go on").click().run()
    app.text_area(key=f"campaign-guidelines-{campaign_id}-1").set_value("New words")
    app.button(key=f"campaign-guidelines-{campaign_id}-1-save").click().run()
    app.multiselect(key=f"campaign-people-{campaign_id}-Ada-Ben").set_value(["Ada", "Cy"]).run()
    app.button(key=f"campaign-people-{campaign_id}-Ada-Ben-save").click().run()
    app.button(key=f"campaign-add-{campaign_id}-do").click().run()
    assert not app.exception, app.exception
    now = one_campaign(store, campaign_id)
    assert (now.state, now.guidelines, now.people, now.n_pairs) == ("open", "New words", ("Ada", "Cy"), len(ids))


def test_settings_are_changed_and_told_by_the_names_of_people(half_scored_home: Service) -> None:
    store = half_scored_home.store
    for identity in ("g@a.example", "g@b.example"):
        people.see(store, identity, "Grace", "names")
    campaign_id = make(half_scored_home)
    key = f"campaign-settings-{campaign_id}"
    app = open_page(campaign=str(campaign_id))
    assert app.button(key=f"{key}-0-save").disabled, "nothing differs yet"
    app.multiselect(key=f"{key}-0-adjudicators").set_value(["g@a.example"])
    app.number_input(key=f"{key}-0-second").set_value(10).run()
    app.button(key=f"{key}-0-save").click().run()
    assert not app.exception, app.exception
    settings = one_campaign(store, campaign_id).settings
    assert (settings.adjudicators, settings.second_look_share, settings.lease_seconds) == (("g@a.example",), 0.1, 90)
    app.session_state[f"campaign-changes-{campaign_id}"] = True
    app.run()
    changes = next(frame.value for frame in app.dataframe if "what" in frame.value)
    assert changes["what"].iloc[0] == "adjudicators: none → Grace · g@a.example; second looks: 0 % → 10 %"
    assert changes["by"].iloc[0] == "Ada"
    people.grant(store, "Rita", "reviewer", None)
    event_id = campaigns.events(store, campaign_id)[0]["event_id"]
    assert open_page("Rita", campaign=str(campaign_id)).multiselect(key=f"{key}-{event_id}-adjudicators").disabled


def test_a_reviewer_can_change_nothing_even_by_a_button_that_is_off(half_scored_home: Service) -> None:
    people.grant(half_scored_home.store, "Rita", "reviewer", None)
    campaign_id = make(half_scored_home)
    app = open_page("Rita", campaign=str(campaign_id))
    for label in ("Pause", "Close"):
        button = app.button(key=f"campaign-{campaign_id}-{label}")
        assert button.disabled
        button.proto.disabled = False
        button.click().run()
    assert one_campaign(half_scored_home.store, campaign_id).state == "open"
    gone = open_page("Rita", campaign="77")
    assert "no campaign 77" in words(gone)
    gone.query_params.clear()
    assert gone.run().button(key="campaign-new").disabled


# --- pure parts ---


def test_the_load_of_a_campaign_by_hand() -> None:
    load = Load(60, 2, 4)
    assert (load.n_decisions, load.each, load.seconds_each(50.0)) == (120, 30, 1500.0)
    assert (Load(7, 1, 2).each, Load(7, 1, 0).each, Load(7, 1, 0).seconds_each(5.0)) == (4, None, None)
    assert [seconds_left(n_left=n, n_recent=r, window_seconds=600) for n, r in ((30, 10), (30, 0), (0, 0))] == [
        1800.0, None, 0.0,
    ]  # fmt: skip


def test_gold_is_strewn_in_and_the_order_of_the_others_stays() -> None:
    order = mixed([1, 2, 3, 4], [3, 9, 8, 9], seed=5)
    assert sorted(order) == [1, 2, 3, 4, 8, 9]
    assert [one for one in order if one < 5] == [1, 2, 3, 4]
    assert order == mixed([1, 2, 3, 4], [3, 9, 8, 9], seed=5)


def test_gold_takes_the_surest_decisions_first(half_scored_home: Service) -> None:
    store = half_scored_home.store
    ids = undecided(half_scored_home)
    for who in ("Ada", "Ben"):
        decisions.decide(store, pair_id=ids[0], reviewer=who, verdict="reject")
    ruling = entry("rule", ids[1], "accept", purpose="adjudication")
    decisions.apply(store, [ruling], reviewer="Root")
    found = campaign_gold.from_decided(store, PairFilter(), n=3)
    assert list(found.items())[:2] == [(ids[1], "accept"), (ids[0], "reject")]
    assert len(found) == 3


def test_figures_count_every_pair_once() -> None:
    counts = charts.state_counts({"agreed": 3, "disputed": 2, "waiting": 5}, {0: 1, 1: 4}, overlap=2)
    assert [(row["state"], row["n"]) for row in counts if row["n"]] == [
        ("✓ agreed", 3), ("≠ disputed", 2), ("1 of 2", 4), ("not begun", 1),
    ]  # fmt: skip
    figure = charts.states_figure(counts)
    assert sum(trace.x[0] for trace in figure.data) == 10
    assert [trace.name for trace in figure.data][2] == "1 of 2: 4"
    assert figure.layout.showlegend, "one state alone is named too"


def test_the_state_says_what_is_left_to_do(half_scored_home: Service) -> None:
    first = undecided(half_scored_home)[0]
    disputed = make(half_scored_home, pair_ids=[first])
    for who, verdict in (("Ada", "accept"), ("Ben", "reject")):
        decide(half_scored_home, disputed, first, who, verdict)
    app = open_page(campaign=str(disputed))
    assert app.metric[0].value == "≠ to settle", "all decisions are in, but they differ"
    campaigns.close(half_scored_home.store, disputed)
    assert "Review my part" not in [one.proto.label for one in app.run().get("page_link")]
