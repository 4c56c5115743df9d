"""What the pages about runs share: the choice of studies, their runs with indicator means, and one run looked at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import streamlit as st

from core.errors import AssayError
from core.indicators import DEFAULT_NEIGHBOUR, FIRST_OUTPUTS, LOSSES, MOST_NEIGHBOURS
from core.run_table import RunTable, coverage, differences, reason_left_out, run_table, varies, without
from db import queries, studies, study_means
from db.service import Service
from db.store import Store
from db.study_means import IndicatorColumn
from pages import _choose, _rows, _selection, _ui

RUN, WITHOUT = "run", "without"
USUAL = ("reward", "length", f"knn_{DEFAULT_NEIGHBOUR}")
"""Indicators of the paper's rule, proposed first."""

Study = Mapping[str, Any]


@dataclass(frozen=True)
class Chosen:
    """The chosen studies, all their runs, the indicators of their datasets, and both as a table.

    ``whole`` is the table with the runs that were left out by hand, ``table`` that without them.
    """

    service: Service
    studies: tuple[Study, ...]
    runs: tuple[Mapping[str, Any], ...]
    columns: tuple[IndicatorColumn, ...]
    table: RunTable
    whole: RunTable
    version: str

    @property
    def study_ids(self) -> tuple[int, ...]:
        """Ids of the chosen studies."""
        return tuple(one["study_id"] for one in self.studies)

    @property
    def labels(self) -> dict[str, str]:
        """Key of an indicator -> its name for people."""
        return {column.key: column.label for column in self.columns}

    def identity(self, *more: object) -> str:
        """For the key of a widget about these runs: other runs or results are another widget."""
        return _rows.identity(self.study_ids, self.version, *more)


def load(
    store: Store, study_ids: Sequence[int], neighbours: tuple[int, ...]
) -> tuple[list[dict[str, Any]], list[IndicatorColumn], RunTable]:
    """The runs of studies, the indicators of their datasets, and both as a table; computed at each call."""
    runs = studies.runs(store, study_ids)
    wanted = list(dict.fromkeys(run["dataset_id"] for run in runs if run["dataset_id"] is not None))
    columns = study_means.indicator_columns(store, wanted, neighbours=neighbours) if wanted else []
    means = study_means.indicator_means(store, wanted, columns)
    table = run_table(
        runs,
        keys=[column.key for column in means.columns],
        dataset_ids=means.dataset_ids,
        mean=means.mean,
        n_values=means.n_values,
        n_members=means.n_members,
    )
    return runs, list(means.columns), table


@st.cache_data(max_entries=16, show_spinner="Taking the means of the indicators over the runs …")
def _load(
    _store: Store, path: str, version: str, study_ids: tuple[int, ...], neighbours: tuple[int, ...]
) -> tuple[list[dict[str, Any]], list[IndicatorColumn], RunTable]:
    return load(_store, study_ids, neighbours)


def _name(study: Study) -> str:
    return f"{study['name']} ({study['kind']}, {study['n_done']} of {study['n_runs']} runs done)"


def choose_studies(
    found: Sequence[Study], *, page: str, usual: Callable[[Sequence[Study]], list[int]]
) -> tuple[Study, ...]:
    """A choice of studies that stands in the URL (``studies``)."""
    by_id = {one["study_id"]: one for one in found}
    asked = [i for i in _choose.numbers("studies") if i in by_id]
    chosen = st.multiselect(
        "Studies",
        list(by_id),
        default=asked or usual(found),
        format_func=lambda i: _name(by_id[i]),
        key=f"{page}-studies-{_rows.identity(tuple(by_id))}",
        placeholder="Choose one or several studies",
    )
    st.query_params["studies"] = ".".join(map(str, chosen))
    return tuple(by_id[i] for i in chosen)


