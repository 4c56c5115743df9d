"""The rows behind a bar are exactly those that it counts, and what pages remember is dropped when the store changes."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pyarrow as pa
import pytest

from core.charts.scores import bin_range
from core.example import Example
from core.filters import RowFilter
from db import commands, queries
from db.store import Store
from tests.pages.sample_stores import Identity, example_ids, import_rows


def scored(store: Store, values: Sequence[float | None], *, name: str = "Rows") -> tuple[int, int]:
    """A dataset whose i-th row has the i-th value; returns dataset and scorer id."""
    dataset_id = import_rows(store, [Example(f"{name} {i}") for i in range(len(values))], name=name)
    with store.write() as connection:
        scorer_id = commands.ensure_scorers(connection, [Identity("ifd", "ifd")])["ifd"]
        table = pa.table(
            {
                "scorer_id": pa.array([scorer_id] * len(values), pa.int64()),
                "example_id": pa.array(example_ids(store, dataset_id), pa.int64()),
                "value": pa.array(values, pa.float64()),
                "reason": [None if value is not None else "The response is empty." for value in values],
                "transient": [False] * len(values),
            }
        )
        commands.put_scores(connection, table)
    return dataset_id, scorer_id


RANDOM = random.Random(0)
CASES: dict[str, list[float | None]] = {
    "spread": [RANDOM.gauss(0.7, 0.2) for _ in range(500)],
    "tenths, which lie on edges": [round(0.1 * (i % 37), 1) for i in range(400)],
    "whole numbers": [float(RANDOM.randint(0, 90)) for _ in range(300)],
    "few whole numbers": [float(i % 3) for i in range(60)],
    "all equal": [2.5] * 20,
    "one value": [0.25],
    "long tail": [RANDOM.lognormvariate(1, 2) for _ in range(400)],
    "with NULLs": [None, 1.0, 2.0, None, 2.5],
}


@pytest.mark.parametrize("case", CASES)
def test_the_filter_of_every_bar_finds_its_rows_and_no_other(store: Store, case: str) -> None:
    values = CASES[case]
    dataset_id, scorer_id = scored(store, values)
    bins = queries.histogram(store, scorer_id=scorer_id, dataset_ids=[dataset_id], n_bins=20)
    assert sum(row["n"] for row in bins) == sum(value is not None for value in values)
    assert len(bins) <= 20
    for row in bins:
        filters = RowFilter(datasets=(dataset_id,)).with_range(scorer_id, *bin_range(row))
        assert queries.count_rows(store, filters) == row["n"], (case, row)


def test_bins_of_whole_numbers_are_whole_numbers_wide(store: Store) -> None:
    dataset_id, scorer_id = scored(store, CASES["whole numbers"])
    bins = queries.histogram(store, scorer_id=scorer_id, dataset_ids=[dataset_id], n_bins=20)
    assert {row["width"] for row in bins} == {5.0}


def test_two_datasets_share_their_bins(store: Store) -> None:
    first, scorer_id = scored(store, [0.1 * i for i in range(50)])
    second, _ = scored(store, [0.2 * i for i in range(50)], name="More")
    bins = queries.histogram(store, scorer_id=scorer_id, dataset_ids=[first, second], n_bins=10)
    edges = [{row["bin"]: row["left_edge"] for row in bins if row["dataset_id"] == i} for i in (first, second)]
    for number in edges[0].keys() & edges[1].keys():
        assert edges[0][number] == edges[1][number]


def test_version_changes_with_what_pages_remember(store: Store) -> None:
    seen = [queries.version(store)]
    dataset_id, _ = scored(store, [1.0, 2.0])
    seen.append(queries.version(store))
    commands.rename_dataset(store, dataset_id, name="Another")
    seen.append(queries.version(store))
    commands.create_dataset(store, example_ids(store, dataset_id), name="Selection", kind="selection", source="test")
    seen.append(queries.version(store))
    assert len(set(seen)) == len(seen)
    assert queries.version(store) == seen[-1]


@pytest.mark.parametrize("text", ["(?i)[a", "100%_", "\\E.*", "ÇA", "a\x00b", "line\nbreak"])
def test_text_is_searched_as_text_in_any_case(store: Store, text: str) -> None:
    import_rows(store, [Example(f"before {text.swapcase()} after"), Example("something else")], name="Texts")
    page = queries.page_of_rows(store, RowFilter(text=text))
    assert len(page.rows) == page.total == queries.count_rows(store, RowFilter(text=text)) == 1
