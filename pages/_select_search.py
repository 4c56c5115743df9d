"""The size search of the Select page: what is asked, the trials as they come in, and taking over the best size."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from core.charts import search as charts
from core.errors import AssayError
from core.finetune.settings import FinetuneSettings
from core.jobs.status import RESUMABLE, JobStatus
from core.pace import CHARACTERS_PER_TOKEN
from db import evaluation, searches, selections, studies
from db.service import Service
from pages import _finetune_form, _job, _kinds, _ui
from pages._select_view import SelectView, use_size

TRIALS, FEWEST = 20, 3
LEAST_ROWS = 16
MOST_SEED = 2**31 - 1
OUTCOMES = {"done": "✓ done", "failed": "✗ failed", "diverged": "✗ diverged", None: "… not yet"}
_PAGE = "select-search"
_STARTED = f"{_PAGE}-started"
_SAID = f"{_PAGE}-said"
_PARAMETER = "search"


def panel(service: Service, view: SelectView) -> None:
    """The room: searches over this dataset with their trials, and the form of a new one."""
    st.subheader("How many rows are enough?", anchor=False)
    st.caption(
        "Each trial finetunes on the best rows of this ranking and evaluates. BlendSearch starts with few rows, which "
        "is cheap, and moves to where the evaluation loss falls."
    )
    found = searches.searches_of(service.store, view.dataset_id)
    if found:
        study_id = _choose(found)
        at_work = _at_work(service, study_id)
        st.fragment(_results, run_every=2 if at_work else None)(service, view, study_id, at_work)
    with st.expander(
        "Search by this ranking", icon=":material/add:", expanded=not found, key=f"{_PAGE}-new-{len(found)}"
    ):
        _form(service, view)


# --- a new search ---


def _form(service: Service, view: SelectView) -> None:
    sets = {one["dataset_id"]: one for one in evaluation.evaluation_sets(service.store) if one["n_outputs"]}
    if not sets:
        _ui.empty(
            "A search needs an evaluation set with reference outputs: the loss on it says which size is best.",
            page="evaluation.py", label="Make an evaluation set",
        )  # fmt: skip
        return
    n = len(view.ranking)
    if n < 2:
        _ui.empty("The constraints leave fewer than two rows, so there is no size to search. Loosen them.")
        return
    asked = _asked(view, sets)
    usual = _finetune_form.of_the_last_study(service, asked["evaluation_id"])
    settings = _finetune_form.form(service, key=_PAGE, default=usual)
    if settings is None:
        return
    _expected(service, view, settings, asked)
    if asked["highest"] <= asked["lowest"]:
        st.error("The lowest size must be below the highest.", icon=":material/error:")
    if st.button(
        "Start the search",
        type="primary",
        icon=":material/play_arrow:",
        key=f"{_PAGE}-start",
        **_ui.allowed("administer", disabled=asked["highest"] <= asked["lowest"]),
    ):
        _start(service, view, settings, asked)


def _asked(view: SelectView, sets: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """Name, evaluation set, bounds and budget; the keys hold the dataset, whose rows bound the sizes."""
    n, key = len(view.ranking), f"{_PAGE}-{view.dataset_id}"
    first, second = st.columns([3, 2]), st.columns(5, vertical_alignment="bottom")
    with first[0]:
        name = st.text_input(
            "Name of the search",
            value=f"{view.dataset_name}: size search, {view.rule_name}"[:200],
            max_chars=200,
            key=f"{key}-name",
        )
    with first[1]:
        evaluation_id = st.selectbox(
            "Evaluation set",
            list(sets),
            format_func=lambda i: f"{sets[i]['name']} ({sets[i]['n_outputs']:,} outputs)",
            key=f"{key}-evaluation",
        )
    with second[0]:
        least = st.number_input(
            "Lowest size, in rows", 1, n - 1, max(1, min(LEAST_ROWS, n // 4)), key=f"{key}-lowest-{n}",
            help="The first trial has this size.",
        )  # fmt: skip
    with second[1]:
        most = st.number_input("Highest size, in rows", 2, n, n, key=f"{key}-highest-{n}")
    with second[2]:
        by = st.segmented_control(
            "Budget in", ["trials", "hours"], default="trials", required=True, key=f"{key}-budget",
            help="Hours count the time that trials take, over all resumes.",
        )  # fmt: skip
    with second[3]:
        if by == "hours":
            hours: float | None = st.number_input("Hours", 0.05, 10_000.0, 2.0, 0.5, key=f"{key}-hours")
            n_trials = searches.MOST_TRIALS
        else:
            hours = None
            n_trials = int(st.number_input("Trials", FEWEST, searches.MOST_TRIALS, TRIALS, key=f"{key}-trials"))
    with second[4]:
        seed = st.number_input(
            "Seed", 0, MOST_SEED, 0, key=f"{key}-seed",
            help="Of the search and of every training, so that trials differ in their rows alone.",
        )  # fmt: skip
    return {
        "name": name,
        "evaluation_id": int(evaluation_id),
        "lowest": int(least),
        "highest": int(most),
        "n_trials": n_trials,
        "hours": None if hours is None else float(hours),
        "seed": int(seed),
    }


def _expected(service: Service, view: SelectView, settings: FinetuneSettings, asked: Mapping[str, Any]) -> None:
    """How long it may take: nobody knows the sizes before, so two cases are told."""
    from core.finetune.pace import estimate

    store = service.store
    tokens = searches.mean_characters(store, view.ranking[: asked["highest"]]) / CHARACTERS_PER_TOKEN
    eval_tokens = selections.n_evaluation_characters(store, asked["evaluation_id"]) / CHARACTERS_PER_TOKEN
    past = studies.past_finetunes(store)
    middle = math.sqrt(asked["lowest"] * asked["highest"])
    n_runs = asked["n_trials"] if asked["hours"] is None else 1
    usual, longest = (
        estimate(
            settings, n_runs=n_runs, train_tokens=tokens * n_rows, eval_tokens=eval_tokens, past=past, n_rows=n_rows
        )
        for n_rows in (middle, asked["highest"])
    )
    if asked["hours"] is None:
        said = (
            f"About **{_ui.duration(usual.seconds)}** for {n_runs} trials if they have about {middle:,.0f} rows each; "
            f"at most {_ui.duration(longest.seconds)}, if each had {asked['highest']:,}."
        )
    else:
        said = (
            f"No trial is begun after **{asked['hours']:g} h** of trials. One of about {middle:,.0f} rows may take "
            f"{_ui.duration(usual.seconds)}, the largest {_ui.duration(longest.seconds)}; at most "
            f"{searches.MOST_TRIALS} trials."
        )
    st.markdown(f":material/schedule: {said} {_ui.plain(usual.basis)}")


def _start(service: Service, view: SelectView, settings: FinetuneSettings, asked: Mapping[str, Any]) -> None:
    try:
        study_id, folder = searches.submit_search(
            service.store,
            service.settings.jobs_path,
            ranking=view.ranking,
            settings=settings,
            rule=view.rule,
            dataset_id=view.dataset_id,
            created_by=_ui.reviewer() or None,
            **asked,
        )
        service.enqueue(folder)
    except AssayError as error:
        st.error(_ui.plain(str(error)), icon=":material/error:")
        return
    _finetune_form.remember(service, settings)
    st.session_state[_STARTED] = study_id
    st.query_params[_PARAMETER] = str(study_id)
    st.rerun()


# --- its trials ---


def _choose(found: Sequence[Mapping[str, Any]]) -> int:
    """Which search is shown: the one that was just started, or that the link names, or the newest."""
    by_id = {study["study_id"]: study for study in found}
    started = st.session_state.pop(_STARTED, None)
    asked = started if started in by_id else st.query_params.get(_PARAMETER, "")
    options = list(by_id)
    now = int(asked) if str(asked).isdecimal() and int(asked) in by_id else options[0]
    if len(options) > 1:
        now = int(
            st.selectbox(
                "Search",
                options,
                index=options.index(now),
                format_func=lambda i: f"{by_id[i]['name']} · {by_id[i]['n_done']} trials done",
                label_visibility="collapsed",
                key=f"{_PAGE}-open-{len(options)}-{options[0]}",
            )
        )
    st.query_params[_PARAMETER] = str(now)
    return now


def _status(service: Service, study: Mapping[str, Any]) -> JobStatus | None:
    """The state of the search's job; None where its folder is gone."""
    statuses = service.scheduler.statuses()
    there = [statuses[job_id] for job_id in study["job_ids"] if job_id in statuses]
    return there[-1] if there else None


