"""Indicators of one example (METHOD.md, sections 2 and 3): one small module each, and the explicit list of them."""

from __future__ import annotations

import importlib
from collections.abc import Iterable

from core.errors import SettingsError
from core.indicators.knn import DEFAULT_NEIGHBOUR, KNN, MOST_NEIGHBOURS
from core.indicators.losses import LOSSES, count_key
from core.indicators.value import ROLES, Evidence, Indicator, Needs, Output, Role, Value

__all__ = [
    "DEFAULT_NEIGHBOUR",
    "FIRST_OUTPUTS",
    "INDICATORS",
    "KNN",
    "LOSSES",
    "MOST_NEIGHBOURS",
    "OUTPUTS",
    "ROLES",
    "Evidence",
    "Indicator",
    "Needs",
    "Output",
    "Role",
    "Value",
    "chosen",
    "losses_needed",
    "outputs_of",
    "roles_needed",
]

# File names, the cheap ones first. A file holds its indicator under its own name in capitals. To add one, add a line.
_LISTED = (
    "length",
    "mtld",
    "knn",
    "reward",
    "naturalness",
    "coherence",
    "understandability",
    "perplexity",
    "ifd",
    "ifd_loss",
    "r_ifd",
)


def _load(name: str) -> Indicator:
    if name == "knn":
        return KNN[DEFAULT_NEIGHBOUR]
    found: Indicator = getattr(importlib.import_module(f"core.indicators.{name}"), name.upper())
    return found


INDICATORS: tuple[Indicator, ...] = tuple(_load(name) for name in _LISTED)
"""What a user can ask for; ``KNN`` has the other neighbours. ``LOSSES`` comes along with those that need losses."""

_ALL: tuple[Indicator, ...] = tuple(
    one for listed in INDICATORS for one in (KNN.values() if listed.needs.neighbour is not None else [listed])
)

OUTPUTS: dict[str, Output] = {output.key: output for one in (*_ALL, LOSSES) for output in one.outputs}
"""Every output by its key."""

FIRST_OUTPUTS = frozenset(one.outputs[0].key for one in _ALL)
"""Of every indicator the number that people ask for first; the others are the same in another unit, or beside it."""


def chosen(keys: Iterable[str]) -> tuple[Indicator, ...]:
    """Return the indicators with these keys, in the order of ``INDICATORS``, each once.

    Raises:
        SettingsError: no key is given, or one is not the key of an indicator.
    """
    wanted = set(keys)
    known = {one.key for one in _ALL}
    if not wanted:
        raise SettingsError("No indicator was chosen; choose at least one.")
    if wanted - known:
        names = ", ".join(sorted(wanted - known))
        listed = ", ".join(one.key for one in INDICATORS)
        raise SettingsError(
            f"There is no indicator {names}; choose from {listed} (knn_1 to knn_{MOST_NEIGHBOURS} by neighbour)."
        )
    return tuple(one for one in _ALL if one.key in wanted)


def roles_needed(keys: Iterable[str]) -> tuple[Role, ...]:
    """Return the roles of the models that the indicators with these keys need, in the order of ``ROLES``."""
    needed = {one.needs.role for one in chosen(keys)}
    return tuple(role for role in ROLES if role in needed)


def losses_needed(keys: Iterable[str]) -> tuple[str, ...]:
    """Return the losses that the indicators with these keys are made of, in a fixed order; empty: no student needed."""
    needed = {loss for one in chosen(keys) for loss in one.needs.losses}
    return tuple(output.key for output in LOSSES.outputs if output.key in needed)


def outputs_of(keys: Iterable[str]) -> list[tuple[Indicator, Output]]:
    """Return all outputs that scoring with these indicators gives, each with the indicator that owns it.

    The losses that were needed, and their token counts, follow at the end.
    """
    keys = list(keys)
    pairs = [(one, output) for one in chosen(keys) for output in one.outputs]
    kept = {key for loss in losses_needed(keys) for key in (loss, count_key(loss))}
    return pairs + [(LOSSES, output) for output in LOSSES.outputs if output.key in kept]
