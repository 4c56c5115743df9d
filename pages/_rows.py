"""What the pages about rows share: remembered queries, names of scorers, and the table of rows."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from core.filters import RowFilter
from db import queries
from db.store import Store
from pages import _ui

Scorer = Mapping[str, Any]
FIRST_OUTPUTS = ("ifd", "r_ifd", "perplexity", "mtld", "length")
ARROWS = {"higher": "↑ higher", "lower": "↓ lower", "neither": "·"}
_COUNTS = ("length", "n_tokens")


@st.cache_data(max_entries=64, show_spinner=False)
def scorers(_store: Store, path: str, version: str, datasets: tuple[int, ...]) -> list[dict[str, Any]]:
    """Scorers with at least one value among these datasets (of any where empty), those people ask for first."""
    found = [s for s in queries.scorers(_store, dataset_ids=datasets) if s["n_values"]]
    order = {output: i for i, output in enumerate(FIRST_OUTPUTS)}
    return sorted(found, key=lambda s: (order.get(s["output"], len(order)), s["scorer_id"]))


@st.cache_data(max_entries=256, show_spinner=False)
def page(
    _store: Store, path: str, version: str, filters: RowFilter, cursor: tuple[Any, ...] | None, size: int
) -> queries.Page:
    """One page of rows, remembered, so that opening a row of it does not search again."""
    return queries.page_of_rows(_store, filters, cursor=cursor, size=size)


@st.cache_data(max_entries=256, show_spinner=False)
def _count(_store: Store, path: str, version: str, filters: RowFilter) -> int:
    return queries.count_rows(_store, filters)


def count(store: Store, path: str, version: str, filters: RowFilter, size: int) -> int:
    """How many rows match, remembered; taken from the first page of ``size`` rows where that brought it along."""
    if filters.text:
        total = page(store, path, version, filters, None, size).total
        if total is not None:
            return total
    return _count(store, path, version, filters)


@st.cache_data(max_entries=256, show_spinner=False)
def summary(_store: Store, path: str, version: str, scorer_id: int, datasets: tuple[int, ...]) -> list[dict[str, Any]]:
    """``queries.summary``, remembered."""
    return queries.summary(_store, scorer_id=scorer_id, dataset_ids=datasets)


def labels(found: Sequence[Scorer]) -> dict[int, str]:
    """scorer_id -> its name; scorers of the same name are told apart by what differs (dtype, lengths, revision, …)."""
    names = {s["scorer_id"]: _ui.scorer_label(s) for s in found}
    for details in (_settings, _revision, _number):
        twins = Counter(names.values())
        names = {
            s["scorer_id"]: " · ".join(filter(None, (names[s["scorer_id"]], details(s))))
            if twins[names[s["scorer_id"]]] > 1
            else names[s["scorer_id"]]
            for s in found
        }
    return names


def _settings(scorer: Scorer) -> str:
    settings = scorer["settings"]
    values = json.loads(settings) if isinstance(settings, str) else settings or {}
    return ", ".join(str(values[name]) for name in sorted(values))


def _revision(scorer: Scorer) -> str:
    return str(scorer.get("revision") or "").removeprefix("local-")[:8]


def _number(scorer: Scorer) -> str:
    return f"scorer {scorer['scorer_id']}"


def short_labels(found: Sequence[Scorer]) -> dict[int, str]:
    """scorer_id -> the output's key alone where that is clear among ``found``, else the whole name."""
    twins = Counter(s["output"] for s in found)
    whole = labels(found)
    return {s["scorer_id"]: s["output"] if twins[s["output"]] == 1 else whole[s["scorer_id"]] for s in found}


def usual(found: Sequence[Scorer], *, first: Sequence[int] = ()) -> list[int]:
    """Scorer ids for a table: ``first``, then of each output that people ask for the scorer with the most values."""
    widest: dict[str, Scorer] = {}
    for scorer in found:
        other = widest.get(scorer["output"])
        if scorer["output"] in FIRST_OUTPUTS and (other is None or scorer["n_values"] >= other["n_values"]):
            widest[scorer["output"]] = scorer
    return list(dict.fromkeys([*first, *(scorer["scorer_id"] for scorer in widest.values())]))


