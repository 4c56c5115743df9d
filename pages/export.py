"""Export: the curated set of a dataset as a file with its manifest. The file holds exactly what the page counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from core import sign_in
from core.errors import AssayError
from core.export import FORMATS, ExportFormat, manifest_path
from core.filters import EXPORT_OPTIONS, ExportChoice
from core.moment import Moment
from core.reviewer_agreement import number
from db import curated, exports, queries
from pages import _export_state, _ui, _who

ORDER = "export_order"
RESULT = "export_result"
AGAIN = "export_again"
PREVIEW_ROWS = 10

QUESTIONS = {
    "undecided": ("Undecided rows", "Pairs of these rows wait for a decision; none was accepted."),
    "rejected": ("Rejected rows", "Every pair of these rows was rejected."),
    "not_reflected": ("Rows without a pair", "The teacher never rewrote these rows."),
}
OPTION_WORDS = {
    "original": "keep the original",
    "leave out": "leave out",
    "student's proposal": "take the student's proposal",
}
STATE_WORDS = {
    "accepted": "✓ accepted",
    "undecided": "? undecided",
    "rejected": "✗ rejected",
    "not_reflected": "– without a pair",
}
VERDICT_WORDS = {
    "accept": "as reflected",
    "edit": "after an edit",
    "new_instruction": "new instruction, old response",
    "new_response": "old instruction, new response",
}


@dataclass(frozen=True)
class Order:
    """An export as it was asked for: what the page showed when the button was pressed."""

    dataset_id: int
    choice: ExportChoice
    format: str
    mark: str
    moment: Moment | None = None

    @property
    def asked(self) -> tuple[int, ExportChoice, str, Moment | None]:
        """What was asked for. A page's own classes are made anew in every run, so results are compared by this."""
        return self.dataset_id, self.choice, self.format, self.moment


def choose() -> ExportChoice:
    """What becomes of the rows nobody accepted a pair of."""
    picked: dict[str, str] = {}
    for name, (label, help_text) in QUESTIONS.items():
        options = EXPORT_OPTIONS[name]
        wanted = st.query_params.get(name, options[0])
        picked[name] = st.radio(
            label,
            options,
            index=options.index(wanted) if wanted in options else 0,
            format_func=OPTION_WORDS.__getitem__,
            horizontal=True,
            key=f"export_{name}",
            help=help_text,
        )
        if picked[name] != options[0]:
            st.query_params[name] = picked[name]
        elif name in st.query_params:
            del st.query_params[name]
    if picked["undecided"] == "student's proposal":
        st.caption(":material/info: The student's proposals are guesses that nobody has checked; the manifest says so.")
    return ExportChoice(**picked)


def choose_format() -> ExportFormat:
    """The file format; its key stands in the URL."""
    keys = [one.key for one in FORMATS]
    wanted = st.query_params.get("format", keys[0])
    chosen = st.selectbox(
        "File format",
        FORMATS,
        index=keys.index(wanted) if wanted in keys else 0,
        format_func=lambda one: one.title,
        key="export_format",
    )
    st.caption(chosen.describes)
    st.query_params["format"] = chosen.key
    return chosen


def kept_count(counts: Sequence[Any], kept: str) -> int:
    return sum(row["n"] for row in counts if row["kept"] == kept)


def promise(summary: curated.CuratedCounts, *, n_members: int) -> None:
    """What will be in the file, by state."""
    counts = summary.counts
    cells = st.columns(4)
    cells[0].metric("Rows in the file", f"{summary.n_kept:,}", border=True)
    cells[1].metric("Reflected texts", _ui.number(kept_count(counts, "reflected")), border=True)
    cells[2].metric("Original texts", _ui.number(kept_count(counts, "original")), border=True)
    cells[3].metric("Left out", _ui.number(kept_count(counts, "left out")), border=True)
    table = pd.DataFrame(
        [
            {
                "Rows that are": STATE_WORDS[row["state"]],
                "How": VERDICT_WORDS.get(row["verdict"] or "", ""),
                "In the file": row["kept"],
                "Rows": row["n"],
                "Share": 100 * row["n"] / n_members,
            }
            for row in counts
        ]
    )
    st.dataframe(
        table,
        hide_index=True,
        column_config={
            "Rows": st.column_config.NumberColumn(format="localized"),
            "Share": st.column_config.ProgressColumn(format="%.1f %%", min_value=0, max_value=100),
        },
        key="export_counts",
    )


