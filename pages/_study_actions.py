"""What can be done with a study: start, stop, resume, run again, delete, and where to go on with it."""

from __future__ import annotations

import streamlit as st

from core.errors import AssayError
from core.jobs.status import RESUMABLE
from db import studies
from db.service import Service
from pages import _ui
from pages._study_data import Seen

SAID = "study_said"


def _say(message: str, *, icon: str = ":material/check:") -> None:
    st.session_state.setdefault(SAID, []).append((message, icon))


def _act(service: Service, study_id: int, action: str, job_ids: tuple[str, ...] = ()) -> None:
    """What a button of this very study does; the scheduler and the store check again whether it fits."""
    try:
        if action == "stop":
            for job_id in job_ids:
                service.scheduler.cancel(job_id)
            message = "The study is being stopped. Finished runs are kept; it can be resumed."
        elif action == "resume":
            for job_id in job_ids:
                service.scheduler.resume(job_id)
            message = "The study is in the queue again. Finished runs are not done twice."
        else:
            n = start(service, study_id)
            message = f"{n:,} run{'s are' if n != 1 else ' is'} in the queue."
    except AssayError as error:
        _say(str(error), icon=":material/error:")
        return
    _say(message)


def start(service: Service, study_id: int) -> int:
    """Put every run of a study that is not done into jobs, one a GPU; returns how many.

    Raises:
        AssayError: there is nothing to do, or the base model or evaluation set is not there.
    """
    settings = studies.study(service.store, study_id)["settings"]
    folders = studies.submit_study(
        service.store,
        service.settings.jobs_path,
        study_id=study_id,
        parts=n_parts(service, str(settings.get("device", "cpu"))),
        created_by=_ui.reviewer() or None,
    )
    for folder in folders:
        service.enqueue(folder)
    return sum(folder.spec().n_rows for folder in folders)


def begin(service: Service, study_id: int) -> None:
    """Start a study that was just made. One that cannot start stays, and its page says how to go on."""
    try:
        start(service, study_id)
    except AssayError as error:
        _say(f"The study was made, but it could not be started. {error}", icon=":material/error:")


def n_parts(service: Service, device: str) -> int:
    """Jobs to share the runs of a study out to: one a GPU."""
    return max(1, len(service.scheduler.gpus())) if device.startswith("cuda") else 1


def buttons(service: Service, seen: Seen) -> None:
    """What can be done with a study in its state."""
    study_id = seen.study_id
    active = tuple(s.job_id for s in seen.statuses if s.state in ("queued", "running"))
    stopped = tuple(s.job_id for s in seen.statuses if s.state in RESUMABLE and not seen.at_work)[-1:]
    left = [run for run in seen.runs if run["outcome"] != "done"]
    search = seen.study["kind"] == "search"
    with st.container(horizontal=True, vertical_alignment="center", key=f"study-buttons-{study_id}"):
        st.button(
            "Stop",
            icon=":material/stop_circle:",
            key=f"study-stop-{study_id}",
            on_click=_act,
            args=(service, study_id, "stop", active),
            **_ui.allowed(
                "administer",
                disabled=not active,
                help="Ends the run at work. Finished runs are kept, and the study can be resumed.",
            ),
        )
        st.button(
            "Resume",
            icon=":material/play_circle:",
            key=f"study-resume-{study_id}",
            on_click=_act,
            args=(service, study_id, "resume", stopped),
            **_ui.allowed(
                "administer",
                disabled=not stopped or not left,
                help="Goes on where the study was stopped: finished runs are skipped, one under way goes on from its "
                "checkpoint.",
            ),
        )
        if not search:
            n = len(left)
            st.button(
                f"Run the {n:,} that {'are' if n != 1 else 'is'} not done" if left else "Run again",
                icon=":material/replay:",
                key=f"study-again-{study_id}",
                on_click=_act,
                args=(service, study_id, "again"),
                **_ui.allowed(
                    "administer",
                    disabled=not left or seen.at_work,
                    help="A new job over runs that have not been done, diverged or failed. The latest result counts.",
                ),
            )
        with st.popover("Delete", icon=":material/delete:", type="tertiary", disabled=seen.at_work):
            _delete(service, seen)
        _ways_on(seen)


def _ways_on(seen: Seen) -> None:
    n_done = len([run for run in seen.of("done") if run["role"] not in ("base", "trial")])
    if n_done < 3:
        return
    studies_asked = {"studies": str(seen.study_id)}
    if seen.study["kind"] == "univariate":
        st.page_link("univariate.py", label="Univariate", icon=":material/show_chart:", query_params=studies_asked)
    st.page_link("regression.py", label="Fit a rule", icon=":material/functions:", query_params=studies_asked)


def _delete(service: Service, seen: Seen) -> None:
    n_datasets = len({run["dataset_id"] for run in seen.runs if run["dataset_id"] is not None})
    st.markdown(
        f"Delete **{_ui.plain(str(seen.study['name']))}** with its {len(seen.runs):,} runs, their results and the "
        f"{n_datasets:,} datasets that were made for them? Texts, scores, fits and jobs stay."
    )
    if st.button(
        "Yes, delete it",
        icon=":material/delete:",
        type="primary",
        key=f"study-delete-{seen.study_id}",
        **_ui.allowed("administer"),
    ):
        try:
            studies.remove_study(service.store, seen.study_id)
        except AssayError as error:
            st.error(_ui.plain(str(error)))
            return
        _say(f"{seen.study['name']} was deleted.", icon=":material/delete:")
        st.query_params.clear()
        st.rerun()
