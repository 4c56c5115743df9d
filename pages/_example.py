"""One example whole: its texts, all its scores with reasons, where it comes from, its pairs and decisions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import streamlit as st

from core.indicators import OUTPUTS
from db import queries, review
from db.service import Service
from pages import _rows, _ui

_LINKED_PAIRS = 6


def show(service: Service, example: Mapping[str, Any]) -> None:
    """Show an example as ``queries.examples`` gives it, with all that the store knows of it."""
    _ui.text_block(example["instruction"], label="Instruction")
    if example["input"]:
        _ui.text_block(example["input"], label="Input")
    _ui.text_block(example["output"], label="Response")
    _scores(service, example["example_id"])
    _provenance(service, example["example_id"])
    _pairs(service, example["example_id"])


def _scores(service: Service, example_id: int) -> None:
    scores = queries.scores_of(service.store, [example_id])
    st.markdown("**Scores**")
    if not scores:
        st.caption("This row is not scored yet.")
        st.page_link("score.py", label="Score its dataset", icon=":material/speed:")
        return
    labels = _rows.labels(scores)
    order = {output: i for i, output in enumerate(_rows.FIRST_OUTPUTS)}
    scores.sort(key=lambda s: (order.get(s["output"], len(order)), s["scorer_id"]))
    any_null = any(s["value"] is None for s in scores)
    st.dataframe(
        [
            {
                "score": labels[s["scorer_id"]],
                "value": _ui.number(s["value"], 4) if s["value"] is not None else "NULL",
                "better": _rows.ARROWS[OUTPUTS[s["output"]].direction] if s["output"] in OUTPUTS else "·",
                **({"why there is no value": s["reason"] or ""} if any_null else {}),
            }
            for s in scores
        ],
        hide_index=True,
        height="content",
        column_config={"value": st.column_config.TextColumn(width="small", alignment="right")},
        key=f"explore-scores-{example_id}",
    )


def _provenance(service: Service, example_id: int) -> None:
    places = queries.provenance(service.store, example_id)
    st.markdown("**Where it comes from**")
    if not places:
        st.caption("In no dataset: it was made by a reflection or an edit, or its dataset was removed.")
        return
    st.dataframe(
        [{"dataset": p["name"], "row": p["position"] + 1, "kind": p["kind"], "source": p["source"]} for p in places],
        hide_index=True,
        key=f"explore-places-{example_id}",
    )
    for place in places:
        if place["metadata"]:
            with st.expander(f"Further columns in {_ui.plain(place['name'])}"):
                _metadata(place["metadata"])


def _metadata(text: str) -> None:
    try:
        st.json(json.loads(text))
    except ValueError:
        _ui.text_block(text)


def _pairs(service: Service, example_id: int) -> None:
    pairs = review.pairs_of(service.store, example_id)
    st.markdown("**Pairs and decisions**")
    if not pairs:
        st.caption("No reflection has made a pair of this row.")
        return
    st.dataframe(
        [
            {
                "pair": p["pair_id"],
                "this row is the": "original" if p["original_id"] == example_id else "candidate",
                "stage": p["stage"],
                "decision": p["verdict"] or "undecided",
                "by": p["reviewer"],
                "when": p["decided_at"],
                "proposal": p["proposal"],
                "method": p["method"],
                "teacher": p["teacher"],
            }
            for p in pairs
        ],
        hide_index=True,
        placeholder="—",
        column_config={
            "pair": st.column_config.NumberColumn(width="small"),
            "when": st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm"),
        },
        key=f"explore-pairs-{example_id}",
    )
    with st.container(horizontal=True):
        for p in pairs[:_LINKED_PAIRS]:
            st.page_link(
                "review.py",
                label=f"Pair {p['pair_id']} in Review",
                icon=":material/compare:",
                query_params={"pair": str(p["pair_id"])},
            )
