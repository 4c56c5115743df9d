"""Is this model fit for its role? Answered from its files alone, before a job is submitted; nothing is loaded.

Every answer is a :class:`Point`: yes, no, or not to be told, in words that a person can act on.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from core.errors import ModelError
from core.finetune.settings import FinetuneSettings
from core.indicators import Role
from core.jobs.devices import ask_nvidia_smi, find_gpus
from core.model_files import ModelFiles, find_files

ROLE_NAMES: Mapping[Role, str] = {
    "student": "student",
    "reward": "reward model",
    "unieval": "UniEval model",
    "embedder": "embedder",
}
DTYPE_BYTES: Mapping[str, float] = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}
PRECISION_BYTES: Mapping[str, float] = {"int8": 1.0, "nf4": 0.5, "bf16": 2.0, "fp32": 4.0}

_POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx", "max_sequence_length")
_T5 = ("t5", "mt5", "umt5")
_TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "tekken.json")
_TOKENIZER_ENDINGS = (".model", ".tiktoken", ".vocab")
_TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json")
_CAUSAL = ("ForCausalLM", "LMHeadModel")
_ENCODERS = ("Model", "ForMaskedLM", "ForPreTraining")
# A process with torch and transformers in it, before any weight (measured: 0.45 GB on CPU), and CUDA's own context.
_PROCESS_BYTES = {"cpu": 0.5e9, "cuda": 0.6e9}
# Activations of one token at the widest place of a layer, in hidden sizes: attention, MLP and what torch keeps of both.
_WIDTHS_PER_TOKEN = 16
_USUAL_HIDDEN = 4096
_USUAL_LAYERS = 32
_CPU_BATCH_TOKENS = 2048
_NVIDIA_SMI_SECONDS = 10.0
_LITTLE = 0.5


class RoleSettings(Protocol):
    """What the settings of every role have."""

    @property
    def model(self) -> str: ...
    @property
    def revision(self) -> str | None: ...
    @property
    def dtype(self) -> str: ...
    @property
    def max_length(self) -> int | None: ...
    @property
    def batch_tokens(self) -> int: ...
    @property
    def device(self) -> str: ...


@dataclass(frozen=True)
class Point:
    """One thing that was looked at. ``ok`` is None where it cannot be told; that stops nobody."""

    ok: bool | None
    says: str


@dataclass(frozen=True)
class ModelCheck:
    """What was found of the model of one role. ``need_bytes`` is its memory, weights alone in ``weight_bytes``."""

    role: Role
    points: tuple[Point, ...]
    revision: str | None = None
    weight_bytes: float | None = None
    need_bytes: float | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing stands against it."""
        return all(point.ok is not False for point in self.points)

    @property
    def problems(self) -> tuple[str, ...]:
        """What stands against it, as sentences."""
        return tuple(point.says for point in self.points if point.ok is False)


@dataclass(frozen=True)
class Memory:
    """Free memory of ``place``, in bytes."""

    place: str
    free_bytes: float


def gigabytes(n_bytes: float) -> str:
    """Bytes for people: 24 MB, 1.3 GB, 140 GB (powers of ten)."""
    if n_bytes < 1e9:
        return f"{max(1, round(n_bytes / 1e6)):,} MB"
    return f"{n_bytes / 1e9:,.1f} GB" if n_bytes < 100e9 else f"{n_bytes / 1e9:,.0f} GB"


# --- memory ---


def _limit_of_group() -> float | None:
    """What the control group of this process may still take, where it has a limit (a container)."""
    group = Path("/sys/fs/cgroup")
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            return float((group / limit).read_text()) - float((group / used).read_text())
        except (OSError, ValueError):  # not there, or "max": no limit
            continue
    return None


def free_memory(device: str) -> Memory | None:
    """Free memory where a job of this device would run; None where it cannot be asked.

    Of several GPUs the one with the most free memory counts: the scheduler gives a job one of them.
    """
    if device.split(":")[0] != "cuda":
        import psutil

        free = float(psutil.virtual_memory().available)
        limit = _limit_of_group()
        return Memory("this machine", free if limit is None else min(free, max(0.0, limit)))
    query = ("--query-gpu=index,memory.free", "--format=csv,noheader,nounits")
    listing = ask_nvidia_smi(*query, seconds=_NVIDIA_SMI_SECONDS)
    return None if listing is None else gpu_memory(listing, allowed=find_gpus(os.environ))


