"""From rows to verdicts, as a person does it in a real browser: reflect, edit a prompt, have answers made, judge them.

The teachers are real HTTP servers: one of which three replies in ten are faulty, ``transformers serve`` with a tiny
model, and one with a Batch API, at which the dashboard and its job are killed. What stands in the store and in the
folders of the jobs afterwards is looked up in plain SQL and worked out anew in plain Python.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Page, expect

from db.store import Store
from tests.browser.conftest import Server
from tests.browser.steps import new_job, number, patient, picture, press, rest, state, text, unfold, wait_done, wait_for
from tests.browser.stored import check_blind, check_money, check_reflection, failed_rows, plain_counts
from tests.core.test_reflecting_faults import Faulty
from tests.fake_batch import FakeBatch
from tests.fake_teacher import FakeTeacher
from tests.judge_teacher import JudgeTeacher
from tests.pages import judged_stores
from tests.served import save_chat_model, serving

__all__ = ["patient"]  # a fixture
pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]  # a slow machine may take its time
N_ROWS, N_FAULTY, N_SERVED, N_BATCH, N_EDITED, N_ANSWERS = 20, 16, 4, 5, 2, 6
PRICES, BUDGET = (1.0, 2.0), 5.0
ALWAYS_FAULTY = {"river number 3.": "refusal", "river number 5.": "cut_off", "river number 8.": "empty"}
LOG = [judged_stores.WIN] * 4 + [judged_stores.TIE] * 2 + [judged_stores.LOSE] * 3 + [judged_stores.UNREAD]
REPORT = {
    "Yield": "shares are of the rows asked about",
    "IFD and r-IFD": "On the diagonal nothing changed",
    "Length": "A judge tends to prefer longer answers",
    "Cost and speed": "Seconds are from the question to its answer",
    "Failures": "Choose one to read what the teacher said",
    "Candidates": "Which candidate was the best",
}
READY = '.desk[data-phase="ready"]'


def load_rows(page: Page, server: Server, folder: Path) -> None:
    source = folder / "rivers.json"
    found = [
        {
            "instruction": f"Tell me what is worth knowing about river number {i}.",
            "input": "" if i % 3 else f"The reader is {8 + i} years old.",
            "output": f"River number {i} is long. " + "It flows through hills and towns. " * (i % 5),
        }
        for i in range(N_ROWS)
    ]
    source.write_text(json.dumps(found), encoding="utf-8")
    page.goto(f"{server.url}/load")
    page.locator('input[type="file"]').set_input_files(source)
    press(page, "Import")
    page.get_by_text("imported", exact=False).first.wait_for()


def jobs_of(server: Server) -> set[Path]:
    return set((server.home / "jobs").glob("2*"))


def teacher(page: Page, base_url: str, model: str, *, prices: bool = True) -> None:
    """Fill the teacher's form in: no key, for these are servers of one's own."""
    text(page, "Base URL", base_url)
    text(page, "Model", model)
    text(page, "Environment variable with the key", "")
    if prices:
        number(page, "USD / million prompt tokens", PRICES[0])
        number(page, "USD / million answer tokens", PRICES[1])
        number(page, "Budget of the job (USD)", BUDGET)


def rows_at_most(page: Page, n: int) -> None:
    number(page, "At most this many rows (0: all), from the top", n)


def reflect(page: Page, server: Server, n: int) -> Path:
    """Press the button of a filled form; returns the folder of the job."""
    before = jobs_of(server)
    press(page, f"Reflect on {n} rows")
    return new_job(server.home, "reflect", before)


def finished(page: Page, n: int) -> None:
    """The report of a run shows so many rows."""
    expect(page.get_by_test_id("stMetric").filter(has_text="Rows finished")).to_contain_text(f"Rows finished{n}")


# --- the steps of the walk ---


def with_faults(page: Page, server: Server) -> Path:
    """Two candidates, two attempts, a budget, and a teacher of which three replies in ten are faulty."""
    with Faulty(match=ALWAYS_FAULTY) as faulty:
        page.goto(f"{server.url}/reflect?dataset=1")
        rows_at_most(page, N_FAULTY)
        teacher(page, faulty.base_url, "faulty")
        unfold(page, "Limits:")
        number(page, "Timeout (seconds)", 3)
        unfold(page, "More:")
        number(page, "Candidates per row", 2)
        number(page, "Attempts", 2)
        expect(page.get_by_test_id("stMetric").filter(has_text="Teacher calls")).to_contain_text(f"{N_FAULTY * 4}")
        picture(page, "reflect-form")
        folder = reflect(page, server, N_FAULTY)
        picture(page, "reflect-live")
        wait_done(folder)
    finished(page, N_FAULTY)
    for part, said in REPORT.items():
        press(page, part, role="radio", exact=True)
        page.get_by_text(said, exact=False).wait_for()
        page.locator(".js-plotly-plot").first.wait_for()
        assert not page.get_by_test_id("stException").count()
        picture(page, f"report-{part.split()[0].lower()}")
    return folder


def with_a_server_of_others(page: Page, server: Server, model: Path) -> Path:
    """``transformers serve`` with a tiny random model: it writes nonsense, which is told row by row."""
    with serving(model) as served:
        page.goto(f"{server.url}/reflect?dataset=1")
        rows_at_most(page, N_SERVED)
        teacher(page, served.base_url, served.model, prices=False)
        unfold(page, "Limits:")
        number(page, "Most tokens an answer", 64)
        folder = reflect(page, server, N_SERVED)
        wait_done(folder)
    finished(page, N_SERVED)
    press(page, "Failures", role="radio", exact=True)
    page.get_by_text("Choose one to read what the teacher said.", exact=False).wait_for()
    picture(page, "served-failures")
    return folder


def crash_while_a_batch_is_out(page: Page, server: Server, batches: FakeBatch) -> Path:
    """kill -9 the dashboard and the job while the questions are at the server."""
    page.goto(f"{server.url}/reflect?dataset=1")
    rows_at_most(page, N_BATCH)
    teacher(page, batches.base_url, "batched")
    press(page, "Batch, cheaper", role="radio")
    unfold(page, "Limits:")
    number(page, "Look at it every (seconds)", 1)
    expect(page.get_by_test_id("stMetric").filter(has_text="Time")).to_contain_text("≤ 24 h")
    folder = reflect(page, server, N_BATCH)
    page.get_by_text("Batch 1 of 1 at the server", exact=False).wait_for()
    picture(page, "batch-live")
    server.kill()
    for process in psutil.process_iter(["cmdline"]):
        if any(str(folder) in part for part in process.info["cmdline"] or []):
            process.kill()
    assert len(batches.batches) == 1
    assert not batches.paid
    return folder


def resume(page: Page, server: Server, batches: FakeBatch, folder: Path) -> None:
    """The next server says what became of the job, and resumes it."""
    wait_for(lambda: state(folder) == "interrupted", seconds=120, what="the new server told what became of the job")
    page.goto(f"{server.url}/reflect?dataset=1&run={folder.name}")
    page.get_by_text(f"{N_BATCH} rows are left", exact=False).wait_for()
    picture(page, "batch-interrupted")
    expect(page.get_by_text(f"{N_BATCH} questions are at the teacher's Batch API", exact=False)).to_be_visible()
    assert not page.get_by_role("button", name="Continue with", exact=False).count()  # they would be paid twice
    press(page, "Resume the run")
    batches.polls = 0
    wait_for(lambda: state(folder) == "done", what="the resumed job is done")
    finished(page, N_BATCH)


def edited_prompt(page: Page, server: Server) -> Path:
    """A copy of a prompt is edited, saved and used in a run."""
    page.goto(f"{server.url}/prompts?prompt=reflect-response-1")
    page.get_by_text("Task, before the example").first.wait_for()
    picture(page, "prompts-read")
    press(page, "Edit a copy", role="radio", exact=True)
    text(page, "Name", "walk")
    system = page.get_by_role("textbox", name="System message", exact=True)
    system.fill("You are a patient editor. Be brief.")
    system.press("Control+Enter")
    page.get_by_text("It can be used.").wait_for()
    picture(page, "prompts-edit")
    press(page, "Save as a new version of walk")
    page.get_by_role("heading", name="walk-1").wait_for()
    picture(page, "prompts-try")
    page.get_by_role("link", name="Use it in a run").click()
    page.get_by_text("More: prompts walk-1").wait_for()
    with FakeTeacher() as plain:
        rows_at_most(page, N_EDITED)
        teacher(page, plain.base_url, "plain")
        folder = reflect(page, server, N_EDITED)
        wait_done(folder)
        finished(page, N_EDITED)
        systems = Counter(request["body"]["messages"][0]["content"] for request in plain.requests)
    assert systems["You are a patient editor. Be brief."] == N_EDITED
    return folder


def two_answer_sets(page: Page, server: Server) -> None:
    """Answers of the demo student to the first questions, and the dataset's own outputs."""
    page.goto(f"{server.url}/answers?dataset=1&panel=generate")
    number(page, "Questions, from the top of the test set", N_ANSWERS)
    number(page, "Most tokens of an answer", 24)
    picture(page, "answers-generate")
    before = jobs_of(server)
    press(page, f"Answer {N_ANSWERS} questions")
    wait_done(new_job(server.home, "answers", before))
    page.goto(f"{server.url}/answers?dataset=1&panel=dataset")
    press(page, "Take its outputs")
    page.get_by_text(f"{N_ROWS} answers, 0 questions without one", exact=False).wait_for()
    picture(page, "answers-sets")


