"""Every page, on a store in every state, runs without an error and says something."""

from __future__ import annotations

import pytest

from tests.pages.conftest import ENTRY, RunPage

PAGES = sorted(path.stem for path in ENTRY.parent.glob("*.py") if not path.stem.startswith("_"))


def test_the_navigation_holds_every_page_file() -> None:
    entry = ENTRY.read_text(encoding="utf-8")
    assert len(PAGES) >= 10
    assert [name for name in PAGES if f'"{name}.py"' not in entry] == []


@pytest.mark.parametrize("state", ["empty_home", "half_scored_home", "failed_job_home", "studied_home"])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_runs_in_every_state_of_the_store(
    name: str, state: str, run_page: RunPage, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue(state)
    page = run_page(name)
    assert not page.exception
    assert [title.value for title in page.title] != []
    shows_failure = (name, state) == ("jobs", "failed_job_home")  # the failed job's own message, and nothing else
    assert bool(page.error) == shows_failure, [error.value for error in page.error]