def gpu_memory(listing: str, *, allowed: Sequence[str]) -> Memory | None:
    """Read ``nvidia-smi --query-gpu=index,memory.free`` (MiB); only the ``allowed`` GPUs count where some are named."""
    free: dict[str, float] = {}
    for line in listing.splitlines():
        index, _, amount = line.partition(",")
        if amount.strip().isdecimal() and (not allowed or index.strip() in allowed):
            free[index.strip()] = float(amount) * 2**20
    if not free:
        return None
    index = max(free, key=lambda i: free[i])
    return Memory(f"cuda:{index}", free[index])


def need(files: ModelFiles, settings: RoleSettings) -> tuple[float | None, float]:
    """Bytes of the weights in the dtype that was asked for (None: unknown), and of the working room beside them.

    Working room: one batch (its tokens, times the width of the model, times ``_WIDTHS_PER_TOKEN`` numbers).
    """
    width = DTYPE_BYTES.get(settings.dtype, 4.0)
    size = files.weight_bytes
    weights = None if size is None else size * width / (files.stored_bytes or width)
    kind = settings.device.split(":")[0]
    tokens = settings.batch_tokens
    if kind == "cpu":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        tokens = min(tokens, _CPU_BATCH_TOKENS) * cores
    tokens = max(tokens, settings.max_length or 0)
    hidden = files.number("hidden_size", "n_embd", "d_model") or _USUAL_HIDDEN
    return weights, tokens * hidden * _WIDTHS_PER_TOKEN * width


def _memory_point(weights: float | None, room: float, *, dtype: str, device: str, memory: Memory | None) -> Point:
    if weights is None:
        return Point(None, "the size of its weights is not known")
    process = _PROCESS_BYTES["cuda" if device.startswith("cuda") else "cpu"]
    total = weights + room + process
    wants = f"{gigabytes(weights)} of weights in {dtype} and {gigabytes(room + process)} to work with"
    if memory is None:
        return Point(None, f"needs {wants}; the free memory of {device} cannot be asked")
    if total <= memory.free_bytes:
        return Point(True, f"fits: {wants}, {gigabytes(memory.free_bytes)} free on {memory.place}")
    smaller = " Choose bfloat16 (half of that)," if dtype == "float32" else " Choose"
    return Point(
        False,
        f"It does not fit into memory: it needs {wants}, {gigabytes(total)} in all, and {gigabytes(memory.free_bytes)} "
        f"are free on {memory.place}.{smaller} a smaller model, or a smaller batch budget.",
    )


def check_together(checks: Sequence[ModelCheck], memory: Memory | None) -> Point | None:
    """Whether the models fit beside each other, as one job holds them; None where that is no question.

    It is none for one model alone, for models that take little of the memory, and where the memory cannot be asked.
    """
    needs = [(check.role, check.need_bytes) for check in checks if check.need_bytes is not None]
    if memory is None or len(needs) < 2:
        return None
    total = sum(size for _, size in needs if size is not None)
    names = ", ".join(f"{ROLE_NAMES[role]} {gigabytes(size)}" for role, size in needs if size is not None)
    if total <= memory.free_bytes * _LITTLE:
        return None
    if total <= memory.free_bytes:
        return Point(True, f"together {gigabytes(total)} ({names}), {gigabytes(memory.free_bytes)} free")
    return Point(
        False,
        f"Each model fits alone, but not all at once: {gigabytes(total)} ({names}), and "
        f"{gigabytes(memory.free_bytes)} are free on {memory.place}. Score in two jobs, or choose smaller ones.",
    )


# --- the right kind of model ---


def _saved_as(files: ModelFiles) -> str:
    return files.architectures[0] if files.architectures else ""


def _kind_of_student(files: ModelFiles) -> Point:
    saved = _saved_as(files)
    kind = str(files.config.get("model_type", "of no type"))
    encoder_decoder = files.config.get("is_encoder_decoder") is True or kind in _T5
    generates = saved.endswith("ForConditionalGeneration") and not encoder_decoder
    if saved.endswith(_CAUSAL) or generates:
        return Point(True, f"causal language model ({kind})")
    if not saved and not encoder_decoder:
        return Point(None, f"its config.json names no architecture (type {kind})")
    return Point(False, f"It is {saved or kind}, which is not a causal language model; a student must be one.")


