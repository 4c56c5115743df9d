"""Figures of the Select page: what they draw is what they were given, and names stay text."""

from __future__ import annotations

import numpy as np

from core.charts import comparison, selection

EDGES = np.array([0.0, 1.0, 2.0, 3.0])
COUNTS = np.array([4, 6, 2])


def panel(title: str, *, mean: float = 1.2, selected_mean: float = 0.7) -> selection.Panel:
    return selection.Panel(title, EDGES, COUNTS, np.array([3, 1, 0]), mean, selected_mean)


def test_bars_of_selected_and_others_add_up_to_all_rows() -> None:
    figure = selection.predicted_figure(EDGES, COUNTS, np.array([4, 1, 0]), border=1.2, title="log loss")
    selected, others = figure.data
    assert (np.array(selected.y) + np.array(others.y)).tolist() == COUNTS.tolist()
    assert figure.layout.barmode == "stack"
    assert [shape.x0 for shape in figure.layout.shapes] == [1.2]


def test_a_border_outside_the_bins_is_drawn_at_their_end() -> None:
    figure = selection.predicted_figure(EDGES, COUNTS, COUNTS, border=99.0, title="log loss")
    assert figure.layout.shapes[0].x0 == 3.0
    assert "99" in figure.layout.annotations[0].text
    assert not selection.predicted_figure(EDGES, COUNTS, COUNTS, border=None, title="").layout.shapes


def test_panels_are_shares_of_their_own_rows_with_both_means() -> None:
    figure = selection.moves_figure([panel("length"), panel("ifd", selected_mean=float("nan"))])
    assert len(figure.data) == 4
    assert np.isclose(sum(figure.data[0].y), 100)
    assert np.isclose(sum(figure.data[1].y), 100)
    titles = [annotation.text for annotation in figure.layout.annotations]
    assert titles[0] == "length<br>1.2 → <b>0.7</b>"
    assert titles[1] == "ifd<br>1.2 → <b>—</b>"
    assert len(figure.layout.shapes) == 3


def test_an_indicator_without_a_value_says_so() -> None:
    figure = selection.moves_figure([panel("reward", mean=float("nan"))])
    assert figure.layout.annotations[0].text == "reward<br>no value"


def test_titles_and_labels_are_text() -> None:
    figure = selection.moves_figure([panel("<b>$x$</b>")])
    assert "<b>$" not in figure.layout.annotations[0].text
    point = comparison.Point("<img src=x>", 1.0, 10, 0)
    drawn = comparison.comparison_figure([point], [point])
    assert "<img" not in drawn.to_json()


def test_a_point_for_every_run_and_the_band() -> None:
    points = [comparison.Point(f"random ({i})", 2.0 + 0.1 * i, 10, i) for i in range(3)]
    figure = comparison.comparison_figure([points[0]], points, expected=(1.8, 2.4), base_nats=2.2)
    assert [len(trace.x) for trace in figure.data] == [3, 1]
    band = next(shape for shape in figure.layout.shapes if shape.type == "rect")
    assert (band.x0, band.x1) == (1.8, 2.4)
    assert "untrained base 2.2000" in figure.layout.annotations[0].text


def test_a_far_base_is_named_and_does_not_squeeze_the_runs() -> None:
    points = [comparison.Point("random", 2.0, 10, 0), comparison.Point("random", 2.01, 10, 1)]
    figure = comparison.comparison_figure(points[:1], points, base_nats=9.0)
    assert figure.layout.annotations[0].text.endswith("→")
    assert all(shape.x0 < 3 for shape in figure.layout.shapes)
    assert comparison.comparison_figure([], [], base_nats=1.0).layout.annotations == ()
