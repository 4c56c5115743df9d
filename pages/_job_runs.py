"""The runs behind a job of a study, on the Jobs page: which did not end well, and the way to the study."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from core.errors import AssayError
from db import studies
from db.service import Service
from pages import _ui


@st.cache_data(max_entries=64, show_spinner=False)
def _study_of(_service: Service, path: str, job_id: str) -> int | None:
    """The study whose runs a job does; never changes."""
    try:
        study_id = _service.job_folder(job_id).spec().params.get("study_id")
    except AssayError:
        return None
    return None if study_id is None else int(study_id)


def show(service: Service, record: Mapping[str, Any]) -> None:
    """The runs of a study that this job did not bring to a good end, each with its reason."""
    study_id = _study_of(service, str(service.store.path), str(record["job_id"]))
    found = [] if study_id is None else studies.runs(service.store, [study_id])
    if not found:
        st.caption("The study of this job was removed.")
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown("**Runs that diverged or failed**", width="stretch")
        st.page_link(
            "studies.py", label=f"Open the study {_ui.plain(str(found[0]['study']))}", icon=":material/experiment:",
            query_params={"study": str(study_id)},
        )  # fmt: skip
    bad = [run for run in found if run["job_id"] == record["job_id"] and run["outcome"] not in (None, "done")]
    if not bad:
        st.caption("None so far. Such runs are kept out of fits; the study's page starts them again.")
        return
    st.dataframe(
        [{"run": run["label"], "outcome": run["outcome"], "reason": run["reason"]} for run in bad],
        hide_index=True,
        height="content" if len(bad) <= 6 else 248,
        key=f"job-runs-{record['job_id']}",
        column_config={"reason": st.column_config.TextColumn(width="large")},
    )
