"""The Export page writes exactly the rows it counted, the same bytes each time, and never anything else silently."""

from __future__ import annotations

import csv
import hashlib
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from streamlit.testing.v1 import AppTest

from core.errors import StoreError
from core.export import FORMATS, manifest_path
from core.filters import EXPORT_OPTIONS, ExportChoice
from db import curated, decisions, exports
from db.service import Service
from tests.pages import sample_stores
from tests.pages.conftest import RunPage

DATASET_ID = 1
DEFAULT = ExportChoice()


def export(
    service: Service, choice: ExportChoice = DEFAULT, *, format: str = "alpaca", mark: str | None = None
) -> exports.Exported:
    shown = curated.curated_summary(service.store, DATASET_ID, choice)
    return exports.export_curated(
        service.store,
        service.settings.exports_path,
        dataset_id=DATASET_ID,
        dataset=sample_stores.DATASET,
        choice=choice,
        format=format,
        expected=shown.mark if mark is None else mark,
        exported_by="Dana",
    )


def rows_of(path: Path, format: str) -> int:
    if format == "parquet":
        return int(pq.read_metadata(path).num_rows)
    if format == "csv":
        with path.open(newline="", encoding="utf-8") as stream:
            return sum(1 for _ in csv.reader(stream)) - 1
    text = path.read_text(encoding="utf-8")
    return len(text.splitlines()) if path.suffix == ".jsonl" else len(json.loads(text))


@pytest.mark.parametrize("format", [one.key for one in FORMATS])
def test_each_format_holds_as_many_rows_as_the_page_counts_and_the_same_bytes_twice(
    half_scored_home: Service, format: str
) -> None:
    shown = curated.curated_summary(half_scored_home.store, DATASET_ID, ExportChoice())
    first, second = export(half_scored_home, format=format), export(half_scored_home, format=format)
    assert rows_of(first.result.path, format) == first.result.n_rows == shown.n_kept
    assert first.result.path != second.result.path
    assert first.result.path.read_bytes() == second.result.path.read_bytes()
    assert hashlib.sha256(first.result.path.read_bytes()).hexdigest() == first.result.sha256


@pytest.mark.parametrize("undecided", EXPORT_OPTIONS["undecided"])
@pytest.mark.parametrize("rejected", EXPORT_OPTIONS["rejected"])
def test_every_choice_gives_the_counted_rows(half_scored_home: Service, undecided: str, rejected: str) -> None:
    choice = ExportChoice(undecided=undecided, rejected=rejected, not_reflected="leave out")
    shown = curated.curated_summary(half_scored_home.store, DATASET_ID, choice)
    done = export(half_scored_home, choice, format="jsonl")
    written = [json.loads(line) for line in done.result.path.read_text(encoding="utf-8").splitlines()]
    for kept in ("original", "reflected"):
        promised = sum(row["n"] for row in shown.counts if row["kept"] == kept)
        assert sum(row["source"] == kept for row in written) == promised


def test_accepted_edited_and_mixed_texts_are_in_the_file(half_scored_home: Service) -> None:
    written = json.loads(export(half_scored_home).result.path.read_text(encoding="utf-8"))
    originals = sample_stores.rows()
    assert written[0]["instruction"] == sample_stores.reflected(originals[0], "instruction").instruction  # accepted
    assert written[1]["output"] == originals[1].output  # rejected
    new_response = sample_stores.reflected(originals[2], "instruction").output
    assert (written[2]["instruction"], written[2]["output"]) == (originals[2].instruction, new_response)
    assert written[6] == {"instruction": "Edited", "input": "", "output": "Better"}
    assert sample_stores.HOSTILE in written[3]["input"]


