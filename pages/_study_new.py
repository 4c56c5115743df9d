"""A new study: what it shall tell, from which rows, evaluated on what, trained how. Its plan is drawn below at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from core.errors import AssayError
from core.finetune.settings import FinetuneSettings, sample_preset
from core.scoring import DEMO_STUDENT
from db import evaluation, fits, queries, sample, study_means, study_plans
from db.service import Service
from db.store import Store
from db.study_means import IndicatorColumn
from db.study_plans import Design
from pages import _choose, _finetune_form, _rows, _study_plan, _ui

KINDS = {
    "multivariate": "Mixtures",
    "univariate": "Bins of an indicator",
    "size": "Best k rows",
    "single": "One finetune",
}
NOTES = {
    "multivariate": "Mixtures of sources in random proportions. A regression over them says which indicators of a "
    "dataset predict the evaluation loss.",
    "univariate": "One dataset, sorted by an indicator and cut into equal bins. Shows how the loss goes with that "
    "indicator alone.",
    "size": "The best k rows by a rule for several k, each beside random subsets of the same size.",
    "single": "One finetune on all rows of a dataset, beside the untrained base.",
}
PAGE = "study-new"
_MANY_RUNS = 200
_SIZES = 5


def show(service: Service) -> None:
    """The form, and the plan of what it asks for."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader("A new study", anchor=False, width="stretch")
        st.page_link("studies.py", label="All studies", icon=":material/arrow_back:")
    version = queries.version(service.store)
    sets = evaluation.evaluation_sets(service.store)
    if not sets:
        _ui.empty(
            "A study needs an evaluation set: instructions with reference outputs that are never trained on.",
            page="evaluation.py", label="Make an evaluation set", icon=":material/fact_check:",
        )  # fmt: skip
        return
    marked = {row["dataset_id"] for row in sets}
    datasets = [row for row in queries.datasets(service.store) if row["dataset_id"] not in marked and row["n_members"]]
    if not datasets:
        _ui.empty("There is no dataset to train on yet.", page="load.py", label="Load a dataset")
        return
    left, right = st.columns([1, 1], gap="large")
    with left:
        design, columns = _design(service, version, datasets)
        evaluation_id, without_overlap = _evaluation_set(sets)
    with right:
        st.markdown("**How each run is trained**")
        is_sample = _choose.numbers("datasets") == [sample.sample_dataset(service.store)]
        settings = _finetune_form.form(
            service, key="study-setting", default=sample_preset(str(DEMO_STUDENT)) if is_sample else None
        )
    if design is not None and evaluation_id is not None:
        _plan(service, version, design, columns, evaluation_id, settings, without_overlap=without_overlap)


def _plan(
    service: Service, version: str, design: Design, columns: Sequence[IndicatorColumn], evaluation_id: int,
    settings: FinetuneSettings | None, *, without_overlap: bool,
) -> None:  # fmt: skip
    st.subheader("The plan", anchor=False)
    try:
        _study_plan.show(service, version, design, columns, evaluation_id, settings, without_overlap=without_overlap)
    except AssayError as error:
        st.error(_ui.plain(str(error)), icon=":material/error:")


# --- what is asked ---


def _kind() -> str:
    asked = st.query_params.get("new", "")
    kind = st.segmented_control(
        "What the study shall tell",
        list(KINDS),
        default=asked if asked in KINDS else next(iter(KINDS)),
        format_func=KINDS.__getitem__,
        required=True,
        key=f"{PAGE}-kind",
    )
    st.query_params["new"] = str(kind)
    st.caption(NOTES[str(kind)])
    return str(kind)


@st.cache_data(max_entries=32, show_spinner=False)
def _columns(_store: Store, path: str, version: str, datasets: tuple[int, ...]) -> list[IndicatorColumn]:
    return study_means.indicator_columns(_store, datasets) if datasets else []


def _design(
    service: Service, version: str, datasets: Sequence[Mapping[str, Any]]
) -> tuple[Design | None, list[IndicatorColumn]]:
    """The design that the widgets ask for; None, with the reason shown, while something lacks."""
    kind = _kind()
    names = _ui.dataset_names(datasets)
    chosen = _sources(names, kind)
    if not chosen:
        st.info("Choose the rows to train on.", icon=":material/arrow_upward:")
        return None, []
    columns = _columns(service.store, str(service.store.path), version, chosen)
    seed = 0
    if kind == "multivariate":
        fields = _mixtures(service, version, chosen, columns)
    elif kind == "univariate":
        fields = _bins(columns)
    elif kind == "size":
        n_rows = next(int(row["n_members"]) for row in datasets if row["dataset_id"] == chosen[0])
        fields = _sizes(service, chosen[0], n_rows)
    else:
        fields = {}
    if fields is None:
        return None, columns
    with st.columns(3)[0]:
        seed = int(
            st.number_input(
                "Seed",
                min_value=0,
                value=0,
                step=1,
                help="Of the draws and of the training. The same seed gives the same study.",
                key=f"{PAGE}-seed",
                persist_state="page",
            )
        )
    return Design(kind=kind, dataset_ids=chosen, seed=seed, **fields), columns


