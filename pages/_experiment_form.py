"""A new experiment: rows, arms, training, evaluation, judges; what it will do and cost; the start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from core.decoding import Decoding
from core.errors import AssayError
from core.experiment import ARM_WORDS, OWN, PAIRED, ExperimentSettings, RowChoice
from core.finetune.settings import FinetuneSettings, sample_preset
from core.scoring import DEMO_STUDENT
from core.teachers import params_of
from db import evaluation, experiment_plan, experiment_rows, experiments, queries, sample
from db.experiment_plan import Plan
from db.experiment_rows import Chosen
from db.service import Service
from db.store import Store
from pages import _experiment_arms, _finetune_form, _rows, _teacher, _ui

PAGE = _experiment_arms.PAGE
ORDERS = {"all": "All rows", "first": "The first", "random": "Random ones"}
PAIRINGS = {PAIRED: "The same rows in every arm", OWN: "Each arm its own, equally many"}
MOST_JUDGES = 3


def show(service: Service) -> None:
    """The form, and below it what the experiment would do."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader("A new experiment", anchor=False, width="stretch")
        st.page_link("experiment.py", label="All experiments", icon=":material/arrow_back:")
    sets = evaluation.evaluation_sets(service.store)
    marked = {row["dataset_id"] for row in sets}
    datasets = [row for row in queries.datasets(service.store) if row["dataset_id"] not in marked and row["n_members"]]
    if not needs(datasets, sets):
        return
    version = queries.version(service.store)
    left, right = st.columns([1, 1], gap="large")
    with left:
        dataset_id = _dataset(datasets)
        st.markdown("**Arms**: what a student is finetuned on")
        arms = _experiment_arms.choose(service, version, dataset_id)
        rows = _row_choice(dataset_id)
        st.markdown("**How the students are compared**")
        evaluation_id, problem = _evaluation_set(sets)
        test = _test_set(service, sets, evaluation_id)
    with right:
        st.markdown("**How every arm is trained**")
        is_sample = dataset_id == sample.sample_dataset(service.store)
        setting = _finetune_form.form(
            service, key=f"{PAGE}-setting", default=sample_preset(str(DEMO_STUDENT)) if is_sample else None
        )
        n_seeds, seed = _seeds()
        judges, lacking = _judges() if test["test_set_id"] is not None else ([], [])
    st.subheader("What it will do", anchor=False)
    missing = [*arms.missing, *([problem] if problem else [])]
    if missing or setting is None:
        for words in missing or ["The training setting does not do yet."]:
            st.info(_ui.plain(words), icon=":material/arrow_upward:")
        return
    try:
        settings = ExperimentSettings(
            arms=arms.arms, reflected=arms.reflected, rows=rows, finetune=setting.to_params(), n_seeds=n_seeds,
            seed=seed, evaluation_id=evaluation_id, judges=tuple(judges), **test,
        )  # fmt: skip
        _plan(service, version, dataset_id, settings, setting, lacking)
    except AssayError as error:
        st.error(_ui.plain(str(error)), icon=":material/error:")


def needs(datasets: Sequence[Mapping[str, Any]], sets: Sequence[Mapping[str, Any]]) -> bool:
    """Whether there are rows and an evaluation set; where not, the page says what to do."""
    if not datasets:
        _ui.empty(
            "An experiment finetunes a student on the original rows and on reflected ones, and compares them. First "
            "there must be rows.",
            page="load.py", label="Load a dataset", icon=":material/upload_file:",
        )  # fmt: skip
        return False
    if not sets:
        _ui.empty(
            "Students are compared by their loss on an evaluation set: instructions with reference outputs that are "
            "never trained on. There is none yet.",
            page="evaluation.py", label="Make an evaluation set", icon=":material/fact_check:",
        )  # fmt: skip
        return False
    return True


# --- rows ---


def _dataset(datasets: Sequence[Mapping[str, Any]]) -> int:
    names = _ui.dataset_names(datasets)
    asked = st.query_params.get("dataset", "")
    options = list(names)
    chosen = st.selectbox(
        "Dataset",
        options,
        index=options.index(int(asked)) if asked.isdecimal() and int(asked) in names else _usual(datasets),
        format_func=names.__getitem__,
        key=f"{PAGE}-dataset-{_rows.identity(tuple(options))}",
    )
    st.query_params["dataset"] = str(chosen)
    return int(chosen)


