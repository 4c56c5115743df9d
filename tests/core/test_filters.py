"""Filters survive the trip through a URL; broken links say so."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import SettingsError
from core.filters import (
    MOST_ID_CHARACTERS,
    NO_VALUE_KINDS,
    PAIR_ORDERS,
    PAIR_STATES,
    Category,
    ExportChoice,
    NoValue,
    PairFilter,
    RowFilter,
    ScoreRange,
    ids_fit_into_link,
)

side = st.none() | st.floats(allow_nan=False, allow_infinity=False)
sides = st.tuples(side, side)
without = st.builds(NoValue, st.integers(1, 99), st.sampled_from(NO_VALUE_KINDS)) | st.builds(
    NoValue, st.integers(1, 99), st.just("null"), st.text(max_size=12)
)
categories = st.lists(st.none() | st.text(max_size=8), max_size=3).map(tuple)
number = st.none() | st.integers(1, 2**63 - 1)
names = st.lists(st.text(min_size=1, max_size=8), max_size=3).map(tuple)


@given(
    st.builds(
        RowFilter,
        datasets=st.lists(st.integers(1, 10**9), max_size=3).map(tuple),
        text=st.text(max_size=20),
        ranges=st.lists(st.builds(ScoreRange, st.integers(1, 99), side, side), max_size=3).map(tuple),
        sort=st.none(),
        missing=st.lists(without, max_size=3).map(tuple),
        category=st.none() | st.builds(Category, st.text(max_size=8), categories),
        ids=st.sets(st.integers(1, 10**7), max_size=40).map(lambda found: tuple(sorted(found))),
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
        text=st.text(max_size=12),
        words=st.booleans(),
        reviewers=names,
        scores=st.lists(st.builds(ScoreRange, st.integers(1, 99), side, side), max_size=3).map(tuple),
        pair_list=number,
        similar_to=number,
        rule=number,
    )
)
def test_a_pair_filter_survives_its_url(filters: PairFilter) -> None:
    assert PairFilter.from_params(filters.to_params()) == filters


def test_a_value_that_holds_the_separator_is_not_taken_apart() -> None:
    filters = PairFilter(proposals=("~", "a~b", "%7E", "c/d"))
    assert PairFilter.from_params(filters.to_params()) == filters


@pytest.mark.parametrize(
    "params",
    [
        {"ranges": "1:2"},
        {"datasets": "a.b"},
        {"sort": "x-up"},
        {"ranges": "1:a:b"},
        {"missing": "1"},
        {"missing": "1:what:"},
        {"missing": "1:unscored:why"},
        {"category": "key"},
        {"category": "!~=a"},
        {"rows": "0"},
        {"rows": "1.-5"},
        {"rows": "1.ü"},
        {"rows": "zzzzzzzzzzzzzzzz"},
        {"rows": "1-zzzzzzzz"},
        {"rows": "1." * MOST_ID_CHARACTERS},
    ],
)
def test_a_broken_link_is_told(params: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="link"):
        RowFilter.from_params(params)


@pytest.mark.parametrize(
    "params",
    [
        {"state": "done"},
        {"order": "best"},
        {"seed": "x"},
        {"ifd": "1"},
        {"gain": "nan:"},
        {"scores": "1:2"},
        {"scores": "a::"},
        {"list": "-1"},
        {"like": str(2**63)},
        {"datasets": "1.-2"},
    ],
)
def test_a_broken_queue_link_is_told(params: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="link"):
        PairFilter.from_params(params)


def test_marked_rows_that_lie_side_by_side_make_a_short_link() -> None:
    assert RowFilter(ids=(5, 6, 7, 8, 10)).to_params() == {"rows": "5.1-3.2"}
    many = RowFilter(ids=tuple(range(1000, 51_000)))
    assert len(many.to_params()["rows"]) < 20
    assert RowFilter.from_params(many.to_params()) == many


def test_a_link_never_grows_beyond_what_servers_take() -> None:
    """A lasso around 20,000 scattered rows made an address of 60,000 characters that no server would answer."""
    random = Random(0)
    few, many = (tuple(sorted(random.sample(range(10**6), n))) for n in (1200, 20_000))
    assert ids_fit_into_link(few)
    assert len(RowFilter(ids=few).to_params()["rows"]) <= MOST_ID_CHARACTERS
    assert not ids_fit_into_link(many)
    with pytest.raises(SettingsError, match="Save them as a dataset"):
        RowFilter(ids=many).to_params()


def test_the_empty_filter_has_no_parameter_and_asks_for_all_rows() -> None:
    assert RowFilter().to_params() == {}
    assert not RowFilter(datasets=(1,), sort=2).is_narrowed
    assert RowFilter(missing=(NoValue(1),)).is_narrowed
    assert RowFilter(ids=(1,)).is_narrowed


def test_with_range_replaces_and_removes() -> None:
    filters = RowFilter().with_range(1, 0.0, None).with_range(2, None, 3.0).with_range(1, 0.5, 0.6)
    assert filters.ranges == (ScoreRange(2, None, 3.0), ScoreRange(1, 0.5, 0.6))
    assert filters.with_range(2, None, None).ranges == (ScoreRange(1, 0.5, 0.6),)


def test_an_export_choice_that_does_not_exist_is_refused() -> None:
    with pytest.raises(SettingsError, match="leave out"):
        ExportChoice(rejected="student's proposal")
