"""Comparisons on a real store: verdicts of jobs, of logs and of people, side by side."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from core.agreement import cohen_kappa
from core.batch_ledger import Ledger
from core.errors import InputError, JobError, SettingsError, StoreError
from core.example import Example
from core.jobs.folder import JobFolder
from core.jobs.runner import Progress
from core.judge_job import run
from core.judge_log import JudgeLog, parse_log, read_log
from core.judging import preference_of_choice
from core.teacher import TeacherSettings
from db import answers, collecting, commands, jobs, judging
from db.store import Store, rows
from tests.core.test_judge_log import PUBLISHED, SHARED, entry
from tests.db.conftest import batch
from tests.judge_teacher import JudgeTeacher

QUALITIES = [(8, 5), (4, 9), (6, 6), (7, 3), (None, 5)]


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789")


def settings(teacher: JudgeTeacher, **changes: Any) -> TeacherSettings:
    known: dict[str, Any] = {"temperature": 0.0, "max_retries": 0, "price_in": 1.0, "price_out": 2.0}
    return TeacherSettings(teacher.base_url, "small", **known | changes)


@pytest.fixture
def comparison_id(store: Store) -> int:
    """Five questions with two answer sets; the first one lacks an answer to the last question."""
    questions = [Example(f"Question {i}?", "", "") for i in range(len(QUALITIES))]
    dataset_id = commands.import_dataset(store, [batch(questions)], name="questions", source="test")
    for name, place in (("ours", 0), ("theirs", 1)):
        given = [
            {"instruction": f"Question {i}?", "output": f"Answer of {name} to {i}. [quality {pair[place]}]"}
            for i, pair in enumerate(QUALITIES)
            if pair[place] is not None
        ]
        answers.import_answers(store, dataset_id=dataset_id, name=name, rows=given)
    sets = {one["name"]: one["answer_set_id"] for one in answers.answer_sets(store)}
    return judging.create_comparison(store, name="ours or theirs", first_id=sets["ours"], second_id=sets["theirs"])


def work(store: Store, folder: JobFolder) -> None:
    """Do a job and take in its shards, as server and worker do."""
    spec = folder.spec()
    run(folder, spec, Progress(folder, spec))
    folder.append_event("done")
    take_in(store, folder)


def take_in(store: Store, folder: JobFolder) -> None:
    for shard in sorted(folder.finished_shards()):
        collecting.collect(store, folder, shard)


def outcomes(store: Store, comparison_id: int, judge_id: int) -> list[str]:
    return judging.outcomes(store, comparison_id, judge_id)["outcome"].to_pylist()


# --- comparisons -------------------------------------------------------------------------------------------------


def test_a_comparison_is_listed_with_what_it_compares(store: Store, comparison_id: int) -> None:
    (found,) = judging.comparisons(store)
    assert (found["comparison_id"], found["name"], found["dataset"]) == (comparison_id, "ours or theirs", "questions")
    assert (found["first"], found["second"]) == ("ours", "theirs")
    assert (found["n_items"], found["n_without_answer"]) == (4, 1)
    assert (found["judges"], found["job_ids"], found["details"]) == ([], [], {})


def test_comparisons_that_make_no_sense_are_refused(store: Store, comparison_id: int) -> None:
    (one,) = judging.comparisons(store)
    with pytest.raises(StoreError, match="no name"):
        judging.create_comparison(store, name=" ", first_id=one["first_id"], second_id=one["second_id"])
    with pytest.raises(StoreError, match="named 'ours or theirs' already"):
        judging.create_comparison(store, name="ours or theirs", first_id=one["first_id"], second_id=one["second_id"])
    with pytest.raises(StoreError, match="two different answer sets"):
        judging.create_comparison(store, name="x", first_id=one["first_id"], second_id=one["first_id"])
    with pytest.raises(StoreError, match="Answer set 99"):
        judging.create_comparison(store, name="x", first_id=one["first_id"], second_id=99)
    other = commands.import_dataset(store, [batch([Example("Another?", "", "")])], name="other", source="test")
    other_set, _ = answers.import_answers(
        store, dataset_id=other, name="other answers", rows=[{"instruction": "Another?", "output": "Yes."}]
    )
    with pytest.raises(StoreError, match="different test sets"):
        judging.create_comparison(store, name="x", first_id=one["first_id"], second_id=other_set)
    assert len(judging.comparisons(store)) == 1


# --- jobs --------------------------------------------------------------------------------------------------------


def test_a_job_gives_every_item_its_outcome(store: Store, comparison_id: int, tmp_path: Path) -> None:
    with JudgeTeacher() as judge:
        plan = judging.plan_judge(store, comparison_id=comparison_id, teacher=settings(judge))
        assert (plan.n_items, plan.n_calls, plan.n_without_answer, plan.n_done) == (4, 8, 1, 0)
        assert plan.estimate.calls == 8
        assert plan.estimate.cost_usd is not None
        folder = judging.submit_judge(store, tmp_path, comparison_id=comparison_id, teacher=settings(judge))
        spec = folder.spec()
        assert (spec.kind, spec.device, spec.n_rows) == ("judge", "network", 10)
        work(store, folder)
        assert len(judge.requests) == 8
    (found,) = judging.comparisons(store)
    ((judge_id, name, kind),) = found["judges"]
    assert (name, kind, found["job_ids"]) == ("small", "model", [folder.job_id])
    table = judging.outcomes(store, comparison_id, judge_id)
    assert table["instruction"].to_pylist() == [f"Question {i}?" for i in range(5)]
    assert table["outcome"].to_pylist() == ["win", "lose", "tie", "win", "unparsed"]
    assert table["reason"].to_pylist()[:4] == [None] * 4
    assert str(table["reason"][4]).startswith("No answer: the first answer set")
    assert table["score_first"].to_pylist()[:2] == table["score_first_swapped"].to_pylist()[:2] == [8, 4]
    assert table["score_second"].to_pylist()[:2] == table["score_second_swapped"].to_pylist()[:2] == [5, 9]
    assert table["n_characters_second"][4].as_py() == len("Answer of theirs to 4. [quality 5]")
    summary = judging.summary(store, comparison_id, judge_id)
    assert (summary.win, summary.tie, summary.lose, summary.unparsed, summary.win_score) == (2, 1, 1, 1, 1.25)
    (total,) = judging.totals(store, comparison_id)
    assert (total["n_verdicts"], total["n_calls"], total["n_unreadable"]) == (8, 8, 2)
    assert total["reasons"] == [("no_answer", 2)]
    assert total["cost_usd"] > 0
    of_job = judging.job_totals(store, folder.job_id)
    assert (of_job["n_calls"], of_job["n_parsed"]) == (8, 8)
    assert of_job["cost_usd"] == pytest.approx(total["cost_usd"], rel=1e-12)  # a sum in the order the threads came
    assert [row["reason"][:9] for row in jobs.failures(store, folder.job_id)] == ["No answer"]


def test_only_what_is_missing_is_asked_again(store: Store, comparison_id: int, tmp_path: Path) -> None:
    with JudgeTeacher(match={"Question 1?": "no_verdict"}) as judge:
        first = judging.submit_judge(store, tmp_path, comparison_id=comparison_id, teacher=settings(judge), attempts=2)
        work(store, first)
        judge_id = judging.comparisons(store)[0]["judges"][0][0]
        assert outcomes(store, comparison_id, judge_id) == ["win", "unparsed", "tie", "win", "unparsed"]
        judge.match = {}
        n_before = len(judge.requests)
        plan = judging.plan_judge(store, comparison_id=comparison_id, teacher=settings(judge))
        assert (plan.n_items, plan.n_calls, plan.n_without_answer, plan.n_done) == (1, 2, 0, 3)
        assert plan.wanted["attempt"].to_pylist() == [3, 3]
        work(store, judging.submit_judge(store, tmp_path, comparison_id=comparison_id, teacher=settings(judge)))
        assert len(judge.requests) == n_before + 2
        assert outcomes(store, comparison_id, judge_id) == ["win", "lose", "tie", "win", "unparsed"]
        with pytest.raises(StoreError, match="Nothing is left to ask"):
            judging.submit_judge(store, tmp_path, comparison_id=comparison_id, teacher=settings(judge))
        item_id = judging.outcomes(store, comparison_id, judge_id)["item_id"][1].as_py()
    texts = judging.verdict_texts(store, comparison_id, item_id)
    assert [(one["swapped"], one["attempt"], one["outcome"], one["current"]) for one in texts] == [
        (False, 1, "no_scores", False), (False, 2, "no_scores", False), (False, 3, "parsed", True),
        (True, 1, "no_scores", False), (True, 2, "no_scores", False), (True, 3, "parsed", True),
    ]  # fmt: skip
    assert all(one["raw"] for one in texts)


def test_a_chosen_part_is_judged_and_the_rest_is_not_unparsed(store: Store, comparison_id: int, tmp_path: Path) -> None:
    with JudgeTeacher() as judge:
        items = judging.plan_judge(store, comparison_id=comparison_id, teacher=settings(judge)).wanted["example_id"]
        chosen = sorted(set(items.to_pylist()))[:2]
        work(store, judging.submit_judge(
            store, tmp_path, comparison_id=comparison_id, teacher=settings(judge), item_ids=chosen))  # fmt: skip
    judge_id = judging.comparisons(store)[0]["judges"][0][0]
    assert outcomes(store, comparison_id, judge_id) == ["win", "lose"]


def test_two_judges_stand_side_by_side(store: Store, comparison_id: int, tmp_path: Path) -> None:
    with JudgeTeacher() as fair, JudgeTeacher(bias=5.0) as biased:
        for judge in (fair, biased):
            work(store, judging.submit_judge(store, tmp_path, comparison_id=comparison_id, teacher=settings(judge)))
    one, other = judging.judges(store, comparison_id)
    assert (one["kind"], other["kind"], one["n_items"], other["n_items"]) == ("model", "model", 5, 5)
    assert one["settings"]["base_url"] != other["settings"]["base_url"]
    assert outcomes(store, comparison_id, one["judge_id"]) == ["win", "lose", "tie", "win", "unparsed"]
    assert outcomes(store, comparison_id, other["judge_id"]) == ["tie", "lose", "tie", "tie", "unparsed"]
    assert len(judging.judges(store)) == 2


def test_an_interrupted_job_is_not_paid_twice_by_the_next(store: Store, comparison_id: int, tmp_path: Path) -> None:
    """The budget ends the first job; the next one takes the replies along that did not make a whole shard."""
    with JudgeTeacher() as judge:
        tight = settings(judge, budget_usd=0.0004, concurrency=1)
        first = judging.submit_judge(store, tmp_path, comparison_id=comparison_id, teacher=tight)
        with pytest.raises(StoreError, match="is at 'ours or theirs' already"):
            judging.submit_judge(store, tmp_path, comparison_id=comparison_id, teacher=tight)
        spec = first.spec()
        with pytest.raises(Exception, match="budget"):
            run(first, spec, Progress(first, spec))
        first.append_event("failed", message="The budget is spent.")
        n_paid = len(judge.requests)
        assert 0 < n_paid < 8
        assert len(first.answers()) == n_paid
        assert first.finished_shards() == set()
        work(store, judging.submit_judge(store, tmp_path, comparison_id=comparison_id, teacher=settings(judge)))
        assert len(judge.requests) == 8
    judge_id = judging.comparisons(store)[0]["judges"][0][0]
    assert outcomes(store, comparison_id, judge_id) == ["win", "lose", "tie", "win", "unparsed"]


def test_what_is_with_the_judge_in_a_batch_is_not_asked_by_another_job(
    store: Store, comparison_id: int, tmp_path: Path
) -> None:
    with JudgeTeacher() as judge:
        batched = settings(judge, mode="batch")
        first = judging.submit_judge(store, tmp_path, comparison_id=comparison_id, teacher=batched)
        Ledger.read(first).intend(["t-1"], cost_usd=None)
        first.append_event("failed", message="The server was stopped.")
        with pytest.raises(JobError, match=r"1 question of job .* before you ask this judge for the rest"):
            judging.submit_judge(store, tmp_path, comparison_id=comparison_id, teacher=batched)


def test_a_shard_is_taken_in_once_and_a_removed_comparison_takes_none(
    store: Store, comparison_id: int, tmp_path: Path
) -> None:
    with JudgeTeacher() as judge:
        folder = judging.submit_judge(store, tmp_path, comparison_id=comparison_id, teacher=settings(judge))
        work(store, folder)
        take_in(store, folder)
        with store.read() as connection:
            assert rows(connection, "select count(*) n from judgements")[0]["n"] == 10
        other = settings(judge, temperature=0.5)
        late = judging.submit_judge(store, tmp_path, comparison_id=comparison_id, teacher=other)
        judging.remove_comparison(store, comparison_id)
        work(store, late)
    assert judging.comparisons(store) == []
    with store.read() as connection:
        assert rows(connection, "select count(*) n from judgements")[0]["n"] == 0
    assert {row["reason"][:26] for row in jobs.failures(store, late.job_id)} == {"The comparison was removed"}
    assert judging.judges(store)  # who judged stays known


def test_recorded_answers_judge_nothing(store: Store, comparison_id: int, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="Recorded answers hold no verdicts"):
        judging.submit_judge(store, tmp_path, comparison_id=comparison_id, teacher=None)
    with pytest.raises(StoreError, match="Comparison 99"):
        judging.plan_judge(store, comparison_id=99, teacher=TeacherSettings("http://127.0.0.1:9/v1", "x"))


# --- people ------------------------------------------------------------------------------------------------------


def judge_all(store: Store, comparison_id: int, who: str) -> list[int]:
    """A person who takes the answer with the higher quality; returns the items in the order in which they came."""
    order = []
    while found := judging.next_items(store, comparison_id, who, limit=1, seed=3):
        item = found[0]
        first, second = (float(item[name].split("quality ")[1].rstrip("]")) for name in ("shown_first", "shown_second"))
        choice = (first > second) - (first < second)
        judging.judge_item(
            store,
            comparison_id=comparison_id,
            reviewer=who,
            item_id=item["item_id"],
            swapped=item["swapped"],
            preference=preference_of_choice(choice, swapped=item["swapped"]),
            seconds=2.0,
            press=f"{who}-{item['item_id']}",
        )
        order.append(item["item_id"])
    return order


def test_a_person_judges_blind_in_an_order_of_their_own(store: Store, comparison_id: int) -> None:
    ada = judging.next_items(store, comparison_id, "Ada", limit=10, seed=3)
    assert len(ada) == 4  # the question that lacks an answer cannot be judged
    assert set(ada[0]) == {"item_id", "instruction", "input", "swapped", "shown_first", "shown_second"}
    assert ada == judging.next_items(store, comparison_id, " Ada ", limit=10, seed=3)
    orders = {
        who: [one["item_id"] for one in judging.next_items(store, comparison_id, who, limit=10, seed=3)]
        for who in ("Ada", "Ben", "Cy", "Dee")
    }
    assert len({tuple(order) for order in orders.values()}) > 1
    sides = [
        one["swapped"] for i in range(30) for one in judging.next_items(store, comparison_id, f"P{i}", limit=10, seed=3)
    ]
    assert 40 < sum(sides) < 80  # of 120
    for one in ada:
        assert ("ours" in one["shown_first"]) != one["swapped"]
    order = judge_all(store, comparison_id, "Ada")
    assert order == [one["item_id"] for one in ada]
    assert judging.progress(store, comparison_id, "Ada") == {"n_items": 4, "n_judged": 4}
    assert judging.progress(store, comparison_id, "Ben") == {"n_items": 4, "n_judged": 0}
    (person,) = judging.judges(store, comparison_id)
    assert (person["name"], person["kind"], person["n_items"]) == ("Ada", "person", 4)
    assert outcomes(store, comparison_id, person["judge_id"]) == ["win", "lose", "tie", "win"]


def test_people_and_models_are_compared_on_the_items_both_judged(
    store: Store, comparison_id: int, tmp_path: Path
) -> None:
    judge_all(store, comparison_id, "Ada")
    with JudgeTeacher(bias=5.0) as judge:
        work(store, judging.submit_judge(store, tmp_path, comparison_id=comparison_id, teacher=settings(judge)))
    model, person = judging.judges(store, comparison_id)
    verdicts = [
        dict(zip(table["item_id"].to_pylist(), table["outcome"].to_pylist(), strict=True))
        for table in (judging.outcomes(store, comparison_id, one["judge_id"]) for one in (model, person))
    ]
    items = sorted(set(verdicts[0]) & set(verdicts[1]))
    found = cohen_kappa([verdicts[0][item] for item in items], [verdicts[1][item] for item in items])
    # tie, lose, tie, tie against win, lose, tie, win: half agree; by chance (3*1 + 1*1) / 16.
    assert (found.n, found.observed) == (4, 0.5)
    assert found.value == pytest.approx((0.5 - 0.25) / 0.75)


def test_a_press_counts_once_and_can_be_taken_back(store: Store, comparison_id: int) -> None:
    item = judging.next_items(store, comparison_id, "Ada", seed=3)[0]
    verdict: dict[str, Any] = {
        "comparison_id": comparison_id, "reviewer": "Ada", "item_id": item["item_id"], "swapped": item["swapped"],
    }  # fmt: skip
    first = judging.judge_item(store, **verdict, preference=1, seconds=1.0, press="a")
    assert judging.judge_item(store, **verdict, preference=-1, seconds=1.0, press="a") == first
    assert judging.progress(store, comparison_id, "Ada")["n_judged"] == 1
    (person,) = judging.judges(store, comparison_id)
    assert outcomes(store, comparison_id, person["judge_id"]) == ["win"]
    taken_back = judging.undo_judgement(store, comparison_id=comparison_id, reviewer="Ada", press="u")
    assert taken_back is not None
    assert (taken_back["judgement_id"], taken_back["item_id"]) == (first, item["item_id"])
    assert judging.undo_judgement(store, comparison_id=comparison_id, reviewer="Ada", press="u") == taken_back
    assert judging.undo_judgement(store, comparison_id=comparison_id, reviewer="Ada", press="v") is None
    assert judging.progress(store, comparison_id, "Ada")["n_judged"] == 0
    assert judging.next_items(store, comparison_id, "Ada", seed=3)[0] == item  # it comes again, on the same side
    assert judging.verdict_texts(store, comparison_id, item["item_id"]) == []
    judging.judge_item(store, **verdict, preference=0, press="b")
    judging.judge_item(store, **verdict, preference=-1, press="c")  # a second verdict takes the place of the first
    assert outcomes(store, comparison_id, person["judge_id"]) == ["lose"]
    with store.read() as connection:
        assert rows(connection, "select count(*) n from judgements")[0]["n"] == 4


def test_verdicts_that_say_nothing_are_not_stored(store: Store, comparison_id: int) -> None:
    item_id = judging.next_items(store, comparison_id, "Ada")[0]["item_id"]
    verdict: dict[str, Any] = {"comparison_id": comparison_id, "swapped": False}
    with pytest.raises(StoreError, match="2 is no preference"):
        judging.judge_item(store, **verdict, reviewer="Ada", item_id=item_id, preference=2)
    with pytest.raises(StoreError, match="name of the person"):
        judging.judge_item(store, **verdict, reviewer=" ", item_id=item_id, preference=1)
    with pytest.raises(StoreError, match="has no item 999"):
        judging.judge_item(store, **verdict, reviewer="Ada", item_id=999, preference=1)
    with store.read() as connection:
        lacking = rows(connection, "select item_id from answers where answer is null")[0]["item_id"]
    with pytest.raises(StoreError, match="lacks an answer"):
        judging.judge_item(store, **verdict, reviewer="Ada", item_id=lacking, preference=1)
    assert judging.judges(store, comparison_id) == []
    assert judging.undo_judgement(store, comparison_id=comparison_id, reviewer="Ada") is None


# --- logs --------------------------------------------------------------------------------------------------------


def log_of(*entries: dict[str, Any], name: str = "log.json") -> JudgeLog:
    return parse_log(
        json.dumps({"Meta_Info": {"dataset_name": "made"}, "data": list(entries)}).encode(), file_name=name
    )


ENTRIES = (
    entry(text="One?"),
    entry("[5, 5]", "[5, 5]", text="Two?"),
    entry("[2, 9]", "[9, 2]", text="Three?"),
    entry("[-1, -1]", text="Four?"),
    entry("[9, 2]", "[2, 9]", text="One?", Answer1="Another answer."),  # the question of the first entry again
)
NAMES = {"name": "Ours or theirs", "first_name": "ours", "second_name": "theirs"}


def test_a_log_becomes_questions_answers_and_verdicts(store: Store) -> None:
    comparison_id = judging.import_log(store, log_of(*ENTRIES), **NAMES, judge_name="gpt-4", created_by="Ada")
    (found,) = judging.comparisons(store)
    assert (found["comparison_id"], found["name"], found["n_items"]) == (comparison_id, "Ours or theirs", 5)
    assert (found["first"], found["second"], found["created_by"]) == ("ours", "theirs", "Ada")
    assert [(name, kind) for _, name, kind in found["judges"]] == [("gpt-4", "log")]
    table = judging.outcomes(store, comparison_id, found["judges"][0][0])
    assert Counter(table["outcome"].to_pylist()) == {"win": 2, "tie": 1, "lose": 1, "unparsed": 1}
    third = table.filter([text == "Three?" for text in table["instruction"].to_pylist()]).to_pylist()[0]
    assert (third["score_first"], third["score_second"]) == (2, 9)
    assert (third["score_first_swapped"], third["score_second_swapped"]) == (2, 9)  # written as [9, 2]
    fourth = table.filter([text == "Four?" for text in table["instruction"].to_pylist()]).to_pylist()[0]
    assert fourth["reason"] == "The log holds no readable scores."
    ones = table.filter([text == "One?" for text in table["instruction"].to_pylist()]).to_pylist()
    assert len(ones) == 2
    assert "Entry 5 of the judge log" in "".join(one["input"] for one in ones)
    (dataset,) = {one["dataset"] for one in judging.comparisons(store)}
    assert dataset == "Ours or theirs: questions"
    texts = judging.verdict_texts(store, comparison_id, ones[0]["item_id"])
    assert [one["raw"] for one in texts] == ["8 7\nGood.", "7 8\nGood."]
    assert judging.item_texts(store, comparison_id, ones[0]["item_id"])["answer_second"] == "Wet."


def test_another_judge_of_the_same_answers_joins_the_comparison(store: Store) -> None:
    comparison_id = judging.import_log(store, log_of(*ENTRIES), **NAMES, judge_name="gpt-4")
    other = [{**one, "scores": "[1, 9]", "scores_reverse": "[9, 1]"} for one in ENTRIES]
    with pytest.raises(StoreError, match="'gpt-4' has verdicts on these answers already"):
        judging.import_log(store, log_of(*other), **NAMES, judge_name="gpt-4")
    assert judging.import_log(store, log_of(*other), **NAMES, judge_name="gpt-3.5") == comparison_id
    (found,) = judging.comparisons(store)
    assert [name for _, name, _ in found["judges"]] == ["gpt-4", "gpt-3.5"]
    assert outcomes(store, comparison_id, found["judges"][1][0]) == ["lose"] * 5
    assert len(answers.answer_sets(store)) == 2
    assert [file["judge"] for file in found["details"]["judge_log"]["files"]] == ["gpt-4", "gpt-3.5"]


def test_the_same_file_is_not_imported_twice(store: Store) -> None:
    judging.import_log(store, log_of(*ENTRIES), **NAMES, judge_name="gpt-4")
    with pytest.raises(StoreError, match="imported before, into the comparison 'Ours or theirs'"):
        judging.import_log(store, log_of(*ENTRIES, name="copy.json"), **NAMES | {"name": "B"}, judge_name="gpt-5")
    with pytest.raises(StoreError, match="named 'Ours or theirs' already"):
        judging.import_log(store, log_of(*ENTRIES[:2]), **NAMES, judge_name="gpt-4")
    again = judging.import_log(store, log_of(*ENTRIES[:2]), **NAMES | {"name": "Part"}, judge_name="gpt-4")
    part = next(one for one in judging.comparisons(store) if one["comparison_id"] == again)
    assert (part["first"], part["details"]["first_model"]) == ("ours (Part)", "ours")


def test_a_log_that_is_not_whole_imports_nothing(store: Store) -> None:
    lacking = entry(text="Two?")
    del lacking["Answer2"]
    with pytest.raises(InputError, match=r"Entry 2 of the judge log log\.json has no Answer2"):
        judging.import_log(store, log_of(entry(), lacking), **NAMES, judge_name="gpt-4")
    with pytest.raises(InputError, match="holds no entries"):
        judging.import_log(store, log_of(), **NAMES, judge_name="gpt-4")
    for changes, message in (
        ({"name": " "}, "no name"), ({"first_name": " "}, "no name"), ({"second_name": "ours"}, "different names"),
        ({"judge_name": ""}, "no name"),
    ):  # fmt: skip
        with pytest.raises(StoreError, match=message):
            judging.import_log(store, log_of(*ENTRIES), **NAMES | {"judge_name": "gpt-4"} | changes)
    with store.read() as connection:
        for table in ("datasets", "members", "answer_sets", "answers", "comparisons", "judges", "judgements"):
            assert rows(connection, f"select count(*) n from {table}")[0]["n"] == 0


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared judge logs are not there")
def test_published_logs_keep_their_counts_in_the_store(store: Store) -> None:
    """Both judges of a test set stand beside each other; the question that sinstruct asks twice is two items."""
    found = {}
    for name in PUBLISHED:
        test_set, judge = name.split("_")
        found[name] = judging.import_log(
            store, read_log(SHARED / f"{name}.json"), name=f"Cherry or Alpaca on {test_set}", first_name="Cherry 5%",
            second_name="Alpaca", judge_name=judge,
        )  # fmt: skip
    assert found["vicuna_gpt4"] == found["vicuna_gpt35"]
    assert len(judging.comparisons(store)) == 2
    for name, counts in PUBLISHED.items():
        judge_id = next(
            one["judge_id"] for one in judging.judges(store, found[name]) if one["name"] == name.split("_")[1]
        )
        summary = judging.summary(store, found[name], judge_id)
        assert (summary.win, summary.tie, summary.lose, summary.unparsed) == (*counts, 0)
