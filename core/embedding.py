"""Sentence embeddings of examples, by any sentence-transformers model; never with code of the model's own.

What a vector is follows from the modules of the model (``modules.json``: transformer, pooling, normalisation) and the
prompt that it was saved with, as in ``SentenceTransformer.encode``; nothing is normalised here. A plain encoder without
``modules.json`` gets what sentence-transformers gives it, the mean of its token vectors, and a warning in the log says
so; a model that was saved with the head of another task is refused.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core.batches import Batcher, Progress, is_out_of_memory
from core.errors import ModelError
from core.fast_linear import use_onednn
from core.models import DTYPES, MODULES_FILE, Located, locate, max_positions, quiet_transformers, torch_device

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from core.example import Example

EMBEDDING_VERSION = "1"
"""Changes whenever a vector may come out differently."""

_EMPTY = "The row is empty: instruction, input and output are blank."
_NO_TOKEN = "The embedder's tokenizer finds no token in the text of this row."
_NO_MEMORY = "The embedder ran out of memory on this text alone."
_NOT_FINITE = "The embedder's vector is not finite; try dtype float32 or bfloat16."

_ENCODERS = ("Model", "ForMaskedLM", "ForPreTraining")
_SENTENCE_CONFIG = "config_sentence_transformers.json"

log = logging.getLogger("core.embedding")


@dataclass(frozen=True)
class EmbedderSettings:
    """An embedder: which model, and how it is run.

    ``model`` is a hub id or a local folder; ``revision`` a commit, or the digest that a folder must have;
    ``max_length`` the longest text in tokens, special ones counted (None: the model's own); ``batch_tokens`` the budget
    of one batch in padded tokens, of which a CPU uses no more than ``CPU_BATCH_TOKENS``.
    """

    model: str = "sentence-transformers/all-MiniLM-L6-v2"
    revision: str | None = None
    dtype: str = "float32"
    max_length: int | None = None
    batch_tokens: int = 8192
    device: str = "cpu"


@dataclass(frozen=True)
class Embedded:
    """Vectors float32 [n, d] of n examples; a row of NaN where ``reasons`` says why there is none.

    ``transient`` marks those that another try may give (out of memory).
    """

    vectors: np.ndarray
    reasons: list[str | None]
    transient: list[bool]


def text_of(example: Example) -> str:
    """What is embedded: instruction, input and output, those that are not blank, each from a line of its own."""
    return "\n".join(part for part in (example.instruction, example.input, example.output) if part.strip())


class Embedder:
    """A loaded embedding model. Make one with :meth:`load`."""

    def __init__(self, settings: EmbedderSettings, model: SentenceTransformer, max_length: int | None) -> None:

        self.settings = settings
        self._model = model
        self._max_length = max_length
        self._prompt = str(model.prompts.get(model.default_prompt_name) or "") if model.default_prompt_name else ""
        self._tokenizing = threading.Lock()
        self._device = torch_device(settings.device)
        if self._device.type == "cpu":
            use_onednn(model)
        self._batcher = Batcher.on(self._device, budget=settings.batch_tokens, gpu_workers=1, what="The embedder")
        self.n_dimensions = len(self._tried())

    @classmethod
    def load(cls, settings: EmbedderSettings) -> Embedder:
        """Find and load the model, and try it on one sentence.

        Raises:
            ModelError: the model cannot be found, loaded or used as these settings say.
        """
        if settings.dtype not in DTYPES:
            raise ModelError(f"There is no dtype {settings.dtype!r}; choose from {', '.join(DTYPES)}.")
        if settings.batch_tokens < 1 or (settings.max_length is not None and settings.max_length < 1):
            raise ModelError("max_length and batch_tokens must be 1 or more.")
        torch_device(settings.device)
        located = locate(settings.model, settings.revision)
        _check_kind(located)
        model = _load(located, dtype=settings.dtype, device=settings.device)
        _check_weights(located, model)
        settings = replace(settings, revision=located.revision)
        return cls(settings, model, _limit_length(model, settings))

    def embed(self, examples: Sequence[Example], on_progress: Progress | None = None) -> Embedded:
        """Return the vector of every example: of its :func:`text_of`, cut at the longest text of the model.

        Examples of the same text are embedded once. All texts of the call are sorted together, so give some hundreds at
        a time. ``on_progress`` is called with the tokens done and the tokens in all. When memory runs out the batches
        become smaller, for this embedder from then on.

        Deviation: [IM] does not say how its parts are joined; METHOD.md, section 3, joins x, c and y, here by a line
        feed.

        Raises:
            ModelError: the model fails on a text for another reason than memory.
        """
        texts = [text_of(example) for example in examples]
        distinct = list(dict.fromkeys(text for text in texts if text))
        n_tokens, n_special = self._count(distinct)
        run = [i for i, n in enumerate(n_tokens) if n > n_special]
        found = self._run([distinct[i] for i in run], [n_tokens[i] for i in run], on_progress)
        told: dict[str, np.ndarray | str] = {"": _EMPTY, **dict.fromkeys(distinct, _NO_TOKEN)}
        told.update((distinct[i], _NO_MEMORY if one is None else one) for i, one in zip(run, found, strict=True))
        vectors = np.full((len(texts), self.n_dimensions), np.nan, dtype=np.float32)
        reasons: list[str | None] = [None] * len(texts)
        for row, text in enumerate(texts):
            one = told[text]
            if isinstance(one, str):
                reasons[row] = one
            elif np.isfinite(one).all():
                vectors[row] = one
            else:
                reasons[row] = _NOT_FINITE
        return Embedded(vectors, reasons, [reason == _NO_MEMORY for reason in reasons])

    def _count(self, texts: list[str]) -> tuple[list[int], int]:
        """Tokens of every text as it will be run, and how many of them every text has (special ones, the prompt)."""
        from tokenizers import Tokenizer
        from transformers import PreTrainedTokenizerBase

        tokenizer: Any = getattr(self._model, "tokenizer", None)
        asked = [self._prompt, *(self._prompt + text for text in texts)]
        if isinstance(tokenizer, PreTrainedTokenizerBase):
            options: dict[str, Any] = {"truncation": True, "max_length": self._max_length} if self._max_length else {}
            counts = [len(ids) for ids in tokenizer(asked, **options)["input_ids"]]
        elif isinstance(tokenizer, Tokenizer):
            counts = [len(encoding.ids) for encoding in tokenizer.encode_batch(asked, add_special_tokens=False)]
        else:  # word lists and the like: only the size of a batch follows from it
            counts = [0, *(1 + len(text) // 4 for text in asked[1:])]
        return counts[1:], counts[0]

    def _run(self, texts: list[str], n_tokens: list[int], on_progress: Progress | None) -> list[np.ndarray | None]:
        """The vector of every text; None where memory ran out."""

        def run_batch(batch: list[int]) -> Sequence[np.ndarray]:
            try:
                return list(self._vectors([texts[i] for i in batch]))
            except (RuntimeError, ValueError, IndexError, KeyError, TypeError) as error:
                if is_out_of_memory(error):
                    raise
                raise ModelError(f"The embedder {self.settings.model} failed: {error}") from error

        return self._batcher.run(n_tokens, run_batch, on_progress=on_progress)

    def _vectors(self, texts: list[str]) -> np.ndarray:
        """Vectors float32 [n, d] of one batch, as ``SentenceTransformer.encode`` makes them."""
        from sentence_transformers.util import batch_to_device

        with self._tokenizing:  # a fast tokenizer refuses to be used by two threads while its padding is set
            features = self._model.preprocess(texts, prompt=self._prompt or None)
        found = self._model(batch_to_device(features, self._device))["sentence_embedding"]
        vectors: np.ndarray = found.float().cpu().numpy()
        return vectors

    def _tried(self) -> np.ndarray:
        """The vector of a sentence, which shows that tokenizer and weights belong together."""
        text = "The quick brown fox 123"
        n_tokens, n_special = self._count([text])
        unknown = getattr(self._model.tokenizer, "unk_token_id", None)
        ids = self._model.tokenizer(text, add_special_tokens=False)["input_ids"] if unknown is not None else []
        if n_tokens[0] <= n_special or set(ids) == {unknown}:
            raise ModelError(
                f"The tokenizer of {self.settings.model} finds no token in an English sentence: its vocabulary seems "
                "to be missing, or its prompt fills max_length."
            )
        vector = self._run([text], n_tokens, None)[0]
        if vector is None:
            raise ModelError(f"The memory of {self.settings.device} is not enough to run {self.settings.model}.")
        if vector.ndim != 1 or not np.isfinite(vector).all():
            raise ModelError(f"{self.settings.model} gives no vector of finite numbers for an English sentence.")
        return vector


def _json_of(located: Located, name: str) -> Any:
    """A JSON file of the model, None if it has none.

    Raises:
        ModelError: the file cannot be had or read.
    """
    import json

    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HTTPError, LocalEntryNotFoundError

    path = Path(located.source) / name
    try:
        if not located.is_folder:
            path = Path(hf_hub_download(located.source, name, revision=located.revision))
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except LocalEntryNotFoundError as error:
        raise ModelError(f"The files of {located.name} cannot be had from the Hugging Face hub: {error}") from error
    except EntryNotFoundError:
        return None
    except (HfHubHTTPError, HTTPError, OSError, ValueError) as error:
        raise ModelError(f"The file {name} of {located.name} cannot be read: {error}") from error


def _check_kind(located: Located) -> None:
    """Refuse what is no embedding model, although sentence-transformers would make one of it.

    Raises:
        ModelError: it is a cross-encoder, a sparse encoder, or was saved with the head of another task.
    """
    declared = _json_of(located, _SENTENCE_CONFIG)
    kind = declared.get("model_type", "SentenceTransformer") if isinstance(declared, dict) else "SentenceTransformer"
    if kind != "SentenceTransformer":
        raise ModelError(
            f"{located.name} is a {kind}, which gives no sentence embedding; choose a SentenceTransformer."
        )
    if _json_of(located, MODULES_FILE) is not None:
        return
    config = _json_of(located, "config.json")
    saved_as = str((config.get("architectures") or [""])[0]) if isinstance(config, dict) else ""
    if saved_as and (saved_as.endswith("LMHeadModel") or not saved_as.endswith(_ENCODERS)):
        raise ModelError(
            f"{located.name} is no sentence-transformers model: it has no modules.json, and was saved as {saved_as}. "
            "Choose a sentence-transformers model, or a plain encoder."
        )
    log.warning("%s has no modules.json; its embedding is the mean of its token vectors.", located.name)


def _load(located: Located, *, dtype: str, device: str) -> SentenceTransformer:
    import torch
    from safetensors import SafetensorError
    from sentence_transformers import SentenceTransformer

    quiet_transformers()
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
    try:
        model = SentenceTransformer(
            located.source,
            device=device,
            revision=None if located.is_folder else located.revision,
            local_files_only=located.is_folder,
            trust_remote_code=False,
            model_kwargs={"dtype": getattr(torch, dtype)},
        )
    except torch.OutOfMemoryError as error:
        raise ModelError(f"{located.name} does not fit into the memory of {device}: {error}") from error
    except (
        OSError,
        ValueError,
        RuntimeError,
        KeyError,
        TypeError,
        AttributeError,
        ImportError,
        SafetensorError,
    ) as error:
        raise ModelError(f"{located.name} cannot be loaded as a sentence-transformers model: {error}") from error
    return model.eval()


def _check_weights(located: Located, model: SentenceTransformer) -> None:
    """Refuse a transformer of which weights are missing: transformers fills them with random numbers.

    Only names and shapes are read. A pooler may be missing: sentence-transformers pools the token vectors itself.

    Raises:
        ModelError: weights are missing or have another shape.
    """
    from safetensors import SafetensorError
    from sentence_transformers.sentence_transformer.modules import Transformer
    from transformers import PreTrainedModel

    modules = _json_of(located, MODULES_FILE)
    first = model[0]
    if not isinstance(first, Transformer) or not isinstance(first.model, PreTrainedModel):
        return
    folder = str(modules[0].get("path", "")) if modules else ""
    try:
        _, info = type(first.model).from_pretrained(
            located.source,
            subfolder=folder,
            config=first.model.config,
            device_map="meta",
            output_loading_info=True,
            **located.options,
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError, SafetensorError) as error:
        raise ModelError(f"The weights of {located.name} cannot be read: {error}") from error
    lacking = sorted([*info["missing_keys"], *(str(key) for key in info["mismatched_keys"])])
    lacking = [key for key in lacking if "pooler." not in key]
    if lacking:
        raise ModelError(
            f"The weights of {located.name} are incomplete: {len(lacking)} are missing or of another shape, such as "
            f"{lacking[0]}."
        )


def _limit_length(model: SentenceTransformer, settings: EmbedderSettings) -> int | None:
    """Settle the longest text in tokens, and tell the model; None where it has no limit.

    Raises:
        ModelError: ``max_length`` is more than the model has positions for, or it has none at all.
    """
    from sentence_transformers.sentence_transformer.modules import Transformer

    if not isinstance(model[0], Transformer):
        if settings.max_length is not None:
            raise ModelError(f"{settings.model} reads texts of any length; leave max_length empty.")
        return None
    positions = _usable_positions(model[0].model)
    if settings.max_length is not None and positions is not None and settings.max_length > positions:
        raise ModelError(
            f"max_length is {settings.max_length}, but {settings.model} has {positions} positions; choose that or less."
        )
    own = model.max_seq_length
    limits = [settings.max_length or own, positions]
    limit = min((int(n) for n in limits if n is not None and n < 1 << 24), default=None)
    if limit is not None:
        special = model.tokenizer.num_special_tokens_to_add()
        if limit <= special:
            raise ModelError(f"max_length is {limit}, but {settings.model} adds {special} tokens; choose more.")
        model.max_seq_length = limit
    return limit


def _usable_positions(transformer: Any) -> int | None:
    """Positions for tokens; those of the RoBERTa family begin after the padding token's."""
    positions = max_positions(transformer.config)
    for module in transformer.modules():
        padding = getattr(getattr(module, "position_embeddings", None), "padding_idx", None)
        if positions is not None and isinstance(padding, int):
            return positions - padding - 1
    return positions
