"""The hot path: mean losses of target spans under a causal language model (METHOD.md, section 2).

Spans (``core.spans``) are sorted by length and run in batches under a budget of padded tokens (``core.span_losses``).
On a CPU several batches run at once, one thread each: threads that share one batch wait for each other at every layer,
which on a machine with other work to do was measured to be three to five times slower.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from core.errors import ModelError
from core.fast_linear import use_onednn
from core.models import load_config, load_tokenizer, load_weights, locate, max_positions
from core.prompts import CHAT, TEMPLATES
from core.span_losses import is_plain_head, mean_losses, own_forward_tokens
from core.spans import LOSS_KEYS, Span, TextEncoder, build_spans

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from core.example import Example

__all__ = ["CPU_BATCH_TOKENS", "LM_VERSION", "LOSS_KEYS", "Loss", "Student", "StudentSettings"]

LM_VERSION = "1"
"""Changes whenever a loss may come out differently; part of every scorer that stands on a student."""

CPU_BATCH_TOKENS = 2048
"""Larger batches are no faster on a CPU: they fall out of its caches."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class StudentSettings:
    """A student: which model, and how it is asked.

    ``model`` is a hub id or a local folder; ``revision`` a commit, or the digest that a folder must have;
    ``max_length`` the longest text in tokens; ``batch_tokens`` the budget of one batch in padded tokens, of which a CPU
    uses no more than ``CPU_BATCH_TOKENS``.
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


_TOO_LARGE = Loss(None, 0, "The student ran out of memory on this text alone.", transient=True)


def _plan(spans: Sequence[Span], *, budget: int, boundary: int | None, count: int) -> list[list[Span]]:
    """Return the first ``count`` batches of spans that are sorted from long to short.

    The first span of a batch sets its width; as many follow as fit into ``budget`` padded tokens, at least one. A
    batch does not straddle ``boundary``: some rotary embeddings change above a length, for the whole batch.
    """
    batches: list[list[Span]] = []
    start = 0
    while start < len(spans) and len(batches) < count:
        width = len(spans[start].ids)
        stop = min(len(spans), start + max(1, budget // width))
        if boundary is not None and width > boundary:
            stop = next((i for i in range(start, stop) if len(spans[i].ids) <= boundary), stop)
        batches.append(list(spans[start:stop]))
        start = stop
    return batches


def _is_out_of_memory(error: BaseException) -> bool:
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return "out of memory" in text or "not enough memory" in text or "can't allocate memory" in text


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
        self._budget = settings.batch_tokens
        self._plain_head = True
        self._workers = 1
        if model is not None:
            self._prepare(model)

    def _prepare(self, model: PreTrainedModel) -> None:
        """Try the model, and settle how many tokens a batch has and how many batches run at once."""
        import torch

        on_cpu = model.device.type == "cpu"
        if on_cpu:
            use_onednn(model)
        self._plain_head = is_plain_head(model, name=self.settings.model, longest=self.settings.max_length)
        if on_cpu:
            self._budget = min(self._budget, CPU_BATCH_TOKENS)
        if not self._plain_head:  # its hook on the model's head does not bear two batches at once
            self._budget = min(self._budget, own_forward_tokens(model))
        elif on_cpu:
            self._workers = torch.get_num_threads()

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
        if self._model is None:
            raise ModelError("This student was loaded without its weights and cannot score.")
        spans = build_spans(
            examples,
            keys=keys,
            template=self.settings.template,
            max_length=self.settings.max_length,
            encoder=self.encoder,
        )
        distinct = {span for of_row in spans for span in of_row.values() if isinstance(span, Span)}
        losses = self._run(sorted(distinct, key=lambda span: -len(span.ids)), on_progress)
        return [
            {key: losses[one] if isinstance(one, Span) else Loss(None, 0, one) for key, one in of_row.items()}
            for of_row in spans
        ]

    def _run(self, spans: list[Span], on_progress: Progress | None) -> dict[Span, Loss]:
        """Losses of the spans, which come from long to short."""
        assert self._model is not None
        boundary = _rotary_boundary(self._model.config)
        total, done = sum(len(span.ids) for span in spans), 0
        losses: dict[Span, Loss] = {}
        workers, pending = self._workers, spans
        while pending:
            wave = _plan(pending, budget=self._budget, boundary=boundary, count=4 * workers)
            run = sum(len(batch) for batch in wave)
            pending, failed = pending[run:], []
            for batch, means in zip(wave, self._means_of(wave, workers), strict=True):
                if means is not None:
                    losses.update((span, _loss(span, mean)) for span, mean in zip(batch, means, strict=True))
                elif workers == 1 and len(batch) == 1:
                    losses[batch[0]] = _TOO_LARGE
                else:
                    failed.extend(batch)
                    continue
                done += sum(len(span.ids) for span in batch)
            if failed:
                # From here on smaller batches, one at a time: what ran at once may have left too little for each.
                largest = max(len(batch[0].ids) * len(batch) for batch in wave)
                self._budget, workers = max(1, min(self._budget, largest) // 2), 1
                pending = failed + pending
            if on_progress is not None:
                on_progress(done, total)
        return losses

    def _means_of(self, wave: list[list[Span]], workers: int) -> list[list[float] | None]:
        """Mean losses of each batch of a wave, ``workers`` batches at a time; None where memory ran out."""
        if workers == 1 or len(wave) == 1:
            return [self._try_batch(batch) for batch in wave]
        import torch

        threads = torch.get_num_threads()
        try:
            with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                return list(pool.map(self._try_batch, wave))
        finally:
            torch.set_num_threads(threads)

    def _try_batch(self, batch: list[Span]) -> list[float] | None:
        """Mean losses of one batch; None if memory ran out."""
        import torch

        assert self._model is not None
        try:
            with torch.inference_mode():
                return mean_losses(self._model, batch, plain_head=self._plain_head)
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise ModelError(f"The student failed while scoring: {error}") from error
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()
        return None


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


def _rotary_boundary(config: PretrainedConfig) -> int | None:
    """Above this length LongRoPE embeds every position of a batch in another way; None for other models."""
    rope = getattr(config.get_text_config(), "rope_parameters", None) or {}
    if rope.get("rope_type") != "longrope":
        return None
    original = rope.get("original_max_position_embeddings")
    return int(original) + 1 if original else None  # + 1: a span's last token is not run
