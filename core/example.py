"""An example: (instruction x, input c, output y), identified by its content (METHOD.md, section 1)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Example:
    """One instruction-tuning example.

    ``instruction`` is x, ``input`` is c (may be empty), ``output`` is y (may be empty: scores of it are NULL then).
    """

    instruction: str
    input: str = ""
    output: str = ""

    @property
    def hash(self) -> str:
        """Content address: see :func:`content_hash`."""
        return content_hash(self.instruction, self.input, self.output)


def content_hash(instruction: str, input_text: str, output: str) -> str:
    """Return the content address of an example: 64 hex digits.

    SHA-256 over the three texts in UTF-8, each preceded by its length in bytes, so that moving a
    character from one field to the next gives another address.

    Raises:
        UnicodeEncodeError: a text holds a lone surrogate; importers refuse such rows before.
    """
    digest = hashlib.sha256()
    for text in (instruction, input_text, output):
        data = text.encode("utf-8")
        digest.update(b"%d:" % len(data))
        digest.update(data)
    return digest.hexdigest()


def folded_hash(instruction: str, input_text: str, output: str) -> str:
    """Content address after folding case and runs of whitespace: equal for near-identical copies."""
    return content_hash(*(" ".join(text.split()).casefold() for text in (instruction, input_text, output)))
