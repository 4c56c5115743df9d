"""Scores of examples: by which models, who scored (``ScorerIdentity``), and the scoring itself, without any job."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from core.embedding import EMBEDDING_VERSION, EmbedderSettings
from core.errors import SettingsError
from core.example import Example
from core.indicators import (
    ROLES,
    Evidence,
    Indicator,
    Output,
    Role,
    Value,
    chosen,
    losses_needed,
    outputs_of,
    roles_needed,
)
from core.lm import LM_VERSION, Student, StudentSettings
from core.models import resolve_revision
from core.neighbours import NEIGHBOURS_VERSION
from core.reward import REWARD_VERSION, Reward, RewardSettings
from core.unieval import UNIEVAL_VERSION, UniEval, UniEvalSettings

if TYPE_CHECKING:
    from core.lm import Prepared as PreparedLosses
    from core.reward import Prepared as PreparedRewards
    from core.unieval import Prepared as PreparedDimensions

__all__ = [
    "DEMO_STUDENT",
    "EMBEDDING_OUTPUT",
    "Loaded",
    "Models",
    "PreparedRows",
    "ScorerIdentity",
    "check_models",
    "embedding_identity",
    "neighbours_needed",
    "prepare_examples",
    "resolve_revision",
    "resolve_revisions",
    "score_examples",
    "score_prepared",
    "scorer_identities",
]

DEMO_STUDENT = Path(__file__).parent / "demo" / "student"
"""Folder of the bundled demo student."""

EMBEDDING_OUTPUT = "embedding"
"""Output key of the scorer under which vectors are stored; no indicator has it."""

RoleSettings = StudentSettings | RewardSettings | UniEvalSettings | EmbedderSettings
Progress = Callable[[int, int], None]

_SETTINGS: Mapping[Role, type[RoleSettings]] = {
    "student": StudentSettings,
    "reward": RewardSettings,
    "unieval": UniEvalSettings,
    "embedder": EmbedderSettings,
}
_ASK_FOR: Mapping[Role, str] = {
    "student": "a student",
    "reward": "a reward model",
    "unieval": "a UniEval model",
    "embedder": "an embedding model",
}


@dataclass(frozen=True)
class Models:
    """The models that score, by role; None where a role has none."""

    student: StudentSettings | None = None
    reward: RewardSettings | None = None
    unieval: UniEvalSettings | None = None
    embedder: EmbedderSettings | None = None

    def of(self, role: Role) -> RoleSettings | None:
        """The settings of a role."""
        found: RoleSettings | None = getattr(self, role)
        return found

    def only(self, roles: Sequence[Role]) -> Models:
        """The same without the roles that are not named."""
        return Models(**{role: getattr(self, role) if role in roles else None for role in ROLES})

    def pinned(self, revisions: Mapping[str, str]) -> Models:
        """The same at these revisions, so that what is loaded is what was asked for."""
        changed = {
            role: dataclasses.replace(settings, revision=revisions[role])
            for role, settings in self._given()
            if role in revisions
        }
        return dataclasses.replace(self, **changed)  # type: ignore[arg-type]

    @property
    def device(self) -> str:
        """The device that a job with these models waits for: ``cuda`` if one of them wants it, else ``cpu``."""
        return "cuda" if any(settings.device.startswith("cuda") for _, settings in self._given()) else "cpu"

    def _given(self) -> list[tuple[Role, RoleSettings]]:
        return [(role, settings) for role in ROLES if (settings := self.of(role)) is not None]

    def to_params(self) -> dict[str, Any]:
        """JSON-able settings by role, only of the roles that have a model."""
        return {role: dataclasses.asdict(settings) for role, settings in self._given()}

    @classmethod
    def from_params(cls, params: Mapping[str, Any], *, device: str | None = None) -> Models:
        """Read what :meth:`to_params` gave; None or a missing role means none.

        With ``device`` every model that was to run on a GPU runs on that one instead (all on the CPU where it is cpu).

        Raises:
            SettingsError: a role or a setting is unknown, or a model has no name.
        """
        unknown = set(params) - set(ROLES)
        if unknown:
            raise SettingsError(f"There is no model role {', '.join(sorted(unknown))}; roles are {', '.join(ROLES)}.")
        found = {role: _read_settings(role, params[role], device) for role in ROLES if params.get(role) is not None}
        return cls(**cast(dict[str, Any], found))


def _read_settings(role: Role, fields: object, device: str | None) -> RoleSettings:
    kind = _SETTINGS[role]
    known = {one.name for one in dataclasses.fields(kind)}
    if not isinstance(fields, Mapping) or "model" not in fields or set(fields) - known:
        raise SettingsError(f"The settings describe their {role} in a way that this version does not know.")
    settings = kind(**fields)
    if device is None or not (device == "cpu" or settings.device.startswith("cuda")):
        return settings
    return dataclasses.replace(settings, device=device)


def resolve_revisions(models: Models) -> dict[str, str]:
    """What identifies the weights of each model: a commit of the hub, or the digest of a folder. Needs no torch.

    Raises:
        ModelError: one of them can be found neither as a folder nor on the hub, or has changed.
    """
    given = [(role, models.of(role)) for role in ROLES]
    return {role: resolve_revision(one.model, one.revision) for role, one in given if one is not None}


@dataclass(frozen=True)
class ScorerIdentity:
    """What a score follows from besides the example: equal identities give equal scores.

    ``model``, ``revision`` and ``template`` are None where the number does not depend on them, so that MTLD is shared
    by all students, and the length in tokens by all templates.
    """

    output: str
    indicator: str
    version: str
    model: str | None = None
    revision: str | None = None
    template: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Canonical JSON of all fields but the path of a local model: its digest says what it is, wherever it lies."""
        fields = dataclasses.asdict(self)
        if self.revision is not None and self.revision.startswith("local-"):
            fields["model"] = None
        return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _needed(role: Role, what: str, models: Models, revisions: Mapping[str, str]) -> tuple[RoleSettings, str]:
    """Settings and revision of the model in a role."""
    settings, revision = models.of(role), revisions.get(role)
    if settings is None or revision is None:
        raise SettingsError(f"{what} needs {_ASK_FOR[role]}; choose a model.")
    return settings, revision


