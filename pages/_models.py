"""The models by role: asked for only where they are needed, remembered for the workspace, checked before any job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import streamlit as st

from core.embedding import EmbedderSettings
from core.errors import ModelError, StoreError
from core.indicators import ROLES, Role
from core.lm import StudentSettings
from core.model_check import (
    Memory,
    ModelCheck,
    Point,
    check_files,
    check_together,
    free_memory,
)
from core.model_files import ModelFiles, find_files
from core.models import DTYPES
from core.prompts import TEMPLATES
from core.reward import FORMS, RewardSettings
from core.scoring import DEMO_STUDENT, Models
from core.unieval import UniEvalSettings
from db import remembered, score_results
from pages import _ui

TITLES: Mapping[Role, str] = {
    "student": "Student",
    "reward": "Reward model",
    "unieval": "UniEval",
    "embedder": "Embedder",
}
ASKS_FOR: Mapping[Role, str] = {
    "student": "any causal language model",
    "reward": "any sequence classifier with one score or two classes",
    "unieval": "a T5 that was trained as UniEval",
    "embedder": "any sentence-transformers model",
}
USUAL: Mapping[Role, Any] = {
    "student": StudentSettings(model=str(DEMO_STUDENT)),
    "reward": RewardSettings(),
    "unieval": UniEvalSettings(),
    "embedder": EmbedderSettings(),
}
DEMO_NOTE = (
    "**Demo student**, about 3 million parameters, bundled. It shows how the product works; its numbers mean little "
    "for real models."
)
TEMPLATE_HELP = (
    "How instruction and input are put before the student: the format it was trained on. "
    "chat is the template of the model's own tokenizer."
)
FORM_HELP = (
    "How request and response are put before the reward model: pair is the tokenizer's two texts, chat its chat "
    "template, auto takes chat where the tokenizer has one."
)
_DEMO_TAIL = "/core/demo/student"
_SMALLEST_LENGTH = 16
_PER_LINE = 2
_USUAL_LENGTH = 512
_PROBLEM = ":orange[✗]"
_GOOD = ":green[✓]"


def name(model: str) -> str:
    """A model's name for a select box, which shows it as it is."""
    return "Demo student (bundled)" if model == str(DEMO_STUDENT) else model


def device_choice(key: str, *, usual: str) -> str:
    """Ask on which kind of device; ``usual`` is what was remembered."""
    gpus = _ui.current_service().scheduler.gpus()
    labels = {"cpu": "CPU", "cuda": f"GPU ({len(gpus)})"}
    options = ["cpu", "cuda"] if gpus else ["cpu"]
    chosen = st.segmented_control(
        "Device",
        options,
        default=usual if usual in options else options[-1],
        format_func=labels.__getitem__,
        required=True,
        help="The scheduler gives the job the next free GPU: " + ", ".join(f"cuda:{gpu}" for gpu in gpus)
        if gpus
        else "No GPU was found on this machine (nvidia-smi shows none).",
        key=f"{key}-device",
        persist_state="session",
    )
    return str(chosen or "cpu")


def begins_with(role: Role, *, key: str) -> Any:
    """What the form of a role begins with: what was remembered in this workspace, else the settings' own defaults.

    It stays for the session: what another session chooses meanwhile must not move the widgets of this one.
    """
    kept = f"{key}-begins-with"
    if kept not in st.session_state:
        st.session_state[kept] = _usual(role)
    return st.session_state[kept]


def _usual(role: Role) -> Any:
    service = _ui.current_service()
    best = "cuda" if service.scheduler.gpus() else "cpu"
    # A GPU computes bfloat16 many times as fast as float32, and losses are float32 all the same.
    dtype = "bfloat16" if best == "cuda" else USUAL[role].dtype
    found = remembered.remembered(service.settings.home, role, replace(USUAL[role], device=best, dtype=dtype))
    if found.device == "cuda" != best:
        found = replace(found, device=best)
    moved = found.model.endswith(_DEMO_TAIL) and not Path(found.model).is_dir()
    return replace(found, model=str(DEMO_STUDENT), revision=None) if moved else found


# --- one role ---


