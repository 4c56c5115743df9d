"""The headless fit, run as people and clusters run it: a real process, a real file, a real exit code."""

from __future__ import annotations

import csv
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import InputError, SettingsError
from core.fit_file import FitRun, fit_file
from core.regression import FitResult, FitSpec, fit, stepwise
from tests.core.regression.simulated import SPEC, table

ROOT = Path(__file__).parents[2]
REGRESSORS = "reward,length,knn_6"


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "core", "fit", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def write_csv(path: Path, columns: dict[str, list[Any]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(
            ["" if value is None else value for value in row] for row in zip(*columns.values(), strict=True)
        )
    return path


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    columns: dict[str, list[Any]] = {"label": [f"mixture {i}" for i in range(40)], **table(6)}
    columns["reward"][4] = None
    columns["knn_6"][9] = "NaN"
    return write_csv(tmp_path / "runs.csv", columns)


def read(runs: Path, out: Path, **changes: Any) -> dict[str, Any]:
    fit_file(FitRun(**{"source": runs, "out": out, "spec": SPEC, **changes}))
    return json.loads(out.read_text())


def test_the_command_gives_the_numbers_of_the_page(runs: Path, tmp_path: Path):
    out = tmp_path / "fit.json"
    done = command(runs, "--response", "loss", "--regressors", REGRESSORS, "--log-response", "--out", out)
    assert done.returncode == 0, done.stderr
    of = table(6)
    of["reward"][4] = of["knn_6"][9] = None
    expected = fit(of, SPEC, labels=[f"mixture {i}" for i in range(40)], keys=range(2, 42))
    found = json.loads(out.read_text())
    assert FitResult.from_json(out.read_text()) == expected
    assert found["n"] == 38
    assert found["left_out"] == [["mixture 4", "no value of reward"], ["mixture 9", "no value of knn_6"]]
    for ours, one in zip(found["coefficients"], expected.coefficients, strict=True):
        assert {key: ours[key] for key in ("name", "value", "standard_error", "t", "p")} == {
            key: getattr(one, key) for key in ("name", "value", "standard_error", "t", "p")
        }
        assert ours["interval"] == [one.low, one.high]
    assert set(found["vif"]) == set(SPEC.regressors)
    for name in ("r2", "r2_adjusted", "aic", "bic", "loo_r2", "f", "warnings", "versions"):
        assert name in found
    assert found["stepwise"] is None
    assert "knn_6" in done.stdout
    assert "leave-one-out R2" in done.stdout
    assert "Note: 2 of 40 runs were left out" in done.stdout
    assert done.stderr.strip().endswith("fit.json: fitted on 38 runs; 2 were left out.")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fit.json", "runs.csv"]


def test_the_command_goes_stepwise_with_its_path(runs: Path, tmp_path: Path):
    out = tmp_path / "fit.json"
    done = command(
        *(runs, "--response", "loss", "--regressors", REGRESSORS, "--log-response", "--stepwise", "both"),
        *("--enter", "0.01", "--leave", "0.02", "--robust", "HC3", "--confidence", "0.9", "--out", out),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    of = table(6)
    of["reward"][4] = of["knn_6"][9] = None
    spec = FitSpec(response="loss", regressors=SPEC.regressors, robust="HC3", confidence=0.9)
    path = stepwise(of, spec, direction="both", enter=0.01, leave=0.02)
    assert found["spec"] == {
        "response": "loss",
        "regressors": list(path.chosen),
        "log_response": True,
        "robust": "HC3",
        "confidence": 0.9,
    }
    assert found["stepwise"]["chosen"] == list(path.chosen)
    assert [step["regressor"] for step in found["stepwise"]["steps"]] == [step.regressor for step in path.steps]
    assert found["selection_loo_r2"] < found["r2"]
    assert "  1. add " in done.stdout
    assert any("selected on the same runs" in said for said in found["warnings"])


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--response", "loss", "--regressors", "reward,mtld"], 1, "no column mtld. It has: label, loss, reward"),
        (["--response", "loss", "--regressors", " , "], 2, "--regressors names no column"),
        (["--response", "loss", "--regressors", "reward", "--criterion", "aic"], 2, "option of --stepwise"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(runs: Path, tmp_path: Path, arguments: list[str], code: int, said: str):
    done = command(runs, *arguments, "--out", tmp_path / "fit.json")
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "fit.json").exists()


def test_text_among_numbers_is_found_with_its_line(tmp_path: Path):
    for cell in ("high", "1_000", "0x10", "12 %"):
        path = write_csv(tmp_path / "runs.csv", {**table(6), "length": [*range(7), cell, *range(32)]})
        with pytest.raises(InputError, match=f"line 9: length is '{cell}', which is no number"):
            read(path, tmp_path / "fit.json")


def test_a_column_of_text_that_is_not_asked_for_does_no_harm(tmp_path: Path):
    path = write_csv(tmp_path / "runs.csv", {**table(6), "note": ['a, "b"\nc'] * 40})
    assert read(path, tmp_path / "fit.json")["n"] == 40


def test_a_damaged_row_is_refused_not_dropped(tmp_path: Path):
    path = write_csv(tmp_path / "runs.csv", table(6))
    path.write_text(path.read_text() + "1.5,2\n")
    with pytest.raises(InputError, match="line 42: it has 2 fields, but the header has 4"):
        read(path, tmp_path / "fit.json")


def test_parquet_and_json_lines_give_the_same_numbers(tmp_path: Path):
    of = table(6)
    pq.write_table(pa.table(of), tmp_path / "runs.parquet")
    rows = [dict(zip(of, row, strict=True)) for row in zip(*of.values(), strict=True)]
    (tmp_path / "runs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    expected = [one.value for one in fit(of, SPEC).coefficients]
    for name, label in (("runs.parquet", "row 1"), ("runs.jsonl", "line 1"), ("runs.csv", "line 2")):
        path = tmp_path / name
        found = read(path if path.exists() else write_csv(path, of), tmp_path / "fit.json")
        assert [one["value"] for one in found["coefficients"]] == expected
        assert found["rows"][0]["label"] == label


def test_a_result_is_replaced_whole_and_a_failed_fit_leaves_the_old_one(runs: Path, tmp_path: Path):
    out = tmp_path / "fit.json"
    out.write_text("old")
    with pytest.raises(InputError):
        read(runs, out, spec=FitSpec(response="loss", regressors=("label",)))
    assert out.read_text() == "old"
    assert read(runs, out)["n"] == 38


def test_the_place_of_the_result_must_be_one(runs: Path, tmp_path: Path):
    for out, said in (
        (tmp_path / "nowhere" / "fit.json", "does not exist"),
        (tmp_path, "is a folder"),
        (runs, "holds the runs themselves"),
    ):
        with pytest.raises(SettingsError, match=said):
            read(runs, out)


def test_noise_alone_ends_in_the_mean(tmp_path: Path):
    of = {"loss": [2.0 + math.sin(12.9 * i) for i in range(30)], "noise": [math.cos(78.2 * i) for i in range(30)]}
    path = write_csv(tmp_path / "runs.csv", of)
    found = read(path, tmp_path / "fit.json", spec=FitSpec(response="loss", regressors=("noise",)), direction="forward")
    assert [one["name"] for one in found["coefficients"]] == ["const"]
    assert found["f"] is None
    assert any("the mean alone" in said for said in found["warnings"])
