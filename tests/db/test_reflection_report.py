"""The report of a run by hand-worked numbers: rows, not calls; NULLs counted; reasons with the replies behind them."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import TextClause, text

from core.example import Example
from core.reflection_prompt import DEFAULT
from db import commands, decisions, prompts, reflection_failures, reflection_report
from db.reflection_report import WHOLE_ROW, Yield
from db.store import Store, utc_now
from tests.db.conftest import EXAMPLES

JOB, OTHER = "20260101-reflect-aaaa", "20260102-reflect-bbbb"
START = datetime(2026, 1, 1, 12, 0, 0)


def _insert(table: str, values: dict[str, Any]) -> TextClause:
    names = list(values)
    return text(f"insert into {table} ({', '.join(names)}) values ({', '.join(':' + name for name in names)})")


def add_call(
    store: Store, example_id: int, outcome: str, *, job: str = JOB, stage: str = "instruction", **more: Any
) -> str:
    """One call of a teacher, one second long, as many seconds after the start as there were calls before."""
    with store.write() as connection:
        n = int(connection.execute(text("select count(*) from teacher_calls")).scalar() or 0)
        values = {
            "call_id": f"call-{n}", "job_id": job, "example_id": example_id, "asked_id": example_id, "stage": stage,
            "prompt_version": "reflect-1", "teacher": "host", "model": "m", "raw": f"reply {n}",
            "finish_reason": "stop", "outcome": outcome, "reason": None, "critique": "{}", "prompt_tokens": 100,
            "completion_tokens": 50, "cost_usd": 0.01, "seconds": 1.0, "attempts": 1,
            "requested_at": START + timedelta(seconds=n), "round": 1, "number": 0, **more,
        }  # fmt: skip
        connection.execute(
            text(
                f"insert into teacher_calls ({', '.join(values)}) values ({', '.join(':' + name for name in values)})"
            ),
            values,
        )
    return str(values["call_id"])


def add_pair(
    store: Store, dataset_id: int, original_id: int, *, stage: str = "instruction", job: str = JOB, round: int = 1,
    ifd: tuple[float | None, float | None] = (0.5, 0.7), r_ifd: tuple[float | None, float | None] = (0.9, 0.8),
    proposal: str = "reflected", words: int = 3,
) -> int:  # fmt: skip
    """A pair whose candidate's response has so many words."""
    with store.adding_examples() as connection:
        made = Example(f"new {original_id} {stage} {round}", "", "word " * words)
        candidate = commands.add_examples(connection, [made])[made.hash]
        pair_id = int(connection.execute(text("select nextval('pair_ids')")).scalar() or 0)
        values = {
            "pair_id": pair_id, "job_id": job, "dataset_id": dataset_id, "original_id": original_id,
            "base_id": original_id, "candidate_id": candidate, "method": "v2", "stage": stage, "call_id": None,
            "teacher": "host", "proposal": proposal, "proposal_reason": "because", "ifd_original": ifd[0],
            "ifd_base": ifd[0], "ifd_candidate": ifd[1], "r_ifd_original": r_ifd[0], "r_ifd_base": r_ifd[0],
            "r_ifd_candidate": r_ifd[1], "created_at": utc_now(), "round": round,
        }  # fmt: skip
        connection.execute(_insert("pairs", values), values)
        connection.execute(
            text("""insert into reflections (job_id, dataset_id, example_id, final_id, kept, why)
            values (:job_id, :dataset_id, :original_id, :final, true, 'why')
                on conflict do nothing"""),
            {**values, "final": candidate if proposal == "reflected" else original_id},
        )
    return pair_id


def add_failure(
    store: Store, example_id: int, reason: str, *, stage: str = "instruction", transient: bool = True
) -> None:
    with store.write() as connection:
        connection.execute(
            text("insert into job_failures values (:job, 0, :id, :stage, :reason, :transient)"),
            {"job": JOB, "id": example_id, "stage": "instruction", "reason": reason, "transient": transient},
        )


@pytest.fixture
def ids(store: Store, dataset_id: int) -> list[int]:
    with store.read() as connection:
        found = connection.execute(text("select example_id from members order by position"))
        return [int(row[0]) for row in found]