def _at_work(service: Service, study_id: int) -> bool:
    status = _status(service, studies.study(service.store, study_id))
    return status is not None and not status.ended


def _results(service: Service, view: SelectView, study_id: int, was_at_work: bool) -> None:
    """One search: where it is, its buttons, the figure and the table of its trials."""
    study = studies.study(service.store, study_id)
    trials = searches.trials(service.store, study_id)
    finished = [trial for trial in trials if trial["outcome"] is not None]
    status = _status(service, study)
    with st.container(border=True, key=f"{_PAGE}-results-{study_id}"):
        _head(view, study)
        _progress(status, study, finished)
        _buttons(service, study_id, status)
        if finished:
            _best(view, study, finished)
            _figure(study, finished)
            _table(study_id, finished)
        elif status is not None and not status.ended:
            st.caption("The first trial is at work; each appears here when it has been evaluated.")
    if was_at_work and (status is None or status.ended):
        st.rerun()


def _head(view: SelectView, study: Mapping[str, Any]) -> None:
    design = study["design"]
    rule = (design.get("rule") or {}).get("name")
    budget = f"{design['n_trials']} trials" if design["hours"] is None else f"{design['hours']:g} h of trials"
    facts = [
        f"{design['lowest']:,} to {design['highest']:,} rows",
        budget,
        f"rule {rule}" if rule else None,
        f"evaluated on {study['evaluation']}" if study["evaluation"] else "its evaluation set was removed",
        _finetune_form.summary(FinetuneSettings.from_params(study["settings"])),
    ]
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{_ui.plain(str(study['name']))}**", width="stretch")
        if study["job_ids"]:
            st.page_link(
                "jobs.py", label="Log on the Jobs page", icon=":material/pending_actions:",
                query_params={"job": study["job_ids"][-1]},
            )  # fmt: skip
    st.caption(_ui.plain(" · ".join(filter(None, facts))))
    if design.get("rule") != _stored(view):
        st.caption(":material/info: It was made by another rule than the one that ranks the rows now.")


