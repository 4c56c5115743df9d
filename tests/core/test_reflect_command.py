"""``python -m core reflect`` against a real HTTP server, with a tiny student: whole files in, whole files out."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from core import reflect_command
from core.demo import sample_rows
from core.errors import SettingsError
from core.jobs.folder import JobFolder
from core.reflection_prompt import builtin, save_copy
from tests.core import tiny_models
from tests.fake_batch import FakeBatch
from tests.fake_teacher import FakeTeacher

ROOT = Path(__file__).parents[2]
KEY = "sk-proj-1a2b3c4d5e6f708192a3b4c5d6e7f809"
LINES = [
    '{"instruction": "Name three fruits and say where they grow.", "input": "", "output": "Apples, pears and plums."}',
    '{"instruction": "Sort the words by their first letter.", "input": "pear, apple", "output": "apple, pear"}',
    '{"instruction": "Broken',
    '{"instruction": "Add the two numbers and say how.", "input": "2 + 2", "output": "4"}',
    '{"output": "An answer to nothing."}',
]


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.save(tmp_path_factory.mktemp("student"), "llama")


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASSAY_TEST_KEY", KEY)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(LINES) + "\n")
    return path


def many(path: Path, n: int) -> Path:
    with path.open("w") as file:
        for i in range(n):
            row = {
                "instruction": f"Explain what thing {i} is good for.",
                "input": "",
                "output": f"Thing {i} helps. " * 2,
            }
            file.write(json.dumps(row) + "\n")
    return path


def options(source: Path, out: Path, student: Path, server: FakeTeacher | None = None, **given: Any) -> list[str]:
    words: dict[str, Any] = {"method": "v2", "student": student, "max_length": 1000}
    if server is not None:
        words |= {"teacher": server.base_url, "teacher_model": "fake-1"}
    found = [str(source), "--out", str(out)]
    for name, value in {**words, **given}.items():
        option = f"--{name.replace('_', '-')}"
        found += [option] if value is True else [option, str(value)]
    return found


def command(words: list[str]) -> int:
    """The command in this process."""
    parser = argparse.ArgumentParser()
    reflect_command.add(parser.add_subparsers())
    arguments = parser.parse_args(["reflect", *words])
    code: int = arguments.run(arguments)
    return code


def table(path: Path) -> list[dict[str, Any]]:
    return pq.read_table(path).to_pylist()


def n_asked(server: FakeTeacher) -> Counter[str]:
    return Counter(server.answered)


def test_every_row_of_the_file_is_in_the_result(tmp_path, rows, student, capfd):
    out = tmp_path / "out.parquet"
    with FakeTeacher() as server:
        words = options(rows, out, student, server, price_in=1, price_out=2)
        assert command(words) == 0
    said = capfd.readouterr()
    summary = json.loads(said.out)
    assert (summary["rows"], summary["ok"], summary["failed"], summary["refused"]) == (5, 3, 0, 2)
    assert (summary["calls"], summary["calls_without_cost"], summary["failures"]) == (6, 0, {})
    assert "All that the teacher said:" in said.err
    found = table(out)
    assert [row["row"] for row in found] == [0, 1, 2, 3, 4]
    assert [row["status"] for row in found] == ["ok", "ok", "refused", "ok", "refused"]
    assert "is not JSON" in found[2]["reason"] or "JSON" in found[2]["reason"]
    assert found[2]["instruction"] is None
    assert found[2]["cost_usd"] is None
    first = found[0]
    assert first["original_instruction"] == "Name three fruits and say where they grow."
    assert first["instruction_candidate_instruction"].startswith(first["original_instruction"])
    assert first["instruction_candidate_input"] == ""
    assert first["response_candidate_output"].startswith("Apples, pears and plums.")
    assert first["instruction_prompt_version"] == "reflect-instruction-1"
    assert first["teacher_model"] == "fake-1-as-served"
    # What the student says is what it keeps: the last texts are those of the last proposal "reflected".
    for row in (found[0], found[1], found[3]):
        taken = row["instruction_proposal"] == "reflected"
        assert taken == (row["instruction_candidate_ifd"] > row["original_ifd"])
        wanted = row["instruction_candidate_instruction"] if taken else row["original_instruction"]
        assert row["instruction"] == wanted
        better = row["response_candidate_r_ifd"] < row["response_base_r_ifd"]
        assert (row["response_proposal"] == "reflected") == better
        assert (row["output"] == row["response_candidate_output"]) == better
    usd = sum(row["prompt_tokens"] + 2.0 * row["completion_tokens"] for row in found if row["calls"]) / 1e6
    assert summary["cost_usd"] == pytest.approx(usd)
    assert summary["cost_usd"] == pytest.approx(sum(row["cost_usd"] or 0.0 for row in found))
    answers = JobFolder(tmp_path / "out.parquet.job").answers()
    assert len(answers) == 6
    metadata = pq.read_schema(out).metadata
    assert json.loads(metadata[b"assay.settings"])["method"] == "v2"
    assert json.loads(pq.read_metadata(out).metadata[b"assay.summary"])["rows"] == 5


def test_a_result_is_replaced_only_on_demand_and_only_unfinished_runs_are_resumed(tmp_path, rows, student, capfd):
    out = tmp_path / "out.parquet"
    with FakeTeacher() as server:
        words = options(rows, out, student, server, method="v1")
        assert command([*words, "--resume"]) == 1
        assert "no unfinished run" in capfd.readouterr().err
        assert not list(tmp_path.glob("out*"))
        assert command(words) == 0
        before = out.read_bytes()
        assert command(words) == 1
        assert "exists already" in capfd.readouterr().err
        assert out.read_bytes() == before
        assert command([*words, "--restart", "--limit", "1"]) == 0
    assert [row["row"] for row in table(out)] == [0]
    out.unlink()
    with FakeTeacher() as server:  # all answers are there: nothing is asked to write it again
        again = options(rows, out, student, server, method="v1", limit=1)
        again[again.index("--teacher") + 1] = words[words.index("--teacher") + 1]
        assert command(again) == 0
        assert not server.requests


def test_a_killed_run_goes_on_and_pays_nothing_twice(tmp_path, student, capfd):
    source, out = many(tmp_path / "rows.jsonl", 60), tmp_path / "out.parquet"
    folder = JobFolder(tmp_path / "out.parquet.job")
    with FakeTeacher(seconds=0.02) as server:
        words = options(source, out, student, server, concurrency=2, shard_rows=4)
        line = [sys.executable, "-m", "core", "reflect", *words]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        worker = subprocess.Popen(line, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        until = time.monotonic() + 120
        while len(folder.answers()) < 40 and worker.poll() is None and time.monotonic() < until:
            time.sleep(0.005)
        worker.send_signal(signal.SIGKILL)
        worker.communicate()
        assert worker.returncode == -signal.SIGKILL
        assert not out.exists()
        n_kept = len(folder.answers())
        assert 40 <= n_kept < 120
        with pytest.raises(SettingsError, match=r"method was v2, is v1; .*temperature was 0\.7, is 0\.1"):
            _run(options(source, out, student, server, method="v1", temperature=0.1))
        assert command(words) == 0
        # What was under way when it died is asked again, all else once: two questions at the server, and two answers
        # that were on their way to the disk.
        assert sum(n_asked(server).values()) <= 120 + 4
    assert json.loads(capfd.readouterr().out)["calls"] == 120
    assert [row["row"] for row in table(out)] == list(range(60))
    assert {row["status"] for row in table(out)} == {"ok"}


def _run(words: list[str]) -> None:
    parser = argparse.ArgumentParser()
    reflect_command.add(parser.add_subparsers())
    reflect_command.reflect_file(reflect_command._file_run(parser.parse_args(["reflect", *words])))


def test_a_third_of_the_replies_is_faulty_and_every_row_ends(tmp_path, student, capfd):
    source, out = many(tmp_path / "rows.jsonl", 50), tmp_path / "out.parquet"
    every = {4: "missing_tag", 7: "500", 9: "refusal", 11: "not_json", 13: "cut_off", 17: "400", 19: "empty"}
    with FakeTeacher(every=every) as server:
        words = options(source, out, student, server, retries=0, attempts=2, candidates=2, method="v1")
        assert command(words) == 0
    summary = json.loads(capfd.readouterr().out)
    found = table(out)
    assert [row["row"] for row in found] == list(range(50))
    assert summary["ok"] + summary["failed"] == 50
    assert summary["failed"] == sum(row["status"] == "failed" for row in found) > 0
    assert all(row["reason"] for row in found if row["status"] == "failed")
    assert sum(summary["failures"].values()) >= summary["failed"]
    assert all(row["output"] is not None for row in found)
    for row in found:
        for name in ("original_ifd", "instruction_candidate_ifd", "response_base_r_ifd"):
            assert (row[name] is None) == (row[f"{name}_reason"] is not None)


def test_faults_of_the_teacher_end_the_run_in_words(tmp_path, rows, student, capfd):
    out = tmp_path / "out.parquet"
    for fault, words in (("401", r"refused the key in ASSAY_TEST_KEY"), ("404", "knows no model 'fake-1'")):
        with FakeTeacher(always=fault) as server:
            assert command(options(rows, out, student, server, api_key_env="ASSAY_TEST_KEY")) == 1
        said = capfd.readouterr()
        assert words in said.err
        assert KEY not in said.err
        assert said.out == ""
        assert not out.exists()
    with FakeTeacher() as server:
        assert command(options(rows, out, student, server, api_key_env="ASSAY_NO_SUCH_KEY")) == 1
        assert "ASSAY_NO_SUCH_KEY is not set" in capfd.readouterr().err
        assert command(options(rows, out, tmp_path / "nowhere", server)) == 1
        assert "nowhere" in capfd.readouterr().err
        assert not server.requests


def test_a_budget_stops_the_run_and_a_larger_one_goes_on(tmp_path, student, capfd):
    source, out = many(tmp_path / "rows.jsonl", 24), tmp_path / "out.parquet"
    with FakeTeacher() as server:
        priced = {"price_in": 0, "price_out": 1000, "concurrency": 2, "shard_rows": 4}
        assert command(options(source, out, student, server, budget=0.6, **priced)) == 1
        said = capfd.readouterr().err
        assert "budget of $0.60" in said
        assert "Give the same command with a larger --budget to go on." in said
        assert not out.exists()
        n_before = len(server.answered)
        answers = JobFolder(tmp_path / "out.parquet.job").answers()
        spent = sum(answer["cost_usd"] for answer in answers)
        dearest = max(answer["cost_usd"] for answer in answers)
        assert 0.6 <= spent <= 0.6 + 2 * dearest  # by the calls under way at most
        assert command(options(source, out, student, server, budget=100.0, **priced)) == 0
        assert len(server.answered) == 48 > n_before
        assert set(n_asked(server).values()) == {1}
    assert json.loads(capfd.readouterr().out)["rows"] == 24


def test_a_batch_is_sent_for_each_stage(tmp_path, student, capfd):
    source, out = many(tmp_path / "rows.jsonl", 10), tmp_path / "out.parquet"
    with FakeBatch() as server:
        assert command(options(source, out, student, server, batch=True, batch_poll=0.05)) == 0
        assert [len(server.questions_of(batch_id)) for batch_id in server.batches] == [10, 10]
    assert json.loads(capfd.readouterr().out)["calls"] == 20


def test_prompts_are_named_by_version_or_file(tmp_path, rows, student, monkeypatch, capfd):
    monkeypatch.setenv("ASSAY_HOME", str(tmp_path / "home"))
    mine = save_copy(tmp_path / "home" / "prompts", builtin("response"), name="calm")
    file = tmp_path / "home" / "prompts" / f"{mine.version}.toml"
    for name in (mine.version, file):
        out = tmp_path / "out.parquet"
        with FakeTeacher() as server:
            assert command(options(rows, out, student, server, prompts=name, restart=True, limit=1)) == 0
        (row,) = table(out)
        assert row["response_prompt_version"] == "calm-1"
        assert row["instruction_prompt_version"] == "reflect-instruction-1"
    with pytest.raises(SettingsError, match="There is no prompt 'nobody'"):
        _run(options(rows, tmp_path / "o.parquet", student, server, prompts="nobody"))
    capfd.readouterr()


def test_the_recorded_teacher_needs_no_server(tmp_path, student, capfd):
    source, out = tmp_path / "rows.jsonl", tmp_path / "out.parquet"
    with source.open("w") as file:
        for row in sample_rows()[:6]:
            file.write(
                json.dumps({name: getattr(row.example, name) for name in ("instruction", "input", "output")}) + "\n"
            )
    assert command(options(source, out, student, teacher="recorded", method="v1")) == 0
    summary = json.loads(capfd.readouterr().out)
    assert summary["rows"] == 6
    assert summary["cost_usd"] is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "Give one teacher"),
        ({"teacher": "http://h/v1"}, "--teacher needs --teacher-model"),
        ({"teacher": "http://h/v1", "teacher_model": "m", "local_teacher": "x"}, "Give one teacher"),
        ({"local_teacher": "x", "budget": 3}, "neither a budget nor a Batch API"),
        ({"teacher": "http://h/v1", "teacher_model": "m", "budget": 3}, "needs the teacher's prices"),
        ({"teacher": "http://h/v1", "teacher_model": "m", "method": "v1", "filter": True}, "filters belong to V2"),
        ({"teacher": "http://h/v1", "teacher_model": "m", "candidates": 3, "temperature": 0}, "temperature above 0"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_before_anything_is_done(tmp_path, rows, student, given, words):
    out = tmp_path / "out.parquet"
    with pytest.raises(SettingsError, match=words):
        _run(options(rows, out, student, **given))
    assert not list(tmp_path.glob("out*"))


def test_a_server_here_gets_no_key_unless_it_is_named():
    assert reflect_command._key_name(None, base_url="http://127.0.0.1:8000/v1") == ""
    assert reflect_command._key_name(None, base_url="https://api.openai.com/v1") == "OPENAI_API_KEY"
    assert reflect_command._key_name("MY_API_KEY", base_url="http://127.0.0.1:8000/v1") == "MY_API_KEY"
    assert reflect_command._key_name("none", base_url="https://example.org/v1") == ""


def test_a_numbered_gpu_is_the_only_one_that_the_process_sees():
    environ = {"CUDA_VISIBLE_DEVICES": "4,6"}
    assert reflect_command._only_gpu("cuda:1", environ) == "cuda"
    assert environ == {"CUDA_VISIBLE_DEVICES": "6"}
    empty: dict[str, str] = {}
    assert reflect_command._only_gpu("cuda:3", empty) == "cuda"
    assert empty == {"CUDA_VISIBLE_DEVICES": "3"}
    assert reflect_command._only_gpu("cpu", empty) == "cpu"
    for wrong in ("gpu", "cpu:1", "cuda:x"):
        with pytest.raises(SettingsError, match="give cpu, cuda or cuda:N"):
            reflect_command._only_gpu(wrong, empty)
    with pytest.raises(SettingsError, match="names 2 GPUs only"):
        reflect_command._only_gpu("cuda:5", {"CUDA_VISIBLE_DEVICES": "4,6"})
