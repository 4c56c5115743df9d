"""Rules: a linear formula over indicators that predicts the (log) evaluation loss of a student finetuned on the data.

A rule is fitted (:func:`rule_of`), typed (:func:`parse`) or published (:data:`PUBLISHED`). Lower is better. A fitted
rule remembers by which models its indicators were scored (their families), and :func:`match` refuses other scores.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from core.errors import InputError
from core.rule_scorers import Match, TermMatch, family_of, match
from core.rule_text import ALIASES, formula_text, parse_formula

if TYPE_CHECKING:
    from core.regression import FitResult

__all__ = [
    "ALIASES",
    "PUBLISHED",
    "Match",
    "Rule",
    "Term",
    "TermMatch",
    "family_of",
    "loss_of",
    "match",
    "parse",
    "rule_of",
]

Origin = Literal["fit", "typed", "published"]

_FORMAT = 1


@dataclass(frozen=True)
class Term:
    """``coefficient`` · the indicator with the key ``output``; of ``family`` alone, or (None) of any scorer of it."""

    output: str
    coefficient: float
    family: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Rule:
    """intercept + Σ coefficient · indicator. With ``log_response`` that is the natural log of the evaluation loss.

    ``source``  where it comes from, for people
    ``fit``     of a fitted rule: covariance (of intercept and terms, in their order), residual_variance, df_residual,
                n, confidence; None: it gives no intervals

    Raises:
        InputError: it has no term, an indicator twice, or a number that is not finite.
    """

    name: str
    intercept: float
    terms: tuple[Term, ...]
    origin: Origin
    source: str = ""
    log_response: bool = True
    fit: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "terms", tuple(self.terms))
        outputs = self.outputs
        if not outputs:
            raise InputError("The rule has no indicator; give it at least one, such as -0.15*reward.")
        twice = sorted({output for output in outputs if outputs.count(output) > 1})
        if twice:
            raise InputError(f"The rule has {', '.join(twice)} twice; a rule has one coefficient an indicator.")
        if not all(math.isfinite(number) for number in (self.intercept, *(term.coefficient for term in self.terms))):
            raise InputError("A coefficient of the rule is not a finite number; correct it.")

    @property
    def outputs(self) -> tuple[str, ...]:
        """Keys of its indicators, in order."""
        return tuple(term.output for term in self.terms)

    def formula(self, *, digits: int | None = None) -> str:
        """The rule as text, such as ``log L = 1.07 - 0.15*reward``; :func:`parse` reads it back to the last digit.

        With ``digits`` the numbers are rounded to so many significant ones, to be read.
        """
        terms = [(term.output, term.coefficient) for term in self.terms]
        return formula_text(self.intercept, terms, log_response=self.log_response, digits=digits)

    def predict(self, values: Mapping[str, Any]) -> np.ndarray:
        """Predict by arrays ``[m]`` (or numbers) of each indicator: float64, the log loss if ``log_response``.

        NaN where an indicator is missing (None or NaN).

        Raises:
            InputError: an indicator has no values at all.
        """
        absent = [output for output in self.outputs if output not in values]
        if absent:
            raise InputError(f"The rule needs {', '.join(absent)}, of which there are no values; score them first.")
        total: np.ndarray = np.asarray(self.intercept, np.float64)
        for term in self.terms:
            column = np.asarray(values[term.output], np.float64)
            total = total + term.coefficient * np.where(np.isfinite(column), column, np.nan)
        return total

    def interval(self, means: Mapping[str, float], confidence: float | None = None) -> tuple[float, float] | None:
        """Prediction interval (low, high), on the scale of :meth:`predict`, of a dataset with these indicator means.

        x'Cx + s², C the covariance of the coefficients and s² the residual variance, by Student's t: the loss of one
        more run of the kind that the rule was fitted on. ``confidence`` None: the fit's. The result is None where the
        rule has no fit, or a mean is missing.
        """
        if self.fit is None or any(not math.isfinite(_number(means.get(output))) for output in self.outputs):
            return None
        from core.regression.result import prediction

        found = prediction(
            np.array([[1.0, *(float(means[output]) for output in self.outputs)]]),
            coefficients=[self.intercept, *(term.coefficient for term in self.terms)],
            covariance=self.fit["covariance"],
            residual_variance=self.fit["residual_variance"],
            df_residual=self.fit["df_residual"],
            confidence=float(self.fit.get("confidence", 0.95)) if confidence is None else confidence,
        )
        return float(found.low[0]), float(found.high[0])

    def to_json(self) -> str:
        """All of it as JSON; :meth:`from_json` gives back an equal rule."""
        return json.dumps({"format": _FORMAT, **dataclasses.asdict(self)}, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Rule:
        """Read what :meth:`to_json` gave.

        Raises:
            InputError: it is something else.
        """
        try:
            fields = json.loads(text)
            if fields.pop("format") != _FORMAT:
                raise InputError("The rule has a format that this version does not read.")
            return cls(**{**fields, "terms": tuple(Term(**term) for term in fields["terms"])})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"This is not a rule of Assay ({error}); give the JSON of one as it was saved.") from error


PUBLISHED = Rule(
    name="Instruction Mining (published)",
    intercept=1.0694,
    terms=(Term("reward", -0.1498), Term("length", 8.257e-5), Term("knn_6", -0.9350)),
    origin="published",
    source=(
        "Instruction Mining, arXiv 2307.06290v1, equation 4: log evaluation loss of LLaMA-7B finetuned on a dataset, "
        "by the dataset's mean reward (a reward model's score of the response), length (tokens of the response) and "
        "knn_6 (distance of a row's sentence embedding to its 6th nearest neighbour in the dataset). Its numbers hold "
        "for the paper's models and scales; fit a rule of your own for yours."
    ),
)
"""The paper's rule, version 1."""


