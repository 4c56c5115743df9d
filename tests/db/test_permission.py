"""Every write asks what the role allows: the default is admin, less stands in a list, and a refusal leaves no trace."""

from __future__ import annotations

import ast
import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.errors import NotAllowedError
from core.filters import ExportChoice
from core.jobs.folder import JobFolder
from core.jobs.spec import JobSpec
from core.lm import StudentSettings
from db import (
    bulk,
    campaigns,
    commands,
    decisions,
    drafts,
    evaluation,
    experiments,
    exports,
    fits,
    imports,
    job_records,
    jobs,
    lm_eval,
    pair_lists,
    people,
    people_judging,
    permission,
    preferences,
    remembered,
    saved_filters,
    studies,
)  # fmt: skip
from db.permission import Actor
from db.service import Service
from db.store import Store, rows
from tests.pages import sample_stores

DB = Path(permission.__file__).parent
VERA = Actor("vera", "Vera", "viewer")
RITA = Actor("rita", "Rita", "reviewer")

WEAKER = {
    "board._happened": "review",
    "decisions._transaction": "review",
    "drafts.save": "review",
    "leases.Leases._keep": "review",
    "pair_lists.create": "review",
    "pair_training._keep": "review",
    "pair_training.start_training": "review",
    "people.see": "look",
    "people_judging._append": "review",
    "people_judging.ensure_person": "review",
    "preferences.save": "look",
    "saved_filters.remove": "review",
    "saved_filters.rename": "review",
    "saved_filters.save": "review",
    "saved_filters.share": "review",
    "votes._stepped": "review",
    "votes.cast": "review",
    "votes.open_vote": "review",
}
"""What reviewers and viewers may write. All else needs an admin: who adds a line here opens something."""

WITHOUT_ASKING = {
    "commands.import_dataset": "asks at its head; its transactions are its own",
    "imports._sweep": "removes what no session waits for; only keep_upload calls it",
    "remembered._write": "only remember calls it, which asks",
    "service.Service.__init__": "the folders of an installation, at server start",
    "store.Store.__init__": "the store's own folder, at server start",
}
"""Functions that touch the disk or the engine themselves without a question of their own, and why they may."""


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.ClassDef):
            yield from functions(child, f"{child.name}.")
        elif isinstance(child, ast.FunctionDef):
            yield prefix + child.name, child


def asked(function: ast.FunctionDef) -> tuple[set[str], bool]:
    """The actions that a function asks for by name, and whether it touches the disk or the engine itself."""
    actions, touches = set(), False
    for node in ast.walk(function):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("store.engine", "self.store.engine"):
            touches = True
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        called, owner = node.func.attr, ast.unparse(node.func.value)
        given = [*node.args, *(keyword.value for keyword in node.keywords)]
        if called in ("write", "adding_examples") and owner.split(".")[-1] in ("store", "_store"):
            actions.add(ast.literal_eval(given[0]) if given else "administer")
        elif called == "require":
            actions.add(ast.literal_eval(given[0]) if isinstance(given[0], ast.Constant) else "as asked")
        elif called in ("mkdir", "rmtree", "unlink", "write_text", "write_bytes") or ast.unparse(node.func) == (
            "JobFolder.create"
        ):
            touches = True
    return actions, touches


def every_function() -> Iterator[tuple[str, set[str], bool]]:
    for path in sorted(DB.glob("*.py")):
        for name, function in functions(ast.parse(path.read_text(encoding="utf-8"))):
            yield f"{path.stem}.{name}", *asked(function)


def test_what_less_than_an_admin_may_write_stands_in_the_list() -> None:
    found = {
        name: min(actions & {"look", "review"}, key=["look", "review"].index)
        for name, actions, _ in every_function()
        if actions & {"look", "review"}
    }
    assert found == WEAKER


def test_whoever_touches_disk_or_engine_asks_first() -> None:
    silent = {name for name, actions, touches in every_function() if touches and not actions}
    assert silent <= set(WITHOUT_ASKING), silent - set(WITHOUT_ASKING)


@pytest.mark.parametrize(
    ("role", "allowed"),
    [
        ("none", ()), ("viewer", ("look",)), ("reviewer", ("look", "review")),
        ("admin", ("look", "review", "administer")),
    ],
)  # fmt: skip
def test_what_each_role_may(tmp_path: Path, role: str, allowed: tuple[str, ...]) -> None:
    store = Store(tmp_path / "assay.duckdb")
    try:
        for action in permission.NEEDS:
            for opened in (store.write, store.adding_examples):
                with permission.as_actor(Actor("x", "X", role)):
                    if action in allowed:
                        with opened(action):
                            pass
                    else:
                        with pytest.raises(NotAllowedError, match=f"X has the role {role}"), opened(action):
                            raise AssertionError("the block must not run")
    finally:
        store.close()


def test_a_thread_that_nobody_sits_behind_acts_for_the_server() -> None:
    """An import that a person started goes on in a thread, and the collection of shards never had one."""
    found: list[Actor | None] = []
    with permission.as_actor(VERA):
        thread = threading.Thread(target=lambda: found.append(permission.acting()))
        thread.start()
        thread.join()
        assert permission.acting() == VERA
        with permission.as_server():
            assert permission.acting() is None
        assert permission.acting() == VERA
    assert found == [None]


# --- refusals leave no trace ---


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    made = Service(sample_stores.settings_at(tmp_path_factory.mktemp("permission") / "home"))  # nothing is started
    sample_stores.fill_half_scored(made.store)
    yield made
    made.store.close()


