"""Choices that stand in the URL: datasets, scores, and what rows are told apart by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st

from core.indicators import OUTPUTS
from db import relations
from db.store import Store
from pages import _rows, _ui


def numbers(parameter: str) -> list[int]:
    """Ids in a parameter of the URL; what is no number is passed over."""
    return [int(part) for part in st.query_params.get(parameter, "").split(".") if part.isdecimal()]


def datasets(names: Mapping[int, str], *, page: str) -> tuple[int, ...]:
    """The datasets that a page is about: those of the link, else the newest."""
    asked = [i for i in (*numbers("datasets"), *numbers("dataset")) if i in names]
    chosen = st.multiselect(
        "Datasets",
        list(names),
        default=asked or list(names)[:1],
        format_func=names.__getitem__,
        key=f"{page}-datasets",
        persist_state="page",
    )
    st.query_params["datasets"] = ".".join(map(str, chosen))
    return tuple(chosen)


def scorer_key(found: Sequence[Any], *, parameter: str, page: str) -> str:
    """The key of the select box that :func:`scorer` draws."""
    return f"{page}-{parameter}-{_rows.identity(tuple(s['scorer_id'] for s in found))}"


def scorer(found: Sequence[Any], *, label: str, parameter: str, page: str, usual: int = 0) -> Any:
    """One of the scorers, kept in the URL; without a link the one at place ``usual``."""
    by_id = {s["scorer_id"]: s for s in found}
    labels = _rows.labels(found)
    ids = list(by_id)
    asked = next((i for i in numbers(parameter) if i in by_id), ids[min(usual, len(ids) - 1)])
    chosen = st.selectbox(
        label,
        ids,
        index=ids.index(asked),
        format_func=labels.__getitem__,
        key=scorer_key(found, parameter=parameter, page=page),
    )
    st.query_params[parameter] = str(chosen)
    return by_id[chosen]


def axis(scorer: Mapping[str, Any]) -> str:
    """A scorer's name with its unit, for an axis."""
    output = OUTPUTS.get(scorer["output"])
    unit = output.unit if output is not None else ""
    return _ui.scorer_label(scorer) + (f" ({unit})" if unit else "")


@dataclass(frozen=True)
class By:
    """What rows are told apart by: "dataset", "category" (with the ``key`` of a further column) or "score"."""

    kind: str
    key: str | None = None
    scorer_id: int | None = None


@st.cache_data(max_entries=64, show_spinner=False)
def category_keys(_store: Store, path: str, version: str, datasets: tuple[int, ...]) -> list[str]:
    """Further columns of these datasets by which rows can be told apart, the best first."""
    return [row["key"] for row in relations.category_keys(_store, datasets)]


def by(
    store: Store, version: str, chosen: tuple[int, ...], *, label: str, parameter: str, page: str,
    scorers: Sequence[Any] = (),
) -> By:  # fmt: skip
    """By which datasets, categories or (where ``scorers`` are given) scores rows are told apart; kept in the URL."""
    labels = _rows.labels(scorers)
    keys = category_keys(store, str(store.path), version, chosen)
    options = {"dataset": By("dataset")}
    options |= {f"category:{key}": By("category", key=key) for key in keys}
    options |= {f"score:{s['scorer_id']}": By("score", scorer_id=s["scorer_id"]) for s in scorers}
    words = {"dataset": "dataset"} | {f"category:{key}": f"column {key[:60]}" for key in keys}
    words |= {f"score:{s['scorer_id']}": f"score {labels[s['scorer_id']]}" for s in scorers}
    names = list(options)
    usual = names[1] if len(chosen) == 1 and keys else names[0]
    asked = st.query_params.get(parameter, usual)
    picked = st.selectbox(
        label,
        names,
        index=names.index(asked if asked in options else usual),
        format_func=words.__getitem__,
        key=f"{page}-{parameter}-{_rows.identity(tuple(names))}",
    )
    st.query_params[parameter] = picked
    return options[picked]
