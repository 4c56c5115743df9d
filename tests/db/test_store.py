"""Opening the store: one owner, plain words, nothing half-migrated."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from core.errors import StoreError, StoreLockedError, StoreVersionError
from db import commands, schema
from db.migrations import MIGRATIONS, Migration, migrate
from db.store import Store, frame, scalar
from tests.db.conftest import EXAMPLES, batch

ROOT = Path(__file__).parents[2]
HOLD = """
import sys
from pathlib import Path
from db.store import Store
store = Store(Path(sys.argv[1]))
print("open", flush=True)
input()
"""


def test_a_store_held_by_another_process_names_that_process(tmp_path: Path) -> None:
    path = tmp_path / "assay.duckdb"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(StoreLockedError) as caught:
            Store(path)
        assert f"process {holder.pid}" in str(caught.value)
        assert "ASSAY_HOME" in str(caught.value)
        holder.kill()
    Store(path).close()  # the lock goes with its holder


def test_a_store_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "assay.duckdb"
    store = Store(path)
    with store.write() as connection:
        connection.execute(text("insert into migrations values (99, 'from the future', '7.5.0', now())"))
    store.close()
    before = path.read_bytes()
    with pytest.raises(StoreVersionError, match=r"Assay 7\.5\.0 \(schema 99\)"):
        Store(path)
    assert path.read_bytes() == before


def test_a_file_that_is_no_store_is_refused_in_plain_words(tmp_path: Path) -> None:
    path = tmp_path / "assay.duckdb"
    path.write_bytes(b"not a database at all" * 1000)
    with pytest.raises(StoreError, match="cannot be opened"):
        Store(path)
    assert path.read_bytes().startswith(b"not a database")


def test_a_failing_migration_leaves_neither_tables_nor_record(store: Store) -> None:
    def broken(connection: Connection) -> None:
        connection.execute(text("create table half_done (a bigint)"))
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        migrate(store.engine, migrations=(*MIGRATIONS, Migration(len(MIGRATIONS) + 1, "broken", broken)))
    with store.read() as connection:
        assert scalar(connection, "select count(*) from migrations") == len(MIGRATIONS)
        assert scalar(connection, "select count(*) from duckdb_tables() where table_name = 'half_done'") == 0


def test_migrations_are_numbered_without_gaps_and_run_once(store: Store) -> None:
    assert [m.number for m in MIGRATIONS] == list(range(1, len(MIGRATIONS) + 1))
    assert migrate(store.engine) == len(MIGRATIONS)
    with store.read() as connection:
        assert scalar(connection, "select count(*) from migrations") == len(MIGRATIONS)
        tables = {row[0] for row in connection.execute(text("select table_name from duckdb_tables()"))}
    assert {"examples", "datasets", "members", "scores", "decisions", "pairs", "embeddings"} <= tables
    versions = (*schema.V1, *schema.V2, *schema.V3, *schema.V4, *schema.V5)
    made = [one.split()[2] for one in versions if one.startswith("create table")]
    assert tables == {*made, "migrations"}


def test_a_store_of_the_first_schema_gets_what_came_later(tmp_path: Path) -> None:
    with closing(Store(tmp_path / "assay.duckdb")) as store:
        commands.import_dataset(store, [batch(EXAMPLES)], name="kept", source="test", kind="evaluation")
        with store.write() as connection:
            _back_to_first_schema(connection)
    with closing(Store(tmp_path / "assay.duckdb")) as store, store.read() as connection:
        assert store.schema == len(MIGRATIONS)
        assert scalar(connection, "select count(*) from embeddings") == 0
        assert scalar(connection, "select count(*) from current_run_results") == 0
        assert scalar(connection, "select count(*) from members") == len(EXAMPLES)
        marked = "select name from datasets where dataset_id in (select dataset_id from evaluation_sets)"
        assert scalar(connection, marked) == "kept"  # it was imported as one before there was a mark


def _back_to_first_schema(connection: Connection) -> None:
    """Drop what later migrations made, and their records."""
    later = (*schema.V2, *schema.V3, *schema.V4, *schema.V5)
    for statement in reversed(later):
        words = statement.split()
        if words[0] == "create":
            connection.execute(text(f"drop {words[1]} {words[2]}"))
        elif words[:2] == ["alter", "table"] and words[3] == "add":
            connection.execute(text(f"alter table {words[2]} drop column {words[5]}"))
        elif words[:2] == ["drop", "view"]:
            connection.execute(text(next(one for one in schema.V1 if one.startswith(f"create view {words[2]} "))))
    connection.execute(text("delete from migrations where number > 1"))


def test_a_score_without_value_and_without_reason_is_refused(store: Store) -> None:
    with pytest.raises(Exception, match=r"[Cc]onstraint"), store.write() as connection:
        connection.execute(text("insert into scores values (1, 1, null, null, false)"))


def test_texts_with_nul_bytes_and_emoji_survive(store: Store) -> None:
    with store.read() as connection:
        assert frame(connection, "select $t t", {"t": "a\0b 🦆 ü"})["t"][0].as_py() == "a\0b 🦆 ü"