def _stored(view: SelectView) -> Any:
    return json.loads(view.rule.to_json())


def _progress(
    status: JobStatus | None, study: Mapping[str, Any], finished: Sequence[Mapping[str, Any]]
) -> None:  # fmt: skip
    if status is None:
        st.caption("The folder of its job is gone: it cannot be resumed. Its trials stay.")
        return
    if status.ended:
        word = _job.state_word(status)
        skipped = status.done_shards - len(finished) if status.state == "done" else 0
        ended = f" {skipped} planned trials were not needed or not begun." if skipped > 0 else ""
        st.markdown(_ui.plain(f"{word}: {len(finished)} trials.{ended} {status.message or ''}".strip()))
        return
    total = status.total_rows or 1
    share = status.done_rows / total
    if study["design"]["hours"] is not None:
        spent = sum(trial["seconds"] or 0.0 for trial in finished) / 3600
        share = min(1.0, spent / study["design"]["hours"])
        left = f"{spent:.2f} of {study['design']['hours']:g} h spent"
    else:
        left = _kinds.progress_words("search", status.done_rows, status.total_rows)
        if status.eta_seconds is not None:
            left += f", about {_ui.duration(status.eta_seconds)} left"
    note = f" · {status.note}" if status.note and status.state == "running" else ""
    st.progress(min(1.0, share), text=_ui.plain(f"{_job.state_word(status)} · {left}{note}"))


