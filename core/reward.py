"""The reward of a response under any sequence classifier that transformers loads [IM, table 1; METHOD.md, section 3].

What a head with one logit gives is the reward itself. A head with two logits is a classifier of good and bad answers:
its reward is the log-odds, logit of the good class minus logit of the other, because only the difference of two
softmax logits means anything. ``config.id2label`` says which class is the good one where it names one ("positive",
"chosen", "bad", …); else it is class 1, as in any binary classification. Other numbers of logits are refused.

The two forms of the text:

``pair``  ``tokenizer(question, answer)``, as the cards of OpenAssistant's DeBERTa and ELECTRA reward models show it.
          The question is the instruction, with the input on the next line if there is one (our choice: those models
          know no input). OpenAssistant's Pythia reward models have a class of their own, which is not run here; rewards
          of a paper that used one are of another scale than these.
``chat``  the tokenizer's chat template of one user turn (the same question) and one assistant turn.
``auto``  ``chat`` if the tokenizer has a chat template, else ``pair``.

A text over ``max_length`` loses the tail of its response, never a token of its request (``core.reward_text``). Special
tokens that stand in a text are read as the tokenizer reads them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from core.batches import Batcher, is_out_of_memory
from core.errors import ModelError
from core.fast_linear import use_onednn
from core.indicators.value import Value
from core.models import (
    Located,
    load_tokenizer,
    load_weights,
    locate,
    max_positions,
    read_architecture,
    read_config,
    rotary_boundary,
)
from core.padded import masks, padded, to_floats
from core.reward_text import Text, TextForm, question_of
from core.spans import EMPTY_RESPONSE

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

    from core.example import Example

REWARD_VERSION = "1"
"""Changes whenever a reward may come out differently; part of every scorer that stands on a reward model."""

CPU_BATCH_TOKENS = 512
"""Larger batches are slower on a CPU: DeBERTa keeps its attention, heads × tokens × tokens of a row, as an array, and
2,048 tokens fell out of the caches (1.4 times as long at the width of DeBERTa-large, 1.2 times for a Llama)."""

FORMS = ("auto", "pair", "chat")
_HEAD = "ForSequenceClassification"
_GOOD = frozenset(
    ["positive", "pos", "good", "chosen", "helpful", "accepted", "accept", "preferred", "better", "yes", "correct"]
)
_BAD = frozenset(
    ["negative", "neg", "bad", "rejected", "unhelpful", "reject", "worse", "no", "incorrect", "wrong", "toxic"]
)
_PROBES = ("Name a colour of the sky, and say at which time of the day it has it.", "Blue, at noon."), ("Hi.", "Yes?")
_TOO_LARGE = Value(None, "The reward model ran out of memory on this text alone.", transient=True)
_NOT_FINITE = Value(None, "The reward is not a finite number; try dtype float32 or bfloat16.")

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class RewardSettings:
    """A reward model, and how it is asked.

    ``model`` is a hub id or a local folder; ``revision`` a commit, or the digest that a folder must have; ``form`` one
    of ``FORMS``; ``max_length`` the longest text in tokens; ``batch_tokens`` the budget of one batch in padded tokens,
    of which a CPU uses no more than ``CPU_BATCH_TOKENS`` of this module.
    """

    model: str = "OpenAssistant/reward-model-deberta-v3-large-v2"
    revision: str | None = None
    dtype: str = "float32"
    form: str = "auto"
    max_length: int = 512
    batch_tokens: int = 8192
    device: str = "cpu"


def good_class(config: PretrainedConfig) -> int | None:
    """Return which of two logits is that of a good answer; None for a head with one logit, which is the reward.

    Raises:
        ModelError: the head has another number of logits, or two that are no classes of one question.
    """
    n = int(config.num_labels)
    if n == 1:
        return None
    if n != 2:
        raise ModelError(f"A reward model has one logit or two; this one has {n}, and none of them is the reward.")
    if config.problem_type in ("regression", "multi_label_classification"):
        raise ModelError("The two outputs of this model answer two questions, so neither is the reward.")
    names = [str(config.id2label.get(i, "")).strip().lower() for i in range(2)]
    for good, bad in ((0, 1), (1, 0)):
        named_good, named_bad = names[good] in _GOOD, names[bad] in _BAD
        if (named_good or named_bad) and names[bad] not in _GOOD and names[good] not in _BAD:
            return good
    return 1


def load_classifier_config(located: Located) -> PretrainedConfig:
    """Read the configuration and make sure that it is of a sequence classifier.

    Raises:
        ModelError: it cannot be read, is of another kind of model, or needs code of its own.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING as KNOWN
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as NAMES

    saved_as = read_architecture(located)
    if saved_as and saved_as not in NAMES.values():
        # A causal model would load too, with a head of random numbers; so would a reward model whose head is its own.
        more = (
            "it is a reward model with code of its own, which is never run here"
            if "reward" in saved_as.lower()
            else "it has no trained head for a reward"
        )
        raise ModelError(f"{located.name} was saved as {saved_as}: {more}. Choose a model saved as …{_HEAD}.")
    config = read_config(located)
    if type(config) not in KNOWN:
        raise ModelError(
            f"{located.name} is no sequence classifier (its type is {config.model_type!r}); a reward model must be one."
        )
    return config


