"""Reflect: choose rows, a teacher and a method; see the cost first; run it as a job; see what failed and why."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import streamlit as st

from core import demo
from core.errors import AssayError, SettingsError
from core.filters import RowFilter
from core.reflecting import ReflectOptions
from core.reflection import PROMPT_BYTES, STAGES
from core.reflection_prompts import PROMPT_VERSIONS
from core.teacher import RECORDED, TeacherSettings, estimate_totals
from db import jobs, queries, review
from db.service import Service
from pages import _student, _ui

WAYS = {
    "dataset": "A whole dataset",
    "score": "The lowest or highest by a score",
    "filter": "A filter from Explore",
}
METHOD_TEXT = {
    "v2": "**V2, selective.** The student keeps the new instruction if its IFD is higher, then the new response if its "
    "r-IFD is lower; ties keep the original.",
    "v1": "**V1, unselected.** Instruction and response are both rewritten and both proposed; scores are shown, "
    "nothing is selected.",
}


def _choose_rows(service: Service) -> tuple[int, list[int], str]:
    """The dataset, the chosen example ids and a title for them."""
    asked = ("ranges", "text", "datasets", "missing", "category", "rows")
    has_filter = any(name in st.query_params for name in asked)
    way = st.segmented_control(
        "Rows",
        list(WAYS),
        default="filter" if has_filter else "dataset",
        format_func=WAYS.__getitem__,
        required=True,
        key="reflect-way",
    )
    if way == "filter":
        return _rows_of_filter(service)
    dataset_id = _ui.pick_dataset(key="reflect-dataset")
    names = _ui.dataset_names(queries.datasets(service.store))
    if way == "dataset":
        ids = queries.matching_ids(service.store, RowFilter(datasets=(dataset_id,)))
        limit = st.number_input(
            "At most this many rows (0: all), from the top",
            min_value=0,
            value=0,
            step=50,
            key=f"reflect-limit-{dataset_id}",
        )
        return dataset_id, ids[: int(limit) or None], names[dataset_id]
    return _rows_by_score(service, dataset_id, names[dataset_id])


def _rows_by_score(service: Service, dataset_id: int, name: str) -> tuple[int, list[int], str]:
    scorers = [s for s in queries.scorers(service.store, dataset_ids=[dataset_id]) if s["n_values"]]
    if not scorers:
        _ui.empty("This dataset has no scores yet.", page="score.py", label="Score it")
        return dataset_id, [], name
    by_id = {s["scorer_id"]: s for s in scorers}
    left, right = st.columns([3, 1], vertical_alignment="bottom")
    usual = next((i for i, s in enumerate(scorers) if s["output"] == "ifd"), 0)
    with left:
        scorer = st.selectbox(
            "Score",
            list(by_id),
            index=usual,
            format_func=lambda i: _ui.scorer_label(by_id[i]),
            key=f"reflect-scorer-{dataset_id}",
        )
    with left:
        side = st.segmented_control(
            "Take the", ["lowest", "highest"], default="lowest", required=True, key="reflect-side"
        )
    with right:
        n_rows = st.number_input("Rows", min_value=1, value=100, step=50, key="reflect-n")
    chosen = RowFilter(datasets=(dataset_id,), sort=scorer, descending=side == "highest").with_range(
        scorer, float("-inf"), None
    )
    ids = queries.matching_ids(service.store, chosen, limit=int(n_rows))
    return dataset_id, ids, f"{side} {len(ids):,} by {by_id[scorer]['output']} of {name}"


def _rows_of_filter(service: Service) -> tuple[int, list[int], str]:
    try:
        filters = RowFilter.from_params(st.query_params.to_dict())
    except SettingsError as error:
        st.warning(_ui.plain(str(error)))
        filters = RowFilter()
    if not filters.is_narrowed:
        _ui.empty(
            "Set a filter on the Explore page, then choose “Reflect on these rows” there.",
            page="explore.py",
            label="Open Explore",
        )
    if len(filters.datasets) == 1 and filters.datasets[0] in _ui.dataset_names(queries.datasets(service.store)):
        dataset_id = filters.datasets[0]
    else:
        st.caption("A filter over several datasets: pairs belong to one dataset, so choose it here.")
        dataset_id = _ui.pick_dataset(key="reflect-dataset")
    ids = queries.matching_ids(service.store, replace(filters, datasets=(dataset_id,)))
    return dataset_id, ids, "filtered rows"


def _choose_teacher(service: Service, ids: list[int]) -> tuple[TeacherSettings | None, list[int], str | None]:
    """The endpoint's settings (None: the recorded teacher), the rows it can be asked about, and what is missing."""
    recorded = _recorded_among(service, ids)
    kind = st.segmented_control(
        "Teacher",
        [RECORDED, "endpoint"],
        default=RECORDED if recorded else "endpoint",
        format_func={RECORDED: "Recorded answers (sample only)", "endpoint": "OpenAI-compatible endpoint"}.__getitem__,
        required=True,
        label_visibility="collapsed",
        key=f"reflect-teacher-{bool(recorded)}",
    )
    if kind == RECORDED:
        st.caption(
            f"Recorded: answers written once for the bundled sample are played back. {len(recorded):,} of the "
            f"{len(ids):,} chosen rows have one; only these are asked about."
        )
        return None, recorded, None if recorded else "None of these rows has a recorded answer; choose an endpoint."
    left, right = st.columns([3, 2])
    with left:
        base_url = st.text_input(
            "Base URL", value=os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1"), key="reflect-url"
        )
    with right:
        model = st.text_input("Model", placeholder="name at the endpoint", key="reflect-model").strip()
    key_env = st.text_input(
        "Environment variable with the key",
        value="OPENAI_API_KEY",
        key="reflect-key-env",
        help="The name, never the key. Set it before the server starts. Leave empty for a local server without a key.",
    ).strip()
    limits = _limits()
    settings = TeacherSettings(base_url=base_url.strip(), model=model or "unnamed", api_key_env=key_env, **limits)
    missing = [] if model else ["Give the name of the teacher's model."]
    if key_env and not os.environ.get(key_env):
        missing.append(f"{key_env} is not set where this server runs. Set it and start the server again.")
    return settings, ids, " ".join(missing) or None


