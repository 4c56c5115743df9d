"""The form of one training setting: base model, precision and every hyper-parameter, begun from a preset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import streamlit as st

from core.errors import SettingsError, StoreError
from core.finetune.settings import PRECISIONS, SCHEDULES, TARGETS, FinetuneSettings, paper_preset, sample_preset
from core.model_check import ModelCheck, Point, check_base
from core.prompts import TEMPLATES
from core.scoring import DEMO_STUDENT
from db import remembered, score_results, studies
from db.service import Service
from pages import _models, _rows, _ui

ROLE = "base"
"""Under this name the setting that was used last is kept in the workspace."""

PRESET_WORDS = {
    "given": "As suggested",
    "paper": "The paper's setting",
    "sample": "Quick, for the demo student",
    "last": "As used last",
}
PRESET_NOTES = {
    "given": "What this page suggests here; where there are studies, how the newest of them were trained.",
    "paper": "Instruction Mining: 8-bit base with LoRA, 3 epochs, batch 8, loss on response tokens alone. What the "
    "paper does not give (learning rate, schedule, LoRA's numbers) is Alpaca-LoRA's.",
    "sample": "32-bit base, one epoch, a higher learning rate: seconds a run on a CPU with the bundled demo student.",
    "last": "The setting that a study of this workspace was started with last.",
}
PRECISION_WORDS = {
    "int8": "8-bit (bitsandbytes)",
    "nf4": "4-bit NF4 (bitsandbytes)",
    "bf16": "bfloat16",
    "fp32": "float32",
}
_SHORT_PRECISION = {name: words.removesuffix(" (bitsandbytes)") for name, words in PRECISION_WORDS.items()}
SCHEDULE_WORDS = {
    "linear": "linear",
    "cosine": "cosine",
    "constant": "constant",
    "constant_with_warmup": "constant after warm-up",
}
TARGET_WORDS = {"attention": "query and value", "all-linear": "every linear layer"}


@dataclass(frozen=True, kw_only=True)
class _Number:
    """A number field: its bounds are those of the settings, which check them again."""

    field: str
    label: str
    step: float | int
    least: float | int
    most: float | int
    help: str
    format: str | None = None


_MAIN = (
    _Number(
        field="epochs", label="Epochs", step=1.0, least=0.0, most=1000.0, format="%g",
        help="How often each row is seen. The paper: 3.",
    ),
    _Number(
        field="batch_size", label="Batch size, in rows", step=1, least=1, most=4096,
        help="Rows of one optimiser step. The paper: 8. Rows are never packed together, so 8 stays 8.",
    ),
    _Number(
        field="learning_rate", label="Learning rate", step=1e-4, least=0.0, most=10.0, format="%.1e",
        help="The highest rate of the schedule.",
    ),
    _Number(
        field="max_length", label="Longest text, in tokens", step=128, least=2, most=1_000_000,
        help="Prompt and response together (max_length); the tail of a longer response is cut, the prompt never.",
    ),
)  # fmt: skip
_LORA = (
    _Number(field="lora_r", label="LoRA rank (r)", step=1, least=1, most=4096, help="Rank of the adapter's matrices."),
    _Number(
        field="lora_alpha", label="LoRA alpha", step=1, least=1, most=65536,
        help="The adapter is scaled by alpha / r.",
    ),
    _Number(
        field="lora_dropout", label="LoRA dropout", step=0.01, least=0.0, most=0.99, format="%g",
        help="Share of the adapter's inputs that is left out at random while training.",
    ),
)  # fmt: skip
_STEPS = (
    _Number(
        field="warmup_ratio", label="Warm-up share", step=0.01, least=0.0, most=1.0, format="%g",
        help="Share of the steps over which the learning rate rises.",
    ),
    _Number(
        field="weight_decay", label="Weight decay", step=0.01, least=0.0, most=10.0, format="%g",
        help="AdamW's weight decay.",
    ),
    _Number(
        field="max_grad_norm", label="Longest gradient", step=0.1, least=0.0, most=1e6, format="%g",
        help="A longer gradient is scaled down to this norm (max_grad_norm).",
    ),
)  # fmt: skip
_LIMITS = (
    _Number(
        field="max_steps", label="Most steps (0: all)", step=10, least=0, most=10_000_000,
        help="Training ends after so many optimiser steps, whatever the epochs say.",
    ),
    _Number(
        field="micro_batch_size", label="Micro batch (0: all)", step=1, least=0, most=4096,
        help="Rows that are in memory at once (micro batch); it must divide the batch size. 0: the whole batch, halved "
        "by itself when memory runs out.",
    ),
    _Number(
        field="checkpoint_steps", label="Checkpoint steps", step=10, least=0, most=10_000_000,
        help="Optimiser steps between two checkpoints. A killed run goes on from the last one, to the very same "
        "result. 0: no checkpoint.",
    ),
)  # fmt: skip


def form(service: Service, *, key: str, default: FinetuneSettings | None = None) -> FinetuneSettings | None:
    """Ask for a training setting and check its base model; None, with the reason shown, while it does not do.

    It begins with ``default`` where one is given, else with the paper's setting. Widget keys begin with ``key``.
    """
    presets = _presets(service, key=key, default=default)
    preset = _preset(presets, key=key)
    # Another suggestion is another form: a field of before must not keep its value.
    below = f"{key}-{preset}-{_rows.identity(default)}" if preset == "given" else f"{key}-{preset}"
    start = presets[preset]
    st.caption(PRESET_NOTES[preset])
    with st.container(border=True, gap="small"):
        left, right = st.columns([3, 1])
        with left:
            base = _base(service, start, key=below)
        with right:
            device = _models.device_choice(below, usual=start.device)
        check_place = st.container(gap="small")
        values = _main(start, key=below)
        with st.expander("All hyper-parameters", icon=":material/tune:", key=f"{below}-all"):
            values |= _others(start, key=below)
    with check_place:
        return _checked(service, {"base": base, "device": device, **values}, key=key, start=start)


def summary(settings: FinetuneSettings) -> str:
    """A setting in one line of plain text."""
    length = f"{settings.max_steps:,} steps" if settings.max_steps else _epochs(settings.epochs)
    parts = [
        base_name(settings.base),
        PRECISION_WORDS[settings.precision],
        length,
        f"batch {settings.batch_size}",
        f"learning rate {settings.learning_rate:g}",
        f"LoRA r {settings.lora_r} on {TARGET_WORDS[settings.lora_targets]}",
        f"template {settings.template}",
        f"{settings.max_length:,} tokens",
    ]
    return " · ".join(parts)


def _epochs(n: float) -> str:
    return "1 epoch" if n == 1 else f"{n:g} epochs"


def summary_of(params: Mapping[str, Any]) -> str:
    """The same of settings as a study keeps them; those that this version cannot read are named as such."""
    try:
        return summary(FinetuneSettings.from_params(params))
    except SettingsError as error:
        return f"a training setting that this version cannot read ({error})"


def base_name(base: str) -> str:
    """A base model's name for people; folders by their last part."""
    if base.rstrip("/").endswith("/core/demo/student"):
        return "Demo student (bundled)"
    return base.rstrip("/").split("/")[-1] if base.startswith(("/", ".", "~")) else base


