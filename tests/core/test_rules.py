from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest

from core.embedding import EmbedderSettings
from core.errors import InputError
from core.indicators import OUTPUTS
from core.lm import StudentSettings
from core.regression import FitResult, FitSpec, fit
from core.rules import ALIASES, PUBLISHED, Rule, Term, family_of, loss_of, match, parse, rule_of
from core.scoring import Models, scorer_identities
from tests.core.regression.simulated import SPEC, table

# --- the published rule ---


def test_the_published_rule_is_equation_4_of_the_first_version():
    assert PUBLISHED.formula() == "log L = 1.0694 - 0.1498*reward + 8.257e-05*length - 0.935*knn_6"
    assert PUBLISHED.origin == "published"
    assert "2307.06290v1, equation 4" in PUBLISHED.source
    # By hand: 1.0694 - 0.1498 · 2 + 8.257e-5 · 100 - 0.935 · 0.5
    predicted = PUBLISHED.predict({"reward": 2.0, "length": 100, "knn_6": 0.5})
    assert float(predicted) == pytest.approx(0.310557)
    assert float(loss_of(predicted)) == pytest.approx(math.exp(0.310557))
    assert PUBLISHED.interval({"reward": 2.0, "length": 100, "knn_6": 0.5}) is None


def test_a_row_that_lacks_an_indicator_has_no_prediction():
    found = PUBLISHED.predict({"reward": [1.0, None, 1.0], "length": [1, 2, float("inf")], "knn_6": np.ones(3)})
    assert np.isfinite(found).tolist() == [True, False, False]
    with pytest.raises(InputError, match="needs length, knn_6"):
        PUBLISHED.predict({"reward": [1.0]})


def test_a_rule_of_the_loss_itself_needs_no_exponential():
    rule = parse("L = 2 + mtld", name="mine")
    assert not rule.log_response
    assert loss_of(rule.predict({"mtld": [1.0]}), log_response=rule.log_response).tolist() == [3.0]


# --- reading and writing formulas ---


@pytest.mark.parametrize(
    ("text", "intercept", "terms"),
    [
        ("1.0694 - 0.1498*reward + 8.257e-5*length - 0.9350*knn_6", 1.0694, PUBLISHED.terms),
        ("log L = 1.0694 − 0.1498 × reward + 8.257 × 10^{-5} · length − .935 knn_6", 1.0694, PUBLISHED.terms),
        ("LN(loss)=1.0694-REW*0.1498+8.257E-05*Length_Tokens-0.935*kNN6", 1.0694, PUBLISHED.terms),
        ("-ifd", 0.0, (Term("ifd", -1.0),)),
        ("-1 + -2*ppl - -3*mtld", -1.0, (Term("perplexity", -2.0), Term("mtld", 3.0))),
        ("2*10^3*mtld\n+ 1.5e1", 15.0, (Term("mtld", 2000.0),)),
    ],
)
def test_formulas_as_people_write_them(text: str, intercept: float, terms: tuple[Term, ...]):
    rule = parse(text, name="mine")
    assert rule.intercept == pytest.approx(intercept)
    assert rule.terms == terms
    assert rule.origin == "typed"


@pytest.mark.parametrize("response", [True, False])
def test_what_is_written_is_read_back_to_the_last_digit(response: bool):
    draw = np.random.default_rng(0)
    for _ in range(50):
        numbers = draw.normal(size=4) * 10.0 ** draw.integers(-12, 12, 4)
        terms = tuple(
            Term(key, float(number)) for key, number in zip(("reward", "r_ifd", "knn_50"), numbers[1:], strict=True)
        )
        rule = Rule(name="x", intercept=float(numbers[0]), terms=terms, origin="typed", log_response=response)
        again = parse(rule.formula(), name="x")
        assert (again.intercept, again.terms, again.log_response) == (rule.intercept, rule.terms, response)


