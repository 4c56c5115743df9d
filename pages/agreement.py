"""Agreement."""

from __future__ import annotations

from pages import _ui

_ui.header("Agreement", "")
