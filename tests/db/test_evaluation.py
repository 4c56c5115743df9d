"""Evaluation sets in a real store: marks, counts, overlap with training data, and references that a teacher wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sqlalchemy import text

from core.errors import StoreError
from core.example import Example
from core.jobs.folder import JobFolder
from core.jobs.spec import JobSpec
from core.reference_job import SHARD_SCHEMA, ReferenceOptions
from core.teacher import TeacherSettings
from db import collecting, commands, evaluation, imports, jobs, references
from db.evaluation import evaluation_set, evaluation_sets, mark, overlap, unmark
from db.store import Store, registered, rows, utc_now
from tests.db.conftest import batch

TEACHER = TeacherSettings("https://api.example.org/v1", "small", price_in=1.0, price_out=2.0)
SET = [
    Example("Name a river.", "", "The Rhine."),
    Example("Name a river.", "", "The Elbe."),
    Example("Name a river.", "in Asia", ""),
    Example("Write a poem about the sea.", "", " \n"),
    Example("Name a river.", "", "The Rhine."),
]


def add_set(store: Store, examples: list[Example], name: str = "evaluation") -> int:
    dataset_id = commands.import_dataset(store, [batch(examples)], name=name, source="test", kind="evaluation")
    mark(store, dataset_id, by="Ada")
    return dataset_id


def add_study(store: Store, evaluation_id: int, name: str = "first study") -> None:
    with store.write() as connection:
        connection.execute(
            text("insert into studies values (nextval('study_ids'), :name, 'single', :id, '{}', '{}', :now, null)"),
            {"name": name, "id": evaluation_id, "now": utc_now()},
        )


def texts(store: Store, dataset_id: int) -> list[tuple[str, str, str]]:
    with store.read() as connection:
        found = rows(
            connection,
            """select e.instruction, e.input, e.output from members m join examples e on e.example_id = m.example_id
            where m.dataset_id = :id order by m.position""",
            id=dataset_id,
        )
    return [(row["instruction"], row["input"], row["output"]) for row in found]


# --- marks and counts ---


def test_the_counts_of_a_set(store: Store) -> None:
    dataset_id = add_set(store, SET)
    found = evaluation_set(store, dataset_id)
    assert found["n_members"] == 5
    assert found["n_instructions"] == 3
    assert found["n_outputs"] == 3
    assert found["n_without_reference"] == 2  # an empty output, and one of white space
    assert found["median_references"] == 3
    assert found["n_duplicates"] == 1
    assert found["marked_by"] == "Ada"


def test_a_set_of_one_row_and_one_without_any_reference(store: Store) -> None:
    one = evaluation_set(store, add_set(store, SET[:1]))
    assert (one["n_instructions"], one["n_outputs"], one["median_references"]) == (1, 1, 1)
    none = evaluation_set(store, add_set(store, SET[2:4], name="bare"))
    assert (none["n_outputs"], none["n_without_reference"], none["median_references"]) == (0, 2, None)


def test_marking_twice_changes_nothing_and_unmarking_keeps_the_dataset(store: Store, dataset_id: int) -> None:
    mark(store, dataset_id, by="Ada")
    mark(store, dataset_id, by="Ben")
    assert [(row["dataset_id"], row["marked_by"]) for row in evaluation_sets(store)] == [(dataset_id, "Ada")]
    unmark(store, dataset_id)
    assert evaluation_sets(store) == []
    assert len(texts(store, dataset_id)) == 6
    with pytest.raises(StoreError, match="no evaluation set"):
        evaluation_set(store, dataset_id)


def test_a_set_that_a_study_uses_stays_marked(store: Store) -> None:
    dataset_id = add_set(store, SET)
    add_study(store, dataset_id)
    add_study(store, dataset_id, "second")
    with pytest.raises(StoreError, match=r"'first study' \(and 1 more\)"):
        unmark(store, dataset_id)
    assert len(evaluation_sets(store)) == 1


def test_what_is_not_there_cannot_be_marked(store: Store) -> None:
    with pytest.raises(StoreError, match="no dataset 77"):
        mark(store, 77)


def test_a_copy_has_the_same_rows_and_is_marked(store: Store) -> None:
    dataset_id = add_set(store, SET)
    copied = evaluation.copy(store, dataset_id, name="again", by="Ben")
    assert texts(store, copied) == texts(store, dataset_id)
    assert {row["name"] for row in evaluation_sets(store)} == {"evaluation", "again"}
    with pytest.raises(StoreError, match="already"):
        evaluation.copy(store, dataset_id, name="again")


def test_an_import_can_mark_what_it_made(store: Store, tmp_path: Path) -> None:
    from core.formats import detect_evaluation_shape, open_source

    path = tmp_path / "set.jsonl"
    path.write_text('{"instruction": "a", "outputs": ["b", "c"]}\n{"instruction": "d"}\n')
    source = open_source(path)
    mapping = detect_evaluation_shape(source)
    assert mapping is not None
    choice = imports.ImportChoice(name="set", origin="test", evaluation=True, created_by="Ada")
    task = imports.start_import(store, source, mapping, choice)
    while not task.over:
        pass
    assert task.error is None
    found = evaluation_sets(store)[0]
    assert (found["n_instructions"], found["n_outputs"], found["n_without_reference"]) == (2, 2, 1)
    assert "no reference yet" in next(row.reason for row in task.report.to_rows())


def test_the_rows_of_a_set_and_their_references(store: Store) -> None:
    dataset_id = add_set(store, SET)
    found = evaluation.instructions(store, dataset_id)
    assert [(row["instruction"], row["input"], row["n_references"]) for row in found] == [
        ("Name a river.", "", 2),
        ("Name a river.", "in Asia", 0),
        ("Write a poem about the sea.", "", 0),
    ]
    assert [row["instruction"] for row in evaluation.instructions(store, dataset_id, text_found="ELBE")] == [
        "Name a river."
    ]
    bare = evaluation.instructions(store, dataset_id, only_without=True, limit=1)
    assert [(row["input"], row["n_references"]) for row in bare] == [("in Asia", 0)]
    written = evaluation.references(store, dataset_id, found[0]["example_id"])
    assert [row["output"] for row in written] == ["The Rhine.", "The Elbe.", "The Rhine."]
    assert {row["teacher"] for row in written} == {None}


# --- overlap ---


def test_overlap_of_every_degree(store: Store) -> None:
    evaluation_id = add_set(store, SET)
    near = "Write a poem about the sea."
    training = commands.import_dataset(
        store,
        [
            batch(
                [
                    Example("Name a river.", "", "The Elbe."),  # the very row
                    Example("name a  RIVER.", "in asia", "The Ob."),  # the same instruction and input
                    Example("Name a river.", "in Peru", "The Amazon."),  # the same instruction only
                    Example(near.replace("poem", "song"), "", "La la."),  # near
                    Example("Add 1 and 1.", "", "2"),
                ]
            )
        ],
        name="training",
        source="test",
    )
    found = overlap(store, evaluation_id, [training], threshold=0.8)
    assert found.counts == {"same_example": 1, "exact": 2, "same_instruction": 4, "near": 1}
    assert (found.n_instructions, found.n_training) == (3, 5)
    assert found.near[0].similarity == pytest.approx(10 / 12)
    assert found.near_measure == "words"
    assert found.n_instructions_found == 3
    assert len(found.training_ids) == 3
    assert found.n_training_unembedded is None
    nothing = overlap(store, evaluation_id, [])
    assert (nothing.n_training, nothing.counts["exact"]) == (0, 0)


def put_vectors(store: Store, vectors: dict[int, list[float]]) -> None:
    with store.write() as connection:
        connection.execute(
            text("insert into scorers values (7, 'k', 'embedding', 'embedding', '1', 'tiny', 'r', null, '{}')")
        )
        data = pa.table({"example_id": list(vectors), "vector": list(vectors.values())})
        with registered(connection, "incoming", data):
            connection.execute(text("insert into embeddings select 7, example_id, vector::float[] from incoming"))


def test_embeddings_are_used_where_both_sides_have_them(store: Store) -> None:
    evaluation_id = add_set(store, SET[:3])
    training = commands.import_dataset(
        store, [batch([Example("Which stream?", "", "x"), Example("Add.", "", "2")])], name="training", source="test"
    )
    with pytest.raises(StoreError, match="by kNN"):
        overlap(store, evaluation_id, [training], measure="embedding")
    with store.read() as connection:
        ids = [row["example_id"] for row in rows(connection, "select example_id from members order by all")]
    ids = sorted(set(ids))
    vectors = dict(zip(ids, np.eye(5).tolist(), strict=True))
    vectors[ids[3]] = [0.0, 2.0, 0.1, 0.0, 0.0]  # nearest to the second reference of the first instruction
    put_vectors(store, vectors)
    found = overlap(store, evaluation_id, [training])
    assert found.near_measure == "words or embedding"
    assert (found.n_evaluation_unembedded, found.n_training_unembedded) == (0, 0)
    assert [(pair.evaluation_id, pair.training_id) for pair in found.near] == [(ids[0], ids[3])]
    assert overlap(store, evaluation_id, [training], measure="words").near == ()
    with store.write() as connection:
        connection.execute(text("delete from embeddings where example_id = :id"), {"id": ids[4]})
    partly = overlap(store, evaluation_id, [training])
    assert (partly.near_measure, partly.n_training_unembedded) == ("words", 1)
    assert overlap(store, evaluation_id, [training], measure="embedding").near == found.near


# --- references ---


def calls(*answers: tuple[int, str | None], job: str = "job") -> pa.Table:
    """A shard: (example asked about, output or None) a call."""
    table = [
        {
            "example_id": example_id,
            "number": number,
            "call_id": f"{job}-{number}",
            "prompt_version": "reference-1",
            "teacher": "api.example.org",
            "model": "small",
            "raw": output or "",
            "finish_reason": "stop",
            "outcome": "empty" if output is None else "parsed",
            "reason": "The answer is empty." if output is None else None,
            "output": output,
            "seconds": 0.1,
            "attempts": 1,
            "requested_at": "2026-01-01T00:00:00",
        }
        for number, (example_id, output) in enumerate(answers)
    ]
    return pa.Table.from_pylist(table, schema=SHARD_SCHEMA)


def make_spec(dataset_id: int, n: int = 2) -> JobSpec:
    params: dict[str, Any] = {**ReferenceOptions(TEACHER, n).to_params(), "dataset_id": dataset_id}
    return JobSpec(
        job_id="job", kind="references", title="t", device="cpu", n_rows=1, shard_rows=8, params=params,
        created_at="2026-01-01T00:00:00", assay_version="0",
    )  # fmt: skip


def collect(store: Store, dataset_id: int, table: pa.Table, n: int = 2) -> tuple[int, list[dict[str, Any]]]:
    with store.adding_examples() as connection:
        return references.collect(connection, make_spec(dataset_id, n), table)


def test_the_plan_asks_for_what_is_missing(store: Store) -> None:
    dataset_id = add_set(store, SET)
    plan = references.plan(store, dataset_id, ReferenceOptions(TEACHER, 5))
    assert plan.wanted["n_has"].to_pylist() == [2, 0, 0]
    assert plan.wanted["n_wanted"].to_pylist() == [3, 5, 5]
    assert plan.estimate.calls == 13
    assert plan.estimate.cost_usd is not None
    assert plan.estimate.cost_usd > 0
    bare = references.plan(store, dataset_id, ReferenceOptions(TEACHER, 5), only_without=True, limit=1)
    assert bare.wanted["input"].to_pylist() == ["in Asia"]
    assert references.plan(store, dataset_id, ReferenceOptions(TEACHER, 1)).estimate.calls == 2


def test_a_job_is_submitted_for_a_set_that_no_study_uses(store: Store, tmp_path: Path) -> None:
    dataset_id = add_set(store, SET)
    options = ReferenceOptions(TEACHER, 2)
    folder = references.submit(store, tmp_path, dataset_id=dataset_id, options=options)
    assert folder.input_table().column_names == ["example_id", "instruction", "input", "n_wanted"]
    assert folder.spec().n_rows == 2
    assert jobs.jobs(store)[0]["kind"] == "references"
    with pytest.raises(StoreError, match="Nothing is left"):
        references.submit(store, tmp_path, dataset_id=add_set(store, SET[:2], "full"), options=options)
    add_study(store, dataset_id)
    with pytest.raises(StoreError, match="Copy the set"):
        references.submit(store, tmp_path, dataset_id=dataset_id, options=options)


def test_references_take_the_empty_place_first_and_then_the_end(store: Store) -> None:
    dataset_id = add_set(store, SET)
    wanted = references.plan(store, dataset_id, ReferenceOptions(TEACHER, 2)).wanted["example_id"].to_pylist()
    table = calls((wanted[0], "The Ob."), (wanted[0], None), (wanted[0], "The Amur."), (wanted[1], "O sea."))
    n_rows, failed = collect(store, dataset_id, table)
    assert n_rows == 2
    assert [(row["example_id"], row["reason"]) for row in failed] == [(wanted[0], "The answer is empty.")]
    found = texts(store, dataset_id)
    assert found[2] == ("Name a river.", "in Asia", "The Ob.")
    assert found[3] == ("Write a poem about the sea.", "", "O sea.")
    assert found[5] == ("Name a river.", "in Asia", "The Amur.")
    counts = evaluation_set(store, dataset_id)
    assert (counts["n_members"], counts["n_outputs"], counts["n_without_reference"]) == (6, 6, 0)
    written = evaluation.references(store, dataset_id, wanted[0])
    assert [(row["output"], row["teacher"], row["model"]) for row in written] == [
        ("The Ob.", "api.example.org", "small"),
        ("The Amur.", "api.example.org", "small"),
    ]
    assert jobs.teacher_totals(store, "job")["n_calls"] == 4


def test_no_instruction_gets_more_than_was_asked_for_and_none_twice(store: Store) -> None:
    dataset_id = add_set(store, SET)
    wanted = references.plan(store, dataset_id, ReferenceOptions(TEACHER, 2)).wanted["example_id"].to_pylist()
    collect(store, dataset_id, calls((wanted[0], "a"), (wanted[0], "b"), (wanted[0], "c"), (wanted[0], "a")))
    again = calls((wanted[0], "a"), (wanted[0], "d"), job="second")
    collect(store, dataset_id, again)
    assert [row["output"] for row in evaluation.references(store, dataset_id, wanted[0])] == ["a", "b"]
    collect(store, dataset_id, calls((wanted[0], "a"), (wanted[0], "d"), job="third"), n=3)
    assert [row["output"] for row in evaluation.references(store, dataset_id, wanted[0])] == ["a", "b", "d"]


def test_a_set_that_a_study_uses_by_now_does_not_change(store: Store) -> None:
    """The study was made while the job ran: what its runs were evaluated on must not move under them."""
    dataset_id = add_set(store, SET)
    wanted = references.plan(store, dataset_id, ReferenceOptions(TEACHER, 2)).wanted["example_id"].to_pylist()
    add_study(store, dataset_id)
    before = texts(store, dataset_id)
    _, failed = collect(store, dataset_id, calls((wanted[0], "The Ob.")))
    assert texts(store, dataset_id) == before
    assert "'first study'" in failed[0]["reason"]
    assert jobs.teacher_totals(store, "job")["n_parsed"] == 1
    commands.remove_dataset(store, add_set(store, SET, "gone"))


def test_a_set_that_was_removed_gets_nothing(store: Store) -> None:
    dataset_id = add_set(store, SET)
    wanted = references.plan(store, dataset_id, ReferenceOptions(TEACHER, 2)).wanted["example_id"].to_pylist()
    commands.remove_dataset(store, dataset_id)
    _, failed = collect(store, dataset_id, calls((wanted[0], "The Ob.")))
    assert "removed" in failed[0]["reason"]


def test_a_shard_is_collected_once(store: Store, tmp_path: Path) -> None:
    dataset_id = add_set(store, SET)
    folder = references.submit(store, tmp_path, dataset_id=dataset_id, options=ReferenceOptions(TEACHER, 2))
    first = folder.input_table()["example_id"][0].as_py()
    JobFolder(folder.path).write_shard(0, calls((first, "The Ob."), (first, None)))
    for _ in range(2):
        collecting.collect(store, folder, 0)
    assert evaluation_set(store, dataset_id)["n_outputs"] == 4
    assert jobs.failures(store, folder.spec().job_id)[0]["stage"] == "reference"
