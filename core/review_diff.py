"""What changed between two texts, word by word, as a person can read it (pure).

The longest common subsequence of words (rapidfuzz's Indel) gives tight marks where difflib marks far too much.
Three things make the marks legible: changes that are parted by next to nothing become one change; a text of which
little stayed is called rewritten instead of being cut into hundreds of fragments; texts too long to compare say so.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from rapidfuzz.distance import Indel

_TOKENS = re.compile(r"\s+|\w+|[^\w\s]")
_WORDS = re.compile(r"\w+")

SHORT_EQUAL_CHARACTERS = 3
"""An equal run between two changes with no more visible characters than this is drawn as part of the change."""
REWRITTEN_SHARE = 0.3
"""Below this share of equal words a text counts as rewritten, unless it is so short that marks still help."""
SHORT_TEXT_CHARACTERS = 120
MAX_COMPARISONS = 400_000_000
"""Tokens times tokens that are compared at most: about 50 MB and half a second."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of one side. ``changed`` means removed on the original side, added on the reflected side."""

    text: str
    changed: bool


@dataclass(frozen=True, slots=True)
class Diff:
    """Both sides of a comparison; the segments of a side joined give its text back.

    ``state`` is "same", "changed", "rewritten" or "too long" (in the last two nothing is marked).
    ``kept`` is the share of words that stayed, 2·equal / (words of both), measured in characters; 1.0 for two texts
    without words, None where nothing was compared.
    """

    original: tuple[Segment, ...]
    reflected: tuple[Segment, ...]
    state: str
    kept: float | None


def tokens(text: str) -> list[str]:
    """Words, runs of white space and single other characters; joined they are ``text``."""
    return _TOKENS.findall(text)


def word_diff(original: str, reflected: str) -> Diff:
    """Compare two texts word by word."""
    if original == reflected:
        return Diff(_plain(original), _plain(reflected), "same", 1.0)
    before, after = tokens(original), tokens(reflected)
    if len(before) * len(after) > MAX_COMPARISONS:
        return Diff(_plain(original), _plain(reflected), "too long", None)
    runs = _merged(_runs(before, after))
    kept = _kept(runs)
    if kept < REWRITTEN_SHARE and max(len(original), len(reflected)) > SHORT_TEXT_CHARACTERS:
        return Diff(_plain(original), _plain(reflected), "rewritten", kept)
    return Diff(_side(runs, 0), _side(runs, 1), "changed", kept)


# One run: (text on the original side, text on the reflected side, the equal text or None where they differ).
_Run = tuple[str, str, str | None]


def _runs(before: Sequence[str], after: Sequence[str]) -> list[_Run]:
    left: Sequence[Hashable] = before
    right: Sequence[Hashable] = after
    runs: list[_Run] = []
    for op in Indel.opcodes(left, right):
        old, new = "".join(before[op.src_start : op.src_end]), "".join(after[op.dest_start : op.dest_end])
        if op.tag == "equal":
            runs.append((old, new, old))
        elif runs and runs[-1][2] is None:
            runs[-1] = (runs[-1][0] + old, runs[-1][1] + new, None)
        else:
            runs.append((old, new, None))
    return runs


def _merged(runs: Sequence[_Run]) -> list[_Run]:
    merged: list[_Run] = []
    for i, run in enumerate(runs):
        inside = 0 < i < len(runs) - 1
        short = run[2] is not None and len(run[2].strip()) <= SHORT_EQUAL_CHARACTERS
        joins = run[2] is None or (inside and short and "\n\n" not in run[2])
        if joins and merged and merged[-1][2] is None:
            merged[-1] = (merged[-1][0] + run[0], merged[-1][1] + run[1], None)
        else:
            merged.append(run if not (joins and inside) else (run[0], run[1], None))
    return merged


def _words(text: str) -> int:
    return sum(map(len, _WORDS.findall(text)))


def _kept(runs: Sequence[_Run]) -> float:
    total = sum(_words(old) + _words(new) for old, new, _ in runs)
    return 2 * sum(_words(equal) for _, _, equal in runs if equal is not None) / total if total else 1.0


def _plain(text: str) -> tuple[Segment, ...]:
    return (Segment(text, False),) if text else ()


def _side(runs: Sequence[_Run], side: int) -> tuple[Segment, ...]:
    segments: list[Segment] = []
    for run in runs:
        text, changed = str(run[side]), run[2] is None
        if text and segments and segments[-1].changed == changed:
            segments[-1] = Segment(segments[-1].text + text, changed)
        elif text:
            segments.append(Segment(text, changed))
    return tuple(segments)
