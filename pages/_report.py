"""What an import found: counts, notes and findings, on the screen right after it and later from what was kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from core.errors import InputError
from core.rules import Rule
from pages import _ui

COUNTS = (
    ("rows_read", "Rows read", "Rows of the file, bad ones among them; blank lines are not counted."),
    ("n_imported", "Imported", "Rows of the dataset. Self-instruct rows may hold several examples each."),
    ("n_exact_duplicates", "Exact duplicates", "Rows whose texts all stood earlier in the file, to the letter."),
    ("n_folded_duplicates", "Near duplicates", "Equal to an earlier row but for upper and lower case or white space."),
    ("n_empty_responses", "Empty responses", "Imported, but scores of the response will be missing, with the reason."),
    ("n_bad_rows", "Bad rows", "Rows that could not become an example. They are listed with line and reason."),
)
_WITHOUT_REFERENCE = ("n_empty_responses", "Without a reference", "Imported; references can be written for them later.")
SIGNS = {
    "bad row": "✗ bad row",
    "empty response": "○ empty response",
    "exact duplicate": "= exact duplicate",
    "folded duplicate": "≈ near duplicate",
}
STYLE = """<style>
[class*="st-key-report-counts"] [data-testid="stMetricValue"] {font-size: 1.3rem; line-height: 1.4;}
</style>"""


def counts(summary: Mapping[str, Any], *, key: str, imported: bool = True, references: bool = False) -> None:
    """The counts of a report in one line; ``references``: of an evaluation set, whose outputs are references."""
    shown = [entry for entry in COUNTS if imported or entry[0] != "n_imported"]
    if references:
        shown = [_WITHOUT_REFERENCE if entry[0] == _WITHOUT_REFERENCE[0] else entry for entry in shown]
    st.html(STYLE)
    with st.container(key=f"report-counts-{key}"):
        for column, (name, label, what) in zip(st.columns(len(shown)), shown, strict=True):
            column.metric(label, _ui.number(summary.get(name)), help=what, border=True)


def notes(texts: Sequence[str]) -> None:
    """What a user should know, one line each."""
    for text in texts:
        st.caption(f":material/info: {_ui.plain(text)}")


def findings(
    rows: Sequence[Mapping[str, Any]],
    *,
    summary: Mapping[str, Any],
    key: str,
    download: Callable[[], bytes] | bytes,
    file_name: str,
) -> None:
    """The findings as a table that can be narrowed to one kind, and as CSV. ``key`` names the import."""
    if not rows:
        st.caption("No row was bad, empty or a duplicate.")
        return
    kinds = list(dict.fromkeys(str(row["kind"]) for row in rows))
    wanted = None
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        if len(kinds) > 1:
            wanted = st.pills(
                "Show", kinds, format_func=lambda kind: SIGNS.get(kind, kind), key=f"{key}-kind",
                label_visibility="collapsed",
            )  # fmt: skip
        else:
            st.markdown(f"**{SIGNS.get(kinds[0], kinds[0])}**")
        st.download_button(
            "Report as CSV", data=download, file_name=file_name, mime="text/csv", icon=":material/download:",
            key=f"{key}-csv", on_click="ignore",
        )  # fmt: skip
    chosen = [row for row in rows if wanted in (None, row["kind"])]
    table = pd.DataFrame(
        {
            "what": [SIGNS.get(str(row["kind"]), str(row["kind"])) for row in chosen],
            "line": [row["line"] for row in chosen],
            "reason": [row["reason"] for row in chosen],
            "how the row begins": [row.get("excerpt") or "" for row in chosen],
        }
    )
    if not any(table["how the row begins"]):
        table = table.drop(columns="how the row begins")
    st.dataframe(
        table,
        hide_index=True,
        height="content" if len(table) <= 8 else 320,
        key=f"{key}-table",
        column_config={
            "what": st.column_config.TextColumn(width=150),
            "line": st.column_config.NumberColumn(format="localized", width="small"),
            "reason": st.column_config.TextColumn(width="large"),
            "how the row begins": st.column_config.TextColumn(width="large"),
        },
    )
    total = sum(summary.get(name, 0) for name, *_ in COUNTS[2:])
    if total > len(rows):
        st.caption(f"The first {len(rows):,} of {total:,} findings are shown, up to 250 of each kind.")


def _formula(rule: Mapping[str, Any]) -> str:
    try:
        return Rule.from_json(json.dumps(rule)).formula(digits=4)
    except InputError:  # kept by another version: it stands whole in the JSON
        return "in a form that this version does not read; see the JSON"


def selected(details: Mapping[str, Any], *, dataset_id: int) -> None:
    """How a selection by a rule came to be: in a few lines, the scorers as a table, all of it as JSON."""
    rule, size = details["rule"], details.get("size", {})
    refused = ", ".join(f"{n:,} {reason}" for reason, n in details.get("refused", {}).items())
    limits = ", ".join(f"{name} {value}" for name, value in details.get("constraints", {}).items() if value)
    lines = [
        f"The {details['n_selected']:,} best of {details['n_ranked']:,} rows of {details['from_dataset']['name']} "
        f"by the rule {rule['name']}.",
        f"Rule: {_formula(rule['rule'])}",
        "Size: " + ", ".join(f"{name} {value}" for name, value in size.items()),
        f"Constraints: {limits or 'none'}. Not ranked: {refused or 'none'}.",
        *(f"Applied all the same: {one}" for one in details.get("applied_despite", ())),
    ]
    notes(lines)
    scorers = [
        {name: scorer.get("family", {}).get(name) for name in ("output", "version", "model", "revision", "template")}
        for scorer in details.get("scorers", ())
    ]
    st.dataframe(scorers, hide_index=True, key=f"selected-scorers-{dataset_id}", height="content", placeholder="—")
    st.download_button(
        "Provenance as JSON", data=json.dumps(dict(details), indent=2, ensure_ascii=False).encode(),
        file_name=f"selection-{dataset_id}.json", mime="application/json", icon=":material/download:",
        key=f"selected-json-{dataset_id}", on_click="ignore",
    )  # fmt: skip


def kept(details: Mapping[str, Any], *, dataset_id: int, name: str) -> None:
    """The report that was kept with a dataset."""
    summary = details.get("report")
    if not summary and details.get("rule"):
        selected(details, dataset_id=dataset_id)
        return
    if not summary:
        st.caption("This dataset was not imported from a file, so there is no report of an import.")
        return
    counts(summary, key=f"report-{dataset_id}")
    st.caption(_ui.plain(f"{summary['container']} · {summary['source']} · {details.get('mapping', '')}"))
    notes(summary.get("notes", ()))
    rows = details.get("findings", [])
    findings(
        rows, summary=summary, key=f"report-{dataset_id}", download=_ui.csv_bytes(rows),
        file_name=f"import report {name}.csv",
    )  # fmt: skip
