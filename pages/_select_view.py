"""What the rooms of the Select page share: what is being selected, and how a room sets the size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import streamlit as st

from core.rules import Rule

BY = "select-by"
WAYS = {"number": "Number of rows", "share": "Share", "threshold": "Threshold"}
_SIZE = "select-size"


@dataclass(frozen=True)
class SelectView:
    """A dataset ranked by a rule. ``ranking``: ids of the rows that the constraints let through, best first."""

    dataset_id: int
    dataset_name: str
    rule_name: str
    rule: Rule
    ranking: tuple[int, ...]
    constraints: Mapping[str, Any]


def size_key(way: str, dataset_id: int) -> str:
    """The key of the slider that sets the size in this way (one of ``WAYS``); another dataset has another slider."""
    return f"{_SIZE}-{way}-{dataset_id}"


def use_size(n_rows: int, *, dataset_id: int) -> None:
    """Set the selection's size to a number of rows. Call it in a callback, before the page is drawn again."""
    st.session_state[BY] = "number"
    st.session_state[size_key("number", dataset_id)] = int(n_rows)
    st.query_params["by"] = "number"
    st.query_params["size"] = str(int(n_rows))
