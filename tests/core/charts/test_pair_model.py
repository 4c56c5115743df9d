"""Figures of the model of decisions: what stands in them, also of nothing."""

from __future__ import annotations

import numpy as np

from core import decision_evidence as evidence
from core.charts import pair_model as charts
from core.decision_evidence import Held

HELD = Held(np.array([0.9, 0.8, 0.3, 0.1]), np.array([True, False, True, False]))


def test_coefficients_have_a_sign_a_colour_and_a_name_that_cannot_be_markup() -> None:
    rows = [
        {"name": "embeddings (3 components together)", "coefficient": 2.0, "signed": False},
        {"name": "method is “<b>x</b>”", "coefficient": -0.5, "signed": True},
        {"name": "Reward", "coefficient": 0.0025, "signed": True},
    ]
    (bars,) = charts.coefficients_figure(rows).data
    assert list(bars.text) == ["2.00", "−0.50", "+0.0025"]
    assert len(set(bars.marker.color)) == 3
    assert "<b>" not in charts.coefficients_figure(rows).to_json().replace("\\u003c", "<")
    charts.coefficients_figure([])


def test_reliability_has_the_interval_of_each_tenth() -> None:
    line, points = charts.reliability_figure(evidence.reliability(HELD)).data
    assert (list(line.x), list(line.y)) == ([0, 1], [0, 1])
    assert list(points.y) == [0.0, 1.0, 0.0, 1.0]
    assert all(up >= 0 and down >= 0 for up, down in zip(points.error_y.array, points.error_y.arrayminus, strict=True))
    charts.reliability_figure([])


def test_the_error_falls_to_the_part_that_was_rejected_and_marks_the_threshold() -> None:
    rows = evidence.curves(HELD)
    figure = charts.error_figure(rows, n=4, target_error=0.1, threshold=0.8)
    curve, chosen = figure.data
    assert (curve.x[-1], curve.y[-1]) == (1.0, 0.5)
    assert (chosen.x[0], chosen.y[0]) == (0.5, 0.5)
    assert len(charts.error_figure(rows, n=4, target_error=0.1, threshold=None).data) == 1