def _buttons(service: Service, study_id: int, status: JobStatus | None) -> None:
    for message in st.session_state.pop(_SAID, ()):
        st.warning(_ui.plain(message), icon=":material/error:")
    if status is None:
        return
    if not status.ended and status.state != "cancelling":
        st.button(
            "Stop",
            icon=":material/stop_circle:",
            key=f"{_PAGE}-stop-{study_id}",
            on_click=_act,
            args=(service, "cancel", status.job_id),
            **_ui.allowed("administer", help="Finished trials are kept; the search can be resumed."),
        )
    elif status.state in RESUMABLE:
        st.button(
            "Resume",
            icon=":material/resume:",
            key=f"{_PAGE}-resume-{study_id}",
            on_click=_act,
            args=(service, "resume", status.job_id),
            **_ui.allowed(
                "administer", help="It goes on with the trial that it was at, exactly as if it had never stopped."
            ),
        )


def _act(service: Service, action: str, job_id: str) -> None:
    """A callback: what a button does; the scheduler checks again whether it fits the state."""
    try:
        getattr(service.scheduler, action)(job_id)
    except AssayError as error:
        st.session_state[_SAID] = [str(error)]


def _best(view: SelectView, study: Mapping[str, Any], finished: Sequence[Mapping[str, Any]]) -> None:
    best = charts.best_trial(finished)
    if best is None:
        st.caption("No trial has a loss yet: see the reasons in the table.")
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(
            f":material/star: Lowest evaluation loss **{best['loss_nats']:.4f}** nats with "
            f"**{best['n_rows']:,} rows** (trial {best['number']}).",
            width="stretch",
        )
        st.button(
            f"Use this size ({best['n_rows']:,} rows)",
            icon=":material/check:",
            key=f"{_PAGE}-use-{study['study_id']}-{best['n_rows']}",
            on_click=use_size,
            args=(best["n_rows"],),
            kwargs={"dataset_id": view.dataset_id},
            disabled=best["n_rows"] > len(view.ranking),
            help="Sets the selection above to the best rows of the ranking, as many as this trial had.",
        )
    largest = max(trial["n_rows"] or 0 for trial in finished)
    edge = ""
    if best["n_rows"] == study["design"]["highest"]:
        edge = "It is the highest size of the search: more rows may be better still. "
    elif best["n_rows"] == largest:
        edge = "It is the largest size tried so far: a search with more trials may go on to larger ones. "
    st.caption(
        f"{edge}One training a size: trials that differ by less than the chance of a training are alike. Show "
        "the choice to be better than random before you trust it."
    )


def _figure(study: Mapping[str, Any], finished: Sequence[Mapping[str, Any]]) -> None:
    design = study["design"]
    _ui.chart(
        charts.search_figure(finished, lowest=design["lowest"], highest=design["highest"]),
        key=f"{_PAGE}-figure-{study['study_id']}",
        data=[
            {"trial": t["number"], "rows": t["n_rows"], "evaluation loss": t["loss_nats"], "outcome": t["outcome"],
             "reason": t["reason"], "seconds": t["seconds"]}
            for t in finished
        ],
        name="size-search",
    )  # fmt: skip


def _table(study_id: int, finished: Sequence[Mapping[str, Any]]) -> None:
    any_reason = any(trial["reason"] for trial in finished)
    any_same = any(trial["same_as"] for trial in finished)
    st.dataframe(
        [
            {
                "trial": trial["number"],
                "rows": trial["n_rows"],
                "evaluation loss": trial["loss_nats"],
                "state": OUTCOMES.get(trial["outcome"], trial["outcome"]),
                "seconds": trial["seconds"],
                **({"same size as trial": trial["same_as"]} if any_same else {}),
                **({"reason": trial["reason"]} if any_reason else {}),
            }
            for trial in finished
        ],
        hide_index=True,
        placeholder="—",
        height=min(38 + 35 * len(finished), 330),
        column_config={
            "evaluation loss": st.column_config.NumberColumn(format="%.5f"),
            "seconds": st.column_config.NumberColumn(format="%.0f"),
            "reason": st.column_config.TextColumn(width="large"),
        },
        key=f"{_PAGE}-trials-{study_id}",
    )
