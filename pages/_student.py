"""The form that asks which student scores, and how. Shared by the Score and the Reflect page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import streamlit as st

from core.lm import StudentSettings
from core.models import DTYPES
from core.prompts import CHAT, TEMPLATES
from core.scoring import DEMO_STUDENT
from db import queries
from pages import _ui

DEMO_NOTE = (
    "**Demo student**, about 3 million parameters, bundled. It shows how the product works; its numbers mean little "
    "for real models."
)
OTHER_NOTE = "Any causal language model: an id on the Hugging Face hub, or a folder on the server."
TEMPLATE_HELP = (
    "How instruction and input are put before the student: the format it was trained on. "
    "chat is the template of the model's own tokenizer."
)
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_SMALLEST_LENGTH = 16


def student_form(key: str) -> StudentSettings | None:
    """Ask for a student; widget keys begin with ``key``. None (with the reason shown) while the answers do not do.

    Whether a hub id exists is not asked here: whoever uses the settings resolves them and shows the error.
    """
    demo = str(DEMO_STUDENT)
    known = [demo, *(m for m in queries.models(_ui.current_service().store) if m != demo)]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        model = st.selectbox(
            "Student model",
            known,
            format_func=_name,
            accept_new_options=True,
            placeholder="Choose, or type a hub id or a folder",
            help="Choose one, or type: a hub id such as `meta-llama/Llama-3.2-1B`, or the path of a folder on the "
            "server that holds config.json, weights and tokenizer.",
            key=f"{key}-model",
            persist_state="session",
        )
        device = _device(key)
    st.caption(DEMO_NOTE if model == demo else OTHER_NOTE)
    return _checked(str(model or "").strip(), device=device, key=key)


def _name(model: str) -> str:
    """A model's name for a select box, which shows it as it is."""
    return "Demo student (bundled)" if model == str(DEMO_STUDENT) else model


def _device(key: str) -> str:
    gpus = _ui.current_service().scheduler.gpus()
    labels = {"cpu": "CPU", "cuda": f"GPU ({len(gpus)})"}
    chosen = st.segmented_control(
        "Device",
        ["cpu", "cuda"] if gpus else ["cpu"],
        default="cuda" if gpus else "cpu",
        format_func=labels.__getitem__,
        required=True,
        help="The scheduler gives the job the next free GPU: " + ", ".join(f"cuda:{gpu}" for gpu in gpus)
        if gpus
        else "No GPU was found on this machine (nvidia-smi shows none).",
        key=f"{key}-device",
        persist_state="session",
    )
    return str(chosen or "cpu")


def _checked(model: str, *, device: str, key: str) -> StudentSettings | None:
    with st.expander("Settings of the student", icon=":material/tune:"):
        left, right = st.columns(2)
        with left:
            template = st.selectbox(
                "Template",
                TEMPLATES,
                help=TEMPLATE_HELP,
                key=f"{key}-template",
                persist_state="session",
            )
            max_length = st.number_input(
                "Longest text, in tokens",
                value=1024,
                min_value=_SMALLEST_LENGTH,
                step=256,
                help="Prompt and response together (max_length); the tail of a longer response is cut.",
                key=f"{key}-max-length",
                persist_state="session",
            )
        with right:
            dtype = st.selectbox(
                "Number format (dtype)",
                DTYPES,
                help="float32 is exact and the slowest. Losses are float32 whatever is chosen here.",
                key=f"{key}-dtype",
                persist_state="session",
            )
            batch_tokens = st.number_input(
                "Batch budget, in tokens",
                value=8192,
                min_value=1,
                step=1024,
                help="Padded tokens in one batch. It is halved by itself when memory runs out.",
                key=f"{key}-batch-tokens",
                persist_state="session",
            )
        revision = st.text_input(
            "Revision",
            placeholder="newest",
            help="Branch, tag or commit on the hub. Scores are kept apart by commit, so a model that changes is scored "
            "anew.",
            key=f"{key}-revision",
            persist_state="session",
        )
    problem = model_problem(model) or _template_problem(model, template) or length_problem(model, int(max_length))
    if problem is not None:
        st.error(_ui.plain(problem), icon=":material/error:")
        return None
    return StudentSettings(
        model=model,
        revision=(revision or "").strip() or None,
        dtype=dtype,
        template=template,
        max_length=int(max_length),
        batch_tokens=int(batch_tokens),
        device=device,
    )


def model_problem(model: str) -> str | None:
    """Why this cannot be a model, in plain words, or None. A name that the hub may know is not looked up."""
    if not model:
        return "No student model is chosen. Choose the demo student, or type a hub id or the path of a folder."
    folder = Path(model).expanduser()
    if folder.is_dir():
        lacks = not (folder / "config.json").is_file()
        return f"The folder {model} is not a model: it has no config.json." if lacks else None
    if folder.is_file():
        return f"{model} is a file. Give the folder that holds config.json and the weights."
    if model.startswith(("/", ".", "~")):
        return f"The folder {model} does not exist on the server."
    if not _HUB_ID.fullmatch(model):
        return f"{model} is neither a folder on the server nor an id on the hub, such as meta-llama/Llama-3.2-1B."
    return None


def _template_problem(model: str, template: str) -> str | None:
    folder = Path(model).expanduser()
    if template != CHAT or not folder.is_dir():
        return None
    config = folder / "tokenizer_config.json"
    if (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file():
        return None
    if config.is_file() and "chat_template" in config.read_text(encoding="utf-8", errors="replace"):
        return None
    return "The tokenizer of this model has no chat template. Choose another template."


def length_problem(model: str, max_length: int) -> str | None:
    """Why texts of this length do not fit a model in a folder, or None (also where its config does not say)."""
    try:
        config = json.loads((Path(model).expanduser() / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    positions = config.get("max_position_embeddings") if isinstance(config, dict) else None
    if not isinstance(positions, int) or max_length <= positions:
        return None
    return f"This model has {positions:,} positions. Choose {positions:,} tokens or less as the longest text."
