"""What can be known of a model without loading it: its files, their sizes, its configuration. Needs no torch.

A folder is looked at, a hub model is asked for at the hub; a machine without a connection falls back on its cache.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.errors import ModelError
from core.models import MODULES_FILE, Located, locate

HUB_SECONDS = 5.0
"""How long one question to the hub may take."""

_LONGEST_TEXT = 32 << 20
_LONGEST_HEADER = 64 << 20
_SENTENCE_CONFIG = "config_sentence_transformers.json"
_TEXTS = ("config.json", "tokenizer_config.json")
_BYTES_OF = {"F64": 8.0, "F32": 4.0, "F16": 2.0, "BF16": 2.0, "F8_E4M3": 1.0, "F8_E5M2": 1.0, "I8": 1.0, "U8": 1.0}
_BYTES_OF_NAME = {"float64": 8.0, "float32": 4.0, "float16": 2.0, "bfloat16": 2.0}
_OWN_FORMS = (".safetensors", ".bin")


@dataclass(frozen=True)
class ModelFiles:
    """The files of one model.

    ``place`` is folder, hub or cache; ``sizes`` are bytes by file name; ``stored_bytes`` are those of one weight as it
    is stored (None where nothing says so). ``config`` and ``tokenizer_config`` are {} where there is no such file.
    Of a sentence-transformers model (``sentence_kind`` says what it calls itself, else None) all this is of its
    transformer, which may lie in a subfolder.
    """

    name: str
    place: str
    revision: str
    sizes: Mapping[str, int]
    config: Mapping[str, Any] = field(default_factory=dict)
    tokenizer_config: Mapping[str, Any] = field(default_factory=dict)
    stored_bytes: float | None = None
    sentence_kind: str | None = None

    @property
    def weight_bytes(self) -> int | None:
        """Bytes of the weights, each counted once where they lie in two forms; None where there are none."""
        for ending in _OWN_FORMS:
            found = [size for name, size in self.sizes.items() if _is_weight(name, ending)]
            if found:
                return sum(found)
        return None

    @property
    def architectures(self) -> tuple[str, ...]:
        """The classes that the model was saved from."""
        found = self.config.get("architectures")
        return tuple(str(name) for name in found) if isinstance(found, list) else ()

    def number(self, *names: str) -> int | None:
        """The first of these numbers that the configuration, or the part of it that is about text, gives."""
        parts = [self.config, *(p for p in (self.config.get("text_config"),) if isinstance(p, Mapping))]
        found = (part.get(name) for name in names for part in parts)
        return next((n for n in found if isinstance(n, int) and not isinstance(n, bool) and n > 0), None)


def _is_weight(name: str, ending: str) -> bool:
    # At the top of a model only: subfolders hold other forms of it (onnx, original checkpoints).
    if "/" in name or not name.endswith(ending):
        return False
    return name.startswith(("model", "pytorch_model")) or (ending == ".safetensors" and not name.startswith("adapter"))


def find_files(model: str, revision: str | None = None) -> ModelFiles:
    """Find a model and look at its files.

    Raises:
        ModelError: there is no such model, the hub cannot be reached and the cache has nothing, or config.json is not
            there or cannot be read.
    """
    located = locate(model, revision)
    if located.is_folder:
        place = "folder" if Path(model).expanduser().is_dir() else "cache"
        return _of_folder(Path(located.source), located, place=place)
    return _of_hub(located)


def _mapping(text: str | bytes, *, name: str, model: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ModelError(f"The {name} of {model} is damaged: it is not JSON.") from error
    return found if isinstance(found, dict) else {}


def _of_folder(folder: Path, located: Located, *, place: str) -> ModelFiles:
    def text(path: Path) -> str | None:
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None

    try:
        modules = text(folder / MODULES_FILE)
        own = folder / _transformer_path(modules)
        sizes = {path.name: path.stat().st_size for path in own.iterdir() if path.is_file()}
        texts = {name: text(own / name) for name in _TEXTS}
        declared = text(folder / _SENTENCE_CONFIG)
    except OSError as error:
        raise ModelError(f"The model folder {folder} cannot be read: {error.strerror or error}.") from error
    weights = sorted(name for name in sizes if _is_weight(name, ".safetensors"))
    stored = _stored_bytes(own / weights[0]) if weights else None
    return _made(located, place, sizes, texts, modules, declared, stored)


def _transformer_path(modules: str | None) -> str:
    """Where a sentence-transformers model has its transformer, relative to its folder."""
    try:
        found = json.loads(modules or "[]")
        path = str(found[0].get("path", "")) if found else ""
    except (ValueError, AttributeError, KeyError, TypeError):
        return ""  # the load says what is wrong with it
    return "" if path.startswith("/") or ".." in path else path


def _made(
    located: Located,
    place: str,
    sizes: Mapping[str, int],
    texts: Mapping[str, str | None],
    modules: str | None,
    declared: str | None,
    stored_bytes: float | None,
) -> ModelFiles:
    config = _mapping(texts["config.json"] or "{}", name="config.json", model=located.name)
    tokenizer = _mapping(texts["tokenizer_config.json"] or "{}", name="tokenizer_config.json", model=located.name)
    kind = None
    if modules is not None or declared is not None:
        named = _mapping(declared or "{}", name=_SENTENCE_CONFIG, model=located.name).get("model_type")
        # A plain encoder can carry the file too; it is modules.json that makes it a sentence-transformers model.
        kind = str(named or "SentenceTransformer") if modules is not None or named else None
    return ModelFiles(
        located.name, place, located.revision, sizes, config, tokenizer, stored_bytes or _stored_by(config), kind
    )


def _stored_bytes(path: Path) -> float | None:
    """Bytes of a weight in a safetensors file, from its header: those of the type that most bytes are of."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(length, _LONGEST_HEADER)))
    except (OSError, ValueError, struct.error):
        return None  # the load says what is wrong with it
    taken: dict[str, int] = {}
    for name, tensor in header.items() if isinstance(header, dict) else ():
        offsets = tensor.get("data_offsets") if name != "__metadata__" and isinstance(tensor, dict) else None
        if isinstance(offsets, list) and len(offsets) == 2:
            kind = str(tensor.get("dtype"))
            taken[kind] = taken.get(kind, 0) + int(offsets[1]) - int(offsets[0])
    return _BYTES_OF.get(max(taken, key=lambda kind: taken[kind])) if taken else None