def test_the_manifest_says_what_was_chosen_counted_scored_and_by_whom(half_scored_home: Service) -> None:
    done = export(half_scored_home, ExportChoice(rejected="leave out"))
    manifest = json.loads(manifest_path(done.result.path).read_text(encoding="utf-8"))
    assert manifest["choices"] == {"undecided": "original", "rejected": "leave out", "not_reflected": "original"}
    assert manifest["members"] == [dict(row) for row in done.counts.counts]
    assert manifest["file"]["sha256"] == done.result.sha256
    assert (manifest["created_by"], manifest["dataset"]) == ("Dana", sample_stores.DATASET)
    assert {scorer["output"] for scorer in manifest["scorers"]} >= {"ifd", "r_ifd"}
    assert manifest["dataset_digest"] == done.result.dataset_digest
    assert curated.exports(half_scored_home.store)[0]["sha256"] == done.result.sha256


def test_a_decision_between_counting_and_exporting_stops_the_export(half_scored_home: Service) -> None:
    store = half_scored_home.store
    shown = curated.curated_summary(store, DATASET_ID, ExportChoice())
    decisions.decide(store, pair_id=8, reviewer="Ben", verdict="accept")
    with pytest.raises(exports.CuratedSetChangedError, match="Decisions changed"):
        export(half_scored_home, mark=shown.mark)
    assert list(half_scored_home.settings.exports_path.iterdir()) == []
    assert curated.exports(store) == []


def test_a_swap_that_leaves_every_count_equal_is_noticed_too(half_scored_home: Service) -> None:
    store = half_scored_home.store
    before = curated.curated_summary(store, DATASET_ID, ExportChoice())
    decisions.undo(store, reviewer="Ben")  # pair 7 was edited …
    decisions.decide(store, pair_id=7, reviewer="Ben", verdict="edit", edited=sample_stores.rows(1)[0])  # … otherwise
    after = curated.curated_summary(store, DATASET_ID, ExportChoice())
    assert after.counts == before.counts
    assert after.mark != before.mark


def test_leaving_everything_out_is_an_error_not_an_empty_file(empty_home: Service) -> None:
    rows = [sample_stores.Example("Add 1.", "", "2")]
    dataset_id = sample_stores.import_rows(empty_home.store, rows, name="One")
    choice = ExportChoice(not_reflected="leave out")
    with pytest.raises(StoreError, match="every row is left out"):
        exports.export_curated(
            empty_home.store, empty_home.settings.exports_path, dataset_id=dataset_id, dataset="One", choice=choice,
            format="alpaca", expected=curated.curated_summary(empty_home.store, dataset_id, choice).mark,
            exported_by=None,
        )  # fmt: skip


def test_file_names_are_safe_whatever_the_dataset_is_called(half_scored_home: Service) -> None:
    name = export(half_scored_home).result.path.name
    assert name.startswith("sample-rows-b-of-b-may-alpaca-")
    moment = datetime(2026, 5, 4)
    assert exports.file_name("../../etc/passwd", format="csv", moment=moment).startswith("etc-passwd-csv-")
    assert exports.file_name("日本", format="csv", moment=moment).startswith("dataset-csv-")


# ---- the page ----


def button(app: AppTest, key: str) -> Any:
    return next(one for one in app.button if one.key == key)


def test_an_empty_store_says_what_to_do_first(empty_home: Service, run_page: RunPage) -> None:
    app = run_page("export")
    assert "no dataset yet" in app.markdown[0].value
    assert not app.button


def test_the_page_exports_what_it_counts(half_scored_home: Service, run_page: RunPage) -> None:
    app = run_page("export", dataset="1")
    assert button(app, "export_button").disabled  # the manifest says by whom, so it asks
    app.text_input(key="export_by").set_value(" Dana ").run()
    assert [metric.value for metric in app.metric] == ["24", "3", "21", "0"]
    app.radio(key="export_not_reflected").set_value("leave out").run()
    assert app.query_params["not_reflected"] == "leave out"
    assert [metric.value for metric in app.metric] == ["10", "3", "7", "14"]
    button(app, "export_button").click().run()
    assert not app.exception
    assert any("10 rows written" in one.value for one in app.markdown)
    (path,) = half_scored_home.settings.exports_path.glob("*.json.manifest.json")
    manifest = json.loads(path.read_text(encoding="utf-8"))
    assert (manifest["n_rows"], manifest["created_by"]) == (10, "Dana")
    assert len(json.loads(path.with_name(manifest["file"]["name"]).read_text(encoding="utf-8"))) == 10
    assert any(one.value == "Earlier exports" for one in app.subheader)
    app.radio(key="export_rejected").set_value("leave out").run()
    assert not any("rows written" in one.value for one in app.markdown)  # that file is another choice's


