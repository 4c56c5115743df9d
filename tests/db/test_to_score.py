"""What is left to score: against a plain reading of the tables, and with real jobs of tiny models, kNN among them."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from core.embedding import Embedder, EmbedderSettings
from core.errors import StoreError
from core.example import Example
from core.indicators import outputs_of
from core.jobs.folder import JobFolder
from core.jobs.runner import Progress
from core.lm import StudentSettings
from core.score_job import run
from core.scoring import Models, ScorerIdentity, scorer_identities
from db import collecting, commands, jobs, to_score
from db.store import Store, frame, rows
from tests.core import tiny_roles
from tests.db.conftest import EXAMPLES, batch

WORDS = ["river", "apple", "seven", "blue", "music", "window", "paper", "stone", "green", "letter"]


def some(n: int, *, start: int = 0) -> list[Example]:
    return [
        Example(f"Ask {WORDS[i % 10]}", "", f"{WORDS[i * 7 % 10]} {i} {WORDS[i % 3]}") for i in range(start, start + n)
    ]


def load(store: Store, examples: list[Example], name: str) -> int:
    return commands.import_dataset(store, [batch(examples)], name=name, source="t")


def digest(store: Store, dataset_id: int) -> str:
    with store.read() as connection:
        return to_score.dataset_digest(connection, dataset_id)


def test_a_digest_says_which_texts_a_dataset_has_and_how_often_in_any_order(store: Store) -> None:
    first = digest(store, load(store, EXAMPLES, "first"))
    assert digest(store, load(store, EXAMPLES[::-1], "backwards")) == first
    others = [EXAMPLES[:-1], [*EXAMPLES, EXAMPLES[0]], [*EXAMPLES, EXAMPLES[0], EXAMPLES[0]], some(6)]
    found = {digest(store, load(store, examples, f"other {i}")) for i, examples in enumerate(others)}
    assert len(found | {first}) == 5
    # An exclusive or forgets pairs; the sums do not.
    twice = [load(store, [a, a, b, b], f"{a.instruction}+{b.instruction}") for a, b in itertools.pairwise(EXAMPLES)]
    assert len({digest(store, one) for one in twice}) == len(twice)


def test_what_is_left_agrees_with_a_plain_reading_of_the_tables(store: Store) -> None:
    """Rows with some of an indicator's outputs, with NULLs that stay and NULLs that may pass, in every mixture."""
    shuffled = random.Random(7)
    examples = some(60)
    dataset_id = load(store, [*examples, *examples[:5]], "d")
    keys = ["length", "mtld", "ifd", "r_ifd"]
    identities = scorer_identities(keys, Models(student=StudentSettings("org/m")), {"student": "abc"})
    with store.write() as connection:
        scorers = commands.ensure_scorers(connection, identities)
        ids = [row["example_id"] for row in rows(connection, "select distinct example_id from members order by 1")]
        cells = []
        for example_id in ids:
            for output, scorer_id in scorers.items():
                state = shuffled.choice(["value", "value", "value", "value", "null", "passing", "none"])
                if example_id % 5 == 0 or (example_id % 3 == 0 and output not in ("ifd", "mtld")):
                    state = "value"
                if state != "none":
                    value = 1.0 if state == "value" else None
                    cells.append((example_id, output, scorer_id, value, state == "passing"))
        names = ("example_id", "output", "scorer_id", "value", "transient")
        table = pa.table(dict(zip(names, map(list, zip(*cells, strict=True)), strict=True)))
        reasons = pa.array([None if value else "because" for _, _, _, value, _ in cells], pa.string())
        commands.put_scores(
            connection,
            pa.table({**{name: table[name] for name in ("scorer_id", "example_id", "value")}, "reason": reasons,
                      "transient": table["transient"]}),
        )  # fmt: skip
        done = {(example_id, output) for example_id, output, _, _, passing in cells if not passing}
        asked = to_score.asked_of(keys, scorers=scorers)
        left = to_score.left_rows(connection, asked, dataset_id=dataset_id)
        size = to_score.size(connection, asked, dataset_id=dataset_id)
        texts = to_score.with_texts(connection, left).read_all().to_pylist()
        counts = to_score.scored_counts(connection, dataset_id=dataset_id, scorers=scorers)
    needed = {key: {output.key for _, output in outputs_of([key])} for key in keys}
    expected = {
        example_id: ",".join(key for key in keys if any((example_id, one) not in done for one in needed[key]))
        for example_id in ids
    }
    expected = {example_id: wanted for example_id, wanted in expected.items() if wanted}
    assert 10 < len(expected) < 60
    assert len(set(expected.values())) > 4
    assert dict(zip(left["example_id"].to_pylist(), left["wanted"].to_pylist(), strict=True)) == expected
    assert left["example_id"].to_pylist() == sorted(expected), "in the order of the dataset"
    assert size["n_rows"] == len(expected)
    assert size["n_characters"] == sum(len(row["instruction"] + row["input"] + row["output"]) for row in texts)
    assert [row["example_id"] for row in texts] == left["example_id"].to_pylist()
    assert all(Example(row["instruction"], row["input"], row["output"]) in examples for row in texts)
    assert counts == {output: sum((example_id, output) in done for example_id in ids) for output in scorers}


