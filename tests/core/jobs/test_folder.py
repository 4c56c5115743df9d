from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import JobError
from core.jobs.events import EventReader
from core.jobs.folder import JobFolder
from tests.core.jobs.conftest import make_folder, make_input, make_spec, names


def test_a_new_folder_holds_what_was_asked_and_is_queued(jobs_path: Path) -> None:
    folder = make_folder(jobs_path)
    assert folder.spec() == make_spec()
    assert folder.input_table().equals(make_input())
    assert folder.shard_ranges() == [(0, 0, 3), (1, 3, 6), (2, 6, 9), (3, 9, 10)]
    assert folder.finished_shards() == set()
    status = folder.status()
    assert (status.state, status.done_rows, status.total_rows, status.total_shards) == ("queued", 0, 10, 4)
    assert status.rows_per_second is None
    assert status.eta_seconds is None


@pytest.mark.parametrize(
    ("spec", "table", "says"),
    [
        (make_spec(), make_input(9), "says 10 rows, but its input has 9"),
        (make_spec(), make_input().drop_columns(["example_id"]), "no int64 column example_id"),
        (make_spec("other"), make_input(), "must have its name"),
        (make_spec(params={"api_key": "x"}), make_input(), "looks like a secret"),
    ],
)
def test_a_folder_that_would_be_wrong_is_not_made_at_all(jobs_path: Path, spec, table: pa.Table, says: str) -> None:
    with pytest.raises(JobError, match=says):
        JobFolder.create(jobs_path / "job-1", spec, table)
    assert not jobs_path.exists() or not list(jobs_path.iterdir())


def test_a_reader_is_written_in_groups_that_begin_where_shards_do(jobs_path: Path) -> None:
    """A million rows came as one table and one row group: server and worker held all of them."""
    spec = make_spec(n_rows=1000, shard_rows=100)
    table = make_input(1000)
    batches = [table.slice(start, 37).to_batches()[0] for start in range(0, 1000, 37)]
    folder = JobFolder.create(jobs_path / "job-1", spec, pa.RecordBatchReader.from_batches(table.schema, batches))
    assert folder.input_table().equals(table)
    with pq.ParquetFile(folder.path / "input.parquet") as file:
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    assert sizes == [300, 300, 300, 100]
    with folder.reading_input(columns=["output"]) as read:
        for start, stop in [(0, 100), (290, 310), (250, 950), (999, 1000), (5, 5), (900, 1000)]:
            assert read(start, stop).equals(table.select(["output"]).slice(start, stop - start)), (start, stop)


def test_a_reader_with_too_few_rows_makes_no_folder(jobs_path: Path) -> None:
    with pytest.raises(JobError, match="says 10 rows, but its input has 9"):
        JobFolder.create(jobs_path / "job-1", make_spec(), make_input(9).to_reader())
    assert list(jobs_path.iterdir()) == []


def test_an_error_of_a_reader_passes_through_and_makes_no_folder(jobs_path: Path) -> None:
    def broken() -> Iterator[pa.RecordBatch]:
        yield make_input(5).to_batches()[0]
        raise RuntimeError("the store was closed")

    reader = pa.RecordBatchReader.from_batches(make_input().schema, broken())
    with pytest.raises(RuntimeError, match="the store was closed"):
        JobFolder.create(jobs_path / "job-1", make_spec(), reader)
    assert list(jobs_path.iterdir()) == []


def test_a_folder_without_a_spec_is_no_job_yet(jobs_path: Path) -> None:
    """Filled in place, under the lock: the spec is written last and says that the rows are whole."""
    folder = JobFolder(jobs_path / "job-1")
    folder.path.mkdir(parents=True)
    assert folder.write_input(make_input(), shard_rows=3) == 10
    with pytest.raises(JobError, match=r"has no spec\.json"):
        folder.spec()
    folder.seal(make_spec())
    assert folder.status().state == "queued"
    assert folder.finished_shards() == set()