@dataclass(frozen=True)
class Prepared:
    """What :meth:`Reward.run` needs of a call: for every example its text, or the reason why there is none."""

    texts: list[Text | str]


class Reward:
    """A reward model on its device. ``settings`` holds the revision and the form that were found."""

    def __init__(self, settings: RewardSettings, form: TextForm, model: PreTrainedModel) -> None:
        self.settings = settings
        self._form = form
        self._model = model
        self._good = good_class(model.config)
        self._text_config = model.config.get_text_config()
        self._words = int(model.get_input_embeddings().weight.shape[0])
        fill = self._text_config.pad_token_id
        self._own_fill = fill if fill is not None and 0 <= fill < self._words else None
        self._pads = True
        self._batcher = Batcher.on(
            model.device, budget=settings.batch_tokens, cpu_tokens=CPU_BATCH_TOKENS, what="The reward model"
        )
        if model.device.type == "cpu":
            use_onednn(model)
        _head_in_float32(model)
        self._probe()

    @classmethod
    def load(cls, settings: RewardSettings) -> Reward:
        """Find and load the reward model.

        Raises:
            ModelError: the model cannot be found, loaded or used as these settings say.
        """
        if settings.form not in FORMS:
            raise ModelError(
                f"There is no form {settings.form!r} of a reward's text; choose one of {', '.join(FORMS)}."
            )
        if settings.max_length < 2 or settings.batch_tokens < 1:
            raise ModelError("max_length must be 2 or more, and batch_tokens 1 or more.")
        located = locate(settings.model, settings.revision)
        config = load_classifier_config(located)
        good_class(config)
        _check_length(settings, max_positions(config))
        tokenizer = load_tokenizer(located)
        tokenizer.truncation_side = "right"  # the tail of the response goes, whatever the tokenizer was saved with
        form = settings.form
        if form == "auto":
            form = "chat" if tokenizer.chat_template else "pair"
        if form == "chat" and not tokenizer.chat_template:
            raise ModelError(f"The tokenizer of {settings.model} has no chat template; choose the form pair.")
        settings = replace(settings, revision=located.revision, form=form)
        model = load_weights(
            located,
            config,
            dtype=settings.dtype,
            device=settings.device,
            loader="AutoModelForSequenceClassification",
            kind="a sequence classifier",
        )
        _check_length(settings, _usable_positions(model))
        has_types = "token_type_ids" in _parameters(model)
        return cls(settings, TextForm(tokenizer, form=form, max_length=settings.max_length, has_types=has_types), model)

    def score(self, examples: Sequence[Example], on_progress: Progress | None = None) -> list[Value]:
        """Return the reward of every example, or NULL with a reason.

        The logit of a head with one, the log-odds of the good class of a head with two; no unit, no range. Equal texts
        are run once. All texts of the call are sorted together, so give some hundreds of examples at a time.
        ``on_progress`` is called with the tokens done and the tokens in all. NULL: the response is empty or white
        space, the request alone fills ``max_length``, the reward is not finite, memory ran out (transient).

        Raises:
            ModelError: the model failed on a batch, for another reason than memory.
        """
        return self.run(self.prepare(examples), on_progress)

    def prepare(self, examples: Sequence[Example]) -> Prepared:
        """Tokenise: the part of :meth:`score` that needs no model and may run beside it, in another thread."""
        asked = [(question_of(example), example.output) if example.output.strip() else None for example in examples]
        pairs = list(dict.fromkeys(pair for pair in asked if pair is not None))
        texts = dict(zip(pairs, self._form.encode(pairs), strict=True))
        return Prepared([EMPTY_RESPONSE if pair is None else texts[pair] for pair in asked])

    def run(self, prepared: Prepared, on_progress: Progress | None = None) -> list[Value]:
        """Run the model: the rest of :meth:`score`."""
        distinct = list(dict.fromkeys(text for text in prepared.texts if isinstance(text, Text)))
        rewards = dict(zip(distinct, self._run(distinct, on_progress), strict=True))
        return [Value(None, text) if isinstance(text, str) else rewards[text] for text in prepared.texts]

    def _run(self, texts: Sequence[Text], on_progress: Progress | None = None) -> list[Value]:
        """Rewards of distinct texts."""
        fill = self._filling(texts)
        lengths = [len(text.ids) for text in texts]
        boundary = rotary_boundary(self._text_config)
        apart = lengths if fill is None else [int(boundary is not None and n > boundary) for n in lengths]
        found = self._batcher.run(
            lengths,
            lambda batch: list(self._forward([texts[i] for i in batch], fill or 0).unbind()),
            groups=apart,
            on_progress=on_progress,
        )
        numbers = iter(to_floats([one for one in found if one is not None]))
        return [_TOO_LARGE if one is None else _value(next(numbers)) for one in found]

    def _filling(self, texts: Sequence[Text]) -> int | None:
        """The token that fills up shorter rows; None if rows of unlike lengths must not meet in a batch.

        A decoder is read out at its last token that is not the padding token of its configuration. Without such a
        token in the configuration it is the last one; so any token that ends none of these texts can stand for it.
        """
        if self._own_fill is not None:
            return self._own_fill if self._pads else None
        ends = {text.ids[-1] for text in texts}
        unused = next((word for word in range(self._words) if word not in ends), None) if self._pads else None
        self._text_config.pad_token_id = -1 if unused is None else unused
        return unused

    def _forward(self, texts: Sequence[Text], fill: int) -> torch.Tensor:
        """Float32 rewards [texts] on the device; ``fill`` stands behind the shorter texts."""
        device = self._model.device
        rows = [text.ids for text in texts]
        inputs = {"input_ids": padded(rows, fill=fill, device=device), "attention_mask": masks(rows, device=device)}
        if texts[0].types:
            inputs["token_type_ids"] = padded([text.types for text in texts], fill=0, device=device)
        try:
            logits = self._model(**inputs).logits.float()
        except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            if is_out_of_memory(error):
                raise
            raise ModelError(f"The reward model {self.settings.model} failed on a text: {error}") from error
        return logits[:, 0] if self._good is None else logits[:, self._good] - logits[:, 1 - self._good]

    def _probe(self) -> None:
        """Try the model on two texts of unlike length: whether it runs, and whether padding leaves its rewards alone.

        Raises:
            ModelError: it cannot be run on text, or its tokenizer does not belong to it.
        """
        import torch

        encoded = replace(self._form, max_length=1 << 20).encode(_PROBES)
        refused = next((one for one in encoded if isinstance(one, str)), None)
        if refused is not None:
            raise ModelError(f"{self.settings.model} cannot be asked for a reward. {refused}")
        # No longer than the texts to come: the model may have no more positions than that.
        limit = self.settings.max_length
        texts = [Text(t.ids[:limit], t.types[:limit]) for t in encoded if isinstance(t, Text)]
        if max(max(text.ids) for text in texts) >= self._words:
            raise ModelError(
                f"The tokenizer of {self.settings.model} does not belong to its weights ({self._words} tokens)."
            )
        texts.sort(key=lambda text: -len(text.ids))
        fill = self._filling(texts)
        with torch.inference_mode():
            alone = torch.cat([self._forward([text], fill or 0) for text in texts])
            together = alone if fill is None else self._forward(texts, fill)
        if not bool(torch.isfinite(alone).all()):
            raise ModelError(f"{self.settings.model} gives no finite reward in {self.settings.dtype}; try float32.")
        tolerance = 1e-5 if self._model.dtype == torch.float32 else 3e-2
        self._pads = bool(((alone - together).abs() <= tolerance * (1 + alone.abs())).all())


def _value(reward: float) -> Value:
    return Value(reward) if math.isfinite(reward) else _NOT_FINITE


def _parameters(model: PreTrainedModel) -> frozenset[str]:
    import inspect

    return frozenset(inspect.signature(model.forward).parameters)


def _check_length(settings: RewardSettings, limit: int | None) -> None:
    if limit is not None and settings.max_length > limit:
        raise ModelError(
            f"max_length is {settings.max_length}, but {settings.model} has {limit} positions; choose {limit} or less."
        )


def _usable_positions(model: PreTrainedModel) -> int | None:
    """Positions that a text can take where they are learnt: RoBERTa's kin count theirs from the padding token's on."""
    import torch

    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            used = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - used
    return None


def _head_in_float32(model: PreTrainedModel) -> None:
    """Let the last layer of a 16-bit model run in float32: rounded to 8 bits, many rewards would be the same number."""
    import torch

    layers = [
        m for m in model.modules() if isinstance(m, torch.nn.Linear) and m.out_features == model.config.num_labels
    ]
    if layers and layers[-1].weight.dtype != torch.float32:
        layers[-1].float().register_forward_pre_hook(lambda _layer, inputs: (inputs[0].float(),))
