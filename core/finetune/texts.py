"""The tokens a run trains on: prompt and response as the student is asked with, EOS behind, loss on the response alone.

Prompt and response are encoded together and cut as everywhere (``core.spans``). Where the tokenizer has an EOS token
it follows a response that was not cut, and is trained: a model that never saw it would not stop. It is no part of an
evaluation loss, which runs over the response's own tokens (METHOD.md, section 2).
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from core.spans import Span, TextEncoder, build_spans

if TYPE_CHECKING:
    from core.example import Example

_MEGABATCH = 50  # batches that are sorted by length together, as transformers' LengthGroupedSampler does
_FEWEST_MEGABATCHES = 4
_MOST_ROWS_KEPT = 200_000
_PIECE = 1000


@dataclass(frozen=True, slots=True)
class TrainRow:
    """Token ids of a row, of which those from ``start`` to the end are trained. 1 ≤ start < len(ids)."""

    ids: array[int]
    start: int


@dataclass(frozen=True)
class TrainRows:
    """Rows to train on, in the order of their examples, and why others are not: how many by reason."""

    rows: tuple[TrainRow, ...]
    skipped: dict[str, int]

    @property
    def n_tokens(self) -> int:
        """All tokens of all rows."""
        return sum(len(row.ids) for row in self.rows)

    @property
    def n_train_tokens(self) -> int:
        """Tokens that have a loss."""
        return sum(len(row.ids) - row.start for row in self.rows)


class RowEncoder:
    """Makes rows of examples. Keeps what it made: the mixtures of a study share most of their rows."""

    def __init__(self, encoder: TextEncoder, *, template: str, max_length: int) -> None:
        self._encoder = encoder
        self._template = template
        self._max_length = max_length
        self._known: dict[Example, TrainRow | str] = {}

    @property
    def eos(self) -> int | None:
        """The token that ends a response, if the tokenizer has one."""
        found: int | None = self._encoder.tokenizer.eos_token_id
        return found

    def rows(self, examples: Sequence[Example]) -> TrainRows:
        """Encode examples; those without a response token to train on are left out and counted.

        Raises:
            ModelError: the template is ``chat`` and the tokenizer has none.
        """
        if len(self._known) + len(examples) > _MOST_ROWS_KEPT:
            self._known = {}
        new = [one for one in dict.fromkeys(examples) if one not in self._known]
        for low in range(0, len(new), _PIECE):
            piece = new[low : low + _PIECE]
            spans = build_spans(
                piece,
                keys=("loss_y_given_x",),
                template=self._template,
                max_length=self._max_length,
                encoder=self._encoder,
            )
            self._known |= {one: self._row(of_row["loss_y_given_x"]) for one, of_row in zip(piece, spans, strict=True)}
            self._encoder.forget()
        made = [self._known[one] for one in examples]
        skipped = Counter(one for one in made if isinstance(one, str))
        return TrainRows(tuple(one for one in made if isinstance(one, TrainRow)), dict(skipped))

    def _row(self, span: Span | str) -> TrainRow | str:
        if isinstance(span, str):
            return span
        ids = array("i", span.ids)
        if self.eos is not None and len(ids) < self._max_length and ids[-1] != self.eos:
            ids.append(self.eos)
        return TrainRow(ids, span.start)


def n_steps(n_rows: int, *, batch_size: int, epochs: float, max_steps: int) -> int:
    """Optimiser steps of a run, at least 1; ``max_steps`` 0: as many as the epochs have."""
    of_epochs = math.ceil(round(epochs * math.ceil(n_rows / batch_size), 9))
    return min(max_steps, of_epochs) if max_steps and epochs else max(1, max_steps or of_epochs)


def plan_batches(
    lengths: Sequence[int], *, batch_size: int, steps: int, seed: int, grouped: bool = True
) -> list[list[int]]:
    """Indexes of rows for every optimiser step. They follow from the arguments alone: a resumed run has the same.

    Every epoch is a new permutation that holds each row once; its last batch may be smaller. ``grouped``: of 50
    batches' worth of rows those of similar length share a batch, and the batches stand in random order (transformers'
    own grouping leaves them sorted, the longest first).
    """
    n = len(lengths)
    batches: list[list[int]] = []
    epoch = 0
    while len(batches) < steps:
        random = np.random.default_rng([seed & 0xFFFF_FFFF_FFFF_FFFF, epoch])
        order = random.permutation(n)
        if grouped:
            mega = batch_size * max(1, min(_MEGABATCH, n // (batch_size * _FEWEST_MEGABATCHES)))
            parts = [order[low : low + mega] for low in range(0, n, mega)]
            sizes = np.asarray(lengths)
            order = np.concatenate([part[np.argsort(-sizes[part], kind="stable")] for part in parts])
        found = [order[low : low + batch_size].tolist() for low in range(0, n, batch_size)]
        batches += [found[i] for i in random.permutation(len(found))] if grouped else found
        epoch += 1
    return batches[:steps]