def _usual(datasets: Sequence[Mapping[str, Any]]) -> int:
    """The place of the newest dataset that was reflected on, else of the newest."""
    return next((place for place, row in enumerate(datasets) if row["n_pairs"]), 0)


def _row_choice(dataset_id: int) -> RowChoice:
    st.markdown("**Rows**")
    order = st.segmented_control(
        "Rows", list(ORDERS), default="all", format_func=ORDERS.__getitem__, required=True,
        key=f"{PAGE}-order-{dataset_id}", label_visibility="collapsed",
    )  # fmt: skip
    n_rows = seed = 0
    if order != "all":
        first, second = st.columns(2)
        with first:
            n_rows = int(st.number_input("How many", 1, value=200, step=50, key=f"{PAGE}-n-{dataset_id}"))
        with second:
            if order == "random":
                seed = int(st.number_input("Seed of the draw", 0, value=0, step=1, key=f"{PAGE}-rows-seed"))
    pairing = st.segmented_control(
        "Pairing", list(PAIRINGS), default=PAIRED, format_func=PAIRINGS.__getitem__, required=True,
        key=f"{PAGE}-pairing", label_visibility="collapsed",
    )  # fmt: skip
    st.caption(
        "Arms differ in their texts alone: a row that one arm lacks is left out of all."
        if pairing == PAIRED
        else "As many rows as the smallest arm has, drawn for each arm from its own: arms differ in their rows as well."
    )
    without = st.checkbox(
        "Leave out rows that the evaluation set asks, exactly or nearly", value=True, key=f"{PAGE}-without-overlap",
        help="What a student was trained on says nothing about how well it learnt.", persist_state="page",
    )  # fmt: skip
    return RowChoice(
        n_rows=n_rows,
        order="random" if order == "random" else "first",
        seed=seed,
        pairing=str(pairing),
        without_overlap=bool(without),
    )


# --- training and comparison ---


def _seeds() -> tuple[int, int]:
    first, second = st.columns(2)
    with first:
        n = st.number_input(
            "Seeds of each arm", 1, 20, 3, key=f"{PAGE}-seeds", persist_state="page",
            help="Finetunes of each arm that differ in their seed alone. The interval of a difference covers them.",
        )  # fmt: skip
    with second:
        seed = st.number_input("First seed", 0, value=0, step=1, key=f"{PAGE}-seed", persist_state="page")
    return int(n), int(seed)


def _evaluation_set(sets: Sequence[Mapping[str, Any]]) -> tuple[int, str | None]:
    by_id = {int(row["dataset_id"]): row for row in sets}
    options = sorted(by_id, key=lambda i: not by_id[i]["n_outputs"])  # first those that have a loss
    asked = st.query_params.get("evaluation", "")
    chosen = st.selectbox(
        "Evaluation loss on",
        options,
        index=options.index(int(asked)) if asked.isdecimal() and int(asked) in by_id else 0,
        format_func=lambda i: f"{by_id[i]['name']} (reference outputs: {by_id[i]['n_outputs']:,})",
        key=f"{PAGE}-evaluation-{_rows.identity(tuple(options))}",
    )
    st.query_params["evaluation"] = str(chosen)
    none = "No instruction of this evaluation set has a reference output, so there is no loss to compute."
    return int(chosen), None if by_id[int(chosen)]["n_outputs"] else none


def _test_set(service: Service, sets: Sequence[Mapping[str, Any]], evaluation_id: int) -> dict[str, Any]:
    """The part of the settings that is about answers: on which items, how many, how decoded."""
    names = {int(row["dataset_id"]): str(row["name"]) for row in sets}
    names |= {int(row["dataset_id"]): str(row["name"]) for row in queries.datasets(service.store)}
    options: list[int] = [evaluation_id, *(i for i in names if i != evaluation_id), 0]
    chosen = st.selectbox(
        "Answers judged on",
        options,
        format_func=lambda i: names[i] if i else "No answers: compare by loss alone",
        key=f"{PAGE}-test-{_rows.identity(tuple(options))}",
        help="Each arm's student of the first seed answers the instructions of this dataset.",
    )
    if not chosen:
        return {"test_set_id": None}
    first, second = st.columns(2)
    with first:
        n_items = st.number_input(
            "Questions at most (0: all)", 0, value=0, step=10, key=f"{PAGE}-items", persist_state="page",
        )  # fmt: skip
    with second:
        most = st.number_input(
            "Most tokens an answer", 1, 8192, 256, step=64, key=f"{PAGE}-tokens", persist_state="page",
            help="Answers are greedy: the likeliest token each time.",
        )  # fmt: skip
    return {
        "test_set_id": int(chosen),
        "n_items": int(n_items),
        "decoding": Decoding(max_new_tokens=int(most)).to_params(),
    }


