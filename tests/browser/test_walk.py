"""The main job on real rows with a teacher over HTTP, in a real browser: load, score, reflect, review, undo, export.

The same on the sample, from its first click, is how the walk to a rule begins: test_study_walk.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page

from db.store import Store
from tests.browser import reviewed
from tests.browser.conftest import Server
from tests.browser.steps import jobs_done, wait_for
from tests.fake_teacher import FakeTeacher

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]  # a slow machine may take its time
SHARED_ROWS = Path(__file__).parents[3] / "shared" / "data" / "alpaca_random_9k.json"
N_ROWS, N_REFLECTED = 120, 24


def test_real_rows_from_a_file_to_the_export_with_a_teacher_over_http(
    serve: Callable[..., Server], page: Page, tmp_path: Path
) -> None:
    if not SHARED_ROWS.exists():
        pytest.skip("needs the real rows that lie beside the project")
    source = tmp_path / "alpaca.json"
    source.write_text(json.dumps(json.loads(SHARED_ROWS.read_text(encoding="utf-8"))[:N_ROWS]), encoding="utf-8")
    with FakeTeacher() as teacher:
        server = serve()
        page.goto(f"{server.url}/load")
        page.locator('input[type="file"]').set_input_files(source)
        page.get_by_role("button", name="Import").click()
        page.get_by_text(str(N_ROWS)).first.wait_for()
        page.goto(f"{server.url}/score?dataset=1")
        page.get_by_role("button", name=f"Score {N_ROWS} rows").click()
        wait_for(lambda: jobs_done(page, server, 1), what="the rows are scored")
        page.goto(f"{server.url}/reflect?dataset=1")
        page.get_by_text("The lowest or highest by a score").click()
        page.get_by_role("spinbutton", name="Rows", exact=True).fill(str(N_REFLECTED))
        page.keyboard.press("Enter")
        page.get_by_role("textbox", name="Base URL").fill(teacher.base_url)
        page.get_by_role("textbox", name="Model", exact=True).fill("fake")
        page.get_by_role("textbox", name="Environment variable with the key").fill("")
        page.keyboard.press("Enter")
        page.get_by_role("button", name=f"Reflect on {N_REFLECTED} rows").click()
        wait_for(lambda: jobs_done(page, server, 2), what="the lowest are reflected")
        found = reviewed.review_and_export(page, server, dataset_id=1, folder=tmp_path)
        server.kill()  # as a crash would
    store = Store(server.home / "assay.duckdb")
    try:
        reviewed.check(store, found)
    finally:
        store.close()
    assert len(found.exported) == N_ROWS
