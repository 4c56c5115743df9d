"""Figures of the Studies page: every run is drawn once, a missing loss is a gap, hostile names stay text."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core.charts import studies as charts
from core.charts.studies import Line, Panel

EVIL = '<img src=x onerror=alert(1)> $x$ <a href="javascript:1">link</a>'


def drawn(figure: Any) -> str:
    return json.dumps(figure.to_plotly_json(), default=lambda value: getattr(value, "tolist", lambda: str(value))())


def a_line(run_id: int, losses: tuple[float | None, ...], *, state: str = "done") -> Line:
    steps = tuple(range(1, len(losses) + 1))
    return Line(run_id, f"mixture {run_id} {EVIL}", "mixture", state, steps, tuple(s / 10 for s in steps), losses)


def test_smoothing_by_hand() -> None:
    assert charts.smoothed([2.0, 4.0, None, 0.0], 0.5) == [2.0, 3.0, None, 1.5]
    assert charts.smoothed([2.0, float("nan"), 4.0], 0.0) == [2.0, None, 4.0]
    assert charts.smoothed([], 0.9) == []


def test_a_long_line_is_thinned_but_its_end_and_its_gaps_stay() -> None:
    losses: list[float | None] = [float(i) for i in range(1000)]
    losses[501] = None
    xs, ys = charts.thinned(list(range(1000)), losses, 100)
    assert len(xs) <= 103
    assert (xs[0], xs[-1]) == (0, 999)
    assert ys[xs.index(501)] is None
    assert charts.thinned([1, 2], [3.0, None], 2) == ([1, 2], [3.0, None])


def test_every_run_has_a_line_and_every_state_one_name() -> None:
    lines = [a_line(1, (3.0, 2.0)), a_line(2, (3.0, None), state="bad"), a_line(3, (2.5,), state="running")]
    figure = charts.curves_figure(lines, log=True)
    assert len(figure.data) == 3
    assert [trace.showlegend for trace in figure.data] == [True, True, True]
    assert list(figure.data[1].y) == [3.0, None]
    assert figure.data[1].line.dash == "dash"
    assert figure.data[2].mode == "markers"  # one step is no line
    assert figure.layout.xaxis.dtick == 1  # there is no step 1.5
    many = charts.curves_figure([a_line(1, tuple(float(i) for i in range(1, 30)))])
    assert many.layout.xaxis.dtick is None
    assert figure.layout.yaxis.type == "log"
    assert "<img" not in drawn(figure)


def runs() -> list[dict[str, Any]]:
    return [
        {"run_id": 1, "label": EVIL, "role": "mixture", "loss_nats": 2.0, "means": {"length": 40.0, "ifd": 0.6}},
        {"run_id": 2, "label": "b", "role": "bin", "loss_nats": 2.5, "means": {"length": 60.0, "ifd": None}},
        {"run_id": 3, "label": "c", "role": "mixture", "loss_nats": 2.2, "means": {"length": 50.0}},
    ]


def test_traces_hold_the_rows_that_they_say() -> None:
    panels = [Panel("length", "Length"), Panel("ifd", EVIL)]
    parts = charts.by_role(runs(), panels)
    figure = charts.against_indicators_figure(runs(), panels, base_loss=2.6)
    assert [[row["run_id"] for row in part] for part in parts] == [[1, 3], [2], [1], []]
    for trace, part in zip(figure.data, parts, strict=True):
        assert list(trace.y) == [row["loss_nats"] for row in part]
    assert list(figure.data[0].x) == [40.0, 50.0]
    assert sum(shape.y0 == 2.6 for shape in figure.layout.shapes) == 2
    assert "<img" not in drawn(figure)


def test_a_base_that_is_far_from_the_runs_does_not_press_them_together() -> None:
    assert charts.is_far(4.0, runs())
    assert charts.is_far(1.0, runs())
    assert not charts.is_far(2.75, runs())  # the runs reach from 2.0 to 2.5
    assert not charts.against_indicators_figure(runs(), [Panel("length", "Length")], base_loss=4.0).layout.shapes


@pytest.mark.parametrize("n", [1, 4, 5, 13])
def test_there_is_a_panel_for_each_indicator(n: int) -> None:
    panels = [Panel(f"k{i}", f"indicator {i}") for i in range(n)]
    figure = charts.against_indicators_figure([{**runs()[0], "means": {f"k{i}": 1.0 for i in range(n)}}], panels)
    assert len(figure.data) == n
    assert sum("indicator" in str(note.text) for note in figure.layout.annotations) == n


def test_bars_are_the_rows_of_each_source() -> None:
    rows = [{"label": EVIL, "proportions": {"a": 30, EVIL: 10}}, {"label": "two", "proportions": {"a": 40}}]
    figure = charts.composition_figure(rows, ["a", EVIL])
    assert [list(trace.y) for trace in figure.data] == [[30, 40], [10, 0]]
    assert "<img" not in drawn(figure)


def test_outputs_without_a_loss_are_not_drawn_as_zero() -> None:
    figure = charts.output_losses_figure([{"loss_nats": 2.0}, {"loss_nats": None}, {"loss_nats": 4.0}])
    assert list(figure.data[0].x) == [2.0, 4.0]
    assert figure.layout.shapes[0].x0 == 3.0
    assert len(charts.output_losses_figure([]).data[0].x or ()) == 0
