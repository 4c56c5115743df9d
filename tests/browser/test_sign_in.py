"""Three people sign in with a real provider, each in a browser of their own; names are kept where there is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from core import sign_in
from core.sign_in import OPEN, PROVIDER, Known
from db import people
from db.store import Store, rows
from tests.browser.conftest import PATIENCE_MS, ROOT, Server, free_port
from tests.browser.steps import wait_for
from tests.oidc_provider import provider, write_secrets
from tests.pages import sample_stores

pytestmark = pytest.mark.browser

ADA, GRACE, ALAN = "ada@lab.example", "grace@lab.example", "alan@lab.example"


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A home with pairs to review in which Alan is viewer already."""
    settings = sample_stores.settings_at(tmp_path / "home")
    store = Store(settings.store_path)
    try:
        sample_stores.fill_half_scored(store)
        people.grant(store, ALAN, "viewer", None, admins={ADA})
    finally:
        store.close()
    return settings.home


@contextmanager
def somebody(browser: Browser) -> Iterator[Page]:
    """A browser of one person: cookies of its own."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    yield page
    context.close()


def sign_in_as(page: Page, address: str, name: str) -> None:
    page.goto(address)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("link", name=name, exact=True).click()


def one_is(page: Page) -> Any:
    """The line at the foot of the sidebar."""
    return page.get_by_test_id("stSidebarUserContent").get_by_role("button").first


def signed_in(page: Page) -> bool:
    """Whether this browser holds the cookie of a sign-in."""
    return any(one["name"].startswith("_streamlit_user") for one in page.context.cookies())


def send(server: Server, token: str, **headers: str) -> tuple[int, dict[str, Any]]:
    """A decision sent straight to the server, without a page."""
    entry = {
        "n": 1, "action": "decide", "pair_id": 10, "verdict": "accept", "note": "", "seconds": 1.0, "edited": None,
        "seen": None, "undoes": None,
    }  # fmt: skip
    body = {
        "token": token, "desk": "a" * 32, "scope": {"kind": "filter", "params": {}}, "log": "b" * 32,
        "entries": [entry], "drafts": [], "on_screen": None, "holding": [], "want": 0, "again": None,
    }  # fmt: skip
    request = urllib.request.Request(
        f"{server.url}/api/review/sync", json.dumps(body).encode(), {"Content-Type": "application/json", **headers}
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def token_of(server: Server, identity: str, *, key: bytes | None = None, source: str = PROVIDER) -> str:
    """The token that a page gives this person, made from the installation's own key."""
    return sign_in.issue(
        Known(identity, identity, source), purpose="api", expires=time.time() + 60,
        key=key or sign_in.signing_key(server.home / "session.key"),
    )  # fmt: skip


