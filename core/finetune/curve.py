"""The loss curve of a run as a file that grows a line a step, so that it can be watched, and gone on with."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from core.finetune.results import CurvePoint

CURVE_FILE = "curve.jsonl"
"""Name of a loss curve in the folder of its run."""


def read_curve(path: Path) -> list[CurvePoint]:
    """The points of a curve file in order; none if it is not there. A torn last line is left out."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        return []
    points: list[CurvePoint] = []
    for line in lines[:-1]:
        try:
            points.append(CurvePoint(**json.loads(line)))
        except (ValueError, TypeError):
            break
    return points


class CurveFile:
    """Writes points; begins after the ``kept`` ones, which are all that an earlier attempt may leave."""

    def __init__(self, path: Path, kept: list[CurvePoint]) -> None:
        self.points = list(kept)
        self._path = path
        partial = path.with_name(f"{path.name}.partial")
        partial.write_text("".join(_line(point) for point in kept), encoding="utf-8")
        partial.replace(path)

    def add(self, point: CurvePoint) -> None:
        """Append a point; it is in the file when this returns."""
        self.points.append(point)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_line(point))


def _line(point: CurvePoint) -> str:
    return json.dumps(dataclasses.asdict(point)) + "\n"