def choose(service: Service, *, page: str, usual: Callable[[Sequence[Study]], list[int]]) -> Chosen | None:
    """The chosen studies with what is known of their runs; None: the page has said why there is nothing to show."""
    found = studies.studies(service.store)
    if not found:
        _ui.empty(
            "There is no study yet. A study finetunes the base model on several datasets, so that their indicators can "
            "be held against the evaluation loss.",
            page="studies.py",
            label="Plan a study",
        )
        return None
    picked = choose_studies(found, page=page, usual=usual)
    if not picked:
        _ui.empty("Choose at least one study.")
        return None
    # Results are not part of the store's version until a shard of theirs is collected.
    version = f"{queries.version(service.store)}-{[(one['n_done'], one['n_bad']) for one in picked]}"
    ids = tuple(one["study_id"] for one in picked)
    neighbours = tuple(sorted({DEFAULT_NEIGHBOUR, *(i for i in _choose.numbers("knn") if 1 <= i <= MOST_NEIGHBOURS)}))
    try:
        runs, columns, table = _load(service.store, str(service.store.path), version, ids, neighbours)
    except AssayError as error:
        st.error(_ui.plain(str(error)))
        return None
    return Chosen(service, picked, tuple(runs), tuple(columns), table, table, f"{version}-{neighbours}")


def left_out_by_hand(chosen: Chosen) -> Chosen:
    """The same without the runs that stand in the URL as left out (``without``)."""
    gone = frozenset(_choose.numbers(WITHOUT)) & set(chosen.whole.keys)
    if not gone:
        return chosen
    return replace(chosen, table=without(chosen.table, gone), version=f"{chosen.version}-{sorted(gone)}")


def _leave_out(run_id: int, out: bool) -> None:
    """A callback: the run is left out of the fit, or goes in again."""
    gone = [i for i in _choose.numbers(WITHOUT) if i != run_id]
    gone += [run_id] if out else []
    if gone:
        st.query_params[WITHOUT] = ".".join(map(str, gone))
    else:
        st.query_params.pop(WITHOUT, None)


def doubts(chosen: Chosen) -> None:
    """What keeps the losses of the chosen studies from being compared."""
    for said in differences(chosen.studies):
        st.warning(_ui.plain(said), icon=":material/warning:")


def take_all_in() -> None:
    """A callback: no run is left out by hand."""
    st.query_params.pop(WITHOUT, None)


def nothing_to_fit(chosen: Chosen, *, least: int) -> bool:
    """Whether there is too little to draw or fit; if so, says what is missing."""
    n = len(chosen.table.runs)
    if n < least:
        _ui.empty(
            f"{n} {'run' if n == 1 else 'runs'} of these studies {'is' if n == 1 else 'are'} done; {least} are needed. "
            + (
                "The others did not end well; the reasons stand below."
                if chosen.table.left_out and all(run["outcome"] for run in chosen.runs)
                else "Runs that are still going come in here when they end."
            ),
            page="studies.py",
            label="Look at the studies",
        )
        left_out(chosen.table)
        return True
    if not chosen.columns:
        _ui.empty(
            "The rows that these runs were trained on have no scores yet, so there is no indicator to hold against the "
            "loss. Score the source datasets; the means of the runs follow by themselves.",
            page="score.py",
            label="Score the sources",
        )
        return True
    return False


def proposed(chosen: Chosen) -> list[str]:
    """Keys of indicators that make sense as regressors: no raw losses, in every run, and not the same in all.

    The paper's come first, then the first number of each indicator: characters say what tokens do.
    """
    raw = {output.key for output in LOSSES.outputs}
    outputs = {column.key: column.output for column in chosen.columns}
    good = [
        one.key
        for one in coverage(chosen.table)
        if outputs[one.key] not in raw and varies(one) and one.n_runs == len(chosen.table.runs)
    ]

    def place(key: str) -> tuple[int, bool]:
        output = outputs[key]
        return (USUAL.index(output) if output in USUAL else len(USUAL)), output not in FIRST_OUTPUTS

    return sorted(good, key=place)


def left_out(table: RunTable, more: Sequence[tuple[str, str]] = ()) -> None:
    """The runs that do not go in, each with its reason."""
    found = [*table.left_out, *more]
    if found:
        st.dataframe(
            [{"run": label, "why it is left out": reason} for label, reason in found],
            hide_index=True,
            height="content" if len(found) < 8 else 280,
        )


# --- one run ---


def opened(chosen: Chosen) -> int | None:
    """The run that is looked at: ``run`` of the URL, if it is among the chosen studies'."""
    asked = _choose.numbers(RUN)
    return asked[0] if asked and any(run["run_id"] == asked[0] for run in chosen.runs) else None


def open_run(parts: Sequence[Sequence[int]], widget: str) -> None:
    """A callback of a figure whose first traces hold the runs ``parts``: the run that was clicked is looked at."""
    found = _selection.in_figure(parts, st.session_state[widget])
    if found:
        st.query_params[RUN] = str(found[0])
    else:
        close_run()


