"""Which regressors to keep: stepwise with its path, all subsets, and how stable the choice is over resampled runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import streamlit as st

from core.charts import regression as charts
from core.errors import AssayError
from core.regression import (
    CRITERIA,
    DIRECTIONS,
    MOST_REGRESSORS,
    SUBSET_CRITERIA,
    Candidate,
    FitSpec,
    Kept,
    Path,
    Select,
    best_subset,
    bootstrap_selection,
    by_best_subset,
    by_stepwise,
    stepwise,
)
from pages import _pick, _ui
from pages._fit import Chosen

DRAWS = (100, 200, 500, 1000)
SUBSETS_SHOWN = 30
DIRECTION_WORDS = {"forward": "Forward", "backward": "Backward", "both": "Both ways"}
CRITERION_WORDS = {"p": "by p-value (as the paper)", "aic": "by AIC", "bic": "by BIC"}
SUBSET_WORDS = {"aic": "AIC", "bic": "BIC", "r2_adjusted": "Adjusted R²", "loo_r2": "Leave-one-out R²"}
Use = Callable[[Sequence[str]], None]


def show(chosen: Chosen, spec: FitSpec, *, candidates: Sequence[str], use: Use) -> None:
    """The ways to select among ``candidates``; ``use`` is a callback that takes a result over as the regressors."""
    st.subheader("Choose regressors", anchor=False)
    with st.container(horizontal=True, vertical_alignment="center"):
        way = _pick.switch(
            "Way", {"stepwise": "Stepwise", "subsets": "Best subset", "bootstrap": "Bootstrap"}, parameter="way"
        )
        asked = _candidates(chosen, candidates)
    if not asked:
        st.info("Choose at least one candidate.", icon=":material/checklist:")
        return
    spec = replace(spec, regressors=tuple(asked))
    try:
        if way == "stepwise":
            _stepwise(chosen, spec, use)
        elif way == "subsets":
            _subsets(chosen, spec, use)
        else:
            _bootstrap(chosen, spec)
    except AssayError as error:
        st.error(_ui.plain(str(error)))


def _candidates(chosen: Chosen, usual: Sequence[str]) -> list[str]:
    keys = [column.key for column in chosen.columns]
    with st.popover("Candidates", icon=":material/checklist:"):
        found = st.multiselect(
            "Indicators to choose from",
            keys,
            default=list(usual),
            format_func=chosen.labels.__getitem__,
            key=f"regression-candidates-{chosen.identity()}",
        )
    return list(found)


def _use_button(regressors: Sequence[str], use: Use, *, key: str) -> None:
    st.button(
        "Use these regressors", key=key, icon=":material/check:", disabled=not regressors, on_click=use,
        args=(list(regressors),),
    )  # fmt: skip


# --- stepwise ---


def _rules_of_stepping() -> dict[str, Any]:
    """Direction, criterion and thresholds, as the arguments of ``stepwise``."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        direction = _pick.switch("Direction", {one: DIRECTION_WORDS[one] for one in reversed(DIRECTIONS)},
                                 parameter="direction")  # fmt: skip
        criterion = _pick.switch("Criterion", {one: CRITERION_WORDS[one] for one in CRITERIA}, parameter="criterion")
        enter, leave = 0.05, 0.10
        if criterion == "p":
            enter = st.number_input(
                "Enters with p below", 0.001, 0.5, 0.05, 0.01, format="%.3f", key="regression-enter", width=150
            )
            leave = st.number_input(
                "Leaves with p above", 0.001, 0.9, 0.10, 0.01, format="%.3f", key="regression-leave", width=150
            )
    return {"direction": direction, "criterion": criterion, "enter": float(enter), "leave": float(leave)}


