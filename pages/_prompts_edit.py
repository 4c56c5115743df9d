"""Edit a copy of a prompt: its texts, what keeps it from being used, and a new version where nothing does."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from core.errors import AssayError
from core.reflection_prompt import MOST_CHARACTERS, TEXTS, ReflectionPrompt, json_task_of, name_of, save_copy
from db import permission
from db.service import Service
from pages import _prompts_read, _ui

_HEIGHTS = {"system": 130, "task": 420, "reminder": 90, "json_task": 420, "json_reminder": 90}


def show(service: Service, prompt: ReflectionPrompt) -> None:
    """The texts to edit, checked with each change."""
    key = f"prompts-edit-{prompt.version}"
    left, right = st.columns([1, 2])
    usual = prompt.version.rpartition("-")[0] if prompt.based_on else f"my-{prompt.stage}"
    name = name_of(left.text_input("Name", value=usual, max_chars=60, key=f"{key}-name",
                                   help="A number is added: each save is a version of its own."))  # fmt: skip
    title = right.text_input("Title", value=prompt.title, max_chars=120, key=f"{key}-title").strip()
    left, right = st.columns(2, gap="large")
    made = {}
    with left:
        for part in ("system", "task", "reminder"):
            made[part] = _area(prompt, part, key=key)
    with right:
        follows = st.checkbox(
            "The JSON form follows the task",
            value=prompt.json_task == json_task_of(prompt.stage, prompt.task),
            key=f"{key}-follows",
            help="The JSON form is used where the endpoint holds the answer to a schema. It takes over the task "
            "without the paragraph about tags.",
        )
        if follows:
            made["json_task"] = json_task_of(prompt.stage, made["task"])
            _ui.text_block(made["json_task"], label=_prompts_read.LABELS["json_task"])
        else:
            made["json_task"] = _area(prompt, "json_task", key=key)
        made["json_reminder"] = _area(prompt, "json_reminder", key=key)
    edited = replace(prompt, title=title, based_on=prompt.version, **made)
    problems = edited.check()
    if not name:
        problems.insert(0, "The name is empty.")
    for problem in problems:
        st.markdown(f":orange[✗] {_ui.plain(problem)}")
    changed = any(getattr(edited, part) != getattr(prompt, part) for part in TEXTS)
    if not problems:
        st.markdown(":green[✓] It can be used." if changed else "Nothing is changed yet.")
    if st.button(
        f"Save as a new version of {_ui.plain(name or '…')}",
        type="primary",
        icon=":material/save:",
        key=f"{key}-save",
        **_ui.allowed("administer", disabled=bool(problems) or not changed),
    ):
        _save(service, edited, name=name)


def _area(prompt: ReflectionPrompt, part: str, *, key: str) -> str:
    found = st.text_area(
        _prompts_read.LABELS[part],
        value=getattr(prompt, part),
        height=_HEIGHTS[part],
        max_chars=MOST_CHARACTERS,
        key=f"{key}-{part}",
    )
    return str(found).replace("\r\n", "\n").strip()


def _save(service: Service, edited: ReflectionPrompt, *, name: str) -> None:
    try:
        permission.require("administer")
        saved = save_copy(service.settings.prompts_path, edited, name=name)
    except AssayError as error:
        st.error(_ui.plain(str(error)))
        return
    st.query_params.update({"prompt": saved.version, "view": "try"})
    st.session_state.pop("switch-view", None)
    st.session_state["prompts-opened"] = saved.version
    st.toast(f"Saved as {_ui.plain(saved.version)}.", icon=":material/check:")
    st.rerun()
