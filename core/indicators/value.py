"""What an indicator gives: values with reasons, and the descriptions of its outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from core.example import Example

if TYPE_CHECKING:
    from core.lm import Loss

Direction = Literal["higher", "lower", "neither"]
Role = Literal["student", "reward", "unieval", "embedder"]
Depends = Literal["text", "tokenizer", "student", "reward", "unieval", "embedder"]

ROLES: tuple[Role, ...] = ("student", "reward", "unieval", "embedder")
"""What a model is asked for: losses, a reward, answers of Yes or No, an embedding."""


@dataclass(frozen=True, slots=True)
class Value:
    """One score of one example: a finite number, or NULL with a reason that a person can read.

    ``transient`` marks a NULL that another try may fill (out of memory), so that only such rows are retried.
    """

    value: float | None
    reason: str | None = None
    transient: bool = False

    def __post_init__(self) -> None:
        if self.value is None and not self.reason:
            raise ValueError("a value that is NULL needs a reason")
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"{self.value} is not a finite number; give NULL with a reason")


@dataclass(frozen=True)
class Output:
    """One number that an indicator gives per example.

    ``direction`` says which end is the better one; ``range`` the lowest and the highest value that can occur, None
    where there is no such end; ``depends`` what the number follows from besides the text, and so what identifies its
    scorer: nothing, the tokenizer of the student, or a model in one of the ``ROLES`` with its settings.
    """

    key: str
    label: str
    direction: Direction
    unit: str
    describes: str
    depends: Depends
    range: tuple[float | None, float | None] = (None, None)


@dataclass(frozen=True)
class Needs:
    """What must be at hand before an indicator can be computed; by default the texts alone.

    ``losses``     the student's losses of these keys (``core.spans.LOSS_KEYS``)
    ``tokenizer``  the student's token counts
    ``reward``     the score of a reward model
    ``dimension``  the answer to UniEval's question of this name
    ``neighbour``  the distance to the i-th nearest neighbour within the dataset, for this i
    """

    losses: frozenset[str] = frozenset()
    tokenizer: bool = False
    reward: bool = False
    dimension: str | None = None
    neighbour: int | None = None

    @property
    def role(self) -> Role | None:
        """The model that must be there; None where the texts are enough."""
        if self.losses or self.tokenizer:
            return "student"
        if self.reward:
            return "reward"
        if self.dimension is not None:
            return "unieval"
        return "embedder" if self.neighbour is not None else None


@dataclass(frozen=True)
class Evidence:
    """Everything an indicator may look at; of all but the example only what it said that it needs is there.

    ``dimensions`` holds UniEval's values by the name of the question, ``distances`` those of ``Needs.neighbour`` by i.
    """

    example: Example
    losses: Mapping[str, Loss] = field(default_factory=dict)
    n_tokens_output: int | None = None
    n_tokens_input: int | None = None
    reward: Value | None = None
    dimensions: Mapping[str, Value] = field(default_factory=dict)
    distances: Mapping[int, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Indicator:
    """A way to score one example. ``summary`` is one line for people; ``compute`` gives a value for every output."""

    key: str
    title: str
    summary: str
    paper: str
    outputs: tuple[Output, ...]
    version: str
    compute: Callable[[Evidence], dict[str, Value]]
    needs: Needs = Needs()


def exp_of(exponent: float, *, what: str) -> Value:
    """exp(exponent), or NULL where it leaves the range of a number at either end."""
    try:
        result = math.exp(exponent)
    except OverflowError:
        return Value(None, f"The {what} is too large for a number.")
    if not math.isfinite(result):
        return Value(None, f"The {what} is not a number.")
    if result == 0.0:  # an underflow would look like the best possible score
        return Value(None, f"The {what} is too small for a number.")
    return Value(result)


def missing(*losses: Loss) -> Value | None:
    """The NULL that follows when one of ``losses`` is NULL, with the first one's reason; None if all are there.

    If one of them cannot be had at all, another try does not help, whatever the others are.
    """
    absent = [loss for loss in losses if loss.loss_nats is None]
    if not absent:
        return None
    final = [loss for loss in absent if not loss.transient]
    first = (final or absent)[0]
    return Value(None, first.reason or "The loss was not computed.", transient=not final)


def ratio_of_perplexities(given: Loss, alone: Loss, *, what: str) -> Value:
    """exp(given − alone), which is ppl(target | context) / ppl(target), or NULL with a reason."""
    absent = missing(given, alone)
    if absent is not None:
        return absent
    assert given.loss_nats is not None
    assert alone.loss_nats is not None
    return exp_of(given.loss_nats - alone.loss_nats, what=what)
