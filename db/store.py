"""Open the store: one root connection, one cursor per thread, errors in plain words."""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import duckdb
import duckdb_engine
import psutil
import pyarrow as pa
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import QueuePool

from core.errors import StoreError, StoreLockedError
from core.settings import Settings
from db import permission
from db.migrations import migrate

P = ParamSpec("P")
R = TypeVar("R")
_PID = re.compile(r"PID (\d+)")


def utc_now() -> datetime:
    """Naive UTC, as every timestamp of the store."""
    return datetime.now(UTC).replace(tzinfo=None)


def _holder(message: str) -> str:
    found = _PID.search(message)
    if not found:
        return "another process"
    pid = int(found.group(1))
    try:
        command = " ".join(psutil.Process(pid).cmdline()[:4])
    except psutil.Error:
        return f"process {pid}"
    return f"process {pid} ({command})" if command else f"process {pid}"


def _connect(path: Path, memory_limit: str) -> duckdb.DuckDBPyConnection:
    config: dict[str, str | bool | int | float | list[str]] = {
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "preserve_insertion_order": False,
        "memory_limit": memory_limit,
    }
    try:
        return duckdb.connect(str(path), config=config)
    except duckdb.IOException as error:
        message = str(error)
        if "lock" in message.lower():
            raise StoreLockedError(
                f"The store {path} is already open in {_holder(message)}. Only one server can own it: "
                "use the dashboard that is running, stop that process, or choose another folder with ASSAY_HOME."
            ) from error
        if "newer version" in message or "storage version" in message.lower() or "version number" in message:
            raise StoreError(
                f"The store {path} was written by another DuckDB version than {duckdb.__version__} can read: {message}"
            ) from error
        raise StoreError(
            f"The store {path} cannot be opened: {message} Restore it from a backup, or choose another "
            "folder with ASSAY_HOME."
        ) from error
    except duckdb.Error as error:
        raise StoreError(f"The store {path} cannot be opened: {error}") from error


class Store:
    """The open store. ``read()`` and ``write()`` give SQLAlchemy connections; both are safe from any thread."""

    def __init__(self, path: Path, *, memory_limit: str = Settings.store_memory) -> None:
        """Open ``path``, creating file and folder where needed, and bring it to the newest schema.

        Raises:
            StoreLockedError: another process holds it; the message names the process.
            StoreVersionError: it was written by a newer version; the message names the version.
            StoreError: anything else that keeps it from opening.
        """
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"The folder {path.parent} cannot be made: {error.strerror}. Set ASSAY_HOME.") from error
        self._root = _connect(path, memory_limit)
        # Two transactions that insert the same example collide at commit; whoever adds examples takes this lock.
        self.examples_lock = threading.RLock()
        self.engine: Engine = create_engine(
            f"duckdb:///{path}",
            creator=lambda: duckdb_engine.ConnectionWrapper(self._root.cursor()),
            poolclass=QueuePool,
            pool_size=8,
            max_overflow=24,
        )
        try:
            self.schema = migrate(self.engine)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the file back. Idempotent."""
        self.engine.dispose()
        self._root.close()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection for reading; one snapshot for its length."""
        with self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self, action: str = "administer") -> Iterator[Connection]:
        """A connection in a transaction: all of it is committed, or nothing.

        Raises:
            NotAllowedError: whoever acts may not do this kind of ``action`` (:data:`db.permission.NEEDS`).
        """
        permission.require(action)
        with self.engine.begin() as connection:
            yield connection

    @contextmanager
    def adding_examples(self, action: str = "administer") -> Iterator[Connection]:
        """As ``write()``, alone among those that add examples."""
        permission.require(action)
        with self.examples_lock, self.engine.begin() as connection:
            yield connection


def rows(connection: Connection, sql: str, /, **parameters: Any) -> list[dict[str, Any]]:
    """Run ``sql`` with named parameters and return its rows as dictionaries."""
    return [dict(row) for row in connection.execute(text(sql), parameters).mappings()]


def scalar(connection: Connection, sql: str, /, **parameters: Any) -> Any:
    """Run ``sql`` and return the first column of its first row, or None."""
    # All rows are fetched: an unread result keeps the connection from registering Arrow data.
    found = connection.execute(text(sql), parameters).all()
    return found[0][0] if found else None


def frame(connection: Connection, sql: str, parameters: Mapping[str, Any] | None = None) -> pa.Table:
    """Run ``sql`` with ``$name`` parameters straight in DuckDB and return an Arrow table (no row loop)."""
    raw = connection.connection.driver_connection
    assert raw is not None
    return raw.sql(sql, params=dict(parameters or {})).to_arrow_table()


@contextmanager
def registered(connection: Connection, name: str, data: pa.Table | pa.RecordBatchReader) -> Iterator[None]:
    """Make Arrow data visible to SQL under ``name`` for the length of the block."""
    raw = connection.connection.driver_connection
    assert raw is not None
    raw.register(name, data)
    try:
        yield
    finally:
        raw.unregister(name)


def said_plainly(function: Callable[P, R]) -> Callable[P, R]:
    """Errors of the database (a full disk, a store that was closed) reach the person who pressed as one sentence."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except (SQLAlchemyError, duckdb.Error) as error:
            cause = str(getattr(error, "orig", None) or error).strip().splitlines()[0].rstrip(".")
            raise StoreError(f"This was NOT stored, because the store answered: {cause}. Try again.") from error

    return wrapped