def _stored_by(config: Mapping[str, Any]) -> float | None:
    named = config.get("dtype") or config.get("torch_dtype")
    return _BYTES_OF_NAME.get(named) if isinstance(named, str) else None


def _of_hub(located: Located) -> ModelFiles:
    from huggingface_hub import HfApi, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled
    from huggingface_hub.utils import build_hf_headers, get_session

    # Not by hf_hub_download: a config.json alone in the cache would make the model look downloaded.
    def text(name: str) -> str | None:
        if not 0 < sizes.get(name, 0) <= _LONGEST_TEXT:
            return None
        answer = get_session().get(
            hf_hub_url(located.source, name, revision=located.revision),
            headers=build_hf_headers(),
            timeout=HUB_SECONDS,
            follow_redirects=True,
        )
        answer.raise_for_status()
        return answer.content.decode("utf-8", errors="replace")

    try:
        info = HfApi().model_info(located.source, revision=located.revision, timeout=HUB_SECONDS, files_metadata=True)
        sizes = {one.rfilename: int(one.size or 0) for one in info.siblings or ()}
        modules = text(MODULES_FILE)
        path = _transformer_path(modules)
        start = f"{path}/" if path else ""
        texts = {name: text(start + name) for name in _TEXTS}
        declared = text(_SENTENCE_CONFIG)
    except (HfHubHTTPError, HTTPError, OfflineModeIsEnabled, OSError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"The hub knows {located.name}, but its files cannot be looked at ({first}).") from error
    if texts["config.json"] is None:
        raise ModelError(f"{located.name} has no config.json on the Hugging Face hub, so it is no model for here.")
    own = {name.removeprefix(start): size for name, size in sizes.items() if name.startswith(start)}
    stored = info.safetensors.parameters if info.safetensors else None
    stored_bytes = _BYTES_OF.get(max(stored, key=lambda kind: stored[kind])) if stored else None
    return _made(located, "hub", own, texts, modules, declared, stored_bytes)
