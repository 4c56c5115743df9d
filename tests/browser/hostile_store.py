"""A store whose every text is hostile: rows, names, notes, people, models, jobs, prompts (tests/hostile.py)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

import core
from core.campaign import CampaignSettings
from core.example import Example
from core.filters import PairFilter
from core.jobs.folder import JobFolder
from core.jobs.spec import JobSpec
from core.reflection_prompt import builtin, json_task_of, save_copy
from core.rules import Rule, Term
from core.sign_in import NAMES, clean_name
from db import (
    board,
    bulk,
    campaigns,
    commands,
    decisions,
    drafts,
    fits,
    jobs,
    pair_lists,
    people,
    preferences,
    queries,
    saved_filters,
    votes,
)  # fmt: skip
from db.service import Service
from db.store import Store, scalar, utc_now
from tests.hostile import SHORT, TEXTS
from tests.pages import judged_stores, sample_stores, study_stores, test_experiment
from tests.pages.conftest import running

PEOPLE = tuple(clean_name(one) for one in SHORT)
VERDICTS = ("accept", "reject", "edit", "new_instruction", "skip", "flag")
PAINTED = (
    # What workers, teachers and files bring into the store, and names given long ago.
    ("datasets", "name"), ("datasets", "source"), ("datasets", "created_by"), ("studies", "created_by"),
    ("studies", "name"), ("runs", "label"), ("fits", "name"), ("rules", "name"), ("rules", "note"),
    ("answer_sets", "name"), ("comparisons", "name"), ("judges", "name"), ("judges", "model"), ("experiments", "name"),
    ("jobs", "title"), ("jobs", "submitted_by"), ("pairs", "teacher"), ("pairs", "method"),
    ("pairs", "proposal_reason"), ("teacher_calls", "teacher"), ("teacher_calls", "model"), ("teacher_calls", "raw"),
    ("teacher_calls", "prompt_version"), ("scorers", "model"), ("scorers", "template"), ("judgements", "reason"),
    ("judgements", "raw"), ("answers", "answer"), ("reflections", "why"), ("campaigns", "created_by"),
    ("job_failures", "reason"), ("pair_lists", "created_by"), ("bulk_actions", "done_by"),
)  # fmt: skip


def fill(home: Path) -> int:
    """Fill the store of an installation, with a failed job and an edited prompt beside it.

    Returns the id of the dataset that has a row for each text.
    """
    with running(home) as service:
        studied = study_stores.fill(service.store)
        test_experiment.fill(service)
        judged_stores.fill(service.store)
        rule = Rule(name="rule", intercept=1.0, terms=(Term("length", -0.01),), origin="typed", source=SHORT[0])
        fits.save_rule(service.store, rule, name="rule")
        dataset_id = _dataset(service.store)
        pair_ids = _pairs(service.store, dataset_id)
        _people(service.store)
        _decisions(service.store, pair_ids)
        _team(service.store, pair_ids)
        _failed_job(service, studied.evaluation_id)
        _prompt(service)
        _paint(service.store)
    return dataset_id


def _dataset(store: Store) -> int:
    """One row per text, which stands in all three texts and in the names and values of its metadata."""
    rows = [Example(f"{number} {one}", one, f"{one} {number}") for number, one in enumerate(TEXTS)]
    metadata = [json.dumps({"category": one[:200], one[:60]: one[:300], "nested": {one[:30]: [one[:30]]}})
                for one in TEXTS]  # fmt: skip
    batch = pa.RecordBatch.from_pydict(
        {
            "row": pa.array(range(len(rows)), pa.int64()),
            "hash": [one.hash for one in rows],
            "instruction": [one.instruction for one in rows],
            "input": [one.input for one in rows],
            "output": [one.output for one in rows],
            "metadata": metadata,
        }
    )
    dataset_id = commands.import_dataset(store, [batch], name="hostile", source=SHORT[2], created_by=SHORT[3])
    sample_stores.score_half(store, dataset_id)
    return dataset_id


def _pairs(store: Store, dataset_id: int) -> list[int]:
    """A pair of each row: the candidate holds another of the texts, the critique yet another; the longest comes first,
    as the desk shows it."""
    originals = sample_stores.example_ids(store, dataset_id)
    made = []
    for place in (len(TEXTS) - 1, *range(len(TEXTS) - 1)):
        one, other = TEXTS[place], SHORT[(place + 1) % len(SHORT)]
        made.append(
            sample_stores.add_pair(
                store, dataset_id, originals[place], Example(f"{place} {one} new", f"{one} {other}", f"{other} {one}"),
                stage=("instruction", "response")[place % 2], ifd=(0.5, 0.4 + place / 100),
                critique={"critique": other, "helpfulness": SHORT[(place + 2) % len(SHORT)]},
            )
        )  # fmt: skip
    return made


def _people(store: Store) -> None:
    for place, name in enumerate(PEOPLE):
        people.see(store, f"{place}@{name}", name, NAMES)
        people.see(store, name, name, NAMES)
        people.grant(store, name, ("admin", "reviewer", "viewer", "none")[place % 4], SHORT[0], default="admin")


def _decisions(store: Store, pair_ids: list[int]) -> None:
    """Pairs 21 and on are decided, most of them by two people; nobody has touched those before."""
    for place, pair_id in enumerate(pair_ids[20:]):
        for who in range(1 + place % 3):
            verdict, one = VERDICTS[(place + who) % len(VERDICTS)], SHORT[(place * 3 + who) % len(SHORT)]
            decisions.decide(
                store, pair_id=pair_id, reviewer=PEOPLE[(place + who) % 9], verdict=verdict, note=one, seconds=3.0,
                edited=Example(one, one, one) if verdict == "edit" else None,
            )  # fmt: skip


def _team(store: Store, pair_ids: list[int]) -> None:
    """A campaign, filters, lists, a decision in bulk, drafts and preferences, a vote with its discussion."""
    for place, one in enumerate(SHORT[:4]):
        campaign_id = campaigns.create(
            store, name=f"{place} {one}"[:120], pair_ids=pair_ids, people=PEOPLE[: 4 + place] if place else (),
            overlap=2, guidelines="\n\n".join(SHORT), gold={pair_ids[3]: "accept"}, created_by=one,
            settings=CampaignSettings(source=one, adjudicators=PEOPLE[:2]),
        )  # fmt: skip
    campaigns.pause(store, campaign_id, by=PEOPLE[0])
    for place, one in enumerate(SHORT):
        for page in saved_filters.PAGES:
            saved_filters.save(
                store, page=page, name=one[:80], params={"text": one, one[:20]: one}, owner=PEOPLE[place], shared=True
            )
        pair_lists.create(store, pair_ids[:3], name=one, details={"note": one}, created_by=PEOPLE[place])
    done = bulk.apply(store, bulk.plan(store, pair_ids[18:20], "accept"), by=PEOPLE[1], note=SHORT[5])
    bulk.undo(store, done, by=PEOPLE[2])
    bulk.apply(store, bulk.plan(store, PairFilter(text=SHORT[0]), "reject"), by=PEOPLE[3], note=SHORT[4])
    drafts.save(store, "Ada", {pair_ids[1]: dict.fromkeys(("instruction", "input", "output"), "\n".join(SHORT))})
    preferences.save(store, "Ada", "keys", {"accept": SHORT[0], SHORT[1]: SHORT[2]})
    board.present(store, identity=PEOPLE[0], name=PEOPLE[0], slide="vote")
    vote_id = votes.open_vote(store, pair_id=pair_ids[4], identity=PEOPLE[0])
    for place, name in enumerate(PEOPLE[:6]):
        votes.cast(store, vote_id=vote_id, round=1, identity=name, press=f"ballot {place}",
                   verdict=("accept", "reject")[place % 2])  # fmt: skip
    votes.reveal(store, vote_id=vote_id, round=1, identity=PEOPLE[0])


def _failed_job(service: Service, dataset_id: int) -> None:
    """A job that failed with hostile words in its log, its message and the reasons of its rows."""
    ids = sample_stores.example_ids(service.store, dataset_id)
    spec = JobSpec(
        job_id="20260102-030405-000000-score-abcd", kind="score", title=SHORT[2], device="cpu", n_rows=len(ids),
        shard_rows=8, created_at=utc_now().isoformat(), created_by=SHORT[3], assay_version=core.__version__,
        params={"indicators": ["mtld", SHORT[4]], "student": None, "scorers": {}, "dataset_id": dataset_id,
                SHORT[5]: SHORT[6]},
    )  # fmt: skip
    service.settings.jobs_path.mkdir(parents=True, exist_ok=True)
    folder = JobFolder.create(
        service.settings.jobs_path / spec.job_id, spec, queries.examples_table(service.store, ids)
    )
    jobs.record_job(service.store, spec)
    folder.append_event("spawned", pid=2**22 + 7, create_time=1.0, device="cpu")
    for one in SHORT:
        folder.append_event("row_errors", reason=one, example_ids=ids[:2], shard=0)
        folder.append_event("note", message=one)
    folder.append_event("failed", message="\n".join(SHORT))
    (folder.path / "worker.log").write_text("\n".join(SHORT), encoding="utf-8")


def _prompt(service: Service) -> None:
    base = builtin("response")
    task = f"{base.task}\n" + "\n".join(one for one in SHORT if "{" not in one and one.replace("\n", "").isprintable())
    save_copy(
        service.settings.prompts_path,
        replace(base, based_on=base.version, task=task, json_task=json_task_of("response", task), title=SHORT[2]),
        name="hostile",
    )


def _paint(store: Store) -> None:
    """Put the texts in turn, each made distinct, into the columns that no function above fills."""
    with store.write() as connection:
        for place, (table, column) in enumerate(PAINTED):
            if not scalar(connection, f"select count(*) from {table} where {column} is not null"):
                continue
            raw = connection.connection.driver_connection
            assert raw is not None
            raw.execute(
                f"""update {table} set {column} = $texts[1 + n % len($texts)] || ' ' || n
                from (select rowid place, row_number() over () + {place} n from {table}) numbered
                where {table}.rowid = numbered.place and {column} is not null""",
                {"texts": list(SHORT)},
            )