def test_the_yield_counts_rows_and_not_attempts(store: Store, dataset_id: int, ids: list[int]) -> None:
    add_call(store, ids[0], "missing_tag")  # a second attempt could be read
    add_call(store, ids[0], "parsed")
    taken = add_pair(store, dataset_id, ids[0])
    add_call(store, ids[1], "parsed")
    add_pair(store, dataset_id, ids[1], ifd=(0.7, 0.5), proposal="original")
    add_call(store, ids[2], "unchanged")
    add_call(store, ids[3], "error", raw=None)
    add_call(store, ids[4], "parsed")
    add_pair(store, dataset_id, ids[4], ifd=(None, 0.5), proposal="original")
    add_pair(store, dataset_id, ids[5])  # its answer belongs to an earlier run, which this one took along
    decisions.decide(store, pair_id=taken, reviewer="Ada", verdict="accept")
    assert reflection_report.yields(store, [JOB]) == [
        Yield("instruction", 1, n_asked=6, n_answered=5, n_parsed=5, n_changed=4, n_preferred=2, n_proposed=2,
              n_unscored=1, n_decided=1, n_accepted=1)
    ]  # fmt: skip
    assert reflection_report.yields(store, [OTHER]) == []


def test_stages_and_rounds_come_in_the_order_in_which_they_run(store: Store, dataset_id: int, ids: list[int]) -> None:
    for round_number in (2, 1):
        for stage in ("response", "instruction"):
            add_pair(store, dataset_id, ids[0], stage=stage, round=round_number, r_ifd=(0.5, 0.6))
    found = reflection_report.yields(store, [JOB])
    assert [(one.stage, one.round) for one in found] == [
        ("instruction", 1), ("response", 1), ("instruction", 2), ("response", 2)
    ]  # fmt: skip
    assert [one.n_preferred for one in found] == [1, 0, 1, 0]  # a higher r-IFD is not preferred, a higher IFD is


def test_totals_leave_unknown_costs_out_and_count_them(store: Store, dataset_id: int, ids: list[int]) -> None:
    add_call(store, ids[0], "parsed")
    add_call(store, ids[1], "parsed", cost_usd=None)
    add_call(store, ids[2], "error", raw=None, prompt_tokens=None, completion_tokens=None, cost_usd=None)
    add_pair(store, dataset_id, ids[0])
    add_failure(store, ids[2], "down")
    found = reflection_report.totals(store, [JOB])
    assert (found.n_rows, found.n_changed, found.n_failed) == (1, 1, 1)
    assert (found.n_calls, found.n_readable, found.prompt_tokens) == (3, 2, 200)
    assert found.cost_usd == pytest.approx(0.01)
    assert (found.n_uncounted, found.n_unpriced) == (0, 1)
    assert reflection_report.totals(store, [OTHER]).cost_usd is None


def test_scores_before_and_after_with_what_is_missing(store: Store, dataset_id: int, ids: list[int]) -> None:
    for i, ifd in enumerate([(0.5, 0.7), (0.7, 0.5), (0.6, 0.6), (None, 0.5), (0.5, None), (None, None)]):
        add_pair(store, dataset_id, ids[i], ifd=ifd, proposal="reflected" if i < 2 else "original")
    found = reflection_report.compared(store, [JOB], score="ifd", stage="instruction")
    assert (found.n_pairs, found.n, found.n_higher, found.n_lower, found.n_equal) == (6, 3, 1, 1, 1)
    assert (found.n_missing_before, found.n_missing_after) == (2, 2)
    points = {row["example_id"]: row for row in found.points.to_pylist()}
    assert [points[i]["preferred"] for i in ids[:3]] == [True, False, False]
    whole = reflection_report.compared(store, [JOB], score="r_ifd", stage=WHOLE_ROW)
    assert whole.n_pairs == 2  # the rows that the method changed
    few = reflection_report.compared(store, [JOB], score="ifd", stage="instruction", limit=2)
    assert (few.points.num_rows, few.n) == (2, 3)
    with pytest.raises(ValueError, match="no such score"):
        reflection_report.compared(store, [JOB], score="loss; drop table pairs", stage="instruction")


