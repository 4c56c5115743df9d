"""Regression: evaluation loss of a study's runs on the indicators of their datasets, fits kept, rules made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import streamlit as st

from core.errors import AssayError
from core.indicators import FIRST_OUTPUTS
from core.regression import ROBUST, FitResult, FitSpec, fit
from core.run_table import RESPONSE, coverage
from db.service import Service
from pages import _choose, _fit, _fit_result, _fits, _pick, _regressors, _rows, _rules, _ui
from pages._fit import Chosen, Study

PAGE = "regression"
REGRESSORS = "regressors"
FEWEST_RUNS, ENOUGH_RUNS = 4, 10
_LIKELY = ("multivariate", "size", "univariate")


def _usual(found: Sequence[Study]) -> list[int]:
    """The newest study with enough results to fit, mixtures before other kinds."""
    kinds = {kind: place for place, kind in enumerate(_LIKELY)}

    def order(one: Study) -> tuple[bool, int, int]:
        return one["n_done"] < ENOUGH_RUNS, kinds.get(one["kind"], len(kinds)), -one["study_id"]

    return [min(found, key=order)["study_id"]]


def _regressor_key(chosen: Chosen) -> str:
    # Runs that are left out by hand, or come in meanwhile, change no choice; other indicators do.
    return f"{PAGE}-regressors-{_rows.identity(chosen.study_ids, tuple(chosen.labels))}"


def _one_of_a_kind(chosen: Chosen, usual: Sequence[str]) -> list[str]:
    """Of the usual regressors the first number of each indicator, if any: words and characters say what tokens do."""
    outputs = {column.key: column.output for column in chosen.columns}
    return [key for key in usual if outputs[key] in FIRST_OUTPUTS] or list(usual)


def _choose_regressors(chosen: Chosen, usual: Sequence[str]) -> list[str]:
    """The regressors of the link, else the usual ones: as many as there are ten runs for each, three at least."""
    labels = chosen.labels
    counts = {one.key: one.n_runs for one in coverage(chosen.table)}
    asked = [key for key in st.query_params.get(REGRESSORS, "").split(".") if key in labels]
    few = max(1, min(3, len(chosen.table.runs) - 3), len(chosen.table.runs) // 10)
    widget = _regressor_key(chosen)
    if widget not in st.session_state:
        st.session_state[widget] = asked or _one_of_a_kind(chosen, usual)[:few]
    found = st.multiselect(
        "Regressors",
        list(labels),
        format_func=lambda key: f"{labels[key]} ({counts[key]} runs)",
        key=widget,
        placeholder="Choose indicators",
    )
    st.query_params[REGRESSORS] = ".".join(found)
    return list(found)


def _coverage(chosen: Chosen) -> None:
    """Which indicators there are, in how many runs, and how far their means spread."""
    labels = chosen.labels
    st.dataframe(
        [
            {
                "indicator": labels[one.key],
                "key": one.key,
                "runs": one.n_runs,
                "runs with gaps": one.n_gaps or None,
                "rows without a value": one.n_rows_missing or None,
                "mean": one.mean,
                "standard deviation": one.deviation,
                "lowest": one.low,
                "highest": one.high,
            }
            for one in coverage(chosen.table)
        ],
        hide_index=True,
        height="content" if len(labels) < 9 else 320,
        placeholder="—",
        column_config={
            name: st.column_config.NumberColumn(format="%.4g")
            for name in ("mean", "standard deviation", "lowest", "highest")
        },
    )
    st.caption(
        "Over the runs: the mean of each run's dataset. Where rows have no value the mean is that of the others; such "
        "runs are counted as runs with gaps."
    )


def _fitted(chosen: Chosen, spec: FitSpec) -> FitResult | None:
    table = chosen.table
    try:
        with st.spinner("Fitting …"):
            found = fit(table.columns, spec, labels=table.labels, keys=table.keys)
    except AssayError as error:
        st.error(_ui.plain(str(error)), icon=":material/error:")
        return None
    return replace(found, left_out=(*table.left_out, *found.left_out))


def _show_fit(service: Service) -> None:
    left, right = st.columns([1.5, 1], gap="medium", vertical_alignment="bottom")
    with left:
        chosen = _fit.choose(service, page=PAGE, usual=_usual)
    if chosen is None:
        return
    _fit.doubts(chosen)
    chosen = _fit.left_out_by_hand(chosen)
    n_out = len(chosen.whole.runs) - len(chosen.table.runs)
    if n_out:
        st.button(
            f"{n_out} left out by hand: take all in again", key="regression-all-in", icon=":material/undo:",
            type="tertiary", on_click=_fit.take_all_in,
        )  # fmt: skip
    if _fit.nothing_to_fit(chosen, least=FEWEST_RUNS):
        return
    with right, st.container(horizontal=True, gap="small"):
        response = _pick.switch("Response", {"log": "log loss", "raw": "loss"}, parameter="response")
        robust = _pick.switch(
            "Standard errors", {"ordinary": "ordinary", **{one: one for one in ROBUST}}, parameter="errors"
        )
    usual = _fit.proposed(chosen)
    regressors = _choose_regressors(chosen, usual)
    _said_of_runs(chosen)
    if not regressors:
        st.info("Choose at least one regressor, or select some below.", icon=":material/checklist:")
    spec = FitSpec(
        response=RESPONSE,
        regressors=tuple(regressors),
        log_response=response == "log",
        robust=None if robust == "ordinary" else robust,
    )
    result = _fitted(chosen, spec) if regressors else None
    if result is not None:
        _fit_result.show_numbers(result, chosen.labels)
        _fit_result.keep(chosen, result)
        _fit_result.show_figures(chosen, result)

    def use(picked: Sequence[str]) -> None:
        st.session_state[_regressor_key(chosen)] = list(picked)

    _regressors.show(chosen, spec, candidates=usual[:10], use=use)


def _said_of_runs(chosen: Chosen) -> None:
    """How many runs go in; the others with their reason, and what is known of the indicators, on demand."""
    n, n_out = len(chosen.table.runs), len(chosen.table.left_out)
    words = f"{n} runs go in" + (f", {n_out} {'is' if n_out == 1 else 'are'} left out" if n_out else "")
    sets = ", ".join(dict.fromkeys(str(one["evaluation"]) for one in chosen.studies))
    with st.expander(_ui.plain(f"{words} · {len(chosen.columns)} indicators · evaluated on {sets}")):
        if n_out:
            _fit.left_out(chosen.table)
        _coverage(chosen)
        asked = [i for i in _choose.numbers("knn") if 1 <= i <= _fit.MOST_NEIGHBOURS]
        if any(column.embedding_id is not None for column in chosen.columns):
            more = st.multiselect(
                "Further neighbours of kNN", range(1, _fit.MOST_NEIGHBOURS + 1), default=asked, key="regression-knn",
                help="The mean distance to the i-th nearest neighbour within each run's dataset is computed once.",
            )  # fmt: skip
            if list(more) != asked:
                st.query_params["knn"] = ".".join(map(str, more))
                st.rerun()


def main() -> None:
    """Render the page."""
    service = _ui.current_service()
    _ui.header(
        "Regression", "Which indicators of the training data predict the evaluation loss, and the rule that follows."
    )
    room = _pick.switch("Room", {"fit": "Fit", "saved": "Saved fits", "rules": "Rules"}, parameter="room")
    if room == "saved":
        _fits.show(service)
    elif room == "rules":
        _rules.show(service)
    else:
        _show_fit(service)


main()