def judged_by_a_model(page: Page, server: Server) -> tuple[int, dict[str, int]]:
    """A comparison of the two sets under a judge that leans to the first place; (its id, the counts on the page)."""
    with JudgeTeacher(bias=2.0, first_then=("no_verdict",)) as judge:
        page.goto(f"{server.url}/compare?tab=judge")
        press(page, "Set up")
        page.get_by_text(f"{N_ANSWERS} questions with both answers", exact=False).wait_for()
        teacher(page, judge.base_url, "judge")
        expect(page.get_by_test_id("stMetric").filter(has_text="Calls")).to_contain_text(f"{2 * N_ANSWERS}")
        picture(page, "compare-judge")
        before = jobs_of(server)
        press(page, "Start judging")
        wait_done(new_job(server.home, "judge", before))
    page.get_by_text("so far:", exact=False).wait_for()
    # The page has looked once a second whether the job is over, and is drawn anew when it is: not in that moment.
    page.wait_for_timeout(4000)
    press(page, "See its results")
    page.wait_for_function("new URLSearchParams(location.search).has('comparison')")
    page.get_by_role("heading", name="Questions").wait_for()
    picture(page, "compare-one")
    comparison_id = int(page.evaluate("new URLSearchParams(location.search).get('comparison')"))
    (line,) = chart_data(page)
    return comparison_id, {name: int(line[name]) for name in ("win", "tie", "lose", "unparsed")}