def test_lengths_are_tokens_only_where_every_pair_has_them(store: Store, dataset_id: int, ids: list[int]) -> None:
    for i in (0, 1):
        add_pair(store, dataset_id, ids[i], words=i + 2)
    found = reflection_report.lengths(store, [JOB], stage="instruction")
    assert (found.unit, found.n_pairs, found.n_without) == ("characters", 2, 2)
    assert found.table["before"].to_pylist() == [len(EXAMPLES[0].output), len(EXAMPLES[1].output)]
    assert found.table["after"].to_pylist() == [10, 15]
    instructions = reflection_report.lengths(store, [JOB], stage="instruction", text="instruction")
    assert instructions.table["before"].to_pylist() == [len(e.instruction + e.input) for e in EXAMPLES[:2]]
    with store.write() as connection:
        connection.execute(
            text("insert into scorers values (7, 'k', 'n_tokens_y', 'losses', '1', 'm', 'r', 't', '{}')")
        )
        connection.execute(
            text("""insert into scores select 7, e, n, null, false from (
                select base_id e, 3.0 n from pairs union select candidate_id, 8.0 from pairs)""")
        )
    found = reflection_report.lengths(store, [JOB], stage=WHOLE_ROW)
    assert (found.unit, found.table["before"].to_pylist(), found.table["after"].to_pylist()) == (
        "tokens", [3.0, 3.0], [8.0, 8.0]
    )  # fmt: skip


def test_answers_over_time_add_up_to_all_of_them(store: Store, ids: list[int]) -> None:
    for i in range(30):
        add_call(store, ids[i % 6], "parsed" if i % 3 else "empty", cost_usd=None if i < 10 else 0.5)
    found = reflection_report.over_time(store, [JOB], most=7)
    assert len(found) <= 7
    assert sum(row["n"] for row in found) == 30
    assert sum(row["n_readable"] for row in found) == 20
    assert sum(row["cost_usd"] or 0 for row in found) == 10
    assert found[0]["cost_usd"] is None
    assert found[-1]["seconds"] == pytest.approx(30)
    assert [row["seconds"] for row in found] == sorted(row["seconds"] for row in found)
    speed = reflection_report.speed(store, [JOB])
    assert (speed[0]["n"], speed[0]["mean_completion_tokens"]) == (30, 50)
    assert speed[0]["seconds"] == [1.0] * len(reflection_report.PERCENTILES)
    assert reflection_report.seconds_per_answer(store, teacher="host") == 1.0
    assert reflection_report.seconds_per_answer(store, teacher="nobody") is None


def test_a_failure_has_the_code_of_the_rows_last_answer(store: Store, dataset_id: int, ids: list[int]) -> None:
    add_call(store, ids[0], "empty", reason="The reply is empty.")
    add_call(store, ids[0], "parsed")  # of an earlier round, which was fine
    last = add_call(store, ids[0], "cut_off", raw="<critique>It st", reason="The reply was cut off.")
    add_failure(store, ids[0], "The reply was cut off. (2 replies)")
    add_call(store, ids[1], "error", raw=None, reason="HTTP 500")
    add_failure(store, ids[1], "HTTP 500")
    add_call(store, ids[2], "empty", reason="The reply is empty.")  # asked again, and read
    add_call(store, ids[2], "parsed")
    add_failure(store, ids[2], "out of memory", transient=True)
    add_failure(store, ids[3], "said before", transient=False)
    found = {(row["stage"], row["code"]): (row["n"], row["n_transient"]) for row in
             reflection_failures.failures(store, [JOB])}  # fmt: skip
    assert found == {
        ("instruction", "cut_off"): (1, 1),
        ("instruction", "error"): (1, 1),
        ("instruction", "not_scored"): (1, 1),
        ("instruction", "other"): (1, 0),
    }
    rows = reflection_failures.failed_rows(store, [JOB], stage="instruction", code="cut_off")
    assert [(row["example_id"], row["call_id"]) for row in rows] == [(ids[0], last)]
    assert len(reflection_failures.failed_rows(store, [JOB])) == 4
    calls = reflection_failures.calls_of(store, [JOB], example_id=ids[0], stage="instruction")
    assert [call["outcome"] for call in calls] == ["cut_off", "parsed", "empty"]
    assert calls[0]["raw"] == "<critique>It st"


