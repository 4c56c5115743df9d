"""``python -m core fit RUNS.csv --response COLUMN --regressors a,b,c --out FIT.json``: a regression over runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from core.command_line import guarded
from core.errors import SettingsError
from core.fit_file import FitRun, fit_file, report
from core.regression import CRITERIA, DIRECTIONS, ROBUST, FitSpec

_EPILOG = """\
RUNS has a row for every run: the response (such as the evaluation loss) and the regressors (such as the means of the
indicators over the run's dataset). Cells that are empty are NULL; such runs are left out, counted and named. A column
"label" names the runs in messages.

FIT.json has coefficients (name, value, standard_error, t, p, interval, standardised, vif), r2, r2_adjusted, loo_r2, f,
aic, bic, condition_number, n, left_out, rows (predicted, leave-one-out, leverage, Cook's distance), warnings, versions
and, with --stepwise, its path (stepwise) and the leave-one-out R2 that repeats the selection (selection_loo_r2).
A singular fit is refused, and the columns that make it so are named.
"""


def run(arguments: argparse.Namespace) -> int:
    """Do the command; return the exit code.

    Raises:
        SettingsError: the arguments do not fit together.
    """
    asked = _fit_run(arguments)

    def act() -> str:
        fitted = fit_file(asked)
        result = fitted.result
        print(report(fitted), flush=True)
        out = f"; {len(result.left_out)} were left out" if result.left_out else ""
        return f"{asked.out}: fitted on {result.n} runs{out}."

    return guarded(act, doing="Fitting")


def add(commands: Any) -> None:
    """Add the command to the subparsers of ``python -m core``."""
    fit = commands.add_parser(
        "fit",
        help="fit a regression over the runs of a file",
        description="Fit a response (its log) on regressors by ordinary least squares; one run a row.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    fit.add_argument("runs", type=Path, metavar="RUNS.csv", help="CSV, TSV, JSON, JSON Lines or Parquet")
    fit.add_argument("--response", required=True, metavar="COLUMN", help="what is explained")
    fit.add_argument("--regressors", required=True, metavar="A,B,C", help="columns that explain it, by commas")
    fit.add_argument("--out", type=Path, required=True, metavar="FIT.json", help="where the result goes")
    fit.add_argument("--log-response", action="store_true", help="fit the natural log of the response, as the paper")
    fit.add_argument("--stepwise", choices=DIRECTIONS, help="select among the regressors first")
    fit.add_argument("--criterion", choices=CRITERIA, help="of --stepwise (default p)")
    fit.add_argument("--enter", type=float, metavar="P", help="a regressor enters below this p (default 0.05)")
    fit.add_argument("--leave", type=float, metavar="P", help="a regressor leaves above this p (default 0.10)")
    fit.add_argument("--robust", choices=ROBUST, help="standard errors that allow for unequal variances")
    fit.add_argument("--confidence", type=float, default=0.95, metavar="C", help="of the intervals (default 0.95)")
    fit.set_defaults(run=run)


def _fit_run(arguments: argparse.Namespace) -> FitRun:
    """What the arguments ask for.

    Raises:
        SettingsError: they do not fit together.
    """
    regressors = tuple(name.strip() for name in arguments.regressors.split(",") if name.strip())
    if not regressors:
        raise SettingsError("--regressors names no column; give one or more, by commas.")
    given = [name for name in ("criterion", "enter", "leave") if getattr(arguments, name) is not None]
    if given and arguments.stepwise is None:
        raise SettingsError(f"--{given[0]} is an option of --stepwise; give --stepwise forward, backward or both too.")
    thresholds = [name for name in given if name != "criterion"]
    if thresholds and arguments.criterion in ("aic", "bic"):
        raise SettingsError(f"--{thresholds[0]} is a p-value, which --criterion {arguments.criterion} does not use.")
    spec = FitSpec(
        response=arguments.response,
        regressors=regressors,
        log_response=arguments.log_response,
        robust=arguments.robust,
        confidence=arguments.confidence,
    )
    chosen = {name: getattr(arguments, name) for name in given}
    return FitRun(source=arguments.runs, out=arguments.out, spec=spec, direction=arguments.stepwise, **chosen)