def preview(dataset_id: int, choice: ExportChoice, moment: Moment | None) -> None:
    """The first rows of the file."""
    rows = curated.curated_rows(_ui.current_service().store, dataset_id, choice, limit=PREVIEW_ROWS, moment=moment)
    if not rows:
        return
    st.subheader(f"The first {len(rows)} rows", anchor=False)
    table = pd.DataFrame(rows)
    table["verdict"] = [VERDICT_WORDS.get(row["verdict"] or "", STATE_WORDS[row["state"]]) for row in rows]
    called = _ui.people_names(_ui.current_service().store, sorted({row["reviewer"] for row in rows if row["reviewer"]}))
    table["reviewer"] = [called.get(row["reviewer"], "") for row in rows]
    st.dataframe(
        table[["instruction", "input", "output", "kept", "verdict", "reviewer"]],
        hide_index=True,
        row_height=78,
        column_config={
            "instruction": st.column_config.TextColumn("Instruction", width="medium"),
            "input": st.column_config.TextColumn("Input", width="small"),
            "output": st.column_config.TextColumn("Response", width="large"),
            "kept": st.column_config.TextColumn("Text", width="small"),
            "verdict": st.column_config.TextColumn("Verdict", width="small"),
            "reviewer": st.column_config.TextColumn("By", width="small"),
        },
        key="export_preview",
    )


def exported_by() -> str:
    """The name for the manifest: the reviewer's, asked here where nobody gave one yet."""
    if _who.source() == _who.PROVIDER:
        name = _ui.reviewer()
        st.caption(_ui.plain(f"The manifest will say that {name} exported it."))
        return name
    name = st.text_input("Exported by", value=_ui.reviewer(), max_chars=60, key="export_by")
    clean = sign_in.clean_name(name or "")
    if clean:
        st.session_state[_ui.REVIEWER] = clean
    return clean


def place_order(order: Order) -> None:
    """The button's callback: it gets what was on screen when it was drawn."""
    st.session_state[ORDER] = order
    st.session_state.pop(RESULT, None)


@contextmanager
def written(begins: str, *, n_rows: int, of: str = "") -> Iterator[Callable[[int], None]]:
    """A bar while a file is written; it is told how many rows are done, and goes when the file is there or refused."""
    bar = st.progress(0.0, text=begins)

    def on_rows(done: int) -> None:
        bar.progress(min(1.0, done / max(n_rows, 1)), text=f"{done:,}{of} rows")

    try:
        yield on_rows
    finally:
        bar.empty()


def carry_out(order: Order, *, dataset: str, n_rows: int) -> None:
    """Write the file, with progress; keep the result for the downloads."""
    service = _ui.current_service()
    try:
        with written(f"Writing {n_rows:,} rows …", n_rows=n_rows, of=f" of {n_rows:,}") as on_rows:
            done = exports.export_curated(
                service.store,
                service.settings.exports_path,
                dataset_id=order.dataset_id,
                dataset=dataset,
                choice=order.choice,
                format=order.format,
                expected=order.mark,
                exported_by=_ui.reviewer() or None,
                moment=order.moment,
                on_rows=on_rows,
            )
        st.session_state[RESULT] = (order.asked, done)
    except exports.CuratedSetChangedError as error:
        st.warning(_ui.plain(str(error)), icon=":material/sync_problem:")
    except AssayError as error:
        st.error(_ui.plain(str(error)))


def downloads(path: Path, *, key: str) -> None:
    """Buttons for a file and its manifest; one that is gone from the folder says so."""
    with st.container(horizontal=True):
        for label, file, icon in (
            ("Download the file", path, ":material/download:"),
            ("Download the manifest", manifest_path(path), ":material/receipt_long:"),
        ):
            if file.is_file():
                st.download_button(
                    label,
                    data=file.read_bytes,
                    file_name=file.name,
                    key=f"{key}-{file.name}",
                    icon=icon,
                    on_click="ignore",
                )
            else:
                st.caption(_ui.plain(f"{file.name} is not in the exports folder any more."))


def write_again(export_id: int, *, n_rows: int) -> bool:
    """Write an earlier export once more and keep what came of it; False: it said why not."""
    service = _ui.current_service()
    try:
        with written("Reading the state of then …", n_rows=n_rows) as on_rows:
            done = exports.export_again(
                service.store,
                service.settings.exports_path,
                export_id=export_id,
                exported_by=_ui.reviewer() or None,
                on_rows=on_rows,
            )
        st.session_state[AGAIN] = (export_id, done)
    except AssayError as error:
        st.error(_ui.plain(str(error)))
        return False
    return True


def show_result(done: exports.Exported) -> None:
    """What was written, with its digest."""
    result = done.result
    with st.container(border=True):
        st.markdown(f":material/check_circle: **{result.n_rows:,} rows written** · {result.n_bytes / 1024:,.0f} KiB")
        st.code(f"{result.path.name}\nsha256 {result.sha256}", language=None, wrap_lines=True)
        for note in result.notes:
            st.caption(_ui.plain(note))
        if done.same:
            st.markdown(":material/verified: The same bytes as the first time, read from the store as it was then.")
        elif done.same is not None:
            st.warning(_ui.plain(f"Other bytes than the first time. {done.differs}"), icon=":material/difference:")
        downloads(result.path, key=f"export-{done.export_id}")


