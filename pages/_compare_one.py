"""One comparison: what each judge says, how far they can be trusted, how length goes with it, and every question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from core.errors import AssayError
from db import judging
from db.service import Service
from pages import _compare_agreement, _compare_items, _compare_jobs, _compare_judge, _compare_length, _compare_view, _ui
from pages._compare_view import Judged

_CONFIG = {
    "win score": st.column_config.NumberColumn(format="%.2f", help="(wins − losses) / n + 1: 1 is a draw."),
    "95 % interval": st.column_config.TextColumn(help="Bootstrap over the questions."),
    "unparsed": st.column_config.NumberColumn(help="Questions without a readable verdict in both orders; left out."),
    "calls": st.column_config.NumberColumn(format="localized", help="Replies of the model, repeated ones included."),
    "tokens": st.column_config.NumberColumn(format="localized", help="Of prompts and replies together."),
    "cost (USD)": st.column_config.NumberColumn(format="%.4f"),
    "unreadable replies": st.column_config.TextColumn(width="medium", help="All attempts, by reason."),
}


def show(service: Service, comparison_id: int) -> None:
    """The whole room of a comparison."""
    found = next((c for c in judging.comparisons(service.store) if c["comparison_id"] == comparison_id), None)
    if found is None:
        st.warning("This comparison is not in the store any more.", icon=":material/search_off:")
        _back()
        return
    _head(service, found)
    _compare_jobs.watch(service, found, only_live=True)
    lines = _compare_view.judged(service.store, [found])
    if not lines:
        _unjudged(found)
        return
    tables = {one.judge_id: judging.outcomes(service.store, comparison_id, one.judge_id) for one in lines}
    _summary(service, found, lines)
    readable = [one for one in lines if one.summary.n]
    if readable:
        _compare_agreement.show(found, readable, tables)
        _compare_length.show(found, readable, tables)
    _compare_items.show(service, found, lines, tables)


def _back() -> None:
    st.button("All comparisons", icon=":material/arrow_back:", type="tertiary", on_click=_leave, key="compare-back")


def _leave() -> None:
    """A callback: back to the list."""
    for name in ("comparison", "item", "outcome"):
        st.query_params.pop(name, None)


def _head(service: Service, comparison: Mapping[str, Any]) -> None:
    number = str(comparison["comparison_id"])
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader(_ui.plain(str(comparison["name"])), anchor=False, width="stretch")
        _back()
        st.page_link("judge.py", label="Judge it blind", icon=":material/visibility_off:",
                     query_params={"comparison": number})  # fmt: skip
        _ask_button("Ask a judge", number, key="head")
        with st.popover("Remove", icon=":material/delete:", type="tertiary", key=f"compare-removing-{number}"):
            st.markdown("Remove this comparison with all its verdicts, people's too? The answers stay.")
            st.button(
                "Yes, remove it",
                type="primary",
                icon=":material/delete:",
                key=f"compare-remove-{number}",
                on_click=_remove,
                args=(service, int(number)),
                **_ui.allowed("administer"),
            )
    lacking = comparison["n_without_answer"]
    st.caption(
        f"{_ui.plain(_compare_view.name_of(comparison, 'first'))} \\(first\\) against "
        f"{_ui.plain(_compare_view.name_of(comparison, 'second'))} \\(second\\) on "
        f"{_ui.plain(str(comparison['dataset'] or _compare_view.GONE))}: {comparison['n_items']:,} questions with both "
        "answers" + (f", {lacking:,} lack one and cannot be judged" if lacking else "")
    )


def _ask_button(label: str, number: str, *, key: str) -> None:
    """To the judge's form of this comparison."""

    def go() -> None:
        _leave()
        st.session_state[_compare_judge.ASKED] = int(number)
        st.query_params["tab"] = "judge"
        st.session_state.pop("switch-tab", None)

    st.button(label, icon=":material/gavel:", type="tertiary", on_click=go, key=f"compare-ask-{key}-{number}")


def _remove(service: Service, comparison_id: int) -> None:
    """A callback: remove it and go back to the list."""
    try:
        judging.remove_comparison(service.store, comparison_id)
    except AssayError as error:
        st.toast(_ui.plain(str(error)), icon=":material/error:")
        return
    _leave()


def _unjudged(comparison: Mapping[str, Any]) -> None:
    with st.container(border=True):
        st.markdown("**Nobody has judged this comparison yet.** Ask a model, or judge it yourself without the names.")
        with st.container(horizontal=True):
            _ask_button("Ask a model", str(comparison["comparison_id"]), key="unjudged")
            st.page_link(
                "judge.py", label="Judge it blind", icon=":material/visibility_off:",
                query_params={"comparison": str(comparison["comparison_id"])},
            )  # fmt: skip


def _summary(service: Service, comparison: Mapping[str, Any], lines: Sequence[Judged]) -> None:
    number = comparison["comparison_id"]
    bars = [one.bar(about=one.judge) for one in lines]
    _compare_view.bars_chart(bars, key=f"compare-one-{number}", name=f"win-tie-lose-{number}")
    totals = {row["judge_id"]: row for row in judging.totals(service.store, number)}
    st.dataframe(
        _frame(lines, totals),
        hide_index=True,
        height="content",
        placeholder="—",
        key=f"compare-one-judges-{number}-{len(lines)}",
        column_config=_CONFIG,
    )
    unreadable = [one for one in lines if one.summary.unparsed and one.kind == judging.MODEL]
    if unreadable:
        names = ", ".join(f"{_ui.plain(one.judge)} \\({one.summary.unparsed:,}\\)" for one in unreadable)
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption(f"Without a readable verdict in both orders: {names}. They are never counted as ties.")
            _ask_button("Ask again for these", str(number), key="again")


def _frame(lines: Sequence[Judged], totals: Mapping[int, Mapping[str, Any]]) -> pd.DataFrame:
    def of(one: Judged, name: str) -> Any:
        return totals.get(one.judge_id, {}).get(name)

    def tokens(one: Judged) -> int | None:
        counts = [of(one, "prompt_tokens"), of(one, "completion_tokens")]
        return None if None in counts else sum(counts)

    def interval(one: Judged) -> str | None:
        found = one.summary
        return None if found.low is None or found.high is None else f"{found.low:.2f} – {found.high:.2f}"

    found: dict[str, Any] = {
        "judge": [one.judge for one in lines],
        "judge is a": [_compare_view.KIND_WORDS.get(one.kind, one.kind) for one in lines],
        "win": [one.summary.win for one in lines],
        "tie": [one.summary.tie for one in lines],
        "lose": [one.summary.lose for one in lines],
        "win score": pd.array([one.summary.win_score for one in lines], dtype="Float64"),
        "95 % interval": [interval(one) for one in lines],
        "unparsed": [one.summary.unparsed for one in lines],
        "unreadable replies": [
            ", ".join(f"{n:,} {reason.replace('_', ' ')}" for reason, n in of(one, "reasons") or ()) or None
            for one in lines
        ],
    }
    if any(one.kind == judging.MODEL for one in lines):
        found |= {
            "calls": pd.array([of(one, "n_calls") or None for one in lines], dtype="Int64"),
            "tokens": pd.array([tokens(one) for one in lines], dtype="Int64"),
            "cost (USD)": pd.array([of(one, "cost_usd") for one in lines], dtype="Float64"),
        }
    return pd.DataFrame(found)