def test_three_people_in_three_roles(filled: Path, serve: Callable[..., Server], browser: Browser) -> None:
    port = free_port()
    with provider() as running:
        path = write_secrets(filled / "secrets", running, f"http://127.0.0.1:{port}/oauth2callback")
        environment = {"STREAMLIT_SECRETS_FILES": str(path), "ASSAY_ADMINS": ADA}
        server = serve(filled, port=port, environment=environment)
        with somebody(browser) as ada, somebody(browser) as grace, somebody(browser) as alan:
            sign_in_as(grace, server.url, "Grace Hopper")
            expect(grace.get_by_text("You have no access yet")).to_be_visible()
            expect(grace.get_by_text(GRACE)).to_be_visible()

            sign_in_as(ada, f"{server.url}/people?person={GRACE}", "Ada Lovelace")  # and comes back to that page
            expect(one_is(ada)).to_contain_text("Ada Lovelace · admin")
            ada.get_by_role("radio", name="reviewer").first.click()
            ada.get_by_role("button", name="Make Grace Hopper reviewer").click()
            expect(ada.get_by_text("is reviewer now")).to_be_visible()
            grace.get_by_role("button", name="Look again").click()
            expect(one_is(grace)).to_contain_text("Grace Hopper · reviewer")

            sign_in_as(alan, f"{server.url}/load", "Alan Turing")
            expect(one_is(alan)).to_contain_text("Alan Turing · viewer")
            expect(alan.get_by_role("heading", name="Load")).to_be_visible()

            assert send(server, token_of(server, ALAN))[0] == 403
            assert send(server, token_of(server, GRACE, key=b"x" * 32))[0] == 401  # forged
            assert send(server, token_of(server, GRACE, source=sign_in.NAMES))[0] == 401  # of before the provider
            assert send(server, token_of(server, GRACE), Origin="https://evil.example")[0] == 403
            status, answer = send(server, token_of(server, GRACE))
            assert (status, answer["acked"]) == (200, 1), answer

            one_is(grace).click()
            grace.get_by_role("button", name="Log out").click()
            expect(grace.get_by_role("button", name="Sign in")).to_be_visible()
            wait_for(lambda: not signed_in(grace), what="the way out took the cookies")
            grace.goto(f"{server.url}/review")
            expect(grace.get_by_role("button", name="Sign in")).to_be_visible()
        with somebody(browser) as impostor:
            sign_in_as(impostor, server.url, "Ada Lovelace (says she)")
            expect(impostor.get_by_text("You have no access yet")).to_be_visible()
            expect(impostor.get_by_text(f"{running.url}|1004")).to_be_visible()
        server.kill()
    store = Store(server.home / "assay.duckdb")
    try:
        with store.read() as connection:
            decided = rows(connection, "select reviewer, pair_id from decisions where reviewer like '%@%'")
        assert decided == [{"reviewer": GRACE, "pair_id": 10}]
        assert {one["identity"]: one["role"] for one in people.people(store) if one["source"] == PROVIDER} == {
            ADA: None, GRACE: "reviewer", ALAN: "viewer", f"{running.url}|1004": None,
        }  # fmt: skip
    finally:
        store.close()


def test_a_name_is_asked_once_in_a_browser_and_no_other_host_is_answered(
    serve: Callable[..., Server], page: Page, tmp_path: Path
) -> None:
    port = free_port()
    server = serve(tmp_path / "home", port=port)
    page.goto(f"{server.url}/people")
    expect(one_is(page)).to_contain_text("No name given")
    one_is(page).click()
    page.get_by_label("Work under the name").fill("Ada *L*")
    page.get_by_label("Work under the name").press("Enter")
    expect(one_is(page)).to_contain_text("Ada *L* · admin")
    page.wait_for_function("document.cookie.includes('assay_name_')")
    page.reload()
    expect(one_is(page)).to_contain_text("Ada *L* · admin")
    server.kill()
    serve(server.home, port=port)
    page.goto(f"{server.url}/people")
    expect(one_is(page)).to_contain_text("Ada *L* · admin")
    cookie = next(one for one in page.context.cookies() if one["name"].startswith("assay_name_"))
    page.context.add_cookies([{**cookie, "value": cookie["value"][:-3] + "AAA"}])  # another name needs our signature
    page.reload()
    expect(one_is(page)).to_contain_text("No name given")

    rebound = urllib.request.Request(f"{server.url}/", headers={"Host": f"evil.example:{port}"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(rebound, timeout=20)
    assert refused.value.code == 403


def test_it_does_not_listen_to_other_machines_without_sign_in(tmp_path: Path) -> None:
    listen = ("--server.port", str(free_port()), "--server.address", "0.0.0.0")
    run = subprocess.run(
        [sys.executable, "-m", "streamlit", "run", "app.py", *listen],
        cwd=ROOT, env={**os.environ, "ASSAY_HOME": str(tmp_path / "home")}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert run.returncode != 0
    said = run.stdout + run.stderr
    assert "would listen at 0.0.0.0 without sign-in" in said
    assert f'ASSAY_OPEN="{OPEN}"' in said
    assert not (tmp_path / "home").exists()
