"""How length goes with the verdicts of a comparison: win rate raw beside length-controlled, wins by length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
import streamlit as st

from core.charts import judge_trust as charts
from core.charts.board import told_apart
from pages import _compare_rates, _compare_view, _rows, _ui
from pages._compare_view import Judged


def show(comparison: Mapping[str, Any], lines: Sequence[Judged], tables: Mapping[int, pa.Table]) -> None:
    """Win rates of all judges on the left, wins by length under one of them on the right."""
    number = comparison["comparison_id"]
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("Win rate, raw and length-controlled", anchor=False)
        _rates(comparison, lines, tables)
    with right:
        st.subheader("Wins by length", anchor=False)
        judge = _compare_view.pick_judge(lines, key=f"compare-length-judge-{number}")
        column = {name: tables[judge.judge_id][name].to_pylist() for name in _COLUMNS}
        both = [
            (first - second, outcome)
            for first, second, outcome in zip(*column.values(), strict=True)
            if first is not None and second is not None
        ]
        bins = charts.length_bins([one for one, _ in both], [outcome for _, outcome in both])
        if len(bins) < 2:
            st.info("Too few questions with a verdict, or answers of one length only.")
            return
        bar = told_apart([judge.bar()], length=28)[0]
        _ui.chart(
            charts.length_figure(bins, first=bar.first, second=bar.second),
            key=f"compare-length-{number}-{judge.judge_id}",
            data=[vars(one) for one in bins],
            name=f"wins-by-length-{judge.key}",
        )
        st.caption("Bars that climb to the right: the longer answer tends to win. A judge of substance is flat here.")


_COLUMNS = ("n_characters_first", "n_characters_second", "outcome")


def _rates(comparison: Mapping[str, Any], lines: Sequence[Judged], tables: Mapping[int, pa.Table]) -> None:
    found = []
    for one in lines:
        items = _compare_rates.model_items(tables[one.judge_id], one.kind)
        found.append((f"by {one.judge}", *_compare_rates.rates(items.values(), None)))
    number = comparison["comparison_id"]
    reference = _compare_view.name_of(comparison, "second")
    table = [_compare_rates.line(*one) for one in found]
    _ui.chart(
        charts.win_rate_figure([_compare_rates.rate(*one) for one in found], reference=reference),
        key=f"compare-rates-{number}-{_rows.identity(tuple(one.key for one in lines))}",
        data=table,
        name=f"win-rates-{number}",
    )
    st.dataframe(
        pd.DataFrame(table).rename(columns={"model": "judge"}),
        hide_index=True, height="content", placeholder="—", key=f"compare-rates-table-{number}-{len(found)}",
        column_config=_compare_rates.COLUMNS,
    )  # fmt: skip
    st.caption(_ui.plain(f"Of {_compare_view.name_of(comparison, 'first')}. {_compare_rates.CAVEAT}"))
