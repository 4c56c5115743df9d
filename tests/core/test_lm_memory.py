"""Out of memory, for real: a process whose address space is limited scores with a model that needs much more."""

from __future__ import annotations

import sys

import pytest

from tests.core import tiny_models
from tests.core.tight_memory import run_program

WORKER = """
import json, resource, sys
from core.example import Example
from core.lm import Student, StudentSettings

student = Student.load(StudentSettings(sys.argv[1], template="wizardlm", max_length=1000))
short = [Example(f"Ask {i}.", "", f"Answer number {i}.") for i in range(24)]
long = Example("Ask.", "", "word " * 180)
free = student.score(short)
budget = student._batcher.budget
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[2]), resource.RLIM_INFINITY))
tight = student.score([*short, long], ["loss_y", "loss_y_given_x"])
difference = max(abs(a[k].loss_nats - b[k].loss_nats) for a, b in zip(free, tight) for k in b)
of_long = tight[-1]["loss_y_given_x"]
print(json.dumps({
    "difference": difference, "budget": [budget, student._batcher.budget],
    "long": [of_long.loss_nats, of_long.n_tokens, of_long.reason, of_long.transient],
}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space are tried on Linux only")
def test_the_budget_is_halved_and_a_row_that_does_not_fit_alone_is_null_and_transient(tmp_path):
    # 49,152 numbers between the layers: 900 tokens take 177 MB for each array of them, 60 tokens 12 MB.
    folder = tiny_models.save(tmp_path, "llama", intermediate_size=49152, num_hidden_layers=1)
    told, _ = run_program(WORKER, str(folder), str(96 << 20), home=tmp_path)
    before, after = told["budget"]
    assert after < before
    assert told["difference"] < 1e-5
    loss, n_tokens, reason, transient = told["long"]
    assert loss is None
    assert n_tokens == 0
    assert "out of memory on this text alone" in reason
    assert transient
