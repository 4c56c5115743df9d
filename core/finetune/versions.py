"""The versions a run was made with."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import core

_PACKAGES = ("torch", "transformers", "peft", "accelerate", "bitsandbytes")


def versions() -> dict[str, str | None]:
    """By name; None where a package is not installed."""
    found: dict[str, str | None] = {"assay": core.__version__}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found
