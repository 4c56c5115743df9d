"""The Reflect page in each state of a store: nothing is submitted by looking, and a job holds no secret."""

from __future__ import annotations

import pytest

from core.filters import Category, RowFilter
from db import jobs, queries, sample
from db.service import Service
from tests.pages.conftest import RunPage


def _shown(page) -> str:
    kinds = ("markdown", "caption", "warning", "error", "success")
    return "\n".join(str(e.value) for kind in kinds for e in getattr(page, kind))


def test_an_empty_store_points_to_loading(empty_home: Service, run_page: RunPage) -> None:
    page = run_page("reflect")
    assert not page.exception
    assert "no dataset yet" in _shown(page)


def test_the_estimate_comes_before_the_job(half_scored_home: Service, run_page: RunPage) -> None:
    before = len(jobs.jobs(half_scored_home.store))
    page = run_page("reflect")
    assert not page.exception
    metrics = {m.label: m.value for m in page.metric}
    assert int(metrics["Teacher calls"]) == 2 * int(metrics["Rows"]) > 0
    assert metrics["Cost"] == "—"
    assert len(jobs.jobs(half_scored_home.store)) == before


def test_a_filter_from_explore_chooses_the_rows(half_scored_home: Service, run_page: RunPage) -> None:
    page = run_page("reflect", datasets="1", text="zzz-no-such-text")
    assert not page.exception
    assert {m.label: m.value for m in page.metric}["Rows"] == "0"


def test_an_unset_key_is_told_by_the_name_of_its_variable(
    half_scored_home: Service, run_page: RunPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    page = run_page("reflect")
    assert not page.exception
    assert "is not set where this server runs" in _shown(page)
    assert next(b for b in page.button if b.label.startswith("Reflect on")).disabled


def test_a_failed_job_does_not_break_the_page(failed_job_home: Service, run_page: RunPage) -> None:
    assert not run_page("reflect").exception


def test_the_recorded_teacher_is_asked_only_about_rows_that_it_knows(empty_home: Service, run_page: RunPage) -> None:
    empty_home.scheduler.stop()  # what is looked at is what was submitted, not what becomes of it
    dataset_id = sample.open_sample(empty_home)
    page = run_page("reflect", dataset=str(dataset_id))
    rows = int({m.label: m.value for m in page.metric}["Rows"])
    assert 120 <= rows < 240
    next(b for b in page.button if b.label == f"Reflect on {rows} rows").click().run()
    assert not page.exception
    latest = jobs.jobs(empty_home.store)[0]
    spec = empty_home.job_folder(latest["job_id"]).spec()
    assert (latest["kind"], spec.n_rows, spec.params["teacher"]) == ("reflect", rows, {"kind": "recorded"})
    empty_home.scheduler.start()


def test_a_key_in_the_place_of_its_variables_name_is_refused_and_not_shown(
    half_scored_home: Service, run_page: RunPage
) -> None:
    page = run_page("reflect")
    box = next(t for t in page.text_input if t.label == "Environment variable with the key")
    box.set_value("sk-live-1234567890abcdef").run()
    assert not page.exception
    assert any("never the key itself" in error.value for error in page.error)
    assert "sk-live" not in _shown(page)
    assert not [b for b in page.button if b.label.startswith("Reflect on")]


def test_every_part_of_a_filter_from_explore_counts(half_scored_home: Service, run_page: RunPage) -> None:
    """The page took over text and ranges alone: a link to one category of rows chose the whole dataset."""
    wanted = RowFilter(datasets=(1,), category=Category("category", ("kind 1",)), ids=(1, 2, 3, 4, 5, 6))
    n_rows = queries.count_rows(half_scored_home.store, wanted)
    page = run_page("reflect", **wanted.to_params())
    assert not page.exception
    assert int({m.label: m.value for m in page.metric}["Rows"]) == n_rows == 2
