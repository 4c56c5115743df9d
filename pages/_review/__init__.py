"""The review component: one pair in two columns, decided by keys. Texts of rows go to it as data, never as HTML."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pages._desk import desk_component


@cache
def _component() -> Any:
    # Not at import: the server's routes import this package before Streamlit runs.
    return desk_component("assay_review", Path(__file__).parent)


def review_component(
    data: Mapping[str, Any], *, key: str, on_renew: Callable[[], None], on_ended: Callable[[], None]
) -> None:
    """Show a desk. It talks to :mod:`pages._review.routes` by itself and needs no run of the page to decide.

    ``on_renew`` is called where its token was refused: the run that follows gives it another one; ``on_ended`` where
    the end of its queue came on screen.
    """
    _component()(data=dict(data), key=key, on_renew_change=on_renew, on_ended_change=on_ended)