def test_a_folder_is_cleared_of_what_a_job_wrote_and_of_nothing_else(jobs_path: Path) -> None:
    folder = make_folder(jobs_path)
    lock = folder.try_lock()
    assert lock is not None
    folder.scratch_path.touch()
    (folder.path / "notes.txt").touch()
    with pytest.raises(JobError, match=r"notes\.txt, which no job wrote"):
        folder.clear()
    assert folder.spec_path.exists()
    (folder.path / "notes.txt").unlink()
    folder.clear()
    assert [path.name for path in folder.path.iterdir()] == ["worker.lock"]
    os.close(lock)


def test_vectors_and_distances_appear_whole(jobs_path: Path) -> None:
    folder = make_folder(jobs_path)
    assert folder.read_vectors(2) is None
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(6, dtype=np.float32)), 2)
    folder.write_vectors(2, pa.table({"example_id": pa.array([106, 107, 108], pa.int64()), "vector": vectors}))
    read = folder.read_vectors(2)
    assert read is not None
    assert read["vector"].to_pylist() == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
    assert folder.finished_vectors() == {2}
    folder.write_distances(np.array([[1.0, np.nan]]))
    assert np.array_equal(folder.read_distances(), [[1.0, np.nan]], equal_nan=True)
    folder.distances_path.write_bytes(b"half")
    with pytest.raises(JobError, match=r"distances\.npy of job job-1 is damaged.*Delete .* then resume"):
        folder.read_distances()
    (folder.path / "vectors" / "00003.partial").touch()
    folder.remove_partials()
    assert [path.name for path in (folder.path / "vectors").iterdir()] == ["00002.parquet"]


def test_a_second_job_of_the_same_name_leaves_the_first_alone(jobs_path: Path) -> None:
    folder = make_folder(jobs_path)
    with pytest.raises(JobError, match="already"):
        make_folder(jobs_path, title="another")
    assert folder.spec().title == "Score 10 rows"
    assert [path.name for path in jobs_path.iterdir()] == ["job-1"]


def test_disk_full_while_the_input_is_written_leaves_no_half_folder(jobs_path: Path) -> None:
    # A limit on file size in a real process: the kernel cuts the write short, as a full disk does.
    code = """
import resource, sys
from pathlib import Path
from core.errors import JobError
from tests.core.jobs.conftest import make_folder
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    make_folder(Path(sys.argv[1]), n_rows=20000)
except JobError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", code, str(jobs_path)], capture_output=True, text=True, check=True)
    assert "the disk is full" in result.stdout
    assert list(jobs_path.iterdir()) == []


def test_a_shard_appears_whole_once_and_only_in_range(jobs_path: Path) -> None:
    folder = make_folder(jobs_path)
    shard = pa.table({"example_id": pa.array([100, 101, 102], pa.int64())})
    folder.write_shard(0, shard)
    assert folder.finished_shards() == {0}
    assert folder.read_shard(0).equals(shard)
    assert folder.status().done_rows == 3
    with pytest.raises(JobError, match="finished already"):
        folder.write_shard(0, shard)
    with pytest.raises(JobError, match="no shard 4"):
        folder.write_shard(4, shard)


def test_a_partial_is_no_shard_and_a_damaged_one_says_how_to_make_it_again(jobs_path: Path) -> None:
    folder = make_folder(jobs_path)
    folder.shard_path(2).with_suffix(".partial").write_bytes(b"PAR1 half")
    assert folder.finished_shards() == set()
    folder.shard_path(1).write_bytes(b"PAR1 half")
    with pytest.raises(JobError, match=r"00001\.parquet of job job-1 is damaged.*Delete .* then resume"):
        folder.read_shard(1)
    with pytest.raises(JobError, match="missing"):
        folder.read_shard(3)


def test_reasons_in_a_shard_are_redacted(jobs_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint that repeats the key in its error must not bring it into the store by way of a reason."""
    monkeypatch.setenv("TEACHER_API_KEY", "very-secret-key")
    folder = make_folder(jobs_path)
    reasons = pa.array(["401 for very-secret-key", None, "fine"])
    folder.write_shard(0, pa.table({"example_id": pa.array([1, 2, 3], pa.int64()), "reason": reasons}))
    assert folder.read_shard(0)["reason"].to_pylist() == ["401 for [redacted TEACHER_API_KEY]", None, "fine"]
    assert b"very-secret" not in folder.shard_path(0).read_bytes()


