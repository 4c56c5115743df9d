"""Decide all pairs of a filter at once: a dry run with samples, a confirmation, one undo; and what was done so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from core.errors import AssayError
from core.filters import PairFilter
from db import bulk, review
from db.bulk import BulkPlan
from pages import _pair_filter, _pairs_view, _sign_in, _ui
from pages._pairs_view import PairView

PLAN, SAMPLE, SAID = "pairs_bulk_plan", "pairs_bulk_sample", "pairs_bulk_said"
WORDS = {"accept": "Accept", "reject": "Reject"}
DONE = {"accept": "accepted", "reject": "rejected"}
LONGEST_NOTE = 500
SAMPLE_HEIGHT = 230


def show(view: PairView) -> None:
    """The tab."""
    top, below = st.container(), st.container()
    with below:
        _actions(view)
    with top:
        said = st.session_state.pop(SAID, None)
        if said:
            st.success(_ui.plain(said), icon=":material/done_all:")
        _form(view)


def _pairs(n: int) -> str:
    return f"{n:,} pair{'s' if n != 1 else ''}"


def _decisions(n: int) -> str:
    return f"{n:,} decision{'s' if n != 1 else ''}"


# --- the dry run ---


def _form(view: PairView) -> None:
    st.caption(
        "Every pair behind the filter above gets the same decision, in one step that can be undone once. "
        "Look first: nothing is stored by a dry run."
    )
    refusal = _ui.why_not("administer")
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        verdict = st.segmented_control(
            "Decision", list(WORDS), format_func=WORDS.__getitem__, default="accept", required=True,
            key="pairs-bulk-verdict",
        )  # fmt: skip
        redo = st.checkbox("also those that are decided", key="pairs-bulk-redo")
        held = st.checkbox("also flagged and disputed ones", key="pairs-bulk-held")
        pressed = st.button(
            "Dry run", icon=":material/science:", type="primary", key="pairs-bulk-dry", disabled=refusal is not None,
            help=refusal,
        )  # fmt: skip
    if refusal is not None:
        st.caption(refusal)
        return
    if redo and view.filters.state == "undecided" and not view.meaning:
        st.caption("The filter shows undecided pairs only: choose the state “all” to reach decided ones.")
    asked = (view.filters, view.meaning, verdict, redo, held)
    if pressed:
        _plan(view, asked)
    kept = st.session_state.get(PLAN)
    if kept is None:
        return
    if kept["of"] != asked:
        st.info("The filter or the decision was changed: press Dry run again.", icon=":material/sync_problem:")
        return
    _dry_run(view, kept["plan"])


def _plan(view: PairView, asked: tuple[Any, ...]) -> None:
    _, meaning, verdict, redo, held = asked
    try:
        pairs: PairFilter | Sequence[int] = list(_pairs_view.found_by_meaning(view)) if meaning else view.filters
        found = bulk.plan(view.store, pairs, verdict, redo_decided=redo, with_flagged=held)
    except AssayError as error:
        st.error(_ui.plain(str(error)))
        return
    st.session_state[PLAN], st.session_state[SAMPLE] = {"of": asked, "plan": found}, (0, found.sample_ids)


def _dry_run(view: PairView, plan: BulkPlan) -> None:
    top = st.container(border=True)
    top.markdown(_sentence(plan))
    if not plan.n:
        return
    with top:
        left, right = st.columns([2, 3])
    left.dataframe(
        pd.DataFrame([{"dataset": name, "pairs": n} for _, name, n in plan.by_dataset]), hide_index=True,
        height="content" if len(plan.by_dataset) <= 6 else 260,
    )  # fmt: skip
    _samples(view, plan)
    with right:  # last: asking for a name ends the run
        _confirm(view, plan)


def _sentence(plan: BulkPlan) -> str:
    """What would happen, in one line of Markdown."""
    asked = dict(plan.by_state)
    head = f"Would **{plan.verdict} {_pairs(plan.n)}**"
    parts = []
    if not plan.redo_decided and asked.get("decided"):
        parts.append(f"{asked['decided']:,} decided")
    if not plan.with_flagged:
        parts += [f"{asked[name]:,} {name}" for name in ("flagged", "disputed") if asked.get(name)]
    if parts:
        head += f", leave {', '.join(parts)} alone"
    redone = asked.get("decided", 0) if plan.redo_decided else 0
    return head + (f"; {redone:,} of them {'are' if redone != 1 else 'is'} decided anew." if redone else ".")


def _confirm(view: PairView, plan: BulkPlan) -> None:
    """The form that carries it out: the number must be typed."""
    if not _ui.reviewer():
        _sign_in.ask_name("deciding")
    with st.form(f"pairs-bulk-{plan.mark}-{plan.verdict}", border=False):
        note = st.text_input("Why (kept with every decision)", max_chars=LONGEST_NOTE)
        typed = st.text_input(f"Type {plan.n} to confirm", max_chars=12, placeholder=str(plan.n), autocomplete="off")
        sent = st.form_submit_button(
            f"{WORDS[plan.verdict]} {_pairs(plan.n)}", type="primary", icon=":material/done_all:"
        )
    if not sent:
        return
    if typed.replace(",", "").strip() != str(plan.n):
        st.error(f"Nothing was stored: type the number {plan.n} to confirm.")
        return
    try:
        with st.spinner(f"Storing the decision of {_pairs(plan.n)} …"):
            bulk_id = bulk.apply(view.store, plan, by=_ui.reviewer(), note=note)
    except AssayError as error:
        st.error(_ui.plain(str(error)))
        del st.session_state[PLAN]
        return
    del st.session_state[PLAN]
    st.session_state[SAID] = (
        f"{_pairs(plan.n)} {'were' if plan.n != 1 else 'was'} {DONE[plan.verdict]} (bulk decision {bulk_id}). "
        "It can be undone below."
    )
    st.rerun()


def _samples(view: PairView, plan: BulkPlan) -> None:
    """Ten pairs by chance, side by side, drawn anew on demand."""
    number, ids = st.session_state[SAMPLE]
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{len(ids)} of the {plan.n:,} by chance**", width="stretch")
        if plan.n > len(ids) and st.button("Draw others", icon=":material/casino:", key="pairs-bulk-redraw"):
            ids = bulk.sample(view.store, plan, seed=number + 1)
            st.session_state[SAMPLE] = (number + 1, ids)
    for pair_id in ids:
        try:
            pair = review.pair(view.store, pair_id)
        except AssayError as error:
            st.warning(_ui.plain(str(error)))
            continue
        with st.container(border=True, height=SAMPLE_HEIGHT):
            st.caption(f"Pair {pair_id} · {_ui.plain(pair['dataset'])} · {_ui.plain(pair['stage'])}")
            for column, side, words in zip(st.columns(2), ("o", "c"), ("original", "reflected"), strict=True):
                with column:
                    _ui.text_block(_whole(pair, side), label=words, kind=words, limit=3000)


def _whole(pair: Mapping[str, Any], side: str) -> str:
    return "\n\n".join(str(pair[f"{side}_{f}"]) for f in ("instruction", "input", "output") if pair[f"{side}_{f}"])


# --- what was done ---


def _actions(view: PairView) -> None:
    found = bulk.actions(view.store)
    if not found:
        st.caption("No bulk decision was made yet.")
        return
    who = {one for row in found for one in (row["done_by"], row["undone_by"]) if one}
    called = _ui.people_names(view.store, sorted(who))
    st.subheader("Bulk decisions so far", anchor=False)
    for row in found:
        with st.container(border=True), st.container(horizontal=True, vertical_alignment="center"):
            sign = "✓" if row["verdict"] == "accept" else "✗"
            st.markdown(
                f"{sign} **{_pairs(row['n_pairs'])} {DONE[row['verdict']]}** by {_ui.plain(called[row['done_by']])}, "
                f"{_ui.ago(row['done_at'])} · {_asked(row['filter'])}"
                + (f" · “{_ui.plain(row['note'])}”" if row["note"] else ""),
                width="stretch",
            )
            _undo(view, row, called)


def _asked(asked: Mapping[str, Any]) -> str:
    params = asked.get("params")
    if asked.get("model_id") is not None:
        return f"proposed by model {asked['model_id']}"
    if params is None:
        return f"chosen: {_pairs(asked.get('n_pair_ids', 0))}"
    try:
        return _pair_filter.label(PairFilter.from_params(params), with_order=False)
    except AssayError:
        return "a filter of another version"


def _undo(view: PairView, row: Mapping[str, Any], called: Mapping[str, str]) -> None:
    if row["undone_at"] is not None:
        st.caption(f"undone by {_ui.plain(called[row['undone_by']])}, {_ui.ago(row['undone_at'])}")
        return
    standing, bulk_id = row["n_standing"], row["bulk_id"]
    if standing < row["n_pairs"]:
        st.caption(f"{standing:,} of them stand; the others were decided anew")
    off = not _ui.may("administer") or not standing
    with st.popover("Undo", icon=":material/undo:", key=f"pairs-undo-{bulk_id}", disabled=off):
        left = row["n_pairs"] - standing
        st.markdown(
            f"Takes back {_decisions(standing)}; what stood before stands again."
            + (f" What was decided anew ({_pairs(left)}) keeps its decision." if left else "")
        )
        if not st.button(f"Undo {_decisions(standing)}", type="primary", key=f"pairs-undo-now-{bulk_id}-{standing}"):
            return
        if not _ui.reviewer():
            _sign_in.ask_name("deciding")
        try:
            with st.spinner("Taking them back …"):
                undone = bulk.undo(view.store, bulk_id, by=_ui.reviewer())
        except AssayError as error:
            st.error(_ui.plain(str(error)))
            return
        kept = f" {undone.n_left:,} had been decided anew and were left." if undone.n_left else ""
        st.session_state[SAID] = f"{_decisions(undone.n)} {'were' if undone.n != 1 else 'was'} taken back.{kept}"
        st.rerun()
