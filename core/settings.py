"""Settings of one installation, read from the environment once. No secret is ever stored here or shown."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from core.errors import SettingsError
from core.sign_in import OPEN

DEFAULT_ROLES = ("none", "viewer", "reviewer", "admin")
_SIZE = re.compile(r"[1-9]\d*\s?[MG]B", re.IGNORECASE)


@dataclass(frozen=True)
class Settings:
    """Where things are and how many jobs run at once.

    ``home``          folder with the store and the jobs (``ASSAY_HOME``, default ``./workspace``)
    ``data_roots``    folders on the server from which datasets may be loaded (``ASSAY_DATA_ROOTS``, separated by ``:``;
                      default: ``home/data`` only)
    ``cpu_jobs``      jobs on the CPU at once (``ASSAY_CPU_JOBS``, default 1)
    ``jobs_per_gpu``  jobs on each GPU at once (``ASSAY_JOBS_PER_GPU``, default 1)
    ``network_jobs``  jobs at once that wait for a server elsewhere (``ASSAY_NETWORK_JOBS``, default 4)
    ``store_memory``  what DuckDB may keep in memory before it spills to disk (``ASSAY_STORE_MEMORY``, default 800MB:
                      jobs need the rest of the machine)
    ``admins``        e-mails of those who are admin whatever the roles say (``ASSAY_ADMINS``, separated by commas)
    ``default_role``  role of a person whom nobody gave one (``ASSAY_DEFAULT_ROLE``; None: ``none`` with sign-in,
                      ``admin`` where names are taken without passwords)
    ``is_open``       other machines are served without sign-in (``ASSAY_OPEN``, a whole sentence)
    """

    home: Path
    data_roots: tuple[Path, ...]
    cpu_jobs: int = 1
    jobs_per_gpu: int = 1
    network_jobs: int = 4
    store_memory: str = "800MB"
    admins: frozenset[str] = frozenset()
    default_role: str | None = None
    is_open: bool = False

    @property
    def store_path(self) -> Path:
        return self.home / "assay.duckdb"

    @property
    def jobs_path(self) -> Path:
        return self.home / "jobs"

    @property
    def prompts_path(self) -> Path:
        """Folder with the prompts that people edited; those that come with Assay lie in the program."""
        return self.home / "prompts"

    @property
    def exports_path(self) -> Path:
        return self.home / "exports"

    @property
    def key_path(self) -> Path:
        """The key that signs tokens and kept names; read by the server only."""
        return self.home / "session.key"


def _positive_int(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name, "").strip()
    if not text:
        return default
    if not text.isdecimal() or int(text) < 1:
        raise SettingsError(f"{name} is {text!r}; give a whole number of 1 or more, or leave it unset for {default}.")
    return int(text)


def _default_role(environ: Mapping[str, str]) -> str | None:
    role = environ.get("ASSAY_DEFAULT_ROLE", "").strip()
    if role and role not in DEFAULT_ROLES:
        raise SettingsError(
            f"ASSAY_DEFAULT_ROLE is {role!r}; give one of {', '.join(DEFAULT_ROLES)}, or leave it unset."
        )
    return role or None


def _is_open(environ: Mapping[str, str]) -> bool:
    words = environ.get("ASSAY_OPEN", "").strip()
    if words and words != OPEN:
        raise SettingsError(
            f'ASSAY_OPEN is {words!r}; it takes effect only as "{OPEN}". Write that, or leave it unset.'
        )
    return bool(words)


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from ``environ`` (default: the process environment).

    Raises:
        SettingsError: a value is not of its form; the message names the variable.
    """
    env = os.environ if environ is None else environ
    home = Path(env.get("ASSAY_HOME") or "workspace").expanduser().resolve()
    roots_text = env.get("ASSAY_DATA_ROOTS", "")
    roots = tuple(Path(part).expanduser().resolve() for part in roots_text.split(os.pathsep) if part.strip())
    store_memory = env.get("ASSAY_STORE_MEMORY", "").strip() or Settings.store_memory
    if not _SIZE.fullmatch(store_memory):
        raise SettingsError(f"ASSAY_STORE_MEMORY is {store_memory!r}; give a size such as 800MB or 8GB.")
    return Settings(
        home=home,
        data_roots=roots or (home / "data",),
        cpu_jobs=_positive_int(env, "ASSAY_CPU_JOBS", 1),
        jobs_per_gpu=_positive_int(env, "ASSAY_JOBS_PER_GPU", 1),
        network_jobs=_positive_int(env, "ASSAY_NETWORK_JOBS", 4),
        store_memory=store_memory,
        admins=frozenset(one.strip().lower() for one in env.get("ASSAY_ADMINS", "").split(",") if one.strip()),
        default_role=_default_role(env),
        is_open=_is_open(env),
    )