@pytest.mark.parametrize("parts", [1, 2, 3, 50])
def test_parts_share_everything_out_once_and_distances_go_into_the_first(parts: int) -> None:
    wanted = ["ifd,knn_6", "knn_6", "ifd", "", "ifd,knn_6", "mtld", "knn_6"]
    has = [True, False, True, False, True, True, True]
    left = pa.table({"example_id": pa.array(range(7), pa.int64()), "wanted": wanted, "has_vector": has})
    asked = to_score.asked_of(["ifd", "mtld", "knn_6"], scorers={})
    shares = to_score.parted(left, asked, parts=parts)
    assert 0 < len(shares) <= parts
    told = [
        (row["example_id"], key)
        for share in shares
        for row in share.to_pylist()
        for key in row["wanted"].split(",")
        if key
    ]
    assert sorted(told) == sorted((i, key) for i, keys in enumerate(wanted) for key in keys.split(",") if key)
    first = {row["example_id"]: row["wanted"] for row in shares[0].to_pylist()}
    assert {i for i, keys in first.items() if "knn_6" in keys} == {0, 1, 4, 6}
    assert 3 in first, "a row without a vector is embedded there"
    assert not any("knn" in keys for share in shares[1:] for keys in share["wanted"].to_pylist())


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return tiny_roles.save(tmp_path_factory.mktemp("models"))


def work(store: Store, folder: JobFolder) -> None:
    """Do a job and take in what it made."""
    spec = folder.spec()
    run(folder, spec, Progress(folder, spec))
    for index in sorted(folder.finished_shards()):
        collecting.collect(store, folder, index)


def submit(store: Store, path: Path, dataset_id: int, models: Models, *keys: str, parts: int = 1) -> list[JobFolder]:
    plan = jobs.plan_score(store, dataset_id=dataset_id, indicators=keys, models=models)
    return jobs.submit_score(store, path, dataset_id=dataset_id, plan=plan, title="Score", parts=parts)


def distances(store: Store, dataset_id: int, models: Models, key: str) -> dict[Example, float | None]:
    plan = jobs.plan_score(store, dataset_id=dataset_id, indicators=[key], models=models)
    identity = next(one for one in plan.identities if one.output == key)
    with store.read() as connection:
        found = rows(
            connection,
            """select e.instruction, e.input, e.output, c.value from scores c
            join scorers s on s.scorer_id = c.scorer_id join examples e on e.example_id = c.example_id
            where s.identity = :key""",
            key=identity.key,
        )
    return {Example(row["instruction"], row["input"], row["output"]): row["value"] for row in found}


def brute_force(settings: EmbedderSettings | None, members: list[Example], i: int) -> dict[Example, float]:
    assert settings is not None
    vectors = Embedder.load(settings).embed(members).vectors.astype(np.float64)
    apart = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
    return {one: float(np.sort(np.delete(apart[k], k))[i - 1]) for k, one in enumerate(members)}


def test_distances_of_two_datasets_that_share_rows(store: Store, tmp_path: Path, models: Models) -> None:
    """The second dataset embeds only what is new, and finds neighbours among all of its rows, copies counted."""
    shared, path = some(9), tmp_path / "jobs"
    first = load(store, shared, "first")
    [folder] = submit(store, path, first, models, "knn_2")
    assert folder.spec().params["models"].keys() == {"embedder"}
    work(store, folder)
    found = distances(store, first, models, "knn_2")
    assert found == pytest.approx(brute_force(models.embedder, shared, 2), abs=1e-6)
    members = [*shared[2:], *some(4, start=9), shared[5], shared[5]]
    second = load(store, members, "second")
    plan = jobs.plan_score(store, dataset_id=second, indicators=["knn_2"], models=models)
    assert (plan.n_rows, plan.n_to_score, plan.done) == (11, 11, {"knn_2": 0})
    [folder] = submit(store, path, second, models, "knn_2")
    assert folder.input_table()["has_vector"].to_pylist() == [True] * 7 + [False] * 4
    work(store, folder)
    made = [folder.read_vectors(index) for index in folder.finished_vectors()]
    assert sum(table.num_rows for table in made if table is not None) == 4
    assert distances(store, second, models, "knn_2") == pytest.approx(
        brute_force(models.embedder, members, 2), abs=1e-6
    )
    assert distances(store, first, models, "knn_2") == found, "the first dataset's distances are another scorer's"
    with store.read() as connection:
        assert frame(connection, "select count(*) n, count(distinct scorer_id) s from embeddings").to_pylist() == [
            {"n": 13, "s": 1}
        ]
    again = load(store, members[::-1], "second, backwards")
    with pytest.raises(StoreError, match="nothing to do"):
        submit(store, path, again, models, "knn_2")


