"""Fixtures for tests of pages: a running service over a real store in each state, and a page under AppTest.

``empty_home``        a service whose store is empty
``half_scored_home``  two datasets, the first half scored, with pairs and decisions (see sample_stores.py)
``failed_job_home``   the same, with a score job that failed after its first shard
``studied_home``      scored sources, evaluation sets and studies with results (see study_stores.py)
``run_page``          ``run_page("review", dataset="1")`` -> AppTest after its first run, with these URL parameters
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest

from db import service
from db.service import Service
from db.store import Store
from tests import prepared
from tests.pages import failed_job, sample_stores, study_stores

ENTRY = Path(__file__).parents[2] / "pages" / "_entry.py"
RunPage = Callable[..., AppTest]

# Each AppTest looks for components in what every installed package says of itself, which takes as long as a page.
manifest_scanner.scan_component_manifests = functools.cache(manifest_scanner.scan_component_manifests)


@contextmanager
def running(home: Path) -> Iterator[Service]:
    """The service of this process over ``home``; stopped at the end."""
    started = service.start(sample_stores.settings_at(home))
    assert started is not None, service.problem()
    try:
        yield started
    finally:
        service.stop()


@pytest.fixture
def empty_home(tmp_path: Path) -> Iterator[Service]:
    prepared.put(sample_stores.settings_at(tmp_path / "home").store_path, prepared.nothing)
    with running(tmp_path / "home") as started:
        yield started


@pytest.fixture
def half_scored_home(tmp_path: Path) -> Iterator[Service]:
    prepared.put(sample_stores.settings_at(tmp_path / "home").store_path, sample_stores.fill_half_scored)
    with running(tmp_path / "home") as started:
        yield started


@pytest.fixture
def studied_home(tmp_path: Path) -> Iterator[Service]:
    prepared.put(sample_stores.settings_at(tmp_path / "home").store_path, study_stores.fill)
    with running(tmp_path / "home") as started:
        yield started


@pytest.fixture
def failed_job_home(tmp_path: Path) -> Iterator[Service]:
    settings = sample_stores.settings_at(tmp_path / "home")
    dataset_id = prepared.put(settings.store_path, sample_stores.fill_half_scored)
    store = Store(settings.store_path)
    try:
        failed_job.add(store, settings.jobs_path, dataset_id=dataset_id)
    finally:
        store.close()
    with running(settings.home) as started:
        yield started


@pytest.fixture
def run_page() -> RunPage:
    def run(name: str, **query: str) -> AppTest:
        """``name`` is the file of the page without its ending; ``query`` are parameters of its URL."""
        app = AppTest.from_file(str(ENTRY), default_timeout=60)
        app.run()
        for key, value in query.items():
            app.query_params[key] = value
        if name != "home":
            app.switch_page(f"{name}.py").run()
        elif query:
            app.run()
        assert not app.exception, app.exception
        return app

    return run
