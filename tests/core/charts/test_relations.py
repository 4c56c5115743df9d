"""Figures of the Relations and Map pages: drawn is what was computed, nothing is lost, hostile text stays text."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core.charts import relations as charts
from core.correlation import Correlation
from db.relations import Spread

EVIL = '<img src=x onerror=alert(1)> $x$ <a href="javascript:1">link</a>'
NAMES = {1: "First", 7: EVIL}
TABLE = [
    [Correlation(1.0, 9), Correlation(-0.9, 8), Correlation(None, 2, "Fewer than 3 rows have both scores.")],
    [Correlation(-0.9, 8), Correlation(1.0, 9), Correlation(0.1, 7)],
    [Correlation(None, 2, "Fewer than 3 rows have both scores."), Correlation(0.1, 7), Correlation(None, 9, "same")],
]


def a_point(example_id: int, **more: Any) -> dict[str, Any]:
    usual = {"dataset_id": 1, "example_id": example_id, "position": example_id, "x": 1.0 * example_id, "y": 2.0}
    return {**usual, "colour": None, "category": None, "instruction": EVIL, **more}


def a_spread(**more: Any) -> Spread:
    usual: dict[str, Any] = {"kind": "category", "dataset_id": None, "category": EVIL, "n": 4, "n_nulls": 1}
    quantiles = dict(zip(("q05", "q25", "median", "q75", "q95"), (1.0, 2.0, 3.0, 4.0, 5.0), strict=True))
    return Spread(**{**usual, **quantiles, "n_missing": 2, "minimum": 0.0, "maximum": 6.0, "mean": 3.5, **more})


def drawn(figure: Any) -> str:
    return json.dumps(figure.to_plotly_json(), default=lambda value: getattr(value, "tolist", lambda: str(value))())


def test_every_cell_has_a_mark_at_its_place_and_knows_its_pair() -> None:
    order = [2, 0, 1]
    figure = charts.correlation_figure(TABLE, ["a", "b", EVIL], order=order, method="Spearman")
    parts = charts.cells(TABLE, order)
    assert sum(len(part) for part in parts) == 9
    for trace, part in zip(figure.data[1:], parts, strict=True):
        for x, y, cell in zip(trace.x, trace.y, part, strict=True):
            assert (order[int(x)], order[int(y)]) == (cell.column, cell.row)
            assert figure.data[0].z[int(y)][int(x)] == (cell.correlation.value if cell.row != cell.column else None)
    assert "<img" not in drawn(figure)


def test_what_is_not_computable_is_no_zero_and_says_why() -> None:
    figure = charts.correlation_figure(TABLE, ["a", "b", "c"], order=[0, 1, 2], method="Spearman")
    assert figure.data[0].z[0][2] is None
    unknown = figure.data[3]
    assert [note.text for note in figure.layout.annotations].count("?") == len(unknown.x) == 2
    assert all("not computable: Fewer than 3 rows" in words for words in unknown.hovertext)
    assert any("Spearman -0.9000" in words and "8 rows have both" in words for words in figure.data[1].hovertext)


def test_next_to_nothing_has_no_sign() -> None:
    table = [[Correlation(1.0, 9), Correlation(-0.004, 9)], [Correlation(-0.004, 9), Correlation(1.0, 9)]]
    figure = charts.correlation_figure(table, ["a", "b"], order=[0, 1], method="Spearman")
    assert {note.text for note in figure.layout.annotations} == {"", "0.00"}


def test_marks_stay_unseen_when_a_cell_is_selected() -> None:
    figure = charts.correlation_figure(TABLE, ["a", "b", "c"], order=[0, 1, 2], method="Pearson")
    for trace in figure.data[1:]:
        assert (trace.marker.opacity, trace.selected.marker.opacity, trace.unselected.marker.opacity) == (0, 0, 0)


@pytest.mark.parametrize("by", ["dataset", "category", "score"])
def test_no_point_is_lost_whatever_it_is_coloured_by(by: str) -> None:
    points = [
        a_point(i, dataset_id=(1, 7)[i % 2], category=None if i % 5 == 0 else f"kind {i % 11}",
                colour=None if i % 3 else i / 7)
        for i in range(60)
    ]  # fmt: skip
    parts = charts.groups(points, by=by, names=NAMES)
    figure = charts.points_figure(parts, x_title="x", y_title="y", colour_title="ifd")
    assert sorted(row["example_id"] for part in parts for row in part.rows) == list(range(60))
    assert [len(trace.x) for trace in figure.data] == [len(part.rows) for part in parts]
    assert [list(trace.x) for trace in figure.data] == [[row["x"] for row in part.rows] for part in parts]
    if by == "category":
        assert [part.name for part in parts][-2:] == ["5 others", charts.NO_VALUE]
        assert len(parts) == charts.MOST_COLOURS + 1
    if by == "score":
        assert [part.name for part in parts] == ["", charts.NO_VALUE]
        assert list(figure.data[0].marker.color) == [row["colour"] for row in parts[0].rows]


def test_categories_do_not_depend_on_colour_alone() -> None:
    points = [a_point(i, category=f"kind {i % 4}") for i in range(20)]
    figure = charts.points_figure(charts.groups(points, by="category", names=NAMES), x_title="x", y_title="y")
    assert (
        len({trace.marker.symbol for trace in figure.data}) == len({trace.marker.color for trace in figure.data}) == 4
    )


def test_hostile_names_categories_and_instructions_stay_text() -> None:
    points = [a_point(1, dataset_id=7), a_point(2, category=EVIL)]
    for by in ("dataset", "category", "score"):
        figure = charts.points_figure(charts.groups(points, by=by, names=NAMES), x_title=EVIL, y_title=EVIL)
        assert "<img" not in drawn(figure)
        assert "<a href" not in drawn(figure)
        assert "$" not in figure.data[0].hovertext[0].replace("&#36;", "")
    assert "<img" not in drawn(charts.spread_figure([a_spread()], NAMES, title=EVIL))


def test_a_few_giants_do_not_take_all_the_colours() -> None:
    points = [a_point(i, colour=float(i)) for i in range(100)] + [a_point(100, colour=1e9)]
    marker = (
        charts.points_figure(charts.groups(points, by="score", names=NAMES), x_title="x", y_title="y").data[0].marker
    )
    assert marker.cmax < 200


def test_boxes_are_those_of_the_groups_with_values() -> None:
    spreads = [
        a_spread(category="b"),
        a_spread(kind="other", category=None, median=9.0),
        a_spread(kind="dataset", category=None, dataset_id=1),
        a_spread(n=0, q05=None, q25=None, median=None, q75=None, q95=None, mean=None),
    ]
    figure = charts.spread_figure(spreads, NAMES, title="ifd")
    assert list(figure.data[0].median) == list(figure.data[1].x) == [3.0, 9.0, 3.0]
    assert list(figure.layout.yaxis.ticktext) == ["b · 4", "all others · 4", "First · 4"]
    assert "1 NULL" in figure.data[1].hovertext[0]


def test_a_long_name_is_cut_and_an_empty_one_can_be_seen() -> None:
    assert len(charts.short("x" * 200)) == 48
    assert charts.short("  ") == "(empty)"
    assert charts.short("two\nlines") == "two lines"


def test_pairs_are_parted_by_verdict_with_sign_and_colour_and_undecided_ones_lie_below() -> None:
    verdicts = ["accepted", "undecided", "rejected", "undecided", "disputed"]
    points = [a_point(i, verdict=verdict, stage=EVIL) for i, verdict in enumerate(verdicts)]
    parts = charts.groups(points, by="verdict", names=NAMES)
    assert [(part.name, len(part.rows)) for part in parts] == [
        ("· undecided", 2), ("✓ accepted", 1), ("✗ rejected", 1), ("≠ disputed", 1),
    ]  # fmt: skip
    figure = charts.points_figure(parts, x_title="x", y_title="y")
    assert len({trace.marker.color for trace in figure.data}) == 4
    assert all(isinstance(trace.marker.opacity, float) for trace in figure.data)  # a list would end all selecting
    assert [part.name for part in charts.groups(points, by="stage", names=NAMES)] == [EVIL]
    assert "<img" not in drawn(
        charts.points_figure(charts.groups(points, by="stage", names=NAMES), x_title="", y_title="")
    )
