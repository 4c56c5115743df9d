"""Guidelines as the desk shows them: Markdown of its small known set, which fetches nothing and leads nowhere."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import streamlit as st

_PAGES = Path(__file__).parent
_STYLES = ("_desk/shared.css", "_review/component.css")
_SCRIPTS = ("_desk/shared.js", "_review/markdown.js")
_WRAPPED = ".rendered { overflow-wrap: anywhere; }"
_DRAW = """
export default function ({ parentElement, data }) {
  parentElement.querySelector(".rendered").replaceChildren(...markdown(data.text));
}
"""


@functools.cache
def _component() -> Callable[..., Any]:
    css, js = (
        "\n".join((_PAGES / name).read_text(encoding="utf-8") for name in names) for names in (_STYLES, _SCRIPTS)
    )
    return st.components.v2.component(
        "assay_guidelines",
        html='<div class="desk"><div class="rendered"></div></div>',
        css=css + _WRAPPED,
        js=js + _DRAW,
    )


def shown(text: str, *, key: str) -> None:
    """Draw the text in place."""
    _component()(key=key, data={"text": text})