def _stepwise(chosen: Chosen, spec: FitSpec, use: Use) -> None:
    steps = _rules_of_stepping()
    path = stepwise(chosen.table.columns, spec, labels=chosen.table.labels, **steps)
    labels = chosen.labels
    name = "BIC" if path.criterion == "bic" else "AIC"
    start = ", ".join(labels[one] for one in path.start) or "no regressor"
    st.markdown(f"{path.n} runs. Begins with {_ui.plain(start)}.")
    if path.left_out:
        st.caption(f"{len(path.left_out)} runs lack one of the candidates and are left out of every step.")
    if path.steps:
        st.dataframe(
            [
                {
                    "step": step.number,
                    "": "+ adds" if step.action == "add" else "− removes",
                    "regressor": labels[step.regressor],
                    "p": step.p,
                    f"{name} before": step.before,
                    f"{name} after": step.after,
                    "adjusted R²": step.r2_adjusted,
                    "model after it": ", ".join(labels[one] for one in step.model) or "(intercept alone)",
                }
                for step in path.steps
            ],
            hide_index=True,
            height="content",
            placeholder="—",
            column_config={
                "p": st.column_config.NumberColumn("p", format="%.3g"),
                f"{name} before": st.column_config.NumberColumn(format="%.2f"),
                f"{name} after": st.column_config.NumberColumn(format="%.2f"),
                "adjusted R²": st.column_config.NumberColumn(format="%.3f"),
            },
        )
    st.caption(_ui.plain(path.reason))
    kept = ", ".join(labels[one] for one in path.chosen) or "none"
    st.markdown(f"Kept: **{_ui.plain(kept)}**")
    _use_button(path.chosen, use, key=f"use-stepwise-{chosen.identity(path.chosen)}")
    _open_steps(path, labels, name)


def _open_steps(path: Path, labels: Mapping[str, str], criterion: str) -> None:
    """What each step chose from."""
    with st.expander("What each step chose from"):
        for number, action, candidates in (
            *((step.number, f"{step.action} {labels[step.regressor]}", step.candidates) for step in path.steps),
            (None, "nothing more", path.last),
        ):
            title = f"Step {number}: {action}" if number else "At the end"
            st.markdown(f"**{_ui.plain(title)}**")
            st.dataframe(
                [_candidate(one, labels, criterion) for one in candidates],
                hide_index=True,
                height="content",
                placeholder="—",
                column_config={
                    "p": st.column_config.NumberColumn("p", format="%.3g"),
                    f"{criterion} then": st.column_config.NumberColumn(format="%.2f"),
                },
            )


def _candidate(one: Candidate, labels: Mapping[str, str], criterion: str) -> dict[str, Any]:
    return {
        "step": f"{'+' if one.action == 'add' else '−'} {labels[one.regressor]}",
        "p": one.p,
        f"{criterion} then": one.criterion,
        "cannot be taken": one.problem,
    }


# --- best subset ---


def _subsets(chosen: Chosen, spec: FitSpec, use: Use) -> None:
    criterion = _pick.switch("Best by", {one: SUBSET_WORDS[one] for one in SUBSET_CRITERIA}, parameter="best")
    if len(spec.regressors) > MOST_REGRESSORS:
        st.info(
            f"{len(spec.regressors)} candidates; all subsets are fitted of {MOST_REGRESSORS} at most. Choose fewer.",
            icon=":material/checklist:",
        )
        return
    found = best_subset(chosen.table.columns, spec, criterion=criterion, labels=chosen.table.labels)
    shown = found[:SUBSETS_SHOWN]
    labels = chosen.labels
    key = f"subsets-{chosen.identity(spec, criterion)}"
    state = st.dataframe(
        [
            {
                "regressors": ", ".join(labels[one] for one in subset.regressors) or "(intercept alone)",
                "number": len(subset.regressors),
                "R²": subset.r2,
                "adjusted R²": subset.r2_adjusted,
                "leave-one-out R²": subset.loo_r2,
                "AIC": subset.aic,
                "BIC": subset.bic,
                "why not": subset.reason,
            }
            for subset in shown
        ],
        hide_index=True,
        height=320,
        placeholder="—",
        key=key,
        on_select="rerun",
        selection_mode="single-row",
        column_config={
            "regressors": st.column_config.TextColumn(width="large"),
            **{one: st.column_config.NumberColumn(format="%.3f") for one in ("R²", "adjusted R²", "leave-one-out R²")},
            **{one: st.column_config.NumberColumn(format="%.2f") for one in ("AIC", "BIC")},
        },
    )
    of = f"the best {SUBSETS_SHOWN} of {len(found):,} subsets" if len(found) > len(shown) else f"{len(found)} subsets"
    st.caption(f"{found[0].n} runs, {of}, best first. Mark a line to take another than the first.")
    marked = state["selection"]["rows"]
    picked = shown[marked[0] if marked and marked[0] < len(shown) else 0]
    words = ", ".join(labels[one] for one in picked.regressors) or "none"
    st.markdown(f"Chosen: **{_ui.plain(words)}**")
    _use_button(picked.regressors, use, key=f"use-subset-{chosen.identity(picked.regressors)}")


