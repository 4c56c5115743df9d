"""Who scored: the family of a scorer, and which of the scorers at hand a rule may be applied to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from core.rules import Rule, Term

_FAMILY = ("output", "indicator", "version", "model", "revision", "template", "settings")


def family_of(scorer: Mapping[str, Any]) -> dict[str, Any]:
    """What the scores of a scorer (a row of the store's ``scorers``) follow from, whatever the dataset.

    JSON-able; equal families give equal scores. Keys: output, indicator, version, model, revision, template, settings.
    The path of a local model is left out, since its digest says what it is; so is the dataset of kNN distances.
    """
    settings = scorer.get("settings") or {}
    if isinstance(settings, str):
        settings = json.loads(settings)
    found = {name: scorer.get(name) for name in _FAMILY}
    found["settings"] = {key: value for key, value in settings.items() if key != "dataset"}
    if str(found["revision"] or "").startswith("local-"):
        found["model"] = None
    return found


@dataclass(frozen=True)
class TermMatch:
    """Which scorer a term is applied to; without one, ``problem`` says why and ``choices`` lists those that are here.

    ``note`` is set where the scorer was forced although it is not what the rule was fitted on.
    """

    output: str
    scorer_id: int | None
    problem: str | None = None
    choices: tuple[int, ...] = ()
    note: str | None = None


@dataclass(frozen=True)
class Match:
    """What a rule is applied to, term by term."""

    terms: tuple[TermMatch, ...]

    @property
    def ok(self) -> bool:
        """Every term has its scorer."""
        return not self.problems

    @property
    def scorers(self) -> dict[str, int]:
        """Output key -> scorer id, of the terms that have one."""
        return {term.output: term.scorer_id for term in self.terms if term.scorer_id is not None}

    @property
    def problems(self) -> tuple[str, ...]:
        """In words."""
        return tuple(term.problem for term in self.terms if term.problem is not None)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was forced, in words."""
        return tuple(term.note for term in self.terms if term.note is not None)


def match(
    rule: Rule,
    scorers: Sequence[Mapping[str, Any]],
    *,
    chosen: Mapping[str, int] | None = None,
    force: bool = False,
) -> Match:
    """Find the scorer of every term among ``scorers`` (rows with ``scorer_id`` and the fields of ``family_of``).

    Give only scorers that have scores of the dataset, and of kNN distances only those within it. A term that was
    fitted takes scores of its own family alone; a term without family takes the only scorer there is. ``chosen``
    (output key -> scorer id) decides between several; with ``force`` also for one of another family, which is noted.
    """
    return Match(tuple(_match_term(term, scorers, (chosen or {}).get(term.output), force) for term in rule.terms))


def _match_term(term: Term, scorers: Sequence[Mapping[str, Any]], wanted: int | None, force: bool) -> TermMatch:
    here = {int(one["scorer_id"]): family_of(one) for one in scorers if one["output"] == term.output}
    choices = tuple(here)
    wants = None if term.family is None else family_of(term.family)
    listed = "; ".join(f"{_described(family)} (scorer {scorer_id})" for scorer_id, family in here.items())
    if wanted is not None:
        if wanted not in here:
            return TermMatch(term.output, None, f"There is no scorer {wanted} of {term.output} here.", choices)
        if wants is None or here[wanted] == wants:
            return TermMatch(term.output, wanted, None, choices)
        differs = f"{term.output}: the rule was fitted on {_described(wants)}; these scores are by "
        if force:
            return TermMatch(
                term.output, wanted, None, choices, f"{differs}{_described(here[wanted])}, applied all the same."
            )
        return TermMatch(term.output, None, f"{differs}{_described(here[wanted])}.", choices)
    if not here:
        by = "" if wants is None else f" by {_described(wants)}"
        return TermMatch(term.output, None, f"{term.output}: no row is scored. Score it{by} first.")
    fitting = [scorer_id for scorer_id, family in here.items() if wants is None or family == wants]
    if len(fitting) == 1:
        return TermMatch(term.output, fitting[0], None, choices)
    if fitting:
        return TermMatch(term.output, None, f"{term.output}: several scores are here: {listed}. Choose one.", choices)
    assert wants is not None
    return TermMatch(
        term.output,
        None,
        f"{term.output}: the rule was fitted on {_described(wants)}; here are scores by {listed}. Score the data as "
        "the rule was fitted, or say that it is to be applied all the same.",
        choices,
    )


def _described(family: Mapping[str, Any]) -> str:
    """A family in words, with everything that two families can differ in."""
    revision = str(family["revision"] or "")
    if family["model"]:
        model = f"{family['model']} at {revision[:10]}" if revision else str(family["model"])
    else:
        model = f"the local model {revision.removeprefix('local-')[:10]}" if revision else "the text alone"
    extra = [f"version {family['version']}"]
    if family["template"]:
        extra.append(f"template {family['template']}")
    extra += [f"{key} {value}" for key, value in sorted(family["settings"].items())]
    return f"{model} ({', '.join(extra)})"
