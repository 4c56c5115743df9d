"""Names and paths that users give: made harmless before anything is opened or written."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from core.errors import InputError

_MAX_NAME_BYTES = 120
_FORBIDDEN = '<>:"|?*'


def safe_name(user_file_name: str) -> str:
    """Return a file name without folders, control characters and invisible marks, at most 120 bytes, never empty.

    The extension survives shortening. The result names a file inside whatever folder it is put into.
    """
    name = unicodedata.normalize("NFC", user_file_name.replace("\\", "/").rsplit("/", 1)[-1])
    name = "".join(char for char in name if unicodedata.category(char)[0] != "C" and char not in _FORBIDDEN)
    name = " ".join(name.split()).lstrip(". ").rstrip(". ")
    if not name:
        return "unnamed"
    stem, dot, extension = name.rpartition(".")
    if not dot or len(extension.encode()) > 16:
        stem, dot, extension = name, "", ""
    room = _MAX_NAME_BYTES - len((dot + extension).encode())
    return stem.encode()[:room].decode("utf-8", "ignore").rstrip(". ") + dot + extension


def _inside(path: Path, roots: Iterable[Path]) -> bool:
    return any(path.is_relative_to(root) for root in roots)


def resolve_server_path(text: str, roots: Iterable[Path]) -> Path:
    """Return the file that ``text`` names, if it lies under one of ``roots`` once ``..`` and links are resolved.

    A relative path is looked for under each root in turn. Nothing is said about what exists outside the roots.

    Raises:
        InputError: it is outside, does not exist, or is no ordinary file.
    """
    text = text.strip()
    if not text:
        raise InputError("Give the path of a file on the server.")
    if "\0" in text:
        raise InputError("The path holds a NUL character. Type it again.")
    folders = [root.resolve() for root in roots]
    allowed = ", ".join(map(str, folders)) or "none"
    try:
        candidates = [path.resolve() for path in _candidates(text, folders)]
        inside = [path for path in candidates if _inside(path, folders)]
        if not inside:
            raise InputError(f"{text} is not in a folder from which datasets may be loaded. Allowed: {allowed}.")
        found = next((path for path in inside if path.exists()), None)
        if found is None:
            raise InputError(f"{text} does not exist. Datasets are looked for in: {allowed}.")
        if not found.is_file():
            raise InputError(f"{text} is not a file. Give the path of one file.")
        if not os.access(found, os.R_OK):
            raise InputError(f"{text} may not be read by the server. Change its permissions.")
    except (OSError, RuntimeError) as error:  # a name too long for the file system, links in a circle
        raise InputError(f"{text[:200]} is not a path that can be opened: {error}.") from error
    return found


def _candidates(text: str, folders: list[Path]) -> list[Path]:
    path = Path(text)
    return [path] if path.is_absolute() else [folder / path for folder in folders]
