"""The choice of indicators, grouped by what they cost, each with its meaning, better end, range and paper."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from core.indicators import DEFAULT_NEIGHBOUR, INDICATORS, KNN, MOST_NEIGHBOURS, Indicator
from pages import _ui

DEFAULT = ("length", "mtld", "ifd", "r_ifd")
GROUPS: tuple[tuple[str, str], ...] = (
    ("No model", "the text alone"),
    ("Tokenizer, embedding", "a light pass"),
    ("Reward, UniEval", "one pass each"),
    ("Student", "up to four passes, a loss each"),
)
"""Title and cost of the groups, the cheap one first; :func:`group_of` sorts an indicator into one."""

_COLUMNS = ((0, 1), (2,), (3,))
_DIRECTIONS = {"higher": "↑ higher is better", "lower": "↓ lower is better", "neither": "no better end"}
_ROLES = {
    "student": "student",
    "reward": "reward model",
    "unieval": "UniEval",
    "embedder": "embedder",
}


def group_of(indicator: Indicator) -> int:
    """The group (index into ``GROUPS``) that an indicator belongs to by what it needs."""
    role = indicator.needs.role
    if role is None:
        return 0
    if role == "embedder" or (role == "student" and not indicator.needs.losses):
        return 1
    return 3 if role == "student" else 2


def direction_words(indicator: Indicator) -> str:
    """Which end of its first output is the better one."""
    return _DIRECTIONS[indicator.outputs[0].direction]


def range_words(indicator: Indicator) -> str:
    """The values that its first output can take."""
    low, high = indicator.outputs[0].range
    if low is None and high is None:
        return "any number"
    if high is None:
        return f"from {_ui.number(low)} up"
    return f"up to {_ui.number(high)}" if low is None else f"{_ui.number(low)} to {_ui.number(high)}"


def needs_words(indicator: Indicator) -> str:
    """What must be there before it can be computed."""
    role = indicator.needs.role
    if role is None:
        return "no model"
    if role == "student" and not indicator.needs.losses:
        return "student's tokenizer"
    return _ROLES[role]


def choose(key: str) -> list[str]:
    """Ask which indicators; returns their keys in the order of ``INDICATORS``. Widget keys begin with ``key``."""
    chosen: set[str] = set()
    for column, groups in zip(st.columns(len(_COLUMNS)), _COLUMNS, strict=True):
        with column:
            for group in groups:
                members = [one for one in INDICATORS if group_of(one) == group]
                if members:
                    chosen |= _group(group, members, key=key, last=group == groups[-1])
    listed = (one.key for one in (*INDICATORS, *KNN.values()))
    return [one for one in dict.fromkeys(listed) if one in chosen]


def _group(group: int, members: Sequence[Indicator], *, key: str, last: bool) -> set[str]:
    """The indicators of one group; returns the keys of those that are ticked."""
    title, cost = GROUPS[group]
    with st.container(border=True, gap="small", height="stretch" if last else "content"):
        st.markdown(f"**{title}** :small[:gray[{_ui.plain(cost)}]]")
        return {found for one in members for found in _cell(one, key=key)}


def _cell(listed: Indicator, *, key: str) -> list[str]:
    """One indicator; returns its key if it is ticked."""
    with st.container(gap=None):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            is_knn = listed.needs.neighbour is not None
            label = "kNN distance" if is_knn else listed.outputs[0].label
            ticked = st.checkbox(
                f"**{label}**",
                value=listed.key in DEFAULT,
                key=f"{key}-{'knn' if is_knn else listed.key}",
                persist_state="session",
                help=_help(listed),
                width="content",
            )
            one = _neighbour(key) if is_knn else listed
        st.caption(_ui.plain(one.summary))
        facts = " · ".join((direction_words(one), range_words(one), needs_words(one)))
        st.caption(f":small[{_ui.plain(facts)}]  \n:small[{_ui.plain(one.paper.partition(';')[0])}]")
    return [one.key] if ticked else []


def _neighbour(key: str) -> Indicator:
    """Ask for the i of the kNN distance."""
    i = st.number_input(
        "i: the distance to which neighbour",
        min_value=1,
        max_value=MOST_NEIGHBOURS,
        value=DEFAULT_NEIGHBOUR,
        label_visibility="collapsed",
        help=f"i, from 1 to {MOST_NEIGHBOURS}; the published rule has {DEFAULT_NEIGHBOUR}.",
        key=f"{key}-knn-i",
        persist_state="session",
        width=120,
    )
    return KNN[int(i)]


def _help(indicator: Indicator) -> str:
    lines: Sequence[str] = [f"**{_ui.plain(o.label)}** — {_ui.plain(o.describes)}" for o in indicator.outputs]
    return f"{_ui.plain(indicator.title)}\n\n" + "\n\n".join([*lines, _ui.plain(indicator.paper)])