def checked(role: Role, *, key: str, device: str, usual: Any, weights: bool = True) -> tuple[Any, ModelCheck]:
    """Ask for the model of a role and its settings, and show whether it does; ``usual`` is what the form begins with.

    Widget keys begin with ``key``. ``weights`` False: only its tokenizer is needed.
    """
    model = _model(role, key=key, usual=usual)
    below = st.container(gap="small")
    settings = _settings(role, usual, model=model, device=device, key=key)
    found = check(role, settings, weights=weights)
    with below:
        show_check(found)
        if model == str(DEMO_STUDENT):
            st.caption(DEMO_NOTE)
    return settings, found


def _model(role: Role, *, key: str, usual: Any) -> str:
    first = [usual.model, USUAL[role].model]
    before = score_results.models_by_role(_ui.current_service().store).get(role, ())
    known = list(dict.fromkeys([*first, *before]))
    model = st.selectbox(
        f"{TITLES[role]}",
        known,
        format_func=name,
        accept_new_options=True,
        placeholder="Choose, or type a hub id or a folder",
        help=f"Choose one, or type: {ASKS_FOR[role]}, as an id on the Hugging Face hub (such as "
        f"`{_example(role)}`) or as the path of a folder on the server.",
        key=f"{key}-model",
        persist_state="session",
    )
    return str(model or "").strip()


def _example(role: Role) -> str:
    return "meta-llama/Llama-3.2-1B" if role == "student" else str(USUAL[role].model)


def _settings(role: Role, usual: Any, *, model: str, device: str, key: str) -> Any:
    """The settings beside the model's name."""
    with st.expander("Settings", icon=":material/tune:", key=f"{key}-settings"):
        left, right = st.columns(2)
        with left:
            changed = _form(role, usual, key=key)
            dtype_side = right if changed else left
            with dtype_side:
                changed["dtype"] = _dtype(usual, key=key)
            changed["max_length"] = _max_length(role, usual, key=key)
        with right:
            changed["batch_tokens"] = int(
                st.number_input(
                    "Batch budget, in tokens",
                    value=usual.batch_tokens,
                    min_value=1,
                    step=1024,
                    help="Tokens in one batch. It is halved by itself when memory runs out.",
                    key=f"{key}-batch-tokens",
                    persist_state="session",
                )
            )
        with right if dtype_side is left else st.container():
            revision = st.text_input(
                "Revision",
                value=usual.revision or "",
                placeholder="newest",
                help="Branch, tag or commit on the hub. Scores are kept apart by commit, so a model that changes is "
                "scored anew.",
                key=f"{key}-revision",
                persist_state="session",
            )
    return replace(usual, model=model, revision=(revision or "").strip() or None, device=device, **changed)


def _dtype(usual: Any, *, key: str) -> str:
    found = st.selectbox(
        "Number format (dtype)",
        DTYPES,
        index=DTYPES.index(usual.dtype) if usual.dtype in DTYPES else 0,
        help="float32 is exact and the slowest. Losses are float32 whatever is chosen here.",
        key=f"{key}-dtype",
        persist_state="session",
    )
    return str(found)


def _form(role: Role, usual: Any, *, key: str) -> dict[str, Any]:
    """The form of the text that the model reads, where there is a choice."""
    choice = {
        "student": ("template", "Template", TEMPLATES, TEMPLATE_HELP),
        "reward": ("form", "Form", FORMS, FORM_HELP),
    }
    if role not in choice:
        return {}
    field, label, options, help_text = choice[role]
    now = getattr(usual, field)
    found = st.selectbox(
        label,
        options,
        index=options.index(now) if now in options else 0,
        help=help_text,
        key=f"{key}-{field}",
        persist_state="session",
    )
    return {field: found}


def _max_length(role: Role, usual: Any, *, key: str) -> int | None:
    own = role == "embedder"  # a sentence-transformers model says itself how much it reads
    help_text = {
        "student": "Prompt and response together (max_length); the tail of a longer response is cut.",
        "reward": "Request and response together (max_length); the tail of a longer response is cut.",
        "unieval": "Question, response and dialogue together (max_length); what is longer is cut.",
        "embedder": "How much of the joined texts is read (max_length); 0: as much as the model was made for.",
    }[role]
    found = int(
        st.number_input(
            "Longest text, in tokens",
            value=usual.max_length or (0 if own else _USUAL_LENGTH),
            min_value=0 if own else _SMALLEST_LENGTH,
            step=256,
            help=help_text,
            key=f"{key}-max-length",
            persist_state="session",
        )
    )
    return found or None


