"""The main job as a person does it, in a real browser: load, score, reflect, review by keyboard, undo, export.

The exported file is compared with the decisions that stand in the store, worked out here anew in plain Python.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page

from core.filters import PairFilter
from db import review
from db.store import Store, rows
from tests.browser.conftest import Server
from tests.fake_teacher import FakeTeacher

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]  # a slow machine may take its time
SHARED_ROWS = Path(__file__).parents[3] / "shared" / "data" / "alpaca_random_9k.json"
ACCEPTED = {"accept", "edit", "new_instruction", "new_response"}
KEYS = "AXA1AXS2AAXAEAX1AA2X"  # 20 presses: accept, reject, edit, both mixes, skip


def _wait_for(condition: Callable[[], object], *, seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.5)
    raise AssertionError(f"not within {seconds} s: {what}")


def _jobs_done(page: Page, server: Server, n: int) -> bool:
    answer = page.request.get(f"{server.url}/api/health").json()
    assert not {"failed", "interrupted"} & set(answer["jobs"]), answer
    return answer["jobs"].get("done", 0) >= n and set(answer["jobs"]) == {"done"}


def _review(page: Page, server: Server, keys: str) -> list[tuple[int, str]]:
    """Decide ``len(keys)`` pairs by keyboard; returns (pair on screen, verdict) in the order of the presses."""
    page.goto(f"{server.url}/review")
    page.get_by_label("Your name").fill("Ada")
    page.get_by_role("button", name="Start reviewing").click()
    verdicts = {"A": "accept", "X": "reject", "1": "new_instruction", "2": "new_response", "S": "skip", "E": "edit"}
    made = []
    for key in keys:
        page.wait_for_selector('.desk[data-phase="ready"]')
        pair = page.get_attribute(".desk", "data-pair") or ""
        wanted = key
        if key in "12" and page.locator(".bar button", has_text="Old instruction").first.is_disabled():
            wanted = "A"  # only one of the two texts was rewritten: there is nothing to mix
        page.keyboard.press(wanted.lower())
        if wanted == "E":
            area = page.locator('textarea[name="output"]')
            area.fill(f"{area.input_value()}\n\n(edited for pair {pair})")
            page.keyboard.press("Control+Enter")
        page.wait_for_selector(f'.desk[data-phase="ready"]:not([data-pair="{pair}"])')
        made.append((int(pair), verdicts[wanted]))
    return made


def _undo(page: Page, times: int) -> None:
    for _ in range(times):
        page.wait_for_selector('.desk[data-phase="ready"]')
        before = page.get_attribute(".desk", "data-pair")
        page.keyboard.press("u")
        page.wait_for_selector(f'.desk[data-phase="ready"]:not([data-pair="{before}"])')


def _export(page: Page, server: Server, dataset: str, folder: Path) -> tuple[list[dict], dict]:
    page.goto(f"{server.url}/export?dataset={dataset}")
    page.get_by_role("textbox", name="Exported by").fill("Ada")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Export", exact=False).filter(has_text="rows as").click()
    found = []
    for name in ("Download the file", "Download the manifest"):
        with page.expect_download() as download:
            page.get_by_role("button", name=name).click()
        path = folder / download.value.suggested_filename
        download.value.save_as(path)
        found.append(json.loads(path.read_text(encoding="utf-8")))
    return found[0], found[1]


def _expected(store: Store, dataset_id: int) -> list[dict]:
    """The curated set from the raw decisions, in plain Python: undecided and rejected rows keep the original."""
    with store.read() as connection:
        decisions = rows(connection, "select * from decisions order by decision_id")
        pairs = {p["pair_id"]: p for p in rows(connection, "select * from pairs")}
        members = rows(connection, f"select * from members where dataset_id = {dataset_id} order by position")
        examples = {e["example_id"]: e for e in rows(connection, "select * from examples")}
    undone = {d["undoes"] for d in decisions}
    standing = {}
    for decision in decisions:
        if decision["decision_id"] not in undone and decision["verdict"] in ACCEPTED | {"reject"}:
            standing[decision["pair_id"]] = decision
    results: dict[int, tuple[tuple[bool, int], int]] = {}
    for pair_id, decision in standing.items():
        if decision["verdict"] in ACCEPTED and pairs[pair_id]["dataset_id"] == dataset_id:
            rank = (pairs[pair_id]["stage"] == "response", decision["decision_id"])
            original = pairs[pair_id]["original_id"]
            results[original] = max(results.get(original, (rank, decision["result_id"])), (rank, decision["result_id"]))
    chosen = [results.get(m["example_id"], (None, m["example_id"]))[1] for m in members]
    return [{name: examples[i][name] for name in ("instruction", "input", "output")} for i in chosen]


def _check(server: Server, made: list[tuple[int, str]], exported: list[dict], manifest: dict, dataset_id: int) -> None:
    """Kill the server as a crash would, and compare what is on the disk with what was pressed and exported."""
    server.kill()
    store = Store(server.home / "assay.duckdb")
    try:
        with store.read() as connection:
            stored = rows(
                connection, "select pair_id, verdict from decisions where undoes is null order by decision_id"
            )
            undoes = rows(connection, "select undoes from decisions where undoes is not null")
        assert [(row["pair_id"], row["verdict"]) for row in stored] == made
        assert len(undoes) == 2
        assert exported == _expected(store, dataset_id)
        assert len(review.queue(store, PairFilter(state="accepted"))) == sum(
            verdict in ACCEPTED for _, verdict in made[:-2]
        )
    finally:
        store.close()
    assert (manifest["n_rows"], manifest["created_by"]) == (len(exported), "Ada")


def _review_and_export(page: Page, server: Server, *, dataset_id: int, folder: Path) -> list[dict]:
    """20 pairs by keyboard, two undone, then the export, compared with the disk; the server is gone afterwards."""
    made = _review(page, server, KEYS)
    _undo(page, 2)
    exported, manifest = _export(page, server, str(dataset_id), folder)
    _check(server, made, exported, manifest, dataset_id=dataset_id)
    return exported


def test_the_sample_from_the_first_click_to_the_export(
    serve: Callable[..., Server], page: Page, tmp_path: Path
) -> None:
    server = serve()
    page.goto(server.url)
    page.get_by_role("button", name="Open the sample workspace").click()
    _wait_for(lambda: _jobs_done(page, server, 2), seconds=600, what="the sample is scored and reflected")
    assert len(_review_and_export(page, server, dataset_id=2, folder=tmp_path)) == 240


def test_the_same_walk_on_real_rows_with_a_teacher_over_http(
    serve: Callable[..., Server], page: Page, tmp_path: Path
) -> None:
    if not SHARED_ROWS.exists():
        pytest.skip("needs the real rows that lie beside the project")
    source = tmp_path / "alpaca_300.json"
    source.write_text(json.dumps(json.loads(SHARED_ROWS.read_text(encoding="utf-8"))[:300]), encoding="utf-8")
    with FakeTeacher() as teacher:
        server = serve()
        page.goto(f"{server.url}/load")
        page.locator('input[type="file"]').set_input_files(source)
        page.get_by_role("button", name="Import").click()
        page.get_by_text("300").first.wait_for()
        page.goto(f"{server.url}/score?dataset=1")
        page.get_by_role("button", name="Score 300 rows").click()
        _wait_for(lambda: _jobs_done(page, server, 1), seconds=600, what="300 rows are scored")
        page.goto(f"{server.url}/reflect?dataset=1")
        page.get_by_text("The lowest or highest by a score").click()
        page.get_by_role("spinbutton", name="Rows", exact=True).fill("40")
        page.keyboard.press("Enter")
        page.get_by_role("textbox", name="Base URL").fill(teacher.base_url)
        page.get_by_role("textbox", name="Model", exact=True).fill("fake")
        page.get_by_role("textbox", name="Environment variable with the key").fill("")
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Reflect on 40 rows").click()
        _wait_for(lambda: _jobs_done(page, server, 2), seconds=600, what="40 rows are reflected")
        assert len(_review_and_export(page, server, dataset_id=1, folder=tmp_path)) == 300
