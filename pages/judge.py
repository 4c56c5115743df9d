"""Judge blind: two answers to a question without names; a verdict is stored before the next question is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from core import sign_in
from core.errors import AssayError
from core.sign_in import PROVIDER
from db import judging
from db.service import Service
from pages import _compare_view, _sign_in, _ui, _who
from pages._judging import judging_component
from pages._judging.desk import Desk

DESK = "judging_desk"
COMPONENT = "judging_component"


def _choose(comparisons: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The comparison of the URL, else the newest."""
    by_id = {int(row["comparison_id"]): row for row in comparisons}
    ids = list(by_id)
    wanted = st.query_params.get("comparison", "")
    index = ids.index(int(wanted)) if wanted.isdecimal() and int(wanted) in by_id else 0
    chosen = st.selectbox(
        "Comparison",
        ids,
        index=index,
        format_func=lambda i: f"{by_id[i]['name']} ({by_id[i]['n_items']:,} questions)",
        key="judging-comparison",
        label_visibility="collapsed",
        width=330,
    )
    st.query_params["comparison"] = str(chosen)
    return by_id[int(chosen)]


def _take_press() -> None:
    """Carry out what the component sent, before the fragment draws again."""
    sent = st.session_state[COMPONENT].get("press")
    if sent:
        st.session_state[DESK].take(_ui.current_service().store, dict(sent))


@st.fragment
def _show_desk() -> None:
    """The question on screen. A press reruns this function only."""
    desk: Desk = st.session_state[DESK]
    service = _ui.current_service()
    try:
        payload = desk.payload(service.store)
    except AssayError as error:
        st.error(_ui.plain(str(error)))
        return
    judging_component(payload, key=COMPONENT, on_press=_take_press)
    if desk.finished:
        _reveal(service, desk)
    else:
        st.caption(
            "One verdict a question: which answer is better, or a tie. Scores from 1 to 10 are for model judges. Your "
            "own counts stay hidden until you have judged every question."
        )


def _reveal(service: Service, desk: Desk) -> None:
    """What this person found, with the names, and how far the other judges agree."""
    found = next(
        (one for one in judging.comparisons(service.store) if one["comparison_id"] == desk.comparison_id), None
    )
    if found is None:
        st.info("This comparison was removed.")
        return
    _compare_view.person_result(service, found, reviewer=desk.reviewer)
    st.page_link(
        "compare.py", label="See the whole comparison", icon=":material/balance:",
        query_params={"comparison": str(desk.comparison_id)},
    )  # fmt: skip


def _toolbar() -> None:
    if _who.source() == PROVIDER:
        st.caption(f"Judge: {_ui.plain(_ui.reviewer())}")
        return
    with st.popover(f"Judge: {_ui.plain(_ui.reviewer())}", icon=":material/person:", width="content"):
        typed = st.text_input("Your name", value=_ui.reviewer(), max_chars=60, key="judging-rename")
        name = sign_in.clean_name(typed)
        if name and name != _ui.reviewer():
            st.session_state[_ui.REVIEWER] = name
            st.rerun()


def main() -> None:
    """The page."""
    service = _ui.current_service()
    top = st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="bottom")
    with top.container(width="content"):
        _ui.header(
            "Judge blind", "Which answer is better? Names are hidden, sides are drawn by chance; ? lists the keys."
        )
    comparisons = judging.comparisons(service.store)
    if not comparisons:
        _ui.empty(
            "**There is nothing to judge yet.** A comparison sets two models' answers on a test set against each "
            "other; make one, or import a judge log, and judge it here without seeing the names.",
            page="compare.py", label="Make a comparison", icon=":material/balance:",
        )  # fmt: skip
        return
    if not _ui.reviewer():
        _sign_in.ask_name("judging")
    with top, st.container(horizontal=True, horizontal_alignment="right", vertical_alignment="center", width="content"):
        chosen = _choose(comparisons)
        _toolbar()
    why_not = _ui.why_not("review")
    if why_not is not None:
        st.info(_ui.plain(why_not), icon=":material/lock:")
        st.page_link("compare.py", label="See the comparisons", icon=":material/balance:")
        return
    desk: Desk | None = st.session_state.get(DESK)
    comparison_id, reviewer = int(chosen["comparison_id"]), _ui.reviewer()
    if desk is None or (desk.comparison_id, desk.reviewer) != (comparison_id, reviewer):
        st.session_state[DESK] = desk = Desk.open(service.store, comparison_id=comparison_id, reviewer=reviewer)
    if not desk.queue.pair_ids and not desk.answer and not desk.finished:
        st.info("No question of this comparison has both answers yet.")
    _show_desk()


main()
