"""Score: choose rows, indicators and models; see what is done, what is left and how long it takes; run and watch."""

from __future__ import annotations

import streamlit as st

from core.errors import AssayError
from core.indicators import chosen, losses_needed, roles_needed
from core.scoring import Models
from db import jobs, queries
from db.jobs import ScorePlan
from db.service import Service
from pages import _indicators, _models, _score_jobs, _trial, _ui


@st.cache_data(max_entries=64, show_spinner="Looking what is scored already …")
def _plan(
    _service: Service, path: str, version: str, dataset_id: int, indicators: tuple[str, ...], models: Models
) -> ScorePlan:
    return jobs.plan_score(_service.store, dataset_id=dataset_id, indicators=indicators, models=models)


def _table_of_plan(plan: ScorePlan) -> None:
    rows = []
    for one in chosen(plan.indicators):
        done = min(plan.done[output.key] for output in one.outputs)
        rows.append(
            {
                "indicator": one.outputs[0].label,
                "done": 100 * done / plan.n_rows if plan.n_rows else 0.0,
                "scored": done,
                "left": plan.n_rows - done,
            }
        )
    st.dataframe(
        rows,
        hide_index=True,
        height="content",
        column_config={
            "indicator": st.column_config.TextColumn(width=140),
            "done": st.column_config.ProgressColumn("done", format="%.0f %%", min_value=0.0, max_value=100.0),
            "scored": st.column_config.NumberColumn("scored already", format="localized"),
            "left": st.column_config.NumberColumn("left to score", format="localized"),
        },
        key="score-plan",
    )


def _parts(service: Service, plan: ScorePlan) -> int:
    """Jobs to share the rows out to: one a GPU."""
    return max(1, len(service.scheduler.gpus())) if plan.models.device == "cuda" else 1


def _submit(service: Service, dataset_id: int, plan: ScorePlan, name: str) -> None:
    try:
        with st.spinner(f"Writing {plan.n_to_score:,} rows for the worker …"):
            folders = jobs.submit_score(
                service.store,
                service.settings.jobs_path,
                dataset_id=dataset_id,
                plan=plan,
                title=f"Score {name}: {', '.join(plan.indicators)}",
                created_by=_ui.reviewer() or None,
                parts=_parts(service, plan),
            )
            st.session_state[_score_jobs.SUBMITTED] = [service.enqueue(folder) for folder in folders]
    except AssayError as error:
        st.error(_ui.plain(str(error)))
        return
    st.rerun()


def _new_job(service: Service, dataset_id: int, name: str, version: str) -> None:
    st.subheader("Indicators", anchor=False)
    keys = _indicators.choose("score")
    if not keys:
        st.info("Choose at least one indicator.", icon=":material/arrow_upward:")
        return
    roles = roles_needed(keys)
    models: Models | None = Models()
    if roles:
        st.subheader("Models", anchor=False)
        models = _models.choose(roles, key="score", student_weights=bool(losses_needed(keys)))
    st.subheader("What is left to score", anchor=False)
    if not roles:
        st.caption("These indicators need no model.")
    if models is None:
        st.info("One of the models cannot be used: see what is wrong with it above.", icon=":material/arrow_upward:")
        return
    _plan_and_run(service, dataset_id, name, version, tuple(keys), models)


def _narrowed(service: Service, plan: ScorePlan, *, dataset_id: int, version: str) -> ScorePlan:
    """The same without indicators that every row has: neither loaded, nor measured, nor named by the job."""
    keys = tuple(key for key in plan.indicators if _score_jobs.n_left(plan, key))
    if not keys or keys == plan.indicators:
        return plan
    return _plan(service, str(service.store.path), version, dataset_id, keys, plan.models)


def _plan_and_run(
    service: Service, dataset_id: int, name: str, version: str, keys: tuple[str, ...], models: Models
) -> None:
    try:
        whole = _plan(service, str(service.store.path), version, dataset_id, keys, models)
        plan = _narrowed(service, whole, dataset_id=dataset_id, version=version)
    except AssayError as error:
        st.error(_ui.plain(str(error)), icon=":material/error:")
        return
    left, right = st.columns([4, 3], gap="large")
    with left:
        _table_of_plan(whole)
    with right:
        if not plan.n_to_score:
            st.success("Every row is scored by these indicators already.", icon=":material/check:")
            _score_jobs.link_to_distributions(dataset_id)
            return
        in_work = _score_jobs.in_work(service, dataset_id, plan)
        _trial.show(service, dataset_id, plan, parts=_parts(service, plan))
        if st.button(
            f"Score {plan.n_to_score:,} rows",
            type="primary",
            icon=":material/play_arrow:",
            key=f"score-run-{dataset_id}",
            **_ui.allowed("administer", disabled=in_work),
        ):
            _submit(service, dataset_id, plan, name)
        if in_work:
            st.caption("A job that does just this is waiting or running: see below.")


def main() -> None:
    """Render the page."""
    service = _ui.current_service()
    _ui.header("Score", "How long, how varied, how surprising, how hard each row is. What was scored once is scored.")
    found = queries.datasets(service.store)
    if not found:
        _ui.empty("There is no dataset yet, so there is nothing to score.", page="load.py", label="Load a dataset")
        return
    version = queries.version(service.store)
    dataset_id = _ui.pick_dataset(key="score-dataset")
    name = next(row["name"] for row in found if row["dataset_id"] == dataset_id)
    _new_job(service, dataset_id, name, version)
    _score_jobs.watch(service, dataset_id)


main()
