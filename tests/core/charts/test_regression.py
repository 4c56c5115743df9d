"""Figures of fits and of single indicators: drawn is what was fitted, a click finds its run, names stay text."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from core.charts import regression as charts
from core.charts import univariate
from core.regression import FitResult, FitSpec, fit
from core.run_table import RunTable
from core.univariate import Point, groups

EVIL = '<img src=x onerror=alert(1)> $x$ <a href="javascript:1">link</a>'


def drawn(figure: Any) -> str:
    return json.dumps(figure.to_plotly_json(), default=lambda value: getattr(value, "tolist", lambda: str(value))())


@pytest.fixture(scope="module")
def result() -> FitResult:
    rng = np.random.default_rng(1)
    strong, weak = rng.normal(size=20), rng.normal(5, 3, size=20)
    table = {
        "loss_nats": list(np.exp(1 - 0.5 * strong + rng.normal(0, 0.1, 20))),
        "weak": list(weak),
        "s": list(strong),
    }
    labels = [EVIL, *(f"run {i}" for i in range(1, 20))]
    return fit(table, FitSpec(response="loss_nats", regressors=("weak", "s")), labels=labels, keys=range(100, 120))


def test_coefficients_are_those_of_the_fit_the_strongest_on_top(result: FitResult) -> None:
    rows = charts.forest_rows(result, standardised=False)
    assert [row["name"] for row in rows] == ["s", "weak"]
    for row in rows:
        one = result.coefficient(row["name"])
        assert (row["value"], row["low"], row["high"]) == (one.value, one.low, one.high)
    figure = charts.forest_figure(rows, {"s": EVIL, "weak": "Weak"}, title="change")
    assert list(figure.data[-1].x) == [row["value"] for row in rows]
    # An interval that holds 0 has an open sign, so that colour is not what tells it.
    holds = [row["low"] <= 0 <= row["high"] for row in rows]
    assert list(figure.data[-1].marker.symbol) == ["circle-open" if one else "circle" for one in holds]
    assert "<img" not in drawn(figure)


def test_standardised_intervals_keep_their_place_to_zero(result: FitResult) -> None:
    raw, scaled = (charts.forest_rows(result, standardised=one) for one in (False, True))
    for one, other in zip(raw, scaled, strict=True):
        assert other["value"] == pytest.approx(result.coefficient(one["name"]).standardised)
        assert (other["high"] - other["low"]) / other["value"] == pytest.approx(
            (one["high"] - one["low"]) / one["value"]
        )


@pytest.mark.parametrize("which", ["predicted", "loo", "residual", "qq", "cook"])
def test_the_first_trace_holds_the_runs_in_their_order(result: FitResult, which: str) -> None:
    make = {
        "predicted": lambda **more: charts.predicted_figure(result, title="log loss", **more),
        "loo": lambda **more: charts.predicted_figure(result, title="log loss", loo=True, **more),
        "residual": lambda **more: charts.residual_figure(result, title="log loss", **more),
        "qq": lambda **more: charts.qq_figure(result, **more),
        "cook": lambda **more: charts.cook_figure(result, **more),
    }[which]
    up = {"predicted": "observed", "loo": "observed", "residual": "residual", "qq": "studentised", "cook": "cooks"}
    figure = make()
    assert list(figure.data[0].y) == [getattr(row, up[which]) for row in result.rows]
    if which == "loo":
        assert list(figure.data[0].x) == [row.loo_predicted for row in result.rows]
    assert len(figure.data) == 1
    ringed = make(marked=107)
    assert (ringed.data[1].x[0], ringed.data[1].y[0]) == (figure.data[0].x[7], figure.data[0].y[7])
    assert "<img" not in drawn(figure)


def test_normal_places_are_symmetric_and_in_order() -> None:
    places = charts.normal_places([3.0, None, 1.0, 2.0])
    assert places[1] is None
    assert places[3] == pytest.approx(0.0)
    assert places[0] == pytest.approx(0.967, abs=1e-3)  # Φ⁻¹(5/6)
    assert places[2] == pytest.approx(-0.967, abs=1e-3)


def test_shares_are_per_cent_the_most_often_kept_first() -> None:
    figure = charts.shares_figure({"a": 0.2, "b": 0.95, "c": 0.5}, {"b": EVIL})
    assert list(figure.data[0].x) == pytest.approx([95, 50, 20])
    assert list(figure.layout.yaxis.ticktext)[1:] == ["c", "a"]
    assert "<img" not in drawn(figure)


# --- one indicator ---


def a_table() -> RunTable:
    """Nine runs: four bins by ``a``, one bin by ``b``, three mixtures and a random subset."""
    roles = ["bin"] * 5 + ["mixture"] * 3 + ["random"]
    cuts: list[dict[str, Any]] = (
        [{"indicator": "a", "scorer_id": 4}] * 4 + [{"indicator": "b", "scorer_id": 5}] + [{}] * 4
    )
    runs = [
        {"run_id": 10 + i, "role": role, "details": cut} for i, (role, cut) in enumerate(zip(roles, cuts, strict=True))
    ]
    a = (1.0, 2.0, 3.0, 4.0, 9.0, 1.5, 2.5, None, 2.0)
    loss = (4.0, 3.0, 2.5, 2.0, 1.0, 3.5, 3.0, 2.0, 3.1)
    return RunTable(
        tuple(runs), tuple(f"run {i} {EVIL if i == 0 else ''}" for i in range(9)), (), {"loss_nats": loss, "a": a},
        {"a": (0,) * 9}, (10,) * 9,
    )  # fmt: skip


def test_runs_are_parted_by_kind_and_bins_of_other_indicators_are_left_out() -> None:
    found = groups(a_table(), key="a", output="a", scorer_id=4)
    assert {group.kind: [point.key for point in group.points] for group in found} == {
        "bins": [10, 11, 12, 13],
        "mixtures": [15, 16],
        "subsets": [18],
    }
    assert found[0].line is not None
    assert found[0].line.slope == pytest.approx(-0.65)
    assert found[0].spearman.value == pytest.approx(-1.0)
    assert (found[1].line, found[1].pearson.value, found[1].pearson.reason) == (None, None, "Fewer than 3 runs.")
    every = groups(a_table(), key="a", output="a", scorer_id=4, all_bins=True)
    assert [point.key for point in every[0].points] == [10, 11, 12, 13, 14]
    # A bin was cut by another scorer of the same indicator: that is another indicator here.
    assert [group.kind for group in groups(a_table(), key="a", output="a", scorer_id=99)] == ["mixtures", "subsets"]


def test_log_losses_are_drawn_as_asked() -> None:
    (raw, *_), (log, *_) = (
        groups(a_table(), key="a", output="a", scorer_id=4, log_response=one) for one in (False, True)
    )
    assert [point.y for point in log.points] == pytest.approx([np.log(point.y) for point in raw.points])


def test_small_multiples_share_the_scale_and_lead_with_their_points() -> None:
    found = tuple(groups(a_table(), key="a", output="a", scorer_id=4))
    panels = [univariate.Panel(f"{EVIL} {i}", found, note=EVIL) for i in range(5)]
    figure = univariate.panels_figure(panels, y_title="loss", n_columns=4, marked=15)
    parts = univariate.traced(panels)
    assert len(parts) == 15
    for trace, points in zip(figure.data, parts, strict=False):
        assert [(x, y) for x, y in zip(trace.x, trace.y, strict=True)] == [(p.x, p.y) for p in points]
        assert all(isinstance(point, Point) for point in points)
    # One legend entry a kind, one colour and one sign each.
    named = [trace for trace in figure.data if trace.showlegend is not False]
    assert [trace.name for trace in named] == ["bins", "mixtures", "subsets"]
    assert len({trace.marker.symbol for trace in named}) == len({trace.marker.color for trace in named}) == 3
    rings = [trace for trace in figure.data if trace.marker.symbol == "circle-open"]
    assert [(trace.x[0], trace.y[0]) for trace in rings] == [(1.5, 3.5)] * 5
    followed = {axis.matches for axis in figure.select_yaxes()} - {None}
    assert len(followed) == 1
    # The three places that no panel fills show nothing.
    assert [axis.visible for axis in figure.select_xaxes()].count(False) == 3
    assert "<img" not in drawn(figure)
    assert "<a href" not in drawn(figure)
