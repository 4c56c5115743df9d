"""The board's component: bar of slides, keys, who presents, the vote. Texts go to it as data, never as HTML."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pages._desk import desk_component

_component = desk_component("assay_board", Path(__file__).parent)


def board_component(data: Mapping[str, Any], *, key: str, on_go: Callable[[], None]) -> None:
    """Show the bar. ``on_go`` is called before the fragment reruns; ``st.session_state[key].go`` says where to.

    ``go`` may hold ``slide``, ``mode`` ("", "present" or "follow"), ``screen`` (how large the screen is) and
    ``version`` (the numbers of the slide changed).
    """
    _component(data=dict(data), key=key, on_go_change=on_go)
