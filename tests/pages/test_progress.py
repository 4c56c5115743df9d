"""The Team page and its figures: who decided what, when, and how that stands to the student's proposals."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from core.charts import review as charts
from db import decisions
from db.service import Service
from pages import _ui
from tests.pages import sample_stores
from tests.pages.conftest import RunPage

START = datetime(2026, 5, 4, 9, 0)


def bucket(minutes: float, verdict: str, n: int, reviewer: str = "Ada") -> dict[str, Any]:
    return {"bucket": START + timedelta(minutes=minutes), "reviewer": reviewer, "verdict": verdict, "n": n}


def test_bars_are_as_fine_as_fits_and_no_decision_is_lost() -> None:
    rows = [bucket(10 * i, "accept", 2, f"P{i % 3}") for i in range(30)] + [bucket(0, "reject", 5)]
    figure = charts.over_time(rows)
    assert charts.bucket_step([row["bucket"] for row in rows])[1] == "10 minutes"
    assert {bar.name: sum(bar.y) for bar in figure.data} == {"✓ accepted": 60, "✗ rejected": 5}


@pytest.mark.parametrize(
    ("days", "name"), [(0.4, "10 minutes"), (2, "hour"), (10, "6 hours"), (40, "day"), (400, "week")]
)
def test_longer_spans_get_wider_bars(days: float, name: str) -> None:
    rows = [bucket(0, "accept", 1), bucket(days * 24 * 60, "accept", 1)]
    assert charts.bucket_step([row["bucket"] for row in rows])[1] == name
    assert sum(charts.over_time(rows).data[0].y) == 2


def test_no_decision_gives_an_empty_figure() -> None:
    assert len(charts.over_time([]).data) == 0
    assert charts.agreement([]).share is None


def test_agreement_counts_by_hand() -> None:
    rows = [
        {"stage": "instruction", "proposal": "reflected", "verdict": "accept", "n": 5},
        {"stage": "instruction", "proposal": "reflected", "verdict": "edit", "n": 1},
        {"stage": "instruction", "proposal": "reflected", "verdict": "reject", "n": 2},
        {"stage": "response", "proposal": "original", "verdict": "reject", "n": 3},
        {"stage": "response", "proposal": "original", "verdict": "accept", "n": 4},
        {"stage": "response", "proposal": "leave out", "verdict": "reject", "n": 1},
        {"stage": "response", "proposal": "reflected", "verdict": "new_response", "n": 2},
    ]
    found = charts.agreement(rows)
    assert (found.n, found.agreed, found.partly) == (18, 10, 2)
    figure = charts.proposals(rows)
    for group in range(4):
        assert sum(bar.x[group] for bar in figure.data) == pytest.approx(100)
    assert sum(count[0] for bar in figure.data for count in bar.customdata) == 18


def test_a_hostile_name_is_text_in_a_chart() -> None:
    row = {"reviewer": '<a href="javascript:alert(1)">Eve</a>', "n_accept": 1, "n_edit": 0, "n_mixed": 0, "n_reject": 0}
    (bar,) = charts.by_reviewer([row]).data
    assert "<" not in bar.y[0]


# ---- the page ----


def test_an_empty_store_says_what_to_do_first(empty_home: Service, run_page: RunPage) -> None:
    app = run_page("progress")
    assert "no pairs yet" in app.markdown[0].value
    assert not app.metric


def test_pairs_without_a_decision_lead_to_the_review(empty_home: Service, run_page: RunPage) -> None:
    dataset_id = sample_stores.import_rows(empty_home.store, sample_stores.rows(), name="D")
    sample_stores.add_pairs(empty_home.store, dataset_id, 4)
    app = run_page("progress")
    assert (app.metric[0].value, app.metric[0].delta) == ("0", "of 4")
    assert "nobody has decided one yet" in app.markdown[0].value


def test_the_page_shows_the_team_and_follows_new_decisions(half_scored_home: Service, run_page: RunPage) -> None:
    app = run_page("progress")
    assert [metric.value for metric in app.metric] == ["4", "3", "1", "1", "50%"]
    table = app.dataframe[0].value
    assert dict(zip(table["reviewer"], table["n_decisions"], strict=True)) == {"Ada": 3, "Ben": 1}
    decisions.decide(half_scored_home.store, pair_id=9, reviewer="Chandra", verdict="accept")
    app.run()
    assert app.metric[0].value == "5"
    assert "Chandra" in list(app.dataframe[0].value["reviewer"])


def test_every_chart_comes_with_its_data(half_scored_home: Service, run_page: RunPage) -> None:
    app = run_page("progress")
    downloads = [one for one in app.get("download_button") if "Data of this chart" in one.proto.label]
    assert len(downloads) == 3
    assert _ui.csv_bytes([{"reviewer": "=cmd|x"}]).decode().splitlines()[1].startswith("'=")


def test_a_failed_job_changes_nothing_here(failed_job_home: Service, run_page: RunPage) -> None:
    decided = run_page("progress").metric[0]
    assert (decided.value, decided.delta) == ("4", "of 10")
