"""From rows to a rule and a selection by it, as a person does it in a real browser, with a crash on the way.

Sample -> review by keys, undo, export (reviewed.py) -> study (the server is killed while a run is at work) -> fit ->
rule -> selection on rows that no study saw -> rule against random. What stands in the store afterwards is worked out
anew in plain Python.
"""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from core.jobs.folder import JobFolder
from db import fits, studies
from db.store import Store, rows
from tests.browser import reviewed
from tests.browser.conftest import ROOT, Server, start_server
from tests.browser.steps import jobs_done, number, patient, press, rest, wait_for
from tests.browser.test_rows import parameters, settled_box
from tests.pages import study_stores

__all__ = ["patient"]  # a fixture
pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]  # a slow machine may take its time
N_MIXTURES, SIZE = 6, 16
N_RUNS = N_MIXTURES + 1  # the untrained base is evaluated as well
N_SELECTED, MOST_OF_A_TOPIC, N_RANDOM = 8, 3, 2
REGRESSORS = "(new URLSearchParams(location.search).get('regressors') || '')"
TOPICS = ("rivers", "bread", "clocks", "gardens")


def _shards(folder: Path) -> int:
    return len(list(folder.glob("shards/*.parquet")))


# --- the steps of the walk ---


def _start_study(page: Page, server: Server) -> Path:
    """Plan a small study of the sample's qualities and start it; returns the folder of its job."""
    page.goto(f"{server.url}/studies")
    press(page, "Plan a study")
    page.get_by_text("5 sources: good: 108", exact=False).wait_for()
    number(page, "Mixtures", N_MIXTURES)
    number(page, "Rows in each", SIZE)
    number(page, "Longest text, in tokens", 96)
    number(page, "Batch size, in rows", 4)
    number(page, "Learning rate", 0.01)
    cells = page.get_by_test_id("stMetric")
    expect(cells.filter(has_text="Rows in each")).to_contain_text(str(SIZE))
    press(page, f"Start the study: {N_MIXTURES} finetunes")
    page.wait_for_url("**/studies?study=*")
    (folder,) = (server.home / "jobs").glob("2*-study-*")
    return folder


def _crash_while_a_run_is_at_work(server: Server, folder: Path) -> None:
    """kill -9 between the second run's end and the last one's; the runs go on without a server."""
    wait_for(lambda: _shards(folder) >= 2, what="two runs are done")
    work = folder / "runs" / f"{_shards(folder):05d}"
    wait_for(work.exists, what="the next run is at work")
    server.kill()
    before = _shards(folder)
    assert before < N_RUNS, "the study was over before the server was killed"
    wait_for(lambda: _shards(folder) > before, what="a run ended while there was no server")


def _load_unseen_rows(page: Page, server: Server, folder: Path) -> None:
    source = folder / "unseen.json"
    source.write_text(json.dumps(_unseen_rows(40)), encoding="utf-8")
    page.goto(f"{server.url}/load")
    page.locator('input[type="file"]').set_input_files(source)
    press(page, "Import")
    page.get_by_text("imported", exact=False).first.wait_for()
    page.goto(f"{server.url}/score")
    expect(page.get_by_role("combobox", name="Dataset")).to_have_value("unseen (40 rows)")
    press(page, "Score 40 rows")


def _unseen_rows(n: int) -> list[dict[str, str]]:
    """Rows of four topics whose answers differ in length and in how varied their words are."""
    rng = np.random.default_rng(3)
    words = [f"{start}{end}" for start in ("st", "fl", "br", "gr") for end in ("one", "ow", "ead", "ain")]
    return [
        {
            "instruction": f"Tell me thing number {i} about {TOPICS[i % len(TOPICS)]}.",
            "input": "",
            "output": " ".join(rng.choice(words[: 3 + i % 14], 12 + 2 * i)).capitalize() + ".",
            "topic": TOPICS[i % len(TOPICS)],
        }
        for i in range(n)
    ]


def _runs_file(page: Page, folder: Path) -> Path:
    """The study's runs as the page gives them for a fit."""
    with page.expect_download() as download:
        press(page, "Runs with their indicators, for a fit")
    path = folder / "runs.csv"
    download.value.save_as(path)
    return path