def chart_data(page: Page) -> list[dict[str, str]]:
    """The numbers behind the first figure, as the page gives them."""
    rest(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="Data of this chart").first.click()
    with Path(download.value.path()).open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def imported_log(page: Page, server: Server, folder: Path) -> dict[str, int]:
    """A judge log of others; returns the counts that are shown before it is saved."""
    path = folder / "Vicuna.json"
    path.write_bytes(judged_stores.log_bytes(LOG))
    page.goto(f"{server.url}/compare?tab=log")
    page.locator('input[type="file"]').set_input_files(path)
    text(page, "Who judged", "gpt-4")
    (line,) = chart_data(page)
    picture(page, "compare-log")
    press(page, "Import it")
    page.get_by_text("The log is imported.").wait_for()
    page.goto(f"{server.url}/compare")
    page.get_by_text("Click a line to open its comparison").wait_for()
    picture(page, "compare-list")
    return {name: int(line[name]) for name in ("win", "tie", "lose", "unparsed")}


def judged_blind(page: Page, server: Server, comparison_id: int) -> list[tuple[str, str]]:
    """Three verdicts by keys; returns the answer that was preferred in each, and the question."""
    page.goto(f"{server.url}/judge?comparison={comparison_id}")
    text(page, "Your name", "Ada")
    page.wait_for_selector(READY)
    picture(page, "judge")
    made = []
    for key, side in (("1", "left"), ("3", "right"), ("ArrowLeft", "left")):
        question, answer = (page.locator(f'.desk [data-field="{name}"]').inner_text() for name in ("instruction", side))
        before = page.locator(".desk").get_attribute("data-item")
        page.keyboard.press(key)
        page.wait_for_selector(f'{READY}:not([data-item="{before}"])')
        made.append((question.strip(), answer.strip()))
    return made


def test_from_rows_to_verdicts_with_faults_and_a_crash_on_the_way(
    serve: Callable[..., Server], patient: Page, tmp_path: Path
) -> None:
    page = patient
    model = save_chat_model(tmp_path / "tiny-chat")
    first = serve()
    load_rows(page, first, tmp_path)
    faulty = with_faults(page, first)
    others = with_a_server_of_others(page, first, model)
    with FakeBatch(polls=100_000) as batches:
        batched = crash_while_a_batch_is_out(page, first, batches)
        server = serve(first.home)
        resume(page, server, batches, batched)
        asked = Counter(name for batch in batches.batches for name in batches.questions_of(batch))
        assert set(asked.values()) == set(batches.paid.values()) == {1}  # no question was sent or paid twice
        assert len(asked) == 2 * N_BATCH
        assert not batches.requests[2 * N_BATCH :]
    edited = edited_prompt(page, server)
    two_answer_sets(page, server)
    comparison_id, shown = judged_by_a_model(page, server)
    logged = imported_log(page, server, tmp_path)
    made = judged_blind(page, server, comparison_id)

    server.kill()
    store = Store(server.home / "assay.duckdb")
    usual = ("reflect-instruction-1", "reflect-response-1")
    try:
        calls = check_reflection(store, faulty, n=N_FAULTY, versions=usual)
        check_money(calls, prices=PRICES, budget_usd=BUDGET)
        assert {call["number"] for call in calls} >= {0, 1}  # two candidates
        assert failed_rows(store, faulty) >= {f"Tell me what is worth knowing about {name}" for name in ALWAYS_FAULTY}
        calls = check_reflection(store, others, n=N_SERVED, versions=usual)
        assert all(call["prompt_tokens"] > 500 and 1 <= call["completion_tokens"] <= 64 for call in calls)
        calls = check_reflection(store, batched, n=N_BATCH, versions=usual)
        check_money(calls, prices=PRICES, budget_usd=BUDGET, discount=0.5)
        check_reflection(store, edited, n=N_EDITED, versions=(usual[0], "walk-1"))
        assert shown == plain_counts(store, comparison_id, "model")
        assert sum(shown.values()) == N_ANSWERS
        assert logged == {"win": 4, "tie": 2, "lose": 3, "unparsed": 1}
        assert logged == plain_counts(store, comparison_id + 1, "log")
        check_blind(store, comparison_id, made)
    finally:
        store.close()