def _identity(
    indicator: Indicator, output: Output, models: Models, revisions: Mapping[str, str], dataset: str | None
) -> ScorerIdentity:
    if output.depends == "text":
        return ScorerIdentity(output.key, indicator.key, indicator.version)
    role: Role = "student" if output.depends == "tokenizer" else output.depends
    settings, revision = _needed(role, output.label, models, revisions)
    made = ScorerIdentity(output.key, indicator.key, indicator.version, settings.model, revision)
    if output.depends == "tokenizer":
        return made
    numbers: dict[str, Any] = {"dtype": settings.dtype, "max_length": settings.max_length}
    template = None
    if isinstance(settings, StudentSettings):
        made_by, template = f"losses {LM_VERSION}", settings.template
    elif isinstance(settings, RewardSettings):
        made_by, numbers = f"reward {REWARD_VERSION}", {**numbers, "form": settings.form}
    elif isinstance(settings, UniEvalSettings):
        made_by = f"unieval {UNIEVAL_VERSION}"
    else:
        if dataset is None:
            raise SettingsError(f"{output.label} belongs to a dataset; name the dataset.")
        made_by = f"embedding {EMBEDDING_VERSION}; neighbours {NEIGHBOURS_VERSION}"
        numbers = {**numbers, "dataset": dataset}
    version = f"{indicator.version}; {made_by}"
    return dataclasses.replace(made, version=version, template=template, settings=numbers)