def _fit_and_rule(page: Page, server: Server) -> list[str]:
    """One regressor fewer than proposed, the fit saved, a rule made of it; returns the keys of the regressors."""
    page.goto(f"{server.url}/regression")
    page.wait_for_function(f"{REGRESSORS}.split('.').length === 3")  # as many as so few runs allow
    page.get_by_role("combobox", name="Regressors").press("Backspace")
    page.wait_for_function(f"{REGRESSORS}.split('.').length === 2")
    expect(page.get_by_test_id("stMetric").first).to_contain_text(f"Runs{N_MIXTURES}")
    regressors = parameters(page)["regressors"].split(".")
    press(page, "Save this fit")
    page.get_by_label("Name of the fit").fill("Walk fit")
    press(page, "Save", exact=True)
    page.get_by_text("Saved Walk fit.", exact=False).wait_for()
    page.keyboard.press("Escape")
    press(page, "Make a rule of it")
    page.get_by_label("Name of the rule").fill("Walk rule")
    press(page, "Make the rule")
    page.get_by_text("Made the rule Walk rule.", exact=False).wait_for()
    return regressors


def _select(page: Page, server: Server) -> None:
    """Apply the rule to the unseen rows, at most so many of a topic; move the size; keep the selection."""
    page.goto(f"{server.url}/select")
    expect(page.get_by_role("combobox", name="Dataset to select from")).to_have_value("unseen (40 rows)")
    expect(page.get_by_role("combobox", name="Rule", exact=True)).to_have_value("Walk rule (fitted)")
    selected = page.get_by_test_id("stMetric").filter(has_text="Rows selected")
    expect(selected).to_contain_text("10.0 % of 40")
    page.get_by_role("combobox", name="Limit per value of").click()
    page.get_by_role("option", name="column topic").click()
    number(page, "Most rows of each", MOST_OF_A_TOPIC)
    page.wait_for_function(f"new URLSearchParams(location.search).get('most') === '{MOST_OF_A_TOPIC}'")
    slider = page.get_by_role("slider", name="Rows to select")
    expect(slider).to_have_attribute("max", str(MOST_OF_A_TOPIC * len(TOPICS)))  # more than these cannot be had
    expect(slider).to_have_value("4")  # a tenth of the rows, to begin with
    rest(page)
    slider.press("ArrowRight")
    expect(selected).to_contain_text("Rows selected512.5 % of 40")
    number(page, "Rows to select, exactly", N_SELECTED)
    expect(selected).to_contain_text(f"Rows selected{N_SELECTED}")
    press(page, "Save as dataset")
    page.get_by_label("Name of the new dataset").fill("Walk selection")
    press(page, "Save", exact=True)
    page.get_by_text(f"Saved Walk selection: {N_SELECTED} rows.").wait_for()
    page.keyboard.press("Escape")


def _against_random(page: Page, server: Server) -> None:
    press(page, "Rule against random", role="radio")
    number(page, "Random subsets", N_RANDOM)
    press(page, "As used last", role="radio")
    press(page, f"Start {N_RANDOM + 2} runs")
    wait_for(lambda: jobs_done(page, server, 5), what="the comparison is done")
    # Two subsets cannot show one. For a moment Streamlit may hold the sentence of the run before beside the new one.
    expect(page.get_by_text("No difference shown.", exact=False).first).to_be_visible()
    expect(page.get_by_text(f"Permutation test, {N_RANDOM + 1} relabellings, all.", exact=False)).to_be_visible()


# --- what stands on the disk ---


def _check_runs(store: Store, study_id: int, *, n: int) -> None:
    """Each run of a study has one result, by one job whose shards were all collected once."""
    with store.read() as connection:
        results = rows(
            connection,
            """select r.number, s.outcome, s.job_id from runs r left join run_results s using (run_id)
            where r.study_id = :id order by r.number""",
            id=study_id,
        )
        jobs = rows(connection, "select job_id from study_jobs where study_id = :id", id=study_id)
        ledger = rows(connection, "select shard from job_shards where job_id = :job order by 1", job=jobs[0]["job_id"])
    assert [(row["number"], row["outcome"]) for row in results] == [(i, "done") for i in range(n)]
    assert len(jobs) == 1
    assert {row["job_id"] for row in results} == {jobs[0]["job_id"]}
    assert [row["shard"] for row in ledger] == list(range(n))
    folder = JobFolder(store.path.parent / "jobs" / jobs[0]["job_id"])
    assert folder.finished_shards() == set(range(n))


