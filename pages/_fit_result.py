"""A fit on the Regression page: its figures of merit, coefficients, pictures, and the ways to keep it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from core.charts import regression as charts
from core.errors import AssayError
from core.regression import FitResult
from core.rules import rule_of
from db import fits
from db.service import Service
from db.study_means import IndicatorColumn
from pages import _fit, _ui
from pages._fit import Chosen


def response_words(result: FitResult) -> str:
    """The response as it is fitted, for an axis."""
    return "log evaluation loss" if result.spec.log_response else "evaluation loss (nats)"


def merits(result: FitResult) -> dict[str, str]:
    """The headline figures by name, written for people."""
    f = "—" if result.f is None else f"{result.f:,.4g} (p {p_words(result.f_p)})"
    return {
        "Runs": f"{result.n:,}",
        "R²": _ui.number(result.r2),
        "Adjusted R²": _ui.number(result.r2_adjusted),
        "Leave-one-out R²": _ui.number(result.loo_r2),
        "AIC": _ui.number(result.aic, 1),
        "BIC": _ui.number(result.bic, 1),
        "F": f,
        "Condition number": _ui.number(result.condition_number, 1),
    }


def p_words(p: float | None) -> str:
    """A p-value for people."""
    if p is None:
        return "—"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def coefficient_rows(result: FitResult, labels: Mapping[str, str]) -> list[dict[str, Any]]:
    """The coefficients as lines of a table, the intercept first."""
    return [
        {
            "regressor": "(intercept)" if one.name == "const" else labels.get(one.name, one.name),
            "coefficient": one.value,
            "standardised": one.standardised,
            "standard error": one.standard_error,
            "t": one.t,
            "p": one.p,
            "low": one.low,
            "high": one.high,
            "VIF": one.vif,
        }
        for one in result.coefficients
    ]


def show_numbers(result: FitResult, labels: Mapping[str, str]) -> None:
    """Warnings, figures of merit and coefficients."""
    for said in result.warnings:
        st.warning(_ui.plain(said), icon=":material/warning:")
    with st.container(horizontal=True, gap="medium"):
        for name, value in merits(result).items():
            st.metric(name, value, width="content")
    per_cent = f"{100 * result.spec.confidence:g} %"
    shown = ("coefficient", "standardised", "standard error", "low", "high")
    config: dict[str, Any] = {name: st.column_config.NumberColumn(name, format="%.4g") for name in shown}
    config |= {
        "t": st.column_config.NumberColumn("t", format="%.2f"),
        "p": st.column_config.NumberColumn("p", format="%.3g"),
        "low": st.column_config.NumberColumn(f"{per_cent} from", format="%.4g"),
        "high": st.column_config.NumberColumn("to", format="%.4g"),
        "VIF": st.column_config.NumberColumn(
            "VIF", format="%.2f", help="Variance inflation factor: above 10 the others nearly make this regressor."
        ),
        "regressor": st.column_config.TextColumn("regressor", width="medium"),
        "standardised": st.column_config.NumberColumn(
            "standardised", format="%.3f", help="In standard deviations of the response for one of the regressor."
        ),
    }
    frame = pd.DataFrame(coefficient_rows(result, labels)).astype(
        dict.fromkeys(("coefficient", "standardised", "standard error", "t", "p", "low", "high", "VIF"), "Float64")
    )
    st.dataframe(frame, hide_index=True, height="content", placeholder="—", column_config=config)
    errors = result.spec.robust or "ordinary"
    st.caption(
        f"{_ui.plain(response_words(result)).capitalize()} of {result.n} runs by least squares, {errors} standard "
        "errors. Lower loss is better: a negative coefficient speaks for the indicator."
    )


# --- figures ---


def show_figures(chosen: Chosen, result: FitResult) -> None:
    """Coefficients, predicted against observed, residuals; a click on a run opens it."""
    left, right = st.columns(2, gap="large")
    with left:
        _forest(chosen, result)
    with right:
        loo = st.toggle("Each run by the fit of the others", key="regression-loo", bind="query-params")
        _of_runs(chosen, result, "predicted", loo=loo)
    _fit.run_panel(chosen, may_leave_out=True)
    if _fit.opened(chosen) is None:
        st.caption("Click a point to see the run behind it.")
    parts = st.columns(3, gap="medium")
    for part, name, words in zip(
        parts,
        ("residual", "qq", "cook"),
        ("Residuals against predicted", "Q-Q of studentised residuals", "Influence: Cook's distance"),
        strict=True,
    ):
        with part:
            st.markdown(f"**{words}**")
            _of_runs(chosen, result, name)


def _forest(chosen: Chosen, result: FitResult) -> None:
    standardised = st.toggle("Standardised coefficients", value=True, key="regression-standardised")
    rows = charts.forest_rows(result, standardised=standardised)
    unit = "standard deviations of the response per one of the indicator" if standardised else response_words(result)
    if not rows:
        st.caption("There is no regressor to draw.")
        return
    _ui.chart(
        charts.forest_figure(
            rows, chosen.labels, title=unit if standardised else f"change of {unit} per unit of the indicator"
        ),
        key=f"fit-forest-{chosen.identity(result.spec)}",
        data=rows,
        name="coefficients",
    )


def _of_runs(chosen: Chosen, result: FitResult, which: str, *, loo: bool = False) -> None:
    title, marked = response_words(result), _fit.opened(chosen)
    if which == "predicted":
        figure = charts.predicted_figure(result, title=title, loo=loo, marked=marked)
    elif which == "residual":
        figure = charts.residual_figure(result, title=title, marked=marked)
    elif which == "qq":
        figure = charts.qq_figure(result, marked=marked)
    else:
        figure = charts.cook_figure(result, marked=marked)
    key = f"fit-{which}-{chosen.identity(result.spec, loo)}"
    parts = [[row.key for row in result.rows]]
    _ui.chart(
        figure,
        key=key,
        data=[{"run": row.label, **{k: v for k, v in vars(row).items() if k != "label"}} for row in result.rows],
        name=f"fit-{which}",
        on_select=lambda: _fit.open_run(parts, key),
        selection_mode="points",
    )


# --- keeping it ---


def exports(result: FitResult, *, name: str, key: str) -> None:
    """Downloads of a fit: JSON, the coefficients as CSV and LaTeX, the runs as CSV."""
    for label, ending, mime, content in (
        ("JSON (all of it)", ".json", "application/json", result.to_json),
        ("Coefficients, CSV", ".csv", "text/csv", result.csv),
        ("Coefficients, LaTeX", ".tex", "application/x-tex", result.latex),
        ("Runs, CSV", "-runs.csv", "text/csv", result.rows_csv),
    ):
        st.download_button(
            label, data=content(), file_name=f"{name}{ending}", mime=mime, key=f"{key}-{ending}", type="tertiary",
            icon=":material/download:", on_click="ignore",
        )  # fmt: skip


def keep(chosen: Chosen, result: FitResult) -> None:
    """Save the fit, make a rule of it, export it."""
    key = chosen.identity(result.spec)
    with st.container(horizontal=True):
        with st.popover("Save this fit", icon=":material/bookmark_add:"):
            _save(chosen, result, key=key)
        with st.popover("Make a rule of it", icon=":material/rule:"):
            _make_rule(chosen, result, key=key)
        with st.popover("Export", icon=":material/download:"):
            exports(result, name="fit", key=f"export-{key}")


def _save(chosen: Chosen, result: FitResult, *, key: str) -> None:
    with st.form(f"save-fit-{key}", border=False):
        name = st.text_input("Name of the fit", max_chars=120)
        pressed = st.form_submit_button(
            "Save", type="primary", icon=":material/bookmark_add:", **_ui.allowed("administer")
        )
    if not pressed:
        return
    try:
        fits.save_fit(
            chosen.service.store, result, name=name, study_ids=chosen.study_ids, created_by=_ui.reviewer() or None
        )
    except AssayError as error:
        st.error(_ui.plain(str(error)))
        return
    st.success(f"Saved {_ui.plain(name.strip())}. It is listed under Saved fits.")


def _make_rule(chosen: Chosen, result: FitResult, *, key: str) -> None:
    saved = next((row["fit_id"] for row in fits.fits(chosen.service.store) if row["result"] == result), None)
    make_rule(chosen.service, result, chosen.columns, key=key, fit_id=saved)


def make_rule(
    service: Service, result: FitResult, columns: Sequence[IndicatorColumn], *, key: str, fit_id: int | None
) -> None:
    """A form that makes a rule of a fit."""
    st.caption(
        "The rule keeps the coefficients with their covariance, and by which scorers (model, version, settings) the "
        "indicators were scored: it refuses scores of others."
    )
    with st.form(f"make-rule-{key}", border=False):
        name = st.text_input("Name of the rule", max_chars=120)
        note = st.text_input("Note", max_chars=500)
        pressed = st.form_submit_button(
            "Make the rule", type="primary", icon=":material/rule:", **_ui.allowed("administer")
        )
    if not pressed:
        return
    try:
        rule = rule_of(result, name=name.strip(), columns={column.key: column for column in columns})
        fits.save_rule(service.store, rule, name=name, fit_id=fit_id, note=note, created_by=_ui.reviewer() or None)
    except AssayError as error:
        st.error(_ui.plain(str(error)))
        return
    st.success(f"Made the rule {_ui.plain(name.strip())}. The Select page applies it to a dataset.")
    st.page_link("select.py", label="Select by it", icon=":material/filter_alt:")
