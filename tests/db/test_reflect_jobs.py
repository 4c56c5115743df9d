"""Reflect jobs and the store: what they take along, what is left to do, rounds, candidates, prompts."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from sqlalchemy import text

from core.batch_ledger import Ledger
from core.errors import JobError, SettingsError, StoreError
from core.example import Example
from core.filters import ExportChoice
from core.jobs.folder import JobFolder
from core.kept_answers import Kept, read_kept
from core.lm import StudentSettings
from core.reflecting import ReflectOptions, _works
from core.reflection import INDICATORS, build_question
from core.reflection_calls import answer_key
from core.reflection_prompt import DEFAULT
from core.reflection_records import (
    Call,
    CandidateRecord,
    Failure,
    Final,
    PairRecord,
    PairScores,
    ReflectedRow,
    ScoreValue,
    to_table,
)
from core.scoring import Models, scorer_identities
from core.teacher import Answer, LocalTeacherSettings, TeacherSettings
from db import collecting, commands, curated, jobs
from db.decisions import decide
from db.store import Store, rows
from tests.db.conftest import EXAMPLES, add_pair

TEACHER = TeacherSettings("http://127.0.0.1:9/v1", "m", api_key_env="", price_in=1.0, price_out=1.0, budget_usd=1.0)
KNOWN = PairScores(0.5, None, 0.9, None)


@pytest.fixture
def student(tmp_path: Path) -> StudentSettings:
    """What tells one student from another: the files of its folder. Nothing here loads them."""
    path = tmp_path / "student"
    path.mkdir()
    (path / "config.json").write_text('{"model_type": "llama"}')
    (path / "tokenizer.json").write_text("{}")
    (path / "model.safetensors").write_bytes(b"weights")
    return StudentSettings(model=str(path))


def members(store: Store) -> list[int]:
    return [row["example_id"] for row in found(store, "select example_id from members order by position")]


def found(store: Store, sql: str, **parameters: Any) -> list[dict[str, Any]]:
    with store.read() as connection:
        return rows(connection, sql, **parameters)


def submit(
    store: Store, path: Path, dataset_id: int, options: ReflectOptions, ids: Sequence[int] | None = None, **more: Any
) -> JobFolder:
    return jobs.submit_reflect(
        store,
        path / "jobs",
        dataset_id=dataset_id,
        example_ids=members(store) if ids is None else ids,
        options=options,
        title="Reflect",
        **more,
    )


def call_of(call_id: str, stage: str, asked: Example, *, round_number: int = 1, number: int = 0) -> Call:
    return Call(
        call_id, stage, asked, DEFAULT[stage].version, "127.0.0.1:9", "m", "raw", "stop", "parsed", None, "{}",
        10, 20, 0.001, 0.5, 1, "2026-01-01T00:00:00", round_number, number,
    )  # fmt: skip


def pair_of(call: Call, base: Example, candidate: Example) -> PairRecord:
    values = tuple(
        ScoreValue(which, key, 0.5, None, False) for which in ("original", "candidate") for key in INDICATORS
    )
    return PairRecord(
        call.stage, "v2", base, candidate, call.call_id, "reflected", f"because {call.call_id}", KNOWN, KNOWN, KNOWN,
        values, call.round,
    )  # fmt: skip


def reflected(example_id: int, original: Example, *, n_candidates: int = 1, rounds: int = 1) -> ReflectedRow:
    calls: list[Call] = []
    pairs: list[PairRecord] = []
    candidates: list[CandidateRecord] = []
    at = original
    for number in range(1, rounds + 1):
        for stage in ("instruction", "response"):
            base = at
            for place in range(n_candidates):
                made = Example(base.instruction, "", f"{base.output} {stage[0]}{number}{place}")
                call = call_of(f"{example_id}-{stage}-{number}-{place}", stage, base, round_number=number, number=place)
                own = () if place == 0 else tuple(ScoreValue("candidate", key, 0.4, None, False) for key in INDICATORS)
                calls.append(call)
                candidates.append(
                    CandidateRecord(stage, number, place, call.call_id, base, made, KNOWN, place == 0, own)
                )
                if place == 0:
                    pairs.append(pair_of(call, base, made))
                    at = made
    final = Final(at.instruction, at.input, at.output, True, "kept")
    return ReflectedRow(example_id, "ok", None, False, (), tuple(calls), tuple(pairs), final, tuple(candidates))


# What a job takes along


def put_scores(store: Store, student: StudentSettings, values: Mapping[int, Mapping[str, float | None]]) -> None:
    from core import scoring

    with store.write() as connection:
        revision = scoring.resolve_revision(student.model, student.revision)
        identities = scorer_identities(INDICATORS, Models(student=student), {"student": revision})
        ids = commands.ensure_scorers(connection, identities)
        cells = [(ids[key], one, value) for one, named in values.items() for key, value in named.items()]
        commands.put_scores(
            connection,
            pa.table(
                {
                    "scorer_id": pa.array([cell[0] for cell in cells], pa.int64()),
                    "example_id": pa.array([cell[1] for cell in cells], pa.int64()),
                    "value": pa.array([cell[2] for cell in cells], pa.float64()),
                    "reason": [None if cell[2] is not None else "out of memory" for cell in cells],
                    "transient": [cell[2] is None for cell in cells],
                }
            ),
        )


OUTPUTS = (
    "ifd", "r_ifd", "loss_y", "n_tokens_y", "loss_y_given_x", "n_tokens_y_given_x", "loss_x", "n_tokens_x",
    "loss_x_given_y", "n_tokens_x_given_y",
)  # fmt: skip


def test_scores_that_the_student_gave_are_taken_along_and_not_computed_again(
    store: Store, dataset_id: int, student: StudentSettings, tmp_path: Path
) -> None:
    first, second, third = members(store)[:3]
    whole = dict.fromkeys(OUTPUTS, 0.25)
    put_scores(store, student, {first: whole, second: {"ifd": 0.5}, third: {**whole, "r_ifd": None}})
    folder = submit(store, tmp_path, dataset_id, ReflectOptions("v2", TEACHER, student))
    with folder.reading_input() as read:
        works = list(_works(read, pending=folder.shard_ranges()))
    assert [bool(work.known) for work in works] == [True, False, False, False, False, False]
    [scores] = works[0].known.values()
    assert {key: value.value for key, value in scores.items()} == whole
    other = StudentSettings(model=student.model, template="vicuna")
    again = submit(store, tmp_path, dataset_id, ReflectOptions("v2", TEACHER, other))
    assert "known_original" not in again.input_columns()  # another template, another scorer


def test_the_input_of_a_job_says_where_rows_go_on(
    store: Store, dataset_id: int, student: StudentSettings, tmp_path: Path
) -> None:
    first, second, third = members(store)[:3]
    options = ReflectOptions("v2", TEACHER, student)
    plain = submit(store, tmp_path, dataset_id, options, [second, first, second])
    assert plain.input_columns() == ["example_id", "instruction", "input", "output"]
    assert plain.input_table()["example_id"].to_pylist() == [second, first]
    starts, before = {first: second, third: third}, {first: 2}
    folder = submit(store, tmp_path, dataset_id, options, [first, third], starts=starts, rounds_before=before)
    with folder.reading_input() as read:
        one, other = _works(read, pending=folder.shard_ranges())
    assert (one.original, one.start, one.round_before) == (EXAMPLES[0], EXAMPLES[1], 2)
    assert (other.original, other.start, other.round_before) == (EXAMPLES[2], None, 0)
    with pytest.raises(StoreError, match="No row is chosen"):
        submit(store, tmp_path, dataset_id, options, [])


@pytest.mark.parametrize(
    ("teacher", "device", "expected"),
    [
        (None, "cpu", "cpu"),
        (TEACHER, "cpu", "cpu"),
        (replace(TEACHER, mode="batch"), "cpu", "network"),
        (replace(TEACHER, mode="batch"), "cuda", "cuda"),
        (LocalTeacherSettings("m", device="cuda"), "cpu", "cuda"),
        (LocalTeacherSettings("m"), "cpu", "cpu"),
    ],
)
def test_the_device_that_a_job_waits_for(
    store: Store, dataset_id: int, student: StudentSettings, tmp_path: Path, teacher: Any, device: str, expected: str
) -> None:
    options = ReflectOptions("v2", teacher, replace(student, device=device))
    assert submit(store, tmp_path, dataset_id, options).spec().device == expected


def test_a_prompts_version_is_recorded_once_and_never_changes(
    store: Store, dataset_id: int, student: StudentSettings, tmp_path: Path
) -> None:
    mine = replace(DEFAULT["response"], version="mine-1", based_on="reflect-response-1")
    options = ReflectOptions("v2", TEACHER, student, prompts={**DEFAULT, "response": mine})
    for _ in range(2):
        folder = submit(store, tmp_path, dataset_id, options)
    listed = found(store, 'select "version", stage, content::varchar "content" from prompts')
    recorded = {row["version"]: row for row in listed}
    assert set(recorded) == {"mine-1", "reflect-instruction-1"}
    assert json.loads(recorded["mine-1"]["content"]) == mine.to_params()
    assert ReflectOptions.from_params(folder.spec().params) == options
    changed = replace(mine, task=f"{mine.task} Be brief.")
    with pytest.raises(StoreError, match="'mine-1' was used before with other texts"):
        submit(store, tmp_path, dataset_id, replace(options, prompts={**DEFAULT, "response": changed}))


# What is collected


def test_rounds_and_candidates_are_collected(
    store: Store, dataset_id: int, student: StudentSettings, tmp_path: Path
) -> None:
    ids = members(store)
    folder = submit(store, tmp_path, dataset_id, ReflectOptions("v2", TEACHER, student, n_candidates=2, rounds=2))
    shard = [reflected(i, e, n_candidates=2, rounds=2) for i, e in zip(ids, EXAMPLES, strict=True)]
    folder.write_shard(0, to_table(shard))
    for _ in range(2):
        collecting.collect(store, folder, 0)
    pairs = found(store, "select * from pairs where original_id = :id order by pair_id", id=ids[0])
    assert [(row["round"], row["stage"]) for row in pairs] == [
        (1, "instruction"),
        (1, "response"),
        (2, "instruction"),
        (2, "response"),
    ]
    assert pairs[2]["base_id"] == pairs[1]["candidate_id"]
    candidates = found(
        store, "select * from candidates where example_id = :id order by round, stage, number", id=ids[0]
    )
    assert [(row["round"], row["stage"], row["number"], row["chosen"]) for row in candidates] == [
        (number, stage, place, place == 0)
        for number in (1, 2)
        for stage in ("instruction", "response")
        for place in (0, 1)
    ]
    assert {row["candidate_id"] for row in candidates if row["chosen"]} == {row["candidate_id"] for row in pairs}
    assert all(row["ifd"] == 0.5 and row["reason"] is None for row in candidates)
    calls = found(store, "select * from teacher_calls where example_id = :id", id=ids[0])
    assert sorted((row["round"], row["number"]) for row in calls) == sorted([(1, 0), (1, 1), (2, 0), (2, 1)] * 2)
    unchosen = [row["candidate_id"] for row in candidates if not row["chosen"]]
    scored = found(store, "select value from scores where list_contains(:ids, example_id)", ids=unchosen)
    assert [row["value"] for row in scored] == [0.4] * len(unchosen) * len(INDICATORS)


def test_a_candidate_without_scores_has_its_reasons(
    store: Store, dataset_id: int, student: StudentSettings, tmp_path: Path
) -> None:
    folder = submit(store, tmp_path, dataset_id, ReflectOptions("v2", TEACHER, student), members(store)[:1])
    row = reflected(members(store)[0], EXAMPLES[0])
    unknown = PairScores(None, "The response is empty.", 0.5, None)
    folder.write_shard(0, to_table([replace(row, candidates=(replace(row.candidates[0], scores=unknown),))]))
    collecting.collect(store, folder, 0)
    [candidate] = found(store, "select ifd, r_ifd, reason from candidates")
    assert candidate == {"ifd": None, "r_ifd": 0.5, "reason": "IFD: The response is empty."}


def test_shards_of_an_older_version_are_collected(
    store: Store, dataset_id: int, student: StudentSettings, tmp_path: Path
) -> None:
    """A job of the version before may have ended while the server was down for the update."""
    folder = submit(store, tmp_path, dataset_id, ReflectOptions("v2", TEACHER, student), members(store)[:1])
    values = asdict(reflected(members(store)[0], EXAMPLES[0]))
    del values["candidates"]
    for one in (*values["calls"], *values["pairs"]):
        for name in ("round", "number"):
            one.pop(name, None)
    folder.write_shard(0, pa.Table.from_pylist([values]))
    collecting.collect(store, folder, 0)
    assert [row["round"] for row in found(store, "select round from pairs")] == [1, 1]
    assert found(store, "select * from candidates") == []


def test_a_call_that_is_known_is_stored_once(
    store: Store, dataset_id: int, student: StudentSettings, tmp_path: Path
) -> None:
    ids = members(store)[:1]
    for _ in range(2):  # the second job carried the first one's answers
        folder = submit(store, tmp_path, dataset_id, ReflectOptions("v2", TEACHER, student), ids)
        folder.write_shard(0, to_table([reflected(ids[0], EXAMPLES[0])]))
        collecting.collect(store, folder, 0)
    assert len(found(store, "select * from teacher_calls")) == 2
    assert len(found(store, "select * from pairs")) == 2
    assert len(found(store, "select * from reflections")) == 2


def test_a_shard_of_32_rows_is_collected_in_no_time(
    store: Store, dataset_id: int, student: StudentSettings, tmp_path: Path
) -> None:
    """No statement a row: 32 rows took a hundred and more of them once."""
    originals = [Example(f"Task {i}", "", f"answer {i}") for i in range(96)]
    with store.adding_examples() as connection:
        ids = commands.add_examples(connection, originals)
    listed = [ids[original.hash] for original in originals]
    folder = submit(store, tmp_path, dataset_id, ReflectOptions("v2", TEACHER, student), listed)
    seconds = []
    for shard in range(3):
        part = range(32 * shard, 32 * shard + 32)
        folder.write_shard(shard, to_table([reflected(listed[i], originals[i]) for i in part]))
        started = time.process_time()
        collecting.collect(store, folder, shard)
        seconds.append(time.process_time() - started)
    print(f"collected 32 rows in {min(seconds) * 1000:.0f} ms")
    assert len(found(store, "select * from pairs")) == 192


# What is left


def kept_line(stage: str, asked: Example, raw: str, **more: int) -> dict[str, Any]:
    question = build_question(stage, example=asked)
    answer = Answer(raw, "stop", 10, 20, 0.03, 0.1, 1, "m")
    key = answer_key(question, **more)
    return Kept(key, f"call-{key[:24]}-{more}", "2026-01-01T00:00:00", answer).to_line()


GOOD = "<new_instruction>Say more.</new_instruction><new_response>More.</new_response>"


def stopped(store: Store, folder: JobFolder) -> None:
    folder.append_event("started", pid=1, create_time=0.0, done_rows=0)
    folder.append_event("failed", message="The budget is spent.")


def test_the_rest_of_a_job_takes_the_answers_along(
    store: Store, dataset_id: int, student: StudentSettings, tmp_path: Path
) -> None:
    originals = [Example(f"Task {i}", "", f"answer {i}") for i in range(40)]
    with store.adding_examples() as connection:
        ids = commands.add_examples(connection, originals)
    listed = [ids[original.hash] for original in originals]
    before = submit(store, tmp_path, dataset_id, ReflectOptions("v2", TEACHER, student, attempts=3), listed)
    for original in originals:
        before.append_answer(kept_line("instruction", original, GOOD))
    before.append_answer(kept_line("response", Example("Say more.", "", "More."), "nonsense"))
    before.append_answer(kept_line("response", Example("Say more.", "", "More."), "", attempt=2))
    with pytest.raises(StoreError, match="has not ended yet"):
        jobs.submit_rest(store, tmp_path / "jobs", job_id=before.job_id)
    stopped(store, before)
    before.write_shard(0, to_table([reflected(i, e) for i, e in zip(listed[:32], originals, strict=False)]))
    rest = jobs.submit_rest(store, tmp_path / "jobs", job_id=before.job_id, budget_usd=5.0, created_by="ann")
    assert rest.input_table()["example_id"].to_pylist() == listed[32:]
    assert (
        set(read_kept(rest))
        == {  # those of its rows, unusable ones too: they are paid, and count as attempts
            answer_key(build_question("instruction", example=original)) for original in originals[32:]
        }
        | {key for key in read_kept(before) if key.startswith("response:")}
    )
    spec = rest.spec()
    options = ReflectOptions.from_params(spec.params)
    assert (options.budget_usd, options.attempts, spec.title) == (5.0, 3, "Reflect (rest)")
    assert spec.params["scorers"] == before.spec().params["scorers"]
    assert spec.retry_of == before.job_id
    assert spec.job_id in {job["job_id"] for job in jobs.jobs(store)}
    free = ReflectOptions.from_params(jobs.submit_rest(store, tmp_path / "jobs", job_id=before.job_id).spec().params)
    assert free.budget_usd is None
    before.write_shard(1, to_table([reflected(i, e) for i, e in zip(listed[32:], originals[32:], strict=True)]))
    with pytest.raises(StoreError, match="no rest"):
        jobs.submit_rest(store, tmp_path / "jobs", job_id=before.job_id)


def test_what_is_with_the_teacher_in_a_batch_is_neither_submitted_nor_retried_elsewhere(
    store: Store, dataset_id: int, student: StudentSettings, tmp_path: Path
) -> None:
    """A job stopped while its batch was open: the rest as a new job asked, and paid, the same questions again."""
    teacher = replace(TEACHER, mode="batch")
    before = submit(store, tmp_path, dataset_id, ReflectOptions("v2", teacher, student))
    ledger = Ledger.read(before)
    sent = ledger.intend(["t-1", "t-2"], cost_usd=0.1)
    stopped(store, before)
    for again in (jobs.submit_rest, jobs.submit_retry):
        with pytest.raises(JobError, match=r"2 questions of job .* went to the teacher in batches"):
            again(store, tmp_path / "jobs", job_id=before.job_id)
    assert len(jobs.jobs(store)) == 1
    ledger.dropped(sent, reason="it was never made")
    assert jobs.submit_rest(store, tmp_path / "jobs", job_id=before.job_id).spec().n_rows == len(EXAMPLES)


def test_a_budget_for_a_teacher_without_prices_is_refused(
    store: Store, dataset_id: int, student: StudentSettings, tmp_path: Path
) -> None:
    before = submit(store, tmp_path, dataset_id, ReflectOptions("v2", LocalTeacherSettings("m"), student))
    stopped(store, before)
    with pytest.raises(SettingsError, match="budget"):
        jobs.submit_rest(store, tmp_path / "jobs", job_id=before.job_id, budget_usd=1.0)
    assert jobs.submit_rest(store, tmp_path / "jobs", job_id=before.job_id).spec().n_rows == len(EXAMPLES)


def test_a_retry_takes_usable_answers_along_and_what_was_known_of_the_rows(
    store: Store, dataset_id: int, student: StudentSettings, tmp_path: Path
) -> None:
    first, second = members(store)[:2]
    put_scores(store, student, {first: dict.fromkeys(OUTPUTS, 0.25)})
    options = ReflectOptions("v2", TEACHER, student, attempts=2)
    before = submit(
        store, tmp_path, dataset_id, options, [first, second], starts={second: first}, rounds_before={second: 1}
    )
    before.append_answer(kept_line("instruction", EXAMPLES[0], "nonsense"))
    before.append_answer(kept_line("instruction", EXAMPLES[0], GOOD, attempt=2))
    before.append_answer(kept_line("response", EXAMPLES[0], "nonsense"))
    before.append_answer(kept_line("response", EXAMPLES[0], "N/A", attempt=2))
    failure = Failure("response", "not_applicable", "The reply says only N/A.", True)
    failed = [
        replace(reflected(i, e), failures=(failure,), transient=True, reason="N/A")
        for i, e in ((first, EXAMPLES[0]), (second, EXAMPLES[1]))
    ]
    before.write_shard(0, to_table(failed))
    collecting.collect(store, before, 0)
    again = jobs.submit_retry(store, tmp_path / "jobs", job_id=before.job_id)
    assert again.input_table() == before.input_table()
    # the unusable first attempt goes along with the usable second one; the stage that failed is asked anew
    question = build_question("instruction", example=EXAMPLES[0])
    assert set(read_kept(again)) == {answer_key(question), answer_key(question, attempt=2)}
    assert all(line["carried"] for line in again.answers())


# Again


def accept(store: Store, pair_id: int) -> None:
    decide(store, pair_id=pair_id, reviewer="ann", verdict="accept")


def test_what_was_accepted_is_reflected_again_up_to_the_cap(store: Store, dataset_id: int) -> None:
    ids = members(store)
    better = [Example(f"Better {i}", "", "better") for i in range(6)]
    best = [Example(f"Best {i}", "", "best") for i in range(6)]
    pairs = [add_pair(store, dataset_id=dataset_id, original=EXAMPLES[i], candidate=better[i]) for i in range(5)]
    for place in (0, 1, 2, 3):
        accept(store, pairs[place])
    later = {
        i: add_pair(
            store, dataset_id=dataset_id, original=EXAMPLES[i], candidate=best[i], base=better[i], round_number=2
        )
        for i in (1, 2, 3)
    }
    accept(store, later[1])
    decide(store, pair_id=later[3], reviewer="ann", verdict="reject")
    texts = {row["example_id"]: row["output"] for row in found(store, "select example_id, output from examples")}
    starts, before, at_cap = jobs.rows_for_again(store, dataset_id=dataset_id, which="accepted", cap=5)
    # row 2 waits for a decision on its second round; row 4 was not decided, row 5 never reflected
    assert {i: texts[start] for i, start in starts.items()} == {ids[0]: "better", ids[1]: "best", ids[3]: "better"}
    assert (before, at_cap) == ({ids[0]: 1, ids[1]: 2, ids[3]: 2}, 0)
    starts, before, at_cap = jobs.rows_for_again(store, dataset_id=dataset_id, which="accepted", cap=2)
    assert (list(starts), at_cap) == ([ids[0]], 2)
    with pytest.raises(StoreError, match="choose accepted or failed"):
        jobs.rows_for_again(store, dataset_id=dataset_id, which="all", cap=2)


def test_rows_that_failed_last_time_begin_anew(
    store: Store, dataset_id: int, student: StudentSettings, tmp_path: Path
) -> None:
    ids = members(store)
    assert jobs.rows_for_again(store, dataset_id=dataset_id, which="failed", cap=3) == ({}, {}, 0)
    for failing in ([0, 1, 2], [1]):  # rows 0 and 2 come out better in the second job
        folder = submit(store, tmp_path, dataset_id, ReflectOptions("v2", TEACHER, student), ids[:3])
        failure = Failure("response", "empty", "The reply is empty.", True)
        shard = [reflected(i, e) for i, e in zip(ids[:3], EXAMPLES, strict=False)]
        shard = [replace(row, failures=(failure,)) if i in failing else row for i, row in enumerate(shard)]
        folder.write_shard(0, to_table(shard))
        collecting.collect(store, folder, 0)
    assert jobs.rows_for_again(store, dataset_id=dataset_id, which="failed", cap=3) == (
        {ids[1]: ids[1]},
        {ids[1]: 0},
        0,
    )


def test_of_several_accepted_rounds_the_latest_is_exported(store: Store, dataset_id: int) -> None:
    """Also where the earlier round was accepted at the response stage, and later in time."""
    first = Example("Say 0", "context 0", "round one")
    second = Example("Say 0 well", "", "round two")
    one = add_pair(store, dataset_id=dataset_id, original=EXAMPLES[0], candidate=first, stage="response")
    two = add_pair(store, dataset_id=dataset_id, original=EXAMPLES[0], candidate=second, base=first, round_number=2)
    accept(store, two)
    accept(store, one)
    [row] = curated.curated_rows(store, dataset_id, ExportChoice(), limit=1)
    assert (row["state"], row["output"]) == ("accepted", "round two")
    decide(store, pair_id=two, reviewer="ann", verdict="reject")
    [row] = curated.curated_rows(store, dataset_id, ExportChoice(), limit=1)
    assert (row["state"], row["output"]) == ("accepted", "round one")


def test_rounds_of_older_stores_count_as_the_first(store: Store, dataset_id: int) -> None:
    pair_id = add_pair(store, dataset_id=dataset_id, original=EXAMPLES[0], candidate=Example("Q", "", "a"))
    with store.write() as connection:
        connection.execute(text("update pairs set round = null where pair_id = :id"), {"id": pair_id})
    accept(store, pair_id)
    _, before, _ = jobs.rows_for_again(store, dataset_id=dataset_id, which="accepted", cap=2)
    assert list(before.values()) == [1]
