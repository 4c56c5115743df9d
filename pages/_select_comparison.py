"""Rule against random: what is asked before a comparison starts, and its start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from core import comparison
from core.errors import AssayError
from core.finetune.settings import FinetuneSettings
from core.pace import CHARACTERS_PER_TOKEN
from core.studies import comparison_runs
from db import evaluation, selections, studies
from db.service import Service
from pages import _finetune_form, _select_size, _ui
from pages._select_data import Chosen
from pages._select_size import Size

KIND = "comparison"
RANDOM, REPEATS = 5, 1
MOST_RUNS = 500
STARTED = "select-comparison"
"""In the session: the comparison that was just started."""


def form(chosen: Chosen) -> None:
    """What is asked before a comparison starts, with its expected time."""
    st.subheader("Rule against random", anchor=False)
    sets = evaluation.evaluation_sets(chosen.store)
    usable = {one["dataset_id"]: one for one in sets if one["n_outputs"]}
    if not usable:
        _ui.empty(
            "A comparison needs an evaluation set with reference outputs: the loss on it says which subset is better.",
            page="evaluation.py", label="Make an evaluation set",
        )  # fmt: skip
        return
    size = _select_size.current_size(chosen)
    pool = [i for i in chosen.prepared.rows.example_ids.tolist() if i not in chosen.prepared.excluded]
    st.caption(
        f"The {size.n:,} selected rows and random subsets of {size.n:,} rows each train the same base model with the "
        f"same settings. Random subsets are drawn from all {len(pool):,} rows that may be trained on, whatever their "
        "predicted value, the selected ones included."
    )
    name, evaluation_id, n_random, n_selected, seed = _numbers(chosen, size, usable)
    st.caption(_ui.plain(_said(n_random, n_selected, size, len(pool))))
    usual = _finetune_form.of_the_last_study(chosen.service, evaluation_id)
    settings = _finetune_form.form(chosen.service, key="select-comparison", default=usual)
    if settings is None:
        return
    n_runs = n_random + n_selected + 1
    left, right = st.columns(2, gap="medium")
    with left:
        _expected(chosen, settings, n_runs=n_runs, evaluation_id=evaluation_id, size=size)
    with right:
        _overlap(chosen, evaluation_id)
    if st.button(
        f"Start {n_runs} runs",
        type="primary",
        icon=":material/play_arrow:",
        key="select-start-comparison",
        **_ui.allowed("administer", disabled=not size.n or size.n >= len(pool)),
    ):
        _start(
            chosen, settings, pool, name=name, evaluation_id=evaluation_id, n_random=n_random, n_selected=n_selected,
            seed=seed,
        )  # fmt: skip
    if size.n >= len(pool):
        st.caption("The selection holds every row that may be trained on: there is no other subset of this size.")


def _numbers(
    chosen: Chosen, size: Size, usable: Mapping[int, Mapping[str, Any]]
) -> tuple[str, int, int, int, int]:  # fmt: skip
    first, second = st.columns([3, 2]), st.columns(3)
    with first[0]:
        name = st.text_input(
            "Name of the study",
            value=f"{chosen.dataset}: best {size.n:,} against random"[:200],
            max_chars=200,
            key=f"select-comparison-name-{chosen.dataset_id}-{size.n}",
        )
    with first[1]:
        evaluation_id = st.selectbox(
            "Evaluation set",
            list(usable),
            format_func=lambda i: f"{usable[i]['name']} ({usable[i]['n_outputs']:,} outputs)",
            key="select-comparison-evaluation",
        )
    with second[0]:
        n_random = st.number_input("Random subsets", 1, MOST_RUNS, RANDOM, key="select-comparison-random")
    with second[1]:
        n_selected = st.number_input(
            "Runs of the selected subset", 1, MOST_RUNS, REPEATS, key="select-comparison-repeats",
            help="More than one trains the same rows again with other seeds. Their mean scatters less, and their "
            "spread says how much of a difference is chance of the training. They are no further subsets: p does not "
            "get smaller by them.",
        )  # fmt: skip
    with second[2]:
        seed = st.number_input(
            "Seed", 0, 2**31 - 1, 0, key="select-comparison-seed",
            help="Of the random subsets and of the trainings. The same seed draws the same subsets.",
        )  # fmt: skip
    return name, int(evaluation_id), int(n_random), int(n_selected), int(seed)


def _said(n_random: int, n_selected: int, size: Size, n_pool: int) -> str:
    said = [comparison.smallest_p_words(n_random)]
    if n_selected == 1:
        said.append("One run of the selected subset holds the chance of its training; more runs average it out.")
    share = size.n / max(1, n_pool)
    if share > 0.25:
        said.append(
            f"Each random subset shares about {100 * share:.0f} % of its rows with the selected one, so they can "
            "differ little; a smaller selection shows more."
        )
    return " ".join(said)


def _expected(chosen: Chosen, settings: FinetuneSettings, *, n_runs: int, evaluation_id: int, size: Size) -> None:
    from core.finetune.pace import estimate

    rows = chosen.prepared.rows
    mean = float(rows.characters.mean()) / CHARACTERS_PER_TOKEN
    found = estimate(
        settings,
        n_runs=n_runs,
        train_tokens=mean * size.n,
        eval_tokens=selections.n_evaluation_characters(chosen.store, evaluation_id) / CHARACTERS_PER_TOKEN,
        past=studies.past_finetunes(chosen.store),
        n_rows=size.n,
    )
    gpus = chosen.service.scheduler.gpus() if settings.device.startswith("cuda") else ()
    parts = min(max(1, len(gpus)), n_runs)
    shared = f" on {parts} GPUs" if parts > 1 else ""
    st.markdown(
        f":material/schedule: About **{_ui.duration(found.seconds / parts)}**{shared} for {n_runs} runs, the untrained "
        f"base among them. {_ui.plain(found.basis)}"
    )


@st.cache_data(max_entries=32, show_spinner="Comparing with the evaluation set …")
def _shared(_service: Service, path: str, state: str, evaluation_id: int, dataset_id: int) -> dict[str, int]:
    found = evaluation.overlap(_service.store, evaluation_id, [dataset_id])
    near = {pair.training_id for pair in found.near}
    return {
        "exact": len({pair.training_id for pair in found.exact}),
        "near": len(near),
        "instructions": found.n_instructions_found,
    }


def _overlap(chosen: Chosen, evaluation_id: int) -> None:
    state = selections.evaluation_state(chosen.store)
    found = _shared(chosen.service, str(chosen.store.path), state, evaluation_id, chosen.dataset_id)
    if not found["exact"] and not found["near"]:
        st.markdown(":material/check: No row of this dataset asks, exactly or nearly, what the evaluation set asks.")
        return
    left_out = " The exact ones are left out of the selection and of random subsets."
    st.warning(
        f"{found['exact']:,} rows of this dataset ask exactly and {found['near']:,} nearly what the evaluation set "
        f"asks ({found['instructions']:,} of its instructions).{left_out if chosen.constraints.evaluation else ''}",
        icon=":material/warning:",
    )
    st.page_link(
        "evaluation.py",
        label="See them",
        icon=":material/fact_check:",
        query_params={"set": str(evaluation_id), "panel": "overlap", "against": str(chosen.dataset_id)},
    )


def _start(
    chosen: Chosen, settings: FinetuneSettings, pool: Sequence[int], *, name: str, evaluation_id: int, n_random: int,
    n_selected: int, seed: int,
) -> None:  # fmt: skip
    service = chosen.service
    size = _select_size.current_size(chosen)
    selected, details = _select_size.details_of(chosen, size)
    try:
        runs = comparison_runs(selected, pool, n_random=n_random, seed=seed, n_selected=n_selected)
        study_id = studies.create_study(
            service.store,
            name=name,
            kind=KIND,
            evaluation_id=evaluation_id,
            settings=settings,
            runs=runs,
            design={
                **details, "seed": seed, "n_random": n_random, "n_selected_runs": n_selected, "n_pool": len(pool),
            },
            created_by=_ui.reviewer() or None,
        )  # fmt: skip
        try:
            submit(service, study_id, settings)
        except AssayError:
            studies.remove_study(service.store, study_id)  # nothing of it has run
            raise
    except AssayError as error:
        st.error(_ui.plain(str(error)), icon=":material/error:")
        return
    _finetune_form.remember(service, settings)
    st.session_state[STARTED] = study_id
    st.query_params["comparison"] = str(study_id)
    st.rerun()


def submit(service: Service, study_id: int, settings: FinetuneSettings) -> None:
    """Put the runs of a study that are not done into the queue, shared out to the GPUs that there are.

    Raises:
        AssayError: the base model, the evaluation set or a dataset is gone, or a job of the study is at work.
    """
    parts = max(1, len(service.scheduler.gpus())) if settings.device.startswith("cuda") else 1
    folders = studies.submit_study(
        service.store, service.settings.jobs_path, study_id=study_id, parts=parts, created_by=_ui.reviewer() or None
    )
    for folder in folders:
        service.enqueue(folder)
