"""A server that dies takes no job and no decision with it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page

from db.store import Store, rows
from tests.browser.conftest import Server
from tests.browser.steps import wait_for

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]  # a slow machine may take its time
N_ROWS = 200


def test_a_job_goes_on_when_the_server_is_killed_and_the_next_one_takes_it_up(
    serve: Callable[..., Server], page: Page, tmp_path: Path
) -> None:
    source = tmp_path / "rows.json"
    examples = [{"instruction": f"Say {i}", "input": "", "output": f"word {i} " * 40} for i in range(N_ROWS)]
    source.write_text(json.dumps(examples), encoding="utf-8")
    server = serve()
    page.goto(f"{server.url}/load")
    page.locator('input[type="file"]').set_input_files(source)
    page.get_by_role("button", name="Import").click()
    page.get_by_text("imported", exact=False).first.wait_for()
    page.goto(f"{server.url}/score?dataset=1")
    page.get_by_role("button", name=f"Score {N_ROWS} rows").click()
    jobs = server.home / "jobs"
    wait_for(lambda: any("started" in p.read_text() for p in jobs.glob("2*/events.jsonl")), seconds=60, what="start")
    server.kill()
    (events,) = jobs.glob("2*/events.jsonl")
    wait_for(lambda: '"done"' in events.read_text(), seconds=300, what="the orphan finished")
    again = serve(server.home)

    def collected() -> bool:
        answer = page.request.get(f"{again.url}/api/health").json()
        return answer["jobs"] == {"done": 1}

    wait_for(collected, seconds=60, what="the new server took it up")
    time.sleep(3)  # the shards are collected in the ticks that follow
    page.goto(f"{again.url}/jobs")
    page.get_by_text(f"{N_ROWS} of {N_ROWS}").first.wait_for()
    again.kill()
    store = Store(server.home / "assay.duckdb")
    try:
        with store.read() as connection:
            counts = rows(
                connection,
                """select s.output, count(c.value) n from scores c join scorers s using (scorer_id)
                where s.output in ('ifd', 'mtld') group by s.output order by s.output""",
            )
    finally:
        store.close()
    assert counts == [{"output": "ifd", "n": N_ROWS}, {"output": "mtld", "n": N_ROWS}]