def earlier(folder: Path) -> None:
    """Exports made so far; a chosen one can be downloaded again, or written again from the store."""
    rows = curated.exports(_ui.current_service().store)
    if not rows:
        return
    st.subheader("Earlier exports", anchor=False)
    columns = ["exported_at", "dataset", "file_name", "sha256", "exported_by"]
    called = _ui.people_names(_ui.current_service().store, (row["exported_by"] for row in rows if row["exported_by"]))
    table = pd.DataFrame(rows)[columns].fillna({"dataset": "removed dataset"})
    table["exported_by"] = table["exported_by"].map(called)
    state = st.dataframe(
        table,
        hide_index=True,
        placeholder="—",
        on_select="rerun",
        selection_mode="single-row",
        column_config={
            "exported_at": st.column_config.DatetimeColumn("When (UTC)", format="YYYY-MM-DD HH:mm"),
            "dataset": "Dataset",
            "file_name": st.column_config.TextColumn("File", width="large"),
            "sha256": st.column_config.TextColumn("SHA-256", width="medium"),
            "exported_by": "By",
        },
        key=f"export_earlier_{rows[0]['export_id']}",
    )
    chosen = state["selection"]["rows"]
    again, done = st.session_state.get(AGAIN, (None, None))
    if chosen:
        one_earlier(folder, rows[chosen[0]])
    elif again is not None:
        show_result(done)
    else:
        st.caption("Tick a row to download it, to see its state, or to write the same bytes again.")


def one_earlier(folder: Path, row: Mapping[str, Any]) -> None:
    """What can be done with an earlier export."""
    export_id = int(row["export_id"])
    recorded = curated.export_record(_ui.current_service().store, export_id)["manifest"]
    downloads(folder / row["file_name"], key=f"export-earlier-{export_id}")
    if "review" in recorded:
        found = recorded["review"]["agreement"]
        alpha = found["krippendorff_alpha"]
        st.caption(
            _ui.plain(
                f"{recorded['n_rows']:,} rows; {len(recorded['review']['reviewers']):,} reviewer(s); "
                f"{found['n_pairs_by_two_or_more']:,} pairs decided by two or more, Krippendorff's α "
                f"{number(alpha['value'])}{': ' + alpha['reason'] if alpha['reason'] else ''}"
            )
        )
    else:
        st.caption("An older version wrote it without naming its state; that of the same second is the likeliest.")
    if row["dataset"] is None:
        st.caption("Its dataset was removed, so it cannot be written again.")
        return
    with st.container(horizontal=True):
        pressed = st.button(
            "Write it again from the store", icon=":material/replay:", key=f"export-again-{export_id}",
            disabled=not _ui.may("administer"), help=_ui.why_not("administer"),
        )  # fmt: skip
        if pressed and write_again(export_id, n_rows=int(recorded["n_rows"])):
            st.rerun()
        st.button(
            "Look at its state", icon=":material/history:", key=f"export-state-{export_id}",
            on_click=_export_state.go_to, args=(f"export:{export_id}", int(row["dataset_id"])),
            help="The counts and rows as they were then, with other choices or formats if you like.",
        )  # fmt: skip


def main() -> None:
    _ui.header(
        "Export",
        "The curated set of a dataset as a file: exactly the rows counted here, as they are now or as they ever were.",
    )
    service = _ui.current_service()
    dataset_id = _ui.pick_dataset(key="export_dataset")
    dataset = next(row for row in queries.datasets(service.store) if row["dataset_id"] == dataset_id)
    left, right = st.columns([2, 3], gap="large")
    with left:
        moment = _export_state.choose(service.store, dataset_id)
        choice = choose()
        chosen = choose_format()
    summary = curated.curated_summary(service.store, dataset_id, choice, moment=moment)
    with right:
        promise(summary, n_members=dataset["n_members"])
        if not dataset["n_pairs"]:
            st.info("Nothing of this dataset has been reflected on, so the file would hold its originals only.")
            st.page_link("reflect.py", label="Reflect on this dataset", icon=":material/auto_awesome:")
        elif not dataset["n_decided"]:
            st.info("No pair of this dataset has been decided yet.")
            st.page_link("review.py", label="Review its pairs", icon=":material/compare:")
    with left:
        by = exported_by()
        st.button(
            f"Export {summary.n_kept:,} rows as {chosen.title}",
            type="primary",
            icon=":material/output:",
            disabled=summary.n_kept == 0 or not by or not _ui.may("administer"),
            help=_ui.why_not("administer"),
            on_click=place_order,
            args=(Order(dataset_id, choice, chosen.key, summary.mark, moment),),
            key="export_button",
        )
        if not by:
            st.caption("Write your name first: the manifest says who exported.")
        if not summary.n_kept:
            st.caption("With this choice every row is left out, so there is nothing to export.")
        order = st.session_state.pop(ORDER, None)
        if order is not None:
            carry_out(order, dataset=dataset["name"], n_rows=summary.n_kept)
        asked, done = st.session_state.get(RESULT, (None, None))
        if asked == (dataset_id, choice, chosen.key, moment):
            show_result(done)
    preview(dataset_id, choice, moment)
    earlier(service.settings.exports_path)


main()
