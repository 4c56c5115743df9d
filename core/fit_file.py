"""Fit a regression over the runs of a file, without store or server, by the same path as the page."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import InputError, SettingsError
from core.formats import BadRow, Source, open_source
from core.jobs.disk import disk_error, sync_directory, write_synced
from core.regression import FitResult, FitSpec, by_stepwise, fit, selection_loo_r2, stepwise
from core.regression import Path as StepwisePath

SEARCHED = (
    "The regressors were selected on the same runs, so their p-values and intervals look better than they are, and so "
    "does loo_r2; selection_loo_r2 repeats the selection without each run."
)
"""What must be said of a fit after a selection."""

# Cells that mean "no value", as spreadsheets, R and pandas write them.
_EMPTY = frozenset({"", "na", "n/a", "nan", "null", "none"})
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?inf(?:inity)?", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class FitRun:
    """What to fit: runs of ``source`` (one a row) as ``spec`` says; the result goes to the JSON file ``out``.

    ``direction``  stepwise selection among the regressors first; None: all of them
    ``criterion, enter, leave``  of that selection
    """

    source: Path
    out: Path
    spec: FitSpec
    direction: str | None = None
    criterion: str = "p"
    enter: float = 0.05
    leave: float = 0.10


@dataclass(frozen=True)
class Fitted:
    """A fit, the stepwise path to it, and leave-one-out R² with the selection repeated; None: nothing was selected."""

    result: FitResult
    path: StepwisePath | None = None
    selection_loo_r2: float | None = None


def fit_file(run: FitRun) -> Fitted:
    """Fit the runs of a file and write the result, which appears whole under its name or not at all.

    Empty cells are NULL: such runs are left out, counted in ``left_out``. A column ``label`` names the runs, else they
    are called by their line (of Parquet: the number of the row).

    Raises:
        SettingsError: the place of the result cannot be, or an option is wrong.
        InputError: the file cannot be read, lacks a column, has text where numbers must be, or cannot be fitted.
        JobError: the result cannot be written.
    """
    if not run.out.parent.is_dir():
        raise SettingsError(f"The folder {run.out.parent} does not exist. Make it, or choose another --out.")
    if run.out.is_dir():
        raise SettingsError(f"{run.out} is a folder. Give the name of a file as --out.")
    if run.out.resolve() == run.source.resolve():
        raise SettingsError(f"{run.out} holds the runs themselves. Choose another --out.")
    columns = list(dict.fromkeys([run.spec.response, *run.spec.regressors]))
    table, labels, lines = read_runs(open_source(run.source), columns)
    spec, path = run.spec, None
    if run.direction is not None:
        path = stepwise(
            table,
            spec,
            direction=run.direction,
            criterion=run.criterion,
            enter=run.enter,
            leave=run.leave,
            labels=labels,
        )
        spec = dataclasses.replace(spec, regressors=path.chosen)
    result = fit(table, spec, labels=labels, keys=lines)
    if path is not None:
        result = dataclasses.replace(result, warnings=(*result.warnings, SEARCHED))
    fitted = Fitted(result, path, None if path is None else _searched_r2(run, table, labels))
    _write(run.out, document(fitted, source=run.source.name))
    return fitted


def _searched_r2(run: FitRun, table: dict[str, list[float | None]], labels: Sequence[str]) -> float | None:
    select = by_stepwise(direction=run.direction or "both", criterion=run.criterion, enter=run.enter, leave=run.leave)
    return selection_loo_r2(table, run.spec, select=select, labels=labels)[0]


def read_runs(source: Source, columns: Sequence[str]) -> tuple[dict[str, list[float | None]], list[str], list[int]]:
    """(columns of numbers, None where a cell is empty; label of every run; its line) of a file of runs.

    Raises:
        InputError: a column is missing, a row is damaged, or a cell holds text.
    """
    absent = [name for name in columns if name not in source.columns]
    if absent:
        raise InputError(
            f"{source.name} has no column {', '.join(absent)}. It has: {', '.join(source.columns) or 'none'}."
        )
    unit = "row" if source.container == "Parquet" else "line"
    table: dict[str, list[float | None]] = {name: [] for name in columns}
    labels, lines = [], []
    for row in source.rows():
        if isinstance(row, BadRow):
            raise InputError(f"{source.name}, {unit} {row.line}: {row.reason} Correct it; no run is left out unseen.")
        line, fields = row
        for name in columns:
            try:
                table[name].append(_number(fields.get(name)))
            except ValueError:
                shown = repr(fields.get(name))[:60]
                raise InputError(
                    f"{source.name}, {unit} {line}: {name} is {shown}, which is no number. Correct it, or leave the "
                    "cell empty."
                ) from None
        label = fields.get("label") if "label" not in columns else None
        labels.append(str(label) if label not in (None, "") else f"{unit} {line}")
        lines.append(line)
    return table, labels, lines


def _number(value: Any) -> float | None:
    """The number of a cell; None if it is empty or not finite. ValueError if it is something else."""
    if value is None:
        return None
    if isinstance(value, bool):
        raise ValueError("a truth value")
    if isinstance(value, str):
        text = value.strip()
        if text.lower() in _EMPTY:
            return None
        if not _NUMBER.fullmatch(text):  # float() would take 1_000 and more
            raise ValueError(text)
        value = text
    try:
        number = float(value)
    except (TypeError, OverflowError) as error:
        raise ValueError(str(error)) from error
    return number if math.isfinite(number) else None


def document(fitted: Fitted, *, source: str) -> str:
    """The result as JSON: what :meth:`FitResult.from_json` reads back, and the stepwise path, intervals and VIFs."""
    result, path = fitted.result, fitted.path
    fields = json.loads(result.to_json())
    for one in fields["coefficients"]:
        one["interval"] = [one["low"], one["high"]]
    fields["vif"] = {one.name: one.vif for one in result.coefficients if one.vif is not None}
    fields["stepwise"] = None if path is None else path.to_dict()
    fields["selection_loo_r2"] = fitted.selection_loo_r2
    fields["source"] = source
    return json.dumps(fields, ensure_ascii=False, allow_nan=False, indent=1) + "\n"


def _write(out: Path, text: str) -> None:
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        try:
            write_synced(partial, text)
            partial.replace(out)
            sync_directory(out.parent)
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise disk_error(error, doing=f"The result {out}", then="give the same command again") from error


def report(fitted: Fitted) -> str:
    """The fit as a short table for a terminal."""
    result, path = fitted.result, fitted.path
    lines = []
    if path is not None:
        lines.append(f"Stepwise ({path.direction}, {path.criterion}) over {path.n} runs:")
        value = "BIC" if path.criterion == "bic" else "AIC"
        for step in path.steps:
            p = "" if step.p is None else f", p = {step.p:.3g}"
            lines.append(
                f"  {step.number}. {step.action} {step.regressor}{p}, {value} {_short(step.before)} -> "
                f"{_short(step.after)}"
            )
        lines += [f"  {path.reason}", ""]
    spec = result.spec
    lines.append(f"{spec.response_text}, {result.n} runs, {spec.robust or 'ordinary'} standard errors")
    width = max(len(one.name) for one in result.coefficients)
    interval = f"{100 * spec.confidence:g} % interval"
    lines.append(f"{'':{width}}  {'coefficient':>12} {'std. error':>11} {'t':>8} {'p':>9}  {interval:>25} {'VIF':>8}")
    for one in result.coefficients:
        low_high = f"{one.low:.5g} to {one.high:.5g}"
        lines.append(
            f"{one.name:{width}}  {one.value:12.6g} {one.standard_error:11.5g} {_short(one.t):>8} {_short(one.p):>9}  "
            f"{low_high:>25} {_short(one.vif):>8}"
        )
    figures = {
        "R2": result.r2,
        "adjusted R2": result.r2_adjusted,
        "leave-one-out R2": result.loo_r2,
        **({} if path is None else {"the same with the selection repeated": fitted.selection_loo_r2}),
        "F": result.f,
        "p(F)": result.f_p,
        "AIC": result.aic,
        "BIC": result.bic,
        "condition number": result.condition_number,
    }
    lines.append(", ".join(f"{name} {_short(value)}" for name, value in figures.items()))
    lines += [f"Note: {warning}" for warning in result.warnings]
    return "\n".join(lines)


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
