"""One decision of the history: the texts of both sides as they were, what else was on screen, the pair's timeline."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from core.errors import StoreError
from core.review_diff import Diff, Segment, word_diff
from db import history
from db.store import Store
from pages import _ui

VERDICT_WORDS: Mapping[str, str] = {
    "accept": "✓ accepted",
    "edit": "✎ edited and accepted",
    "new_instruction": "✓ new instruction, old response",
    "new_response": "✓ old instruction, new response",
    "reject": "✗ rejected",
    "skip": "– skipped",
    "flag": "⚑ flagged",
    "unflag": "⚐ removed the flag",
    "undo": "↶ took back a decision",
}
PURPOSE_WORDS: Mapping[str, str] = {
    "review": "review",
    "adjudication": "adjudication",
    "second_look": "blind second look",
    "bulk": "whole filter",
    "late": "too late to count",
}
_FIELDS = (("instruction", "Instruction"), ("input", "Input"), ("output", "Response"))
_SHOWN_WORDS: Mapping[str, str] = {
    "proposal": "The student's proposal",
    "ifd_original": "IFD, original",
    "ifd_base": "IFD, instruction stage",
    "ifd_candidate": "IFD, reflected",
    "r_ifd_original": "r-IFD, original",
    "r_ifd_base": "r-IFD, instruction stage",
    "r_ifd_candidate": "r-IFD, reflected",
    "blind": "Blind",
    "guidelines_version": "Version of the guidelines",
    "filter": "Filter of the queue",
    "original_hash": "Hash of the original",
    "candidate_hash": "Hash of the reflected",
    "near_duplicate_of": "Decided together with pair",
}
_MOST_CHARACTERS = 20_000
_STYLE = """<style>
.assay-text mark {background: color-mix(in srgb, currentColor 14%, transparent); color: inherit; border-radius: .2rem;
  box-shadow: inset 0 -2px 0 #0f8b8d;}
.assay-text.original mark {box-shadow: inset 0 -2px 0 #5b6b7a; text-decoration: line-through;
  text-decoration-color: color-mix(in srgb, currentColor 45%, transparent);}
.assay-text {max-height: 24rem;}
</style>"""


def show(store: Store, decision_id: int, names: Mapping[str, str], *, viewer: str | None = None) -> None:
    """The decision with its surroundings; one that is not there, or not for this ``viewer``, says so."""
    try:
        row = history.decision(store, decision_id, viewer=viewer)
    except StoreError as error:
        st.warning(_ui.plain(str(error)), icon=":material/search_off:")
        return
    st.html(_STYLE)
    with st.container(border=True):
        _head(row, names)
        _texts(row)
        left, right = st.columns([3, 2], gap="large")
        with left:
            _timeline(row, names)
        with right:
            _shown(row)


def _head(row: Mapping[str, Any], names: Mapping[str, str]) -> None:
    words = VERDICT_WORDS.get(row["verdict"], row["verdict"])
    took = "" if row["seconds"] is None else f" after {_ui.duration(row['seconds'])}"
    st.markdown(
        f"**{_ui.plain(words)}** by **{_ui.plain(names.get(row['reviewer'], row['reviewer']))}** "
        f"on {row['decided_at']:%Y-%m-%d at %H:%M:%S} UTC{took}"
    )
    items = [
        _ui.badge(f"decision {row['decision_id']}"),
        _ui.badge(f"pair {row['pair_id']}"),
        _ui.badge(row["dataset"]),
        _ui.badge(PURPOSE_WORDS.get(row["purpose"], str(row["purpose"]))),
    ]
    if row["stage"]:
        items.append(_ui.badge(f"{row['stage']} reflection"))
    if row["campaign"]:
        items.append(_ui.badge(f"campaign {row['campaign']}"))
    if row["undone"]:
        items.append(_ui.badge("taken back later", "bad"))
    if row["undoes"] is not None:
        items.append(_ui.badge(f"took back decision {row['undoes']}", "bad"))
    _ui.badges(*items)
    if row["note"]:
        _ui.text_block(row["note"], label="Note")
    with st.container(horizontal=True):
        pair = {"pair": str(row["pair_id"])}
        st.page_link("review.py", label="Open the pair", icon=":material/compare:", query_params=pair)
        if row["dataset"] != "removed dataset":
            st.page_link(
                "export.py", label="Export the set as it was then", icon=":material/output:",
                query_params={"dataset": str(row["dataset_id"]), "as_of": f"decision:{row['decision_id']}"},
            )  # fmt: skip


# --- texts ---


def _marked(segments: Sequence[Segment]) -> str:
    """Segments as HTML: every text is escaped, and only our own mark is a tag."""
    left = _MOST_CHARACTERS
    parts = []
    for segment in segments:
        text = html.escape(segment.text[:left])
        parts.append(f"<mark>{text}</mark>" if segment.changed else text)
        left -= len(segment.text)
        if left <= 0:
            parts.append('\n<span style="opacity:.6">… cut for display</span>')
            break
    return "".join(parts)


def _side(segments: Sequence[Segment], *, kind: str, label: str) -> str:
    body = _marked(segments) or '<span style="opacity:.6">(empty)</span>'
    return (
        f'<div class="assay-label">{html.escape(label)}</div><div class="assay-text {kind}" tabindex="0">{body}</div>'
    )


def _compared(before: Mapping[str, str], after: Mapping[str, str], names: tuple[str, str]) -> None:
    """Both sides beside each other, field by field, with what changed marked."""
    for field, label in _FIELDS:
        if not before[field] and not after[field]:
            continue
        diff: Diff = word_diff(before[field], after[field])
        note = {"same": "unchanged", "rewritten": "rewritten", "too long": "too long to compare"}.get(diff.state, "")
        left, right = st.columns(2)
        left.html(_side(diff.original, kind="original", label=f"{label} · {names[0]}"))
        right.html(_side(diff.reflected, kind="reflected", label=f"{label} · {names[1]}{f' · {note}' if note else ''}"))


def _texts(row: Mapping[str, Any]) -> None:
    st.markdown("**On screen**")
    if row["original"] is None or row["candidate"] is None:
        st.caption("The pair is not in the store any more.")
        return
    _compared(row["original"], row["candidate"], ("original", "reflected"))
    result = row["result"]
    if result is not None and result["example_id"] not in (row["original_id"], row["candidate_id"]):
        st.markdown("**What came of it**")
        if row["verdict"] == "edit":
            _compared(row["candidate"], result, ("reflected", "edited"))
        else:
            for field, label in _FIELDS:
                if result[field]:
                    _ui.text_block(result[field], label=label, kind="reflected")


def _shown(row: Mapping[str, Any]) -> None:
    st.markdown("**What else was on screen**")
    kept = {name: value for name, value in row["shown"].items() if value not in (None, "", {}, [])}
    if not kept:
        st.caption("Nothing else was recorded.")
        return
    table = pd.DataFrame(
        [{"What": _SHOWN_WORDS.get(name, name), "Value": _said(value)} for name, value in kept.items()]
    )
    st.dataframe(
        table,
        hide_index=True,
        height=min(320, 40 + 35 * len(table)),
        column_config={"What": st.column_config.TextColumn(width=200), "Value": st.column_config.TextColumn(width=160)},
        key=f"history-shown-{row['decision_id']}",
    )


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return " · ".join(f"{name} = {one}" for name, one in value.items())
    return str(value)


# --- timeline ---


def _timeline(row: Mapping[str, Any], names: Mapping[str, str]) -> None:
    events = row["timeline"]
    st.markdown(f"**Timeline of pair {row['pair_id']}**")
    table = pd.DataFrame(
        [
            {
                "": "●" if one["decision_id"] == row["decision_id"] else "",
                "When (UTC)": one["decided_at"],
                "By": names.get(one["reviewer"], one["reviewer"]),
                "What": VERDICT_WORDS.get(one["verdict"], one["verdict"])
                + (" (taken back)" if one["undone"] else "")
                + (f" {one['undoes']}" if one["undoes"] is not None else ""),
                "For": PURPOSE_WORDS.get(one["purpose"], one["purpose"] or ""),
                "Note": one["note"] or "",
                "Number": one["decision_id"],
            }
            for one in events
        ]
    )
    st.dataframe(
        table,
        hide_index=True,
        height="content" if len(table) <= 8 else 320,
        column_config={
            "": st.column_config.TextColumn(width=30),
            "When (UTC)": st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm:ss"),
            "What": st.column_config.TextColumn(width="medium"),
            "Number": st.column_config.NumberColumn(format="%d"),
        },
        key=f"history-timeline-{row['decision_id']}",
    )
