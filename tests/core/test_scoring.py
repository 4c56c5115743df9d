"""Scores and who scored them: models by role, identities that must not change, no silent zero."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from core.embedding import EmbedderSettings
from core.errors import ModelError, SettingsError
from core.example import Example
from core.indicators import INDICATORS, outputs_of
from core.lm import Student, StudentSettings
from core.reward import Reward, RewardSettings
from core.scoring import (
    DEMO_STUDENT,
    Loaded,
    Models,
    ScorerIdentity,
    embedding_identity,
    prepare_examples,
    resolve_revision,
    score_examples,
    score_prepared,
    scorer_identities,
)
from core.unieval import DIMENSIONS, UniEval, UniEvalSettings
from tests.core import tiny_models, tiny_reward, tiny_unieval

ROOT = Path(__file__).parents[2]
ALL = [one.key for one in INDICATORS if one.needs.role in (None, "student")]
ROWS = [
    Example("Name three fruits.", "", "Apples, pears and plums."),
    Example("Sort the words.", "pear, apple", "apple, pear"),
    Example("Leave it empty."),
    Example("Add.", "2 + 2", "4"),
    Example("Say hi.", "", "Hi!"),
]
# Pairs that stand in no training row of the demo student.
MATCHED = [
    ("Which planet is the largest?", "The largest planet is Jupiter."),
    ("Give tips for growing tomatoes on a balcony.", "Give tomatoes a large pot, a sunny balcony and much water."),
    ("What are the benefits of public transport?", "Public transport is cheaper than a car and pollutes less."),
    ("Write a short story about a lost umbrella.", "One rainy day Anna found a lost umbrella. The umbrella was red."),
    ("Explain how a sewing machine works.", "A sewing machine moves a needle with thread through the cloth."),
    ("List the ingredients of a pancake.", "A pancake needs flour, eggs, milk and a pinch of salt."),
    ("Describe the smell of a pine forest.", "A pine forest smells of resin, pine needles and damp earth."),
    ("Write a slogan for a bakery.", "Fresh bread every morning: our bakery wakes up before you."),
    ("Why do cats purr?", "Cats purr when they are content; some cats also purr when they are hurt."),
    ("Compare a violin and a cello.", "A violin is small and high; a cello is larger and deeper than a violin."),
    ("What is 17 + 25?", "17 + 25 = 42"),
    ("Write an e-mail to Paul about the broken printer.", "Dear Paul, the printer is broken. Could you repair it?"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_models.save(tmp_path_factory.mktemp("students") / "llama", "llama"))


@pytest.fixture(scope="module")
def student(model: str) -> Student:
    return Student.load(StudentSettings(model))


def test_every_output_of_every_indicator_is_there(student):
    found = score_examples(ROWS, indicators=ALL, loaded=Loaded(student=student))
    keys = {output.key for _, output in outputs_of(ALL)}
    assert all(set(of_row) == keys for of_row in found)
    first = {key: value.value or 0.0 for key, value in found[0].items()}
    assert first["length"] == len(ROWS[0].output)  # the tiny tokenizer knows bytes only
    assert first["length_words"] == 4.0
    assert first["n_tokens_y"] == first["length"]
    assert first["ifd"] == pytest.approx(first["perplexity"] / first["perplexity_y"])
    for of_row in found:
        assert all(value.reason for value in of_row.values() if value.value is None)


def test_an_empty_response_is_null_with_reasons_but_its_length_is_zero(student):
    of_row = score_examples([ROWS[2]], indicators=ALL, loaded=Loaded(student=student))[0]
    assert of_row["length"].value == 0.0
    for key in ("mtld", "perplexity", "ifd", "r_ifd", "loss_y", "n_tokens_y"):
        assert of_row[key].value is None
        assert of_row[key].reason


def test_indicators_that_need_no_student_do_without(student):
    with_student = score_examples(ROWS, indicators=["mtld"], loaded=Loaded(student=student))
    assert score_examples(ROWS, indicators=["mtld"], loaded=Loaded()) == with_student
    with pytest.raises(SettingsError, match="needs a student"):
        score_examples(ROWS, indicators=["mtld", "ifd"], loaded=Loaded())


def test_lengths_need_the_tokenizer_only(model, student):
    reader = Student.load(StudentSettings(model), weights=False)
    assert score_examples(ROWS, indicators=["length"], loaded=Loaded(student=reader)) == score_examples(
        ROWS, indicators=["length"], loaded=Loaded(student=student)
    )


def test_identities_name_what_a_score_follows_from_and_nothing_else():
    settings = StudentSettings("org/model", template="vicuna", max_length=512)
    identities = {one.output: one for one in scorer_identities(ALL, Models(student=settings), {"student": "abc"})}
    assert set(identities) == {output.key for _, output in outputs_of(ALL)}
    for key in ("mtld", "length_words", "length_chars"):
        assert (identities[key].model, identities[key].template, identities[key].settings) == (None, None, {})
    assert (identities["length"].model, identities["length"].revision) == ("org/model", "abc")
    assert identities["length"].template is None
    assert identities["ifd"].template == "vicuna"
    assert identities["ifd"].settings == {"dtype": "float32", "max_length": 512}
    assert "lexicalrichness" in identities["mtld"].version


def of(settings: StudentSettings, revision: str = "abc") -> tuple[Models, dict[str, str]]:
    return Models(student=settings), {"student": revision}


def test_identities_of_version_0_1_0_have_not_changed():
    """Stores know what is scored by these texts: one character more, and everything would be scored again."""
    settings = StudentSettings("org/model", template="vicuna", max_length=512, dtype="bfloat16")
    keys = {one.output: one.key for one in scorer_identities(["length", "mtld", "ifd", "r_ifd"], *of(settings))}
    student = '"settings":{"dtype":"bfloat16","max_length":512},"template":"vicuna","version":"1; losses 1"}'
    text = '"revision":null,"settings":{},"template":null,"version":'
    assert keys["ifd"] == f'{{"indicator":"ifd","model":"org/model","output":"ifd","revision":"abc",{student}'
    assert keys["r_ifd"] == f'{{"indicator":"r_ifd","model":"org/model","output":"r_ifd","revision":"abc",{student}'
    for key in ("loss_x_given_y", "n_tokens_y"):
        assert keys[key] == f'{{"indicator":"losses","model":"org/model","output":"{key}","revision":"abc",{student}'
    assert keys["length"] == (
        '{"indicator":"length","model":"org/model","output":"length","revision":"abc","settings":{},"template":null,'
        '"version":"1"}'
    )
    assert keys["length_words"] == f'{{"indicator":"length","model":null,"output":"length_words",{text}"1"}}'
    assert keys["mtld"] == (
        f'{{"indicator":"mtld","model":null,"output":"mtld",{text}"1; lexicalrichness 0.5.1; threshold 0.72"}}'
    )
    local = {one.output: one.key for one in scorer_identities(["perplexity"], *of(StudentSettings("/m"), "local-01"))}
    assert local["perplexity"] == (
        '{"indicator":"perplexity","model":null,"output":"perplexity","revision":"local-01",'
        '"settings":{"dtype":"float32","max_length":1024},"template":"alpaca","version":"1; losses 1"}'
    )


def test_models_of_other_roles_have_their_own_identities():
    models = Models(
        student=StudentSettings("org/student"),
        reward=RewardSettings("org/reward", form="chat"),
        unieval=UniEvalSettings("org/t5", dtype="bfloat16"),
        embedder=EmbedderSettings("org/mini"),
    )
    revisions = {"student": "s", "reward": "r", "unieval": "u", "embedder": "e"}
    keys = ["mtld", "reward", "coherence", "knn_6"]
    found = {one.output: one for one in scorer_identities(keys, models, revisions, dataset="d1")}
    assert (found["reward"].model, found["reward"].revision, found["reward"].template) == ("org/reward", "r", None)
    assert found["reward"].settings == {"dtype": "float32", "max_length": 512, "form": "chat"}
    assert found["coherence"].settings == {"dtype": "bfloat16", "max_length": 1024}
    assert found["knn_6"].settings == {"dtype": "float32", "max_length": None, "dataset": "d1"}
    assert {key: one.version for key, one in found.items() if key != "mtld"} == {
        "reward": "1; reward 1",
        "coherence": "1; unieval 1",
        "knn_6": "1; embedding 1; neighbours 1",
    }
    # Distances belong to a dataset; the vectors that they are made of do not.
    other = {one.output: one for one in scorer_identities(keys, models, revisions, dataset="d2")}
    assert {key for key in found if found[key].key != other[key].key} == {"knn_6"}
    with pytest.raises(SettingsError, match="belongs to a dataset"):
        scorer_identities(["knn_6"], models, revisions)
    assert models.embedder is not None
    embedding = embedding_identity(models.embedder, "e")
    assert (embedding.output, embedding.settings) == ("embedding", {"dtype": "float32", "max_length": None})


def test_models_survive_being_written_down():
    models = Models(student=StudentSettings("s", device="cuda:1"), embedder=EmbedderSettings("e", max_length=9))
    assert Models.from_params(json.loads(json.dumps(models.to_params()))) == models
    assert models.device == "cuda"
    assert models.only(["embedder"]) == Models(embedder=models.embedder)
    # In a job of the server the one GPU that it sees is cuda; what was to stay on the CPU stays there.
    there = Models.from_params(models.to_params(), device="cuda")
    assert there.student is not None
    assert there.embedder is not None
    assert (there.student.device, there.embedder.device) == ("cuda", "cpu")
    assert Models.from_params(models.to_params(), device="cpu").device == "cpu"
    for params in ({"judge": {"model": "x"}}, {"reward": {"colour": "red"}}, {"unieval": "x"}):
        with pytest.raises(SettingsError):
            Models.from_params(params)


def test_reward_and_unieval_score_beside_the_student(student, tmp_path):
    reward = Reward.load(RewardSettings(str(tiny_reward.save(tmp_path / "reward", "deberta-v2")), max_length=128))
    unieval = UniEval.load(UniEvalSettings(str(tiny_unieval.save(tmp_path / "t5")), max_length=128))
    loaded = Loaded(student, reward, unieval)
    told: list[tuple[int, int]] = []
    keys = ["ifd", "reward", "coherence", "naturalness"]
    found = score_examples(ROWS, indicators=keys, loaded=loaded, on_progress=lambda *now: told.append(now))
    assert [one["reward"] for one in found] == reward.score(ROWS)
    answers = unieval.score(ROWS, DIMENSIONS)
    for key in ("coherence", "naturalness"):  # asked with other questions, other batches: equal up to rounding
        assert [one[key].value for one in found] == pytest.approx([one[key].value for one in answers], abs=1e-5)
        assert [one[key].reason for one in found] == [one[key].reason for one in answers]
    shares = [done / total for done, total in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    with pytest.raises(SettingsError, match="needs a UniEval model"):
        score_examples(ROWS, indicators=keys, loaded=Loaded(student, reward))


def test_tokenising_ahead_gives_the_same_scores(student):
    loaded = Loaded(student=student)
    ahead = [prepare_examples(rows, indicators=ALL, loaded=loaded) for rows in (ROWS[:2], ROWS[2:])]
    found = [of_row for rows in ahead for of_row in score_prepared(rows, loaded=loaded)]
    whole = score_examples(ROWS, indicators=ALL, loaded=loaded)
    for one, other in zip(found, whole, strict=True):
        assert {key: value.reason for key, value in one.items()} == {key: value.reason for key, value in other.items()}
        for key, value in one.items():
            assert value.value is None or value.value == pytest.approx(other[key].value, rel=1e-5)


def test_distances_cannot_be_had_from_single_examples():
    with pytest.raises(SettingsError, match="whole dataset"):
        score_examples(ROWS, indicators=["knn_6"], loaded=Loaded())


def test_equal_identities_have_equal_keys_and_other_ones_other_keys():
    settings = StudentSettings("org/model")

    def keys(settings: StudentSettings, revision: str = "abc") -> dict[str, str]:
        return {one.output: one.key for one in scorer_identities(["ifd", "length", "mtld"], *of(settings, revision))}

    base = keys(settings)
    assert keys(dataclasses.replace(settings, batch_tokens=1, device="cuda")) == base
    assert json.loads(base["ifd"])["model"] == "org/model"
    for other in (
        keys(settings, "def"),
        keys(dataclasses.replace(settings, template="vicuna")),
        keys(dataclasses.replace(settings, max_length=9)),
        keys(dataclasses.replace(settings, dtype="bfloat16")),
    ):
        assert other["ifd"] != base["ifd"]
        assert other["loss_y"] != base["loss_y"]
        assert other["mtld"] == base["mtld"]
    # A loss is the same number whichever indicator asked for it.
    perplexity = {one.output: one.key for one in scorer_identities(["perplexity"], *of(settings))}
    assert perplexity["loss_y"] == base["loss_y"]


def test_identities_of_a_student_that_is_not_there():
    assert scorer_identities(["mtld"], Models(), {}) == [
        ScorerIdentity("mtld", "mtld", next(one.version for one in INDICATORS if one.key == "mtld"))
    ]
    with pytest.raises(SettingsError, match="needs a student"):
        scorer_identities(["ifd"], Models(), {})


@pytest.fixture(scope="module")
def demo() -> Student:
    return Student.load(StudentSettings(str(DEMO_STUDENT)))


def mean_ifd(student: Student, pairs: list[tuple[str, str]]) -> float:
    examples = [Example(asked, "", answer) for asked, answer in pairs]
    values = [
        of_row["ifd"].value for of_row in score_examples(examples, indicators=["ifd"], loaded=Loaded(student=student))
    ]
    return sum(value for value in values if value is not None) / len(values)


def test_the_demo_student_finds_matched_pairs_easier_than_shuffled_ones(demo):
    asked, answers = zip(*MATCHED, strict=True)
    matched = mean_ifd(demo, MATCHED)
    shuffled = [mean_ifd(demo, list(zip(asked, answers[shift:] + answers[:shift], strict=True))) for shift in (1, 4, 7)]
    assert matched < 1
    assert matched < min(shuffled) - 0.1


def test_the_demo_student_is_small_has_no_chat_template_and_says_so(demo):
    size = sum(path.stat().st_size for path in DEMO_STUDENT.iterdir())
    assert size < 8_000_000
    with pytest.raises(ModelError, match="no chat template"):
        Student.load(StudentSettings(str(DEMO_STUDENT), template="chat"))
    assert resolve_revision(str(DEMO_STUDENT)).startswith("local-")


def test_the_server_can_import_scoring_without_torch():
    heavy = ("torch", "transformers", "lexicalrichness", "sentence_transformers", "faiss", "sklearn", "scipy")
    code = "import core.scoring, core.score_job, core.score_file, sys; "
    code += f"print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr
