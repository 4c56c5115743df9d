"""Evaluation losses of a base, with an adapter on it or without, on the hot path of scoring (``core.lm``).

That path changes a model it is given: linear layers run through oneDNN, attention is packed, the last layer leaves
tokens out. :func:`scoring` takes all of it back, so that the next run trains on the same base as if it were the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from core.batches import Progress
from core.finetune.results import OutputLoss
from core.finetune.settings import FinetuneSettings
from core.lm import Student, StudentSettings
from core.spans import Span

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from core.example import Example
    from core.spans import TextEncoder

KEY = "loss_y_given_x"


@contextmanager
def scoring(model: PreTrainedModel) -> Iterator[None]:
    """Inside, the model may be made a :class:`core.lm.Student`; after it, it is as it was before."""
    attention = model.config._attn_implementation
    training = model.training
    modules = list(model.modules())
    before = [(type(one), vars(one).get("forward")) for one in modules]
    model.eval()
    try:
        yield
    finally:
        for module, (kind, forward) in zip(modules, before, strict=True):
            module.__class__ = kind
            if forward is None:
                vars(module).pop("forward", None)
            else:
                module.forward = forward
        if model.config._attn_implementation != attention:
            model.set_attn_implementation(attention)
        model.train(training)


class Evaluation:
    """The outputs of an evaluation set, tokenised once for all runs."""

    def __init__(
        self, outputs: Sequence[tuple[int, Example]], settings: FinetuneSettings, encoder: TextEncoder
    ) -> None:
        self.outputs = tuple(outputs)
        self._settings = StudentSettings(
            model=settings.base,
            revision=settings.revision,
            template=settings.template,
            max_length=settings.max_length,
            device=settings.device,
        )
        self._encoder = encoder
        examples = [example for _, example in self.outputs]
        self._prepared = Student(self._settings, encoder.tokenizer, encoder, None).prepare(examples, (KEY,))
        encoder.forget()

    @property
    def n_tokens(self) -> int:
        """Tokens of all texts, those of the prompts too."""
        spans = [of_row[KEY] for of_row in self._prepared.spans]
        return sum(len(one.ids) for one in spans if isinstance(one, Span))

    def lost(self, losses: Sequence[OutputLoss]) -> list[OutputLoss]:
        """Those without a loss although they have tokens to take it over: not finite, or out of memory."""
        spans = (of_row[KEY] for of_row in self._prepared.spans)
        return [
            one for one, span in zip(losses, spans, strict=True) if one.loss_nats is None and isinstance(span, Span)
        ]

    def run(self, model: PreTrainedModel, on_progress: Progress | None = None) -> list[OutputLoss]:
        """The mean response-token loss of every output, in order; None with a reason where there is none.

        Raises:
            ModelError: the model cannot be run.
        """
        with scoring(model):
            student = Student(self._settings, self._encoder.tokenizer, self._encoder, model)
            losses = student.run(self._prepared, on_progress)
        return [
            OutputLoss(example_id, loss[KEY].loss_nats, loss[KEY].n_tokens, loss[KEY].reason)
            for (example_id, _), loss in zip(self.outputs, losses, strict=True)
        ]