# --- presets ---


def best_device(service: Service) -> str:
    """ "cuda" where jobs may use a GPU, else "cpu"."""
    return "cuda" if service.scheduler.gpus() else "cpu"


def _presets(service: Service, *, key: str, default: FinetuneSettings | None) -> dict[str, FinetuneSettings]:
    """What the form can begin with; what was used last stays for the session: another session must not move it."""
    device = best_device(service)
    found = {"paper": paper_preset(str(DEMO_STUDENT), device=device), "sample": sample_preset(str(DEMO_STUDENT))}
    kept = f"{key}-last"
    if kept not in st.session_state:
        try:
            last = remembered.remembered(service.settings.home, ROLE, found["paper"])
        except SettingsError:  # a file edited by hand
            last = found["paper"]
        st.session_state[kept] = _here(last, device)
    last = st.session_state[kept]
    if last not in found.values():
        found["last"] = last
    base = last.base if last.base != str(DEMO_STUDENT) else None
    if base is not None:
        found["paper"] = replace(found["paper"], base=base)
    if default is None:
        return found
    given = _here(default, device)
    same = next((name for name, settings in found.items() if settings == given), "given")
    return {same: given, **found}


def _here(settings: FinetuneSettings, device: str) -> FinetuneSettings:
    """A setting of another time or machine: no GPU that is not there, the demo student where it lies now."""
    if settings.device.startswith("cuda"):
        settings = replace(settings, device=device)
    moved = settings.base.endswith("/core/demo/student") and not Path(settings.base).is_dir()
    return replace(settings, base=str(DEMO_STUDENT), revision=None) if moved else settings


