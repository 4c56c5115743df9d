"""Rows are data: whatever their text holds, the browser neither runs nor fetches it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.browser.conftest import Server

pytestmark = pytest.mark.browser
LEAK = "http://127.0.0.1:9/leak.png"
HOSTILE = [
    "<script>window.pwned = 1</script>",
    "<img src=x onerror='window.pwned = 1'>",
    f"![picture]({LEAK}) [link](javascript:window.pwned=1)",
    f"<iframe src='{LEAK}'></iframe><svg onload='window.pwned=1'>",
    "=cmd|' /C calc'!A0",
    "$$\\href{javascript:window.pwned=1}{x}$$ :material/home: **bold**",
]


def test_no_page_runs_or_fetches_what_a_row_says(serve: Callable[..., Server], page: Page, tmp_path: Path) -> None:
    source = tmp_path / "<b>hostile & ![x](http://127.0.0.1:9/n.png)>.json".replace("/", "_")
    rows = [
        {"instruction": f"{i} {text}", "input": text, "output": text, text[:20]: text} for i, text in enumerate(HOSTILE)
    ]
    source.write_text(json.dumps(rows), encoding="utf-8")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    server = serve()
    page.goto(f"{server.url}/load")
    page.locator('input[type="file"]').set_input_files(source)
    page.get_by_role("button", name="Import").wait_for()
    page.wait_for_timeout(1500)
    page.get_by_label("Name", exact=False).first.fill("<img src=x onerror='window.pwned=1'> & **name**")
    page.keyboard.press("Tab")
    page.wait_for_timeout(1000)
    page.get_by_role("button", name="Import").click()
    page.get_by_text("imported", exact=False).first.wait_for()
    for path in (
        "",
        "load",
        "explore?dataset=1",
        "explore?row=1",
        "score",
        "distributions",
        "reflect",
        "export",
        "jobs",
    ):
        page.goto(f"{server.url}/{path}")
        page.wait_for_timeout(2500)
        assert page.evaluate("window.pwned") is None, path
        assert page.locator("img[src='x'], iframe[src*='127.0.0.1:9']").count() == 0, path
    assert not [url for url in asked if "127.0.0.1:9/" in url]
