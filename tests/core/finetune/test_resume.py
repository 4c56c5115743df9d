"""A run that was killed goes on from its checkpoint and ends as if it had never stopped."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from core.finetune.base import Base
from core.finetune.curve import read_curve
from core.finetune.training import latest_checkpoint
from tests.core.finetune import small
from tests.core.finetune.killed import KILLED

ROOT = Path(__file__).parents[3]


def test_kill_9_and_resume_equal_the_straight_run_to_the_last_bit(tmp_path, llama):
    work = tmp_path / "killed"
    command = [sys.executable, "-m", "tests.core.finetune.killed", str(llama), str(work), "8"]
    killed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert latest_checkpoint(work / "checkpoints") == (work / "checkpoints" / "checkpoint-6", 6)
    assert len(read_curve(work / "curve.jsonl")) == 8
    torn = work / "checkpoints" / "checkpoint-7"  # as a kill in the middle of writing leaves it
    torn.mkdir()
    (torn / "trainer_state.json").write_text('{"global_step": 7, "epo')
    with (work / "curve.jsonl").open("a") as file:
        file.write('{"step": 9, "epo')
    base = Base.load(small.settings(llama, **KILLED))
    steps: list[int] = []

    def report(point, n_steps):
        steps.append(point.step)
        assert n_steps == 10

    resumed = base.run(small.ROWS, evaluation=small.EVALUATION, seed=1, work=work, report=report)
    straight = base.run(small.ROWS, evaluation=small.EVALUATION, seed=1, work=tmp_path / "straight")
    assert steps == [7, 8, 9, 10]
    assert resumed.details["resumed_at_step"] == 6
    assert (resumed.loss_nats, resumed.losses) == (straight.loss_nats, straight.losses)
    assert resumed.train_loss_nats == straight.train_loss_nats
    for one in (resumed, straight):
        assert [dataclasses.replace(point, seconds=0) for point in one.curve] == [
            dataclasses.replace(point, seconds=0) for point in straight.curve
        ]
        assert [point.step for point in one.curve] == list(range(1, 11))
    adapters = [(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("killed", "straight")]
    assert adapters[0].read_bytes() == adapters[1].read_bytes()
    assert sorted(path.name for path in work.iterdir()) == ["adapter", "curve.jsonl"]


class Stop(Exception):  # noqa: N818
    pass


def stop_at(step: int):
    def report(point, _):
        if point.step == step:
            raise Stop

    return report


def test_another_run_does_not_go_on_from_a_foreign_checkpoint(tmp_path, llama):
    base = Base.load(small.settings(llama, checkpoint_steps=1))
    with pytest.raises(Stop):
        base.run(small.ROWS, evaluation=small.EVALUATION, seed=1, work=tmp_path / "a", report=stop_at(4))
    assert latest_checkpoint(tmp_path / "a" / "checkpoints") is not None
    other = base.run(small.ROWS, evaluation=small.EVALUATION, seed=2, work=tmp_path / "a")
    straight = base.run(small.ROWS, evaluation=small.EVALUATION, seed=2, work=tmp_path / "b")
    assert other.details["resumed_at_step"] == 0
    assert other.losses == straight.losses


def test_a_run_killed_while_it_was_evaluated_is_not_trained_again(tmp_path, llama, monkeypatch):
    base = Base.load(small.settings(llama, checkpoint_steps=2))

    def killed(*_):
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(base, "_losses", killed)
        with pytest.raises(Stop):
            base.run(small.ROWS, evaluation=small.EVALUATION, seed=1, work=tmp_path / "a")
    found = base.run(small.ROWS, evaluation=small.EVALUATION, seed=1, work=tmp_path / "a")
    assert found.details["resumed_at_step"] == 5
    straight = base.run(small.ROWS, evaluation=small.EVALUATION, seed=1, work=tmp_path / "b")
    assert found.losses == straight.losses
    assert len(found.curve) == 5


def test_without_checkpoints_a_stopped_run_begins_again(tmp_path, llama):
    base = Base.load(small.settings(llama, checkpoint_steps=0))
    with pytest.raises(Stop):
        base.run(small.ROWS, evaluation=small.EVALUATION, seed=1, work=tmp_path / "a", report=stop_at(3))
    found = base.run(small.ROWS, evaluation=small.EVALUATION, seed=1, work=tmp_path / "a")
    assert [point.step for point in found.curve] == [1, 2, 3, 4, 5]