def _kind_of_reward(files: ModelFiles) -> Point:
    saved = _saved_as(files)
    kind = str(files.config.get("model_type", "of no type"))
    labels = files.config.get("id2label")
    n_labels = files.number("num_labels") or (len(labels) if isinstance(labels, Mapping) and labels else 2)
    if not saved:
        return Point(None, f"its config.json names no architecture (type {kind})")
    if not saved.endswith("ForSequenceClassification"):
        return Point(False, f"It is {saved}, which is not a sequence classifier; a reward model must be one.")
    if n_labels > 2:
        return Point(False, f"It has {n_labels} classes; a reward model has one (a score) or two (bad and good).")
    head = "one score" if n_labels == 1 else "two classes"
    return Point(True, f"sequence classifier ({kind}, {head})")


def _kind_of_unieval(files: ModelFiles) -> Point:
    saved = _saved_as(files)
    kind = str(files.config.get("model_type", "of no type"))
    if kind in _T5 and (not saved or saved.endswith(("ForConditionalGeneration", "T5WithLMHeadModel"))):
        return Point(True, f"T5 with its decoder ({kind})")
    return Point(False, f"It is {saved or kind}; UniEval's questions are put to a T5ForConditionalGeneration.")


def _kind_of_embedder(files: ModelFiles) -> Point:
    saved = _saved_as(files)
    kind = str(files.config.get("model_type", "of no type"))
    if files.sentence_kind not in (None, "SentenceTransformer"):
        return Point(False, f"It is a {files.sentence_kind}, which gives no sentence embedding.")
    if files.sentence_kind is not None:
        return Point(True, f"sentence-transformers model ({kind})")
    if saved and (not saved.endswith(_ENCODERS) or saved.endswith(_CAUSAL)):
        return Point(
            False,
            f"It is {saved} without a modules.json; choose a sentence-transformers model, or a plain encoder.",
        )
    return Point(True, f"encoder ({kind}); without a modules.json the mean of its token vectors is taken")


_KIND_OF = {
    "student": _kind_of_student,
    "reward": _kind_of_reward,
    "unieval": _kind_of_unieval,
    "embedder": _kind_of_embedder,
}


# --- tokenizer, template, positions ---


def _tokenizer_point(files: ModelFiles) -> Point:
    found = any(name in _TOKENIZER_FILES or name.endswith(_TOKENIZER_ENDINGS) for name in files.sizes)
    if found:
        return Point(True, "tokenizer")
    return Point(False, "It has no tokenizer (no tokenizer.json, *.model or vocabulary file).")


def _template_point(files: ModelFiles) -> Point:
    found = bool(files.tokenizer_config.get("chat_template")) or any(name in files.sizes for name in _TEMPLATE_FILES)
    if found:
        return Point(True, "chat template")
    return Point(False, "The tokenizer of this model has no chat template. Choose another template or form.")


def positions(files: ModelFiles) -> int | None:
    """The longest text in tokens that the model was made for; None where it does not say, or has no such limit."""
    kind = files.config.get("model_type")
    if kind in _T5:
        return None  # relative positions: n_positions was the length of its training
    found = files.number(*_POSITIONS)
    # RoBERTa and its kin count positions from the padding id + 1, so that two of the table are never used.
    return found - 2 if found is not None and kind in ("roberta", "xlm-roberta", "camembert") else found


def _positions_point(files: ModelFiles, max_length: int | None) -> Point | None:
    limit = positions(files)
    if limit is None or max_length is None:
        return None
    if max_length <= limit:
        return Point(True, f"{limit:,} positions")
    return Point(False, f"This model has {limit:,} positions. Choose {limit:,} tokens or less as the longest text.")


def check_files(
    role: Role, settings: RoleSettings, files: ModelFiles, *, memory: Memory | None, weights: bool = True
) -> ModelCheck:
    """Look whether a model that was found does for a role with these settings.

    ``weights`` False: only its tokenizer is asked for (the length in tokens), so only that is looked at.
    """
    source = {"folder": "found", "hub": "found on the hub", "cache": "found in the cache of this machine"}
    points = [Point(True, source.get(files.place, "found"))]
    if not weights:
        return ModelCheck(role, (*points, _tokenizer_point(files)), files.revision)
    points += [_KIND_OF[role](files), _tokenizer_point(files)]
    if "chat" in (getattr(settings, "template", None), getattr(settings, "form", None)):
        points.append(_template_point(files))
    limit = _positions_point(files, settings.max_length)
    points += [limit] if limit is not None else []
    size, room = need(files, settings)
    if size is None:
        points.append(Point(False, "It has no weights (no *.safetensors and no *.bin file)."))
    else:
        points.append(_memory_point(size, room, dtype=settings.dtype, device=settings.device, memory=memory))
    return ModelCheck(role, tuple(points), files.revision, size, None if size is None else size + room)


