"""The hot path: mean losses of target spans under a causal language model (METHOD.md, section 2).

Spans (``core.spans``) run in batches under a budget of tokens (``core.batches``): packed without padding, the beginning
that prompts share only once, where the model allows it (``core.packing``), else sorted by length and padded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from core.batches import CPU_BATCH_TOKENS, Batcher, Progress
from core.errors import ModelError
from core.fast_linear import use_onednn
from core.models import load_config, load_tokenizer, load_weights, locate, max_positions, rotary_boundary
from core.prompts import CHAT, TEMPLATES
from core.span_losses import find_way, mean_losses, own_forward_tokens
from core.spans import LOSS_KEYS, Span, TextEncoder, build_spans, shared_prefixes

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from core.example import Example

__all__ = ["LM_VERSION", "LOSS_KEYS", "OUT_OF_MEMORY", "Loss", "Prepared", "Student", "StudentSettings"]

LM_VERSION = "1"
"""Changes whenever a loss may come out differently; part of every scorer that stands on a student."""


CPU_PACKED_TOKENS = 2 * CPU_BATCH_TOKENS
"""On a CPU: packed rows are not padded, and a larger batch runs the shared beginning of its prompts less often."""


@dataclass(frozen=True)
class StudentSettings:
    """A student: which model, and how it is asked.

    ``model`` is a hub id or a local folder; ``revision`` a commit, or the digest that a folder must have;
    ``max_length`` the longest text in tokens; ``batch_tokens`` the budget of one batch in tokens, of which a CPU
    uses no more than ``CPU_PACKED_TOKENS`` (``CPU_BATCH_TOKENS`` where rows are padded).
    """

    model: str
    revision: str | None = None
    dtype: str = "float32"
    template: str = "alpaca"
    max_length: int = 1024
    batch_tokens: int = 8192
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class Loss:
    """Mean loss of ``n_tokens`` scored tokens in nats, or None with a reason. ``transient``: another try may help."""

    loss_nats: float | None
    n_tokens: int
    reason: str | None = None
    transient: bool = False


OUT_OF_MEMORY = "The student ran out of memory on this text alone."
_TOO_LARGE = Loss(None, 0, OUT_OF_MEMORY, transient=True)


@dataclass(frozen=True)
class Prepared:
    """Texts made ready for the student: for every example and loss key the span to score, or why there is none."""

    spans: list[dict[str, Span | str]]


class Student:
    """A loaded student. Make one with :meth:`load`."""

    def __init__(
        self,
        settings: StudentSettings,
        tokenizer: PreTrainedTokenizerBase,
        encoder: TextEncoder,
        model: PreTrainedModel | None,
    ) -> None:
        self.settings = settings
        self.tokenizer = tokenizer
        self.encoder = encoder
        self._model = model
        if model is not None:
            self._prepare(model)

    def _prepare(self, model: PreTrainedModel) -> None:
        """Try the model, and settle how many tokens a batch has and how many batches run at once."""
        if model.device.type == "cpu":
            use_onednn(model)
        self._way = find_way(model, name=self.settings.model, longest=self.settings.max_length)
        most = CPU_PACKED_TOKENS if self._way.packed else CPU_BATCH_TOKENS
        self._batcher = Batcher.on(
            model.device,
            budget=self.settings.batch_tokens,
            cpu_tokens=most,
            what=f"The student {self.settings.model}",
        )
        if not self._way.plain_head:  # its hook on the model's head does not bear two batches at once
            self._batcher.budget = min(self._batcher.budget, own_forward_tokens(model))
            self._batcher.workers = 1

    @classmethod
    def load(cls, settings: StudentSettings, *, weights: bool = True) -> Student:
        """Find and load the student; without ``weights`` only its tokenizer, which is enough to count tokens.

        Raises:
            ModelError: the model cannot be found, loaded or used as these settings say.
        """
        if settings.template not in TEMPLATES:
            raise ModelError(
                f"There is no prompt template {settings.template!r}; choose one of {', '.join(TEMPLATES)}."
            )
        if settings.max_length < 2 or settings.batch_tokens < 1:
            raise ModelError("max_length must be 2 or more, and batch_tokens 1 or more.")
        located = locate(settings.model, settings.revision)
        settings = replace(settings, revision=located.revision)
        if not weights:
            tokenizer = load_tokenizer(located)
            return cls(settings, tokenizer, TextEncoder(tokenizer), None)
        config = load_config(located)
        _check_length(config, settings)
        tokenizer = load_tokenizer(located)
        encoder = TextEncoder(tokenizer)
        if settings.template == CHAT:
            encoder.render_chat("Hello")
        model = load_weights(located, config, dtype=settings.dtype, device=settings.device)
        rows = model.get_input_embeddings().weight.shape[0]
        if max(encoder.encode(["The quick brown fox 123"])["The quick brown fox 123"]) >= rows:
            raise ModelError(f"The tokenizer of {settings.model} does not belong to its weights ({rows} tokens).")
        return cls(settings, tokenizer, encoder, model)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of every text, special tokens that the tokenizer adds not counted."""
        return self.encoder.count(texts)

    def score(
        self, examples: Sequence[Example], keys: Sequence[str] = LOSS_KEYS, on_progress: Progress | None = None
    ) -> list[dict[str, Loss]]:
        """Return for every example the losses named by ``keys``; one that cannot be had is None with a reason.

        All spans of the call are sorted together, so give some hundreds of examples at a time. ``on_progress`` is
        called after every batch with the tokens done and the tokens in all. When memory runs out the budget is halved,
        for this student from then on; a span that does not fit alone becomes None, transient.

        Raises:
            ModelError: the student was loaded without weights.
        """
        return self.run(self.prepare(examples, keys), on_progress)

    def prepare(self, examples: Sequence[Example], keys: Sequence[str] = LOSS_KEYS) -> Prepared:
        """Tokenise: the part of :meth:`score` that needs no model, so that another thread can do it ahead."""
        spans = build_spans(
            examples,
            keys=keys,
            template=self.settings.template,
            max_length=self.settings.max_length,
            encoder=self.encoder,
        )
        return Prepared(spans)

    def run(self, prepared: Prepared, on_progress: Progress | None = None) -> list[dict[str, Loss]]:
        """Run the model: the rest of :meth:`score`."""
        if self._model is None:
            raise ModelError("This student was loaded without its weights and cannot score.")
        distinct = {span: None for of_row in prepared.spans for span in of_row.values() if isinstance(span, Span)}
        losses = self._losses(list(distinct), on_progress)
        return [
            {key: losses[one] if isinstance(one, Span) else Loss(None, 0, one) for key, one in of_row.items()}
            for of_row in prepared.spans
        ]

    def _losses(self, spans: list[Span], on_progress: Progress | None) -> dict[Span, Loss]:
        model = self._model
        assert model is not None
        prefixes = shared_prefixes(spans) if self._way.packed else [0] * len(spans)
        boundary = rotary_boundary(model.config)
        groups = [
            hash((span.ids[:n], boundary is not None and len(span.ids) - 1 > boundary))
            for span, n in zip(spans, prefixes, strict=True)
        ]

        def run_batch(batch: list[int]) -> list[float]:
            return mean_losses(model, [spans[i] for i in batch], way=self._way, n_prefix=prefixes[batch[0]])

        try:
            means = self._batcher.run(
                [len(span.ids) - n for span, n in zip(spans, prefixes, strict=True)],
                run_batch,
                groups=groups,
                padded=not self._way.packed,
                on_progress=on_progress,
            )
        except (RuntimeError, MemoryError) as error:
            raise ModelError(f"The student failed while scoring: {error}") from error
        return {
            span: _TOO_LARGE if mean is None else _loss(span, mean) for span, mean in zip(spans, means, strict=True)
        }


def _loss(span: Span, mean: float) -> Loss:
    if not math.isfinite(mean):
        return Loss(None, 0, "The student's loss is not a finite number; try dtype float32 or bfloat16.")
    return Loss(mean, span.n_tokens)


def _check_length(config: PretrainedConfig, settings: StudentSettings) -> None:
    limit = max_positions(config)
    if limit is not None and settings.max_length > limit:
        raise ModelError(
            f"max_length is {settings.max_length}, but {settings.model} has {limit} positions; choose {limit} or less."
        )