def scorer_identities(
    indicators: Sequence[str], models: Models, revisions: Mapping[str, str], *, dataset: str | None = None
) -> list[ScorerIdentity]:
    """Return the scorer of every output that scoring with ``indicators`` gives, in the order of the outputs.

    Batch budget and device are left out: they do not change a number by more than rounding. ``dataset`` is the digest
    of the members among which neighbours are looked for; only kNN distances need it.

    Raises:
        SettingsError: an indicator is unknown, or needs a model (or a dataset) and there is none.
    """
    return [_identity(one, output, models, revisions, dataset) for one, output in outputs_of(indicators)]


def embedding_identity(settings: EmbedderSettings, revision: str) -> ScorerIdentity:
    """The scorer under which vectors are stored, so that an example is embedded once per model."""
    return ScorerIdentity(
        EMBEDDING_OUTPUT,
        EMBEDDING_OUTPUT,
        EMBEDDING_VERSION,
        settings.model,
        revision,
        settings={"dtype": settings.dtype, "max_length": settings.max_length},
    )


def neighbours_needed(indicators: Sequence[str]) -> list[int]:
    """The i of every kNN distance among the indicators, rising; empty: no embedding needed."""
    return sorted({one.needs.neighbour for one in chosen(indicators) if one.needs.neighbour is not None})


@dataclass(frozen=True)
class Loaded:
    """Models that are in memory, ready to score. An embedder is none of them: distances come before the scoring."""

    student: Student | None = None
    reward: Reward | None = None
    unieval: UniEval | None = None

    @classmethod
    def load(cls, indicators: Sequence[str], models: Models, *, note: Callable[[str], None] = lambda _: None) -> Loaded:
        """Load as much as the indicators need; of a student that is nothing, its tokenizer, or all of it.

        Raises:
            SettingsError: a model is needed and none is named.
            ModelError: one cannot be found, loaded or used as its settings say.
        """
        check_models(indicators, models)
        roles = roles_needed(indicators)
        student, reward, unieval = None, None, None
        if "student" in roles and models.student is not None:
            weights = bool(losses_needed(indicators))
            note(f"Loading {'the student' if weights else 'the tokenizer of'} {models.student.model}")
            student = Student.load(models.student, weights=weights)
        if "reward" in roles and models.reward is not None:
            note(f"Loading the reward model {models.reward.model}")
            reward = Reward.load(models.reward)
        if "unieval" in roles and models.unieval is not None:
            note(f"Loading UniEval {models.unieval.model}")
            unieval = UniEval.load(models.unieval)
        return cls(student, reward, unieval)


def check_models(indicators: Sequence[str], models: Models | Loaded) -> None:
    """Refuse indicators whose model is not there.

    Raises:
        SettingsError: it names the first indicator and the model that it needs.
    """
    for one in chosen(indicators):
        role = one.needs.role
        if role is not None and getattr(models, role, True) is None:
            raise SettingsError(f"{one.title} needs {_ASK_FOR[role]}; choose a model.")


@dataclass(frozen=True)
class PreparedRows:
    """Rows that the tokenizers have read: made while the models are still at the rows before."""

    examples: Sequence[Example]
    indicators: tuple[str, ...]
    losses: PreparedLosses | None = None
    n_tokens: tuple[Sequence[int], Sequence[int]] | None = None
    reward: PreparedRewards | None = None
    dimensions: PreparedDimensions | None = None


def prepare_examples(examples: Sequence[Example], *, indicators: Sequence[str], loaded: Loaded) -> PreparedRows:
    """Tokenise what the models will read. Runs on the CPU, in any one thread, beside :func:`score_prepared`.

    Raises:
        SettingsError: an indicator is unknown, or needs a model and there is none.
    """
    check_models(indicators, loaded)
    keys, needed, student = tuple(indicators), losses_needed(indicators), loaded.student
    asked = [one.needs for one in chosen(keys)]
    dimensions = [needs.dimension for needs in asked if needs.dimension is not None]
    rows = PreparedRows(
        examples,
        keys,
        reward=loaded.reward.prepare(examples) if loaded.reward and any(needs.reward for needs in asked) else None,
        dimensions=loaded.unieval.prepare(examples, dimensions) if loaded.unieval and dimensions else None,
    )
    if student is None:
        return rows
    try:
        if any(needs.tokenizer for needs in asked):
            outputs = student.count_tokens([one.output for one in examples])
            inputs = student.count_tokens([one.instruction + one.input for one in examples])
            rows = dataclasses.replace(rows, n_tokens=(outputs, inputs))
        return dataclasses.replace(rows, losses=student.prepare(examples, needed)) if needed else rows
    finally:
        student.encoder.forget()