def _sources(names: Mapping[int, str], kind: str) -> tuple[int, ...]:
    asked = [i for i in (*_choose.numbers("datasets"), *_choose.numbers("dataset")) if i in names]
    usual = asked or list(names)[:1]
    if kind in ("size", "single"):
        options = list(names)
        found = st.selectbox(
            "Dataset",
            options,
            index=options.index(usual[0]),
            format_func=names.__getitem__,
            key=f"{PAGE}-dataset-{_rows.identity(tuple(options))}",
        )
        chosen = [found] if found is not None else []
    else:
        chosen = st.multiselect(
            "Rows from",
            list(names),
            default=usual,
            format_func=names.__getitem__,
            key=f"{PAGE}-datasets",
            persist_state="page",
        )
    st.query_params["datasets"] = ".".join(map(str, chosen))
    return tuple(chosen)


def _mixtures(
    service: Service, version: str, chosen: tuple[int, ...], columns: Sequence[IndicatorColumn]
) -> dict[str, Any] | None:
    split_by = _split_by(service, version, chosen)
    try:
        found = _source_sizes(service.store, str(service.store.path), version, chosen, split_by)
    except AssayError as error:
        st.error(_ui.plain(str(error)), icon=":material/error:")
        return None
    total = sum(found.values())
    shown = " · ".join(f"{name}: {n:,}" for name, n in list(found.items())[:12])
    more = f" · and {len(found) - 12} more" if len(found) > 12 else ""
    st.caption(_ui.plain(f"{len(found)} sources: {shown}{more}"))
    n_runs, size = study_plans.usual_counts(total)
    key = f"{PAGE}-{_rows.identity(chosen, split_by)}"
    first, second = st.columns(2)
    with first:
        n_runs = int(
            st.number_input(
                "Mixtures", min_value=1, max_value=_MANY_RUNS, value=n_runs, step=1, key=f"{key}-runs",
                help="One finetune each. The paper: 78.", persist_state="page",
            )
        )  # fmt: skip
    with second:
        size = int(
            st.number_input(
                "Rows in each", min_value=1, value=min(size, max(1, total)), step=10, key=f"{key}-size",
                help="The paper: 2,000.", persist_state="page",
            )
        )  # fmt: skip
    steer, spread = _steering(columns, key=key)
    return {"split_by": split_by, "n_runs": n_runs, "size": size, "steer": steer, "spread": spread}


def _split_by(service: Service, version: str, chosen: tuple[int, ...]) -> str | None:
    """By which further column the rows are told apart into sources; None: by dataset."""
    by = _choose.by(
        service.store, version, chosen, label="Sources are told apart by", parameter="split", page=PAGE
    )  # fmt: skip
    return by.key


@st.cache_data(max_entries=64, show_spinner="Looking at the sources …")
def _source_sizes(
    _store: Store, path: str, version: str, datasets: tuple[int, ...], split_by: str | None
) -> dict[str, int]:
    design = Design(kind="multivariate", dataset_ids=datasets, split_by=split_by)
    return {source.label: len(source) for source in study_plans.sources(_store, design)}


def _steering(columns: Sequence[IndicatorColumn], *, key: str) -> tuple[str | None, float]:
    """Whether mixtures are drawn so that the mean of an indicator spreads; None: in random proportions alone."""
    labels = {column.key: column.label for column in columns}
    options = ["", *labels]
    asked = st.query_params.get("steer", "")
    # A line of its own: the names are long.
    steer = st.selectbox(
        "Steer by",
        options,
        index=options.index(asked) if asked in options else 0,
        format_func=lambda one: labels[one] if one else "nothing: random proportions",
        help="Random mixtures of similar sources barely vary. Steered ones are drawn so that the mean of this "
        "indicator is spread evenly: rows are drawn with weights exp(λ·z) of their value on top of the random "
        "proportions, λ found for each mixture.",
        key=f"{PAGE}-steer-{_rows.identity(tuple(options))}",
    )
    if not steer:
        st.query_params.pop("steer", None)
        return None, 0.6
    st.query_params["steer"] = steer
    spread = st.slider(
        "How far the means are spread",
        0.1,
        1.0,
        0.6,
        0.1,
        help="Share of the way from the mean of all rows to the lowest and the highest mean that can be had.",
        key=f"{key}-spread",
        persist_state="page",
    )
    return str(steer), float(spread)


