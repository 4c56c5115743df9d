"""What the desks of Review and of blind judging share: how they look, how they listen, how texts enter the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

_SHARED = Path(__file__).parent
_LAST = "component"


def desk_component(name: str, folder: Path) -> Any:
    """Register the component of ``folder`` upon the shared ground.

    Its HTML is ``component.html``. Style and script are the shared file, then every file of the folder in the order of
    their names, ``component.css`` and ``component.js`` last: one module without imports, since a component's script is
    one text.
    """
    return st.components.v2.component(
        name,
        html=(folder / "component.html").read_text(encoding="utf-8"),
        css=_joined(folder, "css"),
        js=_joined(folder, "js"),
    )


def _joined(folder: Path, kind: str) -> str:
    own = sorted(folder.glob(f"*.{kind}"), key=lambda path: (path.stem == _LAST, path.name))
    return "\n".join(path.read_text(encoding="utf-8") for path in (_SHARED / f"shared.{kind}", *own))
