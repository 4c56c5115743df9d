"""The models that were used last in this workspace, by role: ``models.json`` beside the store.

A convenience and no record: what a score was made with stands at its scorer. A file that is missing or damaged, or
holds what this version does not know, gives the usual settings.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import tempfile
import threading
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from core.errors import JobError, StoreError
from core.jobs.secrets import refuse_secrets
from db import permission

FILE_NAME = "models.json"
_LONGEST_BYTES = 1 << 20

T = TypeVar("T")

log = logging.getLogger("assay")
_lock = threading.Lock()


def _read(home: Path) -> dict[str, Any]:
    path = home / FILE_NAME
    try:
        if path.stat().st_size > _LONGEST_BYTES:
            return {}
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        log.warning("The remembered models in %s cannot be read: %s", path, error)
        return {}
    return found if isinstance(found, dict) else {}


def remembered(home: Path, role: str, usual: T) -> T:
    """The settings of a role as they were last remembered; ``usual`` (a settings dataclass) where nothing was.

    A field that is missing, unknown or of another type keeps its usual value.
    """
    found = _read(home).get(role)
    if not isinstance(found, dict):
        return usual
    types = typing.get_type_hints(type(usual))
    fields = {one.name for one in dataclasses.fields(usual)}  # type: ignore[arg-type]
    kept = {name: value for name, value in found.items() if name in fields and _is_of(value, types[name])}
    return dataclasses.replace(usual, **kept)  # type: ignore[type-var]


def _is_of(value: Any, kind: Any) -> bool:
    allowed = typing.get_args(kind) or (kind,)
    return any(type(value) is one for one in allowed)  # not isinstance: True is no number of tokens


def remember(home: Path, models: Mapping[str, Any]) -> None:
    """Remember the settings (dataclasses) of these roles; other roles stay as they are. Whole or not at all.

    Raises:
        StoreError: a setting looks like a secret, or the file cannot be written.
    """
    permission.require("administer")
    new = {role: dataclasses.asdict(settings) for role, settings in models.items()}
    try:
        refuse_secrets(new, owner="the settings of a model")
    except JobError as error:
        raise StoreError(f"These models are not remembered. {error}") from error
    with _lock:
        before = _read(home)
        after = {**before, **new}
        if after == before:
            return
        try:
            _write(home / FILE_NAME, json.dumps(after, indent=2, ensure_ascii=False) + "\n")
        except OSError as error:
            raise StoreError(
                f"The models cannot be remembered in {home / FILE_NAME}: {error.strerror or error}."
            ) from error


def _write(path: Path, text: str) -> None:
    """Write beside the file and rename: a reader, or a crash, sees the old file or the new one."""
    descriptor, partial = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(partial).replace(path)
    except OSError:
        Path(partial).unlink(missing_ok=True)
        raise