def test_what_several_candidates_gained(store: Store, ids: list[int]) -> None:
    lines = [  # example, stage, number, ifd, r_ifd, chosen
        (ids[0], "instruction", 0, 0.5, None, False), (ids[0], "instruction", 1, 0.8, None, True),
        (ids[0], "instruction", 2, 0.6, None, False), (ids[1], "instruction", 0, 0.9, None, True),
        (ids[1], "instruction", 2, 0.1, None, False), (ids[2], "instruction", 0, 0.4, None, True),
        (ids[3], "instruction", 0, None, None, False), (ids[3], "instruction", 1, 0.4, None, True),
        (ids[0], "response", 0, None, 0.9, False), (ids[0], "response", 1, None, 0.7, True),
    ]  # fmt: skip
    with store.write() as connection:
        for i, (example_id, stage, number, ifd, r_ifd, chosen) in enumerate(lines):
            values = {
                "call_id": f"c{i}", "job_id": JOB, "example_id": example_id, "stage": stage, "round": 1,
                "number": number, "base_id": 1, "candidate_id": 1, "ifd": ifd, "r_ifd": r_ifd, "chosen": chosen,
            }  # fmt: skip
            connection.execute(_insert("candidates", values), values)
    instruction, response = reflection_report.candidates(store, [JOB])
    # The row with one candidate alone is left out; a number that was passed over (equal texts) leaves no gap.
    assert (instruction.n_rows, instruction.n_first_best) == (3, 1)
    assert [(row["n"], row["n_chosen"], row["n_null"]) for row in instruction.by_number] == [
        (3, 1, 1),
        (3, 2, 0),
        (1, 0, 0),
    ]
    # Best of the first two minus the first: 0.3 and 0.0; the row whose first has no score has no gain.
    assert [row["mean_gain"] for row in instruction.by_number] == pytest.approx([0.0, 0.15, 0.15])
    assert [row["mean_gain"] for row in response.by_number] == pytest.approx([0.0, 0.2])
    assert reflection_report.candidates(store, [OTHER]) == []


def test_all_runs_of_a_dataset_are_known_also_where_their_job_is_forgotten(
    store: Store, dataset_id: int, ids: list[int]
) -> None:
    add_pair(store, dataset_id, ids[0])
    with store.write() as connection:
        connection.execute(
            text("insert into jobs values (:job, 'reflect', 'Again', :dataset, :now, null, null)"),
            {"job": OTHER, "dataset": dataset_id, "now": START},
        )
    assert [(run["job_id"], run["title"]) for run in reflection_report.runs(store, dataset_id)] == [
        (OTHER, "Again"), (JOB, None)
    ]  # fmt: skip


def test_uses_of_prompts_and_the_texts_that_runs_recorded(store: Store, ids: list[int]) -> None:
    for i, outcome in enumerate(("parsed", "unchanged", "empty")):
        add_call(store, ids[i % 2], outcome)
    used = prompts.usage(store)["reflect-1"]
    assert (used["n_calls"], used["n_rows"], used["n_readable"]) == (3, 2, 2)
    assert used["first_at"] == START
    prompt = DEFAULT["response"]
    with store.write() as connection:
        for version, content in (
            (prompt.version, prompt.to_params()),
            ("later-1", {"version": "later-1", "mood": "?"}),
        ):
            connection.execute(
                text("insert into prompts values (:version, 'response', :content, :now)"),
                {"version": version, "content": json.dumps(content), "now": START},
            )
    assert prompts.recorded(store) == {prompt.version: prompt}


def test_the_same_draw_gives_the_same_rows(store: Store, dataset_id: int, ids: list[int]) -> None:
    first = prompts.sampled_rows(store, dataset_id, n=3, seed=1)
    assert first == prompts.sampled_rows(store, dataset_id, n=3, seed=1)
    assert len({example_id for example_id, _ in first}) == 3
    draws = {tuple(i for i, _ in prompts.sampled_rows(store, dataset_id, n=3, seed=seed)) for seed in range(8)}
    assert len(draws) > 1
    asked = prompts.sampled_rows(store, dataset_id, n=5, seed=0, among=[ids[2], 10**9])
    assert [(i, e) for i, e in asked] == [(ids[2], EXAMPLES[2])]
