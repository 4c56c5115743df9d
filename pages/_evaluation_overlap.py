"""What an evaluation set shares with training data: counts, a verdict, the pairs side by side, and what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from core.errors import AssayError
from core.overlap import COSINE, MEASURES, WORDS, Overlap, Pair
from db import evaluation, imports, queries
from db.service import Service
from db.store import Store
from pages import _choose, _pick, _rows, _ui

OPENED = "overlap_opened"
MOST_SHOWN = 500
MOST_ROWS_AT_ONCE = 200_000
KINDS = {
    "exact": "= same instruction and input",
    "near": "≈ near",
    "same_instruction": "◐ same instruction, other input",
    "same_example": "≡ the very same row",
}
AUTOMATIC = "automatic"


@st.cache_data(max_entries=16, show_spinner=False)
def _overlap(
    _store: Store,
    path: str,
    version: str,
    evaluation_id: int,
    dataset_ids: tuple[int, ...],
    threshold: float,
    measure: str | None,
) -> Overlap:
    return evaluation.overlap(_store, evaluation_id, dataset_ids, threshold=threshold, measure=measure)


def show(service: Service, chosen: Mapping[str, Any]) -> None:
    """The choice of training data, and what is found."""
    evaluation_id = int(chosen["dataset_id"])
    marked = {row["dataset_id"] for row in evaluation.evaluation_sets(service.store)}
    others = [row for row in queries.datasets(service.store) if row["dataset_id"] not in marked]
    if not others:
        _ui.empty(
            "There is no training data to compare with: every dataset is an evaluation set.", page="load.py",
            label="Load a dataset",
        )  # fmt: skip
        return
    dataset_ids, threshold, measure = _choice(others)
    if not dataset_ids:
        st.caption("Choose the datasets that a student is to be finetuned on.")
        return
    version = queries.version(service.store)
    try:
        with st.spinner("Comparing (about a second for 50,000 rows) …"):
            found = _overlap(
                service.store, str(service.store.path), version, evaluation_id, dataset_ids, threshold, measure
            )
    except AssayError as error:
        st.error(_ui.plain(str(error)))
        st.page_link("score.py", label="Score by kNN", icon=":material/speed:")
        return
    _verdict(found)
    _embeddings(found, evaluation_id)
    _pairs(service, found)
    if found.training_ids:
        _without(service, chosen, found, {int(row["dataset_id"]): row for row in others}, dataset_ids)


def _choice(others: Sequence[Mapping[str, Any]]) -> tuple[tuple[int, ...], float, str | None]:
    names = _ui.dataset_names(others)
    usual, total = [], 0
    for row in others:
        total += row["n_members"]
        if total <= MOST_ROWS_AT_ONCE:
            usual.append(row["dataset_id"])
    asked = [i for i in _choose.numbers("against") if i in names]
    sides = st.columns([5, 2, 2])
    chosen = sides[0].multiselect(
        "Training data", list(names), default=asked or usual, format_func=names.__getitem__,
        key=f"overlap-datasets-{_rows.identity(tuple(names))}",
    )  # fmt: skip
    st.query_params["against"] = ".".join(map(str, chosen))
    threshold = sides[1].slider("Near from a similarity of", 0.5, 1.0, 0.9, step=0.05, key="overlap-threshold")
    measure = sides[2].selectbox(
        "Near by", [AUTOMATIC, WORDS, COSINE], key="overlap-measure",
        help=f"words: {MEASURES[WORDS]}. embedding: {MEASURES[COSINE]}, where kNN was scored on both sides. "
        "automatic: by words, and by embedding too where every row has one.",
    )  # fmt: skip
    return tuple(chosen), float(threshold), None if measure == AUTOMATIC else measure


def _verdict(found: Overlap) -> None:
    counts = found.counts
    cells = (
        ("Instructions", found.n_instructions, "Distinct instructions with their input in the evaluation set."),
        ("Training rows", found.n_training, "Distinct rows of the datasets that were chosen."),
        ("Exact pairs", counts["exact"], "Same instruction and input, but for upper and lower case and white space."),
        ("Near pairs", counts["near"], f"Similarity of {found.threshold:.2f} or more by {found.near_measure}."),
        ("Other input", counts["same_instruction"], "The same instruction with another input; no leak by itself."),
        ("Same rows", counts["same_example"], "Instruction, input and output are the same to the letter."),
    )
    for column, (label, value, what) in zip(st.columns(len(cells)), cells, strict=True):
        column.metric(label, _ui.number(value), help=what, border=True)
    if found.n_instructions_found:
        st.warning(
            f"✗ {found.n_instructions_found:,} of {found.n_instructions:,} instructions are among the training rows, "
            "exactly or nearly. A student trained on these rows has seen what it is evaluated on: leave them out of a "
            "study's sources.",
            icon=":material/content_copy:",
        )
    else:
        st.success(
            f"✓ None of the {found.n_instructions:,} instructions is among the {found.n_training:,} training rows, "
            f"neither exactly nor nearly (similarity of {found.threshold:.2f} or more by {found.near_measure}).",
            icon=":material/verified:",
        )


def _embeddings(found: Overlap, evaluation_id: int) -> None:
    if found.embedder is None:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption(
                "Paraphrases in other words are found by embedding only. No embedding model has vectors of both sides: "
                "score this set and the training data by kNN with the same model.",
                width="stretch",
            )
            st.page_link(
                "score.py", label="Score by kNN", icon=":material/speed:", query_params={"dataset": str(evaluation_id)}
            )
        return
    left = (found.n_evaluation_unembedded or 0, found.n_training_unembedded or 0)
    if any(left):
        st.caption(
            f"{left[0]:,} rows of the evaluation set and {left[1]:,} training rows have no embedding of "
            f"{_ui.plain(found.embedder)}; a comparison by embedding leaves them out."
        )


def _pairs(service: Service, found: Overlap) -> None:
    there = [kind for kind in KINDS if found.counts[kind]]
    if not there:
        return
    kind = there[0]
    if len(there) > 1:
        kind = st.pills(
            "Pairs", there, default=there[0], required=True, key=f"overlap-kind-{'-'.join(there)}",
            format_func=lambda one: f"{KINDS[one]} ({found.counts[one]:,})", label_visibility="collapsed",
        )  # fmt: skip
    pairs: tuple[Pair, ...] = getattr(found, str(kind))
    shown = pairs[:MOST_SHOWN]
    texts = {
        row["example_id"]: row for row in queries.previews(service.store, list({i for pair in shown for i in pair[:2]}))
    }
    shown = tuple(pair for pair in shown if pair.evaluation_id in texts and pair.training_id in texts)
    ids = tuple(f"{pair.evaluation_id}-{pair.training_id}" for pair in shown)
    opened = st.session_state.get(OPENED)
    opened = opened if opened in ids else None
    widget = _pick.widget_key("overlap-pairs", ids, opened)
    rows = [
        {
            "similarity": pair.similarity,
            "evaluation instruction": texts[pair.evaluation_id]["instruction"],
            "evaluation input": texts[pair.evaluation_id]["input"],
            "training instruction": texts[pair.training_id]["instruction"],
            "training input": texts[pair.training_id]["input"],
        }
        for pair in shown
    ]
    table = pd.DataFrame(rows)
    st.dataframe(
        table, hide_index=True, height="content" if len(rows) <= 8 else 320, key=widget,
        on_select=lambda: _open(ids, widget, opened), **_pick.options(ids, opened),
        column_config={
            "similarity": st.column_config.NumberColumn(format="%.2f", width=80),
            "evaluation instruction": st.column_config.TextColumn(width="large"),
            "training instruction": st.column_config.TextColumn(width="large"),
        },
    )  # fmt: skip
    with st.container(horizontal=True, vertical_alignment="center"):
        more = f"The first {len(shown):,} of {found.counts[str(kind)]:,} pairs. " if len(pairs) > len(shown) else ""
        st.caption(f"{more}Click a pair to read it side by side.", width="stretch")
        st.download_button(
            "All pairs as CSV", data=lambda: _ui.csv_bytes(_as_rows(found)), file_name="overlap.csv", mime="text/csv",
            icon=":material/download:", type="tertiary", key=f"overlap-csv-{kind}", on_click="ignore",
        )  # fmt: skip
    if opened is not None:
        _side_by_side(service, shown[ids.index(opened)])


def _open(ids: Sequence[str], widget: str, opened: str | None) -> None:
    st.session_state[OPENED] = _pick.picked(ids, widget, opened)


def _as_rows(found: Overlap) -> list[dict[str, Any]]:
    return [
        {"kind": kind, "evaluation_id": pair.evaluation_id, "training_id": pair.training_id,
         "similarity": pair.similarity}
        for kind in KINDS
        for pair in getattr(found, kind)
    ]  # fmt: skip


def _side_by_side(service: Service, pair: Pair) -> None:
    texts = {row["example_id"]: row for row in queries.examples(service.store, list(set(pair[:2])))}
    for column, example_id, title in zip(st.columns(2), pair[:2], ("Evaluation set", "Training data"), strict=True):
        with column, st.container(border=True):
            st.markdown(f"**{title}** · row {example_id}")
            for name, label in (("instruction", "Instruction"), ("input", "Input"), ("output", "Output")):
                if name == "instruction" or texts[example_id][name].strip():
                    _ui.text_block(texts[example_id][name], label=label)


def _without(
    service: Service,
    chosen: Mapping[str, Any],
    found: Overlap,
    others: Mapping[int, Mapping[str, Any]],
    dataset_ids: Sequence[int],
) -> None:
    """Make datasets without the rows concerned, to be used as sources in their place."""
    concerned = evaluation.datasets_with(service.store, found.training_ids, dataset_ids)
    if not concerned:
        return
    listed = ", ".join(f"{_ui.plain(others[i]['name'])} ({len(ids):,})" for i, ids in concerned.items())
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"Training rows concerned: {listed}", width="stretch")
        pressed = st.button(
            "Make datasets without them",
            icon=":material/filter_alt_off:",
            key=f"overlap-without-{_rows.identity(tuple(concerned))}",
            **_ui.allowed(
                "administer",
                help="The datasets stay as they are; for each a new one is made that lacks the exact and near rows.",
            ),
        )
    if not pressed:
        return
    for dataset_id, example_ids in concerned.items():
        name = imports.free_name(service.store, f"{others[dataset_id]['name']} without overlap")
        try:
            made, n_kept = evaluation.leave_out(
                service.store, dataset_id, example_ids=example_ids, evaluation_id=int(chosen["dataset_id"]), name=name,
                by=_ui.reviewer() or None,
            )  # fmt: skip
        except AssayError as error:
            st.error(_ui.plain(str(error)))
            continue
        st.success(f"{_ui.plain(name)} is made: {n_kept:,} rows. Use it as a source in place of the old one.")
        st.page_link(
            "explore.py", label=_ui.plain(name), icon=":material/table_rows:", query_params={"datasets": str(made)}
        )