# --- the check ---


@st.cache_data(ttl=60, max_entries=64, show_spinner="Asking the Hugging Face hub …")
def _files_on_hub(model: str, revision: str | None) -> ModelFiles | str:
    """The files of a model on the hub, or why they are not to be had: an answer holds for a minute, good or bad."""
    return _files_now(model, revision)


def _files_now(model: str, revision: str | None) -> ModelFiles | str:
    try:
        return find_files(model, revision)
    except ModelError as error:
        return str(error)


@st.cache_data(ttl=10, max_entries=8, show_spinner=False)
def memory_of(device: str) -> Memory | None:
    """Free memory where a job of this device would run; an answer holds for ten seconds."""
    return free_memory(device)


def files_of(model: str, revision: str | None) -> ModelFiles | str:
    """The files of a model, or why they are not to be had; a folder is looked at anew each time."""
    local = model.startswith(("/", ".", "~")) or Path(model).is_dir()
    return (_files_now if local else _files_on_hub)(model, revision)


def check(role: Role, settings: Any, *, weights: bool = True) -> ModelCheck:
    """Look at the model of a role without loading it. A folder is looked at anew each time: it may be half copied."""
    if not settings.model:
        return ModelCheck(role, (Point(False, f"No {TITLES[role].lower()} is chosen. Choose one, or type its name."),))
    found = files_of(settings.model, settings.revision)
    if isinstance(found, str):
        return ModelCheck(role, (Point(False, found),))
    return check_files(role, settings, found, memory=memory_of(settings.device), weights=weights)


def show_check(found: ModelCheck) -> None:
    """One calm line, or the problems in words."""
    if found.ok:
        words = " · ".join(("" if point.ok else "(?) ") + point.says for point in found.points)
        st.caption(f"{_GOOD} {_ui.plain(words)}")
    for problem in found.problems:
        st.markdown(f"{_PROBLEM} :small[{_ui.plain(problem)}]")


# --- all roles ---


def choose(roles: Sequence[Role], *, key: str, student_weights: bool) -> Models | None:
    """Ask for the models of these roles, check them, and remember them; None while one of them does not do.

    ``student_weights`` False: of the student only the tokenizer is needed. Widget keys begin with ``key`` and the role.
    """
    if not roles:
        return Models()
    home = _ui.current_service().settings.home
    usual = {role: begins_with(role, key=f"{key}-{role}") for role in roles}
    device = device_choice(key, usual=usual[roles[0]].device)
    chosen: dict[Role, Any] = {}
    checks: list[ModelCheck] = []
    asked = [role for role in ROLES if role in roles]
    for start in range(0, len(asked), _PER_LINE):
        for column, role in zip(st.columns(_PER_LINE), asked[start : start + _PER_LINE], strict=False):
            with column, st.container(border=True, gap="small", height="stretch"):
                chosen[role], found = checked(
                    role,
                    key=f"{key}-{role}",
                    device=device,
                    usual=usual[role],
                    weights=role != "student" or student_weights,
                )
            checks.append(found)
    together = check_together(checks, memory_of(device)) if all(one.ok for one in checks) else None
    if together is not None:
        (st.caption if together.ok else st.markdown)(f"{_GOOD if together.ok else _PROBLEM} {_ui.plain(together.says)}")
    if not all(one.ok for one in checks) or (together is not None and together.ok is False):
        return None
    _remember(home, chosen, usual, key=key)
    return Models(**chosen)


def _remember(home: Path, chosen: Mapping[Role, Any], usual: Mapping[Role, Any], *, key: str) -> None:
    """Remember what was changed since this session looked last. To look at the page writes nothing."""
    before = st.session_state.setdefault(f"{key}-remembered", {})
    changed = {role: settings for role, settings in chosen.items() if settings != before.get(role, usual[role])}
    if not changed:
        return
    before.update(changed)
    try:
        remembered.remember(home, {str(role): settings for role, settings in changed.items()})
    except StoreError as error:
        st.caption(_ui.plain(str(error)))
