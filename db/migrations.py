"""Numbered migrations: each runs in one transaction together with the record that it ran."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from sqlalchemy import Connection, Engine, text

import core
from core.errors import StoreVersionError
from db import schema


class Migration(NamedTuple):
    """One step of the store's schema: ``number`` counts from 1 without gaps."""

    number: int
    name: str
    apply: Callable[[Connection], None]


def m001_first_schema(connection: Connection) -> None:
    """Create all tables of the first version."""
    for statement in schema.V1:
        connection.execute(text(statement))


def m002_embeddings(connection: Connection) -> None:
    """Sentence embeddings, once per (example, model)."""
    for statement in schema.V2:
        connection.execute(text(statement))


def m003_studies(connection: Connection) -> None:
    """Evaluation sets, studies with their runs, fits and rules."""
    for statement in schema.V3:
        connection.execute(text(statement))


def m004_judging(connection: Connection) -> None:
    """Prompts and candidates of reflection, answers and their judgements, benchmark results, experiments."""
    for statement in schema.V4:
        connection.execute(text(statement))


def m005_teams(connection: Connection) -> None:
    """People and roles, campaigns, bulk decisions, saved filters, models of decisions, the meeting board."""
    for statement in schema.V5:
        connection.execute(text(statement))


MIGRATIONS: tuple[Migration, ...] = (
    Migration(1, "first_schema", m001_first_schema),
    Migration(2, "embeddings", m002_embeddings),
    Migration(3, "studies", m003_studies),
    Migration(4, "judging", m004_judging),
    Migration(5, "teams", m005_teams),
)

_RECORD = """create table if not exists migrations (
    number bigint primary key, name varchar not null, assay_version varchar not null, applied_at timestamp not null)"""


def migrate(engine: Engine, *, migrations: tuple[Migration, ...] = MIGRATIONS) -> int:
    """Bring the store to the newest schema and return its number.

    A migration that fails leaves neither its tables nor its record behind.

    Raises:
        StoreVersionError: the store has a migration that this program does not know.
    """
    with engine.begin() as connection:
        connection.execute(text(_RECORD))
        rows = connection.execute(text("select number, assay_version from migrations order by number")).all()
    applied = {row[0] for row in rows}
    known = {migration.number for migration in migrations}
    if applied - known:
        raise StoreVersionError(
            f"This store was written by Assay {rows[-1][1]} (schema {rows[-1][0]}); this is Assay {core.__version__}, "
            f"which knows schema {max(known)}. Start the newer version, or choose another folder with ASSAY_HOME. "
            "Nothing was changed."
        )
    for migration in migrations:
        if migration.number in applied:
            continue
        with engine.begin() as connection:
            migration.apply(connection)
            connection.execute(
                text("insert into migrations values (:number, :name, :version, now() at time zone 'utc')"),
                {"number": migration.number, "name": migration.name, "version": core.__version__},
            )
    return max(known)
