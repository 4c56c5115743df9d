"""Plans of studies: what a design draws, and what is said of it before anything is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.errors import InputError
from core.rules import parse
from db import evaluation, fits, study_means, study_plans
from db.store import Store
from db.study_plans import Design
from tests.pages import study_stores
from tests.pages.study_stores import Studied


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Any:
    opened = Store(Path(tmp_path_factory.mktemp("plans")) / "assay.duckdb")
    yield opened, study_stores.fill(opened)
    opened.close()


def sources(studied: Studied) -> tuple[int, ...]:
    return tuple(studied.sources.values())


def columns_of(store: Store, studied: Studied) -> list[Any]:
    return study_means.indicator_columns(store, sources(studied))


def test_steering_spreads_the_means(filled: tuple[Store, Studied]) -> None:
    store, studied = filled
    columns = columns_of(store, studied)
    spreads = []
    for steer in (None, "mtld"):
        design = Design(kind="multivariate", dataset_ids=sources(studied), n_runs=12, size=20, steer=steer)
        runs = study_plans.draw(store, design, columns)
        spreads.append(float(study_means.plan_means(store, runs, columns).of("mtld").std()))
    assert spreads[1] > 2 * spreads[0]
    assert "spread" in design.to_json()


def test_rows_that_the_evaluation_set_asks_are_left_out(filled: tuple[Store, Studied]) -> None:
    store, studied = filled
    design = Design(kind="multivariate", dataset_ids=sources(studied), n_runs=3, size=80)
    gone = set(study_stores.example_ids(store, sources(studied)[0])[:10])
    runs = study_plans.draw(store, design, columns_of(store, studied), left_out=gone)
    assert not gone & {i for run in runs for i in run.example_ids}
    tight = Design(kind="multivariate", dataset_ids=sources(studied), n_runs=3, size=81)
    with pytest.raises(InputError, match="80 distinct rows"):
        study_plans.draw(store, tight, columns_of(store, studied), left_out=gone)


def test_what_is_doubtful_is_said(filled: tuple[Store, Studied]) -> None:
    store, studied = filled
    ids = sources(studied)
    marked = evaluation.evaluation_sets(store)[0]["dataset_id"]
    columns = columns_of(store, studied)
    few = Design(kind="multivariate", dataset_ids=ids, n_runs=3, size=80)
    plan = study_plans.look(
        store, study_plans.draw(store, few, columns), kind="multivariate", evaluation_id=marked, columns=columns
    )
    assert any("too few to fit" in words for words in plan.warnings)
    assert any("smaller than its share" in words for words in plan.warnings)
    by_ifd = Design(kind="univariate", dataset_ids=ids, indicators=("ifd",))
    plan = study_plans.look(
        store, study_plans.draw(store, by_ifd, columns), kind="univariate", evaluation_id=marked, columns=columns
    )
    assert plan.warnings == ("1 row has no value of IFD and is in no run that is made by it.",)
    by_length = Design(kind="univariate", dataset_ids=ids, indicators=("length",))
    plan = study_plans.look(
        store, study_plans.draw(store, by_length, columns), kind="univariate", evaluation_id=marked, columns=columns
    )
    assert [words for words in plan.warnings if "rows of the runs have no value of IFD; the means are" in words]
    single = Design(kind="single", dataset_ids=ids[:1])
    plan = study_plans.look(
        store, study_plans.draw(store, single, columns), kind="single", evaluation_id=marked, columns=columns
    )
    assert plan.warnings == ()
    assert plan.train_tokens > plan.eval_tokens > 0


def test_the_usual_plan_is_the_papers_where_there_are_rows_enough() -> None:
    assert study_plans.usual_counts(52_000) == (78, 2000)
    assert study_plans.usual_counts(240) == (24, 40)
    assert study_plans.usual_counts(1) == (24, 2)


def test_distances_within_many_rows_are_computed_only_when_asked_for(filled: tuple[Store, Studied]) -> None:
    store, studied = filled
    columns = columns_of(store, studied)
    for size, costly in ((40, ()), (2000, ("knn_6",))):
        design = Design(kind="multivariate", dataset_ids=(1,), n_runs=78, size=size)
        assert study_plans.costly_columns(design, columns) == costly


def test_the_best_rows_by_a_rule_stand_beside_random_ones(filled: tuple[Store, Studied]) -> None:
    store, studied = filled
    rule = parse("log L = 0.9 - 0.2*reward", name="By reward")
    fits.save_rule(store, rule, name="By reward")
    first = sources(studied)[0]
    design = Design(kind="size", dataset_ids=(first,), rule="By reward", sizes=(5, 10), n_random=2)
    runs = study_plans.draw(store, design, columns_of(store, studied))
    assert [(run.role, len(run.example_ids)) for run in runs] == [
        ("top", 5), ("random", 5), ("random", 5), ("top", 10), ("random", 10), ("random", 10)
    ]  # fmt: skip
    reward = studied.values["reward"]
    best = sorted(study_stores.example_ids(store, first), key=lambda i: -reward[i])
    assert list(runs[0].example_ids) == best[:5]
    gone = study_plans.draw(store, design, columns_of(store, studied), left_out=best[:1])
    assert list(gone[0].example_ids) == best[1:6]


def test_a_rule_of_other_scorers_ranks_nothing(filled: tuple[Store, Studied]) -> None:
    store, studied = filled
    for rule, words in (("Instruction Mining (published)", "knn_6"), ("gone", "not in the store any more")):
        design = Design(kind="size", dataset_ids=sources(studied)[:1], rule=rule, sizes=(5,))
        with pytest.raises(InputError, match=words):
            study_plans.draw(store, design, columns_of(store, studied))


def test_a_design_keeps_what_counts_for_its_kind() -> None:
    assert Design(kind="single", dataset_ids=(3,), seed=5).to_json() == {
        "kind": "single",
        "dataset_ids": (3,),
        "seed": 5,
    }
    assert set(Design(kind="univariate", dataset_ids=(3,), indicators=("ifd",)).to_json()) == {
        "kind", "dataset_ids", "indicators", "n_bins", "seed"
    }  # fmt: skip
