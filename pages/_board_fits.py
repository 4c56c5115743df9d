"""Slides of the studies: indicators against the loss one at a time, and the coefficients of the latest kept fit."""

from __future__ import annotations

from core import board_words as words
from core.charts import regression as regression_charts
from core.charts import univariate as charts
from core.charts.univariate import Panel
from core.errors import AssayError
from core.indicators import DEFAULT_NEIGHBOUR, FIRST_OUTPUTS, LOSSES, OUTPUTS
from core.report import Figure, Missing, Slide
from core.run_table import coverage, varies
from core.univariate import Group, groups
from db import fits, studies
from db.service import Service
from db.study_means import IndicatorColumn
from pages import _fit

MOST_PANELS = 8
ENOUGH_RUNS = 8


def _panels(service: Service) -> tuple[str, list[tuple[IndicatorColumn, Group]]]:
    """The newest study of many datasets with results, and each indicator's group with the most runs."""
    found = [one for one in studies.studies(service.store) if one["n_done"] > 2]
    found = [one for one in found if one["kind"] in ("univariate", "multivariate")] or found
    if not found:
        return "", []
    # The newest one that says something: a correlation over three runs hardly does.
    study = next((one for one in found if one["n_done"] >= ENOUGH_RUNS), found[0])
    _, columns, table = _fit.load(service.store, [study["study_id"]], (DEFAULT_NEIGHBOUR,))
    good = {one.key for one in coverage(table) if varies(one)}
    raw = {output.key for output in LOSSES.outputs}
    shown: list[tuple[IndicatorColumn, Group]] = []
    for column in columns:
        if column.key not in good or column.output in raw:
            continue
        made = groups(table, key=column.key, output=column.output, scorer_id=column.scorer_id)
        if made:
            shown.append((column, max(made, key=lambda group: len(group.points))))
    shown.sort(key=lambda one: (_fit.USUAL.index(one[0].output) if one[0].output in _fit.USUAL else len(_fit.USUAL),
                                one[0].output not in FIRST_OUTPUTS))  # fmt: skip
    return str(study["name"]), shown[:MOST_PANELS]


def univariate(service: Service) -> Slide:
    """Small multiples: evaluation loss against one indicator at a time, over the runs of the newest study."""
    try:
        name, shown = _panels(service)
    except AssayError as error:
        missing = Missing(text=str(error), page="univariate.py", label="Open Univariate")
        return Slide(key="univariate", title="Univariate", text=(), missing=missing)
    if not shown:
        missing = Missing(
            text="No study has three finished runs whose indicators differ yet.",
            page="studies.py", label="Look at the studies",
        )  # fmt: skip
        return Slide(key="univariate", title="Univariate", text=(), missing=missing)
    panels = [
        Panel(column.label, (group,), "" if group.pearson.value is None else f"r {group.pearson.value:.2f}")
        for column, group in shown
    ]
    rows = [
        {"indicator": column.label, "runs": group.kind, "run": point.label, "mean": point.x,
         "evaluation loss (nats)": point.y}
        for column, group in shown
        for point in group.points
    ]  # fmt: skip
    said = words.univariate_words(
        [(column.label, group.kind, len(group.points), group.pearson.value) for column, group in shown]
    )
    figure = charts.panels_figure(
        panels,
        y_title="evaluation loss (nats)",
        n_columns=4 if len(panels) > 3 else 3,
        height=210 if len(panels) > 3 else 340,
    )
    return Slide(
        key="univariate",
        title="One indicator at a time",
        text=(*said, f"Study: {name}."),
        figures=(
            Figure(title="Loss by the mean of each indicator", name="loss-by-indicator", figure=figure, rows=rows),
        ),
    )


def regression(service: Service) -> Slide:
    """The forest plot of the latest kept fit."""
    found = fits.fits(service.store)[0]
    result = found["result"]
    rows = regression_charts.forest_rows(result, standardised=True)
    labels = _labels(service, [row["name"] for row in rows])
    said = words.fit_words(str(found["name"]), n=result.n, r2=result.r2, loo_r2=result.loo_r2, rows=rows, labels=labels)
    figure = regression_charts.forest_figure(
        rows, labels, title="standard deviations of the loss per one of the indicator (95 % interval)"
    )
    named = [{"indicator": labels.get(row["name"], row["name"]), **row} for row in rows]
    return Slide(
        key="regression",
        title="Regression",
        text=(*said, f"Kept on {found['created_at']:%Y-%m-%d}."),
        figures=(Figure(title="Standardised coefficients", name="coefficients", figure=figure, rows=named),)
        if rows
        else (),
    )


def _labels(service: Service, names: list[str]) -> dict[str, str]:
    return {name: OUTPUTS[key].label for name in names if (key := name.partition("@")[0]) in OUTPUTS}
