"""The main job as a person does it, in a real browser: review by keyboard, undo, export; and what must stand then.

The exported file is compared with the decisions that stand in the store, worked out here anew in plain Python.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

from core.filters import PairFilter
from db import pair_queue
from db.store import Store, rows
from tests.browser.conftest import Server
from tests.browser.review_keys import READY, SAVED, press, shown, sit_down

ACCEPTED = {"accept", "edit", "new_instruction", "new_response"}
KEYS = "AXA1AXS2AAXAEAX1AA2X"  # 20 presses: accept, reject, edit, both mixes, skip
N_UNDONE = 2


@dataclass(frozen=True)
class Reviewed:
    """The pairs that were on screen with their verdicts, in the order of the presses, and what was downloaded."""

    dataset_id: int
    made: list[tuple[int, str]]
    exported: list[dict[str, Any]]
    manifest: dict[str, Any]


def review_and_export(page: Page, server: Server, *, dataset_id: int, folder: Path) -> Reviewed:
    """20 pairs by keyboard, two of them undone, then the export of a dataset."""
    made = _review(page, server, KEYS)
    _undo(page, N_UNDONE)
    exported, manifest = _export(page, server, str(dataset_id), folder)
    return Reviewed(dataset_id, made, exported, manifest)


def check(store: Store, reviewed: Reviewed) -> None:
    """What is on the disk is what was pressed and exported."""
    with store.read() as connection:
        stored = rows(connection, "select pair_id, verdict from decisions where undoes is null order by decision_id")
        undoes = rows(connection, "select undoes from decisions where undoes is not null")
    assert [(row["pair_id"], row["verdict"]) for row in stored] == reviewed.made
    assert len(undoes) == N_UNDONE
    assert reviewed.exported == _expected(store, reviewed.dataset_id)
    n_accepted = sum(verdict in ACCEPTED for _, verdict in reviewed.made[:-N_UNDONE])
    assert len(pair_queue.queue(store, PairFilter(state="accepted"))) == n_accepted
    assert (reviewed.manifest["n_rows"], reviewed.manifest["created_by"]) == (len(reviewed.exported), "Ada")


def _review(page: Page, server: Server, keys: str) -> list[tuple[int, str]]:
    """Decide ``len(keys)`` pairs by keyboard; returns (pair on screen, verdict) in the order of the presses."""
    sit_down(page, server, name="Ada")
    verdicts = {"A": "accept", "X": "reject", "1": "new_instruction", "2": "new_response", "S": "skip", "E": "edit"}
    made = []
    for key in keys:
        pair = shown(page)
        wanted = key
        if key in "12" and page.locator(".bar button", has_text="Old instruction").first.is_disabled():
            wanted = "A"  # only one of the two texts was rewritten: there is nothing to mix
        page.keyboard.press(wanted.lower())
        if wanted == "E":
            area = page.locator('textarea[name="output"]')
            area.fill(f"{area.input_value()}\n\n(edited for pair {pair})")
            page.keyboard.press("Control+Enter")
        page.wait_for_selector(f'{READY}:not([data-pair="{pair}"])')
        made.append((pair, verdicts[wanted]))
    page.wait_for_selector(SAVED)
    return made


def _undo(page: Page, times: int) -> None:
    for _ in range(times):
        press(page, "u")
    page.wait_for_selector(SAVED)


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