def close_run() -> None:
    """A callback: no run is looked at."""
    st.query_params.pop(RUN, None)


def run_panel(chosen: Chosen, *, may_leave_out: bool = False) -> None:
    """The opened run: what it was trained on, what came out, and the ways to all about it."""
    run_id = opened(chosen)
    if run_id is None:
        return
    run = next(one for one in chosen.runs if one["run_id"] == run_id)
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**{_ui.plain(run['label'])}** · {_ui.plain(run['study'])}", width="stretch")
            st.page_link(
                "studies.py", label="Open the run", icon=":material/experiment:",
                query_params={"study": str(run["study_id"]), "run": str(run_id)},
            )  # fmt: skip
            if run["dataset_id"] is not None:
                st.page_link(
                    "explore.py", label="Its rows", icon=":material/table_rows:",
                    query_params={"datasets": str(run["dataset_id"])},
                )  # fmt: skip
            if may_leave_out:
                _leave_out_button(chosen, run_id)
            st.button("Close", key=f"close-run-{run_id}", icon=":material/close:", type="tertiary", on_click=close_run)
        left, middle, right = st.columns([1, 1.2, 1.2])
        with left:
            _outcome(run)
        with middle:
            _made_of(run)
        with right:
            _means_of(chosen, run_id)


def _leave_out_button(chosen: Chosen, run_id: int) -> None:
    if run_id in _choose.numbers(WITHOUT):
        st.button(
            "Take it in again", key=f"take-in-{run_id}", icon=":material/undo:", type="tertiary",
            on_click=_leave_out, args=(run_id, False),
        )  # fmt: skip
    elif run_id in chosen.table.keys:
        st.button(
            "Fit without it", key=f"leave-out-{run_id}", icon=":material/remove_circle:", type="tertiary",
            on_click=_leave_out, args=(run_id, True),
        )  # fmt: skip


def _outcome(run: Mapping[str, Any]) -> None:
    reason = reason_left_out(run) if run["role"] != "base" else None
    _ui.badges(_ui.badge(run["outcome"] or "not run yet", "good" if run["outcome"] == "done" else "bad"))
    st.markdown(
        f"Evaluation loss **{_ui.number(run['loss_nats'], 4)}** nats  \n"
        f"Training loss {_ui.number(run['train_loss_nats'], 4)} nats  \n"
        f"{run['n_rows']:,} rows · seed {run['seed']} · {_ui.duration(run['seconds'])}"
    )
    if reason:
        st.caption(f"Left out of fits: {_ui.plain(reason)}")


def _made_of(run: Mapping[str, Any]) -> None:
    """How the run's dataset was made: its mixture's proportions, its bin's ends, or its size."""
    details = run["details"]
    if details.get("proportions"):
        total = sum(details["proportions"].values()) or 1
        st.dataframe(
            [
                {"source": source, "rows": n, "share": n / total}
                for source, n in sorted(details["proportions"].items(), key=lambda item: -item[1])
            ],
            hide_index=True,
            height="content" if len(details["proportions"]) < 7 else 240,
            column_config={
                "share": st.column_config.ProgressColumn("share", format="percent", min_value=0.0, max_value=1.0)
            },
        )
    elif run["role"] == "bin":
        st.markdown(
            f"Bin {int(details['bin']) + 1} by **{_ui.plain(str(details['indicator']))}**, highest first: "
            f"{_ui.number(details.get('low'), 4)} to {_ui.number(details.get('high'), 4)}"
        )
    else:
        words = {"top": "The best rows by the rule", "selected": "The selected rows", "random": "Rows by chance"}
        st.markdown(words.get(run["role"], _ui.plain(str(run["role"]))))


def _means_of(chosen: Chosen, run_id: int) -> None:
    table = chosen.whole
    if run_id not in table.keys:
        return
    place, labels = table.keys.index(run_id), chosen.labels
    st.dataframe(
        [
            {
                "indicator": labels[key],
                "mean": table.columns[key][place],
                "rows without": counts[place] or None,
            }
            for key, counts in table.missing.items()
        ],
        hide_index=True,
        height=240 if len(table.missing) > 6 else "content",
        placeholder="—",
        column_config={"mean": st.column_config.NumberColumn("mean", format="%.4g")},
    )