# --- bootstrap ---


def _bootstrap(chosen: Chosen, spec: FitSpec) -> None:
    st.caption(
        "Draws as many runs as there are, with replacement, and selects anew each time. A regressor that few draws "
        "keep was chosen by chance."
    )
    with st.container(horizontal=True, vertical_alignment="bottom"):
        ways: dict[str, Select] = {
            "stepwise": by_stepwise(),
            "aic": by_stepwise(criterion="aic"),
            "bic": by_stepwise(criterion="bic"),
            "subset": by_best_subset(criterion="aic"),
        }
        words = {
            "stepwise": "Stepwise both ways by p-value", "aic": "Stepwise by AIC", "bic": "Stepwise by BIC",
            "subset": "Best subset by AIC",
        }  # fmt: skip
        way = st.selectbox("Selection", list(ways), format_func=words.__getitem__, key="regression-boot-way", width=280)
        draws = st.selectbox("Draws", DRAWS, index=1, key="regression-draws", width=120)
        seed = st.number_input("Seed", 0, 2**31 - 1, 0, key="regression-boot-seed", width=120)
        pressed = st.button("Draw", type="primary", icon=":material/casino:", key="regression-boot")
    key = f"bootstrap-{chosen.identity(spec, way, draws, seed)}"
    if pressed:
        with st.spinner(f"Selecting {draws} times …", show_time=True):
            st.session_state[key] = bootstrap_selection(
                chosen.table.columns, spec, select=ways[way], n_draws=int(draws), seed=int(seed),
                labels=chosen.table.labels,
            )  # fmt: skip
    kept: Kept | None = st.session_state.get(key)
    if kept is not None:
        _stability(chosen, kept, key=key)


def _stability(chosen: Chosen, kept: Kept, *, key: str) -> None:
    labels = chosen.labels
    left, right = st.columns([1, 1.3], gap="large")
    with left:
        _ui.chart(
            charts.shares_figure({one.name: one.share for one in kept.regressors}, labels),
            key=f"{key}-chart",
            data=[vars(one) for one in kept.regressors],
            name="bootstrap-of-the-selection",
        )
    with right:
        st.dataframe(
            [
                {
                    "regressor": labels[one.name],
                    "kept": one.share,
                    "same sign": one.same_sign,
                    "median": one.median,
                    "from": one.low,
                    "to": one.high,
                }
                for one in sorted(kept.regressors, key=lambda one: -one.share)
            ],
            hide_index=True,
            height="content",
            placeholder="—",
            column_config={
                "kept": st.column_config.NumberColumn("kept", format="percent"),
                "same sign": st.column_config.NumberColumn(
                    "same sign", format="percent", help="Of the draws that kept it."
                ),
                **{one: st.column_config.NumberColumn(one, format="%.4g") for one in ("median", "from", "to")},
            },
        )
        models = [
            f"{n} × {', '.join(labels[one] for one in model) or '(intercept alone)'}" for model, n in kept.models[:3]
        ]
        st.caption(f"Most frequent models: {_ui.plain('; '.join(models))}.")
    said = f"{kept.n_fitted} of {kept.n_draws} draws of {kept.n} runs could be fitted."
    if kept.problems:
        said += f" The others: {'; '.join(f'{n} × {words}' for words, n in kept.problems[:3])}"
    st.caption(_ui.plain(said))
