"""The size of a selection: how many rows stay, how the indicators move, the rows at the border, and saving it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st

from core import selection
from core.charts import selection as charts
from core.errors import AssayError
from core.rules import family_of
from db import queries, selections
from pages import _example, _pick, _rows, _ui
from pages._select_data import PREDICTED, Chosen
from pages._select_view import BY, WAYS, size_key

BORDER_ROWS, READ_ROWS = 6, 25
FIRST_SHARE = 0.1
ROWS_SHOWN = {"border": "At the border", "best": "Best", "worst": "Worst", "refused": "Refused"}
_OPEN = "select-open"


@dataclass(frozen=True)
class Size:
    """A size as it is asked for. ``n``: rows that are selected; ``asked``: rows that were asked for."""

    way: str
    value: float
    asked: int
    n: int

    def to_details(self) -> dict[str, Any]:
        """For the provenance of a selection."""
        return {"by": self.way, "value": self.value, "asked": self.asked}


# --- the size ---


def current_size(chosen: Chosen) -> Size:
    """The size that the widgets, or else the link, or else the first look asks for."""
    way = st.session_state.get(BY) or st.query_params.get("by", "number")
    way = way if way in WAYS else "number"
    low, high, first = _range(chosen, way)
    value = st.session_state.get(size_key(way, chosen.dataset_id))
    if value is None:
        value = _number(st.query_params.get({"number": "size", "share": "share", "threshold": "upto"}[way]), first)
    value = min(max(float(value), low), high)
    ranking = chosen.prepared.ranking
    if way == "number":
        asked = selection.n_asked(ranking, size=int(value))
    elif way == "share":
        asked = selection.n_asked(ranking, share=value / 100)
    else:
        asked = selection.n_asked(ranking, threshold=value)
    return Size(way, int(value) if way == "number" else value, asked, min(asked, len(ranking.ids)))


def _range(chosen: Chosen, way: str) -> tuple[float, float, float]:
    """Lowest, highest and first value of a way to say the size."""
    ranking = chosen.prepared.ranking
    n = len(ranking.ids)
    first = max(1, round(FIRST_SHARE * n))
    if way == "number":
        return 1, n, first
    if way == "share":
        return 0.0, 100.0, 100 * FIRST_SHARE
    low, high = float(ranking.predicted[0]), float(ranking.predicted[-1])
    return low, high, float(ranking.predicted[first - 1])


def _number(text: str | None, usual: float) -> float:
    try:
        found = float(text) if text else usual
    except ValueError:
        return usual
    return found if np.isfinite(found) else usual


def _control(chosen: Chosen) -> Size:
    """The widgets of the size; their values stand in the URL."""
    way_before = st.session_state.get(BY) or st.query_params.get("by", "number")
    if st.session_state.get(BY) not in WAYS:
        st.session_state[BY] = way_before if way_before in WAYS else "number"
    left, right = st.columns([1, 2], vertical_alignment="bottom")
    with left:
        way = st.segmented_control(
            "Size by", list(WAYS), format_func=WAYS.__getitem__, required=True, key=BY, label_visibility="collapsed"
        )
    way = str(way or "number")
    size = current_size(chosen)
    low, high, _ = _range(chosen, way)
    key = size_key(way, chosen.dataset_id)
    st.session_state[key] = size.value  # before the widget is drawn: inside its range, whatever the link said
    with right:
        if low >= high:
            st.caption("Every row has the same predicted value." if way == "threshold" else "There is one row.")
        elif way == "number":
            slider, exact = st.columns([4, 1], vertical_alignment="bottom")
            exact_key = f"{key}-exact"
            st.session_state[exact_key] = size.value

            def take() -> None:
                st.session_state[key] = st.session_state[exact_key]

            slider.slider("Rows to select", int(low), int(high), key=key, label_visibility="collapsed")
            exact.number_input(
                "Rows to select, exactly", int(low), int(high), key=exact_key, on_change=take,
                label_visibility="collapsed",
            )  # fmt: skip
        elif way == "share":
            st.slider("Share of all rows", low, high, step=0.1, format="%.1f %%", key=key, label_visibility="collapsed")
        else:
            step = (high - low) / 1000
            st.slider(
                f"Highest {chosen.scale}", low, high, step=step, format="%.4f", key=key, label_visibility="collapsed"
            )
    size = current_size(chosen)
    st.query_params["by"] = way
    for name, parameter in (("number", "size"), ("share", "share"), ("threshold", "upto")):
        if name == way:
            st.query_params[parameter] = f"{size.value:g}" if name != "number" else str(int(size.value))
        else:
            st.query_params.pop(parameter, None)
    return size


# --- the fragment ---


@st.fragment
def show(chosen: Chosen, *, redraw: bool = False) -> None:
    """The slider and all that follows it. ``redraw``: other parts of the page speak of the size and follow, too."""
    size = _control(chosen)
    if redraw and st.session_state.get("select-drawn") not in (None, (chosen.dataset_id, size.asked)):
        st.session_state["select-drawn"] = (chosen.dataset_id, size.asked)
        st.rerun()
    st.session_state["select-drawn"] = (chosen.dataset_id, size.asked)
    prepared = chosen.prepared
    border = selection.border(prepared.ranking, size.n, rows=BORDER_ROWS)
    _numbers(chosen, size, border)
    left, right = st.columns([2, 3], gap="medium")
    with left:
        _predicted(chosen, size, border)
    with right:
        _moves(chosen, size)
    _reading(chosen, size, border)


def _numbers(chosen: Chosen, size: Size, border: selection.Border) -> None:
    prepared = chosen.prepared
    means = _term_means(chosen, prepared.spread.means(size.n))
    value, interval = _prediction(chosen, means)
    all_value, _ = _prediction(chosen, _term_means(chosen, prepared.spread.all_means))
    confidence = float((chosen.rule.fit or {}).get("confidence", 0.95))
    with st.container(horizontal=True, vertical_alignment="center", gap="large", key="select-numbers"):
        st.metric(
            "Rows selected", f"{size.n:,}",
            delta=f"{100 * size.n / max(1, prepared.ranking.n_ranked):.1f} % of {prepared.ranking.n_ranked:,}",
            delta_color="off", delta_arrow="off",
        )  # fmt: skip
        st.metric(
            "Predicted loss of the selection",
            "—" if value is None else f"{value:.4f}",
            delta="no interval" if interval is None else f"{100 * confidence:.0f} %: "
            f"{interval[0]:.4f} to {interval[1]:.4f}",
            delta_color="off", delta_arrow="off",
        )  # fmt: skip
        st.metric(
            "Predicted loss of all rows", "—" if all_value is None else f"{all_value:.4f}",
            delta=None if value is None or all_value is None else f"{value - all_value:+.4f} by selecting",
            delta_color="off", delta_arrow="off",
        )  # fmt: skip
        st.metric(
            "Border", "—" if border.value is None else f"{border.value:.4f}", delta=chosen.scale, delta_color="off",
            delta_arrow="off",
        )  # fmt: skip
        with st.popover("Save as dataset", icon=":material/library_add:", disabled=not size.n):
            _save(chosen, size)
    if size.asked > size.n:
        said = selection.cut(prepared.ranking, size=size.asked).said
        st.warning(_ui.plain(said), icon=":material/warning:")
    st.caption(_ui.plain(" ".join(_notes(chosen, interval is not None))))


def _notes(chosen: Chosen, has_interval: bool) -> list[str]:
    notes = ["Predicted losses are the rule at the means of the rows' indicators."]
    if chosen.rule.fit is None:
        notes.append("This rule has no covariance (it was not fitted here), so it gives no interval.")
    elif has_interval:
        notes.append(
            "The interval is for one more run like those that the rule was fitted on; a selection whose means lie far "
            "outside theirs is extrapolated."
        )
    if any(output.startswith("knn_") for output in chosen.rule.outputs):
        notes.append(
            "The kNN mean is that of distances within the whole dataset; among the selected rows alone they are larger."
        )
    return notes


def _term_means(chosen: Chosen, means: np.ndarray) -> dict[str, float]:
    places = {scorer_id: i for i, scorer_id in enumerate(chosen.prepared.columns)}
    return {output: float(means[places[scorer_id]]) for output, scorer_id in chosen.scorers.items()}


def _prediction(chosen: Chosen, means: dict[str, float]) -> tuple[float | None, tuple[float, float] | None]:
    """Loss in nats at these means, with its interval."""
    if any(np.isnan(mean) for mean in means.values()):
        return None, None
    found = chosen.rule.interval(means)
    value = chosen.loss(float(chosen.rule.predict(means)))
    return value, None if found is None else (chosen.loss(found[0]), chosen.loss(found[1]))


def _predicted(chosen: Chosen, size: Size, border: selection.Border) -> None:
    spread = chosen.prepared.predicted_spread
    edges, counts = spread.edges[0], spread.counts[0]
    selected = spread.selected_counts(size.n, 0)
    _ui.chart(
        charts.predicted_figure(edges, counts, selected, border=border.value, title=chosen.scale),
        key=f"select-predicted-{chosen.dataset_id}",
        data=[
            {"from": float(edges[i]), "to": float(edges[i + 1]), "rows": int(counts[i]), "selected": int(selected[i])}
            for i in range(len(counts))
        ],
        name="predicted",
    )


def _moves(chosen: Chosen, size: Size) -> None:
    spread, known = chosen.prepared.spread, chosen.known
    titles = _rows.short_labels([known[i] for i in chosen.prepared.columns])
    means = spread.means(size.n)
    panels = [
        charts.Panel(
            title=titles[scorer_id],
            edges=spread.edges[column],
            counts=spread.counts[column],
            selected=spread.selected_counts(size.n, column),
            mean=float(spread.all_means[column]),
            selected_mean=float(means[column]),
        )
        for column, scorer_id in enumerate(chosen.prepared.columns)
    ]
    if not panels:
        return
    _ui.chart(
        charts.moves_figure(panels),
        key=f"select-moves-{chosen.dataset_id}-{len(panels)}",
        data=[
            {"indicator": p.title, "from": float(p.edges[i]), "to": float(p.edges[i + 1]), "rows": int(p.counts[i]),
             "selected": int(p.selected[i])}
            for p in panels
            for i in range(len(p.counts))
        ],
        name="indicators-moved",
    )  # fmt: skip


# --- rows to read ---


def _reading(chosen: Chosen, size: Size, border: selection.Border) -> None:
    ranking = chosen.prepared.ranking
    which = _pick.switch("Rows", ROWS_SHOWN, parameter="rows")
    if which == "border":
        for side, words in ((border.inside, "Selected last"), (border.outside, "Left out first")):
            st.markdown(f"**{words}** · nearest to the border first")
            if side:
                _table(chosen, [int(ranking.ids[rank]) for rank in side], key=f"select-{words}")
            else:
                st.caption("There is no row on this side.")
    elif which == "refused":
        _refused(chosen)
    else:
        places = ranking.places if which == "best" else ranking.places[::-1]
        st.caption(
            f"The {READ_ROWS} rows with the {'lowest' if which == 'best' else 'highest'} {chosen.scale}, of those that "
            "pass the constraints."
        )
        _table(chosen, chosen.prepared.rows.example_ids[places[:READ_ROWS]].tolist(), key=f"select-{which}")
    _opened(chosen)


def _refused(chosen: Chosen) -> None:
    ranking = chosen.prepared.ranking
    if not ranking.refused:
        st.caption("No row is refused: each has a predicted value and passes the constraints.")
        return
    reasons = ranking.reasons
    why = st.selectbox(
        "Reason", list(reasons), format_func=lambda reason: f"{reason} ({reasons[reason]:,} rows)",
        key=f"select-reason-{_rows.identity(tuple(reasons))}",
    )  # fmt: skip
    ids = [i for i, reason in ranking.refused.items() if reason == why][:READ_ROWS]
    _table(chosen, ids, key="select-refused")


def _table(chosen: Chosen, ids: Sequence[int], *, key: str) -> None:
    rows, prepared = chosen.prepared.rows, chosen.prepared
    texts = {row["example_id"]: row for row in queries.previews(chosen.store, ids)}
    order = np.argsort(rows.example_ids)
    places = order[np.searchsorted(rows.example_ids, np.array(ids, np.int64), sorter=order)]
    shown_rows, scores = [], []
    for example_id, place in zip(ids, places.tolist(), strict=True):
        if example_id not in texts:
            continue
        shown_rows.append(
            {**texts[example_id], "dataset_id": chosen.dataset_id, "position": int(rows.positions[place])}
        )
        values = {PREDICTED: prepared.predicted[place]} | {i: column[place] for i, column in rows.values.items()}
        scores += [
            {"example_id": example_id, "scorer_id": i, "value": None if np.isnan(value) else float(value)}
            for i, value in values.items()
        ]
    title = {"scorer_id": PREDICTED, "output": "predicted"}
    terms = [chosen.known[i] for i in chosen.scorers.values()]

    def remember(found: tuple[int, ...], widget: str) -> None:
        clicked = _rows.clicked(found, widget)
        if clicked is not None:
            st.session_state[_OPEN] = clicked

    _rows.table(
        shown_rows, scores=scores, shown=[title, *terms], names={chosen.dataset_id: chosen.dataset}, key=key,
        on_open=remember, height=min(38 + 35 * len(shown_rows), 420),
    )  # fmt: skip


def _opened(chosen: Chosen) -> None:
    example_id = int(st.session_state.get(_OPEN) or 0)
    found = queries.examples(chosen.store, [example_id]) if example_id in chosen.prepared.rows.example_ids else []
    if not found:
        st.caption("Click a row to read it whole.")
        return
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown("**The row whole**", width="stretch")
            st.button("Close", icon=":material/close:", key="select-close", on_click=_close)
        why = chosen.prepared.ranking.refused.get(example_id)
        if why:
            near = chosen.prepared.ranking.nearest.get(example_id)
            st.caption(_ui.plain(f"Refused: {why}." + (f" The better row is example {near}." if near else "")))
        _example.show(chosen.service, found[0])


def _close() -> None:
    st.session_state[_OPEN] = None


# --- saving ---


def details_of(chosen: Chosen, size: Size) -> tuple[list[int], dict[str, Any]]:
    """The selected rows, best first, and their provenance."""
    found = selection.cut(chosen.prepared.ranking, size=size.asked)
    details = selections.provenance(
        dataset_id=chosen.dataset_id,
        dataset=chosen.dataset,
        rule_name=chosen.rule_name,
        rule=json.loads(chosen.rule.to_json()),
        scorers=[
            {"output": output, "scorer_id": scorer_id, "family": family_of(chosen.known[scorer_id])}
            for output, scorer_id in chosen.scorers.items()
        ],
        mismatches=chosen.forced,
        constraints=chosen.constraints.to_details(),
        size=size.to_details(),
        ranking=chosen.prepared.ranking,
        selection=found,
    )
    return list(found.kept), details


def _save(chosen: Chosen, size: Size) -> None:
    with st.form(f"select-save-{chosen.dataset_id}", border=False):
        name = st.text_input("Name of the new dataset", value=f"{chosen.dataset}: best {size.n:,}"[:200], max_chars=200)
        st.caption("The rule, its scorers, the constraints and the size are kept with it. No text is copied.")
        saved = st.form_submit_button(
            "Save", type="primary", icon=":material/library_add:", **_ui.allowed("administer")
        )
    if not saved:
        return
    ids, details = details_of(chosen, size)
    try:
        made = selections.save_selection(
            chosen.store, ids, name=name, details=details, created_by=_ui.reviewer() or None
        )
    except AssayError as error:
        st.error(_ui.plain(str(error)))
        return
    st.success(f"Saved {_ui.plain(name.strip())}: {len(ids):,} rows.")
    st.page_link(
        "explore.py", label="Open it in Explore", icon=":material/table_rows:", query_params={"datasets": str(made)}
    )
