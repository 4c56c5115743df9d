"""A team with a server of its own, and what stands after its review: plain SQL, and agreement in plain Python."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
from playwright.sync_api import Dialog, Page

from db.store import Store
from tests.browser.conftest import Server
from tests.browser.steps import rest
from tests.pages import sample_stores

N_PAIRS, N_OTHERS = 60, 8


@dataclass
class Team:
    """The server, the page of each person, and what each said of which pair, by the keys that were pressed."""

    server: Server
    environment: dict[str, str]
    pages: dict[str, Page]
    said: dict[tuple[str, int], str] = field(default_factory=dict)
    dialogs: list[str] = field(default_factory=list)

    def hear(self, dialog: Dialog) -> None:
        self.dialogs.append(f"{dialog.type}: {dialog.message}")
        dialog.accept()

    def go(self, identity: str, path: str) -> Page:
        page = self.pages[identity]
        page.goto(f"{self.server.url}/{path}")
        rest(page)
        return page


def fill(home: Path) -> None:
    """60 pairs of one dataset, for the campaign, and 8 of another."""
    home.mkdir()
    store = Store(home / "assay.duckdb")
    made = sample_stores.rows(N_PAIRS + N_OTHERS)
    for name, examples in (("Rivers", made[:N_PAIRS]), ("More rivers", made[N_PAIRS:])):
        dataset_id = sample_stores.import_rows(store, examples, name=name)
        for i, original_id in enumerate(sample_stores.example_ids(store, dataset_id)):
            sample_stores.add_pair(
                store, dataset_id, original_id, sample_stores.reflected(examples[i], "instruction"), ifd=(0.5, 0.6)
            )
    store.close()


def standing(home: Path) -> list[dict[str, Any]]:
    """Decisions that were not taken back, read from the disk by nothing of ours; no server may run."""
    sql = """select d.* from decisions d where verdict <> 'undo'
        and not exists (select 1 from decisions u where u.undoes = d.decision_id) order by decision_id"""
    with duckdb.connect(str(home / "assay.duckdb"), read_only=True) as connection:
        found: list[dict[str, Any]] = connection.sql(sql).to_arrow_table().to_pylist()
        return found


def alpha_of(units: list[list[str]]) -> float:
    """Krippendorff's alpha for nominal verdicts, as he writes it (2011), one pair of values after the other."""
    values = [value for unit in units for value in unit]
    n, counts = len(values), Counter(values)
    observed = sum(sum(a != b for a in unit for b in unit) / (len(unit) - 1) for unit in units) / n
    expected = sum(counts[a] * counts[b] for a in counts for b in counts if a != b) / (n * (n - 1))
    return 1 - observed / expected


def kappa_of(a: list[str], b: list[str]) -> float:
    """Cohen's kappa (1960)."""
    n = len(a)
    observed = sum(x == y for x, y in zip(a, b, strict=True)) / n
    expected = sum(Counter(a)[k] * Counter(b)[k] for k in {*a, *b}) / n**2
    return (observed - expected) / (1 - expected)