def _limits() -> dict[str, Any]:
    with st.expander("Limits and prices"):
        columns = st.columns(3)
        return {
            "concurrency": int(columns[0].number_input("Questions at once", 1, 256, 8, key="reflect-concurrency")),
            "max_tokens": int(
                columns[1].number_input("Most tokens an answer", 64, 32768, 2048, step=256, key="reflect-max")
            ),
            "temperature": columns[2].number_input("Temperature", 0.0, 2.0, 0.7, step=0.1, key="reflect-temperature"),
            "timeout_seconds": float(columns[0].number_input("Timeout (seconds)", 1, 3600, 120, key="reflect-timeout")),
            "price_in": columns[1].number_input(
                "USD per million prompt tokens", 0.0, value=None, placeholder="unknown", key="reflect-price-in"
            ),
            "price_out": columns[2].number_input(
                "USD per million answer tokens", 0.0, value=None, placeholder="unknown", key="reflect-price-out"
            ),
        }


def _recorded_among(service: Service, ids: list[int]) -> list[int]:
    known = [digest for stage, digest in demo.recordings() if stage == STAGES[0]]
    found = queries.ids_of_hashes(service.store, known)
    return [example_id for example_id in ids if example_id in found]


def _show_estimate(service: Service, ids: list[int], teacher: TeacherSettings | None) -> None:
    totals = queries.text_bytes(service.store, ids)
    expected = estimate_totals(
        totals["n"],
        instruction_bytes=totals["instruction_bytes"],
        output_bytes=totals["output_bytes"],
        stages=STAGES,
        prompt_bytes=PROMPT_BYTES,
        settings=teacher,
    )
    cells = (
        ("Rows", _ui.number(len(ids))),
        ("Teacher calls", _ui.number(expected.calls)),
        ("Prompt tokens", _ui.number(expected.prompt_tokens)),
        ("Answer tokens", _ui.number(expected.completion_tokens)),
        ("Cost", "—" if expected.cost_usd is None else f"${expected.cost_usd:,.2f}"),
    )
    for column, (label, value) in zip(st.columns(len(cells)), cells, strict=True):
        column.metric(label, value, border=True)
    if teacher is None:
        st.caption("Recorded answers cost nothing and their tokens were not counted.")
    elif expected.cost_usd is None:
        st.caption("Tokens are estimated at four bytes each. Give both prices above to see the cost.")
    else:
        st.caption(
            "An estimate: four bytes a token, answers about as long as the texts they rewrite. Retries come on top."
        )


def _new_job(service: Service) -> None:
    rows_side, teacher_side = st.columns(2, gap="large")
    with rows_side, st.container(border=True):
        st.subheader("Rows", anchor=False)
        dataset_id, ids, title = _choose_rows(service)
        st.caption(f"{len(ids):,} rows chosen.")
        st.subheader("Student", anchor=False)
        student = _student.student_form("reflect-student")
    try:
        with teacher_side, st.container(border=True):
            st.subheader("Teacher", anchor=False)
            teacher, ids, missing = _choose_teacher(service, ids)
            if missing:
                st.caption(f":material/info: {_ui.plain(missing)}")
            st.subheader("Method", anchor=False)
            method = st.radio(
                "Method",
                ["v2", "v1"],
                format_func=METHOD_TEXT.__getitem__,
                label_visibility="collapsed",
                key="reflect-m",
            )
            use_filter = only_replaced = False
            if method == "v2":
                use_filter = st.checkbox("Leave out pairs whose IFD or r-IFD is not below 1", key="reflect-filter")
                only_replaced = st.checkbox("Leave out rows whose response was not replaced", key="reflect-replaced")
            st.caption("Prompts: " + ", ".join(_ui.plain(version) for version in PROMPT_VERSIONS.values()))
        _show_estimate(service, ids, teacher)
        run = st.button(
            f"Reflect on {len(ids):,} rows",
            type="primary",
            icon=":material/play_arrow:",
            disabled=not ids or missing is not None or student is None,
            key=f"reflect-run-{dataset_id}",
        )
        if run and student is not None:
            folder = jobs.submit_reflect(
                service.store,
                service.settings.jobs_path,
                dataset_id=dataset_id,
                example_ids=ids,
                options=ReflectOptions(method or "v2", teacher, student, use_filter, only_replaced),
                title=f"Reflect: {title}",
                created_by=_ui.reviewer() or None,
            )
            st.session_state["reflect-job"] = service.enqueue(folder)
            st.rerun()
    except AssayError as error:
        st.error(_ui.plain(str(error)))


