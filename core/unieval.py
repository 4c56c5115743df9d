"""UniEval's dialogue task on any T5 of its form [UE, arXiv 2210.07197; METHOD.md, section 3].

The score of a question is P(Yes) / (P(Yes) + P(No)) at the decoder's first step. The questions and the layout around
them are those of the published code (maszhongming/UniEval, ``add_question``), to the letter: checkpoints were trained
on them. Naturalness and understandability look at the response alone; coherence at response and dialogue history.

The dialogue history is the request: the instruction, and the input as the next turn if there is one. Turns are parted
by " \\n " and the last one is followed by " \\n\\n", as in the published example and data; T5's own tokenizer takes any
run of white space for one space. A "</s>" or other special token that stands in a text is read as the tokenizer reads
it, as in the published code.

A text over ``max_length`` (1024 published) loses its end: of coherence first the history, which stands last, and of all
the response's tail, so that the score speaks for its beginning. We differ from the published code in what it scores
regardless: an empty response, and coherence with no history (left), are NULL with a reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from core.batches import Batcher, is_out_of_memory
from core.errors import ModelError, SettingsError
from core.fast_linear import use_onednn
from core.indicators.value import Value
from core.models import Located, load_tokenizer, load_weights, locate, read_architecture, read_config
from core.padded import masks, padded, to_floats
from core.spans import EMPTY_REQUEST, EMPTY_RESPONSE

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from core.example import Example

UNIEVAL_VERSION = "1"
"""Changes whenever a score may come out differently; part of every scorer that stands on UniEval."""

DIMENSIONS = ("naturalness", "coherence", "understandability")

_QUESTIONS = {
    "naturalness": "question: Is this a natural response in the dialogue? </s> response: ",
    "coherence": "question: Is this a coherent response given the dialogue history? </s> response: ",
    "understandability": "question: Is this an understandable response in the dialogue? </s> response: ",
}
_HISTORY = " </s> dialogue history: "
_TYPES = ("t5", "mt5", "umt5")
_SAVED_AS = ("ForConditionalGeneration", "T5WithLMHeadModel")
_PROBES = ("question: Is this a natural response in the dialogue? </s> response: It is blue.", "response: Yes")
_TOO_LARGE = Value(None, "UniEval ran out of memory on this text alone.", transient=True)
_NOT_FINITE = Value(None, "UniEval's answer is not a finite number; try dtype float32 or bfloat16.")

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class UniEvalSettings:
    """A T5 that answers UniEval's questions.

    ``model`` is a hub id or a local folder; ``revision`` a commit, or the digest that a folder must have;
    ``max_length`` the longest text in tokens (T5's positions are relative, so that no checkpoint sets a limit);
    ``batch_tokens`` the budget of one batch in padded tokens, of which a CPU uses no more than ``CPU_BATCH_TOKENS``.
    """

    model: str = "MingZhong/unieval-dialog"
    revision: str | None = None
    dtype: str = "float32"
    max_length: int = 1024
    batch_tokens: int = 8192
    device: str = "cpu"


def history_of(example: Example) -> str:
    """The request as a dialogue history; "" if there is none."""
    turns = [text for text in (example.instruction, example.input) if text.strip()]
    return " \n ".join(turns) + " \n\n" if turns else ""


def text_of(example: Example, dimension: str) -> str:
    """The text that UniEval reads for one question, to the letter of the published code."""
    return _before_history(example, dimension) + (history_of(example) if dimension == "coherence" else "")


def _before_history(example: Example, dimension: str) -> str:
    return _QUESTIONS[dimension] + example.output + (_HISTORY if dimension == "coherence" else "")


def load_t5_config(located: Located) -> PretrainedConfig:
    """Read the configuration and make sure that it is of a T5 with a language model head.

    Raises:
        ModelError: it cannot be read, or is of another kind of model.
    """
    config = read_config(located)
    if config.model_type not in _TYPES:
        raise ModelError(f"{located.name} is not a T5 (its type is {config.model_type!r}); UniEval must be one.")
    saved_as = read_architecture(located)
    if saved_as and not saved_as.endswith(_SAVED_AS):
        # A bare encoder would load too, with a decoder of random numbers.
        raise ModelError(f"{located.name} was saved as {saved_as}, which has no head that says Yes or No.")
    return config


def answer_ids(tokenizer: PreTrainedTokenizerBase, *, name: str) -> tuple[int, int]:
    """Return the ids of "Yes" and "No".

    Raises:
        ModelError: one of them is not a single token, so that its probability is not that of the answer.
    """
    found: list[int] = []
    for word in ("Yes", "No"):
        ids = tokenizer(word, add_special_tokens=False)["input_ids"]
        if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
            raise ModelError(
                f"The tokenizer of {name} has no single token for {word!r}; it cannot answer UniEval's questions."
            )
        found.append(int(ids[0]))
    return found[0], found[1]


@dataclass(frozen=True)
class Prepared:
    """What :meth:`UniEval.run` needs of a call: for every example and dimension its token ids, or the NULL."""

    rows: list[dict[str, tuple[int, ...] | Value]]


class UniEval:
    """A T5 that answers UniEval's questions, on its device. ``settings`` holds the revision that was found."""

    def __init__(self, settings: UniEvalSettings, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
        self.settings = settings
        self._tokenizer = tokenizer
        self._model = model
        self._answers = answer_ids(tokenizer, name=settings.model)
        self._rows: torch.Tensor | None = None
        self._start = _start_token(model.config)
        tokenizer.truncation_side = "right"
        self._batcher = Batcher.on(model.device, budget=settings.batch_tokens, what="UniEval")
        if model.device.type == "cpu":
            use_onednn(model)
        self._check()

    @classmethod
    def load(cls, settings: UniEvalSettings) -> UniEval:
        """Find and load the model.

        Raises:
            ModelError: the model cannot be found, loaded or used as these settings say.
        """
        if settings.max_length < 2 or settings.batch_tokens < 1:
            raise ModelError("max_length must be 2 or more, and batch_tokens 1 or more.")
        located = locate(settings.model, settings.revision)
        config = load_t5_config(located)
        tokenizer = load_tokenizer(located)
        answer_ids(tokenizer, name=settings.model)
        longest = max(len(tokenizer(question)["input_ids"]) for question in _QUESTIONS.values())
        if settings.max_length <= longest:
            raise ModelError(
                f"max_length is {settings.max_length}, but the question alone takes up to {longest} tokens; "
                "choose more (1024 was published)."
            )
        settings = replace(settings, revision=located.revision)
        model = load_weights(
            located,
            config,
            dtype=settings.dtype,
            device=settings.device,
            loader="AutoModelForSeq2SeqLM",
            kind="a T5 with its decoder",
        )
        return cls(settings, tokenizer, model)

    def score(
        self, examples: Sequence[Example], dimensions: Sequence[str] = DIMENSIONS, on_progress: Progress | None = None
    ) -> list[dict[str, Value]]:
        """Return for every example P(Yes) / (P(Yes) + P(No)) of each dimension, from 0 to 1, or NULL with a reason.

        Every text is encoded once, so rows with the same response share naturalness and understandability. All texts
        of the call are sorted together, so give some hundreds of examples at a time. ``on_progress`` is called with
        the tokens done and the tokens in all. NULL: the response is empty or white space, coherence has no request or
        it lies wholly beyond ``max_length``, the answer is not finite, memory ran out (transient).

        Raises:
            SettingsError: there is no such dimension.
            ModelError: the model failed on a batch, for another reason than memory.
        """
        return self.run(self.prepare(examples, dimensions), on_progress)

    def prepare(self, examples: Sequence[Example], dimensions: Sequence[str] = DIMENSIONS) -> Prepared:
        """Tokenise: the part of :meth:`score` that needs no model and may run beside it, in another thread.

        Raises:
            SettingsError: there is no such dimension.
        """
        for dimension in dimensions:
            if dimension not in DIMENSIONS:
                raise SettingsError(f"UniEval has no question of {dimension!r}; choose of {', '.join(DIMENSIONS)}.")
        asked = [{key: _asked(example, key) for key in dimensions} for example in examples]
        ids = self._encode([text for row in asked for text, null in row.values() if null is None])
        cut = self._without_history(examples, asked, ids) if "coherence" in dimensions else {}
        return Prepared(
            [{key: null or cut.get(text) or ids[text] for key, (text, null) in row.items()} for row in asked]
        )

    def run(self, prepared: Prepared, on_progress: Progress | None = None) -> list[dict[str, Value]]:
        """Run the model: the rest of :meth:`score`."""
        distinct = list(dict.fromkeys(one for row in prepared.rows for one in row.values() if isinstance(one, tuple)))
        values = dict(zip(distinct, self._run(distinct, on_progress), strict=True))
        return [
            {key: one if isinstance(one, Value) else values[one] for key, one in row.items()} for row in prepared.rows
        ]

    def _encode(self, texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
        distinct = list(dict.fromkeys(texts))
        if not distinct:
            return {}
        encoded = self._tokenizer(distinct, truncation=True, max_length=self.settings.max_length)["input_ids"]
        return {text: tuple(ids) for text, ids in zip(distinct, encoded, strict=True)}

    def _without_history(
        self,
        examples: Sequence[Example],
        asked: Sequence[dict[str, tuple[str, Value | None]]],
        ids: dict[str, tuple[int, ...]],
    ) -> dict[str, Value]:
        """The NULL of every text of coherence whose response takes all of ``max_length``, by text."""
        limit = self.settings.max_length
        full: dict[str, str] = {}
        for example, row in zip(examples, asked, strict=True):
            text, null = row["coherence"]
            if null is None and len(ids[text]) >= limit:
                full[text] = _before_history(example, "coherence")
        if not full:
            return {}
        null = Value(None, f"The response alone fills max_length ({limit} tokens); nothing of the request is left.")
        before = self._tokenizer(list(full.values()), verbose=False)["input_ids"]
        return {text: null for text, found in zip(full, before, strict=True) if len(found) >= limit}

    def _run(self, texts: Sequence[tuple[int, ...]], on_progress: Progress | None) -> list[Value]:
        found = self._batcher.run(
            [len(ids) for ids in texts],
            lambda batch: self._of_batch([texts[i] for i in batch]),
            on_progress=on_progress,
        )
        numbers = iter(to_floats([one for one in found if one is not None]))
        return [_TOO_LARGE if one is None else _value(next(numbers)) for one in found]

    def _of_batch(self, rows: Sequence[tuple[int, ...]]) -> list[torch.Tensor]:
        """P(Yes) / (P(Yes) + P(No)) of a batch, float64 from float32 logits, on the device, one tensor each."""
        try:
            logits = self._own_logits(rows) if self._rows is None else self._two_logits(rows)
        except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            if is_out_of_memory(error):
                raise
            raise ModelError(f"UniEval's model {self.settings.model} failed on a text: {error}") from error
        # The softmax over all words divides both answers by the same sum, so the two logits are enough.
        return list((logits[:, 0] - logits[:, 1]).double().sigmoid().unbind())

    def _inputs(self, rows: Sequence[tuple[int, ...]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Token ids [rows, width] and their mask, and the decoder's first token [rows, 1]."""
        import torch

        device = self._model.device
        first = torch.full((len(rows), 1), self._start, dtype=torch.long, device=device)
        return padded(rows, fill=0, device=device), masks(rows, device=device), first

    def _two_logits(self, rows: Sequence[tuple[int, ...]]) -> torch.Tensor:
        """Float32 logits [rows, 2] of Yes and No, by two rows of the output head alone."""
        assert self._rows is not None
        return self._last_hidden(rows).float() @ self._rows.T

    def _last_hidden(self, rows: Sequence[tuple[int, ...]]) -> torch.Tensor:
        """Hidden states [rows, width of the model] of the decoder's first step."""
        ids, mask, first = self._inputs(rows)
        encoded = self._model.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
        decoder = self._model.get_decoder()
        return decoder(
            input_ids=first, encoder_hidden_states=encoded, encoder_attention_mask=mask, use_cache=False
        ).last_hidden_state[:, 0]

    def _own_logits(self, rows: Sequence[tuple[int, ...]]) -> torch.Tensor:
        """The same logits by the model's own forward."""
        ids, mask, first = self._inputs(rows)
        logits = self._model(input_ids=ids, attention_mask=mask, decoder_input_ids=first, use_cache=False).logits
        return logits[:, 0, list(self._answers)].float()

    def _check(self) -> None:
        """Try the model, and see whether two rows of its head give what its own forward gives.

        T5 scales the last hidden states where input and output embeddings were tied (version 1.0), and newer releases
        of transformers keep that in another place of the configuration; so the scale is found by trying.

        Raises:
            ModelError: it cannot be run on text, or its tokenizer does not belong to it.
        """
        import torch

        rows = sorted(self._encode(_PROBES).values(), key=lambda ids: -len(ids))
        words = int(self._model.get_input_embeddings().weight.shape[0])
        if max(*self._answers, *(max(row) for row in rows)) >= words:
            raise ModelError(f"The tokenizer of {self.settings.model} does not belong to its weights ({words} tokens).")
        with torch.inference_mode():
            try:
                own = self._own_logits(rows)
            except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
                raise ModelError(f"{self.settings.model} cannot be asked UniEval's questions: {error}") from error
            if not bool(torch.isfinite(own).all()):
                dtype = self.settings.dtype
                raise ModelError(f"{self.settings.model} gives numbers that are not finite in {dtype}; try float32.")
            self._rows = self._plain_rows(rows, own)

    def _plain_rows(self, rows: Sequence[tuple[int, ...]], own: torch.Tensor) -> torch.Tensor | None:
        """Float32 [2, width of the model]: the head's rows of Yes and No, scaled; None if they do not give ``own``."""
        import torch

        head = self._model.get_output_embeddings()
        if head is None or getattr(head, "bias", None) is not None:
            return None
        weights = head.weight[list(self._answers)].float()
        hidden = self._last_hidden(rows).float()
        tolerance = (1e-5 if self._model.dtype == torch.float32 else 3e-2) * float(own.abs().max())
        for scale in (1.0, float(self._model.config.d_model) ** -0.5):
            if float((hidden @ (weights * scale).T - own).abs().max()) <= tolerance:
                return weights * scale
        return None


def _start_token(config: PretrainedConfig) -> int:
    start = config.decoder_start_token_id
    return int(start if start is not None else config.pad_token_id or 0)


def _asked(example: Example, dimension: str) -> tuple[str, Value | None]:
    """The text of a question, and the NULL that stands for it where it cannot be asked."""
    if not example.output.strip():
        return "", Value(None, EMPTY_RESPONSE)
    if dimension == "coherence" and not history_of(example):
        return "", Value(None, EMPTY_REQUEST)
    return text_of(example, dimension), None


def _value(score: float) -> Value:
    return Value(score) if math.isfinite(score) else _NOT_FINITE
