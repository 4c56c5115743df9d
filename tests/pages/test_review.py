"""The Review page: what the component is told of a pair, the desk of the link, and the plain buttons."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest

from db import decisions, drafts, people
from db.service import Service
from db.store import rows
from pages._review import view
from pages._review.seat import SEAT, same_scope
from tests.pages import sample_stores
from tests.pages.conftest import RunPage

NOW = datetime(2026, 5, 4, 12, 0)


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


def test_people_are_named_as_they_are_called_not_by_their_e_mail() -> None:
    said = {"decision_id": 1, "reviewer": "ada@lab.example", "verdict": "accept", "decided_at": NOW, "note": None}
    event = {**said, "undone": False}
    names = {"ada@lab.example": "Ada L."}
    shown = view.pair_view(pair_row(history=[event], decision=said, flag=said), now=NOW, reasons={}, names=names)
    told = (shown["history"][0]["text"], shown["decision"]["text"], shown["flag"]["text"])
    assert all("Ada L." in one for one in told)
    assert "@" not in "".join(told)


def test_a_blind_view_holds_nothing_that_others_or_the_student_said() -> None:
    said = {"decision_id": 1, "reviewer": "Ben", "verdict": "reject", "decided_at": NOW, "note": None, "undone": False}
    shown = view.pair_view(pair_row(history=[said], decision=said, flag=said), now=NOW, reasons={}, blind=True)
    assert (shown["proposal"], shown["history"], shown["decision"], shown["flag"]) == (None, [], None, None)
    assert "Ben" not in json.dumps(shown)
    kept = view.shown({**pair_row(), "o_hash": "a", "c_hash": "b"}, blind=True)
    assert (kept["blind"], "proposal" in kept, kept["candidate_hash"]) == (True, False, "b")


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


# ---- the page ----


def test_the_seed_makes_another_queue_only_in_random_order() -> None:
    def seeded(seed: str, **more: str) -> dict[str, Any]:
        return {"kind": "filter", "params": {"seed": seed, **more}}

    assert same_scope(seeded("1"), seeded("2"))
    assert not same_scope(seeded("1", order="random"), seeded("2", order="random"))


def named(run_page: RunPage, **query: str) -> Any:
    app = run_page("review", **query)
    app.text_input[0].set_value("Dana")
    app.button[0].click()
    return app.run()


def ahead(app: Any) -> list[int]:
    """The pairs that the page gave its desk to begin with."""
    return [one["pair_id"] for one in app.session_state[SEAT].first["pairs"]]


def test_an_empty_store_says_what_to_do_first(empty_home: Service, run_page: RunPage) -> None:
    app = run_page("review")
    assert "no pairs to review yet" in app.markdown[0].value
    assert "Who is reviewing" not in str([one.value for one in app.markdown])


def test_the_name_is_asked_once_and_the_desk_comes(half_scored_home: Service, run_page: RunPage) -> None:
    app = run_page("review")
    app.button[0].click().run()
    assert "Write a name first" in app.error[0].value
    app.text_input[0].set_value("  Dana   Scully ")
    app.button[0].click()
    app.run()
    assert not app.exception
    assert app.session_state[SEAT].identity == "Dana Scully"
    assert len(ahead(app)) == 6


def test_the_filter_of_the_url_makes_the_queue_and_a_changed_widget_the_url(
    half_scored_home: Service, run_page: RunPage
) -> None:
    app = named(run_page, state="decided", order="oldest first")
    assert app.session_state[SEAT].named["params"] == {"state": "decided", "order": "oldest first"}
    assert len(ahead(app)) == 4
    app.selectbox(key="review_filter_state").set_value("flagged").run()
    assert not app.exception
    assert app.query_params["state"] == "flagged"
    assert len(ahead(app)) == 1
    app.selectbox(key="review_filter_state").set_value("skipped").run()
    app.text_input(key="review_filter_text").set_value("no row says this").run()
    assert ahead(app) == []
    reset = next(button for button in app.button if button.key == "review_reset_end")
    reset.click().run()
    assert app.session_state[SEAT].named["params"] == {}


def test_a_broken_link_shows_the_default_queue_and_says_so(half_scored_home: Service, run_page: RunPage) -> None:
    app = named(run_page, state="nonsense")
    assert app.session_state[SEAT].named["params"] == {}


def test_a_link_to_one_pair_puts_it_on_top_once(half_scored_home: Service, run_page: RunPage) -> None:
    app = named(run_page, pair="2")
    assert ahead(app)[0] == 2
    assert len(set(ahead(app))) == len(ahead(app)) == 7
    assert "pair" not in app.query_params
    app.query_params["pair"] = "999999"
    app.run()
    assert "not in the store" in app.warning[0].value


def test_a_failed_job_changes_nothing_here(failed_job_home: Service, run_page: RunPage) -> None:
    app = named(run_page)
    assert not app.error
    assert ahead(app)


def test_a_viewer_is_told_why_there_is_no_desk(half_scored_home: Service, run_page: RunPage) -> None:
    people.grant(half_scored_home.store, "Boss", "admin", "Boss")
    people.grant(half_scored_home.store, "Dana", "viewer", "Boss")
    app = named(run_page)
    assert SEAT not in app.session_state
    assert "reviewer" in app.info[0].value


def test_links_to_campaigns_that_are_not_there_say_so_with_a_way_on(
    half_scored_home: Service, run_page: RunPage
) -> None:
    for parameter in ("campaign", "adjudicate", "second_look"):
        app = named(run_page, **{parameter: "77"})
        assert "campaign" in app.error[0].value
        assert SEAT not in app.session_state
    assert "No model 77" in named(run_page, spot_check="77").error[0].value


# ---- the plain desk ----


def plain(run_page: RunPage, **query: str) -> Any:
    return named(run_page, plain="1", **{"order": "oldest first", **query})


def click(app: Any, key: str) -> Any:
    return next(button for button in app.button if button.key == key).click().run()


def shown(app: Any) -> int:
    return int(app.session_state["review_plain"].views[0]["pair_id"])


def stored(service: Service) -> list[tuple[int, str]]:
    with service.store.read() as connection:
        found = rows(connection, "select * from decisions where reviewer = 'Dana' order by decision_id")
    return [(row["pair_id"], row["verdict"]) for row in found]


def test_plain_buttons_store_before_the_next_pair_comes_and_undo_brings_it_back(
    half_scored_home: Service, run_page: RunPage
) -> None:
    app = plain(run_page)
    made = []
    for verdict in ("accept", "reject", "skip"):
        made.append((shown(app), verdict))
        click(app, f"review_plain-{verdict}-{shown(app)}")
        assert stored(half_scored_home) == made
    click(app, f"review_plain-undo-{shown(app)}")
    assert shown(app) == made[-1][0]
    click(app, f"review_plain-back-{shown(app)}")
    assert shown(app) == made[1][0]
    click(app, f"review_plain-forward-{shown(app)}")
    assert shown(app) == made[-1][0]
    assert not app.exception


def test_a_plain_edit_keeps_its_draft_and_an_empty_one_is_refused_with_the_text(
    half_scored_home: Service, run_page: RunPage
) -> None:
    app, store = plain(run_page), half_scored_home.store
    pair_id = shown(app)
    click(app, f"review_plain-edit-{pair_id}")
    app.text_area(key=f"review_plain_edit-{pair_id}-instruction").set_value("  ").run()
    click(app, f"review_plain-save-{pair_id}")
    assert "instruction is empty" in app.error[0].value
    assert drafts.drafts(store, "Dana", [pair_id])[pair_id]["texts"]["instruction"] == "  "
    app.text_area(key=f"review_plain_edit-{pair_id}-instruction").set_value("By hand.").run()
    click(app, f"review_plain-save-{pair_id}")
    assert stored(half_scored_home) == [(pair_id, "edit")]
    assert drafts.drafts(store, "Dana", [pair_id]) == {}
    assert shown(app) != pair_id


def test_the_plain_end_offers_the_skipped_and_what_somebody_decided_is_refused(
    half_scored_home: Service, run_page: RunPage
) -> None:
    app = plain(run_page)
    decisions.decide(half_scored_home.store, pair_id=shown(app), reviewer="Ben", verdict="reject")
    click(app, f"review_plain-accept-{shown(app)}")
    assert "Ben rejected" in app.error[0].value
    for _ in range(6):
        click(app, f"review_plain-skip-{shown(app)}")
    again = next(button for button in app.button if button.label == "Go through the 6 skipped")
    again.click().run()
    assert not app.exception
    assert len(stored(half_scored_home)) == 6
    assert shown(app)
