"""Widgets that several pages share, and the rules of showing hostile text: as text, never as HTML or Markdown."""

from __future__ import annotations

import html
import io
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, TypeVar

import pandas as pd
import streamlit as st

from core.errors import AssayError
from core.formats import csv_cell
from db import people, permission, queries, service
from db.permission import Actor
from db.service import Service
from db.store import Store
from pages import _who

K = TypeVar("K")
REVIEWER = _who.NAME
_ADDRESS = re.compile(r"(?:(?<=http)|(?<=https))(?=://)|(?<=www)(?=\.)|(?=@)", re.IGNORECASE)
PICTURE, PICTURES = "picture_format", ("png", "svg")

# The table toolbar's own CSV would carry cells that a spreadsheet runs as formulas: pages offer guarded downloads.
STYLE = """<style>
.block-container {padding: 3.2rem 3rem 3rem; max-width: 1500px;}
.assay-text {white-space: pre-wrap; overflow-wrap: anywhere; border-left: 3px solid light-dark(#d5dcde, #33424a);
  padding: .35rem .7rem; line-height: 1.5; max-height: 32rem; overflow-y: auto;}
.assay-text.original {border-left-color: #5b6b7a;}
.assay-text.reflected {border-left-color: #0f8b8d;}
.assay-label {font-size: .78rem; letter-spacing: .04em; text-transform: uppercase; opacity: .68; margin-bottom: .15rem;}
.assay-badge {display: inline-block; padding: .05rem .5rem; border-radius: .6rem; font-size: .8rem;
  border: 1px solid currentColor; margin-right: .35rem;}
.assay-badge.good {color: #009672;} .assay-badge.bad {color: #cf5a06;} .assay-badge.plain {opacity: .75;}
[data-testid="stLayoutWrapper"]:has(> [class*="st-key-assay-keeper"]) {position: absolute; width: 0; height: 0;
  overflow: hidden;}
.st-key-assay-card {margin-top: 12vh;}
[data-testid="stSidebarContent"] {background: inherit;}
[data-testid="stSidebarUserContent"] {position: sticky; bottom: 0; padding: .35rem 1rem .6rem; background: inherit;}
[data-testid="stSidebarNavSeparator"] {display: none;}
[data-testid="stElementToolbarButton"]:has(button[aria-label="Download as CSV"]) {display: none;}
</style>"""


def current_service() -> Service:
    """The running service; where there is none the page says why and ends."""
    try:
        return service.current()
    except AssayError as error:
        st.error(plain(str(error)), icon=":material/database_off:")
        st.stop()


def plain(text: str) -> str:
    """Text for a place that reads Markdown (labels, messages): every character of Markdown stands for itself.

    Addresses become links even where each character is escaped: a word joiner, which nobody sees, keeps them apart.
    """
    return re.sub(r"([\\`*_{}\[\]()#+\-.!|~$:<>&^=])", r"\\\1", _ADDRESS.sub("\u2060", text))


def header(title: str, caption: str) -> None:
    """Title of a page with one sentence that says what it is for."""
    st.title(title, anchor=False)
    st.caption(caption)


def empty(message: str, *, page: str | None = None, label: str = "", icon: str = ":material/arrow_forward:") -> None:
    """What an empty page shows: what is missing, and a link to where it is made."""
    with st.container(border=True):
        st.markdown(message)
        if page is not None:
            st.page_link(page, label=label, icon=icon)


def _breakable(text: str) -> str:
    """Text as HTML. A browser takes minutes over 100,000 characters without a space: it gets places to break at."""
    ends = (run.end() for run in re.finditer(r"\S{500}(?=\S)", text))
    return "<wbr>".join(html.escape(text[start:end]) for start, end in pairwise((0, *ends, len(text))))


def text_block(text: str, *, label: str | None = None, kind: str = "", limit: int = 100_000) -> None:
    """Show text of a row as text. Nothing in it is interpreted; a longer text than ``limit`` is cut and says so."""
    shown = text[:limit]
    body = _breakable(shown) if shown else '<span style="opacity:.6">(empty)</span>'
    if len(text) > limit:
        body += f'\n<span style="opacity:.6">… cut for display: {len(text):,} characters in all</span>'
    top = f'<div class="assay-label">{html.escape(label)}</div>' if label else ""
    st.html(f'{top}<div class="assay-text {html.escape(kind)}">{body}</div>')


def badge(text: str, kind: str = "plain") -> str:
    """A small label as HTML, for :func:`badges`. ``kind``: good, bad or plain."""
    return f'<span class="assay-badge {kind}">{html.escape(text)}</span>'


def badges(*items: str) -> None:
    """Show labels made by :func:`badge` in one line."""
    st.html("".join(items))


