"""A comparison is made here and sent to a judge: which answers, which judge, what it may cost, how far it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from core.errors import AssayError
from core.judge_options import MOST_ATTEMPTS
from core.teachers import AnyTeacher
from db import answers, judging
from db.judging import JudgePlan
from db.service import Service
from pages import _compare_jobs, _compare_view, _teacher, _ui

NEW = 0
_CHOSEN = "compare-judge-comparison"
ASKED = "compare_judge_asked"
MODEL, PEOPLE = "model", "people"


def show(service: Service) -> None:
    """The form, and the judge jobs of what is chosen."""
    comparisons = judging.comparisons(service.store)
    by_id = {int(row["comparison_id"]): row for row in comparisons}
    if ASKED in st.session_state:  # made a moment ago
        st.session_state[_CHOSEN] = st.session_state.pop(ASKED)
    wanted = st.query_params.get("judge", "")
    if _CHOSEN not in st.session_state and wanted.isdecimal() and int(wanted) in by_id:
        st.session_state[_CHOSEN] = int(wanted)
    if st.session_state.get(_CHOSEN) not in (NEW, *by_id):
        st.session_state.pop(_CHOSEN, None)
    chosen = st.selectbox(
        "Comparison",
        [NEW, *by_id],
        format_func=lambda i: "A new comparison …" if i == NEW else f"{by_id[i]['name']}",
        key=_CHOSEN,
        width=620,
    )
    if not chosen:
        _new(service)
        return
    _judge(service, by_id[int(chosen)])


# --- a new comparison ---


def _new(service: Service) -> None:
    """Two answer sets of one test set, and a name."""
    by_set: dict[int, list[dict[str, Any]]] = {}
    for one in answers.answer_sets(service.store):
        if one["dataset"] is not None:
            by_set.setdefault(int(one["dataset_id"]), []).append(one)
    ready = {dataset_id: found for dataset_id, found in by_set.items() if len(found) > 1}
    if not ready:
        lacking = (
            "**No test set has two answer sets yet.** A comparison needs the answers of two models, or of two "
            "datasets, to the same questions."
        )
        _ui.empty(lacking, page="answers.py", label="Make or import answers", icon=":material/question_answer:")
        return
    names = {dataset_id: f"{found[0]['dataset']} ({len(found)} answer sets)" for dataset_id, found in ready.items()}
    with st.container(border=True):
        columns = st.columns(3)
        dataset_id = columns[0].selectbox("Test set", list(ready), format_func=names.__getitem__, key="compare-new-set")
        found = {int(one["answer_set_id"]): one for one in ready[int(dataset_id)]}
        labels = {i: f"{one['name']} ({one['n_answers']:,} answers)" for i, one in found.items()}
        ids = list(found)
        first = columns[1].selectbox(
            "First answers", ids, index=0, format_func=labels.__getitem__, key=f"compare-new-first-{dataset_id}"
        )
        others = [i for i in ids if i != first]
        second = columns[2].selectbox(
            "Second answers (often the baseline)", others, format_func=labels.__getitem__,
            key=f"compare-new-second-{dataset_id}-{first}",
        )  # fmt: skip
        test_set = found[first]["dataset"]
        both = [str(found[i]["name"]).removesuffix(f" on {test_set}") for i in (first, second)]
        usual = f"{' against '.join(both)} on {test_set}"
        left, right = st.columns([5, 1], vertical_alignment="bottom")
        name = left.text_input("Name", value=usual, key=f"compare-new-name-{first}-{second}", max_chars=200)
        pressed = right.button(
            "Set up", type="primary", icon=":material/add:", key="compare-new-go", **_ui.allowed("administer")
        )
        st.caption("Win and lose are said of the first. Nothing is asked yet: the judge is chosen next, with its cost.")
        _overlap(found[first], found[second])
    if pressed:
        try:
            made = judging.create_comparison(
                service.store, name=name, first_id=int(first), second_id=int(second), created_by=_ui.reviewer() or None
            )
        except AssayError as error:
            st.error(_ui.plain(str(error)), icon=":material/error:")
            return
        st.session_state[ASKED] = made
        st.rerun()


def _overlap(first: Mapping[str, Any], second: Mapping[str, Any]) -> None:
    """A word where an answer set is not whole."""
    short = [one for one in (first, second) if one["n_answers"] < one["n_items"]]
    for one in short:
        st.caption(
            f":material/warning: {_ui.plain(str(one['name']))} answers {one['n_answers']:,} of {one['n_items']:,} "
            "questions; the others cannot be judged."
        )


# --- the judge ---


def _judge(service: Service, comparison: Mapping[str, Any]) -> None:
    comparison_id = int(comparison["comparison_id"])
    st.query_params["judge"] = str(comparison_id)
    with st.container(horizontal=True, vertical_alignment="center"):
        lacking = comparison["n_without_answer"]
        st.markdown(
            f"**{_ui.plain(_compare_view.name_of(comparison, 'first'))}** against "
            f"**{_ui.plain(_compare_view.name_of(comparison, 'second'))}** · {comparison['n_items']:,} questions with "
            "both answers" + (f" · {lacking:,} lack an answer" if lacking else ""),
            width="stretch",
        )
        _compare_view.open_button(comparison_id, key="judge", label="See its results")
    kind = st.segmented_control(
        "Who judges",
        [MODEL, PEOPLE],
        default=MODEL,
        format_func={MODEL: "A model judges", PEOPLE: "People judge"}.__getitem__,
        required=True,
        key=f"compare-judge-kind-{comparison_id}",
        label_visibility="collapsed",
    )
    if kind == PEOPLE:
        _people(comparison_id)
    else:
        _model(service, comparison)
    _compare_jobs.watch(service, comparison)


def _people(comparison_id: int) -> None:
    with st.container(border=True):
        st.markdown(
            "People see one question at a time with both answers, without names and in random order, and say by a key "
            "which is better. Several people can judge the same comparison; their agreement is shown with it."
        )
        st.page_link(
            "judge.py", label="Judge it blind", icon=":material/visibility_off:",
            query_params={"comparison": str(comparison_id)},
        )  # fmt: skip


def _model(service: Service, comparison: Mapping[str, Any]) -> None:
    comparison_id = int(comparison["comparison_id"])
    left, right = st.columns([3, 2], gap="large")
    with left:
        st.markdown("**The judge**")
        try:
            teacher, missing = _teacher.teacher_form("judge", structured=False, temperature=0.0, max_tokens=1024)
        except AssayError as error:
            st.error(_ui.plain(str(error)), icon=":material/error:")
            return
        attempts = int(
            st.number_input(
                "Ask at most this often for a readable verdict", 1, MOST_ATTEMPTS, 2, key="judge-attempts",
                help="A reply that cannot be read for certain is asked for again; it never counts as a tie.",
            )
        )  # fmt: skip
    with right:
        st.markdown("**What it takes**")
        try:
            plan = judging.plan_judge(service.store, comparison_id=comparison_id, teacher=teacher)
        except AssayError as error:
            st.error(_ui.plain(str(error)), icon=":material/error:")
            return
        _estimate(plan)
        _submit(service, comparison, teacher, attempts, plan, missing)


def _estimate(plan: JudgePlan) -> None:
    found = plan.estimate
    facts = (
        ("Questions", _ui.number(plan.n_items), "Each is asked about in both orders."),
        ("Calls", _ui.number(found.calls), "Repeated questions for unreadable replies come on top."),
        ("Prompt tokens", _ui.number(found.prompt_tokens), "Estimated at four bytes a token."),
        ("Answer tokens", _ui.number(found.completion_tokens), "Estimated: two scores and a paragraph a call."),
    )
    for pair in (facts[:2], facts[2:]):
        for column, (label, value, what) in zip(st.columns(2), pair, strict=True):
            column.metric(label, value, help=what, border=True)
    if found.cost_usd is not None:
        st.metric("Cost", f"${found.cost_usd:,.2f}", border=True, help="By the prices given, without repeated calls.")
    else:
        st.caption("Give both prices to see the cost.")
    if plan.n_done:
        st.caption(
            f"{plan.n_done:,} questions have this judge's verdict in both orders already and are not asked again."
        )
    if plan.n_without_answer:
        st.caption(f"{plan.n_without_answer:,} questions lack an answer and are not asked about.")


def _submit(
    service: Service, comparison: Mapping[str, Any], teacher: AnyTeacher, attempts: int, plan: JudgePlan,
    missing: str | None,
) -> None:  # fmt: skip
    again = plan.n_done > 0 and plan.n_items > 0
    if missing:
        st.caption(_ui.plain(missing))
    if not plan.n_items and not missing:
        st.info(
            "This judge has judged every question in both orders. Choose another judge.", icon=":material/done_all:"
        )
    pressed = st.button(
        "Ask for the missing verdicts" if again else "Start judging",
        type="primary",
        icon=":material/gavel:",
        key=f"judge-go-{comparison['comparison_id']}",
        **_ui.allowed("administer", disabled=missing is not None or not plan.n_items),
    )
    if pressed:
        try:
            folder = judging.submit_judge(
                service.store, service.settings.jobs_path, comparison_id=int(comparison["comparison_id"]),
                teacher=teacher, attempts=attempts, created_by=_ui.reviewer() or None,
            )  # fmt: skip
        except AssayError as error:
            st.error(_ui.plain(str(error)), icon=":material/error:")
            return
        st.session_state.setdefault(_compare_jobs.SUBMITTED, []).append(service.enqueue(folder))
        st.rerun()
