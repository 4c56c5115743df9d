"""Figures of judged comparisons: every count is legible, an unparsed item is never a segment, names are inert."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go
import pytest

from core.charts import judging as charts
from core.charts.board import narrow_bars_figure, told_apart
from core.charts.judging import Bar


def bar(win: int, tie: int, lose: int, **more: Any) -> Bar:
    n = win + tie + lose
    score = (win - lose) / n + 1 if n else None
    given = {"first": "Cherry", "second": "Alpaca", "about": "vicuna · gpt-4", "win_score": score}
    return Bar(win=win, tie=tie, lose=lose, **{**given, **more})


def words(figure: go.Figure) -> str:
    """Everything that a figure writes."""
    parts = [note.text for note in figure.layout.annotations]
    for axis in (figure.layout.yaxis, figure.layout.yaxis2, figure.layout.xaxis):
        parts += [*(axis.ticktext or ()), axis.title.text]
    for trace in figure.data:
        parts += [trace.name, *(getattr(trace, "text", None) or ()), *(getattr(trace, "hovertext", None) or ())]
    return "\n".join(str(part) for part in parts if part)


def test_a_bar_is_a_hundred_percent_of_the_items_with_a_verdict() -> None:
    figure = charts.win_tie_lose_figure([bar(44, 15, 21, unparsed=7)])
    win, tie, lose = figure.data[:3]
    assert [trace.x[0] for trace in (win, tie, lose)] == [44 / 80, 15 / 80, 21 / 80]
    assert len([trace for trace in figure.data if trace.type == "bar"]) == 3
    assert "80 questions, 7 unparsed" in words(figure)
    assert [trace.text[0] for trace in (win, tie, lose)] == ["<b>44</b> wins", "<b>15</b> ties", "<b>21</b> losses"]


def test_a_count_too_small_for_its_segment_stands_above_it() -> None:
    figure = charts.win_tie_lose_figure([bar(2, 97, 1)])
    assert [trace.text[0] for trace in figure.data[:3]] == ["", "<b>97</b> ties", ""]
    small = {note.text: note.x for note in figure.layout.annotations if note.text in ("2", "1")}
    assert small == {"2": pytest.approx(0.01), "1": pytest.approx(0.995)}


def test_bars_are_sorted_by_win_score_and_those_without_a_verdict_come_last() -> None:
    bars = [bar(0, 0, 0, about="none"), bar(1, 0, 3, about="low"), bar(3, 0, 1, about="high")]
    assert [one.about for one in charts.ordered(bars)] == ["high", "low", "none"]
    figure = charts.win_tie_lose_figure(bars)
    assert [text.split("<")[1] for text in figure.layout.yaxis.ticktext] == ["b>high", "b>low", "b>none"]
    assert "no verdict" in figure.layout.yaxis2.ticktext[2]
    assert figure.data[0].x == (0.75, 0.25, 0.0)


def test_names_stand_once_where_all_bars_have_the_same_models_and_on_both_sides_otherwise() -> None:
    same = words(charts.win_tie_lose_figure([bar(1, 0, 0), bar(0, 1, 0)]))
    assert "Cherry wins" in same
    assert "Alpaca wins" in same
    other = charts.win_tie_lose_figure([bar(1, 0, 0), bar(0, 1, 0, second="Dolly")])
    assert "Cherry" in other.layout.yaxis.ticktext[0]
    assert "Dolly" in other.layout.yaxis2.ticktext[1]
    assert "left wins" in words(other)


def test_the_win_score_stands_with_its_interval() -> None:
    assert charts.score_words(bar(44, 15, 21, low=1.0625, high=1.5)) == "1.29 [1.06, 1.50]"
    assert charts.score_words(bar(1, 0, 0)) == "2.00"
    assert charts.score_words(bar(16, 58, 6)) == "1.13"  # 1.125, as the table beside the figure rounds it
    assert charts.score_words(bar(0, 0, 0)) == "no verdict"


def test_a_slide_is_sixteen_to_nine_on_white_with_its_title() -> None:
    figure = charts.win_tie_lose_figure([bar(44, 15, 21)], title="Does it <help>?", slide=True)
    assert figure.layout.width / figure.layout.height == pytest.approx(16 / 9, rel=0.01)
    assert figure.layout.paper_bgcolor == "#ffffff"
    assert figure.layout.title.text == "<b>Does it &lt;help&gt;?</b>"


def test_names_of_models_are_text_in_every_figure() -> None:
    hostile = "<img src=x onerror=alert(1)> $x^2$"
    one = bar(5, 3, 2, first=hostile, second=hostile, about=hostile, low=1.1, high=1.5)
    figures = [
        charts.win_tie_lose_figure([one]),
        charts.win_tie_lose_figure([one, bar(1, 1, 1)], title=hostile, slide=True),
        charts.win_score_figure([one]),
    ]
    for figure in figures:
        assert "<img" not in figure.to_json().replace("\\u003c", "<")
        assert "$x" not in figure.to_json()


def test_models_whose_names_begin_alike_differ_in_figures_of_any_width() -> None:
    one = bar(5, 3, 2, first=f"{'a' * 40}-1", second=f"{'a' * 40}-2", about="t")
    cut = told_apart([one, bar(1, 1, 1)])
    assert (cut[0].first[-2:], cut[0].second[-2:], len(cut[0].first)) == ("-1", "-2", 24)
    assert cut[1] == bar(1, 1, 1)
    said = "\n".join(note.text for note in narrow_bars_figure(told_apart([one], length=20)).layout.annotations)
    assert "-1</b>" in said
    assert "-2</b>" in said
    assert "10 questions: 5 / 3 / 2" in said


def test_a_win_score_is_called_better_only_where_its_interval_leaves_the_draw() -> None:
    bars = [
        bar(9, 0, 1, low=1.4, high=2.0, about="a"),
        bar(5, 0, 5, low=0.5, high=1.5, about="b"),
        bar(1, 0, 9, low=0.0, high=0.6, about="c"),
        bar(1, 0, 0, about="without an interval"),
        bar(0, 0, 0, about="none"),
    ]
    figure = charts.win_score_figure(bars)
    found = {trace.name: len(trace.x) for trace in figure.data}
    assert found == {"first better": 1, "cannot be told from a draw": 2, "second better": 1}
    low, high = figure.layout.xaxis.range
    assert low < 0 < 2 < high


def test_the_ends_of_an_interval_are_where_they_are_said_to_be() -> None:
    figure = charts.win_score_figure([bar(6, 2, 2, low=1.0, high=1.75)])
    part = figure.data[1]
    assert part.x[0] + part.error_x.array[0] == pytest.approx(1.75)
    assert part.x[0] - part.error_x.arrayminus[0] == pytest.approx(1.0)