def _bins(columns: Sequence[IndicatorColumn]) -> dict[str, Any] | None:
    if not columns:
        _ui.empty("None of these rows has a score yet.", page="score.py", label="Score them", icon=":material/speed:")
        return None
    labels = {column.key: column.label for column in columns}
    asked = [key for key in st.query_params.get("by", "").split(",") if key in labels] or list(labels)[:1]
    left, right = st.columns([3, 1])
    with left:
        indicators = st.multiselect(
            "Sorted by",
            list(labels),
            default=asked,
            format_func=labels.__getitem__,
            help="The runs are made for each of them.",
            key=f"{PAGE}-by-{_rows.identity(tuple(labels))}",
        )
    st.query_params["by"] = ",".join(indicators)
    with right:
        n_bins = st.number_input(
            "Bins", min_value=2, max_value=50, value=8, step=1, help="The paper: 8.", key=f"{PAGE}-bins",
            persist_state="page",
        )  # fmt: skip
    if not indicators:
        st.info("Choose at least one indicator.", icon=":material/arrow_upward:")
        return None
    return {"indicators": tuple(indicators), "n_bins": int(n_bins)}


def _sizes(service: Service, dataset_id: int, n_rows: int) -> dict[str, Any] | None:
    names = [one["name"] for one in fits.rules(service.store)]
    by_name = {one["name"]: one["rule"] for one in fits.rules(service.store)}
    asked = st.query_params.get("rule", "")
    first, second, third = st.columns([2, 2, 1])
    with first:
        name = st.selectbox(
            "Ranked by the rule",
            names,
            index=names.index(asked) if asked in names else len(names) - 1 if len(names) == 1 else 1,
            key=f"{PAGE}-rule-{_rows.identity(tuple(names))}",
        )
    st.query_params["rule"] = str(name)
    with second:
        typed = st.text_input(
            "Sizes k, in rows",
            value=", ".join(str(k) for k in usual_sizes(n_rows)),
            help="How many of the best rows, each size a run of its own, parted by commas.",
            key=f"{PAGE}-sizes-{dataset_id}-{n_rows}",
            persist_state="page",
        )
    with third:
        n_random = st.number_input(
            "Random each", min_value=0, max_value=50, value=2, step=1, key=f"{PAGE}-random", persist_state="page",
            help="Random subsets of the same size beside each.",
        )  # fmt: skip
    try:
        study_plans.applied(service.store, dataset_id, by_name[str(name)])
    except AssayError as error:
        st.error(_ui.plain(f"This rule cannot rank this dataset. {error}"), icon=":material/rule:")
        with st.container(horizontal=True):
            st.page_link("score.py", label="Score it", icon=":material/speed:",
                         query_params={"dataset": str(dataset_id)})  # fmt: skip
            st.page_link("regression.py", label="Fit a rule", icon=":material/functions:")
        return None
    sizes = [part.strip() for part in str(typed).replace(";", ",").split(",") if part.strip()]
    if not sizes or any(not part.isdecimal() or int(part) == 0 for part in sizes):
        st.error("The sizes are whole numbers above 0, parted by commas, such as 100, 200, 400.")
        return None
    return {"rule": str(name), "sizes": tuple(dict.fromkeys(map(int, sizes))), "n_random": int(n_random)}


def usual_sizes(n_rows: int) -> list[int]:
    """Sizes that suit so many rows: halves of it, the smallest first."""
    found = {max(1, n_rows // 2**i) for i in range(1, _SIZES + 1)}
    return sorted(found)


def _evaluation_set(sets: Sequence[Mapping[str, Any]]) -> tuple[int | None, bool]:
    by_id = {row["dataset_id"]: row for row in sets}
    options = list(by_id)
    asked = st.query_params.get("evaluation", "")
    chosen = st.selectbox(
        "Evaluated on",
        options,
        index=options.index(int(asked)) if asked.isdecimal() and int(asked) in by_id else 0,
        format_func=lambda i: f"{by_id[i]['name']} (reference outputs: {by_id[i]['n_outputs']:,})",
        key=f"{PAGE}-evaluation-{_rows.identity(tuple(options))}",
    )
    st.query_params["evaluation"] = str(chosen)
    row = by_id[int(chosen)]
    if not row["n_outputs"]:
        st.error("No instruction of this evaluation set has a reference output, so there is no loss to compute.")
        st.page_link("evaluation.py", label="Have references written", icon=":material/fact_check:",
                     query_params={"set": str(chosen), "panel": "references"})  # fmt: skip
        return None, False
    without = st.checkbox(
        "Leave out rows that the evaluation set asks, exactly or nearly",
        value=True,
        help="What a student was trained on says nothing about how well it learnt. The plan below shows these rows.",
        key=f"{PAGE}-without-overlap",
        persist_state="page",
    )
    return int(chosen), bool(without)