def number(value: float | int | None, digits: int = 3) -> str:
    """A number for people; None is a dash, never 0."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "—"
    if isinstance(value, int) or float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.{digits}f}"


def compact(count: int | None) -> str:
    """A count that fits where there is little room: 9,421, 478k, 3.67M; None is a dash."""
    if count is None:
        return "—"
    if count < 10_000:
        return f"{count:,}"
    return f"{count / 1000:,.0f}k" if count < 999_500 else f"{count / 1e6:,.2f}M"


def duration(seconds: float | None) -> str:
    """Seconds as people say them: 42 s, 3 min 05 s, 2 h 10 min; None is a dash."""
    if seconds is None or math.isnan(seconds):
        return "—"
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"


def ago(moment: datetime | None) -> str:
    """How long ago a naive UTC moment was."""
    if moment is None:
        return "—"
    return f"{duration((datetime.now(UTC).replace(tzinfo=None) - moment).total_seconds())} ago"


def reviewer() -> str:
    """The identity under which this session works, or ""."""
    found = _who.known()
    return "" if found is None else found.identity


def actor() -> Actor | None:
    """Who sits at this session, with the role of this moment; None: nobody signed in or gave a name yet."""
    return _who.who()


def may(action: str) -> bool:
    """Whether who sits here may do this kind of action (:data:`db.permission.NEEDS`). The server asks again anyway."""
    acting = permission.acting()
    return acting is None or acting.may(action)


def why_not(action: str) -> str | None:
    """Why a button is switched off for who sits here, as its help; None: it is not."""
    if may(action):
        return None
    return f"This needs the role {permission.NEEDS[action]}. An admin can give it on the page People."


def allowed(action: str, *, disabled: bool = False, help: str | None = None) -> dict[str, Any]:
    """``disabled`` and ``help`` of a button for ``action``: off, with the reason, where the role forbids it."""
    why = why_not(action)
    return {"disabled": disabled or why is not None, "help": why or help}


def distinct(labels: Mapping[K, str], *, tell: Callable[[K], str] = str) -> dict[K, str]:
    """The labels of a select box, each one different: a repeated one gets what ``tell`` says of its key behind it.

    Streamlit knows an option by its label, so of two that read alike the wrong one may be taken.
    """
    counts = Counter(labels.values())
    return {key: label if counts[label] == 1 else f"{label} · {tell(key)}" for key, label in labels.items()}


def people_names(store: Store, identities: Iterable[str]) -> dict[str, str]:
    """What people are called, by identity; of two with one name both carry their identity."""
    known = people.names(store)
    return distinct({one: known.get(one, one) for one in identities})


def dataset_names(rows: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    """dataset_id -> "name (n rows)"."""
    return {row["dataset_id"]: f"{row['name']} ({row['n_members']:,} rows)" for row in rows}


def pick_dataset(label: str = "Dataset", *, key: str) -> int:
    """A select box over the datasets, its choice kept in the URL (``dataset``); an empty store ends the page."""
    names = dataset_names(queries.datasets(current_service().store))
    if not names:
        empty("There is no dataset yet.", page="load.py", label="Load a dataset")
        st.stop()
    wanted = st.query_params.get("dataset", "")
    options = list(names)
    index = options.index(int(wanted)) if wanted.isdecimal() and int(wanted) in names else 0
    chosen = st.selectbox(label, options, index=index, format_func=lambda i: names[i], key=key)
    st.query_params["dataset"] = str(chosen)
    return int(chosen)


def scorer_label(scorer: Mapping[str, Any]) -> str:
    """A scorer's name for people: output, and the model with its template where there is one."""
    model = scorer.get("model")
    if not model:
        return str(scorer["output"])
    parts = [str(model).rstrip("/").split("/")[-1], scorer.get("template")]
    if "core/demo/student" in str(model):
        parts[0] = "demo student"
    return f"{scorer['output']} · {' · '.join(str(p) for p in parts if p)}"


def csv_bytes(rows: Sequence[Mapping[str, Any]] | pd.DataFrame) -> bytes:
    """Rows as CSV for a spreadsheet: cells that a spreadsheet would run as a formula get a leading apostrophe."""
    table = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    guarded = table.map(lambda value: csv_cell(value) if isinstance(value, str) else value)
    buffer = io.StringIO()
    guarded.to_csv(buffer, index=False)
    return buffer.getvalue().encode("utf-8")


def _other_picture(shown: str) -> None:
    """A callback: the cameras of all charts save the other format from now on."""
    st.session_state[PICTURE] = next(one for one in PICTURES if one != shown)


def chart(figure: Any, *, key: str, data: Sequence[Mapping[str, Any]] | pd.DataFrame, name: str, **options: Any) -> Any:
    """A Plotly figure with its downloads: the picture (camera in its toolbar, PNG or SVG) and its data as CSV.

    The browser draws the picture itself, so that no renderer is needed on the server. One button below each figure
    says which format the cameras of all figures save, and changes it for this session.
    """
    picture = st.session_state.get(PICTURE, PICTURES[0])
    state = st.plotly_chart(
        figure,
        key=key,
        config={
            "displaylogo": False,
            # An SVG has no pixels to double, and Plotly would write them into its width.
            "toImageButtonOptions": {"format": picture, "filename": name, "scale": 2 if picture == "png" else 1},
        },
        **options,
    )
    with st.container(horizontal=True, gap="medium"):
        st.download_button(
            "Data of this chart",
            data=csv_bytes(data),
            file_name=f"{name}.csv",
            mime="text/csv",
            key=f"{key}-data",
            type="tertiary",
            icon=":material/download:",
            on_click="ignore",
        )
        st.button(
            f"Picture: {picture.upper()}",
            key=f"{key}-picture",
            type="tertiary",
            icon=":material/photo_camera:",
            help=f"The camera in a chart's toolbar saves it as {picture.upper()}. Press to change that to "
            f"{next(one for one in PICTURES if one != picture).upper()}, for all charts.",
            on_click=_other_picture,
            args=(picture,),
        )
    return state
