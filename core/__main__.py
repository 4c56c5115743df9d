"""The command line: ``python -m core score INPUT --out OUT.parquet``, what a cluster job calls.

Exit codes: 0 done, 1 failed (in plain words on stderr), 2 wrong use, 130 interrupted (143 by SIGTERM); the same command
then goes on where it stopped.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NoReturn

from core.embedding import EmbedderSettings
from core.errors import AssayError, SettingsError
from core.formats import ColumnMapping
from core.indicators import DEFAULT_NEIGHBOUR, INDICATORS, MOST_NEIGHBOURS, chosen, roles_needed
from core.jobs.disk import disk_error, is_disk_full
from core.jobs.folder import JobFolder
from core.jobs.runner import Progress, RedactingStream
from core.jobs.secrets import redact
from core.jobs.spec import JobSpec
from core.lm import StudentSettings
from core.models import DTYPES
from core.prompts import TEMPLATES
from core.reward import FORMS, RewardSettings
from core.score_file import FileRun, score_file, work_folder
from core.scoring import Models
from core.unieval import UniEvalSettings

_EPILOG = """\
Without --indicators everything is scored that needs no model but those that are named; of --indicators reward,
naturalness, coherence, understandability and knn have published models as defaults, the student has none.

The result has a row for every row of the file, also for those that could not be read: row (from 0), a column for each
number, loss_y, loss_y_given_x, loss_x, loss_x_given_y, how many tokens each runs over, and reason (why something is
NULL). It appears when it is whole. Until then OUT.job holds what is done: after a crash or Ctrl-C the same command goes
on there (batch budget and device may change); --restart begins anew and replaces a result that is there.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        run = _file_run(arguments)
    except SettingsError as error:
        parser.error(str(error))
    sys.stdout, sys.stderr = RedactingStream(sys.stdout), RedactingStream(sys.stderr)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: _interrupted(number))
    return _score(run)


def _score(run: FileRun) -> int:
    line = ProgressLine(sys.stderr)
    began = time.monotonic()
    try:
        result = score_file(run, report=lambda folder, spec: FileProgress(folder, spec, line))
    except AssayError as error:
        line.end()
        return _say(str(error))
    except MemoryError:
        line.end()
        return _say("The machine ran out of memory. Free some, then give the same command again.")
    except OSError as error:
        line.end()
        if not is_disk_full(error):
            return _unexpected(error, run)
        return _say(str(disk_error(error, doing=str(error.filename or "A file"), then="give the same command again")))
    except (Exception, SystemExit) as error:  # noqa: BLE001
        # The border of the process: a fault of ours or of a library is told in a line, its traceback kept in a file.
        line.end()
        return _unexpected(error, run)
    line.end()
    incomplete = f", {result.n_incomplete:,} of them with a NULL (see the column reason)" if result.n_incomplete else ""
    refused = f"; {result.n_refused:,} could not be read" if result.n_refused else ""
    seconds = _duration(time.monotonic() - began)
    print(f"{run.out}: {result.n_rows:,} rows{incomplete}{refused}. {seconds}.", file=sys.stderr)
    return 0


def _say(message: str) -> int:
    print(f"assay: {message}", file=sys.stderr)
    return 1


def _unexpected(error: BaseException, run: FileRun) -> int:
    text = " ".join(str(error).split())
    return _say(f"Scoring stopped on an unexpected error: {type(error).__name__}: {text}.{_kept_traceback(run)}")


def _kept_traceback(run: FileRun) -> str:
    """Keep the traceback of the error that is being handled in the log of the work folder; say where."""
    path = work_folder(run.out).log_path
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(redact(traceback.format_exc()))
    except OSError:
        return ""
    return f" More in {path}."


def _interrupted(number: int) -> NoReturn:
    # Leaves at once, as the worker of a job does: what is done is on the disk.
    name = signal.Signals(number).name
    sys.stderr.write(f"\nassay: Interrupted ({name}). What is done is kept; the same command goes on there.\n")
    sys.stderr.flush()
    os._exit(128 + number)


