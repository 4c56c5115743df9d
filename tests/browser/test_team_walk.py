"""A team at work, from sign-in to report: three people sign in with a real provider, each in a browser of their own.

An admin gives roles and makes a campaign of 60 pairs with an overlap of two; all three decide at the same time while
the server is killed once; they differ, the admin rules, a bulk decision is made and taken back, a vote is held, the
report and the curated set are taken home. What is on the disk in the end is looked up in plain SQL.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import PATIENCE_MS, free_port, start_server
from tests.browser.review_keys import READY, SAVED, VERDICTS, press, shown
from tests.browser.steps import PICTURES, picture, rest, text
from tests.browser.team import N_OTHERS, N_PAIRS, Team, alpha_of, fill, kappa_of, standing
from tests.browser.test_sign_in import ADA, ALAN, GRACE, one_is, send, sign_in_as, token_of
from tests.oidc_provider import provider, write_secrets

pytestmark = pytest.mark.browser
OVERLAP = 2
GOLD = {1: "accept", 2: "accept", 8: "reject"}
NAMES = {ADA: "Ada Lovelace", GRACE: "Grace Hopper", ALAN: "Alan Turing"}


@pytest.fixture
def team(browser: Browser, tmp_path: Path) -> Iterator[Team]:
    home, port = tmp_path / "home", free_port()
    fill(home)
    with ExitStack() as stack:
        running = stack.enter_context(provider())
        path = write_secrets(tmp_path / "secrets", running, f"http://127.0.0.1:{port}/oauth2callback")
        environment = {"STREAMLIT_SECRETS_FILES": str(path), "ASSAY_ADMINS": ADA}
        server = start_server(home, port=port, environment=environment)
        stack.callback(server.end)
        made = Team(server, environment, {})
        for identity in NAMES:
            context = browser.new_context(viewport={"width": 1440, "height": 1000}, accept_downloads=True)
            stack.callback(context.close)
            page = made.pages[identity] = context.new_page()
            page.set_default_timeout(PATIENCE_MS)
            page.on("dialog", made.hear)
        yield made
        assert made.dialogs == []  # no text ran, and nothing was left unsaved by who went to another page


def test_a_team_from_sign_in_to_report(team: Team, browser: Browser, tmp_path: Path) -> None:
    _roles(team)
    _campaign(team)
    _review(team)
    disputed = _agreement(team)
    _adjudicate(team, disputed)
    _bulk(team)
    _history(team, disputed)
    _vote(team)
    _report(team, browser, tmp_path)
    _export(team)
    _on_disk(team)


# ---- who may what ----


def _roles(team: Team) -> None:
    """Everybody signs in; the admin gives roles; what a role does not allow is refused by the server too."""
    ada, grace, alan = team.pages.values()
    sign_in_as(ada, team.server.url, NAMES[ADA])
    expect(one_is(ada)).to_contain_text("Ada Lovelace · admin")
    for page, identity in ((grace, GRACE), (alan, ALAN)):
        sign_in_as(page, team.server.url, NAMES[identity])
        expect(page.get_by_text("You have no access yet")).to_be_visible()
    picture(grace, "1-waiting")
    for identity, role in ((GRACE, "reviewer"), (ALAN, "viewer")):
        _give(ada, team, identity, role)
    picture(ada, "2-people")
    alan.goto(f"{team.server.url}/review")
    expect(alan.get_by_text("This needs the role reviewer.")).to_be_visible()
    assert send(team.server, token_of(team.server, ALAN))[0] == 403
    picture(alan, "3-viewer")
    _give(ada, team, ALAN, "reviewer")


def _give(ada: Page, team: Team, identity: str, role: str) -> None:
    if identity not in unquote(ada.url):
        team.go(ADA, f"people?person={identity}")
    ada.get_by_role("radio", name=role, exact=True).first.click()
    ada.get_by_role("button", name=f"Make {NAMES[identity]} {role}").click()
    expect(ada.get_by_text(f"is {role} now.")).to_be_visible()


# ---- the campaign ----


def _campaign(team: Team) -> None:
    """60 pairs, overlap 2, three gold pairs, guidelines: by the admin. A reviewer cannot."""
    grace = team.go(GRACE, "campaigns")
    expect(grace.get_by_role("button", name="Start a campaign")).to_be_disabled()
    ada = team.go(ADA, "campaigns?new=1&datasets=1&order=oldest+first")
    ada.get_by_label("Name").fill("Pilot, *week* 12")
    people = ada.get_by_role("combobox", name="People")
    for identity in NAMES:
        people.fill(identity)
        people.press("Enter")
        rest(ada)
    ada.get_by_label("Guidelines").fill("# What is better?\n\n- **Exact** before long.\n- Edit what is nearly right.")
    text(ada, "Gold pairs by hand", ", ".join(f"{pair} {verdict}" for pair, verdict in GOLD.items()))
    ada.get_by_text("Blind review, order, adjudicators").click()
    ada.get_by_text("Adjudicators may rule on disputes in which they have a word").click()
    expect(ada.get_by_text("60 pairs × 2 = 120 decisions")).to_be_visible()
    expect(ada.get_by_text("3 of the pairs gold")).to_be_visible()
    picture(ada, "4-new-campaign")
    ada.get_by_role("button", name="Start the campaign").click()
    ada.wait_for_url(re.compile(r"campaign=1"))
    expect(ada.get_by_text("0 of 120")).to_be_visible()


# ---- three people at their desks ----


def _verdict(identity: str, pair: int) -> str:
    """What each thinks of a pair: all the same of most of them."""
    differs = {ADA: (), GRACE: (7, 14, 21, 28, 35, 42, 49), ALAN: (12, 24, 36, 44, 50, 57)}[identity]
    verdict = "reject" if pair % 4 == 0 else "accept"
    return {"accept": "reject", "reject": "accept"}[verdict] if pair in differs else verdict


KEYS = {verdict: key for key, verdict in VERDICTS.items()}


def _decide(team: Team, identity: str) -> None:
    """One press of one person, whatever comes after it: another pair, a wait for one, or the end."""
    page = team.pages[identity]
    pair = shown(page)
    verdict = _verdict(identity, pair)
    assert (identity, pair) not in team.said
    page.keyboard.press(KEYS[verdict])
    page.wait_for_selector(f'.desk:not([data-pair="{pair}"])')
    team.said[identity, pair] = verdict


def _at(page: Page) -> str:
    """Where a desk stands: "ready", "end", or anything else while it waits."""
    return str(page.locator(".desk").evaluate("n => n.dataset.pair === 'end' ? 'end' : n.dataset.phase"))


def _review(team: Team) -> None:
    """At the same time, by keys; one edits, one takes back; the server is killed in the middle."""
    grace, alan = team.pages[GRACE], team.pages[ALAN]
    for identity in NAMES:
        team.go(identity, "review?campaign=1")
    for page in team.pages.values():
        page.wait_for_selector(READY)
        expect(page.locator(".guidelines")).to_contain_text("Exact before long.")
    picture(grace, "5-desk")
    _edit(team, GRACE)
    for _ in range(10):
        for identity in NAMES:
            _decide(team, identity)
            team.pages[identity].wait_for_selector(READY)
    before = shown(alan)
    press(alan, "x")
    alan.keyboard.press("u")  # a slip
    alan.wait_for_selector(f'{READY}[data-pair="{before}"]')
    _killed(team)
    at_work = [GRACE, ALAN, ADA]
    while at_work:
        for identity in list(at_work):
            where = _at(team.pages[identity])
            if where == "end":
                at_work.remove(last := identity)
            elif where == "ready":
                _decide(team, identity)
        team.pages[GRACE].wait_for_timeout(20)
    for page in team.pages.values():
        page.wait_for_selector(SAVED)
    expect(team.pages[last].locator(".head .pace")).to_contain_text("60 of 60 decided")
    picture(grace, "7-end")
    assert Counter(pair for _, pair in team.said) == dict.fromkeys(range(1, N_PAIRS + 1), OVERLAP)


def _edit(team: Team, identity: str) -> None:
    page = team.pages[identity]
    pair = shown(page)
    page.keyboard.press("e")
    page.locator("textarea[name=output]").fill("They end in the sea, as all rivers of the list do.")
    picture(page, "6-edit")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(f'{READY}:not([data-pair="{pair}"])')
    team.said[identity, pair] = "edit"


def _killed(team: Team) -> None:
    """kill -9 while everybody decides. What it had acknowledged is on the disk; the rest comes when it is back."""
    for page in team.pages.values():
        page.wait_for_selector(SAVED)
    n_saved = len(team.said)
    for identity in NAMES:
        _decide(team, identity)
    team.server.kill()
    acknowledged: dict[tuple[str, int], str] = {}
    for identity, page in team.pages.items():
        page.wait_for_timeout(50)
        mine = [key for key in team.said if key[0] == identity]
        n_unsaved = int(page.locator(".desk").get_attribute("data-unsaved") or 0)
        acknowledged |= {key: team.said[key] for key in mine[: len(mine) - n_unsaved]}
        page.wait_for_selector(READY)
        _decide(team, identity)
        expect(page.locator(".saving.trouble")).to_contain_text("not saved yet")
    assert len(acknowledged) >= n_saved
    on_disk = {(row["reviewer"], row["pair_id"]): row["verdict"] for row in standing(team.server.home)}
    assert acknowledged.items() <= on_disk.items()
    port = int(team.server.url.rsplit(":", 1)[1])
    team.server.process = start_server(team.server.home, port=port, environment=team.environment).process
    for page in team.pages.values():
        page.wait_for_selector(SAVED)


# ---- agreement and adjudication ----


def _download(page: Page, button: Any, *, path: Path | None = None) -> bytes:
    rest(page)
    with page.expect_download() as downloading:
        button.click()
    found = Path(downloading.value.path()).read_bytes()
    if path is not None:
        path.write_bytes(found)
    return found


def _agreement(team: Team) -> list[int]:
    """The page says what the presses say. Returns the disputed pairs."""
    ada = team.go(ADA, "agreement?campaign=1")
    by_pair: dict[int, dict[str, str]] = {}
    for (identity, pair), verdict in team.said.items():
        by_pair.setdefault(pair, {})[identity] = verdict
    alpha = alpha_of([list(said.values()) for said in by_pair.values()])
    expect(ada.get_by_test_id("stMetric").filter(has_text="Krippendorff")).to_contain_text(f"{alpha:.2f}")
    picture(ada, "8-agreement")
    rows = list(
        csv.DictReader(
            io.StringIO(_download(ada, ada.get_by_role("button", name="Data of this chart").first).decode("utf-8-sig"))
        )
    )
    assert len(rows) == 3
    for row in rows:
        a, b = row["reviewer"], row["other reviewer"]
        both = [said for said in by_pair.values() if a in said and b in said]
        assert int(row["pairs"]) == len(both)
        assert float(row["kappa"]) == pytest.approx(kappa_of([said[a] for said in both], [said[b] for said in both]))
    return sorted(pair for pair, said in by_pair.items() if len(set(said.values())) > 1)


def _adjudicate(team: Team, disputed: list[int]) -> None:
    """The admin rules on what is disputed, by the link of the campaign; a reviewer may not."""
    assert len(disputed) > 1  # who gets which pair is the leases' choice: about nine
    grace = team.go(GRACE, "review?adjudicate=1")
    expect(grace.get_by_text("adjudicat").first).to_be_visible()
    assert grace.locator(".desk").count() == 0
    picture(grace, "9-no-adjudicator")
    ada = team.go(ADA, "campaigns?campaign=1")
    picture(ada, "10-campaign")
    ada.get_by_role("link", name=f"Adjudicate {len(disputed)} pairs").click()
    ruled: list[int] = []
    for _ in disputed:
        ada.wait_for_selector(READY)
        if not ruled:
            picture(ada, "11-adjudication")
        ruled.append(shown(ada))
        ada.keyboard.press("a")
        ada.wait_for_selector(f'.desk:not([data-pair="{ruled[-1]}"])')
    ada.wait_for_selector('.desk[data-pair="end"]')
    assert sorted(ruled) == disputed


# ---- bulk, history, board, export ----


def _bulk(team: Team) -> None:
    ada = team.go(ADA, "pairs?datasets=2&tab=bulk")
    ada.get_by_role("button", name="Dry run").click()
    expect(ada.get_by_text(f"Would accept {N_OTHERS} pairs")).to_be_visible()
    picture(ada, "12-dry-run")
    ada.get_by_label(f"Type {N_OTHERS} to confirm").fill(str(N_OTHERS))
    ada.get_by_role("button", name=f"Accept {N_OTHERS} pairs").click()
    expect(ada.get_by_text(f"{N_OTHERS} pairs were accepted")).to_be_visible()
    ada.get_by_role("button", name="Undo").first.click()
    ada.get_by_role("button", name=f"Undo {N_OTHERS} decisions").click()
    expect(ada.get_by_text("decisions were taken back")).to_be_visible()
    picture(ada, "13-bulk-undone")


def _history(team: Team, disputed: list[int]) -> None:
    ada = team.go(ADA, f"history?pair={disputed[0]}")
    expect(ada.get_by_text("3 decisions")).to_be_visible()  # two words and a ruling
    picture(ada, "14-history")
    ada.get_by_role("button", name="Download").click()
    rows = [json.loads(line) for line in _download(ada, ada.get_by_role("link", name="JSON Lines")).splitlines()]
    assert [row["purpose"] for row in rows] == ["review", "review", "adjudication"]
    assert {(row["reviewer"], disputed[0]): row["verdict"] for row in rows[:2]}.items() <= team.said.items()


def _vote(team: Team) -> None:
    """The admin presents, the others follow and vote blind."""
    ada, grace, alan = (team.go(identity, f"board?{mode}=1") for identity, mode in
                        ((ADA, "present"), (GRACE, "follow"), (ALAN, "follow")))  # fmt: skip
    ada.locator(".board .place").wait_for()
    ada.keyboard.press("PageDown")
    heading = ada.locator(".assay-slide h1")
    rest(ada)
    for page in (grace, alan):
        expect(page.locator(".assay-slide h1")).to_have_text(heading.inner_text())
    picture(grace, "15-follower")
    ada.keyboard.press("End")
    number = ada.get_by_role("textbox", name="Number of a pair, or a link to it")
    number.fill(str(N_PAIRS + 1))
    number.press("Enter")
    for page, verdict in ((grace, "✓ Accept"), (alan, "✗ Reject")):
        page.get_by_role("button", name=verdict, exact=True).click()
        expect(page.get_by_text("Your vote is in.")).to_be_visible()
    ada.get_by_role("button", name="Reveal the votes").click()
    for page in team.pages.values():
        expect(page.locator(".vote .round")).to_contain_text("0 % of pairs of voters agree")
    picture(ada, "16-vote")


def _report(team: Team, browser: Browser, folder: Path) -> None:
    ada = team.go(ADA, "board?slide=review")
    file = folder / "report.html"
    _download(ada, ada.get_by_role("button", name="Report"), path=file)
    context = browser.new_context(offline=True, viewport={"width": 1100, "height": 1000})
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    page.wait_for_selector('body[data-drawn="yes"]')
    assert asked == [file.as_uri()]
    expect(page.locator("#review")).to_contain_text("Pilot, *week* 12")
    assert page.evaluate("window.hacked") is None
    if PICTURES:
        page.screenshot(path=f"{PICTURES}-17-report.png", full_page=True)
    context.close()


def _export(team: Team) -> None:
    """A set that is taken home can be written again when it has long been another, byte by byte."""
    ada = team.go(ADA, "export?dataset=1&undecided=leave+out")
    first = _exported(ada)
    picture(ada, "18-export")
    team.go(ADA, "review?adjudicate=1")
    ada.wait_for_selector('.desk[data-pair="end"]')
    ada.keyboard.press("u")  # the last ruling is taken back: its pair is disputed again
    ada.wait_for_selector(f'{READY}:not([data-pair="end"])')
    ada.wait_for_selector(SAVED)
    team.go(ADA, "export?dataset=1&undecided=leave+out")
    assert _exported(ada) != first
    team.go(ADA, "export?dataset=1&undecided=leave+out&as_of=export:1")
    assert _exported(ada) == first
    picture(ada, "19-export-again")


def _exported(page: Page) -> bytes:
    page.get_by_role("button", name=re.compile(r"^Export \d+ rows as")).click()
    return _download(page, page.get_by_role("button", name="Download the file").first)


# ---- the disk ----


def _on_disk(team: Team) -> None:
    """Each press is stored once, for the pair that was on screen; no pair has more than two, none two by one."""
    team.server.kill()
    stands = standing(team.server.home)
    words = [row for row in stands if row["purpose"] == "review"]
    assert {(row["reviewer"], row["pair_id"]): row["verdict"] for row in words} == team.said
    assert len(words) == len(team.said) == OVERLAP * N_PAIRS
    assert {row["campaign_id"] for row in words} == {1}
    assert not [row for row in stands if row["purpose"] in ("late", "bulk")]
    assert {row["reviewer"] for row in stands if row["purpose"] == "adjudication"} == {ADA}