def test_every_output_can_stand_in_a_rule():
    for key in OUTPUTS:
        assert parse(f"0.5*{key}", name="x").outputs == (key,)
    assert set(ALIASES.values()) <= set(OUTPUTS)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no indicator in the formula"),
        ("1.5", "no indicator in the formula"),
        ("1 +", "At character 3: nothing stands behind this sign"),
        ("1 + 2 + reward", "At character 5: a second constant"),
        ("2*reward + 3*reward", "At character 14: reward stands twice"),
        ("2*reward - rew", "At character 12: reward stands twice"),
        ("2 * rewrd", "At character 5: there is no indicator rewrd. Do you mean reward?"),
        ("1 + zzzz", "At character 5: there is no indicator zzzz. There are: length,"),
        ("knn_77", "knn_77 is no indicator; neighbours are knn_1 to knn_50"),
        ("1 + knn", "neighbours are knn_1 to knn_50"),
        ("2*(reward)", r"At character 3: '\(' is not understood"),
        ("reward/2", "At character 7: '/' is not understood"),
        ("reward^2", r"At character 7: '\^' is not understood"),
        ("reward*ifd", "At character 8: ifd stands beside reward; a rule is linear"),
        ("2*3*reward", "At character 3: a second number"),
        ("2**reward", "At character 3: a number and an indicator"),
        ("*reward", "At character 1: a number and an indicator"),
        ("reward*", "At character 7: a number and an indicator"),
        ("1e999*reward", "At character 1: 1e999 is too large"),
        ("1e200*10^200*reward", "too large"),
        ("ifd@12", "scorer is chosen when the rule is applied"),
        ("__import__('os')", "is not understood"),
        ("1, 2*reward", "At character 2: ',' is not understood"),
        ("L - length = 2*reward", "At character 5: length stands beside|'=' is not understood"),
        ("reward " * 700, "longer than 4,000 characters"),
    ],
)
def test_what_is_no_rule_is_refused_with_its_place(text: str, said: str):
    with pytest.raises(InputError, match=said):
        parse(text, name="mine")


def test_a_rule_without_terms_or_with_numbers_that_are_none_is_refused():
    for fields, said in (
        ({"terms": ()}, "no indicator"),
        ({"terms": (Term("ifd", 1.0), Term("ifd", 2.0))}, "ifd twice"),
        ({"terms": (Term("ifd", math.nan),)}, "not a finite number"),
    ):
        with pytest.raises(InputError, match=said):
            Rule(name="x", intercept=0.0, origin="typed", **fields)


# --- rules of fits ---


@dataclasses.dataclass(frozen=True)
class Column:
    output: str
    family: dict[str, Any]


@pytest.fixture(scope="module")
def fitted() -> FitResult:
    return fit(table(2), SPEC)


COLUMNS = {name: Column(name, {"output": name, "indicator": name}) for name in SPEC.regressors}


def test_a_rule_of_a_fit_predicts_as_the_fit_does(fitted: FitResult):
    rule = rule_of(fitted, name="study 1", columns=COLUMNS)
    means = {"reward": 0.7, "length": 250.0, "knn_6": 0.95}
    reference = fitted.predict(means)
    assert float(rule.predict(means)) == pytest.approx(reference.value[0])
    assert rule.interval(means) == pytest.approx((reference.low[0], reference.high[0]))
    wide = fitted.predict(means, confidence=0.99)
    assert rule.interval(means, 0.99) == pytest.approx((wide.low[0], wide.high[0]))
    assert rule.interval({**means, "knn_6": math.nan}) is None
    assert rule.interval({"reward": 0.7}) is None
    assert rule.terms[0].family == COLUMNS["reward"].family
    assert (rule.origin, rule.log_response) == ("fit", True)


def test_json_gives_back_an_equal_rule(fitted: FitResult):
    for rule in (PUBLISHED, rule_of(fitted, name="study 1", columns=COLUMNS), parse("1+ifd", name="mine")):
        assert Rule.from_json(rule.to_json()) == rule
    for text in ("", "[]", "{}", "null", '{"format": 1}', '{"format": 1, "name": "x", "terms": 3}'):
        with pytest.raises(InputError, match="not a rule of Assay"):
            Rule.from_json(text)


def test_the_key_of_a_column_may_name_its_scorer_and_the_term_has_its_output():
    of = table(2)
    of["ifd@12"] = of.pop("reward")
    result = fit(of, FitSpec(response="loss", regressors=("ifd@12", "knn_6")))
    columns = {**COLUMNS, "ifd@12": Column("ifd", {"output": "ifd"})}
    assert rule_of(result, name="x", columns=columns).outputs == ("ifd", "knn_6")
    with pytest.raises(InputError, match="knn_6 by more than one model"):
        rule_of(result, name="x", columns={**columns, "ifd@12": Column("knn_6", {})})
    with pytest.raises(InputError, match="ifd@12 is no indicator's mean"):
        rule_of(result, name="x", columns=COLUMNS)


def test_a_fit_without_regressors_is_no_rule():
    with pytest.raises(InputError, match="no regressor"):
        rule_of(fit(table(2), FitSpec(response="loss", regressors=())), name="x", columns={})


# --- which scores a rule may be applied to ---


