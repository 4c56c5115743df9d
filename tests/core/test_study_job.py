"""The study job in this process, on a tiny base: runs in order, a failed one among them, what a page can read live."""

from __future__ import annotations

import numpy as np
import pytest

from core.errors import JobError, ModelError
from core.jobs.runner import Progress
from core.study_job import live_curves, read_settings, run
from tests.core.study_jobs import new_job, numbers, results, settings


def do(folder):
    spec = folder.spec()
    run(folder, spec, Progress(folder, spec))


def test_a_study_does_its_runs_in_order_and_a_failed_one_stops_nothing(tmp_path):
    folder = new_job(tmp_path, settings(tmp_path), [[], range(1, 13), [0], range(20, 28)])
    do(folder)
    found = results(folder)
    assert [found[i].outcome for i in sorted(found)] == ["done", "done", "failed", "done"]
    assert folder.row_errors() == {found[502].reason: [502]}
    untrained, trained = found[500], found[501]
    assert not untrained.curve
    assert [point.step for point in trained.curve] == [1, 2, 3, 4, 5, 6]
    assert trained.loss_nats != untrained.loss_nats
    assert untrained.loss_nats == pytest.approx(np.mean([one.loss_nats for one in untrained.losses]))
    assert {one.example_id for one in trained.losses} == {900, 901, 902}
    told = [event["message"] for event in folder.events() if event["event"] == "note"]
    assert any(note.startswith("Run 2 of 4 (mixture 1): ") for note in told)
    assert any("training loss" in note or "evaluating" in note for note in told)


def test_a_run_is_the_same_whatever_ran_before_it(tmp_path):
    """The base is loaded once: what an earlier run left on it must not reach the next."""
    chosen = settings(tmp_path)
    among = new_job(tmp_path, chosen, [range(5, 25), [0], range(30, 42)], name="among")
    alone = new_job(tmp_path, chosen, [range(30, 42)], name="alone")
    do(among)
    do(alone)
    assert numbers(results(among)[502]) == numbers(results(alone)[500])


def test_finished_runs_are_not_done_again(tmp_path):
    folder = new_job(tmp_path, settings(tmp_path), [[], range(1, 9)])
    do(folder)
    before = [folder.shard_path(i).stat().st_mtime_ns for i in range(2)]
    folder.shard_path(1).unlink()
    do(folder)
    assert folder.shard_path(0).stat().st_mtime_ns == before[0]
    assert folder.shard_path(1).stat().st_mtime_ns > before[1]


def test_live_curves_are_those_of_the_results_and_a_torn_line_is_left_out(tmp_path):
    folder = new_job(tmp_path, settings(tmp_path), [[], range(1, 9)])
    assert live_curves(folder) == {}
    do(folder)
    result = results(folder)[501]
    assert live_curves(folder)[1] == list(result.curve)
    assert all(point.loss_nats is not None for point in result.curve)
    with (folder.run_path(1) / "curve.jsonl").open("a") as file:
        file.write('{"step": 99, "epo')
    assert live_curves(folder)[1] == list(result.curve)


def test_a_base_that_changed_since_it_was_submitted_fails_the_job(tmp_path):
    folder = new_job(tmp_path, settings(tmp_path, revision="local-" + "0" * 32), [range(1, 9)])
    with pytest.raises(ModelError, match="another one than before"):
        do(folder)
    assert not folder.finished_shards()


def test_settings_that_this_version_does_not_know_are_a_plain_error(tmp_path):
    spec = new_job(tmp_path, settings(tmp_path), [[]]).spec()
    spec.params["settings"]["warp"] = 9
    with pytest.raises(JobError, match="warp"):
        read_settings(spec)
