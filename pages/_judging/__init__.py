"""The blind judging component: a question, two answers without names. Texts go to it as data, never as HTML."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pages._desk import desk_component

_component = desk_component("assay_judging", Path(__file__).parent)


def judging_component(data: Mapping[str, Any], *, key: str, on_press: Callable[[], None]) -> None:
    """Show what :meth:`pages._judging.desk.Desk.payload` gave.

    ``on_press`` is called before the fragment reruns; the press is ``st.session_state[key].press`` then.
    """
    _component(data=dict(data), key=key, on_press_change=on_press)
