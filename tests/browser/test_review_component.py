"""The review desk in a real Chromium over a real server: what is pressed is what is stored, and texts stay texts."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pytest
from playwright.sync_api import Browser, Dialog, Error, Page, expect

from db import commands
from db.store import Store, registered
from tests.browser.conftest import FLAGS, Server, start_server
from tests.browser.find_chromium import find_chromium
from tests.browser.review_keys import (
    READY,
    RECORDER,
    SAVED,
    VERDICTS,
    drawn,
    kill_browser,
    press,
    press_many,
    recorded,
    shown,
    sit_down,
    stored,
    taken,
)
from tests.db.pair_scores import put_vectors
from tests.pages import sample_stores

pytestmark = pytest.mark.browser
N_PAIRS = 300
LONG = "A line that stays as it was, whatever the teacher made of the rest.\n"


# The log of a tab that is no more. Of its two entries the server can take the second only.
LEFT_BEHIND = """([reviewer, pair]) => {
  const log = "assay-review-log:" + "ab".repeat(16);
  const scope = {kind: "filter", params: {order: "random", seed: "9"}};
  localStorage.setItem(log, JSON.stringify({reviewer, scope, desk: "cd".repeat(16), at: 0}));
  const put = (n, entry) =>
    localStorage.setItem(`${log}:${n}`, JSON.stringify({n, action: "decide", pair_id: pair, ...entry}));
  put(1, {verdict: "edit", edited: {instruction: "half an edit"}});
  put(2, {verdict: "reject"});
}"""


# Keys in one task, 15 ms apart by their time stamps: no frame is drawn between them, however slow the machine is.
BURST = """keys => { const began = performance.now(); [...keys].forEach((key, i) => {
  const event = new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true});
  Object.defineProperty(event, "timeStamp", {value: began + 15 * i});
  document.dispatchEvent(event);
}); }"""

N_SPECIAL = 15
_MORE_PAIRS = """insert into pairs by name
    select first.* replace (nextval('pair_ids') as pair_id, m.original_id as original_id, m.original_id as base_id,
        m.candidate_id as candidate_id, m.ifd as ifd_candidate)
    from (select * from pairs order by pair_id limit 1) first, more m order by m.original_id"""


def fill(home: Path, n_pairs: int = N_PAIRS) -> None:
    """A store with ``n_pairs`` pairs; in the usual order hostile ones come first, an endless and a long one last."""
    store = Store(home / "assay.duckdb")
    examples = sample_stores.rows(n_pairs)
    examples[6] = replace(examples[6], output=f"{LONG * 40}Old end.\n{LONG * 40}")
    dataset_id = sample_stores.import_rows(store, examples, name=sample_stores.DATASET)
    original_ids = sample_stores.example_ids(store, dataset_id)
    candidates = [sample_stores.reflected(one, "instruction") for one in examples]
    candidates[5] = replace(candidates[5], output="x" * 400_000)
    candidates[6] = replace(candidates[6], output=f"{LONG * 40}New end, {'longer ' * 60}by far.\n{LONG * 40}")
    ifds = [{3: 0.9, 5: 0.55, 6: 0.58}.get(i, 0.7 - i / 10_000) for i in range(n_pairs)]
    alike = {}
    for i in range(N_SPECIAL):
        pair_id = sample_stores.add_pair(
            store, dataset_id, original_ids[i], candidates[i], ifd=(0.5, ifds[i]),
            critique={"critique": sample_stores.HOSTILE},
        )  # fmt: skip
        if 10 <= i < 14:
            alike[pair_id] = np.array([1, 0.01 * i], np.float32)
    with store.adding_examples() as connection:  # all others at once
        stored_ids = commands.add_examples(connection, candidates[N_SPECIAL:])
        more = pa.table(
            {
                "original_id": original_ids[N_SPECIAL:],
                "candidate_id": [stored_ids[one.hash] for one in candidates[N_SPECIAL:]],
                "ifd": ifds[N_SPECIAL:],
            }
        )
        with registered(connection, "more", more):
            connection.exec_driver_sql(_MORE_PAIRS)
    put_vectors(store, alike)
    store.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("desk") / "home"
    home.mkdir()
    fill(home)
    started = start_server(home)
    yield started
    started.kill()


def test_hostile_texts_are_shown_as_texts_and_nothing_of_them_runs_or_loads(page: Page, server: Server) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    sit_down(page, server)
    expect(page.locator(".text.original[data-field=input]")).to_have_text(sample_stores.HOSTILE)
    page.keyboard.press("t")
    expect(page.locator(".said")).to_have_text(sample_stores.HOSTILE)
    page.keyboard.press("w")
    rendered = page.locator(".text.original[data-field=input]")
    expect(rendered).to_contain_text("[image: pic]")
    expect(rendered.locator("strong")).to_have_text("bold")
    expect(rendered).to_contain_text("link (javascript:alert(1)")
    page.keyboard.press("w")
    assert page.evaluate("window.hacked") is None
    assert page.locator(".desk img, .desk script, .desk a, .desk [href], .desk [src]").count() == 0
    assert not [url for url in asked if "192.0.2.1" in url]
    expect(page.locator(".badges")).to_contain_text(sample_stores.DATASET)
    expect(page.locator(".badge.recorded")).to_contain_text("recorded answers, replayed")


def test_a_long_text_is_folded_scrolled_in_step_and_marked_by_more_than_colour(page: Page, server: Server) -> None:
    sit_down(page, server, query="?ifd=0.575%3A0.59")
    ins, gone = page.locator(".text.reflected ins").first, page.locator(".text.original del").first
    assert "underline" in ins.evaluate("node => getComputedStyle(node).textDecorationLine")
    assert "line-through" in gone.evaluate("node => getComputedStyle(node).textDecorationLine")
    left, right = (page.locator(f".text.{side}[data-field=output]") for side in ("original", "reflected"))
    left.evaluate("node => { node.scrollTop = node.scrollHeight; }")
    page.wait_for_function("node => node.scrollTop > 400", arg=right.element_handle())
    assert right.evaluate("node => node.scrollHeight - node.clientHeight - node.scrollTop") <= 1
    middle = left.locator("del").first.evaluate("node => node.offsetTop")
    left.evaluate("(node, top) => { node.scrollTop = top; }", middle)
    expected = right.locator("ins").first.evaluate("node => node.offsetTop")
    page.wait_for_function(
        "([node, top]) => Math.abs(node.scrollTop - top) < 60", arg=[right.element_handle(), expected]
    )
    whole = left.inner_text()
    page.keyboard.press("o")
    expect(left.get_by_role("button")).to_have_count(2)
    expect(left).not_to_contain_text(LONG * 5)
    left.get_by_role("button").first.click()
    expect(right.get_by_role("button")).to_have_count(1)  # it opened on both sides
    left.get_by_role("button").click()
    assert left.inner_text() == whole
    page.keyboard.press("o")
    page.keyboard.press("d")
    assert "underline" not in ins.evaluate("node => getComputedStyle(node).textDecorationLine")


def test_keys_do_nothing_while_typing_held_down_with_modifiers_or_behind_a_popover(page: Page, server: Server) -> None:
    sit_down(page, server)
    pair = shown(page)
    for key in ("Control+a", "Alt+x", "Meta+s", "Shift+A"):
        page.keyboard.press(key)
    page.get_by_text("Queue: undecided").click()
    page.get_by_text("Reset to the default queue").wait_for()
    page.keyboard.press("a")
    page.keyboard.press("Escape")
    page.get_by_text("Reset to the default queue").wait_for(state="hidden")
    page.keyboard.press("?")
    expect(page.locator(".help")).to_be_visible()
    page.keyboard.press("x")
    page.keyboard.press("Escape")
    page.keyboard.press("f")
    page.keyboard.type("axs12 note")
    page.keyboard.press("Escape")
    page.keyboard.press("e")
    area = page.locator("textarea[name=output]")
    area.fill("")
    page.keyboard.type("A and x and s, u and 1.")
    expect(area).to_have_value("A and x and s, u and 1.")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Drop it").click()
    page.wait_for_selector(READY)
    assert shown(page) == pair
    assert page.locator("details.history").count() == 0  # nothing was stored
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(f'{READY}:not([data-pair="{pair}"])')
    first = shown(page)
    for _ in range(6):
        page.keyboard.down("s")  # all but the first are repeats
        page.wait_for_timeout(40)
    page.keyboard.up("s")
    page.wait_for_selector(f'{READY}:not([data-pair="{first}"])')
    expect(page.locator(".head .place")).to_have_text(f"Pair 3 of {N_PAIRS}")
    assert press(page, "u") != first
    assert shown(page) == first


def test_an_edit_begins_where_the_text_is_and_a_flag_an_undo_and_going_back(page: Page, server: Server) -> None:
    sit_down(page, server, query="?order=random&seed=4")
    pair = shown(page)
    page.keyboard.press("f")
    page.keyboard.type("Look at the units.")
    page.keyboard.press("Enter")
    expect(page.locator(".badge.flag")).to_contain_text("Look at the units.")
    text = page.locator(".text.reflected[data-field=instruction]")
    before, reflected = text.bounding_box(), text.inner_text()
    page.keyboard.press("e")  # the cursor stands at the first difference
    page.keyboard.type("HERE ")
    area = page.locator("textarea[name=instruction]")
    expect(area).to_have_value(reflected.replace("explain", "HERE explain", 1))
    after = area.bounding_box()
    assert before is not None
    assert after is not None
    assert all(abs(after[side] - before[side]) < 1.5 for side in ("x", "y", "width", "height"))
    area.fill("   ")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".message.error")).to_contain_text("instruction is empty")
    expect(area).to_have_value("   ")  # what was typed is still there
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Drop it").click()
    page.locator(".text.reflected[data-field=output]").dblclick(position={"x": 13, "y": 14})
    page.keyboard.type("Q")
    assert page.locator("textarea[name=output]").input_value().index("Q") <= 1
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(f'{READY}:not([data-pair="{pair}"])')
    following = shown(page)
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector(f'{READY}[data-pair="{pair}"]')
    expect(page.locator(".badge.accept")).to_contain_text("edited and accepted")
    page.locator("details.history summary").click()
    expect(page.locator("details.history")).to_contain_text("Look at the units.")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(f'{READY}[data-pair="{following}"]')
    page.keyboard.press("u")
    page.wait_for_selector(f'{READY}[data-pair="{pair}"]')
    assert page.locator(".badge.accept").count() == 0
    page.wait_for_selector(SAVED)


def test_undo_goes_on_into_the_session_before_and_what_cannot_be_stored_is_kept_aside(
    page: Page, server: Server
) -> None:
    sit_down(page, server, name="Ursula", query="?order=random&seed=9")
    made = [press(page, key) for key in "axs"]
    page.wait_for_selector(SAVED)
    made.append(shown(page))
    page.evaluate(LEFT_BEHIND, ["Ursula", made[-1]])
    page.reload()
    page.wait_for_selector(READY)
    refused = f"kept aside in this browser: edit of pair {made[-1]} (“half an edit”)"
    expect(page.locator(".refused")).to_contain_text(refused)
    expect(page.locator(".message")).to_contain_text("1 decision that an earlier tab had not sent is stored now")
    page.locator(".refused").get_by_role("button", name="Drop it").click()
    expect(page.locator(".refused")).to_be_hidden()
    page.wait_for_selector(SAVED)
    for pair in reversed(made):
        page.keyboard.press("u")
        page.wait_for_selector(f'{READY}[data-pair="{pair}"]')
    page.keyboard.press("u")
    expect(page.locator(".message")).to_contain_text("nothing left to undo")


def test_keys_can_be_given_anew_and_come_back_in_the_next_session(page: Page, server: Server) -> None:
    sit_down(page, server, name="Kim", query="?order=random&seed=11")
    page.keyboard.press("?")
    change, said = page.get_by_role("button", name="Change the key of Skip"), page.locator(".said-of-keys")
    change.click()
    page.keyboard.press("r")
    expect(said).to_contain_text("belongs to the page")
    page.keyboard.press("x")
    expect(said).to_contain_text("already means “Reject”")
    page.keyboard.press("k")
    page.keyboard.press("Escape")
    page.wait_for_selector(SAVED)
    page.wait_for_timeout(300)  # the keys go with the next request
    page.reload()
    page.wait_for_selector(READY)
    expect(page.locator("button[data-action=skip]")).to_have_attribute("aria-keyshortcuts", "K")
    pair = shown(page)
    page.keyboard.press("s")
    page.wait_for_timeout(100)
    assert shown(page) == pair
    press(page, "k")
    page.keyboard.press("u")
    page.wait_for_selector(f'{READY}[data-pair="{pair}"]')


def test_the_same_verdict_goes_to_the_similar_pairs_that_were_ticked_and_is_taken_back_with_it(
    page: Page, server: Server
) -> None:
    sit_down(page, server, name="Sam", query="?order=oldest+first&ifd=0.69865%3A0.69901")  # pairs 11 to 14
    expect(page.locator(".head .place")).to_have_text("Pair 1 of 4")
    page.keyboard.press("m")
    page.get_by_role("button", name="Tick the 3 near-duplicates").click()
    page.locator(".similar input").last.uncheck()
    expect(page.locator(".applies")).to_have_text("Your next verdict also goes to 2 ticked pairs.")
    page.keyboard.press("x")
    page.wait_for_selector(SAVED)
    page.wait_for_selector(READY)
    expect(page.locator(".head .place")).to_contain_text("of 4")
    expect(page.locator(".head .pace")).to_contain_text("3 today by Sam")
    page.keyboard.press("u")
    expect(page.locator(".head .pace")).to_contain_text("0 today by Sam")
    page.wait_for_selector(SAVED)


def test_a_burst_is_done_in_its_order_and_a_double_click_counts_once(page: Page, server: Server) -> None:
    sit_down(page, server, name="Bo", query="?order=random&seed=12")
    page.set_viewport_size({"width": 1440, "height": 500})  # the buttons stay where they are
    page.evaluate(BURST, "axu")
    expect(page.locator(".message")).to_contain_text("Taken back on pair")
    page.wait_for_selector(READY)
    assert [(one["action"], one["counted"]) for one in taken(page)] == [
        ("accept", True), ("reject", True), ("undo", True)
    ]  # fmt: skip
    assert shown(page) == taken(page)[1]["pair_id"]  # the latest was taken back, not the one before
    page.evaluate(BURST, "aea")
    page.wait_for_selector('.desk[data-phase="edit"]')
    expect(page.locator(".message")).to_contain_text("before there was a pair on screen")
    page.keyboard.press("Escape")
    page.wait_for_selector(READY)
    page.locator("button[data-action=reject]").dblclick()
    expect(page.locator(".message")).to_contain_text("it counts once")
    page.locator("button[data-action=edit]").dblclick()  # "save" comes to where the pointer is
    page.wait_for_selector('.desk[data-phase="edit"]')
    assert [one["action"] for one in taken(page) if one["counted"]] == ["accept", "reject", "undo", "accept", "reject"]
    page.keyboard.press("Escape")


def test_the_end_of_a_queue_offers_the_skipped_again(page: Page, server: Server) -> None:
    sit_down(page, server, name="Eve", query="?ifd=0.85%3A")
    expect(page.locator(".head .place")).to_have_text("Pair 1 of 1")
    page.keyboard.press("s")
    page.get_by_role("button", name="Go through the 1 skipped").click()
    page.wait_for_selector(READY)
    expect(page.locator(".head .place")).to_have_text("Pair 1 of 1")


def test_a_text_without_a_space_can_be_decided_on(page: Page, server: Server) -> None:
    """Chromium took minutes to break such a line, and no key counted meanwhile."""
    sit_down(page, server, name="Ines", query="?ifd=%3A0.56")
    expect(page.locator(".head .place")).to_have_text("Pair 1 of 1")
    assert page.locator('.text.reflected[data-field="output"]').inner_text() == "x" * 400_000
    page.keyboard.press("e")
    assert page.locator('textarea[name="output"]').input_value() == "x" * 400_000


def test_the_desk_fits_a_telephone_and_a_zoom_of_two_and_says_what_it_is(page: Page, server: Server) -> None:
    for width, height in ((360, 740), (720, 500)):  # the second is 1440 pixels at 200 %
        page.set_viewport_size({"width": width, "height": height})
        sit_down(page, server, name="Zoe", query="?order=random&seed=2")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.locator(".desk").evaluate("desk => desk.scrollWidth <= desk.clientWidth")
        page.context.clear_cookies()
    page.set_viewport_size({"width": 360, "height": 740})
    page.wait_for_selector(READY)
    small = page.locator(".bar").evaluate(
        """bar => [...bar.querySelectorAll("button")].filter((one) => one.offsetWidth
          && (one.offsetHeight < 40 || one.offsetWidth < 40)).map((one) => one.textContent)"""
    )
    assert small == []
    seen = page.locator(".desk").aria_snapshot()
    for line in ('heading "Original" [level=3]', 'group "Reflected instruction"', 'button "✓ Accept', "deletion",
                 "insertion", 'toolbar "Decide on this pair"', 'progressbar "Pairs decided"'):  # fmt: skip
        assert line in seen, seen
    assert page.evaluate("document.activeElement.shadowRoot?.activeElement?.className") == "desk"
    press(page, "s")
    expect(page.locator(".aloud")).to_contain_text("skipped")
    page.keyboard.press("u")
    page.wait_for_selector(SAVED)


def test_what_a_killed_browser_had_not_sent_is_there_when_it_is_opened_again(
    browser: Browser, server: Server, tmp_path: Path
) -> None:
    def begin(name: str | None) -> Page:
        context = browser.browser_type.launch_persistent_context(
            tmp_path / "profile", executable_path=find_chromium(), args=FLAGS
        )
        page = context.pages[0]
        page.goto(f"{server.url}/review?order=random&seed=5")
        field = page.get_by_label("Your name")
        expect(field.or_(page.locator(".desk"))).to_be_visible()
        if field.is_visible():
            field.fill(name or "")
            page.keyboard.press("Enter")
        page.wait_for_selector(READY)
        return page

    page = begin("Kay")
    pair = shown(page)
    page.keyboard.press("e")
    page.locator("textarea[name=output]").fill("half a thought")
    page.wait_for_timeout(900)  # until the server has it
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(f'{READY}:not([data-pair="{pair}"])')
    page.context.set_offline(True)
    decided = [press(page, key) for key in "ax"]
    last = shown(page)
    page.keyboard.press("e")
    page.locator("textarea[name=output]").fill("typed without a connection")
    page.wait_for_timeout(100)
    kill_browser(tmp_path / "profile")
    with contextlib.suppress(Error):
        page.context.close()

    page = begin("Kay")
    expect(page.locator(".message")).to_contain_text("2 decisions that an earlier tab had not sent are stored now")
    assert shown(page) == pair
    expect(page.locator(".draft-note")).to_contain_text("Your draft of")
    page.keyboard.press("e")
    expect(page.locator("textarea[name=output]")).to_have_value("half a thought")
    expect(page.locator(".message")).to_contain_text("Restored your draft of")
    page.get_by_role("button", name="Start again").click()
    expect(page.locator("textarea[name=output]")).not_to_have_value("half a thought")
    page.keyboard.press("Escape")
    press(page, "ArrowRight")
    assert shown(page) == last
    assert last not in decided
    page.keyboard.press("e")
    expect(page.locator("textarea[name=output]")).to_have_value("typed without a connection")
    page.wait_for_selector(SAVED)
    page.context.close()


def test_a_disk_that_is_full_keeps_the_decisions_and_the_typed_text_until_there_is_room(
    page: Page, server: Server
) -> None:
    sit_down(page, server, name="Uma", query="?order=random&seed=6")
    worker = psutil.Process(server.process.pid)
    before = worker.rlimit(resource.RLIMIT_FSIZE)
    worker.rlimit(resource.RLIMIT_FSIZE, (64, before[1]))  # every write past 64 bytes fails, as on a full disk
    try:
        page.keyboard.press("e")
        page.locator("textarea[name=output]").fill("typed with care")
        pair = shown(page)
        page.keyboard.press("Control+Enter")
        page.wait_for_selector(f'{READY}:not([data-pair="{pair}"])')
        press(page, "a")
        expect(page.locator(".saving.trouble")).to_contain_text("2 not saved yet")
    finally:
        worker.rlimit(resource.RLIMIT_FSIZE, before)
    page.wait_for_selector(SAVED)
    expect(page.locator(".saving")).to_contain_text("all saved")


def test_two_hundred_presses_at_thirty_milliseconds_a_lost_connection_and_a_killed_server(
    page: Page, server: Server
) -> None:
    """Last of the tests on this server. Each press that counts is stored once, in order, on the pair that was drawn.

    A machine that paints fewer than 33 frames a second decides a press as soon as its pair is drawn. Keys that a busy
    Playwright sends in one heap (nearer than a finger could) or after a long pause do not count before a frame, and
    the desk says so of each (``__presses``).
    """
    sit_down(page, server, name="Fast", query="?order=oldest+first")
    page.evaluate(RECORDER)
    press_many(page, "ax" * 100, every_seconds=0.03)
    page.wait_for_selector(READY)
    presses = sorted(taken(page), key=lambda one: one["at"])
    assert len(presses) == 200
    after_another = [(one, one["at"] - before["at"]) for before, one in pairwise(presses) if before["counted"]]
    ignored = [one for one, ms in after_another if 11 <= ms <= 59 and one["pair_id"] and not one["counted"]]
    assert ignored == []  # without a pair the desk waits for the server, and no key counts
    server.kill()
    for key in "axax":
        press(page, key)
    expect(page.locator(".saving.trouble")).to_contain_text("not saved yet")
    warned: list[str] = []

    def stay(dialog: Dialog) -> None:
        warned.append(dialog.type)
        dialog.dismiss()

    page.once("dialog", stay)
    page.close(run_before_unload=True)
    page.wait_for_timeout(200)
    assert warned == ["beforeunload"]
    again = start_server(server.home, port=int(server.url.rsplit(":", 1)[1]))
    server.process = again.process
    page.wait_for_selector(SAVED)
    page.wait_for_selector(READY)
    page.context.set_offline(True)
    press(page, "s")
    page.context.set_offline(False)
    page.wait_for_selector(SAVED)
    presses = sorted(taken(page), key=lambda one: one["at"])
    assert [one["action"] for one in presses] == [VERDICTS[one["key"]] for one in recorded(page)]
    on_screen = drawn(page)
    counted = [one for one in taken(page) if one["counted"]]
    assert [one["at"] for one in counted] == sorted(one["at"] for one in counted)
    rows = [row for row in stored(server) if row["reviewer"] == "Fast"]
    assert len({one["pair_id"] for one in counted}) == len(counted) > 5
    assert [(row["pair_id"], row["verdict"]) for row in rows] == [(one["pair_id"], one["action"]) for one in counted]
    assert [(row["pair_id"], row["instruction"]) for row in rows] == [
        (one["pair"], one["text"]) for _, one in on_screen
    ]
