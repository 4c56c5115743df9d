"""One look for all figures: colours of the Okabe–Ito family, the same meaning everywhere, light and dark."""

from __future__ import annotations

from typing import Any

ORIGINAL = "#5b6b7a"  # slate
REFLECTED = "#0f8b8d"  # teal
ACCEPT = "#009E73"
REJECT = "#D55E00"
NEUTRAL = "#8a97a0"
SERIES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#5b6b7a", "#F0E442")
VERDICT_COLOURS = {
    "accept": ACCEPT,
    "edit": "#56B4E9",
    "new_instruction": "#0072B2",
    "new_response": "#CC79A7",
    "reject": REJECT,
}


def layout(**more: Any) -> dict[str, Any]:
    """Keyword arguments for ``Figure.update_layout``: no background of its own, thin grid, room for labels."""
    return {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 56, "r": 16, "t": 32, "b": 48},
        "font": {"size": 13},
        "colorway": list(SERIES),
        "hovermode": "closest",
        "bargap": 0.06,
        "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.0, "x": 0},
        **more,
    }
