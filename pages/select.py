"""Select: apply a rule to rows that no study saw, take the best under constraints, and show that they are better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from core.indicators.losses import LOSSES
from core.rules import Rule
from db import queries, selections
from db.service import Service
from db.store import Store
from pages import (
    _pick,
    _rows,
    _select_comparison,
    _select_data,
    _select_rule,
    _select_search,
    _select_size,
    _select_verdict,
    _ui,
)
from pages._select_data import Chosen
from pages._select_view import SelectView

ROOMS = {"": "Selection alone", "compare": "Rule against random", "search": "Size search"}
MOST_PANELS = 8
# The same lengths in other units: a panel each would say the same again.
OTHER_UNITS = {f"length{of}_{unit}" for of in ("", "_input") for unit in ("words", "chars")}
STYLE = """<style>
[class*="st-key-select-numbers"] [data-testid="stMetricValue"] {font-size: 1.5rem; line-height: 1.35;}
[class*="st-key-select-numbers"] [data-testid="stMetricLabel"] {opacity: .7;}
</style>"""


@st.cache_data(max_entries=32, show_spinner="Looking for scores …")
def _scorers(_store: Store, path: str, version: str, dataset_id: int) -> list[dict[str, Any]]:
    return [scorer for scorer in selections.scorers_here(_store, dataset_id) if scorer["n_values"]]


def _columns(known: Sequence[Mapping[str, Any]], scorers: Mapping[str, int]) -> dict[int, str]:
    """The indicators whose moving is shown: the rule's first, then those that people ask for."""
    by_id = {scorer["scorer_id"]: scorer for scorer in known}
    raw = {output.key for output in LOSSES.outputs} | OTHER_UNITS
    others = [scorer["scorer_id"] for scorer in known if scorer["output"] not in raw]
    ids = list(dict.fromkeys([*scorers.values(), *_rows.usual(known), *others]))[: max(MOST_PANELS, len(scorers))]
    return {i: by_id[i]["output"] for i in ids}


def _choose(service: Service, version: str) -> Chosen | None:
    """Everything above the size; None where the page has said what is missing."""
    left, right = st.columns(2)
    with left:
        dataset_id = _select_rule.pick_dataset(service)
    with right:
        row = _select_rule.pick_rule(service)
    rule: Rule = row["rule"]
    _select_rule.show_formula(rule)
    store = service.store
    known = _scorers(store, str(store.path), version, dataset_id)
    found = _select_rule.pick_scorers(rule, known, dataset_id=dataset_id)
    if found is None:
        return None
    with st.expander("Constraints", icon=":material/rule:", expanded=True):
        constraints = _select_rule.pick_constraints(service, version, dataset_id)
    prepared = _select_data.prepare(
        service, version=version, dataset_id=dataset_id, rule=rule, scorers=found.scorers,
        columns=_columns(known, found.scorers), constraints=constraints,
    )  # fmt: skip
    n_predicted = int((prepared.predicted == prepared.predicted).sum())
    _select_rule.show_missing(prepared.rows, found.scorers, dataset_id=dataset_id, n_predicted=n_predicted)
    if not len(prepared.ranking.ids):
        reasons = "; ".join(f"{n:,} {reason}" for reason, n in prepared.ranking.reasons.items())
        st.info(
            f"No row of this dataset can be selected: {_ui.plain(reasons)}. Score its rows by the rule's indicators, "
            "or loosen the constraints.",
            icon=":material/block:",
        )
        return None
    name = next(d["name"] for d in queries.datasets(store) if d["dataset_id"] == dataset_id)
    return Chosen(
        service=service,
        dataset_id=dataset_id,
        dataset=name,
        rule_name=row["name"],
        rule=rule,
        scorers=found.scorers,
        known={scorer["scorer_id"]: scorer for scorer in known},
        forced=found.notes,
        constraints=constraints,
        prepared=prepared,
    )


def _search(chosen: Chosen) -> None:
    """The room of the size search, by the ranking of now."""
    _select_search.panel(
        chosen.service,
        SelectView(
            dataset_id=chosen.dataset_id,
            dataset_name=chosen.dataset,
            rule_name=chosen.rule_name,
            rule=chosen.rule,
            ranking=tuple(chosen.prepared.ranking.ids.tolist()),
            constraints=chosen.constraints.to_details(),
        ),
    )


def main() -> None:
    """Render the page."""
    service = _ui.current_service()
    st.html(STYLE)
    _ui.header(
        "Select", "Apply a rule to rows that it has not seen, take the best of them, and show that they are better."
    )
    if not queries.datasets(service.store):
        _ui.empty(
            "There is no dataset yet, so there is nothing to select from.", page="load.py", label="Load a dataset"
        )
        return
    version = queries.version(service.store)
    chosen = _choose(service, version)
    if chosen is not None:
        st.subheader("Size of the selection", anchor=False)
        room_now = st.query_params.get("room", "")
        _select_size.show(chosen, redraw=room_now == "compare")
        st.divider()
        room = _pick.switch("Next", ROOMS, parameter="room")
        if room == "compare":
            _select_comparison.form(chosen)
        elif room == "search":
            _search(chosen)
    _select_verdict.results(service)


main()
