"""A teacher of which three replies in ten are faulty: every row ends with a reason, nothing is paid twice."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from core.errors import BudgetReached
from core.jobs.folder import JobFolder
from core.lm import StudentSettings
from core.reflecting import ReflectOptions
from core.reflection_records import ReflectedRow
from core.reflection_replies import CODES
from tests.core.test_reflecting import KEY, _key, do, errors_of, examples, make_job, start_worker, student
from tests.core.test_reflecting import teacher_settings as settings_of
from tests.fake_teacher import FakeTeacher

__all__ = ["_key", "student"]  # fixtures

FAULTS = (
    "500",
    "429:0.02",
    "disconnect",
    "hang",
    "html",
    "not_json",
    "no_choices",
    "error_200",
    "cut_off",
    "empty",
    "null",
    "refusal",
    "echo",
    "same",
    "missing_tag",
    "fenced",
    "na",
    "two",
    "prose",
    "no_usage",
)
_MARK = re.compile(r"its marker is (\w+)")


class Faulty(FakeTeacher):
    """Three replies in ten are faulty, of all kinds; which ones follows from the question and how often it came."""

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        self.times: Counter[str] = Counter()

    def enter(self, body: dict[str, Any], authorization: str) -> str:
        fault = super().enter(body, authorization)
        question = body["messages"][-1]["content"]
        with self._lock:
            self.times[question] += 1
            seed = f"{self.times[question]} {question}"
        number = int(hashlib.sha256(seed.encode()).hexdigest()[:8], 16)
        return FAULTS[number // 10 % len(FAULTS)] if fault == "ok" and number % 10 < 3 else fault


def settings(server: FakeTeacher, **changes: Any) -> Any:
    usual = {"concurrency": 16, "timeout_seconds": 0.5, "price_in": 1.0, "price_out": 2.0}
    return settings_of(server, **{**usual, **changes})


def questions_asked(server: FakeTeacher) -> Counter[tuple[str, str]]:
    """How often each question came: (stage, marker of the example asked about)."""
    found: Counter[tuple[str, str]] = Counter()
    for question in server.questions:
        mark = _MARK.search(question)
        assert mark is not None
        found["instruction" if "new_instruction" in question else "response", mark[1]] += 1
    return found


def questions_kept(folder: JobFolder) -> set[tuple[str, str]]:
    keys = [answer["key"].split(":") for answer in folder.answers() if "key" in answer]
    return {(stage, digest[:16]) for stage, digest, *_ in keys}


def assert_whole(found: list[ReflectedRow], folder: JobFolder, n: int) -> None:
    """Every row once, ended with a reason or without a fault; every answer in one place."""
    assert [row.example_id for row in found] == list(range(100, 100 + n))
    for row in found:
        assert row.status in ("ok", "failed")
        assert (row.status == "failed") == (bool(row.failures) and not row.pairs)
        assert bool(row.failures) == (row.reason is not None)
        for failure in row.failures:
            assert failure.code in CODES
            assert failure.reason
            assert failure.transient
        for call in row.calls:
            assert call.outcome in ("parsed", *CODES)
            assert (call.outcome == "parsed") == (call.reason is None)
    kept = [answer["call_id"] for answer in folder.answers() if "call_id" in answer]
    told = [call.call_id for row in found for call in row.calls if call.outcome != "error"]
    assert len(set(kept)) == len(kept)
    assert sorted(told) == sorted(kept)  # each answer is in one row, once
    failed_rows = {example_id for ids in errors_of(folder).values() for example_id in ids}
    assert failed_rows == {row.example_id for row in found if row.failures}


def test_every_row_ends_done_or_failed_with_its_reason(tmp_path: Path, student: StudentSettings) -> None:
    with Faulty() as server:
        options = ReflectOptions("v2", settings(server), student, attempts=2)
        folder = make_job(tmp_path / "faults", options, examples(300), shard_rows=32)
        found = do(folder)
    assert_whole(found, folder, 300)
    outcomes = Counter(call.outcome for row in found for call in row.calls)
    for code in ("error", "cut_off", "empty", "refusal", "echo", "unchanged", "missing_tag", "not_applicable"):
        assert outcomes[code], code
    assert outcomes["two_candidates"]
    assert sum(outcomes.values()) - outcomes["parsed"] > 0.15 * sum(outcomes.values())
    # Asked twice, most unusable replies are made good; without any answer (a tenth of the calls) the row failed.
    assert sum(bool(row.failures) for row in found) < 110
    assert sum(row.status == "failed" for row in found) < 75
    answered = sum(1 for answer in folder.answers() if "call_id" in answer)
    assert answered < len(server.requests)


def test_killed_in_the_midst_of_faults_no_answer_is_paid_twice(tmp_path: Path, student: StudentSettings) -> None:
    with Faulty(seconds=0.02) as server:
        options = ReflectOptions("v1", settings(server, concurrency=8), student)
        folder = make_job(tmp_path / "killed", options, examples(120), shard_rows=16)
        worker = start_worker(folder)
        deadline = time.monotonic() + 120
        while len(folder.answers()) < 80 and worker.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
        time.sleep(0.2)  # the server finishes what nobody waits for
        kept = questions_kept(folder)
        assert 80 <= len(kept) < 240, "\n".join(folder.log_tail(50))
        answered = len(server.answered)
        assert answered - len(kept) <= 8  # lost: at most what was under way
        written = folder.finished_shards()
        server.requests.clear()
        found = do(folder)
        assert not kept & set(questions_asked(server))
    assert written < folder.finished_shards()
    assert_whole(found, folder, 120)


def test_a_budget_is_exceeded_by_no_more_than_the_calls_under_way(tmp_path: Path, student: StudentSettings) -> None:
    with Faulty() as server:
        options = ReflectOptions("v2", settings(server, concurrency=8, budget_usd=0.05), student)
        folder = make_job(tmp_path / "budget", options, examples(100), shard_rows=4)
        with pytest.raises(BudgetReached, match=r"budget of \$0.05"):
            do(folder)
        costs = [answer.get("cost_usd") or answer.get("estimated_usd") or 0.0 for answer in folder.answers()]
        assert 0.05 <= sum(costs) <= 0.05 + 8 * max(costs)
        before = len(server.requests)
        with pytest.raises(BudgetReached):  # resumed, it asks nothing more
            do(folder)
        assert len(server.requests) == before
    assert KEY not in folder.events_path.read_text()
