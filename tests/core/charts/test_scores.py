"""Figures of the score pages: what is drawn is what was counted, and hostile names stay text."""

from __future__ import annotations

import math

import pytest

from core.charts import scores as charts


def a_bin(
    dataset_id: int, low: float, high: float, n: int, *, is_last: bool = False, left: float | None = None
) -> dict:
    return {
        "dataset_id": dataset_id,
        "bin": 0,
        "is_last": is_last,
        "low": low,
        "high": high,
        "left_edge": low if left is None else left,
        "width": 1.0,
        "n": n,
    }


def a_summary(dataset_id: int, **more: object) -> dict:
    quantiles = {"q05": 0.1, "q25": 0.5, "median": 1.0, "q75": 1.5, "q95": 1.9}
    counts = {"n_members": 10, "n_values": 6, "n_nulls": 1, "n_missing": 3}
    return {"dataset_id": dataset_id, **quantiles, **counts, **more}


BINS = [
    a_bin(1, -5.0, 1.0, 2, left=0.0),
    a_bin(1, 1.0, 9.0, 4, is_last=True),
    a_bin(7, -5.0, 1.0, 1, left=0.0),
]
NAMES = {1: "First", 7: '<b>Second</b> & <a href="x">link</a> $x$'}


def test_a_bin_is_closed_so_that_its_filter_finds_exactly_its_rows() -> None:
    low, high = charts.bin_range(BINS[0])
    assert low == -5.0
    assert high < 1.0
    assert math.nextafter(high, math.inf) == 1.0
    assert charts.bin_range(BINS[1]) == (1.0, 9.0)
    assert charts.span_of(BINS[:2]) == (-5.0, 9.0)


def test_histogram_has_one_trace_per_dataset_in_the_order_of_by_dataset() -> None:
    figure = charts.histogram_figure(BINS, [a_summary(1), a_summary(7)], NAMES, title="ifd")
    assert [len(trace.y) for trace in figure.data] == [len(part) for part in charts.by_dataset(BINS)] == [2, 1]
    assert list(figure.data[0].y) == [2, 4]
    assert figure.data[0].x[0] == 0.5


def test_share_makes_each_dataset_add_up_to_100() -> None:
    figure = charts.histogram_figure(BINS, [a_summary(1), a_summary(7)], NAMES, title="ifd", share=True)
    assert [sum(trace.y) for trace in figure.data] == pytest.approx([100.0, 100.0])


@pytest.mark.parametrize(("n_datasets", "n_lines"), [(1, 5), (2, 6), (4, 4)])
def test_quantile_lines_thin_out_with_more_datasets(n_datasets: int, n_lines: int) -> None:
    bins = [a_bin(i, 0.0, 2.0, 3, is_last=True) for i in range(n_datasets)]
    names = {i: f"Set {i}" for i in range(n_datasets)}
    figure = charts.histogram_figure(bins, [a_summary(i) for i in range(n_datasets)], names, title="ifd")
    assert len(figure.layout.shapes) == n_lines
    assert [shape.x0 for shape in figure.layout.shapes if shape.line.dash == "solid"] == [1.0] * n_datasets


def test_a_dataset_without_values_has_no_line_and_no_bar() -> None:
    empty = a_summary(3, q05=None, q25=None, median=None, q75=None, q95=None)
    figure = charts.histogram_figure([], [empty], {3: "Empty"}, title="ifd")
    assert len(figure.data) == 0
    assert len(figure.layout.shapes) == 0


def test_all_values_equal_still_make_a_bar_that_can_be_seen() -> None:
    figure = charts.histogram_figure([a_bin(1, 3.0, 3.0, 8, is_last=True) | {"width": 0.0}], [], NAMES, title="x")
    assert figure.data[0].width[0] > 0


def test_names_are_text_and_no_markup() -> None:
    figure = charts.histogram_figure(BINS, [], NAMES, title="<i>x</i>")
    assert "<" not in figure.data[1].name
    assert "$" not in figure.data[1].name
    assert "<" not in figure.layout.xaxis.title.text


def test_coverage_shows_every_member_once_with_a_sign_beside_the_colour() -> None:
    figure = charts.coverage_figure([a_summary(1), a_summary(7)], NAMES)
    assert [sum(trace.x[i] for trace in figure.data) for i in (0, 1)] == [10, 10]
    assert [trace.text[0] for trace in figure.data] == ["✓", "∅", "…"]


def test_scatter_keeps_rows_in_order_and_escapes_what_it_hovers() -> None:
    points = [
        {"dataset_id": 1, "example_id": 1, "x": 0.5, "y": 3.0, "instruction": "<img src=x onerror=alert(1)>"},
        {"dataset_id": 7, "example_id": 2, "x": 0.9, "y": 5.0, "instruction": "b"},
        {"dataset_id": 1, "example_id": 3, "x": 0.7, "y": 4.0, "instruction": "c"},
    ]
    figure = charts.scatter_figure(points, NAMES, x_title="ifd", y_title="length", unit_lines=(True, False))
    assert list(figure.data[0].x) == [row["x"] for row in charts.by_dataset(points)[0]] == [0.5, 0.7]
    assert "<img" not in figure.data[0].customdata[0]
    assert len(figure.layout.shapes) == 1


@pytest.mark.parametrize(
    ("values", "log"),
    [([], False), ([1.0, 2.0, 3.0], False), ([1.0, 2.0, 5000.0], True), ([0.0, 2.0, 5000.0], False)],
)
def test_wants_log_only_of_positive_values_with_a_long_tail(values: list[float], log: bool) -> None:
    assert charts.wants_log(values) is log
