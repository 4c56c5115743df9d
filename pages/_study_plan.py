"""The plan of a study: its datasets, their indicator means, what is doubtful, how long it takes; then the start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from core.charts import relations as relation_charts
from core.charts import studies as charts
from core.correlation import order_by_similarity
from core.errors import AssayError
from core.finetune.settings import FinetuneSettings
from core.finetune.texts import n_steps
from core.model_check import adapter_bytes, gigabytes
from core.overlap import Overlap
from core.pace import Estimate
from db import evaluation, queries, studies, study_plans
from db.service import Service
from db.store import Store
from db.study_means import IndicatorColumn
from db.study_plans import Design, Plan
from pages import _finetune_form, _models, _rows, _study_actions, _study_data, _ui

_FEW_STEPS = 4
_FIRST_WARNINGS = 4
_MOST_BARS = 120
_PAIRS_SHOWN = 50


@st.cache_data(max_entries=16, show_spinner="Comparing the sources with the evaluation set …")
def _overlap(_store: Store, path: str, version: str, evaluation_id: int, datasets: tuple[int, ...]) -> Overlap:
    return evaluation.overlap(_store, evaluation_id, datasets)


@st.cache_data(max_entries=16, show_spinner="Drawing the plan …")
def _planned(
    _store: Store, path: str, version: str, design: Design, _columns: Sequence[IndicatorColumn], keys: tuple[str, ...],
    evaluation_id: int, left_out: tuple[int, ...],
) -> Plan:  # fmt: skip
    """The plan; ``keys`` are those of the columns whose means are taken."""
    runs = study_plans.draw(_store, design, _columns, left_out=left_out)
    shown = [column for column in _columns if column.key in keys]
    return study_plans.look(_store, runs, kind=design.kind, evaluation_id=evaluation_id, columns=shown)


def show(
    service: Service, version: str, design: Design, columns: Sequence[IndicatorColumn], evaluation_id: int,
    settings: FinetuneSettings | None, *, without_overlap: bool,
) -> None:  # fmt: skip
    """The plan of a design, and the button that starts it.

    Raises:
        AssayError: it cannot be drawn.
    """
    path = str(service.store.path)
    shared = _overlap(service.store, path, version, evaluation_id, design.dataset_ids)
    left_out = tuple(shared.training_ids) if without_overlap else ()
    costly = study_plans.costly_columns(design, columns)
    labels = {column.key: column.label for column in columns}
    keys = tuple(_study_data.chosen_keys(labels, key="study-plan", unusual=costly))
    if any(key not in keys for key in costly):
        names = ", ".join(labels[key] for key in costly if key not in keys)
        st.caption(
            _ui.plain(
                f"{names} is left out here: distances within so many rows take a while. Choose it under Indicators to "
                "have it in the plan; the study takes it up in any case."
            )
        )
    plan = _planned(service.store, path, version, design, columns, keys, evaluation_id, left_out)
    expected = None if settings is None else _expected(service, version, plan, settings)
    _numbers(service, plan, settings, expected)
    _warnings(plan, shared, settings, without_overlap=without_overlap)
    key = _rows.identity(design, evaluation_id, left_out, keys, version)
    tables, pictures = st.columns([1, 1], gap="large")
    with tables:
        _runs(plan, key=key)
        _spreads(plan, key=key)
    with pictures:
        _composition(plan, key=key)
        _correlations(plan, key=key)
    _shared(service, shared, key=key, without_overlap=without_overlap)
    if settings is None:
        st.info("The training setting cannot be used: see what is wrong with it above.", icon=":material/arrow_upward:")
        return
    _start_bar(service, plan, design, evaluation_id, settings, expected, without_overlap=without_overlap, key=key)


# --- numbers ---


@st.cache_data(max_entries=8, show_spinner=False)
def _past(_store: Store, path: str, version: str) -> list[Any]:
    return studies.past_finetunes(_store)


def _expected(service: Service, version: str, plan: Plan, settings: FinetuneSettings) -> Estimate:
    from core.finetune import pace

    parts = _study_actions.n_parts(service, settings.device)
    past = _past(service.store, str(service.store.path), version)
    return pace.estimate(
        settings,
        n_runs=-(-len(plan.runs) // parts),
        train_tokens=plan.train_tokens,
        eval_tokens=plan.eval_tokens,
        past=past,
        n_rows=sum(len(run.example_ids) for run in plan.runs) / len(plan.runs),
    )


def _numbers(service: Service, plan: Plan, settings: FinetuneSettings | None, expected: Estimate | None) -> None:
    sizes = [len(run.example_ids) for run in plan.runs]
    rows = f"{min(sizes):,}" if min(sizes) == max(sizes) else f"{min(sizes):,} – {max(sizes):,}"
    cells = [
        ("Finetunes", f"{len(plan.runs):,}", "Beside them the untrained base is evaluated."),
        ("Rows in each", rows, f"{plan.n_pool:,} distinct rows in all."),
        (
            "Evaluated on",
            f"{plan.n_outputs:,} output{'s' if plan.n_outputs != 1 else ''}",
            f"Reference outputs of {plan.n_instructions:,} instruction{'s' if plan.n_instructions != 1 else ''}.",
        ),
    ]
    if expected is not None:
        words = "About this long" if expected.measured else "About this long, a guess"
        cells.append((words, _ui.duration(expected.seconds), expected.basis))
    if settings is not None and settings.keep_adapter:
        files = _models.files_of(settings.base, settings.revision)
        size = None if isinstance(files, str) else adapter_bytes(settings, files)
        told = gigabytes(size * len(plan.runs)) if size else "—"
        cells.append(("Disk for adapters", told, "In the folder of the job; deleting the job deletes them."))
    for column, (label, value, words) in zip(st.columns(len(cells)), cells, strict=True):
        column.metric(label, value, border=True, help=_ui.plain(words))
    if expected is not None:
        parts = _study_actions.n_parts(service, settings.device) if settings is not None else 1
        more = f" Shared out to {parts} GPUs." if parts > 1 else ""
        st.caption(_ui.plain(expected.basis + more))


def _few_steps(plan: Plan, settings: FinetuneSettings | None) -> list[str]:
    """Runs so short that they hardly move the adapter away from nothing."""
    if settings is None:
        return []
    steps = min(
        n_steps(
            len(run.example_ids), batch_size=settings.batch_size, epochs=settings.epochs, max_steps=settings.max_steps
        )
        for run in plan.runs
    )
    if steps >= _FEW_STEPS:
        return []
    return [
        f"A run has {steps} optimiser step{'s' if steps > 1 else ''}, after which it will hardly differ from the "
        "untrained base. Take more rows, more epochs or smaller batches."
    ]


def _warnings(plan: Plan, shared: Overlap, settings: FinetuneSettings | None, *, without_overlap: bool) -> None:
    found = [*_few_steps(plan, settings), *plan.warnings]
    if not plan.means.columns:
        st.markdown(
            ":orange[⚠] :small[These rows have no score yet, so there is nothing to set the losses against. The runs "
            "can be done first; scores are taken up whenever they come.]"
        )
        st.page_link("score.py", label="Score them", icon=":material/speed:")
    if shared.n_instructions_found and not without_overlap:
        found.insert(
            0,
            f"{shared.n_instructions_found:,} of {shared.n_instructions:,} instructions of the evaluation set stand in "
            "the sources, exactly or nearly, so the evaluation loss says too little. Leave these rows out above.",
        )
    if not found and plan.means.columns:
        st.markdown(":green[✓] :small[Nothing is doubtful about this plan.]")
        return
    for words in found[:_FIRST_WARNINGS]:
        st.markdown(f":orange[⚠] :small[{_ui.plain(words)}]")
    if len(found) > _FIRST_WARNINGS:
        with st.expander(f"{len(found) - _FIRST_WARNINGS} more to know", icon=":material/warning:"):
            for words in found[_FIRST_WARNINGS:]:
                st.markdown(f":orange[⚠] :small[{_ui.plain(words)}]")


# --- tables ---


def plan_table(plan: Plan) -> pd.DataFrame:
    """A line a run: its rows, those of each source, the mean of each indicator and how many rows have none."""
    lines = []
    for place, run in enumerate(plan.runs):
        line: dict[str, Any] = {"run": run.label, "rows": len(run.example_ids)}
        line |= {f"from {name}": run.details.get("proportions", {}).get(name, 0) for name in plan.sources}
        for i, column in enumerate(plan.means.columns):
            value = float(plan.means.mean[place, i])
            line[column.label] = None if pd.isna(value) else value
            without = int(plan.means.n_members[place, i] - plan.means.n_values[place, i])
            if plan.n_without[i]:
                line[f"{column.label}: NULL"] = without
        lines.append(line)
    return pd.DataFrame(lines)


def _runs(plan: Plan, *, key: str) -> None:
    st.markdown("**Planned datasets**")
    table = plan_table(plan)
    config: dict[str, Any] = {
        name: st.column_config.NumberColumn(format="localized")
        for name in table.columns
        if name == "rows" or name.startswith("from ") or name.endswith(": NULL")
    }
    config |= {column.label: st.column_config.NumberColumn(format="%.4g") for column in plan.means.columns}
    st.dataframe(
        table,
        hide_index=True,
        height="content" if len(table) <= 8 else 318,
        placeholder="—",
        key=f"study-plan-runs-{key}",
        column_config={**config, "run": st.column_config.TextColumn(width="medium", pinned=True)},
    )
    st.download_button(
        "The plan as a table",
        data=_ui.csv_bytes(table),
        file_name="plan.csv",
        mime="text/csv",
        key=f"study-plan-csv-{key}",
        type="tertiary",
        icon=":material/download:",
        on_click="ignore",
    )


def _spreads(plan: Plan, *, key: str) -> None:
    if not plan.means.columns or len(plan.runs) < 2:
        return
    st.markdown("**How far the means spread over the runs**")
    st.dataframe(
        [_spread(plan, i) for i in range(len(plan.means.columns))],
        hide_index=True,
        height="content" if len(plan.means.columns) <= 8 else 318,
        placeholder="—",
        key=f"study-plan-spread-{key}",
        column_config={
            "lowest": st.column_config.NumberColumn(format="%.4g", width="small"),
            "highest": st.column_config.NumberColumn(format="%.4g", width="small"),
            "spread": st.column_config.ProgressColumn(
                "spread over the runs",
                help="Standard deviation of the means over the runs, against that of the rows of a run. A fit needs "
                "means that differ; under 0.02 they barely vary.",
                format="%.2f",
                min_value=0.0,
                max_value=1.0,
            ),
            "NULL": st.column_config.NumberColumn(
                "rows without a value", format="localized", help="Of all runs together; means are over the others."
            ),
        },
    )


def _spread(plan: Plan, i: int) -> dict[str, Any]:
    values = pd.Series(plan.means.mean[:, i]).dropna()
    row_sd = plan.row_sd[i]
    spread = None if len(values) < 2 or not row_sd else float(values.std()) / row_sd
    return {
        "indicator": plan.means.columns[i].label,
        "lowest": None if values.empty else float(values.min()),
        "highest": None if values.empty else float(values.max()),
        "spread": spread,
        "NULL": plan.n_without[i],
    }


# --- figures ---


def _composition(plan: Plan, *, key: str) -> None:
    if len(plan.sources) < 2:
        return
    st.markdown("**Rows by source**")
    rows = [{"label": run.label, "proportions": run.details.get("proportions", {})} for run in plan.runs[:_MOST_BARS]]
    _ui.chart(
        charts.composition_figure(rows, plan.sources),
        key=f"study-plan-composition-{key}",
        data=[{"run": row["label"], **row["proportions"]} for row in rows],
        name="rows-by-source",
    )


def _correlations(plan: Plan, *, key: str) -> None:
    if len(plan.means.columns) < 2 or len(plan.runs) < 3:
        return
    st.markdown("**How the indicators go together over the runs**")
    table, labels = plan.correlations, [column.label for column in plan.means.columns]
    order = order_by_similarity(table)
    _ui.chart(
        relation_charts.correlation_figure(
            table, labels, order=order, method="Pearson", dark=st.context.theme.type == "dark"
        ),
        key=f"study-plan-correlations-{key}",
        data=[
            {"indicator": labels[i], "other": labels[j], "correlation": table[i][j].value, "runs": table[i][j].n}
            for at, i in enumerate(order)
            for j in order[at + 1 :]
        ],
        name="correlations-of-the-plan",
    )
    st.caption("Two indicators near +1 or −1 cannot be told apart by a fit over these runs.")


# --- overlap ---


def _shared(service: Service, shared: Overlap, *, key: str, without_overlap: bool) -> None:
    n = len(shared.training_ids)
    n_pairs = shared.counts.get("exact", len(shared.exact)) + shared.counts.get("near", len(shared.near))
    what = "left out" if without_overlap else "trained on"
    title = f"Overlap with the evaluation set: {n:,} rows, {what}" if n else "No overlap with the evaluation set"
    with st.expander(title, icon=":material/join_inner:", key=f"study-plan-overlap-{key}"):
        st.caption(
            _ui.plain(
                f"{shared.n_training:,} rows were compared with {shared.n_instructions:,} instructions: the same "
                f"instruction and input, and near ones (similarity {shared.threshold:g} or more, by "
                f"{shared.near_measure}). The same instruction with another input stays: "
                f"{shared.counts.get('same_instruction', 0):,} pairs."
            )
        )
        if not n:
            return
        pairs = [*(("same", pair) for pair in shared.exact), *(("near", pair) for pair in shared.near)][:_PAIRS_SHOWN]
        ids = list(dict.fromkeys(i for _, pair in pairs for i in (pair.evaluation_id, pair.training_id)))
        texts = {row["example_id"]: row["instruction"] for row in queries.previews(service.store, ids)}
        st.dataframe(
            [
                {
                    "how": how,
                    "similarity": pair.similarity,
                    "evaluation": texts.get(pair.evaluation_id, ""),
                    "training row": texts.get(pair.training_id, ""),
                }
                for how, pair in pairs
            ],
            hide_index=True,
            height="content" if len(pairs) <= 6 else 250,
            key=f"study-plan-overlap-table-{key}",
            column_config={
                "similarity": st.column_config.NumberColumn(format="%.3f", width="small"),
                "how": st.column_config.TextColumn(width="small"),
                "evaluation": st.column_config.TextColumn(width="large"),
                "training row": st.column_config.TextColumn(width="large"),
            },
        )
        if n_pairs > _PAIRS_SHOWN:
            st.caption(f"The first {_PAIRS_SHOWN} of {n_pairs:,} pairs; the Evaluation sets page shows them all.")


# --- the start ---


def _free_name(service: Service, kind: str) -> str:
    taken = {row["name"] for row in studies.studies(service.store)}
    base = {"single": "Finetune"}.get(kind, _study_data.KINDS[kind])
    return next(name for i in range(1, len(taken) + 2) if (name := f"{base} {i}") not in taken)


def _start_bar(
    service: Service, plan: Plan, design: Design, evaluation_id: int, settings: FinetuneSettings,
    expected: Estimate | None, *, without_overlap: bool, key: str,
) -> None:  # fmt: skip
    left, right = st.columns([3, 1], vertical_alignment="bottom")
    with left:
        name = st.text_input(
            "Name of the study", value=_free_name(service, design.kind), max_chars=200, key=f"study-plan-name-{key}"
        )
    with right:
        n = len(plan.runs)
        words = "Start the finetune" if n == 1 else f"Start the study: {n:,} finetunes"
        pressed = st.button(
            words,
            type="primary",
            icon=":material/play_arrow:",
            key=f"study-plan-start-{key}",
            **_ui.allowed("administer"),
        )
    if not pressed:
        return
    details = {**design.to_json(), "without_overlap": without_overlap}
    if expected is not None:
        details |= {"expected_seconds": expected.seconds, "expected_basis": expected.basis}
    try:
        with st.spinner(f"Making the datasets of {n:,} runs …"):
            study_id = studies.create_study(
                service.store,
                name=str(name),
                kind=design.kind,
                evaluation_id=evaluation_id,
                settings=settings,
                runs=plan.runs,
                design=details,
                created_by=_ui.reviewer() or None,
                dataset_id=_whole_dataset(service, plan, design),
            )
    except AssayError as error:
        st.error(_ui.plain(str(error)), icon=":material/error:")
        return
    _finetune_form.remember(service, settings)
    _study_actions.begin(service, study_id)
    st.query_params.clear()
    st.query_params["study"] = str(study_id)
    st.rerun()


def _whole_dataset(service: Service, plan: Plan, design: Design) -> int | None:
    """The dataset itself where a single run trains on all of it: no list of its rows is made again."""
    if design.kind != "single" or len(design.dataset_ids) != 1:
        return None
    row = next((d for d in queries.datasets(service.store) if d["dataset_id"] == design.dataset_ids[0]), None)
    whole = row is not None and int(row["n_members"]) == len(plan.runs[0].example_ids)
    return design.dataset_ids[0] if whole else None