def state(made: Service) -> tuple[Any, ...]:
    """Every table's number of rows, and every file with its size, but for the store's own."""
    with made.store.read() as connection:
        tables = [row["t"] for row in rows(connection, "select table_name t from duckdb_tables() order by 1")]
        counts = [(name, rows(connection, f"select count(*) n from {name}")[0]["n"]) for name in tables]
        names = rows(connection, "select name from datasets order by dataset_id")
    files = sorted(
        (str(path), path.stat().st_size)
        for path in made.settings.home.rglob("*")
        if path.is_file() and not path.name.startswith("assay.duckdb")
    )
    return counts, names, files


def spec() -> JobSpec:
    return JobSpec(
        job_id="20260101-000000-000000-score-0000", kind="score", title="t", device="cpu", n_rows=1, shard_rows=1,
        params={}, created_at="2026-01-01T00:00:00", assay_version="0",
    )  # fmt: skip


NO_SOURCE: Any = (None, None, None)
Act = Callable[[Service], object]
ADMIN_ACTS: dict[str, Act] = {
    "import": lambda s: sample_stores.import_rows(s.store, sample_stores.rows(2), name="new"),
    "rename": lambda s: commands.rename_dataset(s.store, 1, name="new"),
    "remove": lambda s: commands.remove_dataset(s.store, 2),
    "make a dataset": lambda s: commands.create_dataset(
        s.store, name="n", kind="selection", source="s", example_ids=[1]
    ),
    "upload": lambda s: imports.keep_upload(s.settings.home / "uploads", "a.json", io.BytesIO(b"[]")),
    "start an import": lambda s: imports.start_import(s.store, *NO_SOURCE, on_success=lambda: None),
    "mark": lambda s: evaluation.mark(s.store, 1),
    "export": lambda s: exports.export_curated(
        s.store, s.settings.exports_path, dataset_id=1, dataset="x", choice=ExportChoice(), format="alpaca",
        expected="", exported_by=None,
    ),
    "record a job": lambda s: job_records.record_job(s.store, spec()),
    "retry": lambda s: jobs.submit_retry(s.store, s.settings.jobs_path, job_id=spec().job_id),
    "forget a job": lambda s: jobs.forget(s.store, spec().job_id),
    "cancel": lambda s: s.scheduler.cancel(spec().job_id),
    "resume": lambda s: s.scheduler.resume(spec().job_id),
    "order": lambda s: s.scheduler.set_priority(spec().job_id, 3),
    "remove a job": lambda s: s.remove_job(spec().job_id),
    "queue": lambda s: s.scheduler.submit(JobFolder(s.settings.jobs_path / spec().job_id)),
    "remember a model": lambda s: remembered.remember(s.settings.home, {"student": StudentSettings("m")}),
    "remove a rule": lambda s: fits.remove_rule(s.store, 1),
    "remove a study": lambda s: studies.remove_study(s.store, 1),
    "hold": lambda s: experiments.hold(s.store, 1, held=True),
    "remove benchmarks": lambda s: lm_eval.remove_results(s.store, "x"),
    "make a campaign": lambda s: campaigns.create(s.store, name="c", pair_ids=[1, 2], created_by="vera"),
    "undo a bulk action": lambda s: bulk.undo(s.store, 1, by="vera"),
    "give a role": lambda s: people.grant(s.store, "vera", "admin", "vera", default="admin"),
}  # fmt: skip
REVIEW_ACTS: dict[str, Act] = {
    "decide": lambda s: decisions.decide(s.store, pair_id=9, reviewer="vera", verdict="accept"),
    "keep a draft": lambda s: drafts.save(s.store, "vera", {9: {"instruction": "a", "input": "", "output": "b"}}),
    "judge": lambda s: people_judging.ensure_person(s.store, "vera"),
    "mark pairs": lambda s: pair_lists.create(s.store, [1], name="mine", created_by="vera"),
    "save a filter": lambda s: saved_filters.save(s.store, page="pairs", name="f", params={}, owner="vera"),
}


@pytest.mark.parametrize("act", [*ADMIN_ACTS, *REVIEW_ACTS])
def test_a_viewer_changes_nothing(act: str, installation: Service) -> None:
    before = state(installation)
    with permission.as_actor(VERA), pytest.raises(NotAllowedError, match="Vera has the role viewer"):
        ({**ADMIN_ACTS, **REVIEW_ACTS}[act])(installation)
    assert state(installation) == before


@pytest.mark.parametrize("act", ADMIN_ACTS)
def test_a_reviewer_changes_no_data_job_or_role(act: str, installation: Service) -> None:
    before = state(installation)
    with permission.as_actor(RITA), pytest.raises(NotAllowedError, match="an admin is needed"):
        ADMIN_ACTS[act](installation)
    assert state(installation) == before


def test_a_viewer_keeps_preferences_and_a_reviewer_reviews(tmp_path: Path) -> None:
    made = Service(sample_stores.settings_at(tmp_path / "home"))
    try:
        sample_stores.fill_half_scored(made.store)
        with permission.as_actor(VERA):
            preferences.save(made.store, "vera", "keys", {"accept": "y"})
        with permission.as_actor(Actor("vera", "Vera", "reviewer")):
            for act in REVIEW_ACTS.values():
                act(made)
        assert preferences.preference(made.store, "vera", "keys", {}) == {"accept": "y"}
    finally:
        made.store.close()