def loss_of(predicted: Any, *, log_response: bool = True) -> np.ndarray:
    """The evaluation loss in nats out of what a rule predicts: exp of it where the rule is on the log scale."""
    numbers = np.asarray(predicted, np.float64)
    with np.errstate(over="ignore"):  # a loss beyond a float is inf, and shows that the rule does not fit these scores
        return np.exp(numbers) if log_response else numbers


def parse(text: str, *, name: str) -> Rule:
    """Read a typed rule, such as ``1.0694 - 0.1498*reward + 8.257e-5*length - 0.9350*knn_6``.

    ``log L =`` (the default) or ``L =`` may stand before it. Nothing is evaluated: only a sum of number·indicator is
    read.

    Raises:
        InputError: it is no such sum, or an indicator is unknown or twice there; the message names the character.
    """
    intercept, terms, log_response = parse_formula(text)
    return Rule(
        name=name,
        intercept=intercept,
        terms=tuple(Term(output, coefficient) for output, coefficient in terms),
        origin="typed",
        source="typed by hand",
        log_response=log_response,
    )


class Column(Protocol):
    """What :func:`rule_of` must know of a regressor: the output that it is the mean of, and who scored it."""

    @property
    def output(self) -> str:
        """Key of the output."""

    @property
    def family(self) -> Mapping[str, Any]:
        """See :func:`family_of`."""


def rule_of(fit: FitResult, *, name: str, columns: Mapping[str, Column], source: str = "") -> Rule:
    """The rule that a fit gives; ``columns`` says for every regressor what it is.

    Raises:
        InputError: the fit has no regressor, one of them is not in ``columns``, or two are scores of one indicator.
    """
    names = fit.spec.regressors
    unknown = [regressor for regressor in names if regressor not in columns]
    if unknown:
        raise InputError(
            f"{', '.join(unknown)} is no indicator's mean, so a single row has no value of it. Fit without it to get a "
            "rule."
        )
    if not names:
        raise InputError("The fit has no regressor, so it prefers no row to another; fit at least one.")
    outputs = [columns[regressor].output for regressor in names]
    twice = sorted({output for output in outputs if outputs.count(output) > 1})
    if twice:
        raise InputError(
            f"The fit has {', '.join(twice)} by more than one model, and a rule has one of each. Fit with one of them."
        )
    const, *slopes = fit.coefficients
    return Rule(
        name=name,
        intercept=const.value,
        terms=tuple(
            Term(output, one.value, dict(columns[one.name].family)) for output, one in zip(outputs, slopes, strict=True)
        ),
        origin="fit",
        source=source or f"fitted on {fit.n} runs",
        log_response=fit.spec.log_response,
        fit={
            "response": fit.spec.response,
            "covariance": [list(row) for row in fit.covariance],
            "residual_variance": fit.residual_variance,
            "df_residual": fit.df_residual,
            "n": fit.n,
            "confidence": fit.spec.confidence,
            "robust": fit.spec.robust,
            "r2": fit.r2,
            "loo_r2": fit.loo_r2,
        },
    )


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
