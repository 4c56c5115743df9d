"""The first page in each state of a store."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.settings import Settings
from db import sample, service
from db.service import Service
from db.store import Store
from tests.pages.conftest import RunPage


def _text(page) -> str:
    return "\n".join(str(e.value) for kind in ("markdown", "caption", "title", "error") for e in getattr(page, kind))


def test_an_empty_store_offers_the_sample_and_loading(empty_home: Service, run_page: RunPage) -> None:
    page = run_page("home")
    assert not page.exception
    assert [b.label for b in page.button] == ["Open the sample workspace"]
    assert "No key, no GPU and no download" in _text(page)


def test_the_overview_counts_what_is_there(half_scored_home: Service, run_page: RunPage) -> None:
    page = run_page("home")
    assert not page.exception
    metrics = {m.label: m.value for m in page.metric}
    assert metrics["Datasets"] == "2"
    assert int(metrics["Pairs"]) > int(metrics["Decided"]) > 0
    assert "wait for a decision" in _text(page)


def test_a_failed_job_does_not_break_the_page(failed_job_home: Service, run_page: RunPage) -> None:
    assert not run_page("home").exception


def test_opening_the_sample_twice_repeats_nothing(empty_home: Service) -> None:
    empty_home.scheduler.stop()  # the jobs stay queued: what is looked at here is what was submitted
    first = sample.open_sample(empty_home)
    assert sample.open_sample(empty_home) == first
    jobs = sample.sample_jobs(empty_home, first)
    assert [job["kind"] for job in jobs] == ["score", "reflect"]
    folder = empty_home.job_folder(jobs[1]["job_id"])
    assert folder.input_table().num_rows >= 120
    empty_home.scheduler.start()


def test_a_store_that_cannot_be_opened_says_so_on_every_page(tmp_path: Path, run_page: RunPage) -> None:
    settings = Settings(home=tmp_path, data_roots=(tmp_path,))
    store = Store(settings.store_path)
    with store.write() as connection:
        connection.exec_driver_sql("insert into migrations values (99, 'later', '9.9.9', now()::timestamp)")
    store.close()
    assert service.start(settings) is None
    try:
        page = run_page("home")
        assert not page.exception
        assert any("9" in e.value and "newer version" in e.value for e in page.error)
    finally:
        service.stop()


@pytest.mark.parametrize("name", ["home", "reflect"])
def test_pages_say_so_when_no_service_runs(name: str, run_page: RunPage) -> None:
    service.stop()
    page = run_page(name)
    assert not page.exception
    assert any("starting" in e.value for e in page.error)
