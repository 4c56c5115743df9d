"""A worker without torch: the real runner with a handler that the tests steer by ``params``.

Run as ``python -m tests.core.jobs.fake_runner FOLDER``. Its shards have columns example_id, pid and attempt, so that a
test sees which process computed which shard.
"""

from __future__ import annotations

import logging
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from core.errors import ModelError
from core.jobs.folder import JobFolder
from core.jobs.runner import Progress, main
from core.jobs.spec import JobSpec


def run(folder: JobFolder, spec: JobSpec, report: Progress) -> None:
    params = spec.params
    finished = folder.finished_shards()
    _prepare(params)
    for index, start, stop in folder.shard_ranges():
        if index in finished:
            continue
        _misbehave(folder, index, params)
        time.sleep(params.get("seconds_per_shard", 0.0))
        ids = folder.input_table()["example_id"].slice(start, stop - start)
        if index == params.get("row_errors_in_shard"):
            report.row_errors("no token of the response is left", [ids[0].as_py()])
        report.rows(stop)
        n = len(ids)
        columns = {
            "example_id": ids,
            "pid": pa.array([os.getpid()] * n, pa.int64()),
            "reason": pa.array([params.get("reason")] * n, pa.string()),
            "text": pa.array([os.urandom(params.get("bytes_per_row", 4)).hex() for _ in range(n)]),
        }
        folder.write_shard(index, pa.table(columns))


def _prepare(params: Mapping[str, Any]) -> None:
    if "grandchild_pid_file" in params:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        Path(params["grandchild_pid_file"]).write_text(str(child.pid))
    if "ignore_sigterm" in params:
        import signal

        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "environment_file" in params:
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TOKENIZERS_PARALLELISM", "CUDA_VISIBLE_DEVICES")
        Path(params["environment_file"]).write_text(",".join(os.environ.get(name, "unset") for name in names))
    if "disk_full_while" in params and Path(params["disk_full_while"]).exists():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


def _misbehave(folder: JobFolder, index: int, params: Mapping[str, Any]) -> None:
    if "say_environment" in params:
        value = os.environ[params["say_environment"]]
        print("printed", value)
        logging.getLogger("library").warning("logged %s", value)
        folder.append_answer({"error": f"401: bad key {value}"})
        raise ModelError(f"The endpoint refused the key {value}.")
    if "raise" in params:
        raise RuntimeError(params["raise"])
    if index == params.get("wait_at_shard"):
        gate = Path(params["gate"])
        while not gate.exists():
            time.sleep(0.02)
    if index == params.get("stop_early_at"):
        sys.exit(0)


HANDLERS = {"score": "tests.core.jobs.fake_runner:run", "reflect": "tests.core.jobs.nowhere:run"}

if __name__ == "__main__":
    sys.exit(main(handlers=HANDLERS))
