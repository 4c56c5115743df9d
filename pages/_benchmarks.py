"""Benchmarks on the Compare page: start tasks of lm-evaluation-harness on a model, and see what all models scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from core.charts.benchmarks import benchmark_figure
from core.errors import AssayError
from core.lm_eval_job import DTYPES, INSTALL, USUAL_TASKS, LmEvalOptions, is_installed, task_files
from core.scoring import DEMO_STUDENT
from db import answers, lm_eval, score_results
from db import jobs as job_store
from db.service import Service
from pages import _models, _ui

UNTRAINED = "none: the base model alone"


def show(service: Service) -> None:
    """Results first, then what runs, then the form."""
    found = lm_eval.results(service.store)
    _results(service, found)
    _running(service)
    with st.expander("Benchmark a model", icon=":material/play_arrow:", expanded=not found, key="benchmark-new"):
        _form(service)


def _results(service: Service, found: Sequence[Mapping[str, Any]]) -> None:
    if not found:
        st.caption(
            "No model has been benchmarked yet. ARC, HellaSwag, MMLU and TruthfulQA are what the papers report; task "
            "files with local data work without a network."
        )
        return
    labels = sorted({one["label"] for one in found})
    chosen = st.pills(
        "Models", labels, selection_mode="multi", default=labels, format_func=_ui.plain, key="benchmark-models"
    )
    main = [one for one in lm_eval.main_results(found) if one["label"] in (chosen or labels)]
    measured = [one for one in main if one["value"] is not None]
    if measured:
        data = [_line(one) for one in measured]
        _ui.chart(benchmark_figure(measured), key="benchmark-chart", data=data, name="benchmarks")
        if any(one["limit"] for one in measured):
            st.caption(
                "Some results are of a part of the task only (column “limit”): they show that things run, and are no "
                "benchmark results."
            )
    for one in main:
        if one["value"] is None:
            st.warning(_ui.plain(f"{one['label']}, {one['task']}: {one['reason']}"))
    with st.expander(f"All metrics ({len(found):,})", icon=":material/table_rows:"):
        st.dataframe([_line(one) for one in found], hide_index=True, key="benchmark-all")
        gone = st.selectbox("Delete the results of", labels, index=None, placeholder="no model", key="benchmark-gone")
        if gone is not None and st.button(
            "Delete them", icon=":material/delete:", key=f"benchmark-delete-{gone}", **_ui.allowed("administer")
        ):
            lm_eval.remove_results(service.store, gone)
            st.rerun()


def _line(one: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "model": one["label"],
        "task": one["task"],
        "metric": one["metric"],
        "filter": one["filter"],
        "value": one["value"],
        "standard error": one["stderr"],
        "n": one["n_samples"],
        "shots": one["n_shots"],
        "limit": one["limit"],
        "part of": one["of"],
        "reason": one["reason"],
        "finished (UTC)": one["finished_at"],
    }


def _running(service: Service) -> None:
    mine = {job["job_id"]: job for job in job_store.jobs(service.store) if job["kind"] == lm_eval.KIND}
    live = {i for i in mine if (status := service.scheduler.statuses().get(i)) is not None and not status.ended}
    if live:
        _watch(service, tuple(sorted(live)))


@st.fragment(run_every=2)
def _watch(service: Service, job_ids: tuple[str, ...]) -> None:
    statuses = service.scheduler.statuses()
    for job_id in job_ids:
        status = statuses.get(job_id)
        if status is None:
            continue
        if status.ended:
            st.rerun()
        share = status.done_rows / status.total_rows if status.total_rows else 0.0
        note = status.note or status.state
        st.progress(share, text=_ui.plain(f"{status.title} · {status.done_rows} of {status.total_rows} tasks · {note}"))
    st.page_link("jobs.py", label="Open Jobs", icon=":material/pending_actions:")


def _form(service: Service) -> None:
    if not is_installed():
        st.info(
            f"lm-evaluation-harness is an optional extra. Run `{INSTALL}` where this server is installed, then reload "
            "this page.",
            icon=":material/extension:",
        )
        return
    left, right = st.columns([3, 2])
    known = list(dict.fromkeys([str(DEMO_STUDENT), *score_results.models_by_role(service.store).get("student", ())]))
    model = left.selectbox(
        "Model",
        known,
        format_func=_models.name,
        accept_new_options=True,
        help="Choose one, or type the id of a causal language model on the Hugging Face hub or its folder here.",
        key="benchmark-model",
    )
    adapters = {one["run_id"]: one for one in answers.runs_with_adapters(service.store, service.settings.jobs_path)}
    usable = {i: one for i, one in adapters.items() if one["exists"] and one["base"] == model}
    runs = _ui.distinct({i: f"{one['study']} · {one['label']}" for i, one in usable.items()}, tell=lambda i: f"run {i}")
    run = right.selectbox(
        "Adapter of a finetune",
        [None, *usable],
        format_func=lambda i: UNTRAINED if i is None else runs[i],
        help="Runs on this base whose adapters were kept.",
        key=f"benchmark-adapter-{model}",
    )
    tasks = _tasks(service)
    name = _models.name(str(model)) if run is None else f"{usable[run]['study']} · {usable[run]['label']}"
    label = left.text_input("Name in tables", value=name, key=f"benchmark-label-{model}-{run}")
    with right:
        device = _models.device_choice("benchmark", usual="cpu")
    first, second, third = st.columns(3)
    limit = first.number_input(
        "Examples of each task (0: all)", min_value=0, value=0, step=50, key="benchmark-limit",
        help="A part of a task shows that things run; it is no benchmark result.",
    )  # fmt: skip
    batch = second.number_input("Sequences at once (0: what fits)", 0, 4096, 8, key="benchmark-batch")
    dtype = third.selectbox("Numbers", DTYPES, key="benchmark-dtype")
    if not st.button(
        f"Run {len(tasks['chosen'])} tasks" if len(tasks["chosen"]) != 1 else "Run 1 task",
        type="primary",
        icon=":material/play_arrow:",
        key="benchmark-run",
        **_ui.allowed("administer", disabled=not tasks["chosen"] or tasks["missing"] is not None or not model),
    ):
        return
    try:
        folder = lm_eval.submit_lm_eval(
            service.store,
            service.settings.jobs_path,
            label=label,
            options=LmEvalOptions(
                model=str(model),
                adapter=None if run is None else usable[run]["adapter"],
                tasks=tasks["chosen"],
                task_folder=tasks["folder"],
                device=device,
                dtype=dtype,
                limit=int(limit) or None,
                batch_size=int(batch),
            ),
            created_by=_ui.reviewer() or None,
        )
    except AssayError as error:
        st.error(_ui.plain(str(error)))
        return
    service.enqueue(folder)
    st.rerun()


def _tasks(service: Service) -> dict[str, Any]:
    """The tasks with their shots, the folder of own ones, and what is missing before they may run."""
    folders = {str(path): path for path in _folders_with_tasks(service.settings.data_roots)}
    folder = st.selectbox(
        "Own task files",
        [None, *folders],
        format_func=lambda p: "none" if p is None else p,
        help="Folders with task files (YAML) below the server's data folders. They are read, never uploaded.",
        key="benchmark-folder",
    )
    own: list[str] = []
    if folder is not None:
        try:
            own = list(task_files(folders[folder]))
        except AssayError as error:
            st.warning(_ui.plain(str(error)))
    chosen = st.multiselect(
        "Tasks",
        [*USUAL_TASKS, *own],
        default=own or list(USUAL_TASKS),
        format_func=lambda t: f"{t} ({USUAL_TASKS[t]} shots)" if t in USUAL_TASKS else t,
        accept_new_options=True,
        help="Or type the name of any other task of the harness. Shots are those of the Open LLM Leaderboard.",
        key=f"benchmark-tasks-{folder}",
    )
    missing = None
    if folder is not None and not st.checkbox(
        "I trust this folder: task files can run code on the server, with its rights.", key=f"benchmark-trust-{folder}"
    ):
        missing = "trust"
    return {"chosen": {task: USUAL_TASKS.get(task) for task in chosen}, "folder": folder, "missing": missing}


def _folders_with_tasks(roots: Sequence[Path]) -> list[Path]:
    found = {path.parent for root in roots if root.is_dir() for path in root.rglob("*.yaml") if path.is_file()}
    return sorted(found)[:200]
