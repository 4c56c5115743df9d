"""Filters survive the trip through a URL; broken links say so."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import SettingsError
from core.filters import PAIR_ORDERS, PAIR_STATES, ExportChoice, PairFilter, RowFilter, ScoreRange

side = st.none() | st.floats(allow_nan=False, allow_infinity=False)
sides = st.tuples(side, side)
names = st.lists(st.text(min_size=1, max_size=8), max_size=3).map(tuple)


@given(
    st.builds(
        RowFilter,
        datasets=st.lists(st.integers(1, 10**9), max_size=3).map(tuple),
        text=st.text(max_size=20),
        ranges=st.lists(st.builds(ScoreRange, st.integers(1, 99), side, side), max_size=3).map(tuple),
        sort=st.none(),
    )
    | st.builds(RowFilter, sort=st.integers(1, 99), descending=st.booleans())
)
def test_a_row_filter_survives_its_url(filters: RowFilter) -> None:
    assert RowFilter.from_params(filters.to_params()) == filters


@given(
    st.builds(
        PairFilter,
        methods=names,
        stages=names,
        proposals=names,
        state=st.sampled_from(PAIR_STATES),
        order=st.sampled_from(PAIR_ORDERS),
        seed=st.integers(0, 10**6),
        ifd=sides,
        r_ifd=sides,
        gain=sides,
    )
)
def test_a_pair_filter_survives_its_url(filters: PairFilter) -> None:
    assert PairFilter.from_params(filters.to_params()) == filters


def test_a_value_that_holds_the_separator_is_not_taken_apart() -> None:
    filters = PairFilter(proposals=("~", "a~b", "%7E", "c/d"))
    assert PairFilter.from_params(filters.to_params()) == filters


@pytest.mark.parametrize("params", [{"ranges": "1:2"}, {"datasets": "a.b"}, {"sort": "x-up"}, {"ranges": "1:a:b"}])
def test_a_broken_link_is_told(params: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="link"):
        RowFilter.from_params(params)


@pytest.mark.parametrize("params", [{"state": "done"}, {"order": "best"}, {"seed": "x"}, {"ifd": "1"}])
def test_a_broken_queue_link_is_told(params: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="link"):
        PairFilter.from_params(params)


def test_with_range_replaces_and_removes() -> None:
    filters = RowFilter().with_range(1, 0.0, None).with_range(2, None, 3.0).with_range(1, 0.5, 0.6)
    assert filters.ranges == (ScoreRange(2, None, 3.0), ScoreRange(1, 0.5, 0.6))
    assert filters.with_range(2, None, None).ranges == (ScoreRange(1, 0.5, 0.6),)


def test_an_export_choice_that_does_not_exist_is_refused() -> None:
    with pytest.raises(SettingsError, match="leave out"):
        ExportChoice(rejected="student's proposal")