def score_prepared(
    rows: PreparedRows,
    *,
    loaded: Loaded,
    distances: Sequence[Mapping[int, Value]] | None = None,
    on_progress: Progress | None = None,
) -> list[dict[str, Value]]:
    """Run the models over prepared rows; return one dict of output key -> value for each, in order.

    ``distances`` holds, for each row, the distance to nearest neighbour number i. ``on_progress`` is called after
    batches with the parts done and the parts in all; every model's work counts as much as another's.

    Raises:
        ModelError: a model fails.
    """
    evidence = [Evidence(example) for example in rows.examples]
    tell = _Parts(on_progress, sum(one is not None for one in (rows.losses, rows.reward, rows.dimensions)))
    if rows.n_tokens is not None:
        evidence = [
            dataclasses.replace(one, n_tokens_output=n_output, n_tokens_input=n_input)
            for one, n_output, n_input in zip(evidence, *rows.n_tokens, strict=True)
        ]
    if rows.losses is not None and loaded.student is not None:
        losses = loaded.student.run(rows.losses, tell.next())
        evidence = [dataclasses.replace(one, losses=own) for one, own in zip(evidence, losses, strict=True)]
    if rows.reward is not None and loaded.reward is not None:
        rewards = loaded.reward.run(rows.reward, tell.next())
        evidence = [dataclasses.replace(one, reward=own) for one, own in zip(evidence, rewards, strict=True)]
    if rows.dimensions is not None and loaded.unieval is not None:
        answers = loaded.unieval.run(rows.dimensions, tell.next())
        evidence = [dataclasses.replace(one, dimensions=own) for one, own in zip(evidence, answers, strict=True)]
    if distances is not None:
        evidence = [dataclasses.replace(one, distances=own) for one, own in zip(evidence, distances, strict=True)]
    owners = list(dict.fromkeys(one for one, _ in outputs_of(rows.indicators)))
    return [{key: value for one in owners for key, value in one.compute(seen).items()} for seen in evidence]


class _Parts:
    """Progress of several models one after the other, told as one."""

    def __init__(self, on_progress: Progress | None, n_parts: int) -> None:
        self._tell = on_progress
        self._n_parts = n_parts
        self._before = -1

    def next(self) -> Progress | None:
        """The callback for the next model."""
        self._before += 1
        tell, before, n_parts = self._tell, self._before, self._n_parts
        if tell is None:
            return None
        return lambda done, total: tell(before * total + done, n_parts * total)


def score_examples(
    examples: Sequence[Example],
    *,
    indicators: Sequence[str],
    loaded: Loaded,
    distances: Sequence[Mapping[int, Value]] | None = None,
    on_progress: Progress | None = None,
) -> list[dict[str, Value]]:
    """Score the examples; return one dict of output key -> value for each, in order. See :func:`score_prepared`.

    Raises:
        SettingsError: an indicator is unknown, or needs a model (or distances) that is not there.
        ModelError: a model fails.
    """
    if distances is None and neighbours_needed(indicators):
        raise SettingsError("kNN distances belong to a whole dataset; they cannot be had from single examples.")
    prepared = prepare_examples(examples, indicators=indicators, loaded=loaded)
    return score_prepared(prepared, loaded=loaded, distances=distances, on_progress=on_progress)
