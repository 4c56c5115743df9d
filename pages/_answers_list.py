"""The answer sets of a test set: coverage, lengths, the jobs at work; and the one that is open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from core.errors import AssayError
from core.jobs.status import JobStatus
from db import answer_reading, answers
from db.service import Service
from db.store import Store
from pages import _answers_read, _answers_view, _choose, _job, _pick, _ui
from pages._answers_view import SETS, TestSet

REFRESH_SECONDS = 2


def show(service: Service, test_set: TestSet) -> None:
    """The table, and below it the answer set that is open."""
    found = answers.answer_sets(service.store, dataset_id=test_set.dataset_id)
    if not found:
        _first_steps(test_set)
        return
    active = any(_is_active(service, one) for one in found)
    by_id = {int(one["answer_set_id"]): one for one in found}
    opened = [i for i in _choose.numbers(SETS) if i in by_id][:2]
    waiting = opened[0] if opened and not _n_rows(by_id[opened[0]]) else None
    st.fragment(_table, run_every=REFRESH_SECONDS if active else None)(service, test_set, live=active, waiting=waiting)
    if opened:
        _one(service, test_set, by_id, opened)


def _first_steps(test_set: TestSet) -> None:
    with st.container(border=True):
        st.markdown(
            f"Nobody has answered **{_ui.plain(test_set.name)}** yet. Let a model answer its {test_set.n_items:,} "
            "questions, take the outputs of a dataset as answers, or import a file of answers."
        )
        with st.container(horizontal=True):
            for panel, label, icon in (
                ("generate", "Generate answers", ":material/play_arrow:"),
                ("dataset", "Take a dataset's outputs", ":material/dataset:"),
                ("import", "Import a file", ":material/upload_file:"),
            ):
                st.button(
                    label, icon=icon, key=f"answers-first-{panel}-{test_set.dataset_id}",
                    type="primary" if panel == "generate" else "secondary", on_click=_answers_view.go, args=(panel,),
                )  # fmt: skip


# --- the table ---


def _status(service: Service, one: Mapping[str, Any]) -> JobStatus | None:
    return service.scheduler.statuses().get(str(one["job_id"])) if one["job_id"] else None


@st.cache_data(max_entries=512, show_spinner=False)
def _mean_words(_store: Store, path: str, answer_set_id: int, n_answers: int) -> float | None:
    """Read again only when answers came: it looks into every text."""
    return answers.mean_words(_store, answer_set_id)


def _is_active(service: Service, one: Mapping[str, Any]) -> bool:
    status = _status(service, one)
    return status is not None and not status.ended


def _open(ids: Sequence[int], widget: str, opened: int | None) -> None:
    chosen = _pick.picked(ids, widget, opened)
    if chosen is None:
        st.query_params.pop(SETS, None)
    else:
        st.query_params[SETS] = str(chosen)


def _n_rows(one: Mapping[str, Any]) -> int:
    return int(one["n_answers"]) + int(one["n_null"])


def _table(service: Service, test_set: TestSet, *, live: bool, waiting: int | None) -> None:
    """All answer sets. The rest of the page is drawn anew when the last job has ended, and when the first answers of
    the set ``waiting`` have come."""
    found = answers.answer_sets(service.store, dataset_id=test_set.dataset_id)
    statuses = [_status(service, one) for one in found]
    path = str(service.store.path)
    ended = not any(status is not None and not status.ended for status in statuses)
    if live and (ended or any(one["answer_set_id"] == waiting and _n_rows(one) for one in found)):
        st.rerun()
    ids = tuple(int(one["answer_set_id"]) for one in found)
    opened = next((i for i in _choose.numbers(SETS) if i in ids), None)
    widget = _pick.widget_key("answers-sets", ids, opened)
    st.dataframe(
        pd.DataFrame(
            {
                "answer set": [one["name"] for one in found],
                "made by": [_answers_view.made_by(one) for one in found],
                "coverage": [100 * one["n_answers"] / one["n_items"] if one["n_items"] else None for one in found],
                "answers": [one["n_answers"] for one in found],
                "none": pd.array([one["n_null"] or None for one in found], dtype="Int64"),
                "words": [_mean_words(service.store, path, one["answer_set_id"], one["n_answers"]) for one in found],
                "cut": pd.array([one["n_cut"] or None for one in found], dtype="Int64"),
                "job": [
                    _job.state_word(status) if status is not None else "– folder gone" if one["job_id"] else None
                    for one, status in zip(found, statuses, strict=True)
                ],
                "from": [_answers_view.ORIGIN_WORDS.get(one["origin"], one["origin"]) for one in found],
                "compared in": [", ".join(one["comparisons"]) or None for one in found],
                "made": [one["created_at"] for one in found],
                "by": [one["created_by"] for one in found],
            }
        ),
        hide_index=True,
        height="content" if len(found) <= 8 else 320,
        placeholder="—",
        key=widget,
        on_select=lambda: _open(ids, widget, opened),
        **_pick.options(ids, opened),
        column_config={
            "answer set": st.column_config.TextColumn(width=270),
            "made by": st.column_config.TextColumn(width=180),
            "from": st.column_config.TextColumn(width=125),
            "compared in": st.column_config.TextColumn(width=150),
            "coverage": st.column_config.ProgressColumn(
                "of the test set", format="%.0f%%", min_value=0, max_value=100, width=110
            ),
            "answers": st.column_config.NumberColumn(format="localized", width=70),
            "none": st.column_config.NumberColumn(
                "no answer", width=80, help="Asked, but there is none; the reason stands beside the question."
            ),
            "words": st.column_config.NumberColumn("mean words", format="%.1f", width=88),
            "cut": st.column_config.NumberColumn("cut off", width=70, help="Ended by the most tokens allowed."),
            "made": st.column_config.DatetimeColumn(format="distance", width=110),
        },
    )
    _at_work(found, statuses, opened)
    st.caption("Click an answer set to read it, alone or beside another one.")


def _at_work(found: Sequence[Mapping[str, Any]], statuses: Sequence[JobStatus | None], opened: int | None) -> None:
    """A line of progress for every job that has not ended."""
    for one, status in zip(found, statuses, strict=True):
        if status is None or status.ended:
            continue
        share = status.done_rows / status.total_rows if status.total_rows else 0.0
        parts = [str(one["name"]), _job.state_word(status), f"{status.done_rows:,} of {status.total_rows:,} questions"]
        if status.eta_seconds is not None:
            parts.append(f"about {_ui.duration(status.eta_seconds)} left")
        if status.note:
            parts.append(status.note)
        st.progress(min(share, 1.0), text=" · ".join(map(_ui.plain, parts)))
        if one["answer_set_id"] != opened:  # the open one has the link beside its name
            st.page_link("jobs.py", label="Its job", icon=":material/pending_actions:",
                         query_params={"job": status.job_id})  # fmt: skip


# --- the open one ---


def _one(service: Service, test_set: TestSet, by_id: Mapping[int, Mapping[str, Any]], opened: Sequence[int]) -> None:
    first = by_id[opened[0]]
    number = int(opened[0])
    with st.container(border=True, key=f"answers-set-{number}"):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**{_ui.plain(str(first['name']))}**", width="stretch")
            if len(by_id) > 1:
                st.page_link("compare.py", label="Have it judged", icon=":material/balance:",
                             query_params={"tab": "judge"})  # fmt: skip
            if first["job_id"]:
                st.page_link("jobs.py", label="Its job", icon=":material/pending_actions:",
                             query_params={"job": str(first["job_id"])})  # fmt: skip
            if first["n_answers"]:
                _download(service, first)
            _missing(service, first)
            with st.popover("Settings", icon=":material/tune:", key=f"answers-settings-{number}", type="tertiary"):
                st.json({key: value for key, value in first["settings"].items() if key != "item_ids"})
            _remove(service, first)
        st.caption(_ui.plain(_facts(first, test_set)))
        _file_remainder(first)
        if not _n_rows(first):
            st.caption("No answer has come yet." if first["job_id"] else "It has no answers.")
            return
        _answers_read.show(service, by_id, opened)


def _facts(one: Mapping[str, Any], test_set: TestSet) -> str:
    settings = one["settings"]
    if one["origin"] == "generated":
        generator, decoding = settings.get("generator") or {}, settings.get("decoding") or {}
        parts = [
            _answers_view.model_words(settings),
            f"template {generator.get('template')}",
            _answers_view.decoding_words(decoding),
            f"precision {generator.get('dtype')} on {generator.get('device')}",
        ]
        if one["n_asked"] < test_set.n_items:
            parts.append(f"{one['n_asked']:,} of {test_set.n_items:,} questions asked")
        return " · ".join(parts)
    if one["origin"] == "dataset":
        further = int(settings.get("n_further_outputs") or 0)
        words = f"The outputs of {settings.get('source')}; {settings.get('n_matched', 0):,} questions stand in it."
        return words + (f" {further:,} further outputs of the same questions are left out." if further else "")
    if one["origin"] == "imported":
        held = f"{settings['n_rows']:,} answers in it, for " if "n_rows" in settings else "answers to "  # a judge log
        return (
            f"From {settings.get('source') or 'a file'}: {held}{settings.get('n_matched', 0):,} of "
            f"{settings.get('n_items', 0):,} questions."
        )
    return _answers_view.ORIGIN_WORDS.get(one["origin"], str(one["origin"]))


def _file_remainder(one: Mapping[str, Any]) -> None:
    """What of a file belonged to no question: remembered with the set, so that it is not forgotten."""
    settings = one["settings"]
    if one["origin"] != "imported" or not settings.get("n_unmatched"):
        return
    with st.expander(f"{settings['n_unmatched']:,} answers of the file belong to no question"):
        st.dataframe(
            pd.DataFrame(settings.get("unmatched") or []), hide_index=True,
            key=f"answers-unmatched-{one['answer_set_id']}",
            column_config={"line": st.column_config.NumberColumn(width="small")},
        )  # fmt: skip


def _download(service: Service, one: Mapping[str, Any]) -> None:
    number, name = int(one["answer_set_id"]), str(one["name"])
    st.download_button(
        "JSON Lines", icon=":material/download:", type="tertiary", key=f"answers-file-{number}",
        data=lambda: "".join(answer_reading.as_json_lines(service.store, number, name=name)),
        file_name=f"answers-{number}.jsonl", mime="application/jsonl", on_click="ignore",
        help="instruction, input, output and generator: can be imported again, and AlpacaEval reads it.",
    )  # fmt: skip


def _missing(service: Service, one: Mapping[str, Any]) -> None:
    n = int(one["n_asked"]) - int(one["n_answers"])
    if one["origin"] != "generated" or n <= 0 or _is_active(service, one):
        return
    status = _status(service, one)
    if status is not None and status.state not in ("done",):
        return  # a job that was interrupted is resumed, on the Jobs page
    pressed = st.button(
        f"Ask {n:,} again",
        icon=":material/replay:",
        key=f"answers-again-{one['answer_set_id']}",
        type="tertiary",
        **_ui.allowed("administer", help="Questions without an answer, with the same settings. What is there stays."),
    )
    if not pressed:
        return
    try:
        folder = answers.submit_missing(
            service.store, service.settings.jobs_path, int(one["answer_set_id"]), created_by=_ui.reviewer() or None
        )
    except AssayError as error:
        st.error(_ui.plain(str(error)))
        return
    service.enqueue(folder)
    st.rerun()


def _remove(service: Service, one: Mapping[str, Any]) -> None:
    number = int(one["answer_set_id"])
    with st.popover("Remove", icon=":material/delete:", key=f"answers-remove-{number}", type="tertiary"):
        if one["comparisons"]:
            st.markdown(f"The comparison {_ui.plain(one['comparisons'][0])} judges it. Remove that first.")
            return
        if _is_active(service, one):
            st.markdown("A job is filling it. Cancel that on the Jobs page first.")
            return
        st.markdown(f"Remove {_ui.plain(str(one['name']))} with its {one['n_answers']:,} answers?")
        if st.button("Remove it", key=f"answers-remove-sure-{number}", type="primary", **_ui.allowed("administer")):
            try:
                answers.remove_answer_set(service.store, number)
            except AssayError as error:
                st.error(_ui.plain(str(error)))
                return
            st.query_params.pop(SETS, None)
            _answers_view.say(f"{one['name']} was removed.")
            st.rerun()
