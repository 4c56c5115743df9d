"""Finding and loading a model by hub id or local folder, never with code of its own; for every role.

Every failure is a ``ModelError`` in plain words. Nothing here imports torch or transformers before it is called.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import ModelError

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

MODULES_FILE = "modules.json"
"""Names the modules of a sentence-transformers folder: what follows on the transformer, such as pooling."""

DTYPES = ("float32", "bfloat16", "float16")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB_SECONDS = 10.0
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".model", ".tiktoken")
_TEXTS = (".json", ".txt", ".jinja")
_TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "tekken.json", "*.model", "*.tiktoken", "*.vocab")
_WHOLE_BYTES = 1 << 20
_BLOCK_BYTES = 1 << 16
_BLOCKS = 16
_POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx", "max_sequence_length")

_digests: dict[tuple[tuple[str, int, int], ...], str] = {}


@dataclass(frozen=True)
class Located:
    """Where a model lies: ``source`` is a folder, or a hub id that is read at the commit ``revision``."""

    name: str
    source: str
    revision: str
    is_folder: bool

    @property
    def options(self) -> dict[str, object]:
        """Keyword arguments for ``from_pretrained``."""
        common: dict[str, object] = {"trust_remote_code": False}
        return common if self.is_folder else {**common, "revision": self.revision}


def _digested_files(folder: Path) -> list[Path]:
    """Files that decide what the model says: weights, configuration, tokenizer. No README, no training state."""
    names = [path for path in folder.iterdir() if path.is_file() and path.suffix in (*_WEIGHTS, *_TEXTS)]
    kept = [path for path in names if path.suffix in (*_WEIGHTS, ".jinja") or _is_model_text(path.name)]
    if (folder / MODULES_FILE).is_file():  # sentence-transformers: pooling and the like decide the vector too
        kept = [*kept, *(path for path in names if path.suffix == ".json" and path not in kept)]
        kept += [path for path in _module_files(folder) if path.suffix in (*_WEIGHTS, *_TEXTS)]
    return sorted(kept, key=lambda path: path.relative_to(folder).as_posix())


def _module_files(folder: Path) -> Iterator[Path]:
    """Files in the subfolders of a sentence-transformers folder; not exports to other engines, not training state."""
    for path in folder.rglob("*"):
        parents = path.relative_to(folder).parts[:-1]
        if parents and not parents[0].startswith((".", "checkpoint", "onnx", "openvino")) and path.is_file():
            yield path


def _is_model_text(name: str) -> bool:
    return name in ("config.json", "vocab.json", "vocab.txt", "merges.txt", "tekken.json") or name.startswith(
        ("tokenizer", "special_tokens", "added_tokens", "chat_template", "model.safetensors.index", "pytorch_model")
    )


def _pieces(path: Path, size: int) -> Iterator[bytes]:
    """All of a small file; of a big one 16 blocks of 64 KiB, spread evenly with one at either end."""
    with path.open("rb") as file:
        if size <= _WHOLE_BYTES * 16:
            while piece := file.read(_WHOLE_BYTES):
                yield piece
            return
        for block in range(_BLOCKS):
            file.seek((size - _BLOCK_BYTES) * block // (_BLOCKS - 1))
            yield file.read(_BLOCK_BYTES)


def folder_digest(folder: Path) -> str:
    """Return ``local-`` and 32 hex digits that follow from the model in a folder.

    SHA-256 over name, size and content of configuration, tokenizer and weight files; of a sentence-transformers folder
    also those in its subfolders. Of a file over 16 MiB only 16 blocks are read (both ends among them): training again
    changes all of the weights, so that a changed model is seen without reading tens of gigabytes; a patch of a few
    bytes elsewhere is not. Cached by path, size and time of change.

    Raises:
        ModelError: the folder holds no config.json or cannot be read.
    """
    if not any((folder / name).is_file() for name in ("config.json", MODULES_FILE)):
        raise ModelError(f"The folder {folder} is not a model: it has no config.json.")
    try:
        files = [(path, path.stat()) for path in _digested_files(folder)]
        key = tuple((str(path.resolve()), stat.st_size, stat.st_mtime_ns) for path, stat in files)
        if key not in _digests:
            digest = hashlib.sha256()
            for path, stat in files:
                name = path.relative_to(folder).as_posix()
                digest.update(f"{name}\0{stat.st_size}\0".encode())
                for piece in _pieces(path, stat.st_size):
                    digest.update(piece)
            _digests[key] = f"local-{digest.hexdigest()[:32]}"
        return _digests[key]
    except OSError as error:
        raise ModelError(f"The model folder {folder} cannot be read: {error}") from error


def _cached_snapshot(model: str, revision: str) -> tuple[str, Path] | None:
    """Commit and folder of a hub model that an earlier download left on this machine."""
    from huggingface_hub.constants import HF_HUB_CACHE

    home = Path(HF_HUB_CACHE) / ("models--" + model.replace("/", "--"))
    reference = home / "refs" / revision
    commit = reference.read_text().strip() if reference.is_file() else revision
    snapshot = home / "snapshots" / commit
    known = any((snapshot / name).exists() for name in ("config.json", MODULES_FILE))
    return (commit, snapshot) if known else None


def _hub_commit(model: str, revision: str | None) -> str:
    """Ask the hub which commit a revision is."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        HTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        commit = HfApi().model_info(model, revision=revision, timeout=_HUB_SECONDS).sha
    except GatedRepoError as error:
        raise ModelError(
            f"{model} is gated on the Hugging Face hub: accept its terms there and set HF_TOKEN."
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(f"{model} has no revision {revision!r} on the Hugging Face hub.") from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"There is no model {model!r} on the Hugging Face hub (or it is private: set HF_TOKEN), "
            "and no local folder of that name."
        ) from error
    except HFValidationError as error:
        raise ModelError(f"{model!r} is neither a local folder nor a name on the Hugging Face hub: {error}") from error
    except (HfHubHTTPError, HTTPError, OfflineModeIsEnabled, OSError) as error:
        raise ModelError(
            f"{model!r} is no local folder, it is not in the cache of this machine, and the Hugging Face hub cannot be "
            f"reached ({_first_line(error)}). Give the path of a downloaded model, or try again with a connection."
        ) from error
    if not commit:
        raise ModelError(f"The Hugging Face hub names no commit for {model!r}.")
    return str(commit)