def scorer(scorer_id: int, output: str = "ifd", *, dataset: str | None = None, **student: Any) -> dict[str, Any]:
    """A row of the store's scorers, as a score job would make it."""
    revisions = {"student": student.pop("revision", "c0ffee" * 7), "embedder": "decade" * 7}
    models = Models(student=StudentSettings(**{"model": "org/student", **student}), embedder=EmbedderSettings())
    found = scorer_identities([output], models, revisions, dataset=dataset)
    identity = next(one for one in found if one.output == output)
    return {"scorer_id": scorer_id, **dataclasses.asdict(identity), "settings": json.dumps(identity.settings)}


def rule_on(*scorers: dict[str, Any]) -> Rule:
    terms = tuple(Term(one["output"], 1.0, family_of(one)) for one in scorers)
    return Rule(name="x", intercept=0.0, terms=terms, origin="fit")


def test_a_family_knows_no_path_and_no_dataset():
    local = family_of(scorer(1, model="/models/a", revision="local-abc"))
    assert local["model"] is None
    assert local == family_of(scorer(2, model="/elsewhere/a", revision="local-abc"))
    assert family_of(scorer(1, "knn_6", dataset="one")) == family_of(scorer(2, "knn_6", dataset="two"))
    assert "dataset" not in family_of(scorer(1, "knn_6", dataset="one"))["settings"]
    assert family_of(family_of(scorer(1))) == family_of(scorer(1))
    assert json.loads(json.dumps(local)) == local


def test_scores_of_the_same_family_are_taken():
    rule = rule_on(scorer(1), scorer(2, "knn_6", dataset="of the study"))
    found = match(rule, [scorer(7), scorer(8, template="vicuna"), scorer(9, "knn_6", dataset="unseen")])
    assert found.ok
    assert found.scorers == {"ifd": 7, "knn_6": 9}
    assert found.notes == ()


@pytest.mark.parametrize(
    ("other", "shown"),
    [
        ({"model": "org/other"}, "org/other"),
        ({"revision": "bad" * 14}, "badbadbadb"),
        ({"template": "vicuna"}, "template vicuna"),
        ({"max_length": 77}, "max_length 77"),
        ({"model": "/home/me/a", "revision": "local-0123456789abcdef"}, "the local model 0123456789 "),
    ],
)
def test_scores_of_another_family_are_refused_in_words_that_tell_the_two_apart(other: dict[str, Any], shown: str):
    rule, here = rule_on(scorer(1)), [scorer(7, **other)]
    found = match(rule, here)
    assert not found.ok
    assert found.scorers == {}
    assert found.terms[0].choices == (7,)
    fitted_on, _, is_here = found.problems[0].partition("; here are scores by ")
    assert fitted_on.startswith("ifd: the rule was fitted on org/student at c0ffeec0ff")
    assert shown in is_here
    assert shown not in fitted_on
    assert "/home" not in found.problems[0]
    # Naming it is not enough, and saying so without naming it neither.
    assert not match(rule, here, chosen={"ifd": 7}).ok
    assert not match(rule, here, force=True).ok
    forced = match(rule, here, chosen={"ifd": 7}, force=True)
    assert forced.scorers == {"ifd": 7}
    assert "applied all the same" in forced.notes[0]
    assert shown in forced.notes[0]


def test_a_rule_that_names_no_models_takes_the_only_scorer_and_asks_among_several():
    rule = parse("1 - 0.1*ifd", name="mine")
    assert match(rule, [scorer(7), scorer(8, "r_ifd")]).scorers == {"ifd": 7}
    found = match(rule, [scorer(7), scorer(8, template="vicuna")])
    assert not found.ok
    assert "several scores are here" in found.problems[0]
    assert "template alpaca" in found.problems[0]
    assert "template vicuna" in found.problems[0]
    assert found.terms[0].choices == (7, 8)
    assert match(rule, [scorer(7), scorer(8, template="vicuna")], chosen={"ifd": 8}).scorers == {"ifd": 8}
    assert "no scorer 99" in match(rule, [scorer(7)], chosen={"ifd": 99}, force=True).problems[0]


def test_what_is_not_scored_says_by_what_to_score_it():
    found = match(rule_on(scorer(1), scorer(2, "mtld")), [scorer(3, "mtld")])
    assert found.scorers == {"mtld": 3}
    assert found.problems[0].startswith("ifd: no row is scored. Score it by org/student at c0ffeec0ff")
    assert match(PUBLISHED, []).problems[0] == "reward: no row is scored. Score it first."


def test_a_formula_to_be_read_is_rounded() -> None:
    rule = parse("1.0694123 - 0.149812345*reward + 8.25712e-5*length", name="long")
    assert rule.formula(digits=4) == "log L = 1.069 - 0.1498*reward + 8.257e-05*length"
    assert parse(rule.formula(), name="long") == rule