def is_whole(output: str) -> bool:
    """Whether an output counts things, so that it is shown without decimals."""
    return output.startswith(_COUNTS)


def identity(*parts: object) -> str:
    """A short name of what a widget shows, for its key: another page of rows is another widget."""
    return hashlib.sha1(repr(parts).encode()).hexdigest()[:12]


def table(
    rows: Sequence[Mapping[str, Any]],
    *,
    scores: Sequence[Mapping[str, Any]],
    shown: Sequence[Scorer],
    names: Mapping[int, str],
    key: str,
    opened: int | None = None,
    on_open: Callable[[tuple[int, ...], str], None],
    height: int = 560,
    texts_first: bool = True,
) -> str:
    """A table of rows with the scores ``shown``; a click on a cell or a row calls ``on_open(example_ids, widget key)``.

    The widget key holds the identity of these very rows, and the callback their ids: a click can only mean a row that
    was on the screen. Returns the widget key.
    """
    ids = tuple(int(row["example_id"]) for row in rows)
    widget = f"{key}-{identity(ids)}"
    frame, config = _frame(rows, scores=scores, shown=shown, names=names)
    st.dataframe(
        frame,
        hide_index=True,
        height=height,
        placeholder="—",
        column_order=_order(list(frame.columns), texts_first=texts_first),
        column_config=config,
        key=widget,
        on_select=lambda: on_open(ids, widget),
        selection_mode=["single-row", "single-cell"],
        selection_default={"selection": {"rows": [ids.index(opened)]}} if opened in ids else None,
    )
    return widget


def _order(columns: Sequence[str], *, texts_first: bool) -> list[str]:
    last = () if texts_first else ("input", "output")
    return [*(name for name in columns if name not in last), *(name for name in columns if name in last)]


def select(widget: str, position: int) -> None:
    """Select the row at ``position`` of a table. Call it in a callback, before the table is drawn again."""
    st.session_state[widget] = {"selection": {"rows": [position], "columns": [], "cells": []}}


def clicked(ids: Sequence[int], widget: str) -> int | None:
    """The example id of the row that a table's selection means, or None where nothing is selected."""
    selection = st.session_state[widget]["selection"]
    found = [*(cell[0] for cell in selection["cells"]), *selection["rows"]]
    return ids[found[0]] if found and found[0] < len(ids) else None


def _frame(
    rows: Sequence[Mapping[str, Any]],
    *,
    scores: Sequence[Mapping[str, Any]],
    shown: Sequence[Scorer],
    names: Mapping[int, str],
) -> tuple[pd.DataFrame, dict[str, Any]]:
    values = {(score["example_id"], score["scorer_id"]): score["value"] for score in scores}
    titles = short_labels(shown)
    columns: dict[str, Any] = {"row": [row["position"] + 1 for row in rows]}
    config: dict[str, Any] = {"row": st.column_config.NumberColumn("row", width="small", pinned=True)}
    if len({row["dataset_id"] for row in rows}) > 1:
        columns["dataset"] = [names.get(row["dataset_id"], "") for row in rows]
    for text in ("instruction", "input", "output"):
        columns[text] = [row[text] for row in rows]
        config[text] = st.column_config.TextColumn(
            "response" if text == "output" else text, width="small" if text == "input" else "medium"
        )
    for scorer in shown:
        title = titles[scorer["scorer_id"]]
        found = [values.get((row["example_id"], scorer["scorer_id"])) for row in rows]
        columns[title] = pd.array(found, dtype="Float64")
        config[title] = st.column_config.NumberColumn(
            title, format="%d" if is_whole(scorer["output"]) else "%.3f", width="small"
        )
    return pd.DataFrame(columns), config