class ProgressLine:
    """How far a run is, on one line: redrawn on a terminal, else a line a second at most."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self.redraws = os.isatty(stream.fileno())
        self._pause = 0.2 if self.redraws else 1.0
        self._shown_at = 0.0
        self._width = 0

    def show(self, text: str, *, now: bool = False) -> None:
        """Show a line; without ``now`` it is left out when the last one was shown only just."""
        at = time.monotonic()
        if not now and at - self._shown_at < self._pause:
            return
        self._shown_at = at
        if self.redraws:
            self._stream.write(f"{text.ljust(self._width)}\r")
            self._width = len(text)
        else:
            self._stream.write(f"{text}\n")
        self._stream.flush()

    def end(self) -> None:
        """Leave the line that was redrawn."""
        if self.redraws and self._width:
            self._stream.write("\n")
        self._width = 0


class FileProgress(Progress):
    """Progress of a headless run: told as events of its folder, and on a line."""

    def __init__(self, folder: JobFolder, spec: JobSpec, line: ProgressLine) -> None:
        super().__init__(folder, spec)
        self._total = spec.n_rows
        self._before = spec.rows_in(folder.finished_shards())
        self._line = line
        self._note_shown = ""
        self._began: float | None = None

    def note(self, message: str) -> None:
        super().note(message)
        self._note_shown = message
        self._began = time.monotonic()
        self._line.show(message, now=not message.startswith(("Embedding", "Finding neighbours of")))

    def rows(self, done: int) -> None:
        super().rows(done)
        seconds = time.monotonic() - (self._began or time.monotonic())
        speed = (done - self._before) / seconds if seconds > 0.5 else 0.0
        text = f"{self._note_shown}: {done:,} of {self._total:,} rows"
        if self._line.redraws:
            filled = 20 * done // max(self._total, 1)
            text = f"[{'#' * filled}{'.' * (20 - filled)}] {text}"
        if speed > 0:
            text += f", {speed:,.1f} rows/s, {_duration((self._total - done) / speed)} left"
        self._line.show(text, now=done >= self._total)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _whole(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of 1 or more")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m core", description="Assay without a server.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    score = commands.add_parser(
        "score",
        help="score the rows of a file",
        description="Score the rows of a file (JSON, JSON Lines, CSV, TSV or Parquet, plain or gzipped).",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    score.add_argument("input", type=Path, metavar="INPUT", help="file of rows")
    score.add_argument("--out", type=Path, required=True, metavar="OUT.parquet", help="where the result goes")
    listed = ", ".join("knn" if one.needs.neighbour else one.key for one in INDICATORS)
    score.add_argument("--indicators", metavar="A,B", help=f"by commas, of: {listed}, knn_1 to knn_{MOST_NEIGHBOURS}")
    score.add_argument("--mapping", metavar="M", help="instruction=COLUMN,output=COLUMN[,input=COLUMN]")
    score.add_argument("--student", metavar="MODEL", help="causal language model: hub id or folder")
    score.add_argument("--template", choices=tuple(TEMPLATES), default=StudentSettings.template)
    score.add_argument(
        "--max-length", type=_whole, default=StudentSettings.max_length, help="of the student, in tokens"
    )
    score.add_argument("--reward-model", metavar="MODEL", help=f"default: {RewardSettings().model}")
    score.add_argument("--reward-form", choices=FORMS, default=RewardSettings().form, help="how it reads its texts")
    score.add_argument("--unieval", metavar="MODEL", help=f"T5 of UniEval; default: {UniEvalSettings().model}")
    score.add_argument("--embedder", metavar="MODEL", help=f"default: {EmbedderSettings().model}")
    score.add_argument("--knn", metavar="I,J", help=f"which neighbours knn means (default {DEFAULT_NEIGHBOUR})")
    for role in ("", "reward-", "unieval-", "embedder-"):
        of = f"of the {role[:-1] or 'student'}"
        score.add_argument(f"--{role}revision", metavar="COMMIT", help=f"commit, tag or digest {of}")
    score.add_argument("--dtype", choices=DTYPES, help="of all models (default float32 on a CPU, bfloat16 on a GPU)")
    score.add_argument("--batch-tokens", type=_whole, default=8192, help="budget of one batch, of all models")
    score.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default cpu)")
    score.add_argument("--shard-rows", type=_whole, help="rows that are kept once they are done")
    score.add_argument("--restart", action="store_true", help="begin anew, and replace a result that is there")
    return parser


def _file_run(arguments: argparse.Namespace) -> FileRun:
    """What the arguments ask for.

    Raises:
        SettingsError: they do not fit together.
    """
    models = _models(arguments)
    indicators = _indicators(arguments, models)
    if "student" in roles_needed(indicators) and models.student is None:
        needy = next(one for one in chosen(indicators) if one.needs.role == "student")
        raise SettingsError(f"{needy.key} needs a student: give --student, or leave it out of --indicators.")
    return FileRun(
        source=arguments.input,
        out=arguments.out,
        indicators=tuple(one.key for one in chosen(indicators)),
        models=models,
        mapping=_mapping(arguments.mapping),
        shard_rows=arguments.shard_rows,
        restart=arguments.restart,
    )


def _models(arguments: argparse.Namespace) -> Models:
    """Models of all roles; of those that are not named the published ones, which are loaded only if they are needed."""
    dtype = arguments.dtype or ("bfloat16" if arguments.device.startswith("cuda") else "float32")
    common = {"dtype": dtype, "batch_tokens": arguments.batch_tokens, "device": arguments.device}
    student = None
    if arguments.student is not None:
        student = StudentSettings(
            arguments.student,
            revision=arguments.revision,
            template=arguments.template,
            max_length=arguments.max_length,
            **common,
        )
    return Models(
        student=student,
        reward=RewardSettings(
            model=arguments.reward_model or RewardSettings().model,
            revision=arguments.reward_revision,
            form=arguments.reward_form,
            **common,
        ),
        unieval=UniEvalSettings(
            model=arguments.unieval or UniEvalSettings().model, revision=arguments.unieval_revision, **common
        ),
        embedder=EmbedderSettings(
            model=arguments.embedder or EmbedderSettings().model, revision=arguments.embedder_revision, **common
        ),
    )


def _indicators(arguments: argparse.Namespace, models: Models) -> list[str]:
    neighbours = _neighbours(arguments.knn)
    if arguments.indicators is not None:
        named = [key.strip() for key in arguments.indicators.split(",") if key.strip()]
        keys = [key for name in named for key in (neighbours if name in ("knn", "knn_i") else [name])]
        keys += neighbours if arguments.knn else []
        chosen(keys)
        return keys
    given = {
        None: True,
        "student": models.student is not None,
        "reward": arguments.reward_model is not None,
        "unieval": arguments.unieval is not None,
        "embedder": arguments.embedder is not None or arguments.knn is not None,
    }
    wanted = [one for one in INDICATORS if given[one.needs.role]]
    return [key for one in wanted for key in (neighbours if one.needs.neighbour else [one.key])]


def _neighbours(text: str | None) -> list[str]:
    numbers = [part.strip() for part in (text or str(DEFAULT_NEIGHBOUR)).split(",") if part.strip()]
    if not numbers or not all(one.isdecimal() and 1 <= int(one) <= MOST_NEIGHBOURS for one in numbers):
        raise SettingsError(f"--knn is {text!r}; give whole numbers from 1 to {MOST_NEIGHBOURS}, by commas.")
    return [f"knn_{int(one)}" for one in numbers]


def _mapping(text: str | None) -> ColumnMapping | None:
    if text is None:
        return None
    pairs = [part.partition("=") for part in text.split(",")]
    found = {key.strip(): column.strip() for key, _, column in pairs}
    if not set(found) <= {"instruction", "input", "output"} or not {"instruction", "output"} <= set(found):
        raise SettingsError(
            f"--mapping is {text!r}; give instruction=COLUMN,output=COLUMN, and input=COLUMN if need be."
        )
    return ColumnMapping(instruction=found["instruction"], output=found["output"], input=found.get("input"))


if __name__ == "__main__":
    sys.exit(main())