def locate(model: str, revision: str | None = None) -> Located:
    """Find a model: a local folder, else a hub id (asked at the hub, or out of the cache of this machine).

    ``revision`` of a hub model is a branch, tag or commit; of a folder it is the digest that it must still have.

    Raises:
        ModelError: it is none of them, the hub cannot be reached, or the folder has changed.
    """
    name = model.strip()
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        digest = folder_digest(folder)
        if revision is not None and revision != digest:
            raise ModelError(f"The model in {folder} is another one than before (it was {revision}, it is {digest}).")
        return Located(name, str(folder), digest, is_folder=True)
    if name and folder.is_file():
        raise ModelError(f"{folder} is a file; give the folder that holds config.json and the weights.")
    if not _HUB_ID.fullmatch(name) or name.startswith("."):
        raise ModelError(f"The model path {name!r} does not exist on this machine.")
    if revision is not None and _COMMIT.fullmatch(revision):
        cached = _cached_snapshot(name, revision)
        if cached is not None:  # a commit never changes: no need to ask
            return Located(name, str(cached[1]), revision, is_folder=True)
    try:
        return Located(name, name, _hub_commit(name, revision), is_folder=False)
    except ModelError:
        cached = _cached_snapshot(name, revision or "main")
        if cached is None:
            raise
        return Located(name, str(cached[1]), cached[0], is_folder=True)


def resolve_revision(model: str, revision: str | None = None) -> str:
    """Return what identifies the weights: a commit of the hub, or the digest of a folder. Needs no torch.

    Raises:
        ModelError: see :func:`locate`.
    """
    return locate(model, revision).revision


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def quiet_transformers() -> None:
    """No progress bars and no warnings on the worker's log; errors are raised anyway."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def read_config(located: Located) -> PretrainedConfig:
    """Read the configuration, of whatever kind of model.

    Raises:
        ModelError: it cannot be read, or transformers does not know this type of model.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(located.source, **located.options)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"The configuration of {located.name} cannot be read: {_first_line(error)}") from error


def read_architecture(located: Located) -> str:
    """Return the class that the model was saved as, "" if its configuration does not say; no type need be known.

    Raises:
        ModelError: the configuration cannot be read.
    """
    from transformers import PretrainedConfig

    try:
        raw, _ = PretrainedConfig.get_config_dict(located.source, **located.options)
        return str((raw.get("architectures") or [""])[0])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"The configuration of {located.name} cannot be read: {_first_line(error)}") from error


