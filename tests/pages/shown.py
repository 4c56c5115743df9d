"""What a page shows: its words, and a widget by its label."""

from __future__ import annotations

from typing import Any

from streamlit.testing.v1 import AppTest

_SAYING = ("markdown", "caption", "title", "subheader", "error", "warning", "info", "success", "html", "toast")
_WORDS = ("markdown", "caption", "title", "subheader", "error", "info", "success", "warning")


def said(page: AppTest) -> str:
    """All texts of a page with its HTML and toasts, without the escapes."""
    found = "\n".join(str(getattr(e, "value", None) or e.proto.body) for kind in _SAYING for e in page.get(kind))
    return found.replace("\\", "")


def words(page: AppTest) -> str:
    """The texts of a page in Markdown, captions and messages, as they were written."""
    return "\n".join(str(element.value) for kind in _WORDS for element in getattr(page, kind))


def button(page: AppTest, label: str) -> Any:
    """The first button whose label begins so."""
    return next(b for b in page.button if b.label.startswith(label))


def button_of(page: AppTest, key: str) -> Any:
    """The first button whose key begins so."""
    return next(one for one in page.button if one.key and one.key.startswith(key))


def labelled(elements: Any, label: str) -> Any:
    """The first of these with this label."""
    return next(e for e in elements if e.label == label)
