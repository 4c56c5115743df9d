"""The figure of a size search: what has no loss has no height."""

from __future__ import annotations

from typing import Any

from core.charts.search import best_trial, search_figure


def trial(
    number: int, n_rows: int, loss: float | None, outcome: str = "done", reason: str | None = None
) -> dict[str, Any]:
    return {
        "number": number, "n_rows": n_rows, "loss_nats": loss, "outcome": outcome, "reason": reason, "seconds": 2.0,
        "same_as": None,
    }  # fmt: skip


TRIALS = [trial(1, 10, 3.0), trial(2, 40, 2.5), trial(3, 90, 2.5), trial(4, 20, 9.0, "diverged", "<b>bad</b> $x$")]


def test_the_best_trial_is_done_and_of_equal_ones_the_smaller():
    assert best_trial(TRIALS) is TRIALS[1]
    assert best_trial([TRIALS[3]]) is None


def test_a_trial_without_a_loss_is_a_cross_outside_the_scale_of_losses():
    figure = search_figure(TRIALS, lowest=10, highest=100)
    points, best, bad = figure.data
    assert list(points.y) == [3.0, 2.5]
    assert (list(best.x), list(best.y)) == ([40], [2.5])
    assert bad.yaxis == "y2"
    assert list(bad.x) == [20]
    assert "&lt;b&gt;bad" in bad.hovertext[0]
    assert "$" not in bad.hovertext[0]
    assert figure.layout.xaxis.type == "log"


def test_a_figure_of_nothing_but_failures_has_no_star():
    assert [one.name for one in search_figure([TRIALS[3]], lowest=10, highest=100).data] == [
        "trial, by its number",
        "no loss (failed or diverged)",
    ]