def load_config(located: Located) -> PretrainedConfig:
    """Read the configuration and make sure that it is of a causal language model.

    Raises:
        ModelError: it cannot be read, or is of another kind of model.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    config = read_config(located)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ModelError(
            f"{located.name} is not a causal language model (its type is {config.model_type!r}); a student must be one."
        )
    saved_as = (config.architectures or [""])[0]
    generators = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
    if saved_as and saved_as not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values() and not saved_as.endswith(generators):
        # A classifier or a bare encoder of a causal family would load, with a head that was never trained.
        raise ModelError(f"{located.name} was saved as {saved_as}, which is not a causal language model.")
    return config


def load_tokenizer(located: Located) -> PreTrainedTokenizerBase:
    """Load the tokenizer and try it.

    Raises:
        ModelError: it is missing, or cannot encode English.
    """
    from transformers import AutoTokenizer

    quiet_transformers()
    folder = Path(located.source)
    if located.is_folder and not any(any(folder.glob(pattern)) for pattern in _TOKENIZER_FILES):
        raise ModelError(
            f"The folder {located.source} has no tokenizer (no tokenizer.json, *.model or vocabulary file)."
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(located.source, **located.options)
        ids = tokenizer("The quick brown fox", add_special_tokens=False)["input_ids"]
    except (OSError, ValueError, KeyError, TypeError, ImportError, AttributeError) as error:
        raise ModelError(f"The tokenizer of {located.name} cannot be loaded: {_first_line(error)}") from error
    if not ids or set(ids) == {tokenizer.unk_token_id}:
        raise ModelError(
            f"The tokenizer of {located.name} knows no word of English: its vocabulary seems to be missing."
        )
    return tokenizer


def torch_device(device: str) -> torch.device:
    """Return the device, or raise.

    Raises:
        ModelError: it is not cpu, cuda or cuda:N, or this machine lacks it.
    """
    import torch

    if device == "cpu":
        return torch.device("cpu")
    if not re.fullmatch(r"cuda(:\d+)?", device):
        raise ModelError(f"There is no device {device!r}; choose cpu, cuda or cuda:N.")
    if not torch.cuda.is_available():
        raise ModelError("The device cuda was asked for, but this machine shows no CUDA GPU; choose cpu.")
    chosen = torch.device(device)
    if chosen.index is not None and chosen.index >= torch.cuda.device_count():
        raise ModelError(f"There is no GPU {device}; this machine shows {torch.cuda.device_count()}.")
    return chosen


def max_positions(config: PretrainedConfig) -> int | None:
    """The number of positions that the model was made for, if its configuration says so."""
    text = config.get_text_config()
    found = [getattr(text, name, None) for name in _POSITIONS]
    return next((int(n) for n in found if isinstance(n, int) and n > 0), None)


def rotary_boundary(config: PretrainedConfig) -> int | None:
    """Above this length LongRoPE embeds every position of a batch in another way; None for other models."""
    rope = getattr(config.get_text_config(), "rope_parameters", None) or {}
    original = rope.get("original_max_position_embeddings") if rope.get("rope_type") == "longrope" else None
    return int(original) if original else None


def load_weights(
    located: Located,
    config: PretrainedConfig,
    *,
    dtype: str,
    device: str,
    loader: str = "AutoModelForCausalLM",
    kind: str = "a causal language model",
) -> PreTrainedModel:
    """Load the weights in ``dtype`` onto ``device``, ready to run.

    ``loader`` is the class of transformers that loads them, ``kind`` what a person would call such a model.

    Raises:
        ModelError: dtype or device is unknown, weights are missing, incomplete, damaged, or do not fit.
    """
    import torch
    import transformers
    from safetensors import SafetensorError

    if dtype not in DTYPES:
        raise ModelError(f"There is no dtype {dtype!r}; choose from {', '.join(DTYPES)}.")
    place = torch_device(device)
    quiet_transformers()
    try:
        model, info = getattr(transformers, loader).from_pretrained(
            located.source, config=config, dtype=getattr(torch, dtype), output_loading_info=True, **located.options
        )
        model = model.to(place)
    except torch.OutOfMemoryError as error:
        raise ModelError(f"{located.name} does not fit into the memory of {device}: {_first_line(error)}") from error
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, AssertionError, SafetensorError) as error:
        raise ModelError(f"The weights of {located.name} cannot be loaded: {_first_line(error)}") from error
    lacking = sorted([*info["missing_keys"], *(str(key) for key in info["mismatched_keys"])])
    if lacking:  # transformers fills them with random numbers, and every loss would be noise
        raise ModelError(
            f"The weights of {located.name} are not those of {kind}: "
            f"{len(lacking)} are missing or of another shape, such as {lacking[0]}."
        )
    return model.eval()