def _check_headless_fit(store: Store, runs_file: Path, regressors: Sequence[str]) -> dict[str, float]:
    """`python -m core fit` on the downloaded runs gives the saved fit; returns its coefficients."""
    (saved,) = fits.fits(store)
    out = runs_file.with_name("fit.json")
    subprocess.run(
        [
            sys.executable, "-m", "core", "fit", str(runs_file), "--response", "loss_nats",
            "--regressors", ",".join(regressors), "--log-response", "--out", str(out),
        ],
        cwd=ROOT, check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    headless = json.loads(out.read_text(encoding="utf-8"))
    result = saved["result"]
    assert saved["name"] == "Walk fit"
    assert result.n == headless["n"] == N_MIXTURES
    assert [one.name for one in result.coefficients] == ["const", *regressors]
    for one, other in zip(result.coefficients, headless["coefficients"], strict=True):
        assert one.name == other["name"]
        assert one.value == pytest.approx(other["value"], rel=1e-9)
        assert one.standard_error == pytest.approx(other["standard_error"], rel=1e-9)
    with runs_file.open(encoding="utf-8", newline="") as lines:
        assert [line["outcome"] for line in csv.DictReader(lines)] == ["done"] * N_RUNS
    return {one.name: one.value for one in result.coefficients}


def _check_selection(store: Store, coefficients: dict[str, float]) -> None:
    """The selection holds the rows that the fit's coefficients put first, and says how it came about."""
    with store.read() as connection:
        (selection,) = rows(connection, "select * from datasets where name = 'Walk selection'")
        (unseen,) = rows(connection, "select * from datasets where name = 'unseen'")
        kept = rows(
            connection, f"select example_id from members where dataset_id = {selection['dataset_id']} order by position"
        )
        members = rows(connection, f"select * from members where dataset_id = {unseen['dataset_id']} order by position")
        values = {
            (row["output"], row["example_id"]): row["value"]
            for row in rows(
                connection,
                f"""select s.output, c.example_id, c.value from scores c join scorers s using (scorer_id)
                join members m using (example_id) where m.dataset_id = {unseen["dataset_id"]}""",
            )
        }
        scorers = {row["scorer_id"]: row for row in rows(connection, "select * from scorers")}
    details: dict[str, Any] = selection["details"]
    predicted = {
        row["example_id"]: coefficients["const"]
        + sum(value * values[name, row["example_id"]] for name, value in coefficients.items() if name != "const")
        for row in members
    }
    topics = {row["example_id"]: json.loads(row["metadata"])["topic"] for row in members}
    wanted: list[int] = []
    for i in sorted(predicted, key=predicted.__getitem__):
        if len(wanted) < N_SELECTED and sum(topics[j] == topics[i] for j in wanted) < MOST_OF_A_TOPIC:
            wanted.append(i)
    assert [predicted[row["example_id"]] for row in kept] == pytest.approx([predicted[i] for i in wanted])
    assert selection["kind"] == "selection"
    assert details["from_dataset"] == {"dataset_id": unseen["dataset_id"], "name": "unseen"}
    assert details["rule"]["name"] == "Walk rule"
    assert {t["output"]: t["coefficient"] for t in details["rule"]["rule"]["terms"]} == pytest.approx(
        {name: value for name, value in coefficients.items() if name != "const"}
    )
    assert {s["output"]: scorers[s["scorer_id"]]["output"] for s in details["scorers"]} == {
        name: name for name in coefficients if name != "const"
    }
    assert details["applied_despite"] == []
    assert details["constraints"] == {
        "exclude_rejected": True, "exclude_evaluation_sets": True, "category": "topic",
        "max_per_category": MOST_OF_A_TOPIC,
    }  # fmt: skip
    assert (details["size"], details["n_selected"]) == (
        {"by": "number", "value": N_SELECTED, "asked": N_SELECTED},
        N_SELECTED,
    )


def _check_comparison(store: Store) -> None:
    study = next(one for one in studies.studies(store) if one["kind"] == "comparison")
    found = studies.runs(store, [study["study_id"]])
    assert sorted(run["role"] for run in found) == ["base", *["random"] * N_RANDOM, "selected"]
    assert {run["n_rows"] for run in found if run["role"] != "base"} == {N_SELECTED}
    with store.read() as connection:
        kept = rows(
            connection,
            """select list(m.example_id order by m.position) ids from members m join datasets d using (dataset_id)
            where d.name = 'Walk selection' or d.dataset_id = :selected group by m.dataset_id""",
            selected=next(run["dataset_id"] for run in found if run["role"] == "selected"),
        )
    assert len(kept) == 2
    assert sorted(kept[0]["ids"]) == sorted(kept[1]["ids"])


def test_from_the_sample_to_a_rule_and_a_selection_shown_against_random(
    serve: Callable[..., Server], patient: Page, tmp_path: Path
) -> None:
    page = patient
    first = serve()
    page.goto(first.url)
    press(page, "Open the sample workspace")
    wait_for(lambda: jobs_done(page, first, 2), what="the sample is scored and reflected")
    found = reviewed.review_and_export(page, first, dataset_id=2, folder=tmp_path)
    assert len(found.exported) == 240
    folder = _start_study(page, first)
    _crash_while_a_run_is_at_work(first, folder)

    server = serve(first.home)
    page.goto(f"{server.url}/studies?study=1")
    n_done = page.get_by_test_id("stMetric").filter(has_text="Runs done")
    expect(n_done).to_contain_text(re.compile(rf"[3-{N_RUNS}] of {N_RUNS}"))  # those of the time without it, too
    _load_unseen_rows(page, server, tmp_path)
    wait_for(lambda: jobs_done(page, server, 4), what="the study and the scoring are done")
    page.goto(f"{server.url}/studies?study=1")
    expect(n_done).to_contain_text(f"{N_RUNS} of {N_RUNS}")
    runs_file = _runs_file(page, tmp_path)
    regressors = _fit_and_rule(page, server)
    _select(page, server)
    _against_random(page, server)

    server.kill()
    store = Store(server.home / "assay.duckdb")
    try:
        reviewed.check(store, found)
        _check_runs(store, 1, n=N_RUNS)
        _check_selection(store, _check_headless_fit(store, runs_file, regressors))
        _check_runs(store, 2, n=N_RANDOM + 2)
        _check_comparison(store)
    finally:
        store.close()


# --- a figure's point is its run ---


@pytest.fixture
def studied(tmp_path: Path) -> Iterator[tuple[Server, int, list[int]]]:
    """A server over studies with results; the id of the mixtures, and its runs that are done."""
    home = tmp_path / "home"
    home.mkdir()
    store = Store(home / "assay.duckdb")
    study_id = study_stores.fill(store).mixtures_id
    done = [
        run["run_id"]
        for run in studies.runs(store, [study_id])
        if run["outcome"] == "done" and run["role"] != "base"
    ]  # fmt: skip
    store.close()
    started = start_server(home)
    yield started, study_id, done
    started.end()


def _middle(point: Locator) -> complex:
    box = point.bounding_box()
    assert box is not None
    return complex(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)


def test_a_click_on_a_point_of_the_fit_opens_the_run_behind_it(
    studied: tuple[Server, int, list[int]], page: Page
) -> None:
    server, study_id, done = studied
    page.goto(f"{server.url}/regression?studies={study_id}&regressors=reward.length")
    plot = page.locator(".js-plotly-plot").filter(has_text="log evaluation loss, predicted").first
    points = plot.locator(".trace.scatter").first.locator("path.point")
    expect(points).to_have_count(len(done), timeout=60_000)
    settled_box(page, points.last)
    at = [_middle(points.nth(i)) for i in range(len(done))]
    apart = [min(abs(here - there) for there in at[:i] + at[i + 1 :]) for i, here in enumerate(at)]
    place = int(np.argmax(apart))  # none lies over it
    page.mouse.click(at[place].real, at[place].imag)
    page.wait_for_function("new URLSearchParams(location.search).has('run')")
    assert parameters(page)["run"] == str(done[place])
    expect(page.get_by_role("link", name="Open the run")).to_be_visible()
