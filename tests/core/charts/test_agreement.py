"""Figures of agreement: what is missing is never drawn as 0, and names stay text."""

from __future__ import annotations

import numpy as np

from core.agreement import Kappa
from core.charts.agreement import Line, confusion_figure, forest_figure, pairwise_figure
from core.reviewer_agreement import VERDICTS

HOSTILE = "<b>Eve</b> <a href='javascript:1'>x</a>"


def test_a_pair_of_reviewers_without_kappa_is_a_question_mark_and_one_without_pairs_is_empty() -> None:
    undefined = Kappa(None, 4, 1.0, 1.0, "Both gave the verdict 'accept' on all 4 items.")
    found = pairwise_figure(
        ["Ada", HOSTILE, "Cleo"], {("Ada", HOSTILE): undefined, ("Ada", "Cleo"): Kappa(-0.2, 9, 0.4, 0.5)}
    )
    heat = found.data[0]
    assert heat.z[0][1] is None
    assert heat.z[2][0] == heat.z[0][2] == -0.2
    assert heat.z[1][2] is None
    said = sorted(one.text for one in found.layout.annotations)
    assert len(said) == 4
    assert said[0].startswith("<b>−0.20</b>")
    assert said[-1].startswith("?")
    assert "cannot be computed" in heat.hovertext[0][1]
    assert all("<a" not in text for text in (*found.layout.xaxis.ticktext, heat.hovertext[0][1]))


def test_a_line_of_a_forest_without_a_value_says_why() -> None:
    found = forest_figure(
        [Line("one", 9, 0.5, 0.2, 0.7), Line("two", 3, None, None, None, "All 6 verdicts are the same.")], title="α"
    )
    dots, missing = found.data
    assert (list(dots.x), list(dots.y), list(missing.y)) == ([0.5], [0], [1])
    assert np.allclose([dots.error_x.array[0], dots.error_x.arrayminus[0]], [0.2, 0.3])
    assert "All 6 verdicts" in missing.hovertext[0]
    assert list(found.layout.yaxis.ticktext) == ["one · 9", "two · 3"]


def test_lines_of_the_confusion_are_shares_and_an_empty_one_has_none() -> None:
    table = np.zeros((5, 5))
    table[0, 0], table[0, 4] = 3, 1
    heat = confusion_figure(table, VERDICTS, row_title="Ada", column_title=HOSTILE).data[0]
    assert list(heat.z[0]) == [0.75, 0, 0, 0, 0.25]
    assert list(heat.z[1]) == [None] * 5
