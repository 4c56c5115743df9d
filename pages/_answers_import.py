"""Answers that are there already: the outputs of a dataset, or a file, matched before anything is saved."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from core.answer_file import Matching
from core.errors import AssayError
from core.formats import Source
from db import answer_imports, answers, queries
from db.service import Service
from db.store import Store
from pages import _answers_view, _report, _sources, _ui
from pages._answers_view import TestSet
from pages._sources import Chosen

MATCHED = "answers_matched"
_SHOWN = 8


# --- a dataset ---


@st.cache_data(max_entries=64, show_spinner="Looking for the questions …")
def _n_questions_in(_store: Store, path: str, version: str, dataset_id: int, test_set_id: int) -> int:
    return answer_imports.n_questions_in(_store, dataset_id=dataset_id, test_set_id=test_set_id)


def of_dataset(service: Service, test_set: TestSet) -> None:
    """A dataset whose outputs answer the test set's questions; the test set's own references are one, too."""
    by_id = {int(row["dataset_id"]): row for row in queries.datasets(service.store)}
    options = sorted(by_id, key=lambda i: i != test_set.dataset_id)
    st.markdown(
        "Of the dataset's rows with a question's instruction and input, the first output is its answer. So responses "
        "before and after a reflection can be judged, where it left the instruction as it was."
    )
    chosen = int(
        st.selectbox(
            "Dataset", options, key=f"answers-dataset-{test_set.dataset_id}-{len(options)}",
            format_func=lambda i: by_id[i]["name"] + (" (its own references)" if i == test_set.dataset_id else ""),
        )
    )  # fmt: skip
    n = _n_questions_in(
        service.store, str(service.store.path), queries.version(service.store), chosen, test_set.dataset_id
    )
    st.caption(f"It has an output for {n:,} of the {test_set.n_items:,} questions.")
    wanted = f"{by_id[chosen]['name']}: outputs" if chosen != test_set.dataset_id else f"{test_set.name}: references"
    sides = st.columns([3, 2], vertical_alignment="bottom")
    name = sides[0].text_input(
        "Name of the answer set", value=_answers_view.free_name(service, wanted), max_chars=200,
        key=f"answers-dataset-name-{test_set.dataset_id}-{chosen}",
    )  # fmt: skip
    if sides[1].button(
        "Take its outputs",
        type="primary",
        icon=":material/dataset:",
        key=f"answers-take-{chosen}",
        **_ui.allowed("administer", disabled=not n),
    ):
        try:
            made = answers.answer_set_of_dataset(
                service.store, dataset_id=chosen, test_set_id=test_set.dataset_id, name=name,
                created_by=_ui.reviewer() or None,
            )  # fmt: skip
        except AssayError as error:
            st.error(_ui.plain(str(error)))
            return
        _done(service, made)


def _done(service: Service, answer_set_id: int) -> None:
    found = answers.answer_set(service.store, answer_set_id)
    _answers_view.say(f"{found['name']}: {found['n_answers']:,} answers, {found['n_null']:,} questions without one.")
    _answers_view.go("sets", sets=(answer_set_id,))
    st.rerun()


# --- a file ---


def of_file(service: Service, test_set: TestSet) -> None:
    """A file of answers: what of it matches, and what does not, before it is saved."""
    chosen = _sources.choose(service)
    if chosen is None:
        st.caption(
            "Read as they are: rows with an instruction (or question, prompt, text), an input, and an answer (or "
            "output, response, completion); AlpacaEval's model\\_outputs; self-instruct's instances; MT-bench's "
            "answers by question\\_id; chats."
        )
        return
    if chosen.source is None:
        st.error(_ui.plain(chosen.error or "This cannot be read."), icon=":material/error:")
        return
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**{_ui.plain(chosen.source.name)}**", width="stretch")
            st.button("Put away", icon=":material/close:", type="tertiary", key="answers-clear",
                      on_click=_sources.clear)  # fmt: skip
        _report.notes(chosen.source.notes)
        try:
            with st.spinner("Reading the file …"):
                matching = _matched(service, chosen, chosen.source, test_set)
        except AssayError as error:
            st.error(_ui.plain(str(error)), icon=":material/error:")
            return
        _preview(service, matching, chosen, test_set)


def _matched(service: Service, chosen: Chosen, source: Source, test_set: TestSet) -> Matching:
    """What the file says about the test set, read once."""
    token = f"{chosen.token}-{test_set.dataset_id}-{test_set.n_items}"
    kept: tuple[str, Matching] | None = st.session_state.get(MATCHED)
    if kept is None or kept[0] != token:
        found = answers.match_answers(service.store, test_set.dataset_id, source.rows())
        kept = st.session_state[MATCHED] = (token, found)
    return kept[1]


def _preview(service: Service, matching: Matching, chosen: Chosen, test_set: TestSet) -> None:
    n_empty = sum(answer is None for answer in matching.answers.values())
    cells = (
        ("Answers in the file", matching.n_rows, None),
        ("Questions answered", matching.n_matched - n_empty, f"of {matching.n_items:,}"),
        ("Questions without", matching.n_items - matching.n_matched + n_empty, "They are kept as such, with a reason."),
        ("Belong to no question", matching.n_unmatched, "They are not saved; the first of them are named below."),
        ("Rows not read", matching.n_bad, None),
    )
    for column, (label, value, help_text) in zip(st.columns(len(cells)), cells, strict=True):
        column.metric(label, f"{value:,}", border=True, help=help_text)
    if len(matching.generators) > 1:
        st.warning(
            f"The rows name {len(matching.generators):,} models, first "
            f"{_ui.plain(', '.join(matching.generators[:3]))}. An answer set is meant to be of one.",
            icon=":material/groups:",
        )
    if matching.n_repeated:
        st.caption(f":material/info: {matching.n_repeated:,} rows say again what another row says.")
    _pairs(service, matching, test_set)
    for title, found in (("Belong to no question", matching.unmatched), ("Rows that could not be read", matching.bad)):
        if found:
            with st.expander(f"{title}: the first {len(found):,}"):
                st.dataframe(
                    pd.DataFrame(found, columns=["row", "question" if found is matching.unmatched else "reason"]),
                    hide_index=True, key=f"answers-file-{title[:6]}-{chosen.token}",
                    column_config={"row": st.column_config.NumberColumn(width="small")},
                )  # fmt: skip
    _save_bar(service, matching, chosen, test_set)


def _pairs(service: Service, matching: Matching, test_set: TestSet) -> None:
    """The first questions with the answers that they would get."""
    asked = answers.items(service.store, test_set.dataset_id).slice(0, 2000).to_pylist()
    matched = [row for row in asked if matching.answers.get(row["item_id"]) is not None][:_SHOWN]
    st.dataframe(
        pd.DataFrame(
            {
                "question": [" · ".join(filter(None, (row["instruction"], row["input"])))[:300] for row in matched],
                "answer": [str(matching.answers[row["item_id"]])[:300] for row in matched],
            }
        ),
        hide_index=True, key=f"answers-file-pairs-{test_set.dataset_id}",
        column_config={name: st.column_config.TextColumn(width="large") for name in ("question", "answer")},
    )  # fmt: skip


def _save_bar(service: Service, matching: Matching, chosen: Chosen, test_set: TestSet) -> None:
    wanted = matching.generators[0] if len(matching.generators) == 1 else chosen.name
    sides = st.columns([3, 2], vertical_alignment="bottom")
    name = sides[0].text_input(
        "Name of the answer set", value=_answers_view.free_name(service, wanted[:180]), max_chars=200,
        key=f"answers-file-name-{chosen.token}-{test_set.dataset_id}",
    )  # fmt: skip
    pressed = sides[1].button(
        f"Save {matching.n_matched:,} answers",
        type="primary",
        icon=":material/download_done:",
        key=f"answers-file-save-{chosen.token}",
        **_ui.allowed("administer"),
    )
    if not pressed:
        return
    try:
        made = answers.save_matching(
            service.store, matching, dataset_id=test_set.dataset_id, name=name, source=chosen.origin,
            created_by=_ui.reviewer() or None,
        )  # fmt: skip
    except AssayError as error:
        st.error(_ui.plain(str(error)))
        return
    st.session_state.pop(MATCHED, None)
    _sources.clear()
    _done(service, made)
