"""The hot path: mean losses of target spans under a causal language model (METHOD.md, section 2).

Spans (``core.spans``) are sorted by length and run in batches under a budget of padded tokens. Padding stands on the
right, where causal attention cannot see it, so no mask is needed and the mask-free attention kernel is used; loading
a model proves on a probe that its later tokens do not reach its earlier ones. Hidden states come from the base model,
and the output head runs at scored positions alone, in tiles: no array of all tokens by all words is ever made. Models
that change the head's output (soft caps, scales) are found by the same probe and run through their own forward, in
which the head is shown only the scored positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from core.errors import ModelError
from core.models import load_config, load_tokenizer, load_weights, locate, max_positions
from core.prompts import CHAT, TEMPLATES
from core.spans import LOSS_KEYS, Span, TextEncoder, build_spans

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from core.example import Example

__all__ = ["LM_VERSION", "LOSS_KEYS", "Loss", "Student", "StudentSettings", "take_batch"]

LM_VERSION = "1"
"""Changes whenever a loss may come out differently; part of every scorer that stands on a student."""

_TILE_NUMBERS = {"cpu": 1 << 20, "cuda": 1 << 26}
_OWN_FORWARD_NUMBERS = {"cpu": 1 << 26, "cuda": 1 << 28}
_PROBE_TOKENS = 24

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class StudentSettings:
    """A student: which model, and how it is asked.

    ``model`` is a hub id or a local folder; ``revision`` a commit, or the digest that a folder must have;
    ``batch_tokens`` the budget of one batch in padded tokens; ``max_length`` the longest text in tokens.
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