def test_a_row_that_cannot_be_embedded_is_not_asked_for_again(store: Store, tmp_path: Path, models: Models) -> None:
    dataset_id = load(store, [*some(4), Example(" ", " ", " ")], "d")
    [folder] = submit(store, tmp_path / "jobs", dataset_id, models, "knn_1", "knn_6")
    work(store, folder)
    reasons = {row["reason"]: row["n"] for row in jobs.failure_reasons(store, folder.job_id)}
    assert reasons == {
        "The dataset has only 3 other rows with an embedding, so there is no nearest neighbour number 6.": 4,
        "The row is empty: instruction, input and output are blank.": 1,
    }
    plan = jobs.plan_score(store, dataset_id=dataset_id, indicators=["knn_1", "knn_6"], models=models)
    assert plan.n_to_score == 0
    with store.write() as connection:  # vectors were lost: the neighbours of the next i would be wrong without them
        frame(connection, "delete from embeddings where example_id in (select min(example_id) from embeddings)")
    plan = jobs.plan_score(store, dataset_id=dataset_id, indicators=["knn_1"], models=models)
    assert plan.n_to_score == 1


def test_parts_of_a_job_together_are_the_whole(store: Store, tmp_path: Path, models: Models) -> None:
    examples = some(9)
    dataset_id = load(store, examples, "d")
    keys = ["mtld", "length", "knn_1"]
    [_] = folders = submit(store, tmp_path / "jobs", load(store, examples[:3], "part"), models, "mtld")
    work(store, folders[0])
    folders = submit(store, tmp_path / "jobs", dataset_id, models, *keys, parts=3)
    assert [folder.spec().title for folder in folders] == [f"Score (part {i} of 3)" for i in (1, 2, 3)]
    assert [folder.has_base for folder in folders] == [True, False, False]
    assert folders[1].spec().params["models"].keys() == {"student"}
    wanted = {row["example_id"]: row["wanted"] for row in folders[0].input_table().to_pylist()}
    assert len(wanted) == 9
    assert sorted(wanted.values()).count("knn_1") == 6
    assert sum("mtld" in keys for keys in wanted.values()) == 2, "one of the three rows of this part is scored"
    for folder in folders:
        work(store, folder)
    plan = jobs.plan_score(store, dataset_id=dataset_id, indicators=keys, models=models)
    assert plan.n_to_score == 0
    assert set(plan.done.values()) == {9}
    assert sum(job["n_failed"] for job in jobs.jobs(store)) == 0


def test_a_retry_asks_only_for_what_failed_and_has_the_whole_dataset(
    store: Store, tmp_path: Path, models: Models
) -> None:
    examples = some(6)
    dataset_id = load(store, examples, "d")
    [folder] = submit(store, tmp_path / "jobs", dataset_id, models, "mtld", "knn_2")
    spec = folder.spec()
    run(folder, spec, Progress(folder, spec))
    shard = folder.read_shard(0)
    lost = [i for i, row in enumerate(shard.to_pylist()) if row["output"] == "knn_2"][2]
    values, reasons, passing = (shard[name].to_pylist() for name in ("value", "reason", "transient"))
    kept, values[lost], reasons[lost], passing[lost] = values[lost], None, "out of memory", True
    shard = shard.set_column(2, "value", pa.array(values)).set_column(3, "reason", pa.array(reasons))
    folder.shard_path(0).unlink()
    folder.write_shard(0, shard.set_column(4, "transient", pa.array(passing)))
    collecting.collect(store, folder, 0)
    again = jobs.submit_retry(store, tmp_path / "jobs", job_id=folder.job_id)
    assert [(row["wanted"], row["has_vector"]) for row in again.input_table().to_pylist()] == [("knn_2", True)]
    work(store, again)
    assert distances(store, dataset_id, models, "knn_2")[examples[2]] == pytest.approx(kept, abs=1e-9)
    assert not again.finished_vectors()


def test_an_input_is_written_in_batches_of_a_reader(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server held all texts of a million rows while it wrote the input of a job."""
    monkeypatch.setattr(to_score, "BATCH_ROWS", 7)
    examples = some(40)
    dataset_id = load(store, examples, "d")
    [folder] = submit(store, tmp_path / "jobs", dataset_id, Models(), "mtld")
    found = folder.input_table().to_pylist()
    assert [Example(row["instruction"], row["input"], row["output"]) for row in found] == examples
    with folder.reading_input(columns=["output"]) as read:
        assert read(13, 29)["output"].to_pylist() == [one.output for one in examples[13:29]]


def test_old_scorers_are_known_by_their_identity(store: Store, tmp_path: Path) -> None:
    """What version 0.1.0 scored stays scored: its identities are found by their text."""
    dataset_id = load(store, EXAMPLES, "d")
    version = scorer_identities(["mtld"], Models(), {})[0].version
    with store.write() as connection:
        scorer_id = commands.ensure_scorers(connection, [ScorerIdentity("mtld", "mtld", version)])["mtld"]
        ids = [row["example_id"] for row in rows(connection, "select example_id from members")]
        cells = {"scorer_id": [scorer_id] * 6, "example_id": ids, "value": [1.0] * 6}
        nothing = pa.array([None] * 6, pa.string())
        commands.put_scores(connection, pa.table({**cells, "reason": nothing, "transient": [False] * 6}))
    assert jobs.plan_score(store, dataset_id=dataset_id, indicators=["mtld"], models=Models()).n_to_score == 0
