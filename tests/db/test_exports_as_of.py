"""Any past state of a curated set comes out again byte by byte, whatever has happened to the store since."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from core.errors import InputError, StoreError
from core.example import Example
from core.export import FORMATS, manifest_path
from core.filters import ExportChoice
from core.moment import Moment
from db import campaigns, commands, curated, decisions, exports, past
from db.decisions import Entry
from db.store import Store, frame, utc_now
from tests.db.conftest import EXAMPLES, add_pair

PROPOSALS = ExportChoice(undecided="student's proposal")


def rewritten(i: int, word: str = "Reflected") -> Example:
    return Example(f"{word}: {EXAMPLES[i].instruction}", EXAMPLES[i].input, f"{word} answer {i}")


def reflect(store: Store, dataset_id: int, i: int, *, job_id: str, word: str) -> int:
    """One more pair and what its job made of the whole row."""
    pair_id = add_pair(
        store, dataset_id=dataset_id, original=EXAMPLES[i], candidate=rewritten(i, word), job_id=job_id, ifd=(0.5, 0.6)
    )
    with store.write() as connection:
        connection.execute(
            text("""insert into reflections (job_id, dataset_id, example_id, final_id, kept, why)
            select job_id, dataset_id, original_id, candidate_id, true, 'why' from pairs where pair_id = :id"""),
            {"id": pair_id},
        )
    return pair_id


@pytest.fixture
def pairs(store: Store, dataset_id: int) -> list[int]:
    return [reflect(store, dataset_id, i, job_id="20260101-a", word="Reflected") for i in range(5)]


def decide(store: Store, pair_id: int, who: str, verdict: str, *, purpose: str = "review") -> int:
    edited = Example(f"Edited by {who}", "", "Better") if verdict == "edit" else None
    press = f"{who}-{pair_id}-{verdict}-{purpose}-{utc_now().isoformat()}"
    entry = Entry(
        press=press, action="decide", pair_id=pair_id, verdict=verdict, edited=edited, purpose=purpose, check_seen=False
    )
    [done] = decisions.apply(store, [entry], reviewer=who)
    assert done.decision_id is not None, done.text
    return done.decision_id


def export(
    store: Store, folder: Path, dataset_id: int, *, format: str, moment: Moment | None = None
) -> exports.Exported:
    shown = curated.curated_summary(store, dataset_id, PROPOSALS, moment=moment)
    return exports.export_curated(
        store, folder, dataset_id=dataset_id, dataset="six", choice=PROPOSALS, format=format, expected=shown.mark,
        exported_by="Dana", moment=moment,
    )  # fmt: skip


def change_everything(store: Store, dataset_id: int, pairs: list[int]) -> None:
    """Whatever may happen to a dataset that was exported once."""
    decisions.undo(store, reviewer="Ben")
    decide(store, pairs[0], "Cleo", "reject")
    decide(store, pairs[1], "Cleo", "edit")
    campaign = campaigns.create(
        store, name="again", pair_ids=pairs, people=["Ada", "Ben", "Cleo"], overlap=3, guidelines="", gold={},
        blind=True, created_by="Dana",
    )  # fmt: skip
    assert campaign
    decide(store, pairs[2], "Dana", "accept", purpose="adjudication")
    decide(store, pairs[4], "Ada", "reject")
    reflect(store, dataset_id, 3, job_id="20260202-b", word="Newly")
    reflect(store, dataset_id, 5, job_id="20260202-b", word="Newly")
    commands.rename_dataset(store, dataset_id, name="Six of them")


def test_every_format_comes_out_again_after_everything_changed(
    store: Store, dataset_id: int, pairs: list[int], tmp_path: Path
) -> None:
    campaigns.create(
        store, name="first", pair_ids=pairs[2:4], people=["Ada", "Ben"], overlap=2, guidelines="", gold={}, blind=True,
        created_by="Dana",
    )  # fmt: skip
    decide(store, pairs[0], "Ada", "accept")
    decide(store, pairs[1], "Ada", "new_response")
    for who, verdict in (("Ada", "accept"), ("Ben", "reject")):  # disputed: nothing stands on it
        decide(store, pairs[2], who, verdict)
    decide(store, pairs[3], "Ada", "accept")
    decide(store, pairs[3], "Ben", "accept")
    folder = tmp_path / "exports"
    made = {one.key: export(store, folder, dataset_id, format=one.key) for one in FORMATS}
    bytes_then = {key: done.result.path.read_bytes() for key, done in made.items()}
    change_everything(store, dataset_id, pairs)
    now = export(store, folder, dataset_id, format="jsonl")
    assert now.result.path.read_bytes() != bytes_then["jsonl"]
    for key, done in made.items():
        done.result.path.unlink()  # it is written anew from the store, never copied
        again = exports.export_again(store, folder, export_id=done.export_id, exported_by="Eve")
        assert again.result.path.read_bytes() == bytes_then[key], key
        assert (again.same, again.differs, again.counts) == (True, None, done.counts)
        said = json.loads(manifest_path(again.result.path).read_text(encoding="utf-8"))
        assert said["again"]["same_bytes"] is True
    # An export that was made again can be made again.
    twice = exports.export_again(store, folder, export_id=again.export_id, exported_by=None)
    assert twice.same


def test_a_decision_that_was_on_its_way_stays_out(
    store: Store, dataset_id: int, pairs: list[int], tmp_path: Path
) -> None:
    """Its id was taken before, its row committed after the export: a greatest id alone would let it in later."""
    insert = """insert into decisions (decision_id, pair_id, reviewer, verdict, result_id, shown, press, decided_at,
        purpose) select nextval('decision_ids'), pair_id, 'Slow', 'accept', candidate_id, '{}', 'slow', :at, 'review'
        from pairs where pair_id = :pair"""
    with store.engine.connect() as slow, slow.begin():
        slow.execute(text(insert), {"pair": pairs[0], "at": utc_now()})
        decide(store, pairs[1], "Ada", "accept")
        done = export(store, tmp_path, dataset_id, format="jsonl")
        slow.commit()
    state = json.loads(done.manifest.read_text(encoding="utf-8"))["state"]
    assert state["absent_decisions"] == [[1, 1]]
    assert curated.curated_summary(store, dataset_id, PROPOSALS).mark != done.counts.mark
    assert exports.export_again(store, tmp_path, export_id=done.export_id, exported_by=None).same


def test_each_moment_of_a_history_is_found_by_its_decision_and_by_its_time(
    store: Store, dataset_id: int, pairs: list[int]
) -> None:
    seen: list[tuple[Moment, Moment, str]] = []

    def after(step: Callable[[], int]) -> None:
        decision_id = step()
        mark = curated.curated_summary(store, dataset_id, PROPOSALS).mark
        named = past.after_decision(store, decision_id)
        seen.append((named, past.at_time(store, utc_now()), mark))

    def undo() -> int:
        decisions.undo(store, reviewer="Ada")
        with store.read() as connection:
            return int(frame(connection, "select max(decision_id) i from decisions")["i"][0].as_py())

    def campaign() -> int:
        campaigns.create(
            store, name="c", pair_ids=pairs[:2], people=["Ada", "Ben"], overlap=2, guidelines="", gold={}, blind=True,
            created_by="x",
        )  # fmt: skip
        return decide(store, pairs[1], "Ben", "accept")

    after(lambda: decide(store, pairs[0], "Ada", "accept"))
    after(lambda: decide(store, pairs[0], "Ben", "edit"))
    after(undo)
    after(campaign)
    after(lambda: decide(store, pairs[1], "Ada", "accept"))
    after(lambda: decide(store, pairs[0], "Dana", "reject", purpose="adjudication"))
    change_everything(store, dataset_id, pairs)
    assert len({mark for _, _, mark in seen}) >= 5
    for i, (by_decision, by_time, mark) in enumerate(seen):
        assert curated.curated_summary(store, dataset_id, PROPOSALS, moment=by_time).mark == mark, i
        if i != 3:  # the campaign stood before the decision that came after it
            assert curated.curated_summary(store, dataset_id, PROPOSALS, moment=by_decision).mark == mark, i
        assert Moment.from_json(json.loads(json.dumps(by_time.to_json()))) == by_time


def test_a_clock_that_was_set_back_hides_no_decision(store: Store, dataset_id: int, pairs: list[int]) -> None:
    """The state after a decision left out earlier ones whose time was later than its own."""
    decide(store, pairs[0], "Ada", "accept")
    with store.write() as connection:
        connection.execute(text("update decisions set decided_at = decided_at + interval '1 day'"))
    after = decide(store, pairs[1], "Ada", "reject")
    mark = curated.curated_summary(store, dataset_id, PROPOSALS).mark
    decide(store, pairs[2], "Ada", "accept")
    found = curated.curated_summary(store, dataset_id, PROPOSALS, moment=past.after_decision(store, after))
    assert found.mark == mark


def test_now_as_a_moment_is_now(store: Store, dataset_id: int, pairs: list[int]) -> None:
    decide(store, pairs[0], "Ada", "accept")
    change_everything(store, dataset_id, pairs)
    moment = past.now(store)
    assert moment.exact
    for choice in (PROPOSALS, ExportChoice(rejected="leave out")):
        assert curated.curated_table(store, dataset_id, choice) == curated.curated_table(
            store, dataset_id, choice, moment=moment
        )


def test_what_cannot_be_repeated_says_why(store: Store, dataset_id: int, pairs: list[int], tmp_path: Path) -> None:
    decide(store, pairs[0], "Ada", "accept")
    done = export(store, tmp_path, dataset_id, format="alpaca")
    with store.write() as connection:  # as references are added to a dataset: its own rows change
        connection.execute(
            text("update members set example_id = 1 where dataset_id = :d and position = 5"), {"d": dataset_id}
        )
    again = exports.export_again(store, tmp_path, export_id=done.export_id, exported_by=None)
    assert (again.same, again.result.path.exists()) == (False, True)
    assert "rows of the dataset itself" in str(again.differs)
    commands.remove_dataset(store, dataset_id)
    with pytest.raises(StoreError, match="was removed"):
        exports.export_again(store, tmp_path, export_id=done.export_id, exported_by=None)
    with pytest.raises(StoreError, match="not in the store"):
        exports.export_again(store, tmp_path, export_id=99, exported_by=None)


def test_an_export_of_an_older_version_is_made_again_from_its_time(
    store: Store, dataset_id: int, pairs: list[int], tmp_path: Path
) -> None:
    """Its manifest names no state: that of its second is the likeliest, and the bytes tell whether it was."""
    decide(store, pairs[0], "Ada", "accept")
    done = export(store, tmp_path, dataset_id, format="jsonl")
    old = {key: value for key, value in json.loads(done.manifest.read_text(encoding="utf-8")).items()
           if key not in ("state", "review", "members_digest", "software", "manifest_format")}  # fmt: skip
    with store.write() as connection:
        connection.execute(text("update exports set manifest = :m"), {"m": json.dumps(old)})
    assert exports.recorded(store, done.export_id).guessed
    change_everything(store, dataset_id, pairs)
    assert exports.export_again(store, tmp_path, export_id=done.export_id, exported_by=None).same


def test_the_manifest_says_who_reviewed_and_how_far_they_agree(
    store: Store, dataset_id: int, pairs: list[int], tmp_path: Path
) -> None:
    campaigns.create(
        store, name="both", pair_ids=pairs[:4], people=["Ada", "Ben"], overlap=2, guidelines="", gold={}, blind=True,
        created_by="x",
    )  # fmt: skip
    for i, (one, other) in enumerate((("accept", "accept"), ("reject", "reject"), ("accept", "reject"))):
        decide(store, pairs[i], "Ada", one)
        decide(store, pairs[i], "Ben", other)
    said = json.loads(export(store, tmp_path, dataset_id, format="alpaca").manifest.read_text(encoding="utf-8"))
    assert said["manifest_format"] == 2
    review = said["review"]
    assert {row["reviewer"]: row["n_decisions"] for row in review["reviewers"]} == {"Ada": 3, "Ben": 3}
    assert review["campaigns"] == [{"campaign_id": 1, "name": "both", "overlap": 2, "n_pairs": 4}]
    found = review["agreement"]
    assert (found["n_pairs_by_two_or_more"], found["n_unanimous"], found["n_open"]) == (3, 2, 1)
    # Six verdicts, half of each: D_o = 1/3, D_e = 2*3*3/(6*5) = 0.6, alpha = 4/9.
    assert found["krippendorff_alpha"]["value"] == pytest.approx(4 / 9)
    assert found["cohen_kappa"][0]["reviewers"] == ["Ada", "Ben"]


def test_a_moment_of_another_form_is_refused() -> None:
    moment = Moment(3, 2, 1, absent_decisions=((1, 1),), when="2026-01-01")
    assert Moment.from_json(moment.to_json()) == moment
    with pytest.raises(InputError, match="of the form 2"):
        Moment.from_json(moment.to_json() | {"format": 2})
    with pytest.raises(InputError, match="cannot be read"):
        Moment.from_json({"format": 1})


def test_many_missing_ids_are_read_as_few_are(store: Store, dataset_id: int, pairs: list[int]) -> None:
    with store.write() as connection:
        connection.execute(
            text("""insert into decisions (decision_id, pair_id, reviewer, verdict, shown, press, decided_at, purpose)
            select 2 * i, :pair, 'r', 'reject', '{}', 'p' || i, :at, 'review' from range(1, 100) t(i)"""),
            {"pair": pairs[0], "at": utc_now()},
        )
    moment = past.now(store)
    assert len(moment.absent_decisions) == 99
    shorter = dataclasses.replace(moment, absent_decisions=())
    assert curated.curated_summary(store, dataset_id, PROPOSALS, moment=moment) == curated.curated_summary(
        store, dataset_id, PROPOSALS, moment=shorter
    )


def test_the_views_read_no_table_that_is_not_frozen() -> None:
    """The past is read through the views' own texts: a further table in them would be read as it is now."""
    frozen = {"decisions", "campaign_pairs", "campaigns", *past.VIEWS}
    from db import schema

    tables = {
        statement.split()[2].split("(")[0]
        for version in (schema.V1, schema.V2, schema.V3, schema.V4, schema.V5)
        for statement in version
        if statement.startswith(("create table", "create view"))
    }
    for name, sql in past.view_texts().items():
        words = set(sql.replace("(", " ").replace(")", " ").replace(",", " ").split())
        assert words & tables <= frozen, name