def check_model(role: Role, settings: RoleSettings, *, memory: Memory | None, weights: bool = True) -> ModelCheck:
    """Find a model and check it. Whatever is wrong is a point of the answer; nothing is raised."""
    if not settings.model.strip():
        return ModelCheck(role, (Point(False, f"No {ROLE_NAMES[role]} is chosen."),))
    try:
        files = find_files(settings.model, settings.revision)
    except ModelError as error:
        return ModelCheck(role, (Point(False, str(error)),))
    return check_files(role, settings, files, memory=memory, weights=weights)


# --- a base model to finetune ---


def need_of_base(files: ModelFiles, settings: FinetuneSettings) -> tuple[float | None, float]:
    """Bytes of the frozen weights (None: unknown), and of what one micro batch of the longest texts keeps.

    Training keeps the activations of every layer, with gradient checkpointing only what enters each. A micro batch of 0
    (chosen by itself) counts as one row: it is halved when memory runs out, down to that.
    """
    size = files.weight_bytes
    weights = None if size is None else size * PRECISION_BYTES[settings.precision] / (files.stored_bytes or 2.0)
    tokens = (settings.micro_batch_size or 1) * settings.max_length
    hidden = files.number("hidden_size", "n_embd", "d_model") or _USUAL_HIDDEN
    layers = files.number("num_hidden_layers", "n_layer", "num_layers") or _USUAL_LAYERS
    widths = _WIDTHS_PER_TOKEN + layers if settings.gradient_checkpointing else _WIDTHS_PER_TOKEN * layers
    return weights, tokens * hidden * widths * (4.0 if settings.precision == "fp32" else 2.0)


def check_base(settings: FinetuneSettings, files: ModelFiles, *, memory: Memory | None) -> ModelCheck:
    """Look whether a model that was found can be finetuned with these settings; nothing is loaded."""
    source = {"folder": "found", "hub": "found on the hub", "cache": "found in the cache of this machine"}
    points = [Point(True, source.get(files.place, "found")), _kind_of_student(files), _tokenizer_point(files)]
    if settings.template == "chat":
        points.append(_template_point(files))
    limit = _positions_point(files, settings.max_length)
    points += [limit] if limit is not None else []
    weights, room = need_of_base(files, settings)
    if weights is None:
        points.append(Point(False, "It has no weights (no *.safetensors and no *.bin file)."))
    else:
        points.append(_training_memory_point(weights, room, settings, memory))
    return ModelCheck("student", tuple(points), files.revision, weights, None if weights is None else weights + room)


def _training_memory_point(weights: float, room: float, settings: FinetuneSettings, memory: Memory | None) -> Point:
    room += _PROCESS_BYTES["cuda" if settings.device.startswith("cuda") else "cpu"]
    wants = f"{gigabytes(weights)} of weights in {settings.precision} and about {gigabytes(room)} to train with"
    if memory is None:
        return Point(None, f"needs {wants}; the free memory of {settings.device} cannot be asked")
    if weights + room <= memory.free_bytes:
        return Point(True, f"fits: {wants}, {gigabytes(memory.free_bytes)} free on {memory.place}")
    return Point(
        False,
        f"It does not fit into memory: it needs {wants}, {gigabytes(weights + room)} in all, and "
        f"{gigabytes(memory.free_bytes)} are free on {memory.place}. Choose a smaller model, fewer bits (int8, nf4), "
        "a shorter longest text, or gradient checkpointing.",
    )


def adapter_bytes(settings: FinetuneSettings, files: ModelFiles) -> float | None:
    """About how many bytes an adapter takes on the disk (float32); None where the model's shape is not known.

    ``r`` times the widths of every layer that gets one: query and value, or all seven of a Llama's block.
    """
    hidden = files.number("hidden_size", "n_embd", "d_model")
    layers = files.number("num_hidden_layers", "n_layer", "num_layers")
    if hidden is None or layers is None:
        return None
    inner = files.number("intermediate_size", "n_inner", "d_ff") or 4 * hidden
    widths = 2 * 2 * hidden if settings.lora_targets == "attention" else 4 * 2 * hidden + 3 * (hidden + inner)
    return 4.0 * settings.lora_r * layers * widths
