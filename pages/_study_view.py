"""One study, live: progress, loss curves, evaluation loss against indicators, its runs, and what can be done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from core.charts import studies as charts
from core.errors import AssayError
from core.formats import safe_name
from core.jobs.status import JobStatus
from db import queries
from db.service import Service
from pages import _finetune_form, _job, _pick, _rows, _selection, _study_actions, _study_data, _study_run, _ui
from pages._study_data import Run, Seen

REFRESH_SECONDS = 2
SMOOTHING = {"none": "As measured", "some": "Smoothed", "much": "Much smoothed"}
WEIGHTS = {"none": 0.0, "some": 0.7, "much": 0.92}
SHOWN = {"all": "All", "done": "Done", "bad": "Diverged or failed", "left": "Not done"}


def show(service: Service, study_id: int) -> None:
    """The study; drawn anew every two seconds while it is at work."""
    try:
        seen = _study_data.look(service, study_id)
    except AssayError as error:
        st.warning(_ui.plain(str(error)), icon=":material/link_off:")
        st.page_link("studies.py", label="All studies", icon=":material/arrow_back:")
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader(_ui.plain(str(seen.study["name"])), anchor=False, width="stretch")
        st.page_link("studies.py", label="All studies", icon=":material/arrow_back:")
    _about(seen)
    live = not _study_data.is_settled(service, seen)
    st.fragment(_live, run_every=REFRESH_SECONDS if live else None)(service, study_id, live=live)


def _about(seen: Seen) -> None:
    study = seen.study
    kind = _study_data.KINDS.get(str(study["kind"]), str(study["kind"]))
    evaluation = study["evaluation"] or "an evaluation set that was removed"
    words = f"{kind} · evaluated on {evaluation} · {_finetune_form.summary_of(study['settings'])}"
    if study["created_by"]:
        words += f" · by {study['created_by']}"
    st.caption(_ui.plain(words))


def _live(service: Service, study_id: int, *, live: bool) -> None:
    try:
        seen = _study_data.look(service, study_id)
    except AssayError:
        st.rerun()
    if live and _study_data.is_settled(service, seen):
        st.rerun()
    if not live and seen.at_work:
        st.rerun()  # a button put it to work: from now on it is drawn anew
    for message, icon in st.session_state.pop(_study_actions.SAID, ()):
        st.toast(_ui.plain(message), icon=icon)
    _numbers(seen)
    for status in seen.statuses:
        if not status.ended or status is seen.statuses[-1]:
            _job_line(seen, status)
    _study_actions.buttons(service, seen)
    done = [run for run in seen.of("done") if run["loss_nats"] is not None]
    dataset_ids = tuple(sorted({run["dataset_id"] for run in seen.runs if run["dataset_id"] is not None}))
    version = queries.version(service.store)
    panels, means = _study_data.means(service.store, str(service.store.path), version, dataset_ids)
    _curves(seen)
    _against_indicators(seen, done, panels, means)
    _runs(service, seen, panels, means)
    _settings(seen)


# --- numbers and progress ---


def _numbers(seen: Seen) -> None:
    done = [run for run in seen.of("done") if run["role"] != "base" and run["loss_nats"] is not None]
    best = min(done, key=lambda run: run["loss_nats"], default=None)
    worst = max(done, key=lambda run: run["loss_nats"], default=None)
    n_bad = len(seen.of("failed", "diverged"))
    cells: tuple[tuple[str, str, str], ...] = (
        ("Runs done", f"{len(seen.of('done')):,} of {len(seen.runs):,}", "The untrained base among them."),
        ("Diverged or failed", f"{n_bad:,}", "They are kept out of fits; the table below gives each reason."),
        ("Untrained base", _ui.number(seen.base_loss, 4), "Evaluation loss of the base model as it is, in nats."),
        ("Best run", _study_data.loss_words(best) if best else "—", _label_help(best)),
        ("Worst run", _study_data.loss_words(worst) if worst else "—", _label_help(worst)),
    )
    if seen.study["kind"] == "single":
        cells = (*cells[:3], ("After the finetune", *cells[3][1:]))
    for column, (label, value, words) in zip(st.columns(len(cells)), cells, strict=True):
        column.metric(label, value, border=True, help=words)


def _label_help(run: Run | None) -> str:
    return _ui.plain(f"Evaluation loss in nats of {run['label']}.") if run is not None else "No run is done yet."


def _job_line(seen: Seen, status: JobStatus) -> None:
    share = status.done_rows / status.total_rows if status.total_rows else 0.0
    parts = [_job.state_word(status), f"{status.done_rows:,} of {status.total_rows:,} runs"]
    if status.state == "running":
        planned = seen.study["design"].get("expected_seconds")
        if status.eta_seconds is not None:
            parts.append(f"about {_ui.duration(status.eta_seconds)} left")
        elif planned:
            parts.append(f"planned: about {_ui.duration(planned)} in all")
    with st.container(horizontal=True, vertical_alignment="center", key=f"study-job-{status.job_id}"):
        st.progress(min(share, 1.0), text=_ui.plain(" · ".join(parts)), width="stretch")
        st.page_link("jobs.py", label="Its log", icon=":material/pending_actions:", query_params={"job": status.job_id})
    if status.state in ("running", "cancelling"):
        st.caption(_ui.plain(status.note or "Starting: the base model is being loaded."))
    if status.message and status.state != "done":
        (st.error if status.state == "failed" else st.warning)(_ui.plain(status.message))
    if status.trouble:
        st.warning(_ui.plain(status.trouble), icon=":material/sync_problem:")


# --- figures ---


def _curves(seen: Seen) -> None:
    st.markdown("**Training loss**")
    if not seen.lines:
        words = "It begins with the first optimiser step." if seen.at_work else "No run has a loss curve yet."
        st.caption(words)
        return
    with st.container(horizontal=True):
        lines = _pick.switch("Lines", {"all": "All runs", "done": "Finished", "running": "At work"}, parameter="lines")
        smooth = _pick.switch("Smoothing", SMOOTHING, parameter="smooth")
        scale = _pick.switch("Scale", {"linear": "Linear", "log": "Logarithmic"}, parameter="scale")
        along = _pick.switch("Along", {"step": "By step", "epoch": "By epoch"}, parameter="along")
    chosen = [line for line in seen.lines if lines == "all" or line.state == lines]
    if not chosen:
        st.caption("No run is of this kind now.")
        return
    _ui.chart(
        charts.curves_figure(chosen, weight=WEIGHTS[smooth], log=scale == "log", by_epoch=along == "epoch"),
        key=f"study-curves-{seen.study_id}-{lines}-{smooth}-{scale}-{along}",
        data=curve_rows(chosen),
        name=f"loss-curves-{safe_name(str(seen.study['name']))}",
    )


def curve_rows(lines: Sequence[charts.Line]) -> pd.DataFrame:
    """Every step of these lines, for a download."""
    return pd.DataFrame(
        [
            {"run_id": line.run_id, "label": line.label, "step": step, "epoch": epoch, "loss_nats": loss}
            for line in lines
            for step, epoch, loss in zip(line.steps, line.epochs, line.losses, strict=True)
        ]
    )


def _against_indicators(
    seen: Seen, done: Sequence[Run], panels: Sequence[charts.Panel], means: dict[int, dict[str, float | None]]
) -> None:
    if seen.study["kind"] in ("search", "single"):  # their runs are not made to differ in an indicator
        return
    st.markdown("**Evaluation loss against the indicators**")
    rows = [{**run, "means": means.get(run["dataset_id"], {})} for run in done if run["role"] != "base"]
    if not panels:
        _ui.empty(
            "The rows of this study have no score yet, so there is nothing to set the losses against.",
            page="score.py", label="Score the sources", icon=":material/speed:",
        )  # fmt: skip
        return
    if not rows:
        words = "The first finished run is the first point here." if seen.at_work else "No run has an evaluation loss."
        st.caption(words)
        return
    keys = _study_data.chosen_keys({panel.key: panel.title for panel in panels}, key=f"study-{seen.study_id}")
    shown = [panel for panel in panels if panel.key in keys]
    key = f"study-against-{seen.study_id}-{_rows.identity(len(rows), keys)}"
    parts = charts.by_role(rows, shown)

    def opened() -> None:
        for run in _selection.in_figure(parts, st.session_state[key])[:1]:
            st.query_params["run"] = str(run["run_id"])

    _ui.chart(
        charts.against_indicators_figure(rows, shown, base_loss=seen.base_loss),
        key=key,
        data=_study_data.runs_table(rows, panels, means),
        name=f"loss-against-indicators-{safe_name(str(seen.study['name']))}",
        on_select=opened,
        selection_mode="points",
    )
    dashed = ""
    if seen.base_loss is not None:
        far = charts.is_far(seen.base_loss, rows)
        dashed = (
            f" The untrained base, at {seen.base_loss:.4f}, lies beyond the picture."
            if far
            else " Dashed: the untrained base."
        )
    st.caption(f"A point a finished run, across the mean of the indicator over its rows.{dashed} Click one to open it.")


# --- the table of runs ---


def _open(ids: Sequence[int], widget: str, opened: int | None) -> None:
    found = _pick.picked(ids, widget, opened)
    if found is None or found == opened:
        st.query_params.pop("run", None)
    else:
        st.query_params["run"] = str(found)


def _runs(
    service: Service, seen: Seen, panels: Sequence[charts.Panel], means: dict[int, dict[str, float | None]]
) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown("**Runs**")
        shown = _pick.switch("Runs shown", SHOWN, parameter="runs")
        st.download_button(
            "Runs with their indicators, for a fit",
            data=_ui.csv_bytes(_study_data.runs_table(seen.runs, panels, means)),
            file_name=f"runs {safe_name(str(seen.study['name']))}.csv",
            mime="text/csv",
            key=f"study-runs-csv-{seen.study_id}",
            type="tertiary",
            icon=":material/download:",
            on_click="ignore",
            help="A line a run with its evaluation loss and the mean of every indicator: what `python -m core fit` "
            "reads (--response loss_nats).",
        )
    wanted = {"done": ("done",), "bad": ("failed", "diverged"), "left": ("running", "waiting", "open", "skipped")}
    chosen = [run for run in seen.runs if shown == "all" or run["state"] in wanted[shown]]
    asked = st.query_params.get("run", "")
    opened = next((run["run_id"] for run in seen.runs if str(run["run_id"]) == asked), None)
    if chosen:
        _table(seen, chosen, opened)
    else:
        st.caption(f"None of the {len(seen.runs):,} runs is of this kind.")
    if opened is None:
        st.caption("Click a run to see what it was trained on, its curve and its loss on each evaluation instruction.")
        return
    run = next(run for run in seen.runs if run["run_id"] == opened)
    line = next((line for line in seen.lines if line.run_id == opened), None)
    _study_run.show(service, seen, run, line, means.get(run["dataset_id"], {}), panels)


def _table(seen: Seen, chosen: Sequence[Run], opened: int | None) -> None:
    ids = tuple(int(run["run_id"]) for run in chosen)
    widget = _pick.widget_key(f"study-runs-{seen.study_id}", ids, opened)
    base = seen.base_loss
    table: dict[str, Any] = {
        "run": [run["label"] for run in chosen],
        "role": [charts.ROLE_WORDS.get(run["role"], run["role"]) for run in chosen],
        "state": [_study_data.STATES.get(run["state"], run["state"]) for run in chosen],
        "rows": pd.array([_n_rows(run) for run in chosen], dtype="Int64"),
        "loss": [run["loss_nats"] for run in chosen],
        "against base": [
            None if base is None or run["loss_nats"] is None or run["role"] == "base" else run["loss_nats"] - base
            for run in chosen
        ],
        "training loss": [run["train_loss_nats"] for run in chosen],
        "time": [_ui.duration(run["seconds"]) for run in chosen],
        "reason": [run["reason"] for run in chosen],
    }
    st.dataframe(
        pd.DataFrame(table),
        hide_index=True,
        height="content" if len(chosen) <= 9 else 353,
        placeholder="—",
        key=widget,
        on_select=lambda: _open(ids, widget, opened),
        **_pick.options(ids, opened),
        column_config={
            "run": st.column_config.TextColumn(width="medium"),
            "role": st.column_config.TextColumn(width=120),
            "state": st.column_config.TextColumn(width=95),
            "rows": st.column_config.NumberColumn(format="localized", width="small"),
            "loss": st.column_config.NumberColumn(
                "evaluation loss", format="%.4f", help="Mean over the reference outputs, in nats."
            ),
            "against base": st.column_config.NumberColumn(format="%+.4f", help="Below 0: better than the untrained."),
            "training loss": st.column_config.NumberColumn(format="%.4f"),
            "time": st.column_config.TextColumn(width="small", alignment="right"),
            "reason": st.column_config.TextColumn(width="large"),
        },
    )


def _n_rows(run: Run) -> int | None:
    """Rows that a run trained on; a trial of a search says so in its result."""
    found = run["result"].get("n_rows", run["n_rows"]) if run["role"] == "trial" else run["n_rows"]
    return int(found) if found or run["role"] == "base" else None


def _settings(seen: Seen) -> None:
    with st.expander("Design and training setting", icon=":material/tune:", key=f"study-design-{seen.study_id}"):
        left, right = st.columns(2)
        with left:
            st.markdown("**Design**")
            st.json(seen.study["design"], expanded=1)
        with right:
            st.markdown("**Training setting**")
            st.json(seen.study["settings"], expanded=1)