def _judges() -> tuple[list[dict[str, Any]], list[str]]:
    """Settings of the judges that are set up, and what lacks of the others."""
    st.markdown("**Who judges the answers**")
    n = st.segmented_control(
        "Judges", list(range(MOST_JUDGES + 1)), default=1, required=True, key=f"{PAGE}-judges",
        format_func=lambda i: ("No judge", "One judge")[i] if i < 2 else f"{i} judges",
        label_visibility="collapsed",
    )  # fmt: skip
    st.caption(
        "Each sees every answer against the original's, in both orders. People can judge the same comparisons blind "
        "afterwards."
    )
    found: list[dict[str, Any]] = []
    missing: list[str] = []
    for number in range(1, int(n or 0) + 1):
        with st.container(border=True):
            st.markdown(f"**Judge {number}**" if int(n or 0) > 1 else "**The judge**")
            try:
                teacher, lacking = _teacher.teacher_form(f"{PAGE}-judge-{number}", temperature=0.0, max_tokens=1024)
            except AssayError as error:
                st.error(_ui.plain(str(error)), icon=":material/error:")
                missing.append("A judge is not set up yet.")
                continue
            if lacking:
                missing.append(f"Judge{f' {number}' if int(n or 0) > 1 else ''}: {lacking}")
            elif params_of(teacher) in found:
                missing.append(f"Judge {number} is the same as one before it; change one of them.")
            else:
                found.append(params_of(teacher))
    return found, missing


# --- the plan ---


@st.cache_data(max_entries=32, show_spinner="Looking for rows that the evaluation set asks …")
def _overlap(_store: Store, path: str, version: str, evaluation_id: int, dataset_id: int) -> frozenset[int]:
    return experiment_rows.overlapping(_store, evaluation_id, dataset_id)


@st.cache_data(max_entries=16, show_spinner="Looking at the rows …")
def _chosen(_store: Store, path: str, version: str, dataset_id: int, key: str, _settings: ExperimentSettings) -> Chosen:
    overlap = None
    if _settings.rows.without_overlap:
        overlap = _overlap(_store, path, version, _settings.evaluation_id, dataset_id)
    return experiment_rows.choose(_store, dataset_id, _settings, overlap=overlap)


def _plan(
    service: Service, version: str, dataset_id: int, settings: ExperimentSettings, finetune: FinetuneSettings,
    lacking: Sequence[str],
) -> None:  # fmt: skip
    store = service.store
    params = settings.to_params()
    key = _rows.identity(*(str(params[name]) for name in ("arms", "reflected", "rows", "evaluation_id")))
    chosen = _chosen(store, str(store.path), version, dataset_id, key, settings)
    found = experiment_plan.plan(store, dataset_id, settings, chosen)
    _rows_of_arms(found, settings)
    _work(found)
    for words in found.warnings:
        st.warning(_ui.plain(words), icon=":material/warning:")
    if found.pairing is None:
        st.error(_ui.plain(str(found.problem)), icon=":material/error:")
        return
    for words in lacking:
        st.info(_ui.plain(words), icon=":material/arrow_upward:")
    _start(service, dataset_id, settings, finetune, chosen, ready=not lacking)