@st.fragment(run_every=1)
def _watch(service: Service, job_id: str) -> None:
    """One reflection job, live: progress, what the teacher gave, what failed and why."""
    status = service.scheduler.statuses().get(job_id)
    if status is None:
        st.caption("The folder of this job was removed; its pairs are still there.")
        return
    share = status.done_rows / status.total_rows if status.total_rows else 0.0
    parts = [status.state, f"{status.done_rows:,} of {status.total_rows:,} rows"]
    if status.eta_seconds is not None:
        parts.append(f"about {_ui.duration(status.eta_seconds)} left")
    st.progress(min(share, 1.0), text=" · ".join(parts))
    if status.message:
        st.warning(_ui.plain(status.message))
    totals = jobs.teacher_totals(service.store, job_id)
    cells = (
        ("Calls", _ui.number(totals["n_calls"])),
        ("Readable answers", _ui.number(totals["n_parsed"])),
        ("Tokens in", _ui.number(totals["prompt_tokens"])),
        ("Tokens out", _ui.number(totals["completion_tokens"])),
        ("Cost", "—" if totals["cost_usd"] is None else f"${totals['cost_usd']:,.4f}"),
    )
    for column, (label, value) in zip(st.columns(len(cells)), cells, strict=True):
        column.metric(label, value)
    _failures(service, job_id, ended=status.ended)


def _failures(service: Service, job_id: str, *, ended: bool) -> None:
    reasons = jobs.failure_reasons(service.store, job_id)
    if not reasons:
        if ended:
            st.success("Every answer could be read.", icon=":material/check:")
        return
    st.markdown(f"**What failed, and why** — {sum(r['n'] for r in reasons):,} answers kept the original")
    st.dataframe(
        [{"rows": r["n"], "stage": r["stage"], "reason": r["reason"]} for r in reasons],
        hide_index=True,
        column_config={
            "rows": st.column_config.NumberColumn(width="small"),
            "reason": st.column_config.TextColumn(width="large"),
        },
        key=f"reasons-{job_id}",
    )
    rows = jobs.failures(service.store, job_id, limit=500)
    with st.expander(f"The rows concerned ({len(rows):,})"):
        st.dataframe(
            [
                {"row": r["example_id"], "stage": r["stage"], "reason": r["reason"], "instruction": r["instruction"]}
                for r in rows
            ],
            hide_index=True,
            key=f"failed-rows-{job_id}",
        )
    if (
        ended
        and any(r["transient"] for r in reasons)
        and st.button("Retry the failed rows", icon=":material/replay:", key=f"retry-{job_id}")
    ):
        try:
            folder = jobs.submit_retry(
                service.store, service.settings.jobs_path, job_id=job_id, created_by=_ui.reviewer() or None
            )
        except AssayError as error:
            st.error(_ui.plain(str(error)))
            return
        st.session_state["reflect-job"] = service.enqueue(folder)
        st.rerun()


def _runs(service: Service) -> None:
    found = [job for job in jobs.jobs(service.store) if job["kind"] == "reflect"]
    if not found:
        return
    st.divider()
    st.subheader("Runs", anchor=False)
    by_id: dict[str, dict[str, Any]] = {job["job_id"]: job for job in found}
    latest = st.session_state.get("reflect-job")
    ids = list(by_id)
    chosen = st.selectbox(
        "Run",
        ids,
        index=ids.index(latest) if latest in by_id else 0,
        format_func=lambda i: f"{by_id[i]['title']} · {by_id[i]['submitted_at']:%Y-%m-%d %H:%M} UTC",
        label_visibility="collapsed",
        key=f"reflect-run-of-{latest}-{len(ids)}",
    )
    _watch(service, chosen)
    n_pairs = review.progress(service.store)["n_pairs"]
    if n_pairs:
        st.page_link("review.py", label="Review the pairs", icon=":material/compare:")


def main() -> None:
    """Render the page."""
    service = _ui.current_service()
    _ui.header(
        "Reflect",
        "A teacher criticises and rewrites instructions and responses; the student proposes which rewrite to keep; "
        "people decide.",
    )
    _new_job(service)
    _runs(service)


main()
