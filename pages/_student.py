"""The form that asks for one student on a page that needs no other model (Reflect)."""

from __future__ import annotations

from core.lm import StudentSettings
from pages import _models


def student_form(key: str) -> StudentSettings | None:
    """Ask for a student and check it; widget keys begin with ``key``. None, with the reason shown, if it does not do.

    It begins with the student that was used last in this workspace.
    """
    usual = _models.begins_with("student", key=key)
    device = _models.device_choice(key, usual=usual.device)
    settings, found = _models.checked("student", key=key, device=device, usual=usual)
    return settings if found.ok else None
