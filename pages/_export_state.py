"""Which state of the curated set is exported: as it is now, or as it was. The choice stands in the URL (``as_of``)."""

from __future__ import annotations

from datetime import datetime, time, timedelta
from typing import Any

import streamlit as st

from core.errors import AssayError
from core.moment import Moment
from db import curated, exports, past
from db.store import Store, utc_now
from pages import _ui

KINDS = {"now": "Now", "export": "An export", "time": "A time", "decision": "A decision"}
_KIND = "export_state_kind"


def _asked() -> tuple[str, str]:
    kind, _, value = st.query_params.get("as_of", "now").partition(":")
    return (kind, value) if kind in KINDS else ("now", "")


def go_to(as_of: str, dataset_id: int) -> None:
    """A callback: the page shows that state of that dataset."""
    st.query_params["as_of"] = as_of
    st.query_params["dataset"] = str(dataset_id)
    for key in (_KIND, "export_dataset", *(f"export_state_{kind}" for kind in KINDS), "export_state_day"):
        st.session_state.pop(key, None)


def choose(store: Store, dataset_id: int) -> Moment | None:
    """The state as a moment; None is now. A state that cannot be read ends the page with the reason."""
    kind, value = _asked()
    if _KIND not in st.session_state:
        st.session_state[_KIND] = kind
    chosen = st.segmented_control(
        "The set as of", list(KINDS), format_func=KINDS.__getitem__, key=_KIND, required=True,
        help="Any state of the past can be exported: its decisions, pairs and campaigns are kept by their numbers.",
    )  # fmt: skip
    if chosen in (None, "now"):
        st.query_params.pop("as_of", None)
        return None
    value = value if chosen == kind else ""
    try:
        moment = {"export": _of_export, "time": _at_time, "decision": _after_decision}[chosen](store, dataset_id, value)
    except AssayError as error:
        st.warning(_ui.plain(str(error)), icon=":material/history_toggle_off:")
        st.stop()
    if moment is None:
        st.stop()
    words = f"The set as it was on {_when(moment)}, up to decision {moment.last_decision_id:,}."
    if not moment.exact:
        words += " Some rows came from an older version without a time of their own: this is the likeliest state."
    st.caption(f":material/history: {_ui.plain(words)}")
    return moment


def _when(moment: Moment) -> str:
    return f"{datetime.fromisoformat(moment.when):%Y-%m-%d at %H:%M:%S} UTC" if moment.when else "an unknown day"


def _of_export(store: Store, dataset_id: int, value: str) -> Moment | None:
    made: dict[int, dict[str, Any]] = {
        int(row["export_id"]): row for row in curated.exports(store) if row["dataset_id"] == dataset_id
    }
    if not made:
        st.info("This dataset has not been exported yet.", icon=":material/history_toggle_off:")
        return None
    options = list(made)
    asked = int(value) if value.isdecimal() and int(value) in made else options[0]
    if value and value != str(asked):
        st.warning("The export of this link is none of this dataset: its newest is shown.", icon=":material/link_off:")
    labels = _ui.distinct(
        {i: f"{row['exported_at']:%Y-%m-%d %H:%M} · {row['file_name']}" for i, row in made.items()},
        tell=lambda i: f"number {i}",
    )
    export_id = st.selectbox(
        "Export", options, index=options.index(asked), format_func=labels.__getitem__, key="export_state_export"
    )
    st.query_params["as_of"] = f"export:{export_id}"
    return exports.recorded(store, export_id).moment


def _at_time(store: Store, dataset_id: int, value: str) -> Moment | None:
    now = utc_now()
    try:
        asked = datetime.fromisoformat(value).replace(tzinfo=None)
    except ValueError:
        asked = now - timedelta(hours=1)
    day_column, time_column = st.columns(2)
    day = day_column.date_input("Day (UTC)", asked.date(), max_value=now.date(), key="export_state_day")
    hour = time_column.time_input("Time (UTC)", asked.time().replace(microsecond=0), step=60, key="export_state_time")
    when = datetime.combine(day if day is not None else now.date(), hour or time())
    st.query_params["as_of"] = f"time:{when.isoformat(timespec='seconds')}"
    return past.at_time(store, when)


def _after_decision(store: Store, dataset_id: int, value: str) -> Moment | None:
    asked = int(value) if value.isdecimal() and len(value) < 18 else None
    decision_id = st.number_input(
        "Number of the decision", min_value=1, value=asked, step=1, key="export_state_decision",
        help="History shows the number of each decision, with a link to here.",
    )  # fmt: skip
    if decision_id is None:
        st.page_link("history.py", label="Choose one in History", icon=":material/history:")
        return None
    st.query_params["as_of"] = f"decision:{int(decision_id)}"
    return past.after_decision(store, int(decision_id))