def take_batch(lengths: Sequence[int], start: int, *, budget: int, boundary: int | None = None) -> int:
    """Return where the batch that begins at ``start`` ends, in lengths sorted from long to short.

    The first one sets the width; as many follow as fit into ``budget`` padded tokens, at least one. A batch does not
    straddle ``boundary``: some rotary embeddings change above a length, for the whole batch.
    """
    width = lengths[start]
    stop = min(len(lengths), start + max(1, budget // width))
    if boundary is not None and width > boundary:
        stop = next((i for i in range(start, stop) if lengths[i] <= boundary), stop)
    return stop


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
        self._plain_head = model is not None and _probe(model, settings)

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
            encoder.render_chat("")
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
        lengths = [len(span.ids) for span in spans]
        total, done, start = sum(lengths), 0, 0
        losses: dict[Span, Loss] = {}
        while start < len(spans):
            stop = take_batch(lengths, start, budget=self._budget_of(self._model), boundary=boundary)
            batch = spans[start:stop]
            found = self._try_batch(batch)
            if found is None and len(batch) > 1:
                self._budget = max(1, lengths[start] * len(batch) // 2)
                continue
            losses.update(zip(batch, found or [_TOO_LARGE], strict=True))
            done, start = done + sum(lengths[start:stop]), stop
            if on_progress is not None:
                on_progress(done, total)
        return losses

    def _budget_of(self, model: PreTrainedModel) -> int:
        if self._plain_head:
            return self._budget
        numbers = _OWN_FORWARD_NUMBERS[model.device.type]
        return max(1, min(self._budget, numbers // model.get_output_embeddings().weight.shape[0]))

    def _try_batch(self, batch: list[Span]) -> list[Loss] | None:
        """Losses of one batch; None if memory ran out."""
        import torch

        assert self._model is not None
        try:
            with torch.inference_mode():
                return _losses_of(self._model, batch, plain_head=self._plain_head)
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise ModelError(f"The student failed while scoring: {error}") from error
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()
        return None


def _losses_of(model: PreTrainedModel, batch: list[Span], *, plain_head: bool) -> list[Loss]:
    """Mean float32 losses of the spans of one batch, in order."""
    import torch

    # The last token is only ever a target, so it is not run through the model.
    width = len(batch[0].ids) - 1
    ids = torch.zeros((len(batch), width), dtype=torch.long)
    positions: list[torch.Tensor] = []
    targets: list[int] = []
    counts: list[int] = []
    for row, span in enumerate(batch):
        ids[row, : len(span.ids) - 1] = torch.tensor(span.ids[:-1])
        positions.append(torch.arange(span.start - 1, len(span.ids) - 1) + row * width)
        targets.extend(span.ids[span.start :])
        counts.append(span.n_tokens)
    device = model.device
    run = _by_plain_head if plain_head else _by_own_forward
    nll = run(model, ids.to(device), torch.cat(positions).to(device), torch.tensor(targets, device=device))
    sums = torch.stack([part.sum() for part in nll.double().cpu().split(counts)])
    return [_loss(float(total) / n, n) for total, n in zip(sums, counts, strict=True)]


def _loss(mean: float, n_tokens: int) -> Loss:
    if mean != mean or mean in (float("inf"), float("-inf")):
        return Loss(None, 0, "The student's loss is not a finite number; try dtype float32 or bfloat16.")
    return Loss(mean, n_tokens)


def _token_nll(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood in nats: logits [positions, words] and targets [positions] give float32 [positions]."""
    logits = logits.float()
    return logits.logsumexp(-1) - logits.gather(-1, targets[:, None]).squeeze(-1)


def _by_plain_head(
    model: PreTrainedModel, ids: torch.Tensor, positions: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """Base model on ids [rows, width], then the head at flat ``positions``, a tile at a time."""
    import torch

    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    chosen = hidden.flatten(0, 1).index_select(0, positions)
    del hidden
    head = model.get_output_embeddings()
    tile = max(1, _TILE_NUMBERS[ids.device.type] // head.weight.shape[0])
    parts = zip(chosen.split(tile), targets.split(tile), strict=True)
    return torch.cat([_token_nll(head(part), wanted) for part, wanted in parts])


def _by_own_forward(
    model: PreTrainedModel, ids: torch.Tensor, positions: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """The model's own forward on ids [rows, width], with the head shown only the flat ``positions``."""

    def choose(_head: object, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (inputs[0].flatten(0, 1).index_select(0, positions)[None],)

    handle = model.get_output_embeddings().register_forward_pre_hook(choose)
    try:
        logits = model(input_ids=ids, use_cache=False).logits
    finally:
        handle.remove()
    return _token_nll(logits[0], targets)


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


@contextmanager
def _watched(module: Any, seen: dict[str, torch.Tensor]) -> Iterator[None]:
    def watch(_module: object, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        seen["input"], seen["output"] = inputs[0], output

    handle = module.register_forward_hook(watch)
    try:
        yield
    finally:
        handle.remove()


def _probe(model: PreTrainedModel, settings: StudentSettings) -> bool:
    """Run the model on a few tokens. Return whether its logits are just the head on the base model's hidden states.

    Raises:
        ModelError: it cannot be run on token ids alone, is not causal, or gives numbers that are not finite.
    """
    import torch

    head = model.get_output_embeddings()
    if head is None:
        raise ModelError(f"{settings.model} has no output head that can be found; it cannot be used as a student.")
    seen: dict[str, torch.Tensor] = {}
    words = model.get_input_embeddings().weight.shape[0]
    n = min(_PROBE_TOKENS, settings.max_length)
    ids = (torch.arange(n, device=model.device)[None] * 7919 + 11) % words
    other = ids.clone()
    other[0, -1] = (ids[0, -1] + words // 2) % words
    try:
        with torch.inference_mode():
            with _watched(head, seen):
                logits = model(input_ids=ids, use_cache=False).logits
            changed = model(input_ids=other, use_cache=False).logits
            hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise ModelError(f"{settings.model} cannot be run on plain text: {error}") from error
    if not bool(torch.isfinite(logits).all()):
        raise ModelError(f"{settings.model} gives numbers that are not finite in {settings.dtype}; try float32.")
    scale = float(logits.float().abs().max()) + 1e-6
    if float((logits[:, :-1] - changed[:, :-1]).float().abs().max()) > 0.02 * scale:
        raise ModelError(f"{settings.model} lets later tokens change earlier ones: it is not a causal language model.")
    same_logits = torch.equal(seen["output"].to(logits.dtype), logits)
    return same_logits and torch.equal(seen["input"], hidden)
