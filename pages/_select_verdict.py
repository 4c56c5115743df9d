"""Comparisons of rule and random: the verdict as runs come in, its figure, both tests, and the runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from core import comparison
from core.charts import comparison as charts
from core.comparison import Comparison
from core.errors import AssayError, StoreError
from core.finetune.settings import FinetuneSettings
from core.jobs.status import JobStatus
from db import jobs, selections, studies
from db.service import Service
from pages import _finetune_form, _select_comparison, _ui
from pages._select_comparison import KIND, STARTED

OUTCOMES = {
    "done": "✓ done",
    "failed": "✗ failed",
    "diverged": "✗ diverged",
    "skipped": "– skipped",
    None: "… not yet",
}
VERDICTS = {
    comparison.BETTER: ("success", ":material/trending_down:", "Better than random"),
    comparison.WORSE: ("error", ":material/trending_up:", "Worse than random"),
    comparison.NO_DIFFERENCE: ("info", ":material/drag_handle:", "No difference shown"),
    None: ("info", ":material/hourglass:", ""),
}


def results(service: Service) -> None:
    """Comparisons of this workspace, and the one that is open; looked at again while a job of it is at work."""
    found = [study for study in studies.studies(service.store) if study["kind"] == KIND]
    if not found:
        return
    st.subheader("Comparisons", anchor=False)
    by_id = {study["study_id"]: study for study in found}
    started = st.session_state.pop(STARTED, None)
    asked = started if started in by_id else st.query_params.get("comparison", "")
    options = list(by_id)
    now = int(asked) if str(asked).isdecimal() and int(asked) in by_id else options[0]
    widget = f"select-comparison-open-{len(options)}-{options[0]}"
    opened = st.selectbox(
        "Comparison",
        options,
        index=options.index(now),
        format_func=lambda i: (
            f"{by_id[i]['name']} ({by_id[i]['n_runs']} runs, {by_id[i]['created_at']:%Y-%m-%d %H:%M})"
        ),
        label_visibility="collapsed",
        key=widget,
    )
    st.query_params["comparison"] = str(opened)
    at_work = _at_work(service, by_id[opened])
    st.fragment(_one, run_every=2 if at_work else None)(service, opened, at_work)


def _jobs(service: Service, study: Mapping[str, Any]) -> list[JobStatus]:
    statuses = service.scheduler.statuses()
    return [statuses[job_id] for job_id in study["job_ids"] if job_id in statuses]


def _at_work(service: Service, study: Mapping[str, Any]) -> bool:
    """Whether a job of it waits or runs, or ended and is still being taken up by the store."""
    return not all(jobs.is_settled(service.store, job) for job in _jobs(service, study))


def _one(service: Service, study_id: int, was_at_work: bool) -> None:
    """A comparison: verdict, chart, both tests, and its runs."""
    try:
        study = studies.study(service.store, study_id)
    except StoreError as error:  # it was removed while this page was open
        st.info(_ui.plain(str(error)))
        return
    runs = studies.runs(service.store, [study_id])
    done = [run for run in runs if run["outcome"] == "done" and run["loss_nats"] is not None]
    groups = {role: [run for run in done if run["role"] == role] for role in ("selected", "random", "base")}
    found = _compared(service, study, groups)
    at_work = _at_work(service, study)
    _state(service, study, runs, at_work=at_work)
    _verdict(found)
    _figure(study_id, groups, found)
    if found.subsets is not None:
        _tests(found, groups)
    _runs_table(study_id, runs)
    if was_at_work and not at_work:
        st.rerun()


def _compared(
    service: Service, study: Mapping[str, Any], groups: Mapping[str, Sequence[Mapping[str, Any]]]
) -> Comparison:
    losses = selections.output_losses(
        service.store, [run["run_id"] for run in (*groups["selected"], *groups["random"])]
    )
    return comparison.compare(
        [run["loss_nats"] for run in groups["selected"]],
        [run["loss_nats"] for run in groups["random"]],
        selected_outputs=[losses[run["run_id"]] for run in groups["selected"]],
        random_outputs=[losses[run["run_id"]] for run in groups["random"]],
        instruction_of=selections.instructions(service.store, study["evaluation_id"]),
    )


def _state(
    service: Service, study: Mapping[str, Any], runs: Sequence[Mapping[str, Any]], *, at_work: bool
) -> None:  # fmt: skip
    design = study["design"]
    rule = (design.get("rule") or {}).get("name")
    origin = (design.get("from_dataset") or {}).get("name")
    facts = [
        f"{design['n_selected']:,} rows" if design.get("n_selected") else None,
        f"of {origin}" if origin else None,
        f"rule {rule}" if rule else None,
        f"evaluated on {study['evaluation']}" if study["evaluation"] else "its evaluation set was removed",
        _finetune_form.summary(FinetuneSettings.from_params(study["settings"])),
    ]
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(_ui.plain(" · ".join(filter(None, facts))), width="stretch")
        st.page_link(
            "studies.py", label="Open the study", icon=":material/experiment:",
            query_params={"study": str(study["study_id"])},
        )  # fmt: skip
    n_done = sum(run["outcome"] == "done" for run in runs)
    if at_work:
        _progress(service, study, n_done=n_done, n_runs=len(runs))
    elif n_done < len(runs):
        _left(service, study, len(runs) - n_done, len(runs))


def _progress(service: Service, study: Mapping[str, Any], *, n_done: int, n_runs: int) -> None:
    at_work = [job for job in _jobs(service, study) if not job.ended]
    etas = [job.eta_seconds for job in at_work if job.eta_seconds is not None]
    left = f" · about {_ui.duration(max(etas))} left" if etas else ""
    st.progress(n_done / max(1, n_runs), text=f"{n_done} of {n_runs} runs done{left}")
    for job in at_work:
        said = job.trouble or job.note or ("Waiting for its turn." if job.state == "queued" else "")
        if said:
            st.caption(_ui.plain(said))


def _left(service: Service, study: Mapping[str, Any], n_left: int, n_runs: int) -> None:
    """Runs that nobody works on: why, and the way to run them."""
    why = next((job.message for job in reversed(_jobs(service, study)) if job.message), None)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(
            f":material/warning: {n_left} of {n_runs} runs are not done and no job is at work on them."
            + (f" {_ui.plain(why)}" if why else ""),
            width="stretch",
        )
        pressed = st.button(
            "Run what is left",
            icon=":material/play_arrow:",
            key=f"comparison-again-{study['study_id']}",
            **_ui.allowed("administer"),
        )
    if pressed:
        try:
            _select_comparison.submit(service, study["study_id"], FinetuneSettings.from_params(study["settings"]))
        except AssayError as error:
            st.error(_ui.plain(str(error)), icon=":material/error:")
            return
        st.rerun()


def _verdict(found: Comparison) -> None:
    kind, icon, title = VERDICTS[found.verdict]
    head = f"**{title}.** " if title else ""
    getattr(st, kind)(f"{head}{_ui.plain(found.words)}", icon=icon)


def _figure(
    study_id: int, groups: Mapping[str, Sequence[Mapping[str, Any]]], found: Comparison
) -> None:  # fmt: skip
    if not groups["selected"] and not groups["random"]:
        return
    points = {
        role: [charts.Point(run["label"], run["loss_nats"], run["n_rows"], run["seed"]) for run in groups[role]]
        for role in ("selected", "random")
    }
    low, high = found.random_low_nats, found.random_high_nats
    base = groups["base"][0]["loss_nats"] if groups["base"] else None
    _ui.chart(
        charts.comparison_figure(
            points["selected"], points["random"], expected=None if low is None or high is None else (low, high),
            base_nats=base,
        ),
        key=f"comparison-{study_id}",
        data=[
            {"run": run["label"], "role": run["role"], "rows": run["n_rows"], "seed": run["seed"],
             "evaluation loss": run["loss_nats"]}
            for role in ("selected", "random", "base")
            for run in groups[role]
        ],
        name="rule-against-random",
    )  # fmt: skip
    if low is not None:
        st.caption(
            f"The band, {low:.4f} to {high:.4f}, is where one further random subset is expected (95 %, by Student's t "
            f"from {len(groups['random'])} random runs). Short lines are means."
        )


def _tests(found: Comparison, groups: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    left, right = st.columns(2, gap="medium")
    with left, st.container(border=True):
        st.markdown("**Over subsets** · would other random subsets do as well?")
        test = found.subsets
        assert test is not None
        _table(
            "subsets",
            {
                "mean loss, selected": found.selected_nats,
                "mean loss, random": found.random_nats,
                "difference (nats)": test.difference_nats,
                "one-sided p (selected lower)": test.p_lower,
                "two-sided p": test.p_two,
                "smallest one-sided p": test.smallest_p,
                "spread of repeats (sd)": found.selected_spread_nats,
            },
        )
        how = "all" if test.exact else "randomly drawn"
        repeats = len(groups["selected"])
        more = f" Its {repeats} runs enter as one, by their mean." if repeats > 1 else ""
        st.caption(f"Permutation test, {test.n_relabellings:,} relabellings, {how}.{more}")
    with right, st.container(border=True):
        st.markdown("**Over evaluation instructions** · do these students differ on instructions like these?")
        paired = found.instructions
        if paired is None:
            st.caption("It needs a finished run of both with losses of the same evaluation outputs.")
        else:
            _table(
                "instructions",
                {
                    "difference (nats)": paired.difference_nats,
                    "95 % low": paired.low_nats,
                    "95 % high": paired.high_nats,
                    "one-sided p (selected lower)": paired.p_lower,
                    "two-sided p": paired.p_two,
                    "share of outputs where selected is lower": paired.share_lower,
                },
            )
            st.caption(_ui.plain(found.instruction_words))


def _table(name: str, values: Mapping[str, float | None]) -> None:
    st.dataframe(
        [{"": label, "value": _ui.number(value, 4)} for label, value in values.items() if value is not None],
        hide_index=True,
        height="content",
        column_config={"value": st.column_config.TextColumn(alignment="right", width="small")},
        key=f"comparison-{name}",
    )


def _runs_table(study_id: int, runs: Sequence[Mapping[str, Any]]) -> None:
    any_reason = any(run["reason"] for run in runs)
    st.dataframe(
        [
            {
                "run": run["label"],
                "role": run["role"],
                "rows": run["n_rows"],
                "seed": run["seed"],
                "state": OUTCOMES.get(run["outcome"], run["outcome"]),
                "evaluation loss": run["loss_nats"],
                "training loss": run["train_loss_nats"],
                "seconds": run["seconds"],
                **({"reason": run["reason"]} if any_reason else {}),
            }
            for run in runs
        ],
        hide_index=True,
        placeholder="—",
        height=min(38 + 35 * len(runs), 330),
        column_config={
            "evaluation loss": st.column_config.NumberColumn(format="%.5f"),
            "training loss": st.column_config.NumberColumn(format="%.4f"),
            "seconds": st.column_config.NumberColumn(format="%.0f"),
            "reason": st.column_config.TextColumn(width="large"),
        },
        key=f"comparison-runs-{study_id}",
    )
