"""Rules as text: ``log L = 1.0694 - 0.1498*reward`` read and written. Nothing is evaluated."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence

from core.errors import InputError
from core.indicators import MOST_NEIGHBOURS, OUTPUTS

ALIASES = {
    "length_tokens": "length",
    "len": "length",
    "rew": "reward",
    "ppl": "perplexity",
    "nat": "naturalness",
    "coh": "coherence",
    "und": "understandability",
}
"""Other spellings of outputs (the paper's abbreviations among them), in lower case."""

MOST_CHARACTERS = 4000

_LEFT = re.compile(r"\s*(?P<log>log|ln)?\s*\(?\s*(?:L|loss)\b[^=+*0-9-]*=", re.IGNORECASE)
_TOKEN = re.compile(
    r"\s*(?:"
    r"(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
    r"(?:\s*\*\s*10\s*\^\s*(?:\{\s*(?P<braced>[+-]?[0-9]+)\s*\}|(?P<bare>[+-]?[0-9]+)))?)"
    r"|(?P<name>[A-Za-z][A-Za-z0-9_]*)"
    r"|(?P<sign>[+-])"
    r"|(?P<times>\*)"
    r")"
)
# One character each, so that places in messages hold.
_SAME = str.maketrans({"−": "-", "–": "-", "×": "*", "·": "*", "⋅": "*", "∗": "*", "\u00a0": " "})


def formula_text(
    intercept: float, terms: Sequence[tuple[str, float]], *, log_response: bool, digits: int | None = None
) -> str:
    """The formula of an intercept and (output, coefficient) pairs; every number in the fewest digits that keep it.

    With ``digits`` in so many significant ones.
    """

    def number(value: float) -> str:
        return repr(float(value)) if digits is None else f"{value:.{digits}g}"

    parts = [number(intercept)]
    for output, coefficient in terms:
        sign = "-" if math.copysign(1.0, coefficient) < 0 else "+"
        parts.append(f" {sign} {number(abs(float(coefficient)))}*{output}")
    return f"{'log L' if log_response else 'L'} = {''.join(parts)}"


def parse_formula(text: str) -> tuple[float, list[tuple[str, float]], bool]:
    """(intercept, [(output, coefficient)], on the log scale) of a formula.

    A term is a number, an indicator, or both with ``*`` (or nothing) between, in either order.

    Raises:
        InputError: it is something else; the message names the character (from 1).
    """
    if len(text) > MOST_CHARACTERS:
        raise InputError(f"The formula is longer than {MOST_CHARACTERS:,} characters; give a rule of fewer terms.")
    plain = text.translate(_SAME)
    left = _LEFT.match(plain)
    start = left.end() if left else 0
    log_response = left is None or left["log"] is not None
    intercept: float | None = None
    terms: dict[str, float] = {}
    for place, sign, tokens in _terms(plain, start):
        number, name, where = _read_term(tokens, place)
        if name is None:
            if intercept is not None:
                raise InputError(f"At character {place}: a second constant; add the two up, or name an indicator.")
            assert number is not None
            intercept = sign * number
            continue
        output = _output(name, where)
        if output in terms:
            raise InputError(f"At character {where}: {output} stands twice; give one coefficient an indicator.")
        terms[output] = sign * (1.0 if number is None else number)
    if not terms:
        raise InputError(
            "There is no indicator in the formula. Write a sum such as 1.07 - 0.15*reward + 0.00008*length."
        )
    return 0.0 if intercept is None else intercept, list(terms.items()), log_response


_Token = tuple[str, str, int]  # kind, text, character (from 1)


def _tokens(text: str, start: int) -> list[_Token]:
    found: list[_Token] = []
    at, end = start, len(text.rstrip())
    while at < end:
        token = _TOKEN.match(text, at)
        if token is None:
            at += len(text[at:]) - len(text[at:].lstrip())
            hint = " An indicator's @scorer is chosen when the rule is applied." if text[at] == "@" else ""
            raise InputError(
                f"At character {at + 1}: {text[at]!r} is not understood. A rule is a sum of number*indicator; "
                f"brackets, division and powers are none.{hint}"
            )
        kind = next(name for name in ("number", "name", "sign", "times") if token[name] is not None)
        found.append((kind, token[kind], token.start(kind) + 1))
        at = token.end()
    return found


def _terms(text: str, start: int) -> list[tuple[int, float, list[_Token]]]:
    """(character, sign, tokens) of each term."""
    found: list[tuple[int, float, list[_Token]]] = []
    sign, signed_at, tokens = 1.0, 0, list[_Token]()
    for kind, token, place in _tokens(text, start):
        if kind != "sign":
            tokens.append((kind, token, place))
            continue
        if tokens:
            found.append((tokens[0][2], sign, tokens))
            sign, tokens = 1.0, []
        sign = -sign if token == "-" else sign
        signed_at = place
    if tokens:
        found.append((tokens[0][2], sign, tokens))
    elif signed_at:
        raise InputError(f"At character {signed_at}: nothing stands behind this sign.")
    return found


def _read_term(tokens: Sequence[_Token], place: int) -> tuple[float | None, str | None, int]:
    """(number, name, character of the name) of one term."""
    number: float | None = None
    name: str | None = None
    where, before = place, "times"
    for index, (kind, text, at) in enumerate(tokens):
        if kind == "times":
            if before == "times" or index == len(tokens) - 1:
                raise InputError(f"At character {at}: a number and an indicator must stand on the sides of {text!r}.")
        elif kind == "number":
            if number is not None:
                raise InputError(f"At character {at}: a second number in one term; multiply the two yourself.")
            number = _number(text, at)
        else:
            if name is not None:
                raise InputError(
                    f"At character {at}: {text} stands beside {name}; a rule is linear, products of indicators and "
                    "names in words are none."
                )
            name, where = text, at
        before = kind
    return number, name, where


def _number(text: str, at: int) -> float:
    mantissa, found, exponent = re.sub(r"[\s{}]", "", text).partition("*10^")
    number = float(f"{mantissa}e{exponent}" if found and "e" not in mantissa.lower() else mantissa)
    if found and "e" in mantissa.lower():
        number *= 10.0 ** int(exponent) if abs(int(exponent)) < 300 else math.inf
    if not math.isfinite(number):
        raise InputError(f"At character {at}: {text} is too large for a number.")
    return number


def _output(name: str, at: int) -> str:
    lower = ALIASES.get(name.lower(), name.lower())
    neighbour = re.fullmatch(r"knn_?([0-9]+)", lower)
    if neighbour:
        lower = f"knn_{int(neighbour[1])}"
    if lower in OUTPUTS:
        return lower
    if neighbour or lower in ("knn", "knn_i"):
        raise InputError(f"At character {at}: {name} is no indicator; neighbours are knn_1 to knn_{MOST_NEIGHBOURS}.")
    listed = [key for key in OUTPUTS if not key.startswith("knn_")]
    near = difflib.get_close_matches(lower, listed, n=3, cutoff=0.6)
    help_ = f"Do you mean {' or '.join(near)}?" if near else f"There are: {', '.join(listed)}, knn_1 to knn_50."
    raise InputError(f"At character {at}: there is no indicator {name}. {help_}")