def test_a_decision_after_the_page_was_drawn_is_said_and_the_new_counts_are_shown(
    half_scored_home: Service, run_page: RunPage
) -> None:
    app = run_page("export", dataset="1")
    app.text_input(key="export_by").set_value("Dana").run()
    decisions.decide(half_scored_home.store, pair_id=8, reviewer="Ben", verdict="accept")
    button(app, "export_button").click().run()
    assert "Decisions changed" in app.warning[0].value
    assert [metric.value for metric in app.metric] == ["24", "4", "20", "0"]
    assert list(half_scored_home.settings.exports_path.iterdir()) == []
    button(app, "export_button").click().run()
    assert any("24 rows written" in one.value for one in app.markdown)


def test_a_dataset_without_pairs_says_so(half_scored_home: Service, run_page: RunPage) -> None:
    app = run_page("export", dataset="2")
    assert "Nothing of this dataset has been reflected on" in app.info[0].value
    app.text_input(key="export_by").set_value("Dana").run()
    assert not button(app, "export_button").disabled
    app.radio(key="export_not_reflected").set_value("leave out").run()
    assert button(app, "export_button").disabled


def test_the_url_keeps_the_choice(half_scored_home: Service, run_page: RunPage) -> None:
    app = run_page("export", dataset="1", undecided="student's proposal", format="csv")
    assert app.radio(key="export_undecided").value == "student's proposal"
    assert "as CSV" in button(app, "export_button").label
    assert app.metric[1].value == "8"


def test_a_failed_job_changes_nothing_here(failed_job_home: Service, run_page: RunPage) -> None:
    app = run_page("export", dataset="1")
    assert app.metric[0].value == "24"


# ---- past states ----


def test_the_page_exports_the_set_as_it_was_after_a_decision(half_scored_home: Service, run_page: RunPage) -> None:
    app = run_page("export", dataset="1", as_of="decision:1")
    assert [metric.value for metric in app.metric] == ["24", "1", "23", "0"]
    assert any("up to decision 1" in one.value for one in app.caption)
    app.text_input(key="export_by").set_value("Dana").run()
    button(app, "export_button").click().run()
    assert not app.exception
    (path,) = half_scored_home.settings.exports_path.glob("*.manifest.json")
    manifest = json.loads(path.read_text(encoding="utf-8"))
    assert (manifest["state"]["last_decision_id"], manifest["n_rows"]) == (1, 24)
    app.button_group(key="export_state_kind").set_value("now").run()
    assert "as_of" not in app.query_params
    assert app.metric[1].value == "3"


def test_a_state_that_cannot_be_read_says_why(half_scored_home: Service, run_page: RunPage) -> None:
    assert "Decision 99 is not in the store" in run_page("export", dataset="1", as_of="decision:99").warning[0].value
    assert "has not been exported" in run_page("export", dataset="1", as_of="export:1").info[0].value
    assert not run_page("export", dataset="1", as_of="time:yesterday").exception


def test_an_earlier_export_is_looked_at_and_written_again(half_scored_home: Service, run_page: RunPage) -> None:
    first = export(half_scored_home, format="jsonl")
    before = first.result.path.read_bytes()
    decisions.decide(half_scored_home.store, pair_id=8, reviewer="Ben", verdict="accept")
    app = run_page("export", dataset="1", as_of="export:1")
    assert app.metric[1].value == "3"  # of now it would be 4
    again = exports.export_again(
        half_scored_home.store, half_scored_home.settings.exports_path, export_id=first.export_id, exported_by="Eve"
    )
    assert again.result.path.read_bytes() == before
    assert [row["sha256"] for row in curated.exports(half_scored_home.store)] == [first.result.sha256] * 2
