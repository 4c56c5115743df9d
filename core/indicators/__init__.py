"""Indicators of one example (METHOD.md, sections 2 and 3): one small module each, and the explicit list of them."""

from __future__ import annotations

from collections.abc import Iterable

from core.errors import SettingsError
from core.indicators.ifd import IFD
from core.indicators.length import LENGTH
from core.indicators.losses import LOSSES, count_key
from core.indicators.mtld import MTLD
from core.indicators.perplexity import PERPLEXITY
from core.indicators.r_ifd import R_IFD
from core.indicators.value import Evidence, Indicator, Output, Value

__all__ = [
    "INDICATORS",
    "LOSSES",
    "OUTPUTS",
    "Evidence",
    "Indicator",
    "Output",
    "Value",
    "chosen",
    "losses_needed",
    "outputs_of",
]

INDICATORS: tuple[Indicator, ...] = (LENGTH, MTLD, PERPLEXITY, IFD, R_IFD)
"""What a user can ask for, in the order of METHOD.md. ``LOSSES`` comes along with those that need a student."""

OUTPUTS: dict[str, Output] = {output.key: output for one in (*INDICATORS, LOSSES) for output in one.outputs}
"""Every output by its key."""


def chosen(keys: Iterable[str]) -> tuple[Indicator, ...]:
    """Return the indicators with these keys, in the order of ``INDICATORS``, each once.

    Raises:
        SettingsError: no key is given, or one is not the key of an indicator.
    """
    wanted = set(keys)
    known = {one.key for one in INDICATORS}
    if not wanted:
        raise SettingsError("No indicator was chosen; choose at least one.")
    if wanted - known:
        names = ", ".join(sorted(wanted - known))
        raise SettingsError(f"There is no indicator {names}; choose from {', '.join(one.key for one in INDICATORS)}.")
    return tuple(one for one in INDICATORS if one.key in wanted)


def losses_needed(keys: Iterable[str]) -> tuple[str, ...]:
    """Return the losses that the indicators with these keys are made of, in a fixed order; empty: no student needed."""
    needed = {loss for one in chosen(keys) for loss in one.needs_losses}
    return tuple(output.key for output in LOSSES.outputs if output.key in needed)


def outputs_of(keys: Iterable[str]) -> list[tuple[Indicator, Output]]:
    """Return all outputs that scoring with these indicators gives, each with the indicator that owns it.

    The losses that were needed, and their token counts, follow at the end.
    """
    keys = list(keys)
    pairs = [(one, output) for one in chosen(keys) for output in one.outputs]
    kept = {key for loss in losses_needed(keys) for key in (loss, count_key(loss))}
    return pairs + [(LOSSES, output) for output in LOSSES.outputs if output.key in kept]