def test_a_torn_event_line_is_skipped_and_does_not_swallow_the_next(jobs_path: Path) -> None:
    """A worker killed in mid-write left half a line; the next event was glued to it and both were lost."""
    folder = make_folder(jobs_path)
    with folder.events_path.open("a") as file:
        file.write('{"at": "2026-11-20T12:00:00", "event": "do')
    assert names(folder) == ["submitted"]
    folder.append_event("note", message="after the crash")
    assert names(folder) == ["submitted", "note"]
    with folder.events_path.open("a") as file:
        file.write("5\n\n\xff garbage\n")
    assert names(folder) == ["submitted", "note"]


def test_a_reader_sees_each_event_once_and_a_line_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    reader = EventReader(path)
    assert reader.read() == []
    with path.open("a") as file:
        file.write('{"n": 1}\n{"n": ')
        file.flush()
        assert reader.read() == [{"n": 1}]
        assert reader.read() == []
        file.write("2}\n")
        file.flush()
        assert reader.read() == [{"n": 2}]
    path.write_text('{"n": 3}\n')
    assert reader.read() == [{"n": 3}]
    assert reader.restarted


def test_a_lone_surrogate_in_an_answer_is_kept(jobs_path: Path) -> None:
    folder = make_folder(jobs_path)
    folder.append_answer({"text": "broken \ud83d emoji"})
    folder.append_answer({"text": "é"})
    assert [answer["text"] for answer in folder.answers()] == ["broken \ud83d emoji", "é"]


def test_lines_of_several_processes_do_not_mix(jobs_path: Path) -> None:
    folder = make_folder(jobs_path)
    code = """
import sys
from core.jobs.folder import JobFolder
folder = JobFolder(sys.argv[1])
for n in range(200):
    folder.append_event("note", message="x" * 3000, n=n)
"""
    workers = [subprocess.Popen([sys.executable, "-c", code, str(folder.path)]) for _ in range(2)]
    assert [worker.wait() for worker in workers] == [0, 0]
    assert names(folder) == ["submitted"] + ["note"] * 400
    for line in folder.events_path.read_text().splitlines():
        assert not line or json.loads(line)


def test_log_tail_and_search(jobs_path: Path) -> None:
    folder = make_folder(jobs_path)
    assert folder.log_tail() == []
    lines = [f"line {n} {'Élan' if n % 1000 == 0 else 'é' * 50}" for n in range(5000)]
    folder.log_path.write_text("\n".join(lines) + "\n10%\r50%\r100%\nunfinished")
    assert folder.log_tail(3) == [lines[-1], "100%", "unfinished"]
    assert folder.log_tail(10, search="éLAN") == [lines[n] for n in range(0, 5000, 1000)]
    assert folder.log_tail(10**6) == [*lines, "100%", "unfinished"]
    assert folder.log_tail(5, search="nowhere") == []


def test_a_removed_folder_is_gone(jobs_path: Path) -> None:
    folder = make_folder(jobs_path)
    folder.remove()
    assert list(jobs_path.iterdir()) == []
    folder.remove()


def test_the_lock_is_held_by_one_and_freed_by_death(jobs_path: Path) -> None:
    folder = make_folder(jobs_path)
    code = """
import sys, time
from core.jobs.folder import JobFolder
assert JobFolder(sys.argv[1]).try_lock() is not None
print("held", flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code, str(folder.path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert folder.try_lock() is None
        holder.kill()
    lock = folder.try_lock()
    assert lock is not None
    os.close(lock)


def test_a_folder_with_another_spec_inside_is_refused(jobs_path: Path) -> None:
    folder = make_folder(jobs_path)
    copy = JobFolder(jobs_path / "copy")
    folder.path.rename(copy.path)
    with pytest.raises(JobError, match="of another job, job-1"):
        copy.spec()
    assert copy.status().state == "failed"


def test_a_table_that_no_one_can_read_is_named(jobs_path: Path) -> None:
    folder = make_folder(jobs_path)
    pq.write_table(make_input(), folder.path / "input.parquet")
    assert folder.input_table(columns=["example_id"]).column_names == ["example_id"]
    (folder.path / "input.parquet").write_bytes(b"")
    with pytest.raises(JobError, match=r"input\.parquet of job job-1 is damaged"):
        folder.input_table()