def _preset(presets: Mapping[str, FinetuneSettings], *, key: str) -> str:
    name = st.segmented_control(
        "Begin with",
        list(presets),
        default=next(iter(presets)),
        format_func=PRESET_WORDS.__getitem__,
        required=True,
        key=f"{key}-preset",
        persist_state="session",
    )
    return str(name) if name in presets else next(iter(presets))


# --- fields ---


def _base(service: Service, start: FinetuneSettings, *, key: str) -> str:
    before = score_results.models_by_role(service.store).get("student", ())
    known = list(dict.fromkeys([start.base, str(DEMO_STUDENT), *before]))
    found = st.selectbox(
        "Base model",
        known,
        format_func=_models.name,
        accept_new_options=True,
        placeholder="Choose, or type a hub id or a folder",
        help="Choose one, or type: any causal language model, as an id on the Hugging Face hub (such as "
        "`meta-llama/Llama-3.2-1B`) or as the path of a folder on the server. The paper's is LLaMA-7B.",
        key=f"{key}-base",
        persist_state="session",
    )
    return str(found or "").strip()


def _main(start: FinetuneSettings, *, key: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    first, second = (st.columns([1.4, 1, 1.1], vertical_alignment="bottom") for _ in range(2))
    with first[0]:
        values["precision"] = _choice(
            "Precision of the base", "precision", PRECISIONS, _SHORT_PRECISION, start, key=key,
            help_text="How the base's weights are kept, 8-bit and 4-bit by bitsandbytes; the adapter is trained in "
            "float32. Losses are float32.",
        )  # fmt: skip
    with first[1]:
        values["template"] = _choice(
            "Template", "template", TEMPLATES, {name: name for name in TEMPLATES}, start, key=key,
            help_text=_models.TEMPLATE_HELP,
        )  # fmt: skip
    for place, number in zip((first[2], *second), _MAIN, strict=True):
        with place:
            values[number.field] = _number(number, start, key=key)
    return values


def _others(start: FinetuneSettings, *, key: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    lora, steps, limits = (st.columns(3, vertical_alignment="bottom") for _ in range(3))
    more = st.columns([1.6, 1, 1.1], vertical_alignment="bottom")
    for places, numbers in ((lora, _LORA), (steps, _STEPS), (limits, _LIMITS)):
        for place, number in zip(places, numbers, strict=True):
            with place:
                values[number.field] = _number(number, start, key=key)
    with more[0]:
        values["lora_targets"] = _choice(
            "Layers with LoRA", "lora_targets", TARGETS, TARGET_WORDS, start, key=key,
            help_text="Query and value projections are LoRA's own choice; or every linear layer but the head.",
        )  # fmt: skip
    with more[1]:
        values["schedule"] = _choice(
            "Schedule", "schedule", SCHEDULES, SCHEDULE_WORDS, start, key=key,
            help_text="How the learning rate goes after the warm-up.",
        )  # fmt: skip
    with more[2]:
        found = st.text_input(
            "Revision of the base",
            value=start.revision or "",
            placeholder="newest",
            help="Branch, tag or commit on the hub. A study keeps the commit that it found.",
            key=f"{key}-revision",
            persist_state="session",
        )
        values["revision"] = (found or "").strip() or None
    for field, label, text in _SWITCHES:
        values[field] = st.checkbox(
            label, value=getattr(start, field), help=text, key=f"{key}-{field}", persist_state="session"
        )
    return values


_SWITCHES = (
    ("keep_adapter", "Keep the adapters", "Each run's adapter stays in the folder of its job, to be loaded with PEFT."),
    (
        "grouped",
        "Batches of similar length",
        "Less padding. The batches still come in another order with each epoch; off: rows are drawn at random.",
    ),
    (
        "gradient_checkpointing",
        "Gradient checkpointing",
        "Activations are computed again instead of kept: less memory, about a third more time.",
    ),
)


def _choice(
    label: str, field: str, options: tuple[str, ...], words: Mapping[str, str], start: FinetuneSettings, *, key: str,
    help_text: str,
) -> str:  # fmt: skip
    now = getattr(start, field)
    found = st.selectbox(
        label,
        options,
        index=options.index(now),
        format_func=lambda one: words.get(one, one),
        help=help_text,
        key=f"{key}-{field}",
        persist_state="session",
    )
    return str(found)


def _number(number: _Number, start: FinetuneSettings, *, key: str) -> float | int:
    kind = type(number.step)
    found = st.number_input(
        number.label,
        value=kind(getattr(start, number.field)),
        min_value=kind(number.least),
        max_value=kind(number.most),
        step=number.step,
        format=number.format,
        help=number.help,
        key=f"{key}-{number.field}",
        persist_state="session",
    )
    return kind(found)


# --- the check ---


def _checked(
    service: Service, values: Mapping[str, Any], *, key: str, start: FinetuneSettings
) -> FinetuneSettings | None:
    """The setting, if nothing stands against it; what was found is shown either way."""
    try:
        settings = FinetuneSettings(**values)
    except SettingsError as error:
        st.error(_ui.plain(str(error)), icon=":material/error:")
        return None
    found = check(settings)
    _models.show_check(found)
    if settings.base == str(DEMO_STUDENT):
        st.caption(_models.DEMO_NOTE)
    return settings if found.ok else None


def check(settings: FinetuneSettings) -> ModelCheck:
    """Look at a base model without loading it. A folder is looked at anew each time: it may be half copied."""
    files = _models.files_of(settings.base, settings.revision)
    if isinstance(files, str):
        return ModelCheck("student", (Point(False, files),))
    return check_base(settings, files, memory=_models.memory_of(settings.device))


def of_the_last_study(service: Service, evaluation_id: int) -> FinetuneSettings | None:
    """How the runs of the newest study were trained, one on this evaluation set before others; None without any.

    A rule holds for the training setting that it was fitted under, so what is compared by it begins with that.
    """
    found = sorted(studies.studies(service.store), key=lambda one: one["evaluation_id"] != evaluation_id)
    for one in found:
        try:
            settings = FinetuneSettings.from_params(one["settings"])
        except SettingsError:  # of another version
            continue
        if not Path(settings.base).is_absolute() or Path(settings.base).is_dir():
            return settings
    return None


def remember(service: Service, settings: FinetuneSettings) -> None:
    """Keep a setting that something was started with, as "used last" of this workspace."""
    try:
        remembered.remember(service.settings.home, {ROLE: settings})
    except StoreError as error:
        st.toast(_ui.plain(str(error)), icon=":material/info:")
