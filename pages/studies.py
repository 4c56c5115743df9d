"""Studies: many small finetunes that tell which indicators matter. The list, a new one with its plan, one live."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from core.jobs.status import JobStatus
from db import evaluation, queries, studies
from db.service import Service
from pages import _finetune_form, _job, _pick, _study_actions, _study_data, _study_new, _study_view, _ui

REFRESH_SECONDS = 2


def _state(study: Mapping[str, Any], statuses: Mapping[str, JobStatus]) -> str:
    """What the latest job of a study says of it; without one, what its runs say."""
    found = [statuses[job_id] for job_id in study["job_ids"] if job_id in statuses]
    active = [status for status in found if not status.ended]
    if active:
        return _job.state_word(active[-1])
    if study["n_done"] == study["n_runs"]:
        return "✓ done"
    if found and found[-1].state not in ("done",):
        return _job.state_word(found[-1])
    return "✗ some runs failed" if study["n_bad"] else "– not run"


def _losses(service: Service, found: Sequence[Mapping[str, Any]]) -> dict[int, list[float]]:
    """Evaluation losses of finished runs by study, the untrained base left out."""
    losses: dict[int, list[float]] = {}
    for run in studies.runs(service.store, [study["study_id"] for study in found]):
        if run["outcome"] == "done" and run["role"] != "base" and run["loss_nats"] is not None:
            losses.setdefault(run["study_id"], []).append(run["loss_nats"])
    return losses


def _open(ids: Sequence[int], widget: str) -> None:
    chosen = _pick.picked(ids, widget, None)
    if chosen is not None:
        st.query_params.clear()
        st.query_params["study"] = str(chosen)


def _list(service: Service, *, live: bool) -> None:
    found = studies.studies(service.store)
    statuses = service.scheduler.statuses()
    if live and not _any_active(found, statuses):
        st.rerun()
    losses = _losses(service, found)
    ids = tuple(int(study["study_id"]) for study in found)
    widget = _pick.widget_key("studies", ids, None)
    st.dataframe(
        pd.DataFrame(
            {
                "study": [study["name"] for study in found],
                "kind": [_study_data.KINDS.get(study["kind"], study["kind"]) for study in found],
                "state": [_state(study, statuses) for study in found],
                "done": [study["n_done"] / study["n_runs"] if study["n_runs"] else None for study in found],
                "runs": [f"{study['n_done']:,} of {study['n_runs']:,}" for study in found],
                "bad": pd.array([study["n_bad"] or None for study in found], dtype="Int64"),
                "best": [min(losses.get(study_id, ()), default=None) for study_id in ids],
                "worst": [max(losses.get(study_id, ()), default=None) for study_id in ids],
                "evaluated on": [study["evaluation"] or "— removed" for study in found],
                "base model": [_finetune_form.base_name(str(study["settings"].get("base", ""))) for study in found],
                "planned": [study["created_at"] for study in found],
                "by": [study["created_by"] or "—" for study in found],
            }
        ),
        hide_index=True,
        height="content" if len(found) <= 12 else 470,
        placeholder="—",
        key=widget,
        on_select=lambda: _open(ids, widget),
        **_pick.options(ids, None),
        column_config={
            "study": st.column_config.TextColumn(width=210),
            "kind": st.column_config.TextColumn(width=130),
            "state": st.column_config.TextColumn(width="small"),
            "done": st.column_config.ProgressColumn("", format="percent", min_value=0, max_value=1, width="small"),
            "runs": st.column_config.TextColumn(width="small", alignment="right"),
            "bad": st.column_config.NumberColumn("not well", width="small", help="Runs that diverged or failed."),
            "best": st.column_config.NumberColumn("best loss", format="%.4f", width="small"),
            "worst": st.column_config.NumberColumn("worst loss", format="%.4f", width="small"),
            "planned": st.column_config.DatetimeColumn("planned", format="distance", width=115),
        },
    )
    st.caption("Click a study to open it.")


def _any_active(found: Sequence[Mapping[str, Any]], statuses: Mapping[str, JobStatus]) -> bool:
    return any(job_id in statuses and not statuses[job_id].ended for study in found for job_id in study["job_ids"])


def _first_steps(service: Service) -> None:
    """What an empty page says: what a study is, and what it needs."""
    if not queries.datasets(service.store):
        _ui.empty(
            "A study finetunes a base model on many small mixtures of your rows, to learn which indicators predict the "
            "evaluation loss. First there must be rows, and scores of them.",
            page="load.py", label="Load a dataset", icon=":material/upload_file:",
        )  # fmt: skip
        return
    if not evaluation.evaluation_sets(service.store):
        _ui.empty(
            "A study evaluates every finetune on the same evaluation set. Import one, or mark a dataset as one.",
            page="evaluation.py", label="Make an evaluation set", icon=":material/fact_check:",
        )  # fmt: skip
        return
    _ui.empty(
        "No study was planned yet. Choose sources and an evaluation set; the plan with its indicators, warnings and "
        "expected time is shown before anything runs.",
    )


def main() -> None:
    """Render the page."""
    service = _ui.current_service()
    asked = st.query_params.get("study", "")
    if not asked and "new" not in st.query_params:
        _ui.header("Studies", "Finetune on mixtures to learn which indicators matter.")
    else:
        st.title("Studies", anchor=False)
    for message, icon in st.session_state.pop(_study_actions.SAID, ()):
        st.toast(_ui.plain(message), icon=icon)
    if asked.isdecimal():
        _study_view.show(service, int(asked))
        return
    if "new" in st.query_params:
        _study_new.show(service)
        return
    found = studies.studies(service.store)
    if st.button("Plan a study", type="primary", icon=":material/add:", key="study-new"):
        st.query_params["new"] = next(iter(_study_new.KINDS))
        st.rerun()
    if not found:
        _first_steps(service)
        return
    live = _any_active(found, service.scheduler.statuses())
    st.fragment(_list, run_every=REFRESH_SECONDS if live else None)(service, live=live)


main()