def _rows_of_arms(found: Plan, settings: ExperimentSettings) -> None:
    chosen, pairing = found.chosen, found.pairing
    n = pairing.n_rows if pairing is not None else 0
    of = f" of {chosen.n_dataset:,}" if n != chosen.n_dataset else ""
    steps = f", {found.n_steps:,} optimiser steps a run" if found.n_steps is not None else ""
    st.markdown(f"**{n:,}{of} rows in each arm**{steps}")
    if chosen.n_overlap:
        st.caption(f"{chosen.n_overlap:,} rows are left out because the evaluation set asks them.")
    table = []
    for arm in settings.arms:
        made = arm in settings.made
        lost = found.lost.get(arm, {})
        has = chosen.n_left - sum(lost.values())
        changed = None if made or pairing is None else pairing.n_changed[arm]
        why = "; ".join(f"{n:,}: {reason}" for reason, n in lost.items())
        if made:
            why = "; ".join(
                filter(None, (why, "it is made first", "its filter may leave rows out" * _filters(settings, arm)))
            )
        table.append({"arm": ARM_WORDS[arm], "has": has, "in": n, "changed": changed, "lacks": why})
    st.dataframe(
        pd.DataFrame(table),
        hide_index=True,
        placeholder="—",
        height="content",
        key=f"{PAGE}-plan-rows",
        column_config={
            "arm": st.column_config.TextColumn(width=130),
            "has": st.column_config.NumberColumn("rows it has", format="localized", width=85),
            "in": st.column_config.NumberColumn("trained on", format="localized", width=80),
            "changed": st.column_config.NumberColumn(
                "changed", format="localized", width=75, help="Rows whose text is not the original's."
            ),
            "lacks": st.column_config.TextColumn("rows it lacks, and why", width="large"),
        },
    )


def _filters(settings: ExperimentSettings, arm: str) -> bool:
    return bool((settings.reflected[arm].options or {}).get("filter"))


def _work(found: Plan) -> None:
    seconds = f"About {_ui.duration(found.seconds)}" if found.seconds is not None else "Time unknown"
    cost = f", ${found.cost_usd:,.2f}" if found.cost_usd is not None else ""
    untimed = [line.what for line in found.lines if line.seconds is None]
    more = f" Not counted: {', '.join(untimed)}." if untimed else ""
    st.markdown(f"**{_ui.plain(seconds + cost)}**{_ui.plain(more)}")
    table = pd.DataFrame(
        {
            "step": [line.what for line in found.lines],
            "amount": [line.amount for line in found.lines],
            "in": pd.array([line.prompt_tokens for line in found.lines], dtype="Int64"),
            "out": pd.array([line.completion_tokens for line in found.lines], dtype="Int64"),
            "cost": [line.cost_usd for line in found.lines],
            "time": [_ui.duration(line.seconds) for line in found.lines],
        }
    )
    st.dataframe(
        table,
        hide_index=True,
        placeholder="—",
        height="content",
        key=f"{PAGE}-plan-work",
        column_config={
            "step": st.column_config.TextColumn(width="medium"),
            "amount": st.column_config.TextColumn(width="small", alignment="right"),
            "in": st.column_config.NumberColumn("prompt tokens", format="localized", width="small"),
            "out": st.column_config.NumberColumn("answer tokens", format="localized", width="small"),
            "cost": st.column_config.NumberColumn("cost (USD)", format="$%.2f", width="small"),
            "time": st.column_config.TextColumn(width=90, alignment="right"),
        },
    )
    basis = " ".join(dict.fromkeys(line.basis for line in found.lines if line.basis))
    st.caption(_ui.plain(f"{basis} Tokens are reckoned at four bytes each, without repeated calls. Times of teachers "
                         "and judges are known after their first answers."))  # fmt: skip


def _free_name(service: Service) -> str:
    taken = {one.name for one in experiments.experiments(service.store)}
    return next(name for i in range(1, len(taken) + 2) if (name := f"Does it help {i}") not in taken)


def _start(
    service: Service, dataset_id: int, settings: ExperimentSettings, finetune: FinetuneSettings, chosen: Chosen,
    *, ready: bool,
) -> None:  # fmt: skip
    left, right = st.columns([3, 1], vertical_alignment="bottom")
    with left:
        name = st.text_input("Name of the experiment", value=_free_name(service), max_chars=150, key=f"{PAGE}-name")
    with right:
        pressed = st.button(
            "Start the experiment",
            type="primary",
            icon=":material/play_arrow:",
            key=f"{PAGE}-start",
            **_ui.allowed("administer", disabled=not ready),
        )
    if not pressed:
        return
    try:
        with st.spinner("Making the experiment …"):
            experiment_id = experiments.create(
                service.store, name=str(name), dataset_id=dataset_id, settings=settings, chosen=chosen,
                created_by=_ui.reviewer() or None,
            )  # fmt: skip
            _finetune_form.remember(service, finetune)
            service.advance(experiment_id)
    except AssayError as error:
        st.error(_ui.plain(str(error)), icon=":material/error:")
        return
    st.query_params.clear()
    st.query_params["experiment"] = str(experiment_id)
    st.rerun()
